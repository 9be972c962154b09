/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who we are to the store, found where other programs look for it, in this order:
 *
 *   1. the configuration's access_key_id and secret_access_key
 *   2. a profile that the URL names
 *   3. AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN;
 *      LITESTREAM_ACCESS_KEY_ID, LITESTREAM_SECRET_ACCESS_KEY
 *   4. AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN: exchanged at the token service (STS)
 *   5. the profile AWS_PROFILE (default) of ~/.aws/credentials and ~/.aws/config
 *      (AWS_SHARED_CREDENTIALS_FILE, AWS_CONFIG_FILE): a role that another profile or a place assumes
 *      (source_profile, credential_source), SSO, keys, credential_process, a web identity
 *   6. a container: AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or …_FULL_URI
 *   7. the machine: instance metadata, version 2 (AWS_EC2_METADATA_DISABLED=true: not asked)
 *
 * What expires is fetched anew five minutes before, files that changed are read again, and what the
 * store refused is given up: a process needs no restart for new keys.  Secrets stay in memory that
 * is cleared, and appear in no message.
 */
#ifndef ASOF_STORE_S3_CREDENTIALS_H
#define ASOF_STORE_S3_CREDENTIALS_H

#include "engine/base/cleanup.h"
#include "engine/base/err.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct s3_credentials {
	char *access_key_id, *secret_access_key;
	char *session_token; /* NULL: none */
	int64_t expires_us;  /* 0: never */
	uint64_t generation; /* of the provider: another number, other credentials */
};
void s3_credentials_release(struct s3_credentials *c);
#define cleanup_s3_credentials CLEANUP(s3_credentials_release)

struct s3_provider_options {
	const char *access_key_id, *secret_access_key, *session_token; /* may be NULL */
	const char *profile;                                           /* NULL: none named */
	const char *region;                                            /* of the token service */
	const char *ca_file, *proxy;                                   /* likewise */
	const _Atomic bool *stop;
};

struct s3_provider;
/* Keeps copies of the options; asks nobody yet. */
int s3_provider_new(const struct s3_provider_options *options, struct s3_provider **ret,
                    struct err *err) MUST_USE;
/* Those in effect, to be released.  DENIED where there are none; the message lists what was tried.
 * UNAVAILABLE: who should have given them did not answer.  Any thread. */
int s3_provider_get(struct s3_provider *p, struct s3_credentials *ret, struct err *err) MUST_USE;
/* The store refused those of `generation` (expired, unknown): they are not given out again unless
 * they are all that can be found.  Returns whether there are others now. */
bool s3_provider_refused(struct s3_provider *p, uint64_t generation);
/* Where they come from, in words, for `asof check`: "the environment"; "" before the first. */
const char *s3_provider_source(struct s3_provider *p);
void s3_provider_free(struct s3_provider *p);
DEFINE_CLEANUP(struct s3_provider, s3_provider_free);

/* The region that a profile (NULL: AWS_PROFILE, default) has; NULL: none.  malloc'ed. */
char *s3_profile_region(const char *profile);

#endif
