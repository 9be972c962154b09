/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What was captured last is damaged, or gone: nothing can be written behind it, since nobody knows
 * what it was.  Capture goes on all the same, in a child lineage:
 *
 *      parent                                          child
 *   ... ---------- damaged ------|   no txid is used  |--------> base, commits
 *         readable          from_txid              first_txid
 *
 *   (1) first_txid lies above everything that may have been acknowledged: the head's word, the last
 *       txid in every object's name, what parses of a damaged segment, what destinations have.  That
 *       bounds it from below only.  The head is not fsynced, so after a power failure it can tell of
 *       less than was durable; and what was durable may not have been published yet.  Both end
 *       within the one growing segment behind all that: it is cut at the first commit past 512 MiB
 *       of content (FORMAT.md), of which a commit takes 536 bytes at least, so it holds some 1,000,000 of
 *       them at most.  JUMP leaves room for twice that.  An object that is put back later, with
 *       whatever it holds, so never meets a txid of the child.
 *   (2) It begins with the note of the lineage, and that is written when capture hands over the
 *       first break: who is killed before has changed nothing, and finds the same again.  Until then the
 *       head stays as it was, since it bears witness.  From then on the note is the witness, and
 *       lost_take_up() goes on behind it: one lineage for one damage.
 *   (3) The damaged object stays as it is, where it is.
 *   (4) Only damage does this.  What may pass (an I/O error, no memory, no permission) and what a newer
 *       asof wrote stays an error, and is tried again.
 */
#include "engine/base/log.h"
#include "engine/daemon/recorder_i.h"
#include "engine/ship/ship.h"

#include <fcntl.h>
#include <inttypes.h>

#define JUMP (UINT64_C(1) << 21)

/* ---- what was acknowledged ---- */

static int take_shipped(void *ctx, const struct ship_status *s)
{
	struct told *t = ctx;

	if (s->replicated_txid > t->txid) {
		t->txid = s->replicated_txid;
		t->time_us = s->replicated_us;
	}
	return 0;
}

struct told lost_told(const struct recorder *r)
{
	struct told t = {r->head.last_txid, r->head.last_us};
	int rc = ship_status_each(r->root, r->name, take_shipped, &t);

	(void)rc;
	return t;
}

static void take_object(struct told *t, const struct history_object *o)
{
	uint64_t txid = o->last_txid;

	if (o->type == HISTORY_GROWING && txid < o->first_txid)
		txid = o->bytes > EMPTY_SEGMENT_BYTES ? o->first_txid : o->first_txid - 1;
	if (txid > t->txid)
		t->txid = txid;
	if (o->last_us > t->time_us)
		t->time_us = o->last_us;
}

/* The newest jump, if nothing of its child is there yet, or that and the rest. */
static int newest_jump(struct recorder *r, struct jump *ret, struct err *err)
{
	struct err why = ERR_INIT;
	struct jump j;

	*ret = (struct jump){0};
	for (size_t i = 0; history_jump(r->history, i, &j, &why) == 0; i++)
		if (j.first_txid > ret->first_txid)
			*ret = j;
	return why.kind == ERR_NOT_FOUND ? 0 : err_copy(err, &why);
}

/* A sealed segment that is gone leaves its table. */
static void find_by_table(struct recorder *r, uint64_t txid)
{
	int fd = openat(r->segment_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cleanup_dir DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *d;

	while (dir && (d = readdir(dir))) {
		struct object_name n;
		char name[OBJECT_NAME_MAX];
		if (!object_name_parse(d->d_name, &n) || n.type != OBJECT_COMMITS ||
		    n.last_txid != txid)
			continue;
		n.type = OBJECT_SEALED;
		object_name_format(&n, name);
		snprintf(r->lost.object, sizeof(r->lost.object), "segment/%s", name);
	}
}

/* The last transaction that any name tells of, or is known of a growing segment. */
static uint64_t last_held(const struct history_object *objects, size_t n)
{
	uint64_t last = 0;

	for (size_t i = 0; i < n; i++) {
		const struct history_object *o = &objects[i];
		bool by_itself = o->type == HISTORY_SNAPSHOT ? o->first_txid > o->last_txid
		                                             : o->type != HISTORY_COALESCED;
		if (by_itself && o->last_txid > last)
			last = o->last_txid;
	}
	return last;
}

int lost_check(struct recorder *r, const struct history_object *objects, size_t n_objects,
               struct err *err)
{
	struct told told = lost_told(r);
	uint64_t last = last_held(objects, n_objects);
	struct jump j;

	int rc = newest_jump(r, &j, err);
	if (rc < 0 || told.txid <= last || told.txid <= j.told_txid)
		return rc;
	r->lost.object[0] = '\0';
	const struct object_name n = {.type = OBJECT_GROWING,
	                              .lineage = r->head.lineage,
	                              .first_txid = r->head.growing_txid};
	char name[OBJECT_NAME_MAX];

	find_by_table(r, told.txid);
	object_name_format(&n, name);
	if (n.first_txid && n.first_txid <= told.txid &&
	    faccessat(r->segment_fd, name, F_OK, 0) < 0 && errno == ENOENT)
		snprintf(r->lost.object, sizeof(r->lost.object), "segment/%s", name);
	return err_set(err, ERR_DAMAGED, 0,
	               "transactions %" PRIu64 " to %" PRIu64 " are missing%s%s", last + 1,
	               told.txid, r->lost.object[0] ? ", with " : "", r->lost.object);
}

/* ---- beginning ---- */

/* Behind the jump, of which nothing but the note is there. */
static void stand_behind(struct recorder *r)
{
	const struct lost *l = &r->lost;

	grow_writer_free(take_ptr(r->w));
	r->growing_txid = r->durable_len = 0;
	r->last = (struct commit){.txid = l->first_txid - 1, .time_us = l->from_us};
	r->pos = (struct source_position){0};
	r->settled = false;
	if (r->known_until_us < l->from_us)
		r->known_until_us = l->from_us;
	r->durable = r->last;
	r->durable_pos = r->pos;
	r->durable_settled = false;
	lost_open_gap(r);
}

void lost_open_gap(struct recorder *r)
{
	r->gap_open = r->gap_told = true;
	r->gap_doubtful = false;
	r->gap = (struct gap_note){.before_txid = r->lost.from_txid, .before_us = r->lost.from_us};
	snprintf(r->gap.reason, sizeof(r->gap.reason), "%s", r->lost.reason);
}

int lost_begin(struct recorder *r, const struct err *why, struct err *err)
{
	cleanup_free struct history_object *objects = NULL;
	struct lost *l = &r->lost;
	struct told told = lost_told(r);
	struct jump before;
	size_t n;

	if (why->kind != ERR_DAMAGED && why->kind != ERR_NOT_FOUND)
		return err_copy(err, why);
	int rc = history_objects(r->history, &objects, &n, err);
	rc = rc ? rc : newest_jump(r, &before, err);
	if (rc < 0)
		return rc;
	if (before.first_txid > told.txid + 1)
		told = (struct told){before.first_txid - 1, before.from_us};
	for (size_t i = 0; i < n; i++)
		take_object(&told, &objects[i]);
	if (told.time_us < r->head.known_until_us)
		told.time_us = r->head.known_until_us;
	l->pending = true;
	l->from_txid = told.txid;
	l->from_us = told.time_us ? told.time_us : 1;
	l->first_txid = told.txid + JUMP + 1;
	snprintf(l->reason, sizeof(l->reason), "damaged: %.140s", why->msg);
	r->page_size = 0; /* a break with any size begins the lineage */
	stand_behind(r);
	log_error("recorder",
	          "the newest part of the history cannot be read, capture goes on with a new base "
	          "db=%s object='%s' after_txid=%" PRIu64 ": %s (asof validate --repair brings it "
	          "back from another place of the archive)",
	          r->name, l->object, l->from_txid, why->msg);
	return 0;
}

void lost_fill_note(struct recorder *r, struct lineage_note *n)
{
	const struct lost *l = &r->lost;

	if (!l->pending)
		return;
	n->from_txid = l->from_txid;
	n->first_txid = l->first_txid;
	n->from_us = l->from_us;
	snprintf(n->lost, sizeof(n->lost), "%s", l->object);
	snprintf(n->reason, sizeof(n->reason), "%s", l->reason);
}

/* ---- after a restart ---- */

static int read_note(struct recorder *r, const struct jump *j, struct lineage_note *ret,
                     struct err *err)
{
	const struct object_name n = {.type = OBJECT_LINEAGE, .lineage = j->lineage};
	char name[OBJECT_NAME_MAX];

	object_name_format(&n, name);
	return lineage_note_get(r->dir_fd, name, ret, err);
}

/* Who was killed between the base and the note of the gap before it. */
static int note_gap(struct recorder *r, const struct jump *j, struct err *err)
{
	struct moment base;
	struct gap g;

	for (size_t i = 0; history_gap(r->history, i, &g, NULL) == 0; i++)
		if (g.before_txid < j->first_txid && g.after_txid >= j->first_txid)
			return 0;
	if (history_next(r->history, j->first_txid, &base, NULL) < 0)
		return 0; /* there is none yet: it is still to be written */
	struct gap_note n = {.before_txid = j->told_txid,
	                     .before_us = j->told_us,
	                     .after_txid = base.txid,
	                     .after_us = base.time_us};
	snprintf(n.reason, sizeof(n.reason), "%s", r->lost.reason);
	return gap_note_put(r->dir_fd, &n, err);
}

int lost_take_up(struct recorder *r, bool *ret_taken, struct err *err)
{
	cleanup_free struct history_object *objects = NULL;
	struct lineage_note note = {0};
	struct lost *l = &r->lost;
	struct jump j;
	size_t n;

	*ret_taken = false;
	int rc = newest_jump(r, &j, err);
	if (rc < 0 || j.first_txid == 0)
		return rc;
	rc = history_objects(r->history, &objects, &n, err);
	rc = rc ? rc : read_note(r, &j, &note, err);
	if (rc < 0)
		return rc;
	*l = (struct lost){
	        .from_txid = j.from_txid, .from_us = j.from_us, .first_txid = j.first_txid};
	snprintf(l->reason, sizeof(l->reason), "%s", note.reason);
	for (size_t i = 0; i < n; i++)
		if (objects[i].last_txid >= j.first_txid)
			return note_gap(r, &j, err);
	*ret_taken = true;
	r->page_size = note.page_size;
	stand_behind(r);
	return 0;
}
