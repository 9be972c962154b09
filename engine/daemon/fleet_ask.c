/* SPDX-License-Identifier: Apache-2.0 */
/* What other threads ask of a fleet: how it is, orders, everything captured. */
#include "engine/daemon/fleet_i.h"

#include "engine/archive/names.h"
#include "engine/base/clock.h"
#include "engine/base/lock.h"

#include <string.h>
#include <sys/stat.h>

/* ---- members; under the lock ---- */

static struct member *find_id(struct fleet *f, uint64_t id)
{
	for (struct member *m = f->members; m; m = m->next)
		if (m->id == id)
			return m;
	return NULL;
}

static int no_such(struct fleet *f, const char *which, struct err *err)
{
	char names[200] = "";
	size_t len = 0;

	for (struct member *m = f->members; m && len < sizeof(names) - 1; m = m->next)
		if (m->wanted)
			len += (size_t)snprintf(names + len, sizeof(names) - len, "%s%s",
			                        len ? ", " : "", m->want.name);
	return err_set(err, ERR_NOT_FOUND, 0, "no database '%.100s' is replicated here (%s%.180s)",
	               which, len ? "there are: " : "there is none", names);
}

static bool is_file(const char *path, const struct stat *file)
{
	struct stat st;

	return stat(path, &st) == 0 && st.st_dev == file->st_dev && st.st_ino == file->st_ino;
}

/* One name in several archives stands for the first.  What has a slash is no name: a path, or
 * another path of the same file. */
static int find(struct fleet *f, const char *which, struct member **ret, struct err *err)
{
	struct stat st;
	bool file = strchr(which, '/') && stat(which, &st) == 0;

	*ret = NULL;
	for (struct member *m = f->members; m && !*ret; m = m->next)
		if (m->wanted &&
		    (strcmp(m->want.name, which) == 0 || strcmp(m->want.path, which) == 0))
			*ret = m;
	for (struct member *m = f->members; file && m && !*ret; m = m->next)
		if (m->wanted && is_file(m->want.path, &st))
			*ret = m;
	return *ret ? 0 : no_such(f, which, err);
}

/* ---- for other threads ---- */

static void get_entry(struct member *m, struct fleet_entry *ret)
{
	snprintf(ret->name, sizeof(ret->name), "%s", m->want.name);
	snprintf(ret->path, sizeof(ret->path), "%s", m->want.path);
	snprintf(ret->archive, sizeof(ret->archive), "%s", m->want.archive);
	ret->status = (struct database_status){.state = DATABASE_ENDED};
	ret->config = m->config;
	if (m->database)
		database_get_status(m->database, &ret->status);
}

bool fleet_get(struct fleet *f, size_t i, struct fleet_entry *ret)
{
	LOCK_SCOPE(&f->lock);
	struct member *m = f->members;

	while (m && i--)
		m = m->next;
	if (m)
		get_entry(m, ret);
	return m;
}

bool fleet_find(struct fleet *f, const char *path, struct fleet_entry *ret)
{
	LOCK_SCOPE(&f->lock);
	struct member *m = fleet_find_path(f, path);

	if (m)
		get_entry(m, ret);
	return m;
}

void fleet_count(struct fleet *f, struct fleet_counts *ret)
{
	struct database_status st;
	LOCK_SCOPE(&f->lock);

	*ret = (struct fleet_counts){.settled = true};
	for (struct member *m = f->members; m; m = m->next) {
		if (!m->database)
			continue;
		database_get_status(m->database, &st);
		ret->all++;
		ret->replicating += st.state == DATABASE_REPLICATING;
		ret->failed += st.state == DATABASE_FAILED;
		ret->paused += st.state == DATABASE_PAUSED;
		ret->waiting += st.state == DATABASE_WAITING;
		if (st.state == DATABASE_OPENING || st.state == DATABASE_CLOSING ||
		    (st.state == DATABASE_WAITING && !st.reason[0]))
			ret->settled = false;
	}
}

int fleet_pause(struct fleet *f, const char *which, uint64_t *ret_id, struct err *err)
{
	struct member *m;
	LOCK_SCOPE(&f->lock);
	int rc = find(f, which, &m, err);

	if (rc < 0)
		return rc;
	*ret_id = m->id;
	m->pause = true;
	if (m->database)
		database_pause(m->database);
	return 0;
}

int fleet_resume(struct fleet *f, const char *which, struct err *err)
{
	struct member *m;
	LOCK_SCOPE(&f->lock);
	int rc = find(f, which, &m, err);

	if (rc < 0)
		return rc;
	m->pause = false;
	if (m->database)
		database_resume(m->database);
	return 0;
}

/* That of all databases, if it is one; NULL: there is none, or several. */
static const char *common_archive(const struct fleet *f)
{
	const char *archive = NULL;

	for (const struct member *m = f->members; m; m = m->next) {
		if (archive && strcmp(m->want.archive, archive) != 0)
			return NULL;
		archive = m->want.archive;
	}
	return archive;
}

int fleet_add(struct fleet *f, const char *path, const char *name, const char *archive,
              struct err *err)
{
	LOCK_SCOPE(&f->lock);
	const char *to = archive ? archive : f->config ? f->config->archive : NULL;

	to = to ? to : common_archive(f);
	if (path[0] != '/')
		return err_set(err, ERR_USAGE, 0, "'%.100s' is no absolute path", path);
	if (!to || to[0] != '/')
		return err_set(err, ERR_USAGE, 0,
		               "no archive for '%.100s' (name one by --archive, or give the "
		               "configuration an `archive:`)",
		               path);
	const struct wanted w = {.path = (char *)(uintptr_t)path,
	                         .archive = (char *)(uintptr_t)to,
	                         .name = (char *)(uintptr_t)(name ? name : fleet_last_part(path))};
	int rc = db_name_check(w.name, err);
	if (rc < 0)
		return rc;
	struct member *m = fleet_find_path(f, path);
	if (m && m->wanted)
		return err_set(err, ERR_EXISTS, 0, "'%.200s' is replicated already", path);
	if (m)
		m->seen = m->dropped = false;
	rc = fleet_want(f, BY_HAND, &w, NULL, err);
	f->look_now = true;
	return rc;
}

int fleet_drop(struct fleet *f, const char *which, uint64_t *ret_id, struct err *err)
{
	struct member *m;
	LOCK_SCOPE(&f->lock);
	int rc = find(f, which, &m, err);

	if (rc < 0)
		return rc;
	*ret_id = m->id;
	m->dropped = m->origin != BY_HAND;
	m->wanted = m->pause = false; /* added again, it shall run */
	if (m->database)
		database_stop(m->database);
	return 0;
}

bool fleet_let_go(struct fleet *f, uint64_t id)
{
	struct database_status st;
	LOCK_SCOPE(&f->lock);
	struct member *m = find_id(f, id);

	if (!m || !m->database || (m->wanted && !m->pause)) /* gone, or meanwhile wanted again */
		return true;
	database_get_status(m->database, &st);
	return st.state == DATABASE_PAUSED || st.state == DATABASE_ENDED;
}

/* ---- sync ---- */

/* Of a database that is just being opened, or closed to be opened again, it is asked later. */
static bool comes_soon(struct database *d)
{
	struct database_status st;

	database_get_status(d, &st);
	return st.state == DATABASE_OPENING || st.state == DATABASE_CLOSING ||
	       (st.state == DATABASE_WAITING && !st.reason[0]);
}

static int begin_one(struct member *m, struct fleet_sync_one *one, struct err *err)
{
	int rc = database_sync_begin(m->database, &one->sync, err);

	one->begun = rc == 0;
	if (rc < 0 && comes_soon(m->database))
		rc = err_set(err, ERR_BUSY, 0, "'%s': not yet", m->is.name);
	return rc;
}

int fleet_sync_begin(struct fleet *f, const char *which, struct fleet_sync *ret, struct err *err)
{
	struct member *m;
	struct err why = ERR_INIT;
	int rc = 0;
	LOCK_SCOPE(&f->lock);

	*ret = (struct fleet_sync){0};
	ret->ones = calloc(f->n_members + 1, sizeof(*ret->ones));
	if (!ret->ones)
		return err_set(err, ERR_NOMEM, 0, "no memory");
	if (which) {
		rc = find(f, which, &m, err);
		if (rc == 0 && !m->database)
			rc = err_set(err, ERR_CANCELLED, 0, "'%s' is not being replicated", which);
		ret->ones[0].id = rc == 0 ? m->id : 0;
		if (rc == 0)
			rc = begin_one(m, &ret->ones[ret->n++], err);
		rc = err_kind_of(rc) == ERR_BUSY ? 0 : rc;
	}
	for (m = which ? NULL : f->members; m; m = m->next) {
		struct fleet_sync_one *one = &ret->ones[ret->n];
		one->id = m->id;
		/* Others are not replicated now: there is nothing to wait for. */
		if (m->database && begin_one(m, one, &why) != -ERR_CANCELLED)
			ret->n++;
	}
	if (rc < 0)
		fleet_sync_release(ret);
	return rc;
}

static int sync_one(struct member *m, struct fleet_sync_one *one, struct err *err)
{
	int rc = one->begun ? database_sync(m->database, &one->sync, err) : -ERR_CANCELLED;

	/* A break meanwhile: what comes after it covers what was asked for. */
	if (err_kind_of(rc) == ERR_CANCELLED) {
		rc = begin_one(m, one, err);
		rc = rc == 0 ? err_set(err, ERR_BUSY, 0, "'%s': not yet", m->is.name) : rc;
	}
	return rc;
}

int fleet_sync(struct fleet *f, struct fleet_sync *s, struct err *err)
{
	LOCK_SCOPE(&f->lock);

	for (size_t i = 0; i < s->n; i++) {
		struct fleet_sync_one *one = &s->ones[i];
		struct member *m = one->done ? NULL : find_id(f, one->id);
		if (one->done)
			continue;
		if (!m || !m->database)
			return err_set(err, ERR_CANCELLED, 0, "a database was dropped meanwhile");
		int rc = sync_one(m, one, err);
		if (rc < 0)
			return rc;
		one->done = true;
	}
	return 0;
}

void fleet_sync_release(struct fleet_sync *s)
{
	free(s->ones);
	*s = (struct fleet_sync){0};
}

int fleet_sync_left_out(struct fleet *f, struct err *err)
{
	struct database_status s;
	struct stat st;
	LOCK_SCOPE(&f->lock);

	for (struct member *m = f->members; m; m = m->next) {
		if (!m->wanted || !m->database)
			continue;
		database_get_status(m->database, &s);
		/* Where there is no file yet, or an empty one, nothing was committed. */
		if (s.state == DATABASE_REPLICATING || comes_soon(m->database) ||
		    (s.state == DATABASE_WAITING &&
		     (stat(m->want.path, &st) < 0 || st.st_size == 0)))
			continue;
		return err_set(err, ERR_CANCELLED, 0,
		               "'%.200s' is not being replicated (%s%s%.200s)", m->want.name,
		               database_state_name(s.state), s.reason[0] ? ": " : "", s.reason);
	}
	return 0;
}
