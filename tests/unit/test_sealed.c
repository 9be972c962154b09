/* SPDX-License-Identifier: Apache-2.0 */
/* Sealed segments, coalesced objects and snapshots, against brute force. */
#include "engine/base/clock.h"
#include "tests/lib/memory.h"
#include "tests/lib/synth.h"

#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

struct frames {
	uint32_t *pgno;
	uint8_t *pages;
	struct commit *commits;
	size_t n, n_commits;
	struct object_name name;
	char file[OBJECT_NAME_MAX];
};

static void make(int dir, struct rng *r, struct frames *f, size_t n_commits, size_t max_frames,
                 uint32_t page_size, uint32_t max_page)
{
	struct err err = ERR_INIT;
	struct sealed_writer *w;
	uint64_t bytes;
	int64_t us = 1000;
	uint32_t min = UINT32_MAX;
	struct sealed_options o = {.kind = SEALED_SEGMENT,
	                           .page_size = page_size,
	                           .lineage = 2,
	                           .first_txid = 11,
	                           .salt1 = 1,
	                           .salt2 = 2,
	                           .level = 1,
	                           .pos = {1, 2, 3, {4, 5}, 6}};

	*f = (struct frames){.pgno = calloc(n_commits * max_frames, 4),
	                     .pages = calloc(n_commits * max_frames, page_size),
	                     .commits = calloc(n_commits, sizeof(struct commit))};
	synth_must(sealed_create(dir, &o, &w, &err), &err, "sealed_create");
	for (size_t i = 0; i < n_commits; i++) {
		size_t k = 1 + (size_t)rng_below(r, max_frames);
		struct commit *c = &f->commits[i];
		us += 1 + (int64_t)rng_below(r, 100);
		*c = (struct commit){.txid = 11 + i,
		                     .time_us = us,
		                     .n_pages = 1 + (uint32_t)rng_below(r, 9999),
		                     .n_frames = k};
		c->state = (struct hash128){rng_next(r), i};
		c->flags = rng_chance(r, 10) ? COMMIT_UNSETTLED : 0;
		for (size_t j = 0; j < k; j++, f->n++) {
			f->pgno[f->n] = 1 + (uint32_t)rng_below(r, max_page);
			store_le64(f->pages + f->n * page_size, rng_next(r));
			synth_must(sealed_frame(w, f->pgno[f->n], j + 1 == k ? c->n_pages : 0,
			                        f->pages + f->n * page_size, &err),
			           &err, "sealed_frame");
		}
		c->last_frame = f->n;
		min = c->n_pages < min ? c->n_pages : min;
		c->min_pages = min;
		synth_must(sealed_commit(w, c, &err), &err, "sealed_commit");
	}
	f->n_commits = n_commits;
	synth_must(sealed_finish(w, &f->name, &bytes, &err), &err, "sealed_finish");
	sealed_writer_free(w);
	object_name_format(&f->name, f->file);
	assert_int_equal(f->name.min_pages, min);
	assert_int_equal(f->name.first_txid, 11);
	assert_int_equal(f->name.last_txid, 10 + n_commits);
}

static void free_frames(struct frames *f)
{
	free(f->pgno);
	free(f->pages);
	free(f->commits);
}

static struct sealed *open_sealed(int dir, const char *file, struct cache *cache)
{
	struct source *src;
	struct sealed *s;
	struct err err = ERR_INIT;

	synth_must(source_open_file(dir, file, NULL, &src, &err), &err, "open");
	synth_must(sealed_open(src, cache, &s, &err), &err, "sealed_open");
	return s;
}

static void check_commits(struct sealed *s, const struct frames *f)
{
	struct err err = ERR_INIT;
	struct commit c;
	uint64_t n;

	assert_int_equal(sealed_n_commits(s), f->n_commits);
	for (size_t i = 0; i < f->n_commits; i++) {
		const struct commit *want = &f->commits[i];
		synth_must(sealed_get_commit(s, i, &c, &err), &err, "sealed_get_commit");
		if (c.txid != want->txid || c.time_us != want->time_us ||
		    c.n_frames != want->n_frames || c.last_frame != want->last_frame ||
		    c.n_pages != want->n_pages || c.min_pages != want->min_pages ||
		    c.flags != want->flags || !hash128_equal(c.state, want->state))
			synth_die("commit %zu is not as written", i);
		synth_must(sealed_commits_until(s, c.time_us, &n, &err), &err, "until");
		assert_int_equal(n, i + 1);
		synth_must(sealed_commits_until(s, c.time_us - 1, &n, &err), &err, "until");
		assert_int_equal(n, i);
	}
	assert_int_equal(sealed_get_commit(s, f->n_commits, &c, &err), -ERR_NOT_FOUND);
	synth_must(sealed_commits_until(s, INT64_MAX, &n, &err), &err, "until");
	assert_int_equal(n, f->n_commits);
	synth_must(sealed_commits_until(s, 0, &n, &err), &err, "until");
	assert_int_equal(n, 0);
}

static void check_entries(struct sealed *s, const struct frames *f)
{
	struct err err = ERR_INIT;
	struct frame_entry e, before = {0, 0};

	for (size_t i = 0; i < f->n; i++, before = e) {
		synth_must(sealed_get_entry(s, i, &e, &err), &err, "sealed_get_entry");
		assert_true(e.pgno > before.pgno ||
		            (e.pgno == before.pgno && e.frame > before.frame));
		assert_int_equal(f->pgno[e.frame - 1], e.pgno);
	}
	assert_int_equal(sealed_get_entry(s, f->n, &e, &err), -ERR_NOT_FOUND);
}

static void check_find(struct sealed *s, const struct frames *f, uint32_t pgno, uint64_t max)
{
	struct err err = ERR_INIT;
	uint64_t got, want = max < f->n ? max : f->n;

	while (want > 0 && f->pgno[want - 1] != pgno)
		want--;
	synth_must(sealed_find_frame(s, pgno, max, &got, &err), &err, "sealed_find_frame");
	if (got != want)
		synth_die("page %u up to %llu: frame %llu, not %llu", pgno, (unsigned long long)max,
		          (unsigned long long)got, (unsigned long long)want);
}

static void check_table(int dir, const struct frames *f, uint32_t page_size)
{
	struct object_name n = f->name;
	char name[OBJECT_NAME_MAX], command[600];
	size_t len;

	n.type = OBJECT_COMMITS;
	object_name_format(&n, name);
	snprintf(command, sizeof(command), "gunzip -c < /proc/self/fd/%d/%s", dir, name);
	cleanup_free uint8_t *text = output_of(command, &len);
	struct buf want = BUF_INIT(SIZE_MAX / 2);
	for (size_t i = 0; i < f->n_commits; i++) {
		char when[TIME_STR_MAX];
		time_format(f->commits[i].time_us, when);
		if (buf_printf(&want, NULL, "%" PRIu64 " %s %" PRIu64 "%s\n", f->commits[i].txid,
		               when, 32 + f->commits[i].last_frame * (24 + (uint64_t)page_size),
		               f->commits[i].flags & COMMIT_UNSETTLED ? " unsettled" : "") < 0)
			synth_die("no memory");
	}
	assert_int_equal(len, want.len);
	assert_memory_equal(text, want.data, len);
	buf_release(&want);
}

static void test_find_all(void **state)
{
	struct rng r = {test_seed()};
	struct cache *cache;
	struct err err = ERR_INIT;

	synth_must(cache_new(1 << 22, &cache, &err), &err, "cache_new");
	for (unsigned i = 0; i < 6; i++) {
		cleanup_free char *root = test_folder();
		int dir = open(root, O_RDONLY | O_DIRECTORY);
		struct frames f;
		make(dir, &r, &f, 60, 6, 512u << i, 20);
		struct sealed *s = open_sealed(dir, f.file, cache);
		for (uint32_t p = 1; p <= 21; p++)
			for (uint64_t max = 0; max <= f.n + 1; max++)
				check_find(s, &f, p, max);
		check_find(s, &f, UINT32_MAX, UINT64_MAX);
		check_find(s, &f, 1, UINT64_MAX);
		check_commits(s, &f);
		check_entries(s, &f);
		check_table(dir, &f, 512u << i);
		sealed_free(s);
		free_frames(&f);
		close(dir);
		test_remove(root);
	}
	cache_free(cache);
}

/* Several leaves of each kind, and exactly full ones. */
static void test_leaves(void **state)
{
	static const size_t counts[] = {1023, 1024, 1025, 2048, 5000};
	struct rng r = {test_seed()};
	struct cache *cache;
	struct err err = ERR_INIT;

	synth_must(cache_new(1 << 22, &cache, &err), &err, "cache_new");
	for (size_t i = 0; i < sizeof(counts) / sizeof(*counts); i++) {
		cleanup_free char *root = test_folder();
		int dir = open(root, O_RDONLY | O_DIRECTORY);
		struct frames f;
		make(dir, &r, &f, counts[i], i % 2 ? 1 : 3, 512, i % 2 ? 7 : 5000);
		struct sealed *s = open_sealed(dir, f.file, cache);
		assert_memory_equal(&sealed_get_info(s)->pos.frame, &(uint64_t){3}, 8);
		check_commits(s, &f);
		check_entries(s, &f);
		for (unsigned k = 0; k < 3000; k++)
			check_find(s, &f, 1 + (uint32_t)rng_below(&r, i % 2 ? 8 : 5002),
			           rng_below(&r, f.n + 2));
		check_table(dir, &f, 512);
		/* The content, whole and by pieces. */
		size_t len = 32 + f.n * 536;
		cleanup_free uint8_t *wal = malloc(len), *part = malloc(len);
		synth_must(sealed_read_content(s, 0, wal, len, &err), &err, "read");
		for (size_t k = 0; k < f.n; k++) {
			assert_int_equal(load_be32(wal + 32 + k * 536), f.pgno[k]);
			assert_memory_equal(wal + 32 + k * 536 + 24, f.pages + k * 512, 512);
		}
		for (unsigned k = 0; k < 50; k++) {
			size_t at = (size_t)rng_below(&r, len),
			       m = (size_t)rng_below(&r, len - at + 1);
			synth_must(sealed_read_content(s, at, part, m, &err), &err, "read");
			assert_memory_equal(part, wal + at, m);
		}
		assert_int_equal(sealed_read_content(s, len, part, 1, &err), -ERR_DAMAGED);
		sealed_free(s);
		free_frames(&f);
		close(dir);
		test_remove(root);
	}
	cache_free(cache);
}

/* An unfinished object leaves nothing behind. */
static void test_abandoned(void **state)
{
	cleanup_free char *root = test_folder();
	cleanup_fd int dir = open(root, O_RDONLY | O_DIRECTORY);
	struct err err = ERR_INIT;
	struct sealed_writer *w;
	struct snapshot_writer *sw;
	struct sealed_options o = {.kind = SEALED_SEGMENT,
	                           .page_size = 512,
	                           .lineage = 1,
	                           .first_txid = 1,
	                           .level = 1};
	uint8_t page[512] = {0};

	synth_must(sealed_create(dir, &o, &w, &err), &err, "sealed_create");
	synth_must(sealed_frame(w, 1, 1, page, &err), &err, "sealed_frame");
	sealed_writer_free(w);
	synth_must(snapshot_create(dir, "x.tmp", 512, 1, &sw, &err), &err, "snapshot_create");
	synth_must(snapshot_append(sw, page, 512, &err), &err, "append");
	snapshot_writer_free(sw);
	assert_int_equal(rmdir(root), 0);
	test_remove(root);
}

/* A database past the lock page: no commit holds it, and it reads as zeros. */
static void test_lock_page(void **state)
{
	for (unsigned i = 0; i < 2; i++) {
		cleanup_free char *root = test_folder();
		uint32_t size = i ? 4096 : 65536, lock = lock_page(size);
		const struct synth_options o = {
		        .seed = 1, .page_size = size, .max_pages = 3, .max_frames = 3, .level = 1};
		struct synth *s = synth_new(root, "x.db", &o);
		struct synth_page *f[] = {synth_page(s, 1, NULL), synth_page(s, lock - 1, NULL),
		                          synth_page(s, lock + 1, NULL),
		                          synth_page(s, lock + 2, NULL)};
		struct err err = ERR_INIT;
		struct archive *a;
		struct history *h;
		struct view *v;
		cleanup_free uint8_t *page = malloc(size);

		synth_commit(s, 1, f, 1, 0);
		synth_publish(s);
		synth_snapshot(s, 1, 1);
		/* Pages that lay behind a smaller size and never came back are zeros, too: so that
		 * this needs no gigabyte. */
		synth_commit(s, lock + 2, f, 4, 0);
		synth_cut(s);
		if (i)
			synth_seal(s, 1, 2, false);
		synth_must(archive_open(root, NULL, &a, &err), &err, "archive_open");
		synth_must(history_get(a, "x.db", &h, &err), &err, "history_get");
		synth_must(view_open(h, 2, &v, &err), &err, "view_open");
		assert_true(view_size(v) == (uint64_t)(lock + 2) * size);
		for (uint32_t p = lock - 2; p <= lock + 2; p++) {
			struct synth_page *want = p == lock - 1 ? f[1]
			                          : p > lock    ? f[p - lock + 1]
			                                        : NULL;
			synth_must(view_page(v, p, page, &err), &err, "view_page");
			for (uint32_t k = 0; k < size; k++)
				assert_int_equal(page[k], want ? want->data[k] : 0);
		}
		assert_int_equal(view_page(v, lock + 3, page, &err), -ERR_NOT_FOUND);
		view_free(v);
		history_put(h);
		archive_free(a);
		synth_free(s);
		test_remove(root);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_find_all),
	        cmocka_unit_test(test_leaves),
	        cmocka_unit_test(test_abandoned),
	        cmocka_unit_test(test_lock_page),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
