/* SPDX-License-Identifier: Apache-2.0 */
/* What lies in the archives and at the destinations of each database, as read from there. */
#include "engine/observe/facts_i.h"

#include "engine/archive/notes.h"
#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/base/hash.h"
#include "engine/ship/ship.h"

#include <fcntl.h>
#include <limits.h>
#include <string.h>

/* Whether the newest moment opens is looked at so often, for each of few databases; with many it
 * takes so much of a collection. */
#define RESTORABLE_EVERY_US (30 * US_PER_SECOND)
#define RESTORABLE_BUDGET_US (US_PER_SECOND / 5)

/* ---- histories that stay open ---- */

static void close_tracked(struct collecting *k, struct tracked *t)
{
	history_put(take_ptr(t->history));
	archives_put(k->archives, take_ptr(t->archive));
}

void facts_close_histories(struct collecting *k)
{
	for (size_t i = 0; i < k->n_tracked; i++)
		close_tracked(k, &k->tracked[i]);
}

static struct tracked *track(struct collecting *k, const char *root, const char *name)
{
	uint64_t key = hash64(name, strlen(name), hash64(root, strlen(root), 0));

	for (size_t i = 0; i < k->n_tracked; i++) {
		size_t at = (k->next_tracked + i) % k->n_tracked;
		struct tracked *t = &k->tracked[at];
		if (t->key == key && strcmp(t->name, name) == 0 && strcmp(t->root, root) == 0) {
			k->next_tracked = at + 1;
			return t;
		}
	}
	struct tracked *t = facts_add(&k->tracked, &k->n_tracked, sizeof(*t));
	if (t) {
		t->key = key;
		snprintf(t->root, sizeof(t->root), "%s", root);
		snprintf(t->name, sizeof(t->name), "%s", name);
	}
	return t;
}

/* A path that is gone, or is another folder by now, is not what is open. */
static int check_folder(struct collecting *k, struct tracked *t, bool *ret_there, struct err *err)
{
	char path[PATH_MAX];
	struct stat st;

	*ret_there = false;
	snprintf(path, sizeof(path), "%s/local", t->root);
	cleanup_fd int fd = open(t->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return err_set(err, ERR_IO, errno, "archive '%s'", t->root);
	snprintf(path, sizeof(path), "%s/local/%s", t->root, t->name);
	cleanup_fd int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (folder < 0 && errno == ENOENT) {
		close_tracked(k, t);
		return 0;
	}
	if (folder < 0 || fstat(folder, &st) < 0)
		return err_set(err, ERR_IO, errno, "archive '%s'", path);
	if (t->history && (st.st_ino != t->folder.st_ino || st.st_dev != t->folder.st_dev))
		close_tracked(k, t);
	t->folder = st;
	*ret_there = true;
	return 0;
}

static int open_tracked(struct collecting *k, struct tracked *t, struct err *err)
{
	if (t->history)
		return history_refresh(t->history, err);
	int rc = archives_get(k->archives, t->root, &t->archive, err);
	if (rc == 0)
		rc = history_get(t->archive, t->name, &t->history, err);
	if (rc < 0)
		close_tracked(k, t);
	return rc;
}

/* NOT_FOUND: there is no folder, or nothing in it that tells of a history yet. */
static int open_status(struct collecting *k, struct tracked *t, struct history_status *ret,
                       struct err *err)
{
	bool there;

	int rc = check_folder(k, t, &there, err);
	if (rc == 0 && !there)
		return err_set(err, ERR_NOT_FOUND, 0, "nothing is stored");
	rc = rc ? rc : open_tracked(k, t, err);
	return rc ? rc : history_get_status(t->history, ret, err);
}

/* With nothing that was read before: an archive handle of its own, the newest moment, its header
 * page. */
static int try_restorable(const char *root, const char *name, struct err *err)
{
	const struct archive_options options = {.cache_bytes = (size_t)256 << 10};
	cleanup_archive struct archive *a = NULL;
	cleanup_history struct history *h = NULL;
	cleanup_view struct view *v = NULL;
	struct moment m;
	uint8_t header[100];
	size_t len;

	int rc = archive_open(root, &options, &a, err);
	if (rc == 0)
		rc = history_get(a, name, &h, err);
	if (rc == 0)
		rc = history_latest(h, &m, err);
	if (rc == 0)
		rc = view_open(h, m.txid, &v, err);
	if (rc == 0)
		rc = view_read(v, 0, header, sizeof(header), 0, &len, err);
	return rc;
}

static void look_restorable(struct collecting *k, struct tracked *t)
{
	int64_t began_us = clock_mono_us(), now_us = clock_now_us();
	int64_t age_us = now_us - t->restorable_us;
	struct err why = ERR_INIT;

	if (t->restorable_us && age_us >= 0 && age_us < RESTORABLE_EVERY_US)
		return;
	if (t->restorable_us && k->restorable_budget_us <= 0)
		return; /* with the next collection */
	t->restorable = try_restorable(t->root, t->name, &why) == 0;
	snprintf(t->not_restorable, sizeof(t->not_restorable), "%.239s",
	         t->restorable ? "" : why.msg);
	t->restorable_us = now_us;
	k->restorable_budget_us -= clock_mono_us() - began_us;
}

/* ---- one history ---- */

/* Time of the first commit after what was verified.  Moments whose checksum is not known (the first
 * ones of a database that was written to meanwhile) cannot be compared with anything. */
static int64_t unverified_since(struct history *h, uint64_t through_txid)
{
	struct err ignored = ERR_INIT;
	struct moment m;

	if (history_latest(h, &m, &ignored) < 0 || m.txid <= through_txid ||
	    hash128_zero(m.state) || history_next(h, through_txid + 1, &m, &ignored) < 0)
		return 0;
	return m.time_us;
}

/* What capture went on behind is known without verification, and tells more. */
static void take_lost(struct history *h, struct health_verified *ret)
{
	struct damage first;

	while (history_lost(h, ret->damaged, &first, NULL) == 0)
		ret->damaged++;
	if (ret->damaged && history_lost(h, 0, &first, NULL) == 0)
		history_lost_text(&first, ret->damage, sizeof(ret->damage));
}

static void take_verified(struct history *h, struct health_verified *ret)
{
	struct err ignored = ERR_INIT;
	struct verified_note n;

	take_lost(h, ret);
	if (history_get_verified(h, &n, &ignored) < 0) {
		ret->unverified_since_us = unverified_since(h, 0);
		return;
	}
	/* Of a database at rest a run reads what is new, and there is nothing. */
	if (n.at_us < n.objects_at_us)
		n.at_us = n.objects_at_us;
	ret->through_txid = n.through_txid;
	ret->through_us = n.through_us;
	ret->at_us = n.at_us;
	ret->full_at_us = n.full_at_us;
	ret->integrity_at_us = n.integrity_at_us;
	snprintf(ret->integrity, sizeof(ret->integrity), "%.239s", n.integrity);
	if (!ret->damaged)
		snprintf(ret->damage, sizeof(ret->damage), "%.239s", n.damage);
	if (n.damaged > ret->damaged)
		ret->damaged = n.damaged;
	ret->unverified_since_us = unverified_since(h, n.through_txid);
}

static void take_gap(struct history *h, uint64_t gaps, struct health_database *d)
{
	struct err ignored = ERR_INIT;
	struct gap g;

	if (gaps && history_gap(h, (size_t)gaps - 1, &g, &ignored) == 0)
		d->last_gap_us = g.after_us;
}

static int read_stored(struct collecting *k, struct tracked *t, struct health_database *d,
                       struct err *err)
{
	struct history_status s;

	int rc = open_status(k, t, &s, err);
	if (rc < 0)
		return rc == -(int)ERR_NOT_FOUND ? 0 : rc;
	d->stored = s.last_txid != 0;
	d->first_txid = s.first_txid;
	d->last_txid = s.last_txid;
	d->first_us = s.first_us;
	d->last_us = s.last_us;
	d->known_until_us = s.known_until_us;
	d->lineage = s.lineage;
	d->gaps = s.gaps;
	d->stored_bytes = s.archive_bytes;
	d->unsealed_bytes = s.unsealed_bytes;
	d->n_snapshots = s.n_snapshots;
	d->n_segments = s.n_segments;
	d->n_coalesced = s.n_coalesced;
	take_gap(t->history, s.gaps, d);
	take_verified(t->history, &d->verified);
	if (!d->stored)
		return 0;
	look_restorable(k, t);
	d->restorable_at_us = t->restorable ? t->restorable_us : 0;
	memcpy(d->not_restorable, t->not_restorable, sizeof(d->not_restorable));
	return 0;
}

/* ---- destinations ---- */

static int64_t schedule_interval_us(const struct schedule *s)
{
	switch (s->kind) {
	case SCHEDULE_OFF:
		return 0;
	case SCHEDULE_EVERY:
		return s->every_us;
	default: /* of the clock: at least once a day is what people write */
		return 24 * 3600 * US_PER_SECOND;
	}
}

static void take_behind(const struct tracked *local, const struct health_database *db,
                        struct health_destination *d)
{
	struct err ignored = ERR_INIT;
	struct moment m;

	if (!db->stored || d->replicated_txid >= db->last_txid || !local->history)
		return;
	if (history_next(local->history, d->replicated_txid + 1, &m, &ignored) == 0)
		d->behind_since_us = m.time_us;
}

static int64_t changed_us(int dir_fd, const char *name)
{
	struct stat st;

	if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	return st.st_ctim.tv_sec * US_PER_SECOND + st.st_ctim.tv_nsec / 1000;
}

/* When something last came to a folder of objects, and to those in it. */
static int64_t newest_change_us(int dir_fd, const char *name, int depth)
{
	int64_t newest_us = changed_us(dir_fd, name), us;
	int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	cleanup_dir DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *d;

	if (!dir && fd >= 0)
		close(fd);
	while (dir && (d = readdir(dir))) {
		if (d->d_name[0] == '.')
			continue;
		us = depth > 0 ? newest_change_us(dirfd(dir), d->d_name, depth - 1)
		               : changed_us(dirfd(dir), d->d_name);
		newest_us = us > newest_us ? us : newest_us;
	}
	return newest_us;
}

static int read_folder(struct collecting *k, struct tracked *t, struct health_destination *d,
                       struct err *err)
{
	struct history_status s;

	int rc = open_status(k, t, &s, err);
	if (rc < 0)
		return rc == -(int)ERR_NOT_FOUND ? 0 : rc;
	d->replicated_txid = s.last_txid;
	d->replicated_us = s.last_us;
	d->stored_bytes = s.archive_bytes;
	take_verified(t->history, &d->verified);
	return 0;
}

/* The first copy of a history: nothing can be restored from there, and files come. */
static void take_progress(const struct tracked *t, struct health_destination *d)
{
	char path[PATH_MAX];

	if (d->replicated_txid)
		return;
	snprintf(path, sizeof(path), "%s/local/%s", t->root, t->name);
	d->progress_us = newest_change_us(AT_FDCWD, path, 1);
}

/* Of a store: what the daemon keeps of it beside the history.  It is not verified by the clock. */
static void read_shipped(const struct config_destination *c, const struct health_database *db,
                         struct health_destination *d)
{
	struct ship_status s;
	struct err why = ERR_INIT;

	d->verify_every_us = 0;
	int rc = ship_status_read(db->archive, db->name, c->url, &s, &why);
	if (rc < 0) {
		if (why.kind != ERR_NOT_FOUND)
			snprintf(d->unreadable, sizeof(d->unreadable), "%.239s", why.msg);
		return;
	}
	d->replicated_txid = s.replicated_txid;
	d->replicated_us = s.replicated_us;
	d->progress_us = s.progress_us;
	d->stored_bytes = s.stored_bytes;
	d->fenced = s.fenced;
	d->trouble_us = s.trouble_us;
	snprintf(d->trouble, sizeof(d->trouble), "%.239s", s.trouble_us ? s.trouble : "");
}

static int read_destination(struct collecting *k, const struct config_destination *c,
                            const struct health_database *db, size_t local,
                            struct health_destination *d, struct err *err)
{
	struct err why = ERR_INIT;

	snprintf(d->name, sizeof(d->name), "%s", c->name);
	snprintf(d->url, sizeof(d->url), "%.*s", (int)strcspn(c->url, "?"), c->url);
	d->sync_interval_us = c->sync_interval_us;
	d->verify_every_us = schedule_interval_us(&c->verify);
	if (c->not_configured)
		snprintf(d->not_configured, sizeof(d->not_configured), "%.239s", c->not_configured);
	if (d->not_configured[0])
		return 0;
	if (c->type != CONFIG_DEST_FILE) {
		read_shipped(c, db, d);
		take_behind(&k->tracked[local], db, d);
		return 0;
	}
	struct tracked *t = track(k, c->url, db->name);
	if (!t)
		return err_set(err, ERR_NOMEM, 0, "no memory");
	t->seen = true;
	if (read_folder(k, t, d, &why) < 0)
		snprintf(d->unreadable, sizeof(d->unreadable), "%.239s", why.msg);
	take_progress(t, d);
	take_behind(&k->tracked[local], db, d);
	return 0;
}

/* ---- all of them ---- */

static void stat_files(struct health_database *d)
{
	char wal[HEALTH_PATH_MAX + 8];
	struct stat st;

	if (stat(d->path, &st) < 0)
		return;
	d->exists = true;
	d->db_bytes = (uint64_t)st.st_size;
	snprintf(wal, sizeof(wal), "%s-wal", d->path);
	d->wal_bytes = stat(wal, &st) == 0 ? (uint64_t)st.st_size : 0;
}

static int read_database(struct collecting *k, const struct config *config,
                         struct health_database *d, struct err *err)
{
	const struct config_database *c = facts_config_of(config, d->path);
	struct tracked *t = track(k, d->archive, d->name);
	struct err why = ERR_INIT;

	if (!t)
		return err_set(err, ERR_NOMEM, 0, "no memory");
	t->seen = true;
	stat_files(d);
	if (read_stored(k, t, d, &why) < 0)
		snprintf(d->unreadable, sizeof(d->unreadable), "%.239s", why.msg);
	if (!c)
		return 0;
	d->verify_every_us = schedule_interval_us(&c->verify);
	if (c->n_destinations == 0)
		return 0;
	d->destinations = calloc(c->n_destinations, sizeof(*d->destinations));
	if (!d->destinations)
		return err_set(err, ERR_NOMEM, 0, "no memory");
	d->n_destinations = c->n_destinations;
	size_t local = (size_t)(t - k->tracked);
	int rc = 0;
	for (size_t i = 0; i < c->n_destinations && rc == 0; i++)
		rc = read_destination(k, &c->destinations[i], d, local, &d->destinations[i], err);
	return rc;
}

static void forget_unseen(struct collecting *k)
{
	struct tracked *kept = NULL;
	size_t n = 0;

	for (size_t i = 0; i < k->n_tracked; i++)
		n += !k->tracked[i].seen;
	if (n == 0)
		return;
	n = 0;
	for (size_t i = 0; i < k->n_tracked; i++) {
		struct tracked *to =
		        k->tracked[i].seen ? facts_add(&kept, &n, sizeof(*kept)) : NULL;
		if (to)
			*to = k->tracked[i];
		else
			close_tracked(k, &k->tracked[i]);
	}
	free(k->tracked);
	k->tracked = kept;
	k->n_tracked = n;
}

int facts_read_histories(struct collecting *k, const struct config *config, struct health_facts *f,
                         struct err *err)
{
	int rc = 0;

	k->restorable_budget_us = RESTORABLE_BUDGET_US;
	for (size_t i = 0; i < k->n_tracked; i++)
		k->tracked[i].seen = false;
	for (size_t i = 0; i < f->n_databases && rc == 0; i++)
		rc = read_database(k, config, &f->databases[i], err);
	if (rc == 0)
		forget_unseen(k);
	return rc;
}
