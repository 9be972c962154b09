/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where backups go besides their folder, by the configuration: to each destination of their database
 * (unless its `backups` is false), and to the bucket of BACKUP_S3_BUCKET those of all databases that
 * have no destination in that bucket.  Places are told apart by their URL; backup/send.h does the
 * work.
 */
#ifndef ASOF_DAEMON_SENDING_H
#define ASOF_DAEMON_SENDING_H

#include "engine/backup/send.h"
#include "engine/config/config.h"

#define SENDING_PLACES_MAX 64

struct sending_place {
	const struct config_destination *destination; /* the first of that URL */
	const struct config_database *database;       /* that it is of; NULL: the default bucket */
	size_t n_databases;                           /* that have it; the default bucket: 0 */
};
/* All of them, by the order of the configuration; those past the bound are left out. */
size_t sending_places(const struct config *c, struct sending_place ret[SENDING_PLACES_MAX]);
/* Whether backups go to the default bucket, or would if it were configured whole: one is named, and some
 * database has no destination in it. */
bool sending_wants_bucket(const struct config *c);
/* Whether backups of the database at `db_path` go there. */
bool sending_takes(const struct config *c, const struct sending_place *p, const char *db_path);
/* The same where its entry of the configuration is known; NULL: it has none. */
bool sending_takes_entry(const struct config *c, const struct sending_place *p,
                         const struct config_database *d);

struct sending_options {
	const char
	        *root; /* the archive that the backups lie in; NULL: those of the configuration */
	bool look;     /* at the store, whatever is known of it */
	int64_t grace_us;    /* of what the rules of the place do not keep; 0: the default */
	int64_t patience_ms; /* 0: the default of stores */
	bool (*progress)(void *ctx, uint64_t done_bytes, uint64_t total_bytes);
	void *ctx;
};
/* Sends what is lacking there.  *ret: of the last archive, if there are several. */
int sending_run(const struct config *c, const struct sending_place *p,
                const struct sending_options *options, struct backup_sent *ret,
                struct err *err) MUST_USE;
/* Keeps, of a plan of what goes in `root`, what some place has not got yet. */
int sending_hold(const struct config *c, const char *root, struct backup_plan *plan,
                 struct err *err) MUST_USE;
/* The archives of backups that go there, each once; how many. */
size_t sending_roots(const struct config *c, const struct sending_place *p,
                     const char *ret[SENDING_PLACES_MAX]);

#endif
