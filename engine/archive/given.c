/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/archive/given.h"

#include "engine/archive/notes.h"
#include "engine/base/array.h"
#include "engine/base/clock.h"
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
#define UNMARKED_HEAD "asof-unmarked 1\n"
#define UNMARKED_MAX 1000u /* then the oldest go */

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

size_t given_marks_find(const struct given_marks *g, const char *file)
{
	for (size_t i = 0; i < g->n; i++)
		if (strcmp(g->e[i].file, file) == 0)
			return i;
	return SIZE_MAX;
}

int given_marks_set(struct given_marks *g, const char *file, uint64_t hash, struct err *err)
{
	size_t i = given_marks_find(g, file);

	if (i != SIZE_MAX) {
		g->changed = g->changed || g->e[i].hash != hash;
		g->e[i].hash = hash;
		return 0;
	}
	int rc = array_room(g->e, g->n, g->cap, "a list of marks", err);
	if (rc < 0)
		return rc;
	struct given_mark *m = &g->e[g->n++];
	snprintf(m->file, sizeof(m->file), "%s", file);
	m->hash = hash;
	g->changed = true;
	return 0;
}

/* "0123456789abcdef NAME.mark" */
static bool parse_mark(const char *line, uint64_t *ret_hash, const char **ret_file)
{
	char name[DB_NAME_MAX + 1], *end;

	*ret_hash = strtoull(line, &end, 16);
	*ret_file = end + 1;
	return end == line + 16 && *end == ' ' && mark_file_parse(end + 1, name);
}

/* What looks otherwise is passed over. */
static int take_line(struct given_marks *g, const char *line, struct err *err)
{
	const char *file;
	uint64_t hash;

	if (strcmp(line, "denied") == 0)
		g->denied = true;
	if (strncmp(line, "seen ", 5) == 0)
		g->seen_us = strtoll(line + 5, NULL, 10);
	return parse_mark(line, &hash, &file) ? given_marks_set(g, file, hash, err) : 0;
}

int given_marks_parse(char *text, struct given_marks *ret, struct err *err)
{
	char *save = NULL;
	int rc = 0;

	*ret = (struct given_marks){0};
	if (strncmp(text, HEAD, sizeof(HEAD) - 1) != 0)
		return 0;
	for (char *line = strtok_r(text, "\n", &save); line && rc == 0;
	     line = strtok_r(NULL, "\n", &save))
		rc = take_line(ret, line, err);
	ret->changed = false;
	return rc;
}

int given_marks_format(const struct given_marks *g, struct buf *ret, struct err *err)
{
	int rc = buf_printf(ret, err, HEAD "%s", g->denied ? "denied\n" : "");

	if (rc == 0 && g->seen_us)
		rc = buf_printf(ret, err, "seen %" PRId64 "\n", g->seen_us);
	for (size_t i = 0; i < g->n && rc == 0; i++)
		rc = buf_printf(ret, err, "%016" PRIx64 " %s\n", g->e[i].hash, g->e[i].file);
	return rc;
}

/* ---- what was taken away ---- */

/* *ret: what `unmarked` has behind its first line; "": nothing. */
static int read_unmarked(int dir_fd, char **ret, struct err *err)
{
	struct err why = ERR_INIT;
	size_t len, head = sizeof(UNMARKED_HEAD) - 1;

	*ret = NULL;
	int rc = file_get(dir_fd, GIVEN_UNMARKED, FILE_BYTES_MAX, ret, &len, &why);
	if (rc < 0 && why.kind != ERR_NOT_FOUND)
		return err_copy(err, &why);
	if (rc == 0 && strncmp(*ret, UNMARKED_HEAD, head) == 0) {
		memmove(*ret, *ret + head, len - head + 1);
		return 0;
	}
	free(*ret);
	*ret = calloc(1, 1);
	return *ret ? 0 : err_set(err, ERR_NOMEM, 0, "no memory for a list of marks");
}

/* What the list has already is what was given, whatever was taken away under that name before. */
static int take_unmarked(int dir_fd, struct given_marks *g, struct err *err)
{
	cleanup_free char *text = NULL;
	int64_t seen_us = g->seen_us;
	char *save = NULL;

	int rc = read_unmarked(dir_fd, &text, err);
	for (char *line = rc < 0 ? NULL : strtok_r(text, "\n", &save); line && rc == 0;
	     line = strtok_r(NULL, "\n", &save)) {
		const char *file;
		uint64_t hash;
		char *end;
		int64_t at_us = strtoll(line, &end, 10);
		if (at_us <= seen_us || *end != ' ' || !parse_mark(end + 1, &hash, &file))
			continue;
		if (given_marks_find(g, file) == SIZE_MAX)
			rc = given_marks_set(g, file, hash, err);
		g->seen_us = at_us > g->seen_us ? at_us : g->seen_us;
		g->changed = true;
	}
	return rc;
}

/* The times rise, whatever the clock does: who has seen one has seen those before it. */
int given_note_removal(int dir_fd, const char *file, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT(FILE_BYTES_MAX);
	cleanup_free char *note = NULL, *text = NULL;
	int64_t now_us = clock_now_us();
	struct err why = ERR_INIT;
	size_t len, n = 0;
	char *from;

	int rc = file_get(dir_fd, file, NOTE_BYTES_MAX, &note, &len, &why);
	if (rc < 0)
		return why.kind == ERR_NOT_FOUND ? 0 : err_copy(err, &why);
	rc = read_unmarked(dir_fd, &text, err);
	if (rc < 0)
		return rc;
	from = text;
	for (char *p = text, *end; (end = strchr(p, '\n')); p = end + 1) {
		int64_t at_us = strtoll(p, NULL, 10);
		now_us = now_us > at_us ? now_us : at_us + 1;
		if (++n >= UNMARKED_MAX)
			from = strchr(from, '\n') + 1;
	}
	rc = buf_printf(&b, err, UNMARKED_HEAD "%s%" PRId64 " %016" PRIx64 " %s\n", from, now_us,
	                given_hash(note, len), file);
	return rc < 0 ? rc : file_put(dir_fd, GIVEN_UNMARKED, b.data, b.len, err);
}

/* ---- files ---- */

int given_marks_get(int dir_fd, const char *place, struct given_marks *ret, struct err *err)
{
	cleanup_free char *text = NULL;
	struct err why = ERR_INIT;
	char file[40];
	size_t len;

	*ret = (struct given_marks){0};
	file_name(place, file);
	int rc = file_get(dir_fd, file, FILE_BYTES_MAX, &text, &len, &why);
	if (rc < 0 && why.kind != ERR_NOT_FOUND)
		return err_copy(err, &why);
	rc = rc < 0 ? 0 : given_marks_parse(text, ret, err);
	return rc < 0 ? rc : take_unmarked(dir_fd, ret, err);
}

int given_marks_put(int dir_fd, const char *place, struct given_marks *g, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT(FILE_BYTES_MAX);
	char file[40];

	if (!g->changed)
		return 0;
	file_name(place, file);
	int rc = given_marks_format(g, &b, err);
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
		return given_marks_set(g, file, given_hash(text, len), err);
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
	size_t i = given_marks_find(g, m->file);

	return i != SIZE_MAX && g->e[i].hash == m->hash;
}

uint64_t given_marks_hash(const struct given_marks *g)
{
	uint64_t sum = g->n;

	for (size_t i = 0; i < g->n; i++)
		sum += hash64(g->e[i].file, strlen(g->e[i].file), g->e[i].hash);
	return sum;
}
