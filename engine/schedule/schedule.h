/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Schedules: a text that people write -> the moments at which something runs.  Pure: the
 * caller brings the zone and the clock.
 *
 *   0 2 * * *              cron, five fields: minute 0-59, hour 0-23, day of the month 1-31,
 *                          month 1-12 or jan-dec, day of the week 0-7 or sun-sat (0 and 7 are
 *                          Sunday).  A field is a list of *, N, N-M, each with /STEP.  When
 *                          both days are restricted either of them is enough, as in cron.
 *   @hourly @daily @midnight @weekly @monthly @yearly @annually
 *   02:00                  daily; also several: 02:00, 14:30
 *   every 6h               at the multiples of that interval since 1970-01-01T00:00Z
 *   off, never             no moment at all
 *
 * Time changes.  A schedule that names hours runs once for each time that it names: in a
 * repeated hour at the first of the two, in a skipped hour at the moment of the change (once,
 * however many of its times were skipped).  A cron expression whose hours are all 24 (such as
 * "*" + "/15 * * * *" or "30 * * * *") goes by real time instead: it runs in both repeated
 * hours, and has nothing to make up for a skipped one.  `every` knows no zones.
 *
 * Jitter.  schedule_delay_us() gives a delay below a bound that depends on a name alone: many
 * databases of one schedule do not start at one instant, and each always starts at the same.
 *
 * Missed runs.  schedule_due() says whether a scheduled moment lies between the last run and
 * now: however many were missed (the machine was off), one run makes up for all of them.
 */
#ifndef ASOF_SCHEDULE_SCHEDULE_H
#define ASOF_SCHEDULE_SCHEDULE_H

#include "engine/base/err.h"
#include "engine/base/zone.h"

#include <stdbool.h>
#include <stdint.h>

#define SCHEDULE_TEXT_MAX 128
#define SCHEDULE_MAX_TIMES 24
/* No schedule is looked for further ahead than that. */
#define SCHEDULE_HORIZON_DAYS (13 * 366)

enum schedule_kind {
	SCHEDULE_OFF,   /* all zeros is this one */
	SCHEDULE_CRON,  /* the bit sets */
	SCHEDULE_TIMES, /* times of day */
	SCHEDULE_EVERY, /* an interval */
};

struct schedule {
	enum schedule_kind kind;
	uint64_t minutes; /* bits 0 to 59 */
	uint32_t hours;   /* bits 0 to 23 */
	uint32_t days;    /* bits 1 to 31 */
	uint16_t months;  /* bits 1 to 12 */
	uint8_t weekdays; /* bits 0 (Sunday) to 6 */
	bool either_day;  /* both kinds of day are restricted: one is enough */
	uint16_t n_times;
	uint16_t times[SCHEDULE_MAX_TIMES]; /* minutes since midnight, rising */
	int64_t every_us;
	char text[SCHEDULE_TEXT_MAX]; /* as written */
};

/* ERR_USAGE says which field is wrong and how to write it; one that can never come (30
 * February) is wrong too.  Blanks around it are allowed. */
int schedule_parse(const char *text, struct schedule *ret, struct err *err) MUST_USE;
/* At the multiples of `interval_us` (at least a second); 0: off. */
void schedule_every(int64_t interval_us, struct schedule *ret);

/* The first scheduled moment after `after_us`; 0: there is none within the horizon.  `zone`
 * NULL: UTC. */
int64_t schedule_next_us(const struct schedule *s, const struct zone *zone, int64_t after_us);

/* At least 0, below `bound_us` (0 when that is not positive); the same for the same name. */
int64_t schedule_delay_us(const char *name, int64_t bound_us);

struct schedule_due {
	bool due;
	int64_t scheduled_us; /* the latest scheduled moment up to now, if due */
	unsigned missed;      /* earlier ones since the last run that this one makes up for;
	                       * not counted past 1000 */
	int64_t next_us;      /* the first after now, delay included; 0: none */
};

/*
 * What is due at `now_us` for something that last ran for a moment scheduled at or before
 * `last_us` (when it began; or when it was first configured), with its runs delayed by
 * `delay_us`.  A `last_us` in the future (the clock was set back) counts as now.
 */
void schedule_due(const struct schedule *s, const struct zone *zone, int64_t delay_us,
                  int64_t last_us, int64_t now_us, struct schedule_due *ret);

#endif
