/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/store/s3_customer.h"

#include "engine/base/cleanup.h"
#include "engine/base/file.h"

#include <fcntl.h>
#include <nettle/base64.h>
#include <nettle/md5.h>
#include <stdlib.h>
#include <string.h>

#define FILE_MAX_BYTES 256
#define TEXT_LEN 44 /* of 32 bytes as base64 */

int s3_customer_key_parse(const char *text, size_t len, uint8_t ret[S3_CUSTOMER_KEY_BYTES],
                          struct err *err)
{
	uint8_t out[BASE64_DECODE_LENGTH(TEXT_LEN)];
	struct base64_decode_ctx c;
	size_t n = sizeof(out);

	base64_decode_init(&c);
	if (len != TEXT_LEN || !base64_decode_update(&c, &n, out, len, text) ||
	    !base64_decode_final(&c) || n != S3_CUSTOMER_KEY_BYTES)
		return err_set(err, ERR_USAGE, 0,
		               "no key of 32 bytes as base64 (openssl rand -base64 32)");
	memcpy(ret, out, S3_CUSTOMER_KEY_BYTES);
	explicit_bzero(out, sizeof(out));
	return 0;
}

static int read_file(const char *path, uint8_t ret[S3_CUSTOMER_KEY_BYTES], struct err *err)
{
	char *text = NULL;
	size_t len;

	int rc = file_get(AT_FDCWD, path, FILE_MAX_BYTES, &text, &len, err);
	if (rc < 0)
		return err_wrap(err, rc, "the customer's key");
	if (len == S3_CUSTOMER_KEY_BYTES)
		memcpy(ret, text, len);
	else
		rc = s3_customer_key_parse(text, strcspn(text, "\r\n"), ret, err);
	explicit_bzero(text, len);
	free(text);
	return rc < 0 ? err_wrap(err, rc, "'%.300s'", path) : 0;
}

int s3_customer_read(const char *text, const char *file, struct s3_customer *ret, struct err *err)
{
	uint8_t key[S3_CUSTOMER_KEY_BYTES], digest[MD5_DIGEST_SIZE];
	struct md5_ctx c;

	*ret = (struct s3_customer){.key = ""};
	if (!text && !file)
		return 0;
	int rc = text ? s3_customer_key_parse(text, strlen(text), key, err)
	              : read_file(file, key, err);
	if (rc < 0)
		return rc;
	md5_init(&c);
	md5_update(&c, sizeof(key), key);
	md5_digest(&c, sizeof(digest), digest);
	base64_encode_raw(ret->key, sizeof(key), key);
	base64_encode_raw(ret->md5, sizeof(digest), digest);
	explicit_bzero(key, sizeof(key));
	return 0;
}
