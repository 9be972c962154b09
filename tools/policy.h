/* SPDX-License-Identifier: Apache-2.0 */
/* What a bucket's owner grants and sets for asof, as the JSON documents that AWS's tools take. */
#ifndef ASOF_TOOLS_POLICY_H
#define ASOF_TOOLS_POLICY_H

#include "engine/base/err.h"
#include "engine/config/config.h"

/*
 * Prints one document for the buckets that the URLs name (others are passed over), or those of the
 * configuration (NULL: there is none).  `kind`: write, no-delete, read (policies of IAM), encryption,
 * lifecycle (of one bucket).  USAGE: another kind, no bucket, several where one is meant.
 */
int policy_print(const char *kind, char *const *urls, int n_urls, const struct config *c,
                 struct err *err) MUST_USE;

#endif
