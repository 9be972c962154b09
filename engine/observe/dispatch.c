/* SPDX-License-Identifier: Apache-2.0 */
/* A request: which route, whether it may, its body, its answer. */
#include "engine/base/buf.h"
#include "engine/base/clock.h"
#include "engine/base/json.h"
#include "engine/base/log.h"
#include "engine/observe/http_i.h"
#include "engine/observe/routes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define STREAM_BLOCK_BYTES 65536

struct request {
	struct http_server *server;
	const struct http_route *route;
	const char *rest;
	bool known, logged_in, answered, body_too_long;
	struct buf body;
};

/* ---- what handlers call ---- */

const char *http_query(const struct http_request *q, const char *name)
{
	return mhd()->lookup_connection_value(q->connection, MHD_GET_ARGUMENT_KIND, name);
}

const char *http_header(const struct http_request *q, const char *name)
{
	return mhd()->lookup_connection_value(q->connection, MHD_HEADER_KIND, name);
}

int http_query_uint(const struct http_request *q, const char *name, uint64_t min, uint64_t max,
                    uint64_t fallback, uint64_t *ret, struct err *err)
{
	const char *text = http_query(q, name);
	char *end;

	*ret = fallback;
	if (!text)
		return 0;
	errno = 0;
	uint64_t n = strtoull(text, &end, 10);
	if (!*text || *end || errno || strspn(text, "0123456789") != strlen(text) || n < min ||
	    n > max)
		return err_set(err, ERR_USAGE, 0, "%s: '%.40s' is no number from %llu to %llu",
		               name, text, (unsigned long long)min, (unsigned long long)max);
	*ret = n;
	return 0;
}

int http_query_time(const struct http_request *q, const char *name, int64_t *ret_us,
                    struct err *err)
{
	const char *text = http_query(q, name);

	if (!text)
		return 0;
	int rc = time_parse(text, clock_now_us(), TIME_ZONE_UTC, ret_us, NULL, err);
	return rc ? err_wrap(err, rc, "%s", name) : 0;
}

int http_json(struct http_response *r, json_t *value, struct err *err)
{
	char *text = value ? json_dumps(value, JSON_COMPACT) : NULL;

	json_decref(value);
	if (!text)
		return err_set(err, ERR_NOMEM, 0, "no memory");
	http_text(r, "application/json", text, strlen(text));
	return 0;
}

void http_text(struct http_response *r, const char *content_type, char *text, size_t len)
{
	r->content_type = content_type;
	r->text = text;
	r->len = len;
	r->text_is_static = false;
}

void http_static(struct http_response *r, const char *content_type, const void *p, size_t len)
{
	r->content_type = content_type;
	r->text = p;
	r->len = len;
	r->text_is_static = true;
}

void http_stream(struct http_response *r, const char *content_type, uint64_t bytes,
                 ssize_t (*read)(void *ctx, uint64_t offset, char *out, size_t size),
                 void (*close)(void *ctx), void *ctx)
{
	r->content_type = content_type;
	r->read = read;
	r->close = close;
	r->ctx = ctx;
	r->stream_bytes = bytes;
}

/* A name from outside ends neither a header nor the one line of an error. */
static void make_one_line(char *text)
{
	for (char *p = text; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = '?';
}

void http_set_header(struct http_response *r, const char *name, const char *fmt, ...)
{
	const size_t n_max = sizeof(r->headers) / sizeof(r->headers[0]);
	va_list args;

	if (r->n_headers == n_max)
		return;
	struct http_header *h = &r->headers[r->n_headers++];
	h->name = name;
	va_start(args, fmt);
	vsnprintf(h->value, sizeof(h->value), fmt, args);
	va_end(args);
	make_one_line(h->value);
}

/* ---- answers ---- */

struct stream {
	struct http_server *server;
	ssize_t (*read)(void *ctx, uint64_t offset, char *out, size_t size);
	void (*close)(void *ctx);
	void *ctx;
};

static ssize_t read_stream(void *ctx, uint64_t offset, char *out, size_t size)
{
	struct stream *s = ctx;
	ssize_t n = s->read(s->ctx, offset, out, size);

	return n > 0    ? n
	       : n == 0 ? MHD_CONTENT_READER_END_OF_STREAM
	                : MHD_CONTENT_READER_END_WITH_ERROR;
}

static void close_stream(void *ctx)
{
	struct stream *s = ctx;

	s->server->streams--;
	s->close(s->ctx);
	free(s);
}

static struct MHD_Response *stream_response(struct http_server *server,
                                            const struct http_response *r)
{
	uint64_t bytes = r->stream_bytes == HTTP_UNKNOWN_SIZE ? MHD_SIZE_UNKNOWN : r->stream_bytes;
	struct stream *s = malloc(sizeof(*s));
	struct MHD_Response *m = NULL;

	if (s) {
		*s = (struct stream){server, r->read, r->close, r->ctx};
		m = mhd()->create_response_from_callback(bytes, STREAM_BLOCK_BYTES, read_stream, s,
		                                         close_stream);
	}
	if (!m) {
		server->streams--;
		r->close(r->ctx);
		free(s);
	}
	return m;
}

static struct MHD_Response *text_response(const struct http_response *r)
{
	struct MHD_Response *m = mhd()->create_response_from_buffer(
	        r->len, (void *)(uintptr_t)r->text,
	        r->text_is_static ? MHD_RESPMEM_PERSISTENT : MHD_RESPMEM_MUST_FREE);

	if (!m && !r->text_is_static)
		free((void *)(uintptr_t)r->text);
	return m;
}

static void add_headers(struct MHD_Response *m, const struct http_response *r)
{
	bool cached = false;

	if (r->content_type)
		mhd()->add_response_header(m, MHD_HTTP_HEADER_CONTENT_TYPE, r->content_type);
	for (size_t i = 0; i < r->n_headers; i++) {
		mhd()->add_response_header(m, r->headers[i].name, r->headers[i].value);
		cached = cached || strcmp(r->headers[i].name, "Cache-Control") == 0;
	}
	if (!cached)
		mhd()->add_response_header(m, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
	mhd()->add_response_header(m, "X-Content-Type-Options", "nosniff");
	mhd()->add_response_header(m, "X-Frame-Options", "DENY");
	mhd()->add_response_header(m, "Referrer-Policy", "no-referrer");
}

static enum MHD_Result send_response(struct request *q, struct MHD_Connection *c,
                                     const struct http_response *r)
{
	struct MHD_Response *m = r->read ? stream_response(q->server, r) : text_response(r);

	if (!m)
		return MHD_NO;
	add_headers(m, r);
	q->answered = true;
	reaper_on_answering(q->server, c, r->read != NULL);
	enum MHD_Result ok = mhd()->queue_response(c, r->status ? r->status : MHD_HTTP_OK, m);
	mhd()->destroy_response(m);
	return ok;
}

static unsigned status_of(enum err_kind kind)
{
	switch (kind) {
	case ERR_NOT_FOUND:
	case ERR_GAP:
		return MHD_HTTP_NOT_FOUND;
	case ERR_USAGE:
	case ERR_SQL:
		return MHD_HTTP_BAD_REQUEST;
	case ERR_REFUSED:
	case ERR_DENIED:
		return MHD_HTTP_FORBIDDEN;
	case ERR_BUSY:
		return MHD_HTTP_SERVICE_UNAVAILABLE;
	default:
		return MHD_HTTP_INTERNAL_SERVER_ERROR;
	}
}

static enum MHD_Result send_error(struct request *q, struct MHD_Connection *c, unsigned status,
                                  struct http_response *r, const struct err *why)
{
	struct err ignored = ERR_INIT;
	char text[sizeof(why->msg)];

	memcpy(text, why->msg, sizeof(text));
	make_one_line(text);
	r->status = status;
	if (http_json(r,
	              json_pack("{so ss}", "error", json_text(text), "kind",
	                        err_kind_name(why->kind)),
	              &ignored) < 0)
		return MHD_NO;
	return send_response(q, c, r);
}

static enum MHD_Result refuse(struct request *q, struct MHD_Connection *c, unsigned status,
                              enum err_kind kind, const char *text)
{
	struct http_response r = {0};
	struct err why = {.kind = kind};

	snprintf(why.msg, sizeof(why.msg), "%s", text);
	if (status == MHD_HTTP_UNAUTHORIZED)
		http_set_header(&r, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "%s realm=\"asof\"",
		                q->server->password ? "Basic" : "Bearer");
	if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
		http_set_header(&r, MHD_HTTP_HEADER_ALLOW, "%s",
		                strcmp(q->rest, "GET") == 0 ? "GET, HEAD" : q->rest);
	return send_error(q, c, status, &r, &why);
}

/* ---- requests ---- */

/* NULL: goes on; else it is answered. */
static bool check(struct request *q, struct MHD_Connection *c, const char *url, const char *method,
                  enum MHD_Result *ret)
{
	const struct http_server *s = q->server;
	enum guard_verdict verdict = guard_check(s, c);
	const char *allow;

	if (verdict == GUARD_WRONG_HOST) {
		*ret = refuse(q, c, MHD_HTTP_FORBIDDEN, ERR_REFUSED,
		              "this address answers to localhost only (to be reached by another "
		              "name it needs a token or a password: see asof.yml(5), http)");
		return true;
	}
	q->logged_in = verdict == GUARD_LOGGED_IN;
	q->known = verdict == GUARD_KNOWN || q->logged_in;
	q->route = routes_find(method, url, &q->rest, &allow);
	bool open = q->route && ((q->route->access & HTTP_ANYBODY) == HTTP_ANYBODY ||
	                         (q->route->access == HTTP_FILES && !s->password));
	if (q->route && s->metrics_only && !(q->route->access & HTTP_METRICS))
		q->route = NULL;
	if (!q->known && !open) { /* whatever is there, or is not */
		*ret = refuse(q, c, MHD_HTTP_UNAUTHORIZED, ERR_DENIED,
		              "this needs a token or a password");
	} else if (!q->route && *allow && !s->metrics_only) {
		q->rest = allow;
		*ret = refuse(q, c, MHD_HTTP_METHOD_NOT_ALLOWED, ERR_USAGE,
		              "this takes another method");
	} else if (!q->route) {
		*ret = refuse(q, c, MHD_HTTP_NOT_FOUND, ERR_NOT_FOUND, "there is nothing here");
	} else if (strcmp(q->route->method, "POST") == 0 &&
	           !mhd()->lookup_connection_value(c, MHD_HEADER_KIND, "X-Asof")) {
		*ret = refuse(q, c, MHD_HTTP_FORBIDDEN, ERR_REFUSED,
		              "this needs the header X-Asof: 1");
	} else {
		return false;
	}
	return true;
}

static enum MHD_Result answer(struct request *q, struct MHD_Connection *c, const char *url,
                              const char *method)
{
	const struct http_request request = {.method = method,
	                                     .path = url,
	                                     .rest = q->rest,
	                                     .known = q->known,
	                                     .logged_in = q->logged_in,
	                                     .server = q->server,
	                                     .body = q->body.data ? (char *)q->body.data : "",
	                                     .body_len = q->body.len ? q->body.len - 1 : 0,
	                                     .observe = q->server->observe,
	                                     .connection = c};
	struct http_response r = {0};
	struct err why = ERR_INIT;

	reaper_on_answering(q->server, c, false);
	int rc = q->route->handle(&request, &r, &why);
	if (rc == 0 && r.read && q->server->streams++ >= HTTP_STREAMS_MAX) {
		q->server->streams--;
		r.close(r.ctx);
		r = (struct http_response){0};
		rc = err_set(&why, ERR_BUSY, 0, "%d downloads are under way, try again later",
		             HTTP_STREAMS_MAX);
	}
	if (rc == 0)
		return send_response(q, c, &r);
	if (!r.text_is_static)
		free((void *)(uintptr_t)r.text);
	r = (struct http_response){0};
	return send_error(q, c, status_of(why.kind), &r, &why);
}

static void take_body(struct request *q, const char *upload, size_t len)
{
	struct err ignored = ERR_INIT;

	if (buf_append(&q->body, upload, len, &ignored) < 0)
		q->body_too_long = true;
}

enum MHD_Result dispatch(void *ctx, struct MHD_Connection *c, const char *url, const char *method,
                         const char *version, const char *upload, size_t *upload_len,
                         void **request)
{
	struct http_server *s = ctx;
	struct request *q = *request;
	struct err ignored = ERR_INIT;
	enum MHD_Result ok;

	if (!q) { /* the headers are there */
		q = calloc(1, sizeof(*q));
		if (!q)
			return MHD_NO;
		q->server = s;
		q->body.max_bytes = HTTP_BODY_MAX + 1;
		*request = q;
		if (check(q, c, url, method, &ok))
			return ok;
		return MHD_YES;
	}
	if (*upload_len) {
		if (!q->answered)
			take_body(q, upload, *upload_len);
		*upload_len = 0;
		return MHD_YES;
	}
	if (q->answered)
		return MHD_YES;
	if (q->body_too_long || (q->body.len && buf_append(&q->body, "", 1, &ignored) < 0))
		return refuse(q, c, MHD_HTTP_CONTENT_TOO_LARGE, ERR_USAGE, "the body is too long");
	return answer(q, c, url, method);
}

void dispatch_completed(void *ctx, struct MHD_Connection *c, void **request,
                        enum MHD_RequestTerminationCode why)
{
	struct request *q = *request;

	if (!q)
		return;
	*request = NULL;
	buf_release(&q->body);
	free(q);
	reaper_on_answered(ctx, c);
}
