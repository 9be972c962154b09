/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shards, each with its own lock, hash chains and LRU ring.
 *
 * (1) An entry is in its shard's chain from the moment someone wants it: LOADING, then
 *     READY, or taken out again when the load failed.
 * (2) `pins` counts the users (the loader is one); only entries with pins == 0 are in the
 *     ring, and only those are evicted.
 * (3) An entry taken out of the chain while pinned is freed by the last cache_put().
 */
#include "engine/base/cache.h"

#include "engine/base/cleanup.h"

#include <pthread.h>
#include <stdlib.h>

#define SHARDS 16
#define CHAINS 1024

enum entry_state { LOADING, READY, FAILED };

struct cache_entry {
	struct cache_key key;
	struct shard *shard;
	struct cache_entry *next;          /* chain */
	struct cache_entry *newer, *older; /* ring, when pins == 0 */
	void *data;
	size_t len;
	unsigned pins;
	enum entry_state state;
	bool chained;
	struct err err; /* of a failed load, for those who waited */
};

struct shard {
	pthread_mutex_t lock;
	pthread_cond_t loaded;
	struct cache_entry *chains[CHAINS]; /* all below under lock */
	struct cache_entry ring;            /* ring.older = newest … ring.newer = oldest */
	size_t bytes;
	size_t max_bytes;
};

struct cache {
	struct shard shards[SHARDS];
};

int cache_new(size_t max_bytes, struct cache **ret, struct err *err)
{
	struct cache *c = calloc(1, sizeof(*c));

	if (!c)
		return err_set(err, ERR_NOMEM, 0, "no memory for the block cache");
	for (size_t i = 0; i < SHARDS; i++) {
		struct shard *s = &c->shards[i];
		pthread_mutex_init(&s->lock, NULL);
		pthread_cond_init(&s->loaded, NULL);
		s->ring.newer = s->ring.older = &s->ring;
		s->max_bytes = max_bytes / SHARDS;
	}
	*ret = c;
	return 0;
}

static void entry_free(struct cache_entry *e)
{
	free(e->data);
	free(e);
}

void cache_free(struct cache *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < SHARDS; i++) {
		struct shard *s = &c->shards[i];
		for (size_t j = 0; j < CHAINS; j++) {
			while (s->chains[j]) {
				struct cache_entry *e = s->chains[j];
				s->chains[j] = e->next;
				entry_free(e);
			}
		}
		pthread_mutex_destroy(&s->lock);
		pthread_cond_destroy(&s->loaded);
	}
	free(c);
}

static uint64_t key_hash(struct cache_key k)
{
	uint64_t h = (k.object ^ (k.offset * UINT64_C(0x9e3779b97f4a7c15)));
	h ^= h >> 32;
	h *= UINT64_C(0xd6e8feb86659fd93);
	return h ^ (h >> 32);
}

static struct cache_entry **chain_of(struct shard *s, struct cache_key k)
{
	return &s->chains[(key_hash(k) >> 8) % CHAINS];
}

static struct cache_entry *find(struct shard *s, struct cache_key k)
{
	struct cache_entry *e = *chain_of(s, k);
	while (e && (e->key.object != k.object || e->key.offset != k.offset))
		e = e->next;
	return e;
}

static void ring_remove(struct cache_entry *e)
{
	e->newer->older = e->older;
	e->older->newer = e->newer;
	e->newer = e->older = NULL;
}

static void ring_add_newest(struct shard *s, struct cache_entry *e)
{
	e->newer = &s->ring;
	e->older = s->ring.older;
	s->ring.older->newer = e;
	s->ring.older = e;
}

static void unchain(struct shard *s, struct cache_entry *e)
{
	struct cache_entry **p = chain_of(s, e->key);
	while (*p != e)
		p = &(*p)->next;
	*p = e->next;
	e->chained = false;
}

static void evict(struct shard *s)
{
	while (s->bytes > s->max_bytes && s->ring.newer != &s->ring) {
		struct cache_entry *oldest = s->ring.newer;
		ring_remove(oldest);
		unchain(s, oldest);
		s->bytes -= oldest->len;
		entry_free(oldest);
	}
}

static void pin(struct cache_entry *e)
{
	if (e->pins++ == 0)
		ring_remove(e);
}

/* Under the shard's lock. */
static void unpin(struct shard *s, struct cache_entry *e)
{
	if (--e->pins > 0)
		return;
	if (!e->chained) {
		entry_free(e);
		return;
	}
	ring_add_newest(s, e);
	evict(s);
}

static int await(struct shard *s, struct cache_entry *e, struct cache_entry **ret, struct err *err)
{
	e->pins++; /* a LOADING entry is pinned by its loader, so it is not in the ring */
	while (e->state == LOADING)
		pthread_cond_wait(&s->loaded, &s->lock);
	if (e->state == READY) {
		*ret = e;
		return 0;
	}
	int rc = err_copy(err, &e->err);
	unpin(s, e);
	return rc;
}

static int load_new(struct shard *s, struct cache_key key, cache_load_fn *load, void *ctx,
                    struct cache_entry **ret, struct err *err)
{
	struct cache_entry *e = calloc(1, sizeof(*e));
	if (!e)
		return err_set(err, ERR_NOMEM, 0, "no memory for a cache entry");
	e->key = key;
	e->shard = s;
	e->pins = 1;
	e->chained = true;
	e->next = *chain_of(s, key);
	*chain_of(s, key) = e;

	struct err why = ERR_INIT;
	pthread_mutex_unlock(&s->lock);
	int rc = load(ctx, &e->data, &e->len, &why);
	pthread_mutex_lock(&s->lock);

	e->state = rc < 0 ? FAILED : READY;
	pthread_cond_broadcast(&s->loaded);
	if (rc < 0) {
		e->err = why;
		unchain(s, e);
		rc = err_copy(err, &why);
		unpin(s, e);
		return rc;
	}
	s->bytes += e->len;
	evict(s);
	*ret = e;
	return 0;
}

int cache_get(struct cache *c, struct cache_key key, cache_load_fn *load, void *ctx,
              struct cache_entry **ret, struct err *err)
{
	struct shard *s = &c->shards[key_hash(key) % SHARDS];
	LOCK_SCOPE(&s->lock);
	struct cache_entry *e = find(s, key);

	if (!e)
		return load_new(s, key, load, ctx, ret, err);
	if (e->state == LOADING)
		return await(s, e, ret, err);
	pin(e);
	*ret = e;
	return 0;
}

void cache_put(struct cache_entry *e)
{
	if (!e)
		return;
	struct shard *s = e->shard;
	LOCK_SCOPE(&s->lock);
	unpin(s, e);
}

const void *cache_data(const struct cache_entry *e)
{
	return e->data;
}

size_t cache_len(const struct cache_entry *e)
{
	return e->len;
}

bool cache_has(struct cache *c, struct cache_key key)
{
	struct shard *s = &c->shards[key_hash(key) % SHARDS];
	LOCK_SCOPE(&s->lock);
	return find(s, key) != NULL;
}
