/* SPDX-License-Identifier: Apache-2.0 */
/* What tests of retention share: policies, and what the history of a synth is to keep (kept.h). */
#ifndef ASOF_TESTS_THINNED_H
#define ASOF_TESTS_THINNED_H

#include "engine/compact/compact.h"
#include "tests/lib/kept.h"
#include "tests/lib/synth.h"

#include <stdio.h>

#define HOUR (3600 * US_PER_SECOND)
#define DAY (24 * HOUR)

/* What passes do, for who looks for a fault (ASOF_TEST_LOG); else NULL. */
FILE *thinned_log(void);
/* Nothing is left to others of the disk. */
void thinned_policy(struct retain_policy *p, const char *tiers, int64_t grace_us);
void thinned_random_policy(struct rng *r, struct retain_policy *p);
/* The history has grown; kept_release() frees what this made. */
void kept_grow(struct kept *k, const struct synth *s);
void kept_release(struct kept *k);
/* All that compaction wants; by `c`, or (NULL) by one of its own. */
void thinned_upkeep(struct synth *s, struct compactor *c);
/* The model goes on: of its objects those that retention may have taken are not named any more. */
void thinned_forget_objects(struct synth *s);

#endif
