/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/gz/pack.h"

#include "engine/base/hash.h"

struct pack_writer {
	uint64_t id;
	uint32_t block_size;
	struct gz_codec *codec;
	pack_sink_fn *sink;
	void *ctx;
	uint64_t offset; /* of the file: where the next member goes */
	uint64_t content_len;
	struct buf block; /* content not yet in a member */
	struct buf out;   /* one member on its way */
	struct buf leaf;  /* entries of the present member leaf */
	struct buf leaf_refs;
	uint64_t n_leaves;
	bool content_ended;
	uint8_t first[PACK_FIRST_SIZE];
	uint64_t n_blocks;
	struct buf members; /* of each block u32 stored length, u64 hash; for spans */
};

int pack_ref_put(struct buf *out, const struct pack_ref *ref, struct err *err)
{
	uint8_t b[24];

	store_le64(b, ref->offset);
	store_le64(b + 8, ref->len);
	store_le64(b + 16, ref->hash);
	return buf_append(out, b, sizeof(b), err);
}

struct pack_ref pack_ref_get(struct cursor *c)
{
	struct pack_ref r;

	r.offset = cursor_le64(c);
	r.len = cursor_le64(c);
	r.hash = cursor_le64(c);
	return r;
}

/* Stores what is in w->out and says where and under which hash it lies. */
static int emit(struct pack_writer *w, struct pack_ref *ret, struct err *err)
{
	struct pack_ref ref = {.offset = w->offset, .len = w->out.len};

	ref.hash = hash64(w->out.data, w->out.len, gz_bind(w->id, w->offset));
	int rc = w->sink(w->ctx, w->out.data, w->out.len, w->offset, err);
	if (rc < 0)
		return rc;
	w->offset += w->out.len;
	buf_clear(&w->out);
	if (ret)
		*ret = ref;
	return 0;
}

static int emit_header(struct pack_writer *w, struct err *err)
{
	uint8_t p[PACK_HEADER_PAYLOAD];

	memcpy(p, "asofpack", 8);
	store_le32(p + 8, PACK_VERSION);
	store_le32(p + 12, w->block_size);
	store_le64(p + 16, w->id);
	store_le64(p + 24, hash64(p, 24, gz_bind(w->id, 0)));
	int rc = gz_put_blob(GZ_HEADER, p, sizeof(p), &w->out, err);
	return rc < 0 ? rc : emit(w, NULL, err);
}

int pack_writer_new(uint64_t id, uint32_t block_size, int level, pack_sink_fn *sink, void *ctx,
                    struct pack_writer **ret, struct err *err)
{
	cleanup_pack_writer struct pack_writer *w = calloc(1, sizeof(*w));

	if (!w)
		return err_set(err, ERR_NOMEM, 0, "no memory for a pack writer");
	w->id = id;
	w->block_size = block_size;
	w->sink = sink;
	w->ctx = ctx;
	w->block.max_bytes = block_size;
	w->out.max_bytes = SIZE_MAX / 2;
	w->leaf.max_bytes = 16 * PACK_BLOCKS_PER_LEAF + 8;
	w->leaf_refs.max_bytes = SIZE_MAX / 2;
	w->members.max_bytes = SIZE_MAX / 2;
	int rc = gz_codec_new(level, &w->codec, err);
	if (rc == 0)
		rc = emit_header(w, err);
	if (rc == 0)
		*ret = take_ptr(w);
	return rc;
}

static int end_leaf(struct pack_writer *w, struct err *err)
{
	uint8_t end[8];
	struct pack_ref ref;

	if (w->leaf.len == 0)
		return 0;
	store_le64(end, w->offset);
	int rc = buf_append(&w->leaf, end, 8, err);
	if (rc == 0)
		rc = gz_put_blob(GZ_INDEX, w->leaf.data, w->leaf.len, &w->out, err);
	if (rc == 0)
		rc = emit(w, &ref, err);
	if (rc == 0)
		rc = pack_ref_put(&w->leaf_refs, &ref, err);
	buf_clear(&w->leaf);
	w->n_leaves++;
	return rc;
}

/* As long as there can be spans of them. */
static int note_member(struct pack_writer *w, const struct pack_ref *ref, struct err *err)
{
	uint8_t entry[12];

	store_le32(entry, (uint32_t)ref->len);
	store_le64(entry + 4, ref->hash);
	if (w->n_blocks < PACK_FIRST_BLOCKS)
		memcpy(w->first + sizeof(entry) * w->n_blocks, entry, sizeof(entry));
	if (++w->n_blocks <= PACK_SPAN_BLOCKS_MAX * PACK_SPANS_MAX)
		return buf_append(&w->members, entry, sizeof(entry), err);
	buf_release(&w->members);
	return 0;
}

static int end_block(struct pack_writer *w, struct err *err)
{
	struct pack_ref ref;
	uint8_t entry[16];

	if (w->block.len == 0)
		return 0;
	int rc = gz_put_data(w->codec, w->block.data, w->block.len, &w->out, err);
	if (rc == 0)
		rc = emit(w, &ref, err);
	if (rc < 0)
		return rc;
	buf_clear(&w->block);
	store_le64(entry, ref.offset);
	store_le64(entry + 8, ref.hash);
	rc = note_member(w, &ref, err);
	if (rc == 0)
		rc = buf_append(&w->leaf, entry, sizeof(entry), err);
	if (rc == 0 && w->leaf.len == 16 * PACK_BLOCKS_PER_LEAF)
		rc = end_leaf(w, err);
	return rc;
}

int pack_append(struct pack_writer *w, const void *content, size_t len, struct err *err)
{
	const uint8_t *p = content;

	while (len > 0) {
		size_t n = w->block_size - w->block.len;
		if (n > len)
			n = len;
		int rc = buf_append(&w->block, p, n, err);
		if (rc == 0 && w->block.len == w->block_size)
			rc = end_block(w, err);
		if (rc < 0)
			return rc;
		w->content_len += n;
		p += n;
		len -= n;
	}
	return 0;
}

int pack_end_content(struct pack_writer *w, struct err *err)
{
	if (w->content_ended)
		return 0;
	w->content_ended = true;
	int rc = end_block(w, err);
	return rc < 0 ? rc : end_leaf(w, err);
}

int pack_put_leaf(struct pack_writer *w, const void *payload, size_t len, struct pack_ref *ret,
                  struct err *err)
{
	int rc = gz_put_blob(GZ_INDEX, payload, len, &w->out, err);
	return rc < 0 ? rc : emit(w, ret, err);
}

int pack_finish(struct pack_writer *w, const void *top, size_t top_len,
                const uint8_t meta[PACK_META_SIZE], uint64_t *ret_size, struct err *err)
{
	cleanup_buf struct buf payload = BUF_INIT(SIZE_MAX / 2);
	struct pack_ref ref;
	uint8_t t[PACK_TRAILER_PAYLOAD];

	int rc = pack_end_content(w, err);
	if (rc == 0)
		rc = buf_append_varint(&payload, w->n_leaves, err);
	if (rc == 0)
		rc = buf_append(&payload, w->leaf_refs.data, w->leaf_refs.len, err);
	if (rc == 0)
		rc = buf_append(&payload, top, top_len, err);
	if (rc == 0)
		rc = pack_put_leaf(w, payload.data, payload.len, &ref, err);
	if (rc < 0)
		return rc;

	memcpy(t, "asoftail", 8);
	store_le32(t + 8, PACK_VERSION);
	store_le32(t + 12, w->block_size);
	store_le64(t + 16, w->id);
	store_le64(t + 24, w->content_len);
	store_le64(t + 32, ref.offset);
	store_le64(t + 40, ref.len);
	store_le64(t + 48, ref.hash);
	memcpy(t + 56, meta, PACK_META_SIZE);
	store_le64(t + 56 + PACK_META_SIZE,
	           hash64(t, 56 + PACK_META_SIZE, gz_bind(w->id, w->offset)));
	rc = gz_put_blob(GZ_TRAILER, t, sizeof(t), &w->out, err);
	if (rc == 0)
		rc = emit(w, NULL, err);
	if (rc == 0)
		*ret_size = w->offset;
	return rc;
}

void pack_put_first(const struct pack_writer *w, uint8_t *p)
{
	memcpy(p, w->first, sizeof(w->first));
}

int pack_put_spans(const struct pack_writer *w, struct buf *out, struct err *err)
{
	uint8_t hashes[8 * PACK_SPAN_BLOCKS_MAX], sum[8];
	uint64_t per_span = PACK_SPAN_BLOCKS_MIN, offset = PACK_HEADER_SIZE, len = 0;
	struct cursor leaves = cursor_init(w->leaf_refs.data, w->leaf_refs.len);
	struct cursor c = cursor_init(w->members.data, w->members.len);

	while (per_span * PACK_SPANS_MAX < w->n_blocks)
		per_span *= 2;
	if (w->n_leaves <= 1 || per_span > PACK_SPAN_BLOCKS_MAX)
		return 0;
	int rc = buf_append_varint(out, per_span, err);
	for (uint64_t i = 0; i < w->n_blocks && rc == 0; i++) {
		len += cursor_le32(&c);
		store_le64(hashes + 8 * (i % per_span), cursor_le64(&c));
		if ((i + 1) % per_span != 0 && i + 1 < w->n_blocks)
			continue;
		store_le64(sum, hash64(hashes, 8 * (i % per_span + 1), gz_bind(w->id, offset)));
		rc = buf_append_varint(out, len, err);
		if (rc == 0)
			rc = buf_append(out, sum, sizeof(sum), err);
		offset += len;
		len = 0;
		if ((i + 1) % PACK_BLOCKS_PER_LEAF == 0) {
			struct pack_ref leaf = pack_ref_get(&leaves);
			offset = leaf.offset + leaf.len;
		}
	}
	return rc;
}

uint64_t pack_content_len(const struct pack_writer *w)
{
	return w->content_len;
}

void pack_writer_free(struct pack_writer *w)
{
	if (!w)
		return;
	gz_codec_free(w->codec);
	buf_release(&w->block);
	buf_release(&w->out);
	buf_release(&w->leaf);
	buf_release(&w->leaf_refs);
	buf_release(&w->members);
	free(w);
}
