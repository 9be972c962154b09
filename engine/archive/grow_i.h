/* SPDX-License-Identifier: Apache-2.0 */
/* What the writer and the reader of growing segments share. */
#ifndef ASOF_ARCHIVE_GROW_I_H
#define ASOF_ARCHIVE_GROW_I_H

#include "engine/archive/grow.h"
#include "engine/gz/pack.h"

#define RECORD_FIXED 128u
#define RECORD_CLOSES 1u
/* Members, commits and frames of one batch are bounded, and so is its record. */
#define RECORD_MAX_BYTES (8u << 20)

/* State behind the last record: what the next one continues. */
struct grow_tail {
	uint64_t n_records;
	uint64_t prev_offset, prev_hash;
	uint64_t length; /* file bytes */
	uint64_t content_len;
	uint64_t n_frames;
	uint64_t last_txid;
	struct wal_cksum chain;
	struct source_position pos;
	struct commit last; /* last commit; txid first_txid - 1 when there is none */
};

int grow_header_put(const struct grow_info *info, struct buf *out, uint64_t *ret_hash,
                    struct err *err) MUST_USE;
int grow_header_get(const uint8_t *p, size_t len, const char *name, struct grow_info *ret,
                    uint64_t *ret_hash, struct err *err) MUST_USE;
void grow_tail_init(struct grow_tail *t, const struct grow_info *info, uint64_t header_hash);

/* As grow_refresh_all(), but batches behind `durable_len` count only when their data verifies. */
int grow_recover(struct grow_reader *r, uint64_t durable_len, uint64_t *ret_len,
                 struct err *err) MUST_USE;
/* The tail up to the last record that closes a commit. */
void grow_closed_tail(struct grow_reader *r, struct grow_tail *ret);

#endif
