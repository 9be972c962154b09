/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The archive joins segments when it likes.  Where the store has the first of the parts already, what
 * it lacks is sent as a segment of its own, and not the whole once more.
 */
#include "engine/archive/sealed.h"
#include "engine/base/file.h"
#include "engine/ship/ship_i.h"

#include <fcntl.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define SCRATCH "shipping" /* a folder beside those of the history */
#define LEVEL 6            /* of deflate */

static int copy_frame(void *ctx, const struct replay_frame *f, struct err *err)
{
	struct sealed_writer *w = ctx;

	int rc = sealed_frame(w, f->pgno, f->commit ? f->commit->n_pages : 0, f->page, err);
	return rc == 0 && f->commit ? sealed_commit(w, f->commit, err) : rc;
}

static int make(struct shipper *s, const struct history_object *o, uint64_t first_txid, int dir,
                struct object_name *ret, uint64_t *ret_bytes, struct err *err)
{
	cleanup_sealed_writer struct sealed_writer *w = NULL;
	struct sealed_options so = {.kind = SEALED_SEGMENT,
	                            .lineage = o->lineage,
	                            .first_txid = first_txid,
	                            .level = LEVEL};
	uint32_t salts[2];
	uint64_t frames;

	if (getrandom(salts, sizeof(salts), 0) != (ssize_t)sizeof(salts))
		return err_set(err, ERR_IO, errno, "get random bytes");
	so.salt1 = salts[0];
	so.salt2 = salts[1];
	int rc = history_object_frames(s->history, o, &frames, &so.page_size, &so.pos, err);
	if (rc == 0)
		rc = sealed_create(dir, &so, &w, err);
	if (rc == 0)
		rc = history_replay(s->history, first_txid - 1, o->last_txid, copy_frame, w, err);
	return rc < 0 ? rc : sealed_finish(w, ret, ret_bytes, err);
}

static int put(struct shipper *s, int dir, const struct object_name *n, uint64_t *ret_bytes,
               struct err *err)
{
	cleanup_source struct source *src = NULL;
	char name[OBJECT_NAME_MAX], file[OBJECT_NAME_MAX + 16];

	object_name_format(n, name);
	snprintf(file, sizeof(file), "segment/%s", name);
	int rc = source_open_file(dir, name, NULL, &src, err);
	if (rc == 0)
		rc = src->size(src, ret_bytes, err);
	if (rc == 0)
		rc = ship_put(s, file, src, *ret_bytes, 0, err);
	if (rc == 0)
		rc = contents_add_name(&s->has, file, *ret_bytes, err);
	unlinkat(dir, name, 0);
	return rc;
}

int ship_remainder(struct shipper *s, const struct history_object *o, uint64_t first_txid,
                   struct err *err)
{
	cleanup_fd int dir = -1;
	struct object_name n, table;
	uint64_t bytes, table_bytes;

	int rc = file_open_dir(s->dir_fd, SCRATCH, true, &dir, err);
	if (rc == 0)
		rc = make(s, o, first_txid, dir, &n, &bytes, err);
	if (rc == 0) {
		table = n;
		table.type = OBJECT_COMMITS;
		rc = put(s, dir, &table, &table_bytes, err);
	}
	if (rc == 0)
		rc = put(s, dir, &n, &bytes, err);
	if (dir >= 0)
		unlinkat(s->dir_fd, SCRATCH, AT_REMOVEDIR);
	if (rc < 0)
		return rc;
	pthread_mutex_lock(&s->lock);
	s->status.object_bytes += bytes + table_bytes;
	s->status.objects_put += 2;
	pthread_mutex_unlock(&s->lock);
	s->has.fine_bytes += bytes;
	return contents_add_sealed(&s->has, &n, err);
}
