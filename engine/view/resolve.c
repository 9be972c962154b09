/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Times and txids to moments.
 *
 * Txids are dense: segments, and snapshots of states found idle, hold every one from the first to
 * the last.  A commit can be viewed when a snapshot at or before it exists, and it is settled (or
 * a snapshot is the image of just that commit).
 *
 * An object that a name or the order of txids promises and that is not there is ERR_NOT_FOUND
 * with ENOENT in here: it may have been joined into another since it was listed, so the public
 * functions list anew and ask again; what then is still missing is damage.
 */
#include "engine/view/history_i.h"

#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/base/log.h"
#include "engine/sqlite/format.h"

#include <fcntl.h>

#include <inttypes.h>

int resolve_broken(const struct entry *e, struct err *err)
{
	if (e->unread == ERR_IO || e->unread == ERR_NOMEM || e->unread == ERR_DENIED)
		return err_set(err, e->unread, 0, "'%s' cannot be read just now", e->file);
	return err_set(
	        err, ERR_DAMAGED, 0,
	        "'%s' is damaged: what it holds cannot be told (asof validate names what is left)",
	        e->file);
}

/* A state found idle, with which a later lineage goes on. */
static bool has_child(const struct history *h, const struct entry *e)
{
	for (size_t i = 0; i < h->snapshots.n; i++)
		if (h->snapshots.e[i].name.lineage > e->name.lineage &&
		    h->snapshots.e[i].name.first_txid > e->name.first_txid)
			return true;
	return false;
}

/* The newest segment, when it cannot be read to its end. */
static const struct entry *broken_end(const struct history *h)
{
	for (size_t i = h->segments.n; i-- > 0;) {
		const struct entry *e = &h->segments.e[i];
		if (e->broken || e->name.last_txid != 0)
			return e->broken && !has_child(h, e) ? e : NULL;
	}
	return NULL;
}

bool resolve_vanished(const struct err *why)
{
	return why->kind == ERR_NOT_FOUND && why->sys_errno == ENOENT;
}

static int missing(struct history *h, uint64_t txid, struct err *err)
{
	const char *lost = jumps_lost(h, txid);

	return err_set(err, ERR_NOT_FOUND, ENOENT,
	               "the history of '%s' has no segment for transaction %" PRIu64 "%s%s%s",
	               h->name, txid, *lost ? ": '" : "", lost, *lost ? "' is missing" : "");
}

static int not_viewable(struct history *h, uint64_t txid, struct err *err);

/* First and last txid that the archive holds anything of; false: nothing. */
static bool txid_range(struct history *h, uint64_t *ret_first, uint64_t *ret_last)
{
	uint64_t first = UINT64_MAX, last = 0;

	for (size_t i = 0; i < h->segments.n; i++) {
		const struct object_name *n = &h->segments.e[i].name;
		if (n->last_txid < n->first_txid)
			continue;
		first = n->first_txid < first ? n->first_txid : first;
		last = n->last_txid > last ? n->last_txid : last;
	}
	for (size_t i = 0; i < h->snapshots.n; i++) {
		const struct object_name *n = &h->snapshots.e[i].name;
		first = n->last_txid < first ? n->last_txid : first;
		last = n->last_txid > last ? n->last_txid : last;
	}
	/* Of a bucket that lost what came behind, points can be the newest that is left. */
	size_t n_points = h->thinned.n_points;
	if (n_points && h->thinned.points[n_points - 1].txid > last)
		last = h->thinned.points[n_points - 1].txid;
	*ret_first = first;
	*ret_last = last;
	return last > 0;
}

int resolve_commit(struct history *h, uint64_t txid, struct commit *ret, struct entry **ret_entry,
                   struct err *err)
{
	struct entry *e = catalog_segment_of(h, txid);
	cleanup_object struct object *o = NULL;
	uint64_t first, last;

	if (!e) {
		if (jumps_over(h, txid))
			return not_viewable(h, txid, err);
		if (broken_end(h))
			return resolve_broken(broken_end(h), err);
		if (jumps_lost_with(h, txid) ||
		    (txid_range(h, &first, &last) && txid > first &&
		     txid <= (last > h->head.last_txid ? last : h->head.last_txid)))
			return missing(h, txid, err);
		return err_set(err, ERR_NOT_FOUND, 0, "database '%s' has no transaction %" PRIu64,
		               h->name, txid);
	}
	int rc = catalog_open(h, &h->segments, e, &o, err);
	if (rc < 0)
		return rc;
	rc = object_commit(o, txid - e->name.first_txid, ret, err);
	if (rc < 0 && e->broken)
		return resolve_broken(e, err);
	if (ret_entry)
		*ret_entry = e;
	return rc;
}

/* The newest snapshot with txid <= `txid`, or NULL. */
static struct entry *snapshot_before(struct history *h, uint64_t txid)
{
	struct entry *best = NULL;

	/* They are sorted: of several, the last has the greatest redo. */
	for (size_t i = 0; i < h->snapshots.n; i++) {
		struct entry *e = &h->snapshots.e[i];
		if (e->name.last_txid <= txid &&
		    (!best || e->name.last_txid >= best->name.last_txid))
			best = e;
	}
	return best;
}

bool resolve_viewable(struct history *h, const struct commit *c)
{
	struct entry *s = snapshot_before(h, c->txid);

	if (!s)
		return false;
	return !(c->flags & COMMIT_UNSETTLED) || s->name.last_txid == c->txid;
}

int resolve_fill(struct history *h, const struct commit *c, struct entries *in, struct entry *e,
                 struct moment *ret, struct err *err)
{
	cleanup_object struct object *o = NULL;

	int rc = catalog_open(h, in, e, &o, err);
	if (rc < 0)
		return rc;
	uint32_t page_size = object_page_size(o);
	*ret = (struct moment){
	        .txid = c->txid,
	        .time_us = c->time_us,
	        .not_before_us = c->not_before_us,
	        .lineage = e->name.lineage,
	        .flags = c->flags & COMMIT_HEAL ? MOMENT_HEALED : 0,
	        .page_size = page_size,
	        .n_pages = c->n_pages,
	        .n_frames = (uint32_t)c->n_frames,
	        .wal_bytes = WAL_HEADER_SIZE + c->last_frame * wal_frame_size(page_size),
	        .state = c->state,
	};
	return 0;
}

/*
 * A database that was idle when its first snapshot was taken has a snapshot whose txid no segment
 * holds: the state found at attach.
 */
int resolve_snapshot(struct history *h, struct entry *e, struct moment *ret, struct err *err)
{
	cleanup_object struct object *o = NULL;

	int rc = catalog_open(h, &h->snapshots, e, &o, err);
	if (rc < 0)
		return rc;
	const struct snapshot_info *i = snapshot_get_info(o->snapshot);
	*ret = (struct moment){
	        .txid = i->txid,
	        .time_us = i->time_us,
	        .not_before_us = i->not_before_us,
	        .lineage = i->lineage,
	        .page_size = i->page_size,
	        .n_pages = i->n_pages,
	        .state = i->state,
	};
	for (size_t k = 0; k < h->n_gaps; k++) /* which its own commit would tell, were it there */
		if (h->gaps[k].after_txid == i->txid)
			ret->flags |= MOMENT_HEALED;
	return 0;
}

/* The first viewable txid: that of the oldest snapshot, or of the first kept point. */
static uint64_t first_viewable(struct history *h)
{
	uint64_t first = 0;

	if (h->thinned.n_points)
		return h->thinned.points[0].txid;
	for (size_t i = 0; i < h->snapshots.n; i++)
		if (first == 0 || h->snapshots.e[i].name.last_txid < first)
			first = h->snapshots.e[i].name.last_txid;
	return first;
}

static int not_viewable(struct history *h, uint64_t txid, struct err *err)
{
	char a[TIME_STR_MAX], b[TIME_STR_MAX];

	for (size_t i = 0; i < h->n_gaps; i++) {
		const struct gap_note *g = &h->gaps[i];
		if (txid > g->before_txid && txid < g->after_txid) {
			time_format(g->before_us, a);
			time_format(g->after_us, b);
			return err_set(err, ERR_GAP, 0,
			               "transaction %" PRIu64
			               " of '%s' lies in a declared gap between %s "
			               "(txid %" PRIu64 ") and %s (txid %" PRIu64 ")",
			               txid, h->name, a, g->before_txid, b, g->after_txid);
		}
	}
	if (h->snapshots.n == 0)
		return err_set(err, ERR_NOT_FOUND, 0,
		               "database '%s' has no snapshot yet (wait for the first to complete)",
		               h->name);
	if (txid < first_viewable(h))
		return err_set(err, ERR_NOT_FOUND, 0,
		               "transaction %" PRIu64
		               " of '%s' lies before its first snapshot, of transaction "
		               "%" PRIu64 " (choose that or a later one)",
		               txid, h->name, first_viewable(h));
	return err_set(err, ERR_GAP, 0,
	               "transaction %" PRIu64 " of '%s' lies in a gap that is not healed yet", txid,
	               h->name);
}

/* The commit that a first capture ends with was written before its checksum was known; the snapshot
 * that is the image of it has that. */
static void take_state_of_snapshot(struct history *h, struct entry *s, struct moment *m)
{
	struct moment of_snapshot;

	if (s && s->name.last_txid == m->txid && s->name.lineage == m->lineage &&
	    resolve_snapshot(h, s, &of_snapshot, NULL) == 0 &&
	    of_snapshot.page_size == m->page_size && of_snapshot.n_pages == m->n_pages)
		m->state = of_snapshot.state;
}

int resolve_moment(struct history *h, uint64_t txid, struct moment *ret, struct err *err)
{
	struct entry *s = snapshot_before(h, txid), *e;
	struct commit c;

	if (txid <= h->thinned.until_txid)
		return thinned_moment(h, txid, ret, err);
	if (s && s->name.last_txid == txid && s->name.first_txid == txid + 1 &&
	    !catalog_segment_of(h, txid))
		return resolve_snapshot(h, s, ret, err);
	int rc = resolve_commit(h, txid, &c, &e, err);
	if (rc < 0)
		return rc;
	if (!resolve_viewable(h, &c))
		return not_viewable(h, txid, err);
	rc = resolve_fill(h, &c, &h->segments, e, ret, err);
	if (rc == 0 && hash128_zero(ret->state))
		take_state_of_snapshot(h, s, ret);
	return rc;
}

/* Not there for good reason: a walk goes on behind it. */
static bool passed_over(const struct err *why)
{
	return why->kind == ERR_GAP || (why->kind == ERR_NOT_FOUND && !resolve_vanished(why));
}

/*
 * Who walks a history comes to the end of a lineage that was damaged, or is missing, and goes on with the
 * child: gives the jump, where all from `t` up to it is in that.  (Not before other places were asked.)
 */
static const struct jump *lost_end(struct history *h, uint64_t t, const struct err *why)
{
	if (why->kind != ERR_DAMAGED && why->kind != ERR_NOT_FOUND)
		return NULL;
	if (h->in_bucket || (h->archive->n_stores > 1 && !h->borrowed_us))
		return NULL;
	if (resolve_vanished(why) && catalog_segment_of(h, t))
		return NULL; /* it is just being sealed */
	return jumps_lost_with(h, t);
}

/* `strict`: damage is an error wherever it is. */
static int next_of(struct history *h, uint64_t txid, bool strict, struct moment *ret,
                   struct err *err)
{
	uint64_t lo, hi, first = first_viewable(h);

	if (first == 0 || !txid_range(h, &lo, &hi))
		return err_set(err, ERR_NOT_FOUND, 0, "database '%s' has no restorable moment yet",
		               h->name);
	for (uint64_t t = txid > first ? txid : first; t <= hi; t++) {
		struct err why = ERR_INIT;
		if (t <= h->thinned.until_txid)
			t = thinned_at_or_after(h, t)->txid;
		int rc = resolve_moment(h, t, ret, &why);
		if (rc == 0)
			return 0;
		const struct jump *lost = strict ? NULL : lost_end(h, t, &why);
		if (lost) {
			t = lost->first_txid - 1;
			continue;
		}
		if (!passed_over(&why))
			return err_copy(err, &why);
		for (size_t i = 0; i < h->n_gaps; i++) /* leap over what is known to be a gap */
			if (t > h->gaps[i].before_txid && t + 1 < h->gaps[i].after_txid)
				t = h->gaps[i].after_txid - 1;
		const struct jump *j = jumps_over(h, t);
		if (j)
			t = j->first_txid - 1;
	}
	return err_set(err, ERR_NOT_FOUND, 0, "database '%s' has no later transaction", h->name);
}

int resolve_next(struct history *h, uint64_t txid, struct moment *ret, struct err *err)
{
	return next_of(h, txid, false, ret, err);
}

int resolve_last(struct history *h, struct moment *ret, struct err *err)
{
	uint64_t lo, hi, first = first_viewable(h);

	if (first == 0 || !txid_range(h, &lo, &hi))
		return err_set(err, ERR_NOT_FOUND, 0, "database '%s' has no restorable moment yet",
		               h->name);
	if (broken_end(h))
		return resolve_broken(broken_end(h), err);
	if (h->have_head && h->head.last_txid > hi)
		return missing(h, h->head.last_txid, err);
	for (uint64_t t = hi; t >= first; t--) {
		struct err why = ERR_INIT;
		int rc = resolve_moment(h, t, ret, &why);
		if (rc == 0)
			return 0;
		if (!passed_over(&why))
			return err_copy(err, &why);
		const struct jump *j = jumps_over(h, t);
		if (j)
			t = j->from_txid + 1;
	}
	return err_set(err, ERR_NOT_FOUND, 0, "database '%s' has no restorable moment yet",
	               h->name);
}

/* The time of a segment's first commit: in a bucket that of a segment of level 0 stands within. */
static int begin_of(struct history *h, struct entry *e, int64_t *ret_us, struct err *err)
{
	cleanup_object struct object *o = NULL;
	int rc = 0;

	if (h->in_bucket && e->name.type == OBJECT_GROWING && e->name.first_us == 0 && !e->broken)
		rc = catalog_open(h, &h->segments, e, &o, err);
	*ret_us = e->name.first_us;
	return rc;
}

/* As below, whatever was thinned. */
static int stored_at(struct history *h, int64_t time_us, uint64_t *ret, struct err *err)
{
	uint64_t best = 0;

	for (size_t i = 0; i < h->snapshots.n; i++) {
		const struct object_name *n = &h->snapshots.e[i].name;
		if (n->last_us <= time_us && n->last_txid > best)
			best = n->last_txid;
	}
	size_t lo = 0, hi = h->segments.n;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		int64_t first_us;
		int rc = begin_of(h, &h->segments.e[mid], &first_us, err);
		if (rc < 0)
			return rc;
		if (first_us <= time_us)
			lo = mid + 1;
		else
			hi = mid;
	}
	*ret = best;
	if (lo == 0)
		return 0;
	/* Where a joined segment lies beside some of what it was joined from, the one that begins
	 * last may end early. */
	for (size_t i = lo; i-- > 0;) {
		struct entry *e = &h->segments.e[i];
		cleanup_object struct object *o = NULL;
		uint64_t n;
		if (e->name.last_txid <= *ret)
			continue;
		if (e->name.last_us <= time_us && !e->broken) {
			*ret = e->name.last_txid;
			continue;
		}
		struct err why = ERR_INIT;
		int rc = catalog_open(h, &h->segments, e, &o, &why);
		if (rc == 0)
			rc = object_commits_until(o, time_us, &n, &why);
		/* Whoever asks what follows what is found before it meets it again. */
		if (rc < 0 && why.kind == ERR_DAMAGED && !h->in_bucket)
			continue;
		if (rc < 0)
			return err_copy(err, &why);
		if (n > 0 && e->name.first_txid + n - 1 > *ret)
			*ret = e->name.first_txid + n - 1;
	}
	return 0;
}

/* The last txid with time <= time_us that can be asked for; 0: none. */
static int txid_at(struct history *h, int64_t time_us, uint64_t *ret, struct err *err)
{
	const struct thinned_point *p;

	int rc = stored_at(h, time_us, ret, err);
	if (rc < 0 || *ret > h->thinned.until_txid)
		return rc;
	p = thinned_by_time(h, time_us);
	*ret = p ? p->txid : 0;
	return 0;
}

static int before_first(struct history *h, struct err *err)
{
	struct moment first;
	char when[TIME_STR_MAX];

	int rc = resolve_next(h, 0, &first, err);
	if (rc < 0)
		return rc;
	time_format(first.time_us, when);
	return err_set(err, ERR_NOT_FOUND, 0,
	               "the history of '%s' begins at %s (txid %" PRIu64 "): choose that or later",
	               h->name, when, first.txid);
}

static int gap_error(struct history *h, int64_t from_us, uint64_t from_txid, struct err *err)
{
	char a[TIME_STR_MAX], b[TIME_STR_MAX];
	struct moment after;

	time_format(from_us, a);
	if (resolve_next(h, from_txid + 1, &after, NULL) < 0)
		return err_set(err, ERR_GAP, 0,
		               "'%s' has a declared gap from %s (txid %" PRIu64
		               ") on, which is not healed yet "
		               "(choose an earlier time, or wait)",
		               h->name, a, from_txid);
	time_format(after.time_us, b);
	return err_set(err, ERR_GAP, 0,
	               "'%s' has a declared gap between %s (txid %" PRIu64 ") and %s (txid %" PRIu64
	               "): choose one of the two",
	               h->name, a, from_txid, b, after.txid);
}

/* What follows `m`, as far as it tells whether it stands behind a gap. */
static int next_commit(struct history *h, uint64_t txid, struct commit *ret, struct err *err)
{
	struct moment m;

	if (!catalog_segment_of(h, txid) && resolve_moment(h, txid, &m, NULL) == 0) {
		/* A state found idle: what was before it nobody saw. */
		*ret = (struct commit){.time_us = m.time_us,
		                       .not_before_us = m.not_before_us,
		                       .flags = COMMIT_HEAL};
		return 0;
	}
	return resolve_commit(h, txid, ret, NULL, err);
}

static int names_lie(struct history *h, uint64_t txid, struct err *err)
{
	return err_set(err, ERR_DAMAGED, 0,
	               "the history of '%s' is damaged: the time of transaction %" PRIu64
	               " is not what the name of its object tells",
	               h->name, txid);
}

/* `m` is the newest commit at or before the time: does the next one leave the time in a gap? */
static int check_gap_after(struct history *h, const struct moment *m, int64_t time_us,
                           struct err *err)
{
	struct commit next;

	if (time_us == m->time_us)
		return 0;
	int rc = next_commit(h, m->txid + 1, &next, err);
	if (rc < 0)
		return rc; /* then nobody can tell whether `m` was still the newest */
	if (next.time_us <= time_us)
		return names_lie(h, m->txid + 1, err);
	bool unknown = next.flags & (COMMIT_UNSETTLED | COMMIT_HEAL);
	if (unknown && time_us > (next.not_before_us ? next.not_before_us : m->time_us) &&
	    next.time_us > time_us)
		return gap_error(h, m->time_us, m->txid, err);
	for (size_t i = 0; i < h->n_gaps; i++) {
		const struct gap_note *g = &h->gaps[i];
		if (time_us > g->before_us && time_us < g->after_us)
			return gap_error(h, m->time_us, m->txid, err);
	}
	return 0;
}

/*
 * What is damaged here is passed over: it cannot be had.  In a bucket the next answer may be another
 * one, and whoever chooses what to keep there must not take what could not be read for not there.
 */
static bool stops_search(const struct history *h, const struct err *why)
{
	return h->in_bucket && !passed_over(why);
}

int resolve_settled_before(struct history *h, uint64_t txid, struct moment *ret, struct err *err)
{
	uint64_t first = first_viewable(h);
	const struct thinned_point *p;

	for (uint64_t t = txid; t >= first && t > 0; t--) {
		for (size_t i = 0; i < h->n_gaps; i++)
			if (t > h->gaps[i].before_txid && t < h->gaps[i].after_txid)
				t = h->gaps[i].before_txid;
		if (t <= h->thinned.until_txid) {
			if (!(p = thinned_at_or_before(h, t)))
				break;
			t = p->txid;
		}
		struct err why = ERR_INIT;
		if (resolve_moment(h, t, ret, &why) == 0)
			return 0;
		if (stops_search(h, &why))
			return err_copy(err, &why);
		const struct jump *j = jumps_over(h, t);
		if (j)
			t = j->from_txid + 1;
	}
	return err_set(err, ERR_NOT_FOUND, 0, "'%s' has no moment that old", h->name);
}

/* The time lies behind a kept point, and before the first commit that is not thinned. */
static int resolve_at_point(struct history *h, uint64_t txid, int64_t time_us, struct moment *ret,
                            struct err *err)
{
	const struct thinned_point *p = thinned_at_or_before(h, txid);
	char when[TIME_STR_MAX];

	int rc = resolve_moment(h, txid, ret, err);
	if (rc < 0)
		return rc;
	if (ret->time_us != p->time_us)
		return names_lie(h, txid, err);
	if (time_us < p->until_us)
		return 0;
	for (size_t i = 0; i < h->n_gaps; i++) {
		const struct gap_note *g = &h->gaps[i];
		if (time_us > g->before_us && time_us < g->after_us)
			return gap_error(h, p->time_us, p->txid, err);
	}
	time_format(time_us, when);
	return thinned_error(h, p, when, err);
}

/* Where one lineage ended in damage and its child began: what was known ends with the one's word, and
 * begins with the other's base, whatever can still be read of the first. */
static const struct jump *jump_at(struct history *h, int64_t time_us)
{
	for (size_t i = 0; i < h->n_lineages; i++) {
		const struct jump *j = &h->lineages[i];
		struct moment after = {.time_us = INT64_MAX};
		if (j->first_txid <= j->from_txid + 1 || !j->from_us || time_us <= j->from_us)
			continue;
		if (resolve_next(h, j->first_txid, &after, NULL) < 0 || time_us < after.time_us)
			return j;
	}
	return NULL;
}

/* Names are believed as to where to look, not as to what is there. */
static int resolve_at(struct history *h, int64_t time_us, int64_t now_us, struct moment *ret,
                      struct err *err)
{
	uint64_t txid, lo, hi;
	struct err why = ERR_INIT;

	if (time_us > now_us)
		return err_set(err, ERR_NOT_FOUND, 0,
		               "the time lies in the future (choose now or earlier)");
	const struct jump *j = jump_at(h, time_us);
	if (j)
		return gap_error(h, j->from_us, j->from_txid, err);
	int rc = txid_at(h, time_us, &txid, err);
	if (rc < 0)
		return rc;
	if (!txid_range(h, &lo, &hi) || txid == 0 || txid < first_viewable(h) || !h->snapshots.n)
		return before_first(h, err);
	if (txid <= h->thinned.until_txid)
		return resolve_at_point(h, txid, time_us, ret, err);
	rc = resolve_moment(h, txid, ret, &why);
	if (err_kind_of(rc) == ERR_GAP) {
		if (resolve_settled_before(h, txid, ret, NULL) == 0)
			return gap_error(h, ret->time_us, ret->txid, err);
		return before_first(h, err);
	}
	if (rc < 0)
		return err_copy(err, &why);
	if (ret->time_us > time_us)
		return names_lie(h, txid, err);
	if (txid < hi)
		return check_gap_after(h, ret, time_us, err);
	if (broken_end(h) && time_us > ret->time_us)
		return resolve_broken(broken_end(h), err);
	if (h->have_head && h->head.last_txid > hi && time_us > ret->time_us)
		return missing(h, h->head.last_txid, err);
	if (time_us > ret->time_us && time_us > h->head.known_until_us)
		ret->flags |= MOMENT_PROVISIONAL;
	return 0;
}

/* ---- the public face: each takes the lock, looks for news first, and again when something that
 * it needs turns out to be gone ---- */

#define TRIES_MAX 5

struct ask {
	struct history *h;
	struct err why;
	unsigned tries;
	int rc;
};

static bool ask_again(struct ask *a)
{
	if (a->rc == 0)
		return false;
	if (!resolve_vanished(&a->why) || a->tries + 1 == TRIES_MAX) {
		if (borrow_more(a->h, &a->why))
			return true;
	}
	if (!resolve_vanished(&a->why))
		return false;
	if (++a->tries == TRIES_MAX) {
		a->why.kind = ERR_DAMAGED;
		log_error("view", "damaged db=%s: %s", a->h->name, a->why.msg);
		return false;
	}
	if (a->tries > 1)
		clock_sleep_us(1000); /* the writer is between making one and removing the other */
	a->h->listed = false;
	return true;
}

static int ask_refresh(struct ask *a, bool now)
{
	a->why = (struct err)ERR_INIT;
	a->rc = catalog_refresh(a->h, now || a->tries > 0, &a->why);
	return a->rc;
}

/* Evaluates `call`, which uses a.why, until it gives an answer. */
#define ASK(history, now, call)                                                                    \
	struct ask a = {.h = (history)};                                                           \
	LOCK_SCOPE(&a.h->lock);                                                                    \
	do {                                                                                       \
		if (ask_refresh(&a, (now)) == 0)                                                   \
			a.rc = (call);                                                             \
	} while (ask_again(&a));                                                                   \
	return a.rc < 0 ? err_copy(err, &a.why) : 0

int history_refresh(struct history *h, struct err *err)
{
	ASK(h, true, 0);
}

int history_at(struct history *h, int64_t time_us, int64_t now_us, struct moment *ret,
               struct err *err)
{
	ASK(h, time_us >= h->head.known_until_us, resolve_at(h, time_us, now_us, ret, &a.why));
}

int history_tx(struct history *h, uint64_t txid, struct moment *ret, struct err *err)
{
	ASK(h, txid > h->head.last_txid, resolve_moment(h, txid, ret, &a.why));
}

int history_latest(struct history *h, struct moment *ret, struct err *err)
{
	ASK(h, true, resolve_last(h, ret, &a.why));
}

int history_first(struct history *h, struct moment *ret, struct err *err)
{
	ASK(h, false, resolve_next(h, 0, ret, &a.why));
}

int history_next(struct history *h, uint64_t txid, struct moment *ret, struct err *err)
{
	ASK(h, txid > h->head.last_txid, resolve_next(h, txid, ret, &a.why));
}

int history_next_strict(struct history *h, uint64_t txid, struct moment *ret, struct err *err)
{
	ASK(h, txid > h->head.last_txid, next_of(h, txid, true, ret, &a.why));
}

static int viewable_after(struct history *h, int64_t time_us, struct moment *ret, struct err *err)
{
	uint64_t txid;
	int rc = txid_at(h, time_us - 1, &txid, err);
	return rc < 0 ? rc : resolve_next(h, txid + 1, ret, err);
}

int history_after(struct history *h, int64_t time_us, struct moment *ret, struct err *err)
{
	ASK(h, false, viewable_after(h, time_us, ret, &a.why));
}

static int viewable_before(struct history *h, int64_t time_us, struct moment *ret, struct err *err)
{
	uint64_t txid;
	int rc = txid_at(h, time_us, &txid, err);

	if (rc < 0)
		return rc;
	if (txid == 0)
		return err_set(err, ERR_NOT_FOUND, 0, "'%s' has no moment that old", h->name);
	return resolve_settled_before(h, txid, ret, err);
}

int history_before(struct history *h, int64_t time_us, struct moment *ret, struct err *err)
{
	ASK(h, false, viewable_before(h, time_us, ret, &a.why));
}

static int get_snapshot(struct history *h, size_t i, struct moment *ret, struct err *err)
{
	if (i >= h->snapshots.n)
		return err_set(err, ERR_NOT_FOUND, 0, "no more snapshots");
	return resolve_snapshot(h, &h->snapshots.e[i], ret, err);
}

int history_snapshot(struct history *h, size_t i, struct moment *ret, struct err *err)
{
	ASK(h, false, get_snapshot(h, i, ret, &a.why));
}

static int get_gap(struct history *h, size_t i, struct gap *ret, struct err *err)
{
	if (i >= h->n_gaps)
		return err_set(err, ERR_NOT_FOUND, 0, "no more gaps");
	*ret = (struct gap){
	        .before_txid = h->gaps[i].before_txid,
	        .after_txid = h->gaps[i].after_txid,
	        .before_us = h->gaps[i].before_us,
	        .after_us = h->gaps[i].after_us,
	};
	return 0;
}

int history_gap(struct history *h, size_t i, struct gap *ret, struct err *err)
{
	ASK(h, false, get_gap(h, i, ret, &a.why));
}

/* The moment to show for `t` when the next one shown is `limit`: where `t` itself lies in a gap,
 * the nearest behind it, or (`last`) before it.  NOT_FOUND: none. */
static int sample_one(struct history *h, uint64_t t, uint64_t after, uint64_t limit, bool last,
                      struct moment *ret, struct err *err)
{
	struct err why = ERR_INIT;

	if (resolve_moment(h, t, ret, &why) == 0)
		return 0;
	if (!passed_over(&why) && !lost_end(h, t, &why))
		return err_copy(err, &why);
	why = (struct err)ERR_INIT;
	if (last ? resolve_settled_before(h, t, ret, NULL) == 0 && ret->txid > after
	         : resolve_next(h, t + 1, ret, &why) == 0 && ret->txid < limit)
		return 0;
	if (why.kind != ERR_NONE && !passed_over(&why))
		return err_copy(err, &why);
	return err_set(err, ERR_NOT_FOUND, 0, "nothing to show");
}

static int sample(struct history *h, int64_t from_us, int64_t to_us, size_t max, struct moment *out,
                  size_t *ret_n, uint64_t *ret_total, struct err *err)
{
	uint64_t before, last, first = first_viewable(h);
	size_t n = 0;

	*ret_n = 0;
	*ret_total = 0;
	int rc = txid_at(h, from_us - 1, &before, err);
	if (rc == 0)
		rc = txid_at(h, to_us - 1, &last, err);
	if (rc < 0)
		return rc;
	uint64_t lo = before + 1 > first ? before + 1 : first;
	if (lo <= h->thinned.until_txid)
		lo = thinned_at_or_after(h, lo)->txid;
	if (first == 0 || last < lo || max == 0)
		return 0;
	uint64_t at = thinned_rank(h, lo), span = thinned_rank(h, last) - at;
	*ret_total = span + 1;
	uint64_t steps = *ret_total < max ? *ret_total : max, next = lo;
	for (uint64_t i = 0; i < steps; i++) {
		uint64_t t = steps == 1 ? last : next, parts = steps - 1;
		if (i + 1 < steps)
			next = thinned_nth(h, at + (span / parts) * (i + 1) +
			                              (span % parts) * (i + 1) / parts);
		struct err why = ERR_INIT;
		rc = sample_one(h, t, n ? out[n - 1].txid : lo - 1, next, i + 1 == steps, &out[n],
		                &why);
		if (rc == 0)
			n++;
		else if (!passed_over(&why))
			return err_copy(err, &why);
	}
	*ret_n = n;
	return 0;
}

int history_sample(struct history *h, int64_t from_us, int64_t to_us, size_t max,
                   struct moment *out, size_t *ret_n, uint64_t *ret_total, struct err *err)
{
	ASK(h, false, sample(h, from_us, to_us, max, out, ret_n, ret_total, &a.why));
}
