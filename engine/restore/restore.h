/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Restore: one past moment, or what a backup holds, byte for byte, as a file that appears whole
 * or not at all.
 *
 * The image is written beside the target (TARGET.asof-restore.tmp), compared with the state
 * checksum of its commit or checked by SQLite (integrity_check, through the read-only VFS),
 * fsynced, and renamed in; until then an existing target is as it was, whenever the process or
 * the machine dies.
 *
 * What is refused.  An existing target without `force` (ERR_EXISTS).  A target that another
 * process has open, without `force` (ERR_REFUSED, naming it): it would go on with the old file.
 * The replicator of a database is no such process, it lets go, notices and starts a child
 * lineage; other processes of asof (a backup being made) are waited for, ten seconds.  A -wal,
 * -shm or -journal beside the target without `force` (ERR_REFUSED): SQLite would apply them,
 * silently, to the new file.  Processes in another container are out of sight.
 *
 * Nothing of the old is lost with `force`.  `safety` takes a backup first.  A -wal or -journal that
 * holds something goes aside together with the old database, as TARGET.before-restore-TIME and
 * its -wal, a pair that any SQLite opens; and so does a database that is still open somewhere:
 * what that process commits until it is restarted is then in the pair, not in a file without a
 * name.  See swap.c for the order of that and for what a crash in the middle leaves.
 *
 * With `delta` what the present file has already is not written again; delta.c says how.
 *
 * Nothing here opens a live database or its side files, neither by SQLite nor by open(2), but for
 * `delta`: not for a process that captures the target.
 */
#ifndef ASOF_RESTORE_RESTORE_H
#define ASOF_RESTORE_RESTORE_H

#include "engine/base/err.h"
#include "engine/restore/file.h"
#include "engine/view/history.h"

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum restore_pick { RESTORE_LATEST, RESTORE_AT, RESTORE_TX };

struct restore_point {
	enum restore_pick pick;
	int64_t time_us; /* of RESTORE_AT */
	uint64_t txid;   /* of RESTORE_TX */
};

/* The commit that is meant.  NOT_FOUND and GAP name the nearest ones there are. */
int restore_resolve(struct history *h, const struct restore_point *point, int64_t now_us,
                    struct moment *ret, struct err *err) MUST_USE;

/* ---- the target ---- */

/* A process that has the target or a file beside it open. */
struct restore_holder {
	pid_t pid;
	char command[32];
	bool is_asof; /* it is this same program */
};

struct restore_target {
	char path[PATH_MAX]; /* absolute, links resolved */
	bool exists;
	uint64_t size_bytes;          /* of the file alone */
	bool wal, journal;            /* lie beside it and hold something */
	bool sides;                   /* anything lies beside it: -wal, -shm, -journal */
	unsigned n_holders;           /* the replicator is not counted */
	struct restore_holder holder; /* one of them */
	bool replicated;              /* a replicator has it open */
};
/* What lies at `target`; touches nothing.  `lock_path`: of the replicator's lock, or NULL. */
int restore_look(const char *target, const char *lock_path, struct restore_target *ret,
                 struct err *err) MUST_USE;

/*
 * Takes up what a restore to `target` left that died while it put its file in place: the old file
 * gets back its -wal, see swap.c.  0 also if there is nothing to do.  ERR_BUSY: a restore is at it.
 * ERR_REFUSED: somebody opened the old file since; a person must choose.
 */
int restore_take_up(const char *target, struct err *err) MUST_USE;

/* ---- doing it ---- */

enum restore_check {
	RESTORE_CHECK_AUTO,   /* integrity_check unless a state checksum matched */
	RESTORE_CHECK_ALWAYS, /* also then: the application may have committed damage */
	RESTORE_CHECK_NEVER,
};

struct restore_options {
	bool force;
	bool dry_run; /* say what would happen, write nothing */
	bool delta;
	bool keep_old; /* set the old database aside always, as if it were open somewhere */
	enum restore_check check;
	unsigned n_threads;  /* that read and write; 0: one for each processor, 4 at most */
	int64_t patience_us; /* with other processes of asof; 0: ten seconds */
	/* What must not be restored into; NULL: none. */
	const char *archive_root;
	const char *lock_path; /* of the target's replicator; NULL: told by the program alone */
	/*
	 * Called when the new file is whole and checked, before anything at an existing target
	 * changes: takes a backup of it.  An error ends the restore with it, nothing changed.
	 * NULL: none is wanted.
	 */
	int (*safety)(void *ctx, const struct restore_target *target, struct err *err);
	/* Called now and then from the calling thread; false cancels (ERR_CANCELLED), and then
	 * nothing has changed.  A total of 0 is not known yet.  NULL: none. */
	bool (*progress)(void *ctx, uint64_t done_bytes, uint64_t total_bytes);
	void *ctx; /* of both */
};

enum restore_method {
	RESTORE_WHOLE,    /* a new file, written from end to end */
	RESTORE_SHARED,   /* a new file that shares blocks with the old one (FICLONE) */
	RESTORE_IN_PLACE, /* a transaction on the present file */
};

struct restore_result {
	char target[PATH_MAX]; /* absolute, links resolved */
	uint64_t bytes;        /* of the image; 0 in a dry run that cannot know */
	uint64_t written_bytes;
	enum restore_method method;
	bool replaced;            /* there was such a file before */
	bool checked;             /* the commit has a state checksum, and it matched */
	bool validated;           /* integrity_check said ok */
	bool undid_interrupted;   /* what a restore that died had moved was put back first */
	char set_aside[PATH_MAX]; /* where the old database lies with its -wal; "" nowhere */
	unsigned n_holders;       /* that go on with the old file: they must be restarted */
	struct restore_holder holder;
};

/*
 * Puts the image of commit `txid` at `target`.  With `dry_run` *ret says what would be, and
 * what would be refused is refused.  Mode and owner of an existing target are kept; a new one
 * has mode 0600.  Other errors: DAMAGED (the archive's bytes do not make the image, or
 * integrity_check does not say ok), NO_SPACE, DENIED, READ_ONLY, BUSY (another restore to the
 * same target), NOT_FOUND (its folder), IO.
 */
int restore_to_file(struct archive *a, struct history *h, uint64_t txid, const char *target,
                    const struct restore_options *options, struct restore_result *ret,
                    struct err *err) MUST_USE;

/* The same with what `f` holds. */
int restore_from_file(struct restore_file *f, const char *target,
                      const struct restore_options *options, struct restore_result *ret,
                      struct err *err) MUST_USE;

#endif
