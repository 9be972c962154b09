/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The frames of a history, in the order in which they were committed: what sealing, joining,
 * coalescing and the rebuilding of the page table are made of.
 */
#ifndef ASOF_VIEW_REPLAY_H
#define ASOF_VIEW_REPLAY_H

#include "engine/archive/commit.h"
#include "engine/view/history.h"

struct replay_frame {
	uint32_t pgno;
	uint32_t page_size;
	const uint8_t *page;
	const struct commit *commit; /* the commit that this frame ends, or NULL */
};
typedef int replay_fn(void *ctx, const struct replay_frame *f, struct err *err);

/* Calls `fn` for every frame of the commits after_txid < txid <= until_txid (settled or not).
 * A negative return of `fn` ends it with that.  ERR_DAMAGED when a segment is missing. */
int history_replay(struct history *h, uint64_t after_txid, uint64_t until_txid, replay_fn *fn,
                   void *ctx, struct err *err) MUST_USE;

/* A stored object as its name tells, for plans. */
struct history_object {
	enum { HISTORY_GROWING, HISTORY_SEGMENT, HISTORY_COALESCED, HISTORY_SNAPSHOT } type;
	char file[192];
	uint32_t lineage;
	uint64_t first_txid, last_txid; /* of a snapshot: redo txid + 1, txid */
	int64_t first_us, last_us;
	uint32_t min_pages;
	uint64_t bytes;
	bool current; /* the segment that is being written to */
	bool broken; /* a growing one that cannot be read to its end; upkeep adds what it met damaged */
	/* Set by who asks for it: the database is not whole at last_txid. */
	bool unsettled_end;
};
/* All objects, sorted by type, then first txid; malloc'ed. */
int history_objects(struct history *h, struct history_object **ret, size_t *ret_n,
                    struct err *err) MUST_USE;
/* Why an object is `broken`: DAMAGED, or what may pass. */
int history_object_broken(struct history *h, const struct history_object *o,
                          struct err *err) MUST_USE;
/* DAMAGED: a segment that was being written, or of level 0, cannot be read, and how far it reaches is
 * not known. */
int history_broken(struct history *h, struct err *err) MUST_USE;
/* Frames in a fine or coalesced object, and its page size and source position. */
int history_object_frames(struct history *h, const struct history_object *o, uint64_t *ret_frames,
                          uint32_t *ret_page_size, struct source_position *ret_pos,
                          struct err *err) MUST_USE;
/* The caller made or removed objects: they are looked for at the next call, whatever the head says
 * (the recorder tells of them in its own time). */
void history_relist(struct history *h);
/* Of the transactions up to this one retention left only some (0: all are there). */
uint64_t history_thinned(struct history *h);
/* The first of these with a txid of at least `txid`; false: there is none. */
bool history_point(struct history *h, uint64_t txid, uint64_t *ret);
/* Commit `txid` as its segment describes it, settled or not. */
int history_commit(struct history *h, uint64_t txid, struct commit *ret, struct err *err) MUST_USE;

#endif
