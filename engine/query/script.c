/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The SQL that turns one image into the other.
 *
 *   (1) Nothing acts on its own: foreign keys and CHECKs are off, triggers of tables that are
 *       written to are dropped first and made anew last.
 *   (2) What stands in the way goes first (triggers, views, indexes, tables), then tables come,
 *       then rows, then indexes, views and triggers.
 *   (3) In a table with a UNIQUE constraint beside its key, a row could be in the way of another
 *       only for a while: there every row that is removed or changed is deleted first, and then
 *       every one that is added or changed is inserted.
 *   (4) What a virtual table holds is in its shadow tables, which are tables like others.  One that
 *       is made anew brings new ones: their rows are put in place whole.
 *   (5) SQLite's own tables (sqlite_sequence, statistics) change when others are written to, so
 *       they are put in place whole, last.
 */
#include "engine/query/diff_i.h"

#include <inttypes.h>
#include <string.h>

struct script {
	struct diff d;
	struct text t;
	bool *touched; /* by index of d.to.entries: rows differ */
	bool anything;
};

static bool is_table(const struct entry_info *e)
{
	return strcmp(e->type, "table") == 0;
}

static bool remade(const struct entry_info *from, const struct entry_info *to)
{
	return !from || !to || strcmp(from->sql, to->sql) != 0;
}

/* Whether the table that an index or trigger belongs to is made anew, and with it this. */
static bool owner_remade(const struct script *s, const struct entry_info *e)
{
	static const char *const types[] = {"table", "view"};

	for (size_t i = 0; i < 2; i++) {
		const struct entry_info *from = side_find(&s->d.from, types[i], e->table);
		const struct entry_info *to = side_find(&s->d.to, types[i], e->table);
		if ((from || to) && remade(from, to))
			return true;
	}
	return false;
}

/* A shadow table of a virtual one that is made anew or dropped: comes and goes with it. */
static bool virtual_remade(const struct script *s, const struct side *in, const char *name)
{
	for (size_t i = 0; i < in->n_entries; i++) {
		const struct entry_info *v = &in->entries[i];
		size_t n = strlen(v->name);
		if (!is_table(v) || !v->info.is_virtual || strncmp(name, v->name, n) != 0 ||
		    name[n] != '_')
			continue;
		if (remade(side_find(&s->d.from, "table", v->name),
		           side_find(&s->d.to, "table", v->name)))
			return true;
	}
	return false;
}

static bool comes_with_virtual(const struct script *s, const struct side *in,
                               const struct entry_info *e)
{
	return e->info.is_shadow && virtual_remade(s, in, e->name);
}

static bool rows_differ(const struct script *s, const char *table)
{
	for (size_t i = 0; i < s->d.to.n_entries; i++)
		if (s->touched[i] && strcmp(s->d.to.entries[i].name, table) == 0)
			return true;
	return false;
}

/* Whether the trigger must not be there while rows are written. */
static bool in_the_way(const struct script *s, const struct entry_info *trigger)
{
	return rows_differ(s, trigger->table);
}

/* ---- what goes ---- */

static int drop(struct script *s, const struct entry_info *e, struct err *err)
{
	int rc = text_put(&s->t, err, "DROP %s ", e->type);

	rc = rc ? rc : text_name(&s->t, e->name, err);
	return rc ? rc : text_put(&s->t, err, ";\n");
}

static bool must_drop(const struct script *s, const struct entry_info *e, const char *type)
{
	const struct entry_info *to = side_find(&s->d.to, e->type, e->name);

	if (strcmp(e->type, type) != 0 || !diff_wants(&s->d, e))
		return false;
	if (is_table(e))
		return remade(e, to) && !comes_with_virtual(s, &s->d.from, e) &&
		       (!is_internal(e->name) || strncmp(e->name, "sqlite_stat", 11) == 0);
	if (strcmp(type, "view") != 0 && owner_remade(s, e))
		return false; /* goes with its table */
	return remade(e, to) || (strcmp(type, "trigger") == 0 && in_the_way(s, e));
}

static int drop_all(struct script *s, struct err *err)
{
	static const char *const order[] = {"trigger", "view", "index", "table"};
	const struct side *f = &s->d.from;
	int rc = 0;

	for (size_t k = 0; k < 4; k++)
		for (size_t i = 0; i < f->n_entries && !rc; i++)
			if (must_drop(s, &f->entries[i], order[k]))
				rc = drop(s, &f->entries[i], err);
	return rc;
}

/* ---- what comes ---- */

static bool must_create(const struct script *s, const struct entry_info *e, const char *type)
{
	const struct entry_info *from = side_find(&s->d.from, e->type, e->name);

	if (strcmp(e->type, type) != 0 || !diff_wants(&s->d, e))
		return false;
	if (is_table(e))
		return remade(from, e) && !is_internal(e->name) &&
		       !comes_with_virtual(s, &s->d.to, e);
	if (remade(from, e) || (strcmp(type, "view") != 0 && owner_remade(s, e)))
		return true;
	return strcmp(type, "trigger") == 0 && in_the_way(s, e);
}

/* Ordinary tables before virtual ones, which may be about them. */
static int create_all(struct script *s, const char *type, struct err *err)
{
	const struct side *to = &s->d.to;
	int rc = 0;

	for (int virtual = 0; virtual < 2; virtual ++)
		for (size_t i = 0; i < to->n_entries && !rc; i++) {
			const struct entry_info *e = &to->entries[i];
			if (e->info.is_virtual == !!virtual && must_create(s, e, type))
				rc = text_statement(&s->t, e->sql, err);
		}
	return rc;
}

/* ---- rows ---- */

struct writing {
	struct script *s;
	const struct entry_info *e;
	bool deletes, inserts, updates;
};

static int put_columns(struct text *t, const struct table_info *i, struct err *err)
{
	int rc = 0;

	if (i->key == KEY_ROWID)
		rc = text_put(t, err, "%s%s", i->rowid_name, i->n_columns ? ", " : "");
	for (size_t k = 0; k < i->n_columns && !rc; k++) {
		rc = text_name(t, i->columns[k], err);
		if (!rc && k + 1 < i->n_columns)
			rc = text_put(t, err, ", ");
	}
	return rc;
}

static int put_insert(struct writing *w, sqlite3_stmt *row, struct err *err)
{
	struct text *t = &w->s->t;
	int n = sqlite3_column_count(row);
	int rc = text_put(t, err, "INSERT INTO ");

	rc = rc ? rc : text_name(t, w->e->name, err);
	rc = rc ? rc : text_put(t, err, "(");
	rc = rc ? rc : put_columns(t, &w->e->info, err);
	rc = rc ? rc : text_put(t, err, ") VALUES (");
	for (int i = 0; i < n && !rc; i++) {
		rc = text_value(t, row, i, err);
		if (!rc && i + 1 < n)
			rc = text_put(t, err, ", ");
	}
	return rc ? rc : text_put(t, err, ");\n");
}

/* WHERE the key is that of `row`. */
static int put_where(struct writing *w, sqlite3_stmt *row, struct err *err)
{
	const struct table_info *i = &w->e->info;
	struct text *t = &w->s->t;
	int rc = text_put(t, err, " WHERE ");

	if (i->key == KEY_ROWID) {
		rc = rc ? rc : text_put(t, err, "%s = ", i->rowid_name);
		rc = rc ? rc : text_value(t, row, 0, err);
	}
	for (size_t k = 0; k < i->n_keys && i->key != KEY_ROWID && !rc; k++) {
		rc = k ? text_put(t, err, " AND ") : 0;
		rc = rc ? rc : text_name(t, i->columns[i->keys[k]], err);
		rc = rc ? rc : text_put(t, err, " = ");
		rc = rc ? rc : text_value(t, row, (int)i->keys[k], err);
	}
	return rc ? rc : text_put(t, err, ";\n");
}

static int put_delete(struct writing *w, sqlite3_stmt *row, struct err *err)
{
	int rc = text_put(&w->s->t, err, "DELETE FROM ");

	rc = rc ? rc : text_name(&w->s->t, w->e->name, err);
	return rc ? rc : put_where(w, row, err);
}

static int put_update(struct writing *w, sqlite3_stmt *from, sqlite3_stmt *to, struct err *err)
{
	const struct table_info *i = &w->e->info;
	struct text *t = &w->s->t;
	int shift = i->key == KEY_ROWID, n = 0;
	int rc = text_put(t, err, "UPDATE ");

	rc = rc ? rc : text_name(t, w->e->name, err);
	for (size_t k = 0; k < i->n_columns && !rc; k++) {
		int column = (int)k + shift;
		if (rows_same_value(from, column, to, column))
			continue;
		rc = text_put(t, err, n++ ? ", " : " SET ");
		rc = rc ? rc : text_name(t, i->columns[k], err);
		rc = rc ? rc : text_put(t, err, " = ");
		rc = rc ? rc : text_value(t, to, column, err);
	}
	return rc ? rc : put_where(w, from, err);
}

static int write_row(void *ctx, enum row_change change, sqlite3_stmt *from, sqlite3_stmt *to,
                     struct err *err)
{
	struct writing *w = ctx;
	int rc = 0;

	if (change == ROW_CHANGED && w->updates)
		return put_update(w, from, to, err);
	if (w->deletes && change != ROW_ADDED)
		rc = put_delete(w, from, err);
	if (!rc && w->inserts && change != ROW_REMOVED)
		rc = put_insert(w, to, err);
	return rc;
}

/* In the place of whatever rows are there. */
static int put_whole(struct script *s, const struct entry_info *to, bool empty, struct err *err)
{
	struct writing w = {.s = s, .e = to, .inserts = true};
	int rc = 0;

	if (!empty) {
		rc = text_put(&s->t, err, "DELETE FROM ");
		rc = rc ? rc : text_name(&s->t, to->name, err);
		rc = rc ? rc : text_put(&s->t, err, ";\n");
	}
	return rc ? rc : rows_all(&s->d.to, to, write_row, &w, err);
}

static int put_differences(struct script *s, const struct entry_info *from,
                           const struct entry_info *to, struct err *err)
{
	cleanup_ranges struct ranges ranges = {.all = true};
	struct writing w = {.s = s, .e = to, .deletes = true};
	int rc = page_map_ranges(&s->d, from, to, &ranges, err);

	if (rc)
		return rc;
	if (to->info.key == KEY_NONE)
		return put_whole(s, to, false, err);
	if (!to->info.unique) {
		w.updates = w.inserts = true;
		return rows_compare(&s->d, from, to, &ranges, write_row, &w, err);
	}
	rc = rows_compare(&s->d, from, to, &ranges, write_row, &w, err);
	w.deletes = false;
	w.inserts = true;
	return rc ? rc : rows_compare(&s->d, from, to, &ranges, write_row, &w, err);
}

static int put_rows(struct script *s, struct err *err)
{
	int rc = 0;

	for (size_t i = 0; i < s->d.to.n_entries && !rc; i++) {
		const struct entry_info *to = &s->d.to.entries[i];
		const struct entry_info *from = side_find(&s->d.from, "table", to->name);
		if (!is_table(to) || to->info.is_virtual || is_internal(to->name) ||
		    !diff_wants(&s->d, to))
			continue;
		if (comes_with_virtual(s, &s->d.to, to))
			rc = put_whole(s, to, false, err);
		else if (remade(from, to))
			rc = put_whole(s, to, true, err);
		else if (s->touched[i])
			rc = put_differences(s, from, to, err);
	}
	return rc;
}

/* (5) */
static int put_internal(struct script *s, struct err *err)
{
	const struct entry_info *seq = side_find(&s->d.from, "table", "sqlite_sequence");
	bool analyzed = false;
	int rc = 0;

	for (size_t i = 0; i < s->d.to.n_entries && !rc; i++) {
		const struct entry_info *to = &s->d.to.entries[i];
		if (!is_table(to) || !is_internal(to->name))
			continue;
		if (strncmp(to->name, "sqlite_stat", 11) == 0 && !analyzed) {
			rc = text_put(&s->t, err, "ANALYZE sqlite_schema;\n"); /* makes it */
			analyzed = true;
		}
		rc = rc ? rc : put_whole(s, to, false, err);
	}
	if (!rc && seq && !side_find(&s->d.to, "table", "sqlite_sequence"))
		rc = text_put(&s->t, err, "DELETE FROM sqlite_sequence;\n");
	return rc;
}

/* ---- numbers in the header ---- */

static int pragma_of(sqlite3 *db, const char *name, int64_t *ret, struct err *err)
{
	cleanup_stmt sqlite3_stmt *s = NULL;
	char sql[64];

	snprintf(sql, sizeof(sql), "PRAGMA %s", name);
	if (sqlite3_prepare_v2(db, sql, -1, &s, NULL) != SQLITE_OK || sqlite3_step(s) != SQLITE_ROW)
		return vfs_sqlite_error(db, err, "%s", sql);
	*ret = sqlite3_column_int64(s, 0);
	return 0;
}

static const char *const header_pragmas[] = {"user_version", "application_id"};

static int put_pragmas(struct script *s, bool write, struct err *err)
{
	int rc = 0;

	for (size_t i = 0; i < 2 && !rc && !s->d.options->table; i++) {
		int64_t a, b;
		rc = pragma_of(s->d.from.db, header_pragmas[i], &a, err);
		rc = rc ? rc : pragma_of(s->d.to.db, header_pragmas[i], &b, err);
		if (rc || a == b)
			continue;
		s->anything = true;
		if (write)
			rc = text_put(&s->t, err, "PRAGMA %s = %" PRId64 ";\n", header_pragmas[i],
			              b);
	}
	return rc;
}

/* ---- */

/* What differs at all, so that the rest knows. */
static int look(struct script *s, struct err *err)
{
	struct diff *d = &s->d;
	int rc = 0;

	s->touched = calloc(d->to.n_entries + 1, sizeof(*s->touched));
	if (!s->touched)
		return err_set(err, ERR_NOMEM, 0, "no memory to compare");
	for (size_t i = 0; i < d->to.n_entries && !rc; i++) {
		const struct entry_info *to = &d->to.entries[i];
		const struct entry_info *from = side_find(&d->from, to->type, to->name);
		struct diff_object o = {.type = NULL};
		if (!diff_wants(d, to))
			continue;
		if (remade(from, to))
			s->touched[i] = is_table(to);
		else if ((rc = diff_count(d, from, to, &o, err)) == 0)
			s->touched[i] = o.added || o.removed || o.changed;
		s->anything = s->anything || s->touched[i] || remade(from, to);
	}
	for (size_t i = 0; i < d->from.n_entries && !rc; i++) {
		const struct entry_info *from = &d->from.entries[i];
		if (diff_wants(d, from) && !side_find(&d->to, from->type, from->name))
			s->anything = true;
	}
	return rc ? rc : put_pragmas(s, false, err);
}

static int put_script(struct script *s, struct err *err)
{
	const struct moment *a = view_moment(s->d.from.view), *b = view_moment(s->d.to.view);
	int rc = text_put(&s->t, err, "-- %.200s from txid %" PRIu64 " to txid %" PRIu64 "%s\n",
	                  view_database(s->d.to.view), a->txid, b->txid,
	                  s->anything ? "" : ": nothing differs");

	if (rc || !s->anything)
		return rc ? rc : text_flush(&s->t, err);
	rc = text_put(&s->t, err,
	              "PRAGMA foreign_keys = OFF;\nPRAGMA ignore_check_constraints = ON;\n"
	              "BEGIN;\n");
	rc = rc ? rc : drop_all(s, err);
	rc = rc ? rc : create_all(s, "table", err);
	rc = rc ? rc : put_rows(s, err);
	rc = rc ? rc : create_all(s, "index", err);
	rc = rc ? rc : create_all(s, "view", err);
	rc = rc ? rc : create_all(s, "trigger", err);
	if (!s->d.options->table)
		rc = rc ? rc : put_internal(s, err);
	rc = rc ? rc : put_pragmas(s, true, err);
	rc = rc ? rc : text_put(&s->t, err, "COMMIT;\nPRAGMA ignore_check_constraints = OFF;\n");
	return rc ? rc : text_flush(&s->t, err);
}

static void script_release(struct script *s)
{
	text_release(&s->t);
	free(s->touched);
	diff_close(&s->d);
}

int diff_write_sql(struct view *from, struct view *to, const struct diff_options *options,
                   diff_write_fn *fn, void *ctx, struct err *err)
{
	CLEANUP(script_release) struct script s = {.anything = false};

	int rc = diff_open(&s.d, from, to, options, err);
	rc = rc ? rc : text_open(&s.t, s.d.to.db, fn, ctx, err);
	rc = rc ? rc : look(&s, err);
	rc = rc ? rc : put_script(&s, err);
	rc = rc ? rc : vfs_error(s.d.from.db, err);
	return rc ? rc : vfs_error(s.d.to.db, err);
}
