/* SPDX-License-Identifier: Apache-2.0 */
/* What the target holds, where it begins and ends, who is at work in it; and what the others are. */
#include "engine/archive/upkeep.h"
#include "engine/base/file.h"
#include "engine/base/log.h"
#include "engine/repair/repair_i.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOCK_WAIT_US (30 * US_PER_SECOND)

bool is_fine(const struct item *i)
{
	return i->kind == ITEM_GROWING || i->kind == ITEM_SEALED;
}

/* ---- the others ---- */

static int get(const struct repair *r, const struct site *s, const char *file, struct buf *ret,
               struct err *err)
{
	char key[STORE_KEY_MAX];

	repair_key(r, file, key);
	return store_get(s->at.store, key, REPAIR_NOTE_MAX, ret, err);
}

static bool source_id(const struct repair *r, const struct site *s, uint32_t *ret)
{
	cleanup_buf struct buf b = BUF_INIT(REPAIR_NOTE_MAX + 1);
	struct source_note note;

	if (get(r, s, "source", &b, NULL) < 0 || buf_append(&b, "", 1, NULL) < 0 ||
	    source_note_parse((char *)b.data, b.len - 1, &note, NULL) < 0)
		return false;
	*ret = note.id;
	return true;
}

/* Names tell times to the microsecond: no two histories have one in common. */
static bool has_in_common(const struct repair *r, const struct site *s)
{
	for (size_t i = 0; i < r->target.items.n; i++) {
		const struct item *o = &r->target.items.v[i];
		if ((o->kind == ITEM_SEALED || o->kind == ITEM_SNAPSHOT) && site_find(s, o->file))
			return true;
	}
	return false;
}

/* A segment of level 0 has no time in its name: then the notes of lineages tell. */
static bool has_lineage_in_common(const struct repair *r, const struct site *s)
{
	for (size_t i = 0; i < r->target.items.n; i++) {
		cleanup_buf struct buf a = BUF_INIT(REPAIR_NOTE_MAX), b = BUF_INIT(REPAIR_NOTE_MAX);
		const struct item *o = &r->target.items.v[i];
		struct object_name n;
		if (o->kind == ITEM_NOTE && object_name_parse(o->file, &n) &&
		    get(r, &r->target, o->file, &a, NULL) == 0 &&
		    get(r, s, o->file, &b, NULL) == 0 && a.len && a.len == b.len &&
		    memcmp(a.data, b.data, a.len) == 0)
			return true;
	}
	return false;
}

static int read_gaps(struct repair *r, struct err *err)
{
	r->gaps = calloc(r->target.items.n + 1, sizeof(*r->gaps));
	if (!r->gaps)
		return err_set(err, ERR_NOMEM, 0, "no memory for gaps");
	for (size_t i = 0; i < r->target.items.n; i++) {
		cleanup_buf struct buf b = BUF_INIT(REPAIR_NOTE_MAX + 1);
		const char *file = r->target.items.v[i].file;
		uint64_t txid;
		if (r->target.items.v[i].kind == ITEM_NOTE && gap_name_parse(file, &txid) &&
		    get(r, &r->target, file, &b, NULL) == 0 && buf_append(&b, "", 1, NULL) == 0 &&
		    gap_note_parse((char *)b.data, b.len - 1, file, &r->gaps[r->n_gaps], NULL) == 0)
			r->n_gaps++;
	}
	return 0;
}

static int look_how_far(struct repair *r, struct site *s, struct err *err)
{
	struct err why = ERR_INIT;

	int rc = fork_find(r, s, &why);
	if (repair_ends(rc, &why))
		return err_copy(err, &why);
	if (rc < 0) { /* its notes, say: what lies there is looked at one by one */
		log_debug("repair", "db=%s place=%s: %s", r->name, s->at.label, why.msg);
	} else if (!fork_none(r, s)) {
		log_warn("repair",
		         "db=%s place=%s went another way: it repairs what is up to txid %" PRIu64,
		         r->name, s->at.label, s->shared_txid);
	}
	return 0;
}

static int look_at_others(struct repair *r, struct err *err)
{
	uint32_t mine = 0, theirs;
	bool known = source_id(r, &r->target, &mine);

	r->target.same = true;
	int known_rc = read_gaps(r, err);
	known_rc = known_rc ? known_rc : fork_know(r, err);
	if (known_rc < 0)
		return known_rc;
	for (size_t i = 0; i < r->n_others; i++) {
		struct site *s = &r->others[i];
		struct err why = ERR_INIT;
		int rc = site_list(r, s, &why);
		if (repair_ends(rc, &why))
			return err_copy(err, &why);
		if (rc < 0) {
			log_warn("repair", "passed over '%s': %s", s->at.label, why.msg);
			continue;
		}
		if (s->items.n == 0)
			continue;
		if (!source_id(r, s, &theirs))
			s->same = has_in_common(r, s);
		else
			s->same = known ? mine == theirs
			                : has_in_common(r, s) || has_lineage_in_common(r, s);
		if (!s->same)
			log_warn("repair", "passed over db=%s place=%s: another database's history",
			         r->name, s->at.label);
		rc = s->same ? look_how_far(r, s, err) : 0;
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* ---- locks, head, notes ---- */

static int open_folder(struct repair *r, int *ret, struct err *err)
{
	char path[STORE_KEY_MAX];

	snprintf(path, sizeof(path), "local/%s", r->name);
	return file_open_dir(r->target.at.store->dir_fd, path, false, ret, err);
}

static int take_locks(struct repair *r, int dir, struct err *err)
{
	cleanup_fd int fd = -1;
	struct err why = ERR_INIT;

	if (file_open(dir, "lock", O_RDWR, 0, &fd, &why) == 0) {
		if (r->options->dry_run)
			r->writer_alive = file_is_locked(fd);
		else if (file_lock(fd, "lock", &why) == 0)
			r->lock_fd = take_fd(&fd);
		else if (why.kind == ERR_BUSY)
			r->writer_alive = true;
		else
			return err_copy(err, &why);
	}
	return r->options->dry_run ? 0
	                           : upkeep_lock(dir, r->name, LOCK_WAIT_US, &r->upkeep_fd, err);
}

static int read_head(struct repair *r, int dir, struct err *err)
{
	cleanup_fd int fd = -1;
	struct err why = ERR_INIT;

	int rc = file_open(dir, HEAD_NAME, O_RDONLY, 0, &fd, &why);
	rc = rc ? rc : head_read(fd, &r->head, &why);
	r->have_head = rc == 0;
	if (rc < 0)
		r->head = (struct head){0};
	return err_kind_of(rc) == ERR_VERSION ? err_copy(err, &why) : 0;
}

static int read_thinned(struct repair *r, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT(REPAIR_NOTE_MAX + 1);
	struct err why = ERR_INIT;

	int rc = get(r, &r->target, "thinned", &b, &why);
	rc = rc ? rc : buf_append(&b, "", 1, &why);
	rc = rc ? rc : thinned_note_parse((char *)b.data, b.len - 1, &r->thinned, &why);
	r->thinned_lost = err_kind_of(rc) == ERR_DAMAGED;
	return rc < 0 && why.kind != ERR_NOT_FOUND && !r->thinned_lost ? err_copy(err, &why) : 0;
}

/* ---- where it begins and ends ---- */

static uint64_t newest_of(const struct site *s)
{
	uint64_t end = 0;

	for (size_t i = 0; i < s->items.n; i++) {
		const struct item *o = &s->items.v[i];
		uint64_t at = o->kind == ITEM_NOTE      ? 0
		              : o->kind != ITEM_GROWING ? o->name.last_txid
		              : o->bytes > 82           ? o->name.first_txid
		                                        : 0;
		end = at > end ? at : end;
	}
	return end;
}

static void find_ends(struct repair *r)
{
	r->begin_txid = UINT64_MAX;
	r->end_txid = newest_of(&r->target);
	if (r->have_head && r->head.last_txid > r->end_txid)
		r->end_txid = r->head.last_txid;
	for (size_t i = 0; i < r->target.items.n; i++) {
		const struct item *o = &r->target.items.v[i];
		if (o->kind != ITEM_NOTE && o->name.first_txid < r->begin_txid)
			r->begin_txid = o->name.first_txid;
	}
	for (size_t i = 0; i < r->n_others; i++) {
		const struct site *s = &r->others[i];
		uint64_t told = s->same && fork_none(r, s) ? writer_brought(r, s, &r->target) : 0;
		if (told > r->end_txid)
			r->end_txid = told;
	}
}

int target_begin(struct repair *r, struct err *err)
{
	cleanup_fd int dir = -1;
	int rc = 0;

	if (r->target.at.store->dir_fd >= 0) {
		rc = open_folder(r, &dir, err);
		rc = rc ? rc : take_locks(r, dir, err);
		rc = rc ? rc : read_head(r, dir, err);
	}
	rc = rc ? rc : site_list(r, &r->target, err);
	rc = rc ? rc : look_at_others(r, err);
	return rc;
}

int target_know(struct repair *r, struct err *err)
{
	int rc = read_thinned(r, err);

	if (rc == 0)
		find_ends(r);
	return rc;
}

/* Readers look at the folders again when the generation goes up; a running writer has its own. */
static void tell_readers(struct repair *r)
{
	cleanup_fd int dir = -1, fd = -1;
	struct err why = ERR_INIT;

	if (!r->changed || r->lock_fd < 0 || !r->have_head)
		return;
	int rc = open_folder(r, &dir, &why);
	rc = rc ? rc : file_open(dir, HEAD_NAME, O_RDWR, 0, &fd, &why);
	r->head.generation++;
	rc = rc ? rc : head_write(fd, &r->head, &why);
	if (rc < 0)
		log_warn("repair", "readers are not told db=%s: %s", r->name, why.msg);
}

void target_end(struct repair *r)
{
	tell_readers(r);
	if (r->upkeep_fd >= 0)
		close(r->upkeep_fd);
	if (r->lock_fd >= 0)
		close(r->lock_fd);
	thinned_note_release(&r->thinned);
	free(r->gaps);
	free(r->known);
}

/* ---- single objects ---- */

bool target_is_written(const struct repair *r, const struct item *i)
{
	return r->writer_alive && i->kind == ITEM_GROWING && r->target.at.store->dir_fd >= 0 &&
	       (!r->have_head || r->head.growing_txid <= i->name.first_txid);
}

uint64_t target_bound(const struct repair *r, const struct item *i)
{
	uint64_t bound = UINT64_MAX;

	for (size_t k = 0; k < r->target.items.n; k++) {
		const struct item *o = &r->target.items.v[k];
		if (is_fine(o) && o->name.first_txid > i->name.first_txid &&
		    o->name.first_txid - 1 < bound)
			bound = o->name.first_txid - 1;
	}
	return bound == UINT64_MAX ? r->end_txid : bound;
}

int target_add(struct repair *r, const struct item *i, struct err *err)
{
	struct items *is = &r->target.items;

	int rc = items_room(is, err);
	if (rc < 0)
		return rc;
	size_t at = is->n++;
	for (; at > 0 && strcmp(is->v[at - 1].file, i->file) > 0; at--)
		is->v[at] = is->v[at - 1];
	is->v[at] = *i;
	is->v[at].bad = false;
	return 0;
}

int target_look(struct repair *r, struct item *i, struct err *ret_why, struct err *err)
{
	bool dir = r->target.at.store->dir_fd >= 0;
	bool current = dir && r->have_head && r->head.growing_txid == i->name.first_txid &&
	               r->head.lineage == i->name.lineage;
	struct source *src;
	char key[STORE_KEY_MAX];

	*ret_why = (struct err)ERR_INIT;
	repair_key(r, i->file, key);
	int rc = repair_stopped(r, err);
	if (rc < 0)
		return rc;
	rc = store_open_object(r->target.at.store, key, dir ? UINT64_MAX : i->bytes, &src, ret_why);
	rc = rc ? rc : whole_check(src, i, current ? r->head.durable_len : 0, !dir, ret_why);
	if (rc == 0 || ret_why->kind == ERR_DAMAGED)
		return 0;
	return err_copy(err, ret_why);
}

/* ---- a run ---- */

int repair_begin(struct repair *r, const struct repair_options *o, const char *name,
                 struct repair_result *result, struct err *err)
{
	char folder[STORE_KEY_MAX];

	*r = (struct repair){.options = o,
	                     .result = result,
	                     .name = name,
	                     .target = {.at = o->target},
	                     .n_others = o->n_others,
	                     .scratch_fd = -1,
	                     .lock_fd = -1,
	                     .upkeep_fd = -1};
	r->others = calloc(o->n_others + 1, sizeof(*r->others));
	if (!r->others) {
		r->n_others = 0;
		return err_set(err, ERR_NOMEM, 0, "no memory to repair");
	}
	for (size_t i = 0; i < o->n_others; i++)
		r->others[i].at = o->others[i];
	if (name && !o->dry_run) { /* where one was killed, the next may have nothing to put */
		repair_key(r, "", folder);
		store_sweep(o->target.store->dir_fd, folder);
	}
	return 0;
}

/* What a run that failed left in it, too. */
static void remove_scratch(struct repair *r)
{
	if (r->scratch_fd >= 0)
		put_empty(r->scratch_fd);
	if (r->scratch[0])
		rmdir(r->scratch);
	if (r->scratch_fd >= 0)
		close(r->scratch_fd);
}

void repair_end(struct repair *r)
{
	target_end(r);
	site_release(&r->target);
	for (size_t i = 0; i < r->n_others; i++)
		site_release(&r->others[i]);
	free(r->others);
	remove_scratch(r);
}
