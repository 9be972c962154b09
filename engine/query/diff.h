/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What differs between two images of a database, row by row: as numbers, or as SQL that turns the
 * one into the other.
 *
 * Rows are told apart by their key: the rowid, or the PRIMARY KEY of a WITHOUT ROWID table.  Two
 * rows are the same when all their values are, type and every bit included; generated columns are
 * left out.  A table whose CREATE statement changed is matched by key and by the columns that both
 * have; in SQL it is dropped and made anew.
 *
 * What is read: of two images of one history, only tables in whose b-trees a page differs, and of
 * tables with rowids only the rows that such pages hold.
 *
 * Memory does not grow with the rows.  Errors: DAMAGED (an image cannot be read, or is malformed),
 * NOT_FOUND (no such table), CANCELLED, SQL.
 */
#ifndef ASOF_QUERY_DIFF_H
#define ASOF_QUERY_DIFF_H

#include "engine/base/cleanup.h"
#include "engine/base/err.h"
#include "engine/view/history.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct diff_options {
	const char *table;        /* only this one; NULL: all */
	const _Atomic bool *stop; /* may be NULL; true ends it with CANCELLED */
};

enum diff_how { DIFF_SAME, DIFF_CHANGED, DIFF_CREATED, DIFF_DROPPED };

/* A table with rows that differ, or an index, view or trigger that does. */
struct diff_object {
	char *type; /* "table", "index", "view", "trigger" */
	char *name;
	enum diff_how how; /* of its CREATE statement */
	uint64_t added;    /* rows of `to` whose key `from` lacks */
	uint64_t removed;  /* the other way round */
	uint64_t changed;  /* same key, other values */
};

struct diff_summary {
	struct diff_object *objects; /* only what differs, by type and name */
	size_t n_objects;
	uint64_t added, removed, changed; /* of all tables */
};

/* The views stay the caller's. */
int diff_summarize(struct view *from, struct view *to, const struct diff_options *options,
                   struct diff_summary *ret, struct err *err) MUST_USE;
void diff_summary_release(struct diff_summary *s);

/* Takes a piece of the text; negative ends it with that. */
typedef int diff_write_fn(void *ctx, const char *text, size_t len, struct err *err);
/*
 * Writes one transaction of SQL.  Run on the image `from` it gives the content of `to`: every row
 * with its rowid, every CREATE statement, user_version and application_id.  Triggers and foreign
 * keys do not act meanwhile.  Nothing differs: only a comment.
 */
int diff_write_sql(struct view *from, struct view *to, const struct diff_options *options,
                   diff_write_fn *fn, void *ctx, struct err *err) MUST_USE;

#define cleanup_diff_summary CLEANUP(diff_summary_release)

#endif
