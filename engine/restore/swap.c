/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Putting the new file in place.
 *
 * Alone it is one rename.  With a -wal or -journal beside the old file there are several names
 * to change and no way to change them at once, and each wrong pair is a database that opens
 * and lies: the new file with the old -wal, and the old file without it.  So:
 *
 *   1  write down the intent: TARGET.asof-restore.swap holds the name aside, and size and time of
 *      the old file, fsynced
 *   2  the old file gets its second name, TARGET.before-restore-TIME (a hard link)
 *   3  -wal, -shm, -journal are renamed to that name and their suffix; fsync of the folder
 *   4  the new file is renamed to TARGET; fsync of the folder
 *   5  the intent is removed
 *
 * The new file never meets an old -wal.  Whoever dies after 1 and before 4 leaves an old file
 * without its -wal, and the intent: the next restore to that target, or the replicator that is
 * about to attach to it, puts everything back before anything else.  That 4 is done shows in TARGET
 * and the name aside being two files.
 *
 * Unless somebody opened the old file meanwhile, without its -wal, and wrote to it.  The -wal would
 * then be applied to another state than its own, and the database be malformed: it is left to a
 * person to choose.  Such a file has a -wal of its own, or, closed again, another size or time.
 */
#include "engine/restore/restore_i.h"

#include "engine/base/cleanup.h"
#include "engine/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define STAMP_MAX 64

/* ---- names ---- */

static void side_name(char out[RESTORE_NAME_MAX], const char *name, int side)
{
	snprintf(out, RESTORE_NAME_MAX, "%s%s", name, side_suffixes[side]);
}

static int rename_noreplace(const struct place *p, const char *from, const char *to)
{
	if (renameat2(p->dir_fd, from, p->dir_fd, to, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno != EINVAL && errno != ENOSYS)
		return -1;
	/* A filesystem without that flag: not atomic, but nothing is overwritten. */
	if (faccessat(p->dir_fd, to, F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
		errno = EEXIST;
		return -1;
	}
	return renameat(p->dir_fd, from, p->dir_fd, to);
}

static bool stat_name(const struct place *p, const char *name, struct stat *ret)
{
	return fstatat(p->dir_fd, name, ret, AT_SYMLINK_NOFOLLOW) == 0;
}

/* ---- forward ---- */

static int move_sides(const struct place *p, const char *aside, struct err *err)
{
	char from[RESTORE_NAME_MAX], to[RESTORE_NAME_MAX];

	for (int i = 0; i < N_SIDES; i++) {
		side_name(from, p->name, i);
		side_name(to, aside, i);
		if (rename_noreplace(p, from, to) < 0 && errno != ENOENT)
			return err_set(err, ERR_IO, errno, "rename '%s/%s' to '%s'", p->dir, from,
			               to);
	}
	return file_sync_dir(p->dir_fd, p->dir, err);
}

static int remove_sides(const struct place *p, struct err *err)
{
	char name[RESTORE_NAME_MAX];

	for (int i = 0; i < N_SIDES; i++) {
		side_name(name, p->name, i);
		if (unlinkat(p->dir_fd, name, 0) < 0 && errno != ENOENT)
			return err_set(err, ERR_IO, errno, "remove '%s/%s'", p->dir, name);
	}
	return file_sync_dir(p->dir_fd, p->dir, err);
}

static int rename_in(const struct place *p, const struct plan *plan, const char *tmp,
                     struct err *err)
{
	int failed = plan->replace ? renameat(p->dir_fd, tmp, p->dir_fd, p->name)
	                           : rename_noreplace(p, tmp, p->name);

	if (failed && errno == EEXIST)
		return err_set(err, ERR_EXISTS, 0, "'%s' came into being meanwhile", p->path);
	if (failed)
		return err_set(err, ERR_IO, errno, "rename '%s/%s' to '%s'", p->dir, tmp, p->name);
	return file_sync_dir(p->dir_fd, p->dir, err);
}

/* What a write to the file changes, and a link to it does not. */
static void stamp(const struct stat *st, char out[STAMP_MAX])
{
	snprintf(out, STAMP_MAX, "%lld %lld.%09ld", (long long)st->st_size,
	         (long long)st->st_mtim.tv_sec, st->st_mtim.tv_nsec);
}

static int set_old_aside(const struct place *p, const char *aside, struct err *err)
{
	char swap[RESTORE_NAME_MAX], text[RESTORE_NAME_MAX + STAMP_MAX + 1], old[STAMP_MAX];
	struct stat st;

	if (!stat_name(p, p->name, &st))
		return err_set(err, ERR_IO, errno, "'%s'", p->path);
	stamp(&st, old);
	snprintf(swap, sizeof(swap), "%s" RESTORE_SWAP_SUFFIX, p->name);
	snprintf(text, sizeof(text), "%s\n%s", aside, old);
	int rc = file_put(p->dir_fd, swap, text, strlen(text), err);
	if (rc)
		return err_wrap(err, rc, "note the intent in '%s'", p->dir);
	if (linkat(p->dir_fd, p->name, p->dir_fd, aside, 0) < 0)
		return err_set(err, ERR_IO, errno, "keep '%s' as '%s' (move it and its -wal away)",
		               p->path, aside);
	return move_sides(p, aside, err);
}

static int recover(const struct place *p, bool died, bool *ret_undone, struct err *err);

int swap_in(const struct place *p, const struct plan *plan, const char *tmp, struct err *err)
{
	int rc = 0;

	if (plan->keep_old)
		rc = set_old_aside(p, plan->aside, err);
	else if (plan->move_sides)
		rc = move_sides(p, plan->aside, err);
	else if (plan->remove_sides)
		rc = remove_sides(p, err);
	if (!rc)
		rc = rename_in(p, plan, tmp, err);
	if (plan->keep_old) {
		/* Completes it, or puts back what was moved. */
		struct err why = ERR_INIT;
		bool undone;
		int put_back = recover(p, false, &undone, &why);
		if (put_back && !rc)
			rc = err_copy(err, &why);
	}
	return rc;
}

/* ---- after a crash ---- */

static int read_intent(const struct place *p, const char *swap, char aside[RESTORE_NAME_MAX],
                       char old[STAMP_MAX], struct err *err)
{
	cleanup_free char *text = NULL;
	size_t len, prefix = strlen(p->name);

	int rc = file_get(p->dir_fd, swap, RESTORE_NAME_MAX + STAMP_MAX, &text, &len, err);
	if (rc)
		return rc;
	char *end = strchr(text, '\n');
	size_t name_len = end ? (size_t)(end - text) : 0;
	/* A name in the same folder, and what the file was. */
	if (!end || name_len >= RESTORE_NAME_MAX || strlen(text) != len ||
	    len - name_len - 1 >= STAMP_MAX || strchr(text, '/') ||
	    strncmp(text, p->name, prefix) != 0 ||
	    strncmp(text + prefix, RESTORE_ASIDE_INFIX, strlen(RESTORE_ASIDE_INFIX)) != 0)
		return err_set(err, ERR_REFUSED, 0,
		               "'%s/%s' is not what a restore writes (look at what lies there, "
		               "then remove it)",
		               p->dir, swap);
	*end = '\0';
	memcpy(aside, text, name_len + 1);
	memcpy(old, end + 1, len - name_len);
	return 0;
}

/* Looks before it moves: a file that came into being since is nobody's to overwrite. */
static int put_sides_back(const struct place *p, const char *aside, struct err *err)
{
	char from[RESTORE_NAME_MAX], to[RESTORE_NAME_MAX];
	struct stat st;

	for (int i = 0; i < N_SIDES; i++) {
		side_name(from, aside, i);
		side_name(to, p->name, i);
		if (i != SIDE_SHM && stat_name(p, from, &st) && stat_name(p, to, &st))
			return err_set(
			        err, ERR_REFUSED, 0,
			        "a restore of '%s' was interrupted, and the database was opened "
			        "since: '%s' belongs to it as much as '%s' (choose, and remove '%s"
			        "')",
			        p->path, from, to, RESTORE_SWAP_SUFFIX);
	}
	for (int i = 0; i < N_SIDES; i++) {
		side_name(from, aside, i);
		side_name(to, p->name, i);
		if (i == SIDE_SHM) /* made anew from the -wal */
			unlinkat(p->dir_fd, from, 0);
		else if (rename_noreplace(p, from, to) < 0 && errno != ENOENT)
			return err_set(err, ERR_IO, errno, "rename '%s/%s' to '%s'", p->dir, from,
			               to);
	}
	return file_sync_dir(p->dir_fd, p->dir, err);
}

static int check_not_written(const struct place *p, const struct stat *st, const char *aside,
                             const char *old, struct err *err)
{
	char now[STAMP_MAX];

	stamp(st, now);
	if (strcmp(now, old) == 0)
		return 0;
	return err_set(err, ERR_REFUSED, 0,
	               "a restore of '%s' was interrupted, and the database was opened since, and "
	               "written to: what it had before is in '%s-wal' and must not be applied now "
	               "(keep what you need, then remove '%s" RESTORE_SWAP_SUFFIX "')",
	               p->path, aside, p->name);
}

/* `died`: others may have been at it since. */
static int recover(const struct place *p, bool died, bool *ret_undone, struct err *err)
{
	char swap[RESTORE_NAME_MAX], aside[RESTORE_NAME_MAX], was[STAMP_MAX];
	struct stat now, old;
	struct err why = ERR_INIT;

	*ret_undone = false;
	snprintf(swap, sizeof(swap), "%s" RESTORE_SWAP_SUFFIX, p->name);
	int rc = read_intent(p, swap, aside, was, &why);
	if (err_kind_of(rc) == ERR_NOT_FOUND)
		return 0;
	if (rc)
		return err_copy(err, &why);
	bool before = stat_name(p, p->name, &now) && stat_name(p, aside, &old) &&
	              now.st_dev == old.st_dev && now.st_ino == old.st_ino;
	if (before) {
		if ((died && (rc = check_not_written(p, &now, aside, was, err))) ||
		    (rc = put_sides_back(p, aside, err)))
			return rc;
		if (unlinkat(p->dir_fd, aside, 0) < 0 && errno != ENOENT)
			return err_set(err, ERR_IO, errno, "remove '%s/%s'", p->dir, aside);
		*ret_undone = true;
	}
	if (unlinkat(p->dir_fd, swap, 0) < 0 && errno != ENOENT)
		return err_set(err, ERR_IO, errno, "remove '%s/%s'", p->dir, swap);
	return file_sync_dir(p->dir_fd, p->dir, err);
}

int swap_recover(const struct place *p, bool *ret_undone, struct err *err)
{
	return recover(p, true, ret_undone, err);
}
