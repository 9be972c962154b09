/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/retain/plan.h"

#include <stdlib.h>
#include <string.h>

/* What lies over a base outweighs it by so much: another one is made; by less: one that is there
 * anyway is kept. */
#define REBASE_PERCENT 300u
#define KEEP_BASE_PERCENT 150u
#define MERGE 3u

/* An object of the archive, or one to be made. */
struct item {
	uint64_t first_txid, last_txid; /* of a snapshot: redo + 1, txid */
	uint64_t bytes;
	size_t index; /* in the input; SIZE_MAX: to be made */
	bool root, needed;
};

struct items {
	struct item *v; /* sorted by first_txid, then last_txid */
	size_t n, cap;
};

struct planner {
	const struct retain_input *in;
	struct retain_plan *p;
	struct items coalesced, snapshots;
};

/* ---- growing arrays ---- */

static int add(void **v, size_t *n, size_t *cap, size_t size, const void *one, struct err *err)
{
	if (*n == *cap) {
		size_t more = *cap ? 2 * *cap : 64;
		void *p = realloc(*v, more * size);
		if (!p)
			return err_set(err, ERR_NOMEM, 0, "no memory to plan retention");
		*v = p;
		*cap = more;
	}
	memcpy((char *)*v + *n * size, one, size);
	++*n;
	return 0;
}

static int add_point(struct planner *pl, uint64_t txid, int64_t time_us, const char *reason,
                     struct err *err)
{
	struct retain_plan *p = pl->p;
	const struct retain_point one = {txid, time_us, reason};

	return add((void **)&p->points, &p->n_points, &p->cap_points, sizeof(one), &one, err);
}

static int add_job(struct planner *pl, enum retain_job_type type, uint64_t after, uint64_t until,
                   const char *reason, struct err *err)
{
	struct retain_plan *p = pl->p;
	const struct retain_job one = {type, after, until, reason};

	return add((void **)&p->jobs, &p->n_jobs, &p->cap_jobs, sizeof(one), &one, err);
}

static int item_compare(const void *a, const void *b)
{
	const struct item *x = a, *y = b;

	if (x->first_txid != y->first_txid)
		return x->first_txid < y->first_txid ? -1 : 1;
	return x->last_txid < y->last_txid ? -1 : x->last_txid > y->last_txid;
}

static int add_item(struct items *is, const struct item *one, struct err *err)
{
	int rc = add((void **)&is->v, &is->n, &is->cap, sizeof(*one), one, err);

	for (size_t i = is->n; rc == 0 && i-- > 1 && item_compare(&is->v[i - 1], &is->v[i]) > 0;) {
		struct item t = is->v[i];
		is->v[i] = is->v[i - 1];
		is->v[i - 1] = t;
	}
	return rc;
}

/* ---- which moments are kept ---- */

static int64_t floor_to(int64_t time_us, int64_t step)
{
	int64_t rest = time_us % step;

	return time_us - (rest < 0 ? rest + step : rest);
}

/* now - age, where that is a time. */
static int64_t age_ago(const struct retain_input *in, int64_t age_us)
{
	return age_us == INT64_MAX || in->now_us < TIME_MIN_US + age_us ? TIME_MIN_US
	                                                                : in->now_us - age_us;
}

/*
 * A segment is deleted as a whole: until all of one is old enough, thinning what it holds would
 * only add objects.  So the moment is the last of the stretch in which the newest segment ends
 * that can go.
 */
static int only_whole_segments(struct planner *pl, int64_t step, struct retain_point *u,
                               struct err *err)
{
	const struct retain_input *in = pl->in;
	const struct history_object *newest = NULL;
	struct err why = ERR_INIT;
	struct retain_point p;

	for (size_t i = 0; i < in->n; i++) {
		const struct history_object *o = &in->objects[i];
		bool fine = o->type == HISTORY_SEGMENT || o->type == HISTORY_GROWING;
		if (fine && !o->current && o->last_txid >= o->first_txid &&
		    o->last_txid <= u->txid && o->last_txid > in->fine_txid &&
		    (!newest || o->last_txid > newest->last_txid))
			newest = o;
	}
	if (!newest) {
		*u = (struct retain_point){0};
		return 0;
	}
	int64_t end = floor_to(newest->last_us, step) + step - 1;
	int rc = in->before(in->ctx, end < u->time_us ? end : u->time_us, &p, &why);
	if (rc < 0)
		return why.kind == ERR_NOT_FOUND ? 0 : err_copy(err, &why);
	if (p.txid >= newest->last_txid && p.txid < u->txid)
		*u = p;
	return 0;
}

/* The last transaction before this one that any object tells of: a gap can be wide. */
static uint64_t held_before(const struct retain_input *in, uint64_t txid)
{
	uint64_t held = 0;

	for (size_t i = 0; i < in->n; i++) {
		const struct history_object *o = &in->objects[i];
		uint64_t last =
		        o->first_txid < txid && o->last_txid >= txid ? txid - 1 : o->last_txid;
		held = last < txid && last > held ? last : held;
	}
	return held;
}

/*
 * A copy that was made while commits came needs all of them: it is thinned with what lies under it, or
 * neither is.
 */
static int only_whole_copies(struct planner *pl, struct retain_point *u, struct err *err)
{
	const struct retain_input *in = pl->in;

	for (size_t i = 0; i < in->n && u->txid > in->fine_txid; i++) {
		const struct history_object *o = &in->objects[i];
		uint64_t txid = o->first_txid;
		if (o->type != HISTORY_SNAPSHOT || o->first_txid > u->txid ||
		    o->last_txid <= u->txid)
			continue;
		*u = (struct retain_point){0};
		while (--txid > in->fine_txid && u->txid == 0) {
			struct err why = ERR_INIT;
			if (in->at(in->ctx, txid, u, &why) == 0)
				break;
			*u = (struct retain_point){0};
			if (why.kind == ERR_GAP)
				txid = held_before(in, txid) + 1;
			else if (why.kind != ERR_NOT_FOUND && why.kind != ERR_DAMAGED)
				return err_copy(err, &why);
		}
		i = SIZE_MAX; /* which another one may need: from the first again */
	}
	return 0;
}

/* The moment from which on every commit is kept: the last one before a boundary that the tiers
 * behind count by.  *ret_txid 0: every commit there is. */
static int find_fine(struct planner *pl, struct retain_point *ret, struct err *err)
{
	const struct retain_input *in = pl->in;
	const struct retain_policy *policy = in->policy;
	struct retain_point newest, u = {0};
	struct err why = ERR_INIT;
	int64_t step = 1;

	*ret = (struct retain_point){0};
	int rc = in->before(in->ctx, INT64_MAX, &newest, &why);
	if (rc < 0)
		return why.kind == ERR_NOT_FOUND ? 0 : err_copy(err, &why);
	if (policy->n_tiers > 0) {
		const struct retain_tier *first = &policy->tiers[0];
		bool all = first->every_us == 0;
		int64_t horizon = all ? age_ago(in, first->age_us) : in->now_us;
		step = !all                  ? first->every_us
		       : policy->n_tiers > 1 ? first[1].every_us
		                             : retain_step_us(policy);
		int64_t boundary = floor_to(horizon, step) - 1;
		/* The newest moment is no part of it: what follows a point is known. */
		if (boundary >= newest.time_us)
			boundary = newest.time_us - 1;
		rc = in->before(in->ctx, boundary, &u, &why);
		if (rc < 0 && why.kind != ERR_NOT_FOUND)
			return err_copy(err, &why);
		if (rc < 0 || u.txid >= newest.txid)
			u = (struct retain_point){0};
		rc = 0;
	}
	if (u.txid > 0)
		rc = only_whole_segments(pl, step, &u, err);
	if (rc == 0)
		rc = only_whole_copies(pl, &u, err);
	if (rc == 0 && u.txid < in->fine_txid) /* what was thinned stays so */
		rc = in->at(in->ctx, in->fine_txid, &u, err);
	if (rc < 0)
		return rc;
	u.reason = "every commit behind it is kept";
	*ret = u;
	return 0;
}

static const char *tier_reason(int64_t every_us)
{
	const int64_t hour = 3600 * US_PER_SECOND;

	return every_us == hour        ? "the last of its hour"
	       : every_us == 24 * hour ? "the last of its day"
	                               : "the last of its stretch";
}

/*
 * The last commit of each stretch up to `fine`, as far back as the tier goes.  It ends where a
 * stretch of the next tier begins, so that what it kept there becomes one object at once.
 */
static int add_tier(struct planner *pl, size_t i, const struct retain_point *fine, struct err *err)
{
	const struct retain_input *in = pl->in;
	const struct retain_tier *t = &in->policy->tiers[i];
	int64_t by = i + 1 < in->policy->n_tiers ? t[1].every_us : t->every_us;
	int64_t oldest = floor_to(age_ago(in, t->age_us), by), time_us = fine->time_us;
	struct retain_point c;

	for (;;) {
		struct err why = ERR_INIT;
		int rc = in->before(in->ctx, time_us, &c, &why);
		if (rc < 0)
			return why.kind == ERR_NOT_FOUND ? 0 : err_copy(err, &why);
		if (c.time_us < oldest)
			return 0;
		rc = add_point(pl, c.txid, c.time_us, tier_reason(t->every_us), err);
		if (rc < 0)
			return rc;
		time_us = floor_to(c.time_us, t->every_us) - 1;
	}
}

/* With no tier at all everything that is left is kept. */
static int add_everything(struct planner *pl, const struct retain_point *fine, struct err *err)
{
	const struct retain_input *in = pl->in;
	int64_t time_us = fine->time_us;
	struct retain_point c;

	for (;;) {
		struct err why = ERR_INIT;
		int rc = in->before(in->ctx, time_us, &c, &why);
		if (rc < 0)
			return why.kind == ERR_NOT_FOUND ? 0 : err_copy(err, &why);
		rc = add_point(pl, c.txid, c.time_us, "kept so far", err);
		if (rc < 0)
			return rc;
		time_us = c.time_us - 1;
	}
}

/* The state at which what is kept begins. */
static int add_beginning(struct planner *pl, const struct retain_point *fine, struct err *err)
{
	const struct retain_input *in = pl->in;
	const struct retain_policy *policy = in->policy;
	int64_t age = policy->tiers[policy->n_tiers - 1].age_us;
	struct err why = ERR_INIT;
	struct retain_point c;

	if (age == INT64_MAX)
		return 0;
	int64_t from = floor_to(age_ago(in, age), retain_step_us(policy)) - 1;
	int rc = in->before(in->ctx, from < fine->time_us ? from : fine->time_us, &c, &why);
	if (rc < 0)
		return why.kind == ERR_NOT_FOUND ? 0 : err_copy(err, &why);
	return add_point(pl, c.txid, c.time_us, "the state at which the oldest tier begins", err);
}

static int add_marks(struct planner *pl, const struct retain_point *fine, struct err *err)
{
	const struct retain_input *in = pl->in;
	int rc = 0;

	for (size_t i = 0; i < in->n_marks && rc == 0; i++) {
		struct err why = ERR_INIT;
		struct retain_point c;
		if (in->marks[i].txid > fine->txid)
			continue;
		rc = in->at(in->ctx, in->marks[i].txid, &c, &why);
		if (rc == 0)
			rc = add_point(pl, c.txid, c.time_us, "a mark", err);
		else if (why.kind == ERR_NOT_FOUND || why.kind == ERR_GAP)
			rc = 0; /* gone before it was marked, or in a gap: it pins nothing */
		else
			rc = err_copy(err, &why);
	}
	return rc;
}

static int point_compare(const void *a, const void *b)
{
	const struct retain_point *x = a, *y = b;

	return x->txid < y->txid ? -1 : x->txid > y->txid;
}

static int find_points(struct planner *pl, struct err *err)
{
	const struct retain_policy *policy = pl->in->policy;
	struct retain_plan *p = pl->p;
	struct retain_point fine;

	int rc = find_fine(pl, &fine, err);
	if (rc < 0 || fine.txid == 0)
		return rc;
	p->fine_txid = fine.txid;
	rc = add_marks(pl, &fine, err);
	for (size_t i = policy->n_tiers; i-- > 0 && rc == 0;)
		if (policy->tiers[i].every_us > 0)
			rc = add_tier(pl, i, &fine, err);
	if (rc == 0)
		rc = policy->n_tiers > 0 ? add_beginning(pl, &fine, err)
		                         : add_everything(pl, &fine, err);
	if (rc == 0)
		rc = add_point(pl, fine.txid, fine.time_us, fine.reason, err);
	if (rc < 0)
		return rc;
	qsort(p->points, p->n_points, sizeof(*p->points), point_compare);
	size_t n = 0;
	for (size_t i = 0; i < p->n_points; i++)
		if (n == 0 || p->points[n - 1].txid != p->points[i].txid)
			p->points[n++] = p->points[i];
	p->n_points = n;
	return 0;
}

/* ---- what makes them readable ---- */

/* What lies over a base on the way to a point; `ok`: it gets there. */
#define WAY_MAX 1024u
struct way {
	struct item *o[WAY_MAX];
	size_t n;
	uint64_t bytes;
	uint64_t end; /* how far it gets */
	bool ok;
};

/* The coalesced object that continues at `pos` and reaches farthest, as readers choose it. */
static struct item *farthest(const struct items *is, uint64_t pos, uint64_t limit)
{
	struct item *best = NULL;

	for (size_t i = 0; i < is->n && is->v[i].first_txid <= pos + 1; i++) {
		struct item *o = &is->v[i];
		if (o->last_txid > pos && o->last_txid <= limit &&
		    (!best || o->last_txid > best->last_txid))
			best = o;
	}
	return best;
}

static void find_way(const struct planner *pl, uint64_t pos, uint64_t until, struct way *w)
{
	struct item *o;

	w->n = 0;
	w->bytes = 0;
	while (pos < until && w->n < WAY_MAX && (o = farthest(&pl->coalesced, pos, until))) {
		w->o[w->n++] = o;
		w->bytes += o->bytes;
		pos = o->last_txid;
	}
	w->end = pos;
	w->ok = pos >= until;
}

/* The newest snapshot with after < txid <= until; of one txid the one that needs least. */
static struct item *newest_snapshot(const struct planner *pl, uint64_t after, uint64_t until,
                                    bool roots_only)
{
	struct item *best = NULL;

	for (size_t i = 0; i < pl->snapshots.n; i++) {
		struct item *s = &pl->snapshots.v[i];
		if (s->last_txid <= after || s->last_txid > until || (roots_only && !s->root))
			continue;
		if (!best || s->last_txid >= best->last_txid) /* (sorted by what they need) */
			best = s;
	}
	return best;
}

/* Bytes of what is coalesced, at most; only an estimate. */
static uint64_t bytes_between(const struct retain_input *in, uint64_t after, uint64_t until)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < in->n; i++) {
		const struct history_object *o = &in->objects[i];
		if ((o->type != HISTORY_SEGMENT && o->type != HISTORY_GROWING) ||
		    o->last_txid <= after || o->first_txid > until || o->last_txid < o->first_txid)
			continue;
		uint64_t from = o->first_txid > after ? o->first_txid : after + 1;
		uint64_t to = o->last_txid < until ? o->last_txid : until;
		double part = (double)(to - from + 1) / (double)(o->last_txid - o->first_txid + 1);
		bytes += (uint64_t)((double)o->bytes * part);
	}
	return bytes;
}

static int make_coalesced(struct planner *pl, enum retain_job_type type, uint64_t after,
                          uint64_t until, uint64_t bytes, const char *reason, struct err *err)
{
	const struct item one = {
	        .first_txid = after + 1, .last_txid = until, .bytes = bytes, .index = SIZE_MAX};

	int rc = add_job(pl, type, after, until, reason, err);
	return rc < 0 ? rc : add_item(&pl->coalesced, &one, err);
}

/*
 * Too deep: the newest objects on the way become one; as few as there must be, but for those
 * below that are not even half of what is written anyway.  So sizes rise towards the base, and
 * each byte is written again a few times at most.
 */
static int widen(struct planner *pl, const struct way *w, size_t depth, uint64_t until,
                 struct err *err)
{
	size_t from = w->n - 2;
	uint64_t bytes = w->o[w->n - 1]->bytes + w->o[w->n - 2]->bytes;

	while (from > 0 && (from >= depth || 2 * w->o[from - 1]->bytes < bytes))
		bytes += w->o[--from]->bytes;
	return make_coalesced(pl, RETAIN_WIDEN, w->o[from]->first_txid - 1, until, bytes,
	                      "too many objects over the base", err);
}

static int make_base(struct planner *pl, const struct retain_point *at, uint64_t bytes,
                     struct err *err)
{
	const struct item one = {.first_txid = at->txid + 1,
	                         .last_txid = at->txid,
	                         .bytes = bytes,
	                         .index = SIZE_MAX};

	int rc = add_job(pl, RETAIN_BASE, 0, at->txid, "what lies over the base outweighs it", err);
	return rc < 0 ? rc : add_item(&pl->snapshots, &one, err);
}

/* Whether segments and coalesced objects hold all of after_txid < txid <= until_txid. */
static bool is_held(const struct planner *pl, uint64_t after, uint64_t until)
{
	const struct retain_input *in = pl->in;

	while (after < until) {
		uint64_t best = after;
		for (size_t i = 0; i < in->n; i++) {
			const struct history_object *o = &in->objects[i];
			bool fine = o->type == HISTORY_SEGMENT || o->type == HISTORY_GROWING;
			if (o->type != HISTORY_SNAPSHOT && o->first_txid <= after + 1 &&
			    o->last_txid > best && (fine || o->last_txid <= until))
				best = o->last_txid;
		}
		if (best == after)
			return false;
		after = best;
	}
	return true;
}

/* The base for a point, given that of the point before: that one, unless what lies over it is
 * not there, or too much. */
static struct item *choose_base(const struct planner *pl, struct item *now,
                                const struct retain_point *at, struct way *w)
{
	struct item *newest = newest_snapshot(pl, 0, at->txid, false);
	bool last = at->txid == pl->p->fine_txid;

	/* Behind the last point readers and compaction go on from the newest one. */
	if (!newest || !now || last || newest_snapshot(pl, now->last_txid, at->txid, true))
		now = newest;
	if (!now)
		return NULL;
	find_way(pl, now->first_txid - 1, at->txid, w);
	if (now == newest)
		return now;
	if (w->ok ? 100 * w->bytes <= KEEP_BASE_PERCENT * now->bytes
	          : is_held(pl, w->end, at->txid)) {
		struct way other;
		if (w->ok)
			return now;
		find_way(pl, newest->first_txid - 1, at->txid, &other);
		if (!other.ok)
			return now;
	}
	find_way(pl, newest->first_txid - 1, at->txid, w);
	return newest;
}

static void need(struct item *base, const struct way *w)
{
	if (base)
		base->needed = true;
	for (size_t i = 0; i < w->n; i++)
		w->o[i]->needed = true;
}

/* Objects between points that are no more kept: three behind the point before become one. */
static bool mergeable(const struct way *w, uint64_t before)
{
	for (size_t i = 0; i + MERGE < w->n; i++)
		if (w->o[i]->last_txid == before)
			return true;
	return false;
}

/* A base takes the place of what would outweigh the one that is there. */
static bool outweighs(const struct planner *pl, const struct item *base,
                      const struct retain_point *at, uint64_t bytes)
{
	return 100 * bytes > REBASE_PERCENT * base->bytes && at->txid != pl->p->fine_txid &&
	       base->last_txid < at->txid;
}

/* What is missing between the base and the point; then what is too much. */
static int pave(struct planner *pl, const struct item *base, const struct retain_point *at,
                uint64_t before, struct way *w, struct err *err)
{
	size_t depth = at->txid == pl->p->fine_txid ? RETAIN_DEPTH_LAST : RETAIN_DEPTH;
	uint64_t bytes = 0;
	int rc = 0;

	if (!w->ok) {
		rc = make_coalesced(pl, RETAIN_COALESCE, w->end, at->txid,
		                    bytes_between(pl->in, w->end, at->txid), at->reason, err);
	} else if (mergeable(w, before)) {
		for (size_t i = w->n; i-- > 0 && w->o[i]->last_txid > before;)
			bytes += w->o[i]->bytes;
		rc = make_coalesced(pl, RETAIN_COALESCE, before, at->txid, bytes,
		                    "what lies between is no longer kept", err);
	}
	if (rc == 0)
		find_way(pl, base->first_txid - 1, at->txid, w);
	if (rc == 0 && w->n > depth) {
		rc = widen(pl, w, depth, at->txid, err);
		find_way(pl, base->first_txid - 1, at->txid, w);
	}
	return rc;
}

/* A base and a short way for point `i`; *base is that of the point before, by its txid and redo
 * (items move when there are more of them). */
static int reach_point(struct planner *pl, size_t i, struct item *base, struct err *err)
{
	const struct retain_point at = pl->p->points[i];
	struct item *now = NULL;
	struct way w;

	for (size_t k = 0; i > 0 && k < pl->snapshots.n; k++)
		if (pl->snapshots.v[k].first_txid == base->first_txid &&
		    pl->snapshots.v[k].last_txid == base->last_txid)
			now = &pl->snapshots.v[k];
	now = choose_base(pl, now, &at, &w);
	if (!now)
		return err_set(err, ERR_DAMAGED, 0, "no snapshot lies before a kept moment");
	int rc = 0;
	if (w.ok || !outweighs(pl, now, &at, w.bytes + bytes_between(pl->in, w.end, at.txid)))
		rc = pave(pl, now, &at, i ? pl->p->points[i - 1].txid : 0, &w, err);
	if (rc == 0 && (!w.ok || outweighs(pl, now, &at, w.bytes))) {
		rc = make_base(pl, &at, now->bytes, err);
		now = newest_snapshot(pl, 0, at.txid, false);
		find_way(pl, now->first_txid - 1, at.txid, &w);
	}
	need(now, &w);
	*base = *now;
	return rc;
}

/* Snapshots behind the last point whose redo begins before it. */
static void need_redo(struct planner *pl)
{
	uint64_t fine = pl->p->fine_txid;
	struct way w;

	for (size_t i = 0; i < pl->snapshots.n; i++) {
		const struct item *s = &pl->snapshots.v[i];
		if (s->last_txid <= fine || s->first_txid > fine)
			continue;
		find_way(pl, s->first_txid - 1, fine, &w);
		need(NULL, &w);
	}
}

static int take_items(struct planner *pl, struct err *err)
{
	const struct retain_input *in = pl->in;
	int rc = 0;

	for (size_t i = 0; i < in->n && rc == 0; i++) {
		const struct history_object *o = &in->objects[i];
		const struct item one = {.first_txid = o->first_txid,
		                         .last_txid = o->last_txid,
		                         .bytes = o->bytes,
		                         .index = i,
		                         .root = in->roots[i]};
		if (o->type == HISTORY_COALESCED)
			rc = add_item(&pl->coalesced, &one, err);
		else if (o->type == HISTORY_SNAPSHOT)
			rc = add_item(&pl->snapshots, &one, err);
	}
	return rc;
}

static void find_expiring(struct planner *pl)
{
	const struct retain_input *in = pl->in;
	struct retain_plan *p = pl->p;

	for (size_t i = 0; i < in->n; i++)
		p->expire[i] = in->objects[i].last_txid <= p->fine_txid &&
		               in->objects[i].last_txid + 1 >= in->objects[i].first_txid &&
		               !in->objects[i].current && !in->objects[i].broken;
	for (size_t i = 0; i < pl->coalesced.n; i++)
		if (pl->coalesced.v[i].needed && pl->coalesced.v[i].index != SIZE_MAX)
			p->expire[pl->coalesced.v[i].index] = false;
	for (size_t i = 0; i < pl->snapshots.n; i++)
		if (pl->snapshots.v[i].needed && pl->snapshots.v[i].index != SIZE_MAX)
			p->expire[pl->snapshots.v[i].index] = false;
}

static int plan(struct planner *pl, struct err *err)
{
	struct item base = {0};

	int rc = find_points(pl, err);
	if (rc < 0 || pl->p->fine_txid == 0)
		return rc;
	rc = take_items(pl, err);
	for (size_t i = 0; i < pl->p->n_points && rc == 0; i++)
		rc = reach_point(pl, i, &base, err);
	if (rc < 0)
		return rc;
	need_redo(pl);
	find_expiring(pl);
	return 0;
}

int retain_plan(const struct retain_input *in, struct retain_plan *ret, struct err *err)
{
	struct planner pl = {.in = in, .p = ret};

	*ret = (struct retain_plan){0};
	ret->expire = calloc(in->n + 1, sizeof(*ret->expire));
	if (!ret->expire)
		return err_set(err, ERR_NOMEM, 0, "no memory to plan retention");
	int rc = plan(&pl, err);
	free(pl.coalesced.v);
	free(pl.snapshots.v);
	if (rc < 0)
		retain_plan_release(ret);
	return rc;
}

void retain_plan_release(struct retain_plan *p)
{
	free(p->points);
	free(p->jobs);
	free(p->expire);
	*p = (struct retain_plan){0};
}
