/* SPDX-License-Identifier: Apache-2.0 */
/* Every byte of an object against its hash, and its content against its name. */
#include "engine/archive/grow.h"
#include "engine/archive/sealed.h"
#include "engine/archive/snapshot.h"
#include "engine/gz/gunzip.h"
#include "engine/repair/repair_i.h"
#include "engine/view/check.h"

#include <string.h>

#define PIECE (1u << 20)
#define CACHE_BYTES (1u << 20)

static int other_content(const struct item *i, struct err *err)
{
	return err_set(err, ERR_DAMAGED, 0,
	               "'%s' is damaged: its content is that of another object", i->file);
}

static int read_pack(struct pack *p, struct err *err)
{
	cleanup_free uint8_t *b = malloc(PIECE);
	int rc = b ? pack_check_header(p, err) : err_set(err, ERR_NOMEM, 0, "no memory to read");

	for (uint64_t at = 0; at < pack_size(p) && rc == 0; at += PIECE) {
		uint64_t left = pack_size(p) - at;
		rc = pack_read(p, at, b, left < PIECE ? (size_t)left : PIECE, err);
	}
	return rc;
}

static int check_sealed(struct source *src, struct cache *cache, const struct item *item,
                        struct err *err)
{
	cleanup_sealed struct sealed *s = NULL;
	const struct object_name *n = &item->name;
	struct frame_entry e;
	struct commit c;

	int rc = sealed_open(src, cache, &s, err);
	if (rc < 0)
		return rc;
	const struct sealed_info *i = sealed_get_info(s);
	if (i->lineage != n->lineage || i->first_txid != n->first_txid ||
	    i->last_txid != n->last_txid || i->first_us != n->first_us ||
	    i->last_us != n->last_us || i->min_pages != n->min_pages ||
	    (i->kind == SEALED_COALESCED) != (item->kind == ITEM_COALESCED))
		return other_content(item, err);
	rc = read_pack(sealed_pack(s), err);
	for (uint64_t k = 0; k < sealed_n_commits(s) && rc == 0; k++)
		rc = sealed_get_commit(s, k, &c, err);
	for (uint64_t k = 0; k < i->n_frames && rc == 0; k++)
		rc = sealed_get_entry(s, k, &e, err);
	return rc;
}

static int check_snapshot(struct source *src, struct cache *cache, const struct item *item,
                          struct err *err)
{
	cleanup_snapshot struct snapshot *s = NULL;
	const struct object_name *n = &item->name;

	int rc = snapshot_open(src, cache, &s, err);
	if (rc < 0)
		return rc;
	const struct snapshot_info *i = snapshot_get_info(s);
	if (i->lineage != n->lineage || i->txid != n->last_txid ||
	    i->redo_txid + 1 != n->first_txid || i->time_us != n->last_us)
		return other_content(item, err);
	return read_pack(snapshot_pack(s), err);
}

static int read_grown(struct grow_reader *g, struct item *item, struct err *err)
{
	cleanup_free uint8_t *b = malloc(PIECE);
	uint64_t n = grow_n_commits(g), end = 0;
	struct commit last;
	int rc = 0;

	if (!b)
		return err_set(err, ERR_NOMEM, 0, "no memory to read");
	if (n > 0 && grow_get_commit(g, n - 1, &last)) {
		end = wal_frame_offset(last.last_frame + 1, grow_reader_info(g)->page_size);
		item->name.last_txid = last.txid;
		item->name.last_us = last.time_us;
	}
	for (uint64_t at = 0; at < end && rc == 0; at += PIECE)
		rc = grow_read_content(g, at, b, end - at < PIECE ? (size_t)(end - at) : PIECE,
		                       err);
	return rc;
}

static int check_fence(struct source *src, struct item *item, struct err *err)
{
	uint8_t header[GROW_HEADER_SIZE];
	uint64_t goes_on;

	int rc = src->pread(src, header, sizeof(header), 0, err);
	rc = rc ? rc
	        : grow_fence_get(header, sizeof(header), item->file, item->name.lineage,
	                         item->name.first_txid, &goes_on, err);
	item->fence = rc == 0;
	return rc;
}

static int check_growing(struct source *src, struct cache *cache, struct item *item,
                         uint64_t durable_len, bool whole, struct err *err)
{
	struct grow_reader *g = NULL;
	uint64_t bytes = 0, len;

	int rc = src->size(src, &bytes, err);
	if (rc == 0 && bytes == GROW_HEADER_SIZE && whole)
		rc = check_fence(src, item, err);
	if (rc < 0 || item->fence || (bytes <= GROW_HEADER_SIZE && !whole)) {
		source_free(src);
		return rc;
	}
	rc = grow_open(src, cache, &g, err);
	if (rc < 0) {
		source_free(src);
		return rc;
	}
	const struct grow_info *i = grow_reader_info(g);
	if (i->lineage != item->name.lineage || i->first_txid != item->name.first_txid)
		rc = other_content(item, err);
	else if (durable_len || whole)
		rc = grow_refresh(g, durable_len ? durable_len : bytes, err);
	else
		rc = grow_refresh_all(g, &len, err);
	rc = rc ? rc : read_grown(g, item, err);
	if (rc == 0 && whole && item->name.last_txid < item->name.first_txid)
		rc = err_set(err, ERR_DAMAGED, 0, "'%s' is damaged: it holds no transaction",
		             item->file);
	grow_free(g);
	return rc;
}

int whole_check(struct source *src, struct item *item, uint64_t durable_len, bool whole,
                struct err *err)
{
	struct cache *cache;

	int rc = cache_new(CACHE_BYTES, &cache, err);
	if (rc < 0) {
		source_free(src);
		return rc;
	}
	if (item->kind == ITEM_GROWING)
		rc = check_growing(src, cache, item, durable_len, whole, err);
	else if (item->kind == ITEM_SNAPSHOT)
		rc = check_snapshot(src, cache, item, err);
	else
		rc = check_sealed(src, cache, item, err);
	cache_free(cache);
	return rc;
}

/* ---- tables ---- */

struct reading {
	struct source *src;
	uint64_t at, bytes;
};

static int read_on(void *ctx, void *buf, size_t len, size_t *ret_len, struct err *err)
{
	struct reading *r = ctx;
	size_t n = r->bytes - r->at < len ? (size_t)(r->bytes - r->at) : len;
	int rc = n ? r->src->pread(r->src, buf, n, r->at, err) : 0;

	r->at += n;
	*ret_len = n;
	return rc;
}

static int compare(struct source *table, struct sealed *s, const char *file, struct err *err)
{
	cleanup_gunzip struct gunzip *g = NULL;
	struct reading r = {.src = table};

	int rc = table->size(table, &r.bytes, err);
	rc = rc ? rc : gunzip_new(read_on, &r, file, &g, err);
	return rc ? rc : history_check_table(s, g, file, err);
}

int whole_check_table(struct source *table, struct source *segment, const char *file,
                      struct err *err)
{
	cleanup_source struct source *t = table;
	cleanup_sealed struct sealed *s = NULL;
	struct cache *cache;

	int rc = cache_new(CACHE_BYTES, &cache, err);
	if (rc < 0) {
		source_free(segment);
		return rc;
	}
	rc = sealed_open(segment, cache, &s, err);
	rc = rc ? rc : compare(t, s, file, err);
	sealed_free(take_ptr(s)); /* before the cache */
	cache_free(cache);
	return rc;
}

/* ---- notes ---- */

int whole_check_note(const char *file, const struct buf *text, struct err *err)
{
	cleanup_free char *copy = malloc(text->len + 1);

	if (!copy)
		return err_set(err, ERR_NOMEM, 0, "no memory to read a note");
	if (text->len)
		memcpy(copy, text->data, text->len);
	copy[text->len] = '\0';
	return note_check(file, copy, text->len, err);
}

uint64_t whole_note_begins(const char *file, const struct buf *text)
{
	cleanup_free char *copy = malloc(text->len + 1);
	char mark[DB_NAME_MAX + 1];
	struct lineage_note lineage;
	struct mark_note m;
	struct object_name n;
	uint64_t txid;

	if (gap_name_parse(file, &txid))
		return txid;
	if (!copy)
		return UINT64_MAX;
	if (text->len)
		memcpy(copy, text->data, text->len);
	copy[text->len] = '\0';
	if (object_name_parse(file, &n))
		return lineage_note_parse(copy, text->len, file, &lineage, NULL) == 0
		               ? lineage.first_txid
		               : UINT64_MAX;
	if (mark_file_parse(file, mark))
		return mark_note_parse(copy, text->len, mark, &m, NULL) == 0 ? m.txid : UINT64_MAX;
	return 0;
}
