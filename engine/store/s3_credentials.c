/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/store/s3_credentials.h"

#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "engine/store/s3_fetch.h"
#include "engine/store/s3_profile.h"
#include "engine/store/s3_sso.h"

#include <string.h>

#define EARLY_US (300 * US_PER_SECOND) /* anew so long before they expire */
#define MACHINE "the machine's metadata"
#define PROFILES_MAX 4                /* that follow one another by source_profile */
#define PAUSE_US (10 * US_PER_SECOND) /* between vain attempts, while the old ones are good */

struct s3_provider {
	struct s3_credentials given; /* by the configuration */
	char *profile, *region, *ca_file, *proxy;
	const _Atomic bool *stop;
	pthread_mutex_t lock; /* what follows */
	struct s3_credentials now;
	struct s3_profile_stamp stamp; /* of the files when `now` was found */
	const char *source;
	uint64_t generation;
	int64_t next_try_us; /* monotonic */
};

static void wipe(char **text)
{
	if (*text)
		explicit_bzero(*text, strlen(*text));
	free(*text);
	*text = NULL;
}

void s3_credentials_release(struct s3_credentials *c)
{
	wipe(&c->access_key_id);
	wipe(&c->secret_access_key);
	wipe(&c->session_token);
	*c = (struct s3_credentials){0};
}

static bool copy_text(char **ret, const char *text)
{
	*ret = text && *text ? strdup(text) : NULL;
	return *ret || !text || !*text;
}

static int fill(struct s3_credentials *ret, const char *id, const char *secret, const char *token,
                struct err *err)
{
	*ret = (struct s3_credentials){0};
	if (copy_text(&ret->access_key_id, id) && copy_text(&ret->secret_access_key, secret) &&
	    copy_text(&ret->session_token, token))
		return 0;
	s3_credentials_release(ret);
	return err_set(err, ERR_NOMEM, 0, "no memory for credentials");
}

static bool whole(const struct s3_credentials *c)
{
	return c->access_key_id && c->secret_access_key;
}

/* ---- the places, in order: 0 and nothing in `ret` where there is nothing ---- */

static int from_environment(struct s3_credentials *ret, struct err *err)
{
	static const char *const names[][3] = {
	        {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"},
	        {"LITESTREAM_ACCESS_KEY_ID", "LITESTREAM_SECRET_ACCESS_KEY",
	         "LITESTREAM_SESSION_TOKEN"},
	};

	for (size_t i = 0; i < 2; i++) {
		const char *id = getenv(names[i][0]), *secret = getenv(names[i][1]);
		if (id && *id && secret && *secret)
			return fill(ret, id, secret, getenv(names[i][2]), err);
		if ((id && *id) || (secret && *secret))
			return err_set(err, ERR_DENIED, 0, "%s is set, but %s is not",
			               names[i][id && *id ? 0 : 1], names[i][id && *id ? 1 : 0]);
	}
	return 0;
}

static int from_web_identity(struct s3_provider *p, const char *role, const char *file,
                             const char *session, struct s3_credentials *ret, struct err *err)
{
	const struct s3_fetch_options o = {p->region, p->ca_file, p->proxy, p->stop};

	return s3_fetch_web_identity(&o, role, file, session, ret, err);
}

static int from_named(struct s3_provider *p, const char *name, bool must_be_there, unsigned depth,
                      struct s3_credentials *ret, struct err *err);

/* Those that assume the role of a profile: of another profile, which may assume one itself, of this
 * one's own keys, or of a place that `credential_source` names. */
static int who_assumes(struct s3_provider *p, const char *name, const struct s3_profile *f,
                       unsigned depth, struct s3_credentials *ret, struct err *err)
{
	const char *from = f->credential_source;

	if (f->source_profile && strcmp(f->source_profile, name) == 0)
		return fill(ret, f->access_key_id, f->secret_access_key, f->session_token, err);
	if (f->source_profile && depth == 0)
		return err_set(err, ERR_DENIED, 0, "more than %d profiles follow one another",
		               PROFILES_MAX);
	if (f->source_profile)
		return from_named(p, f->source_profile, true, depth - 1, ret, err);
	if (strcmp(from, "Environment") == 0)
		return from_environment(ret, err);
	if (strcmp(from, "EcsContainer") == 0)
		return s3_fetch_container(p->stop, ret, err);
	if (strcmp(from, "Ec2InstanceMetadata") == 0)
		return s3_fetch_machine(p->stop, ret, err);
	return err_set(err, ERR_DENIED, 0,
	               "credential_source '%.40s' is none of Environment, EcsContainer, "
	               "Ec2InstanceMetadata",
	               from);
}

static int assume_role(struct s3_provider *p, const char *name, const struct s3_profile *f,
                       unsigned depth, struct s3_credentials *ret, struct err *err)
{
	const struct s3_fetch_options o = {f->region ? f->region : p->region, p->ca_file, p->proxy,
	                                   p->stop};
	cleanup_s3_credentials struct s3_credentials who = {0};

	int rc = who_assumes(p, name, f, depth, &who, err);
	if (rc == 0 && !whole(&who))
		rc = err_set(err, ERR_DENIED, 0, "there are no credentials that assume its role");
	return rc < 0 ? rc
	              : s3_fetch_role(&o, &who, f->role_arn, f->external_id, f->role_session_name,
	                              ret, err);
}

static int of_profile(struct s3_provider *p, const char *name, const struct s3_profile *f,
                      unsigned depth, struct s3_credentials *ret, struct err *err)
{
	if (f->role_arn && (f->source_profile || f->credential_source))
		return assume_role(p, name, f, depth, ret, err);
	if (s3_sso_is_meant(f)) {
		const struct s3_fetch_options o = {NULL, p->ca_file, p->proxy, p->stop};
		return s3_fetch_sso(&o, name, f, ret, err);
	}
	if (f->access_key_id && f->secret_access_key)
		return fill(ret, f->access_key_id, f->secret_access_key, f->session_token, err);
	if (f->credential_process)
		return s3_fetch_process(f->credential_process, p->stop, ret, err);
	if (f->role_arn && f->web_identity_token_file)
		return from_web_identity(p, f->role_arn, f->web_identity_token_file,
		                         f->role_session_name, ret, err);
	if (f->role_arn)
		return err_set(err, ERR_DENIED, 0,
		               "role_arn without source_profile, credential_source or "
		               "web_identity_token_file");
	return 0;
}

static int from_named(struct s3_provider *p, const char *name, bool must_be_there, unsigned depth,
                      struct s3_credentials *ret, struct err *err)
{
	cleanup_s3_profile struct s3_profile f = {0};

	int rc = s3_profile_read(name, &f, err);
	if (rc < 0)
		return rc;
	if (!f.found && must_be_there)
		return err_set(err, ERR_DENIED, 0, "no profile '%.60s' in ~/.aws", name);
	rc = of_profile(p, name, &f, depth, ret, err);
	if (rc == 0 && !whole(ret) && must_be_there)
		rc = err_set(err, ERR_DENIED, 0, "it has no credentials");
	return rc < 0 ? err_wrap(err, rc, "profile '%.60s'", name) : 0;
}

static int from_profile(struct s3_provider *p, struct s3_credentials *ret, struct err *err)
{
	return from_named(p, s3_profile_name(p->profile), p->profile, PROFILES_MAX, ret, err);
}

static int from_variables_of_role(struct s3_provider *p, struct s3_credentials *ret,
                                  struct err *err)
{
	const char *role = getenv("AWS_ROLE_ARN"), *file = getenv("AWS_WEB_IDENTITY_TOKEN_FILE");

	if (!role || !*role || !file || !*file)
		return 0;
	return from_web_identity(p, role, file, getenv("AWS_ROLE_SESSION_NAME"), ret, err);
}

static int from_container(struct s3_provider *p, struct s3_credentials *ret, struct err *err)
{
	return s3_fetch_container(p->stop, ret, err);
}

/* One that gave some does not cease to be a machine of a cloud: without an answer it is silent. */
static int from_machine(struct s3_provider *p, struct s3_credentials *ret, struct err *err)
{
	int rc = s3_fetch_machine(p->stop, ret, err);

	if (rc == 0 && !whole(ret) && p->source && strcmp(p->source, MACHINE) == 0)
		return err_set(err, ERR_UNAVAILABLE, 0, "the machine's metadata does not answer");
	return rc;
}

static int from_options(struct s3_provider *p, struct s3_credentials *ret, struct err *err)
{
	const struct s3_credentials *g = &p->given;

	return whole(g) ? fill(ret, g->access_key_id, g->secret_access_key, g->session_token, err)
	                : 0;
}

static int from_named_profile(struct s3_provider *p, struct s3_credentials *ret, struct err *err)
{
	return p->profile ? from_profile(p, ret, err) : 0;
}

static int from_env(struct s3_provider *p, struct s3_credentials *ret, struct err *err)
{
	return from_environment(ret, err);
}

static const struct place {
	const char *name;
	int (*look)(struct s3_provider *p, struct s3_credentials *ret, struct err *err);
} places[] = {
        {"the configuration", from_options},
        {"the profile of the URL", from_named_profile},
        {"the environment", from_env},
        {"a web identity", from_variables_of_role},
        {"a profile of ~/.aws", from_profile},
        {"the container", from_container},
        {MACHINE, from_machine},
};

static int find(struct s3_provider *p, struct s3_credentials *ret, const char **ret_source,
                struct err *err)
{
	for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++) {
		int rc = places[i].look(p, ret, err);
		if (rc < 0)
			return err_wrap(err, rc, "credentials");
		if (!whole(ret))
			continue;
		*ret_source = places[i].name;
		return 0;
	}
	return err_set(err, ERR_DENIED, 0,
	               "no credentials in the configuration, the environment "
	               "(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), profile '%.60s' of ~/.aws, "
	               "the container or the machine",
	               s3_profile_name(p->profile));
}

/* ---- the ones in effect ---- */

static bool text_equal(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool same(const struct s3_credentials *a, const struct s3_credentials *b)
{
	return text_equal(a->access_key_id, b->access_key_id) &&
	       text_equal(a->secret_access_key, b->secret_access_key) &&
	       text_equal(a->session_token, b->session_token);
}

/* Looks anew; under the lock, so that many threads ask once. */
static int renew(struct s3_provider *p, struct err *err)
{
	struct s3_profile_stamp stamp;
	struct s3_credentials found = {0};
	const char *source;

	s3_profile_stamp(&stamp);
	int rc = find(p, &found, &source, err);
	if (rc < 0)
		return rc;
	if (!whole(&p->now) || !same(&p->now, &found)) {
		p->generation++;
		log_debug("s3", "credentials from %s key=%.4s…", source, found.access_key_id);
	}
	s3_credentials_release(&p->now);
	p->now = found;
	p->now.generation = p->generation;
	p->source = source;
	p->stamp = stamp;
	return 0;
}

static bool files_changed(const struct s3_provider *p)
{
	struct s3_profile_stamp stamp;

	s3_profile_stamp(&stamp);
	return memcmp(&stamp, &p->stamp, sizeof(stamp)) != 0;
}

int s3_provider_get(struct s3_provider *p, struct s3_credentials *ret, struct err *err)
{
	LOCK_SCOPE(&p->lock);
	int64_t now_us = clock_now_us(), expires_us = p->now.expires_us;
	bool have = whole(&p->now) && (!expires_us || now_us < expires_us);
	bool stale = !have || (expires_us && now_us > expires_us - EARLY_US) || files_changed(p);

	if (stale && (!have || clock_mono_us() >= p->next_try_us)) {
		struct err why = ERR_INIT;
		int rc = renew(p, &why);
		p->next_try_us = rc < 0 || expires_us ? clock_mono_us() + PAUSE_US : 0;
		if (rc < 0 && !have)
			return err_copy(err, &why);
		if (rc < 0)
			log_warn("s3", "the present credentials go on: %s", why.msg);
	}
	int rc = fill(ret, p->now.access_key_id, p->now.secret_access_key, p->now.session_token,
	              err);
	ret->expires_us = p->now.expires_us;
	ret->generation = p->now.generation;
	return rc;
}

bool s3_provider_refused(struct s3_provider *p, uint64_t generation)
{
	struct err why = ERR_INIT;

	LOCK_SCOPE(&p->lock);
	if (p->generation == generation && renew(p, &why) < 0)
		log_warn("s3", "%s", why.msg);
	return p->generation != generation;
}

const char *s3_provider_source(struct s3_provider *p)
{
	LOCK_SCOPE(&p->lock);
	return p->source ? p->source : "";
}

int s3_provider_new(const struct s3_provider_options *o, struct s3_provider **ret, struct err *err)
{
	struct s3_provider *p = calloc(1, sizeof(*p));

	if (!p)
		return err_set(err, ERR_NOMEM, 0, "no memory for credentials");
	pthread_mutex_init(&p->lock, NULL);
	p->stop = o->stop;
	int rc = fill(&p->given, o->access_key_id, o->secret_access_key, o->session_token, err);
	if (rc == 0 && (!copy_text(&p->profile, o->profile) || !copy_text(&p->region, o->region) ||
	                !copy_text(&p->ca_file, o->ca_file)))
		rc = err_set(err, ERR_NOMEM, 0, "no memory for credentials");
	if (rc == 0 && o->proxy && !(p->proxy = strdup(o->proxy)))
		rc = err_set(err, ERR_NOMEM, 0, "no memory for credentials");
	if (rc == 0 && !p->given.access_key_id != !p->given.secret_access_key)
		rc = err_set(err, ERR_USAGE, 0,
		             "an access key's id and its secret go together: one is missing");
	if (rc < 0) {
		s3_provider_free(p);
		return rc;
	}
	*ret = p;
	return 0;
}

void s3_provider_free(struct s3_provider *p)
{
	s3_credentials_release(&p->given);
	s3_credentials_release(&p->now);
	pthread_mutex_destroy(&p->lock);
	free(p->profile);
	free(p->region);
	free(p->ca_file);
	free(p->proxy);
	free(p);
}

char *s3_profile_region(const char *profile)
{
	cleanup_s3_profile struct s3_profile f = {0};

	return s3_profile_read(profile, &f, NULL) < 0 ? NULL : take_ptr(f.region);
}
