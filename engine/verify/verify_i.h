/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of verify/ share.  Not for others. */
#ifndef ASOF_VERIFY_VERIFY_I_H
#define ASOF_VERIFY_VERIFY_I_H

#include "engine/verify/verify.h"
#include "engine/view/check.h"

struct run {
	const struct verify_options *options;
	struct verify_report *report;
	struct archive *archive;
	struct history *h;
	int dir_fd; /* of the history, for the note */
	struct verified_note note;
	struct history_object *objects;
	size_t n_objects;
	uint64_t total_bytes, done_bytes; /* for progress */
	int64_t began_us;                 /* monotonic, for the pace */
	int64_t kept_us;                  /* monotonic: when the note was last written */
	struct object_check *checks;      /* of the damages, in their order */
};

/* After each piece of work: pace, progress, stop (CANCELLED). */
int run_tick(struct run *r, uint64_t bytes, struct err *err) MUST_USE;
/* Writes the note, at most every few seconds unless `now`. */
int run_keep(struct run *r, bool now, struct err *err) MUST_USE;

/* A damage of this object (NULL: of none) is in the report from here on; takes *check over. */
int report_damage(struct run *r, const struct history_object *o, struct object_check *check,
                  struct err *err) MUST_USE;

/* state.c: the state of `m`, all of it or by what changed since the last verified moment.  Damage
 * goes into the report: *ret_ok is then false. */
int verify_state_full(struct run *r, const struct moment *m, bool resumable, bool *ret_ok,
                      struct err *err) MUST_USE;
int verify_state_since(struct run *r, const struct moment *m, bool *ret_ok,
                       struct err *err) MUST_USE;

/* affected.c: fills `affected`, `good_before` and `good_after` of every damage. */
int find_affected(struct run *r, struct err *err) MUST_USE;
/* The range of any damage that `txid` is in; NULL: none. */
const struct verify_range *verify_range_with(const struct verify_report *rep, uint64_t txid);

/* integrity.c: the checks of SQLite itself on the image of `m`. */
int verify_integrity(struct run *r, const struct moment *m, struct err *err) MUST_USE;

#endif
