/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The plan of a pass of retention.  Pure: what it knows of the archive is its input, and what
 * it asks has one answer only.
 *
 *  (1) Points rise by txid; the last is fine_txid.  All that the policy keeps up to it is
 *      among them, and every mark.
 *  (2) After the jobs, every point has a base and, over it, at most RETAIN_DEPTH coalesced
 *      objects that cover what lies between without a hole; no segment that ends at or before
 *      fine_txid is needed by any moment that is kept.
 *  (3) What is needed by a moment that is kept is never in `expire`.  What ends behind
 *      fine_txid never is.
 *  (4) A base that nothing before connects with (a root: the first one, one after a gap that no
 *      difference healed, one of a new page size) is never left out below a point.
 */
#ifndef ASOF_RETAIN_PLAN_H
#define ASOF_RETAIN_PLAN_H

#include "engine/archive/notes.h"
#include "engine/retain/retain.h"
#include "engine/view/replay.h"

#define RETAIN_DEPTH 8u
#define RETAIN_DEPTH_LAST 6u /* of the last point, over which segments lie */

struct retain_point {
	uint64_t txid;
	int64_t time_us;
	const char *reason; /* why it is kept */
};

struct retain_input {
	const struct history_object *objects; /* as history_objects() gives them */
	const bool *roots;                    /* of the same length; of snapshots */
	size_t n;
	uint64_t fine_txid; /* so far; 0: nothing was thinned */
	const struct mark *marks;
	size_t n_marks;
	const struct retain_policy *policy;
	int64_t now_us;
	/* The last commit that can be viewed, at or before a time; NOT_FOUND: none. */
	int (*before)(void *ctx, int64_t time_us, struct retain_point *ret, struct err *err);
	/* Commit `txid`, if it can be viewed; NOT_FOUND, GAP. */
	int (*at)(void *ctx, uint64_t txid, struct retain_point *ret, struct err *err);
	void *ctx;
};

enum retain_job_type {
	RETAIN_COALESCE, /* (after_txid, until_txid], exactly that */
	RETAIN_WIDEN,    /* the same over coalesced objects; may say more of before */
	RETAIN_BASE,     /* a snapshot of until_txid */
};
struct retain_job {
	enum retain_job_type type;
	uint64_t after_txid, until_txid;
	const char *reason;
};

struct retain_plan {
	uint64_t fine_txid;
	struct retain_point *points;
	size_t n_points, cap_points;
	struct retain_job
	        *jobs; /* in this order; their sizes are not known: plan again after them */
	size_t n_jobs, cap_jobs;
	bool *expire; /* of each object: no kept moment needs it once the jobs are done */
};

int retain_plan(const struct retain_input *in, struct retain_plan *ret, struct err *err) MUST_USE;
void retain_plan_release(struct retain_plan *p);

/* Times are cut at multiples of this where the policy's oldest tier begins: what a policy that
 * keeps every commit of the last 72 h moves by. */
int64_t retain_step_us(const struct retain_policy *p);
/* The policy for want of space, `level` from 1: tiers shorten by eighths, the finest first. False:
 * there is nothing more to shorten. */
bool retain_shorten(const struct retain_policy *p, int64_t oldest_us, int64_t now_us,
                    unsigned level, struct retain_policy *ret);

#endif
