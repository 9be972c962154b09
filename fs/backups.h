/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The folders of named backups in an archive (manual/ automated/ safety/ compressed/), by day
 * and uncompressed: ARCHIVE/manual/x_20240115_143000.db.gz shows as
 * manual/2024-01-15/x_20240115_143000.db.  The day is that of the name, else of the file's
 * modification time (UTC).  Of x.db and x.db.gz the first is shown.
 *
 * Three kinds of content: plain files; gzip files of asof, read block by block through their
 * index; gzip files of others, inflated whole at the first read (fs/gunzip.h).  Of a database
 * in WAL mode bytes 18 and 19 read 1, as everywhere in the mount.
 * All functions may be called from any thread.
 */
#ifndef ASOF_FS_BACKUPS_H
#define ASOF_FS_BACKUPS_H

#include "engine/base/cleanup.h"
#include "engine/base/err.h"
#include "fs/name.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define FS_N_BACKUP_TYPES 4
extern const char *const fs_backup_types[FS_N_BACKUP_TYPES];

struct fs_backups;
struct fs_backup_file;

int fs_backups_new(const char *archive_root, struct fs_backups **ret, struct err *err) MUST_USE;
void fs_backups_free(struct fs_backups *b);

struct fs_backup {
	int64_t day_us;
	bool gz;
	char *shown; /* name in the mount */
};

/* What one folder holds, sorted by day and name; looked at anew at most once a second. */
struct fs_backup_set {
	_Atomic unsigned n_refs;
	int64_t made_mono_us;
	size_t n;
	struct fs_backup rows[];
};
int fs_backups_list(struct fs_backups *b, int type, struct fs_backup_set **ret,
                    struct err *err) MUST_USE;
void fs_backup_set_unref(struct fs_backup_set *set);
/* The rows of one day are [*ret_from, *ret_to). */
void fs_backup_set_day(const struct fs_backup_set *set, int64_t day_us, size_t *ret_from,
                       size_t *ret_to);

struct fs_backup_stat {
	uint64_t size; /* of the database; looked for only if asked, it may take a while */
	int64_t mtime_us;
	uint64_t version; /* another file of the same name has another version */
};
int fs_backups_stat(struct fs_backups *b, int type, const char *shown, bool gz, bool want_size,
                    struct fs_backup_stat *ret, struct err *err) MUST_USE;

/* `version` and `size` are those that the stat gave; a file that has changed since is
 * NOT_FOUND. */
int fs_backups_open(struct fs_backups *b, int type, const char *shown, bool gz, uint64_t version,
                    uint64_t size, struct fs_backup_file **ret, struct err *err) MUST_USE;
/* All of [offset, offset + len) up to the end, or an error. */
int fs_backup_read(struct fs_backup_file *f, uint64_t offset, void *buf, size_t len,
                   size_t *ret_len, struct err *err) MUST_USE;
void fs_backups_close(struct fs_backups *b, struct fs_backup_file *f);

DEFINE_CLEANUP(struct fs_backup_set, fs_backup_set_unref);
#define cleanup_backup_set CLEANUP(fs_backup_set_unref_p)

#endif
