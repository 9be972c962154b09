/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A growable byte buffer with a bound that the owner must choose.
 * Zero-initialised by BUF_INIT(max); buf_release() frees it.  Not thread-safe.
 * Appending past the bound, or without memory, fails with ERR_NOMEM and leaves the
 * buffer as it was.
 */
#ifndef ASOF_BASE_BUF_H
#define ASOF_BASE_BUF_H

#include "engine/base/bytes.h"
#include "engine/base/cleanup.h"
#include "engine/base/err.h"

struct buf {
	uint8_t *data;
	size_t len;
	size_t cap;
	size_t max_bytes;
};

#define BUF_INIT(max)                                                                              \
	{                                                                                          \
		.max_bytes = (max)                                                                 \
	}

/* Makes room for `more` bytes behind the present ones. */
int buf_reserve(struct buf *b, size_t more, struct err *err) MUST_USE;
int buf_append(struct buf *b, const void *p, size_t len, struct err *err) MUST_USE;
int buf_append_varint(struct buf *b, uint64_t v, struct err *err) MUST_USE;
int buf_printf(struct buf *b, struct err *err, const char *fmt, ...)
        __attribute__((format(printf, 3, 4))) MUST_USE;
void buf_release(struct buf *b);

static inline void buf_clear(struct buf *b)
{
	b->len = 0;
}

#define cleanup_buf CLEANUP(buf_release)

#endif
