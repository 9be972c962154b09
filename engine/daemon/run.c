/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/daemon/run.h"
#include "engine/daemon/shipping.h"

#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/base/log.h"
#include "engine/daemon/control.h"
#include "engine/daemon/first_restore.h"
#include "engine/daemon/fleet.h"
#include "engine/daemon/jobs.h"
#include "engine/daemon/mounter.h"
#include "engine/daemon/notify.h"
#include "engine/daemon/observer.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>

#define TICK_MS 1000
#define BUSY_TICK_MS 10
#define STATUS_US (5 * US_PER_SECOND)
/* Whoever waits for us to be ready does not wait for one database that hangs. */
#define READY_US (10 * US_PER_SECOND)
/* Of an archive that cannot be written, --once waits no longer. */
#define ONCE_TROUBLE_US (20 * US_PER_SECOND)

#define SHIP_LOOK_US (5 * US_PER_SECOND)
/* At the end a destination that does not answer is waited for no longer. */
#define SHIP_END_US (5 * US_PER_SECOND)

enum phase { STARTING, RUNNING, EXEC_ENDING, STOPPING };

struct run {
	const struct run_options *options;
	struct config *config;
	struct pools *pools;
	struct fleet *fleet;
	struct shipping *shipping;
	int64_t shipping_us; /* monotonic: looked at last */
	struct control *control;
	struct jobs *jobs;
	struct mounter mounter;
	struct observer observer;
	char control_path[PATH_MAX]; /* "" none */
	struct notify notify;
	struct child exec;
	bool exec_started, exec_ended;
	int exec_status;
	int signal_fd, wake_fd;
	enum phase phase;
	int64_t started_us, status_us, watchdog_us; /* monotonic */
	bool ready;
	/* --once */
	struct fleet_sync sync;
	bool syncing, synced;
	int64_t sync_us;
	struct err result;
};

/* ---- configuration ---- */

static void say_messages(const struct config_report *report)
{
	char line[CONFIG_LINE_MAX];

	for (size_t i = 0; i < report->n; i++) {
		const struct config_message *m = &report->messages[i];
		config_message_format(m, line);
		log_write(m->severity == CONFIG_ERROR ? LOG_ERROR : LOG_WARN, "config", "%s", line);
	}
}

static int load(const struct run_options *o, struct config **ret, struct err *err)
{
	cleanup_config_report struct config_report report = CONFIG_REPORT_INIT;
	int rc = config_load(&o->config, ret, &report, err);

	say_messages(&report);
	return rc;
}

/* One that cannot be opened changes nothing. */
static void apply_log(const struct run *r)
{
	const struct config *c = r->config;
	struct err err = ERR_INIT;

	if (!r->options->log_level_given)
		log_set_level(c->log_level);
	log_set_format(c->log_format);
	if (!c->log_path)
		log_set_fd(STDERR_FILENO);
	else if (log_set_file(c->log_path, c->log_max_bytes, c->log_keep, &err))
		log_error("run", "%s", err.msg);
}

/* Where nobody named an archive, the place that was chosen is said. */
static void make_state_folders(const struct config *c)
{
	for (size_t i = 0; i < c->n_databases; i++) {
		const struct config_database *d = &c->databases[i];
		struct err why = ERR_INIT;
		if (!d->archive_is_state)
			continue;
		if (file_make_dirs(d->archive, &why) < 0)
			log_error("run", "archive '%s' cannot be made: %s", d->archive, why.msg);
		else
			log_info("run", "no archive is named, history is kept in %s db=%s",
			         d->archive, d->path ? d->path : d->dir);
	}
}

/* What is believed to be copied and is not would be the worst of surprises. */
static void say_destinations(const struct config *c)
{
	for (size_t i = 0; i < c->n_databases; i++)
		for (size_t k = 0; k < c->databases[i].n_destinations; k++) {
			const struct config_destination *d = &c->databases[i].destinations[k];
			if (d->not_configured)
				log_warn("run", "destination not configured name=%s db=%s: %s",
				         d->name,
				         c->databases[i].path ? c->databases[i].path
				                              : c->databases[i].dir,
				         d->not_configured);
		}
}

static void apply(struct run *r)
{
	struct config_mount mount = r->config->mount;

	apply_log(r);
	make_state_folders(r->config);
	say_destinations(r->config);
	fleet_apply(r->fleet, r->config);
	shipping_apply(r->shipping, r->fleet);
	jobs_apply(r->jobs, r->config);
	if (!mount.archive)
		mount.archive = r->config->archive;
	if (!mount.archive && r->config->n_databases)
		mount.archive = r->config->databases[0].archive;
	mounter_apply(&r->mounter, &mount);
	if (!r->options->once)
		observer_apply(&r->observer, r->config);
}

static void reload(struct run *r)
{
	struct config *next = NULL;
	struct err why = ERR_INIT;

	notify_reloading(&r->notify);
	if (load(r->options, &next, &why) < 0) {
		log_error("run", "the configuration was not loaded, the former one stays: %s",
		          why.msg);
	} else {
		struct config *former = r->config;
		r->config = next;
		apply(r);
		config_free(former);
		log_info("run", "configuration loaded databases=%zu", next->n_databases);
	}
	notify_ready(&r->notify);
}

/* From the control socket's thread. */
static void ask_reload(void *ctx)
{
	struct run *r = ctx;
	uint64_t one = 1;
	ssize_t n = write(r->wake_fd, &one, sizeof(one));
	(void)n;
}

/* ---- start ---- */

static int open_signals(struct run *r, struct err *err)
{
	static const int signals[] = {SIGTERM, SIGINT,  SIGHUP,   SIGCHLD,
	                              SIGUSR1, SIGUSR2, SIGWINCH, SIGQUIT};
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < sizeof(signals) / sizeof(*signals); i++)
		sigaddset(&set, signals[i]);
	/* Before there are threads: they inherit it. */
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	r->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	r->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return r->signal_fd >= 0 && r->wake_fd >= 0 ? 0 : err_set(err, ERR_IO, errno, "signalfd");
}

/* See control.h; false: there is no place. */
static bool control_place(const struct config *c, char path[PATH_MAX])
{
	const char *runtime = getenv("RUNTIME_DIRECTORY");
	const char *archive = c->archive       ? c->archive
	                      : c->n_databases ? c->databases[0].archive
	                                       : NULL;

	if (c->socket)
		snprintf(path, PATH_MAX, "%s", c->socket);
	else if (runtime && runtime[0] == '/')
		snprintf(path, PATH_MAX, "%.*s/" CONTROL_NAME, (int)strcspn(runtime, ":"), runtime);
	else if (archive)
		snprintf(path, PATH_MAX, "%s/" CONTROL_NAME_IN_ARCHIVE, archive);
	else
		return false;
	return true;
}

/* Another daemon at that place is an error; any other trouble costs the orders, not the data. */
static int open_control(struct run *r, struct err *err)
{
	char path[PATH_MAX], dir[PATH_MAX];
	struct err why = ERR_INIT;
	const struct control_options o = {.path = path,
	                                  .fleet = r->fleet,
	                                  .jobs = r->jobs,
	                                  .reload = ask_reload,
	                                  .ctx = r,
	                                  .config_path = r->config->path};

	if (!control_place(r->config, path))
		return 0;
	memcpy(dir, path, sizeof(dir));
	char *slash = strrchr(dir, '/');
	if (slash && slash != dir)
		*slash = 0;
	cleanup_fd int fd = -1;
	int rc = file_open_dir(AT_FDCWD, dir, true, &fd, &why);
	if (rc == 0)
		rc = control_new(&o, &r->control, &why);
	if (rc == 0)
		memcpy(r->control_path, path, sizeof(path));
	if (rc == 0 || why.kind == ERR_BUSY)
		return rc < 0 ? err_copy(err, &why) : 0;
	log_warn("run", "no control socket: %s", why.msg);
	return 0;
}

static int start(struct run *r, struct err *err)
{
	struct pools_options po = {.threads = r->config->limits.threads,
	                           .queue_bytes = r->config->limits.memory_bytes / 2};

	notify_open(&r->notify);
	int rc = open_signals(r, err);
	if (rc == 0)
		rc = first_restore(r->config, err);
	if (rc == 0)
		rc = pools_new(&po, &r->pools, err);
	if (rc == 0)
		rc = fleet_new(r->pools, &r->fleet, err);
	if (rc == 0)
		rc = shipping_new(&r->shipping, err);
	if (rc == 0)
		fleet_on_news(r->fleet, shipping_news, r->shipping);
	if (rc == 0)
		rc = jobs_new(r->options->program, r->options->config.env_path, &r->jobs, err);
	if (rc == 0 && !r->options->once)
		rc = open_control(r, err);
	if (rc < 0)
		return rc;
	mounter_init(&r->mounter, r->options->program);
	observer_init(&r->observer, r->options->program, &r->options->config, r->control_path);
	apply(r);
	if (r->config->n_databases == 0)
		log_warn("run", "the configuration names no database");
	return 0;
}

/* ---- the application ---- */

static const char *exec_command(const struct run *r)
{
	return r->options->exec ? r->options->exec : r->config->exec;
}

static void start_exec(struct run *r)
{
	const char *command = r->options->once ? NULL : exec_command(r);
	const char *argv[] = {"/bin/sh", "-c", command, NULL};
	const struct child_options o = {.stdout_fd = -1};
	struct err why = ERR_INIT;

	if (!command || r->exec_started)
		return;
	r->exec_started = true;
	if (child_start(&r->exec, &o, argv, &why) == 0) {
		log_info("run", "application started pid=%d", (int)r->exec.pid);
		return;
	}
	log_error("run", "application not started: %s", why.msg);
	r->exec_ended = true;
	r->exec_status = 127;
}

/* Its last commit is captured by the orderly stop that follows. */
static void step_exec(struct run *r)
{
	char text[CHILD_STATUS_MAX];
	int status = 0;

	if (!r->exec.pid || !child_ended(&r->exec, &status))
		return;
	child_describe(status, text);
	log_info("run", "application %s", text);
	r->exec_ended = true;
	r->exec_status = child_exit_status(status);
}

/* ---- stopping ---- */

static void begin_to_stop(struct run *r)
{
	if (r->phase == STOPPING)
		return;
	r->phase = STOPPING;
	notify_stopping(&r->notify);
	jobs_stop(r->jobs);
	mounter_stop(&r->mounter);
	observer_stop(&r->observer);
	fleet_stop(r->fleet);
}

static bool is_stopped(struct run *r)
{
	fleet_stop(r->fleet);
	if (fleet_stopped(r->fleet)) /* the last commits are captured */
		shipping_end(r->shipping, SHIP_END_US);
	return fleet_stopped(r->fleet) && mounter_stopped(&r->mounter) &&
	       observer_stopped(&r->observer) && jobs_stopped(r->jobs) &&
	       shipping_ended(r->shipping);
}

/* The application first, as long as it takes: it may have something to commit. */
static void on_end_signal(struct run *r, const struct signalfd_siginfo *info)
{
	log_info("run", "stopping on signal %d", (int)info->ssi_signo);
	if (!r->exec.pid || r->phase == STOPPING) {
		begin_to_stop(r);
		return;
	}
	r->phase = EXEC_ENDING;
	notify_stopping(&r->notify);
	/* From the terminal it has had the signal already. */
	if (info->ssi_code != SI_KERNEL)
		child_signal(&r->exec, (int)info->ssi_signo);
}

static void take_signals(struct run *r)
{
	struct signalfd_siginfo info;

	while (read(r->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		switch (info.ssi_signo) {
		case SIGTERM:
		case SIGINT:
			on_end_signal(r, &info);
			break;
		case SIGHUP:
			if (r->phase == STARTING || r->phase == RUNNING)
				reload(r);
			break;
		case SIGCHLD:
			break; /* the steps ask for their own */
		case SIGQUIT:
			if (!r->exec.pid)
				begin_to_stop(r);
			/* fall through */
		default:
			if (info.ssi_code != SI_KERNEL)
				child_signal(&r->exec, (int)info.ssi_signo);
		}
	}
}

/* ---- --once ---- */

static void fail_once(struct run *r, const struct err *why)
{
	if (r->result.kind == ERR_NONE)
		r->result = *why;
	begin_to_stop(r);
}

/* The first database that does not get on. */
static void find_trouble(struct run *r, struct err *why)
{
	struct fleet_entry e;

	err_set(why, ERR_BUSY, 0, "not everything could be captured");
	for (size_t i = 0; fleet_get(r->fleet, i, &e); i++)
		if (e.status.state == DATABASE_FAILED ||
		    (e.status.state == DATABASE_REPLICATING && e.status.reason[0])) {
			err_set(why, ERR_IO, 0, "database '%s': %s", e.name, e.status.reason);
			return;
		}
}

static void step_once(struct run *r)
{
	struct fleet_counts n;
	struct err why = ERR_INIT;
	int rc;

	if (!r->ready || r->phase == STOPPING)
		return;
	if (!r->syncing) {
		rc = fleet_sync_begin(r->fleet, NULL, &r->sync, &why);
		if (rc < 0) {
			fail_once(r, &why);
			return;
		}
		r->syncing = true;
		r->sync_us = clock_mono_us();
	}
	rc = r->synced ? 0 : fleet_sync(r->fleet, &r->sync, &why);
	if (rc < 0) {
		if (clock_mono_us() - r->sync_us > ONCE_TROUBLE_US) {
			find_trouble(r, &why);
			if (why.kind == ERR_IO)
				fail_once(r, &why);
		}
		return;
	}
	r->synced = true;
	if (!jobs_all_done(r->jobs))
		return;
	fleet_count(r->fleet, &n);
	if (n.failed) {
		find_trouble(r, &why);
		fail_once(r, &why);
	} else if (jobs_result(r->jobs, &why) < 0) {
		fail_once(r, &why);
	}
	begin_to_stop(r);
}

/* ---- the loop ---- */

static void step_ready(struct run *r)
{
	struct fleet_counts n;

	if (r->ready)
		return;
	fleet_count(r->fleet, &n);
	if (!n.settled && clock_mono_us() - r->started_us < READY_US)
		return;
	r->ready = true;
	r->phase = r->phase == STARTING ? RUNNING : r->phase;
	log_info("run", "ready databases=%zu replicating=%zu waiting=%zu failed=%zu", n.all,
	         n.replicating, n.waiting, n.failed);
	notify_ready(&r->notify);
	if (r->phase == RUNNING)
		start_exec(r);
}

static void step_status(struct run *r)
{
	int64_t now_us = clock_mono_us();
	struct fleet_counts n;

	if (r->notify.fd < 0 || now_us - r->status_us < STATUS_US)
		return;
	r->status_us = now_us;
	fleet_count(r->fleet, &n);
	notify_status(&r->notify,
	              "%zu databases: %zu replicated, %zu waiting, %zu failed, %zu paused", n.all,
	              n.replicating, n.waiting, n.failed, n.paused);
}

static void step_watchdog(struct run *r)
{
	int64_t now_us = clock_mono_us(), every_us = r->notify.watchdog_us;

	if (every_us == 0 || now_us - r->watchdog_us < every_us / 4)
		return;
	int64_t stalled_us = pools_stalled_us(r->pools);
	r->watchdog_us = now_us;
	if (stalled_us < every_us / 2)
		notify_watchdog(&r->notify);
	else
		log_error("run", "no progress, the watchdog is not told of any stalled_s=%lld",
		          (long long)(stalled_us / US_PER_SECOND));
}

static void wait(struct run *r)
{
	struct pollfd fds[3] = {{.fd = r->signal_fd, .events = POLLIN},
	                        {.fd = r->wake_fd, .events = POLLIN},
	                        {.fd = fleet_fd(r->fleet), .events = POLLIN}};
	bool busy = !r->ready || r->phase == STOPPING || r->options->once;

	/* Folders change with every side file; they are looked at with the next tick. */
	poll(fds, busy ? 2 : 3, busy ? BUSY_TICK_MS : TICK_MS);
	if (fds[2].revents && !busy)
		poll(fds, 2, BUSY_TICK_MS * 10);
}

/* Databases come and go in folders, and by hand. */
static void step_shipping(struct run *r)
{
	int64_t now_us = clock_mono_us();

	if (r->phase == STOPPING || now_us - r->shipping_us < SHIP_LOOK_US)
		return;
	r->shipping_us = now_us;
	shipping_apply(r->shipping, r->fleet);
}

static void step(struct run *r)
{
	uint64_t count;

	take_signals(r);
	if (read(r->wake_fd, &count, sizeof(count)) > 0 && r->phase != STOPPING)
		reload(r);
	step_exec(r);
	if (r->exec_ended)
		begin_to_stop(r);
	fleet_step(r->fleet);
	step_shipping(r);
	mounter_step(&r->mounter);
	observer_step(&r->observer);
	step_ready(r);
	if (r->ready)
		jobs_step(r->jobs, r->fleet, r->options->once);
	if (r->options->once)
		step_once(r);
	step_status(r);
	step_watchdog(r);
	pools_give_back(r->pools);
}

static void release(struct run *r)
{
	control_free(r->control);
	fleet_sync_release(&r->sync);
	jobs_free(r->jobs);
	fleet_free(r->fleet);
	shipping_free(r->shipping); /* which the fleet's recorders wake */
	pools_free(r->pools);
	notify_close(&r->notify);
	if (r->signal_fd >= 0)
		close(r->signal_fd);
	if (r->wake_fd >= 0)
		close(r->wake_fd);
	config_free(r->config);
}

int run_daemon(const struct run_options *options, int *ret_status, struct err *err)
{
	struct run r = {.options = options,
	                .signal_fd = -1,
	                .wake_fd = -1,
	                .notify = {.fd = -1},
	                .started_us = clock_mono_us()};

	*ret_status = 0;
	int rc = load(options, &r.config, err);
	if (rc == 0)
		rc = start(&r, err);
	if (rc == 0) {
		while (r.phase != STOPPING || !is_stopped(&r)) {
			step(&r);
			wait(&r);
		}
		log_info("run", "stopped");
		rc = r.result.kind != ERR_NONE ? err_copy(err, &r.result)
		                               : fleet_result(r.fleet, err);
	}
	if (rc == 0 && r.exec_ended)
		*ret_status = r.exec_status;
	release(&r);
	return rc;
}
