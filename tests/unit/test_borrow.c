/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one place of an archive lost or has damaged is read from another: engine/view/borrow.c.  Two
 * stores were brought up to the same history at other moments, so their segments of level 0 are cut
 * otherwise.  With any one object of the first gone or damaged, both together show every moment, right.
 */
#include "engine/base/log.h"
#include "engine/view/history_i.h"
#include "tests/lib/memory.h"
#include "tests/lib/shipped.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

struct places {
	char *root;
	struct synth *s;
	struct store *first, *second;
	bool seen[500];
	char keys[200][300];
	size_t n_keys;
};

static void ship(struct places *p, struct store *to)
{
	struct err err = ERR_INIT;

	forget(p->root); /* both are called alike */
	struct shipper *sh = open_shipper(p->root, to, INT64_C(3600) * 1000000);
	synth_must(ship_all(sh, &err), &err, "ship");
	shipper_free(sh);
}

static int take_key(void *ctx, const struct store_entry *e, struct err *err)
{
	struct places *p = ctx;
	size_t n = strlen(e->key);

	if (p->n_keys == 200)
		synth_die("too many objects");
	if (strcmp(e->key + n - 7, ".wal.gz") == 0 || strcmp(e->key + n - 6, ".db.gz") == 0)
		snprintf(p->keys[p->n_keys++], sizeof(p->keys[0]), "%s", e->key);
	return 0;
}

static uint64_t asked; /* of the second, by the last look() */
static bool only_seen; /* nothing is asked for that the first alone does not show */
static const char
        *names; /* what could be seen and cannot be is said to be for this one's sake, or NULL */

static unsigned rounds = 1;  /* that one process asks for each */
static bool *found;          /* by transaction: whether it was seen; or NULL */
static const bool *expected; /* those must be; or NULL */

/* Transactions seen in the first store with the second to stand in; `alone`: without. */
static unsigned look(struct places *p, bool alone, bool must, const char *what)
{
	struct breaking b[] = {break_after(p->first, -1, false), break_after(p->second, -1, false)};
	struct store *stores[] = {&b[0].base, &b[1].base};
	struct archive *a;
	struct history *h;
	struct err err = ERR_INIT;
	unsigned n = 0;

	b[0].base.ops = b[1].base.ops = &borrowed_ops;
	synth_must(archive_open_stores(stores, alone ? 1 : 2, NULL, &a, &err), &err, "open");
	synth_must(history_get(a, "x.db", &h, &err), &err, "history_get");
	for (uint64_t i = 0; i < rounds * p->s->n_states; i++) {
		uint64_t t = i % p->s->n_states + 1;
		struct err why = ERR_INIT;
		if (only_seen && !p->seen[t])
			continue;
		bool got = synth_compare(p->s, h, t, &why); /* dies of wrong bytes */
		if (found)
			found[t] = got;
		if (expected && expected[t] && !got)
			synth_die("%s: transaction %" PRIu64 ": %s", what, t, why.msg);
		if (must && p->seen[t] && !got)
			synth_die("%s: transaction %" PRIu64 ": %s", what, t, why.msg);
		if (names && p->seen[t] && !got && !strstr(why.msg, strrchr(names, '/') + 1))
			synth_die("%s: transaction %" PRIu64 ": %s", what, t, why.msg);
		if (!must && alone && !*what)
			p->seen[t] = got;
		n += got;
	}
	history_put(h);
	archive_free(a);
	asked = b[1].n;
	return n;
}

static struct places new_places(uint64_t seed)
{
	struct places p = {.root = test_folder()};
	struct err err = ERR_INIT;

	p.s = make(p.root, seed);
	synth_must(store_open_memory(&p.first, &err), &err, "store");
	synth_must(store_open_memory(&p.second, &err), &err, "store");
	synth_random_history(p.s, 10);
	for (unsigned i = 0; i < 6; i++) {
		ship(&p, i % 3 ? p.first : p.second);
		for (unsigned k = 0; k < 4; k++)
			synth_random_commit(p.s);
		synth_publish(p.s);
	}
	ship(&p, p.first);
	ship(&p, p.second);
	synth_must(store_list(p.first, "", NULL, true, take_key, &p, &err), &err, "list");
	return p;
}

static void free_places(struct places *p)
{
	store_free(p->first);
	store_free(p->second);
	synth_free(p->s);
	test_remove(p->root);
	free(p->root);
}

static void test_any_object(void **state)
{
	uint64_t seed = test_seed();
	unsigned n_newest = 0, n_proved = 0;

	for (unsigned i = 0; i < test_rounds(10); i++) {
		struct places p = new_places(seed + i);
		unsigned missed = 0, n = look(&p, true, false, "");
		assert_true(n > 5);
		for (size_t k = 0; k < 2 * p.n_keys; k++) {
			cleanup_buf struct buf b = BUF_INIT((size_t)1 << 30);
			const char *key = p.keys[k / 2];
			struct err err = ERR_INIT;
			synth_must(store_get(p.first, key, b.max_bytes, &b, &err), &err, key);
			if (b.len <= GROW_HEADER_SIZE)
				continue; /* a fence */
			size_t at = rng_below(&p.s->rng, b.len);
			if (k % 2) {
				synth_must(store_remove(p.first, key, &err), &err, key);
			} else {
				b.data[at] ^= 0x10;
				synth_must(store_put_bytes(p.first, key, b.data, b.len, 0, &err),
				           &err, key);
				b.data[at] ^= 0x10;
			}
			unsigned alone = look(&p, true, false, "alone");
			missed += n - alone;
			/*
			 * That its newest segment is gone the first cannot know; and whether another
			 * is the same as a damaged one, what is left of that has to tell.
			 */
			bool newest =
			        strstr(key, "/segment/") &&
			        (k / 2 + 1 == p.n_keys || !strstr(p.keys[k / 2 + 1], "/segment/") ||
			         strstr(p.keys[k / 2 + 1], "/snapshot/"));
			names = newest && k % 2 == 0 ? key : NULL;
			unsigned both = look(&p, false, !newest, key);
			assert_true(both >= alone);
			n_newest += names && alone < n;
			n_proved += names && alone < n && both == n;
			names = NULL;
			synth_must(store_put_bytes(p.first, key, b.data, b.len, 0, &err), &err,
			           key);
		}
		assert_true(missed > 0);
		free_places(&p);
	}
	assert_true(n_proved >= n_newest / 4);
}

/* A place that has another database under the name gives nothing. */
static void test_another_database(void **state)
{
	struct places p = new_places(test_seed() + 100), q = new_places(test_seed() + 101);
	struct err err = ERR_INIT;
	unsigned n = look(&p, true, false, "");
	const struct source_note other = {.id = 7, .path = "/elsewhere/x.db"};
	cleanup_free uint8_t *note = NULL;
	size_t len;

	synth_must(source_note_put(q.s->dir_fd, &other, &err), &err, "source");
	note = read_whole(q.s->dir_fd, "source", &len);
	synth_must(store_put_bytes(q.first, "local/x.db/source", note, len, 0, &err), &err, "put");
	for (size_t i = 0; i < p.n_keys; i++)
		if (strstr(p.keys[i], "/snapshot/"))
			synth_must(store_remove(p.first, p.keys[i], &err), &err, "remove");
	unsigned left = look(&p, true, false, "alone");
	struct store *own = p.second;
	p.second = q.first;
	assert_int_equal(look(&p, false, false, "another"), left);
	p.second = own;
	assert_true(look(&p, false, false, "its own") >= n);
	free_places(&p);
	free_places(&q);
}

/* How often the log said it since `*from`. */
static unsigned said(int fd, off_t *from, const char *what)
{
	char b[1 << 16];
	unsigned n = 0;
	ssize_t len = pread(fd, b, sizeof(b) - 1, *from);

	assert_true(len >= 0);
	b[len] = '\0';
	*from += len;
	for (const char *at = b; (at = strstr(at, what)); at++)
		n++;
	return n;
}

static void go_on(struct places *p)
{
	for (unsigned i = 0; i < 4; i++) {
		for (unsigned k = 0; k < 4; k++)
			synth_random_commit(p->s);
		synth_publish(p->s);
		ship(p, p->first);
	}
}

/* A copy that went on by itself gives nothing, whatever is damaged; it is asked once, when something is to
 * be had, and told of in one line. */
static void test_fork(void **state)
{
	uint64_t seed = test_seed() + 200;
	int log = memfd_create("log", MFD_CLOEXEC);

	assert_true(log >= 0);
	for (unsigned i = 0; i < test_rounds(4); i++) {
		struct places p = new_places(seed + i), q = new_places(seed + i);
		struct store *own = p.second;
		struct err err = ERR_INIT;
		unsigned lost = 0, named = 0;
		off_t seen = lseek(log, 0, SEEK_END);
		q.s->rng.s += 12345; /* another stream */
		go_on(&p);
		go_on(&q);
		p.second = q.first;
		p.n_keys = 0;
		synth_must(store_list(p.first, "", NULL, true, take_key, &p, &err), &err, "list");
		unsigned n = look(&p, true, false, "");
		only_seen = true;
		assert_int_equal(look(&p, false, true, "whole"), n);
		assert_int_equal(asked, 0);
		only_seen = false;
		for (size_t k = 0; k < p.n_keys; k++) {
			cleanup_buf struct buf b = BUF_INIT((size_t)1 << 30);
			synth_must(store_get(p.first, p.keys[k], b.max_bytes, &b, &err), &err,
			           "get");
			if (b.len <= GROW_HEADER_SIZE)
				continue;
			b.data[b.len / 2] ^= 0x10;
			synth_must(store_put_bytes(p.first, p.keys[k], b.data, b.len, 0, &err),
			           &err, "put");
			b.data[b.len / 2] ^= 0x10;
			unsigned alone = look(&p, true, false, "alone");
			log_set_level(LOG_WARN);
			log_set_fd(log);
			/* Bytes that match their hash can come: what was there before they parted. */
			assert_true(look(&p, false, false, p.keys[k]) >= alone);
			log_set_level(LOG_ERROR);
			log_set_fd(-1);
			assert_int_equal(said(log, &seen, "went another way"), asked > 0);
			named += asked > 0;
			lost += n - alone;
			synth_must(store_put_bytes(p.first, p.keys[k], b.data, b.len, 0, &err),
			           &err, "put");
		}
		assert_true(lost > 0 && named > 0);
		p.second = own;
		free_places(&p);
		free_places(&q);
	}
	close(log);
}

/* The newest segment of level 0, which tells of its transactions in itself alone. */
static const char *newest_segment(struct places *p)
{
	const char *key = NULL;

	for (size_t i = 0; i < p->n_keys; i++)
		if (strstr(p->keys[i], "/segment/"))
			key = p->keys[i];
	if (!key)
		synth_die("no segment");
	return key;
}

static void list_keys(struct places *p, struct store *at)
{
	struct err err = ERR_INIT;

	p->n_keys = 0;
	synth_must(store_list(at, "", NULL, true, take_key, p, &err), &err, "list");
}

static void go_on_once(struct places *p)
{
	for (unsigned k = 0; k < 6; k++)
		synth_random_commit(p->s);
	synth_publish(p->s);
	ship(p, p->first);
}

/*
 * Two copies differ in the newest segment alone, and it is damaged: in its header, or anywhere.  Then all
 * that can be compared agrees, and yet the other's segment under the very key is no copy of it.  What
 * the other has of it cut otherwise is none, either.  A true copy is one.
 */
static void test_fork_in_what_is_damaged(void **state)
{
	uint64_t seed = test_seed() + 300;
	unsigned told = 0, harmed = 0;

	for (unsigned i = 0; i < test_rounds(6); i++) {
		struct places p = new_places(seed + i), q = new_places(seed + i),
		              same = new_places(seed + i);
		struct store *own = p.second;
		struct err err = ERR_INIT;
		q.s->rng.s += 12345; /* another stream */
		go_on_once(&p);
		go_on_once(&q);
		go_on_once(&same);
		list_keys(&p, p.first);
		const char *key = newest_segment(&p);
		cleanup_buf struct buf b = BUF_INIT((size_t)1 << 30);
		cleanup_buf struct buf fork = BUF_INIT((size_t)1 << 30);
		synth_must(store_get(p.first, key, b.max_bytes, &b, &err), &err, key);
		synth_must(store_get(q.first, key, b.max_bytes, &fork, &err), &err, key);
		unsigned n = look(&p, true, false, "");
		for (unsigned k = 0; k < 24; k++) {
			size_t at = k < 8 ? 16 + 7 * k : rng_below(&p.s->rng, b.len);
			b.data[at] ^= 0x10;
			synth_must(store_put_bytes(p.first, key, b.data, b.len, 0, &err), &err,
			           key);
			b.data[at] ^= 0x10;
			p.second = q.first;
			unsigned alone = look(&p, true, false, "alone");
			/* Where one agrees with nothing, bytes with a hash can come all the same. */
			assert_true(look(&p, false, false, key) >= alone);
			p.second = same.first;
			names = key;
			unsigned both = look(&p, false, false, key);
			names = NULL;
			assert_true(k >= 8 || both == n);
			harmed += alone < n;
			told += alone < n && both == n;
		}
		p.second = own;
		free_places(&p);
		free_places(&q);
		free_places(&same);
	}
	assert_true(harmed > 0 && told > harmed / 2);
}

/*
 * Nearly nothing of the first is whole: each object has a flipped byte, one is gone, and the newest alone,
 * which tells how far it goes, has none.  What a segment of the first holds the second has in pieces,
 * the first of them under the same name: when its bytes are found damaged in the middle of reading.
 */
static unsigned all_damaged(uint64_t seed)
{
	struct places p = new_places(seed);
	struct err err = ERR_INIT;
	const char *newest = newest_segment(&p);
	unsigned n = look(&p, true, false, "");
	size_t gone = rng_below(&p.s->rng, p.n_keys);

	for (size_t k = 0; k < p.n_keys; k++) {
		cleanup_buf struct buf b = BUF_INIT((size_t)1 << 30);
		const char *key = p.keys[k];
		synth_must(store_get(p.first, key, b.max_bytes, &b, &err), &err, key);
		if (b.len <= GROW_HEADER_SIZE || strcmp(key, newest) == 0)
			continue;
		if (k == gone) {
			synth_must(store_remove(p.first, key, &err), &err, key);
			continue;
		}
		b.data[rng_below(&p.s->rng, b.len)] ^= 0x10;
		synth_must(store_put_bytes(p.first, key, b.data, b.len, 0, &err), &err, key);
	}
	unsigned lost = n - look(&p, true, false, "alone");
	look(&p, false, true, "all damaged");
	free_places(&p);
	return lost;
}

static void test_all_damaged(void **state)
{
	uint64_t seed = test_seed() + 400;
	/* A coalesced object that the second has not got; a snapshot. */
	unsigned lost = all_damaged(3404) + all_damaged(21418);

	for (unsigned i = 0; i < test_rounds(40); i++)
		lost += all_damaged(seed + i);
	assert_true(lost > 0);
}

/* A snapshot or a coalesced object, of either place, damaged or gone. */
static void harm_spare(struct places *p, struct store *at, bool remove)
{
	struct err err = ERR_INIT;

	p->n_keys = 0;
	synth_must(store_list(at, "", NULL, true, take_key, p, &err), &err, "list");
	for (size_t k = 0; k < p->n_keys; k++) {
		cleanup_buf struct buf b = BUF_INIT((size_t)1 << 30);
		const char *key = p->keys[k];
		if (strstr(key, "/segment/"))
			continue;
		synth_must(store_get(at, key, b.max_bytes, &b, &err), &err, key);
		b.data[rng_below(&p->s->rng, b.len)] ^= 0x10;
		if (remove)
			synth_must(store_remove(at, key, &err), &err, key);
		else
			synth_must(store_put_bytes(at, key, b.data, b.len, 0, &err), &err, key);
	}
}

static const char *random_segment(struct places *p, const char *but)
{
	const char *key = but;

	while (strcmp(key, but) == 0 || !strstr(key, "/segment/"))
		key = p->keys[rng_below(&p->s->rng, p->n_keys)];
	return key;
}

/* What segments show where a snapshot and coalesced objects are gone from both places, they show where
 * these are damaged; the first of the snapshots is whole.  And in one process, asked again, whatever it
 * met before: a segment is gone from the first, so that the second is listed. */
static void damaged_as_gone(uint64_t seed, unsigned *ret_n)
{
	bool seen[500] = {false};
	struct err err = ERR_INIT;

	for (unsigned damaged = 0; damaged < 2; damaged++) {
		struct places p = new_places(seed);
		struct store *const at[] = {p.first, p.second};
		const char *first = NULL;
		for (size_t k = 0; k < p.n_keys && !first; k++)
			if (strstr(p.keys[k], "/snapshot/"))
				first = p.keys[k];
		char kept[300], gone[300];
		snprintf(kept, sizeof(kept), "%s", first);
		snprintf(gone, sizeof(gone), "%s", random_segment(&p, newest_segment(&p)));
		cleanup_buf struct buf b = BUF_INIT((size_t)1 << 30);
		synth_must(store_get(p.first, kept, b.max_bytes, &b, &err), &err, kept);
		for (unsigned i = 0; i < 2; i++) {
			harm_spare(&p, at[i], !damaged);
			synth_must(store_put_bytes(at[i], kept, b.data, b.len, 0, &err), &err,
			           kept);
		}
		synth_must(store_remove(p.first, gone, &err), &err, gone);
		rounds = damaged ? 3 : 1;
		found = damaged ? NULL : seen;
		expected = damaged ? seen : NULL;
		*ret_n += look(&p, false, false, "spare");
		rounds = 1;
		found = NULL;
		expected = NULL;
		free_places(&p);
	}
}

static void test_damaged_as_gone(void **state)
{
	uint64_t seed = test_seed() + 500;
	unsigned n = 0;

	damaged_as_gone(4507, &n); /* two that give way in one read */
	for (unsigned i = 0; i < test_rounds(20); i++)
		damaged_as_gone(seed + i, &n);
	assert_true(n > 100);
}

/* A time within a gap has the others listed again and again: what they have is known once. */
static void test_listed_again(void **state)
{
	struct places p = new_places(test_seed() + 600);
	struct breaking b[] = {break_after(p.first, -1, false), break_after(p.second, -1, false)};
	struct store *stores[] = {&b[0].base, &b[1].base};
	const struct err gap = {.kind = ERR_GAP};
	struct archive *a;
	struct history *h;
	struct moment m;
	struct err err = ERR_INIT;
	size_t n = 0;

	b[0].base.ops = b[1].base.ops = &borrowed_ops;
	list_keys(&p, p.second);
	synth_must(archive_open_stores(stores, 2, NULL, &a, &err), &err, "open");
	synth_must(history_get(a, "x.db", &h, &err), &err, "history_get");
	synth_must(history_latest(h, &m, &err), &err, "latest");
	for (unsigned i = 0; i < 3; i++) {
		h->borrowed_us = 0; /* long ago */
		assert_true(borrow_more(h, &gap));
		assert_true(h->lent.segments.n > 0 && h->lent.segments.n <= p.n_keys);
		assert_true(i == 0 || h->lent.segments.n + h->lent.snapshots.n == n);
		n = h->lent.segments.n + h->lent.snapshots.n;
	}
	history_put(h);
	archive_free(a);
	free_places(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_listed_again),
	        cmocka_unit_test(test_damaged_as_gone),
	        cmocka_unit_test(test_all_damaged),
	        cmocka_unit_test(test_any_object),
	        cmocka_unit_test(test_another_database),
	        cmocka_unit_test(test_fork),
	        cmocka_unit_test(test_fork_in_what_is_damaged),
	};

	log_set_level(LOG_ERROR);
	log_set_fd(-1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
