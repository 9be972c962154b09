/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a growing segment's reader keeps in memory (archive/commit_list.h, archive/runs.h) answers as
 * plain arrays of the same do, however it was added and cut, and takes a part of their bytes.
 */
#include "engine/archive/commit_list.h"
#include "engine/archive/runs.h"
#include "tests/lib/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

/* ---- commits ---- */

#define COMMITS_MAX 4000u

static struct commit next_commit(struct rng *rng, const struct commit *before)
{
	struct commit c = *before;

	c.txid++;
	c.n_frames = 1 + rng_below(rng, rng_chance(rng, 5) ? 100000 : 6);
	c.last_frame += c.n_frames;
	c.time_us += (int64_t)(rng_chance(rng, 30) ? 0 : rng_below(rng, 5000000));
	c.not_before_us = rng_chance(rng, 50) ? 0 : c.time_us - (int64_t)rng_below(rng, 1000);
	c.n_pages = 1 + (uint32_t)rng_below(rng, rng_chance(rng, 2) ? UINT32_MAX - 1 : 300);
	c.min_pages = c.n_pages < before->min_pages ? c.n_pages : before->min_pages;
	c.flags = (uint32_t)rng_below(rng, COMMIT_FLAGS_KNOWN + 1);
	c.state = c.flags & COMMIT_NO_STATE ? (struct hash128){0, 0}
	                                    : (struct hash128){rng_next(rng), rng_next(rng)};
	return c;
}

static void assert_same(const struct commit *a, const struct commit *b)
{
	assert_true(a->txid == b->txid && a->time_us == b->time_us &&
	            a->not_before_us == b->not_before_us && a->n_frames == b->n_frames &&
	            a->last_frame == b->last_frame && a->n_pages == b->n_pages &&
	            a->min_pages == b->min_pages && a->flags == b->flags &&
	            hash128_equal(a->state, b->state));
}

static size_t until(const struct commit *all, size_t n, int64_t time_us)
{
	size_t i = 0;

	while (i < n && all[i].time_us <= time_us)
		i++;
	return i;
}

static void look_at_commits(struct rng *rng, const struct commit_list *l, const struct commit *all)
{
	for (unsigned k = 0; k < 20 && l->n > 0; k++) {
		size_t i = (size_t)rng_below(rng, l->n), n = 1 + (size_t)rng_below(rng, l->n);
		struct commit c = commit_list_get(l, i);
		int64_t t = c.time_us + (int64_t)rng_below(rng, 3) - 1;
		assert_same(&c, &all[i]);
		assert_int_equal(commit_list_until(l, n, t), until(all, n, t));
	}
	assert_int_equal(commit_list_until(l, l->n, INT64_MAX), l->n);
	assert_int_equal(commit_list_until(l, l->n, 0), 0);
	assert_int_equal(commit_list_until(l, 0, INT64_MAX), 0);
}

static void test_commits(void **state)
{
	struct rng rng = {test_seed()};
	struct commit *all = calloc(COMMITS_MAX, sizeof(*all));
	struct commit first = {.txid = 7, .time_us = 1700000000000000, .min_pages = UINT32_MAX};

	assert_non_null(all);
	for (unsigned round = 0; round < test_rounds(20); round++) {
		struct commit_list l = {0};
		while (l.n < COMMITS_MAX && !rng_chance(&rng, 1)) {
			size_t more = (size_t)rng_below(&rng, rng_chance(&rng, 20) ? 400 : 70);
			for (; more > 0 && l.n < COMMITS_MAX; more--) {
				struct commit c = next_commit(&rng, l.n ? &all[l.n - 1] : &first);
				all[l.n] = c;
				assert_int_equal(commit_list_add(&l, &c, NULL), 0);
			}
			if (rng_chance(&rng, 30)) /* a record that was not whole */
				commit_list_cut(&l, (size_t)rng_below(&rng, l.n + 1));
			look_at_commits(&rng, &l, all);
		}
		for (size_t i = 0; i < l.n; i++) {
			struct commit c = commit_list_get(&l, i);
			assert_same(&c, &all[i]);
		}
		commit_list_release(&l);
	}
	free(all);
}

/* ---- pages ---- */

#define FRAMES_MAX 20000u

static uint64_t last_frame_of(const uint32_t *page_of, uint64_t n, uint32_t pgno,
                              uint64_t max_frame)
{
	uint64_t f = max_frame < n ? max_frame : n;

	while (f > 0 && page_of[f] != pgno)
		f--;
	return f;
}

static void look_at_pages(struct rng *rng, const struct frame_runs *r, const uint32_t *page_of,
                          uint64_t n, uint32_t pages)
{
	struct bitset found = {0}, expected = {0};
	uint64_t max_frame = rng_below(rng, n + 2);
	uint32_t max_pgno = (uint32_t)rng_below(rng, pages + 2);

	for (unsigned k = 0; k < 50; k++) {
		uint32_t pgno = 1 + (uint32_t)rng_below(rng, pages + 1);
		uint64_t max = rng_chance(rng, 20) ? UINT64_MAX : rng_below(rng, n + 2);
		assert_true(frame_runs_find(r, pgno, max) == last_frame_of(page_of, n, pgno, max));
	}
	assert_int_equal(frame_runs_pages(r, max_frame, max_pgno, &found, NULL), 0);
	for (uint64_t f = 1; f <= n && f <= max_frame; f++)
		if (page_of[f] <= max_pgno)
			assert_int_equal(bitset_add(&expected, page_of[f], NULL), 0);
	for (uint32_t p = 0; p <= pages + 1; p++)
		assert_int_equal(bitset_has(&found, p), bitset_has(&expected, p));
	bitset_release(&found);
	bitset_release(&expected);
}

static size_t index_bytes(const struct frame_runs *r)
{
	size_t bytes = 0;

	for (size_t i = 0; i < r->count; i++)
		bytes += r->run[i].bytes.cap + r->run[i].cap_blocks * sizeof(struct frame_block);
	return bytes;
}

static void fill(struct rng *rng, uint32_t pages, size_t run_max)
{
	struct frame_runs r = {0};
	uint32_t *page_of = calloc(FRAMES_MAX + 1, sizeof(*page_of));
	struct frame_entry *e = calloc(run_max, sizeof(*e));
	uint64_t n = 0;

	assert_true(page_of && e);
	for (unsigned k = 0; n + run_max <= FRAMES_MAX; k++) {
		size_t m = 1 + (size_t)rng_below(rng, run_max);
		for (size_t i = 0; i < m; i++) {
			page_of[++n] = 1 + (uint32_t)rng_below(rng, pages);
			e[i] = (struct frame_entry){page_of[n], n};
		}
		frame_run_sort(e, m);
		assert_int_equal(frame_runs_add(&r, e, m, NULL), 0);
		if (k % 50 == 0)
			look_at_pages(rng, &r, page_of, n, pages);
	}
	look_at_pages(rng, &r, page_of, n, pages);
	assert_true(r.count <= 15); /* log2(FRAMES_MAX) */
	if (run_max > 1)            /* else some runs of one entry are most of it */
		assert_true(index_bytes(&r) < n * sizeof(*e) / 2);
	frame_runs_release(&r);
	assert_int_equal(frame_runs_find(&r, page_of[1], n), 0);
	free(page_of);
	free(e);
}

static void test_pages(void **state)
{
	static const uint32_t pages[] = {1, 40, 3000};
	static const size_t runs[] = {1, 64, 65, 700};
	struct rng rng = {test_seed()};

	for (unsigned round = 0; round < test_rounds(10); round++)
		fill(&rng, pages[rng_below(&rng, 3)], runs[rng_below(&rng, 4)]);
	struct frame_runs none = {0};
	assert_int_equal(frame_runs_add(&none, NULL, 0, NULL), 0);
	assert_int_equal(frame_runs_find(&none, 1, UINT64_MAX), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_commits),
	        cmocka_unit_test(test_pages),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
