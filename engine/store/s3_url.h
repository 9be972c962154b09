/* SPDX-License-Identifier: Apache-2.0 */
/*
 * s3://bucket/prefix?endpoint=…&region=…: which bucket, where it is served, and how.
 *
 *   endpoint=URL           another store than AWS; https:// unless it says http://
 *   region=NAME            else AWS_REGION, AWS_DEFAULT_REGION, the profile's, us-east-1
 *   path-style=yes|no      bucket in the path or in the host's name; default: in the path with an
 *                          endpoint, in the name with AWS
 *   storage-class=NAME     STANDARD_IA, GLACIER_IR, …
 *   sse=AES256|aws:kms     encryption by the store; sse-kms-key-id=ID
 *   sse-customer-key-file=FILE  …with a key that the store does not keep (s3_customer.h)
 *   ca=FILE                the authorities that are trusted (AWS_CA_BUNDLE)
 *   proxy=URL              else as https_proxy, http_proxy and no_proxy say; proxy=none
 *   profile=NAME           of ~/.aws (AWS_PROFILE)
 *   skip-verify=yes        takes any certificate
 *
 * Values and prefix are %-encoded where they must be.  Secrets have no place in a URL.
 */
#ifndef ASOF_STORE_S3_URL_H
#define ASOF_STORE_S3_URL_H

#include "engine/base/cleanup.h"
#include "engine/base/err.h"
#include "engine/store/store.h"

#include <stdbool.h>

struct s3_place {
	char *bucket;
	char *prefix;   /* "" or with a '/' at its end */
	char *scheme;   /* "https" */
	char *endpoint; /* host[:port], NULL: AWS */
	char *region;   /* NULL: nothing said */
	char *storage_class, *sse, *sse_kms_key_id, *sse_customer_key_file;
	char *ca_file, *proxy, *profile;
	char *label; /* s3://bucket/prefix */
	bool path_style, skip_verify;
};

/* `options` are what a configuration says; the URL goes before them.  The environment's endpoint
 * (AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL), region and CA come last. */
int s3_place_parse(const char *url, const struct store_s3_options *options, struct s3_place *ret,
                   struct err *err) MUST_USE;
/* The host's name for requests to the bucket, given the region in effect. */
int s3_place_host(const struct s3_place *p, const char *region, char **ret,
                  struct err *err) MUST_USE;
void s3_place_release(struct s3_place *p);
#define cleanup_s3_place CLEANUP(s3_place_release)

#endif
