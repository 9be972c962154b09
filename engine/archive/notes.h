/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The small text files of a database's folder: readable by people, guarded by a sum.
 * Each is a first line "asof-KIND 1", lines "key value", and last "sum HEX": hash64 of
 * everything before that line, seed 0, 16 digits.  Written once, whole (file_put).
 *
 *   source               kind source: id (32 bits, not 0), path (of the live database; rest of
 *                        the line)
 *   LLLLLLLL.lineage     kind lineage: lineage, parent (0: none), from_txid, first_txid,
 *                        live_us, page_size, reason.  Of one that goes on behind damage (first_txid
 *                        lies above from_txid + 1) also from_us and, where it is known, lost: the
 *                        object (FOLDER/FILE) that was damaged or missing
 *   TXID.gap             kind gap: before_txid, before_us, after_txid, after_us, reason.  TXID
 *                        (16 digits) is after_txid: the first state known again
 *   NAME.mark            kind mark: txid, time_us (of the commit), made_us.  A moment that
 *                        people named: retention keeps it
 *   thinned              kind thinned: until_txid; then for each kept transaction up to it a line
 *                        "point TXID TIME_US UNTIL_US", rising: it is the newest state for
 *                        TIME_US <= T < UNTIL_US; for each snapshot up to it that nothing before
 *                        connects with, a line "root TXID".  Of the transactions up to until_txid
 *                        (a point itself) only the points can be had
 *   expiring             kind expiring: for each object that is no longer needed a line
 *                        "since SINCE_US FOLDER/FILE"; retention's own, readers pass it over
 *   identity             kind identity: id (32 hex digits, random), dev, ino (of the folder): who
 *                        this archive is to its destinations; disposable
 *   LLLLLLLL.writer      kind writer, at destinations only: lineage, id, host, since_us: who alone
 *                        writes that lineage there; put once, never replaced
 *   verified             kind verified: what verification found; see struct verified_note.  Written
 *                        by whoever verifies, read by whoever tells of it; no reader needs it
 */
#ifndef ASOF_ARCHIVE_NOTES_H
#define ASOF_ARCHIVE_NOTES_H

#include "engine/archive/names.h"
#include "engine/base/buf.h"
#include "engine/base/hash.h"

struct source_note {
	uint32_t id;
	char path[512];
};
struct lineage_note {
	uint32_t lineage, parent;
	uint64_t from_txid, first_txid;
	int64_t live_us;
	uint32_t page_size;
	char reason[160];
	/* Of one that goes on behind damage; else 0 and "": */
	int64_t from_us; /* up to then all was recorded */
	char lost[OBJECT_NAME_MAX + 16];
};
struct gap_note {
	uint64_t before_txid, after_txid;
	int64_t before_us, after_us;
	char reason[160];
};

struct mark_note {
	uint64_t txid;
	int64_t time_us, made_us;
};
struct thinned_point {
	uint64_t txid;
	int64_t time_us, until_us;
};
/* Zero-initialised: nothing was thinned. */
struct thinned_note {
	uint64_t until_txid;
	struct thinned_point *points; /* the last one is until_txid */
	size_t n_points;
	uint64_t *roots;
	size_t n_roots;
};
struct expiring_entry {
	int64_t since_us;
	char file[OBJECT_NAME_MAX + 16]; /* FOLDER/FILE */
};
struct expiring_note {
	struct expiring_entry *entries;
	size_t n;
};
/* Times are of the wall clock; 0: not yet. */
struct verified_note {
	/* The image at through_txid (of the time through_us) was read and its state matched, at_us. */
	uint64_t through_txid;
	int64_t through_us, at_us;
	uint64_t full_txid; /* the same, of the last run that read everything */
	int64_t full_at_us;
	int64_t objects_at_us; /* stored objects that are older were read */
	uint64_t integrity_txid;
	int64_t integrity_at_us;
	uint64_t foreign_keys; /* rows that foreign_key_check named */
	char integrity[320];   /* "ok", the first problem, or "": not looked at yet */
	uint64_t damaged;      /* objects that were found damaged and not found whole since */
	int64_t damaged_at_us;
	char damage[320]; /* the first of them, as a line */
	/* A full run under way began pass_us, is through with the objects up to pass_file (none: "-"),
	 * and with the pages up to pass_page of pass_txid, whose hashes are pass_sum. */
	int64_t pass_us;
	char pass_file[OBJECT_NAME_MAX + 16];
	uint64_t pass_txid;
	uint32_t pass_page;
	struct hash128 pass_sum;
};

/* Who an archive is: random, and of this folder (another device or inode: a copy of the folder,
 * which is somebody else). */
#define WRITER_ID_SIZE 33 /* 32 hex digits */
struct identity_note {
	char id[WRITER_ID_SIZE];
	uint64_t dev, ino;
};
/* Who writes a lineage at a destination. */
struct writer_note {
	uint32_t lineage;
	char id[WRITER_ID_SIZE];
	char was[WRITER_ID_SIZE]; /* who wrote this lineage before; "": nobody */
	char host[128];
	int64_t since_us;
};

/*
 * Of each note: put writes it into the folder, get reads it from there, parse takes it as it is
 * stored: `len` bytes with a NUL behind them, which it changes.
 */
int source_note_parse(char *text, size_t len, struct source_note *ret, struct err *err) MUST_USE;
int lineage_note_parse(char *text, size_t len, const char *name, struct lineage_note *ret,
                       struct err *err) MUST_USE;
int gap_note_parse(char *text, size_t len, const char *name, struct gap_note *ret,
                   struct err *err) MUST_USE;
int mark_note_parse(char *text, size_t len, const char *mark, struct mark_note *ret,
                    struct err *err) MUST_USE;
int thinned_note_parse(char *text, size_t len, struct thinned_note *ret, struct err *err) MUST_USE;
int expiring_note_parse(char *text, size_t len, struct expiring_note *ret,
                        struct err *err) MUST_USE;
int verified_note_parse(char *text, size_t len, struct verified_note *ret,
                        struct err *err) MUST_USE;

int source_note_put(int dir_fd, const struct source_note *n, struct err *err) MUST_USE;
int source_note_get(int dir_fd, struct source_note *ret, struct err *err) MUST_USE;
int lineage_note_put(int dir_fd, const struct lineage_note *n, struct err *err) MUST_USE;
int lineage_note_get(int dir_fd, const char *name, struct lineage_note *ret,
                     struct err *err) MUST_USE;
int gap_note_put(int dir_fd, const struct gap_note *n, struct err *err) MUST_USE;
int gap_note_get(int dir_fd, const char *name, struct gap_note *ret, struct err *err) MUST_USE;
/* The same, appended to `ret`. */
int gap_note_format(const struct gap_note *n, struct buf *ret, struct err *err) MUST_USE;
bool gap_name_parse(const char *name, uint64_t *ret_txid);

/* 1 to 200 bytes as the name of a database (db_name_check()); else USAGE. */
int mark_name_check(const char *mark, struct err *err) MUST_USE;
/* "NAME.mark" -> NAME. */
bool mark_file_parse(const char *file, char out[DB_NAME_MAX + 1]);
/* EXISTS: the name is taken. */
int mark_note_put(int dir_fd, const char *mark, const struct mark_note *n,
                  struct err *err) MUST_USE;
int mark_note_get(int dir_fd, const char *mark, struct mark_note *ret, struct err *err) MUST_USE;
int mark_note_delete(int dir_fd, const char *mark, struct err *err) MUST_USE;

/* NOT_FOUND: there is none. */
int thinned_note_get(int dir_fd, struct thinned_note *ret, struct err *err) MUST_USE;
int thinned_note_put(int dir_fd, const struct thinned_note *n, struct err *err) MUST_USE;
/* The same, appended to `ret`. */
int thinned_note_format(const struct thinned_note *n, struct buf *ret, struct err *err) MUST_USE;
void thinned_note_release(struct thinned_note *n);
int expiring_note_get(int dir_fd, struct expiring_note *ret, struct err *err) MUST_USE;
int expiring_note_put(int dir_fd, const struct expiring_note *n, struct err *err) MUST_USE;
void expiring_note_release(struct expiring_note *n);

int identity_note_put(int dir_fd, const struct identity_note *n, struct err *err) MUST_USE;
int identity_note_get(int dir_fd, struct identity_note *ret, struct err *err) MUST_USE;
/* Appends the note to `ret`. */
int writer_note_format(const struct writer_note *n, struct buf *ret, struct err *err) MUST_USE;
int writer_note_parse(char *text, size_t len, const char *name, struct writer_note *ret,
                      struct err *err) MUST_USE;
/* "LLLLLLLL.writer" */
bool writer_name_parse(const char *name, uint32_t *ret_lineage);

int verified_note_put(int dir_fd, const struct verified_note *n, struct err *err) MUST_USE;
/* NOT_FOUND: nothing was verified yet. */
int verified_note_get(int dir_fd, struct verified_note *ret, struct err *err) MUST_USE;

/*
 * Whether the file of a history's folder (its name in there), of this content, is a whole note of the
 * kind that its name tells, and about what that tells.  `text`: as for parsing.  DAMAGED; VERSION;
 * USAGE: no note, or a disposable one (`identity`, `verified`), which whoever writes it makes anew.
 */
int note_check(const char *file, char *text, size_t len, struct err *err) MUST_USE;

#endif
