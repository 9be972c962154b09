/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/observe/alerting.h"

#include "engine/base/clock.h"
#include "engine/base/log.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What ends and comes back within that is one incident. */
#define CLEAR_MIN_US (10 * US_PER_SECOND)
#define LOOK_MIN_US US_PER_SECOND
#define LOOK_MAX_US (5 * US_PER_SECOND)
#define FACTS_OLD_US (2 * US_PER_SECOND)

static bool is_this_machine(const char *host)
{
	return strncmp(host, "127.", 4) == 0 || strcmp(host, "localhost") == 0 ||
	       strcmp(host, "::1") == 0;
}

static enum send_tls tls_of(const struct config_alerts *a)
{
	switch (a->smtp_tls) {
	case CONFIG_TLS_REQUIRED:
		return SEND_TLS_REQUIRED;
	case CONFIG_TLS_TRY:
		return SEND_TLS_TRY;
	case CONFIG_TLS_OFF:
		return SEND_TLS_OFF;
	default:
		return a->smtp_password.text && !is_this_machine(a->smtp_server) ? SEND_TLS_REQUIRED
		                                                                 : SEND_TLS_TRY;
	}
}

void alerting_options(const struct config *c, char host[ALERTING_HOST_MAX],
                      struct notifier_options *ret)
{
	const struct config_alerts *a = &c->alerts;

	if (gethostname(host, ALERTING_HOST_MAX - 1) < 0 || !*host)
		snprintf(host, ALERTING_HOST_MAX, "localhost");
	host[ALERTING_HOST_MAX - 1] = '\0';
	*ret = (struct notifier_options){
	        .slack_webhook = a->slack_webhook.text,
	        .webhook = a->webhook.text,
	        .heartbeat_url = a->heartbeat_url.text,
	        .heartbeat_interval_us = a->heartbeat_interval_us,
	        .for_us = a->for_us,
	        .clear_us = a->for_us > CLEAR_MIN_US ? a->for_us : CLEAR_MIN_US,
	        .repeat_us = a->repeat_us,
	        .host = host,
	};
	if (a->smtp_server)
		ret->email = (struct send_email){.server = a->smtp_server,
		                                 .port = a->smtp_port,
		                                 .tls = tls_of(a),
		                                 .username = a->smtp_username,
		                                 .password = a->smtp_password.text,
		                                 .from = a->mail_from,
		                                 .to = a->mail_to,
		                                 .n_to = a->n_mail_to};
}

bool alerting_is_wanted(const struct config *c)
{
	const struct config_alerts *a = &c->alerts;

	return a->smtp_server || a->slack_webhook.text || a->webhook.text || a->heartbeat_url.text;
}

static void describe_email(const struct send_email *e, char out[ALERTING_TEXT_MAX])
{
	static const char *const tls[] = {"TLS required", "TLS where offered", "no TLS"};
	size_t used = (size_t)snprintf(out, ALERTING_TEXT_MAX, "%.120s:%u, %s%s, to", e->server,
	                               e->port, tls[e->tls], e->username ? ", password" : "");

	for (size_t i = 0; i < e->n_to && used < ALERTING_TEXT_MAX; i++)
		used += (size_t)snprintf(out + used, ALERTING_TEXT_MAX - used, "%s %s",
		                         i ? "," : "", e->to[i]);
}

void alerting_describe(const struct notifier_options *o, int place, char out[ALERTING_TEXT_MAX])
{
	const char *const urls[N_NOTIFIER_PLACES] = {NULL, o->slack_webhook, o->webhook,
	                                             o->heartbeat_url};
	char host[SEND_HOST_MAX];

	if (place == CHANNEL_EMAIL) {
		describe_email(&o->email, out);
		return;
	}
	(void)send_host_of(urls[place], host);
	snprintf(out, ALERTING_TEXT_MAX, "%s", host);
}

static bool same_text(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool same_words(const char *const *a, size_t n_a, const char *const *b, size_t n_b)
{
	for (size_t i = 0; i < n_a && n_a == n_b; i++)
		if (strcmp(a[i], b[i]) != 0)
			return false;
	return n_a == n_b;
}

bool alerting_is_same(const struct config *a, const struct config *b)
{
	const struct config_alerts *x = &a->alerts, *y = &b->alerts;

	return same_text(x->smtp_server, y->smtp_server) && x->smtp_port == y->smtp_port &&
	       x->smtp_tls == y->smtp_tls && same_text(x->smtp_username, y->smtp_username) &&
	       same_text(x->smtp_password.text, y->smtp_password.text) &&
	       same_text(x->mail_from, y->mail_from) &&
	       same_words(x->mail_to, x->n_mail_to, y->mail_to, y->n_mail_to) &&
	       same_text(x->slack_webhook.text, y->slack_webhook.text) &&
	       same_text(x->webhook.text, y->webhook.text) &&
	       same_text(x->heartbeat_url.text, y->heartbeat_url.text) &&
	       x->heartbeat_interval_us == y->heartbeat_interval_us && x->for_us == y->for_us &&
	       x->repeat_us == y->repeat_us;
}

/* ---- the thread ---- */

struct alerting {
	struct notifier *notifier;
	struct collector *collector;
	int64_t every_us;
	pthread_t thread;
};

/* What time does not heal. */
static bool is_at_once(enum health_code code)
{
	return code == HEALTH_DAMAGED || code == HEALTH_INTEGRITY || code == HEALTH_RECENT_GAP ||
	       code == HEALTH_JOB_FAILED || code == HEALTH_FENCED;
}

static void condition_of(const struct health_verdict *v, const struct health_problem *p,
                         struct condition *ret)
{
	const struct health_line *l = &v->lines[p->line];
	bool of_database = l->subject == HEALTH_DATABASE;

	*ret = (struct condition){
	        .alert = health_code_name(p->code),
	        .database = of_database ? l->name : l->database,
	        .place = of_database || l->subject == HEALTH_DAEMON ? "" : l->name,
	        .severity = p->level == HEALTH_BAD ? SEVERITY_CRITICAL : SEVERITY_WARNING,
	        .text = p->text,
	        .at_once = is_at_once(p->code),
	        .follows = p->follows};
}

/* False: without memory nothing is known, and nothing is said to be well. */
static bool look(struct alerting *a)
{
	cleanup_facts struct facts *f =
	        collector_get(a->collector, FACTS_OLD_US, FACTS_PATIENCE_US);
	cleanup_health_verdict struct health_verdict v = {0};
	cleanup_free struct condition *conditions = NULL;
	struct health_limits limits;

	health_limits_default(&limits);
	if (!f || health_judge(&f->f, &limits, clock_now_us(), &v, NULL) < 0 ||
	    !(conditions = calloc(v.n_problems + 1, sizeof(*conditions))))
		return false;
	for (size_t i = 0; i < v.n_problems; i++)
		condition_of(&v, &v.problems[i], &conditions[i]);
	notifier_look(a->notifier, conditions, v.n_problems, v.healthy);
	return true;
}

static void *alerting_main(void *ctx)
{
	struct alerting *a = ctx;

	for (;;) {
		if (!look(a))
			log_error("alerts", "no memory to look at the facts");
		clock_sleep_us(a->every_us);
	}
	return NULL;
}

/* Where it is kept what was told: a folder of the service's own, else the archive. */
static const char *state_dir(const struct config *c, char out[PATH_MAX])
{
	const char *dirs = getenv("STATE_DIRECTORY");

	if (dirs && *dirs) {
		snprintf(out, PATH_MAX, "%.*s", (int)strcspn(dirs, ":"), dirs);
		return out;
	}
	return c->archive ? c->archive : c->n_databases ? c->databases[0].archive : NULL;
}

int alerting_start(const struct config *c, struct collector *collector, struct alerting **ret,
                   struct err *err)
{
	char host[ALERTING_HOST_MAX], dir[PATH_MAX];
	struct notifier_options options;

	*ret = NULL;
	if (!alerting_is_wanted(c))
		return 0;
	struct alerting *a = calloc(1, sizeof(*a));
	if (!a)
		return err_set(err, ERR_NOMEM, 0, "no memory for alerts");
	alerting_options(c, host, &options);
	options.dir = state_dir(c, dir);
	a->collector = collector;
	a->every_us = c->alerts.for_us / 4;
	a->every_us = a->every_us < LOOK_MIN_US ? LOOK_MIN_US : a->every_us;
	a->every_us = a->every_us > LOOK_MAX_US ? LOOK_MAX_US : a->every_us;
	int rc = notifier_new(&options, &a->notifier, err);
	if (rc == 0 && (rc = -pthread_create(&a->thread, NULL, alerting_main, a)) != 0)
		rc = err_set(err, ERR_IO, -rc, "start a thread for alerts");
	if (rc < 0) {
		notifier_free(a->notifier);
		free(a);
		return rc;
	}
	pthread_setname_np(a->thread, "asof-look");
	*ret = a;
	return 0;
}

/* Its thread goes on looking, which has no effect any more: the notifier is left to it. */
void alerting_stop(struct alerting *a)
{
	if (a)
		notifier_stop(a->notifier);
}

void alerting_get_status(struct alerting *a, struct notifier_status *ret)
{
	notifier_get_status(a->notifier, ret);
}
