/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the free space of an archive's filesystem goes, and when it will be used up.
 *
 * ARCHIVE/space is text, a line "AT_US FREE_BYTES" an hour, oldest first, SPACE_SAMPLES_MAX of them at
 * most; written whole by the daemon, read by whoever tells.  It may be missing, or be damaged: lines
 * that are none are passed over, and without enough of them nothing is foretold.
 */
#ifndef ASOF_MONITOR_SPACE_H
#define ASOF_MONITOR_SPACE_H

#include "engine/base/err.h"

#include <stddef.h>
#include <stdint.h>

#define SPACE_NAME "space"
#define SPACE_EVERY_US INT64_C(3600000000)
#define SPACE_SAMPLES_MAX 336u /* two weeks */

struct space_sample {
	int64_t at_us;
	uint64_t free_bytes;
};
struct space_samples {
	struct space_sample samples[SPACE_SAMPLES_MAX];
	size_t n;
};

/* The newest that there are; none where there is no file, or it cannot be read. */
void space_read(const char *root, struct space_samples *ret);
/* Adds what is free now, unless the newest sample is less than SPACE_EVERY_US old. */
int space_note(const char *root, int64_t now_us, struct err *err) MUST_USE;

/*
 * Seconds until only `reserve_bytes` are free, by the line through the samples of the last 7 days;
 * -1: it does not shrink, or there are less than 6 samples or 6 hours of them.  Pure.
 */
double space_full_in_s(const struct space_samples *s, int64_t now_us, uint64_t free_bytes,
                       uint64_t reserve_bytes);

#endif
