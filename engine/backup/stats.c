/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/backup/backup_i.h"

#include "engine/base/clock.h"

#include "engine/store/store.h"

#include <errno.h>
#include <sys/statvfs.h>

#define GROWTH_WINDOW_US (INT64_C(30) * 86400 * US_PER_SECOND)

static bool is_newer(const struct backup_entry *e, const struct backup_entry *than)
{
	return !than || e->time_us > than->time_us;
}

static void add(struct backup_stats *s, const struct backup_entry *e)
{
	struct backup_type_stats *t = &s->types[e->type];
	uint64_t bytes = e->size_bytes + e->companion_bytes;

	s->count++;
	s->size_bytes += bytes;
	t->count++;
	t->size_bytes += bytes;
	if (is_newer(e, t->latest))
		t->latest = e;
	if (is_newer(e, s->newest))
		s->newest = e;
	if (!s->oldest || e->time_us < s->oldest->time_us)
		s->oldest = e;
}

/* Stored bytes for each byte of the databases, of those backups that say how large theirs was. */
static double ratio_of(const struct backup_list *list)
{
	double stored = 0, content = 0;

	for (size_t i = 0; i < list->n; i++) {
		const struct backup_entry *e = &list->entries[i];
		if (!e->source_size_bytes || !e->compressed)
			continue;
		stored += (double)e->size_bytes;
		content += (double)e->source_size_bytes;
	}
	return content > 0 ? stored / content : 0;
}

/* What came within the last 30 days, or since the first backup if that was later; over less than
 * a day there is no telling. */
static double growth_of(const struct backup_list *list, const struct backup_entry *oldest,
                        int64_t now_us)
{
	double bytes = 0;

	if (!oldest)
		return 0;
	int64_t from_us = now_us - GROWTH_WINDOW_US;
	if (oldest->time_us > from_us)
		from_us = oldest->time_us;
	double days = (double)(now_us - from_us) / (86400.0 * US_PER_SECOND);
	if (days < 1)
		return 0;
	for (size_t i = 0; i < list->n; i++)
		if (list->entries[i].time_us >= from_us)
			bytes += (double)(list->entries[i].size_bytes +
			                  list->entries[i].companion_bytes);
	return bytes / days;
}

int backup_stats_compute(const char *archive_root, const struct backup_list *list, int64_t now_us,
                         struct backup_stats *ret, struct err *err)
{
	struct statvfs fs;

	*ret = (struct backup_stats){0};
	for (size_t i = 0; i < list->n; i++)
		add(ret, &list->entries[i]);
	ret->ratio = ratio_of(list);
	ret->growth_bytes_per_day = growth_of(list, ret->oldest, now_us);
	if (store_is_url(archive_root)) /* nobody knows */
		return 0;
	if (statvfs(archive_root, &fs) < 0)
		return err_set(err, ERR_IO, errno, "ask how full the disk of '%s' is",
		               archive_root);
	/* As Python's shutil.disk_usage(): free is what an ordinary user can have. */
	ret->disk_total_bytes = (uint64_t)fs.f_blocks * fs.f_frsize;
	ret->disk_used_bytes = (uint64_t)(fs.f_blocks - fs.f_bfree) * fs.f_frsize;
	ret->disk_free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
	return 0;
}
