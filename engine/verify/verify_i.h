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
	uint64_t told_txid; /* the writer's word, from before the objects were listed */
	bool thinned_lost;  /* that note is damaged */
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

/* The same of a file beside the folders of objects. */
int report_note(struct run *r, const char *file, struct object_check *check,
                struct err *err) MUST_USE;

/* notes.c: every note, and those that are missing. */
int verify_notes(struct run *r, struct err *err) MUST_USE;
/* Whether objects lie in the folder of a database that has no note `source`, and nobody is at work
 * there. */
int verify_find_nameless(struct run *r, const char *name, bool *ret, struct err *err) MUST_USE;

/* affected.c: fills `affected` of every damage so far. */
int find_affected(struct run *r, struct err *err) MUST_USE;
/* `affected` of the newest damage: transactions that are missing, and what lies over them. */
int find_affected_by_hole(struct run *r, uint64_t first, uint64_t last, struct err *err) MUST_USE;
/* After all of them: `good_before` and `good_after` of every damage. */
void find_good(struct run *r);

/* missing.c: transactions that nothing holds, a first snapshot, and points that cannot be seen, as
 * damages; after find_affected(). */
int find_missing(struct run *r, struct err *err) MUST_USE;
/* The first transaction that a snapshot is of; UINT64_MAX: there is none. */
uint64_t find_based(const struct run *r);
/* The range of any damage that `txid` is in; NULL: none. */
const struct verify_range *verify_range_with(const struct verify_report *rep, uint64_t txid);

/* integrity.c: the checks of SQLite itself on the image of `m`. */
int verify_integrity(struct run *r, const struct moment *m, struct err *err) MUST_USE;

#endif
