/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/gunzip.h"

#include "engine/base/bytes.h"
#include "engine/base/cleanup.h"
#include "engine/base/file.h"
#include "engine/gz/gunzip.h"

#include <fcntl.h>
#include <string.h>

#define CHUNK (256 * 1024)

struct reader {
	int fd;
	const char *path;
	uint64_t at; /* of the next bytes */
};

/* By place: the descriptor may be read by others at the same time. */
static int read_on(void *ctx, void *buf, size_t len, size_t *ret_len, struct err *err)
{
	struct reader *r = ctx;
	int rc = file_pread_some(r->fd, buf, len, r->at, ret_len, r->path, err);

	if (rc == 0)
		r->at += *ret_len;
	return rc;
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
	struct reader from = {fd, path, 0};
	cleanup_gunzip struct gunzip *f = NULL;
	uint8_t *out cleanup_free = malloc(CHUNK);
	int rc = gunzip_new(read_on, &from, path, &f, err);

	if (rc == 0 && !out)
		rc = err_set(err, ERR_NOMEM, 0, "no memory to inflate '%s'", path);
	*ret_bytes = 0;
	for (size_t got = 1; rc == 0 && got > 0; *ret_bytes += rc == 0 ? got : 0)
		rc = gunzip_read(f, out, CHUNK, &got, err);
	return rc;
}

int fs_gunzip_size(int fd, const char *path, uint64_t *ret_bytes, struct err *err)
{
	struct reader from = {fd, path, 0};
	cleanup_gunzip struct gunzip *f = NULL;
	uint8_t head[100], tail[4];
	uint64_t stored, size;
	size_t got;
	int rc = gunzip_new(read_on, &from, path, &f, err);

	if (rc == 0)
		rc = gunzip_read(f, head, sizeof(head), &got, err);
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

int fs_gunzip_to_file(int fd, const char *path, uint64_t size_bytes, int *ret_fd, struct err *err)
{
	struct reader from = {fd, path, 0};
	cleanup_gunzip struct gunzip *f = NULL;
	uint8_t *out cleanup_free = malloc(CHUNK);
	int to cleanup_fd = -1;
	uint64_t done = 0;
	size_t got = 1;
	int rc = gunzip_new(read_on, &from, path, &f, err);

	if (rc == 0 && !out)
		rc = err_set(err, ERR_NOMEM, 0, "no memory to inflate '%s'", path);
	if (rc == 0)
		rc = file_open_unlinked(size_bytes, &to, err);
	while (rc == 0) {
		rc = gunzip_read(f, out, CHUNK, &got, err);
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
