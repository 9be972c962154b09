/* SPDX-License-Identifier: Apache-2.0 */
/* A growable set of small numbers.  Zero-initialised; not thread-safe. */
#ifndef ASOF_BASE_BITSET_H
#define ASOF_BASE_BITSET_H

#include "engine/base/err.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct bitset {
	uint64_t *words;
	size_t n_words; /* allocated */
	size_t used;    /* words that may be non-zero */
};

static inline int bitset_add(struct bitset *b, uint64_t i, struct err *err)
{
	size_t w = (size_t)(i / 64);

	if (w >= b->n_words) {
		size_t n = b->n_words ? b->n_words : 64;
		while (n <= w)
			n *= 2;
		uint64_t *p = realloc(b->words, n * sizeof(*p));
		if (!p)
			return err_set(err, ERR_NOMEM, 0, "no memory for a set of pages");
		memset(p + b->n_words, 0, (n - b->n_words) * sizeof(*p));
		b->words = p;
		b->n_words = n;
	}
	if (w >= b->used)
		b->used = w + 1;
	b->words[w] |= UINT64_C(1) << (i % 64);
	return 0;
}

static inline bool bitset_has(const struct bitset *b, uint64_t i)
{
	return i / 64 < b->used && (b->words[i / 64] >> (i % 64) & 1);
}

static inline void bitset_clear(struct bitset *b)
{
	if (b->used)
		memset(b->words, 0, b->used * sizeof(*b->words));
	b->used = 0;
}

static inline void bitset_release(struct bitset *b)
{
	free(b->words);
	*b = (struct bitset){0};
}

#endif
