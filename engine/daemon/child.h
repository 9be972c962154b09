/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A child process: started, watched, ended.  The mount, the application of -exec, and heavy work
 * (backups, verification) are such: what opens a live database, or can fail, does it elsewhere.
 *
 * A child has the default signal mask, its own process group when asked for, no descriptors but
 * the standard ones, and gets SIGTERM when we die (its parent is the thread that started it: the
 * main one, which lives as long as the process).
 */
#ifndef ASOF_DAEMON_CHILD_H
#define ASOF_DAEMON_CHILD_H

#include "engine/base/err.h"

#include <stdint.h>
#include <sys/types.h>

struct child {
	pid_t pid;                   /* 0: none */
	int64_t started_us, kill_us; /* monotonic; kill_us: SIGKILL then, 0 never */
};

struct child_options {
	bool own_group;           /* a Ctrl-C at the terminal is not meant for it */
	bool idle;                /* lowest priority of processor and disk */
	bool keep_on_death;       /* no SIGTERM when we die */
	int stdout_fd, stderr_fd; /* -1 or 0: ours */
};

/* argv[0] is looked up in PATH unless it has a slash.  ERR_IO when it cannot be started; a program
 * that is not there ends with status 127. */
int child_start(struct child *c, const struct child_options *options, const char *const *argv,
                struct err *err) MUST_USE;
/* True once it has ended; *ret_status as of waitpid(2). */
bool child_ended(struct child *c, int *ret_status);
void child_signal(const struct child *c, int sig);
/* SIGTERM now, SIGKILL after `patience_us` (by child_ended()). */
void child_end(struct child *c, int64_t patience_us);
/* "exited with status 3", "was killed by signal 9". */
#define CHILD_STATUS_MAX 64
void child_describe(int status, char out[CHILD_STATUS_MAX]);
/* The exit status that a shell would give: 128 + signal for a killed one. */
int child_exit_status(int status);

#endif
