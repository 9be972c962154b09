/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stores, held to the numbered promises of engine/store/store.h against a model: a directory,
 * memory, and, where ASOF_TEST_STORE names one, a bucket or server.
 */
#include "engine/base/file.h"
#include "engine/base/hash.h"
#include "engine/store/crypt.h"
#include "engine/store/faulty.h"
#include "engine/store/store.h"
#include "engine/store/trial.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#define MODEL_MAX 200
#define BODY_MAX 5000

static uint64_t dice;

static uint64_t roll(uint64_t n)
{
	dice = dice * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (dice >> 33) % n;
}

#define assert_ok(e, rc)                                                                           \
	do {                                                                                       \
		if ((rc) < 0)                                                                      \
			fail_msg("%s", (e).msg);                                                   \
	} while (0)

/* ---- the model ---- */

struct known {
	char key[80];
	uint8_t body[BODY_MAX];
	size_t len;
};
struct model {
	struct known *k;
	size_t n;
};

static struct known *known_of(struct model *m, const char *key)
{
	for (size_t i = 0; i < m->n; i++)
		if (strcmp(m->k[i].key, key) == 0)
			return &m->k[i];
	return NULL;
}

/* Few names, so that they meet; some that sort on either side of '/', some that need care in a URL. */
static void random_key(char out[80])
{
	static const char *const folders[] = {"", "a/", "a-b/", "a/b/", "a0/", "ä +/", "a%2F/b c/"};
	static const char *const names[] = {"x", "y-1", "y.1", "y01", "z z", "ü", "q&=?#'\"", "~+"};

	/* No key is the folder of another. */
	snprintf(out, 80, "%s%s%c", folders[roll(7)], names[roll(8)], "mno"[roll(3)]);
}

static void random_body(struct known *k)
{
	k->len = roll(10) == 0 ? 0 : roll(BODY_MAX);
	for (size_t i = 0; i < k->len; i++)
		k->body[i] = (uint8_t)roll(256);
}

static void do_put(struct store *s, struct model *m)
{
	static struct known fresh;
	struct err err = ERR_INIT;
	unsigned flags = roll(2) ? STORE_CREATE : 0;

	random_key(fresh.key);
	random_body(&fresh);
	struct known *old = known_of(m, fresh.key);
	if (old && roll(3) == 0) /* a put tried again */
		fresh = *old;
	int rc = store_put_bytes(s, fresh.key, fresh.body, fresh.len, flags, &err);
	if (old && (flags & STORE_CREATE) &&
	    (old->len != fresh.len || memcmp(old->body, fresh.body, old->len) != 0)) {
		assert_int_equal(err_kind_of(rc), ERR_EXISTS); /* (2) */
		return;
	}
	assert_ok(err, rc);
	if (!old && m->n == MODEL_MAX)
		fail_msg("the model is full");
	*(old ? old : &m->k[m->n++]) = fresh;
}

/* (1) and (4): whole, and the bytes that were put. */
static void do_get(struct store *s, struct model *m)
{
	cleanup_buf struct buf b = BUF_INIT(BODY_MAX + 1);
	struct err err = ERR_INIT;
	char key[80];

	random_key(key);
	struct known *k = known_of(m, key);
	int rc = store_get(s, key, BODY_MAX, &b, &err);
	if (!k) {
		assert_int_equal(err_kind_of(rc), ERR_NOT_FOUND);
		return;
	}
	assert_ok(err, rc);
	assert_int_equal(b.len, k->len);
	assert_memory_equal(b.data ? b.data : (uint8_t *)"", k->body, k->len);
	if (k->len) /* larger than may be */
		assert_int_equal(err_kind_of(store_get(s, key, k->len - 1, &b, NULL)), ERR_DAMAGED);
}

static void do_open(struct store *s, struct model *m)
{
	cleanup_source struct source *src = NULL;
	uint8_t got[BODY_MAX + 1];
	struct err err = ERR_INIT;
	uint64_t size;
	char key[80];

	random_key(key);
	struct known *k = known_of(m, key);
	bool told = roll(2);
	int rc = store_open_object(s, key, told && k ? k->len : told ? 10 : UINT64_MAX, &src, &err);
	if (rc == 0 && !k) /* shows at the first read */
		rc = src->pread(src, got, 1, 0, &err);
	if (!k) {
		assert_int_equal(err_kind_of(rc), ERR_NOT_FOUND);
		return;
	}
	assert_ok(err, rc);
	assert_ok(err, src->size(src, &size, &err));
	assert_int_equal(size, k->len);
	for (int i = 0; i < 3; i++) {
		size_t at = roll(k->len + 1), n = roll(k->len - at + 1);
		assert_ok(err, src->pread(src, got, n, at, &err));
		assert_memory_equal(got, k->body + at, n);
	}
	assert_int_equal(err_kind_of(src->pread(src, got, 1, k->len, NULL)), ERR_DAMAGED);
}

static void do_remove(struct store *s, struct model *m)
{
	struct err err = ERR_INIT;
	char key[80];

	random_key(key);
	assert_ok(err, store_remove(s, key, &err)); /* there or not */
	struct known *k = known_of(m, key);
	if (k)
		*k = m->k[--m->n];
}

struct listing {
	char keys[MODEL_MAX][80];
	uint64_t bytes[MODEL_MAX];
	size_t n, stop_at;
};

static int add_listed(void *ctx, const struct store_entry *e, struct err *err)
{
	struct listing *l = ctx;

	if (l->n == l->stop_at)
		return err_set(err, ERR_CANCELLED, 0, "enough");
	snprintf(l->keys[l->n], 80, "%s", e->key);
	l->bytes[l->n++] = e->bytes;
	return 0;
}

static int listed_compare(const void *a, const void *b)
{
	return strcmp(a, b);
}

/* (6): what the model says, as store_list() describes it. */
static void expect(struct model *m, const char *prefix, const char *after, bool deep,
                   struct listing *l)
{
	for (size_t i = 0; i < m->n; i++) {
		char key[80];
		bool seen = false;
		if (strncmp(m->k[i].key, prefix, strlen(prefix)) != 0)
			continue;
		const char *slash = strchr(m->k[i].key + strlen(prefix), '/');
		snprintf(key, sizeof(key), "%.*s",
		         !deep && slash ? (int)(slash + 1 - m->k[i].key) : 79, m->k[i].key);
		for (size_t j = 0; j < l->n; j++)
			seen = seen || strcmp(l->keys[j], key) == 0;
		if (seen || (after && strcmp(key, after) <= 0))
			continue;
		memcpy(l->keys[l->n++], key, 80);
	}
	qsort(l->keys, l->n, 80, listed_compare);
	for (size_t i = 0; i < l->n; i++) {
		struct known *k = known_of(m, l->keys[i]);
		l->bytes[i] = k ? k->len : 0;
	}
}

/* Folders stay when what they held is gone. */
static void drop_empty_folders(struct model *m, struct listing *l)
{
	size_t kept = 0;

	for (size_t i = 0; i < l->n; i++) {
		size_t len = strlen(l->keys[i]);
		bool drop = l->keys[i][len - 1] == '/';
		for (size_t j = 0; j < m->n; j++)
			drop = drop && strncmp(m->k[j].key, l->keys[i], len) != 0;
		if (!drop) {
			memmove(l->keys[kept], l->keys[i], 80);
			l->bytes[kept++] = l->bytes[i];
		}
	}
	l->n = kept;
}

static void do_list(struct store *s, struct model *m)
{
	static struct listing want, got;
	static const char *const prefixes[] = {"",    "a",    "a/",       "a/b/",
	                                       "a/y", "ä +/", "nothing/", "q"};
	const char *prefix = prefixes[roll(8)];
	struct err err = ERR_INIT;
	bool deep = roll(2);
	char after[80];

	random_key(after);
	const char *from = roll(2) ? after : NULL;
	want.n = got.n = 0;
	got.stop_at = MODEL_MAX;
	expect(m, prefix, from, deep, &want);
	assert_ok(err, store_list(s, prefix, from, deep, add_listed, &got, &err));
	if (s->dir_fd >= 0 || strncmp(s->label, "sftp:", 5) == 0)
		drop_empty_folders(m, &got);
	assert_int_equal(got.n, want.n);
	for (size_t i = 0; i < got.n; i++) {
		assert_string_equal(got.keys[i], want.keys[i]);
		assert_int_equal(got.bytes[i], want.bytes[i]);
	}
	if (want.n > 1) { /* ends when it is told to, with that */
		got.n = 0;
		got.stop_at = roll(want.n);
		int rc = store_list(s, prefix, from, deep, add_listed, &got, &err);
		assert_int_equal(err_kind_of(rc), ERR_CANCELLED);
		assert_int_equal(got.n, got.stop_at);
	}
}

static void drive(struct store *s, unsigned steps)
{
	struct model m = {calloc(MODEL_MAX, sizeof(struct known)), 0};
	struct store_counters before, after;

	store_get_counters(s, &before);
	for (unsigned i = 0; i < steps; i++) {
		switch (roll(8)) {
		case 0:
		case 1:
		case 2:
			do_put(s, &m);
			break;
		case 3:
			do_get(s, &m);
			break;
		case 4:
			do_open(s, &m);
			break;
		case 5:
			do_remove(s, &m);
			break;
		default:
			do_list(s, &m);
		}
	}
	store_get_counters(s, &after);
	for (enum store_verb v = 0; v < STORE_N_VERBS; v++)
		if (v != STORE_HEAD)
			assert_true(after.requests[v] > before.requests[v]);
	assert_true(after.sent_bytes > before.sent_bytes);
	for (size_t i = 0; i < m.n; i++)
		assert_int_equal(store_remove(s, m.k[i].key, NULL), 0);
	free(m.k);
}

/* (2): of many writers one wins, and what it put is what is there. */
struct racer {
	struct store *store;
	pthread_barrier_t *start;
	char body[3000];
	int rc;
};

static void *race(void *arg)
{
	struct racer *r = arg;

	pthread_barrier_wait(r->start);
	r->rc = store_put_bytes(r->store, "race/one", r->body, sizeof(r->body), STORE_CREATE, NULL);
	return NULL;
}

static void check_race(struct store *s)
{
	struct racer r[6];
	pthread_barrier_t start;
	pthread_t t[6];
	int winner = -1;

	pthread_barrier_init(&start, NULL, 6);
	for (int i = 0; i < 6; i++) {
		r[i].store = s;
		r[i].start = &start;
		memset(r[i].body, 'a' + i, sizeof(r[i].body));
		pthread_create(&t[i], NULL, race, &r[i]);
	}
	for (int i = 0; i < 6; i++) {
		pthread_join(t[i], NULL);
		if (r[i].rc == 0) {
			assert_int_equal(winner, -1);
			winner = i;
		} else {
			assert_int_equal(err_kind_of(r[i].rc), ERR_EXISTS);
		}
	}
	assert_true(winner >= 0);
	cleanup_buf struct buf b = BUF_INIT(4000);
	assert_int_equal(store_get(s, "race/one", 4000, &b, NULL), 0);
	assert_int_equal(b.len, 3000);
	assert_memory_equal(b.data, r[winner].body, 3000);
	assert_int_equal(store_remove(s, "race/one", NULL), 0);
	pthread_barrier_destroy(&start);
}

static void check_keys(struct store *s)
{
	static const char *const bad[] = {"", "/a", "a/", "a//b", "../a", "a/..", "./a", "a/./b"};
	struct err err = ERR_INIT;

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_int_equal(err_kind_of(store_put_bytes(s, bad[i], "x", 1, 0, &err)),
		                 ERR_USAGE);
	char long_key[STORE_KEY_MAX + 2];
	memset(long_key, 'k', sizeof(long_key) - 1);
	long_key[sizeof(long_key) - 1] = '\0';
	assert_int_equal(err_kind_of(store_put_bytes(s, long_key, "x", 1, 0, &err)), ERR_USAGE);
	assert_int_equal(err_kind_of(store_list(s, "../", NULL, true, add_listed, NULL, &err)),
	                 ERR_USAGE);
}

static void check_all(struct store *s, unsigned steps)
{
	for (uint64_t seed = 1; seed <= 4; seed++) {
		dice = seed;
		drive(s, steps);
	}
	for (int i = 0; i < 10; i++)
		check_race(s);
	check_keys(s);
}

static void remove_tree(const char *dir)
{
	char command[200];

	snprintf(command, sizeof(command), "rm -rf '%s'", dir);
	assert_int_equal(system(command), 0);
}

static void test_local(void **state)
{
	char dir[] = "/tmp/asof-store-XXXXXX", sub[64];
	struct err err = ERR_INIT;
	cleanup_store struct store *s = NULL;
	struct stat st;

	assert_non_null(mkdtemp(dir));
	snprintf(sub, sizeof(sub), "%s/new/er", dir);
	assert_int_equal(err_kind_of(store_open(sub, NULL, &s, &err)), ERR_NOT_FOUND);
	struct store_options make = {.create = true};
	assert_ok(err, store_open(sub, &make, &s, &err));
	assert_true(s->dir_fd >= 0 && !s->remote);
	check_all(s, 600);
	/* Nobody else can read what is put. */
	assert_ok(err, store_put_bytes(s, "p/b", "x", 1, 0, &err));
	assert_int_equal(fstatat(s->dir_fd, "p/b", &st, 0), 0);
	assert_int_equal(st.st_mode & 077, 0);
	assert_int_equal(fstatat(s->dir_fd, "p", &st, 0), 0);
	assert_int_equal(st.st_mode & 077, 0);
	remove_tree(dir);
}

static void test_memory(void **state)
{
	cleanup_store struct store *s = NULL;
	struct err err = ERR_INIT;

	assert_ok(err, store_open_memory(&s, &err));
	check_all(s, 3000);
}

static void test_encrypted(void **state)
{
	cleanup_key_identity struct key_identity who;
	char dir[] = "/tmp/asof-store-XXXXXX", file[64];
	cleanup_store struct store *s = NULL;
	struct store *inner = NULL;
	struct err err = ERR_INIT;

	assert_non_null(mkdtemp(dir));
	snprintf(file, sizeof(file), "%s/identity", dir);
	assert_ok(err, key_identity_make(file, &who, &err));
	assert_ok(err, store_open_memory(&inner, &err));
	assert_ok(err, store_open_crypt(inner, &who, &s, &err));
	check_all(s, 1500);
	remove_tree(dir);
}

static void test_layer_without_faults(void **state)
{
	cleanup_store struct store *s = NULL;
	struct store *inner = NULL;
	struct err err = ERR_INIT;

	assert_ok(err, store_open_memory(&inner, &err));
	assert_ok(err, store_open_faulty(inner, &(struct store_faults){.remote = true}, &s, &err));
	assert_true(s->remote);
	check_all(s, 1500);
}

/* ---- trying out ---- */

static int count_one(void *ctx, const struct store_entry *e, struct err *err)
{
	(void)e, (void)err;
	++*(unsigned *)ctx;
	return 0;
}

static void check_trial(struct store_faults faults,
                        const enum store_trial_state want[N_TRIAL_STEPS], bool creates)
{
	cleanup_store struct store *s = NULL;
	struct store *inner = NULL;
	struct store_trial t;
	struct err err = ERR_INIT;
	unsigned n = 0;
	bool found = false;

	assert_ok(err, store_open_memory(&inner, &err));
	assert_ok(err, store_open_faulty(inner, &faults, &s, &err));
	for (int i = 0; i < 2;
	     i++) { /* what the first leaves behind does not matter to the second */
		store_try_out(s, "trial", &t);
		for (int k = 0; k < N_TRIAL_STEPS; k++)
			assert_int_equal(t.steps[k].state, want[k]);
		if (want[TRIAL_WRITE] != TRIAL_OK)
			return;
		assert_true(t.has_clock && t.clock_us == 0);
		assert_ok(err, store_list(inner, "", NULL, true, count_one, &n, &err));
		assert_int_equal(n, 0);
		assert_ok(err, store_put_bytes(inner, "trial", "left", 4, 0, &err));
		assert_ok(err, store_find_creates(s, "trial", &found, &err));
		assert_true(found == creates);
		if (i) /* nothing lies there this time */
			assert_ok(err, store_remove(inner, "trial", &err));
		assert_ok(err, store_find_creates(s, "trial", &found, &err));
		assert_true(found == creates);
		assert_ok(err, store_remove(inner, "trial", &err));
	}
}

static void test_trial(void **state)
{
	const enum store_trial_state OK = TRIAL_OK, NO = TRIAL_LACKS, BAD = TRIAL_FAILED,
	                             NOT = TRIAL_UNTRIED;

	check_trial((struct store_faults){.seed = 1},
	            (enum store_trial_state[]){OK, OK, OK, OK, OK}, true);
	check_trial((struct store_faults){.ignores_create = true},
	            (enum store_trial_state[]){OK, OK, OK, NO, OK}, false);
	check_trial((struct store_faults){.refuses_create = true},
	            (enum store_trial_state[]){OK, OK, OK, NO, OK}, false);
	check_trial((struct store_faults){.fail_permille = 1000},
	            (enum store_trial_state[]){BAD, NOT, NOT, NOT, NOT}, false);
}

/* Each fault comes about as often as was asked for, and shows as what it is. */
static void test_faults(void **state)
{
	cleanup_store struct store *s = NULL;
	struct store *inner = NULL;
	struct err err = ERR_INIT;
	uint8_t body[1000], got[1000];
	unsigned failed = 0, there = 0, flipped = 0, cut = 0;

	memset(body, 7, sizeof(body));
	assert_ok(err, store_open_memory(&inner, &err));
	assert_ok(err,
	          store_open_faulty(inner, &(struct store_faults){.seed = 3, .lost_permille = 300},
	                            &s, &err));
	for (unsigned i = 0; i < 1000; i++) {
		char key[20];
		snprintf(key, sizeof(key), "k%u", i);
		int rc = store_put_bytes(s, key, body, sizeof(body), 0, &err);
		failed += err_kind_of(rc) == ERR_UNAVAILABLE;
		cleanup_buf struct buf b = BUF_INIT(1000);
		there += store_get(inner, key, 1000, &b, NULL) == 0;
	}
	assert_in_range(failed, 240, 360);
	assert_int_equal(there, 1000); /* lost answers, not lost puts */

	store_faulty_set(
	        s, &(struct store_faults){.seed = 4, .cut_permille = 200, .flip_permille = 200});
	cleanup_source struct source *src = NULL;
	assert_ok(err, store_open_object(s, "k1", 1000, &src, &err));
	for (unsigned i = 0; i < 1000; i++) {
		unsigned bits = 0;
		int rc = src->pread(src, got, 1000, 0, &err);
		for (size_t j = 0; j < 1000 && rc == 0; j++)
			bits += (unsigned)__builtin_popcount(got[j] ^ 7u);
		assert_true(bits <= 1);
		flipped += bits;
		cut += err_kind_of(rc) == ERR_DAMAGED;
	}
	assert_in_range(cut, 150, 250);
	assert_in_range(flipped, 110, 210); /* of those that were not cut */
}

static void test_urls(void **state)
{
	struct store *s = NULL;
	struct err err = ERR_INIT;

	assert_true(store_is_url("s3://b/p"));
	assert_true(store_is_url("sftp://u@h/p"));
	assert_false(store_is_url("/s3://b"));
	assert_false(store_is_url("s3:/b"));
	assert_int_equal(err_kind_of(store_open("gs://b/p", NULL, &s, &err)), ERR_USAGE);
	assert_non_null(strstr(err.msg, "gs://"));
}

static void test_named(void **state)
{
	const char *url = getenv("ASOF_TEST_STORE");
	cleanup_store struct store *s = NULL;
	struct err err = ERR_INIT;

	assert_ok(err, store_open(url, &(struct store_options){.create = true}, &s, &err));
	check_all(s, 150);
}

int main(void)
{
	const struct CMUnitTest named[] = {cmocka_unit_test(test_named)};
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_local),     cmocka_unit_test(test_memory),
	        cmocka_unit_test(test_encrypted), cmocka_unit_test(test_layer_without_faults),
	        cmocka_unit_test(test_trial),     cmocka_unit_test(test_faults),
	        cmocka_unit_test(test_urls),
	};

	/* tests/e2e starts a server and names it */
	return getenv("ASOF_TEST_STORE")
	               ? cmocka_run_group_tests_name("named store", named, NULL, NULL)
	               : cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
