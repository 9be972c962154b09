/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/restore/restore_i.h"

#include "engine/base/cleanup.h"
#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- which commit ---- */

static void describe(const struct moment *m, char *out, size_t out_bytes)
{
	char when[TIME_STR_MAX];

	time_format(m->time_us, when);
	snprintf(out, out_bytes, "txid %" PRIu64 " of %s", m->txid, when);
}

static int no_such_txid(struct history *h, uint64_t txid, struct err *err)
{
	struct moment before, after;
	char a[80], b[80];
	int rc = history_latest(h, &before, err);

	if (rc)
		return rc;
	if (txid > before.txid) {
		describe(&before, a, sizeof(a));
		return err_set(err, ERR_NOT_FOUND, 0,
		               "'%s' has no txid %" PRIu64 ": the newest is %s", history_name(h),
		               txid, a);
	}
	rc = history_next(h, txid, &after, err);
	if (rc)
		return rc;
	describe(&after, b, sizeof(b));
	return err_set(err, ERR_NOT_FOUND, 0, "'%s' has no txid %" PRIu64 ": the next one is %s",
	               history_name(h), txid, b);
}

static int in_the_future(struct history *h, struct err *err)
{
	struct moment last;
	char a[80];
	int rc = history_latest(h, &last, err);

	if (rc)
		return rc;
	describe(&last, a, sizeof(a));
	return err_set(err, ERR_NOT_FOUND, 0,
	               "the time lies in the future (the newest of '%s' is %s)", history_name(h),
	               a);
}

int restore_resolve(struct history *h, const struct restore_point *point, int64_t now_us,
                    struct moment *ret, struct err *err)
{
	struct err why = ERR_INIT;
	int rc;

	switch (point->pick) {
	case RESTORE_LATEST:
		return history_latest(h, ret, err);
	case RESTORE_AT:
		if (point->time_us > now_us)
			return in_the_future(h, err);
		return history_at(h, point->time_us, now_us, ret, err);
	case RESTORE_TX:
		rc = history_tx(h, point->txid, ret, &why);
		if (err_kind_of(rc) == ERR_NOT_FOUND)
			return no_such_txid(h, point->txid, err);
		return rc ? err_copy(err, &why) : 0;
	}
	return err_set(err, ERR_USAGE, 0, "no such way to choose a commit");
}

/* ---- the temporary file ---- */

struct tmp_file {
	const struct place *place;
	char name[RESTORE_NAME_MAX];
	char path[PATH_MAX + 32];
	int fd; /* locked for as long as it is written */
	bool there;
};

static void tmp_release(struct tmp_file *t)
{
	if (t->there)
		unlinkat(t->place->dir_fd, t->name, 0);
	if (t->fd >= 0)
		close(t->fd);
}

/* Whether the name still stands for the file that we hold. */
static bool tmp_is_ours(const struct tmp_file *t)
{
	struct stat a, b;

	return fstat(t->fd, &a) == 0 &&
	       fstatat(t->place->dir_fd, t->name, &b, AT_SYMLINK_NOFOLLOW) == 0 &&
	       a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* One that nobody has locked was left by a restore that died. */
static int remove_stale(struct tmp_file *t, struct err *err)
{
	cleanup_fd int fd = -1;
	struct err why = ERR_INIT;
	int rc = file_open(t->place->dir_fd, t->name, O_WRONLY | O_NOFOLLOW | O_NONBLOCK, 0, &fd,
	                   &why);

	if (err_kind_of(rc) == ERR_NOT_FOUND)
		return 0;
	if (rc)
		return err_copy(err, &why);
	if (file_lock(fd, t->path, NULL))
		return err_set(err, ERR_BUSY, 0, "another restore is writing '%s'", t->path);
	if (unlinkat(t->place->dir_fd, t->name, 0) < 0 && errno != ENOENT)
		return err_set(err, ERR_IO, errno, "remove '%s'", t->path);
	return 0;
}

static int tmp_create(const struct place *p, struct tmp_file *t, struct err *err)
{
	struct err why = ERR_INIT;

	*t = (struct tmp_file){.place = p, .fd = -1};
	snprintf(t->name, sizeof(t->name), "%s" RESTORE_TMP_SUFFIX, p->name);
	snprintf(t->path, sizeof(t->path), "%s" RESTORE_TMP_SUFFIX, p->path);
	for (int tries = 0; tries < 5; tries++) {
		int rc = file_open(p->dir_fd, t->name, O_RDWR | O_CREAT | O_EXCL, 0600, &t->fd,
		                   &why);
		if (!rc && file_lock(t->fd, t->path, NULL) == 0 && tmp_is_ours(t)) {
			t->there = true;
			return 0;
		}
		if (rc && err_kind_of(rc) != ERR_EXISTS)
			return err_set(err, why.kind, why.sys_errno, "write '%s'", t->path);
		if (!rc) { /* taken for stale between the two calls */
			close(t->fd);
			t->fd = -1;
		} else if ((rc = remove_stale(t, err))) {
			return rc;
		}
	}
	return err_set(err, ERR_BUSY, 0, "another restore is writing '%s'", t->path);
}

static int tmp_finish(struct tmp_file *t, const struct plan *plan, struct err *err)
{
	if (plan->set_owner && fchown(t->fd, plan->uid, plan->gid) < 0)
		return err_set(err, ERR_IO, errno,
		               "give '%s' the owner of the old file (run as that owner or as root)",
		               t->path);
	if (fchmod(t->fd, plan->mode) < 0)
		return err_set(err, ERR_IO, errno, "set the mode of '%s'", t->path);
	if (fsync(t->fd) < 0)
		return err_set(err, ERR_IO, errno, "fsync '%s'", t->path);
	return 0;
}

/* ---- all of it ---- */

struct job {
	struct place place;
	char lock_path[PATH_MAX]; /* of the replicator */
	const struct restore_options *options;
	struct found found;
	struct plan plan;
};

static void job_release(struct job *j)
{
	place_release(&j->place);
}

static int refuse_inside_archive(const struct place *p, const char *root, struct err *err)
{
	char real[PATH_MAX];

	if (!realpath(root, real))
		return 0;
	size_t len = strlen(real);
	if (strncmp(p->dir, real, len) != 0 || (p->dir[len] && p->dir[len] != '/'))
		return 0;
	return err_set(err, ERR_REFUSED, 0, "'%s' lies inside the archive (choose another place)",
	               p->path);
}

static int look_and_plan(struct job *j, struct err *err)
{
	int rc = look(&j->place, j->lock_path, &j->found, err);

	return rc ? rc
	          : plan_make(&j->place, &j->found, j->options->force, clock_now_us(), &j->plan,
	                      err);
}

/* Between the first look and now minutes can have passed. */
static int look_again(struct job *j, struct err *err)
{
	struct stat was = j->found.st;
	bool existed = j->found.exists;
	int rc = look_and_plan(j, err);

	if (rc)
		return rc;
	if (existed != j->found.exists ||
	    (existed && (was.st_ino != j->found.st.st_ino || was.st_dev != j->found.st.st_dev)))
		return err_set(err, ERR_REFUSED, 0,
		               "'%s' was replaced by another program meanwhile (try again)",
		               j->place.path);
	return 0;
}

/* The last chance to stop: from here on it is a matter of milliseconds. */
static int check_cancelled(const struct job *j, struct view *v, struct err *err)
{
	const struct restore_options *o = j->options;

	if (o->progress && !o->progress(o->ctx, view_size(v), view_size(v)))
		return err_set(err, ERR_CANCELLED, 0, "cancelled");
	return 0;
}

/*
 * Between the last look and the rename a process can have opened the old file.  Nobody can keep
 * it from that, but now that the name stands for the new one the answer is final.
 */
static void warn_of_late_holders(const struct job *j)
{
	struct found now;

	if (j->plan.replace && look_for_holders(&j->found.st, j->lock_path, &now, NULL) == 0 &&
	    now.n_holders)
		log_warn("restore",
		         "process %d (%s) opened the old database while it was replaced: restart "
		         "it now target=%s",
		         (int)now.holder.pid, now.holder.command, j->place.path);
}

static int apply(struct job *j, struct view *v, struct restore_result *ret, struct err *err)
{
	CLEANUP(tmp_release) struct tmp_file tmp;
	int rc = tmp_create(&j->place, &tmp, err);

	if (rc || (rc = image_write(v, tmp.fd, tmp.path, j->options, &ret->checked, err)) ||
	    (rc = look_again(j, err)) || (rc = tmp_finish(&tmp, &j->plan, err)) ||
	    (rc = check_cancelled(j, v, err)) || (rc = swap_in(&j->place, &j->plan, tmp.name, err)))
		return rc;
	tmp.there = false;
	warn_of_late_holders(j);
	return 0;
}

/*
 * Comes before all questions of what to do now: the old database is not whole.  Unless it was
 * opened like that; then its -wal must not come back under the feet of whoever did.
 */
static int undo_interrupted(struct job *j, bool *ret_undone, struct err *err)
{
	CLEANUP(tmp_release) struct tmp_file tmp = {.fd = -1};
	int rc = look(&j->place, j->lock_path, &j->found, err);

	if (rc || !j->found.interrupted)
		return rc;
	if (j->options->dry_run) {
		*ret_undone = true;
		return 0;
	}
	if ((rc = plan_check_holders(&j->place, &j->found, err)) ||
	    (rc = tmp_create(&j->place, &tmp, err)) || /* no other restore is at it */
	    (rc = swap_recover(&j->place, ret_undone, err)))
		return rc;
	if (*ret_undone)
		log_warn("restore", "an interrupted restore was undone target=%s", j->place.path);
	return 0;
}

int restore_to_file(struct archive *a, struct history *h, uint64_t txid, const char *target,
                    const struct restore_options *options, struct restore_result *ret,
                    struct err *err)
{
	CLEANUP(job_release) struct job j = {.options = options, .place.dir_fd = -1};
	cleanup_view struct view *v = NULL;
	int rc;

	*ret = (struct restore_result){0};
	snprintf(j.lock_path, sizeof(j.lock_path), "%s/local/%s/lock", archive_root(a),
	         history_name(h));
	if ((rc = place_open(target, &j.place, err)) ||
	    (rc = refuse_inside_archive(&j.place, archive_root(a), err)) ||
	    (rc = undo_interrupted(&j, &ret->undid_interrupted, err)) ||
	    (rc = look_and_plan(&j, err)) || (rc = view_open(h, txid, &v, err)))
		return rc;
	if (!options->dry_run && (rc = apply(&j, v, ret, err)))
		return err_wrap(err, rc, "restore '%s'", history_name(h));
	snprintf(ret->target, sizeof(ret->target), "%s", j.place.path);
	ret->bytes = view_size(v);
	ret->replaced = j.plan.replace;
	if (j.plan.aside[0])
		snprintf(ret->set_aside, sizeof(ret->set_aside), "%s/%s",
		         strcmp(j.place.dir, "/") ? j.place.dir : "", j.plan.aside);
	return 0;
}
