/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One database.  Order, so that the copy is right at each step:
 *
 *   lineages, gaps
 *   where the first thinned what the second never got: coalesced objects and snapshots, then the
 *     note `thinned`
 *   segments, in the order of their txids, the growing one last
 *   head: from here on readers see them
 *   snapshots, coalesced objects; what is now part of a sealed or joined segment goes
 *   marks; `source`, without which the folder is no database yet
 */
#include "engine/archive/head.h"
#include "engine/archive/notes.h"
#include "engine/archive/upkeep.h"
#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/base/log.h"
#include "engine/base/spans.h"
#include "engine/copy/copy_i.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#define TRIES_MAX 50
#define LOCK_WAIT_US (30 * US_PER_SECOND)

enum { SEGMENT, COALESCED, SNAPSHOT, N_FOLDERS };
static const char *const folders[N_FOLDERS] = {"segment", "coalesced", "snapshot"};

/* Both sides of one database. */
struct sides {
	struct copying *c;
	struct history *history; /* of the first */
	const char *name;
	struct store *store;
	int from; /* the folder, where the first is a directory; else -1 */
	int to, to_fds[N_FOLDERS];
	struct history_object *objects; /* what has each transaction first, in their order */
	size_t n;
	struct copy_there there;
	struct head head;
	bool have_head, is_new;
	struct thinned_note thinned_from, thinned_to;
};

static int folder_of(const struct history_object *o)
{
	return o->type == HISTORY_SNAPSHOT    ? SNAPSHOT
	       : o->type == HISTORY_COALESCED ? COALESCED
	                                      : SEGMENT;
}

static bool is_fine(const struct history_object *o)
{
	return o->type == HISTORY_SEGMENT || o->type == HISTORY_GROWING;
}

static bool is_there(const struct sides *s, const struct history_object *o)
{
	struct stat st;

	return fstatat(s->to_fds[folder_of(o)], o->file, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	       (uint64_t)st.st_size == o->bytes;
}

static struct copy_from from_file(const struct sides *s, const char *file, uint64_t bytes,
                                  int64_t modified_us)
{
	struct copy_from f = {.store = s->store, .bytes = bytes, .modified_us = modified_us};

	snprintf(f.key, sizeof(f.key), "local/%s/%s", s->name, file);
	return f;
}

static struct copy_from from_object(const struct sides *s, const char *folder, const char *file,
                                    uint64_t bytes)
{
	struct copy_from f = {.store = s->store, .bytes = bytes};

	snprintf(f.key, sizeof(f.key), "local/%s/%s/%s", s->name, folder, file);
	return f;
}

/* A note of the first, with a NUL behind it. */
static int get_note(struct sides *s, const char *file, struct buf *ret, struct err *err)
{
	struct copy_from f = from_file(s, file, UINT64_MAX, 0);

	int rc = store_get(s->store, f.key, COPY_NOTE_MAX, ret, err);
	return rc < 0 ? rc : buf_append(ret, "", 1, err);
}

/* ---- what the first holds, at one moment ---- */

/* Segments before the rest, each kind as history_objects() has it but that both kinds of segments are
 * one. */
static int object_compare(const void *a, const void *b)
{
	const struct history_object *x = a, *y = b;
	int type_x = is_fine(x) ? 0 : (int)x->type, type_y = is_fine(y) ? 0 : (int)y->type;

	if (type_x != type_y)
		return type_x < type_y ? -1 : 1;
	if (x->first_txid != y->first_txid)
		return x->first_txid < y->first_txid ? -1 : 1;
	return x->last_txid < y->last_txid ? -1 : x->last_txid > y->last_txid;
}

static int list_first(struct sides *s, struct err *err)
{
	history_relist(s->history);
	int rc = history_objects(s->history, &s->objects, &s->n, err);
	if (rc == 0 && s->n > 0)
		qsort(s->objects, s->n, sizeof(*s->objects), object_compare);
	return rc;
}

static int read_head(int dir_fd, struct head *ret, bool *ret_have, struct err *err)
{
	cleanup_fd int fd = -1;
	struct err why = ERR_INIT;

	*ret_have = false;
	*ret = (struct head){0};
	if (file_open(dir_fd, HEAD_NAME, O_RDONLY, 0, &fd, &why) < 0)
		return why.kind == ERR_NOT_FOUND ? 0 : err_copy(err, &why);
	*ret_have = head_read(fd, ret, &why) == 0;
	return why.kind == ERR_VERSION ? err_copy(err, &why) : 0;
}

/* The head must tell of the segments that are listed: it is read before and after. */
static int look(struct sides *s, struct err *err)
{
	for (int tries = 0; tries < TRIES_MAX; tries++) {
		struct head before;
		bool had;
		free(s->objects);
		s->objects = NULL;
		if (s->from < 0) /* a store of objects that never change, and no head */
			return list_first(s, err);
		int rc = read_head(s->from, &before, &had, err);
		if (rc == 0)
			rc = list_first(s, err);
		if (rc == 0)
			rc = read_head(s->from, &s->head, &s->have_head, err);
		if (rc < 0 || (before.generation == s->head.generation && had == s->have_head &&
		               before.growing_txid == s->head.growing_txid))
			return rc;
		clock_sleep_us(1000);
	}
	return err_set(err, ERR_BUSY, 0, "the history of '%s' does not hold still (try again)",
	               s->name);
}

/* ---- objects ---- */

/* Its table goes before it, as it did when it was sealed. */
static int copy_table(struct sides *s, const struct history_object *o, struct err *err)
{
	struct object_name n;
	char table[OBJECT_NAME_MAX];
	struct stat st;

	if (o->type != HISTORY_SEGMENT || !object_name_parse(o->file, &n))
		return 0;
	n.type = OBJECT_COMMITS;
	object_name_format(&n, table);
	if (fstatat(s->to_fds[SEGMENT], table, &st, 0) == 0)
		return 0;
	uint64_t objects = s->c->result->objects;
	struct copy_from f = from_object(s, folders[SEGMENT], table, UINT64_MAX);
	int rc = copy_plain(s->c, &f, s->to_fds[SEGMENT], table, err);
	s->c->result->objects = objects; /* a part of the next one */
	return rc;
}

/* What is durable of it, and no more. */
static int copy_growing_segment(struct sides *s, const struct history_object *o, bool anew,
                                struct err *err)
{
	struct copy_from f = from_object(s, folders[SEGMENT], o->file, UINT64_MAX);
	struct copy_extent extent = {.bytes = s->head.durable_len};
	struct source *src;

	if (s->from < 0) /* it was put whole */
		extent.bytes = f.bytes = o->bytes;
	else if (!s->have_head || s->head.growing_txid != o->first_txid) {
		int rc = store_open_object(s->store, f.key, f.bytes, &src, err);
		if (rc == 0)
			rc = copy_whole_length(src, &extent, err);
		if (rc < 0)
			return rc;
	}
	if (extent.bytes == 0 || o->last_txid < o->first_txid)
		return 0;
	return copy_growing(s->c, &f, s->to_fds[SEGMENT], o, extent.bytes, anew, err);
}

static int copy_whole(struct sides *s, const struct history_object *o, struct err *err)
{
	int folder = folder_of(o);
	struct copy_from f = from_object(s, folders[folder], o->file, o->bytes);

	return copy_object(s->c, &f, s->to_fds[folder], o, err);
}

static int copy_segment(struct sides *s, const struct history_object *o, struct err *err)
{
	if (o->type == HISTORY_GROWING)
		return copy_growing_segment(s, o, false, err);
	int rc = copy_table(s, o, err);
	return rc < 0 ? rc : copy_whole(s, o, err);
}

static int copy_one(struct sides *s, const struct history_object *o, struct err *err)
{
	if (o->type == HISTORY_GROWING && !copy_holds_all(&s->there, o))
		return copy_segment(s, o, err);
	if (o->type == HISTORY_GROWING || is_there(s, o)) {
		s->c->result->present++;
		return 0;
	}
	return is_fine(o) ? copy_segment(s, o, err) : copy_whole(s, o, err);
}

/* A segment of the first that the second has, perhaps with fewer transactions for now. */
static bool segment_is_there(void *ctx, const struct history_object *o)
{
	struct sides *s = ctx;

	return is_fine(o) &&
	       (o->type == HISTORY_GROWING ? faccessat(s->to_fds[SEGMENT], o->file, F_OK, 0) == 0
	                                   : is_there(s, o));
}

static void remove_segment(struct sides *s, const char *file)
{
	struct object_name n;
	char table[OBJECT_NAME_MAX];

	unlinkat(s->to_fds[SEGMENT], file, 0);
	if (object_name_parse(file, &n) && n.type == OBJECT_SEALED) {
		n.type = OBJECT_COMMITS;
		object_name_format(&n, table);
		unlinkat(s->to_fds[SEGMENT], table, 0);
	}
}

/* Past the states that were found idle: a snapshot alone holds them. */
static int skip_idle(struct sides *s, uint64_t *next, struct err *err)
{
	for (size_t k = 0; k < s->n; k++) {
		const struct history_object *o = &s->objects[k];
		if (o->type != HISTORY_SNAPSHOT || o->last_txid != *next ||
		    o->first_txid <= o->last_txid)
			continue;
		int rc = is_there(s, o) ? 0 : copy_whole(s, o, err);
		if (rc < 0)
			return rc;
		*next += is_there(s, o);
	}
	return 0;
}

/* What it takes of objects[0..i] to have all that the segment `there` holds, which goes then. */
static int replace_one(struct sides *s, size_t i, const struct object_name *there, struct err *err)
{
	const struct history_object *same = NULL;
	char file[OBJECT_NAME_MAX];
	uint64_t next = there->first_txid;

	if (next <= s->thinned_to.until_txid) /* what is left of those needs no segment */
		next = s->thinned_to.until_txid + 1;
	object_name_format(there, file);
	for (size_t k = 0; k <= i; k++) {
		const struct history_object *o = &s->objects[k];
		int rc = skip_idle(s, &next, err);
		if (rc < 0)
			return rc;
		if (!is_fine(o) || o->lineage != there->lineage || o->last_txid < next ||
		    o->first_txid > next || o->first_txid > there->last_txid)
			continue;
		if (strcmp(o->file, file) == 0 && o->type != HISTORY_GROWING)
			return 0; /* the first has both */
		if (strcmp(o->file, file) == 0)
			same = o;
		rc = segment_is_there(s, o) ? 0 : copy_segment(s, o, err);
		if (rc < 0)
			return rc;
		if (segment_is_there(s, o))
			next = o->last_txid + 1;
	}
	int rc = skip_idle(s, &next, err);
	if (rc < 0)
		return rc;
	if (next <= there->last_txid) {
		log_warn("copy", "cut otherwise db=%s: '%s' stays, and what follows it is not seen",
		         s->name, file);
		return 0;
	}
	log_info("copy", "cut otherwise db=%s: '%s' goes", s->name, file);
	if (same)
		return copy_growing_segment(s, same, true, err);
	remove_segment(s, file);
	return 0;
}

/* What objects[i] reaches beyond: see there.c. */
static int replace_straddled(struct sides *s, size_t i, struct err *err)
{
	const struct object_name *there;
	int rc = 0;

	if (s->objects[i].type != HISTORY_GROWING || !segment_is_there(s, &s->objects[i]))
		return 0;
	while (rc == 0 && (there = copy_next_straddled(&s->there, &s->objects[i])))
		rc = replace_one(s, i, there, err);
	return rc;
}

/* Part of a joined segment that is there, too: it goes any moment. */
static bool is_covered(const struct sides *s, const struct history_object *o)
{
	for (size_t i = 0; i < s->n; i++) {
		const struct history_object *w = &s->objects[i];
		if (w->type == HISTORY_SEGMENT && w != o && w->lineage == o->lineage &&
		    w->first_txid <= o->first_txid && w->last_txid >= o->last_txid &&
		    w->last_txid - w->first_txid > o->last_txid - o->first_txid)
			return true;
	}
	return false;
}

/* What ends behind after_txid and not behind until_txid. */
static int copy_type(struct sides *s, bool fine, uint64_t after_txid, uint64_t until_txid,
                     struct err *err)
{
	int rc = 0;

	for (size_t i = 0; i < s->n && rc == 0; i++) {
		const struct history_object *o = &s->objects[i];
		bool wanted = o->last_txid > after_txid && o->last_txid <= until_txid;
		if (is_fine(o) == fine && wanted && !(fine && is_covered(s, o)))
			rc = copy_one(s, o, err);
		if (rc == 0 && fine)
			rc = replace_straddled(s, i, err);
		if (rc == 0)
			rc = copy_stopped(s->c, err);
	}
	return rc;
}

/* What the second has under names of its own, as far as names tell. */
static int remove_covered(struct sides *s, struct err *err)
{
	cleanup_dir DIR *dir = NULL;
	struct dirent *d;

	int fd = openat(s->to_fds[SEGMENT], ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir)
		return err_set(err, ERR_IO, errno, "list the copy of '%s'", s->name);
	while ((d = readdir(dir))) {
		struct object_name n;
		if (!object_name_parse(d->d_name, &n) ||
		    (n.type != OBJECT_SEALED && n.type != OBJECT_GROWING))
			continue;
		for (size_t i = 0; i < s->n; i++) {
			const struct history_object *o = &s->objects[i];
			if (o->type != HISTORY_SEGMENT || o->lineage != n.lineage ||
			    strcmp(o->file, d->d_name) == 0 || !is_there(s, o) ||
			    n.first_txid < o->first_txid || n.first_txid > o->last_txid ||
			    n.last_txid > o->last_txid)
				continue;
			remove_segment(s, d->d_name);
			break;
		}
	}
	return file_sync_dir(s->to_fds[SEGMENT], "segment", err);
}

/* ---- what was thinned ---- */

/* What segments hold, and snapshots of states that were found idle. */
static int add_held(struct spans *to, const struct history_object *o, size_t n, struct err *err)
{
	int rc = 0;

	for (size_t i = 0; i < n && rc == 0; i++) {
		if (is_fine(&o[i]) && o[i].last_txid >= o[i].first_txid)
			rc = spans_add(to, o[i].first_txid, o[i].last_txid, err);
		else if (o[i].type == HISTORY_SNAPSHOT && o[i].first_txid == o[i].last_txid + 1)
			rc = spans_add(to, o[i].last_txid, o[i].last_txid, err);
	}
	return rc;
}

static int list_second(struct sides *s, struct history_object **ret, size_t *ret_n, struct err *err)
{
	const struct archive_options small = {.cache_bytes = 1u << 20};
	cleanup_archive struct archive *a = NULL;
	cleanup_history struct history *h = NULL;

	int rc = archive_open(s->c->options->to, &small, &a, err);
	if (rc == 0)
		rc = history_get(a, s->name, &h, err);
	return rc < 0 ? rc : history_objects(h, ret, ret_n, err);
}

/* Whether the second will have every transaction from where it begins up to what the first
 * thinned: then it keeps them. */
static int is_whole(struct sides *s, bool *ret, struct err *err)
{
	cleanup_free struct history_object *second = NULL;
	cleanup_spans struct spans held = {0};
	size_t n_second = 0;

	*ret = false;
	if (s->is_new)
		return 0;
	int rc = list_second(s, &second, &n_second, err);
	if (rc == 0)
		rc = add_held(&held, second, n_second, err);
	if (rc < 0 || held.n == 0)
		return rc;
	spans_sort(&held);
	uint64_t from = s->thinned_to.until_txid ? s->thinned_to.until_txid + 1 : held.v[0].first;
	rc = add_held(&held, s->objects, s->n, err);
	spans_sort(&held);
	*ret = rc == 0 && spans_reach(&held, from) > s->thinned_from.until_txid;
	return rc;
}

static int get_thinned(struct sides *s, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT(COPY_NOTE_MAX + 1);
	struct err why = ERR_INIT;

	thinned_note_release(&s->thinned_from);
	thinned_note_release(&s->thinned_to);
	int rc = get_note(s, "thinned", &b, &why);
	if (rc == 0)
		rc = thinned_note_parse((char *)b.data, b.len - 1, &s->thinned_from, &why);
	if (rc < 0 && why.kind != ERR_NOT_FOUND)
		return err_copy(err, &why);
	why = (struct err)ERR_INIT;
	rc = thinned_note_get(s->to, &s->thinned_to, &why);
	return rc < 0 && why.kind != ERR_NOT_FOUND ? err_copy(err, &why) : 0;
}

static int copy_thinned(struct sides *s, struct err *err)
{
	bool whole = false;

	int rc = get_thinned(s, err);
	if (rc < 0 || s->thinned_from.until_txid <= s->thinned_to.until_txid)
		return rc;
	rc = is_whole(s, &whole, err);
	if (rc < 0 || whole)
		return rc;
	log_info("copy", "what was thinned is copied as that db=%s until_txid=%" PRIu64, s->name,
	         s->thinned_from.until_txid);
	rc = copy_type(s, false, 0, s->thinned_from.until_txid, err);
	struct thinned_note both = {.until_txid = s->thinned_from.until_txid};
	if (rc == 0)
		rc = copy_unite_points(&s->thinned_from, &s->thinned_to, &both, err);
	if (rc == 0)
		rc = thinned_note_put(s->to, &both, err);
	thinned_note_release(&both);
	return rc;
}

/* ---- notes, head ---- */

static bool ends_with(const char *text, const char *end)
{
	size_t n = strlen(text), m = strlen(end);

	return n > m && strcmp(text + n - m, end) == 0;
}

struct note_copying {
	struct sides *s;
	const char *end;
	size_t prefix_len;
};

static int copy_note(void *ctx, const struct store_entry *e, struct err *err)
{
	struct note_copying *n = ctx;
	struct sides *s = n->s;
	const char *file = e->key + n->prefix_len;
	uint64_t objects = s->c->result->objects;
	struct err why = ERR_INIT;

	if (!ends_with(file, n->end) || strchr(file, '/') || faccessat(s->to, file, F_OK, 0) == 0)
		return 0;
	struct copy_from f = from_file(s, file, e->bytes, e->modified_us);
	int rc = copy_plain(s->c, &f, s->to, file, &why);
	s->c->result->objects = objects;
	return rc < 0 && !copy_vanished(&why) ? err_copy(err, &why) : 0;
}

static int copy_notes(struct sides *s, const char *end, struct err *err)
{
	struct note_copying n = {.s = s, .end = end};
	struct copy_from folder = from_file(s, "", UINT64_MAX, 0);

	n.prefix_len = strlen(folder.key);
	return store_list(s->store, folder.key, NULL, false, copy_note, &n, err);
}

/* Of what a store without a head holds, and the second now has. */
static struct head told_by_objects(struct sides *s)
{
	struct head h = {.lineage = 0};

	for (size_t i = 0; i < s->n; i++) {
		const struct history_object *o = &s->objects[i];
		if (!is_fine(o) && o->type != HISTORY_SNAPSHOT)
			continue;
		if (is_fine(o) && o->lineage > h.lineage)
			h.lineage = o->lineage;
		if (o->last_txid <= h.last_txid ||
		    !(is_fine(o) ? segment_is_there(s, o) || copy_holds_all(&s->there, o)
		                 : is_there(s, o)))
			continue;
		h.last_txid = o->last_txid;
		h.last_us = h.known_until_us = o->last_us;
	}
	return h;
}

/* Readers of the second look again; of the growing segment they see what was copied. */
static int put_head(struct sides *s, struct err *err)
{
	cleanup_fd int fd = -1;
	struct head old, h = s->head;
	bool had;

	int rc = read_head(s->to, &old, &had, err);
	if (rc < 0 || (!s->have_head && s->from >= 0 && !had))
		return rc;
	if (!s->have_head)
		h = told_by_objects(s);
	rc = file_open(s->to, HEAD_NAME, O_RDWR | O_CREAT, 0600, &fd, err);
	if (rc < 0)
		return rc;
	if (had && old.last_txid > h.last_txid) {
		/* The first has not got what was copied before; its growing segment may be another. */
		uint64_t growing_txid = s->have_head ? old.growing_txid : 0;
		h = old;
		h.growing_txid = growing_txid;
		h.durable_len = growing_txid ? old.durable_len : 0;
	}
	h.generation = (had ? old.generation : 0) + 1;
	return head_write(fd, &h, err);
}

static int check_source(struct sides *s, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT(COPY_NOTE_MAX + 1);
	struct source_note from, to;
	struct err why = ERR_INIT;

	int rc = get_note(s, "source", &b, err);
	if (rc == 0)
		rc = source_note_parse((char *)b.data, b.len - 1, &from, err);
	if (rc < 0)
		return rc;
	s->is_new = source_note_get(s->to, &to, &why) < 0;
	if (s->is_new)
		return why.kind == ERR_NOT_FOUND ? 0 : err_copy(err, &why);
	if (from.id != to.id)
		return err_set(err, ERR_REFUSED, 0,
		               "archive '%s' keeps the history of another database under the name "
		               "'%s' (copy to another archive)",
		               s->c->options->to, s->name);
	return 0;
}

/* ---- all of it ---- */

static int copy_once(struct sides *s, struct err *err)
{
	int rc = look(s, err);

	if (rc == 0)
		rc = copy_list_there(s->to_fds[SEGMENT], &s->there, err);
	if (rc == 0)
		rc = copy_notes(s, ".lineage", err);
	if (rc == 0)
		rc = copy_notes(s, ".gap", err);
	if (rc == 0)
		rc = copy_thinned(s, err);
	/* What the second let go by a retention of its own does not come back. */
	uint64_t thinned = s->thinned_to.until_txid;
	if (rc == 0)
		rc = copy_type(s, true, thinned, UINT64_MAX, err);
	if (rc == 0)
		rc = put_head(s, err);
	if (rc == 0)
		rc = copy_type(s, false, thinned, UINT64_MAX, err);
	if (rc == 0)
		rc = remove_covered(s, err);
	if (rc == 0)
		rc = put_head(s, err); /* objects went */
	if (rc == 0 && s->from >= 0)
		rc = copy_take_marks(s->from, s->to, s->c->options->to, err);
	return rc < 0 ? rc : copy_notes(s, ".mark", err);
}

/* What is listed can be joined or deleted before it is copied: then the newer list is copied. */
static int copy_all(struct sides *s, struct err *err)
{
	uint64_t present = s->c->result->present;

	for (int tries = 0;; tries++) {
		struct err why = ERR_INIT;
		s->c->result->present = present;
		if (copy_once(s, &why) == 0)
			return 0;
		if (!copy_vanished(&why) || tries == TRIES_MAX)
			return err_copy(err, &why);
	}
}

static int take_locks(struct sides *s, int *lock, int *upkeep, struct err *err)
{
	struct err why = ERR_INIT;

	int rc = file_open(s->to, "lock", O_RDWR | O_CREAT, 0600, lock, err);
	if (rc < 0)
		return rc;
	if (file_lock(*lock, "lock", &why) < 0)
		return why.kind == ERR_BUSY
		               ? err_set(err, ERR_BUSY, 0,
		                         "archive '%s' is being written for '%s' by another asof "
		                         "(copy to an archive that nobody writes to)",
		                         s->c->options->to, s->name)
		               : err_copy(err, &why);
	return upkeep_lock(s->to, s->name, LOCK_WAIT_US, upkeep, err);
}

static int open_sides(struct sides *s, struct err *err)
{
	char path[PATH_MAX];
	int rc = 0;

	if (snprintf(path, sizeof(path), "%s/local/%s", s->c->options->to, s->name) >=
	    (int)sizeof(path))
		return err_set(err, ERR_USAGE, 0, "the path of archive '%.60s…' is too long",
		               s->c->options->to);
	if (s->store->dir_fd >= 0) {
		struct copy_from f = from_file(s, ".", 0, 0);
		rc = file_open_dir(s->store->dir_fd, f.key, false, &s->from, err);
	}
	if (rc == 0)
		rc = file_make_dirs(path, err);
	if (rc == 0)
		rc = file_open_dir(AT_FDCWD, path, false, &s->to, err);
	for (int i = 0; i < N_FOLDERS && rc == 0; i++)
		rc = file_open_dir(s->to, folders[i], true, &s->to_fds[i], err);
	return rc;
}

static void close_sides(struct sides *s)
{
	const int fds[] = {s->from, s->to, s->to_fds[0], s->to_fds[1], s->to_fds[2]};

	for (size_t i = 0; i < sizeof(fds) / sizeof(*fds); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	free(s->objects);
	copy_there_release(&s->there);
	thinned_note_release(&s->thinned_from);
	thinned_note_release(&s->thinned_to);
}

int copy_database(struct copying *c, struct history *h, const char *name, struct err *err)
{
	struct sides s = {.c = c,
	                  .history = h,
	                  .name = name,
	                  .store = archive_store(c->from),
	                  .from = -1,
	                  .to = -1,
	                  .to_fds = {-1, -1, -1}};
	cleanup_fd int lock = -1, upkeep = -1;

	int rc = open_sides(&s, err);
	if (rc == 0)
		rc = take_locks(&s, &lock, &upkeep, err);
	if (rc == 0)
		rc = copy_check_writer(c, s.to, name, err);
	if (rc == 0)
		rc = check_source(&s, err);
	if (rc == 0 && !s.is_new)
		rc = copy_check_way(c, h, name, err);
	if (rc == 0)
		rc = copy_all(&s, err);
	if (rc == 0 && s.is_new) {
		uint64_t objects = c->result->objects;
		struct copy_from f = from_file(&s, "source", UINT64_MAX, 0);
		rc = copy_plain(c, &f, s.to, "source", err);
		c->result->objects = objects;
	}
	close_sides(&s);
	return rc;
}
