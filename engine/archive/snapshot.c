/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/archive/snapshot.h"

#include "engine/archive/object_file.h"
#include "engine/sqlite/format.h"

#include <sys/random.h>

#define SNAPSHOT_KIND 3u
#define SNAPSHOT_BLOCK_BYTES 16384u

struct snapshot_writer {
	struct object_file file;
	struct pack_writer *pack;
};

struct snapshot {
	struct pack *pack;
	struct snapshot_info info;
};

int snapshot_create(int dir_fd, const char *tmp_name, uint32_t page_size, int level,
                    struct snapshot_writer **ret, struct err *err)
{
	cleanup_snapshot_writer struct snapshot_writer *w = calloc(1, sizeof(*w));
	uint32_t block = page_size > SNAPSHOT_BLOCK_BYTES ? page_size : SNAPSHOT_BLOCK_BYTES;
	uint64_t id;

	if (!w)
		return err_set(err, ERR_NOMEM, 0, "no memory for a snapshot");
	w->file.fd = -1;
	if (getrandom(&id, sizeof(id), 0) != (ssize_t)sizeof(id))
		return err_set(err, ERR_IO, errno, "get random bytes");
	int rc = object_file_open(&w->file, dir_fd, tmp_name, err);
	if (rc == 0)
		rc = pack_writer_new(id, block, level, object_file_write, &w->file, &w->pack, err);
	if (rc == 0)
		*ret = take_ptr(w);
	return rc;
}

int snapshot_append(struct snapshot_writer *w, const void *pages, size_t len, struct err *err)
{
	return pack_append(w->pack, pages, len, err);
}

void snapshot_name(const struct snapshot_info *info, char ret[OBJECT_NAME_MAX])
{
	const struct object_name n = {
	        .type = OBJECT_SNAPSHOT,
	        .lineage = info->lineage,
	        .first_txid = info->redo_txid + 1,
	        .last_txid = info->txid,
	        .first_us = info->time_us,
	        .last_us = info->time_us,
	};

	object_name_format(&n, ret);
}

int snapshot_finish(struct snapshot_writer *w, const struct snapshot_info *info,
                    uint64_t *ret_bytes, struct err *err)
{
	uint8_t m[PACK_META_SIZE] = {0};
	cleanup_buf struct buf spans = BUF_INIT(SIZE_MAX / 2);
	char name[OBJECT_NAME_MAX];

	store_le32(m, SNAPSHOT_KIND);
	store_le32(m + 4, info->page_size);
	store_le32(m + 8, info->lineage);
	store_le32(m + 12, info->n_pages);
	store_le64(m + 16, info->txid);
	store_le64(m + 24, info->redo_txid);
	store_le64(m + 32, (uint64_t)info->time_us);
	store_le64(m + 40, (uint64_t)info->not_before_us);
	store_le64(m + 48, info->state.lo);
	store_le64(m + 56, info->state.hi);
	int rc = pack_end_content(w->pack, err);
	pack_put_first(w->pack, m + 64);
	if (rc == 0)
		rc = pack_put_spans(w->pack, &spans, err);
	if (rc == 0)
		rc = pack_finish(w->pack, spans.data, spans.len, m, ret_bytes, err);
	snapshot_name(info, name);
	return rc < 0 ? rc : object_file_finish(&w->file, name, err);
}

void snapshot_writer_free(struct snapshot_writer *w)
{
	if (!w)
		return;
	object_file_release(&w->file);
	pack_writer_free(w->pack);
	free(w);
}

static int read_meta(struct snapshot *s, struct err *err)
{
	const uint8_t *m = pack_meta(s->pack);

	s->info = (struct snapshot_info){
	        .page_size = load_le32(m + 4),
	        .lineage = load_le32(m + 8),
	        .n_pages = load_le32(m + 12),
	        .txid = load_le64(m + 16),
	        .redo_txid = load_le64(m + 24),
	        .time_us = (int64_t)load_le64(m + 32),
	        .not_before_us = (int64_t)load_le64(m + 40),
	        .state = {load_le64(m + 48), load_le64(m + 56)},
	};
	const struct snapshot_info *i = &s->info;
	if (load_le32(m) != SNAPSHOT_KIND || !page_size_valid(i->page_size) || i->n_pages == 0 ||
	    i->txid == 0 || i->redo_txid > i->txid || pack_size(s->pack) % i->page_size != 0 ||
	    (i->redo_txid == i->txid && pack_size(s->pack) != (uint64_t)i->n_pages * i->page_size))
		return err_set(err, ERR_DAMAGED, 0,
		               "'%s' is damaged: its trailer describes no snapshot",
		               pack_name(s->pack));
	int rc = pack_get_first(s->pack, m + 64, err);
	return rc < 0 ? rc : pack_get_spans(s->pack, pack_top(s->pack), err);
}

int snapshot_open(struct source *src, struct cache *cache, struct snapshot **ret, struct err *err)
{
	cleanup_snapshot struct snapshot *s = calloc(1, sizeof(*s));

	if (!s) {
		source_free(src);
		return err_set(err, ERR_NOMEM, 0, "no memory to open a snapshot");
	}
	int rc = pack_open(src, cache, &s->pack, err);
	if (rc < 0) {
		source_free(src);
		return rc;
	}
	rc = read_meta(s, err);
	if (rc == 0)
		*ret = take_ptr(s);
	return rc;
}

void snapshot_free(struct snapshot *s)
{
	if (!s)
		return;
	pack_free(s->pack);
	free(s);
}

const struct snapshot_info *snapshot_get_info(const struct snapshot *s)
{
	return &s->info;
}

struct pack *snapshot_pack(struct snapshot *s)
{
	return s->pack;
}

int snapshot_page(struct snapshot *s, uint32_t pgno, void *buf, struct err *err)
{
	uint64_t offset = (uint64_t)(pgno - 1) * s->info.page_size;

	if (offset + s->info.page_size > pack_size(s->pack))
		return err_set(err, ERR_NOT_FOUND, 0, "'%s' has no page %u", pack_name(s->pack),
		               pgno);
	return pack_read(s->pack, offset, buf, s->info.page_size, err);
}
