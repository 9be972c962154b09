/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A history, what was sent of it to a store (in memory), and what retention is to have left there:
 * for tests of retention at a destination.
 */
#ifndef ASOF_TESTS_WORLD_H
#define ASOF_TESTS_WORLD_H

#include "engine/view/history.h"
#include "tests/lib/shipped.h"
#include "tests/lib/thinned.h"

struct world {
	struct synth *s;
	struct store *store;
	struct kept k;
	uint64_t marks[8];
	size_t n_marks;
	bool retained; /* here, or there: copies that began before it come no more */
};

/* Of that folder, with a first commit, which is there; its shape follows from the seed. */
void world_make(struct world *w, const char *root, uint64_t seed);
void world_free(struct world *w);
/* What the archive has goes there. */
void world_ship(struct world *w);
/* `n` commits more, and perhaps upkeep; all of it goes there. */
void world_go_on(struct world *w, unsigned n);
/* Some moment gets a mark, if there are not too many. */
void world_random_mark(struct world *w);

/* A pass with whatever store; of `dry` only what it would do. */
int world_retain_at(const char *root, struct store *store, const struct retain_policy *policy,
                    int64_t now, bool dry, struct retain_result *res, struct err *err);
/* What is known here of retention there is disposable; without it the next pass looks. */
void world_forget(const char *root);
/* A pass at the world's store, which leaves what its policy says. */
void world_pass(struct world *w, const struct retain_policy *policy, int64_t now);

/* A copy of a store, in memory. */
struct store *world_clone(struct store *from);
/* What a pass at `now` would keep; free() it. */
bool *world_expect(struct world *w, const struct retain_policy *policy, int64_t now);
/* Made, gone on, with all of its fine segments at the store. */
void world_sent(struct world *w, const char *root, uint64_t seed);
/* A world with segments to thin, and what a pass at *now would keep of it; free() it. */
bool *world_sweep(struct world *w, const char *root, uint64_t seed,
                  const struct retain_policy *policy, int64_t *now);

/* As any reader meets it. */
struct world_reader {
	struct breaking b;
	struct archive *a;
	struct history *h;
};
void world_open_reader(struct world_reader *r, struct store *store);
void world_close_reader(struct world_reader *r);
/* What is kept reads as it was, nothing reads wrong; `gone`: and all else is told as that. */
void world_compare(struct world *w, struct history *h, const bool *kept, bool gone);
/* By who comes just now. */
void world_compare_now(struct world *w, struct store *store, const bool *kept, bool gone);

#endif
