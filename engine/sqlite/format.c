/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/sqlite/format.h"

#include "engine/base/bytes.h"

int db_header_parse(const void *p, size_t len, struct db_header *ret, struct err *err)
{
	const uint8_t *b = p;

	if (len < SQLITE_HEADER_SIZE || memcmp(b, "SQLite format 3", 16) != 0)
		return err_set(err, ERR_DAMAGED, 0, "not an SQLite database");
	uint32_t page_size = load_be16(b + 16);
	if (page_size == 1)
		page_size = 65536;
	if (!page_size_valid(page_size))
		return err_set(err, ERR_DAMAGED, 0, "not an SQLite database: page size %u",
		               page_size);
	*ret = (struct db_header){
	        .page_size = page_size,
	        .write_version = b[18],
	        .read_version = b[19],
	        .change_counter = load_be32(b + 24),
	        .n_pages = load_be32(b + 28),
	};
	return 0;
}

void wal_cksum_add(struct wal_cksum *c, const void *p, size_t len, bool big_endian)
{
	const uint8_t *b = p;
	uint32_t s0 = c->s0, s1 = c->s1;

	if (big_endian) {
		for (size_t i = 0; i < len; i += 8) {
			s0 += load_be32(b + i) + s1;
			s1 += load_be32(b + i + 4) + s0;
		}
	} else {
		for (size_t i = 0; i < len; i += 8) {
			s0 += load_le32(b + i) + s1;
			s1 += load_le32(b + i + 4) + s0;
		}
	}
	*c = (struct wal_cksum){s0, s1};
}

/* The chain is a chain of dependent additions; two of them side by side cost what one does. */
void wal_cksum_add2(struct wal_cksum *a, struct wal_cksum *b, const void *p, size_t len)
{
	const uint8_t *d = p;
	uint32_t a0 = a->s0, a1 = a->s1, b0 = b->s0, b1 = b->s1;

	for (size_t i = 0; i < len; i += 8) {
		uint32_t x = load_le32(d + i), y = load_le32(d + i + 4);
		a0 += x + a1;
		b0 += x + b1;
		a1 += y + a0;
		b1 += y + b0;
	}
	*a = (struct wal_cksum){a0, a1};
	*b = (struct wal_cksum){b0, b1};
}

int wal_header_parse(const void *p, size_t len, struct wal_header *ret, struct err *err)
{
	const uint8_t *b = p;

	if (len < WAL_HEADER_SIZE)
		return err_set(err, ERR_DAMAGED, 0, "a WAL header of %zu bytes", len);
	uint32_t magic = load_be32(b);
	if ((magic != WAL_MAGIC_LE && magic != WAL_MAGIC_BE) || load_be32(b + 4) != WAL_VERSION)
		return err_set(err, ERR_DAMAGED, 0, "not a WAL header");
	struct wal_header h = {
	        .big_endian_cksum = magic == WAL_MAGIC_BE,
	        .page_size = load_be32(b + 8),
	        .sequence = load_be32(b + 12),
	        .salt1 = load_be32(b + 16),
	        .salt2 = load_be32(b + 20),
	};
	wal_cksum_add(&h.cksum, b, 24, h.big_endian_cksum);
	if (!page_size_valid(h.page_size))
		return err_set(err, ERR_DAMAGED, 0, "a WAL header with page size %u", h.page_size);
	if (h.cksum.s0 != load_be32(b + 24) || h.cksum.s1 != load_be32(b + 28))
		return err_set(err, ERR_DAMAGED, 0, "a WAL header with a wrong checksum");
	*ret = h;
	return 0;
}

void wal_header_write(struct wal_header *h, uint8_t out[WAL_HEADER_SIZE])
{
	store_be32(out, h->big_endian_cksum ? WAL_MAGIC_BE : WAL_MAGIC_LE);
	store_be32(out + 4, WAL_VERSION);
	store_be32(out + 8, h->page_size);
	store_be32(out + 12, h->sequence);
	store_be32(out + 16, h->salt1);
	store_be32(out + 20, h->salt2);
	h->cksum = (struct wal_cksum){0, 0};
	wal_cksum_add(&h->cksum, out, 24, h->big_endian_cksum);
	store_be32(out + 24, h->cksum.s0);
	store_be32(out + 28, h->cksum.s1);
}

void wal_frame_header_parse(const void *p, struct wal_frame_header *ret)
{
	const uint8_t *b = p;

	*ret = (struct wal_frame_header){
	        .pgno = load_be32(b),
	        .n_truncate = load_be32(b + 4),
	        .salt1 = load_be32(b + 8),
	        .salt2 = load_be32(b + 12),
	        .cksum = {load_be32(b + 16), load_be32(b + 20)},
	};
}

void wal_frame_header_write(const struct wal_frame_header *h, uint8_t out[WAL_FRAME_HEADER_SIZE])
{
	store_be32(out, h->pgno);
	store_be32(out + 4, h->n_truncate);
	store_be32(out + 8, h->salt1);
	store_be32(out + 12, h->salt2);
	store_be32(out + 16, h->cksum.s0);
	store_be32(out + 20, h->cksum.s1);
}

static uint32_t native32(const uint8_t *p)
{
	uint32_t v;
	memcpy(&v, p, 4);
	return v;
}

bool wal_index_parse(const uint8_t p[WAL_INDEX_HEADER_BYTES], struct wal_index *ret)
{
	struct wal_cksum c = {0, 0};

	if (memcmp(p, p + 48, 48) != 0 || native32(p) != WAL_VERSION || p[12] == 0)
		return false;
	for (size_t i = 0; i < 40; i += 8) { /* native order, whatever the WAL's is */
		c.s0 += native32(p + i) + c.s1;
		c.s1 += native32(p + i + 4) + c.s0;
	}
	if (c.s0 != native32(p + 40) || c.s1 != native32(p + 44))
		return false;

	uint16_t page_size;
	memcpy(&page_size, p + 14, 2);
	*ret = (struct wal_index){
	        .change = native32(p + 8),
	        .page_size = (page_size & 0xfe00u) + ((page_size & 0x0001u) << 16),
	        .max_frame = native32(p + 16),
	        .n_pages = native32(p + 20),
	        .frame_cksum = {native32(p + 24), native32(p + 28)},
	        .salt1 = load_be32(p + 32),
	        .salt2 = load_be32(p + 36),
	        .n_backfill = native32(p + 96),
	        .n_backfill_attempted = native32(p + 128),
	        .big_endian_cksum = p[13] != 0,
	};
	for (size_t i = 0; i < 5; i++)
		ret->read_mark[i] = native32(p + 100 + 4 * i);
	/* A WAL that was never written to has no page size yet. */
	return page_size_valid(ret->page_size) || (page_size == 0 && ret->max_frame == 0);
}
