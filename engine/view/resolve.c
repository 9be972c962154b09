/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Times and txids to moments.
 *
 * Txids are dense: the segments, in order, hold every one from the first to the last.  A commit
 * can be viewed when a snapshot at or before it exists, and it is settled (or a snapshot is the
 * image of just that commit).
 */
#include "engine/view/history_i.h"

#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/sqlite/format.h"

#include <fcntl.h>

#include <inttypes.h>

static int broken_error(const struct entry *e, struct err *err)
{
	return err_set(err, ERR_DAMAGED, 0,
	               "'%s' is damaged: what it holds cannot be told (asof validate names the rest)",
	               e->file);
}

int resolve_commit(struct history *h, uint64_t txid, struct commit *ret, struct entry **ret_entry,
                   struct err *err)
{
	struct entry *e = catalog_segment_of(h, txid);
	cleanup_object struct object *o = NULL;

	if (!e) {
		if (h->segments.n && h->segments.e[h->segments.n - 1].broken)
			return broken_error(&h->segments.e[h->segments.n - 1], err);
		return err_set(err, ERR_NOT_FOUND, 0, "database '%s' has no transaction %" PRIu64,
		               h->name, txid);
	}
	int rc = catalog_open(h, &h->segments, e, &o, err);
	if (rc < 0)
		return rc;
	rc = object_commit(o, txid - e->name.first_txid, ret, err);
	if (rc < 0 && e->broken)
		return broken_error(e, err);
	if (ret_entry)
		*ret_entry = e;
	return rc;
}

/* The newest snapshot with txid <= `txid`, or NULL. */
static struct entry *snapshot_before(struct history *h, uint64_t txid)
{
	struct entry *best = NULL;

	for (size_t i = 0; i < h->snapshots.n; i++) {
		struct entry *e = &h->snapshots.e[i];
		if (e->name.last_txid <= txid && (!best || e->name.last_txid > best->name.last_txid))
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

int resolve_fill(struct history *h, const struct commit *c, struct entry *e, struct moment *ret,
                 struct err *err)
{
	cleanup_object struct object *o = NULL;

	int rc = catalog_open(h, &h->segments, e, &o, err);
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
static int snapshot_moment(struct history *h, struct entry *e, struct moment *ret, struct err *err)
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
	return 0;
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
			               "transaction %" PRIu64 " of '%s' lies in a declared gap between %s "
			               "(txid %" PRIu64 ") and %s (txid %" PRIu64 ")",
			               txid, h->name, a, g->before_txid, b, g->after_txid);
		}
	}
	if (h->snapshots.n == 0)
		return err_set(err, ERR_NOT_FOUND, 0,
		               "database '%s' has no snapshot yet (wait for the first to complete)", h->name);
	return err_set(err, ERR_GAP, 0,
	               "transaction %" PRIu64 " of '%s' lies in a gap that is not healed yet", txid,
	               h->name);
}

int resolve_moment(struct history *h, uint64_t txid, struct moment *ret, struct err *err)
{
	struct entry *s = snapshot_before(h, txid), *e;
	struct commit c;

	if (s && s->name.last_txid == txid && s->name.first_txid == txid + 1 && !catalog_segment_of(h, txid))
		return snapshot_moment(h, s, ret, err);
	int rc = resolve_commit(h, txid, &c, &e, err);
	if (rc < 0)
		return rc;
	if (!resolve_viewable(h, &c))
		return not_viewable(h, txid, err);
	return resolve_fill(h, &c, e, ret, err);
}

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
	*ret_first = first;
	*ret_last = last;
	return last > 0;
}

/* The first viewable txid: that of the oldest snapshot. */
static uint64_t first_viewable(struct history *h)
{
	uint64_t first = 0;

	for (size_t i = 0; i < h->snapshots.n; i++)
		if (first == 0 || h->snapshots.e[i].name.last_txid < first)
			first = h->snapshots.e[i].name.last_txid;
	return first;
}

static int next_viewable(struct history *h, uint64_t txid, struct moment *ret, struct err *err)
{
	uint64_t lo, hi, first = first_viewable(h);

	if (first == 0 || !txid_range(h, &lo, &hi))
		return err_set(err, ERR_NOT_FOUND, 0, "database '%s' has no restorable moment yet", h->name);
	for (uint64_t t = txid > first ? txid : first; t <= hi; t++) {
		int rc = resolve_moment(h, t, ret, err);
		if (rc == 0 || (err_kind_of(rc) != ERR_GAP && err_kind_of(rc) != ERR_NOT_FOUND))
			return rc;
		for (size_t i = 0; i < h->n_gaps; i++) /* leap over what is known to be a gap */
			if (t > h->gaps[i].before_txid && t + 1 < h->gaps[i].after_txid)
				t = h->gaps[i].after_txid - 1;
	}
	return err_set(err, ERR_NOT_FOUND, 0, "database '%s' has no later transaction", h->name);
}

static int last_viewable(struct history *h, struct moment *ret, struct err *err)
{
	uint64_t lo, hi, first = first_viewable(h);

	if (first == 0 || !txid_range(h, &lo, &hi))
		return err_set(err, ERR_NOT_FOUND, 0, "database '%s' has no restorable moment yet", h->name);
	if (h->segments.n && h->segments.e[h->segments.n - 1].broken)
		return broken_error(&h->segments.e[h->segments.n - 1], err);
	for (uint64_t t = hi; t >= first; t--) {
		int rc = resolve_moment(h, t, ret, err);
		if (rc == 0 || (err_kind_of(rc) != ERR_GAP && err_kind_of(rc) != ERR_NOT_FOUND))
			return rc;
	}
	return err_set(err, ERR_NOT_FOUND, 0, "database '%s' has no restorable moment yet", h->name);
}

/* The last txid with time <= time_us that the archive holds; 0: none. */
static int txid_at(struct history *h, int64_t time_us, uint64_t *ret, struct err *err)
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
		const struct object_name *n = &h->segments.e[mid].name;
		if (n->last_txid >= n->first_txid && n->first_us <= time_us)
			lo = mid + 1;
		else
			hi = mid;
	}
	*ret = best;
	if (lo == 0)
		return 0;
	struct entry *e = &h->segments.e[lo - 1];
	cleanup_object struct object *o = NULL;
	uint64_t n;
	int rc = catalog_open(h, &h->segments, e, &o, err);
	if (rc == 0)
		rc = object_commits_until(o, time_us, &n, err);
	if (rc == 0 && n > 0 && e->name.first_txid + n - 1 > best)
		*ret = e->name.first_txid + n - 1;
	return rc;
}

static int before_first(struct history *h, struct err *err)
{
	struct moment first;
	char when[TIME_STR_MAX];

	int rc = next_viewable(h, 0, &first, err);
	if (rc < 0)
		return rc;
	time_format(first.time_us, when);
	return err_set(err, ERR_NOT_FOUND, 0,
	               "the history of '%s' begins at %s (txid %" PRIu64 "): choose that or later", h->name,
	               when, first.txid);
}

static int gap_error(struct history *h, int64_t from_us, uint64_t from_txid, struct err *err)
{
	char a[TIME_STR_MAX], b[TIME_STR_MAX];
	struct moment after;

	time_format(from_us, a);
	if (next_viewable(h, from_txid + 1, &after, NULL) < 0)
		return err_set(err, ERR_GAP, 0,
		               "'%s' has a declared gap from %s (txid %" PRIu64 ") on, which is not healed yet "
		               "(choose an earlier time, or wait)", h->name, a, from_txid);
	time_format(after.time_us, b);
	return err_set(err, ERR_GAP, 0,
	               "'%s' has a declared gap between %s (txid %" PRIu64 ") and %s (txid %" PRIu64
	               "): choose one of the two", h->name, a, from_txid, b, after.txid);
}

/* `m` is the newest commit at or before the time: does the next one leave the time in a gap? */
static int check_gap_after(struct history *h, const struct moment *m, int64_t time_us,
                           struct err *err)
{
	struct commit next;
	struct err why = ERR_INIT;

	if (resolve_commit(h, m->txid + 1, &next, NULL, &why) < 0)
		return 0;
	bool unknown = next.flags & (COMMIT_UNSETTLED | COMMIT_HEAL);
	if (unknown && time_us > (next.not_before_us ? next.not_before_us : m->time_us) &&
	    next.time_us > time_us)
		return gap_error(h, m->time_us, m->txid, err);
	return 0;
}

static int last_settled_before(struct history *h, uint64_t txid, struct moment *ret)
{
	uint64_t first = first_viewable(h);

	for (uint64_t t = txid; t >= first && t > 0; t--) {
		for (size_t i = 0; i < h->n_gaps; i++)
			if (t > h->gaps[i].before_txid && t < h->gaps[i].after_txid)
				t = h->gaps[i].before_txid;
		if (resolve_moment(h, t, ret, NULL) == 0)
			return 0;
	}
	return -ERR_NOT_FOUND;
}

static int resolve_at(struct history *h, int64_t time_us, int64_t now_us, struct moment *ret,
                      struct err *err)
{
	uint64_t txid, lo, hi;
	struct err why = ERR_INIT;

	if (time_us > now_us)
		return err_set(err, ERR_NOT_FOUND, 0, "the time lies in the future (choose now or earlier)");
	int rc = txid_at(h, time_us, &txid, err);
	if (rc < 0)
		return rc;
	if (!txid_range(h, &lo, &hi) || txid == 0 || txid < first_viewable(h) || !h->snapshots.n)
		return before_first(h, err);
	rc = resolve_moment(h, txid, ret, &why);
	if (err_kind_of(rc) == ERR_GAP) {
		if (last_settled_before(h, txid, ret) == 0)
			return gap_error(h, ret->time_us, ret->txid, err);
		return before_first(h, err);
	}
	if (rc < 0)
		return err_copy(err, &why);
	if (txid < hi)
		return check_gap_after(h, ret, time_us, err);
	if (h->segments.n && h->segments.e[h->segments.n - 1].broken)
		return broken_error(&h->segments.e[h->segments.n - 1], err);
	if (time_us > ret->time_us && time_us > h->head.known_until_us)
		ret->flags |= MOMENT_PROVISIONAL;
	return 0;
}

/* ---- the public face: each takes the lock, and looks for news first ---- */

#define ENTER(h, now)                                                                              \
	LOCK_SCOPE(&(h)->lock);                                                                    \
	do {                                                                                       \
		int enter_rc_ = catalog_refresh((h), (now), err);                                  \
		if (enter_rc_ < 0)                                                                 \
			return enter_rc_;                                                          \
	} while (0)

int history_refresh(struct history *h, struct err *err)
{
	ENTER(h, true);
	return 0;
}

int history_at(struct history *h, int64_t time_us, int64_t now_us, struct moment *ret,
               struct err *err)
{
	ENTER(h, time_us >= h->head.known_until_us);
	return resolve_at(h, time_us, now_us, ret, err);
}

int history_tx(struct history *h, uint64_t txid, struct moment *ret, struct err *err)
{
	ENTER(h, txid > h->head.last_txid);
	return resolve_moment(h, txid, ret, err);
}

int history_latest(struct history *h, struct moment *ret, struct err *err)
{
	ENTER(h, true);
	return last_viewable(h, ret, err);
}

int history_first(struct history *h, struct moment *ret, struct err *err)
{
	ENTER(h, false);
	return next_viewable(h, 0, ret, err);
}

int history_next(struct history *h, uint64_t txid, struct moment *ret, struct err *err)
{
	ENTER(h, txid > h->head.last_txid);
	return next_viewable(h, txid, ret, err);
}

int history_after(struct history *h, int64_t time_us, struct moment *ret, struct err *err)
{
	uint64_t txid;
	ENTER(h, false);
	int rc = txid_at(h, time_us - 1, &txid, err);
	return rc < 0 ? rc : next_viewable(h, txid + 1, ret, err);
}

int history_gap(struct history *h, size_t i, struct gap *ret, struct err *err)
{
	ENTER(h, false);
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

int history_sample(struct history *h, int64_t from_us, int64_t to_us, size_t max,
                   struct moment *out, size_t *ret_n, uint64_t *ret_total, struct err *err)
{
	uint64_t before, last, first = first_viewable(h);
	size_t n = 0;
	ENTER(h, false);

	*ret_n = 0;
	*ret_total = 0;
	first = first_viewable(h);
	int rc = txid_at(h, from_us - 1, &before, err);
	if (rc == 0)
		rc = txid_at(h, to_us - 1, &last, err);
	if (rc < 0)
		return rc;
	uint64_t lo = before + 1 > first ? before + 1 : first;
	if (first == 0 || last < lo || max == 0)
		return 0;
	*ret_total = last - lo + 1;
	uint64_t steps = *ret_total < max ? *ret_total : max;
	for (uint64_t i = 0; i < steps; i++) {
		uint64_t span = last - lo;
		uint64_t t = steps == 1 ? last : lo + (span / (steps - 1)) * i + (span % (steps - 1)) * i / (steps - 1);
		struct err why = ERR_INIT;
		rc = resolve_moment(h, t, &out[n], &why);
		if (rc == 0)
			n++;
		else if (why.kind != ERR_GAP && why.kind != ERR_NOT_FOUND)
			return err_copy(err, &why);
	}
	*ret_n = n;
	return 0;
}

static uint64_t sum_bytes(const struct entries *es)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < es->n; i++)
		sum += es->e[i].bytes;
	return sum;
}

int history_get_status(struct history *h, struct history_status *ret, struct err *err)
{
	struct moment m;
	struct err why = ERR_INIT;
	ENTER(h, true);

	*ret = (struct history_status){
	        .known_until_us = h->head.known_until_us,
	        .lineage = h->lineage,
	        .gaps = h->n_gaps,
	        .archive_bytes = sum_bytes(&h->snapshots) + sum_bytes(&h->segments) + sum_bytes(&h->coalesced),
	        .n_snapshots = h->snapshots.n,
	        .n_segments = h->segments.n,
	        .n_coalesced = h->coalesced.n,
	};
	snprintf(ret->source_path, sizeof(ret->source_path), "%s", h->source.path);
	for (size_t i = 0; i < h->segments.n; i++)
		if (h->segments.e[i].name.type == OBJECT_GROWING)
			ret->unsealed_bytes += h->segments.e[i].bytes;
	if (next_viewable(h, 0, &m, &why) == 0) {
		ret->first_txid = m.txid;
		ret->first_us = m.time_us;
	}
	if (ret->first_txid && last_viewable(h, &m, &why) == 0) {
		ret->last_txid = m.txid;
		ret->last_us = m.time_us;
	}
	if (ret->known_until_us < ret->last_us)
		ret->known_until_us = ret->last_us;
	int fd = openat(h->dir_fd, "lock", O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		ret->writer_alive = file_is_locked(fd);
		close(fd);
	}
	return 0;
}
