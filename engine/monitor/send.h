/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages out of the house, by libcurl: mail by SMTP, JSON by POST, a sign of life by GET.
 *
 * Secrets (passwords, URLs of webhooks and heartbeats) are in no error text and no log line: reasons
 * are libcurl's constant texts, a status number, and the host where it may be named.
 *
 * TLS.  Certificates are verified against the system's, or those of $SSL_CERT_FILE.
 *   SEND_TLS_REQUIRED  SMTP: TLS from the beginning on port 465, else STARTTLS, or nothing is sent
 *   SEND_TLS_TRY       STARTTLS where it is offered, whatever certificate: against listeners only
 *   SEND_TLS_OFF       never
 * Redirects are not followed.  Proxies are those of the environment (https_proxy, no_proxy).
 *
 * Bounds: 10 s to connect, 30 s in all, 64 KiB of an answer.
 */
#ifndef ASOF_MONITOR_SEND_H
#define ASOF_MONITOR_SEND_H

#include "engine/base/buf.h"
#include "engine/base/curl.h"
#include "engine/base/err.h"

#include <stdbool.h>

#define SEND_CONNECT_MS 10000L
#define SEND_TIMEOUT_MS 30000L

enum send_tls { SEND_TLS_REQUIRED, SEND_TLS_TRY, SEND_TLS_OFF };

struct send_email {
	const char *server; /* NULL: no mail */
	unsigned port;
	enum send_tls tls;
	const char *username, *password; /* NULL: without */
	const char *from;
	const char *const *to;
	size_t n_to;
};

/*
 * One transfer, made by one of the functions below.  Its texts are copied, `body` is its own.
 * It can be given to a multi handle, or to send_now().
 */
struct transfer {
	CURL *easy; /* NULL: none */
	struct curl_slist *headers, *recipients;
	struct buf body;
	size_t sent, received;
	bool smtp;
};
#define TRANSFER_INIT                                                                              \
	{                                                                                          \
		.easy = NULL                                                                       \
	}

/* `body` is taken over (its data are NULL afterwards), whether it can be made or not.  ERR_USAGE:
 * not a URL of http or https. */
int send_make_email(struct transfer *t, const struct send_email *e, struct buf *body,
                    struct err *err) MUST_USE;
int send_make_json(struct transfer *t, const char *url, struct buf *body, struct err *err) MUST_USE;
int send_make_get(struct transfer *t, const char *url, struct err *err) MUST_USE;
/* Before TRANSFER_INIT ends.  Of one in a multi handle: after it was removed from that. */
void transfer_release(struct transfer *t);
#define cleanup_transfer CLEANUP(transfer_release)

/* What became of it: 0, or ERR_UNAVAILABLE: "the server answered 535", "timeout was reached". */
int send_result(const struct transfer *t, CURLcode code, struct err *err) MUST_USE;
/* Waits for it. */
int send_now(struct transfer *t, struct err *err) MUST_USE;

/* Whether it is a URL of http or https, and its host, for a person; the rest of it is secret. */
#define SEND_HOST_MAX 256
bool send_host_of(const char *url, char out[SEND_HOST_MAX]);

#endif
