/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An object on its way into a folder: written under a temporary name, then fsynced and
 * renamed as a whole.  Freed before that, it leaves nothing.
 */
#ifndef ASOF_ARCHIVE_OBJECT_FILE_H
#define ASOF_ARCHIVE_OBJECT_FILE_H

#include "engine/base/err.h"

#include <stddef.h>
#include <stdint.h>

struct object_file {
	int dir_fd; /* borrowed */
	int fd;     /* -1: not open */
	char tmp[64];
};

int object_file_open(struct object_file *f, int dir_fd, const char *tmp, struct err *err) MUST_USE;
/* A pack_sink_fn. */
int object_file_write(void *ctx, const void *p, size_t len, uint64_t offset, struct err *err);
int object_file_finish(struct object_file *f, const char *name, struct err *err) MUST_USE;
void object_file_release(struct object_file *f);

#endif
