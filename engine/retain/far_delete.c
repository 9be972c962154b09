/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deleting at a store what has expired there: in which order, and what that leaves where not everything
 * may be deleted.
 *
 * What no kept moment needs does no harm by staying, but for level 0: a reader takes such a segment to
 * reach up to the next one.  So where one of these stays, no segment behind it goes.
 */
#include "engine/archive/grow.h"
#include "engine/base/array.h"
#include "engine/base/log.h"
#include "engine/retain/retain_i.h"
#include "engine/store/denials.h"

#include <stdlib.h>
#include <string.h>

#define TABLE_MAX_BYTES ((size_t)64 << 20)

static int remove_file(struct retainer *r, const char *file, struct err *err)
{
	char key[FAR_KEY_MAX];

	far_key(r, file, key);
	int rc = far_may_write(r, err);
	return rc < 0 ? rc : store_remove(r->far.store, key, err);
}

/* ---- level 0 ---- */

void far_hold_level0(struct pass *p)
{
	uint64_t sealed = 0;

	for (size_t i = 0; i < p->n; i++)
		if (p->objects[i].type == HISTORY_SEGMENT && p->objects[i].last_txid > sealed)
			sealed = p->objects[i].last_txid;
	for (size_t i = 0; i < p->n; i++)
		if (p->objects[i].type == HISTORY_GROWING)
			p->objects[i].current = p->objects[i].last_txid >= sealed;
}

struct level0_name {
	uint32_t lineage;
	uint64_t first_txid, bytes;
};

struct listing {
	struct retainer *r;
	size_t prefix_len, cap;
};

static int take_listed(void *ctx, const struct store_entry *e, struct err *err)
{
	struct listing *l = ctx;
	struct retainer *r = l->r;
	struct object_name n;

	if (!object_name_parse(e->key + l->prefix_len, &n) || n.type != OBJECT_GROWING)
		return 0;
	int rc = array_room(r->level0, r->n_level0, l->cap, "the list of a destination", err);
	if (rc == 0)
		r->level0[r->n_level0++] = (struct level0_name){n.lineage, n.first_txid, e->bytes};
	return rc;
}

void far_forget(struct retainer *r)
{
	free(r->level0);
	r->level0 = NULL;
	r->n_level0 = 0;
	r->listed = false;
}

/* In the order of lineages and txids, as keys are. */
static int list_level0(struct retainer *r, struct err *err)
{
	struct listing l = {.r = r};
	char prefix[FAR_KEY_MAX];

	if (r->listed)
		return 0;
	far_forget(r);
	far_key(r, "segment/", prefix);
	l.prefix_len = strlen(prefix);
	int rc = store_list(r->far.store, prefix, NULL, true, take_listed, &l, err);
	r->listed = rc == 0;
	return rc;
}

/*
 * What a sealed segment covers would show when that goes.  Fences stay; so does what reaches behind
 * what was thinned, as far as the next one tells.
 */
static int delete_covered(struct pass *p, const struct history_object *o, struct err *err)
{
	struct retainer *r = p->r;
	char name[OBJECT_NAME_MAX], file[OBJECT_NAME_MAX + 16];

	int rc = list_level0(r, err);
	for (size_t i = 0; i + 1 < r->n_level0 && rc == 0; i++) {
		struct level0_name *l = &r->level0[i];
		if (l->lineage != o->lineage || l->bytes <= GROW_HEADER_SIZE ||
		    l->first_txid < o->first_txid || l->first_txid > o->last_txid ||
		    l[1].first_txid - 1 > p->plan.fine_txid || l[1].first_txid <= l->first_txid)
			continue;
		const struct object_name n = {
		        .type = OBJECT_GROWING, .lineage = l->lineage, .first_txid = l->first_txid};
		object_name_format(&n, name);
		snprintf(file, sizeof(file), "segment/%s", name);
		rc = remove_file(r, file, err);
	}
	return rc;
}

/* ---- deleting ---- */

static bool is_segment(const struct history_object *o)
{
	return o->type == HISTORY_SEGMENT || o->type == HISTORY_GROWING;
}

/* Whether a segment has to wait: one of level 0 that stays lies before it. */
static bool is_behind(const struct pass *p, const bool *due, size_t i)
{
	if (!is_segment(&p->objects[i]))
		return false;
	while (i-- > 0)
		if (p->objects[i].type == HISTORY_GROWING && !due[i] &&
		    p->objects[i].last_txid <= p->plan.fine_txid)
			return true;
	return false;
}

static bool table_of(const struct history_object *o, char file[OBJECT_NAME_MAX + 16])
{
	char table[OBJECT_NAME_MAX];
	struct object_name n;

	if (o->type != HISTORY_SEGMENT || !object_name_parse(o->file, &n))
		return false;
	n.type = OBJECT_COMMITS;
	object_name_format(&n, table);
	snprintf(file, OBJECT_NAME_MAX + 16, "segment/%s", table);
	return true;
}

/* Its table first: a segment that is there tells that it is to be deleted, a table does not.  Where then the
 * segment may not go, the table goes back, since readers want both. */
static int delete_with_table(struct pass *p, const char *file, const char *table, struct err *err)
{
	cleanup_buf struct buf text = BUF_INIT(TABLE_MAX_BYTES);
	char key[FAR_KEY_MAX];
	struct err why = ERR_INIT;

	far_key(p->r, table, key);
	bool has = store_get(p->r->far.store, key, TABLE_MAX_BYTES, &text, &why) == 0;
	if (!has && why.kind != ERR_NOT_FOUND && why.kind != ERR_DAMAGED)
		return err_copy(err, &why);
	int rc = remove_file(p->r, table, err);
	if (rc < 0)
		return rc;
	why = (struct err)ERR_INIT;
	if (remove_file(p->r, file, &why) == 0)
		return 0;
	if (why.kind == ERR_DENIED && has)
		rc = store_put_bytes(p->r->far.store, key, text.data, text.len, 0, err);
	return rc < 0 ? rc : err_copy(err, &why);
}

static int delete_object(struct pass *p, const struct history_object *o, bool *ret_level0,
                         struct err *err)
{
	char file[OBJECT_NAME_MAX + 16], table[OBJECT_NAME_MAX + 16];

	*ret_level0 = o->type == HISTORY_GROWING;
	snprintf(file, sizeof(file), "%s/%.190s", retain_folder_of(o), o->file);
	if (p->dry)
		return 0;
	if (!table_of(o, table))
		return remove_file(p->r, file, err);
	*ret_level0 = true;
	int rc = delete_covered(p, o, err);
	*ret_level0 = rc < 0;
	return rc < 0 ? rc : delete_with_table(p, file, table, err);
}

/* What may not go waits for a later pass.  *hold: no segment behind it goes. */
static int delete_one(struct pass *p, const struct history_object *o, bool *hold, struct denials *d,
                      struct err *err)
{
	struct retain_result *res = p->result;
	struct err why = ERR_INIT;
	bool level0;

	int rc = delete_object(p, o, &level0, &why);
	if (rc < 0 && why.kind == ERR_DENIED) {
		if (d->denied++ == 0)
			snprintf(res->denial, sizeof(res->denial), "%s/%.190s: %.200s",
			         retain_folder_of(o), o->file, why.msg);
		retain_say(p, "stays %s/%s: deletion is denied", retain_folder_of(o), o->file);
		*hold = *hold || level0;
		return 0;
	}
	if (rc < 0)
		return err_copy(err, &why);
	d->done++;
	retain_say(p, "delete %s/%s: needed by no moment that is kept", retain_folder_of(o),
	           o->file);
	res->deleted++;
	res->deleted_bytes += o->bytes;
	return 0;
}

/* Snapshots, what is coalesced, segments from the oldest on.  Returns how many; *ret_free: of these, how
 * many may go in any order. */
static size_t in_order(const struct pass *p, const bool *due, size_t *order, size_t *ret_free)
{
	size_t n = 0;

	for (int turn = 0; turn < 3; turn++) {
		for (size_t i = 0; i < p->n; i++) {
			const struct history_object *o = &p->objects[i];
			int of = o->type == HISTORY_SNAPSHOT ? 0 : is_segment(o) ? 2 : 1;
			if (due[i] && of == turn)
				order[n++] = i;
		}
		if (turn < 2)
			*ret_free = n;
	}
	return n;
}

int far_delete_due(struct pass *p, bool *due, struct err *err)
{
	struct denials d = {.before = p->r->far.no_delete};
	cleanup_free size_t *order = calloc(p->n + 1, sizeof(*order));
	size_t n_free = 0;
	bool hold = false;
	int rc = 0;

	if (!order)
		return err_set(err, ERR_NOMEM, 0, "no memory to plan retention");
	size_t n = in_order(p, due, order, &n_free);
	for (size_t k = denials_first(&d, n_free, p->now_us); k < n && rc == 0 && denials_go_on(&d);
	     k++) {
		const struct history_object *o = &p->objects[order[k]];
		uint64_t denied = d.denied;
		if ((hold && is_segment(o)) || is_behind(p, due, order[k]))
			continue;
		if (p->stop && *p->stop)
			return err_set(err, ERR_CANCELLED, 0, "stopped");
		rc = delete_one(p, o, &hold, &d, err);
		due[order[k]] = d.denied == denied;
	}
	p->result->denied = d.denied;
	p->result->no_delete = denials_all(&d);
	return rc;
}
