/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A folder on a server that speaks SFTP (version 3, as OpenSSH does) as a store: the cheapest copy
 * off the machine.
 *
 * Names on the server, beside an object X:
 *
 *     .put-…        on its way; no listing shows it, and what died there is in nobody's way
 *     .asof-new-X   X put again: whole, and it counts wherever there is no X
 *
 * A put writes `.put-…`, has it fsynced (fsync@openssh.com, where the server knows it), and renames
 * it.  SFTP's rename never replaces: OpenSSH makes a link and removes the old name, so of many that
 * create one name one wins.  To replace X, `.put-…` becomes `.asof-new-X`, X is removed, and
 * `.asof-new-X` becomes X:
 *
 *         X                X, .asof-new-X          .asof-new-X              X
 *      (the old)  ------>     (the old)   ------>   (the new)   ------>  (the new)
 *
 * so that in each state there is one whole object, whoever dies.  A reader looks for X, then for
 * .asof-new-X, then once more for X.  One writer at a time replaces (the lineage is fenced).
 *
 * Sessions are kept in a pool, each used by one thread at a time; one that failed is closed, and
 * the request made anew on another, with back-off, for as long as patience lasts.
 */
#include "engine/base/clock.h"
#include "engine/base/hash.h"
#include "engine/store/sftp_i.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE_BYTES (256u << 10)
#define IDLE_MAX 4u
#define PATIENCE_MS 30000
#define PATH_ROOM (STORE_KEY_MAX + 1400)
#define NEW_PREFIX ".asof-new-"
#define PUT_PREFIX ".put-"

struct sftp_store {
	struct store base;
	struct sftp_place place;
	int64_t patience_us;
	bool create;
	const _Atomic bool *stop;
	struct store_tally tally;
	_Atomic unsigned puts;
	uint64_t salt; /* of names on their way */
	pthread_mutex_t lock;
	struct sftp_conn *idle;
	unsigned n_idle;
};

static struct sftp_store *sftp_of(struct store *s)
{
	return (struct sftp_store *)s;
}

/* ---- requests ---- */

static int take_conn(struct sftp_store *s, struct sftp_conn **ret, struct err *err)
{
	pthread_mutex_lock(&s->lock);
	struct sftp_conn *c = s->idle;
	if (c) {
		s->idle = c->next;
		s->n_idle--;
	}
	pthread_mutex_unlock(&s->lock);
	*ret = c;
	return c ? 0 : sftp_connect(&s->place, ret, err);
}

static void give_conn(struct sftp_store *s, struct sftp_conn *c)
{
	pthread_mutex_lock(&s->lock);
	bool keep = s->n_idle < IDLE_MAX;
	if (keep) {
		c->next = s->idle;
		s->idle = c;
		s->n_idle++;
	}
	pthread_mutex_unlock(&s->lock);
	if (!keep)
		sftp_conn_free(c);
}

static bool stopped(const struct sftp_store *s)
{
	return s->stop && *s->stop;
}

/* Half of the wait, and up to as much again: many that were turned away do not come back at once. */
static int pause_before(struct sftp_store *s, unsigned attempt, int64_t until_us, struct err *err)
{
	int64_t wait_us = (100000 << (attempt < 6 ? attempt : 6)) / 2;

	wait_us +=
	        (int64_t)(hash64(&attempt, sizeof(attempt), (uint64_t)clock_mono_us() ^ s->salt) %
	                  (uint64_t)wait_us);
	for (int64_t end = clock_mono_us() + wait_us; clock_mono_us() < end;) {
		if (stopped(s))
			return err_set(err, ERR_CANCELLED, 0, "stopped");
		if (clock_mono_us() > until_us)
			break;
		clock_sleep_us(20000);
	}
	return 0;
}

struct request {
	int (*fn)(struct sftp_store *s, struct sftp_conn *c, struct request *r, struct err *err);
	const char *key;
	struct source *body;
	uint64_t bytes, offset;
	unsigned flags;
	void *to;
	size_t len, max_bytes;
	struct buf *buf;
	struct store_items *items;
	const char *begin;
	bool body_failed; /* what is to be put could not be read: nothing of the server's */
};

static int run(struct sftp_store *s, enum store_verb verb, struct request *r, struct err *err)
{
	int64_t until_us = clock_mono_us() + s->patience_us;
	int rc = 0;

	for (unsigned attempt = 0;; attempt++) {
		struct sftp_conn *c = NULL;
		struct err why = ERR_INIT;

		if (stopped(s))
			return err_set(err, ERR_CANCELLED, 0, "stopped");
		rc = take_conn(s, &c, &why);
		if (rc == 0)
			rc = r->fn(s, c, r, &why);
		s->base.answered = s->base.answered || c;
		if (c && why.kind == ERR_UNAVAILABLE)
			sftp_conn_free(c);
		else if (c)
			give_conn(s, c);
		store_tally_end(&s->tally, verb, rc < 0 && why.kind != ERR_NOT_FOUND ? rc : 0);
		if (rc == 0 || why.kind != ERR_UNAVAILABLE || r->body_failed ||
		    clock_mono_us() > until_us)
			return rc < 0 ? err_copy(err, &why) : 0;
		store_tell_of_silence(&s->base, s->patience_us, &why);
		rc = pause_before(s, attempt, until_us, err);
		if (rc < 0)
			return rc;
	}
}

/* ---- paths ---- */

static void path_of(const struct sftp_store *s, const char *key, char out[PATH_ROOM])
{
	snprintf(out, PATH_ROOM, "%s/%s", s->place.path, key);
}

/* The same with `prefix` before the last part. */
static void beside(const struct sftp_store *s, const char *key, const char *prefix,
                   char out[PATH_ROOM])
{
	const char *slash = strrchr(key, '/');
	int n = slash ? (int)(slash + 1 - key) : 0;

	snprintf(out, PATH_ROOM, "%s/%.*s%s%s", s->place.path, n, key, prefix, key + n);
}

/* libssh2's own short forms do not convert cleanly. */
static LIBSSH2_SFTP_HANDLE *open_path(struct sftp_conn *c, const char *path, unsigned long flags,
                                      long mode, int type)
{
	return ssh2()->sftp_open_ex(c->sftp, path, (unsigned)strlen(path), flags, mode, type);
}

static int unlink_path(struct sftp_conn *c, const char *path)
{
	return ssh2()->sftp_unlink_ex(c->sftp, path, (unsigned)strlen(path));
}

static bool exists(struct sftp_conn *c, const char *path)
{
	LIBSSH2_SFTP_ATTRIBUTES a;

	return ssh2()->sftp_stat_ex(c->sftp, path, (unsigned)strlen(path), LIBSSH2_SFTP_STAT, &a) ==
	       0;
}

/* mkdir -p of what `path` lies in. */
static int make_folders(struct sftp_conn *c, const char *path, struct err *err)
{
	char part[PATH_ROOM];

	for (const char *p = path + 1; (p = strchr(p, '/')); p++) {
		snprintf(part, sizeof(part), "%.*s", (int)(p - path), path);
		if (exists(c, part))
			continue;
		if (ssh2()->sftp_mkdir_ex(c->sftp, part, (unsigned)strlen(part), 0700) != 0 &&
		    !exists(c, part))
			return sftp_error(c, "make folder", part, err);
	}
	return 0;
}

/* ---- reading ---- */

static LIBSSH2_SFTP_HANDLE *open_file(struct sftp_conn *c, const char *path)
{
	return open_path(c, path, LIBSSH2_FXF_READ, 0, LIBSSH2_SFTP_OPENFILE);
}

static int open_object(struct sftp_store *s, struct sftp_conn *c, const char *key,
                       LIBSSH2_SFTP_HANDLE **ret, struct err *err)
{
	char path[PATH_ROOM], newer[PATH_ROOM];

	path_of(s, key, path);
	beside(s, key, NEW_PREFIX, newer);
	for (int i = 0; i < 3; i++) {
		struct err why = ERR_INIT;
		*ret = open_file(c, i == 1 ? newer : path);
		if (*ret)
			return 0;
		if (err_kind_of(sftp_error(c, "open", path, &why)) != ERR_NOT_FOUND || i == 2)
			return err_copy(err, &why);
	}
	return -ERR_NOT_FOUND;
}

static int read_exactly(struct sftp_store *s, struct sftp_conn *c, LIBSSH2_SFTP_HANDLE *h, void *to,
                        size_t len, const char *key, struct err *err)
{
	char *p = to;

	while (len) {
		ssize_t n = ssh2()->sftp_read(h, p, len);
		if (n < 0)
			return sftp_error(c, "read", key, err);
		if (n == 0)
			return err_set(err, ERR_DAMAGED, 0, "'%s' ends too early", key);
		if (stopped(s))
			return err_set(err, ERR_CANCELLED, 0, "stopped");
		p += n;
		len -= (size_t)n;
		s->tally.received_bytes += (uint64_t)n;
	}
	return 0;
}

static int handle_size(struct sftp_conn *c, LIBSSH2_SFTP_HANDLE *h, const char *key, uint64_t *ret,
                       struct err *err)
{
	LIBSSH2_SFTP_ATTRIBUTES a = {0};

	if (ssh2()->sftp_fstat_ex(h, &a, 0) != 0)
		return sftp_error(c, "look at", key, err);
	*ret = a.filesize;
	return 0;
}

static int get_once(struct sftp_store *s, struct sftp_conn *c, struct request *r, struct err *err)
{
	LIBSSH2_SFTP_HANDLE *h;
	size_t before = r->buf->len;
	uint64_t size = 0;

	int rc = open_object(s, c, r->key, &h, err);
	if (rc < 0)
		return rc;
	rc = handle_size(c, h, r->key, &size, err);
	if (rc == 0 && size > r->max_bytes)
		rc = err_set(err, ERR_DAMAGED, 0, "'%s' has %llu bytes, at most %zu were expected",
		             r->key, (unsigned long long)size, r->max_bytes);
	if (rc == 0)
		rc = buf_reserve(r->buf, (size_t)size, err);
	if (rc == 0)
		rc = read_exactly(s, c, h, r->buf->data + before, (size_t)size, r->key, err);
	if (rc == 0)
		r->buf->len = before + (size_t)size;
	ssh2()->sftp_close_handle(h);
	return rc;
}

static int pread_once(struct sftp_store *s, struct sftp_conn *c, struct request *r, struct err *err)
{
	LIBSSH2_SFTP_HANDLE *h;

	int rc = open_object(s, c, r->key, &h, err);
	if (rc < 0)
		return rc;
	ssh2()->sftp_seek64(h, r->offset);
	rc = read_exactly(s, c, h, r->to, r->len, r->key, err);
	ssh2()->sftp_close_handle(h);
	return rc;
}

static int size_once(struct sftp_store *s, struct sftp_conn *c, struct request *r, struct err *err)
{
	LIBSSH2_SFTP_HANDLE *h;

	int rc = open_object(s, c, r->key, &h, err);
	if (rc < 0)
		return rc;
	rc = handle_size(c, h, r->key, r->to, err);
	ssh2()->sftp_close_handle(h);
	return rc;
}

struct sftp_source {
	struct source base;
	struct sftp_store *store;
	_Atomic uint64_t bytes; /* UINT64_MAX: not known */
};

static int source_size(struct source *src, uint64_t *ret_bytes, struct err *err)
{
	struct sftp_source *o = (struct sftp_source *)src;
	uint64_t bytes = o->bytes;
	struct request r = {.fn = size_once, .key = src->name, .to = &bytes};

	int rc = bytes == UINT64_MAX ? run(o->store, STORE_HEAD, &r, err) : 0;
	o->bytes = *ret_bytes = bytes;
	return rc;
}

static int source_pread(struct source *src, void *buf, size_t len, uint64_t offset, struct err *err)
{
	struct sftp_source *o = (struct sftp_source *)src;
	struct request r = {
	        .fn = pread_once, .key = src->name, .to = buf, .len = len, .offset = offset};

	if (o->bytes != UINT64_MAX && (len > o->bytes || offset > o->bytes - len))
		return err_set(err, ERR_DAMAGED, 0, "'%s' has %llu bytes, more were asked for",
		               src->name, (unsigned long long)o->bytes);
	return run(o->store, STORE_GET, &r, err);
}

static void source_free_it(struct source *src)
{
	free(src->name);
	free(src);
}

static int sftp_open(struct store *s, const char *key, uint64_t bytes, struct source **ret,
                     struct err *err)
{
	struct sftp_source *o = calloc(1, sizeof(*o));

	if (!o || !(o->base.name = strdup(key))) {
		free(o);
		return err_set(err, ERR_NOMEM, 0, "no memory to open '%s'", key);
	}
	o->base.pread = source_pread;
	o->base.size = source_size;
	o->base.free = source_free_it;
	o->store = sftp_of(s);
	o->bytes = bytes;
	if (bytes == UINT64_MAX) {
		uint64_t size;
		int rc = source_size(&o->base, &size, err);
		if (rc < 0) {
			source_free_it(&o->base);
			return rc;
		}
	}
	*ret = &o->base;
	return 0;
}

static int sftp_get(struct store *s, const char *key, size_t max_bytes, struct buf *ret,
                    struct err *err)
{
	struct request r = {.fn = get_once, .key = key, .max_bytes = max_bytes, .buf = ret};

	return run(sftp_of(s), STORE_GET, &r, err);
}

/* ---- writing ---- */

static int write_body(struct sftp_store *s, struct sftp_conn *c, LIBSSH2_SFTP_HANDLE *h,
                      struct request *r, struct err *err)
{
	cleanup_free char *piece = malloc(PIECE_BYTES);

	if (!piece)
		return err_set(err, ERR_NOMEM, 0, "no memory to put '%s'", r->key);
	for (uint64_t at = 0; at < r->bytes;) {
		size_t n = r->bytes - at < PIECE_BYTES ? (size_t)(r->bytes - at) : PIECE_BYTES;
		int rc = r->body->pread(r->body, piece, n, at, err);
		if (rc < 0) {
			r->body_failed = true;
			return rc;
		}
		for (size_t done = 0; done < n;) {
			ssize_t w = ssh2()->sftp_write(h, piece + done, n - done);
			if (w < 0)
				return sftp_error(c, "write", r->key, err);
			if (stopped(s))
				return err_set(err, ERR_CANCELLED, 0, "stopped");
			done += (size_t)w;
		}
		at += n;
		s->tally.sent_bytes += n;
	}
	if (ssh2()->sftp_fsync(h) != 0) {
		struct err why = ERR_INIT;
		sftp_error(c, "fsync", r->key, &why);
		if (ssh2()->session_last_errno(c->ssh) != LIBSSH2_ERROR_SFTP_PROTOCOL ||
		    ssh2()->sftp_last_error(c->sftp) != LIBSSH2_FX_OP_UNSUPPORTED)
			return err_copy(err, &why);
	}
	return 0;
}

/* OpenSSH says "failure" of a full disk. */
static int explain_full(struct sftp_conn *c, const char *path, int rc, struct err *err)
{
	LIBSSH2_SFTP_STATVFS st;

	if (err_kind_of(rc) != ERR_IO ||
	    ssh2()->sftp_statvfs(c->sftp, path, strlen(path), &st) != 0 || st.f_bavail > 16)
		return rc;
	return err_set(err, ERR_NO_SPACE, ENOSPC, "write '%s'", path);
}

static int write_new(struct sftp_store *s, struct sftp_conn *c, struct request *r, const char *path,
                     struct err *err)
{
	LIBSSH2_SFTP_HANDLE *h;
	struct err why = ERR_INIT;

	for (int i = 0;; i++) {
		h = open_path(c, path, LIBSSH2_FXF_WRITE | LIBSSH2_FXF_CREAT | LIBSSH2_FXF_EXCL,
		              0600, LIBSSH2_SFTP_OPENFILE);
		if (h)
			break;
		sftp_error(c, "create", path, &why);
		if (why.kind != ERR_NOT_FOUND || i)
			return why.kind == ERR_IO
			               ? explain_full(c, s->place.path, err_copy(err, &why), err)
			               : err_copy(err, &why);
		int rc = make_folders(c, path, err);
		if (rc < 0)
			return rc;
	}
	int rc = write_body(s, c, h, r, err);
	if (ssh2()->sftp_close_handle(h) != 0 && rc == 0)
		rc = sftp_error(c, "close", path, err);
	return rc < 0 ? explain_full(c, s->place.path, rc, err) : 0;
}

/* (2) of store.h: the object that is there is the one that was to be put. */
static int compare_once(struct sftp_store *s, struct sftp_conn *c, struct request *r,
                        struct err *err)
{
	cleanup_free char *p = malloc(2 * (size_t)PIECE_BYTES);
	LIBSSH2_SFTP_HANDLE *h;
	uint64_t size = 0;

	if (!p)
		return err_set(err, ERR_NOMEM, 0, "no memory to compare '%s'", r->key);
	int rc = open_object(s, c, r->key, &h, err);
	if (rc < 0)
		return rc;
	rc = handle_size(c, h, r->key, &size, err);
	bool same = rc == 0 && size == r->bytes;
	for (uint64_t at = 0; rc == 0 && same && at < size;) {
		size_t n = size - at < PIECE_BYTES ? (size_t)(size - at) : PIECE_BYTES;
		rc = read_exactly(s, c, h, p, n, r->key, err);
		if (rc == 0)
			rc = r->body->pread(r->body, p + PIECE_BYTES, n, at, err);
		same = rc == 0 && memcmp(p, p + PIECE_BYTES, n) == 0;
		at += n;
	}
	ssh2()->sftp_close_handle(h);
	if (rc == 0 && !same)
		rc = err_set(err, ERR_EXISTS, 0, "'%s' is there already", r->key);
	return rc;
}

static int rename_new(struct sftp_conn *c, const char *from, const char *to, struct err *err)
{
	struct err why = ERR_INIT;

	if (ssh2()->sftp_rename_ex(c->sftp, from, (unsigned)strlen(from), to, (unsigned)strlen(to),
	                           0) == 0)
		return 0;
	sftp_error(c, "rename to", to, &why);
	if (why.kind != ERR_UNAVAILABLE && exists(c, to))
		return err_set(err, ERR_EXISTS, 0, "'%s' is there already", to);
	return err_copy(err, &why);
}

/* See the states above. */
static int replace(struct sftp_store *s, struct sftp_conn *c, const char *tmp, const char *key,
                   struct err *err)
{
	char path[PATH_ROOM], newer[PATH_ROOM];
	struct err why = ERR_INIT;

	path_of(s, key, path);
	beside(s, key, NEW_PREFIX, newer);
	if (!exists(c, path) && exists(c, newer))
		(void)!rename_new(c, newer, path, NULL); /* somebody died in the third state */
	int rc = rename_new(c, tmp, path, &why);
	if (why.kind != ERR_EXISTS)
		return rc < 0 ? err_copy(err, &why) : 0;
	unlink_path(c, newer); /* of one that died in the second */
	rc = rename_new(c, tmp, newer, err);
	if (rc < 0)
		return rc;
	if (unlink_path(c, path) != 0)
		return sftp_error(c, "remove", path, err);
	return rename_new(c, newer, path, err);
}

static int put_once(struct sftp_store *s, struct sftp_conn *c, struct request *r, struct err *err)
{
	char tmp[PATH_ROOM], path[PATH_ROOM], newer[PATH_ROOM], prefix[80];
	struct err why = ERR_INIT;

	/* The name of the object does not fit behind it where it is long already. */
	snprintf(prefix, sizeof(prefix), PUT_PREFIX "%016llx-%u", (unsigned long long)s->salt,
	         s->puts++);
	path_of(s, r->key, path);
	beside(s, r->key, NEW_PREFIX, newer);
	const char *slash = strrchr(path, '/');
	snprintf(tmp, sizeof(tmp), "%.*s%s", (int)(slash + 1 - path), path, prefix);
	int rc = write_new(s, c, r, tmp, &why);
	if (rc == 0 && (r->flags & STORE_CREATE)) {
		if (!exists(c, path) && exists(c, newer))
			(void)!rename_new(c, newer, path, NULL);
		rc = rename_new(c, tmp, path, &why);
	} else if (rc == 0) {
		rc = replace(s, c, tmp, r->key, &why);
	}
	if (rc < 0 && why.kind != ERR_UNAVAILABLE)
		unlink_path(c, tmp);
	if (why.kind == ERR_EXISTS)
		return compare_once(s, c, r, err);
	return rc < 0 ? err_copy(err, &why) : 0;
}

static int sftp_put(struct store *s, const char *key, struct source *body, uint64_t bytes,
                    unsigned flags, struct err *err)
{
	struct request r = {
	        .fn = put_once, .key = key, .body = body, .bytes = bytes, .flags = flags};

	return run(sftp_of(s), STORE_PUT, &r, err);
}

static int remove_once(struct sftp_store *s, struct sftp_conn *c, struct request *r,
                       struct err *err)
{
	char path[PATH_ROOM];

	for (int i = 0; i < 2;
	     i++) { /* the newer one first: it would count where there is no other */
		struct err why = ERR_INIT;
		beside(s, r->key, i ? "" : NEW_PREFIX, path);
		if (unlink_path(c, path) != 0 &&
		    err_kind_of(sftp_error(c, "remove", path, &why)) != ERR_NOT_FOUND)
			return err_copy(err, &why);
	}
	return 0;
}

static int sftp_remove(struct store *s, const char *key, struct err *err)
{
	struct request r = {.fn = remove_once, .key = key};

	return run(sftp_of(s), STORE_DELETE, &r, err);
}

/* ---- listing ---- */

static bool has_name(const struct store_items *l, const char *name)
{
	for (size_t i = 0; i < l->n; i++)
		if (strcmp(l->e[i].name, name) == 0)
			return true;
	return false;
}

static int take_name(struct store_items *l, struct store_items *newer, const char *name,
                     const char *begin, const LIBSSH2_SFTP_ATTRIBUTES *a, struct err *err)
{
	bool folder = LIBSSH2_SFTP_S_ISDIR(a->permissions);
	bool is_new = strncmp(name, NEW_PREFIX, strlen(NEW_PREFIX)) == 0;
	const char *plain = is_new ? name + strlen(NEW_PREFIX) : name;

	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ||
	    strncmp(name, PUT_PREFIX, strlen(PUT_PREFIX)) == 0 ||
	    strncmp(plain, begin, strlen(begin)) != 0 ||
	    !(folder || LIBSSH2_SFTP_S_ISREG(a->permissions)))
		return 0;
	return store_items_add(is_new ? newer : l, plain, folder, folder ? 0 : a->filesize,
	                       (int64_t)a->mtime * US_PER_SECOND, err);
}

static int list_once(struct sftp_store *s, struct sftp_conn *c, struct request *r, struct err *err)
{
	struct store_items newer CLEANUP(store_items_release) = {0};
	struct err why = ERR_INIT;
	char path[PATH_ROOM], name[1024];
	int rc = 0;

	store_items_release(r->items); /* of a try that was cut */
	*r->items = (struct store_items){0};
	path_of(s, r->key, path);
	path[strlen(path) - 1] = '\0';
	LIBSSH2_SFTP_HANDLE *h = open_path(c, path, 0, 0, LIBSSH2_SFTP_OPENDIR);
	if (!h)
		return err_kind_of(sftp_error(c, "list", path, &why)) == ERR_NOT_FOUND
		               ? 0
		               : err_copy(err, &why);
	while (rc == 0) {
		LIBSSH2_SFTP_ATTRIBUTES a = {0};
		int n = ssh2()->sftp_readdir_ex(h, name, sizeof(name) - 1, NULL, 0, &a);
		if (n < 0)
			rc = sftp_error(c, "list", path, err);
		if (n <= 0)
			break;
		name[n] = '\0';
		rc = take_name(r->items, &newer, name, r->begin, &a, err);
	}
	for (size_t i = 0; i < newer.n && rc == 0; i++)
		if (!has_name(r->items, newer.e[i].name))
			rc = store_items_add(r->items, newer.e[i].name, false, newer.e[i].bytes,
			                     newer.e[i].modified_us, err);
	ssh2()->sftp_close_handle(h);
	return rc;
}

/* A store_read_folder_fn. */
static int read_folder(void *ctx, const char *folder, const char *begin, struct store_items *ret,
                       struct err *err)
{
	char key[STORE_KEY_MAX + 2];

	snprintf(key, sizeof(key), "%s%s", folder, *folder ? "" : "/");
	struct request r = {.fn = list_once, .key = key, .items = ret, .begin = begin};
	return run(ctx, STORE_LIST, &r, err);
}

static int sftp_list(struct store *s, const char *prefix, const char *after, bool deep,
                     store_list_fn *fn, void *ctx, struct err *err)
{
	const struct store_walk w = {read_folder, sftp_of(s), after, deep, fn, ctx};

	return store_walk(&w, prefix, err);
}

/* ---- the store ---- */

static void sftp_counters(struct store *s, struct store_counters *ret)
{
	store_tally_get(&sftp_of(s)->tally, ret);
}

static void sftp_free(struct store *base)
{
	struct sftp_store *s = sftp_of(base);

	while (s->idle) {
		struct sftp_conn *c = s->idle;
		s->idle = c->next;
		sftp_conn_free(c);
	}
	sftp_place_release(&s->place);
	pthread_mutex_destroy(&s->lock);
	free(s->base.label);
	free(s);
}

int store_open_sftp(const char *archive, const struct store_options *options, struct store **ret,
                    struct err *err)
{
	static const struct store_ops ops = {sftp_put,    sftp_get,      sftp_open, sftp_list,
	                                     sftp_remove, sftp_counters, sftp_free};
	struct sftp_store *s = calloc(1, sizeof(*s));

	if (!s)
		return err_set(err, ERR_NOMEM, 0, "no memory for a store");
	pthread_mutex_init(&s->lock, NULL);
	s->base.ops = &ops;
	s->base.remote = true;
	s->base.dir_fd = -1;
	s->base.answered = options->patience_ms != 0;
	s->patience_us = (options->patience_ms ? options->patience_ms : PATIENCE_MS) * 1000;
	s->stop = options->stop;
	s->salt = (uint64_t)clock_now_us() * 2654435761u ^ (uint64_t)getpid() << 40;
	int rc = ssh2_load(err);
	rc = rc ? rc : sftp_place_parse(archive, options, &s->place, err);
	if (rc == 0 &&
	    (strlen(s->place.path) > 1024 ||
	     asprintf(&s->base.label, "sftp://%s@%s:%u%s%s", s->place.user, s->place.host,
	              s->place.port, s->place.path[0] == '/' ? "" : "/~/", s->place.path) < 0))
		rc = err_set(err, ERR_USAGE, 0, "archive 'sftp://…': the path is too long");
	if (rc < 0) {
		sftp_free(&s->base);
		return rc;
	}
	*ret = &s->base;
	return 0;
}
