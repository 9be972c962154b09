/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Retention: which moments of one database's history are kept, and how the others go.
 *
 * A policy is a row of tiers, the finest first: of what is at most `age_us` old, the last
 * commit of each `every_us` is kept (0: every commit), counted from 1970-01-01T00:00Z, so that
 * with one an hour every full hour can be asked for.  Kept besides, whatever the policy: the
 * newest restorable moment, every mark, and the state at which the oldest tier begins.
 *
 * How the history is thinned (FORMAT.md, "thinned"):
 *
 *     segments:  |-----------|-------------|------------|-------------|---- growing
 *     kept:           p1            p2           p3  p4      U
 *     coalesced:      |-------------|------------|---|-------|
 *                                                            every commit is kept from here
 *
 *  (1) Between neighbouring kept points lies one coalesced object.  Where what lies over a
 *      base grows too deep, wider objects or a base are made, as in compact.h.
 *  (2) The note `thinned` then lists the points, and the moment U from which on every commit
 *      is kept.  With it the others are gone: readers name the nearest points instead.
 *  (3) An object that no kept moment needs is written to the note `expiring`, and deleted when
 *      it has stood there for the grace time: snapshots first, so that a reader which plans a
 *      view anew finds a base whose objects are all there.
 *
 * Making comes before telling, telling before deleting, and each step is whole or has not
 * happened; so a crash anywhere leaves a history that is right, and the next pass goes on.
 * While a pass (or compaction) runs, the file `upkeep` is locked: a second one is BUSY.
 *
 * At a destination (retainer_new_far()) it is the same pass, over what the destination holds,
 * by a policy of its own:
 *
 *  (4) What it asks to be made comes from the local archive where that still has those
 *      transactions, as an object of that very name or by making it from them; else from what is
 *      read at the destination.  Then it is put there, never in place of another.
 *  (5) Segments of level 0 are left to who sends them, until a sealed one behind them is there.  Where
 *      a sealed segment goes, the level 0 that it covers goes first; and segments go the oldest first,
 *      none while one of level 0 lies before it: a reader takes each of these to reach up to the next.
 *  (6) `may_write` is asked before every put and every deletion.  Max_bytes and min_free do not
 *      count there.
 *  (7) Where deletion is denied everything else is done.  An object that may not go (it is locked, say)
 *      stays, and the others go (`denied`); it is tried again in the next pass.  Where nothing may go
 *      (`no_delete`) a pass tries one.  See store/denials.h.
 */
#ifndef ASOF_RETAIN_RETAIN_H
#define ASOF_RETAIN_RETAIN_H

#include "engine/base/cleanup.h"
#include "engine/base/clock.h"
#include "engine/base/err.h"

#include <stdatomic.h>
#include <stdio.h>

#define RETAIN_TIERS_MAX 8
#define RETAIN_GRACE_US (24 * 3600 * US_PER_SECOND)
/* Of the filesystem, left to the application: 5 of 100, or 2 GB where that is less. */
#define RETAIN_MIN_FREE_PERCENT 5u
#define RETAIN_MIN_FREE_BYTES UINT64_C(2000000000)

struct retain_tier {
	int64_t age_us; /* INT64_MAX: for ever */
	int64_t every_us;
};

struct retain_policy {
	struct retain_tier tiers[RETAIN_TIERS_MAX]; /* both members rising */
	size_t n_tiers;                             /* 0: everything is kept for ever */
	int64_t grace_us;
	uint64_t max_bytes;        /* of this database's history; 0: no bound */
	uint64_t min_free_bytes;   /* of the filesystem; 0: the percentage alone counts */
	unsigned min_free_percent; /* where 5 % is more than 2 GB, 5 stands for those 2 GB */
};

/* Every commit for 3 days, one an hour for 30 days, one a day for 365 days; 24 h of grace. */
void retain_policy_default(struct retain_policy *ret);
/* "all:3d,1h:30d,1d:365d" (EVERY:AGE; EVERY may be `all`, AGE `forever`) -> tiers,
 * durations as in base/units.h. */
int retain_tiers_parse(const char *text, struct retain_policy *ret, struct err *err) MUST_USE;
int retain_policy_check(const struct retain_policy *p, struct err *err) MUST_USE;
/* As retain_tiers_parse() reads it. */
#define RETAIN_POLICY_STR_MAX 800
void retain_policy_format(const struct retain_policy *p, char out[RETAIN_POLICY_STR_MAX]);

/* What a pass did, or (retainer_preview()) would do. */
struct retain_result {
	uint64_t kept_points; /* in the thinned part */
	uint64_t fine_txid; /* from the one behind it on every commit is kept; 0: from the first */
	uint64_t coalesced, bases; /* objects made */
	uint64_t made_bytes;
	uint64_t expiring, expiring_bytes; /* wait for their grace time */
	uint64_t deleted, deleted_bytes;
	uint64_t bytes;      /* of the history afterwards */
	bool no_delete;      /* at a destination: deletion is denied */
	uint64_t denied;     /* of what expired, at a destination: could not be deleted, at least */
	char denial[400];    /* the first of them, and what was said */
	int64_t due_us;      /* at a destination: without new transactions nothing changes before */
	bool short_of_space; /* max_bytes or min_free was reached: the policy was shortened */
	char shortened[RETAIN_POLICY_STR_MAX]; /* to this */
};

struct retainer;
/* For the history of `name` below `root`; opens the archive for itself. */
int retainer_new(const char *root, const char *name, struct retainer **ret,
                 struct err *err) MUST_USE;
void retainer_free(struct retainer *r);
/* Where and how a history lies at a destination. */
struct retain_far {
	struct store *store;                          /* outlives the retainer */
	const char *archive;                          /* the local one that has this history */
	bool creates;                                 /* it has conditional writes */
	bool no_delete;                               /* of the last pass there */
	int (*may_write)(void *ctx, struct err *err); /* REFUSED: another one writes there now */
	void *ctx;
};
int retainer_new_far(const struct retain_far *far, const char *name, struct retainer **ret,
                     struct err *err) MUST_USE;
/*
 * One pass.  `stop` may become true at any time (CANCELLED).  `log` (may be NULL) gets a line
 * for each thing done, with its reason.  BUSY: somebody else has been at work in this history
 * for half a minute (try later).  NO_SPACE: max_bytes or min_free is passed and nothing may go any more.
 */
int retainer_run(struct retainer *r, const struct retain_policy *policy, int64_t now_us,
                 const _Atomic bool *stop, FILE *log, struct retain_result *ret,
                 struct err *err) MUST_USE;
/* The same, changing nothing: what would be done. */
int retainer_preview(struct retainer *r, const struct retain_policy *policy, int64_t now_us,
                     FILE *log, struct retain_result *ret, struct err *err) MUST_USE;

/*
 * Whether more may be written into the archive: NO_SPACE, saying why, when the filesystem of
 * `root` has less free space than the policy leaves to others.  Cheap: one statvfs(2).
 */
int retain_may_write(const char *root, const struct retain_policy *policy,
                     struct err *err) MUST_USE;

/* ---- marks: see history_marks() for reading them ---- */

/* Names the moment `txid`, which must be restorable; EXISTS: the name is taken. */
int retain_mark(const char *root, const char *db, const char *mark, uint64_t txid,
                struct err *err) MUST_USE;
/* NOT_FOUND: no such mark. */
int retain_unmark(const char *root, const char *db, const char *mark, struct err *err) MUST_USE;

DEFINE_CLEANUP(struct retainer, retainer_free);
#define cleanup_retainer CLEANUP(retainer_free_p)

#endif
