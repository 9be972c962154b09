/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A page index that grows by sorted runs: runs of like size are merged, so that n entries lie
 * in at most log2(n) runs and each entry is moved log2(n) times.  The caller locks.
 */
#ifndef ASOF_ARCHIVE_RUNS_H
#define ASOF_ARCHIVE_RUNS_H

#include "engine/archive/commit.h"

#define RUNS_MAX 64
struct frame_runs {
	struct frame_entry *run[RUNS_MAX];
	size_t n[RUNS_MAX];
	size_t count;
};

/* Takes over `e`, a sorted, malloc'ed run of n entries whose frames are all later than those
 * that are there. */
int frame_runs_add(struct frame_runs *r, struct frame_entry *e, size_t n, struct err *err) MUST_USE;
/* The last frame <= max_frame with this page; 0: none. */
uint64_t frame_runs_find(const struct frame_runs *r, uint32_t pgno, uint64_t max_frame);
void frame_runs_release(struct frame_runs *r);

#endif
