/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One writer at a store that has no conditional writes: one that replaces whatever it is told not
 * to, and one that refuses to be told.  What a real clock decides is short here; what is to be
 * stays right however long it takes.
 */
#include "engine/base/log.h"
#include "engine/ship/ship.h"
#include "engine/store/crypt.h"
#include "engine/store/faulty.h"
#include "tests/lib/shipped.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define WAIT_US 60000

static struct store *without_conditions(bool refuses)
{
	const struct store_faults faults = {.ignores_create = !refuses, .refuses_create = refuses};
	struct store *inner, *s;
	struct err err = ERR_INIT;

	synth_must(store_open_memory(&inner, &err), &err, "store");
	synth_must(store_open_faulty(inner, &faults, &s, &err), &err, "store");
	return s;
}

static struct shipper *open_waiting(const char *root, struct store *store, int64_t wait_us)
{
	const struct ship_options o = {.archive = root,
	                               .name = "x.db",
	                               .url = URL,
	                               .store = store,
	                               .grace_us = 1,
	                               .claim_wait_us = wait_us};
	struct shipper *s;
	struct err err = ERR_INIT;

	synth_must(shipper_new(&o, &s, &err), &err, "shipper_new");
	return s;
}

static void commit_some(struct synth *s)
{
	for (int i = 0; i < 3; i++)
		synth_random_commit(s);
	synth_publish(s);
}

struct looking {
	const char *word;
	unsigned n;
};

static int look(void *ctx, const struct store_entry *e, struct err *err)
{
	struct looking *l = ctx;

	(void)err;
	l->n += strstr(e->key, l->word) != NULL;
	return 0;
}

static unsigned count_keys(struct store *store, const char *word)
{
	struct looking l = {.word = word};
	struct err err = ERR_INIT;

	synth_must(store_list(store, "", NULL, true, look, &l, &err), &err, "list");
	return l.n;
}

/* ---- alone ---- */

/* Nothing is sent before the claim has stood for as long as it must; then everything is. */
static void test_alone(void **state)
{
	for (int refuses = 0; refuses < 2; refuses++) {
		cleanup_free char *root = test_folder();
		struct synth *s = make(root, 20 + (uint64_t)refuses);
		struct store *store = without_conditions(refuses);
		struct err err = ERR_INIT;
		struct ship_status st;
		bool more;

		synth_random_history(s, 30);
		struct shipper *sh = open_waiting(root, store, 3600 * US_PER_SECOND);
		for (int i = 0; i < 3; i++) {
			synth_must(shipper_step(sh, &more, &err), &err, "step");
			assert_true(more);
			assert_true(shipper_wait_us(sh) > 3000 * US_PER_SECOND);
		}
		assert_int_equal(count_keys(store, ".writer"), 1);
		assert_int_equal(count_keys(store, ".gz"), 0);
		ship_status_get(sh, &st);
		assert_true(st.no_create && !st.creates && !st.trouble_us);
		shipper_free(sh);
		/* Killed while it waited: that it wrote the note says nothing yet. */
		sh = open_waiting(root, store, 3600 * US_PER_SECOND);
		synth_must(shipper_step(sh, &more, &err), &err, "step");
		assert_true(more && shipper_wait_us(sh) > 0);
		assert_int_equal(count_keys(store, ".gz"), 0);
		shipper_free(sh);
		sh = open_waiting(root, store, WAIT_US);
		synth_must(ship_all(sh, &err), &err, "ship");
		assert_int_equal(check_held(s, store, WHOLE), newest(s));
		shipper_free(sh);
		/* Another process goes on at once. */
		commit_some(s);
		sh = open_waiting(root, store, 3600 * US_PER_SECOND);
		synth_must(ship_all(sh, &err), &err, "ship on");
		assert_int_equal(check_held(s, store, WHOLE), newest(s));
		assert_int_equal(count_keys(store, "trial"), 0);
		shipper_free(sh);
		store_free(store);
		synth_free(s);
		test_remove(root);
	}
}

/* ---- two ---- */

/* The other takes a step before each request of the one. */
struct other {
	struct shipper *sh;
	struct breaking *at;
	uint64_t from; /* this request on */
	int rc;
	bool more;
	struct err err;
};

static void step_other(void *ctx)
{
	struct other *o = ctx;

	if (o->at->n >= o->from && o->rc == 0 && o->more)
		o->rc = shipper_step(o->sh, &o->more, &o->err);
}

/* Both claim at once, at any distance: one gets it, the other is told. */
static void test_both_claim(void **state)
{
	unsigned first = 0, second = 0;

	for (uint64_t from = 1; from < 12; from++) {
		cleanup_free char *root = test_folder(), *copy = NULL;
		struct synth *s = make(root, 40);
		struct store *store = without_conditions(from % 2);
		struct err err = ERR_INIT;
		bool more = true;
		int rc = 0;

		synth_random_history(s, 20);
		copy = copy_of(root);
		struct breaking b = break_after(store, -1, false);
		struct shipper *sh = open_waiting(root, &b.base, WAIT_US);
		struct other o = {.sh = open_waiting(copy, store, WAIT_US),
		                  .at = &b,
		                  .from = from,
		                  .more = true};
		b.before = step_other;
		b.ctx = &o;
		while ((rc == 0 && more) || (o.rc == 0 && o.more)) {
			if (rc == 0 && more)
				rc = shipper_step(sh, &more, &err);
			else
				o.rc = shipper_step(o.sh, &o.more, &o.err);
		}
		assert_true((rc == 0) + (o.rc == 0) == 1);
		assert_int_equal(rc ? err.kind : o.err.kind, ERR_REFUSED);
		first += rc == 0;
		second += o.rc == 0;
		assert_int_equal(check_held(s, store, WHOLE), newest(s));
		/* The one that has it stays the one. */
		b.before = NULL;
		if (rc == 0) {
			commit_some(s);
			synth_must(ship_all(sh, &err), &err, "ship on");
			assert_int_equal(check_held(s, store, WHOLE), newest(s));
		}
		shipper_free(sh);
		shipper_free(o.sh);
		store_free(store);
		synth_free(s);
		test_remove(root);
		test_remove(copy);
	}
	printf("%u times the first, %u times the second\n", first, second);
	assert_true(first >= 1 && second >= 1);
}

/* ---- two, where all is encrypted and there is no key yet ---- */

struct beginner {
	struct shipper *sh;
	struct store *store;
	int rc;
	struct err err;
};

static void *begin(void *arg)
{
	struct beginner *b = arg;
	bool more = true;

	while (more && b->rc == 0) {
		b->rc = shipper_step(b->sh, &more, &b->err);
		if (shipper_wait_us(b->sh))
			clock_sleep_us(10000);
	}
	return NULL;
}

/* `view` is what it asks; `place` stays the caller's. */
static struct store *encrypted(struct store *place, struct breaking *view,
                               const struct key_identity *who)
{
	struct store *s;
	struct err err = ERR_INIT;

	*view = break_after(place, -1, false);
	view->base.ops = &borrowed_ops;
	view->base.settle_us = US_PER_SECOND;
	synth_must(store_open_crypt(&view->base, who, &s, &err), &err, "encrypted store");
	return s;
}

/* Both make a key and claim: one has the other's key, and is told whose place it is; what lies
 * there can be read by whoever comes later. */
static void test_both_begin_encrypted(void **state)
{
	for (int refuses = 0; refuses < 2; refuses++) {
		cleanup_free char *root = test_folder(), *copy = NULL;
		struct synth *s = make(root, 80);
		struct store *place = without_conditions(refuses);
		cleanup_key_identity struct key_identity who;
		struct breaking view[3];
		struct beginner b[2] = {{.err = ERR_INIT}, {.err = ERR_INIT}};
		struct err err = ERR_INIT;
		pthread_t t[2];
		char file[200];

		snprintf(file, sizeof(file), "%s/identity", root);
		synth_must(key_identity_make(file, &who, &err), &err, "identity");
		synth_random_history(s, 20);
		copy = copy_of(root);
		for (int i = 0; i < 2; i++) {
			b[i].store = encrypted(place, &view[i], &who);
			b[i].sh = open_waiting(i ? copy : root, b[i].store, US_PER_SECOND);
			pthread_create(&t[i], NULL, begin, &b[i]);
		}
		for (int i = 0; i < 2; i++)
			pthread_join(t[i], NULL);
		assert_true((b[0].rc == 0) + (b[1].rc == 0) == 1);
		assert_int_equal(b[b[0].rc == 0].err.kind, ERR_REFUSED);
		assert_int_equal(count_keys(place, "keys/"), 1);
		struct store *later = encrypted(place, &view[2], &who);
		assert_int_equal(check_held(s, later, WHOLE), newest(s));
		store_free(later);
		for (int i = 0; i < 2; i++) {
			shipper_free(b[i].sh);
			store_free(b[i].store);
		}
		store_free(place);
		synth_free(s);
		test_remove(root);
		test_remove(copy);
	}
}

/* ---- taking over ---- */

struct writing {
	struct shipper *sh;
	struct synth *s;
	struct breaking *at;
	uint64_t commits_at; /* this request */
	int rc;
	struct err err;
};

/* The old writer has its turn before each request of the new one, and something to send once. */
static void go_on_writing(void *ctx)
{
	struct writing *w = ctx;

	if (w->at->n == w->commits_at)
		commit_some(w->s);
	if (w->rc == 0)
		w->rc = ship_all(w->sh, &w->err);
}

static void test_take_over(void **state)
{
	unsigned took = 0, behind = 0;

	for (uint64_t when = 1; when < 22; when++) {
		cleanup_free char *root = test_folder(), *copy = NULL;
		struct synth *s = make(root, 60);
		struct store *store = without_conditions(when % 2);
		struct err err = ERR_INIT;
		struct ship_status st;
		char from[200];

		synth_random_history(s, 20);
		struct shipper *sh = open_waiting(root, store, WAIT_US);
		synth_must(ship_all(sh, &err), &err, "ship");
		copy = copy_of(root);
		forget(copy);
		struct breaking b = break_after(store, -1, false);
		struct shipper *late = open_waiting(copy, store, WAIT_US);
		assert_int_equal(ship_all(late, &err), -ERR_REFUSED);
		assert_non_null(strstr(err.msg, "take-over"));
		shipper_free(late);
		err = (struct err)ERR_INIT;
		struct writing w = {.sh = sh, .s = s, .at = &b, .commits_at = when};
		b.before = go_on_writing;
		b.ctx = &w;
		const struct ship_options o = {.archive = copy,
		                               .name = "x.db",
		                               .url = URL,
		                               .store = &b.base,
		                               .claim_wait_us = WAIT_US};
		int rc = ship_take_over(&o, from, &err);
		b.before = NULL;
		if (rc < 0) { /* the old one was first with something new */
			behind++;
			assert_int_equal(err.kind, ERR_REFUSED);
			assert_non_null(strstr(err.msg, "asof copy"));
		} else {
			took++;
		}
		if (count_keys(store, ".writer") > 1) { /* it came as far as to fence */
			commit_some(s);
			clock_sleep_us(WAIT_US);
			assert_int_equal(w.rc ? w.rc : ship_all(sh, &w.err), -ERR_REFUSED);
			ship_status_get(sh, &st);
			assert_true(st.fenced);
		} else {
			assert_true(rc < 0);
		}
		if (rc == 0) {
			late = open_waiting(copy, store, WAIT_US);
			synth_must(ship_all(late, &err), &err, "ship as the new writer");
			shipper_free(late);
		}
		check_held(s, store, WHOLE);
		shipper_free(sh);
		store_free(store);
		synth_free(s);
		test_remove(root);
		test_remove(copy);
	}
	printf("taken over %u times, too late %u times\n", took, behind);
	assert_true(took >= 1 && behind >= 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_alone),
	        cmocka_unit_test(test_both_claim),
	        cmocka_unit_test(test_both_begin_encrypted),
	        cmocka_unit_test(test_take_over),
	};
	log_set_level(LOG_ERROR);
	log_set_fd(-1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
