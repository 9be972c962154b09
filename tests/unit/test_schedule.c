/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Schedules against an oracle that knows nothing of how they are computed: it goes through
 * time minute by minute, asks the C library what clocks show, and compares that with its own,
 * plain reading of the expression.
 */
#include "engine/base/clock.h"
#include "engine/base/units.h"
#include "engine/schedule/schedule.h"

#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define US_PER_MINUTE (60 * US_PER_SECOND)

static bool short_run(void)
{
	return getenv("ASOF_TEST_SHORT") != NULL;
}

static uint64_t next_random(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

static void set_tz(const char *tz)
{
	setenv("TZ", tz, 1);
	tzset();
}

static struct schedule parse(const char *text)
{
	struct err err = ERR_INIT;
	struct schedule s;

	if (schedule_parse(text, &s, &err))
		fail_msg("'%s': %s", text, err.msg);
	return s;
}

/* ---- the oracle ---- */

/* Whether number `v` is in a field of numbers, steps, ranges and lists: tried number by number. */
static bool in_field(const char *field, int v, int min, int max)
{
	char copy[128], *save = NULL;

	snprintf(copy, sizeof(copy), "%s", field);
	for (char *m = strtok_r(copy, ",", &save); m; m = strtok_r(NULL, ",", &save)) {
		int low = min, high = max, step = 1;
		char *slash = strchr(m, '/');
		if (slash) {
			*slash = '\0';
			step = (int)strtol(slash + 1, NULL, 10);
		}
		if (strcmp(m, "*") != 0) {
			char *dash = strchr(m, '-');
			low = (int)strtol(m, NULL, 10);
			high = dash ? (int)strtol(dash + 1, NULL, 10) : slash ? max : low;
		}
		if (v >= low && v <= high && (v - low) % step == 0)
			return true;
	}
	return false;
}

struct oracle {
	char fields[5][64];
	bool every_hour;
};

static void oracle_init(struct oracle *o, const char *text)
{
	assert_int_equal(sscanf(text, "%63s %63s %63s %63s %63s", o->fields[0], o->fields[1],
	                        o->fields[2], o->fields[3], o->fields[4]),
	                 5);
	o->every_hour = true;
	for (int h = 0; h < 24; h++)
		o->every_hour = o->every_hour && in_field(o->fields[1], h, 0, 23);
}

static bool oracle_matches(const struct oracle *o, const struct tm *tm)
{
	if (!in_field(o->fields[0], tm->tm_min, 0, 59) ||
	    !in_field(o->fields[1], tm->tm_hour, 0, 23) ||
	    !in_field(o->fields[3], tm->tm_mon + 1, 1, 12))
		return false;
	bool of_month = in_field(o->fields[2], tm->tm_mday, 1, 31);
	bool of_week = in_field(o->fields[4], tm->tm_wday, 0, 6);
	if (o->fields[2][0] != '*' && o->fields[4][0] != '*')
		return of_month || of_week;
	return of_month && of_week;
}

static int64_t civil_minute(time_t t)
{
	struct tm tm;

	localtime_r(&t, &tm);
	return ((int64_t)t + tm.tm_gmtoff) / 60;
}

/* Whether the expression's day and time is shown at civil minute `c`. */
static bool matches_civil(const struct oracle *o, int64_t c)
{
	time_t t = (time_t)(c * 60);
	struct tm tm;

	gmtime_r(&t, &tm);
	return oracle_matches(o, &tm);
}

/* Whether clocks showed that minute before in the last three hours. */
static bool shown_before(time_t t, int64_t c)
{
	for (time_t back = t - 60; back >= t - 3 * 3600; back -= 60)
		if (civil_minute(back) == c)
			return true;
	return false;
}

/* Whether something runs at minute `t`; `before` is what clocks showed a minute ago. */
static bool oracle_runs(const struct oracle *o, time_t t, int64_t before, int64_t shown)
{
	if (o->every_hour)
		return matches_civil(o, shown);
	if (matches_civil(o, shown) && !(shown <= before && shown_before(t, shown)) &&
	    !shown_before(t, shown))
		return true;
	for (int64_t skipped = before + 1; skipped < shown; skipped++)
		if (matches_civil(o, skipped))
			return true;
	return false;
}

/* All moments of [from, until), compared one by one. */
static void compare(const char *text, const char *zone_name, time_t from, time_t until)
{
	cleanup_zone struct zone *zone = NULL;
	struct schedule s = parse(text);
	struct oracle o;
	int64_t next;

	assert_int_equal(zone_open(zone_name, &zone, NULL), 0);
	set_tz(zone_name);
	oracle_init(&o, text);
	next = schedule_next_us(&s, zone, from * US_PER_SECOND - 1);
	int64_t before = civil_minute(from - 60);
	for (time_t t = from; t < until; t += 60) {
		int64_t shown = civil_minute(t);
		/* Only near a change is anything but the plain question asked. */
		bool runs = shown == before + 1 && civil_minute(t - 3 * 3600) == shown - 180
		                    ? matches_civil(&o, shown)
		                    : oracle_runs(&o, t, before, shown);
		if (runs != (next == t * US_PER_SECOND))
			fail_msg("'%s' in %s at %lld: %s, next is %lld", text, zone_name,
			         (long long)t, runs ? "should run" : "should not run",
			         (long long)(next / US_PER_SECOND));
		if (runs)
			next = schedule_next_us(&s, zone, next);
		before = shown;
	}
}

static const char *const zone_names[] = {
        "UTC",           "Europe/Berlin",       "America/New_York",  "America/Havana",
        "Asia/Kolkata",  "Australia/Lord_Howe", "America/Sao_Paulo", "Pacific/Apia",
        "Europe/Dublin", "Antarctica/Troll",    "America/Asuncion",
};
#define N_ZONES (sizeof(zone_names) / sizeof(zone_names[0]))

#define YEAR_2011 1293840000
#define YEAR_2018 1514764800
#define YEAR_S (366 * 86400)

/* The expressions that people use, over years with every kind of change. */
static void test_known_against_oracle(void **state)
{
	static const char *const texts[] = {"0 2 * * *",    "30 2 * * *",    "*/15 * * * *",
	                                    "30 * * * *",   "0 0 * * *",     "15,45 0-3 * * *",
	                                    "0 1 1,15 * 1", "59 23 31 12 *", "0 */2 * * 1-5",
	                                    "0 0-22 * * *", "5 4 */2 * 0"};

	for (size_t z = 0; z < N_ZONES; z++) {
		for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
			if ((z + i) % (short_run() ? 16 : 3))
				continue;
			compare(texts[i], zone_names[z], YEAR_2018, YEAR_2018 + YEAR_S);
		}
	}
	compare("0 12 * * *", "Pacific/Apia", YEAR_2011, YEAR_2011 + YEAR_S);
	compare("*/20 * * * *", "Pacific/Apia", YEAR_2011, YEAR_2011 + YEAR_S);
}

static void random_field(uint64_t *s, int min, int max, char *out, size_t size)
{
	size_t used = 0;
	int n = 1 + (int)(next_random(s) % 3);

	if (next_random(s) % 3 == 0) {
		snprintf(out, size, next_random(s) % 2 ? "*" : "*/%d",
		         (int)(1 + next_random(s) % 7));
		return;
	}
	for (int i = 0; i < n; i++) {
		int a = min + (int)(next_random(s) % (uint64_t)(max - min + 1));
		int b = a + (int)(next_random(s) % (uint64_t)(max - a + 1));
		const char *comma = i ? "," : "";
		switch (next_random(s) % 4) {
		case 0:
			used += (size_t)snprintf(out + used, size - used, "%s%d-%d", comma, a, b);
			break;
		case 1:
			used += (size_t)snprintf(out + used, size - used, "%s%d-%d/%d", comma, a, b,
			                         (int)(1 + next_random(s) % 9));
			break;
		case 2:
			used += (size_t)snprintf(out + used, size - used, "%s%d/%d", comma, a,
			                         (int)(1 + next_random(s) % 9));
			break;
		default:
			used += (size_t)snprintf(out + used, size - used, "%s%d", comma, a);
		}
	}
}

/* Random expressions, random zones, a random stretch that has a change in it. */
static void test_random_against_oracle(void **state)
{
	uint64_t seed = (uint64_t)time(NULL) | 1, s = seed;
	int rounds = short_run() ? 10 : 150;

	print_message("seed %llu\n", (unsigned long long)seed);
	for (int i = 0; i < rounds; i++) {
		char f[5][64], text[SCHEDULE_TEXT_MAX];
		cleanup_zone struct zone *zone = NULL;
		const char *name = zone_names[next_random(&s) % N_ZONES];
		struct schedule parsed;

		random_field(&s, 0, 59, f[0], sizeof(f[0]));
		random_field(&s, 0, 23, f[1], sizeof(f[1]));
		random_field(&s, 1, 31, f[2], sizeof(f[2]));
		random_field(&s, 1, 12, f[3], sizeof(f[3]));
		random_field(&s, 0, 6, f[4], sizeof(f[4]));
		int n = snprintf(text, sizeof(text), "%s %s %s %s %s", f[0], f[1], f[2], f[3],
		                 f[4]);
		if (n >= (int)sizeof(text) || schedule_parse(text, &parsed, NULL))
			continue; /* too long, or a day that never comes */
		assert_int_equal(zone_open(name, &zone, NULL), 0);
		int64_t change = zone_next_change_us(
		        zone, (YEAR_2011 + (int64_t)(next_random(&s) % 900000000)) * US_PER_SECOND);
		int64_t from = change == INT64_MAX ? YEAR_2018 : change / US_PER_SECOND - 5 * 86400;
		from -= from % 60;
		compare(text, name, (time_t)from, (time_t)from + 12 * 86400);
	}
}

/* Far ahead: 29 February of a leap year, over a century that is none. */
static void test_rare(void **state)
{
	struct schedule s = parse("0 0 29 2 *");
	char text[TIME_STR_MAX];
	int64_t t = 0;

	assert_int_equal(time_parse("2096-03-01T00:00:00Z", 0, TIME_ZONE_UTC, &t, NULL, NULL), 0);
	time_format(schedule_next_us(&s, NULL, t), text);
	assert_string_equal(text, "2104-02-29T00:00:00Z");
	/* 1 February on a Monday: both days must fit, since one of them has a star. */
	s = parse("0 0 */30 2 1");
	for (int i = 0; i < 30; i++) {
		struct civil c;
		t = schedule_next_us(&s, NULL, t);
		assert_true(t > 0);
		civil_from_us(t, &c);
		assert_int_equal(c.month, 2);
		assert_int_equal(c.day, 1);
	}
}

/* ---- other forms ---- */

static void expect_next(const char *text, const char *zone_name, const char *after,
                        const char *want)
{
	cleanup_zone struct zone *zone = NULL;
	struct schedule s = parse(text);
	char got[TIME_STR_MAX];
	int64_t t;

	assert_int_equal(zone_open(zone_name, &zone, NULL), 0);
	assert_int_equal(time_parse(after, 0, TIME_ZONE_UTC, &t, NULL, NULL), 0);
	time_format(schedule_next_us(&s, zone, t), got);
	if (strcmp(got, want) != 0)
		fail_msg("'%s' in %s after %s: %s, not %s", text, zone_name, after, got, want);
}

static void test_next(void **state)
{
	static const char *const cases[][4] = {
	        {"02:00", "UTC", "2024-01-15T01:59:59Z", "2024-01-15T02:00:00Z"},
	        {"02:00", "UTC", "2024-01-15T02:00:00Z", "2024-01-16T02:00:00Z"},
	        {" 14:30,02:00 ", "UTC", "2024-01-15T02:00:00Z", "2024-01-15T14:30:00Z"},
	        {"2:05 14:30", "UTC", "2024-01-15T14:30:00Z", "2024-01-16T02:05:00Z"},
	        {"02:00", "Europe/Berlin", "2024-01-15T00:00:00Z", "2024-01-15T01:00:00Z"},
	        /* 31 March 2024: 02:00 to 03:00 is left out, at 01:00Z. */
	        {"02:30", "Europe/Berlin", "2024-03-31T00:00:00Z", "2024-03-31T01:00:00Z"},
	        {"02:10, 02:50", "Europe/Berlin", "2024-03-31T01:00:00Z", "2024-04-01T00:10:00Z"},
	        /* 27 October 2024: 02:00 to 03:00 comes twice. */
	        {"02:30", "Europe/Berlin", "2024-10-26T23:00:00Z", "2024-10-27T00:30:00Z"},
	        {"02:30", "Europe/Berlin", "2024-10-27T00:30:00Z", "2024-10-28T01:30:00Z"},
	        {"30 * * * *", "Europe/Berlin", "2024-10-27T00:30:00Z", "2024-10-27T01:30:00Z"},
	        {"every 6h", "Asia/Tokyo", "2024-01-15T05:00:00Z", "2024-01-15T06:00:00Z"},
	        {"@every 90s", "UTC", "2024-01-15T00:00:00Z", "2024-01-15T00:01:30Z"},
	        {"@hourly", "UTC", "2024-01-15T00:00:00Z", "2024-01-15T01:00:00Z"},
	        {"@daily", "UTC", "2024-01-15T00:00:00Z", "2024-01-16T00:00:00Z"},
	        {"@weekly", "UTC", "2024-01-15T00:00:00Z", "2024-01-21T00:00:00Z"},
	        {"@monthly", "UTC", "2024-01-15T00:00:00Z", "2024-02-01T00:00:00Z"},
	        {"@Yearly", "UTC", "2024-01-15T00:00:00Z", "2025-01-01T00:00:00Z"},
	        {"0 0 * * SUN", "UTC", "2024-01-15T00:00:00Z", "2024-01-21T00:00:00Z"},
	        {"0 0 * * 7", "UTC", "2024-01-15T00:00:00Z", "2024-01-21T00:00:00Z"},
	        {"0 0 * * fri-sun", "UTC", "2024-01-15T00:00:00Z", "2024-01-19T00:00:00Z"},
	        {"0 0 * * 5-7", "UTC", "2024-01-20T00:00:00Z", "2024-01-21T00:00:00Z"},
	        {"0 0 * * 0-0", "UTC", "2024-01-15T00:00:00Z", "2024-01-21T00:00:00Z"},
	        {"0 0 1 jan,Jul *", "UTC", "2024-01-15T00:00:00Z", "2024-07-01T00:00:00Z"},
	        {"0\t0  1 */6 *", "UTC", "2024-01-15T00:00:00Z", "2024-07-01T00:00:00Z"},
	        {"0 0 13 * fri", "UTC", "2024-01-15T00:00:00Z", "2024-01-19T00:00:00Z"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		expect_next(cases[i][0], cases[i][1], cases[i][2], cases[i][3]);
}

static void test_off(void **state)
{
	struct schedule s = parse("off");

	assert_int_equal(schedule_next_us(&s, NULL, 0), 0);
	s = parse("Never");
	assert_int_equal(s.kind, SCHEDULE_OFF);
	schedule_every(0, &s);
	assert_int_equal(schedule_next_us(&s, NULL, 0), 0);
	schedule_every(90 * US_PER_SECOND, &s);
	assert_string_equal(s.text, "every 1m30s");
	assert_int_equal(schedule_next_us(&s, NULL, 0), 90 * US_PER_SECOND);
	/* The edges of time. */
	assert_int_equal(schedule_next_us(&s, NULL, INT64_MAX), 0);
	assert_true(schedule_next_us(&s, NULL, INT64_MIN) > TIME_MIN_US);
	s = parse("* * * * *");
	assert_int_equal(schedule_next_us(&s, NULL, INT64_MAX), 0);
	assert_true(schedule_next_us(&s, NULL, INT64_MIN) > TIME_MIN_US);
}

static void test_refused(void **state)
{
	static const char *const texts[] = {
	        "",
	        " ",
	        "x",
	        "* * * *",
	        "* * * * * *",
	        "0 0 2 * * *",
	        "60 * * * *",
	        "* 24 * * *",
	        "* * 0 * *",
	        "* * 32 * *",
	        "* * * 0 *",
	        "* * * 13 *",
	        "* * * * 8",
	        "-1 * * * *",
	        "*/0 * * * *",
	        "5/ * * * *",
	        "5- * * * *",
	        "9-5 * * * *",
	        "1,,2 * * * *",
	        ",1 * * * *",
	        "1, * * * *",
	        "** * * * *",
	        "*5 * * * *",
	        "1x * * * *",
	        "* * * foo *",
	        "* * * january *",
	        "* * * * mon1",
	        "jan * * * *",
	        "0 0 30 2 *",
	        "0 0 31 4,6,9,11 *",
	        "99999999999 * * * *",
	        "*/99999999999 * * * *",
	        "@reboot",
	        "@",
	        "@every",
	        "every",
	        "every 0",
	        "every 10ms",
	        "every x",
	        "24:00",
	        "12:60",
	        "1:5",
	        "012:00",
	        "12:00,",
	        ",12:00",
	        "12:00 x",
	        "12:00:30",
	        ":",
	        "0 0 * * * "
	        "                                                                                "
	        "                                                                             x",
	        "00:00 00:01 00:02 00:03 00:04 00:05 00:06 00:07 00:08 00:09 00:10 00:11 00:12 "
	        "00:13 00:14 00:15 00:16 00:17 00:18",
	};

	for (size_t i = 0; i + 1 < sizeof(texts) / sizeof(texts[0]); i++) {
		struct err err = ERR_INIT;
		struct schedule s = {.kind = SCHEDULE_EVERY};
		if (schedule_parse(texts[i], &s, &err) != -ERR_USAGE)
			fail_msg("'%s' was taken for a schedule", texts[i]);
		assert_true(err.msg[0]);
		assert_int_equal(s.kind, SCHEDULE_EVERY); /* untouched */
	}
	struct schedule s = parse(texts[sizeof(texts) / sizeof(texts[0]) - 1]);
	assert_int_equal(s.n_times, 19);
}

/* ---- due ---- */

/* Against counting by hand: random schedules, last runs, delays, moments. */
static void test_due(void **state)
{
	static const char *const texts[] = {"*/15 * * * *", "0 2 * * *", "02:00, 14:00",
	                                    "every 7m",     "off",       "0 0 1 * *"};
	cleanup_zone struct zone *zone = NULL;
	uint64_t s = 0x2545f4914f6cdd1d;

	assert_int_equal(zone_open("Europe/Berlin", &zone, NULL), 0);
	for (int i = 0; i < (short_run() ? 200 : 3000); i++) {
		struct schedule schedule = parse(texts[next_random(&s) % 6]);
		int64_t now = (1700000000 + (int64_t)(next_random(&s) % 40000000)) * US_PER_SECOND;
		int64_t last = now - (int64_t)(next_random(&s) % 800000) * US_PER_SECOND +
		               600 * US_PER_SECOND;
		int64_t delay = (int64_t)(next_random(&s) % 1200) * US_PER_SECOND;
		int64_t latest = 0, t = last > now ? now : last;
		unsigned n = 0;
		struct schedule_due due;

		while ((t = schedule_next_us(&schedule, zone, t)) && t + delay <= now) {
			latest = t;
			n++;
		}
		schedule_due(&schedule, zone, delay, last, now, &due);
		assert_int_equal(due.due, n > 0);
		assert_int_equal(due.scheduled_us, latest);
		if (n)
			assert_int_equal(due.missed, n - 1 < 1000 ? n - 1 : 1000);
		if (schedule.kind == SCHEDULE_OFF)
			assert_int_equal(due.next_us, 0);
		else
			assert_true(due.next_us > now &&
			            due.next_us - delay <= now + 32 * 86400 * US_PER_SECOND);
	}
}

/* Years of minutes are not gone through one by one. */
static void test_long_off(void **state)
{
	struct schedule s = parse("* * * * *");
	struct schedule_due due;
	int64_t now = INT64_C(1705314630) * US_PER_SECOND;

	schedule_due(&s, NULL, 0, US_PER_SECOND, now, &due);
	assert_true(due.due);
	assert_int_equal(due.missed, 1000);
	assert_int_equal(due.scheduled_us, now - 30 * US_PER_SECOND);
	assert_int_equal(due.next_us, now + 30 * US_PER_SECOND);
}

static void test_delay(void **state)
{
	int64_t low = INT64_MAX, high = 0;

	assert_int_equal(schedule_delay_us("x", 0), 0);
	assert_int_equal(schedule_delay_us("x", -5), 0);
	assert_int_equal(schedule_delay_us("x", 1), 0);
	for (int i = 0; i < 1000; i++) {
		char name[16];
		snprintf(name, sizeof(name), "db%d", i);
		int64_t d = schedule_delay_us(name, 300 * US_PER_SECOND);
		assert_true(d >= 0 && d < 300 * US_PER_SECOND);
		assert_int_equal(d, schedule_delay_us(name, 300 * US_PER_SECOND));
		low = d < low ? d : low;
		high = d > high ? d : high;
	}
	assert_true(low < 10 * US_PER_SECOND && high > 290 * US_PER_SECOND);
}

/* ---- units ---- */

static void test_durations(void **state)
{
	static const struct {
		const char *text;
		int64_t us;
	} cases[] = {
	        {"0", 0},
	        {"0s", 0},
	        {"72h", 72 * 3600 * US_PER_SECOND},
	        {"30d", 30 * 86400 * US_PER_SECOND},
	        {"100ms", 100000},
	        {"1m30s", 90 * US_PER_SECOND},
	        {"1h30m", 5400 * US_PER_SECOND},
	        {"1.5h", 5400 * US_PER_SECOND},
	        {".5s", 500000},
	        {"1.s", US_PER_SECOND},
	        {"2w", 14 * 86400 * US_PER_SECOND},
	        {"1y", 365 * 86400 * US_PER_SECOND},
	        {"15us", 15},
	        {"15µs", 15},
	        {"1500ns", 2}, /* rounded up */
	        {"1ns", 1},
	        {"1d12h", 129600 * US_PER_SECOND},
	        {"292000y", INT64_C(292000) * 365 * 86400 * US_PER_SECOND},
	};
	static const char *const wrong[] = {
	        "",
	        "5",
	        "-5s",
	        "+5s",
	        "5 s",
	        "s",
	        "h1",
	        "1h30",
	        "5sec",
	        "5S",
	        "1e3s",
	        "1..5s",
	        ".s",
	        "5s ",
	        " 5s",
	        "300000y",
	        "99999999999999999999999h",
	        "0.1234567890123456789s",
	        "5м",
	        "1h\n",
	};
	char text[DURATION_STR_MAX];
	int64_t us;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		if (duration_parse(cases[i].text, &us, NULL) || us != cases[i].us)
			fail_msg("%s: %lld", cases[i].text, (long long)us);
		duration_format(us, text);
		int64_t again = -1;
		assert_int_equal(duration_parse(text, &again, NULL), 0);
		assert_int_equal(again, us);
	}
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct err err = ERR_INIT;
		if (duration_parse(wrong[i], &us, &err) != -ERR_USAGE || !err.msg[0])
			fail_msg("'%s' was taken for a duration", wrong[i]);
	}
	duration_format(72 * 3600 * US_PER_SECOND, text);
	assert_string_equal(text, "3d");
	duration_format(5400 * US_PER_SECOND, text);
	assert_string_equal(text, "1h30m");
	duration_format(100000, text);
	assert_string_equal(text, "100ms");
}

/* Sums of units, put together at random, are what they say. */
static void test_random_durations(void **state)
{
	static const struct {
		const char *unit;
		int64_t us;
	} units[] = {{"us", 1},
	             {"ms", 1000},
	             {"s", US_PER_SECOND},
	             {"m", US_PER_MINUTE},
	             {"h", 3600 * US_PER_SECOND},
	             {"d", 86400 * US_PER_SECOND},
	             {"w", 7 * 86400 * US_PER_SECOND}};
	uint64_t s = 88172645463325252;

	for (int i = 0; i < 20000; i++) {
		char text[128], back[DURATION_STR_MAX];
		int64_t want = 0, got;
		size_t used = 0;
		for (int n = 1 + (int)(next_random(&s) % 4); n > 0; n--) {
			size_t u = next_random(&s) % 7;
			int64_t count = (int64_t)(next_random(&s) % 100000);
			used += (size_t)snprintf(text + used, sizeof(text) - used, "%lld%s",
			                         (long long)count, units[u].unit);
			want += count * units[u].us;
		}
		if (duration_parse(text, &got, NULL) || got != want)
			fail_msg("%s: %lld, not %lld", text, (long long)got, (long long)want);
		duration_format(want, back);
		if (duration_parse(back, &got, NULL) || got != want)
			fail_msg("%lld printed as %s", (long long)want, back);
	}
}

static void test_sizes(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} cases[] = {{"0", 0},
	             {"4096", 4096},
	             {"64K", 65536},
	             {"64k", 65536},
	             {"10MB", 10 << 20},
	             {"10MiB", 10 << 20},
	             {"1.5G", UINT64_C(3) << 29},
	             {"1T", UINT64_C(1) << 40},
	             {"15E", UINT64_C(15) << 60},
	             {"7b", 7},
	             {"18446744073709551615", UINT64_MAX}};
	static const char *const wrong[] = {"",    "K",  "-1",   "1.5",   "1 M",
	                                    "16E", "5X", "5MBs", "1..5M", "18446744073709551616"};
	uint64_t bytes;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		if (size_parse(cases[i].text, &bytes, NULL) || bytes != cases[i].bytes)
			fail_msg("%s: %llu", cases[i].text, (unsigned long long)bytes);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		if (size_parse(wrong[i], &bytes, NULL) != -ERR_USAGE)
			fail_msg("'%s' was taken for a size", wrong[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_known_against_oracle),
	        cmocka_unit_test(test_random_against_oracle),
	        cmocka_unit_test(test_rare),
	        cmocka_unit_test(test_next),
	        cmocka_unit_test(test_off),
	        cmocka_unit_test(test_refused),
	        cmocka_unit_test(test_due),
	        cmocka_unit_test(test_long_off),
	        cmocka_unit_test(test_delay),
	        cmocka_unit_test(test_durations),
	        cmocka_unit_test(test_random_durations),
	        cmocka_unit_test(test_sizes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
