/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "engine/store/crypt.h"
#include "engine/store/store_i.h"

#include <string.h>

/* A kind that this build lacks has no function. */
static const struct scheme {
	const char *prefix;
	store_open_fn *open;
} schemes[] = {
        {"s3://", store_open_s3},
        {"sftp://", store_open_sftp},
};

static const struct scheme *scheme_of(const char *archive)
{
	for (size_t i = 0; i < sizeof(schemes) / sizeof(*schemes); i++)
		if (strncmp(archive, schemes[i].prefix, strlen(schemes[i].prefix)) == 0)
			return &schemes[i];
	return NULL;
}

bool store_is_url(const char *archive)
{
	return scheme_of(archive) != NULL;
}

/* "gs://…" is hardly meant as a folder's name. */
static size_t scheme_len(const char *archive)
{
	size_t n = strspn(archive, "abcdefghijklmnopqrstuvwxyz0123456789+.-");

	return n > 0 && strncmp(archive + n, "://", 3) == 0 ? n : 0;
}

/* Of the archive at that place, whatever lies in it. */
static int open_place(const char *archive, const struct store_options *options, struct store **ret,
                      struct err *err)
{
	const struct scheme *s = scheme_of(archive);
	size_t n = scheme_len(archive);

	if (s && s->open)
		return s->open(archive, options, ret, err);
	if (s)
		return err_set(err, ERR_USAGE, 0,
		               "archive '%.*s…': this kind is not built in yet (use a directory)",
		               (int)strlen(s->prefix), archive);
	if (n)
		return err_set(err, ERR_USAGE, 0,
		               "archive '%.*s://…': no such kind (a directory, s3:// or sftp://)",
		               (int)n, archive);
	return store_open_local(archive, options, ret, err);
}

static bool has_keys(struct store *s)
{
	cleanup_source struct source *first = NULL;
	uint64_t bytes;

	return store_open_object(s, KEYS_FOLDER "00000001.key", UINT64_MAX, &first, NULL) == 0 &&
	       first->size(first, &bytes, NULL) == 0;
}

/* The key that was named, if any.  What the environment names is meant for those that need one. */
static void find_key(const struct store_options *options, struct store *place,
                     const char **ret_file, const char **ret_command)
{
	*ret_file = options->key_file;
	*ret_command = options->key_command;
	if (*ret_file || *ret_command)
		return;
	const char *file = getenv("ASOF_KEY_FILE"), *command = getenv("ASOF_KEY_COMMAND");
	file = file && *file ? file : NULL;
	command = command && *command ? command : NULL;
	if ((file || command) && (place->remote || has_keys(place))) {
		*ret_file = file;
		*ret_command = command;
	}
}

int store_open(const char *archive, const struct store_options *options, struct store **ret,
               struct err *err)
{
	static const struct store_options defaults = {.patience_ms = 0};
	cleanup_key_identity struct key_identity identity = {.n_trust = 0};
	cleanup_store struct store *place = NULL;
	const char *file, *command;

	if (!options)
		options = &defaults;
	int rc = open_place(archive, options, &place, err);
	if (rc < 0)
		return rc;
	find_key(options, place, &file, &command);
	if (file || command)
		rc = key_identity_load(file, file ? NULL : command, &identity, err);
	if (rc < 0)
		return rc;
	if (file || command)
		return store_open_crypt(take_ptr(place), &identity, ret, err);
	if (place->remote)
		return store_open_plain(take_ptr(place), ret, err);
	*ret = take_ptr(place);
	return 0;
}

const char *store_verb_name(enum store_verb verb)
{
	static const char *const names[] = {"put", "get", "list", "head", "delete"};

	return names[verb];
}

void store_tally_get(const struct store_tally *t, struct store_counters *ret)
{
	for (size_t i = 0; i < STORE_N_VERBS; i++)
		ret->requests[i] = t->requests[i];
	ret->errors = t->errors;
	ret->sent_bytes = t->sent_bytes;
	ret->received_bytes = t->received_bytes;
}

int store_tally_end(struct store_tally *t, enum store_verb verb, int rc)
{
	t->requests[verb]++;
	if (rc < 0)
		t->errors++;
	return rc;
}

void store_tell_of_silence(struct store *s, int64_t patience_us, const struct err *why)
{
	if (!atomic_exchange(&s->answered, true))
		log_warn("store", "no answer yet, trying again for up to %lld s store=%s: %s",
		         (long long)(patience_us / US_PER_SECOND), s->label, why->msg);
}

/* ---- keys ---- */

static bool part_is_sound(const char *p, size_t len)
{
	return len > 0 && !(len == 1 && p[0] == '.') && !(len == 2 && p[0] == '.' && p[1] == '.');
}

int store_key_check(const char *key, struct err *err)
{
	size_t len = strlen(key);

	if (len > STORE_KEY_MAX)
		return err_set(err, ERR_USAGE, 0, "the key '%.60s…' has %zu bytes, at most %u fit",
		               key, len, STORE_KEY_MAX);
	for (const char *p = key;; p++) {
		size_t n = strcspn(p, "/");
		if (!part_is_sound(p, n))
			return err_set(err, ERR_USAGE, 0, "'%.200s' is no key of an object", key);
		p += n;
		if (!*p)
			return 0;
	}
}

/* All but the last part of a prefix must be whole parts of a key. */
static int prefix_check(const char *prefix, struct err *err)
{
	size_t n;

	if (strlen(prefix) > STORE_KEY_MAX)
		return err_set(err, ERR_USAGE, 0, "the prefix '%.60s…' is too long", prefix);
	for (const char *p = prefix; p[n = strcspn(p, "/")]; p += n + 1)
		if (!part_is_sound(p, n))
			return err_set(err, ERR_USAGE, 0, "'%.200s' is no prefix of keys", prefix);
	return 0;
}

bool store_list_wants(const char *key, const char *prefix, const char *after)
{
	return strncmp(key, prefix, strlen(prefix)) == 0 && (!after || strcmp(key, after) > 0);
}

/* ---- dispatch ---- */

int store_put(struct store *s, const char *key, struct source *body, uint64_t bytes, unsigned flags,
              struct err *err)
{
	int rc = store_key_check(key, err);

	return rc < 0 ? rc : s->ops->put(s, key, body, bytes, flags, err);
}

int store_put_bytes(struct store *s, const char *key, const void *p, size_t len, unsigned flags,
                    struct err *err)
{
	cleanup_source struct source *body = NULL;

	int rc = source_open_bytes(p, len, key, &body, err);
	return rc < 0 ? rc : store_put(s, key, body, len, flags, err);
}

int store_get(struct store *s, const char *key, size_t max_bytes, struct buf *ret, struct err *err)
{
	int rc = store_key_check(key, err);

	return rc < 0 ? rc : s->ops->get(s, key, max_bytes, ret, err);
}

int store_open_object(struct store *s, const char *key, uint64_t bytes, struct source **ret,
                      struct err *err)
{
	int rc = store_key_check(key, err);

	return rc < 0 ? rc : s->ops->open(s, key, bytes, ret, err);
}

int store_list(struct store *s, const char *prefix, const char *after, bool deep, store_list_fn *fn,
               void *ctx, struct err *err)
{
	int rc = prefix_check(prefix, err);

	return rc < 0 ? rc : s->ops->list(s, prefix, after, deep, fn, ctx, err);
}

int store_remove(struct store *s, const char *key, struct err *err)
{
	int rc = store_key_check(key, err);

	return rc < 0 ? rc : s->ops->remove(s, key, err);
}

void store_get_counters(struct store *s, struct store_counters *ret)
{
	*ret = (struct store_counters){0};
	s->ops->counters(s, ret);
}

void store_free(struct store *s)
{
	if (s)
		s->ops->free(s);
}
