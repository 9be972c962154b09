/* SPDX-License-Identifier: Apache-2.0 */
/* What jobs.c (which there are, and when) and jobs_command.c (what each runs) share. */
#ifndef ASOF_DAEMON_JOBS_I_H
#define ASOF_DAEMON_JOBS_I_H

#include "engine/daemon/child.h"
#include "engine/daemon/jobs.h"
#include "engine/monitor/journal.h"

#include <limits.h>
#include <pthread.h>

enum job_kind {
	JOB_BACKUP,
	JOB_VERIFY,
	JOB_VERIFY_FULL,
	JOB_VERIFY_COPY, /* of what lies at a destination */
	JOB_RETAIN,
	JOB_RETAIN_COPY,  /* likewise, where the destination has a retention of its own */
	JOB_RETAIN_THERE, /* the same in a bucket, or on a server */
	JOB_CLEANUP,
	JOB_COPY,
	JOB_SEND, /* backups, to one place */
};

struct job {
	uint64_t key; /* hash of name and path: which job it is, over refreshes */
	enum job_kind kind;
	size_t schedule; /* of the configuration, for JOB_BACKUP; destination, for copies */
	/* JOB_COPY: the destination has so much, in transactions; JOB_SEND: it has what lay there at
	 * that stamp. */
	uint64_t copying_txid, copied_txid;
	char name[64];   /* in the journal */
	char *path;      /* of the database; NULL: for all */
	char *url;       /* JOB_SEND: the place */
	char *database;  /* its name in the archive; "": for all, or several */
	int64_t last_us; /* wall clock: the moment that it last ran for, or was first seen */
	_Atomic int64_t next_us; /* wall clock; 0: never */
	int64_t scheduled_us;
	unsigned failures;
	uint64_t n_ok, n_failed; /* since the start */
	bool seen;
};

/* One child at a time; what copies, or sends, is not kept waiting by what takes long. */
enum lane_kind { LANE_HEAVY, LANE_COPY, LANE_SEND, N_LANES };
struct lane {
	struct child child;
	_Atomic uint64_t running; /* key of its job; 0: none */
	_Atomic int64_t began_us; /* wall clock, of that */
	uint64_t to_plan;         /* key of the job that ended last; 0: none */
	struct journal_entry entry;
	int output_fd; /* its standard error */
	char output[1024];
	size_t output_len;
};

struct jobs {
	char program[PATH_MAX];
	const char *env_path; /* NULL: none given */
	const struct config *config;
	struct journal *journal;
	char journal_root[PATH_MAX];
	pthread_mutex_t
	        lock; /* the array, counters: what jobs_get() asks for; never held for long */
	struct job *jobs;
	size_t n, cap;
	int64_t refreshed_us; /* monotonic; 0: at once */
	int64_t hurried_us;   /* monotonic */
	int64_t space_us;     /* monotonic: free space was noted; 0: not yet */
	bool stopping, done;
	bool added; /* to the journal, not fsynced yet */
	struct err result;
	struct lane lanes[N_LANES]; /* what runs */
};

/* ---- jobs_command.c ---- */

#define ARGS_MAX 24

struct command {
	const char *argv[ARGS_MAX];
	size_t n;
	char numbers[4][32];
	char policy[256];
};

/* `e`: of its database, where it is of one. */
void job_make_command(const struct jobs *j, const struct job *job, const struct fleet_entry *e,
                      struct command *c);

/* ---- jobs_send.c ---- */

/* The places that backups go to, one job each, by `want`. */
typedef void job_want_place_fn(struct jobs *j, const char *url, const char *name,
                               const char *database);
void jobs_want_sending(struct jobs *j, job_want_place_fn *want);
/* Of the folders whose backups that job sends: another one when something came or went. */
uint64_t jobs_sending_stamp(const struct jobs *j, const struct job *job);

#endif
