/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A seekable gzip file, written once: content in data members of equal size, an index to
 * them, whatever else its owner wants to find by position, and a trailer of fixed size.
 *
 *   'H'   payload: "asofpack", u32 version (1), u32 block size, u64 object id,
 *         u64 hash64(payload so far, bind(id, 0))
 *   'D'*  block i = content bytes [i * block size, ...); the last may be shorter
 *   'I'*  in between, after each 2048 blocks and after the last: a member leaf,
 *         entries of u64 offset, u64 hash, then u64 end of the last one
 *   'I'*  leaves of the owner (pack_put_leaf), after the content
 *   'I'*  the top: varint count of member leaves, a ref each; then the owner's bytes
 *   'T'   the trailer, PACK_TRAILER_SIZE bytes of payload:
 *         "asoftail", u32 version, u32 block size, u64 id, u64 content length,
 *         ref of the top, PACK_META_SIZE bytes of the owner,
 *         u64 hash64(payload so far, bind(id, offset of 'T'))
 *
 * A ref is u64 offset, u64 stored length, u64 hash.  Every hash of stored bytes is
 * hash64(bytes, bind(id, offset)), so that no byte string verifies elsewhere: neither in
 * another object nor at another place.  Numbers are little-endian; in leaves and top fixed
 * or varint as said.
 *
 * In every version to come the first member is an 'H' whose payload begins with eight letters,
 * u32 version, u32, u64 id, and ends with u64 hash64(payload before it, bind(id, 0)): so a newer
 * format is told from damage.
 *
 *   (1) Every byte of the file lies in a member; every member is covered by the hash of an
 *       entry that is itself covered, up to the trailer, which covers itself.
 *   (2) A reader needs the trailer, the top and the leaves on its way, and only the blocks that
 *       it was asked for; the header, when the trailer is not one that it knows.
 */
#ifndef ASOF_GZ_PACK_H
#define ASOF_GZ_PACK_H

#include "engine/base/cache.h"
#include "engine/base/source.h"
#include "engine/gz/member.h"

#define PACK_VERSION 1u
#define PACK_META_SIZE 128
#define PACK_TRAILER_PAYLOAD (8 + 4 + 4 + 8 + 8 + 24 + PACK_META_SIZE + 8)
#define PACK_TRAILER_SIZE (GZ_META_OVERHEAD + PACK_TRAILER_PAYLOAD)
#define PACK_HEADER_PAYLOAD (8 + 4 + 4 + 8 + 8)
#define PACK_HEADER_SIZE (GZ_META_OVERHEAD + PACK_HEADER_PAYLOAD)
#define PACK_BLOCKS_PER_LEAF 2048u
#define PACK_BLOCK_MAX (1u << 20)
/*
 * The first blocks, in an owner's meta: for each u32 stored length, u64 hash.  They follow the
 * header, and each other.  Four of 16 KiB: what the kernel reads ahead at the start of a file.
 */
#define PACK_FIRST_BLOCKS 4u
#define PACK_FIRST_SIZE (12 * PACK_FIRST_BLOCKS)
/*
 * Spans, in an owner's top: so many blocks each, 8 or twice that and so on until PACK_SPANS_MAX of
 * them tell of all; for each varint stored length, u64 hash64(the hashes of its blocks, u64 each,
 * bind(id, offset)).  A span begins where the one before it ends, or behind the member leaf that lies
 * there.  With more than PACK_SPAN_BLOCKS_MAX blocks in one there are none.
 */
#define PACK_SPAN_BLOCKS_MIN 8u
#define PACK_SPAN_BLOCKS_MAX 32u
#define PACK_SPANS_MAX 8192u

/* Binds a hash to an object and a place in it. */
static inline uint64_t gz_bind(uint64_t object_id, uint64_t offset)
{
	return object_id + offset * UINT64_C(0x9e3779b97f4a7c15) + 1;
}

struct pack_ref {
	uint64_t offset, len, hash;
};

/* Tells a newer format from damage: ERR_VERSION when the object's first bytes `p` are a header of
 * `magic` that is as written and has a version above `version`; else 0. */
int gz_check_version(const uint8_t *p, size_t len, const char *magic, uint32_t version,
                     const char *name, struct err *err) MUST_USE;
int pack_ref_put(struct buf *out, const struct pack_ref *ref, struct err *err) MUST_USE;
struct pack_ref pack_ref_get(struct cursor *c);

/* ---- writing ---- */
struct pack_writer;
/* Called for each stretch of the file, in order, to store it at `offset`. */
typedef int pack_sink_fn(void *ctx, const void *p, size_t len, uint64_t offset, struct err *err);

int pack_writer_new(uint64_t id, uint32_t block_size, int level, pack_sink_fn *sink, void *ctx,
                    struct pack_writer **ret, struct err *err) MUST_USE;
int pack_append(struct pack_writer *w, const void *content, size_t len, struct err *err) MUST_USE;
/* Ends the content; leaves may follow. */
int pack_end_content(struct pack_writer *w, struct err *err) MUST_USE;
int pack_put_leaf(struct pack_writer *w, const void *payload, size_t len, struct pack_ref *ret,
                  struct err *err) MUST_USE;
int pack_finish(struct pack_writer *w, const void *top, size_t top_len,
                const uint8_t meta[PACK_META_SIZE], uint64_t *ret_size, struct err *err) MUST_USE;
uint64_t pack_content_len(const struct pack_writer *w);
/* Where the first blocks lie, after pack_end_content(): for an owner that keeps it in its meta.
 * `p` gets PACK_FIRST_SIZE bytes, zero for blocks that there are not. */
void pack_put_first(const struct pack_writer *w, uint8_t *p);
/* The spans, after pack_end_content(): for an owner that keeps them at the end of its top.  Nothing
 * where one member leaf tells of all, or where there are too many blocks. */
int pack_put_spans(const struct pack_writer *w, struct buf *out, struct err *err) MUST_USE;
void pack_writer_free(struct pack_writer *w);

/* ---- reading ---- */
struct pack;
/* Takes the source over on success.  Checks header, trailer and top; the header of a remote one
 * when it comes to its neighbours, or by pack_check_header(). */
int pack_open(struct source *src, struct cache *cache, struct pack **ret, struct err *err) MUST_USE;
int pack_check_header(struct pack *p, struct err *err) MUST_USE;
/*
 * What pack_put_first() gave when it was written, or zeros; before anything is read.  Whoever opens
 * a database reads its first pages; far away their member leaf, which lies elsewhere, would be a
 * request more.  DAMAGED when they cannot lie there.
 */
int pack_get_first(struct pack *p, const uint8_t *first, struct err *err) MUST_USE;
/*
 * What pack_put_spans() gave when it was written, or nothing; before anything is read.  Far away a
 * block is then had by one request, that for its span, and not by that for its member leaf before:
 * until some spans of a leaf were read, since who reads many does better with the leaf.  DAMAGED when
 * they cannot lie there.
 */
int pack_get_spans(struct pack *p, struct cursor spans, struct err *err) MUST_USE;
void pack_free(struct pack *p);
uint64_t pack_id(const struct pack *p);
const char *pack_name(const struct pack *p);
uint64_t pack_size(const struct pack *p); /* of the content */
uint32_t pack_block_size(const struct pack *p);
const uint8_t *pack_meta(const struct pack *p);
struct cursor pack_top(const struct pack *p); /* the owner's part */

/* Exactly `len` bytes of content at `offset`; past the end is ERR_DAMAGED. */
int pack_read(struct pack *p, uint64_t offset, void *buf, size_t len, struct err *err) MUST_USE;
/* Loads one block into the cache, if it is not there (read-ahead). */
int pack_prefetch(struct pack *p, uint64_t block, struct err *err) MUST_USE;
/* A hint: source_expect(). */
void pack_expect(struct pack *p, enum source_use use);
/* The payload of a leaf, through the cache, as `decode` made it from the stored payload
 * (NULL: as stored). */
typedef int pack_decode_fn(const uint8_t *payload, size_t len, void **ret, size_t *ret_len,
                           struct err *err);
int pack_get_leaf(struct pack *p, const struct pack_ref *ref, pack_decode_fn *decode,
                  struct cache_entry **ret, struct err *err) MUST_USE;

DEFINE_CLEANUP(struct pack, pack_free);
DEFINE_CLEANUP(struct pack_writer, pack_writer_free);
#define cleanup_pack CLEANUP(pack_free_p)
#define cleanup_pack_writer CLEANUP(pack_writer_free_p)

#endif
