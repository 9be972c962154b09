/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What objects there are in a store that is no directory: a bucket, or a server.
 *
 * There is no head and no lock there.  What its writer is through with is put as a whole segment of
 * level 0, with the name and format of a growing one, never changed; sealed, joined and coalesced
 * objects and snapshots follow under their usual names.  So:
 *
 *  (1) All of a database is listed once, when it is opened.  News are what comes after the newest
 *      segment: one request, at most once in FOLLOW_US, and only when somebody asks for news.  All
 *      is listed anew when an object is gone that should be there, when much has come, and now and
 *      then, so that what was joined meanwhile is seen.
 *  (2) The last txid of a segment of level 0 stands in no name: it is the one before the next
 *      segment's first.  Only the newest is opened to know it, and those that end where a snapshot
 *      of a state found idle may take a txid of its own.
 *  (3) A segment of level 0 is whole: its records end where the object ends, and with the commit
 *      before the next segment, or it is damaged.
 *  (4) A fence (archive/grow.h) closes a lineage, or stands before a gap, and holds nothing.  What is
 *      no longer is read, once, to tell it from a segment that was cut short.
 */
#include "engine/view/history_i.h"

#include "engine/base/clock.h"
#include "engine/base/log.h"

#include <inttypes.h>

#define FOLLOW_US 1000000
#define ASKED_US 5000000 /* of those who do not ask for news */
#define RELIST_US (300 * INT64_C(1000000))
#define RELIST_NEW 64u /* so many segments of level 0 make a view deep */
#define RETRY_US (30 * INT64_C(1000000))
#define NOTE_MAX (64u << 20)

int place_note(struct history *h, const char *file, char **ret, size_t *ret_len, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT(NOTE_MAX + 1);
	char key[STORE_KEY_MAX];

	snprintf(key, sizeof(key), "local/%s/%s", h->name, file);
	int rc = store_get(h->archive->stores[0], key, NOTE_MAX, &b, err);
	rc = rc ? rc : buf_append(&b, "", 1, err);
	if (rc < 0)
		return rc;
	*ret_len = b.len - 1;
	*ret = (char *)take_ptr(b.data);
	return 0;
}

/* ---- listing ---- */

struct listing {
	struct history *h;
	size_t prefix_len;
	struct entries snapshots, segments, coalesced;
	struct gap_note *gaps;
	size_t n_gaps, cap_gaps;
	uint32_t lineage;
	bool thinned;
};

static const struct gap_note *known_gap(const struct history *h, uint64_t txid)
{
	for (size_t i = 0; i < h->n_gaps; i++)
		if (h->gaps[i].after_txid == txid)
			return &h->gaps[i];
	return NULL;
}

static int add_gap(struct listing *l, const char *file, uint64_t txid, struct err *err)
{
	const struct gap_note *known = known_gap(l->h, txid);
	cleanup_free char *text = NULL;
	struct err why = ERR_INIT;
	size_t len;

	if (l->n_gaps == l->cap_gaps) {
		size_t cap = l->cap_gaps ? 2 * l->cap_gaps : 8;
		struct gap_note *p = realloc(l->gaps, cap * sizeof(*p));
		if (!p)
			return err_set(err, ERR_NOMEM, 0, "no memory to list gaps");
		l->gaps = p;
		l->cap_gaps = cap;
	}
	if (known) { /* they do not change */
		l->gaps[l->n_gaps++] = *known;
		return 0;
	}
	int rc = place_note(l->h, file, &text, &len, &why);
	rc = rc ? rc : gap_note_parse(text, len, file, &l->gaps[l->n_gaps], &why);
	if (rc == 0)
		l->n_gaps++;
	else if (why.kind != ERR_DAMAGED && why.kind != ERR_NOT_FOUND)
		return err_copy(err, &why);
	else
		log_warn("view", "gap note unreadable db=%s: %s", l->h->name, why.msg);
	return 0;
}

static int take_note(struct listing *l, const char *file, struct err *err)
{
	struct object_name n;
	uint64_t txid;

	if (object_name_parse(file, &n) && n.type == OBJECT_LINEAGE && n.lineage > l->lineage)
		l->lineage = n.lineage;
	if (strcmp(file, "thinned") == 0)
		l->thinned = true;
	return strlen(file) == 20 && gap_name_parse(file, &txid) ? add_gap(l, file, txid, err) : 0;
}

static int take_object(struct entries *into, struct entries *old, enum object_type folder,
                       const char *file, const struct store_entry *s, struct err *err)
{
	struct entry e = {.bytes = s->bytes, .modified_us = s->modified_us};

	if (strlen(file) >= sizeof(e.file) || !object_name_parse(file, &e.name) ||
	    !catalog_belongs(&e.name, folder))
		return 0;
	snprintf(e.file, sizeof(e.file), "%s", file);
	catalog_keep_open(old, &e);
	return entries_add(into, &e, err);
}

static int take_listed(void *ctx, const struct store_entry *e, struct err *err)
{
	struct listing *l = ctx;
	const char *rest = e->key + l->prefix_len, *slash = strchr(rest, '/');
	struct history *h = l->h;

	if (!slash)
		return take_note(l, rest, err);
	if (strchr(slash + 1, '/'))
		return 0;
	if (strncmp(rest, "segment/", 8) == 0)
		return take_object(&l->segments, &h->segments, OBJECT_SEALED, slash + 1, e, err);
	if (strncmp(rest, "snapshot/", 9) == 0)
		return take_object(&l->snapshots, &h->snapshots, OBJECT_SNAPSHOT, slash + 1, e,
		                   err);
	if (strncmp(rest, "coalesced/", 10) == 0)
		return take_object(&l->coalesced, &h->coalesced, OBJECT_COALESCED, slash + 1, e,
		                   err);
	return 0;
}

static int read_thinned(struct history *h, bool there, struct err *err)
{
	struct thinned_note n = {0};
	cleanup_free char *text = NULL;
	struct err why = ERR_INIT;
	size_t len;

	int rc = there ? place_note(h, "thinned", &text, &len, &why) : 0;
	if (rc == 0 && there)
		rc = thinned_note_parse(text, len, &n, &why);
	if (rc < 0 && why.kind == ERR_DAMAGED) { /* as of a directory: see catalog.c */
		log_error("view", "note unreadable db=%s: %s", h->name, why.msg);
		return 0;
	}
	if (rc < 0 && why.kind != ERR_NOT_FOUND)
		return err_copy(err, &why);
	thinned_note_release(&h->thinned);
	h->thinned = n;
	return 0;
}

static int gap_compare(const void *a, const void *b)
{
	const struct gap_note *x = a, *y = b;

	return x->after_txid < y->after_txid ? -1 : x->after_txid > y->after_txid;
}

static void listing_release(struct listing *l)
{
	entries_release(l->h, &l->snapshots);
	entries_release(l->h, &l->segments);
	entries_release(l->h, &l->coalesced);
	free(l->gaps);
}

/* ---- fences ---- */

static bool known_fence(const struct history *h, const struct entry *e)
{
	for (size_t i = 0; i < h->fences.n; i++)
		if (strcmp(h->fences.e[i].file, e->file) == 0 &&
		    h->fences.e[i].modified_us == e->modified_us)
			return true;
	return false;
}

/* Whether an object no longer than a fence is to be passed over: it is one, or is gone. */
static int is_fence(struct history *h, const struct entry *e, bool *ret, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT(GROW_HEADER_SIZE);
	char key[STORE_KEY_MAX];
	struct err why = ERR_INIT;
	uint64_t goes_on;

	*ret = known_fence(h, e);
	if (*ret)
		return 0;
	snprintf(key, sizeof(key), "local/%s/segment/%s", h->name, e->file);
	int rc = store_get(h->archive->stores[0], key, GROW_HEADER_SIZE, &b, &why);
	if (rc == 0)
		rc = grow_fence_get(b.data, b.len, e->file, e->name.lineage, e->name.first_txid,
		                    &goes_on, &why);
	*ret = rc == 0 || why.kind == ERR_NOT_FOUND;
	if (rc < 0)
		return *ret || why.kind == ERR_DAMAGED ? 0 : err_copy(err, &why);
	const struct jump j = {.lineage = e->name.lineage,
	                       .from_txid = e->name.first_txid - 1,
	                       .first_txid = goes_on,
	                       .told_txid = e->name.first_txid - 1};
	if (goes_on > e->name.first_txid && (rc = jumps_add(h, &j, err)) < 0)
		return rc;
	return entries_add(&h->fences, e, err);
}

/* Of the segments from number `from` on; see (4).  A segment that was cut short stays, and shows as
 * damaged when it is opened. */
static int drop_fences(struct history *h, struct entries *es, size_t from, struct err *err)
{
	size_t kept = from;
	int rc = 0;

	for (size_t i = from; i < es->n; i++) {
		struct entry *e = &es->e[i];
		bool fence = false;
		if (rc == 0 && e->name.type == OBJECT_GROWING && e->bytes <= GROW_HEADER_SIZE &&
		    !e->open)
			rc = is_fence(h, e, &fence, err);
		if (!fence)
			es->e[kept++] = *e;
	}
	es->n = kept;
	return rc;
}

/* ---- all of it ---- */

/* What the listing took over from the history is its own, whatever becomes of the listing. */
static int list_all(struct history *h, struct err *err)
{
	struct listing l = {.h = h, .lineage = h->lineage};
	char prefix[STORE_KEY_MAX];

	l.prefix_len = (size_t)snprintf(prefix, sizeof(prefix), "local/%s/", h->name);
	int rc = store_list(h->archive->stores[0], prefix, NULL, true, take_listed, &l, err);
	rc = rc ? rc : read_thinned(h, l.thinned, err);
	rc = rc ? rc : drop_fences(h, &l.segments, 0, err);
	if (rc < 0) { /* what was open is opened again when needed */
		listing_release(&l);
		return rc;
	}
	entries_release(h, &h->snapshots);
	entries_release(h, &h->segments);
	entries_release(h, &h->coalesced);
	h->snapshots = l.snapshots;
	h->segments = l.segments;
	h->coalesced = l.coalesced;
	h->lineage = l.lineage;
	free(h->gaps);
	h->gaps = l.gaps;
	h->n_gaps = l.n_gaps;
	entries_sort(&h->snapshots);
	entries_sort(&h->segments);
	entries_sort(&h->coalesced);
	if (h->n_gaps)
		qsort(h->gaps, h->n_gaps, sizeof(*h->gaps), gap_compare);
	return 0;
}

/* ---- what a segment of level 0 holds ---- */

/* Drops those that a joined segment holds, too. */
static void drop_joined(struct history *h)
{
	struct entries *es = &h->segments;
	uint64_t covered = 0; /* up to this txid, by what begins no later */
	size_t kept = 0;

	for (size_t i = 0; i < es->n; i++) {
		struct entry *e = &es->e[i];
		for (size_t j = i; j < es->n && es->e[j].name.first_txid == e->name.first_txid; j++)
			if (es->e[j].name.type == OBJECT_SEALED &&
			    es->e[j].name.last_txid > covered)
				covered = es->e[j].name.last_txid;
		if (e->name.type == OBJECT_GROWING && e->name.first_txid <= covered) {
			if (e->open)
				h->n_open--;
			object_unref(e->open);
		} else {
			es->e[kept++] = *e;
		}
	}
	es->n = kept;
}

static bool is_snapshot(const struct history *h, uint64_t txid)
{
	for (size_t i = 0; i < h->snapshots.n; i++)
		if (h->snapshots.e[i].name.last_txid == txid)
			return true;
	return false;
}

/* The txid before the segment that follows, or before a gap that a fence tells of; 0: none follows. */
static uint64_t bound_of(const struct history *h, size_t i)
{
	uint64_t next = i + 1 < h->segments.n ? h->segments.e[i + 1].name.first_txid : UINT64_MAX;
	uint64_t end = jumps_bound(h, h->segments.e[i].name.first_txid, next);

	return end == UINT64_MAX ? 0 : end - 1;
}

int bucket_take_extent(struct history *h, struct entry *e, struct object *o, struct err *err)
{
	size_t i = (size_t)(e - h->segments.e);
	uint64_t n = grow_n_commits(o->grow), bound = bound_of(h, i);
	struct commit first, last;

	if (n == 0 || !grow_get_commit(o->grow, 0, &first) ||
	    !grow_get_commit(o->grow, n - 1, &last))
		return err_set(err, ERR_DAMAGED, 0, "'%s' is damaged: it holds no transaction",
		               e->file);
	/* Another place can hold less under the key than what was planned with. */
	if (e->name.last_txid > bound)
		bound = e->name.last_txid;
	for (uint64_t t = last.txid + 1; t <= bound; t++)
		if (t > h->thinned.until_txid && !is_snapshot(h, t))
			return err_set(err, ERR_DAMAGED, 0,
			               "'%s' is damaged: it lacks transaction %" PRIu64, e->file,
			               t);
	e->name.last_txid = last.txid;
	e->name.first_us = first.time_us;
	e->name.last_us = last.time_us;
	e->name.min_pages = last.min_pages;
	return 0;
}

void bucket_forget_extent(struct history *h, struct entry *e)
{
	uint64_t bound = bound_of(h, (size_t)(e - h->segments.e));

	/* Nothing follows the newest, which told how far it goes as well as any; what follows where it told
	 * less is a snapshot's alone. */
	if (bound && bound < e->name.last_txid)
		e->name.last_txid = bound;
}

/* Opens it, to know what it tells only within. */
static int look_into(struct history *h, struct entry *e, bool *ret_current, struct err *err)
{
	cleanup_object struct object *o = NULL;
	struct err why = ERR_INIT;

	int rc = catalog_open(h, &h->segments, e, &o, &why);
	e->broken = false;
	if (rc == 0)
		return 0;
	if (resolve_vanished(&why))
		*ret_current = false;
	else if (why.kind != ERR_DAMAGED)
		return err_copy(err, &why);
	e->broken = true;
	if (!h->quiet)
		log_error("view", "segment unreadable db=%s: %s", h->name, why.msg);
	return 0;
}

static void know_newest(struct history *h)
{
	h->head = (struct head){0};
	for (size_t i = 0; i < h->segments.n; i++) {
		const struct object_name *n = &h->segments.e[i].name;
		if (n->last_txid > h->head.last_txid) {
			h->head.last_txid = n->last_txid;
			h->head.known_until_us = n->last_us;
		}
	}
	for (size_t i = 0; i < h->snapshots.n; i++) {
		const struct object_name *n = &h->snapshots.e[i].name;
		if (n->last_txid > h->head.last_txid) {
			h->head.last_txid = n->last_txid;
			h->head.known_until_us = n->last_us;
		}
	}
}

static int settle(struct history *h, size_t from, bool *ret_current, struct err *err)
{
	int rc = 0;

	*ret_current = true;
	for (size_t i = from; i < h->segments.n && rc == 0; i++) {
		struct entry *e = &h->segments.e[i];
		uint64_t bound = bound_of(h, i);
		if (e->name.type != OBJECT_GROWING || e->open)
			continue;
		e->name.last_txid = bound;
		if (bound == 0 || is_snapshot(h, bound))
			rc = look_into(h, e, ret_current, err);
		if (e->broken && e->name.last_txid == 0) /* it has its place all the same */
			e->name.last_txid = bound;
	}
	know_newest(h);
	return rc;
}

static int relist(struct history *h, struct err *err)
{
	bool current = false;
	int rc = 0;

	for (int tries = 0; rc == 0 && !current && tries < 3; tries++) {
		rc = list_all(h, err);
		if (rc == 0)
			rc = borrow_add(h, err);
		if (rc == 0)
			drop_joined(h);
		if (rc == 0)
			rc = settle(h, 0, &current, err);
	}
	h->relisted_us = clock_mono_us();
	h->n_followed = 0;
	return rc;
}

/* ---- following ---- */

struct news {
	struct history *h;
	size_t prefix_len, n;
	bool otherwise; /* something that is not just the next segment */
};

static int take_news(void *ctx, const struct store_entry *s, struct err *err)
{
	struct news *w = ctx;
	struct history *h = w->h;
	struct entries none = {0};
	size_t had = h->segments.n;

	int rc = take_object(&h->segments, &none, OBJECT_SEALED, s->key + w->prefix_len, s, err);
	if (rc < 0 || h->segments.n == had)
		return rc;
	struct entry *e = &h->segments.e[had];
	const struct entry *newest = had ? &h->segments.e[had - 1] : NULL;
	if (e->name.type != OBJECT_GROWING || !newest || e->name.lineage != newest->name.lineage ||
	    e->name.first_txid <= newest->name.first_txid)
		w->otherwise = true;
	return 0;
}

static int follow(struct history *h, bool *ret_relist, struct err *err)
{
	char prefix[STORE_KEY_MAX], after[STORE_KEY_MAX];
	struct news w = {.h = h};
	size_t had = h->segments.n;
	bool current = true;

	*ret_relist = had == 0 || h->segments.e[had - 1].broken;
	if (*ret_relist)
		return 0;
	w.prefix_len = (size_t)snprintf(prefix, sizeof(prefix), "local/%s/segment/", h->name);
	snprintf(after, sizeof(after), "%s%s", prefix, h->segments.e[had - 1].file);
	int rc = store_list(h->archive->stores[0], prefix, after, true, take_news, &w, err);
	if (rc == 0)
		rc = drop_fences(h, &h->segments, had, err);
	w.n = h->segments.n - had;
	h->n_followed += (unsigned)w.n;
	*ret_relist = rc < 0 || w.otherwise || h->n_followed >= RELIST_NEW;
	if (rc == 0 && w.n && !*ret_relist) {
		/* The one that was newest tells by itself where it ended, and that nothing is
		 * missing behind it. */
		struct entry *before = &h->segments.e[had - 1];
		*ret_relist = before->name.last_txid + 1 != h->segments.e[had].name.first_txid;
		if (!*ret_relist)
			rc = settle(h, had, &current, err);
		*ret_relist = *ret_relist || !current;
	}
	return rc;
}

int bucket_refresh(struct history *h, bool now, struct err *err)
{
	int64_t mono = clock_mono_us(), age = mono - h->refreshed_us;
	struct err why = ERR_INIT;
	bool all = !h->listed;

	if (h->listed && age < (now ? FOLLOW_US : ASKED_US))
		return 0;
	if (h->listed && mono < h->retry_us)
		return 0;
	all = all || mono - h->relisted_us > RELIST_US;
	int rc = all ? 0 : follow(h, &all, &why);
	if (all && (rc == 0 || h->listed))
		rc = relist(h, &why);
	h->refreshed_us = clock_mono_us();
	h->retry_us = 0;
	if (rc == 0) {
		h->listed = true;
		return 0;
	}
	if (h->listed && why.kind == ERR_UNAVAILABLE) { /* the past can still be read, perhaps */
		h->retry_us = clock_mono_us() + RETRY_US;
		log_warn("view", "no news db=%s: %s", h->name, why.msg);
		return 0;
	}
	return err_copy(err, &why);
}
