/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading, for the benchmark; each prints one JSON object.
 *
 *   reads random FILE SECONDS SEED      4 KiB at random places
 *   reads sequential FILE SECONDS       128 KiB at a time, from the start, again and again
 *   reads evict PATH...                 writes files back and takes them out of the page cache
 *   reads inflate FILE THREADS          inflates the data members of a snapshot, once:
 *                                       what this machine can do with these bytes at best
 *   reads touch MEGABYTES               uses so much memory once: a virtual machine gets its
 *                                       memory from the host slowly, when it is first touched
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libdeflate.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SMALL 4096
#define LARGE (128 * 1024)
#define CONTENT_MAX (1u << 20)
#define GROUP 64 /* members that a thread takes at a time */

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "reads: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static int open_file(const char *path, uint64_t *ret_size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		die(path);
	*ret_size = (uint64_t)st.st_size;
	return fd;
}

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static void print_rate(uint64_t reads, uint64_t bytes, double seconds)
{
	printf("{\"reads\":%" PRIu64
	       ",\"seconds\":%.4f,\"per_second\":%.1f,\"mb_per_second\":%.1f}\n",
	       reads, seconds, (double)reads / seconds, (double)bytes / seconds / 1e6);
}

static void read_random(const char *path, double seconds, uint64_t seed)
{
	static char b[SMALL];
	uint64_t size, n = 0, random = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
	int fd = open_file(path, &size);
	uint64_t blocks = size / SMALL;
	double start = now(), end = start;

	if (blocks == 0)
		die(path);
	for (; end - start < seconds; end = now())
		for (int i = 0; i < 64; i++, n++)
			if (pread(fd, b, SMALL, (off_t)(next_random(&random) % blocks * SMALL)) !=
			    SMALL)
				die(path);
	print_rate(n, n * SMALL, end - start);
	close(fd);
}

static void read_sequential(const char *path, double seconds)
{
	static char b[LARGE];
	uint64_t size, n = 0, bytes = 0;
	int fd = open_file(path, &size);
	off_t at = 0;
	double start = now(), end = start;

	for (; end - start < seconds; end = now()) {
		for (int i = 0; i < 16; i++, n++) {
			ssize_t got = pread(fd, b, LARGE, at);
			if (got < 0)
				die(path);
			at = got < LARGE ? 0 : at + got;
			bytes += (uint64_t)got;
		}
	}
	print_rate(n, bytes, end - start);
	close(fd);
}

static void evict(const char *path)
{
	uint64_t size;
	int fd = open_file(path, &size);

	if (fsync(fd) < 0 || posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) != 0)
		die(path);
	close(fd);
}

static void touch(size_t megabytes)
{
	for (size_t i = 0; i < megabytes; i++) { /* kept, not freed: the next is another one */
		volatile char *p = malloc(1u << 20);
		for (size_t at = 0; p && at < 1u << 20; at += SMALL)
			p[at] = 1;
	}
}

/* ---- inflate ---- */

struct member {
	uint64_t offset, len;
};

struct work {
	int fd;
	const char *path;
	struct member *members;
	size_t n, next;
	uint64_t content;
	pthread_mutex_t lock;
};

static uint64_t load_le(const uint8_t *p, int n)
{
	uint64_t v = 0;

	for (int i = n; i-- > 0;)
		v = v << 8 | p[i];
	return v;
}

/* See engine/gz/member.h: data members tell their length, others have no content. */
static void find_members(struct work *w, uint64_t size)
{
	size_t cap = 0;
	uint8_t p[24];

	for (uint64_t at = 0; at < size;) {
		if (pread(w->fd, p, sizeof(p), (off_t)at) != (ssize_t)sizeof(p) || p[0] != 0x1f ||
		    p[12] != 'a')
			die(w->path);
		uint64_t len = p[13] == 'D' ? load_le(p + 16, 8) : 12 + load_le(p + 10, 2) + 10;
		if (p[13] == 'D') {
			if (w->n == cap) {
				cap = cap ? 2 * cap : 4096;
				w->members = realloc(w->members, cap * sizeof(*w->members));
				if (!w->members)
					die("memory");
			}
			w->members[w->n++] = (struct member){at, len};
		}
		at += len;
	}
}

static void *inflate_some(void *arg)
{
	struct work *w = arg;
	struct libdeflate_decompressor *d = libdeflate_alloc_decompressor();
	uint8_t *raw = malloc(GROUP * (size_t)CONTENT_MAX / 8), *content = malloc(CONTENT_MAX);
	uint64_t done = 0;

	if (!d || !raw || !content)
		die("memory");
	for (;;) {
		pthread_mutex_lock(&w->lock);
		size_t first = w->next, n = w->n - first < GROUP ? w->n - first : GROUP;
		w->next += n;
		w->content += done;
		pthread_mutex_unlock(&w->lock);
		done = 0;
		if (n == 0)
			break;
		for (size_t i = first; i < first + n; i++) {
			const struct member *m = &w->members[i];
			size_t got;
			if (m->len > GROUP * (size_t)CONTENT_MAX / 8 ||
			    pread(w->fd, raw, m->len, (off_t)m->offset) != (ssize_t)m->len ||
			    libdeflate_gzip_decompress(d, raw, m->len, content, CONTENT_MAX,
			                               &got) != LIBDEFLATE_SUCCESS)
				die(w->path);
			done += got;
		}
	}
	libdeflate_free_decompressor(d);
	free(content);
	free(raw);
	return NULL;
}

static void inflate(const char *path, unsigned n_threads)
{
	struct work w = {.path = path, .lock = PTHREAD_MUTEX_INITIALIZER};
	pthread_t threads[64];
	uint64_t size;

	w.fd = open_file(path, &size);
	find_members(&w, size);
	if (posix_fadvise(w.fd, 0, 0, POSIX_FADV_DONTNEED) != 0 ||
	    posix_fadvise(w.fd, 0, 0, POSIX_FADV_SEQUENTIAL) != 0)
		die(path);
	double start = now();
	if (n_threads > 64)
		n_threads = 64;
	for (unsigned i = 0; i < n_threads; i++)
		if (pthread_create(&threads[i], NULL, inflate_some, &w) != 0)
			die("thread");
	for (unsigned i = 0; i < n_threads; i++)
		pthread_join(threads[i], NULL);
	print_rate(w.n, w.content, now() - start);
	free(w.members);
	close(w.fd);
}

int main(int argc, char **argv)
{
	if (argc == 5 && strcmp(argv[1], "random") == 0) {
		read_random(argv[2], strtod(argv[3], NULL), strtoull(argv[4], NULL, 10));
	} else if (argc == 4 && strcmp(argv[1], "sequential") == 0) {
		read_sequential(argv[2], strtod(argv[3], NULL));
	} else if (argc >= 3 && strcmp(argv[1], "evict") == 0) {
		for (int i = 2; i < argc; i++)
			evict(argv[i]);
		printf("{}\n");
	} else if (argc == 4 && strcmp(argv[1], "inflate") == 0) {
		inflate(argv[2], (unsigned)strtoul(argv[3], NULL, 10));
	} else if (argc == 3 && strcmp(argv[1], "touch") == 0) {
		touch(strtoull(argv[2], NULL, 10));
		printf("{}\n");
	} else {
		fputs("usage: reads random FILE SECONDS SEED | sequential FILE SECONDS | "
		      "evict PATH... | inflate FILE THREADS | touch MEGABYTES\n",
		      stderr);
		return 2;
	}
	return 0;
}
