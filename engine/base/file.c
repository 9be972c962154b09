/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/file.h"

#include "engine/base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

int file_open(int dir_fd, const char *path, int flags, mode_t mode, int *ret_fd, struct err *err)
{
	int fd;

	do
		fd = openat(dir_fd, path, flags | O_CLOEXEC, mode);
	while (fd < 0 && errno == EINTR);
	if (fd >= 0) {
		*ret_fd = fd;
		return 0;
	}
	enum err_kind kind = errno == ENOENT   ? ERR_NOT_FOUND
	                     : errno == EEXIST ? ERR_EXISTS
	                                       : ERR_IO;
	return err_set(err, kind, errno, "open '%s'", path);
}

int file_pread_some(int fd, void *p, size_t len, uint64_t offset, size_t *ret_len, const char *path,
                    struct err *err)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pread(fd, (char *)p + done, len - done, (off_t)(offset + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_set(err, ERR_IO, errno, "read '%s' at %llu", path,
			               (unsigned long long)(offset + done));
		if (n == 0)
			break;
		done += (size_t)n;
	}
	*ret_len = done;
	return 0;
}

int file_pread(int fd, void *p, size_t len, uint64_t offset, const char *path, struct err *err)
{
	size_t got = 0;
	int rc = file_pread_some(fd, p, len, offset, &got, path, err);

	if (rc < 0)
		return rc;
	if (got != len)
		return err_set(err, ERR_DAMAGED, 0, "'%s' ends at %llu, before byte %llu", path,
		               (unsigned long long)(offset + got),
		               (unsigned long long)(offset + len));
	return 0;
}

int file_pwrite(int fd, const void *p, size_t len, uint64_t offset, const char *path,
                struct err *err)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pwrite(fd, (const char *)p + done, len - done, (off_t)(offset + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return err_set(err, ERR_IO, n < 0 ? errno : EIO, "write '%s' at %llu", path,
			               (unsigned long long)(offset + done));
		done += (size_t)n;
	}
	return 0;
}

int file_size(int fd, uint64_t *ret_bytes, const char *path, struct err *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return err_set(err, ERR_IO, errno, "stat '%s'", path);
	*ret_bytes = (uint64_t)st.st_size;
	return 0;
}

int file_datasync(int fd, const char *path, struct err *err)
{
	if (fdatasync(fd) < 0)
		return err_set(err, ERR_IO, errno, "fsync '%s'", path);
	return 0;
}

void file_start_writing(int fd, uint64_t offset, size_t len)
{
	int ignored = sync_file_range(fd, (off64_t)offset, (off64_t)len, SYNC_FILE_RANGE_WRITE);
	(void)ignored;
}

void file_drop_cached(int fd, uint64_t offset, uint64_t len)
{
	int ignored = posix_fadvise(fd, (off_t)offset, (off_t)len, POSIX_FADV_DONTNEED);
	(void)ignored;
}

int file_sync_dir(int dir_fd, const char *path, struct err *err)
{
	if (fsync(dir_fd) < 0)
		return err_set(err, ERR_IO, errno, "fsync folder '%s'", path);
	return 0;
}

int file_put(int dir_fd, const char *name, const void *p, size_t len, struct err *err)
{
	char tmp[300];
	cleanup_fd int fd = -1;

	if (snprintf(tmp, sizeof(tmp), "%s.tmp", name) >= (int)sizeof(tmp))
		return err_set(err, ERR_USAGE, 0, "the name '%.60s…' is too long", name);
	int rc = file_open(dir_fd, tmp, O_WRONLY | O_CREAT | O_TRUNC, 0600, &fd, err);
	if (rc == 0)
		rc = file_pwrite(fd, p, len, 0, tmp, err);
	if (rc == 0)
		rc = file_datasync(fd, tmp, err);
	if (rc == 0 && renameat(dir_fd, tmp, dir_fd, name) < 0)
		rc = err_set(err, ERR_IO, errno, "rename '%s' to '%s'", tmp, name);
	if (rc < 0) {
		unlinkat(dir_fd, tmp, 0);
		return rc;
	}
	return file_sync_dir(dir_fd, name, err);
}

int file_get(int dir_fd, const char *name, size_t max_bytes, char **ret, size_t *ret_len,
             struct err *err)
{
	cleanup_fd int fd = -1;
	cleanup_free char *data = NULL;
	uint64_t size;

	int rc = file_open(dir_fd, name, O_RDONLY, 0, &fd, err);
	if (rc < 0 || (rc = file_size(fd, &size, name, err)) < 0)
		return rc;
	if (size > max_bytes)
		return err_set(err, ERR_DAMAGED, 0,
		               "'%s' has %llu bytes, more than the %zu it may have", name,
		               (unsigned long long)size, max_bytes);
	data = malloc(size + 1);
	if (!data)
		return err_set(err, ERR_NOMEM, 0, "no memory to read '%s'", name);
	rc = file_pread_some(fd, data, size, 0, ret_len, name, err);
	if (rc < 0)
		return rc;
	data[*ret_len] = '\0';
	*ret = take_ptr(data);
	return 0;
}

static bool is_unsupported(int e)
{
	return e == EINVAL || e == ENOSYS || e == EOPNOTSUPP || e == EPERM;
}

static int rename_by_claim(int dir_fd, const char *from, const char *to)
{
	int fd = openat(dir_fd, to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (fd < 0)
		return -1;
	close(fd);
	return renameat(dir_fd, from, dir_fd, to);
}

int file_rename_new(int dir_fd, const char *from, const char *to, struct err *err)
{
	int failed = renameat2(dir_fd, from, dir_fd, to, RENAME_NOREPLACE);

	if (failed && is_unsupported(errno)) {
		failed = linkat(dir_fd, from, dir_fd, to, 0);
		if (!failed)
			failed = unlinkat(dir_fd, from, 0);
		else if (is_unsupported(errno))
			failed = rename_by_claim(dir_fd, from, to);
	}
	if (!failed)
		return 0;
	return err_set(err, errno == EEXIST ? ERR_EXISTS : ERR_IO, errno, "rename '%s' to '%s'",
	               from, to);
}

int file_open_unlinked(uint64_t reserve_bytes, int *ret_fd, struct err *err)
{
	const char *dir = getenv("TMPDIR");
	char name[4096];

	dir = dir && *dir ? dir : "/var/tmp";
	cleanup_fd int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR)) {
		snprintf(name, sizeof(name), "%s/asof-XXXXXX", dir);
		fd = mkostemp(name, O_CLOEXEC);
		if (fd >= 0)
			unlink(name);
	}
	if (fd < 0)
		return err_set(err, ERR_IO, errno, "make a temporary file in '%s'", dir);
	int failed = reserve_bytes ? posix_fallocate(fd, 0, (off_t)reserve_bytes) : 0;
	if (failed)
		return err_set(err, ERR_IO, failed, "take %llu bytes in '%s'",
		               (unsigned long long)reserve_bytes, dir);
	*ret_fd = take_fd(&fd);
	return 0;
}

int file_make_dirs(const char *path, struct err *err)
{
	cleanup_free char *copy = strdup(path);

	if (!copy)
		return err_set(err, ERR_NOMEM, 0, "no memory");
	for (char *p = copy + 1;; p++) {
		if (*p != '/' && *p != '\0')
			continue;
		char keep = *p;
		*p = '\0';
		if (mkdir(copy, 0700) < 0 && errno != EEXIST && errno != EISDIR)
			return err_set(err, ERR_IO, errno, "create folder '%s'", copy);
		*p = keep;
		if (keep == '\0')
			return 0;
	}
}

int file_open_dir(int dir_fd, const char *path, bool create, int *ret_fd, struct err *err)
{
	if (create && mkdirat(dir_fd, path, 0700) < 0 && errno != EEXIST)
		return err_set(err, ERR_IO, errno, "create folder '%s'", path);
	return file_open(dir_fd, path, O_RDONLY | O_DIRECTORY, 0, ret_fd, err);
}

bool file_same_folder(const char *a, const char *b)
{
	struct stat x, y;

	return a && b && stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev &&
	       x.st_ino == y.st_ino;
}

int file_lock(int fd, const char *path, struct err *err)
{
	struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

	if (fcntl(fd, F_OFD_SETLK, &l) == 0)
		return 0;
	if (errno == EAGAIN || errno == EACCES)
		return err_set(err, ERR_BUSY, 0, "'%s' is held by another process", path);
	return err_set(err, ERR_IO, errno, "lock '%s'", path);
}

bool file_is_locked(int fd)
{
	struct flock l = {.l_type = F_RDLCK, .l_whence = SEEK_SET};

	return fcntl(fd, F_OFD_GETLK, &l) == 0 && l.l_type != F_UNLCK;
}

int scratch_open(int dir_fd, struct scratch *s, struct err *err)
{
	char name[64];

	*s = (struct scratch)SCRATCH_INIT;
	snprintf(name, sizeof(name), ".scratch-%d-%p.tmp", (int)getpid(), (void *)s);
	int rc = file_open(dir_fd, name, O_RDWR | O_CREAT | O_EXCL, 0600, &s->fd, err);
	if (rc == 0)
		unlinkat(dir_fd, name, 0);
	return rc;
}

int scratch_reserve(struct scratch *s, size_t bytes, struct err *err)
{
	if (bytes <= s->cap_bytes)
		return 0;
	size_t cap = s->cap_bytes ? s->cap_bytes : 65536;
	while (cap < bytes)
		cap *= 2;
	int e = posix_fallocate(s->fd, 0, (off_t)cap);
	if (e)
		return err_set(err, ERR_IO, e, "reserve %zu bytes of scratch space", cap);
	void *p = s->data ? mremap(s->data, s->cap_bytes, cap, MREMAP_MAYMOVE)
	                  : mmap(NULL, cap, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd, 0);
	if (p == MAP_FAILED)
		return err_set(err, ERR_IO, errno, "map %zu bytes of scratch space", cap);
	s->data = p;
	s->cap_bytes = cap;
	return 0;
}

void scratch_release(struct scratch *s)
{
	if (s->data)
		munmap(s->data, s->cap_bytes);
	if (s->fd >= 0)
		close(s->fd);
	*s = (struct scratch)SCRATCH_INIT;
}
