/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Backups: named full copies that people ask for, one file each, in an archive's folders
 * manual/ automated/ safety/ compressed/.
 *
 *   STEM[_LABEL]_YYYYmmdd_HHMMSS[_N].db[.gz[.gpg]]    local time; _N (from 2) where one was there
 *   …same….db-wal.gz, ….db-journal.gz                 companions of a raw copy
 *   manifest_YYYYmmdd_HHMMSS[_N].json                 one beside each backup
 *
 * STEM is the database's file name without its last suffix.  A .db.gz of asof is a pack
 * (gz/pack.h): any part of it is read at random, and gunzip gives the database.  FORMAT.md
 * has the trailer; manifest.c the keys of a manifest.
 *
 *   (1) A final name appears by an exclusive rename of a file that is whole, checked and
 *       fsynced; nothing is ever replaced.
 *   (2) The database is never written to, never checkpointed, never converted.
 *   (3) A backup is one committed state; nothing of a later one is in it.
 *
 * All functions may be called from any thread, but that backup_create() needs what
 * backup_is_reader() says.
 */
#ifndef ASOF_BACKUP_BACKUP_H
#define ASOF_BACKUP_BACKUP_H

#include "engine/base/cleanup.h"
#include "engine/base/err.h"
#include "engine/base/hash.h"

#include <jansson.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum backup_type {
	BACKUP_MANUAL,
	BACKUP_AUTOMATED,
	BACKUP_SAFETY,
	BACKUP_COMPRESSED,
	BACKUP_N_TYPES,
};
extern const char *const backup_type_names[BACKUP_N_TYPES];
/* ERR_USAGE names those that there are. */
int backup_type_parse(const char *text, enum backup_type *ret, struct err *err) MUST_USE;

#define BACKUP_LABEL_PRE_RESTORE "pre_restore"
#define BACKUP_LEVEL_DEFAULT 6
#define BACKUP_SHA256_MAX 65
#define BACKUP_TIME_MAX 48
#define BACKUP_NAME_MAX 256
#define BACKUP_COMPANIONS_MAX 2

/* ---- names; pure but for the local zone's tables ---- */

#define BACKUP_FILE_MAX 256

enum backup_file_kind {
	BACKUP_FILE_DB,
	BACKUP_FILE_COMPANION, /* -wal or -journal of a raw copy */
	BACKUP_FILE_MANIFEST,
};

struct backup_name {
	enum backup_file_kind kind;
	char stem[BACKUP_FILE_MAX]; /* "" of a manifest */
	char label[32];             /* "" none */
	char base[BACKUP_FILE_MAX]; /* up to ".db" or ".json" */
	bool has_time;
	int64_t time_us; /* if it has one: the moment that its local time means */
	bool compressed, encrypted;
};

/* Of the files of others, any NAME.db and NAME.db.gz is a backup (as it was to the old
 * scripts), names that begin with '.' excepted. */
bool backup_name_parse(const char *file, struct backup_name *ret);
/* What files of the database at `path` are called: its file name without the last suffix. */
int backup_stem(const char *path, char out[BACKUP_FILE_MAX], struct err *err) MUST_USE;

/* ---- manifests ---- */

/* Where the bytes came from. */
enum backup_source {
	BACKUP_FROM_UNKNOWN,
	BACKUP_FROM_HISTORY, /* of ARCHIVE/local, the live file was not read */
	BACKUP_FROM_LIVE,    /* one read transaction of the live database */
	BACKUP_FROM_RAW,     /* bytes as they lay there: the database is damaged */
};

/* What a manifest says of one backup.  Texts are "" and numbers 0 where it does not. */
struct backup_manifest {
	char type[16];
	char timestamp[BACKUP_TIME_MAX]; /* ISO, local time without a zone, as the old ones */
	char source_database[PATH_MAX];
	char backup_file[PATH_MAX];
	uint64_t source_size_bytes, backup_size_bytes;
	double compression_ratio; /* backup / source */
	char created_by[64];
	bool checked;              /* integrity_check passed when it was made */
	uint64_t foreign_key_rows; /* of foreign_key_check then */
	int64_t checked_us;
	char sha256[BACKUP_SHA256_MAX]; /* of the file as stored, hex */
	uint64_t txid;                  /* 0: not known */
	int64_t created_us;             /* when it was made */
	int64_t state_us;               /* the moment that it is a state of; 0: not known */
	enum backup_source source;
	char companions[BACKUP_COMPANIONS_MAX][BACKUP_NAME_MAX]; /* -wal, -journal of a raw copy */
	size_t n_companions;
	char warning[320];
};
/* As it is written, key for key; NULL: no memory. */
json_t *backup_manifest_json(const struct backup_manifest *m);

/* ---- making one ---- */

struct backup_options {
	enum backup_type type;
	const char *label;         /* between stem and time; NULL: none */
	bool no_compress;          /* a plain .db */
	int level;                 /* 1 to 12; 0: BACKUP_LEVEL_DEFAULT */
	bool no_validate;          /* neither integrity_check nor foreign_key_check */
	const char *gpg_recipient; /* encrypts for it by gpg; NULL: no */
	/* A database that is damaged, or no database at all, is kept as the raw bytes of file,
	 * -wal and -journal, and ret->damaged is set; else it is ERR_DAMAGED.  For safety. */
	bool keep_damaged;
	const char *history_root; /* archive with the continuous history; NULL: the same */
	bool live_only;           /* read the live file though the history has the state */
	/* Program that backup_is_reader() runs in; NULL: this one (/proc/self/exe). */
	const char *reader_program;
	/* Called now and then from the calling thread; false cancels (ERR_CANCELLED, nothing is
	 * left behind).  The total is 0 while it is not known. */
	bool (*progress)(void *ctx, uint64_t done_bytes, uint64_t total_bytes);
	void *ctx;
};

struct backup_result {
	char path[PATH_MAX];
	char manifest_path[PATH_MAX];
	struct backup_manifest manifest;
	bool damaged; /* kept raw; manifest.warning says what is wrong */
};

/*
 * Makes a backup of the database at `db_path`, replicated or not, into ARCHIVE/TYPE/, which is
 * made if it is missing.  Errors: NOT_FOUND (no such database), DAMAGED (the source, or what
 * was written, fails its check: nothing is kept), BUSY (the application holds it exclusively),
 * NO_SPACE, READ_ONLY, DENIED, IO, CANCELLED, UNAVAILABLE (gpg).
 */
int backup_create(const char *archive_root, const char *db_path,
                  const struct backup_options *options, struct backup_result *ret,
                  struct err *err) MUST_USE;

/*
 * A live database is read in a child process: closing a descriptor of it would drop the locks
 * that this one may hold.  The child is the program itself, so main() of every program that
 * calls backup_create() begins with
 *
 *     if (backup_is_reader(argc, argv))
 *             return backup_reader_main(argc, argv);
 */
bool backup_is_reader(int argc, char **argv);
int backup_reader_main(int argc, char **argv);

/* ---- what there is ---- */

struct backup_entry {
	enum backup_type type;
	char *path;          /* ROOT/TYPE/NAME, the root as it was given */
	const char *name;    /* its last part */
	char *db;            /* stem of the database, label left out */
	char *label;         /* "" none */
	int64_t time_us;     /* the earlier of the name's time and the file's modification time */
	uint64_t size_bytes; /* stored, companions left out */
	uint64_t companion_bytes;
	char *companions[BACKUP_COMPANIONS_MAX]; /* paths */
	size_t n_companions;
	bool compressed, encrypted;
	bool foreign;        /* no time in its name: somebody put it there, no rule removes it */
	char *manifest_path; /* NULL: there is none */
	bool raw;            /* of a damaged database, as its manifest says */
	char sha256[BACKUP_SHA256_MAX];
	uint64_t source_size_bytes; /* from the manifest; 0: not known */
	uint64_t txid;
	enum backup_source source;
	int64_t state_us;
};

struct store;

struct backup_list {
	struct backup_entry *entries; /* by type, then newest first, then by name */
	size_t n;
	char **orphans; /* paths: manifests whose backups are all gone, companions without theirs */
	size_t n_orphans;
	char **leftovers; /* paths: temporary files of processes that died */
	size_t n_leftovers;
	struct store *store; /* where they lie, of an archive that is no directory; else NULL */
};

struct store_options;
/* Of an archive that is no directory. */
struct backup_list_options {
	const struct store_options *store; /* how it is opened; may be NULL */
	/* Where manifests that were read are kept (store/kept.h); NULL: nowhere. */
	const char *keep_dir;
	uint64_t keep_bytes;
	/* What the store lists is enough, and its manifests are not read, but for one of each folder,
	 * which tells whether they could be, and those of safety backups, of which `raw` is to be known:
	 * others have neither sha256, source_size_bytes, txid, source, state_us nor manifest_path, their
	 * label is that of their name alone, and which files are orphans is not known. */
	bool plain;
};

/* Folders that are missing are empty.  Files that are no backups are passed over, and so are
 * manifests that cannot be read: they are somebody's, but not ours to judge.  A store is listed, a
 * request for each thousand files of a folder; then each manifest takes one, eight at a time.  Paths
 * are URLs there, ARCHIVE/TYPE/NAME without what the archive's URL says behind a '?'. */
int backup_list_read(const char *archive_root, struct backup_list *ret, struct err *err) MUST_USE;
/* The same; `options` may be NULL. */
int backup_list_read_at(const char *archive_root, const struct backup_list_options *options,
                        struct backup_list *ret, struct err *err) MUST_USE;
void backup_list_release(struct backup_list *list);
#define cleanup_backup_list CLEANUP(backup_list_release)

/* The one that `text` means: its path, its name, or its name without what follows ".db".  NULL:
 * none, or several. */
const struct backup_entry *backup_list_find(const struct backup_list *list, const char *text);

/* Whether it is of the database with that path, by the file's name. */
bool backup_is_of(const struct backup_entry *e, const char *db_path);

/* The manifest of a backup, in either of the old shapes or in ours; NOT_FOUND: none,
 * DAMAGED: it cannot be read. */
int backup_manifest_of_text(const char *text, size_t len, struct backup_manifest *ret,
                            struct err *err) MUST_USE;
int backup_manifest_read(const struct backup_entry *e, struct backup_manifest *ret,
                         struct err *err) MUST_USE;

/* "2024-01-15T14:30:00.250000", local and without a zone, as Python's isoformat(): the fraction is
 * left out when it is zero. */
void backup_time_iso_local(int64_t time_us, char out[BACKUP_TIME_MAX]);

/*
 * One that lies in a store, brought here: whole files in a folder of their own in $TMPDIR or
 * /var/tmp, under the names that they have there, and an entry of that.  One that lies here already
 * stays as it is.  `progress` may be NULL.
 */
struct backup_fetched {
	char dir[PATH_MAX]; /* "": nothing was brought */
	struct backup_entry entry;
};
int backup_fetch(const struct backup_list *list, const struct backup_entry *e,
                 bool (*progress)(void *ctx, uint64_t done_bytes, uint64_t total_bytes), void *ctx,
                 struct backup_fetched *ret, struct err *err) MUST_USE;
/* Removes what was brought. */
void backup_fetched_release(struct backup_fetched *f);
#define cleanup_backup_fetched CLEANUP(backup_fetched_release)

/* ---- are they good? ---- */

struct backup_check {
	bool valid;
	bool opened; /* the database within was looked at; not so without the key to it */
	bool sha256_known;
	uint64_t content_bytes;    /* of the database */
	uint64_t foreign_key_rows; /* that violate one: told, but no damage */
	char problem[400];         /* what is wrong, "" nothing */
	char note[200];            /* what could not be looked at, "" nothing */
};

/*
 * Reads all bytes of it: gzip checksums, sha256 of the manifest, integrity_check,
 * foreign_key_check.  A damaged one is no error: ret->valid is false.  Errors are what kept it
 * from looking (IO, NOMEM, CANCELLED).  `progress` may be NULL.
 */
int backup_check(const struct backup_entry *e,
                 bool (*progress)(void *ctx, uint64_t done_bytes, uint64_t total_bytes), void *ctx,
                 struct backup_check *ret, struct err *err) MUST_USE;

/* ---- figures ---- */

struct backup_type_stats {
	uint64_t count, size_bytes;
	const struct backup_entry *latest; /* in the list; NULL: none */
};
struct backup_stats {
	uint64_t count, size_bytes;
	struct backup_type_stats types[BACKUP_N_TYPES];
	const struct backup_entry *oldest, *newest;
	uint64_t disk_total_bytes, disk_used_bytes, disk_free_bytes;
	double ratio;                /* stored / content, of those that tell; 0: none does */
	double growth_bytes_per_day; /* stored, over the last 30 days; 0: not known */
};
int backup_stats_compute(const char *archive_root, const struct backup_list *list, int64_t now_us,
                         struct backup_stats *ret, struct err *err) MUST_USE;

/* ---- retention ---- */

/*
 * What is kept of one type: whatever any rule keeps, and all of it if no rule is set.  A rule at
 * 0 is not set.  Counts and periods are those of one database each.
 */
struct backup_keep {
	int64_t max_age_us; /* those not older than that */
	unsigned count;     /* the newest so many */
	/* The newest of each of the last so many hours, days, weeks (from Monday), months and
	 * years that have a backup, in local time. */
	unsigned hourly, daily, weekly, monthly, yearly;
};
struct backup_retention {
	struct backup_keep types[BACKUP_N_TYPES];
};
/* manual and automated 7 days, compressed 30 days, safety for ever: as the old scripts. */
void backup_retention_default(struct backup_retention *ret);

struct backup_verdict {
	const struct backup_entry *entry;
	bool remove;
	char reason[160];
};
struct backup_plan {
	struct backup_verdict *verdicts; /* one for each entry, in the order of the list */
	size_t n;
	size_t n_remove;
	uint64_t remove_bytes;
};

/*
 * What would be removed and why; touches nothing.  The last good backup of a database stays,
 * whatever the rules say: `is_good` is asked about those that stay, newest first, until it
 * says yes, and then about those that would go.  1 yes, 0 no, -kind ends the planning.
 * NULL: all are good.
 */
int backup_plan_make(const struct backup_list *list, const struct backup_retention *retention,
                     int64_t now_us,
                     int (*is_good)(void *ctx, const struct backup_entry *e, struct err *err),
                     void *ctx, struct backup_plan *ret, struct err *err) MUST_USE;
void backup_plan_release(struct backup_plan *plan);
#define cleanup_backup_plan CLEANUP(backup_plan_release)

struct backup_cleaned {
	uint64_t n_files, freed_bytes; /* backups; their companions count as bytes */
	uint64_t n_manifests;          /* manifests that were left without a backup */
	uint64_t n_failed;
};
/* Removes what the plan says: a backup, then its companions, then its manifest if no other
 * backup that is there is named in it; then orphans and leftovers.  `removed` (may be NULL) is
 * told of each backup.  Goes on past what cannot be removed, and then gives that error. */
int backup_plan_apply(const char *archive_root, const struct backup_list *list,
                      const struct backup_plan *plan,
                      void (*removed)(void *ctx, const struct backup_verdict *v), void *ctx,
                      struct backup_cleaned *ret, struct err *err) MUST_USE;

#endif
