/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Encryption by the store with a key that the customer keeps (SSE-C): the key goes with each request
 * that writes or reads an object, so only over TLS, and the store forgets it.
 *
 *   x-amz-server-side-encryption-customer-algorithm   AES256
 *   x-amz-server-side-encryption-customer-key         the key as base64
 *   x-amz-server-side-encryption-customer-key-md5     its MD5 as base64
 *
 * The text of a key is base64 of 32 bytes; a file has that, or the bytes themselves.
 */
#ifndef ASOF_STORE_S3_CUSTOMER_H
#define ASOF_STORE_S3_CUSTOMER_H

#include "engine/base/err.h"

#include <stddef.h>
#include <stdint.h>

#define S3_CUSTOMER_KEY_BYTES 32

struct s3_customer {
	char key[45], md5[25]; /* as they go into headers; "": no such key */
};

/* USAGE where it is no key; the message does not have it. */
int s3_customer_key_parse(const char *text, size_t len, uint8_t ret[S3_CUSTOMER_KEY_BYTES],
                          struct err *err) MUST_USE;
/* Of a text, or a file; both NULL: none. */
int s3_customer_read(const char *text, const char *file, struct s3_customer *ret,
                     struct err *err) MUST_USE;

#endif
