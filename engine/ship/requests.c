/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/ship/ship_i.h"

#include <stdio.h>

/* Others read of it in the file, at most so often. */
#define TELL_EVERY_US US_PER_SECOND

void ship_key(const struct shipper *s, const char *file, char out[SHIP_KEY_MAX])
{
	snprintf(out, SHIP_KEY_MAX, "local/%s/%s", s->name, file);
}

int ship_stopped(const struct shipper *s, struct err *err)
{
	return s->options.stop && *s->options.stop ? err_set(err, ERR_CANCELLED, 0, "stopped") : 0;
}

static void count(struct shipper *s, enum store_verb verb, uint64_t sent, uint64_t received)
{
	pthread_mutex_lock(&s->lock);
	s->status.requests[verb]++;
	s->status.sent_bytes += sent;
	s->status.received_bytes += received;
	pthread_mutex_unlock(&s->lock);
}

/* Without conditional writes: EXISTS where something is there. */
static int check_free(struct shipper *s, const char *key, struct err *err)
{
	cleanup_source struct source *src = NULL;
	struct err why = ERR_INIT;
	uint64_t bytes;

	count(s, STORE_HEAD, 0, 0);
	int rc = store_open_object(s->options.store, key, UINT64_MAX, &src, &why);
	if (rc == 0)
		rc = src->size(src, &bytes, &why);
	if (rc < 0)
		return why.kind == ERR_NOT_FOUND ? 0 : err_copy(err, &why);
	return err_set(err, ERR_EXISTS, 0, "'%s' is there already in %s", key, s->url);
}

/* Of a put that must not replace; the flags that the store is asked with. */
static int check_flags(struct shipper *s, const char *key, unsigned *flags, struct err *err)
{
	if (!s->no_create || !(*flags & STORE_CREATE))
		return 0;
	*flags &= ~(unsigned)STORE_CREATE;
	return check_free(s, key, err);
}

/* ---- progress: a first snapshot may be on its way for hours ---- */

struct progress {
	struct source source;
	struct source *from;
	struct shipper *shipper;
	_Atomic int64_t told_us; /* monotonic */
};

static void tell_progress(struct progress *p)
{
	int64_t now_us = clock_mono_us(), told_us = p->told_us;
	struct err ignored = ERR_INIT;

	if (now_us - told_us < TELL_EVERY_US ||
	    !atomic_compare_exchange_strong(&p->told_us, &told_us, now_us))
		return;
	pthread_mutex_lock(&p->shipper->lock);
	p->shipper->status.progress_us = clock_now_us();
	pthread_mutex_unlock(&p->shipper->lock);
	(void)!ship_status_write(p->shipper, &ignored); /* the step's end complains */
}

static int progress_pread(struct source *s, void *buf, size_t len, uint64_t offset, struct err *err)
{
	struct progress *p = (struct progress *)s;

	tell_progress(p);
	const struct ship_options *o = &p->shipper->options;
	bool stopped = false;
	if (o->progress && !atomic_flag_test_and_set(&p->shipper->telling)) {
		stopped = !o->progress(o->ctx, offset);
		atomic_flag_clear(&p->shipper->telling);
	}
	if (stopped)
		return err_set(err, ERR_CANCELLED, 0, "stopped");
	return p->from->pread(p->from, buf, len, offset, err);
}

static int progress_size(struct source *s, uint64_t *ret_bytes, struct err *err)
{
	struct progress *p = (struct progress *)s;

	return p->from->size(p->from, ret_bytes, err);
}

int ship_put(struct shipper *s, const char *file, struct source *body, uint64_t bytes,
             unsigned flags, struct err *err)
{
	char key[SHIP_KEY_MAX];

	int rc = ship_stopped(s, err);
	if (rc < 0)
		return rc;
	ship_key(s, file, key);
	if ((rc = check_flags(s, key, &flags, err)) < 0)
		return rc;
	count(s, STORE_PUT, bytes, 0);
	struct progress p = {.source = {.pread = progress_pread,
	                                .size = progress_size,
	                                .name = body->name,
	                                .remote = body->remote},
	                     .from = body,
	                     .shipper = s,
	                     .told_us = INT64_MIN / 2};
	return store_put(s->options.store, key, &p.source, bytes, flags, err);
}

int ship_put_bytes(struct shipper *s, const char *file, const void *p, size_t len, unsigned flags,
                   struct err *err)
{
	char key[SHIP_KEY_MAX];

	int rc = ship_stopped(s, err);
	if (rc < 0)
		return rc;
	ship_key(s, file, key);
	if ((rc = check_flags(s, key, &flags, err)) < 0)
		return rc;
	count(s, STORE_PUT, len, 0);
	return store_put_bytes(s->options.store, key, p, len, flags, err);
}

int ship_get(struct shipper *s, const char *file, size_t max_bytes, struct buf *ret,
             struct err *err)
{
	char key[SHIP_KEY_MAX];

	int rc = ship_stopped(s, err);
	if (rc < 0)
		return rc;
	ship_key(s, file, key);
	rc = store_get(s->options.store, key, max_bytes, ret, err);
	count(s, STORE_GET, 0, rc == 0 ? ret->len : 0);
	return rc;
}

int ship_remove(struct shipper *s, const char *file, struct err *err)
{
	char key[SHIP_KEY_MAX];

	int rc = ship_stopped(s, err);
	if (rc < 0)
		return rc;
	ship_key(s, file, key);
	count(s, STORE_DELETE, 0, 0);
	return store_remove(s->options.store, key, err);
}
