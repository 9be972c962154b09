/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A directory as a store: keys are paths below it, folders come into being with what is put into
 * them and stay.
 *
 * What is on its way has a name ".put-…", which no listing shows, and is locked.  What a process that
 * died left of it is in nobody's way, and goes with the first put into the folder of whoever comes next,
 * or with store_sweep().
 */
#include "engine/base/file.h"
#include "engine/store/store_i.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#define PIECE_BYTES (256u << 10)
#define PUT_PREFIX ".put-"
/* Between the making of a file and its lock. */
#define ABANDONED_S 60
#define SWEPT_MAX 8u
#define FOLDERS_DEEP 1u /* segment, in that of a database */

struct local_store {
	struct store base;
	struct store_tally tally;
	_Atomic unsigned puts; /* for names of what is on its way */
	/* Folders in which nothing is left of those who died before, by their number; 0: none yet. */
	_Atomic uint64_t swept[SWEPT_MAX];
};

static struct local_store *local_of(struct store *s)
{
	return (struct local_store *)s;
}

/* The folder that `key` lies in; *ret_name is the rest.  Folders made are durable. */
static int open_folder(struct store *s, const char *key, bool create, int *ret_fd,
                       const char **ret_name, struct err *err)
{
	cleanup_fd int fd = fcntl(s->dir_fd, F_DUPFD_CLOEXEC, 0);
	char part[STORE_KEY_MAX + 1];

	if (fd < 0)
		return err_set(err, ERR_IO, errno, "open '%s'", s->label);
	for (;;) {
		size_t n = strcspn(key, "/");
		if (!key[n])
			break;
		cleanup_fd int next = -1;
		memcpy(part, key, n);
		part[n] = '\0';
		struct err why = ERR_INIT;
		int rc = file_open_dir(fd, part, false, &next, &why);
		if (err_kind_of(rc) == ERR_NOT_FOUND && create) {
			rc = file_open_dir(fd, part, true, &next, &why);
			rc = rc ? rc : file_sync_dir(fd, part, &why);
		}
		if (rc < 0)
			return err_copy(err, &why);
		close(fd);
		fd = take_fd(&next);
		key += n + 1;
	}
	*ret_fd = take_fd(&fd);
	*ret_name = key;
	return 0;
}

/* ---- what was left on its way ---- */

static bool is_swept(struct local_store *l, int dir_fd)
{
	struct stat st;

	if (fstat(dir_fd, &st) < 0)
		return true;
	for (size_t i = 0; i < SWEPT_MAX; i++) {
		if (l->swept[i] == st.st_ino)
			return true;
		if (l->swept[i] == 0) {
			l->swept[i] = st.st_ino;
			return false;
		}
	}
	return true;
}

/* `depth`: of folders in it.  Where locks fail, that of a sweep does, too. */
static void sweep(int dir_fd, unsigned depth)
{
	cleanup_dir DIR *dir = NULL;
	struct dirent *d;

	int copy = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dir = copy < 0 ? NULL : fdopendir(copy);
	if (!dir && copy >= 0)
		close(copy);
	while (dir && (d = readdir(dir))) {
		cleanup_fd int fd = -1;
		struct stat st;
		bool below = depth > 0 && d->d_type == DT_DIR && strcmp(d->d_name, ".") != 0 &&
		             strcmp(d->d_name, "..") != 0;
		if (!below && strncmp(d->d_name, PUT_PREFIX, strlen(PUT_PREFIX)) != 0)
			continue;
		fd = openat(dir_fd, d->d_name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
		if (fd < 0 || fstat(fd, &st) < 0)
			continue;
		if (below && S_ISDIR(st.st_mode))
			sweep(fd, depth - 1);
		if (!S_ISREG(st.st_mode) || time(NULL) - st.st_mtime < ABANDONED_S ||
		    flock(fd, LOCK_EX | LOCK_NB) < 0)
			continue;
		unlinkat(dir_fd, d->d_name, 0);
	}
}

void store_sweep(int dir_fd, const char *folder)
{
	cleanup_fd int fd = -1;

	if (dir_fd >= 0 && file_open_dir(dir_fd, folder, false, &fd, NULL) == 0)
		sweep(fd, FOLDERS_DEEP);
}

/* ---- putting ---- */

static int copy_body(int fd, struct source *body, uint64_t bytes, const char *key, struct err *err)
{
	cleanup_free uint8_t *piece = malloc(PIECE_BYTES);

	if (!piece)
		return err_set(err, ERR_NOMEM, 0, "no memory to put '%s'", key);
	for (uint64_t done = 0; done < bytes;) {
		size_t n = bytes - done < PIECE_BYTES ? (size_t)(bytes - done) : PIECE_BYTES;
		int rc = body->pread(body, piece, n, done, err);
		rc = rc ? rc : file_pwrite(fd, piece, n, done, key, err);
		if (rc < 0)
			return rc;
		done += n;
	}
	return file_datasync(fd, key, err);
}

/* Whether the object that is there already is the one that was to be put. */
static int compare_body(int dir_fd, const char *name, struct source *body, uint64_t bytes,
                        bool *ret_same, struct err *err)
{
	cleanup_free uint8_t *p = malloc(2 * PIECE_BYTES);
	cleanup_fd int fd = -1;
	uint64_t size = 0;

	*ret_same = false;
	if (!p)
		return err_set(err, ERR_NOMEM, 0, "no memory to compare '%s'", name);
	int rc = file_open(dir_fd, name, O_RDONLY, 0, &fd, err);
	rc = rc ? rc : file_size(fd, &size, name, err);
	if (rc < 0 || size != bytes)
		return rc;
	for (uint64_t done = 0; done < bytes;) {
		size_t n = bytes - done < PIECE_BYTES ? (size_t)(bytes - done) : PIECE_BYTES;
		rc = body->pread(body, p, n, done, err);
		rc = rc ? rc : file_pread(fd, p + PIECE_BYTES, n, done, name, err);
		if (rc < 0 || memcmp(p, p + PIECE_BYTES, n) != 0)
			return rc;
		done += n;
	}
	*ret_same = true;
	return 0;
}

static int place(int dir_fd, const char *tmp, const char *name, const char *key, unsigned flags,
                 struct source *body, uint64_t bytes, struct err *err)
{
	struct err why = ERR_INIT;
	bool same = false;

	if (!(flags & STORE_CREATE)) {
		if (renameat(dir_fd, tmp, dir_fd, name) < 0)
			return err_set(err, ERR_IO, errno, "rename '%s' to '%s'", tmp, key);
		return file_sync_dir(dir_fd, key, err);
	}
	int rc = file_rename_new(dir_fd, tmp, name, &why);
	if (rc == 0)
		return file_sync_dir(dir_fd, key, err);
	if (why.kind != ERR_EXISTS)
		return err_copy(err, &why);
	rc = compare_body(dir_fd, name, body, bytes, &same, err);
	unlinkat(dir_fd, tmp, 0);
	if (rc < 0)
		return rc;
	/* Whoever put it may not have come to this. */
	return same ? file_sync_dir(dir_fd, key, err)
	            : err_set(err, ERR_EXISTS, 0, "'%s' is there already", key);
}

static int put_file(struct local_store *l, const char *key, struct source *body, uint64_t bytes,
                    unsigned flags, struct err *err)
{
	cleanup_fd int dir_fd = -1, fd = -1;
	const char *name;
	char tmp[64];

	int rc = open_folder(&l->base, key, true, &dir_fd, &name, err);
	if (rc < 0)
		return rc;
	if (!is_swept(l, dir_fd))
		sweep(dir_fd, 0);
	snprintf(tmp, sizeof(tmp), PUT_PREFIX "%d-%p-%u", (int)getpid(), (void *)l, l->puts++);
	rc = file_open(dir_fd, tmp, O_WRONLY | O_CREAT | O_TRUNC, 0600, &fd, err);
	if (rc < 0)
		return rc;
	(void)!flock(fd, LOCK_EX | LOCK_NB);
	rc = copy_body(fd, body, bytes, key, err);
	rc = rc ? rc : place(dir_fd, tmp, name, key, flags, body, bytes, err);
	if (rc < 0)
		unlinkat(dir_fd, tmp, 0);
	else
		l->tally.sent_bytes += bytes;
	return rc;
}

static int local_put(struct store *s, const char *key, struct source *body, uint64_t bytes,
                     unsigned flags, struct err *err)
{
	struct local_store *l = local_of(s);

	return store_tally_end(&l->tally, STORE_PUT, put_file(l, key, body, bytes, flags, err));
}

static int local_get(struct store *s, const char *key, size_t max_bytes, struct buf *ret,
                     struct err *err)
{
	cleanup_free char *data = NULL;
	size_t len = 0;

	int rc = file_get(s->dir_fd, key, max_bytes, &data, &len, err);
	rc = rc ? rc : buf_append(ret, data, len, err);
	if (rc == 0)
		local_of(s)->tally.received_bytes += len;
	return store_tally_end(&local_of(s)->tally, STORE_GET, rc);
}

static int local_open(struct store *s, const char *key, uint64_t bytes, struct source **ret,
                      struct err *err)
{
	return store_tally_end(&local_of(s)->tally, STORE_GET,
	                       source_open_file(s->dir_fd, key, key, ret, err));
}

/* ---- listing ---- */

/* A store_read_folder_fn. */
static int read_folder(void *ctx, const char *folder, const char *begin, struct store_items *ret,
                       struct err *err)
{
	struct store *s = ctx;
	cleanup_dir DIR *dir = NULL;
	struct dirent *d;
	int rc = 0;

	int fd = openat(s->dir_fd, *folder ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
		return 0;
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		rc = err_set(err, ERR_IO, errno, "list '%s/%s'", s->label, folder);
		if (fd >= 0)
			close(fd);
		return rc;
	}
	while (rc == 0 && (errno = 0, d = readdir(dir))) {
		struct stat st;
		if (strncmp(d->d_name, begin, strlen(begin)) != 0 || strcmp(d->d_name, ".") == 0 ||
		    strcmp(d->d_name, "..") == 0 ||
		    strncmp(d->d_name, PUT_PREFIX, strlen(PUT_PREFIX)) == 0)
			continue;
		if (fstatat(fd, d->d_name, &st, 0) < 0 ||
		    !(S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)))
			continue; /* gone meanwhile, or no object */
		bool is_folder = S_ISDIR(st.st_mode);
		rc = store_items_add(
		        ret, d->d_name, is_folder, is_folder ? 0 : (uint64_t)st.st_size,
		        (int64_t)st.st_mtim.tv_sec * 1000000 + st.st_mtim.tv_nsec / 1000, err);
	}
	if (rc == 0 && errno)
		rc = err_set(err, ERR_IO, errno, "list '%s/%s'", s->label, folder);
	return rc;
}

static int local_list(struct store *s, const char *prefix, const char *after, bool deep,
                      store_list_fn *fn, void *ctx, struct err *err)
{
	const struct store_walk w = {read_folder, s, after, deep, fn, ctx};

	return store_tally_end(&local_of(s)->tally, STORE_LIST, store_walk(&w, prefix, err));
}

/* ---- the rest ---- */

static int local_remove(struct store *s, const char *key, struct err *err)
{
	cleanup_fd int fd = -1;
	const char *name;
	struct err why = ERR_INIT;

	int rc = open_folder(s, key, false, &fd, &name, &why);
	if (rc == 0 && unlinkat(fd, name, 0) < 0 && errno != ENOENT)
		rc = err_set(&why, ERR_IO, errno, "remove '%s'", key);
	rc = rc ? rc : file_sync_dir(fd, key, &why);
	if (rc < 0 && why.kind != ERR_NOT_FOUND)
		rc = err_copy(err, &why);
	else
		rc = 0;
	return store_tally_end(&local_of(s)->tally, STORE_DELETE, rc);
}

static void local_counters(struct store *s, struct store_counters *ret)
{
	store_tally_get(&local_of(s)->tally, ret);
}

static void local_free(struct store *s)
{
	if (s->dir_fd >= 0)
		close(s->dir_fd);
	free(s->label);
	free(s);
}

int store_open_local(const char *archive, const struct store_options *options, struct store **ret,
                     struct err *err)
{
	static const struct store_ops ops = {local_put,    local_get,      local_open, local_list,
	                                     local_remove, local_counters, local_free};
	struct local_store *l = calloc(1, sizeof(*l));
	cleanup_store struct store *s = l ? &l->base : NULL;
	struct err why = ERR_INIT;

	if (!s || !(s->label = strdup(archive))) {
		free(take_ptr(s));
		return err_set(err, ERR_NOMEM, 0, "no memory to open '%s'", archive);
	}
	s->ops = &ops;
	s->dir_fd = -1;
	int rc = options->create ? file_make_dirs(archive, err) : 0;
	if (rc < 0)
		return rc;
	rc = file_open_dir(AT_FDCWD, archive, false, &s->dir_fd, &why);
	if (rc < 0 && (why.sys_errno == ENOENT || why.sys_errno == ENOTDIR))
		return err_set(err, ERR_NOT_FOUND, 0,
		               "archive '%s': no such directory (asof replicate DB ARCHIVE makes "
		               "one)",
		               archive);
	if (rc < 0)
		return err_copy(err, &why);
	*ret = take_ptr(s);
	return 0;
}
