/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How far two histories tell the same: engine/view/way.h, of histories that were one up to a transaction
 * and then, perhaps, went on apart; cut otherwise, thinned of objects, damaged.
 */
#include "engine/base/log.h"
#include "engine/view/way.h"
#include "tests/lib/shipped.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

struct side {
	char *root;
	struct synth *s;
	struct store *at;
};

static struct side new_side(uint64_t seed)
{
	struct side x = {.root = test_folder()};
	struct err err = ERR_INIT;

	x.s = make(x.root, seed);
	synth_must(store_open_memory(&x.at, &err), &err, "store");
	synth_random_history(x.s, 20);
	return x;
}

static void free_side(struct side *x)
{
	store_free(x->at);
	synth_free(x->s);
	test_remove(x->root);
	free(x->root);
}

static void grow_on(struct side *x, unsigned n, bool sends)
{
	struct err err = ERR_INIT;

	for (unsigned i = 0; i < n; i++)
		synth_random_commit(x->s);
	synth_publish(x->s);
	if (!sends)
		return;
	struct shipper *sh = open_shipper(x->root, x->at, 1);
	synth_must(ship_all(sh, &err), &err, "ship");
	shipper_free(sh);
}

/* Made-up commits can have one time; real ones have not. */
static bool one_time(const struct side *a, const struct side *b, uint64_t txid)
{
	return txid <= a->s->n_states && txid <= b->s->n_states &&
	       a->s->states[txid - 1].commit.time_us == b->s->states[txid - 1].commit.time_us;
}

static struct way compare(struct side *a, struct side *b)
{
	struct way way, back;

	way_compare_places(a->at, b->at, "x.db", &way);
	way_compare_places(b->at, a->at, "x.db", &back);
	assert_int_equal(way.differs_txid, back.differs_txid);
	assert_int_equal(way.agrees_txid, back.agrees_txid);
	assert_true(way.differs_txid == 0 || way.agrees_txid == 0);
	return way;
}

static void test_apart_or_not(void **state)
{
	uint64_t seed = test_seed();
	unsigned told = 0;

	for (unsigned i = 0; i < test_rounds(30); i++) {
		struct side a = new_side(seed + i), b = new_side(seed + i);
		bool apart = i % 2;
		grow_on(&a, 5, true); /* b has the same in one piece with what follows */
		grow_on(&b, 5, i % 4 < 2);
		uint64_t shared = a.s->n_states;
		assert_int_equal(b.s->n_states, shared);
		if (apart)
			b.s->rng.s += 12345; /* another stream */
		grow_on(&a, 3 + (unsigned)(seed + i) % 5, true);
		grow_on(&b, 6, true);
		struct way way = compare(&a, &b);
		if (apart) {
			assert_true(way.differs_txid == 0 || way.differs_txid > shared);
			assert_true(way.agrees_txid <= shared || one_time(&a, &b, way.agrees_txid));
			told += way.differs_txid > 0;
		} else {
			assert_int_equal(way.differs_txid, 0);
			assert_true(way.agrees_txid > shared);
		}
		free_side(&a);
		free_side(&b);
	}
	assert_true(told >= test_rounds(30) / 4);
}

struct objects {
	char keys[200][300];
	size_t n;
};

static int take_key(void *ctx, const struct store_entry *e, struct err *err)
{
	struct objects *o = ctx;

	if (o->n < 200 && (strstr(e->key, ".wal.gz") || strstr(e->key, ".db.gz")))
		snprintf(o->keys[o->n++], sizeof(o->keys[0]), "%s", e->key);
	return 0;
}

/* What cannot be read tells nothing wrong, and is not asked for once more for each transaction within. */
static void test_damaged(void **state)
{
	uint64_t seed = test_seed() + 100;

	for (unsigned i = 0; i < test_rounds(6); i++) {
		struct side a = new_side(seed + i), b = new_side(seed + i);
		struct objects o = {.n = 0};
		struct err err = ERR_INIT;
		bool apart = i % 2;
		grow_on(&a, 4, true);
		grow_on(&b, 4, true);
		uint64_t shared = a.s->n_states;
		if (apart)
			b.s->rng.s += 12345; /* another stream */
		for (unsigned k = 0; k < 3; k++) {
			grow_on(&a, 8, true);
			grow_on(&b, 8, true);
		}
		synth_must(store_list(a.at, "local/", NULL, true, take_key, &o, &err), &err,
		           "list");
		for (size_t k = 0; k < o.n; k++) {
			cleanup_buf struct buf x = BUF_INIT((size_t)1 << 30);
			struct breaking counts = break_after(a.at, -1, false);
			struct way way;
			synth_must(store_get(a.at, o.keys[k], x.max_bytes, &x, &err), &err, "get");
			x.data[x.len / 2] ^= 0x10;
			synth_must(store_put_bytes(a.at, o.keys[k], x.data, x.len, 0, &err), &err,
			           "put");
			x.data[x.len / 2] ^= 0x10;
			way_compare_places(&counts.base, b.at, "x.db", &way);
			if (apart)
				assert_true(way.agrees_txid <= shared ||
				            one_time(&a, &b, way.agrees_txid));
			else
				assert_int_equal(way.differs_txid, 0);
			assert_true(way.differs_txid == 0 || way.differs_txid > shared);
			assert_true(counts.n < 12 + 2 * o.n);
			synth_must(store_put_bytes(a.at, o.keys[k], x.data, x.len, 0, &err), &err,
			           "put");
		}
		free_side(&a);
		free_side(&b);
	}
}

/* A place that has no such history, or cannot be asked, says nothing. */
static void test_nothing_there(void **state)
{
	struct side a = new_side(test_seed()), b = new_side(test_seed());
	struct way way;

	grow_on(&a, 4, true);
	way_compare_places(a.at, b.at, "x.db", &way);
	assert_int_equal(way.differs_txid | way.agrees_txid, 0);
	struct breaking broken = break_after(a.at, 0, false);
	way_compare_places(&broken.base, a.at, "x.db", &way);
	assert_int_equal(way.differs_txid | way.agrees_txid, 0);
	free_side(&a);
	free_side(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_apart_or_not),
	        cmocka_unit_test(test_damaged),
	        cmocka_unit_test(test_nothing_there),
	};

	log_set_level(LOG_ERROR);
	log_set_fd(-1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
