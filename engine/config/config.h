/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration: asof.yml, or a litestream.yml, and .env.backup -> one checked struct.
 *
 * The keys, their meanings and defaults are those of tools/man/asof.yml.5.md; keys.c has the
 * table.  There is one grammar: what Litestream and asof both have is written as Litestream
 * writes it, so that its files of 0.3 and 0.5 are configurations of asof as they are.
 *
 * The whole file is checked before anything is said: every error stands in the report, by
 * line, and so does every key that cannot be honoured (in one warning).  What would leave data
 * unprotected or unencrypted if it were ignored is an error.
 *
 * From a replica of type file to archive and name (also in the man page):
 *
 *   path ends in /local/ANYTHING   the archive is what stands before /local
 *   any other path                 the archive is that path
 *   name in the archive            `name:` of the database, else its file name
 *
 * so that `path: /data/backups/local/futures_trades` of /data/db/futures_trades.db is kept in
 * /data/backups/local/futures_trades.db.  What else lies there (Litestream's generations, ltx)
 * is not touched.  The first replica of type file is the database's archive, unless the database
 * has an `archive:`; further ones, those of other types, and all under `destinations:` are
 * destinations.  A database that has none gets `archive:` of the file, then BACKUP_DIR, then a
 * folder of the host's state (`archive_is_state`), capped.
 *
 * A struct config never changes once loaded and owns all that it points to: threads read it
 * without a lock; config_free() when the last is done.  Optional texts are NULL when not
 * given, never "".  Paths are absolute: relative ones count from the configuration file's
 * folder.  Intervals and ages are `_us`, 0 meaning off unless something else is said.
 */
#ifndef ASOF_CONFIG_CONFIG_H
#define ASOF_CONFIG_CONFIG_H

#include "engine/base/cleanup.h"
#include "engine/base/err.h"
#include "engine/base/log.h"
#include "engine/base/zone.h"
#include "engine/schedule/schedule.h"

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* A password, key or token: printed and logged as "***", whoever does it. */
struct config_secret {
	const char *text; /* NULL: not given */
};

/* ---- history ---- */

#define CONFIG_MAX_TIERS 8

/* Of what is at most `age_us` old, one state each `every_us` is kept (0: every commit). */
struct config_tier {
	int64_t age_us; /* INT64_MAX: for ever */
	int64_t every_us;
};

/*
 * Tiers from the finest to the coarsest, both members rising; default: every commit for 3
 * days, one an hour for 30 days, one a day for 365 days.  `retention: 72h` is one tier.
 */
struct config_retention {
	struct config_tier tiers[CONFIG_MAX_TIERS];
	size_t n_tiers;
	uint64_t max_bytes; /* of one database's history; 0: no bound */
	/* Of the filesystem.  Where both are given the less of them counts; the default is 5 of
	 * 100 and 2 GiB. */
	uint64_t min_free_bytes;
	unsigned min_free_percent;
	bool given; /* false: all of it is the default */
};

/* ---- what backups are kept by ---- */

enum config_backup_type {
	CONFIG_BACKUP_MANUAL,
	CONFIG_BACKUP_AUTOMATED,
	CONFIG_BACKUP_SAFETY,
	CONFIG_BACKUP_COMPRESSED,
	CONFIG_N_BACKUP_TYPES,
};
const char *config_backup_type_name(enum config_backup_type type);

/* What a backup of this type is kept by; whatever any of the rules keeps is kept.  Members at
 * 0 do not count; all at 0: kept for ever. */
struct config_backup_retention {
	int64_t max_age_us;
	unsigned count;                          /* the newest N of each database */
	unsigned daily, weekly, monthly, yearly; /* grandfather-father-son: the newest of each of
	                                         * the last N days, ISO weeks, months, years */
};

/* ---- destinations ---- */

enum config_destination_type { CONFIG_DEST_FILE, CONFIG_DEST_S3, CONFIG_DEST_SFTP };

enum config_path_style { CONFIG_PATH_STYLE_DEFAULT, CONFIG_PATH_STYLE_YES, CONFIG_PATH_STYLE_NO };

struct config_s3 {
	const char *bucket, *prefix; /* without slashes at their ends */
	const char *region, *endpoint, *ca_file, *proxy;
	const char *access_key_id, *profile;
	struct config_secret secret_access_key, session_token;
	const char *storage_class, *sse, *sse_kms_key_id;
	struct config_secret sse_customer_key; /* as base64 */
	const char *sse_customer_key_file;
	enum config_path_style path_style;
	bool skip_verify;
};

struct config_destination {
	enum config_destination_type type;
	const char *name; /* unique within its database */
	const char *url;  /* the ARCHIVE that it is: a directory, or s3://bucket/prefix?… */
	unsigned line;
	/* Not NULL: nothing goes there, and this says why and what to do ("bucket without
	 * credentials (set …)").  Not an error: reported by check, status and metrics. */
	const char *not_configured;
	struct config_s3 s3;
	/* Of sftp: a private key, and the host's public key as text; NULL: as ssh finds them. */
	const char *sftp_identity, *sftp_host_key;
	/* What lies there is encrypted: an identity (asof key), or a command that prints one. */
	const char *key_file, *key_command;
	int64_t sync_interval_us; /* default 1 s */
	/* It thins what lies there by this, where `retains`: it was given for the destination itself;
	 * else what came there stays. */
	struct config_retention retention;
	bool retains;
	struct schedule verify; /* of what lies there; default every 6 hours */
	bool backups;           /* those of the database go there, too; default true */
	/* What they are kept by there; default: as here. */
	struct config_backup_retention backup_retention[CONFIG_N_BACKUP_TYPES];
};

/* ---- backups ---- */

/* How a backup is taken, by schedule or by hand. */
struct config_backup_options {
	bool compress;             /* default true */
	unsigned level;            /* 1 to 12, default 6 */
	bool validate;             /* default true */
	const char *gpg_recipient; /* not NULL: encrypted for that key */
};

struct config_backup_schedule {
	const char *name; /* unique */
	unsigned line;
	struct schedule when;
	int64_t jitter_us;
	enum config_backup_type type;
	struct config_backup_options options;
	/* Names of databases, or patterns as of fnmatch(3); none: all of them. */
	const char *const *databases;
	size_t n_databases;
};

/* ---- databases ---- */

struct config_database {
	unsigned line;
	/* Either one file, or (dir not NULL) every file in a folder whose name matches. */
	const char *path;
	const char *dir, *pattern; /* default "*.db" */
	bool recursive;
	bool watch;       /* look for new files while running */
	const char *name; /* in the archive; NULL for a dir: config_name_in_dir() gives it */

	const char *archive;   /* the first archive, a directory */
	bool archive_is_state; /* nobody named one: a folder of the host's state, capped by
	                        * retention.max_bytes (default 10 GiB), to be named at start */
	struct config_destination *destinations;
	size_t n_destinations;

	bool strict, enable_wal; /* see capture.h */
	uint64_t wal_cap_bytes;  /* 0: capture's default */
	bool restore_if_missing; /* at start, from the archive or a destination */
	struct config_retention retention;
	/* A bound on the work of a restore, as Litestream's users mean it.  It is always held:
	 * a view has at most 8 objects over its base.  The base is not copied each time. */
	int64_t snapshot_interval_us;
	/* Verification of the local archive: what is new; everything in full. */
	struct schedule verify, verify_full; /* defaults: every hour; 02:00 */
};

/* ---- everything ---- */

#define CONFIG_HTTP_DEFAULT "127.0.0.1:8080"
struct config_http {
	/* HOST:PORT, or unix:/PATH; NULL: no HTTP.  Nobody named one: CONFIG_HTTP_DEFAULT, unless
	 * an address below has that port. */
	const char *listen;
	bool listen_is_default;
	/* Given by a litestream.yml (`addr`, `health.addr`): /metrics and /health alone are
	 * served there, as given. */
	const char *metrics_listen, *health_listen;
	const char *username;
	struct config_secret password, token;
	const char *tls_cert, *tls_key; /* paths */
};

struct config_mount {
	const char *dir; /* NULL: none */
	const char *archive;
	const char *options; /* as of -o, `timezone:` among them; NULL: none */
};

/* AUTO: required where a password goes to another machine, else tried. */
enum config_tls { CONFIG_TLS_AUTO, CONFIG_TLS_REQUIRED, CONFIG_TLS_TRY, CONFIG_TLS_OFF };

struct config_alerts {
	const char *smtp_server; /* NULL: no mail */
	unsigned smtp_port;      /* default 587 */
	enum config_tls smtp_tls;
	const char *smtp_username;
	struct config_secret smtp_password;
	const char *mail_from; /* default asof@HOST, or the username where that is an address */
	const char *const *mail_to; /* of mail at least one */
	size_t n_mail_to;
	struct config_secret slack_webhook, webhook;
	struct config_secret heartbeat_url;
	int64_t heartbeat_interval_us; /* default 5 min */
	int64_t for_us;                /* how long trouble lasts before it is told, default 30 s */
	int64_t repeat_us; /* how often it is told while it lasts, default 4 h; 0: once */
};

struct config {
	const char *path;     /* of the file; NULL: none was read */
	const char *env_path; /* of the .env.backup that was read; NULL: none */

	struct zone *zone; /* of schedules, and of TIMEs without one; default UTC */
	enum log_level log_level;
	enum log_format log_format;
	const char *log_path;   /* NULL: standard error */
	uint64_t log_max_bytes; /* of the file, see log.h; default 16 MiB, 0: no bound */
	unsigned log_keep;      /* files before it, default 4 */

	const char *archive;    /* default of the databases; NULL: see above */
	const char *data_dir;   /* DATA_DIR; NULL: not given */
	const char *backup_dir; /* where backups go: BACKUP_DIR, else the archive of their
	                         * database (NULL) */
	struct config_http http;
	struct config_mount mount;
	const char *exec;   /* a command line for sh -c, supervised; NULL: none */
	const char *socket; /* of control; NULL: the default */
	struct {
		uint64_t memory_bytes; /* of buffers and caches; 0: default */
		unsigned threads;      /* of the pool; 0: default */
	} limits;

	struct config_database *databases;
	size_t n_databases;

	struct config_backup_options backup_options; /* of asof backup; of schedules by default */
	struct config_backup_schedule *schedules;
	size_t n_schedules;
	struct config_backup_retention backup_retention[CONFIG_N_BACKUP_TYPES];
	/* BACKUP_S3_BUCKET: backups, and nothing else, of databases that have no destination in that
	 * bucket.  Its `url` is NULL: there is none. */
	struct config_destination backup_bucket;
	struct schedule cleanup; /* when backups are cleaned up, default 03:00 */

	struct config_alerts alerts;

	struct config_memory *memory; /* what all of the above lies in */
};

/* ---- loading ---- */

enum config_severity { CONFIG_ERROR, CONFIG_WARNING };

struct config_message {
	enum config_severity severity;
	const char *file; /* "environment" for what a variable of the process says */
	unsigned line;    /* 0: the file as a whole */
	const char *text; /* "key: why (what to do)", one line */
};

/* By files and lines, errors and warnings mixed; at most CONFIG_MAX_MESSAGES. */
#define CONFIG_MAX_MESSAGES 200
struct config_report {
	struct config_message *messages;
	size_t n, n_errors;
	struct config_memory *memory;
};
#define CONFIG_REPORT_INIT                                                                         \
	{                                                                                          \
		.n = 0                                                                             \
	}
void config_report_release(struct config_report *r);
#define cleanup_config_report CLEANUP(config_report_release)
/* "FILE:LINE: text" of an error, "FILE:LINE: warning: text"; no line: "FILE: text". */
#define CONFIG_LINE_MAX 8400
void config_message_format(const struct config_message *m, char out[CONFIG_LINE_MAX]);
/* All of it, line by line. */
void config_report_print(const struct config_report *r, FILE *out);

struct config_options {
	/* The file; NULL: what LITESTREAM_CONFIG names unless LITESTREAM_ENABLED is not true;
	 * without that the variables and the defaults alone. */
	const char *path;
	const char *env_path; /* NULL: .env.backup beside the file, else in the working folder;
	                       * "": none */
	const char *const *environment; /* as environ(7); NULL: the process's own */
	bool no_expand;                 /* leave $VAR as it stands */
};

/*
 * Reads and checks all of it.  *report is filled in any case and must be released; *ret is set
 * only when there was no error.  ERR_USAGE: the report has the errors, the message counts them;
 * or there is no such file, or it is larger than 1 MiB.  DENIED, IO: it cannot be read.  Opens no database, no network connection, writes
 * nothing.
 */
int config_load(const struct config_options *options, struct config **ret,
                struct config_report *report, struct err *err) MUST_USE;
void config_free(struct config *c);
DEFINE_CLEANUP(struct config, config_free);
#define cleanup_config CLEANUP(config_free_p)

/* The first of ./asof.yml and /etc/asof.yml that exists; NULL: none. */
const char *config_default_path(void);

/* Where the host keeps state: the archive of who names none. */
void config_state_archive(char out[PATH_MAX]);

/* The entry that `what` means: its path as given, or its name in the archive, or (a container's
 * path differs from the host's) the name that is its last part.  NULL: none. */
const struct config_database *config_find_database(const struct config *c, const char *what);

/*
 * The name in the archive of a file found below `dir` of a database entry: its path from
 * there, each '/' made a '-'.  False when that cannot be a name (see db_name_check()).
 */
#define CONFIG_NAME_MAX 201
bool config_name_in_dir(const char *relative_path, char out[CONFIG_NAME_MAX]);

/*
 * The files that a `dir` entry means at this moment: regular files whose name matches, that
 * begin with no '.', are no -wal, -shm, -journal or temporary file of asof's, lie in no archive
 * of the configuration, and are not listed by themselves.  Sorted by path.  Opens folders, no
 * file.  A folder that does not exist yet has none.  At most CONFIG_MAX_FOUND; ERR_USAGE beyond.
 */
#define CONFIG_MAX_FOUND 10000
struct config_found {
	char *path; /* absolute */
	char name[CONFIG_NAME_MAX];
};
struct config_found_list {
	struct config_found *items;
	size_t n;
};
void config_found_release(struct config_found_list *list);
#define cleanup_config_found CLEANUP(config_found_release)
int config_scan_dir(const struct config *c, const struct config_database *d,
                    struct config_found_list *ret, struct err *err) MUST_USE;

#endif
