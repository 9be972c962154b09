/* SPDX-License-Identifier: Apache-2.0 */
/* Who may ask: tokens, passwords, and the name by which this machine was asked. */
#include "engine/observe/http_i.h"

#include <ctype.h>
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
	        MHD_lookup_connection_value(c, MHD_HEADER_KIND, MHD_HTTP_HEADER_AUTHORIZATION);

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
	char *user = MHD_basic_auth_get_username_password(c, &password);
	if (user && password) {
		bool right_user = same_secret(user, s->username);
		right = same_secret(password, s->password) && right_user;
	}
	MHD_free(user);
	MHD_free(password);
	return right;
}

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
		        MHD_lookup_connection_value(c, MHD_HEADER_KIND, MHD_HTTP_HEADER_HOST);
		if (host && !names_loopback(host))
			return GUARD_WRONG_HOST;
	}
	if (!s->wants_credentials || has_token(s, c) || has_password(s, c))
		return GUARD_KNOWN;
	return GUARD_UNKNOWN;
}
