/* SPDX-License-Identifier: Apache-2.0 */
/* Backups on their way to destinations, from the command that made them. */
#ifndef ASOF_TOOLS_BACKUP_SEND_H
#define ASOF_TOOLS_BACKUP_SEND_H

#include "tools/cli.h"

/*
 * Brings the backups in `root` to the destinations of the databases at `paths`, unless a running
 * daemon does that.  *ret is an array for --json, [{destination, url, sent, waiting, error}], NULL
 * where nothing is configured; in text, lines are printed.  An error is that of the first that did not
 * get all; it says that the backups are there.
 */
int backup_send_all(struct cli *c, const char *root, const char *const *paths, size_t n, bool text,
                    json_t **ret, struct err *err) MUST_USE;

#endif
