/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/observe/archives.h"

#include "engine/base/clock.h"

#include <limits.h>
#include <string.h>

/* Decoded blocks of one archive; people look at a few pages. */
#define CACHE_BYTES ((size_t)2 << 20)
#define ARCHIVES_MAX 64

struct shared {
	struct archive *archive; /* NULL: a free place */
	char root[PATH_MAX];
	size_t users;
	int64_t used_us; /* monotonic */
};

struct archives {
	pthread_mutex_t lock;
	struct shared shared[ARCHIVES_MAX];
};

int archives_new(struct archives **ret, struct err *err)
{
	struct archives *a = calloc(1, sizeof(*a));

	if (!a)
		return err_set(err, ERR_NOMEM, 0, "no memory");
	pthread_mutex_init(&a->lock, NULL);
	*ret = a;
	return 0;
}

void archives_free(struct archives *a)
{
	if (!a)
		return;
	for (size_t i = 0; i < ARCHIVES_MAX; i++)
		archive_free(a->shared[i].archive);
	pthread_mutex_destroy(&a->lock);
	free(a);
}

/* Under the lock. */
static struct archive *take(struct archives *a, const char *root)
{
	for (size_t i = 0; i < ARCHIVES_MAX; i++) {
		struct shared *s = &a->shared[i];
		if (!s->archive || strcmp(s->root, root) != 0)
			continue;
		s->users++;
		return s->archive;
	}
	return NULL;
}

static struct archive *take_open(struct archives *a, const char *root)
{
	LOCK_SCOPE(&a->lock);
	return take(a, root);
}

/* Puts a fresh one in place; where another was quicker, that one is taken and `fresh` stays. */
static struct archive *put_in(struct archives *a, const char *root, struct archive **fresh)
{
	LOCK_SCOPE(&a->lock);
	struct archive *there = take(a, root);

	for (size_t i = 0; i < ARCHIVES_MAX && !there; i++) {
		struct shared *s = &a->shared[i];
		if (s->archive)
			continue;
		*s = (struct shared){.archive = take_ptr(*fresh), .users = 1};
		snprintf(s->root, sizeof(s->root), "%s", root);
		there = s->archive;
	}
	return there;
}

int archives_get(struct archives *a, const char *root, struct archive **ret, struct err *err)
{
	const struct archive_options options = {.cache_bytes = CACHE_BYTES};
	cleanup_archive struct archive *fresh = NULL;

	*ret = take_open(a, root);
	if (*ret)
		return 0;
	int rc = archive_open(root, &options, &fresh, err);
	if (rc < 0)
		return rc;
	*ret = put_in(a, root, &fresh);
	return *ret ? 0 : err_set(err, ERR_BUSY, 0, "more than %d archives", ARCHIVES_MAX);
}

void archives_put(struct archives *a, struct archive *archive)
{
	LOCK_SCOPE(&a->lock);

	for (size_t i = 0; i < ARCHIVES_MAX && archive; i++)
		if (a->shared[i].archive == archive) {
			a->shared[i].users--;
			a->shared[i].used_us = clock_mono_us();
			return;
		}
}

bool archives_close_idle(struct archives *a, int64_t idle_us)
{
	struct archive *idle[ARCHIVES_MAX];
	int64_t now_us = clock_mono_us();
	size_t n = 0;

	pthread_mutex_lock(&a->lock);
	for (size_t i = 0; i < ARCHIVES_MAX; i++) {
		struct shared *s = &a->shared[i];
		if (s->archive && s->users == 0 && now_us - s->used_us >= idle_us)
			idle[n++] = take_ptr(s->archive);
	}
	pthread_mutex_unlock(&a->lock);
	for (size_t i = 0; i < n; i++)
		archive_free(idle[i]);
	return n > 0;
}
