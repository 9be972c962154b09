/* SPDX-License-Identifier: Apache-2.0 */
/* The notifier against a server that answers, fails, hangs up, is slow: each incident is told once,
 * whatever happens in between, restarts included; the heartbeat beats while all is well, and then only. */
#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "engine/monitor/notifier.h"

#include <arpa/inet.h>
#include <jansson.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cmocka.h>

#define MS INT64_C(1000)
#define PATIENCE_US (20 * US_PER_SECOND)
#define MAX_REQUESTS 2000

/* ---- the server ---- */

struct request {
	bool taken; /* it answered 200 */
	char path[32];
	json_t *body;
	int64_t at_us;
};

struct server {
	pthread_mutex_t lock;
	pthread_t thread;
	int fd, port;
	bool stop;
	const char *plan; /* a letter for each request, the last one for ever: see answer() */
	struct request requests[MAX_REQUESTS];
	size_t n;
};

static struct server server;
static char dir[64];

/* Reads one request whole; its body begins at the returned place. */
static const char *read_request(int fd, char *buf, size_t size)
{
	size_t len = 0, want = size;
	char *body = NULL;

	while (len + 1 < size && len < want) {
		ssize_t n = read(fd, buf + len, size - 1 - len);
		if (n <= 0)
			break;
		len += (size_t)n;
		buf[len] = '\0';
		if (!body && (body = strstr(buf, "\r\n\r\n"))) {
			const char *length = strcasestr(buf, "content-length:");
			body += 4;
			want = (size_t)(body - buf) + (length ? (size_t)atoi(length + 15) : 0);
		}
	}
	return body && len >= want ? body : NULL;
}

static void say(int fd, const char *text)
{
	ssize_t n = send(fd, text, strlen(text), MSG_NOSIGNAL);
	(void)n;
}

/* o: 200; e: 500; n: 404; c: closes without a word; h: says nothing for as long as it is asked;
 * t: half an answer, 200 */
static void answer(int fd, char how)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	switch (how) {
	case 'o':
		say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
		break;
	case 't':
		say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 20\r\nConnection: close\r\n\r\nok");
		break;
	case 'e':
		say(fd, "HTTP/1.1 500 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
		break;
	case 'n':
		say(fd, "HTTP/1.1 404 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
		break;
	case 'h':
		poll(&p, 1, 60000);
		break;
	default:
		break;
	}
}

static void serve(struct server *s, int fd)
{
	static char buf[1 << 20];
	const char *body = read_request(fd, buf, sizeof(buf));

	if (!body)
		return;
	pthread_mutex_lock(&s->lock);
	char how = s->plan[0];
	if (s->plan[1])
		s->plan++;
	if (s->n < MAX_REQUESTS) {
		struct request *r = &s->requests[s->n++];
		*r = (struct request){.taken = how == 'o' || how == 't',
		                      .body = json_loads(body, 0, NULL),
		                      .at_us = clock_mono_us()};
		sscanf(buf, "%*s %31s", r->path);
	}
	pthread_mutex_unlock(&s->lock);
	answer(fd, how);
}

static void *server_main(void *ctx)
{
	struct server *s = ctx;

	for (;;) {
		struct pollfd p = {.fd = s->fd, .events = POLLIN};
		poll(&p, 1, 20);
		pthread_mutex_lock(&s->lock);
		bool stop = s->stop;
		pthread_mutex_unlock(&s->lock);
		if (stop)
			return NULL;
		int fd = p.revents ? accept(s->fd, NULL, NULL) : -1;
		if (fd < 0)
			continue;
		serve(s, fd);
		close(fd);
	}
}

static int set_up(void **state)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(a);

	snprintf(dir, sizeof(dir), "/tmp/asof-notifier-XXXXXX");
	server = (struct server){.plan = "o"};
	pthread_mutex_init(&server.lock, NULL);
	server.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (!mkdtemp(dir) || bind(server.fd, (struct sockaddr *)&a, len) < 0 ||
	    listen(server.fd, 64) < 0 || getsockname(server.fd, (struct sockaddr *)&a, &len) < 0)
		return -1;
	server.port = ntohs(a.sin_port);
	log_set_fd(-1);
	return pthread_create(&server.thread, NULL, server_main, &server);
}

static int tear_down(void **state)
{
	char command[128];

	pthread_mutex_lock(&server.lock);
	server.stop = true;
	pthread_mutex_unlock(&server.lock);
	pthread_join(server.thread, NULL);
	close(server.fd);
	for (size_t i = 0; i < server.n; i++)
		json_decref(server.requests[i].body);
	pthread_mutex_destroy(&server.lock);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}

static void set_plan(const char *plan)
{
	LOCK_SCOPE(&server.lock);
	server.plan = plan;
}

/* How often an alert was told, with a status, to whom took it (or, taken false, to all). */
static unsigned told(const char *database, const char *status, bool taken)
{
	unsigned n = 0;
	size_t i;
	json_t *alert;

	LOCK_SCOPE(&server.lock);
	for (size_t k = 0; k < server.n; k++)
		json_array_foreach(json_object_get(server.requests[k].body, "alerts"), i, alert)
		{
			const json_t *labels = json_object_get(alert, "labels");
			const char *db = json_string_value(json_object_get(labels, "db"));
			const char *s = json_string_value(json_object_get(alert, "status"));
			n += (server.requests[k].taken || !taken) && db &&
			     strcmp(db, database) == 0 && strcmp(s, status) == 0;
		}
	return n;
}

static unsigned beats(void)
{
	unsigned n = 0;

	LOCK_SCOPE(&server.lock);
	for (size_t k = 0; k < server.n; k++)
		n += strcmp(server.requests[k].path, "/beat") == 0;
	return n;
}

static size_t requests(void)
{
	LOCK_SCOPE(&server.lock);
	return server.n;
}

/* ---- the notifier ---- */

static struct notifier_options options(void)
{
	static char hook[64];

	snprintf(hook, sizeof(hook), "http://127.0.0.1:%d/hook", server.port);
	return (struct notifier_options){.webhook = hook,
	                                 .heartbeat_interval_us = 50 * MS,
	                                 .for_us = 20 * MS,
	                                 .clear_us = 100 * MS,
	                                 .dir = dir,
	                                 .host = "test",
	                                 .gap_us = 10 * MS,
	                                 .retry_min_us = 5 * MS,
	                                 .retry_max_us = 20 * MS,
	                                 .stuck_us = 60 * US_PER_SECOND};
}

static struct notifier *start(const struct notifier_options *o)
{
	struct notifier *n = NULL;
	struct err err = ERR_INIT;

	if (notifier_new(o, &n, &err) < 0)
		fail_msg("%s", err.msg);
	return n;
}

static void look(struct notifier *n, const char *database)
{
	const struct condition c = {.alert = "capture-late",
	                            .database = database,
	                            .place = "",
	                            .severity = SEVERITY_CRITICAL,
	                            .text = "behind"};

	notifier_look(n, &c, database ? 1 : 0, !database);
	clock_sleep_us(5 * MS);
}

/* Goes on looking until it was told so often. */
static void look_until(struct notifier *n, const char *wrong, const char *database,
                       const char *status, unsigned times)
{
	int64_t end_us = clock_mono_us() + PATIENCE_US;

	while (told(database, status, true) < times) {
		if (clock_mono_us() > end_us)
			fail_msg("%s of %s was told %u times", status, database,
			         told(database, status, true));
		look(n, wrong);
	}
}

static void look_for(struct notifier *n, const char *wrong, int64_t us)
{
	for (int64_t end_us = clock_mono_us() + us; clock_mono_us() < end_us;)
		look(n, wrong);
}

static void test_whatever_the_server_does(void **state)
{
	const struct notifier_options o = options();
	struct notifier *n = start(&o);
	struct notifier_status status;

	set_plan("eencecceno");
	look_until(n, "a.db", "a.db", "firing", 1);
	look_for(n, "a.db", 100 * MS);
	set_plan("ccceneo");
	look_until(n, NULL, "a.db", "resolved", 1);
	look_for(n, NULL, 100 * MS);
	assert_int_equal(told("a.db", "firing", true), 1);
	assert_int_equal(told("a.db", "resolved", true), 1);
	assert_true(told("a.db", "firing", false) > 5); /* it did fail */
	notifier_get_status(n, &status);
	assert_int_equal(status.places[CHANNEL_WEBHOOK].sent, 2);
	assert_true(status.places[CHANNEL_WEBHOOK].failed >= 10);
	assert_int_equal(status.places[CHANNEL_WEBHOOK].failing_since_us, 0);
	assert_int_equal(status.incidents.firing + status.incidents.resolved, 0);
	notifier_free(n);
}

/* 200 is 200, also when the rest of the answer never comes. */
static void test_half_an_answer(void **state)
{
	const struct notifier_options o = options();
	struct notifier *n = start(&o);

	set_plan("t");
	look_until(n, "a.db", "a.db", "firing", 1);
	look_for(n, "a.db", 200 * MS);
	assert_int_equal(told("a.db", "firing", false), 1);
	notifier_free(n);
}

static void test_what_began_and_ended_while_nobody_listened(void **state)
{
	const struct notifier_options o = options();
	struct notifier *n = start(&o);

	set_plan("e");
	look_for(n, "a.db", 100 * MS);
	look_for(n, "b.db", 300 * MS);
	look_for(n, NULL, 300 * MS);
	set_plan("o");
	look_until(n, NULL, "a.db", "resolved", 1);
	look_until(n, NULL, "b.db", "resolved", 1);
	look_for(n, NULL, 100 * MS);
	assert_int_equal(told("a.db", "resolved", true), 1);
	assert_int_equal(told("a.db", "firing", true), 0);
	notifier_free(n);
}

static void test_restarts(void **state)
{
	const struct notifier_options o = options();
	struct notifier *n = start(&o);

	look_until(n, "a.db", "a.db", "firing", 1);
	for (int i = 0; i < 5; i++) {
		notifier_free(n);
		n = start(&o);
		look_for(n, "a.db", 150 * MS);
	}
	assert_int_equal(told("a.db", "firing", false), 1);
	assert_int_equal(told("a.db", "resolved", false), 0);
	/* It ends while nobody looks; and one that could not be told survives as well. */
	notifier_free(n);
	set_plan("e");
	n = start(&o);
	look_for(n, "b.db", 300 * MS);
	notifier_free(n);
	set_plan("o");
	n = start(&o);
	look_until(n, "b.db", "b.db", "firing", 1);
	look_until(n, "b.db", "a.db", "resolved", 1);
	assert_int_equal(told("a.db", "firing", true), 1);
	notifier_free(n);
}

static void test_a_file_that_cannot_be_kept(void **state)
{
	struct notifier_options o = options();

	o.dir = "/nowhere/at/all";
	struct notifier *n = start(&o);
	look_until(n, "a.db", "a.db", "firing", 1);
	look_for(n, "a.db", 100 * MS);
	assert_int_equal(told("a.db", "firing", false), 1);
	notifier_free(n);
}

static void test_heartbeat(void **state)
{
	struct notifier_options o = options();
	char url[64];

	snprintf(url, sizeof(url), "http://127.0.0.1:%d/beat", server.port);
	o.heartbeat_url = url;
	o.webhook = NULL;
	o.stuck_us = 500 * MS;
	struct notifier *n = start(&o);
	int64_t began_us = clock_mono_us();
	while (beats() < 5 && clock_mono_us() - began_us < PATIENCE_US)
		look(n, NULL);
	assert_true(beats() >= 5);
	assert_true(clock_mono_us() - began_us >= 4 * 50 * MS); /* not more often */

	look_for(n, "a.db", 500 * MS);
	unsigned before = beats();
	look_for(n, "a.db", 300 * MS);
	assert_int_equal(beats(), before);

	began_us = clock_mono_us();
	while (beats() < before + 2 && clock_mono_us() - began_us < PATIENCE_US)
		look(n, NULL);
	assert_true(beats() >= before + 2);

	/* Nobody looks any more: it stops by itself. */
	clock_sleep_us(1000 * MS);
	before = beats();
	clock_sleep_us(500 * MS);
	assert_int_equal(beats(), before);
	notifier_free(n);
}

static void test_nobody_looks(void **state)
{
	struct notifier_options o = options();
	int64_t end_us = clock_mono_us() + PATIENCE_US;

	o.stuck_us = 200 * MS;
	struct notifier *n = start(&o);
	look_for(n, NULL, 100 * MS);
	while (requests() == 0 && clock_mono_us() < end_us)
		clock_sleep_us(10 * MS);
	assert_int_equal(requests(), 1);
	pthread_mutex_lock(&server.lock);
	const json_t *alert = json_array_get(json_object_get(server.requests[0].body, "alerts"), 0);
	const char *name =
	        json_string_value(json_object_get(json_object_get(alert, "labels"), "alertname"));
	assert_string_equal(name, "observer-stuck");
	pthread_mutex_unlock(&server.lock);
	notifier_free(n);
}

/* A server that never answers holds up neither who looks nor the end. */
static void test_a_server_that_hangs(void **state)
{
	const struct notifier_options o = options();
	struct notifier *n = start(&o);
	int64_t end_us = clock_mono_us() + PATIENCE_US, worst_us = 0;

	set_plan("h");
	while (requests() == 0 && clock_mono_us() < end_us)
		look(n, "a.db");
	for (int i = 0; i < 50; i++) {
		int64_t began_us = clock_mono_us();
		look(n, "a.db");
		int64_t took_us = clock_mono_us() - began_us;
		worst_us = took_us > worst_us ? took_us : worst_us;
	}
	assert_int_equal(requests(), 1);
	assert_true(worst_us < 2 * US_PER_SECOND);
	int64_t began_us = clock_mono_us();
	notifier_free(n);
	assert_true(clock_mono_us() - began_us < 10 * US_PER_SECOND);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
	        TEST(test_whatever_the_server_does),
	        TEST(test_half_an_answer),
	        TEST(test_what_began_and_ended_while_nobody_listened),
	        TEST(test_restarts),
	        TEST(test_a_file_that_cannot_be_kept),
	        TEST(test_heartbeat),
	        TEST(test_nobody_looks),
	        TEST(test_a_server_that_hangs),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
