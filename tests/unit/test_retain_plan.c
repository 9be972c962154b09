/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Retention: the plan alone against the definition of a policy, on timelines of any kind; and what
 * policies look like as text.
 */
#include "engine/base/log.h"
#include "engine/retain/plan.h"
#include "tests/lib/thinned.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

struct timeline {
	int64_t *times;
	bool *alive;
	size_t n;
};

static int fake_before(void *ctx, int64_t time_us, struct retain_point *ret, struct err *err)
{
	const struct timeline *t = ctx;
	size_t lo = 0, hi = t->n;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;
		if (t->times[mid] <= time_us)
			lo = mid + 1;
		else
			hi = mid;
	}
	while (lo > 0 && !t->alive[lo - 1])
		lo--;
	if (lo == 0)
		return err_set(err, ERR_NOT_FOUND, 0, "none");
	*ret = (struct retain_point){lo, t->times[lo - 1], NULL};
	return 0;
}

static int fake_at(void *ctx, uint64_t txid, struct retain_point *ret, struct err *err)
{
	const struct timeline *t = ctx;

	if (txid == 0 || txid > t->n || !t->alive[txid - 1])
		return err_set(err, ERR_NOT_FOUND, 0, "no such");
	*ret = (struct retain_point){txid, t->times[txid - 1], NULL};
	return 0;
}

static void make_timeline(struct rng *r, struct timeline *t, size_t n)
{
	int64_t now = INT64_C(1705314600000000);

	t->n = n;
	t->times = calloc(n, sizeof(*t->times));
	t->alive = calloc(n, sizeof(*t->alive));
	uint64_t pace = UINT64_C(1) << rng_below(r, 34);
	for (size_t i = 0; i < n; i++) {
		if (rng_chance(r, 1))
			pace = UINT64_C(1) << rng_below(r, 36);
		now += 1 + (int64_t)rng_below(r, pace);
		t->times[i] = now;
		t->alive[i] = !rng_chance(r, 2);
	}
	t->alive[0] = true;
}

/* Whether readers reach `until` from `pos` over what is left. */
static bool reaches(const struct history_object *o, const bool *gone, size_t n,
                    const struct retain_plan *p, uint64_t pos, uint64_t until, size_t *depth)
{
	*depth = 0;
	while (pos < until) {
		uint64_t best = pos;
		for (size_t i = 0; i < n; i++)
			if (!gone[i] && o[i].type == HISTORY_COALESCED &&
			    o[i].first_txid <= pos + 1 && o[i].last_txid <= until &&
			    o[i].last_txid > best)
				best = o[i].last_txid;
		for (size_t i = 0; i < p->n_jobs; i++)
			if (p->jobs[i].type != RETAIN_BASE && p->jobs[i].after_txid <= pos &&
			    p->jobs[i].until_txid <= until && p->jobs[i].until_txid > best)
				best = p->jobs[i].until_txid;
		if (best == pos)
			return false;
		pos = best;
		++*depth;
	}
	return true;
}

/* Plan invariants (2) and (4): every point has a base, connected with it, and a short way. */
static void check_reach(const struct retain_input *in, const struct retain_plan *p)
{
	for (size_t i = 0; i < p->n_points; i++) {
		uint64_t base = 0, redo = 0, root = 0, at = p->points[i].txid;
		size_t depth;
		for (size_t k = 0; k < in->n; k++) {
			const struct history_object *o = &in->objects[k];
			if (o->type != HISTORY_SNAPSHOT || o->last_txid > at)
				continue;
			if (in->roots[k] && o->last_txid > root)
				root = o->last_txid;
			if (!p->expire[k] && o->last_txid >= base) {
				base = o->last_txid;
				redo = o->first_txid - 1;
			}
		}
		for (size_t k = 0; k < p->n_jobs; k++)
			if (p->jobs[k].type == RETAIN_BASE && p->jobs[k].until_txid <= at &&
			    p->jobs[k].until_txid >= base)
				base = redo = p->jobs[k].until_txid;
		assert_true(base > 0 && base >= root);
		assert_true(reaches(in->objects, p->expire, in->n, p, redo, at, &depth));
		assert_true(depth <= RETAIN_DEPTH);
	}
}

static struct history_object object(int type, uint64_t first, uint64_t last, uint64_t bytes)
{
	struct history_object o = {.first_txid = first, .last_txid = last, .bytes = bytes};

	o.type = type == 0 ? HISTORY_SEGMENT : type == 1 ? HISTORY_COALESCED : HISTORY_SNAPSHOT;
	return o;
}

/* Carries the plan out, as far as objects tell of it. */
static size_t carry_out(const struct retain_plan *p, struct history_object *o, bool *roots,
                        size_t n, struct rng *r)
{
	size_t kept = 0;

	for (size_t i = 0; i < n; i++) {
		if (p->expire[i])
			continue;
		roots[kept] = roots[i];
		o[kept++] = o[i];
	}
	for (size_t i = 0; i < p->n_jobs; i++) {
		const struct retain_job *j = &p->jobs[i];
		roots[kept] = false;
		o[kept++] = j->type == RETAIN_BASE
		                    ? object(2, j->until_txid + 1, j->until_txid, 10000)
		                    : object(1, j->after_txid + 1, j->until_txid,
		                             1 + rng_below(r, 5000));
	}
	return kept;
}

/* No farther than the policy lets it, and so far that every segment goes that may go. */
static void check_fine(const struct kept *k, const struct retain_policy *policy, int64_t now,
                       const struct history_object *o, size_t n, uint64_t fine)
{
	uint64_t limit = kept_limit(k, policy, now), whole = 0;

	for (size_t i = 0; i < n; i++)
		if (o[i].type != HISTORY_SNAPSHOT && o[i].type != HISTORY_COALESCED &&
		    o[i].last_txid <= limit && o[i].last_txid > k->fine && o[i].last_txid > whole)
			whole = o[i].last_txid;
	if (whole == 0 && fine != k->fine)
		synth_die("thinned up to %" PRIu64 " though no segment could go", fine);
	if (whole > 0 && (fine < whole || fine > limit) && fine < whole - 3)
		synth_die("thinned up to %" PRIu64 ", not within %" PRIu64 " and %" PRIu64, fine,
		          whole, limit);
	assert_true(fine >= k->fine && fine <= limit);
}

static void plan_one_timeline(struct rng *r, uint64_t seed)
{
	struct timeline t;
	struct retain_policy policy;
	size_t n = 40 + rng_below(r, 400), cap = 20 * n + 2000, n_o = 0, n_marks = rng_below(r, 4);
	struct history_object *o = calloc(cap, sizeof(*o));
	bool *roots = calloc(cap, sizeof(*roots));
	struct mark marks[4];
	uint64_t marked[4];
	bool *alive = calloc(n, sizeof(*alive));

	assert_true(o && roots && alive);
	make_timeline(r, &t, n);
	memcpy(alive, t.alive, n);
	for (uint64_t at = 1; at <= n;) { /* segments of any length, a snapshot now and then */
		uint64_t last = at + rng_below(r, 60);
		last = last > n ? n : last;
		o[n_o++] = object(0, at, last, 100 * (last - at + 1));
		if (t.alive[last - 1] && rng_chance(r, 30))
			o[n_o++] = object(2, last + 1, last, 10000);
		at = last + 1;
	}
	o[n_o] = object(2, 2, 1, 10000);
	roots[n_o++] = true;
	struct kept k = {t.times, alive, n, 0};
	int64_t now = t.times[n / 2];
	uint64_t fine = 0;
	for (unsigned pass = 0; pass < 6; pass++) {
		struct err err = ERR_INIT;
		struct retain_plan p;
		thinned_random_policy(r, &policy);
		now += (int64_t)rng_below(r, (uint64_t)(t.times[n - 1] - t.times[0]) / 3 + HOUR);
		for (size_t i = 0; i < n_marks; i++) {
			marked[i] = 1 + rng_below(r, n);
			marks[i] = (struct mark){.txid = marked[i]};
		}
		const struct retain_input in = {o,           roots,   n_o,     fine,
		                                marks,       n_marks, &policy, now,
		                                fake_before, fake_at, &t};
		synth_must(retain_plan(&in, &p, &err), &err, "plan");
		check_fine(&k, &policy, now, o, n_o, p.fine_txid);
		kept_pass(&k, &policy, now, marked, n_marks, p.fine_txid);
		size_t at = 0;
		for (uint64_t x = 1; x <= k.fine; x++) {
			bool point = at < p.n_points && p.points[at].txid == x;
			if (point != alive[x - 1])
				synth_die("timeline %" PRIu64 ": %" PRIu64 " is %skept", seed, x,
				          point ? "" : "not ");
			at += point;
		}
		assert_int_equal(at, p.n_points);
		check_reach(&in, &p);
		for (size_t i = 0; i < n_o; i++)
			if (p.expire[i])
				assert_true(o[i].last_txid <= p.fine_txid);
		n_o = carry_out(&p, o, roots, n_o, r);
		assert_true(n_o + 2000 < cap);
		memcpy(t.alive, alive, n);
		fine = p.fine_txid;
		retain_plan_release(&p);
	}
	free(t.times);
	free(t.alive);
	free(alive);
	free(roots);
	free(o);
}

static void test_plan_is_the_policy(void **state)
{
	uint64_t seed = test_seed();

	for (unsigned i = 0; i < test_rounds(400); i++) {
		struct rng r = {seed + i};
		plan_one_timeline(&r, seed + i);
	}
}

static void test_policy_texts(void **state)
{
	static const char *const good[] = {"all:3d,1h:30d,1d:365d", "all:72h", "1h:30d",
	                                   "all:1h30m,5m:2d,1d:forever"};
	static const char *const bad[] = {"",
	                                  "all",
	                                  "all:",
	                                  "3d",
	                                  "all:3x",
	                                  "1h:3d,all:5d",
	                                  "all:3d,1h:2d",
	                                  "all:0s",
	                                  "all:3d,,1d:9d",
	                                  "0s:3d",
	                                  "all:-3d",
	                                  "all:99999999999d"};
	struct retain_policy p, q;
	char text[RETAIN_POLICY_STR_MAX];
	struct err err = ERR_INIT;

	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
		retain_policy_default(&p);
		q = p;
		synth_must(retain_tiers_parse(good[i], &p, &err), &err, good[i]);
		retain_policy_format(&p, text);
		synth_must(retain_tiers_parse(text, &q, &err), &err, text);
		assert_int_equal(p.n_tiers, q.n_tiers);
		assert_memory_equal(p.tiers, q.tiers, p.n_tiers * sizeof(*p.tiers));
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		retain_policy_default(&p);
		if (retain_tiers_parse(bad[i], &p, &err) == 0)
			synth_die("'%s' is taken for a policy", bad[i]);
		assert_int_equal(err.kind, ERR_USAGE);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_policy_texts),
	        cmocka_unit_test(test_plan_is_the_policy),
	};
	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
