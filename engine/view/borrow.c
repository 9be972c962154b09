/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Objects that the archive lost and one of its other places has.
 *
 * What is damaged is opened there under the same key (catalog.c).  That need not be there: segments
 * of level 0 are cut as their destination was reached.  And what is missing shows in no listing: so
 * when something cannot be had, the other places are listed, at most once in BORROW_US, and what they
 * have beyond the archive's own is added to each listing from then on.  To a directory, whose segments
 * without a range in their names are those that are being written, none of level 0 are.
 *
 * A copy of the archive that went on by itself gives its own transactions the same numbers, and its
 * segments of level 0 the same names.  So of what has no times in its name, or is in no name here, only
 * that counts which ends no later than where both are proved to tell the same (way.h): where the newest
 * segment is damaged, that can be before it.
 */
#include "engine/view/history_i.h"

#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "engine/view/way.h"

#include <inttypes.h>

#define BORROW_US (300 * US_PER_SECOND)
#define NOTE_MAX 4096u

/* Another database may have the same name; and two copies of an archive that both went on give the same
 * numbers to other transactions (way.h).  Found out once, when something is first to be had there: each
 * is listed then, and asked for the newest commit of both. */
bool borrow_same_database(struct history *h, size_t place)
{
	cleanup_buf struct buf b = BUF_INIT(NOTE_MAX + 1);
	struct store *s = h->archive->stores[place];
	struct source_note note;
	char key[STORE_KEY_MAX];
	struct err why = ERR_INIT;

	if (place == 0 || place >= HISTORY_PLACES_MAX || h->places[place] == PLACE_SAME)
		return place < HISTORY_PLACES_MAX;
	if (h->places[place] == PLACE_OTHER)
		return false;
	snprintf(key, sizeof(key), "local/%s/source", h->name);
	int rc = store_get(s, key, NOTE_MAX, &b, &why);
	rc = rc ? rc : buf_append(&b, "", 1, &why);
	rc = rc ? rc : source_note_parse((char *)b.data, b.len - 1, &note, &why);
	if (rc < 0) {
		if (why.kind != ERR_NOT_FOUND) /* which many places may be */
			log_warn("view", "cannot stand in db=%s place=%s: %s", h->name, s->label,
			         why.msg);
		return false;
	}
	struct way way = {.differs_txid = 0};
	if (note.id == h->source.id)
		way_shared(h->archive->stores[0], s, h->name, &way);
	h->shared_txid[place] = way.agrees_txid;
	h->newest_txid[place] = way.other_txid;
	h->compared_us[place] = clock_mono_us();
	h->places[place] = note.id == h->source.id && !way.differs_txid ? PLACE_SAME : PLACE_OTHER;
	if (way.differs_txid)
		log_warn("view",
		         "cannot stand in db=%s place=%s: it went another way: txid %" PRIu64
		         " is another commit there",
		         h->name, s->label, way.differs_txid);
	else if (h->places[place] == PLACE_OTHER)
		log_warn("view", "cannot stand in db=%s place=%s: it is another database's history",
		         h->name, s->label);
	return h->places[place] == PLACE_SAME;
}

bool borrow_is_shared(struct history *h, size_t place, uint64_t last_txid)
{
	if (place == 0)
		return true;
	if (!borrow_same_database(h, place))
		return false;
	/* Since then both may have come farther. */
	if (last_txid > h->shared_txid[place] &&
	    clock_mono_us() - h->compared_us[place] > BORROW_US) {
		h->places[place] = PLACE_UNKNOWN;
		if (!borrow_same_database(h, place))
			return false;
	}
	return last_txid <= h->shared_txid[place];
}

/* ---- listing ---- */

struct borrowing {
	struct history *h;
	size_t place, prefix_len, n;
	size_t growing; /* the last that was taken of level 0; SIZE_MAX: none */
	bool told;      /* that something was left out */
};

static bool has(const struct entries *es, const char *file)
{
	for (size_t i = 0; i < es->n; i++)
		if (strcmp(es->e[i].file, file) == 0)
			return true;
	return false;
}

/* Times rise with the transactions. */
static bool in_order(uint64_t a_txid, int64_t a_us, uint64_t b_txid, int64_t b_us)
{
	return a_txid < b_txid ? a_us <= b_us : a_txid > b_txid ? a_us >= b_us : a_us == b_us;
}

/* What an object says of its transactions, and what is known of another, or of the same. */
static bool fits(const struct object_name *n, uint64_t txid, int64_t time_us)
{
	if (n->type == OBJECT_SEALED)
		return in_order(n->first_txid, n->first_us, txid, time_us) &&
		       in_order(n->last_txid, n->last_us, txid, time_us);
	return n->last_txid == txid || in_order(n->last_txid, n->last_us, txid, time_us);
}

/*
 * Copies of an archive that both went on give the same numbers to other transactions, and those of one
 * say nothing of the other's: what cannot lie between our own, by its times, is none of ours.
 */
static bool is_ours(const struct history *h, const struct object_name *n)
{
	for (size_t i = 0; i < h->n_gaps; i++) /* by the commit that healed it */
		if (!fits(n, h->gaps[i].after_txid, h->gaps[i].after_us))
			return false;
	for (size_t i = 0; i < h->segments.n; i++) {
		const struct object_name *o = &h->segments.e[i].name;
		if (o->type == OBJECT_SEALED && !h->segments.e[i].lent &&
		    (!fits(n, o->first_txid, o->first_us) || !fits(n, o->last_txid, o->last_us)))
			return false;
	}
	return true;
}

/* They come in order: one of level 0 ends before the next, or with the newest there is. */
static uint64_t tell_extent(struct borrowing *b, struct entries *lent, const struct object_name *n)
{
	struct object_name *before = b->growing != SIZE_MAX ? &lent->e[b->growing].name : NULL;

	if (before && before->lineage == n->lineage && before->first_txid < n->first_txid)
		before->last_txid = n->first_txid - 1;
	b->growing = lent->n;
	return b->h->newest_txid[b->place];
}

/* From number `from` on: one that reaches farther than what is shared would hide what is our own. */
static void drop_unshared(struct history *h, size_t place, size_t from)
{
	struct entries *es = &h->lent.segments;
	size_t kept = from;

	for (size_t i = from; i < es->n; i++) {
		struct object_name *n = &es->e[i].name;
		if (n->type == OBJECT_GROWING && n->last_txid < n->first_txid)
			n->last_txid = n->first_txid;
		if (n->type != OBJECT_GROWING || borrow_is_shared(h, place, n->last_txid))
			es->e[kept++] = es->e[i];
	}
	es->n = kept;
}

static int take(struct borrowing *b, struct entries *lent, enum object_type folder,
                const char *file, const struct store_entry *s, struct err *err)
{
	struct entry e = {
	        .bytes = s->bytes, .modified_us = s->modified_us, .place = b->place, .lent = true};

	if (strlen(file) >= sizeof(e.file) || !object_name_parse(file, &e.name) ||
	    !catalog_belongs(&e.name, folder))
		return 0;
	if (e.name.type == OBJECT_GROWING && (!b->h->in_bucket || s->bytes <= GROW_HEADER_SIZE))
		return 0;
	if (e.name.type == OBJECT_GROWING)
		e.name.last_txid = tell_extent(b, lent, &e.name);
	else if (!borrow_is_shared(b->h, b->place, e.name.last_txid))
		return 0;
	if (e.name.type != OBJECT_GROWING && !is_ours(b->h, &e.name)) {
		if (!b->told)
			log_warn("view", "db=%s place=%s went another way: '%s' is not ours",
			         b->h->name, b->h->archive->stores[b->place]->label, file);
		b->told = true;
		return 0;
	}
	snprintf(e.file, sizeof(e.file), "%s", file);
	b->n++;
	return entries_add(lent, &e, err);
}

static int take_listed(void *ctx, const struct store_entry *s, struct err *err)
{
	struct borrowing *b = ctx;
	struct history *h = b->h;
	const char *rest = s->key + b->prefix_len, *slash = strchr(rest, '/');

	if (!slash || strchr(slash + 1, '/'))
		return 0;
	if (strncmp(rest, "segment/", 8) == 0)
		return take(b, &h->lent.segments, OBJECT_SEALED, slash + 1, s, err);
	if (strncmp(rest, "snapshot/", 9) == 0)
		return take(b, &h->lent.snapshots, OBJECT_SNAPSHOT, slash + 1, s, err);
	return 0; /* coalesced ones only spare time */
}

/* What a place had at the listing before, among the first `had`: all of it is listed anew. */
static void forget_place(struct entries *es, size_t had, size_t place)
{
	size_t kept = 0;

	for (size_t i = 0; i < es->n; i++)
		if (i >= had || es->e[i].place != place)
			es->e[kept++] = es->e[i];
	es->n = kept;
}

static size_t list_place(struct history *h, size_t place)
{
	struct borrowing b = {.h = h, .place = place, .growing = SIZE_MAX};
	size_t had = h->lent.segments.n, had_snapshots = h->lent.snapshots.n;
	char prefix[STORE_KEY_MAX];
	struct err why = ERR_INIT;

	if (!borrow_same_database(h, place))
		return 0;
	b.prefix_len = (size_t)snprintf(prefix, sizeof(prefix), "local/%s/", h->name);
	if (store_list(h->archive->stores[place], prefix, NULL, true, take_listed, &b, &why) < 0) {
		log_warn("view", "cannot stand in db=%s place=%s: %s", h->name,
		         h->archive->stores[place]->label, why.msg);
		h->lent.segments.n = had; /* what it had before counts; a part is no listing */
		h->lent.snapshots.n = had_snapshots;
		return 0;
	}
	drop_unshared(h, place, had);
	forget_place(&h->lent.segments, had, place);
	forget_place(&h->lent.snapshots, had_snapshots, place);
	return b.n;
}

/* No base, none for what comes before the first, or one whose first transactions are not there. */
static bool lacks_beginning(struct history *h)
{
	uint64_t first = UINT64_MAX, lowest = UINT64_MAX;

	if (h->thinned.until_txid)
		return false;
	for (size_t i = 0; i < h->snapshots.n; i++) {
		const struct object_name *n = &h->snapshots.e[i].name;
		if (n->first_txid <= n->last_txid && n->first_txid < first)
			first = n->first_txid;
		if (n->first_txid < lowest)
			lowest = n->first_txid;
	}
	if (h->segments.n > 0 && h->segments.e[0].name.first_txid < lowest)
		return true;
	return h->snapshots.n == 0 ? h->segments.n > 0
	                           : first != UINT64_MAX && !catalog_segment_of(h, first);
}

bool borrow_more(struct history *h, const struct err *why)
{
	size_t n = 0;
	/* A gap is none where a snapshot that healed it is missing. */
	bool lost = why->kind == ERR_DAMAGED || why->kind == ERR_GAP || resolve_vanished(why) ||
	            (why->kind == ERR_NOT_FOUND && lacks_beginning(h));

	bool more = h->shunned_more && (h->lent.segments.n || h->shunned_spare);

	if (!lost || h->archive->n_stores < 2)
		return false;
	if (more)
		h->listed = h->shunned_more = false;
	if (more || (h->borrowed_us && clock_mono_us() - h->borrowed_us < BORROW_US))
		return more;
	for (size_t i = 1; i < h->archive->n_stores; i++)
		n += list_place(h, i);
	h->borrowed_us = clock_mono_us();
	h->shunned_more = false;
	if (n)
		h->listed = false; /* then they are in the next listing */
	return n > 0;
}

/* Coalesced objects only spare time, but for what was thinned. */
static bool is_spare(const struct history *h, const struct entry *e)
{
	if (e->name.type == OBJECT_COALESCED)
		return e->name.first_txid > h->thinned.until_txid;
	for (size_t i = 0; i < h->snapshots.n; i++) {
		const struct entry *o = &h->snapshots.e[i];
		if (o->name.lineage == e->name.lineage && o->name.last_txid < e->name.last_txid &&
		    o->name.last_txid >= h->thinned.until_txid && !has(&h->shunned, o->file))
			return true;
	}
	return false;
}

void borrow_shun(struct history *h, const struct entry *e)
{
	bool segment = e->name.type == OBJECT_GROWING || e->name.type == OBJECT_SEALED;
	struct entry copy = *e;

	copy.open = NULL;
	if (h->archive->n_stores < 2 || has(&h->shunned, e->file) ||
	    (!segment && !is_spare(h, e)) || (e->name.type == OBJECT_GROWING && !h->in_bucket) ||
	    entries_add(&h->shunned, &copy, NULL) < 0)
		return;
	h->shunned_more = true;
	h->shunned_spare |= !segment;
	log_warn("view", "damaged db=%s: '%s' is read from what %s of it", h->name, e->file,
	         segment ? "other places have" : "segments have");
}

/* ---- adding ---- */

/* What is lent of its transactions, of its first at least: false if nothing is.  *ret_begin: where a
 * segment of level 0 begins that is; UINT64_MAX: none. */
static bool is_lent(struct history *h, const struct entry *e, uint64_t *ret_begin)
{
	uint64_t first = UINT64_MAX;
	bool found = false;

	for (size_t i = 0; i < h->lent.segments.n; i++) {
		const struct entry *l = &h->lent.segments.e[i];
		if (l->name.first_txid > e->name.first_txid ||
		    l->name.last_txid < e->name.first_txid || has(&h->shunned, l->file))
			continue;
		found = true;
		if (l->name.type == OBJECT_GROWING &&
		    (first == UINT64_MAX || l->name.first_txid > first))
			first = l->name.first_txid;
	}
	*ret_begin = first;
	return found;
}

static void let_go(struct history *h, struct entry *e)
{
	h->n_open -= e->open != NULL;
	object_unref(e->open);
}

/*
 * They are sorted.  A segment of level 0 ends where the next begins: so that one that is lent reaches
 * over what goes, those of our own that begin within it, or with it, and end sooner, go along.
 */
static void drop_shunned(struct history *h)
{
	struct entries *es = &h->segments;
	size_t kept = 0;

	for (size_t i = 0; i < es->n; i++) {
		uint64_t begin;
		/* One for which there is nothing else stays: its error tells more than a hole. */
		if (!has(&h->shunned, es->e[i].file) || !is_lent(h, &es->e[i], &begin)) {
			es->e[kept++] = es->e[i];
			continue;
		}
		let_go(h, &es->e[i]);
		while (kept && es->e[kept - 1].name.type == OBJECT_GROWING &&
		       es->e[kept - 1].name.first_txid >= begin)
			let_go(h, &es->e[--kept]);
	}
	es->n = kept;
}

static void drop_spare(struct history *h, struct entries *es)
{
	size_t kept = 0;

	if (!h->shunned_spare)
		return;
	for (size_t i = 0; i < es->n; i++) { /* what went before is shunned: none stands on it */
		if (has(&h->shunned, es->e[i].file) && is_spare(h, &es->e[i]))
			let_go(h, &es->e[i]);
		else
			es->e[kept++] = es->e[i];
	}
	es->n = kept;
}

/* `own` is sorted. */
static bool has_sorted(const struct entries *own, size_t n, const struct entry *e)
{
	size_t lo = 0, hi = n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (own->e[mid].name.first_txid < e->name.first_txid)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (; lo < n && own->e[lo].name.first_txid == e->name.first_txid; lo++)
		if (strcmp(own->e[lo].file, e->file) == 0)
			return true;
	return false;
}

/* Several places may have lent the same: the first of them does. */
static int add(struct entries *own, const struct entries *lent, struct err *err)
{
	size_t n = own->n, kept = 0;
	int rc = 0;

	if (lent->n == 0)
		return 0;
	for (size_t i = 0; i < lent->n && rc == 0; i++) {
		struct entry e = lent->e[i];
		if (e.name.type == OBJECT_GROWING)
			e.name.last_txid = 0; /* what is listed beside it, or it itself, tells */
		if (!has_sorted(own, n, &e))
			rc = entries_add(own, &e, err);
	}
	entries_sort(own);
	for (size_t i = 0; i < own->n; i++) {
		if (kept && own->e[i].lent && strcmp(own->e[kept - 1].file, own->e[i].file) == 0)
			continue;
		own->e[kept++] = own->e[i];
	}
	own->n = kept;
	return rc;
}

void borrow_tell(struct history *h, const struct entry *e, size_t place)
{
	struct entries *const lists[] = {&h->lent.snapshots, &h->lent.segments};
	bool told = has(&h->shunned, e->file);

	for (size_t i = 0; i < 2; i++)
		for (size_t j = 0; j < lists[i]->n; j++)
			if (strcmp(lists[i]->e[j].file, e->file) == 0) {
				told = told || lists[i]->e[j].told;
				lists[i]->e[j].told = true;
			}
	if (!told)
		log_warn("view", "missing db=%s: '%s' is read from '%s'", h->name, e->file,
		         h->archive->stores[place]->label);
}

int borrow_add(struct history *h, struct err *err)
{
	drop_shunned(h);
	drop_spare(h, &h->coalesced);
	int rc = add(&h->snapshots, &h->lent.snapshots, err);
	drop_spare(h, &h->snapshots); /* under its name no place has it whole: nor who lends it */
	return rc ? rc : add(&h->segments, &h->lent.segments, err);
}
