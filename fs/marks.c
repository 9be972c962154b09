/* SPDX-License-Identifier: Apache-2.0 */
/* marks/: moments that people named, each a folder of the databases that have it. */
#include "fs/tree_i.h"

#include <string.h>

struct named {
	char name[sizeof(((struct mark *)0)->name)];
	int64_t made_us;
};

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct named *)a)->name, ((const struct named *)b)->name);
}

static int newest_first(const void *a, const void *b)
{
	const struct named *x = a, *y = b;

	if (x->made_us != y->made_us)
		return x->made_us < y->made_us ? 1 : -1;
	return strcmp(x->name, y->name);
}

/* Adds the marks of one database. */
static int gather(struct fs_db *db, struct named **all, size_t *n, struct err *err)
{
	cleanup_free struct mark *marks = NULL;
	size_t more = 0;

	int rc = history_marks(db->history, &marks, &more, err);
	if (rc < 0 || more == 0)
		return rc;
	struct named *p = realloc(*all, (*n + more) * sizeof(*p));
	if (!p)
		return err_set(err, ERR_NOMEM, 0, "no memory to list marks");
	*all = p;
	for (size_t i = 0; i < more; i++) {
		struct named *to = &p[(*n)++];
		*to = (struct named){.made_us = marks[i].made_us};
		snprintf(to->name, sizeof(to->name), "%s", marks[i].name);
	}
	return 0;
}

/* One of each name, with the latest time at which it was made. */
static size_t unite(struct named *all, size_t n)
{
	size_t kept = 0;

	if (n)
		qsort(all, n, sizeof(*all), by_name);
	for (size_t i = 0; i < n; i++) {
		if (kept == 0 || strcmp(all[kept - 1].name, all[i].name) != 0)
			all[kept++] = all[i];
		else if (all[kept - 1].made_us < all[i].made_us)
			all[kept - 1].made_us = all[i].made_us;
	}
	return kept;
}

int fs_marks_list(struct fs_tree *t, fs_marks_fn *fn, void *ctx, struct err *err)
{
	struct fs_db **dbs cleanup_free = NULL;
	cleanup_free struct named *all = NULL;
	size_t n_dbs = 0, n = 0, max;

	int rc = fs_dbs_all(t->dbs, &dbs, &n_dbs, err);
	for (size_t i = 0; i < n_dbs && rc == 0; i++)
		rc = gather(dbs[i], &all, &n, err);
	if (rc < 0)
		return rc;
	n = unite(all, n);
	max = fs_share(FS_WALK_MARKS, n_dbs + 1);
	if (n > max && !t->options.list_all) { /* those made last */
		qsort(all, n, sizeof(*all), newest_first);
		n = max;
		qsort(all, n, sizeof(*all), by_name);
	}
	for (size_t i = 0; i < n && rc == 0; i++)
		rc = fn(ctx, all[i].name, err);
	return rc;
}

int fs_marks_moment(struct fs_db *db, const char *mark, struct moment *ret, struct err *err)
{
	struct mark m;

	int rc = history_mark(db->history, mark, &m, err);
	return rc < 0 ? rc : history_tx(db->history, m.txid, ret, err);
}

int fs_marks_exists(struct fs_tree *t, const char *mark, bool *ret, struct err *err)
{
	struct fs_db **dbs cleanup_free = NULL;
	size_t n = 0;

	*ret = false;
	int rc = fs_dbs_all(t->dbs, &dbs, &n, err);
	for (size_t i = 0; i < n && rc == 0 && !*ret; i++) {
		struct err why = ERR_INIT;
		struct mark m;
		*ret = history_mark(dbs[i]->history, mark, &m, &why) == 0;
		if (!*ret && why.kind != ERR_NOT_FOUND)
			rc = err_copy(err, &why);
	}
	return rc;
}
