/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Other programs as filters: one is started, what it writes is read from a pipe, and when it
 * fails the first line of what it said is in the error.
 *
 *	cleanup_command struct command c = COMMAND_INIT;
 *	command_start(&c, argv, -1, err);  read c.out_fd to its end;  command_finish(&c, err);
 */
#ifndef ASOF_BASE_COMMAND_H
#define ASOF_BASE_COMMAND_H

#include "engine/base/cleanup.h"
#include "engine/base/err.h"

#include <sys/types.h>

struct command {
	pid_t pid;  /* 0: none */
	int out_fd; /* its standard output */
	int err_fd; /* an unlinked file that takes its standard error */
	char name[32];
};
#define COMMAND_INIT                                                                               \
	{                                                                                          \
		.out_fd = -1, .err_fd = -1                                                         \
	}

/* argv[0] is looked for in PATH; `in_fd` becomes standard input (-1: /dev/null).  A program that
 * is not there is NOT_FOUND. */
int command_start(struct command *c, const char *const argv[], int in_fd, struct err *err) MUST_USE;
/* Waits for its end; an exit status other than 0 is an error of `kind` that tells what it said. */
int command_finish(struct command *c, enum err_kind kind, struct err *err) MUST_USE;
/* Ends it if it still runs. */
void command_release(struct command *c);
#define cleanup_command CLEANUP(command_release)

#endif
