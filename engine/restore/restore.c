/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/restore/restore_i.h"

#include "engine/base/cleanup.h"
#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

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

/* One that was being written when a restore died; nobody else is at it now. */
static void remove_torn_intent(const struct place *p)
{
	char name[RESTORE_NAME_MAX];

	snprintf(name, sizeof(name), "%s" RESTORE_SWAP_SUFFIX ".tmp", p->name);
	unlinkat(p->dir_fd, name, 0);
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
			remove_torn_intent(p);
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

#define ASOF_WAIT_US (10 * US_PER_SECOND)
#define ASOF_LOOK_US 100000

struct job {
	struct place place;
	const struct restore_image *image;
	const char *name; /* of the database, or what is said of errors */
	const struct restore_options *options;
	struct found found;
	struct plan plan;
};

static void job_release(struct job *j)
{
	place_release(&j->place);
}

int restore_refuse_inside(const struct place *p, const char *root, struct err *err)
{
	char real[PATH_MAX];

	if (!root || !realpath(root, real))
		return 0;
	size_t len = strlen(real);
	if (strncmp(p->dir, real, len) != 0 || (p->dir[len] && p->dir[len] != '/'))
		return 0;
	return err_set(err, ERR_REFUSED, 0, "'%s' lies inside the archive (choose another place)",
	               p->path);
}

/* What asof itself does with a database, but for replicating it, ends by itself. */
static int look_patiently(struct job *j, struct err *err)
{
	const struct restore_options *o = j->options;
	int64_t until_us = clock_mono_us();
	int rc;

	if (!o->dry_run)
		until_us += o->patience_us ? o->patience_us : ASOF_WAIT_US;

	while (!(rc = look(&j->place, j->options->lock_path, &j->found, err)) &&
	       j->found.n_asof > 0 && j->found.n_asof == j->found.n_holders &&
	       clock_mono_us() < until_us)
		clock_sleep_us(ASOF_LOOK_US);
	return rc;
}

static int look_and_plan(struct job *j, struct err *err)
{
	int rc = look_patiently(j, err);

	return rc ? rc : plan_make(&j->place, &j->found, j->options, clock_now_us(), &j->plan, err);
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
static int check_cancelled(const struct job *j, uint64_t bytes, struct err *err)
{
	const struct restore_options *o = j->options;

	if (o->progress && !o->progress(o->ctx, bytes, bytes))
		return err_set(err, ERR_CANCELLED, 0, "cancelled");
	return 0;
}

/*
 * Between the last look and the rename a process can have opened the old file.  Nobody can keep
 * it from that, but now that the name stands for the new one the answer is final.
 */
static void tell_of_holders(const struct job *j, struct restore_result *ret)
{
	struct found now;

	if (!j->plan.replace || look_for_holders(&j->found.st, j->options->lock_path, &now, NULL) ||
	    now.n_holders == 0)
		return;
	ret->n_holders = now.n_holders;
	ret->holder = now.holder;
	if (!j->plan.warn_holders)
		log_warn("restore",
		         "process %d (%s) opened the old database while it was replaced: restart "
		         "it now target=%s",
		         (int)now.holder.pid, now.holder.command, j->place.path);
}

/* A backup of what is there, before any of it changes. */
static int take_safety(struct job *j, struct err *err)
{
	const struct restore_options *o = j->options;
	struct restore_target target;

	if (!o->safety || !j->found.exists)
		return 0;
	target_of(&j->place, &j->found, &target);
	return o->safety(o->ctx, &target, err);
}

static bool wants_check(const struct job *j, bool state_matched)
{
	switch (j->options->check) {
	case RESTORE_CHECK_NEVER:
		return false;
	case RESTORE_CHECK_ALWAYS:
		return true;
	case RESTORE_CHECK_AUTO:
		break;
	}
	return !state_matched;
}

/* ---- a new file ---- */

/* The new file as one that has the old one's blocks, if the filesystem shares them. */
static bool share_blocks(const struct job *j, const struct tmp_file *tmp)
{
	cleanup_fd int old = -1;

	if (!j->options->delta || !j->found.exists || !j->image->read ||
	    file_open(j->place.dir_fd, j->place.name, O_RDONLY | O_NOFOLLOW, 0, &old, NULL))
		return false;
	return ioctl(tmp->fd, FICLONE, old) == 0;
}

static int write_new(struct job *j, struct tmp_file *tmp, struct restore_result *ret,
                     struct err *err)
{
	struct image_written written;
	bool shared = share_blocks(j, tmp);
	int rc = image_write(j->image, tmp->fd, shared, tmp->path, j->options, &written, err);

	if (rc)
		return rc;
	ret->method = shared ? RESTORE_SHARED : RESTORE_WHOLE;
	ret->bytes = written.size_bytes;
	ret->written_bytes = written.written_bytes;
	ret->checked = written.state_matched;
	if (!wants_check(j, written.state_matched))
		return 0;
	rc = check_integrity_fd(tmp->fd, j->image->label, ret->bytes, err);
	ret->validated = rc == 0;
	return rc;
}

static int apply_new(struct job *j, struct restore_result *ret, struct err *err)
{
	CLEANUP(tmp_release) struct tmp_file tmp;
	int rc = tmp_create(&j->place, &tmp, err);

	if (rc || (rc = write_new(j, &tmp, ret, err)) || (rc = look_again(j, err)) ||
	    (rc = check_cancelled(j, ret->bytes, err)) || (rc = take_safety(j, err)) ||
	    (rc = look_again(j, err)) || (rc = tmp_finish(&tmp, &j->plan, err)) ||
	    (rc = check_cancelled(j, ret->bytes, err)) ||
	    (rc = swap_in(&j->place, &j->plan, tmp.name, err)))
		return rc;
	tmp.there = false;
	tell_of_holders(j, ret);
	return 0;
}

/* ---- in place ---- */

/*
 * In place the old file is no more, and its -wal neither: only where nobody has it open, the
 * replicator included, and where a backup of it was taken or is not wanted.
 */
static bool may_be_in_place(const struct job *j)
{
	const struct found *f = &j->found;

	return j->options->delta && !j->options->keep_old && f->exists && f->n_holders == 0 &&
	       !f->replicated && delta_possible(j->image, &j->place);
}

static int apply_in_place(struct job *j, struct restore_result *ret, struct err *err)
{
	CLEANUP(tmp_release) struct tmp_file tmp;
	int rc;

	/* The name keeps other restores away. */
	if ((rc = tmp_create(&j->place, &tmp, err)) || (rc = take_safety(j, err)) ||
	    (rc = look_again(j, err)) || (rc = check_cancelled(j, j->image->size_bytes, err)))
		return rc;
	ret->method = RESTORE_IN_PLACE;
	ret->bytes = j->image->size_bytes;
	ret->checked = !hash128_zero(j->image->state);
	if (wants_check(j, ret->checked)) {
		if ((rc = check_integrity(j->image, err)))
			return rc;
		ret->validated = true;
	}
	j->plan.aside[0] = '\0';
	return delta_apply(j->image, &j->place, j->options, &ret->written_bytes, err);
}

/* ---- */

/*
 * Comes before all questions of what to do now: the old database is not whole.  Unless it was
 * opened like that; then its -wal must not come back under the feet of whoever did.
 */
static int undo_interrupted(struct job *j, bool *ret_undone, struct err *err)
{
	CLEANUP(tmp_release) struct tmp_file tmp = {.fd = -1};
	bool recovered = false;
	int rc = look(&j->place, j->options->lock_path, &j->found, err);

	if (rc)
		return rc;
	bool transaction = j->options->delta && j->found.sides[SIDE_JOURNAL].has_content;
	if (!j->found.interrupted && !transaction)
		return 0;
	if (j->options->dry_run) {
		*ret_undone = true;
		return 0;
	}
	if ((rc = plan_check_holders(&j->place, &j->found, err)) ||
	    (rc = tmp_create(&j->place, &tmp, err)) || /* no other restore is at it */
	    (transaction && (rc = inplace_recover(&j->place, &recovered, err))) ||
	    (rc = swap_recover(&j->place, ret_undone, err)))
		return rc;
	*ret_undone = *ret_undone || recovered;
	if (*ret_undone)
		log_warn("restore", "an interrupted restore was undone target=%s", j->place.path);
	return 0;
}

int restore_take_up(const char *target, struct err *err)
{
	const struct restore_options o = {0};
	CLEANUP(job_release) struct job j = {.options = &o, .name = target, .place.dir_fd = -1};
	bool undone = false;
	int rc = place_open(target, &j.place, err);

	return rc ? rc : undo_interrupted(&j, &undone, err);
}

static int plan_only(struct job *j, struct restore_result *ret, struct err *err)
{
	struct delta_plan delta;

	ret->bytes = ret->written_bytes = j->image->size_bytes;
	if (!may_be_in_place(j))
		return 0;
	int rc = delta_compare(j->image, &j->place, j->options, &delta, err);
	if (rc)
		return rc;
	ret->method = RESTORE_IN_PLACE;
	ret->written_bytes = (delta.n_differ + delta.n_save) * j->image->page_size;
	j->plan.aside[0] = '\0';
	return 0;
}

static int restore_image(struct job *j, const char *target, struct restore_result *ret,
                         struct err *err)
{
	int rc;

	*ret = (struct restore_result){0};
	if ((rc = place_open(target, &j->place, err)) ||
	    (rc = restore_refuse_inside(&j->place, j->options->archive_root, err)) ||
	    (rc = undo_interrupted(j, &ret->undid_interrupted, err)) ||
	    (rc = look_and_plan(j, err)))
		return rc;
	if (j->options->dry_run)
		rc = plan_only(j, ret, err);
	else if (may_be_in_place(j))
		rc = apply_in_place(j, ret, err);
	else
		rc = apply_new(j, ret, err);
	if (rc)
		return err_wrap(err, rc, "restore '%s'", j->name);
	snprintf(ret->target, sizeof(ret->target), "%s", j->place.path);
	ret->replaced = j->plan.replace;
	if (j->options->dry_run) {
		ret->n_holders = j->found.n_holders;
		ret->holder = j->found.holder;
	}
	if (j->plan.aside[0])
		snprintf(ret->set_aside, sizeof(ret->set_aside), "%s/%s",
		         strcmp(j->place.dir, "/") ? j->place.dir : "", j->plan.aside);
	return 0;
}

int restore_put_image(const struct restore_image *image, const char *name, const char *target,
                      const struct restore_options *options, struct restore_result *ret,
                      struct err *err)
{
	CLEANUP(job_release)
	struct job j = {.options = options, .image = image, .name = name, .place.dir_fd = -1};

	return restore_image(&j, target, ret, err);
}

int restore_to_file(struct archive *a, struct history *h, uint64_t txid, const char *target,
                    const struct restore_options *options, struct restore_result *ret,
                    struct err *err)
{
	struct restore_options o = *options;
	struct restore_image image;
	cleanup_view struct view *v = NULL;
	char lock_path[PATH_MAX], label[IMAGE_LABEL_MAX];

	snprintf(lock_path, sizeof(lock_path), "%s/local/%s/lock", archive_root(a),
	         history_name(h));
	o.lock_path = lock_path;
	o.archive_root = archive_root(a);
	int rc = view_open(h, txid, &v, err);
	if (rc)
		return rc;
	image_of_view(v, label, &image);
	return restore_put_image(&image, history_name(h), target, &o, ret, err);
}

int restore_from_file(struct restore_file *f, const char *target,
                      const struct restore_options *options, struct restore_result *ret,
                      struct err *err)
{
	const struct restore_image *image = restore_file_image(f);
	const char *slash = strrchr(image->label, '/');

	return restore_put_image(image, slash ? slash + 1 : image->label, target, options, ret,
	                         err);
}
