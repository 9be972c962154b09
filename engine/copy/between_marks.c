/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Marks from store to store.  One that was taken away in the first goes in the second, too, or is
 * replaced where it was given anew; but only where a copy from there brought it, and it is still that very
 * note: what others marked there stays.
 *
 * Which ones a copy brought is written down in the second, since the first may be somebody else's:
 * copied/XXXXXXXX (a hash of where the first is), as archive/given.h has it; the hashes are over what lies
 * there, so it is plain also where all else is sealed.  It is written before the marks are put: who is
 * killed between still takes back what was taken away meanwhile.
 */
#include "engine/archive/given.h"
#include "engine/base/log.h"
#include "engine/copy/between_i.h"
#include "engine/store/crypt.h"

#include <inttypes.h>
#include <string.h>

#define NOTE_MAX ((size_t)64 << 10)

static void list_file(const struct between *b, char out[40])
{
	snprintf(out, 40, "copied/%08" PRIx32,
	         (uint32_t)hash64(b->from->label, strlen(b->from->label), 0));
}

static int read_list(struct between *b, struct given_marks *ret, struct err *err)
{
	cleanup_buf struct buf text = BUF_INIT(COPY_NOTE_MAX);
	char file[40];

	*ret = (struct given_marks){0};
	list_file(b, file);
	if (!things_find(&b->there, file))
		return 0;
	int rc = between_get(store_crypt_inner(b->to), b, file, &text, err);
	rc = rc ? rc : buf_append(&text, "", 1, err);
	return rc ? rc : given_marks_parse((char *)text.data, ret, err);
}

static int write_list(struct between *b, struct given_marks *g, struct err *err)
{
	cleanup_buf struct buf text = BUF_INIT(COPY_NOTE_MAX);
	char file[40], key[STORE_KEY_MAX + 1];

	if (!g->changed)
		return 0;
	list_file(b, file);
	between_key(b, file, key);
	int rc = given_marks_format(g, &text, err);
	rc = rc ? rc : store_put_bytes(store_crypt_inner(b->to), key, text.data, text.len, 0, err);
	g->changed = rc < 0;
	return rc;
}

/* *ret_there: it is, and can be read. */
static int hash_of(struct store *s, const struct between *b, const char *file, bool *ret_there,
                   uint64_t *ret, struct err *err)
{
	cleanup_buf struct buf note = BUF_INIT(NOTE_MAX);
	struct err why = ERR_INIT;

	int rc = between_get(s, b, file, &note, &why);
	*ret_there = rc == 0;
	*ret = given_hash(note.data, note.len);
	if (rc < 0 && why.kind != ERR_NOT_FOUND && why.kind != ERR_DAMAGED)
		return err_copy(err, &why);
	return 0;
}

/* *ret_stays: it could not be removed. */
static int take_away(struct between *b, const struct given_mark *m, struct given_marks *g,
                     bool *ret_stays, struct err *err)
{
	char key[STORE_KEY_MAX + 1];
	struct err why = ERR_INIT;
	uint64_t hash;
	bool is_there;

	*ret_stays = false;
	int rc = hash_of(b->to, b, m->file, &is_there, &hash, err);
	if (rc < 0 || !is_there || hash != m->hash)
		return rc;
	between_key(b, m->file, key);
	rc = store_remove(b->to, key, &why);
	if (rc == 0 || why.kind != ERR_DENIED)
		return rc < 0 ? err_copy(err, &why) : 0;
	*ret_stays = true;
	if (!g->denied)
		log_warn("copy",
		         "a mark that was removed in the first stays in the second: deletion is "
		         "denied db=%s at=%s mark='%.*s'",
		         b->name, b->c->options->to, (int)strlen(m->file) - 5, m->file);
	g->changed = g->changed || !g->denied;
	g->denied = true;
	return 0;
}

/* One that both have: *ret_ours as long as the second's is what was brought, or is brought now. */
static int renew(struct between *b, struct given_mark *m, struct given_marks *g, bool *ret_ours,
                 struct err *err)
{
	uint64_t from, to;
	bool here, there, damaged = false;

	*ret_ours = true;
	int rc = hash_of(b->from, b, m->file, &here, &from, err);
	if (rc < 0 || !here || from == m->hash)
		return rc;
	rc = hash_of(b->to, b, m->file, &there, &to, err);
	if (rc < 0)
		return rc;
	*ret_ours = !there || to == from || to == m->hash;
	if (*ret_ours && to != from)
		rc = between_bring(b, things_find(&b->here, m->file), 0, &damaged, err);
	if (rc == 0 && *ret_ours && !damaged) {
		m->hash = from;
		g->changed = true;
	}
	return rc;
}

static int carry_out(struct between *b, struct given_marks *g, struct err *err)
{
	int rc = 0;

	for (size_t i = g->n; i-- > 0 && rc == 0;) {
		struct given_mark *m = &g->e[i];
		bool here = things_find(&b->here, m->file), keep = here;
		if (!things_find(&b->there, m->file))
			; /* it is brought, or gone from both */
		else if (here)
			rc = renew(b, m, g, &keep, err);
		else
			rc = take_away(b, m, g, &keep, err);
		if (rc == 0 && !keep)
			given_marks_drop(g, i);
	}
	return rc;
}

/* Those of the first that no list has yet: they come now, or are there, the very same. */
static int note_others(struct between *b, struct given_marks *g, struct err *err)
{
	int rc = 0;

	for (size_t i = 0; i < b->here.n && rc == 0; i++) {
		const struct thing *t = &b->here.v[i];
		uint64_t from, to;
		bool here, there = true;
		if (t->kind != THING_MARK || given_marks_find(g, t->file) != SIZE_MAX)
			continue;
		rc = hash_of(b->from, b, t->file, &here, &from, err);
		to = from;
		if (rc == 0 && things_find(&b->there, t->file))
			rc = hash_of(b->to, b, t->file, &there, &to, err);
		if (rc == 0 && here && there && to == from)
			rc = given_marks_set(g, t->file, from, err);
	}
	return rc;
}

int between_marks(struct between *b, struct err *err)
{
	cleanup_given_marks struct given_marks g = {0};
	bool damaged;

	int rc = read_list(b, &g, err);
	if (rc == 0)
		rc = carry_out(b, &g, err);
	if (rc == 0)
		rc = note_others(b, &g, err);
	if (rc == 0)
		rc = write_list(b, &g, err);
	for (size_t i = 0; i < b->here.n && rc == 0; i++) {
		const struct thing *t = &b->here.v[i];
		if (t->kind == THING_MARK && !things_find(&b->there, t->file))
			rc = between_bring(b, t, 0, &damaged, err);
	}
	return rc;
}
