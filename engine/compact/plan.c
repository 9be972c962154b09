/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/compact/compact.h"

#include <stdlib.h>

#define FAN 3u
#define DEPTH_SOFT 6u
#define JOIN_COUNT 8u
#define JOIN_MAX_BYTES (48u << 20)

struct state {
	const struct history_object *objects;
	size_t n;
	const struct history_object *base;
};

static bool is_fine(const struct history_object *o)
{
	return (o->type == HISTORY_SEGMENT || o->type == HISTORY_GROWING) && !o->current &&
	       o->last_txid >= o->first_txid;
}

static const struct history_object *newest_base(const struct history_object *o, size_t n)
{
	const struct history_object *best = NULL;

	for (size_t i = 0; i < n; i++)
		if (o[i].type == HISTORY_SNAPSHOT && (!best || o[i].last_txid > best->last_txid))
			best = &o[i];
	return best;
}

/* The object that continues at `pos` and reaches farthest; closed ones alone. */
static const struct history_object *step(const struct state *s, uint64_t pos)
{
	const struct history_object *best = NULL;

	for (size_t i = 0; i < s->n; i++) {
		const struct history_object *o = &s->objects[i];
		if (!(is_fine(o) || o->type == HISTORY_COALESCED) || o->first_txid > pos + 1 ||
		    o->last_txid <= pos)
			continue;
		if (!best || o->last_txid > best->last_txid)
			best = o;
	}
	return best;
}

/* Fine segments within a coalesced object: its level. */
static size_t covered(const struct state *s, const struct history_object *c)
{
	size_t n = 0;

	for (size_t i = 0; i < s->n; i++)
		if (is_fine(&s->objects[i]) && s->objects[i].first_txid >= c->first_txid &&
		    s->objects[i].last_txid <= c->last_txid)
			n++;
	return n;
}

/* The way from the base to the last closed segment. */
#define WAY_MAX 256
struct way {
	const struct history_object *o[WAY_MAX];
	size_t n;
};

static void find_way(const struct state *s, struct way *w)
{
	uint64_t pos = s->base->first_txid - 1;
	const struct history_object *o;

	w->n = 0;
	while (w->n < WAY_MAX && (o = step(s, pos))) {
		w->o[w->n++] = o;
		pos = o->last_txid;
	}
}

static struct compact_job plan_coalesce(const struct state *s, const struct way *w)
{
	struct compact_job job = {.type = COMPACT_NOTHING};

	/* Level 1: the oldest three fine ones in a row of one lineage. */
	for (size_t i = 0; i + FAN <= w->n; i++) {
		bool ok = true;
		for (size_t j = i; j < i + FAN; j++)
			ok = ok && is_fine(w->o[j]) && w->o[j]->lineage == w->o[i]->lineage;
		/* (Those that a fuzzy base needs as redo count like any other.) */
		if (ok)
			return (struct compact_job){
			        COMPACT_COALESCE, w->o[i]->lineage, w->o[i]->first_txid,
			        w->o[i + FAN - 1]->last_txid, "three segments in a row"};
	}
	/* Level 2: whenever three of level 1 lie behind whatever level 2 there is, all since the
	 * base; not more of them at once, or moments in the middle of a backlog stay deep. */
	size_t ones = 0;
	for (size_t i = 0; i < w->n && w->o[i]->lineage == w->o[0]->lineage; i++) {
		if (w->o[i]->type != HISTORY_COALESCED || covered(s, w->o[i]) > FAN || ++ones < FAN)
			continue;
		job = (struct compact_job){COMPACT_COALESCE, w->o[0]->lineage, w->o[0]->first_txid,
		                           w->o[i]->last_txid, "three coalesced objects in a row"};
		break;
	}
	return job;
}

/* What a base can be made of: the state behind one object of the way, the last that is whole,
 * or where the way is too long the last that is not too far. */
static const struct history_object *base_place(const struct state *s, const struct way *w,
                                               size_t limit)
{
	const struct history_object *best = NULL;

	for (size_t i = 0; i < w->n && (i < limit || !best); i++)
		if (!w->o[i]->unsettled_end && w->o[i]->last_txid > s->base->last_txid)
			best = w->o[i];
	return best;
}

static struct compact_job plan_base(const struct state *s, const struct way *w)
{
	uint64_t fine = 0, widest = 0;
	const char *reason = NULL;

	const struct history_object *at = base_place(s, w, w->n);
	if (!at)
		return (struct compact_job){.type = COMPACT_NOTHING};
	for (size_t i = 0; i < s->n; i++) {
		const struct history_object *o = &s->objects[i];
		if (is_fine(o) && o->last_txid > s->base->last_txid &&
		    o->last_txid <= at->last_txid)
			fine += o->bytes;
	}
	for (size_t i = 0; i < w->n; i++)
		if (w->o[i]->type == HISTORY_COALESCED && covered(s, w->o[i]) > FAN &&
		    w->o[i]->bytes > widest)
			widest = w->o[i]->bytes;
	if (fine > 8 * s->base->bytes) {
		reason = "segments since the base are eight times its size";
	} else if (10 * widest > 3 * s->base->bytes) {
		reason = "what lies over the base exceeds 30 % of it";
	} else if (w->n > DEPTH_SOFT) {
		reason = "too many objects over the base";
		at = base_place(s, w, DEPTH_SOFT);
	}
	if (!reason)
		return (struct compact_job){.type = COMPACT_NOTHING};
	return (struct compact_job){COMPACT_BASE, at->lineage, 0, at->last_txid, reason};
}

static struct compact_job plan_seal(const struct state *s)
{
	const struct history_object *oldest = NULL;

	for (size_t i = 0; i < s->n; i++) {
		const struct history_object *o = &s->objects[i];
		if (o->type == HISTORY_GROWING && is_fine(o) &&
		    (!oldest || o->first_txid < oldest->first_txid))
			oldest = o;
	}
	if (!oldest)
		return (struct compact_job){.type = COMPACT_NOTHING};
	return (struct compact_job){COMPACT_SEAL, oldest->lineage, oldest->first_txid,
	                            oldest->last_txid, "closed segment"};
}

static struct compact_job plan_join(const struct state *s, uint64_t join_bytes)
{
	const struct history_object *first = NULL, *last = NULL;
	uint64_t bytes = 0;
	size_t run = 0;

	for (size_t i = 0; i < s->n; i++) { /* segments are sorted by their first txid */
		const struct history_object *o = &s->objects[i];
		if (o->type != HISTORY_SEGMENT)
			continue;
		bool fits = last && o->lineage == last->lineage &&
		            o->first_txid == last->last_txid + 1 && o->bytes < join_bytes &&
		            bytes + o->bytes <= JOIN_MAX_BYTES;
		if (!fits) {
			if (run >= JOIN_COUNT)
				break;
			first = o->bytes < join_bytes ? o : NULL;
			run = first ? 1 : 0;
			bytes = o->bytes;
			last = first;
			continue;
		}
		last = o;
		run++;
		bytes += o->bytes;
	}
	if (run < JOIN_COUNT)
		return (struct compact_job){.type = COMPACT_NOTHING};
	return (struct compact_job){COMPACT_JOIN, first->lineage, first->first_txid,
	                            last->last_txid, "small segments in a row"};
}

struct compact_job compact_plan(const struct history_object *objects, size_t n, uint64_t join_bytes)
{
	struct state s = {objects, n, newest_base(objects, n)};
	struct compact_job job = {.type = COMPACT_NOTHING};
	struct way way;

	if (!s.base)
		return job; /* the first snapshot is under way: nothing is worth doing before it */
	find_way(&s, &way);
	/* Coalescing first: what lies between two bases is never looked at again, so it must be as
	 * shallow as it is to stay before a new base is made. */
	job = plan_coalesce(&s, &way);
	if (job.type == COMPACT_NOTHING)
		job = plan_base(&s, &way);
	if (job.type == COMPACT_NOTHING)
		job = plan_seal(&s);
	if (job.type == COMPACT_NOTHING)
		job = plan_join(&s, join_bytes);
	return job;
}
