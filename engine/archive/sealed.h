/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sealed segment, and a coalesced object: a pack (gz/pack.h) whose content is a complete
 * WAL.  A sealed segment holds every frame of its commits; a coalesced object holds one
 * transaction, the newest page of each page that the span touched, sorted by page.
 *
 *   leaves  commits: varint count (<= 1024), varint txid, frames and smallest size before the
 *           first (size: 0 for none), then the commits (commit.h)
 *           page index: varint count (<= 2048), varint frames in the object, then a sorted run
 *   top     varint count of commit leaves; each: varint txid before it, varint frames before
 *           it, u64 time of its first commit, ref
 *           varint count of index leaves; each: varint page, varint frame (its first entry), ref
 *   meta    u32 kind (1 sealed, 2 coalesced), u32 page size, u32 lineage, u32 salt-1,
 *           u32 salt-2, u32 smallest size, u32 last size, u32 zero, u64 first txid, u64 last txid,
 *           u64 time of the first, u64 time of the last, u64 frames; at 72 the source position
 *           as in a record (grow.h), zero when coalesced; the rest zero
 *
 * The content has 32 + frames * (24 + page size) bytes, in blocks of SEALED_BLOCK_BYTES.
 */
#ifndef ASOF_ARCHIVE_SEALED_H
#define ASOF_ARCHIVE_SEALED_H

#include "engine/archive/commit.h"
#include "engine/archive/names.h"
#include "engine/gz/pack.h"

#define SEALED_BLOCK_BYTES 65536u
#define COMMITS_PER_LEAF 1024u
#define ENTRIES_PER_LEAF 2048u

enum sealed_kind { SEALED_SEGMENT = 1, SEALED_COALESCED = 2 };

struct sealed_info {
	enum sealed_kind kind;
	uint32_t page_size, lineage;
	uint32_t salt1, salt2;
	uint32_t min_pages, last_pages;
	uint64_t first_txid, last_txid;
	int64_t first_us, last_us;
	uint64_t n_frames;
	struct source_position pos;
};

/* ---- writing: one thread ---- */
struct sealed_writer;
struct sealed_options {
	enum sealed_kind kind;
	uint32_t page_size, lineage;
	uint64_t first_txid; /* of the span */
	int64_t first_us;    /* COALESCED: time of the first commit of the span */
	uint32_t min_pages;  /* COALESCED: smallest size within the span */
	uint32_t salt1, salt2;
	int level;
	struct source_position pos; /* SEGMENT: behind its last commit */
};
/* Writes to a temporary name in `dir_fd`. */
int sealed_create(int dir_fd, const struct sealed_options *options, struct sealed_writer **ret,
                  struct err *err) MUST_USE;
int sealed_frame(struct sealed_writer *w, uint32_t pgno, uint32_t n_truncate, const void *page,
                 struct err *err) MUST_USE;
/* Describes the commit that the last frame ended. */
int sealed_commit(struct sealed_writer *w, const struct commit *c, struct err *err) MUST_USE;
/* Index, trailer, fsync, (SEGMENT) the text table, rename, fsync of the folder.  Gives the
 * name; an object of that name that is there already is replaced. */
int sealed_finish(struct sealed_writer *w, struct object_name *ret_name, uint64_t *ret_bytes,
                  struct err *err) MUST_USE;
/* Without finish: removes the temporary file. */
void sealed_writer_free(struct sealed_writer *w);

/* ---- reading: any thread ---- */
struct sealed;
/* Takes the source over, whatever happens. */
int sealed_open(struct source *src, struct cache *cache, struct sealed **ret,
                struct err *err) MUST_USE;
void sealed_free(struct sealed *s);
const struct sealed_info *sealed_get_info(const struct sealed *s);
const char *sealed_name(const struct sealed *s);
uint64_t sealed_n_commits(const struct sealed *s);
/* Commit number `i` from 0. */
int sealed_get_commit(struct sealed *s, uint64_t i, struct commit *ret, struct err *err) MUST_USE;
/* Number of commits with time <= time_us. */
int sealed_commits_until(struct sealed *s, int64_t time_us, uint64_t *ret,
                         struct err *err) MUST_USE;
/* The last frame <= max_frame with page `pgno`; 0: there is none. */
int sealed_find_frame(struct sealed *s, uint32_t pgno, uint64_t max_frame, uint64_t *ret,
                      struct err *err) MUST_USE;
int sealed_read_content(struct sealed *s, uint64_t offset, void *buf, size_t len,
                        struct err *err) MUST_USE;
/* Entry number `i` of the page index, in order; NOT_FOUND past the last. */
int sealed_get_entry(struct sealed *s, uint64_t i, struct frame_entry *ret,
                     struct err *err) MUST_USE;
struct pack *sealed_pack(struct sealed *s);

DEFINE_CLEANUP(struct sealed, sealed_free);
DEFINE_CLEANUP(struct sealed_writer, sealed_writer_free);
#define cleanup_sealed CLEANUP(sealed_free_p)
#define cleanup_sealed_writer CLEANUP(sealed_writer_free_p)

#endif
