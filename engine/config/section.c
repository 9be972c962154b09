/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/config/keys_i.h"

#include <string.h>
#include <strings.h>

static const char NOT_KNOWN[] = "not known";
const char WHY_NO_CHECKPOINTS[] = "asof runs no checkpoints";
const char WHY_OWN_LEVELS[] = "asof keeps every commit for as long as its retention says";
const char WHY_OWN_CHECKS[] = "asof checks continuously, see verify";
const char WHY_OWN_STATE[] = "asof keeps no state beside the database";
const char WHY_OWN_WAKING[] = "asof is woken by each write";
const char WHY_OWN_TRANSFER[] = "asof transfers in its own way";
const char WHY_OWN_SHUTDOWN[] = "asof always finishes what was committed";
const char WHY_OWN_LOG[] = "asof logs to standard error or to a file, as logfmt or json";
const char WHY_OWN_SOCKET[] = "the control socket is always there, for its owner alone";
const char WHY_NO_MCP[] = "asof has no MCP server";
const char WHY_UNENCRYPTED[] =
        "asof has no such encryption, and the data would be stored unencrypted (key-file or "
        "key-command encrypts, see asof key; or remove the key)";

/* ---- sections ---- */

/* How many single changes make one word of the other; not past `max`. */
static unsigned distance(const char *a, const char *b, unsigned max)
{
	unsigned row[48], diagonal;
	size_t n = strlen(a), m = strlen(b);

	if (n >= 48 || m >= 48 || n > m + max || m > n + max)
		return max + 1;
	for (unsigned k = 0; k <= m; k++)
		row[k] = k;
	for (size_t i = 1; i <= n; i++) {
		diagonal = row[0];
		row[0] = (unsigned)i;
		for (size_t k = 1; k <= m; k++) {
			unsigned change = diagonal + (a[i - 1] != b[k - 1]);
			diagonal = row[k];
			unsigned insert = row[k - 1] + 1, remove = row[k] + 1;
			row[k] = insert < remove ? insert : remove;
			row[k] = change < row[k] ? change : row[k];
		}
	}
	return row[m];
}

static const struct key *find_key(const struct key *keys, const char *name)
{
	for (; keys && keys->name; keys++)
		if (strcmp(keys->name, name) == 0)
			return keys;
	return NULL;
}

static bool sounds_like_encryption(const char *name)
{
	return strstr(name, "encrypt") || strncmp(name, "sse", 3) == 0 || strstr(name, "kms") ||
	       strcmp(name, "age") == 0;
}

static void unknown_key(struct loader *l, unsigned line, const char *name, const char *what,
                        const struct key *keys)
{
	const char *best = NULL;
	unsigned max = strlen(name) < 5 ? 1 : 2, best_distance = max + 1;

	if (sounds_like_encryption(name)) {
		load_error(l, line, "%.60s: %s", name, WHY_UNENCRYPTED);
		return;
	}
	for (; keys->name; keys++) {
		unsigned d = distance(name, keys->name, max);
		if (d < best_distance) {
			best = keys->name;
			best_distance = d;
		}
	}
	if (best)
		load_error(l, line, "%.60s: not known in %s (did you mean %s?)", name, what, best);
	else
		load_ignore(l, line, name, NOT_KNOWN);
}

/* Whether a value was given at all; an empty variable is none. */
bool is_given(struct loader *l, const struct yaml_node *value, const char *key,
              const char **ret_text)
{
	const char *text = env_expand(l, value->line, key, value->text);

	*ret_text = text;
	return text && *text;
}

bool refuse_kind(struct loader *l, const struct yaml_node *value, const char *key,
                 enum yaml_kind want)
{
	static const char *const names[] = {"one value", "a list", "a mapping"};

	if (value->kind == want)
		return false;
	load_error(l, value->line, "%.60s: %s is expected, not %s", key, names[want],
	           names[value->kind]);
	return true;
}

static void store_number(void *to, unsigned v)
{
	memcpy(to, &v, sizeof(v));
}

void read_value(struct loader *l, const struct key *k, const struct yaml_node *value, void *section)
{
	void *to = (char *)section + k->offset;
	unsigned line = value->line;
	const char *text;
	uint64_t number;

	if (refuse_kind(l, value, k->name, YAML_TEXT) || !is_given(l, value, k->name, &text))
		return;
	switch (k->type) {
	case KEY_TEXT:
		*(const char **)to = text;
		break;
	case KEY_PATH:
		*(const char **)to = load_path(l, l->folder, text);
		break;
	case KEY_BOOL:
		value_bool(l, line, k->name, text, to);
		break;
	case KEY_UINT:
		if (value_uint(l, line, k->name, text, (uint64_t)k->min, (uint64_t)k->max, &number))
			store_number(to, (unsigned)number);
		break;
	case KEY_SIZE:
		value_size(l, line, k->name, text, to);
		break;
	case KEY_DURATION:
		value_duration(l, line, k->name, text, k->min, k->max, to);
		break;
	case KEY_SCHEDULE:
		value_schedule(l, line, k->name, text, to);
		break;
	case KEY_LISTEN:
		value_listen(l, line, k->name, text, to);
		break;
	default:
		break;
	}
}

/* Nothing, "", or a mapping or list without anything. */
bool is_empty(struct loader *l, const struct yaml_node *value, const char *key)
{
	const char *text;

	return value->kind == YAML_TEXT ? !is_given(l, value, key, &text) : value->n == 0;
}

/* The same of all that is in it: "age: {recipients: []}" asks for nothing. */
static bool asks_nothing(struct loader *l, const struct yaml_node *value, const char *key)
{
	const char *text;

	if (value->kind == YAML_TEXT)
		return !is_given(l, value, key, &text) || strcasecmp(text, "false") == 0;
	for (size_t i = 0; i < value->n; i++)
		if (++l->visits > MAX_VISITS || !asks_nothing(l, value->values[i], key))
			return false;
	return true;
}

static void read_key(struct loader *l, const struct yaml_node *key, const char *name,
                     const struct key *k, const struct yaml_node *value, void *section)
{
	switch (k->type) {
	case KEY_NODE:
		k->read(l, value, section);
		break;
	case KEY_UNUSED:
		load_ignore(l, key->line, name, k->why);
		break;
	case KEY_REFUSED:
		if (!asks_nothing(l, value, name))
			load_error(l, key->line, "%.60s: %s", name, k->why);
		break;
	default:
		read_value(l, k, value, section);
	}
}

/* A key is told apart from its neighbours once '_' is '-'. */
static bool normal_name(struct loader *l, const struct yaml_node *key, char out[64])
{
	size_t len = strlen(key->text);

	if (len == 0 || len >= 64) {
		load_error(l, key->line, "'%.60s' is no key", key->text);
		return false;
	}
	for (size_t i = 0; i <= len; i++)
		out[i] = (char)(key->text[i] == '_' ? '-' : key->text[i]);
	return true;
}

/* `more` (may be NULL) are keys of another struct that are taken here too. */
void read_section_or(struct loader *l, const struct yaml_node *node, const char *what,
                     const struct key *keys, void *section, const struct key *more,
                     void *more_section)
{
	if (++l->visits > MAX_VISITS) {
		if (l->visits == MAX_VISITS + 1)
			load_error(l, node->line, "aliases (*) make this configuration too large");
		return;
	}
	if (node->kind == YAML_TEXT && is_empty(l, node, what))
		return;
	if (refuse_kind(l, node, what, YAML_MAP))
		return;
	for (size_t i = 0; i < node->n; i++) {
		const struct yaml_node *key = node->keys[i], *value = node->values[i];
		char name[64];
		if (!normal_name(l, key, name))
			continue;
		const struct key *k = find_key(keys, name), *m = k ? NULL : find_key(more, name);
		if (k)
			read_key(l, key, name, k, value, section);
		else if (m)
			read_key(l, key, name, m, value, more_section);
		else
			unknown_key(l, key->line, name, what, keys);
	}
}

void read_section(struct loader *l, const struct yaml_node *node, const char *what,
                  const struct key *keys, void *section)
{
	read_section_or(l, node, what, keys, section, NULL, NULL);
}

/* ---- lists of words ---- */

void value_words(struct loader *l, const char *text, const char *const **ret, size_t *ret_n)
{
	const char **words = NULL;
	size_t n = 0;

	for (const char *p = text;;) {
		p += strspn(p, ", \t");
		size_t len = strcspn(p, ", \t");
		if (len == 0)
			break;
		words = memory_grow(l->memory, words, n, sizeof(*words));
		if (!words || !(words[n++] = memory_copy(l->memory, p, len))) {
			load_nomem(l);
			return;
		}
		p += len;
	}
	*ret = words;
	*ret_n = n;
}

/* One text, or a list of texts. */
void read_words(struct loader *l, const struct yaml_node *node, const char *key,
                const char *const **ret, size_t *ret_n)
{
	const char **words = NULL, *text;
	size_t n = 0;

	if (node->kind == YAML_TEXT) {
		if (is_given(l, node, key, &text))
			value_words(l, text, ret, ret_n);
		return;
	}
	if (refuse_kind(l, node, key, YAML_LIST))
		return;
	for (size_t i = 0; i < node->n && l->visits < MAX_VISITS; i++, l->visits++) {
		const struct yaml_node *item = node->values[i];
		if (refuse_kind(l, item, key, YAML_TEXT) || !is_given(l, item, key, &text))
			continue;
		words = memory_grow(l->memory, words, n, sizeof(*words));
		if (!words) {
			load_nomem(l);
			return;
		}
		words[n++] = text;
	}
	*ret = words;
	*ret_n = n;
}

void read_age(struct loader *l, const struct yaml_node *value, const char *key, int64_t *ret)
{
	const char *text;

	if (!refuse_kind(l, value, key, YAML_TEXT) && is_given(l, value, key, &text))
		value_age(l, value->line, key, text, ret);
}
