/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two locks.  `lock` guards the arrays and is held for look-ups only; `renew` is held while
 * the archive is asked, by one thread at a time: others answer from what there is.
 */
#include "fs/dbs.h"

#include "engine/base/clock.h"
#include "engine/base/log.h"

#include <string.h>

struct fs_dbs {
	struct archive *archive;
	pthread_mutex_t renew; /* taken before `lock` */
	char **refused;        /* names that could not be opened and were logged; under renew */
	size_t n_refused;
	pthread_mutex_t lock;
	struct fs_db **by_name; /* sorted; under lock, as is all below */
	struct fs_db **by_id;   /* sorted */
	size_t n, cap;
	int64_t listed_mono_us; /* 0: never */
	struct fs_latest *latest;
};

int fs_dbs_new(struct archive *a, struct fs_dbs **ret, struct err *err)
{
	struct fs_dbs *dbs = calloc(1, sizeof(*dbs));

	if (!dbs)
		return err_set(err, ERR_NOMEM, 0, "no memory for the list of databases");
	dbs->archive = a;
	pthread_mutex_init(&dbs->renew, NULL);
	pthread_mutex_init(&dbs->lock, NULL);
	*ret = dbs;
	return 0;
}

static void free_db(struct fs_db *db)
{
	if (db->history)
		history_put(db->history);
	pthread_mutex_destroy(&db->days_lock);
	free(db->days);
	free(db);
}

void fs_dbs_free(struct fs_dbs *dbs)
{
	if (!dbs)
		return;
	if (dbs->latest)
		fs_latest_unref(dbs->latest);
	for (size_t i = 0; i < dbs->n; i++)
		free_db(dbs->by_name[i]);
	for (size_t i = 0; i < dbs->n_refused; i++)
		free(dbs->refused[i]);
	free(dbs->refused);
	free(dbs->by_name);
	free(dbs->by_id);
	pthread_mutex_destroy(&dbs->lock);
	pthread_mutex_destroy(&dbs->renew);
	free(dbs);
}

/* Where `name` is or would be. */
static size_t place_by_name(const struct fs_dbs *dbs, const char *name, bool *found)
{
	size_t lo = 0, hi = dbs->n;

	*found = false;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		int c = strcmp(dbs->by_name[mid]->name, name);
		if (c == 0) {
			*found = true;
			return mid;
		}
		if (c < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static size_t place_by_id(const struct fs_dbs *dbs, uint32_t id)
{
	size_t lo = 0, hi = dbs->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (dbs->by_id[mid]->id < id)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

struct fs_db *fs_dbs_by_id(struct fs_dbs *dbs, uint32_t id)
{
	LOCK_SCOPE(&dbs->lock);
	size_t i = place_by_id(dbs, id);
	return i < dbs->n && dbs->by_id[i]->id == id ? dbs->by_id[i] : NULL;
}

static int make_room(struct fs_dbs *dbs, struct err *err)
{
	if (dbs->n < dbs->cap)
		return 0;
	size_t cap = dbs->cap ? dbs->cap * 2 : 16;
	struct fs_db **p = realloc(dbs->by_name, cap * sizeof(struct fs_db *));
	if (p)
		dbs->by_name = p;
	struct fs_db **q = p ? realloc(dbs->by_id, cap * sizeof(struct fs_db *)) : NULL;
	if (!q)
		return err_set(err, ERR_NOMEM, 0, "no memory for the list of databases");
	dbs->by_id = q;
	dbs->cap = cap;
	return 0;
}

static int add_db(struct fs_dbs *dbs, struct fs_db *db, struct err *err)
{
	LOCK_SCOPE(&dbs->lock);
	bool found;
	int rc = make_room(dbs, err);

	if (rc < 0)
		return rc;
	size_t i = place_by_id(dbs, db->id);
	/* Ids are random: the second of two that share one does without. */
	if (i < dbs->n && dbs->by_id[i]->id == db->id)
		i = place_by_id(dbs, db->id = 0);
	memmove(dbs->by_id + i + 1, dbs->by_id + i, (dbs->n - i) * sizeof(struct fs_db *));
	dbs->by_id[i] = db;
	i = place_by_name(dbs, db->name, &found);
	memmove(dbs->by_name + i + 1, dbs->by_name + i, (dbs->n - i) * sizeof(struct fs_db *));
	dbs->by_name[i] = db;
	dbs->n++;
	db->present = true;
	return 0;
}

/* Under `renew`. */
static int open_db(struct fs_dbs *dbs, const char *name, struct err *err)
{
	size_t len = strlen(name);
	struct fs_db *db = calloc(1, sizeof(*db) + len + 1);

	if (!db)
		return err_set(err, ERR_NOMEM, 0, "no memory for database '%s'", name);
	memcpy(db->name, name, len);
	pthread_mutex_init(&db->days_lock, NULL);
	int rc = history_get(dbs->archive, name, &db->history, err);
	if (rc == 0) {
		db->id = history_id(db->history);
		rc = add_db(dbs, db, err);
	}
	if (rc < 0)
		free_db(db);
	return rc;
}

static void log_refused(struct fs_dbs *dbs, const char *name, const struct err *why)
{
	for (size_t i = 0; i < dbs->n_refused; i++)
		if (strcmp(dbs->refused[i], name) == 0)
			return;
	char **more = realloc(dbs->refused, (dbs->n_refused + 1) * sizeof(char *));
	if (more) {
		dbs->refused = more;
		if ((more[dbs->n_refused] = strdup(name)))
			dbs->n_refused++;
	}
	log_error("fs", "database left out of listings db=%s kind=%s why=%s", name,
	          err_kind_name(why->kind), why->msg);
}

/* Under `renew`.  Takes the archive's list; what cannot be opened is left out. */
static int relist(struct fs_dbs *dbs, struct err *err)
{
	char **names cleanup_free = NULL;
	size_t n;
	int rc = archive_list(dbs->archive, &names, &n, err);

	if (rc < 0)
		return rc;
	pthread_mutex_lock(&dbs->lock);
	for (size_t i = 0; i < dbs->n; i++)
		dbs->by_name[i]->present = false;
	pthread_mutex_unlock(&dbs->lock);
	for (size_t i = 0; i < n; i++) {
		bool found;
		pthread_mutex_lock(&dbs->lock);
		size_t at = place_by_name(dbs, names[i], &found);
		if (found)
			dbs->by_name[at]->present = true;
		pthread_mutex_unlock(&dbs->lock);
		struct err why = ERR_INIT;
		if (!found && open_db(dbs, names[i], &why) < 0)
			log_refused(dbs, names[i], &why);
	}
	pthread_mutex_lock(&dbs->lock);
	dbs->listed_mono_us = clock_mono_us();
	pthread_mutex_unlock(&dbs->lock);
	return 0;
}

static bool list_is_fresh(struct fs_dbs *dbs)
{
	LOCK_SCOPE(&dbs->lock);
	return dbs->listed_mono_us && clock_mono_us() - dbs->listed_mono_us < FS_TICK_US;
}

static int relist_if_stale(struct fs_dbs *dbs, struct err *err)
{
	if (list_is_fresh(dbs))
		return 0;
	LOCK_SCOPE(&dbs->renew);
	return list_is_fresh(dbs) ? 0 : relist(dbs, err);
}

static struct fs_db *find_present(struct fs_dbs *dbs, const char *name)
{
	LOCK_SCOPE(&dbs->lock);
	bool found;
	size_t i = place_by_name(dbs, name, &found);
	return found && dbs->by_name[i]->present ? dbs->by_name[i] : NULL;
}

/* One that is there but could not be opened: opens it now, or says why not. */
static int retry_refused(struct fs_dbs *dbs, const char *name, struct err *err)
{
	LOCK_SCOPE(&dbs->renew);
	if (find_present(dbs, name))
		return 0;
	for (size_t i = 0; i < dbs->n_refused; i++)
		if (strcmp(dbs->refused[i], name) == 0)
			return open_db(dbs, name, err);
	return 0;
}

int fs_dbs_find(struct fs_dbs *dbs, const char *name, struct fs_db **ret, struct err *err)
{
	/* One that is known needs no list; one that has gone is noticed within a listing. */
	if ((*ret = find_present(dbs, name)))
		return 0;
	int rc = relist_if_stale(dbs, err);
	if (rc < 0)
		return rc;
	if ((*ret = find_present(dbs, name)))
		return 0;
	rc = retry_refused(dbs, name, err);
	if (rc < 0 || (*ret = find_present(dbs, name)))
		return rc;
	return err_set(err, ERR_NOT_FOUND, 0, "no database '%s' in '%s'", name,
	               archive_root(dbs->archive));
}

static int copy_present(struct fs_dbs *dbs, struct fs_db ***ret, size_t *ret_n, struct err *err)
{
	LOCK_SCOPE(&dbs->lock);
	struct fs_db **all = calloc(dbs->n + 1, sizeof(struct fs_db *));
	if (!all)
		return err_set(err, ERR_NOMEM, 0, "no memory for the list of databases");
	size_t n = 0;
	for (size_t i = 0; i < dbs->n; i++)
		if (dbs->by_name[i]->present)
			all[n++] = dbs->by_name[i];
	*ret = all;
	*ret_n = n;
	return 0;
}

int fs_dbs_all(struct fs_dbs *dbs, struct fs_db ***ret, size_t *ret_n, struct err *err)
{
	int rc = relist_if_stale(dbs, err);

	return rc < 0 ? rc : copy_present(dbs, ret, ret_n, err);
}

static struct fs_db *nth(struct fs_dbs *dbs, size_t i)
{
	LOCK_SCOPE(&dbs->lock);
	return i < dbs->n ? dbs->by_name[i] : NULL;
}

void fs_dbs_refresh(struct fs_dbs *dbs)
{
	struct fs_db *db;

	/* One that is met meanwhile can make this skip another, until the next time. */
	for (size_t i = 0; (db = nth(dbs, i)); i++) {
		struct err ignored = ERR_INIT; /* who wants something of it is told */
		if (history_refresh(db->history, &ignored) < 0)
			continue;
	}
}

size_t fs_dbs_count(struct fs_dbs *dbs)
{
	LOCK_SCOPE(&dbs->lock);
	return dbs->n;
}

/* ---- latest ---- */

void fs_latest_unref(struct fs_latest *latest)
{
	if (atomic_fetch_sub(&latest->n_refs, 1) == 1)
		free(latest);
}

const struct fs_newest *fs_latest_find(const struct fs_latest *latest, const char *name)
{
	size_t lo = 0, hi = latest->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		int c = strcmp(latest->rows[mid].db->name, name);
		if (c == 0)
			return &latest->rows[mid];
		if (c < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return NULL;
}

/* Under `renew`. */
static int make_latest(struct fs_dbs *dbs, struct fs_latest **ret, struct err *err)
{
	struct fs_db **all cleanup_free = NULL;
	size_t n;
	int rc = relist(dbs, err);

	if (rc == 0)
		rc = copy_present(dbs, &all, &n, err);
	if (rc < 0)
		return rc;
	struct fs_latest *set = calloc(1, sizeof(*set) + n * sizeof(set->rows[0]));
	if (!set)
		return err_set(err, ERR_NOMEM, 0, "no memory for the newest states");
	set->n_refs = 1;
	for (size_t i = 0; i < n; i++) {
		struct err why = ERR_INIT;
		struct fs_newest *row = &set->rows[set->n];
		row->db = all[i];
		rc = history_refresh(all[i]->history, &why);
		if (rc == 0)
			rc = history_latest(all[i]->history, &row->moment, &why);
		if (rc == 0)
			set->n++;
		else if (why.kind != ERR_NOT_FOUND)
			log_error("fs", "no newest state db=%s kind=%s why=%s", all[i]->name,
			          err_kind_name(why.kind), why.msg);
	}
	set->made_us = clock_now_us();
	set->made_mono_us = clock_mono_us();
	*ret = set;
	return 0;
}

static struct fs_latest *current_latest(struct fs_dbs *dbs, bool even_if_stale)
{
	LOCK_SCOPE(&dbs->lock);
	struct fs_latest *set = dbs->latest;

	if (!set || (!even_if_stale && clock_mono_us() - set->made_mono_us >= FS_TICK_US))
		return NULL;
	atomic_fetch_add(&set->n_refs, 1);
	return set;
}

static int renew_latest(struct fs_dbs *dbs, struct fs_latest **ret, struct err *err)
{
	/* Another thread is at it: the old set will do, if there is one. */
	if (pthread_mutex_trylock(&dbs->renew) != 0) {
		if ((*ret = current_latest(dbs, true)))
			return 0;
		pthread_mutex_lock(&dbs->renew);
	}
	pthread_mutex_t *held CLEANUP(cleanup_unlock_) = &dbs->renew;
	(void)held;
	if ((*ret = current_latest(dbs, false)))
		return 0;
	struct fs_latest *set;
	int rc = make_latest(dbs, &set, err);
	if (rc < 0)
		return rc;
	LOCK_SCOPE(&dbs->lock);
	if (dbs->latest)
		fs_latest_unref(dbs->latest);
	dbs->latest = set;
	atomic_fetch_add(&set->n_refs, 1);
	*ret = set;
	return 0;
}

int fs_dbs_latest(struct fs_dbs *dbs, struct fs_latest **ret, double *ret_seconds_left,
                  struct err *err)
{
	*ret = current_latest(dbs, false);
	if (!*ret) {
		int rc = renew_latest(dbs, ret, err);
		if (rc < 0)
			return rc;
	}
	int64_t left = FS_TICK_US - (clock_mono_us() - (*ret)->made_mono_us);
	*ret_seconds_left = left > 0 ? (double)left / (double)US_PER_SECOND : 0;
	return 0;
}
