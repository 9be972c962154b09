/* SPDX-License-Identifier: Apache-2.0 */
/* Any text as a schedule, a duration, a size, a time zone: what is taken has a next moment (unless
 * it is off) that comes later and is the same however it is reached; durations print back. */
#include "engine/base/clock.h"
#include "engine/base/units.h"
#include "engine/schedule/schedule.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define NOW_US INT64_C(1711846800000000) /* the night of a time change */

static void check_schedule(const struct schedule *s, const struct zone *zone)
{
	int64_t t = NOW_US;
	struct schedule_due due;

	for (int i = 0; i < 5; i++) {
		int64_t next = schedule_next_us(s, zone, t);
		if (s->kind == SCHEDULE_OFF ? next != 0 : next <= t && next != 0)
			abort();
		if (next == 0)
			break;
		/* From anywhere between, it is the same. */
		if (schedule_next_us(s, zone, t + (next - t) / 2) != next ||
		    schedule_next_us(s, zone, next - 1) != next)
			abort();
		t = next;
	}
	if (s->kind != SCHEDULE_OFF && s->kind != SCHEDULE_EVERY && t == NOW_US)
		abort();
	schedule_due(s, zone, 0, NOW_US, t, &due);
	if (t > NOW_US && (!due.due || due.scheduled_us != t))
		abort();
}

static void check_units(const char *text)
{
	char back[DURATION_STR_MAX];
	int64_t us, again;
	uint64_t bytes;

	if (duration_parse(text, &us, NULL) == 0) {
		duration_format(us, back);
		if (us < 0 || duration_parse(back, &again, NULL) || again != us)
			abort();
	}
	if (size_parse(text, &bytes, NULL) == 0 && !bytes && strpbrk(text, "123456789") == NULL &&
	    !strchr(text, '0'))
		abort();
}

static void check_zone(const char *text)
{
	struct zone *z;
	int64_t moments[2];

	if (strcmp(text, "local") == 0 || zone_open(text, &z, NULL))
		return;
	for (int64_t t = NOW_US; t < NOW_US + 400 * 86400 * US_PER_SECOND;
	     t += 13 * 86400 * US_PER_SECOND) {
		int64_t civil = t + zone_offset_s(z, t) * US_PER_SECOND;
		int n = zone_from_civil(z, civil, moments);
		if (n < 1 || (moments[0] != t && (n < 2 || moments[1] != t)))
			abort();
		if (zone_next_change_us(z, t) <= t)
			abort();
	}
	zone_free(z);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct zone *berlin;
	char text[256];
	struct schedule s;
	struct err err = ERR_INIT;

	if (size >= sizeof(text))
		return 0;
	if (!berlin && zone_open("CET-1CEST,M3.5.0,M10.5.0/3", &berlin, NULL))
		abort();
	memcpy(text, data, size);
	text[size] = '\0';
	int rc = schedule_parse(text, &s, &err);
	if (rc == 0) {
		check_schedule(&s, NULL);
		check_schedule(&s, berlin);
	} else if (rc != -ERR_USAGE || !err.msg[0]) {
		abort();
	}
	check_units(text);
	check_zone(text);
	return 0;
}
