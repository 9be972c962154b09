/* SPDX-License-Identifier: Apache-2.0 */
/* A store that is another's: all is passed on. */
#include "engine/store/borrowed.h"

#include <string.h>

struct borrowed {
	struct store base;
	struct store *inner;
};

static struct store *inner_of(struct store *s)
{
	return ((struct borrowed *)s)->inner;
}

static int b_put(struct store *s, const char *key, struct source *body, uint64_t bytes,
                 unsigned flags, struct err *err)
{
	return store_put(inner_of(s), key, body, bytes, flags, err);
}

static int b_get(struct store *s, const char *key, size_t max_bytes, struct buf *ret,
                 struct err *err)
{
	return store_get(inner_of(s), key, max_bytes, ret, err);
}

static int b_open(struct store *s, const char *key, uint64_t bytes, struct source **ret,
                  struct err *err)
{
	return store_open_object(inner_of(s), key, bytes, ret, err);
}

static int b_list(struct store *s, const char *prefix, const char *after, bool deep,
                  store_list_fn *fn, void *ctx, struct err *err)
{
	return store_list(inner_of(s), prefix, after, deep, fn, ctx, err);
}

static int b_remove(struct store *s, const char *key, struct err *err)
{
	return store_remove(inner_of(s), key, err);
}

static void b_counters(struct store *s, struct store_counters *ret)
{
	store_get_counters(inner_of(s), ret);
}

static void b_free(struct store *s)
{
	free(s->label);
	free(s);
}

int store_borrow(struct store *inner, struct store **ret, struct err *err)
{
	static const struct store_ops ops = {b_put,    b_get,      b_open, b_list,
	                                     b_remove, b_counters, b_free};
	struct borrowed *b = calloc(1, sizeof(*b));

	if (!b || !(b->base.label = strdup(inner->label))) {
		free(b);
		return err_set(err, ERR_NOMEM, 0, "no memory to open '%s'", inner->label);
	}
	b->base.ops = &ops;
	b->base.remote = inner->remote;
	b->base.sealed = inner->sealed;
	b->base.dir_fd = inner->dir_fd;
	b->base.creates = inner->creates;
	b->inner = inner;
	*ret = &b->base;
	return 0;
}
