/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/memory.h"

#include "engine/base/file.h"
#include "tests/lib/synth.h"

#include <fcntl.h>

struct memory_source {
	struct source base;
	const uint8_t *data;
	size_t len;
};

static int memory_pread(struct source *s, void *buf, size_t len, uint64_t offset, struct err *err)
{
	struct memory_source *m = (struct memory_source *)s;

	if (offset > m->len || len > m->len - offset)
		return err_set(err, ERR_DAMAGED, 0, "'%s' ends at %zu", s->name, m->len);
	if (len)
		memcpy(buf, m->data + offset, len);
	return 0;
}

static int memory_size(struct source *s, uint64_t *ret_bytes, struct err *err)
{
	*ret_bytes = ((struct memory_source *)s)->len;
	return 0;
}

static void memory_free(struct source *s)
{
	free(s->name);
	free(s);
}

struct source *memory_source(const char *name, const void *data, size_t len)
{
	struct memory_source *m = calloc(1, sizeof(*m));

	if (!m)
		synth_die("no memory");
	m->base = (struct source){.pread = memory_pread,
	                          .size = memory_size,
	                          .free = memory_free,
	                          .name = strdup(name)};
	m->data = data;
	m->len = len;
	return &m->base;
}

uint8_t *read_whole(int dir_fd, const char *name, size_t *ret_len)
{
	char *data;
	struct err err = ERR_INIT;

	synth_must(file_get(dir_fd, name, SIZE_MAX / 2, &data, ret_len, &err), &err, name);
	return (uint8_t *)data;
}

void write_whole(int dir_fd, const char *name, const void *data, size_t len)
{
	cleanup_fd int fd = -1;
	struct err err = ERR_INIT;

	synth_must(file_open(dir_fd, name, O_WRONLY | O_CREAT | O_TRUNC, 0600, &fd, &err), &err,
	           name);
	synth_must(file_pwrite(fd, data, len, 0, name, &err), &err, name);
}

uint8_t *output_of(const char *command, size_t *ret_len)
{
	struct buf b = BUF_INIT(SIZE_MAX / 2);
	FILE *f = popen(command, "re");
	char part[65536];
	size_t n;

	while (f && (n = fread(part, 1, sizeof(part), f)) > 0)
		if (buf_append(&b, part, n, NULL) < 0)
			synth_die("no memory");
	if (!f || pclose(f) != 0)
		synth_die("failed: %s", command);
	*ret_len = b.len;
	return b.data;
}
