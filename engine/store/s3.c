/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/store/s3_i.h"

#include <string.h>

#define PAGES_MAX UINT64_C(100000000)

/* ---- listing ---- */

struct list {
	struct s3 *s;
	const char *prefix, *after;
	bool deep;
	store_list_fn *fn;
	void *ctx;
	char *full_prefix, *start_after, *token;
	char *last; /* key given last, for the order */
};

static void list_release(struct list *l)
{
	free(l->full_prefix);
	free(l->start_after);
	free(l->token);
	free(l->last);
}

static int list_begin(struct list *l, struct err *err)
{
	const char *base = l->s->place.prefix;

	if (asprintf(&l->full_prefix, "%s%s", base, l->prefix) < 0 ||
	    (l->after && asprintf(&l->start_after, "%s%s", base, l->after) < 0))
		return err_set(err, ERR_NOMEM, 0, "no memory for a listing");
	return 0;
}

static int ask_page(struct list *l, struct s3_listing *ret, struct err *err)
{
	struct http_answer cleanup_answer a = HTTP_ANSWER_INIT(S3_ANSWER_MAX_BYTES);
	struct s3_call c = {.verb = STORE_LIST,
	                    .method = "GET",
	                    .answer_bytes = 1 << 20,
	                    .can_carry_error = true};

	s3_add_query(&c, "list-type", "2");
	s3_add_query(&c, "prefix", l->full_prefix);
	if (!l->deep)
		s3_add_query(&c, "delimiter", "/");
	if (l->token)
		s3_add_query(&c, "continuation-token", l->token);
	else if (l->start_after)
		s3_add_query(&c, "start-after", l->start_after);
	int rc = s3_request(l->s, &c, &a, NULL, err);
	if (rc == 0)
		rc = s3_xml_listing(a.body.data, a.body.len, ret, err);
	return rc < 0 ? err_wrap(err, rc, "list %s", l->s->base.label) : 0;
}

/* Keys that are none of ours: folders as consoles make them ("x/", empty), "a//b". */
static bool is_key(const char *key, bool folder)
{
	size_t len = strlen(key);
	char copy[STORE_KEY_MAX + 2];

	if (folder && len > 1 && len <= STORE_KEY_MAX && key[len - 1] == '/') {
		snprintf(copy, sizeof(copy), "%.*s", (int)len - 1, key);
		return store_key_check(copy, NULL) == 0;
	}
	return !folder && store_key_check(key, NULL) == 0;
}

/* Gives an entry on if it is wanted and new. */
static int give(struct list *l, const struct s3_listed *e, struct err *err)
{
	size_t base_len = strlen(l->s->place.prefix);

	if (strncmp(e->key, l->full_prefix, strlen(l->full_prefix)) != 0)
		return err_set(err, ERR_DAMAGED, 0,
		               "list %s: the store gives '%.100s', which was not "
		               "asked for",
		               l->s->base.label, e->key);
	const char *key = e->key + base_len;
	int order = l->last ? strcmp(key, l->last) : 1;
	if (order < 0)
		return err_set(err, ERR_DAMAGED, 0,
		               "list %s: the store's order is not that of the "
		               "bytes of keys",
		               l->s->base.label);
	if (order == 0 || !is_key(key, e->folder) || !store_list_wants(key, l->prefix, l->after))
		return 0;
	free(l->last);
	l->last = strdup(key);
	if (!l->last)
		return err_set(err, ERR_NOMEM, 0, "no memory for a listing");
	const struct store_entry entry = {
	        .key = key, .bytes = e->folder ? 0 : e->bytes, .modified_us = e->modified_us};
	return l->fn(l->ctx, &entry, err);
}

static int list_page(struct list *l, bool *ret_more, struct err *err)
{
	struct s3_listing cleanup_s3_listing page = {0};

	int rc = ask_page(l, &page, err);
	for (size_t i = 0; i < page.n && rc == 0; i++)
		rc = give(l, &page.entries[i], err);
	if (rc)
		return rc;
	*ret_more = page.truncated;
	free(l->token);
	l->token = take_ptr(page.next_token);
	return 0;
}

static int s3_list(struct store *store, const char *prefix, const char *after, bool deep,
                   store_list_fn *fn, void *ctx, struct err *err)
{
	struct list CLEANUP(list_release) l = {.s = s3_of(store),
	                                       .prefix = prefix,
	                                       .after = after,
	                                       .deep = deep,
	                                       .fn = fn,
	                                       .ctx = ctx};
	bool more = true;

	int rc = list_begin(&l, err);
	for (uint64_t i = 0; i < PAGES_MAX && more && rc == 0; i++)
		rc = list_page(&l, &more, err);
	return rc;
}

/* ---- the rest ---- */

static int s3_remove(struct store *store, const char *key, struct err *err)
{
	struct http_answer cleanup_answer a = HTTP_ANSWER_INIT(HTTP_ERROR_MAX_BYTES);
	struct s3_call c = {.verb = STORE_DELETE, .method = "DELETE", .key = key};
	enum s3_meaning meaning = S3_LATER;

	int rc = s3_request(s3_of(store), &c, &a, &meaning, err);
	if (rc < 0 && meaning == S3_WRONG && err) { /* 400, say: "Object is WORM protected" */
		err->kind = ERR_DENIED;
		rc = -ERR_DENIED;
	}
	return rc < 0 && meaning == S3_GONE ? 0 : rc;
}

static void s3_counters(struct store *store, struct store_counters *ret)
{
	store_tally_get(&s3_of(store)->tally, ret);
}

static void s3_free(struct store *store)
{
	struct s3 *s = s3_of(store);

	if (s->http)
		http_free(s->http);
	if (s->provider)
		s3_provider_free(s->provider);
	pthread_mutex_destroy(&s->lock);
	s3_place_release(&s->place);
	explicit_bzero(&s->customer, sizeof(s->customer));
	free(s->region);
	free(s->host);
	free(s->base.label);
	free(s);
}

static const struct store_ops s3_ops = {s3_put,    s3_get,      s3_open, s3_list,
                                        s3_remove, s3_counters, s3_free};

static int find_region(struct s3 *s, struct err *err)
{
	const struct s3_place *p = &s->place;

	s->region = p->region ? strdup(p->region) : s3_profile_region(p->profile);
	if (!s->region)
		s->region = strdup("us-east-1");
	s->base.label = strdup(p->label);
	if (!s->region || !s->base.label)
		return err_set(err, ERR_NOMEM, 0, "no memory for a store");
	return s3_place_host(p, s->region, &s->host, err);
}

static int make_provider(struct s3 *s, const struct store_options *o, struct err *err)
{
	const struct s3_provider_options p = {.access_key_id = o->s3.access_key_id,
	                                      .secret_access_key = o->s3.secret_access_key,
	                                      .session_token = o->s3.session_token,
	                                      .profile = s->place.profile,
	                                      .region = s->region,
	                                      .ca_file = s->place.ca_file,
	                                      .proxy = s->place.proxy,
	                                      .stop = s->stop};

	return s3_provider_new(&p, &s->provider, err);
}

int store_open_s3(const char *archive, const struct store_options *options, struct store **ret,
                  struct err *err)
{
	struct s3 *s = calloc(1, sizeof(*s));
	int rc;

	if (!s)
		return err_set(err, ERR_NOMEM, 0, "no memory for a store");
	pthread_mutex_init(&s->lock, NULL);
	s->base = (struct store){.ops = &s3_ops, .remote = true, .dir_fd = -1};
	s->base.answered = options->patience_ms != 0;
	s->patience_ms = options->patience_ms ? options->patience_ms : S3_PATIENCE_MS;
	s->stop = options->stop;
	if ((rc = s3_place_parse(archive, &options->s3, &s->place, err)) < 0 ||
	    (rc = s3_customer_read(options->s3.sse_customer_key, s->place.sse_customer_key_file,
	                           &s->customer, err)) < 0 ||
	    (rc = find_region(s, err)) < 0 || (rc = make_provider(s, options, err)) < 0) {
		s3_free(&s->base);
		return rc;
	}
	*ret = &s->base;
	return 0;
}
