/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The databases of the mounted archive, and latest/: their newest states, resolved as one set.
 *
 * A database met once is kept, and its pointer stays good, until fs_dbs_free().  The archive
 * is asked for new names at most once a second.  All functions may be called from any thread;
 * none waits for another's disk access when it has something to answer with.
 */
#ifndef ASOF_FS_DBS_H
#define ASOF_FS_DBS_H

#include "engine/view/history.h"

#include <pthread.h>
#include <stdatomic.h>

/* How long a set of newest states stands, and how long a list of names is believed. */
#define FS_TICK_US INT64_C(1000000)

struct fs_db {
	struct history *history;
	uint32_t id;  /* 0: none of its own */
	bool present; /* under fs_dbs.lock: in the archive's newest list */
	/* The days that hold a commit, for history/NAME/. */
	pthread_mutex_t days_lock;
	int64_t *days; /* under days_lock, as are these */
	size_t n_days;
	uint64_t days_first_txid, days_last_txid;
	char name[];
};

struct fs_dbs;

int fs_dbs_new(struct archive *a, struct fs_dbs **ret, struct err *err) MUST_USE;
void fs_dbs_free(struct fs_dbs *dbs);

/* By name; NOT_FOUND: the archive has no such database. */
int fs_dbs_find(struct fs_dbs *dbs, const char *name, struct fs_db **ret, struct err *err) MUST_USE;
/* NULL: never met. */
struct fs_db *fs_dbs_by_id(struct fs_dbs *dbs, uint32_t id);
/* All that are there and can be opened, sorted by name, in an array to free().  One that
 * cannot be opened is logged once. */
int fs_dbs_all(struct fs_dbs *dbs, struct fs_db ***ret, size_t *ret_n, struct err *err) MUST_USE;

/* Looks for news of all that have been met, in an archive that is a directory. */
void fs_dbs_refresh(struct fs_dbs *dbs);

/* How many databases have been met. */
size_t fs_dbs_count(struct fs_dbs *dbs);

struct fs_newest {
	struct fs_db *db;
	struct moment moment;
};

struct fs_latest {
	_Atomic unsigned n_refs;
	int64_t made_us;      /* wall clock: the `now` of this set */
	int64_t made_mono_us; /* the set stands until FS_TICK_US later, at least */
	size_t n;
	struct fs_newest rows[]; /* sorted by name; databases without a commit are left out */
};

/* The current set, to be given back; seconds_left is what its entries may be cached for. */
int fs_dbs_latest(struct fs_dbs *dbs, struct fs_latest **ret, double *ret_seconds_left,
                  struct err *err) MUST_USE;
void fs_latest_unref(struct fs_latest *latest);
const struct fs_newest *fs_latest_find(const struct fs_latest *latest, const char *name);

DEFINE_CLEANUP(struct fs_latest, fs_latest_unref);
#define cleanup_latest CLEANUP(fs_latest_unref_p)

#endif
