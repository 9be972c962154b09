/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What retention left of the history up to the note's until_txid: points, each the newest state
 * for a stretch of time.  What lies between them is gone by intent, and is told as that; a point
 * that cannot be found is damage.
 */
#include "engine/view/history_i.h"

#include "engine/base/clock.h"

#include <inttypes.h>

/* Number of points with txid <= `txid`. */
static size_t count_until(const struct history *h, uint64_t txid)
{
	size_t lo = 0, hi = h->thinned.n_points;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (h->thinned.points[mid].txid <= txid)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

const struct thinned_point *thinned_at_or_before(const struct history *h, uint64_t txid)
{
	size_t n = count_until(h, txid);

	return n ? &h->thinned.points[n - 1] : NULL;
}

const struct thinned_point *thinned_at_or_after(const struct history *h, uint64_t txid)
{
	size_t n = txid ? count_until(h, txid - 1) : 0;

	return n < h->thinned.n_points ? &h->thinned.points[n] : NULL;
}

const struct thinned_point *thinned_by_time(const struct history *h, int64_t time_us)
{
	size_t lo = 0, hi = h->thinned.n_points;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (h->thinned.points[mid].time_us <= time_us)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo ? &h->thinned.points[lo - 1] : NULL;
}

/* Transactions in a jump with after < txid <= until. */
static uint64_t jumped_by(const struct jump *j, uint64_t after, uint64_t until)
{
	uint64_t from = j->from_txid > after ? j->from_txid : after;
	uint64_t to = j->first_txid - 1 < until ? j->first_txid - 1 : until;

	return to > from ? to - from : 0;
}

static uint64_t jumped(const struct history *h, uint64_t after, uint64_t until)
{
	uint64_t n = 0;

	for (size_t i = 0; i < h->n_lineages; i++)
		n += jumped_by(&h->lineages[i], after, until);
	return n;
}

uint64_t thinned_rank(const struct history *h, uint64_t txid)
{
	uint64_t until = h->thinned.until_txid;

	return txid <= until ? count_until(h, txid)
	                     : h->thinned.n_points + (txid - until) - jumped(h, until, txid);
}

/* The `n`th transaction behind what was thinned. */
static uint64_t behind_points(const struct history *h, uint64_t n)
{
	uint64_t until = h->thinned.until_txid, txid = until + n;

	for (size_t i = 0; i < h->n_lineages; i++) { /* in their order */
		const struct jump *j = &h->lineages[i];
		if (txid > j->from_txid)
			txid += jumped_by(j, until, UINT64_MAX);
	}
	return txid;
}

uint64_t thinned_nth(const struct history *h, uint64_t rank)
{
	size_t n = h->thinned.n_points;

	if (rank > n || n == 0)
		return behind_points(h, rank - n);
	return h->thinned.points[rank ? rank - 1 : 0].txid;
}

bool thinned_is_vague(const struct history *h, const struct entry *e)
{
	return h->in_bucket && e->name.type == OBJECT_GROWING && !e->open &&
	       e->name.last_txid <= h->thinned.until_txid;
}

int thinned_error(const struct history *h, const struct thinned_point *before, const char *what,
                  struct err *err)
{
	const struct thinned_point *after = !before ? h->thinned.points
	                                    : before->txid < h->thinned.until_txid ? before + 1
	                                                                           : NULL;
	char a[TIME_STR_MAX], b[TIME_STR_MAX];

	if (before)
		time_format(before->time_us, a);
	if (after)
		time_format(after->time_us, b);
	if (before && after)
		return err_set(err, ERR_NOT_FOUND, 0,
		               "%s of '%s' was thinned out by retention: the nearest moments kept "
		               "are %s (txid %" PRIu64 ") and %s (txid %" PRIu64 ")",
		               what, h->name, a, before->txid, b, after->txid);
	if (after)
		return err_set(err, ERR_NOT_FOUND, 0,
		               "%s of '%s' is past what retention keeps: the history begins at %s "
		               "(txid %" PRIu64 ")",
		               what, h->name, b, after->txid);
	return err_set(err, ERR_NOT_FOUND, 0,
	               "%s of '%s' was thinned out by retention: the nearest moment kept is %s "
	               "(txid %" PRIu64 ")",
	               what, h->name, a, before->txid);
}

/* The coalesced object that ends with the point: the shortest, which is the point's own. */
static struct entry *coalesced_until(struct history *h, uint64_t txid)
{
	struct entry *best = NULL;

	for (size_t i = 0; i < h->coalesced.n; i++) {
		struct entry *e = &h->coalesced.e[i];
		if (e->name.last_txid == txid &&
		    (!best || e->name.first_txid > best->name.first_txid))
			best = e;
	}
	return best;
}

/* The commit is not whole by itself, as that of a fuzzy snapshot: then the snapshot tells. */
static bool is_whole(const struct commit *c)
{
	return !(c->flags & COMMIT_UNSETTLED);
}

static int coalesced_moment(struct history *h, struct entry *e, struct moment *ret, bool *ret_whole,
                            struct err *err)
{
	cleanup_object struct object *o = NULL;
	struct commit c;

	int rc = catalog_open(h, &h->coalesced, e, &o, err);
	if (rc == 0)
		rc = object_commit(o, 0, &c, err);
	if (rc == 0)
		rc = resolve_fill(h, &c, &h->coalesced, e, ret, err);
	*ret_whole = rc == 0 && is_whole(&c);
	ret->n_frames = 0; /* those of the whole span are there */
	ret->wal_bytes = 0;
	return rc;
}

static int segment_moment(struct history *h, uint64_t txid, struct moment *ret, bool *ret_whole,
                          struct err *err)
{
	struct entry *e;
	struct commit c;

	int rc = resolve_commit(h, txid, &c, &e, err);
	if (rc == 0)
		rc = resolve_fill(h, &c, &h->segments, e, ret, err);
	*ret_whole = rc == 0 && is_whole(&c);
	return rc;
}

static bool has_snapshot(const struct history *h, uint64_t txid)
{
	for (size_t i = 0; i < h->snapshots.n; i++)
		if (h->snapshots.e[i].name.last_txid == txid)
			return true;
	return false;
}

int thinned_moment(struct history *h, uint64_t txid, struct moment *ret, struct err *err)
{
	const struct thinned_point *p = thinned_at_or_before(h, txid);
	struct entry *e;
	bool whole = false;
	char what[40];
	int rc = 0;

	if (!p || p->txid != txid) {
		snprintf(what, sizeof(what), "transaction %" PRIu64, txid);
		return thinned_error(h, p, what, err);
	}
	struct entry *fine = catalog_segment_of(h, txid);
	bool vague = fine && thinned_is_vague(h, fine);
	struct err why = ERR_INIT;
	if (fine)
		rc = segment_moment(h, txid, ret, &whole, &why);
	if (rc < 0 && !(vague && why.kind == ERR_NOT_FOUND))
		return err_copy(err, &why);
	if ((!fine || rc < 0) && (e = coalesced_until(h, txid)))
		rc = coalesced_moment(h, e, ret, &whole, err);
	else if (rc < 0 && !has_snapshot(h, txid))
		return err_copy(err, &why);
	else
		rc = 0;
	if (rc < 0 || whole)
		return rc;
	for (size_t i = 0; i < h->snapshots.n; i++) {
		if (h->snapshots.e[i].name.last_txid != txid)
			continue;
		rc = resolve_snapshot(h, &h->snapshots.e[i], ret, err);
		for (size_t k = 0; k < h->n_gaps; k++) /* (its commit would have said so) */
			if (h->gaps[k].after_txid == txid)
				ret->flags |= MOMENT_HEALED;
		return rc;
	}
	return err_set(err, ERR_NOT_FOUND, ENOENT,
	               "the history of '%s' lacks transaction %" PRIu64 ", which is to be kept",
	               h->name, txid);
}
