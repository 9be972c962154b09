/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AWS Signature Version 4 for S3.  Pure: no clock, no I/O.
 *
 * libcurl has a signer of its own; 7.88 and 8 sign different requests wrongly (keys with '+' in a
 * query, queries out of order, headers whose names begin alike), and it cannot be told that the
 * clock is off.  So what is signed here is what is sent: path and query come decoded, are encoded
 * once by s3_encode() as the signature wants them, and go into the URL as they are.
 *
 *   canonical request   METHOD \n path \n query \n name:value\n… \n names \n sha256 of the body
 *   string to sign      "AWS4-HMAC-SHA256" \n time \n day/region/service/aws4_request \n sha256(above)
 *   key                 HMAC chain over "AWS4"+secret, day, region, service, "aws4_request"
 */
#ifndef ASOF_STORE_S3_SIGN_H
#define ASOF_STORE_S3_SIGN_H

#include "engine/base/buf.h"
#include "engine/base/err.h"

#include <stddef.h>
#include <stdint.h>

#define S3_DATE_MAX 20 /* "20130524T000000Z" */
#define S3_SHA256_HEX 65
#define S3_EMPTY_SHA256 "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

struct s3_pair {
	const char *name, *value;
};

struct s3_signing {
	const char *method;
	const char *path;            /* decoded, begins with '/' */
	const struct s3_pair *query; /* decoded, in any order */
	size_t n_query;
	const struct s3_pair
	        *headers; /* names in lower case, in any order; all of them are signed */
	size_t n_headers;
	const char *body_sha256; /* hex */
	const char *access_key_id, *secret_access_key;
	const char *region, *service;
	const char *date; /* as in the header x-amz-date, which is one of the headers */
};

/* Appends the value of the header Authorization. */
int s3_sign(const struct s3_signing *s, struct buf *ret, struct err *err) MUST_USE;
/* The canonical request: for tests, and for who looks for the reason of a refusal. */
int s3_canonical_request(const struct s3_signing *s, struct buf *ret, struct err *err) MUST_USE;
/* Appends `text` with all bytes but A-Z a-z 0-9 - _ . ~ (and '/' if `path`) as %XX, and a NUL past
 * its end. */
int s3_encode(const char *text, bool path, struct buf *ret, struct err *err) MUST_USE;
/* Appends "name=value&…", encoded and sorted, as it goes into the URL too. */
int s3_encode_query(const struct s3_pair *query, size_t n, struct buf *ret,
                    struct err *err) MUST_USE;
void s3_format_date(int64_t time_us, char out[S3_DATE_MAX]);
void s3_hex(const uint8_t *p, size_t len, char *out);
void s3_sha256_hex(const void *p, size_t len, char out[S3_SHA256_HEX]);

#endif
