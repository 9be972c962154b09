/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/monitor/notifier.h"

#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/base/log.h"
#include "engine/monitor/message.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#define MODULE "alerts"
#define GAP_US (10 * US_PER_SECOND)
#define RETRY_MIN_US (5 * US_PER_SECOND)
#define RETRY_MAX_US (300 * US_PER_SECOND)
#define STUCK_US (60 * US_PER_SECOND)
#define SAVE_AGAIN_US (10 * US_PER_SECOND)
#define LOAD_PATIENCE_US (5 * US_PER_SECOND)
#define END_PATIENCE_US (US_PER_SECOND / 2)
#define FILE_PATIENCE_US (US_PER_SECOND / 4)
/* A failure that lasts is said once an hour. */
#define SAY_AGAIN_US (3600 * US_PER_SECOND)
#define TICK_MS 1000

/* A channel, or the heartbeat. */
struct place {
	struct notifier_place_status status;
	struct transfer transfer;
	bool under_way;
	struct telling *tellings; /* what the message under way tells */
	size_t n_tellings;
	int64_t next_us, retry_us, said_us; /* monotonic; retry_us: the last wait */
};

/* Shared with the thread that keeps the file, which may outlive the notifier in a disk that hangs. */
struct keeper {
	pthread_mutex_t lock;
	pthread_cond_t changed; /* of the monotonic clock */
	char *dir;
	char *loaded; /* the text found at the start; the notifier's to take */
	size_t loaded_len;
	bool is_loaded;
	char *text; /* to be written; NULL: nothing */
	size_t len;
	bool stop, failed, said;
	unsigned users;
};

struct notifier {
	pthread_mutex_t lock; /* all but what the thread has for itself */
	struct incidents *incidents;
	bool ready, healthy, stop;
	int64_t looked_us; /* monotonic */
	struct place places[N_NOTIFIER_PLACES];

	struct notifier_options options; /* constant; its texts are ours */

	bool stopped; /* of who has it */
	/* The thread's own. */
	CURLM *multi;
	pthread_t thread, keeper_thread;
	struct keeper *keeper;
	uint64_t saved_generation;
	int64_t save_us; /* monotonic; not before */
};

const char *notifier_place_name(int place)
{
	return place == NOTIFIER_HEARTBEAT ? "heartbeat" : channel_name((enum channel)place);
}

/* ---- the file ---- */

static void keeper_put(struct keeper *k)
{
	pthread_mutex_lock(&k->lock);
	bool last = --k->users == 0;
	pthread_mutex_unlock(&k->lock);
	if (!last)
		return;
	pthread_cond_destroy(&k->changed);
	pthread_mutex_destroy(&k->lock);
	free(k->dir);
	free(k->loaded);
	free(k->text);
	free(k);
}

static struct keeper *keeper_make(const char *dir)
{
	struct keeper *k = calloc(1, sizeof(*k));
	pthread_condattr_t attr;

	if (!k || !(k->dir = strdup(dir))) {
		free(k);
		return NULL;
	}
	k->users = 1;
	pthread_mutex_init(&k->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&k->changed, &attr);
	pthread_condattr_destroy(&attr);
	return k;
}

static int read_file(const struct keeper *k, char **ret, size_t *ret_len, struct err *err)
{
	cleanup_fd int dir = -1;
	int rc = file_open(AT_FDCWD, k->dir, O_RDONLY | O_DIRECTORY, 0, &dir, err);

	return rc ? rc : file_get(dir, NOTIFIER_FILE, INCIDENTS_TEXT_MAX, ret, ret_len, err);
}

static int write_file(const struct keeper *k, const char *text, size_t len, struct err *err)
{
	cleanup_fd int dir = -1;
	int rc = file_open(AT_FDCWD, k->dir, O_RDONLY | O_DIRECTORY, 0, &dir, err);

	return rc ? rc : file_put(dir, NOTIFIER_FILE, text, len, err);
}

static void keep_loaded(struct keeper *k)
{
	struct err err = ERR_INIT;
	char *text = NULL;
	size_t len = 0;

	if (read_file(k, &text, &len, &err) < 0 && err.kind != ERR_NOT_FOUND)
		log_warn(MODULE, "what was told before is not known, it may be told again: %s",
		         err.msg);
	LOCK_SCOPE(&k->lock);
	k->loaded = text;
	k->loaded_len = len;
	k->is_loaded = true;
	pthread_cond_broadcast(&k->changed);
}

static void keep_written(struct keeper *k, const char *text, size_t len)
{
	struct err err = ERR_INIT;
	int rc = write_file(k, text, len, &err);

	LOCK_SCOPE(&k->lock);
	k->failed = rc < 0;
	if (rc < 0 && !k->said)
		log_warn(MODULE,
		         "what was told cannot be written down, a restart may tell it again: %s",
		         err.msg);
	k->said = rc < 0;
}

static void *keeper_main(void *ctx)
{
	struct keeper *k = ctx;

	keep_loaded(k);
	pthread_mutex_lock(&k->lock);
	while (!k->stop || k->text) {
		if (!k->text) {
			pthread_cond_wait(&k->changed, &k->lock);
			continue;
		}
		cleanup_free char *text = take_ptr(k->text);
		size_t len = k->len;
		pthread_mutex_unlock(&k->lock);
		keep_written(k, text, len);
		pthread_mutex_lock(&k->lock);
	}
	pthread_mutex_unlock(&k->lock);
	keeper_put(k);
	return NULL;
}

/* ---- transfers ---- */

static int make_message(const struct notifier_options *o, int which, const struct telling *tellings,
                        size_t n, struct transfer *t, struct err *err)
{
	const struct message_context m = {.host = o->host,
	                                  .now_us = clock_now_us(),
	                                  .from = o->email.from,
	                                  .to = o->email.to,
	                                  .n_to = o->email.n_to};
	cleanup_buf struct buf body = BUF_INIT(MESSAGE_MAX);
	int rc;

	switch (which) {
	case CHANNEL_EMAIL:
		rc = message_email(&m, tellings, n, &body, err);
		return rc ? rc : send_make_email(t, &o->email, &body, err);
	case CHANNEL_SLACK:
		rc = message_slack(&m, tellings, n, &body, err);
		return rc ? rc : send_make_json(t, o->slack_webhook, &body, err);
	case CHANNEL_WEBHOOK:
		rc = message_webhook(&m, tellings, n, &body, err);
		return rc ? rc : send_make_json(t, o->webhook, &body, err);
	default:
		return send_make_get(t, o->heartbeat_url, err);
	}
}

bool notifier_has(const struct notifier_options *o, int place)
{
	const char *const given[N_NOTIFIER_PLACES] = {o->email.server, o->slack_webhook, o->webhook,
	                                              o->heartbeat_url};

	return given[place] != NULL;
}

int notifier_send_test(const struct notifier_options *o, int place, struct err *err)
{
	cleanup_transfer struct transfer t = TRANSFER_INIT;
	struct telling one;

	message_test(clock_now_us(), &one);
	int rc = make_message(o, place, &one, 1, &t, err);
	return rc ? rc : send_now(&t, err);
}

static void succeeded(struct notifier *n, int which, struct place *p, int64_t mono_us)
{
	bool beats = which == NOTIFIER_HEARTBEAT;

	if (!beats)
		incidents_told(n->incidents, (enum channel)which, p->tellings, p->n_tellings,
		               clock_now_us(), mono_us);
	if (!beats)
		log_info(MODULE, "told channel=%s incidents=%zu first=%s",
		         notifier_place_name(which), p->n_tellings, p->tellings[0].incident.alert);
	if (p->status.failing_since_us)
		log_info(MODULE, "works again channel=%s", notifier_place_name(which));
	p->status.sent++;
	p->status.last_sent_us = clock_now_us();
	p->status.failing_since_us = 0;
	p->retry_us = p->said_us = 0;
	p->next_us = mono_us + (beats ? n->options.heartbeat_interval_us : n->options.gap_us);
}

static void failed(struct notifier *n, int which, struct place *p, const struct err *why,
                   int64_t mono_us)
{
	const struct notifier_options *o = &n->options;

	p->status.failed++;
	if (!p->status.failing_since_us)
		p->status.failing_since_us = clock_now_us();
	snprintf(p->status.reason, sizeof(p->status.reason), "%s", why->msg);
	p->retry_us = p->retry_us ? 2 * p->retry_us : o->retry_min_us;
	if (p->retry_us > o->retry_max_us)
		p->retry_us = o->retry_max_us;
	p->next_us = mono_us + p->retry_us;
	if (!p->said_us || mono_us - p->said_us >= SAY_AGAIN_US) {
		p->said_us = mono_us;
		log_warn(MODULE, "cannot be told, tried again and again channel=%s: %s",
		         notifier_place_name(which), why->msg);
	}
}

static void end_transfer(struct notifier *n, int which, CURLcode code)
{
	struct place *p = &n->places[which];
	struct err why = ERR_INIT;
	int rc = send_result(&p->transfer, code, &why);

	curl()->multi_remove_handle(n->multi, p->transfer.easy);
	transfer_release(&p->transfer);
	LOCK_SCOPE(&n->lock);
	p->under_way = false;
	if (rc < 0)
		failed(n, which, p, &why, clock_mono_us());
	else
		succeeded(n, which, p, clock_mono_us());
}

static void end_transfers(struct notifier *n)
{
	CURLMsg *m;
	int left;

	while ((m = curl()->multi_info_read(n->multi, &left))) {
		CURLcode code = m->data.result;
		if (m->msg != CURLMSG_DONE)
			continue;
		for (int i = 0; i < N_NOTIFIER_PLACES; i++)
			if (n->places[i].under_way &&
			    n->places[i].transfer.easy == m->easy_handle) {
				end_transfer(n, i, code);
				break;
			}
	}
}

/* ---- what is to be done ---- */

/* Called with the lock. */
static bool is_due(struct notifier *n, int which, int64_t mono_us)
{
	struct place *p = &n->places[which];

	if (!p->status.configured || p->under_way || mono_us < p->next_us)
		return false;
	if (which == NOTIFIER_HEARTBEAT)
		return n->healthy && mono_us - n->looked_us < n->options.stuck_us;
	p->n_tellings = incidents_due(n->incidents, (enum channel)which, mono_us, p->tellings,
	                              TELLINGS_MAX);
	return p->n_tellings > 0;
}

static void start_transfers(struct notifier *n)
{
	int64_t mono_us = clock_mono_us();

	LOCK_SCOPE(&n->lock);
	if (mono_us - n->looked_us >= n->options.stuck_us) {
		const struct condition stuck = {
		        .alert = "observer-stuck",
		        .database = "",
		        .place = "",
		        .severity = SEVERITY_CRITICAL,
		        .text = "nobody has looked after the databases for a while (does a disk "
		                "hang?)",
		        .at_once = true};
		incidents_add(n->incidents, &stuck, clock_now_us(), mono_us);
	}
	for (int i = 0; i < N_NOTIFIER_PLACES; i++) {
		struct place *p = &n->places[i];
		struct err why = ERR_INIT;
		if (!is_due(n, i, mono_us))
			continue;
		if (make_message(&n->options, i, p->tellings, p->n_tellings, &p->transfer, &why) <
		    0)
			failed(n, i, p, &why, mono_us);
		else if (curl()->multi_add_handle(n->multi, p->transfer.easy) == CURLM_OK)
			p->under_way = true;
		else
			transfer_release(&p->transfer);
	}
}

static void save(struct notifier *n, bool last)
{
	struct keeper *k = n->keeper;
	cleanup_free char *text = NULL;
	int64_t mono_us = clock_mono_us();
	struct err ignored = ERR_INIT;
	uint64_t generation;
	size_t len;

	if (!k)
		return;
	pthread_mutex_lock(&k->lock);
	bool failed = k->failed;
	pthread_mutex_unlock(&k->lock);
	if (failed && !last && mono_us < n->save_us)
		return;
	pthread_mutex_lock(&n->lock);
	generation = incidents_generation(n->incidents);
	int rc = generation == n->saved_generation && !failed
	                 ? -ERR_BUSY
	                 : incidents_save(n->incidents, &text, &len, &ignored);
	pthread_mutex_unlock(&n->lock);
	if (rc < 0)
		return;
	n->saved_generation = generation;
	n->save_us = mono_us + SAVE_AGAIN_US;
	LOCK_SCOPE(&k->lock);
	free(k->text); /* one that is still to be written is older */
	k->text = take_ptr(text);
	k->len = len;
	k->failed = false;
	pthread_cond_broadcast(&k->changed);
}

/* ---- the thread ---- */

static struct timespec deadline(int64_t us, clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	int64_t ns = t.tv_nsec + us % US_PER_SECOND * 1000;
	t.tv_sec += us / US_PER_SECOND + ns / 1000000000;
	t.tv_nsec = ns % 1000000000;
	return t;
}

static void load(struct notifier *n)
{
	struct timespec until = deadline(LOAD_PATIENCE_US, CLOCK_MONOTONIC);
	struct keeper *k = n->keeper;
	cleanup_free char *text = NULL;
	struct err err = ERR_INIT;
	size_t len = 0;

	if (!k)
		return;
	pthread_mutex_lock(&k->lock);
	while (!k->is_loaded && pthread_cond_timedwait(&k->changed, &k->lock, &until) == 0)
		;
	text = take_ptr(k->loaded);
	len = k->loaded_len;
	pthread_mutex_unlock(&k->lock);
	if (text &&
	    incidents_load(n->incidents, text, len, clock_now_us(), clock_mono_us(), &err) < 0)
		log_warn(MODULE, "what was told before is not known, it may be told again: %s",
		         err.msg);
	n->saved_generation = incidents_generation(n->incidents);
}

static bool is_under_way(struct notifier *n)
{
	for (int i = 0; i < N_NOTIFIER_PLACES; i++)
		if (n->places[i].under_way)
			return true;
	return false;
}

static bool is_to_stop(struct notifier *n)
{
	LOCK_SCOPE(&n->lock);
	return n->stop;
}

static void *notifier_main(void *ctx)
{
	struct notifier *n = ctx;
	int64_t end_us = 0;
	int running;

	load(n);
	pthread_mutex_lock(&n->lock);
	n->ready = true;
	n->looked_us = clock_mono_us();
	pthread_mutex_unlock(&n->lock);
	for (;;) {
		if (is_to_stop(n) && !end_us)
			end_us = clock_mono_us() + END_PATIENCE_US;
		if (end_us && (!is_under_way(n) || clock_mono_us() > end_us))
			break;
		if (!end_us)
			start_transfers(n);
		curl()->multi_perform(n->multi, &running);
		end_transfers(n);
		save(n, false);
		curl()->multi_poll(n->multi, NULL, 0, end_us ? 100 : TICK_MS, NULL);
	}
	save(n, true);
	return NULL;
}

/* ---- from outside ---- */

void notifier_look(struct notifier *n, const struct condition *conditions, size_t n_conditions,
                   bool healthy)
{
	bool due = false;
	int64_t mono_us = clock_mono_us();

	pthread_mutex_lock(&n->lock);
	if (n->ready) {
		n->looked_us = mono_us;
		/* The first sign of life after trouble comes at once. */
		if (healthy && !n->healthy &&
		    !n->places[NOTIFIER_HEARTBEAT].status.failing_since_us)
			n->places[NOTIFIER_HEARTBEAT].next_us = mono_us;
		n->healthy = healthy;
		incidents_look(n->incidents, conditions, n_conditions, clock_now_us(), mono_us);
		for (int i = 0; i < N_NOTIFIER_PLACES; i++)
			due = due || is_due(n, i, mono_us);
	}
	pthread_mutex_unlock(&n->lock);
	if (due)
		curl()->multi_wakeup(n->multi);
}

void notifier_get_status(struct notifier *n, struct notifier_status *ret)
{
	LOCK_SCOPE(&n->lock);
	*ret = (struct notifier_status){0};
	incidents_count(n->incidents, &ret->incidents);
	for (int i = 0; i < N_NOTIFIER_PLACES; i++)
		ret->places[i] = n->places[i].status;
}

static void or_default(int64_t *us, int64_t otherwise_us)
{
	if (*us == 0)
		*us = otherwise_us;
}

#define OWNED_TEXTS(o)                                                                             \
	{                                                                                          \
		&(o)->email.server, &(o)->email.username, &(o)->email.password, &(o)->email.from,  \
		        &(o)->slack_webhook, &(o)->webhook, &(o)->heartbeat_url, &(o)->dir,        \
		        &(o)->host                                                                 \
	}

static bool copy_texts(struct notifier_options *o, const struct notifier_options *from)
{
	const char **texts[] = OWNED_TEXTS(o);
	const char **to = calloc(from->email.n_to + 1, sizeof(*to));
	bool good = to != NULL;

	o->email.to = to;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		if (*texts[i] && !(*texts[i] = strdup(*texts[i])))
			good = false;
	for (size_t i = 0; good && i < from->email.n_to; i++)
		good = (to[i] = strdup(from->email.to[i])) != NULL;
	return good;
}

static void free_texts(struct notifier_options *o)
{
	const char **texts[] = OWNED_TEXTS(o);

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		free((char *)(uintptr_t)*texts[i]);
	for (size_t i = 0; o->email.to && i < o->email.n_to; i++)
		free((char *)(uintptr_t)o->email.to[i]);
	free((void *)(uintptr_t)o->email.to);
}

static void release(struct notifier *n)
{
	for (int i = 0; i < N_NOTIFIER_PLACES; i++) {
		if (n->places[i].under_way)
			curl()->multi_remove_handle(n->multi, n->places[i].transfer.easy);
		transfer_release(&n->places[i].transfer);
		free(n->places[i].tellings);
	}
	if (n->multi)
		curl()->multi_cleanup(n->multi);
	incidents_free(n->incidents);
	pthread_mutex_destroy(&n->lock);
	free_texts(&n->options);
	free(n);
}

static int set_up(struct notifier *n, struct err *err)
{
	struct notifier_options *o = &n->options;
	struct incident_options incidents = {
	        .for_us = o->for_us, .clear_us = o->clear_us, .repeat_us = o->repeat_us};

	or_default(&o->gap_us, GAP_US);
	or_default(&o->retry_min_us, RETRY_MIN_US);
	or_default(&o->retry_max_us, RETRY_MAX_US);
	or_default(&o->stuck_us, STUCK_US);
	for (int i = 0; i < N_NOTIFIER_PLACES; i++) {
		n->places[i].status.configured = notifier_has(o, i);
		if (i == NOTIFIER_HEARTBEAT)
			continue;
		incidents.channels[i] = notifier_has(o, i);
		n->places[i].tellings = calloc(TELLINGS_MAX, sizeof(struct telling));
		if (!n->places[i].tellings)
			return err_set(err, ERR_NOMEM, 0, "no memory for alerts");
	}
	int rc = curl_load(err);
	if (rc < 0)
		return rc;
	n->multi = curl()->multi_init();
	if (!n->multi || !o->host)
		return err_set(err, ERR_NOMEM, 0, "no memory for alerts");
	return incidents_new(&incidents, &n->incidents, err);
}

/* What asks for a signal is the main thread's. */
static int start_thread(pthread_t *ret, void *(*main)(void *), void *ctx, const char *name,
                        struct err *err)
{
	sigset_t all, before;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int rc = pthread_create(ret, NULL, main, ctx);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (rc)
		return err_set(err, ERR_IO, rc, "start a thread for alerts");
	pthread_setname_np(*ret, name);
	return 0;
}

static int start_keeper(struct notifier *n, struct err *err)
{
	if (!n->options.dir)
		return 0;
	struct keeper *k = keeper_make(n->options.dir);
	if (!k)
		return err_set(err, ERR_NOMEM, 0, "no memory for alerts");
	k->users = 2;
	int rc = start_thread(&n->keeper_thread, keeper_main, k, "asof-alerts-file", err);
	if (rc == 0) {
		n->keeper = k;
		return 0;
	}
	k->users = 1;
	keeper_put(k);
	return rc;
}

/* A disk that hangs is waited for no longer than that. */
static void stop_keeper(struct notifier *n)
{
	struct keeper *k = n->keeper;
	struct timespec until = deadline(FILE_PATIENCE_US, CLOCK_REALTIME);

	if (!k)
		return;
	pthread_mutex_lock(&k->lock);
	k->stop = true;
	pthread_cond_broadcast(&k->changed);
	pthread_mutex_unlock(&k->lock);
	if (pthread_timedjoin_np(n->keeper_thread, NULL, &until) != 0)
		pthread_detach(n->keeper_thread);
	keeper_put(k);
}

int notifier_new(const struct notifier_options *options, struct notifier **ret, struct err *err)
{
	struct notifier *n = calloc(1, sizeof(*n));

	if (!n)
		return err_set(err, ERR_NOMEM, 0, "no memory for alerts");
	n->options = *options;
	pthread_mutex_init(&n->lock, NULL);
	int rc = copy_texts(&n->options, options)
	                 ? 0
	                 : err_set(err, ERR_NOMEM, 0, "no memory for alerts");
	if (rc == 0)
		rc = set_up(n, err);
	if (rc == 0)
		rc = start_keeper(n, err);
	if (rc == 0)
		rc = start_thread(&n->thread, notifier_main, n, "asof-alerts", err);
	if (rc < 0) {
		stop_keeper(n);
		release(n);
		return rc;
	}
	*ret = n;
	return 0;
}

void notifier_stop(struct notifier *n)
{
	pthread_mutex_lock(&n->lock);
	n->stop = true;
	n->ready = false;
	pthread_mutex_unlock(&n->lock);
	curl()->multi_wakeup(n->multi);
	pthread_join(n->thread, NULL);
	stop_keeper(n);
	n->keeper = NULL;
	n->stopped = true;
}

void notifier_free(struct notifier *n)
{
	if (!n)
		return;
	if (!n->stopped)
		notifier_stop(n);
	release(n);
}
