/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Retention: whole passes on whole histories, where every moment that is kept reads as it did before,
 * and every other one names its neighbours; and the same with the process ending at any write.  The
 * plan alone: test_retain_plan.c.
 */
#include "engine/base/log.h"
#include "tests/lib/ending.h"
#include "tests/lib/thinned.h"

#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static _Atomic bool stop;

/* ---- whole passes ---- */

struct world {
	struct synth *s;
	struct archive *a;
	struct history *h;
	struct compactor *c;
	struct retainer *r;
	struct kept k;
	uint64_t marks[8];
	size_t n_marks;
	uint64_t answered; /* times that had a state */
};

static void open_world(struct world *w)
{
	struct err err = ERR_INIT;

	synth_must(archive_open(w->s->root, NULL, &w->a, &err), &err, "archive_open");
	synth_must(history_get(w->a, "x.db", &w->h, &err), &err, "history_get");
	synth_must(compactor_new(w->s->root, "x.db", &w->c, &err), &err, "compactor_new");
	synth_must(retainer_new(w->s->root, "x.db", &w->r, &err), &err, "retainer_new");
}

static void close_world(struct world *w)
{
	retainer_free(w->r);
	compactor_free(w->c);
	history_put(w->h);
	archive_free(w->a);
}

/* As the recorder does for it; readers look within 100 ms. */
static void tell_readers(struct world *w)
{
	struct err err = ERR_INIT;

	synth_generation(w->s);
	synth_must(history_refresh(w->h, &err), &err, "history_refresh");
}

static size_t compare_kept(struct world *w)
{
	size_t deepest = 0;

	for (uint64_t t = 1; t <= w->s->n_states; t++) {
		struct err err = ERR_INIT;
		bool got = synth_compare(w->s, w->h, t, &err);
		if (got != w->k.alive[t - 1])
			synth_die("transaction %" PRIu64 " can%s be viewed: %s", t,
			          got ? "" : "not", err.msg);
		if (!got && err.kind != ERR_GAP && err.kind != ERR_NOT_FOUND)
			synth_die("transaction %" PRIu64 ": %s (%s)", t, err.msg,
			          err_kind_name(err.kind));
		if (!got && t <= w->k.fine && !strstr(err.msg, "txid"))
			synth_die("transaction %" PRIu64 " names no neighbour: %s", t, err.msg);
		struct view *v;
		if (got && t <= w->k.fine && view_open(w->h, t, &v, NULL) == 0) {
			deepest = view_depth(v) > deepest ? view_depth(v) : deepest;
			view_free(v);
		}
	}
	return deepest;
}

/* As of any time: the state after the last commit then, or an error; never another state. */
static void compare_times(struct world *w)
{
	const struct synth *s = w->s;
	int64_t from = w->k.times[0] - 2, to = w->k.times[w->k.n - 1] + 2;

	for (unsigned i = 0; i < 400; i++) {
		int64_t at = i % 2 ? from + (int64_t)rng_below(&w->s->rng, (uint64_t)(to - from))
		                   : w->k.times[rng_below(&w->s->rng, w->k.n)] +
		                             (int64_t)rng_below(&w->s->rng, 3) - 1;
		struct err err = ERR_INIT;
		struct moment m;
		uint64_t want = 0;
		enum err_kind kind = synth_expect_at(s, at, &want);
		int rc = history_at(w->h, at, to + DAY, &m, &err);
		if (kind == ERR_NONE && !w->k.alive[want - 1])
			kind = ERR_NOT_FOUND;
		if (rc == 0 && (kind != ERR_NONE || m.txid != want))
			synth_die("at %" PRId64 ": transaction %" PRIu64 ", not %" PRIu64 " (%s)",
			          at, m.txid, want, err_kind_name(kind));
		if (rc < 0 && kind == ERR_NONE)
			synth_die("at %" PRId64 ": %s, not transaction %" PRIu64, at, err.msg,
			          want);
		if (rc < 0 && err.kind != ERR_NOT_FOUND && err.kind != ERR_GAP)
			synth_die("at %" PRId64 ": %s (%s)", at, err.msg, err_kind_name(err.kind));
		w->answered += rc == 0;
	}
}

/* Walking and choosing meet what is kept, and nothing else. */
static void compare_walk(struct world *w)
{
	struct err err = ERR_INIT;
	struct moment m, some[7];
	uint64_t t = 1, total, alive = 0;
	size_t n;

	for (uint64_t x = 1; x <= w->k.n; x++) {
		if (!w->k.alive[x - 1])
			continue;
		alive++;
		synth_must(history_next(w->h, t, &m, &err), &err, "history_next");
		assert_int_equal(m.txid, x);
		t = x + 1;
	}
	assert_int_equal(history_next(w->h, t, &m, &err), -ERR_NOT_FOUND);
	synth_must(history_first(w->h, &m, &err), &err, "history_first");
	assert_true(w->k.alive[m.txid - 1]);
	synth_must(history_sample(w->h, m.time_us, w->k.times[w->k.n - 1] + 1, 7, some, &n, &total,
	                          &err),
	           &err, "history_sample");
	assert_true(total >= alive); /* what lies in gaps is counted */
	for (size_t i = 0; i < n; i++)
		assert_true(w->k.alive[some[i].txid - 1]);
}

static void random_mark(struct world *w)
{
	uint64_t t = 1 + rng_below(&w->s->rng, w->k.n);
	struct err err = ERR_INIT;
	char name[40];

	snprintf(name, sizeof(name), "mark %zu", w->n_marks);
	if (w->n_marks == 8)
		return;
	int rc = retain_mark(w->s->root, "x.db", name, t, &err);
	if ((rc == 0) != w->k.alive[t - 1])
		synth_die("mark at %" PRIu64 ": %s", t, err.msg);
	if (rc == 0) {
		w->marks[w->n_marks++] = t;
		assert_int_equal(retain_mark(w->s->root, "x.db", name, t, &err), -ERR_EXISTS);
	}
}

static size_t pass(struct world *w, const struct retain_policy *policy, int64_t now)
{
	struct retain_result res;
	struct err err = ERR_INIT;

	synth_must(retainer_run(w->r, policy, now, &stop, thinned_log(), &res, &err), &err,
	           "retainer_run");
	assert_true(res.fine_txid >= w->k.fine && res.fine_txid <= kept_limit(&w->k, policy, now));
	kept_pass(&w->k, policy, now, w->marks, w->n_marks, res.fine_txid);
	tell_readers(w);
	size_t deepest = compare_kept(w);
	compare_times(w);
	compare_walk(w);
	return deepest;
}

static void make_world(struct world *w, const char *root, uint64_t seed)
{
	const struct synth_options o = {
	        .seed = seed,
	        .page_size = 512u << (seed % 3),
	        .max_pages = 40,
	        .max_frames = 6,
	        .level = 1,
	        .torn_batches = seed % 2,
	        .max_step_us = US_PER_SECOND << (seed % 17),
	};

	memset(w, 0, sizeof(*w));
	w->s = synth_new(root, "x.db", &o);
	synth_random_history(w->s, 60);
	open_world(w);
	kept_grow(&w->k, w->s);
}

static void free_world(struct world *w)
{
	close_world(w);
	synth_free(w->s);
	kept_release(&w->k);
}

static void test_any_history(void **state)
{
	uint64_t seed = test_seed(), answered = 0;
	size_t deepest = 0;

	for (unsigned i = 0; i < test_rounds(30) || (answered <= 400 && i < 60); i++) {
		cleanup_free char *root = test_folder();
		struct retain_policy policy;
		struct world w;

		fprintf(stderr, "history %llu\n", (unsigned long long)(seed + i));
		make_world(&w, root, seed + i);
		int64_t now = w.k.times[w.k.n - 1];
		for (unsigned k = 0; k < 5; k++) {
			if (rng_chance(&w.s->rng, 50))
				thinned_upkeep(w.s, w.c);
			if (rng_chance(&w.s->rng, 40))
				random_mark(&w);
			thinned_random_policy(&w.s->rng, &policy);
			int64_t span = w.k.times[w.k.n - 1] - w.k.times[0];
			now += (int64_t)rng_below(&w.s->rng,
			                          (uint64_t)(span + 2 * policy.grace_us + HOUR));
			size_t d = pass(&w, &policy, now);
			deepest = d > deepest ? d : deepest;
			thinned_forget_objects(w.s);
			synth_cut(w.s);
			for (unsigned n = 0; n < 15; n++)
				synth_random_commit(w.s);
			synth_publish(w.s);
			kept_grow(&w.k, w.s);
			now = now > w.k.times[w.k.n - 1] ? now : w.k.times[w.k.n - 1];
		}
		thinned_upkeep(w.s, w.c);
		compare_kept(&w);
		answered += w.answered;
		free_world(&w);
		test_remove(root);
	}
	printf("at most %zu objects over a base, %" PRIu64 " times answered\n", deepest, answered);
	assert_true(answered > 400);
	assert_true(deepest <= 8);
}

/* ---- ending at any write ---- */

/* Whatever of it is done: what is to be kept can be read, and nothing reads wrong. */
static void check_half_done(struct world *w, const char *root, const bool *after)
{
	struct err err = ERR_INIT;
	struct archive *a;
	struct history *h;

	synth_must(archive_open(root, NULL, &a, &err), &err, "archive_open");
	synth_must(history_get(a, "x.db", &h, &err), &err, "history_get");
	for (uint64_t t = 1; t <= w->s->n_states; t++) {
		struct err why = ERR_INIT;
		if (!synth_compare(w->s, h, t, &why)) {
			if (after[t - 1] || (why.kind != ERR_GAP && why.kind != ERR_NOT_FOUND))
				synth_die("transaction %" PRIu64 ": %s (%s)", t, why.msg,
				          err_kind_name(why.kind));
		} else if (!w->k.alive[t - 1]) {
			synth_die("transaction %" PRIu64 " came back", t);
		}
	}
	history_put(h);
	archive_free(a);
}

static int run_at(const char *root, const struct retain_policy *policy, int64_t now,
                  struct err *err)
{
	struct retain_result res;
	struct retainer *r;

	int rc = retainer_new(root, "x.db", &r, err);
	if (rc < 0)
		return rc;
	rc = retainer_run(r, policy, now, &stop, NULL, &res, err);
	retainer_free(r);
	return rc;
}

struct attempt {
	const char *root;
	const struct retain_policy *policy;
	int64_t now;
};

static int attempt(void *ctx)
{
	const struct attempt *a = ctx;
	struct err err = ERR_INIT;

	return run_at(a->root, a->policy, a->now, &err);
}

/* Up to where a pass would thin. */
static uint64_t preview(struct world *w, const struct retain_policy *policy, int64_t now)
{
	struct retain_result res;
	struct err err = ERR_INIT;

	synth_must(retainer_preview(w->r, policy, now, NULL, &res, &err), &err, "preview");
	return res.fine_txid;
}

static void sweep(struct world *w, const struct retain_policy *policy, int64_t now)
{
	cleanup_free char *copy = NULL;
	cleanup_free bool *after = calloc(w->k.n, sizeof(*after));
	struct kept then = {w->k.times, after, w->k.n, w->k.fine};
	bool ended = true;
	long step = getenv("ASOF_TEST_SHORT") ? 61 : getenv("ASOF_TEST_FULL") ? 1 : 5;

	assert_true(after && asprintf(&copy, "%s-copy", w->s->root) > 0);
	memcpy(after, w->k.alive, w->k.n);
	kept_pass(&then, policy, now, w->marks, w->n_marks, preview(w, policy, now));
	long at = (long)rng_below(&w->s->rng, (uint64_t)step);
	for (; ended; at += step) {
		struct err err = ERR_INIT;
		if (at > 20000)
			synth_die("the pass finds no end");
		copy_folder(w->s->root, copy);
		ended = run_until_write(at, attempt, &(struct attempt){copy, policy, now});
		check_half_done(w, copy, after);
		if (!ended)
			break;
		synth_must(run_at(copy, policy, now, &err), &err, "the pass after it");
		check_half_done(w, copy, after);
		if (at % 3 == 0) { /* and what is gone is told as that */
			struct archive *a;
			struct history *h;
			struct moment m;
			synth_must(archive_open(copy, NULL, &a, &err), &err, "archive_open");
			synth_must(history_get(a, "x.db", &h, &err), &err, "history_get");
			for (uint64_t t = 1; t <= w->k.n; t++)
				if (!after[t - 1])
					assert_true(history_tx(h, t, &m, NULL) < 0);
			history_put(h);
			archive_free(a);
		}
	}
	printf("ended at one in %ld of %ld writes\n", step, at);
	test_remove(copy);
}

static void test_ending_anywhere(void **state)
{
	uint64_t seed = test_seed();

	for (unsigned i = 0; i < test_rounds(4); i++) {
		cleanup_free char *root = test_folder();
		struct retain_policy policy;
		struct err err = ERR_INIT;
		struct world w;

		make_world(&w, root, seed + 100 + i);
		random_mark(&w);
		if (i % 2)
			thinned_upkeep(w.s, w.c);
		retain_policy_default(&policy);
		synth_must(retain_tiers_parse("all:20m,10m:5h,1h:365d", &policy, &err), &err, "");
		policy.grace_us = 0;
		policy.min_free_percent = 0;
		int64_t span = w.k.times[w.k.n - 1] - w.k.times[0];
		if (i >= 2) { /* a second pass, over what a first one left */
			pass(&w, &policy, w.k.times[w.k.n - 1]);
			thinned_forget_objects(w.s);
		}
		sweep(&w, &policy, w.k.times[w.k.n - 1] + span / 2 + HOUR);
		free_world(&w);
		test_remove(root);
	}
}

/* ---- grace, marks, open views ---- */

static void plain_world(struct world *w, const char *root, unsigned n_segments,
                        unsigned per_segment)
{
	const struct synth_options o = {.seed = test_seed(),
	                                .page_size = 512,
	                                .max_pages = 60,
	                                .max_frames = 4,
	                                .level = 1,
	                                .max_step_us = 60 * US_PER_SECOND};

	memset(w, 0, sizeof(*w));
	w->s = synth_new(root, "x.db", &o);
	for (unsigned i = 0; i < n_segments; i++) {
		for (unsigned k = 0; k < per_segment; k++)
			synth_random_commit(w->s);
		synth_cut(w->s);
		if (i == 0)
			synth_snapshot(w->s, 1, 1);
	}
	synth_random_commit(w->s);
	synth_publish(w->s);
	open_world(w);
	kept_grow(&w->k, w->s);
}

static unsigned count_files(const struct synth *s, int dir_fd)
{
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fdopendir(fd);
	unsigned n = 0;

	for (struct dirent *d; dir && (d = readdir(dir));)
		n += d->d_name[0] != '.';
	closedir(dir);
	return n;
}

static void test_grace(void **state)
{
	cleanup_free char *root = test_folder();
	struct retain_policy policy;
	struct retain_result res;
	struct err err = ERR_INIT;
	struct world w;

	plain_world(&w, root, 10, 30);
	thinned_policy(&policy, "all:10m,10m:365d", DAY);
	int64_t now = w.k.times[w.k.n - 1];
	unsigned before = count_files(w.s, w.s->segment_fd);
	synth_must(retainer_run(w.r, &policy, now, &stop, NULL, &res, &err), &err, "first");
	assert_int_equal(res.deleted, 0);
	assert_true(res.expiring > 0 && res.coalesced + res.bases > 0);
	assert_int_equal(count_files(w.s, w.s->segment_fd), before);
	synth_must(retainer_run(w.r, &policy, now + DAY - 1, &stop, NULL, &res, &err), &err,
	           "one microsecond early");
	uint64_t waiting = res.expiring;
	assert_int_equal(res.deleted, 0);
	/* A clock that was set back begins the grace time anew, and deletes nothing. */
	synth_must(retainer_run(w.r, &policy, now - HOUR, &stop, NULL, &res, &err), &err,
	           "earlier");
	assert_int_equal(res.deleted, 0);
	synth_must(retainer_run(w.r, &policy, now + DAY, &stop, NULL, &res, &err), &err, "due");
	assert_true(res.deleted > 0 && res.deleted <= waiting);
	assert_true(count_files(w.s, w.s->segment_fd) < before);
	free_world(&w);
	test_remove(root);
}

/* What is open is read to its end whatever goes, from handles and from new ones. */
static void test_open_views(void **state)
{
	cleanup_free char *root = test_folder();
	struct retain_policy policy;
	struct world w;
	struct view *views[400];
	size_t n = 0;

	plain_world(&w, root, 10, 30);
	thinned_upkeep(w.s, w.c);
	thinned_policy(&policy, "all:10m,1h:365d", 0);
	for (uint64_t t = 1; t <= w.k.n && n < 400; t++)
		if (w.k.alive[t - 1] && view_open(w.h, t, &views[n], NULL) == 0)
			n++;
	pass(&w, &policy, w.k.times[w.k.n - 1] + HOUR);
	assert_true(w.k.fine > 100);
	for (size_t i = 0; i < n; i++) {
		const struct synth_state *st = synth_state(w.s, view_moment(views[i])->txid);
		uint8_t page[512];
		for (uint32_t p = 1; p <= st->commit.n_pages; p++) {
			struct err err = ERR_INIT;
			synth_must(view_page(views[i], p, page, &err), &err, "an open view");
			if (st->pages[p - 1])
				assert_memory_equal(page, st->pages[p - 1]->data, 512);
		}
		view_free(views[i]);
	}
	free_world(&w);
	test_remove(root);
}

static void test_marks(void **state)
{
	cleanup_free char *root = test_folder();
	struct retain_policy policy;
	struct err err = ERR_INIT;
	struct mark *marks, one;
	struct world w;
	size_t n;

	plain_world(&w, root, 6, 30);
	w.marks[w.n_marks++] = 33;
	synth_must(retain_mark(root, "x.db", "before the move", 33, &err), &err, "mark");
	assert_int_equal(retain_mark(root, "x.db", "a/b", 33, &err), -ERR_USAGE);
	assert_int_equal(retain_mark(root, "x.db", ".hidden", 33, &err), -ERR_USAGE);
	assert_int_equal(retain_mark(root, "y.db", "m", 33, &err), -ERR_NOT_FOUND);
	assert_int_equal(retain_mark(root, "x.db", "m", 100000, &err), -ERR_NOT_FOUND);
	synth_must(history_marks(w.h, &marks, &n, &err), &err, "marks");
	assert_int_equal(n, 1);
	assert_string_equal(marks[0].name, "before the move");
	assert_int_equal(marks[0].txid, 33);
	assert_int_equal(marks[0].time_us, w.k.times[32]);
	free(marks);
	thinned_policy(&policy, "all:10m", 0);
	pass(&w, &policy, w.k.times[w.k.n - 1] + HOUR);
	assert_true(w.k.alive[32] && !w.k.alive[31] && !w.k.alive[33]);
	synth_must(retain_unmark(root, "x.db", "before the move", &err), &err, "unmark");
	assert_int_equal(retain_unmark(root, "x.db", "before the move", &err), -ERR_NOT_FOUND);
	assert_int_equal(history_mark(w.h, "before the move", &one, &err), -ERR_NOT_FOUND);
	w.n_marks = 0;
	pass(&w, &policy, w.k.times[w.k.n - 1] + HOUR);
	assert_false(w.k.alive[32]);
	free_world(&w);
	test_remove(root);
}

/* Behind what the note tells of all is as it was; before it there is an error, or the state. */
static void check_damaged_note(struct world *w)
{
	cleanup_fd int fd = openat(w->s->dir_fd, "thinned", O_RDWR | O_CLOEXEC);
	struct archive *a;
	struct history *h;
	struct err err = ERR_INIT;
	uint8_t byte;

	assert_int_equal(pread(fd, &byte, 1, 30), 1);
	byte ^= 1;
	assert_int_equal(pwrite(fd, &byte, 1, 30), 1);
	synth_must(archive_open(w->s->root, NULL, &a, &err), &err, "archive_open");
	synth_must(history_get(a, "x.db", &h, &err), &err, "history_get");
	for (uint64_t t = 1; t <= w->k.n; t++) {
		struct err why = ERR_INIT;
		bool got = synth_compare(w->s, h, t, &why);
		if (!got && t > w->k.fine)
			synth_die("%" PRIu64 " went with the note: %s", t, why.msg);
		struct moment m;
		if (history_at(h, w->k.times[t - 1], INT64_MAX, &m, NULL) == 0)
			assert_int_equal(m.txid, t);
	}
	history_put(h);
	archive_free(a);
}

/* The note damaged, or a kept point's object lost: damage, and not another state. */
static void test_lost_point(void **state)
{
	cleanup_free char *root = test_folder();
	struct retain_policy policy;
	struct thinned_note note = {0};
	struct err err = ERR_INIT;
	struct history_object *o;
	struct moment m;
	struct world w;
	size_t n;

	plain_world(&w, root, 10, 30);
	thinned_policy(&policy, "all:10m,10m:365d", 0);
	pass(&w, &policy, w.k.times[w.k.n - 1] + HOUR);
	synth_must(thinned_note_get(w.s->dir_fd, &note, &err), &err, "note");
	assert_true(note.n_points > 4);
	uint64_t lost = note.points[2].txid;
	synth_must(history_objects(w.h, &o, &n, &err), &err, "objects");
	for (size_t i = 0; i < n; i++)
		if (o[i].type != HISTORY_SEGMENT && o[i].last_txid == lost)
			assert_int_equal(unlinkat(o[i].type == HISTORY_COALESCED ? w.s->coalesced_fd
			                                                         : w.s->snapshot_fd,
			                          o[i].file, 0),
			                 0);
	tell_readers(&w);
	assert_int_equal(history_tx(w.h, lost, &m, &err), -ERR_DAMAGED);
	assert_int_equal(history_at(w.h, note.points[2].time_us, INT64_MAX, &m, &err),
	                 -ERR_DAMAGED);
	synth_must(history_tx(w.h, note.points[1].txid, &m, &err), &err, "one before");
	check_damaged_note(&w);
	free(o);
	thinned_note_release(&note);
	free_world(&w);
	test_remove(root);
}

/* ---- want of space ---- */

static void test_max_bytes(void **state)
{
	cleanup_free char *root = test_folder();
	struct retain_policy policy;
	struct retain_result all, res;
	struct err err = ERR_INIT;
	struct moment m;
	struct world w;

	plain_world(&w, root, 20, 30);
	thinned_policy(&policy, "all:365d", DAY);
	int64_t now = w.k.times[w.k.n - 1] + 1;
	synth_must(retainer_run(w.r, &policy, now, &stop, NULL, &all, &err), &err, "no bound");
	assert_false(all.short_of_space);
	policy.max_bytes = all.bytes / 2;
	synth_must(retainer_run(w.r, &policy, now, &stop, thinned_log(), &res, &err), &err,
	           "a bound");
	assert_true(res.short_of_space && res.bytes <= policy.max_bytes && res.deleted > 0);
	assert_true(strlen(res.shortened) > 0);
	tell_readers(&w);
	synth_must(history_latest(w.h, &m, &err), &err, "the newest");
	assert_int_equal(m.txid, w.k.n);
	if (!synth_compare(w.s, w.h, m.txid, &err))
		synth_die("the newest: %s", err.msg);
	/* It is not more than it takes: the newest half or so of the history is there. */
	synth_must(history_first(w.h, &m, &err), &err, "the first");
	assert_true(m.txid > 1 && m.txid < w.k.n * 9 / 10);
	policy.max_bytes = 1000;
	assert_int_equal(retainer_run(w.r, &policy, now, &stop, NULL, &res, &err), -ERR_NO_SPACE);
	tell_readers(&w);
	if (!synth_compare(w.s, w.h, w.k.n, &err))
		synth_die("the newest: %s", err.msg);
	free_world(&w);
	test_remove(root);
}

static void use_some_space(const char *root)
{
	static const char some[64 << 10] = "x";
	char path[PATH_MAX];
	cleanup_fd int fd = -1;

	snprintf(path, sizeof(path), "%s/some", root);
	fd = open(path, O_WRONLY | O_CREAT, 0600);
	assert_int_equal(write(fd, some, sizeof(some)), sizeof(some));
}

static void test_min_free(void **state)
{
	cleanup_free char *root = test_folder();
	struct retain_policy policy;
	struct err err = ERR_INIT;

	thinned_policy(&policy, "all:3d", 0);
	synth_must(retain_may_write(root, &policy, &err), &err, "nothing is reserved");
	policy.min_free_bytes = UINT64_C(1) << 62;
	assert_int_equal(retain_may_write(root, &policy, &err), -ERR_NO_SPACE);
	policy.min_free_bytes = 0;
	policy.min_free_percent = 100;
	use_some_space(root); /* all of an empty filesystem is free */
	assert_int_equal(retain_may_write(root, &policy, &err), -ERR_NO_SPACE);
	test_remove(root);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_any_history), cmocka_unit_test(test_ending_anywhere),
	        cmocka_unit_test(test_grace),       cmocka_unit_test(test_open_views),
	        cmocka_unit_test(test_marks),       cmocka_unit_test(test_lost_point),
	        cmocka_unit_test(test_max_bytes),   cmocka_unit_test(test_min_free),
	};
	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
