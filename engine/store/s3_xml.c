/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/store/s3_xml.h"

#include "engine/base/clock.h"

#include <expat.h>
#include <stdlib.h>
#include <string.h>

#define MAX_DEPTH 16
#define MAX_NAME 48
#define MAX_TEXT (16 << 10) /* a session token */
#define MAX_ENTRIES 10000   /* of a page; servers give 1000 */
#define MAX_XML_BYTES (32 << 20)

/* A walk: `element` is called at the end of each with its path ("ListBucketResult/Contents/Key")
 * and its text. */
struct walk {
	XML_Parser parser;
	char path[MAX_DEPTH * (MAX_NAME + 1)];
	size_t name_at[MAX_DEPTH]; /* where the names in `path` begin */
	size_t depth;
	char text[MAX_TEXT + 1];
	size_t text_len;
	void (*element)(void *ctx, const char *path, const char *text, struct walk *w);
	void *ctx;
	const char *problem;
};

static void give_up(struct walk *w, const char *problem)
{
	if (!w->problem)
		w->problem = problem;
	XML_StopParser(w->parser, XML_FALSE);
}

static void on_start(void *ctx, const XML_Char *name, const XML_Char **attributes)
{
	struct walk *w = ctx;
	size_t at = strlen(w->path);

	if (w->depth == MAX_DEPTH || strlen(name) > MAX_NAME) {
		give_up(w, "elements too deep");
		return;
	}
	w->name_at[w->depth++] = at;
	snprintf(w->path + at, sizeof(w->path) - at, "%s%s", at ? "/" : "", name);
	w->text_len = 0;
}

static void on_end(void *ctx, const XML_Char *name)
{
	struct walk *w = ctx;

	if (w->problem)
		return;
	w->text[w->text_len] = '\0';
	w->element(w->ctx, w->path, w->text, w);
	w->path[w->name_at[--w->depth]] = '\0';
	w->text_len = 0;
}

static void on_text(void *ctx, const XML_Char *p, int len)
{
	struct walk *w = ctx;

	if ((size_t)len > MAX_TEXT - w->text_len) {
		give_up(w, "a text too long");
		return;
	}
	memcpy(w->text + w->text_len, p, (size_t)len);
	w->text_len += (size_t)len;
}

/* No server declares a document type; what entities of one could grow to is not to be found out. */
static void on_doctype(void *ctx, const XML_Char *name, const XML_Char *system,
                       const XML_Char *public, int internal)
{
	give_up(ctx, "a document type");
}

static int walk(struct walk *w, const void *xml, size_t len, struct err *err)
{
	if (len > MAX_XML_BYTES)
		return err_set(err, ERR_DAMAGED, 0, "the answer has %zu bytes", len);
	w->parser = XML_ParserCreate("UTF-8");
	if (!w->parser)
		return err_set(err, ERR_NOMEM, 0, "no memory for an answer");
	XML_SetUserData(w->parser, w);
	XML_SetElementHandler(w->parser, on_start, on_end);
	XML_SetCharacterDataHandler(w->parser, on_text);
	XML_SetStartDoctypeDeclHandler(w->parser, on_doctype);
	enum XML_Status status = XML_Parse(w->parser, xml, (int)len, 1);
	const char *problem = w->problem;
	if (status != XML_STATUS_OK && !problem)
		problem = XML_ErrorString(XML_GetErrorCode(w->parser));
	XML_ParserFree(w->parser);
	if (!problem)
		return 0;
	return err_set(err, ERR_DAMAGED, 0, "the answer is not what it should be: %s", problem);
}

static void set(char *out, size_t size, const char *text)
{
	snprintf(out, size, "%s", text);
	for (char *p = out; *p; p++)
		if ((unsigned char)*p < 32)
			*p = ' ';
}

static uint64_t number(const char *text, bool *ret_ok)
{
	char *end;

	errno = 0;
	unsigned long long v = strtoull(text, &end, 10);
	*ret_ok = *text >= '0' && *text <= '9' && !*end && errno == 0;
	return v;
}

static int64_t moment(const char *text)
{
	int64_t us = 0;

	return time_parse(text, 0, TIME_ZONE_UTC, &us, NULL, NULL) < 0 ? 0 : us;
}

/* ---- errors ---- */

static void on_error_element(void *ctx, const char *path, const char *text, struct walk *w)
{
	struct s3_error *e = ctx;

	if (strcmp(path, "Error/Code") == 0)
		set(e->code, sizeof(e->code), text);
	else if (strcmp(path, "Error/Message") == 0)
		set(e->message, sizeof(e->message), text);
	else if (strcmp(path, "Error/Region") == 0)
		set(e->region, sizeof(e->region), text);
	else if (strcmp(path, "Error/Endpoint") == 0)
		set(e->endpoint, sizeof(e->endpoint), text);
}

bool s3_xml_error(const void *xml, size_t len, struct s3_error *ret)
{
	struct walk w = {.element = on_error_element, .ctx = ret};

	*ret = (struct s3_error){.code = ""};
	return walk(&w, xml, len, NULL) == 0 && ret->code[0];
}

/* ---- listings ---- */

struct listing_walk {
	struct s3_listing *l;
	struct s3_listed now;
	bool truncated, is_listing;
};

static bool grow(void **entries, size_t *n_alloc, size_t n, size_t size, struct walk *w)
{
	if (n < *n_alloc)
		return true;
	size_t more = *n_alloc ? *n_alloc * 2 : 64;
	void *p = n < MAX_ENTRIES ? realloc(*entries, more * size) : NULL;
	if (!p) {
		give_up(w, "too many entries");
		return false;
	}
	*entries = p;
	*n_alloc = more;
	return true;
}

static void add_entry(struct listing_walk *x, struct walk *w)
{
	struct s3_listing *l = x->l;

	if (!x->now.key)
		give_up(w, "an entry without a key");
	else if (grow((void **)&l->entries, &l->n_alloc, l->n, sizeof(*l->entries), w))
		l->entries[l->n++] = x->now;
	else
		free(x->now.key);
	x->now = (struct s3_listed){0};
}

static void set_key(struct listing_walk *x, const char *text, struct walk *w)
{
	free(x->now.key);
	x->now.key = *text ? strdup(text) : NULL;
	if (!x->now.key)
		give_up(w, "an entry without a key");
}

static void on_listing_element(void *ctx, const char *path, const char *text, struct walk *w)
{
	struct listing_walk *x = ctx;
	bool ok = true;

#define IS(end) (strcmp(path, "ListBucketResult" end) == 0)
	if (IS("/Contents/Key")) {
		set_key(x, text, w);
	} else if (IS("/Contents/Size")) {
		x->now.bytes = number(text, &ok);
	} else if (IS("/Contents/LastModified")) {
		x->now.modified_us = moment(text);
	} else if (IS("/Contents")) {
		add_entry(x, w);
	} else if (IS("/CommonPrefixes/Prefix")) {
		set_key(x, text, w);
		x->now.folder = true;
	} else if (IS("/CommonPrefixes")) {
		add_entry(x, w);
	} else if (IS("/IsTruncated")) {
		x->l->truncated = strcmp(text, "true") == 0;
	} else if (IS("/NextContinuationToken") && *text) {
		free(x->l->next_token);
		x->l->next_token = strdup(text);
	} else if (IS("")) {
		x->is_listing = true;
	}
#undef IS
	if (!ok)
		give_up(w, "a size that is no number");
}

static int by_key(const void *a, const void *b)
{
	return strcmp(((const struct s3_listed *)a)->key, ((const struct s3_listed *)b)->key);
}

int s3_xml_listing(const void *xml, size_t len, struct s3_listing *ret, struct err *err)
{
	struct listing_walk x = {.l = ret};
	struct walk w = {.element = on_listing_element, .ctx = &x};

	*ret = (struct s3_listing){0};
	int rc = walk(&w, xml, len, err);
	free(x.now.key);
	if (rc == 0 && !x.is_listing)
		rc = err_set(err, ERR_DAMAGED, 0, "the answer is no listing");
	if (rc == 0 && ret->truncated && !ret->next_token)
		rc = err_set(err, ERR_DAMAGED, 0,
		             "a page of a listing that does not say how to go "
		             "on");
	if (rc < 0) {
		s3_listing_release(ret);
		return rc;
	}
	if (ret->n)
		qsort(ret->entries, ret->n, sizeof(*ret->entries), by_key);
	return 0;
}

void s3_listing_release(struct s3_listing *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->entries[i].key);
	free(l->entries);
	free(l->next_token);
	*l = (struct s3_listing){0};
}

/* ---- uploads in parts ---- */

struct uploads_walk {
	struct s3_uploads *u;
	struct s3_upload now;
	bool is_listing;
};

static void on_upload_element(void *ctx, const char *path, const char *text, struct walk *w)
{
	struct uploads_walk *x = ctx;
	struct s3_uploads *u = x->u;

#define IS(end) (strcmp(path, "ListMultipartUploadsResult" end) == 0)
	if (IS("/Upload/Key") || IS("/Upload/UploadId")) {
		char **field = IS("/Upload/Key") ? &x->now.key : &x->now.id;
		free(*field);
		*field = strdup(text);
	} else if (IS("/Upload/Initiated")) {
		x->now.begun_us = moment(text);
	} else if (IS("/Upload")) {
		if (!x->now.key || !x->now.id)
			give_up(w, "an upload without a key");
		else if (grow((void **)&u->entries, &u->n_alloc, u->n, sizeof(*u->entries), w)) {
			u->entries[u->n++] = x->now;
			x->now = (struct s3_upload){0};
		}
	} else if (IS("")) {
		x->is_listing = true;
	}
#undef IS
}

int s3_xml_uploads(const void *xml, size_t len, struct s3_uploads *ret, struct err *err)
{
	struct uploads_walk x = {.u = ret};
	struct walk w = {.element = on_upload_element, .ctx = &x};

	*ret = (struct s3_uploads){0};
	int rc = walk(&w, xml, len, err);
	free(x.now.key);
	free(x.now.id);
	if (rc == 0 && !x.is_listing)
		rc = err_set(err, ERR_DAMAGED, 0, "the answer is no listing of uploads");
	if (rc < 0)
		s3_uploads_release(ret);
	return rc;
}

void s3_uploads_release(struct s3_uploads *u)
{
	for (size_t i = 0; i < u->n; i++) {
		free(u->entries[i].key);
		free(u->entries[i].id);
	}
	free(u->entries);
	*u = (struct s3_uploads){0};
}

struct text_walk {
	char wanted[256];
	char *found;
};

static void on_text_element(void *ctx, const char *path, const char *text, struct walk *w)
{
	struct text_walk *x = ctx;

	if (!x->found && strcmp(path, x->wanted) == 0)
		x->found = strdup(text);
}

int s3_xml_text(const void *xml, size_t len, const char *root, const char *element, char **ret,
                struct err *err)
{
	struct text_walk x = {.found = NULL};
	struct walk w = {.element = on_text_element, .ctx = &x};

	snprintf(x.wanted, sizeof(x.wanted), "%s/%s", root, element);
	int rc = walk(&w, xml, len, err);
	if (rc == 0 && !x.found)
		rc = err_set(err, ERR_DAMAGED, 0, "the answer has no %s", element);
	if (rc < 0) {
		free(x.found);
		return rc;
	}
	*ret = x.found;
	return 0;
}
