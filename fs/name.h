/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Path components and what they mean.  Pure: no archive, no clock.
 * A TIME below at/ is read by time_parse() and printed by time_format_name().
 */
#ifndef ASOF_FS_NAME_H
#define ASOF_FS_NAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FS_NAME_MAX 256

#define FS_MINUTE_US INT64_C(60000000)
#define FS_HOUR_US (60 * FS_MINUTE_US)
#define FS_DAY_US (24 * FS_HOUR_US)

/* "x-wal", "x-shm", "x-journal": no database has such a name, so that what SQLite looks for
 * beside a database is known to be missing, today and for ever. */
bool fs_name_is_sidecar(const char *name);

/* "42": decimal, from 1, without leading zeros. */
bool fs_name_parse_txid(const char *name, uint64_t *ret);

/* "2024-01-15", the beginning of that day. */
bool fs_name_parse_day(const char *name, int64_t *ret_us);
void fs_name_format_day(int64_t time_us, char out[FS_NAME_MAX]);

/* Two digits below `limit`. */
bool fs_name_parse_two(const char *name, int limit, int *ret);

/* A commit below history/: "10-30-05.123456Z.txid42.db".  Fixed width up to the txid, so that
 * names sort by time.  Parsing gives the txid only: whoever looks it up formats the name of
 * the commit found and compares. */
void fs_name_format_commit(int64_t time_us, uint64_t txid, char out[FS_NAME_MAX]);
bool fs_name_parse_commit(const char *name, uint64_t *ret_txid);

/* A file in a backup folder: NAME.db or NAME.db.gz.  `shown` gets the name without ".gz". */
bool fs_name_backup(const char *file, char shown[FS_NAME_MAX], bool *ret_gz);
/* The day in the last "_20240115_143000" of a backup's name. */
bool fs_name_backup_day(const char *file, int64_t *ret_us);

/* The `i`-th of `k` evenly chosen among `n`, first and last among them; k <= n. */
static inline size_t fs_even(size_t i, size_t k, size_t n)
{
	return k <= 1 ? n - 1 : (size_t)((unsigned __int128)i * (n - 1) / (k - 1));
}

#endif
