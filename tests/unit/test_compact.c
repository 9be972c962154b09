/* SPDX-License-Identifier: Apache-2.0 */
/* Upkeep changes nothing of what was: every view, before, in between and after. */
#include "engine/compact/compact.h"

#include "engine/base/log.h"
#include "tests/lib/synth.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static _Atomic bool stop;

static size_t deepest(const struct synth *s, struct history *h)
{
	size_t most = 0;

	for (uint64_t t = 1; t <= s->n_states; t++) {
		struct view *v;
		if (!synth_viewable(s, t) || view_open(h, t, &v, NULL) < 0)
			continue;
		most = view_depth(v) > most ? view_depth(v) : most;
		view_free(v);
	}
	return most;
}

/* Does all there is to do; compares everything after every `every` jobs. */
static void upkeep(struct synth *s, unsigned every)
{
	struct archive *a;
	struct history *h;
	struct compactor *c;
	struct err err = ERR_INIT;
	bool did = true;

	synth_must(archive_open(s->root, NULL, &a, &err), &err, "archive_open");
	synth_must(history_get(a, "x.db", &h, &err), &err, "history_get");
	synth_must(compactor_new(s->root, "x.db", &c, &err), &err, "compactor_new");
	for (unsigned i = 0; did; i++) {
		if (i == 1000)
			synth_die("upkeep finds no end");
		synth_must(compactor_step(c, &stop, &did, &err), &err, "compactor_step");
		synth_generation(s); /* as the recorder does for it */
		if (i % every == 0)
			synth_compare_all(s, h);
	}
	synth_compare_all(s, h);
	compactor_free(c);
	history_put(h);
	archive_free(a);
}

static void test_any_history(void **state)
{
	uint64_t seed = test_seed();

	for (unsigned i = 0; i < test_rounds(20); i++) {
		cleanup_free char *root = test_folder();
		const struct synth_options o = {.seed = seed + i,
		                                .page_size = 512u << (i % 4),
		                                .max_pages = 40,
		                                .max_frames = 6,
		                                .level = 1,
		                                .torn_batches = i % 2};
		struct synth *s = synth_new(root, "x.db", &o);

		fprintf(stderr, "history %llu\n", (unsigned long long)o.seed);
		for (unsigned k = 0; k < 3; k++) {
			synth_random_history(s, getenv("ASOF_TEST_SHORT") ? 20 : 60);
			if (k % 2)
				synth_cut(s);
			upkeep(s, 3);
			for (size_t n = s->n_objects;
			     n-- > 0;) /* what upkeep removed or replaced */
				if (s->objects[n].name.type == OBJECT_GROWING ||
				    s->objects[n].name.type == OBJECT_SEALED)
					memmove(&s->objects[n], &s->objects[n + 1],
					        (--s->n_objects - n) * sizeof(s->objects[0]));
		}
		synth_free(s);
		test_remove(root);
	}
}

/* However long the history, a view has few objects over its base. */
static void test_depth(void **state)
{
	cleanup_free char *root = test_folder();
	const struct synth_options o = {.seed = test_seed(),
	                                .page_size = 512,
	                                .max_pages = 300,
	                                .max_frames = 5,
	                                .level = 1};
	struct synth *s = synth_new(root, "x.db", &o);
	struct err err = ERR_INIT;
	struct compactor *c;
	struct archive *a;
	struct history *h;
	size_t worst = 0;
	bool did;

	synth_must(archive_open(root, NULL, &a, &err), &err, "archive_open");
	synth_must(history_get(a, "x.db", &h, &err), &err, "history_get");
	synth_must(compactor_new(root, "x.db", &c, &err), &err, "compactor_new");
	for (unsigned i = 0; i < test_rounds(100); i++) {
		for (unsigned k = 0; k < 5; k++)
			synth_random_commit(s);
		synth_cut(s);
		if (i == 0)
			synth_snapshot(s, 2, 2);
		do {
			synth_must(compactor_step(c, &stop, &did, &err), &err, "compactor_step");
			synth_generation(s);
		} while (did);
		size_t d = i % 10 == 9 ? deepest(s, h) : 0;
		worst = d > worst ? d : worst;
	}
	synth_compare_all(s, h);
	printf("at most %zu objects over a base\n", worst);
	assert_true(worst <= 8);
	compactor_free(c);
	history_put(h);
	archive_free(a);
	synth_free(s);
	test_remove(root);
}

/*
 * A segment that its writer began after the head was read: the folder shows it, with whole batches,
 * and the head tells nothing of it yet.  It is not closed, so it is neither sealed nor removed.
 */
static void test_begun_behind_the_head(void **state)
{
	cleanup_free char *root = test_folder();
	const struct synth_options o = {.seed = test_seed(),
	                                .page_size = 512,
	                                .max_pages = 40,
	                                .max_frames = 6,
	                                .level = 1};
	struct synth *s = synth_new(root, "x.db", &o);
	cleanup_free struct history_object *objects = NULL;
	uint8_t page[512] = {1};
	struct err err = ERR_INIT;
	struct grow_writer *w;
	struct archive *a;
	struct history *h;
	size_t n, seen = 0;

	for (unsigned k = 0; k < 3; k++) {
		for (unsigned i = 0; i < 5; i++)
			synth_random_commit(s);
		synth_cut(s);
	}
	uint64_t first = s->n_states + 1;
	struct commit c = {.txid = first,
	                   .time_us = s->states[s->n_states - 1].commit.time_us + 1,
	                   .n_pages = 1};
	const struct source_position pos = {.salt1 = 1, .salt2 = 1, .frame = 1};
	synth_must(grow_create(s->segment_fd, s->lineage, first, 512, 1, &w, &err), &err, "create");
	synth_must(grow_frame(w, 1, 1, page, &err), &err, "frame");
	synth_must(grow_commit(w, &c, &err), &err, "commit");
	synth_must(grow_end_batch(w, &pos, true, &err), &err, "batch");
	synth_must(grow_sync(w, false, &err), &err, "sync");

	synth_must(archive_open(root, NULL, &a, &err), &err, "archive_open");
	synth_must(history_get(a, "x.db", &h, &err), &err, "history_get");
	for (unsigned round = 0; round < 2; round++) {
		free(take_ptr(objects));
		synth_must(history_objects(h, &objects, &n, &err), &err, "history_objects");
		for (size_t i = 0; i < n; i++) {
			if (objects[i].first_txid != first)
				continue;
			assert_true(objects[i].current);
			seen++;
		}
		/* The second round: after upkeep did all that it finds to do. */
		assert_int_equal(seen, round + 1);
		if (round == 0)
			upkeep(s, 1000);
		history_relist(h);
	}
	history_put(h);
	archive_free(a);
	grow_writer_free(w);
	synth_free(s);
	test_remove(root);
}

/* A patient compactor leaves so many unsealed segments alone, and none beyond. */
static void test_patience(void **state)
{
	cleanup_free char *root = test_folder();
	const struct synth_options o = {.seed = test_seed(),
	                                .page_size = 512,
	                                .max_pages = 40,
	                                .max_frames = 6,
	                                .level = 1};
	struct synth *s = synth_new(root, "x.db", &o);
	struct compact_stats stats;
	struct err err = ERR_INIT;
	struct compactor *c;
	bool did;

	synth_must(compactor_new(root, "x.db", &c, &err), &err, "compactor_new");
	compactor_set_patience(c, 4);
	for (unsigned n = 1; n <= 4; n++) {
		synth_random_commit(s);
		synth_cut(s);
		synth_must(compactor_step(c, &stop, &did, &err), &err, "compactor_step");
		compactor_get_stats(c, &stats);
		assert_int_equal(stats.unsealed, n);
		assert_true(stats.deferred);
		assert_false(did);
	}
	synth_snapshot(s, 2, 2);
	synth_random_commit(s);
	synth_cut(s);
	synth_must(compactor_step(c, &stop, &did, &err), &err, "compactor_step");
	compactor_get_stats(c, &stats);
	assert_false(stats.deferred);
	assert_true(did);
	compactor_free(c);
	synth_free(s);
	test_remove(root);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_any_history),
	        cmocka_unit_test(test_depth),
	        cmocka_unit_test(test_begun_behind_the_head),
	        cmocka_unit_test(test_patience),
	};
	log_set_level(LOG_WARN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
