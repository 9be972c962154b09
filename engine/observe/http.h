/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP of the observer.  How a route is added:
 *
 *   1. In a file of your own (api.c, page.c …) write a handler and a table ended by {0}:
 *
 *          static int get_things(const struct http_request *q, struct http_response *r,
 *                                struct err *err)
 *          {
 *                  cleanup_facts struct facts *f = observe_facts(q->observe, err);
 *                  return f ? http_json(r, things_json(&f->f), err) : -(int)err->kind;
 *          }
 *          const struct http_route routes_things[] = {
 *                  {"GET", "/api/v1/things", HTTP_ALL, get_things},
 *                  {0}};
 *
 *   2. Name the table in routes.h and in the list of routes.c, the file in engine/meson.build.
 *
 *   path     whole, or ending in "/" + "*": then `q->rest` is what stands behind that slash, decoded,
 *            never empty.  The first route that fits is taken; one path with another method gives 405.
 *   method   "GET" (HEAD with it) or "POST"; a POST needs the header "X-Asof: 1", which no page of
 *            another site can send, and has its body (at most HTTP_BODY_MAX) in q->body.
 *   access   below
 *   handler  fills *r and returns 0, or an error, which becomes {"error": …, "kind": …} with the
 *            status that stands for its kind (404 NOT_FOUND and GAP, 400 USAGE, 403 REFUSED, 503 BUSY,
 *            500 others).  It runs in a thread of the connection's own and may wait for a disk; it
 *            holds no lock meanwhile.  Answers that are long are streamed (http_stream()), never built
 *            in memory.
 *
 * Whom it serves.  An address on this machine serves everybody who can reach it, if neither token nor
 * password is configured; it answers only requests that name it as localhost or by a loopback address
 * then, so that no name of a page's own leads a browser to it.  A Unix socket has the mode 0600.  All
 * others want a token (Authorization: Bearer) or user and password (Basic), and TLS.  /health without
 * credentials tells its status and no more.  For a password a browser asks by itself; a token is given
 * to the page, whose files are nobody's secret, once: a cookie takes its place (http_log_in()), since
 * neither a download nor a reload carries a header.
 *
 * Bounds: HTTP_CONNECTIONS_MAX connections; a request has HTTP_REQUEST_US to arrive, an answer that
 * is not streamed HTTP_ANSWER_US to be taken; a connection that does nothing for HTTP_SILENT_S is
 * closed; 16 KiB of headers; HTTP_STREAMS_MAX streams at once.
 */
#ifndef ASOF_OBSERVE_HTTP_H
#define ASOF_OBSERVE_HTTP_H

#include "engine/base/cleanup.h"
#include "engine/base/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define HTTP_CONNECTIONS_MAX 64
#define HTTP_CONNECTIONS_OF_ONE 48
#define HTTP_REQUEST_US INT64_C(20000000)
#define HTTP_ANSWER_US INT64_C(60000000)
#define HTTP_SILENT_S 15
#define HTTP_HEADERS_MAX 16384
#define HTTP_BODY_MAX 65536u
#define HTTP_STREAMS_MAX 8

struct observe;
struct MHD_Connection;

/* What of the routes an address serves. */
enum http_access {
	HTTP_ALL = 1,     /* whoever may speak to the address of `http:` */
	HTTP_METRICS = 2, /* likewise, and whoever asks at an address that a litestream.yml named */
	HTTP_ANYBODY = 4 | 2, /* likewise, and without credentials: see q->known */
	HTTP_FILES = 8, /* as HTTP_ALL, and without credentials where a token alone is wanted */
};

struct http_request {
	const char *method, *path;
	const char *rest; /* see above; NULL */
	bool known;       /* false: without credentials, where some are wanted */
	bool logged_in;   /* by the cookie */
	const char *body; /* NUL behind it */
	size_t body_len;
	struct observe *observe;
	const struct http_server *server;
	struct MHD_Connection *connection; /* for http_query(), http_header() */
};
/* Of "?name=value", decoded; NULL: not given. */
const char *http_query(const struct http_request *q, const char *name);
const char *http_header(const struct http_request *q, const char *name);
/* A number of [min, max]; `fallback` where it is not given. */
int http_query_uint(const struct http_request *q, const char *name, uint64_t min, uint64_t max,
                    uint64_t fallback, uint64_t *ret, struct err *err) MUST_USE;
/* A TIME, UTC unless it says so; *ret is left alone where it is not given. */
int http_query_time(const struct http_request *q, const char *name, int64_t *ret_us,
                    struct err *err) MUST_USE;

struct http_response {
	unsigned status; /* 200 unless set */
	const char *content_type;
	/* Either a text … */
	const char *text;
	size_t len;
	bool text_is_static; /* else it is malloc'ed, and the server's from now on */
	/* … or a stream; see http_stream(). */
	ssize_t (*read)(void *ctx, uint64_t offset, char *out, size_t size);
	void (*close)(void *ctx);
	void *ctx;
	uint64_t stream_bytes;
	/* More headers; "Cache-Control: no-store" unless one says so.  Names are static, values are
	 * copied. */
	struct http_header {
		const char *name;
		char value[256];
	} headers[8];
	size_t n_headers;
};
#define HTTP_UNKNOWN_SIZE UINT64_MAX

/* Takes `value` over; NULL: no memory. */
int http_json(struct http_response *r, json_t *value, struct err *err) MUST_USE;
/* Takes malloc'ed text over; `content_type` is static. */
void http_text(struct http_response *r, const char *content_type, char *text, size_t len);
void http_static(struct http_response *r, const char *content_type, const void *p, size_t len);
/*
 * `read` gives the bytes from `offset` on, at least one: how many, 0 at the end, -1 for an error (the
 * connection is cut, so that nobody takes half of it for the whole).  `close` is called in any case.
 */
void http_stream(struct http_response *r, const char *content_type, uint64_t bytes,
                 ssize_t (*read)(void *ctx, uint64_t offset, char *out, size_t size),
                 void (*close)(void *ctx), void *ctx);
void http_set_header(struct http_response *r, const char *name, const char *fmt, ...)
        __attribute__((format(printf, 3, 4)));
/*
 * The answer sets or takes away the cookie that stands for the token.  It is a hash with the token as
 * its key: it holds over restarts, ends with the token, and is not the token.  HttpOnly,
 * SameSite=Strict, Secure with TLS.
 */
void http_log_in(const struct http_request *q, struct http_response *r);
void http_log_out(const struct http_request *q, struct http_response *r);

typedef int http_handler(const struct http_request *q, struct http_response *r, struct err *err);

struct http_route {
	const char *method, *path;
	enum http_access access;
	http_handler *handle;
};

/* ---- the server ---- */

struct http_server;

struct http_server_options {
	const char *listen; /* HOST:PORT or unix:/PATH */
	bool metrics_only; /* of a litestream.yml: HTTP_METRICS and HTTP_ANYBODY, to whoever asks */
	const char *username, *password, *token; /* NULL: none */
	const char *tls_cert, *tls_key;          /* paths; NULL: no TLS */
	struct observe *observe;                 /* outlives it */
};
/*
 * Listens and serves from threads of its own.  BUSY: the address is taken; DENIED; USAGE: it is no
 * address of this machine, or certificate or key are not good.  The texts are copied.
 */
int http_server_new(const struct http_server_options *options, struct http_server **ret,
                    struct err *err) MUST_USE;
/* Takes no more connections, waits for what is under way.  NULL is fine. */
void http_server_free(struct http_server *s);
/* Of a process that is about to end: takes no more connections, removes the socket, frees nothing. */
void http_server_abandon(struct http_server *s);

#endif
