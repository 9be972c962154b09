/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Objects made out of what a history holds: what compaction and retention have in common.  Each
 * appears whole under its name, durable, or not at all.
 */
#ifndef ASOF_COMPACT_MAKE_H
#define ASOF_COMPACT_MAKE_H

#include "engine/archive/names.h"
#include "engine/view/replay.h"

#include <stdatomic.h>

struct make_options {
	struct history *history;
	int dir_fd;               /* of the folder that the object goes to */
	int level;                /* of deflate */
	const _Atomic bool *stop; /* CANCELLED once it is true */
};

/* The newest version of each page that after_txid < txid <= until_txid touched.  `first_us` is the
 * time of commit after_txid + 1.  `exact`: see span.h. */
int make_coalesced(const struct make_options *o, uint64_t after_txid, uint64_t until_txid,
                   int64_t first_us, bool exact, struct object_name *ret_name, uint64_t *ret_bytes,
                   struct err *err) MUST_USE;
/* The image of `txid`, which must match its state checksum. */
int make_base(const struct make_options *o, uint64_t txid, uint64_t *ret_bytes,
              struct err *err) MUST_USE;

#endif
