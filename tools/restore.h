/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of `asof restore`: what is asked for (cmd_restore.c), what that is and where it goes
 * (restore_pick.c), the questions to a person (restore_ask.c), the backup before (restore_safety.c),
 * and what is told afterwards (restore_say.c).
 *
 * The order that they hold: choose, look at the target, ask, write and check the new file, take
 * the safety backup, swap.  The safety backup is made by engine/backup, which comes behind
 * engine/restore in the order of modules: restore calls it back, and this is where the two meet.
 */
#ifndef ASOF_TOOLS_RESTORE_H
#define ASOF_TOOLS_RESTORE_H

#include "engine/backup/backup.h"
#include "engine/restore/restore.h"
#include "tools/cli.h"
#include "tools/progress.h"

struct restore_request {
	/* As given. */
	const char *archive_name, *db, *out, *from, *at, *tx, *expect;
	uint64_t expect_txid; /* 0: not asked */
	unsigned n_points;    /* of --latest, --at, --tx, --from */
	bool json, interactive, no_safety, follow, once, if_db_not_exists, if_replica_exists;
	struct restore_point point;
	struct restore_options options;
	int64_t now_us;

	/* As chosen. */
	char chosen_file[PATH_MAX], chosen_db[256]; /* in a conversation: `from`, `db` are these */
	struct archive *archive;                    /* NULL: none is named, and none is needed */
	const char *backups;                        /* where backups lie; NULL as above */
	const char *far_backups; /* where they lie that is no directory, else NULL */
	const char *data_dir;    /* DATA_DIR; NULL: not given */
	struct history *history; /* a moment of it, or */
	struct moment moment;
	struct restore_file *file;     /* what this file holds */
	struct backup_fetched fetched; /* a file that was brought from a store */
	char target[PATH_MAX];
	char target_note[PATH_MAX +
	                 200];    /* why the target is another one than the archive says; "" */
	char lock_path[PATH_MAX]; /* of the target's replicator, "" not known */

	/* As done. */
	struct progress progress;
	struct backup_result safety;
	bool safety_taken;
};

/* ---- restore_pick.c ---- */

/* DAMAGED when the history ends before that commit; 0: not asked. */
int restore_check_end(struct history *h, uint64_t expect_txid, struct err *err) MUST_USE;

/* The archive, and where backups lie.  None named is no error where a file is named. */
int restore_open_archive(struct cli *c, struct restore_request *q, struct err *err) MUST_USE;
/* Opens archive, history and moment, or the file. */
int restore_pick(struct cli *c, struct restore_request *q, struct err *err) MUST_USE;
/* Where it goes: -o, else where the database lay, else $DATA_DIR/db/NAME. */
int restore_pick_target(struct cli *c, struct restore_request *q, struct err *err) MUST_USE;
void restore_request_release(struct restore_request *q);

/* ---- restore_ask.c ---- */

/* --interactive: a database, a backup or a moment, a look into it.  *ret_done: left without a
 * choice. */
int restore_choose(struct cli *c, struct restore_request *q, bool *ret_done,
                   struct err *err) MUST_USE;
/*
 * Where something would be replaced: asks on a terminal, and sets `force` for a yes; *ret_declined
 * for anything else.  Asks nothing with --force, in a dry run, or without a terminal, where what
 * needs --force is then refused.
 */
int restore_confirm(struct restore_request *q, bool *ret_declined, struct err *err) MUST_USE;
/* Both ends of a conversation are a terminal. */
bool restore_can_ask(void);

/* ---- restore_safety.c ---- */

/* A callback of struct restore_options, `ctx` the request. */
int restore_take_safety(void *ctx, const struct restore_target *target, struct err *err) MUST_USE;

/* ---- restore_follow.c ---- */

/* --follow: keeps a standby up to date until a signal, or once. */
int restore_follow(struct cli *c, struct restore_request *q, struct err *err) MUST_USE;

/* ---- restore_say.c ---- */

int restore_say(const struct restore_request *q, const struct restore_result *r,
                struct err *err) MUST_USE;

#endif
