/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listings.  A bounded one is made when the folder is opened, so that it holds still while it
 * is read; with list=all commits are streamed, their txid (or time) being the cookie.
 *
 *   cookie 0 "."   1 ".."   2… the rest
 */
#include "fs/tree_i.h"

#include <string.h>

#define FIRST_COOKIE 2

struct row {
	char *name;
	uint64_t ino;
	bool is_dir;
};

struct fs_dir {
	struct fs_open open; /* first: see close_open() */
	struct fs_tree *tree;
	struct fs_node *node;
	bool stream;
	bool loaded;
	struct row *rows;
	size_t n, cap;
	struct fs_db **dbs; /* of a streamed at/ */
	size_t n_dbs;
};

static int add(struct fs_dir *d, const char *name, uint64_t ino, bool is_dir, struct err *err)
{
	if (d->n == d->cap) {
		size_t cap = d->cap ? d->cap * 2 : 32;
		struct row *rows = realloc(d->rows, cap * sizeof(*rows));
		if (!rows)
			return err_set(err, ERR_NOMEM, 0, "no memory for a listing");
		d->rows = rows;
		d->cap = cap;
	}
	struct row *row = &d->rows[d->n];
	*row = (struct row){.name = strdup(name), .ino = ino, .is_dir = is_dir};
	if (!row->name)
		return err_set(err, ERR_NOMEM, 0, "no memory for a listing");
	d->n++;
	return 0;
}

static int add_folder(struct fs_dir *d, const char *name, struct err *err)
{
	return add(d, name, fs_nodes_ino(d->node->ino, name, 0), true, err);
}

static void clear(struct fs_dir *d)
{
	for (size_t i = 0; i < d->n; i++)
		free(d->rows[i].name);
	free(d->rows);
	free(d->dbs);
	d->rows = NULL;
	d->dbs = NULL;
	d->n = d->cap = d->n_dbs = 0;
	d->loaded = false;
}

/* ---- what each kind of folder holds ---- */

static int list_fixed(struct fs_dir *d, struct err *err)
{
	bool raw = d->node->place.kind == FS_RAW;
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < fs_n_root_entries; i++) {
		const struct fs_fixed *f = &fs_root_entries[i];
		if (f->hidden || (raw && !f->raw))
			continue;
		rc = add(d, f->name, fs_nodes_ino(d->node->ino, f->name, 0), f->kind != FS_TEXT,
		         err);
	}
	return rc;
}

static int list_latest(struct fs_dir *d, struct err *err)
{
	struct fs_latest *latest cleanup_latest = NULL;
	double left;
	int rc = fs_dbs_latest(d->tree->dbs, &latest, &left, err);

	for (size_t i = 0; rc == 0 && i < latest->n; i++) {
		const struct fs_newest *row = &latest->rows[i];
		rc = add(d, row->db->name,
		         fs_tree_image_ino(row->db, row->moment.txid, d->node->place.raw), false,
		         err);
	}
	return rc;
}

/* Absent here is not an error; anything else is logged where it is looked up. */
static int list_moment(struct fs_dir *d, struct err *err)
{
	struct fs_db **all cleanup_free = NULL;
	size_t n = 0;
	int rc = fs_dbs_all(d->tree->dbs, &all, &n, err);

	for (size_t i = 0; rc == 0 && i < n; i++) {
		struct err why = ERR_INIT;
		struct moment m;
		uint64_t ino = 0;
		if (history_at(all[i]->history, d->node->place.time_us, clock_now_us(), &m, &why) ==
		    0)
			ino = fs_tree_image_ino(all[i], m.txid, d->node->place.raw);
		else if (why.kind == ERR_NOT_FOUND || why.kind == ERR_GAP)
			continue;
		/* What cannot be resolved is listed, so that it is missed aloud. */
		rc = add(d, all[i]->name, ino ? ino : 1, false, err);
	}
	return rc;
}

static int list_databases(struct fs_dir *d, struct err *err)
{
	struct fs_db **all cleanup_free = NULL;
	size_t n = 0;
	int rc = fs_dbs_all(d->tree->dbs, &all, &n, err);

	for (size_t i = 0; rc == 0 && i < n; i++)
		rc = add_folder(d, all[i]->name, err);
	return rc;
}

static int sample(struct fs_db *db, int64_t from_us, int64_t to_us, size_t max, struct moment *out,
                  size_t *ret_n, struct err *err)
{
	uint64_t total;
	struct err why = ERR_INIT;
	int rc = history_sample(db->history, from_us, to_us, max, out, ret_n, &total, &why);

	if (rc < 0 && why.kind == ERR_NOT_FOUND) {
		*ret_n = 0;
		return 0;
	}
	return rc < 0 ? err_copy(err, &why) : 0;
}

static int compare_times(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
	return x < y ? -1 : x > y;
}

/* Times of commits, evenly chosen among those of all databases. */
static int list_at(struct fs_dir *d, struct err *err)
{
	struct fs_db **all cleanup_free = NULL;
	struct moment moments[FS_LIST_MAX];
	size_t n_dbs = 0, n = 0, kept = 0;
	int rc = fs_dbs_all(d->tree->dbs, &all, &n_dbs, err);

	if (rc < 0 || n_dbs == 0)
		return rc;
	size_t max = fs_share(FS_WALK_AT, n_dbs + 1);
	if (max > FS_LIST_MAX)
		max = FS_LIST_MAX;
	int64_t *times cleanup_free = calloc(n_dbs * max, sizeof(int64_t));
	if (!times)
		return err_set(err, ERR_NOMEM, 0, "no memory for a listing");
	for (size_t i = 0; i < n_dbs; i++) {
		size_t got;
		rc = sample(all[i], TIME_MIN_US, TIME_MAX_US, max, moments, &got, err);
		if (rc < 0)
			return rc;
		for (size_t k = 0; k < got; k++)
			times[n++] = moments[k].time_us;
	}
	qsort(times, n, sizeof(times[0]), compare_times);
	for (size_t i = 0; i < n; i++)
		if (i == 0 || times[i] != times[kept - 1])
			times[kept++] = times[i];
	if (max > kept)
		max = kept;
	for (size_t i = 0; rc == 0 && i < max; i++) {
		char name[TIME_STR_MAX];
		time_format_name(times[fs_even(i, max, kept)], name);
		rc = add_folder(d, name, err);
	}
	return rc;
}

static void commit_name(const struct fs_dir *d, const struct moment *m, char out[FS_NAME_MAX])
{
	if (d->node->place.kind == FS_MINUTE)
		fs_name_format_commit(m->time_us, m->txid, out);
	else
		snprintf(out, FS_NAME_MAX, "%llu", (unsigned long long)m->txid);
}

/* tx/NAME/ and the lowest level of history/ */
static int list_commits(struct fs_dir *d, struct err *err)
{
	const struct fs_place *place = &d->node->place;
	struct moment moments[FS_LIST_MAX];
	int64_t from_us = TIME_MIN_US, to_us = TIME_MAX_US;
	size_t max, n = 0;
	int rc;

	if (place->kind == FS_MINUTE) {
		from_us = place->time_us;
		to_us = from_us + FS_MINUTE_US;
		rc = fs_span_max_commits(d->tree, d->node, &max, err);
	} else {
		rc = 0;
		max = fs_share(FS_WALK_TX, fs_dbs_count(d->tree->dbs));
	}
	if (max > FS_LIST_MAX)
		max = FS_LIST_MAX;
	if (rc == 0)
		rc = sample(place->db, from_us, to_us, max, moments, &n, err);
	for (size_t i = 0; rc == 0 && i < n; i++) {
		char name[FS_NAME_MAX];
		commit_name(d, &moments[i], name);
		rc = add(d, name, fs_tree_image_ino(place->db, moments[i].txid, place->raw), false,
		         err);
	}
	return rc;
}

static int list_spans(struct fs_dir *d, struct err *err)
{
	struct fs_times times = {0};
	int rc = fs_span_list(d->tree, d->node, &times, err);

	for (size_t i = 0; rc == 0 && i < times.n; i++) {
		char name[FS_NAME_MAX];
		struct civil c;
		civil_from_us(times.v[i], &c);
		if (d->node->place.kind == FS_DAYS)
			fs_name_format_day(times.v[i], name);
		else
			snprintf(name, sizeof(name), "%02d",
			         d->node->place.kind == FS_DAY ? c.hour : c.minute);
		rc = add_folder(d, name, err);
	}
	free(times.v);
	return rc;
}

/* Backups: the newest, when there are too many to show. */
static int list_backups(struct fs_dir *d, struct err *err)
{
	const struct fs_place *place = &d->node->place;
	struct fs_backup_set *set cleanup_backup_set = NULL;
	int rc = fs_backups_list(d->tree->backups, place->backup_type, &set, err);

	if (rc < 0)
		return rc;
	size_t from = 0, to = set->n;
	if (place->kind == FS_BACKUP_DAY)
		fs_backup_set_day(set, place->time_us, &from, &to);
	if (!d->tree->options.list_all && set->n > FS_LIST_BACKUPS_MAX &&
	    from < set->n - FS_LIST_BACKUPS_MAX)
		from = set->n - FS_LIST_BACKUPS_MAX;
	for (size_t i = from; rc == 0 && i < to; i++) {
		const struct fs_backup *row = &set->rows[i];
		char name[FS_NAME_MAX];
		struct fs_backup_stat st = {0};
		if (place->kind == FS_BACKUP_DAY) {
			/* One that has just gone, or cannot be read, is looked up in vain. */
			(void)!fs_backups_stat(d->tree->backups, place->backup_type, row->shown,
			                       row->gz, false, &st, NULL);
			rc = add(d, row->shown, fs_nodes_ino(d->node->ino, row->shown, st.version),
			         false, err);
		} else if (i == from || row->day_us != row[-1].day_us) {
			fs_name_format_day(row->day_us, name);
			rc = add_folder(d, name, err);
		}
	}
	return rc;
}

static int add_mark(void *ctx, const char *mark, struct err *err)
{
	return add_folder(ctx, mark, err);
}

static int list_mark(struct fs_dir *d, struct err *err)
{
	struct fs_db **all cleanup_free = NULL;
	size_t n = 0, max = d->tree->options.list_all ? SIZE_MAX : FS_WALK_MARKS;
	int rc = fs_dbs_all(d->tree->dbs, &all, &n, err);

	for (size_t i = 0; rc == 0 && i < n && d->n < max; i++) {
		struct err why = ERR_INIT;
		struct moment m;
		uint64_t ino = 0;
		if (fs_marks_moment(all[i], d->node->name, &m, &why) == 0)
			ino = fs_tree_image_ino(all[i], m.txid, d->node->place.raw);
		else if (why.kind == ERR_NOT_FOUND || why.kind == ERR_GAP)
			continue;
		rc = add(d, all[i]->name, ino ? ino : 1, false, err); /* as list_moment() */
	}
	return rc;
}

static int list_meta(struct fs_dir *d, struct err *err)
{
	struct fs_text *text cleanup_text = NULL;
	double left;
	int rc = fs_tree_status(d->tree, &text, &left, err);

	if (rc < 0)
		return rc;
	return add(d, "status.json", fs_nodes_ino(d->node->ino, "status.json", text->version),
	           false, err);
}

static int load(struct fs_dir *d, struct err *err)
{
	clear(d);
	d->loaded = true;
	if (d->stream)
		return d->node->place.kind == FS_AT
		               ? fs_dbs_all(d->tree->dbs, &d->dbs, &d->n_dbs, err)
		               : 0;
	switch (d->node->place.kind) {
	case FS_ROOT:
	case FS_RAW:
		return list_fixed(d, err);
	case FS_LATEST:
		return list_latest(d, err);
	case FS_AT:
		return list_at(d, err);
	case FS_MOMENT:
		return list_moment(d, err);
	case FS_TX:
	case FS_HISTORY:
		return list_databases(d, err);
	case FS_TX_DB:
	case FS_MINUTE:
		return list_commits(d, err);
	case FS_DAYS:
	case FS_DAY:
	case FS_HOUR:
		return list_spans(d, err);
	case FS_BACKUPS:
	case FS_BACKUP_DAY:
		return list_backups(d, err);
	case FS_META:
		return list_meta(d, err);
	case FS_MARKS:
		return fs_marks_list(d->tree, add_mark, d, err);
	case FS_MARK:
		return list_mark(d, err);
	case FS_TEXT:
	case FS_BACKUP_FILE:
	case FS_IMAGE:
		break;
	}
	return err_set(err, ERR_USAGE, 0, "not a folder");
}

/* ---- streams: -o list=all ---- */

/* The first moment of any database after the one that the cookie stands for. */
static int next_moment(struct fs_dir *d, uint64_t cookie, struct fs_dirent *ret, struct err *err)
{
	int64_t from_us = cookie == FIRST_COOKIE ? 0 : (int64_t)(cookie - FIRST_COOKIE);
	int64_t best_us = INT64_MAX;

	for (size_t i = 0; i < d->n_dbs; i++) {
		struct moment m;
		struct err why = ERR_INIT;
		if (history_after(d->dbs[i]->history, from_us, &m, &why) == 0) {
			if (m.time_us < best_us)
				best_us = m.time_us;
		} else if (why.kind != ERR_NOT_FOUND) {
			return err_copy(err, &why);
		}
	}
	if (best_us == INT64_MAX)
		return 0;
	time_format_name(best_us, ret->name);
	ret->is_dir = true;
	ret->ino = fs_nodes_ino(d->node->ino, ret->name, 0);
	ret->cookie = (uint64_t)best_us + 1 + FIRST_COOKIE;
	return 0;
}

static int next_commit(struct fs_dir *d, uint64_t cookie, struct fs_dirent *ret, struct err *err)
{
	const struct fs_place *place = &d->node->place;
	struct history *h = place->db->history;
	struct err why = ERR_INIT;
	struct moment m;
	int rc;

	if (cookie == FIRST_COOKIE && place->kind == FS_MINUTE)
		rc = history_after(h, place->time_us, &m, &why);
	else
		rc = history_next(h, cookie - FIRST_COOKIE, &m, &why);
	if (rc < 0)
		return why.kind == ERR_NOT_FOUND ? 0 : err_copy(err, &why);
	if (place->kind == FS_MINUTE && m.time_us >= place->time_us + FS_MINUTE_US)
		return 0;
	commit_name(d, &m, ret->name);
	ret->ino = fs_tree_image_ino(place->db, m.txid, place->raw);
	ret->cookie = m.txid + 1 + FIRST_COOKIE;
	return 0;
}

/* ---- reading a folder ---- */

static void close_open(struct fs_open *o)
{
	fs_dir_close((struct fs_dir *)o);
}

int fs_dir_open(struct fs_tree *t, uint64_t ino, struct fs_dir **ret, struct err *err)
{
	struct fs_dir *d = calloc(1, sizeof(*d));
	struct fs_place place;
	struct fs_node *node;
	int rc;

	if (!d)
		return err_set(err, ERR_NOMEM, 0, "no memory for an open folder");
	rc = fs_tree_place(t, ino, &place, &node, err);
	if (rc == 0) {
		d->tree = t;
		d->node = node;
		d->stream = t->options.list_all && (place.kind == FS_TX_DB || place.kind == FS_AT ||
		                                    place.kind == FS_MINUTE);
		rc = node ? load(d, err) : err_set(err, ERR_USAGE, 0, "not a folder");
	}
	if (rc < 0) {
		clear(d);
		free(d);
		return rc;
	}
	d->open.close = close_open;
	fs_tree_track(t, &d->open);
	*ret = d;
	return 0;
}

int fs_dir_next(struct fs_dir *d, uint64_t cookie, struct fs_dirent *ret, struct err *err)
{
	*ret = (struct fs_dirent){.cookie = cookie + 1};
	if (cookie < FIRST_COOKIE) {
		/* Back at the start after having been read: rewinddir() asks for news. */
		int rc = cookie == 0 && !d->loaded ? load(d, err) : 0;
		bool up = cookie == 1 && d->node->parent;
		memcpy(ret->name, "..", cookie + 2);
		ret->name[cookie + 1] = 0;
		ret->ino = up ? d->node->parent->ino : d->node->ino;
		ret->is_dir = true;
		return rc;
	}
	d->loaded = false;
	if (d->stream)
		return d->node->place.kind == FS_AT ? next_moment(d, cookie, ret, err)
		                                    : next_commit(d, cookie, ret, err);
	size_t i = (size_t)(cookie - FIRST_COOKIE);
	if (i >= d->n)
		return 0;
	snprintf(ret->name, sizeof(ret->name), "%s", d->rows[i].name);
	ret->ino = d->rows[i].ino;
	ret->is_dir = d->rows[i].is_dir;
	return 0;
}

void fs_dir_close(struct fs_dir *d)
{
	fs_tree_untrack(d->tree, &d->open);
	clear(d);
	free(d);
}
