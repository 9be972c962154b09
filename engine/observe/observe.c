/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/observe/observe.h"

#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "engine/observe/alerting.h"
#include "engine/observe/http.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define RETRY_S 5

enum place { PLACE_HTTP, PLACE_METRICS, PLACE_HEALTH, N_PLACES };

struct observe {
	const struct observe_options *options;
	struct archives *archives;
	struct collector *collector;
	struct alerting *alerting; /* NULL: nobody is told */
	pthread_mutex_t lock;
	struct config_ref *config;
	struct http_server *servers[N_PLACES]; /* NULL: does not listen (yet) */
	bool warned[N_PLACES];
};

/* ---- for others ---- */

struct facts *observe_facts(struct observe *o, struct err *err)
{
	struct facts *f = collector_get(o->collector, FACTS_MAX_AGE_US, FACTS_PATIENCE_US);

	if (!f)
		(void)!err_set(err, ERR_NOMEM, 0, "no memory");
	return f;
}

struct archives *observe_archives(struct observe *o)
{
	return o->archives;
}

struct collector *observe_collector(struct observe *o)
{
	return o->collector;
}

struct config_ref *observe_config(struct observe *o)
{
	LOCK_SCOPE(&o->lock);
	return config_ref_get(o->config);
}

const char *observe_socket(const struct observe *o)
{
	return o->options->socket;
}

bool observe_alerts(struct observe *o, struct notifier_status *ret)
{
	if (!o->alerting)
		return false;
	alerting_get_status(o->alerting, ret);
	return true;
}

int observe_find(const struct health_facts *f, const char *name, const struct health_database **ret,
                 struct err *err)
{
	char full[HEALTH_PATH_MAX + HEALTH_NAME_MAX + 2];
	char there[200] = "";
	size_t len = 0;

	for (size_t i = 0; i < f->n_databases; i++) {
		const struct health_database *d = &f->databases[i];
		snprintf(full, sizeof(full), "%s:%s", d->archive, d->name);
		if (strcmp(d->name, name) == 0 || strcmp(full, name) == 0) {
			*ret = d;
			return 0;
		}
		if (len < sizeof(there))
			len += (size_t)snprintf(there + len, sizeof(there) - len, "%s%s",
			                        len ? ", " : "", d->name);
	}
	return err_set(err, ERR_NOT_FOUND, 0, "no database '%.100s'%s%s", name,
	               there[0] ? " (there is: " : "", there[0] ? there : "");
}

int observe_open(struct observe *o, const struct health_database *d, struct archive **ret_archive,
                 struct history **ret, struct err *err)
{
	int rc = archives_get(o->archives, d->archive, ret_archive, err);

	if (rc < 0)
		return rc;
	rc = history_get(*ret_archive, d->name, ret, err);
	if (rc < 0)
		archives_put(o->archives, take_ptr(*ret_archive));
	return rc;
}

/* ---- configuration ---- */

static void apply_log(const struct config *c)
{
	int fd = c->log_path ? open(c->log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600)
	                     : STDERR_FILENO;

	log_set_level(c->log_level);
	if (fd >= 0)
		log_set_fd(fd);
}

/* Its messages are said by the daemon, which loads the same. */
static int load(const struct observe *o, struct config_ref **ret, struct err *err)
{
	cleanup_config_report struct config_report report = CONFIG_REPORT_INIT;
	struct config *c = NULL;

	int rc = config_load(&o->options->config, &c, &report, err);
	if (rc < 0)
		return rc;
	*ret = config_ref_new(c);
	return *ret ? 0 : err_set(err, ERR_NOMEM, 0, "no memory");
}

static bool same_text(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool same_http(const struct config_http *a, const struct config_http *b)
{
	return same_text(a->listen, b->listen) && same_text(a->metrics_listen, b->metrics_listen) &&
	       same_text(a->health_listen, b->health_listen) &&
	       same_text(a->username, b->username) &&
	       same_text(a->password.text, b->password.text) &&
	       same_text(a->token.text, b->token.text) && same_text(a->tls_cert, b->tls_cert) &&
	       same_text(a->tls_key, b->tls_key);
}

/* True: other addresses, other credentials, others to be told: only a fresh start takes them all. */
static bool reload(struct observe *o)
{
	struct config_ref *next = NULL;
	struct err ignored = ERR_INIT; /* said by the daemon */

	if (load(o, &next, &ignored) < 0)
		return false;
	/* A certificate may have been renewed in its place. */
	if (!same_http(&o->config->config->http, &next->config->http) ||
	    !alerting_is_same(o->config->config, next->config) || next->config->http.tls_cert ||
	    next->config->log_path) {
		config_ref_put(next);
		return true;
	}
	log_set_level(next->config->log_level);
	collector_set_config(o->collector, next);
	pthread_mutex_lock(&o->lock);
	struct config_ref *former = o->config;
	o->config = next;
	pthread_mutex_unlock(&o->lock);
	config_ref_put(former);
	return false;
}

/* ---- addresses ---- */

static const char *address_of(const struct config_http *h, enum place place)
{
	switch (place) {
	case PLACE_HTTP:
		return h->listen;
	case PLACE_METRICS:
		return h->metrics_listen;
	default: /* one address that two keys name is listened on once */
		return same_text(h->health_listen, h->metrics_listen) ? NULL : h->health_listen;
	}
}

static int listen_at(struct observe *o, enum place place, struct err *err)
{
	const struct config_http *h = &o->config->config->http;
	struct http_server_options options = {
	        .listen = address_of(h, place), .metrics_only = place != PLACE_HTTP, .observe = o};

	if (place == PLACE_HTTP) {
		options.username = h->username;
		options.password = h->password.text;
		options.token = h->token.text;
		options.tls_cert = h->tls_cert;
		options.tls_key = h->tls_key;
	}
	return http_server_new(&options, &o->servers[place], err);
}

/* False: some address could not be had, and is to be tried again. */
static bool listen_everywhere(struct observe *o)
{
	const struct config_http *h = &o->config->config->http;
	char problem[HEALTH_TEXT_MAX] = "";
	bool all = true;

	for (int i = 0; i < N_PLACES; i++) {
		const char *address = address_of(h, (enum place)i);
		bool is_default = i == PLACE_HTTP && h->listen_is_default;
		struct err why = ERR_INIT;
		if (!address || o->servers[i])
			continue;
		if (listen_at(o, (enum place)i, &why) == 0) {
			log_info("observe", "listening address=%s", address);
			continue;
		}
		all = false;
		if (!o->warned[i])
			log_write(is_default ? LOG_WARN : LOG_ERROR, "observe",
			          "not listening, trying again address=%s: %s%s", address, why.msg,
			          is_default
			                  ? " (`http: {listen: …}` names another address, or none)"
			                  : "");
		o->warned[i] = true;
		if (!is_default && !problem[0])
			snprintf(problem, sizeof(problem), "HTTP does not listen: %.200s", why.msg);
	}
	collector_set_listen_problem(o->collector, problem);
	return all;
}

/* ---- life ---- */

static bool serve(struct observe *o, const sigset_t *signals)
{
	const struct timespec again = {.tv_sec = RETRY_S};

	for (;;) {
		bool all = listen_everywhere(o);
		siginfo_t info;
		int sig = all ? sigwaitinfo(signals, &info) : sigtimedwait(signals, &info, &again);
		if (sig == SIGTERM || sig == SIGINT)
			return false;
		if (sig == SIGHUP && reload(o))
			return true;
	}
}

static int start(struct observe *o, struct err *err)
{
	int rc = load(o, &o->config, err);

	if (rc == 0)
		rc = archives_new(&o->archives, err);
	if (rc < 0)
		return rc;
	const struct collector_options options = {
	        .socket = o->options->socket, .archives = o->archives, .config = o->config};
	apply_log(o->config->config);
	rc = collector_new(&options, &o->collector, err);
	if (rc == 0)
		rc = alerting_start(o->config->config, o->collector, &o->alerting, err);
	return rc;
}

int observe_run(const struct observe_options *options, bool *ret_again, struct err *err)
{
	struct observe *o = calloc(1, sizeof(*o));
	bool served = false;
	sigset_t signals;

	if (!o)
		return err_set(err, ERR_NOMEM, 0, "no memory");
	o->options = options;
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &signals, NULL);
	signal(SIGPIPE, SIG_IGN);
	pthread_mutex_init(&o->lock, NULL);
	int rc = start(o, err);
	if (rc == 0)
		*ret_again = serve(o, &signals);
	alerting_stop(o->alerting);
	/* The process ends with it, and nothing here is to be finished: threads that wait for a disk
	 * which hangs are not waited for.  What they answer by outlives this function. */
	for (int i = 0; i < N_PLACES; i++) {
		served = served || o->servers[i];
		http_server_abandon(o->servers[i]);
	}
	if (!served)
		free(o);
	return rc;
}
