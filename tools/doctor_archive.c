/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/doctor.h"

#include "engine/backup/backup.h"
#include "tools/check.h"

#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>

#define DAY_US (INT64_C(86400) * US_PER_SECOND)
#define AHEAD_US (INT64_C(1) * US_PER_SECOND)
#define BACKUP_DUE_US (2 * DAY_US)
#define BACKLOG_LARGE (UINT64_C(768) << 20) /* twelve segments: sealing does not keep up */
#define FULL_SOON_DAYS 7
#define FULL_DAYS 30

static const struct doctor_database *find_source(const struct doctor *d, const char *root,
                                                 const struct history_status *s)
{
	for (size_t i = 0; i < d->n_databases; i++) {
		const struct doctor_database *db = &d->databases[i];
		if (db->archive && strcmp(db->archive, root) == 0 &&
		    strcmp(db->path, s->source_path) == 0)
			return db;
	}
	return NULL;
}

/* ---- one history ---- */

static void judge_progress(struct doctor *d, const char *thing, const struct doctor_database *db,
                           const struct history_status *s)
{
	char age[AGE_STR_MAX], ahead[TIME_STR_MAX];

	if (s->known_until_us > d->now_us + AHEAD_US || s->last_us > d->now_us + AHEAD_US) {
		time_format(s->known_until_us > s->last_us ? s->known_until_us : s->last_us, ahead);
		doctor_add(d, DOCTOR_WARNING, "clock", thing,
		           "set the clock, keep it by chrony or systemd-timesyncd",
		           "has commits as of %s, which is yet to come: the clock went back",
		           ahead);
	}
	if (!db)
		return;
	cli_format_age(s->known_until_us, d->now_us, age);
	if (!s->writer_alive)
		doctor_add(d, DOCTOR_SERIOUS, "not-captured", thing, "start asof run",
		           "nobody captures %s: nothing is known since %s", db->path, age);
	if (s->unsealed_bytes > BACKLOG_LARGE)
		doctor_add(d, DOCTOR_WARNING, "backlog", thing,
		           "leave asof more of the processor, or of the disk",
		           "%" PRIu64 " MiB are not sealed yet: sealing does not keep up",
		           s->unsealed_bytes >> 20);
}

static void judge_modes(struct doctor *d, const char *thing, const char *root, const char *name,
                        const struct doctor_database *db)
{
	char folder[PATH_MAX + 256], head[PATH_MAX + 256 + 8];
	struct stat of_folder, of_head;

	snprintf(folder, sizeof(folder), "%s/local/%s", root, name);
	snprintf(head, sizeof(head), "%s/head", folder);
	if (!db->there || stat(folder, &of_folder) || stat(head, &of_head))
		return;
	mode_t others = of_folder.st_mode & of_head.st_mode & 0044;
	if (others & ~db->mode)
		doctor_add(d, DOCTOR_SERIOUS, "modes", thing,
		           "chmod -R go= the folder of the history",
		           "others can read the history (%04o) who cannot read the database (%04o)",
		           (unsigned)(of_head.st_mode & 0777), (unsigned)(db->mode & 0777));
}

static void judge_history(struct doctor *d, struct archive *a, const char *name,
                          double *ret_per_day)
{
	cleanup_history struct history *h = NULL;
	struct history_status s;
	struct err err = ERR_INIT;
	char thing[PATH_MAX + 256];

	snprintf(thing, sizeof(thing), "%s:%s", archive_root(a), name);
	if (history_get(a, name, &h, &err) || history_get_status(h, &s, &err)) {
		doctor_add(d, DOCTOR_SERIOUS, "unreadable", thing, "asof validate tells more", "%s",
		           err.msg);
		return;
	}
	double days = (double)(s.last_us - s.first_us) / (double)DAY_US;
	if (days >= 1)
		*ret_per_day += (double)s.archive_bytes / days;
	const struct doctor_database *db = find_source(d, archive_root(a), &s);
	if (!s.last_txid)
		return;
	judge_progress(d, thing, db, &s);
	if (db)
		judge_modes(d, thing, archive_root(a), name, db);
}

/* ---- the archive as a whole ---- */

static void judge_place(struct doctor *d, const char *root)
{
	struct statfs fs;

	if (statfs(root, &fs))
		return;
	switch (doctor_storage_of((unsigned long)fs.f_type)) {
	case DOCTOR_NETWORK:
	case DOCTOR_FUSE:
		doctor_add(
		        d, DOCTOR_WARNING, "network-filesystem", root,
		        "keep the archive on a local disk, and name the share under destinations:",
		        "the archive lies on a network or FUSE filesystem: each commit waits "
		        "for it, and its lock against a second writer may not hold");
		break;
	case DOCTOR_OVERLAY:
		doctor_add(d, DOCTOR_SERIOUS, "container-layer", root, "put it on a volume",
		           "the archive lies in a container's own layer (overlayfs) and goes with "
		           "the container");
		break;
	case DOCTOR_MEMORY:
		doctor_add(d, DOCTOR_WARNING, "memory-filesystem", root, "put it on a disk",
		           "the archive lies in memory (tmpfs): it goes with the power");
		break;
	case DOCTOR_LOCAL:
		break;
	}
	if (access(root, W_OK | X_OK) < 0)
		doctor_add(d, DOCTOR_SERIOUS, "permission", root,
		           "run asof, and asof doctor, as the user whose archive it is",
		           "the archive cannot be written by uid %u", (unsigned)geteuid());
}

static void judge_space(struct doctor *d, const char *root, double per_day,
                        const struct config_retention *retention)
{
	const struct config_retention standard = {.min_free_percent = 5,
	                                          .min_free_bytes = UINT64_C(2) << 30};
	char free_text[SIZE_STR_MAX], kept_text[SIZE_STR_MAX], rate_text[SIZE_STR_MAX];
	struct statvfs fs;

	if (statvfs(root, &fs))
		return;
	uint64_t free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
	uint64_t kept = check_kept_free(retention ? retention : &standard,
	                                (uint64_t)fs.f_blocks * fs.f_frsize);
	cli_format_size(free_bytes, free_text);
	cli_format_size(kept, kept_text);
	if (free_bytes <= kept) {
		doctor_add(d, DOCTOR_SERIOUS, "space", root, "make room, or shorten the retention",
		           "%s free, of which %s are kept free (min-free): capture stops",
		           free_text, kept_text);
		return;
	}
	if (per_day <= 0)
		return;
	double days = (double)(free_bytes - kept) / per_day;
	cli_format_size((uint64_t)per_day, rate_text);
	if (days < FULL_DAYS)
		doctor_add(d, days < FULL_SOON_DAYS ? DOCTOR_SERIOUS : DOCTOR_WARNING, "space",
		           root, "make room, or shorten the retention",
		           "full in %.0f days at the rate so far (%s free, %s a day)", days,
		           free_text, rate_text);
}

static void judge_backups(struct doctor *d, const char *root, double *per_day)
{
	cleanup_backup_list struct backup_list list = {0};
	struct backup_stats stats;
	struct err err = ERR_INIT;
	int64_t newest_us = 0, oldest_us = d->now_us;
	char age[AGE_STR_MAX];

	if (backup_list_read(root, &list, &err) ||
	    backup_stats_compute(root, &list, d->now_us, &stats, &err)) {
		doctor_add(d, DOCTOR_WARNING, "unreadable", root, "mend its permissions",
		           "backups cannot be listed: %s", err.msg);
		return;
	}
	*per_day += stats.growth_bytes_per_day;
	for (size_t i = 0; i < list.n; i++) {
		if (list.entries[i].time_us > newest_us && !list.entries[i].raw)
			newest_us = list.entries[i].time_us;
		if (list.entries[i].time_us < oldest_us)
			oldest_us = list.entries[i].time_us;
	}
	if (newest_us > d->now_us + AHEAD_US)
		doctor_add(d, DOCTOR_WARNING, "clock", root,
		           "set the clock, keep it by chrony or systemd-timesyncd",
		           "a backup is of a time that is yet to come: the clock went back");
	if (!d->config || !d->config->n_schedules || !list.n)
		return;
	cli_format_age(newest_us, d->now_us, age);
	if (d->now_us - newest_us > BACKUP_DUE_US)
		doctor_add(
		        d, DOCTOR_WARNING, "old-backup", root,
		        "start asof run, or asof backup; asof status tells how the last runs ended",
		        "backups are scheduled, the newest was made %s", age);
}

bool doctor_archive(struct doctor *d, const char *root, const struct config_retention *retention)
{
	cleanup_archive struct archive *a = NULL;
	cleanup_free char **names = NULL;
	struct err err = ERR_INIT;
	struct stat st;
	size_t n = 0;
	double per_day = 0;

	if (!doctor_answers(root)) {
		doctor_add(d, DOCTOR_SERIOUS, "no-answer", root,
		           "look at its filesystem (a file server that hangs?)",
		           "the archive does not answer");
		return false;
	}
	if (stat(root, &st) < 0 && errno == ENOENT) {
		doctor_add(d, DOCTOR_NOTE, "missing", root, "none is needed, asof makes it",
		           "the archive is not there yet");
		return true;
	}
	if (archive_open(root, NULL, &a, &err) || archive_list(a, &names, &n, &err)) {
		doctor_add(d, DOCTOR_SERIOUS, "unreadable", root,
		           "run asof doctor as the user whose archive it is", "%s", err.msg);
		return true;
	}
	judge_place(d, root);
	for (size_t i = 0; i < n; i++)
		judge_history(d, a, names[i], &per_day);
	judge_backups(d, root, &per_day);
	judge_space(d, root, per_day, retention);
	return true;
}

/* ---- copies elsewhere ---- */

static bool is_this_machine(const char *endpoint)
{
	const char *host = endpoint ? strstr(endpoint, "://") : NULL;

	host = host ? host + 3 : endpoint;
	if (host && host[strcspn(host, "@/")] == '@')
		host += strcspn(host, "@") + 1;
	return host && (strncmp(host, "127.", 4) == 0 || strncmp(host, "localhost", 9) == 0 ||
	                strncmp(host, "[::1]", 5) == 0);
}

enum place { SAME_DISK, OTHER_DISK, OTHER_MACHINE };

static enum place place_of_folder(const struct doctor_database *db, const char *folder)
{
	struct statfs fs;
	struct stat st;

	if (!doctor_answers(folder) || statfs(folder, &fs) || stat(folder, &st))
		return SAME_DISK; /* not there: no copy either */
	if (doctor_storage_of((unsigned long)fs.f_type) == DOCTOR_NETWORK)
		return OTHER_MACHINE;
	return db->there && st.st_dev != db->dev ? OTHER_DISK : SAME_DISK;
}

static enum place place_of(struct doctor *d, const struct doctor_database *db)
{
	enum place best = place_of_folder(db, db->archive);

	for (size_t i = 0; db->config && i < db->config->n_destinations; i++) {
		const struct config_destination *to = &db->config->destinations[i];
		enum place p = SAME_DISK;
		if (to->not_configured)
			doctor_add(d, DOCTOR_WARNING, "destination", db->path,
			           "give it what it lacks, or take it out",
			           "nothing goes to destination %s: %s", to->name,
			           to->not_configured);
		else if (to->type == CONFIG_DEST_FILE)
			p = place_of_folder(db, to->url);
		else
			p = is_this_machine(to->type == CONFIG_DEST_S3 ? to->s3.endpoint : to->url)
			            ? OTHER_DISK
			            : OTHER_MACHINE;
		best = p > best ? p : best;
	}
	return best;
}

void doctor_destinations(struct doctor *d)
{
	for (size_t i = 0; i < d->n_databases; i++) {
		const struct doctor_database *db = &d->databases[i];
		if (!db->archive)
			continue;
		switch (place_of(d, db)) {
		case SAME_DISK:
			if (db->there)
				doctor_add(
				        d, DOCTOR_SERIOUS, "one-disk", db->path,
				        "name a destination on another machine in asof.yml",
				        "its whole history lies on the filesystem of the database: "
				        "one disk takes both");
			break;
		case OTHER_DISK:
			doctor_add(d, DOCTOR_WARNING, "one-machine", db->path,
			           "name a destination on another machine in asof.yml",
			           "no destination is on another machine: a fire or a thief takes "
			           "all");
			break;
		case OTHER_MACHINE:
			break;
		}
	}
}
