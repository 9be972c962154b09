/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state checksum of an image, from bytes read.
 *
 * Since another moment: the state is a sum over pages.  That of the earlier moment was verified;
 * the hashes of its pages that changed are taken off, those of the later one added.  A page that
 * did not change counts at its place in both.  So what is computed is the sum over exactly the
 * later image's pages, each of which was read: now, or when the earlier moment was verified.
 */
#include "engine/verify/verify_i.h"

#include "engine/base/clock.h"
#include "engine/sqlite/format.h"
#include "engine/view/span.h"

#include <inttypes.h>

struct bitset_guard {
	struct bitset set;
};

static void release_guard(struct bitset_guard *g)
{
	bitset_release(&g->set);
}

/* An error of reading: damage goes into the report and ends only this check. */
static int taken_down(struct run *r, int rc, const struct err *why, bool *ret_ok, struct err *err)
{
	if (err_kind_of(rc) != ERR_DAMAGED)
		return err_copy(err, why);
	*ret_ok = false;
	for (size_t i = 0; i < r->report->n_damages; i++) {
		const char *file = strchr(r->report->damages[i].object, '/');
		if (file && strstr(why->msg, file + 1))
			return 0; /* known already */
	}
	struct object_check check = {0};
	const struct history_object *o = NULL;
	for (size_t i = 0; i < r->n_objects && !o; i++)
		if (strstr(why->msg, r->objects[i].file))
			o = &r->objects[i];
	if (o) {
		rc = history_check_object(r->h, o, NULL, NULL, &check, err);
		if (rc < 0 && err_kind_of(rc) != ERR_NOT_FOUND)
			return rc;
	}
	if (!check.first.kind)
		check.first = *why;
	return report_damage(r, o, &check, err);
}

static int differs(struct run *r, const struct moment *m, bool *ret_ok, struct err *err)
{
	struct object_check check = {.whole = true};

	*ret_ok = false;
	err_set(&check.first, ERR_DAMAGED, 0,
	        "the image of '%s' at txid %" PRIu64
	        " is not what was committed: its state checksum differs",
	        history_name(r->h), m->txid);
	return report_damage(r, NULL, &check, err);
}

static void verified(struct run *r, const struct moment *m, bool full)
{
	struct verified_note *n = &r->note;

	if (m->txid < n->through_txid)
		return; /* a sample */
	n->through_txid = m->txid;
	n->through_us = m->time_us;
	n->at_us = clock_now_us();
	if (full) {
		n->full_txid = m->txid;
		n->full_at_us = n->at_us;
	}
}

static int judge(struct run *r, const struct moment *m, struct hash128 sum, bool full, bool *ret_ok,
                 struct err *err)
{
	if (!hash128_zero(m->state) && !hash128_equal(m->state, sum))
		return differs(r, m, ret_ok, err);
	*ret_ok = true;
	r->report->n_moments++;
	if (!hash128_zero(m->state))
		verified(r, m, full);
	return 0;
}

int verify_state_full(struct run *r, const struct moment *m, bool resumable, bool *ret_ok,
                      struct err *err)
{
	cleanup_view struct view *v = NULL;
	cleanup_free uint8_t *page = malloc(m->page_size);
	struct verified_note *n = &r->note;
	struct hash128 sum = {0, 0};
	uint32_t p = 1;
	struct err why = ERR_INIT;

	if (!page)
		return err_set(err, ERR_NOMEM, 0, "no memory for a page");
	if (resumable && n->pass_txid == m->txid && n->pass_page <= m->n_pages) {
		p = n->pass_page + 1;
		sum = n->pass_sum;
	}
	int rc = view_open(r->h, m->txid, &v, &why);
	for (; rc == 0 && p <= m->n_pages; p++) {
		if (p != lock_page(m->page_size)) {
			rc = view_page(v, p, page, &why);
			if (rc == 0)
				state_add(&sum, page_hash(p, page, m->page_size));
		}
		if (rc == 0 && p % 64 == 0) {
			if (resumable) {
				n->pass_txid = m->txid;
				n->pass_page = p;
				n->pass_sum = sum;
			}
			rc = run_tick(r, (uint64_t)64 * m->page_size, &why);
			rc = rc ? rc : run_keep(r, false, &why);
		}
	}
	return rc < 0 ? taken_down(r, rc, &why, ret_ok, err)
	              : judge(r, m, sum, resumable, ret_ok, err);
}

struct delta {
	struct view *old, *new;
	uint32_t page_size, n_old, n_new;
	struct hash128 sum;
	uint8_t *page;
};

static int exchange(struct delta *d, uint32_t p, struct err *err)
{
	int rc = 0;

	if (p == lock_page(d->page_size))
		return 0;
	if (p <= d->n_old) {
		rc = view_page(d->old, p, d->page, err);
		if (rc == 0)
			state_sub(&d->sum, page_hash(p, d->page, d->page_size));
	}
	if (rc == 0 && p <= d->n_new) {
		rc = view_page(d->new, p, d->page, err);
		if (rc == 0)
			state_add(&d->sum, page_hash(p, d->page, d->page_size));
	}
	return rc;
}

static int exchange_all(struct run *r, struct delta *d, const struct bitset *changed,
                        struct err *err)
{
	uint32_t common = d->n_old < d->n_new ? d->n_old : d->n_new;
	uint32_t end = d->n_old < d->n_new ? d->n_new : d->n_old;
	uint64_t bytes = 0;

	for (uint64_t p = 1; p <= end; p++) {
		if (p <= common && !bitset_has(changed, p))
			continue;
		int rc = exchange(d, (uint32_t)p, err);
		bytes += 2 * d->page_size;
		if (rc == 0 && bytes >= 1u << 20) {
			rc = run_tick(r, bytes, err);
			bytes = 0;
		}
		if (rc < 0)
			return rc;
	}
	return run_tick(r, bytes, err);
}

static uint64_t count(const struct bitset *b)
{
	uint64_t n = 0;

	for (size_t i = 0; i < b->used; i++)
		n += (uint64_t)__builtin_popcountll(b->words[i]);
	return n;
}

/* Whether `m` can be told from the last verified moment; fills `changed`. */
static bool worth_it(struct run *r, const struct moment *old, const struct moment *m,
                     struct bitset *changed)
{
	cleanup_view struct view *span = NULL;
	struct err why = ERR_INIT;
	uint32_t min;

	if (old->txid >= m->txid || old->page_size != m->page_size || old->lineage != m->lineage ||
	    hash128_zero(old->state) || hash128_zero(m->state))
		return false;
	if (span_open(r->h, old->txid, m->txid, false, &span, &why) < 0 ||
	    span_pages(span, changed, &min, &why) < 0)
		return false;
	/* Cut off in between, and written anew: those pages are in the set, too, but for zeros. */
	for (uint64_t p = (uint64_t)min + 1; p <= m->n_pages; p++)
		if (bitset_add(changed, p, &why) < 0)
			return false;
	return count(changed) * 2 < m->n_pages;
}

int verify_state_since(struct run *r, const struct moment *m, bool *ret_ok, struct err *err)
{
	CLEANUP(release_guard) struct bitset_guard changed = {{0}};
	cleanup_view struct view *old_view = NULL, *new_view = NULL;
	cleanup_free uint8_t *page = malloc(m->page_size);
	struct moment old;
	struct err why = ERR_INIT;

	if (!page)
		return err_set(err, ERR_NOMEM, 0, "no memory for a page");
	if (!r->note.through_txid || history_tx(r->h, r->note.through_txid, &old, &why) < 0)
		return verify_state_full(r, m, false, ret_ok, err);
	if (old.txid == m->txid && hash128_equal(old.state, m->state)) {
		*ret_ok = true; /* nothing came since */
		return 0;
	}
	if (!worth_it(r, &old, m, &changed.set) || view_open(r->h, old.txid, &old_view, &why) < 0)
		return verify_state_full(r, m, false, ret_ok, err);
	why = (struct err)ERR_INIT;
	struct delta d = {.old = old_view,
	                  .page_size = m->page_size,
	                  .n_old = old.n_pages,
	                  .n_new = m->n_pages,
	                  .sum = old.state,
	                  .page = page};
	int rc = view_open(r->h, m->txid, &new_view, &why);
	d.new = new_view;
	rc = rc ? rc : exchange_all(r, &d, &changed.set, &why);
	return rc < 0 ? taken_down(r, rc, &why, ret_ok, err)
	              : judge(r, m, d.sum, false, ret_ok, err);
}
