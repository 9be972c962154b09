/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/file.h"
#include "engine/copy/copy_i.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

static const char *const backup_folders[] = {"manual", "automated", "safety", "compressed"};

/* ---- backups: whole files, which nobody changes ---- */

static int copy_backup(struct copying *c, int from_fd, int to_fd, const char *name, struct err *err)
{
	struct stat st, there;
	size_t n = strlen(name);
	struct err why = ERR_INIT;

	if (name[0] == '.' || (n > 4 && strcmp(name + n - 4, ".tmp") == 0) ||
	    fstatat(from_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
		return 0;
	if (fstatat(to_fd, name, &there, AT_SYMLINK_NOFOLLOW) == 0 && there.st_size == st.st_size) {
		c->result->present++;
		return 0;
	}
	int rc = copy_plain(c, from_fd, to_fd, name, &why);
	if (rc < 0 && copy_vanished(&why)) /* cleaned up meanwhile */
		return 0;
	return rc < 0 ? err_copy(err, &why) : copy_stopped(c, err);
}

static int copy_backups(struct copying *c, int from_root, int to_root, struct err *err)
{
	int rc = 0;

	for (size_t i = 0; i < sizeof(backup_folders) / sizeof(*backup_folders) && rc == 0; i++) {
		cleanup_fd int from = -1, to = -1;
		cleanup_dir DIR *dir = NULL;
		struct dirent *d;
		if (file_open_dir(from_root, backup_folders[i], false, &from, NULL) < 0)
			continue;
		int fd = openat(from, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		dir = fd < 0 ? NULL : fdopendir(fd);
		if (!dir)
			return err_set(err, ERR_IO, errno, "list '%s/%s'", c->options->from,
			               backup_folders[i]);
		rc = file_open_dir(to_root, backup_folders[i], true, &to, err);
		while (rc == 0 && (d = readdir(dir)))
			rc = copy_backup(c, from, to, d->d_name, err);
	}
	return rc;
}

/* ---- */

static bool same_folder(const char *a, const char *b)
{
	struct stat x, y;

	return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static int copy_histories(struct copying *c, struct archive *a, struct err *err)
{
	cleanup_free char **names = NULL;
	size_t n;
	int rc = archive_list(a, &names, &n, err);

	for (size_t i = 0; i < n && rc == 0; i++) {
		cleanup_history struct history *h = NULL;
		if (c->options->db && strcmp(names[i], c->options->db) != 0)
			continue;
		rc = history_get(a, names[i], &h, err);
		if (rc == 0)
			rc = copy_database(c, h, names[i], err);
		c->result->databases += rc == 0;
	}
	if (rc == 0 && c->options->db && c->result->databases == 0)
		rc = err_set(err, ERR_NOT_FOUND, 0,
		             "archive '%s' has no database '%s' (asof list shows those it has)",
		             c->options->from, c->options->db);
	return rc;
}

int copy_archive(const struct copy_options *o, struct copy_result *ret, struct err *err)
{
	const struct archive_options small = {.cache_bytes = 1u << 20};
	cleanup_archive struct archive *a = NULL;
	cleanup_fd int from = -1, to = -1;
	struct copying c = {o, ret};

	*ret = (struct copy_result){0};
	int rc = archive_open(o->from, &small, &a, err);
	if (rc == 0)
		rc = file_open_dir(AT_FDCWD, o->from, false, &from, err);
	if (rc == 0)
		rc = file_open_dir(AT_FDCWD, o->to, true, &to, err);
	if (rc == 0 && same_folder(o->from, o->to))
		rc = err_set(err, ERR_USAGE, 0, "'%s' and '%s' are one archive", o->from, o->to);
	if (rc == 0)
		rc = copy_histories(&c, a, err);
	if (rc == 0 && !o->db)
		rc = copy_backups(&c, from, to, err);
	if (rc == 0 && ret->damaged > 0)
		rc = err_set(err, ERR_DAMAGED, 0, "%s (the rest was copied)", ret->damage);
	return rc;
}
