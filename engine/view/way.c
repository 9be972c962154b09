/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/view/way.h"

#include "engine/archive/grow.h"
#include "engine/store/borrowed.h"
#include "engine/store/store.h"
#include "engine/view/replay.h"

#include <stdlib.h>

#define LOOKS 4096

int way_newest_first(const void *a, const void *b)
{
	const struct way_known *x = a, *y = b;

	return x->txid > y->txid ? -1 : x->txid < y->txid;
}

/* Of a commit, whole database or not (a gap can hide all in which two differ); else of a moment.
 * *ret_damaged: it is there, and cannot be read. */
static bool time_of(struct history *h, uint64_t txid, int64_t *ret_us, bool *ret_damaged)
{
	struct err why = ERR_INIT;
	struct commit c;
	struct moment m;

	*ret_damaged = false;
	if (history_commit(h, txid, &c, &why) == 0)
		*ret_us = c.time_us;
	else if (history_tx(h, txid, &m, NULL) == 0)
		*ret_us = m.time_us;
	else
		return *ret_damaged = why.kind != ERR_NOT_FOUND && why.kind != ERR_GAP, false;
	return true;
}

bool way_look(struct way *w, const struct way_known *k, struct history *other)
{
	int64_t there_us;
	bool damaged;

	if (k->txid == 0 || !time_of(other, k->txid, &there_us, &damaged))
		return true;
	if (there_us == k->time_us)
		w->agrees_txid = k->txid;
	else if (w->differs_txid == 0)
		w->differs_txid = k->txid;
	return w->agrees_txid == 0;
}

static uint64_t newest(const struct history_object *objects, size_t n)
{
	uint64_t txid = 0;

	for (size_t i = 0; i < n; i++)
		if (objects[i].last_txid > txid)
			txid = objects[i].last_txid;
	return txid;
}

static bool known(const struct way *w)
{
	return w->differs_txid || w->agrees_txid;
}

/* Before the segments that hold this one. */
static uint64_t before_segment(const struct history_object *objects, size_t n, uint64_t txid)
{
	uint64_t before = txid - 1;

	for (size_t i = 0; i < n; i++) {
		const struct history_object *o = &objects[i];
		bool segment = o->type == HISTORY_GROWING || o->type == HISTORY_SEGMENT;
		if (segment && o->first_txid <= txid && o->last_txid >= txid &&
		    o->first_txid - 1 < before)
			before = o->first_txid - 1;
	}
	return before;
}

struct side {
	struct history *history;
	struct history_object *objects;
	size_t n;
};

/* Gives the next one to be looked at. */
static uint64_t look(struct way *w, const struct side *a, const struct side *b, uint64_t txid)
{
	struct way_known of_a = {.txid = txid}, of_b = {.txid = txid};
	bool damaged;

	if (!time_of(b->history, txid, &of_b.time_us, &damaged))
		return damaged ? before_segment(b->objects, b->n, txid) : txid - 1;
	if (!time_of(a->history, txid, &of_a.time_us, &damaged))
		return damaged ? before_segment(a->objects, a->n, txid) : txid - 1;
	*(of_a.time_us == of_b.time_us ? &w->agrees_txid : &w->differs_txid) = txid;
	return 0;
}

void way_compare(struct history *a, struct history *b, struct way *ret)
{
	struct side of_a = {.history = a}, of_b = {.history = b};

	*ret = (struct way){.differs_txid = 0};
	if (history_objects(a, &of_a.objects, &of_a.n, NULL) == 0 &&
	    history_objects(b, &of_b.objects, &of_b.n, NULL) == 0) {
		uint64_t last = newest(of_a.objects, of_a.n), txid = newest(of_b.objects, of_b.n);
		ret->other_txid = txid;
		if (txid > last)
			txid = last;
		for (unsigned i = 0; txid > 0 && i < LOOKS; i++)
			txid = look(ret, &of_a, &of_b, txid);
		/* Where one of them was thinned, so many may be gone. */
		for (size_t i = of_b.n; !known(ret) && i-- > 0;)
			if (of_b.objects[i].last_txid)
				look(ret, &of_a, &of_b, of_b.objects[i].last_txid);
	}
	free(of_a.objects);
	free(of_b.objects);
}

int way_open(struct store *at, const char *name, struct archive **ret_archive, struct history **ret,
             struct err *err)
{
	const struct archive_options o = {.cache_bytes = 1u << 20};
	struct store *store;

	int rc = store_borrow(at, &store, err);
	rc = rc ? rc : archive_open_stores(&store, 1, &o, ret_archive, err);
	rc = rc ? rc : history_get(*ret_archive, name, ret, err);
	if (rc == 0)
		history_log_damage(*ret, false);
	return rc;
}

/* ---- what is left of what is damaged ---- */

struct listening {
	struct way_known *v;
	size_t n, cap;
};

static int listen(void *ctx, uint64_t txid, int64_t time_us, struct err *err)
{
	struct listening *l = ctx;

	if (l->n == l->cap) {
		size_t cap = l->cap ? 2 * l->cap : 256;
		struct way_known *v = realloc(l->v, cap * sizeof(*v));
		if (!v)
			return err_set(err, ERR_NOMEM, 0, "no memory to compare two archives");
		l->v = v;
		l->cap = cap;
	}
	l->v[l->n++] = (struct way_known){txid, time_us};
	return 0;
}

static bool agrees(struct history *other, uint64_t txid, int64_t time_us)
{
	int64_t there_us;
	bool damaged;

	return time_us && time_of(other, txid, &there_us, &damaged) && there_us == time_us;
}

static void agree(struct way *w, struct history *other, uint64_t txid, int64_t time_us)
{
	if (txid > w->agrees_txid && agrees(other, txid, time_us))
		w->agrees_txid = txid;
}

int way_tell(struct source *damaged, struct history *other, struct way *way, uint64_t *ret_last,
             struct err *err)
{
	struct listening l = {.n = 0};
	struct err why = ERR_INIT;
	bool to_end = false;

	*ret_last = 0;
	int rc = grow_tell(damaged, listen, &l, &to_end, &why);
	if (to_end && l.n)
		*ret_last = l.v[l.n - 1].txid;
	for (size_t i = 0; i < LOOKS && i < l.n && l.v[l.n - 1 - i].txid > way->agrees_txid; i++)
		agree(way, other, l.v[l.n - 1 - i].txid, l.v[l.n - 1 - i].time_us);
	free(l.v);
	return rc < 0 && why.kind == ERR_NOMEM ? err_copy(err, &why) : 0;
}

static void prove(struct store *own, const char *name, struct side *a, struct side *b,
                  struct way *way)
{
	for (size_t i = 0; i < a->n; i++) {
		const struct history_object *o = &a->objects[i];
		struct source *s = NULL;
		char key[STORE_KEY_MAX];
		uint64_t last;
		if (o->type == HISTORY_SEGMENT) {
			agree(way, b->history, o->last_txid, o->last_us);
			agree(way, b->history, o->first_txid, o->first_us);
		}
		if (o->type != HISTORY_GROWING ||
		    (o->last_txid && o->last_txid <= way->agrees_txid))
			continue;
		snprintf(key, sizeof(key), "local/%s/segment/%s", name, o->file);
		if (store_open_object(own, key, UINT64_MAX, &s, NULL) < 0)
			continue;
		if (way_tell(s, b->history, way, &last, NULL) < 0)
			way->agrees_txid = 0;
		source_free(s);
	}
}

static void compare_places(struct store *a, struct store *b, const char *name, bool proves,
                           struct way *ret)
{
	struct archive *archives[2] = {NULL, NULL};
	struct history *of_a = NULL, *of_b = NULL;

	*ret = (struct way){.differs_txid = 0};
	if (way_open(a, name, &archives[0], &of_a, NULL) == 0 &&
	    way_open(b, name, &archives[1], &of_b, NULL) == 0) {
		struct side own = {.history = of_a}, other = {.history = of_b};
		way_compare(of_a, of_b, ret);
		if (proves && !ret->differs_txid &&
		    history_objects(of_a, &own.objects, &own.n, NULL) == 0)
			prove(a, name, &own, &other, ret);
		free(own.objects);
	}
	if (of_a)
		history_put(of_a);
	if (of_b)
		history_put(of_b);
	archive_free(archives[0]);
	archive_free(archives[1]);
}

void way_compare_places(struct store *a, struct store *b, const char *name, struct way *ret)
{
	compare_places(a, b, name, false, ret);
}

void way_shared(struct store *own, struct store *other, const char *name, struct way *ret)
{
	compare_places(own, other, name, true, ret);
}
