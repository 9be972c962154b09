/* SPDX-License-Identifier: Apache-2.0 */
/* How far another place tells the same history (view/way.h): as the target has it by its names, gaps and
 * head, which damage leaves. */
#include "engine/archive/grow.h"
#include "engine/repair/repair_i.h"

#include <stdlib.h>

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
static size_t add_unsealed(struct repair *r, struct way_known *v)
{
	struct archive *archive = NULL;
	struct history *h = NULL;
	struct history_status st;
	struct moment m;
	size_t n = 0;

	if (way_open(r->target.at.store, r->name, &archive, &h, NULL) == 0 &&
	    history_get_status(h, &st, NULL) == 0 && st.last_txid)
		v[n++] = (struct way_known){st.last_txid, st.last_us};
	for (size_t i = 0; n && i < r->target.items.n; i++) {
		const struct item *o = &r->target.items.v[i];
		if (o->kind != ITEM_GROWING)
			continue;
		for (uint64_t t = o->name.first_txid - 1; t <= o->name.first_txid; t++)
			if (t && !is_sealed_there(r, t) && history_tx(h, t, &m, NULL) == 0)
				v[n++] = (struct way_known){t, m.time_us};
	}
	if (h)
		history_put(h);
	archive_free(archive);
	return n;
}

int fork_know(struct repair *r, struct err *err)
{
	struct way_known *v = calloc(2 * r->target.items.n + r->n_gaps + 2, sizeof(*v));
	size_t n = 0;

	if (!v)
		return err_set(err, ERR_NOMEM, 0, "no memory to repair");
	for (size_t i = 0; i < r->target.items.n; i++) {
		const struct object_name *o = &r->target.items.v[i].name;
		if (r->target.items.v[i].kind != ITEM_SEALED)
			continue;
		v[n++] = (struct way_known){o->first_txid, o->first_us};
		v[n++] = (struct way_known){o->last_txid, o->last_us};
	}
	if (r->have_head && r->head.last_txid)
		v[n++] = (struct way_known){r->head.last_txid, r->head.last_us};
	for (size_t i = 0; i < r->n_gaps; i++) /* the commit that healed it */
		v[n++] = (struct way_known){r->gaps[i].after_txid, r->gaps[i].after_us};
	n += add_unsealed(r, v + n);
	qsort(v, n, sizeof(*v), way_newest_first);
	r->known = v;
	r->n_known = n;
	return 0;
}

/* What is left of what is damaged, or not sealed, behind what agrees. */
static int hear(struct repair *r, struct history *other, struct way *way, struct err *err)
{
	uint64_t newest = 0;
	int rc = 0;

	for (size_t i = 0; i < r->target.items.n && rc == 0; i++) {
		const struct item *o = &r->target.items.v[i];
		struct source *src = NULL;
		char key[STORE_KEY_MAX];
		uint64_t last;
		if (o->kind != ITEM_GROWING || o->bytes <= GROW_HEADER_SIZE)
			continue;
		repair_key(r, o->file, key);
		if (store_open_object(r->target.at.store, key, UINT64_MAX, &src, NULL) < 0)
			continue;
		rc = way_tell(src, other, way, &last, err);
		source_free(src);
		if (o->name.first_txid < newest)
			continue;
		newest = o->name.first_txid;
		/* That it says so itself proves nothing: but with the other's time it does. */
		if (last && last == way->agrees_txid)
			r->left_txid = last;
	}
	return rc;
}

/* The one of the two that is a directory may be the writer of the other. */
static uint64_t brought(struct repair *r, const struct site *s)
{
	bool here = r->target.at.store->dir_fd >= 0, there = s->at.store->dir_fd >= 0;
	uint64_t by_target = here ? writer_brought(r, &r->target, s) : 0;
	uint64_t by_other = there ? writer_brought(r, s, &r->target) : 0;

	return by_target > by_other ? by_target : by_other;
}

int fork_find(struct repair *r, struct site *s, struct err *err)
{
	struct archive *archive = NULL;
	struct history *h = NULL;
	struct way way = {.differs_txid = 0};
	bool more = true;

	s->parted = true;
	s->shared_txid = 0;
	int rc = way_open(s->at.store, r->name, &archive, &h, err);
	for (size_t i = 0; i < r->n_known && rc == 0 && more; i++) {
		more = way_look(&way, &r->known[i], h);
		rc = repair_stopped(r, err);
	}
	if (rc == 0 && !way.differs_txid)
		rc = hear(r, h, &way, err);
	if (rc == 0) {
		uint64_t sent = way.differs_txid ? 0 : brought(r, s);
		s->parted = way.differs_txid > 0;
		s->shared_txid = sent > way.agrees_txid ? sent : way.agrees_txid;
	}
	if (h)
		history_put(h);
	archive_free(archive);
	return rc;
}

bool fork_none(const struct repair *r, const struct site *s)
{
	return s == &r->target || !s->parted;
}
