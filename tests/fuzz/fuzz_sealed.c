/* SPDX-License-Identifier: Apache-2.0 */
/* A sealed segment with changed bytes: what can be read of it is what was written. */
#include "engine/archive/sealed.h"
#include "tests/fuzz/patch.h"

#include <stdio.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PAGE 512u
#define N_PAGES 30u
#define N_COMMITS 40u

struct wanted {
	struct object object;
	struct commit commits[N_COMMITS];
	uint64_t frame_of[N_PAGES + 1]; /* last frame with that page */
	uint64_t n_frames;
};

static void build(struct wanted *w)
{
	char path[64], name[OBJECT_NAME_MAX];
	int dir_fd = patch_make_dir(path);
	struct sealed_options options = {.kind = SEALED_SEGMENT,
	                                 .page_size = PAGE,
	                                 .lineage = 1,
	                                 .first_txid = 1,
	                                 .salt1 = 1,
	                                 .salt2 = 2,
	                                 .level = 1};
	struct sealed_writer *writer;
	struct object_name key;
	uint64_t bytes;
	uint8_t page[PAGE];

	must(!sealed_create(dir_fd, &options, &writer, NULL));
	for (uint32_t i = 0; i < N_COMMITS; i++) {
		struct commit c = {.txid = i + 1,
		                   .time_us = 1705314600000000 + i,
		                   .n_frames = i % 3 + 1,
		                   .n_pages = N_PAGES,
		                   .min_pages = N_PAGES};
		for (uint32_t k = 0; k <= i % 3; k++) {
			uint32_t pgno = (i * 7 + k) % N_PAGES + 1;
			memset(page, (int)(i + k), sizeof(page));
			must(!sealed_frame(writer, pgno, k == i % 3 ? N_PAGES : 0, page, NULL));
			w->frame_of[pgno] = ++w->n_frames;
		}
		c.last_frame = w->n_frames;
		must(!sealed_commit(writer, &c, NULL));
		w->commits[i] = c;
	}
	must(!sealed_finish(writer, &key, &bytes, NULL));
	sealed_writer_free(writer);
	object_name_format(&key, name);
	w->object = patch_take_file(dir_fd, name);
	key.type = OBJECT_COMMITS;
	object_name_format(&key, name);
	unlinkat(dir_fd, name, 0);
	close(dir_fd);
	must(rmdir(path) == 0);
}

static void read_commits(struct sealed *s, const struct wanted *want)
{
	uint64_t n = sealed_n_commits(s), until;
	struct commit c;

	must(!patch_must_match() || n == N_COMMITS);
	for (uint64_t i = 0; i < n && i < 2 * N_COMMITS; i++)
		if (!sealed_get_commit(s, i, &c, NULL) && patch_must_match())
			must(c.txid == want->commits[i].txid &&
			     c.time_us == want->commits[i].time_us &&
			     c.last_frame == want->commits[i].last_frame &&
			     c.n_pages == want->commits[i].n_pages);
	if (!sealed_commits_until(s, want->commits[20].time_us, &until, NULL) && patch_must_match())
		must(until == 21);
}

static void read_pages(struct sealed *s, const struct wanted *want, const uint8_t *content)
{
	uint8_t frame[WAL_FRAME_HEADER_SIZE + PAGE];
	struct frame_entry e;
	uint64_t at;

	for (uint32_t pgno = 1; pgno <= N_PAGES; pgno++) {
		if (sealed_find_frame(s, pgno, UINT64_MAX, &at, NULL))
			continue;
		must(!patch_must_match() || at == want->frame_of[pgno]);
		if (!at || at > 2 * want->n_frames)
			continue;
		uint64_t offset = wal_frame_offset(at, PAGE);
		if (!sealed_read_content(s, offset, frame, sizeof(frame), NULL) && content)
			must(memcmp(frame, content + offset, sizeof(frame)) == 0);
	}
	for (uint64_t i = 0; i < 2 * want->n_frames; i++)
		if (sealed_get_entry(s, i, &e, NULL))
			break;
}

static void read_all(struct object o, const struct wanted *want, uint8_t *content, size_t len,
                     bool fill)
{
	cleanup_sealed struct sealed *s = NULL;
	struct cache *cache;
	struct err err = ERR_INIT;

	must(!cache_new(1 << 20, &cache, NULL));
	if (sealed_open(memory_source(o), cache, &s, &err)) {
		must(err.msg[0] && !fill);
	} else if (fill) {
		must(!sealed_read_content(s, 0, content, len, NULL));
	} else {
		read_commits(s, want);
		read_pages(s, want, patch_must_match() ? content : NULL);
	}
	sealed_free(take_ptr(s));
	cache_free(cache);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct wanted want;
	static uint8_t *content;

	if (!want.object.data) {
		build(&want);
		size_t len = WAL_HEADER_SIZE + want.n_frames * (WAL_FRAME_HEADER_SIZE + PAGE);
		must((content = malloc(len)) != NULL);
		read_all(patch_apply(&want.object, NULL, 0), &want, content, len, true);
	}
	read_all(patch_apply(&want.object, data, size), &want, content, 0, false);
	return 0;
}
