/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For tests: a store over a store, with what can go wrong on the way, by a seeded plan, and with
 * the time that requests take.  Every request to it counts once in its counters, as one to a bucket
 * would: a read of a range is a GET.
 */
#ifndef ASOF_STORE_FAULTY_H
#define ASOF_STORE_FAULTY_H

#include "engine/store/store.h"

struct store_faults {
	uint64_t seed;
	bool remote; /* what struct store says of itself */
	/* Of a thousand requests so many: */
	unsigned fail_permille;    /* fail before they take effect: UNAVAILABLE */
	unsigned lost_permille;    /* puts and removals take effect, and fail then */
	unsigned cut_permille;     /* reads give part of what was asked for, and DAMAGED */
	unsigned flip_permille;    /* reads succeed with one bit flipped, against (4) */
	unsigned missing_permille; /* reads and openings find nothing: NOT_FOUND */
	bool ignores_create;       /* a put with STORE_CREATE replaces, against (2), */
	bool refuses_create;       /* or is REFUSED */
	int64_t delay_us;          /* each request takes so long, */
	uint64_t bytes_per_s;      /* and as long as its bytes take; 0: no time */
};

/* Takes `inner` over, whatever happens. */
int store_open_faulty(struct store *inner, const struct store_faults *faults, struct store **ret,
                      struct err *err) MUST_USE;
/* From now on; not while others use it. */
void store_faulty_set(struct store *s, const struct store_faults *faults);
/* The most requests that were under way at once. */
unsigned store_faulty_most_at_once(struct store *s);

#endif
