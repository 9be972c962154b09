/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a store lets us do, found out by doing it, with one object of the caller's naming.  It lies
 * where archives' objects do but is none of them; where deletion is denied it stays, so a caller
 * uses the same key each time.
 */
#ifndef ASOF_STORE_TRIAL_H
#define ASOF_STORE_TRIAL_H

#include "engine/store/store.h"

enum store_trial_step {
	TRIAL_WRITE,
	TRIAL_READ,
	TRIAL_LIST,
	TRIAL_CREATE, /* a conditional write: promise (2) of store.h */
	TRIAL_DELETE,
	N_TRIAL_STEPS
};
const char *store_trial_step_name(enum store_trial_step step);

enum store_trial_state {
	TRIAL_UNTRIED, /* what comes before it failed */
	TRIAL_OK,
	TRIAL_LACKS, /* asof works without, less well */
	TRIAL_FAILED,
};

struct store_trial {
	struct {
		enum store_trial_state state;
		struct err why; /* unless it is OK or UNTRIED */
	} steps[N_TRIAL_STEPS];
	/* The place's clock less ours, by the time that it gave the object; 0: within the second that
	 * such times are exact to. */
	bool has_clock;
	int64_t clock_us;
};

/* Each step for itself. */
void store_try_out(struct store *s, const char *key, struct store_trial *ret);

/*
 * Whether STORE_CREATE is kept: false where the store takes the condition and replaces, or refuses it.
 * Three requests.  The same key must not be tried at two places at once.  The error is of a store that
 * cannot be written at all.
 */
int store_find_creates(struct store *s, const char *key, bool *ret, struct err *err) MUST_USE;
/* The same, found out once for a store; *ret_fresh: it was now. */
int store_creates(struct store *s, const char *key, bool *ret, bool *ret_fresh,
                  struct err *err) MUST_USE;

#endif
