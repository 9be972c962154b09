/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Profiles of ~/.aws: sections of "name = value".
 *
 *   credentials   [NAME]                     aws_access_key_id, aws_secret_access_key, …
 *   config        [default], [profile NAME]  the same, region, credential_process, role_arn, …
 *   config        [sso-session NAME]         sso_start_url, sso_region of the profiles that name it
 *
 * The file of credentials wins.  Lines that begin with # or ; and indented ones (nested settings)
 * do not count.
 */
#ifndef ASOF_STORE_S3_PROFILE_H
#define ASOF_STORE_S3_PROFILE_H

#include "engine/base/cleanup.h"
#include "engine/base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

struct s3_profile {
	char *access_key_id, *secret_access_key, *session_token;
	char *credential_process;
	char *role_arn, *web_identity_token_file, *role_session_name;
	char *source_profile, *credential_source, *external_id; /* who assumes the role */
	char *region;
	char *sso_session, *sso_start_url, *sso_region, *sso_account_id, *sso_role_name;
	bool found;
};
void s3_profile_release(struct s3_profile *p);
#define cleanup_s3_profile CLEANUP(s3_profile_release)

/* The profile of the texts (NULL: no such file).  Pure. */
int s3_profile_parse(const char *name, const char *credentials, const char *config,
                     struct s3_profile *ret, struct err *err) MUST_USE;
/* Of the files; one that is missing is empty.  `name` NULL: AWS_PROFILE, AWS_DEFAULT_PROFILE,
 * "default". */
int s3_profile_read(const char *name, struct s3_profile *ret, struct err *err) MUST_USE;
const char *s3_profile_name(const char *name);

/* What tells that one of the files changed. */
struct s3_profile_stamp {
	struct timespec changed[2];
	uint64_t inode[2], bytes[2];
};
void s3_profile_stamp(struct s3_profile_stamp *ret);

#endif
