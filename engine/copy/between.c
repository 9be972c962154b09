/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From store to store: objects as they lie, by their names.  So what is sealed goes sealed, and no key
 * is needed.  Each comes into a file without a name, is read in full where it is not sealed, and goes up
 * from there: disk for one object, memory for its pieces.
 *
 * Order, so that the second is right at each step:
 *
 *   keys/, without which nothing sealed is read
 *   lineages, gaps
 *   where the first thinned what the second lacks: coalesced objects and snapshots, then `thinned`, of
 *     both (thinned.c)
 *   segments in the order of their txids, each with its table before it; level 0 is created at the
 *     end of the chain and nowhere else; snapshots and coalesced objects behind what they need
 *   `thinned` of a second that had thinned what the first still shows
 *   level 0 that sealed segments there cover, and that the first let go, goes
 *   marks that were removed in the first go; marks; `source`, without which the folder is no database yet
 *
 * Nobody's note says that a copy writes there: so whoever is to send there next claims it, as a new place.
 * While one stands there the copy is REFUSED, and it looks for one anew as long as a claim waits (ship.h
 * (2)) before it puts anything new.
 */
#include "engine/copy/between_i.h"

#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/base/log.h"
#include "engine/store/crypt.h"
#include "engine/store/trial.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define TRIES 2 /* of what came damaged: perhaps it only came so */
#define LISTINGS_MAX 20
#define LOOK_US (5 * US_PER_SECOND)

/* ---- one object ---- */

static int check_sealed(int fd, const char *key, uint64_t bytes, struct err *err)
{
	uint8_t header[CRYPT_HEADER_BYTES];
	bool fits = bytes > sizeof(header);

	int rc = fits ? file_pread(fd, header, sizeof(header), 0, key, err) : 0;
	if (rc == 0 && (!fits || !crypt_header_fits(header, bytes)))
		rc = err_set(err, ERR_DAMAGED, 0, "'%s' is damaged: it is not sealed", key);
	return rc;
}

static int fetch(struct between *b, const struct copy_from *f, const struct thing *t, int fd,
                 struct err *err)
{
	int rc = copy_fetch(b->c, f, fd, err);

	if (rc == 0 && b->sealed && strncmp(f->key, KEYS_FOLDER, strlen(KEYS_FOLDER)) != 0)
		return check_sealed(fd, f->key, f->bytes, err);
	if (rc == 0 && !b->sealed && t && thing_is_object(t)) {
		struct history_object o = thing_object(t);
		rc = copy_check_fetched(fd, &o, err);
	}
	return rc;
}

/* *ret_damaged: it was told of, and not put. */
static int bring(struct between *b, const char *key, uint64_t bytes, const struct thing *t,
                 unsigned flags, bool *ret_damaged, struct err *err)
{
	struct copy_from f = {.store = b->from, .bytes = bytes};
	cleanup_source struct source *src = NULL;
	struct err why = {.kind = ERR_DAMAGED};
	cleanup_fd int fd = -1;

	*ret_damaged = false;
	snprintf(f.key, sizeof(f.key), "%s", key);
	int rc = file_open_unlinked(0, &fd, err);
	if (rc < 0)
		return rc;
	for (int i = 0; i < TRIES && why.kind == ERR_DAMAGED; i++) {
		why = (struct err)ERR_INIT;
		rc = fetch(b, &f, t, fd, &why);
	}
	if (why.kind == ERR_DAMAGED) {
		*ret_damaged = true;
		return copy_damaged(b->c, &why);
	}
	if (rc < 0)
		return err_copy(err, &why);
	rc = source_open_fd(take_fd(&fd), key, &src, err);
	return rc < 0 ? rc : store_put(b->to, key, src, bytes, flags, err);
}

void between_key(const struct between *b, const char *file, char out[STORE_KEY_MAX + 1])
{
	snprintf(out, STORE_KEY_MAX + 1, "local/%s/%s", b->name, file);
}

int between_bring(struct between *b, const struct thing *t, unsigned flags, bool *ret_damaged,
                  struct err *err)
{
	char key[STORE_KEY_MAX + 1];

	between_key(b, t->file, key);
	int rc = bring(b, key, t->bytes, t, flags, ret_damaged, err);
	if (rc == 0 && !*ret_damaged)
		rc = things_add(&b->there, t, err);
	if (rc == 0 && !*ret_damaged && thing_is_object(t))
		b->c->result->objects++;
	return rc < 0 ? rc : copy_stopped(b->c, err);
}

int between_get(struct store *s, const struct between *b, const char *file, struct buf *ret,
                struct err *err)
{
	char key[STORE_KEY_MAX + 1];

	between_key(b, file, key);
	return store_get(s, key, COPY_NOTE_MAX, ret, err);
}

/* ---- whether it may be written to ---- */

static int see_writer(void *ctx, const struct store_entry *e, struct err *err)
{
	struct between *b = ctx;
	const char *file = strrchr(e->key, '/');

	return file && copy_is_writer(file + 1) ? copy_refuse_writer(b->c, b->name, file + 1, err)
	                                        : 0;
}

/* Who claims waits for longer than this look may be old, and a put may take. */
static int check_writer(struct between *b, struct err *err)
{
	char prefix[STORE_KEY_MAX + 1];
	int64_t now_us = clock_mono_us();

	if (now_us - b->looked_us < LOOK_US)
		return 0;
	between_key(b, "", prefix);
	int rc = store_list(b->to, prefix, NULL, false, see_writer, b, err);
	b->looked_us = now_us;
	return rc;
}

static int check_source(struct between *b, struct err *err)
{
	cleanup_buf struct buf from = BUF_INIT(COPY_NOTE_MAX + 1), to = BUF_INIT(COPY_NOTE_MAX + 1);
	struct source_note x, y;

	b->is_new = !things_find(&b->there, "source");
	if (b->is_new)
		return 0;
	int rc = between_get(b->from, b, "source", &from, err);
	rc = rc ? rc : between_get(b->to, b, "source", &to, err);
	bool same = rc == 0 && from.len == to.len && memcmp(from.data, to.data, to.len) == 0;
	if (rc < 0 || same)
		return rc;
	if (!b->sealed) {
		rc = buf_append(&from, "", 1, err);
		rc = rc ? rc : buf_append(&to, "", 1, err);
		rc = rc ? rc : source_note_parse((char *)from.data, from.len - 1, &x, err);
		rc = rc ? rc : source_note_parse((char *)to.data, to.len - 1, &y, err);
		same = rc == 0 && x.id == y.id;
	}
	return rc < 0 || same ? rc
	                      : err_set(err, ERR_REFUSED, 0,
	                                "archive '%.200s' keeps %s under the name '%s' (copy to "
	                                "another archive)",
	                                b->c->options->to,
	                                b->sealed ? "what is no copy of this one"
	                                          : "the history of another database",
	                                b->name);
}

static int check_target(struct between *b, struct err *err)
{
	for (size_t i = 0; i < b->there.n; i++) {
		const struct thing *t = &b->there.v[i];
		if (t->kind == THING_WRITER || t->kind == THING_HEAD)
			return copy_refuse_writer(b->c, b->name, t->file, err);
	}
	if (things_find(&b->here, "head"))
		return err_set(err, ERR_REFUSED, 0,
		               "'%.200s' is the folder that an asof writes '%s' to (run asof copy "
		               "where it lies, from its directory)",
		               b->c->options->from, b->name);
	int rc = check_source(b, err);
	if (rc == 0)
		rc = between_check_names(b, err);
	return rc < 0 || b->is_new || b->sealed ? rc : between_check_commits(b, err);
}

/* ---- the steps ---- */

static int bring_notes(struct between *b, enum thing_kind kind, struct err *err)
{
	bool damaged;
	int rc = 0;

	for (size_t i = 0; i < b->here.n && rc == 0; i++) {
		const struct thing *t = &b->here.v[i];
		if (t->kind == kind && !things_find(&b->there, t->file))
			rc = between_bring(b, t, 0, &damaged, err);
	}
	return rc;
}

static int bring_table(struct between *b, const struct thing *t, struct err *err)
{
	char file[OBJECT_NAME_MAX + 16], name[OBJECT_NAME_MAX];
	struct object_name n = t->name;
	bool damaged;

	n.type = OBJECT_COMMITS;
	object_name_format(&n, name);
	snprintf(file, sizeof(file), "segment/%s", name);
	const struct thing *table = things_find(&b->here, file);
	return table && !things_find(&b->there, file) ? between_bring(b, table, 0, &damaged, err)
	                                              : 0;
}

bool between_can_bring(const struct between *b, const struct thing *t)
{
	const struct thing *last = things_last_level0(&b->there);

	return t->kind != THING_LEVEL0 || !last || last->name.lineage < t->name.lineage ||
	       (last->name.lineage == t->name.lineage &&
	        last->name.first_txid <= t->name.first_txid) ||
	       things_find(&b->there, t->file) || things_cover(&b->there, t, &b->here);
}

/* Created, or not at all: of two that put the next transactions one wins. */
static int bring_level0(struct between *b, const struct thing *t, bool *ret_damaged,
                        struct err *err)
{
	char trial[64];
	struct err why = ERR_INIT;
	bool creates, fresh;

	if (!between_can_bring(b, t))
		return err_set(
		        err, ERR_REFUSED, 0,
		        "'%.200s' has the transactions of '%s' cut otherwise than '%s' (copy "
		        "to another archive)",
		        b->c->options->to, b->name, t->file);
	snprintf(trial, sizeof(trial), ".asof-trial-copy-%016" PRIx64,
	         hash64(b->from->label, strlen(b->from->label), 0));
	int rc = store_creates(b->to, trial, &creates, &fresh, err);
	if (rc == 0)
		rc = check_writer(b, err);
	if (rc < 0 || between_bring(b, t, STORE_CREATE, ret_damaged, &why) == 0)
		return rc;
	return why.kind == ERR_EXISTS ? copy_refuse_writer(b->c, b->name, t->file, err)
	                              : err_copy(err, &why);
}

static int bring_object(struct between *b, const struct thing *t, bool *ret_end, struct err *err)
{
	const struct thing *there = things_find(&b->there, t->file);
	bool damaged = false;
	int rc = 0;

	if ((there && there->bytes == t->bytes) ||
	    (t->kind == THING_LEVEL0 && things_cover(&b->there, t, &b->here))) {
		b->c->result->present++;
		return 0;
	}
	if (t->kind == THING_SEALED && things_wider(&b->here, t))
		return 0; /* it goes any moment */
	struct span h;
	if (t->kind == THING_LEVEL0 && !between_can_bring(b, t) &&
	    ((thing_holds(&b->here, t, &h) && h.last <= b->until_txid) || /* that was thinned */
	     things_hold_otherwise(&b->here, t))) /* or comes with what holds all of it */
		return 0;
	if (t->kind == THING_LEVEL0) {
		/* Without it the one before would be taken to reach over the hole. */
		rc = bring_level0(b, t, &damaged, err);
		*ret_end = damaged;
		return rc;
	}
	if (t->kind == THING_SEALED)
		rc = bring_table(b, t, err);
	if (rc == 0)
		rc = check_writer(b, err);
	return rc < 0 ? rc : between_bring(b, t, 0, &damaged, err);
}

int between_bring_objects(struct between *b, bool segments, struct err *err)
{
	bool end = false;
	int rc = 0;

	for (size_t i = 0; i < b->here.n && rc == 0 && !end; i++) {
		const struct thing *t = b->here.order[i];
		if (thing_is_object(t) &&
		    (segments || t->kind == THING_COALESCED || t->kind == THING_SNAPSHOT))
			rc = bring_object(b, t, &end, err);
	}
	return rc;
}

/* Readers pass it over; where deletion is denied it stays. */
static int remove_covered(struct between *b, struct err *err)
{
	struct err why = ERR_INIT;

	for (size_t i = 0; i < b->there.n; i++) {
		struct thing *t = &b->there.v[i];
		char key[STORE_KEY_MAX + 1];
		if (t->kind != THING_LEVEL0 || things_find(&b->here, t->file) ||
		    !things_cover(&b->there, t, &b->there))
			continue;
		between_key(b, t->file, key);
		int rc = store_remove(b->to, key, &why);
		if (rc < 0 && why.kind != ERR_DENIED)
			return err_copy(err, &why);
		if (rc < 0) {
			log_info("copy", "nothing is deleted db=%s: %s", b->name, why.msg);
			return 0;
		}
	}
	return 0;
}

static int list(struct between *b, struct err *err)
{
	char prefix[STORE_KEY_MAX + 1];

	between_key(b, "", prefix);
	int rc = things_list(&b->here, b->from, prefix, err);
	b->looked_us = clock_mono_us();
	return rc < 0 ? rc : things_list(&b->there, b->to, prefix, err);
}

static int copy_listed(struct between *b, struct err *err)
{
	int rc = check_target(b, err);

	if (rc == 0)
		rc = bring_notes(b, THING_LINEAGE, err);
	if (rc == 0)
		rc = bring_notes(b, THING_GAP, err);
	if (rc == 0)
		rc = between_thinned_before(b, err);
	if (rc == 0)
		rc = between_bring_objects(b, true, err);
	if (rc == 0)
		rc = between_thinned_after(b, err);
	if (rc == 0)
		rc = remove_covered(b, err);
	if (rc == 0)
		rc = between_marks(b, err);
	return rc < 0 ? rc : bring_notes(b, THING_SOURCE, err);
}

/* What is listed can be joined or deleted before it is copied: then the newer list is copied. */
static int copy_one(struct between *b, bool *ret_any, struct err *err)
{
	uint64_t present = b->c->result->present;

	for (int tries = 0;; tries++) {
		struct err why = ERR_INIT;
		b->c->result->present = present;
		int rc = list(b, &why);
		*ret_any = rc == 0 && things_find(&b->here, "source");
		if (rc == 0 && (!*ret_any || copy_listed(b, &why) == 0))
			return 0;
		if (!copy_vanished(&why) || tries == LISTINGS_MAX)
			return err_copy(err, &why);
	}
}

/* ---- databases ---- */

static int copy_folder(void *ctx, const struct store_entry *e, struct err *err)
{
	struct between *b = ctx;
	const struct copy_options *o = b->c->options;
	char name[DB_NAME_MAX + 1];
	const char *p = e->key + strlen("local/"), *slash = strchr(p, '/');
	bool any = false;

	if (!slash || (size_t)(slash - p) >= sizeof(name))
		return 0;
	snprintf(name, sizeof(name), "%.*s", (int)(slash - p), p);
	if (db_name_check(name, NULL) < 0 || (o->db && strcmp(o->db, name) != 0))
		return 0;
	b->name = name;
	int rc = copy_one(b, &any, err);
	b->c->result->databases += rc == 0 && any;
	things_release(&b->here);
	things_release(&b->there);
	b->name = NULL;
	return rc;
}

/* ---- backups ---- */

struct backup_folder {
	struct between *b;
	size_t prefix_len;
	bool manifests; /* else the files, which go before them */
	struct err first;
};

static int copy_backup(void *ctx, const struct store_entry *e, struct err *err)
{
	struct backup_folder *f = ctx;
	const char *name = e->key + f->prefix_len;
	const struct thing *there = things_find(&f->b->there, name);
	size_t n = strlen(name);
	struct err why = ERR_INIT;
	bool damaged;

	if (name[0] == '.' || strchr(name, '/') || n > 255 ||
	    (n > 4 && strcmp(name + n - 4, ".tmp") == 0) ||
	    (n > 5 && strcmp(name + n - 5, ".json") == 0) != f->manifests)
		return 0;
	f->b->n_backups++;
	if (there && there->bytes == e->bytes) {
		f->b->c->result->present++;
		return 0;
	}
	int rc = bring(f->b, e->key, e->bytes, NULL, STORE_CREATE, &damaged, &why);
	f->b->c->result->objects += rc == 0 && !damaged;
	if (rc == 0 || copy_vanished(&why)) /* cleaned up meanwhile */
		return copy_stopped(f->b->c, err);
	if (why.kind != ERR_EXISTS)
		return err_copy(err, &why);
	if (f->first.kind == ERR_NONE) /* the others go on */
		f->first = why;
	return 0;
}

static int copy_backups(struct between *b, struct err *err)
{
	struct backup_folder f = {.b = b, .first = ERR_INIT};
	int rc = 0;

	for (size_t i = 0; i < COPY_BACKUP_FOLDERS && rc == 0; i++) {
		char prefix[32];
		f.prefix_len =
		        (size_t)snprintf(prefix, sizeof(prefix), "%s/", copy_backup_folder(i));
		rc = things_list(&b->there, b->to, prefix, err);
		for (int k = 0; k < 2 && rc == 0; k++) {
			f.manifests = k == 1;
			rc = store_list(b->from, prefix, NULL, false, copy_backup, &f, err);
		}
		things_release(&b->there);
	}
	return rc == 0 && f.first.kind != ERR_NONE ? err_copy(err, &f.first) : rc;
}

/* ---- keys ---- */

/* The line that names a data key. */
static const char *id_line(struct buf *text, struct err *err)
{
	if (buf_append(text, "", 1, err) < 0)
		return NULL;
	char *id = strstr((char *)text->data, "\nid "), *end = id ? strchr(id + 1, '\n') : NULL;
	if (!end)
		return "";
	*end = '\0';
	return id + 1;
}

/* *ret: both have the same data keys, as far as the second has any. */
static int same_keys(struct between *b, const struct things *there, bool *ret, struct err *err)
{
	*ret = true;
	for (size_t i = 0; i < there->n && *ret; i++) {
		cleanup_buf struct buf x = BUF_INIT(COPY_NOTE_MAX), y = BUF_INIT(COPY_NOTE_MAX);
		char key[STORE_KEY_MAX + 1];
		struct err why = ERR_INIT;
		snprintf(key, sizeof(key), KEYS_FOLDER "%.200s", there->v[i].file);
		int rc = store_get(b->to, key, COPY_NOTE_MAX - 1, &x, err);
		if (rc < 0)
			return rc;
		rc = store_get(b->from, key, COPY_NOTE_MAX - 1, &y, &why);
		if (rc < 0 && why.kind != ERR_NOT_FOUND)
			return err_copy(err, &why);
		const char *a = id_line(&x, err), *c = rc < 0 ? "" : id_line(&y, err);
		if (!a || !c)
			return -ERR_NOMEM;
		*ret = rc == 0 && *a && strcmp(a, c) == 0;
	}
	return 0;
}

static int bring_keys(struct between *b, const struct things *here, const struct things *there,
                      struct err *err)
{
	bool damaged;
	int rc = 0;

	for (size_t i = 0; i < here->n && rc == 0; i++) {
		char key[STORE_KEY_MAX + 1];
		if (things_find(there, here->v[i].file))
			continue;
		snprintf(key, sizeof(key), KEYS_FOLDER "%.200s", here->v[i].file);
		rc = bring(b, key, here->v[i].bytes, NULL, STORE_CREATE, &damaged, err);
	}
	return rc;
}

/*
 * What is sealed goes as it lies, with its keys; to a place that has others it is opened and sealed anew,
 * by who has both.  What is plain goes plain, or sealed where the second is opened with a key.
 */
static int choose(struct between *b, struct store *from, struct store *to, struct err *err)
{
	CLEANUP(things_release) struct things here = {0}, there = {0};
	bool same = false;

	b->from = store_crypt_inner(from);
	b->to = store_crypt_inner(to);
	int rc = things_list(&here, b->from, KEYS_FOLDER, err);
	rc = rc ? rc : things_list(&there, b->to, KEYS_FOLDER, err);
	if (rc < 0)
		return rc;
	b->open_from = here.n && !from->sealed ? NULL : from;
	b->open_to = there.n && !to->sealed ? NULL : to;
	if (here.n == 0) {
		b->to = to;
		if (there.n && !to->sealed)
			rc = err_set(err, ERR_REFUSED, 0,
			             "'%.200s' is encrypted (name your identity in ASOF_KEY_FILE)",
			             b->c->options->to);
		return rc;
	}
	rc = same_keys(b, &there, &same, err);
	if (rc == 0 && same) {
		b->sealed = true;
		return bring_keys(b, &here, &there, err);
	}
	if (rc == 0 && !(from->sealed && to->sealed))
		rc = err_set(err, ERR_REFUSED, 0,
		             "'%.200s' is encrypted with other keys than '%.200s' (name your "
		             "identity in ASOF_KEY_FILE, or copy to an empty place)",
		             b->c->options->to, b->c->options->from);
	b->from = from;
	b->to = to;
	return rc;
}

static void release(struct between *b)
{
	buf_release(&b->thinned);
}

int copy_between(struct copying *c, struct store *from, struct store *to, struct err *err)
{
	const struct copy_options *o = c->options;
	CLEANUP(release) struct between b = {.c = c, .thinned = BUF_INIT(COPY_NOTE_MAX)};

	int rc = choose(&b, from, to, err);
	if (rc == 0)
		rc = store_list(b.from, "local/", NULL, false, copy_folder, &b, err);
	if (rc == 0 && !o->db)
		rc = copy_backups(&b, err);
	if (rc == 0 && o->db && c->result->databases == 0)
		rc = copy_no_database(c, err);
	if (rc == 0 && !o->db && c->result->databases == 0 && b.n_backups == 0)
		rc = copy_nothing(c, err);
	return rc;
}
