/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/kept.h"

#include <stdlib.h>

#define DAY (24 * 3600 * US_PER_SECOND)

static int64_t stretch(int64_t time_us, int64_t every_us)
{
	int64_t n = time_us / every_us;

	return time_us % every_us < 0 ? n - 1 : n;
}

/* The coarseness in which the end of tier `i` moves. */
static int64_t moves_by(const struct retain_policy *p, size_t i)
{
	if (i + 1 < p->n_tiers)
		return p->tiers[i + 1].every_us;
	if (p->tiers[i].every_us)
		return p->tiers[i].every_us;
	int64_t step = p->tiers[i].age_us / 24;
	return step < 1 ? 1 : step > DAY ? DAY : step;
}

static int64_t begins(const struct retain_policy *p, size_t i, int64_t now_us)
{
	if (p->tiers[i].age_us == INT64_MAX)
		return INT64_MIN;
	int64_t step = moves_by(p, i);
	return stretch(now_us - p->tiers[i].age_us, step) * step;
}

/* The last one alive with time < end. */
static uint64_t last_before(const struct kept *k, int64_t end_us)
{
	uint64_t best = 0;

	for (size_t i = 0; i < k->n; i++)
		if (k->alive[i] && k->times[i] < end_us)
			best = i + 1;
	return best;
}

uint64_t kept_limit(const struct kept *k, const struct retain_policy *p, int64_t now_us)
{
	uint64_t newest = last_before(k, INT64_MAX), u;
	int64_t end = INT64_MIN;

	if (p->n_tiers && p->tiers[0].every_us == 0)
		end = begins(p, 0, now_us);
	else if (p->n_tiers)
		end = stretch(now_us, p->tiers[0].every_us) * p->tiers[0].every_us;
	u = last_before(k, end);
	if (u >= newest && newest)
		u = last_before(k, k->times[newest - 1]);
	return u > k->fine ? u : k->fine;
}

static bool marked(uint64_t txid, const uint64_t *marks, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (marks[i] == txid)
			return true;
	return false;
}

static bool last_of_stretch(const struct kept *k, uint64_t txid, int64_t every_us)
{
	for (uint64_t t = txid + 1; t <= k->fine; t++)
		if (k->alive[t - 1])
			return stretch(k->times[t - 1], every_us) !=
			       stretch(k->times[txid - 1], every_us);
	return true;
}

void kept_pass(struct kept *k, const struct retain_policy *p, int64_t now_us, const uint64_t *marks,
               size_t n_marks, uint64_t fine)
{
	k->fine = fine;
	if (k->fine == 0 || p->n_tiers == 0)
		return;
	int64_t first = begins(p, p->n_tiers - 1, now_us);
	uint64_t beginning = first == INT64_MIN ? 0 : last_before(k, first);
	bool *keep = calloc(k->fine, sizeof(*keep));

	for (uint64_t t = 1; keep && t <= k->fine; t++) {
		keep[t - 1] = t == k->fine || t == beginning || marked(t, marks, n_marks);
		for (size_t i = 0; i < p->n_tiers; i++)
			if (p->tiers[i].every_us && k->times[t - 1] >= begins(p, i, now_us) &&
			    last_of_stretch(k, t, p->tiers[i].every_us))
				keep[t - 1] = true;
	}
	for (uint64_t t = 1; keep && t <= k->fine; t++)
		k->alive[t - 1] = k->alive[t - 1] && keep[t - 1];
	free(keep);
}
