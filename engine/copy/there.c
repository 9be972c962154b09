/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The second archive can have the same transactions in segments that were cut otherwise: copied from
 * the archive while its segment grew, and now from its destination, where the commits of each
 * minute are an object; or sealed there since.  Readers and those who seal take a growing segment
 * that begins within a sealed one for a part of it.  So where one of the first archive's begins within one
 * there and reaches beyond it, what is there goes as soon as all of it is in the others.
 */
#include "engine/archive/names.h"
#include "engine/copy/copy_i.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct copy_segment {
	char file[OBJECT_NAME_MAX];
	struct object_name name; /* last_txid of growing ones, too; 0: it holds nothing */
	bool done;
};

static int add(struct copy_there *t, int fd, const char *file, struct err *err)
{
	struct copy_segment s = {.done = false};
	struct copy_extent extent;

	if (strlen(file) >= sizeof(s.file) || !object_name_parse(file, &s.name) ||
	    (s.name.type != OBJECT_SEALED && s.name.type != OBJECT_GROWING))
		return 0;
	if (s.name.type == OBJECT_GROWING) {
		if (copy_extent_there(fd, file, &extent, NULL) < 0)
			return 0; /* readers know no more of it */
		s.name.last_txid = extent.last_txid;
	}
	snprintf(s.file, sizeof(s.file), "%s", file);
	struct copy_segment *p = realloc(t->e, (t->n + 1) * sizeof(*p));
	if (!p)
		return err_set(err, ERR_NOMEM, 0, "no memory to list an archive");
	t->e = p;
	p[t->n++] = s;
	return 0;
}

int copy_list_there(int segment_fd, struct copy_there *ret, struct err *err)
{
	cleanup_dir DIR *dir = NULL;
	struct dirent *d;
	int rc = 0;

	copy_there_release(ret);
	int fd = openat(segment_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir)
		return err_set(err, ERR_IO, errno, "list the segments of the copy");
	while (rc == 0 && (d = readdir(dir)))
		rc = add(ret, segment_fd, d->d_name, err);
	return rc;
}

int copy_refuse_writer(const struct copying *c, const char *name, const char *file, struct err *err)
{
	return err_set(err, ERR_REFUSED, 0,
	               "'%.200s' is written for '%s' by another asof, as its '%s' says (copy to a "
	               "place that nobody writes to)",
	               c->options->to, name, file);
}

int copy_check_writer(const struct copying *c, int to_fd, const char *name, struct err *err)
{
	cleanup_dir DIR *dir = NULL;
	struct dirent *d;
	int rc = 0;

	int fd = openat(to_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir)
		return err_set(err, ERR_IO, errno, "list the copy of '%s'", name);
	while (rc == 0 && (d = readdir(dir)))
		if (copy_is_writer(d->d_name))
			rc = copy_refuse_writer(c, name, d->d_name, err);
	return rc;
}

void copy_there_release(struct copy_there *t)
{
	free(t->e);
	*t = (struct copy_there){.n = 0};
}

bool copy_holds_all(const struct copy_there *t, const struct history_object *o)
{
	for (size_t i = 0; i < t->n; i++) {
		const struct object_name *n = &t->e[i].name;
		if (n->type == OBJECT_SEALED && !t->e[i].done && n->lineage == o->lineage &&
		    n->first_txid <= o->first_txid && n->last_txid >= o->last_txid)
			return true;
	}
	return false;
}

const struct object_name *copy_next_straddled(struct copy_there *t, const struct history_object *o)
{
	for (size_t k = 0; k < t->n; k++) {
		struct copy_segment *s = &t->e[k];
		if (s->done || s->name.lineage != o->lineage || strcmp(s->file, o->file) == 0 ||
		    s->name.first_txid > o->first_txid || s->name.last_txid < o->first_txid ||
		    s->name.last_txid >= o->last_txid)
			continue;
		s->done = true;
		return &s->name;
	}
	return NULL;
}
