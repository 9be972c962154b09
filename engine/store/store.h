/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where archives lie: an object store.
 *
 * An archive is a set of objects under keys.  A key is what the path below the archive's root
 * would be ("local/trades.db/segment/00000001-0000000000000042.wal.gz"): names joined by '/',
 * none of them empty, "." or "..".  A directory is such a store, a bucket with a prefix is one,
 * and so is a server that speaks SFTP.  Layers are stores over a store: encryption, faults for
 * tests.
 *
 *  (1) An object is there whole, or not at all: nobody ever reads half of one.
 *  (2) With STORE_CREATE a put never replaces: of many that put under one key one wins, the others
 *      get EXISTS.  A put that was tried again after an answer was lost is told from that of
 *      another writer by its content: EXISTS means another content.
 *  (3) put() returns 0 only when the object is as durable as the place can make it.
 *  (4) A read gives the bytes that were put, or an error: what the place itself keeps as checksum
 *      or length is held against what came.  (Formats check their own besides.)
 *  (5) Each request has a deadline and a least rate, is tried again with back-off and jitter where
 *      that may help, up to `patience_ms`; then UNAVAILABLE.  `stop` ends any wait.  That a place
 *      which has not answered yet is tried again is logged once, unless the caller chose how long.
 *  (6) list() gives what was put before it began, in order of keys as bytes; it may give what was
 *      put or removed meanwhile.
 *  (7) Secrets stand in no message and no log line.
 *
 * Errors: NOT_FOUND (no such object; no such bucket says so), EXISTS, DENIED (credentials or
 * policy), UNAVAILABLE (does not answer, or asks to come back later, and patience is over),
 * NO_SPACE (disk or quota), DAMAGED (what came is not what was put), READ_ONLY, REFUSED,
 * CANCELLED, USAGE (a URL that says nothing sensible), IO.
 *
 * All functions but store_free() may be called by many threads at once.
 */
#ifndef ASOF_STORE_STORE_H
#define ASOF_STORE_STORE_H

#include "engine/base/buf.h"
#include "engine/base/cleanup.h"
#include "engine/base/err.h"
#include "engine/base/source.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STORE_KEY_MAX 900 /* bytes; S3 takes 1024 with its prefix */

enum store_put_flags {
	STORE_CREATE = 1, /* see (2) */
};

enum store_verb { STORE_PUT, STORE_GET, STORE_LIST, STORE_HEAD, STORE_DELETE, STORE_N_VERBS };
const char *store_verb_name(enum store_verb verb);

/* Since the store was opened; tries count one by one. */
struct store_counters {
	uint64_t requests[STORE_N_VERBS];
	uint64_t errors; /* requests that failed, whether tried again or not */
	uint64_t sent_bytes, received_bytes;
};

struct store_entry {
	const char *key; /* valid during the call */
	uint64_t bytes;  /* of the object as read through this store */
	int64_t modified_us;
};
/* Returns 0 to go on; anything else ends the listing and is returned by it. */
typedef int store_list_fn(void *ctx, const struct store_entry *e, struct err *err);

struct store;
struct store_ops {
	int (*put)(struct store *s, const char *key, struct source *body, uint64_t bytes,
	           unsigned flags, struct err *err);
	int (*get)(struct store *s, const char *key, size_t max_bytes, struct buf *ret,
	           struct err *err);
	int (*open)(struct store *s, const char *key, uint64_t bytes, struct source **ret,
	            struct err *err);
	int (*list)(struct store *s, const char *prefix, const char *after, bool deep,
	            store_list_fn *fn, void *ctx, struct err *err);
	int (*remove)(struct store *s, const char *key, struct err *err);
	void (*counters)(struct store *s, struct store_counters *ret);
	void (*free)(struct store *s);
};
/* What every kind begins with. */
struct store {
	const struct store_ops *ops;
	char *label; /* for messages: the path, or the URL without secrets */
	bool remote; /* requests cost a round trip: batch, read ahead, keep what was read */
	int dir_fd;  /* of a directory: its root (borrowed by callers); else -1 */
	bool sealed; /* encrypted there: what is read is kept nowhere in the clear */
	_Atomic signed char creates; /* what store_creates() found: 1 yes, -1 no, 0 not known yet */
	_Atomic bool answered;       /* or that it does not was told; see (5) */
	int64_t settle_us;           /* for tests: instead of KEY_SETTLE_US; 0: that */
};

/* Puts `bytes` bytes of `body`, which is read from its beginning as often as it takes. */
int store_put(struct store *s, const char *key, struct source *body, uint64_t bytes, unsigned flags,
              struct err *err) MUST_USE;
int store_put_bytes(struct store *s, const char *key, const void *p, size_t len, unsigned flags,
                    struct err *err) MUST_USE;
/* The whole of an object of at most `max_bytes` (larger: DAMAGED), appended to `ret`. */
int store_get(struct store *s, const char *key, size_t max_bytes, struct buf *ret,
              struct err *err) MUST_USE;
/* For reading by ranges.  `bytes`: its size where a listing told (no request is made then; a
 * missing object shows at the first read, as NOT_FOUND), else UINT64_MAX. */
int store_open_object(struct store *s, const char *key, uint64_t bytes, struct source **ret,
                      struct err *err) MUST_USE;
/*
 * Keys that begin with `prefix` and come after `after` (NULL: all).  Not `deep`: of keys with a
 * '/' past the prefix only the part up to and with it is given, once, with 0 bytes, if that part
 * comes after `after`.  (Of a directory also those that no longer hold anything.)
 */
int store_list(struct store *s, const char *prefix, const char *after, bool deep, store_list_fn *fn,
               void *ctx, struct err *err) MUST_USE;
/* What is not there is removed already. */
int store_remove(struct store *s, const char *key, struct err *err) MUST_USE;
void store_get_counters(struct store *s, struct store_counters *ret);
/* Removes what processes that died had on its way to a directory: below `folder`, itself below `dir_fd`
 * (-1: it is none, and nothing is done). */
void store_sweep(int dir_fd, const char *folder);
void store_free(struct store *s);
DEFINE_CLEANUP(struct store, store_free);
#define cleanup_store CLEANUP(store_free_p)

/* ---- opening one ---- */

/* What a configuration says beyond the URL; texts may be NULL.  Where nothing is said, what the
 * environment, profiles and the machine give counts (s3_credentials.h). */
struct store_s3_options {
	const char *region, *endpoint, *storage_class;
	const char *access_key_id, *secret_access_key, *session_token;
	const char *ca_file, *proxy, *profile;
	const char *sse, *sse_kms_key_id; /* x-amz-server-side-encryption… */
	/* Of 32 bytes as base64, or a file that has it (s3_customer.h). */
	const char *sse_customer_key, *sse_customer_key_file;
	bool force_path_style, skip_verify;
};

struct store_options {
	struct store_s3_options s3;
	const char *sftp_key_file, *sftp_known_hosts;
	const char
	        *sftp_host_key; /* "ssh-ed25519 AAAA…": the host has this one, whatever is known */
	/* The identity that seals and opens what lies there (crypt.h), in a file or printed by a
	 * command.  Both NULL: what ASOF_KEY_FILE, or ASOF_KEY_COMMAND, of the environment name, for
	 * a URL and for a directory that has keys. */
	const char *key_file, *key_command;
	int64_t patience_ms; /* 0: the default, 30 s */
	bool create;         /* a directory that is not there is made */
	const _Atomic bool *stop;
};

/* Whether ARCHIVE is a URL ("s3://…", "sftp://…") and no directory. */
bool store_is_url(const char *archive);
/*
 * Opens an ARCHIVE: a directory, s3://bucket/prefix?endpoint=…&region=…, sftp://user@host/path.
 * A bucket is not asked for anything yet.  `options` may be NULL.
 */
int store_open(const char *archive, const struct store_options *options, struct store **ret,
               struct err *err) MUST_USE;

/* For tests: objects in memory. */
int store_open_memory(struct store **ret, struct err *err) MUST_USE;

#endif
