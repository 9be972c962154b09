/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs capture on a database and writes all that it says to a log, which the scripts beside
 * this file judge.  After a break a second thread copies the database through
 * capture_read_pages(), as a sink must.
 *
 *   capture_dump DB LOG [--resume] [--strict] [--enable-wal] [--poll MS] [--batch BYTES]
 *                [--hub] [--cap BYTES] [--busy N] [--no-frames] [--no-image]
 *
 * --resume goes on behind the last whole record of LOG; --busy refuses N offers after each
 * one taken; --no-frames stores headers of records only.  SIGTERM or SIGINT stop it.
 *
 * Records, little-endian: 1 byte kind, 4 bytes length of what follows, then
 *   'B'  u32 why, u32 page size, u64 epoch, reason
 *   'F'  u32 flags (1 backlog, 2 ends a commit), u32 page size, u32 frames, i64 observed,
 *        i64 not before, u32 salt1, u32 salt2, u64 frame, u32 x 2 checksum, u32 change, frames
 *   'S'  u64 epoch, u32 page size, pages: the copy made since the break of that epoch; with
 *        the frames between that break and here applied it is the state here
 *   'C'  i64 known until
 *   'E'  the line of figures at the end
 */
#include "engine/base/buf.h"
#include "engine/base/bytes.h"
#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "engine/capture/capture.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/uio.h>

#define FRAME_RECORD_HEAD 56
#define COPY_PAGES 64

struct dump {
	struct capture *capture;
	int fd;
	bool no_frames, no_image, hub;
	unsigned busy, busy_left;
	uint64_t batches, frames;
	int64_t last_caught_up_us;
	pthread_mutex_t lock; /* one record at a time; guards the following */
	pthread_cond_t wanted;
	uint64_t image_epoch; /* a copy is wanted for this break; 0 none */
	uint32_t image_page_size;
	bool ending;
};

/* The signal handler has no other way to what it stops. */
static struct capture *stop_target;

static void on_signal(int number)
{
	if (stop_target)
		capture_stop(stop_target);
}

static void write_all(int fd, struct iovec *parts, int n)
{
	for (int i = 0; i < n; i++) {
		const uint8_t *p = parts[i].iov_base;
		size_t left = parts[i].iov_len;
		while (left) {
			ssize_t w = write(fd, p, left);
			if (w <= 0) {
				perror("log");
				_exit(1);
			}
			p += w;
			left -= (size_t)w;
		}
	}
}

/* Small records in one write, so that a kill leaves them whole; under d->lock. */
static void record(struct dump *d, char kind, const void *head, size_t head_len, const void *body,
                   size_t body_len)
{
	uint8_t start[5 + 64 + 512];

	start[0] = (uint8_t)kind;
	store_le32(start + 1, (uint32_t)(head_len + body_len));
	memcpy(start + 5, head, head_len);
	struct iovec parts[2] = {{start, 5 + head_len}, {(void *)(uintptr_t)body, body_len}};
	write_all(d->fd, parts, 2);
}

static int on_break(void *ctx, enum capture_break why, const char *reason, uint32_t page_size,
                    uint64_t epoch, struct err *err)
{
	struct dump *d = ctx;
	uint8_t head[16];

	store_le32(head, (uint32_t)why);
	store_le32(head + 4, page_size);
	store_le64(head + 8, epoch);
	LOCK_SCOPE(&d->lock);
	record(d, 'B', head, sizeof(head), reason, strlen(reason));
	d->image_epoch = epoch;
	d->image_page_size = page_size;
	pthread_cond_signal(&d->wanted);
	return 0;
}

static int on_batch(void *ctx, const struct capture_batch *b, struct err *err)
{
	struct dump *d = ctx;
	uint8_t head[FRAME_RECORD_HEAD];
	const struct capture_position *at = &b->after;

	if (d->busy_left) {
		d->busy_left--;
		return -ERR_BUSY;
	}
	d->busy_left = d->busy;
	d->batches++;
	d->frames += b->n_frames;
	store_le32(head, (b->backlog ? 1u : 0u) | (b->ends_commit ? 2u : 0u));
	store_le32(head + 4, b->page_size);
	store_le32(head + 8, (uint32_t)b->n_frames);
	store_le64(head + 12, (uint64_t)b->observed_us);
	store_le64(head + 20, (uint64_t)b->not_before_us);
	store_le32(head + 28, at->salt1);
	store_le32(head + 32, at->salt2);
	store_le64(head + 36, at->frame);
	store_le32(head + 44, at->cksum.s0);
	store_le32(head + 48, at->cksum.s1);
	store_le32(head + 52, at->change);
	LOCK_SCOPE(&d->lock);
	record(d, 'F', head, sizeof(head), b->frames,
	       d->no_frames ? 0 : b->n_frames * (size_t)wal_frame_size(b->page_size));
	return 0;
}

static void on_caught_up(void *ctx, int64_t known_until_us)
{
	struct dump *d = ctx;
	uint8_t head[8];

	if (known_until_us < d->last_caught_up_us)
		fprintf(stderr, "known_until went back\n");
	d->last_caught_up_us = known_until_us;
	store_le64(head, (uint64_t)known_until_us);
	LOCK_SCOPE(&d->lock);
	record(d, 'C', head, sizeof(head), NULL, 0);
}

/* The pages of the main file, then the moment from which the copy counts. */
static int copy_image(struct dump *d, uint64_t epoch, uint32_t page_size, struct err *err)
{
	struct buf image CLEANUP(buf_release) = BUF_INIT((size_t)4 << 30);
	uint8_t head[12];
	uint32_t n = COPY_PAGES;

	for (uint32_t page = 1; n == COPY_PAGES; page += n) {
		int rc = buf_reserve(&image, (size_t)COPY_PAGES * page_size, err);
		while (rc == 0 &&
		       (rc = capture_read_pages(d->capture, epoch, page, COPY_PAGES, page_size,
		                                image.data + image.len, &n, err)) == -ERR_BUSY) {
			clock_sleep_us(1000);
			rc = 0;
		}
		if (rc)
			return rc;
		image.len += (size_t)n * page_size;
	}
	uint64_t ticket = capture_barrier_begin(d->capture);
	int rc;
	while ((rc = capture_barrier(d->capture, epoch, ticket, err)) == -ERR_BUSY)
		clock_sleep_us(1000);
	if (rc)
		return rc;
	store_le64(head, epoch);
	store_le32(head + 8, page_size);
	LOCK_SCOPE(&d->lock);
	record(d, 'S', head, sizeof(head), image.data, image.len);
	return 0;
}

static void *image_thread(void *ctx)
{
	struct dump *d = ctx;
	struct err err = ERR_INIT;

	for (;;) {
		pthread_mutex_lock(&d->lock);
		while (!d->image_epoch && !d->ending)
			pthread_cond_wait(&d->wanted, &d->lock);
		uint64_t epoch = d->image_epoch;
		uint32_t page_size = d->image_page_size;
		d->image_epoch = 0;
		bool ending = d->ending;
		pthread_mutex_unlock(&d->lock);
		if (ending)
			return NULL;
		if (!d->no_image && copy_image(d, epoch, page_size, &err))
			fprintf(stderr, "image: %s\n", err.msg);
	}
}

/* The last position in the log, which is cut behind its last whole record.  Pieces of a
 * transaction behind it stay; they come again. */
static bool last_position(struct dump *d, struct capture_position *pos, uint32_t *page_size)
{
	uint8_t head[5 + FRAME_RECORD_HEAD];
	off_t at = 0, size = lseek(d->fd, 0, SEEK_END), end = 0;
	bool found = false;

	while (pread(d->fd, head, 5, at) == 5) {
		off_t next = at + 5 + (off_t)load_le32(head + 1);
		if (next > size)
			break;
		if (head[0] == 'F' &&
		    pread(d->fd, head, sizeof(head), at) == (ssize_t)sizeof(head) &&
		    load_le32(head + 5) & 2) {
			const uint8_t *p = head + 5;
			*page_size = load_le32(p + 4);
			*pos = (struct capture_position){
			        .salt1 = load_le32(p + 28),
			        .salt2 = load_le32(p + 32),
			        .frame = load_le64(p + 36),
			        .cksum = {load_le32(p + 44), load_le32(p + 48)},
			        .change = load_le32(p + 52)};
			found = true;
		}
		if (head[0] == 'B')
			found = false;
		end = next;
		at = next;
	}
	if (ftruncate(d->fd, end))
		perror("log");
	lseek(d->fd, 0, SEEK_END);
	return found;
}

static void print_figures(struct dump *d, const struct capture_status *s)
{
	struct rusage usage;
	char line[400];

	getrusage(RUSAGE_SELF, &usage);
	int n = snprintf(line, sizeof(line),
	                 "commits=%" PRIu64 " batches=%" PRIu64 " frames=%" PRIu64
	                 " by_lock=%" PRIu64 " by_count=%" PRIu64 " late=%" PRIu64
	                 " breaks=%" PRIu64 " bad_cksums=%" PRIu64 " cpu_ms=%ld maxrss_kb=%ld",
	                 s->commits, d->batches, d->frames, s->proven_by_lock, s->proven_by_count,
	                 s->late_batches, s->breaks, s->bad_frame_cksums,
	                 (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000 +
	                         (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1000,
	                 usage.ru_maxrss);
	record(d, 'E', line, (size_t)n, NULL, 0);
	printf("%s\n", line);
}

static int usage(void)
{
	fprintf(stderr, "usage: capture_dump DB LOG [options]\n");
	return 2;
}

static bool parse_options(int argc, char **argv, struct dump *d, struct capture_options *o,
                          bool *resume)
{
	for (int i = 3; i < argc; i++) {
		const char *a = argv[i];
		const char *value = i + 1 < argc ? argv[i + 1] : "0";
		if (!strcmp(a, "--resume"))
			*resume = true;
		else if (!strcmp(a, "--strict"))
			o->strict = true;
		else if (!strcmp(a, "--enable-wal"))
			o->enable_wal = true;
		else if (!strcmp(a, "--no-frames"))
			d->no_frames = true;
		else if (!strcmp(a, "--no-image"))
			d->no_image = true;
		else if (!strcmp(a, "--hub"))
			d->hub = true;
		else if (!strcmp(a, "--poll"))
			o->test_poll_ms = (uint32_t)strtoul(value, NULL, 10), i++;
		else if (!strcmp(a, "--batch"))
			o->batch_bytes = strtoul(value, NULL, 10), i++;
		else if (!strcmp(a, "--cap"))
			o->wal_cap_bytes = strtoul(value, NULL, 10), i++;
		else if (!strcmp(a, "--busy"))
			d->busy = (unsigned)strtoul(value, NULL, 10), i++;
		else
			return false;
	}
	return true;
}

int main(int argc, char **argv)
{
	struct dump d = {.lock = PTHREAD_MUTEX_INITIALIZER, .wanted = PTHREAD_COND_INITIALIZER};
	struct capture_options options = {0};
	struct capture_sink sink = {&d, on_break, on_batch, on_caught_up};
	struct capture_position pos;
	struct capture_status status;
	struct err err = ERR_INIT;
	pthread_t thread;
	bool resume = false;

	if (argc < 3 || !parse_options(argc, argv, &d, &options, &resume))
		return usage();
	if (getenv("CAPTURE_DEBUG"))
		log_set_level(LOG_DEBUG);
	d.fd = open(argv[2], O_RDWR | O_CREAT | O_CLOEXEC | (resume ? 0 : O_TRUNC), 0600);
	if (d.fd < 0) {
		perror(argv[2]);
		return 1;
	}
	if (resume && last_position(&d, &pos, &options.resume_page_size))
		options.resume = &pos;
	int rc = d.hub ? capture_hub_new(&options.hub, &err) : 0;
	if (rc == 0)
		rc = capture_open(argv[1], &options, &sink, &d.capture, &err);
	if (rc) {
		fprintf(stderr, "error %s: %s\n", err_kind_name(err.kind), err.msg);
		return err_exit_status(err.kind);
	}
	stop_target = d.capture;
	signal(SIGTERM, on_signal);
	signal(SIGINT, on_signal);
	pthread_create(&thread, NULL, image_thread, &d);
	rc = capture_run(d.capture, &err);
	if (rc)
		fprintf(stderr, "error %s: %s\n", err_kind_name(err.kind), err.msg);
	pthread_mutex_lock(&d.lock);
	d.ending = true;
	pthread_cond_signal(&d.wanted);
	pthread_mutex_unlock(&d.lock);
	pthread_join(thread, NULL);
	capture_get_status(d.capture, &status);
	print_figures(&d, &status);
	capture_free(d.capture);
	capture_hub_free(options.hub);
	return rc ? err_exit_status(err.kind) : 0;
}
