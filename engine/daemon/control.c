/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/daemon/control.h"

#include "engine/base/buf.h"
#include "engine/base/clock.h"
#include "engine/base/json.h"
#include "engine/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define CLIENTS_MAX 16
#define LINE_MAX_BYTES 65536u
#define ANSWER_MAX_BYTES (16u << 20)
#define SILENT_US (60 * US_PER_SECOND)
#define STALLED_US (10 * US_PER_SECOND)
#define WAIT_POLL_MS 5
#define TICK_MS 1000
#define STACK_BYTES ((size_t)256 << 10)

struct client {
	int fd;             /* -1: free */
	struct buf in, out; /* a line on its way in; an answer on its way out */
	size_t sent;        /* of `out` */
	int64_t active_us;  /* monotonic: it did something, or we answered */
	bool closing;       /* after `out` */
	bool waiting;       /* for one of these two */
	struct fleet_sync sync;
	bool sync_all;
	uint64_t letting_go; /* id of fleet.h; 0: it is a sync */
	int64_t wait_until_us;
};

struct control {
	struct control_options options;
	char path[CONTROL_PATH_MAX];
	char config_path[PATH_MAX];
	int64_t started_us;
	int listen_fd, stop_fd;
	dev_t dev; /* of the socket's file: it is removed only if it is still ours */
	ino_t ino;
	pthread_t thread;
	struct client clients[CLIENTS_MAX];
};

/* ---- answers ---- */

static void send_json(struct client *k, json_t *value)
{
	char *text = value ? json_dumps(value, JSON_COMPACT) : NULL;
	struct err ignored = ERR_INIT;

	json_decref(value);
	if (!text || buf_append(&k->out, text, strlen(text), &ignored) < 0 ||
	    buf_append(&k->out, "\n", 1, &ignored) < 0)
		k->closing = true;
	free(text);
}

static void send_error(struct client *k, const struct err *err)
{
	send_json(k, json_pack("{sb ss so}", "ok", 0, "kind", err_kind_name(err->kind), "error",
	                       json_text(err->msg)));
}

static void send_result(struct client *k, int rc, const struct err *err)
{
	if (rc < 0)
		send_error(k, err);
	else
		send_json(k, json_pack("{sb}", "ok", 1));
}

static json_t *json_time(int64_t time_us)
{
	char text[TIME_STR_MAX];

	if (time_us <= 0)
		return json_null();
	time_format(time_us, text);
	return json_string(text);
}

static json_t *entry_json(const struct fleet_entry *e)
{
	const struct database_status *s = &e->status;

	return json_pack("{ss so so ss so so sb sb sI so so sI sI sI sI sI sI sI}", "database",
	                 e->name, "path", json_text(e->path), "archive", json_text(e->archive),
	                 "state", database_state_name(s->state), "reason", json_text(s->reason),
	                 "since", json_time(s->since_us), "attached", (int)s->attached, "settled",
	                 (int)s->settled, "last_txid", (json_int_t)s->last_txid, "last_captured",
	                 json_time(s->last_us), "known_until", json_time(s->known_until_us),
	                 "commits", (json_int_t)s->commits, "gaps", (json_int_t)s->gaps,
	                 "queued_bytes", (json_int_t)s->queued_bytes, "taken_bytes",
	                 (json_int_t)s->taken_bytes, "syncs", (json_int_t)s->syncs, "sync_errors",
	                 (json_int_t)s->sync_errors, "sync_us", (json_int_t)s->sync_us);
}

static json_t *job_json(const struct job_status *s)
{
	return json_pack("{so so so so sI sI sb}", "job", json_text(s->job), "database",
	                 json_text(s->database), "began", json_time(s->began_us), "next",
	                 json_time(s->next_us), "succeeded", (json_int_t)s->n_ok, "failed",
	                 (json_int_t)s->n_failed, "running", (int)s->running);
}

static json_t *jobs_json(struct jobs *jobs)
{
	json_t *list = json_array();
	struct job_status s;

	for (size_t i = 0; jobs && jobs_get(jobs, i, &s); i++)
		json_array_append_new(list, job_json(&s));
	return json_pack("{sb so}", "ok", 1, "jobs", list);
}

static void answer_status(struct control *c, struct client *k)
{
	json_t *list = json_array();
	struct fleet_entry e;

	for (size_t i = 0; fleet_get(c->options.fleet, i, &e); i++)
		json_array_append_new(list, entry_json(&e));
	send_json(k, json_pack("{sb si ss sI so* so}", "ok", 1, "pid", (int)getpid(), "version",
	                       ASOF_VERSION, "uptime_s",
	                       (json_int_t)((clock_mono_us() - c->started_us) / US_PER_SECOND),
	                       "config", c->config_path[0] ? json_text(c->config_path) : NULL,
	                       "databases", list));
}

/* ---- orders ---- */

static const char *text_of(const json_t *order, const char *key)
{
	return json_string_value(json_object_get(order, key));
}

static int need(const char *text, const char *key, struct err *err)
{
	return text && *text ? 0 : err_set(err, ERR_USAGE, 0, "'%s' is missing", key);
}

static int begin_sync(struct control *c, struct client *k, const json_t *order, struct err *err)
{
	json_t *timeout = json_object_get(order, "timeout_s");
	double seconds = json_is_number(timeout) ? json_number_value(timeout) : CONTROL_SYNC_MAX_S;

	if (!(seconds >= 0 && seconds <= CONTROL_SYNC_MAX_S))
		return err_set(err, ERR_USAGE, 0, "'timeout_s' is not between 0 and %d",
		               CONTROL_SYNC_MAX_S);
	int rc = fleet_sync_begin(c->options.fleet, text_of(order, "database"), &k->sync, err);
	if (rc < 0)
		return rc;
	k->letting_go = 0;
	k->sync_all = !text_of(order, "database");
	k->waiting = json_is_true(json_object_get(order, "wait"));
	k->wait_until_us = clock_mono_us() + (int64_t)(seconds * 1e6);
	if (!k->waiting)
		fleet_sync_release(&k->sync);
	return 0;
}

static void wait_to_let_go(struct client *k, uint64_t id)
{
	k->letting_go = id;
	k->waiting = true;
	k->wait_until_us = clock_mono_us() + CONTROL_LET_GO_MAX_S * US_PER_SECOND;
}

static void let_go(struct control *c, struct client *k, bool drop, const char *database)
{
	struct fleet *f = c->options.fleet;
	struct err why = ERR_INIT;
	uint64_t id = 0;
	int rc = need(database, "database", &why);

	if (rc == 0)
		rc = drop ? fleet_drop(f, database, &id, &why)
		          : fleet_pause(f, database, &id, &why);
	if (rc < 0)
		send_error(k, &why);
	else
		wait_to_let_go(k, id);
}

static void obey(struct control *c, struct client *k, const json_t *order)
{
	const char *command = text_of(order, "command");
	const char *database = text_of(order, "database"), *path = text_of(order, "path");
	struct fleet *f = c->options.fleet;
	struct err why = ERR_INIT;
	int rc = need(command, "command", &why);

	if (rc < 0) {
		send_error(k, &why);
	} else if (strcmp(command, "status") == 0) {
		answer_status(c, k);
	} else if (strcmp(command, "jobs") == 0) {
		send_json(k, jobs_json(c->options.jobs));
	} else if (strcmp(command, "pause") == 0 || strcmp(command, "drop") == 0) {
		let_go(c, k, command[0] == 'd', database);
	} else if (strcmp(command, "resume") == 0) {
		rc = need(database, "database", &why);
		rc = rc < 0 ? rc : fleet_resume(f, database, &why);
		send_result(k, rc, &why);
	} else if (strcmp(command, "add") == 0) {
		rc = need(path, "path", &why);
		rc = rc < 0 ? rc
		            : fleet_add(f, path, text_of(order, "name"), text_of(order, "archive"),
		                        &why);
		send_result(k, rc, &why);
	} else if (strcmp(command, "sync") == 0) {
		rc = begin_sync(c, k, order, &why);
		if (rc < 0 || !k->waiting)
			send_result(k, rc, &why);
	} else if (strcmp(command, "reload") == 0) {
		c->options.reload(c->options.ctx);
		send_result(k, 0, &why);
	} else {
		err_set(&why, ERR_USAGE, 0, "unknown command '%.40s'", command);
		send_error(k, &why);
	}
}

static void take_line(struct control *c, struct client *k, const char *line, size_t len)
{
	struct err why = ERR_INIT;
	json_error_t error;
	json_t *order = json_loadb(line, len, JSON_REJECT_DUPLICATES, &error);

	if (json_is_object(order)) {
		obey(c, k, order);
	} else {
		err_set(&why, ERR_USAGE, 0, "not a JSON object: %.100s",
		        order ? "another value" : error.text);
		send_error(k, &why);
		k->closing = true;
	}
	json_decref(order);
}

/* ---- clients ---- */

static void close_client(struct client *k)
{
	if (k->fd >= 0)
		close(take_fd(&k->fd));
	buf_release(&k->in);
	buf_release(&k->out);
	fleet_sync_release(&k->sync);
	k->waiting = k->closing = false;
	k->sent = 0;
}

static void too_many(int fd)
{
	static const char text[] = "{\"ok\": false, \"kind\": \"busy\", \"error\": \"too many "
	                           "clients, try again\"}\n";
	ssize_t n = send(fd, text, sizeof(text) - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
	(void)n; /* it will find out */
}

static bool may_speak(int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 &&
	       (peer.uid == geteuid() || peer.uid == 0);
}

static void accept_clients(struct control *c)
{
	for (int i = 0; i < CLIENTS_MAX; i++) {
		int fd = accept4(c->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		struct client *free_one = NULL;
		if (fd < 0)
			return;
		for (int j = 0; j < CLIENTS_MAX && !free_one; j++)
			if (c->clients[j].fd < 0)
				free_one = &c->clients[j];
		if (!may_speak(fd) || !free_one) {
			if (!free_one)
				too_many(fd);
			close(fd);
			continue;
		}
		*free_one = (struct client){.fd = fd, .active_us = clock_mono_us()};
		free_one->in.max_bytes = LINE_MAX_BYTES;
		free_one->out.max_bytes = ANSWER_MAX_BYTES;
	}
}

/* Whole lines in `in`, one at a time: the next when the answer to the last has gone. */
static void take_lines(struct control *c, struct client *k)
{
	while (!k->waiting && !k->closing && k->out.len == 0 && k->in.len) {
		const uint8_t *end = memchr(k->in.data, '\n', k->in.len);
		if (!end)
			return;
		size_t len = (size_t)(end - k->in.data);
		take_line(c, k, (const char *)k->in.data, len);
		k->in.len -= len + 1;
		memmove(k->in.data, k->in.data + len + 1, k->in.len);
	}
}

static void read_client(struct control *c, struct client *k)
{
	struct err ignored = ERR_INIT;
	char part[4096];

	ssize_t n = recv(k->fd, part, sizeof(part), 0);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0 || buf_append(&k->in, part, (size_t)n, &ignored) < 0) {
		/* Gone, or a line without an end. */
		close_client(k);
		return;
	}
	k->active_us = clock_mono_us();
	take_lines(c, k);
}

static void write_client(struct control *c, struct client *k)
{
	ssize_t n = send(k->fd, k->out.data + k->sent, k->out.len - k->sent, MSG_NOSIGNAL);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0) {
		close_client(k);
		return;
	}
	k->active_us = clock_mono_us();
	k->sent += (size_t)n;
	if (k->sent < k->out.len)
		return;
	k->sent = 0;
	buf_release(&k->out);
	if (k->closing)
		close_client(k);
	else
		take_lines(c, k);
}

static int ask_sync(struct control *c, struct client *k, struct err *err)
{
	int rc = fleet_sync(c->options.fleet, &k->sync, err);

	if (rc == 0 && k->sync_all)
		rc = fleet_sync_left_out(c->options.fleet, err);
	return rc;
}

static int ask_let_go(struct control *c, struct client *k, struct err *err)
{
	if (fleet_let_go(c->options.fleet, k->letting_go))
		return 0;
	return err_set(err, ERR_BUSY, 0, "not yet");
}

static void poll_wait(struct control *c, struct client *k)
{
	struct err why = ERR_INIT;

	int rc = k->letting_go ? ask_let_go(c, k, &why) : ask_sync(c, k, &why);
	if (err_kind_of(rc) == ERR_BUSY) {
		if (clock_mono_us() < k->wait_until_us)
			return;
		rc = err_set(&why, ERR_BUSY, 0, "%s, time is up",
		             k->letting_go ? "its last commits are still being captured"
		                           : "not everything is captured yet");
	}
	k->waiting = false;
	k->active_us = clock_mono_us();
	fleet_sync_release(&k->sync);
	send_result(k, rc, &why);
}

static void check_patience(struct client *k, int64_t now_us)
{
	int64_t since_us = now_us - k->active_us;

	if (!k->waiting && since_us > (k->out.len ? STALLED_US : SILENT_US))
		close_client(k);
}

/* ---- the thread ---- */

/* A client that has an answer to take is not read from: it cannot make us store more. */
static short wants(const struct client *k)
{
	return k->out.len ? POLLOUT : k->closing ? 0 : POLLIN;
}

static void serve(struct control *c, const struct pollfd *fds)
{
	int64_t now_us = clock_mono_us();

	for (int i = 0; i < CLIENTS_MAX; i++) {
		struct client *k = &c->clients[i];
		if (k->fd < 0 || fds[i].fd != k->fd)
			continue;
		if (fds[i].revents & POLLOUT)
			write_client(c, k);
		else if (fds[i].revents & (POLLIN | POLLHUP | POLLERR))
			read_client(c, k);
		if (k->fd >= 0 && k->waiting)
			poll_wait(c, k);
		if (k->fd >= 0 && k->closing && k->out.len == 0)
			close_client(k);
		if (k->fd >= 0)
			check_patience(k, now_us);
	}
}

static void *control_main(void *arg)
{
	struct control *c = arg;
	struct pollfd fds[CLIENTS_MAX + 2];

	for (;;) {
		int timeout_ms = -1;
		for (int i = 0; i < CLIENTS_MAX; i++) {
			struct client *k = &c->clients[i];
			fds[i] = (struct pollfd){.fd = k->fd, .events = wants(k)};
			if (k->fd >= 0 && timeout_ms != WAIT_POLL_MS)
				timeout_ms = k->waiting ? WAIT_POLL_MS : TICK_MS;
		}
		fds[CLIENTS_MAX] = (struct pollfd){.fd = c->listen_fd, .events = POLLIN};
		fds[CLIENTS_MAX + 1] = (struct pollfd){.fd = c->stop_fd, .events = POLLIN};
		if (poll(fds, CLIENTS_MAX + 2, timeout_ms) < 0 && errno != EINTR)
			clock_sleep_us(100000);
		if (fds[CLIENTS_MAX + 1].revents)
			return NULL;
		serve(c, fds);
		if (fds[CLIENTS_MAX].revents)
			accept_clients(c);
	}
}

/* ---- life ---- */

static int set_address(const char *path, struct sockaddr_un *a, struct err *err)
{
	*a = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (strlen(path) >= sizeof(a->sun_path))
		return err_set(err, ERR_USAGE, 0,
		               "control socket '%.120s': the path is longer than %zu bytes (set "
		               "`socket:` to a shorter one)",
		               path, sizeof(a->sun_path) - 1);
	memcpy(a->sun_path, path, strlen(path) + 1);
	return 0;
}

int control_connect(const char *path, int *ret_fd, struct err *err)
{
	struct sockaddr_un a;

	int rc = set_address(path, &a, err);
	if (rc < 0)
		return rc;
	cleanup_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_set(err, ERR_IO, errno, "control socket");
	if (connect(fd, (const struct sockaddr *)&a, sizeof(a)) < 0) {
		bool nobody = errno == ENOENT || errno == ECONNREFUSED || errno == ENOTDIR;
		return err_set(err, nobody ? ERR_NOT_FOUND : ERR_IO, errno, "control socket '%s'",
		               path);
	}
	*ret_fd = take_fd(&fd);
	return 0;
}

/* What a daemon that was killed left behind is in the way; one that lives is not to be disturbed. */
static int clear_place(const char *path, struct err *err)
{
	struct err why = ERR_INIT;
	struct stat st;
	int fd = -1;

	if (lstat(path, &st) < 0)
		return 0;
	if (!S_ISSOCK(st.st_mode))
		return err_set(err, ERR_EXISTS, 0, "control socket '%s': something else lies there",
		               path);
	if (control_connect(path, &fd, &why) == 0) {
		close(fd);
		return err_set(err, ERR_BUSY, 0,
		               "another `asof run` listens on '%s' (stop that one first)", path);
	}
	if (why.kind != ERR_NOT_FOUND)
		return err_copy(err, &why);
	unlink(path);
	return 0;
}

static int open_socket(struct control *c, struct err *err)
{
	struct sockaddr_un a;
	struct stat st;

	int rc = set_address(c->options.path, &a, err);
	if (rc == 0)
		rc = clear_place(c->options.path, err);
	if (rc < 0)
		return rc;
	snprintf(c->path, sizeof(c->path), "%s", c->options.path);
	c->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* The mode of the socket is that of its inode at bind(): no moment with a wider one. */
	if (c->listen_fd >= 0)
		fchmod(c->listen_fd, 0600);
	if (c->listen_fd < 0 || bind(c->listen_fd, (const struct sockaddr *)&a, sizeof(a)) < 0 ||
	    chmod(c->path, 0600) < 0 || listen(c->listen_fd, CLIENTS_MAX) < 0)
		return err_set(err, ERR_IO, errno, "control socket '%s'", c->options.path);
	if (lstat(c->path, &st) == 0) {
		c->dev = st.st_dev;
		c->ino = st.st_ino;
	}
	c->stop_fd = eventfd(0, EFD_CLOEXEC);
	return c->stop_fd >= 0 ? 0 : err_set(err, ERR_IO, errno, "eventfd");
}

static void release(struct control *c)
{
	struct stat st;

	for (int i = 0; i < CLIENTS_MAX; i++)
		close_client(&c->clients[i]);
	if (c->ino && lstat(c->path, &st) == 0 && st.st_dev == c->dev && st.st_ino == c->ino)
		unlink(c->path);
	if (c->listen_fd >= 0)
		close(c->listen_fd);
	if (c->stop_fd >= 0)
		close(c->stop_fd);
	free(c);
}

int control_new(const struct control_options *options, struct control **ret, struct err *err)
{
	struct control *c = calloc(1, sizeof(*c));
	pthread_attr_t attr;

	if (!c)
		return err_set(err, ERR_NOMEM, 0, "no memory");
	c->options = *options;
	c->listen_fd = c->stop_fd = -1;
	c->started_us = clock_mono_us();
	if (options->config_path)
		snprintf(c->config_path, sizeof(c->config_path), "%s", options->config_path);
	for (int i = 0; i < CLIENTS_MAX; i++)
		c->clients[i].fd = -1;
	int rc = open_socket(c, err);
	if (rc == 0) {
		pthread_attr_init(&attr);
		pthread_attr_setstacksize(&attr, STACK_BYTES);
		if (pthread_create(&c->thread, &attr, control_main, c) != 0)
			rc = err_set(err, ERR_NOMEM, 0, "cannot start a thread");
		pthread_attr_destroy(&attr);
	}
	if (rc < 0) {
		release(c);
		return rc;
	}
	pthread_setname_np(c->thread, "control-socket");
	*ret = c;
	return 0;
}

void control_free(struct control *c)
{
	uint64_t one = 1;

	if (!c)
		return;
	ssize_t n = write(c->stop_fd, &one, sizeof(one));
	(void)n;
	pthread_join(c->thread, NULL);
	release(c);
}
