/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/query/diff_i.h"

#include <string.h>

#define STEPS 20000 /* of SQLite's machine between two looks at `stop` */

bool is_internal(const char *name)
{
	return sqlite3_strnicmp(name, "sqlite_", 7) == 0;
}

static int out_of_memory(struct err *err)
{
	return err_set(err, ERR_NOMEM, 0, "no memory for the schema");
}

static char *copy_of(sqlite3_stmt *s, int column)
{
	const char *text = (const char *)sqlite3_column_text(s, column);

	return strdup(text ? text : "");
}

static int on_steps(void *ctx)
{
	const struct diff_options *o = ctx;

	return o->stop && *o->stop;
}

static int prepare(sqlite3 *db, const char *sql, const char *name, sqlite3_stmt **ret,
                   struct err *err)
{
	int code = sqlite3_prepare_v2(db, sql, -1, ret, NULL);

	if (code == SQLITE_OK && name)
		code = sqlite3_bind_text(*ret, 1, name, -1, SQLITE_STATIC);
	return code == SQLITE_OK ? 0 : vfs_sqlite_error(db, err, "read the schema");
}

static int add_column(struct table_info *t, sqlite3_stmt *s, struct err *err)
{
	char **more = realloc(t->columns, (t->n_columns + 1) * sizeof(*more));

	if (more)
		t->columns = more;
	if (!more || !(t->columns[t->n_columns] = copy_of(s, 0)))
		return out_of_memory(err);
	t->n_columns++;
	return 0;
}

static int add_key(struct table_info *t, size_t place, struct err *err)
{
	size_t *more = realloc(t->keys, (place > t->n_keys ? place : t->n_keys) * sizeof(*more));

	if (!more)
		return out_of_memory(err);
	t->keys = more;
	t->keys[place - 1] = t->n_columns - 1;
	if (place > t->n_keys)
		t->n_keys = place;
	return 0;
}

/* Columns; *ret_integer: the only key column is declared INTEGER. */
static int read_columns(sqlite3 *db, const char *name, struct table_info *t, bool *ret_integer,
                        struct err *err)
{
	cleanup_stmt sqlite3_stmt *s = NULL;
	int code, rc = prepare(db,
	                       "SELECT name, hidden, pk, type FROM pragma_table_xinfo(?1, 'main') "
	                       "ORDER BY cid",
	                       name, &s, err);

	*ret_integer = false;
	while (!rc && (code = sqlite3_step(s)) == SQLITE_ROW) {
		if (sqlite3_column_int(s, 1) != 0)
			continue; /* generated, or hidden */
		rc = add_column(t, s, err);
		int place = sqlite3_column_int(s, 2);
		if (rc || place <= 0)
			continue;
		*ret_integer =
		        t->n_keys == 0 &&
		        sqlite3_stricmp((const char *)sqlite3_column_text(s, 3), "INTEGER") == 0;
		rc = add_key(t, (size_t)place, err);
	}
	if (!rc && code != SQLITE_DONE)
		rc = vfs_sqlite_error(db, err, "columns of '%.100s'", name);
	return rc;
}

/* Whether there are unique indexes; *ret_pk: the PRIMARY KEY has one of its own. */
static int read_unique(sqlite3 *db, const char *name, bool *ret, bool *ret_pk, struct err *err)
{
	cleanup_stmt sqlite3_stmt *s = NULL;
	int code, rc = prepare(db,
	                       "SELECT origin FROM pragma_index_list(?1, 'main') WHERE \"unique\"",
	                       name, &s, err);

	*ret = *ret_pk = false;
	while (!rc && (code = sqlite3_step(s)) == SQLITE_ROW) {
		const char *origin = (const char *)sqlite3_column_text(s, 0);
		*ret = true;
		*ret_pk = *ret_pk || (origin && strcmp(origin, "pk") == 0);
	}
	if (!rc && code != SQLITE_DONE)
		rc = vfs_sqlite_error(db, err, "indexes of '%.100s'", name);
	return rc;
}

static const char *free_rowid_name(const struct table_info *t)
{
	static const char *const names[] = {"rowid", "_rowid_", "oid"};

	for (size_t k = 0; k < 3; k++) {
		bool taken = false;
		for (size_t i = 0; i < t->n_columns && !taken; i++)
			taken = sqlite3_stricmp(t->columns[i], names[k]) == 0;
		if (!taken)
			return names[k];
	}
	return NULL;
}

static int read_kind(sqlite3 *db, const char *name, struct table_info *t, struct err *err)
{
	cleanup_stmt sqlite3_stmt *s = NULL;
	int rc = prepare(db, "SELECT type, wr FROM pragma_table_list(?1) WHERE schema = 'main'",
	                 name, &s, err);

	if (rc)
		return rc;
	int code = sqlite3_step(s);
	if (code == SQLITE_DONE)
		return 0;
	if (code != SQLITE_ROW)
		return vfs_sqlite_error(db, err, "table '%.100s'", name);
	const char *type = (const char *)sqlite3_column_text(s, 0);
	t->is_virtual = type && strcmp(type, "virtual") == 0;
	t->is_shadow = type && strcmp(type, "shadow") == 0;
	t->without_rowid = sqlite3_column_int(s, 1) != 0;
	return 0;
}

static int read_table(sqlite3 *db, struct entry_info *e, struct err *err)
{
	struct table_info *t = &e->info;
	bool integer, pk_index;

	t->key = KEY_NONE;
	int rc = read_kind(db, e->name, t, err);
	if (rc || t->is_virtual)
		return rc;
	rc = read_columns(db, e->name, t, &integer, err);
	rc = rc ? rc : read_unique(db, e->name, &t->unique, &pk_index, err);
	if (rc)
		return rc;
	if (t->without_rowid) {
		cleanup_stmt sqlite3_stmt *s = NULL;
		t->key = KEY_PRIMARY;
		/* Its own index does not count. */
		rc = prepare(db,
		             "SELECT count(*) FROM pragma_index_list(?1, 'main') WHERE \"unique\" "
		             "AND origin <> 'pk'",
		             e->name, &s, err);
		if (!rc && sqlite3_step(s) == SQLITE_ROW)
			t->unique = sqlite3_column_int(s, 0) > 0;
		return rc;
	}
	if (t->n_keys == 1 && integer && !pk_index) {
		t->key = KEY_ALIAS;
		t->alias = t->keys[0];
		return 0;
	}
	t->rowid_name = free_rowid_name(t);
	if (t->rowid_name)
		t->key = KEY_ROWID;
	return 0;
}

static int add_entry(struct side *s, sqlite3_stmt *row, struct err *err)
{
	void *more = realloc(s->entries, (s->n_entries + 1) * sizeof(*s->entries));

	if (!more)
		return out_of_memory(err);
	s->entries = more;
	struct entry_info *e = &s->entries[s->n_entries++];
	*e = (struct entry_info){.type = copy_of(row, 0),
	                         .name = copy_of(row, 1),
	                         .table = copy_of(row, 2),
	                         .sql = copy_of(row, 3),
	                         .root = (uint32_t)sqlite3_column_int64(row, 4)};
	return e->type && e->name && e->table && e->sql ? 0 : out_of_memory(err);
}

int side_open(struct side *s, struct view *v, const struct diff_options *options, struct err *err)
{
	cleanup_stmt sqlite3_stmt *row = NULL;
	int code;

	*s = (struct side){.view = v};
	int rc = vfs_open_view(v, &s->db, err);
	if (rc)
		return rc;
	sqlite3_progress_handler(s->db, STEPS, on_steps, (void *)options);
	rc = prepare(s->db,
	             "SELECT type, name, tbl_name, sql, rootpage FROM sqlite_schema "
	             "WHERE sql IS NOT NULL ORDER BY type, name",
	             NULL, &row, err);
	while (!rc && (code = sqlite3_step(row)) == SQLITE_ROW)
		rc = add_entry(s, row, err);
	if (!rc && code != SQLITE_DONE)
		rc = vfs_sqlite_error(s->db, err, "read the schema");
	for (size_t i = 0; i < s->n_entries && !rc; i++)
		if (strcmp(s->entries[i].type, "table") == 0)
			rc = read_table(s->db, &s->entries[i], err);
	return rc;
}

static void table_release(struct table_info *t)
{
	for (size_t i = 0; i < t->n_columns; i++)
		free(t->columns[i]);
	free(t->columns);
	free(t->keys);
}

void side_release(struct side *s)
{
	for (size_t i = 0; i < s->n_entries; i++) {
		struct entry_info *e = &s->entries[i];
		free(e->type);
		free(e->name);
		free(e->table);
		free(e->sql);
		table_release(&e->info);
	}
	free(s->entries);
	vfs_close(s->db);
	*s = (struct side){0};
}

const struct entry_info *side_find(const struct side *s, const char *type, const char *name)
{
	for (size_t i = 0; i < s->n_entries; i++)
		if (strcmp(s->entries[i].type, type) == 0 && strcmp(s->entries[i].name, name) == 0)
			return &s->entries[i];
	return NULL;
}
