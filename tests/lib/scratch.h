/* SPDX-License-Identifier: Apache-2.0 */
/* Chance that can be repeated, and folders to work in. */
#ifndef ASOF_TESTS_SCRATCH_H
#define ASOF_TESTS_SCRATCH_H

#include "engine/base/err.h"

#include <stdint.h>

/* ---- chance, reproducible ---- */
struct rng {
	uint64_t s;
};
uint64_t rng_next(struct rng *r);
/* 0 <= x < n */
uint64_t rng_below(struct rng *r, uint64_t n);
bool rng_chance(struct rng *r, unsigned percent);
/* ASOF_TEST_SEED, or one of its own, printed. */
uint64_t test_seed(void);

/* `n` rounds of something; a tenth of them with ASOF_TEST_SHORT (valgrind), ten times as many with
 * ASOF_TEST_FULL. */
unsigned test_rounds(unsigned n);

/* ---- scratch folders ---- */
/* A new folder, where an fsync costs nothing if there is such a place; free() the name after
 * test_remove().  What a failed test leaves is removed at exit. */
char *test_folder(void);
void test_remove(const char *path);

void synth_die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
/* Ends the test with the error's text when rc < 0. */
void synth_must(int rc, const struct err *err, const char *what);

#endif
