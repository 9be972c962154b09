/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The growing segment: a gzip file that is appended to, batch by batch, while others read it.
 *
 *   'H'  payload: "asofgrow", u32 version (1), u32 page size, u64 object id, u32 lineage,
 *        u32 salt-1, u32 salt-2, u32 zero, u64 first txid,
 *        u64 hash64(payload so far, bind(id, 0))
 *   then batches, each: 'D'* data members, then one record ('R' blob).
 *
 * The content of the data members, joined, is a complete WAL: its own header and salts, the
 * captured frames, the checksum chain computed anew, each commit's last frame marked.
 *
 * Record payload, little-endian:
 *     0  4  "aREC"              4  4  flags: 1 closes (see 2)
 *     8  8  number, from 0     16  8  offset of this record in the file
 *    24  8  offset of the previous record (0: there is none)
 *    32  8  hash of the previous record's payload (none: the hash in 'H')
 *    40  8  content offset at which the batch begins
 *    48  8  frames in the segment up to and with the batch
 *    56  8  data members      64  8  commits      72  8  frames of the index run
 *    80 32  source position: u32 salt-1, salt-2, u64 frame, u32 cksum-1, cksum-2, u32 iChange,
 *           u32 zero
 *   112  8  checksum chain of the content behind the batch: u32, u32
 *   120  8  txid of the last commit up to and with the batch
 *   128  .  for each data member: varint content length, varint stored length, u64 hash
 *        .  commits (commit.h), then the index run (commit.h)
 *   end  8  hash64(payload so far, bind(id, offset of this record))
 *
 *   (1) A batch is data, then record; then fdatasync; then the durable length is published
 *       (head.h).  What lies within the durable length is never changed: damage there is
 *       damage.  What lies behind it may be torn.
 *   (2) A record closes when its last frame is a commit and its source position is the one
 *       behind that commit.  Recovery keeps everything up to the last whole record that closes,
 *       and cuts the rest; readers do not look behind it either.
 *   (3) A record's hash covers the previous record's hash, the hashes of its data members
 *       and its own place: whole batches cannot be exchanged, repeated or left out.
 *   (4) One commit may span batches; only the last of them closes it.
 */
#ifndef ASOF_ARCHIVE_GROW_H
#define ASOF_ARCHIVE_GROW_H

#include "engine/archive/commit.h"
#include "engine/base/bitset.h"
#include "engine/base/cache.h"
#include "engine/base/source.h"
#include "engine/gz/member.h"
#include "engine/sqlite/format.h"

#define GROW_VERSION 1u
#define GROW_HEADER_PAYLOAD 56u
#define GROW_HEADER_SIZE                                                                           \
	(GZ_META_OVERHEAD + GROW_HEADER_PAYLOAD) /* a file no longer holds nothing */
#define GROW_BLOCK_BYTES 65536u                  /* content of a data member */
#define GROW_RUN_FRAMES 8192u                    /* frames of a batch at most */

struct grow_info {
	uint64_t id;
	uint32_t page_size;
	uint32_t lineage;
	uint64_t first_txid;
	uint32_t salt1, salt2;
};

/* ---- writing: one thread ---- */
struct grow_writer;

/* Creates segment (lineage, first_txid) in the folder, exclusively: ERR_EXISTS when another
 * writer was there first. */
int grow_create(int dir_fd, uint32_t lineage, uint64_t first_txid, uint32_t page_size, int level,
                struct grow_writer **ret, struct err *err) MUST_USE;
/* The same in a file without a name, which it takes over whatever happens, and never syncs: for a
 * segment that is made whole at once and goes elsewhere. */
int grow_create_unnamed(int fd, uint32_t lineage, uint64_t first_txid, uint32_t page_size,
                        int level, struct grow_writer **ret, struct err *err) MUST_USE;
/* Its file, which becomes the caller's: all of it was written. */
int grow_writer_take_fd(struct grow_writer *w);
/*
 * Takes up a growing segment again: verifies its records, and the data behind `durable_len` (of
 * which a crash may have left the record and not what it tells of), cuts what invariant (2) cuts,
 * and gives a writer that appends.  Damage within `durable_len` is ERR_DAMAGED, nothing is changed.
 * *ret_last is the last commit (txid first_txid - 1: none), *ret_pos its source position.
 */
int grow_resume(int dir_fd, const char *name, uint64_t durable_len, int level,
                struct grow_writer **ret, struct commit *ret_last, struct source_position *ret_pos,
                struct err *err) MUST_USE;
/* Whether all that is within `durable_len` is as it was written, its data, too: DAMAGED. */
int grow_check(int dir_fd, const char *name, uint64_t durable_len, struct err *err) MUST_USE;
/* Appends one frame; `n_truncate` != 0 marks it as a commit's last. */
int grow_frame(struct grow_writer *w, uint32_t pgno, uint32_t n_truncate, const void *page,
               struct err *err) MUST_USE;
/* Describes the commit that the last frame ended; txids go up by one, times do not fall.  Fills in
 * n_frames, last_frame and min_pages. */
int grow_commit(struct grow_writer *w, struct commit *c, struct err *err) MUST_USE;
/* The batch is due: so many frames that its record would grow too large. */
bool grow_batch_full(const struct grow_writer *w);
/* Ends the batch: writes its record.  Not durable yet.  `closes`: `pos` is the position behind
 * the last commit, so that one can go on from here. */
int grow_end_batch(struct grow_writer *w, const struct source_position *pos, bool closes,
                   struct err *err) MUST_USE;
/* fdatasync; the durable length is then grow_length().  Unless `keep_cached` the page cache is given
 * back what is on the disk, as others have more use for it. */
int grow_sync(struct grow_writer *w, bool keep_cached, struct err *err) MUST_USE;
uint64_t grow_length(const struct grow_writer *w); /* up to the last record that closes */
uint64_t grow_content_len(const struct grow_writer *w);
uint64_t grow_frames(const struct grow_writer *w); /* appended so far */
const struct grow_info *grow_writer_info(const struct grow_writer *w);
/* Between batches: gives its buffers back; they are made again when needed. */
void grow_rest(struct grow_writer *w);
void grow_writer_free(struct grow_writer *w);

/* ---- fences: objects of a destination (FORMAT.md) ---- */

/*
 * A header that nothing follows, and that no segment begins with: its bytes follow from its place
 * and from what it says.  So a segment that was cut to its header is told from it.
 * `goes_on`: 0, it closes its lineage; else the txid with which its writer goes on.
 */
int grow_fence_put(uint32_t lineage, uint64_t first_txid, uint64_t goes_on, struct buf *out,
                   struct err *err) MUST_USE;
/* DAMAGED when it is none. */
int grow_fence_get(const void *p, size_t len, const char *name, uint32_t lineage,
                   uint64_t first_txid, uint64_t *ret_goes_on, struct err *err) MUST_USE;

/* ---- reading: any thread ---- */
struct grow_reader;

/* Takes the source over on success; reads the header only. */
int grow_open(struct source *src, struct cache *cache, struct grow_reader **ret,
              struct err *err) MUST_USE;
void grow_free(struct grow_reader *r);
/* Takes in the records up to `durable_len`; they must end there exactly. */
int grow_refresh(struct grow_reader *r, uint64_t durable_len, struct err *err) MUST_USE;
/* Takes in every whole record that is there (a segment that its writer left).  Never fails for
 * a torn end; *ret_len is where the last record that closes a commit ends. */
int grow_refresh_all(struct grow_reader *r, uint64_t *ret_len, struct err *err) MUST_USE;
const struct grow_info *grow_reader_info(const struct grow_reader *r);
const char *grow_name(const struct grow_reader *r);
/* A hint: source_expect(). */
void grow_expect(struct grow_reader *r, enum source_use use);
/* Commits known so far, up to the last record that closes. */
uint64_t grow_n_commits(struct grow_reader *r);
/* Commit number `i` from 0; false when there is none. */
bool grow_get_commit(struct grow_reader *r, uint64_t i, struct commit *ret);
/* Number of commits with time <= time_us. */
uint64_t grow_commits_until(struct grow_reader *r, int64_t time_us);
/* The last frame <= max_frame with page `pgno`; 0: there is none. */
uint64_t grow_find_frame(struct grow_reader *r, uint32_t pgno, uint64_t max_frame);
int grow_read_content(struct grow_reader *r, uint64_t offset, void *buf, size_t len,
                      struct err *err) MUST_USE;
/* Adds the pages <= max_pgno that frames up to max_frame hold. */
int grow_add_pages(struct grow_reader *r, uint64_t max_frame, uint32_t max_pgno,
                   struct bitset *pages, struct err *err) MUST_USE;
void grow_position(struct grow_reader *r, struct source_position *ret);

/* ---- what is left of a damaged one ---- */

typedef int grow_told_fn(void *ctx, uint64_t txid, int64_t time_us, struct err *err);
/*
 * What the records say of the commits, as they lie there (of a large file those near its end): no hash
 * is looked at, so it proves nothing but that something else, which says just the same, is of the same
 * commits.  *ret_to_end: the last one told of is the last in it.  Borrows the source.
 */
int grow_tell(struct source *src, grow_told_fn *told, void *ctx, bool *ret_to_end,
              struct err *err) MUST_USE;

DEFINE_CLEANUP(struct grow_writer, grow_writer_free);
DEFINE_CLEANUP(struct grow_reader, grow_free);
#define cleanup_grow_writer CLEANUP(grow_writer_free_p)
#define cleanup_grow_reader CLEANUP(grow_free_p)

#endif
