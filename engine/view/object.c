/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/view/history_i.h"

struct object *object_ref(struct object *o)
{
	o->refs++;
	return o;
}

void object_unref(struct object *o)
{
	if (!o || --o->refs > 0)
		return;
	grow_free(o->grow);
	sealed_free(o->sealed);
	snapshot_free(o->snapshot);
	free(o);
}

uint64_t object_n_commits(struct object *o)
{
	return o->grow ? grow_n_commits(o->grow) : sealed_n_commits(o->sealed);
}

int object_commit(struct object *o, uint64_t i, struct commit *ret, struct err *err)
{
	if (o->sealed)
		return sealed_get_commit(o->sealed, i, ret, err);
	if (!grow_get_commit(o->grow, i, ret))
		return err_set(err, ERR_NOT_FOUND, 0, "'%s' has no such commit",
		               grow_name(o->grow));
	return 0;
}

int object_commits_until(struct object *o, int64_t time_us, uint64_t *ret, struct err *err)
{
	if (o->sealed)
		return sealed_commits_until(o->sealed, time_us, ret, err);
	*ret = grow_commits_until(o->grow, time_us);
	return 0;
}

int object_find_frame(struct object *o, uint32_t pgno, uint64_t max_frame, uint64_t *ret,
                      struct err *err)
{
	if (o->sealed)
		return sealed_find_frame(o->sealed, pgno, max_frame, ret, err);
	*ret = grow_find_frame(o->grow, pgno, max_frame);
	return 0;
}

int object_read(struct object *o, uint64_t offset, void *buf, size_t len, struct err *err)
{
	return o->sealed ? sealed_read_content(o->sealed, offset, buf, len, err)
	                 : grow_read_content(o->grow, offset, buf, len, err);
}

/* A growing segment has no index in order to walk through. */
static int add_grow_pages(struct grow_reader *r, uint64_t min_frame, uint64_t max_frame,
                          uint32_t max_pgno, struct bitset *pages, struct err *err)
{
	int rc = 0;

	if (min_frame == 0)
		return grow_add_pages(r, max_frame, max_pgno, pages, err);
	for (uint64_t p = 1; p <= max_pgno && rc == 0; p++)
		if (grow_find_frame(r, (uint32_t)p, max_frame) > min_frame)
			rc = bitset_add(pages, p, err);
	return rc;
}

int object_add_pages(struct object *o, uint64_t min_frame, uint64_t max_frame, uint32_t max_pgno,
                     struct bitset *pages, struct err *err)
{
	if (o->grow)
		return add_grow_pages(o->grow, min_frame, max_frame, max_pgno, pages, err);
	for (uint64_t i = 0; i < sealed_get_info(o->sealed)->n_frames; i++) {
		struct frame_entry e;
		int rc = sealed_get_entry(o->sealed, i, &e, err);
		if (rc == 0 && e.frame > min_frame && e.frame <= max_frame && e.pgno <= max_pgno)
			rc = bitset_add(pages, e.pgno, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

void object_expect(struct object *o, enum source_use use)
{
	if (o->grow)
		grow_expect(o->grow, use);
	else
		pack_expect(o->sealed ? sealed_pack(o->sealed) : snapshot_pack(o->snapshot), use);
}

uint32_t object_page_size(struct object *o)
{
	return o->sealed ? sealed_get_info(o->sealed)->page_size
	                 : grow_reader_info(o->grow)->page_size;
}

const char *object_label(struct object *o)
{
	return o->sealed ? sealed_name(o->sealed) : grow_name(o->grow);
}
