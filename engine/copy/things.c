/* SPDX-License-Identifier: Apache-2.0 */
/* What a store has of one database, as names tell it: nothing is read. */
#include "engine/archive/grow.h"
#include "engine/base/array.h"
#include "engine/copy/between_i.h"
#include "engine/store/crypt.h"

#include <stdlib.h>
#include <string.h>

/* ---- listing ---- */

static enum thing_kind note_kind(const char *file)
{
	char mark[DB_NAME_MAX + 1];
	struct object_name n;
	uint64_t txid;

	if (strcmp(file, "source") == 0)
		return THING_SOURCE;
	if (strcmp(file, "thinned") == 0)
		return THING_THINNED;
	if (strcmp(file, "head") == 0)
		return THING_HEAD;
	if (copy_is_writer(file))
		return THING_WRITER;
	if (object_name_parse(file, &n))
		return n.type == OBJECT_LINEAGE ? THING_LINEAGE : THING_OTHER;
	if (gap_name_parse(file, &txid))
		return THING_GAP;
	return mark_file_parse(file, mark) ? THING_MARK : THING_OTHER;
}

static bool in_folder(const char *file, const char *folder, const char **ret_base)
{
	size_t n = strlen(folder);

	*ret_base = file + n;
	return strncmp(file, folder, n) == 0 && !strchr(file + n, '/');
}

static void classify(struct thing *t)
{
	const char *base;

	t->kind = THING_OTHER;
	if (!strchr(t->file, '/')) {
		t->kind = note_kind(t->file);
	} else if (in_folder(t->file, "segment/", &base) && object_name_parse(base, &t->name)) {
		t->kind = t->name.type == OBJECT_GROWING   ? THING_LEVEL0
		          : t->name.type == OBJECT_SEALED  ? THING_SEALED
		          : t->name.type == OBJECT_COMMITS ? THING_TABLE
		                                           : THING_OTHER;
	} else if (in_folder(t->file, "coalesced/", &base) && object_name_parse(base, &t->name)) {
		t->kind = t->name.type == OBJECT_SEALED ? THING_COALESCED : THING_OTHER;
	} else if (in_folder(t->file, "snapshot/", &base) && object_name_parse(base, &t->name)) {
		t->kind = t->name.type == OBJECT_SNAPSHOT ? THING_SNAPSHOT : THING_OTHER;
	}
}

int things_add(struct things *ts, const struct thing *t, struct err *err)
{
	int rc = array_room(ts->v, ts->n, ts->cap, "the list of an archive", err);

	if (rc == 0)
		ts->v[ts->n++] = *t;
	return rc;
}

struct listing {
	struct things *things;
	size_t prefix_len;
};

static int take(void *ctx, const struct store_entry *e, struct err *err)
{
	struct listing *l = ctx;
	const char *file = e->key + l->prefix_len;
	struct thing t = {.bytes = e->bytes};

	/* What has longer names is none of an archive's. */
	if (!*file || strlen(file) >= sizeof(t.file))
		return 0;
	snprintf(t.file, sizeof(t.file), "%s", file);
	classify(&t);
	return things_add(l->things, &t, err);
}

static int by_file(const void *a, const void *b)
{
	return strcmp(((const struct thing *)a)->file, ((const struct thing *)b)->file);
}

/* Segments by where they begin; the others behind what they need. */
static int by_txid(const void *a, const void *b)
{
	const struct thing *x = *(const struct thing *const *)a,
	                   *y = *(const struct thing *const *)b;
	bool derived_x = x->kind == THING_COALESCED || x->kind == THING_SNAPSHOT,
	     derived_y = y->kind == THING_COALESCED || y->kind == THING_SNAPSHOT;
	uint64_t at_x = derived_x ? x->name.last_txid : x->name.first_txid,
	         at_y = derived_y ? y->name.last_txid : y->name.first_txid;

	if (at_x != at_y)
		return at_x < at_y ? -1 : 1;
	if (derived_x != derived_y)
		return derived_x ? 1 : -1;
	return strcmp(x->file, y->file);
}

int things_list(struct things *ts, struct store *store, const char *prefix, struct err *err)
{
	struct listing l = {.things = ts, .prefix_len = strlen(prefix)};

	things_release(ts);
	int rc = store_list(store, prefix, NULL, true, take, &l, err);
	if (rc < 0)
		return rc;
	if (ts->n)
		qsort(ts->v, ts->n, sizeof(*ts->v), by_file);
	ts->n_sorted = ts->n;
	ts->order = calloc(ts->n + 1, sizeof(struct thing *));
	if (!ts->order)
		return err_set(err, ERR_NOMEM, 0, "no memory to list an archive");
	for (size_t i = 0; i < ts->n; i++)
		ts->order[i] = &ts->v[i];
	if (ts->n)
		qsort(ts->order, ts->n, sizeof(*ts->order), by_txid);
	return 0;
}

void things_release(struct things *ts)
{
	free(ts->v);
	free(ts->order);
	*ts = (struct things){.n = 0};
}

const struct thing *things_find(const struct things *ts, const char *file)
{
	struct thing want;

	if (strlen(file) >= sizeof(want.file))
		return NULL;
	snprintf(want.file, sizeof(want.file), "%s", file);
	const struct thing *t =
	        ts->n_sorted ? bsearch(&want, ts->v, ts->n_sorted, sizeof(want), by_file) : NULL;
	for (size_t i = ts->n_sorted; i < ts->n && !t; i++)
		if (strcmp(ts->v[i].file, file) == 0)
			t = &ts->v[i];
	return t;
}

/* ---- objects ---- */

static bool is_segment(const struct thing *t)
{
	return t->kind == THING_LEVEL0 || t->kind == THING_SEALED;
}

bool thing_is_object(const struct thing *t)
{
	return is_segment(t) || t->kind == THING_COALESCED || t->kind == THING_SNAPSHOT;
}

struct history_object thing_object(const struct thing *t)
{
	const char *base = strrchr(t->file, '/');
	struct history_object o = {.type = t->kind == THING_LEVEL0      ? HISTORY_GROWING
	                                   : t->kind == THING_SEALED    ? HISTORY_SEGMENT
	                                   : t->kind == THING_COALESCED ? HISTORY_COALESCED
	                                                                : HISTORY_SNAPSHOT,
	                           .lineage = t->name.lineage,
	                           .first_txid = t->name.first_txid,
	                           .last_txid = t->name.last_txid,
	                           .first_us = t->name.first_us,
	                           .last_us = t->name.last_us,
	                           .min_pages = t->name.min_pages,
	                           .bytes = t->bytes};

	snprintf(o.file, sizeof(o.file), "%.191s", base ? base + 1 : t->file);
	return o;
}

uint64_t things_first(const struct things *ts)
{
	uint64_t first = UINT64_MAX;

	for (size_t i = 0; i < ts->n; i++)
		if (is_segment(&ts->v[i]) && ts->v[i].name.first_txid < first)
			first = ts->v[i].name.first_txid;
	return first;
}

/* From `first` on sealed segments, and snapshots if these count, hold everything before this one. */
static uint64_t reach(const struct things *ts, uint32_t lineage, uint64_t first, uint64_t last,
                      bool snapshots)
{
	uint64_t at = first;
	bool more = true;

	while (more && at <= last) {
		more = false;
		for (size_t i = 0; i < ts->n && at <= last; i++) {
			const struct thing *t = &ts->v[i];
			struct span h;
			if ((t->kind == THING_SEALED || (snapshots && t->kind == THING_SNAPSHOT)) &&
			    t->name.lineage == lineage && thing_holds(ts, t, &h) && h.first <= at &&
			    h.last >= at) {
				at = h.last + 1;
				more = true;
			}
		}
	}
	return at;
}

/* The last transaction of level 0 `t`, which lies in `in`; 0: no name tells. */
static uint64_t last_of(const struct things *in, const struct thing *t)
{
	uint64_t next = UINT64_MAX;

	for (size_t i = 0; i < in->n; i++) {
		const struct thing *x = &in->v[i];
		if (x->kind == THING_LEVEL0 && x->name.lineage == t->name.lineage &&
		    x->name.first_txid > t->name.first_txid && x->name.first_txid < next)
			next = x->name.first_txid;
	}
	return next == UINT64_MAX ? 0 : next - 1;
}

/* It says what no segment does. */
static bool is_fence(const struct thing *t)
{
	return t->bytes == GROW_HEADER_SIZE || t->bytes == crypt_sealed_bytes(GROW_HEADER_SIZE);
}

bool things_cover(const struct things *ts, const struct thing *t, const struct things *in)
{
	uint64_t last = last_of(in, t);

	return !is_fence(t) && last &&
	       reach(ts, t->name.lineage, t->name.first_txid, last, false) > last;
}

const struct thing *things_last_level0(const struct things *ts)
{
	const struct thing *last = NULL;

	for (size_t i = 0; i < ts->n; i++) {
		const struct thing *t = &ts->v[i];
		if (t->kind == THING_LEVEL0 && (!last || t->name.lineage > last->name.lineage ||
		                                (t->name.lineage == last->name.lineage &&
		                                 t->name.first_txid > last->name.first_txid)))
			last = t;
	}
	return last;
}

bool things_wider(const struct things *ts, const struct thing *t)
{
	for (size_t i = 0; i < ts->n; i++) {
		const struct thing *w = &ts->v[i];
		if (w->kind == THING_SEALED && w->name.lineage == t->name.lineage &&
		    w->name.first_txid <= t->name.first_txid &&
		    w->name.last_txid >= t->name.last_txid &&
		    w->name.last_txid - w->name.first_txid > t->name.last_txid - t->name.first_txid)
			return true;
	}
	return false;
}

bool thing_holds(const struct things *in, const struct thing *t, struct span *ret)
{
	*ret = (struct span){t->name.first_txid, t->name.last_txid};
	if (t->kind == THING_LEVEL0)
		ret->last = last_of(in, t) ? last_of(in, t) : ret->first;
	else if (t->kind == THING_SNAPSHOT && ret->first == ret->last + 1)
		ret->first = ret->last; /* a state that was found idle */
	else if (t->kind != THING_SEALED)
		return false;
	return true;
}

bool thing_reaches_next(const struct things *in, const struct thing *t, struct span *ret)
{
	uint64_t next = UINT64_MAX;
	struct span h;

	if (t->kind != THING_LEVEL0 || is_fence(t) || last_of(in, t))
		return false;
	for (size_t i = 0; i < in->n; i++)
		if (in->v[i].name.lineage > t->name.lineage && thing_holds(in, &in->v[i], &h) &&
		    h.first < next)
			next = h.first;
	*ret = (struct span){t->name.first_txid, next - 1};
	return next != UINT64_MAX && next > t->name.first_txid;
}

bool things_hold_otherwise(const struct things *ts, const struct thing *t)
{
	struct span h;
	bool told = thing_reaches_next(ts, t, &h) || (last_of(ts, t) && thing_holds(ts, t, &h));

	return told && reach(ts, t->name.lineage, h.first, h.last, true) > h.last;
}

int things_held(const struct things *ts, uint64_t after_txid, const struct things *other,
                struct spans *ret, struct err *err)
{
	int rc = 0;

	for (size_t i = 0; i < ts->n && rc == 0; i++) {
		const struct thing *t = &ts->v[i];
		struct span h;
		if (!thing_holds(ts, t, &h) || h.last <= after_txid ||
		    (other && t->kind == THING_SNAPSHOT && things_find(other, t->file)))
			continue;
		rc = spans_add(ret, h.first > after_txid ? h.first : after_txid + 1, h.last, err);
	}
	return rc;
}

int things_are_whole(const struct things *ts, const struct things *more, bool *ret, struct err *err)
{
	cleanup_spans struct spans held = {0};
	uint64_t from = things_first(ts), end = 0;

	*ret = false;
	if (from == UINT64_MAX)
		return 0;
	for (size_t i = 0; i < more->n; i++)
		if (is_segment(&more->v[i]) && more->v[i].name.first_txid > end)
			end = more->v[i].name.first_txid;
	int rc = things_held(ts, 0, NULL, &held, err);
	if (rc == 0)
		rc = things_held(more, 0, NULL, &held, err);
	spans_sort(&held);
	*ret = rc == 0 && spans_reach(&held, from) >= end;
	return rc;
}

/* ---- of one history? ---- */

static bool in_order(uint64_t a_txid, int64_t a_us, uint64_t b_txid, int64_t b_us)
{
	return a_txid < b_txid ? a_us <= b_us : a_txid > b_txid ? a_us >= b_us : a_us == b_us;
}

/* Times rise with the transactions. */
static bool fits(const struct object_name *a, const struct object_name *b)
{
	bool seals_a = a->type != OBJECT_SNAPSHOT, seals_b = b->type != OBJECT_SNAPSHOT;

	/* A state that was found idle has a time of its own. */
	if ((!seals_a || !seals_b) && a->last_txid == b->last_txid)
		return true;
	return in_order(a->last_txid, a->last_us, b->last_txid, b->last_us) &&
	       (!seals_a || in_order(a->first_txid, a->first_us, b->last_txid, b->last_us)) &&
	       (!seals_b || in_order(a->last_txid, a->last_us, b->first_txid, b->first_us)) &&
	       (!seals_a || !seals_b ||
	        in_order(a->first_txid, a->first_us, b->first_txid, b->first_us));
}

const struct thing *things_misfit(const struct things *ts, const struct things *other)
{
	for (size_t i = 0; i < ts->n; i++) {
		const struct thing *t = &ts->v[i], *same = things_find(other, t->file);
		if (t->kind == THING_LEVEL0 && same && same->bytes != t->bytes)
			return t;
		if (same || !thing_is_object(t) || t->kind == THING_LEVEL0)
			continue;
		for (size_t k = 0; k < other->n; k++) {
			const struct thing *o = &other->v[k];
			if (thing_is_object(o) && o->kind != THING_LEVEL0 &&
			    !fits(&t->name, &o->name))
				return t;
		}
	}
	return NULL;
}
