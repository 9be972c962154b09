/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Long work in the foreground: a line on a terminal, nothing in a pipe; and what would end the
 * program is blocked and looked for now and then, so that it is broken off in order.
 */
#ifndef ASOF_TOOLS_PROGRESS_H
#define ASOF_TOOLS_PROGRESS_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

struct progress {
	bool terminal; /* standard error is one */
	bool shown;
	bool stopped; /* SIGINT, SIGTERM or SIGHUP came */
	char what[64];
	int64_t last_us;
	sigset_t stops;
};

/* Blocks the signals. */
void progress_begin(struct progress *p);
/* What the line is about from now on. */
void progress_what(struct progress *p, const char *what);
/* A callback as the engine takes them, `ctx` a struct progress; false: stop.  A total of 0 is not
 * known. */
bool progress_tell(void *ctx, uint64_t done_bytes, uint64_t total_bytes);
/* Takes the line away, for other output or at the end. */
void progress_clear(struct progress *p);

#endif
