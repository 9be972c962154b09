/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a destination holds is the past of the archive: at each request, whichever fails, whoever
 * dies, and whoever else writes there.
 */
#include "engine/base/file.h"
#include "engine/base/log.h"
#include "engine/compact/compact.h"
#include "engine/retain/retain.h"
#include "engine/ship/ship.h"
#include "engine/store/store.h"
#include "tests/lib/memory.h"
#include "tests/lib/synth.h"

#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define URL "memory"

static _Atomic bool stop;

/* ---- a store that fails from its Nth request on, before or after that took effect ---- */

struct breaking {
	struct store base;
	struct store *inner; /* not ours */
	long left;           /* requests; -1: for ever */
	bool takes_effect;   /* the one that fails first does */
	uint64_t n, puts, put_bytes;
	/* Called before each request. */
	void (*before)(void *ctx);
	void *ctx;
};

static int request(struct breaking *b, bool *ret_last, struct err *err)
{
	b->n++;
	if (b->before)
		b->before(b->ctx);
	*ret_last = b->left == 0;
	if (b->left < 0 || b->left-- > 0)
		return 0;
	b->left = 0;
	return b->takes_effect ? 0 : err_set(err, ERR_UNAVAILABLE, 0, "broken before");
}

static int answer(struct breaking *b, int rc, bool last, struct err *err)
{
	if (!last)
		return rc;
	b->takes_effect = false;
	return err_set(err, ERR_UNAVAILABLE, 0, "broken after");
}

static int b_put(struct store *s, const char *key, struct source *body, uint64_t bytes,
                 unsigned flags, struct err *err)
{
	struct breaking *b = (struct breaking *)s;
	bool last;
	int rc = request(b, &last, err);

	b->puts++;
	b->put_bytes += bytes;
	if (rc == 0)
		rc = store_put(b->inner, key, body, bytes, flags, err);
	return answer(b, rc, last, err);
}

static int b_get(struct store *s, const char *key, size_t max_bytes, struct buf *ret,
                 struct err *err)
{
	struct breaking *b = (struct breaking *)s;
	bool last;
	int rc = request(b, &last, err);

	return answer(b, rc < 0 ? rc : store_get(b->inner, key, max_bytes, ret, err), last, err);
}

static int b_open(struct store *s, const char *key, uint64_t bytes, struct source **ret,
                  struct err *err)
{
	return store_open_object(((struct breaking *)s)->inner, key, bytes, ret, err);
}

static int b_list(struct store *s, const char *prefix, const char *after, bool deep,
                  store_list_fn *fn, void *ctx, struct err *err)
{
	struct breaking *b = (struct breaking *)s;
	bool last;
	int rc = request(b, &last, err);

	return answer(b, rc < 0 ? rc : store_list(b->inner, prefix, after, deep, fn, ctx, err),
	              last, err);
}

static int b_remove(struct store *s, const char *key, struct err *err)
{
	struct breaking *b = (struct breaking *)s;
	bool last;
	int rc = request(b, &last, err);

	return answer(b, rc < 0 ? rc : store_remove(b->inner, key, err), last, err);
}

static void b_counters(struct store *s, struct store_counters *ret)
{
	store_get_counters(((struct breaking *)s)->inner, ret);
}

static const struct store_ops breaking_ops = {b_put,    b_get,      b_open, b_list,
                                              b_remove, b_counters, NULL};

static void b_free(struct store *s)
{
}

/* Of one that lies on the stack, and is given to who frees it. */
static const struct store_ops borrowed_ops = {b_put,    b_get,      b_open, b_list,
                                              b_remove, b_counters, b_free};

static struct breaking break_after(struct store *inner, long left, bool takes_effect)
{
	return (struct breaking){
	        .base = {.ops = &breaking_ops, .label = inner->label, .remote = true, .dir_fd = -1},
	        .inner = inner,
	        .left = left,
	        .takes_effect = takes_effect};
}

/* ---- what a store holds, as a directory ---- */

struct copying {
	struct store *store;
	const char *to;
};

static int copy_entry(void *ctx, const struct store_entry *e, struct err *err)
{
	struct copying *c = ctx;
	cleanup_buf struct buf b = BUF_INIT((size_t)1 << 30);
	char path[4096];

	int rc = store_get(c->store, e->key, b.max_bytes, &b, err);
	if (rc < 0)
		return rc;
	snprintf(path, sizeof(path), "%s/%s", c->to, e->key);
	char *slash = strrchr(path, '/');
	*slash = '\0';
	synth_must(file_make_dirs(path, err), err, path);
	int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	write_whole(dir, slash + 1, b.data, b.len);
	close(dir);
	return 0;
}

static char *as_folder(struct store *store)
{
	char *to = test_folder();
	struct copying c = {store, to};
	struct err err = ERR_INIT;

	synth_must(store_list(store, "", NULL, true, copy_entry, &c, &err), &err, "list");
	return to;
}

static struct synth *make(const char *root, uint64_t seed)
{
	const struct synth_options o = {
	        .seed = seed,
	        .page_size = 512u << (seed % 3),
	        .max_pages = 30,
	        .max_frames = 5,
	        .level = 1,
	        .torn_batches = seed % 2,
	};
	return synth_new(root, "x.db", &o);
}

/*
 * Each moment that can be seen there is right; and from the first to the last of them none is
 * missing that the archive can show, unless PARTLY: what is older is on its way; THINNED: the archive let some go.  Returns the last.
 */
enum held { WHOLE, PARTLY, THINNED };
static uint64_t check_held(const struct synth *s, struct store *store, enum held how)
{
	cleanup_free char *root = as_folder(store);
	struct archive *a[2];
	struct history *h[2] = {0};
	struct err err = ERR_INIT;
	uint64_t last = 0;
	const char *const roots[] = {s->root, root};

	for (int i = 0; i < 2; i++) {
		synth_must(archive_open(roots[i], NULL, &a[i], &err), &err, "archive_open");
		if (history_get(a[i], "x.db", &h[i], &err) < 0)
			assert_int_equal(err.kind, ERR_NOT_FOUND);
	}
	bool missing = false;
	for (uint64_t t = s->n_states; h[1] && t >= 1; t--) {
		struct err why[2] = {ERR_INIT, ERR_INIT};
		bool here = synth_compare(s, h[0], t, &why[0]);
		bool there = synth_compare(s, h[1], t, &why[1]);
		if (there && last == 0)
			last = t;
		if (there && !here && how != THINNED)
			synth_die("transaction %" PRIu64 " is there, and not here: %s", t,
			          why[0].msg);
		if (there && missing && how == WHOLE)
			synth_die("a hole above transaction %" PRIu64, t);
		if (here && !there && last) {
			missing = true;
			if (how == WHOLE)
				synth_die("transaction %" PRIu64 " is missing: %s", t, why[1].msg);
		}
	}
	for (int i = 0; i < 2; i++) {
		if (h[i])
			history_put(h[i]);
		archive_free(a[i]);
	}
	test_remove(root);
	return last;
}

/* ---- shipping ---- */

static struct shipper *open_shipper(const char *root, struct store *store, int64_t grace_us)
{
	const struct ship_options o = {
	        .archive = root, .name = "x.db", .url = URL, .store = store, .grace_us = grace_us};
	struct shipper *s;
	struct err err = ERR_INIT;

	synth_must(shipper_new(&o, &s, &err), &err, "shipper_new");
	return s;
}

static int ship_all(struct shipper *s, struct err *err)
{
	bool more = true;
	int rc = 0;

	for (int i = 0; more && rc == 0; i++) {
		if (i > 10000)
			synth_die("shipping finds no end");
		rc = shipper_step(s, &more, err);
	}
	return rc;
}

/* What is kept of a destination beside the history is disposable. */
static void forget(const char *root)
{
	char command[600];

	snprintf(command, sizeof(command), "rm -f '%s'/local/x.db/shipped-*", root);
	assert_int_equal(system(command), 0);
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
	s->n_objects = 0; /* they were sealed, and joined */
}

/* The newest that the archive shows. */
static uint64_t newest(const struct synth *s)
{
	struct archive *a;
	struct history *h;
	struct moment m = {0};
	struct err err = ERR_INIT;

	synth_must(archive_open(s->root, NULL, &a, &err), &err, "archive_open");
	synth_must(history_get(a, "x.db", &h, &err), &err, "history_get");
	if (history_latest(h, &m, &err) < 0)
		assert_int_equal(err.kind, ERR_NOT_FOUND);
	history_put(h);
	archive_free(a);
	return m.txid;
}

static void some_more(struct synth *s)
{
	for (unsigned n = 0; n < 9; n++)
		synth_random_commit(s);
	if (rng_chance(&s->rng, 50))
		synth_cut(s);
	synth_publish(s);
	if (rng_chance(&s->rng, 25))
		upkeep(s);
}

static void test_any_history(void **state)
{
	uint64_t seed = test_seed();

	for (unsigned i = 0; i < test_rounds(30); i++) {
		cleanup_free char *root = test_folder();
		struct synth *s = make(root, seed + i);
		struct store *store;
		struct err err = ERR_INIT;
		struct ship_status st;

		fprintf(stderr, "history %llu\n", (unsigned long long)(seed + i));
		synth_must(store_open_memory(&store, &err), &err, "store");
		synth_random_history(s, 10 + (unsigned)rng_below(&s->rng, 60));
		struct shipper *sh = open_shipper(root, store, 1);
		int64_t began_us = clock_now_us();
		for (unsigned k = 0; k < 5; k++) {
			int64_t us;
			synth_must(ship_all(sh, &err), &err, "ship");
			assert_int_equal(check_held(s, store, WHOLE), newest(s));
			ship_status_get(sh, &st);
			assert_int_equal(st.replicated_txid, st.tip_txid);
			assert_in_range(st.progress_us, began_us, clock_now_us());
			some_more(s);
			if (rng_chance(&s->rng, 30))
				shipper_rest(sh, &us);
			if (rng_chance(&s->rng, 30)) { /* another process */
				shipper_free(sh);
				sh = open_shipper(root, store, 1);
			}
		}
		synth_must(ship_all(sh, &err), &err, "ship");
		assert_int_equal(check_held(s, store, WHOLE), newest(s));
		shipper_free(sh);
		store_free(store);
		synth_free(s);
		test_remove(root);
	}
}

/* Each request fails once, before it took effect or after; then all that follow; a new process goes
 * on. */
static void test_failing_anywhere(void **state)
{
	uint64_t seed = test_seed();
	long step = getenv("ASOF_TEST_SHORT") ? 5 : 1;

	for (unsigned i = 0; i < test_rounds(4); i++) {
		cleanup_free char *root = test_folder();
		struct synth *s = make(root, seed + 100 + i);
		struct err err = ERR_INIT;
		bool ended = false;
		long at = 0;

		synth_random_history(s, 30);
		for (; !ended; at += step) {
			struct store *store;
			forget(root); /* what another store had */
			synth_must(store_open_memory(&store, &err), &err, "store");
			struct breaking b = break_after(store, at / 2, at % 2);
			struct shipper *sh = open_shipper(root, &b.base, 1);
			int rc = ship_all(sh, &err);
			ended = rc == 0;
			assert_true(ended || err.kind == ERR_UNAVAILABLE);
			check_held(s, store, PARTLY);
			if (at % 3) { /* the same process, or another */
				shipper_free(sh);
				sh = open_shipper(root, store, 1);
				synth_must(ship_all(sh, &err), &err, "ship again");
			} else {
				b.left = -1;
				synth_must(ship_all(sh, &err), &err, "ship on");
			}
			shipper_free(sh);
			assert_int_equal(check_held(s, store, WHOLE), newest(s));
			store_free(store);
		}
		printf("failed at each of %ld requests, before and after\n", at / 2);
		assert_true(at > 10);
		synth_free(s);
		test_remove(root);
	}
}

/* ---- requests, bytes ---- */

static void test_idle(void **state)
{
	cleanup_free char *root = test_folder();
	struct synth *s = make(root, 3);
	struct store *store;
	struct err err = ERR_INIT;
	int64_t us;
	bool more;

	synth_random_history(s, 40);
	synth_must(store_open_memory(&store, &err), &err, "store");
	struct breaking b = break_after(store, -1, false);
	struct shipper *sh = open_shipper(root, &b.base, 0);
	synth_must(ship_all(sh, &err), &err, "ship");
	uint64_t n = b.n;
	assert_true(n > 3);
	for (int i = 0; i < 100; i++) {
		synth_must(shipper_step(sh, &more, &err), &err, "step");
		assert_false(more);
		if (i % 7 == 0)
			shipper_rest(sh, &us);
		if (i % 30 == 0) { /* nor does another process ask for anything */
			shipper_free(sh);
			sh = open_shipper(root, &b.base, 0);
		}
	}
	assert_int_equal(b.n, n);
	/* One commit: one put; in a new process besides one listing, and what tells whose it is. */
	synth_random_commit(s);
	synth_publish(s);
	synth_must(ship_all(sh, &err), &err, "ship");
	assert_in_range(b.n - n, 1, 6);
	n = b.n;
	synth_random_commit(s);
	synth_publish(s);
	synth_must(ship_all(sh, &err), &err, "ship");
	assert_int_equal(b.n - n, 1);
	shipper_free(sh);
	store_free(store);
	synth_free(s);
	test_remove(root);
}

static int add_sealed(void *ctx, const struct store_entry *e, struct err *err)
{
	const char *base = strrchr(e->key, '/') + 1;
	struct object_name n;

	(void)err;
	if (strstr(e->key, "/segment/") && object_name_parse(base, &n) && n.type == OBJECT_SEALED)
		*(uint64_t *)ctx += e->bytes;
	return 0;
}

static uint64_t sealed_bytes(struct store *store)
{
	uint64_t sum = 0;
	struct err err = ERR_INIT;

	synth_must(store_list(store, "", NULL, true, add_sealed, &sum, &err), &err, "list");
	return sum;
}

/* Pages that do not compress: the compressed WAL is as large as its sealed segments, once. */
static void test_bytes(void **state)
{
	cleanup_free char *root = test_folder();
	const struct synth_options o = {.seed = test_seed(),
	                                .page_size = 4096,
	                                .max_pages = 300,
	                                .max_frames = 12,
	                                .level = 1};
	struct synth *s = synth_new(root, "x.db", &o);
	struct store *store;
	struct err err = ERR_INIT;
	uint64_t base = 0;

	synth_random_commit(s);
	synth_publish(s);
	synth_snapshot(s, 1, 1);
	synth_must(store_open_memory(&store, &err), &err, "store");
	struct breaking b = break_after(store, -1, false);
	struct shipper *sh = open_shipper(root, &b.base, 1);
	for (unsigned i = 0; i < 60; i++) {
		for (unsigned n = 0; n < 8; n++) {
			synth_random_commit(s);
			synth_publish(s);
			if (n % 3 == 0)
				synth_must(ship_all(sh, &err), &err, "ship");
		}
		if (i == 0)
			base = b.put_bytes;
		synth_cut(s);
		upkeep(s);
		synth_must(ship_all(sh, &err), &err, "ship");
	}
	upkeep(s);
	synth_must(ship_all(sh, &err), &err, "ship");
	double ratio = (double)(b.put_bytes - base) / (double)sealed_bytes(store);
	printf("sent %.2f times the compressed WAL of %.1f MB, in %llu puts\n", ratio,
	       (double)sealed_bytes(store) / 1e6, (unsigned long long)b.puts);
	assert_true(ratio <= 2.2);
	assert_true(ratio > 1.5); /* it does measure */
	assert_int_equal(check_held(s, store, WHOLE), newest(s));
	shipper_free(sh);
	store_free(store);
	synth_free(s);
	test_remove(root);
}

/* ---- two writers ---- */

static char *copy_of(const char *root)
{
	char *to = test_folder(), command[600];

	snprintf(command, sizeof(command), "cp -a '%s'/. '%s'", root, to);
	assert_int_equal(system(command), 0);
	return to;
}

struct rival {
	const char *root;
	struct breaking *at;
	struct store *store;
	uint64_t when;
	int rc;
	struct err err;
	bool tried;
};

/* Between two requests of the one the other takes over. */
static void take_over_now(void *ctx)
{
	struct rival *r = ctx;
	const struct ship_options o = {
	        .archive = r->root, .name = "x.db", .url = "other", .store = r->store};
	char from[200];

	if (r->tried || r->at->n < r->when)
		return;
	r->tried = true;
	r->rc = ship_take_over(&o, from, &r->err);
}

static int count_keys(void *ctx, const struct store_entry *e, struct err *err)
{
	(void)err;
	(*(uint64_t *)ctx) += e->bytes + 1;
	return 0;
}

static uint64_t weight(struct store *store)
{
	uint64_t sum = 0;
	struct err err = ERR_INIT;

	synth_must(store_list(store, "", NULL, true, count_keys, &sum, &err), &err, "list");
	return sum;
}

static void test_two_writers(void **state)
{
	uint64_t seed = test_seed();
	unsigned took = 0, late = 0;

	for (uint64_t when = 1; when < 8; when++) {
		cleanup_free char *root = test_folder(), *other = NULL;
		struct synth *s = make(root, seed + when);
		struct store *store;
		struct err err = ERR_INIT;
		struct ship_status st;

		synth_random_history(s, 25);
		synth_must(store_open_memory(&store, &err), &err, "store");
		struct breaking b = break_after(store, -1, false);
		struct shipper *sh = open_shipper(root, &b.base, 1);
		synth_must(ship_all(sh, &err), &err, "ship");
		/* A copy of the archive is another writer, and is refused. */
		other = copy_of(root);
		forget(other);
		struct shipper *second = open_shipper(other, store, 1);
		assert_int_equal(ship_all(second, &err), -ERR_REFUSED);
		assert_non_null(strstr(err.msg, "take-over"));
		shipper_free(second);
		/* It takes over while the first sends something new. */
		struct rival r = {.root = other, .at = &b, .store = store, .when = b.n + when};
		b.before = take_over_now;
		b.ctx = &r;
		int rc = 0;
		for (unsigned i = 0; i < 14 && rc == 0; i++) {
			synth_random_commit(s);
			synth_publish(s);
			rc = ship_all(sh, &err);
		}
		assert_true(r.tried);
		if (r.rc == 0) {
			took++;
			ship_status_get(sh, &st);
			assert_int_equal(rc, -ERR_REFUSED);
			assert_true(st.fenced);
			uint64_t before = weight(store);
			for (int i = 0; i < 3; i++) {
				bool more;
				assert_int_equal(shipper_step(sh, &more, &err), -ERR_REFUSED);
			}
			assert_int_equal(weight(store), before);
		} else {
			late++;
			assert_int_equal(r.err.kind, ERR_REFUSED);
			assert_non_null(strstr(r.err.msg, "asof copy"));
		}
		check_held(s, store, WHOLE);
		shipper_free(sh);
		/* The one that was fenced does not come back by starting anew. */
		if (r.rc == 0) {
			sh = open_shipper(root, store, 1);
			assert_int_equal(ship_all(sh, &err), -ERR_REFUSED);
			shipper_free(sh);
		}
		store_free(store);
		synth_free(s);
		test_remove(root);
		test_remove(other);
	}
	printf("taken over %u times, too late %u times\n", took, late);
	assert_true(took >= 1 && late >= 1);
}

/* ---- a segment that was cut to its header is no fence ---- */

struct cutting {
	char keys[64][200];
	size_t n;
};

static int list_level0(void *ctx, const struct store_entry *e, struct err *err)
{
	struct cutting *c = ctx;
	struct object_name n;

	if (strstr(e->key, "/segment/") && object_name_parse(strrchr(e->key, '/') + 1, &n) &&
	    n.type == OBJECT_GROWING && c->n < 64)
		snprintf(c->keys[c->n++], sizeof(c->keys[0]), "%s", e->key);
	return 0;
}

/* What a reader of the store finds, who goes through all transactions: nothing is missing before the
 * object, and what it held is damaged, and not unknown. */
static void look_at_cut(const struct synth *s, struct store *store, const char *key, bool is_last)
{
	struct breaking b = break_after(store, -1, false);
	struct store *stores[] = {&b.base};
	struct err err = ERR_INIT;
	const char *file = strrchr(key, '/') + 1;
	struct archive *a;
	struct history *h;
	struct object_name n;
	unsigned damaged = 0;

	assert_true(object_name_parse(file, &n));
	b.base.ops = &borrowed_ops;
	synth_must(archive_open_stores(stores, 1, NULL, &a, &err), &err, "open");
	synth_must(history_get(a, "x.db", &h, &err), &err, "history_get");
	for (uint64_t t = 1; t <= s->n_states; t++) {
		struct err why = ERR_INIT;
		if (synth_compare(s, h, t, &why))
			continue;
		if (t < n.first_txid)
			synth_die("transaction %" PRIu64 " is lost with '%s': %s", t, file,
			          why.msg);
		damaged += why.kind == ERR_DAMAGED && strstr(why.msg, file);
	}
	if (!is_last)
		assert_true(damaged > 0);
	history_put(h);
	archive_free(a);
}

static void test_cut_to_header(void **state)
{
	cleanup_free char *root = test_folder();
	struct synth *s = make(root, 12);
	struct store *store;
	struct err err = ERR_INIT;
	struct ship_status st;
	struct cutting c = {.n = 0};

	synth_must(store_open_memory(&store, &err), &err, "store");
	struct shipper *sh = open_shipper(root, store, SHIP_GRACE_US);
	for (unsigned i = 0; i < 5; i++) {
		for (unsigned k = 0; k < 3; k++)
			synth_random_commit(s);
		synth_publish(s);
		if (i == 0)
			synth_snapshot(s, 1, 1);
		synth_must(ship_all(sh, &err), &err, "ship");
	}
	shipper_free(sh);
	synth_must(store_list(store, "", NULL, true, list_level0, &c, &err), &err, "list");
	assert_int_equal(c.n, 5);
	for (size_t i = 0; i < c.n; i++) {
		cleanup_buf struct buf b = BUF_INIT((size_t)1 << 20);
		synth_must(store_get(store, c.keys[i], b.max_bytes, &b, &err), &err, "get");
		synth_must(store_put_bytes(store, c.keys[i], b.data, GROW_HEADER_SIZE, 0, &err),
		           &err, "put");
		look_at_cut(s, store, c.keys[i], i + 1 == c.n);
		forget(root);
		sh = open_shipper(root, store, SHIP_GRACE_US);
		if (i + 1 == c.n) { /* where it goes on it looks */
			assert_int_equal(ship_all(sh, &err), -ERR_DAMAGED);
			assert_non_null(strstr(err.msg, strrchr(c.keys[i], '/')));
			ship_status_get(sh, &st);
			assert_false(st.fenced);
		}
		shipper_free(sh);
		synth_must(store_put_bytes(store, c.keys[i], b.data, b.len, 0, &err), &err, "put");
	}
	assert_int_equal(check_held(s, store, WHOLE), s->n_states);
	store_free(store);
	synth_free(s);
	test_remove(root);
}

/* ---- away for too long ---- */

static void test_gap(void **state)
{
	cleanup_free char *root = test_folder();
	struct synth *s = make(root, 11);
	struct store *store;
	struct err err = ERR_INIT;
	struct retain_policy policy;
	struct retain_result res;
	struct retainer *r;
	struct ship_status st;

	for (unsigned i = 0; i < 20; i++)
		synth_random_commit(s);
	synth_publish(s);
	synth_snapshot(s, 5, 5);
	synth_must(store_open_memory(&store, &err), &err, "store");
	struct shipper *sh = open_shipper(root, store, 1);
	synth_must(ship_all(sh, &err), &err, "ship");
	ship_status_get(sh, &st);
	assert_int_equal(st.replicated_txid, 20);
	synth_cut(s);
	for (unsigned i = 0; i < 200; i++) {
		synth_random_commit(s);
		if (i % 20 == 0)
			synth_cut(s);
	}
	synth_publish(s);
	synth_snapshot(s, 190, 190);
	upkeep(s);
	retain_policy_default(&policy);
	synth_must(retain_tiers_parse("all:10m,1h:365d", &policy, &err), &err, "tiers");
	policy.grace_us = 0;
	policy.min_free_percent = 0;
	synth_must(retainer_new(root, "x.db", &r, &err), &err, "retainer_new");
	synth_must(retainer_run(r, &policy, s->states[s->n_states - 1].commit.time_us, &stop, NULL,
	                        &res, &err),
	           &err, "retainer_run");
	retainer_free(r);
	synth_generation(s);
	assert_true(res.fine_txid > 30);
	synth_must(ship_all(sh, &err), &err, "ship");
	ship_status_get(sh, &st);
	assert_int_equal(st.replicated_txid, s->n_states);
	assert_int_equal(check_held(s, store, THINNED), s->n_states);
	for (unsigned i = 0; i < 5; i++)
		synth_random_commit(s);
	synth_publish(s);
	shipper_free(sh);
	sh = open_shipper(root, store, 1);
	synth_must(ship_all(sh, &err), &err, "ship");
	assert_int_equal(check_held(s, store, THINNED), s->n_states);
	shipper_free(sh);
	store_free(store);
	synth_free(s);
	test_remove(root);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_any_history),   cmocka_unit_test(test_failing_anywhere),
	        cmocka_unit_test(test_idle),          cmocka_unit_test(test_bytes),
	        cmocka_unit_test(test_two_writers),   cmocka_unit_test(test_gap),
	        cmocka_unit_test(test_cut_to_header),
	};
	log_set_level(LOG_ERROR);
	log_set_fd(-1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
