/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Encryption: a store over a store, whose objects the other holds sealed under the same keys.
 *
 *   offset  bytes
 *   0       8       "asofenc1"
 *   8       4       bytes of plain text in a block, 16384 (little-endian, as all numbers here)
 *   12      4       0
 *   16      16      id of the data key (keys.h)
 *   32      24      salt, random
 *   56      8       bytes of plain text in all
 *   64              blocks: cipher text, then 16 bytes of tag; all are full but the last one, and
 *                   there is at least one
 *
 *   object key = BLAKE2b-256 of (header, key of the object in its store), keyed with the data key
 *   block i    = XChaCha20-Poly1305 (IETF) with the object key; nonce: i in 8 bytes, 16 zeros;
 *                no additional data
 *
 *  (1) No bit of an object can be changed, no block moved, no object put in another's place, cut or
 *      made longer, without its blocks failing to open: length, place and name are in the key.
 *  (2) A nonce is never used twice with one key: each put has a salt of its own.
 *  (3) Reading needs the header and the blocks that hold what is asked for.
 *  (4) What is not sealed is not read (DAMAGED): nobody makes a plain object pass for a sealed one.
 *      The key objects of keys.h alone are plain.
 *  (5) Whole older versions of an object that was put again under its name are not told from the
 *      newest, nor is an end of the history that somebody took away: who has seen newer can ask
 *      for it (restore --expect-txid).  What is missing in the middle, the history tells.
 */
#ifndef ASOF_STORE_CRYPT_H
#define ASOF_STORE_CRYPT_H

#include "engine/store/keys.h"

#define CRYPT_MAGIC "asofenc1"
#define CRYPT_HEADER_BYTES 64u
#define CRYPT_BLOCK_BYTES 16384u
#define CRYPT_TAG_BYTES 16u

/* Takes `inner` over, in any case.  Keys are read at the first request; the first put into a store
 * without objects makes them. */
int store_open_crypt(struct store *inner, const struct key_identity *identity, struct store **ret,
                     struct err *err) MUST_USE;
/* A store without an identity: refuses to give sealed objects as if they were plain (REFUSED, and
 * says what to do).  Takes `inner` over, in any case. */
int store_open_plain(struct store *inner, struct store **ret, struct err *err) MUST_USE;
/* The store below. */
struct store *store_crypt_inner(struct store *s);

/* Bytes stored for so many of plain text, and back (false: no object has that size). */
uint64_t crypt_sealed_bytes(uint64_t plain_bytes);
bool crypt_plain_bytes(uint64_t sealed_bytes, uint64_t *ret);
/* Whether an object of that size can begin so: what is to be seen without the key. */
bool crypt_header_fits(const uint8_t header[CRYPT_HEADER_BYTES], uint64_t sealed_bytes);

#endif
