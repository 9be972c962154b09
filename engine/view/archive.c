/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/view/history_i.h"

#include "engine/base/buf.h"
#include "engine/base/file.h"

#include <fcntl.h>
#include <sys/stat.h>

#define CACHE_BYTES_DEFAULT (32u << 20)
#define PREFETCH_THREADS_MAX 8

int archive_open(const char *root, const struct archive_options *options, struct archive **ret,
                 struct err *err)
{
	size_t cache = options && options->cache_bytes ? options->cache_bytes : CACHE_BYTES_DEFAULT;
	cleanup_archive struct archive *a = calloc(1, sizeof(*a));
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	struct err why = ERR_INIT;

	if (!a)
		return err_set(err, ERR_NOMEM, 0, "no memory to open the archive");
	a->root_fd = a->local_fd = -1;
	pthread_mutex_init(&a->lock, NULL);
	if (!(a->root = strdup(root)))
		return err_set(err, ERR_NOMEM, 0, "no memory to open the archive");
	if (file_open_dir(AT_FDCWD, root, false, &a->root_fd, &why) < 0) {
		if (why.sys_errno == ENOENT || why.sys_errno == ENOTDIR)
			return err_set(err, ERR_NOT_FOUND, 0,
			               "archive '%s': no such directory (asof replicate DB ARCHIVE "
			               "makes one)",
			               root);
		return err_copy(err, &why);
	}
	int rc = cache_new(cache, &a->cache, err);
	if (rc == 0)
		rc = prefetch_new(cpus < 1                      ? 1
		                  : cpus > PREFETCH_THREADS_MAX ? PREFETCH_THREADS_MAX
		                                                : (size_t)cpus,
		                  &a->prefetch, err);
	if (rc == 0)
		*ret = take_ptr(a);
	return rc;
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
	cache_free(a->cache);
	if (a->local_fd >= 0)
		close(a->local_fd);
	if (a->root_fd >= 0)
		close(a->root_fd);
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

int archive_list(struct archive *a, char ***ret, size_t *ret_n, struct err *err)
{
	cleanup_buf struct buf texts = BUF_INIT(64u << 20);
	cleanup_dir DIR *dir = NULL;
	struct dirent *d;
	size_t n = 0;
	LOCK_SCOPE(&a->lock);

	int rc = open_local(a, err);
	if (rc < 0)
		return rc;
	if (a->local_fd >= 0) {
		int fd = openat(a->local_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		dir = fd < 0 ? NULL : fdopendir(fd);
		if (!dir) {
			rc = err_set(err, ERR_IO, errno, "list '%s/local'", a->root);
			if (fd >= 0)
				close(fd);
			return rc;
		}
	}
	while (dir && (d = readdir(dir))) {
		char note[DB_NAME_MAX + 16];
		struct err why;
		if (db_name_check(d->d_name, &why) < 0)
			continue;
		snprintf(note, sizeof(note), "%.200s/source", d->d_name);
		if (faccessat(a->local_fd, note, F_OK, 0) < 0)
			continue; /* another program's folder, or one in the making */
		rc = buf_append(&texts, d->d_name, strlen(d->d_name) + 1, err);
		if (rc < 0)
			return rc;
		n++;
	}
	*ret_n = n;
	return pack_names(&texts, n, ret, err);
}

static int open_history(struct archive *a, const char *name, struct history **ret, struct err *err)
{
	struct err why = ERR_INIT;
	int fd = -1;

	int rc = open_local(a, err);
	if (rc < 0)
		return rc;
	if (a->local_fd < 0 || file_open_dir(a->local_fd, name, false, &fd, &why) < 0) {
		if (a->local_fd < 0 || why.kind == ERR_NOT_FOUND)
			return err_set(
			        err, ERR_NOT_FOUND, 0,
			        "archive '%s' has no database '%s' (asof list shows those it has)",
			        a->root, name);
		return err_copy(err, &why);
	}
	struct history *h = calloc(1, sizeof(*h));
	if (!h || !(h->name = strdup(name))) {
		free(h);
		close(fd);
		return err_set(err, ERR_NOMEM, 0, "no memory to open '%s'", name);
	}
	h->archive = a;
	h->dir_fd = fd;
	h->snapshot_fd = h->segment_fd = h->coalesced_fd = h->head_fd = -1;
	pthread_mutex_init(&h->lock, NULL);
	if (source_note_get(fd, &h->source, &why) < 0) {
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
