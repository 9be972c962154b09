/* SPDX-License-Identifier: Apache-2.0 */
/* Whole objects and notes, as they lie in the archive; and what goes from the store again. */
#include "engine/base/file.h"
#include "engine/base/hash.h"
#include "engine/base/log.h"
#include "engine/ship/ship_i.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

/* Of what can be made anew from level 0 and sealed segments: see ship.h (7). */
#define DERIVED_PERCENT 10u
/* What is larger goes up in parts, which few stores put only where nothing is. */
#define CREATE_MAX_BYTES (UINT64_C(64) << 20)
#define NOTE_MAX_BYTES ((size_t)64 << 20)

/* ---- notes ---- */

int ship_note(struct shipper *s, const char *name, struct err *err)
{
	cleanup_free char *text = NULL;
	size_t len;

	int rc = file_get(s->dir_fd, name, NOTE_MAX_BYTES, &text, &len, err);
	if (rc == 0)
		rc = ship_put_bytes(s, name, text, len, 0, err);
	return rc < 0 ? rc : contents_add_name(&s->has, name, len, err);
}

enum note_kind {
	NOTE_NONE,
	NOTE_LINEAGE,
	NOTE_SOURCE,
	NOTE_GAP,
	NOTE_MARK,
	N_NOTES,
	NOTE_UNMARKED = N_NOTES, /* is not sent: it tells what is to go (archive/given.h) */
};

static enum note_kind note_kind(const char *name)
{
	struct object_name n;
	char mark[DB_NAME_MAX + 1];
	uint64_t txid;

	if (strcmp(name, "source") == 0)
		return NOTE_SOURCE;
	if (strcmp(name, GIVEN_UNMARKED) == 0)
		return NOTE_UNMARKED;
	if (object_name_parse(name, &n))
		return n.type == OBJECT_LINEAGE ? NOTE_LINEAGE : NOTE_NONE;
	if (gap_name_parse(name, &txid))
		return NOTE_GAP;
	return mark_file_parse(name, mark) ? NOTE_MARK : NOTE_NONE;
}

static DIR *open_folder(const struct shipper *s)
{
	int fd = openat(s->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);

	if (!dir && fd >= 0)
		close(fd);
	return dir;
}

static int64_t mtime_us(const struct stat *st)
{
	return (int64_t)st->st_mtim.tv_sec * US_PER_SECOND + st->st_mtim.tv_nsec / 1000;
}

/* Of the notes in the folder: which, how large, how old. */
static uint64_t look_at_notes(const struct shipper *s)
{
	cleanup_dir DIR *dir = open_folder(s);
	struct dirent *d;
	uint64_t sum = 1;

	while (dir && (d = readdir(dir))) {
		struct stat st;
		if (note_kind(d->d_name) == NOTE_NONE || fstatat(s->dir_fd, d->d_name, &st, 0) < 0)
			continue;
		const int64_t of[2] = {mtime_us(&st), st.st_size};
		sum += hash64(d->d_name, strlen(d->d_name), hash64(of, sizeof(of), 0));
	}
	return sum;
}

uint64_t ship_archive_hash(const struct shipper *s)
{
	uint64_t sum = look_at_notes(s);

	for (size_t i = 0; i < s->n_objects; i++)
		sum += hash64(s->objects[i].file, strlen(s->objects[i].file), s->objects[i].type);
	return sum;
}

/* A mark can be taken away and given anew: it is sent again when it is newer than the last look. */
static bool note_is_due(const struct shipper *s, const char *name, const struct stat *st)
{
	return !contents_has(&s->has, name, (uint64_t)st->st_size) ||
	       (s->seen_notes && mtime_us(st) >= s->seen_notes_us - US_PER_SECOND);
}

static int send_notes(struct shipper *s, enum note_kind kind, struct err *err)
{
	cleanup_dir DIR *dir = open_folder(s);
	struct dirent *d;
	int rc = 0;

	if (!dir)
		return err_set(err, ERR_IO, errno, "list the archive of '%s'", s->name);
	while (rc == 0 && (d = readdir(dir))) {
		struct stat st;
		struct err why = ERR_INIT;
		if (note_kind(d->d_name) != kind || fstatat(s->dir_fd, d->d_name, &st, 0) < 0 ||
		    !note_is_due(s, d->d_name, &st))
			continue;
		if (ship_note(s, d->d_name, &why) < 0 &&
		    !(why.kind == ERR_NOT_FOUND && why.sys_errno == ENOENT))
			rc = err_copy(err, &why);
	}
	return rc;
}

int ship_notes(struct shipper *s, struct err *err)
{
	int64_t now_us = clock_now_us();
	uint64_t seen = look_at_notes(s);

	if (seen == s->seen_notes)
		return 0;
	int rc = ship_know_marks(s, err);
	for (int kind = NOTE_LINEAGE; kind < N_NOTES && rc == 0; kind++)
		rc = send_notes(s, (enum note_kind)kind, err);
	if (rc == 0)
		rc = ship_remove_marks(s, err);
	if (rc < 0)
		return rc;
	s->seen_notes = seen;
	s->seen_notes_us = now_us;
	return 0;
}

/* ---- objects ---- */

static int check_whole(struct shipper *s, const struct history_object *o, struct err *err)
{
	cleanup_object_check struct object_check check = {.whole = false};

	int rc = history_check_object(s->history, o, NULL, NULL, &check, err);
	if (rc < 0 || check.first.kind == ERR_NONE)
		return rc;
	return err_copy(err, &check.first);
}

static int put_file(struct shipper *s, const char *file, bool derived, uint64_t *ret_bytes,
                    struct err *err)
{
	cleanup_source struct source *src = NULL;
	struct err why = ERR_INIT;

	int rc = source_open_file(s->dir_fd, file, NULL, &src, err);
	if (rc == 0)
		rc = src->size(src, ret_bytes, err);
	if (rc == 0 && contents_has(&s->has, file, *ret_bytes))
		return 0;
	/* Retention makes objects there as well, perhaps just now under this name: that stays. */
	bool create = derived && s->status.creates && *ret_bytes <= CREATE_MAX_BYTES;
	if (rc == 0)
		rc = ship_put(s, file, src, *ret_bytes, create ? STORE_CREATE : 0, &why);
	if (rc < 0 && why.kind != ERR_EXISTS)
		return why.kind ? err_copy(err, &why) : rc;
	pthread_mutex_lock(&s->lock);
	s->status.object_bytes += *ret_bytes;
	s->status.objects_put++;
	pthread_mutex_unlock(&s->lock);
	return contents_add_name(&s->has, file, *ret_bytes, err);
}

static int take_in(struct shipper *s, const struct history_object *o, const struct object_name *n,
                   uint64_t bytes, struct err *err)
{
	switch (o->type) {
	case HISTORY_SEGMENT:
		s->has.fine_bytes += bytes;
		return contents_add_sealed(&s->has, n, err);
	case HISTORY_SNAPSHOT:
		if (s->has.has_snapshot)
			s->has.derived_bytes += bytes;
		s->has.has_snapshot = true;
		return 0;
	case HISTORY_COALESCED:
		s->has.derived_bytes += bytes;
		return 0;
	case HISTORY_GROWING:
		break;
	}
	return 0;
}

int ship_object(struct shipper *s, const struct history_object *o, struct err *err)
{
	char file[OBJECT_NAME_MAX + 16], table[OBJECT_NAME_MAX];
	struct object_name n;
	uint64_t bytes;

	snprintf(file, sizeof(file), "%s/%s", history_object_folder(o), o->file);
	if (contents_has(&s->has, file, o->bytes))
		return 0;
	if (!object_name_parse(o->file, &n))
		return err_set(err, ERR_DAMAGED, 0, "'%s' is no name of an object", o->file);
	int rc = check_whole(s, o, err);
	if (rc == 0 && o->type == HISTORY_SEGMENT) {
		uint64_t at = contents_reach(&s->has, o->lineage, o->first_txid, o->last_txid);
		if (at > o->first_txid)
			return ship_remainder(s, o, at, err);
	}
	if (rc == 0 && o->type == HISTORY_SEGMENT) { /* its table goes before it */
		char path[OBJECT_NAME_MAX + 16];
		struct object_name t = n;
		t.type = OBJECT_COMMITS;
		object_name_format(&t, table);
		snprintf(path, sizeof(path), "segment/%s", table);
		rc = put_file(s, path, false, &bytes, err);
	}
	if (rc == 0)
		rc = put_file(s, file, o->type != HISTORY_SEGMENT, &bytes, err);
	return rc < 0 ? rc : take_in(s, o, &n, bytes, err);
}

/* A snapshot that nothing else can stand for: the first of all or of its lineage, a fuzzy one, a state
 * that was found idle. */
static bool is_root(const struct shipper *s, const struct history_object *o)
{
	if (!s->has.has_snapshot || o->first_txid <= o->last_txid)
		return true;
	bool first = true, in_segment = false;
	for (size_t i = 0; i < s->n_objects; i++) {
		const struct history_object *f = &s->objects[i];
		if (f->type == HISTORY_SNAPSHOT)
			first = first && (f->lineage != o->lineage || f->last_txid >= o->last_txid);
		else if (f->type != HISTORY_COALESCED)
			in_segment = in_segment || (f->first_txid <= o->last_txid &&
			                            f->last_txid >= o->last_txid);
	}
	return first || !in_segment;
}

static bool is_due(const struct shipper *s, const struct history_object *o)
{
	char file[OBJECT_NAME_MAX + 16];

	if (o->type == HISTORY_GROWING || o->last_txid >= s->next_txid ||
	    o->last_txid <= s->has.thinned_txid)
		return false;
	/* Nor a copy that needs something of it. */
	if (o->type == HISTORY_SNAPSHOT && o->first_txid <= s->has.thinned_txid)
		return false;
	snprintf(file, sizeof(file), "%s/%s", history_object_folder(o), o->file);
	if (contents_has(&s->has, file, o->bytes))
		return false;
	if (o->type == HISTORY_SEGMENT)
		return !contents_covers(&s->has, o->lineage, o->first_txid, o->last_txid);
	if (o->type == HISTORY_SNAPSHOT && is_root(s, o))
		return true;
	return s->has.derived_bytes + o->bytes <= s->has.fine_bytes * DERIVED_PERCENT / 100;
}

/* Damage stays where it is, and is told of once. */
static int leave_out(struct shipper *s, const struct history_object *o, const struct err *why,
                     struct err *err)
{
	char file[OBJECT_NAME_MAX + 16];

	log_error("ship", "not sent db=%s to=%s: %s", s->name, s->url, why->msg);
	pthread_mutex_lock(&s->lock);
	s->status.damaged++;
	pthread_mutex_unlock(&s->lock);
	snprintf(file, sizeof(file), "%s/%s", history_object_folder(o), o->file);
	return contents_add_name(&s->has, file, o->bytes, err);
}

/* Where the store begins: what is older comes to it from the newest on. */
static uint64_t lowest(const struct contents *c)
{
	uint64_t first = UINT64_MAX;

	if (c->n_level0)
		first = c->level0[0].first_txid;
	if (c->n_sealed && c->sealed[0].first_txid < first)
		first = c->sealed[0].first_txid;
	return first;
}

/* Without these what was just sent cannot be seen. */
int ship_roots(struct shipper *s, struct err *err)
{
	struct err why = ERR_INIT;
	int rc = 0;

	for (size_t i = 0; i < s->n_objects && rc == 0; i++) {
		const struct history_object *o = &s->objects[i];
		if (o->type != HISTORY_SNAPSHOT || o->first_txid > o->last_txid ||
		    o->first_txid < lowest(&s->has) || !is_due(s, o) ||
		    ship_object(s, o, &why) == 0)
			continue;
		if (why.kind == ERR_DAMAGED)
			rc = leave_out(s, o, &why, err);
		else if (why.kind != ERR_NOT_FOUND || why.sys_errno != ENOENT)
			rc = err_copy(err, &why);
	}
	return rc;
}

/* Newest first: what is older than where the store begins comes in the order that leaves no hole. */
int ship_next_object(struct shipper *s, bool *ret_did, struct err *err)
{
	const struct history_object *best = NULL;
	struct err why = ERR_INIT;

	*ret_did = false;
	for (size_t i = 0; i < s->n_objects; i++) {
		const struct history_object *o = &s->objects[i];
		bool newer = !best || o->last_txid > best->last_txid ||
		             (o->last_txid == best->last_txid && o->type < best->type);
		if (newer && is_due(s, o))
			best = o;
	}
	if (!best)
		return 0;
	*ret_did = true;
	if (ship_object(s, best, &why) == 0)
		return 0;
	if (why.kind == ERR_NOT_FOUND && why.sys_errno == ENOENT) { /* joined, or deleted */
		history_relist(s->history);
		return 0;
	}
	return why.kind == ERR_DAMAGED ? leave_out(s, best, &why, err) : err_copy(err, &why);
}

/* ---- what is covered ---- */

static bool is_covered(const struct shipper *s, size_t i)
{
	const struct level0 *l = &s->has.level0[i];
	uint64_t last =
	        i + 1 < s->has.n_level0 ? s->has.level0[i + 1].first_txid - 1 : s->next_txid - 1;

	return l->bytes > GROW_HEADER_SIZE && last >= l->first_txid &&
	       contents_covers(&s->has, l->lineage, l->first_txid, last);
}

static int64_t grace_us(const struct shipper *s)
{
	return s->options.grace_us ? s->options.grace_us : SHIP_GRACE_US;
}

static int remove_one(struct shipper *s, size_t i, struct err *err)
{
	struct contents *c = &s->has;
	char file[OBJECT_NAME_MAX + 16];
	struct err why = ERR_INIT;

	level0_file(c->level0[i].lineage, c->level0[i].first_txid, file);
	int rc = ship_remove(s, file, &why);
	if (rc < 0 && why.kind == ERR_DENIED) {
		log_info("ship", "nothing is deleted db=%s at=%s: %s", s->name, s->url, why.msg);
		pthread_mutex_lock(&s->lock);
		s->status.no_delete = true;
		pthread_mutex_unlock(&s->lock);
		return 0;
	}
	if (rc < 0)
		return err_copy(err, &why);
	pthread_mutex_lock(&s->lock);
	s->status.deleted++;
	pthread_mutex_unlock(&s->lock);
	c->objects--;
	c->bytes -= c->level0[i].bytes;
	c->n_level0--;
	memmove(c->level0 + i, c->level0 + i + 1, (c->n_level0 - i) * sizeof(*c->level0));
	return 0;
}

int ship_remove_covered(struct shipper *s, struct err *err)
{
	int64_t now_us = clock_mono_us();
	int rc = 0;

	for (size_t i = s->has.n_level0; i-- > 0 && rc == 0 && !s->status.no_delete;) {
		struct level0 *l = &s->has.level0[i];
		if (!l->covered_us && is_covered(s, i))
			l->covered_us = now_us;
		if (l->covered_us && now_us - l->covered_us >= grace_us(s))
			rc = remove_one(s, i, err);
	}
	return rc;
}

int64_t ship_removal_due_us(const struct shipper *s)
{
	int64_t first_us = INT64_MAX;

	for (size_t i = 0; i < s->has.n_level0 && !s->status.no_delete; i++)
		if (s->has.level0[i].covered_us && s->has.level0[i].covered_us < first_us)
			first_us = s->has.level0[i].covered_us;
	if (first_us == INT64_MAX)
		return INT64_MAX;
	int64_t left_us = first_us + grace_us(s) - clock_mono_us();
	return left_us > 0 ? left_us : 0;
}
