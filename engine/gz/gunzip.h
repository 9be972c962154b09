/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gzip files of any program, from the first byte to the last: one member or many, with names,
 * comments, extra fields.  No random access: for packs there is gz/pack.h.
 *
 * Every member's CRC and length are checked (RFC 1952).  What does not inflate, does not match,
 * ends early, or is followed by bytes that begin no member is ERR_DAMAGED, and the message names
 * `path`; only zeros may follow (tapes and block devices pad with them), as with gzip(1).
 *
 * A struct gunzip is for one thread at a time.
 */
#ifndef ASOF_GZ_GUNZIP_H
#define ASOF_GZ_GUNZIP_H

#include "engine/base/cleanup.h"
#include "engine/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct gunzip;

/* Up to `len` bytes of the file, in order; *ret_len is 0 at its end only. */
typedef int gunzip_source_fn(void *ctx, void *buf, size_t len, size_t *ret_len, struct err *err);

int gunzip_new(gunzip_source_fn *source, void *ctx, const char *path, struct gunzip **ret,
               struct err *err) MUST_USE;
/* Reads `fd` by read(2), from where it stands: a file, a pipe.  The descriptor stays the caller's. */
int gunzip_new_fd(int fd, const char *path, struct gunzip **ret, struct err *err) MUST_USE;
void gunzip_free(struct gunzip *g);

/* Up to `len` bytes of content; fewer only at its end, which is then known to be whole. */
int gunzip_read(struct gunzip *g, void *buf, size_t len, size_t *ret_len, struct err *err) MUST_USE;
/* Bytes of the file that were taken in so far. */
uint64_t gunzip_consumed(const struct gunzip *g);

/* Whether a file that begins with these bytes is one of gzip. */
static inline bool gunzip_looks_like_it(const uint8_t *p, size_t len)
{
	return len >= 2 && p[0] == 0x1f && p[1] == 0x8b;
}

DEFINE_CLEANUP(struct gunzip, gunzip_free);
#define cleanup_gunzip CLEANUP(gunzip_free_p)

#endif
