/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All databases of a daemon: those that the configuration names, those found in its folders, and
 * those added by hand.
 *
 * fleet_apply() brings what runs to what a configuration wants: what is the same goes on
 * untouched, what is new starts, what is gone stops, what changed stops and starts again with the
 * new options.  Folders are looked at when inotify tells of something in them, and every 10 s.
 * A file that was found in a folder and has been gone for 10 s is dropped.
 *
 * One file is replicated once: a second path or a second name of it (a link) is refused, naming
 * both, and so are two files that would have one name in one archive.
 *
 * Threads: fleet_new(), fleet_apply(), fleet_step() and fleet_free() by one thread; the others
 * by any.
 */
#ifndef ASOF_DAEMON_FLEET_H
#define ASOF_DAEMON_FLEET_H

#include "engine/config/config.h"
#include "engine/daemon/database.h"

struct fleet;

int fleet_new(struct pools *pools, struct fleet **ret, struct err *err) MUST_USE;
/* What is wrong with one database is logged, and stops none of the others. */
void fleet_apply(struct fleet *f, const struct config *config);
/* As `news` of database.h, of each database; before fleet_apply(). */
void fleet_on_news(struct fleet *f, void (*fn)(void *ctx, const char *archive, const char *name),
                   void *ctx);
/* Readable when there may be something to do in a folder; -1: none. */
int fleet_fd(const struct fleet *f);
/* Looks at folders that are due, goes on with what stops and changes.  Often. */
void fleet_step(struct fleet *f);
/* An archive has less free space than is left to others: its databases stop soon. */
bool fleet_is_short(const struct fleet *f);
/* Has all of them stop; done when fleet_stopped(). */
void fleet_stop(struct fleet *f);
bool fleet_stopped(struct fleet *f);
/* Once stopped: 0, or the first of the errors. */
int fleet_result(struct fleet *f, struct err *err) MUST_USE;
void fleet_free(struct fleet *f);

/* ---- any thread ---- */

struct fleet_entry {
	char name[256], path[PATH_MAX], archive[PATH_MAX];
	struct database_status status;
	/* What the configuration says of it; NULL: added by hand.  The main thread's: valid until the
	 * next fleet_apply(). */
	const struct config_database *config;
};
/* Number `i` from 0, ordered by name; false past the last. */
bool fleet_get(struct fleet *f, size_t i, struct fleet_entry *ret);
bool fleet_find(struct fleet *f, const char *path, struct fleet_entry *ret);

struct fleet_counts {
	size_t all, replicating, waiting, failed, paused;
	bool settled; /* none is opening or closing, and none that exists has yet to be tried */
};
void fleet_count(struct fleet *f, struct fleet_counts *ret);

/*
 * By name, or by a path of the file.  ERR_NOT_FOUND names what there is.  pause and drop return at
 * once, with an id for fleet_let_go().
 */
int fleet_pause(struct fleet *f, const char *which, uint64_t *ret_id, struct err *err) MUST_USE;
int fleet_resume(struct fleet *f, const char *which, struct err *err) MUST_USE;
/* Until the daemon ends; name and archive may be NULL: the file's, the configuration's or, where
 * that has none, the one of all databases. */
int fleet_add(struct fleet *f, const char *path, const char *name, const char *archive,
              struct err *err) MUST_USE;
/* Until the configuration is loaded again. */
int fleet_drop(struct fleet *f, const char *which, uint64_t *ret_id, struct err *err) MUST_USE;
/* Whether what was paused or dropped is: captured up to there, no lock held, the file not open.  Also
 * true when it was resumed or added again. */
bool fleet_let_go(struct fleet *f, uint64_t id);

/*
 * Everything committed before fleet_sync_begin(), of one database or (which NULL) of all that are
 * replicated, or are about to be: durable, once fleet_sync() is 0; ERR_BUSY before.
 */
struct fleet_sync {
	struct fleet_sync_one {
		uint64_t id;
		struct database_sync sync;
		bool begun, done;
	} * ones;
	size_t n;
};
int fleet_sync_begin(struct fleet *f, const char *which, struct fleet_sync *ret,
                     struct err *err) MUST_USE;
int fleet_sync(struct fleet *f, struct fleet_sync *s, struct err *err) MUST_USE;
void fleet_sync_release(struct fleet_sync *s);
/* What a sync of all cannot speak for: ERR_CANCELLED names a database that exists and is not being
 * replicated. */
int fleet_sync_left_out(struct fleet *f, struct err *err) MUST_USE;

#endif
