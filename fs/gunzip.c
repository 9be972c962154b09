/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/gunzip.h"

#include "engine/base/bytes.h"
#include "engine/base/cleanup.h"
#include "engine/base/file.h"

#include <fcntl.h>
#include <string.h>
#include <zlib.h>

#define CHUNK (256 * 1024)

struct inflater {
	int fd;
	const char *path;
	uint64_t at; /* of the next bytes to read */
	z_stream z;
	bool in_member;
	bool any_member;
	uint8_t in[CHUNK];
};

static void inflater_free(struct inflater *f)
{
	inflateEnd(&f->z);
	free(f);
}
DEFINE_CLEANUP(struct inflater, inflater_free);

static int inflater_new(int fd, const char *path, struct inflater **ret, struct err *err)
{
	struct inflater *f = calloc(1, sizeof(*f));

	if (!f || inflateInit2(&f->z, 16 + MAX_WBITS) != Z_OK) {
		free(f);
		return err_set(err, ERR_NOMEM, 0, "no memory to inflate '%s'", path);
	}
	f->fd = fd;
	f->path = path;
	*ret = f;
	return 0;
}

/* Refills the input; *ret_end: there is no more. */
static int fill(struct inflater *f, bool *ret_end, struct err *err)
{
	size_t got = 0;

	if (f->z.avail_in == 0) {
		int rc = file_pread_some(f->fd, f->in, sizeof(f->in), f->at, &got, f->path, err);
		if (rc < 0)
			return rc;
		f->at += got;
		f->z.next_in = f->in;
		f->z.avail_in = (uInt)got;
	}
	*ret_end = f->z.avail_in == 0;
	return 0;
}

/* Up to `len` bytes of content, fewer only at its end. */
static int inflater_read(struct inflater *f, void *out, size_t len, size_t *ret_len,
                         struct err *err)
{
	f->z.next_out = out;
	f->z.avail_out = (uInt)len;
	while (f->z.avail_out > 0) {
		bool end;
		int rc = fill(f, &end, err);
		if (rc < 0)
			return rc;
		if (end && !f->in_member && f->any_member)
			break;
		if (end)
			return err_set(err, ERR_DAMAGED, 0, "'%s' ends within its content",
			               f->path);
		f->in_member = f->any_member = true;
		rc = inflate(&f->z, Z_NO_FLUSH);
		if (rc == Z_STREAM_END) {
			f->in_member = false;
			inflateReset(&f->z);
		} else if (rc != Z_OK) {
			return err_set(err, rc == Z_MEM_ERROR ? ERR_NOMEM : ERR_DAMAGED, 0,
			               "'%s' does not inflate before byte %llu: %s", f->path,
			               (unsigned long long)(f->at - f->z.avail_in),
			               f->z.msg ? f->z.msg : "bad data");
		}
	}
	*ret_len = len - f->z.avail_out;
	return 0;
}

/* What the header says of the database's size; 0: it does not. */
static uint64_t size_by_header(const uint8_t h[100])
{
	uint64_t page_size = load_be16(h + 16);

	if (memcmp(h, "SQLite format 3", 16) != 0)
		return 0;
	if (page_size == 1)
		page_size = 65536;
	if (page_size < 512 || (page_size & (page_size - 1)))
		return 0;
	/* The count of pages was written with this change of the file. */
	if (load_be32(h + 24) != load_be32(h + 92))
		return 0;
	return page_size * load_be32(h + 28);
}

static int count_all(int fd, const char *path, uint64_t *ret_bytes, struct err *err)
{
	struct inflater *f CLEANUP(inflater_free_p) = NULL;
	uint8_t *out cleanup_free = malloc(CHUNK);
	int rc = inflater_new(fd, path, &f, err);

	if (rc == 0 && !out)
		rc = err_set(err, ERR_NOMEM, 0, "no memory to inflate '%s'", path);
	*ret_bytes = 0;
	for (size_t got = 1; rc == 0 && got > 0; *ret_bytes += rc == 0 ? got : 0)
		rc = inflater_read(f, out, CHUNK, &got, err);
	return rc;
}

int fs_gunzip_size(int fd, const char *path, uint64_t *ret_bytes, struct err *err)
{
	struct inflater *f CLEANUP(inflater_free_p) = NULL;
	uint8_t head[100], tail[4];
	uint64_t stored, size;
	size_t got;
	int rc = inflater_new(fd, path, &f, err);

	if (rc == 0)
		rc = inflater_read(f, head, sizeof(head), &got, err);
	if (rc == 0)
		rc = file_size(fd, &stored, path, err);
	if (rc == 0 && stored >= 18)
		rc = file_pread(fd, tail, sizeof(tail), stored - 4, path, err);
	if (rc < 0)
		return rc;
	size = got == sizeof(head) ? size_by_header(head) : 0;
	if (size && stored >= 18 && load_le32(tail) == (uint32_t)size) {
		*ret_bytes = size;
		return 0;
	}
	return count_all(fd, path, ret_bytes, err);
}

static int open_scratch(uint64_t size_bytes, int *ret_fd, struct err *err)
{
	const char *dir = getenv("TMPDIR");

	if (!dir || !*dir)
		dir = "/var/tmp";
	int fd cleanup_fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR)) {
		char name[4096];
		snprintf(name, sizeof(name), "%s/asof-XXXXXX", dir);
		fd = mkostemp(name, O_CLOEXEC);
		if (fd >= 0)
			unlink(name);
	}
	if (fd < 0)
		return err_set(err, ERR_IO, errno, "make a temporary file in '%s'", dir);
	int failed = size_bytes ? posix_fallocate(fd, 0, (off_t)size_bytes) : 0;
	if (failed)
		return err_set(err, ERR_IO, failed, "take %llu bytes in '%s'",
		               (unsigned long long)size_bytes, dir);
	*ret_fd = take_fd(&fd);
	return 0;
}

int fs_gunzip_to_file(int fd, const char *path, uint64_t size_bytes, int *ret_fd, struct err *err)
{
	struct inflater *f CLEANUP(inflater_free_p) = NULL;
	uint8_t *out cleanup_free = malloc(CHUNK);
	int to cleanup_fd = -1;
	uint64_t done = 0;
	size_t got = 1;
	int rc = inflater_new(fd, path, &f, err);

	if (rc == 0 && !out)
		rc = err_set(err, ERR_NOMEM, 0, "no memory to inflate '%s'", path);
	if (rc == 0)
		rc = open_scratch(size_bytes, &to, err);
	while (rc == 0) {
		rc = inflater_read(f, out, CHUNK, &got, err);
		if (rc < 0 || got == 0)
			break;
		if (got > size_bytes - done)
			return err_set(err, ERR_DAMAGED, 0, "'%s' holds more than %llu bytes", path,
			               (unsigned long long)size_bytes);
		rc = file_pwrite(to, out, got, done, "temporary file", err);
		done += got;
	}
	if (rc < 0)
		return rc;
	if (done != size_bytes)
		return err_set(err, ERR_DAMAGED, 0, "'%s' holds %llu bytes, not %llu", path,
		               (unsigned long long)done, (unsigned long long)size_bytes);
	*ret_fd = take_fd(&to);
	return 0;
}
