/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers with units, as people write them in files and on command lines.  Pure.
 */
#ifndef ASOF_BASE_UNITS_H
#define ASOF_BASE_UNITS_H

#include "engine/base/err.h"

#include <stddef.h>
#include <stdint.h>

/*
 * "72h", "1h30m", "1.5h", "30d", "100ms", "2w": whole or decimal numbers, each with a unit
 * (ns us µs ms s m h d w y; a day is 24 hours, a year 365 days), the sum of them; or "0".
 * ERR_USAGE: another text, a negative one, one past INT64_MAX; the message names none of the
 * caller's keys.  Below a microsecond: rounded up, so that only 0 is 0.
 */
int duration_parse(const char *text, int64_t *ret_us, struct err *err) MUST_USE;

/* "4096", "64K", "10M", "1.5G", "1T", in powers of 1024; KiB and KB mean the same. */
int size_parse(const char *text, uint64_t *ret_bytes, struct err *err) MUST_USE;

#define DURATION_STR_MAX 48
/* "72h", "1m30s", "100ms": the shortest that duration_parse() reads back to the same. */
void duration_format(int64_t us, char out[DURATION_STR_MAX]);

#endif
