/* SPDX-License-Identifier: Apache-2.0 */
/* The block cache: bounded, one load for many who ask, failures not remembered. */
#include "engine/base/cache.h"
#include "engine/base/clock.h"
#include "tests/lib/synth.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>

#include <cmocka.h>

static _Atomic unsigned loads, loading, most_loading;

struct want {
	struct cache_key key;
	size_t len;
	int fail_times; /* negative: never */
	int64_t slow_us;
};

static int load(void *ctx, void **ret_data, size_t *ret_len, struct err *err)
{
	struct want *w = ctx;
	unsigned now = ++loading;

	loads++;
	if (now > most_loading)
		most_loading = now;
	if (w->slow_us)
		clock_sleep_us(w->slow_us);
	loading--;
	if (w->fail_times-- > 0)
		return err_set(err, ERR_DAMAGED, 0, "block %llu is bad",
		               (unsigned long long)w->key.offset);
	uint64_t *p = malloc(w->len);
	for (size_t i = 0; i < w->len / 8; i++)
		p[i] = w->key.offset * 31 + w->key.object;
	*ret_data = p;
	*ret_len = w->len;
	return 0;
}

static void check(const struct cache_entry *e, const struct want *w)
{
	const uint64_t *p = cache_data(e);

	assert_int_equal(cache_len(e), w->len);
	if (p[0] != w->key.offset * 31 + w->key.object || p[w->len / 8 - 1] != p[0])
		synth_die("another block's content");
}

static void test_hit_and_evict(void **state)
{
	struct cache *c;
	struct err err = ERR_INIT;
	struct cache_entry *e;
	unsigned there = 0;

	synth_must(cache_new(16 * 1024 * 10, &c, &err), &err, "cache_new");
	loads = 0;
	for (unsigned i = 0; i < 1000; i++) {
		struct want w = {{1, i}, 1024, -1, 0};
		synth_must(cache_get(c, w.key, load, &w, &e, &err), &err, "get");
		check(e, &w);
		cache_put(e);
		assert_true(cache_has(c, w.key));
		synth_must(cache_get(c, w.key, load, &w, &e, &err), &err, "get");
		cache_put(e);
		assert_int_equal(loads, i + 1);
	}
	for (unsigned i = 0; i < 1000; i++)
		there += cache_has(c, (struct cache_key){1, i});
	assert_true(there <= 160 && there >= 100); /* bounded, and not shy */
	assert_true(cache_has(c, (struct cache_key){1, 999}));
	cache_free(c);
}

/* What is in use stays valid, however much comes after it. */
static void test_pinned(void **state)
{
	struct cache *c;
	struct err err = ERR_INIT;
	struct cache_entry *pinned[50], *e;
	struct want w[50];

	synth_must(cache_new(16 * 4096, &c, &err), &err, "cache_new");
	for (unsigned i = 0; i < 50; i++) {
		w[i] = (struct want){{2, i}, 8192, -1, 0}; /* each larger than a shard's share */
		synth_must(cache_get(c, w[i].key, load, &w[i], &pinned[i], &err), &err, "get");
	}
	for (unsigned i = 100; i < 400; i++) {
		struct want o = {{2, i}, 8192, -1, 0};
		synth_must(cache_get(c, o.key, load, &o, &e, &err), &err, "get");
		cache_put(e);
	}
	for (unsigned i = 0; i < 50; i++) {
		check(pinned[i], &w[i]);
		cache_put(pinned[i]);
	}
	cache_put(NULL);
	cache_free(c);
}

static void test_failure(void **state)
{
	struct cache *c;
	struct err err = ERR_INIT;
	struct cache_entry *e = NULL;
	struct want w = {{3, 7}, 64, 2, 0};

	synth_must(cache_new(1 << 20, &c, &err), &err, "cache_new");
	assert_int_equal(cache_get(c, w.key, load, &w, &e, &err), -ERR_DAMAGED);
	assert_string_equal(err.msg, "block 7 is bad");
	assert_false(cache_has(c, w.key));
	assert_int_equal(cache_get(c, w.key, load, &w, &e, NULL), -ERR_DAMAGED);
	synth_must(cache_get(c, w.key, load, &w, &e, &err), &err, "get");
	check(e, &w);
	cache_put(e);
	cache_free(c);
}

struct crowd {
	struct cache *c;
	struct want w;
	_Atomic unsigned failed;
};

static void *crowd_main(void *arg)
{
	struct crowd *k = arg;
	struct cache_entry *e = NULL;
	struct err err = ERR_INIT;

	if (cache_get(k->c, k->w.key, load, &k->w, &e, &err) < 0) {
		k->failed++;
		return NULL;
	}
	check(e, &k->w);
	cache_put(e);
	return NULL;
}

static void test_single_flight(void **state)
{
	struct err err = ERR_INIT;

	for (int fails = -1; fails <= 1; fails += 2) {
		struct crowd k = {.w = {{4, 1}, 4096, fails, 50000}};
		pthread_t t[16];
		synth_must(cache_new(1 << 20, &k.c, &err), &err, "cache_new");
		loads = 0;
		for (unsigned i = 0; i < 16; i++)
			pthread_create(&t[i], NULL, crowd_main, &k);
		for (unsigned i = 0; i < 16; i++)
			pthread_join(t[i], NULL);
		if (fails < 0)
			assert_int_equal(loads, 1);
		else
			assert_true(k.failed >= 1 && loads <= 17);
		cache_free(k.c);
	}
}

static void *storm_main(void *arg)
{
	struct crowd *k = arg;
	struct rng r = {rng_next(&(struct rng){(uint64_t)(uintptr_t)&r})};
	struct cache_entry *held[4] = {NULL};
	struct want w[4];

	for (unsigned i = 0; i < 20000; i++) {
		size_t s = i % 4;
		struct err err = ERR_INIT;
		if (held[s]) {
			check(held[s], &w[s]);
			cache_put(held[s]);
			held[s] = NULL;
		}
		w[s] = (struct want){{5, rng_below(&r, 300)}, 512, -1, 0};
		w[s].fail_times = w[s].key.offset % 50 == 0;
		if (cache_get(k->c, w[s].key, load, &w[s], &held[s], &err) < 0)
			held[s] = NULL;
	}
	for (size_t s = 0; s < 4; s++)
		cache_put(held[s]);
	return NULL;
}

static void test_storm(void **state)
{
	struct crowd k = {0};
	struct err err = ERR_INIT;
	pthread_t t[4];

	synth_must(cache_new(16 * 2048, &k.c, &err), &err, "cache_new");
	for (unsigned i = 0; i < 4; i++)
		pthread_create(&t[i], NULL, storm_main, &k);
	for (unsigned i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	cache_free(k.c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_hit_and_evict), cmocka_unit_test(test_pinned),
	        cmocka_unit_test(test_failure),       cmocka_unit_test(test_single_flight),
	        cmocka_unit_test(test_storm),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
