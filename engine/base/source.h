/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the bytes of one immutable (or growing) object come from: a file, a bucket, a
 * buffer in a test, a fault injector.  pread() gives exactly `len` bytes or an error;
 * bytes past the end are ERR_DAMAGED.  Callable from many threads at once.
 *
 * Bytes that are checked against a hash are read by source_read_checked(): what is not there or
 * not what it should be is then asked for where else it may be.
 */
#ifndef ASOF_BASE_SOURCE_H
#define ASOF_BASE_SOURCE_H

#include "engine/base/err.h"

#include <stddef.h>
#include <stdint.h>

/* What of it will be read soon. */
enum source_use {
	SOURCE_IN_ORDER, /* all of it, once, from its beginning on */
	SOURCE_ALL_OVER, /* all of it, here and there */
	SOURCE_END,      /* its end, where the index is, by whoever opens it next */
};

struct source {
	int (*pread)(struct source *s, void *buf, size_t len, uint64_t offset, struct err *err);
	int (*size)(struct source *s, uint64_t *ret_bytes, struct err *err); /* as of now */
	void (*free)(struct source *s);
	char *name; /* for messages: path or URL of the object */
	/*
	 * The same bytes from another place than pread() had them from, where there are some (else
	 * NULL): `attempt` counts from 1; REFUSED: there is no such place any more.  A local copy of
	 * what lies far away is a place, and asking again drops it.
	 */
	int (*pread_again)(struct source *s, unsigned attempt, void *buf, size_t len,
	                   uint64_t offset, struct err *err);
	/* Hints, or NULL where nothing is gained by them. */
	void (*expect)(struct source *s, enum source_use use);
	void (*expect_bytes)(struct source *s, uint64_t offset, size_t len);
	bool remote; /* reads cost round trips */
};

/* Whether the bytes are what was written: 0, or why not. */
typedef int source_check_fn(void *ctx, const uint8_t *p, size_t len, struct err *err);
/* pread(), from wherever it takes for `check` to find nothing wrong.  An error is that of the first
 * place. */
int source_read_checked(struct source *s, void *buf, size_t len, uint64_t offset,
                        source_check_fn *check, void *ctx, struct err *err) MUST_USE;

/* A file below `dir_fd`; `label` is what messages call it (NULL: `path`). */
int source_open_file(int dir_fd, const char *path, const char *label, struct source **ret,
                     struct err *err) MUST_USE;
/* Bytes in memory, which stay the caller's and must outlive it. */
int source_open_bytes(const void *p, size_t len, const char *label, struct source **ret,
                      struct err *err) MUST_USE;
/* An open file, which it takes over whatever happens. */
int source_open_fd(int fd, const char *label, struct source **ret, struct err *err) MUST_USE;
/* See expect() above. */
void source_expect(struct source *s, enum source_use use);
/* The same of a stretch that lies elsewhere than what is read just now: an index on the way. */
void source_expect_bytes(struct source *s, uint64_t offset, size_t len);
void source_free(struct source *s);

#include "engine/base/cleanup.h"
DEFINE_CLEANUP(struct source, source_free);
#define cleanup_source CLEANUP(source_free_p)

#endif
