/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Archives in a store that is no directory: any history, every page of every transaction, whatever
 * goes wrong on the way.  Right or an error, never wrong; and with another store beside it, right.
 */
#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/store/faulty.h"
#include "engine/store/kept.h"
#include "engine/store/reader.h"
#include "tests/lib/memory.h"
#include "tests/lib/synth.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>

#include <cmocka.h>

#define DB "x y+ü.db"

static struct store *new_memory(void)
{
	struct store *s;
	struct err err = ERR_INIT;

	synth_must(store_open_memory(&s, &err), &err, "store_open_memory");
	return s;
}

static struct store *new_far(struct store *inner, const struct store_faults *faults)
{
	struct store *s;
	struct err err = ERR_INIT;

	synth_must(store_open_faulty(inner, faults, &s, &err), &err, "store_open_faulty");
	return s;
}

/* What a growing segment holds for good, as a segment of level 0. */
static size_t closed_length(int dir_fd, const char *key)
{
	struct source *src;
	struct grow_reader *r;
	cleanup_cache struct cache *cache = NULL;
	struct err err = ERR_INIT;
	uint64_t len = 0;

	synth_must(cache_new(1 << 20, &cache, &err), &err, "cache_new");
	synth_must(source_open_file(dir_fd, key, key, &src, &err), &err, "open");
	if (grow_open(src, cache, &r, &err) < 0) {
		source_free(src);
		return 0;
	}
	synth_must(grow_refresh_all(r, &len, &err), &err, "grow_refresh_all");
	if (grow_n_commits(r) == 0)
		len = 0;
	grow_free(r);
	return (size_t)len;
}

struct upload {
	struct store *from, *to;
};

static int upload_one(void *ctx, const struct store_entry *e, struct err *err)
{
	struct upload *u = ctx;
	const char *file = strrchr(e->key, '/') + 1;
	struct object_name n;
	size_t len;

	if (strstr(e->key, "/head") || strstr(e->key, "/lock") || strstr(e->key, ".tmp"))
		return 0;
	cleanup_free uint8_t *p = read_whole(u->from->dir_fd, e->key, &len);
	if (object_name_parse(file, &n) && n.type == OBJECT_GROWING)
		len = closed_length(u->from->dir_fd, e->key);
	if (len == 0)
		return 0;
	return store_put_bytes(u->to, e->key, p, len, 0, err);
}

/* As its shipper does: everything but head, lock and what is still being written. */
static void upload(const struct synth *s, struct store *to)
{
	cleanup_store struct store *from = NULL;
	struct err err = ERR_INIT;

	synth_must(store_open(s->root, NULL, &from, &err), &err, "store_open");
	struct upload u = {from, to};
	synth_must(store_list(from, "local/", NULL, true, upload_one, &u, &err), &err, "upload");
}

static struct archive *open_stores(struct store *const *stores, size_t n, const char *keep)
{
	struct archive *a;
	struct err err = ERR_INIT;
	const struct archive_options o = {
	        .cache_bytes = 1 << 20, .keep_dir = keep, .keep_bytes = 64 << 20};

	synth_must(archive_open_stores(stores, n, &o, &a, &err), &err, "archive_open_stores");
	return a;
}

static struct history *get_history(struct archive *a)
{
	struct history *h;
	struct err err = ERR_INIT;

	synth_must(history_get(a, DB, &h, &err), &err, "history_get");
	return h;
}

static struct synth *make(const char *root, uint64_t seed, unsigned steps)
{
	const struct synth_options o = {
	        .seed = seed,
	        .page_size = 512u << (seed % 8),
	        .max_pages = 40,
	        .max_frames = 6,
	        .level = (int)(seed % 3),
	        .torn_batches = seed % 2,
	};
	struct synth *s = synth_new(root, DB, &o);

	synth_random_history(s, steps);
	synth_publish(s);
	return s;
}

static void compare_times(const struct synth *s, struct history *h)
{
	const int64_t never = INT64_MAX / 2;

	for (uint64_t t = 1; t <= s->n_states; t++) {
		for (int step = -1; step <= 1; step++) {
			int64_t us = synth_state(s, t)->commit.time_us + step;
			struct err err = ERR_INIT;
			struct moment m;
			uint64_t want = 0;
			enum err_kind kind = synth_expect_at(s, us, &want);
			int rc = history_at(h, us, never, &m, &err);
			if (err_kind_of(rc) != kind)
				synth_die("at %lld (txid %llu%+d): %s instead of %s: %s",
				          (long long)us, (unsigned long long)t, step,
				          err_kind_name(err_kind_of(rc)), err_kind_name(kind),
				          err.msg);
			if (rc == 0)
				assert_int_equal(m.txid, want);
		}
	}
}

/* ---- (bucket.c): every transaction, every time; two requests or so for each object ---- */

static void one_history(uint64_t seed, unsigned steps)
{
	cleanup_free char *root = test_folder();
	struct synth *s = make(root, seed, steps);
	struct store *far = new_far(new_memory(), &(struct store_faults){.remote = true});
	struct store_counters c;

	upload(s, far);
	struct archive *a = open_stores(&far, 1, NULL);
	struct history *h = get_history(a);
	compare_times(s, h);
	synth_compare_all(s, h);
	store_get_counters(far, &c);
	assert_in_range(c.requests[STORE_LIST], 1, 10);
	history_put(h);
	archive_free(a);
	synth_free(s);
	test_remove(root);
}

static void test_every_transaction(void **state)
{
	uint64_t seed = test_seed();

	for (unsigned i = 0; i < test_rounds(20); i++) {
		fprintf(stderr, "history %llu\n", (unsigned long long)(seed + i));
		one_history(seed + i, getenv("ASOF_TEST_SHORT") ? 50 : 120);
	}
}

/* ---- faults ---- */

/* Every transaction: right, or an error that says so. */
static unsigned right_or_error(const struct synth *s, struct history *h)
{
	unsigned right = 0;

	for (uint64_t t = 1; t <= s->n_states; t++) {
		struct err err = ERR_INIT;
		if (!synth_viewable(s, t))
			continue;
		if (synth_compare(s, h, t, &err)) /* dies of a wrong byte */
			right++;
		else
			assert_true(err.kind == ERR_DAMAGED || err.kind == ERR_UNAVAILABLE);
	}
	return right;
}

static unsigned n_viewable(const struct synth *s)
{
	unsigned n = 0;

	for (uint64_t t = 1; t <= s->n_states; t++)
		n += synth_viewable(s, t);
	return n;
}

static const struct store_faults fault_kinds[] = {
        {.remote = true, .fail_permille = 60},
        {.remote = true, .cut_permille = 100},
        {.remote = true, .flip_permille = 100},
        {.remote = true, .missing_permille = 60},
        {.remote = true,
         .fail_permille = 20,
         .cut_permille = 30,
         .flip_permille = 50,
         .missing_permille = 20},
};

static void one_fault(uint64_t seed, const struct store_faults *kind, bool with_other)
{
	cleanup_free char *root = test_folder(), *keep = test_folder();
	struct synth *s = make(root, seed, 60);
	const struct store_faults none = {.remote = true};
	struct store *stores[2] = {new_far(new_memory(), &none), new_memory()};
	struct store_faults faults = *kind;

	faults.seed = seed;
	upload(s, stores[0]);
	upload(s, stores[1]);
	struct archive *a = open_stores(stores, with_other ? 2 : 1, keep);
	struct history *h = get_history(a);
	struct err err = ERR_INIT;
	synth_must(history_refresh(h, &err), &err, "refresh");
	store_faulty_set(stores[0], &faults);
	unsigned right = right_or_error(s, h);
	if (with_other && right != n_viewable(s))
		synth_die("%u of %u with another store beside it", right, n_viewable(s));
	/* What was kept in bad times is no worse in good ones. */
	store_faulty_set(stores[0], &none);
	if (right_or_error(s, h) != n_viewable(s)) {
		clock_sleep_us(1100000); /* the newest is looked at again when news are due */
		synth_must(history_refresh(h, &err), &err, "refresh");
		assert_int_equal(right_or_error(s, h), n_viewable(s));
	}
	history_put(h);
	archive_free(a);
	if (!with_other)
		store_free(stores[1]);
	synth_free(s);
	test_remove(root);
	test_remove(keep);
}

static void test_faults(void **state)
{
	uint64_t seed = test_seed();

	for (unsigned i = 0; i < test_rounds(30); i++) {
		fprintf(stderr, "faults %llu\n", (unsigned long long)(seed + i));
		one_fault(seed + i, &fault_kinds[i % 5], i / 5 % 2);
	}
}

/* ---- following, and what goes while a view is open ---- */

static void test_follows(void **state)
{
	cleanup_free char *root = test_folder();
	struct synth *s = make(root, test_seed(), 30);
	struct store *far = new_far(new_memory(), &(struct store_faults){.remote = true});
	struct store_counters before, after;
	struct err err = ERR_INIT;
	struct moment m;

	upload(s, far);
	struct archive *a = open_stores(&far, 1, NULL);
	struct history *h = get_history(a);
	synth_must(history_refresh(h, &err), &err, "refresh");
	for (int i = 0; i < 3; i++) {
		synth_cut(s);
		uint64_t txid = synth_random_commit(s);
		synth_publish(s);
		upload(s, far);
		clock_sleep_us(1100000);
		store_get_counters(far, &before);
		if (synth_viewable(s, txid)) {
			synth_must(history_latest(h, &m, &err), &err, "latest");
			assert_int_equal(m.txid, txid);
		} else {
			synth_must(history_refresh(h, &err), &err, "refresh");
		}
		store_get_counters(far, &after);
		assert_in_range(after.requests[STORE_LIST] - before.requests[STORE_LIST], 1, 2);
		/* Asked again at once: nobody is bothered. */
		for (int j = 0; j < 20; j++)
			synth_must(history_refresh(h, &err), &err, "refresh");
		store_get_counters(far, &before);
		assert_int_equal(after.requests[STORE_LIST], before.requests[STORE_LIST]);
	}
	clock_sleep_us(1100000);
	synth_must(history_refresh(h, &err), &err, "refresh");
	synth_compare_all(s, h);
	history_put(h);
	archive_free(a);
	synth_free(s);
	test_remove(root);
}

static int remove_segment(void *ctx, const struct store_entry *e, struct err *err)
{
	struct upload *u = ctx;

	return strstr(e->key, "/segment/") ? store_remove(u->to, e->key, err) : 0;
}

/* Everything that a view was made of goes, and the same lies there joined: it reads on. */
static void test_objects_go_under_a_view(void **state)
{
	cleanup_free char *root = test_folder();
	const struct synth_options o = {
	        .seed = 5, .page_size = 4096, .max_pages = 40, .max_frames = 6};
	struct synth *s = synth_new(root, DB, &o);
	struct err err = ERR_INIT;
	uint64_t last = 0;

	for (int i = 0; i < 30; i++) {
		last = synth_random_commit(s);
		if (i == 2)
			synth_snapshot(s, last, last);
		if (i % 5 == 4)
			synth_cut(s);
	}
	synth_publish(s);
	struct store *far = new_far(new_memory(), &(struct store_faults){.remote = true});
	upload(s, far);
	struct archive *a = open_stores(&far, 1, NULL);
	struct history *h = get_history(a);
	cleanup_view struct view *v = NULL;
	synth_must(view_open(h, last, &v, &err), &err, "view_open");

	synth_seal(s, 1, last, false);
	struct upload u = {NULL, far};
	synth_must(store_list(far, "local/", NULL, true, remove_segment, &u, &err), &err, "remove");
	upload(s, far);
	cleanup_free uint8_t *page = malloc(4096);
	const struct synth_state *st = synth_state(s, last);
	for (uint32_t p = 1; p <= view_moment(v)->n_pages; p++) {
		synth_must(view_page(v, p, page, &err), &err, "view_page");
		if (st->pages[p - 1])
			assert_memory_equal(page, st->pages[p - 1]->data, 4096);
	}
	view_free(take_ptr(v));
	history_put(h);
	archive_free(a);
	synth_free(s);
	test_remove(root);
}

/* ---- (kept.h) ---- */

static uint64_t bytes_below(const char *dir)
{
	char command[300];
	size_t len;

	snprintf(command, sizeof(command), "find '%s' -type f -printf '%%s\\n'", dir);
	cleanup_free uint8_t *out = output_of(command, &len);
	uint64_t sum = 0;
	for (char *p = (char *)out, *end; p < (char *)out + len; p = end + 1) {
		sum += strtoull(p, &end, 10);
		if (*end != '\n')
			break;
	}
	return sum;
}

static void fill(uint8_t *p, size_t len, uint64_t what)
{
	struct rng rng = {what + 1};

	for (size_t i = 0; i + 8 <= len; i += 8) {
		uint64_t v = rng_next(&rng);
		memcpy(p + i, &v, 8);
	}
}

/* Two who use one folder; files damaged in every way: what was put, or nothing.  And the limit. */
static void test_kept(void **state)
{
	cleanup_free char *dir = test_folder();
	struct kept *k[2];
	static uint8_t want[65536], got[65536];
	struct rng rng = {test_seed()};
	struct err err = ERR_INIT;
	unsigned hits = 0, bad = 0;
	char command[400];

	for (int i = 0; i < 2; i++)
		synth_must(kept_open(dir, 16 << 20, &k[i], &err), &err, "kept_open");
	for (unsigned i = 0; i < 1500; i++) {
		uint64_t n = rng_below(&rng, 400);
		struct kept_key key = {{n, 7}, n * 3};
		size_t len = 65536 - n * 8;
		fill(want, len, n);
		if (kept_get(k[i % 2], key, got, len)) {
			assert_memory_equal(got, want, len);
			hits++;
		} else {
			kept_put(k[i % 2], key, want, len);
		}
		if (i % 100 == 99) {
			static const char *const harm[] = {
			        "truncate -s 1000", "truncate -s +1",
			        "dd if=/dev/urandom bs=1 count=1 conv=notrunc seek=20000 of=",
			        "dd if=/dev/urandom bs=1 count=1 conv=notrunc seek=20 of=", "rm"};
			const char *h = harm[i / 100 % 5];
			snprintf(command, sizeof(command),
			         "f=$(find '%s' -name '*-*' -type f | head -1); %s%s\"$f\" 2>&1",
			         dir, h, strchr(h, '=') && h[0] == 'd' ? "" : " ");
			size_t len_out;
			free(output_of(command, &len_out));
			bad++;
		}
	}
	assert_true(hits > 200 && bad == 15);
	assert_in_range(bytes_below(dir), 4 << 20, 18 << 20);
	kept_free(k[0]);
	kept_free(k[1]);
	test_remove(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_every_transaction),
	        cmocka_unit_test(test_faults),
	        cmocka_unit_test(test_follows),
	        cmocka_unit_test(test_objects_go_under_a_view),
	        cmocka_unit_test(test_kept),
	};
	return cmocka_run_group_tests_name("bucket", tests, NULL, NULL);
}
