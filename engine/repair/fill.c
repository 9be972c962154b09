/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is missing.  Of transactions names tell: from where the archive begins to its end each is in a
 * segment, or is a snapshot's.  Of bases and coalesced objects, which another place can have and this
 * one never had, only those are missing without which a moment cannot be seen.
 */
#include "engine/base/file.h"
#include "engine/base/spans.h"
#include "engine/repair/repair_i.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* How far a growing segment reaches.  One of a store ends where the next begins, unless it was found
 * to end before; the newest has to be read. */
static int extent(struct repair *r, struct item *i, uint64_t *ret, struct err *err)
{
	bool dir = r->target.at.store->dir_fd >= 0;
	uint64_t bound = target_bound(r, i);
	bool newest = true;
	struct err why;

	*ret = i->name.last_txid;
	if (*ret || i->fence)
		return 0;
	if (target_is_written(r, i)) {
		*ret = r->end_txid;
		return 0;
	}
	for (size_t k = 0; k < r->target.items.n; k++)
		newest = newest && !(is_fine(&r->target.items.v[k]) &&
		                     r->target.items.v[k].name.first_txid > i->name.first_txid);
	if (!dir && !newest) {
		if (i->bytes > 82)
			*ret = bound;
		return 0;
	}
	int rc = target_look(r, i, &why, err);
	if (rc == 0 && why.kind)
		i->bad = true;
	*ret = i->bad ? 0 : i->name.last_txid;
	return rc;
}

static int collect(struct repair *r, struct spans *s, struct err *err)
{
	int rc = 0;

	if (r->thinned.until_txid)
		rc = spans_add(s, 0, r->thinned.until_txid, err);
	for (size_t k = 0; k < r->target.items.n && rc == 0; k++) {
		struct item *i = &r->target.items.v[k];
		uint64_t last = i->name.last_txid;
		if (i->bad || (!is_fine(i) && i->kind != ITEM_SNAPSHOT))
			continue;
		if (i->kind == ITEM_GROWING)
			rc = extent(r, i, &last, err);
		uint64_t first = i->kind == ITEM_SNAPSHOT ? last : i->name.first_txid;
		/* A fuzzy one is nothing without its segments. */
		bool idle = i->kind != ITEM_SNAPSHOT || i->name.first_txid == last + 1;
		if (rc == 0 && !i->bad && last >= first && last && idle)
			rc = spans_add(s, first, last, err);
	}
	spans_sort(s);
	return rc;
}

/* ---- filling one hole ---- */

struct filling {
	struct repair *r;
	struct spans have;
	uint64_t n_failed;
};

static bool in_gap(const struct repair *r, uint64_t first, uint64_t last)
{
	for (size_t i = 0; i < r->n_gaps; i++)
		if (r->gaps[i].before_txid < first && r->gaps[i].after_txid > last)
			return true;
	return false;
}

/* A segment of another place that holds `at`, and does not reach behind the end. */
static int copy_sealed(struct repair *r, uint64_t at, uint64_t *ret_next, struct err *err)
{
	for (size_t k = 0; k < r->n_others; k++) {
		struct site *s = &r->others[k];
		for (size_t i = s->items.n; s->same && i-- > 0;) {
			const struct item *o = &s->items.v[i];
			bool did = false;
			if (o->kind != ITEM_SEALED || o->name.first_txid > at ||
			    o->name.last_txid < at || o->name.last_txid > r->end_txid ||
			    site_find(&r->target, o->file))
				continue;
			const struct item item = *o;
			int rc = objects_copy_from(r, s, &item, true, "", &did, err);
			if (rc == 0 && did)
				rc = target_add(r, &item, err);
			if (rc < 0 || did) {
				*ret_next = item.name.last_txid + 1;
				return rc;
			}
		}
	}
	*ret_next = at;
	return 0;
}

static int install(struct repair *r, const struct object_name *made, const char *from,
                   struct err *err)
{
	struct item item = {.kind = ITEM_SEALED, .name = *made};
	char name[OBJECT_NAME_MAX];

	item.name.type = OBJECT_SEALED;
	object_name_format(&item.name, name);
	snprintf(item.file, sizeof(item.file), "segment/%s", name);
	bool missing = !site_find(&r->target, item.file);
	int rc = objects_install(r, &item, missing, from, "", err);
	return rc || !missing ? rc : target_add(r, &item, err);
}

static int make_sealed(struct repair *r, uint64_t at, uint64_t last, uint64_t *ret_next,
                       struct err *err)
{
	struct object_name made;
	const char *from;
	struct err why = ERR_INIT;

	*ret_next = at;
	int rc = make_segment(r, at, last, &made, &from, &why);
	if (rc < 0)
		return repair_ends(rc, &why) ? err_copy(err, &why) : 0;
	*ret_next = made.last_txid + 1;
	return install(r, &made, from, err);
}

/* A state that was found idle: in a snapshot alone. */
static int copy_idle(struct repair *r, uint64_t at, uint64_t *ret_next, struct err *err)
{
	*ret_next = at;
	for (size_t k = 0; k < r->n_others; k++) {
		struct site *s = &r->others[k];
		for (size_t i = 0; s->same && i < s->items.n; i++) {
			const struct item item = s->items.v[i];
			bool did = false;
			if (item.kind != ITEM_SNAPSHOT || item.name.last_txid != at ||
			    item.name.first_txid != at + 1)
				continue;
			int rc = objects_copy_from(r, s, &item, true, "", &did, err);
			if (rc == 0 && did)
				rc = target_add(r, &item, err);
			if (rc < 0 || did) {
				*ret_next = at + 1;
				return rc;
			}
		}
	}
	return 0;
}

/* A note of another place would hide what is kept here alone: to take it is for people to decide. */
static const char *who_thinned(const struct repair *r)
{
	for (size_t i = 0; i < r->n_others; i++)
		if (r->others[i].same && site_find(&r->others[i], "thinned") &&
		    !site_find(&r->target, "thinned"))
			return r->others[i].at.label;
	return NULL;
}

static int fill(struct filling *f, uint64_t first, uint64_t last, struct err *err)
{
	struct repair *r = f->r;
	const char *like = who_thinned(r);
	char what[480];

	for (uint64_t at = first; at <= last;) {
		uint64_t next = at;
		int rc = copy_sealed(r, at, &next, err);
		if (rc == 0 && next == at)
			rc = make_sealed(r, at, last, &next, err);
		if (rc == 0 && next == at)
			rc = copy_idle(r, at, &next, err);
		if (rc < 0)
			return rc;
		if (next > at) {
			rc = spans_add(&f->have, at, next - 1, err);
			if (rc < 0)
				return rc;
			at = next;
			continue;
		}
		if (!in_gap(r, at, last)) {
			char key[STORE_KEY_MAX];
			repair_key(r, "segment", key);
			snprintf(what, sizeof(what),
			         "transactions %" PRIu64 " to %" PRIu64
			         ": no other place has them%s%.200s%s",
			         at, last,
			         like ? " (if retention let them go: its note is gone, too, and '"
			              : "",
			         like ? like : "",
			         like ? "' may have one like it, the file thinned)" : "");
			repair_tell(r, key, true, REPAIR_FAILED, NULL, what);
		}
		return 0;
	}
	return 0;
}

/* ---- what is damaged of what was growing ---- */

/* A reader passes a segment of level 0 over when a sealed one holds its first transaction. */
static int cover_first(struct repair *r, const struct item *i, bool *ret, struct err *err)
{
	struct object_name made;
	const char *from;
	struct err why = ERR_INIT;

	*ret = true;
	for (size_t k = 0; k < r->target.items.n; k++) {
		const struct item *o = &r->target.items.v[k];
		if (o->kind == ITEM_SEALED && !o->bad && o->name.first_txid <= i->name.first_txid &&
		    o->name.last_txid >= i->name.first_txid)
			return 0;
	}
	int rc = make_idle(r, i, &made, &from, &why);
	*ret = rc == 0;
	if (rc < 0)
		return repair_ends(rc, &why) ? err_copy(err, &why) : 0;
	return install(r, &made, from, err);
}

/* Segments hold all that it held: a reader passes it over, whatever lies in it. */
static int settle_growing(struct repair *r, const struct item *i, bool covered, struct err *err)
{
	char key[STORE_KEY_MAX];
	bool dir = r->target.at.store->dir_fd >= 0;
	bool unknown = i->name.first_txid == r->endless_txid;
	int rc = covered && !dir && !unknown ? cover_first(r, i, &covered, err) : 0;

	repair_key(r, i->file, key);
	if (rc < 0)
		return rc;
	if (!covered || unknown) {
		repair_tell(
		        r, key, false, REPAIR_FAILED, NULL,
		        unknown ? "nothing tells how far it reached, nor that another place has "
		                  "the same (its writer goes on behind it; then it can be told)"
		                : "no other place has all that it held");
		return 0;
	}
	if (dir && !r->options->dry_run) {
		rc = put_aside(r, key, false, err);
		if (rc < 0)
			return rc;
		if (r->head.growing_txid == i->name.first_txid)
			r->head.growing_txid = r->head.durable_len = 0;
	}
	repair_tell(r, key, false,
	            !dir                  ? REPAIR_COVERED
	            : r->options->dry_run ? REPAIR_POSSIBLE
	                                  : REPAIR_DONE,
	            r->target.at.label, dir ? "sealed segments hold what it held" : "");
	return 0;
}

static const struct item *newest_fine(const struct repair *r)
{
	const struct item *newest = NULL;

	for (size_t k = 0; k < r->target.items.n; k++) {
		const struct item *i = &r->target.items.v[k];
		if (is_fine(i) && (!newest || i->name.first_txid > newest->name.first_txid))
			newest = i;
	}
	return newest;
}

/* The newest object is damaged, and neither head nor who sent it tells how far it reached: that another
 * place ends somewhere tells nothing.  To hold a part of it would hide that the rest is lost. */
static void find_end_of_damaged(struct repair *r)
{
	const struct item *newest = newest_fine(r);

	if (!newest || !newest->bad || newest->kind != ITEM_GROWING ||
	    r->end_txid > newest->name.first_txid || r->have_head)
		return;
	if (r->left_txid >= newest->name.first_txid) {
		r->end_txid = r->left_txid;
	} else {
		r->endless_txid = newest->name.first_txid;
		r->end_txid = r->endless_txid - 1;
	}
}

/* Without a head the newest segment itself tells, once it was read. */
static void know_end(struct repair *r)
{
	for (size_t k = 0; k < r->target.items.n; k++) {
		const struct item *i = &r->target.items.v[k];
		if (!i->bad && i->kind == ITEM_GROWING && i->name.last_txid > r->end_txid)
			r->end_txid = i->name.last_txid;
	}
}

int fill_segments(struct repair *r, struct err *err)
{
	struct filling f = {.r = r};

	find_end_of_damaged(r);
	int rc = collect(r, &f.have, err);
	know_end(r);
	uint64_t at = r->begin_txid, first;
	while (rc == 0 && (first = spans_reach(&f.have, at)) <= r->end_txid) {
		uint64_t next = spans_next(&f.have, first);
		uint64_t last = next <= r->end_txid ? next - 1 : r->end_txid;
		rc = fill(&f, first, last, err);
		spans_sort(&f.have);
		at = last + 1;
	}
	for (size_t k = 0; k < r->target.items.n && rc == 0; k++) {
		const struct item i = r->target.items.v[k]; /* more may come to the list */
		if (i.kind == ITEM_GROWING && i.bad)
			rc = settle_growing(
			        r, &i,
			        spans_reach(&f.have, i.name.first_txid) > target_bound(r, &i), err);
		while (strcmp(r->target.items.v[k].file, i.file) < 0)
			k++;
	}
	spans_release(&f.have);
	return rc;
}

/* ---- bases, and what points need ---- */

/* The target alone, as its readers see it. */
struct alone {
	struct archive *archive;
	struct history *history;
};

static void alone_close(struct alone *a)
{
	if (a->history)
		history_put(a->history);
	archive_free(a->archive);
	*a = (struct alone){0};
}

static bool sees(struct repair *r, struct alone *a, uint64_t txid)
{
	const struct archive_options o = {.cache_bytes = 1u << 20};
	struct store *s;
	struct view *v = NULL;
	struct err why = ERR_INIT;

	if (!a->history) {
		if (site_borrow(&r->target, r->name, false, &s, NULL) < 0 ||
		    archive_open_stores(&s, 1, &o, &a->archive, NULL) < 0 ||
		    history_get(a->archive, r->name, &a->history, NULL) < 0) {
			alone_close(a);
			return false;
		}
		history_log_damage(a->history, false);
	}
	int rc = view_open(a->history, txid, &v, &why);
	view_free(v);
	return rc == 0 ||
	       (why.kind != ERR_DAMAGED && why.kind != ERR_NOT_FOUND && why.kind != ERR_GAP);
}

static int put_item(struct repair *r, struct site *s, const struct item *o, struct alone *a,
                    bool *ret_did, struct err *err)
{
	const struct item item = *o;

	int rc = objects_copy_from(r, s, &item, true, "", ret_did, err);
	if (rc == 0 && *ret_did) {
		rc = target_add(r, &item, err);
		alone_close(a);
	}
	return rc;
}

/* Snapshots come in the order of their names, which is that of their transactions. */
static int fill_snapshots(struct repair *r, struct site *s, struct alone *a, struct err *err)
{
	for (size_t i = 0; i < s->items.n; i++) {
		const struct item *o = &s->items.v[i];
		bool did;
		if (o->kind != ITEM_SNAPSHOT || o->name.last_txid > r->end_txid ||
		    o->name.last_txid + 1 < r->begin_txid ||
		    o->name.last_txid <= r->thinned.until_txid || site_find(&r->target, o->file) ||
		    sees(r, a, o->name.last_txid))
			continue;
		int rc = put_item(r, s, o, a, &did, err);
		if (rc < 0 || (did && r->options->dry_run)) /* with it, others may be seen */
			return rc;
	}
	return 0;
}

/* Its base, and what lies over that up to the point. */
static int fill_point(struct repair *r, struct site *s, uint64_t txid, struct alone *a,
                      struct err *err)
{
	const struct item *base = NULL;

	for (size_t i = 0; i < s->items.n; i++) {
		const struct item *o = &s->items.v[i];
		if (o->kind == ITEM_SNAPSHOT && o->name.last_txid <= txid &&
		    (!base || o->name.last_txid >= base->name.last_txid))
			base = o;
	}
	for (size_t i = 0; base && i <= s->items.n; i++) {
		const struct item *o = i ? &s->items.v[i - 1] : base;
		bool did;
		if ((i && (o->kind != ITEM_COALESCED || o->name.last_txid > txid ||
		           o->name.last_txid < base->name.first_txid)) ||
		    site_find(&r->target, o->file))
			continue;
		int rc = put_item(r, s, o, a, &did, err);
		if (rc < 0 || (!r->options->dry_run && sees(r, a, txid)))
			return rc;
	}
	return 0;
}

/* What it lay upon is gone, and no place has that: a base of it is made of what the others have. */
static int make_point(struct repair *r, const struct thinned_point *p, struct alone *a,
                      struct err *err)
{
	struct item item = {.kind = ITEM_SNAPSHOT,
	                    .name = {.type = OBJECT_SNAPSHOT,
	                             .first_txid = p->txid + 1,
	                             .last_txid = p->txid,
	                             .last_us = p->time_us}};
	char name[OBJECT_NAME_MAX];
	struct err why = ERR_INIT;
	const char *from;
	struct history *h;
	struct moment m;

	for (size_t i = 0; i < r->n_others && !item.name.lineage; i++)
		if (r->others[i].same && p->txid <= r->others[i].shared_txid &&
		    site_history(r, &r->others[i], &h, NULL) == 0 &&
		    history_tx(h, p->txid, &m, NULL) == 0 && m.time_us == p->time_us)
			item.name.lineage = m.lineage;
	if (!item.name.lineage)
		return 0;
	object_name_format(&item.name, name);
	snprintf(item.file, sizeof(item.file), "snapshot/%s", name);
	if (site_find(&r->target, item.file))
		return 0;
	int rc = make_again(r, &item, &from, &why);
	if (rc < 0)
		return repair_ends(rc, &why) ? err_copy(err, &why) : 0;
	rc = objects_install(r, &item, true, from, "", err);
	rc = rc ? rc : target_add(r, &item, err);
	alone_close(a);
	return rc;
}

int fill_bases(struct repair *r, struct err *err)
{
	struct alone a = {0};
	int rc = 0;

	for (size_t i = 0; i < r->n_others && rc == 0; i++) {
		struct site *s = &r->others[i];
		if (!s->same)
			continue;
		rc = fill_snapshots(r, s, &a, err);
		for (size_t k = 0; k < r->thinned.n_points && rc == 0; k++)
			if (!sees(r, &a, r->thinned.points[k].txid))
				rc = fill_point(r, s, r->thinned.points[k].txid, &a, err);
	}
	/* In a dry run what could be copied may be enough. */
	bool tells = r->options->dry_run && r->result->n[REPAIR_POSSIBLE];
	for (size_t k = 0; k < r->thinned.n_points && rc == 0 && !tells; k++)
		if (!sees(r, &a, r->thinned.points[k].txid))
			rc = make_point(r, &r->thinned.points[k], &a, err);
	alone_close(&a);
	return rc;
}
