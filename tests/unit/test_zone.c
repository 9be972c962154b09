/* SPDX-License-Identifier: Apache-2.0 */
/* Zones against the C library's own reading of the same files and rules. */
#include "engine/base/clock.h"
#include "engine/base/zone.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static const char *const names[] = {
        "UTC",
        "Europe/Berlin",
        "Europe/London",
        "Europe/Dublin", /* negative DST */
        "America/New_York",
        "America/Sao_Paulo", /* changed at midnight, gave it up */
        "America/Havana",
        "America/St_Johns",
        "Asia/Tehran",
        "Asia/Kolkata",
        "Asia/Kathmandu",
        "Australia/Lord_Howe", /* half an hour */
        "Australia/Sydney",
        "Africa/Casablanca", /* the year around, but for Ramadan */
        "Pacific/Apia",      /* left out a day */
        "Pacific/Chatham",
        "Pacific/Kiritimati",
        "America/Nuuk",
        "Africa/Cairo",
        "Antarctica/Troll", /* two hours */
        "Etc/GMT+5",
};
#define N_NAMES (sizeof(names) / sizeof(names[0]))

/* Each says when: for "EST5EDT" alone, where no file has that name, glibc goes by the law of 1987. */
static const char *const rules[] = {
        "CET-1CEST,M3.5.0,M10.5.0/3",      "EST5EDT,M3.2.0,M11.1.0",
        "NZST-12NZDT,M9.5.0,M4.1.0/3",     "<-03>3<-02>,M3.5.0/-2,M10.5.0/-1",
        "IST-1GMT0,M10.5.0,M3.5.0/1",      "<+0330>-3:30",
        "AAA3BBB2:30,J60/1:02:03,J300/26", "XXX-4YYY,59/0,300/22:30",
};
#define N_RULES (sizeof(rules) / sizeof(rules[0]))

/* Under valgrind a few zones do. */
static size_t stride(void)
{
	return getenv("ASOF_TEST_SHORT") ? 7 : 1;
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

static int32_t libc_offset(int64_t time_s)
{
	time_t t = (time_t)time_s;
	struct tm tm;

	assert_non_null(localtime_r(&t, &tm));
	return (int32_t)tm.tm_gmtoff;
}

static struct zone *open_zone(const char *name)
{
	struct err err = ERR_INIT;
	struct zone *z;

	if (zone_open(name, &z, &err))
		fail_msg("%s: %s", name, err.msg);
	assert_string_equal(zone_name(z), name);
	return z;
}

static void compare_at(const char *name, const struct zone *z, int64_t time_s)
{
	int32_t got = zone_offset_s(z, time_s * US_PER_SECOND), want = libc_offset(time_s);

	if (got != want)
		fail_msg("%s at %lld: %d, not %d", name, (long long)time_s, got, want);
}

/* Offsets at random moments from `first_s` to the year 2100, and on both sides of every change. */
static void compare(const char *name, int64_t first_s)
{
	cleanup_zone struct zone *z = open_zone(name);
	uint64_t s = 0x9e3779b97f4a7c15;
	int64_t at = first_s * US_PER_SECOND;
	int changes = 0;

	set_tz(name);
	for (int i = 0; i < 20000; i++)
		compare_at(name, z,
		           first_s + (int64_t)(next_random(&s) % (uint64_t)(4102444800 - first_s)));
	while ((at = zone_next_change_us(z, at)) < INT64_C(4102444800) * US_PER_SECOND) {
		int64_t t = at / US_PER_SECOND;
		assert_true(libc_offset(t) != libc_offset(t - 1));
		compare_at(name, z, t);
		compare_at(name, z, t - 1);
		if (++changes > 1000)
			fail_msg("%s: no end of changes", name);
	}
	/* None was passed over: the hours between, year by year, are those of the C library. */
	for (int64_t t = first_s, seen = libc_offset(t);
	     t<INT64_C(4102444800); t += stride()> 1 ? 6 * 3600 : 3600) {
		int64_t now = libc_offset(t);
		if (now != seen &&
		    zone_next_change_us(z, (t - 6 * 3600) * US_PER_SECOND) > t * US_PER_SECOND)
			fail_msg("%s: a change before %lld was missed", name, (long long)t);
		seen = now;
	}
}

static void test_files(void **state)
{
	for (size_t i = 0; i < N_NAMES; i += stride())
		compare(names[i], -315619200); /* 1960 */
}

static void test_rules(void **state)
{
	for (size_t i = 0; i < N_RULES; i += stride())
		compare(rules[i], 31536000); /* 1971: glibc takes no rule before 1970 */
}

/* Every reading of a civil time is one, and there is no other: by trying all offsets. */
static void check_civil(const char *name, const struct zone *z, int64_t civil_s)
{
	int64_t want[8], got[2];
	int n_want = 0;

	for (int64_t t = civil_s - 26 * 3600; t <= civil_s + 26 * 3600; t += 900)
		if (t + libc_offset(t) == civil_s && n_want < 8)
			want[n_want++] = t;
	int n = zone_from_civil(z, civil_s * US_PER_SECOND, got);
	if (n != n_want)
		fail_msg("%s, civil %lld: %d readings, not %d", name, (long long)civil_s, n,
		         n_want);
	for (int i = 0; i < n; i++)
		assert_int_equal(got[i], want[i] * US_PER_SECOND);
	if (n == 0) {
		int64_t t = got[0] / US_PER_SECOND;
		assert_true(t - 1 + libc_offset(t - 1) < civil_s);
		assert_true(t + libc_offset(t) > civil_s);
	}
}

static void test_from_civil(void **state)
{
	for (size_t i = 0; i < N_NAMES; i += stride()) {
		cleanup_zone struct zone *z = open_zone(names[i]);
		int64_t at = INT64_C(946684800) * US_PER_SECOND;
		set_tz(names[i]);
		check_civil(names[i], z, 1705314600);
		/* Around each change, in steps of which every offset is a multiple. */
		for (int n = 0; n < 80; n++) {
			at = zone_next_change_us(z, at);
			if (at == INT64_MAX)
				break;
			int64_t t = at / US_PER_SECOND + libc_offset(at / US_PER_SECOND);
			for (int64_t c = t - t % 900 - 3 * 3600; c <= t + 3 * 3600; c += 900)
				check_civil(names[i], z, c);
		}
	}
}

static void test_left_out_day(void **state)
{
	cleanup_zone struct zone *z = open_zone("Pacific/Apia");
	struct civil c = {.year = 2011, .month = 12, .day = 30, .hour = 12};
	int64_t got[2];

	set_tz("Pacific/Apia");
	assert_int_equal(zone_from_civil(z, civil_to_us(&c), got), 0);
	assert_int_equal(got[0], INT64_C(1325239200) * US_PER_SECOND); /* 10:00Z */
}

static void test_local(void **state)
{
	static const char *const tz[] = {"Asia/Tokyo", ":Asia/Tokyo", "JST-9",
	                                 "/usr/share/zoneinfo/Asia/Tokyo"};

	for (size_t i = 0; i < 4; i++) {
		set_tz(tz[i]);
		cleanup_zone struct zone *z = open_zone("local");
		assert_int_equal(zone_offset_s(z, 0), 9 * 3600);
	}
	set_tz("");
	cleanup_zone struct zone *z = open_zone("local");
	assert_int_equal(zone_offset_s(z, 0), 0);
	assert_int_equal(zone_offset_s(NULL, 0), 0);
	assert_string_equal(zone_name(NULL), "UTC");
}

static void test_refused(void **state)
{
	static const char *const texts[] = {
	        "",
	        "Europe",
	        "Europe/Nowhere",
	        "../../etc/passwd",
	        "/etc/passwd",
	        "tzdata.zi",
	        "leapseconds",
	        "right/Europe/Berlin",
	        "CET-",
	        "CET-25",
	        "CET-1CEST,M13.1.0,M10.5.0",
	        "CET-1CEST,M3.5.0",
	        "CET-1CEST,M3.5.0,M10.5.0/3x",
	        "CET-1CEST,M3.6.0,M10.5.0",
	        "CET-1CEST,J0,J5",
	        "<CET-1",
	        "Europe/Berlin\n",
	        "a-very-long-name-a-very-long-name-a-very-long-name-a-very-long-name-a-very-long-"
	        "name-a-very-long-name-a-very-long-name-a-very-long-name",
	};

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct err err = ERR_INIT;
		struct zone *z;
		if (zone_open(texts[i], &z, &err) != -ERR_USAGE)
			fail_msg("'%s' was taken for a zone", texts[i]);
		assert_true(err.msg[0]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_files),      cmocka_unit_test(test_rules),
	        cmocka_unit_test(test_from_civil), cmocka_unit_test(test_left_out_day),
	        cmocka_unit_test(test_local),      cmocka_unit_test(test_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
