/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A commit as a segment describes it, and its encoding.
 *
 * Encoded (varints unless said otherwise), each commit after the one before it:
 *   frames written by it, pages of the database after it,
 *   time_us less the previous commit's (of the first: less 0),
 *   time_us - not_before_us + 1, or 0 when not_before is unknown,
 *   flags, and 16 bytes of state checksum (lo, hi little-endian) unless COMMIT_NO_STATE.
 */
#ifndef ASOF_ARCHIVE_COMMIT_H
#define ASOF_ARCHIVE_COMMIT_H

#include "engine/base/buf.h"
#include "engine/base/hash.h"
#include "engine/sqlite/format.h"

/* Where in the source everything in a segment was taken from; see capture.h. */
struct source_position {
	uint32_t salt1, salt2;
	uint64_t frame;
	struct wal_cksum cksum;
	uint32_t change;
};

enum commit_flags {
	COMMIT_NO_STATE = 1,  /* the state checksum is not known */
	COMMIT_UNSETTLED = 2, /* redo only: the database is not whole at this txid */
	COMMIT_HEAL = 4,      /* makes it whole again after a gap: the first state after it */
};
#define COMMIT_FLAGS_KNOWN 7u

struct commit {
	uint64_t txid;
	int64_t time_us;
	int64_t not_before_us; /* 0: unknown */
	uint64_t n_frames;     /* written by it */
	uint64_t last_frame;   /* its commit frame within the segment, from 1 */
	uint32_t n_pages;      /* of the database after it */
	uint32_t min_pages;    /* smallest n_pages in the segment up to and with it */
	uint32_t flags;
	struct hash128 state;
};

/* 32 bytes: u32 salt-1, salt-2, u64 frame, u32 cksum-1, cksum-2, u32 iChange, u32 zero. */
#define SOURCE_POSITION_SIZE 32
void source_position_put(uint8_t p[SOURCE_POSITION_SIZE], const struct source_position *pos);
struct source_position source_position_get(const uint8_t p[SOURCE_POSITION_SIZE]);

/* `prev` may be NULL (first of a run). */
int commit_put(struct buf *out, const struct commit *c, const struct commit *prev,
               struct err *err) MUST_USE;
/* Decodes the commit after `prev`, from which txid, last_frame and min_pages go on; the
 * first of a run gets a `prev` with time_us 0 and these three as they were before it. */
void commit_get(struct cursor *cur, const struct commit *prev, struct commit *ret);

/* A (page, frame) pair of a page index; indexes are sorted by page, then frame. */
struct frame_entry {
	uint32_t pgno;
	uint64_t frame;
};
/* The entry behind `prev` in a sorted run, or behind {0, 0} as its first: varint page less the
 * previous page, then varint frame (less the previous frame when the page is the same).  Writes at
 * most 2 * VARINT_MAX bytes to `p`; returns how many. */
size_t frame_entry_put(uint8_t *p, const struct frame_entry *prev, const struct frame_entry *e);
/* A sorted run of n entries. */
int frame_run_put(struct buf *out, const struct frame_entry *e, size_t n, struct err *err) MUST_USE;
/* Decodes `n` entries into `e`; false when bytes, order or bounds are wrong. */
bool frame_run_get(struct cursor *cur, struct frame_entry *e, size_t n, uint64_t max_frame);
/* Sorts by (page, frame). */
void frame_run_sort(struct frame_entry *e, size_t n);
/* Index of the last entry <= (pgno, frame), or SIZE_MAX. */
size_t frame_run_find(const struct frame_entry *e, size_t n, uint32_t pgno, uint64_t frame);

#endif
