/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/observe/facts.h"

#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "engine/observe/facts_i.h"

#include <malloc.h>
#include <string.h>

#define STACK_BYTES ((size_t)512 << 10)
/* Nobody asked for so long: archives are closed, memory goes back. */
#define IDLE_US (60 * US_PER_SECOND)

struct collector {
	char socket[HEALTH_PATH_MAX];
	pthread_t thread;
	struct collecting work; /* of the thread */

	pthread_mutex_t lock;
	pthread_cond_t changed; /* something is wanted, or was published; on the monotonic clock */
	struct config_ref *config;
	struct facts *facts;   /* the newest; never NULL */
	uint64_t wanted, done; /* numbers of collections */
	bool stopping;
	char listen_problem[HEALTH_TEXT_MAX];
};

/* ---- references ---- */

struct config_ref *config_ref_new(struct config *c)
{
	struct config_ref *r = malloc(sizeof(*r));

	if (!r) {
		config_free(c);
		return NULL;
	}
	*r = (struct config_ref){.config = c, .users = 1};
	return r;
}

struct config_ref *config_ref_get(struct config_ref *r)
{
	r->users++;
	return r;
}

void config_ref_put(struct config_ref *r)
{
	if (!r || --r->users)
		return;
	config_free(r->config);
	free(r);
}

void facts_put(struct facts *f)
{
	if (!f || --f->users)
		return;
	health_facts_release(&f->f);
	free(f);
}

static struct facts *facts_new(void)
{
	struct facts *f = calloc(1, sizeof(*f));

	if (f)
		f->users = 1;
	return f;
}

/* Rows are few where they are large: one more at a time, in powers of two. */
void *facts_add(void *array, size_t *n, size_t size)
{
	void **rows = array;

	if ((*n & (*n - 1)) == 0) { /* full: 0, 1, 2, 4 … */
		void *p = realloc(*rows, (*n ? 2 * *n : 1) * size);
		if (!p)
			return NULL;
		*rows = p;
	}
	void *row = (char *)*rows + (*n)++ * size;
	memset(row, 0, size);
	return row;
}

/* ---- collecting ---- */

/* What the archives have of the databases that are known by now. */
static int read_archives(struct collecting *work, const struct config *config,
                         struct health_facts *f, struct err *err)
{
	int rc = facts_read_histories(work, config, f, err);

	rc = rc ? rc : facts_read_archives(work, config, f, err);
	return rc ? rc : facts_read_journal(work, config, f, err);
}

static int collect(struct collector *c, const struct config *config,
                   const struct health_facts *former, struct health_facts *f, struct err *err)
{
	int64_t began_us = clock_mono_us();

	int rc = facts_ask_daemon(c->socket, config, former, f, err);
	rc = rc ? rc : read_archives(&c->work, config, f, err);
	f->took_us = clock_mono_us() - began_us;
	f->at_us = clock_now_us();
	f->boot_us = clock_boot_us();
	health_watch_clock(former, f);
	return rc;
}

int facts_collect_once(const struct facts_once *once, struct facts **ret, struct err *err)
{
	static const struct config none = {0};
	static const struct health_facts nothing = {0};
	const struct config *config = once->config ? once->config : &none;
	struct collecting work = {0};
	struct facts *f = facts_new();

	if (!f)
		return err_set(err, ERR_NOMEM, 0, "no memory");
	int rc = archives_new(&work.archives, err);
	rc = rc ? rc
	        : facts_take_daemon(once->status, once->jobs, once->problem, config, &nothing,
	                            &f->f, err);
	if (rc == 0 && once->archive)
		rc = facts_add_archive(once->archive, work.archives, &f->f, err);
	rc = rc ? rc : read_archives(&work, config, &f->f, err);
	f->f.at_us = clock_now_us();
	facts_close_histories(&work);
	free(work.tracked);
	facts_release_cached(&work);
	archives_free(work.archives);
	if (rc < 0)
		facts_put(f);
	else
		*ret = f;
	return rc;
}

static void publish(struct collector *c, struct facts *fresh, uint64_t number)
{
	struct facts *former = NULL;

	pthread_mutex_lock(&c->lock);
	if (fresh) {
		memcpy(fresh->f.listen_problem, c->listen_problem, sizeof(c->listen_problem));
		former = c->facts;
		c->facts = fresh;
	}
	c->done = number;
	pthread_cond_broadcast(&c->changed);
	pthread_mutex_unlock(&c->lock);
	facts_put(former);
}

static void collect_once(struct collector *c, struct config_ref *config, struct facts *former,
                         uint64_t number)
{
	struct err why = ERR_INIT;
	struct facts *fresh = facts_new();

	if (fresh && collect(c, config->config, &former->f, &fresh->f, &why) < 0) {
		log_error("observe", "facts could not be collected: %s", why.msg);
		facts_put(take_ptr(fresh));
	}
	publish(c, fresh, number);
	facts_put(former);
	config_ref_put(config);
}

static void rest(struct collector *c)
{
	facts_close_histories(&c->work);
	facts_release_cached(&c->work);
	archives_close_idle(c->work.archives, 0);
	malloc_trim(0);
}

/* True: there is something to do; false: nobody asked for IDLE_US. */
static bool wait_for_work(struct collector *c, bool resting)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += IDLE_US / US_PER_SECOND;
	while (!c->stopping && c->wanted == c->done) {
		if (resting)
			pthread_cond_wait(&c->changed, &c->lock);
		else if (pthread_cond_timedwait(&c->changed, &c->lock, &until) != 0)
			return false;
	}
	return true;
}

static void *collector_main(void *arg)
{
	struct collector *c = arg;
	bool resting = true;

	pthread_mutex_lock(&c->lock);
	while (!c->stopping) {
		bool work = wait_for_work(c, resting);
		if (c->stopping)
			break;
		uint64_t number = c->wanted;
		struct config_ref *config = work ? config_ref_get(c->config) : NULL;
		struct facts *former = c->facts;
		former->users += work;
		pthread_mutex_unlock(&c->lock);
		if (work)
			collect_once(c, config, former, number);
		else
			rest(c);
		resting = !work;
		pthread_mutex_lock(&c->lock);
	}
	pthread_mutex_unlock(&c->lock);
	return NULL;
}

/* ---- asking ---- */

struct facts *collector_get(struct collector *c, int64_t max_age_us, int64_t patience_us)
{
	struct timespec until;
	LOCK_SCOPE(&c->lock);

	int64_t age_us = clock_now_us() - c->facts->f.at_us;
	/* A clock that was set back makes them too old as well. */
	if (c->facts->f.at_us == 0 || age_us > max_age_us || age_us < 0) {
		clock_gettime(CLOCK_MONOTONIC, &until);
		int64_t ns = until.tv_nsec + patience_us % US_PER_SECOND * 1000;
		until.tv_sec += (time_t)(patience_us / US_PER_SECOND + ns / 1000000000);
		until.tv_nsec = ns % 1000000000;
		/* One that is under way began before this was asked. */
		uint64_t mine = c->wanted == c->done ? c->wanted + 1 : c->wanted;
		if (mine > c->wanted) {
			c->wanted = mine;
			pthread_cond_broadcast(&c->changed);
		}
		while (c->done < mine && !c->stopping &&
		       pthread_cond_timedwait(&c->changed, &c->lock, &until) == 0)
			;
	}
	c->facts->users++;
	return c->facts;
}

void collector_set_config(struct collector *c, struct config_ref *config)
{
	LOCK_SCOPE(&c->lock);

	config_ref_put(c->config);
	c->config = config_ref_get(config);
}

void collector_set_listen_problem(struct collector *c, const char *text)
{
	LOCK_SCOPE(&c->lock);

	snprintf(c->listen_problem, sizeof(c->listen_problem), "%s", text);
}

/* ---- life ---- */

int collector_new(const struct collector_options *options, struct collector **ret, struct err *err)
{
	struct collector *c = calloc(1, sizeof(*c));
	struct facts *none = facts_new();
	pthread_condattr_t monotonic;
	pthread_attr_t attr;

	if (!c || !none) {
		free(c);
		facts_put(none);
		return err_set(err, ERR_NOMEM, 0, "no memory");
	}
	snprintf(c->socket, sizeof(c->socket), "%s", options->socket);
	c->facts = none;
	c->config = config_ref_get(options->config);
	c->work.archives = options->archives;
	pthread_mutex_init(&c->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&c->changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	int rc = pthread_create(&c->thread, &attr, collector_main, c);
	pthread_attr_destroy(&attr);
	if (rc) {
		config_ref_put(c->config);
		facts_put(c->facts);
		free(c);
		return err_set(err, ERR_NOMEM, 0, "cannot start a thread");
	}
	pthread_setname_np(c->thread, "facts");
	*ret = c;
	return 0;
}

void collector_free(struct collector *c)
{
	if (!c)
		return;
	pthread_mutex_lock(&c->lock);
	c->stopping = true;
	pthread_cond_broadcast(&c->changed);
	pthread_mutex_unlock(&c->lock);
	pthread_join(c->thread, NULL);
	facts_close_histories(&c->work);
	free(c->work.tracked);
	facts_release_cached(&c->work);
	facts_put(c->facts);
	config_ref_put(c->config);
	pthread_cond_destroy(&c->changed);
	pthread_mutex_destroy(&c->lock);
	free(c);
}
