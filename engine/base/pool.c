/* SPDX-License-Identifier: Apache-2.0 */
/*
 * (1) A task is in one place: the heap (PARKED with a time), the ready list, or with a thread.
 * (2) While there are tasks parked with a time, some thread waits for the first of these times
 *     (the timekeeper, an idle thread), or every one that there may be is at work and looks at
 *     the heap after each step.
 * (3) `woken` is cleared before a step; a wake that finds it set is covered by the step to come.
 */
#include "engine/base/pool.h"

#include "engine/base/cleanup.h"
#include "engine/base/clock.h"
#include "engine/base/lock.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>

/* An idle thread ends after this; two stay. */
#define IDLE_US (5 * US_PER_SECOND)
#define THREADS_KEPT 2
/* Whoever works through what is due will come to it in that time, most likely. */
#define STAND_IN_US 20000

enum place { PARKED, READY, RUNNING, KEPT };

struct pool_task {
	struct pool *pool;
	pool_step_fn *step;
	void *ctx;
	enum place place;
	bool woken, removing;
	int64_t due_us;   /* monotonic; POOL_WHEN_WOKEN */
	int64_t from_us;  /* so early it may go along with others */
	int64_t since_us; /* READY, RUNNING: since when */
	size_t heap_index;
	bool in_heap;
	struct pool_task *next; /* ready list */
	struct thread *thread;  /* RUNNING, KEPT */
};

struct thread {
	struct pool *pool;
	pthread_t id;
	pthread_cond_t wake;
	bool signalled;
	struct pool_task *task;     /* RUNNING or KEPT */
	struct thread *next_idle;   /* stack of idle threads */
	struct thread *prev, *next; /* all threads */
};

struct pool {
	struct pool_options options;
	pthread_mutex_t lock;   /* all below, and all tasks */
	pthread_cond_t changed; /* a step or a thread ended */
	struct pool_task **heap;
	size_t n_heap, heap_cap;
	struct pool_task *ready, **ready_end;
	struct thread *threads, *idle;
	struct thread *timekeeper; /* among the idle, or NULL */
	int64_t timekeeper_us;     /* it sleeps until then */
	struct thread *ended;      /* to be joined */
	unsigned n_threads, n_tasks, n_running;
	bool stopping;
};

/* ---- the heap: first due first ---- */

static void heap_set(struct pool *p, size_t i, struct pool_task *t)
{
	p->heap[i] = t;
	t->heap_index = i;
}

static void heap_up(struct pool *p, size_t i, struct pool_task *t)
{
	while (i > 0 && p->heap[(i - 1) / 2]->due_us > t->due_us) {
		heap_set(p, i, p->heap[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
	heap_set(p, i, t);
}

static void heap_down(struct pool *p, size_t i, struct pool_task *t)
{
	for (;;) {
		size_t child = 2 * i + 1;
		if (child + 1 < p->n_heap && p->heap[child + 1]->due_us < p->heap[child]->due_us)
			child++;
		if (child >= p->n_heap || p->heap[child]->due_us >= t->due_us)
			break;
		heap_set(p, i, p->heap[child]);
		i = child;
	}
	heap_set(p, i, t);
}

/* There is room: pool_add() made it. */
static void heap_add(struct pool *p, struct pool_task *t)
{
	t->in_heap = true;
	heap_up(p, p->n_heap++, t);
}

static void heap_remove(struct pool *p, struct pool_task *t)
{
	size_t i = t->heap_index;
	struct pool_task *last = p->heap[--p->n_heap];

	t->in_heap = false;
	if (last == t)
		return;
	if (last->due_us < t->due_us)
		heap_up(p, i, last);
	else
		heap_down(p, i, last);
}

/* ---- ready ---- */

static void make_ready(struct pool *p, struct pool_task *t, int64_t now_us)
{
	if (t->in_heap)
		heap_remove(p, t);
	t->place = READY;
	t->since_us = now_us;
	t->next = NULL;
	*p->ready_end = t;
	p->ready_end = &t->next;
}

static void unlink_ready(struct pool *p, struct pool_task *t)
{
	struct pool_task **at = &p->ready;

	while (*at != t)
		at = &(*at)->next;
	*at = t->next;
	if (!t->next)
		p->ready_end = at;
}

static struct pool_task *first_due(const struct pool *p, int64_t until_us)
{
	return p->n_heap && p->heap[0]->due_us <= until_us ? p->heap[0] : NULL;
}

/* ---- threads ---- */

static void *thread_main(void *arg);

static void signal_thread(struct thread *th)
{
	th->signalled = true;
	pthread_cond_signal(&th->wake);
}

static void thread_free(struct thread *th)
{
	pthread_cond_destroy(&th->wake);
	free(th);
}

static void cond_init(pthread_cond_t *c)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(c, &attr);
	pthread_condattr_destroy(&attr);
}

static void join_ended(struct pool *p)
{
	while (p->ended) {
		struct thread *th = p->ended;
		p->ended = th->next;
		pthread_join(th->id, NULL); /* its last act was to let the lock go */
		thread_free(th);
	}
}

/* Under the lock.  Without a thread more things go slower, no worse. */
static bool start_thread(struct pool *p)
{
	pthread_attr_t attr;

	if (p->n_threads >= p->options.max_threads || p->stopping)
		return false;
	join_ended(p);
	struct thread *th = calloc(1, sizeof(*th));
	if (!th)
		return false;
	th->pool = p;
	cond_init(&th->wake);
	pthread_attr_init(&attr);
	if (p->options.stack_bytes)
		pthread_attr_setstacksize(&attr, p->options.stack_bytes);
	int rc = pthread_create(&th->id, &attr, thread_main, th);
	pthread_attr_destroy(&attr);
	if (rc) {
		thread_free(th);
		return false;
	}
	if (p->options.name)
		pthread_setname_np(th->id, p->options.name);
	th->next = p->threads;
	if (p->threads)
		p->threads->prev = th;
	p->threads = th;
	p->n_threads++;
	return true;
}

/* Somebody shall look for work: an idle thread, or a new one. */
static void call_thread(struct pool *p)
{
	struct thread *found = NULL;

	/* The timekeeper last: another would have to take its place. */
	for (struct thread *th = p->idle; th; th = th->next_idle)
		if (!th->signalled && (!found || found == p->timekeeper))
			found = th;
	if (found)
		signal_thread(found);
	else
		start_thread(p);
}

static void leave_idle(struct pool *p, struct thread *th)
{
	struct thread **at = &p->idle;

	while (*at != th)
		at = &(*at)->next_idle;
	*at = th->next_idle;
	if (p->timekeeper == th)
		p->timekeeper = NULL;
}

static bool time_is_kept(const struct pool *p)
{
	return p->n_heap == 0 ||
	       (p->timekeeper && p->timekeeper_us <= p->heap[0]->due_us + STAND_IN_US);
}

/* Invariant (2). */
static void keep_time(struct pool *p)
{
	if (time_is_kept(p))
		return;
	if (!p->timekeeper)
		p->timekeeper = p->idle;
	if (p->timekeeper)
		signal_thread(p->timekeeper);
	else
		start_thread(p);
}

static void wait_until(struct pool *p, struct thread *th, int64_t until_us)
{
	struct timespec ts = {.tv_sec = until_us / US_PER_SECOND,
	                      .tv_nsec = until_us % US_PER_SECOND * 1000};

	while (!th->signalled)
		if (pthread_cond_timedwait(&th->wake, &p->lock, &ts))
			break;
	th->signalled = false;
}

/* False: it has been idle for long, and others are. */
static bool wait_idle(struct pool *p, struct thread *th)
{
	int64_t began_us = clock_mono_us(), until_us = began_us + IDLE_US;

	if (!p->timekeeper || !time_is_kept(p)) {
		p->timekeeper = th;
		if (p->n_heap) {
			int64_t due_us = p->heap[0]->due_us + (p->n_running ? STAND_IN_US : 0);
			until_us = due_us < until_us ? due_us : until_us;
		}
		p->timekeeper_us = until_us;
	}
	th->next_idle = p->idle;
	p->idle = th;
	wait_until(p, th, until_us);
	bool timekeeper = p->timekeeper == th;
	leave_idle(p, th);
	return timekeeper || p->ready || p->stopping || p->n_threads <= THREADS_KEPT ||
	       clock_mono_us() - began_us < IDLE_US;
}

/* The next task for this thread, which is then its own; `*along`: some that are due soon go along. */
static struct pool_task *take_task(struct pool *p, struct thread *th, bool *along)
{
	int64_t now_us = clock_mono_us();
	struct pool_task *t;

	/* Those that are always ready shall not keep the time from those that wait for theirs. */
	while ((t = first_due(p, now_us - STAND_IN_US)))
		make_ready(p, t, now_us);
	if ((t = p->ready)) {
		unlink_ready(p, t);
	} else if ((t = first_due(p, now_us)) ||
	           (*along && (t = first_due(p, INT64_MAX)) && t->from_us <= now_us)) {
		heap_remove(p, t);
		*along = true;
	} else {
		*along = false;
		return NULL;
	}
	t->thread = th;
	th->task = t;
	return t;
}

/* Others wait for a thread, and there is none for them. */
static bool others_wait(struct pool *p)
{
	bool due = p->ready || first_due(p, clock_mono_us() - STAND_IN_US);

	if (!due)
		return false;
	if (p->idle) {
		call_thread(p);
		return false;
	}
	return !start_thread(p);
}

/* One step; the lock is let go meanwhile.  The time until the next one. */
static int64_t do_step(struct pool *p, struct pool_task *t)
{
	t->woken = false;
	t->place = RUNNING;
	t->since_us = clock_mono_us();
	p->n_running++;
	pthread_mutex_unlock(&p->lock);
	int64_t wait_us = t->step(t->ctx);
	pthread_mutex_lock(&p->lock);
	p->n_running--;
	return t->woken ? 0 : wait_us;
}

static void park(struct pool *p, struct pool_task *t, int64_t wait_us)
{
	int64_t now_us = clock_mono_us();

	t->thread->task = NULL;
	t->thread = NULL;
	t->place = PARKED;
	t->due_us = wait_us == POOL_WHEN_WOKEN ? POOL_WHEN_WOKEN : now_us + wait_us;
	if (t->removing)
		pthread_cond_broadcast(&p->changed);
	else if (wait_us == 0)
		make_ready(p, t, now_us);
	else if (wait_us != POOL_WHEN_WOKEN) {
		int64_t early_us = wait_us / 4;
		t->from_us = t->due_us -
		             (early_us < p->options.slack_us ? early_us : p->options.slack_us);
		heap_add(p, t);
	}
}

/* Steps of one task, for as long as the thread can stay with it. */
static void run_task(struct pool *p, struct thread *th, struct pool_task *t)
{
	int64_t wait_us;

	for (;;) {
		keep_time(p);
		wait_us = do_step(p, t);
		if (t->removing || wait_us >= p->options.keep_us || others_wait(p))
			break;
		if (wait_us > 0) {
			t->place = KEPT;
			wait_until(p, th, clock_mono_us() + wait_us);
		}
		if (t->removing)
			break;
	}
	park(p, t, wait_us);
}

static void end_thread(struct pool *p, struct thread *th)
{
	if (th->prev)
		th->prev->next = th->next;
	else
		p->threads = th->next;
	if (th->next)
		th->next->prev = th->prev;
	th->next = p->ended;
	p->ended = th;
	p->n_threads--;
	pthread_cond_broadcast(&p->changed);
}

static void *thread_main(void *arg)
{
	struct thread *th = arg;
	struct pool *p = th->pool;
	bool along = false;

	if (p->options.thread_begin)
		p->options.thread_begin();
	LOCK_SCOPE(&p->lock);
	while (!p->stopping) {
		struct pool_task *t = take_task(p, th, &along);
		if (t)
			run_task(p, th, t);
		else if (!wait_idle(p, th))
			break;
	}
	end_thread(p, th);
	return NULL;
}

/* ---- for others ---- */

int pool_new(const struct pool_options *options, struct pool **ret, struct err *err)
{
	struct pool *p = calloc(1, sizeof(*p));

	if (!p)
		return err_set(err, ERR_NOMEM, 0, "no memory for threads");
	p->options = *options;
	if (!p->options.max_threads)
		p->options.max_threads = 1;
	p->ready_end = &p->ready;
	lock_init_inherit(&p->lock);
	cond_init(&p->changed);
	*ret = p;
	return 0;
}

void pool_free(struct pool *p)
{
	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	assert(p->n_tasks == 0);
	p->stopping = true;
	for (struct thread *th = p->threads; th; th = th->next)
		signal_thread(th);
	while (p->n_threads)
		pthread_cond_wait(&p->changed, &p->lock);
	join_ended(p);
	pthread_mutex_unlock(&p->lock);
	pthread_mutex_destroy(&p->lock);
	pthread_cond_destroy(&p->changed);
	free(p->heap);
	free(p);
}

static int reserve(struct pool *p, struct err *err)
{
	if (p->n_tasks < p->heap_cap)
		return 0;
	size_t cap = p->heap_cap ? 2 * p->heap_cap : 16;
	struct pool_task **heap = realloc(p->heap, cap * sizeof(struct pool_task *));
	if (!heap)
		return err_set(err, ERR_NOMEM, 0, "no memory for a task");
	p->heap = heap;
	p->heap_cap = cap;
	return 0;
}

int pool_add(struct pool *p, pool_step_fn *step, void *ctx, struct pool_task **ret, struct err *err)
{
	cleanup_free struct pool_task *t = calloc(1, sizeof(*t));
	LOCK_SCOPE(&p->lock);

	if (!t)
		return err_set(err, ERR_NOMEM, 0, "no memory for a task");
	int rc = reserve(p, err);
	if (rc < 0)
		return rc;
	t->pool = p;
	t->step = step;
	t->ctx = ctx;
	make_ready(p, t, clock_mono_us());
	p->n_tasks++;
	/* Set before the first step, which may need it. */
	*ret = take_ptr(t);
	call_thread(p);
	if (p->n_threads > 0)
		return 0;
	unlink_ready(p, *ret);
	p->n_tasks--;
	t = take_ptr(*ret);
	return err_set(err, ERR_NOMEM, 0, "cannot start a thread");
}

void pool_wake(struct pool_task *t)
{
	struct pool *p = t->pool;
	LOCK_SCOPE(&p->lock);

	if (t->woken || t->removing)
		return;
	t->woken = true;
	if (t->place == KEPT) {
		signal_thread(t->thread);
	} else if (t->place == PARKED) {
		make_ready(p, t, clock_mono_us());
		call_thread(p);
	}
}

void pool_remove(struct pool_task *t)
{
	if (!t)
		return;
	struct pool *p = t->pool;
	LOCK_SCOPE(&p->lock);
	t->removing = true;
	if (t->place == KEPT)
		signal_thread(t->thread);
	while (t->thread)
		pthread_cond_wait(&p->changed, &p->lock);
	if (t->in_heap)
		heap_remove(p, t);
	if (t->place == READY)
		unlink_ready(p, t);
	p->n_tasks--;
	free(t);
}

void pool_get_status(struct pool *p, struct pool_status *ret)
{
	int64_t now_us = clock_mono_us();
	LOCK_SCOPE(&p->lock);

	*ret = (struct pool_status){.n_threads = p->n_threads, .n_tasks = p->n_tasks};
	if (p->ready)
		ret->overdue_us = now_us - p->ready->since_us;
	if (p->n_heap && now_us - p->heap[0]->due_us > ret->overdue_us)
		ret->overdue_us = now_us - p->heap[0]->due_us;
	for (struct thread *th = p->threads; th; th = th->next)
		if (th->task && th->task->place == RUNNING &&
		    now_us - th->task->since_us > ret->longest_us)
			ret->longest_us = now_us - th->task->since_us;
}
