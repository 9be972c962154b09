/* SPDX-License-Identifier: Apache-2.0 */
/* The files of a `dir` entry.  Nothing is opened but folders: closing a descriptor of a live
 * database would drop the locks of the process that captures it. */
#include "engine/config/config_i.h"

#include "engine/archive/names.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define MAX_DEPTH 16
#define MAX_ENTRIES 1000000

struct scan {
	const struct config *c;
	const struct config_database *d;
	struct config_found_list *list;
	size_t cap, n_entries;
};

bool config_name_in_dir(const char *relative_path, char out[CONFIG_NAME_MAX])
{
	size_t len = strlen(relative_path);

	if (len >= CONFIG_NAME_MAX)
		return false;
	for (size_t i = 0; i <= len; i++)
		out[i] = (char)(relative_path[i] == '/' ? '-' : relative_path[i]);
	return db_name_check(out, NULL) == 0;
}

static bool ends_in(const char *text, const char *end)
{
	size_t n = strlen(text), m = strlen(end);

	return n >= m && strcmp(text + n - m, end) == 0;
}

/* Beside a database, or left by a restore. */
static bool is_side_file(const char *name)
{
	static const char *const ends[] = {"-wal", "-shm", "-journal", ".tmp"};

	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
		if (ends_in(name, ends[i]))
			return true;
	return strstr(name, ".asof-restore.") || strstr(name, ".before-restore-");
}

static bool is_archive(const struct config *c, const char *path)
{
	if ((c->archive && strcmp(path, c->archive) == 0) ||
	    (c->backup_dir && strcmp(path, c->backup_dir) == 0))
		return true;
	for (size_t i = 0; i < c->n_databases; i++) {
		const struct config_database *d = &c->databases[i];
		if (strcmp(path, d->archive) == 0)
			return true;
		for (size_t k = 0; k < d->n_destinations; k++)
			if (d->destinations[k].type == CONFIG_DEST_FILE &&
			    strcmp(path, d->destinations[k].url) == 0)
				return true;
	}
	return c->mount.dir && strcmp(path, c->mount.dir) == 0;
}

static bool is_listed(const struct config *c, const char *path, const struct stat *st)
{
	for (size_t i = 0; i < c->n_databases; i++) {
		const char *other = c->databases[i].path;
		struct stat other_st;
		if (!other)
			continue;
		if (strcmp(other, path) == 0)
			return true;
		if (stat(other, &other_st) == 0 && other_st.st_dev == st->st_dev &&
		    other_st.st_ino == st->st_ino)
			return true;
	}
	return false;
}

static int add(struct scan *s, const char *path, const char *relative, struct err *err)
{
	struct config_found_list *list = s->list;
	struct config_found found;

	if (!config_name_in_dir(relative, found.name))
		return 0;
	if (list->n == CONFIG_MAX_FOUND)
		return err_set(err, ERR_USAGE, 0, "'%.200s' has more than %d databases (split it)",
		               s->d->dir, CONFIG_MAX_FOUND);
	if (list->n == s->cap) {
		size_t cap = s->cap ? 2 * s->cap : 16;
		struct config_found *more = realloc(list->items, cap * sizeof(*more));
		if (!more)
			return err_set(err, ERR_NOMEM, 0, "out of memory");
		list->items = more;
		s->cap = cap;
	}
	if (!(found.path = strdup(path)))
		return err_set(err, ERR_NOMEM, 0, "out of memory");
	list->items[list->n++] = found;
	return 0;
}

static int scan_folder(struct scan *s, int parent_fd, const char *name, const char *path,
                       unsigned depth, struct err *err);

/* `path` is absolute and `relative` its end, below the entry's folder. */
static int scan_entry(struct scan *s, int fd, const char *name, const char *path,
                      const char *relative, unsigned depth, struct err *err)
{
	struct stat st;

	if (fstatat(fd, name, &st, 0) < 0)
		return 0; /* gone, or a link to nothing */
	if (S_ISDIR(st.st_mode)) {
		/* Links to folders can go round in a circle. */
		if (!s->d->recursive || depth >= MAX_DEPTH || is_archive(s->c, path) ||
		    fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISDIR(st.st_mode))
			return 0;
		return scan_folder(s, fd, name, path, depth + 1, err);
	}
	if (!S_ISREG(st.st_mode) || is_side_file(name) || fnmatch(s->d->pattern, name, 0) != 0 ||
	    is_listed(s->c, path, &st))
		return 0;
	return add(s, path, relative, err);
}

static int scan_folder(struct scan *s, int parent_fd, const char *name, const char *path,
                       unsigned depth, struct err *err)
{
	size_t root_len = strlen(s->d->dir);
	cleanup_dir DIR *dir = NULL;
	int rc = 0;

	int fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0 && !(dir = fdopendir(fd)))
		close(fd);
	if (!dir) {
		if (errno == ENOENT || depth > 0)
			return 0; /* not there yet; or not for us, which its parent's owner knows */
		return err_set(err, ERR_IO, errno, "read folder '%.300s'", path);
	}
	for (struct dirent *e; !rc && (e = readdir(dir));) {
		char below[PATH_MAX];
		if (e->d_name[0] == '.')
			continue;
		if (++s->n_entries > MAX_ENTRIES)
			return err_set(err, ERR_USAGE, 0,
			               "'%.200s' has more than %d files (split it)", s->d->dir,
			               MAX_ENTRIES);
		int n = snprintf(below, sizeof(below), "%s%s%s", path,
		                 ends_in(path, "/") ? "" : "/", e->d_name);
		if (n < 0 || (size_t)n >= sizeof(below))
			continue;
		const char *relative = below + root_len;
		relative += *relative == '/';
		rc = scan_entry(s, dirfd(dir), e->d_name, below, relative, depth, err);
	}
	return rc;
}

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct config_found *)a)->path,
	              ((const struct config_found *)b)->path);
}

void config_found_release(struct config_found_list *list)
{
	for (size_t i = 0; i < list->n; i++)
		free(list->items[i].path);
	free(list->items);
	*list = (struct config_found_list){0};
}

int config_scan_dir(const struct config *c, const struct config_database *d,
                    struct config_found_list *ret, struct err *err)
{
	struct config_found_list list = {0};
	struct scan s = {.c = c, .d = d, .list = &list};

	int rc = scan_folder(&s, AT_FDCWD, d->dir, d->dir, 0, err);
	if (rc) {
		config_found_release(&list);
		return rc;
	}
	if (list.n)
		qsort(list.items, list.n, sizeof(*list.items), by_path);
	*ret = list;
	return 0;
}
