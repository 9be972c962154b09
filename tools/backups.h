/* SPDX-License-Identifier: Apache-2.0 */
/* What the commands about backups share: where they lie, and how they are shown.  The JSON has the
 * keys of the dictionaries of the old Python API (list_backups() and its neighbours). */
#ifndef ASOF_TOOLS_BACKUPS_H
#define ASOF_TOOLS_BACKUPS_H

#include "engine/backup/backup.h"
#include "tools/cli.h"

/* The folder that backups go to and lie in: `given`, else $ASOF_ARCHIVE, else the configuration's
 * backup-dir, else its archive. */
int backups_root(struct cli *c, const char *given, const char **ret, struct err *err) MUST_USE;

/* How backups are made, as configured; what is not configured stays as it is in *options. */
int backups_configured_options(struct cli *c, struct backup_options *options,
                               struct err *err) MUST_USE;
/* How long they are kept: as configured, else by LOCAL_RETENTION_DAYS and
 * COMPRESSED_RETENTION_DAYS of the environment (empty: not set), else the defaults. */
int backups_configured_retention(struct cli *c, struct backup_retention *ret,
                                 struct err *err) MUST_USE;

/* One decimal, in steps of 1024: "1.5 MB", as the old API. */
void backups_size_human(uint64_t bytes, char out[SIZE_STR_MAX]);
/* {filename, path, size_bytes, size_human, created_at, age_hours, compressed, …}; null for NULL. */
json_t *backups_entry_json(const struct backup_entry *e, int64_t now_us);
/* {manual: [entry], …}, or one key where `only` is a type (-1: all). */
json_t *backups_list_json(const struct backup_list *list, int only, int64_t now_us);
/* A table of them; prints nothing when there are none. */
int backups_print(const struct backup_list *list, int only, int64_t now_us,
                  struct err *err) MUST_USE;

/* Where backups of `root` go besides, as of the last time that something was sent there (backup/send.h):
 * an array for --json; lines for people, none where they go nowhere. */
json_t *backups_sent_json(const char *root);
void backups_sent_print(const char *root, int64_t now_us);

#endif
