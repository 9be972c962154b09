/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/store/s3_i.h"

#include "engine/base/clock.h"
#include "engine/base/log.h"

#include <string.h>

#define REQUEST_MAX_BYTES (64 << 10)
#define MORE_HEADERS 9 /* than a call has: host, date, hash, token, signature, a customer's key */
#define AT_ONCE_MAX 4  /* redirects, clocks and keys, in one request */
#define PROGRESS_BYTES (64 << 10) /* so many begin the patience anew */
#define SKEW_LEAST_US (60 * US_PER_SECOND)
#define CONNECT_MAX_S 10
#define STALL_MAX_S 15

/* ---- one try ---- */

struct
try {
	struct s3 *s;
	struct s3_call *c;
	struct s3_credentials who;
	char *region, *host, *path;
	char date[S3_DATE_MAX];
	struct buf url, authorization, line_text;
	const char *lines[S3_MAX_PAIRS + MORE_HEADERS];
	size_t n_lines;
};

static void try_release(struct try *t)
{
	s3_credentials_release(&t->who);
	free(t->region);
	free(t->host);
	free(t->path);
	buf_release(&t->url);
	buf_release(&t->authorization);
	if (t->line_text.data)
		explicit_bzero(t->line_text.data, t->line_text.cap);
	buf_release(&t->line_text);
}
#define cleanup_try CLEANUP(try_release)

static int find_place(struct try *t, struct err *err)
{
	struct s3 *s = t->s;
	bool in_path = s->place.path_style;

	pthread_mutex_lock(&s->lock);
	t->region = strdup(s->region);
	t->host = strdup(s->host);
	pthread_mutex_unlock(&s->lock);
	int n = asprintf(&t->path, "/%s%s%s%s", in_path ? s->place.bucket : "",
	                 in_path && t->c->key ? "/" : "", t->c->key ? s->place.prefix : "",
	                 t->c->key ? t->c->key : "");
	if (n < 0)
		t->path = NULL;
	return t->region && t->host && t->path
	               ? 0
	               : err_set(err, ERR_NOMEM, 0, "no memory for a request");
}

static int make_url(struct try *t, struct err *err)
{
	int rc;

	if ((rc = buf_printf(&t->url, err, "%s://%s", t->s->place.scheme, t->host)) < 0 ||
	    (rc = s3_encode(t->path, true, &t->url, err)) < 0 || t->c->n_query == 0)
		return rc;
	if ((rc = buf_append(&t->url, "?", 1, err)) < 0)
		return rc;
	return s3_encode_query(t->c->query, t->c->n_query, &t->url, err);
}

/* The headers' lines lie one after the other in `line_text`, whose place is known at the end. */
static int make_lines(struct try *t, const struct s3_pair *headers, size_t n, struct err *err)
{
	size_t at[S3_MAX_PAIRS + MORE_HEADERS];
	int rc = 0;

	for (size_t i = 0; i < n && !rc; i++) {
		at[t->n_lines++] = t->line_text.len;
		if ((rc = buf_printf(&t->line_text, err, "%s: %s", headers[i].name,
		                     headers[i].value)) == 0)
			rc = buf_append(&t->line_text, "", 1, err);
	}
	for (size_t i = 0; i < t->n_lines; i++)
		t->lines[i] = (const char *)t->line_text.data + at[i];
	return rc;
}

#define CUSTOMER "x-amz-server-side-encryption-customer-"

static size_t add_customer(const struct s3_customer *key, struct s3_pair *headers, size_t n)
{
	headers[n++] = (struct s3_pair){CUSTOMER "algorithm", "AES256"};
	headers[n++] = (struct s3_pair){CUSTOMER "key", key->key};
	headers[n++] = (struct s3_pair){CUSTOMER "key-md5", key->md5};
	return n;
}

static int sign(struct try *t, struct err *err)
{
	struct s3_pair headers[S3_MAX_PAIRS + MORE_HEADERS];
	const struct s3_call *c = t->c;
	const char *hash = c->body_sha256 ? c->body_sha256 : S3_EMPTY_SHA256;
	size_t n = c->n_headers;

	memcpy(headers, c->headers, n * sizeof(*headers));
	headers[n++] = (struct s3_pair){"host", t->host};
	if (c->of_content && t->s->customer.key[0])
		n = add_customer(&t->s->customer, headers, n);
	headers[n++] = (struct s3_pair){"x-amz-date", t->date};
	headers[n++] = (struct s3_pair){"x-amz-content-sha256", hash};
	if (t->who.session_token)
		headers[n++] = (struct s3_pair){"x-amz-security-token", t->who.session_token};
	const struct s3_signing signing = {.method = c->method,
	                                   .path = t->path,
	                                   .query = c->query,
	                                   .n_query = c->n_query,
	                                   .headers = headers,
	                                   .n_headers = n,
	                                   .body_sha256 = hash,
	                                   .access_key_id = t->who.access_key_id,
	                                   .secret_access_key = t->who.secret_access_key,
	                                   .region = t->region,
	                                   .service = "s3",
	                                   .date = t->date};
	int rc = s3_sign(&signing, &t->authorization, err);
	if (rc < 0)
		return rc;
	headers[n++] = (struct s3_pair){"authorization", (const char *)t->authorization.data};
	return make_lines(t, headers, n, err);
}

static struct http *http_of(struct s3 *s, struct err *err)
{
	const struct http_options o = {.ca_file = s->place.ca_file,
	                               .proxy = s->place.proxy,
	                               .skip_verify = s->place.skip_verify,
	                               .stop = s->stop};

	LOCK_SCOPE(&s->lock);
	if (!s->http && http_new(&o, &s->http, err) < 0)
		return NULL;
	return s->http;
}

static unsigned at_most(int64_t patience_ms, unsigned most)
{
	int64_t s = patience_ms / 3000;

	return s < 1 ? 1 : s > most ? most : (unsigned)s;
}

static void count(struct s3 *s, enum store_verb verb, const struct http_answer *a, int rc)
{
	s->tally.sent_bytes += a->sent_bytes;
	s->tally.received_bytes += a->received_bytes;
	/* That something is not there, or there already, is an answer. */
	bool failed = rc < 0 || (a->status >= 300 && a->status != 404 && a->status != 412);
	store_tally_end(&s->tally, verb, failed ? -1 : 0);
}

static int try_once(struct try *t, struct http_answer *a, struct err *err)
{
	struct s3_call *c = t->c;
	struct http *h = http_of(t->s, err);
	int rc;

	if (!h)
		return -ERR_IO;
	if ((rc = s3_provider_get(t->s->provider, &t->who, err)) < 0 ||
	    (rc = find_place(t, err)) < 0)
		return rc;
	s3_format_date(clock_now_us() + t->s->skew_us, t->date);
	if ((rc = make_url(t, err)) < 0 || (rc = sign(t, err)) < 0)
		return rc;
	const struct http_request r = {
	        .method = c->method,
	        .url = (const char *)t->url.data,
	        .headers = t->lines,
	        .n_headers = t->n_lines,
	        .body = c->body,
	        .body_offset = c->body_offset,
	        .body_bytes = c->body_bytes,
	        .answer_bytes = c->answer_bytes,
	        .connect_s = at_most(t->s->patience_ms, CONNECT_MAX_S),
	        .stall_s = c->stall_s ? c->stall_s : at_most(t->s->patience_ms, STALL_MAX_S),
	        .head = c->head,
	        .sink = c->sink,
	        .ctx = c->ctx};
	rc = http_exchange(h, &r, a, err);
	count(t->s, c->verb, a, rc);
	return rc;
}

/* ---- what to do about the answer ---- */

/* Our clock is off: the difference is kept for all requests to come. */
static bool learn_clock(struct s3 *s, const struct http_answer *a)
{
	int64_t skew_us = a->date_us - clock_now_us(), change_us = skew_us - s->skew_us;

	if (!a->date_us || (change_us < SKEW_LEAST_US && change_us > -SKEW_LEAST_US))
		return false;
	s->skew_us = skew_us;
	log_warn("s3",
	         "the clock differs from the store's; its time is used for signatures "
	         "seconds=%lld store=%s",
	         (long long)(skew_us / US_PER_SECOND), s->base.label);
	return true;
}

/* "https://HOST/…" of the same scheme. */
static bool host_of_url(const char *scheme, const char *url, char *out, size_t size)
{
	size_t n = strlen(scheme);

	if (strncmp(url, scheme, n) != 0 || strncmp(url + n, "://", 3) != 0)
		return false;
	url += n + 3;
	size_t len = strcspn(url, "/?#");
	if (len == 0 || len >= size || strcspn(url, " @\\\"'<>") < len)
		return false;
	snprintf(out, size, "%.*s", (int)len, url);
	return true;
}

/* Takes `region` or `host` (malloc'ed, may be NULL) on; whether that is a change. */
static bool move_to(struct s3 *s, char *region, char *host)
{
	bool changed = false;

	pthread_mutex_lock(&s->lock);
	if (region && strcmp(region, s->region) != 0) {
		free(s->region);
		s->region = take_ptr(region);
		changed = true;
	}
	if (host && strcmp(host, s->host) != 0) {
		free(s->host);
		s->host = take_ptr(host);
		changed = true;
	}
	pthread_mutex_unlock(&s->lock);
	free(region);
	free(host);
	return changed;
}

static bool region_is_sound(const char *region)
{
	return *region && strspn(region, "abcdefghijklmnopqrstuvwxyz0123456789-") == strlen(region);
}

/* The right region, said in a header or the error's text, or another host. */
static bool follow(struct s3 *s, const struct http_answer *a, const struct s3_error *e)
{
	const char *said = a->region[0] ? a->region : e->region;
	char *region = region_is_sound(said) ? strdup(said) : NULL, *host = NULL;
	char moved[256];

	/* A host of our own making goes with the region; one that was given stays, unless the
	 * answer names another. */
	if (region && !s->place.endpoint) {
		if (s3_place_host(&s->place, region, &host, NULL) < 0)
			host = NULL;
	} else if (host_of_url(s->place.scheme, a->location, moved, sizeof(moved))) {
		host = strdup(moved);
	}
	if (!move_to(s, region, host))
		return false;
	if (!atomic_exchange(&s->has_followed, true)) {
		LOCK_SCOPE(&s->lock);
		log_warn("s3",
		         "the bucket lies elsewhere, requests go there from now on (put it "
		         "into the URL) store=%s region=%s host=%s",
		         s->base.label, s->region, s->host);
	}
	return true;
}

/* Whether the next try, at once, has another chance. */
static bool mend(struct try *t, const struct http_answer *a, const struct s3_error *e,
                 enum s3_meaning m)
{
	switch (m) {
	case S3_MOVED:
		return follow(t->s, a, e);
	case S3_SKEWED:
		return learn_clock(t->s, a);
	case S3_STALE_KEY:
		return s3_provider_refused(t->s->provider, t->who.generation);
	case S3_DENIED: /* some stores say no more when the clock is off */
		return e->code[0] && learn_clock(t->s, a);
	default:
		return false;
	}
}

static const char *advice(enum s3_meaning m, const struct s3_error *e)
{
	if (strcmp(e->code, "SignatureDoesNotMatch") == 0)
		return " (is the secret key right?)";
	switch (m) {
	case S3_NO_BUCKET:
		return " (no such bucket: make it, or see the URL)";
	case S3_MOVED:
		return " (is the region or the endpoint right?)";
	case S3_SKEWED:
		return " (set the clock)";
	case S3_STALE_KEY:
		return " (see the credentials)";
	case S3_FULL:
		return " (no space: raise the quota, or shorten the retention)";
	case S3_CANNOT:
		return " (the store does not do this)";
	default:
		return "";
	}
}

static int explain(const struct try *t, const struct http_answer *a, const struct s3_error *e,
                   enum s3_meaning m, struct err *err)
{
	if (m == S3_GONE && t->c->key && !e->code[0])
		return err_set(err, ERR_NOT_FOUND, 0, "'%s' is not in %s", t->c->key,
		               t->s->base.label);
	if (m == S3_GONE && strcmp(e->code, "NoSuchKey") == 0)
		return err_set(err, ERR_NOT_FOUND, 0, "'%s' is not in %s",
		               t->c->key ? t->c->key : "", t->s->base.label);
	return err_set(err, s3_meaning_kind(m), 0, "the store answers %d%s%s%s%.160s%s%s%s",
	               a->status, e->code[0] ? " " : "", e->code, e->message[0] ? ": " : "",
	               e->message, a->request_id[0] ? ", request " : "", a->request_id,
	               advice(m, e));
}

/* ---- until it is answered ---- */

struct attempt {
	int rc;
	enum s3_meaning meaning; /* if it was answered */
	bool at_once;
	int64_t retry_after_ms;
};

static struct attempt attempt(struct s3 *s, struct s3_call *c, struct http_answer *a,
                              struct err *err)
{
	cleanup_try struct try t = {.s = s,
	                            .c = c,
	                            .url = BUF_INIT(REQUEST_MAX_BYTES),
	                            .authorization = BUF_INIT(REQUEST_MAX_BYTES),
	                            .line_text = BUF_INIT(REQUEST_MAX_BYTES)};
	struct attempt r = {.meaning = S3_LATER};
	struct s3_error e = {.code = ""};

	if (c->begin)
		c->begin(c->ctx, c);
	r.rc = try_once(&t, a, err);
	if (r.rc < 0)
		return r;
	bool good = a->status >= 200 && a->status < 300;
	if ((!good || c->can_carry_error) && a->body.len)
		s3_xml_error(a->body.data, a->body.len, &e);
	r.meaning = s3_meaning_of(a, &e);
	if (r.meaning == S3_OK)
		return r;
	r.rc = explain(&t, a, &e, r.meaning, err);
	r.at_once = mend(&t, a, &e, r.meaning);
	r.retry_after_ms = a->retry_after_ms;
	return r;
}

static bool may_try_again(const struct attempt *r)
{
	return r->rc == -ERR_UNAVAILABLE;
}

static int give_up(struct s3 *s, const struct s3_call *c, const struct s3_retry *retry, int rc,
                   struct err *err)
{
	if (rc == -ERR_NOT_FOUND && c->key && err && err->msg[0] == '\'')
		return rc;
	if (rc == -ERR_UNAVAILABLE && retry->tries > 1)
		return err_wrap(err, rc, "%s %s%s%s, tried %u times", c->method, s->base.label,
		                c->key ? "/" : "", c->key ? c->key : "", retry->tries);
	return err_wrap(err, rc, "%s %s%s%s", c->method, s->base.label, c->key ? "/" : "",
	                c->key ? c->key : "");
}

int s3_request(struct s3 *s, struct s3_call *c, struct http_answer *a, enum s3_meaning *ret_meaning,
               struct err *err)
{
	struct s3_retry retry;
	unsigned at_once = 0;

	s3_retry_begin(&retry, s->patience_ms);
	for (uint64_t progress = c->progress_bytes;;) {
		struct err why = ERR_INIT;
		struct attempt r = attempt(s, c, a, &why);
		if (ret_meaning)
			*ret_meaning = r.meaning;
		if (r.rc == 0) {
			s->base.answered = true;
			return 0;
		}
		if (r.at_once && at_once++ < AT_ONCE_MAX)
			continue;
		if (c->progress_bytes - progress >= PROGRESS_BYTES) {
			progress = c->progress_bytes;
			s3_retry_progress(&retry);
		}
		if (a->status)
			s->base.answered = true;
		else if (may_try_again(&r))
			store_tell_of_silence(&s->base, retry.patience_us, &why);
		int rc =
		        may_try_again(&r) ? s3_retry_wait(&retry, r.retry_after_ms, s->stop) : r.rc;
		if (rc == -ERR_CANCELLED)
			return err_set(err, ERR_CANCELLED, 0, "stopped");
		if (rc < 0) {
			err_copy(err, &why);
			return give_up(s, c, &retry, r.rc, err);
		}
		log_debug("s3", "again try=%u why=\"%s\"", retry.tries, why.msg);
	}
}
