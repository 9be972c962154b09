/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inode numbers and what stands behind them.
 *
 * An image (a database as of a commit) has a number that is computed from (database, txid)
 * and read back from it: the same wherever the image appears and after every remount, so the
 * kernel keeps one page cache for it, and nothing is stored.
 *
 *     63      62    61 ............ 30  29 ........... 0
 *     1       raw   history id          txid
 *
 * Everything else is a node in a table, under a number hashed from its parent's number, its
 * name, and a version.  Folders never share a number (the kernel would move one onto the
 * other), and content that changes gets a new version, hence a new number: what a number
 * stands for never changes.  Images that do not fit the layout above (a txid past a thousand
 * million, an id that two databases share) are nodes as well, under a hash of what they are.
 *
 * The kernel counts its look-ups of each number and gives them back by forgetting.  A pointer
 * to a node is good while the caller, or the kernel on its behalf, holds one look-up.
 * All functions may be called from any thread.
 */
#ifndef ASOF_FS_NODE_H
#define ASOF_FS_NODE_H

#include "engine/base/err.h"
#include "fs/name.h"

#include <stdatomic.h>
#include <stdint.h>

#define FS_ROOT_INO 1

struct fs_db;
struct fs_text;

enum fs_kind {
	FS_ROOT,
	FS_TEXT,        /* README, .asof/status.json */
	FS_LATEST,      /* latest/ */
	FS_AT,          /* at/ */
	FS_MOMENT,      /* at/TIME/ */
	FS_TX,          /* tx/ */
	FS_TX_DB,       /* tx/NAME/ */
	FS_HISTORY,     /* history/ */
	FS_DAYS,        /* history/NAME/ */
	FS_DAY,         /* history/NAME/2024-01-15/ */
	FS_HOUR,        /* …/10/ */
	FS_MINUTE,      /* …/10/30/ */
	FS_MARKS,       /* marks/ */
	FS_MARK,        /* marks/MARK/ */
	FS_BACKUPS,     /* manual/ … */
	FS_BACKUP_DAY,  /* manual/2024-01-15/ */
	FS_BACKUP_FILE, /* manual/2024-01-15/x_20240115_143000.db */
	FS_RAW,         /* .raw/ */
	FS_META,        /* .asof/ */
	FS_IMAGE,       /* a database file */
};

/* What a number stands for.  Plain data, copied around; never changes for one number. */
struct fs_place {
	enum fs_kind kind;
	bool raw;         /* below .raw/: exact bytes */
	bool relative;    /* FS_MOMENT: from a TIME that depends on now */
	int backup_type;  /* FS_BACKUPS and below: index of the folder */
	bool gz;          /* FS_BACKUP_FILE: compressed on disk */
	struct fs_db *db; /* where there is one */
	int64_t time_us;  /* FS_MOMENT: the time; FS_DAY … FS_MINUTE, FS_BACKUP_DAY: beginning;
	                      FS_TEXT, FS_BACKUP_FILE: modification time */
	uint64_t txid;    /* FS_IMAGE */
	uint64_t size;    /* FS_BACKUP_FILE */
	struct fs_text *text; /* FS_TEXT; a reference is held by the node */
};

struct fs_node {
	uint64_t ino;
	struct fs_place place;
	struct fs_node *parent; /* NULL at the root */
	uint64_t version;
	/* FS_DAY, FS_HOUR: how many children there are, once that cannot change; 0: not known.
	 * A cache: any thread may fill it in. */
	_Atomic uint32_t n_children_settled;
	/* under the table's lock */
	uint64_t n_lookups;
	uint64_t n_below; /* nodes whose parent this is */
	struct fs_node *next;
	char name[];
};

struct fs_nodes;

int fs_nodes_new(const struct fs_place *root, struct fs_nodes **ret, struct err *err) MUST_USE;
void fs_nodes_free(struct fs_nodes *t);

/* The node `name` below `parent`, made if it is not there, with one look-up more. */
int fs_nodes_enter(struct fs_nodes *t, struct fs_node *parent, const char *name, uint64_t version,
                   const struct fs_place *place, struct fs_node **ret, struct err *err) MUST_USE;
/* The number that fs_nodes_enter() would give (collisions aside). */
uint64_t fs_nodes_ino(uint64_t parent_ino, const char *name, uint64_t version);
/* NULL: no such node. */
struct fs_node *fs_nodes_find(struct fs_nodes *t, uint64_t ino);
/* Gives back `n` look-ups; images and unknown numbers are ignored. */
void fs_nodes_forget(struct fs_nodes *t, uint64_t ino, uint64_t n);
size_t fs_nodes_count(struct fs_nodes *t);

/* 0: does not fit; an id of 0 never does. */
uint64_t fs_image_ino(uint32_t history_id, uint64_t txid, bool raw);
bool fs_image_decode(uint64_t ino, uint32_t *ret_history_id, uint64_t *ret_txid, bool *ret_raw);

#endif
