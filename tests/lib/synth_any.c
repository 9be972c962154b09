/* SPDX-License-Identifier: Apache-2.0 */
/* Random histories, and what readers must say of any. */
#include "tests/lib/synth.h"

#include "engine/base/clock.h"
#include "engine/base/file.h"

#include <inttypes.h>
#include <setjmp.h>

#include <cmocka.h>

/* ---- one with every kind of object ---- */

void synth_every_kind(struct synth *s, unsigned scale)
{
	for (unsigned i = 0; i < 6 * scale; i++)
		synth_random_commit(s);
	synth_cut(s);
	synth_seal(s, 1, 3 * scale, true);
	synth_seal(s, 3 * scale + 1, 6 * scale, false);
	synth_snapshot(s, 1, 1);
	synth_snapshot(s, 5, 3);
	synth_coalesce(s, 3, 5);
	for (size_t i = s->n_objects; i-- > 0;)
		if (s->objects[i].name.type == OBJECT_GROWING)
			synth_remove_object(s, i);
	for (unsigned i = 0; i < 2 * scale; i++)
		synth_random_commit(s);
	synth_gap(s, 2);
	synth_cut(s);
	for (unsigned i = 0; i < 2 * scale; i++)
		synth_random_commit(s);
	synth_publish(s);
}

/* ---- any history ---- */

/* A span of objects [*first, *last] of one lineage that are whole segments. */
static bool random_span(struct synth *s, enum object_type type, uint64_t *first, uint64_t *last)
{
	size_t at[64], n = 0;

	for (size_t i = 0; i < s->n_objects && n < 64; i++)
		if (s->objects[i].name.type == type)
			at[n++] = i;
	if (n == 0)
		return false;
	const struct object_name *a = &s->objects[at[rng_below(&s->rng, n)]].name;
	*first = a->first_txid;
	*last = a->last_txid;
	for (size_t i = 0; i < n;
	     i++) { /* and what directly follows, in any order they were made */
		const struct object_name *b = &s->objects[at[i]].name;
		if (b->first_txid == *last + 1 && b->lineage == a->lineage &&
		    rng_chance(&s->rng, 70)) {
			*last = b->last_txid;
			i = (size_t)-1;
		}
	}
	return true;
}

static void random_coalesce(struct synth *s)
{
	uint64_t n = synth_last_txid(s), a = 1 + rng_below(&s->rng, n),
	         b = a + rng_below(&s->rng, n - a + 1);

	for (uint64_t t = a; t <= b; t++)
		if (synth_state(s, t)->lineage != synth_state(s, a)->lineage ||
		    !synth_state(s, t)->in_segment)
			return;
	if (synth_state(s, b)->pages)
		synth_coalesce(s, a, b);
}

/* What follows `redo` must be frames, of one lineage. */
static void snapshot_since(struct synth *s, uint64_t t, uint64_t redo)
{
	if (!synth_state(s, t)->pages)
		return;
	for (uint64_t i = t; i > redo; i--)
		if (!synth_state(s, i)->in_segment ||
		    synth_state(s, i)->lineage != synth_state(s, t)->lineage)
			redo = i;
	synth_snapshot(s, t, redo);
}

static void random_snapshot(struct synth *s)
{
	uint64_t t = synth_last_txid(s) -
	             rng_below(&s->rng, synth_last_txid(s) < 20 ? synth_last_txid(s) : 20);

	snapshot_since(s, t, rng_chance(&s->rng, 50) ? t : t - rng_below(&s->rng, t < 10 ? t : 10));
}

/* Of the same size a lineage begins with what differs (a heal), not with pages that have nothing to do
 * with its parent's: before its first snapshot came, nothing would tell. */
static uint32_t another_page_size(struct synth *s)
{
	uint32_t size = 512u << rng_below(&s->rng, 4);

	return size != s->page_size ? size : size == 4096 ? 512 : size * 2;
}

void synth_random_history(struct synth *s, unsigned n_steps)
{
	uint64_t a, b;

	for (unsigned i = 0; i < n_steps; i++) {
		synth_random_commit(s);
		if (i ==
		    2 + s->options.seed % 3) { /* the first snapshot comes when some are gone */
			synth_publish(s);
			snapshot_since(s, synth_last_txid(s), i % 2 ? synth_last_txid(s) : 1);
		}
		uint64_t what = rng_below(&s->rng, 200);
		if (what < 16)
			synth_cut(s);
		else if (what < 24 && random_span(s, OBJECT_GROWING, &a, &b))
			synth_seal(s, a, b, rng_chance(&s->rng, 20));
		else if (what < 30 && random_span(s, OBJECT_SEALED, &a, &b))
			synth_seal(s, a, b, rng_chance(&s->rng, 30));
		else if (what < 40)
			random_coalesce(s);
		else if (what < 45)
			random_snapshot(s);
		else if (what < 48)
			synth_gap(s, (unsigned)rng_below(&s->rng, 5));
		else if (what < 50)
			synth_new_lineage(s, another_page_size(s), rng_chance(&s->rng, 50));
	}
	synth_publish(s);
}

/* ---- what readers must say ---- */

static bool has_snapshot(const struct synth *s, uint64_t from, uint64_t to)
{
	for (size_t i = 0; i < s->n_objects; i++) {
		const struct object_name *n = &s->objects[i].name;
		if (n->type == OBJECT_SNAPSHOT && n->last_txid >= from && n->last_txid <= to)
			return true;
	}
	return false;
}

bool synth_viewable(const struct synth *s, uint64_t txid)
{
	const struct synth_state *st = synth_state(s, txid);

	if (!has_snapshot(s, 1, txid))
		return false;
	return !(st->commit.flags & COMMIT_UNSETTLED) || has_snapshot(s, txid, txid);
}

enum err_kind synth_expect_at(const struct synth *s, int64_t time_us, uint64_t *ret_txid)
{
	uint64_t t = 0;

	while (t < s->n_states && s->states[t].commit.time_us <= time_us)
		t++;
	if (t == 0 || !has_snapshot(s, 1, t))
		return ERR_NOT_FOUND;
	if (!synth_viewable(s, t))
		return ERR_GAP;
	*ret_txid = t;
	const struct synth_state *m = synth_state(s, t);
	if (t == s->n_states)
		return ERR_NONE;
	const struct synth_state *next = synth_state(s, t + 1);
	int64_t unknown_from =
	        next->commit.not_before_us ? next->commit.not_before_us : m->commit.time_us;
	bool after_gap = next->commit.flags & (COMMIT_UNSETTLED | COMMIT_HEAL) || !next->in_segment;
	if (after_gap && time_us > unknown_from)
		return ERR_GAP;
	for (size_t i = 0; i < s->n_gaps; i++)
		if (time_us > s->gaps[i].before_us && time_us < s->gaps[i].after_us)
			return ERR_GAP;
	return ERR_NONE;
}

/* ---- comparing ---- */

static void compare_moment(const struct synth_state *st, const struct moment *m)
{
	const struct commit *c = &st->commit;

	if (m->txid != c->txid || m->time_us != c->time_us ||
	    m->not_before_us != c->not_before_us || m->lineage != st->lineage ||
	    m->page_size != st->page_size || m->n_pages != c->n_pages ||
	    /* 0: a snapshot told; 1: of what a snapshot alone holds, level 0 (engine/ship) did */
	    (m->n_frames != st->n_frames && m->n_frames != 0 &&
	     (st->in_segment || m->n_frames != 1)))
		synth_die("moment %" PRIu64 " tells something else (txid %" PRIu64
		          ", %u pages of %u)",
		          c->txid, m->txid, m->n_pages, m->page_size);
	if (!!(m->flags & MOMENT_HEALED) != !!(c->flags & COMMIT_HEAL))
		synth_die("moment %" PRIu64 ": healed or not", c->txid);
	if (!(c->flags & COMMIT_NO_STATE) && !hash128_equal(m->state, c->state))
		synth_die("moment %" PRIu64 ": another state checksum", c->txid);
}

bool synth_compare(const struct synth *s, struct history *h, uint64_t txid, struct err *err)
{
	const struct synth_state *st = synth_state(s, txid);
	cleanup_view struct view *v = NULL;
	uint32_t n = st->commit.n_pages;
	cleanup_free uint8_t *page = calloc(1, st->page_size), *zeros = calloc(1, st->page_size);

	if (view_open(h, txid, &v, err) < 0)
		return false;
	compare_moment(st, view_moment(v));
	if (view_size(v) != (uint64_t)n * st->page_size)
		synth_die("view %" PRIu64 " has a wrong size", txid);
	if (!st->pages)
		synth_die("view %" PRIu64 " opened though it is not settled", txid);
	for (uint32_t p = 1; p <= n; p++) {
		if (view_page(v, p, page, err) < 0)
			return false;
		const uint8_t *want = st->pages[p - 1] ? st->pages[p - 1]->data : zeros;
		if (memcmp(page, want, st->page_size) != 0)
			synth_die("view %" PRIu64 " page %u: wrong bytes (%zu layers)", txid, p,
			          view_depth(v));
	}
	return true;
}

void synth_compare_all(const struct synth *s, struct history *h)
{
	for (uint64_t t = 1; t <= s->n_states; t++) {
		struct err err = ERR_INIT;
		bool want = synth_viewable(s, t);
		bool got = synth_compare(s, h, t, &err);
		if (want != got)
			synth_die("transaction %" PRIu64 " can%s be viewed: %s", t,
			          got ? "" : "not", err.msg);
		if (!got && err.kind != ERR_GAP && err.kind != ERR_NOT_FOUND)
			synth_die("transaction %" PRIu64 ": %s (%s)", t, err.msg,
			          err_kind_name(err.kind));
	}
}
