/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/source.h"

#include "engine/base/file.h"
#include "engine/base/log.h"

#include <fcntl.h>
#include <string.h>

struct file_source {
	struct source base;
	int fd;
};

static int file_source_pread(struct source *s, void *buf, size_t len, uint64_t offset,
                             struct err *err)
{
	return file_pread(((struct file_source *)s)->fd, buf, len, offset, s->name, err);
}

static int file_source_size(struct source *s, uint64_t *ret_bytes, struct err *err)
{
	return file_size(((struct file_source *)s)->fd, ret_bytes, s->name, err);
}

static void file_source_free(struct source *s)
{
	close(((struct file_source *)s)->fd);
	free(s->name);
	free(s);
}

int source_open_fd(int fd, const char *label, struct source **ret, struct err *err)
{
	struct file_source *f = calloc(1, sizeof(*f));
	char *name = strdup(label);

	if (!f || !name) {
		close(fd);
		free(f);
		free(name);
		return err_set(err, ERR_NOMEM, 0, "no memory to open '%s'", label);
	}
	f->base = (struct source){.pread = file_source_pread,
	                          .size = file_source_size,
	                          .free = file_source_free,
	                          .name = name};
	f->fd = fd;
	*ret = &f->base;
	return 0;
}

int source_open_file(int dir_fd, const char *path, const char *label, struct source **ret,
                     struct err *err)
{
	int fd;

	int rc = file_open(dir_fd, path, O_RDONLY, 0, &fd, err);
	return rc < 0 ? rc : source_open_fd(fd, label ? label : path, ret, err);
}

struct bytes_source {
	struct source base;
	const uint8_t *p;
	size_t len;
};

static int bytes_source_pread(struct source *s, void *buf, size_t len, uint64_t offset,
                              struct err *err)
{
	const struct bytes_source *b = (const struct bytes_source *)s;

	if (offset > b->len || len > b->len - offset)
		return err_set(err, ERR_DAMAGED, 0, "'%s' ends at %zu, before byte %llu", s->name,
		               b->len, (unsigned long long)(offset + len));
	if (len)
		memcpy(buf, b->p + offset, len);
	return 0;
}

static int bytes_source_size(struct source *s, uint64_t *ret_bytes, struct err *err)
{
	*ret_bytes = ((const struct bytes_source *)s)->len;
	return 0;
}

static void bytes_source_free(struct source *s)
{
	free(s->name);
	free(s);
}

int source_open_bytes(const void *p, size_t len, const char *label, struct source **ret,
                      struct err *err)
{
	struct bytes_source *b = calloc(1, sizeof(*b));
	char *name = strdup(label);

	if (!b || !name) {
		free(b);
		free(name);
		return err_set(err, ERR_NOMEM, 0, "no memory to open '%s'", label);
	}
	b->base = (struct source){.pread = bytes_source_pread,
	                          .size = bytes_source_size,
	                          .free = bytes_source_free,
	                          .name = name};
	b->p = p;
	b->len = len;
	*ret = &b->base;
	return 0;
}

int source_read_checked(struct source *s, void *buf, size_t len, uint64_t offset,
                        source_check_fn *check, void *ctx, struct err *err)
{
	struct err first = ERR_INIT;

	int rc = s->pread(s, buf, len, offset, &first);
	rc = rc ? rc : check(ctx, buf, len, &first);
	for (unsigned attempt = 1; rc < 0 && s->pread_again; attempt++) {
		struct err why = ERR_INIT;
		int again = s->pread_again(s, attempt, buf, len, offset, &why);
		if (again == 0 && check(ctx, buf, len, &why) == 0) {
			log_warn("source", "read from elsewhere: %s", first.msg);
			return 0;
		}
		if (why.kind == ERR_REFUSED || why.kind == ERR_CANCELLED)
			break;
	}
	return rc < 0 ? err_copy(err, &first) : 0;
}

void source_expect(struct source *s, enum source_use use)
{
	if (s->expect)
		s->expect(s, use);
}

void source_expect_bytes(struct source *s, uint64_t offset, size_t len)
{
	if (s->expect_bytes)
		s->expect_bytes(s, offset, len);
}

void source_free(struct source *s)
{
	if (s)
		s->free(s);
}
