/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Credentials that someone else hands out: a program, the token service, the container, the
 * machine.  For s3_credentials.c.  Where nobody is there to ask, 0 and nothing in `ret`.
 *
 *   a program   {"Version":1,"AccessKeyId":…,"SecretAccessKey":…,"SessionToken":…,"Expiration":…}
 *   STS         POST Action=AssumeRoleWithWebIdentity, or AssumeRole, signed; XML
 *   container   GET of the URI that the environment has, with the token that it has; JSON
 *   machine     PUT /latest/api/token, GET /latest/meta-data/iam/security-credentials/[ROLE]; JSON
 */
#ifndef ASOF_STORE_S3_FETCH_H
#define ASOF_STORE_S3_FETCH_H

#include "engine/store/s3_credentials.h"

#include <stddef.h>

struct s3_fetch_options {
	const char *region, *ca_file, *proxy;
	const _Atomic bool *stop;
};

int s3_fetch_process(const char *command, const _Atomic bool *stop, struct s3_credentials *ret,
                     struct err *err) MUST_USE;
int s3_fetch_web_identity(const struct s3_fetch_options *o, const char *role_arn,
                          const char *token_file, const char *session_name,
                          struct s3_credentials *ret, struct err *err) MUST_USE;
/* By `who`, whom the role trusts.  `external_id` may be NULL. */
int s3_fetch_role(const struct s3_fetch_options *o, const struct s3_credentials *who,
                  const char *role_arn, const char *external_id, const char *session_name,
                  struct s3_credentials *ret, struct err *err) MUST_USE;
int s3_fetch_container(const _Atomic bool *stop, struct s3_credentials *ret,
                       struct err *err) MUST_USE;
int s3_fetch_machine(const _Atomic bool *stop, struct s3_credentials *ret,
                     struct err *err) MUST_USE;

/* Copies of what somebody said, `expires` NULL: never.  They go into headers, so odd characters are
 * DENIED. */
int s3_fetch_take(const char *id, const char *secret, const char *token, const char *expires,
                  struct s3_credentials *ret, struct err *err) MUST_USE;

/* The answers, for tests; `action` of STS is the one that was asked for.  Pure; `text` is bytes from outside. */
int s3_fetch_parse_json(const char *text, size_t len, struct s3_credentials *ret,
                        struct err *err) MUST_USE;
int s3_fetch_parse_sts(const char *action, const char *text, size_t len, struct s3_credentials *ret,
                       struct err *err) MUST_USE;

#endif
