/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the server share.  Not for others. */
#ifndef ASOF_OBSERVE_HTTP_I_H
#define ASOF_OBSERVE_HTTP_I_H

#include "engine/observe/http.h"
#include "engine/observe/listen.h"
#include "engine/observe/mhd.h"

#include <pthread.h>
#include <stdatomic.h>

#define COOKIE_NAME_MAX 16 /* "asof-" and 8 hex digits: ports of one host share their cookies */
#define COOKIE_VALUE_MAX 65

/* A connection, for its deadlines. */
struct connection {
	struct connection *next;
	int fd;
	int64_t since_us; /* monotonic: it was made, or its last answer had gone */
	bool answering;   /* since then: a request is there whole */
	bool streaming;   /* an answer that may take long */
};

struct http_server {
	struct MHD_Daemon *daemon;
	struct listener listener;
	bool metrics_only, wants_credentials, checks_host;
	char *username, *password, *token, *tls_cert, *tls_key; /* NULL: none; the last two: PEM */
	char cookie_name[COOKIE_NAME_MAX], cookie_value[COOKIE_VALUE_MAX]; /* "": no token */
	struct observe *observe;
	_Atomic int streams;

	pthread_t reaper; /* sleeps while there is no connection */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct connection *connections;
	bool stopping;
};

/* ---- reaper.c ---- */
int reaper_start(struct http_server *s, struct err *err) MUST_USE;
void reaper_stop(struct http_server *s);
void reaper_on_connection(void *ctx, struct MHD_Connection *c, void **socket_context,
                          enum MHD_ConnectionNotificationCode code);
void reaper_on_answering(struct http_server *s, struct MHD_Connection *c, bool streaming);
void reaper_on_answered(struct http_server *s, struct MHD_Connection *c);

/* ---- guard.c ---- */
enum guard_verdict {
	GUARD_KNOWN,      /* may ask for everything that the address serves */
	GUARD_LOGGED_IN,  /* the same, by the cookie */
	GUARD_UNKNOWN,    /* no credentials, or wrong ones */
	GUARD_WRONG_HOST, /* a name that is none of this machine's: see http.h */
};
void guard_make_cookie(struct http_server *s); /* from its token */
enum guard_verdict guard_check(const struct http_server *s, struct MHD_Connection *c);

/* ---- dispatch.c ---- */
enum MHD_Result dispatch(void *ctx, struct MHD_Connection *c, const char *url, const char *method,
                         const char *version, const char *upload, size_t *upload_len,
                         void **request);
void dispatch_completed(void *ctx, struct MHD_Connection *c, void **request,
                        enum MHD_RequestTerminationCode why);

#endif
