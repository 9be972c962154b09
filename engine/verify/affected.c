/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which moments a damaged object takes with it.
 *
 *   (1) Only a moment can need an object that lies behind the object's first transaction and
 *       not behind the first snapshot that takes in all of it (whose own commit is a segment's), and
 *       that no snapshot follows which does not: one that was copied for long, its segments beginning
 *       before another's.
 *   (2) Of those, one is lost when a page whose bytes in the object are damaged cannot be read
 *       in its image; a page that was written anew since, or that a coalesced object has too, is
 *       read from elsewhere.  So each is opened and asked for just these pages.  With a damaged
 *       index any page may be lost: all are asked for.
 *   (3) That takes what it takes, up to a bound (COST_MAX pages).  Behind it all that may need the
 *       object counts as lost, and `at_most` says so.
 */
#include "engine/verify/verify_i.h"

#include <inttypes.h>

#define COST_MAX 2000000u
/* Opening a view costs as much as so many pages. */
#define COST_OPEN 8u

struct search {
	struct run *run;
	struct verify_damage *damage;
	const struct object_check *check;
	uint64_t cost;
	uint8_t *page;
	size_t page_bytes;
	bool last_lost; /* the moment before was: a range goes on */
};

static int lost_moment(struct search *s, const struct moment *m, struct err *err)
{
	struct verify_damage *d = s->damage;

	if (s->last_lost) {
		d->affected[d->n_affected - 1].last_txid = m->txid;
		d->affected[d->n_affected - 1].last_us = m->time_us;
		return 0;
	}
	void *more = realloc(d->affected, (d->n_affected + 1) * sizeof(*d->affected));
	if (!more)
		return err_set(err, ERR_NOMEM, 0, "no memory for the moments affected");
	d->affected = more;
	d->affected[d->n_affected++] =
	        (struct verify_range){m->txid, m->txid, m->time_us, m->time_us};
	s->last_lost = true;
	return 0;
}

/* Whether what stands on `b` needs nothing of `o`, or of the transactions up to `last` (`o` NULL). */
static bool takes_in(const struct history_object *b, const struct history_object *o, uint64_t last)
{
	if (o && o->type == HISTORY_SNAPSHOT)
		return b->last_txid > o->last_txid ||
		       (b->last_txid == o->last_txid && b->first_txid > o->first_txid);
	return b->first_txid - 1 >= last; /* the first of its redo */
}

/* Behind the last moment that can need it: (1). */
static uint64_t end_of_need(const struct run *r, const struct history_object *o, uint64_t last)
{
	uint64_t end = UINT64_MAX, needs = 0;

	for (size_t i = 0; i < r->n_objects; i++) {
		const struct history_object *b = &r->objects[i];
		if (b->type == HISTORY_SNAPSHOT && b != o && !takes_in(b, o, last) &&
		    b->last_txid > needs)
			needs = b->last_txid;
	}
	for (size_t i = 0; i < r->n_objects; i++) {
		const struct history_object *b = &r->objects[i];
		if (b->type == HISTORY_SNAPSHOT && b != o && takes_in(b, o, last) &&
		    b->last_txid >= needs && b->last_txid + 1 < end)
			end = b->last_txid + 1;
	}
	return end;
}

/* The moments that can need an object: (1). */
static void candidates(const struct run *r, const struct history_object *o, uint64_t *ret_first,
                       uint64_t *ret_end)
{
	*ret_first = o->type == HISTORY_SNAPSHOT || o->type == HISTORY_COALESCED ? o->last_txid
	                                                                         : o->first_txid;
	/* Of a growing segment that cannot be read the end is not known. */
	*ret_end = end_of_need(r, o, o->last_txid ? o->last_txid : UINT64_MAX);
}

/* Whether the image cannot be read where it matters; errors that are not damage end the search. */
static int ask_pages(struct search *s, struct view *v, bool *ret_lost, struct err *err)
{
	const struct moment *m = view_moment(v);
	const struct bitset *pages = &s->check->pages;
	uint64_t end = s->check->whole ? m->n_pages : pages->used * 64;

	if (s->page_bytes < m->page_size) {
		free(s->page);
		s->page = malloc(m->page_size);
		s->page_bytes = s->page ? m->page_size : 0;
		if (!s->page)
			return err_set(err, ERR_NOMEM, 0, "no memory for a page");
	}
	for (uint64_t p = 1; p <= end && p <= m->n_pages; p++) {
		struct err why = ERR_INIT;
		if (!s->check->whole && !bitset_has(pages, p))
			continue;
		s->cost++;
		int rc = view_page(v, (uint32_t)p, s->page, &why);
		if (err_kind_of(rc) == ERR_DAMAGED) {
			*ret_lost = true;
			return 0;
		}
		if (rc)
			return err_copy(err, &why);
	}
	return 0;
}

static int ask_moment(struct search *s, const struct moment *m, bool *ret_lost, struct err *err)
{
	cleanup_view struct view *v = NULL;
	struct err why = ERR_INIT;

	*ret_lost = false;
	s->cost += COST_OPEN;
	int rc = view_open(s->run->h, m->txid, &v, &why);
	if (err_kind_of(rc) == ERR_DAMAGED || err_kind_of(rc) == ERR_NOT_FOUND ||
	    err_kind_of(rc) == ERR_GAP) { /* its base is gone */
		*ret_lost = true;
		return 0;
	}
	return rc ? err_copy(err, &why) : ask_pages(s, v, ret_lost, err);
}

/* The end of a growing segment that cannot be told: the writer said how far it goes. */
static int lost_end(struct search *s, uint64_t txid, uint64_t end, struct err *err)
{
	struct history_status status;
	int rc = history_get_status(s->run->h, &status, err);

	if (rc < 0 || !s->check->whole || status.told_txid < txid)
		return rc;
	struct moment m = {.txid = txid};
	rc = lost_moment(s, &m, err);
	s->last_lost = true;
	m.txid = status.told_txid < end ? status.told_txid : end - 1;
	m.time_us = m.txid == status.told_txid ? status.told_us : 0;
	return rc ? rc : lost_moment(s, &m, err);
}

/* Every moment of first <= txid < end. */
static int walk(struct search *s, uint64_t first, uint64_t end, struct err *err)
{
	uint64_t txid = first;

	while (txid < end) {
		struct moment m;
		struct err why = ERR_INIT;
		bool lost = true;
		int rc = run_tick(s->run, 0, err);
		if (rc < 0)
			return rc;
		rc = history_next_strict(s->run->h, txid, &m, &why);
		if (err_kind_of(rc) == ERR_NOT_FOUND)
			return lost_end(s, txid, end, err);
		if (err_kind_of(rc) == ERR_DAMAGED) {
			/* Not even a commit can be told: of the next ones, one after the other. */
			m = (struct moment){.txid = txid};
			rc = history_tx(s->run->h, txid, &m, &why);
			if (err_kind_of(rc) == ERR_NOT_FOUND || err_kind_of(rc) == ERR_GAP) {
				txid++;
				continue;
			}
			m.txid = txid;
		} else if (rc) {
			return err_copy(err, &why);
		}
		if (m.txid >= end)
			return 0;
		if (rc == 0 && s->cost < COST_MAX)
			rc = ask_moment(s, &m, &lost, err);
		else if (rc == 0)
			s->damage->at_most = true;
		else
			rc = 0;
		if (rc == 0 && lost)
			rc = lost_moment(s, &m, err);
		if (rc < 0)
			return rc;
		s->last_lost = lost;
		txid = m.txid + 1;
	}
	return 0;
}

static const struct history_object *object_of(const struct run *r, const struct verify_damage *d)
{
	const char *slash = strchr(d->object, '/');

	for (size_t i = 0; slash && i < r->n_objects; i++)
		if (strcmp(r->objects[i].file, slash + 1) == 0)
			return &r->objects[i];
	return NULL;
}

static int search_one(struct run *r, struct verify_damage *d, const struct object_check *check,
                      struct err *err)
{
	struct search s = {.run = r, .damage = d, .check = check};
	const struct history_object *o = object_of(r, d);
	uint64_t first, end;
	int rc;

	bool note = d->object[0] && !strchr(d->object, '/');
	if (note || (o && !check->whole && check->pages.used == 0))
		return 0; /* nothing that a moment needs */
	if (o) {
		candidates(r, o, &first, &end);
		rc = walk(&s, first, end, err);
		free(s.page);
		return rc;
	}
	/* No object is to blame: what came since the last moment that was right may be wrong. */
	struct moment m;
	struct err why = ERR_INIT;
	d->at_most = true;
	rc = history_next(r->h, r->note.through_txid + 1, &m, &why);
	if (rc == 0)
		rc = lost_moment(&s, &m, err);
	s.last_lost = true;
	if (rc == 0 && history_latest(r->h, &m, &why) == 0)
		rc = lost_moment(&s, &m, err);
	return err_kind_of(rc) == ERR_NOMEM ? rc : 0;
}

/* ---- what is near ---- */

const struct verify_range *verify_range_with(const struct verify_report *rep, uint64_t txid)
{
	for (size_t i = 0; i < rep->n_damages; i++)
		for (size_t k = 0; k < rep->damages[i].n_affected; k++) {
			const struct verify_range *g = &rep->damages[i].affected[k];
			if (txid >= g->first_txid && txid <= g->last_txid)
				return g;
		}
	return NULL;
}

/* Backwards by time; where a moment could not be told its time is not known: then by txid. */
static void fill_before(struct run *r, struct verify_damage *d)
{
	struct verify_range g = d->affected[0];
	struct moment m;

	for (unsigned i = 0; i < 100000 && g.first_txid > 1; i++) {
		struct err why = ERR_INIT;
		uint64_t before = g.first_txid - 1;
		int rc = g.first_us ? history_before(r->h, g.first_us - 1, &m, &why)
		                    : history_tx(r->h, before, &m, &why);
		if (err_kind_of(rc) == ERR_NOT_FOUND && g.first_us)
			return;
		const struct verify_range *in = verify_range_with(r->report, rc ? before : m.txid);
		if (!rc && !in) {
			d->good_before = m.txid;
			d->good_before_us = m.time_us;
			return;
		}
		g = in ? *in : (struct verify_range){.first_txid = before};
	}
}

static void fill_good(struct run *r, struct verify_damage *d)
{
	const struct verify_report *rep = r->report;
	const struct verify_range *g;
	struct moment m;
	struct err why = ERR_INIT;

	if (!d->n_affected)
		return;
	uint64_t txid = d->affected[d->n_affected - 1].last_txid + 1;
	while (history_next(r->h, txid, &m, &why) == 0) {
		if (!(g = verify_range_with(rep, m.txid))) {
			d->good_after = m.txid;
			d->good_after_us = m.time_us;
			break;
		}
		txid = g->last_txid + 1;
	}
	fill_before(r, d);
}

int find_affected(struct run *r, struct err *err)
{
	int rc = 0;

	history_log_damage(r->h, false); /* the report has it */
	for (size_t i = 0; i < r->report->n_damages && rc == 0; i++)
		rc = search_one(r, &r->report->damages[i], &r->checks[i], err);
	history_log_damage(r->h, true);
	return rc;
}

static int affected_range(struct run *r, uint64_t first, uint64_t last, struct err *err)
{
	struct search s = {.run = r, .damage = &r->report->damages[r->report->n_damages - 1]};
	struct moment m = {.txid = first};
	int rc = lost_moment(&s, &m, err);

	s.last_lost = true;
	m.txid = last;
	return rc ? rc : lost_moment(&s, &m, err);
}

/* And what follows it, up to the first snapshot that takes in all of it: (1). */
int find_affected_by_hole(struct run *r, uint64_t first, uint64_t last, struct err *err)
{
	const struct object_check none = {.whole = false};
	struct search s = {.run = r,
	                   .damage = &r->report->damages[r->report->n_damages - 1],
	                   .check = &none,
	                   .last_lost = true};

	int rc = affected_range(r, first, last, err);
	history_log_damage(r->h, false);
	rc = rc ? rc : walk(&s, last + 1, end_of_need(r, NULL, last), err);
	history_log_damage(r->h, true);
	free(s.page);
	return rc;
}

void find_good(struct run *r)
{
	for (size_t i = 0; i < r->report->n_damages; i++)
		fill_good(r, &r->report->damages[i]);
}
