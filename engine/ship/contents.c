/* SPDX-License-Identifier: Apache-2.0 */
/* What the store has: from one listing, kept up by what is put since. */
#include "engine/base/hash.h"
#include "engine/ship/ship_i.h"

#include <stdlib.h>
#include <string.h>

void contents_release(struct contents *c)
{
	free(c->names);
	free(c->level0);
	free(c->sealed);
	*c = (struct contents){0};
}

/* Makes room for one more of `size` bytes. */
static int grow_array(void **p, size_t n, size_t *cap, size_t size, struct err *err)
{
	if (n < *cap)
		return 0;
	size_t more = *cap ? *cap + *cap / 2 : 16;
	void *q = realloc(*p, more * size);
	if (!q)
		return err_set(err, ERR_NOMEM, 0, "no memory for the list of a destination");
	*p = q;
	*cap = more;
	return 0;
}

/* ---- names ---- */

static uint64_t name_hash(const char *file, uint64_t bytes)
{
	return hash64(file, strlen(file), bytes);
}

static size_t name_place(const struct contents *c, uint64_t h)
{
	size_t lo = 0, hi = c->n_names;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (c->names[mid] < h)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

bool contents_has(const struct contents *c, const char *file, uint64_t bytes)
{
	uint64_t h = name_hash(file, bytes);
	size_t i = name_place(c, h);

	return i < c->n_names && c->names[i] == h;
}

int contents_add_name(struct contents *c, const char *file, uint64_t bytes, struct err *err)
{
	uint64_t h = name_hash(file, bytes);
	size_t i = name_place(c, h);

	if (i < c->n_names && c->names[i] == h)
		return 0;
	int rc = grow_array((void **)&c->names, c->n_names, &c->cap_names, sizeof(*c->names), err);
	if (rc < 0)
		return rc;
	memmove(c->names + i + 1, c->names + i, (c->n_names - i) * sizeof(*c->names));
	c->names[i] = h;
	c->n_names++;
	c->objects++;
	c->bytes += bytes;
	return 0;
}

void contents_drop_name(struct contents *c, const char *file, uint64_t bytes)
{
	uint64_t h = name_hash(file, bytes);
	size_t i = name_place(c, h);

	if (i == c->n_names || c->names[i] != h)
		return;
	c->n_names--;
	memmove(c->names + i, c->names + i + 1, (c->n_names - i) * sizeof(*c->names));
	c->objects--;
	c->bytes -= bytes;
}

/* ---- level 0, sealed segments ---- */

static int order(uint32_t la, uint64_t a, uint32_t lb, uint64_t b)
{
	return la != lb ? (la < lb ? -1 : 1) : a < b ? -1 : a > b;
}

int contents_add_level0(struct contents *c, uint32_t lineage, uint64_t first_txid, uint64_t bytes,
                        struct err *err)
{
	size_t i = c->n_level0;

	while (i > 0 && order(c->level0[i - 1].lineage, c->level0[i - 1].first_txid, lineage,
	                      first_txid) > 0)
		i--;
	if (i > 0 && c->level0[i - 1].lineage == lineage &&
	    c->level0[i - 1].first_txid == first_txid)
		return 0;
	int rc = grow_array((void **)&c->level0, c->n_level0, &c->cap_level0, sizeof(*c->level0),
	                    err);
	if (rc < 0)
		return rc;
	memmove(c->level0 + i + 1, c->level0 + i, (c->n_level0 - i) * sizeof(*c->level0));
	c->level0[i] =
	        (struct level0){.lineage = lineage, .first_txid = first_txid, .bytes = bytes};
	c->n_level0++;
	c->objects++;
	c->bytes += bytes;
	c->fine_bytes += bytes;
	if (lineage > c->lineage)
		c->lineage = lineage;
	return 0;
}

int contents_add_sealed(struct contents *c, const struct object_name *n, struct err *err)
{
	size_t i = c->n_sealed;

	while (i > 0 && order(c->sealed[i - 1].lineage, c->sealed[i - 1].first_txid, n->lineage,
	                      n->first_txid) > 0)
		i--;
	int rc = grow_array((void **)&c->sealed, c->n_sealed, &c->cap_sealed, sizeof(*c->sealed),
	                    err);
	if (rc < 0)
		return rc;
	memmove(c->sealed + i + 1, c->sealed + i, (c->n_sealed - i) * sizeof(*c->sealed));
	c->sealed[i] = (struct span){n->lineage, n->first_txid, n->last_txid, n->last_us};
	c->n_sealed++;
	if (n->lineage > c->lineage)
		c->lineage = n->lineage;
	return 0;
}

bool contents_covers(const struct contents *c, uint32_t lineage, uint64_t first, uint64_t last)
{
	return contents_reach(c, lineage, first, last) > last;
}

uint64_t contents_reach(const struct contents *c, uint32_t lineage, uint64_t first, uint64_t last)
{
	uint64_t at = first; /* all before it is held */

	for (size_t i = 0; i < c->n_sealed && at <= last; i++) {
		const struct span *s = &c->sealed[i];
		if (s->lineage == lineage && s->first_txid <= at && s->last_txid >= at)
			at = s->last_txid + 1;
	}
	return at;
}

/* ---- the listing ---- */

struct listing {
	struct shipper *s;
	size_t prefix_len;
};

static int take_object(struct listing *l, const char *file, const char *base, uint64_t bytes,
                       struct err *err)
{
	struct contents *c = &l->s->has;
	struct object_name n;

	if (!object_name_parse(base, &n))
		return contents_add_name(c, file, bytes, err);
	if (strncmp(file, "segment/", 8) == 0 && n.type == OBJECT_GROWING)
		return contents_add_level0(c, n.lineage, n.first_txid, bytes, err);
	if (strncmp(file, "segment/", 8) == 0 && n.type == OBJECT_SEALED) {
		int rc = contents_add_sealed(c, &n, err);
		if (rc < 0)
			return rc;
		c->fine_bytes += 2 * bytes; /* it was level 0 before */
	}
	if (strncmp(file, "coalesced/", 10) == 0)
		c->derived_bytes += bytes;
	if (n.type == OBJECT_SNAPSHOT) {
		c->derived_bytes += c->has_snapshot ? bytes : 0;
		c->has_snapshot = true;
		if (n.last_txid >= c->snapshot_txid) {
			c->snapshot_txid = n.last_txid;
			c->snapshot_us = n.last_us;
			c->snapshot_first = n.first_txid;
		}
		if (n.lineage > c->lineage)
			c->lineage = n.lineage;
	}
	if (n.type == OBJECT_LINEAGE && n.lineage > c->lineage)
		c->lineage = n.lineage;
	return contents_add_name(c, file, bytes, err);
}

static int take_entry(void *ctx, const struct store_entry *e, struct err *err)
{
	struct listing *l = ctx;
	const char *file = e->key + l->prefix_len;
	const char *slash = strrchr(file, '/'), *base = slash ? slash + 1 : file;
	uint32_t lineage;

	l->s->has.has_thinned = l->s->has.has_thinned || strcmp(file, "thinned") == 0;
	if (!slash && writer_name_parse(base, &lineage)) {
		if (lineage > l->s->has.writer_lineage)
			l->s->has.writer_lineage = lineage;
		return 0;
	}
	return take_object(l, file, base, e->bytes, err);
}

int contents_list(struct shipper *s, struct err *err)
{
	char prefix[SHIP_KEY_MAX];
	struct listing l = {.s = s};

	ship_key(s, "", prefix);
	l.prefix_len = strlen(prefix);
	contents_release(&s->has);
	pthread_mutex_lock(&s->lock);
	s->status.requests[STORE_LIST]++;
	pthread_mutex_unlock(&s->lock);
	return store_list(s->options.store, prefix, NULL, true, take_entry, &l, err);
}
