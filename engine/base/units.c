/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/units.h"

#include "engine/base/clock.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

struct unit {
	const char *name;
	int64_t ns;
};

#define NS_PER_US INT64_C(1000)
#define NS_PER_SECOND INT64_C(1000000000)
#define NS_PER_DAY (86400 * NS_PER_SECOND)

static const struct unit duration_units[] = {
        {"ns", 1},
        {"us", NS_PER_US},
        {"µs", NS_PER_US}, /* U+00B5 */
        {"μs", NS_PER_US}, /* U+03BC */
        {"ms", 1000 * NS_PER_US},
        {"s", NS_PER_SECOND},
        {"m", 60 * NS_PER_SECOND},
        {"h", 3600 * NS_PER_SECOND},
        {"d", NS_PER_DAY},
        {"w", 7 * NS_PER_DAY},
        {"y", 365 * NS_PER_DAY},
};
#define N_UNITS (sizeof(duration_units) / sizeof(duration_units[0]))

/* Numbers are read into 128 bits: whole part at most 20 digits, fraction at most 18. */
typedef unsigned __int128 wide;

/* A decimal number times `scale` once that is known: whole and fraction apart. */
struct decimal {
	uint64_t whole, fraction;
	uint64_t fraction_scale; /* 10 to the number of its digits */
};

static bool read_decimal(const char **p, struct decimal *ret)
{
	bool any = false;

	*ret = (struct decimal){.fraction_scale = 1};
	for (; isdigit((unsigned char)**p); (*p)++, any = true)
		if (__builtin_mul_overflow(ret->whole, 10, &ret->whole) ||
		    __builtin_add_overflow(ret->whole, (uint64_t)(**p - '0'), &ret->whole))
			return false;
	if (**p != '.')
		return any;
	for ((*p)++; isdigit((unsigned char)**p); (*p)++, any = true) {
		if (ret->fraction_scale >= UINT64_C(1000000000000000000))
			return false;
		ret->fraction = ret->fraction * 10 + (uint64_t)(**p - '0');
		ret->fraction_scale *= 10;
	}
	return any;
}

static wide scaled(const struct decimal *d, uint64_t scale)
{
	wide fraction = (wide)d->fraction * scale + d->fraction_scale - 1;

	return (wide)d->whole * scale + fraction / d->fraction_scale;
}

static const struct unit *read_unit(const char **p)
{
	const struct unit *best = NULL;

	/* "m" begins "ms": the longest that fits. */
	for (size_t i = 0; i < N_UNITS; i++) {
		size_t len = strlen(duration_units[i].name);
		if (strncmp(*p, duration_units[i].name, len) == 0 &&
		    (!best || len > strlen(best->name)))
			best = &duration_units[i];
	}
	if (best)
		*p += strlen(best->name);
	return best;
}

int duration_parse(const char *text, int64_t *ret_us, struct err *err)
{
	const char *p = text;
	wide sum_ns = 0;

	if (strcmp(text, "0") == 0) {
		*ret_us = 0;
		return 0;
	}
	do {
		struct decimal number;
		const struct unit *unit;
		if (!read_decimal(&p, &number) || !(unit = read_unit(&p)))
			return err_set(err, ERR_USAGE, 0,
			               "'%.60s' is no duration (write a number and a unit: 100ms, "
			               "30s, 5m, 72h, 30d, 1h30m)",
			               text);
		sum_ns += scaled(&number, (uint64_t)unit->ns);
		if (sum_ns / (wide)NS_PER_US >= (wide)INT64_MAX)
			return err_set(err, ERR_USAGE, 0, "'%.60s' is too long a time", text);
	} while (*p);
	*ret_us = (int64_t)((sum_ns + NS_PER_US - 1) / NS_PER_US);
	return 0;
}

int size_parse(const char *text, uint64_t *ret_bytes, struct err *err)
{
	static const char units[] = "KMGTPE";
	const char *p = text;
	struct decimal number;
	uint64_t scale = 1;

	if (!read_decimal(&p, &number))
		return err_set(err, ERR_USAGE, 0, "'%.60s' is not a size such as 512M", text);
	const char *unit = *p ? strchr(units, toupper((unsigned char)*p)) : NULL;
	if (unit) {
		scale = UINT64_C(1) << 10 * (unit - units + 1);
		p++;
		p += *p == 'i';
	}
	p += *p == 'B' || *p == 'b';
	if (*p || (scale == 1 && number.fraction_scale > 1))
		return err_set(err, ERR_USAGE, 0, "'%.60s' is not a size such as 512M", text);
	wide bytes = scaled(&number, scale);
	if (bytes > UINT64_MAX)
		return err_set(err, ERR_USAGE, 0, "'%.60s' is too large", text);
	*ret_bytes = (uint64_t)bytes;
	return 0;
}

void duration_format(int64_t us, char out[DURATION_STR_MAX])
{
	static const struct {
		const char *name;
		int64_t us;
	} parts[] = {
	        {"d", 86400 * US_PER_SECOND},
	        {"h", 3600 * US_PER_SECOND},
	        {"m", 60 * US_PER_SECOND},
	        {"s", US_PER_SECOND},
	        {"ms", 1000},
	        {"us", 1},
	};
	size_t used = 0;

	snprintf(out, DURATION_STR_MAX, "0");
	/* What is said in hours is said in hours: days only where they say it all. */
	for (size_t i = us % parts[0].us ? 1 : 0; i < sizeof(parts) / sizeof(parts[0]) && us > 0;
	     i++) {
		if (us < parts[i].us)
			continue;
		used += (size_t)snprintf(out + used, DURATION_STR_MAX - used, "%" PRId64 "%s",
		                         us / parts[i].us, parts[i].name);
		us %= parts[i].us;
	}
}
