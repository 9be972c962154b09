/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/clock.h"

#include <stdio.h>
#include <time.h>

int64_t clock_now_us(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * US_PER_SECOND + ts.tv_nsec / 1000;
}

int64_t clock_mono_us(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * US_PER_SECOND + ts.tv_nsec / 1000;
}

int64_t clock_boot_us(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_BOOTTIME, &ts);
	return (int64_t)ts.tv_sec * US_PER_SECOND + ts.tv_nsec / 1000;
}

void clock_sleep_us(int64_t us)
{
	if (us <= 0)
		return;
	struct timespec ts = {.tv_sec = us / US_PER_SECOND, .tv_nsec = us % US_PER_SECOND * 1000};
	nanosleep(&ts, NULL);
}

/*
 * Days to civil date and back, after Howard Hinnant, "chrono-Compatible Low-Level Date
 * Algorithms": years are counted from March in eras of 400 years.
 */
void civil_from_us(int64_t time_us, struct civil *ret)
{
	int64_t day_us = 86400 * US_PER_SECOND;
	int64_t days = time_us / day_us;
	int64_t rest = time_us % day_us;
	if (rest < 0) {
		rest += day_us;
		days--;
	}
	days += 719468;
	int64_t era = (days >= 0 ? days : days - 146096) / 146097;
	int64_t doe = days - era * 146097;
	int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
	int64_t mp = (5 * doy + 2) / 153;

	ret->day = (int)(doy - (153 * mp + 2) / 5 + 1);
	ret->month = (int)(mp < 10 ? mp + 3 : mp - 9);
	ret->year = (int)(yoe + era * 400 + (ret->month <= 2));
	ret->us = (int)(rest % US_PER_SECOND);
	rest /= US_PER_SECOND;
	ret->second = (int)(rest % 60);
	ret->minute = (int)(rest / 60 % 60);
	ret->hour = (int)(rest / 3600);
}

int64_t civil_to_us(const struct civil *c)
{
	int64_t y = c->year - (c->month <= 2);
	int64_t era = (y >= 0 ? y : y - 399) / 400;
	int64_t yoe = y - era * 400;
	int64_t doy = (153 * (c->month + (c->month > 2 ? -3 : 9)) + 2) / 5 + c->day - 1;
	int64_t doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
	int64_t days = era * 146097 + doe - 719468;

	return ((days * 24 + c->hour) * 3600 + c->minute * 60 + c->second) * US_PER_SECOND + c->us;
}

static void format_with(int64_t time_us, char out[TIME_STR_MAX], char sep)
{
	struct civil c;

	civil_from_us(time_us, &c);
	int n = snprintf(out, TIME_STR_MAX, "%04d-%02d-%02dT%02d%c%02d%c%02d", c.year, c.month,
	                 c.day, c.hour, sep, c.minute, sep, c.second);
	if (c.us % 1000)
		n += snprintf(out + n, TIME_STR_MAX - (size_t)n, ".%06d", c.us);
	else if (c.us)
		n += snprintf(out + n, TIME_STR_MAX - (size_t)n, ".%03d", c.us / 1000);
	snprintf(out + n, TIME_STR_MAX - (size_t)n, "Z");
}

void time_format(int64_t time_us, char out[TIME_STR_MAX])
{
	format_with(time_us, out, ':');
}

void time_format_name(int64_t time_us, char out[TIME_STR_MAX])
{
	format_with(time_us, out, '-');
}

void time_format_compact(int64_t time_us, char out[TIME_STR_MAX])
{
	struct civil c;

	civil_from_us(time_us, &c);
	snprintf(out, TIME_STR_MAX, "%04d%02d%02dT%02d%02d%02d.%06dZ", c.year, c.month, c.day,
	         c.hour, c.minute, c.second, c.us);
}

static bool fixed_digits(const char *p, size_t n, int *ret)
{
	int v = 0;
	for (size_t i = 0; i < n; i++) {
		if (p[i] < '0' || p[i] > '9')
			return false;
		v = v * 10 + (p[i] - '0');
	}
	*ret = v;
	return true;
}

int time_parse_compact(const char *text, size_t len, int64_t *ret_us)
{
	struct civil c, back;

	if (len != 23 || text[8] != 'T' || text[15] != '.' || text[22] != 'Z')
		return -ERR_USAGE;
	if (!fixed_digits(text, 4, &c.year) || !fixed_digits(text + 4, 2, &c.month) ||
	    !fixed_digits(text + 6, 2, &c.day) || !fixed_digits(text + 9, 2, &c.hour) ||
	    !fixed_digits(text + 11, 2, &c.minute) || !fixed_digits(text + 13, 2, &c.second) ||
	    !fixed_digits(text + 16, 6, &c.us))
		return -ERR_USAGE;
	if (c.year < 1 || c.month < 1 || c.month > 12 || c.day < 1 || c.hour > 23 ||
	    c.minute > 59 || c.second > 59)
		return -ERR_USAGE;
	int64_t us = civil_to_us(&c);
	civil_from_us(us, &back);
	if (back.day != c.day || back.month != c.month)
		return -ERR_USAGE;
	*ret_us = us;
	return 0;
}
