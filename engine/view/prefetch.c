/* SPDX-License-Identifier: Apache-2.0 */
/* Read-ahead: a few threads that inflate blocks into the cache before they are asked for.
 * Purely a hint: what does not fit the queue is forgotten, errors are left to the reader. */
#include "engine/view/history_i.h"

#define QUEUE 256u
#define AGAIN_BLOCKS 256u /* whoever asks from so far back has not just asked */

struct job {
	struct object *snapshot;
	uint64_t block;
};

struct prefetch {
	pthread_mutex_t lock;
	pthread_cond_t more;
	struct job ring[QUEUE]; /* all under lock */
	size_t head, n;
	bool stop, threads_started;
	uint64_t end; /* of what was asked for last, so that nothing is asked for twice in a row */
	struct object *last;
	size_t n_threads;
	pthread_t threads[];
};

static void *prefetch_loop(void *arg)
{
	struct prefetch *p = arg;

	pthread_mutex_lock(&p->lock);
	while (!p->stop) {
		if (p->n == 0) {
			pthread_cond_wait(&p->more, &p->lock);
			continue;
		}
		struct job j = p->ring[p->head];
		p->head = (p->head + 1) % QUEUE;
		p->n--;
		pthread_mutex_unlock(&p->lock);
		struct err ignored = ERR_INIT;
		int rc = pack_prefetch(snapshot_pack(j.snapshot->snapshot), j.block, &ignored);
		(void)rc;
		object_unref(j.snapshot);
		pthread_mutex_lock(&p->lock);
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

int prefetch_new(size_t n_threads, struct prefetch **ret, struct err *err)
{
	struct prefetch *p = calloc(1, sizeof(*p) + n_threads * sizeof(pthread_t));

	if (!p)
		return err_set(err, ERR_NOMEM, 0, "no memory for read-ahead");
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->more, NULL);
	p->n_threads = n_threads;
	*ret = p;
	return 0;
}

/* Threads start with the first request: most readers, and a process that is about to fork, never
 * need them. */
static void start_threads(struct prefetch *p)
{
	size_t n = p->n_threads;

	p->n_threads = 0;
	for (size_t i = 0; i < n; i++)
		if (pthread_create(&p->threads[p->n_threads], NULL, prefetch_loop, p) == 0)
			p->n_threads++;
}

void prefetch_free(struct prefetch *p)
{
	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	p->stop = true;
	pthread_cond_broadcast(&p->more);
	pthread_mutex_unlock(&p->lock);
	for (size_t i = 0; p->threads_started && i < p->n_threads; i++)
		pthread_join(p->threads[i], NULL);
	for (; p->n > 0; p->n--, p->head = (p->head + 1) % QUEUE)
		object_unref(p->ring[p->head].snapshot);
	pthread_mutex_destroy(&p->lock);
	pthread_cond_destroy(&p->more);
	free(p);
}

void prefetch_add(struct prefetch *p, struct object *snapshot, uint64_t first, uint64_t end)
{
	LOCK_SCOPE(&p->lock);
	if (!p->threads_started) {
		p->threads_started = true;
		start_threads(p);
	}
	if (p->n_threads == 0)
		return;
	if (snapshot == p->last && first < p->end && p->end - first <= AGAIN_BLOCKS)
		first = p->end; /* up to there it was asked for a moment ago */
	for (; first < end && p->n < QUEUE; first++) {
		p->ring[(p->head + p->n++) % QUEUE] = (struct job){object_ref(snapshot), first};
		pthread_cond_signal(&p->more);
	}
	p->last = snapshot; /* compared, never followed */
	p->end = first;
}
