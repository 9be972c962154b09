/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Retention at a destination: what its own policy keeps reads as it did, at each request of a pass,
 * whichever fails; what it does not keep is told as that, and gone after the grace time; nobody but the
 * writer deletes; and where nothing came no request is made.
 */
#include "engine/base/log.h"
#include "engine/ship/ship.h"
#include "engine/store/faulty.h"
#include "tests/lib/shipped.h"
#include "tests/lib/thinned.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static _Atomic bool stop;

struct world {
	struct synth *s;
	struct store *store;
	struct kept k;
	uint64_t marks[8];
	size_t n_marks;
	bool retained; /* here, or there: copies that began before it come no more */
};

static void ship(struct world *w)
{
	struct shipper *sh = open_shipper(w->s->root, w->store, 1);
	struct err err = ERR_INIT;

	synth_must(ship_all(sh, &err), &err, "ship");
	shipper_free(sh);
	kept_grow(&w->k, w->s);
}

/* All of it goes there as it comes. */
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
	struct err err = ERR_INIT;

	memset(w, 0, sizeof(*w));
	w->s = synth_new(root, "x.db", &o);
	synth_must(store_open_memory(&w->store, &err), &err, "store");
	synth_random_commit(w->s);
	synth_publish(w->s);
	synth_snapshot(w->s, 1, 1);
	ship(w);
}

static void free_world(struct world *w)
{
	store_free(w->store);
	synth_free(w->s);
	kept_release(&w->k);
}

static void go_on(struct world *w, unsigned n)
{
	if (!w->retained)
		synth_random_history(w->s, n);
	for (unsigned i = 0; i < n && w->retained; i++)
		synth_random_commit(w->s);
	if (rng_chance(&w->s->rng, 60))
		synth_cut(w->s);
	synth_publish(w->s);
	ship(w);
	if (rng_chance(&w->s->rng, 60)) {
		thinned_upkeep(w->s, NULL);
		thinned_forget_objects(w->s);
		ship(w);
	}
}

/* As any reader meets it. */
struct reader {
	struct breaking b;
	struct archive *a;
	struct history *h;
};

static void open_reader(struct reader *r, struct store *store)
{
	struct store *stores[] = {&r->b.base};
	struct err err = ERR_INIT;

	r->b = break_after(store, -1, false);
	r->b.base.ops = &borrowed_ops;
	synth_must(archive_open_stores(stores, 1, NULL, &r->a, &err), &err, "open");
	synth_must(history_get(r->a, "x.db", &r->h, &err), &err, "history_get");
}

static void close_reader(struct reader *r)
{
	history_put(r->h);
	archive_free(r->a);
}

/* What is kept reads as it was, nothing reads wrong; `gone`: and all else is told as that. */
static void compare(struct world *w, struct history *h, const bool *kept, bool gone)
{
	for (uint64_t t = 1; t <= w->k.n; t++) {
		struct err err = ERR_INIT;
		bool got = synth_compare(w->s, h, t, &err);
		if (kept[t - 1] && !got)
			synth_die("transaction %" PRIu64 " is lost: %s (%s)", t, err.msg,
			          err_kind_name(err.kind));
		if (!got && err.kind != ERR_GAP && err.kind != ERR_NOT_FOUND)
			synth_die("transaction %" PRIu64 ": %s (%s)", t, err.msg,
			          err_kind_name(err.kind));
		if (gone && got && !kept[t - 1])
			synth_die("transaction %" PRIu64 " can be had", t);
	}
}

static int show_entry(void *ctx, const struct store_entry *e, struct err *err)
{
	fprintf(stderr, "  %s %llu\n", e->key, (unsigned long long)e->bytes);
	return 0;
}
static void show(struct store *store)
{
	if (getenv("ASOF_TEST_LOG"))
		(void)!store_list(store, "", NULL, true, show_entry, NULL, NULL);
}

static void compare_now(struct world *w, struct store *store, const bool *kept, bool gone)
{
	struct reader r;

	open_reader(&r, store);
	show(store);
	compare(w, r.h, kept, gone);
	close_reader(&r);
}

static int retain_at(const char *root, struct store *store, const struct retain_policy *policy,
                     int64_t now, bool dry, struct retain_result *res, struct err *err)
{
	const struct ship_options o = {
	        .archive = root, .name = "x.db", .url = URL, .store = store, .grace_us = 1};

	return ship_retain(&o, policy, now, dry, thinned_log(), res, err);
}

static void forget_all(const char *root)
{
	char command[1200];

	snprintf(command, sizeof(command),
	         "rm -rf '%s'/local/x.db/retained-* '%s'/local/x.db/thinning", root, root);
	assert_int_equal(system(command), 0);
}

static void pass(struct world *w, const struct retain_policy *policy, int64_t now)
{
	struct retain_result res;
	struct err err = ERR_INIT;

	w->retained = true;
	synth_must(retain_at(w->s->root, w->store, policy, now, false, &res, &err), &err, "retain");
	if (res.fine_txid == 0)
		res.fine_txid = w->k.fine; /* nothing was due: then nothing is to change */
	assert_true(res.fine_txid >= w->k.fine && res.fine_txid <= kept_limit(&w->k, policy, now));
	kept_pass(&w->k, policy, now, w->marks, w->n_marks, res.fine_txid);
	compare_now(w, w->store, w->k.alive, true);
}

static void retain_here(struct world *w, int64_t now)
{
	struct retain_policy policy;
	struct retain_result res;
	struct retainer *r;
	struct err err = ERR_INIT;

	w->retained = true;
	thinned_random_policy(&w->s->rng, &policy);
	synth_must(retainer_new(w->s->root, "x.db", &r, &err), &err, "retainer_new");
	synth_must(retainer_run(r, &policy, now, &stop, NULL, &res, &err), &err, "retainer_run");
	retainer_free(r);
	synth_generation(w->s);
	thinned_forget_objects(w->s);
}

static void random_mark(struct world *w)
{
	uint64_t t = 1 + rng_below(&w->s->rng, w->k.n);
	struct err err = ERR_INIT;
	char name[40];

	snprintf(name, sizeof(name), "mark %zu", w->n_marks);
	if (w->n_marks < 8 && retain_mark(w->s->root, "x.db", name, t, &err) == 0)
		w->marks[w->n_marks++] = t;
}

/* ---- what is left there ---- */

struct left {
	uint64_t fine, newest_sealed;
	size_t n_thinned; /* segments of what was thinned */
};

static int find_sealed(void *ctx, const struct store_entry *e, struct err *err)
{
	struct left *l = ctx;
	struct object_name n;

	if (strstr(e->key, "/segment/") && object_name_parse(strrchr(e->key, '/') + 1, &n) &&
	    n.type == OBJECT_SEALED) {
		if (n.last_txid > l->newest_sealed)
			l->newest_sealed = n.last_txid;
		l->n_thinned += n.last_txid <= l->fine;
	}
	return 0;
}

/* On and on, each time after the grace: in the end nothing waits, and no segment of the past is there. */
static void check_gone(struct world *w, const struct retain_policy *policy, int64_t *now)
{
	struct retain_result res = {.deleted = 1};
	struct err err = ERR_INIT;
	struct left l = {0};

	for (int i = 0; res.deleted + res.expiring; i++) {
		if (i == 40)
			synth_die("it finds no end");
		forget_all(w->s->root); /* to look, whether it is due or not */
		pass(w, policy, *now);
		forget_all(w->s->root);
		synth_must(retain_at(w->s->root, w->store, policy, *now, true, &res, &err), &err,
		           "preview");
		*now += policy->grace_us + 1;
	}
	l.fine = w->k.fine;
	synth_must(store_list(w->store, "", NULL, true, find_sealed, &l, &err), &err, "list");
	if (w->k.fine) /* one that the moment itself lies in can be there */
		assert_true(l.n_thinned <= 1);
}

static void test_any_history(void **state)
{
	uint64_t seed = test_seed(), thinned = 0;

	/* Few histories can by chance leave little to thin: then some more. */
	for (unsigned i = 0; i < test_rounds(25) || (thinned <= 100 && i < 100); i++) {
		cleanup_free char *root = test_folder();
		struct retain_policy policy;
		struct world w;

		fprintf(stderr, "history %llu\n", (unsigned long long)(seed + i));
		make_world(&w, root, seed + i);
		go_on(&w, 40);
		int64_t now = w.k.times[w.k.n - 1];
		for (unsigned k = 0; k < 5; k++) {
			if (rng_chance(&w.s->rng, 40))
				random_mark(&w);
			if (rng_chance(&w.s->rng, 50))
				retain_here(&w, now);
			thinned_random_policy(&w.s->rng, &policy);
			int64_t span = w.k.times[w.k.n - 1] - w.k.times[0];
			now += (int64_t)rng_below(&w.s->rng,
			                          (uint64_t)(span + 2 * policy.grace_us + HOUR));
			pass(&w, &policy, now);
			go_on(&w, 15);
			compare_now(&w, w.store, w.k.alive, true);
			now = now > w.k.times[w.k.n - 1] ? now : w.k.times[w.k.n - 1];
		}
		check_gone(&w, &policy, &now);
		thinned += w.k.fine;
		free_world(&w);
		test_remove(root);
	}
	printf("%" PRIu64 " transactions thinned\n", thinned);
	assert_true(thinned > 100);
}

/* ---- failing at each request ---- */

static int copy_entry(void *ctx, const struct store_entry *e, struct err *err)
{
	struct store **both = ctx;
	cleanup_buf struct buf b = BUF_INIT((size_t)1 << 30);

	int rc = store_get(both[0], e->key, b.max_bytes, &b, err);
	return rc < 0 ? rc : store_put_bytes(both[1], e->key, b.data, b.len, 0, err);
}

static struct store *clone_of(struct store *from)
{
	struct store *both[2] = {from, NULL};
	struct err err = ERR_INIT;

	synth_must(store_open_memory(&both[1], &err), &err, "store");
	synth_must(store_list(from, "", NULL, true, copy_entry, both, &err), &err, "clone");
	return both[1];
}

/* What a pass at `now` would keep. */
static bool *expect(struct world *w, const struct retain_policy *policy, int64_t now)
{
	bool *after = calloc(w->k.n, sizeof(*after));
	struct retain_result res;
	struct err err = ERR_INIT;

	assert_non_null(after);
	forget_all(w->s->root);
	synth_must(retain_at(w->s->root, w->store, policy, now, true, &res, &err), &err, "preview");
	memcpy(after, w->k.alive, w->k.n);
	struct kept then = {w->k.times, after, w->k.n, w->k.fine};
	kept_pass(&then, policy, now, w->marks, w->n_marks, res.fine_txid);
	return after;
}

/* A world with segments to thin, and what a pass at *now would keep of it. */
static bool *make_sweep(struct world *w, const char *root, uint64_t seed,
                        const struct retain_policy *policy, int64_t *now)
{
	make_world(w, root, seed);
	for (unsigned i = 0; i < 4; i++)
		go_on(w, 12);
	synth_cut(w->s);
	thinned_upkeep(w->s, NULL);
	thinned_forget_objects(w->s);
	ship(w);
	random_mark(w);
	if (seed % 2) { /* over what a first one left */
		pass(w, policy, w->k.times[w->k.n - 1]);
		go_on(w, 20);
	}
	*now = w->k.times[w->k.n - 1] + (w->k.times[w->k.n - 1] - w->k.times[0]) / 2 + HOUR;
	return expect(w, policy, *now);
}

/* How a request fails: all from then on, or it alone; before it took effect, or after; or it is denied. */
struct failing {
	const char *name;
	bool after, once;
	enum err_kind kind;
};
static const struct failing failings[] = {
        {"before", false, false, ERR_UNAVAILABLE},
        {"after", true, false, ERR_UNAVAILABLE},
        {"denied", false, false, ERR_DENIED},
        {"once, before", false, true, ERR_UNAVAILABLE},
        {"once, after", true, true, ERR_UNAVAILABLE},
        {"once, denied", false, true, ERR_DENIED},
};
#define N_FAILINGS (sizeof(failings) / sizeof(*failings))

/* `at` requests succeed, one fails; then a pass that meets no failure.  False: there were not so many. */
static bool fail_at(struct world *w, const struct retain_policy *policy, int64_t now,
                    const bool *after, const struct failing *f, long at)
{
	struct store *store = clone_of(w->store);
	struct breaking b = break_after(store, at, f->after);
	struct retain_result res;
	struct err err = ERR_INIT;

	b.once = f->once;
	b.kind = f->kind;
	forget_all(w->s->root);
	int rc = retain_at(w->s->root, &b.base, policy, now, false, &res, &err);
	if (rc < 0 && err.kind != f->kind)
		synth_die("%s, request %ld: %s (%s)", f->name, at, err.msg,
		          err_kind_name(err.kind));
	bool failed = (long)b.n > at;
	assert_true(failed || rc == 0);
	compare_now(w, store, after, false);
	err = (struct err)ERR_INIT;
	synth_must(retain_at(w->s->root, store, policy, now, false, &res, &err), &err,
	           "the pass after it");
	compare_now(w, store, after, true);
	store_free(store);
	return failed;
}

static void test_failing_anywhere(void **state)
{
	uint64_t seed = test_seed();
	long step = getenv("ASOF_TEST_SHORT") ? 7 : 1;

	for (unsigned i = 0; i < test_rounds(4); i++) {
		cleanup_free char *root = test_folder();
		struct retain_policy policy;
		struct world w;
		int64_t now;

		/* All in one pass; or in the one that deletes what another one told and noted. */
		thinned_policy(&policy, "all:20m,10m:5h,1h:365d", i < 2 ? 0 : HOUR);
		cleanup_free bool *after = make_sweep(&w, root, seed + i, &policy, &now);
		if (i >= 2) {
			forget_all(root);
			pass(&w, &policy, now);
			now += policy.grace_us;
			free(after);
			after = expect(&w, &policy, now);
		}
		for (size_t f = 0; f < N_FAILINGS; f++) {
			long at = (long)f % step;
			while (fail_at(&w, &policy, now, after, &failings[f], at))
				at += step;
			printf("%s: failed at one in %ld of %ld requests\n", failings[f].name, step,
			       at);
			assert_true(at > 10);
		}
		free_world(&w);
		test_remove(root);
	}
}

/* At each request somebody comes to read, and somebody is there since before the pass. */
struct onlooker {
	struct world *w;
	struct store *store;
	const bool *after;
	struct reader there;
	unsigned n;
};

static void look_on(void *ctx)
{
	struct onlooker *o = ctx;

	if (o->n++ % 2 == 0)
		return;
	compare_now(o->w, o->store, o->after, false);
	compare(o->w, o->there.h, o->after, false);
}

static void test_readers_at_any_instant(void **state)
{
	uint64_t seed = test_seed();

	for (unsigned i = 0; i < test_rounds(3); i++) {
		cleanup_free char *root = test_folder();
		struct retain_policy policy;
		struct retain_result res;
		struct err err = ERR_INIT;
		struct world w;
		int64_t now;

		thinned_policy(&policy, "all:20m,10m:5h,1h:365d", 0);
		cleanup_free bool *after = make_sweep(&w, root, seed + 50 + i, &policy, &now);
		struct onlooker o = {.w = &w, .store = w.store, .after = after};
		open_reader(&o.there, w.store);
		compare(&w, o.there.h, after, false);
		struct breaking b = break_after(w.store, -1, false);
		b.before = look_on;
		b.ctx = &o;
		synth_must(retain_at(root, &b.base, &policy, now, false, &res, &err), &err,
		           "retain");
		compare(&w, o.there.h, after, false);
		close_reader(&o.there);
		compare_now(&w, w.store, after, true);
		free_world(&w);
		test_remove(root);
	}
}

/* A store that fails now and then, in all its ways: whatever a pass met, the next one is right. */
static void test_faults(void **state)
{
	uint64_t seed = test_seed();
	unsigned failed = 0;

	for (unsigned i = 0; i < test_rounds(10); i++) {
		cleanup_free char *root = test_folder();
		struct retain_policy policy;
		struct retain_result res;
		struct world w;
		int64_t now;

		thinned_policy(&policy, "all:20m,10m:5h,1h:365d", 0);
		cleanup_free bool *after = make_sweep(&w, root, seed + 80 + i, &policy, &now);
		for (unsigned k = 0; k < 5; k++) {
			const struct store_faults faults = {.seed = seed + k,
			                                    .fail_permille = 30,
			                                    .lost_permille = 30,
			                                    .cut_permille = 20,
			                                    .flip_permille = 20};
			struct store *faulty, *lent = clone_of(w.store);
			struct err err = ERR_INIT;
			synth_must(store_open_faulty(lent, &faults, &faulty, &err), &err, "faulty");
			failed += retain_at(root, faulty, &policy, now, false, &res, &err) < 0;
			compare_now(&w, lent, after, false);
			err = (struct err)ERR_INIT;
			synth_must(retain_at(root, lent, &policy, now, false, &res, &err), &err,
			           "again");
			compare_now(&w, lent, after, true);
			store_free(faulty);
			forget_all(root);
		}
		free_world(&w);
		test_remove(root);
	}
	printf("%u passes failed\n", failed);
	assert_true(failed > 0);
}

/* ---- denied ---- */

static int deny(struct store *s, const char *key, struct err *err)
{
	return err_set(err, ERR_DENIED, 0, "not for you");
}

static void test_denied(void **state)
{
	cleanup_free char *root = test_folder();
	struct retain_policy policy;
	struct retain_result res;
	struct ship_retained rec;
	struct err err = ERR_INIT;
	struct world w;
	int64_t now;

	thinned_policy(&policy, "all:20m,10m:5h,1h:365d", 0);
	cleanup_free bool *after = make_sweep(&w, root, 4, &policy, &now);
	struct breaking b = break_after(w.store, -1, false);
	struct store_ops ops = *b.base.ops;
	ops.remove = deny;
	b.base.ops = &ops;
	for (int i = 0; i < 3; i++) {
		synth_must(retain_at(root, &b.base, &policy, now, false, &res, &err), &err,
		           "retain");
		assert_true(res.no_delete);
		assert_int_equal(res.deleted, 0);
		compare_now(&w, w.store, after, true);
		synth_must(ship_retained_read(root, "x.db", URL, &rec, &err), &err, "read");
		assert_true(rec.no_delete);
	}
	/* Once it is allowed, it goes. */
	synth_must(retain_at(root, w.store, &policy, now, false, &res, &err), &err, "retain");
	assert_false(res.no_delete);
	assert_true(res.deleted > 0);
	compare_now(&w, w.store, after, true);
	free_world(&w);
	test_remove(root);
}

/* ---- marks that are taken away ---- */

static bool is_there(struct store *store, const char *file)
{
	cleanup_buf struct buf b = BUF_INIT(4096);
	char key[100];

	snprintf(key, sizeof(key), "local/x.db/%s", file);
	return store_get(store, key, 4096, &b, NULL) == 0;
}

static void ship_marks(const char *root, struct store *store)
{
	struct shipper *sh = open_shipper(root, store, HOUR);
	struct err err = ERR_INIT;

	synth_must(ship_all(sh, &err), &err, "ship");
	shipper_free(sh);
}

static void take_away(struct world *w, const char *name)
{
	struct err err = ERR_INIT;

	synth_must(retain_unmark(w->s->root, "x.db", name, &err), &err, "unmark");
	w->n_marks = 0;
}

/* Some moment of the past, which a mark alone keeps. */
static uint64_t mark_past(struct world *w, const char *name)
{
	struct err err = ERR_INIT;
	uint64_t t = 0;

	for (uint64_t x = 3; x < w->k.n / 2 && !t; x++)
		if (w->k.alive[x - 1] && w->k.alive[x] && w->k.alive[x - 2])
			t = x;
	assert_true(t > 0);
	synth_must(retain_mark(w->s->root, "x.db", name, t, &err), &err, "mark");
	w->marks[0] = t;
	w->n_marks = 1;
	return t;
}

static void make_marked(struct world *w, const char *root, struct retain_policy *policy,
                        int64_t *now)
{
	thinned_policy(policy, "all:20m", 0);
	make_world(w, root, 14);
	for (unsigned i = 0; i < 4; i++)
		go_on(w, 12);
	synth_cut(w->s);
	thinned_upkeep(w->s, NULL);
	thinned_forget_objects(w->s);
	ship(w);
	*now = w->k.times[w->k.n - 1] + 100 * DAY;
}

/* It goes there, and its moment with it, by a shipper that was there or by one that comes. */
static void test_unmark(void **state)
{
	for (unsigned i = 0; i < 4; i++) {
		cleanup_free char *root = test_folder();
		struct retain_policy policy;
		struct world w;
		int64_t now;

		make_marked(&w, root, &policy, &now);
		struct shipper *sh = open_shipper(root, w.store, HOUR);
		struct err err = ERR_INIT;
		uint64_t t = mark_past(&w, "m");
		synth_must(ship_all(sh, &err), &err, "ship");
		assert_true(is_there(w.store, "m.mark"));
		pass(&w, &policy, now);
		assert_true(w.k.alive[t - 1]);
		if (i % 2)
			shipper_free(take_ptr(sh));
		struct breaking b = break_after(w.store, -1, false);
		if (i < 2)
			take_away(&w, "m");
		if (i >= 2) { /* none of its own: what another one marked there, or anew, stays */
			cleanup_buf struct buf note = BUF_INIT(4096);
			synth_must(store_get(w.store, "local/x.db/m.mark", 4096, &note, &err), &err,
			           "");
			note.data[note.len - 20] ^= 1;
			synth_must(store_put_bytes(w.store, "local/x.db/m.mark", note.data,
			                           note.len, 0, &err),
			           &err, "another's");
			synth_must(store_put_bytes(w.store, "local/x.db/other.mark", note.data,
			                           note.len, 0, &err),
			           &err, "another's");
			take_away(&w, "m");
		}
		if (sh)
			synth_must(ship_all(sh, &err), &err, "ship");
		else
			ship_marks(root, w.store);
		assert_int_equal(is_there(w.store, "m.mark"), i >= 2);
		assert_int_equal(is_there(w.store, "other.mark"), i >= 2);
		if (i < 2) {
			pass(&w, &policy, now); /* it is due by that alone */
			assert_false(w.k.alive[t - 1]);
		}
		if (sh) /* and nothing more is asked */
			shipper_free(sh);
		sh = open_shipper(root, &b.base, HOUR);
		for (int k = 0; k < 5; k++)
			synth_must(ship_all(sh, &err), &err, "ship");
		uint64_t n = b.n;
		for (int k = 0; k < 20; k++)
			synth_must(ship_all(sh, &err), &err, "ship");
		assert_int_equal(b.n, n);
		shipper_free(sh);
		free_world(&w);
		test_remove(root);
	}
}

/* One that never had it leaves it there. */
static void test_unmarked_elsewhere(void **state)
{
	cleanup_free char *root = test_folder(), *other = NULL;
	struct retain_policy policy;
	struct err err = ERR_INIT;
	char from[200];
	struct world w;
	int64_t now;

	make_marked(&w, root, &policy, &now);
	other = copy_of(root);
	mark_past(&w, "m");
	ship_marks(root, w.store);
	assert_true(is_there(w.store, "m.mark"));
	const struct ship_options o = {
	        .archive = other, .name = "x.db", .url = URL, .store = w.store, .grace_us = HOUR};
	synth_must(ship_take_over(&o, from, &err), &err, "take over");
	ship_marks(other, w.store);
	assert_true(is_there(w.store, "m.mark"));
	/* The one before, which wakes up, is refused. */
	take_away(&w, "m");
	struct shipper *sh = open_shipper(root, w.store, HOUR);
	assert_int_equal(ship_all(sh, &err), -ERR_REFUSED);
	shipper_free(sh);
	assert_true(is_there(w.store, "m.mark"));
	free_world(&w);
	test_remove(root);
	test_remove(other);
}

/* An archive that is being deleted while the mark is on its way out. */
struct deleting {
	const struct breaking *b;
	const char *source;
	long at, n, removed_at; /* requests; -1: never */
};

static void delete_source(void *ctx)
{
	struct deleting *d = ctx;

	if (d->b->removals && d->removed_at < 0)
		d->removed_at = d->n - 1;
	if (d->n++ == d->at)
		assert_int_equal(unlink(d->source), 0);
}

static void test_archive_deleted(void **state)
{
	cleanup_free char *root = test_folder();
	cleanup_free char *source = NULL, *kept = NULL;
	struct retain_policy policy;
	struct err err = ERR_INIT;
	struct world w;
	int64_t now;
	long removed_at = 1;

	make_marked(&w, root, &policy, &now);
	assert_true(asprintf(&source, "%s/local/x.db/source", root) > 0 &&
	            asprintf(&kept, "%s.kept", source) > 0);
	for (long at = -1; at < removed_at; at++) {
		mark_past(&w, "m");
		ship_marks(root, w.store);
		assert_int_equal(link(source, kept), 0);
		take_away(&w, "m");
		struct breaking b = break_after(w.store, -1, false);
		struct deleting d = {&b, source, at, 0, -1};
		b.before = delete_source;
		b.ctx = &d;
		struct shipper *sh = open_shipper(root, &b.base, HOUR);
		(void)!ship_all(sh, &err);
		shipper_free(sh);
		assert_int_equal(is_there(w.store, "m.mark"), at >= 0);
		if (at < 0)
			removed_at = d.removed_at < 0 ? d.n - 1 : d.removed_at;
		if (at >= 0)
			assert_int_equal(rename(kept, source), 0);
		else
			assert_int_equal(unlink(kept), 0);
		ship_marks(root, w.store);
		assert_false(is_there(w.store, "m.mark"));
	}
	assert_true(removed_at > 3);
	free_world(&w);
	test_remove(root);
}

/* Each request failing, before and after it took effect; and deletion denied. */
static void test_unmark_failing(void **state)
{
	cleanup_free char *root = test_folder();
	struct retain_policy policy;
	struct err err = ERR_INIT;
	struct world w;
	int64_t now;
	bool ended = false;

	make_marked(&w, root, &policy, &now);
	for (long at = 0; !ended; at++) {
		mark_past(&w, "m");
		ship_marks(root, w.store);
		assert_true(is_there(w.store, "m.mark"));
		take_away(&w, "m");
		struct breaking b = break_after(w.store, at / 2, at % 2);
		struct shipper *sh = open_shipper(root, &b.base, HOUR);
		err = (struct err)ERR_INIT;
		ended = ship_all(sh, &err) == 0;
		shipper_free(sh);
		ship_marks(root, w.store);
		assert_false(is_there(w.store, "m.mark"));
		assert_true(at < 200);
	}
	mark_past(&w, "m");
	ship_marks(root, w.store);
	take_away(&w, "m");
	struct breaking b = break_after(w.store, -1, false);
	struct store_ops ops = *b.base.ops;
	ops.remove = deny;
	b.base.ops = &ops;
	for (int i = 0; i < 3; i++)
		ship_marks(root, &b.base);
	assert_true(is_there(w.store, "m.mark"));
	ship_marks(root, w.store); /* nothing changed: it is not tried again */
	mark_past(&w, "n");
	ship_marks(root, w.store);
	assert_false(is_there(w.store, "m.mark"));
	assert_true(is_there(w.store, "n.mark"));
	free_world(&w);
	test_remove(root);
}

/* ---- two writers ---- */

struct taking {
	const char *root;
	struct store *store;
	long at, n;
	bool took;
	const struct breaking *b;
	uint64_t writes; /* until then, of the old one */
};

static void take_over(void *ctx)
{
	struct taking *t = ctx;
	const struct ship_options o = {
	        .archive = t->root, .name = "x.db", .url = URL, .store = t->store, .grace_us = 1};
	struct err err = ERR_INIT;
	char from[200];

	if (t->n++ != t->at)
		return;
	synth_must(ship_take_over(&o, from, &err), &err, "take over");
	t->took = true;
	if (t->b)
		t->writes = t->b->puts + t->b->removals;
}

/* Whenever it is taken over: the old writer deletes nothing from then on, the new one has it all. */
static void test_two_writers(void **state)
{
	uint64_t seed = test_seed();
	unsigned n = test_rounds(12);

	for (unsigned i = 0; i < (n < 2 ? 2 : n); i++) { /* both ways of taking over */
		cleanup_free char *root = test_folder(), *other = NULL;
		struct retain_policy policy, day;
		struct retain_result res;
		struct err err = ERR_INIT;
		struct world w;
		int64_t now;

		thinned_policy(&policy, "all:20m,10m:5h,1h:365d", 0);
		thinned_policy(&day, "all:20m,10m:5h,1h:365d", DAY);
		cleanup_free bool *after = make_sweep(&w, root, seed + i, &policy, &now);
		if (i % 2) { /* the other goes on in the same lineage */
			synth_random_commit(w.s);
			synth_publish(w.s);
		}
		other = copy_of(root);
		struct taking t = {.root = other, .store = w.store, .at = 2 + (long)i * 3};
		struct breaking b = break_after(w.store, -1, false);
		const struct ship_options o = {.archive = root,
		                               .name = "x.db",
		                               .url = URL,
		                               .store = &b.base,
		                               .grace_us = 1,
		                               .claim_wait_us = 4}; /* it looks before each write */
		b.before = take_over;
		b.ctx = &t;
		t.b = &b;
		int rc = ship_retain(&o, &policy, now, false, thinned_log(), &res, &err);
		if (!t.took) {
			t.at = t.n;
			take_over(&t);
		} else {
			assert_true(rc == 0 || err.kind == ERR_REFUSED || err.kind == ERR_DAMAGED);
			/* What was allowed just before. */
			assert_true(b.puts + b.removals - t.writes <= 1);
		}
		compare_now(&w, w.store, after, false);
		/* Later, it is refused, whatever it knows. */
		uint64_t n_before = w.k.n;
		err = (struct err)ERR_INIT;
		forget_all(root);
		assert_int_equal(retain_at(root, w.store, &policy, now + DAY, false, &res, &err),
		                 -ERR_REFUSED);
		assert_int_equal(res.deleted + res.made_bytes, 0);
		/* The new one leaves it alone for a grace time. */
		synth_must(retain_at(other, w.store, &day, clock_now_us(), false, &res, &err), &err,
		           "too early");
		assert_int_equal(res.fine_txid, 0);
		assert_int_equal(w.k.n, n_before);
		free_world(&w);
		test_remove(root);
		test_remove(other);
	}
}

/* ---- requests ---- */

static void test_idle(void **state)
{
	cleanup_free char *root = test_folder();
	struct retain_policy policy;
	struct retain_result res;
	struct err err = ERR_INIT;
	struct ship_retained rec;
	struct world w;
	int64_t now;

	thinned_policy(&policy, "all:20m,10m:5h,1h:365d", 0);
	cleanup_free bool *after = make_sweep(&w, root, 6, &policy, &now);
	for (int i = 0; i < 6; i++)
		synth_must(retain_at(root, w.store, &policy, now, false, &res, &err), &err,
		           "retain");
	struct breaking b = break_after(w.store, -1, false);
	synth_must(retain_at(root, &b.base, &policy, now, false, &res, &err), &err, "retain");
	assert_int_equal(b.n, 0);
	synth_must(ship_retained_read(root, "x.db", URL, &rec, &err), &err, "read");
	assert_true(rec.due_us > now && rec.requests[STORE_PUT] > 0 && rec.deleted > 0);
	/* Without news it comes seldom: a year of days, and a handful of passes that look. */
	unsigned looked = 0;
	for (int day = 1; day <= 300; day++) {
		uint64_t n = b.n;
		synth_must(retain_at(root, &b.base, &policy, now + day * DAY, false, &res, &err),
		           &err, "retain");
		looked += b.n != n;
	}
	printf("looked on %u of 300 days\n", looked);
	assert_true(looked < 60);
	/* Nor does the shipper ask for more than what a change costs. */
	struct shipper *sh = open_shipper(root, &b.base, 1);
	for (int i = 0; i < 3; i++) /* and what is covered goes */
		synth_must(ship_all(sh, &err), &err, "ship");
	uint64_t n = b.n;
	for (int i = 0; i < 20; i++)
		synth_must(ship_all(sh, &err), &err, "ship");
	assert_int_equal(b.n, n);
	shipper_free(sh);
	free_world(&w);
	test_remove(root);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_any_history),
	        cmocka_unit_test(test_failing_anywhere),
	        cmocka_unit_test(test_readers_at_any_instant),
	        cmocka_unit_test(test_faults),
	        cmocka_unit_test(test_denied),
	        cmocka_unit_test(test_unmark),
	        cmocka_unit_test(test_unmarked_elsewhere),
	        cmocka_unit_test(test_archive_deleted),
	        cmocka_unit_test(test_unmark_failing),
	        cmocka_unit_test(test_two_writers),
	        cmocka_unit_test(test_idle),
	};
	log_set_level(LOG_ERROR);
	log_set_fd(getenv("ASOF_TEST_LOG") ? 2 : -1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
