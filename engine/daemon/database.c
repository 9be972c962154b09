/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `lock` guards what other threads read and ask for, and the pointers to capture and recorder
 * while these may be asked something; the task alone changes them.
 */
#include "engine/daemon/database.h"

#include "engine/base/cleanup.h"
#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "engine/daemon/keeper.h"
#include "engine/restore/restore.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

/* With what is queued and a checkpoint's worth of reading, SIGTERM is done in 5 s. */
#define STOP_TIMEOUT_US (2 * US_PER_SECOND)
#define LOOK_MIN_US (200 * 1000)
#define LOOK_MAX_US (2 * US_PER_SECOND)
#define RETRY_MIN_US US_PER_SECOND
#define RETRY_MAX_US (60 * US_PER_SECOND)
#define CLOSING_POLL_US 5000
#define WARN_EVERY_US (60 * US_PER_SECOND)
#define PLACE_EVERY_US (10 * US_PER_SECOND)

enum wish { WISH_RUN, WISH_PAUSE, WISH_STOP };

struct database {
	struct pools *pools;
	struct database_options options; /* texts are ours */
	struct pool_task *task;

	pthread_mutex_t lock;
	enum wish wish;
	enum database_state state;
	int64_t since_us;
	char reason[200];
	struct capture *capture;
	struct recorder *recorder;
	uint64_t run; /* number of the present capture, or of the next */

	/* ---- of the capture's task ---- */
	struct pool_task *capture_task;
	_Atomic(struct pool_task *) capture_wake; /* the same, while it may be woken */
	_Atomic bool capture_ended;
	struct err capture_err;

	/* ---- of the task ---- */
	struct keeper *keeper;
	bool recorder_ending;
	struct err err; /* of the run that is closing, or that ended it */
	int64_t look_us, retry_us;
	int64_t opened_us; /* monotonic */
	int64_t warned_us;
	struct err stop_err; /* capture stops, and begins again by itself: why */
	bool archive_gone;   /* it was there: another is not begun in its place */
	_Atomic bool check_space;
};

const char *database_state_name(enum database_state state)
{
	static const char *const names[] = {"waiting", "opening", "replicating", "closing",
	                                    "paused",  "failed",  "ended"};
	return names[state];
}

static void set_state(struct database *d, enum database_state state, const char *reason)
{
	LOCK_SCOPE(&d->lock);
	if (d->state != state) {
		d->since_us = clock_now_us();
		log_debug("database", "db=%s state=%s", d->options.name,
		          database_state_name(state));
	}
	d->state = state;
	snprintf(d->reason, sizeof(d->reason), "%.199s", reason);
}

static enum wish wish_of(struct database *d)
{
	LOCK_SCOPE(&d->lock);
	return d->wish;
}

/* ---- capture ---- */

static int64_t capture_task_step(void *ctx)
{
	struct database *d = ctx;
	int64_t wait_us = 0;

	if (d->capture_ended)
		return POOL_WHEN_WOKEN;
	/* What it got over on its way (a sink without room) is no reason for an end. */
	struct err why = ERR_INIT;
	int rc = capture_step(d->capture, &wait_us, &why);
	if (rc == 0 && wait_us != CAPTURE_ENDED)
		return wait_us;
	if (rc < 0)
		d->capture_err = why;
	d->capture_ended = true;
	pool_wake(d->task);
	return POOL_WHEN_WOKEN;
}

/*
 * From the hub's thread while capture is attached, from the recorder and its scan, and under the
 * lock: all of these are over when the task is removed.
 */
static void wake_capture(void *ctx)
{
	struct database *d = ctx;
	struct pool_task *t = d->capture_wake;

	if (t)
		pool_wake(t);
}

/* ---- opening ---- */

static int inspect(struct database *d, struct err *err)
{
	struct capture_options co = {.enable_wal = d->options.enable_wal, .hub = d->pools->hub};
	struct capture_sink none = {0};
	struct capture *c = NULL;

	int rc = capture_open(d->options.path, &co, &none, &c, err);
	capture_free(c);
	return rc;
}

/* Looks at the database before anything is made for it.  Not without claim(): where it is open
 * already under another path, looking at it would drop SQLite's locks. */
static int look(struct database *d, struct err *err)
{
	struct stat st;

	if (stat(d->options.path, &st) < 0)
		return err_set(err, errno == ENOENT || errno == ENOTDIR ? ERR_NOT_FOUND : ERR_IO,
		               errno, "database '%s'", d->options.path);
	int rc = d->options.claim
	                 ? d->options.claim(d->options.claim_ctx, d, st.st_dev, st.st_ino, err)
	                 : 0;
	return rc < 0 ? rc : inspect(d, err);
}

/* Beside a database that a restore was killed at, SQLite would begin a new -wal, and the one that
 * the restore had moved would never come back. */
static int take_up(void *ctx, const char *db_path, struct err *err)
{
	(void)ctx;
	return restore_take_up(db_path, err);
}

static int open_capture(struct database *d, struct recorder *r, struct capture **ret,
                        struct err *err)
{
	struct capture_position pos;
	struct capture_options co = {
	        .strict = d->options.strict,
	        .enable_wal = d->options.enable_wal,
	        .wal_cap_bytes = d->options.wal_cap_bytes,
	        .hub = d->pools->hub,
	        .wake = wake_capture,
	        .wake_ctx = d,
	        .take_up = take_up,
	};

	if (recorder_resume(r, &pos, &co.resume_page_size))
		co.resume = &pos;
	return capture_open(d->options.path, &co, recorder_sink(r), ret, err);
}

static void on_news(void *ctx, bool changed)
{
	struct database *d = ctx;

	(void)changed;
	d->options.news(d->options.news_ctx, d->options.archive, d->options.name);
}

static void set_parts(struct database *d, struct recorder *r, struct capture *c)
{
	LOCK_SCOPE(&d->lock);
	d->recorder = r;
	d->capture = c;
	d->run++;
}

/* The capture's task comes last: with its first step all of it is at work. */
static int start_parts(struct database *d, struct err *err)
{
	d->capture_ended = false;
	d->capture_err = (struct err)ERR_INIT;
	d->recorder_ending = false;
	int rc = recorder_start(d->recorder, d->capture, err);
	if (rc == 0 && !d->options.no_maintenance)
		rc = keeper_new(d->recorder, &d->keeper, err);
	if (rc == 0 && d->keeper)
		rc = keeper_start(d->keeper, err);
	if (rc == 0)
		rc = pool_add(d->pools->capture, capture_task_step, d, &d->capture_task, err);
	if (rc < 0)
		return rc;
	if (d->options.news) {
		recorder_on_news(d->recorder, RECORDER_SHIPPING, on_news, d);
		on_news(d, true); /* of what came before that */
	}
	d->capture_wake = d->capture_task;
	pool_wake(d->capture_task); /* of what came before that it may have missed */
	return 0;
}

static void free_parts(struct database *d)
{
	struct capture *c = d->capture;
	struct recorder *r = d->recorder;

	set_parts(d, NULL, NULL); /* nobody asks them any more */
	keeper_free(take_ptr(d->keeper));
	if (r)
		recorder_free(r);
	/* After the recorder, whose scan asks it. */
	d->capture_wake = NULL;
	pool_remove(take_ptr(d->capture_task));
	capture_free(c);
}

static int open_parts(struct database *d, struct err *err)
{
	char real_path[PATH_MAX];
	struct recorder *r = NULL;
	struct capture *c = NULL;
	const struct recorder_options ro = {
	        .pools = d->pools,
	        .archive = d->options.archive,
	        .name = d->options.name,
	        .source_path = realpath(d->options.path, real_path) ? real_path : d->options.path,
	        .adopt = d->options.adopt,
	        .segment_bytes = d->options.segment_bytes,
	};

	int rc = recorder_open(&ro, &r, err);
	if (rc == 0)
		rc = open_capture(d, r, &c, err);
	if (rc < 0) {
		recorder_free(r);
		return rc;
	}
	set_parts(d, r, c);
	rc = start_parts(d, err);
	if (rc < 0)
		free_parts(d);
	return rc;
}

/* ---- the states ---- */

/* What is not there yet can come; anything else is a failure. */
static bool may_come(const struct err *why)
{
	return why->kind == ERR_NOT_FOUND || why->kind == ERR_DAMAGED || why->kind == ERR_REFUSED ||
	       why->sys_errno == ENOTDIR;
}

static int64_t end(struct database *d, const struct err *why)
{
	d->err = *why;
	set_state(d, DATABASE_ENDED, why->msg);
	return POOL_WHEN_WOKEN;
}

static int64_t fail(struct database *d, const struct err *why)
{
	if (d->options.at_once && !d->archive_gone)
		return end(d, why);
	log_error("database", "failed, trying again db=%s in_s=%lld: %s", d->options.name,
	          (long long)(d->retry_us / US_PER_SECOND), why->msg);
	set_state(d, DATABASE_FAILED, why->msg);
	int64_t us = d->retry_us;
	d->retry_us = us * 2 > RETRY_MAX_US ? RETRY_MAX_US : us * 2;
	return us;
}

static int64_t wait_for(struct database *d, const char *what, const struct err *why)
{
	int64_t now_us = clock_mono_us();

	if (d->warned_us == 0 || now_us - d->warned_us > WARN_EVERY_US) {
		enum log_level level = d->archive_gone              ? LOG_ERROR
		                       : why->kind == ERR_NOT_FOUND ? LOG_INFO
		                                                    : LOG_WARN;
		log_write(level, "database", "waiting for the %s db=%s: %s", what, d->options.name,
		          why->msg);
		d->warned_us = now_us;
	}
	set_state(d, DATABASE_WAITING, why->msg);
	int64_t us = d->look_us;
	d->look_us = us * 2 > LOOK_MAX_US ? LOOK_MAX_US : us * 2;
	return us;
}

static int may_write(struct database *d, struct err *err)
{
	return d->options.may_write ? d->options.may_write(d->options.claim_ctx, d, err) : 0;
}

static int64_t try_to_open(struct database *d)
{
	struct err why = ERR_INIT;

	if (d->archive_gone && !recorder_has_place(d->options.archive, d->options.name))
		return wait_for(d, "archive", &d->err);
	int rc = look(d, &why);
	if (rc < 0)
		return d->options.at_once || !may_come(&why) ? fail(d, &why)
		                                             : wait_for(d, "database", &why);
	set_state(d, DATABASE_OPENING, "");
	rc = may_write(d, &why);
	rc = rc < 0 ? rc : open_parts(d, &why);
	if (rc < 0)
		return fail(d, &why);
	d->look_us = LOOK_MIN_US;
	d->warned_us = 0;
	d->archive_gone = false;
	d->err = (struct err)ERR_INIT;
	d->opened_us = clock_mono_us();
	log_info("database", "start db=%s archive=%s name=%s", d->options.path, d->options.archive,
	         d->options.name);
	set_state(d, DATABASE_REPLICATING, "");
	return 0;
}

static int64_t begin_to_close(struct database *d)
{
	set_state(d, DATABASE_CLOSING, "");
	if (clock_mono_us() - d->opened_us > RETRY_MAX_US)
		d->retry_us = RETRY_MIN_US;
	keeper_stop(d->keeper);
	capture_stop(d->capture);
	return CLOSING_POLL_US;
}

static int64_t closed(struct database *d)
{
	struct err why = d->capture_err, left = ERR_INIT;

	if (recorder_result(d->recorder, &left) < 0 && why.kind == ERR_NONE)
		why = left;
	if (d->stop_err.kind != ERR_NONE)
		why = d->stop_err;
	d->stop_err = (struct err)ERR_INIT;
	free_parts(d);
	bool ends = d->options.at_once && why.kind != ERR_NONE && !d->archive_gone;
	if (wish_of(d) == WISH_STOP || ends)
		return end(d, &why);
	if (d->archive_gone && wish_of(d) == WISH_RUN) {
		d->err = why;
		d->warned_us = 0;
		return wait_for(d, "archive", &why);
	}
	if (why.kind != ERR_NONE)
		return fail(d, &why);
	set_state(d, wish_of(d) == WISH_PAUSE ? DATABASE_PAUSED : DATABASE_WAITING, "");
	return 0;
}

static int64_t closing(struct database *d)
{
	if (!d->capture_ended)
		return CLOSING_POLL_US;
	if (!d->recorder_ending) {
		recorder_end(d->recorder, STOP_TIMEOUT_US);
		d->recorder_ending = true;
	}
	return recorder_ended(d->recorder) ? closed(d) : CLOSING_POLL_US;
}

/* Whether what is captured may be written, and is written where it will be found. */
static bool may_go_on(struct database *d)
{
	if (atomic_exchange(&d->check_space, false) && may_write(d, &d->stop_err) < 0)
		return false;
	d->archive_gone = recorder_check_place(d->recorder, &d->stop_err) < 0;
	return !d->archive_gone;
}

static int64_t database_step(void *ctx)
{
	struct database *d = ctx;
	struct err none = ERR_INIT;

	pthread_mutex_lock(&d->lock);
	enum wish wish = d->wish;
	enum database_state state = d->state;
	pthread_mutex_unlock(&d->lock);
	switch (state) {
	case DATABASE_REPLICATING:
		if (wish != WISH_RUN || d->capture_ended)
			return begin_to_close(d);
		return may_go_on(d) ? PLACE_EVERY_US : begin_to_close(d);
	case DATABASE_CLOSING:
		return closing(d);
	case DATABASE_ENDED:
		return POOL_WHEN_WOKEN;
	case DATABASE_WAITING:
	case DATABASE_OPENING:
	case DATABASE_PAUSED:
	case DATABASE_FAILED:
		break;
	}
	if (wish == WISH_STOP)
		return end(d, d->archive_gone ? &d->err : &none);
	if (wish == WISH_RUN)
		return try_to_open(d);
	set_state(d, DATABASE_PAUSED, "");
	return POOL_WHEN_WOKEN;
}

/* ---- for others ---- */

static int copy_text(const char *text, const char **ret, struct err *err)
{
	*ret = strdup(text);
	return *ret ? 0 : err_set(err, ERR_NOMEM, 0, "no memory");
}

static void release(struct database *d)
{
	pthread_mutex_destroy(&d->lock);
	free((void *)(uintptr_t)d->options.path);
	free((void *)(uintptr_t)d->options.archive);
	free((void *)(uintptr_t)d->options.name);
	free(d);
}

int database_new(struct pools *pools, const struct database_options *options, struct database **ret,
                 struct err *err)
{
	struct database *d = calloc(1, sizeof(*d));

	if (!d)
		return err_set(err, ERR_NOMEM, 0, "no memory");
	pthread_mutex_init(&d->lock, NULL);
	d->pools = pools;
	d->options = *options;
	d->options.path = d->options.archive = d->options.name = NULL;
	d->since_us = clock_now_us();
	d->look_us = LOOK_MIN_US;
	d->retry_us = RETRY_MIN_US;
	d->wish = options->paused ? WISH_PAUSE : WISH_RUN;
	int rc = copy_text(options->path, &d->options.path, err);
	if (rc == 0)
		rc = copy_text(options->archive, &d->options.archive, err);
	if (rc == 0)
		rc = copy_text(options->name, &d->options.name, err);
	if (rc == 0)
		rc = pool_add(pools->control, database_step, d, &d->task, err);
	if (rc < 0) {
		release(d);
		return rc;
	}
	*ret = d;
	return 0;
}

static void ask(struct database *d, enum wish wish)
{
	pthread_mutex_lock(&d->lock);
	if (d->wish != WISH_STOP)
		d->wish = wish;
	pthread_mutex_unlock(&d->lock);
	pool_wake(d->task);
}

void database_stop(struct database *d)
{
	ask(d, WISH_STOP);
}

void database_pause(struct database *d)
{
	ask(d, WISH_PAUSE);
}

void database_resume(struct database *d)
{
	ask(d, WISH_RUN);
}

void database_look(struct database *d)
{
	pool_wake(d->task);
}

void database_check_space(struct database *d)
{
	d->check_space = true;
	pool_wake(d->task);
}

bool database_ended(struct database *d)
{
	LOCK_SCOPE(&d->lock);
	return d->state == DATABASE_ENDED;
}

int database_result(struct database *d, struct err *err)
{
	return d->err.kind == ERR_NONE ? 0 : err_copy(err, &d->err);
}

void database_free(struct database *d)
{
	if (!d)
		return;
	pool_remove(d->task);
	release(d);
}

const char *database_name(const struct database *d)
{
	return d->options.name;
}

const char *database_path(const struct database *d)
{
	return d->options.path;
}

const char *database_archive(const struct database *d)
{
	return d->options.archive;
}

void database_get_status(struct database *d, struct database_status *ret)
{
	LOCK_SCOPE(&d->lock);

	*ret = (struct database_status){.state = d->state, .since_us = d->since_us};
	memcpy(ret->reason, d->reason, sizeof(ret->reason));
	if (d->capture) {
		struct capture_status cs;
		capture_get_status(d->capture, &cs);
		ret->attached = cs.attached;
		if (cs.waiting_for[0])
			snprintf(ret->reason, sizeof(ret->reason), "%s", cs.waiting_for);
	}
	if (d->recorder) {
		struct recorder_status rs;
		recorder_get_status(d->recorder, &rs);
		ret->last_txid = rs.last_txid;
		ret->commits = rs.commits;
		ret->gaps = rs.gaps;
		ret->last_us = rs.last_us;
		ret->known_until_us = rs.known_until_us;
		ret->queued_bytes = rs.queued_bytes;
		ret->settled = rs.settled;
		ret->taken_bytes = rs.taken_bytes;
		ret->syncs = rs.syncs;
		ret->sync_errors = rs.sync_errors;
		ret->sync_us = rs.sync_us;
		if (rs.trouble[0] || rs.unwhole[0])
			snprintf(ret->reason, sizeof(ret->reason), "%s",
			         rs.trouble[0] ? rs.trouble : rs.unwhole);
	}
}

/* ---- sync ---- */

static int not_replicating(struct database *d, struct err *err)
{
	return err_set(err, ERR_CANCELLED, 0, "'%s' is not being replicated (%s)%s%s",
	               d->options.name, database_state_name(d->state), d->reason[0] ? ": " : "",
	               d->reason);
}

int database_sync_begin(struct database *d, struct database_sync *ret, struct err *err)
{
	struct capture_status cs;
	LOCK_SCOPE(&d->lock);

	if (!d->capture || d->state != DATABASE_REPLICATING)
		return not_replicating(d, err);
	capture_get_status(d->capture, &cs);
	*ret = (struct database_sync){.run = d->run, .epoch = cs.epoch};
	ret->ticket = capture_barrier_begin(d->capture);
	return 0;
}

int database_sync(struct database *d, struct database_sync *s, struct err *err)
{
	LOCK_SCOPE(&d->lock);

	if (!d->capture || d->run != s->run || d->state != DATABASE_REPLICATING)
		return not_replicating(d, err);
	if (!s->accepted) {
		int rc = capture_barrier(d->capture, s->epoch, s->ticket, err);
		if (rc < 0)
			return rc;
		s->accepted = true;
		s->items = recorder_queued(d->recorder);
	}
	if (!recorder_durable(d->recorder, s->items))
		return err_set(err, ERR_BUSY, 0, "'%s': not yet", d->options.name);
	return 0;
}
