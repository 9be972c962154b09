/* SPDX-License-Identifier: Apache-2.0 */
/* What tests of several places of one history share: what lies there, kept and put back; damage. */
#ifndef ASOF_TESTS_PLACES_H
#define ASOF_TESTS_PLACES_H

#include "tests/lib/shipped.h"

/* ---- stores as they were ---- */

struct file {
	char *key;
	uint8_t *bytes;
	size_t len;
};
struct files {
	struct file v[400]; /* sorted by key */
	size_t n;
	struct store *store;
};

void files_save(struct store *s, struct files *f);
void files_release(struct files *f);
const struct file *files_find(const struct files *f, const char *key);
bool file_is_same(const struct file *a, const struct file *b);
/* Puts and removes what differs. */
void files_restore(const struct files *f);
/* Whether just that lies there. */
bool files_same(const struct files *f, struct store *store);
void store_put_text(struct store *s, const char *key, const void *p, size_t len);

/* ---- three places of one history ---- */

struct pair {
	char *root;
	struct synth *s;
	/* The archive as a directory, whose writer ended; two destinations of it, of which the second
	 * was brought up less often. */
	struct store *local, *far, *far2;
	bool seen[2000]; /* which transactions can be seen, of what is to be damaged */
	unsigned n_seen;
};

struct pair pair_new(uint64_t seed);
void pair_free(struct pair *p);
/* Retention lets some of the directory's go, and, with grace_us 0, deletes it.  False: nothing. */
bool pair_thin(struct pair *p, int64_t grace_us);
/* A store over another, which stays the caller's; one at a time. */
struct store *store_lent(struct store *inner);
/* The history as that place alone has it. */
struct archive *pair_alone(struct pair *p, struct store *store, struct history **h);
/* Fills `seen`. */
void pair_look(struct pair *p, struct store *store);
/* What was seen then is; dies otherwise.  Bytes that are wrong are always fatal. */
void pair_must_see(struct pair *p, struct store *store, const char *what, const char *key);

/* ---- damage ---- */

enum harm { REMOVED, FLIPPED, CUT, EMPTIED, N_HARMS };
extern const char *const harms[N_HARMS];

void file_harm(struct pair *p, struct store *s, const struct file *f, enum harm how);
bool ends_with(const char *text, const char *end);
bool file_is_growing(const struct file *f);
/* The newest segment, of those that a writer sent: that it is gone, nobody else can tell. */
bool file_is_newest(const struct files *was, const struct file *f);

#endif
