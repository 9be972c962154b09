/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One exchange of HTTP/1.1 after the other over connections that are kept: a request out, an
 * answer in, or an error.  It tries nothing twice and understands no answer; s3_request.h does.
 *
 * Bounds: connecting, silence (less than HTTP_LEAST_RATE bytes in a second for stall_s), and the
 * whole exchange by the bytes that it moves.  The error of a transfer that broke is UNAVAILABLE;
 * of a certificate that is not trusted REFUSED; of the body's source or the sink their own.
 */
#ifndef ASOF_STORE_S3_HTTP_H
#define ASOF_STORE_S3_HTTP_H

#include "engine/base/buf.h"
#include "engine/base/err.h"
#include "engine/base/source.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define HTTP_LEAST_RATE 1024 /* bytes in a second */
#define HTTP_ERROR_MAX_BYTES (64 << 10)

struct http_options {
	const char *ca_file; /* NULL: those of the system */
	const char *proxy;   /* NULL: as the environment has it; "": none */
	bool skip_verify;
	const _Atomic bool *stop; /* may be NULL */
};

/* Takes a part of the body of an answer 2xx; a negative result ends the exchange with it. */
typedef int http_sink_fn(void *ctx, const uint8_t *p, size_t len, struct err *err);

struct http_answer;
struct http_request {
	const char *method, *url;
	const char *const *headers; /* "name: value" */
	size_t n_headers;
	struct source *body; /* NULL: none */
	uint64_t body_offset, body_bytes;
	uint64_t answer_bytes; /* about what is expected, for the deadline */
	unsigned connect_s, stall_s;
	/* Looks at the head of an answer 2xx before its body; may be NULL. */
	int (*head)(void *ctx, const struct http_answer *a, struct err *err);
	http_sink_fn *sink; /* NULL: the body goes to answer.body, as those of errors do */
	void *ctx;
};

struct http_answer {
	int status;                                    /* 0: none came */
	uint64_t content_length;                       /* UINT64_MAX: not told */
	uint64_t range_first, range_last, range_total; /* of Content-Range; total 0: none */
	int64_t date_us;                               /* 0: not told */
	int64_t retry_after_ms;                        /* 0: not told */
	char etag[128], location[512], region[64], request_id[128], encryption[32];
	char sha256[65];                     /* x-amz-meta-asof-sha256 */
	struct buf body;                     /* with a NUL past its end */
	uint64_t sent_bytes, received_bytes; /* of bodies */
};
#define HTTP_ANSWER_INIT(max_body)                                                                 \
	{                                                                                          \
		.content_length = UINT64_MAX, .body = BUF_INIT(max_body)                           \
	}
void http_answer_release(struct http_answer *a);
#define cleanup_answer CLEANUP(http_answer_release)

struct http;
/* Opens nothing yet. */
int http_new(const struct http_options *options, struct http **ret, struct err *err) MUST_USE;
/* 0: an answer came whole, of whatever status.  Any thread. */
int http_exchange(struct http *h, const struct http_request *r, struct http_answer *a,
                  struct err *err) MUST_USE;
void http_free(struct http *h);

DEFINE_CLEANUP(struct http, http_free);
#define cleanup_http CLEANUP(http_free_p)

#endif
