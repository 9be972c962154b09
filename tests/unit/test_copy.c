/* SPDX-License-Identifier: Apache-2.0 */
/*
 * asof copy: the second archive reads as the first, whatever the first went through, and whenever
 * the copying ends.
 */
#include "engine/base/file.h"
#include "engine/base/log.h"
#include "engine/compact/compact.h"
#include "engine/copy/copy.h"
#include "engine/retain/retain.h"
#include "tests/lib/ending.h"
#include "tests/lib/shipped.h"

#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

static _Atomic bool stop;

static void must_copy(const char *from, const char *to, struct copy_result *ret)
{
	const struct copy_options o = {.from = from, .to = to};
	struct err err = ERR_INIT;

	synth_must(copy_archive(&o, ret, &err), &err, "copy");
}

/* Every moment of the one is the same in the other; `own`: which may have thinned by itself. */
static void compare_own(const struct synth *s, const char *from, const char *to, bool own)
{
	const char *const roots[] = {from, to};
	struct archive *a[2];
	struct history *h[2];
	struct err err = ERR_INIT;

	for (int i = 0; i < 2; i++) {
		synth_must(archive_open(roots[i], NULL, &a[i], &err), &err, "archive_open");
		synth_must(history_get(a[i], "x.db", &h[i], &err), &err, "history_get");
	}
	for (uint64_t t = 1; t <= s->n_states; t++) {
		struct err why[2] = {ERR_INIT, ERR_INIT};
		bool first = synth_compare(s, h[0], t, &why[0]);
		bool second = synth_compare(s, h[1], t, &why[1]);
		if (first && !second && !(own && why[1].kind == ERR_NOT_FOUND))
			synth_die("transaction %" PRIu64 " was not copied: %s", t, why[1].msg);
		if (!second && why[1].kind != ERR_GAP && why[1].kind != ERR_NOT_FOUND)
			synth_die("transaction %" PRIu64 " of the copy: %s", t, why[1].msg);
	}
	for (int i = 0; i < 2; i++) {
		history_put(h[i]);
		archive_free(a[i]);
	}
}

static void compare(const struct synth *s, const char *from, const char *to)
{
	compare_own(s, from, to, false);
}

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
}

static void thin(struct synth *s, const char *root)
{
	struct retain_policy policy;
	struct retain_result res;
	struct retainer *r;
	struct err err = ERR_INIT;

	retain_policy_default(&policy);
	synth_must(retain_tiers_parse("all:10m,5m:365d", &policy, &err), &err, "tiers");
	policy.grace_us = 0;
	policy.min_free_percent = 0;
	synth_must(retainer_new(root, "x.db", &r, &err), &err, "retainer_new");
	synth_must(retainer_run(r, &policy, s->states[s->n_states - 1].commit.time_us, &stop, NULL,
	                        &res, &err),
	           &err, "retainer_run");
	retainer_free(r);
	synth_generation(s);
}

static void forget_objects(struct synth *s)
{
	for (size_t n = s->n_objects; n-- > 0;)
		if (s->objects[n].name.type != OBJECT_SNAPSHOT)
			memmove(&s->objects[n], &s->objects[n + 1],
			        (--s->n_objects - n) * sizeof(s->objects[0]));
}

static void grow_on(struct synth *s)
{
	for (unsigned n = 0; n < 12; n++)
		synth_random_commit(s);
	if (rng_chance(&s->rng, 50))
		synth_cut(s);
	synth_publish(s);
}

static void test_any_history(void **state)
{
	uint64_t seed = test_seed();

	for (unsigned i = 0; i < test_rounds(20); i++) {
		cleanup_free char *root = test_folder(), *to = test_folder();
		struct copy_result first, again;
		struct synth *s = make(root, seed + i);
		bool own = false;

		fprintf(stderr, "history %llu\n", (unsigned long long)(seed + i));
		synth_random_history(s, 50);
		for (unsigned k = 0; k < 6; k++) {
			must_copy(root, to, &first);
			compare_own(s, root, to, own);
			must_copy(root, to, &again);
			assert_int_equal(again.objects, 0);
			assert_int_equal(again.bytes, 0);
			grow_on(s);
			if (rng_chance(&s->rng, 40))
				upkeep(s);
			if (rng_chance(&s->rng, 40))
				thin(s, root);
			if (i % 4 == 0 && rng_chance(&s->rng, 50)) { /* a retention of its own */
				thin(s, to);
				own = true;
			}
			forget_objects(s);
		}
		must_copy(root, to, &first);
		compare_own(s, root, to, own);
		synth_free(s);
		test_remove(root);
		test_remove(to);
	}
}

struct attempt {
	const char *from, *to;
};

static int attempt(void *ctx)
{
	const struct attempt *a = ctx;
	const struct copy_options o = {.from = a->from, .to = a->to};
	struct copy_result res;

	return copy_archive(&o, &res, NULL);
}

/* What is there of the copy is right: a state, or an error that says that there is none. */
static void check_half_done(const struct synth *s, const char *to)
{
	struct archive *a;
	struct history *h;
	struct err err = ERR_INIT;

	synth_must(archive_open(to, NULL, &a, &err), &err, "archive_open");
	if (history_get(a, "x.db", &h, &err) == 0) {
		for (uint64_t t = 1; t <= s->n_states; t += 3)
			(void)synth_compare(s, h, t, NULL);
		history_put(h);
	}
	archive_free(a);
}

static void test_ending_anywhere(void **state)
{
	uint64_t seed = test_seed();

	for (unsigned i = 0; i < test_rounds(3); i++) {
		cleanup_free char *root = test_folder(), *to = test_folder(), *copy = NULL;
		struct synth *s = make(root, seed + 50 + i);
		struct copy_result res;
		long at = 0, step = getenv("ASOF_TEST_SHORT") ? 11 : 1;

		assert_true(asprintf(&copy, "%s-copy", to) > 0);
		synth_random_history(s, 40);
		if (i > 0) { /* over what an earlier run brought */
			must_copy(root, to, &res);
			grow_on(s);
			upkeep(s);
			if (i == 2)
				thin(s, root);
		}
		for (;; at += step) {
			copy_folder(to, copy);
			if (at > 20000)
				synth_die("the copy finds no end");
			bool ended = run_until_write(at, attempt, &(struct attempt){root, copy});
			if (ended)
				check_half_done(s, copy);
			must_copy(root, copy, &res);
			compare(s, root, copy);
			if (!ended)
				break;
		}
		printf("ended at each of %ld writes\n", at);
		synth_free(s);
		test_remove(root);
		test_remove(to);
		test_remove(copy);
	}
}

/* What is not durable yet is not copied, and what is torn not either. */
static void test_growing(void **state)
{
	cleanup_free char *root = test_folder(), *to = test_folder();
	struct synth *s = make(root, 4);
	struct copy_result res;
	struct err err = ERR_INIT;
	char name[64];
	struct stat from, copied;

	for (unsigned i = 0; i < 5; i++)
		synth_random_commit(s);
	synth_publish(s);
	synth_snapshot(s, 2, 2);
	snprintf(name, sizeof(name), "%08u-%016d.wal.gz", 1u, 1);
	for (unsigned i = 0; i < 4; i++) {
		cleanup_fd int fd = -1, second = -1;
		char path[4096];
		synth_must(file_open(s->segment_fd, name, O_RDWR, 0, &fd, &err), &err, name);
		/* As the writer's next batch begins. */
		synth_must(file_pwrite(fd, "half a batch", 12, s->head.durable_len, name, &err),
		           &err, name);
		must_copy(root, to, &res);
		assert_int_equal(res.objects, i == 0 ? 2 : 1);
		snprintf(path, sizeof(path), "%s/local/x.db/segment", to);
		second = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		assert_int_equal(fstatat(second, name, &copied, 0), 0);
		assert_int_equal(fstat(fd, &from), 0);
		assert_int_equal(copied.st_size, s->head.durable_len);
		assert_true(from.st_size > copied.st_size);
		compare(s, root, to);
		if (i == 1) { /* a run that was ended within its appending left this */
			fd = (close(fd), openat(second, name, O_RDWR | O_CLOEXEC));
			synth_must(file_pwrite(fd, "torn", 4, s->head.durable_len, name, &err),
			           &err, name);
		}
		synth_random_commit(s);
		synth_publish(s);
	}
	synth_free(s);
	test_remove(root);
	test_remove(to);
}

static void test_damage(void **state)
{
	cleanup_free char *root = test_folder(), *to = test_folder();
	struct synth *s = make(root, 7);
	const struct copy_options o = {.from = root, .to = to};
	struct copy_result res;
	struct err err = ERR_INIT;
	struct stat st;
	size_t k = 0;

	for (unsigned i = 0; i < 4; i++) {
		for (unsigned n = 0; n < 8; n++)
			synth_random_commit(s);
		synth_cut(s);
		if (i == 0)
			synth_snapshot(s, 1, 1);
		synth_seal(s, 1 + 8 * i, 8 * (i + 1), false);
	}
	while (s->objects[k].name.type != OBJECT_SEALED || s->objects[k].name.first_txid != 9)
		k++;
	assert_int_equal(fstatat(s->segment_fd, s->objects[k].file, &st, 0), 0);
	for (off_t at = 0; at < st.st_size; at += 1 + st.st_size / 40) {
		cleanup_fd int fd = openat(s->segment_fd, s->objects[k].file, O_RDWR | O_CLOEXEC);
		uint8_t byte;
		assert_int_equal(pread(fd, &byte, 1, at), 1);
		byte ^= 0x10;
		assert_int_equal(pwrite(fd, &byte, 1, at), 1);
		test_remove(to);
		assert_int_equal(copy_archive(&o, &res, &err), -ERR_DAMAGED);
		assert_int_equal(res.damaged, 1);
		assert_non_null(strstr(err.msg, s->objects[k].file));
		byte ^= 0x10;
		assert_int_equal(pwrite(fd, &byte, 1, at), 1);
	}
	must_copy(root, to, &res); /* the one that was left out */
	assert_int_equal(res.objects, 1);
	compare(s, root, to);
	synth_free(s);
	test_remove(root);
	test_remove(to);
}

static void test_refused(void **state)
{
	cleanup_free char *root = test_folder(), *to = test_folder(), *other = test_folder();
	struct synth *s = make(root, 1), *second = make(other, 2);
	struct copy_options o = {.from = root, .to = other};
	struct copy_result res;
	struct err err = ERR_INIT;
	struct source_note note = {.id = 99, .path = "/srv/other"};

	synth_random_history(s, 20);
	assert_int_equal(copy_archive(&o, &res, &err), -ERR_BUSY); /* its replicator is at work */
	synth_free(second);
	cleanup_free char *path = NULL;
	assert_true(asprintf(&path, "%s/local/x.db", other) > 0);
	cleanup_fd int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	synth_must(source_note_put(dir, &note, &err), &err, "note");
	assert_int_equal(copy_archive(&o, &res, &err), -ERR_REFUSED);
	o.to = root;
	assert_int_equal(copy_archive(&o, &res, &err), -ERR_USAGE);
	o.to = to;
	o.db = "none.db";
	assert_int_equal(copy_archive(&o, &res, &err), -ERR_NOT_FOUND);
	stop = true;
	o.db = NULL;
	o.stop = &stop;
	assert_int_equal(copy_archive(&o, &res, &err), -ERR_CANCELLED);
	stop = false;
	synth_must(copy_archive(&o, &res, &err), &err, "copy");
	compare(s, root, to);
	synth_free(s);
	test_remove(root);
	test_remove(to);
	test_remove(other);
}

/* What the second let go by a retention of its own, and the first still has, stays gone. */
static void test_own_retention(void **state)
{
	cleanup_free char *root = test_folder(), *to = test_folder();
	struct synth *s = make(root, test_seed());
	struct copy_result res;

	synth_random_history(s, 60);
	upkeep(s);
	forget_objects(s);
	must_copy(root, to, &res);
	assert_true(res.objects > 0);
	thin(s, to);
	must_copy(root, to, &res);
	assert_int_equal(res.objects, 0);
	compare_own(s, root, to, true);
	grow_on(s);
	must_copy(root, to, &res);
	compare_own(s, root, to, true);
	synth_free(s);
	test_remove(root);
	test_remove(to);
}

/* ---- from a store ---- */

static void seal_all(const char *root)
{
	struct compactor *c;
	struct err err = ERR_INIT;
	bool did = true;

	synth_must(compactor_new(root, "x.db", &c, &err), &err, "compactor_new");
	while (did)
		synth_must(compactor_step(c, &stop, &did, &err), &err, "compactor_step");
	compactor_free(c);
}

static int copy_from_store(struct store *store, const char *to, struct copy_result *ret,
                           struct err *err)
{
	static struct breaking b;

	b = break_after(store, -1, false);
	b.base.ops = &borrowed_ops;
	const struct copy_options o = {.from = URL, .to = to, .from_open = &b.base};
	return copy_archive(&o, ret, err);
}

static void must_copy_from(struct store *store, const char *to, struct copy_result *ret)
{
	struct err err = ERR_INIT;

	synth_must(copy_from_store(store, to, ret, &err), &err, "copy from a store");
}

static void send_all(const char *root, struct store *store)
{
	struct shipper *sh = open_shipper(root, store, 1);
	struct err err = ERR_INIT;

	synth_must(ship_all(sh, &err), &err, "ship");
	shipper_free(sh);
}

/* What was sent comes back, into a folder that also has some from the archive itself, cut otherwise,
 * and that is sealed by its own upkeep in between. */
static void test_from_store(void **state)
{
	uint64_t seed = test_seed();

	for (unsigned i = 0; i < test_rounds(30); i++) {
		cleanup_free char *root = test_folder(), *to = test_folder();
		struct copy_result res;
		struct synth *s = make(root, seed + 200 + i);
		struct store *store;
		struct err err = ERR_INIT;

		fprintf(stderr, "history %llu\n", (unsigned long long)(seed + 200 + i));
		synth_must(store_open_memory(&store, &err), &err, "store");
		synth_random_history(s, 20 + (unsigned)rng_below(&s->rng, 30));
		for (unsigned k = 0; k < 6; k++) {
			send_all(root, store);
			if (rng_chance(&s->rng, 40)) {
				grow_on(s);
				must_copy(root, to, &res);
				compare(s, root, to);
				send_all(root, store);
			}
			if (rng_chance(&s->rng, 40) && k > 0)
				seal_all(to);
			must_copy_from(store, to, &res);
			compare(s, root, to);
			must_copy_from(store, to, &res);
			assert_int_equal(res.objects, 0);
			assert_int_equal(res.bytes, 0);
			if (rng_chance(&s->rng, 40)) {
				seal_all(to);
				compare(s, root, to);
			}
			grow_on(s);
			if (rng_chance(&s->rng, 30))
				upkeep(s);
			forget_objects(s);
		}
		store_free(store);
		synth_free(s);
		test_remove(root);
		test_remove(to);
	}
}

struct far_attempt {
	struct store *store;
	const char *to;
};

static int far_attempt(void *ctx)
{
	const struct far_attempt *a = ctx;
	struct copy_result res;

	return copy_from_store(a->store, a->to, &res, NULL);
}

static void test_from_store_ending(void **state)
{
	uint64_t seed = test_seed();
	long step = getenv("ASOF_TEST_SHORT") ? 7 : 1;

	for (unsigned i = 0; i < test_rounds(3); i++) {
		cleanup_free char *root = test_folder(), *to = test_folder(), *copy = NULL;
		struct synth *s = make(root, seed + 300 + i);
		struct copy_result res;
		struct store *store;
		struct err err = ERR_INIT;
		long at = 0;

		assert_true(asprintf(&copy, "%s-copy", to) > 0);
		synth_must(store_open_memory(&store, &err), &err, "store");
		synth_random_history(s, 30);
		if (i > 0) { /* over what was copied from the archive, which grew since */
			must_copy(root, to, &res);
			if (i == 2)
				seal_all(to);
			grow_on(s);
		}
		send_all(root, store);
		for (bool ended = true; ended; at += step) {
			copy_folder(to, copy);
			ended = run_until_write(at, far_attempt,
			                        &(struct far_attempt){store, copy});
			if (ended)
				check_half_done(s, copy);
			must_copy_from(store, copy, &res);
			compare(s, root, copy);
			if (at > 20000)
				synth_die("the copy finds no end");
		}
		printf("ended at each of %ld writes\n", at);
		store_free(store);
		synth_free(s);
		test_remove(root);
		test_remove(to);
		test_remove(copy);
	}
}

/* Each request fails once; what was copied until then is right, and the next run goes on. */
static void test_from_store_failing(void **state)
{
	cleanup_free char *root = test_folder();
	struct synth *s = make(root, test_seed() + 400);
	struct store *store;
	struct err err = ERR_INIT;
	int rc = -1;

	synth_must(store_open_memory(&store, &err), &err, "store");
	synth_random_history(s, 30);
	send_all(root, store);
	for (long at = 0; rc < 0; at++) {
		cleanup_free char *to = test_folder();
		struct copy_result res;
		struct breaking b = break_after(store, at, false);
		b.base.ops = &borrowed_ops;
		const struct copy_options o = {.from = URL, .to = to, .from_open = &b.base};
		rc = copy_archive(&o, &res, &err);
		assert_true(rc == 0 || err.kind == ERR_UNAVAILABLE);
		check_half_done(s, to);
		must_copy_from(store, to, &res);
		compare(s, root, to);
		test_remove(to);
	}
	store_free(store);
	synth_free(s);
	test_remove(root);
}

/* ---- to a store ---- */

static int copy_to(const char *from, struct breaking *b, struct copy_result *ret, struct err *err)
{
	const struct copy_options o = {.from = from, .to = URL, .to_open = &b->base};

	b->base.ops = &borrowed_ops;
	return copy_archive(&o, ret, err);
}

static void must_copy_to(const char *from, struct store *store, struct copy_result *ret)
{
	struct breaking b = break_after(store, -1, false);
	struct err err = ERR_INIT;

	synth_must(copy_to(from, &b, ret, &err), &err, "copy to a store");
}

/* There and back, as it grows and is joined: every transaction is what it was. */
static void test_to_store(void **state)
{
	uint64_t seed = test_seed();

	for (unsigned i = 0; i < test_rounds(20); i++) {
		cleanup_free char *root = test_folder(), *back = test_folder();
		struct copy_result res;
		struct synth *s = make(root, seed + 500 + i);
		struct store *store;
		struct err err = ERR_INIT;

		fprintf(stderr, "history %llu\n", (unsigned long long)(seed + 500 + i));
		synth_must(store_open_memory(&store, &err), &err, "store");
		synth_random_history(s, 10 + (unsigned)rng_below(&s->rng, 40));
		for (unsigned k = 0; k < 4; k++) {
			must_copy_to(root, store, &res);
			assert_int_equal(check_held(s, store, WHOLE), newest(s));
			/* A later run may find room for an object that can be made anew, too. */
			for (unsigned n = 0; res.objects > 0; n++) {
				assert_true(n < 5);
				must_copy_to(root, store, &res);
			}
			assert_int_equal(res.bytes, 0);
			must_copy_from(store, back, &res);
			compare(s, root, back);
			grow_on(s);
			if (rng_chance(&s->rng, 30))
				upkeep(s);
			forget_objects(s);
		}
		store_free(store);
		synth_free(s);
		test_remove(root);
		test_remove(back);
	}
}

/* Each request fails once, before it took effect or after; the next run completes it, whether this
 * machine remembers the first or not. */
static void test_to_store_failing(void **state)
{
	cleanup_free char *root = test_folder();
	struct synth *s = make(root, test_seed() + 600);
	struct err err = ERR_INIT;
	int rc = -1;

	synth_random_history(s, 30);
	for (long at = 0; rc < 0; at++) {
		struct copy_result res;
		struct store *store;
		forget(root); /* what another store had */
		synth_must(store_open_memory(&store, &err), &err, "store");
		struct breaking b = break_after(store, at / 2, at % 2);
		rc = copy_to(root, &b, &res, &err);
		assert_true(rc == 0 || err.kind == ERR_UNAVAILABLE);
		check_held(s, store, PARTLY);
		if (at % 3)
			forget(root);
		must_copy_to(root, store, &res);
		assert_int_equal(check_held(s, store, WHOLE), newest(s));
		store_free(store);
	}
	synth_free(s);
	test_remove(root);
}

/* Another archive's place, another writer's, and one that is being sent to just now. */
static void test_to_store_refused(void **state)
{
	cleanup_free char *root = test_folder(), *other = test_folder(), *twin = NULL, *path = NULL;
	struct synth *s = make(root, 1), *second = make(other, 2);
	const struct source_note note = {.id = 99, .path = "/srv/other"};
	struct copy_result res;
	struct store *store;
	struct err err = ERR_INIT;
	int64_t us;
	bool more;

	synth_must(store_open_memory(&store, &err), &err, "store");
	synth_random_history(s, 20);
	synth_random_history(second, 20);
	assert_true(asprintf(&path, "%s/local/x.db", other) > 0);
	cleanup_fd int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	synth_must(source_note_put(dir, &note, &err), &err, "note");
	must_copy_to(root, store, &res);
	twin = copy_of(root);
	struct breaking b = break_after(store, -1, false);
	const char *const roots[] = {other, twin};
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(copy_to(roots[i], &b, &res, &err), -ERR_REFUSED);
		assert_non_null(strstr(err.msg, "written by another asof"));
	}
	assert_int_equal(b.puts, 0);
	struct shipper *sh = open_shipper(root, store, 1);
	synth_must(shipper_step(sh, &more, &err), &err, "step");
	assert_int_equal(copy_to(root, &b, &res, &err), -ERR_BUSY);
	shipper_rest(sh, &us);
	must_copy_to(root, store, &res);
	shipper_free(sh);
	assert_int_equal(check_held(s, store, WHOLE), newest(s));
	store_free(store);
	synth_free(s);
	synth_free(second);
	test_remove(root);
	test_remove(other);
	test_remove(twin);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_any_history),
	        cmocka_unit_test(test_ending_anywhere),
	        cmocka_unit_test(test_growing),
	        cmocka_unit_test(test_damage),
	        cmocka_unit_test(test_refused),
	        cmocka_unit_test(test_own_retention),
	        cmocka_unit_test(test_from_store),
	        cmocka_unit_test(test_from_store_ending),
	        cmocka_unit_test(test_from_store_failing),
	        cmocka_unit_test(test_to_store),
	        cmocka_unit_test(test_to_store_failing),
	        cmocka_unit_test(test_to_store_refused),
	};
	log_set_level(LOG_ERROR);
	log_set_fd(-1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
