/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/archive/object_file.h"

#include "engine/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

int object_file_open(struct object_file *f, int dir_fd, const char *tmp, struct err *err)
{
	f->dir_fd = dir_fd;
	f->fd = -1;
	snprintf(f->tmp, sizeof(f->tmp), "%s", tmp);
	return file_open(dir_fd, tmp, O_RDWR | O_CREAT | O_TRUNC, 0600, &f->fd, err);
}

int object_file_write(void *ctx, const void *p, size_t len, uint64_t offset, struct err *err)
{
	struct object_file *f = ctx;
	return file_pwrite(f->fd, p, len, offset, f->tmp, err);
}

int object_file_finish(struct object_file *f, const char *name, struct err *err)
{
	int rc = file_datasync(f->fd, f->tmp, err);
	if (rc < 0)
		return rc;
	if (renameat(f->dir_fd, f->tmp, f->dir_fd, name) < 0)
		return err_set(err, ERR_IO, errno, "rename '%s' to '%s'", f->tmp, name);
	close(f->fd);
	f->fd = -1;
	return file_sync_dir(f->dir_fd, name, err);
}

void object_file_release(struct object_file *f)
{
	if (f->fd < 0)
		return;
	close(f->fd);
	unlinkat(f->dir_fd, f->tmp, 0);
	f->fd = -1;
}
