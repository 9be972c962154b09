/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/restore/overlay.h"

#include "engine/base/file.h"
#include "engine/sqlite/format.h"

#include <string.h>

#define READ_FRAMES 64u

struct overlay {
	int fd;
	char *path;
	uint32_t page_size;
	uint32_t n_pages, n_frames; /* of the last commit */
	uint32_t *frames;           /* of each page, from 1; 0: not in it */
};

/* Whether the chain goes on with this frame. */
static bool follows(const struct wal_header *head, struct wal_cksum *chain, const uint8_t *frame,
                    uint32_t page_size, struct wal_frame_header *ret)
{
	struct wal_cksum c = *chain;

	wal_frame_header_parse(frame, ret);
	if (ret->salt1 != head->salt1 || ret->salt2 != head->salt2 || ret->pgno == 0)
		return false;
	wal_cksum_add(&c, frame, 8, head->big_endian_cksum);
	wal_cksum_add(&c, frame + WAL_FRAME_HEADER_SIZE, page_size, head->big_endian_cksum);
	if (c.s0 != ret->cksum.s0 || c.s1 != ret->cksum.s1)
		return false;
	*chain = c;
	return true;
}

/* How far the chain goes, and the last commit in it. */
static int find_last_commit(struct overlay *o, const struct wal_header *head, struct err *err)
{
	size_t frame_size = (size_t)wal_frame_size(o->page_size), got;
	cleanup_free uint8_t *b = malloc(READ_FRAMES * frame_size);
	struct wal_cksum chain = head->cksum;
	struct wal_frame_header h;
	uint32_t frame = 0;

	if (!b)
		return err_set(err, ERR_NOMEM, 0, "no memory to read '%s'", o->path);
	do {
		int rc = file_pread_some(o->fd, b, READ_FRAMES * frame_size,
		                         wal_frame_offset((uint64_t)frame + 1, o->page_size), &got,
		                         o->path, err);
		if (rc)
			return rc;
		for (size_t i = 0; i + frame_size <= got; i += frame_size) {
			if (!follows(head, &chain, b + i, o->page_size, &h))
				return 0;
			frame++;
			if (h.n_truncate) {
				o->n_frames = frame;
				o->n_pages = h.n_truncate;
			}
		}
	} while (got == READ_FRAMES * frame_size);
	return 0;
}

/* The newest frame of each page, up to that commit. */
static int index_frames(struct overlay *o, struct err *err)
{
	uint8_t bytes[WAL_FRAME_HEADER_SIZE];
	struct wal_frame_header h;

	o->frames = calloc((size_t)o->n_pages + 1, sizeof(*o->frames));
	if (!o->frames)
		return err_set(err, ERR_NOMEM, 0, "no memory for the index of '%s'", o->path);
	for (uint32_t frame = 1; frame <= o->n_frames; frame++) {
		int rc = file_pread(o->fd, bytes, sizeof(bytes),
		                    wal_frame_offset(frame, o->page_size), o->path, err);
		if (rc)
			return rc;
		wal_frame_header_parse(bytes, &h);
		if (h.pgno <= o->n_pages) /* else it was cut off again */
			o->frames[h.pgno] = frame;
	}
	return 0;
}

int overlay_open(int wal_fd, const char *path, uint32_t page_size, uint64_t db_pages,
                 struct overlay **ret, struct err *err)
{
	cleanup_overlay struct overlay *o = calloc(1, sizeof(*o));
	uint8_t bytes[WAL_HEADER_SIZE];
	struct wal_header head;
	size_t got;

	*ret = NULL;
	if (!o || !(o->path = strdup(path)))
		return err_set(err, ERR_NOMEM, 0, "no memory to read '%s'", path);
	o->fd = wal_fd;
	o->page_size = page_size;
	int rc = file_pread_some(wal_fd, bytes, sizeof(bytes), 0, &got, path, err);
	if (rc)
		return rc;
	/* SQLite, too, takes a -wal with a header that does not hold for an empty one. */
	if (wal_header_parse(bytes, got, &head, NULL))
		return 0;
	if (head.page_size != page_size)
		return err_set(err, ERR_DAMAGED, 0,
		               "'%s' has pages of %u bytes, its database has %u", path,
		               head.page_size, page_size);
	rc = find_last_commit(o, &head, err);
	if (rc || o->n_pages == 0)
		return rc;
	/* All pages are in one of the two, but for the lock page: so memory has a bound, too.  (Earlier
	 * commits can tell of more: the file was cut when the last one was checkpointed.) */
	if (o->n_pages > db_pages + o->n_frames + 1)
		return err_set(err, ERR_DAMAGED, 0,
		               "'%s' tells of %u pages, more than it and its database have", path,
		               o->n_pages);
	rc = index_frames(o, err);
	if (!rc)
		*ret = take_ptr(o);
	return rc;
}

void overlay_free(struct overlay *o)
{
	if (!o)
		return;
	free(o->frames);
	free(o->path);
	free(o);
}

uint32_t overlay_pages(const struct overlay *o)
{
	return o->n_pages;
}

bool overlay_has(const struct overlay *o, uint32_t pgno)
{
	return pgno <= o->n_pages && o->frames[pgno] != 0;
}

int overlay_read(const struct overlay *o, uint32_t pgno, void *buf, struct err *err)
{
	return file_pread(o->fd, buf, o->page_size,
	                  wal_frame_offset(o->frames[pgno], o->page_size) + WAL_FRAME_HEADER_SIZE,
	                  o->path, err);
}
