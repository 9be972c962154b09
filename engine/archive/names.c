/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/archive/names.h"

#include "engine/base/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

void object_name_format(const struct object_name *n, char out[OBJECT_NAME_MAX])
{
	char t0[TIME_STR_MAX], t1[TIME_STR_MAX];

	switch (n->type) {
	case OBJECT_GROWING:
		snprintf(out, OBJECT_NAME_MAX, "%08" PRIu32 "-%016" PRIu64 ".wal.gz", n->lineage,
		         n->first_txid);
		return;
	case OBJECT_SEALED:
	case OBJECT_COALESCED:
	case OBJECT_COMMITS:
		time_format_compact(n->first_us, t0);
		time_format_compact(n->last_us, t1);
		snprintf(out, OBJECT_NAME_MAX,
		         "%08" PRIu32 "-%016" PRIu64 "-%016" PRIu64 "-%s-%s-%010" PRIu32 ".%s.gz",
		         n->lineage, n->first_txid, n->last_txid, t0, t1, n->min_pages,
		         n->type == OBJECT_COMMITS ? "commits" : "wal");
		return;
	case OBJECT_SNAPSHOT:
		time_format_compact(n->last_us, t1);
		snprintf(out, OBJECT_NAME_MAX,
		         "%08" PRIu32 "-%016" PRIu64 "-%016" PRIu64 "-%s.db.gz", n->lineage,
		         n->last_txid, n->first_txid - 1, t1);
		return;
	case OBJECT_LINEAGE:
		snprintf(out, OBJECT_NAME_MAX, "%08" PRIu32 ".lineage", n->lineage);
		return;
	}
	out[0] = '\0';
}

/* A reader of fixed-width fields; `*p` turns NULL at the first that does not fit. */
static uint64_t digits(const char **p, size_t width)
{
	uint64_t v = 0;

	for (size_t i = 0; *p && i < width; i++) {
		char ch = (*p)[i];
		if (ch < '0' || ch > '9') {
			*p = NULL;
			return 0;
		}
		v = v * 10 + (uint64_t)(ch - '0');
	}
	if (*p)
		*p += width;
	return v;
}

static void literal(const char **p, const char *text)
{
	if (!*p)
		return;
	size_t n = strlen(text);
	*p = strncmp(*p, text, n) == 0 ? *p + n : NULL;
}

static int64_t compact_time(const char **p)
{
	int64_t us = 0;

	if (!*p)
		return 0;
	if (strlen(*p) < 23 || time_parse_compact(*p, 23, &us) < 0)
		*p = NULL;
	else
		*p += 23;
	return us;
}

static uint32_t digits32(const char **p, size_t width)
{
	uint64_t v = digits(p, width);
	if (v > UINT32_MAX)
		*p = NULL;
	return (uint32_t)v;
}

static bool ended(const char *p, const char *suffix)
{
	return p && strcmp(p, suffix) == 0;
}

static bool parse_span(const char *p, struct object_name *n)
{
	literal(&p, "-");
	n->last_txid = digits(&p, 16);
	literal(&p, "-");
	n->first_us = compact_time(&p);
	literal(&p, "-");
	n->last_us = compact_time(&p);
	literal(&p, "-");
	n->min_pages = digits32(&p, 10);
	if (ended(p, ".wal.gz"))
		n->type = OBJECT_SEALED;
	else if (ended(p, ".commits.gz"))
		n->type = OBJECT_COMMITS;
	else
		return false;
	return n->first_txid >= 1 && n->last_txid >= n->first_txid && n->last_us >= n->first_us;
}

static bool parse_snapshot(const char *p, struct object_name *n)
{
	n->type = OBJECT_SNAPSHOT;
	n->last_txid = n->first_txid;
	literal(&p, "-");
	n->first_txid = digits(&p, 16) + 1;
	literal(&p, "-");
	n->first_us = n->last_us = compact_time(&p);
	return ended(p, ".db.gz") && n->first_txid <= n->last_txid + 1 && n->last_txid >= 1;
}

bool object_name_parse(const char *text, struct object_name *ret)
{
	struct object_name n = {0};
	const char *p = text;

	n.lineage = digits32(&p, 8);
	if (!p || n.lineage == 0)
		return false;
	if (ended(p, ".lineage")) {
		n.type = OBJECT_LINEAGE;
		*ret = n;
		return true;
	}
	literal(&p, "-");
	n.first_txid = digits(&p, 16);
	if (!p)
		return false;
	bool ok;
	if (ended(p, ".wal.gz")) {
		n.type = OBJECT_GROWING;
		ok = n.first_txid >= 1;
	} else {
		/* A span and a snapshot differ in what follows the second number. */
		struct object_name snap = n;
		ok = parse_span(p, &n);
		if (!ok && parse_snapshot(p, &snap)) {
			n = snap;
			ok = true;
		}
	}
	if (ok)
		*ret = n;
	return ok;
}

static bool utf8_valid(const unsigned char *p)
{
	while (*p) {
		int more = *p < 0x80                 ? 0
		           : *p >= 0xc2 && *p < 0xe0 ? 1
		           : (*p & 0xf0) == 0xe0     ? 2
		           : *p >= 0xf0 && *p < 0xf5 ? 3
		                                     : -1;
		if (more < 0)
			return false;
		unsigned char lead = *p++;
		for (int i = 0; i < more; i++, p++) {
			if ((*p & 0xc0) != 0x80)
				return false;
			/* no overlong forms, no surrogates, nothing past U+10FFFF */
			if (i == 0 && ((lead == 0xe0 && *p < 0xa0) || (lead == 0xed && *p > 0x9f) ||
			               (lead == 0xf0 && *p < 0x90) || (lead == 0xf4 && *p > 0x8f)))
				return false;
		}
	}
	return true;
}

static bool ends_with(const char *s, const char *suffix)
{
	size_t n = strlen(s), m = strlen(suffix);
	return n >= m && strcmp(s + n - m, suffix) == 0;
}

int db_name_check(const char *name, struct err *err)
{
	size_t len = strlen(name);
	const char *why = NULL;

	if (len == 0)
		why = "is empty";
	else if (len > DB_NAME_MAX)
		why = "is longer than 200 bytes";
	else if (strchr(name, '/'))
		why = "contains '/'";
	else if (name[0] == '.')
		why = "begins with '.'";
	else if (ends_with(name, "-wal") || ends_with(name, "-shm") || ends_with(name, "-journal"))
		why = "ends like a file that SQLite keeps beside a database";
	else if (!utf8_valid((const unsigned char *)name))
		why = "is not UTF-8";
	for (size_t i = 0; !why && i < len; i++)
		if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f)
			why = "contains a control byte";
	if (!why)
		return 0;
	return err_set(err, ERR_USAGE, 0, "the database name '%.200s' %s (choose another)", name,
	               why);
}

/* ---- what was moved aside ---- */

static bool two_digits(const char *p, int *ret)
{
	if (p[0] < '0' || p[0] > '9' || p[1] < '0' || p[1] > '9')
		return false;
	*ret = (p[0] - '0') * 10 + p[1] - '0';
	return true;
}

bool aside_name_parse(const char *file, int64_t *ret_us)
{
	const char *p = NULL;
	struct tm tm = {0};
	int century, year;

	for (const char *q = file; (q = strstr(q, ASIDE_SUFFIX)); q++)
		p = q + strlen(ASIDE_SUFFIX);
	if (!p || p == file + strlen(ASIDE_SUFFIX) || strlen(p) != 16 || p[8] != 'T' ||
	    p[15] != 'Z' || !two_digits(p, &century) || !two_digits(p + 2, &year) ||
	    !two_digits(p + 4, &tm.tm_mon) || !two_digits(p + 6, &tm.tm_mday) ||
	    !two_digits(p + 9, &tm.tm_hour) || !two_digits(p + 11, &tm.tm_min) ||
	    !two_digits(p + 13, &tm.tm_sec))
		return false;
	tm.tm_year = century * 100 + year - 1900;
	tm.tm_mon--;
	*ret_us = (int64_t)timegm(&tm) * US_PER_SECOND;
	return true;
}
