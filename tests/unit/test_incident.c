/* SPDX-License-Identifier: Apache-2.0 */
/* Who is told what, when: against a model that knows nothing of how it is done, over random lives of
 * conditions, channels that fail for long, and restarts at any moment. */
#include "engine/base/clock.h"
#include "engine/monitor/incident.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SECOND US_PER_SECOND
#define WALL INT64_C(1700000000000000)

static const struct incident_options options = {.for_us = 30 * SECOND,
                                                .clear_us = 60 * SECOND,
                                                .repeat_us = 3600 * SECOND,
                                                .channels = {true, true, false}};

static struct incidents *make(const struct incident_options *o)
{
	struct incidents *s = NULL;

	assert_int_equal(incidents_new(o, &s, NULL), 0);
	return s;
}

static struct condition stale(const char *database)
{
	return (struct condition){.alert = "capture-stale",
	                          .database = database,
	                          .place = "",
	                          .severity = SEVERITY_CRITICAL,
	                          .text = "nothing captured for 40 s"};
}

/* Time goes in seconds from 1 on; the wall clock with it. */
static void look(struct incidents *s, const struct condition *c, size_t n, int64_t second)
{
	incidents_look(s, c, n, WALL + second * SECOND, second * SECOND);
}

static size_t due(struct incidents *s, enum channel c, int64_t second, struct telling *ret)
{
	return incidents_due(s, c, second * SECOND, ret, TELLINGS_MAX);
}

static void tell(struct incidents *s, enum channel c, const struct telling *t, size_t n,
                 int64_t second)
{
	incidents_told(s, c, t, n, WALL + second * SECOND, second * SECOND);
}

static struct telling t[TELLINGS_MAX];

static void test_life_of_one(void **state)
{
	cleanup_incidents struct incidents *s = make(&options);
	const struct condition c = stale("a.db");
	int64_t at = 1;

	for (; at <= 30; at++) {
		look(s, &c, 1, at);
		assert_int_equal(due(s, CHANNEL_EMAIL, at, t), 0);
	}
	look(s, &c, 1, at = 31);
	assert_int_equal(due(s, CHANNEL_EMAIL, at, t), 1);
	assert_string_equal(t[0].incident.alert, "capture-stale");
	assert_string_equal(t[0].incident.database, "a.db");
	assert_true(t[0].incident.began_us == WALL + SECOND && t[0].incident.fired_us > WALL);
	assert_false(t[0].again);
	tell(s, CHANNEL_EMAIL, t, 1, at);
	assert_int_equal(due(s, CHANNEL_EMAIL, at, t), 0);
	assert_int_equal(due(s, CHANNEL_SLACK, at, t), 1);   /* has not been told yet */
	assert_int_equal(due(s, CHANNEL_WEBHOOK, at, t), 0); /* there is none */

	/* Again after an hour, and not before. */
	look(s, &c, 1, at = 31 + 3599);
	assert_int_equal(due(s, CHANNEL_EMAIL, at, t), 0);
	look(s, &c, 1, at = 31 + 3600);
	assert_int_equal(due(s, CHANNEL_EMAIL, at, t), 1);
	assert_true(t[0].again);
	tell(s, CHANNEL_EMAIL, t, 1, at);
	assert_int_equal(due(s, CHANNEL_EMAIL, at, t), 0);

	/* Gone for less than a minute: nothing has ended. */
	look(s, NULL, 0, at + 59);
	look(s, &c, 1, at += 60);
	assert_int_equal(due(s, CHANNEL_EMAIL, at, t), 0);
	look(s, NULL, 0, at + 59);
	assert_int_equal(due(s, CHANNEL_EMAIL, at + 59, t), 0);
	look(s, NULL, 0, at += 60);
	assert_int_equal(due(s, CHANNEL_EMAIL, at, t), 1);
	assert_int_equal(t[0].incident.state, INCIDENT_RESOLVED);
	tell(s, CHANNEL_EMAIL, t, 1, at);
	assert_int_equal(due(s, CHANNEL_EMAIL, at, t), 0);

	/* The other channel hears of it all at once, and then it is forgotten. */
	assert_int_equal(due(s, CHANNEL_SLACK, at, t), 1);
	assert_int_equal(t[0].incident.state, INCIDENT_RESOLVED);
	tell(s, CHANNEL_SLACK, t, 1, at);
	look(s, NULL, 0, at + 1);
	struct incident_counts n;
	incidents_count(s, &n);
	assert_int_equal(n.pending + n.firing + n.resolved, 0);
}

static void test_at_once_and_worse(void **state)
{
	cleanup_incidents struct incidents *s = make(&options);
	struct condition c = stale("a.db");

	c.at_once = true;
	c.severity = SEVERITY_WARNING;
	look(s, &c, 1, 1);
	assert_int_equal(due(s, CHANNEL_EMAIL, 1, t), 1);
	tell(s, CHANNEL_EMAIL, t, 1, 1);
	c.severity = SEVERITY_CRITICAL;
	look(s, &c, 1, 2);
	assert_int_equal(due(s, CHANNEL_EMAIL, 2, t), 1);
	assert_false(t[0].again);
	/* It gets no better by itself, and that is not told. */
	tell(s, CHANNEL_EMAIL, t, 1, 2);
	c.severity = SEVERITY_WARNING;
	look(s, &c, 1, 3);
	assert_int_equal(due(s, CHANNEL_EMAIL, 3, t), 0);
}

/* What comes of another begins nothing, keeps what it began before, and counts from its own begin. */
static void test_follows(void **state)
{
	cleanup_incidents struct incidents *s = make(&options);
	struct condition c = stale("a.db");
	int64_t at = 1;

	c.follows = true;
	for (; at <= 100; at++)
		look(s, &c, 1, at);
	assert_int_equal(due(s, CHANNEL_EMAIL, at, t), 0);
	c.follows = false; /* by itself from 101 on */
	for (; at <= 130; at++)
		look(s, &c, 1, at);
	assert_int_equal(due(s, CHANNEL_EMAIL, at, t), 0);
	c.follows = true; /* for a moment: it counts anew */
	look(s, &c, 1, at++);
	c.follows = false;
	look(s, &c, 1, at);
	assert_int_equal(due(s, CHANNEL_EMAIL, at, t), 0);
	look(s, &c, 1, at += 30);
	assert_int_equal(due(s, CHANNEL_EMAIL, at, t), 1);
	tell(s, CHANNEL_EMAIL, t, 1, at);
	c.follows = true; /* told already: it is not over by that, and not told again */
	for (int64_t end = at + 300; at < end; at++)
		look(s, &c, 1, at + 1);
	assert_int_equal(due(s, CHANNEL_EMAIL, at, t), 0);
	for (int64_t end = at + 61; at < end; at++)
		look(s, NULL, 0, at + 1);
	assert_int_equal(due(s, CHANNEL_EMAIL, at, t), 1);
	assert_int_equal(t[0].incident.state, INCIDENT_RESOLVED);
}

static void test_what_changes_while_a_message_is_under_way(void **state)
{
	cleanup_incidents struct incidents *s = make(&options);
	struct condition c = stale("a.db");

	c.at_once = true;
	c.severity = SEVERITY_WARNING;
	look(s, &c, 1, 1);
	assert_int_equal(due(s, CHANNEL_EMAIL, 1, t), 1);
	c.severity = SEVERITY_CRITICAL;
	look(s, &c, 1, 2);
	tell(s, CHANNEL_EMAIL, t, 1, 3); /* of the warning */
	assert_int_equal(due(s, CHANNEL_EMAIL, 3, t), 1);
	assert_int_equal(t[0].incident.severity, SEVERITY_CRITICAL);
	look(s, NULL, 0, 100);
	tell(s, CHANNEL_EMAIL, t, 1, 101); /* that it began */
	assert_int_equal(due(s, CHANNEL_EMAIL, 101, t), 1);
	assert_int_equal(t[0].incident.state, INCIDENT_RESOLVED);
}

static void test_clock_that_is_set(void **state)
{
	cleanup_incidents struct incidents *s = make(&options);
	const struct condition c = stale("a.db");

	for (int64_t at = 1; at <= 40; at++)
		incidents_look(s, &c, 1, WALL + (at % 2 ? 1 : -1) * 86400 * SECOND, at * SECOND);
	assert_int_equal(due(s, CHANNEL_EMAIL, 40, t), 1);
	incidents_told(s, CHANNEL_EMAIL, t, 1, WALL - 86400 * SECOND, 40 * SECOND);
	assert_int_equal(due(s, CHANNEL_EMAIL, 41, t), 0);
}

static void test_bound(void **state)
{
	cleanup_incidents struct incidents *s = make(&options);
	struct incident_counts n;
	char name[32];
	int64_t at = 1;

	/* Half of them end and are never told; then more begin than there is room for. */
	for (int i = 0; i < INCIDENTS_MAX / 2; i++) {
		snprintf(name, sizeof(name), "old-%d", i);
		struct condition c = stale(name);
		c.at_once = true;
		incidents_add(s, &c, WALL, at * SECOND);
	}
	look(s, NULL, 0, at += 100);
	for (int i = 0; i < INCIDENTS_MAX + 10; i++) {
		snprintf(name, sizeof(name), "new-%d", i);
		struct condition c = stale(name);
		c.at_once = true;
		incidents_add(s, &c, WALL, at * SECOND);
	}
	incidents_count(s, &n);
	assert_int_equal(n.firing, INCIDENTS_MAX);
	assert_int_equal(n.resolved, 0);
	assert_int_equal(n.lost, INCIDENTS_MAX / 2 + 10);
	assert_int_equal(due(s, CHANNEL_EMAIL, at, t), TELLINGS_MAX);
	assert_string_equal(t[0].incident.database, "new-0");
}

/* ---- the model ---- */

#define N_DATABASES 4
#define N_IDS 4096

struct heard {
	char id[17];
	unsigned began, ended, worse; /* how often it was said */
	bool is_over;
};
static struct heard heard[2][N_IDS];
static size_t n_heard[2];

static struct heard *heard_of(int channel, const char *id)
{
	for (size_t i = 0; i < n_heard[channel]; i++)
		if (strcmp(heard[channel][i].id, id) == 0)
			return &heard[channel][i];
	assert_true(n_heard[channel] < N_IDS);
	struct heard *h = &heard[channel][n_heard[channel]++];
	*h = (struct heard){0};
	snprintf(h->id, sizeof(h->id), "%s", id);
	return h;
}

static void hear(int channel, const struct telling *one)
{
	struct heard *h = heard_of(channel, one->incident.id);

	assert_int_equal(h->ended, 0); /* nothing after the end */
	if (one->incident.state == INCIDENT_RESOLVED)
		h->ended++;
	else if (one->again)
		assert_int_equal(h->began, 1);
	else
		h->began++;
	assert_true(h->began <= 1);
}

static struct incidents *restart(struct incidents *s, int64_t second)
{
	struct incidents *next = make(&options);
	cleanup_free char *text = NULL;
	size_t len;
	struct err err = ERR_INIT;

	assert_int_equal(incidents_save(s, &text, &len, NULL), 0);
	if (incidents_load(next, text, len, WALL + second * SECOND, second * SECOND, &err) < 0)
		fail_msg("%s", err.msg);
	incidents_free(s);
	return next;
}

/* Whatever happens: of each incident each channel hears the beginning once (or nothing of it, when it
 * hears of the end at once), and the end once. */
static void test_random_lives(void **state)
{
	srand(20261126);
	for (int round = 0; round < 30; round++) {
		struct incidents *s = make(&options);
		bool wrong[N_DATABASES] = {false}, up[2] = {true, true};
		int64_t at = 1;
		memset(n_heard, 0, sizeof(n_heard));
		for (int step = 0; step < 3000; step++, at += 1 + rand() % 20) {
			struct condition c[N_DATABASES];
			size_t n = 0;
			bool quiet = step > 2800; /* all ends, and all is told */
			for (int i = 0; i < N_DATABASES; i++) {
				static const char *const names[] = {"a", "b", "c", "d"};
				if (rand() % 30 == 0)
					wrong[i] = !wrong[i];
				if (wrong[i] && !quiet)
					c[n++] = stale(names[i]);
			}
			for (int i = 0; i < 2; i++)
				up[i] = quiet || (rand() % 40 == 0 ? !up[i] : up[i]);
			if (rand() % 50 == 0)
				s = restart(s, at);
			look(s, c, n, at);
			for (int i = 0; i < 2; i++) {
				size_t told = up[i] ? due(s, (enum channel)i, at, t) : 0;
				for (size_t k = 0; k < told; k++)
					hear(i, &t[k]);
				tell(s, (enum channel)i, t, told, at);
			}
		}
		struct incident_counts left;
		incidents_count(s, &left);
		assert_int_equal(left.pending + left.firing + left.resolved, 0);
		assert_int_equal(left.lost, 0);
		assert_true(n_heard[0] > 20);
		assert_int_equal(n_heard[0], n_heard[1]);
		for (int i = 0; i < 2; i++)
			for (size_t k = 0; k < n_heard[i]; k++)
				assert_int_equal(heard[i][k].ended, 1);
		incidents_free(s);
	}
}

static void test_damaged_text(void **state)
{
	static const char *const bad[] = {
	        "",
	        "{",
	        "[]",
	        "{}",
	        "{\"version\": 1}",
	        "{\"version\": 2, \"incidents\": []}",
	        "{\"version\": 1, \"incidents\": [{}]}",
	        "{\"version\": 1, \"incidents\": [{\"id\": \"../../etc/passwd\"}]}"};
	cleanup_incidents struct incidents *s = make(&options);
	struct condition c = stale("a \xff\x01 db");
	cleanup_free char *text = NULL;
	size_t len;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_true(incidents_load(s, bad[i], strlen(bad[i]), WALL, SECOND, NULL) < 0);
	c.at_once = true;
	look(s, &c, 1, 1);
	assert_int_equal(incidents_save(s, &text, &len, NULL), 0);
	for (size_t cut = 0; cut < len; cut++) {
		cleanup_incidents struct incidents *other = make(&options);
		assert_true(incidents_load(other, text, cut, WALL, SECOND, NULL) < 0);
		assert_int_equal(due(other, CHANNEL_EMAIL, 1, t), 0);
	}
	cleanup_incidents struct incidents *whole = make(&options);
	assert_int_equal(incidents_load(whole, text, len, WALL, SECOND, NULL), 0);
	assert_int_equal(due(whole, CHANNEL_EMAIL, 1, t), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_life_of_one),
	        cmocka_unit_test(test_at_once_and_worse),
	        cmocka_unit_test(test_follows),
	        cmocka_unit_test(test_what_changes_while_a_message_is_under_way),
	        cmocka_unit_test(test_clock_that_is_set),
	        cmocka_unit_test(test_bound),
	        cmocka_unit_test(test_random_lives),
	        cmocka_unit_test(test_damaged_text),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
