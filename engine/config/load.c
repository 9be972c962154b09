/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the names of files to a configuration: reading, reporting, and what is done in which
 * order: what variables say; over it what the file says, which is expanded with them; then
 * everything that needs all of it.
 */
#include "engine/config/config_i.h"

#include "engine/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- messages ---- */

/* Control bytes do not get onto a terminal or into a log. */
static void make_one_line(char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			*text = '?';
}

static bool is_reported(const struct config_report *r, const struct config_message *m)
{
	for (size_t i = 0; i < r->n; i++)
		if (r->messages[i].line == m->line && strcmp(r->messages[i].file, m->file) == 0 &&
		    strcmp(r->messages[i].text, m->text) == 0)
			return true;
	return false;
}

static void add_message(struct loader *l, enum config_severity severity, const char *file,
                        unsigned line, const char *text)
{
	struct config_report *r = l->report;
	struct config_message m = {.severity = severity, .line = line};

	if (r->n >= CONFIG_MAX_MESSAGES) {
		r->n_errors += severity == CONFIG_ERROR;
		return;
	}
	m.file = memory_copy(r->memory, file, strlen(file));
	char *copy = memory_copy(r->memory, text, strlen(text));
	r->messages = memory_grow(r->memory, r->messages, r->n, sizeof(m));
	if (!m.file || !copy || !r->messages) {
		r->n = 0;
		load_nomem(l);
		return;
	}
	make_one_line(copy);
	m.text = copy;
	/* A node that aliases lead to is read more than once. */
	if (is_reported(r, &m))
		return;
	r->messages[r->n++] = m;
	r->n_errors += severity == CONFIG_ERROR;
}

void load_message(struct loader *l, enum config_severity severity, const char *file, unsigned line,
                  const char *fmt, ...)
{
	char text[4096];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	add_message(l, severity, file, line, text);
}

void load_error(struct loader *l, unsigned line, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	add_message(l, CONFIG_ERROR, l->file, line, text);
}

void load_nomem(struct loader *l)
{
	l->nomem = true;
}

void load_ignore(struct loader *l, unsigned line, const char *key, const char *why)
{
	struct ignored *i = NULL;

	for (size_t k = 0; k < l->n_ignored && !i; k++)
		if (strcmp(l->ignored[k].why, why) == 0 && strcmp(l->ignored[k].key, key) == 0)
			i = &l->ignored[k];
	if (!i) {
		l->ignored = memory_grow(l->memory, l->ignored, l->n_ignored, sizeof(*i));
		const char *copy = memory_copy(l->memory, key, strlen(key));
		if (!l->ignored || !copy) {
			l->n_ignored = 0;
			load_nomem(l);
			return;
		}
		i = &l->ignored[l->n_ignored++];
		*i = (struct ignored){.key = copy, .why = why};
	}
	for (unsigned k = 0; k < i->n_lines; k++)
		if (i->lines[k] == line)
			return;
	if (i->n_lines < sizeof(i->lines) / sizeof(i->lines[0]))
		i->lines[i->n_lines++] = line;
}

/* "levels (line 3), addr (lines 4, 9)", those of one reason, which are then done with. */
static void append_keys(struct loader *l, const char *why, char *out, size_t size)
{
	size_t used = strlen(out);
	bool first = true;

	for (size_t k = 0; k < l->n_ignored; k++) {
		struct ignored *i = &l->ignored[k];
		if (strcmp(i->why, why) != 0 || !i->n_lines || used + 128 > size)
			continue;
		used += (size_t)snprintf(out + used, size - used, "%s%.60s (line%s",
		                         first ? "" : ", ", i->key, i->n_lines > 1 ? "s" : "");
		for (unsigned n = 0; n < i->n_lines && used + 16 < size; n++)
			used += (size_t)snprintf(out + used, size - used, "%s %u", n ? "," : "",
			                         i->lines[n]);
		used += (size_t)snprintf(out + used, size - used, ")");
		i->n_lines = 0;
		first = false;
	}
	snprintf(out + used, size - used, ": %s", why);
}

/* One warning for all of them. */
static void report_ignored(struct loader *l)
{
	char text[4000] = "not used by asof: ";
	bool first = true;

	for (size_t k = 0; k < l->n_ignored; k++) {
		size_t used = strlen(text);
		if (!l->ignored[k].n_lines || used + 256 > sizeof(text))
			continue;
		if (!first)
			snprintf(text + used, sizeof(text) - used, "; ");
		append_keys(l, l->ignored[k].why, text, sizeof(text));
		first = false;
	}
	if (!first)
		load_message(l, CONFIG_WARNING, l->file, 0, "%s", text);
}

/* Stable: messages of one line stay in the order in which they were found. */
static void sort_messages(struct config_report *r, const char *file)
{
	for (size_t i = 1; i < r->n; i++) {
		struct config_message m = r->messages[i];
		bool own = strcmp(m.file, file) == 0;
		size_t k = i;
		for (; k > 0; k--) {
			const struct config_message *before = &r->messages[k - 1];
			bool before_own = strcmp(before->file, file) == 0;
			if (before_own != own ? before_own : before->line <= m.line)
				break;
			r->messages[k] = *before;
		}
		r->messages[k] = m;
	}
}

void config_report_release(struct config_report *r)
{
	memory_free(r->memory);
	*r = (struct config_report){0};
}

void config_message_format(const struct config_message *m, char out[CONFIG_LINE_MAX])
{
	char line[16] = "";

	if (m->line)
		snprintf(line, sizeof(line), ":%u", m->line);
	snprintf(out, CONFIG_LINE_MAX, "%s%s: %s%s", m->file, line,
	         m->severity == CONFIG_WARNING ? "warning: " : "", m->text);
}

void config_report_print(const struct config_report *r, FILE *out)
{
	char line[CONFIG_LINE_MAX];
	size_t errors = 0;

	for (size_t i = 0; i < r->n; i++) {
		config_message_format(&r->messages[i], line);
		fprintf(out, "%s\n", line);
		errors += r->messages[i].severity == CONFIG_ERROR;
	}
	if (errors < r->n_errors)
		fprintf(out, "and %zu errors more\n", r->n_errors - errors);
}

/* ---- paths ---- */

/* Takes out "//", "/./" and what ends in "/" or "/."; ".." stays, links may be before it. */
static void tidy_path(char *path)
{
	char *to = path;

	for (const char *p = path; *p;) {
		if (p[0] == '/' && (p[1] == '/' || (p[1] == '.' && (p[2] == '/' || !p[2])))) {
			p += p[1] == '/' ? 1 : 2;
			continue;
		}
		*to++ = *p++;
	}
	if (to > path + 1 && to[-1] == '/')
		to--;
	if (to == path)
		*to++ = '/';
	*to = '\0';
}

const char *load_path(struct loader *l, const char *folder, const char *path)
{
	const char *home = NULL;
	char here[PATH_MAX];
	char *whole;

	if (path[0] == '~' && (path[1] == '/' || !path[1]))
		home = env_get(l, "HOME", NULL);
	if (path[0] != '/' && !home && !folder)
		folder = getcwd(here, sizeof(here)) ? here : "/";
	if (home)
		whole = memory_printf(l->memory, "%s%s", home, path + 1);
	else if (path[0] == '/')
		whole = memory_copy(l->memory, path, strlen(path));
	else
		whole = memory_printf(l->memory, "%s/%s", folder, path);
	if (!whole) {
		load_nomem(l);
		return "/";
	}
	tidy_path(whole);
	return whole;
}

/* The folder of a file, absolute. */
static const char *folder_of(struct loader *l, const char *path)
{
	const char *whole = load_path(l, NULL, path);
	const char *slash = strrchr(whole, '/');
	size_t len = slash > whole ? (size_t)(slash - whole) : 1;
	const char *copy = memory_copy(l->memory, whole, len);

	if (!copy)
		load_nomem(l);
	return copy ? copy : "/";
}

/* ---- variables ---- */

#define ENV_FILE ".env.backup"

/* Of what is no file there may be no end, or none that comes by itself. */
static int get_text(const char *path, char **ret, size_t *ret_len, struct err *err)
{
	struct stat st;

	if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
		return err_set(err, ERR_USAGE, 0, "'%.200s' is no regular file", path);
	return file_get(AT_FDCWD, path, YAML_MAX_BYTES, ret, ret_len, err);
}

/* True if there was such a file, readable or not. */
static bool read_env_file(struct loader *l, const char *path, bool must_exist)
{
	cleanup_free char *text = NULL;
	struct err why = ERR_INIT;
	size_t len;

	int rc = get_text(path, &text, &len, &why);
	if (rc == -ERR_NOT_FOUND && !must_exist)
		return false;
	l->env.path = memory_copy(l->memory, path, strlen(path));
	l->env.folder = folder_of(l, path);
	if (!l->env.path)
		load_nomem(l);
	else if (rc)
		load_message(l, CONFIG_ERROR, path, 0, "%s", why.msg);
	else
		env_read_text(l, &l->env, text, len);
	return true;
}

static void find_env_file(struct loader *l, const struct config_options *options)
{
	char beside[PATH_MAX];

	if (options->env_path) {
		if (*options->env_path)
			read_env_file(l, options->env_path, true);
		return;
	}
	const char *slash = options->path ? strrchr(options->path, '/') : NULL;
	if (slash && slash - options->path < PATH_MAX - 32) {
		snprintf(beside, sizeof(beside), "%.*s/" ENV_FILE, (int)(slash - options->path),
		         options->path);
		if (read_env_file(l, beside, false))
			return;
	}
	read_env_file(l, ENV_FILE, false);
}

/* ---- the whole ---- */

const char *config_default_path(void)
{
	static const char *const paths[] = {"./asof.yml", "/etc/asof.yml"};

	for (size_t i = 0; i < 2; i++)
		if (access(paths[i], F_OK) == 0)
			return paths[i];
	return NULL;
}

static int read_file(struct loader *l, const char *path, char **ret, size_t *ret_len,
                     struct err *err)
{
	struct err why = ERR_INIT;
	int rc = get_text(path, ret, ret_len, &why);

	if (rc == -ERR_DAMAGED)
		return err_set(err, ERR_USAGE, 0, "configuration '%.200s': larger than 1 MiB",
		               path);
	if (rc == -ERR_NOT_FOUND)
		return err_set(err, ERR_USAGE, 0, "configuration '%.200s': no such file", path);
	return rc ? err_wrap(err, err_copy(err, &why), "configuration") : 0;
}

/* Users of the old system name their file by a variable. */
static const char *path_of_variables(struct loader *l)
{
	const char *path = env_get(l, "LITESTREAM_CONFIG", NULL);
	const char *enabled = env_get(l, "LITESTREAM_ENABLED", NULL);

	if (!path || (enabled && strcmp(enabled, "true") != 0))
		return NULL;
	if (access(path, F_OK) == 0)
		return path;
	load_message(l, CONFIG_WARNING, l->env.path ? l->env.path : l->file, 0,
	             "LITESTREAM_CONFIG: there is no '%.300s'", path);
	return NULL;
}

static int load(struct loader *l, const struct config_options *options, struct err *err)
{
	cleanup_free char *text = NULL;
	const char *path = options->path;
	size_t len = 0;
	int rc;

	find_env_file(l, options);
	if (!path && (path = path_of_variables(l)))
		l->file = path;
	if (path && (rc = read_file(l, path, &text, &len, err)))
		return rc;
	l->folder = path ? folder_of(l, path) : load_path(l, NULL, ".");
	l->c->path = path ? load_path(l, NULL, path) : NULL;
	l->c->env_path = l->env.path;
	struct yaml_node *root = len ? yaml_read(l, text, len) : NULL;
	/* After a mistake in the YAML itself everything else would only be confused. */
	if (root || len == 0 || l->report->n_errors == 0) {
		apply_variables(l);
		read_configuration(l, root);
		resolve_configuration(l);
		report_variables(l);
	}
	report_ignored(l);
	return 0;
}

int config_load(const struct config_options *options, struct config **ret,
                struct config_report *report, struct err *err)
{
	struct loader l = {.file = options->path ? options->path : "environment",
	                   .expand = !options->no_expand,
	                   .report = report};
	cleanup_config struct config *c = NULL;
	struct config_memory *memory = memory_new();
	int rc = 0;

	*report = (struct config_report){.memory = memory_new()};
	l.memory = memory;
	l.env.environment =
	        options->environment ? options->environment : (const char *const *)environ;
	l.c = c = memory_alloc(memory, sizeof(*c));
	if (!c || !report->memory) {
		memory_free(memory);
		c = NULL;
		return err_set(err, ERR_NOMEM, 0, "out of memory");
	}
	c->memory = memory;
	if ((rc = load(&l, options, err)))
		return rc;
	if (l.nomem)
		return err_set(err, ERR_NOMEM, 0, "configuration '%.200s': out of memory", l.file);
	sort_messages(report, l.file);
	if (report->n_errors)
		return err_set(err, ERR_USAGE, 0,
		               "configuration '%.200s': %zu error%s (asof check lists them)",
		               l.file, report->n_errors, report->n_errors == 1 ? "" : "s");
	*ret = take_ptr(c);
	return 0;
}

void config_free(struct config *c)
{
	if (!c)
		return;
	zone_free(c->zone);
	memory_free(c->memory); /* c itself lies in it */
}

/* ---- asking ---- */

const char *config_backup_type_name(enum config_backup_type type)
{
	static const char *const names[CONFIG_N_BACKUP_TYPES] = {"manual", "automated", "safety",
	                                                         "compressed"};

	return (unsigned)type < CONFIG_N_BACKUP_TYPES ? names[type] : "unknown";
}

const struct config_database *config_find_database(const struct config *c, const char *what)
{
	const char *slash = strrchr(what, '/');
	const char *last = slash && slash[1] ? slash + 1 : what;

	for (size_t i = 0; i < c->n_databases; i++)
		if (c->databases[i].path && strcmp(c->databases[i].path, what) == 0)
			return &c->databases[i];
	for (size_t i = 0; i < c->n_databases; i++)
		if (c->databases[i].name && strcmp(c->databases[i].name, last) == 0)
			return &c->databases[i];
	/* Named otherwise, but its file is called so. */
	for (size_t i = 0; i < c->n_databases; i++) {
		const char *path = c->databases[i].path;
		if (path && strcmp(strrchr(path, '/') + 1, last) == 0)
			return &c->databases[i];
	}
	return NULL;
}
