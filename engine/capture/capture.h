/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Capture: a live database in WAL mode, written by other processes -> every commit, in
 * order, as raw WAL frames handed to a sink.
 *
 * Promises.  Nothing is written to the database, nothing is checkpointed.  Frames are
 * taken only up to the wal-index's mxFrame.  Continuity is proven (by locks, by counting
 * commits against iChange, or by the checksum chain under unchanged salts) or else a
 * *break* is announced before the next frame.  See capture.c for protocol, states and
 * proofs.
 *
 * Threads.  capture_step() is called by one thread at a time, not always by the same one, and
 * calls the sink from it; capture_run() is a loop over it.  The other functions may be called
 * from any thread meanwhile.  One capture per database file and process.  No other code in the process may open the database, its -wal or its -shm:
 * closing a descriptor would drop SQLite's locks.
 */
#ifndef ASOF_CAPTURE_CAPTURE_H
#define ASOF_CAPTURE_CAPTURE_H

#include "engine/base/err.h"
#include "engine/sqlite/format.h"

#include <stddef.h>
#include <stdint.h>

/*
 * DATABASE.asof-restore.swap: whoever made it is putting another file in the database's place,
 * -wal first.  Capture does not attach beside it for its first 30 s; one older than that was left
 * by somebody who died.  See also take_up of the options.
 */
#define CAPTURE_REPLACING_SUFFIX ".asof-restore.swap"

/* Where in the source everything up to it was handed over. */
struct capture_position {
	uint32_t salt1, salt2;
	uint64_t frame;         /* last captured frame of that WAL generation; 0: none */
	struct wal_cksum cksum; /* aFrameCksum of the wal-index at that frame */
	uint32_t change;        /* iChange at that moment */
};

/* Why frames do not continue what was handed over before. */
enum capture_break {
	CAPTURE_FIRST,     /* no position to resume from was given */
	CAPTURE_GAP,       /* commits may have been missed */
	CAPTURE_REWOUND,   /* the database lost commits that were handed over */
	CAPTURE_REPLACED,  /* another file, or other bytes, lie at the path */
	CAPTURE_PAGE_SIZE, /* as REPLACED, and with another page size */
};
const char *capture_break_name(enum capture_break why);

/* A run of whole frames, as they lie in the source WAL (24-byte header + page each). */
struct capture_batch {
	const uint8_t *frames; /* the sink copies what it keeps */
	size_t n_frames;       /* >= 1 */
	uint32_t page_size;
	/* Frames that lay in the WAL when a break was announced: they are needed to make
	 * the database whole, but the commits between them were not witnessed. */
	bool backlog;
	/* The last frame is a commit; `after` is then the position behind it.  A batch may
	 * end inside a transaction (a large one is handed over in pieces). */
	bool ends_commit;
	int64_t observed_us;   /* wall clock when the header that shows these commits was read */
	int64_t not_before_us; /* wall clock when the header before it was read, 0 unknown */
	struct capture_position after;
};

struct capture_sink {
	void *ctx;
	/*
	 * Continuity ends here.  All frames of the present WAL generation follow, from frame
	 * 1 (first those with `backlog`, if there are any).  The sink must make the database
	 * whole by reading it through capture_read_pages() while capture goes on; `epoch`
	 * names this attachment in those calls.  Called again whenever it happens again; the
	 * frames of a transaction whose last frame had not come yet are void then.
	 * -ERR_BUSY: asked again later, with another epoch.
	 */
	int (*on_break)(void *ctx, enum capture_break why, const char *reason, uint32_t page_size,
	                uint64_t epoch, struct err *err);
	/*
	 * Takes a batch.  -ERR_BUSY: no room now, nothing was taken; capture keeps its place
	 * (and its lock, up to the cap on WAL growth) and offers again.  Any other error
	 * ends capture_run() with it.
	 */
	int (*on_batch)(void *ctx, const struct capture_batch *batch, struct err *err);
	/* Everything committed before `known_until_us` has been handed over.  At least once a
	 * second while attached and caught up (every two, where nobody has written for long). */
	void (*on_caught_up)(void *ctx, int64_t known_until_us);
};

/*
 * Watches the files of many captures with one inotify instance and one thread.  Not needed
 * for a few.  Lives longer than the captures that were given it.
 */
struct capture_hub;
int capture_hub_new(struct capture_hub **ret, struct err *err) MUST_USE;
void capture_hub_free(struct capture_hub *hub);

struct capture_options {
	bool strict;            /* never without a lock, whatever it costs the application */
	bool enable_wal;        /* switch a rollback-journal database to WAL at attach */
	uint64_t wal_cap_bytes; /* let go past this WAL size; 0: the default, 1 GiB */
	size_t batch_bytes;     /* largest batch; 0: the default, 1 MiB (one frame at least) */
	const struct capture_position *resume; /* NULL: start with CAPTURE_FIRST */
	uint32_t resume_page_size;             /* page size at that position */
	struct capture_hub *hub;               /* NULL: an inotify instance of its own */
	/* With `hub` and capture_step(): called, from any thread, when the next step shall come
	 * at once.  NULL: capture_run() sleeps on a descriptor. */
	void (*wake)(void *ctx);
	void *wake_ctx;
	/*
	 * Called where such a file lies beside the database, before anything there is opened: puts
	 * right what somebody left who died, ERR_BUSY while he lives.  After another error capture
	 * goes on as if there were none.  NULL: none.
	 */
	int (*take_up)(void *ctx, const char *db_path, struct err *err);
	void *take_up_ctx;
	uint32_t test_poll_ms; /* tests only: never hold a lock, look this seldom */
};

struct capture;

/*
 * Looks at the database without attaching: it must exist, be an SQLite database, be in WAL
 * mode (or options->enable_wal, which is acted upon by capture_run()).
 * Errors: NOT_FOUND, DAMAGED (no database), REFUSED (rollback journal: the message carries
 * the hint), DENIED, IO.
 */
int capture_open(const char *db_path, const struct capture_options *options,
                 const struct capture_sink *sink, struct capture **ret, struct err *err) MUST_USE;

/*
 * Attaches and captures until capture_stop(), then hands over what is committed by then and
 * detaches.  While the file is missing, in rollback mode, replaced or locked exclusively it
 * detaches, waits, warns once a minute, and goes on by itself with a break.  Returns 0 after
 * capture_stop(), or the error of the sink, or an error that waiting cannot mend.
 */
int capture_run(struct capture *c, struct err *err) MUST_USE;

/*
 * A part of that: one look, some milliseconds at most (attaching may take 100).  *ret_wait_us:
 * when to call it again, unless options->wake comes before; CAPTURE_ENDED: it is over, as
 * capture_run() would have returned 0.  An error ends it, too.
 */
#define CAPTURE_ENDED (-1)
int capture_step(struct capture *c, int64_t *ret_wait_us, struct err *err) MUST_USE;
/* Makes the calling thread one that is on time: its timers, priority and slices. */
void capture_thread_begin(void);

/* Any thread, any time, also from a signal handler unless there is options->wake. */
void capture_stop(struct capture *c);

/*
 * Reads `n_pages` pages of the main file as they lie there now (they may be torn or old
 * where frames since the break say otherwise).  *ret_n is less at the end of the file.
 * ERR_CANCELLED when `epoch` is no longer the present one.  ERR_BUSY while capture is detached
 * and may yet come back without a break: ask again later.
 */
int capture_read_pages(struct capture *c, uint64_t epoch, uint32_t first_pgno, uint32_t n_pages,
                       uint32_t page_size, void *buf, uint32_t *ret_n, struct err *err) MUST_USE;

/*
 * Whether every frame that was committed before capture_barrier_begin() gave `ticket` has been
 * accepted by the sink: 0.  ERR_BUSY: not yet.  ERR_CANCELLED: `epoch` ended, or capture did.
 */
uint64_t capture_barrier_begin(struct capture *c);
int capture_barrier(struct capture *c, uint64_t epoch, uint64_t ticket, struct err *err) MUST_USE;

/* Asks for a break (CAPTURE_GAP, `reason`) at the next tick: the sink lost something. */
void capture_request_break(struct capture *c, const char *reason);

struct capture_status {
	bool attached;
	bool locked;             /* a read mark is held at this moment */
	uint64_t epoch;          /* for capture_barrier(); new with each break */
	uint64_t commits;        /* handed over since capture_open() */
	uint64_t proven_by_lock; /* WAL generations whose start was proven so */
	uint64_t proven_by_count;
	uint64_t late_batches;     /* of commits that a reset had nearly hidden */
	uint64_t breaks;           /* announced, CAPTURE_FIRST left out */
	uint64_t bad_frame_cksums; /* published frames with bad checksums, accepted */
	uint64_t wal_frames;
	uint32_t page_size;
	char waiting_for[160]; /* why it is not attached, or "" */
};
void capture_get_status(struct capture *c, struct capture_status *ret);

/* Nobody may be in capture_run() or capture_step(). */
void capture_free(struct capture *c);

#endif
