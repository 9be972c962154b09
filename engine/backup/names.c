/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/backup/backup_i.h"

#include "engine/archive/names.h"
#include "engine/base/clock.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

const char *const backup_type_names[BACKUP_N_TYPES] = {"manual", "automated", "safety",
                                                       "compressed"};

int backup_type_parse(const char *text, enum backup_type *ret, struct err *err)
{
	for (int i = 0; i < BACKUP_N_TYPES; i++)
		if (strcmp(text, backup_type_names[i]) == 0) {
			*ret = (enum backup_type)i;
			return 0;
		}
	return err_set(err, ERR_USAGE, 0,
	               "'%.60s' is no type of backup (manual, automated, safety, compressed)",
	               text);
}

/* ---- reading ---- */

/* Cuts `tail` off; false when it is not there or is all there is. */
static bool cut(char *text, const char *tail)
{
	size_t n = strlen(text), k = strlen(tail);

	if (n <= k || strcmp(text + n - k, tail) != 0)
		return false;
	text[n - k] = '\0';
	return true;
}

static bool digits(const char *p, size_t n, int *ret)
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

/* "YYYYmmdd_HHMMSS", a time that the local calendar has. */
static bool parse_stamp(const char *p, int64_t *ret_us)
{
	struct tm tm = {.tm_isdst = -1}, back;

	if (!digits(p, 4, &tm.tm_year) || !digits(p + 4, 2, &tm.tm_mon) ||
	    !digits(p + 6, 2, &tm.tm_mday) || p[8] != '_' || !digits(p + 9, 2, &tm.tm_hour) ||
	    !digits(p + 11, 2, &tm.tm_min) || !digits(p + 13, 2, &tm.tm_sec))
		return false;
	if (tm.tm_year < 1971 || tm.tm_mon < 1 || tm.tm_mon > 12 || tm.tm_mday < 1 ||
	    tm.tm_hour > 23 || tm.tm_min > 59 || tm.tm_sec > 59)
		return false;
	tm.tm_year -= 1900;
	tm.tm_mon -= 1;
	int day = tm.tm_mday;
	time_t t = mktime(&tm);
	/* February 30th becomes a day of March; an hour that is skipped becomes another. */
	if (t == (time_t)-1 || !localtime_r(&t, &back) || back.tm_mday != day)
		return false;
	*ret_us = (int64_t)t * US_PER_SECOND;
	return true;
}

/* Takes "_YYYYmmdd_HHMMSS[_N]" off the end of `text`. */
static bool cut_time(char *text, int64_t *ret_us)
{
	static const size_t width = 16;
	size_t n = strlen(text);
	size_t end = n;

	while (end > 0 && text[end - 1] >= '0' && text[end - 1] <= '9')
		end--;
	/* A number behind the time, "_2", has up to four digits; the time itself ends in six. */
	if (!(n - end >= 1 && n - end <= 4 && end > width && text[end - 1] == '_'))
		end = n;
	else
		end--;
	if (end <= width || text[end - width] != '_' ||
	    !parse_stamp(text + end - width + 1, ret_us))
		return false;
	text[end - width] = '\0';
	return true;
}

static bool parse_manifest(const char *file, struct backup_name *ret)
{
	static const char prefix[] = "manifest_";

	if (strncmp(file, prefix, sizeof(prefix) - 1) != 0 || !cut(ret->base, ".json"))
		return false;
	ret->kind = BACKUP_FILE_MANIFEST;
	char rest[BACKUP_FILE_MAX];
	snprintf(rest, sizeof(rest), "%s", ret->base);
	ret->has_time = cut_time(rest, &ret->time_us);
	return ret->has_time;
}

bool backup_name_parse(const char *file, struct backup_name *ret)
{
	size_t n = strlen(file);

	*ret = (struct backup_name){.kind = BACKUP_FILE_DB};
	if (file[0] == '.' || n == 0 || n >= BACKUP_FILE_MAX)
		return false;
	memcpy(ret->base, file, n + 1);
	if (parse_manifest(file, ret))
		return true;
	ret->encrypted = cut(ret->base, ".gpg");
	ret->compressed = cut(ret->base, ".gz");
	if (cut(ret->base, ".db-wal") || cut(ret->base, ".db-journal"))
		ret->kind = BACKUP_FILE_COMPANION;
	else if (!cut(ret->base, ".db"))
		return false;
	snprintf(ret->stem, sizeof(ret->stem), "%s", ret->base);
	ret->has_time = cut_time(ret->stem, &ret->time_us);
	/* Side files of a live database that lies in a folder of backups are none of ours. */
	if (ret->kind == BACKUP_FILE_COMPANION && (!ret->has_time || !ret->compressed))
		return false;
	if (ret->has_time && cut(ret->stem, "_" BACKUP_LABEL_PRE_RESTORE))
		snprintf(ret->label, sizeof(ret->label), "%s", BACKUP_LABEL_PRE_RESTORE);
	return true;
}

/* ---- writing ---- */

static bool local(int64_t time_us, struct tm *ret, int *ret_us)
{
	int64_t s = time_us / US_PER_SECOND, us = time_us % US_PER_SECOND;

	if (us < 0) {
		us += US_PER_SECOND;
		s--;
	}
	time_t t = (time_t)s;
	*ret_us = (int)us;
	return localtime_r(&t, ret);
}

void backup_stamp(int64_t time_us, char out[BACKUP_STAMP_MAX])
{
	struct tm tm;
	int us;

	if (!local(time_us, &tm, &us) || !strftime(out, BACKUP_STAMP_MAX, "%Y%m%d_%H%M%S", &tm))
		snprintf(out, BACKUP_STAMP_MAX, "19700101_000000");
}

void backup_time_iso_local(int64_t time_us, char out[BACKUP_TIME_MAX])
{
	struct tm tm;
	int us;

	out[0] = '\0';
	if (!local(time_us, &tm, &us))
		return;
	size_t n = strftime(out, BACKUP_TIME_MAX, "%Y-%m-%dT%H:%M:%S", &tm);
	if (us)
		snprintf(out + n, BACKUP_TIME_MAX - n, ".%06d", us);
}

int backup_stem(const char *path, char out[BACKUP_FILE_MAX], struct err *err)
{
	const char *slash = strrchr(path, '/'), *last = slash ? slash + 1 : path;
	/* _pre_restore_YYYYmmdd_HHMMSS_NNNN.db-journal.gz.gpg */
	static const size_t room = 64;

	if (!*last || strcmp(last, ".") == 0 || strcmp(last, "..") == 0)
		return err_set(err, ERR_NOT_FOUND, 0, "database not found: '%.200s' is a folder",
		               path);
	const char *dot = strrchr(last, '.');
	size_t n = dot && dot > last ? (size_t)(dot - last) : strlen(last);
	if (n + room > BACKUP_FILE_MAX)
		return err_set(err, ERR_USAGE, 0, "the name '%.60s...' is too long for a backup",
		               last);
	memcpy(out, last, n);
	out[n] = '\0';
	/* Control bytes, or no UTF-8: a name that any program can print is better. */
	if (db_name_check(out, NULL))
		for (char *p = out; *p; p++)
			if ((unsigned char)*p < 0x20 || (unsigned char)*p >= 0x7f)
				*p = '_';
	if (out[0] == '.')
		out[0] = '_';
	return 0;
}

bool backup_is_of(const struct backup_entry *e, const char *db_path)
{
	char stem[BACKUP_FILE_MAX];

	return backup_stem(db_path, stem, NULL) == 0 && strcmp(stem, e->db) == 0;
}
