/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows against rows.  Tables with rowids are merged in the order of these, over the ranges that
 * can differ.  Of a WITHOUT ROWID table every row is looked up on the other side by its key, with
 * the table's own idea of when two keys are the same.
 */
#include "engine/query/diff_i.h"

#include <string.h>

#define SQL_MAX (1u << 20)

/* Columns that both sides have, by their place in the select lists. */
struct pairs {
	int *from, *to;
	size_t n;
};

static void pairs_release(struct pairs *p)
{
	free(p->from);
	free(p->to);
}

static int name_to(struct buf *b, const char *name, struct err *err)
{
	int rc = buf_append(b, "\"", 1, err);

	for (; *name && !rc; name++) {
		rc = buf_append(b, name, 1, err);
		if (!rc && *name == '"')
			rc = buf_append(b, name, 1, err);
	}
	return rc ? rc : buf_append(b, "\"", 1, err);
}

/* The name of the rowid, as SQL. */
static int rowid_to(struct buf *b, const struct table_info *t, struct err *err)
{
	return t->key == KEY_ALIAS ? name_to(b, t->columns[t->alias], err)
	                           : buf_printf(b, err, "%s", t->rowid_name);
}

static int select_to(struct buf *b, const struct entry_info *e, struct err *err)
{
	const struct table_info *t = &e->info;
	int rc = buf_printf(b, err, "SELECT ");

	if (!rc && t->key == KEY_ROWID)
		rc = buf_printf(b, err, "%s%s", t->rowid_name, t->n_columns ? ", " : "");
	for (size_t i = 0; i < t->n_columns && !rc; i++) {
		rc = name_to(b, t->columns[i], err);
		if (!rc && i + 1 < t->n_columns)
			rc = buf_printf(b, err, ", ");
	}
	rc = rc ? rc : buf_printf(b, err, " FROM main.");
	return rc ? rc : name_to(b, e->name, err);
}

static int prepare(struct side *s, struct buf *b, sqlite3_stmt **ret, struct err *err)
{
	int rc = buf_append(b, "", 1, err);

	if (!rc && sqlite3_prepare_v2(s->db, (const char *)b->data, -1, ret, NULL) != SQLITE_OK)
		rc = vfs_sqlite_error(s->db, err, "diff");
	return rc;
}

/* All rows with ?1 <= rowid <= ?2, in order. */
static int prepare_range(struct side *s, const struct entry_info *e, sqlite3_stmt **ret,
                         struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT(SQL_MAX);
	int rc = select_to(&b, e, err);

	rc = rc ? rc : buf_printf(&b, err, " WHERE ");
	rc = rc ? rc : rowid_to(&b, &e->info, err);
	rc = rc ? rc : buf_printf(&b, err, " BETWEEN ?1 AND ?2 ORDER BY ");
	rc = rc ? rc : rowid_to(&b, &e->info, err);
	return rc ? rc : prepare(s, &b, ret, err);
}

/* The row with the key of `by`, whose values are bound in order. */
static int prepare_lookup(struct side *s, const struct entry_info *e, sqlite3_stmt **ret,
                          struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT(SQL_MAX);
	int rc = select_to(&b, e, err);

	for (size_t i = 0; i < e->info.n_keys && !rc; i++) {
		rc = buf_printf(&b, err, i ? " AND " : " WHERE ");
		rc = rc ? rc : name_to(&b, e->info.columns[e->info.keys[i]], err);
		rc = rc ? rc : buf_printf(&b, err, " = ?%zu", i + 1);
	}
	return rc ? rc : prepare(s, &b, ret, err);
}

static int prepare_all(struct side *s, const struct entry_info *e, sqlite3_stmt **ret,
                       struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT(SQL_MAX);
	int rc = select_to(&b, e, err);

	return rc ? rc : prepare(s, &b, ret, err);
}

/* ---- values ---- */

bool rows_same_value(sqlite3_stmt *a, int i, sqlite3_stmt *b, int k)
{
	int type = sqlite3_column_type(a, i);

	if (type != sqlite3_column_type(b, k))
		return false;
	if (type == SQLITE_NULL)
		return true;
	if (type == SQLITE_INTEGER)
		return sqlite3_column_int64(a, i) == sqlite3_column_int64(b, k);
	if (type == SQLITE_FLOAT)
		return real_bits(sqlite3_column_double(a, i)) ==
		       real_bits(sqlite3_column_double(b, k));
	const void *p = type == SQLITE_TEXT ? sqlite3_column_text(a, i) : sqlite3_column_blob(a, i);
	const void *q = type == SQLITE_TEXT ? sqlite3_column_text(b, k) : sqlite3_column_blob(b, k);
	int n = sqlite3_column_bytes(a, i);
	return n == sqlite3_column_bytes(b, k) && (n == 0 || (p && q && !memcmp(p, q, (size_t)n)));
}

static bool same_row(sqlite3_stmt *a, sqlite3_stmt *b, const struct pairs *p)
{
	for (size_t i = 0; i < p->n; i++)
		if (!rows_same_value(a, p->from[i], b, p->to[i]))
			return false;
	return true;
}

static int make_pairs(const struct table_info *a, const struct table_info *b, struct pairs *ret,
                      struct err *err)
{
	ret->from = calloc(a->n_columns + 1, sizeof(int));
	ret->to = calloc(a->n_columns + 1, sizeof(int));
	if (!ret->from || !ret->to)
		return err_set(err, ERR_NOMEM, 0, "no memory to compare a table");
	for (size_t i = 0; i < a->n_columns; i++)
		for (size_t k = 0; k < b->n_columns; k++)
			if (sqlite3_stricmp(a->columns[i], b->columns[k]) == 0) {
				ret->from[ret->n] = (int)i + (a->key == KEY_ROWID);
				ret->to[ret->n++] = (int)k + (b->key == KEY_ROWID);
			}
	return 0;
}

/* ---- tables with rowids ---- */

struct merge {
	struct side *side;
	sqlite3_stmt *s;
	int rowid_column;
	bool has; /* stands on a row */
};

static int merge_next(struct merge *m, struct err *err)
{
	int code = sqlite3_step(m->s);

	m->has = code == SQLITE_ROW;
	if (code != SQLITE_ROW && code != SQLITE_DONE)
		return vfs_sqlite_error(m->side->db, err, "diff");
	return 0;
}

static int merge_begin(struct merge *m, const struct range *r, struct err *err)
{
	sqlite3_reset(m->s);
	sqlite3_bind_int64(m->s, 1, r->first);
	sqlite3_bind_int64(m->s, 2, r->last);
	return merge_next(m, err);
}

static int64_t merge_rowid(const struct merge *m)
{
	return sqlite3_column_int64(m->s, m->rowid_column);
}

static int merge_range(struct merge *a, struct merge *b, const struct pairs *p, row_fn *fn,
                       void *ctx, struct err *err)
{
	int rc = 0;

	while ((a->has || b->has) && !rc) {
		bool only_a = a->has && (!b->has || merge_rowid(a) < merge_rowid(b));
		bool only_b = b->has && (!a->has || merge_rowid(b) < merge_rowid(a));
		if (only_a)
			rc = fn(ctx, ROW_REMOVED, a->s, NULL, err);
		else if (only_b)
			rc = fn(ctx, ROW_ADDED, NULL, b->s, err);
		else if (!same_row(a->s, b->s, p))
			rc = fn(ctx, ROW_CHANGED, a->s, b->s, err);
		if (!rc && !only_b)
			rc = merge_next(a, err);
		if (!rc && !only_a)
			rc = merge_next(b, err);
	}
	return rc;
}

static int compare_rowids(struct diff *d, const struct entry_info *from,
                          const struct entry_info *to, const struct ranges *ranges,
                          const struct pairs *p, row_fn *fn, void *ctx, struct err *err)
{
	static const struct range everything = {INT64_MIN, INT64_MAX};
	cleanup_stmt sqlite3_stmt *sa = NULL, *sb = NULL;
	const struct range *r = ranges->all ? &everything : ranges->r;
	size_t n = ranges->all ? 1 : ranges->n;

	int rc = prepare_range(&d->from, from, &sa, err);
	rc = rc ? rc : prepare_range(&d->to, to, &sb, err);
	struct merge a = {.side = &d->from,
	                  .s = sa,
	                  .rowid_column = from->info.key == KEY_ALIAS ? (int)from->info.alias : 0};
	struct merge b = {.side = &d->to,
	                  .s = sb,
	                  .rowid_column = to->info.key == KEY_ALIAS ? (int)to->info.alias : 0};
	for (size_t i = 0; i < n && !rc; i++) {
		rc = merge_begin(&a, &r[i], err);
		rc = rc ? rc : merge_begin(&b, &r[i], err);
		rc = rc ? rc : merge_range(&a, &b, p, fn, ctx, err);
	}
	return rc;
}

/* ---- WITHOUT ROWID ---- */

/* Every row of `a`, looked up in `b`. */
static int look_up_all(struct side *a, const struct entry_info *ea, struct side *b,
                       const struct entry_info *eb, bool forward, const struct pairs *p, row_fn *fn,
                       void *ctx, struct err *err)
{
	cleanup_stmt sqlite3_stmt *rows = NULL, *look = NULL;
	int code = SQLITE_DONE, rc = prepare_all(a, ea, &rows, err);

	rc = rc ? rc : prepare_lookup(b, eb, &look, err);
	while (!rc && (code = sqlite3_step(rows)) == SQLITE_ROW) {
		sqlite3_reset(look);
		for (size_t i = 0; i < ea->info.n_keys; i++)
			sqlite3_bind_value(look, (int)i + 1,
			                   sqlite3_column_value(rows, (int)ea->info.keys[i]));
		int found = sqlite3_step(look);
		if (found != SQLITE_ROW && found != SQLITE_DONE)
			rc = vfs_sqlite_error(b->db, err, "diff");
		else if (found == SQLITE_DONE)
			rc = fn(ctx, forward ? ROW_REMOVED : ROW_ADDED, forward ? rows : NULL,
			        forward ? NULL : rows, err);
		else if (forward && !same_row(rows, look, p))
			rc = fn(ctx, ROW_CHANGED, rows, look, err);
	}
	if (!rc && code != SQLITE_DONE)
		rc = vfs_sqlite_error(a->db, err, "diff");
	return rc;
}

/* ---- */

struct as_removed {
	row_fn *fn;
	void *ctx;
};

static int pass_as_removed(void *ctx, enum row_change change, sqlite3_stmt *from, sqlite3_stmt *to,
                           struct err *err)
{
	struct as_removed *r = ctx;

	return r->fn(r->ctx, ROW_REMOVED, to, NULL, err);
}

int rows_all(struct side *s, const struct entry_info *t, row_fn *fn, void *ctx, struct err *err)
{
	cleanup_stmt sqlite3_stmt *rows = NULL;
	int code = SQLITE_DONE, rc = prepare_all(s, t, &rows, err);

	while (!rc && (code = sqlite3_step(rows)) == SQLITE_ROW)
		rc = fn(ctx, ROW_ADDED, NULL, rows, err);
	if (!rc && code != SQLITE_DONE)
		rc = vfs_sqlite_error(s->db, err, "diff");
	return rc;
}

/* Rows without any key, one after the other on both sides. */
static int same_rows_in_order(struct diff *d, const struct entry_info *from,
                              const struct entry_info *to, const struct pairs *p, bool *ret,
                              struct err *err)
{
	cleanup_stmt sqlite3_stmt *sa = NULL, *sb = NULL;
	struct merge a = {.side = &d->from}, b = {.side = &d->to};

	*ret = true;
	int rc = prepare_all(&d->from, from, &sa, err);
	rc = rc ? rc : prepare_all(&d->to, to, &sb, err);
	a.s = sa;
	b.s = sb;
	while (!rc && *ret) {
		rc = merge_next(&a, err);
		rc = rc ? rc : merge_next(&b, err);
		if (rc || (!a.has && !b.has))
			return rc;
		*ret = a.has && b.has && same_row(a.s, b.s, p);
	}
	return rc;
}

/* The same key columns, by name. */
static bool same_keys(const struct table_info *a, const struct table_info *b)
{
	bool rowid_a = a->key == KEY_ALIAS || a->key == KEY_ROWID;
	bool rowid_b = b->key == KEY_ALIAS || b->key == KEY_ROWID;

	if (rowid_a || rowid_b)
		return rowid_a && rowid_b;
	if (a->key != KEY_PRIMARY || b->key != KEY_PRIMARY || a->n_keys != b->n_keys)
		return false;
	for (size_t i = 0; i < a->n_keys; i++)
		if (sqlite3_stricmp(a->columns[a->keys[i]], b->columns[b->keys[i]]) != 0)
			return false;
	return true;
}

int rows_compare(struct diff *d, const struct entry_info *from, const struct entry_info *to,
                 const struct ranges *ranges, row_fn *fn, void *ctx, struct err *err)
{
	CLEANUP(pairs_release) struct pairs p = {0};

	if (!ranges->all && ranges->n == 0)
		return 0;
	int rc = make_pairs(&from->info, &to->info, &p, err);
	if (rc)
		return rc;
	if (!same_keys(&from->info, &to->info)) {
		struct as_removed r = {fn, ctx};
		bool same = false;
		if (from->info.key == KEY_NONE && to->info.key == KEY_NONE &&
		    p.n == from->info.n_columns && p.n == to->info.n_columns)
			rc = same_rows_in_order(d, from, to, &p, &same, err);
		if (rc || same)
			return rc;
		rc = rows_all(&d->from, from, pass_as_removed, &r, err);
		return rc ? rc : rows_all(&d->to, to, fn, ctx, err);
	}
	if (from->info.key != KEY_PRIMARY)
		return compare_rowids(d, from, to, ranges, &p, fn, ctx, err);
	rc = look_up_all(&d->from, from, &d->to, to, true, &p, fn, ctx, err);
	return rc ? rc : look_up_all(&d->to, to, &d->from, from, false, &p, fn, ctx, err);
}
