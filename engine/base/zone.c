/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A zone in memory: the moments at which its offset changes, from the file, and the rule that
 * goes on after the last of them (the file's last line, or a TZ text).
 *
 *   (1) changes rise strictly; before the first one `first_offset_s` holds
 *   (2) at and after the last change the rule decides, where there is one
 *
 * The file, RFC 8536, big-endian: header (44 bytes: "TZif", version, 15 reserved, six counts),
 * a block with 4-byte times, and from version 2 on a second header, the same block with 8-byte
 * times, "\n" RULE "\n".  Block: times, their types (1 byte each), types (offset 4, is_dst 1,
 * name index 1), names, leap seconds (8 or 12 bytes each), two arrays of flags.
 */
#include "engine/base/zone.h"

#include "engine/base/bytes.h"
#include "engine/base/clock.h"
#include "engine/base/file.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ZONE_FOLDER "/usr/share/zoneinfo/"
#define LOCAL_FILE "/etc/localtime"
#define FILE_MAX_BYTES ((size_t)256 << 10)
#define MAX_CHANGES 10000
#define MAX_OFFSET_S (26 * 3600)
#define DAY_S INT64_C(86400)
/* Further than any offset: what clocks may show lies that near to the moment. */
#define REACH_US ((int64_t)MAX_OFFSET_S * US_PER_SECOND)

enum date_form { DATE_MONTH_WEEK, DATE_JULIAN, DATE_DAY };

/* When in a year one of the two changes comes. */
struct rule_date {
	enum date_form form;
	int month, week, day;
	int32_t time_s; /* of local clocks, may lie outside the day */
};

struct rule {
	bool given, has_dst;
	int32_t std_s, dst_s;
	struct rule_date begins, ends;
};

struct zone {
	char name[ZONE_NAME_MAX];
	int32_t first_offset_s;
	size_t n;
	int64_t *at_s;
	int32_t *offset_s; /* from at_s[i] on */
	struct rule rule;
};

/* ---- rules ---- */

static bool read_number(const char **p, int max, int *ret)
{
	int v = 0;
	const char *start = *p;

	for (; **p >= '0' && **p <= '9' && *p - start < 4; (*p)++)
		v = v * 10 + (**p - '0');
	*ret = v;
	return *p > start && v <= max;
}

/* "2", "-2:30", "+10:00:01", in seconds */
static bool read_clock(const char **p, int max_hours, int32_t *ret)
{
	int sign = 1, h, m = 0, s = 0;

	if (**p == '-' || **p == '+')
		sign = *(*p)++ == '-' ? -1 : 1;
	if (!read_number(p, max_hours, &h))
		return false;
	if (**p == ':' && (++*p, !read_number(p, 59, &m)))
		return false;
	if (**p == ':' && (++*p, !read_number(p, 59, &s)))
		return false;
	*ret = sign * (h * 3600 + m * 60 + s);
	return true;
}

/* "CET", "<+0330>" */
static bool skip_abbreviation(const char **p)
{
	const char *start = *p;

	if (**p == '<') {
		const char *end = strchr(*p, '>');
		*p = end ? end + 1 : *p;
		return end != NULL;
	}
	while ((**p >= 'A' && **p <= 'Z') || (**p >= 'a' && **p <= 'z'))
		(*p)++;
	return *p - start >= 3;
}

/* "M3.5.0/3", "J60", "0/-1" */
static bool read_date(const char **p, struct rule_date *ret)
{
	*ret = (struct rule_date){.form = DATE_DAY, .time_s = 2 * 3600};
	if (**p == 'M') {
		ret->form = DATE_MONTH_WEEK;
		(*p)++;
		if (!read_number(p, 12, &ret->month) || ret->month < 1 || *(*p)++ != '.' ||
		    !read_number(p, 5, &ret->week) || ret->week < 1 || *(*p)++ != '.' ||
		    !read_number(p, 6, &ret->day))
			return false;
	} else {
		if (**p == 'J') {
			ret->form = DATE_JULIAN;
			(*p)++;
		}
		if (!read_number(p, 365, &ret->day) || (ret->form == DATE_JULIAN && ret->day < 1))
			return false;
	}
	if (**p != '/')
		return true;
	(*p)++;
	return read_clock(p, 167, &ret->time_s);
}

/* False when `text` is no rule.  Offsets in it count west of Greenwich. */
static bool read_rule(const char *text, struct rule *ret)
{
	const char *p = text, *rest;

	*ret = (struct rule){0};
	if (!skip_abbreviation(&p) || !read_clock(&p, 24, &ret->std_s))
		return false;
	ret->std_s = -ret->std_s;
	ret->given = true;
	if (!*p)
		return true;
	if (!skip_abbreviation(&p))
		return false;
	ret->has_dst = true;
	ret->dst_s = ret->std_s + 3600;
	if (*p && *p != ',') {
		if (!read_clock(&p, 24, &ret->dst_s))
			return false;
		ret->dst_s = -ret->dst_s;
	}
	rest = *p ? p : ",M3.2.0,M11.1.0";
	return *rest++ == ',' && read_date(&rest, &ret->begins) && *rest++ == ',' &&
	       read_date(&rest, &ret->ends) && !*rest;
}

static int64_t days_to(int year, int month, int day)
{
	struct civil c = {.year = year, .month = month, .day = day};

	return civil_to_us(&c) / (DAY_S * US_PER_SECOND);
}

static int64_t floor_div(int64_t a, int64_t b)
{
	return a / b - (a % b < 0);
}

/* Of local clocks, in seconds as if they were UTC. */
static int64_t date_in_year(const struct rule_date *d, int year)
{
	int64_t day = 0;

	switch (d->form) {
	case DATE_DAY:
		day = days_to(year, 1, 1) + d->day;
		break;
	case DATE_JULIAN: /* 29 February does not count */
		day = days_to(year, 1, 1) + d->day - 1;
		if (d->day >= 60)
			day += days_to(year, 3, 1) - days_to(year, 2, 1) - 28;
		break;
	case DATE_MONTH_WEEK: {
		int64_t first = days_to(year, d->month, 1);
		int64_t next =
		        d->month == 12 ? days_to(year + 1, 1, 1) : days_to(year, d->month + 1, 1);
		int64_t weekday = ((first + 4) % 7 + 7) % 7;
		day = first + (d->day - weekday + 7) % 7 + 7 * (d->week - 1);
		if (day >= next) /* the fifth is the last */
			day -= 7;
		break;
	}
	}
	return day * DAY_S + d->time_s;
}

static int year_of(int64_t time_s)
{
	struct civil c;

	civil_from_us(time_s * US_PER_SECOND, &c);
	return c.year;
}

static int32_t rule_offset(const struct rule *r, int64_t time_s)
{
	if (!r->has_dst)
		return r->std_s;
	int year = year_of(time_s + r->std_s);
	int64_t begins = date_in_year(&r->begins, year) - r->std_s;
	int64_t ends = date_in_year(&r->ends, year) - r->dst_s;
	bool dst = begins < ends ? begins <= time_s && time_s < ends
	                         : begins <= time_s || time_s < ends;
	return dst ? r->dst_s : r->std_s;
}

/* The first after `time_s` at which the rule changes the offset; INT64_MAX: never. */
static int64_t rule_next(const struct rule *r, int64_t time_s)
{
	int64_t best = INT64_MAX;

	if (!r->has_dst)
		return best;
	int year = year_of(time_s + r->std_s);
	for (int y = year - 1; y <= year + 2; y++) {
		int64_t both[2] = {date_in_year(&r->begins, y) - r->std_s,
		                   date_in_year(&r->ends, y) - r->dst_s};
		for (int i = 0; i < 2; i++)
			if (both[i] > time_s && both[i] < best &&
			    rule_offset(r, both[i]) != rule_offset(r, both[i] - 1))
				best = both[i];
	}
	return best;
}

/* ---- files ---- */

struct counts {
	uint32_t is_ut, is_std, leap, time, type, name;
};

static bool read_header(struct cursor *c, uint8_t *ret_version, struct counts *ret)
{
	const uint8_t *p = cursor_take(c, 44);

	if (!p || memcmp(p, "TZif", 4) != 0)
		return false;
	*ret_version = p[4];
	*ret = (struct counts){load_be32(p + 20), load_be32(p + 24), load_be32(p + 28),
	                       load_be32(p + 32), load_be32(p + 36), load_be32(p + 40)};
	return ret->time <= MAX_CHANGES && ret->type >= 1 && ret->type <= 256 &&
	       ret->name <= 65536 && ret->leap <= 1000 && ret->is_ut <= 256 && ret->is_std <= 256;
}

static int64_t load_time(const uint8_t *p, size_t width)
{
	return width == 4 ? (int32_t)load_be32(p)
	                  : (int64_t)((uint64_t)load_be32(p) << 32 | load_be32(p + 4));
}

static bool read_block(struct zone *z, struct cursor *c, const struct counts *n, size_t width)
{
	const uint8_t *times = cursor_take(c, n->time * width);
	const uint8_t *types = cursor_take(c, n->time);
	const uint8_t *table = cursor_take(c, (size_t)6 * n->type);

	cursor_take(c, n->name + n->leap * (width + 4) + n->is_std + n->is_ut);
	if (!cursor_ok(c) || n->leap)
		return false;
	z->at_s = calloc(n->time + 1, sizeof(*z->at_s));
	z->offset_s = calloc(n->time + 1, sizeof(*z->offset_s));
	if (!z->at_s || !z->offset_s)
		return false;
	z->first_offset_s = (int32_t)load_be32(table);
	for (uint32_t i = 0; i < n->time; i++) {
		z->at_s[i] = load_time(times + i * width, width);
		if (types[i] >= n->type || (i && z->at_s[i] <= z->at_s[i - 1]))
			return false;
		z->offset_s[i] = (int32_t)load_be32(table + (size_t)6 * types[i]);
		if (z->offset_s[i] < -MAX_OFFSET_S || z->offset_s[i] > MAX_OFFSET_S)
			return false;
	}
	z->n = n->time;
	return z->first_offset_s >= -MAX_OFFSET_S && z->first_offset_s <= MAX_OFFSET_S;
}

static bool read_footer(struct zone *z, struct cursor *c)
{
	char text[128];
	size_t len = cursor_left(c);

	if (len < 2 || len >= sizeof(text) || c->p[0] != '\n' || c->p[len - 1] != '\n')
		return false;
	memcpy(text, c->p + 1, len - 2);
	text[len - 2] = '\0';
	return !text[0] || read_rule(text, &z->rule);
}

static bool read_tzif(struct zone *z, const void *data, size_t len)
{
	struct cursor c = cursor_init(data, len);
	struct counts n;
	uint8_t version;

	if (!read_header(&c, &version, &n))
		return false;
	if (version == 0)
		return read_block(z, &c, &n, 4);
	/* What only older readers look at. */
	cursor_take(&c, (size_t)n.time * 5 + (size_t)6 * n.type + n.name + (size_t)8 * n.leap +
	                        n.is_std + n.is_ut);
	return read_header(&c, &version, &n) && read_block(z, &c, &n, 8) && read_footer(z, &c);
}

static int open_file(struct zone *z, const char *path, struct err *err)
{
	cleanup_free char *data = NULL;
	size_t len;
	int rc = file_get(AT_FDCWD, path, FILE_MAX_BYTES, &data, &len, err);

	if (rc)
		return rc;
	if (!read_tzif(z, data, len))
		return err_set(err, ERR_USAGE, 0, "'%.100s' is no time zone that asof can read",
		               path);
	return 0;
}

/* ---- opening ---- */

/* A name below the folder of zones and nothing outside it. */
static bool is_zone_name(const char *name)
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	                              "0123456789_+-/";

	return name[0] != '/' && strspn(name, letters) == strlen(name);
}

/* A name or a rule, as zone_open() and TZ have it. */
static int open_named(struct zone *z, const char *name, struct err *err)
{
	char path[sizeof(ZONE_FOLDER) + ZONE_NAME_MAX];
	struct err why = ERR_INIT;

	if (strcmp(name, "UTC") == 0)
		return 0;
	if (is_zone_name(name)) {
		snprintf(path, sizeof(path), ZONE_FOLDER "%s", name);
		if (open_file(z, path, &why) == 0)
			return 0;
		free(take_ptr(z->at_s));
		free(take_ptr(z->offset_s));
		z->n = 0;
		z->first_offset_s = 0;
	}
	if (read_rule(name, &z->rule)) {
		z->first_offset_s = z->rule.std_s;
		return 0;
	}
	return err_set(err, ERR_USAGE, 0,
	               "'%.60s' is no time zone (write UTC, local, or a name such as "
	               "Europe/Berlin)",
	               name);
}

static int open_local(struct zone *z, struct err *err)
{
	const char *name = getenv("TZ");
	struct err why = ERR_INIT;

	if (!name) {
		int rc = open_file(z, LOCAL_FILE, &why);
		return rc == -ERR_NOT_FOUND ? 0 : rc ? err_copy(err, &why) : 0;
	}
	name += *name == ':';
	if (!*name)
		return 0;
	if (*name == '/')
		return open_file(z, name, err);
	return strlen(name) < ZONE_NAME_MAX
	               ? open_named(z, name, err)
	               : err_set(err, ERR_USAGE, 0, "TZ='%.60s' is no time zone", name);
}

int zone_open(const char *name, struct zone **ret, struct err *err)
{
	cleanup_zone struct zone *z = NULL;

	if (strlen(name) >= ZONE_NAME_MAX)
		return err_set(err, ERR_USAGE, 0, "'%.60s' is no time zone", name);
	if (!(z = calloc(1, sizeof(*z))))
		return err_set(err, ERR_NOMEM, 0, "out of memory");
	snprintf(z->name, sizeof(z->name), "%s", name);
	int rc = strcmp(name, "local") == 0 ? open_local(z, err) : open_named(z, name, err);
	if (rc)
		return rc;
	*ret = take_ptr(z);
	return 0;
}

void zone_free(struct zone *z)
{
	if (!z)
		return;
	free(z->at_s);
	free(z->offset_s);
	free(z);
}

const char *zone_name(const struct zone *z)
{
	return z ? z->name : "UTC";
}

/* ---- looking up ---- */

/* How many changes lie at or before `time_s`. */
static size_t changes_until(const struct zone *z, int64_t time_s)
{
	size_t low = 0, high = z->n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;
		if (z->at_s[mid] <= time_s)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static int64_t clamp(int64_t time_us)
{
	return time_us < TIME_MIN_US ? TIME_MIN_US : time_us > TIME_MAX_US ? TIME_MAX_US : time_us;
}

static int32_t offset_at(const struct zone *z, int64_t time_s)
{
	size_t n = changes_until(z, time_s);

	if (n == z->n && z->rule.given)
		return rule_offset(&z->rule, time_s);
	return n ? z->offset_s[n - 1] : z->first_offset_s;
}

int32_t zone_offset_s(const struct zone *z, int64_t time_us)
{
	return z ? offset_at(z, floor_div(clamp(time_us), US_PER_SECOND)) : 0;
}

int64_t zone_next_change_us(const struct zone *z, int64_t time_us)
{
	if (!z || time_us >= TIME_MAX_US)
		return INT64_MAX;
	int64_t time_s = floor_div(clamp(time_us), US_PER_SECOND);
	for (size_t i = changes_until(z, time_s); i < z->n; i++)
		if (offset_at(z, z->at_s[i]) != offset_at(z, z->at_s[i] - 1))
			return z->at_s[i] > TIME_MAX_US / US_PER_SECOND
			               ? INT64_MAX
			               : z->at_s[i] * US_PER_SECOND;
	if (!z->rule.given)
		return INT64_MAX;
	if (z->n && z->at_s[z->n - 1] > time_s)
		time_s = z->at_s[z->n - 1];
	int64_t next = rule_next(&z->rule, time_s);
	return next > TIME_MAX_US / US_PER_SECOND ? INT64_MAX : next * US_PER_SECOND;
}

int zone_from_civil(const struct zone *z, int64_t civil_us, int64_t ret[2])
{
	int64_t from = civil_us - REACH_US, until = civil_us + REACH_US, skipped = civil_us;
	int64_t offset = zone_offset_s(z, from) * US_PER_SECOND;
	int n = 0;

	/* Each offset in force within reach, in the order of time: it gives a reading if the
	 * moment that it leads to is one at which it holds. */
	for (int i = 0; i < 64; i++) {
		int64_t change = zone_next_change_us(z, from);
		int64_t reading = civil_us - offset;
		if (reading < change && reading >= (i ? from : reading)) {
			if (n < 2)
				ret[n++] = reading;
			else
				ret[1] = reading;
		}
		if (change > until)
			break;
		int64_t after = zone_offset_s(z, change) * US_PER_SECOND;
		if (civil_us - offset >= change && civil_us - after < change)
			skipped = change;
		from = change;
		offset = after;
	}
	if (n == 0)
		ret[0] = skipped;
	return n;
}
