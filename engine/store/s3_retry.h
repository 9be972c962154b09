/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an answer means, and when to try again.  Pure but for the clock and the dice.
 *
 * A pause is drawn between 100 ms and three times the one before, 5 s at most (decorrelated
 * jitter: clients that were refused together do not come back together); what Retry-After says is
 * the least.  A request that does not get on within its patience is given up.
 */
#ifndef ASOF_STORE_S3_RETRY_H
#define ASOF_STORE_S3_RETRY_H

#include "engine/base/err.h"
#include "engine/store/s3_http.h"
#include "engine/store/s3_xml.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum s3_meaning {
	S3_OK,
	S3_GONE,      /* no such object (or upload) */
	S3_NO_BUCKET, /* no such bucket */
	S3_THERE,     /* a condition failed: the object is there, or another one */
	S3_LATER,     /* trying again may help */
	S3_MOVED,     /* another region or host has it */
	S3_SKEWED,    /* our clock is off */
	S3_STALE_KEY, /* credentials expired or unknown */
	S3_DENIED,
	S3_FULL,   /* quota or disk */
	S3_CANNOT, /* the store does not do that */
	S3_PAST_END,
	S3_WRONG, /* the request makes no sense to it */
};
/* `e`: of the body, code "" if it had none. */
enum s3_meaning s3_meaning_of(const struct http_answer *a, const struct s3_error *e);
/* The kind of error that ends a request with it. */
enum err_kind s3_meaning_kind(enum s3_meaning m);

struct s3_retry {
	int64_t patience_us, deadline_us; /* monotonic */
	int64_t pause_us;
	unsigned tries;
};
void s3_retry_begin(struct s3_retry *r, int64_t patience_ms);
/* There was progress: the patience begins anew. */
void s3_retry_progress(struct s3_retry *r);
/* Waits before the next try.  UNAVAILABLE, without a text: patience is over.  CANCELLED. */
int s3_retry_wait(struct s3_retry *r, int64_t retry_after_ms, const _Atomic bool *stop) MUST_USE;

#endif
