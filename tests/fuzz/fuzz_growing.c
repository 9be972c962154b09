/* SPDX-License-Identifier: Apache-2.0 */
/* A growing segment with changed bytes, read to the end: as published, and as left by a writer
 * that died. */
#include "engine/archive/grow.h"
#include "engine/archive/names.h"
#include "tests/fuzz/patch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PAGE 512u
#define N_PAGES 40u
#define N_COMMITS 12u
#define CONTENT_MAX (1u << 20)

struct all {
	uint64_t n_commits;
	struct commit commits[N_COMMITS];
	uint8_t *content;
	size_t content_len;
};

static struct object build(void)
{
	char path[64], name[OBJECT_NAME_MAX];
	int dir_fd = patch_make_dir(path);
	struct object_name key = {.type = OBJECT_GROWING, .lineage = 1, .first_txid = 7};
	struct grow_writer *w;
	struct source_position pos = {.salt1 = 5, .salt2 = 6};
	uint8_t page[PAGE];

	must(!grow_create(dir_fd, 1, 7, PAGE, 1, &w, NULL));
	for (uint32_t i = 0; i < N_COMMITS; i++) {
		struct commit c = {.txid = 7 + i,
		                   .time_us = 1705314600000000 + i,
		                   .not_before_us = 1705314600000000,
		                   .n_frames = i % 5 + 1,
		                   .n_pages = N_PAGES - i};
		for (uint32_t k = 0; k <= i % 5; k++) {
			memset(page, (int)(i + k), sizeof(page));
			must(!grow_frame(w, (i * 7 + k) % N_PAGES + 1, k == i % 5 ? c.n_pages : 0,
			                 page, NULL));
		}
		must(!grow_commit(w, &c, NULL));
		if (i % 4 == 3)
			must(!grow_end_batch(w, &pos, true, NULL));
	}
	must(!grow_sync(w, false, NULL));
	grow_writer_free(w);
	object_name_format(&key, name);
	struct object o = patch_take_file(dir_fd, name);
	close(dir_fd);
	must(rmdir(path) == 0);
	return o;
}

/* Reads everything; what cannot be read is left out of *ret. */
static bool read_all(struct object o, uint64_t durable_len, struct all *ret)
{
	cleanup_grow_reader struct grow_reader *r = NULL;
	struct cache *cache;
	struct err err = ERR_INIT;
	struct source *src = memory_source(o);
	uint64_t len;

	*ret = (struct all){0};
	must(!cache_new(1 << 20, &cache, NULL));
	int rc = grow_open(src, cache, &r, &err);
	if (rc) {
		source_free(src);
	} else {
		rc = durable_len ? grow_refresh(r, durable_len, &err)
		                 : grow_refresh_all(r, &len, &err);
	}
	must(!rc || err.msg[0]);
	for (uint64_t i = 0; !rc && i < N_COMMITS && grow_get_commit(r, i, &ret->commits[i]); i++)
		ret->n_commits++;
	for (uint32_t pgno = 0; !rc && pgno <= N_PAGES + 1; pgno++)
		(void)grow_find_frame(r, pgno, UINT64_MAX);
	if (!rc)
		(void)grow_commits_until(r, 1705314600000003);
	if (!rc && ret->n_commits) {
		uint64_t frames = ret->commits[ret->n_commits - 1].last_frame;
		uint64_t want = WAL_HEADER_SIZE + frames * (WAL_FRAME_HEADER_SIZE + PAGE);
		if (frames < CONTENT_MAX / PAGE / 2) {
			must((ret->content = malloc(want)) != NULL);
			ret->content_len = want;
			rc = grow_read_content(r, 0, ret->content, want, &err);
		}
	}
	grow_free(take_ptr(r));
	cache_free(cache);
	return rc == 0;
}

static void check(const struct all *good, const struct all *got, bool whole)
{
	must(got->n_commits <= good->n_commits && (!whole || got->n_commits == good->n_commits));
	for (uint64_t i = 0; i < got->n_commits; i++)
		must(good->commits[i].txid == got->commits[i].txid &&
		     good->commits[i].time_us == got->commits[i].time_us &&
		     good->commits[i].last_frame == got->commits[i].last_frame &&
		     good->commits[i].n_pages == got->commits[i].n_pages);
	must(got->content_len <= good->content_len &&
	     memcmp(good->content, got->content, got->content_len) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct object good;
	static struct all want;
	struct all got;

	if (!good.data) {
		good = build();
		must(read_all(patch_apply(&good, NULL, 0), good.len, &want));
		must(want.n_commits == N_COMMITS);
	}
	for (int whole = 0; whole < 2; whole++) {
		bool ok = read_all(patch_apply(&good, data, size), whole ? good.len : 0, &got);
		if (ok && got.n_commits && patch_must_match())
			check(&want, &got, whole);
		free(got.content);
	}
	return 0;
}
