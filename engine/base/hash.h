/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two hashes of the archive, both XXH3 (xxHash 0.8, whose XXH3 output is frozen),
 * written down here once so that every user agrees to the bit.
 *
 * hash64(seed): guards stored bytes.  The seed binds them to an object and a place.
 * page_hash / state: guards what a database is.  The state of a database is the sum
 * modulo 2^128 over its pages, lock page left out, of XXH3_128(page bytes, seed =
 * page number).  A sum can be kept up to date page by page; XXH3 is not linear, so
 * exchanged or altered pages do not cancel out by accident.
 */
#ifndef ASOF_BASE_HASH_H
#define ASOF_BASE_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct hash128 {
	uint64_t lo, hi;
};

uint64_t hash64(const void *p, size_t len, uint64_t seed);
struct hash128 page_hash(uint32_t pgno, const void *page, size_t page_size_bytes);

static inline void state_add(struct hash128 *sum, struct hash128 h)
{
	sum->lo += h.lo;
	sum->hi += h.hi + (sum->lo < h.lo);
}
static inline void state_sub(struct hash128 *sum, struct hash128 h)
{
	uint64_t borrow = sum->lo < h.lo;
	sum->lo -= h.lo;
	sum->hi -= h.hi + borrow;
}
static inline bool hash128_equal(struct hash128 a, struct hash128 b)
{
	return a.lo == b.lo && a.hi == b.hi;
}
static inline bool hash128_zero(struct hash128 a)
{
	return a.lo == 0 && a.hi == 0;
}

#endif
