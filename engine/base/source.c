/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/source.h"

#include "engine/base/file.h"

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

int source_open_file(int dir_fd, const char *path, const char *label, struct source **ret,
                     struct err *err)
{
	cleanup_fd int fd = -1;

	int rc = file_open(dir_fd, path, O_RDONLY, 0, &fd, err);
	if (rc < 0)
		return rc;
	struct file_source *f = calloc(1, sizeof(*f));
	char *name = strdup(label ? label : path);
	if (!f || !name) {
		free(f);
		free(name);
		return err_set(err, ERR_NOMEM, 0, "no memory to open '%s'", path);
	}
	f->base = (struct source){file_source_pread, file_source_size, file_source_free, name};
	f->fd = take_fd(&fd);
	*ret = &f->base;
	return 0;
}

void source_free(struct source *s)
{
	if (s)
		s->free(s);
}
