/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page table after a start: what it lacks is applied again from the history; when its sum is
 * not the state checksum of the newest commit, it is made anew by reading the newest view.
 */
#include "engine/base/log.h"
#include "engine/daemon/recorder_i.h"

#include <inttypes.h>

/* Under table_lock. */
static int set_grown(struct recorder *r, uint32_t pgno, struct hash128 h, struct err *err)
{
	int rc = page_table_reserve(r->table, pgno, err);
	if (rc == 0)
		page_table_set(r->table, pgno, h);
	return rc;
}

struct redo {
	struct recorder *r;
	uint32_t n_pages; /* highest page that may be set */
};

static int redo_frame(void *ctx, const struct replay_frame *f, struct err *err)
{
	struct redo *d = ctx;
	LOCK_SCOPE(&d->r->table_lock);

	if (f->page_size != d->r->page_size)
		return err_set(err, ERR_GAP, 0, "the page size changed");
	if (f->pgno > d->n_pages)
		d->n_pages = f->pgno;
	int rc = set_grown(d->r, f->pgno, page_hash(f->pgno, f->page, f->page_size), err);
	if (rc < 0 || !f->commit)
		return rc;
	for (uint32_t p = f->commit->n_pages + 1; p != 0 && p <= d->n_pages; p++)
		page_table_set(d->r->table, p, (struct hash128){0, 0});
	d->n_pages = f->commit->n_pages;
	return 0;
}

int table_rebuild(struct recorder *r, struct err *err)
{
	cleanup_view struct view *v = NULL;
	cleanup_free uint8_t *page = malloc(r->page_size);
	struct moment m;

	if (!page)
		return err_set(err, ERR_NOMEM, 0, "no memory for a page");
	int rc = recorder_open_archive(r, err);
	if (rc == 0)
		rc = history_latest(r->history, &m, err);
	if (rc == 0 && m.page_size != r->page_size)
		rc = err_set(err, ERR_GAP, 0, "the page size changed");
	if (rc == 0)
		rc = view_open(r->history, m.txid, &v, err);
	if (rc == 0) {
		LOCK_SCOPE(&r->table_lock);
		rc = page_table_reset(r->table, err);
	}
	for (uint32_t p = 1; rc == 0 && p <= m.n_pages; p++) {
		if (p == lock_page(r->page_size))
			continue;
		rc = view_page(v, p, page, err);
		LOCK_SCOPE(&r->table_lock);
		if (rc == 0)
			rc = set_grown(r, p, page_hash(p, page, r->page_size), err);
	}
	struct redo d = {r, rc == 0 ? m.n_pages : 0};
	if (rc == 0)
		rc = history_replay(r->history, m.txid, r->last.txid, redo_frame, &d, err);
	if (rc == 0)
		r->table_valid = true;
	return rc;
}

/* What is counted from cannot be had: what comes before the break would get wrong sums. */
static void begin_anew(struct recorder *r, const char *reason)
{
	r->discarding = true;
	capture_request_break(r->capture, reason);
}

/* It cannot be had from the history, however often that is tried. */
static bool is_lost(const struct err *why)
{
	return why->kind == ERR_DAMAGED || why->kind == ERR_NOT_FOUND || why->kind == ERR_GAP ||
	       why->kind == ERR_VERSION;
}

/*
 * The commits that a first snapshot covers carry no state of their own.  When the last of them is
 * the newest of all, what comes next is counted from the sum of the table, which was just made from
 * that very image.
 */
static void recover_state(struct recorder *r)
{
	bool known = !(r->last.flags & COMMIT_NO_STATE) && !hash128_zero(r->last.state);

	if (!known && r->table_valid)
		r->last.state = r->durable.state = page_table_sum(r->table, r->last.n_pages);
	else if (!known)
		begin_anew(r, "the newest state is not known");
	r->state = r->last.state;
}

/* A try before may have failed behind that. */
static int table_open_anew(struct recorder *r, uint64_t *ret_synced, struct err *err)
{
	LOCK_SCOPE(&r->table_lock);

	page_table_free(take_ptr(r->table));
	return page_table_open(r->dir_fd, r->page_size, &r->table, ret_synced, err);
}

int table_recover(struct recorder *r, struct err *err)
{
	uint64_t synced;
	struct err why = ERR_INIT;

	if (r->page_size == 0)
		return 0; /* nothing captured yet: the first break opens it */
	int rc = table_open_anew(r, &synced, err);
	if (rc < 0)
		return rc;
	if (synced > 0 && synced <= r->last.txid) {
		/* Sizes before are not known here: a page behind the end is cut by the sum's test. */
		struct redo d = {r, 0};
		struct commit at;
		bool behind = synced < r->last.txid;
		if (behind)
			rc = recorder_open_archive(r, &why);
		if (rc == 0 && behind && history_commit(r->history, synced, &at, &why) == 0)
			d.n_pages = at.n_pages;
		/* Without a sum to compare with, pieces of a commit that never ended could stand in it
		 * unnoticed, and pages that differ would be taken for recorded ones. */
		if (rc == 0 &&
		    (!behind ||
		     history_replay(r->history, synced, r->last.txid, redo_frame, &d, &why) == 0) &&
		    !(r->last.flags & COMMIT_NO_STATE) &&
		    hash128_equal(page_table_sum(r->table, r->last.n_pages), r->last.state))
			r->table_valid = true;
	}
	if (!r->table_valid) {
		log_info("recorder", "page table is made anew db=%s", r->name);
		why = (struct err)ERR_INIT;
		rc = table_rebuild(r, &why);
		if (rc < 0 && !is_lost(&why))
			return err_copy(err, &why);
		if (rc < 0)
			log_info("recorder", "page table not made anew db=%s: %s", r->name,
			         why.msg);
		else if (!(r->last.flags & COMMIT_NO_STATE) &&
		         !hash128_equal(page_table_sum(r->table, r->last.n_pages), r->last.state)) {
			log_error("recorder",
			          "the newest state in the archive is not what was recorded db=%s "
			          "txid=%" PRIu64 ": a full copy will be taken",
			          r->name, r->last.txid);
			r->table_valid = false;
		}
		if (!r->table_valid && r->settled)
			begin_anew(r, "the archive's newest state is damaged");
	}
	page_table_truncate(r->table, r->last.n_pages);
	if (r->settled && !r->discarding)
		recover_state(r);
	return 0;
}

int table_sync(struct recorder *r, uint64_t txid, struct err *err)
{
	LOCK_SCOPE(&r->table_lock);
	return r->table && r->table_valid ? page_table_sync(r->table, txid, err) : 0;
}
