/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The words of `-o`: comma-separated, "\," is a comma within a word.
 *
 *   allow_other            others may look, as far as uid=, gid=, fmode= and dmode= let them
 *   uid=N gid=N            owner of all files (default: the mounter)
 *   fmode=0400 dmode=0500  permission bits, octal; never those to write
 *   tz=UTC|local|Area/City zone of a TIME that names none
 *   list=all               listings are not bounded
 *   cache_size=N[K|M|G]    memory for decoded blocks
 *   cache=DIR              where stretches of a far archive are kept (store/kept.h); "cache=": nowhere
 *   cache_disk=N[K|M|G]    how much of it
 *   also=ARCHIVE           another that has the same: in its place where it is damaged; may be repeated
 *   log=FILE               where a mount in the background logs (default: the system's log)
 *
 * What mount(8) and fstab say of every filesystem is taken and ignored: a mount is always
 * ro,nosuid,nodev,noexec,default_permissions.  Anything else is ERR_USAGE.
 */
#ifndef ASOF_FS_OPTIONS_H
#define ASOF_FS_OPTIONS_H

#include "engine/base/clock.h"
#include "engine/base/err.h"

#include <limits.h>
#include <stddef.h>
#include <sys/types.h>

#define FS_ALSO_MAX 7
#define FS_ALSO_SIZE 1024

struct fs_options {
	bool allow_other;
	uid_t uid;
	gid_t gid;
	mode_t file_mode, dir_mode;
	enum time_zone zone;
	char zone_name[64]; /* Area/City; else empty */
	bool list_all;
	size_t cache_bytes;      /* 0: the engine's default */
	char keep_dir[PATH_MAX]; /* empty: nothing is kept */
	uint64_t keep_bytes;
	char log_path[PATH_MAX];
	char also[FS_ALSO_MAX][FS_ALSO_SIZE];
	size_t n_also;
};

/* `words` may be NULL. */
int fs_options_parse(const char *words, struct fs_options *ret, struct err *err) MUST_USE;

#endif
