/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/world.h"

#include "engine/ship/ship.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

void world_ship(struct world *w)
{
	struct shipper *sh = open_shipper(w->s->root, w->store, 1);
	struct err err = ERR_INIT;

	synth_must(ship_all(sh, &err), &err, "ship");
	shipper_free(sh);
	kept_grow(&w->k, w->s);
}

void world_make(struct world *w, const char *root, uint64_t seed)
{
	const struct synth_options o = {
	        .seed = seed,
	        .page_size = 512u << (seed % 3),
	        .max_pages = 40,
	        .max_frames = 6,
	        .level = 1,
	        .torn_batches = seed % 2,
	        .max_step_us = US_PER_SECOND << (seed % 17),
	};
	struct err err = ERR_INIT;

	memset(w, 0, sizeof(*w));
	w->s = synth_new(root, "x.db", &o);
	synth_must(store_open_memory(&w->store, &err), &err, "store");
	synth_random_commit(w->s);
	synth_publish(w->s);
	synth_snapshot(w->s, 1, 1);
	world_ship(w);
}

void world_free(struct world *w)
{
	store_free(w->store);
	synth_free(w->s);
	kept_release(&w->k);
}

void world_go_on(struct world *w, unsigned n)
{
	if (!w->retained)
		synth_random_history(w->s, n);
	for (unsigned i = 0; i < n && w->retained; i++)
		synth_random_commit(w->s);
	if (rng_chance(&w->s->rng, 60))
		synth_cut(w->s);
	synth_publish(w->s);
	world_ship(w);
	if (rng_chance(&w->s->rng, 60)) {
		thinned_upkeep(w->s, NULL);
		thinned_forget_objects(w->s);
		world_ship(w);
	}
}

void world_open_reader(struct world_reader *r, struct store *store)
{
	struct store *stores[] = {&r->b.base};
	struct err err = ERR_INIT;

	r->b = break_after(store, -1, false);
	r->b.base.ops = &borrowed_ops;
	synth_must(archive_open_stores(stores, 1, NULL, &r->a, &err), &err, "open");
	synth_must(history_get(r->a, "x.db", &r->h, &err), &err, "history_get");
}

void world_close_reader(struct world_reader *r)
{
	history_put(r->h);
	archive_free(r->a);
}

void world_compare(struct world *w, struct history *h, const bool *kept, bool gone)
{
	for (uint64_t t = 1; t <= w->k.n; t++) {
		struct err err = ERR_INIT;
		bool got = synth_compare(w->s, h, t, &err);
		if (kept[t - 1] && !got)
			synth_die("transaction %" PRIu64 " is lost: %s (%s)", t, err.msg,
			          err_kind_name(err.kind));
		if (!got && err.kind != ERR_GAP && err.kind != ERR_NOT_FOUND)
			synth_die("transaction %" PRIu64 ": %s (%s)", t, err.msg,
			          err_kind_name(err.kind));
		if (gone && got && !kept[t - 1])
			synth_die("transaction %" PRIu64 " can be had", t);
	}
}

static int show_entry(void *ctx, const struct store_entry *e, struct err *err)
{
	fprintf(stderr, "  %s %llu\n", e->key, (unsigned long long)e->bytes);
	return 0;
}
static void show(struct store *store)
{
	if (getenv("ASOF_TEST_LOG"))
		(void)!store_list(store, "", NULL, true, show_entry, NULL, NULL);
}

void world_compare_now(struct world *w, struct store *store, const bool *kept, bool gone)
{
	struct world_reader r;

	world_open_reader(&r, store);
	show(store);
	world_compare(w, r.h, kept, gone);
	world_close_reader(&r);
}

int world_retain_at(const char *root, struct store *store, const struct retain_policy *policy,
                    int64_t now, bool dry, struct retain_result *res, struct err *err)
{
	const struct ship_options o = {
	        .archive = root, .name = "x.db", .url = URL, .store = store, .grace_us = 1};

	return ship_retain(&o, policy, now, dry, thinned_log(), res, err);
}

void world_forget(const char *root)
{
	char command[1200];

	snprintf(command, sizeof(command),
	         "rm -rf '%s'/local/x.db/retained-* '%s'/local/x.db/thinning", root, root);
	assert_int_equal(system(command), 0);
}

void world_pass(struct world *w, const struct retain_policy *policy, int64_t now)
{
	struct retain_result res;
	struct err err = ERR_INIT;

	w->retained = true;
	synth_must(world_retain_at(w->s->root, w->store, policy, now, false, &res, &err), &err,
	           "retain");
	if (res.fine_txid == 0)
		res.fine_txid = w->k.fine; /* nothing was due: then nothing is to change */
	assert_true(res.fine_txid >= w->k.fine && res.fine_txid <= kept_limit(&w->k, policy, now));
	kept_pass(&w->k, policy, now, w->marks, w->n_marks, res.fine_txid);
	world_compare_now(w, w->store, w->k.alive, true);
}

void world_random_mark(struct world *w)
{
	uint64_t t = 1 + rng_below(&w->s->rng, w->k.n);
	struct err err = ERR_INIT;
	char name[40];

	snprintf(name, sizeof(name), "mark %zu", w->n_marks);
	if (w->n_marks < 8 && retain_mark(w->s->root, "x.db", name, t, &err) == 0)
		w->marks[w->n_marks++] = t;
}

static int copy_entry(void *ctx, const struct store_entry *e, struct err *err)
{
	struct store **both = ctx;
	cleanup_buf struct buf b = BUF_INIT((size_t)1 << 30);

	int rc = store_get(both[0], e->key, b.max_bytes, &b, err);
	return rc < 0 ? rc : store_put_bytes(both[1], e->key, b.data, b.len, 0, err);
}

struct store *world_clone(struct store *from)
{
	struct store *both[2] = {from, NULL};
	struct err err = ERR_INIT;

	synth_must(store_open_memory(&both[1], &err), &err, "store");
	synth_must(store_list(from, "", NULL, true, copy_entry, both, &err), &err, "clone");
	return both[1];
}

bool *world_expect(struct world *w, const struct retain_policy *policy, int64_t now)
{
	bool *after = calloc(w->k.n, sizeof(*after));
	struct retain_result res;
	struct err err = ERR_INIT;

	assert_non_null(after);
	world_forget(w->s->root);
	synth_must(world_retain_at(w->s->root, w->store, policy, now, true, &res, &err), &err,
	           "preview");
	memcpy(after, w->k.alive, w->k.n);
	struct kept then = {w->k.times, after, w->k.n, w->k.fine};
	kept_pass(&then, policy, now, w->marks, w->n_marks, res.fine_txid);
	return after;
}

void world_sent(struct world *w, const char *root, uint64_t seed)
{
	world_make(w, root, seed);
	for (unsigned i = 0; i < 4; i++)
		world_go_on(w, 12);
	synth_cut(w->s);
	thinned_upkeep(w->s, NULL);
	thinned_forget_objects(w->s);
	world_ship(w);
}

bool *world_sweep(struct world *w, const char *root, uint64_t seed,
                  const struct retain_policy *policy, int64_t *now)
{
	world_sent(w, root, seed);
	world_random_mark(w);
	if (seed % 2) { /* over what a first one left */
		world_pass(w, policy, w->k.times[w->k.n - 1]);
		world_go_on(w, 20);
	}
	*now = w->k.times[w->k.n - 1] + (w->k.times[w->k.n - 1] - w->k.times[0]) / 2 + HOUR;
	return world_expect(w, policy, *now);
}
