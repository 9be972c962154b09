/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads: the caller's runs capture; the recorder's writes; the keeper seals and coalesces at
 * idle priority; one waits for signals.
 */
#include "engine/daemon/replicate.h"

#include "engine/base/cleanup.h"
#include "engine/base/log.h"
#include "engine/daemon/keeper.h"
#include "engine/daemon/recorder.h"

#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>

/* With what is queued and a checkpoint's worth of reading, SIGTERM is done in 5 s. */
#define STOP_TIMEOUT_US 2000000

struct signals {
	pthread_t thread;
	struct capture *capture;
	sigset_t set;
};

static void *signal_main(void *arg)
{
	struct signals *s = arg;
	int sig = 0;

	while (sigwait(&s->set, &sig) == 0 && sig != SIGUSR2) {
		log_info("replicate", "stopping on signal %d", sig);
		capture_stop(s->capture);
	}
	return NULL;
}

static void signals_block(struct signals *s)
{
	sigemptyset(&s->set);
	sigaddset(&s->set, SIGTERM);
	sigaddset(&s->set, SIGINT);
	sigaddset(&s->set, SIGUSR2); /* ends the thread */
	pthread_sigmask(SIG_BLOCK, &s->set, NULL);
}

static int absolute_path(const char *path, char out[PATH_MAX], struct err *err)
{
	if (realpath(path, out))
		return 0;
	if (errno == ENOENT || errno == ENOTDIR)
		return err_set(err, ERR_NOT_FOUND, 0,
		               "database '%s': no such file (check the path)", path);
	return err_set(err, ERR_IO, errno, "database '%s'", path);
}

/* Looks at the database before anything is created for it. */
static int check_database(const struct replicate_options *o, const char *path, struct err *err)
{
	struct capture_options co = {.enable_wal = o->enable_wal};
	struct capture_sink none = {0};
	struct capture *c = NULL;

	int rc = capture_open(path, &co, &none, &c, err);
	capture_free(c);
	return rc;
}

static void say_ready(int fd)
{
	if (fd < 0)
		return;
	ssize_t n = write(fd, "ready\n", 6);
	(void)n; /* whoever waited is gone */
}

static int run(const struct replicate_options *o, struct recorder *r, struct capture *c,
               struct signals *signals, struct err *err)
{
	struct keeper *keeper = NULL;

	signals->capture = c;
	int rc = recorder_start(r, c, err);
	if (rc < 0)
		return rc;
	if (!o->no_maintenance)
		rc = keeper_start(r, &keeper, err);
	if (rc == 0 && pthread_create(&signals->thread, NULL, signal_main, signals) != 0)
		rc = err_set(err, ERR_NOMEM, 0, "cannot start a thread");
	if (rc == 0) {
		say_ready(o->ready_fd);
		rc = capture_run(c, err);
		pthread_kill(signals->thread, SIGUSR2);
		pthread_join(signals->thread, NULL);
	}
	keeper_stop(keeper);
	struct err why = ERR_INIT;
	int stopped = recorder_stop(r, STOP_TIMEOUT_US, &why);
	return rc < 0 ? rc : stopped < 0 ? err_copy(err, &why) : 0;
}

int replicate_run(const struct replicate_options *o, struct err *err)
{
	char path[PATH_MAX], copy[PATH_MAX];
	struct recorder *r = NULL;
	struct capture *c = NULL;
	struct signals signals;
	struct capture_position pos;

	int rc = absolute_path(o->db_path, path, err);
	if (rc == 0)
		rc = check_database(o, path, err);
	if (rc < 0)
		return rc;
	signals_block(&signals);
	memcpy(copy, path, sizeof(copy));
	struct recorder_options ro = {
	        .archive = o->archive,
	        .name = o->name ? o->name : basename(copy),
	        .source_path = path,
	        .adopt = o->adopt,
	        .segment_bytes = o->segment_bytes,
	};
	rc = recorder_open(&ro, &r, err);
	if (rc < 0)
		return rc;
	struct capture_options co = {
	        .strict = o->strict,
	        .enable_wal = o->enable_wal,
	        .wal_cap_bytes = o->wal_cap_bytes,
	};
	if (recorder_resume(r, &pos, &co.resume_page_size))
		co.resume = &pos;
	rc = capture_open(path, &co, recorder_sink(r), &c, err);
	if (rc == 0)
		log_info("replicate", "start db=%s archive=%s name=%s", path, o->archive, ro.name);
	if (rc == 0)
		rc = run(o, r, c, &signals, err);
	capture_free(c);
	recorder_free(r);
	return rc;
}
