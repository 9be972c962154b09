/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/compact/compact.h"

#include <stdlib.h>

#define FAN 3u
#define DEPTH_SOFT 6u
#define JOIN_COUNT 8u
#define JOIN_MAX_BYTES (48u << 20)
#define JOIN_MAX_US (24 * 3600 * INT64_C(1000000))

struct state {
	const struct history_object *objects;
	size_t n;
	const struct history_object *base;
	uint64_t limit; /* nothing behind it is looked at */
};

static bool is_fine(const struct history_object *o)
{
	return (o->type == HISTORY_SEGMENT || o->type == HISTORY_GROWING) && !o->current &&
	       !o->broken && o->last_txid >= o->first_txid;
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
		if (!(is_fine(o) || (o->type == HISTORY_COALESCED && !o->broken)) ||
		    o->first_txid > pos + 1 || o->last_txid <= pos || o->last_txid > s->limit)
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
		if (w->o[i]->type != HISTORY_COALESCED || covered(s, w->o[i]) > FAN ||
		    ++ones < FAN || w->o[i]->unsettled_end)
			continue;
		job = (struct compact_job){COMPACT_COALESCE, w->o[0]->lineage, w->o[0]->first_txid,
		                           w->o[i]->last_txid, "three coalesced objects in a row"};
		break;
	}
	return job;
}

/* Where the way is too long: the state behind the last object that is whole and not too far. */
static const struct history_object *base_place(const struct state *s, const struct way *w,
                                               size_t limit)
{
	const struct history_object *best = NULL;

	for (size_t i = 0; i < w->n && (i < limit || !best); i++)
		if (!w->o[i]->unsettled_end && w->o[i]->last_txid > s->base->last_txid)
			best = w->o[i];
	return best;
}

/* Segments are written as they come and take less once they are sealed; how much less is known
 * only then. */
static uint64_t sealed_bytes(const struct history_object *o)
{
	return o->type == HISTORY_GROWING ? o->bytes / 4 : o->bytes;
}

/*
 * The first place where what lies over the base has outgrown it; NULL: there is none.  After a
 * backlog that place is far behind the newest segment, and another base may follow.
 */
static const struct history_object *outgrown(const struct state *s, const struct way *w,
                                             const char **reason)
{
	const struct history_object *best = NULL;
	uint64_t fine = 0;

	for (size_t i = 0; i < s->n && !best; i++) { /* fine ones are in the order of their txids */
		const struct history_object *o = &s->objects[i];
		if (!is_fine(o) || o->last_txid <= s->base->last_txid)
			continue;
		fine += sealed_bytes(o);
		if (fine > 8 * s->base->bytes && !o->unsettled_end)
			best = o;
	}
	*reason = "segments since the base are eight times its size";
	for (size_t i = 0; i < w->n; i++) {
		const struct history_object *o = w->o[i];
		if (o->type == HISTORY_COALESCED && !o->unsettled_end &&
		    o->last_txid > s->base->last_txid && covered(s, o) > FAN &&
		    10 * o->bytes > 3 * s->base->bytes &&
		    (!best || o->last_txid < best->last_txid)) {
			best = o;
			*reason = "what lies over the base exceeds 30 % of it";
		}
	}
	return best;
}

static struct compact_job base_job(const struct history_object *at, const char *reason)
{
	return (struct compact_job){COMPACT_BASE, at->lineage, 0, at->last_txid, reason};
}

/*
 * What lies between two bases is never looked at again, so it must be as shallow as it is to stay
 * before the next base is made: first coalescing up to that place, then the base.
 */
static struct compact_job plan_depth(struct state *s)
{
	struct way w;
	const char *reason;

	find_way(s, &w);
	const struct history_object *at = outgrown(s, &w, &reason);
	if (at) {
		s->limit = at->last_txid;
		find_way(s, &w);
	}
	struct compact_job job = plan_coalesce(s, &w);
	if (job.type != COMPACT_NOTHING)
		return job;
	if (at)
		return base_job(at, reason);
	at = w.n > DEPTH_SOFT ? base_place(s, &w, DEPTH_SOFT) : NULL;
	return at ? base_job(at, "too many objects over the base") : job;
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

/* What is larger than all that follows it in the run was joined before: it is left out, or it
 * would be written again each time. */
static const struct history_object *join_first(const struct history_object *first,
                                               const struct history_object *last, size_t *run,
                                               uint64_t bytes)
{
	for (const struct history_object *o = first; o < last; o++) {
		if (o->type != HISTORY_SEGMENT || 2 * o->bytes <= bytes)
			return o;
		bytes -= o->bytes;
		--*run;
	}
	return last;
}

static struct compact_job plan_join(const struct state *s, uint64_t join_bytes)
{
	const struct history_object *first = NULL, *last = NULL;
	uint64_t bytes = 0;
	size_t run = 0;

	for (size_t i = 0; i < s->n; i++) { /* segments are sorted by their first txid */
		const struct history_object *o = &s->objects[i];
		if (o->type != HISTORY_SEGMENT || o->broken)
			continue;
		/* Retention deletes segments as a whole: one day of them is enough. */
		bool fits = first && o->lineage == last->lineage &&
		            o->first_txid == last->last_txid + 1 && o->bytes < join_bytes &&
		            bytes + o->bytes <= JOIN_MAX_BYTES &&
		            o->last_us - first->first_us <= JOIN_MAX_US;
		if (!fits) {
			first = o->bytes < join_bytes ? o : NULL;
			run = first ? 1 : 0;
			bytes = o->bytes;
			last = o;
			continue;
		}
		last = o;
		run++;
		bytes += o->bytes;
		size_t count = run;
		const struct history_object *from = join_first(first, last, &count, bytes);
		if (count >= JOIN_COUNT)
			return (struct compact_job){COMPACT_JOIN, from->lineage, from->first_txid,
			                            last->last_txid, "small segments in a row"};
	}
	return (struct compact_job){.type = COMPACT_NOTHING};
}

struct compact_job compact_plan(const struct history_object *objects, size_t n, uint64_t join_bytes)
{
	struct state s = {objects, n, newest_base(objects, n), UINT64_MAX};
	struct compact_job job = {.type = COMPACT_NOTHING};

	if (!s.base)
		return job; /* the first snapshot is under way: nothing is worth doing before it */
	job = plan_depth(&s);
	if (job.type == COMPACT_NOTHING)
		job = plan_seal(&s);
	if (job.type == COMPACT_NOTHING)
		job = plan_join(&s, join_bytes);
	return job;
}
