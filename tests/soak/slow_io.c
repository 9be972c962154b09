/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For LD_PRELOAD: pread and pwrite of the process together pass SLOW_IO_BYTES bytes a second, and
 * no more (10,000,000: a poor network disk).  Each thread waits for what it asked itself.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/types.h>
#include <time.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static double free_at;

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void pay(size_t bytes)
{
	const char *text = getenv("SLOW_IO_BYTES");
	double rate = text ? strtod(text, NULL) : 0;

	if (rate <= 0)
		return;
	pthread_mutex_lock(&lock);
	double now = now_s();
	free_at = (free_at > now ? free_at : now) + (double)bytes / rate;
	double wait = free_at - now;
	pthread_mutex_unlock(&lock);
	/* Small debts are let stand: sleeping has a price of its own. */
	if (wait > 0.001)
		nanosleep(&(struct timespec){(time_t)wait,
		                             (long)((wait - (double)(time_t)wait) * 1e9)},
		          NULL);
}

#define WRAP(name, buf_type, off_type)                                                             \
	__attribute__((visibility("default"))) ssize_t name(int fd, buf_type buf, size_t n,        \
	                                                    off_type offset);                      \
	ssize_t name(int fd, buf_type buf, size_t n, off_type offset)                              \
	{                                                                                          \
		static ssize_t (*real)(int, buf_type, size_t, off_type);                           \
		if (!real)                                                                         \
			*(void **)&real = dlsym(RTLD_NEXT, #name);                                 \
		pay(n);                                                                            \
		return real(fd, buf, n, offset);                                                   \
	}

WRAP(pread, void *, off_t)
WRAP(pwrite, const void *, off_t)
WRAP(pread64, void *, off64_t)
WRAP(pwrite64, const void *, off64_t)
