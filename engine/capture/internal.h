/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of capture/ share.  capture.c has the protocol, the invariants and the
 * state diagram; read it first.
 *
 *   capture.c   public functions, the loop, one tick
 *   state.c     HOLD, FLOAT or PARK
 *   attach.c    descriptors and connections: attach, detach, is it still our file
 *   locks.c     the wal-index: reading it, read marks held, locks of others
 *   proof.c     does this header continue our position?  breaks
 *   frames.c    reading frames, the checksum chain, batches for the sink
 *   watch.c     inotify, when to look next
 *   hub.c       one inotify instance for many captures
 */
#ifndef ASOF_CAPTURE_INTERNAL_H
#define ASOF_CAPTURE_INTERNAL_H

#include "engine/base/cleanup.h"
#include "engine/capture/capture.h"

#include <limits.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <sys/stat.h>

#define LOG_MODULE "capture"

/* Frames: below the 1000 of SQLite's default autocheckpoint, and above it. */
#define HOT_FRAMES 700
#define RELEASE_FRAMES 1300

#define MS INT64_C(1000)
#define ACTIVE_US (20 * MS)
#define SLOW_LOOK_US (900 * MS)
#define FOREIGN_LOCK_LOOK_US (10 * MS)

/* One reading of the wal-index header. */
struct look {
	struct wal_index index;
	int64_t before_us, after_us; /* wall clock around the reading */
	int64_t mono_us;
	uint64_t tick; /* the tick that read it */
};

/* Descriptors and names of one attachment; see attach.c for who may close what when. */
struct attachment {
	sqlite3 *lock_db;             /* "L": holds SHARED on the database and the read marks */
	sqlite3_file *file;           /* L's */
	const volatile uint32_t *shm; /* L's mapping of the first 32 KiB of the wal-index */
	int db_fd, wal_fd, shm_fd;
	char *path, *wal_path, *shm_path;
	struct stat db_stat, wal_stat, shm_stat; /* as attached */
	uint32_t db_page_size;
};

/* What the database file looked like when no checkpoint could be writing it. */
struct file_look {
	bool valid;
	uint32_t salt1, salt2, n_backfill, n_backfill_attempted;
	struct timespec mtime;
	off_t size;
};

struct break_due {
	bool set;
	enum capture_break why;
	char reason[160];
	int64_t since_us; /* monotonic */
};

struct watch {
	struct capture_hub *hub;          /* or NULL: */
	atomic_bool hub_written, hub_dir; /* raised by the hub's thread */
	int inotify_fd;                   /* -1: not to be had, then there is only the clock */
	int wake_fd;                      /* eventfd; -1: `wake` is called */
	void (*wake)(void *ctx);
	void *wake_ctx;
	bool take_events; /* the wait to come ends with an event */
	int wal_wd, db_wd, dir_wd;
	int64_t event_us;   /* monotonic, last sign of writing */
	int64_t backoff_us; /* wait between looks after it */
	int64_t gap_us;     /* running mean of the time between commits */
	bool dir_changed;
	bool quiet; /* nobody held the WAL's write lock before the last look */
};

struct capture {
	/* ---- set by capture_open() ---- */
	char *path;
	struct capture_options options;
	struct capture_sink sink;
	uint64_t wal_cap_bytes;
	size_t batch_bytes;
	bool one_processor; /* which the others get only while this thread sleeps */

	/* ---- shared between threads, under `lock` unless atomic ---- */
	pthread_mutex_t lock;
	pthread_cond_t changed; /* any of the following */
	bool attached, finished;
	unsigned readers; /* threads inside pread() of at.db_fd; detach waits for 0 */
	uint64_t epoch;
	uint64_t ticks_begun;
	uint64_t accepted_tick; /* what this tick's header showed was accepted */
	bool break_requested;
	char request_reason[160];
	struct capture_status status;
	atomic_bool stopping;

	/* ---- the rest belongs to the thread of capture_step() ---- */
	int64_t wait_us; /* until the next step, as far as this one knows */
	int64_t attach_wait_us;
	bool resuming; /* attached, and not yet known whether that continues the position */
	int64_t resume_until_us;
	int64_t last_until_us; /* stopping: how long what is left may take; 0 not begun */
	uint64_t last_tick;
	struct attachment at;
	bool was_attached;
	dev_t last_dev;
	ino_t last_ino;
	uint64_t tick;

	/* locks held */
	int mark;          /* read mark held SHARED: 1..4, 0 none */
	bool parked;       /* read lock 0 held SHARED */
	bool covered;      /* invariant 4 */
	bool no_recovery;  /* the RECOVER lock is held SHARED */
	bool change_exact; /* ... and was when pos.change was last confirmed */
	bool over_cap;
	int64_t no_mark_since_us, float_since_us;

	/* position */
	bool have_pos;
	bool change_known;            /* pos.change may be counted from */
	struct capture_position pos;  /* last frame accepted by the sink */
	struct capture_position prev; /* end of the generation before */
	bool have_prev;
	uint8_t pos_header[WAL_FRAME_HEADER_SIZE]; /* of frame pos.frame, as it was read */
	bool have_pos_header;
	bool big_endian;
	uint32_t page_size;
	int64_t confirmed_us;   /* monotonic: when a header last equalled pos */
	int64_t not_before_us;  /* wall clock before the last header that showed no more than pos */
	uint64_t backlog_frame; /* frames up to here were in the WAL at the break */
	struct break_due due;

	/* on the way to the sink */
	bool target_pending;
	struct look target;
	bool batch_ready;
	bool sink_busy;
	struct capture_batch batch;
	uint8_t batch_header[WAL_FRAME_HEADER_SIZE];
	uint32_t batch_commits;
	uint8_t *buf;
	size_t buf_bytes;
	uint64_t batch_bad;
	uint32_t bad_salt1; /* the newest bad checksum: generation and frame */
	uint64_t bad_frame;

	/* looking */
	struct watch watch;
	struct look last;         /* newest header read */
	bool captured;            /* it equalled pos and everything is accepted */
	int64_t foreign_since_us; /* an exclusive lock was seen at every look since */
	int64_t active_us, torn_since_us, slow_look_us, foreign_look_us, caught_up_us;
	bool delivered_since_caught_up;
	struct file_look file_look;
	bool file_changed_once;
	struct timespec header_mtime; /* when the header was last looked at */
	int64_t files_us;             /* monotonic, when the files were */
	bool header_was_rollback;
	uint32_t stale_salt1, stale_frame; /* an nBackfillAttempted that nobody works on */
	int64_t bad_logged_us, warned_us, progress_us;
};

/* ---- attach.c ---- */
/* 0, or the error that kept it from attaching; nothing is left open then. */
int capture_attach(struct capture *c, struct err *err) MUST_USE;
void capture_detach(struct capture *c);
/* Looks at the file without SQLite: errors as capture_open(). */
int capture_inspect(const char *path, struct db_header *ret, struct err *err) MUST_USE;
/* A recovery of the wal-index is due: lets SQLite do it on a connection of its own. */
void capture_provoke_recovery(struct capture *c);
/* The files attached to lie at their paths at this moment. */
bool capture_in_place(const struct capture *c);
/*
 * The files at the paths are no longer those attached to, or their bytes were replaced.
 * 0 all is well; 1 a break is due in this attachment; 2 attach anew.  `why` and `reason`
 * are set for 1 and 2.
 */
enum identity { SAME_FILE, SAME_FILE_NEW_BYTES, OTHER_FILE };
enum identity capture_identity(struct capture *c, enum capture_break *why, const char **reason);

/* ---- locks.c ---- */
/* Whether the calling thread goes ahead of all others. */
void capture_hurry(bool on);
/* For moments in which another process has to do something first. */
void capture_yield(const struct capture *c);
bool capture_look(struct capture *c, struct look *ret) MUST_USE; /* false: torn */
bool capture_salts_are(const struct capture *c, uint32_t salt1, uint32_t salt2);
bool capture_take_mark(struct capture *c);
void capture_drop_mark(struct capture *c);
bool capture_take_park(struct capture *c);
void capture_drop_park(struct capture *c);
/* Keeps recoveries, which restart iChange, away while commits are counted. */
void capture_bar_recovery(struct capture *c);
void capture_allow_recovery(struct capture *c);
bool capture_write_locked(const struct capture *c);
bool capture_checkpoint_locked(const struct capture *c);
/* Another process holds or awaits an exclusive lock on the database file. */
bool capture_foreign_exclusive(int db_fd);

/* ---- state.c ---- */
/* Everything that `look` shows is captured: which state to wait in. */
void capture_settle(struct capture *c, const struct look *look);
/* Takes a mark, and notes whether it covers what is not yet captured. */
void capture_hold(struct capture *c);
/* The WAL is larger than the cap and to be let go; says so once. */
bool capture_over_cap(struct capture *c, const struct wal_index *index);

/* ---- proof.c ---- */
bool capture_is_captured(const struct capture *c, const struct wal_index *index);
enum proof { PROOF_HOLDS, PROOF_AGAIN, PROOF_BROKEN };
/* Does `look` continue c->pos?  Moves pos to frame 0 of a new generation when it does. */
enum proof capture_prove(struct capture *c, const struct look *look);
/* The same after attaching, from the position given. */
enum proof capture_prove_resume(struct capture *c, const struct look *look);
void capture_break_due(struct capture *c, enum capture_break why, const char *fmt, ...)
        __attribute__((format(printf, 3, 4)));
/* Announces the break that is due, when a lock can be had. */
int capture_announce_break(struct capture *c, struct err *err) MUST_USE;

/* ---- frames.c ---- */
int capture_need_buffer(struct capture *c, struct err *err) MUST_USE;
/* Frame header `frame` as it lies in the WAL; false when it is not there. */
bool capture_read_frame_header(const struct capture *c, uint64_t frame,
                               uint8_t out[WAL_FRAME_HEADER_SIZE]);
bool capture_read_wal_header(const struct capture *c, struct wal_header *ret);
/* Commits in frames 1..n of the present generation. */
enum proof capture_count_commits(struct capture *c, const struct wal_index *index,
                                 uint32_t *ret_commits);
/*
 * The WAL was reset once since pos, and commits before the reset were missed: hands over those
 * of the `wanted` that still lie behind pos, where the new generation has not come to yet.
 * AGAIN: look again, pos may have moved; BROKEN: nothing is left of them.
 */
enum proof capture_take_tail(struct capture *c, const struct look *look, uint32_t wanted,
                             struct err *err);
/* Hands frames up to c->target to the sink, for some milliseconds at most. */
int capture_deliver(struct capture *c, struct err *err) MUST_USE;

/* ---- watch.c ---- */
int watch_open(struct watch *w, const struct capture_options *options, struct err *err) MUST_USE;
void watch_close(struct watch *w);
void watch_attach(struct capture *c);
void watch_detach(struct capture *c);
void watch_wake(const struct watch *w); /* async-signal-safe without `wake` */
void watch_note_commits(struct capture *c, uint64_t n_commits, int64_t now_us);
/* Commits come so quickly that they are polled for. */
bool watch_is_fast(const struct capture *c, int64_t now_us);
/* Before a look: takes events in, and finds out whether a writer is at work. */
void watch_before_look(struct capture *c);
/* After it: how long until the next one is due. */
int64_t watch_next(struct capture *c);
/* Sleeps, unless woken. */
void watch_sleep(struct capture *c, int64_t us);

/* ---- hub.c ---- */
/* As inotify_add_watch().  Events raise flags of `w`; `name` is for folders, else NULL. */
int hub_add(struct capture_hub *hub, const char *path, uint32_t mask, struct watch *w,
            const char *name);
void hub_remove(struct capture_hub *hub, int wd, const struct watch *w);

#endif
