/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lock of those who change a database's objects without being its writer: compaction and
 * retention, one at a time.  Marks are made and removed under it, so that none is given to a
 * moment that is just going.  The file `upkeep` is empty and stays.
 */
#ifndef ASOF_ARCHIVE_UPKEEP_H
#define ASOF_ARCHIVE_UPKEEP_H

#include "engine/base/err.h"

#include <stdint.h>

/* Held until *ret_fd is closed.  BUSY: somebody else has had it for all of `wait_us`. */
int upkeep_lock(int dir_fd, const char *name, int64_t wait_us, int *ret_fd,
                struct err *err) MUST_USE;

#endif
