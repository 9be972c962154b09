/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/view/check.h"

#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/gz/gunzip.h"
#include "engine/sqlite/format.h"
#include "engine/view/history_i.h"

#include <fcntl.h>
#include <inttypes.h>

#define PIECE_BYTES 65536u
/* With more damaged pieces than this, asking which pages they held is no longer worth it. */
#define PIECES_MAX 256u

struct checker {
	struct object *object;
	struct object_check *ret;
	object_check_fn *fn;
	void *ctx;
	uint64_t size; /* of the content */
	uint32_t max_pgno;
	unsigned n_damaged;
};

const char *history_object_folder(const struct history_object *o)
{
	return o->type == HISTORY_SNAPSHOT    ? "snapshot"
	       : o->type == HISTORY_COALESCED ? "coalesced"
	                                      : "segment";
}

/* Whether `rc` ends the check: damage does not, it is taken down. */
static bool ends(struct object_check *c, int rc, const struct err *why, bool index)
{
	if (rc == 0)
		return false;
	if (why->kind != ERR_DAMAGED)
		return true;
	if (!c->first.kind)
		c->first = *why;
	c->whole = c->whole || index;
	return false;
}

static int add_snapshot_pages(struct checker *k, uint64_t offset, size_t len, struct err *err)
{
	uint32_t page_size = snapshot_get_info(k->object->snapshot)->page_size;
	int rc = 0;

	for (uint64_t p = offset / page_size; p * page_size < offset + len && rc == 0; p++)
		rc = bitset_add(&k->ret->pages, p + 1, err);
	return rc;
}

static int add_frame_pages(struct checker *k, uint64_t offset, size_t len, struct err *err)
{
	uint64_t size = wal_frame_size(object_page_size(k->object));
	uint64_t end = offset + len, first, last;

	if (end <= WAL_HEADER_SIZE)
		return 0;
	first = offset <= WAL_HEADER_SIZE ? 0 : (offset - WAL_HEADER_SIZE) / size;
	last = (end - WAL_HEADER_SIZE + size - 1) / size;
	struct err why = ERR_INIT;
	/* Frames count from 1: those of the piece are first < f <= last. */
	int rc = object_add_pages(k->object, first, last, k->max_pgno, &k->ret->pages, &why);
	return ends(k->ret, rc, &why, true) ? err_copy(err, &why) : 0;
}

static int damaged_piece(struct checker *k, uint64_t offset, size_t len, struct err *err)
{
	if (++k->n_damaged > PIECES_MAX)
		k->ret->whole = true;
	if (k->ret->whole)
		return 0;
	return k->object->snapshot ? add_snapshot_pages(k, offset, len, err)
	                           : add_frame_pages(k, offset, len, err);
}

static int read_piece(struct checker *k, uint64_t offset, void *buf, size_t len, struct err *err)
{
	struct object *o = k->object;

	return o->snapshot ? pack_read(snapshot_pack(o->snapshot), offset, buf, len, err)
	                   : object_read(o, offset, buf, len, err);
}

/* A damaged piece is read again in smaller ones: the blocks in it that are whole stay so. */
static int read_damaged(struct checker *k, uint64_t offset, uint8_t *buf, size_t len,
                        struct err *err)
{
	size_t step = k->object->snapshot ? pack_block_size(snapshot_pack(k->object->snapshot))
	              : k->object->sealed ? SEALED_BLOCK_BYTES
	                                  : 4096;

	for (size_t at = 0; at < len;) {
		struct err why = ERR_INIT;
		size_t n = len - at < step ? len - at : step;
		int rc = read_piece(k, offset + at, buf, n, &why);
		if (ends(k->ret, rc, &why, false))
			return err_copy(err, &why);
		if (rc && (rc = damaged_piece(k, offset + at, n, err)) < 0)
			return rc;
		at += n;
	}
	return 0;
}

static int check_content(struct checker *k, struct err *err)
{
	uint8_t buf[PIECE_BYTES];

	for (uint64_t offset = 0; offset < k->size;) {
		struct err why = ERR_INIT;
		size_t len =
		        k->size - offset < PIECE_BYTES ? (size_t)(k->size - offset) : PIECE_BYTES;
		int rc = read_piece(k, offset, buf, len, &why);
		if (ends(k->ret, rc, &why, false))
			return err_copy(err, &why);
		if (rc && (rc = read_damaged(k, offset, buf, len, err)) < 0)
			return rc;
		offset += len;
		rc = k->fn ? k->fn(k->ctx, offset, k->size, err) : 0;
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* Commits and page index: each leaf is read when its first entry is asked for. */
static int check_index(struct checker *k, struct err *err)
{
	struct sealed *s = k->object->sealed;
	struct err why = ERR_INIT;
	struct pack *p = s                     ? sealed_pack(s)
	                 : k->object->snapshot ? snapshot_pack(k->object->snapshot)
	                                       : NULL;
	int rc = p ? pack_check_header(p, &why) : 0;

	for (uint64_t i = 0; s && i < sealed_n_commits(s) && rc == 0; i++) {
		struct commit c;
		rc = sealed_get_commit(s, i, &c, &why);
		if (rc == 0 && c.n_pages > k->max_pgno)
			k->max_pgno = c.n_pages;
	}
	for (uint64_t i = 0; s && i < sealed_get_info(s)->n_frames && rc == 0; i++) {
		struct frame_entry e;
		rc = sealed_get_entry(s, i, &e, &why);
		if (rc == 0 && e.pgno > k->max_pgno)
			k->max_pgno = e.pgno;
	}
	return ends(k->ret, rc, &why, true) ? err_copy(err, &why) : 0;
}

/* The line that the table must have for a commit (archive/sealed.h, FORMAT.md). */
static int table_line(struct sealed *s, uint64_t i, char out[128], size_t *ret_len, struct err *err)
{
	char when[TIME_STR_MAX];
	struct commit c;

	int rc = sealed_get_commit(s, i, &c, err);
	if (rc < 0)
		return rc;
	time_format(c.time_us, when);
	*ret_len =
	        (size_t)snprintf(out, 128, "%" PRIu64 " %s %" PRIu64 "%s\n", c.txid, when,
	                         wal_frame_offset(c.last_frame + 1, sealed_get_info(s)->page_size),
	                         c.flags & COMMIT_UNSETTLED ? " unsettled" : "");
	return 0;
}

int history_check_table(struct sealed *s, struct gunzip *g, const char *path, struct err *err)
{
	char want[128], got[128];
	size_t len, n;
	int rc = 0;

	for (uint64_t i = 0; i < sealed_n_commits(s) && rc == 0; i++) {
		rc = table_line(s, i, want, &len, err);
		rc = rc ? rc : gunzip_read(g, got, len, &n, err);
		if (rc == 0 && (n != len || memcmp(want, got, len) != 0))
			rc = err_set(err, ERR_DAMAGED, 0,
			             "'%s' is damaged: it does not tell what the segment holds",
			             path);
	}
	rc = rc ? rc : gunzip_read(g, got, 1, &n, err);
	if (rc == 0 && n)
		rc = err_set(err, ERR_DAMAGED, 0, "'%s' is damaged: it goes on behind its end",
		             path);
	return rc;
}

static int compare_file(struct history *h, const struct history_object *o, struct sealed *s,
                        const char *name, struct err *err)
{
	cleanup_gunzip struct gunzip *g = NULL;
	cleanup_fd int fd = -1;

	int rc = file_open(h->segment_fd, name, O_RDONLY, 0, &fd, err);
	/* Both go when the segment is joined; one alone does not. */
	if (err_kind_of(rc) == ERR_NOT_FOUND && faccessat(h->segment_fd, o->file, F_OK, 0) == 0)
		return err_set(err, ERR_DAMAGED, 0, "'%s' is missing", name);
	if (rc < 0)
		return err_kind_of(rc) == ERR_NOT_FOUND ? 0 : rc;
	rc = gunzip_new_fd(fd, name, &g, err);
	return rc ? rc : history_check_table(s, g, name, err);
}

static int read_buf(void *ctx, void *buf, size_t len, size_t *ret_len, struct err *err)
{
	struct cursor *c = ctx;
	size_t n = cursor_left(c) < len ? cursor_left(c) : len;

	memcpy(buf, cursor_take(c, n), n);
	*ret_len = n;
	return 0;
}

/* A bucket need not have it. */
static int compare_note(struct history *h, struct sealed *s, const char *name, struct err *err)
{
	cleanup_gunzip struct gunzip *g = NULL;
	cleanup_free char *text = NULL;
	char file[OBJECT_NAME_MAX + 16];
	size_t len;

	snprintf(file, sizeof(file), "segment/%s", name);
	int rc = place_note(h, file, &text, &len, err);
	if (rc < 0)
		return err_kind_of(rc) == ERR_NOT_FOUND ? 0 : rc;
	struct cursor c = cursor_init((const uint8_t *)text, len);
	rc = gunzip_new(read_buf, &c, name, &g, err);
	return rc ? rc : history_check_table(s, g, name, err);
}

/* The text beside a sealed segment, for people who get their data back by hand.  No moment is lost
 * with it. */
static int check_table(struct history *h, const struct history_object *o, struct checker *k,
                       struct err *err)
{
	char name[sizeof(o->file)];
	struct err why = ERR_INIT;
	size_t base = strlen(o->file) - strlen(".wal.gz");

	if (o->type != HISTORY_SEGMENT || !k->object->sealed || k->ret->first.kind)
		return 0;
	snprintf(name, sizeof(name), "%.*s.commits.gz", (int)base, o->file);
	int rc = h->in_bucket ? compare_note(h, k->object->sealed, name, &why)
	                      : compare_file(h, o, k->object->sealed, name, &why);
	return ends(k->ret, rc, &why, false) ? err_copy(err, &why) : 0;
}

/* A growing segment's records were verified when it was opened. */
static void measure(struct checker *k)
{
	struct object *o = k->object;
	struct commit c;

	if (o->snapshot) {
		k->size = pack_size(snapshot_pack(o->snapshot));
		return;
	}
	if (o->sealed) {
		k->size = pack_size(sealed_pack(o->sealed));
		return;
	}
	for (uint64_t i = 0; grow_get_commit(o->grow, i, &c); i++) {
		k->size = wal_frame_offset(c.last_frame + 1, object_page_size(o));
		if (c.n_pages > k->max_pgno)
			k->max_pgno = c.n_pages;
	}
}

static int open_object(struct history *h, const struct history_object *o, struct object **ret,
                       bool *ret_broken, struct err *err)
{
	struct entries *es = o->type == HISTORY_SNAPSHOT    ? &h->snapshots
	                     : o->type == HISTORY_COALESCED ? &h->coalesced
	                                                    : &h->segments;
	LOCK_SCOPE(&h->lock);

	for (size_t i = 0; i < es->n; i++) {
		if (strcmp(es->e[i].file, o->file) != 0)
			continue;
		int rc = catalog_open(h, es, &es->e[i], ret, err);
		*ret_broken = rc == 0 && es->e[i].broken;
		return *ret_broken ? resolve_broken(&es->e[i], err) : rc;
	}
	return err_set(err, ERR_NOT_FOUND, ENOENT, "'%s' is gone", o->file);
}

int history_check_object(struct history *h, const struct history_object *o, object_check_fn *fn,
                         void *ctx, struct object_check *ret, struct err *err)
{
	cleanup_object struct object *object = NULL;
	struct err why = ERR_INIT;
	bool broken = false;

	*ret = (struct object_check){0};
	int rc = open_object(h, o, &object, &broken, &why);
	if (ends(ret, rc, &why, true))
		return err_copy(err, &why);
	if (!object)
		return 0;
	struct checker k = {.object = object, .ret = ret, .fn = fn, .ctx = ctx};
	measure(&k);
	rc = check_index(&k, err);
	rc = rc ? rc : check_content(&k, err);
	return rc ? rc : check_table(h, o, &k, err);
}

void object_check_release(struct object_check *c)
{
	bitset_release(&c->pages);
}

int history_get_verified(struct history *h, struct verified_note *ret, struct err *err)
{
	cleanup_free char *text = NULL;
	size_t len;

	if (!h->in_bucket)
		return verified_note_get(h->dir_fd, ret, err);
	int rc = place_note(h, "verified", &text, &len, err);
	return rc < 0 ? rc : verified_note_parse(text, len, ret, err);
}
