/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a destination holds is the past of the archive: at each request, whichever fails, whoever
 * dies, and whoever else writes there.
 */
#include "engine/base/file.h"
#include "engine/base/log.h"
#include "engine/compact/compact.h"
#include "engine/retain/retain.h"
#include "engine/ship/ship.h"
#include "engine/store/store.h"
#include "tests/lib/memory.h"
#include "tests/lib/shipped.h"
#include "tests/lib/synth.h"

#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static _Atomic bool stop;

static void upkeep(struct synth *s)
{
	struct compactor *c;
	struct err err = ERR_INIT;
	bool did = true;

	synth_must(compactor_new(s->root, "x.db", &c, &err), &err, "compactor_new");
	while (did) {
		synth_must(compactor_step(c, &stop, &did, &err), &err, "compactor_step");
		synth_generation(s);
	}
	compactor_free(c);
	s->n_objects = 0; /* they were sealed, and joined */
}

static void some_more(struct synth *s)
{
	for (unsigned n = 0; n < 9; n++)
		synth_random_commit(s);
	if (rng_chance(&s->rng, 50))
		synth_cut(s);
	synth_publish(s);
	if (rng_chance(&s->rng, 25))
		upkeep(s);
}

static void test_any_history(void **state)
{
	uint64_t seed = test_seed();

	for (unsigned i = 0; i < test_rounds(30); i++) {
		cleanup_free char *root = test_folder();
		struct synth *s = make(root, seed + i);
		struct store *store;
		struct err err = ERR_INIT;
		struct ship_status st;

		fprintf(stderr, "history %llu\n", (unsigned long long)(seed + i));
		synth_must(store_open_memory(&store, &err), &err, "store");
		synth_random_history(s, 10 + (unsigned)rng_below(&s->rng, 60));
		struct shipper *sh = open_shipper(root, store, 1);
		int64_t began_us = clock_now_us();
		for (unsigned k = 0; k < 5; k++) {
			int64_t us;
			synth_must(ship_all(sh, &err), &err, "ship");
			assert_int_equal(check_held(s, store, WHOLE), newest(s));
			ship_status_get(sh, &st);
			assert_int_equal(st.replicated_txid, st.tip_txid);
			assert_in_range(st.progress_us, began_us, clock_now_us());
			some_more(s);
			if (rng_chance(&s->rng, 30))
				shipper_rest(sh, &us);
			if (rng_chance(&s->rng, 30)) { /* another process */
				shipper_free(sh);
				sh = open_shipper(root, store, 1);
			}
		}
		synth_must(ship_all(sh, &err), &err, "ship");
		assert_int_equal(check_held(s, store, WHOLE), newest(s));
		shipper_free(sh);
		store_free(store);
		synth_free(s);
		test_remove(root);
	}
}

/* Each request fails once, before it took effect or after; then all that follow; a new process goes
 * on. */
static void test_failing_anywhere(void **state)
{
	uint64_t seed = test_seed();
	long step = getenv("ASOF_TEST_SHORT") ? 5 : 1;

	for (unsigned i = 0; i < test_rounds(4); i++) {
		cleanup_free char *root = test_folder();
		struct synth *s = make(root, seed + 100 + i);
		struct err err = ERR_INIT;
		bool ended = false;
		long at = 0;

		synth_random_history(s, 30);
		for (; !ended; at += step) {
			struct store *store;
			forget(root); /* what another store had */
			synth_must(store_open_memory(&store, &err), &err, "store");
			struct breaking b = break_after(store, at / 2, at % 2);
			struct shipper *sh = open_shipper(root, &b.base, 1);
			int rc = ship_all(sh, &err);
			ended = rc == 0;
			assert_true(ended || err.kind == ERR_UNAVAILABLE);
			check_held(s, store, PARTLY);
			if (at % 3) { /* the same process, or another */
				shipper_free(sh);
				sh = open_shipper(root, store, 1);
				synth_must(ship_all(sh, &err), &err, "ship again");
			} else {
				b.left = -1;
				synth_must(ship_all(sh, &err), &err, "ship on");
			}
			shipper_free(sh);
			assert_int_equal(check_held(s, store, WHOLE), newest(s));
			store_free(store);
		}
		printf("failed at each of %ld requests, before and after\n", at / 2);
		assert_true(at > 10);
		synth_free(s);
		test_remove(root);
	}
}

/* The folder is made before the first commit is captured: that is no failure. */
static void test_nothing_yet(void **state)
{
	cleanup_free char *root = test_folder();
	char folder[600];
	struct store *store;
	struct err err = ERR_INIT;
	struct ship_status st;
	bool more;

	snprintf(folder, sizeof(folder), "%s/local", root);
	assert_int_equal(mkdir(folder, 0700), 0);
	snprintf(folder, sizeof(folder), "%s/local/x.db", root);
	assert_int_equal(mkdir(folder, 0700), 0);
	synth_must(store_open_memory(&store, &err), &err, "store");
	struct breaking b = break_after(store, -1, false);
	struct shipper *sh = open_shipper(root, &b.base, 1);
	for (int i = 0; i < 3; i++) {
		synth_must(shipper_step(sh, &more, &err), &err, "step");
		assert_false(more);
	}
	assert_int_equal(b.n, 0);
	ship_status_get(sh, &st);
	assert_int_equal(st.trouble_us, 0);
	struct synth *s = make(root, 5);
	synth_random_history(s, 10);
	synth_must(ship_all(sh, &err), &err, "ship");
	assert_int_equal(check_held(s, store, WHOLE), newest(s));
	shipper_free(sh);
	store_free(store);
	synth_free(s);
	test_remove(root);
}

/* ---- requests, bytes ---- */

static void test_idle(void **state)
{
	cleanup_free char *root = test_folder();
	struct synth *s = make(root, 3);
	struct store *store;
	struct err err = ERR_INIT;
	int64_t us;
	bool more;

	synth_random_history(s, 40);
	synth_must(store_open_memory(&store, &err), &err, "store");
	struct breaking b = break_after(store, -1, false);
	struct shipper *sh = open_shipper(root, &b.base, 0);
	synth_must(ship_all(sh, &err), &err, "ship");
	uint64_t n = b.n;
	assert_true(n > 3);
	for (int i = 0; i < 100; i++) {
		synth_must(shipper_step(sh, &more, &err), &err, "step");
		assert_false(more);
		if (i % 7 == 0)
			shipper_rest(sh, &us);
		if (i % 30 == 0) { /* nor does another process ask for anything */
			shipper_free(sh);
			sh = open_shipper(root, &b.base, 0);
		}
	}
	assert_int_equal(b.n, n);
	/* One commit: one put; in a new process besides one listing, and what tells whose it is. */
	synth_random_commit(s);
	synth_publish(s);
	synth_must(ship_all(sh, &err), &err, "ship");
	assert_in_range(b.n - n, 1, 6);
	n = b.n;
	synth_random_commit(s);
	synth_publish(s);
	synth_must(ship_all(sh, &err), &err, "ship");
	assert_int_equal(b.n - n, 1);
	shipper_free(sh);
	store_free(store);
	synth_free(s);
	test_remove(root);
}

static int add_sealed(void *ctx, const struct store_entry *e, struct err *err)
{
	const char *base = strrchr(e->key, '/') + 1;
	struct object_name n;

	(void)err;
	if (strstr(e->key, "/segment/") && object_name_parse(base, &n) && n.type == OBJECT_SEALED)
		*(uint64_t *)ctx += e->bytes;
	return 0;
}

static uint64_t sealed_bytes(struct store *store)
{
	uint64_t sum = 0;
	struct err err = ERR_INIT;

	synth_must(store_list(store, "", NULL, true, add_sealed, &sum, &err), &err, "list");
	return sum;
}

/* Pages that do not compress: the compressed WAL is as large as its sealed segments, once. */
static void test_bytes(void **state)
{
	cleanup_free char *root = test_folder();
	const struct synth_options o = {.seed = test_seed(),
	                                .page_size = 4096,
	                                .max_pages = 300,
	                                .max_frames = 12,
	                                .level = 1};
	struct synth *s = synth_new(root, "x.db", &o);
	struct store *store;
	struct err err = ERR_INIT;
	uint64_t base = 0;

	synth_random_commit(s);
	synth_publish(s);
	synth_snapshot(s, 1, 1);
	synth_must(store_open_memory(&store, &err), &err, "store");
	struct breaking b = break_after(store, -1, false);
	struct shipper *sh = open_shipper(root, &b.base, 1);
	for (unsigned i = 0; i < 60; i++) {
		for (unsigned n = 0; n < 8; n++) {
			synth_random_commit(s);
			synth_publish(s);
			if (n % 3 == 0)
				synth_must(ship_all(sh, &err), &err, "ship");
		}
		if (i == 0)
			base = b.put_bytes;
		synth_cut(s);
		upkeep(s);
		synth_must(ship_all(sh, &err), &err, "ship");
	}
	upkeep(s);
	synth_must(ship_all(sh, &err), &err, "ship");
	double ratio = (double)(b.put_bytes - base) / (double)sealed_bytes(store);
	printf("sent %.2f times the compressed WAL of %.1f MB, in %llu puts\n", ratio,
	       (double)sealed_bytes(store) / 1e6, (unsigned long long)b.puts);
	assert_true(ratio <= 2.2);
	assert_true(ratio > 1.5); /* it does measure */
	assert_int_equal(check_held(s, store, WHOLE), newest(s));
	shipper_free(sh);
	store_free(store);
	synth_free(s);
	test_remove(root);
}

/* ---- two writers ---- */

struct rival {
	const char *root;
	struct breaking *at;
	struct store *store;
	uint64_t when;
	int rc;
	struct err err;
	bool tried;
};

/* Between two requests of the one the other takes over. */
static void take_over_now(void *ctx)
{
	struct rival *r = ctx;
	const struct ship_options o = {
	        .archive = r->root, .name = "x.db", .url = "other", .store = r->store};
	char from[200];

	if (r->tried || r->at->n < r->when)
		return;
	r->tried = true;
	r->rc = ship_take_over(&o, from, &r->err);
}

static int count_keys(void *ctx, const struct store_entry *e, struct err *err)
{
	(void)err;
	(*(uint64_t *)ctx) += e->bytes + 1;
	return 0;
}

static uint64_t weight(struct store *store)
{
	uint64_t sum = 0;
	struct err err = ERR_INIT;

	synth_must(store_list(store, "", NULL, true, count_keys, &sum, &err), &err, "list");
	return sum;
}

static void test_two_writers(void **state)
{
	uint64_t seed = test_seed();
	unsigned took = 0, late = 0;

	for (uint64_t when = 1; when < 8; when++) {
		cleanup_free char *root = test_folder(), *other = NULL;
		struct synth *s = make(root, seed + when);
		struct store *store;
		struct err err = ERR_INIT;
		struct ship_status st;

		synth_random_history(s, 25);
		synth_must(store_open_memory(&store, &err), &err, "store");
		struct breaking b = break_after(store, -1, false);
		struct shipper *sh = open_shipper(root, &b.base, 1);
		synth_must(ship_all(sh, &err), &err, "ship");
		/* A copy of the archive is another writer, and is refused. */
		other = copy_of(root);
		forget(other);
		struct shipper *second = open_shipper(other, store, 1);
		assert_int_equal(ship_all(second, &err), -ERR_REFUSED);
		assert_non_null(strstr(err.msg, "take-over"));
		shipper_free(second);
		/* It takes over while the first sends something new. */
		struct rival r = {.root = other, .at = &b, .store = store, .when = b.n + when};
		b.before = take_over_now;
		b.ctx = &r;
		int rc = 0;
		for (unsigned i = 0; i < 14 && rc == 0; i++) {
			synth_random_commit(s);
			synth_publish(s);
			rc = ship_all(sh, &err);
		}
		assert_true(r.tried);
		if (r.rc == 0) {
			took++;
			ship_status_get(sh, &st);
			assert_int_equal(rc, -ERR_REFUSED);
			assert_true(st.fenced);
			uint64_t before = weight(store);
			for (int i = 0; i < 3; i++) {
				bool more;
				assert_int_equal(shipper_step(sh, &more, &err), -ERR_REFUSED);
			}
			assert_int_equal(weight(store), before);
		} else {
			late++;
			assert_int_equal(r.err.kind, ERR_REFUSED);
			assert_non_null(strstr(r.err.msg, "asof copy"));
		}
		check_held(s, store, WHOLE);
		shipper_free(sh);
		/* The one that was fenced does not come back by starting anew. */
		if (r.rc == 0) {
			sh = open_shipper(root, store, 1);
			assert_int_equal(ship_all(sh, &err), -ERR_REFUSED);
			shipper_free(sh);
		}
		store_free(store);
		synth_free(s);
		test_remove(root);
		test_remove(other);
	}
	printf("taken over %u times, too late %u times\n", took, late);
	assert_true(took >= 1 && late >= 1);
}

/* ---- a segment that was cut to its header is no fence ---- */

struct cutting {
	char keys[64][200];
	size_t n;
};

static int list_level0(void *ctx, const struct store_entry *e, struct err *err)
{
	struct cutting *c = ctx;
	struct object_name n;

	if (strstr(e->key, "/segment/") && object_name_parse(strrchr(e->key, '/') + 1, &n) &&
	    n.type == OBJECT_GROWING && c->n < 64)
		snprintf(c->keys[c->n++], sizeof(c->keys[0]), "%s", e->key);
	return 0;
}

/* What a reader of the store finds, who goes through all transactions: nothing is missing before the
 * object, and what it held is damaged, and not unknown. */
static void look_at_cut(const struct synth *s, struct store *store, const char *key, bool is_last)
{
	struct breaking b = break_after(store, -1, false);
	struct store *stores[] = {&b.base};
	struct err err = ERR_INIT;
	const char *file = strrchr(key, '/') + 1;
	struct archive *a;
	struct history *h;
	struct object_name n;
	unsigned damaged = 0;

	assert_true(object_name_parse(file, &n));
	b.base.ops = &borrowed_ops;
	synth_must(archive_open_stores(stores, 1, NULL, &a, &err), &err, "open");
	synth_must(history_get(a, "x.db", &h, &err), &err, "history_get");
	for (uint64_t t = 1; t <= s->n_states; t++) {
		struct err why = ERR_INIT;
		if (synth_compare(s, h, t, &why))
			continue;
		if (t < n.first_txid)
			synth_die("transaction %" PRIu64 " is lost with '%s': %s", t, file,
			          why.msg);
		damaged += why.kind == ERR_DAMAGED && strstr(why.msg, file);
	}
	if (!is_last)
		assert_true(damaged > 0);
	history_put(h);
	archive_free(a);
}

static void test_cut_to_header(void **state)
{
	cleanup_free char *root = test_folder();
	struct synth *s = make(root, 12);
	struct store *store;
	struct err err = ERR_INIT;
	struct ship_status st;
	struct cutting c = {.n = 0};

	synth_must(store_open_memory(&store, &err), &err, "store");
	struct shipper *sh = open_shipper(root, store, SHIP_GRACE_US);
	for (unsigned i = 0; i < 5; i++) {
		for (unsigned k = 0; k < 3; k++)
			synth_random_commit(s);
		synth_publish(s);
		if (i == 0)
			synth_snapshot(s, 1, 1);
		synth_must(ship_all(sh, &err), &err, "ship");
	}
	shipper_free(sh);
	synth_must(store_list(store, "", NULL, true, list_level0, &c, &err), &err, "list");
	assert_int_equal(c.n, 5);
	for (size_t i = 0; i < c.n; i++) {
		cleanup_buf struct buf b = BUF_INIT((size_t)1 << 20);
		synth_must(store_get(store, c.keys[i], b.max_bytes, &b, &err), &err, "get");
		synth_must(store_put_bytes(store, c.keys[i], b.data, GROW_HEADER_SIZE, 0, &err),
		           &err, "put");
		look_at_cut(s, store, c.keys[i], i + 1 == c.n);
		forget(root);
		sh = open_shipper(root, store, SHIP_GRACE_US);
		if (i + 1 == c.n) { /* where it goes on it looks */
			assert_int_equal(ship_all(sh, &err), -ERR_DAMAGED);
			assert_non_null(strstr(err.msg, strrchr(c.keys[i], '/')));
			ship_status_get(sh, &st);
			assert_false(st.fenced);
		}
		shipper_free(sh);
		synth_must(store_put_bytes(store, c.keys[i], b.data, b.len, 0, &err), &err, "put");
	}
	assert_int_equal(check_held(s, store, WHOLE), s->n_states);
	store_free(store);
	synth_free(s);
	test_remove(root);
}

/* ---- before there is anything to restore from ---- */

static void test_based(void **state)
{
	cleanup_free char *root = test_folder();
	struct synth *s = make(root, 12);
	struct store *store;
	struct err err = ERR_INIT;
	struct ship_status st;

	for (unsigned i = 0; i < 5; i++)
		synth_random_commit(s);
	synth_publish(s);
	synth_must(store_open_memory(&store, &err), &err, "store");
	struct shipper *sh = open_shipper(root, store, 1);
	synth_must(ship_all(sh, &err), &err, "ship");
	ship_status_get(sh, &st);
	printf("without a snapshot replicated up to %" PRIu64 "\n", st.replicated_txid);
	assert_false(st.based);
	synth_snapshot(s, 5, 0);
	synth_generation(s);
	synth_must(ship_all(sh, &err), &err, "ship");
	ship_status_get(sh, &st);
	assert_int_equal(st.replicated_txid, 5);
	assert_true(st.based);
	shipper_free(sh);
	store_free(store);
	synth_free(s);
	test_remove(root);
}

/* ---- away for too long ---- */

static void test_gap(void **state)
{
	cleanup_free char *root = test_folder();
	struct synth *s = make(root, 11);
	struct store *store;
	struct err err = ERR_INIT;
	struct retain_policy policy;
	struct retain_result res;
	struct retainer *r;
	struct ship_status st;

	for (unsigned i = 0; i < 20; i++)
		synth_random_commit(s);
	synth_publish(s);
	synth_snapshot(s, 5, 5);
	synth_must(store_open_memory(&store, &err), &err, "store");
	struct shipper *sh = open_shipper(root, store, 1);
	synth_must(ship_all(sh, &err), &err, "ship");
	ship_status_get(sh, &st);
	assert_int_equal(st.replicated_txid, 20);
	synth_cut(s);
	for (unsigned i = 0; i < 200; i++) {
		synth_random_commit(s);
		if (i % 20 == 0)
			synth_cut(s);
	}
	synth_publish(s);
	synth_snapshot(s, 190, 190);
	upkeep(s);
	retain_policy_default(&policy);
	synth_must(retain_tiers_parse("all:10m,1h:365d", &policy, &err), &err, "tiers");
	policy.grace_us = 0;
	policy.min_free_percent = 0;
	synth_must(retainer_new(root, "x.db", &r, &err), &err, "retainer_new");
	synth_must(retainer_run(r, &policy, s->states[s->n_states - 1].commit.time_us, &stop, NULL,
	                        &res, &err),
	           &err, "retainer_run");
	retainer_free(r);
	synth_generation(s);
	assert_true(res.fine_txid > 30);
	synth_must(ship_all(sh, &err), &err, "ship");
	ship_status_get(sh, &st);
	assert_int_equal(st.replicated_txid, s->n_states);
	assert_int_equal(check_held(s, store, THINNED), s->n_states);
	for (unsigned i = 0; i < 5; i++)
		synth_random_commit(s);
	synth_publish(s);
	shipper_free(sh);
	sh = open_shipper(root, store, 1);
	synth_must(ship_all(sh, &err), &err, "ship");
	assert_int_equal(check_held(s, store, THINNED), s->n_states);
	shipper_free(sh);
	store_free(store);
	synth_free(s);
	test_remove(root);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_any_history), cmocka_unit_test(test_failing_anywhere),
	        cmocka_unit_test(test_idle),        cmocka_unit_test(test_bytes),
	        cmocka_unit_test(test_two_writers), cmocka_unit_test(test_based),
	        cmocka_unit_test(test_gap),         cmocka_unit_test(test_cut_to_header),
	        cmocka_unit_test(test_nothing_yet),
	};
	log_set_level(LOG_ERROR);
	log_set_fd(-1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
