/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One gzip member (RFC 1952) as asof writes it.
 *
 *   off  size
 *     0     4   1f 8b 08 04        deflate, FLG.FEXTRA
 *     4     6   00 00 00 00 00 ff  no time, no flags, OS unknown
 *    10     2   XLEN = 4 + n, little-endian
 *    12     2   'a' KIND           one subfield
 *    14     2   n
 *    16     n   payload
 *  16+n     .   deflate stream
 *     .     4   CRC-32 of the content, little-endian
 *     .     4   length of the content modulo 2^32
 *
 * Kinds: 'D' carries content; its payload is the 64-bit length of the whole member, so that
 * a file can be walked without inflating it.  'H', 'R', 'I', 'T' (header, record, index,
 * trailer) carry no content: deflate stream 03 00, CRC and length zero; gunzip passes over
 * them.  Every byte that is not payload, stream or checksum is a constant, and any other
 * value is damage.
 *
 * A payload of GZ_CHUNK_MAX bytes or more is cut into a run of members of one kind: a *blob*.  All
 * but the last have GZ_CHUNK_MAX bytes of it, the last has fewer (none, perhaps): where a blob
 * ends shows without knowing its length.
 */
#ifndef ASOF_GZ_MEMBER_H
#define ASOF_GZ_MEMBER_H

#include "engine/base/buf.h"
#include "engine/gz/alike.h"

#define GZ_PAYLOAD_OFFSET 16
#define GZ_META_OVERHEAD (GZ_PAYLOAD_OFFSET + 2 + 8)
#define GZ_DATA_OVERHEAD (GZ_PAYLOAD_OFFSET + 8 + 8)
#define GZ_CHUNK_MAX 60000u

enum gz_kind {
	GZ_DATA = 'D',
	GZ_HEADER = 'H',
	GZ_RECORD = 'R',
	GZ_INDEX = 'I',
	GZ_TRAILER = 'T',
};

/* Compresses; one for each thread that writes. */
struct gz_codec;
/* Level 0 stores, 1 is quickest, 12 smallest. */
int gz_codec_new(int level, struct gz_codec **ret, struct err *err) MUST_USE;
void gz_codec_free(struct gz_codec *c);

/* Appends a data member with `len` bytes of content. */
int gz_put_data(struct gz_codec *c, const void *content, size_t len, struct buf *out,
                struct err *err) MUST_USE;
/* The same; level 0 stores but what repeats as `alike` tells, and runs of zeros (alike.h). */
int gz_put_data_alike(struct gz_codec *c, const void *content, size_t len,
                      const struct gz_alike *alike, size_t n_alike, struct buf *out,
                      struct err *err) MUST_USE;
/* Appends a blob. */
int gz_put_blob(enum gz_kind kind, const void *payload, size_t len, struct buf *out,
                struct err *err) MUST_USE;
/* Stored size of a blob. */
size_t gz_blob_size(size_t payload_len);

/*
 * Looks at the member that begins at `p`.  With fewer than GZ_PAYLOAD_OFFSET + 8 bytes, or
 * bytes that cannot begin a member, ERR_DAMAGED.  *ret_len is the length of the whole member.
 */
int gz_peek(const uint8_t *p, size_t len, enum gz_kind *ret_kind, uint64_t *ret_len,
            struct err *err) MUST_USE;
/* Joins the payloads of the blob that is exactly `len` bytes at `p`. */
int gz_get_blob(enum gz_kind kind, const uint8_t *p, size_t len, struct buf *out,
                struct err *err) MUST_USE;
/* Inflates the data member that is exactly `len` bytes at `p` into exactly `content_len` bytes.
 * Verifies header, CRC and length. */
int gz_get_data(const uint8_t *p, size_t len, void *content, size_t content_len,
                struct err *err) MUST_USE;

DEFINE_CLEANUP(struct gz_codec, gz_codec_free);
#define cleanup_gz_codec CLEANUP(gz_codec_free_p)

#endif
