/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the bytes of one immutable (or growing) object come from: a file, a bucket, a
 * buffer in a test, a fault injector.  pread() gives exactly `len` bytes or an error;
 * bytes past the end are ERR_DAMAGED.  Callable from many threads at once.
 */
#ifndef ASOF_BASE_SOURCE_H
#define ASOF_BASE_SOURCE_H

#include "engine/base/err.h"

#include <stddef.h>
#include <stdint.h>

struct source {
	int (*pread)(struct source *s, void *buf, size_t len, uint64_t offset, struct err *err);
	int (*size)(struct source *s, uint64_t *ret_bytes, struct err *err); /* as of now */
	void (*free)(struct source *s);
	char *name; /* for messages: path or URL of the object */
};

/* A file below `dir_fd`; `label` is what messages call it (NULL: `path`). */
int source_open_file(int dir_fd, const char *path, const char *label, struct source **ret,
                     struct err *err) MUST_USE;
void source_free(struct source *s);

#include "engine/base/cleanup.h"
DEFINE_CLEANUP(struct source, source_free);
#define cleanup_source CLEANUP(source_free_p)

#endif
