/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stretches of far objects, kept in a local folder: any number of processes use one folder.
 *
 *   DIR/XX/OBJECT-CHUNK     XX: two digits of a hash; OBJECT 32, CHUNK 16 digits, hexadecimal
 *
 * A file: "asofkept", u32 version (1), u32 length, 16 bytes object, u64 chunk, u64 hash64 of what is
 * before it and of what follows, then the bytes.  Numbers are little-endian.
 *
 *  (1) What is given is what was put, whatever became of the file: torn by a crash, damaged,
 *      exchanged, gone.  What does not match its hash is removed, and is as if it were not there.
 *  (2) Files appear whole, by renaming; nothing is fsynced, by (1).
 *  (3) Files take at most `max_bytes`, and a sixteenth of that for each process that uses the
 *      folder.  What was not used for longest goes first.  Nothing is put where less than a
 *      twentieth of the filesystem is free.
 *  (4) Nothing in here can fail: what cannot be kept is not kept.
 */
#ifndef ASOF_STORE_KEPT_H
#define ASOF_STORE_KEPT_H

#define KEPT_MIN_BYTES (16u << 20) /* less is no use */

#include "engine/base/cleanup.h"
#include "engine/base/err.h"
#include "engine/base/hash.h"

#include <limits.h>
#include <stddef.h>
#include <stdint.h>

struct kept;
struct kept_key {
	struct hash128 object;
	uint64_t chunk;
};

/* Makes the folder (0700) where it is missing. */
int kept_open(const char *dir, uint64_t max_bytes, struct kept **ret, struct err *err) MUST_USE;
void kept_free(struct kept *k);
/* Where, and how much, unless somebody says otherwise: $ASOF_CACHE_DIR (empty: nowhere), else
 * $XDG_CACHE_HOME/asof, else ~/.cache/asof; of root /var/cache/asof.  $ASOF_CACHE_SIZE, else 1 GiB.
 * False: nothing is kept.  USAGE: a size that is none. */
int kept_default(char dir[PATH_MAX], uint64_t *ret_bytes, bool *ret_keep, struct err *err) MUST_USE;
/* Exactly `len` bytes; false: they are not there. */
bool kept_get(struct kept *k, struct kept_key key, void *buf, size_t len);
/* A hint, without looking into the file. */
bool kept_has(struct kept *k, struct kept_key key);
void kept_put(struct kept *k, struct kept_key key, const void *p, size_t len);
void kept_drop(struct kept *k, struct kept_key key);

DEFINE_CLEANUP(struct kept, kept_free);
#define cleanup_kept CLEANUP(kept_free_p)

#endif
