/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bounded cache of decoded blocks, shared by everything that reads one archive.
 *
 * Single flight: when many ask for a block that is not there, one loads it and the others
 * wait for that.  A failed load is not remembered.  What is returned stays valid until
 * cache_put(), whatever is evicted meanwhile.  Least recently used goes first; pinned
 * entries count but are not dropped, so the bound can be passed by what is in use.
 * Thread-safe.
 */
#ifndef ASOF_BASE_CACHE_H
#define ASOF_BASE_CACHE_H

#include "engine/base/err.h"

#include <stddef.h>
#include <stdint.h>

struct cache;
struct cache_entry;

struct cache_key {
	uint64_t object; /* random id of the object */
	uint64_t offset; /* of the block within it */
};

/* Gives malloc'ed `*ret_data`, which the cache then owns. */
typedef int cache_load_fn(void *ctx, void **ret_data, size_t *ret_len, struct err *err);

int cache_new(size_t max_bytes, struct cache **ret, struct err *err) MUST_USE;
void cache_free(struct cache *c);

int cache_get(struct cache *c, struct cache_key key, cache_load_fn *load, void *ctx,
              struct cache_entry **ret, struct err *err) MUST_USE;
void cache_put(struct cache_entry *e);
const void *cache_data(const struct cache_entry *e);
size_t cache_len(const struct cache_entry *e);
/* Whether a block is there or being loaded (a hint for read-ahead). */
bool cache_has(struct cache *c, struct cache_key key);

#include "engine/base/cleanup.h"
DEFINE_CLEANUP(struct cache_entry, cache_put);
DEFINE_CLEANUP(struct cache, cache_free);
#define cleanup_cache CLEANUP(cache_free_p)
#define cleanup_cache_entry CLEANUP(cache_put_p)

#endif
