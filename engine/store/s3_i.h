/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The S3 store: what its files share.  Not for others.
 *
 *   s3.c          opening, listings, removal            s3_put.c       objects up, whole or in parts
 *   s3_get.c      objects down, whole or by ranges      s3_request.c   one request, until it is
 *   s3_url.c      the URL                                              answered or patience is over
 *   s3_sign.c     signatures                            s3_retry.c     what answers mean
 *   s3_xml.c      answers in XML                        s3_http.c      one exchange
 *   s3_credentials.c, s3_profile.c, s3_fetch.c          who we are
 *   s3_customer.c                                       a key that the store does not keep
 */
#ifndef ASOF_STORE_S3_I_H
#define ASOF_STORE_S3_I_H

#include "engine/store/s3_credentials.h"
#include "engine/store/s3_customer.h"
#include "engine/store/s3_http.h"
#include "engine/store/s3_retry.h"
#include "engine/store/s3_sign.h"
#include "engine/store/s3_url.h"
#include "engine/store/s3_xml.h"
#include "engine/store/store_i.h"

#define S3_PATIENCE_MS 30000
#define S3_ANSWER_MAX_BYTES (16 << 20) /* a page of a listing: 1000 keys of 1024 bytes */
#define S3_PARTS_MAX 10000
#define S3_SINGLE_MAX_BYTES (UINT64_C(5) << 30)
/* The header that holds the SHA-256 of an object's content, in hex. */
#define S3_META_SHA256 "x-amz-meta-asof-sha256"

struct s3 {
	struct store base;
	struct store_tally tally;
	struct s3_place place;
	struct s3_provider *provider;
	struct s3_customer customer;
	int64_t patience_ms;
	const _Atomic bool *stop;
	_Atomic int64_t skew_us;   /* their clock less ours */
	_Atomic bool has_followed; /* a redirect was logged */
	pthread_mutex_t lock;      /* what follows */
	struct http *http;         /* made by the first request */
	char *region, *host;       /* as found out; replaced, never freed while in use: copied */
};

static inline struct s3 *s3_of(struct store *s)
{
	return (struct s3 *)s;
}

#define S3_MAX_PAIRS 12

/* One request, tried until it is answered. */
struct s3_call {
	enum store_verb verb;
	const char *method;
	const char *key; /* below the archive's prefix; NULL: the bucket itself */
	struct s3_pair query[S3_MAX_PAIRS];
	size_t n_query;
	struct s3_pair headers[S3_MAX_PAIRS]; /* in lower case; all are signed */
	size_t n_headers;
	struct source *body;
	uint64_t body_offset, body_bytes;
	const char *body_sha256; /* NULL: there is no body */
	uint64_t answer_bytes;
	unsigned stall_s;     /* 0: as patience has it */
	bool can_carry_error; /* an answer 200 may have an error for its body */
	bool of_content; /* writes or reads an object's content or head: takes a customer's key */
	/* Before each try: sets what depends on how far it came.  May be NULL, as those below. */
	void (*begin)(void *ctx, struct s3_call *c);
	int (*head)(void *ctx, const struct http_answer *a, struct err *err);
	http_sink_fn *sink;
	void *ctx;
	uint64_t progress_bytes; /* of sinks: counts for patience */
};

static inline void s3_add_query(struct s3_call *c, const char *name, const char *value)
{
	c->query[c->n_query++] = (struct s3_pair){name, value};
}
static inline void s3_add_header(struct s3_call *c, const char *name, const char *value)
{
	c->headers[c->n_headers++] = (struct s3_pair){name, value};
}

/*
 * 0: answered with 2xx; `a` is that answer, its body whole.  Else the error says what the store
 * said, and *ret_meaning (may be NULL) what it means.  A head() or sink() that fails with
 * UNAVAILABLE has the request tried again.
 */
int s3_request(struct s3 *s, struct s3_call *c, struct http_answer *a, enum s3_meaning *ret_meaning,
               struct err *err) MUST_USE;

/* What HEAD tells. */
struct s3_head {
	uint64_t bytes;
	char etag[128], sha256[65];
};
int s3_head(struct s3 *s, const char *key, struct s3_head *ret, struct err *err) MUST_USE;

/* The SHA-256, in hex, of an object of at most so many bytes, by reading it. */
int s3_hash_object(struct s3 *s, const char *key, uint64_t bytes, char sha256[S3_SHA256_HEX],
                   struct err *err) MUST_USE;

/* ---- operations ---- */

int s3_put(struct store *s, const char *key, struct source *body, uint64_t bytes, unsigned flags,
           struct err *err) MUST_USE;
int s3_get(struct store *s, const char *key, size_t max_bytes, struct buf *ret,
           struct err *err) MUST_USE;
int s3_open(struct store *s, const char *key, uint64_t bytes, struct source **ret,
            struct err *err) MUST_USE;
/* A range into memory.  `etag`: of the version wanted; empty: any, and it is filled in.  With
 * `total` other than UINT64_MAX the object must have so many bytes. */
int s3_read_range(struct s3 *s, const char *key, void *p, size_t len, uint64_t offset,
                  uint64_t total, char etag[128], struct err *err) MUST_USE;

#endif
