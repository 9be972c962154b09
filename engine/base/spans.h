/* SPDX-License-Identifier: Apache-2.0 */
/* A growable list of stretches of numbers, which may overlap.  Zero-initialised; not thread-safe. */
#ifndef ASOF_BASE_SPANS_H
#define ASOF_BASE_SPANS_H

#include "engine/base/cleanup.h"
#include "engine/base/err.h"

#include <stddef.h>
#include <stdint.h>

struct span {
	uint64_t first, last;
};
struct spans {
	struct span *v;
	size_t n, cap;
};

int spans_add(struct spans *s, uint64_t first, uint64_t last, struct err *err) MUST_USE;
/* By where they begin: after the last addition, before the functions below. */
void spans_sort(struct spans *s);
/* The first number from `from` on that none of them holds. */
uint64_t spans_reach(const struct spans *s, uint64_t from);
/* Where the next one behind `after` begins; UINT64_MAX: there is none. */
uint64_t spans_next(const struct spans *s, uint64_t after);
void spans_release(struct spans *s);

#define cleanup_spans CLEANUP(spans_release)

#endif
