/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/config/config_i.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define MAX_BYTES ((size_t)64 << 20)

struct block {
	struct block *next;
	max_align_t data[];
};

struct config_memory {
	struct block *blocks;
	size_t bytes;
};

struct config_memory *memory_new(void)
{
	return calloc(1, sizeof(struct config_memory));
}

void memory_free(struct config_memory *m)
{
	if (!m)
		return;
	for (struct block *b = m->blocks, *next; b; b = next) {
		next = b->next;
		free(b);
	}
	free(m);
}

void *memory_alloc(struct config_memory *m, size_t bytes)
{
	if (!m || bytes > MAX_BYTES || m->bytes + bytes > MAX_BYTES)
		return NULL;
	struct block *b = calloc(1, sizeof(*b) + (bytes ? bytes : 1));
	if (!b)
		return NULL;
	b->next = m->blocks;
	m->blocks = b;
	m->bytes += bytes;
	return b->data;
}

char *memory_copy(struct config_memory *m, const char *text, size_t len)
{
	char *copy = memory_alloc(m, len + 1);

	if (copy)
		memcpy(copy, text, len);
	return copy;
}

char *memory_printf(struct config_memory *m, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	int n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	char *text = n < 0 ? NULL : memory_alloc(m, (size_t)n + 1);
	if (!text)
		return NULL;
	va_start(ap, fmt);
	vsnprintf(text, (size_t)n + 1, fmt, ap);
	va_end(ap);
	return text;
}

void *memory_grow(struct config_memory *m, void *array, size_t n, size_t item_bytes)
{
	if (n && (n < 8 || (n & (n - 1))))
		return array;
	void *more = memory_alloc(m, (n ? 2 * n : 8) * item_bytes);
	if (more && n)
		memcpy(more, array, n * item_bytes);
	return more;
}
