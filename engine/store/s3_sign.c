/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/store/s3_sign.h"

#include "engine/base/clock.h"

#include <nettle/hmac.h>
#include <nettle/sha2.h>
#include <stdlib.h>
#include <string.h>

#define SIGN_MAX_BYTES (64 << 10) /* of one request, all headers in */
#define MAX_PAIRS 32

void s3_hex(const uint8_t *p, size_t len, char *out)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < len; i++) {
		out[2 * i] = digits[p[i] >> 4];
		out[2 * i + 1] = digits[p[i] & 15];
	}
	out[2 * len] = '\0';
}

void s3_sha256_hex(const void *p, size_t len, char out[S3_SHA256_HEX])
{
	struct sha256_ctx c;
	uint8_t digest[SHA256_DIGEST_SIZE];

	sha256_init(&c);
	sha256_update(&c, len, p);
	sha256_digest(&c, sizeof(digest), digest);
	s3_hex(digest, sizeof(digest), out);
}

void s3_format_date(int64_t time_us, char out[S3_DATE_MAX])
{
	struct civil c;

	civil_from_us(time_us, &c);
	snprintf(out, S3_DATE_MAX, "%04d%02d%02dT%02d%02d%02dZ", c.year, c.month, c.day, c.hour,
	         c.minute, c.second);
}

static bool is_plain(char c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
	       c == '-' || c == '_' || c == '.' || c == '~';
}

int s3_encode(const char *text, bool path, struct buf *ret, struct err *err)
{
	static const char digits[] = "0123456789ABCDEF";
	size_t len = strlen(text);

	int rc = buf_reserve(ret, 3 * len + 1, err);
	if (rc < 0)
		return rc;
	for (size_t i = 0; i < len; i++) {
		uint8_t c = (uint8_t)text[i];
		if (is_plain(text[i]) || (path && c == '/')) {
			ret->data[ret->len++] = c;
			continue;
		}
		ret->data[ret->len++] = '%';
		ret->data[ret->len++] = (uint8_t)digits[c >> 4];
		ret->data[ret->len++] = (uint8_t)digits[c & 15];
	}
	ret->data[ret->len] = '\0';
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct s3_pair *)a)->name, ((const struct s3_pair *)b)->name);
}

/* No query of ours has a name twice, so the names, which are plain, give the order. */
int s3_encode_query(const struct s3_pair *query, size_t n, struct buf *ret, struct err *err)
{
	struct s3_pair sorted[MAX_PAIRS];
	int rc = buf_reserve(ret, 1, err);

	if (rc < 0)
		return rc;
	if (n > MAX_PAIRS)
		return err_set(err, ERR_USAGE, 0, "a query of %zu parts", n);
	if (n)
		memcpy(sorted, query, n * sizeof(*query));
	qsort(sorted, n, sizeof(*sorted), by_name);
	ret->data[ret->len] = '\0';
	for (size_t i = 0; i < n; i++) {
		if ((i && (rc = buf_append(ret, "&", 1, err)) < 0) ||
		    (rc = s3_encode(sorted[i].name, false, ret, err)) < 0 ||
		    (rc = buf_append(ret, "=", 1, err)) < 0 ||
		    (rc = s3_encode(sorted[i].value, false, ret, err)) < 0)
			return rc;
	}
	return 0;
}

/* Blanks around a value go, rows of them within become one. */
static int append_value(struct buf *ret, const char *value, struct err *err)
{
	bool blank = false, any = false;

	int rc = buf_reserve(ret, strlen(value), err);
	if (rc < 0)
		return rc;
	for (const char *p = value; *p; p++) {
		if (*p == ' ') {
			blank = any;
			continue;
		}
		if (blank)
			ret->data[ret->len++] = ' ';
		blank = false;
		any = true;
		ret->data[ret->len++] = (uint8_t)*p;
	}
	return 0;
}

static int append_names(const struct s3_pair *sorted, size_t n, struct buf *ret, struct err *err)
{
	int rc = 0;

	for (size_t i = 0; i < n && !rc; i++)
		rc = buf_printf(ret, err, "%s%s", i ? ";" : "", sorted[i].name);
	return rc;
}

static int sort_headers(const struct s3_signing *s, struct s3_pair sorted[MAX_PAIRS],
                        struct err *err)
{
	if (s->n_headers > MAX_PAIRS)
		return err_set(err, ERR_USAGE, 0, "a request with %zu headers", s->n_headers);
	memcpy(sorted, s->headers, s->n_headers * sizeof(*sorted));
	qsort(sorted, s->n_headers, sizeof(*sorted), by_name);
	return 0;
}

int s3_canonical_request(const struct s3_signing *s, struct buf *ret, struct err *err)
{
	struct s3_pair sorted[MAX_PAIRS];
	int rc;

	if ((rc = sort_headers(s, sorted, err)) < 0 ||
	    (rc = buf_printf(ret, err, "%s\n", s->method)) < 0 ||
	    (rc = s3_encode(s->path, true, ret, err)) < 0 ||
	    (rc = buf_append(ret, "\n", 1, err)) < 0 ||
	    (rc = s3_encode_query(s->query, s->n_query, ret, err)) < 0 ||
	    (rc = buf_append(ret, "\n", 1, err)) < 0)
		return rc;
	for (size_t i = 0; i < s->n_headers; i++)
		if ((rc = buf_printf(ret, err, "%s:", sorted[i].name)) < 0 ||
		    (rc = append_value(ret, sorted[i].value, err)) < 0 ||
		    (rc = buf_append(ret, "\n", 1, err)) < 0)
			return rc;
	if ((rc = buf_append(ret, "\n", 1, err)) < 0 ||
	    (rc = append_names(sorted, s->n_headers, ret, err)) < 0)
		return rc;
	return buf_printf(ret, err, "\n%s", s->body_sha256);
}

static void hmac(const uint8_t *key, size_t key_len, const char *text,
                 uint8_t out[SHA256_DIGEST_SIZE])
{
	struct hmac_sha256_ctx c;

	hmac_sha256_set_key(&c, key_len, key);
	hmac_sha256_update(&c, strlen(text), (const uint8_t *)text);
	hmac_sha256_digest(&c, SHA256_DIGEST_SIZE, out);
	explicit_bzero(&c, sizeof(c));
}

static int signing_key(const struct s3_signing *s, const char *day, uint8_t key[SHA256_DIGEST_SIZE],
                       struct err *err)
{
	struct buf first = BUF_INIT(SIGN_MAX_BYTES);

	int rc = buf_printf(&first, err, "AWS4%s", s->secret_access_key);
	if (rc == 0) {
		hmac(first.data, first.len, day, key);
		hmac(key, SHA256_DIGEST_SIZE, s->region, key);
		hmac(key, SHA256_DIGEST_SIZE, s->service, key);
		hmac(key, SHA256_DIGEST_SIZE, "aws4_request", key);
	}
	if (first.data)
		explicit_bzero(first.data, first.cap);
	buf_release(&first);
	return rc;
}

int s3_sign(const struct s3_signing *s, struct buf *ret, struct err *err)
{
	cleanup_buf struct buf request = BUF_INIT(SIGN_MAX_BYTES), text = BUF_INIT(SIGN_MAX_BYTES);
	uint8_t key[SHA256_DIGEST_SIZE], signature[SHA256_DIGEST_SIZE];
	char hash[S3_SHA256_HEX], hex[S3_SHA256_HEX], day[9];
	struct s3_pair sorted[MAX_PAIRS];
	int rc;

	snprintf(day, sizeof(day), "%.8s", s->date);
	if ((rc = s3_canonical_request(s, &request, err)) < 0)
		return rc;
	s3_sha256_hex(request.data, request.len, hash);
	if ((rc = buf_printf(&text, err, "AWS4-HMAC-SHA256\n%s\n%s/%s/%s/aws4_request\n%s", s->date,
	                     day, s->region, s->service, hash)) < 0 ||
	    (rc = signing_key(s, day, key, err)) < 0)
		return rc;
	hmac(key, sizeof(key), (const char *)text.data, signature);
	explicit_bzero(key, sizeof(key));
	s3_hex(signature, sizeof(signature), hex);
	if ((rc = sort_headers(s, sorted, err)) < 0 ||
	    (rc = buf_printf(ret, err,
	                     "AWS4-HMAC-SHA256 Credential=%s/%s/%s/%s/aws4_request, SignedHeaders=",
	                     s->access_key_id, day, s->region, s->service)) < 0 ||
	    (rc = append_names(sorted, s->n_headers, ret, err)) < 0)
		return rc;
	return buf_printf(ret, err, ", Signature=%s", hex);
}
