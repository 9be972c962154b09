/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Removing what a plan says, in an order that a crash may end anywhere: the backup first, for a
 * companion or a manifest without it is an orphan, which the next cleanup removes.
 */
#include "engine/backup/backup_i.h"

#include "engine/base/file.h"
#include "engine/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

/* A temporary name is locked within a blink of its making. */
#define LEFTOVER_MIN_AGE_S 60

struct cleaning {
	const struct backup_list *list;
	const struct backup_plan *plan;
	struct backup_cleaned *done;
	int rc; /* the first error */
	struct err *err;
};

static bool remove_file(struct cleaning *c, const char *path)
{
	struct err why = ERR_INIT;

	if (unlink(path) == 0 || errno == ENOENT)
		return true;
	int rc = err_set(&why, ERR_IO, errno, "remove '%s'", path);
	c->done->n_failed++;
	if (!c->rc) {
		c->rc = rc;
		err_copy(c->err, &why);
	} else {
		log_warn("backup", "%s", why.msg);
	}
	return false;
}

static bool stays(const struct backup_plan *plan, const char *manifest_path)
{
	for (size_t i = 0; i < plan->n; i++) {
		const struct backup_verdict *v = &plan->verdicts[i];
		if (!v->remove && v->entry->manifest_path &&
		    strcmp(v->entry->manifest_path, manifest_path) == 0)
			return true;
	}
	return false;
}

static bool remove_backup(struct cleaning *c, const struct backup_entry *e)
{
	bool gone = remove_file(c, e->path);

	if (!gone)
		return false;
	c->done->n_files++;
	c->done->freed_bytes += e->size_bytes;
	for (size_t i = 0; i < e->n_companions; i++)
		remove_file(c, e->companions[i]);
	c->done->freed_bytes += e->companion_bytes;
	if (e->manifest_path && !stays(c->plan, e->manifest_path) &&
	    remove_file(c, e->manifest_path))
		c->done->n_manifests++;
	return true;
}

/* ---- what dead processes left ---- */

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
	return remove(path);
}

/* One that somebody has locked is being written. */
static void remove_leftover(struct cleaning *c, const char *path)
{
	struct stat st;
	cleanup_fd int fd = -1;

	if (lstat(path, &st) < 0 || time(NULL) - st.st_mtim.tv_sec < LEFTOVER_MIN_AGE_S)
		return;
	if (S_ISDIR(st.st_mode)) {
		/* Of a child that repaired a copy; it holds the folder's lock file. */
		char lock[PATH_MAX];
		snprintf(lock, sizeof(lock), "%s/lock", path);
		if (file_open(AT_FDCWD, lock, O_WRONLY, 0, &fd, NULL) == 0 &&
		    file_lock(fd, lock, NULL))
			return;
		nftw(path, remove_one, 8, FTW_DEPTH | FTW_PHYS);
		return;
	}
	if (!S_ISREG(st.st_mode) ||
	    file_open(AT_FDCWD, path, O_WRONLY | O_NOFOLLOW, 0, &fd, NULL) ||
	    file_lock(fd, path, NULL))
		return;
	remove_file(c, path);
}

static void sync_folders(const char *root)
{
	char path[PATH_MAX];

	for (int type = 0; type < BACKUP_N_TYPES; type++) {
		cleanup_fd int fd = -1;
		snprintf(path, sizeof(path), "%s/%s", root, backup_type_names[type]);
		if (file_open(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0, &fd, NULL) == 0) {
			int ignored = file_sync_dir(fd, path, NULL); /* removed again next time */
			(void)ignored;
		}
	}
}

int backup_plan_apply(const char *archive_root, const struct backup_list *list,
                      const struct backup_plan *plan,
                      void (*removed)(void *ctx, const struct backup_verdict *v), void *ctx,
                      struct backup_cleaned *ret, struct err *err)
{
	struct cleaning c = {.list = list, .plan = plan, .done = ret, .err = err};

	*ret = (struct backup_cleaned){0};
	for (size_t i = 0; i < plan->n; i++)
		if (plan->verdicts[i].remove && remove_backup(&c, plan->verdicts[i].entry) &&
		    removed)
			removed(ctx, &plan->verdicts[i]);
	for (size_t i = 0; i < list->n_orphans; i++)
		if (remove_file(&c, list->orphans[i]))
			ret->n_manifests++;
	for (size_t i = 0; i < list->n_leftovers; i++)
		remove_leftover(&c, list->leftovers[i]);
	if (ret->n_files || ret->n_manifests)
		sync_folders(archive_root);
	return c.rc;
}
