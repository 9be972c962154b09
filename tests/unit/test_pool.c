/* SPDX-License-Identifier: Apache-2.0 */
/* Few threads, many tasks: nothing runs twice at once, no wake is lost, no time is missed, and the
 * number of threads has its bound. */
#include "engine/base/clock.h"
#include "engine/base/pool.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>

#include <cmocka.h>

#define MS INT64_C(1000)
#define PATIENCE_US (20 * US_PER_SECOND)

struct counter {
	struct pool_task *task;
	_Atomic unsigned inside, steps, asked, seen, overlaps;
	_Atomic int64_t wait_us;
	int64_t work_us;
	int64_t last_us;
	_Atomic int64_t latest_us; /* by how much the step that came latest was late */
};

static _Atomic unsigned threads_inside, threads_most;

static int64_t step(void *ctx)
{
	struct counter *c = ctx;
	int64_t now_us = clock_mono_us();
	unsigned n = ++threads_inside;

	if (n > threads_most)
		threads_most = n;
	if (++c->inside != 1)
		c->overlaps++;
	c->seen = c->asked;
	if (c->last_us && now_us - c->last_us - c->wait_us > c->latest_us)
		c->latest_us = now_us - c->last_us - c->wait_us;
	if (c->work_us)
		clock_sleep_us(c->work_us);
	c->steps++;
	c->inside--;
	threads_inside--;
	c->last_us = clock_mono_us();
	return c->wait_us;
}

static struct pool *new_pool(unsigned max_threads, int64_t keep_us)
{
	struct pool_options o = {
	        .name = "test", .max_threads = max_threads, .keep_us = keep_us, .slack_us = MS};
	struct pool *p = NULL;

	assert_int_equal(pool_new(&o, &p, NULL), 0);
	threads_inside = threads_most = 0;
	return p;
}

static void add(struct pool *p, struct counter *c)
{
	assert_int_equal(pool_add(p, step, c, &c->task, NULL), 0);
}

#define wait_for(condition)                                                                        \
	do {                                                                                       \
		int64_t end_us_ = clock_mono_us() + PATIENCE_US;                                   \
		while (!(condition) && clock_mono_us() < end_us_)                                  \
			clock_sleep_us(200);                                                       \
		assert_true(condition);                                                            \
	} while (0)

static void test_first_step_comes_and_no_more(void **state)
{
	struct pool *p = new_pool(2, 0);
	struct counter c = {.wait_us = POOL_WHEN_WOKEN};

	add(p, &c);
	wait_for(c.steps == 1);
	clock_sleep_us(20 * MS);
	assert_int_equal(c.steps, 1);
	pool_wake(c.task);
	wait_for(c.steps == 2);
	pool_remove(c.task);
	pool_free(p);
}

struct waker {
	struct counter *tasks;
	size_t n;
	unsigned seed;
};

static void *wake_at_random(void *arg)
{
	struct waker *w = arg;

	for (int i = 0; i < 4000; i++) {
		struct counter *c = &w->tasks[(unsigned)rand_r(&w->seed) % w->n];
		c->asked++;
		pool_wake(c->task);
	}
	return NULL;
}

/* What was asked before a wake is seen by a step after it. */
static void no_wake_is_lost(unsigned max_threads, int64_t keep_us, int64_t wait_us)
{
	struct pool *p = new_pool(max_threads, keep_us);
	struct counter tasks[40] = {0};
	struct waker wakers[3];
	pthread_t ids[3];

	for (size_t i = 0; i < 40; i++) {
		tasks[i].wait_us = i % 3 ? POOL_WHEN_WOKEN : wait_us;
		add(p, &tasks[i]);
	}
	for (unsigned i = 0; i < 3; i++) {
		wakers[i] = (struct waker){tasks, 40, i + 1};
		assert_int_equal(pthread_create(&ids[i], NULL, wake_at_random, &wakers[i]), 0);
	}
	for (unsigned i = 0; i < 3; i++)
		pthread_join(ids[i], NULL);
	for (size_t i = 0; i < 40; i++)
		wait_for(tasks[i].seen == tasks[i].asked);
	struct pool_status s;
	pool_get_status(p, &s);
	assert_true(s.n_threads <= max_threads);
	assert_int_equal(s.n_tasks, 40);
	for (size_t i = 0; i < 40; i++) {
		pool_remove(tasks[i].task);
		assert_int_equal(tasks[i].inside, 0);
		assert_int_equal(tasks[i].overlaps, 0);
	}
	assert_true(threads_most <= max_threads);
	pool_free(p);
}

static void test_no_wake_is_lost(void **state)
{
	no_wake_is_lost(1, 0, POOL_WHEN_WOKEN);
	no_wake_is_lost(4, 0, 100);
	no_wake_is_lost(3, 5 * MS, MS);
	no_wake_is_lost(2, 5 * MS, 50);
}

/* Parked by the hundred, each is called in its time. */
static void test_times_are_kept(void **state)
{
	struct pool *p = new_pool(2, 0);
	struct counter *tasks = calloc(300, sizeof(*tasks));
	struct pool_status s;

	for (size_t i = 0; i < 300; i++) {
		tasks[i].wait_us = (int64_t)(20 + i % 7 * 11) * MS;
		add(p, &tasks[i]);
	}
	clock_sleep_us(1000 * MS);
	pool_get_status(p, &s);
	assert_true(s.n_threads <= 2);
	for (size_t i = 0; i < 300; i++)
		pool_remove(tasks[i].task);
	for (size_t i = 0; i < 300; i++) {
		/* A machine at its limits may be late; a lost time is never made up for. */
		assert_true(tasks[i].steps >= 2);
		assert_true(tasks[i].latest_us < 700 * MS);
	}
	free(tasks);
	pool_free(p);
}

/* Two threads are kept busy by tasks that want them for ever: all others have their turn. */
static void test_busy_tasks_take_turns(void **state)
{
	struct pool *p = new_pool(2, 10 * MS);
	struct counter busy[4] = {0}, quiet = {.wait_us = 30 * MS};

	for (size_t i = 0; i < 4; i++) {
		busy[i].wait_us = i % 2 ? 50 : 0;
		busy[i].work_us = 100;
		add(p, &busy[i]);
	}
	add(p, &quiet);
	for (size_t i = 0; i < 4; i++)
		wait_for(busy[i].steps > 50);
	wait_for(quiet.steps > 5);
	for (size_t i = 0; i < 4; i++)
		pool_remove(busy[i].task);
	pool_remove(quiet.task);
	assert_true(threads_most <= 2);
	pool_free(p);
}

/* A step that blocks holds up nobody, as long as there is another thread to be had. */
static void test_blocked_step_holds_up_nobody(void **state)
{
	struct pool *p = new_pool(3, 0);
	struct counter blocked = {.wait_us = POOL_WHEN_WOKEN, .work_us = 400 * MS},
	               timed = {.wait_us = 10 * MS}, woken = {.wait_us = POOL_WHEN_WOKEN};
	struct pool_status s;

	add(p, &timed);
	add(p, &woken);
	wait_for(woken.steps == 1);
	add(p, &blocked);
	wait_for(blocked.inside == 1);
	unsigned before = timed.steps;
	pool_wake(woken.task);
	wait_for(woken.steps == 2);
	wait_for(timed.steps > before + 2);
	pool_get_status(p, &s);
	assert_int_equal(blocked.steps, 0); /* it still blocks */
	assert_true(s.longest_us > 0);
	pool_remove(blocked.task); /* waits for the step */
	assert_int_equal(blocked.steps, 1);
	pool_remove(timed.task);
	pool_remove(woken.task);
	pool_free(p);
}

/* What waits too long shows: the watchdog asks for it. */
static void test_overdue_shows(void **state)
{
	struct pool *p = new_pool(1, 0);
	struct counter blocked = {.wait_us = POOL_WHEN_WOKEN, .work_us = 200 * MS},
	               waits = {.wait_us = POOL_WHEN_WOKEN};
	struct pool_status s;

	add(p, &blocked);
	wait_for(blocked.inside == 1);
	add(p, &waits);
	clock_sleep_us(50 * MS);
	pool_get_status(p, &s);
	assert_true(s.overdue_us >= 50 * MS || waits.steps);
	wait_for(waits.steps == 1);
	pool_get_status(p, &s);
	assert_int_equal(s.overdue_us, 0);
	pool_remove(blocked.task);
	pool_remove(waits.task);
	pool_free(p);
}

/* Removed at every moment of its life. */
static void test_removal(void **state)
{
	struct pool *p = new_pool(3, MS);
	unsigned seed = 7;

	for (int i = 0; i < 500; i++) {
		struct counter c = {.wait_us = rand_r(&seed) % 400,
		                    .work_us = rand_r(&seed) % 3 * 40};
		add(p, &c);
		clock_sleep_us(rand_r(&seed) % 300);
		if (i % 2)
			pool_wake(c.task);
		pool_remove(c.task);
		unsigned steps = c.steps;
		assert_int_equal(c.inside, 0);
		if (i % 50 == 0)
			clock_sleep_us(2 * MS);
		assert_int_equal(c.steps, steps);
	}
	pool_free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_first_step_comes_and_no_more),
	        cmocka_unit_test(test_no_wake_is_lost),
	        cmocka_unit_test(test_times_are_kept),
	        cmocka_unit_test(test_busy_tasks_take_turns),
	        cmocka_unit_test(test_blocked_step_holds_up_nobody),
	        cmocka_unit_test(test_overdue_shows),
	        cmocka_unit_test(test_removal),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
