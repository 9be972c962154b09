/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where asof is mounted.  The mount point is found in /proc/self/mountinfo, never by looking
 * into it: a mount whose server died answers ENOTCONN to everything, and is to be taken down
 * all the same.
 */
#ifndef ASOF_FS_MOUNTED_H
#define ASOF_FS_MOUNTED_H

#include "engine/base/err.h"

#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

/*
 * The absolute path of the mount of asof at `dir`.  NOT_FOUND: nothing is mounted there, or
 * something that is not of asof.
 */
int fs_mounted_path(const char *dir, char ret[PATH_MAX], struct err *err) MUST_USE;

/*
 * Has the kernel read `kib` KiB ahead on the mount of asof at `point`, where we may say so (root may).
 * Its own bound of 128 keeps no more than one thread busy.  The mount point as the kernel has it, for
 * nothing may look at a mount that does not answer yet.
 */
void fs_mounted_read_ahead(const char *point, unsigned kib);

struct fs_mounted {
	char point[PATH_MAX], source[PATH_MAX + 8]; /* "asof:ARCHIVE" */
};

/*
 * Whether the file system with this number (st_dev) is a mount of asof, and where it lies: at
 * `path` or, if it does not, anywhere.
 */
bool fs_mounted_device(dev_t dev, const char *path, struct fs_mounted *ret);

#endif
