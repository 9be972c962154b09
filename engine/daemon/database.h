/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One live database and its archive: a state machine, a task of the pool `control`.
 *
 *                    no file, or none in WAL mode           the archive refuses, or capture failed
 *                  +-----------------------------+        +-----------------------------------+
 *                  v                             |        v                                   |
 *   new -----> WAITING ----> OPENING ------------+-> REPLICATING ---> CLOSING ---> FAILED ----+
 *                 ^  looks        (archive, lock,     (capture: attached, or       (tries again
 *                 |  again        capture)            waiting by itself)            later, later)
 *                 |                                        |
 *   resume        |                                        | pause, stop
 *   PAUSED -------+                                        v
 *      ^                                                CLOSING ---> ENDED
 *      +---------------------------------------------------+
 *
 * An archive that is deleted, or replaced by another, while it is written: CLOSING, then WAITING for
 * it; none is begun in its place (the disk that it is on may only have been unmounted).
 *
 * What befalls one database reaches no other: waits and retries are the task's own, and a step
 * that blocks on a slow disk holds one thread of several.
 *
 * Functions are called by any thread, database_free() by the last.
 */
#ifndef ASOF_DAEMON_DATABASE_H
#define ASOF_DAEMON_DATABASE_H

#include "engine/daemon/pools.h"
#include "engine/daemon/recorder.h"

#include <sys/types.h>

struct database;

struct database_options {
	const char *path;               /* of the live database, absolute; need not exist */
	const char *archive;            /* directory; missing parents are an error */
	const char *name;               /* in the archive */
	bool strict, enable_wal, adopt; /* see capture.h, recorder.h */
	uint64_t wal_cap_bytes, segment_bytes;
	bool no_maintenance;
	/* The first failure ends it, and so does a failure of capture: nobody waits for what is not
	 * there. */
	bool at_once;
	bool paused; /* begins so */
	/* Asked before the file is opened, by any thread; an error keeps it from that.  NULL: none. */
	int (*claim)(void *ctx, struct database *d, dev_t dev, ino_t ino, struct err *err);
	/* Whether more may be written into the archive.  Where not, capture stops, with that error, and
	 * begins again later, by itself.  Asked at the start, and by database_check_space().  NULL: it
	 * may. */
	int (*may_write)(void *ctx, struct database *d, struct err *err);
	void *claim_ctx; /* of both */
	/* Something new is durable in the archive; by any thread, under locks: it wakes, no more.
	 * NULL: nobody wants to know. */
	void (*news)(void *ctx, const char *archive, const char *name);
	void *news_ctx;
};

enum database_state {
	DATABASE_WAITING,
	DATABASE_OPENING,
	DATABASE_REPLICATING,
	DATABASE_CLOSING,
	DATABASE_PAUSED,
	DATABASE_FAILED,
	DATABASE_ENDED,
};
const char *database_state_name(enum database_state state);

/* Texts are copied.  `pools` outlives it. */
int database_new(struct pools *pools, const struct database_options *options, struct database **ret,
                 struct err *err) MUST_USE;
/* These ask and return at once; stop cannot be taken back. */
void database_stop(struct database *d);
void database_pause(struct database *d);
void database_resume(struct database *d);
/* Looks at once for what is waited for. */
void database_look(struct database *d);
/* Asks may_write() again; at most every few seconds. */
void database_check_space(struct database *d);
bool database_ended(struct database *d);
/* Once ended: 0, or why it ended, or that commits were left behind. */
int database_result(struct database *d, struct err *err) MUST_USE;
/* Must have ended.  NULL is fine. */
void database_free(struct database *d);

const char *database_name(const struct database *d);
const char *database_path(const struct database *d);
const char *database_archive(const struct database *d);

struct database_status {
	enum database_state state;
	char reason[200]; /* why it waits or failed, or the archive cannot be written, or "" */
	int64_t since_us; /* wall clock, of the state */
	bool attached;    /* capture is */
	uint64_t last_txid, commits, gaps;
	int64_t last_us, known_until_us;
	uint64_t queued_bytes;
	bool settled;
	/* Since capture began, as recorder_status has them. */
	uint64_t taken_bytes, syncs, sync_errors;
	int64_t sync_us;
};
void database_get_status(struct database *d, struct database_status *ret);

/*
 * Sync: has everything that is committed now captured.  database_sync_begin() gives a ticket;
 * database_sync() is 0 once it is durable, ERR_BUSY before, ERR_CANCELLED when it cannot be told
 * any more (not replicating, continuity broken meanwhile: ask for a new ticket).
 */
struct database_sync {
	uint64_t run, epoch, ticket, items;
	bool accepted;
};
int database_sync_begin(struct database *d, struct database_sync *ret, struct err *err) MUST_USE;
int database_sync(struct database *d, struct database_sync *s, struct err *err) MUST_USE;

#endif
