/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An object that will be read all over, brought here piece by piece by as many threads as there are,
 * into a file without a name: its pages are wanted in the order of the database, in which they do not
 * lie, so that each stretch would come many times.
 *
 *  (1) A piece comes once, by one request of STAGED_PIECE bytes: whoever wants one that is on its way
 *      waits for it, whoever wants one that nobody asked for asks.
 *  (2) Memory: one piece for each thread that brings one.  The disk: the object's size at most.
 *  (3) A piece that failed is not there: who wants it asks again, and is told.  What cannot be written
 *      here is given all the same, and nothing more is brought.
 *  (4) What is sealed where it comes from is in the clear in no file: this one has it enciphered, with
 *      a key that nothing but this memory knows.  (Whether it is what it should be, its hash tells.)
 */
#ifndef ASOF_STORE_STAGED_H
#define ASOF_STORE_STAGED_H

#include "engine/base/cleanup.h"
#include "engine/base/source.h"

#include <stdbool.h>

#define STAGED_PIECE (1u << 20)

struct staged;
/* `bytes`: of the object.  `sealed`: (4). */
int staged_new(uint64_t bytes, bool sealed, struct staged **ret, struct err *err) MUST_USE;
void staged_free(struct staged *s);
/* Brings the next piece that nobody asked for.  False: there is none. */
bool staged_bring_next(struct staged *s, struct source *from);
/* Some of the bytes at `offset`: as many as lie in one piece. */
int staged_read(struct staged *s, struct source *from, uint64_t offset, uint8_t *out, size_t len,
                size_t *ret_n, struct err *err) MUST_USE;
/* What is here of this stretch is not what it should be. */
void staged_forget(struct staged *s, uint64_t offset, size_t len);

DEFINE_CLEANUP(struct staged, staged_free);
#define cleanup_staged CLEANUP(staged_free_p)

#endif
