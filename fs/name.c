/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/name.h"

#include "engine/base/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static bool ends_with(const char *name, const char *tail)
{
	size_t n = strlen(name), k = strlen(tail);
	return n > k && strcmp(name + n - k, tail) == 0;
}

bool fs_name_is_sidecar(const char *name)
{
	return ends_with(name, "-wal") || ends_with(name, "-shm") || ends_with(name, "-journal");
}

/* Digits up to the first other byte; false: none, a leading zero, or too many. */
static bool read_number(const char **p, uint64_t *ret)
{
	uint64_t v = 0;

	if (**p < '1' || **p > '9')
		return false;
	for (; **p >= '0' && **p <= '9'; (*p)++) {
		uint64_t digit = (uint64_t)(**p - '0');
		if (v > (UINT64_MAX - digit) / 10)
			return false;
		v = v * 10 + digit;
	}
	*ret = v;
	return true;
}

bool fs_name_parse_txid(const char *name, uint64_t *ret)
{
	uint64_t v;

	if (!read_number(&name, &v) || *name)
		return false;
	*ret = v;
	return true;
}

bool fs_name_parse_day(const char *name, int64_t *ret_us)
{
	/* time_parse() knows the calendar; only the one spelling is a folder's name. */
	if (strlen(name) != 10 || name[4] != '-' || name[7] != '-')
		return false;
	return time_parse(name, 0, TIME_ZONE_UTC, ret_us, NULL, NULL) == 0;
}

void fs_name_format_day(int64_t time_us, char out[FS_NAME_MAX])
{
	struct civil c;

	civil_from_us(time_us, &c);
	snprintf(out, FS_NAME_MAX, "%04d-%02d-%02d", c.year, c.month, c.day);
}

bool fs_name_parse_two(const char *name, int limit, int *ret)
{
	if (name[0] < '0' || name[0] > '9' || name[1] < '0' || name[1] > '9' || name[2])
		return false;
	int v = (name[0] - '0') * 10 + (name[1] - '0');
	if (v >= limit)
		return false;
	*ret = v;
	return true;
}

void fs_name_format_commit(int64_t time_us, uint64_t txid, char out[FS_NAME_MAX])
{
	struct civil c;

	civil_from_us(time_us, &c);
	snprintf(out, FS_NAME_MAX, "%02d-%02d-%02d.%06dZ.txid%" PRIu64 ".db", c.hour, c.minute,
	         c.second, c.us, txid);
}

bool fs_name_parse_commit(const char *name, uint64_t *ret_txid)
{
	/* "10-30-05.123456Z." */
	static const size_t head = 17;
	uint64_t v;

	if (strnlen(name, head + 5) < head + 5 || strncmp(name + head, "txid", 4) != 0)
		return false;
	name += head + 4;
	if (!read_number(&name, &v) || strcmp(name, ".db") != 0)
		return false;
	*ret_txid = v;
	return true;
}

bool fs_name_backup(const char *file, char shown[FS_NAME_MAX], bool *ret_gz)
{
	size_t n = strlen(file);

	if (file[0] == '.' || n >= FS_NAME_MAX)
		return false;
	*ret_gz = ends_with(file, ".db.gz");
	if (!*ret_gz && !ends_with(file, ".db"))
		return false;
	memcpy(shown, file, n + 1);
	if (*ret_gz)
		shown[n - 3] = 0;
	return true;
}

bool fs_name_backup_day(const char *file, int64_t *ret_us)
{
	/* "_20240115_143000" */
	static const char shape[] = "_dddddddd_dddddd";
	size_t width = sizeof(shape) - 1, n = strlen(file);

	for (size_t at = n; at-- > 0;) {
		size_t i = 0;
		if (at + width > n)
			continue;
		while (i < width && (shape[i] == 'd' ? file[at + i] >= '0' && file[at + i] <= '9'
		                                     : file[at + i] == shape[i]))
			i++;
		if (i < width)
			continue;
		char day[9];
		memcpy(day, file + at + 1, 8);
		day[8] = 0;
		if (time_parse(day, 0, TIME_ZONE_UTC, ret_us, NULL, NULL) == 0)
			return true;
	}
	return false;
}
