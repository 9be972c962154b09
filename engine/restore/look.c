/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What lies at the target, and who uses it.
 *
 * Users are found by device and inode among the descriptors in /proc, so that other names
 * (hard links, other mount namespaces) do not hide them.  The processes of others are closed
 * to a user who is not root; those show in /proc/locks as soon as they hold a lock, as every
 * connection to a database in WAL mode does.  Nothing is opened: closing a descriptor of a
 * database would drop the locks that this process may hold on it.
 */
#include "engine/restore/restore_i.h"

#include "engine/base/cleanup.h"
#include "engine/base/file.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#define N_FILES (N_SIDES + 1)

/* ---- where ---- */

/* Splits a path whose last part need not exist. */
static int split(const char *path, char dir[PATH_MAX], char name[NAME_MAX + 1], struct err *err)
{
	const char *slash = strrchr(path, '/');
	const char *last = slash ? slash + 1 : path;
	size_t dir_len = slash ? (size_t)(slash - path) : 0;

	if (!*last || strcmp(last, ".") == 0 || strcmp(last, "..") == 0)
		return err_set(err, ERR_EXISTS, 0, "'%.200s' is a folder (name a file in it)",
		               path);
	if (strlen(last) > NAME_MAX || dir_len >= PATH_MAX)
		return err_set(err, ERR_USAGE, 0, "the path '%.60s...' is too long", path);
	snprintf(name, NAME_MAX + 1, "%s", last);
	if (!slash)
		snprintf(dir, PATH_MAX, ".");
	else if (dir_len == 0)
		snprintf(dir, PATH_MAX, "/");
	else
		snprintf(dir, PATH_MAX, "%.*s", (int)dir_len, path);
	return 0;
}

int place_open(const char *target, struct place *ret, struct err *err)
{
	char real[PATH_MAX], dir[PATH_MAX];
	struct stat st;

	*ret = (struct place){.dir_fd = -1};
	if (!*target)
		return err_set(err, ERR_USAGE, 0, "the name of the target is empty");
	/* SQLite names its side files after what a link points at, and rename(2) would
	 * replace the link. */
	if (lstat(target, &st) == 0 && S_ISLNK(st.st_mode)) {
		if (!realpath(target, real))
			return err_set(err, ERR_REFUSED, errno,
			               "'%.200s' is a link that leads nowhere", target);
		target = real;
	}
	int rc = split(target, dir, ret->name, err);
	if (rc)
		return rc;
	size_t len = strlen(ret->name);
	for (int i = 0; i < N_SIDES; i++) {
		size_t n_suffix = strlen(side_suffixes[i]);
		if (len > n_suffix && strcmp(ret->name + len - n_suffix, side_suffixes[i]) == 0)
			return err_set(err, ERR_USAGE, 0,
			               "'%.200s' is a name that SQLite gives to what lies beside "
			               "a database (choose another)",
			               target);
	}
	if (!realpath(dir, ret->dir))
		return err_set(err, errno == ENOENT || errno == ENOTDIR ? ERR_NOT_FOUND : ERR_IO,
		               errno, "folder '%.200s' of the target", dir);
	int n = snprintf(ret->path, sizeof(ret->path), "%s/%s",
	                 strcmp(ret->dir, "/") ? ret->dir : "", ret->name);
	if (n >= (int)sizeof(ret->path))
		return err_set(err, ERR_USAGE, 0, "the path '%.60s...' is too long", target);
	return file_open_dir(AT_FDCWD, ret->dir, false, &ret->dir_fd, err);
}

void place_release(struct place *p)
{
	if (p->dir_fd >= 0)
		close(p->dir_fd);
	p->dir_fd = -1;
}

/* ---- who ---- */

struct file_id {
	dev_t dev;
	ino_t ino;
};

struct search {
	struct file_id files[N_FILES]; /* the target and what lies beside it */
	size_t n_files;
	struct file_id lock; /* of the replicator; ino 0: there is none */
	struct file_id self; /* this program */
	bool closed_to_us;   /* some process would not be looked into */
	struct found *found;
};

static bool is_one_of(const struct search *s, dev_t dev, ino_t ino)
{
	for (size_t i = 0; i < s->n_files; i++)
		if (s->files[i].ino == ino && s->files[i].dev == dev)
			return true;
	return false;
}

static void add_holder(struct found *f, pid_t pid, bool is_asof)
{
	struct restore_holder h = {.pid = pid, .is_asof = is_asof};
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
	cleanup_file FILE *comm = fopen(path, "re");
	if (!comm || !fgets(h.command, sizeof(h.command), comm))
		snprintf(h.command, sizeof(h.command), "?");
	h.command[strcspn(h.command, "\n")] = '\0';
	/* The one to be named is rather an application. */
	if (f->n_holders++ == 0 || (f->holder.is_asof && !is_asof))
		f->holder = h;
	f->n_asof += is_asof;
}

/* stat(2) of what a descriptor stands for, without asking a server that may hang. */
static bool stat_fd_of(int fds, const char *name, dev_t *ret_dev, ino_t *ret_ino)
{
	struct statx st;

	if (statx(fds, name, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_INO, &st) < 0)
		return false;
	*ret_dev = makedev(st.stx_dev_major, st.stx_dev_minor);
	*ret_ino = st.stx_ino;
	return true;
}

static bool runs_this_program(const struct search *s, pid_t pid)
{
	char path[64];
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%d/exe", (int)pid);
	return s->self.ino && stat(path, &st) == 0 && st.st_ino == s->self.ino &&
	       st.st_dev == s->self.dev;
}

/* ARCHIVE/local/NAME/lock, which a replicator has open for its life. */
static bool is_writer_lock(int fds, const char *name)
{
	char path[PATH_MAX];
	ssize_t n = readlinkat(fds, name, path, sizeof(path) - 1);

	if (n < 6)
		return false;
	path[n] = '\0';
	return strcmp(path + n - 5, "/lock") == 0 && strstr(path, "/local/");
}

static void search_process(struct search *s, pid_t pid)
{
	char path[64];
	struct dirent *d;
	bool holds = false, replicates = false;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	cleanup_dir DIR *fds = opendir(path);
	if (!fds) {
		s->closed_to_us = s->closed_to_us || errno == EACCES;
		return;
	}
	bool same = runs_this_program(s, pid);
	while ((d = readdir(fds))) {
		dev_t dev;
		ino_t ino;
		if (d->d_name[0] == '.' || !stat_fd_of(dirfd(fds), d->d_name, &dev, &ino))
			continue;
		holds = holds || is_one_of(s, dev, ino);
		replicates = replicates ||
		             (s->lock.ino && s->lock.ino == ino && s->lock.dev == dev) ||
		             (same && is_writer_lock(dirfd(fds), d->d_name));
	}
	if (holds && replicates)
		s->found->replicated = true;
	else if (holds)
		add_holder(s->found, pid, same);
}

/* "1: POSIX  ADVISORY  READ 4711 fe:01:1234 1073741826 1073742335": process, then device and
 * inode.  The line of one that waits has "->" as its second word. */
static bool parse_lock(char *line, pid_t *ret_pid, dev_t *ret_dev, ino_t *ret_ino)
{
	char *save, *end, *word = strtok_r(line, " ", &save), *words[6];

	for (int i = 0; i < 6; i++, word = strtok_r(NULL, " ", &save))
		if (!(words[i] = word))
			return false;
	*ret_pid = (pid_t)strtol(words[4], &end, 10);
	if (*end)
		return false;
	unsigned major = (unsigned)strtoul(words[5], &end, 16);
	if (*end != ':')
		return false;
	unsigned minor = (unsigned)strtoul(end + 1, &end, 16);
	if (*end != ':')
		return false;
	*ret_dev = makedev(major, minor);
	*ret_ino = strtoull(end + 1, &end, 10);
	return *end == '\0';
}

static void search_locks(struct search *s)
{
	cleanup_file FILE *f = fopen("/proc/locks", "re");
	cleanup_free char *line = NULL;
	size_t cap = 0;

	while (f && s->found->n_holders == 0 && getline(&line, &cap, f) > 0) {
		pid_t pid;
		dev_t dev;
		ino_t ino;
		if (parse_lock(line, &pid, &dev, &ino) && pid > 0 && pid != getpid() &&
		    is_one_of(s, dev, ino))
			add_holder(s->found, pid, runs_this_program(s, pid));
	}
}

static int find_holders(struct search *s, struct err *err)
{
	cleanup_dir DIR *proc = opendir("/proc");
	struct dirent *d;

	if (!proc)
		return err_set(err, ERR_IO, errno,
		               "cannot tell which process uses the target: open '/proc'");
	while ((d = readdir(proc))) {
		pid_t pid = isdigit((unsigned char)d->d_name[0])
		                    ? (pid_t)strtol(d->d_name, NULL, 10)
		                    : 0;
		if (pid > 0 && pid != getpid())
			search_process(s, pid);
	}
	if (s->closed_to_us)
		search_locks(s);
	return 0;
}

/* ---- all of it ---- */

static int look_at_sides(const struct place *p, struct search *s, struct found *f, struct err *err)
{
	char name[RESTORE_NAME_MAX];
	struct stat st;

	for (int i = 0; i < N_SIDES; i++) {
		snprintf(name, sizeof(name), "%s%s", p->name, side_suffixes[i]);
		if (fstatat(p->dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
			if (errno == ENOENT || errno == ENAMETOOLONG)
				continue;
			return err_set(err, ERR_IO, errno, "stat '%s%s'", p->path,
			               side_suffixes[i]);
		}
		f->sides[i] = (struct side){true, i != SIDE_SHM && st.st_size > 0};
		s->files[s->n_files++] = (struct file_id){st.st_dev, st.st_ino};
	}
	return 0;
}

static void identify(struct search *s, const char *lock_path)
{
	struct stat st;

	if (lock_path && stat(lock_path, &st) == 0)
		s->lock = (struct file_id){st.st_dev, st.st_ino};
	if (stat("/proc/self/exe", &st) == 0)
		s->self = (struct file_id){st.st_dev, st.st_ino};
}

int look_for_holders(const struct stat *of, const char *lock_path, struct found *ret,
                     struct err *err)
{
	struct found f = {0};
	struct search s = {.found = &f, .files = {{of->st_dev, of->st_ino}}, .n_files = 1};

	identify(&s, lock_path);
	int rc = find_holders(&s, err);
	if (!rc)
		*ret = f;
	return rc;
}

int look(const struct place *p, const char *lock_path, struct found *ret, struct err *err)
{
	struct found f = {0};
	struct search s = {.found = &f};
	char name[RESTORE_NAME_MAX];
	struct stat st;

	if (fstatat(p->dir_fd, p->name, &f.st, AT_SYMLINK_NOFOLLOW) == 0) {
		f.exists = true;
		s.files[s.n_files++] = (struct file_id){f.st.st_dev, f.st.st_ino};
	} else if (errno != ENOENT) {
		return err_set(err, errno == ENAMETOOLONG ? ERR_USAGE : ERR_IO, errno, "stat '%s'",
		               p->path);
	}
	int rc = look_at_sides(p, &s, &f, err);
	if (rc)
		return rc;
	snprintf(name, sizeof(name), "%s" RESTORE_SWAP_SUFFIX, p->name);
	f.interrupted = fstatat(p->dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
	identify(&s, lock_path);
	if (s.n_files && (rc = find_holders(&s, err)))
		return rc;
	*ret = f;
	return 0;
}

int restore_look(const char *target, const char *lock_path, struct restore_target *ret,
                 struct err *err)
{
	CLEANUP(place_release) struct place place;
	struct found f;
	int rc = place_open(target, &place, err);

	if (rc || (rc = look(&place, lock_path, &f, err)))
		return rc;
	target_of(&place, &f, ret);
	return 0;
}

void target_of(const struct place *p, const struct found *f, struct restore_target *ret)
{
	*ret = (struct restore_target){
	        .exists = f->exists,
	        .size_bytes = f->exists ? (uint64_t)f->st.st_size : 0,
	        .wal = f->sides[SIDE_WAL].has_content,
	        .journal = f->sides[SIDE_JOURNAL].has_content,
	        .sides = f->sides[SIDE_WAL].exists || f->sides[SIDE_SHM].exists ||
	                 f->sides[SIDE_JOURNAL].exists,
	        .n_holders = f->n_holders,
	        .holder = f->holder,
	        .replicated = f->replicated,
	};
	snprintf(ret->path, sizeof(ret->path), "%s", p->path);
}
