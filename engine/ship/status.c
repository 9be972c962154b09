/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file shipped-XXXXXXXX: lines "key value", first "asof-shipped 1", last "sum HEX" as in notes
 * (archive/notes.h); rewritten in place, never fsynced: who meets it torn reads again.
 */
#include "engine/base/file.h"
#include "engine/base/hash.h"
#include "engine/ship/ship_i.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STATUS_MAX 4096
#define TRIES 20

/* One table for writing and reading. */
/* clang-format off */
#define FIELDS(X)                                                                                  \
	X(replicated_txid) X(replicated_us) X(based) X(tip_txid) X(tip_us) X(at_us)                \
	X(progress_us)                                                                             \
	X(fenced) X(no_delete) X(creates) X(no_create) X(held_lineage)                             \
	X(sent_bytes) X(received_bytes)                                                            \
	X(level0_bytes) X(object_bytes) X(level0_put) X(objects_put) X(deleted) X(stored_objects)  \
	X(stored_bytes) X(complete_hash) X(damaged) X(since_us) X(trouble_us)
/* clang-format on */

static void file_name(const char *url, char out[32])
{
	snprintf(out, 32, "shipped-%08x", (unsigned)hash64(url, strlen(url), 0));
}

static int format(const struct ship_status *st, struct buf *b, struct err *err)
{
	int rc = buf_printf(b, err, "asof-shipped 1\n");
#define PUT(field)                                                                                 \
	if (rc == 0)                                                                               \
		rc = buf_printf(b, err, #field " %lld\n", (long long)st->field);
	FIELDS(PUT)
#undef PUT
	for (int v = 0; v < STORE_N_VERBS && rc == 0; v++)
		rc = buf_printf(b, err, "requests_%s %" PRIu64 "\n",
		                store_verb_name((enum store_verb)v), st->requests[v]);
	if (rc == 0)
		rc = buf_printf(b, err, "trouble %s\nurl %s\n", st->trouble, st->url);
	return rc < 0 ? rc : buf_printf(b, err, "sum %016" PRIx64 "\n", hash64(b->data, b->len, 0));
}

static void take_line(const char *line, struct ship_status *st)
{
	const char *space = strchr(line, ' ');

	if (!space)
		return;
	size_t n = (size_t)(space - line);
	long long v = strtoll(space + 1, NULL, 10);
#define TAKE(field)                                                                                \
	if (n == sizeof(#field) - 1 && memcmp(line, #field, n) == 0) {                             \
		st->field = (__typeof__(st->field))v;                                              \
		return;                                                                            \
	}
	FIELDS(TAKE)
#undef TAKE
	for (int i = 0; i < STORE_N_VERBS; i++)
		if (n > 9 && memcmp(line, "requests_", 9) == 0 &&
		    strlen(store_verb_name((enum store_verb)i)) == n - 9 &&
		    memcmp(line + 9, store_verb_name((enum store_verb)i), n - 9) == 0)
			st->requests[i] = (uint64_t)v;
	if (n == 7 && memcmp(line, "trouble", n) == 0)
		snprintf(st->trouble, sizeof(st->trouble), "%s", space + 1);
	else if (n == 3 && memcmp(line, "url", n) == 0)
		snprintf(st->url, sizeof(st->url), "%s", space + 1);
}

static bool parse(char *text, size_t len, struct ship_status *ret)
{
	char want[40], *save = NULL;
	char *last = strlen(text) == len ? strstr(text, "\nsum ") : NULL;

	*ret = (struct ship_status){0};
	if (!last || strncmp(text, "asof-shipped 1\n", 15) != 0)
		return false;
	snprintf(want, sizeof(want), "sum %016" PRIx64 "\n",
	         hash64(text, (size_t)(last + 1 - text), 0));
	if (strcmp(last + 1, want) != 0)
		return false;
	*last = '\0';
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		take_line(line, ret);
	return true;
}

static int read_file(int dir_fd, const char *name, struct ship_status *ret, struct err *err)
{
	for (int i = 0; i < TRIES; i++) {
		cleanup_free char *text = NULL;
		size_t len;
		int rc = file_get(dir_fd, name, STATUS_MAX, &text, &len, err);
		if (rc < 0)
			return rc;
		if (parse(text, len, ret))
			return 0;
		clock_sleep_us(1000);
	}
	return err_set(err, ERR_NOT_FOUND, 0, "'%s' is torn", name);
}

static int read_status(int dir_fd, const char *url, struct ship_status *ret, struct err *err)
{
	char name[32];

	file_name(url, name);
	return read_file(dir_fd, name, ret, err);
}

static int open_folder(const char *archive, const char *name, int *ret, struct err *err)
{
	char path[PATH_MAX];

	if (snprintf(path, sizeof(path), "%s/local/%s", archive, name) >= (int)sizeof(path))
		return err_set(err, ERR_USAGE, 0, "the path of archive '%.60s…' is too long",
		               archive);
	return file_open_dir(AT_FDCWD, path, false, ret, err);
}

int ship_status_read(const char *archive, const char *name, const char *url,
                     struct ship_status *ret, struct err *err)
{
	cleanup_fd int dir = -1;

	int rc = open_folder(archive, name, &dir, err);
	return rc < 0 ? rc : read_status(dir, url, ret, err);
}

int ship_status_each(const char *archive, const char *name,
                     int (*fn)(void *ctx, const struct ship_status *s), void *ctx)
{
	cleanup_dir DIR *dir = NULL;
	struct dirent *d;
	int fd = -1, rc = 0;

	if (open_folder(archive, name, &fd, NULL) < 0)
		return 0;
	dir = fdopendir(fd);
	if (!dir)
		close(fd);
	while (dir && rc == 0 && (d = readdir(dir))) {
		struct ship_status s;
		if (strncmp(d->d_name, "shipped-", 8) == 0 &&
		    read_file(dirfd(dir), d->d_name, &s, NULL) == 0)
			rc = fn(ctx, &s);
	}
	return rc;
}

int ship_status_write(struct shipper *s, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT(STATUS_MAX);
	cleanup_fd int fd = -1;
	struct ship_status st;
	char name[32];

	ship_status_get(s, &st);
	file_name(s->url, name);
	int rc = format(&st, &b, err);
	if (rc == 0)
		rc = file_open(s->dir_fd, name, O_RDWR | O_CREAT, 0600, &fd, err);
	if (rc == 0)
		rc = file_pwrite(fd, b.data, b.len, 0, name, err);
	if (rc == 0 && ftruncate(fd, (off_t)b.len) < 0)
		rc = err_set(err, ERR_IO, errno, "write '%s'", name);
	return rc;
}

int ship_take_turn(struct shipper *s, struct err *err)
{
	cleanup_fd int fd = -1;
	struct err why = ERR_INIT;
	char name[32];

	if (s->turn_fd >= 0)
		return 0;
	file_name(s->url, name);
	int rc = file_open(s->dir_fd, name, O_RDWR | O_CREAT, 0600, &fd, err);
	if (rc < 0)
		return rc;
	if (file_lock(fd, name, &why) < 0)
		return why.kind == ERR_BUSY
		               ? err_set(err, ERR_BUSY, 0,
		                         "another asof sends '%s' to %s just now (asof run, asof "
		                         "replicate and asof copy take turns)",
		                         s->name, s->url)
		               : err_copy(err, &why);
	s->turn_fd = take_fd(&fd);
	return 0;
}

void ship_status_recall(struct shipper *s)
{
	struct ship_status st;

	if (read_status(s->dir_fd, s->url, &st, NULL) < 0)
		st = (struct ship_status){.since_us = clock_now_us()};
	st.fenced = st.no_delete = false;
	st.damaged = 0;
	snprintf(st.url, sizeof(st.url), "%.299s", s->url);
	pthread_mutex_lock(&s->lock);
	s->status = st;
	pthread_mutex_unlock(&s->lock);
}

void ship_status_get(struct shipper *s, struct ship_status *ret)
{
	pthread_mutex_lock(&s->lock);
	*ret = s->status;
	pthread_mutex_unlock(&s->lock);
}
