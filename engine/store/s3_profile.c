/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/store/s3_profile.h"

#include "engine/base/file.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define FILE_MAX_BYTES (1 << 20)
#define PATH_ROOM 4096
#define PROFILE "profile"

/* ---- the text ---- */

static void wipe(char **text)
{
	if (*text)
		explicit_bzero(*text, strlen(*text));
	free(*text);
	*text = NULL;
}

/* A line without blanks around it. */
struct piece {
	const char *p;
	size_t len;
};

static struct piece trim(const char *p, size_t len)
{
	while (len && strchr(" \t\r", p[0]))
		p++, len--;
	while (len && strchr(" \t\r", p[len - 1]))
		len--;
	return (struct piece){p, len};
}

static bool is(struct piece a, const char *text)
{
	return a.len == strlen(text) && memcmp(a.p, text, a.len) == 0;
}

/* "[KIND NAME]" of a config file, where a profile may be "[default]"; "[NAME]" of credentials. */
static bool names_section(struct piece line, const char *kind, const char *name)
{
	struct piece inner = trim(line.p + 1, line.len - 1);
	size_t n = strlen(kind);

	if (inner.len && inner.p[inner.len - 1] == ']')
		inner = trim(inner.p, inner.len - 1);
	if (n && inner.len > n + 1 && memcmp(inner.p, kind, n) == 0 && strchr(" \t", inner.p[n]))
		return is(trim(inner.p + n + 1, inner.len - n - 1), name);
	return (!n || (strcmp(kind, PROFILE) == 0 && strcmp(name, "default") == 0)) &&
	       is(inner, name);
}

static int take_setting(struct s3_profile *p, struct piece line, struct err *err)
{
	const struct {
		const char *name;
		char **field;
	} known[] = {
	        {"aws_access_key_id", &p->access_key_id},
	        {"aws_secret_access_key", &p->secret_access_key},
	        {"aws_session_token", &p->session_token},
	        {"credential_process", &p->credential_process},
	        {"role_arn", &p->role_arn},
	        {"web_identity_token_file", &p->web_identity_token_file},
	        {"role_session_name", &p->role_session_name},
	        {"source_profile", &p->source_profile},
	        {"credential_source", &p->credential_source},
	        {"external_id", &p->external_id},
	        {"region", &p->region},
	        {"sso_session", &p->sso_session},
	        {"sso_start_url", &p->sso_start_url},
	        {"sso_region", &p->sso_region},
	        {"sso_account_id", &p->sso_account_id},
	        {"sso_role_name", &p->sso_role_name},
	};
	const char *equals = memchr(line.p, '=', line.len);

	if (!equals)
		return 0;
	struct piece name = trim(line.p, (size_t)(equals - line.p));
	struct piece value = trim(equals + 1, line.len - (size_t)(equals + 1 - line.p));
	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++) {
		if (!is(name, known[i].name) || *known[i].field || !value.len)
			continue;
		*known[i].field = strndup(value.p, value.len);
		if (!*known[i].field)
			return err_set(err, ERR_NOMEM, 0, "no memory for a profile");
	}
	return 0;
}

static int parse_file(const char *kind, const char *name, const char *text, struct s3_profile *ret,
                      struct err *err)
{
	bool inside = false;
	int rc = 0;

	while (*text && !rc) {
		size_t len = strcspn(text, "\n");
		struct piece line = trim(text, len);
		bool indented = *text == ' ' || *text == '\t';
		if (line.len && line.p[0] == '[') {
			inside = names_section(line, kind, name);
			ret->found = ret->found || inside;
		} else if (inside && line.len && !indented && !strchr("#;", line.p[0])) {
			rc = take_setting(ret, line, err);
		}
		text += len + (text[len] == '\n');
	}
	return rc;
}

/* Where and how a session of SSO signs in: what its section says, not the profile's. */
static int parse_session(const char *config, struct s3_profile *p, struct err *err)
{
	cleanup_s3_profile struct s3_profile session = {0};

	int rc = parse_file("sso-session", p->sso_session, config, &session, err);
	if (rc < 0)
		return rc;
	wipe(&p->sso_start_url);
	wipe(&p->sso_region);
	p->sso_start_url = take_ptr(session.sso_start_url);
	p->sso_region = take_ptr(session.sso_region);
	return 0;
}

int s3_profile_parse(const char *name, const char *credentials, const char *config,
                     struct s3_profile *ret, struct err *err)
{
	*ret = (struct s3_profile){0};
	int rc = credentials ? parse_file("", name, credentials, ret, err) : 0;
	if (rc == 0 && config)
		rc = parse_file(PROFILE, name, config, ret, err);
	if (rc == 0 && ret->sso_session)
		rc = parse_session(config ? config : "", ret, err);
	if (rc < 0)
		s3_profile_release(ret);
	return rc;
}

/* ---- the files ---- */

static bool file_path(bool config, char out[PATH_ROOM])
{
	const char *said = getenv(config ? "AWS_CONFIG_FILE" : "AWS_SHARED_CREDENTIALS_FILE");
	const char *home = getenv("HOME");
	const char *name = config ? "config" : "credentials";
	int n;

	if (said && *said)
		n = snprintf(out, PATH_ROOM, "%s", said);
	else if (home && *home)
		n = snprintf(out, PATH_ROOM, "%s/.aws/%s", home, name);
	else
		return false;
	return n > 0 && n < PATH_ROOM;
}

static int read_text(bool config, char **ret, struct err *err)
{
	char path[PATH_ROOM];
	struct err why = ERR_INIT;
	size_t len;

	*ret = NULL;
	if (!file_path(config, path))
		return 0;
	int rc = file_get(AT_FDCWD, path, FILE_MAX_BYTES, ret, &len, &why);
	return rc == 0 || why.kind == ERR_NOT_FOUND ? 0 : err_copy(err, &why);
}

const char *s3_profile_name(const char *name)
{
	const char *const said[] = {name, getenv("AWS_PROFILE"), getenv("AWS_DEFAULT_PROFILE")};

	for (size_t i = 0; i < 3; i++)
		if (said[i] && *said[i])
			return said[i];
	return "default";
}

int s3_profile_read(const char *name, struct s3_profile *ret, struct err *err)
{
	char *credentials = NULL, *config = NULL;

	*ret = (struct s3_profile){0};
	int rc = read_text(false, &credentials, err);
	if (rc == 0)
		rc = read_text(true, &config, err);
	if (rc == 0)
		rc = s3_profile_parse(s3_profile_name(name), credentials, config, ret, err);
	wipe(&credentials);
	wipe(&config);
	return rc;
}

void s3_profile_stamp(struct s3_profile_stamp *ret)
{
	*ret = (struct s3_profile_stamp){0};
	for (size_t i = 0; i < 2; i++) {
		char path[PATH_ROOM];
		struct stat st;
		if (!file_path(i == 1, path) || stat(path, &st) < 0)
			continue;
		ret->changed[i] = st.st_ctim;
		ret->inode[i] = st.st_ino;
		ret->bytes[i] = (uint64_t)st.st_size;
	}
}

void s3_profile_release(struct s3_profile *p)
{
	wipe(&p->access_key_id);
	wipe(&p->secret_access_key);
	wipe(&p->session_token);
	wipe(&p->credential_process);
	wipe(&p->role_arn);
	wipe(&p->web_identity_token_file);
	wipe(&p->role_session_name);
	wipe(&p->source_profile);
	wipe(&p->credential_source);
	wipe(&p->external_id);
	wipe(&p->region);
	wipe(&p->sso_session);
	wipe(&p->sso_start_url);
	wipe(&p->sso_region);
	wipe(&p->sso_account_id);
	wipe(&p->sso_role_name);
	*p = (struct s3_profile){0};
}
