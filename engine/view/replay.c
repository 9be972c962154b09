/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/view/replay.h"

#include "engine/base/bytes.h"
#include "engine/sqlite/format.h"
#include "engine/view/history_i.h"

#include <inttypes.h>

/* A stretch of one segment. */
struct stretch {
	struct object *object;
	uint64_t first_txid;       /* of the segment */
	uint64_t commit;           /* index of the next commit */
	uint64_t frame, end_frame; /* next frame, last frame */
	uint32_t page_size;
};

/* Finds the segment that goes on behind `pos`. */
static int next_stretch(struct history *h, uint64_t pos, uint64_t until, struct stretch *s,
                        uint64_t *ret_pos, struct err *err)
{
	struct commit c;
	LOCK_SCOPE(&h->lock);

	struct entry *e = catalog_segment_of(h, pos + 1);
	if (!e)
		return err_set(err, ERR_DAMAGED, 0,
		               "the history of '%s' has no segment for transaction %" PRIu64,
		               h->name, pos + 1);
	int rc = catalog_open(h, &h->segments, e, &s->object, err);
	if (rc < 0)
		return rc;
	s->first_txid = e->name.first_txid;
	s->page_size = object_page_size(s->object);
	s->frame = 1;
	s->commit = pos + 1 - s->first_txid;
	if (s->commit > 0) {
		rc = object_commit(s->object, s->commit - 1, &c, err);
		s->frame = c.last_frame + 1;
	}
	uint64_t last = e->name.last_txid < until ? e->name.last_txid : until;
	if (rc == 0)
		rc = object_commit(s->object, last - s->first_txid, &c, err);
	if (rc < 0 && e->broken)
		rc = resolve_broken(e, err);
	s->end_frame = c.last_frame;
	*ret_pos = last;
	return rc;
}

static int play_stretch(struct stretch *s, replay_fn *fn, void *ctx, struct err *err)
{
	uint64_t frame_size = wal_frame_size(s->page_size);
	uint64_t per_read = (256u << 10) / frame_size + 1;
	cleanup_free uint8_t *b = malloc((size_t)(per_read * frame_size));
	struct commit c;

	if (!b)
		return err_set(err, ERR_NOMEM, 0, "no memory to read a segment");
	while (s->frame <= s->end_frame) {
		uint64_t n = s->end_frame - s->frame + 1;
		n = n < per_read ? n : per_read;
		int rc = object_read(s->object, wal_frame_offset(s->frame, s->page_size), b,
		                     (size_t)(n * frame_size), err);
		for (uint64_t i = 0; i < n && rc == 0; i++) {
			const uint8_t *p = b + i * frame_size;
			bool ends = load_be32(p + 4) != 0;
			struct replay_frame f = {load_be32(p), s->page_size,
			                         p + WAL_FRAME_HEADER_SIZE, ends ? &c : NULL};
			if (ends) {
				rc = object_commit(s->object, s->commit++, &c, err);
				if (rc == 0 && c.last_frame != s->frame + i)
					rc = err_set(err, ERR_DAMAGED, 0,
					             "'%s' is damaged: frame %" PRIu64
					             " ends no commit that it knows",
					             object_label(s->object), s->frame + i);
			}
			if (rc == 0)
				rc = fn(ctx, &f, err);
		}
		if (rc < 0)
			return rc;
		s->frame += n;
	}
	return 0;
}

/* An object can be joined into another between listing and opening: look again. */
static int find_stretch(struct history *h, uint64_t pos, uint64_t until, struct stretch *s,
                        uint64_t *ret_pos, struct err *err)
{
	struct err why = ERR_INIT;

	for (int tries = 0; tries < 5; tries++) {
		*s = (struct stretch){0};
		if (next_stretch(h, pos, until, s, ret_pos, &why) == 0)
			return 0;
		object_unref(take_ptr(s->object));
		if (why.kind != ERR_NOT_FOUND || why.sys_errno == 0)
			return err_copy(err, &why);
		history_relist(h);
		int rc = history_refresh(h, err);
		if (rc < 0)
			return rc;
	}
	why.kind = ERR_DAMAGED; /* what the history needs is gone */
	return err_copy(err, &why);
}

int history_replay(struct history *h, uint64_t after_txid, uint64_t until_txid, replay_fn *fn,
                   void *ctx, struct err *err)
{
	int rc = history_refresh(h, err);

	while (rc == 0 && after_txid < until_txid) {
		struct stretch s = {0};
		rc = find_stretch(h, after_txid, until_txid, &s, &after_txid, err);
		if (rc == 0)
			rc = play_stretch(&s, fn, ctx, err);
		object_unref(s.object);
	}
	return rc;
}

/*
 * The head is read before the folder is listed: a segment can be begun in between.  So one is
 * closed only when the head tells of commits in it, and of another that is written to.  What is
 * taken for closed by mistake is sealed and removed under its writer.
 */
static bool may_be_written(const struct history *h, const struct object_name *n)
{
	return !h->have_head || n->first_txid > h->head.last_txid ||
	       (h->head.growing_txid != 0 && n->first_txid >= h->head.growing_txid);
}

static void add_objects(struct history *h, const struct entries *es, struct history_object *out,
                        size_t *n)
{
	for (size_t i = 0; i < es->n; i++) {
		const struct entry *e = &es->e[i];
		struct history_object *o = &out[(*n)++];
		*o = (struct history_object){
		        .type = e->name.type == OBJECT_GROWING     ? HISTORY_GROWING
		                : e->name.type == OBJECT_SNAPSHOT  ? HISTORY_SNAPSHOT
		                : e->name.type == OBJECT_COALESCED ? HISTORY_COALESCED
		                                                   : HISTORY_SEGMENT,
		        .lineage = e->name.lineage,
		        .first_txid = e->name.first_txid,
		        .last_txid = e->name.last_txid,
		        .first_us = e->name.first_us,
		        .last_us = e->name.last_us,
		        .min_pages = e->name.min_pages,
		        .bytes = e->bytes,
		        .current = e->name.type == OBJECT_GROWING && may_be_written(h, &e->name),
		        .broken = e->broken,
		};
		memcpy(o->file, e->file, sizeof(o->file));
	}
}

int history_objects(struct history *h, struct history_object **ret, size_t *ret_n, struct err *err)
{
	int rc = history_refresh(h, err);
	size_t n = 0;

	if (rc < 0)
		return rc;
	LOCK_SCOPE(&h->lock);
	struct history_object *out =
	        calloc(h->segments.n + h->coalesced.n + h->snapshots.n + 1, sizeof(*out));
	if (!out)
		return err_set(err, ERR_NOMEM, 0, "no memory to list '%s'", h->name);
	add_objects(h, &h->segments, out, &n);
	add_objects(h, &h->coalesced, out, &n);
	add_objects(h, &h->snapshots, out, &n);
	*ret = out;
	*ret_n = n;
	return 0;
}

int history_object_broken(struct history *h, const struct history_object *o, struct err *err)
{
	LOCK_SCOPE(&h->lock);

	for (size_t i = 0; i < h->segments.n; i++)
		if (h->segments.e[i].broken && strcmp(h->segments.e[i].file, o->file) == 0)
			return resolve_broken(&h->segments.e[i], err);
	return 0;
}

int history_broken(struct history *h, struct err *err)
{
	LOCK_SCOPE(&h->lock);

	for (size_t i = 0; i < h->segments.n; i++)
		if (h->segments.e[i].broken)
			return resolve_broken(&h->segments.e[i], err);
	return 0;
}

int history_object_frames(struct history *h, const struct history_object *o, uint64_t *ret_frames,
                          uint32_t *ret_page_size, struct source_position *ret_pos, struct err *err)
{
	cleanup_object struct object *obj = NULL;
	struct entries *es = o->type == HISTORY_COALESCED ? &h->coalesced : &h->segments;
	LOCK_SCOPE(&h->lock);

	for (size_t i = 0; i < es->n; i++) {
		if (strcmp(es->e[i].file, o->file) != 0)
			continue;
		int rc = catalog_open(h, es, &es->e[i], &obj, err);
		if (rc < 0)
			return rc;
		*ret_page_size = object_page_size(obj);
		*ret_pos = (struct source_position){0};
		if (obj->sealed) {
			*ret_frames = sealed_get_info(obj->sealed)->n_frames;
			*ret_pos = sealed_get_info(obj->sealed)->pos;
			return 0;
		}
		struct commit c;
		uint64_t n = grow_n_commits(obj->grow);
		*ret_frames = n && grow_get_commit(obj->grow, n - 1, &c) ? c.last_frame : 0;
		grow_position(obj->grow, ret_pos);
		return 0;
	}
	return err_set(err, ERR_NOT_FOUND, 0, "'%s' is gone", o->file);
}

void history_relist(struct history *h)
{
	LOCK_SCOPE(&h->lock);
	h->listed = false;
}

uint64_t history_thinned(struct history *h)
{
	LOCK_SCOPE(&h->lock);
	return h->thinned.until_txid;
}

bool history_point(struct history *h, uint64_t txid, uint64_t *ret)
{
	LOCK_SCOPE(&h->lock);
	const struct thinned_point *p = thinned_at_or_after(h, txid);

	if (p)
		*ret = p->txid;
	return p != NULL;
}

int history_commit(struct history *h, uint64_t txid, struct commit *ret, struct err *err)
{
	int rc = history_refresh(h, err);
	LOCK_SCOPE(&h->lock);

	return rc < 0 ? rc : resolve_commit(h, txid, ret, NULL, err);
}
