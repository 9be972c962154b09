/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Far objects in pieces: who reads on is read ahead for, whoever reads with him; nothing is fetched
 * twice; what is right is given, whatever requests fail.
 */
#include "engine/base/clock.h"
#include "engine/store/faulty.h"
#include "engine/store/reader.h"
#include "tests/lib/synth.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>

#include <cmocka.h>

#define KEY "local/a.db/snapshot/x"
#define BYTES ((40u << 20) + 12345)
#define PART_BYTES (600u << 10) /* of a restore: 1 MiB of content */
#define READ_BYTES 6000u        /* a block as stored */
#define LEAF_EVERY (17u << 20)  /* an index lies behind so much */

struct far {
	struct store *store;
	struct store_reader *reader;
	struct source *src;
	uint8_t *want;
};

static void far_open(struct far *f, const struct store_faults *faults)
{
	struct store_faults none = {.remote = true};
	struct rng rng = {test_seed()};
	struct err err = ERR_INIT;

	f->want = malloc(BYTES);
	assert_non_null(f->want);
	for (size_t i = 0; i + 8 <= BYTES; i += 8) {
		uint64_t v = rng_next(&rng);
		memcpy(f->want + i, &v, 8);
	}
	synth_must(store_open_memory(&f->store, &err), &err, "store_open_memory");
	synth_must(store_open_faulty(f->store, &none, &f->store, &err), &err, "store_open_faulty");
	synth_must(store_put_bytes(f->store, KEY, f->want, BYTES, 0, &err), &err, "put");
	store_faulty_set(f->store, faults);
	const struct reader_options ro = {.stores = &f->store, .n_stores = 1};
	synth_must(store_reader_new(&ro, &f->reader, &err), &err, "store_reader_new");
	synth_must(store_reader_open(f->reader, 0, KEY, BYTES, 1, &f->src, &err), &err, "open");
}

static void far_close(struct far *f)
{
	source_free(f->src);
	store_reader_free(f->reader);
	store_free(f->store);
	free(f->want);
}

static uint64_t gets(struct store *s)
{
	struct store_counters c;

	store_get_counters(s, &c);
	return c.requests[STORE_GET];
}

/* As a restore reads: threads that take part after part, each block by block, and an index far
 * beyond now and then. */
struct readers {
	struct far *f;
	_Atomic uint64_t next;
	_Atomic unsigned wrong, failed;
	unsigned tries; /* before a read counts as failed */
};

static void read_one(struct readers *x, uint64_t at, size_t len)
{
	uint8_t got[READ_BYTES];
	int rc = -1;

	for (unsigned i = 0; i < x->tries && rc < 0; i++)
		rc = x->f->src->pread(x->f->src, got, len, at, NULL);
	x->failed += rc < 0;
	x->wrong += rc == 0 && memcmp(got, x->f->want + at, len) != 0;
}

static void *read_parts(void *arg)
{
	struct readers *x = arg;

	for (;;) {
		uint64_t at = atomic_fetch_add(&x->next, PART_BYTES), end = at + PART_BYTES;
		if (at >= BYTES)
			return NULL;
		uint64_t leaf = (at / LEAF_EVERY + 1) * LEAF_EVERY;
		if (leaf + READ_BYTES < BYTES)
			read_one(x, leaf, READ_BYTES);
		for (end = end < BYTES ? end : BYTES; at < end; at += READ_BYTES)
			read_one(x, at, end - at < READ_BYTES ? (size_t)(end - at) : READ_BYTES);
	}
}

static void read_everything(struct readers *x, unsigned n)
{
	pthread_t threads[8];

	for (unsigned i = 0; i < n; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, read_parts, x), 0);
	for (unsigned i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
}

static void test_many_read_on_together(void **state)
{
	static const unsigned counts[] = {1, 2, 4, 7};
	const struct store_faults slow = {.remote = true, .delay_us = 3000};

	for (size_t i = 0; i < sizeof(counts) / sizeof(*counts); i++) {
		struct far f = {0};
		far_open(&f, &slow);
		struct readers x = {.f = &f, .tries = 1};
		read_everything(&x, counts[i]);
		struct store_counters c;
		store_get_counters(f.store, &c);
		uint64_t n = gets(f.store);
		unsigned at_once = store_faulty_most_at_once(f.store);
		print_message("%u threads: %u GETs, %u kB, %u at once\n", counts[i], (unsigned)n,
		              (unsigned)(c.received_bytes / 1000), at_once);
		assert_int_equal(x.wrong + x.failed, 0);
		/* 41 MiB by pieces of one, and what it takes until the run shows. */
		assert_in_range(n, 41, 41 + 40 * counts[i]);
		assert_in_range(c.received_bytes, BYTES, BYTES + BYTES / 20); /* once */
		/* Reading on is waiting for some requests at once, not for one after the other. */
		assert_in_range(at_once, 4, 8 + counts[i]);
		far_close(&f);
	}
}

/* Whatever fails on the way: the right bytes, for who asks again. */
static void test_faults_while_reading_on(void **state)
{
	const struct store_faults faults = {.seed = test_seed(),
	                                    .remote = true,
	                                    .delay_us = 500,
	                                    .fail_permille = 100,
	                                    .cut_permille = 100};
	struct far f = {0};

	far_open(&f, &faults);
	struct readers x = {.f = &f, .tries = 40};
	read_everything(&x, 3);
	assert_int_equal(x.wrong + x.failed, 0);
	far_close(&f);
}

/* Who asks here and there gets that, and nothing is read ahead. */
static void test_here_and_there(void **state)
{
	const struct store_faults none = {.remote = true};
	struct rng rng = {test_seed()};
	struct far f = {0};

	far_open(&f, &none);
	struct readers x = {.f = &f, .tries = 1};
	for (unsigned i = 0; i < 60; i++)
		read_one(&x, rng_below(&rng, BYTES - READ_BYTES), READ_BYTES);
	assert_int_equal(x.wrong + x.failed, 0);
	assert_in_range(gets(f.store), 50, 60);
	assert_int_equal(store_faulty_most_at_once(f.store), 1);
	far_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_many_read_on_together),
	        cmocka_unit_test(test_faults_while_reading_on),
	        cmocka_unit_test(test_here_and_there),
	};
	return cmocka_run_group_tests_name("reader", tests, NULL, NULL);
}
