/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One list, most recently used first.  It holds what is in use (bounded by the kernel's open
 * files) and at most max_idle others.  A view being opened is in the list already, so that
 * whoever wants the same one waits for it and not for the lock.
 */
#include "fs/views.h"

#include "engine/base/clock.h"

struct fs_view {
	struct fs_db *db;
	uint64_t txid;
	struct view *view;    /* set once, before `state` says OPEN */
	unsigned n_refs;      /* under fs_views.lock, as is all below */
	int64_t idle_mono_us; /* since when nobody uses it */
	enum { OPENING, OPEN, FAILED } state;
	struct fs_view *prev, *next;
};

struct fs_views {
	size_t max_idle;
	pthread_mutex_t lock;
	pthread_cond_t opened;
	struct fs_view *head, *tail; /* under lock, as is all below */
	size_t n, n_idle;
};

int fs_views_new(size_t max_idle, struct fs_views **ret, struct err *err)
{
	struct fs_views *views = calloc(1, sizeof(*views));

	if (!views)
		return err_set(err, ERR_NOMEM, 0, "no memory for the table of open views");
	views->max_idle = max_idle;
	pthread_mutex_init(&views->lock, NULL);
	pthread_cond_init(&views->opened, NULL);
	*ret = views;
	return 0;
}

static void unlink_view(struct fs_views *views, struct fs_view *v)
{
	*(v->prev ? &v->prev->next : &views->head) = v->next;
	*(v->next ? &v->next->prev : &views->tail) = v->prev;
	v->prev = v->next = NULL;
	views->n--;
}

static void push_front(struct fs_views *views, struct fs_view *v)
{
	v->prev = NULL;
	v->next = views->head;
	*(v->next ? &v->next->prev : &views->tail) = v;
	views->head = v;
	views->n++;
}

static void free_view(struct fs_view *v)
{
	if (v->view)
		view_free(v->view);
	free(v);
}

void fs_views_free(struct fs_views *views)
{
	if (!views)
		return;
	while (views->head) {
		struct fs_view *v = views->head;
		unlink_view(views, v);
		free_view(v);
	}
	pthread_cond_destroy(&views->opened);
	pthread_mutex_destroy(&views->lock);
	free(views);
}

struct view *fs_view_engine(struct fs_view *v)
{
	return v->view;
}

bool fs_views_moment(struct fs_views *views, const struct fs_db *db, uint64_t txid,
                     struct moment *ret)
{
	LOCK_SCOPE(&views->lock);
	struct fs_view *v = views->head;

	while (v && (v->db != db || v->txid != txid || v->state != OPEN))
		v = v->next;
	if (v)
		*ret = *view_moment(v->view);
	return v;
}

size_t fs_views_count(struct fs_views *views)
{
	LOCK_SCOPE(&views->lock);
	return views->n;
}

/* The one there is, with a reference, once it is open; NULL: there is none.  Under lock. */
static struct fs_view *find_open(struct fs_views *views, struct fs_db *db, uint64_t txid)
{
	struct fs_view *v = views->head;

	while (v && (v->db != db || v->txid != txid || v->state == FAILED))
		v = v->next;
	if (!v)
		return NULL;
	if (v->n_refs++ == 0)
		views->n_idle--;
	while (v->state == OPENING)
		pthread_cond_wait(&views->opened, &views->lock);
	if (v->state == OPEN) {
		unlink_view(views, v);
		push_front(views, v);
	}
	return v;
}

/* Gives a reference back; what is to be freed goes to `*ret_free`, outside the lock. */
static void release(struct fs_views *views, struct fs_view *v, struct fs_view **ret_free)
{
	if (--v->n_refs > 0)
		return;
	if (v->state == FAILED) {
		unlink_view(views, v);
		*ret_free = v;
		return;
	}
	v->idle_mono_us = clock_mono_us();
	if (++views->n_idle <= views->max_idle)
		return;
	for (v = views->tail; v->n_refs > 0;)
		v = v->prev;
	unlink_view(views, v);
	views->n_idle--;
	*ret_free = v;
}

void fs_views_put(struct fs_views *views, struct fs_view *v)
{
	struct fs_view *unused = NULL;

	pthread_mutex_lock(&views->lock);
	release(views, v, &unused);
	pthread_mutex_unlock(&views->lock);
	if (unused)
		free_view(unused);
}

/* One that is idle since that time, or NULL. */
static struct fs_view *take_idle(struct fs_views *views, int64_t mono_us)
{
	LOCK_SCOPE(&views->lock);
	struct fs_view *v = views->tail;

	while (v && (v->n_refs > 0 || v->idle_mono_us > mono_us))
		v = v->prev;
	if (v) {
		unlink_view(views, v);
		views->n_idle--;
	}
	return v;
}

void fs_views_drop_idle(struct fs_views *views, int64_t mono_us)
{
	struct fs_view *v;

	while ((v = take_idle(views, mono_us)))
		free_view(v);
}

static int open_new(struct fs_views *views, struct fs_view *v, struct err *err)
{
	int rc = view_open(v->db->history, v->txid, &v->view, err);

	pthread_mutex_lock(&views->lock);
	v->state = rc < 0 ? FAILED : OPEN;
	pthread_cond_broadcast(&views->opened);
	pthread_mutex_unlock(&views->lock);
	if (rc < 0)
		fs_views_put(views, v);
	return rc;
}

int fs_views_get(struct fs_views *views, struct fs_db *db, uint64_t txid, struct fs_view **ret,
                 struct err *err)
{
	struct fs_view *fresh cleanup_free = calloc(1, sizeof(*fresh));

	if (!fresh)
		return err_set(err, ERR_NOMEM, 0, "no memory for a view");
	*fresh = (struct fs_view){.db = db, .txid = txid, .n_refs = 1, .state = OPENING};
	for (;;) {
		pthread_mutex_lock(&views->lock);
		struct fs_view *v = find_open(views, db, txid);
		bool failed = v && v->state == FAILED;
		if (!v)
			push_front(views, fresh);
		pthread_mutex_unlock(&views->lock);
		if (!v)
			break;
		if (!failed) {
			*ret = v;
			return 0;
		}
		/* Whoever opened it has reported why; this caller finds out for itself. */
		fs_views_put(views, v);
	}
	struct fs_view *v = take_ptr(fresh);
	int rc = open_new(views, v, err);
	if (rc == 0)
		*ret = v;
	return rc;
}
