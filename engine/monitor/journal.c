/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/monitor/journal.h"

#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/base/json.h"

#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* Both halves, and what an interrupted write may add. */
#define READ_MAX_BYTES ((size_t)64 << 20)
/* Of most lines. */
#define LINE_BYTES 300u

struct journal {
	int dir_fd, fd;
	uint64_t bytes;
	struct journal_list last; /* the newest of each job and database */
	size_t cap;
};

/* ---- lines ---- */

static bool take_text(const json_t *o, const char *key, char *out, size_t size)
{
	const char *text = json_string_value(json_object_get(o, key));

	if (!text || strlen(text) >= size)
		return false;
	memcpy(out, text, strlen(text) + 1);
	return true;
}

static bool take_time(const json_t *o, const char *key, int64_t *ret)
{
	const json_t *v = json_object_get(o, key);

	*ret = 0;
	if (json_is_null(v))
		return true;
	return json_is_string(v) &&
	       time_parse(json_string_value(v), 0, TIME_ZONE_UTC, ret, NULL, NULL) == 0;
}

bool journal_parse(const char *line, size_t len, struct journal_entry *ret)
{
	json_t *o = len <= JOURNAL_LINE_MAX ? json_loadb(line, len, JSON_REJECT_DUPLICATES, NULL)
	                                    : NULL;

	*ret = (struct journal_entry){.ok = json_is_true(json_object_get(o, "ok"))};
	bool good = json_is_object(o) && take_text(o, "job", ret->job, sizeof(ret->job)) &&
	            take_text(o, "database", ret->database, sizeof(ret->database)) &&
	            take_text(o, "message", ret->message, sizeof(ret->message)) &&
	            take_time(o, "scheduled", &ret->scheduled_us) &&
	            take_time(o, "began", &ret->began_us) &&
	            take_time(o, "ended", &ret->ended_us) && ret->job[0] && ret->began_us > 0;
	json_decref(o);
	return good;
}

static json_t *json_time(int64_t us)
{
	char text[TIME_STR_MAX];

	if (us == 0)
		return json_null();
	time_format(us, text);
	return json_string(text);
}

static char *line_of(const struct journal_entry *e)
{
	json_t *o = json_pack("{so so so so so sb so}", "job", json_text(e->job), "database",
	                      json_text(e->database), "scheduled", json_time(e->scheduled_us),
	                      "began", json_time(e->began_us), "ended", json_time(e->ended_us),
	                      "ok", (int)e->ok, "message", json_text(e->message));
	char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;

	json_decref(o);
	return text;
}

/* ---- lists ---- */

static int list_add(struct journal_list *l, size_t *cap, const struct journal_entry *e,
                    struct err *err)
{
	if (l->n == *cap) {
		size_t n = *cap ? 2 * *cap : 32;
		struct journal_entry *p = realloc(l->entries, n * sizeof(*p));
		if (!p)
			return err_set(err, ERR_NOMEM, 0, "no memory for the journal");
		l->entries = p;
		*cap = n;
	}
	l->entries[l->n++] = *e;
	return 0;
}

void journal_list_release(struct journal_list *l)
{
	free(l->entries);
	*l = (struct journal_list){0};
}

typedef int entry_fn(void *ctx, const struct journal_entry *e, struct err *err);

static int each_entry(int dir_fd, const char *name, entry_fn *fn, void *ctx, struct err *err)
{
	cleanup_free char *text = NULL;
	struct journal_entry e;
	struct err why = ERR_INIT;
	size_t len;

	int rc = file_get(dir_fd, name, READ_MAX_BYTES, &text, &len, &why);
	if (rc < 0)
		return why.kind == ERR_NOT_FOUND ? 0 : err_copy(err, &why);
	for (char *p = text, *end; rc == 0 && (end = memchr(p, '\n', len - (size_t)(p - text)));
	     p = end + 1)
		if (journal_parse(p, (size_t)(end - p), &e))
			rc = fn(ctx, &e, err);
	return rc;
}

static int both_files(int dir_fd, entry_fn *fn, void *ctx, struct err *err)
{
	int rc = each_entry(dir_fd, JOURNAL_NAME_OLD, fn, ctx, err);
	return rc < 0 ? rc : each_entry(dir_fd, JOURNAL_NAME, fn, ctx, err);
}

/* ---- writing ---- */

static struct journal_entry *find(const struct journal *j, const char *job, const char *database)
{
	for (size_t i = 0; i < j->last.n; i++) {
		struct journal_entry *e = &j->last.entries[i];
		if (strcmp(e->database, database) == 0 && strcmp(e->job, job) == 0)
			return e;
	}
	return NULL;
}

static int remember(void *ctx, const struct journal_entry *e, struct err *err)
{
	struct journal *j = ctx;
	struct journal_entry *known = find(j, e->job, e->database);

	if (!known)
		return list_add(&j->last, &j->cap, e, err);
	*known = *e;
	return 0;
}

/* The lock is that of the file that has the name now, which may have been given to another. */
static int open_file(struct journal *j, struct err *err)
{
	int rc = file_open(j->dir_fd, JOURNAL_NAME, O_RDWR | O_CREAT | O_APPEND, 0600, &j->fd, err);
	if (rc == 0)
		rc = file_lock(j->fd, JOURNAL_NAME, err);
	if (rc == 0)
		rc = file_size(j->fd, &j->bytes, JOURNAL_NAME, err);
	return rc;
}

static int write_text(struct journal *j, const char *text, size_t len, struct err *err)
{
	ssize_t n = write(j->fd, text, len);

	if (n != (ssize_t)len)
		return err_set(err, ERR_IO, n < 0 ? errno : ENOSPC, "write '%s'", JOURNAL_NAME);
	j->bytes += len;
	return 0;
}

/* Invariant (1): a line that was cut short is ended, so that the next one is whole. */
static int end_last_line(struct journal *j, struct err *err)
{
	char last = '\n';

	int rc = j->bytes == 0 ? 0 : file_pread(j->fd, &last, 1, j->bytes - 1, JOURNAL_NAME, err);
	return rc == 0 && last != '\n' ? write_text(j, "\n", 1, err) : rc;
}

static int write_line(struct journal *j, const struct journal_entry *e, struct err *err)
{
	cleanup_free char *text = line_of(e);
	size_t len = text ? strlen(text) : 0;
	char line[JOURNAL_LINE_MAX + 1];

	if (!text)
		return err_set(err, ERR_NOMEM, 0, "no memory for the journal");
	if (len >= JOURNAL_LINE_MAX)
		return err_set(err, ERR_USAGE, 0, "a line of the journal is too long");
	memcpy(line, text, len);
	line[len] = '\n';
	int rc = end_last_line(j, err);
	return rc < 0 ? rc : write_text(j, line, len + 1, err);
}

/* Invariant (2). */
static int turn_over(struct journal *j, struct err *err)
{
	if (renameat(j->dir_fd, JOURNAL_NAME, j->dir_fd, JOURNAL_NAME_OLD) < 0)
		return err_set(err, ERR_IO, errno, "rename '%s'", JOURNAL_NAME);
	close(take_fd(&j->fd));
	int rc = open_file(j, err);
	for (size_t i = 0; i < j->last.n && rc == 0; i++)
		rc = write_line(j, &j->last.entries[i], err);
	return rc < 0 ? rc : file_sync_dir(j->dir_fd, JOURNAL_NAME, err);
}

int journal_add(struct journal *j, const struct journal_entry *e, struct err *err)
{
	int rc = 0;

	if (j->fd < 0)
		rc = open_file(j, err);
	if (rc == 0)
		rc = remember(j, e, err);
	return rc < 0 ? rc : write_line(j, e, err);
}

int journal_sync(struct journal *j, struct err *err)
{
	int rc = j->fd < 0 ? 0 : file_datasync(j->fd, JOURNAL_NAME, err);

	/* The entry is there; a turn that fails comes again with the next. */
	if (rc == 0 && j->bytes > JOURNAL_BYTES + j->last.n * LINE_BYTES)
		rc = turn_over(j, err);
	return rc;
}

int journal_append(struct journal *j, const struct journal_entry *e, struct err *err)
{
	int rc = journal_add(j, e, err);
	return rc < 0 ? rc : journal_sync(j, err);
}

int journal_open(const char *root, struct journal **ret, struct err *err)
{
	struct journal *j = calloc(1, sizeof(*j));

	if (!j)
		return err_set(err, ERR_NOMEM, 0, "no memory for the journal");
	j->dir_fd = j->fd = -1;
	int rc = file_open_dir(AT_FDCWD, root, false, &j->dir_fd, err);
	if (rc == 0)
		rc = open_file(j, err);
	if (rc == 0)
		rc = both_files(j->dir_fd, remember, j, err);
	if (rc < 0) {
		journal_free(j);
		return rc;
	}
	*ret = j;
	return 0;
}

void journal_free(struct journal *j)
{
	if (!j)
		return;
	if (j->fd >= 0)
		close(j->fd);
	if (j->dir_fd >= 0)
		close(j->dir_fd);
	journal_list_release(&j->last);
	free(j);
}

bool journal_last(const struct journal *j, const char *job, const char *database,
                  struct journal_entry *ret)
{
	const struct journal_entry *e = find(j, job, database);

	if (e)
		*ret = *e;
	return e;
}

/* ---- reading ---- */

struct collect {
	struct journal_list *list;
	size_t cap;
};

static int collect(void *ctx, const struct journal_entry *e, struct err *err)
{
	struct collect *c = ctx;
	return e->ended_us ? list_add(c->list, &c->cap, e, err) : 0;
}

static int by_time(const void *a, const void *b)
{
	const struct journal_entry *x = a, *y = b;

	if (x->began_us != y->began_us)
		return x->began_us < y->began_us ? -1 : 1;
	int order = strcmp(x->job, y->job);
	return order ? order : strcmp(x->database, y->database);
}

/* What was written anew at a turn is told once: a run has one beginning. */
static void sort_and_unite(struct journal_list *l)
{
	size_t kept = 0;

	if (l->n)
		qsort(l->entries, l->n, sizeof(*l->entries), by_time);
	for (size_t i = 0; i < l->n; i++)
		if (kept == 0 || by_time(&l->entries[kept - 1], &l->entries[i]) != 0)
			l->entries[kept++] = l->entries[i];
	l->n = kept;
}

int journal_read(const char *root, size_t max, struct journal_list *ret, struct err *err)
{
	cleanup_fd int dir_fd = -1;
	struct collect c = {.list = ret};

	*ret = (struct journal_list){0};
	int rc = file_open_dir(AT_FDCWD, root, false, &dir_fd, err);
	if (rc == 0)
		rc = both_files(dir_fd, collect, &c, err);
	if (rc < 0) {
		journal_list_release(ret);
		return rc;
	}
	sort_and_unite(ret);
	if (ret->n > max) {
		memmove(ret->entries, ret->entries + (ret->n - max), max * sizeof(*ret->entries));
		ret->n = max;
	}
	return 0;
}
