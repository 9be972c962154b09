/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/daemon/shipping.h"

#include "engine/base/clock.h"
#include "engine/base/hash.h"
#include "engine/base/lock.h"
#include "engine/base/log.h"
#include "engine/base/pool.h"
#include "engine/ship/ship.h"

#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define THREADS 16u
#define THREADS_OF_STORE 8u
#define STACK_BYTES ((size_t)512 << 10)
#define NICE 10
#define SLACK_US 100000
#define BUSY_STORE_US 50000
#define RETRY_MIN_US US_PER_SECOND
#define RETRY_MAX_US (30 * US_PER_SECOND)
#define REFUSED_US (300 * US_PER_SECOND)
#define PATIENCE_MS 15000
#define REST_US (10 * US_PER_SECOND)
#define OPEN_MAX 64u
#define WARN_EVERY_US (60 * US_PER_SECOND)

/* A store that several jobs use. */
struct place {
	struct place *next;
	uint64_t key;
	struct store *store;
	unsigned refs;
	_Atomic unsigned busy;     /* threads in it */
	_Atomic int64_t retry_us;  /* monotonic: not asked before; 0: it answers */
	_Atomic int64_t wait_us;   /* the distance of tries */
	_Atomic int64_t warned_us; /* monotonic */
};

struct job {
	struct job *next;
	struct shipping *shipping;
	uint64_t key, of_database; /* hashes: of all that makes it, of archive and name */
	char *archive, *name, *label, *url;
	int64_t interval_us;
	struct place *place;
	struct pool_task *task;
	bool seen;
	_Atomic bool asleep; /* until news come */
	_Atomic bool done;   /* nothing was left, as of the last step */
	/* ---- of the task ---- */
	struct shipper *shipper;
	bool open;         /* counted among those whose history is */
	int64_t next_us;   /* monotonic: not before */
	int64_t worked_us; /* monotonic */
	int64_t wait_us;   /* the distance of tries */
	int64_t warned_us; /* monotonic */
	bool failing;
	struct err err; /* of the last step */
};

struct shipping {
	struct pool *pool;
	pthread_mutex_t lock; /* jobs, places */
	struct job *jobs;
	struct place *places;
	_Atomic unsigned n_open;
	_Atomic bool ending;
	_Atomic bool stop;
	int64_t end_us; /* monotonic */
};

/* ---- stores ---- */

static uint64_t text_hash(const char *text, uint64_t seed)
{
	return text ? hash64(text, strlen(text) + 1, seed) : seed + 1;
}

void shipping_store_options(const struct shipping_destination *d, struct store_options *o)
{
	const struct config_s3 *c = d->s3;

	o->sftp_key_file = d->sftp_identity;
	o->sftp_host_key = d->sftp_host_key;
	o->key_file = d->key_file;
	o->key_command = d->key_command;
	if (!c)
		return;
	o->s3.region = c->region;
	o->s3.endpoint = c->endpoint;
	o->s3.storage_class = c->storage_class;
	o->s3.access_key_id = c->access_key_id;
	o->s3.secret_access_key = c->secret_access_key.text;
	o->s3.session_token = c->session_token.text;
	o->s3.profile = c->profile;
	o->s3.ca_file = c->ca_file;
	o->s3.proxy = c->proxy;
	o->s3.sse = c->sse;
	o->s3.sse_kms_key_id = c->sse_kms_key_id;
	o->s3.sse_customer_key = c->sse_customer_key.text;
	o->s3.skip_verify = c->skip_verify;
}

static uint64_t place_key(const char *url, const struct store_options *all)
{
	const struct store_s3_options *o = &all->s3;
	uint64_t h = text_hash(url, 1);

	h = text_hash(o->region, h);
	h = text_hash(o->endpoint, h);
	h = text_hash(o->storage_class, h);
	h = text_hash(o->access_key_id, h);
	h = text_hash(o->secret_access_key, h);
	h = text_hash(o->session_token, h);
	h = text_hash(o->sse, h);
	h = text_hash(o->sse_kms_key_id, h);
	h = text_hash(o->sse_customer_key, h);
	h = text_hash(all->sftp_key_file, h);
	h = text_hash(all->sftp_host_key, h);
	h = text_hash(all->key_file, h);
	h = text_hash(all->key_command, h);
	return h + o->skip_verify;
}

/* Under the lock. */
static int get_place(struct shipping *s, const char *url, const struct store_options *o,
                     struct place **ret, struct err *err)
{
	uint64_t key = place_key(url, o);

	for (struct place *p = s->places; p; p = p->next)
		if (p->key == key) {
			p->refs++;
			*ret = p;
			return 0;
		}
	struct place *p = calloc(1, sizeof(*p));
	if (!p)
		return err_set(err, ERR_NOMEM, 0, "no memory for a destination");
	int rc = store_open(url, o, &p->store, err);
	if (rc < 0) {
		free(p);
		return rc;
	}
	p->key = key;
	p->refs = 1;
	p->wait_us = RETRY_MIN_US;
	p->next = s->places;
	s->places = p;
	*ret = p;
	return 0;
}

/* Under the lock. */
static void put_place(struct shipping *s, struct place *p)
{
	if (!p || --p->refs > 0)
		return;
	for (struct place **at = &s->places; *at; at = &(*at)->next)
		if (*at == p) {
			*at = p->next;
			break;
		}
	store_free(p->store);
	free(p);
}

/* Whether this task may ask it now; else *ret_us: when to come again. */
static bool enter_place(struct job *j, int64_t *ret_us)
{
	struct place *p = j->place;
	int64_t now_us = clock_mono_us(), retry_us = p->retry_us;

	if (retry_us > now_us) {
		*ret_us = retry_us - now_us;
		return false;
	}
	/* One finds out for all. */
	if (retry_us &&
	    !atomic_compare_exchange_strong(&p->retry_us, &retry_us, now_us + p->wait_us)) {
		*ret_us = p->wait_us;
		return false;
	}
	if (atomic_fetch_add(&p->busy, 1) < THREADS_OF_STORE)
		return true;
	p->busy--;
	*ret_us = BUSY_STORE_US;
	return false;
}

static void leave_place(struct job *j, const struct err *why)
{
	struct place *p = j->place;
	int64_t now_us = clock_mono_us();

	p->busy--;
	if (why->kind != ERR_UNAVAILABLE) {
		if (p->retry_us)
			log_info("ship", "destination answers again to=%s", p->store->label);
		p->retry_us = 0;
		p->wait_us = RETRY_MIN_US;
		return;
	}
	int64_t wait_us = p->wait_us;
	p->retry_us = now_us + wait_us;
	p->wait_us = wait_us * 2 > RETRY_MAX_US ? RETRY_MAX_US : wait_us * 2;
	if (!p->warned_us || now_us - p->warned_us > WARN_EVERY_US) {
		p->warned_us = now_us;
		log_error("ship", "destination does not answer, trying again in_s=%lld to=%s: %s",
		          (long long)(wait_us / US_PER_SECOND), p->store->label, why->msg);
	}
}

/* ---- the task ---- */

static int open_shipper(struct job *j, struct err *err)
{
	const struct ship_options o = {.archive = j->archive,
	                               .name = j->name,
	                               .url = j->url,
	                               .store = j->place->store,
	                               .stop = &j->shipping->stop};

	return j->shipper ? 0 : shipper_new(&o, &j->shipper, err);
}

static int64_t rest(struct job *j)
{
	int64_t us = INT64_MAX;

	if (j->shipper)
		shipper_rest(j->shipper, &us);
	if (j->open)
		j->shipping->n_open--;
	j->open = false;
	return us == INT64_MAX ? POOL_WHEN_WOKEN : us + US_PER_SECOND;
}

static void count_open(struct job *j)
{
	if (!j->open)
		j->shipping->n_open++;
	j->open = true;
}

static int64_t failed(struct job *j, const struct err *why)
{
	int64_t now_us = clock_mono_us();

	j->err = *why;
	j->failing = why->kind != ERR_NOT_FOUND || j->shipper;
	rest(j);
	if (why->kind == ERR_CANCELLED)
		return POOL_WHEN_WOKEN;
	if (why->kind == ERR_NOT_FOUND && !j->shipper) { /* nothing was captured yet */
		j->done = true;
		return POOL_WHEN_WOKEN;
	}
	if (why->kind != ERR_UNAVAILABLE &&
	    (!j->warned_us || now_us - j->warned_us > WARN_EVERY_US)) {
		j->warned_us = now_us;
		log_error("ship", "not sent, trying again db=%s to=%s: %s", j->name, j->label,
		          why->msg);
	}
	int64_t wait_us = why->kind == ERR_REFUSED ? REFUSED_US : j->wait_us;
	j->wait_us = j->wait_us * 2 > RETRY_MAX_US ? RETRY_MAX_US : j->wait_us * 2;
	j->done = why->kind == ERR_REFUSED;
	j->next_us = now_us + wait_us;
	return wait_us;
}

static int64_t worked(struct job *j, bool more)
{
	int64_t now_us = clock_mono_us(), wait_us;

	if (j->failing)
		log_info("ship", "sent again db=%s to=%s", j->name, j->label);
	j->failing = false;
	j->warned_us = 0;
	j->wait_us = RETRY_MIN_US;
	j->worked_us = now_us;
	j->err = (struct err)ERR_INIT;
	j->done = !more;
	if (more) {
		wait_us = shipper_wait_us(j->shipper);
		j->next_us = now_us + wait_us;
		return wait_us;
	}
	j->next_us = now_us + j->interval_us;
	if (j->shipping->n_open > OPEN_MAX)
		return rest(j);
	return REST_US;
}

static int64_t job_step(void *ctx)
{
	struct job *j = ctx;
	struct err why = ERR_INIT;
	int64_t now_us = clock_mono_us(), wait_us;
	bool more = false, ending = j->shipping->ending;

	/* Left as it is: what came between here and going to sleep must not be forgotten. */
	bool news = !j->asleep;
	if (j->shipping->stop)
		return POOL_WHEN_WOKEN;
	if (!ending && now_us < j->next_us)
		return j->next_us - now_us;
	if (!news && !j->failing && j->worked_us && !ending && j->done) { /* nothing came */
		wait_us = rest(j);
		if (wait_us == POOL_WHEN_WOKEN || wait_us > US_PER_SECOND)
			return wait_us;
	}
	if (!enter_place(j, &wait_us))
		return wait_us;
	j->asleep = true; /* first: news that come from here on wake */
	int rc = open_shipper(j, &why);
	if (rc == 0) {
		count_open(j);
		rc = shipper_step(j->shipper, &more, &why);
	}
	leave_place(j, &why);
	return rc < 0 ? failed(j, &why) : worked(j, more);
}

void shipping_news(void *ctx, const char *archive, const char *name)
{
	struct shipping *s = ctx;
	uint64_t of = text_hash(name, text_hash(archive, 2));
	LOCK_SCOPE(&s->lock);

	for (struct job *j = s->jobs; j; j = j->next)
		if (j->of_database == of && atomic_exchange(&j->asleep, false))
			pool_wake(j->task);
}

/* ---- which there are ---- */

static void free_job(struct job *j)
{
	free(j->archive);
	free(j->name);
	free(j->label);
	free(j->url);
	free(j);
}

static uint64_t job_key(const struct shipping_destination *d, const struct store_options *o)
{
	uint64_t h = place_key(d->url, o);

	h = text_hash(d->archive, h);
	h = text_hash(d->name, h);
	h = text_hash(d->label, h);
	return hash64(&d->interval_us, sizeof(d->interval_us), h);
}

static struct job *find_job(struct shipping *s, uint64_t key)
{
	for (struct job *j = s->jobs; j; j = j->next)
		if (j->key == key)
			return j;
	return NULL;
}

int shipping_add(struct shipping *s, const struct shipping_destination *d, struct err *err)
{
	struct store_options o = {.patience_ms = PATIENCE_MS, .create = true, .stop = &s->stop};

	shipping_store_options(d, &o);
	uint64_t key = job_key(d, &o);
	LOCK_SCOPE(&s->lock);
	struct job *j = find_job(s, key);
	if (j) {
		j->seen = true;
		return 0;
	}
	j = calloc(1, sizeof(*j));
	if (!j)
		return err_set(err, ERR_NOMEM, 0, "no memory for a destination");
	j->shipping = s;
	j->key = key;
	j->of_database = text_hash(d->name, text_hash(d->archive, 2));
	j->archive = strdup(d->archive);
	j->name = strdup(d->name);
	j->label = strdup(d->label);
	j->url = strdup(d->url);
	j->interval_us = d->interval_us;
	j->wait_us = RETRY_MIN_US;
	j->seen = true;
	int rc = j->archive && j->name && j->label && j->url
	                 ? get_place(s, d->url, &o, &j->place, err)
	                 : err_set(err, ERR_NOMEM, 0, "no memory for a destination");
	if (rc == 0)
		rc = pool_add(s->pool, job_step, j, &j->task, err);
	if (rc < 0) {
		put_place(s, j->place);
		free_job(j);
		return rc;
	}
	j->next = s->jobs;
	s->jobs = j;
	return 0;
}

/* Not under the lock: its step may be waiting for that. */
static void remove_job(struct shipping *s, struct job *j)
{
	pool_remove(j->task);
	rest(j);
	shipper_free(j->shipper);
	pthread_mutex_lock(&s->lock);
	put_place(s, j->place);
	pthread_mutex_unlock(&s->lock);
	free_job(j);
}

void shipping_destination_of(const struct config_destination *c, struct shipping_destination *ret)
{
	*ret = (struct shipping_destination){.label = c->name,
	                                     .url = c->url,
	                                     .s3 = &c->s3,
	                                     .sftp_identity = c->sftp_identity,
	                                     .sftp_host_key = c->sftp_host_key,
	                                     .key_file = c->key_file,
	                                     .key_command = c->key_command,
	                                     .interval_us = c->sync_interval_us};
}

static void add_all(struct shipping *s, const struct fleet_entry *e)
{
	for (size_t i = 0; e->config && i < e->config->n_destinations; i++) {
		const struct config_destination *c = &e->config->destinations[i];
		struct shipping_destination d;
		shipping_destination_of(c, &d);
		d.archive = e->archive;
		d.name = e->name;
		struct err why = ERR_INIT;
		if (c->type == CONFIG_DEST_FILE || c->not_configured)
			continue;
		if (shipping_add(s, &d, &why) < 0)
			log_error("ship", "nothing is sent to this destination db=%s to=%s: %s",
			          e->name, c->name, why.msg);
	}
}

void shipping_apply(struct shipping *s, struct fleet *f)
{
	struct fleet_entry e;

	pthread_mutex_lock(&s->lock);
	for (struct job *j = s->jobs; j; j = j->next)
		j->seen = false;
	pthread_mutex_unlock(&s->lock);
	for (size_t i = 0; fleet_get(f, i, &e); i++)
		add_all(s, &e);
	for (;;) {
		struct job *gone = NULL;
		pthread_mutex_lock(&s->lock);
		for (struct job **at = &s->jobs; *at && !gone; at = &(*at)->next)
			if (!(*at)->seen) {
				gone = *at;
				*at = gone->next;
				break;
			}
		pthread_mutex_unlock(&s->lock);
		if (!gone)
			return;
		remove_job(s, gone);
	}
}

/* ---- life ---- */

static void thread_begin(void)
{
	setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), NICE);
}

int shipping_new(struct shipping **ret, struct err *err)
{
	const struct pool_options po = {.name = "ship",
	                                .max_threads = THREADS,
	                                .stack_bytes = STACK_BYTES,
	                                .thread_begin = thread_begin,
	                                .slack_us = SLACK_US};
	struct shipping *s = calloc(1, sizeof(*s));

	if (!s)
		return err_set(err, ERR_NOMEM, 0, "no memory");
	lock_init_inherit(&s->lock);
	int rc = pool_new(&po, &s->pool, err);
	if (rc < 0) {
		free(s);
		return rc;
	}
	*ret = s;
	return 0;
}

void shipping_end(struct shipping *s, int64_t timeout_us)
{
	if (s->ending)
		return;
	s->end_us = clock_mono_us() + timeout_us;
	LOCK_SCOPE(&s->lock);
	for (struct job *j = s->jobs; j; j = j->next)
		j->done = false;
	s->ending = true;
	for (struct job *j = s->jobs; j; j = j->next)
		pool_wake(j->task);
}

bool shipping_ended(struct shipping *s)
{
	bool all = true;

	if (!s->ending)
		return false;
	pthread_mutex_lock(&s->lock);
	for (struct job *j = s->jobs; j; j = j->next)
		all = all && j->done;
	pthread_mutex_unlock(&s->lock);
	if (!all && clock_mono_us() < s->end_us)
		return false;
	s->stop = true;
	return true;
}

int shipping_result(struct shipping *s, struct err *err)
{
	LOCK_SCOPE(&s->lock);
	for (struct job *j = s->jobs; j; j = j->next)
		if (j->err.kind != ERR_NONE && !(j->err.kind == ERR_NOT_FOUND && !j->shipper))
			return err_copy(err, &j->err);
	return 0;
}

void shipping_free(struct shipping *s)
{
	if (!s)
		return;
	s->stop = true;
	while (s->jobs) {
		struct job *j = s->jobs;
		pthread_mutex_lock(&s->lock);
		s->jobs = j->next;
		pthread_mutex_unlock(&s->lock);
		remove_job(s, j);
	}
	pool_free(s->pool);
	pthread_mutex_destroy(&s->lock);
	free(s);
}
