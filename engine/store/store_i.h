/* SPDX-License-Identifier: Apache-2.0 */
/* What the kinds of store share.  Not for others. */
#ifndef ASOF_STORE_STORE_I_H
#define ASOF_STORE_STORE_I_H

#include "engine/store/store.h"

/* Counted by whoever makes requests. */
struct store_tally {
	_Atomic uint64_t requests[STORE_N_VERBS];
	_Atomic uint64_t errors, sent_bytes, received_bytes;
};
void store_tally_get(const struct store_tally *t, struct store_counters *ret);
/* Counts a request that ended with `rc`, and gives `rc`. */
int store_tally_end(struct store_tally *t, enum store_verb verb, int rc);

/* When a try got no answer at all (`why`), and another one is to come: whoever waits half a minute
 * for a wrong port is told after the first.  Places that answered once, and callers that chose their
 * patience and tell of it themselves (the daemon), have `answered`. */
void store_tell_of_silence(struct store *s, int64_t patience_us, const struct err *why);

/* USAGE unless it is a key as store.h has it. */
int store_key_check(const char *key, struct err *err) MUST_USE;
/* Whether a listing of `prefix` after `after` gives the key (or folder part) `key`. */
bool store_list_wants(const char *key, const char *prefix, const char *after);

/* ---- listing where there are folders (walk.c) ---- */

struct store_item {
	char *name; /* of a folder: with a '/' behind it, as keys sort */
	uint64_t bytes;
	int64_t modified_us;
};
struct store_items {
	struct store_item *e;
	size_t n, cap;
};
void store_items_release(struct store_items *l);
int store_items_add(struct store_items *l, const char *name, bool folder, uint64_t bytes,
                    int64_t modified_us, struct err *err) MUST_USE;
/* Adds what lies in `folder` ("" or ending with '/') and begins with `begin`, but what is on its
 * way; a folder that is not there is empty. */
typedef int store_read_folder_fn(void *ctx, const char *folder, const char *begin,
                                 struct store_items *ret, struct err *err);
struct store_walk {
	store_read_folder_fn *read;
	void *read_ctx;
	const char *after; /* may be NULL */
	bool deep;
	store_list_fn *fn;
	void *ctx;
};
/* As store_list(). */
int store_walk(const struct store_walk *w, const char *prefix, struct err *err) MUST_USE;

/* The kinds: store_open() chooses by the scheme of the URL. */
typedef int store_open_fn(const char *archive, const struct store_options *options,
                          struct store **ret, struct err *err);
store_open_fn store_open_local, store_open_s3, store_open_sftp;

#endif
