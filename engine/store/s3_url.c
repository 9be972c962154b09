/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/store/s3_url.h"

#include <ctype.h>
#include <string.h>

#define SCHEME "s3://"
#define URL_MAX 8192
#define KEY_ROOM 1024 /* what S3 takes */

/* ---- pieces ---- */

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)(c | 32);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* A part of the URL, decoded; NULL: a '%' without two digits, a control byte, no memory. */
static char *decode(const char *p, size_t len)
{
	char *out = malloc(len + 1);
	size_t n = 0;

	if (!out)
		return NULL;
	for (size_t i = 0; i < len; i++) {
		int c = (unsigned char)p[i];
		if (c == '%') {
			int high = len - i > 2 ? hex_digit(p[i + 1]) : -1;
			int low = high >= 0 ? hex_digit(p[i + 2]) : -1;
			c = low >= 0 ? high * 16 + low : 0;
			i += 2;
		}
		if (c < 32 || c == 127) {
			free(out);
			return NULL;
		}
		out[n++] = (char)c;
	}
	out[n] = '\0';
	return out;
}

static int set_text(char **field, const char *value, struct err *err)
{
	free(*field);
	*field = strdup(value);
	return *field ? 0 : err_set(err, ERR_NOMEM, 0, "no memory for a URL");
}

static int set_if_missing(char **field, const char *value, struct err *err)
{
	return *field || !value || !*value ? 0 : set_text(field, value, err);
}

static int parse_yes(const char *name, const char *value, int *ret, struct err *err)
{
	static const char *const words[] = {"no", "yes", "false", "true", "0", "1"};

	for (size_t i = 0; i < 6; i++)
		if (strcmp(value, words[i]) == 0) {
			*ret = (int)(i & 1);
			return 0;
		}
	return err_set(err, ERR_USAGE, 0, "%s=%.40s (yes or no)", name, value);
}

/* ---- parameters ---- */

struct parsed {
	struct s3_place *place;
	char *endpoint_url;
	int path_style, skip_verify; /* -1: not said */
};

static int set_parameter(struct parsed *p, const char *name, const char *value, struct err *err)
{
	const struct {
		const char *name;
		char **field;
	} texts[] = {
	        {"endpoint", &p->endpoint_url},
	        {"region", &p->place->region},
	        {"storage-class", &p->place->storage_class},
	        {"sse", &p->place->sse},
	        {"sse-kms-key-id", &p->place->sse_kms_key_id},
	        {"sse-customer-key-file", &p->place->sse_customer_key_file},
	        {"ca", &p->place->ca_file},
	        {"proxy", &p->place->proxy},
	        {"profile", &p->place->profile},
	};

	if (strcmp(name, "path-style") == 0)
		return parse_yes(name, value, &p->path_style, err);
	if (strcmp(name, "skip-verify") == 0)
		return parse_yes(name, value, &p->skip_verify, err);
	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
		if (strcmp(name, texts[i].name) != 0)
			continue;
		if (!*value)
			return err_set(err, ERR_USAGE, 0, "%s= has no value", name);
		if (texts[i].field == &p->place->proxy && strchr(value, '@'))
			return err_set(err, ERR_USAGE, 0,
			               "proxy= with a user: a URL is no place for passwords (set "
			               "https_proxy, or proxy in the configuration)");
		return set_text(texts[i].field, value, err);
	}
	return err_set(err, ERR_USAGE, 0,
	               "no parameter '%.60s' (endpoint, region, path-style, storage-class, sse, "
	               "sse-kms-key-id, sse-customer-key-file, ca, proxy, profile, skip-verify)",
	               name);
}

static int parse_parameters(struct parsed *p, const char *query, struct err *err)
{
	while (*query) {
		size_t len = strcspn(query, "&");
		size_t name_len = strcspn(query, "=&");
		if (name_len >= len)
			return err_set(err, ERR_USAGE, 0, "'%.*s' is no NAME=VALUE",
			               (int)(len < 60 ? len : 60), query);
		cleanup_free char *name = decode(query, name_len);
		cleanup_free char *value = decode(query + name_len + 1, len - name_len - 1);
		if (!name || !value)
			return err_set(err, ERR_USAGE, 0, "'%.*s' is not encoded right",
			               (int)(len < 60 ? len : 60), query);
		int rc = set_parameter(p, name, value, err);
		if (rc < 0)
			return rc;
		query += len + (query[len] == '&');
	}
	return 0;
}

/* ---- bucket and prefix ---- */

static bool bucket_is_sound(const char *b)
{
	size_t len = strlen(b);

	for (const char *p = b; *p; p++)
		if (!isalnum((unsigned char)*p) && !strchr("-._", *p))
			return false;
	return len >= 3 && len <= 255 && isalnum((unsigned char)b[0]);
}

static bool prefix_is_sound(const char *p)
{
	while (*p) {
		size_t n = strcspn(p, "/");
		if (n == 0 || (n == 1 && *p == '.') || (n == 2 && p[0] == '.' && p[1] == '.'))
			return false;
		p += n + (p[n] == '/');
	}
	return true;
}

static int parse_path(struct s3_place *place, const char *path, size_t len, struct err *err)
{
	const char *slash = memchr(path, '/', len);
	size_t bucket_len = slash ? (size_t)(slash - path) : len;

	place->bucket = decode(path, bucket_len);
	if (!place->bucket || !bucket_is_sound(place->bucket))
		return err_set(
		        err, ERR_USAGE, 0,
		        "'%.*s' is no bucket's name: a place is s3://BUCKET/PREFIX, BUCKET of 3 "
		        "to 255 letters, digits and -._",
		        (int)(bucket_len < 80 ? bucket_len : 80), path);
	while (len > bucket_len && path[len - 1] == '/')
		len--;
	size_t prefix_len = len > bucket_len ? len - bucket_len - 1 : 0;
	cleanup_free char *prefix = decode(path + len - prefix_len, prefix_len);
	if (!prefix || !prefix_is_sound(prefix))
		return err_set(
		        err, ERR_USAGE, 0,
		        "'%.*s' is no prefix of keys: names joined by /, none of them '.', '..' or "
		        "empty",
		        (int)(prefix_len < 200 ? prefix_len : 200), path + len - prefix_len);
	if (strlen(prefix) + 1 + STORE_KEY_MAX > KEY_ROOM)
		return err_set(err, ERR_USAGE, 0, "a prefix has at most %d bytes",
		               KEY_ROOM - STORE_KEY_MAX - 1);
	if (asprintf(&place->prefix, "%s%s", prefix, *prefix ? "/" : "") < 0 ||
	    asprintf(&place->label, SCHEME "%s%s%s", place->bucket, *prefix ? "/" : "", prefix) < 0)
		return err_set(err, ERR_NOMEM, 0, "no memory for a URL");
	return 0;
}

/* ---- endpoint ---- */

/* "https://host:9000", "host:9000" */
static int parse_endpoint(struct s3_place *place, const char *url, struct err *err)
{
	const char *scheme = "https", *host = url;

	if (strncasecmp(url, "http://", 7) == 0) {
		scheme = "http";
		host = url + 7;
	} else if (strncasecmp(url, "https://", 8) == 0) {
		host = url + 8;
	}
	size_t len = strcspn(host, "/?#");
	if (len == 0 || strspn(host + len, "/") != strlen(host + len) ||
	    strcspn(host, " @\\\"'<>") < len)
		return err_set(err, ERR_USAGE, 0,
		               "endpoint '%.100s' is not of the form https://HOST[:PORT]", url);
	free(place->endpoint);
	place->endpoint = strndup(host, len);
	if (!place->endpoint)
		return err_set(err, ERR_NOMEM, 0, "no memory for a URL");
	return set_text(&place->scheme, scheme, err);
}

static bool ends_with(const char *text, const char *end)
{
	size_t n = strlen(text), m = strlen(end);

	return n >= m && strcasecmp(text + n - m, end) == 0;
}

static bool is_aws(const char *endpoint)
{
	return !endpoint || ends_with(endpoint, ".amazonaws.com") ||
	       ends_with(endpoint, ".amazonaws.com.cn");
}

static int resolve_endpoint(struct parsed *p, const struct store_s3_options *o, struct err *err)
{
	const char *url = p->endpoint_url ? p->endpoint_url : o->endpoint;
	struct s3_place *place = p->place;

	if (!url || !*url)
		url = getenv("AWS_ENDPOINT_URL_S3");
	if (!url || !*url)
		url = getenv("AWS_ENDPOINT_URL");
	int rc = url && *url ? parse_endpoint(place, url, err)
	                     : set_text(&place->scheme, "https", err);
	if (rc < 0)
		return rc;
	if (p->path_style >= 0)
		place->path_style = p->path_style;
	else if (o->force_path_style || !is_aws(place->endpoint))
		place->path_style = true;
	else /* no certificate is good for a name with more dots */
		place->path_style = strchr(place->bucket, '.') != NULL;
	return 0;
}

static int fill_from_options(struct parsed *p, const struct store_s3_options *o, struct err *err)
{
	struct s3_place *place = p->place;
	int rc;

	if ((rc = set_if_missing(&place->region, o->region, err)) < 0 ||
	    (rc = set_if_missing(&place->region, getenv("AWS_REGION"), err)) < 0 ||
	    (rc = set_if_missing(&place->region, getenv("AWS_DEFAULT_REGION"), err)) < 0 ||
	    (rc = set_if_missing(&place->storage_class, o->storage_class, err)) < 0 ||
	    (rc = set_if_missing(&place->sse, o->sse, err)) < 0 ||
	    (rc = set_if_missing(&place->sse_kms_key_id, o->sse_kms_key_id, err)) < 0 ||
	    (rc = set_if_missing(&place->sse_customer_key_file, o->sse_customer_key_file, err)) <
	            0 ||
	    (rc = set_if_missing(&place->profile, o->profile, err)) < 0 ||
	    (rc = set_if_missing(&place->ca_file, o->ca_file, err)) < 0 ||
	    (rc = set_if_missing(&place->ca_file, getenv("AWS_CA_BUNDLE"), err)) < 0 ||
	    (rc = set_if_missing(&place->proxy, o->proxy, err)) < 0)
		return rc;
	if (place->proxy && strcmp(place->proxy, "none") == 0)
		*place->proxy = '\0';
	place->skip_verify = p->skip_verify >= 0 ? p->skip_verify : o->skip_verify;
	if (place->sse_kms_key_id && !place->sse)
		return set_text(&place->sse, "aws:kms", err);
	return 0;
}

/* What goes into a header has no place for line ends and the like; decode() let none through, but
 * a configuration may have some. */
static int check_texts(const struct s3_place *p, struct err *err)
{
	const char *const texts[] = {p->region, p->storage_class, p->sse, p->sse_kms_key_id};

	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
		for (const char *c = texts[i]; c && *c; c++)
			if (*c <= 32 || *c >= 127)
				return err_set(err, ERR_USAGE, 0, "'%.60s' has odd characters",
				               texts[i]);
	if (p->region && strspn(p->region, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	                                   "0123456789-_.") != strlen(p->region))
		return err_set(err, ERR_USAGE, 0, "'%.60s' is no region's name", p->region);
	return 0;
}

static int check_encryption(const struct s3_place *p, const struct store_s3_options *o,
                            struct err *err)
{
	bool customer = p->sse_customer_key_file || o->sse_customer_key;

	if (customer && p->sse)
		return err_set(err, ERR_USAGE, 0,
		               "sse and a customer's key exclude each other: one of them encrypts");
	if (customer && strcmp(p->scheme, "https") != 0)
		return err_set(err, ERR_USAGE, 0,
		               "a customer's key goes over https only (the endpoint says %s)",
		               p->scheme);
	return 0;
}

static int parse(struct parsed *p, const char *url, const struct store_s3_options *o,
                 struct err *err)
{
	const char *rest = url + strlen(SCHEME);
	size_t len = strcspn(rest, "?");
	int rc;

	if (strlen(url) > URL_MAX)
		return err_set(err, ERR_USAGE, 0, "it has more than %d bytes", URL_MAX);
	if ((rc = parse_path(p->place, rest, len, err)) < 0 ||
	    (rc = parse_parameters(p, rest + len + (rest[len] == '?'), err)) < 0 ||
	    (rc = resolve_endpoint(p, o, err)) < 0 || (rc = fill_from_options(p, o, err)) < 0)
		return rc;
	rc = check_texts(p->place, err);
	return rc < 0 ? rc : check_encryption(p->place, o, err);
}

int s3_place_parse(const char *url, const struct store_s3_options *options, struct s3_place *ret,
                   struct err *err)
{
	static const struct store_s3_options none;
	struct parsed p = {.place = ret, .path_style = -1, .skip_verify = -1};

	*ret = (struct s3_place){0};
	int rc = parse(&p, url, options ? options : &none, err);
	free(p.endpoint_url);
	if (rc < 0) {
		s3_place_release(ret);
		return err_wrap(err, rc, "archive '%.*s'", (int)strcspn(url, "?"), url);
	}
	return 0;
}

int s3_place_host(const struct s3_place *p, const char *region, char **ret, struct err *err)
{
	const char *bucket = p->path_style ? "" : p->bucket, *dot = p->path_style ? "" : ".";
	int n;

	if (p->endpoint)
		n = asprintf(ret, "%s%s%s", bucket, dot, p->endpoint);
	else
		n = asprintf(ret, "%s%ss3.%s.amazonaws.com%s", bucket, dot, region,
		             strncmp(region, "cn-", 3) == 0 ? ".cn" : "");
	if (n >= 0)
		return 0;
	*ret = NULL;
	return err_set(err, ERR_NOMEM, 0, "no memory for a URL");
}

void s3_place_release(struct s3_place *p)
{
	char *const all[] = {p->bucket, p->prefix,        p->scheme,  p->endpoint,
	                     p->region, p->storage_class, p->sse,     p->sse_kms_key_id,
	                     p->proxy,  p->ca_file,       p->profile, p->sse_customer_key_file,
	                     p->label};

	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
		free(all[i]);
	*p = (struct s3_place){0};
}
