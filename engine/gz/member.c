/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/gz/member.h"

#include <libdeflate.h>
#include <pthread.h>
#include <stdlib.h>

static const uint8_t fixed_head[10] = {0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff};

struct gz_codec {
	struct libdeflate_compressor *compressor;
	int level;
};

int gz_codec_new(int level, struct gz_codec **ret, struct err *err)
{
	struct gz_codec *c = calloc(1, sizeof(*c));

	if (c)
		c->compressor = libdeflate_alloc_compressor(level);
	if (!c || !c->compressor) {
		free(c);
		return err_set(err, ERR_NOMEM, 0, "no memory for a compressor of level %d", level);
	}
	c->level = level;
	*ret = c;
	return 0;
}

void gz_codec_free(struct gz_codec *c)
{
	if (!c)
		return;
	libdeflate_free_compressor(c->compressor);
	free(c);
}

static void put_head(uint8_t *p, enum gz_kind kind, size_t payload_len)
{
	memcpy(p, fixed_head, sizeof(fixed_head));
	store_le16(p + 10, (uint16_t)(4 + payload_len));
	p[12] = 'a';
	p[13] = (uint8_t)kind;
	store_le16(p + 14, (uint16_t)payload_len);
}

/* A data member at `p`, where its stream of `n` bytes already is. */
static void end_data(uint8_t *p, size_t n, const void *content, size_t len, struct buf *out)
{
	uint8_t *tail = p + GZ_PAYLOAD_OFFSET + 8 + n;

	put_head(p, GZ_DATA, 8);
	store_le32(tail, libdeflate_crc32(0, content, len));
	store_le32(tail + 4, (uint32_t)len);
	store_le64(p + GZ_PAYLOAD_OFFSET, GZ_DATA_OVERHEAD + n);
	out->len += GZ_DATA_OVERHEAD + n;
}

int gz_put_data(struct gz_codec *c, const void *content, size_t len, struct buf *out,
                struct err *err)
{
	size_t bound = libdeflate_deflate_compress_bound(c->compressor, len);
	int rc = buf_reserve(out, GZ_DATA_OVERHEAD + bound, err);
	if (rc < 0)
		return rc;

	uint8_t *p = out->data + out->len;
	size_t n = libdeflate_deflate_compress(c->compressor, content, len,
	                                       p + GZ_PAYLOAD_OFFSET + 8, bound);
	if (n == 0)
		return err_set(err, ERR_NOMEM, 0, "compress %zu bytes", len);
	end_data(p, n, content, len, out);
	return 0;
}

int gz_put_data_alike(struct gz_codec *c, const void *content, size_t len,
                      const struct gz_alike *alike, size_t n_alike, struct buf *out,
                      struct err *err)
{
	if (c->level != 0)
		return gz_put_data(c, content, len, out, err);
	int rc = buf_reserve(out, GZ_DATA_OVERHEAD + alike_bound(len), err);
	if (rc < 0)
		return rc;
	uint8_t *p = out->data + out->len;
	size_t n = alike_deflate(content, len, alike, n_alike, p + GZ_PAYLOAD_OFFSET + 8);
	end_data(p, n, content, len, out);
	return 0;
}

static void put_empty(uint8_t *p, enum gz_kind kind, const uint8_t *payload, size_t len)
{
	put_head(p, kind, len);
	if (len)
		memcpy(p + GZ_PAYLOAD_OFFSET, payload, len);
	p += GZ_PAYLOAD_OFFSET + len;
	memset(p, 0, 10);
	p[0] = 0x03;
}

int gz_put_blob(enum gz_kind kind, const void *payload, size_t len, struct buf *out,
                struct err *err)
{
	const uint8_t *p = payload;
	int rc = buf_reserve(out, gz_blob_size(len), err);

	if (rc < 0)
		return rc;
	for (;;) {
		size_t n = len < GZ_CHUNK_MAX ? len : GZ_CHUNK_MAX;
		put_empty(out->data + out->len, kind, p, n);
		out->len += GZ_META_OVERHEAD + n;
		if (n < GZ_CHUNK_MAX)
			return 0;
		p += n;
		len -= n;
	}
}

size_t gz_blob_size(size_t payload_len)
{
	return payload_len + (payload_len / GZ_CHUNK_MAX + 1) * GZ_META_OVERHEAD;
}

static bool known_kind(uint8_t k)
{
	return k == GZ_DATA || k == GZ_HEADER || k == GZ_RECORD || k == GZ_INDEX || k == GZ_TRAILER;
}

int gz_peek(const uint8_t *p, size_t len, enum gz_kind *ret_kind, uint64_t *ret_len,
            struct err *err)
{
	if (len < GZ_PAYLOAD_OFFSET + 8 || memcmp(p, fixed_head, sizeof(fixed_head)) != 0 ||
	    p[12] != 'a' || !known_kind(p[13]) || load_le16(p + 10) != load_le16(p + 14) + 4)
		return err_set(err, ERR_DAMAGED, 0, "no member begins here");
	size_t payload_len = load_le16(p + 14);
	*ret_kind = (enum gz_kind)p[13];
	if (*ret_kind != GZ_DATA) {
		*ret_len = GZ_META_OVERHEAD + payload_len;
		return 0;
	}
	if (payload_len != 8 || load_le64(p + GZ_PAYLOAD_OFFSET) < GZ_DATA_OVERHEAD)
		return err_set(err, ERR_DAMAGED, 0, "a data member with a wrong header");
	*ret_len = load_le64(p + GZ_PAYLOAD_OFFSET);
	return 0;
}

int gz_get_blob(enum gz_kind kind, const uint8_t *p, size_t len, struct buf *out, struct err *err)
{
	static const uint8_t tail[10] = {0x03};

	for (;;) {
		enum gz_kind k;
		uint64_t n;
		int rc = gz_peek(p, len, &k, &n, err);
		if (rc < 0)
			return rc;
		if (k != kind || n > len || memcmp(p + n - 10, tail, 10) != 0)
			return err_set(err, ERR_DAMAGED, 0, "a '%c' member is not as written",
			               kind);
		size_t payload_len = (size_t)n - GZ_META_OVERHEAD;
		/* The last of a blob is short, and no other: one payload, one byte string. */
		if (payload_len > GZ_CHUNK_MAX || (n < len) != (payload_len == GZ_CHUNK_MAX))
			return err_set(err, ERR_DAMAGED, 0, "a '%c' member has a wrong length",
			               kind);
		rc = buf_append(out, p + GZ_PAYLOAD_OFFSET, payload_len, err);
		if (rc < 0)
			return rc;
		if (n == len)
			return 0;
		p += n;
		len -= (size_t)n;
	}
}

/* One decompressor for each thread, which lasts as long as it does: a new one for each block took
 * a twentieth of the time of inflating it. */
static pthread_once_t decompressor_once = PTHREAD_ONCE_INIT;
static pthread_key_t decompressor_key;

static void free_decompressor(void *d)
{
	libdeflate_free_decompressor(d);
}

static void make_decompressor_key(void)
{
	if (pthread_key_create(&decompressor_key, free_decompressor) != 0)
		abort();
}

static struct libdeflate_decompressor *get_decompressor(void)
{
	pthread_once(&decompressor_once, make_decompressor_key);
	struct libdeflate_decompressor *d = pthread_getspecific(decompressor_key);
	if (d)
		return d;
	d = libdeflate_alloc_decompressor();
	if (d && pthread_setspecific(decompressor_key, d) != 0) {
		libdeflate_free_decompressor(d);
		d = NULL;
	}
	return d;
}

int gz_get_data(const uint8_t *p, size_t len, void *content, size_t content_len, struct err *err)
{
	enum gz_kind kind;
	uint64_t n;

	int rc = gz_peek(p, len, &kind, &n, err);
	if (rc < 0)
		return rc;
	if (kind != GZ_DATA || n != len)
		return err_set(err, ERR_DAMAGED, 0,
		               "a data member is not as long as its index says");
	const uint8_t *tail = p + len - 8;
	if (load_le32(tail + 4) != (uint32_t)content_len)
		return err_set(err, ERR_DAMAGED, 0, "a data member has the wrong content length");

	struct libdeflate_decompressor *d = get_decompressor();
	if (!d)
		return err_set(err, ERR_NOMEM, 0, "no memory for a decompressor");
	size_t used = 0;
	enum libdeflate_result r = libdeflate_deflate_decompress_ex(d, p + GZ_PAYLOAD_OFFSET + 8,
	                                                            len - GZ_DATA_OVERHEAD, content,
	                                                            content_len, &used, NULL);
	if (r != LIBDEFLATE_SUCCESS || used != len - GZ_DATA_OVERHEAD)
		return err_set(err, ERR_DAMAGED, 0, "a data member does not inflate");
	if (libdeflate_crc32(0, content, content_len) != load_le32(tail))
		return err_set(err, ERR_DAMAGED, 0, "a data member's content has a wrong CRC");
	return 0;
}
