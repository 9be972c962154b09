/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of query/ share.  Not for others. */
#ifndef ASOF_QUERY_DIFF_I_H
#define ASOF_QUERY_DIFF_I_H

#include "engine/base/bitset.h"
#include "engine/base/buf.h"
#include "engine/query/diff.h"
#include "engine/view/vfs.h"

#include <string.h>

/* How rows of a table are told apart. */
enum key {
	KEY_ALIAS,   /* INTEGER PRIMARY KEY: the rowid under a column's name */
	KEY_ROWID,   /* the rowid, under one of its names */
	KEY_PRIMARY, /* WITHOUT ROWID: the PRIMARY KEY */
	KEY_NONE,    /* a rowid whose names are all taken by other columns; virtual tables */
};

struct table_info {
	bool without_rowid, is_virtual, is_shadow;
	enum key key;
	const char *rowid_name; /* KEY_ROWID */
	char **columns;         /* stored ones, without generated ones */
	size_t n_columns;
	size_t alias; /* KEY_ALIAS: index into columns */
	size_t *keys; /* KEY_PRIMARY: indexes into columns */
	size_t n_keys;
	bool unique; /* a UNIQUE constraint or index beside the key */
};

/* A row of sqlite_schema that has SQL. */
struct entry_info {
	char *type, *name, *table, *sql;
	uint32_t root;
	struct table_info info; /* of a table */
};

struct side {
	struct view *view;
	sqlite3 *db;
	struct entry_info *entries; /* sorted by type, then name */
	size_t n_entries;
};

struct range {
	int64_t first, last;
};
/* Which rows of a table can differ. */
struct ranges {
	bool all;
	struct range *r; /* in order, apart from each other */
	size_t n, cap;
};

struct page_map; /* pages.c */

/* A b-tree page, as a walk comes to it.  `data` is NULL where the walk need not read it: leaves.
 * Keys of a table's leaf lie in [first, last].  Negative ends the walk with that. */
struct btree_page {
	uint32_t pgno;
	bool leaf, index;
	const uint8_t *data;
	int64_t first, last;
};
typedef int btree_fn(void *ctx, const struct btree_page *page, struct err *err);

struct diff {
	struct side from, to;
	const struct diff_options *options;
	struct page_map *map; /* NULL: nothing is known of pages */
};

/* ---- diff.c ---- */
int diff_open(struct diff *d, struct view *from, struct view *to,
              const struct diff_options *options, struct err *err) MUST_USE;
void diff_close(struct diff *d);
bool diff_wants(const struct diff *d, const struct entry_info *e);
/* Adds the rows that differ to *o; one of the two may be NULL. */
int diff_count(struct diff *d, const struct entry_info *from, const struct entry_info *to,
               struct diff_object *o, struct err *err) MUST_USE;

/* ---- schema.c ---- */
int side_open(struct side *s, struct view *v, const struct diff_options *options,
              struct err *err) MUST_USE;
void side_release(struct side *s);
const struct entry_info *side_find(const struct side *s, const char *type, const char *name);
bool is_internal(const char *name); /* sqlite_… */

/* ---- btree.c: the b-trees of an image, by page; DAMAGED where one is malformed ---- */
struct btree_image {
	struct view *view;
	uint32_t page_size, usable, n_pages;
};
int btree_image_of(struct view *v, struct btree_image *ret, struct err *err) MUST_USE;
/* Every page of the tree, without reading its leaves. */
int btree_walk(const struct btree_image *im, uint32_t root, btree_fn *fn, void *ctx,
               struct err *err) MUST_USE;
typedef int page_fn(void *ctx, uint32_t pgno, struct err *err);
/* The overflow pages of all cells of a b-tree page. */
int btree_overflow(const struct btree_image *im, uint32_t pgno, page_fn *fn, void *ctx,
                   struct err *err) MUST_USE;
/* Pages that are free, or that tell where others belong (ptrmap), and the lock page. */
int btree_no_tree(const struct btree_image *im, page_fn *fn, void *ctx, struct err *err) MUST_USE;

/* ---- pages.c: what need not be looked at ---- */
int page_map_new(struct diff *d, struct page_map **ret, struct err *err) MUST_USE;
void page_map_free(struct page_map *m);
/* Of a table with the same CREATE statement on both sides. */
int page_map_ranges(struct diff *d, const struct entry_info *from, const struct entry_info *to,
                    struct ranges *ret, struct err *err) MUST_USE;
int ranges_add(struct ranges *r, int64_t first, int64_t last, struct err *err) MUST_USE;
void ranges_release(struct ranges *r);
#define cleanup_ranges CLEANUP(ranges_release)

/* ---- rows.c ---- */
enum row_change { ROW_ADDED, ROW_REMOVED, ROW_CHANGED };
/* The statements stand on the rows; the one that has none is NULL.  Column 0 is the rowid of a
 * KEY_ROWID table, and then the table's columns follow; else they are all there is. */
typedef int row_fn(void *ctx, enum row_change change, sqlite3_stmt *from, sqlite3_stmt *to,
                   struct err *err);
/* The bits of a number, to be compared: 0.0 is not -0.0. */
static inline uint64_t real_bits(double v)
{
	uint64_t bits;

	memcpy(&bits, &v, sizeof(bits));
	return bits;
}
/* The same type, and every bit. */
bool rows_same_value(sqlite3_stmt *a, int i, sqlite3_stmt *b, int k);
/* Every row that differs; tables whose keys are of another kind have no rows in common. */
int rows_compare(struct diff *d, const struct entry_info *from, const struct entry_info *to,
                 const struct ranges *ranges, row_fn *fn, void *ctx, struct err *err) MUST_USE;
/* Every row, as added. */
int rows_all(struct side *s, const struct entry_info *t, row_fn *fn, void *ctx,
             struct err *err) MUST_USE;

/* ---- text.c ---- */
struct text {
	struct buf buf;
	diff_write_fn *fn;
	void *ctx;
	sqlite3_stmt *reads; /* SELECT CAST(?1 AS REAL): how SQLite reads a number */
};
int text_open(struct text *t, sqlite3 *db, diff_write_fn *fn, void *ctx, struct err *err) MUST_USE;
void text_release(struct text *t);
int text_put(struct text *t, struct err *err, const char *fmt, ...)
        __attribute__((format(printf, 3, 4))) MUST_USE;
/* "name", with quotes doubled. */
int text_name(struct text *t, const char *name, struct err *err) MUST_USE;
/* A value as an expression that gives exactly it. */
int text_value(struct text *t, sqlite3_stmt *s, int column, struct err *err) MUST_USE;
/* A CREATE statement: as it stands, and a semicolon. */
int text_statement(struct text *t, const char *sql, struct err *err) MUST_USE;
int text_flush(struct text *t, struct err *err) MUST_USE;

#endif
