/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Credentials of a profile that signs in by SSO (IAM Identity Center), as `aws configure sso` writes it:
 *
 *   [profile P]       sso_session = S, sso_account_id, sso_role_name
 *   [sso-session S]   sso_start_url, sso_region
 *
 * (or all of it in the profile, without a session, as it was written before).  `aws sso login` leaves
 * a token in ~/.aws/sso/cache/SHA1.json, SHA1 of the session's name, or of the start URL where there is
 * none.  The portal gives keys of the role for it:
 *
 *   GET  https://portal.sso.REGION.amazonaws.com/federation/credentials   the token in a header; JSON
 *   POST https://oidc.REGION.amazonaws.com/token                          another token; JSON
 *
 * A token of a session that is about to expire is renewed where the file has what that takes, and
 * written back for the other programs that live on it; who signs in is a person, so where there is no
 * good one, the message says what to run.  AWS_ENDPOINT_URL_SSO and AWS_ENDPOINT_URL_SSO_OIDC name other
 * servers.
 */
#ifndef ASOF_STORE_S3_SSO_H
#define ASOF_STORE_S3_SSO_H

#include "engine/store/s3_fetch.h"
#include "engine/store/s3_profile.h"

/* Whether a profile signs in so. */
bool s3_sso_is_meant(const struct s3_profile *f);
/* DENIED: nobody is signed in, or the role is not theirs.  UNAVAILABLE: the portal does not answer.
 * `name`: of the profile, for what there is to run. */
int s3_fetch_sso(const struct s3_fetch_options *o, const char *name, const struct s3_profile *f,
                 struct s3_credentials *ret, struct err *err) MUST_USE;

/* The portal's answer, for tests.  Pure; `text` is bytes from outside. */
int s3_sso_parse(const char *text, size_t len, struct s3_credentials *ret,
                 struct err *err) MUST_USE;

#endif
