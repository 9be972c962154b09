/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process that ends before its Nth change to a file, as kill -9 would end it: what it wrote
 * before is there, what it meant to write is not.  Included by the one test program that wants
 * it: these calls take the place of the C library's in all of the program.
 */
#ifndef ASOF_TESTS_LIB_ENDING_H
#define ASOF_TESTS_LIB_ENDING_H

#include "tests/lib/synth.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static long writes_left = -1; /* -1: never */

static void count_write(void)
{
	if (writes_left >= 0 && writes_left-- == 0)
		kill(getpid(), SIGKILL);
}

int renameat(int a, const char *from, int b, const char *to)
{
	count_write();
	return (int)syscall(SYS_renameat2, a, from, b, to, 0);
}

int unlinkat(int dir_fd, const char *name, int flags)
{
	count_write();
	return (int)syscall(SYS_unlinkat, dir_fd, name, flags);
}

int fdatasync(int fd)
{
	count_write();
	return (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
	count_write();
	return (int)syscall(SYS_fsync, fd);
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t at)
{
	count_write();
	return syscall(SYS_pwrite64, fd, p, n, at);
}

int ftruncate(int fd, off_t len)
{
	count_write();
	return (int)syscall(SYS_ftruncate, fd, len);
}

/* Runs `fn` in a process of its own that ends before its write number `at`.  False: it came to its
 * end, which must be a success. */
static bool run_until_write(long at, int (*fn)(void *ctx), void *ctx)
{
#ifdef __SANITIZE_THREAD__ /* ends whoever starts threads after a fork */
	if (fn(ctx) < 0)
		synth_die("failed");
	(void)at;
	return false;
#endif
	int status = 0;
	pid_t pid = fork();

	if (pid == 0) {
		writes_left = at;
		_exit(fn(ctx) < 0 ? 1 : 0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		synth_die("no process to end at write %ld", at);
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
		return true;
	/* Below valgrind 9 is a success, too: it counts what a forked process never frees. */
	const char *preloaded = getenv("LD_PRELOAD");
	int as_good = preloaded && strstr(preloaded, "vgpreload") ? 9 : 0;
	if (!WIFEXITED(status) || (WEXITSTATUS(status) != 0 && WEXITSTATUS(status) != as_good))
		synth_die("failed (status %x) before its write %ld", (unsigned)status, at);
	return false;
}

static void copy_folder(const char *from, const char *to)
{
	char command[600];

	snprintf(command, sizeof(command), "rm -rf '%s' && cp -a '%s' '%s'", to, from, to);
	if (system(command) != 0)
		synth_die("cannot copy '%s'", from);
}

#endif
