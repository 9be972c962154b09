/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is not there, and must be (FORMAT.md, invariants 9 and 10).
 *
 * Of transactions names tell: from the first to the last, which the head knows of a directory, each is
 * in a segment or is a snapshot's, lies in a gap, or was thinned.  What retention kept has to be seen:
 * each point is opened, which reads indexes alone.  What a damaged object took with it is told with
 * that object.  A fuzzy snapshot needs the segments of what was committed while it was taken, also
 * where a complete one has one of those transactions.
 *
 * A first snapshot is named after the time at which it was taken, which nothing else tells.  But commits
 * carry checksums of the whole database only behind it; and what was verified here was seen.  At a
 * destination the first of the two proves nothing: its base can be on its way, behind the segments.
 * Of a lineage that begins anew, with a first snapshot of its own, the same holds.
 */
#include "engine/verify/verify_i.h"

#include "engine/archive/head.h"
#include "engine/base/clock.h"
#include "engine/base/spans.h"

#include <fcntl.h>
#include <inttypes.h>
#include <unistd.h>

/* Beside upkeep and retention a listing can miss what was just joined. */
#define LOOKS 3u
#define LOOK_AGAIN_US 100000

/* `snapshots`: with what only a complete one has. */
static int collect(const struct run *r, struct spans *s, bool snapshots, struct err *err)
{
	uint64_t thinned = history_thinned(r->h);
	struct gap g;
	struct jump j;
	int rc = thinned ? spans_add(s, 0, thinned, err) : 0;

	for (size_t i = 0; i < r->n_objects && rc == 0; i++) {
		const struct history_object *o = &r->objects[i];
		/* Of a growing one that is damaged, as far as it can reach. */
		uint64_t first = o->type == HISTORY_SNAPSHOT ? o->last_txid : o->first_txid;
		/* A fuzzy snapshot is nothing without its segments. */
		bool counts = o->type == HISTORY_SNAPSHOT
		                      ? snapshots && o->first_txid == o->last_txid + 1
		                      : o->type != HISTORY_COALESCED;
		if (counts && o->last_txid >= first && o->last_txid)
			rc = spans_add(s, first, o->last_txid, err);
	}
	for (size_t i = 0; rc == 0 && history_gap(r->h, i, &g, NULL) == 0; i++)
		if (g.after_txid > g.before_txid + 1)
			rc = spans_add(s, g.before_txid + 1, g.after_txid - 1, err);
	for (size_t i = 0; rc == 0 && history_jump(r->h, i, &j, NULL) == 0; i++)
		if (j.first_txid > j.from_txid + 1)
			rc = spans_add(s, j.from_txid + 1, j.first_txid - 1, err);
	spans_sort(s);
	return rc;
}

static uint64_t begin_of(const struct run *r)
{
	uint64_t first = UINT64_MAX;
	struct jump j;

	for (size_t i = 0; history_jump(r->h, i, &j, NULL) == 0; i++)
		if (j.told_us && j.told_txid < first)
			first = j.told_txid;

	for (size_t i = 0; i < r->n_objects; i++)
		if (r->objects[i].type != HISTORY_COALESCED && r->objects[i].first_txid < first)
			first = r->objects[i].first_txid;
	return first;
}

static uint64_t end_of(const struct run *r, uint64_t told_txid)
{
	uint64_t last = told_txid;

	for (size_t i = 0; i < r->n_objects; i++)
		if (r->objects[i].last_txid > last)
			last = r->objects[i].last_txid;
	return last;
}

static bool is_told(const struct run *r, uint64_t first, uint64_t last)
{
	return verify_range_with(r->report, first) && verify_range_with(r->report, last);
}

static int report_hole(struct run *r, uint64_t first, uint64_t last, struct err *err)
{
	struct object_check check = {.whole = false};
	char lost[240] = "";
	struct jump j;

	for (size_t i = 0; history_jump(r->h, i, &j, NULL) == 0; i++)
		if (j.told_txid >= first && j.told_txid <= last && j.lost[0])
			snprintf(lost, sizeof(lost), ": '%s' is gone", j.lost);
	if (first == last)
		(void)!err_set(&check.first, ERR_DAMAGED, 0,
		               "transaction %" PRIu64 " is missing: no segment holds it%s", first,
		               lost);
	else
		(void)!err_set(&check.first, ERR_DAMAGED, 0,
		               "transactions %" PRIu64 " to %" PRIu64
		               " are missing: no segment holds them%s",
		               first, last, lost);
	int rc = report_damage(r, NULL, &check, err);
	return rc ? rc : find_affected_by_hole(r, first, last, err);
}

/* 0: it can be seen; or why not. */
static enum err_kind try_view(struct run *r, uint64_t txid)
{
	struct view *v = NULL;
	struct err why = ERR_INIT;

	history_log_damage(r->h, false); /* the report has it */
	int rc = view_open(r->h, txid, &v, &why);
	history_log_damage(r->h, true);
	view_free(v);
	return err_kind_of(rc);
}

/* A fuzzy snapshot whose segments are not all there: what stands on it is lost. */
static int report_redo(struct run *r, const struct history_object *o, uint64_t txid,
                       struct err *err)
{
	struct object_check check = {.whole = false};

	(void)!err_set(&check.first, ERR_DAMAGED, 0,
	               "transaction %" PRIu64 " is missing: no segment holds it, and '%s' needs it",
	               txid, o->file);
	int rc = report_damage(r, NULL, &check, err);
	return rc ? rc : find_affected_by_hole(r, o->last_txid, o->last_txid, err);
}

static int look_at_redo(struct run *r, bool report, bool *ret_found, struct err *err)
{
	cleanup_spans struct spans fine = {.n = 0};
	int rc = collect(r, &fine, false, err);

	for (size_t i = 0; i < r->n_objects && rc == 0; i++) {
		const struct history_object *o = &r->objects[i];
		if (o->type != HISTORY_SNAPSHOT || o->first_txid > o->last_txid)
			continue; /* a complete one needs none */
		uint64_t txid = spans_reach(&fine, o->first_txid);
		if (txid > o->last_txid || is_told(r, o->last_txid, o->last_txid))
			continue;
		if (try_view(r, o->last_txid) == 0) /* a coalesced object has them, say */
			continue;
		*ret_found = true;
		rc = report ? report_redo(r, o, txid, err) : 0;
	}
	return rc;
}

/* `report`: or else only whether there is one. */
static int look(struct run *r, bool report, bool *ret_found, struct err *err)
{
	cleanup_spans struct spans have = {.n = 0};
	int rc = collect(r, &have, true, err);

	*ret_found = false;
	uint64_t at = begin_of(r), end = end_of(r, r->told_txid), first;
	/* Of a folder without any object the writer's word is left. */
	if (at == UINT64_MAX)
		at = 1;
	while (rc == 0 && (first = spans_reach(&have, at)) <= end) {
		uint64_t next = spans_next(&have, first);
		uint64_t last = next <= end ? next - 1 : end;
		if (!is_told(r, first, last)) {
			*ret_found = true;
			if (!report)
				return 0;
			rc = report_hole(r, first, last, err);
		}
		at = last + 1;
	}
	return rc ? rc : look_at_redo(r, report, ret_found, err);
}

static int list_again(struct run *r, struct err *err)
{
	struct history_object *objects = NULL;
	size_t n = 0;

	clock_sleep_us(LOOK_AGAIN_US);
	history_relist(r->h);
	int rc = history_objects(r->h, &objects, &n, err);
	if (rc < 0)
		return rc;
	free(r->objects);
	r->objects = objects;
	r->n_objects = n;
	return 0;
}

/* ---- the first snapshot ---- */

#define COMMITS_LOOKED_AT 64u
#define SUMMED "carries a checksum of the whole database, as commits do behind one"

uint64_t find_based(const struct run *r)
{
	uint64_t based = UINT64_MAX;

	for (size_t i = 0; i < r->n_objects; i++)
		if (r->objects[i].type == HISTORY_SNAPSHOT && r->objects[i].last_txid < based)
			based = r->objects[i].last_txid;
	return based;
}

/* Whether it carries the checksum of a whole database. */
static bool is_summed(struct run *r, uint64_t txid)
{
	struct commit c;

	return history_commit(r->h, txid, &c, NULL) == 0 &&
	       !(c.flags & (COMMIT_NO_STATE | COMMIT_UNSETTLED)) && !hash128_zero(c.state);
}

/* One up to `last`; 0: none was seen. */
static uint64_t find_summed(struct run *r, uint64_t first, uint64_t last)
{
	for (uint64_t t = last, n = 0; t >= first && t > 0 && n < COMMITS_LOOKED_AT; t--, n++)
		if (is_summed(r, t))
			return t;
	return 0;
}

/* Where a recorder writes, and not a shipper, which sends parts. */
static bool is_recorded_here(const struct run *r)
{
	return r->dir_fd >= 0 && faccessat(r->dir_fd, HEAD_NAME, F_OK, 0) == 0;
}

static int report_base(struct run *r, uint64_t first, uint64_t last, uint64_t proof,
                       const char *what, struct err *err)
{
	struct object_check check = {.whole = false};

	(void)!err_set(&check.first, ERR_DAMAGED, 0,
	               "a snapshot is missing: none lies at or before transaction %" PRIu64
	               ", which %s (asof validate --repair brings it from another place)",
	               proof, what);
	int rc = report_damage(r, NULL, &check, err);
	return rc ? rc : find_affected_by_hole(r, first, last, err);
}

static int find_missing_base(struct run *r, struct err *err)
{
	uint64_t first = begin_of(r), based = find_based(r), proof;
	uint64_t last = based == UINT64_MAX ? end_of(r, 0) : based ? based - 1 : 0;

	if (history_thinned(r->h) || first > last)
		return 0;
	/* What it takes along may be told with an object that is damaged. */
	if (is_told(r, first, last))
		return 0;
	if (r->note.through_txid && r->note.through_txid <= last)
		return report_base(r, first, last, r->note.through_txid, "was verified here", err);
	if (!is_recorded_here(r) || (proof = find_summed(r, first, last)) == 0)
		return 0;
	return report_base(r, first, last, proof, SUMMED, err);
}

/* As it lies before any snapshot that it can stand on. */
static bool is_baseless(struct run *r, uint64_t txid)
{
	return try_view(r, txid) == ERR_GAP;
}

/* From `first`, which is baseless, to the last that is, up to `end`: behind it a gap is healed. */
static uint64_t last_baseless(struct run *r, uint64_t first, uint64_t end)
{
	uint64_t lo = first, hi = end + 1;

	while (hi - lo > 1) {
		uint64_t mid = lo + (hi - lo) / 2;
		if (is_baseless(r, mid))
			lo = mid;
		else
			hi = mid;
	}
	return lo;
}

/* The transactions of a lineage before its first snapshot; false: none. */
static bool before_base(const struct run *r, uint32_t lineage, uint64_t *ret_first,
                        uint64_t *ret_last)
{
	uint64_t first = UINT64_MAX, last = 0, based = UINT64_MAX;

	for (size_t i = 0; i < r->n_objects; i++) {
		const struct history_object *o = &r->objects[i];
		if (o->lineage != lineage || o->type == HISTORY_COALESCED)
			continue;
		if (o->type == HISTORY_SNAPSHOT) {
			based = o->last_txid < based ? o->last_txid : based;
			continue;
		}
		first = o->first_txid < first ? o->first_txid : first;
		last = o->last_txid > last ? o->last_txid : last;
	}
	*ret_first = first > history_thinned(r->h) ? first : history_thinned(r->h) + 1;
	*ret_last = based <= last ? based - 1 : last;
	return *ret_first <= *ret_last && *ret_last != UINT64_MAX;
}

static int find_missing_base_of(struct run *r, uint32_t lineage, struct err *err)
{
	uint64_t first, last;

	if (!before_base(r, lineage, &first, &last))
		return 0;
	for (uint64_t t = first; t <= last && t - first < COMMITS_LOOKED_AT; t++) {
		if (!is_summed(r, t))
			continue;
		if (is_told(r, t, t) || !is_baseless(r, t))
			break; /* what went before goes on in it */
		return report_base(r, t, last_baseless(r, t, last), t, SUMMED, err);
	}
	return 0;
}

static int find_missing_bases(struct run *r, struct err *err)
{
	uint32_t known = 0; /* they are numbered as they begin */
	int rc = find_missing_base(r, err);

	for (size_t i = 0; i < r->n_objects && rc == 0 && is_recorded_here(r); i++) {
		const struct history_object *o = &r->objects[i];
		bool fine = o->type == HISTORY_GROWING || o->type == HISTORY_SEGMENT;
		if (!fine || o->lineage == known)
			continue;
		known = o->lineage;
		rc = find_missing_base_of(r, known, err);
	}
	return rc;
}

/* ---- what retention kept ---- */

static int see_point(struct run *r, uint64_t txid, bool *ret, struct err *err)
{
	struct view *v = NULL;
	struct err why = ERR_INIT;
	uint64_t still;

	int rc = view_open(r->h, txid, &v, &why);
	view_free(v);
	/* Retention may have let go of it meanwhile: then it is none any more. */
	*ret = rc == 0 || !history_point(r->h, txid, &still) || still != txid;
	return rc == 0 || why.kind == ERR_DAMAGED || why.kind == ERR_NOT_FOUND ||
	                       why.kind == ERR_GAP
	               ? 0
	               : err_copy(err, &why);
}

static int report_points(struct run *r, uint64_t first, uint64_t last, struct err *err)
{
	struct object_check check = {.whole = false};

	(void)!err_set(&check.first, ERR_DAMAGED, 0,
	               "what retention kept of transactions %" PRIu64 " to %" PRIu64
	               " cannot be seen: an object that it needs is missing",
	               first, last);
	int rc = report_damage(r, NULL, &check, err);
	/* What follows the last of them lies over it. */
	return rc ? rc : find_affected_by_hole(r, first, last, err);
}

static int check_points(struct run *r, struct err *err)
{
	uint64_t until = history_thinned(r->h), first = 0, last = 0;
	struct moment m = {.txid = 0};
	int rc = 0;

	for (uint64_t t = 1; t <= until && rc == 0; t = m.txid + 1) {
		bool seen = true;
		if (!history_point(r->h, t, &m.txid))
			break;
		if (!verify_range_with(r->report, m.txid))
			rc = see_point(r, m.txid, &seen, err);
		if (rc == 0 && !seen && !first)
			first = m.txid;
		if (!seen)
			last = m.txid;
		if (rc == 0 && seen && first) {
			rc = report_points(r, first, last, err);
			first = 0;
		}
		rc = rc ? rc : run_tick(r, 0, err);
	}
	return rc == 0 && first ? report_points(r, first, last, err) : rc;
}

int find_missing(struct run *r, struct err *err)
{
	bool found = true;
	int rc = 0;

	if (r->thinned_lost) /* what is missing cannot be told */
		return 0;
	for (unsigned i = 0; i < LOOKS && found && rc == 0; i++) {
		rc = i ? list_again(r, err) : 0;
		rc = rc ? rc : look(r, false, &found, err);
	}
	if (rc == 0 && found)
		rc = look(r, true, &found, err);
	rc = rc ? rc : find_missing_bases(r, err);
	history_log_damage(r->h, false); /* the report has it */
	if (rc == 0 && r->options->scope == VERIFY_FULL)
		rc = check_points(r, err);
	history_log_damage(r->h, true);
	return rc;
}
