/* SPDX-License-Identifier: Apache-2.0 */
/* Deadlines of connections.  libmicrohttpd closes those that are silent; one that sends or takes a
 * byte now and then would stay for ever. */
#include "engine/observe/http_i.h"

#include "engine/base/clock.h"

#include <sys/socket.h>
#include <time.h>

#define STACK_BYTES ((size_t)128 << 10)

/* The descriptor is closed after reaper_on_connection() was told of it: under the lock it is the
 * connection's. */
static void reap(struct http_server *s)
{
	int64_t now_us = clock_mono_us();

	for (struct connection *c = s->connections; c; c = c->next) {
		int64_t limit_us = c->answering ? HTTP_ANSWER_US : HTTP_REQUEST_US;
		if (!c->streaming && now_us - c->since_us > limit_us)
			shutdown(c->fd, SHUT_RDWR);
	}
}

static void *reaper_main(void *arg)
{
	struct http_server *s = arg;

	pthread_mutex_lock(&s->lock);
	while (!s->stopping) {
		struct timespec until;
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_sec++;
		if (!s->connections)
			pthread_cond_wait(&s->changed, &s->lock);
		else
			pthread_cond_timedwait(&s->changed, &s->lock, &until);
		reap(s);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

int reaper_start(struct http_server *s, struct err *err)
{
	pthread_attr_t attr;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	int rc = pthread_create(&s->reaper, &attr, reaper_main, s);
	pthread_attr_destroy(&attr);
	if (rc)
		return err_set(err, ERR_NOMEM, 0, "cannot start a thread");
	pthread_setname_np(s->reaper, "http-deadlines");
	return 0;
}

void reaper_stop(struct http_server *s)
{
	pthread_mutex_lock(&s->lock);
	s->stopping = true;
	pthread_cond_signal(&s->changed);
	pthread_mutex_unlock(&s->lock);
	pthread_join(s->reaper, NULL);
}

static void forget(struct http_server *s, struct connection *gone)
{
	LOCK_SCOPE(&s->lock);

	for (struct connection **c = &s->connections; *c; c = &(*c)->next)
		if (*c == gone) {
			*c = gone->next;
			return;
		}
}

void reaper_on_connection(void *ctx, struct MHD_Connection *connection, void **socket_context,
                          enum MHD_ConnectionNotificationCode code)
{
	struct http_server *s = ctx;
	struct connection *c = *socket_context;

	if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
		if (c)
			forget(s, c);
		free(c);
		return;
	}
	const union MHD_ConnectionInfo *info =
	        mhd()->get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	c = info ? malloc(sizeof(*c)) : NULL;
	*socket_context = c;
	if (!c)
		return; /* without deadlines of ours */
	*c = (struct connection){.fd = info->connect_fd, .since_us = clock_mono_us()};
	LOCK_SCOPE(&s->lock);
	bool first = !s->connections;
	c->next = s->connections;
	s->connections = c;
	if (first)
		pthread_cond_signal(&s->changed);
}

static void set(struct http_server *s, struct MHD_Connection *connection, bool answering,
                bool streaming)
{
	const union MHD_ConnectionInfo *info =
	        mhd()->get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	struct connection *c = info ? info->socket_context : NULL;
	LOCK_SCOPE(&s->lock);

	if (!c)
		return;
	c->since_us = clock_mono_us();
	c->answering = answering;
	c->streaming = streaming;
}

void reaper_on_answering(struct http_server *s, struct MHD_Connection *c, bool streaming)
{
	set(s, c, true, streaming);
}

void reaper_on_answered(struct http_server *s, struct MHD_Connection *c)
{
	set(s, c, false, false);
}
