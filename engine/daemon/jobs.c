/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/daemon/jobs_i.h"

#include "engine/base/clock.h"
#include "engine/base/hash.h"
#include "engine/base/log.h"
#include "engine/daemon/sending.h"
#include "engine/monitor/space.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <string.h>
#include <sys/wait.h>

#define REFRESH_US (60 * US_PER_SECOND)
#define RETAIN_EVERY_US (3600 * US_PER_SECOND)
#define RETAIN_THERE_EVERY_US (24 * 3600 * US_PER_SECOND) /* it takes requests */
#define RETRY_US (600 * US_PER_SECOND)
/* A destination that failed is tried again soon, then later and later. */
#define COPY_RETRY_MIN_US (2 * US_PER_SECOND)
#define COPY_RETRY_MAX_US (60 * US_PER_SECOND)
#define TRIES 3u
#define SEND_EVERY_US (5 * US_PER_SECOND)
#define SEND_LOOK_US (BACKUP_SEND_LOOK_US + 600 * US_PER_SECOND)
/* Nothing takes so long that is not stuck. */
#define LIMIT_US (24 * 3600 * US_PER_SECOND)
#define PATIENCE_US (2 * US_PER_SECOND)

/* ---- which jobs there are ---- */

static int64_t copy_interval_us(const struct config_database *d, const struct job *job)
{
	return d && job->schedule < d->n_destinations
	               ? d->destinations[job->schedule].sync_interval_us
	               : US_PER_SECOND;
}

static const struct schedule *schedule_of(const struct jobs *j, const struct job *job,
                                          const struct config_database *d, struct schedule *hourly)
{
	switch (job->kind) {
	case JOB_BACKUP:
		return &j->config->schedules[job->schedule].when;
	case JOB_CLEANUP:
		return &j->config->cleanup;
	case JOB_VERIFY:
		return d ? &d->verify : NULL;
	case JOB_VERIFY_FULL:
		return d ? &d->verify_full : NULL;
	case JOB_VERIFY_COPY:
		return d && job->schedule < d->n_destinations
		               ? &d->destinations[job->schedule].verify
		               : NULL;
	case JOB_RETAIN:
	case JOB_RETAIN_COPY:
		schedule_every(RETAIN_EVERY_US, hourly);
		return hourly;
	case JOB_RETAIN_THERE:
		schedule_every(RETAIN_THERE_EVERY_US, hourly);
		return hourly;
	case JOB_COPY:
		schedule_every(copy_interval_us(d, job), hourly);
		return hourly;
	case JOB_SEND:
		schedule_every(SEND_EVERY_US, hourly);
		return hourly;
	}
	return NULL;
}

/* Many databases do not begin at one instant. */
static int64_t delay_of(const struct jobs *j, const struct job *job, const struct schedule *s)
{
	const char *name = job->path ? job->path : job->name;

	if (job->kind == JOB_BACKUP)
		return schedule_delay_us(name, j->config->schedules[job->schedule].jitter_us);
	return s->kind == SCHEDULE_EVERY ? schedule_delay_us(name, s->every_us / 2) : 0;
}

static void plan(const struct jobs *j, struct job *job, const struct config_database *d)
{
	struct schedule hourly;
	const struct schedule *s = schedule_of(j, job, d, &hourly);
	struct schedule_due due;

	job->next_us = 0;
	if (!s || s->kind == SCHEDULE_OFF)
		return;
	schedule_due(s, j->config->zone, delay_of(j, job, s), job->last_us, clock_now_us(), &due);
	job->next_us = due.due ? due.scheduled_us : due.next_us;
	job->scheduled_us = due.due ? due.scheduled_us : due.next_us;
}

static void write_entry(struct jobs *j, const struct journal_entry *e)
{
	struct err why = ERR_INIT;

	if (j->journal && journal_append(j->journal, e, &why) < 0)
		log_error("jobs", "the journal cannot be written: %s", why.msg);
}

/* A job that was never seen counts from now on: not everything at once on the first day. */
static void recall(struct jobs *j, struct job *job, const char *database)
{
	struct journal_entry e;
	int64_t now_us = clock_now_us();

	/* What there is to bring there, the destination itself tells. */
	if (job->kind == JOB_COPY || job->kind == JOB_SEND) {
		job->last_us = now_us - RETRY_US;
		return;
	}
	if (j->journal && journal_last(j->journal, job->name, database, &e)) {
		job->last_us = e.scheduled_us ? e.scheduled_us : e.began_us;
		return;
	}
	e = (struct journal_entry){.began_us = now_us, .ok = true};
	memcpy(e.job, job->name, sizeof(e.job));
	snprintf(e.database, sizeof(e.database), "%s", database);
	job->last_us = now_us;
	if (j->journal && journal_add(j->journal, &e, NULL) == 0)
		j->added = true;
}

static struct job *find_job(struct jobs *j, uint64_t key)
{
	for (size_t i = 0; i < j->n; i++)
		if (j->jobs[i].key == key)
			return &j->jobs[i];
	return NULL;
}

static void free_job(const struct job *job)
{
	free(job->path);
	free(job->url);
	free(job->database);
}

static void add_job(struct jobs *j, const struct job *fresh)
{
	LOCK_SCOPE(&j->lock);

	if (j->n == j->cap) {
		size_t cap = j->cap ? 2 * j->cap : 16;
		struct job *p = realloc(j->jobs, cap * sizeof(*p));
		if (!p) {
			free_job(fresh);
			return;
		}
		j->jobs = p;
		j->cap = cap;
	}
	j->jobs[j->n++] = *fresh;
}

static void want(struct jobs *j, enum job_kind kind, size_t schedule, const char *name,
                 const struct fleet_entry *e)
{
	struct job fresh = {.kind = kind, .schedule = schedule};

	snprintf(fresh.name, sizeof(fresh.name), "%s", name);
	fresh.key = hash64(fresh.name, strlen(fresh.name), 1);
	if (e)
		fresh.key = hash64(e->path, strlen(e->path), fresh.key);
	struct job *job = find_job(j, fresh.key);
	if (job) {
		job->seen = true;
		job->schedule = schedule;
		if (job->failures == 0)
			plan(j, job, e ? e->config : NULL);
		return;
	}
	fresh.path = e ? strdup(e->path) : NULL;
	fresh.database = strdup(e ? e->name : "");
	if ((e && !fresh.path) || !fresh.database) {
		free_job(&fresh);
		return; /* asked for again with the next refresh */
	}
	fresh.seen = true;
	recall(j, &fresh, fresh.database);
	plan(j, &fresh, e ? e->config : NULL);
	add_job(j, &fresh);
}

/* jobs_want_sending() */
static void want_place(struct jobs *j, const char *url, const char *name, const char *database)
{
	struct job fresh = {.kind = JOB_SEND};

	snprintf(fresh.name, sizeof(fresh.name), "%s", name);
	fresh.key = hash64(url, strlen(url), hash64(fresh.name, strlen(fresh.name), 1));
	struct job *job = find_job(j, fresh.key);
	if (job) {
		job->seen = true;
		return;
	}
	fresh.url = strdup(url);
	fresh.database = strdup(database);
	if (!fresh.url || !fresh.database) {
		free_job(&fresh);
		return;
	}
	fresh.seen = true;
	recall(j, &fresh, database);
	fresh.next_us = fresh.scheduled_us = clock_now_us();
	add_job(j, &fresh);
}

static bool schedule_covers(const struct config_backup_schedule *s, const char *name)
{
	for (size_t i = 0; i < s->n_databases; i++)
		if (fnmatch(s->databases[i], name, 0) == 0)
			return true;
	return s->n_databases == 0;
}

static void want_of_database(struct jobs *j, const struct fleet_entry *e)
{
	char name[64];

	for (size_t i = 0; i < j->config->n_schedules; i++) {
		snprintf(name, sizeof(name), "backup %.50s", j->config->schedules[i].name);
		if (schedule_covers(&j->config->schedules[i], e->name))
			want(j, JOB_BACKUP, i, name, e);
	}
	if (!e->config)
		return;
	for (size_t i = 0; i < e->config->n_destinations; i++) {
		const struct config_destination *d = &e->config->destinations[i];
		snprintf(name, sizeof(name), "copy %.50s", d->name);
		if (d->not_configured)
			continue;
		if (d->type != CONFIG_DEST_FILE) {
			snprintf(name, sizeof(name), "retain %.50s", d->name);
			if (d->retains)
				want(j, JOB_RETAIN_THERE, i, name, e);
			continue;
		}
		want(j, JOB_COPY, i, name, e);
		snprintf(name, sizeof(name), "verify %.50s", d->name);
		want(j, JOB_VERIFY_COPY, i, name, e);
		snprintf(name, sizeof(name), "retain %.50s", d->name);
		if (d->retains)
			want(j, JOB_RETAIN_COPY, i, name, e);
	}
	want(j, JOB_VERIFY, 0, "verify", e);
	want(j, JOB_VERIFY_FULL, 0, "verify-full", e);
	want(j, JOB_RETAIN, 0, "retain", e);
}

static void open_journal(struct jobs *j, struct fleet *f)
{
	struct fleet_entry first;
	struct err why = ERR_INIT;
	const char *root = j->config->archive;

	if (!root && fleet_get(f, 0, &first))
		root = first.archive;
	if (!root || (j->journal && strcmp(root, j->journal_root) == 0))
		return;
	journal_free(take_ptr(j->journal));
	snprintf(j->journal_root, sizeof(j->journal_root), "%s", root);
	if (journal_open(root, &j->journal, &why) < 0 && why.kind != ERR_NOT_FOUND)
		log_warn("jobs", "no journal, runs that are missed are not made up for: %s",
		         why.msg);
}

/* Of neighbours in the same archive once; space_note() passes over one that was noted already. */
static void note_space(struct jobs *j, struct fleet *f)
{
	char done[PATH_MAX] = "";
	struct fleet_entry e;

	if (j->space_us && clock_mono_us() - j->space_us < SPACE_EVERY_US)
		return;
	j->space_us = clock_mono_us();
	for (size_t i = 0; fleet_get(f, i, &e); i++) {
		struct err why = ERR_INIT;
		if (strcmp(e.archive, done) == 0)
			continue;
		memcpy(done, e.archive, sizeof(done));
		if (space_note(e.archive, clock_now_us(), &why) < 0)
			log_debug("jobs", "free space is not noted: %s", why.msg);
	}
}

static void refresh(struct jobs *j, struct fleet *f)
{
	struct fleet_entry e;
	struct err why = ERR_INIT;
	size_t kept = 0;

	open_journal(j, f);
	note_space(j, f);
	for (size_t i = 0; i < j->n; i++)
		j->jobs[i].seen = false;
	for (size_t i = 0; fleet_get(f, i, &e); i++)
		want_of_database(j, &e);
	want(j, JOB_CLEANUP, 0, "cleanup", NULL);
	jobs_want_sending(j, want_place);
	pthread_mutex_lock(&j->lock);
	for (size_t i = 0; i < j->n; i++) {
		if (j->jobs[i].seen) {
			j->jobs[kept++] = j->jobs[i];
		} else {
			free_job(&j->jobs[i]);
		}
	}
	j->n = kept;
	pthread_mutex_unlock(&j->lock);
	if (j->added && journal_sync(j->journal, &why) < 0)
		log_error("jobs", "the journal cannot be written: %s", why.msg);
	j->added = false;
	j->refreshed_us = clock_mono_us();
}

/* ---- running one ---- */

static int start_child(struct lane *l, struct command *c, struct err *err)
{
	int pipe_fds[2];
	cleanup_fd int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

	if (null < 0 || pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK) < 0)
		return err_set(err, ERR_IO, errno, "pipe");
	const struct child_options o = {
	        .own_group = true, .idle = true, .stdout_fd = null, .stderr_fd = pipe_fds[1]};
	int rc = child_start(&l->child, &o, c->argv, err);
	close(pipe_fds[1]);
	l->output_fd = pipe_fds[0];
	l->output_len = 0;
	if (rc < 0)
		close(take_fd(&l->output_fd));
	return rc;
}

/* Whether anything was ever copied there. */
static bool has_history(const char *archive, const char *name)
{
	char path[PATH_MAX];

	return (size_t)snprintf(path, sizeof(path), "%s/local/%s", archive, name) < sizeof(path) &&
	       access(path, F_OK) == 0;
}

static void start(struct jobs *j, struct lane *l, struct job *job, struct fleet *f)
{
	struct command c = {0};
	struct fleet_entry e = {0};
	struct err why = ERR_INIT;

	if (job->path && !fleet_find(f, job->path, &e)) {
		job->next_us = 0; /* gone; the next refresh takes it away */
		return;
	}
	if (job->path && e.status.last_txid == 0 && access(job->path, F_OK) < 0) {
		job->next_us = clock_now_us() + REFRESH_US; /* not there yet */
		return;
	}
	bool of_copy = job->kind == JOB_VERIFY_COPY || job->kind == JOB_RETAIN_COPY;
	if ((of_copy || job->kind == JOB_RETAIN_THERE) &&
	    (!e.config || job->schedule >= e.config->n_destinations)) {
		job->next_us = 0; /* gone, as above */
		return;
	}
	if (of_copy && !has_history(e.config->destinations[job->schedule].url, e.name)) {
		job->next_us = clock_now_us() + US_PER_SECOND; /* the copy's failure is told */
		return;
	}
	if (job->kind == JOB_COPY && (e.status.last_txid == job->copied_txid || !e.config ||
	                              job->schedule >= e.config->n_destinations)) {
		job->next_us = clock_now_us() + copy_interval_us(e.config, job); /* nothing new */
		return;
	}
	if (job->kind == JOB_SEND) {
		job->copying_txid = jobs_sending_stamp(j, job);
		if (job->copying_txid == job->copied_txid && job->failures == 0 &&
		    clock_now_us() - job->last_us < SEND_LOOK_US) {
			job->next_us = clock_now_us() + SEND_EVERY_US; /* nothing new */
			return;
		}
		job->scheduled_us = clock_now_us();
	} else {
		job->copying_txid = e.status.last_txid;
	}
	job_make_command(j, job, &e, &c);
	l->entry = (struct journal_entry){.scheduled_us = job->scheduled_us,
	                                  .began_us = clock_now_us()};
	memcpy(l->entry.job, job->name, sizeof(l->entry.job));
	snprintf(l->entry.database, sizeof(l->entry.database), "%s", job->database);
	if (start_child(l, &c, &why) < 0) {
		log_error("jobs", "not started job=\"%s\" db=%s: %s", job->name, job->database,
		          why.msg);
		job->next_us = clock_now_us() + RETRY_US;
		return;
	}
	l->began_us = l->entry.began_us;
	l->running = job->key;
	log_debug("jobs", "started job=\"%s\" db=%s", job->name, job->database);
}

/* Its error is the last line that begins as the program's errors do. */
static void take_message(struct lane *l, char *out, size_t size)
{
	static const char prefix[] = "asof: ";
	char *found = NULL;

	l->output[l->output_len] = 0;
	for (char *line = l->output; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, prefix, sizeof(prefix) - 1) == 0)
			found = line + sizeof(prefix) - 1;
	}
	snprintf(out, size, "%.*s", found ? (int)strcspn(found, "\n") : 0, found ? found : "");
}

/* The newest half stays when it says too much. */
static void take_output(struct lane *l)
{
	for (int i = 0; i < 64 && l->output_fd >= 0; i++) {
		size_t room = sizeof(l->output) - 1 - l->output_len;
		if (room < sizeof(l->output) / 4) {
			size_t half = l->output_len / 2;
			memmove(l->output, l->output + half, l->output_len - half);
			l->output_len -= half;
			continue;
		}
		ssize_t n = read(l->output_fd, l->output + l->output_len, room);
		if (n <= 0)
			return;
		l->output_len += (size_t)n;
	}
}

static int64_t copy_retry_us(const struct job *job)
{
	unsigned doublings = job->failures > 9 ? 8 : job->failures - 1;
	int64_t us = COPY_RETRY_MIN_US << doublings;
	int64_t most_us = job->kind == JOB_SEND ? RETRY_US : COPY_RETRY_MAX_US;

	return us < most_us ? us : most_us;
}

/* Now, and not when folders are looked at next. */
static void hurry_sending(struct jobs *j)
{
	for (size_t i = 0; i < j->n; i++)
		if (j->jobs[i].kind == JOB_SEND && j->jobs[i].key != j->lanes[LANE_SEND].running)
			j->jobs[i].next_us = clock_now_us();
}

static void finish(struct jobs *j, struct lane *l, int status)
{
	struct job *job = find_job(j, l->running);
	bool copies = job && (job->kind == JOB_COPY || job->kind == JOB_SEND);
	char text[CHILD_STATUS_MAX];

	take_output(l);
	close(take_fd(&l->output_fd));
	l->running = 0;
	if (j->stopping)
		return; /* cut short by us: it is made up for */
	l->entry.ended_us = clock_now_us();
	l->entry.ok = WIFEXITED(status) && WEXITSTATUS(status) == 0;
	if (!l->entry.ok) {
		take_message(l, l->entry.message, sizeof(l->entry.message));
		child_describe(status, text);
		if (!l->entry.message[0])
			snprintf(l->entry.message, sizeof(l->entry.message), "%s", text);
		log_error("jobs", "failed job=\"%s\" db=%s: %s", l->entry.job, l->entry.database,
		          l->entry.message);
		if (j->result.kind == ERR_NONE)
			err_set(&j->result, ERR_IO, 0, "%s of '%s': %s", l->entry.job,
			        l->entry.database, l->entry.message);
	} else {
		log_write(copies ? LOG_DEBUG : LOG_INFO, "jobs",
		          "done job=\"%s\" db=%s seconds=%.1f", l->entry.job, l->entry.database,
		          (double)(l->entry.ended_us - l->entry.began_us) / 1e6);
	}
	/* Copies are many: only what is new about them. */
	if (!copies || l->entry.ok != (job->failures == 0) || job->copied_txid == 0)
		write_entry(j, &l->entry);
	if (!job)
		return;
	pthread_mutex_lock(&j->lock);
	job->n_ok += l->entry.ok;
	job->n_failed += !l->entry.ok;
	pthread_mutex_unlock(&j->lock);
	if (copies && l->entry.ok)
		job->copied_txid = job->copying_txid;
	job->last_us = l->entry.scheduled_us;
	job->failures = l->entry.ok ? 0 : job->failures + 1;
	job->next_us = 0; /* until planned */
	if (copies && job->failures)
		job->next_us = clock_now_us() + copy_retry_us(job);
	else if (job->failures > 0 && job->failures < TRIES)
		job->next_us = clock_now_us() + RETRY_US;
	else
		job->failures = 0;
	l->to_plan = job->key;
	if (job->kind == JOB_BACKUP && l->entry.ok)
		hurry_sending(j);
}

/* When the job that has just ended runs next. */
static void plan_ended(struct jobs *j, struct lane *l, struct fleet *f)
{
	struct job *job = l->to_plan ? find_job(j, l->to_plan) : NULL;
	struct fleet_entry e = {0};

	l->to_plan = 0;
	if (job && job->failures == 0 && (!job->path || fleet_find(f, job->path, &e)))
		plan(j, job, e.config);
}

/* Space is short: what may go shall go now. */
static void hurry_retention(struct jobs *j)
{
	for (size_t i = 0; i < j->n; i++)
		if (j->jobs[i].kind == JOB_RETAIN)
			j->jobs[i].next_us = j->jobs[i].scheduled_us = clock_now_us();
}

static enum lane_kind lane_of(const struct job *job)
{
	return job->kind == JOB_COPY ? LANE_COPY : job->kind == JOB_SEND ? LANE_SEND : LANE_HEAVY;
}

/* The one that is due since longest; NULL: none. */
static struct job *next_due(struct jobs *j, enum lane_kind lane, bool once)
{
	int64_t now_us = clock_now_us();
	struct job *first = NULL;

	for (size_t i = 0; i < j->n; i++) {
		struct job *job = &j->jobs[i];
		bool wanted = !once || job->kind == JOB_BACKUP || job->kind == JOB_SEND;
		if (lane_of(job) == lane && job->next_us && job->next_us <= now_us && wanted &&
		    (!first || job->next_us < first->next_us))
			first = job;
	}
	return first;
}

/* False: it is at work. */
static bool lane_is_free(struct jobs *j, struct lane *l)
{
	int status = 0;

	take_output(l);
	if (!l->child.pid)
		return true;
	if (!child_ended(&l->child, &status)) {
		if (clock_mono_us() - l->child.started_us > LIMIT_US)
			child_end(&l->child, PATIENCE_US);
		return false;
	}
	finish(j, l, status);
	return true;
}

void jobs_step(struct jobs *j, struct fleet *f, bool once)
{
	bool is_free[N_LANES];

	for (size_t i = 0; i < N_LANES; i++)
		is_free[i] = lane_is_free(j, &j->lanes[i]);
	if (j->stopping || !j->config)
		return;
	if (j->refreshed_us == 0 || clock_mono_us() - j->refreshed_us > REFRESH_US)
		refresh(j, f);
	for (size_t i = 0; i < N_LANES; i++)
		plan_ended(j, &j->lanes[i], f);
	if (fleet_is_short(f) && clock_mono_us() - j->hurried_us > RETRY_US) {
		j->hurried_us = clock_mono_us();
		hurry_retention(j);
	}
	for (size_t i = 0; i < N_LANES; i++) {
		/* Most copies find nothing new, and then the next one is looked at. */
		for (size_t tries = 0; is_free[i] && tries <= j->n; tries++) {
			struct job *job =
			        j->lanes[i].child.pid ? NULL : next_due(j, (enum lane_kind)i, once);
			if (!job)
				break;
			start(j, &j->lanes[i], job, f);
		}
	}
	j->done = true;
	for (size_t i = 0; i < N_LANES; i++)
		if (j->lanes[i].child.pid || next_due(j, (enum lane_kind)i, once))
			j->done = false;
}

/* ---- life ---- */

int jobs_new(const char *program, const char *env_path, struct jobs **ret, struct err *err)
{
	struct jobs *j = calloc(1, sizeof(*j));

	if (!j)
		return err_set(err, ERR_NOMEM, 0, "no memory");
	snprintf(j->program, sizeof(j->program), "%s", program);
	j->env_path = env_path;
	j->hurried_us = -RETRY_US;
	pthread_mutex_init(&j->lock, NULL);
	for (size_t i = 0; i < N_LANES; i++)
		j->lanes[i].output_fd = -1;
	*ret = j;
	return 0;
}

void jobs_apply(struct jobs *j, const struct config *c)
{
	j->config = c;
	j->refreshed_us = 0;
	j->done = false;
}

bool jobs_all_done(const struct jobs *j)
{
	return j->done && jobs_stopped(j);
}

int jobs_result(const struct jobs *j, struct err *err)
{
	return j->result.kind == ERR_NONE ? 0 : err_copy(err, &j->result);
}

bool jobs_get(struct jobs *j, size_t i, struct job_status *ret)
{
	LOCK_SCOPE(&j->lock);

	if (i >= j->n)
		return false;
	const struct job *job = &j->jobs[i];
	*ret = (struct job_status){
	        .next_us = job->next_us, .n_ok = job->n_ok, .n_failed = job->n_failed};
	memcpy(ret->job, job->name, sizeof(ret->job));
	snprintf(ret->database, sizeof(ret->database), "%s", job->database);
	for (size_t k = 0; k < N_LANES; k++)
		if (j->lanes[k].running == job->key) {
			ret->running = true;
			ret->began_us = j->lanes[k].began_us;
		}
	return true;
}

void jobs_stop(struct jobs *j)
{
	j->stopping = true;
	for (size_t i = 0; i < N_LANES; i++)
		child_end(&j->lanes[i].child, PATIENCE_US);
}

bool jobs_stopped(const struct jobs *j)
{
	for (size_t i = 0; i < N_LANES; i++)
		if (j->lanes[i].child.pid)
			return false;
	return true;
}

void jobs_free(struct jobs *j)
{
	if (!j)
		return;
	for (size_t i = 0; i < j->n; i++)
		free_job(&j->jobs[i]);
	free(j->jobs);
	pthread_mutex_destroy(&j->lock);
	for (size_t i = 0; i < N_LANES; i++)
		if (j->lanes[i].output_fd >= 0)
			close(j->lanes[i].output_fd);
	journal_free(j->journal);
	free(j);
}
