/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/store/s3_fetch.h"

#include "engine/base/clock.h"
#include "engine/base/command.h"
#include "engine/base/file.h"
#include "engine/store/s3_http.h"
#include "engine/store/s3_sign.h"
#include "engine/store/s3_xml.h"

#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <string.h>

#define ANSWER_MAX_BYTES (64 << 10)
#define TOKEN_MAX_BYTES (16 << 10)
#define PROCESS_WAIT_MS 60000
#define MACHINE_CONNECT_S 1
#define MACHINE_STALL_S 3
#define SERVICE_CONNECT_S 10
#define SERVICE_STALL_S 15
#define CONTAINER_HOST "http://169.254.170.2"
#define MACHINE_HOST "http://169.254.169.254"
#define MACHINE_ROLES "/latest/meta-data/iam/security-credentials/"

static void wipe_buf(struct buf *b)
{
	if (b->data)
		explicit_bzero(b->data, b->cap);
	buf_release(b);
}
#define cleanup_secret CLEANUP(wipe_buf)

/* Goes into a header or a command's environment, so it holds nothing but printable characters. */
static int take_secret(char **ret, const char *text, struct err *err)
{
	for (const char *p = text; p && *p; p++)
		if (*p <= 32 || *p >= 127)
			return err_set(err, ERR_DENIED, 0, "credentials with odd characters");
	*ret = text && *text ? strdup(text) : NULL;
	return *ret || !text || !*text ? 0 : err_set(err, ERR_NOMEM, 0, "no memory");
}

int s3_fetch_take(const char *id, const char *secret, const char *token, const char *expires,
                  struct s3_credentials *ret, struct err *err)
{
	int rc;

	*ret = (struct s3_credentials){0};
	if (!id || !*id || !secret || !*secret)
		return err_set(err, ERR_DENIED, 0, "the answer has no credentials");
	if (expires && *expires &&
	    time_parse(expires, 0, TIME_ZONE_UTC, &ret->expires_us, NULL, NULL) < 0)
		return err_set(err, ERR_DENIED, 0,
		               "credentials expire at '%.40s', which is no time", expires);
	if ((rc = take_secret(&ret->access_key_id, id, err)) < 0 ||
	    (rc = take_secret(&ret->secret_access_key, secret, err)) < 0 ||
	    (rc = take_secret(&ret->session_token, token, err)) < 0)
		s3_credentials_release(ret);
	return rc;
}

/* ---- answers ---- */

static const char *text_of(const json_t *root, const char *name)
{
	return json_string_value(json_object_get(root, name));
}

int s3_fetch_parse_json(const char *text, size_t len, struct s3_credentials *ret, struct err *err)
{
	json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
	const char *code = text_of(root, "Code"), *token = text_of(root, "SessionToken");
	int rc;

	*ret = (struct s3_credentials){0};
	if (!json_is_object(root))
		rc = err_set(err, ERR_DENIED, 0, "the answer is not JSON with credentials");
	else if (code && strcmp(code, "Success") != 0)
		rc = err_set(err, ERR_DENIED, 0, "the answer is %.60s", code);
	else
		rc = s3_fetch_take(text_of(root, "AccessKeyId"), text_of(root, "SecretAccessKey"),
		                   token ? token : text_of(root, "Token"),
		                   text_of(root, "Expiration"), ret, err);
	json_decref(root);
	return rc;
}

int s3_fetch_parse_sts(const char *action, const char *text, size_t len, struct s3_credentials *ret,
                       struct err *err)
{
	static const char *const names[] = {"AccessKeyId", "SecretAccessKey", "SessionToken",
	                                    "Expiration"};
	char *found[4] = {NULL}, root[64], path[128];
	int rc = 0;

	snprintf(root, sizeof(root), "%sResponse", action);
	for (size_t i = 0; i < 4 && rc == 0; i++) {
		snprintf(path, sizeof(path), "%sResult/Credentials/%s", action, names[i]);
		rc = s3_xml_text(text, len, root, path, &found[i], err);
	}
	if (rc == 0)
		rc = s3_fetch_take(found[0], found[1], found[2], found[3], ret, err);
	for (size_t i = 0; i < 4; i++) {
		if (found[i])
			explicit_bzero(found[i], strlen(found[i]));
		free(found[i]);
	}
	return rc;
}

/* ---- a program ---- */

static int read_output(struct command *c, const _Atomic bool *stop, struct buf *ret,
                       struct err *err)
{
	int64_t end_us = clock_mono_us() + PROCESS_WAIT_MS * INT64_C(1000);

	for (;;) {
		struct pollfd f = {.fd = c->out_fd, .events = POLLIN};
		int rc = buf_reserve(ret, 4096, err);
		if (rc < 0)
			return rc;
		if (stop && *stop)
			return err_set(err, ERR_CANCELLED, 0, "stopped");
		if (clock_mono_us() > end_us)
			return err_set(err, ERR_UNAVAILABLE, 0,
			               "credential_process takes over %d s",
			               PROCESS_WAIT_MS / 1000);
		if (poll(&f, 1, 200) <= 0)
			continue;
		ssize_t n = read(c->out_fd, ret->data + ret->len, 4096);
		if (n == 0)
			return 0;
		if (n > 0)
			ret->len += (size_t)n;
		else if (errno != EINTR)
			return err_set(err, ERR_IO, errno, "read what credential_process writes");
	}
}

int s3_fetch_process(const char *command, const _Atomic bool *stop, struct s3_credentials *ret,
                     struct err *err)
{
	const char *const argv[] = {"/bin/sh", "-c", command, NULL};
	cleanup_secret struct buf out = BUF_INIT(ANSWER_MAX_BYTES);
	cleanup_command struct command c = COMMAND_INIT;
	int rc;

	if ((rc = command_start(&c, argv, -1, err)) < 0 ||
	    (rc = read_output(&c, stop, &out, err)) < 0 ||
	    (rc = command_finish(&c, ERR_DENIED, err)) < 0)
		return err_wrap(err, rc, "credential_process");
	rc = s3_fetch_parse_json((const char *)out.data, out.len, ret, err);
	return rc < 0 ? err_wrap(err, rc, "credential_process") : 0;
}

/* ---- requests ---- */

struct ask {
	const char *method, *url;
	const char *headers[4];
	size_t n_headers;
	struct source *body;
	uint64_t body_bytes;
	unsigned connect_s, stall_s;
};

static int ask(const struct http_options *o, const struct ask *q, struct http_answer *a,
               struct err *err)
{
	cleanup_http struct http *h = NULL;
	const struct http_request r = {.method = q->method,
	                               .url = q->url,
	                               .headers = q->headers,
	                               .n_headers = q->n_headers,
	                               .body = q->body,
	                               .body_bytes = q->body_bytes,
	                               .connect_s = q->connect_s,
	                               .stall_s = q->stall_s};

	int rc = http_new(o, &h, err);
	return rc < 0 ? rc : http_exchange(h, &r, a, err);
}

static void wipe_answer(struct http_answer *a)
{
	wipe_buf(&a->body);
}
#define cleanup_secret_answer CLEANUP(wipe_answer)

static int read_token_file(const char *path, char **ret, struct err *err)
{
	size_t len;

	int rc = file_get(AT_FDCWD, path, TOKEN_MAX_BYTES, ret, &len, err);
	if (rc < 0)
		return err_wrap(err, rc, "token");
	(*ret)[strcspn(*ret, "\r\n")] = '\0';
	return 0;
}

static int sts_url(const char *region, char *out, size_t size)
{
	const char *said = getenv("AWS_ENDPOINT_URL_STS");

	if (said && *said)
		return snprintf(out, size, "%s", said);
	return snprintf(out, size, "https://sts.%s.amazonaws.com%s/", region,
	                strncmp(region, "cn-", 3) == 0 ? ".cn" : "");
}

static int judge_sts(const char *action, const struct http_answer *a, struct s3_credentials *ret,
                     struct err *err)
{
	char *code = NULL;

	if (a->status == 200)
		return s3_fetch_parse_sts(action, (const char *)a->body.data, a->body.len, ret,
		                          err);
	int rc = s3_xml_text(a->body.data, a->body.len, "ErrorResponse", "Error/Code", &code, NULL);
	bool later = a->status >= 500 || a->status == 429;
	rc = err_set(err, later ? ERR_UNAVAILABLE : ERR_DENIED, 0, "it answers %d %.60s", a->status,
	             rc == 0 ? code : "");
	free(code);
	return rc;
}

/* What STS wants of who asks: four headers, and their signature. */
struct signed_lines {
	char date[S3_DATE_MAX + 16];
	struct buf authorization, token;
};

static void signed_lines_release(struct signed_lines *l)
{
	wipe_buf(&l->authorization);
	wipe_buf(&l->token);
}

static int sign_form(const char *url, const char *region, const struct buf *form,
                     const struct s3_credentials *who, struct signed_lines *l, struct err *err)
{
	const char *host = strstr(url, "://") ? strstr(url, "://") + 3 : url;
	const char *path = host + strcspn(host, "/");
	cleanup_free char *name = strndup(host, (size_t)(path - host));
	char date[S3_DATE_MAX], hash[S3_SHA256_HEX];

	if (!name)
		return err_set(err, ERR_NOMEM, 0, "no memory for a request");
	s3_format_date(clock_now_us(), date);
	s3_sha256_hex(form->data, form->len, hash);
	const struct s3_pair headers[] = {
	        {"host", name}, {"x-amz-date", date}, {"x-amz-security-token", who->session_token}};
	const struct s3_signing signing = {.method = "POST",
	                                   .path = *path ? path : "/",
	                                   .headers = headers,
	                                   .n_headers = who->session_token ? 3 : 2,
	                                   .body_sha256 = hash,
	                                   .access_key_id = who->access_key_id,
	                                   .secret_access_key = who->secret_access_key,
	                                   .region = region,
	                                   .service = "sts",
	                                   .date = date};
	snprintf(l->date, sizeof(l->date), "x-amz-date: %s", date);
	int rc = buf_printf(&l->authorization, err, "authorization: ");
	rc = rc ? rc : s3_sign(&signing, &l->authorization, err);
	if (rc == 0 && who->session_token)
		rc = buf_printf(&l->token, err, "x-amz-security-token: %s", who->session_token);
	return rc;
}

/* `who` NULL: the form says it. */
static int ask_sts(const struct s3_fetch_options *o, const struct s3_pair *form, size_t n,
                   const struct s3_credentials *who, struct s3_credentials *ret, struct err *err)
{
	const struct http_options options = {
	        .ca_file = o->ca_file, .proxy = o->proxy, .stop = o->stop};
	const char *region = o->region ? o->region : "us-east-1";
	cleanup_secret_answer struct http_answer a = HTTP_ANSWER_INIT(ANSWER_MAX_BYTES);
	cleanup_secret struct buf text = BUF_INIT(4 * TOKEN_MAX_BYTES);
	cleanup_source struct source *body = NULL;
	struct signed_lines CLEANUP(signed_lines_release)
	        lines = {.authorization = BUF_INIT(4096), .token = BUF_INIT(TOKEN_MAX_BYTES + 64)};
	char url[512];
	int rc;

	sts_url(region, url, sizeof(url));
	struct ask q = {.method = "POST",
	                .url = url,
	                .headers = {"Content-Type: application/x-www-form-urlencoded"},
	                .n_headers = 1,
	                .connect_s = SERVICE_CONNECT_S,
	                .stall_s = SERVICE_STALL_S};
	if ((rc = s3_encode_query(form, n, &text, err)) < 0 ||
	    (who && (rc = sign_form(url, region, &text, who, &lines, err)) < 0) ||
	    (rc = source_open_bytes(text.data, text.len, "form", &body, err)) < 0)
		return rc;
	if (who) {
		q.headers[q.n_headers++] = lines.date;
		q.headers[q.n_headers++] = (const char *)lines.authorization.data;
		if (who->session_token)
			q.headers[q.n_headers++] = (const char *)lines.token.data;
	}
	q.body = body;
	q.body_bytes = text.len;
	rc = ask(&options, &q, &a, err);
	return rc < 0 ? rc : judge_sts(form[0].value, &a, ret, err);
}

static const char *session_or_default(const char *name)
{
	return name && *name ? name : "asof";
}

int s3_fetch_web_identity(const struct s3_fetch_options *o, const char *role_arn,
                          const char *token_file, const char *session_name,
                          struct s3_credentials *ret, struct err *err)
{
	char *token = NULL;

	*ret = (struct s3_credentials){0};
	int rc = read_token_file(token_file, &token, err);
	if (rc == 0) {
		const struct s3_pair form[] = {
		        {"Action", "AssumeRoleWithWebIdentity"},
		        {"Version", "2011-06-15"},
		        {"RoleArn", role_arn},
		        {"RoleSessionName", session_or_default(session_name)},
		        {"WebIdentityToken", token}};
		rc = ask_sts(o, form, 5, NULL, ret, err);
		explicit_bzero(token, strlen(token));
	}
	free(token);
	return rc < 0 ? err_wrap(err, rc, "token service") : 0;
}

int s3_fetch_role(const struct s3_fetch_options *o, const struct s3_credentials *who,
                  const char *role_arn, const char *external_id, const char *session_name,
                  struct s3_credentials *ret, struct err *err)
{
	const struct s3_pair form[] = {{"Action", "AssumeRole"},
	                               {"Version", "2011-06-15"},
	                               {"RoleArn", role_arn},
	                               {"RoleSessionName", session_or_default(session_name)},
	                               {"ExternalId", external_id}};

	*ret = (struct s3_credentials){0};
	int rc = ask_sts(o, form, external_id ? 5 : 4, who, ret, err);
	return rc < 0 ? err_wrap(err, rc, "token service") : 0;
}

/* ---- the container ---- */

/* An address that may see the token: over TLS anyone, else this machine and its neighbours of the
 * same kind. */
static bool may_see_token(const char *url)
{
	static const char *const hosts[] = {"http://127.0.0.1",      "http://localhost",
	                                    "http://[::1]",          "http://169.254.170.2",
	                                    "http://169.254.170.23", "http://[fd00:ec2::23]"};

	if (strncmp(url, "https://", 8) == 0)
		return true;
	for (size_t i = 0; i < sizeof(hosts) / sizeof(*hosts); i++) {
		size_t n = strlen(hosts[i]);
		if (strncmp(url, hosts[i], n) == 0 && strchr(":/", url[n]))
			return true;
	}
	return false;
}

static int container_token(char **ret, struct err *err)
{
	const char *file = getenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
	const char *said = getenv("AWS_CONTAINER_AUTHORIZATION_TOKEN");

	*ret = NULL;
	if (file && *file)
		return read_token_file(file, ret, err);
	if (said && *said && !(*ret = strdup(said)))
		return err_set(err, ERR_NOMEM, 0, "no memory");
	return 0;
}

static int judge_json(const struct http_answer *a, struct s3_credentials *ret, struct err *err)
{
	if (a->status == 200)
		return s3_fetch_parse_json((const char *)a->body.data, a->body.len, ret, err);
	return err_set(err, a->status >= 500 || a->status == 429 ? ERR_UNAVAILABLE : ERR_DENIED, 0,
	               "the answer is %d", a->status);
}

int s3_fetch_container(const _Atomic bool *stop, struct s3_credentials *ret, struct err *err)
{
	const char *relative = getenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
	const char *full = getenv("AWS_CONTAINER_CREDENTIALS_FULL_URI");
	const struct http_options options = {.proxy = "", .stop = stop};
	cleanup_secret_answer struct http_answer a = HTTP_ANSWER_INIT(ANSWER_MAX_BYTES);
	cleanup_free char *token = NULL;
	cleanup_secret struct buf line = BUF_INIT(TOKEN_MAX_BYTES + 64);
	char url[1024];
	int rc;

	*ret = (struct s3_credentials){0};
	if (relative && *relative)
		snprintf(url, sizeof(url), CONTAINER_HOST "%s", relative);
	else if (full && *full)
		snprintf(url, sizeof(url), "%s", full);
	else
		return 0;
	if (!may_see_token(url))
		return err_set(err, ERR_REFUSED, 0,
		               "AWS_CONTAINER_CREDENTIALS_FULL_URI is neither https nor near");
	struct ask q = {.method = "GET",
	                .url = url,
	                .connect_s = MACHINE_CONNECT_S + 1,
	                .stall_s = SERVICE_STALL_S};
	if ((rc = container_token(&token, err)) == 0 && token) {
		rc = buf_printf(&line, err, "Authorization: %s", token);
		q.headers[q.n_headers++] = (const char *)line.data;
	}
	if (rc == 0 && (rc = ask(&options, &q, &a, err)) == 0)
		rc = judge_json(&a, ret, err);
	return rc < 0 ? err_wrap(err, rc, "the container's credentials") : 0;
}

/* ---- the machine ---- */

static int machine_get(const struct http_options *o, const char *method, const char *path,
                       const char *header, struct http_answer *a, struct err *err)
{
	const char *said = getenv("AWS_EC2_METADATA_SERVICE_ENDPOINT");
	char url[512];
	struct ask q = {.method = method,
	                .url = url,
	                .headers = {header},
	                .n_headers = 1,
	                .connect_s = MACHINE_CONNECT_S,
	                .stall_s = MACHINE_STALL_S};
	size_t len = said ? strlen(said) : 0;

	while (len && said[len - 1] == '/')
		len--;
	if (len)
		snprintf(url, sizeof(url), "%.*s%s", (int)len, said, path);
	else
		snprintf(url, sizeof(url), MACHINE_HOST "%s", path);
	return ask(o, &q, a, err);
}

/* The first line of an answer; "" for one that has odd characters. */
static const char *first_line(struct http_answer *a)
{
	char *text = (char *)a->body.data;

	text[strcspn(text, "\r\n")] = '\0';
	for (const char *p = text; *p; p++)
		if (*p <= 32 || *p >= 127)
			return "";
	return text;
}

/* Not one answer: no such machine. */
int s3_fetch_machine(const _Atomic bool *stop, struct s3_credentials *ret, struct err *err)
{
	const struct http_options o = {.proxy = "", .stop = stop};
	cleanup_secret_answer struct http_answer token = HTTP_ANSWER_INIT(4096);
	cleanup_secret_answer struct http_answer a = HTTP_ANSWER_INIT(ANSWER_MAX_BYTES);
	const char *off = getenv("AWS_EC2_METADATA_DISABLED");
	char header[4200], path[256];

	*ret = (struct s3_credentials){0};
	if (off && strcasecmp(off, "true") == 0)
		return 0;
	int rc = machine_get(&o, "PUT", "/latest/api/token",
	                     "X-aws-ec2-metadata-token-ttl-seconds: 21600", &token, err);
	if (rc == -ERR_CANCELLED || (rc < 0 && rc != -ERR_UNAVAILABLE))
		return rc;
	if (rc == 0 && token.status >= 500)
		return err_set(err, ERR_UNAVAILABLE, 0, "the machine's metadata: the answer is %d",
		               token.status);
	if (rc < 0 || token.status != 200)
		return 0;
	snprintf(header, sizeof(header), "X-aws-ec2-metadata-token: %s", first_line(&token));
	rc = machine_get(&o, "GET", MACHINE_ROLES, header, &a, err);
	if (rc == 0 && a.status == 404) /* a machine without a role */
		return 0;
	if (rc == 0 && a.status != 200)
		rc = judge_json(&a, ret, err);
	if (rc == 0) {
		snprintf(path, sizeof(path), MACHINE_ROLES "%.128s", first_line(&a));
		rc = machine_get(&o, "GET", path, header, &a, err);
	}
	if (rc == 0)
		rc = judge_json(&a, ret, err);
	explicit_bzero(header, sizeof(header));
	return rc < 0 ? err_wrap(err, rc, "the machine's metadata") : 0;
}
