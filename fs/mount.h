/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An archive mounted: the session from options to last close.
 *
 * fs_mount_main() is the whole of `asof mount`, and of the helper form that mount(8) and
 * fstab use (`asof ARCHIVE DIR -o WORDS`).  Call it before any thread is started.
 *
 * In the background (the default) it returns in the calling process as soon as the mount
 * answers, or with the error that kept it from that; a detached process goes on.  In the
 * foreground it returns when the mount has ended.
 *
 * SIGTERM, SIGINT and SIGHUP detach the mount: new look-ups fail, open files go on until
 * closed, at most ten seconds.  That, and an unmount from outside, is success.
 * Under a service manager with NOTIFY_SOCKET, READY=1 is sent.
 *
 * Errors: USAGE (options; a mount point that overlaps the archive, or lies on or in a mount
 * of asof), NOT_FOUND (no such directory), IO (also a stale mount there: the message says what to
 * run), and what opening the archive gives.
 */
#ifndef ASOF_FS_MOUNT_H
#define ASOF_FS_MOUNT_H

#include "engine/base/err.h"
#include "engine/store/store.h"

struct fs_mount_options {
	const char *archive;    /* a directory */
	const char *mountpoint; /* an existing directory */
	const char *words;      /* of -o, joined by commas; may be NULL: fs/options.h */
	bool foreground;
	bool from_fstab; /* mount(8) asks: what is mounted there from there already is success */
	/* What the configuration says of the archive's store; NULL: nothing. */
	const struct store_options *store;
	/* Places that stand in for the archive (view/history.h), behind those of the words; one that
	 * does not open is told of, where one of the words is an error. */
	const struct fs_mount_place {
		const char *url;
		struct store_options options;
	} * also;
	size_t n_also;
};

int fs_mount_main(const struct fs_mount_options *options, struct err *err) MUST_USE;

/* `asof umount`: unmounts, lazily if it is in use and `lazy`. */
int fs_umount(const char *mountpoint, bool lazy, struct err *err) MUST_USE;

#endif
