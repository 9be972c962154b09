/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/gz/alike.h"

#include "engine/base/bytes.h"

#include <stdbool.h>
#include <string.h>

/* A match costs 31 bits at most; shorter ones gain nothing. */
#define MATCH_MIN 8u
#define MATCH_MAX 258u
#define ZEROS_MIN 32u
/* A stored block costs up to 7 bytes besides what it holds, a literal up to a bit. */
#define STORED_MIN 96u
#define STORED_MAX 65535u
#define END_OF_BLOCK_BITS 7u
#define END_OF_BLOCK 0u

struct deflate {
	const uint8_t *content;
	size_t done; /* so much of it is in the stream */
	uint8_t *out;
	uint64_t bits; /* not yet in `out`, the first one lowest */
	unsigned n_bits;
	bool in_block; /* of fixed codes */
};

/* At most 57 bits at once; writes up to 8 bytes. */
static void put_bits(struct deflate *d, uint64_t v, unsigned n)
{
	d->bits |= v << d->n_bits;
	d->n_bits += n;
	store_le64(d->out, d->bits);
	d->out += d->n_bits / 8;
	d->bits >>= d->n_bits & ~7u;
	d->n_bits &= 7;
}

/* Codes begin with their highest bit; what is put begins with its lowest. */
static uint32_t reversed(uint32_t v, unsigned n)
{
	uint32_t r = 0;

	for (; n > 0; n--, v >>= 1)
		r = r << 1 | (v & 1);
	return r;
}

static void begin_block(struct deflate *d)
{
	if (!d->in_block)
		put_bits(d, 1u << 1, 3); /* not the last; fixed codes */
	d->in_block = true;
}

static void end_block(struct deflate *d)
{
	if (d->in_block)
		put_bits(d, END_OF_BLOCK, END_OF_BLOCK_BITS);
	d->in_block = false;
}

static void put_stored(struct deflate *d, const uint8_t *p, size_t len)
{
	end_block(d);
	put_bits(d, 0, 3); /* not the last; stored */
	if (d->n_bits)
		put_bits(d, 0, 8 - d->n_bits);
	store_le16(d->out, (uint16_t)len);
	store_le16(d->out + 2, (uint16_t)~len);
	memcpy(d->out + 4, p, len);
	d->out += 4 + len;
}

static void put_literal(struct deflate *d, uint8_t v)
{
	if (v < 144)
		put_bits(d, reversed(0x30u + v, 8), 8);
	else
		put_bits(d, reversed(0x190u + v - 144u, 9), 9);
}

/* Content up to `end` is in the stream then. */
static void put_literals(struct deflate *d, size_t end)
{
	if (end - d->done < STORED_MIN) {
		if (d->done < end)
			begin_block(d);
		for (; d->done < end; d->done++)
			put_literal(d, d->content[d->done]);
	}
	while (d->done < end) {
		size_t n = end - d->done < STORED_MAX ? end - d->done : STORED_MAX;
		put_stored(d, d->content + d->done, n);
		d->done += n;
	}
}

static unsigned log2_of(uint32_t v)
{
	return 31u - (unsigned)__builtin_clz(v);
}

/* The code of a length, 3 to MATCH_MAX, with its extra bits; RFC 1951, 3.2.5 and 3.2.6. */
static uint32_t length_code(uint32_t len, unsigned *ret_bits)
{
	uint32_t x = len - 3, symbol = x, extra = 0;

	if (len == MATCH_MAX) {
		symbol = 28;
	} else if (x >= 8) {
		extra = log2_of(x) - 2;
		symbol = 4 * (extra + 1) + (x >> extra & 3);
	}
	uint32_t code = symbol < 23 ? reversed(symbol + 1, 7) : reversed(0xc0u + symbol - 23, 8);
	unsigned n = symbol < 23 ? 7 : 8;
	*ret_bits = n + extra;
	return code | (x & ((1u << extra) - 1)) << n;
}

static uint32_t distance_code(uint32_t distance, unsigned *ret_bits)
{
	uint32_t x = distance - 1, symbol = x, extra = 0;

	if (x >= 4) {
		extra = log2_of(x) - 1;
		symbol = 2 * (extra + 1) + (x >> extra & 1);
	}
	*ret_bits = 5 + extra;
	return reversed(symbol, 5) | (x & ((1u << extra) - 1)) << 5;
}

/* `len` bytes from `at` on, at least MATCH_MIN, are those `distance` before. */
static void put_match(struct deflate *d, size_t at, size_t len, uint32_t distance)
{
	unsigned n_distance, n;
	uint64_t code = distance_code(distance, &n_distance);

	put_literals(d, at);
	begin_block(d);
	d->done = at + len;
	while (len > 0) {
		uint32_t now = len > MATCH_MAX ? MATCH_MAX : (uint32_t)len;
		if (len > now && len - now < 3)
			now -= 3; /* what is left must be a match, too */
		uint64_t both = length_code(now, &n);
		put_bits(d, both | code << n, n + n_distance);
		len -= now;
	}
}

static size_t equal_bytes(const uint8_t *a, const uint8_t *b, size_t len)
{
	size_t i = 0;

	for (; i + 8 <= len; i += 8) {
		uint64_t differ = load_le64(a + i) ^ load_le64(b + i);
		if (differ)
			return i + (size_t)__builtin_ctzll(differ) / 8;
	}
	while (i < len && a[i] == b[i])
		i++;
	return i;
}

/* Content from `at` to `end`, of which nothing is known: runs of zeros.  The rest stays to be put
 * with what follows. */
static void put_zeros(struct deflate *d, size_t at, size_t end)
{
	const uint8_t *c = d->content;
	size_t low = at;

	while (at + 16 <= end) {
		if (load_le64(c + at) | load_le64(c + at + 8)) {
			at += 16;
			continue;
		}
		size_t begin = at;
		while (begin > low && c[begin - 1] == 0)
			begin--;
		for (at += 16; at < end && c[at] == 0;)
			at++;
		if (at - begin >= ZEROS_MIN) /* its first byte is what the others are like */
			put_match(d, begin + 1, at - begin - 1, 1);
		low = at;
	}
}

static void put_alike(struct deflate *d, size_t at, size_t end, uint32_t distance)
{
	const uint8_t *c = d->content;

	while (at < end) {
		size_t n = equal_bytes(c + at, c + at - distance, end - at);
		if (n >= MATCH_MIN)
			put_match(d, at, n, distance);
		at += n;
		while (at < end && c[at] != c[at - distance])
			at++;
	}
}

size_t alike_bound(size_t len)
{
	return len + len / 8 + 64;
}

size_t alike_deflate(const uint8_t *content, size_t len, const struct gz_alike *alike,
                     size_t n_alike, uint8_t *out)
{
	struct deflate d = {.content = content, .out = out};
	size_t at = 0;

	for (size_t i = 0; i < n_alike; i++) {
		size_t end = i + 1 < n_alike ? alike[i + 1].offset : len;
		uint32_t distance = alike[i].distance;
		size_t from = alike[i].offset > distance ? alike[i].offset : distance;
		if (distance == 0 || distance > GZ_ALIKE_REACH || end > len || from >= end)
			continue;
		if (from > at)
			put_zeros(&d, at, from);
		from = from > at ? from : at;
		if (from < end)
			put_alike(&d, from, end, distance);
		at = end > at ? end : at;
	}
	put_zeros(&d, at, len);
	put_literals(&d, len);
	end_block(&d);
	put_bits(&d, 3, 3 + END_OF_BLOCK_BITS); /* the last, of fixed codes, empty */
	if (d.n_bits)
		put_bits(&d, 0, 8 - d.n_bits);
	return (size_t)(d.out - out);
}
