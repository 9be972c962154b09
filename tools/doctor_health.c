/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What /health would say, as findings: the same facts and the same judgement (engine/monitor/health.h),
 * of the daemon that runs, of the configuration, of the archive that was named.  What that has no
 * word for (nobody writes at all; a year's trend) the other files look for.
 */
#include "tools/doctor.h"

#include "tools/judged.h"

#include <string.h>

/* A gap of the last week is still news to who asks only now. */
#define GAP_US (INT64_C(7) * 86400 * US_PER_SECOND)

static const struct doctor_database *source_of(const struct doctor *d,
                                               const struct health_database *h)
{
	for (size_t i = 0; i < d->n_databases; i++)
		if (strcmp(d->databases[i].path, h->path) == 0)
			return &d->databases[i];
	return NULL;
}

static bool is_configured(const struct doctor *d, const struct health_database *h)
{
	const struct doctor_database *db = source_of(d, h);

	return db && db->config;
}

static bool is_found(const struct doctor *d, const char *check, const char *thing)
{
	for (size_t i = 0; i < d->n_findings; i++)
		if (strcmp(d->findings[i].check, check) == 0 &&
		    strcmp(d->findings[i].thing, thing) == 0)
			return true;
	return false;
}

static void add_late(struct doctor *d, const struct health_database *h, const char *thing,
                     const char *text)
{
	const struct doctor_database *db = source_of(d, h);

	/* A copy of an archive, and what nobody captures at all, are no matter of being late. */
	if (h->told || (db && db->is_wal && !is_found(d, "not-captured", thing)))
		doctor_add(d, DOCTOR_SERIOUS, "behind", thing,
		           "look at asof status and at the log of asof run", "%s", text);
}

static void add_of_database(struct doctor *d, const struct health_database *h,
                            const struct health_problem *p, const char *thing)
{
	enum doctor_severity severity = p->level == HEALTH_BAD ? DOCTOR_SERIOUS : DOCTOR_WARNING;

	switch (p->code) {
	case HEALTH_NOT_CAPTURING:
		doctor_add(d, severity, "not-captured", thing,
		           "asof resume, or mend what the reason names", "%s", p->text);
		break;
	case HEALTH_CAPTURE_LATE:
		add_late(d, h, thing, p->text);
		break;
	case HEALTH_NOT_RESTORABLE:
	case HEALTH_DAMAGED:
		doctor_add(d, severity, "damaged", thing, "asof validate tells what still restores",
		           "%s", p->text);
		break;
	case HEALTH_INTEGRITY:
		doctor_add(d, severity, "integrity", thing,
		           "asof bisect finds the commit that broke it", "%s", p->text);
		break;
	case HEALTH_NOT_VERIFIED: /* where nobody said how often, nobody broke a promise */
		if (!is_configured(d, h))
			severity = DOCTOR_WARNING;
		doctor_add(d, severity, "not-verified", thing,
		           "asof validate, and `verify:` in asof.yml", "%s", p->text);
		break;
	case HEALTH_RECENT_GAP:
		doctor_add(d, severity, "gaps", thing,
		           "let asof run before and after the application; asof status lists them",
		           "%s", p->text);
		break;
	default: /* of what cannot be read, or is not there, doctor_archive() tells */
		break;
	}
}

static void add_problem(struct doctor *d, const struct health_facts *f,
                        const struct health_database *h, const struct health_line *l,
                        const struct health_problem *p)
{
	enum doctor_severity severity = p->level == HEALTH_BAD ? DOCTOR_SERIOUS : DOCTOR_WARNING;
	char thing[HEALTH_PATH_MAX + HEALTH_NAME_MAX + 2];

	switch (l->subject) {
	case HEALTH_DATABASE:
		snprintf(thing, sizeof(thing), "%s:%s", h->archive, h->name);
		add_of_database(d, h, p, thing);
		break;
	case HEALTH_DESTINATION:
		if (f->daemon_answers && p->code != HEALTH_NOT_CONFIGURED)
			doctor_add(d, severity, "destination", h->path, "asof check tries it out",
			           "destination %s: %s", l->name, p->text);
		break;
	case HEALTH_ARCHIVE:
		if ((p->code == HEALTH_NO_SPACE || p->code == HEALTH_SPACE_SHORT) &&
		    !is_found(d, "space", l->name))
			doctor_add(d, severity, "space", l->name,
			           "make room, or shorten the retention", "%s", p->text);
		break;
	case HEALTH_JOB:
		doctor_add(d, severity, "failed-run",
		           l->database[0] ? l->database : "all databases",
		           "mend what the message names", "%s: %s", l->name, p->text);
		break;
	case HEALTH_DAEMON:
		break;
	}
}

/* Verified every two days, unless the configuration says otherwise; what rests needs it once. */
static void set_intervals(struct facts *facts, const struct health_limits *limits)
{
	for (size_t i = 0; i < facts->f.n_databases; i++) {
		struct health_database *h = &facts->f.databases[i];
		bool done = h->verified.at_us && !h->verified.unverified_since_us;
		if (h->verify_every_us == 0 && !done)
			h->verify_every_us = INT64_C(2) * 86400 * US_PER_SECOND /
			                     (int64_t)limits->verify_intervals;
	}
}

void doctor_health(struct doctor *d, const struct cli *c, const char *root)
{
	cleanup_judged struct judged j = {0};
	struct health_limits limits;
	struct judged_options o = {.archive = root, .any_archive = root, .limits = &limits};
	struct err err = ERR_INIT;
	size_t n_databases = 0, k = 0;

	health_limits_default(&limits);
	limits.gap_us = GAP_US;
	o.prepare = set_intervals;
	o.now_us = d->now_us;
	if (judged_get(c, &o, &j, &err) < 0) {
		doctor_add(d, DOCTOR_SERIOUS, "unreadable", root ? root : "asof",
		           "asof status tells more", "%s", err.msg);
		return;
	}
	for (size_t i = 0; j.facts && i < j.verdict.n; i++) {
		const struct health_line *l = &j.verdict.lines[i];
		/* Lines of databases come in the order of the facts, destinations behind them. */
		n_databases += l->subject == HEALTH_DATABASE;
		for (; k < j.verdict.n_problems && j.verdict.problems[k].line == i; k++)
			add_problem(d, &j.facts->f,
			            n_databases ? &j.facts->f.databases[n_databases - 1] : NULL, l,
			            &j.verdict.problems[k]);
	}
}
