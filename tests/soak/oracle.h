/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the soak's writer leaves in a database, and its judge looks for: one row whose blob says
 * which transaction this is and chains it to the one before.
 *
 *      0 16  marker        16  8  seq: goes up by 1 with each transaction
 *     24  8  nonce: random 32 16  chain: mixed of the chain before, seq and nonce
 *
 * A commit that was lost, repeated, taken out of order or mixed up with another breaks the chain;
 * what came later cannot hide it.
 */
#ifndef ASOF_TESTS_SOAK_ORACLE_H
#define ASOF_TESTS_SOAK_ORACLE_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define ORACLE_MARKER "asof-oracle-row!"
#define ORACLE_SIZE 48
#define ORACLE_SLOTS 64

struct oracle {
	uint64_t seq, nonce, chain[2];
};

static inline uint64_t oracle_mix(uint64_t x)
{
	x ^= x >> 30;
	x *= UINT64_C(0xbf58476d1ce4e5b9);
	x ^= x >> 27;
	x *= UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

static inline struct oracle oracle_next(const struct oracle *o, uint64_t nonce)
{
	struct oracle n = {.seq = o->seq + 1, .nonce = nonce};

	n.chain[0] = oracle_mix(o->chain[0] ^ oracle_mix(n.seq) ^ o->chain[1]);
	n.chain[1] = oracle_mix(o->chain[1] + oracle_mix(nonce) + n.chain[0]);
	return n;
}

static inline void oracle_put(uint8_t p[ORACLE_SIZE], const struct oracle *o)
{
	memcpy(p, ORACLE_MARKER, 16);
	memcpy(p + 16, &o->seq, 8);
	memcpy(p + 24, &o->nonce, 8);
	memcpy(p + 32, o->chain, 16);
}

static inline bool oracle_get(const uint8_t *p, struct oracle *o)
{
	if (memcmp(p, ORACLE_MARKER, 16) != 0)
		return false;
	memcpy(&o->seq, p + 16, 8);
	memcpy(&o->nonce, p + 24, 8);
	memcpy(o->chain, p + 32, 16);
	return true;
}

/* What a writing process got acknowledged; a shared mapping, so that it outlives a SIGKILL. */
struct oracle_slot {
	uint64_t max_acked; /* newest seq whose COMMIT returned */
	uint64_t acked;     /* how many */
	uint64_t rollbacks;
	uint64_t busy;
	uint64_t plain_started; /* commits begun that do not move the counter: VACUUM */
	uint64_t largest;       /* rows of the largest transaction */
	uint64_t spare[2];
};

#endif
