/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/archive/names.h"
#include "engine/archive/sealed.h"
#include "engine/archive/upkeep.h"
#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/base/log.h"
#include "engine/compact/compact.h"
#include "engine/compact/make.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <sys/random.h>

#define JOIN_BYTES (8u << 20)
/* Sealing is done once and read often; with many waiting it is done quickly instead. */
#define LEVEL_GOOD 6
#define LEVEL_QUICK 1
#define BACKLOG_QUICK 6u
#define CACHE_BYTES (8u << 20)
#define DAMAGED_US (3600 * US_PER_SECOND)

struct compactor {
	struct archive *archive;
	struct history *history;
	char *name;
	uint64_t patience;
	struct compact_damaged *damaged; /* may be NULL */
	int dir_fd, segment_fd, coalesced_fd, snapshot_fd;
	int level;
	const _Atomic bool *stop;
	struct compact_stats stats;
};

static int open_folder(const char *root, const char *name, const char *folder, int *ret_fd,
                       struct err *err)
{
	char path[PATH_MAX];

	if (snprintf(path, sizeof(path), "%s/local/%s/%s", root, name, folder) >= (int)sizeof(path))
		return err_set(err, ERR_USAGE, 0, "the path of archive '%.60s…' is too long", root);
	return file_open_dir(AT_FDCWD, path, false, ret_fd, err);
}

int compactor_new(const char *root, const char *name, struct compactor **ret, struct err *err)
{
	struct compactor *c = calloc(1, sizeof(*c));
	struct archive_options o = {.cache_bytes = CACHE_BYTES};

	if (!c)
		return err_set(err, ERR_NOMEM, 0, "no memory");
	c->dir_fd = c->segment_fd = c->coalesced_fd = c->snapshot_fd = -1;
	c->name = strdup(name);
	int rc = c->name ? archive_open(root, &o, &c->archive, err)
	                 : err_set(err, ERR_NOMEM, 0, "no memory");
	if (rc == 0)
		rc = history_get(c->archive, name, &c->history, err);
	if (rc == 0)
		rc = open_folder(root, name, ".", &c->dir_fd, err);
	if (rc == 0)
		rc = open_folder(root, name, "segment", &c->segment_fd, err);
	if (rc == 0)
		rc = open_folder(root, name, "coalesced", &c->coalesced_fd, err);
	if (rc == 0)
		rc = open_folder(root, name, "snapshot", &c->snapshot_fd, err);
	if (rc < 0) {
		compactor_free(c);
		return rc;
	}
	*ret = c;
	return 0;
}

void compactor_free(struct compactor *c)
{
	if (!c)
		return;
	if (c->history)
		history_put(c->history);
	archive_free(c->archive);
	const int fds[] = {c->dir_fd, c->segment_fd, c->coalesced_fd, c->snapshot_fd};
	for (size_t i = 0; i < sizeof(fds) / sizeof(*fds); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	free(c->name);
	free(c);
}

void compactor_get_stats(const struct compactor *c, struct compact_stats *ret)
{
	*ret = c->stats;
}

static int stopped(const struct compactor *c, struct err *err)
{
	return *c->stop ? err_set(err, ERR_CANCELLED, 0, "stopped") : 0;
}

static int new_salts(struct sealed_options *o, struct err *err)
{
	uint32_t salts[2];

	if (getrandom(salts, sizeof(salts), 0) != (ssize_t)sizeof(salts))
		return err_set(err, ERR_IO, errno, "get random bytes");
	o->salt1 = salts[0];
	o->salt2 = salts[1];
	return 0;
}

/* ---- sealing and joining: every frame, in order ---- */

struct copy {
	struct compactor *c;
	struct sealed_writer *w;
};

static int copy_frame(void *ctx, const struct replay_frame *f, struct err *err)
{
	struct copy *copy = ctx;

	int rc = sealed_frame(copy->w, f->pgno, f->commit ? f->commit->n_pages : 0, f->page, err);
	if (rc == 0 && f->commit)
		rc = sealed_commit(copy->w, f->commit, err);
	return rc < 0 ? rc : stopped(copy->c, err);
}

/* A growing segment that was only just begun has no commit yet: its last txid is the one before
 * its first, and it is no part of the span that ends there. */
static const struct history_object *object_with_last(const struct history_object *o, size_t n,
                                                     uint64_t txid)
{
	for (size_t i = 0; i < n; i++)
		if ((o[i].type == HISTORY_GROWING || o[i].type == HISTORY_SEGMENT) &&
		    o[i].last_txid == txid && o[i].first_txid <= txid)
			return &o[i];
	return NULL;
}

static void remove_segment(struct compactor *c, const struct history_object *o)
{
	struct object_name n;
	char table[OBJECT_NAME_MAX];

	unlinkat(c->segment_fd, o->file, 0);
	if (o->type == HISTORY_SEGMENT && object_name_parse(o->file, &n)) {
		n.type = OBJECT_COMMITS;
		object_name_format(&n, table);
		unlinkat(c->segment_fd, table, 0);
	}
}

static int copy_segments(struct compactor *c, const struct compact_job *job,
                         const struct history_object *objects, size_t n, uint64_t *ret_bytes,
                         struct err *err)
{
	cleanup_sealed_writer struct sealed_writer *w = NULL;
	const struct history_object *last = object_with_last(objects, n, job->last_txid);
	struct sealed_options o = {
	        .kind = SEALED_SEGMENT,
	        .lineage = job->lineage,
	        .first_txid = job->first_txid,
	        .level = c->level,
	};
	struct object_name name;
	uint64_t frames;

	if (!last)
		return err_set(err, ERR_NOT_FOUND, 0, "the segment is gone");
	int rc = history_object_frames(c->history, last, &frames, &o.page_size, &o.pos, err);
	if (rc == 0)
		rc = new_salts(&o, err);
	if (rc == 0)
		rc = sealed_create(c->segment_fd, &o, &w, err);
	struct copy copy = {c, w};
	if (rc == 0)
		rc = history_replay(c->history, job->first_txid - 1, job->last_txid, copy_frame,
		                    &copy, err);
	if (rc == 0)
		rc = sealed_finish(w, &name, ret_bytes, err);
	if (rc < 0)
		return rc;
	for (size_t i = 0; i < n; i++) {
		const struct history_object *old = &objects[i];
		bool same = old->type == HISTORY_SEGMENT && old->first_txid == name.first_txid &&
		            old->last_txid == name.last_txid;
		if ((old->type == HISTORY_GROWING || old->type == HISTORY_SEGMENT) && !same &&
		    !old->current && old->lineage == job->lineage &&
		    old->first_txid >= job->first_txid && old->first_txid <= job->last_txid &&
		    old->last_txid <= job->last_txid)
			remove_segment(c, old);
	}
	return file_sync_dir(c->segment_fd, "segment", err);
}

/* ---- coalescing, a new base ---- */

/* The time of the first commit of a span: an object begins there. */
static int first_time(struct compactor *c, const struct compact_job *job,
                      const struct history_object *objects, size_t n, int64_t *ret, struct err *err)
{
	struct commit first;

	for (size_t i = 0; i < n; i++) {
		if (objects[i].type != HISTORY_SNAPSHOT &&
		    objects[i].first_txid == job->first_txid) {
			*ret = objects[i].first_us;
			return 0;
		}
	}
	int rc = history_commit(c->history, job->first_txid, &first, err);
	*ret = first.time_us;
	return rc;
}

static int coalesce(struct compactor *c, const struct compact_job *job,
                    const struct history_object *objects, size_t n, uint64_t *ret_bytes,
                    struct err *err)
{
	const struct make_options o = {c->history, c->coalesced_fd, LEVEL_GOOD, c->stop};
	struct object_name name;
	int64_t first_us;

	int rc = first_time(c, job, objects, n, &first_us, err);
	return rc < 0 ? rc
	              : make_coalesced(&o, job->first_txid - 1, job->last_txid, first_us, false,
	                               &name, ret_bytes, err);
}

static int apply(struct compactor *c, const struct compact_job *job,
                 const struct history_object *objects, size_t n, struct err *err)
{
	static const char *const names[] = {"", "seal", "join", "coalesce", "base"};
	uint64_t bytes = 0, *sum = NULL;
	int rc = 0;

	switch (job->type) {
	case COMPACT_SEAL:
	case COMPACT_JOIN:
		rc = copy_segments(c, job, objects, n, &bytes, err);
		sum = job->type == COMPACT_SEAL ? &c->stats.sealed_bytes : &c->stats.joined_bytes;
		break;
	case COMPACT_COALESCE:
		rc = coalesce(c, job, objects, n, &bytes, err);
		sum = &c->stats.coalesced_bytes;
		break;
	case COMPACT_BASE:
		rc = make_base(
		        &(struct make_options){c->history, c->snapshot_fd, c->level, c->stop},
		        job->last_txid, &bytes, err);
		sum = &c->stats.base_bytes;
		break;
	case COMPACT_NOTHING:
		return 0;
	}
	if (rc < 0)
		return rc;
	*sum += bytes;
	c->stats.jobs++;
	log_debug("compact",
	          "%s db=%s first_txid=%" PRIu64 " last_txid=%" PRIu64 " bytes=%" PRIu64
	          " reason=\"%s\"",
	          names[job->type], c->name, job->first_txid, job->last_txid, bytes, job->reason);
	return 0;
}

/* What is damaged is left alone from now on, and the rest goes on. */
static int bar(struct compactor *c, uint64_t first_txid, uint64_t last_txid, const struct err *why,
               struct err *err)
{
	struct compact_damaged *d = c->damaged;

	if (!d || why->kind != ERR_DAMAGED)
		return err_copy(err, why);
	log_error("compact", "left as it is db=%s first_txid=%" PRIu64 " last_txid=%" PRIu64 ": %s",
	          c->name, first_txid, last_txid, why->msg);
	d->spans[d->n % COMPACT_DAMAGED_MAX].first_txid = first_txid;
	d->spans[d->n % COMPACT_DAMAGED_MAX].last_txid = last_txid;
	d->spans[d->n % COMPACT_DAMAGED_MAX].until_us = clock_mono_us() + DAMAGED_US;
	d->n++;
	return 0;
}

/* Whether a base can be made behind an object: in a gap a segment can end with a commit that
 * cannot be viewed, and what retention thinned has few that can. */
static int find_unsettled_end(struct compactor *c, struct history_object *o, uint64_t thinned,
                              struct err *err)
{
	struct err why = ERR_INIT;
	struct commit last;
	struct moment m;

	if (o->last_txid <= thinned) {
		o->unsettled_end = history_tx(c->history, o->last_txid, &m, &why) < 0;
		return why.kind == ERR_NONE || why.kind == ERR_NOT_FOUND ? 0 : err_copy(err, &why);
	}
	int rc = history_commit(c->history, o->last_txid, &last, err);
	o->unsettled_end = rc == 0 && last.flags & COMMIT_UNSETTLED;
	return rc;
}

static int find_unsettled(struct compactor *c, struct history_object *objects, size_t n,
                          uint64_t thinned, struct err *err)
{
	uint64_t base = 0, redo = 0;
	int rc = 0;

	for (size_t i = 0; i < n; i++)
		if (objects[i].type == HISTORY_SNAPSHOT && objects[i].last_txid > base) {
			base = objects[i].last_txid;
			redo = objects[i].first_txid - 1;
		}
	for (size_t i = 0; i < n && rc == 0 && base; i++) {
		struct history_object *o = &objects[i];
		struct err why = ERR_INIT;
		/* What a fuzzy base needs is on the way, too. */
		if (o->type == HISTORY_SNAPSHOT || o->current || o->broken ||
		    o->last_txid <= redo || o->last_txid < o->first_txid)
			continue;
		rc = find_unsettled_end(c, o, thinned, &why);
		if (rc < 0)
			rc = bar(c, o->first_txid, o->last_txid, &why, err);
		o->broken = o->broken || why.kind == ERR_DAMAGED;
	}
	return rc;
}

/* Fine ones of spans that were met damaged. */
static void mark_damaged(const struct compactor *c, struct history_object *objects, size_t n)
{
	const struct compact_damaged *d = c->damaged;

	for (size_t i = 0; i < n && d; i++)
		for (size_t k = 0; k < d->n && k < COMPACT_DAMAGED_MAX; k++)
			if (objects[i].type != HISTORY_SNAPSHOT &&
			    d->spans[k].until_us > clock_mono_us() &&
			    objects[i].first_txid <= d->spans[k].last_txid &&
			    objects[i].last_txid >= d->spans[k].first_txid)
				objects[i].broken = true;
}

void compactor_set_damaged(struct compactor *c, struct compact_damaged *damaged)
{
	c->damaged = damaged;
}

void compactor_set_patience(struct compactor *c, uint64_t unsealed)
{
	c->patience = unsealed;
}

/* Segments that retention is about to delete are not worth any work. */
static size_t drop_thinned(struct history_object *objects, size_t n, uint64_t thinned)
{
	size_t kept = 0;

	for (size_t i = 0; i < n; i++) {
		const struct history_object *o = &objects[i];
		bool fine = o->type == HISTORY_SEGMENT || o->type == HISTORY_GROWING;
		if (!fine || o->current || o->last_txid > thinned || o->last_txid < o->first_txid)
			objects[kept++] = *o;
	}
	return kept;
}

static int step(struct compactor *c, bool *ret_did, struct err *err)
{
	cleanup_free struct history_object *objects = NULL;
	size_t n, growing = 0;

	history_relist(c->history); /* retention may have been at work: no head tells of it */
	int rc = history_objects(c->history, &objects, &n, err);
	if (rc < 0)
		return rc;
	uint64_t thinned = history_thinned(c->history);
	n = drop_thinned(objects, n, thinned);
	for (size_t i = 0; i < n; i++)
		growing += objects[i].type == HISTORY_GROWING;
	c->stats.unsealed = growing;
	c->stats.deferred = c->patience > 0 && growing <= c->patience;
	if (c->stats.deferred)
		return 0;
	mark_damaged(c, objects, n);
	rc = find_unsettled(c, objects, n, thinned, err);
	if (rc < 0)
		return rc;
	c->level = growing > BACKLOG_QUICK ? LEVEL_QUICK : LEVEL_GOOD;
	struct compact_job job = compact_plan(objects, n, JOIN_BYTES);
	if (job.type == COMPACT_NOTHING)
		return 0;
	struct err why = ERR_INIT;
	rc = apply(c, &job, objects, n, &why);
	if (rc < 0)
		rc = bar(c, job.first_txid ? job.first_txid : job.last_txid, job.last_txid, &why,
		         err);
	history_relist(c->history); /* or the same job would come up again */
	*ret_did = rc == 0;
	return rc;
}

int compactor_step(struct compactor *c, const _Atomic bool *stop, bool *ret_did, struct err *err)
{
	cleanup_fd int lock = -1;

	*ret_did = false;
	c->stop = stop;
	int rc = upkeep_lock(c->dir_fd, c->name, 0, &lock, err);
	return rc < 0 ? rc : step(c, ret_did, err);
}
