/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/compact/make.h"

#include "engine/archive/sealed.h"
#include "engine/archive/snapshot.h"
#include "engine/base/bitset.h"
#include "engine/sqlite/format.h"
#include "engine/view/span.h"

#include <inttypes.h>
#include <sys/random.h>

static int stopped(const struct make_options *o, struct err *err)
{
	return o->stop && *o->stop ? err_set(err, ERR_CANCELLED, 0, "stopped") : 0;
}

/* ---- coalescing: the newest page of each ---- */

/* A commit needs a page: where all that were touched are cut off again, page 1 goes along. */
static int put_page_one(const struct make_options *o, const struct moment *m, uint8_t *page,
                        struct sealed_writer *w, struct err *err)
{
	cleanup_view struct view *v = NULL;

	int rc = view_open(o->history, m->txid, &v, err);
	if (rc == 0)
		rc = view_page(v, 1, page, err);
	return rc < 0 ? rc : sealed_frame(w, 1, m->n_pages, page, err);
}

static int put_pages(const struct make_options *o, struct view *span, const struct bitset *pages,
                     struct sealed_writer *w, struct err *err)
{
	const struct moment *m = view_moment(span);
	cleanup_free uint8_t *page = malloc(m->page_size);
	uint32_t last = 0;
	int rc = 0;

	if (!page)
		return err_set(err, ERR_NOMEM, 0, "no memory for a page");
	for (uint32_t p = m->n_pages; p > 0 && last == 0; p--)
		if (bitset_has(pages, p))
			last = p;
	if (last == 0)
		return put_page_one(o, m, page, w, err);
	for (uint32_t p = 1; p <= last && rc == 0; p++) {
		if (!bitset_has(pages, p))
			continue;
		rc = view_page(span, p, page, err);
		if (rc == 0)
			rc = sealed_frame(w, p, p == last ? m->n_pages : 0, page, err);
		if (rc == 0)
			rc = stopped(o, err);
	}
	return rc;
}

/* Commit `txid` as a segment describes it; where that is gone, as the history knows it. */
static int describe(const struct make_options *o, const struct moment *m, struct commit *ret,
                    struct err *err)
{
	struct err why = ERR_INIT;

	if (history_commit(o->history, m->txid, ret, &why) == 0)
		return 0;
	if (why.kind != ERR_NOT_FOUND)
		return err_copy(err, &why);
	*ret = (struct commit){
	        .txid = m->txid,
	        .time_us = m->time_us,
	        .not_before_us = m->not_before_us,
	        .n_pages = m->n_pages,
	        .flags = (m->flags & MOMENT_HEALED ? COMMIT_HEAL : 0u) |
	                 (hash128_zero(m->state) ? COMMIT_NO_STATE : 0u),
	        .state = m->state,
	};
	return 0;
}

static int write_coalesced(const struct make_options *o, struct view *span,
                           const struct sealed_options *so, const struct bitset *pages,
                           struct object_name *ret_name, uint64_t *ret_bytes, struct err *err)
{
	cleanup_sealed_writer struct sealed_writer *w = NULL;
	struct commit last;

	int rc = describe(o, view_moment(span), &last, err);
	if (rc == 0)
		rc = sealed_create(o->dir_fd, so, &w, err);
	if (rc == 0)
		rc = put_pages(o, span, pages, w, err);
	if (rc == 0)
		rc = sealed_commit(w, &last, err);
	return rc < 0 ? rc : sealed_finish(w, ret_name, ret_bytes, err);
}

int make_coalesced(const struct make_options *o, uint64_t after_txid, uint64_t until_txid,
                   int64_t first_us, bool exact, struct object_name *ret_name, uint64_t *ret_bytes,
                   struct err *err)
{
	cleanup_view struct view *span = NULL;
	struct bitset pages = {0};
	uint32_t salts[2];
	struct sealed_options so = {
	        .kind = SEALED_COALESCED,
	        .first_txid = after_txid + 1,
	        .first_us = first_us,
	        .level = o->level,
	};

	if (getrandom(salts, sizeof(salts), 0) != (ssize_t)sizeof(salts))
		return err_set(err, ERR_IO, errno, "get random bytes");
	so.salt1 = salts[0];
	so.salt2 = salts[1];
	int rc = span_open(o->history, after_txid, until_txid, exact, &span, err);
	if (rc == 0)
		rc = span_pages(span, &pages, &so.min_pages, err);
	if (rc == 0) {
		so.page_size = view_moment(span)->page_size;
		so.lineage = view_moment(span)->lineage;
		if (so.first_us > view_moment(span)->time_us)
			so.first_us = view_moment(span)->time_us;
		rc = write_coalesced(o, span, &so, &pages, ret_name, ret_bytes, err);
	}
	bitset_release(&pages);
	return rc;
}

/* ---- a new base ---- */

static int write_base(const struct make_options *o, struct view *v, struct snapshot_writer *w,
                      struct hash128 *ret_state, struct err *err)
{
	const struct moment *m = view_moment(v);
	cleanup_free uint8_t *page = malloc(m->page_size);
	int rc = 0;

	if (!page)
		return err_set(err, ERR_NOMEM, 0, "no memory for a page");
	for (uint32_t p = 1; p <= m->n_pages && rc == 0; p++) {
		rc = view_page(v, p, page, err);
		if (rc == 0 && p != lock_page(m->page_size))
			state_add(ret_state, page_hash(p, page, m->page_size));
		if (rc == 0)
			rc = snapshot_append(w, page, m->page_size, err);
		if (rc == 0)
			rc = stopped(o, err);
	}
	return rc;
}

int make_base(const struct make_options *o, uint64_t txid, uint64_t *ret_bytes, struct err *err)
{
	cleanup_snapshot_writer struct snapshot_writer *w = NULL;
	cleanup_view struct view *v = NULL;
	struct hash128 state = {0, 0};

	int rc = view_open(o->history, txid, &v, err);
	if (rc < 0)
		return rc;
	const struct moment *m = view_moment(v);
	rc = snapshot_create(o->dir_fd, "base.tmp", m->page_size, o->level, &w, err);
	if (rc == 0)
		rc = write_base(o, v, w, &state, err);
	if (rc == 0 && !hash128_zero(m->state) && !hash128_equal(m->state, state))
		rc = err_set(err, ERR_DAMAGED, 0,
		             "the image of '%s' at transaction %" PRIu64
		             " does not match its state checksum",
		             history_name(o->history), m->txid);
	struct snapshot_info info = {m->page_size, m->lineage, m->n_pages,       m->txid,
	                             m->txid,      m->time_us, m->not_before_us, state};
	return rc < 0 ? rc : snapshot_finish(w, &info, ret_bytes, err);
}
