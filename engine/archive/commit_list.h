/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commits of a segment in order, in memory as in a file (commit.h): about 28 bytes each, where a
 * struct takes 72.  They are cut into blocks of 64 whose first one stands by itself; the others are
 * decoded from it.
 *
 * Zero-initialised.  The caller locks.
 */
#ifndef ASOF_ARCHIVE_COMMIT_LIST_H
#define ASOF_ARCHIVE_COMMIT_LIST_H

#include "engine/archive/commit.h"

#define COMMIT_BLOCK 64u

struct commit_block {
	struct commit first;
	size_t at; /* where the commits behind it begin in `bytes` */
};

struct commit_list {
	size_t n;
	struct commit last; /* when n > 0 */
	struct commit_block *blocks;
	size_t cap_blocks;
	struct buf bytes;
};

/* A commit that follows the last one: txid, last_frame and min_pages go on from it, as commit_get()
 * has it, and time_us does not go back.  Without memory all is as it was. */
int commit_list_add(struct commit_list *l, const struct commit *c, struct err *err) MUST_USE;
/* Commit i < n, from 0. */
struct commit commit_list_get(const struct commit_list *l, size_t i);
/* How many of the first n have time_us <= time_us. */
size_t commit_list_until(const struct commit_list *l, size_t n, int64_t time_us);
/* Forgets all but the first n. */
void commit_list_cut(struct commit_list *l, size_t n);
void commit_list_release(struct commit_list *l);

#endif
