/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A few threads for many tasks.
 *
 * A task is a function that does one short step and says when it wants to be called next.
 * Steps of one task never overlap, whichever thread runs them.
 *
 *              pool_wake(), or its time has come             a thread takes it
 *    PARKED ------------------------------------> READY ------------------------> RUNNING
 *      ^                                            ^                                |
 *      |  the next step is far away                 |  others wait, and no thread    |
 *      +--------------------------------------------+--------------------------------+
 *                                                   |   near: the thread sleeps with |
 *                                                   +---------------- KEPT <---------+
 *
 * A task whose next step is near keeps its thread, which sleeps until then: as quick as a thread
 * of its own.  Parked ones share one timer.  Threads are started when there is work for them,
 * at most `max_threads`, and end when idle; tasks that are busy beyond that number take turns.
 */
#ifndef ASOF_BASE_POOL_H
#define ASOF_BASE_POOL_H

#include "engine/base/err.h"

#include <stddef.h>
#include <stdint.h>

struct pool;
struct pool_task;

#define POOL_WHEN_WOKEN INT64_MAX
/*
 * One step; returns the microseconds until the next one, unless woken before; 0: at once;
 * POOL_WHEN_WOKEN.  A wake during the step brings another step right after it.
 */
typedef int64_t pool_step_fn(void *ctx);

struct pool_options {
	const char *name; /* of the threads, 15 characters at most */
	unsigned max_threads;
	size_t stack_bytes;         /* 0: the system's default */
	void (*thread_begin)(void); /* called first in each thread; may be NULL */
	int64_t keep_us;            /* a next step nearer than this keeps its thread */
	/* Steps due so soon, or within a quarter of their wait, are done with those due now. */
	int64_t slack_us;
};

int pool_new(const struct pool_options *options, struct pool **ret, struct err *err) MUST_USE;
/* All tasks must have been removed. */
void pool_free(struct pool *p);

/* The first step comes at once. */
int pool_add(struct pool *p, pool_step_fn *step, void *ctx, struct pool_task **ret,
             struct err *err) MUST_USE;
/* Any thread, also from within a step; not from a signal handler. */
void pool_wake(struct pool_task *t);
/* Returns when no step runs and none will.  Not from within a step of it.  NULL is fine. */
void pool_remove(struct pool_task *t);

struct pool_status {
	unsigned n_threads, n_tasks;
	int64_t overdue_us; /* how long the task that waits longest has waited for a thread */
	int64_t longest_us; /* how long the longest step under way takes already */
};
void pool_get_status(struct pool *p, struct pool_status *ret);

#endif
