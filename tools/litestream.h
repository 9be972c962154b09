/* SPDX-License-Identifier: Apache-2.0 */
/*
 * asof under the name `litestream`: the commands and options of Litestream 0.3, for those who
 * type them, or have scripts that do.  What they do is asof's: litestream.c finds out what is
 * meant and hands over to a command of tools/cli.h, litestream_tables.c prints the lists.
 *
 * Words of there and here:
 *
 *   generation   a lineage, as 16 hexadecimal digits
 *   index        a txid, in hexadecimal: of a snapshot its own, of a WAL object the last within
 *   replica      the archive of a database is `file`, its destinations have their own names
 *
 * Differences: a TIME is whatever asof reads, without a zone it is UTC, and `latest` is the
 * newest state; a database is found by its name where the paths in the configuration are those
 * of a container; `validate` is there, and -config is taken before the command, too; the
 * configuration falls back to asof's own.
 */
#ifndef ASOF_TOOLS_LITESTREAM_H
#define ASOF_TOOLS_LITESTREAM_H

#include "engine/base/err.h"
#include "engine/config/config.h"
#include "engine/view/history.h"

#include <stdbool.h>
#include <stddef.h>

/* Whether a program started as `argv0` is meant by that name. */
bool litestream_is_name(const char *argv0);
/* Runs one call; 0 or -kind with a message. */
int litestream_run(int argc, char **argv, struct err *err) MUST_USE;

/* ---- what its two files share ---- */

/* One call, its words taken apart.  Options that were not given are NULL or false. */
struct litestream {
	const char *command;
	const char *config_path, *exec, *replica, *generation, *index, *timestamp, *out,
	        *parallelism;
	bool no_expand_env, if_db_not_exists, if_replica_exists, verbose;
	char **args;
	int n_args;
};

/* A place in which a database's history lies. */
struct litestream_replica {
	const char *name; /* `file`, or that of a destination */
	char *archive;
};

/* What DB_PATH or REPLICA_URL means. */
struct litestream_target {
	struct config *config; /* NULL for a URL */
	char *db_path;         /* as configured; NULL for a URL */
	char *name;            /* in the archive; a URL gives its last part */
	struct litestream_replica *replicas;
	size_t n_replicas;
};
void litestream_target_release(struct litestream_target *t);
#define cleanup_litestream_target CLEANUP(litestream_target_release)

/* NOT_FOUND: the configuration has no such database, or -replica names none of its replicas. */
int litestream_find(const struct litestream *l, const char *arg, struct litestream_target *ret,
                    struct err *err) MUST_USE;
/* -config, $LITESTREAM_CONFIG, /etc/litestream.yml, asof's own; NULL: there is none. */
const char *litestream_config_path(const struct litestream *l);
int litestream_no_config(const struct litestream *l, struct err *err);
/* Errors go to standard error, by line; so do warnings, if they are wanted or there are errors. */
int litestream_load_config(const struct litestream *l, bool warn, struct config **ret,
                           struct err *err) MUST_USE;
bool litestream_is_url(const char *text);
/* The archive that a replica's URL or path stands for (see config.h), and what comes behind it
 * (NULL: nothing, or not wanted), in `out`; false: it does not fit. */
bool litestream_archive_of_url(const char *url, char *out, size_t out_bytes, const char **ret_rest);
/* NOT_FOUND: there is no archive yet, or nothing of this database in it. */
int litestream_open(const struct litestream_target *t, const struct litestream_replica *r,
                    struct archive **ret, struct history **ret_history, struct err *err) MUST_USE;
/* The lineage that a generation names. */
int litestream_generation(const struct litestream *l, uint32_t *ret, struct err *err) MUST_USE;

/* The newest commit that lies within all three bounds; NOT_FOUND: none does.  0 bounds nothing
 * for `lineage`, which is otherwise the only one. */
struct litestream_bounds {
	uint32_t lineage;
	uint64_t max_txid;
	int64_t max_us;
};
int litestream_newest(struct history *h, const struct litestream_bounds *b, struct moment *ret,
                      struct err *err) MUST_USE;

int litestream_databases(const struct litestream *l, struct err *err) MUST_USE;
int litestream_generations(const struct litestream *l, struct err *err) MUST_USE;
int litestream_snapshots(const struct litestream *l, struct err *err) MUST_USE;
int litestream_wal(const struct litestream *l, struct err *err) MUST_USE;

#endif
