/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For LD_PRELOAD: the process dies by SIGKILL in place of its DIE_AT'th call (from 1) that would
 * change a file or a folder.  With DIE_TORN set, a write that it dies in has half of its bytes
 * written.  Every process counts for itself; standard output and error count for nothing.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#define VISIBLE __attribute__((visibility("default")))

static _Atomic long count;

static bool dies_now(void)
{
	const char *text = getenv("DIE_AT");

	return text && ++count == strtol(text, NULL, 10);
}

static void die(void)
{
	kill(getpid(), SIGKILL);
	for (;;)
		pause();
}

static void step(void)
{
	if (dies_now())
		die();
}

#define REAL(name)                                                                                 \
	static __typeof__(&name) real;                                                             \
	if (!real)                                                                                 \
	*(void **)&real = dlsym(RTLD_NEXT, #name)

VISIBLE ssize_t pwrite64(int fd, const void *buf, size_t n, off64_t offset)
{
	REAL(pwrite64);
	if (dies_now()) {
		if (getenv("DIE_TORN") && n > 1) {
			ssize_t ignored = real(fd, buf, n / 2, offset);
			(void)ignored;
		}
		die();
	}
	return real(fd, buf, n, offset);
}

VISIBLE ssize_t write(int fd, const void *buf, size_t n)
{
	REAL(write);
	if (fd > STDERR_FILENO)
		step();
	return real(fd, buf, n);
}

VISIBLE int open64(const char *path, int flags, ...)
{
	REAL(open64);
	va_list ap;
	va_start(ap, flags);
	mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(ap, mode_t) : 0;
	va_end(ap);
	if (flags & O_CREAT)
		step();
	return real(path, flags, mode);
}

VISIBLE int openat64(int dir, const char *path, int flags, ...)
{
	REAL(openat64);
	va_list ap;
	va_start(ap, flags);
	mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(ap, mode_t) : 0;
	va_end(ap);
	if (flags & O_CREAT)
		step();
	return real(dir, path, flags, mode);
}

#define WRAP(type, name, parameters, arguments)                                                    \
	VISIBLE type name parameters                                                               \
	{                                                                                          \
		REAL(name);                                                                        \
		step();                                                                            \
		return real arguments;                                                             \
	}

WRAP(int, fsync, (int fd), (fd))
WRAP(int, fdatasync, (int fd), (fd))
WRAP(int, ftruncate64, (int fd, off64_t n), (fd, n))
WRAP(int, fallocate64, (int fd, int mode, off64_t from, off64_t n), (fd, mode, from, n))
WRAP(int, fchmod, (int fd, mode_t mode), (fd, mode))
WRAP(int, fchown, (int fd, uid_t uid, gid_t gid), (fd, uid, gid))
WRAP(int, unlink, (const char *path), (path))
WRAP(int, unlinkat, (int dir, const char *path, int flags), (dir, path, flags))
WRAP(int, mkdirat, (int dir, const char *path, mode_t mode), (dir, path, mode))
WRAP(int, renameat, (int a, const char *from, int b, const char *to), (a, from, b, to))
WRAP(int, renameat2, (int a, const char *from, int b, const char *to, unsigned int flags),
     (a, from, b, to, flags))
WRAP(int, linkat, (int a, const char *from, int b, const char *to, int flags),
     (a, from, b, to, flags))
