/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the next moment is found.  Days are gone through one by one, from the day before the one
 * that clocks show; on the first that has a moment after the given one the earliest of it and
 * of the two days behind it is the answer (a time change can put a later day's first moment
 * before it).  On a day far from any change the minutes are looked up; on the others every
 * minute that matches is turned into its moments.
 */
#include "engine/schedule/schedule.h"

#include "engine/base/clock.h"
#include "engine/base/hash.h"
#include "engine/base/units.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define US_PER_MINUTE (60 * US_PER_SECOND)
#define US_PER_DAY (86400 * US_PER_SECOND)
#define MINUTES_PER_DAY 1440
#define ALL_HOURS UINT32_C(0xffffff)
#define MISSED_MAX 1000
/* A change of clocks further away than that leaves a day alone. */
#define FAR_US (27 * 3600 * US_PER_SECOND)

/* ---- parsing ---- */

struct field {
	const char *what;
	unsigned min, max;
	const char *names; /* three letters each, the first for number `first_name` */
	unsigned first_name;
};

static const struct field fields[5] = {
        {"minute", 0, 59, "", 0},
        {"hour", 0, 23, "", 0},
        {"day of the month", 1, 31, "", 0},
        {"month", 1, 12, "janfebmaraprmayjunjulaugsepoctnovdec", 1},
        {"day of the week", 0, 7, "sunmontuewedthufrisat", 0},
};

static int bad_field(const struct field *f, const char *text, size_t len, const char *why,
                     struct err *err)
{
	return err_set(err, ERR_USAGE, 0, "%s '%.*s' %s (%u to %u, *, lists, ranges, steps: */15)",
	               f->what, (int)(len < 40 ? len : 40), text, why, f->min, f->max);
}

static bool read_value(const struct field *f, const char **p, unsigned *ret)
{
	unsigned v = 0, digits = 0;

	for (; isdigit((unsigned char)**p) && digits < 4; (*p)++, digits++)
		v = v * 10 + (unsigned)(**p - '0');
	if (digits) {
		*ret = v;
		return v >= f->min && v <= f->max;
	}
	for (unsigned i = 0; f->names[3 * i]; i++) {
		if (strncasecmp(*p, f->names + 3 * (size_t)i, 3) != 0)
			continue;
		*p += 3;
		*ret = f->first_name + i;
		return !isalpha((unsigned char)**p);
	}
	return false;
}

/* One member of a list: "*", "5", "5-10", each with "/STEP". */
static bool read_member(const struct field *f, const char **p, const char *end, uint64_t *bits)
{
	unsigned low = f->min, high = f->max, step = 1;
	bool open = **p == '*';

	if (open) {
		(*p)++;
		if (f->max == 7) /* Sunday once */
			high = 6;
	} else if (!read_value(f, p, &low)) {
		return false;
	} else if (**p == '-') {
		(*p)++;
		if (!read_value(f, p, &high))
			return false;
		if (f->max == 7 && high == 0 && low > 0) /* fri-sun */
			high = 7;
		if (high < low)
			return false;
		open = true;
	} else {
		high = low;
	}
	if (**p == '/') {
		unsigned digits = 0;
		(*p)++;
		for (step = 0; isdigit((unsigned char)**p) && digits < 4; (*p)++, digits++)
			step = step * 10 + (unsigned)(**p - '0');
		if (!digits || step == 0)
			return false;
		if (!open)
			high = f->max == 7 ? 6 : f->max;
	}
	if (*p > end)
		return false;
	for (unsigned v = low; v <= high; v += step)
		*bits |= UINT64_C(1) << v;
	return true;
}

static int read_field(const struct field *f, const char *text, size_t len, uint64_t *ret,
                      struct err *err)
{
	const char *p = text, *end = text + len;

	*ret = 0;
	do {
		if (!read_member(f, &p, end, ret))
			return bad_field(f, text, len, "cannot be read", err);
	} while (p < end && *p == ',' && p++);
	if (p != end)
		return bad_field(f, text, len, "cannot be read", err);
	return 0;
}

/* Whether any day of the calendar fits. */
static bool can_come(const struct schedule *s)
{
	static const unsigned char most_days[12] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};

	if (s->either_day)
		return true;
	for (unsigned month = 1; month <= 12; month++)
		if (s->months >> month & 1 &&
		    (s->days & ((UINT64_C(2) << most_days[month - 1]) - 1)) != 0)
			return true;
	return false;
}

static int parse_cron(const char *text, struct schedule *s, struct err *err)
{
	uint64_t bits[5];
	bool star[5];
	const char *p = text;
	int rc;

	for (int i = 0; i < 5; i++) {
		size_t len = strcspn(p, " \t");
		if (len == 0)
			return err_set(err, ERR_USAGE, 0,
			               "'%.60s' has %d fields, cron expressions have five (minute "
			               "hour day month weekday)",
			               text, i);
		if ((rc = read_field(&fields[i], p, len, &bits[i], err)))
			return rc;
		star[i] = *p == '*';
		p += len;
		p += strspn(p, " \t");
	}
	if (*p)
		return err_set(err, ERR_USAGE, 0,
		               "'%.60s' has more than the five fields of a cron expression", text);
	s->kind = SCHEDULE_CRON;
	s->minutes = bits[0];
	s->hours = (uint32_t)bits[1];
	s->days = (uint32_t)bits[2];
	s->months = (uint16_t)bits[3];
	s->weekdays = (uint8_t)((bits[4] | bits[4] >> 7) & 0x7f);
	s->either_day = !star[2] && !star[4];
	if (!can_come(s))
		return err_set(err, ERR_USAGE, 0, "'%.60s' never comes: no such day", text);
	return 0;
}

static int parse_macro(const char *text, struct schedule *s, struct err *err)
{
	static const char *const macros[][2] = {
	        {"@hourly", "0 * * * *"},   {"@daily", "0 0 * * *"},   {"@midnight", "0 0 * * *"},
	        {"@weekly", "0 0 * * 0"},   {"@monthly", "0 0 1 * *"}, {"@yearly", "0 0 1 1 *"},
	        {"@annually", "0 0 1 1 *"},
	};

	for (size_t i = 0; i < sizeof(macros) / sizeof(macros[0]); i++)
		if (strcasecmp(text, macros[i][0]) == 0)
			return parse_cron(macros[i][1], s, err);
	return err_set(err, ERR_USAGE, 0,
	               "'%.60s' is none of @hourly @daily @midnight @weekly @monthly @yearly",
	               text);
}

static void insert_time(struct schedule *s, uint16_t minute)
{
	uint16_t i = s->n_times;

	for (uint16_t k = 0; k < s->n_times; k++)
		if (s->times[k] == minute)
			return;
	for (; i > 0 && s->times[i - 1] > minute; i--)
		s->times[i] = s->times[i - 1];
	s->times[i] = minute;
	s->n_times++;
}

/* "2:00", "14:30" */
static bool read_time_of_day(const char **p, unsigned *ret_minute)
{
	unsigned v[2] = {0, 0};
	size_t digits[2] = {0, 0};

	for (int i = 0; i < 2; i++) {
		for (; isdigit((unsigned char)**p) && digits[i] < 3; (*p)++, digits[i]++)
			v[i] = v[i] * 10 + (unsigned)(**p - '0');
		if (i == 0 && *(*p)++ != ':')
			return false;
	}
	*ret_minute = v[0] * 60 + v[1];
	return digits[0] >= 1 && digits[0] <= 2 && digits[1] == 2 && v[0] < 24 && v[1] < 60;
}

/* "02:00", "02:00, 14:30" */
static int parse_times(const char *text, struct schedule *s, struct err *err)
{
	const char *p = text;

	s->kind = SCHEDULE_TIMES;
	for (;;) {
		unsigned minute_of_day;
		if (!read_time_of_day(&p, &minute_of_day))
			return err_set(err, ERR_USAGE, 0,
			               "'%.60s' is no list of times of day (write 02:00 or 02:00, "
			               "14:30)",
			               text);
		if (s->n_times == SCHEDULE_MAX_TIMES)
			return err_set(err, ERR_USAGE, 0, "'%.60s' has more than %d times", text,
			               SCHEDULE_MAX_TIMES);
		insert_time(s, (uint16_t)minute_of_day);
		p += strspn(p, " \t");
		if (!*p)
			return 0;
		p += *p == ',';
		p += strspn(p, " \t");
	}
}

static int parse_every(const char *text, struct schedule *s, struct err *err)
{
	int rc = duration_parse(text, &s->every_us, err);

	if (rc)
		return rc;
	if (s->every_us < US_PER_SECOND)
		return err_set(err, ERR_USAGE, 0, "'%.60s' is less than a second", text);
	s->kind = SCHEDULE_EVERY;
	return 0;
}

int schedule_parse(const char *text, struct schedule *ret, struct err *err)
{
	struct schedule s = {0};
	char t[SCHEDULE_TEXT_MAX];
	int rc;

	text += strspn(text, " \t");
	size_t len = strlen(text);
	while (len && (text[len - 1] == ' ' || text[len - 1] == '\t'))
		len--;
	if (len == 0)
		return err_set(err, ERR_USAGE, 0,
		               "no schedule given (write 0 2 * * *, 02:00, or every 6h)");
	if (len >= sizeof(t))
		return err_set(err, ERR_USAGE, 0, "'%.60s…' is too long for a schedule", text);
	memcpy(t, text, len);
	t[len] = '\0';
	if (strcasecmp(t, "off") == 0 || strcasecmp(t, "never") == 0)
		rc = 0;
	else if (strncasecmp(t, "@every ", 7) == 0 || strncasecmp(t, "every ", 6) == 0)
		rc = parse_every(strchr(t, ' ') + 1 + strspn(strchr(t, ' ') + 1, " \t"), &s, err);
	else if (t[0] == '@')
		rc = parse_macro(t, &s, err);
	else if (strchr(t, ':'))
		rc = parse_times(t, &s, err);
	else if (!strpbrk(t, " \t"))
		rc = err_set(err, ERR_USAGE, 0,
		             "'%.60s' is no schedule (write 0 2 * * *, 02:00, every 6h or @daily)",
		             t);
	else
		rc = parse_cron(t, &s, err);
	if (rc)
		return rc;
	memcpy(s.text, t, len + 1);
	*ret = s;
	return 0;
}

void schedule_every(int64_t interval_us, struct schedule *ret)
{
	char text[DURATION_STR_MAX];

	*ret = (struct schedule){0};
	snprintf(ret->text, sizeof(ret->text), "off");
	if (interval_us <= 0)
		return;
	ret->kind = SCHEDULE_EVERY;
	ret->every_us = interval_us < US_PER_SECOND ? US_PER_SECOND : interval_us;
	duration_format(ret->every_us, text);
	snprintf(ret->text, sizeof(ret->text), "every %s", text);
}

/* ---- moments ---- */

static int64_t floor_div(int64_t a, int64_t b)
{
	return a / b - (a % b < 0);
}

static bool day_matches(const struct schedule *s, int64_t day)
{
	struct civil c;

	if (s->kind == SCHEDULE_TIMES)
		return true;
	civil_from_us(day * US_PER_DAY, &c);
	if (!(s->months >> c.month & 1))
		return false;
	bool of_month = s->days >> c.day & 1;
	bool of_week = s->weekdays >> (((day + 4) % 7 + 7) % 7) & 1;
	return s->either_day ? of_month || of_week : of_month && of_week;
}

/* The first minute of a day from `from` on that is named, -1: none. */
static int next_minute(const struct schedule *s, int from)
{
	if (s->kind == SCHEDULE_TIMES) {
		for (int i = 0; i < s->n_times; i++)
			if (s->times[i] >= from)
				return s->times[i];
		return -1;
	}
	for (int hour = from / 60; hour < 24; hour++) {
		int minute = hour == from / 60 ? from % 60 : 0;
		uint64_t left = s->minutes >> minute;
		if (s->hours >> hour & 1 && left)
			return hour * 60 + minute + __builtin_ctzll(left);
	}
	return -1;
}

/* Goes by real time, see the header. */
static bool is_every_hour(const struct schedule *s)
{
	return s->kind == SCHEDULE_CRON && s->hours == ALL_HOURS;
}

static void take_earlier(int64_t moment, int64_t after_us, int64_t *best)
{
	if (moment > after_us && moment < *best)
		*best = moment;
}

/* The first moment of that day after `after_us`; INT64_MAX: none. */
static int64_t first_of_day(const struct schedule *s, const struct zone *zone, int64_t day,
                            int64_t after_us)
{
	int64_t start = day * US_PER_DAY, best = INT64_MAX;

	if (zone_next_change_us(zone, start - FAR_US) > start + US_PER_DAY + FAR_US) {
		int64_t offset = zone_offset_s(zone, start) * US_PER_SECOND;
		int64_t gone = after_us + offset - start;
		if (gone >= US_PER_DAY)
			return best;
		int minute = next_minute(s, gone < 0 ? 0 : (int)(gone / US_PER_MINUTE) + 1);
		return minute < 0 ? best : start + minute * US_PER_MINUTE - offset;
	}
	for (int minute = next_minute(s, 0); minute >= 0; minute = next_minute(s, minute + 1)) {
		int64_t moments[2];
		int n = zone_from_civil(zone, start + minute * US_PER_MINUTE, moments);
		if (n >= 1 || !is_every_hour(s))
			take_earlier(moments[0], after_us, &best);
		if (n == 2 && is_every_hour(s))
			take_earlier(moments[1], after_us, &best);
	}
	return best;
}

int64_t schedule_next_us(const struct schedule *s, const struct zone *zone, int64_t after_us)
{
	if (s->kind == SCHEDULE_OFF)
		return 0;
	if (after_us < TIME_MIN_US + 2 * US_PER_DAY)
		after_us = TIME_MIN_US + 2 * US_PER_DAY;
	if (after_us > TIME_MAX_US - (SCHEDULE_HORIZON_DAYS + 4) * US_PER_DAY)
		return 0;
	if (s->kind == SCHEDULE_EVERY) {
		int64_t next;
		if (__builtin_mul_overflow(floor_div(after_us, s->every_us) + 1, s->every_us,
		                           &next) ||
		    next > TIME_MAX_US)
			return 0;
		return next;
	}
	int64_t shown = after_us + zone_offset_s(zone, after_us) * US_PER_SECOND;
	int64_t first_day = floor_div(shown, US_PER_DAY) - 1;
	int64_t best = INT64_MAX, last_day = first_day + SCHEDULE_HORIZON_DAYS;
	for (int64_t day = first_day; day <= last_day; day++) {
		if (!day_matches(s, day))
			continue;
		int64_t moment = first_of_day(s, zone, day, after_us);
		if (moment < best) {
			if (best == INT64_MAX)
				last_day = day + 2;
			best = moment;
		}
	}
	return best == INT64_MAX ? 0 : best;
}

int64_t schedule_delay_us(const char *name, int64_t bound_us)
{
	if (bound_us <= 0)
		return 0;
	return (int64_t)(hash64(name, strlen(name), 0) % (uint64_t)bound_us);
}

/* The latest moment in (after, until], where there is one. */
static int64_t latest_us(const struct schedule *s, const struct zone *zone, int64_t after_us,
                         int64_t until_us)
{
	int64_t latest = 0;

	for (int64_t back = US_PER_MINUTE; !latest; back *= 2) {
		int64_t from = until_us - after_us > back ? until_us - back : after_us;
		int64_t t = from;
		while ((t = schedule_next_us(s, zone, t)) && t <= until_us)
			latest = t;
		if (from == after_us)
			break;
	}
	return latest;
}

void schedule_due(const struct schedule *s, const struct zone *zone, int64_t delay_us,
                  int64_t last_us, int64_t now_us, struct schedule_due *ret)
{
	int64_t until = now_us - delay_us, t;

	*ret = (struct schedule_due){0};
	if (last_us > now_us)
		last_us = now_us;
	t = schedule_next_us(s, zone, until);
	ret->next_us = t ? t + delay_us : 0;
	if (last_us >= until)
		return;
	for (t = last_us; (t = schedule_next_us(s, zone, t)) && t <= until; ret->missed++) {
		if (ret->missed > MISSED_MAX) {
			ret->scheduled_us = latest_us(s, zone, last_us, until);
			break;
		}
		ret->scheduled_us = t;
	}
	ret->due = ret->missed > 0;
	if (ret->missed)
		ret->missed--; /* the one that runs */
}
