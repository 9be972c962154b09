/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tree of files that an archive is shown as: what a name means, what a file holds, what a
 * folder lists.  Knows nothing of FUSE and runs unmounted.
 *
 *   README   latest/NAME   at/TIME/NAME   tx/NAME/TXID   history/NAME/DAY/HOUR/MINUTE/COMMIT
 *   marks/MARK/NAME   manual/DAY/FILE (automated/ safety/ compressed/)   .raw/…   .asof/status.json
 *
 * Names move, numbers do not: content and attributes of an inode number are constant (but for
 * folders), and what changes is which number a name leads to.  How long that may be believed
 * comes with each answer.
 *
 * All functions may be called from any thread.  Errors: NOT_FOUND and GAP for names that lead
 * nowhere, DAMAGED, VERSION, IO, NOMEM as the archive gives them.
 */
#ifndef ASOF_FS_TREE_H
#define ASOF_FS_TREE_H

#include "engine/base/clock.h"
#include "engine/view/history.h"
#include "fs/name.h"
#include "fs/node.h"

#define FS_FOREVER_S 86400.0
/* Seconds for which a moving name's answer may be believed. */
#define FS_MOVING_S 1.0

struct fs_tree;
struct fs_file;
struct fs_dir;

struct fs_tree_options {
	enum time_zone zone;   /* of a TIME that names none */
	bool list_all;         /* listings are not bounded */
	size_t max_idle_views; /* 0: the default, 64 */
};

/* Loads what is needed to answer at once.  The archive stays the caller's. */
int fs_tree_new(struct archive *a, const struct fs_tree_options *options, struct fs_tree **ret,
                struct err *err) MUST_USE;
/* Closes what is still open: at an unmount the kernel need not release it. */
void fs_tree_free(struct fs_tree *t);

struct fs_entry {
	uint64_t ino; /* 0: there is no such name, and will not be */
	bool is_dir;
	uint64_t size;
	int64_t mtime_us;
	double entry_timeout_s, attr_timeout_s;
};

/* To be called now and then, of an archive in a directory: lets go of what nobody has read for
 * `idle_us`, and of what has been deleted, whose space is not free while it is open. */
void fs_tree_tidy(struct fs_tree *t, int64_t idle_us);

/* Takes one look-up of the entry's number, to be given back by fs_tree_forget(). */
int fs_tree_lookup(struct fs_tree *t, uint64_t parent, const char *name, struct fs_entry *ret,
                   struct err *err) MUST_USE;
void fs_tree_forget(struct fs_tree *t, uint64_t ino, uint64_t n_lookups);
int fs_tree_getattr(struct fs_tree *t, uint64_t ino, struct fs_entry *ret,
                    struct err *err) MUST_USE;

/* ---- files ---- */

int fs_file_open(struct fs_tree *t, uint64_t ino, struct fs_file **ret, struct err *err) MUST_USE;
/* All of [offset, offset + len) up to the end of the file, or an error. */
int fs_file_read(struct fs_file *f, uint64_t offset, void *buf, size_t len, size_t *ret_len,
                 struct err *err) MUST_USE;
void fs_file_close(struct fs_file *f);

/* ---- folders ---- */

struct fs_dirent {
	char name[FS_NAME_MAX];
	uint64_t ino;
	bool is_dir;
	uint64_t cookie; /* where the next one is; never 0 */
};

int fs_dir_open(struct fs_tree *t, uint64_t ino, struct fs_dir **ret, struct err *err) MUST_USE;
/* The entry at `cookie` (0: from the start, looked at anew); an empty name: no more. */
int fs_dir_next(struct fs_dir *d, uint64_t cookie, struct fs_dirent *ret, struct err *err) MUST_USE;
void fs_dir_close(struct fs_dir *d);

/* ---- extended attributes ---- */

#define FS_XATTR_VALUE_MAX 64
/* user.asof.NAME of a file or folder; NOT_FOUND: it has none such. */
int fs_tree_xattr(struct fs_tree *t, uint64_t ino, const char *name, char value[FS_XATTR_VALUE_MAX],
                  struct err *err) MUST_USE;
/* The `i`-th name there can be; NULL past the last. */
const char *fs_tree_xattr_name(size_t i);

/* For tests: numbers in the table, views open. */
size_t fs_tree_count_nodes(struct fs_tree *t);
size_t fs_tree_count_views(struct fs_tree *t);

#endif
