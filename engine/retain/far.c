/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Retention of a history that lies at a store: what of a pass (apply.c) is otherwise there.
 *
 * It is read through the store, as anybody reads it.  Objects and notes are made in a scratch folder
 * beside the local history and put from there, so that a pass that ends anywhere leaves at the store
 * whole objects only, and in the folder what the next one throws away.
 */
#include "engine/base/file.h"
#include "engine/base/log.h"
#include "engine/retain/retain_i.h"
#include "engine/view/check.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#define SCRATCH "thinning"
#define CACHE_BYTES (8u << 20)
#define NOTE_MAX_BYTES ((size_t)64 << 20)
/* What is larger goes up in parts, which few stores put only where nothing is. */
#define CREATE_MAX_BYTES (UINT64_C(64) << 20)
#define DUE_FIRST_US (24 * 3600 * US_PER_SECOND)
#define DUE_DOUBLINGS 9 /* to about a year and a half */

/* ---- a store that is not ours ---- */

struct borrowed {
	struct store base;
	struct store *inner;
};

static struct store *inner_of(struct store *s)
{
	return ((struct borrowed *)s)->inner;
}

static int lent_put(struct store *s, const char *key, struct source *body, uint64_t bytes,
                    unsigned flags, struct err *err)
{
	return store_put(inner_of(s), key, body, bytes, flags, err);
}

static int lent_get(struct store *s, const char *key, size_t max_bytes, struct buf *ret,
                    struct err *err)
{
	return store_get(inner_of(s), key, max_bytes, ret, err);
}

static int lent_open(struct store *s, const char *key, uint64_t bytes, struct source **ret,
                     struct err *err)
{
	return store_open_object(inner_of(s), key, bytes, ret, err);
}

static int lent_list(struct store *s, const char *prefix, const char *after, bool deep,
                     store_list_fn *fn, void *ctx, struct err *err)
{
	return store_list(inner_of(s), prefix, after, deep, fn, ctx, err);
}

static int lent_remove(struct store *s, const char *key, struct err *err)
{
	return store_remove(inner_of(s), key, err);
}

static void lent_counters(struct store *s, struct store_counters *ret)
{
	store_get_counters(inner_of(s), ret);
}

static void lent_free(struct store *s)
{
	free(s);
}

static const struct store_ops lent_ops = {lent_put,    lent_get,      lent_open, lent_list,
                                          lent_remove, lent_counters, lent_free};

static struct store *lend(struct store *inner)
{
	struct borrowed *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	b->base = (struct store){.ops = &lent_ops,
	                         .label = inner->label,
	                         .remote = inner->remote,
	                         .dir_fd = -1,
	                         .sealed = inner->sealed};
	b->inner = inner;
	return &b->base;
}

/* ---- opening ---- */

static int empty(int dir_fd, struct err *err)
{
	cleanup_dir DIR *dir = NULL;
	struct dirent *d;

	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir)
		return err_set(err, ERR_IO, errno, "list '%s'", SCRATCH);
	while ((d = readdir(dir)))
		if (d->d_name[0] != '.')
			unlinkat(dir_fd, d->d_name, 0);
	return 0;
}

static int open_scratch(struct retainer *r, struct err *err)
{
	char path[PATH_MAX];

	if (snprintf(path, sizeof(path), "%s/local/%s/%s", r->far.archive, r->name, SCRATCH) >=
	    (int)sizeof(path))
		return err_set(err, ERR_USAGE, 0, "the path of archive '%.60s…' is too long",
		               r->far.archive);
	int rc = file_open_dir(AT_FDCWD, path, true, &r->dir_fd, err);
	if (rc == 0)
		rc = file_open_dir(r->dir_fd, "coalesced", true, &r->coalesced_fd, err);
	return rc < 0 ? rc : file_open_dir(r->dir_fd, "snapshot", true, &r->snapshot_fd, err);
}

static int open_far(struct retainer *r, struct err *err)
{
	const struct archive_options o = {.cache_bytes = CACHE_BYTES};
	struct err why = ERR_INIT;
	struct store *store = lend(r->far.store);

	if (!store)
		return err_set(err, ERR_NOMEM, 0, "no memory");
	int rc = archive_open_stores(&store, 1, &o, &r->archive, err);
	if (rc == 0)
		rc = history_get(r->archive, r->name, &r->history, err);
	if (rc == 0)
		rc = open_scratch(r, err);
	if (rc < 0)
		return rc;
	/* Without a local history everything is read there. */
	if (archive_open(r->far.archive, &o, &r->near, &why) < 0 ||
	    history_get(r->near, r->name, &r->near_history, &why) < 0)
		log_debug("retain", "db=%s not read here: %s", r->name, why.msg);
	return 0;
}

int retainer_new_far(const struct retain_far *far, const char *name, struct retainer **ret,
                     struct err *err)
{
	struct retainer *r = calloc(1, sizeof(*r));

	if (!r)
		return err_set(err, ERR_NOMEM, 0, "no memory");
	r->dir_fd = r->segment_fd = r->coalesced_fd = r->snapshot_fd = -1;
	r->is_far = true;
	r->far = *far;
	r->name = strdup(name);
	int rc = r->name ? open_far(r, err) : err_set(err, ERR_NOMEM, 0, "no memory");
	if (rc < 0)
		retainer_free(r);
	else
		*ret = r;
	return rc;
}

/* ---- requests ---- */

void far_key(const struct retainer *r, const char *file, char out[FAR_KEY_MAX])
{
	snprintf(out, FAR_KEY_MAX, "local/%s/%s", r->name, file);
}

int far_may_write(const struct retainer *r, struct err *err)
{
	return r->far.may_write ? r->far.may_write(r->far.ctx, err) : 0;
}

int far_fetch_note(struct retainer *r, const char *name, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT(NOTE_MAX_BYTES + 1);
	struct err why = ERR_INIT;
	char key[FAR_KEY_MAX];

	far_key(r, name, key);
	if (store_get(r->far.store, key, NOTE_MAX_BYTES, &b, &why) == 0)
		return file_put(r->dir_fd, name, b.data, b.len, err);
	if (why.kind != ERR_NOT_FOUND)
		return err_copy(err, &why);
	unlinkat(r->dir_fd, name, 0);
	return 0;
}

int far_put_note(struct retainer *r, const char *name, struct err *err)
{
	cleanup_free char *text = NULL;
	char key[FAR_KEY_MAX];
	size_t len;

	far_key(r, name, key);
	int rc = file_get(r->dir_fd, name, NOTE_MAX_BYTES, &text, &len, err);
	if (rc == 0)
		rc = far_may_write(r, err);
	return rc < 0 ? rc : store_put_bytes(r->far.store, key, text, len, 0, err);
}

/* What is there already under that name says the same. */
static int put_object(struct retainer *r, const char *folder, int dir_fd, const char *file,
                      uint64_t *ret_bytes, struct err *err)
{
	cleanup_source struct source *src = NULL;
	char path[OBJECT_NAME_MAX + 16], key[FAR_KEY_MAX];
	struct err why = ERR_INIT;

	snprintf(path, sizeof(path), "%s/%.190s", folder, file);
	far_key(r, path, key);
	int rc = source_open_file(dir_fd, file, NULL, &src, err);
	if (rc == 0)
		rc = src->size(src, ret_bytes, err);
	if (rc == 0)
		rc = far_may_write(r, err);
	if (rc < 0)
		return rc;
	bool creates = r->far.creates && *ret_bytes <= CREATE_MAX_BYTES;
	rc = store_put(r->far.store, key, src, *ret_bytes, creates ? STORE_CREATE : 0, &why);
	return rc < 0 && why.kind != ERR_EXISTS ? err_copy(err, &why) : 0;
}

/* ---- marks ---- */

static int near_marks(const struct retainer *r, struct mark **ret, size_t *ret_n, struct err *err)
{
	*ret = NULL;
	*ret_n = 0;
	return r->near_history ? history_marks(r->near_history, ret, ret_n, err) : 0;
}

int far_add_marks(struct pass *p, struct err *err)
{
	cleanup_free struct mark *more = NULL;
	size_t n;

	int rc = near_marks(p->r, &more, &n, err);
	if (rc < 0 || n == 0)
		return rc;
	struct mark *all = realloc(p->marks, (p->n_marks + n) * sizeof(*all));
	if (!all)
		return err_set(err, ERR_NOMEM, 0, "no memory to list marks");
	memcpy(all + p->n_marks, more, n * sizeof(*all));
	p->marks = all;
	p->n_marks += n;
	return 0;
}

int far_check_broken(struct pass *p, struct err *err)
{
	struct err why = ERR_INIT;

	if (history_broken(p->r->history, &why) == 0)
		return 0;
	return err_set(err, ERR_DAMAGED, 0, "%.400s (nothing is thinned at the destination)",
	               why.msg);
}

int far_check_marks(struct pass *p, struct err *err)
{
	cleanup_free struct mark *now = NULL;
	size_t n;

	int rc = near_marks(p->r, &now, &n, err);
	for (size_t i = 0; i < n && rc == 0; i++) {
		bool known = false;
		for (size_t k = 0; k < p->n_marks && !known; k++)
			known = p->marks[k].txid == now[i].txid;
		if (!known)
			rc = err_set(err, ERR_BUSY, 0,
			             "mark '%s' of '%s' came just now (try again)", now[i].name,
			             p->r->name);
	}
	return rc;
}

/* ---- making ---- */

/* Whether the local history has both ends of it, the very same. */
static bool is_near(struct pass *p, const struct retain_job *job)
{
	struct moment here, there;
	struct history *near = p->r->near_history;

	if (!near || history_tx(near, job->until_txid, &here, NULL) < 0 ||
	    history_tx(p->r->history, job->until_txid, &there, NULL) < 0 ||
	    here.time_us != there.time_us || here.n_pages != there.n_pages ||
	    here.lineage != there.lineage || here.page_size != there.page_size ||
	    !hash128_equal(here.state, there.state))
		return false;
	return job->type == RETAIN_BASE || job->after_txid == 0 ||
	       history_tx(near, job->after_txid, &here, NULL) == 0;
}

static bool is_whole(struct history *h, const struct history_object *o)
{
	cleanup_object_check struct object_check check = {.whole = false};

	return history_check_object(h, o, NULL, NULL, &check, NULL) == 0 &&
	       check.first.kind == ERR_NONE;
}

/* The local archive may have made just that.  *ret: it is there now. */
static int reuse(struct pass *p, const struct retain_job *job, bool *ret, uint64_t *ret_bytes,
                 struct err *err)
{
	cleanup_free struct history_object *o = NULL;
	struct retainer *r = p->r;
	bool base = job->type == RETAIN_BASE;
	char path[PATH_MAX];
	size_t n = 0;

	*ret = false;
	if (history_objects(r->near_history, &o, &n, NULL) < 0)
		return 0;
	for (size_t i = 0; i < n; i++) {
		cleanup_fd int dir = -1;
		uint64_t first = base ? job->until_txid + 1 : job->after_txid + 1;
		if (o[i].type != (base ? HISTORY_SNAPSHOT : HISTORY_COALESCED) ||
		    o[i].first_txid != first || o[i].last_txid != job->until_txid ||
		    !is_whole(r->near_history, &o[i]))
			continue;
		snprintf(path, sizeof(path), "%s/local/%s/%s", r->far.archive, r->name,
		         retain_folder_of(&o[i]));
		if (file_open_dir(AT_FDCWD, path, false, &dir, NULL) < 0)
			continue;
		int rc = put_object(r, retain_folder_of(&o[i]), dir, o[i].file, ret_bytes, err);
		*ret = rc == 0;
		return rc;
	}
	return 0;
}

/* What lies in a scratch folder goes there. */
static int put_made(struct retainer *r, const char *folder, int dir_fd, uint64_t *ret_bytes,
                    struct err *err)
{
	cleanup_dir DIR *dir = NULL;
	struct object_name n;
	struct dirent *d;
	int rc = 0;

	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir)
		return err_set(err, ERR_IO, errno, "list '%s'", SCRATCH);
	while (rc == 0 && (d = readdir(dir))) {
		if (!object_name_parse(d->d_name, &n))
			continue;
		rc = put_object(r, folder, dir_fd, d->d_name, ret_bytes, err);
		if (rc == 0)
			unlinkat(dir_fd, d->d_name, 0);
	}
	return rc;
}

/* What a pass that was killed left is of no use. */
static int clear(struct retainer *r, struct err *err)
{
	int rc = empty(r->coalesced_fd, err);

	return rc < 0 ? rc : empty(r->snapshot_fd, err);
}

int far_do_job(struct pass *p, const struct retain_job *job, uint64_t *ret_bytes, struct err *err)
{
	struct retainer *r = p->r;
	struct err why = ERR_INIT;
	bool near = is_near(p, job), done = false;

	int rc = clear(r, err);
	if (rc == 0 && near)
		rc = reuse(p, job, &done, ret_bytes, err);
	if (rc < 0 || done)
		return rc;
	if (near)
		rc = retain_make(p, r->near_history, job, ret_bytes, &why);
	if (rc < 0 && (why.kind == ERR_CANCELLED || why.kind == ERR_NO_SPACE))
		return err_copy(err, &why);
	if (rc < 0)
		rc = clear(r, err);
	if (!near || why.kind != ERR_NONE)
		rc = rc < 0 ? rc : retain_make(p, r->history, job, ret_bytes, err);
	if (rc == 0)
		rc = put_made(r, "coalesced", r->coalesced_fd, ret_bytes, err);
	return rc < 0 ? rc : put_made(r, "snapshot", r->snapshot_fd, ret_bytes, err);
}

/* ---- when next ---- */

static bool same_plan(const struct retain_plan *a, const struct retain_plan *b)
{
	if (a->fine_txid != b->fine_txid || a->n_points != b->n_points || b->n_jobs)
		return false;
	for (size_t i = 0; i < a->n_points; i++)
		if (a->points[i].txid != b->points[i].txid)
			return false;
	return true;
}

int far_find_due(struct pass *p, struct err *err)
{
	const int64_t now_us = p->now_us;
	struct retain_plan was = p->plan;
	int rc = 0;

	far_forget(p->r);
	p->result->due_us = now_us;
	if (p->dry || p->expiring.n || p->result->expiring || p->result->deleted ||
	    p->result->made_bytes)
		return 0;
	p->plan = (struct retain_plan){0};
	p->result->due_us = now_us + DUE_FIRST_US / 2; /* a day later it looks in any case */
	for (int i = 0; i <= DUE_DOUBLINGS && rc == 0; i++) {
		p->now_us = now_us + (DUE_FIRST_US << i);
		rc = retain_replan(p, err);
		if (rc < 0 || !same_plan(&was, &p->plan))
			break;
		p->result->due_us = p->now_us;
	}
	p->now_us = now_us;
	retain_plan_release(&was);
	return rc;
}
