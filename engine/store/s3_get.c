/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Objects down.  A body that breaks off is taken up where it ended, by a range of the same version
 * (If-Match with the ETag of the first answer), so bytes of two versions never meet.  Held against
 * what came: the length, the range, and of whole objects that asof put the SHA-256 beside them.
 */
#include "engine/store/s3_i.h"

#include <nettle/sha2.h>
#include <string.h>

struct download {
	const char *key;
	uint64_t offset, len; /* len UINT64_MAX: all of it, as the answer has it */
	uint64_t total;       /* of the object; UINT64_MAX: not known yet */
	uint64_t max_bytes;   /* of a whole object */
	uint64_t got;
	char etag[128], sha256[65], range[64];
	bool changed; /* another version than the one it began with */
	bool begun;
	struct s3_call *call;
	int (*take)(void *ctx, const uint8_t *p, size_t len, struct err *err);
	void *ctx;
};

static bool is_whole(const struct download *d)
{
	return d->len == UINT64_MAX;
}

static void begin(void *ctx, struct s3_call *c)
{
	struct download *d = ctx;

	c->n_headers = 0;
	if (is_whole(d) && d->got)
		snprintf(d->range, sizeof(d->range), "bytes=%llu-", (unsigned long long)d->got);
	else if (!is_whole(d))
		snprintf(d->range, sizeof(d->range), "bytes=%llu-%llu",
		         (unsigned long long)(d->offset + d->got),
		         (unsigned long long)(d->offset + d->len - 1));
	if (!is_whole(d) || d->got)
		s3_add_header(c, "range", d->range);
	if (d->etag[0])
		s3_add_header(c, "if-match", d->etag);
}

/* Where the body of this answer begins and how long the object is. */
static int check_range(const struct download *d, const struct http_answer *a, uint64_t *ret_total,
                       struct err *err)
{
	uint64_t from = d->offset + d->got;
	bool part = !is_whole(d) || d->got;

	if (part && a->status == 206 && a->range_total) {
		uint64_t wanted_last = is_whole(d) ? a->range_total - 1 : d->offset + d->len - 1;
		if (a->range_first != from || a->range_last != wanted_last)
			return err_set(err, ERR_UNAVAILABLE, 0, "another range than was asked for");
		if (a->content_length != UINT64_MAX &&
		    a->content_length != a->range_last - a->range_first + 1)
			return err_set(err, ERR_UNAVAILABLE, 0, "a length that is not the range's");
		*ret_total = a->range_total;
		return 0;
	}
	/* (a store that knows no ranges, or a proxy that drops them) */
	if (a->content_length == UINT64_MAX)
		return err_set(err, ERR_UNAVAILABLE, 0, "an answer without a length");
	if (part && (from != 0 || a->content_length != d->len))
		return err_set(err, ERR_UNAVAILABLE, 0, "the whole object for a range of it");
	*ret_total = a->content_length;
	return 0;
}

static int on_head(void *ctx, const struct http_answer *a, struct err *err)
{
	struct download *d = ctx;
	uint64_t total;

	/* Nothing that an object store gives is without one; an error in a 200 is. */
	if (!a->etag[0])
		return err_set(err, ERR_UNAVAILABLE, 0, "an answer without an ETag");
	int rc = check_range(d, a, &total, err);
	if (rc < 0)
		return rc;
	if (d->etag[0] && strcmp(d->etag, a->etag) != 0) {
		d->changed = true;
		return err_set(err, ERR_DAMAGED, 0, "it was replaced while it was read");
	}
	if (d->total != UINT64_MAX && total != d->total)
		return err_set(err, ERR_DAMAGED, 0, "it has %llu bytes, not %llu",
		               (unsigned long long)total, (unsigned long long)d->total);
	if (is_whole(d) && total > d->max_bytes)
		return err_set(err, ERR_DAMAGED, 0, "it has %llu bytes, more than the %llu it may",
		               (unsigned long long)total, (unsigned long long)d->max_bytes);
	d->total = total;
	snprintf(d->etag, sizeof(d->etag), "%s", a->etag);
	if (!d->begun)
		snprintf(d->sha256, sizeof(d->sha256), "%s", a->sha256);
	d->begun = true;
	return 0;
}

static int on_body(void *ctx, const uint8_t *p, size_t len, struct err *err)
{
	struct download *d = ctx;
	uint64_t wanted = is_whole(d) ? d->total : d->len;

	if (len > wanted - d->got)
		return err_set(err, ERR_UNAVAILABLE, 0, "more bytes than the answer has");
	int rc = d->take(d->ctx, p, len, err);
	if (rc < 0)
		return rc;
	d->got += len;
	d->call->progress_bytes += len;
	return 0;
}

static int download(struct s3 *s, struct download *d, struct err *err)
{
	struct http_answer cleanup_answer a = HTTP_ANSWER_INIT(HTTP_ERROR_MAX_BYTES);
	struct s3_call c = {.verb = STORE_GET,
	                    .of_content = true,
	                    .method = "GET",
	                    .key = d->key,
	                    .answer_bytes = is_whole(d) ? d->max_bytes : d->len,
	                    .begin = begin,
	                    .head = on_head,
	                    .sink = on_body,
	                    .ctx = d};
	enum s3_meaning meaning = S3_LATER;

	d->call = &c;
	int rc = s3_request(s, &c, &a, &meaning, err);
	if (rc < 0 && meaning == S3_THERE) {
		d->changed = true;
		return err_set(err, ERR_DAMAGED, 0, "'%s' in %s was replaced while it was read",
		               d->key, s->base.label);
	}
	if (rc == 0 && d->got != (is_whole(d) ? d->total : d->len))
		return err_set(err, ERR_DAMAGED, 0, "'%s' in %s: the answer was too short", d->key,
		               s->base.label);
	return rc;
}

/* ---- whole ---- */

struct whole {
	struct buf *ret;
	struct sha256_ctx sha;
};

static int take_whole(void *ctx, const uint8_t *p, size_t len, struct err *err)
{
	struct whole *w = ctx;

	sha256_update(&w->sha, len, p);
	return w->ret ? buf_append(w->ret, p, len, err) : 0;
}

static int check_sha256(struct s3 *s, const struct download *d, struct whole *w, struct err *err)
{
	uint8_t digest[SHA256_DIGEST_SIZE];
	char hex[S3_SHA256_HEX];

	sha256_digest(&w->sha, sizeof(digest), digest);
	s3_hex(digest, sizeof(digest), hex);
	if (!d->sha256[0] || strcmp(d->sha256, hex) == 0)
		return 0;
	return err_set(err, ERR_DAMAGED, 0,
	               "'%s' in %s is not what was put: its SHA-256 is %.16s…, not %.16s…", d->key,
	               s->base.label, hex, d->sha256);
}

/* `ret` may be NULL: hashed only. */
static int get_whole(struct s3 *s, const char *key, uint64_t max_bytes, struct buf *ret,
                     char sha256[S3_SHA256_HEX], struct err *err)
{
	size_t len_before = ret ? ret->len : 0;

	for (unsigned i = 0;; i++) {
		struct whole w = {.ret = ret};
		struct download d = {.key = key,
		                     .len = UINT64_MAX,
		                     .total = UINT64_MAX,
		                     .max_bytes = max_bytes,
		                     .take = take_whole,
		                     .ctx = &w};
		sha256_init(&w.sha);
		int rc = download(s, &d, err);
		struct sha256_ctx sum = w.sha;
		if (rc == 0)
			rc = check_sha256(s, &d, &w, err);
		if (rc == 0 && sha256) {
			uint8_t digest[SHA256_DIGEST_SIZE];
			sha256_digest(&sum, sizeof(digest), digest);
			s3_hex(digest, sizeof(digest), sha256);
		}
		if (rc < 0 && ret)
			ret->len = len_before;
		/* A note that is written over just now: the new one, from its beginning. */
		if (rc == 0 || !d.changed || i == 3)
			return rc;
	}
}

int s3_get(struct store *store, const char *key, size_t max_bytes, struct buf *ret, struct err *err)
{
	return get_whole(s3_of(store), key, max_bytes, ret, NULL, err);
}

int s3_hash_object(struct s3 *s, const char *key, uint64_t bytes, char sha256[S3_SHA256_HEX],
                   struct err *err)
{
	return get_whole(s, key, bytes, NULL, sha256, err);
}

int s3_head(struct s3 *s, const char *key, struct s3_head *ret, struct err *err)
{
	struct http_answer cleanup_answer a = HTTP_ANSWER_INIT(HTTP_ERROR_MAX_BYTES);
	struct s3_call c = {.verb = STORE_HEAD, .method = "HEAD", .key = key, .of_content = true};

	int rc = s3_request(s, &c, &a, NULL, err);
	if (rc < 0)
		return rc;
	if (a.content_length == UINT64_MAX || !a.etag[0])
		return err_set(err, ERR_DAMAGED, 0, "HEAD '%s' in %s tells no length or no ETag",
		               key, s->base.label);
	ret->bytes = a.content_length;
	snprintf(ret->etag, sizeof(ret->etag), "%s", a.etag);
	snprintf(ret->sha256, sizeof(ret->sha256), "%s", a.sha256);
	return 0;
}

/* ---- ranges ---- */

static int take_range(void *ctx, const uint8_t *p, size_t len, struct err *err)
{
	uint8_t **at = ctx;

	memcpy(*at, p, len);
	*at += len;
	return 0;
}

int s3_read_range(struct s3 *s, const char *key, void *p, size_t len, uint64_t offset,
                  uint64_t total, char etag[128], struct err *err)
{
	uint8_t *at = p;
	struct download d = {.key = key,
	                     .offset = offset,
	                     .len = len,
	                     .total = total,
	                     .take = take_range,
	                     .ctx = &at};

	snprintf(d.etag, sizeof(d.etag), "%s", etag);
	int rc = download(s, &d, err);
	if (rc == 0)
		snprintf(etag, 128, "%s", d.etag);
	return rc;
}

struct s3_source {
	struct source base;
	struct s3 *s;
	char *key;
	uint64_t bytes;
	pthread_mutex_t lock;
	char etag[128]; /* of the first answer */
};

static int source_pread(struct source *base, void *p, size_t len, uint64_t offset, struct err *err)
{
	struct s3_source *o = (struct s3_source *)base;
	char etag[128];

	if (offset > o->bytes || len > o->bytes - offset)
		return err_set(err, ERR_DAMAGED, 0, "'%s' ends at %llu, before byte %llu",
		               base->name, (unsigned long long)o->bytes,
		               (unsigned long long)(offset + len));
	if (len == 0)
		return 0;
	pthread_mutex_lock(&o->lock);
	snprintf(etag, sizeof(etag), "%s", o->etag);
	pthread_mutex_unlock(&o->lock);
	bool first = !etag[0];
	int rc = s3_read_range(o->s, o->key, p, len, offset, o->bytes, etag, err);
	if (rc < 0 || !first)
		return rc;
	LOCK_SCOPE(&o->lock);
	if (!o->etag[0])
		snprintf(o->etag, sizeof(o->etag), "%s", etag);
	/* Two first reads at once saw two versions. */
	return strcmp(o->etag, etag) == 0
	               ? 0
	               : err_set(err, ERR_DAMAGED, 0, "'%s' was replaced while it was read",
	                         base->name);
}

static int source_size(struct source *base, uint64_t *ret_bytes, struct err *err)
{
	*ret_bytes = ((struct s3_source *)base)->bytes;
	return 0;
}

static void source_done(struct source *base)
{
	struct s3_source *o = (struct s3_source *)base;

	pthread_mutex_destroy(&o->lock);
	free(o->key);
	free(base->name);
	free(o);
}

int s3_open(struct store *store, const char *key, uint64_t bytes, struct source **ret,
            struct err *err)
{
	struct s3 *s = s3_of(store);
	struct s3_head head = {.bytes = bytes};

	int rc = bytes == UINT64_MAX ? s3_head(s, key, &head, err) : 0;
	if (rc < 0)
		return rc;
	struct s3_source *o = calloc(1, sizeof(*o));
	char *name = NULL, *copy = strdup(key);
	if (!o || !copy || asprintf(&name, "%s/%s", store->label, key) < 0) {
		free(o);
		free(copy);
		return err_set(err, ERR_NOMEM, 0, "no memory to open '%s'", key);
	}
	o->base = (struct source){.pread = source_pread,
	                          .size = source_size,
	                          .free = source_done,
	                          .name = name,
	                          .remote = true};
	o->s = s;
	o->key = copy;
	o->bytes = head.bytes;
	pthread_mutex_init(&o->lock, NULL);
	snprintf(o->etag, sizeof(o->etag), "%s", head.etag);
	*ret = &o->base;
	return 0;
}
