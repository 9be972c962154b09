/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Upkeep of one database's history: sealing, joining, coalescing, new bases.
 *
 * A pure plan says what to do next; apply does it in an order that a crash may interrupt
 * anywhere: a new object is whole and durable under its name before an old one goes, and a
 * reader that meets both prefers the new one.
 *
 * What keeps a view's depth (objects over its base) small.  Let closed fine segments be counted
 * from the newest base on:
 *   three fine segments in a row          -> one coalesced object (level 1)
 *   three objects of level 1 in a row     -> one that covers everything since the base (level 2)
 * so that the way from the base to any segment is at most: one of level 2, two of level 1, two
 * fine, and the segment itself: 6.  While work is under way there are a few more; 8 is the bound.
 * A new base is made when fine bytes since the base exceed eight times the base (small, busy
 * databases), when a level 2 object exceeds 30 % of it, or where coalescing cannot help
 * (pieces of several lineages).
 */
#ifndef ASOF_COMPACT_COMPACT_H
#define ASOF_COMPACT_COMPACT_H

#include "engine/view/replay.h"

#include <stdatomic.h>

enum compact_type { COMPACT_NOTHING, COMPACT_SEAL, COMPACT_JOIN, COMPACT_COALESCE, COMPACT_BASE };

struct compact_job {
	enum compact_type type;
	uint32_t lineage;
	uint64_t first_txid, last_txid; /* of what is sealed, joined, coalesced; BASE: last_txid */
	const char *reason;
};

/* Objects as history_objects() gives them.  Pure.  Segments smaller than join_bytes are joined
 * when there are eight of them in a row. */
struct compact_job compact_plan(const struct history_object *objects, size_t n,
                                uint64_t join_bytes);

struct compact_stats {
	uint64_t sealed_bytes, joined_bytes, coalesced_bytes, base_bytes; /* written */
	uint64_t jobs;
	uint64_t unsealed; /* segments that wait to be sealed, as of the last step */
	bool deferred;     /* the last step left it at that, see compactor_set_patience() */
};

/*
 * Segments that were met damaged: they stay as they are, and so does what lies in one span with them.
 * All others are worked on.  Whoever makes compactors anew keeps it, or the same job fails first each
 * time.  After an hour it is tried again (it may have been put right), or when there is no more room.
 */
#define COMPACT_DAMAGED_MAX 32u
struct compact_damaged {
	struct {
		uint64_t first_txid, last_txid;
		int64_t until_us; /* monotonic */
	} spans[COMPACT_DAMAGED_MAX];
	size_t n; /* ever */
};

struct compactor;
/* Writes into the same archive that `root` names; opens it for itself. */
int compactor_new(const char *root, const char *name, struct compactor **ret,
                  struct err *err) MUST_USE;
/* Borrowed; without it damage ends a step with DAMAGED. */
void compactor_set_damaged(struct compactor *c, struct compact_damaged *damaged);
/* With at most so many segments unsealed (the one written to is among them) the steps to come do
 * nothing; 0: they always do. */
void compactor_set_patience(struct compactor *c, uint64_t unsealed);
/* Does the next job.  *ret_did: there was one.  `stop` may become true at any time.  BUSY: retention
 * is at work in this history; try again later. */
int compactor_step(struct compactor *c, const _Atomic bool *stop, bool *ret_did,
                   struct err *err) MUST_USE;
void compactor_get_stats(const struct compactor *c, struct compact_stats *ret);
void compactor_free(struct compactor *c);

#endif
