/* SPDX-License-Identifier: Apache-2.0 */
/* The part of asof cleanup that is about the continuous history. */
#ifndef ASOF_TOOLS_CLEANUP_HISTORY_H
#define ASOF_TOOLS_CLEANUP_HISTORY_H

#include "engine/retain/retain.h"
#include "tools/cli.h"

#include <stdatomic.h>
#include <stdio.h>

/* What was said on the command line; NULL: as configured, else the default. */
struct history_cleanup {
	bool off;         /* --no-history */
	const char *dest; /* not NULL: at this destination, and nothing here */
	const char *db, *tiers, *keep, *max_bytes, *min_free, *grace;
};

/* Ids from `first` on. */
enum {
	CLEANUP_NO_HISTORY = OPT_FIRST_OWN + 100,
	CLEANUP_DB,
	CLEANUP_TIERS,
	CLEANUP_KEEP,
	CLEANUP_MAX_BYTES,
	CLEANUP_MIN_FREE,
	CLEANUP_GRACE,
	CLEANUP_DEST,
};
#define CLEANUP_HISTORY_OPTIONS                                                                    \
	{CLEANUP_TIERS, "tiers", "TIERS",                                                          \
	 "of the history keep all:3d,1h:30d,1d:365d (EVERY:AGE)"},                                 \
	        {CLEANUP_KEEP, "keep", "AGE", "of the history keep every commit of that time"},    \
	        {CLEANUP_MAX_BYTES, "max-bytes", "SIZE", "no more than that for one history"},     \
	        {CLEANUP_MIN_FREE, "min-free", "SIZE", "leave that much of the disk to others"},   \
	        {CLEANUP_GRACE, "grace", "TIME", "delete what waited that long (default 24h)"},    \
	        {CLEANUP_DB, "db", "DB", "only the history of this database"},                     \
	        {CLEANUP_DEST, "dest", "NAME",                                                     \
	         "the history at that destination, a name or a URL"},                              \
	{                                                                                          \
		CLEANUP_NO_HISTORY, "no-history", NULL, "leave the history as it is"               \
	}

/* Takes an option of these; false: it is another's. */
bool cleanup_history_take(const struct cli *c, int id, struct history_cleanup *q);
/* Does it, or says what would be done; *ret_json gets an object.  Prints unless `json`. */
int cleanup_history_run(struct cli *c, const char *root, const struct history_cleanup *q,
                        bool dry_run, bool json, const _Atomic bool *stop, json_t **ret_json,
                        struct err *err) MUST_USE;
/* The same at q->dest, by who sends there (cleanup_there.c). */
int cleanup_there_run(struct cli *c, const char *root, const struct history_cleanup *q,
                      bool dry_run, bool json, const _Atomic bool *stop, json_t **ret_json,
                      struct err *err) MUST_USE;

/* ---- what the two share ---- */

/* What was said changes the policy. */
int cleanup_history_words(const struct cli *c, const struct history_cleanup *q,
                          struct retain_policy *p, struct err *err) MUST_USE;
bool cleanup_history_is_db(const struct history_cleanup *q, const char *name);
struct history_pass {
	bool dry_run, json;
	const _Atomic bool *stop;
	json_t *all; /* of each database what was done */
	int (*run)(void *ctx, const struct history_pass *p, const struct retain_policy *policy,
	           FILE *log, struct retain_result *ret, struct err *err);
	void *ctx;
};
/* One pass, and what is said of it. */
int cleanup_history_pass(const struct history_pass *p, const char *db,
                         const struct retain_policy *policy, struct err *err) MUST_USE;
/* Of a history that lies below the directory `root`. */
int cleanup_history_here(const struct history_pass *p, const char *root, const char *db,
                         const struct retain_policy *policy, struct err *err) MUST_USE;

#endif
