/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/store/s3_sso.h"

#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/base/log.h"
#include "engine/store/s3_http.h"
#include "engine/store/s3_sign.h"

#include <fcntl.h>
#include <jansson.h>
#include <nettle/sha1.h>
#include <string.h>
#include <unistd.h>

#define ANSWER_MAX_BYTES (64 << 10)
#define TOKEN_MAX_BYTES (64 << 10)
#define FOLDER_ROOM 3800
#define NAME_ROOM (2 * SHA1_DIGEST_SIZE + 6)
#define CONNECT_S 10
#define STALL_S 15
#define EARLY_US (300 * US_PER_SECOND) /* another token so long before it expires */
#define YEAR_MAX_MS INT64_C(253402300799999)

static void wipe_buf(struct buf *b)
{
	if (b->data)
		explicit_bzero(b->data, b->cap);
	buf_release(b);
}
#define cleanup_secret CLEANUP(wipe_buf)

static void wipe_answer(struct http_answer *a)
{
	wipe_buf(&a->body);
}
#define cleanup_secret_answer CLEANUP(wipe_answer)

static void forget_json(json_t **root)
{
	json_decref(*root);
}
#define cleanup_json CLEANUP(forget_json)

static const char *text_of(const json_t *root, const char *name)
{
	const char *text = json_string_value(json_object_get(root, name));

	return text && *text ? text : NULL;
}

/* ---- the token that `aws sso login` left ---- */

struct token {
	char folder[FOLDER_ROOM], name[NAME_ROOM];
	json_t *root; /* what the file says */
	const char *access;
	int64_t expires_us;
};

static void token_release(struct token *t)
{
	json_decref(t->root);
	t->root = NULL;
	t->access = NULL;
}
#define cleanup_token CLEANUP(token_release)

static int token_place(const struct s3_profile *f, struct token *t, struct err *err)
{
	const char *key = f->sso_session ? f->sso_session : f->sso_start_url;
	const char *home = getenv("HOME");
	uint8_t digest[SHA1_DIGEST_SIZE];
	char hex[2 * SHA1_DIGEST_SIZE + 1];
	struct sha1_ctx c;

	if (!home || !*home ||
	    snprintf(t->folder, sizeof(t->folder), "%s/.aws/sso/cache", home) >=
	            (int)sizeof(t->folder))
		return err_set(err, ERR_DENIED, 0, "HOME names no folder with .aws/sso/cache");
	sha1_init(&c);
	sha1_update(&c, strlen(key), (const uint8_t *)key);
	sha1_digest(&c, sizeof(digest), digest);
	s3_hex(digest, sizeof(digest), hex);
	snprintf(t->name, sizeof(t->name), "%s.json", hex);
	return 0;
}

/* Old versions wrote "UTC" for Z. */
static bool read_time(const char *text, int64_t *ret_us)
{
	char copy[40];
	size_t len = text ? strlen(text) : 0;

	if (len < 4 || len >= sizeof(copy))
		return false;
	memcpy(copy, text, len + 1);
	if (strcmp(copy + len - 3, "UTC") == 0)
		memcpy(copy + len - 3, "Z", 2);
	return time_parse(copy, 0, TIME_ZONE_UTC, ret_us, NULL, NULL) == 0;
}

/* What goes into a header is printable. */
static bool is_plain(const char *text)
{
	for (; *text; text++)
		if (*text <= 32 || *text >= 127)
			return false;
	return true;
}

static int token_read(struct token *t, struct err *err)
{
	char path[FOLDER_ROOM + NAME_ROOM];
	struct err why = ERR_INIT;
	char *text = NULL;
	size_t len;

	token_release(t);
	snprintf(path, sizeof(path), "%s/%s", t->folder, t->name);
	int rc = file_get(AT_FDCWD, path, TOKEN_MAX_BYTES, &text, &len, &why);
	if (rc == -ERR_NOT_FOUND)
		return err_set(err, ERR_DENIED, 0, "nobody is signed in");
	if (rc < 0)
		return err_copy(err, &why);
	t->root = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
	explicit_bzero(text, len);
	free(text);
	t->access = text_of(t->root, "accessToken");
	if (!t->access || !is_plain(t->access) ||
	    !read_time(text_of(t->root, "expiresAt"), &t->expires_us))
		return err_set(err, ERR_DENIED, 0, "'%.200s' has no token", path);
	return 0;
}

/* ---- requests ---- */

static int ask(const struct s3_fetch_options *o, const struct http_request *r,
               struct http_answer *a, struct err *err)
{
	const struct http_options options = {
	        .ca_file = o->ca_file, .proxy = o->proxy, .stop = o->stop};
	cleanup_http struct http *h = NULL;

	int rc = http_new(&options, &h, err);
	return rc < 0 ? rc : http_exchange(h, r, a, err);
}

/* "https://SERVICE.REGION.amazonaws.com" or what the environment says, without a slash at the end. */
static int server(const char *variable, const char *service, const char *region, struct buf *ret,
                  struct err *err)
{
	const char *said = getenv(variable);
	size_t len = said ? strlen(said) : 0;

	while (len && said[len - 1] == '/')
		len--;
	if (len)
		return buf_printf(ret, err, "%.*s", (int)len, said);
	return buf_printf(ret, err, "https://%s.%s.amazonaws.com%s", service, region,
	                  strncmp(region, "cn-", 3) == 0 ? ".cn" : "");
}

static bool is_later(const struct http_answer *a)
{
	return a->status >= 500 || a->status == 429;
}

/* ---- another token ---- */

static char *renewal_form(const struct token *t)
{
	cleanup_json json_t *form = json_pack("{s:s, s:s, s:s, s:s}", "grantType", "refresh_token",
	                                      "clientId", text_of(t->root, "clientId"),
	                                      "clientSecret", text_of(t->root, "clientSecret"),
	                                      "refreshToken", text_of(t->root, "refreshToken"));

	return form ? json_dumps(form, JSON_COMPACT) : NULL;
}

/* What the answer says takes the place of what was, beside what stays. */
static int token_put(struct token *t, const struct http_answer *a, struct err *err)
{
	cleanup_json json_t *got =
	        json_loadb((const char *)a->body.data, a->body.len, JSON_REJECT_DUPLICATES, NULL);
	json_int_t lasts_s = json_integer_value(json_object_get(got, "expiresIn"));
	const char *access = text_of(got, "accessToken"), *refresh = text_of(got, "refreshToken");
	cleanup_fd int dir_fd = -1;
	struct civil c;
	char end[32];

	if (!access || !is_plain(access) || lasts_s <= 0 || lasts_s > 400 * 86400)
		return err_set(err, ERR_DENIED, 0, "the answer has no token");
	civil_from_us(clock_now_us() + lasts_s * US_PER_SECOND, &c);
	snprintf(end, sizeof(end), "%04d-%02d-%02dT%02d:%02d:%02dZ", c.year, c.month, c.day, c.hour,
	         c.minute, c.second);
	json_object_set_new(t->root, "accessToken", json_string(access));
	json_object_set_new(t->root, "expiresAt", json_string(end));
	if (refresh)
		json_object_set_new(t->root, "refreshToken", json_string(refresh));
	char *text = json_dumps(t->root, 0);
	if (!text)
		return err_set(err, ERR_NOMEM, 0, "no memory for a token");
	int rc = file_open_dir(AT_FDCWD, t->folder, false, &dir_fd, err);
	if (rc == 0)
		rc = file_put(dir_fd, t->name, text, strlen(text), err);
	explicit_bzero(text, strlen(text));
	free(text);
	return rc;
}

static int ask_for_token(const struct s3_fetch_options *o, const struct s3_profile *f,
                         struct token *t, struct err *err)
{
	static const char *const headers[] = {"Content-Type: application/json"};
	cleanup_secret_answer struct http_answer a = HTTP_ANSWER_INIT(ANSWER_MAX_BYTES);
	cleanup_secret struct buf url = BUF_INIT(4096);
	cleanup_source struct source *body = NULL;
	char *form = renewal_form(t);
	int rc;

	if (!form)
		return err_set(err, ERR_NOMEM, 0, "no memory for a request");
	struct http_request r = {.method = "POST",
	                         .headers = headers,
	                         .n_headers = 1,
	                         .body_bytes = strlen(form),
	                         .connect_s = CONNECT_S,
	                         .stall_s = STALL_S};
	rc = server("AWS_ENDPOINT_URL_SSO_OIDC", "oidc", f->sso_region, &url, err);
	rc = rc ? rc : buf_printf(&url, err, "/token");
	rc = rc ? rc : source_open_bytes(form, strlen(form), "form", &body, err);
	r.url = (const char *)url.data;
	r.body = body;
	rc = rc ? rc : ask(o, &r, &a, err);
	if (rc == 0 && a.status != 200)
		rc = err_set(err, is_later(&a) ? ERR_UNAVAILABLE : ERR_DENIED, 0,
		             "the answer is %d", a.status);
	rc = rc ? rc : token_put(t, &a, err);
	explicit_bzero(form, strlen(form));
	free(form);
	return rc;
}

/*
 * The token that is to be used.  Where another could not be had, the one that is there may still be
 * good; and another program that lives on the same file may have been the one that got it, so it is
 * read again.
 */
static int token_in_force(const struct s3_fetch_options *o, const struct s3_profile *f,
                          struct token *t, struct err *err)
{
	struct err why = ERR_INIT;
	char end[TIME_STR_MAX];

	int rc = token_read(t, err);
	if (rc == 0 && f->sso_session && clock_now_us() > t->expires_us - EARLY_US &&
	    text_of(t->root, "refreshToken") && text_of(t->root, "clientId") &&
	    text_of(t->root, "clientSecret")) {
		if (ask_for_token(o, f, t, &why) < 0)
			log_debug("s3", "no other SSO token: %s", why.msg);
		rc = token_read(t, err);
	}
	if (rc < 0 || clock_now_us() < t->expires_us)
		return rc;
	if (why.kind == ERR_UNAVAILABLE || why.kind == ERR_CANCELLED)
		return err_copy(err, &why);
	time_format(t->expires_us, end);
	return err_set(err, ERR_DENIED, 0, "its token expired at %s", end);
}

/* ---- the portal ---- */

int s3_sso_parse(const char *text, size_t len, struct s3_credentials *ret, struct err *err)
{
	cleanup_json json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
	const json_t *keys = json_object_get(root, "roleCredentials");
	json_int_t end_ms = json_integer_value(json_object_get(keys, "expiration"));

	*ret = (struct s3_credentials){0};
	if (end_ms < 0 || end_ms > YEAR_MAX_MS)
		return err_set(err, ERR_DENIED, 0, "credentials expire at no time");
	int rc = s3_fetch_take(text_of(keys, "accessKeyId"), text_of(keys, "secretAccessKey"),
	                       text_of(keys, "sessionToken"), NULL, ret, err);
	if (rc == 0)
		ret->expires_us = end_ms * 1000;
	return rc;
}

static int ask_portal(const struct s3_fetch_options *o, const struct s3_profile *f,
                      const struct token *t, struct http_answer *a, struct err *err)
{
	const struct s3_pair query[] = {{"role_name", f->sso_role_name},
	                                {"account_id", f->sso_account_id}};
	cleanup_secret struct buf line = BUF_INIT(TOKEN_MAX_BYTES + 64);
	cleanup_secret struct buf url = BUF_INIT(8192);

	int rc = server("AWS_ENDPOINT_URL_SSO", "portal.sso", f->sso_region, &url, err);
	rc = rc ? rc : buf_printf(&url, err, "/federation/credentials?");
	rc = rc ? rc : s3_encode_query(query, 2, &url, err);
	rc = rc ? rc : buf_printf(&line, err, "x-amz-sso_bearer_token: %s", t->access);
	if (rc < 0)
		return rc;
	const char *const headers[] = {(const char *)line.data};
	const struct http_request r = {.method = "GET",
	                               .url = (const char *)url.data,
	                               .headers = headers,
	                               .n_headers = 1,
	                               .connect_s = CONNECT_S,
	                               .stall_s = STALL_S};
	return ask(o, &r, a, err);
}

/* An error that signing in anew would mend says how. */
static int sign_in(const char *name, struct err *why, struct err *err)
{
	return why->kind == ERR_DENIED
	               ? err_set(err, ERR_DENIED, 0, "SSO: %s: run `aws sso login --profile %s`",
	                         why->msg, name)
	               : err_set(err, why->kind, 0, "SSO: %s", why->msg);
}

bool s3_sso_is_meant(const struct s3_profile *f)
{
	return f->sso_account_id || f->sso_role_name;
}

int s3_fetch_sso(const struct s3_fetch_options *o, const char *name, const struct s3_profile *f,
                 struct s3_credentials *ret, struct err *err)
{
	cleanup_secret_answer struct http_answer a = HTTP_ANSWER_INIT(ANSWER_MAX_BYTES);
	cleanup_token struct token t = {.root = NULL};
	struct err why = ERR_INIT;

	*ret = (struct s3_credentials){0};
	if (!f->sso_account_id || !f->sso_role_name || !f->sso_start_url || !f->sso_region)
		return err_set(err, ERR_DENIED, 0,
		               "SSO: sso_account_id, sso_role_name, sso_start_url or sso_region is "
		               "missing: run `aws configure sso --profile %s`",
		               name);
	int rc = token_place(f, &t, err);
	if (rc < 0)
		return rc;
	if (token_in_force(o, f, &t, &why) < 0)
		return sign_in(name, &why, err);
	if ((rc = ask_portal(o, f, &t, &a, err)) < 0)
		return err_wrap(err, rc, "SSO");
	if (a.status == 401) {
		err_set(&why, ERR_DENIED, 0, "the portal takes its token no more");
		return sign_in(name, &why, err);
	}
	if (a.status == 200)
		rc = s3_sso_parse((const char *)a.body.data, a.body.len, ret, err);
	else
		rc = err_set(err, is_later(&a) ? ERR_UNAVAILABLE : ERR_DENIED, 0,
		             "the portal answers %d for role %.64s of account %.20s", a.status,
		             f->sso_role_name, f->sso_account_id);
	return rc < 0 ? err_wrap(err, rc, "SSO") : 0;
}
