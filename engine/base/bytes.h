/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Integers in byte strings, and a bounds-checked cursor.
 *
 * Everything that comes from outside (archives, WALs) is parsed through a cursor.
 * A cursor that runs past its end turns bad and stays so: its reads then give 0,
 * and one check of cursor_ok() at the end of a record covers all of them.  A count
 * read from outside is compared with cursor_left() before anything is allocated.
 */
#ifndef ASOF_BASE_BYTES_H
#define ASOF_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint16_t load_le16(const void *p)
{
	const uint8_t *b = p;
	return (uint16_t)(b[0] | b[1] << 8);
}
static inline uint32_t load_le32(const void *p)
{
	uint32_t v;
	memcpy(&v, p, 4);
	return __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? v : __builtin_bswap32(v);
}
static inline uint64_t load_le64(const void *p)
{
	uint64_t v;
	memcpy(&v, p, 8);
	return __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? v : __builtin_bswap64(v);
}
static inline uint16_t load_be16(const void *p)
{
	const uint8_t *b = p;
	return (uint16_t)(b[0] << 8 | b[1]);
}
static inline uint32_t load_be32(const void *p)
{
	return __builtin_bswap32(load_le32(p));
}
static inline void store_le16(void *p, uint16_t v)
{
	uint8_t *b = p;
	b[0] = (uint8_t)v;
	b[1] = (uint8_t)(v >> 8);
}
static inline void store_le32(void *p, uint32_t v)
{
	if (__BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__)
		v = __builtin_bswap32(v);
	memcpy(p, &v, 4);
}
static inline void store_le64(void *p, uint64_t v)
{
	if (__BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__)
		v = __builtin_bswap64(v);
	memcpy(p, &v, 8);
}
static inline void store_be32(void *p, uint32_t v)
{
	store_le32(p, __builtin_bswap32(v));
}

/* Unsigned LEB128, at most 10 bytes.  Returns the number of bytes written to `p`. */
#define VARINT_MAX 10
static inline size_t store_varint(uint8_t *p, uint64_t v)
{
	size_t n = 0;
	while (v >= 0x80) {
		p[n++] = (uint8_t)(v | 0x80);
		v >>= 7;
	}
	p[n++] = (uint8_t)v;
	return n;
}

/* Signed numbers near zero become small unsigned ones. */
static inline uint64_t zigzag(int64_t v)
{
	return ((uint64_t)v << 1) ^ (uint64_t)(v >> 63);
}
static inline int64_t unzigzag(uint64_t v)
{
	return (int64_t)(v >> 1) ^ -(int64_t)(v & 1);
}

struct cursor {
	const uint8_t *p;
	const uint8_t *end;
	bool bad;
};

static inline struct cursor cursor_init(const void *p, size_t len)
{
	return (struct cursor){.p = p, .end = len ? (const uint8_t *)p + len : p};
}
static inline size_t cursor_left(const struct cursor *c)
{
	return (size_t)(c->end - c->p);
}
static inline bool cursor_ok(const struct cursor *c)
{
	return !c->bad;
}
/* The next `len` bytes, or NULL (and a bad cursor) when there are fewer. */
static inline const uint8_t *cursor_take(struct cursor *c, size_t len)
{
	if (c->bad || cursor_left(c) < len) {
		c->bad = true;
		return NULL;
	}
	c->p += len;
	return c->p - len;
}
static inline uint8_t cursor_u8(struct cursor *c)
{
	const uint8_t *p = cursor_take(c, 1);
	return p ? *p : 0;
}
static inline uint32_t cursor_le32(struct cursor *c)
{
	const uint8_t *p = cursor_take(c, 4);
	return p ? load_le32(p) : 0;
}
static inline uint64_t cursor_le64(struct cursor *c)
{
	const uint8_t *p = cursor_take(c, 8);
	return p ? load_le64(p) : 0;
}
/* A varint that does not fit 64 bits, or is longer than it needs to be, is bad. */
static inline uint64_t cursor_varint(struct cursor *c)
{
	uint64_t v = 0;
	for (unsigned shift = 0; shift < 64; shift += 7) {
		uint8_t b = cursor_u8(c);
		if (c->bad)
			return 0;
		if ((shift == 63 && b > 1) || (shift > 0 && b == 0))
			break;
		v |= (uint64_t)(b & 0x7f) << shift;
		if (!(b & 0x80))
			return v;
	}
	c->bad = true;
	return 0;
}

#endif
