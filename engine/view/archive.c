/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/view/history_i.h"

#include "engine/base/buf.h"
#include "engine/base/file.h"
#include "engine/base/log.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#define CACHE_BYTES_DEFAULT (32u << 20)
/* What the kernel asks for at once: while one thread answers, others inflate what comes next.  Less
 * with a small cache, which would drop it before it is asked for. */
#define AHEAD_BYTES_MAX (1u << 20)
#define AHEAD_CACHE_PART 16u
#define PREFETCH_THREADS_MAX 8

/* They inflate; those that wait for a far store are the reader's own. */
static size_t prefetch_threads(void)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	return cpus < 1 ? 1 : cpus > PREFETCH_THREADS_MAX ? PREFETCH_THREADS_MAX : (size_t)cpus;
}

/* A quarter of the descriptors: histories that came first have had more than their share. */
static size_t idle_files(void)
{
	struct rlimit l;

	return getrlimit(RLIMIT_NOFILE, &l) == 0 ? l.rlim_cur / 4 : 256;
}

static int open_reader(struct archive *a, const struct archive_options *o, struct err *err)
{
	struct reader_options ro = {.stores = a->stores, .n_stores = a->n_stores};
	struct err why = ERR_INIT;

	/* Without the folder all works, but slower. */
	if (a->stores[0]->remote && !a->stores[0]->sealed && o->keep_dir &&
	    kept_open(o->keep_dir, o->keep_bytes, &a->kept, &why) < 0)
		log_warn("view", "nothing is kept of what is read from '%s': %s", a->root, why.msg);
	ro.kept = a->kept;
	return store_reader_new(&ro, &a->reader, err);
}

int archive_open_stores(struct store *const *stores, size_t n_stores,
                        const struct archive_options *options, struct archive **ret,
                        struct err *err)
{
	static const struct archive_options none = {.cache_bytes = 0};
	const struct archive_options *o = options ? options : &none;
	cleanup_archive struct archive *a = calloc(1, sizeof(*a));

	if (a)
		a->stores = calloc(n_stores, sizeof(*a->stores));
	if (!a || !a->stores) {
		for (size_t i = 0; i < n_stores; i++)
			store_free(stores[i]);
		free(take_ptr(a));
		return err_set(err, ERR_NOMEM, 0, "no memory to open the archive");
	}
	memcpy(a->stores, stores, n_stores * sizeof(*stores));
	a->n_stores = n_stores;
	a->root_fd = stores[0]->dir_fd;
	a->local_fd = -1;
	a->idle_files = idle_files();
	pthread_mutex_init(&a->lock, NULL);
	if (!(a->root = strdup(stores[0]->label)))
		return err_set(err, ERR_NOMEM, 0, "no memory to open the archive");
	size_t cache_bytes = o->cache_bytes ? o->cache_bytes : CACHE_BYTES_DEFAULT;
	size_t ahead_bytes = cache_bytes / AHEAD_CACHE_PART;
	a->ahead_bytes = ahead_bytes < AHEAD_BYTES_MAX ? ahead_bytes : AHEAD_BYTES_MAX;
	int rc = cache_new(cache_bytes, &a->cache, err);
	rc = rc ? rc : prefetch_new(prefetch_threads(), &a->prefetch, err);
	rc = rc ? rc : open_reader(a, o, err);
	if (rc == 0)
		*ret = take_ptr(a);
	return rc;
}

#define OTHERS_MAX 15

int archive_open(const char *root, const struct archive_options *options, struct archive **ret,
                 struct err *err)
{
	const char *const *others = options ? options->others : NULL;
	const struct store_options *so = options ? options->store : NULL;
	struct store *stores[OTHERS_MAX + 1];
	size_t n = 0, n_more = options ? options->n_other_stores : 0;

	int rc = store_open(root, so, &stores[n], err);
	for (size_t i = 0; i < n_more; i++) {
		if (rc == 0 && n < OTHERS_MAX)
			stores[++n] = options->other_stores[i];
		else
			store_free(options->other_stores[i]);
	}
	if (rc < 0)
		return rc;
	n++;
	for (; others && *others && n <= OTHERS_MAX; others++) {
		struct err why = ERR_INIT;
		if (store_open(*others, so, &stores[n], &why) == 0)
			n++;
		else
			log_warn("view", "cannot stand in for '%s': %s", root, why.msg);
	}
	rc = archive_open_stores(stores, n, options, ret, err);
	if (rc == 0 && strcmp((*ret)->root, root) != 0) { /* as it was given, so it can be given */
		char *copy = strdup(root);
		if (copy) {
			free((*ret)->root);
			(*ret)->root = copy;
		}
	}
	return rc;
}

struct store *archive_store(struct archive *a)
{
	return a->stores[0];
}

static void history_free(struct history *h)
{
	catalog_release(h);
	const int fds[] = {h->dir_fd, h->snapshot_fd, h->segment_fd, h->coalesced_fd, h->head_fd};
	for (size_t i = 0; i < sizeof(fds) / sizeof(*fds); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	pthread_mutex_destroy(&h->lock);
	free(h->name);
	free(h);
}

void archive_free(struct archive *a)
{
	if (!a)
		return;
	prefetch_free(a->prefetch);
	while (a->histories) { /* kept open for the next history_get() */
		struct history *h = a->histories;
		a->histories = h->next;
		history_free(h);
	}
	store_reader_free(a->reader);
	kept_free(a->kept);
	cache_free(a->cache);
	if (a->local_fd >= 0)
		close(a->local_fd);
	for (size_t i = 0; i < a->n_stores; i++)
		store_free(a->stores[i]);
	free(a->stores);
	pthread_mutex_destroy(&a->lock);
	free(a->root);
	free(a);
}

const char *archive_root(const struct archive *a)
{
	return a->root;
}

/* Under a->lock.  An archive in which nothing was captured yet has no such folder. */
static int open_local(struct archive *a, struct err *err)
{
	struct err why = ERR_INIT;

	if (a->local_fd >= 0)
		return 0;
	int rc = file_open_dir(a->root_fd, "local", false, &a->local_fd, &why);
	return rc < 0 && why.kind != ERR_NOT_FOUND ? err_copy(err, &why) : 0;
}

static int name_compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* One allocation: the pointers, then the texts. */
static int pack_names(const struct buf *texts, size_t n, char ***ret, struct err *err)
{
	char **out = malloc((n + 1) * sizeof(char *) + texts->len);

	if (!out)
		return err_set(err, ERR_NOMEM, 0, "no memory to list the archive");
	char *p = (char *)(out + n + 1);
	if (texts->len)
		memcpy(p, texts->data, texts->len);
	for (size_t i = 0; i < n; i++, p += strlen(p) + 1)
		out[i] = p;
	out[n] = NULL;
	qsort(out, n, sizeof(*out), name_compare);
	*ret = out;
	return 0;
}

struct names {
	struct buf texts;
	size_t n;
};

static int take_name(struct names *l, const char *name, struct err *err)
{
	int rc = buf_append(&l->texts, name, strlen(name) + 1, err);

	l->n += rc == 0;
	return rc;
}

/* What is listed as a folder has something in it; whether that is a database shows its note. */
static int take_folder(void *ctx, const struct store_entry *e, struct err *err)
{
	char name[DB_NAME_MAX + 1];
	const char *p = e->key + strlen("local/"), *slash = strchr(p, '/');

	if (!slash || (size_t)(slash - p) >= sizeof(name))
		return 0;
	snprintf(name, sizeof(name), "%.*s", (int)(slash - p), p);
	return db_name_check(name, NULL) == 0 ? take_name(ctx, name, err) : 0;
}

/* Under a->lock. */
static int list_folder(struct archive *a, struct names *l, struct err *err)
{
	cleanup_dir DIR *dir = NULL;
	struct dirent *d;

	int rc = open_local(a, err);
	if (rc < 0 || a->local_fd < 0)
		return rc;
	int fd = openat(a->local_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		rc = err_set(err, ERR_IO, errno, "list '%s/local'", a->root);
		if (fd >= 0)
			close(fd);
		return rc;
	}
	while (rc == 0 && (d = readdir(dir))) {
		char note[DB_NAME_MAX + 16];
		struct err why;
		if (db_name_check(d->d_name, &why) < 0)
			continue;
		snprintf(note, sizeof(note), "%.200s/source", d->d_name);
		if (faccessat(a->local_fd, note, F_OK, 0) < 0)
			continue; /* another program's folder, or one in the making */
		rc = take_name(l, d->d_name, err);
	}
	return rc;
}

int archive_list(struct archive *a, char ***ret, size_t *ret_n, struct err *err)
{
	struct names l = {.texts = BUF_INIT(64u << 20)};
	int rc;

	if (a->root_fd < 0) {
		rc = store_list(a->stores[0], "local/", NULL, false, take_folder, &l, err);
	} else {
		LOCK_SCOPE(&a->lock);
		rc = list_folder(a, &l, err);
	}
	*ret_n = l.n;
	rc = rc ? rc : pack_names(&l.texts, l.n, ret, err);
	buf_release(&l.texts);
	return rc;
}

static int no_database(const struct archive *a, const char *name, struct err *err)
{
	return err_set(err, ERR_NOT_FOUND, 0,
	               "archive '%s' has no database '%s' (asof list shows those it has)", a->root,
	               name);
}

static int new_history(struct archive *a, const char *name, struct history **ret, struct err *err)
{
	struct history *h = calloc(1, sizeof(*h));

	if (!h || !(h->name = strdup(name))) {
		free(h);
		return err_set(err, ERR_NOMEM, 0, "no memory to open '%s'", name);
	}
	h->archive = a;
	h->dir_fd = h->snapshot_fd = h->segment_fd = h->coalesced_fd = h->head_fd = -1;
	pthread_mutex_init(&h->lock, NULL);
	*ret = h;
	return 0;
}

static int open_in_bucket(struct archive *a, const char *name, struct history **ret,
                          struct err *err)
{
	struct history *h;
	cleanup_free char *text = NULL;
	struct err why = ERR_INIT;
	size_t len;

	int rc = new_history(a, name, &h, err);
	if (rc < 0)
		return rc;
	h->in_bucket = true;
	rc = place_note(h, "source", &text, &len, &why);
	rc = rc ? rc : source_note_parse(text, len, &h->source, &why);
	if (rc == 0) {
		*ret = h;
		return 0;
	}
	history_free(h);
	/* No bucket, too, is NOT_FOUND, and says so. */
	return err_kind_of(rc) == ERR_NOT_FOUND && why.sys_errno == ENOENT
	               ? no_database(a, name, err)
	               : err_copy(err, &why);
}

static int open_history(struct archive *a, const char *name, struct history **ret, struct err *err)
{
	struct err why = ERR_INIT;
	struct history *h;
	cleanup_fd int fd = -1;

	if (a->root_fd < 0)
		return open_in_bucket(a, name, ret, err);
	int rc = open_local(a, err);
	if (rc < 0)
		return rc;
	if (a->local_fd < 0 || file_open_dir(a->local_fd, name, false, &fd, &why) < 0) {
		if (a->local_fd < 0 || why.kind == ERR_NOT_FOUND)
			return no_database(a, name, err);
		return err_copy(err, &why);
	}
	if ((rc = new_history(a, name, &h, err)) < 0)
		return rc;
	h->dir_fd = take_fd(&fd);
	if (source_note_get(h->dir_fd, &h->source, &why) < 0) {
		history_free(h);
		if (why.kind == ERR_NOT_FOUND)
			return err_set(err, ERR_NOT_FOUND, 0, "archive '%s' has no database '%s'",
			               a->root, name);
		return err_copy(err, &why);
	}
	*ret = h;
	return 0;
}

int history_get(struct archive *a, const char *name, struct history **ret, struct err *err)
{
	LOCK_SCOPE(&a->lock);
	struct history *h;

	int rc = db_name_check(name, err);
	if (rc < 0) {
		if (err)
			err->kind = ERR_NOT_FOUND;
		return -ERR_NOT_FOUND;
	}
	for (h = a->histories; h; h = h->next)
		if (strcmp(h->name, name) == 0)
			break;
	if (!h) {
		rc = open_history(a, name, &h, err);
		if (rc < 0)
			return rc;
		h->next = a->histories;
		a->histories = h;
		a->n_histories++;
	}
	h->refs++;
	*ret = h;
	return 0;
}

/* Stays open: the next history_get() of it is free. */
void history_put(struct history *h)
{
	if (!h)
		return;
	LOCK_SCOPE(&h->archive->lock);
	h->refs--;
}

const char *history_name(const struct history *h)
{
	return h->name;
}

uint32_t history_id(const struct history *h)
{
	return h->source.id;
}
