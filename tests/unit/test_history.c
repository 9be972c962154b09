/* SPDX-License-Identifier: Apache-2.0 */
/* Times to moments: before, between, after, inside of gaps; samples; what is missing. */
#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "engine/view/replay.h"
#include "tests/lib/synth.h"

#include <fcntl.h>

#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>

#include <cmocka.h>

#define FAR_US INT64_C(4000000000000000)

struct fixture {
	char *root;
	struct synth *s;
	struct archive *a;
	struct history *h;
};

static void open_fixture(struct fixture *f)
{
	struct err err = ERR_INIT;

	synth_must(archive_open(f->root, NULL, &f->a, &err), &err, "archive_open");
	synth_must(history_get(f->a, "x.db", &f->h, &err), &err, "history_get");
}

static void close_fixture(struct fixture *f)
{
	history_put(f->h);
	archive_free(f->a);
}

static void reopen(struct fixture *f)
{
	close_fixture(f);
	open_fixture(f);
}

static struct fixture new_fixture(uint64_t seed)
{
	struct fixture f = {.root = test_folder()};
	const struct synth_options o = {.seed = seed,
	                                .page_size = 512,
	                                .max_pages = 20,
	                                .max_frames = 4,
	                                .level = 1,
	                                .torn_batches = true};

	f.s = synth_new(f.root, "x.db", &o);
	open_fixture(&f);
	return f;
}

static void free_fixture(struct fixture *f)
{
	close_fixture(f);
	synth_free(f->s);
	test_remove(f->root);
	free(f->root);
}

static void commits(struct fixture *f, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		synth_random_commit(f->s);
}

static void check_at(const struct fixture *f, int64_t time_us)
{
	struct moment m;
	struct err err = ERR_INIT;
	uint64_t want = 0;
	enum err_kind kind = synth_expect_at(f->s, time_us, &want);
	int rc = history_at(f->h, time_us, FAR_US, &m, &err);

	if (err_kind_of(rc) != kind)
		synth_die("at %lld: %s, not %s (%s)", (long long)time_us,
		          err_kind_name(err_kind_of(rc)), err_kind_name(kind), err.msg);
	if (rc == 0 && m.txid != want)
		synth_die("at %lld: txid %llu, not %llu", (long long)time_us,
		          (unsigned long long)m.txid, (unsigned long long)want);
	if (rc == 0) {
		bool last = want == f->s->n_states;
		bool provisional = last && time_us > synth_state(f->s, want)->commit.time_us &&
		                   time_us > f->s->head.known_until_us;
		assert_int_equal(!!(m.flags & MOMENT_PROVISIONAL), provisional);
	}
}

static void check_after(const struct fixture *f, int64_t time_us)
{
	struct moment m;
	struct err err = ERR_INIT;
	uint64_t want = 0;

	for (uint64_t t = f->s->n_states; t > 0; t--)
		if (synth_state(f->s, t)->commit.time_us >= time_us && synth_viewable(f->s, t))
			want = t;
	int rc = history_after(f->h, time_us, &m, &err);
	if (rc < 0 ? want != 0 : m.txid != want)
		synth_die("after %lld: not %llu: %s", (long long)time_us, (unsigned long long)want,
		          err.msg);
}

static void check_all_times(const struct fixture *f)
{
	for (uint64_t t = 1; t <= f->s->n_states; t++) {
		const struct commit *c = &synth_state(f->s, t)->commit;
		const int64_t times[] = {c->time_us - 1, c->time_us, c->time_us + 1,
		                         c->not_before_us ? c->not_before_us : c->time_us - 2,
		                         c->not_before_us ? c->not_before_us + 1 : c->time_us - 3};
		for (size_t i = 0; i < 5; i++) {
			check_at(f, times[i]);
			check_after(f, times[i]);
		}
	}
	check_at(f, 0);
	check_at(f, FAR_US);
}

static void check_walk(const struct fixture *f)
{
	struct moment m;
	struct err err = ERR_INIT;
	uint64_t from = 0;

	for (uint64_t t = 1; t <= f->s->n_states; t++) {
		if (!synth_viewable(f->s, t))
			continue;
		synth_must(history_next(f->h, from, &m, &err), &err, "history_next");
		assert_int_equal(m.txid, t);
		from = t + 1;
		synth_must(history_tx(f->h, t, &m, &err), &err, "history_tx");
		assert_int_equal(m.time_us, synth_state(f->s, t)->commit.time_us);
	}
	assert_int_equal(history_next(f->h, from, &m, &err), -ERR_NOT_FOUND);
	if (from) {
		synth_must(history_latest(f->h, &m, &err), &err, "history_latest");
		assert_int_equal(m.txid, from - 1);
	}
}

static void check_samples(const struct fixture *f, struct rng *r)
{
	struct moment out[40];

	for (unsigned i = 0; i < 30; i++) {
		uint64_t a = 1 + rng_below(r, f->s->n_states),
		         b = a + rng_below(r, f->s->n_states - a + 1);
		int64_t from = synth_state(f->s, a)->commit.time_us,
		        to = synth_state(f->s, b)->commit.time_us + 1;
		size_t max = 1 + (size_t)rng_below(r, 40), n;
		uint64_t total, viewable = 0;
		struct err err = ERR_INIT;

		synth_must(history_sample(f->h, from, to, max, out, &n, &total, &err), &err,
		           "history_sample");
		for (uint64_t t = a; t <= b; t++)
			viewable += synth_viewable(f->s, t);
		assert_true(n <= max);
		assert_true(total <= b - a + 1);
		for (size_t k = 0; k < n; k++) {
			assert_true(out[k].txid >= a && out[k].txid <= b);
			assert_true(k == 0 || out[k].txid > out[k - 1].txid);
			assert_true(synth_viewable(f->s, out[k].txid));
		}
		if (max >= b - a + 1) /* room for all of them */
			assert_int_equal(n, viewable);
		if (viewable > 0 && n == 0)
			synth_die("sample of %llu..%llu is empty, %llu can be viewed",
			          (unsigned long long)a, (unsigned long long)b,
			          (unsigned long long)viewable);
	}
}

static void test_random_times(void **state)
{
	struct rng r = {test_seed()};

	for (unsigned i = 0; i < test_rounds(15); i++) {
		uint64_t seed = rng_next(&r) >> 1;
		fprintf(stderr, "history %llu\n", (unsigned long long)seed);
		struct fixture f = new_fixture(seed);
		synth_random_history(f.s, 80);
		reopen(&f);
		check_all_times(&f);
		check_walk(&f);
		check_samples(&f, &r);
		free_fixture(&f);
	}
}

/* What grows is seen without reopening, and through sealing, joining and removal. */
static void test_follows(void **state)
{
	struct fixture f = new_fixture(test_seed());
	struct moment m;
	struct err err = ERR_INIT;

	assert_int_equal(history_latest(f.h, &m, &err), -ERR_NOT_FOUND);
	assert_int_equal(history_first(f.h, &m, &err), -ERR_NOT_FOUND);
	commits(&f, 3);
	synth_publish(f.s);
	assert_int_equal(history_latest(f.h, &m, &err), -ERR_NOT_FOUND);
	synth_snapshot(f.s, 3, 3);
	for (unsigned i = 0; i < 12; i++) {
		commits(&f, 5);
		synth_publish(f.s);
		synth_must(history_latest(f.h, &m, &err), &err, "history_latest");
		assert_int_equal(m.txid, f.s->n_states);
		if (!synth_compare(f.s, f.h, m.txid, &err) || !synth_compare(f.s, f.h, 3, &err))
			synth_die("%s", err.msg);
		uint64_t first = f.s->w ? grow_writer_info(f.s->w)->first_txid : 1;
		if (i % 2)
			synth_cut(f.s);
		if (i % 4 == 1)
			synth_seal(f.s, first, f.s->n_states, false);
		if (i % 6 == 5) {
			if (f.s->w || i % 4 != 1)
				synth_cut(f.s);
			synth_seal(f.s, 1, f.s->n_states, false);
		}
	}
	synth_compare_all(f.s, f.h);
	check_all_times(&f);
	free_fixture(&f);
}

static bool names_both(const char *msg, int64_t a_us, int64_t b_us)
{
	char a[TIME_STR_MAX], b[TIME_STR_MAX];

	time_format(a_us, a);
	time_format(b_us, b);
	return strstr(msg, a) && strstr(msg, b);
}

static void test_gap_names_edges(void **state)
{
	struct fixture f = new_fixture(test_seed());
	struct moment m;
	struct err err = ERR_INIT;

	commits(&f, 4);
	synth_publish(f.s);
	synth_snapshot(f.s, 2, 2);
	synth_gap(f.s, 3);
	commits(&f, 2);
	synth_publish(f.s);
	reopen(&f);
	const struct synth_gap *g = &f.s->gaps[0];
	assert_int_equal(g->before_txid, 4);
	assert_int_equal(g->after_txid, 8);
	for (int64_t t = synth_state(f.s, 5)->commit.time_us; t < g->after_us;
	     t += 1 + (g->after_us - t) / 3) {
		assert_int_equal(history_at(f.h, t, FAR_US, &m, &err), -ERR_GAP);
		if (!names_both(err.msg, g->before_us, g->after_us))
			synth_die("edges not named: %s", err.msg);
	}
	assert_int_equal(history_tx(f.h, 6, &m, &err), -ERR_GAP);
	if (!names_both(err.msg, g->before_us, g->after_us))
		synth_die("edges not named: %s", err.msg);
	struct view *v;
	assert_int_equal(view_open(f.h, 6, &v, &err), -ERR_GAP);
	struct gap seen;
	synth_must(history_gap(f.h, 0, &seen, &err), &err, "history_gap");
	assert_int_equal(seen.after_txid, 8);
	assert_int_equal(history_gap(f.h, 1, &seen, &err), -ERR_NOT_FOUND);

	/* Before the first snapshot there is no gap, but a beginning. */
	assert_int_equal(history_tx(f.h, 1, &m, &err), -ERR_NOT_FOUND);
	assert_int_equal(history_at(f.h, synth_state(f.s, 1)->commit.time_us, FAR_US, &m, &err),
	                 -ERR_NOT_FOUND);
	char when[TIME_STR_MAX];
	time_format(synth_state(f.s, 2)->commit.time_us, when);
	assert_non_null(strstr(err.msg, when));
	assert_int_equal(history_tx(f.h, 99, &m, &err), -ERR_NOT_FOUND);
	assert_int_equal(history_at(f.h, FAR_US + 1, FAR_US, &m, &err), -ERR_NOT_FOUND);
	assert_non_null(strstr(err.msg, "future"));
	free_fixture(&f);
}

/* A joined segment lies there beside some of what it was joined from: a crash in between. */
static void test_leftovers_of_joining(void **state)
{
	for (unsigned left = 0; left < 16; left++) {
		struct fixture f = new_fixture(test_seed() + left);
		for (unsigned i = 0; i < 4; i++) {
			uint64_t first = f.s->n_states + 1;
			commits(&f, 10);
			synth_cut(f.s);
			synth_seal(f.s, first, f.s->n_states, false);
		}
		synth_snapshot(f.s, 1, 1);
		synth_seal(f.s, 1, 40, true);
		for (unsigned i = 4; i-- > 0;) {
			for (size_t k = 0; k < f.s->n_objects && !(left >> i & 1); k++) {
				const struct object_name *n = &f.s->objects[k].name;
				if (n->type == OBJECT_SEALED && n->first_txid == 1 + 10 * i &&
				    n->last_txid != 40) {
					synth_remove_object(f.s, k);
					break;
				}
			}
		}
		reopen(&f);
		synth_compare_all(f.s, f.h);
		check_all_times(&f);
		check_walk(&f);
		free_fixture(&f);
	}
}

/* A segment that is not there any more is damage, and never another moment's answer. */
static void test_missing_segment(void **state)
{
	struct fixture f = new_fixture(test_seed());
	struct moment m;
	struct err err = ERR_INIT;

	for (unsigned i = 0; i < 3; i++) {
		uint64_t first = f.s->n_states + 1;
		commits(&f, 10);
		synth_cut(f.s);
		synth_seal(f.s, first, f.s->n_states, false);
	}
	synth_snapshot(f.s, 5, 5);
	synth_snapshot(f.s, 25, 25);
	for (size_t k = 0; k < f.s->n_objects; k++)
		if (f.s->objects[k].name.type == OBJECT_SEALED &&
		    f.s->objects[k].name.first_txid == 11) {
			synth_remove_object(f.s, k);
			break;
		}
	reopen(&f);
	for (uint64_t t = 5; t <= 30; t++) {
		bool there = t <= 10 || t >= 25;
		bool got = synth_compare(f.s, f.h, t, &err);
		if (got != there || (!got && err.kind != ERR_DAMAGED))
			synth_die("txid %llu: %s (%s)", (unsigned long long)t, err.msg,
			          err_kind_name(err.kind));
	}
	for (uint64_t t = 10; t <= 20; t++) {
		int64_t us = synth_state(f.s, t)->commit.time_us;
		int rc = history_at(f.h, us, FAR_US, &m, &err);
		if (t == 10 ? rc != 0 || m.txid != 10 : err_kind_of(rc) != ERR_DAMAGED)
			synth_die("at %llu: %s", (unsigned long long)t, rc ? err.msg : "an answer");
	}
	synth_must(history_latest(f.h, &m, &err), &err, "latest");
	assert_int_equal(m.txid, 30);
	free_fixture(&f);
}

/* Objects go while a reader has an old listing: it looks again. */
static void test_joined_behind_the_back(void **state)
{
	struct fixture f = new_fixture(test_seed());
	struct moment m;
	struct err err = ERR_INIT;

	for (unsigned i = 0; i < 4; i++) {
		uint64_t first = f.s->n_states + 1;
		commits(&f, 10);
		synth_cut(f.s);
		synth_seal(f.s, first, f.s->n_states, false);
	}
	synth_snapshot(f.s, 1, 1);
	reopen(&f);
	synth_must(history_tx(f.h, 35, &m, &err), &err, "history_tx");
	uint64_t generation = f.s->head.generation;
	synth_seal(f.s, 1, 40, false);
	f.s->head.generation = generation; /* the word of it has not come round */
	synth_publish(f.s);
	for (uint64_t t = 5; t <= 40; t += 5) {
		int64_t us = synth_state(f.s, t)->commit.time_us;
		synth_must(history_at(f.h, us, FAR_US, &m, &err), &err, "history_at");
		assert_int_equal(m.txid, t);
	}
	synth_compare_all(f.s, f.h);
	free_fixture(&f);
}

/* A writer that ended early leaves a segment with nothing in it, or not even a header: the rest
 * is as it was, and the recorder still gets to see it. */
static void test_empty_growing(void **state)
{
	for (unsigned bytes = 0; bytes <= GROW_HEADER_SIZE; bytes++) {
		struct fixture f = new_fixture(test_seed() + bytes);
		struct err err = ERR_INIT;
		char name[64];
		commits(&f, 6);
		synth_cut(f.s);
		synth_snapshot(f.s, 2, 2);
		struct grow_writer *w;
		synth_must(grow_create(f.s->segment_fd, 1, 7, 512, 1, &w, &err), &err,
		           "grow_create");
		grow_writer_free(w);
		snprintf(name, sizeof(name), "%08u-%016u.wal.gz", 1u, 7u);
		int fd = openat(f.s->segment_fd, name, O_WRONLY);
		assert_int_equal(ftruncate(fd, bytes), 0);
		close(fd);
		synth_generation(f.s);
		reopen(&f);
		synth_compare_all(f.s, f.h);
		check_all_times(&f);
		check_walk(&f);
		cleanup_free struct history_object *objects = NULL;
		size_t n, seen = 0;
		synth_must(history_objects(f.h, &objects, &n, &err), &err, "history_objects");
		for (size_t i = 0; i < n; i++)
			seen += objects[i].type == HISTORY_GROWING && objects[i].first_txid == 7;
		assert_int_equal(seen, 1);
		free_fixture(&f);
	}
}

static void test_status(void **state)
{
	struct fixture f = new_fixture(test_seed());
	struct history_status st;
	struct err err = ERR_INIT;
	char **names;
	size_t n;

	synth_must(history_get_status(f.h, &st, &err), &err, "status");
	assert_int_equal(st.last_txid, 0);
	assert_true(st.writer_alive);
	assert_string_equal(st.source_path, "/srv/x.db");
	commits(&f, 10);
	synth_cut(f.s);
	synth_snapshot(f.s, 4, 3);
	synth_seal(f.s, 1, 10, false);
	synth_coalesce(f.s, 2, 9);
	commits(&f, 2);
	synth_publish(f.s);
	synth_must(history_get_status(f.h, &st, &err), &err, "status");
	assert_int_equal(st.first_txid, 4);
	assert_int_equal(st.last_txid, 12);
	assert_int_equal(st.n_snapshots, 1);
	assert_int_equal(st.n_segments, 2);
	assert_int_equal(st.n_coalesced, 1);
	assert_true(st.unsealed_bytes > 0 && st.archive_bytes > st.unsealed_bytes);
	synth_must(archive_list(f.a, &names, &n, &err), &err, "archive_list");
	assert_int_equal(n, 1);
	assert_string_equal(names[0], "x.db");
	free(names);
	struct history *h;
	assert_int_equal(history_get(f.a, "y.db", &h, &err), -ERR_NOT_FOUND);
	assert_int_equal(history_get(f.a, "../x", &h, &err), -ERR_NOT_FOUND);
	struct archive *a;
	assert_int_equal(archive_open("/nonexistent/archive", NULL, &a, &err), -ERR_NOT_FOUND);
	free_fixture(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_random_times),
	        cmocka_unit_test(test_follows),
	        cmocka_unit_test(test_gap_names_edges),
	        cmocka_unit_test(test_leftovers_of_joining),
	        cmocka_unit_test(test_missing_segment),
	        cmocka_unit_test(test_joined_behind_the_back),
	        cmocka_unit_test(test_empty_growing),
	        cmocka_unit_test(test_status),
	};
	log_set_fd(-1); /* damage is made on purpose */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
