/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk that fails: the calls that change a file pass through here, whoever makes them in this process,
 * are counted while `disk.on`, and fail from call `disk.at` on.  Included by the one test program that
 * wants it: the linker takes these functions and not those of libc, which they call.
 */
#ifndef ASOF_TESTS_LIB_FAILING_DISK_H
#define ASOF_TESTS_LIB_FAILING_DISK_H

#include "engine/base/clock.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static struct {
	_Atomic bool on;
	_Atomic long n;     /* calls that change a file, so far */
	_Atomic long at;    /* the first that fails, from 1; 0: none */
	int64_t lasting_us; /* and those after it for so long; 0: it alone */
	_Atomic int64_t end_us;
	int number; /* errno */
	_Atomic long failed;
	char first[160]; /* which one it was */
} disk;

static bool fails(const char *call, const char *name)
{
	if (!disk.on)
		return false;
	long n = ++disk.n;
	if (!disk.at || n < disk.at)
		return false;
	if (n == disk.at) {
		snprintf(disk.first, sizeof(disk.first), "%s %s", call, name);
		disk.end_us = clock_mono_us() + disk.lasting_us;
	} else if (!disk.lasting_us || clock_mono_us() > disk.end_us) {
		return false;
	}
	disk.failed++;
	errno = disk.number;
	return true;
}

static const char *name_of(int fd, char buf[64])
{
	char link[40], path[512];

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	ssize_t n = readlink(link, path, sizeof(path) - 1);
	path[n > 0 ? n : 0] = '\0';
	const char *slash = strrchr(path, '/');
	snprintf(buf, 64, "%.60s", slash ? slash + 1 : path);
	return buf;
}

#define REAL(name)                                                                                 \
	__typeof__(&name) real; /* anew each time, as threads share nothing then */                \
	*(void **)&real = dlsym(RTLD_NEXT, #name)
#define WRAP(type, name, parameters, arguments, shown)                                             \
	type name parameters;                                                                      \
	type name parameters                                                                       \
	{                                                                                          \
		char buf[64];                                                                      \
		REAL(name);                                                                        \
		(void)buf;                                                                         \
		return fails(#name, shown) ? -1 : real arguments;                                  \
	}

WRAP(ssize_t, pwrite64, (int fd, const void *p, size_t n, off64_t at), (fd, p, n, at),
     name_of(fd, buf))
WRAP(int, fsync, (int fd), (fd), name_of(fd, buf))
WRAP(int, fdatasync, (int fd), (fd), name_of(fd, buf))
WRAP(int, ftruncate64, (int fd, off64_t n), (fd, n), name_of(fd, buf))
WRAP(int, msync, (void *p, size_t n, int flags), (p, n, flags), "")
WRAP(int, unlinkat, (int dir, const char *path, int flags), (dir, path, flags), path)
WRAP(int, mkdirat, (int dir, const char *path, mode_t mode), (dir, path, mode), path)
WRAP(int, renameat, (int a, const char *from, int b, const char *to), (a, from, b, to), to)
WRAP(int, renameat2, (int a, const char *from, int b, const char *to, unsigned int flags),
     (a, from, b, to, flags), to)

int posix_fallocate64(int fd, off64_t from, off64_t n)
{
	char buf[64];
	REAL(posix_fallocate64);

	return fails("posix_fallocate", name_of(fd, buf)) ? disk.number : real(fd, from, n);
}

int openat64(int dir, const char *path, int flags, ...)
{
	REAL(openat64);
	va_list ap;

	va_start(ap, flags);
	mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(ap, mode_t) : 0;
	va_end(ap);
	return (flags & O_CREAT) && fails("openat", path) ? -1 : real(dir, path, flags, mode);
}

#endif
