/* SPDX-License-Identifier: Apache-2.0 */
/* The notes of a history.  They are small: a place is asked for the whole of each. */
#include "engine/base/buf.h"
#include "engine/repair/repair_i.h"

#include <string.h>

static int read_note(struct repair *r, const struct site *s, const char *file, struct buf *ret,
                     struct err *err)
{
	char key[STORE_KEY_MAX];

	repair_key(r, file, key);
	buf_clear(ret);
	int rc = store_get(s->at.store, key, REPAIR_NOTE_MAX, ret, err);
	return rc ? rc : whole_check_note(file, ret, err);
}

static int put_note(struct repair *r, const char *file, const struct buf *text, bool missing,
                    const char *from, const char *what, struct err *err)
{
	cleanup_buf struct buf back = BUF_INIT(REPAIR_NOTE_MAX);
	char key[STORE_KEY_MAX];
	int rc = 0;

	repair_key(r, file, key);
	if (!r->options->dry_run) {
		rc = put_bytes(r, key, text->data, text->len, missing, err);
		rc = rc ? rc : read_note(r, &r->target, file, &back, err);
	}
	if (rc == 0)
		repair_tell(r, key, missing, r->options->dry_run ? REPAIR_POSSIBLE : REPAIR_DONE,
		            from, what);
	return rc;
}

/* Up to the line of its sum; 0: it has none. */
static size_t before_sum(const struct buf *b)
{
	size_t n = b->len && b->data[b->len - 1] == '\n' ? b->len - 1 : b->len;

	while (n > 0 && b->data[n - 1] != '\n')
		n--;
	return n;
}

/* Each place that thins has a note of its own, and that of another would hide what is kept here: only
 * the very same one will do, which the sum tells, or all but the sum. */
static bool is_same_note(const struct buf *a, const struct buf *b)
{
	size_t n = before_sum(a), m = before_sum(b);

	return n && m &&
	       ((n == m && memcmp(a->data, b->data, n) == 0) ||
	        (a->len - n == b->len - m && memcmp(a->data + n, b->data + m, a->len - n) == 0));
}

/* `was`: what is damaged here; NULL: it is missing. */
static bool will_do(const struct site *s, const char *file, const struct buf *was,
                    const struct buf *other)
{
	if (strcmp(file, "thinned") == 0)
		return was && is_same_note(was, other);
	return whole_note_begins(file, other) <= s->shared_txid;
}

/* Of who writes there: only what is left of the note tells. */
static int replace_writer(struct repair *r, const char *file, const struct buf *was,
                          const char *what, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT(REPAIR_NOTE_MAX);
	char key[STORE_KEY_MAX], text[400];
	const char *from;

	int rc = writer_again(r, file, was, &b, &from, err);
	if (rc < 0 || from)
		return rc ? rc : put_note(r, file, &b, false, from, what, err);
	repair_key(r, file, key);
	snprintf(
	        text, sizeof(text),
	        "%.200s; who wrote there cannot be told (asof replicate --take-over makes another)",
	        what);
	repair_tell(r, key, false, REPAIR_FAILED, NULL, text);
	return 0;
}

/* What was to go is listed anew by the next retention, and waits for its grace time once more. */
static int drop_expiring(struct repair *r, const char *file, const char *what, struct err *err)
{
	char key[STORE_KEY_MAX];

	repair_key(r, file, key);
	int rc = r->options->dry_run ? 0 : put_away(r, key, err);
	if (rc == 0)
		repair_tell(r, key, false, r->options->dry_run ? REPAIR_POSSIBLE : REPAIR_DONE,
		            r->target.at.label, what);
	return rc;
}

static int replace(struct repair *r, const char *file, const struct buf *was, const char *what,
                   struct err *err)
{
	const bool missing = !was;
	cleanup_buf struct buf b = BUF_INIT(REPAIR_NOTE_MAX);
	char key[STORE_KEY_MAX];
	uint32_t lineage;

	if (strcmp(file, "expiring") == 0)
		return drop_expiring(r, file, what, err);
	if (writer_name_parse(file, &lineage))
		return replace_writer(r, file, was, what, err);
	for (size_t i = 0; i < r->n_others; i++) {
		struct err why = ERR_INIT;
		if (!r->others[i].same)
			continue;
		int rc = read_note(r, &r->others[i], file, &b, &why);
		if (repair_ends(rc, &why))
			return err_copy(err, &why);
		if (rc == 0 && will_do(&r->others[i], file, was, &b))
			return put_note(r, file, &b, missing, r->others[i].at.label, what, err);
	}
	repair_key(r, file, key);
	repair_tell(r, key, missing, REPAIR_FAILED, NULL, what);
	return 0;
}

static int look(struct repair *r, const char *file, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT(REPAIR_NOTE_MAX);
	struct err why = ERR_INIT;

	int rc = read_note(r, &r->target, file, &b, &why);
	if (err_kind_of(rc) == ERR_DAMAGED) { /* once more */
		why = (struct err)ERR_INIT;
		rc = read_note(r, &r->target, file, &b, &why);
	}
	if (err_kind_of(rc) == ERR_DAMAGED)
		return replace(r, file, &b, why.msg, err);
	return rc < 0 && why.kind != ERR_USAGE && why.kind != ERR_NOT_FOUND ? err_copy(err, &why)
	                                                                    : 0;
}

/* Whether the target must have what another place has. */
static bool is_needed(const char *file, uint32_t lineage, uint64_t end, uint64_t shared)
{
	struct object_name n;
	uint64_t txid;

	if (strcmp(file, "source") == 0)
		return true;
	if (object_name_parse(file, &n))
		return n.type == OBJECT_LINEAGE && n.lineage <= lineage;
	return gap_name_parse(file, &txid) && txid <= end && txid <= shared;
}

/* A mark that another place has and the target does not.  Marks are taken away in directories alone, and
 * go from there to stores: so what a store lacks was lost. */
static int fill_mark(struct repair *r, const struct site *s, const struct item *item,
                     struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT(REPAIR_NOTE_MAX);
	char key[STORE_KEY_MAX];
	struct err why = ERR_INIT;

	int rc = read_note(r, s, item->file, &b, &why);
	uint64_t txid = rc == 0 ? whole_note_begins(item->file, &b) : 0;
	if (rc < 0)
		return repair_ends(rc, &why) ? err_copy(err, &why) : 0;
	if (txid > s->shared_txid)
		return 0; /* another's moment */
	if (r->target.at.store->dir_fd < 0 && s->at.store->dir_fd >= 0) {
		rc = put_note(r, item->file, &b, true, s->at.label, "", err);
		return rc ? rc : target_add(r, item, err);
	}
	repair_key(r, item->file, key);
	repair_tell_by_hand(r, key, s->at.label, txid);
	return target_add(r, item, err); /* told once */
}

static int fill(struct repair *r, struct err *err)
{
	uint32_t lineage = 0;
	uint64_t end = 0;

	for (size_t i = 0; i < r->target.items.n; i++) {
		const struct item *o = &r->target.items.v[i];
		uint64_t last = o->kind == ITEM_GROWING ? o->name.first_txid : o->name.last_txid;
		if (o->kind != ITEM_NOTE && o->name.lineage > lineage)
			lineage = o->name.lineage;
		if (o->kind != ITEM_NOTE && last > end)
			end = last;
	}
	for (size_t k = 0; k < r->n_others; k++) {
		const struct site *s = &r->others[k];
		for (size_t i = 0; s->same && i < s->items.n; i++) {
			const struct item item = s->items.v[i];
			char mark[DB_NAME_MAX + 1];
			int rc = 0;
			if (item.kind != ITEM_NOTE || site_find(&r->target, item.file))
				continue;
			if (mark_file_parse(item.file, mark)) {
				rc = fill_mark(r, s, &item, err);
			} else if (is_needed(item.file, lineage, end, s->shared_txid)) {
				rc = replace(r, item.file, NULL, "", err);
				rc = rc ? rc : target_add(r, &item, err);
			}
			if (rc < 0)
				return rc;
		}
	}
	return 0;
}

static int run(struct repair *r, struct err *err)
{
	int rc = target_begin(r, err);

	for (size_t i = 0; i < r->target.items.n && rc == 0; i++)
		if (r->target.items.v[i].kind == ITEM_NOTE)
			rc = look(r, r->target.items.v[i].file, err);
	return rc ? rc : fill(r, err);
}

int repair_notes(const struct repair_options *options, const char *name, struct repair_result *ret,
                 struct err *err)
{
	struct repair r;

	int rc = repair_begin(&r, options, name, ret, err);
	rc = rc ? rc : run(&r, err);
	repair_end(&r);
	return rc;
}
