/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Variables: those of the process, and below them those of a file such as .env.backup.
 *
 *   KEY=VALUE            the value goes on to the end of the line, blanks within it included
 *   KEY=VALUE # comment  a '#' behind a blank begins a comment
 *   KEY="a \"b\" c"      quoted: \\, \", \$, \n mean what they mean in a shell
 *   KEY='a $b'           quoted: nothing means anything
 *   export KEY=VALUE     the word is left out
 *   # comment
 *
 * Lines end in \n or \r\n.  A name given twice has its last value.  An empty value is no
 * value.  Nothing in a value is expanded.
 */
#include "engine/config/config_i.h"

#include <ctype.h>
#include <string.h>
#include <unistd.h>

#define MAX_VARIABLES 1000
#define MAX_EXPANDED_BYTES ((size_t)64 << 10)
#define MAX_EXPAND_DEPTH 8

/* ---- the file ---- */

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static size_t name_length(const char *p, const char *end)
{
	size_t n = 0;

	if (p < end && isdigit((unsigned char)*p))
		return 0;
	while (p + n < end && (isalnum((unsigned char)p[n]) || p[n] == '_'))
		n++;
	return n;
}

static void file_error(struct loader *l, const struct env *e, unsigned line, const char *why)
{
	load_message(l, CONFIG_ERROR, e->path, line, "%s", why);
}

/* The value in quotes that begins at `p`; NULL after an error. */
static const char *read_quoted(struct loader *l, struct env *e, unsigned line, const char *p,
                               const char *end)
{
	char quote = *p++;
	char *out = memory_alloc(l->memory, (size_t)(end - p) + 1), *to = out;

	if (!out) {
		load_nomem(l);
		return NULL;
	}
	for (; p < end && *p != quote; p++) {
		if (quote == '"' && *p == '\\' && p + 1 < end && strchr("\\\"$`n", p[1]))
			*to++ = *++p == 'n' ? '\n' : *p;
		else
			*to++ = *p;
	}
	if (p == end) {
		file_error(l, e, line, "a quoted value has no end (close the quote)");
		return NULL;
	}
	for (p++; p < end && is_blank(*p); p++)
		;
	if (p < end && *p != '#') {
		file_error(l, e, line, "text goes on behind a quoted value (quote all of it)");
		return NULL;
	}
	return out;
}

static const char *read_plain(struct loader *l, const char *p, const char *end)
{
	const char *start = p;

	if (p < end && *p == '#')
		end = p;
	for (; p < end; p++)
		if (*p == '#' && p > start && is_blank(p[-1]))
			end = p;
	while (end > start && is_blank(end[-1]))
		end--;
	const char *value = memory_copy(l->memory, start, (size_t)(end - start));
	if (!value)
		load_nomem(l);
	return value;
}

static void set_variable(struct loader *l, struct env *e, const char *name, size_t len,
                         const char *value, unsigned line)
{
	struct env_variable *v = NULL;

	for (size_t i = 0; i < e->n && !v; i++)
		if (strlen(e->variables[i].name) == len &&
		    memcmp(e->variables[i].name, name, len) == 0)
			v = &e->variables[i];
	if (!v) {
		if (e->n == MAX_VARIABLES) {
			file_error(l, e, line, "the file has more than 1000 variables");
			return;
		}
		e->variables = memory_grow(l->memory, e->variables, e->n, sizeof(*v));
		const char *copy = memory_copy(l->memory, name, len);
		if (!e->variables || !copy) {
			e->n = 0;
			load_nomem(l);
			return;
		}
		v = &e->variables[e->n++];
		*v = (struct env_variable){.name = copy};
	}
	v->value = value;
	v->line = line;
}

static void read_line(struct loader *l, struct env *e, unsigned line, const char *p,
                      const char *end)
{
	while (p < end && is_blank(*p))
		p++;
	if (p == end || *p == '#')
		return;
	if (end - p > 7 && memcmp(p, "export", 6) == 0 && is_blank(p[6]))
		for (p += 7; p < end && is_blank(*p);)
			p++;
	const char *name = p;
	size_t len = name_length(p, end);
	for (p += len; p < end && is_blank(*p);)
		p++;
	if (len == 0 || p == end || *p != '=') {
		file_error(l, e, line, "no KEY=VALUE (a comment begins with #)");
		return;
	}
	for (p++; p < end && is_blank(*p);)
		p++;
	const char *value = p < end && (*p == '"' || *p == '\'') ? read_quoted(l, e, line, p, end)
	                                                         : read_plain(l, p, end);
	if (value)
		set_variable(l, e, name, len, value, line);
}

void env_read_text(struct loader *l, struct env *e, const char *text, size_t len)
{
	const char *p = text, *end = text + len;
	unsigned line = 1;

	if (len >= 3 && memcmp(p, "\xef\xbb\xbf", 3) == 0)
		p += 3;
	for (; p < end; line++) {
		const char *stop = memchr(p, '\n', (size_t)(end - p));
		const char *next = stop ? stop + 1 : end;
		stop = stop ? stop : end;
		if (stop > p && stop[-1] == '\r')
			stop--;
		if (stop > p && memchr(p, '\0', (size_t)(stop - p)))
			file_error(l, e, line, "a NUL byte (the file is no text)");
		else
			read_line(l, e, line, p, stop);
		p = next;
	}
}

/* ---- looking up ---- */

static const char *of_process(const struct env *e, const char *name)
{
	size_t len = strlen(name);

	for (const char *const *p = e->environment; p && *p; p++)
		if (strncmp(*p, name, len) == 0 && (*p)[len] == '=')
			return *p + len + 1;
	return NULL;
}

static bool is_path_variable(const char *name)
{
	return strcmp(name, "DATA_DIR") == 0 || strcmp(name, "BACKUP_DIR") == 0 ||
	       strcmp(name, "LITESTREAM_CONFIG") == 0;
}

const char *env_get(struct loader *l, const char *name, unsigned *ret_line)
{
	struct env *e = &l->env;
	const char *value = of_process(e, name), *folder = NULL;
	unsigned line = 0;

	for (size_t i = 0; i < e->n; i++) {
		struct env_variable *v = &e->variables[i];
		if (strcmp(v->name, name) != 0)
			continue;
		v->used = true;
		if (!value || !*value) {
			value = v->value;
			line = v->line;
			folder = e->folder;
		}
	}
	if (ret_line)
		*ret_line = line;
	if (!value || !*value)
		return NULL;
	return is_path_variable(name) ? load_path(l, folder, value) : value;
}

/* ---- expansion ---- */

struct expansion {
	struct loader *l;
	unsigned line;
	const char *key;
	char *out;
	size_t n;
	bool failed;
};

static void expand_text(struct expansion *x, const char *p, const char *end, unsigned depth);

static void put(struct expansion *x, const char *text, size_t len)
{
	if (x->failed)
		return;
	if (len > MAX_EXPANDED_BYTES - x->n) {
		load_error(x->l, x->line, "%s: more than 64 KiB once its variables are put in",
		           x->key);
		x->failed = true;
		return;
	}
	memcpy(x->out + x->n, text, len);
	x->n += len;
}

static void put_variable(struct expansion *x, const char *name, size_t len, const char *otherwise,
                         const char *end, unsigned depth)
{
	char text[128];

	if (len >= sizeof(text)) {
		load_error(x->l, x->line, "%s: the name of a variable is too long", x->key);
		x->failed = true;
		return;
	}
	memcpy(text, name, len);
	text[len] = '\0';
	const char *value = env_get(x->l, text, NULL);
	if (value) {
		put(x, value, strlen(value));
	} else if (otherwise) {
		expand_text(x, otherwise, end, depth + 1);
	} else if (strcmp(text, "PID") == 0) {
		int n = snprintf(text, sizeof(text), "%ld", (long)getpid());
		put(x, text, (size_t)n);
	}
}

/* The '}' that belongs to the '{' before `p`; NULL: none. */
static const char *closing(const char *p, const char *end)
{
	unsigned open = 1;

	for (; p < end; p++) {
		if (p[0] == '$' && p + 1 < end && p[1] == '{')
			open++;
		else if (*p == '}' && --open == 0)
			return p;
	}
	return NULL;
}

/* Behind "${"; returns what comes behind its '}'. */
static const char *expand_braces(struct expansion *x, const char *p, const char *end,
                                 unsigned depth)
{
	const char *close = closing(p, end), *otherwise = NULL;
	size_t len = name_length(p, end);
	const char *behind = p + len;

	if (close && behind < close) {
		if (*behind == ':')
			behind++;
		if (*behind == '-')
			otherwise = behind + 1;
	}
	if (!close || !len || (p + len != close && !otherwise) || depth >= MAX_EXPAND_DEPTH) {
		load_error(x->l, x->line,
		           "%s: '%.60s' is no variable (write ${NAME} or "
		           "${NAME:-default}; $$ is a dollar sign)",
		           x->key, p - 2);
		x->failed = true;
		return end;
	}
	put_variable(x, p, len, otherwise, close, depth);
	return close + 1;
}

static void expand_text(struct expansion *x, const char *p, const char *end, unsigned depth)
{
	while (p < end && !x->failed) {
		const char *dollar = memchr(p, '$', (size_t)(end - p));
		put(x, p, (size_t)((dollar ? dollar : end) - p));
		if (!dollar)
			return;
		p = dollar + 1;
		size_t len = name_length(p, end);
		if (p < end && *p == '{') {
			p = expand_braces(x, p + 1, end, depth);
		} else if (len) {
			put_variable(x, p, len, NULL, end, depth);
			p += len;
		} else {
			put(x, "$", 1);
			p += p < end && *p == '$';
		}
	}
}

const char *env_expand(struct loader *l, unsigned line, const char *key, const char *text)
{
	struct expansion x = {.l = l, .line = line, .key = key};

	if (!l->expand || !strchr(text, '$'))
		return text;
	cleanup_free char *room = malloc(MAX_EXPANDED_BYTES);
	if (!room) {
		load_nomem(l);
		return NULL;
	}
	x.out = room;
	expand_text(&x, text, text + strlen(text), 0);
	if (x.failed)
		return NULL;
	const char *copy = memory_copy(l->memory, room, x.n);
	if (!copy)
		load_nomem(l);
	return copy;
}
