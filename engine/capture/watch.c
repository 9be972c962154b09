/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When to look.
 *
 * An event on the -wal fires at the write; the commit is published later, by a store into
 * mapped memory that raises nothing.  But a writer holds the WRITE lock from before its first
 * frame until after publishing.  So: take in events, ask for the lock, then read the header.
 * Nobody held it and the header shows nothing new: every later commit raises an event after
 * the ones taken in, and it is safe to sleep.  Otherwise look again, ever more slowly.
 *
 * Commits that come in quick succession are polled for by the clock alone: events would cost
 * both sides more than they tell.  So are those that come steadily, some tens a second: an event
 * wakes us out of the application's write(), which pays for that; a clock that ticks every 2 ms
 * is paid by us alone.
 */
#include "engine/base/clock.h"
#include "engine/capture/internal.h"

#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>

#define BACKOFF_MIN_US 50
#define HOT_US 50
#define FAST_GAP_US (5 * MS)
#define GAP_MAX_US (100 * MS)
#define STEADY_GAP_US (50 * MS)
#define STEADY_US (4 * STEADY_GAP_US)
#define STEADY_POLL_US (2 * MS)
#define STEADY_FLOAT_US 200 /* the reset is near */
#define POLL_US (1 * MS)
/* Nobody has written for long: events will tell, and a thousand of these make a load. */
#define IDLE_US (20 * US_PER_SECOND)
#define IDLE_LOOK_US (1900 * MS)

int watch_open(struct watch *w, const struct capture_options *options, struct err *err)
{
	w->hub = options->hub;
	w->wake = options->wake;
	w->wake_ctx = options->wake_ctx;
	w->inotify_fd = w->wake_fd = -1;
	w->wal_wd = w->db_wd = w->dir_wd = -1;
	w->gap_us = GAP_MAX_US;
	w->backoff_us = BACKOFF_MIN_US;
	if (w->wake)
		return 0;
	w->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (w->wake_fd < 0)
		return err_set(err, ERR_IO, errno, "capture: eventfd");
	/* Where the system has no more instances to give, polling must do. */
	if (!w->hub)
		w->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	return 0;
}

void watch_close(struct watch *w)
{
	if (w->wake_fd >= 0)
		close(take_fd(&w->wake_fd));
	if (w->inotify_fd >= 0)
		close(take_fd(&w->inotify_fd));
}

static const char *file_name(const struct capture *c)
{
	return strrchr(c->at.path, '/') + 1;
}

static bool has_events(const struct watch *w)
{
	return w->hub || w->inotify_fd >= 0;
}

static int add_watch(struct capture *c, const char *path, uint32_t mask, const char *name)
{
	struct watch *w = &c->watch;

	return w->hub ? hub_add(w->hub, path, mask, w, name)
	              : inotify_add_watch(w->inotify_fd, path, mask);
}

static int add_watch_fd(struct capture *c, int fd, uint32_t mask)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return add_watch(c, path, mask, NULL);
}

static void remove_watch(struct watch *w, int *wd)
{
	if (*wd >= 0 && w->hub)
		hub_remove(w->hub, *wd, w);
	else if (*wd >= 0 && w->inotify_fd >= 0)
		inotify_rm_watch(w->inotify_fd, *wd);
	*wd = -1;
}

/* A watch makes every write of the application slower: none while commits come quickly. */
static void ignore_writes(struct capture *c)
{
	remove_watch(&c->watch, &c->watch.wal_wd);
	remove_watch(&c->watch, &c->watch.db_wd);
}

void watch_detach(struct capture *c)
{
	ignore_writes(c);
	remove_watch(&c->watch, &c->watch.dir_wd);
}

static void give_up_events(struct capture *c)
{
	watch_detach(c);
	c->watch.hub = NULL;
	if (c->watch.inotify_fd >= 0)
		close(take_fd(&c->watch.inotify_fd));
}

static void listen_to_writes(struct capture *c)
{
	struct watch *w = &c->watch;

	if (w->wal_wd >= 0 || !has_events(w))
		return;
	w->wal_wd = add_watch_fd(c, c->at.wal_fd, IN_MODIFY);
	w->db_wd = add_watch_fd(c, c->at.db_fd, IN_MODIFY | IN_ATTRIB);
	if (w->wal_wd < 0 || w->db_wd < 0)
		give_up_events(c);
}

void watch_attach(struct capture *c)
{
	struct watch *w = &c->watch;
	char dir[PATH_MAX];

	w->event_us = clock_mono_us();
	w->backoff_us = BACKOFF_MIN_US;
	w->gap_us = GAP_MAX_US;
	w->dir_changed = false;
	if (!has_events(w))
		return;
	snprintf(dir, sizeof(dir), "%s", c->at.path);
	char *slash = strrchr(dir, '/');
	if (slash)
		slash[slash == dir] = 0;
	w->dir_wd = add_watch(c, dir, IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO,
	                      file_name(c));
	if (w->dir_wd < 0)
		give_up_events(c);
	else
		listen_to_writes(c);
}

void watch_wake(const struct watch *w)
{
	uint64_t one = 1;

	if (w->wake) {
		w->wake(w->wake_ctx);
		return;
	}
	ssize_t n = write(w->wake_fd, &one, sizeof(one));
	(void)n; /* full: it is awake already */
}

void watch_note_commits(struct capture *c, uint64_t n_commits, int64_t now_us)
{
	struct watch *w = &c->watch;

	if (!n_commits)
		return;
	int64_t gap_us = (now_us - c->active_us) / (int64_t)n_commits;
	if (gap_us > GAP_MAX_US)
		gap_us = GAP_MAX_US;
	w->gap_us = (3 * w->gap_us + gap_us) / 4;
	c->active_us = now_us;
	w->event_us = now_us;
	w->backoff_us = BACKOFF_MIN_US;
}

static void note_write(struct watch *w)
{
	w->event_us = clock_mono_us();
	w->backoff_us = BACKOFF_MIN_US;
}

static void take_events(struct capture *c)
{
	struct watch *w = &c->watch;
	_Alignas(struct inotify_event) char buf[4096];
	const char *name = file_name(c);
	ssize_t n;

	if (w->hub) {
		if (atomic_exchange(&w->hub_written, false))
			note_write(w);
		if (atomic_exchange(&w->hub_dir, false))
			w->dir_changed = true;
		return;
	}
	while ((n = read(w->inotify_fd, buf, sizeof(buf))) > 0) {
		for (ssize_t at = 0; at < n;) {
			const struct inotify_event *e = (const void *)(buf + at);
			at += (ssize_t)(sizeof(*e) + e->len);
			bool lost = e->mask & IN_Q_OVERFLOW;
			if (lost || e->wd == w->wal_wd || e->wd == w->db_wd)
				note_write(w);
			if (lost || (e->wd == w->dir_wd && e->len &&
			             strncmp(e->name, name, strlen(name)) == 0))
				w->dir_changed = true;
		}
	}
}

bool watch_is_fast(const struct capture *c, int64_t now_us)
{
	return now_us - c->active_us < ACTIVE_US && c->watch.gap_us < FAST_GAP_US;
}

static bool is_steady(const struct capture *c, int64_t now_us)
{
	return now_us - c->active_us < STEADY_US && c->watch.gap_us < STEADY_GAP_US;
}

void watch_before_look(struct capture *c)
{
	struct watch *w = &c->watch;
	bool was_quiet = w->quiet && c->captured;
	int64_t event_us = w->event_us;

	w->quiet = false;
	if (is_steady(c, clock_mono_us())) {
		ignore_writes(c);
		return;
	}
	if (w->wal_wd < 0) {
		was_quiet = false;
		listen_to_writes(c);
	}
	if (!has_events(w))
		return;
	take_events(c);
	w->quiet = (was_quiet && w->event_us == event_us) || !capture_write_locked(c);
}

void watch_sleep(struct capture *c, int64_t us)
{
	struct watch *w = &c->watch;
	struct pollfd fds[2] = {{.fd = w->wake_fd, .events = POLLIN},
	                        {.fd = w->inotify_fd, .events = POLLIN}};
	struct timespec ts = {.tv_sec = us / US_PER_SECOND, .tv_nsec = us % US_PER_SECOND * 1000};

	if (us > 0)
		ppoll(fds, w->take_events && w->inotify_fd >= 0 ? 2 : 1, &ts, NULL);
	if (fds[0].revents) {
		uint64_t count;
		ssize_t n = read(w->wake_fd, &count, sizeof(count));
		(void)n;
	}
}

/* Commits come quickly: how long until a look is worth it. */
static int64_t fast_wait_us(const struct capture *c)
{
	const struct wal_index *index = &c->last.index;
	bool holding = c->mark > 0;

	if (c->parked || (holding && index->max_frame > RELEASE_FRAMES))
		return POLL_US;
	if (holding && index->max_frame < HOT_FRAMES && index->n_backfill == 0)
		return POLL_US;
	if (!holding && index->max_frame < RELEASE_FRAMES)
		return HOT_US; /* the reset is near, and every look shortens what it may hide */
	int64_t us = c->watch.gap_us / 8;
	return us < HOT_US ? HOT_US : us > POLL_US ? POLL_US : us;
}

static bool checkpoint_runs(const struct capture *c)
{
	const struct wal_index *index = &c->last.index;

	return index->n_backfill_attempted == index->max_frame &&
	       index->n_backfill < index->max_frame && capture_checkpoint_locked(c);
}

/* A writer is at work, or a checkpoint whose end no event tells. */
static int64_t unsettled_wait_us(struct capture *c, int64_t now_us)
{
	struct watch *w = &c->watch;
	int64_t since_us = now_us - w->event_us;

	if (since_us > US_PER_SECOND)
		return 100 * MS;
	if (since_us > 50 * MS)
		return 5 * MS;
	int64_t us = w->backoff_us;
	w->backoff_us = us * 2 > POLL_US ? POLL_US : us * 2;
	return us;
}

int64_t watch_next(struct capture *c)
{
	struct watch *w = &c->watch;
	int64_t now_us = clock_mono_us();

	w->take_events = false;
	if (c->options.test_poll_ms)
		return c->options.test_poll_ms * MS;
	if (c->target_pending)
		return c->sink_busy ? POLL_US : 0;
	if (c->due.set || !c->captured)
		return c->due.set ? POLL_US : BACKOFF_MIN_US * 2;
	if (c->options.strict && c->mark && checkpoint_runs(c))
		return HOT_US; /* PARK can be had at its end only */
	if (watch_is_fast(c, now_us))
		return fast_wait_us(c);
	if (c->foreign_since_us) {
		w->take_events = true;
		return FOREIGN_LOCK_LOOK_US;
	}
	bool settled = c->mark || c->parked;
	if (is_steady(c, now_us))
		return settled ? STEADY_POLL_US : STEADY_FLOAT_US;
	if (w->quiet && settled) {
		bool idle = now_us - w->event_us > IDLE_US;
		int64_t us = c->slow_look_us + (idle ? IDLE_LOOK_US : SLOW_LOOK_US) - now_us;
		w->take_events = true;
		return us < MS ? MS : us;
	}
	if (!has_events(w)) {
		int64_t since_us = now_us - w->event_us;
		return since_us < ACTIVE_US       ? POLL_US
		       : since_us < US_PER_SECOND ? 10 * MS
		                                  : 100 * MS;
	}
	w->take_events = w->quiet || now_us - w->event_us > ACTIVE_US;
	return unsettled_wait_us(c, now_us);
}
