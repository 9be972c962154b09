/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Objects made anew of what the places have together.
 *
 * Each place in turn is the one that is read first, and the others, the target less what is damaged
 * there among them, stand in for what it lacks: a directory and a bucket do not cut alike what
 * is not sealed yet, so what one cannot tell the other can.
 */
#include "engine/compact/make.h"
#include "engine/archive/sealed.h"
#include "engine/repair/repair_i.h"

#include <inttypes.h>
#include <string.h>
#include <sys/random.h>

#define LEVEL 6 /* of deflate */

/* ---- a segment ---- */

struct sealing {
	struct repair *r;
	struct sealed_options o;
	struct sealed_writer *w; /* made at the first frame */
};

static int take_frame(void *ctx, const struct replay_frame *f, struct err *err)
{
	struct sealing *s = ctx;
	int rc = 0;

	if (!s->w) {
		s->o.page_size = f->page_size;
		rc = sealed_create(s->r->scratch_fd, &s->o, &s->w, err);
	}
	if (rc == 0 && f->page_size != s->o.page_size)
		rc = err_set(err, ERR_NOT_FOUND, 0, "the page size changes in between");
	if (rc == 0)
		rc = sealed_frame(s->w, f->pgno, f->commit ? f->commit->n_pages : 0, f->page, err);
	if (rc == 0 && f->commit)
		rc = sealed_commit(s->w, f->commit, err);
	return rc ? rc : repair_stopped(s->r, err);
}

static int seal(struct repair *r, struct history *h, uint32_t lineage, uint64_t first,
                uint64_t last, struct object_name *ret, struct err *err)
{
	struct sealing s = {.r = r,
	                    .o = {.kind = SEALED_SEGMENT,
	                          .lineage = lineage,
	                          .first_txid = first,
	                          .level = LEVEL}};
	uint32_t salts[2];
	uint64_t bytes;

	if (getrandom(salts, sizeof(salts), 0) != (ssize_t)sizeof(salts))
		return err_set(err, ERR_IO, errno, "get random bytes");
	s.o.salt1 = salts[0];
	s.o.salt2 = salts[1];
	int rc = history_replay(h, first - 1, last, take_frame, &s, err);
	if (rc == 0 && !s.w)
		rc = err_set(err, ERR_NOT_FOUND, 0, "no frames of transaction %" PRIu64, first);
	rc = rc ? rc : sealed_finish(s.w, ret, &bytes, err);
	sealed_writer_free(s.w);
	if (rc == 0 && (ret->last_txid != last || ret->first_txid != first))
		rc = err_set(err, ERR_NOT_FOUND, 0, "transaction %" PRIu64 " is nowhere", last);
	return rc;
}

/* The lineage of a transaction as the names at a place tell, and where the next one begins. */
static uint32_t lineage_at(const struct site *s, uint64_t txid, uint64_t *ret_end)
{
	const struct item *best = NULL;
	uint64_t end = UINT64_MAX;

	for (size_t i = 0; i < s->items.n; i++) {
		const struct item *o = &s->items.v[i];
		uint64_t at = o->kind == ITEM_SNAPSHOT ? o->name.last_txid : o->name.first_txid;
		if ((o->kind == ITEM_GROWING || o->kind == ITEM_SEALED ||
		     o->kind == ITEM_SNAPSHOT) &&
		    at <= txid && (!best || o->name.lineage > best->name.lineage))
			best = o;
	}
	for (size_t i = 0; best && i < s->items.n; i++) {
		const struct item *o = &s->items.v[i];
		uint64_t at = o->kind == ITEM_SNAPSHOT ? o->name.last_txid : o->name.first_txid;
		if ((o->kind == ITEM_GROWING || o->kind == ITEM_SEALED ||
		     o->kind == ITEM_SNAPSHOT) &&
		    o->name.lineage > best->name.lineage && at > txid && at - 1 < end)
			end = at - 1;
	}
	*ret_end = end;
	return best ? best->name.lineage : 0;
}

/* A state found idle is in no segment. */
static uint64_t idle_before(const struct repair *r, uint64_t after, uint64_t last)
{
	uint64_t found = last + 1;

	for (size_t k = 0; k <= r->n_others; k++) {
		const struct site *s = k ? &r->others[k - 1] : &r->target;
		for (size_t i = 0; i < s->items.n; i++) {
			const struct item *o = &s->items.v[i];
			if (o->kind == ITEM_SNAPSHOT && o->name.last_txid > after &&
			    o->name.last_txid < found)
				found = o->name.last_txid;
		}
	}
	return found - 1;
}

static int segment_from(struct repair *r, struct site *s, uint64_t first, uint64_t last,
                        uint32_t lineage, struct object_name *ret, struct err *err)
{
	struct history *h;
	uint64_t end;
	bool agrees = false;

	uint32_t found = lineage_at(s, first, &end);
	if (!found || (lineage && found != lineage) || (lineage && end < last))
		return err_set(err, ERR_NOT_FOUND, 0, "not of that lineage");
	if (s != &r->target && last > s->shared_txid) {
		if (lineage || first > s->shared_txid)
			return err_set(err, ERR_NOT_FOUND, 0,
			               s->parted ? "its history went another way"
			                         : "nothing proves that its history is the same");
		last = s->shared_txid;
	}
	int rc = s == &r->target ? 0 : site_agrees(r, s, found, &agrees, err);
	if (rc == 0 && s != &r->target && !agrees)
		rc = err_set(err, ERR_NOT_FOUND, 0, "another lineage of that number");
	rc = rc ? rc : put_scratch(r, err);
	rc = rc ? rc : site_history(r, s, &h, err);
	if (rc < 0)
		return rc;
	if (end > last)
		end = last;
	struct history_status st;
	if (!lineage && history_get_status(h, &st, err) == 0 && st.last_txid >= first &&
	    st.last_txid < end)
		end = st.last_txid;
	rc = seal(r, h, found, first, end, ret, err);
	uint64_t idle = rc < 0 && !lineage ? idle_before(r, first, end) : end;
	struct err why = ERR_INIT;
	if (rc < 0 && idle < end && seal(r, h, found, first, idle, ret, &why) == 0)
		rc = 0;
	return rc;
}

static struct site *nth(struct repair *r, size_t i)
{
	return i < r->n_others ? &r->others[i] : &r->target;
}

static int segment_of(struct repair *r, uint64_t first, uint64_t last, uint32_t lineage,
                      struct object_name *ret, const char **ret_from, struct err *err)
{
	for (size_t i = 0; i <= r->n_others; i++) {
		struct site *s = nth(r, i);
		struct err why = ERR_INIT;
		if (!s->same)
			continue;
		int rc = segment_from(r, s, first, last, lineage, ret, &why);
		if (rc == 0) {
			*ret_from = s->at.label;
			return 0;
		}
		if (repair_ends(rc, &why))
			return err_copy(err, &why);
	}
	return err_set(err, ERR_NOT_FOUND, 0, "no place has what it held");
}

int make_segment(struct repair *r, uint64_t first, uint64_t last, struct object_name *ret,
                 const char **ret_from, struct err *err)
{
	return segment_of(r, first, last, 0, ret, ret_from, err);
}

/* ---- a state found idle ---- */

/* As ship/level0.c has it: a commit of page 1 that is no whole state by itself. */
static int seal_idle(struct repair *r, struct history *h, uint64_t txid, uint32_t lineage,
                     struct object_name *ret, struct err *err)
{
	struct sealing s = {.r = r,
	                    .o = {.kind = SEALED_SEGMENT,
	                          .lineage = lineage,
	                          .first_txid = txid,
	                          .level = LEVEL}};
	cleanup_view struct view *v = NULL;
	uint64_t bytes;

	int rc = view_open(h, txid, &v, err);
	if (rc < 0)
		return rc;
	const struct moment *m = view_moment(v);
	if (m->lineage != lineage)
		return err_set(err, ERR_NOT_FOUND, 0, "it is of another lineage");
	cleanup_free uint8_t *page = malloc(m->page_size);
	const struct commit c = {.txid = txid,
	                         .time_us = m->time_us,
	                         .n_pages = m->n_pages,
	                         .not_before_us = m->not_before_us,
	                         .state = m->state,
	                         .flags = COMMIT_UNSETTLED};
	const struct replay_frame f = {1, m->page_size, page, &c};
	rc = page ? view_page(v, 1, page, err) : err_set(err, ERR_NOMEM, 0, "no memory");
	rc = rc ? rc : take_frame(&s, &f, err);
	rc = rc ? rc : sealed_finish(s.w, ret, &bytes, err);
	sealed_writer_free(s.w);
	return rc;
}

int make_idle(struct repair *r, const struct item *item, struct object_name *ret,
              const char **ret_from, struct err *err)
{
	int rc = put_scratch(r, err);

	for (size_t i = 0; rc == 0 && i <= r->n_others; i++) {
		struct site *s = nth(r, i);
		struct history *h;
		struct err why = ERR_INIT;
		if (!s->same || !fork_none(r, s) || site_history(r, s, &h, &why) < 0)
			continue;
		if (seal_idle(r, h, item->name.first_txid, item->name.lineage, ret, &why) == 0) {
			*ret_from = s->at.label;
			return 0;
		}
	}
	return rc ? rc : err_set(err, ERR_NOT_FOUND, 0, "no place has what it held");
}

/* ---- the others ---- */

static int make_from(struct repair *r, struct site *s, const struct item *item,
                     struct object_name *ret, struct err *err)
{
	const struct object_name *n = &item->name;
	struct history *h;
	uint64_t bytes;
	bool agrees = s == &r->target;

	if (!fork_none(r, s))
		return err_set(err, ERR_NOT_FOUND, 0, "its history went another way");
	int rc = agrees ? 0 : site_agrees(r, s, n->lineage, &agrees, err);
	if (rc == 0 && !agrees)
		rc = err_set(err, ERR_NOT_FOUND, 0, "another lineage of that number");
	rc = rc ? rc : put_scratch(r, err);
	rc = rc ? rc : site_history(r, s, &h, err);
	if (rc < 0)
		return rc;
	const struct make_options o = {h, r->scratch_fd, LEVEL, r->options->stop};
	*ret = *n;
	if (item->kind == ITEM_SNAPSHOT)
		return make_base(&o, n->last_txid, &bytes, err);
	rc = make_coalesced(&o, n->first_txid - 1, n->last_txid, n->first_us, true, ret, &bytes,
	                    err);
	ret->type = OBJECT_COALESCED;
	return rc;
}

static bool same_name(const struct object_name *a, const struct object_name *b)
{
	return a->lineage == b->lineage && a->first_txid == b->first_txid &&
	       a->last_txid == b->last_txid && a->first_us == b->first_us &&
	       a->last_us == b->last_us && a->min_pages == b->min_pages;
}

static int try_make(struct repair *r, struct site *s, const struct item *item, struct err *err)
{
	cleanup_source struct source *src = NULL;
	struct object_name made;
	struct item check = *item;
	char file[OBJECT_NAME_MAX];

	int rc = item->kind == ITEM_SEALED
	                 ? segment_from(r, s, item->name.first_txid, item->name.last_txid,
	                                item->name.lineage, &made, err)
	                 : make_from(r, s, item, &made, err);
	if (rc == 0 && !same_name(&made, &item->name)) {
		object_name_format(&made, file);
		put_drop(r, file);
		rc = err_set(err, ERR_NOT_FOUND, 0, "what is made of it is another");
	}
	if (rc < 0)
		return rc;
	object_name_format(&item->name, file);
	rc = source_open_file(r->scratch_fd, file, item->file, &src, err);
	return rc ? rc : whole_check(take_ptr(src), &check, 0, true, err);
}

int make_again(struct repair *r, const struct item *item, const char **ret_from, struct err *err)
{
	/* A fuzzy one is of no single state. */
	if (item->kind == ITEM_SNAPSHOT && item->name.first_txid != item->name.last_txid + 1)
		return err_set(err, ERR_NOT_FOUND, 0, "no other place has it");
	for (size_t i = 0; i <= r->n_others; i++) {
		struct site *s = nth(r, i);
		struct err why = ERR_INIT;
		if (!s->same)
			continue;
		int rc = try_make(r, s, item, &why);
		if (rc == 0) {
			*ret_from = s->at.label;
			return 0;
		}
		if (repair_ends(rc, &why))
			return err_copy(err, &why);
	}
	return err_set(err, ERR_NOT_FOUND, 0, "no place has it whole, or what it was made of");
}
