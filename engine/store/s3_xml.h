/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What S3 answers in XML: errors, listings, the beginning and the end of an upload in parts.
 * Parsed by expat from memory; depth, texts and numbers of entries are bounded, entities other than
 * the five of XML are refused.
 */
#ifndef ASOF_STORE_S3_XML_H
#define ASOF_STORE_S3_XML_H

#include "engine/base/cleanup.h"
#include "engine/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct s3_error {
	char code[64]; /* "" if there was none */
	char message[160];
	char region[64], endpoint[256];
};
/* Whether it is an error's document; what cannot be parsed is none. */
bool s3_xml_error(const void *xml, size_t len, struct s3_error *ret);

struct s3_listed {
	char *key;
	uint64_t bytes;
	int64_t modified_us;
	bool folder; /* a common prefix */
};
struct s3_listing {
	struct s3_listed *entries; /* in order of keys, folders among them */
	size_t n, n_alloc;
	bool truncated;
	char *next_token; /* NULL: none */
};
/* A page of ListObjectsV2.  Anything that is none is DAMAGED, an error's document too. */
int s3_xml_listing(const void *xml, size_t len, struct s3_listing *ret, struct err *err) MUST_USE;
void s3_listing_release(struct s3_listing *l);
#define cleanup_s3_listing CLEANUP(s3_listing_release)

/* A page of ListMultipartUploads; every entry's modified_us is when it was begun. */
struct s3_upload {
	char *key, *id;
	int64_t begun_us;
};
struct s3_uploads {
	struct s3_upload *entries;
	size_t n, n_alloc;
};
int s3_xml_uploads(const void *xml, size_t len, struct s3_uploads *ret, struct err *err) MUST_USE;
void s3_uploads_release(struct s3_uploads *u);
#define cleanup_s3_uploads CLEANUP(s3_uploads_release)

/* The text of `element` right below the root that is called `root`; malloc'ed. */
int s3_xml_text(const void *xml, size_t len, const char *root, const char *element, char **ret,
                struct err *err) MUST_USE;

#endif
