/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The small text files of a database's folder: readable by people, guarded by a sum.
 * Each is a first line "asof-KIND 1", lines "key value", and last "sum HEX": hash64 of
 * everything before that line, seed 0, 16 digits.  Written once, whole (file_put).
 *
 *   source               kind source: id (32 bits, not 0), path (of the live database; rest of
 *                        the line)
 *   LLLLLLLL.lineage     kind lineage: lineage, parent (0: none), from_txid, first_txid,
 *                        live_us, page_size, reason
 *   TXID.gap             kind gap: before_txid, before_us, after_txid, after_us, reason.  TXID
 *                        (16 digits) is after_txid: the first state known again
 */
#ifndef ASOF_ARCHIVE_NOTES_H
#define ASOF_ARCHIVE_NOTES_H

#include "engine/archive/names.h"

struct source_note {
	uint32_t id;
	char path[512];
};
struct lineage_note {
	uint32_t lineage, parent;
	uint64_t from_txid, first_txid;
	int64_t live_us;
	uint32_t page_size;
	char reason[160];
};
struct gap_note {
	uint64_t before_txid, after_txid;
	int64_t before_us, after_us;
	char reason[160];
};

int source_note_put(int dir_fd, const struct source_note *n, struct err *err) MUST_USE;
int source_note_get(int dir_fd, struct source_note *ret, struct err *err) MUST_USE;
int lineage_note_put(int dir_fd, const struct lineage_note *n, struct err *err) MUST_USE;
int lineage_note_get(int dir_fd, const char *name, struct lineage_note *ret,
                     struct err *err) MUST_USE;
int gap_note_put(int dir_fd, const struct gap_note *n, struct err *err) MUST_USE;
int gap_note_get(int dir_fd, const char *name, struct gap_note *ret, struct err *err) MUST_USE;
bool gap_name_parse(const char *name, uint64_t *ret_txid);

#endif
