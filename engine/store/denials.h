/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deleting where not everything may be deleted: an object can be locked until some day, and credentials
 * can be such that nothing goes.  The first must not keep the others from going, the second must not cost
 * a request for each object each time.  So who deletes many goes on past what is denied, as long as
 *
 *  (1) it is at most DENIALS_MAX more often denied than done;
 *  (2) the first one is not, where the time before nothing went: then one is tried, now this, now that.
 */
#ifndef ASOF_STORE_DENIALS_H
#define ASOF_STORE_DENIALS_H

#include "engine/base/hash.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DENIALS_MAX 16u

struct denials {
	bool before; /* the time before, all that was tried was denied */
	uint64_t done, denied;
};

/* Which of `n` is tried first; those before it are left out. */
static inline size_t denials_first(const struct denials *d, size_t n, int64_t now_us)
{
	return d->before && n ? (size_t)(hash64(&now_us, sizeof(now_us), 0) % n) : 0;
}

static inline bool denials_go_on(const struct denials *d)
{
	return d->denied < d->done + (d->before && !d->done ? 1 : DENIALS_MAX);
}

/* For the next time. */
static inline bool denials_all(const struct denials *d)
{
	return d->denied && !d->done;
}

#endif
