/* SPDX-License-Identifier: Apache-2.0 */
/* What asof status adds where a daemon runs, or ran: its states, and how the runs by the clock ended. */
#ifndef ASOF_TOOLS_STATUS_DAEMON_H
#define ASOF_TOOLS_STATUS_DAEMON_H

#include "engine/monitor/journal.h"
#include "tools/cli.h"

struct status_daemon {
	json_t *answer;           /* of the daemon; NULL: none was found */
	struct journal_list runs; /* the newest of the archive, oldest first */
};

/* Never fails: what cannot be had is left out. */
void status_daemon_get(const struct cli *c, const char *root, struct status_daemon *ret);
void status_daemon_release(struct status_daemon *d);

/* What the daemon says of a database of this archive; NULL: nothing. */
const json_t *status_daemon_row(const struct status_daemon *d, const char *root, const char *name);
/* Adds "state" and "reason" (null: no daemon replicates it). */
void status_daemon_row_json(const struct status_daemon *d, const char *root, const char *name,
                            json_t *database);
/* What the daemon was told to replicate into this archive and is in none of its `n` histories yet:
 * it waits for the file, for WAL mode, or fails.  Printed, and how many; or as JSON. */
size_t status_pending_print(const struct status_daemon *d, const char *root, char *const *names,
                            size_t n);
json_t *status_pending_json(const struct status_daemon *d, const char *root, char *const *names,
                            size_t n);
/* "daemon" and "runs" of the whole answer. */
json_t *status_daemon_json(const struct status_daemon *d);
json_t *status_runs_json(const struct status_daemon *d);
/* The last run of each job of a database ("": of all). */
void status_runs_print(const struct status_daemon *d, const char *name, int64_t now_us);

#define cleanup_status_daemon CLEANUP(status_daemon_release)

#endif
