/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Destinations in buckets: where, who we are there, and how objects are to be kept.
 *
 * What a destination says of itself is all that is said: with keys or a profile of its own, those of
 * the environment do not count.  Without any, it is configured if there is reason to think that
 * store/s3_credentials.h finds some: a profile, a role, a container's agent, a machine of a cloud
 * that has them.  Nobody is asked here: a host that has none must start at once, and say so.
 */
#include "engine/config/config_i.h"

#include "engine/base/buf.h"
#include "engine/base/file.h"
#include "engine/store/s3_customer.h"

#include <ctype.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define VENDOR_MAX_BYTES 4096

/* ---- the URL ---- */

void config_percent_encode(struct buf *b, const char *text, int *rc)
{
	for (; *text && !*rc; text++) {
		unsigned char c = (unsigned char)*text;
		*rc = isalnum(c) || strchr("-._~/:", c) ? buf_append(b, &c, 1, NULL)
		                                        : buf_printf(b, NULL, "%%%02X", c);
	}
}

static void add_parameter(struct buf *b, const char *name, const char *value, char *mark, int *rc)
{
	if (!value || *rc)
		return;
	*rc = buf_printf(b, NULL, "%c%s=", *mark, name);
	config_percent_encode(b, value, rc);
	*mark = '&';
}

/* s3://bucket/prefix?endpoint=…&region=…: with all that it takes to get there but for secrets, so
 * that a command which is given the URL alone reads what lies there. */
static const char *bucket_url(struct loader *l, const struct config_s3 *s3)
{
	cleanup_buf struct buf b = BUF_INIT(8192);
	char mark = '?';
	int rc = buf_printf(&b, NULL, "s3://");

	config_percent_encode(&b, s3->bucket ? s3->bucket : "", &rc);
	if (s3->prefix && !rc) {
		rc = buf_printf(&b, NULL, "/");
		config_percent_encode(&b, s3->prefix, &rc);
	}
	add_parameter(&b, "endpoint", s3->endpoint, &mark, &rc);
	add_parameter(&b, "region", s3->region, &mark, &rc);
	add_parameter(&b, "profile", s3->profile, &mark, &rc);
	add_parameter(&b, "ca", s3->ca_file, &mark, &rc);
	if (s3->proxy && !strchr(s3->proxy, '@')) /* with a password it is a secret */
		add_parameter(&b, "proxy", s3->proxy, &mark, &rc);
	add_parameter(&b, "sse-customer-key-file", s3->sse_customer_key_file, &mark, &rc);
	if (s3->path_style != CONFIG_PATH_STYLE_DEFAULT)
		add_parameter(&b, "path-style",
		              s3->path_style == CONFIG_PATH_STYLE_YES ? "yes" : "no", &mark, &rc);
	char *url = rc ? NULL : memory_copy(l->memory, (const char *)b.data, b.len);
	if (!url)
		load_nomem(l);
	return url;
}

static int hex_digit(char c)
{
	return c >= '0' && c <= '9'   ? c - '0'
	       : c >= 'a' && c <= 'f' ? c - 'a' + 10
	       : c >= 'A' && c <= 'F' ? c - 'A' + 10
	                              : -1;
}

static const char *percent_decode(struct loader *l, const char *p, size_t len)
{
	char *out = memory_copy(l->memory, p, len), *to = out;

	if (!out) {
		load_nomem(l);
		return NULL;
	}
	for (const char *q = out; *q; q++) {
		if (*q == '%' && hex_digit(q[1]) >= 0 && hex_digit(q[2]) >= 0) {
			*to++ = (char)(hex_digit(q[1]) << 4 | hex_digit(q[2]));
			q += 2;
		} else {
			*to++ = *q;
		}
	}
	*to = '\0';
	if (strlen(out) != (size_t)(to - out))
		*out = '\0'; /* %00 */
	return out;
}

static bool read_yes(struct loader *l, const struct raw_replica *r, const char *name,
                     const char *value)
{
	static const char *const words[] = {"no", "yes", "false", "true", "0", "1"};

	for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
		if (strcmp(value, words[i]) == 0)
			return i & 1;
	load_error(l, r->line, "url: %s=%.40s (true or false)", name, value);
	return false;
}

/* One of "?endpoint=…&region=…"; false: there is no such parameter. */
static bool read_parameter(struct loader *l, const struct raw_replica *r, const char *name,
                           const char *value, struct config_s3 *s3)
{
	const struct {
		const char *name, **field;
	} texts[] = {
	        {"endpoint", &s3->endpoint},
	        {"region", &s3->region},
	        {"storage-class", &s3->storage_class},
	        {"sse", &s3->sse},
	        {"sse-kms-key-id", &s3->sse_kms_key_id},
	        {"sse-customer-key-file", &s3->sse_customer_key_file},
	        {"ca", &s3->ca_file},
	        {"proxy", &s3->proxy},
	        {"profile", &s3->profile},
	};

	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
		if (strcmp(name, texts[i].name) == 0) {
			*texts[i].field = *value ? value : *texts[i].field;
			return true;
		}
	if (strcmp(name, "skip-verify") == 0)
		s3->skip_verify = read_yes(l, r, name, value);
	else if (strcmp(name, "path-style") == 0 || strcasecmp(name, "forcePathStyle") == 0 ||
	         strcmp(name, "force-path-style") == 0)
		s3->path_style =
		        read_yes(l, r, name, value) ? CONFIG_PATH_STYLE_YES : CONFIG_PATH_STYLE_NO;
	else
		return false;
	return true;
}

static void read_parameters(struct loader *l, const struct raw_replica *r, const char *p,
                            struct config_s3 *s3)
{
	while (*p) {
		size_t len = strcspn(p, "&"), name_len = strcspn(p, "=&");
		const char *name = memory_copy(l->memory, p, name_len);
		const char *value = percent_decode(l, p + name_len + (name_len < len),
		                                   len - name_len - (name_len < len));
		if (!name || !value)
			return load_nomem(l);
		if (!read_parameter(l, r, name, value, s3))
			load_error(l, r->line,
			           "url: '%.40s' is no parameter of s3 (endpoint, region, "
			           "force-path-style, profile, storage-class, sse, sse-kms-key-id, "
			           "sse-customer-key-file, ca, proxy, skip-verify)",
			           name);
		p += len;
		p += *p == '&';
	}
}

static const char *without_slashes(struct loader *l, const char *text)
{
	if (!text)
		return NULL;
	text += strspn(text, "/");
	size_t len = strlen(text);
	while (len && text[len - 1] == '/')
		len--;
	const char *copy = memory_copy(l->memory, text, len);
	if (!copy)
		load_nomem(l);
	return copy && *copy ? copy : NULL;
}

/* ---- who we are ---- */

static bool has_variable(struct loader *l, const char *name)
{
	return env_get(l, name, NULL) != NULL;
}

/* The file that `name` names, else the one in the user's folder. */
static bool has_file(struct loader *l, const char *name, const char *in_home)
{
	const char *path = env_get(l, name, NULL), *home = env_get(l, "HOME", NULL);
	char in[PATH_MAX];

	if (!path && !home)
		return false;
	snprintf(in, sizeof(in), "%s/%s", home ? home : "", in_home);
	return access(path ? path : in, F_OK) == 0;
}

/* What the machine's maker calls it: Amazon's have metadata. */
static bool is_machine_of_amazon(void)
{
	static const char *const files[] = {"sys_vendor", "bios_vendor", "bios_version"};
	char path[64];

	for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++) {
		cleanup_free char *text = NULL;
		size_t len;
		snprintf(path, sizeof(path), "/sys/class/dmi/id/%s", files[i]);
		if (file_get(AT_FDCWD, path, VENDOR_MAX_BYTES, &text, &len, NULL) == 0 &&
		    strcasestr(text, "amazon"))
			return true;
	}
	return false;
}

static bool has_machine(struct loader *l)
{
	const char *off = env_get(l, "AWS_EC2_METADATA_DISABLED", NULL);

	if (off && strcasecmp(off, "true") == 0)
		return false;
	return has_variable(l, "AWS_EC2_METADATA_SERVICE_ENDPOINT") || is_machine_of_amazon();
}

static bool has_role(struct loader *l)
{
	return has_variable(l, "AWS_ROLE_ARN") && has_variable(l, "AWS_WEB_IDENTITY_TOKEN_FILE");
}

/* Whether there is reason to look for credentials beyond keys. */
static bool may_find_credentials(struct loader *l, const struct config_s3 *s3)
{
	return s3->profile || has_role(l) ||
	       has_file(l, "AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials") ||
	       has_file(l, "AWS_CONFIG_FILE", ".aws/config") ||
	       has_variable(l, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") ||
	       has_variable(l, "AWS_CONTAINER_CREDENTIALS_FULL_URI") || has_machine(l);
}

/* A token belongs to the keys that it came with. */
static void resolve_keys(struct loader *l, const struct raw_replica *r, struct config_s3 *s3)
{
	static const char *const names[][3] = {
	        {"LITESTREAM_ACCESS_KEY_ID", "LITESTREAM_SECRET_ACCESS_KEY",
	         "LITESTREAM_SESSION_TOKEN"},
	        {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"},
	};
	bool own = r->access_key_id || r->secret_access_key.text;

	s3->access_key_id = r->access_key_id;
	s3->secret_access_key = r->secret_access_key;
	s3->session_token = r->session_token;
	for (size_t i = 0; i < 2 && !s3->profile; i++) {
		const char *id = env_get(l, names[i][0], NULL);
		const char *secret = env_get(l, names[i][1], NULL);
		if (!s3->access_key_id && id) {
			s3->access_key_id = id;
			if (!own && !s3->session_token.text)
				s3->session_token.text = env_get(l, names[i][2], NULL);
		}
		if (!s3->secret_access_key.text)
			s3->secret_access_key.text = secret;
	}
	if (own && s3->profile)
		load_error(l, r->line, "profile: and access-key-id exclude each other");
	unsigned line = 0;
	const char *profile = env_get(l, "AWS_PROFILE", &line);
	/* (of a file of variables, which the store does not see) */
	if (line && !s3->access_key_id && !s3->secret_access_key.text && !has_role(l) &&
	    !s3->profile)
		s3->profile = profile;
}

/* ---- how objects are kept ---- */

static void check_encryption(struct loader *l, const struct raw_replica *r,
                             const struct config_s3 *s3)
{
	const char *algorithm = r->sse_customer_algorithm;
	bool customer = s3->sse_customer_key.text || s3->sse_customer_key_file;
	uint8_t key[S3_CUSTOMER_KEY_BYTES];

	if (s3->sse && strcmp(s3->sse, "AES256") != 0 && strcmp(s3->sse, "aws:kms") != 0 &&
	    strcmp(s3->sse, "aws:kms:dsse") != 0)
		load_error(l, r->line, "sse: '%.40s' is none of AES256, aws:kms, aws:kms:dsse",
		           s3->sse);
	else if (s3->sse && s3->sse_kms_key_id && strcmp(s3->sse, "AES256") == 0)
		load_error(l, r->line, "sse-kms-key-id: with sse: AES256 (set sse: aws:kms)");
	if (algorithm && strcmp(algorithm, "AES256") != 0)
		load_error(l, r->line, "sse-customer-algorithm: '%.40s' (there is AES256)",
		           algorithm);
	else if (algorithm && !customer)
		load_error(l, r->line, "sse-customer-algorithm: without sse-customer-key");
	if (s3->sse_customer_key.text && s3->sse_customer_key_file)
		load_error(l, r->line,
		           "sse-customer-key: and sse-customer-key-path exclude each other");
	if (customer && (s3->sse || s3->sse_kms_key_id))
		load_error(l, r->line, "sse-customer-key: and sse exclude each other");
	if (s3->sse_customer_key.text &&
	    s3_customer_key_parse(s3->sse_customer_key.text, strlen(s3->sse_customer_key.text), key,
	                          NULL) < 0)
		load_error(l, r->line,
		           "sse-customer-key: not 32 bytes as base64 (openssl rand -base64 32)");
	explicit_bzero(key, sizeof(key));
}

void resolve_bucket(struct loader *l, const struct raw_replica *r, struct config_destination *d)
{
	struct config_s3 *s3 = &d->s3;

	*s3 = (struct config_s3){
	        .bucket = r->bucket,
	        .region = r->region,
	        .endpoint = r->endpoint,
	        .storage_class = r->storage_class,
	        .profile = r->profile,
	        .ca_file = r->ca_file ? load_path(l, l->folder, r->ca_file) : NULL,
	        .proxy = r->proxy,
	        .sse = r->sse,
	        .sse_kms_key_id = r->sse_kms_key_id,
	        .sse_customer_key = r->sse_customer_key,
	        .sse_customer_key_file = r->sse_customer_key_path
	                                         ? load_path(l, l->folder, r->sse_customer_key_path)
	                                         : NULL,
	        .path_style = r->force_path_style && !r->endpoint ? CONFIG_PATH_STYLE_YES
	                                                          : CONFIG_PATH_STYLE_DEFAULT,
	        .skip_verify = r->skip_verify};
	const char *prefix = r->path;
	if (r->url && strncmp(r->url, "s3://", 5) == 0) {
		const char *p = r->url + 5;
		size_t bucket = strcspn(p, "/?"), whole = strcspn(p, "?");
		s3->bucket = bucket ? percent_decode(l, p, bucket) : NULL;
		prefix = percent_decode(l, p + bucket, whole - bucket);
		if (p[whole])
			read_parameters(l, r, p + whole + 1, s3);
	}
	s3->prefix = without_slashes(l, prefix);
	if (!s3->region)
		s3->region = env_get(l, "AWS_REGION", NULL);
	resolve_keys(l, r, s3);
	check_encryption(l, r, s3);
	d->url = bucket_url(l, s3);
	if (!s3->bucket)
		d->not_configured = "no bucket is named (set bucket)";
	else if (!s3->access_key_id != !s3->secret_access_key.text)
		d->not_configured =
		        s3->access_key_id
		                ? "an access key without its secret (set "
		                  "secret-access-key, or AWS_SECRET_ACCESS_KEY)"
		                : "a secret without its access key (set access-key-id, or "
		                  "AWS_ACCESS_KEY_ID)";
	else if (!s3->access_key_id && !may_find_credentials(l, s3))
		d->not_configured =
		        "a bucket without credentials (set access-key-id and "
		        "secret-access-key, or AWS_ACCESS_KEY_ID and "
		        "AWS_SECRET_ACCESS_KEY, or profile; there is no role, ~/.aws, or "
		        "container to ask either)";
}

/* "bucket", "bucket/prefix", or that as a URL. */
void resolve_backup_bucket(struct loader *l)
{
	struct config_destination *d = &l->c->backup_bucket;
	unsigned line = 0;
	const char *text = env_get(l, "BACKUP_S3_BUCKET", &line);
	struct raw_replica r = l->replica_defaults;

	if (!text)
		return;
	text += strncmp(text, "s3://", 5) == 0 ? 5 : 0;
	size_t n = strcspn(text, "/");
	r.url = NULL;
	r.bucket = n ? memory_copy(l->memory, text, n) : NULL;
	r.path = text[n] && text[n + 1] ? text + n + 1 : "db";
	*d = (struct config_destination){
	        .type = CONFIG_DEST_S3, .name = "backup-bucket", .backups = true};
	resolve_bucket(l, &r, d);
	resolve_key(l, &r, d);
	resolve_backup_retention(l, &r, d);
}
