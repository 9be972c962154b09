/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/log.h"
#include "engine/view/history_i.h"

#include <fcntl.h>

static int mark_compare(const void *a, const void *b)
{
	return strcmp(((const struct mark *)a)->name, ((const struct mark *)b)->name);
}

static int add_mark(struct mark **marks, size_t *n, size_t *cap, const struct mark *m,
                    struct err *err)
{
	if (*n == *cap) {
		size_t more = *cap ? 2 * *cap : 8;
		struct mark *p = realloc(*marks, more * sizeof(*p));
		if (!p)
			return err_set(err, ERR_NOMEM, 0, "no memory to list marks");
		*marks = p;
		*cap = more;
	}
	(*marks)[(*n)++] = *m;
	return 0;
}

static int get_note(struct history *h, const char *name, struct mark_note *ret, struct err *err)
{
	char file[DB_NAME_MAX + 8];
	cleanup_free char *text = NULL;
	size_t len;

	if (!h->in_bucket)
		return mark_note_get(h->dir_fd, name, ret, err);
	snprintf(file, sizeof(file), "%.200s.mark", name);
	int rc = place_note(h, file, &text, &len, err);
	return rc < 0 ? rc : mark_note_parse(text, len, name, ret, err);
}

int history_mark(struct history *h, const char *name, struct mark *ret, struct err *err)
{
	struct mark_note note;
	struct err why = ERR_INIT;

	if (mark_name_check(name, NULL) < 0 || get_note(h, name, &note, &why) < 0) {
		if (why.kind != ERR_NONE && why.kind != ERR_NOT_FOUND)
			return err_copy(err, &why);
		return err_set(err, ERR_NOT_FOUND, 0,
		               "database '%s' has no mark '%.200s' (asof mark --list shows them)",
		               h->name, name);
	}
	*ret = (struct mark){.txid = note.txid, .time_us = note.time_us, .made_us = note.made_us};
	snprintf(ret->name, sizeof(ret->name), "%s", name);
	return 0;
}

struct marks {
	struct history *h;
	struct mark *e;
	size_t n, cap;
};

static int take_file(struct marks *l, const char *file, struct err *err)
{
	char name[DB_NAME_MAX + 1];
	struct err why = ERR_INIT;
	struct mark m;

	if (!mark_file_parse(file, name))
		return 0;
	if (history_mark(l->h, name, &m, &why) == 0)
		return add_mark(&l->e, &l->n, &l->cap, &m, err);
	if (why.kind == ERR_UNAVAILABLE)
		return err_copy(err, &why);
	if (why.kind != ERR_NOT_FOUND) /* one just deleted is no news */
		log_warn("view", "mark unreadable db=%s: %s", l->h->name, why.msg);
	return 0;
}

static int take_key(void *ctx, const struct store_entry *e, struct err *err)
{
	const char *slash = strrchr(e->key, '/');

	return take_file(ctx, slash ? slash + 1 : e->key, err);
}

static int list_folder(struct history *h, struct marks *l, struct err *err)
{
	cleanup_dir DIR *dir = NULL;
	struct dirent *d;

	int copy = openat(h->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dir = copy < 0 ? NULL : fdopendir(copy);
	if (!dir) {
		int rc = err_set(err, ERR_IO, errno, "list the archive of '%s'", h->name);
		if (copy >= 0)
			close(copy);
		return rc;
	}
	while ((d = readdir(dir))) {
		int rc = take_file(l, d->d_name, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* They come and go by other hands than the writer's, so the folder itself is asked each time. */
int history_marks(struct history *h, struct mark **ret, size_t *ret_n, struct err *err)
{
	struct marks l = {.h = h};
	char prefix[STORE_KEY_MAX];
	int rc;

	if (h->in_bucket) {
		snprintf(prefix, sizeof(prefix), "local/%s/", h->name);
		rc = store_list(h->archive->stores[0], prefix, NULL, false, take_key, &l, err);
	} else {
		rc = list_folder(h, &l, err);
	}
	if (rc < 0) {
		free(l.e);
		return rc;
	}
	if (l.n)
		qsort(l.e, l.n, sizeof(*l.e), mark_compare);
	*ret = l.e;
	*ret_n = l.n;
	return 0;
}
