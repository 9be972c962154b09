/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One inotify instance for many captures, as systems give out few (128 for each user).
 *
 * A thread reads events and raises a flag in each capture that they concern; then it writes
 * to that capture's eventfd, if the flag was down.  A capture clears its eventfd first and the
 * flag next, so an event either finds the flag down and wakes, or comes before the look that
 * follows.  A folder with several databases has one watch descriptor, hence several entries.
 */
#include "engine/base/log.h"
#include "engine/capture/internal.h"

#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>

#define BUCKETS 1024

struct entry {
	struct entry *next;
	int wd;
	struct watch *watch;
	const char *name; /* of a folder's watch: names that begin so concern this capture */
};

struct capture_hub {
	int inotify_fd, stop_fd;
	pthread_t thread;
	pthread_mutex_t lock; /* guards buckets; watches live while they are in there */
	struct entry *buckets[BUCKETS];
};

static struct entry **bucket(struct capture_hub *hub, int wd)
{
	return &hub->buckets[(unsigned)wd % BUCKETS];
}

static void raise_flag(struct watch *w, bool dir)
{
	atomic_bool *flag = dir ? &w->hub_dir : &w->hub_written;

	if (!atomic_exchange(flag, true))
		watch_wake(w);
}

static void dispatch(struct capture_hub *hub, const struct inotify_event *e)
{
	LOCK_SCOPE(&hub->lock);
	if (e->mask & IN_Q_OVERFLOW) { /* whom it concerned is lost */
		for (size_t i = 0; i < BUCKETS; i++)
			for (struct entry *x = hub->buckets[i]; x; x = x->next)
				raise_flag(x->watch, x->name != NULL);
		return;
	}
	for (struct entry *x = *bucket(hub, e->wd); x; x = x->next)
		if (x->wd == e->wd &&
		    (!x->name || (e->len && strncmp(e->name, x->name, strlen(x->name)) == 0)))
			raise_flag(x->watch, x->name != NULL);
}

static void *hub_thread(void *arg)
{
	struct capture_hub *hub = arg;
	_Alignas(struct inotify_event) char buf[4096];
	struct pollfd fds[2] = {{.fd = hub->inotify_fd, .events = POLLIN},
	                        {.fd = hub->stop_fd, .events = POLLIN}};

	while (!fds[1].revents) {
		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			break;
		ssize_t n = read(hub->inotify_fd, buf, sizeof(buf));
		for (ssize_t at = 0; at < n;) {
			const struct inotify_event *e = (const void *)(buf + at);
			at += (ssize_t)(sizeof(*e) + e->len);
			dispatch(hub, e);
		}
	}
	return NULL;
}

static void release(struct capture_hub *hub)
{
	if (hub->inotify_fd >= 0)
		close(hub->inotify_fd);
	if (hub->stop_fd >= 0)
		close(hub->stop_fd);
	pthread_mutex_destroy(&hub->lock);
	free(hub);
}

int capture_hub_new(struct capture_hub **ret, struct err *err)
{
	struct capture_hub *hub = calloc(1, sizeof(*hub));

	if (!hub)
		return err_set(err, ERR_NOMEM, 0, "capture: no memory");
	pthread_mutex_init(&hub->lock, NULL);
	hub->stop_fd = eventfd(0, EFD_CLOEXEC);
	hub->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (hub->stop_fd < 0 || hub->inotify_fd < 0) {
		int saved = errno;
		release(hub);
		return err_set(err, ERR_IO, saved, "capture: inotify");
	}
	int rc = pthread_create(&hub->thread, NULL, hub_thread, hub);
	if (rc) {
		release(hub);
		return err_set(err, ERR_IO, rc, "capture: thread");
	}
	*ret = hub;
	return 0;
}

void capture_hub_free(struct capture_hub *hub)
{
	uint64_t one = 1;

	if (!hub)
		return;
	ssize_t n = write(hub->stop_fd, &one, sizeof(one));
	(void)n;
	pthread_join(hub->thread, NULL);
	release(hub);
}

int hub_add(struct capture_hub *hub, const char *path, uint32_t mask, struct watch *w,
            const char *name)
{
	struct entry *x = malloc(sizeof(*x));

	if (!x)
		return -1;
	LOCK_SCOPE(&hub->lock); /* before the watch exists: its first event finds the entry */
	*x = (struct entry){.watch = w, .name = name};
	x->wd = inotify_add_watch(hub->inotify_fd, path, mask);
	if (x->wd < 0) {
		free(x);
		return -1;
	}
	struct entry **at = bucket(hub, x->wd);
	x->next = *at;
	*at = x;
	return x->wd;
}

void hub_remove(struct capture_hub *hub, int wd, const struct watch *w)
{
	bool others = false;

	LOCK_SCOPE(&hub->lock);
	for (struct entry **at = bucket(hub, wd); *at;) {
		struct entry *x = *at;
		if (x->wd == wd && x->watch == w) {
			*at = x->next;
			free(x);
			continue;
		}
		others = others || x->wd == wd;
		at = &x->next;
	}
	if (!others)
		inotify_rm_watch(hub->inotify_fd, wd);
}
