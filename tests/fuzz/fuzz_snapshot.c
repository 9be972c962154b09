/* SPDX-License-Identifier: Apache-2.0 */
/* A snapshot with changed bytes, and single gzip members of any bytes. */
#include "engine/archive/snapshot.h"
#include "engine/sqlite/format.h"
#include "tests/fuzz/patch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PAGE 512u
#define N_PAGES 200u
#define BLOB_MAX (1u << 20)

static void fill_page(uint32_t pgno, uint8_t page[PAGE])
{
	memset(page, (int)pgno, PAGE);
}

static struct object build(void)
{
	char path[64], name[OBJECT_NAME_MAX];
	int dir_fd = patch_make_dir(path);
	struct snapshot_info info = {.page_size = PAGE,
	                             .lineage = 1,
	                             .n_pages = N_PAGES,
	                             .txid = 9,
	                             .redo_txid = 9,
	                             .time_us = 1705314600000000};
	struct object_name key = {.type = OBJECT_SNAPSHOT,
	                          .lineage = 1,
	                          .first_txid = 10,
	                          .last_txid = 9,
	                          .first_us = info.time_us,
	                          .last_us = info.time_us};
	struct snapshot_writer *w;
	uint64_t bytes;
	uint8_t page[PAGE];

	must(!snapshot_create(dir_fd, "tmp", PAGE, 1, &w, NULL));
	for (uint32_t pgno = 1; pgno <= N_PAGES; pgno++) {
		fill_page(pgno, page);
		must(!snapshot_append(w, page, PAGE, NULL));
	}
	must(!snapshot_finish(w, &info, &bytes, NULL));
	snapshot_writer_free(w);
	object_name_format(&key, name);
	struct object o = patch_take_file(dir_fd, name);
	close(dir_fd);
	must(rmdir(path) == 0);
	return o;
}

static void read_pages(struct snapshot *s)
{
	const struct snapshot_info *info = snapshot_get_info(s);
	uint8_t page[PAGE_SIZE_MAX], want[PAGE];

	must(page_size_valid(info->page_size));
	must(!patch_must_match() || (info->page_size == PAGE && info->n_pages == N_PAGES));
	for (uint32_t pgno = 1; pgno <= N_PAGES; pgno++) {
		if (snapshot_page(s, pgno, page, NULL) || !patch_must_match())
			continue;
		fill_page(pgno, want);
		must(memcmp(page, want, PAGE) == 0);
	}
}

static void read_snapshot(struct object o)
{
	cleanup_snapshot struct snapshot *s = NULL;
	struct cache *cache;
	struct err err = ERR_INIT;

	must(!cache_new(1 << 20, &cache, NULL));
	if (snapshot_open(memory_source(o), cache, &s, &err))
		must(err.msg[0]);
	else
		read_pages(s);
	snapshot_free(take_ptr(s));
	cache_free(cache);
}

static void read_member(const uint8_t *data, size_t size)
{
	cleanup_buf struct buf payload = BUF_INIT(BLOB_MAX);
	uint8_t content[4096];
	enum gz_kind kind;
	uint64_t len;

	if (gz_peek(data, size, &kind, &len, NULL) == 0 && len <= size) {
		if (kind == GZ_DATA)
			(void)!gz_get_data(data, (size_t)len, content, sizeof(content), NULL);
		else if (!gz_get_blob(kind, data, (size_t)len, &payload, NULL))
			must(gz_blob_size(payload.len) == len);
	}
	(void)!gz_get_data(data, size, content, 1, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct object good;

	if (!good.data)
		good = build();
	read_snapshot(patch_apply(&good, data, size));
	read_member(data, size);
	return 0;
}
