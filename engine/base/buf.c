/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/buf.h"

#include <stdio.h>

int buf_reserve(struct buf *b, size_t more, struct err *err)
{
	if (b->cap - b->len >= more)
		return 0;
	if (more > b->max_bytes || b->len > b->max_bytes - more)
		return err_set(err, ERR_NOMEM, 0, "a buffer would grow past its bound of %zu bytes",
		               b->max_bytes);
	size_t cap = b->cap ? b->cap : 256;
	while (cap < b->len + more)
		cap *= 2;
	if (cap > b->max_bytes)
		cap = b->max_bytes;
	uint8_t *data = realloc(b->data, cap);
	if (!data)
		return err_set(err, ERR_NOMEM, 0, "no memory for a buffer of %zu bytes", cap);
	b->data = data;
	b->cap = cap;
	return 0;
}

int buf_append(struct buf *b, const void *p, size_t len, struct err *err)
{
	int rc = buf_reserve(b, len, err);
	if (rc < 0)
		return rc;
	if (len)
		memcpy(b->data + b->len, p, len);
	b->len += len;
	return 0;
}

int buf_append_varint(struct buf *b, uint64_t v, struct err *err)
{
	uint8_t tmp[VARINT_MAX];
	return buf_append(b, tmp, store_varint(tmp, v), err);
}

int buf_printf(struct buf *b, struct err *err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	int n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0)
		return err_set(err, ERR_IO, errno, "format a text");
	int rc = buf_reserve(b, (size_t)n + 1, err);
	if (rc < 0)
		return rc;
	va_start(ap, fmt);
	vsnprintf((char *)b->data + b->len, (size_t)n + 1, fmt, ap);
	va_end(ap);
	b->len += (size_t)n; /* the NUL stays behind the end */
	return 0;
}

void buf_release(struct buf *b)
{
	free(b->data);
	b->data = NULL;
	b->len = b->cap = 0;
}
