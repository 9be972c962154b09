/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The protocol: how commits are taken from a live WAL without writing, without a checkpoint
 * and without a read transaction, and why nothing is missed unsaid.
 *
 * SQLite appends commits to the -wal and publishes each by moving mxFrame in the wal-index
 * (-shm).  A checkpoint copies frames into the database (nBackfillAttempted says how far it
 * means to come, nBackfill how far it came).  When all are copied and nobody reads the WAL,
 * the next writer, or a RESTART or TRUNCATE checkpoint, *resets* it: new salts, and frames are
 * written from 1 again.  What was not captured before a reset is lost to us.  A reset needs
 * EXCLUSIVE on read locks 1 to 4; copying needs EXCLUSIVE on read lock 0.
 *
 * States, by what is held, and the functions that change them (state.c unless named):
 *
 *                 capture_attach()
 *     DETACHED ---------------------> HOLD <----- capture_hold(), follow() --+
 *        ^                            |  |                                   |
 *        | leave(), from              |  +------- let_go_of_mark() -----> FLOAT
 *        | every state         park() |                                      |
 *        |                            v                                      |
 *        +--------------------------- PARK <------ park(), park_soon() ------+
 *                                     |
 *                                     +----> HOLD: follow() takes a mark, then lets 0 go
 *
 *   HOLD    SHARED on an unused read mark, 1 to 4.  No reset can happen, checkpoints can.
 *   FLOAT   nothing that matters to resets; recoveries are barred, so that commits can be
 *           counted.  Entered when everything is captured and a checkpoint of the whole WAL has
 *           begun (the application is in its fsyncs; the reset follows within 30 us of their
 *           end, so letting go at the end would be too late), or when the WAL is long and
 *           written to without a pause.
 *   PARK    SHARED on read lock 0, taken while nBackfill == mxFrame and everything captured.
 *           Resets can happen, copying cannot.  Idle databases rest here.
 *
 * Invariants.
 *   1. Frames 1..mxFrame of the wal-index are what SQLite's readers see; none beyond is taken.
 *   2. In HOLD frames <= mxFrame do not move.  The header is read again after a lock is taken.
 *   3. In PARK at most one generation with frames can begin: its frames cannot be copied, so
 *      it cannot be reset.  A mark is taken before read lock 0 is let go.
 *   4. `covered`: since a header that showed no frame missed but those still in this WAL, HOLD
 *      or PARK was held without a break.  Then other salts mean one new generation, whole.
 *   5. Not covered, other salts: the commits in the new generation must be as many as iChange
 *      grew; see proof.c.  Else a break is announced.
 *   6. What is read without a lock is used only if the salts still stand after the read.
 *   7. The position moves only when the sink accepted the frames.
 *
 * STRICT leaves FLOAT out: HOLD until PARK can be taken on top of it.
 *
 * After a break HOLD comes first, then on_break(), then the frames of the present WAL, so that
 * a reader of the main file who copies pages from then on lacks nothing: a page that he reads
 * too old is in a frame that he is given.
 */
#include "engine/capture/capture.h"

#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/base/lock.h"
#include "engine/base/log.h"
#include "engine/capture/internal.h"

#include <assert.h>
#include <sched.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define WAL_CAP_DEFAULT (UINT64_C(1) << 30)
#define BATCH_DEFAULT ((size_t)1 << 20)
#define CAUGHT_UP_US (50 * MS)
#define TORN_US (100 * MS)
#define STUCK_US (5 * US_PER_SECOND)
#define STOP_BUDGET_US (3 * US_PER_SECOND)
#define FOREIGN_LOCK_US (60 * MS)
#define FILES_LOOK_US (4 * US_PER_SECOND)
#define ATTACH_WAIT_MIN_US (50 * MS)
#define ATTACH_WAIT_MAX_US (500 * MS)
#define REPLACED_WAIT_US (250 * MS)
#define NICE_CAPTURE (-10)
#define SLICE_NS 100000
#define WARN_EVERY_US (60 * US_PER_SECOND)

const char *capture_break_name(enum capture_break why)
{
	switch (why) {
	case CAPTURE_FIRST:
		return "first";
	case CAPTURE_GAP:
		return "gap";
	case CAPTURE_REWOUND:
		return "rewound";
	case CAPTURE_REPLACED:
		return "replaced";
	case CAPTURE_PAGE_SIZE:
		return "page-size";
	}
	return "unknown";
}

/* ---- one tick ---- */

static void note_captured(struct capture *c, const struct look *look)
{
	c->captured = true;
	c->change_known = true;
	c->pos.change = look->index.change;
	c->confirmed_us = look->mono_us;
	c->change_exact = c->no_recovery; /* taken before this look */
	c->progress_us = look->mono_us;
	c->not_before_us = look->before_us;

	pthread_mutex_lock(&c->lock);
	if (c->accepted_tick != look->tick) {
		c->accepted_tick = look->tick;
		pthread_cond_broadcast(&c->changed);
	}
	pthread_mutex_unlock(&c->lock);
	int64_t since_us = look->mono_us - c->caught_up_us;
	if (since_us < (c->delivered_since_caught_up ? CAUGHT_UP_US : 10 * CAUGHT_UP_US))
		return;
	c->caught_up_us = look->mono_us;
	c->delivered_since_caught_up = false;
	/* Another file at the path may have commits of before the look: nothing is known then. */
	if (!capture_in_place(c)) {
		c->watch.dir_changed = true;
		return;
	}
	c->sink.on_caught_up(c->sink.ctx, look->before_us);
}

/* Frames wait for a sink without room: the lock stays, up to the cap. */
static void wait_for_sink(struct capture *c)
{
	struct look look;

	if (!capture_look(c, &look))
		return;
	c->progress_us = look.mono_us;
	if (capture_over_cap(c, &look.index))
		capture_drop_mark(c), capture_drop_park(c);
	else if (!c->mark)
		capture_hold(c);
}

/*
 * A long WAL written to without a pause is followed without locks, which would be in the way
 * of the rare moment at which it can be reset.
 */
static bool lock_to_read(const struct capture *c, const struct look *look)
{
	if (c->mark)
		return false;
	return c->options.strict || c->parked || look->index.max_frame < RELEASE_FRAMES ||
	       !watch_is_fast(c, look->mono_us) || look->index.salt1 != c->pos.salt1;
}

/* The header shows what was not captured: prove that it continues, and hand it over. */
static int follow(struct capture *c, struct look *look, struct err *err)
{
	c->captured = false;
	if (lock_to_read(c, look) && capture_take_mark(c) && !capture_look(c, look))
		return 0;
	int rc = capture_need_buffer(c, err);
	if (rc)
		return rc;
	switch (capture_prove(c, look)) {
	case PROOF_BROKEN:
		return capture_announce_break(c, err);
	case PROOF_AGAIN:
		return 0;
	case PROOF_HOLDS:
		break;
	}
	if (c->mark)
		capture_drop_park(c); /* the sink may take its time; checkpoints need not wait */
	c->target = *look;
	c->target_pending = true;
	rc = capture_deliver(c, err);
	if (rc == 0 && c->due.set)
		rc = capture_announce_break(c, err);
	return rc;
}

static void take_request(struct capture *c)
{
	LOCK_SCOPE(&c->lock);
	if (c->break_requested) {
		c->break_requested = false;
		capture_break_due(c, CAPTURE_GAP, "%s", c->request_reason);
	}
}

static void publish_status(struct capture *c)
{
	bool locked = c->mark || c->parked;

	LOCK_SCOPE(&c->lock);
	c->status.locked = locked;
	c->status.wal_frames = c->last.index.max_frame;
}

static int tick(struct capture *c, struct err *err)
{
	struct look look;
	int rc = 0;

	pthread_mutex_lock(&c->lock);
	c->tick = ++c->ticks_begun;
	pthread_mutex_unlock(&c->lock);
	take_request(c);

	if (c->target_pending && !c->due.set)
		rc = capture_deliver(c, err);
	if (rc)
		return rc;
	if (c->due.set) {
		c->captured = false;
		return capture_announce_break(c, err);
	}
	if (c->target_pending) {
		wait_for_sink(c);
		return 0;
	}
	if (!capture_look(c, &look)) {
		c->captured = false;
		return 0;
	}
	if (!capture_is_captured(c, &look.index))
		rc = follow(c, &look, err);
	if (rc == 0 && !c->target_pending && !c->due.set && capture_is_captured(c, &look.index)) {
		note_captured(c, &look);
		capture_settle(c, &look);
	}
	return rc;
}

/* ---- attachment ---- */

/* Detaches so that a break or a proof follows at the next attachment. */
static void leave(struct capture *c)
{
	const struct wal_index *index = &c->last.index;

	if (c->bad_frame && index->salt1 == c->bad_salt1 && index->n_backfill < c->bad_frame)
		log_warn(LOG_MODULE,
		         "detaching from a WAL whose committed frames have bad checksums: a "
		         "recovery "
		         "will lose them unless the application runs PRAGMA wal_checkpoint first "
		         "(SQLite before 3.50.2) db=%s",
		         c->path);
	capture_detach(c);
	free(c->buf);
	c->buf = NULL;
	c->buf_bytes = 0;
}

static void waiting_for(struct capture *c, const char *what)
{
	int64_t now_us = clock_mono_us();
	bool changed;

	pthread_mutex_lock(&c->lock);
	changed = strncmp(c->status.waiting_for, what, sizeof(c->status.waiting_for) - 1) != 0;
	snprintf(c->status.waiting_for, sizeof(c->status.waiting_for), "%.*s",
	         (int)sizeof(c->status.waiting_for) - 1, what);
	pthread_mutex_unlock(&c->lock);
	if (c->warned_us && now_us - c->warned_us < WARN_EVERY_US && !changed)
		return;
	c->warned_us = now_us;
	log_warn(LOG_MODULE, "not attached, waiting db=%s reason=\"%s\"", c->path, what);
}

/* The lock first, then the header, then whether it continues what was captured before. */
static void resume(struct capture *c)
{
	struct look look;

	c->resuming = false;
	if (c->due.set)
		return;
	capture_take_mark(c);
	if (capture_look(c, &look)) {
		enum proof proof = capture_prove_resume(c, &look);
		if (proof == PROOF_HOLDS)
			log_info(LOG_MODULE, "going on db=%s frame=%llu", c->path,
			         (unsigned long long)c->pos.frame);
		if (proof != PROOF_AGAIN)
			return;
	} else {
		capture_provoke_recovery(c);
	}
	if (clock_mono_us() > c->resume_until_us)
		capture_break_due(c, CAPTURE_GAP, "the WAL cannot be read");
	c->resuming = !c->due.set;
	c->wait_us = MS;
}

static void begin_to_resume(struct capture *c)
{
	c->progress_us = clock_mono_us();
	c->resume_until_us = c->progress_us + US_PER_SECOND;
	c->not_before_us = 0;
	resume(c);
}

/* Errors that waiting cannot mend, unless the database was attached before. */
static bool hopeless(const struct capture *c, int rc)
{
	switch (err_kind_of(rc)) {
	case ERR_NOMEM:
	case ERR_USAGE:
		return true;
	case ERR_DENIED:
	case ERR_READ_ONLY:
		return !c->was_attached;
	default:
		return false;
	}
}

static int attach_or_wait(struct capture *c, struct err *err)
{
	struct err why = ERR_INIT;
	int rc = capture_attach(c, &why);

	if (rc == 0) {
		c->attach_wait_us = ATTACH_WAIT_MIN_US;
		c->warned_us = 0;
		log_info(LOG_MODULE, "attached db=%s page_size=%u", c->path, c->page_size);
		begin_to_resume(c);
		return 0;
	}
	if (hopeless(c, rc))
		return err_copy(err, &why);
	waiting_for(c, why.msg);
	c->wait_us = c->attach_wait_us;
	c->attach_wait_us =
	        c->wait_us * 2 > ATTACH_WAIT_MAX_US ? ATTACH_WAIT_MAX_US : c->wait_us * 2;
	return 0;
}

/*
 * Somebody wants the database for himself.  Every connection tries so for an instant when it
 * closes; a try that stays is meant.
 *
 * A connection that has written in WAL mode and then asks for locking_mode=EXCLUSIVE leaves PENDING
 * behind when it fails, and is let through.  One that asks before its first read, and every
 * journal_mode=DELETE, does not: in pagerExclusiveLock() SQLite takes PENDING, is refused the
 * SHARED range, and gives PENDING back, three calls of fcntl() without a wait (1.4 us measured, and
 * DELETE does not even ask the busy handler).  A refused F_SETLK tells its holder nothing, and
 * to see so short a lock by F_GETLK one would have to ask without a pause, for it looks like the
 * close of any connection besides.  Nor can SHARED be given up meanwhile: without it the last close
 * checkpoints and deletes a WAL whose end may not be captured.  So those two are not let through; the
 * manual says so, and to pause first.
 */
static bool foreign_wants_all(struct capture *c, int64_t now_us)
{
	if (now_us - c->foreign_look_us < FOREIGN_LOCK_LOOK_US)
		return false;
	c->foreign_look_us = now_us;
	if (!capture_foreign_exclusive(c->at.db_fd)) {
		c->foreign_since_us = 0;
		return false;
	}
	if (!c->foreign_since_us)
		c->foreign_since_us = now_us;
	return now_us - c->foreign_since_us > FOREIGN_LOCK_US;
}

/* Events tell of most that can happen to files; what they do not tell is asked seldom. */
static bool files_may_differ(const struct capture *c, int64_t now_us)
{
	return c->watch.dir_changed || c->file_changed_once ||
	       c->watch.event_us > c->files_us - SLOW_LOOK_US ||
	       now_us - c->files_us > FILES_LOOK_US;
}

static void check_files(struct capture *c, int64_t now_us)
{
	enum capture_break why;
	const char *reason;

	c->files_us = now_us;
	c->watch.dir_changed = false;
	switch (capture_identity(c, &why, &reason)) {
	case SAME_FILE:
		return;
	case SAME_FILE_NEW_BYTES:
		capture_break_due(c, why, "%s", reason);
		return;
	case OTHER_FILE:
		capture_break_due(c, why, "%s", reason);
		log_warn(LOG_MODULE, "detaching db=%s reason=\"%s\"", c->path, reason);
		leave(c);
		c->wait_us = REPLACED_WAIT_US; /* several files are being moved */
	}
}

/* What must be looked after besides frames.  False: detached. */
static bool guard(struct capture *c)
{
	int64_t now_us = clock_mono_us();

	if (foreign_wants_all(c, now_us)) {
		log_warn(LOG_MODULE,
		         "detaching: another process wants the database exclusively db=%s",
		         c->path);
		leave(c);
		c->wait_us = ATTACH_WAIT_MIN_US;
		return false;
	}
	if (now_us - c->slow_look_us >= SLOW_LOOK_US || c->watch.dir_changed) {
		c->slow_look_us = now_us;
		if (files_may_differ(c, now_us))
			check_files(c, now_us);
		if (!c->at.lock_db)
			return false;
	}
	if (c->torn_since_us && now_us - c->torn_since_us > TORN_US) {
		capture_provoke_recovery(c);
		c->torn_since_us = now_us;
	}
	if (now_us - c->progress_us > STUCK_US) {
		log_warn(LOG_MODULE, "the WAL cannot be followed, attaching anew db=%s", c->path);
		leave(c);
		return false;
	}
	return true;
}

/* An idle capture keeps no buffer. */
static void release_buffer(struct capture *c)
{
	if (c->buf && c->captured && clock_mono_us() - c->active_us > US_PER_SECOND) {
		free(c->buf);
		c->buf = NULL;
		c->buf_bytes = 0;
	}
}

static int run_attached(struct capture *c, struct err *err)
{
	if (!guard(c))
		return 0;
	watch_before_look(c);
	int rc = tick(c, err);
	if (rc)
		return rc;
	publish_status(c);
	release_buffer(c);
	c->wait_us = watch_next(c);
	return 0;
}

/* What is committed by now still goes out. */
static int last_step(struct capture *c, bool *ret_ended, struct err *err)
{
	int64_t now_us = clock_mono_us();

	*ret_ended = !c->at.lock_db;
	if (*ret_ended)
		return 0;
	c->wait_us = MS;
	if (c->resuming) {
		resume(c);
		return 0;
	}
	if (!c->last_until_us) {
		c->last_until_us = now_us + STOP_BUDGET_US;
		c->last_tick = c->ticks_begun + 1;
	}
	int rc = tick(c, err);
	if (rc)
		return rc;
	*ret_ended = !c->target_pending && !c->due.set && c->accepted_tick >= c->last_tick;
	if (!*ret_ended && now_us > c->last_until_us) {
		log_warn(LOG_MODULE, "stopping with commits not yet captured db=%s", c->path);
		*ret_ended = true;
	}
	return 0;
}

/*
 * Since Linux 6.12 a thread that asks for short slices may preempt those with longer ones when it
 * wakes, without privilege and without more processor time.  Older kernels ignore it.
 */
static void ask_short_slices(void)
{
	struct {
		uint32_t size, policy;
		uint64_t flags;
		int32_t nice;
		uint32_t priority;
		uint64_t runtime_ns, deadline, period;
	} attr;
	static_assert(sizeof(attr) == 48, "struct sched_attr, version 0");

	if (syscall(SYS_sched_getattr, 0, &attr, sizeof(attr), 0) == 0 && attr.policy == 0) {
		attr.flags = 0;
		attr.runtime_ns = SLICE_NS;
		syscall(SYS_sched_setattr, 0, &attr, 0);
	}
}

void capture_thread_begin(void)
{
	prctl(PR_SET_TIMERSLACK, 1000UL, 0, 0, 0); /* of this thread only */
	/*
	 * It does little, but on time: where the processors are all taken, coming late to a
	 * reset is what makes a gap.  Refused to those without the privilege; no matter.
	 */
	setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), NICE_CAPTURE);
	ask_short_slices();
}

/*
 * In FLOAT lateness loses commits, and there alone.  Niceness counts only among the threads of one
 * group of the scheduler, be it a service's or a session's: beside a dozen busy ones capture came
 * 40 to 90 ms late.  Real time does not wait for groups.  It is for those moments only: such a
 * thread wakes up where the application runs, and not where a processor is free; but while it
 * floats the application is in the fsyncs of a checkpoint.  Refused to those without the
 * privilege; no matter.
 */
void capture_hurry(bool on)
{
	const struct sched_param first = {.sched_priority = 1}, none = {0};
	bool is = (sched_getscheduler(0) & ~SCHED_RESET_ON_FORK) == SCHED_RR;

	if (is == on)
		return;
	if (sched_setscheduler(0, (on ? SCHED_RR : SCHED_OTHER) | SCHED_RESET_ON_FORK,
	                       on ? &first : &none) == 0 &&
	    !on)
		ask_short_slices();
}

static bool floats(const struct capture *c)
{
	return c->at.lock_db && !c->mark && !c->parked;
}

static void finish(struct capture *c)
{
	if (c->at.lock_db)
		leave(c);
	LOCK_SCOPE(&c->lock);
	c->finished = true;
	pthread_cond_broadcast(&c->changed);
}

int capture_step(struct capture *c, int64_t *ret_wait_us, struct err *err)
{
	bool ended = false;
	int rc = 0;

	c->wait_us = 0;
	c->watch.take_events = false;
	capture_hurry(floats(c)); /* the thread may be another one than before */
	if (c->stopping)
		rc = last_step(c, &ended, err);
	else if (!c->at.lock_db)
		rc = attach_or_wait(c, err);
	else if (c->resuming)
		resume(c);
	else
		rc = run_attached(c, err);
	if (rc || ended)
		finish(c);
	capture_hurry(floats(c));
	*ret_wait_us = ended ? CAPTURE_ENDED : c->wait_us;
	return rc;
}

int capture_run(struct capture *c, struct err *err)
{
	int64_t wait_us = 0;
	int rc = 0;

	capture_thread_begin();
	while (rc == 0 && wait_us != CAPTURE_ENDED) {
		rc = capture_step(c, &wait_us, err);
		if (rc == 0 && wait_us > 0)
			watch_sleep(c, wait_us);
	}
	return rc;
}

/* ---- from other threads ---- */

void capture_stop(struct capture *c)
{
	c->stopping = true;
	watch_wake(&c->watch);
}

static int cancelled(const struct capture *c, struct err *err)
{
	return err_set(err, ERR_CANCELLED, 0, "capture %s: %s", c->path,
	               c->finished ? "was stopped" : "continuity was broken meanwhile");
}

static void end_read(struct capture *c)
{
	LOCK_SCOPE(&c->lock);
	if (--c->readers == 0)
		pthread_cond_broadcast(&c->changed);
}

static int begin_read(struct capture *c, uint64_t epoch, struct err *err)
{
	LOCK_SCOPE(&c->lock);
	if (c->finished || c->epoch != epoch)
		return cancelled(c, err);
	if (!c->attached)
		return err_set(err, ERR_BUSY, 0, "capture %s: detached at the moment", c->path);
	c->readers++;
	return 0;
}

int capture_read_pages(struct capture *c, uint64_t epoch, uint32_t first_pgno, uint32_t n_pages,
                       uint32_t page_size, void *buf, uint32_t *ret_n, struct err *err)
{
	size_t got = 0;

	if (first_pgno == 0 || !page_size_valid(page_size))
		return err_set(err, ERR_USAGE, 0, "page %u of %u bytes", first_pgno, page_size);
	int rc = begin_read(c, epoch, err);
	if (rc)
		return rc;
	rc = file_pread_some(c->at.db_fd, buf, (size_t)n_pages * page_size,
	                     (uint64_t)(first_pgno - 1) * page_size, &got, c->path, err);
	end_read(c);
	if (rc == 0)
		*ret_n = (uint32_t)(got / page_size);
	return rc;
}

uint64_t capture_barrier_begin(struct capture *c)
{
	pthread_mutex_lock(&c->lock);
	uint64_t ticket = c->ticks_begun + 1;
	pthread_mutex_unlock(&c->lock);
	watch_wake(&c->watch);
	return ticket;
}

int capture_barrier(struct capture *c, uint64_t epoch, uint64_t ticket, struct err *err)
{
	LOCK_SCOPE(&c->lock);
	if (c->finished || c->epoch != epoch)
		return cancelled(c, err);
	return c->accepted_tick >= ticket
	               ? 0
	               : err_set(err, ERR_BUSY, 0, "capture %s: not yet", c->path);
}

void capture_request_break(struct capture *c, const char *reason)
{
	pthread_mutex_lock(&c->lock);
	c->break_requested = true;
	snprintf(c->request_reason, sizeof(c->request_reason), "%s", reason);
	pthread_mutex_unlock(&c->lock);
	watch_wake(&c->watch);
}

void capture_get_status(struct capture *c, struct capture_status *ret)
{
	LOCK_SCOPE(&c->lock);
	*ret = c->status;
}

/* ---- life ---- */

static int absolute_path(const char *path, char **ret, struct err *err)
{
	char cwd[PATH_MAX];

	if (path[0] == '/')
		*ret = strdup(path);
	else if (!getcwd(cwd, sizeof(cwd)) || asprintf(ret, "%s/%s", cwd, path) < 0)
		return err_set(err, ERR_IO, errno, "%s: current folder", path);
	return *ret ? 0 : err_set(err, ERR_NOMEM, 0, "%s: no memory", path);
}

static int refuse_unsuitable(const char *path, const struct capture_options *options,
                             struct err *err)
{
	struct db_header header;
	int rc = capture_inspect(path, &header, err);

	if (rc)
		return rc;
	if ((header.write_version != 2 || header.read_version != 2) && !options->enable_wal)
		return err_set(err, ERR_REFUSED, 0,
		               "%s: is in rollback-journal mode (run `sqlite3 %s 'PRAGMA "
		               "journal_mode=wal'` or give --enable-wal)",
		               path, path);
	return 0;
}

DEFINE_CLEANUP(struct capture, capture_free);

int capture_open(const char *db_path, const struct capture_options *options,
                 const struct capture_sink *sink, struct capture **ret, struct err *err)
{
	struct capture *c CLEANUP(capture_free_p) = NULL;
	int rc = refuse_unsuitable(db_path, options, err);

	if (rc)
		return rc;
	c = calloc(1, sizeof(*c));
	if (!c)
		return err_set(err, ERR_NOMEM, 0, "capture %s: no memory", db_path);
	c->watch.inotify_fd = c->watch.wake_fd = -1;
	c->at.db_fd = c->at.wal_fd = c->at.shm_fd = -1;
	lock_init_inherit(&c->lock);
	pthread_cond_init(&c->changed, NULL);
	c->options = *options;
	c->sink = *sink;
	c->wal_cap_bytes = options->wal_cap_bytes ? options->wal_cap_bytes : WAL_CAP_DEFAULT;
	c->batch_bytes = options->batch_bytes ? options->batch_bytes : BATCH_DEFAULT;
	c->epoch = c->status.epoch = 1;
	c->one_processor = sysconf(_SC_NPROCESSORS_ONLN) == 1;
	c->attach_wait_us = ATTACH_WAIT_MIN_US;
	if (options->resume) {
		c->pos = *options->resume;
		c->have_pos = true;
		c->page_size = c->status.page_size = options->resume_page_size;
		c->options.resume = NULL;
	}
	rc = absolute_path(db_path, &c->path, err);
	if (rc == 0)
		rc = watch_open(&c->watch, options, err);
	if (rc == 0)
		*ret = take_ptr(c);
	return rc;
}

void capture_free(struct capture *c)
{
	if (!c)
		return;
	if (c->at.lock_db)
		capture_detach(c);
	watch_close(&c->watch);
	pthread_cond_destroy(&c->changed);
	pthread_mutex_destroy(&c->lock);
	free(c->buf);
	free(c->path);
	free(c);
}
