/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is not there, and must be (FORMAT.md, invariants 9 and 10).
 *
 * Of transactions names tell: from the first to the last, which the head knows of a directory, each is
 * in a segment or is a snapshot's, lies in a gap, or was thinned.  What retention kept has to be seen:
 * each point is opened, which reads indexes alone.   What a damaged object took with it is told with
 * that object.
 *
 * A first snapshot is named after the time at which it was taken, which nothing else tells.  But commits
 * carry checksums of the whole database only behind it; and what was verified here was seen.  At a
 * destination the first of the two proves nothing: its base can be on its way, behind the segments.
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

static int collect(const struct run *r, struct spans *s, struct err *err)
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
		bool counts = o->type == HISTORY_SNAPSHOT ? o->first_txid == o->last_txid + 1
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

/* `report`: or else only whether there is one. */
static int look(struct run *r, bool report, bool *ret_found, struct err *err)
{
	cleanup_spans struct spans have = {.n = 0};
	int rc = collect(r, &have, err);

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
	return rc;
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

uint64_t find_based(const struct run *r)
{
	uint64_t based = UINT64_MAX;

	for (size_t i = 0; i < r->n_objects; i++)
		if (r->objects[i].type == HISTORY_SNAPSHOT && r->objects[i].last_txid < based)
			based = r->objects[i].last_txid;
	return based;
}

/* One up to `last` that carries the checksum of a whole database; 0: none was seen. */
static uint64_t find_summed(struct run *r, uint64_t first, uint64_t last)
{
	struct commit c;

	for (uint64_t t = last, n = 0; t >= first && t > 0 && n < COMMITS_LOOKED_AT; t--, n++)
		if (history_commit(r->h, t, &c, NULL) == 0 &&
		    !(c.flags & (COMMIT_NO_STATE | COMMIT_UNSETTLED)) && !hash128_zero(c.state))
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
	return report_base(r, first, last, proof,
	                   "carries a checksum of the whole database, as commits do behind one",
	                   err);
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
	rc = rc ? rc : find_missing_base(r, err);
	history_log_damage(r->h, false); /* the report has it */
	if (rc == 0 && r->options->scope == VERIFY_FULL)
		rc = check_points(r, err);
	history_log_damage(r->h, true);
	return rc;
}
