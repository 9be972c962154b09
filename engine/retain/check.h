/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ASOF_RETAIN_CHECK_H
#define ASOF_RETAIN_CHECK_H

#include "engine/view/history.h"

#include <stdatomic.h>

/*
 * Whether the coalesced object `file` of (after_txid, until_txid], just written, says what its
 * commit's state checksum demands, given that the state `after_txid` is right: reads the pages
 * that it holds, before and after, and no others.  Says yes where a checksum is not known.  DAMAGED.
 */
int check_coalesced(struct history *h, int coalesced_fd, const char *file, uint64_t after_txid,
                    const _Atomic bool *stop, struct err *err) MUST_USE;

#endif
