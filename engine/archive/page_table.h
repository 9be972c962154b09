/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hash of every page of the newest state: what the state checksum is the sum of, and what
 * a resync compares with.  A disposable file `pages` beside the history:
 *
 *      0  8  "asofpage"     8  4  version (1)    12  4  page size
 *     16  8  synced txid: with all commits up to it applied, the table reached the disk
 *     24  8  hash64(bytes 0..23, seed 0)
 *   4096 16  hash of page 1 (lo, hi, native), then page 2, …
 *
 * Entries are absolute, so applying a commit twice does no harm: after a crash the commits
 * behind the synced txid are applied again.  A zero entry is a page that is not there.
 * Mapped, so that memory does not grow with the database.  One user at a time.
 */
#ifndef ASOF_ARCHIVE_PAGE_TABLE_H
#define ASOF_ARCHIVE_PAGE_TABLE_H

#include "engine/base/err.h"
#include "engine/base/hash.h"

struct page_table;

/* Opens the table, or makes an empty one when there is none, or one of another page size, or a
 * damaged one: *ret_txid is then 0. */
int page_table_open(int dir_fd, uint32_t page_size, struct page_table **ret, uint64_t *ret_txid,
                    struct err *err) MUST_USE;
/* Throws all entries away. */
int page_table_reset(struct page_table *t, struct err *err) MUST_USE;
/* Room for pages 1..n_pages. */
int page_table_reserve(struct page_table *t, uint32_t n_pages, struct err *err) MUST_USE;
/* Pages past the room that there is read as zero. */
struct hash128 page_table_get(const struct page_table *t, uint32_t pgno);
void page_table_set(struct page_table *t, uint32_t pgno, struct hash128 h); /* within the room */
/* Zeroes everything behind page n_pages. */
void page_table_truncate(struct page_table *t, uint32_t n_pages);
/* Sum of pages 1..n_pages. */
struct hash128 page_table_sum(const struct page_table *t, uint32_t n_pages);
/* Makes the table durable as of `txid`. */
int page_table_sync(struct page_table *t, uint64_t txid, struct err *err) MUST_USE;
void page_table_free(struct page_table *t);

#endif
