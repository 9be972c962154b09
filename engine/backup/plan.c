/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which backups go.  For each database and type the rules look at the backups newest first; what
 * no rule keeps goes, unless it is the last good one of its database in all folders together.
 */
#include "engine/backup/backup_i.h"

#include "engine/base/clock.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define DAY_US (INT64_C(86400) * US_PER_SECOND)

void backup_retention_default(struct backup_retention *ret)
{
	*ret = (struct backup_retention){.types = {
	                                         [BACKUP_MANUAL] = {.max_age_us = 7 * DAY_US},
	                                         [BACKUP_AUTOMATED] = {.max_age_us = 7 * DAY_US},
	                                         [BACKUP_COMPRESSED] = {.max_age_us = 30 * DAY_US},
	                                 }};
}

void backup_plan_release(struct backup_plan *plan)
{
	free(plan->verdicts);
	*plan = (struct backup_plan){0};
}

/* ---- the rules ---- */

/* Calendar periods by number: two moments are in one period if their numbers are equal. */
enum period { HOUR, DAY, WEEK, MONTH, YEAR, N_PERIODS };
static const char *const period_names[N_PERIODS] = {"hour", "day", "week", "month", "year"};

static int64_t period_of(int64_t time_us, enum period p)
{
	int64_t s = time_us / US_PER_SECOND - (time_us % US_PER_SECOND < 0);
	time_t t = (time_t)s;
	struct tm tm;

	if (!localtime_r(&t, &tm))
		gmtime_r(&t, &tm);
	/* Days since an epoch of local calendars, as if local time were UTC. */
	struct civil c = {.year = tm.tm_year + 1900, .month = tm.tm_mon + 1, .day = tm.tm_mday};
	int64_t day = civil_to_us(&c) / DAY_US - (civil_to_us(&c) % DAY_US < 0);
	switch (p) {
	case HOUR: /* one that a time change repeats is two */
		return (s + tm.tm_gmtoff) / 3600 * 2 + (tm.tm_isdst > 0);
	case DAY:
		return day;
	case WEEK: /* 1970-01-05 was a Monday */
		return (day - 4) / 7 - ((day - 4) % 7 < 0);
	case MONTH:
		return (int64_t)c.year * 12 + c.month;
	default:
		return c.year;
	}
}

/* What the rules have counted of one database and type so far. */
struct tally {
	unsigned n;
	unsigned n_periods[N_PERIODS];
	int64_t last[N_PERIODS];
};

static bool any_rule(const struct backup_keep *k)
{
	return k->max_age_us || k->count || k->hourly || k->daily || k->weekly || k->monthly ||
	       k->yearly;
}

/* Whether it is the newest of one of the last so many periods. */
static bool keeps_period(struct tally *t, enum period p, unsigned limit, int64_t time_us)
{
	int64_t number = period_of(time_us, p);

	if (t->n_periods[p] && t->last[p] == number)
		return false;
	t->last[p] = number;
	return t->n_periods[p]++ < limit;
}

static void format_days(int64_t us, char out[32])
{
	if (us % DAY_US == 0)
		snprintf(out, 32, "%" PRId64 " day%s", us / DAY_US, us == DAY_US ? "" : "s");
	else
		snprintf(out, 32, "%.1f hours", (double)us / (3600.0 * US_PER_SECOND));
}

static void judge(const struct backup_keep *k, struct tally *t, int64_t now_us,
                  struct backup_verdict *v)
{
	const unsigned limits[N_PERIODS] = {k->hourly, k->daily, k->weekly, k->monthly, k->yearly};
	int64_t age_us = now_us - v->entry->time_us;
	char days[32];
	int period = -1;

	v->remove = false;
	if (v->entry->foreign) {
		snprintf(v->reason, sizeof(v->reason), "not named as a backup is");
		return;
	}
	t->n++;
	/* All are counted, whichever of them keeps it. */
	for (int p = 0; p < N_PERIODS; p++)
		if (limits[p] && keeps_period(t, (enum period)p, limits[p], v->entry->time_us) &&
		    period < 0)
			period = p;
	if (!any_rule(k)) {
		snprintf(v->reason, sizeof(v->reason), "no rule for %s backups",
		         backup_type_names[v->entry->type]);
	} else if (k->max_age_us && age_us <= k->max_age_us) {
		format_days(k->max_age_us, days);
		snprintf(v->reason, sizeof(v->reason), "not older than %s", days);
	} else if (k->count && t->n <= k->count) {
		snprintf(v->reason, sizeof(v->reason), "one of the newest %u", k->count);
	} else if (period >= 0) {
		snprintf(v->reason, sizeof(v->reason), "newest of its %s, within the last %u",
		         period_names[period], limits[period]);
	} else {
		v->remove = true;
		format_days(k->max_age_us, days);
		if (k->max_age_us)
			snprintf(v->reason, sizeof(v->reason), "older than %s", days);
		else
			snprintf(v->reason, sizeof(v->reason), "no rule keeps it");
	}
}

/* ---- the last good one ---- */

struct planning {
	struct backup_plan *plan;
	size_t *order; /* indexes of verdicts: by database, then newest first */
	int (*is_good)(void *ctx, const struct backup_entry *e, struct err *err);
	void *ctx;
};

static int ask(const struct planning *p, const struct backup_verdict *v, struct err *err)
{
	/* A raw copy of a damaged database, and one of nothing, are no way back. */
	if (v->entry->raw || v->entry->size_bytes == 0)
		return 0;
	return p->is_good ? p->is_good(p->ctx, v->entry, err) : 1;
}

/* Newest first, the first good one among those with that verdict; NULL: there is none. */
static int find_good(const struct planning *p, const size_t *order, size_t n, bool removed,
                     struct backup_verdict **ret, struct err *err)
{
	*ret = NULL;
	for (size_t i = 0; i < n; i++) {
		struct backup_verdict *v = &p->plan->verdicts[order[i]];
		if (v->remove != removed)
			continue;
		int good = ask(p, v, err);
		if (good < 0)
			return good;
		if (good) {
			*ret = v;
			return 0;
		}
	}
	return 0;
}

/* Of one database. */
static int keep_last_good(const struct planning *p, const size_t *order, size_t n, struct err *err)
{
	struct backup_verdict *good;
	bool any = false;

	for (size_t i = 0; i < n; i++)
		any = any || p->plan->verdicts[order[i]].remove;
	if (!any)
		return 0;
	int rc = find_good(p, order, n, false, &good, err);
	if (rc || good)
		return rc;
	rc = find_good(p, order, n, true, &good, err);
	if (!rc && good) {
		good->remove = false;
		snprintf(good->reason, sizeof(good->reason), "the last good backup of %.100s",
		         good->entry->db);
	}
	/* Where none is good, the newest may be worth repairing. */
	if (!rc && !good) {
		struct backup_verdict *newest = &p->plan->verdicts[order[0]];
		newest->remove = false;
		snprintf(newest->reason, sizeof(newest->reason),
		         "the newest of %.80s, none of whose backups is good", newest->entry->db);
	}
	return rc;
}

static int by_database(const void *a, const void *b, void *ctx)
{
	const struct backup_verdict *all = ctx;
	const struct backup_entry *x = all[*(const size_t *)a].entry;
	const struct backup_entry *y = all[*(const size_t *)b].entry;
	int c = strcmp(x->db, y->db);

	if (c)
		return c;
	if (x->time_us != y->time_us)
		return x->time_us > y->time_us ? -1 : 1;
	return *(const size_t *)a < *(const size_t *)b ? -1 : 1;
}

static void judge_database(struct planning *p, const struct backup_retention *retention,
                           const size_t *order, size_t n, int64_t now_us)
{
	struct tally tallies[BACKUP_N_TYPES] = {0};

	for (size_t i = 0; i < n; i++) {
		struct backup_verdict *v = &p->plan->verdicts[order[i]];
		judge(&retention->types[v->entry->type], &tallies[v->entry->type], now_us, v);
	}
}

static int plan_all(struct planning *p, const struct backup_retention *retention, int64_t now_us,
                    struct err *err)
{
	struct backup_plan *plan = p->plan;
	int rc = 0;

	qsort_r(p->order, plan->n, sizeof(*p->order), by_database, plan->verdicts);
	for (size_t from = 0, to; from < plan->n && !rc; from = to) {
		const char *db = plan->verdicts[p->order[from]].entry->db;
		for (to = from; to < plan->n; to++)
			if (strcmp(plan->verdicts[p->order[to]].entry->db, db) != 0)
				break;
		judge_database(p, retention, p->order + from, to - from, now_us);
		rc = keep_last_good(p, p->order + from, to - from, err);
	}
	return rc;
}

int backup_plan_make(const struct backup_list *list, const struct backup_retention *retention,
                     int64_t now_us,
                     int (*is_good)(void *ctx, const struct backup_entry *e, struct err *err),
                     void *ctx, struct backup_plan *ret, struct err *err)
{
	cleanup_backup_plan struct backup_plan plan = {0};
	cleanup_free size_t *order = calloc(list->n + 1, sizeof(*order));
	struct planning p = {.plan = &plan, .order = order, .is_good = is_good, .ctx = ctx};

	*ret = plan;
	plan.verdicts = calloc(list->n + 1, sizeof(*plan.verdicts));
	if (!order || !plan.verdicts)
		return err_set(err, ERR_NOMEM, 0, "no memory for a plan");
	plan.n = list->n;
	for (size_t i = 0; i < list->n; i++) {
		order[i] = i;
		plan.verdicts[i].entry = &list->entries[i];
	}
	int rc = plan_all(&p, retention, now_us, err);
	if (rc)
		return rc;
	for (size_t i = 0; i < plan.n; i++)
		if (plan.verdicts[i].remove) {
			plan.n_remove++;
			plan.remove_bytes += plan.verdicts[i].entry->size_bytes +
			                     plan.verdicts[i].entry->companion_bytes;
		}
	*ret = plan;
	plan = (struct backup_plan){0};
	return 0;
}
