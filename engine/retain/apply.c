/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pass, step by step; each is whole or has not happened, and what was done stays done:
 *
 *   make     objects that the plan asks for, each verified against the recorded state; plan
 *            again, until it asks for none
 *   tell     the note `thinned`
 *   expire   the note `expiring`: what nobody needs, since when
 *   delete   what has stood in it for the grace time: snapshots, then the rest
 */
#include "engine/archive/upkeep.h"
#include "engine/base/file.h"
#include "engine/base/log.h"
#include "engine/retain/check.h"
#include "engine/retain/retain_i.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#define CACHE_BYTES (8u << 20)
#define LEVEL 6
#define LOCK_WAIT_US (30 * US_PER_SECOND)
#define ROUNDS_MAX 50u /* of making and planning again */

/* ---- opening ---- */

int retainer_new(const char *root, const char *name, struct retainer **ret, struct err *err)
{
	const struct archive_options o = {.cache_bytes = CACHE_BYTES};
	struct retainer *r = calloc(1, sizeof(*r));
	char path[PATH_MAX];

	if (!r)
		return err_set(err, ERR_NOMEM, 0, "no memory");
	r->dir_fd = r->segment_fd = r->coalesced_fd = r->snapshot_fd = -1;
	r->root = strdup(root);
	r->name = strdup(name);
	int rc = r->root && r->name ? archive_open(root, &o, &r->archive, err)
	                            : err_set(err, ERR_NOMEM, 0, "no memory");
	if (rc == 0)
		rc = history_get(r->archive, name, &r->history, err);
	if (rc == 0 && snprintf(path, sizeof(path), "%s/local/%s", root, name) >= (int)sizeof(path))
		rc = err_set(err, ERR_USAGE, 0, "the path of archive '%.60s…' is too long", root);
	if (rc == 0)
		rc = file_open_dir(AT_FDCWD, path, false, &r->dir_fd, err);
	if (rc == 0)
		rc = file_open_dir(r->dir_fd, "segment", false, &r->segment_fd, err);
	if (rc == 0)
		rc = file_open_dir(r->dir_fd, "coalesced", false, &r->coalesced_fd, err);
	if (rc == 0)
		rc = file_open_dir(r->dir_fd, "snapshot", false, &r->snapshot_fd, err);
	if (rc < 0)
		retainer_free(r);
	else
		*ret = r;
	return rc;
}

void retainer_free(struct retainer *r)
{
	if (!r)
		return;
	far_forget(r);
	if (r->near_history)
		history_put(r->near_history);
	archive_free(r->near);
	if (r->history)
		history_put(r->history);
	archive_free(r->archive);
	const int fds[] = {r->dir_fd, r->segment_fd, r->coalesced_fd, r->snapshot_fd};
	for (size_t i = 0; i < sizeof(fds) / sizeof(*fds); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	free(r->root);
	free(r->name);
	free(r);
}

/* ---- what is there ---- */

static void forget(struct pass *p)
{
	free(p->objects);
	free(p->roots);
	free(p->marks);
	p->objects = NULL;
	p->roots = NULL;
	p->marks = NULL;
	p->n = p->n_marks = 0;
	thinned_note_release(&p->thinned);
	expiring_note_release(&p->expiring);
	retain_plan_release(&p->plan);
}

/* Whether nothing before a snapshot connects with it: see plan.h (4). */
static bool is_root(const struct pass *p, const struct history_object *o)
{
	struct commit c;

	if (o->first_txid <= o->last_txid)
		return true;
	if (o->last_txid > p->thinned.until_txid)
		return history_commit(p->r->history, o->last_txid, &c, NULL) < 0 ||
		       c.flags & COMMIT_UNSETTLED;
	for (size_t i = 0; i < p->thinned.n_roots; i++)
		if (p->thinned.roots[i] == o->last_txid)
			return true;
	return false;
}

/* What a child lineage goes on behind since it was damaged: it stays until somebody has put it right, and
 * no moment in it is chosen. */
static void find_lost(struct pass *p)
{
	struct retainer *r = p->r;
	char file[OBJECT_NAME_MAX + 16];

	r->n_lost = 0;
	while (r->n_lost < RETAIN_LOST_MAX &&
	       history_left_behind(r->history, r->n_lost, &r->lost[r->n_lost], NULL) == 0)
		r->n_lost++;
	for (size_t i = 0; i < p->n && r->n_lost; i++) {
		snprintf(file, sizeof(file), "%s/%s", retain_folder_of(&p->objects[i]),
		         p->objects[i].file);
		for (size_t k = 0; k < r->n_lost; k++)
			p->objects[i].broken |= strcmp(r->lost[k].object, file) == 0;
	}
}

static const struct damage *lost_with(const struct retainer *r, uint64_t txid)
{
	for (size_t i = 0; i < r->n_lost; i++)
		if (txid >= r->lost[i].first_txid && txid <= r->lost[i].last_txid)
			return &r->lost[i];
	return NULL;
}

static int look(struct pass *p, struct err *err)
{
	struct retainer *r = p->r;
	struct err why = ERR_INIT;

	forget(p);
	history_relist(r->history);
	int rc = history_objects(r->history, &p->objects, &p->n, err);
	if (rc == 0)
		rc = history_marks(r->history, &p->marks, &p->n_marks, err);
	if (rc == 0 && r->is_far)
		rc = far_check_broken(p, err);
	if (rc == 0 && r->is_far)
		rc = far_add_marks(p, err);
	if (rc == 0 && r->is_far)
		rc = far_fetch_note(r, "thinned", err);
	if (rc == 0 && r->is_far)
		rc = far_fetch_note(r, "expiring", err);
	if (rc < 0)
		return rc;
	if (r->is_far)
		far_hold_level0(p);
	if (thinned_note_get(r->dir_fd, &p->thinned, &why) < 0 && why.kind != ERR_NOT_FOUND)
		return err_copy(err, &why);
	why = (struct err)ERR_INIT;
	if (expiring_note_get(r->dir_fd, &p->expiring, &why) < 0 && why.kind != ERR_NOT_FOUND)
		return err_copy(err, &why);
	p->roots = calloc(p->n + 1, sizeof(*p->roots));
	if (!p->roots)
		return err_set(err, ERR_NOMEM, 0, "no memory to plan retention");
	find_lost(p);
	for (size_t i = 0; i < p->n; i++)
		p->roots[i] = p->objects[i].type == HISTORY_SNAPSHOT && is_root(p, &p->objects[i]);
	return 0;
}

static int find_before(void *ctx, int64_t time_us, struct retain_point *ret, struct err *err)
{
	struct retainer *r = ctx;
	const struct damage *lost;
	struct moment m;

	int rc = history_before(r->history, time_us, &m, err);
	while (rc == 0 && (lost = lost_with(r, m.txid))) {
		if (lost->after_us)
			rc = history_before(r->history, lost->after_us, &m, err);
		if (!lost->after_us || (rc == 0 && m.txid >= lost->first_txid))
			rc = err_set(err, ERR_NOT_FOUND, 0, "what came before is damaged");
	}
	*ret = (struct retain_point){m.txid, m.time_us, NULL};
	return rc;
}

static int find_at(void *ctx, uint64_t txid, struct retain_point *ret, struct err *err)
{
	struct retainer *r = ctx;
	struct moment m;

	if (txid > history_thinned(r->history) && lost_with(r, txid))
		return err_set(err, ERR_NOT_FOUND, 0, "it is damaged");
	int rc = history_tx(r->history, txid, &m, err);
	*ret = (struct retain_point){m.txid, m.time_us, NULL};
	return rc;
}

int retain_replan(struct pass *p, struct err *err)
{
	const struct retain_input in = {
	        .objects = p->objects,
	        .roots = p->roots,
	        .n = p->n,
	        .fine_txid = p->thinned.until_txid,
	        .marks = p->marks,
	        .n_marks = p->n_marks,
	        .policy = p->policy,
	        .now_us = p->now_us,
	        .before = find_before,
	        .at = find_at,
	        .ctx = p->r,
	};

	retain_plan_release(&p->plan);
	return retain_plan(&in, &p->plan, err);
}

const char *retain_folder_of(const struct history_object *o)
{
	return o->type == HISTORY_SNAPSHOT    ? "snapshot"
	       : o->type == HISTORY_COALESCED ? "coalesced"
	                                      : "segment";
}

void retain_say(struct pass *p, const char *fmt, ...)
{
	char text[600];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	if (p->log)
		fprintf(p->log, "%s: %s\n", p->r->name, text);
	log_debug("retain", "db=%s %s%s", p->r->name, p->dry ? "would " : "", text);
}

/* ---- making ---- */

/* The time of commit after_txid + 1, as far as it is known. */
static int64_t first_time(const struct pass *p, struct history *h, uint64_t after_txid)
{
	struct commit c;
	struct moment m;

	for (size_t i = 0; i < p->n; i++)
		if (p->objects[i].type == HISTORY_COALESCED &&
		    p->objects[i].first_txid == after_txid + 1)
			return p->objects[i].first_us;
	if (history_commit(h, after_txid + 1, &c, NULL) == 0)
		return c.time_us;
	return history_tx(h, after_txid, &m, NULL) == 0 ? m.time_us : 0;
}

/* The state before is not that which the object goes on from: a copy of the whole lies between. */
static bool spans_root(const struct pass *p, const struct retain_job *job)
{
	for (size_t i = 0; i < p->n; i++)
		if (p->roots[i] && p->objects[i].last_txid > job->after_txid &&
		    p->objects[i].last_txid <= job->until_txid)
			return true;
	return false;
}

static int make_object(struct pass *p, struct history *h, const struct retain_job *job,
                       uint64_t *ret_bytes, struct err *err)
{
	struct retainer *r = p->r;
	struct make_options o = {h, r->coalesced_fd, LEVEL, p->stop};
	struct object_name name;
	char file[OBJECT_NAME_MAX];

	int rc = make_coalesced(&o, job->after_txid, job->until_txid,
	                        first_time(p, h, job->after_txid), job->type == RETAIN_COALESCE,
	                        &name, ret_bytes, err);
	if (rc < 0)
		return rc;
	name.type = OBJECT_SEALED; /* as names of the folder `coalesced` look */
	object_name_format(&name, file);
	if (job->type == RETAIN_COALESCE && job->after_txid > 0 && !spans_root(p, job))
		rc = check_coalesced(h, r->coalesced_fd, file, job->after_txid, p->stop, err);
	if (err_kind_of(rc) == ERR_DAMAGED) /* not to be read by anyone */
		unlinkat(r->coalesced_fd, file, 0);
	return rc;
}

int retain_make(struct pass *p, struct history *h, const struct retain_job *job,
                uint64_t *ret_bytes, struct err *err)
{
	struct make_options o = {h, p->r->snapshot_fd, LEVEL, p->stop};

	return job->type == RETAIN_BASE ? make_base(&o, job->until_txid, ret_bytes, err)
	                                : make_object(p, h, job, ret_bytes, err);
}

static void say_job(struct pass *p, const struct retain_job *job, uint64_t bytes)
{
	char size[40] = "";

	if (!p->dry)
		snprintf(size, sizeof(size), ", %" PRIu64 " bytes", bytes);
	if (job->type == RETAIN_BASE)
		retain_say(p, "base at transaction %" PRIu64 "%s: %s", job->until_txid, size,
		           job->reason);
	else
		retain_say(p, "coalesce transactions %" PRIu64 " to %" PRIu64 "%s: %s",
		           job->after_txid + 1, job->until_txid, size, job->reason);
}

static int do_job(struct pass *p, const struct retain_job *job, struct err *err)
{
	uint64_t bytes = 0;
	int rc = 0;

	if (!p->dry)
		rc = p->r->is_far ? far_do_job(p, job, &bytes, err)
		                  : retain_make(p, p->r->history, job, &bytes, err);
	if (rc < 0)
		return rc;
	p->result->bases += job->type == RETAIN_BASE;
	p->result->coalesced += job->type != RETAIN_BASE;
	p->result->made_bytes += bytes;
	say_job(p, job, bytes);
	history_relist(p->r->history);
	return 0;
}

/* Until the plan asks for nothing more; sizes are known only then. */
static int make_all(struct pass *p, struct err *err)
{
	int rc = 0;

	for (unsigned round = 0; rc == 0; round++) {
		rc = look(p, err);
		if (rc == 0)
			rc = retain_replan(p, err);
		if (rc < 0 || p->plan.n_jobs == 0)
			return rc;
		if (round == ROUNDS_MAX)
			return err_set(err, ERR_DAMAGED, 0,
			               "retention of '%s' finds no end (nothing was deleted)",
			               p->r->name);
		for (size_t i = 0; i < p->plan.n_jobs && rc == 0; i++)
			rc = do_job(p, &p->plan.jobs[i], err);
		if (p->dry)
			return rc;
	}
	return rc;
}

/* ---- telling ---- */

/* Until when a point is known to be the newest state. */
static int64_t until_of(const struct pass *p, const struct retain_point *at)
{
	struct history *h = p->r->history;
	struct err why = ERR_INIT;
	struct commit c;
	struct moment m;
	int64_t until = at->time_us + 1, next_us = INT64_MAX;

	for (size_t i = 0; i < p->thinned.n_points; i++)
		if (p->thinned.points[i].txid == at->txid)
			return p->thinned.points[i].until_us;
	if (history_commit(h, at->txid + 1, &c, &why) == 0) {
		next_us = c.time_us;
		until = c.flags & (COMMIT_UNSETTLED | COMMIT_HEAL) ? c.not_before_us + 1 : next_us;
	} else if (history_tx(h, at->txid + 1, &m, NULL) == 0) {
		next_us = m.time_us;
		until = m.not_before_us + 1; /* found idle: what was before it nobody saw */
	}
	until = until < next_us ? until : next_us; /* seen in the microsecond in which it came */
	return until > at->time_us ? until : at->time_us + 1;
}

static bool same_points(const struct pass *p)
{
	if (p->thinned.until_txid != p->plan.fine_txid || p->thinned.n_points != p->plan.n_points)
		return false;
	for (size_t i = 0; i < p->plan.n_points; i++)
		if (p->thinned.points[i].txid != p->plan.points[i].txid)
			return false;
	return true;
}

static int tell(struct pass *p, struct err *err)
{
	const struct retain_plan *plan = &p->plan;
	struct thinned_note n = {.until_txid = plan->fine_txid};

	if (plan->fine_txid == 0 || same_points(p))
		return 0;
	retain_say(p, "keep %zu moments up to transaction %" PRIu64 ", and every one behind it",
	           plan->n_points, plan->fine_txid);
	if (p->dry)
		return 0;
	int rc = p->r->is_far ? far_check_broken(p, err) : 0;
	if (rc == 0 && p->r->is_far)
		rc = far_check_marks(p, err);
	if (rc < 0)
		return rc;
	n.points = calloc(plan->n_points + 1, sizeof(*n.points));
	n.roots = calloc(p->n + 1, sizeof(*n.roots));
	rc = n.points && n.roots ? 0 : err_set(err, ERR_NOMEM, 0, "no memory for a note");
	for (size_t i = 0; i < plan->n_points && rc == 0; i++) {
		const struct retain_point *at = &plan->points[i];
		n.points[n.n_points++] =
		        (struct thinned_point){at->txid, at->time_us, until_of(p, at)};
	}
	for (size_t i = 0; i < p->n && rc == 0; i++) { /* snapshots are sorted by their redo... */
		const struct history_object *o = &p->objects[i];
		size_t k = n.n_roots;
		if (!p->roots[i] || o->last_txid > plan->fine_txid)
			continue;
		while (k > 0 && n.roots[k - 1] > o->last_txid) /* ...these by their txid */
			k--;
		if (k > 0 && n.roots[k - 1] == o->last_txid)
			continue;
		memmove(&n.roots[k + 1], &n.roots[k], (n.n_roots++ - k) * sizeof(*n.roots));
		n.roots[k] = o->last_txid;
	}
	if (rc == 0)
		rc = thinned_note_put(p->r->dir_fd, &n, err);
	if (rc == 0 && p->r->is_far)
		rc = far_put_note(p->r, "thinned", err);
	thinned_note_release(&n);
	history_relist(p->r->history);
	return rc;
}

/* ---- expiring and deleting ---- */

static int64_t since(const struct pass *p, const char *path)
{
	for (size_t i = 0; i < p->expiring.n; i++)
		if (strcmp(p->expiring.entries[i].file, path) == 0)
			return p->expiring.entries[i].since_us;
	return INT64_MIN;
}

/* What nobody needs any more, and since when.  Which of them is due is told in `due`. */
static int expire(struct pass *p, bool *due, struct err *err)
{
	struct expiring_note n = {.entries = calloc(p->n + 1, sizeof(*n.entries))};
	bool changed = false;
	int rc = 0;

	if (!n.entries)
		return err_set(err, ERR_NOMEM, 0, "no memory for a note");
	for (size_t i = 0; i < p->n; i++) {
		const struct history_object *o = &p->objects[i];
		struct expiring_entry *e = &n.entries[n.n];
		char when[TIME_STR_MAX];
		if (!p->plan.expire[i])
			continue;
		snprintf(e->file, sizeof(e->file), "%s/%.190s", retain_folder_of(o), o->file);
		e->since_us = since(p, e->file);
		if (e->since_us == INT64_MIN || e->since_us > p->now_us) {
			e->since_us = p->now_us;
			changed = true;
		}
		due[i] = p->now_us - e->since_us >= p->grace_us;
		if (!due[i]) {
			time_format(e->since_us + p->grace_us, when);
			retain_say(
			        p,
			        "expires %s: needed by no moment that is kept, to be deleted at %s",
			        e->file, when);
			p->result->expiring++;
			p->result->expiring_bytes += o->bytes;
		}
		n.n++;
	}
	changed = changed || n.n != p->expiring.n;
	if (changed && !p->dry)
		rc = expiring_note_put(p->r->dir_fd, &n, err);
	if (rc == 0 && changed && !p->dry && p->r->is_far)
		rc = far_put_note(p->r, "expiring", err);
	expiring_note_release(&n);
	return rc;
}

static int delete_one(struct pass *p, const struct history_object *o, struct err *err)
{
	struct retainer *r = p->r;
	int fd = o->type == HISTORY_SNAPSHOT    ? r->snapshot_fd
	         : o->type == HISTORY_COALESCED ? r->coalesced_fd
	                                        : r->segment_fd;
	struct object_name n;
	char table[OBJECT_NAME_MAX];

	retain_say(p, "delete %s/%s: needed by no moment that is kept", retain_folder_of(o),
	           o->file);
	p->result->deleted++;
	p->result->deleted_bytes += o->bytes;
	if (p->dry)
		return 0;
	if (unlinkat(fd, o->file, 0) < 0 && errno != ENOENT)
		return err_set(err, ERR_IO, errno, "remove '%s/%s'", retain_folder_of(o), o->file);
	if (o->type == HISTORY_SEGMENT && object_name_parse(o->file, &n)) {
		n.type = OBJECT_COMMITS;
		object_name_format(&n, table);
		unlinkat(fd, table, 0);
	}
	return 0;
}

/* Snapshots go first, and durably so: a reader takes the newest that is there for its base. */
static int delete_due(struct pass *p, const bool *due, struct err *err)
{
	bool snapshots = false;
	int rc = 0;

	for (int turn = 0; turn < 2 && rc == 0; turn++) {
		for (size_t i = 0; i < p->n && rc == 0; i++) {
			bool snapshot = p->objects[i].type == HISTORY_SNAPSHOT;
			if (!due[i] || snapshot != (turn == 0))
				continue;
			if (p->stop && *p->stop)
				return err_set(err, ERR_CANCELLED, 0, "stopped");
			rc = delete_one(p, &p->objects[i], err);
			snapshots = snapshots || snapshot;
		}
		if (rc == 0 && turn == 0 && snapshots && !p->dry)
			rc = file_sync_dir(p->r->snapshot_fd, "snapshot", err);
	}
	return rc;
}

static uint64_t total_bytes(const struct pass *p)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < p->n; i++)
		sum += p->objects[i].bytes;
	return sum;
}

/* One pass with one policy. */
static int run_pass(struct pass *p, struct err *err)
{
	cleanup_free bool *due = NULL;

	p->result->expiring = p->result->expiring_bytes = 0;
	int rc = make_all(p, err);
	if (rc == 0)
		rc = tell(p, err);
	if (rc < 0)
		return rc;
	due = calloc(p->n + 1, sizeof(*due));
	if (!due)
		return err_set(err, ERR_NOMEM, 0, "no memory to plan retention");
	uint64_t deleted = p->result->deleted_bytes;
	rc = expire(p, due, err);
	if (rc == 0)
		rc = p->r->is_far ? far_delete_due(p, due, err) : delete_due(p, due, err);
	history_relist(p->r->history);
	p->result->kept_points = p->plan.n_points;
	p->result->fine_txid = p->plan.fine_txid;
	p->result->bytes = total_bytes(p) - (p->result->deleted_bytes - deleted);
	return rc;
}

/* ---- want of space ---- */

static uint64_t reserve_of(const struct retain_policy *policy, uint64_t fs_bytes)
{
	uint64_t percent = fs_bytes / 100 * policy->min_free_percent;

	if (policy->min_free_percent == RETAIN_MIN_FREE_PERCENT && percent > RETAIN_MIN_FREE_BYTES)
		percent = RETAIN_MIN_FREE_BYTES;
	return percent > policy->min_free_bytes ? percent : policy->min_free_bytes;
}

/* How much less free space there is than the policy wants. */
static int missing_space(const char *root, const struct retain_policy *policy,
                         uint64_t *ret_missing, uint64_t *ret_reserve, struct err *err)
{
	struct statvfs st;

	if (statvfs(root, &st) < 0)
		return err_set(err, ERR_IO, errno, "ask for the free space of '%s'", root);
	uint64_t free = (uint64_t)st.f_bavail * st.f_frsize;
	*ret_reserve = reserve_of(policy, (uint64_t)st.f_blocks * st.f_frsize);
	*ret_missing = free < *ret_reserve ? *ret_reserve - free : 0;
	return 0;
}

int retain_may_write(const char *root, const struct retain_policy *policy, struct err *err)
{
	uint64_t missing, reserve;

	int rc = missing_space(root, policy, &missing, &reserve, err);
	if (rc == 0 && missing > 0)
		return err_set(err, ERR_NO_SPACE, 0,
		               "less than %" PRIu64
		               " MB are free beside archive '%s', which are left "
		               "to others (make room, or lower min_free)",
		               reserve / 1000000, root);
	return rc;
}

/* Bytes that must go; *why says what asks for it. */
static int excess(struct pass *p, uint64_t *ret, const char **why, struct err *err)
{
	uint64_t missing, reserve, max = p->policy->max_bytes, bytes = p->result->bytes;

	int rc = missing_space(p->r->root, p->policy, &missing, &reserve, err);
	*why = missing > 0 ? "min_free" : "max_bytes";
	*ret = missing;
	if (max > 0 && bytes > max && bytes - max > missing) {
		*ret = bytes - max;
		*why = "max_bytes";
	}
	return rc;
}

/* The finest tier first, by eighths, without grace, until there is room. */
static int make_room(struct pass *p, struct err *err)
{
	const struct retain_policy *policy = p->policy;
	struct retain_policy shorter = *policy;
	struct moment oldest;
	const char *why = NULL;
	uint64_t over;

	int rc = excess(p, &over, &why, err);
	if (rc < 0 || over == 0)
		return rc;
	p->result->short_of_space = true;
	if (history_first(p->r->history, &oldest, err) < 0)
		oldest.time_us = p->now_us;
	p->grace_us = 0;
	for (unsigned level = 0; over > 0; level++) {
		if (level > 0 &&
		    !retain_shorten(policy, oldest.time_us, p->now_us, level, &shorter))
			break;
		retain_policy_format(&shorter, p->result->shortened);
		p->policy = &shorter;
		rc = run_pass(p, err);
		p->policy = policy;
		if (rc == 0)
			rc = excess(p, &over, &why, err);
		if (rc < 0)
			return rc;
		if (p->dry) /* what it would free shows only once it is done */
			return 0;
	}
	log_warn("retain",
	         "%s is reached: moments go before their time db=%s kept=%s bytes=%" PRIu64, why,
	         p->r->name, p->result->shortened, p->result->bytes);
	if (over > 0)
		return err_set(err, ERR_NO_SPACE, 0,
		               "the history of '%s' takes %" PRIu64
		               " bytes, %s is passed, and nothing may go any more (make room)",
		               p->r->name, p->result->bytes, why);
	return 0;
}

/* ---- what repairs moved aside, and what died on its way here ---- */

static void remove_old(int folder_fd, int64_t before_us)
{
	cleanup_dir DIR *dir = NULL;
	struct dirent *d;
	int64_t aside_us;

	int fd = folder_fd < 0 ? -1 : openat(folder_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir && fd >= 0)
		close(fd);
	while (dir && (d = readdir(dir)))
		if (aside_name_parse(d->d_name, &aside_us) && aside_us < before_us)
			unlinkat(folder_fd, d->d_name, 0);
}

static void remove_aside(struct retainer *r, int64_t now_us)
{
	const int folders[] = {r->dir_fd, r->segment_fd, r->coalesced_fd, r->snapshot_fd};

	for (size_t i = 0; i < sizeof(folders) / sizeof(*folders); i++)
		remove_old(folders[i], now_us - ASIDE_KEEP_US);
	store_sweep(r->dir_fd, ".");
}

/* ---- all of it ---- */

static int run(struct pass *p, struct err *err)
{
	*p->result = (struct retain_result){0};
	int rc = retain_policy_check(p->policy, err);
	if (rc == 0)
		rc = run_pass(p, err);
	if (rc == 0)
		rc = p->r->is_far ? far_find_due(p, err) : make_room(p, err);
	forget(p);
	return rc;
}

int retainer_run(struct retainer *r, const struct retain_policy *policy, int64_t now_us,
                 const _Atomic bool *stop, FILE *log, struct retain_result *ret, struct err *err)
{
	cleanup_fd int lock = -1;
	struct pass p = {.r = r,
	                 .policy = policy,
	                 .now_us = now_us,
	                 .grace_us = policy->grace_us,
	                 .stop = stop,
	                 .log = log,
	                 .result = ret};

	/* (Of a destination it is scratch, beside the local history: one pass at a time.) */
	int rc = upkeep_lock(r->dir_fd, r->name, LOCK_WAIT_US, &lock, err);
	if (rc < 0)
		return rc;
	remove_aside(r, now_us);
	return run(&p, err);
}

int retainer_preview(struct retainer *r, const struct retain_policy *policy, int64_t now_us,
                     FILE *log, struct retain_result *ret, struct err *err)
{
	struct pass p = {.r = r,
	                 .policy = policy,
	                 .now_us = now_us,
	                 .grace_us = policy->grace_us,
	                 .dry = true,
	                 .log = log,
	                 .result = ret};
	cleanup_fd int lock = -1;

	int rc = r->is_far ? upkeep_lock(r->dir_fd, r->name, LOCK_WAIT_US, &lock, err) : 0;
	return rc < 0 ? rc : run(&p, err);
}
