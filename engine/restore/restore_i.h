/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of restore/ share.  Not for others, tests excepted. */
#ifndef ASOF_RESTORE_RESTORE_I_H
#define ASOF_RESTORE_RESTORE_I_H

#include "engine/restore/restore.h"

#include <sys/stat.h>
#include <sys/types.h>

#define RESTORE_TMP_SUFFIX ".asof-restore.tmp"
#define RESTORE_SWAP_SUFFIX ".asof-restore.swap"
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

/* A process that has the target or a file beside it open. */
struct holder {
	pid_t pid;
	char command[32];
};

struct found {
	bool exists;
	struct stat st; /* of the target, if it exists */
	struct side sides[N_SIDES];
	bool interrupted;     /* a restore died between its first move and its last */
	struct holder holder; /* one of them */
	unsigned n_holders;   /* the replicator of this archive is not counted */
};

int place_open(const char *target, struct place *ret, struct err *err) MUST_USE;
void place_release(struct place *p);
/* `lock_path`: a process that has this file open too is the replicator. */
int look(const struct place *p, const char *lock_path, struct found *ret, struct err *err) MUST_USE;
/* Only who has one file open, whatever its name is now. */
int look_for_holders(const struct stat *of, const char *lock_path, struct found *ret,
                     struct err *err) MUST_USE;

/* ---- plan.c: what to do about it; pure ---- */

struct plan {
	bool replace;      /* the target exists, and is the file to be replaced */
	bool keep_old;     /* under its name aside, with all side files */
	bool move_sides;   /* the side files alone go aside: there is no database to them */
	bool remove_sides; /* they hold nothing */
	mode_t mode;
	bool set_owner;
	uid_t uid;
	gid_t gid;
	char aside[RESTORE_NAME_MAX]; /* name for what is kept; "" nothing */
};
int plan_make(const struct place *p, const struct found *f, bool force, int64_t now_us,
              struct plan *ret, struct err *err) MUST_USE;

/* ERR_REFUSED, naming one, when a process has the target open. */
int plan_check_holders(const struct place *p, const struct found *f, struct err *err) MUST_USE;

/* ---- image.c: the bytes ---- */

/* Writes the image into an empty file; *ret_checked says whether its state checksum was there
 * to be compared.  fsyncs nothing. */
int image_write(struct view *v, int fd, const char *path, const struct restore_options *options,
                bool *ret_checked, struct err *err) MUST_USE;

/* ---- swap.c: putting it in place ---- */

/* `tmp` (a name beside the target, fsynced) becomes the target. */
int swap_in(const struct place *p, const struct plan *plan, const char *tmp,
            struct err *err) MUST_USE;
/* Puts back what an interrupted swap_in() had moved, or completes it if all was done. */
int swap_recover(const struct place *p, bool *ret_undone, struct err *err) MUST_USE;

#endif
