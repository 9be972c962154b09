/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/units.h"
#include "engine/retain/plan.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define HOUR_US (3600 * US_PER_SECOND)
#define DAY_US (24 * HOUR_US)
#define EIGHTHS 8

void retain_policy_default(struct retain_policy *ret)
{
	*ret = (struct retain_policy){
	        .tiers = {{3 * DAY_US, 0}, {30 * DAY_US, HOUR_US}, {365 * DAY_US, DAY_US}},
	        .n_tiers = 3,
	        .grace_us = RETAIN_GRACE_US,
	        .min_free_percent = RETAIN_MIN_FREE_PERCENT,
	};
}

static bool parse_duration(const char *p, size_t len, int64_t *ret)
{
	char text[DURATION_STR_MAX];

	if (len >= sizeof(text))
		return false;
	memcpy(text, p, len);
	text[len] = '\0';
	return duration_parse(text, ret, NULL) == 0;
}

int retain_policy_check(const struct retain_policy *p, struct err *err)
{
	if (p->n_tiers > RETAIN_TIERS_MAX || p->grace_us < 0 || p->min_free_percent > 100)
		return err_set(err, ERR_USAGE, 0, "the retention policy is out of bounds");
	for (size_t i = 0; i < p->n_tiers; i++) {
		if (p->tiers[i].age_us <= 0 || p->tiers[i].every_us < 0)
			return err_set(err, ERR_USAGE, 0,
			               "a retention tier keeps nothing (give it an age)");
		if (i > 0 && (p->tiers[i].age_us <= p->tiers[i - 1].age_us ||
		              p->tiers[i].every_us <= p->tiers[i - 1].every_us))
			return err_set(err, ERR_USAGE, 0,
			               "retention tiers must go from the finest and shortest to "
			               "the coarsest "
			               "and longest (as in all:3d,1h:30d,1d:365d)");
	}
	return 0;
}

static bool parse_tier(const char *p, size_t len, struct retain_tier *ret)
{
	const char *colon = memchr(p, ':', len);

	if (!colon)
		return false;
	size_t n = (size_t)(colon - p), m = len - n - 1;
	if (n == 3 && memcmp(p, "all", 3) == 0)
		ret->every_us = 0;
	else if (!parse_duration(p, n, &ret->every_us) || ret->every_us == 0)
		return false;
	if (m == 7 && memcmp(colon + 1, "forever", 7) == 0) {
		ret->age_us = INT64_MAX;
		return true;
	}
	return parse_duration(colon + 1, m, &ret->age_us);
}

int retain_tiers_parse(const char *text, struct retain_policy *ret, struct err *err)
{
	struct retain_policy p = *ret;

	p.n_tiers = 0;
	for (const char *at = text;;) {
		size_t len = strcspn(at, ",");
		if (p.n_tiers == RETAIN_TIERS_MAX)
			return err_set(err, ERR_USAGE, 0, "more than %d retention tiers",
			               RETAIN_TIERS_MAX);
		if (!parse_tier(at, len, &p.tiers[p.n_tiers++]))
			return err_set(
			        err, ERR_USAGE, 0,
			        "'%.100s' is no row of retention tiers (write EVERY:AGE, as in "
			        "all:3d,1h:30d,1d:365d)",
			        text);
		if (!at[len])
			break;
		at += len + 1;
	}
	int rc = retain_policy_check(&p, err);
	if (rc == 0)
		*ret = p;
	return rc;
}

static size_t put_duration(int64_t us, char *out, size_t size)
{
	char text[DURATION_STR_MAX] = "forever";

	if (us != INT64_MAX)
		duration_format(us, text);
	return (size_t)snprintf(out, size, "%s", text);
}

void retain_policy_format(const struct retain_policy *p, char out[RETAIN_POLICY_STR_MAX])
{
	size_t n = 0;

	out[0] = '\0';
	for (size_t i = 0; i < p->n_tiers && n + 2 * DURATION_STR_MAX < RETAIN_POLICY_STR_MAX;
	     i++) {
		if (i > 0)
			out[n++] = ',';
		if (p->tiers[i].every_us == 0)
			n += (size_t)snprintf(out + n, 8, "all");
		else
			n += put_duration(p->tiers[i].every_us, out + n, DURATION_STR_MAX);
		out[n++] = ':';
		n += put_duration(p->tiers[i].age_us, out + n, DURATION_STR_MAX);
	}
	if (p->n_tiers == 0)
		snprintf(out, RETAIN_POLICY_STR_MAX, "all:forever");
}

int64_t retain_step_us(const struct retain_policy *p)
{
	const struct retain_tier *last = &p->tiers[p->n_tiers - 1];

	if (last->every_us > 0)
		return last->every_us;
	int64_t step = last->age_us / 24;
	return step < 1 ? 1 : step > DAY_US ? DAY_US : step;
}

bool retain_shorten(const struct retain_policy *p, int64_t oldest_us, int64_t now_us,
                    unsigned level, struct retain_policy *ret)
{
	struct retain_policy s = *p;
	size_t first = level / EIGHTHS; /* tiers before it are gone */
	int64_t left = EIGHTHS - level % EIGHTHS;

	if (p->n_tiers == 0) { /* what is kept for ever is one tier */
		s.tiers[0] = (struct retain_tier){INT64_MAX, 0};
		s.n_tiers = 1;
	}
	if (first >= s.n_tiers)
		return false;
	memmove(s.tiers, s.tiers + first, (s.n_tiers - first) * sizeof(*s.tiers));
	s.n_tiers -= first;
	int64_t age = s.tiers[0].age_us;
	if (age == INT64_MAX || age > now_us - oldest_us)
		age = now_us > oldest_us ? now_us - oldest_us : 1;
	if (left < EIGHTHS)
		s.tiers[0].age_us = age / EIGHTHS * left > 0 ? age / EIGHTHS * left : 1;
	*ret = s;
	return true;
}
