/* SPDX-License-Identifier: Apache-2.0 */
/* Growing segments: written, read while they grow, cut anywhere and taken up again. */
#include "engine/archive/grow_i.h"
#include "tests/lib/memory.h"
#include "tests/lib/synth.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/vfs.h>

#include <cmocka.h>

#define NAME "00000001-0000000000000005.wal.gz"
#define FIRST 5

/* What was written: a commit is durable from `length` on. */
struct written {
	struct commit c;
	uint64_t length;
	struct source_position pos;
};

struct book {
	struct rng r;
	uint32_t page_size;
	struct written *commits;
	size_t n_commits, n_closed;
	uint8_t *pages; /* content of all frames */
	uint32_t *pgno;
	size_t n_frames, max_frames;
};

static struct book new_book(uint64_t seed, uint32_t page_size, size_t max_frames)
{
	struct book b = {.r = {seed}, .page_size = page_size, .max_frames = max_frames};

	b.commits = calloc(max_frames + 1, sizeof(*b.commits));
	b.pages = calloc(max_frames + 1, page_size);
	b.pgno = calloc(max_frames + 1, sizeof(*b.pgno));
	return b;
}

static void free_book(struct book *b)
{
	free(b->commits);
	free(b->pages);
	free(b->pgno);
}

static struct source_position any_position(struct rng *r)
{
	return (struct source_position){(uint32_t)rng_next(r),
	                                (uint32_t)rng_next(r),
	                                rng_next(r) >> 1,
	                                {(uint32_t)rng_next(r), (uint32_t)rng_next(r)},
	                                (uint32_t)rng_next(r)};
}

static void assert_position(const struct source_position *a, const struct source_position *b)
{
	uint8_t x[SOURCE_POSITION_SIZE], y[SOURCE_POSITION_SIZE];

	source_position_put(x, a);
	source_position_put(y, b);
	assert_memory_equal(x, y, sizeof(x));
}

static void end_batch(struct book *b, struct grow_writer *w, bool closes)
{
	struct err err = ERR_INIT;
	struct source_position pos = any_position(&b->r);

	synth_must(grow_end_batch(w, &pos, closes, &err), &err, "grow_end_batch");
	while (closes && b->n_closed < b->n_commits) {
		b->commits[b->n_closed].length = grow_length(w);
		b->commits[b->n_closed++].pos = pos;
	}
}

static void nearly_again(struct book *b, size_t f)
{
	size_t before = f - 1 - (size_t)rng_below(&b->r, f < 9 ? f : 9);
	uint8_t *page = b->pages + f * b->page_size;

	b->pgno[f] = b->pgno[before];
	memcpy(page, b->pages + before * b->page_size, b->page_size);
	for (uint64_t n = rng_below(&b->r, 4); n > 0; n--)
		page[rng_below(&b->r, b->page_size)] = (uint8_t)rng_next(&b->r);
}

static void one_commit(struct book *b, struct grow_writer *w, size_t n_frames, bool torn)
{
	struct err err = ERR_INIT;
	struct commit c = {
	        .txid = FIRST + b->n_commits,
	        .time_us = (b->n_commits ? b->commits[b->n_commits - 1].c.time_us : 1000) + 1 +
	                   (int64_t)rng_below(&b->r, 1000000),
	        .n_pages = 1 + (uint32_t)rng_below(&b->r, 100),
	        .flags = (uint32_t)rng_below(&b->r, COMMIT_FLAGS_KNOWN + 1),
	};

	for (size_t i = 0; i < n_frames; i++) {
		size_t f = b->n_frames++;
		uint8_t *page = b->pages + f * b->page_size;
		assert_true(b->n_frames <= b->max_frames);
		for (uint32_t k = 0; k < b->page_size; k += 8)
			store_le64(page + k, rng_chance(&b->r, 20) ? rng_next(&b->r) : f);
		b->pgno[f] = 1 + (uint32_t)rng_below(&b->r, rng_chance(&b->r, 5) ? UINT32_MAX : 60);
		if (f > 0 &&
		    rng_chance(&b->r, 40)) /* a page that was written before, a little else */
			nearly_again(b, f);
		if (grow_batch_full(w) || (torn && rng_chance(&b->r, 10)))
			end_batch(b, w, false);
		synth_must(grow_frame(w, b->pgno[f], i + 1 == n_frames ? c.n_pages : 0, page, &err),
		           &err, "frame");
	}
	if (!(c.flags & COMMIT_NO_STATE))
		c.state = (struct hash128){rng_next(&b->r), rng_next(&b->r)};
	if (rng_chance(&b->r, 50))
		c.not_before_us = c.time_us - (int64_t)rng_below(&b->r, 1000);
	synth_must(grow_commit(w, &c, &err), &err, "grow_commit");
	b->commits[b->n_commits++].c = c;
}

static void some_commits(struct book *b, struct grow_writer *w, size_t n, bool torn)
{
	for (size_t i = 0; i < n; i++) {
		one_commit(b, w, 1 + (size_t)rng_below(&b->r, 4), torn);
		if (rng_chance(&b->r, 40))
			end_batch(b, w, true);
	}
	end_batch(b, w, true);
}

static uint64_t find(const struct book *b, uint32_t pgno, uint64_t max_frame, size_t n_frames)
{
	uint64_t f = max_frame < n_frames ? max_frame : n_frames;

	while (f > 0 && b->pgno[f - 1] != pgno)
		f--;
	return f;
}

/* The reader tells what the book tells of its first n commits. */
static void compare(struct book *b, struct grow_reader *r, size_t n)
{
	struct err err = ERR_INIT;
	uint64_t frame_size = wal_frame_size(b->page_size);
	size_t n_frames = n ? (size_t)b->commits[n - 1].c.last_frame : 0;
	struct commit c;

	assert_int_equal(grow_n_commits(r), n);
	assert_false(grow_get_commit(r, n, &c));
	for (size_t i = 0; i < n; i++) {
		assert_true(grow_get_commit(r, i, &c));
		const struct commit *want = &b->commits[i].c;
		if (c.txid != want->txid || c.time_us != want->time_us ||
		    c.not_before_us != want->not_before_us || c.n_frames != want->n_frames ||
		    c.last_frame != want->last_frame || c.n_pages != want->n_pages ||
		    c.min_pages != want->min_pages || c.flags != want->flags ||
		    !hash128_equal(c.state, want->state))
			synth_die("commit %zu is not as written", i);
		assert_int_equal(grow_commits_until(r, c.time_us), i + 1);
		assert_int_equal(grow_commits_until(r, c.time_us - 1), i);
	}
	if (n == 0)
		return;
	cleanup_free uint8_t *wal = malloc(WAL_HEADER_SIZE + n_frames * frame_size);
	synth_must(grow_read_content(r, 0, wal, WAL_HEADER_SIZE + n_frames * frame_size, &err),
	           &err, "content");
	struct wal_header h;
	synth_must(wal_header_parse(wal, WAL_HEADER_SIZE, &h, &err), &err, "WAL header");
	assert_int_equal(h.page_size, b->page_size);
	struct wal_cksum sum = h.cksum;
	for (size_t f = 0; f < n_frames; f++) {
		const uint8_t *p = wal + wal_frame_offset(f + 1, b->page_size);
		wal_cksum_add(&sum, p, 8, false);
		wal_cksum_add(&sum, p + 24, b->page_size, false);
		if (load_be32(p) != b->pgno[f] || load_be32(p + 8) != h.salt1 ||
		    load_be32(p + 12) != h.salt2 || load_be32(p + 16) != sum.s0 ||
		    load_be32(p + 20) != sum.s1 ||
		    memcmp(p + 24, b->pages + f * b->page_size, b->page_size) != 0)
			synth_die("frame %zu is not as written", f + 1);
	}
	for (size_t i = 0; i < n; i++)
		assert_int_equal(
		        load_be32(wal + wal_frame_offset(b->commits[i].c.last_frame, b->page_size) +
		                  4),
		        b->commits[i].c.n_pages);
	for (unsigned i = 0; i < 300; i++) {
		uint32_t pgno = 1 + (uint32_t)rng_below(&b->r, 62);
		uint64_t max = rng_below(&b->r, n_frames + 2);
		assert_int_equal(grow_find_frame(r, pgno, max), find(b, pgno, max, n_frames));
	}
}

static struct cache *new_cache(void)
{
	struct cache *c;
	struct err err = ERR_INIT;

	synth_must(cache_new(1 << 20, &c, &err), &err, "cache_new");
	return c;
}

static struct grow_reader *open_reader(int dir, struct cache *cache)
{
	struct source *src;
	struct grow_reader *r;
	struct err err = ERR_INIT;

	synth_must(source_open_file(dir, NAME, NULL, &src, &err), &err, "open");
	synth_must(grow_open(src, cache, &r, &err), &err, "grow_open");
	return r;
}

static void compare_file(struct book *b, int dir, size_t n)
{
	struct cache *cache = new_cache();
	cleanup_grow_reader struct grow_reader *r = open_reader(dir, cache);
	struct err err = ERR_INIT;
	uint64_t len;

	synth_must(grow_refresh_all(r, &len, &err), &err, "grow_refresh_all");
	if (n)
		assert_int_equal(len, b->commits[n - 1].length);
	compare(b, r, n);
	grow_free(take_ptr(r));
	cache_free(cache);
}

static void test_write_read(void **state)
{
	for (unsigned i = 0; i < 16; i++) {
		cleanup_free char *root = test_folder();
		cleanup_fd int dir = open(root, O_RDONLY | O_DIRECTORY);
		struct book b = new_book(test_seed() + i, 512u << (i % 8), 600);
		struct grow_writer *w;
		struct err err = ERR_INIT;

		synth_must(
		        grow_create(dir, 1, FIRST, b.page_size, i < 8 ? 0 : (int)(i % 4), &w, &err),
		        &err, "grow_create");
		compare_file(&b, dir, 0);
		some_commits(&b, w, 50, i % 2);
		compare_file(&b, dir, 50);
		struct grow_writer *other;
		assert_int_equal(grow_create(dir, 1, FIRST, 512, 1, &other, &err), -ERR_EXISTS);
		grow_writer_free(w);
		struct commit last;
		struct source_position pos;
		for (unsigned k = 0; k < 3; k++) {
			synth_must(grow_resume(dir, NAME, 0, (int)(i % 2), &w, &last, &pos, &err),
			           &err, "grow_resume");
			assert_int_equal(last.txid, FIRST + b.n_commits - 1);
			assert_position(&pos, &b.commits[b.n_commits - 1].pos);
			some_commits(&b, w, 10, i % 2);
			grow_writer_free(w);
		}
		compare_file(&b, dir, 80);
		free_book(&b);
		test_remove(root);
	}
}

/*
 * A disk that is full just then leaves no name behind: when there is space again the same segment
 * is begun.  (It did, and every later try found the name taken until asof was started again.)
 */
static void test_create_without_space(void **state)
{
	cleanup_free char *root = test_folder();
	cleanup_fd int dir = open(root, O_RDONLY | O_DIRECTORY);
	struct grow_writer *w;
	struct err err = ERR_INIT;
	struct rlimit before;

	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	for (rlim_t bytes = 0; bytes < GROW_HEADER_SIZE; bytes += GROW_HEADER_SIZE / 3) {
		assert_int_equal(setrlimit(RLIMIT_FSIZE, &(struct rlimit){bytes, before.rlim_max}),
		                 0);
		int rc = grow_create(dir, 1, FIRST, 512, 1, &w, &err);
		assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
		assert_int_not_equal(rc, 0);
		assert_int_not_equal(rc, -ERR_EXISTS);
		assert_int_equal(faccessat(dir, NAME, F_OK, 0), -1);
	}
	synth_must(grow_create(dir, 1, FIRST, 512, 1, &w, &err), &err, "grow_create");
	grow_writer_free(w);
	test_remove(root);
}

/* Commits recovered from the file's first `cut` bytes. */
static size_t whole_at(const struct book *b, uint64_t cut)
{
	size_t n = 0;

	while (n < b->n_closed && b->commits[n].length <= cut)
		n++;
	return n;
}

/* Cut at every byte: what was whole is there, nothing else is, and writing goes on. */
static void test_every_cut(void **state)
{
	cleanup_free char *root = test_folder();
	cleanup_fd int dir = open(root, O_RDONLY | O_DIRECTORY);
	struct book b = new_book(test_seed(), 512, 200);
	struct err err = ERR_INIT;
	struct grow_writer *w;
	struct commit last;
	struct source_position pos;
	size_t len;

	synth_must(grow_create(dir, 1, FIRST, 512, 0, &w, &err), &err, "grow_create");
	some_commits(&b, w, 12, true);
	grow_writer_free(w);
	cleanup_free uint8_t *file = read_whole(dir, NAME, &len);
	struct book kept = b;
	for (size_t cut = 0; cut <= len; cut += getenv("ASOF_TEST_SHORT") ? 29 : 1) {
		size_t n = whole_at(&kept, cut);
		uint64_t durable = n ? kept.commits[n - 1].length : 0;
		write_whole(dir, NAME, file, cut);
		int rc = grow_resume(dir, NAME, 0, 1, &w, &last, &pos, &err);
		if (cut < GROW_HEADER_SIZE) {
			assert_int_equal(rc, -ERR_DAMAGED);
			continue;
		}
		synth_must(rc, &err, "grow_resume");
		assert_int_equal(last.txid, FIRST + n - 1);
		assert_int_equal(grow_length(w), n ? durable : GROW_HEADER_SIZE);
		if (n)
			assert_position(&pos, &kept.commits[n - 1].pos);
		/* Go on, differently than before. */
		b.n_commits = b.n_closed = n;
		b.n_frames = n ? (size_t)kept.commits[n - 1].c.last_frame : 0;
		struct book saved = b;
		uint8_t *pages = malloc(b.max_frames * 512);
		uint32_t *pgnos = malloc(b.max_frames * sizeof(*pgnos));
		struct written *commits = malloc((b.max_frames + 1) * sizeof(*commits));
		memcpy(pages, b.pages, b.max_frames * 512);
		memcpy(pgnos, b.pgno, b.max_frames * sizeof(*pgnos));
		memcpy(commits, b.commits, (b.max_frames + 1) * sizeof(*commits));
		some_commits(&b, w, 3, true);
		grow_writer_free(w);
		compare_file(&b, dir, n + 3);
		memcpy(b.pages, pages, b.max_frames * 512);
		memcpy(b.pgno, pgnos, b.max_frames * sizeof(*pgnos));
		memcpy(b.commits, commits, (b.max_frames + 1) * sizeof(*commits));
		free(pages);
		free(pgnos);
		free(commits);
		b.n_commits = saved.n_commits;

		/* What the head called durable and is not there is damage, and nothing is touched. */
		write_whole(dir, NAME, file, cut);
		if (n < kept.n_closed) {
			assert_int_equal(grow_resume(dir, NAME, kept.commits[n].length, 1, &w,
			                             &last, &pos, &err),
			                 -ERR_DAMAGED);
			size_t now;
			cleanup_free uint8_t *untouched = read_whole(dir, NAME, &now);
			assert_int_equal(now, cut);
			assert_memory_equal(untouched, file, cut);
		}
	}
	free_book(&b);
	test_remove(root);
}

/* After a power failure any block behind the durable length may be missing (zeros), though later
 * ones are there: whole batches or none. */
static void test_lost_blocks(void **state)
{
	cleanup_free char *root = test_folder();
	cleanup_fd int dir = open(root, O_RDONLY | O_DIRECTORY);
	struct book b = new_book(test_seed(), 512, 400);
	struct err err = ERR_INIT;
	struct grow_writer *w;
	struct commit last;
	struct source_position pos;
	size_t len;

	synth_must(grow_create(dir, 1, FIRST, 512, 1, &w, &err), &err, "grow_create");
	some_commits(&b, w, 30, true);
	grow_writer_free(w);
	cleanup_free uint8_t *file = read_whole(dir, NAME, &len);
	for (size_t at = GROW_HEADER_SIZE; at < len; at += getenv("ASOF_TEST_SHORT") ? 331 : 13) {
		cleanup_free uint8_t *torn = malloc(len);
		memcpy(torn, file, len);
		memset(torn + at, 0, len - at < 64 ? len - at : 64);
		if (memcmp(torn, file, len) == 0)
			continue;
		write_whole(dir, NAME, torn, len);
		size_t hole = at;
		while (torn[hole] == file[hole])
			hole++;
		size_t n = whole_at(&b, hole);
		uint64_t durable = n ? b.commits[n - 1].length : GROW_HEADER_SIZE;
		synth_must(grow_resume(dir, NAME, durable, 1, &w, &last, &pos, &err), &err,
		           "grow_resume");
		if (last.txid != FIRST + n - 1)
			synth_die("a hole at %zu: %llu commits recovered, not %zu", at,
			          (unsigned long long)(last.txid - FIRST + 1), n);
		grow_writer_free(w);
		compare_file(&b, dir, n);
	}
	free_book(&b);
	test_remove(root);
}

/* A record whose payload fills its members exactly: the next begins with data. */
static void test_exact_record(void **state)
{
	unsigned exact = 0;

	for (unsigned extra = 0; extra < 7400 && exact == 0; extra++) {
		cleanup_free char *root = test_folder();
		cleanup_fd int dir = open(root, O_RDONLY | O_DIRECTORY);
		struct err err = ERR_INIT;
		struct grow_writer *w;
		uint8_t page[512] = {0};
		struct source_position pos = {0};
		struct commit c = {.time_us = 1, .flags = COMMIT_NO_STATE};

		synth_must(grow_create(dir, 1, 1, 512, 1, &w, &err), &err, "grow_create");
		for (unsigned i = 0; i < 7400; i++) {
			synth_must(grow_frame(w, 1, 1, page, &err), &err, "grow_frame");
			c.txid++;
			c.time_us += i < extra ? 200 : 100; /* a time of two bytes, or of one */
			c.n_pages = 1;
			synth_must(grow_commit(w, &c, &err), &err, "grow_commit");
		}
		synth_must(grow_end_batch(w, &pos, true, &err), &err, "end");
		uint64_t first_end = grow_length(w);
		synth_must(grow_frame(w, 1, 1, page, &err), &err, "grow_frame");
		c.txid++;
		synth_must(grow_commit(w, &c, &err), &err, "grow_commit");
		synth_must(grow_end_batch(w, &pos, true, &err), &err, "end");
		grow_writer_free(w);
		size_t len;
		cleanup_free uint8_t *file =
		        read_whole(dir, "00000001-0000000000000001.wal.gz", &len);
		/* The last member of the first record is an empty one when it was exact. */
		exact += load_le16(file + first_end - GZ_META_OVERHEAD + 14) == 0 &&
		         file[first_end - GZ_META_OVERHEAD] == 0x1f;
		struct cache *cache = new_cache();
		struct grow_reader *r;
		uint64_t got;
		synth_must(grow_open(memory_source("x", file, len), cache, &r, &err), &err,
		           "grow_open");
		synth_must(grow_refresh_all(r, &got, &err), &err, "refresh");
		assert_int_equal(grow_n_commits(r), 7401);
		grow_free(r);
		cache_free(cache);
		if (extra == 0 && !exact) { /* how far off it is: one byte for each longer time */
			uint64_t at = GROW_HEADER_SIZE, n;
			enum gz_kind kind = GZ_DATA;
			while (kind == GZ_DATA) {
				synth_must(gz_peek(file + at, len - at, &kind, &n, &err), &err,
				           "peek");
				at += kind == GZ_DATA ? n : 0;
			}
			size_t payload = (size_t)(first_end - at) - GZ_META_OVERHEAD;
			if (payload < GZ_CHUNK_MAX && GZ_CHUNK_MAX - payload < 7390)
				extra = (unsigned)(GZ_CHUNK_MAX - payload) - 2;
			else
				synth_die("a record of %zu bytes is no use here", payload);
		}
		test_remove(root);
	}
	assert_int_equal(exact, 1);
}

/* One commit of more frames than a batch holds, and batches of more frames than a run. */
static void test_giant(void **state)
{
	cleanup_free char *root = test_folder();
	cleanup_fd int dir = open(root, O_RDONLY | O_DIRECTORY);
	struct book b = new_book(test_seed(), 512, 3 * GROW_RUN_FRAMES + 100);
	struct err err = ERR_INIT;
	struct grow_writer *w;

	synth_must(grow_create(dir, 1, FIRST, 512, 0, &w, &err), &err, "grow_create");
	one_commit(&b, w, 3, false);
	one_commit(&b, w, GROW_RUN_FRAMES * 2 + 77, false);
	one_commit(&b, w, 1, false);
	one_commit(&b, w, GROW_RUN_FRAMES - 4, false);
	end_batch(&b, w, true);
	grow_writer_free(w);
	compare_file(&b, dir, 4);
	free_book(&b);
	test_remove(root);
}

/* An end that recovery will cut and overwrite is not remembered. */
static void test_open_end_forgotten(void **state)
{
	cleanup_free char *root = test_folder();
	cleanup_fd int dir = open(root, O_RDONLY | O_DIRECTORY);
	struct book b = new_book(test_seed(), 512, 100);
	struct err err = ERR_INIT;
	struct grow_writer *w;
	struct commit last;
	struct source_position pos;
	uint64_t len;

	synth_must(grow_create(dir, 1, FIRST, 512, 1, &w, &err), &err, "grow_create");
	some_commits(&b, w, 5, false);
	struct book before = b;
	one_commit(&b, w, 2, false);
	end_batch(&b, w, false); /* a commit, but no place to go on from */
	uint8_t page[512] = {9};
	synth_must(grow_frame(w, 3, 0, page, &err), &err, "grow_frame");
	end_batch(&b, w, false);
	grow_writer_free(w);
	struct cache *cache = new_cache();
	cleanup_grow_reader struct grow_reader *r = open_reader(dir, cache);
	synth_must(grow_refresh_all(r, &len, &err), &err, "refresh");
	before.r = b.r;
	b = before;
	compare(&b, r, 5);
	assert_int_equal(len, b.commits[4].length);
	synth_must(grow_resume(dir, NAME, len, 1, &w, &last, &pos, &err), &err, "grow_resume");
	some_commits(&b, w, 5, false);
	synth_must(grow_refresh(r, grow_length(w), &err), &err, "grow_refresh");
	compare(&b, r, 10);
	grow_writer_free(w);
	grow_free(take_ptr(r));
	cache_free(cache);
	free_book(&b);
	test_remove(root);
}

/* A reader in another thread follows by the published length alone. */
struct follow {
	struct grow_reader *r;
	struct book *b;
	_Atomic uint64_t durable;
	_Atomic size_t told;
	_Atomic bool stop;
	_Atomic unsigned rounds;
};

static void *follow_main(void *arg)
{
	struct follow *f = arg;
	struct err err = ERR_INIT;
	uint8_t page[24 + 512];
	struct rng rng = {3};

	while (!f->stop) {
		size_t told = f->told;
		synth_must(grow_refresh(f->r, f->durable, &err), &err, "grow_refresh");
		uint64_t n = grow_n_commits(f->r);
		struct commit c;
		if (n < told || (n > 0 && !grow_get_commit(f->r, n - 1, &c)))
			synth_die("%llu commits, %zu were told of", (unsigned long long)n, told);
		for (unsigned i = 0; n > 0 && i < 20; i++) {
			uint64_t frame = 1 + rng_below(&rng, c.last_frame);
			uint32_t pgno = f->b->pgno[frame - 1];
			if (grow_find_frame(f->r, pgno, frame) != frame)
				synth_die("frame %llu is not found", (unsigned long long)frame);
			synth_must(grow_read_content(f->r, wal_frame_offset(frame, 512), page,
			                             sizeof(page), &err),
			           &err, "read");
			if (memcmp(page + 24, f->b->pages + (frame - 1) * 512, 512) != 0)
				synth_die("frame %llu holds something else",
				          (unsigned long long)frame);
		}
		f->rounds++;
	}
	return NULL;
}

static void test_follow(void **state)
{
	cleanup_free char *root = test_folder();
	cleanup_fd int dir = open(root, O_RDONLY | O_DIRECTORY);
	struct book b = new_book(test_seed(), 512, 20000);
	struct err err = ERR_INIT;
	struct grow_writer *w;
	struct follow f = {.b = &b};
	pthread_t threads[2];

	synth_must(grow_create(dir, 1, FIRST, 512, 1, &w, &err), &err, "grow_create");
	struct cache *cache = new_cache();
	f.durable = GROW_HEADER_SIZE;
	f.r = open_reader(dir, cache);
	for (unsigned i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, follow_main, &f);
	for (unsigned i = 0; i < 1500; i++) {
		one_commit(&b, w, 1 + (size_t)rng_below(&b.r, 5), true);
		if (rng_chance(&b.r, 50)) {
			end_batch(&b, w, true);
			f.durable = grow_length(w);
			f.told = b.n_closed;
		}
	}
	f.stop = true;
	for (unsigned i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	end_batch(&b, w, true);
	synth_must(grow_refresh(f.r, grow_length(w), &err), &err, "grow_refresh");
	compare(&b, f.r, b.n_commits);
	grow_writer_free(w);
	grow_free(f.r);
	cache_free(cache);
	free_book(&b);
	test_remove(root);
}

static void test_newer(void **state)
{
	cleanup_free char *root = test_folder();
	cleanup_fd int dir = open(root, O_RDONLY | O_DIRECTORY);
	struct err err = ERR_INIT;
	struct grow_writer *w;
	struct grow_reader *r;
	struct commit last;
	struct source_position pos;
	size_t len;

	synth_must(grow_create(dir, 1, FIRST, 512, 1, &w, &err), &err, "grow_create");
	grow_writer_free(w);
	cleanup_free uint8_t *file = read_whole(dir, NAME, &len);
	uint8_t *h = file + GZ_PAYLOAD_OFFSET;
	store_le32(h + 8, 2);
	struct source *src = memory_source("thing", file, len);
	assert_int_equal(grow_open(src, NULL, &r, &err), -ERR_DAMAGED);
	store_le64(h + 48, hash64(h, 48, gz_bind(load_le64(h + 16), 0)));
	assert_int_equal(grow_open(src, NULL, &r, &err), -ERR_VERSION);
	source_free(src);
	write_whole(dir, NAME, file, len);
	assert_int_equal(grow_resume(dir, NAME, 0, 1, &w, &last, &pos, &err), -ERR_VERSION);
	test_remove(root);
}

static size_t pages_cached(int dir, size_t *ret_pages)
{
	cleanup_fd int fd = openat(dir, NAME, O_RDONLY);
	size_t len = (size_t)lseek(fd, 0, SEEK_END), page = (size_t)sysconf(_SC_PAGESIZE);
	size_t n = (len + page - 1) / page, cached = 0;
	cleanup_free unsigned char *in = calloc(n, 1);
	void *map = mmap(NULL, len, PROT_READ, MAP_SHARED, fd, 0);

	assert_true(map != MAP_FAILED);
	assert_int_equal(mincore(map, len, in), 0);
	for (size_t i = 0; i < n; i++)
		cached += in[i] & 1;
	munmap(map, len);
	*ret_pages = n;
	return cached;
}

/* What is durable leaves the page cache, and is read as it was. */
static void test_not_cached(void **state)
{
	char root[] = "/var/tmp/asof-test-XXXXXX"; /* others lie in memory */

	assert_non_null(mkdtemp(root));
	cleanup_fd int dir = open(root, O_RDONLY | O_DIRECTORY);
	struct err err = ERR_INIT;
	struct grow_writer *w;
	struct statfs fs;
	struct book b = new_book(11, 4096, 2100);
	size_t n_pages;

	assert_int_equal(fstatfs(dir, &fs), 0);
	synth_must(grow_create(dir, 1, FIRST, 4096, 0, &w, &err), &err, "grow_create");
	for (size_t i = 0; i < 2048; i++) {
		one_commit(&b, w, 1, false);
		if (i % 512 != 511)
			continue;
		end_batch(&b, w, true);
		synth_must(grow_sync(w, false, &err), &err, "grow_sync");
	}
	size_t cached = pages_cached(dir, &n_pages);
	grow_writer_free(w);
	assert_true(n_pages >= 1024);
	if (fs.f_type == EXT4_SUPER_MAGIC) /* others may not take the advice */
		assert_in_range(cached, 0, n_pages / 4);
	compare_file(&b, dir, b.n_commits);
	free_book(&b);
	test_remove(root);
}

/* Commits that write the same few pages again, as an application does that goes flat out. */
static void test_again(void **state)
{
	cleanup_free char *root = test_folder();
	cleanup_fd int dir = open(root, O_RDONLY | O_DIRECTORY);
	struct book b = new_book(test_seed(), 4096, 300);
	struct source_position pos = any_position(&b.r);
	struct err err = ERR_INIT;
	struct grow_writer *w;

	synth_must(grow_create(dir, 1, FIRST, 4096, 0, &w, &err), &err, "grow_create");
	for (uint32_t k = 0; k < 3 * 4096; k++)
		b.pages[k] = (uint8_t)rng_next(&b.r);
	for (size_t f = 0; f < 300; f++) {
		uint8_t *page = b.pages + f * 4096;
		struct commit c = {.txid = FIRST + f, .time_us = (int64_t)f + 1, .n_pages = 9};
		if (f >= 3)
			memcpy(page, page - (size_t)(3 * 4096), 4096);
		page[rng_below(&b.r, 4096)]++;
		b.pgno[f] = 1 + (uint32_t)(f % 3);
		synth_must(grow_frame(w, b.pgno[f], 9, page, &err), &err, "frame");
		synth_must(grow_commit(w, &c, &err), &err, "grow_commit");
		b.commits[b.n_commits++].c = c;
		b.n_frames++;
	}
	synth_must(grow_end_batch(w, &pos, true, &err), &err, "grow_end_batch");
	for (; b.n_closed < b.n_commits; b.n_closed++) {
		b.commits[b.n_closed].length = grow_length(w);
		b.commits[b.n_closed].pos = pos;
	}
	/* Three pages in each block of 64 KiB are written, the others told. */
	assert_true(grow_length(w) < grow_content_len(w) / 3);
	grow_writer_free(w);
	compare_file(&b, dir, 300);
	free_book(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_write_read),  cmocka_unit_test(test_every_cut),
	        cmocka_unit_test(test_lost_blocks), cmocka_unit_test(test_exact_record),
	        cmocka_unit_test(test_giant),       cmocka_unit_test(test_open_end_forgotten),
	        cmocka_unit_test(test_follow),      cmocka_unit_test(test_newer),
	        cmocka_unit_test(test_not_cached),  cmocka_unit_test(test_create_without_space),
	        cmocka_unit_test(test_again),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
