/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TIME as people write it.
 *
 * A recursive descent over a cursor `p` that the small readers move.  Every form ends in one
 * of three: a moment, or a civil time with an offset, or a civil time whose offset the zone
 * must give.  Only the last touches anything outside this file, through zone_offset().
 *
 * '-' may stand for ':', and '-' also begins a zone west of Greenwich.  The rule: within a
 * time of day that has not got its seconds yet, "-NN" that is followed by neither a digit nor
 * a colon is the next field; everything else is a zone.  So 10-30-05 has seconds, and
 * 10:30-05, 10-30-0500, 10-30-05:00 and 10-30-00-05 have zones.
 */
#include "engine/base/clock.h"

#include "engine/base/zone.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define US_PER_MINUTE (60 * US_PER_SECOND)
#define US_PER_HOUR (60 * US_PER_MINUTE)
#define US_PER_DAY (24 * US_PER_HOUR)
/* No zone was ever further from Greenwich; a larger number is something else misread. */
#define ZONE_MAX_HOURS 15

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static size_t digits_at(const char *p)
{
	size_t n = 0;
	while (is_digit(p[n]))
		n++;
	return n;
}

/* Exactly `n` digits. */
static bool read_fixed(const char **p, size_t n, int *ret)
{
	int v = 0;
	for (size_t i = 0; i < n; i++) {
		if (!is_digit((*p)[i]))
			return false;
		v = v * 10 + ((*p)[i] - '0');
	}
	*p += n;
	*ret = v;
	return true;
}

/* ".250": up to six digits count, more must be zeros. */
static bool read_fraction(const char **p, int *ret_us)
{
	*ret_us = 0;
	if (**p != '.' && **p != ',')
		return true;
	(*p)++;
	size_t n = digits_at(*p);
	int us = 0;
	for (size_t i = 0; i < (n > 6 ? n : 6); i++) {
		int digit = i < n ? (*p)[i] - '0' : 0;
		if (i < 6)
			us = us * 10 + digit;
		else if (digit)
			return false;
	}
	*p += n;
	*ret_us = us;
	return n > 0;
}

/* ---- zones ---- */

struct zone_word {
	bool given;
	int offset_minutes; /* east of Greenwich */
};

/* Z, +02:00, +02-00, +0200, +02, or nothing. */
static bool read_zone(const char **p, struct zone_word *ret)
{
	int hours, minutes = 0;

	*ret = (struct zone_word){0};
	if (!**p)
		return true;
	ret->given = true;
	if (**p == 'Z' || **p == 'z') {
		(*p)++;
		return true;
	}
	int sign = **p == '+' ? 1 : **p == '-' ? -1 : 0;
	if (!sign)
		return false;
	(*p)++;
	if (!read_fixed(p, 2, &hours))
		return false;
	if (**p == ':' || **p == '-')
		(*p)++;
	else if (!is_digit(**p))
		goto done;
	if (!read_fixed(p, 2, &minutes))
		return false;
done:
	ret->offset_minutes = sign * (hours * 60 + minutes);
	return hours <= ZONE_MAX_HOURS && minutes < 60;
}

/* Of a TIME that names none: UTC, the C library's local one, or one of zone.h. */
struct where {
	enum time_zone zone;
	const struct zone *named; /* NULL: `zone` */
};

static bool is_utc(const struct where *w)
{
	return !w->named && w->zone == TIME_ZONE_UTC;
}

/* What its clocks are ahead of UTC at a moment, in microseconds. */
static int64_t zone_offset(const struct where *w, int64_t time_us)
{
	if (w->named)
		return zone_offset_s(w->named, time_us) * US_PER_SECOND;
	int64_t seconds = time_us / US_PER_SECOND - (time_us % US_PER_SECOND < 0);
	time_t t = (time_t)seconds;
	struct tm tm;

	return localtime_r(&t, &tm) ? (int64_t)tm.tm_gmtoff * US_PER_SECOND : 0;
}

static void describe_reading(int64_t civil_us, int64_t offset_us, char *out, size_t size)
{
	char civil[TIME_STR_MAX], utc[TIME_STR_MAX];
	int64_t minutes = offset_us / US_PER_MINUTE;
	int64_t size_minutes = minutes < 0 ? -minutes : minutes;

	time_format(civil_us, civil);
	civil[strlen(civil) - 1] = 0; /* its Z */
	time_format(civil_us - offset_us, utc);
	snprintf(out, size, "%s%c%02lld:%02lld (%s)", civil, minutes < 0 ? '-' : '+',
	         (long long)(size_minutes / 60), (long long)(size_minutes % 60), utc);
}

/*
 * The moment at which local clocks show `civil_us` (a civil time counted as if it were UTC).
 * Every offset in force within a day either way is tried, hour by hour, since no zone changes
 * twice within one: a reading holds if its own offset is the one in force then.
 */
static int local_to_us(const char *text, const struct where *w, int64_t civil_us, int64_t *ret_us,
                       struct err *err)
{
	int64_t held[2], first = 0, last = 0;
	size_t n_held = 0;
	char a[96], b[96];

	for (int hour = -26; hour <= 26; hour++) {
		int64_t offset = zone_offset(w, civil_us + hour * US_PER_HOUR);
		if (hour == -26)
			first = offset;
		last = offset;
		if (zone_offset(w, civil_us - offset) != offset)
			continue;
		if (n_held == 0 || (n_held == 1 && held[0] != offset))
			held[n_held++] = offset;
	}
	if (n_held == 1) {
		*ret_us = civil_us - held[0];
		return 0;
	}
	if (n_held == 0) {
		held[0] = first;
		held[1] = last;
	}
	describe_reading(civil_us, held[0], a, sizeof(a));
	describe_reading(civil_us, held[1], b, sizeof(b));
	return err_set(err, ERR_USAGE, 0, "local time '%.60s' %s: write %s or %s", text,
	               n_held ? "happens twice" : "is skipped by a time change", a, b);
}

/* ---- civil times ---- */

static int bad(const char *text, struct err *err)
{
	return err_set(err, ERR_USAGE, 0,
	               "'%.100s' is no time (write 2024-01-15T10:30:00Z, @1705314600, -5m, "
	               "2 hours ago or yesterday 14:30)",
	               text);
}

/* "10", "10:30", "10:30:05.250", also with '-' for ':'. */
static bool read_clock(const char **p, struct civil *c)
{
	if (!read_fixed(p, 2, &c->hour))
		return false;
	for (int field = 0; field < 2; field++) {
		char sep = **p;
		if (sep != ':' && sep != '-')
			return true;
		if (sep == '-') {
			char after = digits_at(*p + 1) == 2 ? (*p)[3] : '0';
			if (is_digit(after) || after == ':')
				return true; /* a zone */
			/* 10:30-05: a clock written with colons goes on with colons. */
			if (field == 1 && (*p)[-3] == ':')
				return true;
		}
		(*p)++;
		if (!read_fixed(p, 2, field ? &c->second : &c->minute))
			return false;
		if (field)
			return read_fraction(p, &c->us);
	}
	return true;
}

/* "10", "1030", "103005.250" */
static bool read_compact_clock(const char **p, struct civil *c)
{
	size_t n = digits_at(*p);

	if (n != 2 && n != 4 && n != 6)
		return false;
	if (!read_fixed(p, 2, &c->hour) || (n > 2 && !read_fixed(p, 2, &c->minute)) ||
	    (n > 4 && !read_fixed(p, 2, &c->second)))
		return false;
	return n < 6 || read_fraction(p, &c->us);
}

static int finish(const char *text, const struct civil *c, struct zone_word word,
                  const struct where *w, int64_t *ret_us, struct err *err)
{
	struct civil back;
	int64_t us;

	if (c->year < 1 || c->month < 1 || c->month > 12 || c->day < 1 || c->hour > 23 ||
	    c->minute > 59 || c->second > 59)
		return bad(text, err);
	us = civil_to_us(c);
	civil_from_us(us, &back);
	if (back.day != c->day || back.month != c->month)
		return err_set(err, ERR_USAGE, 0, "'%.100s': that month has no day %d", text,
		               c->day);
	if (word.given) {
		us -= word.offset_minutes * US_PER_MINUTE;
	} else if (!is_utc(w)) {
		int rc = local_to_us(text, w, us, &us, err);
		if (rc < 0)
			return rc;
	}
	if (us < TIME_MIN_US || us > TIME_MAX_US)
		return err_set(err, ERR_USAGE, 0, "'%.100s' lies outside the years 1 to 9999",
		               text);
	*ret_us = us;
	return 0;
}

static int parse_date(const char *text, const struct where *w, int64_t *ret_us, struct err *err)
{
	const char *p = text;
	struct civil c = {0};
	struct zone_word word;
	bool compact = digits_at(p) == 8;

	if (!read_fixed(&p, 4, &c.year) || (!compact && *p++ != '-') ||
	    !read_fixed(&p, 2, &c.month) || (!compact && *p++ != '-') || !read_fixed(&p, 2, &c.day))
		return bad(text, err);
	if (*p == 'T' || *p == 't' || *p == ' ') {
		p++;
		if (!(compact ? read_compact_clock(&p, &c) : read_clock(&p, &c)))
			return bad(text, err);
	} else if (*p == '-') {
		/* 2024-01-15-10 could be an hour as well as a zone. */
		return bad(text, err);
	}
	if (!read_zone(&p, &word) || *p)
		return bad(text, err);
	return finish(text, &c, word, w, ret_us, err);
}

/* ---- relative and epoch ---- */

/* "today", "yesterday 14:30", "yesterday 14:30+02:00"; `p` is behind the word. */
static int parse_day_word(const char *text, const char *p, int days_back, int64_t now_us,
                          const struct where *w, int64_t *ret_us, struct err *err)
{
	struct civil clock = {0}, day;
	struct zone_word word = {0};
	int64_t offset = 0;

	if (*p == ' ') {
		p++;
		if (!read_clock(&p, &clock))
			return bad(text, err);
	}
	if (!read_zone(&p, &word) || *p)
		return bad(text, err);
	if (word.given)
		offset = word.offset_minutes * US_PER_MINUTE;
	else if (!is_utc(w))
		offset = zone_offset(w, now_us);
	civil_from_us(now_us + offset - days_back * US_PER_DAY, &day);
	day.hour = clock.hour;
	day.minute = clock.minute;
	day.second = clock.second;
	day.us = clock.us;
	return finish(text, &day, word, w, ret_us, err);
}

static bool read_count(const char **p, int64_t *ret)
{
	size_t n = digits_at(*p);
	int64_t v = 0;

	if (n == 0 || n > 12)
		return false;
	for (size_t i = 0; i < n; i++)
		v = v * 10 + ((*p)[i] - '0');
	*p += n;
	*ret = v;
	return true;
}

struct unit {
	char letter;
	const char *name;
	int64_t us;
};
static const struct unit units[] = {
        {'s', "second", US_PER_SECOND}, {'m', "minute", US_PER_MINUTE}, {'h', "hour", US_PER_HOUR},
        {'d', "day", US_PER_DAY},       {'w', "week", 7 * US_PER_DAY},
};
#define N_UNITS (sizeof(units) / sizeof(units[0]))

static int go_back(const char *text, int64_t count, int64_t unit_us, int64_t now_us,
                   int64_t *ret_us, struct err *err)
{
	/* now_us need not be sane either; compare, do not subtract. */
	if (now_us < TIME_MIN_US || now_us > TIME_MAX_US ||
	    count > (now_us - TIME_MIN_US) / unit_us)
		return err_set(err, ERR_USAGE, 0, "'%.100s' lies outside the years 1 to 9999",
		               text);
	*ret_us = now_us - count * unit_us;
	return 0;
}

/* "-5m" */
static int parse_minus(const char *text, int64_t now_us, int64_t *ret_us, struct err *err)
{
	const char *p = text + 1;
	int64_t count;

	if (!read_count(&p, &count) || !p[0] || p[1])
		return bad(text, err);
	for (size_t i = 0; i < N_UNITS; i++)
		if (units[i].letter == *p)
			return go_back(text, count, units[i].us, now_us, ret_us, err);
	return bad(text, err);
}

/* "5 minutes ago"; false: not of that form. */
static bool parse_ago(const char *text, int64_t now_us, int64_t *ret_us, int *ret_rc,
                      struct err *err)
{
	const char *p = text;
	int64_t count;

	if (!read_count(&p, &count) || *p++ != ' ')
		return false;
	for (size_t i = 0; i < N_UNITS; i++) {
		size_t len = strlen(units[i].name);
		if (strncasecmp(p, units[i].name, len) != 0)
			continue;
		p += len;
		if (*p == 's')
			p++;
		if (strcasecmp(p, " ago") != 0)
			return false;
		*ret_rc = go_back(text, count, units[i].us, now_us, ret_us, err);
		return true;
	}
	return false;
}

/* "@1705314600.250", "@-1.5" */
static int parse_epoch(const char *text, int64_t *ret_us, struct err *err)
{
	const char *p = text + 1;
	bool negative = *p == '-';
	int64_t seconds;
	int us;

	p += negative;
	if (!read_count(&p, &seconds) || !read_fraction(&p, &us) || *p)
		return bad(text, err);
	int64_t v = seconds * US_PER_SECOND + us;
	if (negative)
		v = -v;
	if (v < TIME_MIN_US || v > TIME_MAX_US)
		return err_set(err, ERR_USAGE, 0, "'%.100s' lies outside the years 1 to 9999",
		               text);
	*ret_us = v;
	return 0;
}

static bool begins(const char *text, const char *word)
{
	size_t len = strlen(word);
	return strncasecmp(text, word, len) == 0 && (!text[len] || text[len] == ' ');
}

static int parse(const char *text, int64_t now_us, const struct where *w, int64_t *ret_us,
                 bool *ret_relative, struct err *err)
{
	bool relative = true;
	int rc;

	if (strcasecmp(text, "now") == 0) {
		*ret_us = now_us;
		rc = 0;
	} else if (begins(text, "today")) {
		rc = parse_day_word(text, text + 5, 0, now_us, w, ret_us, err);
	} else if (begins(text, "yesterday")) {
		rc = parse_day_word(text, text + 9, 1, now_us, w, ret_us, err);
	} else if (text[0] == '-') {
		rc = parse_minus(text, now_us, ret_us, err);
	} else if (!parse_ago(text, now_us, ret_us, &rc, err)) {
		relative = false;
		rc = text[0] == '@' ? parse_epoch(text, ret_us, err)
		                    : parse_date(text, w, ret_us, err);
	}
	if (rc == 0 && ret_relative)
		*ret_relative = relative;
	return rc;
}

int time_parse(const char *text, int64_t now_us, enum time_zone zone, int64_t *ret_us,
               bool *ret_relative, struct err *err)
{
	const struct where w = {.zone = zone};

	return parse(text, now_us, &w, ret_us, ret_relative, err);
}

int time_parse_in(const char *text, int64_t now_us, const struct zone *zone, int64_t *ret_us,
                  bool *ret_relative, struct err *err)
{
	const struct where w = {.zone = TIME_ZONE_UTC, .named = zone};

	return parse(text, now_us, &w, ret_us, ret_relative, err);
}
