/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/daemon/pools.h"

#include <malloc.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Busy databases have a thread each for capture and take turns beyond; so many processors could
 * hardly be found. */
#define THREADS_DEFAULT 16u
#define QUEUE_BYTES_DEFAULT ((size_t)128 << 20)
#define STACK_BYTES ((size_t)256 << 10)
#define NICE_RECORD (-10) /* as capture */
/* A capture that looks again so soon is busy. */
#define KEEP_US 20000
/* Idle databases are looked at together: fewer wake-ups. */
#define SLACK_US 250000

/*
 * A recorder has milliseconds to do at a time.  Woken up where the application runs it would take its
 * processor for as long, which is what the slowest of its commits are made of: SCHED_BATCH does not
 * preempt, and finds the other processor soon.
 */
static void record_thread_begin(void)
{
	const struct sched_param none = {0};

	sched_setscheduler(0, SCHED_BATCH, &none); /* of this thread */
}

/* The niceness that asof was started with is that of its first thread. */
static void be_nice(bool hurry)
{
	const id_t self = (id_t)syscall(SYS_gettid);
	int wanted = hurry ? NICE_RECORD : getpriority(PRIO_PROCESS, (id_t)getpid());

	if (getpriority(PRIO_PROCESS, self) != wanted)
		setpriority(PRIO_PROCESS, self, wanted);
}

void pools_record_hurry(bool on)
{
	be_nice(on);
}

/* Threads take over what the one that starts them has, and that may be capture or a recorder. */
static void usual_thread_begin(void)
{
	const struct sched_param none = {0};

	sched_setscheduler(0, SCHED_OTHER, &none);
	be_nice(false);
}

int pools_new(const struct pools_options *o, struct pools **ret, struct err *err)
{
	struct pools *p = calloc(1, sizeof(*p));
	unsigned threads = o->threads ? o->threads : THREADS_DEFAULT;
	const struct pool_options capture = {.name = "capture",
	                                     .max_threads = threads,
	                                     .stack_bytes = STACK_BYTES,
	                                     .thread_begin = capture_thread_begin,
	                                     .keep_us = KEEP_US,
	                                     .slack_us = SLACK_US};
	const struct pool_options record = {.name = "record",
	                                    .max_threads = threads,
	                                    .stack_bytes = STACK_BYTES,
	                                    .thread_begin = record_thread_begin,
	                                    .slack_us = SLACK_US};
	const struct pool_options scan = {.name = "scan",
	                                  .max_threads = 2,
	                                  .stack_bytes = STACK_BYTES,
	                                  .thread_begin = usual_thread_begin};
	const struct pool_options keep = {.name = "keep",
	                                  .max_threads = 1,
	                                  .stack_bytes = STACK_BYTES,
	                                  .thread_begin = usual_thread_begin,
	                                  .slack_us = SLACK_US};
	const struct pool_options control = {.name = "control",
	                                     .max_threads = 4,
	                                     .stack_bytes = STACK_BYTES,
	                                     .thread_begin = usual_thread_begin,
	                                     .slack_us = SLACK_US};

	if (!p)
		return err_set(err, ERR_NOMEM, 0, "no memory");
	/* Each arena keeps what its threads needed once. */
	mallopt(M_ARENA_MAX, 2);
	p->queue_bytes = o->queue_bytes ? o->queue_bytes : QUEUE_BYTES_DEFAULT;
	int rc = capture_hub_new(&p->hub, err);
	if (rc == 0)
		rc = pool_new(&capture, &p->capture, err);
	if (rc == 0)
		rc = pool_new(&record, &p->record, err);
	if (rc == 0)
		rc = pool_new(&scan, &p->scan, err);
	if (rc == 0)
		rc = pool_new(&keep, &p->keep, err);
	if (rc == 0)
		rc = pool_new(&control, &p->control, err);
	if (rc < 0) {
		pools_free(p);
		return rc;
	}
	*ret = p;
	return 0;
}

void pools_free(struct pools *p)
{
	if (!p)
		return;
	pool_free(p->control);
	pool_free(p->keep);
	pool_free(p->scan);
	pool_free(p->record);
	pool_free(p->capture);
	capture_hub_free(p->hub);
	free(p);
}

void pools_give_back(struct pools *p)
{
	if (atomic_exchange(&p->memory_freed, false))
		malloc_trim(0);
}

int64_t pools_stalled_us(struct pools *p)
{
	struct pool_status capture, record, control;

	pool_get_status(p->capture, &capture);
	pool_get_status(p->record, &record);
	pool_get_status(p->control, &control);
	int64_t us =
	        capture.overdue_us > capture.longest_us ? capture.overdue_us : capture.longest_us;
	us = record.overdue_us > us ? record.overdue_us : us;
	return control.overdue_us > us ? control.overdue_us : us;
}
