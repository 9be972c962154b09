/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libyaml's events -> a tree with line numbers, within bounds: bytes, depth, nodes, keys.
 *
 * An alias is a second way to one node and no copy of it, so that nothing here grows faster
 * than the file; whoever walks the tree bounds the walk.  An anchor is known from the end of
 * its node on: what is inside cannot name it, so no node is below itself.
 */
#include "engine/config/config_i.h"

#include <string.h>
#include <strings.h>
#include <yaml.h>

#define MAX_ANCHORS 256

struct anchor {
	const char *name;
	struct yaml_node *node;
};

struct reader {
	struct loader *l;
	yaml_parser_t parser;
	yaml_event_t event;
	bool has_event;
	unsigned n_nodes;
	struct anchor anchors[MAX_ANCHORS];
	size_t n_anchors;
};

static unsigned line_of(yaml_mark_t mark)
{
	return mark.line >= UINT32_MAX - 1 ? 0 : (unsigned)mark.line + 1;
}

static unsigned line_of_offset(const char *text, size_t len, size_t offset)
{
	unsigned line = 1;

	for (size_t i = 0; i < offset && i < len; i++)
		line += text[i] == '\n';
	return line;
}

/* What is missing at the end is missed in the last line. */
static unsigned last_line_or(const char *text, size_t len, unsigned line)
{
	unsigned last = line_of_offset(text, len, len ? len - 1 : 0);

	return line < last ? line : last;
}

static void drop_event(struct reader *r)
{
	if (r->has_event)
		yaml_event_delete(&r->event);
	r->has_event = false;
}

/* The next event; false after a mistake in the text, which was reported. */
static bool next_event(struct reader *r, const char *text, size_t len)
{
	drop_event(r);
	if (yaml_parser_parse(&r->parser, &r->event)) {
		r->has_event = true;
		return true;
	}
	const yaml_parser_t *p = &r->parser;
	if (p->error == YAML_MEMORY_ERROR)
		load_nomem(r->l);
	else if (p->error == YAML_READER_ERROR)
		load_error(r->l, line_of_offset(text, len, p->problem_offset),
		           "no YAML: %s (write the file in UTF-8)", p->problem);
	else
		load_error(r->l, last_line_or(text, len, line_of(p->problem_mark)),
		           "no YAML: %s%s%s (column %zu)", p->context ? p->context : "",
		           p->context ? ", " : "", p->problem ? p->problem : "cannot be read",
		           p->problem_mark.column + 1);
	return false;
}

static struct yaml_node *new_node(struct reader *r, enum yaml_kind kind)
{
	unsigned line = line_of(r->event.start_mark);

	if (++r->n_nodes > YAML_MAX_NODES) {
		load_error(r->l, line, "the file has more than %d values (split it)",
		           YAML_MAX_NODES);
		return NULL;
	}
	struct yaml_node *n = memory_alloc(r->l->memory, sizeof(*n));
	if (!n) {
		load_nomem(r->l);
		return NULL;
	}
	n->kind = kind;
	n->line = line;
	return n;
}

static bool add_anchor(struct reader *r, const char *name, struct yaml_node *node)
{
	if (!name)
		return true;
	if (r->n_anchors == MAX_ANCHORS) {
		load_error(r->l, node->line, "the file has more than %d anchors", MAX_ANCHORS);
		return false;
	}
	r->anchors[r->n_anchors++] = (struct anchor){name, node};
	return true;
}

static struct yaml_node *follow_alias(struct reader *r)
{
	const char *name = (const char *)r->event.data.alias.anchor;

	/* The last of a name counts. */
	for (size_t i = r->n_anchors; i-- > 0;)
		if (strcmp(r->anchors[i].name, name) == 0)
			return r->anchors[i].node;
	load_error(r->l, line_of(r->event.start_mark),
	           "*%.60s: there is no &%.60s before it, or it would hold itself", name, name);
	return NULL;
}

/* Tags of YAML itself say what a value is anyway. */
static bool check_tag(struct reader *r, const yaml_char_t *tag)
{
	if (!tag || strncmp((const char *)tag, "tag:yaml.org,2002:", 18) == 0 || tag[0] == '!')
		if (!tag || tag[0] != '!' || !tag[1])
			return true;
	load_error(r->l, line_of(r->event.start_mark),
	           "the tag %.60s means nothing here (leave it out)", (const char *)tag);
	return false;
}

static struct yaml_node *read_scalar(struct reader *r)
{
	const char *value = (const char *)r->event.data.scalar.value;
	size_t len = r->event.data.scalar.length;
	struct yaml_node *n =
	        check_tag(r, r->event.data.scalar.tag) ? new_node(r, YAML_TEXT) : NULL;

	if (!n)
		return NULL;
	if (memchr(value, 0, len)) {
		load_error(r->l, n->line, "a value has a NUL byte in it");
		return NULL;
	}
	n->quoted = r->event.data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
	/* What YAML calls null is not given. */
	if (!n->quoted &&
	    ((len == 1 && value[0] == '~') || (len == 4 && !strcasecmp(value, "null"))))
		len = 0;
	if (!(n->text = memory_copy(r->l->memory, value, len))) {
		load_nomem(r->l);
		return NULL;
	}
	return n;
}

static bool append(struct reader *r, struct yaml_node *n, struct yaml_node *key,
                   struct yaml_node *value)
{
	n->values = memory_grow(r->l->memory, n->values, n->n, sizeof(struct yaml_node *));
	if (key)
		n->keys = memory_grow(r->l->memory, n->keys, n->n, sizeof(struct yaml_node *));
	if (!n->values || (key && !n->keys)) {
		load_nomem(r->l);
		return false;
	}
	n->values[n->n] = value;
	if (key)
		n->keys[n->n] = key;
	n->n++;
	return true;
}

static const struct yaml_node *find_key(const struct yaml_node *map, const char *text)
{
	for (size_t i = 0; i < map->n; i++)
		if (strcmp(map->keys[i]->text, text) == 0)
			return map->keys[i];
	return NULL;
}

static bool add_pair(struct reader *r, struct yaml_node *map, struct yaml_node *key,
                     struct yaml_node *value)
{
	if (map->n < YAML_MAX_KEYS)
		return append(r, map, key, value);
	load_error(r->l, key->line, "a mapping has more than %d keys", YAML_MAX_KEYS);
	return false;
}

/* "<<: *defaults": the pairs whose keys are not there yet. */
static bool merge(struct reader *r, struct yaml_node *map, const struct yaml_node *from,
                  bool nested)
{
	if (from->kind == YAML_LIST && !nested) {
		for (size_t i = 0; i < from->n; i++)
			if (!merge(r, map, from->values[i], true))
				return false;
		return true;
	}
	if (from->kind != YAML_MAP) {
		load_error(r->l, from->line, "<<: a mapping is expected, or a list of them");
		return false;
	}
	/* Merging is work that the file's size does not bound. */
	if ((r->n_nodes += (unsigned)from->n) > YAML_MAX_NODES) {
		load_error(r->l, map->line, "<<: too much is merged");
		return false;
	}
	for (size_t i = 0; i < from->n; i++)
		if (!find_key(map, from->keys[i]->text) &&
		    !add_pair(r, map, from->keys[i], from->values[i]))
			return false;
	return true;
}

static struct yaml_node *read_node(struct reader *r, const char *text, size_t len, unsigned depth);

static bool read_pair(struct reader *r, struct yaml_node *map, struct yaml_node **merges,
                      const char *text, size_t len, unsigned depth)
{
	struct yaml_node *key = read_node(r, text, len, depth);

	if (!key)
		return false;
	if (key->kind != YAML_TEXT) {
		load_error(r->l, key->line, "a key must be a plain word");
		return false;
	}
	if (!next_event(r, text, len))
		return false;
	struct yaml_node *value = read_node(r, text, len, depth);
	if (!value)
		return false;
	if (strcmp(key->text, "<<") == 0 && !key->quoted) {
		*merges = value;
		return true;
	}
	const struct yaml_node *first = find_key(map, key->text);
	if (first) {
		/* The rest can still be checked. */
		load_error(r->l, key->line, "%.60s: given twice, first in line %u (remove one)",
		           key->text, first->line);
		return true;
	}
	return add_pair(r, map, key, value);
}

static struct yaml_node *read_collection(struct reader *r, bool map, const char *text, size_t len,
                                         unsigned depth)
{
	yaml_event_type_t end = map ? YAML_MAPPING_END_EVENT : YAML_SEQUENCE_END_EVENT;
	struct yaml_node *n = new_node(r, map ? YAML_MAP : YAML_LIST), *merges = NULL;

	if (!n)
		return NULL;
	if (depth >= YAML_MAX_DEPTH) {
		load_error(r->l, n->line, "nested more than %d deep", YAML_MAX_DEPTH);
		return NULL;
	}
	while (next_event(r, text, len)) {
		if (r->event.type == end)
			return !merges || merge(r, n, merges, false) ? n : NULL;
		if (map) {
			if (!read_pair(r, n, &merges, text, len, depth + 1))
				return NULL;
			continue;
		}
		struct yaml_node *item = read_node(r, text, len, depth + 1);
		if (!item || !append(r, n, NULL, item))
			return NULL;
	}
	return NULL;
}

/* The node that begins with the present event; NULL after an error. */
static struct yaml_node *read_node(struct reader *r, const char *text, size_t len, unsigned depth)
{
	const yaml_char_t *anchor = NULL, *tag = NULL;
	struct yaml_node *n = NULL;
	const char *name = NULL;

	if (r->event.type == YAML_ALIAS_EVENT)
		return follow_alias(r);
	if (r->event.type == YAML_SCALAR_EVENT)
		anchor = r->event.data.scalar.anchor;
	else if (r->event.type == YAML_MAPPING_START_EVENT) {
		anchor = r->event.data.mapping_start.anchor;
		tag = r->event.data.mapping_start.tag;
	} else {
		anchor = r->event.data.sequence_start.anchor;
		tag = r->event.data.sequence_start.tag;
	}
	/* The event goes with the next one; its anchor is wanted later. */
	if (anchor && !(name = memory_copy(r->l->memory, (const char *)anchor,
	                                   strlen((const char *)anchor)))) {
		load_nomem(r->l);
		return NULL;
	}
	if (!check_tag(r, tag))
		return NULL;
	if (r->event.type == YAML_SCALAR_EVENT)
		n = read_scalar(r);
	else
		n = read_collection(r, r->event.type == YAML_MAPPING_START_EVENT, text, len, depth);
	return n && add_anchor(r, name, n) ? n : NULL;
}

static struct yaml_node *read_document(struct reader *r, const char *text, size_t len)
{
	struct yaml_node *root = NULL;

	while (next_event(r, text, len)) {
		switch (r->event.type) {
		case YAML_STREAM_END_EVENT:
			return root;
		case YAML_DOCUMENT_START_EVENT:
			if (root) {
				load_error(r->l, line_of(r->event.start_mark),
				           "a second document begins (a configuration is one)");
				return NULL;
			}
			break;
		case YAML_SCALAR_EVENT:
		case YAML_ALIAS_EVENT:
		case YAML_MAPPING_START_EVENT:
		case YAML_SEQUENCE_START_EVENT:
			if (!(root = read_node(r, text, len, 0)))
				return NULL;
			break;
		default:
			break;
		}
	}
	return NULL;
}

struct yaml_node *yaml_read(struct loader *l, const char *text, size_t len)
{
	struct reader *r = memory_alloc(l->memory, sizeof(*r));

	if (!r || !yaml_parser_initialize(&r->parser)) {
		load_nomem(l);
		return NULL;
	}
	r->l = l;
	yaml_parser_set_input_string(&r->parser, (const unsigned char *)text, len);
	struct yaml_node *root = read_document(r, text, len);
	drop_event(r);
	yaml_parser_delete(&r->parser);
	return root;
}
