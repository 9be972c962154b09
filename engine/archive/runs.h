/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A page index that grows by sorted runs: runs of like size are merged, so that n entries lie
 * in at most log2(n) runs and each entry is moved log2(n) times.  The caller locks.
 *
 * In memory a run is as in a file (commit.h), cut into blocks of 64 entries whose first one stands
 * by itself: an application that writes the same pages over and over takes 3 or 4 bytes an entry,
 * where an array took 16.  A look-up is a binary search of the blocks, and a walk within one.
 */
#ifndef ASOF_ARCHIVE_RUNS_H
#define ASOF_ARCHIVE_RUNS_H

#include "engine/archive/commit.h"
#include "engine/base/bitset.h"

#define RUNS_MAX 64
#define RUN_BLOCK_ENTRIES 64u

struct frame_block {
	struct frame_entry first;
	size_t at; /* where the entries behind it begin in `bytes` */
};

struct frame_run {
	size_t n;
	struct frame_block *blocks;
	size_t cap_blocks;
	struct buf bytes;
};

struct frame_runs {
	struct frame_run run[RUNS_MAX];
	size_t count;
};

/* Adds a sorted run of n entries whose frames are all later than those that are there.  Without
 * memory all is as it was. */
int frame_runs_add(struct frame_runs *r, const struct frame_entry *e, size_t n,
                   struct err *err) MUST_USE;
/* The last frame <= max_frame with this page; 0: none. */
uint64_t frame_runs_find(const struct frame_runs *r, uint32_t pgno, uint64_t max_frame);
/* The pages <= max_pgno that frames <= max_frame hold. */
int frame_runs_pages(const struct frame_runs *r, uint64_t max_frame, uint32_t max_pgno,
                     struct bitset *pages, struct err *err) MUST_USE;
void frame_runs_release(struct frame_runs *r);

#endif
