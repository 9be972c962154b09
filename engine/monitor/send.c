/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/monitor/send.h"

#include <stdlib.h>
#include <string.h>

#define ANSWER_MAX_BYTES ((size_t)64 << 10)
#define SMTPS_PORT 465u

/* ---- what libcurl calls ---- */

static size_t on_answer(char *p, size_t size, size_t n, void *ctx)
{
	struct transfer *t = ctx;

	t->received += size * n;
	return t->received > ANSWER_MAX_BYTES ? 0 : size * n; /* 0: that is enough of it */
}

static size_t on_mail(char *out, size_t size, size_t n, void *ctx)
{
	struct transfer *t = ctx;
	size_t left = t->body.len - t->sent, part = size * n < left ? size * n : left;

	if (part)
		memcpy(out, t->body.data + t->sent, part);
	t->sent += part;
	return part;
}

/* A connection that was kept may turn out to be dead: then once more from the beginning. */
static int on_seek(void *ctx, curl_off_t offset, int origin)
{
	struct transfer *t = ctx;

	if (origin != SEEK_SET || offset < 0 || (uint64_t)offset > t->body.len)
		return CURL_SEEKFUNC_FAIL;
	t->sent = (size_t)offset;
	return CURL_SEEKFUNC_OK;
}

/* ---- making ---- */

void transfer_release(struct transfer *t)
{
	if (t->easy)
		curl()->easy_cleanup(t->easy);
	if (t->headers)
		curl()->slist_free_all(t->headers);
	if (t->recipients)
		curl()->slist_free_all(t->recipients);
	buf_release(&t->body);
	*t = (struct transfer)TRANSFER_INIT;
}

#define SET(t, option, value) (curl()->easy_setopt((t)->easy, option, value) == CURLE_OK)

static bool set_common(struct transfer *t, const char *url, const char *protocols)
{
	const char *roots = getenv("SSL_CERT_FILE");

	t->easy = curl()->easy_init();
	return t->easy && SET(t, CURLOPT_URL, url) && SET(t, CURLOPT_PROTOCOLS_STR, protocols) &&
	       SET(t, CURLOPT_PRIVATE, t) && SET(t, CURLOPT_NOSIGNAL, 1L) &&
	       SET(t, CURLOPT_CONNECTTIMEOUT_MS, SEND_CONNECT_MS) &&
	       SET(t, CURLOPT_TIMEOUT_MS, SEND_TIMEOUT_MS) &&
	       SET(t, CURLOPT_SERVER_RESPONSE_TIMEOUT, SEND_TIMEOUT_MS / 1000) &&
	       SET(t, CURLOPT_WRITEFUNCTION, on_answer) && SET(t, CURLOPT_WRITEDATA, t) &&
	       SET(t, CURLOPT_USERAGENT, "asof/" ASOF_VERSION) &&
	       SET(t, CURLOPT_FOLLOWLOCATION, 0L) && SET(t, CURLOPT_FORBID_REUSE, 1L) &&
	       (!roots || !*roots || SET(t, CURLOPT_CAINFO, roots));
}

static bool set_tls(struct transfer *t, enum send_tls tls)
{
	if (tls == SEND_TLS_REQUIRED)
		return SET(t, CURLOPT_USE_SSL, (long)CURLUSESSL_ALL);
	if (tls == SEND_TLS_OFF)
		return SET(t, CURLOPT_USE_SSL, (long)CURLUSESSL_NONE);
	return SET(t, CURLOPT_USE_SSL, (long)CURLUSESSL_TRY) &&
	       SET(t, CURLOPT_SSL_VERIFYPEER, 0L) && SET(t, CURLOPT_SSL_VERIFYHOST, 0L);
}

static bool add(struct curl_slist **list, const char *text)
{
	struct curl_slist *more = curl()->slist_append(*list, text);

	if (more)
		*list = more;
	return more != NULL;
}

static bool set_envelope(struct transfer *t, const struct send_email *e)
{
	bool good = SET(t, CURLOPT_MAIL_FROM, e->from);

	for (size_t i = 0; i < e->n_to && good; i++)
		good = add(&t->recipients, e->to[i]);
	/* One recipient that does not exist must not keep the others in the dark. */
	return good && SET(t, CURLOPT_MAIL_RCPT, t->recipients) &&
	       SET(t, CURLOPT_MAIL_RCPT_ALLLOWFAILS, 1L);
}

static bool set_body(struct transfer *t, struct buf *body)
{
	t->body = *body;
	body->data = NULL;
	body->len = body->cap = 0;
	return t->body.data != NULL;
}

static int made(struct transfer *t, bool good, struct err *err)
{
	if (good)
		return 0;
	transfer_release(t);
	return err_set(err, ERR_NOMEM, 0, "a message cannot be made ready for sending");
}

int send_make_email(struct transfer *t, const struct send_email *e, struct buf *body,
                    struct err *err)
{
	bool at_once = e->port == SMTPS_PORT && e->tls != SEND_TLS_OFF;
	bool colon = strchr(e->server, ':') != NULL;
	char url[512];

	*t = (struct transfer)TRANSFER_INIT;
	t->smtp = true;
	int rc = curl_load(err);
	if (rc < 0) {
		buf_release(body);
		return rc;
	}
	snprintf(url, sizeof(url), "%s://%s%.300s%s:%u", at_once ? "smtps" : "smtp",
	         colon ? "[" : "", e->server, colon ? "]" : "", e->port);
	bool good = set_body(t, body) && set_common(t, url, at_once ? "smtps" : "smtp") &&
	            set_tls(t, e->tls) && set_envelope(t, e) && SET(t, CURLOPT_UPLOAD, 1L) &&
	            SET(t, CURLOPT_READFUNCTION, on_mail) && SET(t, CURLOPT_READDATA, t) &&
	            SET(t, CURLOPT_SEEKFUNCTION, on_seek) && SET(t, CURLOPT_SEEKDATA, t) &&
	            SET(t, CURLOPT_INFILESIZE_LARGE, (curl_off_t)t->body.len) &&
	            (!e->username || SET(t, CURLOPT_USERNAME, e->username)) &&
	            (!e->password || SET(t, CURLOPT_PASSWORD, e->password));
	return made(t, good, err);
}

static int make_http(struct transfer *t, const char *url, struct err *err)
{
	char host[SEND_HOST_MAX];

	int rc = curl_load(err);
	if (rc < 0)
		return rc;
	if (!send_host_of(url, host))
		return err_set(err, ERR_USAGE, 0, "this is no URL of http or https");
	return made(t, set_common(t, url, "http,https"), err);
}

int send_make_json(struct transfer *t, const char *url, struct buf *body, struct err *err)
{
	*t = (struct transfer)TRANSFER_INIT;
	bool have = set_body(t, body);
	int rc = make_http(t, url, err);

	if (rc < 0) {
		transfer_release(t);
		return rc;
	}
	bool good = have && add(&t->headers, "Content-Type: application/json") &&
	            add(&t->headers, "Expect:") && SET(t, CURLOPT_HTTPHEADER, t->headers) &&
	            SET(t, CURLOPT_POSTFIELDS, (char *)t->body.data) &&
	            SET(t, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)t->body.len);
	return made(t, good, err);
}

int send_make_get(struct transfer *t, const char *url, struct err *err)
{
	*t = (struct transfer)TRANSFER_INIT;
	return make_http(t, url, err);
}

/* ---- results ---- */

int send_result(const struct transfer *t, CURLcode code, struct err *err)
{
	long status = 0;

	curl()->easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
	/* Taken is taken, whatever becomes of the rest of the answer. */
	if (t->smtp ? code == CURLE_OK : status >= 200 && status < 300)
		return 0;
	if (code == CURLE_OK || (t->smtp && status >= 400))
		return err_set(err, ERR_UNAVAILABLE, 0, "the server answered %ld%s", status,
		               code == CURLE_LOGIN_DENIED ? " (username or password)" : "");
	return err_set(err, ERR_UNAVAILABLE, 0, "%s", curl()->easy_strerror(code));
}

int send_now(struct transfer *t, struct err *err)
{
	return send_result(t, curl()->easy_perform(t->easy), err);
}

/* ---- */

bool send_host_of(const char *url, char out[SEND_HOST_MAX])
{
	char *scheme = NULL, *host = NULL;

	*out = '\0';
	if (curl_load(NULL) < 0)
		return false;
	CURLU *u = curl()->url();
	bool good = u && !curl()->url_set(u, CURLUPART_URL, url, 0) &&
	            !curl()->url_get(u, CURLUPART_SCHEME, &scheme, 0) &&
	            !curl()->url_get(u, CURLUPART_HOST, &host, 0) && *host &&
	            (strcmp(scheme, "http") == 0 || strcmp(scheme, "https") == 0);

	snprintf(out, SEND_HOST_MAX, "%s", good ? host : "");
	curl()->free(scheme);
	curl()->free(host);
	curl()->url_cleanup(u);
	return good;
}
