/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Health: facts -> a verdict with reasons.  Pure.
 *
 * The question is whether one could restore, and to when; not whether a process runs.  So a database
 * is judged by what was read from its archive just now (the newest state opens, nothing is damaged,
 * everything up to a moment ago is in it) and by what verification found.  A fact that could not be
 * had counts against health: what cannot be looked at is not known to be well.
 *
 * Who collects the facts: engine/observe/facts.h, from the daemon, the archives and the filesystems.
 * Who uses the verdict: /health, /metrics, alerts, asof status, asof doctor.
 */
#ifndef ASOF_MONITOR_HEALTH_H
#define ASOF_MONITOR_HEALTH_H

#include "engine/base/cleanup.h"
#include "engine/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HEALTH_NAME_MAX 208
#define HEALTH_PATH_MAX 512
#define HEALTH_TEXT_MAX 240

/* ---- facts; times are of the wall clock, 0: never, or not known ---- */

/* What verification found of one history (see archive/notes.h, struct verified_note). */
struct health_verified {
	uint64_t through_txid;
	int64_t through_us, at_us, full_at_us, integrity_at_us;
	int64_t unverified_since_us; /* time of the first commit after that; 0: none, or not comparable */
	char integrity[HEALTH_TEXT_MAX]; /* "ok", a problem, or "": not looked at yet */
	uint64_t damaged;                /* objects */
	char damage[HEALTH_TEXT_MAX];    /* the first of them */
};

struct health_destination {
	char name[64];
	char url[HEALTH_PATH_MAX]; /* without secrets */
	/* Not "": nothing goes there by configuration, and why. */
	char not_configured[HEALTH_TEXT_MAX];
	/* Not "": what lies there could not be read, and why. */
	char unreadable[HEALTH_TEXT_MAX];
	uint64_t replicated_txid; /* everything up to it lies there; 0: nothing */
	int64_t replicated_us;    /* time of that commit */
	/* The first commit that is captured and does not lie there yet; 0: all of them do. */
	int64_t behind_since_us;
	bool fenced;                   /* another writer took over: nothing goes there any more */
	char trouble[HEALTH_TEXT_MAX]; /* why sending fails, "" it does not */
	int64_t trouble_us;            /* since when */
	int64_t progress_us;           /* something went there; told while it is empty */
	uint64_t stored_bytes;
	int64_t sync_interval_us;
	int64_t verify_every_us; /* 0: not verified by the clock */
	struct health_verified verified;
};

struct health_database {
	char name[HEALTH_NAME_MAX]; /* in the archive */
	char path[HEALTH_PATH_MAX];
	char archive[HEALTH_PATH_MAX];

	/* The daemon's word; told: it was asked and answered. */
	bool told;
	char state[24]; /* as database_state_name(): "replicating" … */
	char reason[HEALTH_TEXT_MAX];
	int64_t since_us;
	bool attached, settled;
	/* Since the daemon's start. */
	uint64_t commits, taken_bytes, syncs, sync_errors;
	int64_t sync_us; /* spent in syncs */
	uint64_t queued_bytes;

	/* The live files, by stat(2) alone. */
	bool exists;
	uint64_t db_bytes, wal_bytes;

	/* What lies in the archive, as read from it. */
	char unreadable[HEALTH_TEXT_MAX]; /* not "": it could not be read, and why */
	bool stored;                      /* there is a history, with at least one moment */
	uint64_t first_txid, last_txid;
	int64_t first_us, last_us;
	int64_t known_until_us; /* everything committed before is captured, by the archive's word */
	uint32_t lineage;
	uint64_t gaps;
	int64_t last_gap_us; /* end of the newest one */
	uint64_t stored_bytes, unsealed_bytes, n_snapshots, n_segments, n_coalesced;
	/* The newest moment was opened for reading at that time; else why it cannot be. */
	int64_t restorable_at_us;
	char not_restorable[HEALTH_TEXT_MAX];

	int64_t verify_every_us; /* 0: not verified by the clock */
	struct health_verified verified;

	struct health_destination *destinations;
	size_t n_destinations;
};

/* The backups of one database, of one type. */
struct health_backups {
	char root[HEALTH_PATH_MAX];     /* of the archive that they lie in */
	char database[HEALTH_NAME_MAX]; /* its name, or the stem of their files where none has it */
	unsigned type;                  /* as backup_type_names of engine/backup/backup.h */
	uint64_t count, bytes, latest_bytes;
	int64_t latest_us;
};

#define HEALTH_BACKUP_TYPES 4

/* The backups of one database at one place that they go to besides, as far as is known here: what was
 * sent from here and lies there, whether it is here still or not. */
struct health_sent {
	char root[HEALTH_PATH_MAX];     /* of the archive that they come from */
	char database[HEALTH_NAME_MAX]; /* as of struct health_backups */
	char destination[64];
	char url[HEALTH_PATH_MAX]; /* without secrets */
	struct {
		uint64_t count, bytes;
		int64_t latest_us; /* when the newest was made */
	} types[HEALTH_BACKUP_TYPES];
	uint64_t n_waiting;       /* that are here, go there, and do not lie there yet */
	int64_t waiting_since_us; /* when the oldest of them was made; 0: none waits */
	int64_t sent_us;          /* of the last run that came to its end well; 0: none has */
	int64_t trouble_us;       /* since when they fail; 0: they do not */
	char trouble[HEALTH_TEXT_MAX];
};

/* One archive on this machine, and the filesystem that it lies on. */
struct health_archive {
	char root[HEALTH_PATH_MAX];
	char unreadable[HEALTH_TEXT_MAX]; /* not "" */
	bool read_only;
	uint64_t total_bytes, free_bytes;
	/* Below that capture stops (as configured). */
	uint64_t reserve_bytes;
	double full_in_s; /* by the trend of free space; < 0: not known, or it does not shrink */
};

/* What runs by the clock, for one database ("": for all). */
struct health_job {
	char job[64];
	char database[HEALTH_NAME_MAX];
	int64_t ended_us; /* of the last run; 0: it has not run yet */
	bool ok;
	char message[HEALTH_TEXT_MAX];
	int64_t succeeded_us; /* the last success that is still told of */
	int64_t next_us;
	uint64_t n_ok, n_failed; /* since the daemon's start */
	bool running;
};

struct health_facts {
	int64_t at_us, took_us; /* when they were collected; how long that took */
	int64_t boot_us;        /* at that moment, of a clock that nobody sets */
	/* The wall clock was set by so much (< 0: back), and when; 0: not that we know. */
	int64_t jump_us, jumped_us;
	bool daemon_answers;
	char daemon_problem[HEALTH_TEXT_MAX];
	int pid;
	char version[32];
	int64_t started_us;
	/* Addresses that were configured and cannot be listened on, "" none. */
	char listen_problem[HEALTH_TEXT_MAX];

	struct health_database *databases;
	size_t n_databases;
	struct health_archive *archives;
	size_t n_archives;
	struct health_backups *backups;
	size_t n_backups;
	struct health_sent *sent; /* by place, then by database */
	size_t n_sent;
	struct health_job *jobs; /* by database, then by job: health_job_compare() */
	size_t n_jobs;
};
/*
 * Whether the clock was set between two collections: `f` has at_us and boot_us, and gets the rest from
 * them and from the former facts.  A clock that is slewed, or that runs while the machine sleeps, was
 * not set.
 */
void health_watch_clock(const struct health_facts *former, struct health_facts *f);
/* Frees what it points to. */
void health_facts_release(struct health_facts *f);
int health_job_compare(const void *a, const void *b); /* as of qsort(3) */
/* The last run of a job for a database; NULL: there is none. */
const struct health_job *health_job_of(const struct health_facts *f, const char *job,
                                       const char *database);
const struct health_archive *health_archive_of(const struct health_facts *f, const char *root);
/* Databases by name, then in their order, for who looks for many of many; malloc'ed; NULL: no memory. */
struct health_name {
	const char *name;
	size_t database; /* its place in the facts */
};
struct health_name *health_names(const struct health_facts *f);
/* The first of that name among `n`; n: there is none. */
size_t health_names_find(const struct health_name *names, size_t n, const char *name);
/* Its file was not created yet, and nothing of one is stored: it is taken up when it comes. */
bool health_is_absent(const struct health_database *d);

/* ---- the verdict ---- */

enum health_level {
	HEALTH_OK,
	HEALTH_WARN, /* healthy, but somebody should look before it is not */
	HEALTH_BAD,
};
const char *health_level_name(enum health_level level); /* "ok", "warning", "failed" */

enum health_subject {
	HEALTH_DAEMON,
	HEALTH_ARCHIVE,
	HEALTH_DATABASE,
	HEALTH_DESTINATION,
	HEALTH_JOB
};
const char *health_subject_name(enum health_subject subject);

/*
 * What is wrong, as one word that programs can go by: what alerts are told apart by, and what
 * stands in JSON.
 */
/* clang-format off */
#define HEALTH_CODES(X)                                                                            \
	X(FINE, "ok")                                                                              \
	X(STALE_FACTS, "stale-facts")         /* facts could not be collected for too long */      \
	X(DAEMON_SILENT, "daemon-silent")     /* it does not answer: ended, hung or stopped */     \
	X(NOT_LISTENING, "not-listening")     /* an address that was configured is taken */        \
	X(NOTHING_TO_DO, "no-database")       /* none is configured */                             \
	X(CLOCK, "clock")                     /* it was set, or is behind what was committed */    \
	X(UNREADABLE, "unreadable")           /* an archive or destination cannot be read */       \
	X(READ_ONLY, "read-only")             /* an archive cannot be written */                   \
	X(NO_SPACE, "no-space")               /* less is free than is left to others */            \
	X(SPACE_SHORT, "space-short")         /* it will be full before long */                    \
	X(NOTHING_STORED, "nothing-stored")   /* no moment could be restored */                    \
	X(NOT_RESTORABLE, "not-restorable")   /* the newest moment does not open */                \
	X(NOT_CAPTURING, "not-capturing")     /* failed, paused, or it waits */                    \
	X(WAITING, "waiting")                 /* its file was not created yet: nothing is wrong */ \
	X(CAPTURE_LATE, "capture-late")       /* the archive is behind */                          \
	X(DAMAGED, "damaged")                 /* stored objects are */                             \
	X(INTEGRITY, "integrity")             /* the database itself is damaged */                 \
	X(NOT_VERIFIED, "not-verified")       /* not for too long */                               \
	X(RECENT_GAP, "gap")                  /* commits of the last day are not known */          \
	X(NOT_CONFIGURED, "not-configured")   /* a destination to which nothing goes */            \
	X(NOT_REPLICATED, "not-replicated")   /* nothing lies at a destination */                  \
	X(REPLICATION_LATE, "replication-late") /* it is behind */                                 \
	X(FENCED, "fenced")                   /* another writer writes there now */                \
	X(NOT_SENDING, "not-sending")         /* sending to it fails */                            \
	X(JOB_FAILED, "job-failed")           /* its last run did */
/* clang-format on */
enum health_code {
#define X(id, name) HEALTH_##id,
	HEALTH_CODES(X)
#undef X
	        HEALTH_N_CODES
};
const char *health_code_name(enum health_code code);

/* One line: a thing that was looked at. */
struct health_line {
	enum health_level level;
	enum health_code code; /* of the worst; FINE, or WAITING, where nothing is wrong */
	enum health_subject subject;
	char name[HEALTH_PATH_MAX];       /* of a database, destination, job; root of an archive */
	char database[HEALTH_NAME_MAX];   /* of a destination, of a job; else "" */
	char reason[2 * HEALTH_TEXT_MAX]; /* all that is wrong, worst first, "; " between; "" */
};

/* One thing that is wrong with what a line is about. */
struct health_problem {
	size_t line;
	enum health_level level;
	enum health_code code;
	char text[HEALTH_TEXT_MAX];
	/* It comes of what is wrong with the daemon, or with the archive: who tells of that does not
	 * tell of this, once for each database. */
	bool follows;
};

struct health_verdict {
	bool healthy;            /* no line is HEALTH_BAD */
	enum health_level level; /* the worst */
	struct health_line
	        *lines; /* daemon, archives, then each database and its destinations, jobs */
	size_t n;
	struct health_problem *problems; /* in the order of their lines */
	size_t n_problems;
};

/* When something is late. */
struct health_limits {
	int64_t facts_us;          /* facts older than that are stale */
	int64_t capture_us;        /* behind by so much */
	int64_t trouble_us;        /* sending has failed for so long */
	int64_t replication_us;    /* besides the interval of the destination */
	int64_t gap_us;            /* a gap is told of for so long */
	int64_t clock_us;          /* a clock that is off by so much */
	int64_t jump_us;           /* that it was set is told of for so long */
	int64_t full_warn_us;      /* the disk will be full within that */
	unsigned verify_intervals; /* so many without a verification */
	int64_t verify_grace_us;   /* and at least so long */
};
void health_limits_default(struct health_limits *ret);

/* NOMEM only. */
int health_judge(const struct health_facts *f, const struct health_limits *limits, int64_t now_us,
                 struct health_verdict *ret, struct err *err) MUST_USE;
void health_verdict_release(struct health_verdict *v);

#define cleanup_health_facts CLEANUP(health_facts_release)
#define cleanup_health_verdict CLEANUP(health_verdict_release)

#endif
