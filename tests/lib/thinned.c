/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/thinned.h"

#include <stdlib.h>
#include <string.h>

#define STEPS_MAX 2000u

FILE *thinned_log(void)
{
	return getenv("ASOF_TEST_LOG") ? stderr : NULL;
}

void thinned_policy(struct retain_policy *p, const char *tiers, int64_t grace_us)
{
	struct err err = ERR_INIT;

	retain_policy_default(p);
	synth_must(retain_tiers_parse(tiers, p, &err), &err, tiers);
	p->grace_us = grace_us;
	p->min_free_percent = 0;
}

void thinned_random_policy(struct rng *r, struct retain_policy *p)
{
	static const char *const rows[] = {
	        "all:3d,1h:30d,1d:365d",
	        "all:72h",
	        "all:1h",
	        "all:90m,10m:1d",
	        "1h:10d",
	        "5m:1h,1h:20d",
	        "all:1d,1d:forever",
	        "all:2h,15m:6h,1h:2d,1d:9d",
	        "all:forever",
	        "all:10m,1m:1h",
	        "1d:3d",
	};

	const char *row = rows[rng_below(r, sizeof(rows) / sizeof(*rows))];
	thinned_policy(p, row, rng_chance(r, 50) ? 0 : (int64_t)rng_below(r, 3 * DAY));
}

void kept_grow(struct kept *k, const struct synth *s)
{
	size_t n = s->n_states;

	k->times = realloc(k->times, n * sizeof(*k->times));
	k->alive = realloc(k->alive, n * sizeof(*k->alive));
	if (!k->times || !k->alive)
		synth_die("no memory");
	for (size_t i = 0; i < n; i++) {
		k->times[i] = s->states[i].commit.time_us;
		if (i >= k->fine) /* a later snapshot can make an unsettled one viewable */
			k->alive[i] = synth_viewable(s, i + 1);
	}
	k->n = n;
}

void kept_release(struct kept *k)
{
	free(k->times);
	free(k->alive);
	*k = (struct kept){0};
}

void thinned_upkeep(struct synth *s, struct compactor *c)
{
	static const _Atomic bool stop;
	struct compactor *own = NULL;
	struct err err = ERR_INIT;
	bool did = true;

	if (!c)
		synth_must(compactor_new(s->root, s->name, &own, &err), &err, "compactor_new");
	for (unsigned i = 0; did; i++) {
		if (i == STEPS_MAX)
			synth_die("upkeep finds no end");
		synth_must(compactor_step(c ? c : own, &stop, &did, &err), &err, "compactor_step");
		synth_generation(s);
	}
	compactor_free(own);
}

void thinned_forget_objects(struct synth *s)
{
	for (size_t n = s->n_objects; n-- > 0;)
		if (s->objects[n].name.type != OBJECT_SNAPSHOT)
			memmove(&s->objects[n], &s->objects[n + 1],
			        (--s->n_objects - n) * sizeof(s->objects[0]));
}
