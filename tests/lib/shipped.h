/* SPDX-License-Identifier: Apache-2.0 */
/* What tests of replication to a store share. */
#ifndef ASOF_TESTS_SHIPPED_H
#define ASOF_TESTS_SHIPPED_H

#include "engine/ship/ship.h"
#include "tests/lib/synth.h"

#define URL "memory"

/* A store over a store that fails from its Nth request on, before or after that took effect. */
struct breaking {
	struct store base;
	struct store *inner; /* not ours */
	long left;           /* requests; -1: for ever */
	bool takes_effect;   /* the one that fails first does */
	bool once;           /* it alone fails */
	enum err_kind kind;  /* ERR_NONE: UNAVAILABLE */
	uint64_t n, puts, put_bytes, removals;
	/* Called before each request. */
	void (*before)(void *ctx);
	void *ctx;
	/* Whether that may not be removed; NULL: everything may. */
	bool (*denies)(void *ctx, const char *key);
	void *denies_ctx;
	uint64_t denied;
};
/* For `denies`: credentials that cannot delete. */
bool deny_all(void *ctx, const char *key);
/* Its operations, but that it can be freed with what it lies over left as it is. */
extern const struct store_ops borrowed_ops;
struct breaking break_after(struct store *inner, long left, bool takes_effect);

/* A history to be, of "x.db" in that folder; its shape follows from the seed. */
struct synth *make(const char *root, uint64_t seed);
/* The newest that the archive shows. */
uint64_t newest(const struct synth *s);
/* A copy of an archive: another folder, so another writer. */
char *copy_of(const char *root);

/*
 * Each moment that can be seen there is right; and from the first to the last of them none is
 * missing that the archive can show, unless PARTLY: what is older is on its way; THINNED: the archive
 * let some go.  Returns the last.
 */
enum held { WHOLE, PARTLY, THINNED };
uint64_t check_held(const struct synth *s, struct store *store, enum held how);

struct shipper *open_shipper(const char *root, struct store *store, int64_t grace_us);
/* Until nothing is left, or it fails. */
int ship_all(struct shipper *s, struct err *err);
/* What is kept of a destination beside the history is disposable. */
void forget(const char *root);

#endif
