/* SPDX-License-Identifier: Apache-2.0 */
/* Trying out where archives lie: a folder, a bucket, a server; and what it means for asof. */
#ifndef ASOF_TOOLS_CHECK_PLACE_H
#define ASOF_TOOLS_CHECK_PLACE_H

#include "engine/base/json.h"
#include "engine/store/trial.h"
#include "tools/check.h"

struct place_report {
	struct check_result result; /* of all of it, in a line */
	bool tried;                 /* what follows */
	bool unavailable;           /* it does not answer */
	struct store_trial trial;
};

/*
 * `archive`: as store_open() takes it; `d`: what the configuration says besides, may be NULL.  What
 * is written is removed again; a folder that is not there is not made.
 */
void check_place(const char *archive, const struct config_destination *d,
                 const struct config_retention *retention, struct place_report *ret);

enum { PLACE_LINES = N_TRIAL_STEPS + 1 }; /* the last is the clock's */
#define PLACE_TEXT_MAX 700
const char *place_line_name(int i);
/* "ok", "lacks", "failed", "untried". */
const char *place_line_state(const struct place_report *r, int i);
void place_line_text(const struct place_report *r, int i, char out[PLACE_TEXT_MAX]);
/* The lines as an array. */
json_t *place_json(const struct place_report *r);

#endif
