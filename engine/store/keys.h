/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys of encrypted archives: who may read one, and who is believed to have written it.
 *
 * A person or machine has an *identity*, an X25519 key pair in a file of its own:
 *
 *     # asof identity, made 2026-11-26T12:00:00Z
 *     # public asofpub1:BASE64
 *     secret asofkey1:BASE64
 *     trust asofpub1:BASE64          of others whose key objects are believed, any number
 *
 * An archive has *data keys*, 32 random bytes each, counted from 1; the newest one seals, all of
 * them open.  Each lies in the archive as text, `keys/00000001.key`, boxed for every recipient
 * (libsodium's crypto_box, which also proves who boxed it):
 *
 *     asof-data-key 1
 *     number 1
 *     id 32 hexadecimal digits
 *     made 2026-11-26T12:00:00Z
 *     by asofpub1:BASE64
 *     recipient asofpub1:BASE64 BASE64 of nonce (24 bytes) and box (48 bytes)
 *     mac 64 hexadecimal digits
 *
 *  (1) A data key counts only when it was boxed by the identity itself or by one that it trusts:
 *      whoever can write to the bucket and knows all public keys cannot slip one in.
 *  (2) `id` is BLAKE2b-128 of "asof data key", keyed with the data key; `mac` is BLAKE2b-256 of all
 *      lines before it, keyed likewise.  So the list of recipients is what `by` made it.
 *  (3) Taking a recipient away re-boxes the keys there are without it and makes a new one: what was
 *      sealed before it can still read, from copies; what is sealed from then on it cannot.
 *  (4) What is sealed can be opened as long as the archive lies there: of two who make a key at once
 *      one has the other's.  Where no conditional write sees to that, a key counts when it has stood
 *      for KEY_SETTLE_US: whoever makes one, or is about to seal with one that young, waits and reads
 *      it again.  (Whoever looked before it was there and puts its own later than that breaks it; so
 *      it is with the claims of ship.h.)
 *
 * Errors: DENIED (the identity is no recipient, or does not trust who boxed it), DAMAGED, USAGE
 * (a file that is no identity), NOT_FOUND (no such file; the archive has no keys).
 */
#ifndef ASOF_STORE_KEYS_H
#define ASOF_STORE_KEYS_H

#include "engine/store/store.h"

#define KEY_BYTES 32
#define KEY_ID_BYTES 16
#define KEY_TEXT_MAX 64 /* "asofpub1:" and base64 */
#define KEY_TRUST_MAX 16
#define KEYS_FOLDER "keys/"
#define KEY_SETTLE_US (20 * US_PER_SECOND)

struct key_identity {
	uint8_t secret[KEY_BYTES], public[KEY_BYTES];
	uint8_t trust[KEY_TRUST_MAX][KEY_BYTES];
	size_t n_trust;
};
/* From a file, or (`command` not NULL) from what a command prints. */
int key_identity_load(const char *file, const char *command, struct key_identity *ret,
                      struct err *err) MUST_USE;
/* A new one, in a new file of mode 0600; EXISTS. */
int key_identity_make(const char *file, struct key_identity *ret, struct err *err) MUST_USE;
/* Forgets the secret. */
void key_identity_release(struct key_identity *i);
#define cleanup_key_identity CLEANUP(key_identity_release)

void key_public_format(const uint8_t key[KEY_BYTES], char out[KEY_TEXT_MAX]);
int key_public_parse(const char *text, uint8_t ret[KEY_BYTES], struct err *err) MUST_USE;

/* The data keys of one archive.  Any thread. */
struct key_ring;
/* Reads those there are.  `create`: makes the first when there are none, for the identity alone. */
int key_ring_open(struct store *plain, const struct key_identity *i, bool create,
                  struct key_ring **ret, struct err *err) MUST_USE;
void key_ring_free(struct key_ring *r);
DEFINE_CLEANUP(struct key_ring, key_ring_free);
#define cleanup_key_ring CLEANUP(key_ring_free_p)

struct data_key {
	uint32_t number;
	uint8_t id[KEY_ID_BYTES], key[KEY_BYTES];
	int64_t made_us;
};
/* Before the first is sealed: (4). */
int key_ring_settle(struct key_ring *r, struct err *err) MUST_USE;
/* The one that seals.  Looks for a newer one every ten minutes, so that a running daemon takes up
 * what another made. */
void key_ring_newest(struct key_ring *r, struct data_key *ret);
/* The one with that id; looks into the archive again for one that it does not know. */
int key_ring_find(struct key_ring *r, const uint8_t id[KEY_ID_BYTES], struct data_key *ret,
                  struct err *err) MUST_USE;

/* Recipients of the newest, in the order of its text. */
size_t key_ring_recipients(struct key_ring *r, uint8_t (**ret)[KEY_BYTES]);
size_t key_ring_size(struct key_ring *r);
/* EXISTS, NOT_FOUND, REFUSED (the last one, or oneself). */
int key_ring_add(struct key_ring *r, const uint8_t public[KEY_BYTES], struct err *err) MUST_USE;
int key_ring_remove(struct key_ring *r, const uint8_t public[KEY_BYTES], struct err *err) MUST_USE;
/* A new data key for the same recipients. */
int key_ring_rotate(struct key_ring *r, struct err *err) MUST_USE;

#endif
