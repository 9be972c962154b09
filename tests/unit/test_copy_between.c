/* SPDX-License-Identifier: Apache-2.0 */
/*
 * asof copy from store to store: the second shows what the first does, whatever the first went through,
 * and each moment that it showed it goes on showing, whenever the copying ends.
 */
#include "engine/base/log.h"
#include "engine/compact/compact.h"
#include "engine/copy/copy.h"
#include "engine/retain/retain.h"
#include "engine/store/borrowed.h"
#include "engine/store/crypt.h"
#include "tests/lib/world.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static _Atomic bool stop;

static struct store *new_memory(void)
{
	struct store *s;
	struct err err = ERR_INIT;

	synth_must(store_open_memory(&s, &err), &err, "store");
	return s;
}

static struct store *borrow(struct store *inner)
{
	struct store *s;
	struct err err = ERR_INIT;

	synth_must(store_borrow(inner, &s, &err), &err, "borrow");
	return s;
}

static void send_all(const char *root, struct store *store)
{
	struct shipper *sh = open_shipper(root, store, 1);
	struct err err = ERR_INIT;

	synth_must(ship_all(sh, &err), &err, "ship");
	shipper_free(sh);
	forget(root); /* it is sent to several */
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
	for (size_t n = s->n_objects; n-- > 0;)
		if (s->objects[n].name.type != OBJECT_SNAPSHOT)
			memmove(&s->objects[n], &s->objects[n + 1],
			        (--s->n_objects - n) * sizeof(s->objects[0]));
}

static void thin_there(const struct synth *s, struct store *store)
{
	const struct ship_options o = {
	        .archive = s->root, .name = "x.db", .url = URL, .store = store, .grace_us = 1};
	struct retain_policy policy;
	struct retain_result res;
	struct err err = ERR_INIT;

	retain_policy_default(&policy);
	synth_must(retain_tiers_parse("all:10m,5m:365d", &policy, &err), &err, "tiers");
	policy.grace_us = 0;
	policy.min_free_percent = 0;
	synth_must(ship_retain(&o, &policy, s->states[s->n_states - 1].commit.time_us, false, NULL,
	                       &res, &err),
	           &err, "ship_retain");
	forget(s->root);
}

static void grow_on(struct synth *s)
{
	for (unsigned n = 0; n < 12; n++)
		synth_random_commit(s);
	if (rng_chance(&s->rng, 50))
		synth_cut(s);
	synth_publish(s);
}

/* Takes both over. */
static int copy_over(struct store *from, struct store *to, struct copy_result *ret, struct err *err)
{
	const struct copy_options o = {
	        .from = "memory:a", .to = "memory:b", .from_open = from, .to_open = to};

	return copy_archive(&o, ret, err);
}

static void must_copy(struct store *from, struct store *to, struct copy_result *ret)
{
	struct err err = ERR_INIT;

	synth_must(copy_over(borrow(from), borrow(to), ret, &err), &err, "copy");
}

/* Which states it shows; each is what it was. */
static bool *shown_by(const struct synth *s, struct store *store)
{
	bool *shown = calloc(s->n_states + 1, sizeof(*shown));
	struct store *own = borrow(store);
	struct archive *a;
	struct history *h;
	struct err err = ERR_INIT;

	synth_must(archive_open_stores(&own, 1, NULL, &a, &err), &err, "open");
	if (history_get(a, "x.db", &h, &err) == 0) {
		for (uint64_t t = 1; t <= s->n_states; t++)
			shown[t] = synth_compare(s, h, t, NULL);
		history_put(h);
	} else {
		assert_int_equal(err.kind, ERR_NOT_FOUND);
	}
	archive_free(a);
	return shown;
}

static void check_shown(const struct synth *s, const bool *want, struct store *store)
{
	cleanup_free bool *shown = shown_by(s, store);

	for (uint64_t t = 1; t <= s->n_states; t++)
		if (want[t] && !shown[t])
			synth_die("transaction %" PRIu64 " is not shown by the copy", t);
}

static void check_same(const struct synth *s, struct store *from, struct store *to)
{
	cleanup_free bool *want = shown_by(s, from);

	check_shown(s, want, to);
}

static void test_any_history(void **state)
{
	uint64_t seed = test_seed(), shown = 0;

	for (unsigned i = 0; i < test_rounds(20); i++) {
		cleanup_free char *root = test_folder();
		struct store *from = new_memory(), *to = new_memory();
		struct synth *s = make(root, seed + 700 + i);
		struct copy_result res;

		fprintf(stderr, "history %llu\n", (unsigned long long)(seed + 700 + i));
		synth_random_history(s, 10 + (unsigned)rng_below(&s->rng, 40));
		for (unsigned k = 0; k < 5; k++) {
			send_all(root, from);
			if (i % 2 && k && rng_chance(&s->rng, 40))
				thin_there(s, from);
			if (rng_chance(&s->rng, 70)) {
				must_copy(from, to, &res);
				check_same(s, from, to);
				must_copy(from, to, &res);
				assert_int_equal(res.objects, 0);
				assert_int_equal(res.bytes, 0);
				cleanup_free bool *all = shown_by(s, to);
				for (uint64_t t = 1; t <= s->n_states; t++)
					shown += all[t];
			}
			grow_on(s);
			if (rng_chance(&s->rng, 40))
				upkeep(s);
		}
		store_free(from);
		store_free(to);
		synth_free(s);
		test_remove(root);
	}
	assert_true(shown > 100);
}

/* Each request to the second fails once, before or after it took effect. */
static void test_failing(void **state)
{
	for (unsigned i = 0; i < test_rounds(3); i++) {
		cleanup_free char *root = test_folder();
		struct store *from = new_memory();
		struct synth *s = make(root, test_seed() + 800 + i);
		struct copy_result res;
		struct err err = ERR_INIT;
		int rc = -1;

		synth_random_history(s, 30);
		send_all(root, from);
		struct store *first = new_memory(); /* as it was once copied */
		must_copy(from, first, &res);
		grow_on(s);
		upkeep(s);
		send_all(root, from);
		if (i == 2)
			thin_there(s, from);
		cleanup_free bool *before = shown_by(s, first);
		for (long at = 0; rc < 0; at++) {
			struct store *to = new_memory();
			if (i > 0)
				must_copy(first, to, &res);
			struct breaking b = break_after(to, at / 2, at % 2);
			b.base.ops = &borrowed_ops;
			rc = copy_over(borrow(from), &b.base, &res, &err);
			assert_true(rc == 0 || err.kind == ERR_UNAVAILABLE);
			if (i == 1)
				check_shown(s, before, to);
			else
				free(shown_by(s, to));
			must_copy(from, to, &res);
			check_same(s, from, to);
			store_free(to);
			assert_true(at < 5000);
		}
		store_free(from);
		store_free(first);
		synth_free(s);
		test_remove(root);
	}
}

/* ---- what was thinned ---- */

static int is_in(void *ctx, const struct store_entry *e, struct err *err)
{
	cleanup_buf struct buf x = BUF_INIT(1u << 30), y = BUF_INIT(1u << 30);
	struct store *const *both = ctx;

	if (strstr(e->key, ".writer") || e->key[0] == '.')
		return 0;
	synth_must(store_get(both[0], e->key, x.max_bytes, &x, err), err, e->key);
	synth_must(store_get(both[1], e->key, y.max_bytes, &y, err), err, e->key);
	assert_int_equal(x.len, y.len);
	assert_memory_equal(x.data, y.data, x.len);
	return 0;
}

/* A destination that was thinned, and a place that has an older copy of it, or of one that was thinned
 * otherwise. */
struct pair {
	struct world w;
	struct store *to;
	int64_t now;
};

static void thin_other(struct pair *p, struct store *store)
{
	struct retain_policy policy;
	struct retain_result res;
	struct err err = ERR_INIT;

	thinned_random_policy(&p->w.s->rng, &policy);
	world_forget(p->w.s->root);
	synth_must(world_retain_at(p->w.s->root, store, &policy, p->now, false, &res, &err), &err,
	           "retain");
	world_forget(p->w.s->root);
}

static void thin(struct pair *p)
{
	struct retain_policy policy;
	const struct kept *k = &p->w.k;

	thinned_random_policy(&p->w.s->rng, &policy);
	int64_t span = k->times[k->n - 1] - k->times[0];
	p->now += (int64_t)rng_below(&p->w.s->rng, (uint64_t)(span + policy.grace_us + HOUR));
	world_pass(&p->w, &policy, p->now);
}

static void grow_pair(struct pair *p)
{
	world_go_on(&p->w, 12);
	int64_t last = p->w.k.times[p->w.k.n - 1];
	p->now = p->now > last ? p->now : last;
}

static void make_pair(struct pair *p, const char *root, uint64_t seed)
{
	struct copy_result res;

	world_make(&p->w, root, seed);
	p->now = 0;
	p->to = new_memory();
	grow_pair(p);
	grow_pair(p);
	struct rng *r = &p->w.s->rng;
	if (rng_chance(r, 30))
		thin(p);
	unsigned kind = (unsigned)rng_below(r, 4); /* 0: the place is new */
	if (kind == 1 || kind == 2)
		must_copy(p->w.store, p->to, &res);
	if (kind == 3) {
		struct store *other = world_clone(p->w.store);
		thin_other(p, other);
		must_copy(other, p->to, &res);
		store_free(other);
	}
	for (unsigned n = 1 + (unsigned)rng_below(r, 3); n > 0; n--) {
		grow_pair(p);
		if (rng_chance(r, 80))
			thin(p);
		if (rng_chance(r, 20))
			must_copy(p->w.store, p->to, &res);
	}
	if (rng_chance(r, 30))
		grow_pair(p);
}

static void free_pair(struct pair *p)
{
	store_free(p->to);
	world_free(&p->w);
}

/* The note of a place; zero: it has none. */
static struct thinned_note note_of(struct store *store)
{
	cleanup_buf struct buf b = BUF_INIT(1u << 20);
	struct thinned_note n = {0};
	struct err err = ERR_INIT;

	if (store_get(store, "local/x.db/thinned", (1u << 20) - 1, &b, &err) < 0) {
		assert_int_equal(err.kind, ERR_NOT_FOUND);
		return n;
	}
	err = (struct err)ERR_INIT;
	synth_must(buf_append(&b, "", 1, &err), &err, "note");
	synth_must(thinned_note_parse((char *)b.data, b.len - 1, &n, &err), &err, "note");
	return n;
}

/* Of what is not shown a line tells, and which are the nearest: it is the same of both. */
static void check_told(const struct pair *p, struct store *from, struct store *to)
{
	struct world_reader r[2];

	world_open_reader(&r[0], from);
	world_open_reader(&r[1], to);
	for (uint64_t t = 1; t <= p->w.k.n; t++) {
		struct err err[2] = {ERR_INIT, ERR_INIT};
		struct moment m[2];
		int rc[2];
		for (int i = 0; i < 2; i++)
			rc[i] = history_tx(r[i].h, t, &m[i], &err[i]);
		assert_int_equal(rc[0], rc[1]);
		assert_string_equal(err[0].msg, err[1].msg);
		for (int i = 0; i < 2; i++)
			rc[i] = history_at(r[i].h, p->w.k.times[t - 1] + 1, p->now, &m[i], &err[i]);
		assert_int_equal(rc[0], rc[1]);
		assert_string_equal(err[0].msg, err[1].msg);
		if (rc[0] == 0)
			assert_int_equal(m[0].txid, m[1].txid);
	}
	world_close_reader(&r[0]);
	world_close_reader(&r[1]);
}

/* After a copy: all that the first shows, each point that the second had, and nothing that both thinned.
 * (Where the second goes on from what it held it can show some that the first alone has thinned.) */
static void check_copied(struct pair *p, const bool *had, const struct thinned_note *points)
{
	cleanup_free bool *from = shown_by(p->w.s, p->w.store), *to = shown_by(p->w.s, p->to);

	uint64_t last = 0;

	for (uint64_t t = 1; t <= p->w.s->n_states; t++)
		last = had[t] ? t : last;
	for (uint64_t t = 1; t <= p->w.s->n_states; t++) {
		if (from[t] && !to[t])
			synth_die("transaction %" PRIu64 " is not shown by the copy", t);
		if (to[t] && !from[t] && !had[t] && (t <= points->until_txid || !last))
			synth_die("transaction %" PRIu64 " was thinned, and comes back", t);
	}
	for (size_t i = 0; i < points->n_points; i++)
		if (had[points->points[i].txid] && !to[points->points[i].txid])
			synth_die("point %" PRIu64 " of the copy is lost", points->points[i].txid);
}

static void assert_same_stores(struct store *a, struct store *b)
{
	struct err err = ERR_INIT;

	synth_must(store_list(a, "", NULL, true, is_in, (struct store *[]){a, b}, &err), &err, "");
	synth_must(store_list(b, "", NULL, true, is_in, (struct store *[]){b, a}, &err), &err, "");
}

/* Histories of two lineages, the first of which ends in what is not sealed: what the second place had
 * thinned stayed hidden; the copy was refused. */
static const uint64_t two_lineages[] = {1325264, 308913};

static void test_thinned(void **state)
{
	uint64_t seed = test_seed() + 900, thinned = 0, united = 0, fresh = 0;

	for (unsigned i = 0;
	     i < test_rounds(60) || ((thinned <= 100 || !united || !fresh) && i < 600); i++) {
		cleanup_free char *root = test_folder();
		struct copy_result res;
		struct pair p;

		uint64_t this = i < 2 ? two_lineages[i] : seed + i;
		fprintf(stderr, "pair %llu\n", (unsigned long long)this);
		make_pair(&p, root, this);
		cleanup_free bool *had = shown_by(p.w.s, p.to);
		struct thinned_note from = note_of(p.w.store), was = note_of(p.to);
		bool is_new = true;
		for (uint64_t t = 1; t <= p.w.s->n_states; t++)
			is_new = is_new && !had[t];
		must_copy(p.w.store, p.to, &res);
		check_copied(&p, had, &was);
		struct thinned_note is = note_of(p.to);
		if (is_new)
			check_told(&p, p.w.store, p.to);
		thinned += is.until_txid;
		fresh += is_new && from.until_txid;
		united += is.n_points > from.n_points && is.n_points > was.n_points;
		struct store *once = world_clone(p.to);
		must_copy(p.w.store, p.to, &res);
		assert_int_equal(res.objects, 0);
		assert_int_equal(res.bytes, 0);
		assert_same_stores(once, p.to);
		store_free(once);
		thinned_note_release(&from);
		thinned_note_release(&was);
		thinned_note_release(&is);
		free_pair(&p);
		test_remove(root);
	}
	printf("%" PRIu64 " transactions thinned, %" PRIu64 " times points of both, %" PRIu64
	       " new places\n",
	       thinned, united, fresh);
	assert_true(thinned > 100 && united > 0 && fresh > 0);
}

/* Ended at each request, and begun again: it comes to the same. */
static void test_thinned_failing(void **state)
{
	uint64_t seed = test_seed() + 1000;
	long step = getenv("ASOF_TEST_SHORT") ? 5 : 1;

	for (unsigned i = 0; i < test_rounds(5); i++) {
		cleanup_free char *root = test_folder();
		struct store *before;
		struct copy_result res;
		struct err err = ERR_INIT;
		struct pair p;
		int rc = -1;

		make_pair(&p, root, seed + i);
		cleanup_free bool *had = shown_by(p.w.s, p.to);
		struct thinned_note was = note_of(p.to);
		before = world_clone(p.to);
		must_copy(p.w.store, p.to, &res);
		for (long at = 0; rc < 0; at += step) {
			struct store *to = world_clone(before);
			struct breaking b = break_after(to, at / 2, at % 2);
			b.base.ops = &borrowed_ops;
			rc = copy_over(borrow(p.w.store), &b.base, &res, &err);
			assert_true(rc == 0 || err.kind == ERR_UNAVAILABLE);
			struct store *whole = p.to;
			p.to = to;
			struct world_reader r;
			for (size_t k = 0; k < was.n_points; k++) {
				uint64_t t = was.points[k].txid;
				if (k == 0)
					world_open_reader(&r, to);
				if (had[t] && !synth_compare(p.w.s, r.h, t, NULL))
					synth_die("point %" PRIu64 " is lost", t);
				if (k + 1 == was.n_points)
					world_close_reader(&r);
			}
			must_copy(p.w.store, to, &res);
			check_copied(&p, had, &was);
			assert_same_stores(to, whole);
			p.to = whole;
			store_free(to);
			assert_true(at < 5000);
		}
		thinned_note_release(&was);
		store_free(before);
		free_pair(&p);
		test_remove(root);
	}
}

/* ---- marks ---- */

static void mark(const char *root, const char *name, uint64_t txid)
{
	struct err err = ERR_INIT;

	synth_must(retain_mark(root, "x.db", name, txid, &err), &err, name);
}

static void unmark(const char *root, const char *name)
{
	struct err err = ERR_INIT;

	synth_must(retain_unmark(root, "x.db", name, &err), &err, name);
}

/* What is there of a mark; "": it is not. */
static const char *mark_in(struct store *store, const char *name, char out[4096])
{
	cleanup_buf struct buf b = BUF_INIT(4096);
	char key[100];

	snprintf(key, sizeof(key), "local/x.db/%s.mark", name);
	out[0] = '\0';
	if (store_get(store, key, 4000, &b, NULL) == 0)
		snprintf(out, 4096, "%.*s", (int)b.len, (const char *)b.data);
	return out;
}

static bool same_mark(struct store *a, struct store *b, const char *name)
{
	char x[4096], y[4096];

	return strcmp(mark_in(a, name, x), mark_in(b, name, y)) == 0;
}

static bool has_mark(struct store *store, const char *name)
{
	char x[4096];

	return *mark_in(store, name, x);
}

static void put_mark(struct store *store, const char *name, const char *text)
{
	struct err err = ERR_INIT;
	char key[100];

	snprintf(key, sizeof(key), "local/x.db/%s.mark", name);
	synth_must(store_put_bytes(store, key, text, strlen(text), 0, &err), &err, key);
}

static void check_marks(struct store *from, struct store *to)
{
	assert_false(has_mark(to, "gone"));
	assert_true(has_mark(from, "kept") && same_mark(from, to, "kept"));
	assert_true(has_mark(from, "anew") && same_mark(from, to, "anew"));
	assert_true(has_mark(from, "new") && same_mark(from, to, "new"));
	assert_true(has_mark(to, "own"));
	assert_true(has_mark(to, "took")); /* it is another one by now */
}

/* What was removed in the first goes in the second, what was given anew is; what others marked there stays.
 * At each request that fails, and again. */
static void test_marks(void **state)
{
	cleanup_free char *root = test_folder();
	struct copy_result res;
	struct err err = ERR_INIT;
	struct world w;
	char text[4096];
	int rc = -1;

	world_make(&w, root, 6);
	world_go_on(&w, 20);
	const char *const first[] = {"gone", "kept", "anew", "took"};
	for (size_t i = 0; i < 4; i++)
		mark(root, first[i], w.k.n);
	world_ship(&w);
	struct store *before = new_memory();
	must_copy(w.store, before, &res);
	for (size_t i = 0; i < 4; i++)
		assert_true(same_mark(w.store, before, first[i]));
	put_mark(before, "own", mark_in(before, "kept", text));
	text[strlen(text) - 20] ^= 1;
	put_mark(before, "took", text);
	unmark(root, "gone");
	unmark(root, "took");
	unmark(root, "anew");
	mark(root, "anew", w.k.n - 1);
	mark(root, "new", w.k.n);
	world_ship(&w);
	for (long at = 0; rc < 0; at++) {
		struct store *to = world_clone(before);
		struct breaking b = break_after(to, at / 2, at % 2);
		b.base.ops = &borrowed_ops;
		rc = copy_over(borrow(w.store), &b.base, &res, &err);
		must_copy(w.store, to, &res);
		check_marks(w.store, to);
		struct breaking idle = break_after(to, -1, false);
		idle.base.ops = &borrowed_ops;
		synth_must(copy_over(borrow(w.store), &idle.base, &res, &err), &err, "again");
		assert_int_equal(idle.puts + idle.removals, 0);
		store_free(to);
		assert_true(at < 500);
	}
	/* Where deletion is denied it stays until it is allowed. */
	for (int k = 0; k < 2; k++) {
		struct breaking b = break_after(before, -1, false);
		b.base.ops = &borrowed_ops;
		b.denies = deny_all;
		synth_must(copy_over(borrow(w.store), &b.base, &res, &err), &err, "denied");
		assert_true(has_mark(before, "gone") && has_mark(before, "new"));
	}
	must_copy(w.store, before, &res);
	check_marks(w.store, before);
	store_free(before);
	world_free(&w);
	test_remove(root);
}

static void assert_refused(struct store *from, struct store *to, const char *why)
{
	struct breaking b = break_after(to, -1, false);
	struct copy_result res;
	struct err err = ERR_INIT;

	b.base.ops = &borrowed_ops;
	assert_int_equal(copy_over(from, &b.base, &res, &err), -ERR_REFUSED);
	if (!strstr(err.msg, why))
		synth_die("refused otherwise: %s", err.msg);
	assert_int_equal(b.puts, 0);
}

/* A writer's place, and a copy of what went another way. */
static void test_refused(void **state)
{
	cleanup_free char *root = test_folder(), *fork_root = test_folder();
	struct synth *s = make(root, 5), *fork = make(fork_root, 5);
	struct store *a = new_memory(), *b = new_memory(), *c = new_memory(), *d = new_memory();
	struct copy_result res;

	synth_random_history(s, 30);
	synth_random_history(fork, 30);
	send_all(root, a);
	must_copy(a, b, &res);
	fork->rng.s += 12345; /* another stream */
	grow_on(s);
	grow_on(fork);
	send_all(root, a);
	send_all(fork_root, c);
	must_copy(a, b, &res);
	assert_refused(borrow(c), b, "another");
	must_copy(c, d, &res);
	assert_refused(borrow(b), d, "another");
	assert_refused(borrow(c), a, "written for 'x.db' by another asof");
	check_same(s, a, b);
	/* Where it was copied from writes there from now on. */
	grow_on(s);
	send_all(root, b);
	send_all(root, a);
	assert_refused(borrow(a), b, "written for 'x.db' by another asof");
	struct store *const all[] = {a, b, c, d};
	for (size_t i = 0; i < 4; i++)
		store_free(all[i]);
	synth_free(s);
	synth_free(fork);
	test_remove(root);
	test_remove(fork_root);
}

/* ---- sealed ---- */

static struct store *sealed(struct store *inner, const struct key_identity *who)
{
	struct store *s;
	struct err err = ERR_INIT;

	synth_must(store_open_crypt(borrow(inner), who, &s, &err), &err, "crypt");
	return s;
}

static struct store *keyless(struct store *inner)
{
	struct store *s;
	struct err err = ERR_INIT;

	synth_must(store_open_plain(borrow(inner), &s, &err), &err, "plain");
	return s;
}

static int is_object(void *ctx, const struct store_entry *e, struct err *err)
{
	if (strstr(e->key, ".wal.gz") || strstr(e->key, ".db.gz"))
		snprintf(ctx, STORE_KEY_MAX, "%s", e->key);
	return 0;
}

/* Without the key: what lies there is what lay there, and who has the key reads it. */
static void test_sealed(void **state)
{
	char dir[] = "/tmp/asof-between-XXXXXX", file[64];
	cleanup_free char *root = test_folder(), *fork_root = test_folder();
	struct synth *s = make(root, 5), *fork = make(fork_root, 5);
	struct store *a = new_memory(), *b = new_memory(), *c = new_memory(), *d = new_memory();
	struct key_identity me;
	struct copy_result res;
	struct err err = ERR_INIT;

	assert_non_null(mkdtemp(dir));
	snprintf(file, sizeof(file), "%s/me", dir);
	synth_must(key_identity_make(file, &me, &err), &err, "identity");
	struct store *ea = sealed(a, &me), *eb = sealed(b, &me);
	ea->settle_us = eb->settle_us = 1;
	synth_random_history(s, 30);
	synth_random_history(fork, 30);
	for (unsigned k = 0; k < 3; k++) {
		send_all(root, ea);
		synth_must(copy_over(keyless(a), keyless(b), &res, &err), &err, "copy");
		assert_true(res.objects > 0);
		if (k == 0)
			synth_must(store_list(a, "", NULL, true, is_in, (struct store *[]){a, b},
			                      &err),
			           &err, "list");
		check_same(s, ea, eb);
		synth_must(copy_over(keyless(a), sealed(b, &me), &res, &err), &err, "again");
		assert_int_equal(res.objects, 0);
		assert_int_equal(res.bytes, 0);
		grow_on(s);
		upkeep(s);
	}
	/* What can be seen without the key is: that it is sealed, and how long it is. */
	cleanup_buf struct buf whole = BUF_INIT(1u << 30);
	char key[STORE_KEY_MAX] = "";
	synth_must(store_list(a, "local/", NULL, true, is_object, key, &err), &err, "list");
	synth_must(store_get(a, key, whole.max_bytes, &whole, &err), &err, key);
	for (size_t at = 0; at < CRYPT_HEADER_BYTES; at += at == 12 ? 44 : 4) {
		struct store *to = new_memory();
		whole.data[at] ^= 0x10;
		synth_must(store_put_bytes(a, key, whole.data, whole.len, 0, &err), &err, key);
		whole.data[at] ^= 0x10;
		assert_int_equal(copy_over(keyless(a), borrow(to), &res, &err), -ERR_DAMAGED);
		assert_int_equal(res.damaged, 1);
		err = (struct err)ERR_INIT;
		store_free(to);
	}
	synth_must(store_put_bytes(a, key, whole.data, whole.len, 0, &err), &err, key);
	fork->rng.s += 12345; /* another stream */
	grow_on(fork);
	struct store *ec = sealed(c, &me), *ed = sealed(d, &me);
	ec->settle_us = ed->settle_us = 1;
	send_all(fork_root, ec);
	assert_refused(keyless(c), b, "encrypted with other keys");
	/* To a place that has keys of its own, by who has both; and what is plain is sealed there. */
	struct store *plain = new_memory(), *e = new_memory(), *ee = sealed(e, &me);
	ee->settle_us = 1;
	synth_must(store_put_bytes(ee, "manual/some.db", "x", 1, 0, &err), &err, "put");
	assert_refused(keyless(a), e, "encrypted with other keys");
	synth_must(copy_over(sealed(a, &me), sealed(e, &me), &res, &err), &err, "seal anew");
	check_same(s, ea, ee);
	send_all(root, plain);
	struct store *to = sealed(d, &me);
	to->settle_us = 1;
	synth_must(copy_over(borrow(plain), to, &res, &err), &err, "copy, sealing");
	check_same(s, plain, ed);
	assert_refused(borrow(plain), b, "is encrypted");
	struct store *const all[] = {ea, eb, ec, ed, ee, plain, a, b, c, d, e};
	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
		store_free(all[i]);
	key_identity_release(&me);
	unlink(file);
	rmdir(dir);
	synth_free(s);
	synth_free(fork);
	test_remove(root);
	test_remove(fork_root);
}

/* ---- damage ---- */

/* Every byte of an object that is damaged keeps it from being copied, and is told of. */
static void test_damage(void **state)
{
	cleanup_free char *root = test_folder();
	struct synth *s = make(root, 7);
	struct store *from = new_memory();
	cleanup_buf struct buf whole = BUF_INIT(1u << 30);
	char key[STORE_KEY_MAX] = "";
	struct copy_result res;
	struct err err = ERR_INIT;

	synth_random_history(s, 30);
	send_all(root, from);
	synth_must(store_list(from, "local/", NULL, true, is_object, key, &err), &err, "list");
	synth_must(store_get(from, key, whole.max_bytes, &whole, &err), &err, key);
	for (size_t at = 0; at < whole.len; at += 1 + whole.len / 40) {
		struct store *to = new_memory();
		whole.data[at] ^= 0x10;
		synth_must(store_put_bytes(from, key, whole.data, whole.len, 0, &err), &err, key);
		whole.data[at] ^= 0x10;
		err = (struct err)ERR_INIT;
		assert_int_equal(copy_over(borrow(from), borrow(to), &res, &err), -ERR_DAMAGED);
		assert_int_equal(res.damaged, 1);
		assert_non_null(strstr(err.msg, strrchr(key, '/') + 1));
		synth_must(store_put_bytes(from, key, whole.data, whole.len, 0, &err), &err, key);
		must_copy(from, to, &res);
		check_same(s, from, to);
		store_free(to);
	}
	store_free(from);
	synth_free(s);
	test_remove(root);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_any_history), cmocka_unit_test(test_failing),
	        cmocka_unit_test(test_thinned),     cmocka_unit_test(test_thinned_failing),
	        cmocka_unit_test(test_marks),       cmocka_unit_test(test_refused),
	        cmocka_unit_test(test_sealed),      cmocka_unit_test(test_damage),
	};
	log_set_level(LOG_ERROR);
	log_set_fd(-1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
