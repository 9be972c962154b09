/* SPDX-License-Identifier: Apache-2.0 */
/* What tree.c, list.c, span.c, file.c and xattr.c share. */
#ifndef ASOF_FS_TREE_I_H
#define ASOF_FS_TREE_I_H

#include "fs/backups.h"
#include "fs/dbs.h"
#include "fs/node.h"
#include "fs/text.h"
#include "fs/tree.h"
#include "fs/views.h"

/* What is open, so that fs_tree_free() closes what the kernel never released. */
struct fs_open {
	struct fs_open *prev, *next;
	void (*close)(struct fs_open *o);
};

struct fs_tree {
	struct archive *archive;
	struct fs_tree_options options;
	int64_t mounted_us;
	struct fs_nodes *nodes;
	struct fs_dbs *dbs;
	struct fs_views *views;
	struct fs_backups *backups;
	struct fs_text *readme;
	pthread_mutex_t open_lock;
	struct fs_open *open; /* under open_lock */
	pthread_mutex_t status_lock;
	struct fs_text *status; /* under status_lock, as is all below */
	int64_t status_mono_us;
	uint64_t status_version;
};

/* A folder's fixed entries. */
struct fs_fixed {
	const char *name;
	enum fs_kind kind;
	int backup_type;
	bool raw;    /* also below .raw/ */
	bool hidden; /* not listed */
};
extern const struct fs_fixed fs_root_entries[];
extern const size_t fs_n_root_entries;

/* The place behind a number, and its node (NULL: an image, which has none). */
int fs_tree_place(struct fs_tree *t, uint64_t ino, struct fs_place *ret, struct fs_node **ret_node,
                  struct err *err) MUST_USE;
uint64_t fs_tree_image_ino(const struct fs_db *db, uint64_t txid, bool raw);
/* The current .asof/status.json, to be given back, and what is left of its second. */
int fs_tree_status(struct fs_tree *t, struct fs_text **ret, double *ret_seconds_left,
                   struct err *err) MUST_USE;

/* ---- marks.c ---- */
typedef int fs_marks_fn(void *ctx, const char *mark, struct err *err);
/* Calls `fn` for each name to be listed, sorted. */
int fs_marks_list(struct fs_tree *t, fs_marks_fn *fn, void *ctx, struct err *err) MUST_USE;
/* Whether any database has the mark. */
int fs_marks_exists(struct fs_tree *t, const char *mark, bool *ret, struct err *err) MUST_USE;
/* NOT_FOUND: this one has not. */
int fs_marks_moment(struct fs_db *db, const char *mark, struct moment *ret,
                    struct err *err) MUST_USE;

void fs_tree_track(struct fs_tree *t, struct fs_open *o);
void fs_tree_untrack(struct fs_tree *t, struct fs_open *o);

/* ---- bounds of listings: see README.md ---- */

#define FS_LIST_MAX 100u
#define FS_LIST_DAYS_MAX 400u
#define FS_LIST_BACKUPS_MAX 2000u
#define FS_WALK_AT 40000u
#define FS_WALK_TX 40000u
#define FS_WALK_HISTORY 70000u
#define FS_WALK_MARKS 4000u

/* How many of a budget each of `n` gets, one at least. */
static inline size_t fs_share(size_t budget, size_t n)
{
	size_t share = n ? budget / n : budget;
	return share ? share : 1;
}

struct fs_times {
	int64_t *v;
	size_t n;
};

/* Length of what a node of this kind spans; 0: it spans no time. */
int64_t fs_span_us(enum fs_kind kind);
/* Whether a commit lies in [from_us, from_us + length_us). */
int fs_span_holds(struct fs_db *db, int64_t from_us, int64_t length_us, bool *ret,
                  struct err *err) MUST_USE;
/* The beginnings of the days, hours or minutes to be listed in a node of kind FS_DAYS, FS_DAY
 * or FS_HOUR; free(ret->v). */
int fs_span_list(struct fs_tree *t, struct fs_node *node, struct fs_times *ret,
                 struct err *err) MUST_USE;
/* How many entries the listing of an FS_MINUTE may have. */
int fs_span_max_commits(struct fs_tree *t, struct fs_node *node, size_t *ret,
                        struct err *err) MUST_USE;

#endif
