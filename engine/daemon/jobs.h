/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What runs by the clock: backups, their cleanup, retention and verification of the history.
 *
 * Each is a child process, `asof` itself: what opens a live database, or works hard, or can fail,
 * does it elsewhere.  One at a time, at idle priority, in the order in which they became due; copies
 * have a turn of their own, so that a backup or a verification does not keep them waiting.
 *
 *   backup NAME   each schedule of the configuration, for each database that it names
 *   verify        what is new of a database's history; verify-full: all of it
 *   verify NAME   the same of what lies at a destination that is a directory (every 6 hours)
 *   retain        of a database's history, every hour
 *   retain NAME   the same at a destination that is a directory and has a retention of its own
 *                 once a day where it is a bucket, or a server (ship_retain())
 *   cleanup       of backups, for all
 *   copy NAME     brings a destination that is a directory up to the archive, when something is new,
 *                 at the destination's interval (1 s; not more often); in the journal only when it
 *                 begins to fail, or to work again
 *
 *   send NAME     brings backups to one of the places that they go to (sending.h), some seconds after a
 *                 backup came, until all are there; in the journal as copies are
 *
 * How each ended is written into the journal of the archive (monitor/journal.h), by which missed
 * runs are made up for after a downtime, one for all that were missed.  One that failed is tried
 * again up to three times, ten minutes apart; one that is cut short by our own end counts as not
 * run.
 *
 * All functions are called by one thread, the main one; jobs_get() by any.
 */
#ifndef ASOF_DAEMON_JOBS_H
#define ASOF_DAEMON_JOBS_H

#include "engine/daemon/fleet.h"

struct jobs;

/* `program` is asof itself; `env_path` its --env-file, or NULL. */
int jobs_new(const char *program, const char *env_path, struct jobs **ret,
             struct err *err) MUST_USE;
/* The former configuration is not looked at any more. */
void jobs_apply(struct jobs *j, const struct config *c);
/* Often.  `once`: backups alone, made and sent. */
void jobs_step(struct jobs *j, struct fleet *f, bool once);
/* Nothing is due, nothing runs. */
bool jobs_all_done(const struct jobs *j);
/* 0, or the first failure of a run. */
int jobs_result(const struct jobs *j, struct err *err) MUST_USE;
/* Number `i` from 0; false past the last. */
struct job_status {
	char job[64];
	char database[256];      /* "": for all */
	int64_t began_us;        /* wall clock: of the run under way; 0: none */
	int64_t next_us;         /* wall clock; 0: not known, or never */
	uint64_t n_ok, n_failed; /* since the daemon's start */
	bool running;
};
bool jobs_get(struct jobs *j, size_t i, struct job_status *ret);
/* Ends what runs. */
void jobs_stop(struct jobs *j);
bool jobs_stopped(const struct jobs *j);
void jobs_free(struct jobs *j);

#endif
