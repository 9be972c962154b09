/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of SQLite's file formats that asof needs.  Pure: no I/O, no state.
 * Source: https://www.sqlite.org/fileformat2.html sections 1.3 and 4, and wal.c.
 *
 * WAL header, 32 bytes, big-endian:
 *    0  magic 0x377f0682 (checksum words little-endian) or ...83 (big-endian)
 *    4  version 3007000        8  page size (65536 is stored as itself)
 *   12  checkpoint sequence   16  salt-1   20  salt-2
 *   24  checksum-1            28  checksum-2, over bytes 0..23
 * Frame = 24-byte header + page, frame k (from 1) at 32 + (k-1) * (24 + page size):
 *    0  page number            4  database size in pages after the commit, else 0
 *    8  salt-1   12  salt-2   16  checksum-1   20  checksum-2, continued from the
 *       previous frame over bytes 0..7 of the header and the page
 *
 * wal-index header (-shm), native byte order but for the salts, copies at 0 and 48:
 *    0 version 3007000   8 iChange   12 isInit   13 bigEndCksum   14 page size u16 (65536
 *    is 1)   16 mxFrame   20 nPage   24 frame checksum 2 x u32   32 salts as in the WAL
 *   40 checksum of bytes 0..39
 *   96 nBackfill   100 aReadMark[5]   120 lock bytes   128 nBackfillAttempted
 */
#ifndef ASOF_SQLITE_FORMAT_H
#define ASOF_SQLITE_FORMAT_H

#include "engine/base/err.h"

#include <stddef.h>
#include <stdint.h>

#define WAL_HEADER_SIZE 32
#define WAL_FRAME_HEADER_SIZE 24
#define WAL_MAGIC_LE 0x377f0682u
#define WAL_MAGIC_BE 0x377f0683u
#define WAL_VERSION 3007000u

#define SQLITE_PENDING_BYTE 0x40000000u
#define SQLITE_HEADER_SIZE 100
#define PAGE_SIZE_MIN 512u
#define PAGE_SIZE_MAX 65536u

static inline bool page_size_valid(uint32_t n)
{
	return n >= PAGE_SIZE_MIN && n <= PAGE_SIZE_MAX && (n & (n - 1)) == 0;
}
/* The page that holds the lock bytes: never written, read as zeros. */
static inline uint32_t lock_page(uint32_t page_size)
{
	return SQLITE_PENDING_BYTE / page_size + 1;
}
static inline uint64_t wal_frame_size(uint32_t page_size)
{
	return WAL_FRAME_HEADER_SIZE + (uint64_t)page_size;
}
/* Byte offset of frame `frame` (from 1) in a WAL. */
static inline uint64_t wal_frame_offset(uint64_t frame, uint32_t page_size)
{
	return WAL_HEADER_SIZE + (frame - 1) * wal_frame_size(page_size);
}

/* ---- database header (the first 100 bytes of a database) ---- */
struct db_header {
	uint32_t page_size;
	uint8_t write_version; /* 1 rollback journal, 2 WAL */
	uint8_t read_version;
	uint32_t change_counter;
	uint32_t n_pages;
};
/* ERR_DAMAGED when it is no SQLite database header. */
int db_header_parse(const void *p, size_t len, struct db_header *ret, struct err *err) MUST_USE;

/* ---- WAL ---- */
struct wal_cksum {
	uint32_t s0, s1;
};
/* Continues `c` over `len` bytes (a multiple of 8), words little- or big-endian. */
void wal_cksum_add(struct wal_cksum *c, const void *p, size_t len, bool big_endian);
/* The same over one input for two chains at once; both read words little-endian. */
void wal_cksum_add2(struct wal_cksum *a, struct wal_cksum *b, const void *p, size_t len);

struct wal_header {
	bool big_endian_cksum;
	uint32_t page_size;
	uint32_t sequence;
	uint32_t salt1, salt2;
	struct wal_cksum cksum;
};
/* ERR_DAMAGED when magic, version, page size or checksum do not hold. */
int wal_header_parse(const void *p, size_t len, struct wal_header *ret, struct err *err) MUST_USE;
/* Writes 32 bytes; computes cksum and stores it in *h. */
void wal_header_write(struct wal_header *h, uint8_t out[WAL_HEADER_SIZE]);

struct wal_frame_header {
	uint32_t pgno;
	uint32_t n_truncate; /* database size after the commit, 0 inside a transaction */
	uint32_t salt1, salt2;
	struct wal_cksum cksum;
};
void wal_frame_header_parse(const void *p, struct wal_frame_header *ret);
void wal_frame_header_write(const struct wal_frame_header *h, uint8_t out[WAL_FRAME_HEADER_SIZE]);

/* ---- wal-index ---- */
#define WAL_INDEX_HEADER_BYTES 136
#define WAL_READ_MARK_UNUSED 0xffffffffu
struct wal_index {
	uint32_t change; /* iChange: +1 for each commit */
	uint32_t page_size;
	uint32_t max_frame;
	uint32_t n_pages;
	struct wal_cksum frame_cksum;
	uint32_t salt1, salt2;
	uint32_t n_backfill;
	uint32_t n_backfill_attempted;
	uint32_t read_mark[5];
	bool big_endian_cksum;
};
/*
 * Parses a copy of the first 136 bytes.  False when the two header copies differ, the
 * checksum is wrong or the header is not initialised: read again.  The page size is 0 in
 * the index of a WAL that was never written to.
 */
bool wal_index_parse(const uint8_t p[WAL_INDEX_HEADER_BYTES], struct wal_index *ret);

#endif
