/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of retain share.  Not for others. */
#ifndef ASOF_RETAIN_RETAIN_I_H
#define ASOF_RETAIN_RETAIN_I_H

#include "engine/archive/notes.h"
#include "engine/compact/make.h"
#include "engine/retain/plan.h"
#include "engine/retain/retain.h"
#include "engine/store/store.h"

struct retainer {
	struct archive *archive;
	struct history *history;
	char *root, *name; /* root: NULL at a destination */
	/* At a destination the folders are scratch: what is to go there is made in them. */
	int dir_fd, segment_fd, coalesced_fd, snapshot_fd;

	/* What capture went on behind, of this pass. */
#define RETAIN_LOST_MAX 16u
	struct damage lost[RETAIN_LOST_MAX];
	size_t n_lost;

	/* ---- at a destination ---- */
	bool is_far;
	struct retain_far far;
	struct archive *near; /* the local archive; may have what the destination has, too */
	struct history *near_history;
	struct level0_name *level0; /* there, of this pass */
	size_t n_level0;
	bool listed;
};

/* What a pass works on. */
struct pass {
	struct retainer *r;
	const struct retain_policy *policy;
	int64_t now_us, grace_us;
	bool dry;
	const _Atomic bool *stop;
	FILE *log;
	struct retain_result *result;

	struct history_object *objects;
	bool *roots;
	size_t n;
	struct mark *marks;
	size_t n_marks;
	struct thinned_note thinned;
	struct expiring_note expiring;
	struct retain_plan plan;
};

/* ---- apply.c ---- */
/* A job with the objects of `h`, into the folders. */
int retain_make(struct pass *p, struct history *h, const struct retain_job *job,
                uint64_t *ret_bytes, struct err *err) MUST_USE;
int retain_replan(struct pass *p, struct err *err) MUST_USE;
void retain_say(struct pass *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
const char *retain_folder_of(const struct history_object *o);

/* ---- far.c: a history that lies at a store ---- */
/* A note from there into the scratch folder; where it is missing it is so in both. */
int far_fetch_note(struct retainer *r, const char *name, struct err *err) MUST_USE;
/* From the scratch folder there. */
int far_put_note(struct retainer *r, const char *name, struct err *err) MUST_USE;
/* Those of the archive that have not got there yet keep their moments, too. */
int far_add_marks(struct pass *p, struct err *err) MUST_USE;
/* DAMAGED: a segment there cannot be read.  What it holds would pass for not there. */
int far_check_broken(struct pass *p, struct err *err) MUST_USE;
/* BUSY: a mark came since the plan was made. */
int far_check_marks(struct pass *p, struct err *err) MUST_USE;
int far_do_job(struct pass *p, const struct retain_job *job, uint64_t *ret_bytes,
               struct err *err) MUST_USE;
/* Until when nothing will change but by new transactions. */
int far_find_due(struct pass *p, struct err *err) MUST_USE;
#define FAR_KEY_MAX (DB_NAME_MAX + OBJECT_NAME_MAX + 40)
void far_key(const struct retainer *r, const char *file, char out[FAR_KEY_MAX]);
/* REFUSED: another one writes there now. */
int far_may_write(const struct retainer *r, struct err *err) MUST_USE;

/* ---- far_delete.c ---- */
/* Which segments are left to whoever sends them: see retain.h (5). */
void far_hold_level0(struct pass *p);
/* Of `due` what may go: see retain.h (5) and (7). */
int far_delete_due(struct pass *p, bool *due, struct err *err) MUST_USE;
void far_forget(struct retainer *r);

#endif
