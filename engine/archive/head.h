/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The head: one small file, rewritten in place by the one writer, by which readers in other
 * processes learn what is durable.  160 bytes, little-endian:
 *
 *     0  8  "asofhead"            8  4  version (1)    12  4  lineage
 *    16  8  first txid of the growing segment (0: there is none)
 *    24  8  its durable length   32  8  last durable txid (0: none)
 *    40  8  time of that commit  48  8  known_until_us: everything committed before is here
 *    56  8  generation: goes up whenever an object is added or removed
 *    64  .  zero                152  8  hash64(the bytes before, seed "asofhead" as a number)
 *
 * Written after the fdatasync of what it tells about, itself not fsynced: after a power
 * failure it may tell of less than there is, never of more.  A reader that finds it torn
 * reads again.  Without it a reader takes in what the growing segment's records prove.
 */
#ifndef ASOF_ARCHIVE_HEAD_H
#define ASOF_ARCHIVE_HEAD_H

#include "engine/base/err.h"

#include <stdint.h>

#define HEAD_SIZE 160
#define HEAD_NAME "head"

struct head {
	uint32_t lineage;
	uint64_t growing_txid, durable_len;
	uint64_t last_txid;
	int64_t last_us, known_until_us;
	uint64_t generation;
};

int head_write(int fd, const struct head *h, struct err *err) MUST_USE;
/* ERR_NOT_FOUND when the file is empty, ERR_DAMAGED when it stays torn. */
int head_read(int fd, struct head *ret, struct err *err) MUST_USE;

#endif
