/* SPDX-License-Identifier: Apache-2.0 */
/* The places of a repair: what each has, and its history put together with that of the others. */
#include "engine/repair/repair_i.h"

#include "engine/archive/grow.h"
#include "engine/base/array.h"
#include "engine/base/buf.h"

#include <stdlib.h>
#include <string.h>

#define CACHE_BYTES (8u << 20)

void repair_key(const struct repair *r, const char *file, char out[STORE_KEY_MAX])
{
	if (r->name)
		snprintf(out, STORE_KEY_MAX, "local/%s/%s", r->name, file);
	else
		snprintf(out, STORE_KEY_MAX, "%s", file);
}

/* ---- listing ---- */

static bool in_folder(const char *file, const char *folder, const char **ret_base)
{
	size_t n = strlen(folder);

	*ret_base = file + n;
	return strncmp(file, folder, n) == 0 && !strchr(file + n, '/');
}

/* Whether it is a file that counts, and what its name tells. */
static bool classify(struct item *i)
{
	const char *base;
	bool parsed;

	if (in_folder(i->file, "segment/", &base)) {
		parsed = object_name_parse(base, &i->name);
		i->kind = i->name.type == OBJECT_GROWING   ? ITEM_GROWING
		          : i->name.type == OBJECT_COMMITS ? ITEM_TABLE
		                                           : ITEM_SEALED;
		return parsed && (i->name.type == OBJECT_GROWING || i->name.type == OBJECT_SEALED ||
		                  i->name.type == OBJECT_COMMITS);
	}
	if (in_folder(i->file, "coalesced/", &base)) {
		parsed = object_name_parse(base, &i->name) && i->name.type == OBJECT_SEALED;
		i->kind = ITEM_COALESCED;
		i->name.type = OBJECT_COALESCED;
		return parsed;
	}
	if (in_folder(i->file, "snapshot/", &base)) {
		i->kind = ITEM_SNAPSHOT;
		return object_name_parse(base, &i->name) && i->name.type == OBJECT_SNAPSHOT;
	}
	i->kind = ITEM_NOTE;
	return !strchr(i->file, '/');
}

int items_room(struct items *is, struct err *err)
{
	return array_room(is->v, is->n, is->cap, "the list of an archive", err);
}

struct listing {
	struct items *items;
	size_t prefix_len;
};

static int take(void *ctx, const struct store_entry *e, struct err *err)
{
	struct listing *l = ctx;
	struct items *is = l->items;
	struct item i = {.bytes = e->bytes};

	if (strlen(e->key + l->prefix_len) >= sizeof(i.file))
		return 0;
	snprintf(i.file, sizeof(i.file), "%s", e->key + l->prefix_len);
	if (!classify(&i))
		return 0;
	int rc = items_room(is, err);
	if (rc == 0)
		is->v[is->n++] = i;
	return rc;
}

static int by_file(const void *a, const void *b)
{
	return strcmp(((const struct item *)a)->file, ((const struct item *)b)->file);
}

int site_list(struct repair *r, struct site *s, struct err *err)
{
	char prefix[STORE_KEY_MAX];
	struct listing l = {.items = &s->items};

	s->items.n = 0;
	repair_key(r, "", prefix);
	l.prefix_len = strlen(prefix);
	int rc = store_list(s->at.store, prefix, NULL, true, take, &l, err);
	if (s->items.n)
		qsort(s->items.v, s->items.n, sizeof(*s->items.v), by_file);
	return rc;
}

struct item *site_find(const struct site *s, const char *file)
{
	struct item want;

	if (s->items.n == 0 || strlen(file) >= sizeof(want.file))
		return NULL;
	snprintf(want.file, sizeof(want.file), "%s", file);
	return bsearch(&want, s->items.v, s->items.n, sizeof(want), by_file);
}

void site_close(struct site *s)
{
	if (s->history)
		history_put(s->history);
	archive_free(s->archive);
	s->history = NULL;
	s->archive = NULL;
}

void site_release(struct site *s)
{
	site_close(s);
	free(s->items.v);
	s->items = (struct items){0};
}

/* ---- a store that is another's ---- */

struct borrowed {
	struct store base;
	struct store *inner;
	const struct site *hides; /* NULL: nothing is hidden */
	size_t prefix_len;
};

static struct borrowed *borrowed_of(struct store *s)
{
	return (struct borrowed *)s;
}

static bool is_hidden(const struct borrowed *b, const char *key)
{
	const struct item *i = b->hides && strlen(key) > b->prefix_len
	                               ? site_find(b->hides, key + b->prefix_len)
	                               : NULL;

	return i && i->bad;
}

static int gone(const char *key, struct err *err)
{
	return err_set(err, ERR_NOT_FOUND, ENOENT, "'%s' is damaged", key);
}

static int b_put(struct store *s, const char *key, struct source *body, uint64_t bytes,
                 unsigned flags, struct err *err)
{
	return err_set(err, ERR_READ_ONLY, 0, "'%s' is only read", s->label);
}

static int b_get(struct store *s, const char *key, size_t max_bytes, struct buf *ret,
                 struct err *err)
{
	struct borrowed *b = borrowed_of(s);

	return is_hidden(b, key) ? gone(key, err) : store_get(b->inner, key, max_bytes, ret, err);
}

static int b_open(struct store *s, const char *key, uint64_t bytes, struct source **ret,
                  struct err *err)
{
	struct borrowed *b = borrowed_of(s);

	return is_hidden(b, key) ? gone(key, err)
	                         : store_open_object(b->inner, key, bytes, ret, err);
}

struct passing {
	const struct borrowed *b;
	store_list_fn *fn;
	void *ctx;
};

static int pass(void *ctx, const struct store_entry *e, struct err *err)
{
	struct passing *p = ctx;

	return is_hidden(p->b, e->key) ? 0 : p->fn(p->ctx, e, err);
}

static int b_list(struct store *s, const char *prefix, const char *after, bool deep,
                  store_list_fn *fn, void *ctx, struct err *err)
{
	struct passing p = {borrowed_of(s), fn, ctx};

	return store_list(p.b->inner, prefix, after, deep, pass, &p, err);
}

static int b_remove(struct store *s, const char *key, struct err *err)
{
	return err_set(err, ERR_READ_ONLY, 0, "'%s' is only read", s->label);
}

static void b_counters(struct store *s, struct store_counters *ret)
{
	store_get_counters(borrowed_of(s)->inner, ret);
}

static void b_free(struct store *s)
{
	free(s->label);
	free(s);
}

int site_borrow(const struct site *s, const char *db, bool hide_bad, struct store **ret,
                struct err *err)
{
	static const struct store_ops ops = {b_put,    b_get,      b_open, b_list,
	                                     b_remove, b_counters, b_free};
	struct borrowed *b = calloc(1, sizeof(*b));

	if (!b || !(b->base.label = strdup(s->at.store->label))) {
		free(b);
		return err_set(err, ERR_NOMEM, 0, "no memory to open '%s'", s->at.label);
	}
	b->base.ops = &ops;
	b->base.remote = s->at.store->remote;
	b->base.sealed = s->at.store->sealed;
	b->base.dir_fd = hide_bad ? -1 : s->at.store->dir_fd;
	b->inner = s->at.store;
	b->hides = hide_bad ? s : NULL;
	b->prefix_len = strlen("local/") + strlen(db) + 1;
	*ret = &b->base;
	return 0;
}

/* ---- histories ---- */

int site_history(struct repair *r, struct site *s, struct history **ret, struct err *err)
{
	const struct archive_options o = {.cache_bytes = CACHE_BYTES};
	struct store *stores[16];
	size_t n = 0;
	int rc = 0;

	if (s->history) {
		*ret = s->history;
		return 0;
	}
	struct site *all[16] = {s};
	size_t n_all = 1;
	if (s != &r->target)
		all[n_all++] = &r->target;
	for (size_t i = 0; i < r->n_others && n_all < 16; i++)
		if (&r->others[i] != s && r->others[i].same && fork_none(r, &r->others[i]))
			all[n_all++] = &r->others[i];
	for (; n < n_all && rc == 0; n += rc == 0)
		rc = site_borrow(all[n], r->name, all[n] == &r->target, &stores[n], err);
	if (rc < 0) {
		while (n > 0)
			store_free(stores[--n]);
		return rc;
	}
	rc = archive_open_stores(stores, n, &o, &s->archive, err);
	if (rc == 0)
		rc = history_get(s->archive, r->name, &s->history, err);
	if (rc < 0) {
		site_close(s);
		return rc;
	}
	history_log_damage(s->history, false);
	*ret = s->history;
	return 0;
}

int site_agrees(struct repair *r, const struct site *s, uint32_t lineage, bool *ret,
                struct err *err)
{
	const struct object_name n = {.type = OBJECT_LINEAGE, .lineage = lineage};
	cleanup_buf struct buf mine = BUF_INIT(REPAIR_NOTE_MAX), theirs = BUF_INIT(REPAIR_NOTE_MAX);
	char file[OBJECT_NAME_MAX], key[STORE_KEY_MAX];
	struct err why = ERR_INIT;

	*ret = false;
	object_name_format(&n, file);
	repair_key(r, file, key);
	int rc = store_get(s->at.store, key, REPAIR_NOTE_MAX, &theirs, &why);
	if (rc < 0)
		return why.kind == ERR_NOT_FOUND ? 0 : err_copy(err, &why);
	rc = store_get(r->target.at.store, key, REPAIR_NOTE_MAX, &mine, &why);
	if (rc < 0 && why.kind != ERR_NOT_FOUND)
		return err_copy(err, &why);
	/* In a dry run the note that is to come is not there yet. */
	if (rc == 0 && r->options->dry_run)
		rc = whole_check_note(file, &mine, &why);
	*ret = rc < 0 ? r->options->dry_run
	              : mine.len == theirs.len && memcmp(mine.data, theirs.data, mine.len) == 0;
	return 0;
}
