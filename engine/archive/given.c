/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/archive/given.h"

#include "engine/archive/notes.h"
#include "engine/base/buf.h"
#include "engine/base/file.h"
#include "engine/base/hash.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILE_BYTES_MAX ((size_t)64 << 20)
#define NOTE_BYTES_MAX ((size_t)64 << 10)
#define HEAD "asof-given 1\n"

uint64_t given_hash(const void *note, size_t len)
{
	return hash64(note, len, 0);
}

static void file_name(const char *place, char out[40])
{
	snprintf(out, 40, "given-%08x", (unsigned)hash64(place, strlen(place), 0));
}

void given_marks_release(struct given_marks *g)
{
	free(g->e);
	*g = (struct given_marks){0};
}

void given_marks_drop(struct given_marks *g, size_t i)
{
	g->n--;
	memmove(g->e + i, g->e + i + 1, (g->n - i) * sizeof(*g->e));
	g->changed = true;
}

static int add(struct given_marks *g, const char *file, uint64_t hash, struct err *err)
{
	for (size_t i = 0; i < g->n; i++) {
		if (strcmp(g->e[i].file, file) != 0)
			continue;
		g->changed = g->changed || g->e[i].hash != hash;
		g->e[i].hash = hash;
		return 0;
	}
	if (g->n == g->cap) {
		size_t cap = g->cap ? 2 * g->cap : 16;
		struct given_mark *e = realloc(g->e, cap * sizeof(*e));
		if (!e)
			return err_set(err, ERR_NOMEM, 0, "no memory for a list of marks");
		g->e = e;
		g->cap = cap;
	}
	struct given_mark *m = &g->e[g->n++];
	snprintf(m->file, sizeof(m->file), "%s", file);
	m->hash = hash;
	g->changed = true;
	return 0;
}

/* "0123456789abcdef NAME.mark"; what looks otherwise is passed over. */
static int take_line(struct given_marks *g, const char *line, struct err *err)
{
	char name[DB_NAME_MAX + 1], *end;

	if (strcmp(line, "denied") == 0)
		g->denied = true;
	unsigned long long hash = strtoull(line, &end, 16);
	if (end != line + 16 || *end != ' ' || !mark_file_parse(end + 1, name))
		return 0;
	return add(g, end + 1, hash, err);
}

int given_marks_get(int dir_fd, const char *place, struct given_marks *ret, struct err *err)
{
	cleanup_free char *text = NULL;
	struct err why = ERR_INIT;
	char file[40], *save = NULL;
	size_t len;

	*ret = (struct given_marks){0};
	file_name(place, file);
	int rc = file_get(dir_fd, file, FILE_BYTES_MAX, &text, &len, &why);
	if (rc < 0)
		return why.kind == ERR_NOT_FOUND ? 0 : err_copy(err, &why);
	if (strncmp(text, HEAD, sizeof(HEAD) - 1) != 0) /* of another version */
		return 0;
	for (char *line = strtok_r(text, "\n", &save); line && rc == 0;
	     line = strtok_r(NULL, "\n", &save))
		rc = take_line(ret, line, err);
	ret->changed = false;
	return rc;
}

int given_marks_put(int dir_fd, const char *place, struct given_marks *g, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT(FILE_BYTES_MAX);
	char file[40];

	if (!g->changed)
		return 0;
	file_name(place, file);
	int rc = buf_printf(&b, err, HEAD "%s", g->denied ? "denied\n" : "");
	for (size_t i = 0; i < g->n && rc == 0; i++)
		rc = buf_printf(&b, err, "%016" PRIx64 " %s\n", g->e[i].hash, g->e[i].file);
	if (rc == 0)
		rc = file_put(dir_fd, file, b.data, b.len, err);
	g->changed = rc < 0;
	return rc;
}

static int take_note(int dir_fd, const char *file, struct given_marks *g, struct err *err)
{
	cleanup_free char *text = NULL;
	char name[DB_NAME_MAX + 1];
	struct err why = ERR_INIT;
	size_t len;

	if (!mark_file_parse(file, name))
		return 0;
	if (file_get(dir_fd, file, NOTE_BYTES_MAX, &text, &len, &why) == 0)
		return add(g, file, given_hash(text, len), err);
	return why.kind == ERR_NOT_FOUND ? 0 : err_copy(err, &why);
}

int given_marks_take(int dir_fd, struct given_marks *g, struct err *err)
{
	cleanup_dir DIR *dir = NULL;
	struct dirent *d;
	int rc = 0;

	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir && fd >= 0)
		close(fd);
	if (!dir)
		return err_set(err, ERR_IO, errno, "list the marks of an archive");
	while (rc == 0 && (d = readdir(dir)))
		rc = take_note(dir_fd, d->d_name, g, err);
	return rc;
}

bool given_marks_has(const struct given_marks *g, const struct given_mark *m)
{
	for (size_t i = 0; i < g->n; i++)
		if (g->e[i].hash == m->hash && strcmp(g->e[i].file, m->file) == 0)
			return true;
	return false;
}

uint64_t given_marks_hash(const struct given_marks *g)
{
	uint64_t sum = g->n;

	for (size_t i = 0; i < g->n; i++)
		sum += hash64(g->e[i].file, strlen(g->e[i].file), g->e[i].hash);
	return sum;
}
