/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Far objects in pieces: who reads on is read ahead for, whoever reads with him; nothing is fetched
 * twice; what is right is given, whatever requests fail.
 */
#include "engine/base/clock.h"
#include "engine/store/faulty.h"
#include "engine/store/reader_i.h"
#include "tests/lib/synth.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>

#include <cmocka.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEY "local/a.db/snapshot/x"
#define BYTES ((40u << 20) + 12345)
#define PART_BYTES (600u << 10) /* of a restore: 1 MiB of content */
#define READ_BYTES 6000u        /* a block as stored */
#define LEAF_EVERY (17u << 20)  /* an index lies behind so much */
#define N_AHEAD 16u             /* requests for those who read on */

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

	f->want = calloc(1, BYTES);
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
	_Atomic size_t most_bytes; /* in the reader's memory, as seen */
	unsigned tries;            /* before a read counts as failed */
};

static void read_one(struct readers *x, uint64_t at, size_t len)
{
	uint8_t got[READ_BYTES];
	struct store_reader *r = x->f->reader;
	int rc = -1;

	pthread_mutex_lock(&r->lock);
	if (r->bytes > x->most_bytes)
		x->most_bytes = r->bytes;
	pthread_mutex_unlock(&r->lock);
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
		/* Once, but for what several asked for before the run showed. */
		assert_in_range(c.received_bytes, BYTES,
		                BYTES + BYTES / 20 + counts[i] * READER_PIECE);
		assert_in_range(x.most_bytes, 1, (24 + counts[i]) << 20);
		/* Reading on is waiting for some requests at once, not for one after the other. */
		assert_in_range(at_once, 4, N_AHEAD + counts[i]);
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

/* ---- what somebody said will be read ---- */

static void *read_here_and_there(void *arg)
{
	struct readers *x = arg;
	struct rng rng = {x->next++ + 1};

	for (unsigned i = 0; i < 2000; i++)
		read_one(x, rng_below(&rng, BYTES - READ_BYTES), READ_BYTES);
	return NULL;
}

static void read_all_over(struct readers *x, unsigned n)
{
	pthread_t threads[8];

	for (unsigned i = 0; i < n; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, read_here_and_there, x), 0);
	for (unsigned i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
}

/* Whether the file without a name, which is the only one, has any stretch of the object as it is. */
static bool is_in_the_clear(const struct far *f)
{
	char path[64], to[300];
	uint8_t back[READ_BYTES];
	unsigned files = 0, clear = 0;

	for (int fd = 0; fd < 100; fd++) {
		struct stat st;
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		ssize_t n = readlink(path, to, sizeof(to) - 1);
		to[n < 0 ? 0 : n] = '\0';
		if (!strstr(to, " (deleted)") || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) ||
		    st.st_size < (off_t)BYTES / 2)
			continue;
		files++;
		for (uint64_t at = 0; at + READ_BYTES <= (uint64_t)st.st_size; at += READ_BYTES) {
			assert_int_equal(pread(fd, back, READ_BYTES, (off_t)at), READ_BYTES);
			clear += memcmp(back, f->want + at, READ_BYTES) == 0;
		}
	}
	assert_int_equal(files, 1);
	return clear > 0;
}

static void read_all_over_of(bool sealed)
{
	const struct store_faults slow = {.remote = true, .delay_us = 3000};
	struct far f = {0};
	struct store_counters c;

	far_open(&f, &slow);
	f.store->sealed = sealed;
	struct readers x = {.f = &f, .tries = 1};
	source_expect(f.src, SOURCE_ALL_OVER);
	read_all_over(&x, 3);
	assert_int_equal(x.wrong + x.failed, 0);
	assert_int_equal(is_in_the_clear(&f), !sealed);
	store_get_counters(f.store, &c);
	assert_int_equal(c.requests[STORE_GET], (BYTES + READER_PIECE - 1) / READER_PIECE);
	assert_int_equal(c.received_bytes, BYTES);
	assert_in_range(store_faulty_most_at_once(f.store), 4, N_AHEAD + 3);
	far_close(&f);
}

/* What is read all over comes once, by large requests, some at once; of what is sealed there, nothing
 * lies here in the clear. */
static void test_all_over(void **state)
{
	read_all_over_of(false);
	read_all_over_of(true);
}

static void all_over_with_faults(bool sealed)
{
	const struct store_faults faults = {
	        .seed = test_seed(), .remote = true, .fail_permille = 100, .cut_permille = 100};
	struct far f = {0};

	far_open(&f, &faults);
	f.store->sealed = sealed;
	struct readers x = {.f = &f, .tries = 40};
	source_expect(f.src, SOURCE_ALL_OVER);
	read_all_over(&x, 3);
	assert_int_equal(x.wrong + x.failed, 0);
	far_close(&f);
}

static void test_all_over_with_faults(void **state)
{
	all_over_with_faults(false);
	all_over_with_faults(true);
}

/* Bytes that turned on the way: who finds that asks again, and what is here of them is forgotten. */
static void test_turned_bytes_are_forgotten(void **state)
{
	const struct store_faults flips = {.remote = true, .flip_permille = 1000},
	                          none = {.remote = true};
	struct far f = {0};
	uint8_t got[READ_BYTES];

	far_open(&f, &flips);
	struct readers x = {.f = &f, .tries = 1};
	source_expect(f.src, SOURCE_ALL_OVER);
	for (uint64_t at = 0; at + READ_BYTES < BYTES; at += READER_PIECE)
		read_one(&x, at, READ_BYTES);
	assert_int_equal(x.failed, 0);
	store_faulty_set(f.store, &none);
	for (uint64_t at = 0; at + READER_PIECE < BYTES; at += READER_PIECE) {
		assert_int_equal(f.src->pread_again(f.src, 1, got, READ_BYTES, at, NULL), 0);
		assert_memory_equal(got, f.want + at, READ_BYTES);
	}
	x.wrong = 0;
	for (uint64_t at = 0; at + READER_PIECE < BYTES; at += READ_BYTES)
		read_one(&x, at, READ_BYTES);
	assert_int_equal(x.wrong + x.failed, 0);
	far_close(&f);
}

static void test_in_order(void **state)
{
	const struct store_faults slow = {.remote = true, .delay_us = 3000};
	struct far f = {0};

	far_open(&f, &slow);
	struct readers x = {.f = &f, .tries = 1};
	source_expect(f.src, SOURCE_IN_ORDER);
	read_everything(&x, 2);
	assert_int_equal(x.wrong + x.failed, 0);
	assert_in_range(x.most_bytes, 8 << 20, (24 + 2) << 20);
	assert_in_range(gets(f.store), 41,
	                41 + 8); /* an index far beyond is a request of its own */
	assert_in_range(store_faulty_most_at_once(f.store), 4, N_AHEAD + 2);
	far_close(&f);
}

/* Nothing is on its way any more. */
static bool is_quiet(struct far *f)
{
	LOCK_SCOPE(&f->reader->lock);

	for (const struct piece *p = f->reader->pieces; p; p = p->next)
		if (p->state == LOADING)
			return false;
	return f->reader->queue_n == 0;
}

static void wait_until_quiet(struct far *f)
{
	int64_t end_us = clock_mono_us() + 20 * US_PER_SECOND;

	while (!is_quiet(f) && clock_mono_us() < end_us)
		clock_sleep_us(1000);
	assert_true(is_quiet(f));
}

/* What was said to be wanted beyond what is read ahead is there when it is, and comes once, though
 * more than the memory holds went through meanwhile. */
static void test_an_index_on_the_way(void **state)
{
	const struct store_faults none = {.remote = true};
	const uint64_t index = (uint64_t)39 << 20;
	struct far f = {0};

	far_open(&f, &none);
	struct readers x = {.f = &f, .tries = 1};
	source_expect_bytes(f.src, index, READ_BYTES);
	source_expect(f.src, SOURCE_IN_ORDER);
	for (uint64_t at = 0; at < (uint64_t)20 << 20; at += READ_BYTES)
		read_one(&x, at, READ_BYTES);
	wait_until_quiet(&f);
	uint64_t before = gets(f.store);
	read_one(&x, index, READ_BYTES);
	assert_int_equal(gets(f.store), before);
	assert_int_equal(x.wrong + x.failed, 0);
	assert_true(x.most_bytes > 20 << 20);
	source_expect_bytes(f.src, BYTES - 100, 5000); /* a hint: behind the end there is nothing */
	source_expect_bytes(f.src, (uint64_t)BYTES + READER_PIECE, 1);
	read_one(&x, BYTES - 100, 100);
	assert_int_equal(x.wrong + x.failed, 0);
	far_close(&f);
}

/* The end comes once, though it is opened anew after somebody said so. */
static void test_the_end(void **state)
{
	const struct store_faults slow = {.remote = true, .delay_us = 3000};
	struct source *again;
	struct far f = {0};

	far_open(&f, &slow);
	source_expect(f.src, SOURCE_END);
	source_free(f.src);
	assert_int_equal(store_reader_open(f.reader, 0, KEY, BYTES, 1, &again, NULL), 0);
	f.src = again;
	struct readers x = {.f = &f, .tries = 1};
	read_one(&x, BYTES - READ_BYTES, READ_BYTES);
	read_one(&x, BYTES - 100, 100);
	assert_int_equal(x.wrong + x.failed, 0);
	assert_int_equal(gets(f.store), 1);
	far_close(&f);
}

/* Of a large object more: what tells of more is longer. */
static void test_the_end_of_much(void **state)
{
	const struct store_faults none = {.remote = true};
	const uint64_t bytes =
	        (39u << 20) + READER_CHUNK / 2 + 100; /* seen as shorter than it is */
	struct far f = {0};

	far_open(&f, &none);
	source_free(f.src);
	assert_int_equal(store_reader_open(f.reader, 0, KEY, bytes, 1, &f.src, NULL), 0);
	struct readers x = {.f = &f, .tries = 1};
	read_one(&x, bytes - 100, 100);
	read_one(&x, bytes - (38u << 10), 100);
	assert_int_equal(x.wrong + x.failed, 0);
	assert_int_equal(gets(f.store), 1);
	far_close(&f);
}

/* ---- a request that hangs ---- */

/* What covers HANGS_AT hangs until so many others are through, and fails then; the first time. */
#define HANGS_AT (5u << 20)
#define OTHERS 12u

struct hanging {
	struct store base;
	const uint8_t *bytes;
	pthread_mutex_t lock;
	pthread_cond_t more;
	unsigned through, hung; /* under lock */
};
struct hanging_source {
	struct source base;
	struct hanging *of;
};

static int hang_pread(struct source *s, void *buf, size_t len, uint64_t offset, struct err *err)
{
	struct hanging *h = ((struct hanging_source *)s)->of;
	LOCK_SCOPE(&h->lock);

	if (offset <= HANGS_AT && HANGS_AT < offset + len && h->hung++ == 0) {
		while (h->through < OTHERS)
			pthread_cond_wait(&h->more, &h->lock);
		return err_set(err, ERR_UNAVAILABLE, 0, "it stalled");
	}
	memcpy(buf, h->bytes + offset, len);
	h->through++;
	pthread_cond_broadcast(&h->more);
	return 0;
}

static void hang_free(struct source *s)
{
	free(s->name);
	free(s);
}

static int hang_open(struct store *s, const char *key, uint64_t bytes, struct source **ret,
                     struct err *err)
{
	struct hanging_source *o = calloc(1, sizeof(*o));

	o->base = (struct source){
	        .pread = hang_pread, .free = hang_free, .name = strdup(key), .remote = true};
	o->of = (struct hanging *)s;
	*ret = &o->base;
	return 0;
}

static void hang_store_free(struct store *s)
{
	free(s->label);
}

/* The others go on meanwhile, and what it was to bring is asked for again by who needs it. */
static void one_hangs(enum source_use use)
{
	static const struct store_ops ops = {.open = hang_open, .free = hang_store_free};
	struct hanging h = {.base = {.ops = &ops, .label = strdup("hanging"), .remote = true},
	                    .lock = PTHREAD_MUTEX_INITIALIZER,
	                    .more = PTHREAD_COND_INITIALIZER};
	const struct store_faults none = {.remote = true};
	struct store *stores[] = {&h.base};
	const struct reader_options ro = {.stores = stores, .n_stores = 1};
	struct far f = {0}, other = {0};

	far_open(&f, &none);
	h.bytes = f.want;
	other.want = f.want;
	assert_int_equal(store_reader_new(&ro, &other.reader, NULL), 0);
	assert_int_equal(store_reader_open(other.reader, 0, KEY, BYTES, 1, &other.src, NULL), 0);
	struct readers x = {.f = &other, .tries = 1};
	source_expect(other.src, use);
	read_everything(&x, 2);
	assert_int_equal(x.wrong + x.failed, 0);
	assert_int_equal(h.hung, 2);
	source_free(other.src);
	store_reader_free(other.reader);
	free(h.base.label);
	far_close(&f);
}

static void test_one_hangs(void **state)
{
	one_hangs(SOURCE_IN_ORDER);
	one_hangs(SOURCE_ALL_OVER);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_many_read_on_together),
	        cmocka_unit_test(test_faults_while_reading_on),
	        cmocka_unit_test(test_here_and_there),
	        cmocka_unit_test(test_all_over),
	        cmocka_unit_test(test_all_over_with_faults),
	        cmocka_unit_test(test_turned_bytes_are_forgotten),
	        cmocka_unit_test(test_in_order),
	        cmocka_unit_test(test_an_index_on_the_way),
	        cmocka_unit_test(test_the_end),
	        cmocka_unit_test(test_the_end_of_much),
	        cmocka_unit_test(test_one_hangs),
	};
	return cmocka_run_group_tests_name("reader", tests, NULL, NULL);
}
