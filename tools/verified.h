/* SPDX-License-Identifier: Apache-2.0 */
/* The report of a verification (engine/verify/verify.h), for people and for programs. */
#ifndef ASOF_TOOLS_VERIFIED_H
#define ASOF_TOOLS_VERIFIED_H

#include "engine/verify/verify.h"
#include "tools/cli.h"
#include "tools/progress.h"

json_t *verified_json(const struct verify_report *r);
/* A line, and three more for each damage: object and reason, moments affected, what restores. */
void verified_print(const struct verify_report *r);

struct repairing;

/* Histories, verified and told of one by one. */
struct verified_run {
	struct verify_options options; /* .progress is this one's */
	struct progress progress;
	bool json;
	json_t *histories;           /* with json: an array, to which each is appended */
	struct repairing *repairing; /* NULL: damage is told of, and that is that */
	uint64_t n, n_bad;
};
/* All of an archive; with `repairing`, that one's. */
int verified_archive(struct verified_run *v, const char *root, struct err *err) MUST_USE;

/* What is kept with a history of its last verification: zeros where there was none. */
int verified_kept(struct history *h, struct verified_note *ret, struct err *err) MUST_USE;
/* Its keys, into the object of a database: verified_through (a txid), verified_through_time,
 * verified_at, verified_full_at, integrity, integrity_checked_at, foreign_key_violations, damaged,
 * damage; null where there is nothing to tell. */
void verified_kept_json(json_t *database, const struct verified_note *n);

#endif
