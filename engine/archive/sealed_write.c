/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/archive/object_file.h"
#include "engine/archive/sealed.h"
#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/sqlite/format.h"

#include <assert.h>
#include <inttypes.h>
#include <sys/random.h>

struct sealed_writer {
	struct sealed_options options;
	struct object_file file, table; /* the object; its commits as text */
	struct pack_writer *pack;
	struct wal_cksum chain;
	uint64_t n_frames;
	uint64_t n_commits;
	struct commit first, last;
	uint32_t min_pages;
	struct scratch entries; /* struct frame_entry[n_frames] */
	struct scratch leaves;  /* commit leaf payloads wait here for the content's end */
	size_t leaves_len;
	struct buf commits; /* of the leaf under way */
	size_t n_in_leaf;
	struct commit leaf_before;
	struct buf leaf_heads; /* u64 length, u64 txid, frames, time of each waiting leaf */
	struct buf text;
	struct gz_codec *codec;
	uint64_t table_offset;
};

static int put_wal_header(struct sealed_writer *w, struct err *err)
{
	uint8_t b[WAL_HEADER_SIZE];
	struct wal_header h = {
	        .page_size = w->options.page_size,
	        .salt1 = w->options.salt1,
	        .salt2 = w->options.salt2,
	};

	wal_header_write(&h, b);
	w->chain = h.cksum;
	return pack_append(w->pack, b, sizeof(b), err);
}

int sealed_create(int dir_fd, const struct sealed_options *options, struct sealed_writer **ret,
                  struct err *err)
{
	cleanup_sealed_writer struct sealed_writer *w = calloc(1, sizeof(*w));
	uint64_t id;

	if (!w)
		return err_set(err, ERR_NOMEM, 0, "no memory for a segment writer");
	w->options = *options;
	w->file.fd = w->table.fd = -1;
	w->entries = w->leaves = (struct scratch)SCRATCH_INIT;
	w->min_pages = UINT32_MAX;
	w->last = (struct commit){.txid = options->first_txid - 1, .min_pages = UINT32_MAX};
	w->commits.max_bytes = w->text.max_bytes = COMMITS_PER_LEAF * 128;
	w->leaf_heads.max_bytes = SIZE_MAX / 2;
	if (getrandom(&id, sizeof(id), 0) != (ssize_t)sizeof(id))
		return err_set(err, ERR_IO, errno, "get random bytes");
	const char *tmp = options->kind == SEALED_SEGMENT ? "sealing.tmp" : "coalescing.tmp";
	int rc = object_file_open(&w->file, dir_fd, tmp, err);
	if (rc == 0 && options->kind == SEALED_SEGMENT)
		rc = object_file_open(&w->table, dir_fd, "sealing-commits.tmp", err);
	if (rc == 0)
		rc = scratch_open(dir_fd, &w->entries, err);
	if (rc == 0)
		rc = scratch_open(dir_fd, &w->leaves, err);
	if (rc == 0)
		rc = gz_codec_new(6, &w->codec, err);
	if (rc == 0)
		rc = pack_writer_new(id, SEALED_BLOCK_BYTES, options->level, object_file_write,
		                     &w->file, &w->pack, err);
	if (rc == 0)
		rc = put_wal_header(w, err);
	if (rc == 0)
		*ret = take_ptr(w);
	return rc;
}

int sealed_frame(struct sealed_writer *w, uint32_t pgno, uint32_t n_truncate, const void *page,
                 struct err *err)
{
	uint8_t b[WAL_FRAME_HEADER_SIZE];
	struct wal_frame_header h = {pgno, n_truncate, w->options.salt1, w->options.salt2, {0, 0}};

	wal_frame_header_write(&h, b);
	wal_cksum_add(&w->chain, b, 8, false);
	wal_cksum_add(&w->chain, page, w->options.page_size, false);
	h.cksum = w->chain;
	wal_frame_header_write(&h, b);
	int rc = pack_append(w->pack, b, sizeof(b), err);
	if (rc == 0)
		rc = pack_append(w->pack, page, w->options.page_size, err);
	if (rc == 0)
		rc = scratch_reserve(&w->entries,
		                     (size_t)(w->n_frames + 1) * sizeof(struct frame_entry), err);
	if (rc < 0)
		return rc;
	((struct frame_entry *)w->entries.data)[w->n_frames] =
	        (struct frame_entry){pgno, w->n_frames + 1};
	w->n_frames++;
	return 0;
}

/* A commit leaf is put together in memory, and waits in scratch for the end of the content. */
static int end_commit_leaf(struct sealed_writer *w, struct err *err)
{
	cleanup_buf struct buf head = BUF_INIT(64);
	const struct commit *b = &w->leaf_before;
	uint8_t h[32];

	if (w->n_in_leaf == 0)
		return 0;
	int rc = buf_append_varint(&head, w->n_in_leaf, err);
	if (rc == 0)
		rc = buf_append_varint(&head, b->txid, err);
	if (rc == 0)
		rc = buf_append_varint(&head, b->last_frame, err);
	if (rc == 0)
		rc = buf_append_varint(&head, b->min_pages == UINT32_MAX ? 0 : b->min_pages, err);
	if (rc == 0)
		rc = scratch_reserve(&w->leaves, w->leaves_len + head.len + w->commits.len, err);
	if (rc < 0)
		return rc;
	memcpy(w->leaves.data + w->leaves_len, head.data, head.len);
	memcpy(w->leaves.data + w->leaves_len + head.len, w->commits.data, w->commits.len);
	w->leaves_len += head.len + w->commits.len;
	store_le64(h, head.len + w->commits.len);
	store_le64(h + 8, b->txid);
	store_le64(h + 16, b->last_frame);
	store_le64(h + 24,
	           (uint64_t)b->time_us); /* of the leaf's first commit: see sealed_commit() */
	buf_clear(&w->commits);
	w->n_in_leaf = 0;
	return buf_append(&w->leaf_heads, h, sizeof(h), err);
}

static int put_text(struct sealed_writer *w, const struct commit *c, struct err *err)
{
	char when[TIME_STR_MAX];
	uint64_t bytes = WAL_HEADER_SIZE + w->n_frames * wal_frame_size(w->options.page_size);

	if (w->table.fd < 0)
		return 0;
	time_format(c->time_us, when);
	int rc = buf_printf(&w->text, err, "%" PRIu64 " %s %" PRIu64 "%s\n", c->txid, when, bytes,
	                    c->flags & COMMIT_UNSETTLED ? " unsettled" : "");
	return rc;
}

static int flush_text(struct sealed_writer *w, struct err *err)
{
	cleanup_buf struct buf out = BUF_INIT(w->text.max_bytes * 2);

	if (w->table.fd < 0 || w->text.len == 0)
		return 0;
	int rc = gz_put_data(w->codec, w->text.data, w->text.len, &out, err);
	if (rc == 0)
		rc = object_file_write(&w->table, out.data, out.len, w->table_offset, err);
	w->table_offset += out.len;
	buf_clear(&w->text);
	return rc;
}

int sealed_commit(struct sealed_writer *w, const struct commit *commit, struct err *err)
{
	struct commit c = *commit;

	/* What a reader would refuse is not written. */
	assert(w->n_frames > w->last.last_frame && c.n_pages > 0);
	assert(w->options.kind == SEALED_COALESCED
	               ? w->n_commits == 0 && c.txid >= w->options.first_txid
	               : c.txid == w->last.txid + 1);
	assert(c.time_us >= w->last.time_us);
	c.last_frame = w->n_frames;
	c.n_frames = w->n_frames - w->last.last_frame;
	c.min_pages = c.n_pages < w->last.min_pages ? c.n_pages : w->last.min_pages;
	if (w->n_in_leaf == 0) {
		w->leaf_before = w->last;
		w->leaf_before.txid = c.txid - 1; /* a coalesced object's only commit skips some */
		w->leaf_before.time_us = c.time_us;
	}
	int rc = commit_put(&w->commits, &c, w->n_in_leaf ? &w->last : NULL, err);
	if (rc == 0)
		rc = put_text(w, &c, err);
	if (rc < 0)
		return rc;
	if (w->n_commits++ == 0)
		w->first = c;
	w->last = c;
	w->min_pages = c.min_pages;
	if (++w->n_in_leaf == COMMITS_PER_LEAF) {
		rc = end_commit_leaf(w, err);
		if (rc == 0)
			rc = flush_text(w, err);
	}
	return rc;
}

static int put_commit_leaves(struct sealed_writer *w, struct buf *top, struct err *err)
{
	size_t n = w->leaf_heads.len / 32;
	size_t at = 0;

	int rc = buf_append_varint(top, n, err);
	for (size_t i = 0; i < n && rc == 0; i++) {
		const uint8_t *h = w->leaf_heads.data + 32 * i;
		size_t len = (size_t)load_le64(h);
		struct pack_ref ref;
		rc = pack_put_leaf(w->pack, w->leaves.data + at, len, &ref, err);
		at += len;
		if (rc == 0)
			rc = buf_append_varint(top, load_le64(h + 8), err);
		if (rc == 0)
			rc = buf_append_varint(top, load_le64(h + 16), err);
		if (rc == 0)
			rc = buf_append(top, h + 24, 8, err);
		if (rc == 0)
			rc = pack_ref_put(top, &ref, err);
	}
	return rc;
}

static int put_index_leaves(struct sealed_writer *w, struct buf *top, struct err *err)
{
	struct frame_entry *e = (struct frame_entry *)w->entries.data;
	uint64_t n = w->n_frames;

	frame_run_sort(e, (size_t)n);
	int rc = buf_append_varint(top, (n + ENTRIES_PER_LEAF - 1) / ENTRIES_PER_LEAF, err);
	for (uint64_t at = 0; at < n && rc == 0; at += ENTRIES_PER_LEAF) {
		size_t k = n - at < ENTRIES_PER_LEAF ? (size_t)(n - at) : ENTRIES_PER_LEAF;
		cleanup_buf struct buf leaf = BUF_INIT(ENTRIES_PER_LEAF * 15 + 64);
		struct pack_ref ref;
		rc = buf_append_varint(&leaf, k, err);
		if (rc == 0)
			rc = buf_append_varint(&leaf, n, err);
		if (rc == 0)
			rc = frame_run_put(&leaf, e + at, k, err);
		if (rc == 0)
			rc = pack_put_leaf(w->pack, leaf.data, leaf.len, &ref, err);
		if (rc == 0)
			rc = buf_append_varint(top, e[at].pgno, err);
		if (rc == 0)
			rc = buf_append_varint(top, e[at].frame, err);
		if (rc == 0)
			rc = pack_ref_put(top, &ref, err);
	}
	return rc;
}

static void put_meta(const struct sealed_writer *w, const struct object_name *name,
                     uint8_t m[PACK_META_SIZE])
{
	memset(m, 0, PACK_META_SIZE);
	store_le32(m, (uint32_t)w->options.kind);
	store_le32(m + 4, w->options.page_size);
	store_le32(m + 8, w->options.lineage);
	store_le32(m + 12, w->options.salt1);
	store_le32(m + 16, w->options.salt2);
	store_le32(m + 20, name->min_pages);
	store_le32(m + 24, w->last.n_pages);
	store_le64(m + 32, name->first_txid);
	store_le64(m + 40, name->last_txid);
	store_le64(m + 48, (uint64_t)name->first_us);
	store_le64(m + 56, (uint64_t)name->last_us);
	store_le64(m + 64, w->n_frames);
	source_position_put(m + 72, &w->options.pos);
}

static int finish_table(struct sealed_writer *w, const struct object_name *name, struct err *err)
{
	char text[OBJECT_NAME_MAX];
	struct object_name n = *name;

	if (w->table.fd < 0)
		return 0;
	n.type = OBJECT_COMMITS;
	object_name_format(&n, text);
	int rc = flush_text(w, err);
	return rc < 0 ? rc : object_file_finish(&w->table, text, err);
}

int sealed_finish(struct sealed_writer *w, struct object_name *ret_name, uint64_t *ret_bytes,
                  struct err *err)
{
	cleanup_buf struct buf top = BUF_INIT(SIZE_MAX / 2);
	bool coalesced = w->options.kind == SEALED_COALESCED;
	uint8_t meta[PACK_META_SIZE];
	char text[OBJECT_NAME_MAX];
	struct object_name n = {
	        .type = coalesced ? OBJECT_COALESCED : OBJECT_SEALED,
	        .lineage = w->options.lineage,
	        .first_txid = w->options.first_txid,
	        .last_txid = w->last.txid,
	        .first_us = coalesced ? w->options.first_us : w->first.time_us,
	        .last_us = w->last.time_us,
	        .min_pages = coalesced ? w->options.min_pages : w->min_pages,
	};

	int rc = end_commit_leaf(w, err);
	if (rc == 0)
		rc = pack_end_content(w->pack, err);
	if (rc == 0)
		rc = put_commit_leaves(w, &top, err);
	if (rc == 0)
		rc = put_index_leaves(w, &top, err);
	if (rc < 0)
		return rc;
	put_meta(w, &n, meta);
	rc = pack_finish(w->pack, top.data, top.len, meta, ret_bytes, err);
	/* The table first: where a sealed segment is, its table is. */
	if (rc == 0)
		rc = finish_table(w, &n, err);
	object_name_format(&n, text);
	if (rc == 0)
		rc = object_file_finish(&w->file, text, err);
	if (rc == 0)
		*ret_name = n;
	return rc;
}

void sealed_writer_free(struct sealed_writer *w)
{
	if (!w)
		return;
	object_file_release(&w->file);
	object_file_release(&w->table);
	pack_writer_free(w->pack);
	gz_codec_free(w->codec);
	scratch_release(&w->entries);
	scratch_release(&w->leaves);
	buf_release(&w->commits);
	buf_release(&w->leaf_heads);
	buf_release(&w->text);
	free(w);
}
