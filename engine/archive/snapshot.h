/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A snapshot: a pack (gz/pack.h) whose content is the database, byte for byte, the lock page
 * zero.  With redo_txid < txid it is *fuzzy*: its pages were read while commits went on, and it
 * is the image of `txid` once the segments with txids > redo_txid up to txid lie over it.
 *
 *   meta  u32 kind (3), u32 page size, u32 lineage, u32 pages, u64 txid, u64 redo txid,
 *         u64 time, u64 not before, 16 bytes state checksum of the image of `txid`;
 *         the first blocks (gz/pack.h; zero in snapshots of before that); the rest zero
 *   top   the spans (gz/pack.h; nothing in snapshots of before that, or small or very large ones)
 *   blocks of 16 KiB, or of one page where pages are larger
 *
 * A fuzzy copy can be shorter or longer than `pages`: pages that it lacks are in the segments.
 */
#ifndef ASOF_ARCHIVE_SNAPSHOT_H
#define ASOF_ARCHIVE_SNAPSHOT_H

#include "engine/archive/names.h"
#include "engine/base/hash.h"
#include "engine/gz/pack.h"

struct snapshot_info {
	uint32_t page_size, lineage;
	uint32_t n_pages;
	uint64_t txid, redo_txid;
	int64_t time_us, not_before_us;
	struct hash128 state;
};

/* ---- writing ---- */
struct snapshot_writer;
int snapshot_create(int dir_fd, const char *tmp_name, uint32_t page_size, int level,
                    struct snapshot_writer **ret, struct err *err) MUST_USE;
/* Whole pages, in order. */
int snapshot_append(struct snapshot_writer *w, const void *pages, size_t len,
                    struct err *err) MUST_USE;
/* Trailer, fsync, rename, fsync of the folder; where that last one fails the name may be there. */
int snapshot_finish(struct snapshot_writer *w, const struct snapshot_info *info,
                    uint64_t *ret_bytes, struct err *err) MUST_USE;
/* Which name it gets. */
void snapshot_name(const struct snapshot_info *info, char ret[OBJECT_NAME_MAX]);
void snapshot_writer_free(struct snapshot_writer *w);

/* ---- reading ---- */
struct snapshot;
/* Takes the source over, whatever happens. */
int snapshot_open(struct source *src, struct cache *cache, struct snapshot **ret,
                  struct err *err) MUST_USE;
void snapshot_free(struct snapshot *s);
const struct snapshot_info *snapshot_get_info(const struct snapshot *s);
struct pack *snapshot_pack(struct snapshot *s);
/* A page; one that the copy lacks is ERR_NOT_FOUND. */
int snapshot_page(struct snapshot *s, uint32_t pgno, void *buf, struct err *err) MUST_USE;

DEFINE_CLEANUP(struct snapshot, snapshot_free);
DEFINE_CLEANUP(struct snapshot_writer, snapshot_writer_free);
#define cleanup_snapshot CLEANUP(snapshot_free_p)
#define cleanup_snapshot_writer CLEANUP(snapshot_writer_free_p)

#endif
