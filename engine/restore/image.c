/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A few threads, each of which takes the next piece, reads it, hashes its pages and writes it
 * at its place.  They need no order among them: the state checksum is a sum, and pieces begin
 * at multiples of every page size.  What comes in order only is taken by one thread.
 */
#include "engine/restore/restore_i.h"

#include "engine/base/bytes.h"
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
	const struct restore_image *from;
	bool shared; /* the file shares its blocks with another: write what differs alone */
	int fd;
	const char *path;
	uint64_t size;
	uint32_t page_size;
	const struct restore_options *options;
	_Atomic uint64_t next, done; /* bytes given out, bytes done with */
	_Atomic uint64_t written;
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

static int write_run(struct image *im, uint64_t offset, const uint8_t *p, size_t len,
                     struct err *err)
{
	if (len == 0)
		return 0;
	int rc = file_pwrite(im->fd, p, len, offset, im->path, err);
	/* Only a hint: the disk begins now what fsync() waits for later. */
	if (!rc)
		file_start_writing(im->fd, offset, len);
	im->written += len;
	return rc;
}

/* The pages of a piece that are not in the file already. */
static int write_differing(struct image *im, uint64_t offset, const uint8_t *piece, size_t len,
                           struct err *err)
{
	cleanup_free uint8_t *there = malloc(len);
	size_t got, from = 0;

	if (!there)
		return err_set(err, ERR_NOMEM, 0, "out of memory");
	int rc = file_pread_some(im->fd, there, len, offset, &got, im->path, err);
	for (size_t at = 0; at < len && !rc; at += im->page_size) {
		if (at + im->page_size > got || memcmp(piece + at, there + at, im->page_size) != 0)
			continue;
		rc = write_run(im, offset + from, piece + from, at - from, err);
		from = at + im->page_size;
	}
	return rc ? rc : write_run(im, offset + from, piece + from, len - from, err);
}

static int do_piece(struct image *im, uint64_t offset, uint8_t *buf, size_t len,
                    struct hash128 *sum, struct err *err)
{
	int rc = im->from->read(im->from->ctx, offset, buf, len, err);

	if (rc)
		return rc;
	hash_pages(im, offset, buf, len, sum);
	if (im->shared)
		return write_differing(im, offset, buf, len, err);
	return all_zero(buf, len) ? 0 /* as the file is already */
	                          : write_run(im, offset, buf, len, err);
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

	if (im->size == 0 || im->shared)
		return 0;
	if (im->from->read && ftruncate(im->fd, (off_t)im->size) < 0)
		return err_set(err, ERR_IO, errno, "size '%s'", im->path);
	if (fallocate(im->fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)im->size) == 0 ||
	    errno == EOPNOTSUPP || errno == ENOSYS)
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

/* ---- in order ---- */

static int take_in_order(struct image *im, struct err *err)
{
	cleanup_free uint8_t *buf = malloc(PIECE_BYTES);
	int64_t reported_us = 0;
	size_t got = PIECE_BYTES;

	if (!buf)
		return err_set(err, ERR_NOMEM, 0, "out of memory");
	while (got == PIECE_BYTES) {
		int rc = im->from->next(im->from->ctx, buf, PIECE_BYTES, &got, err);
		if (!rc && got > 0)
			rc = write_run(im, im->done, buf, got, err);
		im->done += got;
		if (!rc && !report(im, &reported_us))
			rc = err_set(err, ERR_CANCELLED, 0, "cancelled");
		if (rc)
			return rc;
	}
	return 0;
}

uint64_t restore_header_bytes(const uint8_t head[SQLITE_HEADER_SIZE])
{
	struct db_header h;

	/* The count of pages was written with this change of the file, or it is an old one. */
	if (db_header_parse(head, SQLITE_HEADER_SIZE, &h, NULL) ||
	    load_be32(head + 92) != h.change_counter)
		return 0;
	return (uint64_t)h.n_pages * h.page_size;
}

/* All of it came, and its checksums held; whether it is as long as it says shows only now. */
static int check_what_came(struct image *im, struct err *err)
{
	uint8_t head[SQLITE_HEADER_SIZE];
	int rc = file_pread(im->fd, head, sizeof(head), 0, im->path, err);

	if (rc)
		return rc;
	uint64_t said = restore_header_bytes(head);
	if (im->done < said || im->done % im->page_size != 0)
		return err_set(err, ERR_DAMAGED, 0,
		               "'%s' is not whole: %" PRIu64 " bytes, pages of %u, %" PRIu64
		               " bytes by its header",
		               im->from->label, im->done, im->page_size, said);
	im->size = im->done;
	return 0;
}

/* ---- */

static int check_state(const struct image *im, struct err *err)
{
	if (!hash128_zero(im->from->state) && !hash128_equal(im->from->state, im->sum))
		return err_set(err, ERR_DAMAGED, 0,
		               "what the archive gives for %s is not what was committed: its state "
		               "checksum differs",
		               im->from->label);
	return 0;
}

int image_write(const struct restore_image *from, int fd, bool shared, const char *path,
                const struct restore_options *options, struct image_written *ret, struct err *err)
{
	struct image im = {
	        .from = from,
	        .shared = shared,
	        .fd = fd,
	        .path = path,
	        .size = from->size_bytes,
	        .page_size = from->page_size,
	        .options = options,
	        .lock = PTHREAD_MUTEX_INITIALIZER,
	};
	int rc = reserve(&im, err);

	if (rc)
		return rc;
	if (from->next) {
		if ((rc = take_in_order(&im, err)) || (rc = check_what_came(&im, err)))
			return rc;
	} else {
		if (from->expect)
			from->expect(from->ctx);
		run_workers(&im);
		pthread_mutex_destroy(&im.lock);
		if (im.rc)
			return err_copy(err, &im.first);
		if ((rc = check_state(&im, err)))
			return rc;
	}
	/* What was shared with may have been longer. */
	if (ftruncate(fd, (off_t)im.size) < 0)
		return err_set(err, ERR_IO, errno, "size '%s'", path);
	*ret = (struct image_written){
	        .size_bytes = im.size,
	        .written_bytes = im.written,
	        .state_matched = !hash128_zero(from->state),
	};
	return 0;
}

/* ---- of a view ---- */

static int read_view(void *ctx, uint64_t offset, void *buf, size_t len, struct err *err)
{
	size_t got;
	int rc = view_read(ctx, offset, buf, len, 0, &got, err);

	if (!rc && got != len)
		return err_set(err, ERR_DAMAGED, 0,
		               "the image ends at byte %" PRIu64 " of %" PRIu64, offset + got,
		               view_size(ctx));
	return rc;
}

static void expect_view(void *ctx)
{
	view_expect(ctx);
}

void image_of_view(struct view *v, char label[IMAGE_LABEL_MAX], struct restore_image *ret)
{
	const struct moment *m = view_moment(v);

	snprintf(label, IMAGE_LABEL_MAX, "txid %" PRIu64, m->txid);
	*ret = (struct restore_image){
	        .ctx = v,
	        .label = label,
	        .page_size = m->page_size,
	        .size_bytes = view_size(v),
	        .expect = expect_view,
	        .read = read_view,
	        .state = m->state,
	};
}
