/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Objects up.  The source is read twice: for its SHA-256, which is signed (so the store holds what
 * came against it), goes as checksum and stays beside the object, and to be sent.
 *
 * With STORE_CREATE it is one PUT with "If-None-Match: *", up to the 5 GB that one may have: many
 * stores ignore the condition where an upload in parts is completed.  When the object is there its
 * length and SHA-256 tell whether it is this very content, put by a request whose answer was lost.
 * A larger one is refused; nothing that asof creates exclusively is so large.
 *
 * Without it, what is larger than PART_FROM_BYTES goes up in parts; an upload that fails is
 * aborted.  Parts that nobody completes cost money and no listing shows them: at the end of each
 * upload whatever else was begun under its key is aborted too, by a killed process or by a request
 * whose answer was lost.  (Another writer of the key, whose upload that ends, finds the object there.)
 * What is left when nobody puts that key again is for a lifecycle rule
 * (AbortIncompleteMultipartUpload).
 */
#include "engine/store/s3_i.h"

#include <nettle/base64.h>
#include <nettle/sha2.h>
#include <string.h>

#define PART_FROM_BYTES (UINT64_C(64) << 20)
#define PART_LEAST_BYTES (UINT64_C(16) << 20)
#define HASH_CHUNK (256 << 10)
#define COMPLETE_STALL_S 120 /* joining many parts takes its time */

static int hash_source(struct source *body, uint64_t offset, uint64_t bytes,
                       uint8_t digest[SHA256_DIGEST_SIZE], struct err *err)
{
	cleanup_free uint8_t *chunk = malloc(HASH_CHUNK);
	struct sha256_ctx c;

	if (!chunk)
		return err_set(err, ERR_NOMEM, 0, "no memory to read what is put");
	sha256_init(&c);
	while (bytes) {
		size_t n = bytes < HASH_CHUNK ? (size_t)bytes : HASH_CHUNK;
		int rc = body->pread(body, chunk, n, offset, err);
		if (rc < 0)
			return rc;
		sha256_update(&c, n, chunk);
		offset += n;
		bytes -= n;
	}
	sha256_digest(&c, SHA256_DIGEST_SIZE, digest);
	return 0;
}

struct sum {
	char hex[S3_SHA256_HEX];
	char base64[BASE64_ENCODE_RAW_LENGTH(SHA256_DIGEST_SIZE) + 1];
};

static int sum_source(struct source *body, uint64_t offset, uint64_t bytes, struct sum *ret,
                      struct err *err)
{
	uint8_t digest[SHA256_DIGEST_SIZE];

	int rc = hash_source(body, offset, bytes, digest, err);
	if (rc < 0)
		return rc;
	s3_hex(digest, sizeof(digest), ret->hex);
	base64_encode_raw(ret->base64, sizeof(digest), digest);
	ret->base64[sizeof(ret->base64) - 1] = '\0';
	return 0;
}

/* What an object is to be kept as. */
static void add_kept_as(const struct s3 *s, struct s3_call *c, const char *sha256)
{
	s3_add_header(c, S3_META_SHA256, sha256);
	if (s->place.storage_class)
		s3_add_header(c, "x-amz-storage-class", s->place.storage_class);
	if (s->place.sse)
		s3_add_header(c, "x-amz-server-side-encryption", s->place.sse);
	if (s->place.sse_kms_key_id)
		s3_add_header(c, "x-amz-server-side-encryption-aws-kms-key-id",
		              s->place.sse_kms_key_id);
}

/* Something is there under the key: 0 if it is this content. */
static int compare(struct s3 *s, const char *key, uint64_t bytes, const char *sha256,
                   struct err *err)
{
	char theirs[S3_SHA256_HEX];
	struct s3_head head;

	int rc = s3_head(s, key, &head, err);
	if (rc < 0)
		return rc;
	bool same = head.bytes == bytes;
	if (same && head.sha256[0]) {
		same = strcmp(head.sha256, sha256) == 0;
	} else if (same) {
		if ((rc = s3_hash_object(s, key, bytes, theirs, err)) < 0)
			return rc;
		same = strcmp(theirs, sha256) == 0;
	}
	return same ? 0
	            : err_set(err, ERR_EXISTS, 0, "'%s' is there already in %s", key,
	                      s->base.label);
}

static int put_single(struct s3 *s, const char *key, struct source *body, uint64_t bytes,
                      unsigned flags, const struct sum *sum, struct err *err)
{
	struct http_answer cleanup_answer a = HTTP_ANSWER_INIT(HTTP_ERROR_MAX_BYTES);
	struct s3_call c = {.verb = STORE_PUT,
	                    .method = "PUT",
	                    .key = key,
	                    .body = body,
	                    .body_bytes = bytes,
	                    .body_sha256 = sum->hex,
	                    .can_carry_error = true,
	                    .of_content = true};
	enum s3_meaning meaning = S3_LATER;

	add_kept_as(s, &c, sum->hex);
	s3_add_header(&c, "x-amz-checksum-sha256", sum->base64);
	if (flags & STORE_CREATE)
		s3_add_header(&c, "if-none-match", "*");
	int rc = s3_request(s, &c, &a, &meaning, err);
	if (rc < 0 && meaning == S3_THERE)
		return compare(s, key, bytes, sum->hex, err);
	if (rc < 0 && meaning == S3_CANNOT && (flags & STORE_CREATE))
		return err_set(err, ERR_REFUSED, 0,
		               "%s has no conditional writes: '%s' cannot be put without the risk "
		               "of replacing another's",
		               s->base.label, key);
	return rc;
}

/* ---- in parts ---- */

struct parts {
	struct s3 *s;
	const char *key;
	struct source *body;
	uint64_t bytes, part_bytes;
	char *id;
	struct buf list; /* the XML that completes it */
};

static int begin_parts(struct parts *p, const struct sum *sum, struct err *err)
{
	struct http_answer cleanup_answer a = HTTP_ANSWER_INIT(HTTP_ERROR_MAX_BYTES);
	struct s3_call c = {.verb = STORE_PUT, .method = "POST", .key = p->key, .of_content = true};

	s3_add_query(&c, "uploads", "");
	add_kept_as(p->s, &c, sum->hex);
	int rc = s3_request(p->s, &c, &a, NULL, err);
	return rc < 0 ? rc
	              : s3_xml_text(a.body.data, a.body.len, "InitiateMultipartUploadResult",
	                            "UploadId", &p->id, err);
}

static int put_part(struct parts *p, unsigned number, uint64_t offset, uint64_t bytes,
                    struct err *err)
{
	struct http_answer cleanup_answer a = HTTP_ANSWER_INIT(HTTP_ERROR_MAX_BYTES);
	struct s3_call c = {.verb = STORE_PUT,
	                    .method = "PUT",
	                    .key = p->key,
	                    .body = p->body,
	                    .body_offset = offset,
	                    .body_bytes = bytes,
	                    .can_carry_error = true,
	                    .of_content = true};
	struct sum sum;
	char text[16];

	int rc = sum_source(p->body, offset, bytes, &sum, err);
	if (rc < 0)
		return rc;
	snprintf(text, sizeof(text), "%u", number);
	s3_add_query(&c, "partNumber", text);
	s3_add_query(&c, "uploadId", p->id);
	c.body_sha256 = sum.hex;
	if ((rc = s3_request(p->s, &c, &a, NULL, err)) < 0)
		return rc;
	if (!a.etag[0] || strpbrk(a.etag, "<&"))
		return err_set(err, ERR_DAMAGED, 0, "a part of '%s' got no ETag", p->key);
	return buf_printf(&p->list, err, "<Part><PartNumber>%u</PartNumber><ETag>%s</ETag></Part>",
	                  number, a.etag);
}

static int complete_parts(struct parts *p, struct err *err)
{
	struct http_answer cleanup_answer a = HTTP_ANSWER_INIT(HTTP_ERROR_MAX_BYTES);
	cleanup_source struct source *body = NULL;
	struct s3_call c = {.verb = STORE_PUT,
	                    .method = "POST",
	                    .key = p->key,
	                    .can_carry_error = true,
	                    .stall_s = COMPLETE_STALL_S};
	enum s3_meaning meaning = S3_LATER;
	struct s3_head head;
	char hex[S3_SHA256_HEX];

	int rc = buf_printf(&p->list, err, "</CompleteMultipartUpload>");
	if (rc < 0)
		return rc;
	s3_sha256_hex(p->list.data, p->list.len, hex);
	if ((rc = source_open_bytes(p->list.data, p->list.len, "parts", &body, err)) < 0)
		return rc;
	s3_add_query(&c, "uploadId", p->id);
	c.body = body;
	c.body_bytes = p->list.len;
	c.body_sha256 = hex;
	rc = s3_request(p->s, &c, &a, &meaning, err);
	/* It was completed already, by a try whose answer was lost. */
	if (rc < 0 && meaning == S3_GONE && s3_head(p->s, p->key, &head, NULL) == 0 &&
	    head.bytes == p->bytes)
		return 0;
	return rc;
}

static int abort_upload(struct s3 *s, const char *key, const char *id, struct err *err)
{
	struct http_answer cleanup_answer a = HTTP_ANSWER_INIT(HTTP_ERROR_MAX_BYTES);
	struct s3_call c = {.verb = STORE_DELETE, .method = "DELETE", .key = key};

	s3_add_query(&c, "uploadId", id);
	int rc = s3_request(s, &c, &a, NULL, err);
	return rc == -ERR_NOT_FOUND ? 0 : rc;
}

/* Aborts all uploads of the key.  Nothing depends on it: a key may not be allowed to list. */
static void sweep(struct parts *p)
{
	struct http_answer cleanup_answer a = HTTP_ANSWER_INIT(S3_ANSWER_MAX_BYTES);
	struct s3_call c = {.verb = STORE_LIST, .method = "GET"};
	struct s3_uploads cleanup_s3_uploads found = {0};
	cleanup_free char *key = NULL;

	if (asprintf(&key, "%s%s", p->s->place.prefix, p->key) < 0) {
		key = NULL;
		return;
	}
	s3_add_query(&c, "uploads", "");
	s3_add_query(&c, "prefix", key);
	if (s3_request(p->s, &c, &a, NULL, NULL) < 0 ||
	    s3_xml_uploads(a.body.data, a.body.len, &found, NULL) < 0)
		return;
	for (size_t i = 0; i < found.n; i++)
		if (strcmp(found.entries[i].key, key) == 0)
			(void)!abort_upload(p->s, p->key, found.entries[i].id, NULL);
}

static int put_parts(struct parts *p, const struct sum *sum, struct err *err)
{
	unsigned number = 1;

	int rc = begin_parts(p, sum, err);
	if (rc == 0)
		rc = buf_printf(&p->list, err, "<CompleteMultipartUpload>");
	for (uint64_t at = 0; at < p->bytes && rc == 0; at += p->part_bytes) {
		uint64_t left = p->bytes - at;
		rc = put_part(p, number++, at, left < p->part_bytes ? left : p->part_bytes, err);
	}
	if (rc == 0)
		rc = complete_parts(p, err);
	if (rc < 0 && p->id)
		(void)!abort_upload(p->s, p->key, p->id, NULL);
	if (rc == 0 || p->id)
		sweep(p);
	return rc;
}

static int put_in_parts(struct s3 *s, const char *key, struct source *body, uint64_t bytes,
                        const struct sum *sum, struct err *err)
{
	struct parts p = {.s = s,
	                  .key = key,
	                  .body = body,
	                  .bytes = bytes,
	                  .part_bytes = PART_LEAST_BYTES,
	                  .list = BUF_INIT(4 << 20)};

	while (p.part_bytes * (S3_PARTS_MAX - 1) < bytes)
		p.part_bytes *= 2;
	int rc = put_parts(&p, sum, err);
	free(p.id);
	buf_release(&p.list);
	return rc;
}

int s3_put(struct store *store, const char *key, struct source *body, uint64_t bytes,
           unsigned flags, struct err *err)
{
	struct s3 *s = s3_of(store);
	struct sum sum;

	if ((flags & STORE_CREATE) && bytes > S3_SINGLE_MAX_BYTES)
		return err_set(
		        err, ERR_REFUSED, 0,
		        "'%s' has %llu bytes: more than 5 GB cannot be put without the risk of "
		        "replacing another's",
		        key, (unsigned long long)bytes);
	int rc = sum_source(body, 0, bytes, &sum, err);
	if (rc < 0)
		return rc;
	return bytes > PART_FROM_BYTES && !(flags & STORE_CREATE)
	               ? put_in_parts(s, key, body, bytes, &sum, err)
	               : put_single(s, key, body, bytes, flags, &sum, err);
}
