/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A few threads, each of which takes the next piece, reads it, hashes its pages and writes it
 * at its place.  They need no order among them: the state checksum is a sum, and pieces begin
 * at multiples of every page size.
 */
#include "engine/restore/restore_i.h"

#include "engine/base/cleanup.h"
#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/sqlite/format.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/statvfs.h>

#define PIECE_BYTES (1u << 20)
#define THREADS_MAX 4u
#define PROGRESS_EVERY_US 50000

_Static_assert(PIECE_BYTES % PAGE_SIZE_MAX == 0, "a piece holds whole pages");

struct image {
	struct view *view;
	int fd;
	const char *path;
	uint64_t size;
	uint32_t page_size;
	const struct restore_options *options;
	_Atomic uint64_t next, done; /* bytes given out, bytes written */
	_Atomic bool stop;
	pthread_mutex_t lock;
	struct hash128 sum; /* under lock */
	struct err first;   /* under lock; of the first that failed */
	int rc;             /* under lock */
};

static void fail(struct image *im, int rc, const struct err *err)
{
	LOCK_SCOPE(&im->lock);
	if (!im->rc) {
		im->rc = rc;
		im->first = *err;
	}
	im->stop = true;
}

static bool all_zero(const uint8_t *p, size_t len)
{
	return p[0] == 0 && memcmp(p, p + 1, len - 1) == 0;
}

static void hash_pages(const struct image *im, uint64_t offset, const uint8_t *piece, size_t len,
                       struct hash128 *sum)
{
	uint32_t pgno = (uint32_t)(offset / im->page_size) + 1;

	for (size_t at = 0; at < len; at += im->page_size, pgno++)
		if (pgno != lock_page(im->page_size))
			state_add(sum, page_hash(pgno, piece + at, im->page_size));
}

static int do_piece(struct image *im, uint64_t offset, uint8_t *buf, size_t len,
                    struct hash128 *sum, struct err *err)
{
	size_t got;
	int rc = view_read(im->view, offset, buf, len, 0, &got, err);

	if (rc)
		return rc;
	if (got != len)
		return err_set(err, ERR_DAMAGED, 0,
		               "the image ends at byte %" PRIu64 " of %" PRIu64, offset + got,
		               im->size);
	hash_pages(im, offset, buf, len, sum);
	if (all_zero(buf, len))
		return 0; /* as the file is already */
	rc = file_pwrite(im->fd, buf, len, offset, im->path, err);
	/* Only a hint: the disk begins now what fsync() waits for later. */
	if (!rc)
		sync_file_range(im->fd, (off_t)offset, (off_t)len, SYNC_FILE_RANGE_WRITE);
	return rc;
}

/* Whether to go on. */
static bool report(struct image *im, int64_t *last_us)
{
	int64_t now_us = clock_mono_us();

	if (!im->options->progress || now_us - *last_us < PROGRESS_EVERY_US)
		return true;
	*last_us = now_us;
	return im->options->progress(im->options->ctx, im->done, im->size);
}

static void work(struct image *im, bool reports)
{
	cleanup_free uint8_t *buf = malloc(PIECE_BYTES);
	struct hash128 sum = {0, 0};
	struct err err = ERR_INIT;
	int64_t reported_us = 0;

	if (!buf) {
		fail(im, err_set(&err, ERR_NOMEM, 0, "out of memory"), &err);
		return;
	}
	while (!im->stop) {
		uint64_t offset = atomic_fetch_add(&im->next, PIECE_BYTES);
		if (offset >= im->size)
			break;
		uint64_t left = im->size - offset;
		size_t len = left < PIECE_BYTES ? (size_t)left : PIECE_BYTES;
		int rc = do_piece(im, offset, buf, len, &sum, &err);
		im->done += len;
		if (!rc && reports && !report(im, &reported_us))
			rc = err_set(&err, ERR_CANCELLED, 0, "cancelled");
		if (rc) {
			fail(im, rc, &err);
			return;
		}
	}
	LOCK_SCOPE(&im->lock);
	state_add(&im->sum, sum);
}

static void *work_thread(void *arg)
{
	work(arg, false);
	return NULL;
}

static void run_workers(struct image *im)
{
	pthread_t threads[THREADS_MAX];
	unsigned n = im->options->n_threads, started = 0;
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	if (n == 0)
		n = cpus > 0 ? (unsigned)cpus : 1;
	if (n > THREADS_MAX)
		n = THREADS_MAX;
	while (started + 1 < n && im->size > (started + 1) * PIECE_BYTES &&
	       pthread_create(&threads[started], NULL, work_thread, im) == 0)
		started++;
	work(im, true);
	while (started)
		pthread_join(threads[--started], NULL);
}

/* A disk that is too small is found out now and not after minutes of reading. */
static int reserve(const struct image *im, struct err *err)
{
	struct statvfs fs;

	if (im->size == 0)
		return 0;
	if (ftruncate(im->fd, (off_t)im->size) < 0)
		return err_set(err, ERR_IO, errno, "size '%s'", im->path);
	if (fallocate(im->fd, 0, 0, (off_t)im->size) == 0 || errno == EOPNOTSUPP || errno == ENOSYS)
		return 0;
	int e = errno;
	if (e == ENOSPC && fstatvfs(im->fd, &fs) == 0)
		return err_set(err, ERR_NO_SPACE, e,
		               "the image takes %" PRIu64 " MiB, the disk of '%s' has %" PRIu64
		               " MiB free",
		               (im->size >> 20) + 1, im->path,
		               (uint64_t)fs.f_bavail * fs.f_frsize >> 20);
	return err_set(err, ERR_IO, e, "reserve %" PRIu64 " bytes for '%s'", im->size, im->path);
}

int image_write(struct view *v, int fd, const char *path, const struct restore_options *options,
                bool *ret_checked, struct err *err)
{
	const struct moment *m = view_moment(v);
	struct image im = {
	        .view = v,
	        .fd = fd,
	        .path = path,
	        .size = view_size(v),
	        .page_size = m->page_size,
	        .options = options,
	        .lock = PTHREAD_MUTEX_INITIALIZER,
	};
	int rc = reserve(&im, err);

	if (rc)
		return rc;
	run_workers(&im);
	pthread_mutex_destroy(&im.lock);
	if (im.rc)
		return err_copy(err, &im.first);
	*ret_checked = !hash128_zero(m->state);
	if (*ret_checked && !hash128_equal(m->state, im.sum))
		return err_set(err, ERR_DAMAGED, 0,
		               "what the archive gives for txid %" PRIu64
		               " is not what was committed: its state checksum differs",
		               m->txid);
	return 0;
}
