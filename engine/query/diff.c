/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/query/diff_i.h"

#include <string.h>

int diff_open(struct diff *d, struct view *from, struct view *to,
              const struct diff_options *options, struct err *err)
{
	*d = (struct diff){.options = options};
	int rc = side_open(&d->from, from, options, err);
	rc = rc ? rc : side_open(&d->to, to, options, err);
	if (!rc && options->table && !side_find(&d->from, "table", options->table) &&
	    !side_find(&d->to, "table", options->table))
		rc = err_set(err, ERR_NOT_FOUND, 0, "no table '%.100s' at either moment",
		             options->table);
	return rc ? rc : page_map_new(d, &d->map, err);
}

void diff_close(struct diff *d)
{
	page_map_free(d->map);
	side_release(&d->from);
	side_release(&d->to);
}

/* Whether anything of it is asked for. */
bool diff_wants(const struct diff *d, const struct entry_info *e)
{
	return !d->options->table || strcmp(e->table, d->options->table) == 0;
}

/* ---- counting ---- */

static int count_row(void *ctx, enum row_change change, sqlite3_stmt *from, sqlite3_stmt *to,
                     struct err *err)
{
	struct diff_object *o = ctx;

	o->added += change == ROW_ADDED;
	o->removed += change == ROW_REMOVED;
	o->changed += change == ROW_CHANGED;
	return 0;
}

static int count_as_removed(void *ctx, enum row_change change, sqlite3_stmt *from, sqlite3_stmt *to,
                            struct err *err)
{
	((struct diff_object *)ctx)->removed++;
	return 0;
}

int diff_count(struct diff *d, const struct entry_info *from, const struct entry_info *to,
               struct diff_object *o, struct err *err)
{
	cleanup_ranges struct ranges ranges = {.all = true};
	const struct entry_info *any = from ? from : to;

	if (strcmp(any->type, "table") != 0 || (from && from->info.is_virtual) ||
	    (to && to->info.is_virtual))
		return 0;
	if (!from)
		return rows_all(&d->to, to, count_row, o, err);
	if (!to)
		return rows_all(&d->from, from, count_as_removed, o, err);
	int rc = strcmp(from->sql, to->sql) == 0 ? page_map_ranges(d, from, to, &ranges, err) : 0;
	return rc ? rc : rows_compare(d, from, to, &ranges, count_row, o, err);
}

static enum diff_how how_of(const struct entry_info *from, const struct entry_info *to)
{
	return !from                             ? DIFF_CREATED
	       : !to                             ? DIFF_DROPPED
	       : strcmp(from->sql, to->sql) != 0 ? DIFF_CHANGED
	                                         : DIFF_SAME;
}

static int add_object(struct diff_summary *s, const struct entry_info *e,
                      const struct diff_object *o, struct err *err)
{
	struct diff_object *more = realloc(s->objects, (s->n_objects + 1) * sizeof(*more));

	if (more)
		s->objects = more;
	if (more) {
		more[s->n_objects] = *o;
		more[s->n_objects].type = strdup(e->type);
		more[s->n_objects].name = strdup(e->name);
		s->n_objects++;
	}
	if (!more || !more[s->n_objects - 1].type || !more[s->n_objects - 1].name)
		return err_set(err, ERR_NOMEM, 0, "no memory for the differences");
	s->added += o->added;
	s->removed += o->removed;
	s->changed += o->changed;
	return 0;
}

static int summarize_one(struct diff *d, const struct entry_info *from, const struct entry_info *to,
                         struct diff_summary *s, struct err *err)
{
	const struct entry_info *any = from ? from : to;
	struct diff_object o = {.how = how_of(from, to)};

	/* What SQLite keeps for itself (sqlite_sequence, statistics) follows from the rest. */
	if (!diff_wants(d, any) || is_internal(any->name))
		return 0;
	int rc = diff_count(d, from, to, &o, err);
	if (rc || (o.how == DIFF_SAME && !o.added && !o.removed && !o.changed))
		return rc;
	return add_object(s, any, &o, err);
}

static int by_name(const void *a, const void *b)
{
	const struct diff_object *x = a, *y = b;
	int c = strcmp(x->type, y->type);

	return c ? c : strcmp(x->name, y->name);
}

int diff_summarize(struct view *from, struct view *to, const struct diff_options *options,
                   struct diff_summary *ret, struct err *err)
{
	CLEANUP(diff_close) struct diff d = {.map = NULL};

	*ret = (struct diff_summary){0};
	int rc = diff_open(&d, from, to, options, err);
	for (size_t i = 0; i < d.from.n_entries && !rc; i++) {
		const struct entry_info *e = &d.from.entries[i];
		rc = summarize_one(&d, e, side_find(&d.to, e->type, e->name), ret, err);
	}
	for (size_t i = 0; i < d.to.n_entries && !rc; i++) {
		const struct entry_info *e = &d.to.entries[i];
		if (!side_find(&d.from, e->type, e->name))
			rc = summarize_one(&d, NULL, e, ret, err);
	}
	rc = rc ? rc : vfs_error(d.from.db, err);
	rc = rc ? rc : vfs_error(d.to.db, err);
	if (rc) {
		diff_summary_release(ret);
		return rc;
	}
	if (ret->n_objects)
		qsort(ret->objects, ret->n_objects, sizeof(*ret->objects), by_name);
	return 0;
}

void diff_summary_release(struct diff_summary *s)
{
	for (size_t i = 0; i < s->n_objects; i++) {
		free(s->objects[i].type);
		free(s->objects[i].name);
	}
	free(s->objects);
	*s = (struct diff_summary){0};
}
