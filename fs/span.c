/* SPDX-License-Identifier: Apache-2.0 */
/*
 * history/NAME/: days, hours and minutes that hold commits, and how many of them a listing
 * shows.
 *
 * A budget flows down.  A database may show B = FS_WALK_HISTORY / databases entries; a folder
 * with a budget of b lists at most as many children as leaves each of them enough for one
 * complete path below, and hands b / children - 1 to each.  So a walk of history/NAME meets
 * at most B entries whatever the history, and short histories are shown in full.
 */
#include "fs/tree_i.h"

#include <string.h>

/* What a path takes at least: a day with one hour, one minute, one commit, and so on. */
#define COST_DAY 4
#define COST_HOUR 3
#define COST_MINUTE 2

int64_t fs_span_us(enum fs_kind kind)
{
	switch (kind) {
	case FS_DAY:
		return FS_DAY_US;
	case FS_HOUR:
		return FS_HOUR_US;
	case FS_MINUTE:
		return FS_MINUTE_US;
	default:
		return 0;
	}
}

/* The first commit at or after a time; false in *ret_any: there is none. */
static int after(struct fs_db *db, int64_t time_us, struct moment *m, bool *ret_any,
                 struct err *err)
{
	struct err why = ERR_INIT;
	int rc = history_after(db->history, time_us, m, &why);

	*ret_any = rc == 0;
	return rc == 0 || why.kind == ERR_NOT_FOUND ? 0 : err_copy(err, &why);
}

int fs_span_holds(struct fs_db *db, int64_t from_us, int64_t length_us, bool *ret, struct err *err)
{
	struct moment m;
	bool any;
	int rc = after(db, from_us, &m, &any, err);

	*ret = rc == 0 && any && m.time_us < from_us + length_us;
	return rc;
}

static int64_t floor_to(int64_t v, int64_t step)
{
	return v - (v % step + step) % step;
}

static int append(struct fs_times *times, size_t *cap, int64_t v, struct err *err)
{
	if (times->n == *cap) {
		size_t more = *cap ? *cap * 2 : 64;
		int64_t *p = realloc(times->v, more * sizeof(int64_t));
		if (!p)
			return err_set(err, ERR_NOMEM, 0, "no memory for a list of times");
		times->v = p;
		*cap = more;
	}
	times->v[times->n++] = v;
	return 0;
}

/* Beginnings of the spans of `step_us` within [from_us, to_us) that hold a commit. */
static int find_spans(struct fs_db *db, int64_t from_us, int64_t to_us, int64_t step_us,
                      struct fs_times *ret, struct err *err)
{
	size_t cap = ret->n;

	for (int64_t at = from_us; at < to_us; at += step_us) {
		struct moment m;
		bool any;
		int rc = after(db, at, &m, &any, err);
		if (rc < 0)
			return rc;
		if (!any || m.time_us >= to_us)
			return 0;
		at = floor_to(m.time_us, step_us);
		rc = append(ret, &cap, at, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/*
 * All days of a database, up to date; under days_lock.  Kept with it: a history of years has
 * thousands, and only its end grows.  Begun anew when the beginning was taken away.
 */
static int renew_days(struct fs_db *db, const struct moment *first, const struct moment *last,
                      struct err *err)
{
	struct fs_times days = {db->days, db->n_days};
	int64_t from_us = floor_to(first->time_us, FS_DAY_US);

	if (db->days_first_txid == first->txid && db->days_last_txid == last->txid)
		return 0;
	if (db->days_first_txid != first->txid)
		days.n = 0;
	else if (days.n)
		from_us = days.v[days.n - 1] + FS_DAY_US;
	int rc = find_spans(db, from_us, last->time_us + 1, FS_DAY_US, &days, err);
	db->days = days.v;
	db->n_days = rc < 0 ? 0 : days.n;
	db->days_first_txid = rc < 0 ? 0 : first->txid;
	db->days_last_txid = last->txid;
	return rc;
}

/* How many days there are, and with `ret_days` a copy of them. */
static int all_days(struct fs_db *db, size_t *ret_n, int64_t **ret_days, struct err *err)
{
	struct moment first, last;
	struct err why = ERR_INIT;
	int rc = history_first(db->history, &first, &why);

	*ret_n = 0;
	if (rc == 0)
		rc = history_latest(db->history, &last, &why);
	if (rc < 0)
		return why.kind == ERR_NOT_FOUND ? 0 : err_copy(err, &why);
	LOCK_SCOPE(&db->days_lock);
	rc = renew_days(db, &first, &last, err);
	if (rc < 0 || !ret_days || !db->n_days) {
		*ret_n = db->n_days;
		return rc;
	}
	*ret_days = malloc(db->n_days * sizeof(int64_t));
	if (!*ret_days)
		return err_set(err, ERR_NOMEM, 0, "no memory for a list of days");
	memcpy(*ret_days, db->days, db->n_days * sizeof(int64_t));
	*ret_n = db->n_days;
	return 0;
}

/* All children of a folder. */
static int all_children(struct fs_node *node, struct fs_times *ret, struct err *err)
{
	const struct fs_place *place = &node->place;

	*ret = (struct fs_times){0};
	if (place->kind == FS_DAYS)
		return all_days(place->db, &ret->n, &ret->v, err);
	return find_spans(place->db, place->time_us, place->time_us + fs_span_us(place->kind),
	                  place->kind == FS_DAY ? FS_HOUR_US : FS_MINUTE_US, ret, err);
}

static int count_children(struct fs_node *node, size_t *ret, struct err *err)
{
	struct fs_times all = {0};
	struct moment last;

	*ret = atomic_load(&node->n_children_settled);
	if (*ret)
		return 0;
	if (node->place.kind == FS_DAYS)
		return all_days(node->place.db, ret, NULL, err);
	int rc = history_latest(node->place.db->history, &last, err);
	if (rc == 0)
		rc = all_children(node, &all, err);
	free(all.v);
	*ret = all.n;
	/* Once commits go on beyond a span, there will be no more in it. */
	if (rc == 0 && last.time_us >= node->place.time_us + fs_span_us(node->place.kind))
		atomic_store(&node->n_children_settled, (uint32_t)all.n);
	return rc;
}

static size_t min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* How many of `n` children a folder with this budget lists. */
static size_t n_listed(enum fs_kind kind, size_t budget, size_t n)
{
	if (kind == FS_DAYS)
		return min_size(min_size(n, FS_LIST_DAYS_MAX), fs_share(budget, COST_DAY));
	return min_size(n, fs_share(budget, kind == FS_DAY ? COST_HOUR : COST_MINUTE));
}

static int budget_of(struct fs_tree *t, struct fs_node *node, size_t *ret, struct err *err)
{
	if (node->place.kind == FS_DAYS) {
		*ret = fs_share(FS_WALK_HISTORY, fs_dbs_count(t->dbs));
		return 0;
	}
	size_t above = 0, n = 0;
	int rc = budget_of(t, node->parent, &above, err);
	if (rc == 0)
		rc = count_children(node->parent, &n, err);
	if (rc < 0)
		return rc;
	size_t share = fs_share(above, n_listed(node->parent->place.kind, above, n));
	*ret = share > 1 ? share - 1 : 1;
	return 0;
}

int fs_span_list(struct fs_tree *t, struct fs_node *node, struct fs_times *ret, struct err *err)
{
	size_t budget;
	int rc = all_children(node, ret, err);

	if (rc == 0 && !t->options.list_all && ret->n) {
		rc = budget_of(t, node, &budget, err);
		if (rc == 0) {
			size_t k = n_listed(node->place.kind, budget, ret->n);
			for (size_t i = 0; i < k; i++)
				ret->v[i] = ret->v[fs_even(i, k, ret->n)];
			ret->n = k;
		}
	}
	if (rc < 0) {
		free(ret->v);
		*ret = (struct fs_times){0};
	}
	return rc;
}

int fs_span_max_commits(struct fs_tree *t, struct fs_node *node, size_t *ret, struct err *err)
{
	int rc = budget_of(t, node, ret, err);

	*ret = min_size(rc < 0 ? 0 : *ret, FS_LIST_MAX);
	return rc;
}
