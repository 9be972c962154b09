/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a policy keeps, worked out from its definition alone, commit by commit: the oracle that
 * retention is held to.
 */
#ifndef ASOF_TESTS_KEPT_H
#define ASOF_TESTS_KEPT_H

#include "engine/retain/retain.h"

#include <stddef.h>
#include <stdint.h>

struct kept {
	int64_t *times; /* times[i]: of txid i + 1 */
	bool *alive;    /* alive[i]: it can be viewed; what is thinned turns false */
	size_t n;
	uint64_t fine; /* every commit behind it is kept */
};

/* Up to which commit the policy lets the history be thinned, at most. */
uint64_t kept_limit(const struct kept *k, const struct retain_policy *p, int64_t now_us);
/* A pass at `now` that thins up to `fine`; `marks`: txids. */
void kept_pass(struct kept *k, const struct retain_policy *p, int64_t now_us, const uint64_t *marks,
               size_t n_marks, uint64_t fine);

#endif
