/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/store/s3_http.h"

#include "engine/base/clock.h"
#include "engine/base/curl.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define KEPT_MAX 16
#define EXPECT_FROM_BYTES (1 << 20) /* larger bodies ask first whether they are wanted */
#define EXPECT_WAIT_MS 500L
#define CURL_BUFFER_BYTES (256L << 10)
#define SLOWEST_BYTES_PER_S (32 << 10) /* what the deadline of a whole exchange allows for */
#define AT_LEAST_S 60

struct http {
	char *ca_file, *proxy;
	bool skip_verify;
	const _Atomic bool *stop;
	pthread_mutex_t lock; /* what follows */
	CURL *kept[KEPT_MAX]; /* the last one used is the first one taken */
	size_t n_kept;
};

struct exchange {
	struct http *h;
	const struct http_request *r;
	struct http_answer *a;
	uint64_t sent; /* where the body's source is read next */
	bool head_seen;
	int rc; /* of source or sink */
	struct err why;
	char curl_text[CURL_ERROR_SIZE];
};

/* ---- the head ---- */

static void copy_text(char *out, size_t size, const char *value, size_t len)
{
	snprintf(out, size, "%.*s", (int)(len < size ? len : size - 1), value);
}

static uint64_t digits(const char *p, const char **ret_end)
{
	uint64_t v = 0;
	size_t n = 0;

	while (*p >= '0' && *p <= '9' && n++ < 19)
		v = v * 10 + (uint64_t)(*p++ - '0');
	*ret_end = n > 0 && n <= 19 ? p : NULL;
	return v;
}

/* "bytes 0-99/1234" */
static void parse_content_range(struct http_answer *a, const char *value)
{
	const char *p;

	if (strncasecmp(value, "bytes ", 6) != 0)
		return;
	uint64_t first = digits(value + 6, &p);
	if (!p || *p != '-')
		return;
	uint64_t last = digits(p + 1, &p);
	if (!p || *p != '/')
		return;
	uint64_t total = digits(p + 1, &p);
	if (!p || last < first || total <= last)
		return;
	a->range_first = first;
	a->range_last = last;
	a->range_total = total;
}

static void parse_retry_after(struct exchange *x, const char *value)
{
	const char *p;
	uint64_t s = digits(value, &p);

	if (p && *p == '\0' && s <= 3600) {
		x->a->retry_after_ms = (int64_t)s * 1000;
		return;
	}
	time_t t = curl()->getdate(value, NULL);
	time_t now = time(NULL);
	if (t > now && t - now <= 3600)
		x->a->retry_after_ms = (int64_t)(t - now) * 1000;
}

static void parse_header(struct exchange *x, const char *name, const char *value, size_t len)
{
	struct http_answer *a = x->a;
	const char *p;

#define IS(text) (strcasecmp(name, text) == 0)
	if (IS("content-length")) {
		uint64_t v = digits(value, &p);
		if (p && !*p)
			a->content_length = v;
	} else if (IS("content-range")) {
		parse_content_range(a, value);
	} else if (IS("etag")) {
		copy_text(a->etag, sizeof(a->etag), value, len);
	} else if (IS("date")) {
		time_t t = curl()->getdate(value, NULL);
		a->date_us = t > 0 ? (int64_t)t * US_PER_SECOND : 0;
	} else if (IS("retry-after")) {
		parse_retry_after(x, value);
	} else if (IS("location")) {
		copy_text(a->location, sizeof(a->location), value, len);
	} else if (IS("x-amz-bucket-region")) {
		copy_text(a->region, sizeof(a->region), value, len);
	} else if (IS("x-amz-request-id")) {
		copy_text(a->request_id, sizeof(a->request_id), value, len);
	} else if (IS("x-amz-server-side-encryption")) {
		copy_text(a->encryption, sizeof(a->encryption), value, len);
	} else if (IS("x-amz-meta-asof-sha256")) {
		copy_text(a->sha256, sizeof(a->sha256), value, len);
	}
#undef IS
}

/* A new head: of a proxy, of "100 Continue", of the answer. */
static void begin_head(struct http_answer *a, const char *line, size_t len)
{
	const char *blank = memchr(line, ' ', len);
	struct buf body = a->body;
	uint64_t sent = a->sent_bytes;

	*a = (struct http_answer){.content_length = UINT64_MAX, .body = body, .sent_bytes = sent};
	if (blank && len - (size_t)(blank - line) >= 4)
		for (const char *p = blank + 1; p < blank + 4 && *p >= '0' && *p <= '9'; p++)
			a->status = a->status * 10 + (*p - '0');
}

static size_t on_header(char *p, size_t size, size_t n, void *ctx)
{
	struct exchange *x = ctx;
	char name[64], value[1024];
	size_t len = size * n;
	const char *end = p + len, *colon = memchr(p, ':', len);

	if (len >= 5 && memcmp(p, "HTTP/", 5) == 0) {
		begin_head(x->a, p, len);
		return len;
	}
	if (!colon || (size_t)(colon - p) >= sizeof(name))
		return len;
	copy_text(name, sizeof(name), p, (size_t)(colon - p));
	const char *from = colon + 1;
	while (from < end && (*from == ' ' || *from == '\t'))
		from++;
	while (end > from && (end[-1] == '\r' || end[-1] == '\n' || end[-1] == ' '))
		end--;
	copy_text(value, sizeof(value), from, (size_t)(end - from));
	parse_header(x, name, value, strlen(value));
	return len;
}

/* ---- bodies ---- */

static bool succeeded(const struct http_answer *a)
{
	return a->status >= 200 && a->status < 300;
}

static int see_head(struct exchange *x)
{
	if (x->head_seen || !succeeded(x->a))
		return 0;
	x->head_seen = true;
	return x->r->head ? x->r->head(x->r->ctx, x->a, &x->why) : 0;
}

/* What does not fit of an error's text is left out, of an answer's it is an error. */
static int keep_body(struct exchange *x, const uint8_t *p, size_t len)
{
	struct buf *b = &x->a->body;
	size_t fits = b->max_bytes - b->len > len + 1 ? len : b->max_bytes - b->len - 1;

	if (fits < len && succeeded(x->a))
		return err_set(&x->why, ERR_DAMAGED, 0, "the answer has more than %zu bytes",
		               b->max_bytes);
	if (x->a->received_bytes > b->max_bytes + HTTP_ERROR_MAX_BYTES)
		return err_set(&x->why, ERR_UNAVAILABLE, 0, "an error's text does not end");
	int rc = buf_reserve(b, fits + 1, &x->why);
	if (rc < 0)
		return rc;
	memcpy(b->data + b->len, p, fits);
	b->len += fits;
	b->data[b->len] = '\0';
	return 0;
}

static size_t on_body(char *p, size_t size, size_t n, void *ctx)
{
	struct exchange *x = ctx;
	size_t len = size * n;

	x->a->received_bytes += len;
	x->rc = see_head(x);
	if (x->rc == 0)
		x->rc = x->r->sink && succeeded(x->a)
		                ? x->r->sink(x->r->ctx, (const uint8_t *)p, len, &x->why)
		                : keep_body(x, (const uint8_t *)p, len);
	return x->rc < 0 ? 0 : len;
}

static size_t on_read(char *p, size_t size, size_t n, void *ctx)
{
	struct exchange *x = ctx;
	uint64_t left = x->r->body_bytes - x->sent;
	size_t len = left < size * n ? (size_t)left : size * n;

	if (len == 0)
		return 0;
	x->rc = x->r->body->pread(x->r->body, p, len, x->r->body_offset + x->sent, &x->why);
	if (x->rc < 0)
		return CURL_READFUNC_ABORT;
	x->sent += len;
	x->a->sent_bytes += len;
	return len;
}

static int on_seek(void *ctx, curl_off_t offset, int origin)
{
	struct exchange *x = ctx;

	if (origin != SEEK_SET || offset < 0 || (uint64_t)offset > x->r->body_bytes)
		return CURL_SEEKFUNC_FAIL;
	x->sent = (uint64_t)offset;
	return CURL_SEEKFUNC_OK;
}

static int on_progress(void *ctx, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
	const struct exchange *x = ctx;

	return x->h->stop && *x->h->stop;
}

/* ---- an exchange ---- */

static long deadline_s(const struct http_request *r)
{
	uint64_t bytes = r->body_bytes + r->answer_bytes;

	return AT_LEAST_S + (long)r->stall_s + (long)(bytes / SLOWEST_BYTES_PER_S);
}

static void set_up_body(struct http *h, CURL *c, struct exchange *x)
{
	const struct http_request *r = x->r;

	if (strcmp(r->method, "HEAD") == 0) {
		curl()->easy_setopt(c, CURLOPT_NOBODY, 1L);
		return;
	}
	if (strcmp(r->method, "PUT") == 0 || strcmp(r->method, "POST") == 0) {
		curl()->easy_setopt(c, CURLOPT_UPLOAD, 1L);
		curl()->easy_setopt(c, CURLOPT_INFILESIZE_LARGE, (curl_off_t)r->body_bytes);
		curl()->easy_setopt(c, CURLOPT_READFUNCTION, on_read);
		curl()->easy_setopt(c, CURLOPT_READDATA, x);
		curl()->easy_setopt(c, CURLOPT_SEEKFUNCTION, on_seek);
		curl()->easy_setopt(c, CURLOPT_SEEKDATA, x);
		curl()->easy_setopt(c, CURLOPT_UPLOAD_BUFFERSIZE, CURL_BUFFER_BYTES);
		curl()->easy_setopt(c, CURLOPT_EXPECT_100_TIMEOUT_MS, EXPECT_WAIT_MS);
	}
	curl()->easy_setopt(c, CURLOPT_CUSTOMREQUEST, r->method);
}

static void set_up(struct http *h, CURL *c, struct exchange *x, struct curl_slist *headers)
{
	const struct http_request *r = x->r;

	curl()->easy_setopt(c, CURLOPT_ERRORBUFFER, x->curl_text);
	curl()->easy_setopt(c, CURLOPT_URL, r->url);
	curl()->easy_setopt(c, CURLOPT_PATH_AS_IS, 1L);
	curl()->easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
	curl()->easy_setopt(c, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl()->easy_setopt(c, CURLOPT_HTTPHEADER, headers);
	curl()->easy_setopt(c, CURLOPT_USERAGENT, "asof/" ASOF_VERSION);
	curl()->easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	curl()->easy_setopt(c, CURLOPT_TCP_KEEPALIVE, 1L);
	curl()->easy_setopt(c, CURLOPT_BUFFERSIZE, CURL_BUFFER_BYTES);
	curl()->easy_setopt(c, CURLOPT_CONNECTTIMEOUT, (long)r->connect_s);
	curl()->easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, (long)HTTP_LEAST_RATE);
	curl()->easy_setopt(c, CURLOPT_LOW_SPEED_TIME, (long)r->stall_s);
	curl()->easy_setopt(c, CURLOPT_TIMEOUT, deadline_s(r));
	curl()->easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
	curl()->easy_setopt(c, CURLOPT_HEADERDATA, x);
	curl()->easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
	curl()->easy_setopt(c, CURLOPT_WRITEDATA, x);
	curl()->easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
	curl()->easy_setopt(c, CURLOPT_XFERINFOFUNCTION, on_progress);
	curl()->easy_setopt(c, CURLOPT_XFERINFODATA, x);
	if (h->ca_file)
		curl()->easy_setopt(c, CURLOPT_CAINFO, h->ca_file);
	if (h->proxy)
		curl()->easy_setopt(c, CURLOPT_PROXY, h->proxy);
	if (h->skip_verify) {
		curl()->easy_setopt(c, CURLOPT_SSL_VERIFYPEER, 0L);
		curl()->easy_setopt(c, CURLOPT_SSL_VERIFYHOST, 0L);
	}
	set_up_body(h, c, x);
}

static CURL *take_handle(struct http *h)
{
	LOCK_SCOPE(&h->lock);
	if (h->n_kept)
		return h->kept[--h->n_kept];
	return curl()->easy_init();
}

/* (a reset keeps connections, sessions and names looked up) */
static void keep_handle(struct http *h, CURL *c)
{
	curl()->easy_reset(c);
	pthread_mutex_lock(&h->lock);
	bool kept = h->n_kept < KEPT_MAX;
	if (kept)
		h->kept[h->n_kept++] = c;
	pthread_mutex_unlock(&h->lock);
	if (!kept)
		curl()->easy_cleanup(c);
}

static int make_headers(struct http *h, const struct http_request *r, struct curl_slist **ret,
                        struct err *err)
{
	struct curl_slist *list = NULL;

	for (size_t i = 0; i <= r->n_headers; i++) {
		/* libcurl asks first with "Expect:" where the body is large. */
		const char *line = i < r->n_headers                    ? r->headers[i]
		                   : r->body_bytes < EXPECT_FROM_BYTES ? "Expect:"
		                                                       : "Expect: 100-continue";
		struct curl_slist *more = curl()->slist_append(list, line);
		if (!more) {
			curl()->slist_free_all(list);
			return err_set(err, ERR_NOMEM, 0, "no memory for a request");
		}
		list = more;
	}
	*ret = list;
	return 0;
}

/* A connection that the other side closed must not end the process: OpenSSL writes with write(2),
 * and libcurl leaves the signal alone when it is told to use none. */
static CURLcode perform(CURL *c)
{
	static const struct timespec at_once = {0, 0};
	sigset_t pipe, before, pending;

	sigemptyset(&pipe);
	sigaddset(&pipe, SIGPIPE);
	sigpending(&pending);
	pthread_sigmask(SIG_BLOCK, &pipe, &before);
	CURLcode code = curl()->easy_perform(c);
	if (!sigismember(&pending, SIGPIPE))
		while (sigtimedwait(&pipe, NULL, &at_once) < 0 && errno == EINTR)
			;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return code;
}

static int explain(const struct exchange *x, CURLcode code, struct err *err)
{
	const char *text = x->curl_text[0] ? x->curl_text : curl()->easy_strerror(code);

	switch (code) {
	case CURLE_ABORTED_BY_CALLBACK:
		return err_set(err, ERR_CANCELLED, 0, "stopped");
	case CURLE_OUT_OF_MEMORY:
		return err_set(err, ERR_NOMEM, 0, "no memory for a request");
	case CURLE_PEER_FAILED_VERIFICATION:
		return err_set(err, ERR_REFUSED, 0,
		               "the server's certificate is not trusted: %.200s%s", text,
		               strstr(text, "host name")
		                       ? ""
		                       : " (ca=FILE names the authority that signed it)");
	case CURLE_SSL_CACERT_BADFILE:
		return err_set(err, ERR_USAGE, 0, "certificates of authorities: %.200s", text);
	case CURLE_URL_MALFORMAT:
	case CURLE_UNSUPPORTED_PROTOCOL:
		return err_set(err, ERR_USAGE, 0, "%.200s", text);
	default:
		return err_set(err, ERR_UNAVAILABLE, 0, "%.200s", text);
	}
}

static int judge(struct exchange *x, CURLcode code, struct err *err)
{
	if (x->rc < 0)
		return err_copy(err, &x->why);
	if (code != CURLE_OK)
		return explain(x, code, err);
	int rc = see_head(x); /* there was no body */
	return rc < 0 ? err_copy(err, &x->why) : 0;
}

int http_exchange(struct http *h, const struct http_request *r, struct http_answer *a,
                  struct err *err)
{
	struct exchange x = {.h = h, .r = r, .a = a, .why = ERR_INIT};
	struct curl_slist *headers = NULL;

	buf_clear(&a->body);
	a->status = 0;
	a->sent_bytes = a->received_bytes = 0;
	int rc = buf_reserve(&a->body, 1, err);
	if (rc < 0 || (rc = make_headers(h, r, &headers, err)) < 0)
		return rc;
	a->body.data[0] = '\0';
	CURL *c = take_handle(h);
	if (!c) {
		curl()->slist_free_all(headers);
		return err_set(err, ERR_NOMEM, 0, "no memory for a connection");
	}
	set_up(h, c, &x, headers);
	rc = judge(&x, perform(c), err);
	keep_handle(h, c);
	curl()->slist_free_all(headers);
	return rc;
}

void http_answer_release(struct http_answer *a)
{
	buf_release(&a->body);
}

int http_new(const struct http_options *options, struct http **ret, struct err *err)
{
	struct http *h = calloc(1, sizeof(*h));

	if (!h)
		return err_set(err, ERR_NOMEM, 0, "no memory for connections");
	pthread_mutex_init(&h->lock, NULL);
	h->skip_verify = options->skip_verify;
	h->stop = options->stop;
	h->ca_file = options->ca_file ? strdup(options->ca_file) : NULL;
	h->proxy = options->proxy ? strdup(options->proxy) : NULL;
	int rc = curl_load(err);
	if (rc == 0 && ((options->ca_file && !h->ca_file) || (options->proxy && !h->proxy)))
		rc = err_set(err, ERR_NOMEM, 0, "no memory for connections");
	if (rc < 0) {
		http_free(h);
		return rc;
	}
	*ret = h;
	return 0;
}

void http_free(struct http *h)
{
	for (size_t i = 0; i < h->n_kept; i++)
		curl()->easy_cleanup(h->kept[i]);
	pthread_mutex_destroy(&h->lock);
	free(h->ca_file);
	free(h->proxy);
	free(h);
}
