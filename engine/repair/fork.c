/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How far another place tells the same history.
 *
 * Copies of an archive that both went on, each by itself, are of one database and of one lineage, and
 * give the same numbers to other transactions.  But no two commits were captured at one time, to the
 * microsecond; and what agrees in one transaction agrees in all before it.  So the newest that both
 * know tells: of the target by its names, gaps and head, which damage leaves.
 */
#include "engine/repair/repair_i.h"

#include <stdlib.h>

struct known {
	uint64_t txid;
	int64_t time_us;
};

static int newest_first(const void *a, const void *b)
{
	const struct known *x = a, *y = b;

	return x->txid > y->txid ? -1 : x->txid < y->txid;
}

static int open_alone(struct repair *r, const struct site *s, struct archive **ret_archive,
                      struct history **ret, struct err *err)
{
	const struct archive_options o = {.cache_bytes = 1u << 20};
	struct store *store;

	int rc = site_borrow(s, r->name, false, &store, err);
	rc = rc ? rc : archive_open_stores(&store, 1, &o, ret_archive, err);
	rc = rc ? rc : history_get(*ret_archive, r->name, ret, err);
	if (rc == 0)
		history_log_damage(*ret, false);
	return rc;
}

static bool is_sealed_there(const struct repair *r, uint64_t txid)
{
	for (size_t i = 0; i < r->target.items.n; i++) {
		const struct item *o = &r->target.items.v[i];
		if (o->kind == ITEM_SEALED && o->name.first_txid <= txid &&
		    o->name.last_txid >= txid)
			return true;
	}
	return false;
}

/* What is not sealed yet has no time in its name: where it begins, and what is before that. */
static size_t add_unsealed(struct repair *r, struct known *v)
{
	struct archive *archive = NULL;
	struct history *h = NULL;
	struct history_status st;
	struct moment m;
	size_t n = 0;

	if (open_alone(r, &r->target, &archive, &h, NULL) == 0 &&
	    history_get_status(h, &st, NULL) == 0 && st.last_txid)
		v[n++] = (struct known){st.last_txid, st.last_us};
	for (size_t i = 0; n && i < r->target.items.n; i++) {
		const struct item *o = &r->target.items.v[i];
		if (o->kind != ITEM_GROWING)
			continue;
		for (uint64_t t = o->name.first_txid - 1; t <= o->name.first_txid; t++)
			if (t && !is_sealed_there(r, t) && history_tx(h, t, &m, NULL) == 0)
				v[n++] = (struct known){t, m.time_us};
	}
	if (h)
		history_put(h);
	archive_free(archive);
	return n;
}

int fork_know(struct repair *r, struct err *err)
{
	struct known *v = calloc(2 * r->target.items.n + r->n_gaps + 2, sizeof(*v));
	size_t n = 0;

	if (!v)
		return err_set(err, ERR_NOMEM, 0, "no memory to repair");
	for (size_t i = 0; i < r->target.items.n; i++) {
		const struct object_name *o = &r->target.items.v[i].name;
		if (r->target.items.v[i].kind != ITEM_SEALED)
			continue;
		v[n++] = (struct known){o->first_txid, o->first_us};
		v[n++] = (struct known){o->last_txid, o->last_us};
	}
	if (r->have_head && r->head.last_txid)
		v[n++] = (struct known){r->head.last_txid, r->head.last_us};
	for (size_t i = 0; i < r->n_gaps; i++) /* the commit that healed it */
		v[n++] = (struct known){r->gaps[i].after_txid, r->gaps[i].after_us};
	n += add_unsealed(r, v + n);
	qsort(v, n, sizeof(*v), newest_first);
	r->known = v;
	r->n_known = n;
	return 0;
}

int fork_find(struct repair *r, struct site *s, struct err *err)
{
	struct archive *archive = NULL;
	struct history *h = NULL;
	struct moment m;
	bool differs = false, found = false;

	s->shared_txid = UINT64_MAX;
	int rc = open_alone(r, s, &archive, &h, err);
	for (size_t i = 0; i < r->n_known && rc == 0 && !found; i++) {
		/* What it cannot tell, since it thinned that or is behind, tells nothing. */
		if (history_tx(h, r->known[i].txid, &m, NULL) < 0)
			continue;
		found = m.time_us == r->known[i].time_us;
		if (found && differs)
			s->shared_txid = r->known[i].txid;
		differs = differs || !found;
		rc = repair_stopped(r, err);
	}
	if (differs && !found)
		s->shared_txid = 0;
	if (h)
		history_put(h);
	archive_free(archive);
	return rc;
}

bool fork_none(const struct repair *r, const struct site *s)
{
	return s == &r->target || s->shared_txid == UINT64_MAX;
}
