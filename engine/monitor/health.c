/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/monitor/health.h"

#include "engine/base/clock.h"
#include "engine/base/units.h"

#include <stdlib.h>
#include <string.h>

#define MINUTE_US (60 * US_PER_SECOND)
#define HOUR_US (60 * MINUTE_US)
#define DAY_US (24 * HOUR_US)

/* ---- facts ---- */

void health_facts_release(struct health_facts *f)
{
	for (size_t i = 0; i < f->n_databases; i++)
		free(f->databases[i].destinations);
	free(f->databases);
	free(f->archives);
	free(f->backups);
	free(f->sent);
	free(f->jobs);
	*f = (struct health_facts){0};
}

int health_job_compare(const void *a, const void *b)
{
	const struct health_job *x = a, *y = b;
	int order = strcmp(x->database, y->database);

	return order ? order : strcmp(x->job, y->job);
}

const struct health_job *health_job_of(const struct health_facts *f, const char *job,
                                       const char *database)
{
	struct health_job key;

	if (f->n_jobs == 0)
		return NULL;
	snprintf(key.job, sizeof(key.job), "%s", job);
	snprintf(key.database, sizeof(key.database), "%s", database);
	return bsearch(&key, f->jobs, f->n_jobs, sizeof(key), health_job_compare);
}

const struct health_archive *health_archive_of(const struct health_facts *f, const char *root)
{
	for (size_t i = 0; i < f->n_archives; i++)
		if (strcmp(f->archives[i].root, root) == 0)
			return &f->archives[i];
	return NULL;
}

static int compare_names(const void *a, const void *b)
{
	const struct health_name *x = a, *y = b;
	int order = strcmp(x->name, y->name);

	return order ? order : (x->database > y->database) - (x->database < y->database);
}

struct health_name *health_names(const struct health_facts *f)
{
	struct health_name *names = calloc(f->n_databases + 1, sizeof(*names));

	for (size_t i = 0; names && i < f->n_databases; i++)
		names[i] = (struct health_name){f->databases[i].name, i};
	if (names)
		qsort(names, f->n_databases, sizeof(*names), compare_names);
	return names;
}

size_t health_names_find(const struct health_name *names, size_t n, const char *name)
{
	size_t low = 0, high = n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;
		if (strcmp(names[mid].name, name) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return low < n && strcmp(names[low].name, name) == 0 ? low : n;
}

bool health_is_absent(const struct health_database *d)
{
	return d->told && strcmp(d->state, "waiting") == 0 && !d->exists && !d->stored &&
	       !d->unreadable[0];
}

/* Slewing is at most 500 ppm, a bad crystal some 100. */
#define SLEW_PER_US 1000

void health_watch_clock(const struct health_facts *former, struct health_facts *f)
{
	int64_t passed_us = f->boot_us - former->boot_us;
	int64_t off_us = f->at_us - former->at_us - passed_us;

	f->jump_us = former->jump_us;
	f->jumped_us = former->jumped_us;
	if (former->boot_us == 0 || former->at_us == 0)
		return;
	if ((off_us < 0 ? -off_us : off_us) > US_PER_SECOND + passed_us / SLEW_PER_US) {
		f->jump_us = off_us;
		f->jumped_us = f->at_us;
	}
}

/* ---- names ---- */

const char *health_level_name(enum health_level level)
{
	static const char *const names[] = {"ok", "warning", "failed"};
	return names[level];
}

const char *health_subject_name(enum health_subject subject)
{
	static const char *const names[] = {"daemon", "archive", "database", "destination", "job"};
	return names[subject];
}

const char *health_code_name(enum health_code code)
{
	static const char *const names[] = {
#define X(id, name) name,
	        HEALTH_CODES(X)
#undef X
	};
	return names[code];
}

void health_limits_default(struct health_limits *ret)
{
	*ret = (struct health_limits){.facts_us = 15 * US_PER_SECOND,
	                              .capture_us = 30 * US_PER_SECOND,
	                              .trouble_us = MINUTE_US,
	                              .replication_us = 5 * MINUTE_US,
	                              .gap_us = DAY_US,
	                              .clock_us = US_PER_SECOND,
	                              .jump_us = HOUR_US,
	                              .full_warn_us = 7 * DAY_US,
	                              .verify_intervals = 3,
	                              .verify_grace_us = HOUR_US};
}

/* ---- lines ---- */

struct judge {
	const struct health_facts *f;
	const struct health_limits *limits;
	int64_t now_us;
	struct health_verdict *v;
	size_t cap;
	bool no_memory;
	bool some_stored; /* something could be restored */
};

/* The verdict has room for all lines. */
static struct health_line *new_line(struct judge *j, enum health_subject subject, const char *name,
                                    const char *database)
{
	struct health_line *l = &j->v->lines[j->v->n++];

	*l = (struct health_line){.subject = subject};
	snprintf(l->name, sizeof(l->name), "%s", name);
	snprintf(l->database, sizeof(l->database), "%s", database);
	return l;
}

static void add_problem(struct judge *j, const struct health_line *l, enum health_code code,
                        enum health_level level, const char *text)
{
	struct health_verdict *v = j->v;

	if (v->n_problems == j->cap) {
		size_t cap = j->cap ? 2 * j->cap : 16;
		struct health_problem *more = realloc(v->problems, cap * sizeof(*more));
		if (!more) {
			j->no_memory = true;
			return;
		}
		v->problems = more;
		j->cap = cap;
	}
	struct health_problem *p = &v->problems[v->n_problems++];
	*p = (struct health_problem){.line = (size_t)(l - v->lines), .level = level, .code = code};
	snprintf(p->text, sizeof(p->text), "%s", text);
}

/* The worst comes first. */
static void find(struct judge *j, struct health_line *l, enum health_level level,
                 enum health_code code, const char *fmt, ...) __attribute__((format(printf, 5, 6)));
static void find(struct judge *j, struct health_line *l, enum health_level level,
                 enum health_code code, const char *fmt, ...)
{
	char text[HEALTH_TEXT_MAX], both[sizeof(l->reason)];
	bool first = l->code == HEALTH_FINE || level > l->level;
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	if (!l->reason[0])
		snprintf(both, sizeof(both), "%s", text);
	else
		snprintf(both, sizeof(both), "%s; %s", first ? text : l->reason,
		         first ? l->reason : text);
	memcpy(l->reason, both, sizeof(both));
	if (first) {
		l->level = level;
		l->code = code;
	}
	add_problem(j, l, code, level, text);
}

#define AGE_MAX 24
/* "3 s", "5 min", "7 h", "3 days". */
static void age_text(int64_t us, char out[AGE_MAX])
{
	static const struct {
		int64_t from_us, unit_us;
		const char *unit;
	} units[] = {{2 * DAY_US, DAY_US, "days"},
	             {2 * HOUR_US, HOUR_US, "h"},
	             {2 * MINUTE_US, MINUTE_US, "min"},
	             {INT64_MIN, US_PER_SECOND, "s"}};
	size_t i = 0;

	while (us < units[i].from_us)
		i++;
	snprintf(out, AGE_MAX, "%lld %s", (long long)(us / units[i].unit_us), units[i].unit);
}

/* ---- the daemon, archives, jobs ---- */

static void judge_daemon(struct judge *j)
{
	const struct health_facts *f = j->f;
	struct health_line *l = new_line(j, HEALTH_DAEMON, "asof run", "");
	int64_t age_us = j->now_us - f->at_us;
	char age[AGE_MAX];

	if (f->at_us == 0 || age_us > j->limits->facts_us) {
		age_text(age_us, age);
		find(j, l, HEALTH_BAD, HEALTH_STALE_FACTS,
		     f->at_us ? "nothing could be learnt for %s: a disk or the daemon hangs"
		              : "nothing could be learnt yet",
		     age);
	}
	if (!f->daemon_answers)
		find(j, l, HEALTH_BAD, HEALTH_DAEMON_SILENT, "the daemon does not answer: %s",
		     f->daemon_problem);
	if (f->listen_problem[0])
		find(j, l, HEALTH_BAD, HEALTH_NOT_LISTENING, "%s", f->listen_problem);
	if (f->daemon_answers && f->n_databases == 0)
		find(j, l, HEALTH_BAD, HEALTH_NOTHING_TO_DO,
		     "no database is replicated (list one under `dbs:`)");
	if (f->jump_us && j->now_us - f->jumped_us < j->limits->jump_us) {
		char by[AGE_MAX];
		age_text(f->jump_us < 0 ? -f->jump_us : f->jump_us, by);
		age_text(j->now_us - f->jumped_us, age);
		find(j, l, HEALTH_WARN, HEALTH_CLOCK,
		     "the clock was set %s by %s, %s ago: times of commits follow it",
		     f->jump_us < 0 ? "back" : "forward", by, age);
	}
}

static void judge_archive(struct judge *j, const struct health_archive *a)
{
	struct health_line *l = new_line(j, HEALTH_ARCHIVE, a->root, "");
	char age[AGE_MAX];

	if (a->unreadable[0]) {
		find(j, l, HEALTH_BAD, HEALTH_UNREADABLE, "%s", a->unreadable);
		return;
	}
	if (a->read_only)
		find(j, l, HEALTH_BAD, HEALTH_READ_ONLY, "its filesystem is mounted read-only");
	if (a->total_bytes && a->free_bytes < a->reserve_bytes)
		find(j, l, HEALTH_BAD, HEALTH_NO_SPACE,
		     "%llu MiB are free, less than the %llu MiB that are left to others: capture "
		     "stops",
		     (unsigned long long)(a->free_bytes >> 20),
		     (unsigned long long)(a->reserve_bytes >> 20));
	if (a->full_in_s >= 0 && a->full_in_s < (double)j->limits->full_warn_us / 1e6) {
		age_text((int64_t)(a->full_in_s * 1e6), age);
		find(j, l, HEALTH_WARN, HEALTH_SPACE_SHORT,
		     "its filesystem will be full in %s if it goes on like this", age);
	}
}

/* Verification and copies are judged with what they look at. */
static bool is_judged_elsewhere(const struct health_job *job)
{
	return strncmp(job->job, "verify", 6) == 0 || strncmp(job->job, "copy ", 5) == 0;
}

static void judge_job(struct judge *j, const struct health_job *job)
{
	if (is_judged_elsewhere(job) || job->ended_us == 0)
		return;
	struct health_line *l = new_line(j, HEALTH_JOB, job->job, job->database);
	if (!job->ok)
		find(j, l, strncmp(job->job, "backup ", 7) == 0 ? HEALTH_BAD : HEALTH_WARN,
		     HEALTH_JOB_FAILED, "its last run failed: %s", job->message);
}

/* ---- databases and destinations ---- */

/* `first_us`: since when there has been anything to verify. */
static void judge_verified(struct judge *j, struct health_line *l, const struct health_verified *v,
                           int64_t every_us, int64_t first_us)
{
	int64_t limit_us = every_us * j->limits->verify_intervals;
	int64_t since_us = v->at_us ? v->at_us : first_us;
	char age[AGE_MAX];

	if (v->damaged)
		find(j, l, HEALTH_BAD, HEALTH_DAMAGED,
		     "%llu stored objects are damaged, first: %s (asof validate tells what "
		     "restores)",
		     (unsigned long long)v->damaged, v->damage);
	if (v->integrity[0] && strcmp(v->integrity, "ok") != 0)
		find(j, l, HEALTH_BAD, HEALTH_INTEGRITY, "the database itself is damaged: %s",
		     v->integrity);
	if (limit_us < j->limits->verify_grace_us)
		limit_us = j->limits->verify_grace_us;
	if (every_us && since_us && j->now_us - since_us > limit_us) {
		age_text(j->now_us - since_us, age);
		find(j, l, HEALTH_BAD, HEALTH_NOT_VERIFIED,
		     v->at_us ? "not verified for %s" : "never verified in %s", age);
	} else if (every_us && v->unverified_since_us &&
	           j->now_us - v->unverified_since_us > 2 * limit_us) {
		/* Runs that end without coming further. */
		age_text(j->now_us - v->unverified_since_us, age);
		find(j, l, HEALTH_BAD, HEALTH_NOT_VERIFIED,
		     "what was committed %s ago is not verified yet", age);
	}
}

static void judge_stored(struct judge *j, struct health_line *l, const struct health_database *d)
{
	char age[AGE_MAX];

	if (d->unreadable[0]) {
		find(j, l, HEALTH_BAD, HEALTH_UNREADABLE, "%s", d->unreadable);
		return;
	}
	if (!d->stored) {
		find(j, l, HEALTH_BAD, HEALTH_NOTHING_STORED, "nothing is stored yet");
		return;
	}
	if (d->not_restorable[0])
		find(j, l, HEALTH_BAD, HEALTH_NOT_RESTORABLE, "the newest state cannot be read: %s",
		     d->not_restorable);
	int64_t late_us = j->now_us - d->known_until_us;
	if (late_us > j->limits->capture_us) {
		age_text(late_us, age);
		find(j, l, HEALTH_BAD, HEALTH_CAPTURE_LATE,
		     "what was committed in the last %s is not stored", age);
	}
	if (d->last_us - j->now_us > j->limits->clock_us) {
		age_text(d->last_us - j->now_us, age);
		find(j, l, HEALTH_WARN, HEALTH_CLOCK,
		     "the newest commit is of a time %s ahead: the clock went back (keep it by "
		     "chrony or systemd-timesyncd)",
		     age);
	}
	if (d->gaps && j->now_us - d->last_gap_us < j->limits->gap_us) {
		age_text(j->now_us - d->last_gap_us, age);
		find(j, l, HEALTH_WARN, HEALTH_RECENT_GAP, "a gap in the history ended %s ago",
		     age);
	}
}

static void judge_database(struct judge *j, const struct health_database *d)
{
	struct health_line *l = new_line(j, HEALTH_DATABASE, d->name, "");
	bool replicates = strcmp(d->state, "replicating") == 0;

	if (health_is_absent(d) && j->some_stored) {
		/* An application's second database may never come.  But where nothing is stored
		 * at all, nothing is well. */
		l->code = HEALTH_WAITING;
		snprintf(l->reason, sizeof(l->reason),
		         "waiting: there is no such file yet, it is taken up when it is created");
		return;
	}
	if (d->told && !replicates)
		find(j, l, HEALTH_BAD, HEALTH_NOT_CAPTURING, "%s%s%s", d->state,
		     d->reason[0] ? ": " : "", d->reason);
	else if (d->told && d->reason[0])
		/* It lets go for a moment whenever the application wants the file for itself: what
		 * is missing meanwhile is judged by the archive, below. */
		find(j, l, d->attached ? HEALTH_BAD : HEALTH_WARN, HEALTH_NOT_CAPTURING, "%s",
		     d->reason);
	judge_stored(j, l, d);
	if (d->stored)
		judge_verified(j, l, &d->verified, d->verify_every_us, d->first_us);
}

/* What lies at an empty destination is not late, for as long as something goes there. */
static bool first_copy_runs(const struct judge *j, const struct health_destination *d)
{
	int64_t since_us = j->f->started_us > d->progress_us ? j->f->started_us : d->progress_us;

	return since_us && j->now_us - since_us <= j->limits->replication_us + d->sync_interval_us;
}

static void judge_destination(struct judge *j, const struct health_database *db,
                              const struct health_destination *d)
{
	struct health_line *l = new_line(j, HEALTH_DESTINATION, d->name, db->name);
	char job[72], age[AGE_MAX];

	snprintf(job, sizeof(job), "copy %.50s", d->name);
	const struct health_job *copy = health_job_of(j->f, job, db->name);
	if (d->not_configured[0]) {
		/* Nothing was lost, and nothing goes on getting worse: as check and doctor have it. */
		find(j, l, HEALTH_WARN, HEALTH_NOT_CONFIGURED, "%s", d->not_configured);
		return;
	}
	bool late = d->behind_since_us && j->now_us - d->behind_since_us >
	                                          j->limits->replication_us + d->sync_interval_us;
	if (d->unreadable[0])
		find(j, l, HEALTH_BAD, HEALTH_UNREADABLE, "%s", d->unreadable);
	else if (d->replicated_txid == 0 && db->stored)
		find(j, l, late && !first_copy_runs(j, d) ? HEALTH_BAD : HEALTH_WARN,
		     HEALTH_NOT_REPLICATED, "nothing lies there yet%s",
		     d->progress_us ? ": the first copy was begun" : "");
	else if (late) {
		age_text(j->now_us - d->behind_since_us, age);
		find(j, l, HEALTH_BAD, HEALTH_REPLICATION_LATE, "it has been behind for %s", age);
	}
	if (d->fenced)
		find(j, l, HEALTH_BAD, HEALTH_FENCED,
		     "another asof writes there now, nothing more is sent");
	if (d->trouble[0] && d->behind_since_us)
		find(j, l,
		     j->now_us - d->trouble_us > j->limits->trouble_us ? HEALTH_BAD : HEALTH_WARN,
		     HEALTH_NOT_SENDING, "sending fails: %s", d->trouble);
	if (copy && copy->ended_us && !copy->ok && d->behind_since_us)
		find(j, l, HEALTH_BAD, HEALTH_JOB_FAILED, "the last copy failed: %s",
		     copy->message);
	if (!d->unreadable[0] && d->replicated_txid)
		judge_verified(j, l, &d->verified, d->verify_every_us, 0);
}

/* ---- what comes of what ---- */

/* What is known of everything grows old. */
static bool daemon_is_away(const struct health_verdict *v)
{
	for (size_t i = 0; i < v->n_problems && v->problems[i].line == 0; i++)
		if (v->problems[i].code == HEALTH_DAEMON_SILENT ||
		    v->problems[i].code == HEALTH_STALE_FACTS)
			return true;
	return false;
}

static bool comes_of_silence(enum health_code code)
{
	return code == HEALTH_NOT_CAPTURING || code == HEALTH_CAPTURE_LATE ||
	       code == HEALTH_NOT_VERIFIED || code == HEALTH_NOT_REPLICATED ||
	       code == HEALTH_REPLICATION_LATE || code == HEALTH_NOT_SENDING;
}

static bool archive_is_bad(const struct health_verdict *v, const char *root)
{
	for (size_t i = 0; i < v->n; i++) {
		const struct health_line *l = &v->lines[i];
		if (l->subject == HEALTH_ARCHIVE && strcmp(l->name, root) == 0)
			return l->code == HEALTH_UNREADABLE || l->code == HEALTH_READ_ONLY ||
			       l->code == HEALTH_NO_SPACE;
	}
	return false;
}

static bool comes_of_archive(const struct health_facts *f, const struct health_verdict *v,
                             const struct health_problem *p)
{
	const struct health_line *l = &v->lines[p->line];

	if (l->subject != HEALTH_DATABASE ||
	    (p->code != HEALTH_UNREADABLE && p->code != HEALTH_NOT_CAPTURING &&
	     p->code != HEALTH_CAPTURE_LATE))
		return false;
	for (size_t i = 0; i < f->n_databases; i++)
		if (strcmp(f->databases[i].name, l->name) == 0)
			return archive_is_bad(v, f->databases[i].archive);
	return false;
}

static void mark_followers(const struct health_facts *f, struct health_verdict *v)
{
	bool away = daemon_is_away(v);

	for (size_t i = 0; i < v->n_problems; i++) {
		struct health_problem *p = &v->problems[i];
		p->follows = (away && comes_of_silence(p->code)) || comes_of_archive(f, v, p);
	}
}

/* ---- all of it ---- */

static size_t count_lines(const struct health_facts *f)
{
	size_t n = 1 + f->n_archives + f->n_databases + f->n_jobs;

	for (size_t i = 0; i < f->n_databases; i++)
		n += f->databases[i].n_destinations;
	return n;
}

int health_judge(const struct health_facts *f, const struct health_limits *limits, int64_t now_us,
                 struct health_verdict *ret, struct err *err)
{
	struct judge j = {.f = f, .limits = limits, .now_us = now_us, .v = ret};

	*ret = (struct health_verdict){.lines = calloc(count_lines(f), sizeof(*ret->lines))};
	if (!ret->lines)
		return err_set(err, ERR_NOMEM, 0, "no memory");
	for (size_t i = 0; i < f->n_databases; i++)
		j.some_stored = j.some_stored || f->databases[i].stored;
	judge_daemon(&j);
	for (size_t i = 0; i < f->n_archives; i++)
		judge_archive(&j, &f->archives[i]);
	for (size_t i = 0; i < f->n_databases; i++) {
		const struct health_database *d = &f->databases[i];
		judge_database(&j, d);
		for (size_t k = 0; k < d->n_destinations; k++)
			judge_destination(&j, d, &d->destinations[k]);
	}
	for (size_t i = 0; i < f->n_jobs; i++)
		judge_job(&j, &f->jobs[i]);
	for (size_t i = 0; i < ret->n; i++)
		if (ret->lines[i].level > ret->level)
			ret->level = ret->lines[i].level;
	ret->healthy = ret->level < HEALTH_BAD;
	mark_followers(f, ret);
	if (!j.no_memory)
		return 0;
	health_verdict_release(ret);
	return err_set(err, ERR_NOMEM, 0, "no memory");
}

void health_verdict_release(struct health_verdict *v)
{
	free(v->lines);
	free(v->problems);
	*v = (struct health_verdict){0};
}
