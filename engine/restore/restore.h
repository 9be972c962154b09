/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Restore: one past moment, byte for byte, as a file that appears whole or not at all.
 *
 * The image is written beside the target (TARGET.asof-restore.tmp), compared with the state
 * checksum of its commit, fsynced, and renamed in; until then an existing target is as it was,
 * whenever the process or the machine dies.
 *
 * What is refused.  An existing target without `force` (ERR_EXISTS).  A target that another
 * process has open (ERR_REFUSED, naming it): it would go on writing into a file without a name.
 * The replicator of the same database is no such process, it notices and starts a child
 * lineage.  A -wal, -shm or -journal beside the target without `force` (ERR_REFUSED): SQLite
 * would apply them, silently, to the new file.
 *
 * With `force` a -wal or -journal that holds something is never thrown away: it goes aside
 * together with the old database, as TARGET.before-restore-TIME and its -wal, a pair that any
 * SQLite opens.  See swap.c for the order of that and for what a crash in the middle leaves.
 *
 * Nothing here opens a database or its side files, neither by SQLite nor by open(2).
 */
#ifndef ASOF_RESTORE_RESTORE_H
#define ASOF_RESTORE_RESTORE_H

#include "engine/base/err.h"
#include "engine/view/history.h"

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

enum restore_pick { RESTORE_LATEST, RESTORE_AT, RESTORE_TX };

struct restore_point {
	enum restore_pick pick;
	int64_t time_us; /* of RESTORE_AT */
	uint64_t txid;   /* of RESTORE_TX */
};

/* The commit that is meant.  NOT_FOUND and GAP name the nearest ones there are. */
int restore_resolve(struct history *h, const struct restore_point *point, int64_t now_us,
                    struct moment *ret, struct err *err) MUST_USE;

struct restore_options {
	bool force;
	bool dry_run;       /* say what would happen, write nothing */
	unsigned n_threads; /* that read and write; 0: one for each processor, 4 at most */
	/* Called now and then from the calling thread; false cancels (ERR_CANCELLED), and then
	 * nothing has changed.  NULL: none. */
	bool (*progress)(void *ctx, uint64_t done_bytes, uint64_t total_bytes);
	void *ctx;
};

struct restore_result {
	char target[PATH_MAX]; /* absolute, links resolved */
	uint64_t bytes;
	bool replaced;            /* there was such a file before */
	bool checked;             /* the commit has a state checksum, and it matched */
	bool undid_interrupted;   /* what a restore that died had moved was put back first */
	char set_aside[PATH_MAX]; /* where the old database lies with its -wal; "" nowhere */
};

/*
 * Puts the image of commit `txid` at `target`.  With `dry_run` *ret says what would be, and
 * what would be refused is refused.  Mode and owner of an existing target are kept; a new one
 * has mode 0600.  Other errors: DAMAGED (the archive's bytes do not make the image), NO_SPACE,
 * DENIED, READ_ONLY, BUSY (another restore to the same target), NOT_FOUND (its folder), IO.
 */
int restore_to_file(struct archive *a, struct history *h, uint64_t txid, const char *target,
                    const struct restore_options *options, struct restore_result *ret,
                    struct err *err) MUST_USE;

#endif
