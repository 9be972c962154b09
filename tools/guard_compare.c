/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/guard.h"

#include "engine/view/vfs.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* One table's columns as SQL: lists of its key, and whether two rows differ. */
struct columns {
	char *key;    /* "a.k1 IS b.k1 AND ..." */
	char *differ; /* "a.c1 IS NOT b.c1 OR ..."; "0" without columns */
	bool has_rowid;
};

static void columns_release(struct columns *c)
{
	sqlite3_free(c->key);
	sqlite3_free(c->differ);
}

static void append(char **text, const char *joint, const char *op, const char *column)
{
	char *more = *text ? sqlite3_mprintf("%s %s a.\"%w\" %s b.\"%w\"", *text, joint, column, op,
	                                     column)
	                   : sqlite3_mprintf("a.\"%w\" %s b.\"%w\"", column, op, column);

	sqlite3_free(*text);
	*text = more;
}

/* Columns that both sides have. */
static int read_columns(sqlite3 *db, const char *table, struct columns *c, struct err *err)
{
	cleanup_stmt sqlite3_stmt *s = NULL, *kind = NULL;

	if (sqlite3_prepare_v2(db,
	                       "SELECT a.name, a.pk FROM pragma_table_info(?1, 'main') a "
	                       "JOIN pragma_table_info(?1, 'after') b ON a.name = b.name",
	                       -1, &s, NULL) != SQLITE_OK ||
	    sqlite3_prepare_v2(db, "SELECT wr FROM pragma_table_list(?1) WHERE schema = 'main'", -1,
	                       &kind, NULL) != SQLITE_OK)
		return vfs_sqlite_error(db, err, "look at a table");
	sqlite3_bind_text(kind, 1, table, -1, SQLITE_STATIC);
	c->has_rowid = sqlite3_step(kind) != SQLITE_ROW || sqlite3_column_int(kind, 0) == 0;
	if (c->has_rowid)
		append(&c->key, "AND", "IS", "_rowid_");
	sqlite3_bind_text(s, 1, table, -1, SQLITE_STATIC);
	while (sqlite3_step(s) == SQLITE_ROW) {
		const char *name = (const char *)sqlite3_column_text(s, 0);
		if (!c->has_rowid && sqlite3_column_int(s, 1) > 0)
			append(&c->key, "AND", "IS", name);
		append(&c->differ, "OR", "IS NOT", name);
	}
	if (!c->differ)
		c->differ = sqlite3_mprintf("0");
	return c->key && c->differ ? 0 : err_set(err, ERR_NOMEM, 0, "out of memory");
}

static int count(sqlite3 *db, char *sql, uint64_t *ret, struct err *err)
{
	cleanup_stmt sqlite3_stmt *s = NULL;
	int rc = 0;

	if (!sql)
		return err_set(err, ERR_NOMEM, 0, "out of memory");
	if (sqlite3_prepare_v2(db, sql, -1, &s, NULL) != SQLITE_OK || sqlite3_step(s) != SQLITE_ROW)
		rc = vfs_sqlite_error(db, err, "compare a table");
	else
		*ret = (uint64_t)sqlite3_column_int64(s, 0);
	sqlite3_free(sql);
	return rc;
}

static int compare_table(sqlite3 *db, struct diff_object *o, struct err *err)
{
	CLEANUP(columns_release) struct columns c = {NULL, NULL, false};
	const char *t = o->name;
	int rc;

	if (o->how == DIFF_CREATED)
		return count(db, sqlite3_mprintf("SELECT count(*) FROM after.\"%w\"", t), &o->added,
		             err);
	if (o->how == DIFF_DROPPED)
		return count(db, sqlite3_mprintf("SELECT count(*) FROM main.\"%w\"", t),
		             &o->removed, err);
	if ((rc = read_columns(db, t, &c, err)) ||
	    (rc = count(db,
	                sqlite3_mprintf("SELECT count(*) FROM after.\"%w\" a WHERE NOT EXISTS "
	                                "(SELECT 1 FROM main.\"%w\" b WHERE %s)",
	                                t, t, c.key),
	                &o->added, err)) ||
	    (rc = count(db,
	                sqlite3_mprintf("SELECT count(*) FROM main.\"%w\" a WHERE NOT EXISTS "
	                                "(SELECT 1 FROM after.\"%w\" b WHERE %s)",
	                                t, t, c.key),
	                &o->removed, err)))
		return rc;
	return count(db,
	             sqlite3_mprintf("SELECT count(*) FROM main.\"%w\" a JOIN after.\"%w\" b ON %s "
	                             "WHERE %s",
	                             t, t, c.key, c.differ),
	             &o->changed, err);
}

static int add_object(struct diff_summary *s, const struct diff_object *o, struct err *err)
{
	struct diff_object *more = realloc(s->objects, (s->n_objects + 1) * sizeof(*more));

	if (!more)
		return err_set(err, ERR_NOMEM, 0, "out of memory");
	s->objects = more;
	s->objects[s->n_objects] = *o;
	s->objects[s->n_objects].type = strdup(o->type);
	s->objects[s->n_objects].name = strdup(o->name);
	s->n_objects++;
	s->added += o->added;
	s->removed += o->removed;
	s->changed += o->changed;
	return 0;
}

static int compare_object(sqlite3 *db, sqlite3_stmt *row, struct diff_summary *ret, struct err *err)
{
	struct diff_object o = {.type = (char *)sqlite3_column_text(row, 0),
	                        .name = (char *)sqlite3_column_text(row, 1),
	                        .how = (enum diff_how)sqlite3_column_int(row, 2)};
	int rc = 0;

	if (strcmp(o.type, "table") == 0 && !sqlite3_column_int(row, 3))
		rc = compare_table(db, &o, err);
	if (rc || (o.how == DIFF_SAME && !o.added && !o.removed && !o.changed))
		return rc;
	return add_object(ret, &o, err);
}

static int compare(sqlite3 *db, struct diff_summary *ret, struct err *err)
{
	/* 0 same, 1 changed, 2 created, 3 dropped, as enum diff_how; a virtual table's rows lie in
	 * tables of their own. */
	static const char sql[] =
	        "WITH n AS (SELECT type, name FROM main.sqlite_schema UNION "
	        "SELECT type, name FROM after.sqlite_schema) "
	        "SELECT n.type, n.name, CASE WHEN a.name IS NULL THEN 2 WHEN b.name IS NULL THEN 3 "
	        "WHEN a.sql IS NOT b.sql THEN 1 ELSE 0 END, "
	        "coalesce(a.sql, b.sql) LIKE 'CREATE VIRTUAL%' "
	        "FROM n LEFT JOIN main.sqlite_schema a ON a.type = n.type AND a.name = n.name "
	        "LEFT JOIN after.sqlite_schema b ON b.type = n.type AND b.name = n.name "
	        "WHERE n.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY n.type, n.name";
	cleanup_stmt sqlite3_stmt *s = NULL;
	int step, rc = 0;

	if (sqlite3_prepare_v2(db, sql, -1, &s, NULL) != SQLITE_OK)
		return vfs_sqlite_error(db, err, "compare");
	while (!rc && (step = sqlite3_step(s)) == SQLITE_ROW)
		rc = compare_object(db, s, ret, err);
	if (!rc && step != SQLITE_DONE)
		rc = vfs_sqlite_error(db, err, "compare");
	return rc ? rc : vfs_error(db, err);
}

static struct vfs_image image_of(const struct restore_file *f)
{
	const struct restore_image *i = restore_file_image(f);

	return (struct vfs_image){
	        .ctx = i->ctx, .size_bytes = i->size_bytes, .read = i->read, .name = i->label};
}

int guard_compare(const struct restore_file *before, const struct restore_file *after,
                  struct diff_summary *ret, struct err *err)
{
	const struct vfs_image a = image_of(before), b = image_of(after);
	cleanup_vfs sqlite3 *db = NULL;
	int rc;

	*ret = (struct diff_summary){.objects = NULL};
	if ((rc = vfs_open(&a, &db, err)) || (rc = vfs_attach(db, "after", &b, err)))
		return rc;
	return compare(db, ret, err);
}
