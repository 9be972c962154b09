/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Time.  A moment is microseconds since 1970-01-01T00:00:00Z in an int64_t (`_us`).
 * Texts are UTC, always with Z, always readable back by time_parse().
 */
#ifndef ASOF_BASE_CLOCK_H
#define ASOF_BASE_CLOCK_H

#include "engine/base/err.h"

#include <stddef.h>
#include <stdint.h>

#define US_PER_SECOND INT64_C(1000000)
#define TIME_STR_MAX 40

/* Years 0001 to 9999. */
#define TIME_MIN_US INT64_C(-62135596800000000)
#define TIME_MAX_US INT64_C(253402300799999999)

/* Wall clock, microseconds. */
int64_t clock_now_us(void);
/* Monotonic clock, microseconds, for intervals. */
int64_t clock_mono_us(void);
/* The same, which goes on while the machine sleeps. */
int64_t clock_boot_us(void);
void clock_sleep_us(int64_t us);

/* "2024-01-15T10:30:00.123456Z"; the fraction is left out when it is zero, and cut to
 * milliseconds when those say it all. */
void time_format(int64_t time_us, char out[TIME_STR_MAX]);
/* The same without colons, for file names on every system: "2024-01-15T10-30-00.250Z". */
void time_format_name(int64_t time_us, char out[TIME_STR_MAX]);
/* Fixed width, for names in the archive: "20240115T103000.123456Z". */
void time_format_compact(int64_t time_us, char out[TIME_STR_MAX]);

enum time_zone { TIME_ZONE_UTC, TIME_ZONE_LOCAL };

/*
 * Reads a TIME as people write it, `text` whole:
 *
 *   2024-01-15T10:30:00.250Z   with T or a blank, zone Z, +02:00, +0200, +02 or none;
 *                              seconds, minutes or the time of day may be left out;
 *                              '-' for ':' is accepted (2024-01-15T10-30-00Z)
 *   20240115T103000.250Z       compact
 *   @1705314600[.250]          Unix epoch
 *   now, today, yesterday, yesterday 14:30, today 09:00:30
 *   -5m, -90s, -2h, -3d, -1w, 5 minutes ago, 2 hours ago, 1 day ago
 *
 * Without a zone `zone` decides; in TIME_ZONE_LOCAL an hour that a time change repeats or
 * skips is ERR_USAGE and the message shows both readings.  Relative forms count from
 * `now_us`.  A fraction has up to 6 digits; more are ERR_USAGE unless they are zeros.
 * Anything else is ERR_USAGE.  Sets *ret_relative (may be NULL) to whether the text
 * depends on now.  Pure but for the local zone's tables.
 */
int time_parse(const char *text, int64_t now_us, enum time_zone zone, int64_t *ret_us,
               bool *ret_relative, struct err *err) MUST_USE;
struct zone;
/* The same in any zone of zone.h (NULL: UTC), an hour that it repeats or skips included. */
int time_parse_in(const char *text, int64_t now_us, const struct zone *zone, int64_t *ret_us,
                  bool *ret_relative, struct err *err) MUST_USE;
/* Reads exactly what time_format_compact() writes. */
int time_parse_compact(const char *text, size_t len, int64_t *ret_us) MUST_USE;

/* Calendar in UTC, proleptic Gregorian. */
struct civil {
	int year, month, day, hour, minute, second, us;
};
void civil_from_us(int64_t time_us, struct civil *ret);
int64_t civil_to_us(const struct civil *c);

#endif
