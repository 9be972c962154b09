/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Retention at a destination: what its own policy keeps reads as it did, at each request of a pass,
 * whichever fails; what it does not keep is told as that, and gone after the grace time; nobody but the
 * writer deletes; and where nothing came no request is made.
 */
#include "engine/base/log.h"
#include "engine/store/denials.h"
#include "engine/store/faulty.h"
#include "tests/lib/world.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static _Atomic bool stop;

/* The archive's own retention, besides. */
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
		world_forget(w->s->root); /* to look, whether it is due or not */
		world_pass(w, policy, *now);
		world_forget(w->s->root);
		synth_must(world_retain_at(w->s->root, w->store, policy, *now, true, &res, &err),
		           &err, "preview");
		*now += policy->grace_us + 1;
	}
	l.fine = w->k.fine;
	synth_must(store_list(w->store, "", NULL, true, find_sealed, &l, &err), &err, "list");
	if (w->k.fine) /* one that the moment itself lies in can be there */
		assert_true(l.n_thinned <= 1);
}

/* One after which something was wrong once: a fuzzy base whose way to its state retention thinned. */
static const uint64_t known_histories[] = {1795786396568257};

static void thin_any_history(uint64_t seed, uint64_t *thinned)
{
	cleanup_free char *root = test_folder();
	struct retain_policy policy;
	struct world w;

	fprintf(stderr, "history %llu\n", (unsigned long long)seed);
	world_make(&w, root, seed);
	world_go_on(&w, 40);
	int64_t now = w.k.times[w.k.n - 1];
	for (unsigned k = 0; k < 5; k++) {
		if (rng_chance(&w.s->rng, 40))
			world_random_mark(&w);
		if (rng_chance(&w.s->rng, 50))
			retain_here(&w, now);
		thinned_random_policy(&w.s->rng, &policy);
		int64_t span = w.k.times[w.k.n - 1] - w.k.times[0];
		now += (int64_t)rng_below(&w.s->rng, (uint64_t)(span + 2 * policy.grace_us + HOUR));
		world_pass(&w, &policy, now);
		world_go_on(&w, 15);
		world_compare_now(&w, w.store, w.k.alive, true);
		now = now > w.k.times[w.k.n - 1] ? now : w.k.times[w.k.n - 1];
	}
	check_gone(&w, &policy, &now);
	*thinned += w.k.fine;
	world_free(&w);
	test_remove(root);
}

static void test_any_history(void **state)
{
	uint64_t seed = test_seed(), thinned = 0;

	for (size_t i = 0; i < sizeof(known_histories) / sizeof(*known_histories); i++)
		thin_any_history(known_histories[i], &thinned);
	thinned = 0;
	/* Few histories can by chance leave little to thin: then some more. */
	for (unsigned i = 0; i < test_rounds(25) || (thinned <= 100 && i < 100); i++)
		thin_any_history(seed + i, &thinned);
	printf("%" PRIu64 " transactions thinned\n", thinned);
	assert_true(thinned > 100);
}

/* ---- failing at each request ---- */

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
	struct store *store = world_clone(w->store);
	struct breaking b = break_after(store, at, f->after);
	struct retain_result res;
	struct err err = ERR_INIT;

	b.once = f->once;
	b.kind = f->kind;
	world_forget(w->s->root);
	int rc = world_retain_at(w->s->root, &b.base, policy, now, false, &res, &err);
	if (rc < 0 && err.kind != f->kind)
		synth_die("%s, request %ld: %s (%s)", f->name, at, err.msg,
		          err_kind_name(err.kind));
	bool failed = (long)b.n > at;
	assert_true(failed || rc == 0);
	world_compare_now(w, store, after, false);
	err = (struct err)ERR_INIT;
	synth_must(world_retain_at(w->s->root, store, policy, now, false, &res, &err), &err,
	           "the pass after it");
	world_compare_now(w, store, after, true);
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
		cleanup_free bool *after = world_sweep(&w, root, seed + i, &policy, &now);
		if (i >= 2) {
			world_forget(root);
			world_pass(&w, &policy, now);
			now += policy.grace_us;
			free(after);
			after = world_expect(&w, &policy, now);
		}
		for (size_t f = 0; f < N_FAILINGS; f++) {
			long at = (long)f % step;
			while (fail_at(&w, &policy, now, after, &failings[f], at))
				at += step;
			printf("%s: failed at one in %ld of %ld requests\n", failings[f].name, step,
			       at);
			assert_true(at > 10);
		}
		world_free(&w);
		test_remove(root);
	}
}

/* At each request somebody comes to read, and somebody is there since before the pass. */
struct onlooker {
	struct world *w;
	struct store *store;
	const bool *after;
	struct world_reader there;
	unsigned n;
};

static void look_on(void *ctx)
{
	struct onlooker *o = ctx;

	if (o->n++ % 2 == 0)
		return;
	world_compare_now(o->w, o->store, o->after, false);
	world_compare(o->w, o->there.h, o->after, false);
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
		cleanup_free bool *after = world_sweep(&w, root, seed + 50 + i, &policy, &now);
		struct onlooker o = {.w = &w, .store = w.store, .after = after};
		world_open_reader(&o.there, w.store);
		world_compare(&w, o.there.h, after, false);
		struct breaking b = break_after(w.store, -1, false);
		b.before = look_on;
		b.ctx = &o;
		synth_must(world_retain_at(root, &b.base, &policy, now, false, &res, &err), &err,
		           "retain");
		world_compare(&w, o.there.h, after, false);
		world_close_reader(&o.there);
		world_compare_now(&w, w.store, after, true);
		world_free(&w);
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
		cleanup_free bool *after = world_sweep(&w, root, seed + 80 + i, &policy, &now);
		for (unsigned k = 0; k < 5; k++) {
			const struct store_faults faults = {.seed = seed + k,
			                                    .fail_permille = 30,
			                                    .lost_permille = 30,
			                                    .cut_permille = 20,
			                                    .flip_permille = 20};
			struct store *faulty, *lent = world_clone(w.store);
			struct err err = ERR_INIT;
			synth_must(store_open_faulty(lent, &faults, &faulty, &err), &err, "faulty");
			failed +=
			        world_retain_at(root, faulty, &policy, now, false, &res, &err) < 0;
			world_compare_now(&w, lent, after, false);
			err = (struct err)ERR_INIT;
			synth_must(world_retain_at(root, lent, &policy, now, false, &res, &err),
			           &err, "again");
			world_compare_now(&w, lent, after, true);
			store_free(faulty);
			world_forget(root);
		}
		world_free(&w);
		test_remove(root);
	}
	printf("%u passes failed\n", failed);
	assert_true(failed > 0);
}

/* ---- denied ---- */

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
	cleanup_free bool *after = world_sweep(&w, root, 4, &policy, &now);
	struct breaking b = break_after(w.store, -1, false);
	b.denies = deny_all;
	for (int i = 0; i < 9; i++) {
		uint64_t before = b.removals;
		synth_must(world_retain_at(root, &b.base, &policy, now + i, false, &res, &err),
		           &err, "retain");
		assert_true(res.no_delete);
		/* Nothing went the last time: it is asked once. */
		assert_in_range(b.removals - before, 1, i ? 1 : DENIALS_MAX);
		assert_true(i || b.removals > 1);
		assert_int_equal(res.deleted, 0);
		world_compare_now(&w, w.store, after, true);
		synth_must(ship_retained_read(root, "x.db", URL, &rec, &err), &err, "read");
		assert_true(rec.no_delete);
	}
	/* Once it is allowed, it goes. */
	synth_must(world_retain_at(root, w.store, &policy, now, false, &res, &err), &err, "retain");
	assert_false(res.no_delete);
	assert_true(res.deleted > 0);
	world_compare_now(&w, w.store, after, true);
	world_free(&w);
	test_remove(root);
}

/* ---- what is locked ---- */

#define KEYS_MAX 400
struct keys {
	char (*v)[STORE_KEY_MAX];
	size_t n;
};

static int take_key(void *ctx, const struct store_entry *e, struct err *err)
{
	struct keys *k = ctx;

	assert_true(k->n < KEYS_MAX);
	snprintf(k->v[k->n++], STORE_KEY_MAX, "%s", e->key);
	return 0;
}

static struct keys keys_of(struct store *store)
{
	struct keys k = {.v = calloc(KEYS_MAX, sizeof(*k.v))};
	struct err err = ERR_INIT;

	assert_non_null(k.v);
	synth_must(store_list(store, "", NULL, true, take_key, &k, &err), &err, "list");
	return k;
}

static bool has_key(const struct keys *k, const char *key)
{
	for (size_t i = 0; i < k->n; i++)
		if (strcmp(k->v[i], key) == 0)
			return true;
	return false;
}

static bool is_level0(const char *key)
{
	return strstr(key, "/segment/") && strstr(key, ".wal.gz") && strlen(strrchr(key, '/')) < 35;
}

static bool is_locked(void *ctx, const char *key)
{
	return strcmp(ctx, key) == 0;
}

/* By their numbers: a segment and its table. */
static bool same_segment(const char *a, const char *b)
{
	size_t n = (size_t)(strrchr(a, '/') - a);

	n += strcspn(a + n, ".");
	return strstr(a, "/segment/") && strncmp(a, b, n + 1) == 0;
}

/* `locked` stays, and goes when it may; all else goes, but for segments behind what is of level 0. */
static void lock_one(struct world *w, const struct retain_policy *policy, int64_t now,
                     const bool *after, const struct keys *all, const struct keys *want,
                     char *locked)
{
	struct store *store = world_clone(w->store);
	struct breaking b = break_after(store, -1, false);
	struct retain_result res;
	struct ship_retained rec;
	struct err err = ERR_INIT;

	b.denies = is_locked;
	b.denies_ctx = locked;
	world_forget(w->s->root);
	for (int k = 0; k < 2; k++) {
		synth_must(world_retain_at(w->s->root, &b.base, policy, now, false, &res, &err),
		           &err, "retain");
		world_compare_now(w, store, after, true);
		assert_int_equal(res.denied, 1);
		assert_non_null(strstr(res.denial, locked));
		synth_must(ship_retained_read(w->s->root, "x.db", URL, &rec, &err), &err, "read");
		assert_int_equal(rec.denied, 1);
	}
	assert_int_equal(b.denied, 2); /* once in each pass */
	struct keys left = keys_of(store);
	for (size_t i = 0; i < all->n; i++) {
		const char *key = all->v[i];
		bool stays = strcmp(key, locked) == 0 || same_segment(key, locked);
		if (is_level0(locked) && strstr(key, "/segment/")) {
			if (strcmp(key, locked) > 0 && !has_key(&left, key) && !is_level0(key))
				synth_die("'%s' is gone, behind '%s'", key, locked);
			continue;
		}
		if (has_key(&left, key) != (stays || has_key(want, key)))
			synth_die("'%s' %s, with '%s' locked", key,
			          has_key(&left, key) ? "stays" : "is gone", locked);
	}
	free(left.v);
	synth_must(world_retain_at(w->s->root, store, policy, now, false, &res, &err), &err,
	           "retain");
	assert_int_equal(res.denied, 0);
	world_compare_now(w, store, after, true);
	left = keys_of(store);
	for (size_t i = 0; i < left.n; i++)
		assert_true(has_key(want, left.v[i]));
	free(left.v);
	store_free(store);
}

/* Of the second half sealed segments alone are there, which cover all; the first half is thinned. */
static bool *thin_half(struct world *w, struct retain_policy *policy, int64_t now)
{
	struct keys all = keys_of(w->store);
	struct object_name n;
	struct err err = ERR_INIT;
	char tiers[80];

	for (size_t i = 0; i < all.n; i++)
		if (is_level0(all.v[i]) && object_name_parse(strrchr(all.v[i], '/') + 1, &n) &&
		    n.first_txid > w->k.n / 2)
			synth_must(store_remove(w->store, all.v[i], &err), &err, "remove");
	free(all.v);
	snprintf(tiers, sizeof(tiers), "all:%" PRId64 "s,1m:3650d",
	         (now - w->k.times[w->k.n / 2]) / US_PER_SECOND);
	thinned_policy(policy, tiers, 0);
	return world_expect(w, policy, now);
}

/* Each object that is to go is locked, one at a time. */
static void test_one_is_locked(void **state)
{
	unsigned n = 0, n_level0 = 0;

	for (unsigned i = 0; i < 4; i++) {
		cleanup_free char *root = test_folder();
		struct retain_policy policy;
		struct retain_result res;
		struct err err = ERR_INIT;
		struct world w;
		int64_t now;

		thinned_policy(&policy, "all:20m,10m:5h,1h:365d", 0);
		cleanup_free bool *after = world_sweep(&w, root, 4 + i, &policy, &now);
		if (i >= 2) {
			free(after);
			after = thin_half(&w, &policy, now);
		}
		struct store *free_one = world_clone(w.store);
		world_forget(root);
		synth_must(world_retain_at(root, free_one, &policy, now, false, &res, &err), &err,
		           "retain");
		struct keys all = keys_of(w.store), want = keys_of(free_one);
		for (size_t k = 0; k < all.n; k++)
			if (!has_key(&want, all.v[k])) {
				lock_one(&w, &policy, now, after, &all, &want, all.v[k]);
				n++;
				n_level0 += is_level0(all.v[k]);
			}
		free(all.v);
		free(want.v);
		store_free(free_one);
		world_free(&w);
		test_remove(root);
	}
	printf("%u objects, %u of level 0\n", n, n_level0);
	assert_true(n > 20 && n_level0 > 3);
}

static bool some_locked(void *ctx, const char *key)
{
	return hash64(key, strlen(key), *(const uint64_t *)ctx) % 100 < 40;
}

/* Many are, whichever: what is kept reads as it did, and in the end all goes. */
static void test_some_are_locked(void **state)
{
	uint64_t seed = test_seed();
	uint64_t stayed = 0;

	for (unsigned i = 0; i < test_rounds(12) || (stayed <= 20 && i < 60); i++) {
		cleanup_free char *root = test_folder();
		struct retain_policy policy;
		struct retain_result res;
		struct err err = ERR_INIT;
		struct world w;
		int64_t now;

		thinned_policy(&policy, "all:20m,10m:5h,1h:365d", 0);
		cleanup_free bool *after = world_sweep(&w, root, seed + 120 + i, &policy, &now);
		world_forget(root);
		for (int k = 0; k < 6; k++) {
			uint64_t which = seed + i + (uint64_t)k / 2;
			struct breaking b = break_after(w.store, -1, false);
			b.denies = some_locked;
			b.denies_ctx = &which;
			synth_must(
			        world_retain_at(root, &b.base, &policy, now + k, false, &res, &err),
			        &err, "retain");
			assert_true(b.denied == res.denied);
			assert_true(b.denied <= res.deleted + DENIALS_MAX);
			stayed += res.denied;
			world_compare_now(&w, w.store, after, true);
		}
		for (int k = 0; k < 3; k++)
			synth_must(
			        world_retain_at(root, w.store, &policy, now + 9, false, &res, &err),
			        &err, "retain");
		assert_int_equal(res.denied + res.expiring, 0);
		world_compare_now(&w, w.store, after, true);
		world_free(&w);
		test_remove(root);
	}
	printf("%" PRIu64 " times one stayed\n", stayed);
	assert_true(stayed > 20);
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
		cleanup_free bool *after = world_sweep(&w, root, seed + i, &policy, &now);
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
		world_compare_now(&w, w.store, after, false);
		/* Later, it is refused, whatever it knows. */
		uint64_t n_before = w.k.n;
		err = (struct err)ERR_INIT;
		world_forget(root);
		assert_int_equal(
		        world_retain_at(root, w.store, &policy, now + DAY, false, &res, &err),
		        -ERR_REFUSED);
		assert_int_equal(res.deleted + res.made_bytes, 0);
		/* The new one leaves it alone for a grace time. */
		synth_must(world_retain_at(other, w.store, &day, clock_now_us(), false, &res, &err),
		           &err, "too early");
		assert_int_equal(res.fine_txid, 0);
		assert_int_equal(w.k.n, n_before);
		world_free(&w);
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
	cleanup_free bool *after = world_sweep(&w, root, 6, &policy, &now);
	for (int i = 0; i < 6; i++)
		synth_must(world_retain_at(root, w.store, &policy, now, false, &res, &err), &err,
		           "retain");
	struct breaking b = break_after(w.store, -1, false);
	synth_must(world_retain_at(root, &b.base, &policy, now, false, &res, &err), &err, "retain");
	assert_int_equal(b.n, 0);
	synth_must(ship_retained_read(root, "x.db", URL, &rec, &err), &err, "read");
	assert_true(rec.due_us > now && rec.requests[STORE_PUT] > 0 && rec.deleted > 0);
	/* Without news it comes seldom: a year of days, and a handful of passes that look. */
	unsigned looked = 0;
	for (int day = 1; day <= 300; day++) {
		uint64_t n = b.n;
		synth_must(
		        world_retain_at(root, &b.base, &policy, now + day * DAY, false, &res, &err),
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
	world_free(&w);
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
	        cmocka_unit_test(test_one_is_locked),
	        cmocka_unit_test(test_some_are_locked),
	        cmocka_unit_test(test_two_writers),
	        cmocka_unit_test(test_idle),
	};
	log_set_level(LOG_ERROR);
	log_set_fd(getenv("ASOF_TEST_LOG") ? 2 : -1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
