/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/restore/restore_i.h"

#include "engine/base/clock.h"

#include <stdio.h>

const char *const side_suffixes[N_SIDES] = {"-wal", "-shm", "-journal"};

int plan_check_holders(const struct place *p, const struct found *f, struct err *err)
{
	char more[48] = "";

	if (f->n_holders == 0)
		return 0;
	if (f->n_holders > 1)
		snprintf(more, sizeof(more), " and %u more", f->n_holders - 1);
	return err_set(err, ERR_REFUSED, 0,
	               "'%s' is open in process %d (%s)%s (end that first: it would go on with "
	               "the old file; --force goes ahead)",
	               p->path, (int)f->holder.pid, f->holder.command, more);
}

static int check_refusals(const struct place *p, const struct found *f, bool force, struct err *err)
{
	int rc;

	if (f->exists && S_ISDIR(f->st.st_mode))
		return err_set(err, ERR_EXISTS, 0, "'%s' is a folder (name a file in it)", p->path);
	if (f->exists && !S_ISREG(f->st.st_mode))
		return err_set(err, ERR_REFUSED, 0, "'%s' is no regular file", p->path);
	/* The graver reason first: who only reads that the file exists adds --force, and goes on. */
	if (!force && (rc = plan_check_holders(p, f, err)))
		return rc;
	if (f->exists && !force)
		return err_set(err, ERR_EXISTS, 0,
		               "'%s' exists (-o names another file, --force replaces it)", p->path);
	for (int i = 0; i < N_SIDES && !force; i++)
		if (f->sides[i].exists)
			return err_set(err, ERR_REFUSED, 0,
			               "'%s%s' lies there, and SQLite would apply it to the "
			               "restored file (move it away, or --force sets it aside)",
			               p->path, side_suffixes[i]);
	return 0;
}

int plan_make(const struct place *p, const struct found *f, const struct restore_options *options,
              int64_t now_us, struct plan *ret, struct err *err)
{
	struct plan plan = {.replace = f->exists, .mode = 0600};
	bool any = false, content = false;
	char when[TIME_STR_MAX];

	int rc = check_refusals(p, f, options->force, err);
	if (rc)
		return rc;
	for (int i = 0; i < N_SIDES; i++) {
		any = any || f->sides[i].exists;
		content = content || f->sides[i].has_content;
	}
	if (f->exists) {
		plan.mode = f->st.st_mode & 07777;
		plan.set_owner = true;
		plan.uid = f->st.st_uid;
		plan.gid = f->st.st_gid;
	}
	plan.warn_holders = f->n_holders > 0;
	/* Whoever goes on with it does so in a file that has a name, and its -wal beside it. */
	content = content || (f->exists && (f->n_holders > 0 || options->keep_old));
	plan.keep_old = content && f->exists;
	plan.move_sides = content && !f->exists;
	plan.remove_sides = any && !content;
	if (content) {
		time_format_compact(now_us, when);
		snprintf(plan.aside, sizeof(plan.aside), "%s" RESTORE_ASIDE_INFIX "%s", p->name,
		         when);
	}
	*ret = plan;
	return 0;
}
