/* SPDX-License-Identifier: Apache-2.0 */
/* Any text as a TIME: what parses is a moment of years 1 to 9999 whose printed forms parse to
 * itself again. */
#include "engine/base/clock.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define NOW_US INT64_C(1705314600123456)

static void expect(const char *text, int64_t want_us)
{
	struct err err = ERR_INIT;
	int64_t us;
	bool relative;

	if (time_parse(text, NOW_US, TIME_ZONE_UTC, &us, &relative, &err) || relative ||
	    us != want_us)
		abort();
}

static void check(int64_t us)
{
	char text[TIME_STR_MAX];
	int64_t again;

	if (us < TIME_MIN_US || us > TIME_MAX_US)
		abort();
	time_format(us, text);
	expect(text, us);
	time_format_name(us, text);
	expect(text, us);
	time_format_compact(us, text);
	expect(text, us);
	if (time_parse_compact(text, strlen(text), &again) || again != us)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char text[256];
	int64_t us;

	if (size >= sizeof(text))
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	for (int zone = TIME_ZONE_UTC; zone <= TIME_ZONE_LOCAL; zone++) {
		struct err err = ERR_INIT;
		int rc = time_parse(text, NOW_US, (enum time_zone)zone, &us, NULL, &err);
		if (rc == 0)
			check(us);
		else if (rc != -ERR_USAGE || !err.msg[0])
			abort();
	}
	if (time_parse_compact(text, size, &us) == 0)
		check(us);
	return 0;
}
