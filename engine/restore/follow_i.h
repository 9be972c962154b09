/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of a standby share.  Not for others, tests excepted. */
#ifndef ASOF_RESTORE_FOLLOW_I_H
#define ASOF_RESTORE_FOLLOW_I_H

#include "engine/restore/follow.h"
#include "engine/restore/restore_i.h"

#define FOLLOW_NOTE_SUFFIX ".asof-follow"
#define FOLLOW_LOCK_SUFFIX ".asof-follow.lock"

/* The note beside a standby: follow.h has its format. */
struct follow_note {
	char database[256];
	uint64_t txid, next_txid;
	struct hash128 state, next_state;
};
int follow_note_put(const struct place *p, const struct follow_note *n, struct err *err) MUST_USE;
/* Missing: NOT_FOUND. */
int follow_note_get(const struct place *p, struct follow_note *ret, struct err *err) MUST_USE;
/* From `len` bytes with a NUL behind them, which it changes; 0, -ERR_DAMAGED or -ERR_VERSION. */
int follow_note_parse(char *text, size_t len, struct follow_note *ret) MUST_USE;

#endif
