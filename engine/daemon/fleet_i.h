/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of fleet*.c share.  Not for others. */
#ifndef ASOF_DAEMON_FLEET_I_H
#define ASOF_DAEMON_FLEET_I_H

#include "engine/config/retention.h"
#include "engine/daemon/fleet.h"

#include <pthread.h>
#include <sys/types.h>

enum origin { BY_NAME, BY_FOLDER, BY_HAND };

/* What a member is to be; texts are its own. */
struct wanted {
	char *path, *archive, *name;
	bool strict, enable_wal;
	uint64_t wal_cap_bytes;
};

struct member {
	struct member *next;
	uint64_t id;
	enum origin origin;
	bool wanted, seen, dropped;
	struct wanted want, is;
	const struct config_database *config; /* NULL: by hand */
	struct retain_policy policy;
	struct database *database;
	int64_t gone_us;  /* monotonic: not in its folder since; 0: it is */
	int64_t retry_us; /* monotonic: not started before */
	bool pause;
	dev_t dev; /* of the file that it replicates, while it does */
	ino_t ino;
};

struct fleet {
	struct pools *pools;
	const struct config *config; /* changed under the lock; the main thread reads it without */
	int inotify_fd;
	void (*news)(void *ctx, const char *archive, const char *name);
	void *news_ctx;
	_Atomic bool look_now; /* any thread */
	bool stopping, let_go; /* a file was; another member may wait for it under another name */
	int64_t looked_us, space_us;
	int64_t short_us; /* monotonic: an archive has been short of space since; 0: none */
	struct err result;

	pthread_mutex_t lock;   /* members */
	struct member *members; /* by name */
	size_t n_members;
	uint64_t next_id;
};

/* The functions below are called under the lock. */

struct member *fleet_find_path(struct fleet *f, const char *path);
/* Makes a member for what is wanted, or gives the one that there is new wishes. */
int fleet_want(struct fleet *f, enum origin origin, const struct wanted *w,
               const struct config_database *config, struct err *err) MUST_USE;
/* Of a path, behind its last slash. */
const char *fleet_last_part(const char *path);

#endif
