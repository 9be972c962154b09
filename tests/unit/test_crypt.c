/* SPDX-License-Identifier: Apache-2.0 */
/* Encrypted stores: the numbered promises of engine/store/crypt.h and keys.h. */
#include "engine/base/clock.h"
#include "engine/store/crypt.h"
#include "engine/store/faulty.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#define BIG (5 * CRYPT_BLOCK_BYTES)

#define assert_ok(e, rc)                                                                           \
	do {                                                                                       \
		if ((rc) < 0)                                                                      \
			fail_msg("%s", (e).msg);                                                   \
	} while (0)

/* A store that does not take along what it lies over. */
struct borrowed {
	struct store base;
	struct store *inner;
};
#define INNER(s) ((struct borrowed *)(s))->inner
static int b_put(struct store *s, const char *key, struct source *body, uint64_t bytes,
                 unsigned flags, struct err *err)
{
	return store_put(INNER(s), key, body, bytes, flags, err);
}
static int b_get(struct store *s, const char *key, size_t max, struct buf *ret, struct err *err)
{
	return store_get(INNER(s), key, max, ret, err);
}
static int b_open(struct store *s, const char *key, uint64_t bytes, struct source **ret,
                  struct err *err)
{
	return store_open_object(INNER(s), key, bytes, ret, err);
}
static int b_list(struct store *s, const char *prefix, const char *after, bool deep,
                  store_list_fn *fn, void *ctx, struct err *err)
{
	return store_list(INNER(s), prefix, after, deep, fn, ctx, err);
}
static int b_remove(struct store *s, const char *key, struct err *err)
{
	return store_remove(INNER(s), key, err);
}
static void b_free(struct store *s)
{
	free(s);
}
static struct store *borrow(struct store *inner)
{
	static const struct store_ops ops = {.put = b_put,
	                                     .get = b_get,
	                                     .open = b_open,
	                                     .list = b_list,
	                                     .remove = b_remove,
	                                     .free = b_free};
	struct borrowed *b = calloc(1, sizeof(*b));

	b->base = (struct store){.ops = &ops, .label = inner->label, .remote = true, .dir_fd = -1};
	b->inner = inner;
	return &b->base;
}

struct fixture {
	char dir[40], file[64];
	struct key_identity me;
	struct store *inner; /* borrowed from `store` */
	struct store *store;
	uint8_t *text;
};

static struct store *crypt_over(struct store *inner, const struct key_identity *who)
{
	struct store *s = NULL;
	struct err err = ERR_INIT;

	assert_ok(err, store_open_crypt(inner, who, &s, &err));
	return s;
}

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct err err = ERR_INIT;

	snprintf(f->dir, sizeof(f->dir), "/tmp/asof-crypt-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->file, sizeof(f->file), "%s/me", f->dir);
	assert_ok(err, key_identity_make(f->file, &f->me, &err));
	assert_ok(err, store_open_memory(&f->inner, &err));
	f->store = crypt_over(f->inner, &f->me);
	f->text = malloc(BIG);
	for (size_t i = 0; i < BIG; i++)
		f->text[i] = (uint8_t)(i * 2654435761u >> 13);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;
	char command[80];

	store_free(f->store);
	snprintf(command, sizeof(command), "rm -rf '%s'", f->dir);
	(void)!system(command);
	free(f->text);
	free(f);
	return 0;
}

static void raw_get(struct store *s, const char *key, struct buf *b)
{
	struct err err = ERR_INIT;

	buf_clear(b);
	assert_ok(err, store_get(s, key, 1u << 20, b, &err));
}

static enum err_kind read_kind(struct store *s, const char *key)
{
	cleanup_buf struct buf b = BUF_INIT(1u << 20);

	return err_kind_of(store_get(s, key, 1u << 20, &b, NULL));
}

static void test_sizes_and_ranges(void **state)
{
	struct fixture *f = *state;
	static const uint64_t sizes[] = {0,
	                                 1,
	                                 CRYPT_BLOCK_BYTES - 1,
	                                 CRYPT_BLOCK_BYTES,
	                                 CRYPT_BLOCK_BYTES + 1,
	                                 3 * CRYPT_BLOCK_BYTES,
	                                 BIG};
	struct err err = ERR_INIT;
	uint8_t *got = malloc(BIG);
	uint64_t back;

	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		cleanup_source struct source *src = NULL;
		cleanup_buf struct buf raw = BUF_INIT(1u << 20);
		uint64_t n = sizes[i];

		assert_ok(err, store_put_bytes(f->store, "a/b", f->text, n, 0, &err));
		raw_get(f->inner, "a/b", &raw);
		assert_int_equal(raw.len, crypt_sealed_bytes(n));
		assert_true(crypt_plain_bytes(raw.len, &back) && back == n);
		if (n > 32) /* nothing of it can be seen */
			assert_null(memmem(raw.data, raw.len, f->text + n / 2, 12));
		assert_ok(err, store_open_object(f->store, "a/b", UINT64_MAX, &src, &err));
		assert_ok(err, src->size(src, &back, &err));
		assert_int_equal(back, n);
		for (uint64_t at = 0; at <= n; at += n / 7 + 1)
			for (uint64_t len = 0; len <= n - at; len += n / 5 + 1) {
				assert_ok(err, src->pread(src, got, len, at, &err));
				assert_memory_equal(got, f->text + at, len);
			}
		assert_int_equal(err_kind_of(src->pread(src, got, 1, n, NULL)), ERR_DAMAGED);
	}
	free(got);
	/* Sizes that no object has. */
	for (uint64_t n = 0; n < 3 * CRYPT_BLOCK_BYTES; n++)
		if (crypt_plain_bytes(n, &back))
			assert_int_equal(crypt_sealed_bytes(back), n);
	assert_false(crypt_plain_bytes(CRYPT_HEADER_BYTES, &back));
}

/* (3): after the header a read costs one request, however many blocks it touches. */
static void test_one_request(void **state)
{
	struct fixture *f = *state;
	cleanup_source struct source *src = NULL;
	struct store_counters before, after;
	struct err err = ERR_INIT;
	uint8_t got[100];

	assert_ok(err, store_put_bytes(f->store, "x", f->text, BIG, 0, &err));
	assert_ok(err, store_open_object(f->store, "x", BIG, &src, &err));
	assert_ok(err, src->pread(src, got, 1, 0, &err));
	store_get_counters(f->store, &before);
	assert_ok(err, src->pread(src, got, 100, 2 * CRYPT_BLOCK_BYTES - 50, &err));
	store_get_counters(f->store, &after);
	assert_int_equal(after.requests[STORE_GET] - before.requests[STORE_GET], 1);
	assert_int_equal(after.received_bytes - before.received_bytes,
	                 2 * (CRYPT_BLOCK_BYTES + CRYPT_TAG_BYTES));
}

/* (1), (4): whatever is done to what lies there, it is an error. */
static void test_alteration(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf raw = BUF_INIT(1u << 20), other = BUF_INIT(1u << 20);
	size_t block = CRYPT_BLOCK_BYTES + CRYPT_TAG_BYTES;
	uint64_t n = 3 * CRYPT_BLOCK_BYTES + 77;
	struct err err = ERR_INIT;

	assert_ok(err, store_put_bytes(f->store, "one", f->text, n, 0, &err));
	assert_ok(err, store_put_bytes(f->store, "two", f->text, n, 0, &err));
	raw_get(f->inner, "one", &raw);
	raw_get(f->inner, "two", &other);
	for (size_t at = 0; at < raw.len; at += at < 200 ? 1 : 97) {
		raw.data[at] ^= (uint8_t)(1u << at % 8);
		assert_ok(err, store_put_bytes(f->inner, "one", raw.data, raw.len, 0, &err));
		assert_int_equal(read_kind(f->store, "one"), ERR_DAMAGED);
		raw.data[at] ^= (uint8_t)(1u << at % 8);
	}
	for (size_t len = 0; len < raw.len; len += len < 100 ? 1 : 1009) { /* cut */
		assert_ok(err, store_put_bytes(f->inner, "one", raw.data, len, 0, &err));
		assert_int_equal(read_kind(f->store, "one"), ERR_DAMAGED);
	}
	/* in another's place; a block of another's; two blocks swapped; its own header and length
	 * of a whole block less */
	assert_ok(err, store_put_bytes(f->inner, "one", other.data, other.len, 0, &err));
	assert_int_equal(read_kind(f->store, "one"), ERR_DAMAGED);
	uint8_t *copy = malloc(raw.len);
	memcpy(copy, raw.data, raw.len);
	memcpy(copy + CRYPT_HEADER_BYTES, other.data + CRYPT_HEADER_BYTES, block);
	assert_ok(err, store_put_bytes(f->inner, "one", copy, raw.len, 0, &err));
	assert_int_equal(read_kind(f->store, "one"), ERR_DAMAGED);
	memcpy(copy + CRYPT_HEADER_BYTES, raw.data + CRYPT_HEADER_BYTES + block, block);
	memcpy(copy + CRYPT_HEADER_BYTES + block, raw.data + CRYPT_HEADER_BYTES, block);
	assert_ok(err, store_put_bytes(f->inner, "one", copy, raw.len, 0, &err));
	assert_int_equal(read_kind(f->store, "one"), ERR_DAMAGED);
	memcpy(copy, raw.data, raw.len);
	store_le64(copy + 56, 3 * CRYPT_BLOCK_BYTES);
	assert_ok(err,
	          store_put_bytes(f->inner, "one", copy, CRYPT_HEADER_BYTES + 3 * block, 0, &err));
	assert_int_equal(read_kind(f->store, "one"), ERR_DAMAGED);
	free(copy);
	assert_ok(err, store_put_bytes(f->inner, "one", f->text, n, 0, &err)); /* plain */
	assert_int_equal(read_kind(f->store, "one"), ERR_DAMAGED);
	assert_ok(err, store_put_bytes(f->inner, "one", raw.data, raw.len, 0, &err));
	assert_int_equal(read_kind(f->store, "one"), ERR_NONE); /* the control */
}

/* (2) of crypt.h, and of store.h: the same text never looks the same, and yet is known again. */
static void test_put_again(void **state)
{
	struct fixture *f = *state;
	cleanup_buf struct buf a = BUF_INIT(1u << 20), b = BUF_INIT(1u << 20);
	struct err err = ERR_INIT;

	assert_ok(err, store_put_bytes(f->store, "a", f->text, BIG, STORE_CREATE, &err));
	raw_get(f->inner, "a", &a);
	assert_ok(err, store_put_bytes(f->store, "a", f->text, BIG, STORE_CREATE, &err));
	assert_int_equal(err_kind_of(store_put_bytes(f->store, "a", f->text + 1, BIG - 1,
	                                             STORE_CREATE, &err)),
	                 ERR_EXISTS);
	assert_ok(err, store_put_bytes(f->store, "a", f->text, BIG, 0, &err));
	raw_get(f->inner, "a", &b);
	assert_int_equal(a.len, b.len);
	size_t same = 0;
	for (size_t i = CRYPT_HEADER_BYTES; i < a.len; i++)
		same += a.data[i] == b.data[i];
	assert_true(same < a.len / 100);
}

/* Without an identity what is sealed is told from what is damaged. */
static void test_without_identity(void **state)
{
	struct fixture *f = *state;
	struct err err = ERR_INIT;
	cleanup_buf struct buf b = BUF_INIT(1u << 20), raw = BUF_INIT(1u << 20);
	cleanup_store struct store *plain = NULL;
	struct store *memory = NULL;

	assert_ok(err, store_put_bytes(f->store, "a", "text", 4, 0, &err));
	raw_get(f->inner, "a", &raw);
	assert_ok(err, store_open_memory(&memory, &err));
	assert_ok(err, store_open_plain(memory, &plain, &err));
	assert_ok(err, store_put_bytes(plain, "a", raw.data, raw.len, 0, &err));
	assert_int_equal(err_kind_of(store_get(plain, "a", 1000, &b, &err)), ERR_REFUSED);
	assert_non_null(strstr(err.msg, "ASOF_KEY_FILE"));
	assert_int_equal(b.len, 0);
	/* Nor are keys made where plain objects lie. */
	struct store *second = NULL;
	assert_ok(err, store_open_memory(&second, &err));
	assert_ok(err, store_put_bytes(second, "local/x", "plain", 5, 0, &err));
	cleanup_store struct store *over = crypt_over(second, &f->me);
	assert_int_equal(err_kind_of(store_put_bytes(over, "local/y", "z", 1, 0, &err)),
	                 ERR_REFUSED);
	assert_int_equal(read_kind(over, "local/x"), ERR_DAMAGED);
}

/* ---- keys ---- */

static void make_identity(struct fixture *f, const char *name, struct key_identity *ret)
{
	struct err err = ERR_INIT;
	char file[80];

	snprintf(file, sizeof(file), "%s/%s", f->dir, name);
	assert_ok(err, key_identity_make(file, ret, &err));
}

static void test_identity_files(void **state)
{
	struct fixture *f = *state;
	struct key_identity back;
	struct err err = ERR_INIT;
	struct stat st;
	char text[KEY_TEXT_MAX], command[100], file[80];
	uint8_t public[KEY_BYTES];

	assert_int_equal(stat(f->file, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_ok(err, key_identity_load(f->file, NULL, &back, &err));
	assert_memory_equal(&back, &f->me, sizeof(back));
	snprintf(command, sizeof(command), "cat %s", f->file);
	assert_ok(err, key_identity_load(NULL, command, &back, &err));
	assert_memory_equal(&back, &f->me, sizeof(back));
	assert_int_equal(err_kind_of(key_identity_make(f->file, &back, &err)), ERR_EXISTS);
	assert_int_equal(err_kind_of(key_identity_load("/none", NULL, &back, &err)), ERR_NOT_FOUND);
	assert_int_equal(err_kind_of(key_identity_load(NULL, "echo no; exit 3", &back, &err)),
	                 ERR_DENIED);
	key_public_format(f->me.public, text);
	assert_ok(err, key_public_parse(text, public, &err));
	assert_memory_equal(public, f->me.public, KEY_BYTES);

	static const char *const bad[] = {"",
	                                  "# nothing\n",
	                                  "secret\n",
	                                  "secret asofkey1:AAAA\n",
	                                  "secret asofpub1:%s\n",
	                                  "trust x\n",
	                                  "\xff\xfe\n"};
	snprintf(file, sizeof(file), "%s/bad", f->dir);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		FILE *out = fopen(file, "w");
		fputs(bad[i], out);
		fclose(out);
		assert_int_equal(err_kind_of(key_identity_load(file, NULL, &back, &err)),
		                 ERR_USAGE);
	}
	/* A secret where a public key belongs is not repeated. */
	assert_int_equal(err_kind_of(key_public_parse("asofkey1:SECRETSECRET", public, &err)),
	                 ERR_USAGE);
	assert_null(strstr(err.msg, "SECRETSECRET"));
}

/* Readers of other identities, each with a view of its own of the same objects. */
static enum err_kind as(struct fixture *f, const struct key_identity *who, const char *key)
{
	cleanup_key_ring struct key_ring *r = NULL;
	struct data_key k;
	cleanup_buf struct buf raw = BUF_INIT(1u << 20);

	int rc = key_ring_open(f->inner, who, false, &r, NULL);
	if (rc < 0)
		return err_kind_of(rc);
	raw_get(f->inner, key, &raw);
	return err_kind_of(key_ring_find(r, raw.data + 16, &k, NULL));
}

/* (3) of keys.h, and who believes whom. */
static void test_recipients(void **state)
{
	struct fixture *f = *state;
	struct key_identity other, third;
	cleanup_key_ring struct key_ring *ring = NULL;
	struct err err = ERR_INIT;
	uint8_t(*who)[KEY_BYTES];

	make_identity(f, "other", &other);
	make_identity(f, "third", &third);
	assert_ok(err, store_put_bytes(f->store, "old", f->text, 5000, 0, &err));
	assert_int_equal(as(f, &other, "old"), ERR_DENIED);
	assert_ok(err, key_ring_open(f->inner, &f->me, false, &ring, &err));
	assert_ok(err, key_ring_add(ring, other.public, &err));
	assert_int_equal(err_kind_of(key_ring_add(ring, other.public, &err)), ERR_EXISTS);
	assert_int_equal(as(f, &other, "old"), ERR_DENIED); /* it does not know who boxed it */
	memcpy(other.trust[other.n_trust++], f->me.public, KEY_BYTES);
	assert_int_equal(as(f, &other, "old"), ERR_NONE);
	assert_ok(err, key_ring_rotate(ring, &err));
	assert_int_equal(key_ring_size(ring), 2);
	/* The store that was open goes on with the key it knows; a new one takes the newest. */
	cleanup_store struct store *again = crypt_over(borrow(f->inner), &f->me);
	assert_ok(err, store_put_bytes(again, "new", f->text, 5000, 0, &err));
	assert_int_equal(read_kind(f->store, "new"), ERR_NONE);
	assert_int_equal(as(f, &other, "new"), ERR_NONE);
	assert_ok(err, key_ring_remove(ring, other.public, &err));
	assert_int_equal(key_ring_recipients(ring, &who), 1);
	assert_int_equal(err_kind_of(key_ring_remove(ring, third.public, &err)), ERR_NOT_FOUND);
	assert_int_equal(err_kind_of(key_ring_remove(ring, f->me.public, &err)), ERR_REFUSED);
	assert_int_equal(as(f, &other, "new"), ERR_DENIED);
	assert_int_equal(as(f, &f->me, "old"), ERR_NONE);
}

/* (1), (2) of keys.h: who can write there but holds no identity gets nothing believed. */
static void test_forged_keys(void **state)
{
	struct fixture *f = *state;
	cleanup_key_ring struct key_ring *ring = NULL;
	cleanup_buf struct buf text = BUF_INIT(1u << 16), forged = BUF_INIT(1u << 16);
	struct key_identity attacker;
	struct store *elsewhere = NULL;
	struct err err = ERR_INIT;
	static const char name[] = "keys/00000001.key";

	assert_ok(err, store_put_bytes(f->store, "a", "text", 4, 0, &err));
	raw_get(f->inner, name, &text);
	/* A key of theirs, boxed for us in all form. */
	make_identity(f, "attacker", &attacker);
	assert_ok(err, store_open_memory(&elsewhere, &err));
	assert_ok(err, key_ring_open(elsewhere, &attacker, true, &ring, &err));
	assert_ok(err, key_ring_add(ring, f->me.public, &err));
	raw_get(elsewhere, name, &forged);
	assert_ok(err, store_put_bytes(f->inner, name, forged.data, forged.len, 0, &err));
	assert_int_equal(as(f, &f->me, "a"), ERR_DENIED);
	store_free(elsewhere);
	/* The same, pretending that we made it. */
	char mine[KEY_TEXT_MAX], theirs[KEY_TEXT_MAX];
	key_public_format(f->me.public, mine);
	key_public_format(attacker.public, theirs);
	uint8_t *by = memmem(forged.data, forged.len, "\nby ", 4);
	memcpy(by + 4, mine, strlen(mine));
	assert_ok(err, store_put_bytes(f->inner, name, forged.data, forged.len, 0, &err));
	assert_int_equal(as(f, &f->me, "a"), ERR_DAMAGED);
	/* Any bit of ours. */
	for (size_t i = 0; i < text.len; i++) {
		text.data[i] ^= 1;
		assert_ok(err, store_put_bytes(f->inner, name, text.data, text.len, 0, &err));
		assert_int_not_equal(as(f, &f->me, "a"), ERR_NONE);
		text.data[i] ^= 1;
	}
	for (size_t n = 0; n < text.len - 1; n++) {
		assert_ok(err, store_put_bytes(f->inner, name, text.data, n, 0, &err));
		assert_int_not_equal(as(f, &f->me, "a"), ERR_NONE);
	}
	assert_ok(err, store_put_bytes(f->inner, name, text.data, text.len, 0, &err));
	assert_int_equal(as(f, &f->me, "a"), ERR_NONE);
}

/* Some that begin at once, or nearly so, end with one key: all that they sealed can be opened, by
 * them and by whoever comes later.  Also where a key that is there stops no other. */
#define BEGINNERS 4

struct beginner {
	struct store *s;
	int delay_us, rc;
	char name[16];
};

static void *begin(void *arg)
{
	struct beginner *b = arg;

	clock_sleep_us(b->delay_us);
	b->rc = store_put_bytes(b->s, b->name, "x", 1, 0, NULL);
	return NULL;
}

static void begin_together(struct fixture *f, struct store *there, int delay_us)
{
	cleanup_buf struct buf b = BUF_INIT(1u << 16);
	struct beginner who[BEGINNERS] = {{NULL}};
	pthread_t t[BEGINNERS];

	for (int i = 0; i < BEGINNERS; i++) {
		struct store *plain = borrow(there);
		plain->settle_us = US_PER_SECOND; /* for slow machines */
		who[i].s = crypt_over(plain, &f->me);
		who[i].delay_us = i * delay_us;
		snprintf(who[i].name, sizeof(who[i].name), "o%d", i);
		pthread_create(&t[i], NULL, begin, &who[i]);
	}
	for (int i = 0; i < BEGINNERS; i++) {
		pthread_join(t[i], NULL);
		assert_int_equal(who[i].rc, 0);
	}
	assert_int_equal(err_kind_of(store_get(there, "keys/00000002.key", 1u << 16, &b, NULL)),
	                 ERR_NOT_FOUND);
	cleanup_store struct store *later = crypt_over(borrow(there), &f->me);
	for (int i = 0; i < BEGINNERS; i++) {
		assert_int_equal(read_kind(later, who[i].name), ERR_NONE);
		assert_int_equal(read_kind(who[(i + 1) % BEGINNERS].s, who[i].name), ERR_NONE);
	}
	for (int i = 0; i < BEGINNERS; i++)
		store_free(who[i].s);
}

static void begin_at(struct fixture *f, const struct store_faults *faults, int delay_us)
{
	struct store *memory = NULL, *there = NULL;
	struct err err = ERR_INIT;

	assert_ok(err, store_open_memory(&memory, &err));
	assert_ok(err, store_open_faulty(memory, faults, &there, &err));
	begin_together(f, there, delay_us);
	store_free(there);
}

static void test_two_begin(void **state)
{
	const struct store_faults none = {0}, ignores = {.ignores_create = true},
	                          refuses = {.refuses_create = true};

	for (int round = 0; round < 20; round++)
		begin_at(*state, &none, round * 20);
	for (int delay_us = 0; delay_us <= 300; delay_us += 300) {
		begin_at(*state, &ignores, delay_us);
		begin_at(*state, &refuses, delay_us);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(t) cmocka_unit_test_setup_teardown(t, set_up, tear_down)
	        T(test_sizes_and_ranges), T(test_one_request),      T(test_alteration),
	        T(test_put_again),        T(test_without_identity), T(test_identity_files),
	        T(test_recipients),       T(test_forged_keys),      T(test_two_begin),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
