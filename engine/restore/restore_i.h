/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of restore/ share.  Not for others, tests excepted. */
#ifndef ASOF_RESTORE_RESTORE_I_H
#define ASOF_RESTORE_RESTORE_I_H

#include "engine/base/buf.h"
#include "engine/capture/capture.h"
#include "engine/restore/restore.h"
#include "engine/sqlite/format.h"

#include <sys/stat.h>
#include <sys/types.h>

#define RESTORE_TMP_SUFFIX ".asof-restore.tmp"
#define RESTORE_SWAP_SUFFIX CAPTURE_REPLACING_SUFFIX
#define RESTORE_ASIDE_INFIX ".before-restore-"
#define RESTORE_NAME_MAX 512

/* The files that SQLite keeps beside a database. */
enum { SIDE_WAL, SIDE_SHM, SIDE_JOURNAL, N_SIDES };
extern const char *const side_suffixes[N_SIDES];

/* ---- look.c: what is there ---- */

/* Where: a folder, held open, and a name in it. */
struct place {
	int dir_fd;
	char dir[PATH_MAX]; /* absolute, links resolved */
	char name[NAME_MAX + 1];
	char path[PATH_MAX]; /* the two together, for messages */
};

struct side {
	bool exists;
	bool has_content; /* not -shm, which can be made anew from the -wal */
};

struct found {
	bool exists;
	struct stat st; /* of the target, if it exists */
	struct side sides[N_SIDES];
	bool interrupted;             /* a restore died between its first move and its last */
	struct restore_holder holder; /* one of them */
	unsigned n_holders;           /* replicators are not counted */
	unsigned n_asof;              /* of them, this same program */
	bool replicated;              /* a replicator has it open */
};

int place_open(const char *target, struct place *ret, struct err *err) MUST_USE;
void place_release(struct place *p);
/* `lock_path` (may be NULL): a process that has this file open too is the replicator.  So is one
 * that runs this same program and has some ARCHIVE/local/NAME/lock open. */
int look(const struct place *p, const char *lock_path, struct found *ret, struct err *err) MUST_USE;
/* Only who has one file open, whatever its name is now. */
int look_for_holders(const struct stat *of, const char *lock_path, struct found *ret,
                     struct err *err) MUST_USE;
void target_of(const struct place *p, const struct found *f, struct restore_target *ret);

/* ---- plan.c: what to do about it; pure ---- */

struct plan {
	bool replace;      /* the target exists, and is the file to be replaced */
	bool keep_old;     /* under its name aside, with all side files */
	bool move_sides;   /* the side files alone go aside: there is no database to them */
	bool remove_sides; /* they hold nothing */
	bool warn_holders; /* somebody goes on with the old file */
	mode_t mode;
	bool set_owner;
	uid_t uid;
	gid_t gid;
	char aside[RESTORE_NAME_MAX]; /* name for what is kept; "" nothing */
};
int plan_make(const struct place *p, const struct found *f, const struct restore_options *options,
              int64_t now_us, struct plan *ret, struct err *err) MUST_USE;

/* ERR_REFUSED, naming one, when a process has the target open. */
int plan_check_holders(const struct place *p, const struct found *f, struct err *err) MUST_USE;

/* ---- image.c: the bytes ---- */

struct image_written {
	uint64_t size_bytes, written_bytes;
	bool state_matched; /* there was a state checksum */
};

/* Writes the image into an empty file, or (`shared`) over one that shares its blocks with the old
 * one, so that only pages that differ are written.  fsyncs nothing. */
int image_write(const struct restore_image *from, int fd, bool shared, const char *path,
                const struct restore_options *options, struct image_written *ret,
                struct err *err) MUST_USE;

#define IMAGE_LABEL_MAX 40
/* `v` and `label` must live longer than it. */
void image_of_view(struct view *v, char label[IMAGE_LABEL_MAX], struct restore_image *ret);
/* Bytes of the database by its header, 0 when that does not say. */
uint64_t restore_header_bytes(const uint8_t head[SQLITE_HEADER_SIZE]);

/* ---- restore.c ---- */

/* ERR_REFUSED for a place inside of `root` (NULL: none). */
int restore_refuse_inside(const struct place *p, const char *root, struct err *err) MUST_USE;
/* restore_to_file() of any image; `name` is said of errors. */
int restore_put_image(const struct restore_image *image, const char *name, const char *target,
                      const struct restore_options *options, struct restore_result *ret,
                      struct err *err) MUST_USE;

/* ---- file.c ---- */

/* Whether the page is one that a -wal beside the database has. */
bool restore_file_overlays(const struct restore_file *f, uint32_t pgno);

/* ---- check.c: what SQLite says ---- */

/* ERR_DAMAGED with its first complaint unless integrity_check says ok.  The image has `read`. */
int check_integrity(const struct restore_image *image, struct err *err) MUST_USE;
int check_integrity_fd(int fd, const char *path, uint64_t size_bytes, struct err *err) MUST_USE;

/* ---- inplace.c: a transaction on a database file, without SQLite ---- */

struct inplace {
	const struct place *place;
	int fd, journal_fd;
	char journal[RESTORE_NAME_MAX];
	char label[PATH_MAX + 16]; /* of the journal, for messages */
	uint32_t page_size;
	uint32_t old_pages, n_records, nonce;
	uint64_t journal_bytes, written_bytes;
	struct buf out; /* records not yet written */
	bool sealed, done;
};

/* Locks the database as a writer of SQLite does, waiting up to `patience_us` for readers (BUSY), and
 * begins a journal.  `old_pages`: size of the state that the journal is to restore. */
int inplace_begin(struct inplace *x, const struct place *p, uint32_t page_size, uint32_t old_pages,
                  int64_t patience_us, struct err *err) MUST_USE;
/* A page of the old state, as it was: every one that will be written, or is in a -wal. */
int inplace_save(struct inplace *x, uint32_t pgno, const void *page, struct err *err) MUST_USE;
/* From here on SQLite, whoever opens the database, would put the old state back. */
int inplace_seal(struct inplace *x, struct err *err) MUST_USE;
int inplace_write(struct inplace *x, uint32_t pgno, const void *page, struct err *err) MUST_USE;
/* Durable, and the journal gone: the new state is there. */
int inplace_commit(struct inplace *x, uint32_t n_pages, struct err *err) MUST_USE;
/* Lets go.  Without a commit the old state is put back. */
void inplace_end(struct inplace *x);
/* Has SQLite put back what a transaction that died has changed, if there is one; in a child. */
int inplace_recover(const struct place *p, bool *ret_recovered, struct err *err) MUST_USE;

/* ---- delta.c: only what differs ---- */

struct delta_plan {
	uint64_t n_differ;    /* pages that must be written */
	uint64_t n_save;      /* pages of the old state that the journal needs */
	struct hash128 state; /* of the image */
};
/* Whether a transaction in place can take the file from what it is to the image. */
bool delta_possible(const struct restore_image *image, const struct place *p);
/* Compares and writes nothing. */
int delta_compare(const struct restore_image *image, const struct place *p,
                  const struct restore_options *options, struct delta_plan *ret,
                  struct err *err) MUST_USE;
int delta_apply(const struct restore_image *image, const struct place *p,
                const struct restore_options *options, uint64_t *ret_written,
                struct err *err) MUST_USE;

/* ---- swap.c: putting it in place ---- */

/* `tmp` (a name beside the target, fsynced) becomes the target. */
int swap_in(const struct place *p, const struct plan *plan, const char *tmp,
            struct err *err) MUST_USE;
/* Puts back what an interrupted swap_in() had moved, or completes it if all was done. */
int swap_recover(const struct place *p, bool *ret_undone, struct err *err) MUST_USE;

#endif
