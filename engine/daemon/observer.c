/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/daemon/observer.h"

#include "engine/base/clock.h"
#include "engine/base/log.h"

#include <signal.h>
#include <sys/wait.h>

#define BACKOFF_MIN_US US_PER_SECOND
#define BACKOFF_MAX_US (60 * US_PER_SECOND)
#define PATIENCE_US US_PER_SECOND
#define ARGS_MAX 12

void observer_init(struct observer *o, const char *program, const struct config_options *options,
                   const char *socket)
{
	*o = (struct observer){.backoff_us = BACKOFF_MIN_US,
	                       .program = program,
	                       .env_path = options->env_path,
	                       .no_expand = options->no_expand};
	snprintf(o->socket, sizeof(o->socket), "%s", socket);
}

bool observer_is_wanted(const struct config *c)
{
	const struct config_http *h = &c->http;
	const struct config_alerts *a = &c->alerts;

	return h->listen || h->metrics_listen || h->health_listen || a->smtp_server ||
	       a->slack_webhook.text || a->webhook.text || a->heartbeat_url.text;
}

void observer_apply(struct observer *o, const struct config *c)
{
	snprintf(o->config_path, sizeof(o->config_path), "%s", c->path ? c->path : "");
	o->wanted = observer_is_wanted(c);
	o->not_before_us = 0;
	if (!o->wanted)
		child_end(&o->child, PATIENCE_US);
	else
		child_signal(&o->child, SIGHUP);
}

static void start_later(struct observer *o)
{
	o->not_before_us = clock_mono_us() + o->backoff_us;
	o->backoff_us = o->backoff_us * 2 > BACKOFF_MAX_US ? BACKOFF_MAX_US : o->backoff_us * 2;
}

static void start(struct observer *o)
{
	const struct child_options options = {.own_group = true, .stdout_fd = -1};
	const char *argv[ARGS_MAX] = {o->program, "job", "observe", o->socket};
	struct err why = ERR_INIT;
	size_t n = 4;

	if (o->no_expand)
		argv[n++] = "no-expand";
	if (o->config_path[0]) {
		argv[n++] = "--config";
		argv[n++] = o->config_path;
	}
	if (o->env_path) {
		argv[n++] = "--env-file";
		argv[n++] = o->env_path;
	}
	if (child_start(&o->child, &options, argv, &why) < 0) {
		log_error("observer", "not started: %s", why.msg);
		start_later(o);
	} else {
		log_debug("observer", "started pid=%d", (int)o->child.pid);
	}
}

static void ended(struct observer *o, int status, int64_t lived_us)
{
	char text[CHILD_STATUS_MAX];

	if (o->stopping || !o->wanted)
		return;
	/* By SIGHUP: it was told to load the configuration before it could listen to that. */
	if ((WIFEXITED(status) && WEXITSTATUS(status) == OBSERVER_AGAIN) ||
	    (WIFSIGNALED(status) && WTERMSIG(status) == SIGHUP))
		return;
	if (lived_us > BACKOFF_MAX_US)
		o->backoff_us = BACKOFF_MIN_US;
	child_describe(status, text);
	log_error("observer", "ended, no HTTP and no alerts meanwhile in_s=%lld: %s",
	          (long long)(o->backoff_us / US_PER_SECOND), text);
	start_later(o);
}

void observer_step(struct observer *o)
{
	int64_t started_us = o->child.started_us, now_us = clock_mono_us();
	int status = 0;

	if (o->child.pid && child_ended(&o->child, &status))
		ended(o, status, now_us - started_us);
	if (!o->child.pid && !o->stopping && o->wanted && now_us >= o->not_before_us)
		start(o);
}

void observer_stop(struct observer *o)
{
	o->stopping = true;
	child_end(&o->child, PATIENCE_US);
}

bool observer_stopped(const struct observer *o)
{
	return !o->child.pid;
}
