/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tree as FUSE callbacks: decode, ask the tree, reply.  No policy but who owns the files
 * and what is logged.
 */
#ifndef ASOF_FS_OPS_H
#define ASOF_FS_OPS_H

#include "fs/tree.h"

#ifndef FUSE_USE_VERSION
#define FUSE_USE_VERSION 312
#endif
#include <fuse_lowlevel.h>

#include <pthread.h>

#define FS_SPARE_BUFFERS 16

struct fs_ops {
	struct fs_tree *tree;
	uid_t uid;
	gid_t gid;
	mode_t file_mode, dir_mode; /* permission bits */
	const char *mountpoint;

	/* Buffers for replies to reads: too large for malloc() to keep by itself. */
	pthread_mutex_t lock;
	void *spare[FS_SPARE_BUFFERS]; /* under lock, as is all below */
	size_t n_spare, spare_bytes;
	uint64_t logged_hash; /* of the last line, not repeated for a while */
	int64_t logged_mono_us;
};

void fs_ops_init(struct fs_ops *ops, struct fs_tree *tree);
void fs_ops_release(struct fs_ops *ops);

/* The callbacks; the session's userdata is a struct fs_ops. */
extern const struct fuse_lowlevel_ops fs_callbacks;

#endif
