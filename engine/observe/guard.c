/* SPDX-License-Identifier: Apache-2.0 */
/* Who may ask: tokens, passwords, and the name by which this machine was asked. */
#include "engine/observe/http_i.h"

#include <ctype.h>
#include <nettle/hmac.h>
#include <string.h>
#include <strings.h>

/* Takes as long for a wrong text as for another wrong one of its length. */
static bool same_secret(const char *given, const char *wanted)
{
	size_t len = strlen(wanted), given_len = strlen(given);
	unsigned char differs = given_len != len;

	for (size_t i = 0; i < given_len; i++)
		differs |= (unsigned char)(given[i] ^ wanted[len ? i % len : 0]);
	return !differs;
}

static bool has_token(const struct http_server *s, struct MHD_Connection *c)
{
	static const char scheme[] = "Bearer ";
	const char *given =
	        mhd()->lookup_connection_value(c, MHD_HEADER_KIND, MHD_HTTP_HEADER_AUTHORIZATION);

	if (!s->token || !given || strncasecmp(given, scheme, sizeof(scheme) - 1) != 0)
		return false;
	return same_secret(given + sizeof(scheme) - 1, s->token);
}

static bool has_password(const struct http_server *s, struct MHD_Connection *c)
{
	char *password = NULL;
	bool right = false;

	if (!s->password)
		return false;
	char *user = mhd()->basic_auth_get_username_password(c, &password);
	if (user && password) {
		bool right_user = same_secret(user, s->username);
		right = same_secret(password, s->password) && right_user;
	}
	mhd()->free(user);
	mhd()->free(password);
	return right;
}

/* ---- the cookie ---- */

static void keyed_hash(const char *key, const char *text, char *hex, size_t size)
{
	uint8_t digest[SHA256_DIGEST_SIZE];
	struct hmac_sha256_ctx h;

	hmac_sha256_set_key(&h, strlen(key), (const uint8_t *)key);
	hmac_sha256_update(&h, strlen(text), (const uint8_t *)text);
	hmac_sha256_digest(&h, sizeof(digest), digest);
	for (size_t i = 0; i < sizeof(digest) && 2 * i + 2 < size; i++)
		snprintf(hex + 2 * i, 3, "%02x", digest[i]);
}

void guard_make_cookie(struct http_server *s)
{
	char hex[9];

	if (!s->token)
		return;
	keyed_hash(s->token, "asof: name of the cookie", hex, sizeof(hex));
	snprintf(s->cookie_name, sizeof(s->cookie_name), "asof-%s", hex);
	keyed_hash(s->token, "asof: the cookie", s->cookie_value, sizeof(s->cookie_value));
}

static bool has_cookie(const struct http_server *s, struct MHD_Connection *c)
{
	if (!s->cookie_name[0])
		return false;
	const char *given = mhd()->lookup_connection_value(c, MHD_COOKIE_KIND, s->cookie_name);
	return given && same_secret(given, s->cookie_value);
}

static void set_cookie(const struct http_request *q, struct http_response *r, const char *value,
                       const char *more)
{
	const struct http_server *s = q->server;

	if (s->cookie_name[0])
		http_set_header(r, MHD_HTTP_HEADER_SET_COOKIE,
		                "%s=%s; Path=/; HttpOnly; SameSite=Strict%s%s", s->cookie_name,
		                value, s->tls_cert ? "; Secure" : "", more);
}

void http_log_in(const struct http_request *q, struct http_response *r)
{
	set_cookie(q, r, q->server->cookie_value, "");
}

void http_log_out(const struct http_request *q, struct http_response *r)
{
	set_cookie(q, r, "", "; Max-Age=0");
}

/* ---- */

/* HOST, HOST:PORT, [V6]:PORT. */
static bool names_loopback(const char *host)
{
	static const char *const names[] = {"localhost", "[::1]"};
	size_t len = host[0] == '[' ? strcspn(host, "]") + (strchr(host, ']') != NULL)
	                            : strcspn(host, ":");

	if (host[len] && host[len] != ':')
		return false;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strlen(names[i]) == len && strncasecmp(host, names[i], len) == 0)
			return true;
	if (strncmp(host, "127.", 4) != 0)
		return false;
	for (size_t i = 0; i < len; i++)
		if (!isdigit((unsigned char)host[i]) && host[i] != '.')
			return false;
	return true;
}

enum guard_verdict guard_check(const struct http_server *s, struct MHD_Connection *c)
{
	if (s->checks_host) {
		const char *host =
		        mhd()->lookup_connection_value(c, MHD_HEADER_KIND, MHD_HTTP_HEADER_HOST);
		if (host && !names_loopback(host))
			return GUARD_WRONG_HOST;
	}
	if (!s->wants_credentials || has_token(s, c) || has_password(s, c))
		return GUARD_KNOWN;
	return has_cookie(s, c) ? GUARD_LOGGED_IN : GUARD_UNKNOWN;
}
