/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A view: the newest snapshot at or before a txid, and over it a few objects, newest first,
 * that together hold every page changed since.
 *
 *   (1) The objects cover (snapshot's redo txid, txid] without a hole.  An object may reach
 *       below the snapshot: what it then says of older commits is older than or equal to what
 *       the snapshot says, and is found last for no page that was changed since.
 *   (2) Only the last object may reach beyond the txid; its frames behind the commit are not
 *       looked at.
 *   (3) A page is what the newest object that has it says.  An object that lacks a page which
 *       lies behind its smallest database size ends the search: the page was cut off and every
 *       page that comes back is written anew, so what is not found is the lock page or zero.
 */
#include "engine/view/history_i.h"
#include "engine/view/span.h"

#include "engine/base/bytes.h"
#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "engine/sqlite/format.h"

#include <inttypes.h>

#define LAYERS_MAX 4096u
#define READ_AHEAD_BLOCKS 16u

struct layer {
	struct object *object;
	uint64_t max_frame;
	uint32_t min_pages;
};

struct view {
	struct history *history;
	struct moment moment;
	struct object *base;
	struct layer *layers; /* newest first */
	size_t n_layers;
	_Atomic uint64_t next_offset; /* where a sequential reader would go on */
};

/* Among `es`, the object that continues at `pos` and reaches farthest, up to `limit`. */
static struct entry *farthest(struct entries *es, uint64_t pos, uint64_t limit, bool partial)
{
	struct entry *best = NULL;

	for (size_t i = 0; i < es->n; i++) {
		struct entry *e = &es->e[i];
		if (e->name.first_txid > pos + 1)
			break;
		if (e->name.last_txid <= pos || (!partial && e->name.last_txid > limit))
			continue;
		if (!best || e->name.last_txid > best->name.last_txid)
			best = e;
	}
	return best;
}

static int add_layer(struct view *v, struct entries *in, struct entry *e, uint64_t txid,
                     struct err *err)
{
	struct history *h = v->history;
	struct layer l = {.max_frame = UINT64_MAX, .min_pages = e->name.min_pages};

	int rc = catalog_open(h, in, e, &l.object, err);
	if (rc < 0)
		return rc;
	if (e->name.type == OBJECT_GROWING || e->name.last_txid > txid) {
		struct commit c;
		uint64_t last = e->name.last_txid < txid ? e->name.last_txid : txid;
		rc = object_commit(l.object, last - e->name.first_txid, &c, err);
		if (rc < 0 && e->broken)
			rc = resolve_broken(e, err);
		l.max_frame = c.last_frame;
		l.min_pages = c.min_pages;
	}
	if (rc == 0 && object_page_size(l.object) != v->moment.page_size)
		rc = err_set(err, ERR_DAMAGED, 0, "'%s' has another page size than its base",
		             e->file);
	if (rc < 0) {
		object_unref(l.object);
		return rc;
	}
	v->layers[v->n_layers++] = l;
	return 0;
}

static int plan_layers(struct view *v, uint64_t pos, struct err *err)
{
	struct history *h = v->history;
	uint64_t txid = v->moment.txid;
	struct entry *picked[64], **list = picked;
	struct entries *from[64], **lists = from;
	size_t n = 0, cap = 64;
	cleanup_free struct entry **more = NULL;
	cleanup_free struct entries **more_from = NULL;

	while (pos < txid) {
		struct entry *fine = farthest(&h->segments, pos, txid, true);
		struct entry *wide = farthest(&h->coalesced, pos, txid, false);
		uint64_t fine_last = !fine                         ? 0
		                     : fine->name.last_txid < txid ? fine->name.last_txid
		                                                   : txid;
		bool use_wide = wide && wide->name.last_txid > fine_last;
		if (!fine && !wide)
			return err_set(
			        err, ERR_NOT_FOUND, ENOENT,
			        "the history of '%s' has no segment for transaction %" PRIu64,
			        h->name, pos + 1);
		if (n == cap) {
			if (cap >= LAYERS_MAX)
				return err_set(err, ERR_DAMAGED, 0,
				               "the history of '%s' is in too many pieces",
				               h->name);
			cap *= 2;
			void *a = realloc(more, cap * sizeof(*more)),
			     *b = realloc(more_from, cap * sizeof(*more_from));
			if (a)
				more = a;
			if (b)
				more_from = b;
			if (!a || !b)
				return err_set(err, ERR_NOMEM, 0, "no memory for a view");
			if (list == picked) {
				memcpy(more, picked, sizeof(picked));
				memcpy(more_from, from, sizeof(from));
			}
			list = more;
			lists = more_from;
		}
		list[n] = use_wide ? wide : fine;
		lists[n++] = use_wide ? &h->coalesced : &h->segments;
		pos = use_wide ? wide->name.last_txid : fine->name.last_txid;
	}
	v->layers = calloc(n ? n : 1, sizeof(*v->layers));
	if (!v->layers)
		return err_set(err, ERR_NOMEM, 0, "no memory for a view");
	while (n-- > 0) { /* newest first */
		int rc = add_layer(v, lists[n], list[n], txid, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int plan(struct view *v, struct err *err)
{
	struct history *h = v->history;
	struct entry *base = NULL;

	for (size_t i = 0; i < h->snapshots.n; i++) {
		struct entry *e = &h->snapshots.e[i];
		if (e->name.last_txid <= v->moment.txid &&
		    (!base || e->name.last_txid > base->name.last_txid ||
		     (e->name.last_txid == base->name.last_txid &&
		      e->name.first_txid > base->name.first_txid)))
			base = e;
	}
	if (!base)
		return err_set(err, ERR_NOT_FOUND, 0,
		               "no snapshot of '%s' lies before transaction %" PRIu64, h->name,
		               v->moment.txid);
	int rc = catalog_open(h, &h->snapshots, base, &v->base, err);
	if (rc < 0)
		return rc;
	if (snapshot_get_info(v->base->snapshot)->page_size != v->moment.page_size)
		return err_set(err, ERR_GAP, 0,
		               "transaction %" PRIu64
		               " of '%s' lies before the first snapshot with its page size",
		               v->moment.txid, h->name);
	return plan_layers(v, base->name.first_txid - 1, err);
}

static int try_open(struct history *h, uint64_t txid, struct view **ret, struct err *err)
{
	cleanup_view struct view *v = calloc(1, sizeof(*v));

	if (!v)
		return err_set(err, ERR_NOMEM, 0, "no memory for a view");
	LOCK_SCOPE(&h->lock);
	int rc = catalog_refresh(h, txid > h->head.last_txid, err);
	if (rc == 0)
		rc = resolve_moment(h, txid, &v->moment, err);
	if (rc < 0)
		return rc;
	v->history = h; /* borrowed until the plan stands: view_open() takes the reference */
	rc = plan(v, err);
	if (rc < 0) {
		v->history = NULL;
		return rc;
	}
	*ret = take_ptr(v);
	return 0;
}

/* An object can be joined into another between listing and opening: then plan anew, on a new
 * listing.  What is still missing is damage. */
static bool plan_again(struct history *h, struct err *why, unsigned tries)
{
	if (!resolve_vanished(why))
		return false;
	if (tries == 5) {
		why->kind = ERR_DAMAGED;
		return false;
	}
	if (tries > 1)
		clock_sleep_us(1000);
	LOCK_SCOPE(&h->lock);
	h->listed = false;
	return true;
}

static int opened(struct history *h, uint64_t txid, int rc, const struct err *why, struct err *err)
{
	if (rc == 0) {
		LOCK_SCOPE(&h->archive->lock);
		h->refs++;
		return 0;
	}
	if (why->kind == ERR_DAMAGED)
		log_error("view", "damaged db=%s txid=%" PRIu64 ": %s", h->name, txid, why->msg);
	return err_copy(err, why);
}

int view_open(struct history *h, uint64_t txid, struct view **ret, struct err *err)
{
	struct err why;
	unsigned tries = 0;
	int rc;

	do {
		why = (struct err)ERR_INIT;
		rc = try_open(h, txid, ret, &why);
	} while (rc < 0 && plan_again(h, &why, ++tries));
	return opened(h, txid, rc, &why, err);
}

void view_free(struct view *v)
{
	if (!v)
		return;
	for (size_t i = 0; i < v->n_layers; i++)
		object_unref(v->layers[i].object);
	free(v->layers);
	object_unref(v->base);
	if (v->history)
		history_put(v->history);
	free(v);
}

const struct moment *view_moment(const struct view *v)
{
	return &v->moment;
}

uint64_t view_size(const struct view *v)
{
	return (uint64_t)v->moment.page_size * v->moment.n_pages;
}

size_t view_depth(const struct view *v)
{
	return v->n_layers;
}

static int read_frame(struct view *v, struct layer *l, uint32_t pgno, uint64_t frame, uint8_t *buf,
                      struct err *err)
{
	uint8_t head[WAL_FRAME_HEADER_SIZE];
	uint64_t at = wal_frame_offset(frame, v->moment.page_size);

	int rc = object_read(l->object, at, head, sizeof(head), err);
	if (rc == 0 && load_be32(head) != pgno)
		rc = err_set(err, ERR_DAMAGED, 0,
		             "'%s' is damaged: frame %" PRIu64 " holds page %u, not %u",
		             object_label(l->object), frame, load_be32(head), pgno);
	return rc < 0 ? rc
	              : object_read(l->object, at + sizeof(head), buf, v->moment.page_size, err);
}

static int find_page(struct view *v, uint32_t pgno, uint8_t *buf, struct err *err)
{
	if (pgno == lock_page(v->moment.page_size)) {
		memset(buf, 0, v->moment.page_size);
		return 0;
	}
	for (size_t i = 0; i < v->n_layers; i++) {
		struct layer *l = &v->layers[i];
		uint64_t frame;
		int rc = object_find_frame(l->object, pgno, l->max_frame, &frame, err);
		if (rc < 0)
			return rc;
		if (frame)
			return read_frame(v, l, pgno, frame, buf, err);
		if (pgno > l->min_pages) {
			memset(buf, 0, v->moment.page_size);
			return 0;
		}
	}
	struct err why = ERR_INIT;
	if (!v->base)
		return err_set(err, ERR_NOT_FOUND, 0, "page %u did not change", pgno);
	int rc = snapshot_page(v->base->snapshot, pgno, buf, &why);
	if (rc < 0 && why.kind == ERR_NOT_FOUND)
		return err_set(err, ERR_DAMAGED, 0, "page %u of '%s' is nowhere in the archive",
		               pgno, v->history->name);
	return rc < 0 ? err_copy(err, &why) : 0;
}

int view_page(struct view *v, uint32_t pgno, void *buf, struct err *err)
{
	struct err why = ERR_INIT;

	if (pgno == 0 || pgno > v->moment.n_pages)
		return err_set(err, ERR_NOT_FOUND, 0, "page %u lies behind the end", pgno);
	int rc = find_page(v, pgno, buf, &why);
	if (rc < 0) {
		log_error("view", "unreadable db=%s txid=%" PRIu64 " page=%u: %s", v->history->name,
		          v->moment.txid, pgno, why.msg);
		return err_copy(err, &why);
	}
	return 0;
}

static void patch(const struct view *v, uint64_t offset, uint8_t *buf, size_t len, struct err *err)
{
	uint8_t magic[20];
	size_t got;

	if (offset >= 20 || offset + len <= 18)
		return;
	if (view_read((struct view *)v, 0, magic, sizeof(magic), 0, &got, err) < 0 || got < 20 ||
	    memcmp(magic, "SQLite format 3", 16) != 0 || magic[18] != 2 || magic[19] != 2)
		return;
	for (uint64_t i = 18; i < 20; i++)
		if (i >= offset && i < offset + len)
			buf[i - offset] = 1;
}

static void read_ahead(struct view *v, uint64_t offset, size_t len)
{
	struct pack *p = snapshot_pack(v->base->snapshot);
	uint32_t block = pack_block_size(p);
	uint64_t expected = v->next_offset;

	v->next_offset = offset + len;
	/* Kernel read-ahead comes slightly out of order, from several threads. */
	if (offset == 0 || offset + (1u << 20) < expected || offset > expected + (1u << 20))
		return;
	uint64_t from = (offset + len) / block;
	for (uint64_t i = 0; i < READ_AHEAD_BLOCKS; i++)
		if ((from + i) * block < pack_size(p))
			prefetch_add(v->history->archive->prefetch, v->base, from + i);
}

int view_read(struct view *v, uint64_t offset, void *buf, size_t len, unsigned flags,
              size_t *ret_len, struct err *err)
{
	uint64_t size = view_size(v);
	uint32_t page_size = v->moment.page_size;
	uint8_t *out = buf;
	cleanup_free uint8_t *page = NULL;

	*ret_len = 0;
	if (offset >= size)
		return 0;
	if (len > size - offset)
		len = (size_t)(size - offset);
	if (len >= page_size && v->base)
		read_ahead(v, offset, len);
	for (size_t done = 0; done < len;) {
		uint32_t pgno = (uint32_t)((offset + done) / page_size) + 1;
		size_t in = (size_t)((offset + done) % page_size);
		size_t n = page_size - in < len - done ? page_size - in : len - done;
		int rc;
		if (n == page_size) {
			rc = view_page(v, pgno, out + done, err);
		} else {
			if (!page && !(page = malloc(page_size)))
				return err_set(err, ERR_NOMEM, 0, "no memory for a page");
			rc = view_page(v, pgno, page, err);
			if (rc == 0)
				memcpy(out + done, page + in, n);
		}
		if (rc < 0)
			return rc;
		done += n;
	}
	if (flags & VIEW_READ_PATCHED)
		patch(v, offset, out, len, err);
	*ret_len = len;
	return 0;
}

int view_state(struct view *v, struct hash128 *ret, struct err *err)
{
	uint32_t page_size = v->moment.page_size;
	cleanup_free uint8_t *page = malloc(page_size);
	struct hash128 sum = {0, 0};

	if (!page)
		return err_set(err, ERR_NOMEM, 0, "no memory for a page");
	for (uint32_t p = 1; p <= v->moment.n_pages; p++) {
		if (p == lock_page(page_size))
			continue;
		int rc = view_page(v, p, page, err);
		if (rc < 0)
			return rc;
		state_add(&sum, page_hash(p, page, page_size));
	}
	*ret = sum;
	return 0;
}

/* ---- spans ---- */

static int try_span(struct history *h, uint64_t after_txid, uint64_t until_txid, struct view **ret,
                    struct err *err)
{
	cleanup_view struct view *v = calloc(1, sizeof(*v));
	struct commit c;
	struct entry *e;

	if (!v)
		return err_set(err, ERR_NOMEM, 0, "no memory for a view");
	LOCK_SCOPE(&h->lock);
	int rc = catalog_refresh(h, false, err);
	if (rc == 0)
		rc = resolve_commit(h, until_txid, &c, &e, err);
	if (rc == 0)
		rc = resolve_fill(h, &c, e, &v->moment, err);
	if (rc < 0)
		return rc;
	v->history = h;
	rc = plan_layers(v, after_txid, err);
	v->history = rc == 0 ? h : NULL;
	if (rc == 0)
		*ret = take_ptr(v);
	return rc;
}

int span_open(struct history *h, uint64_t after_txid, uint64_t until_txid, struct view **ret,
              struct err *err)
{
	struct err why;
	unsigned tries = 0;
	int rc;

	do {
		why = (struct err)ERR_INIT;
		rc = try_span(h, after_txid, until_txid, ret, &why);
	} while (rc < 0 && plan_again(h, &why, ++tries));
	return opened(h, until_txid, rc, &why, err);
}

int span_pages(struct view *v, struct bitset *pages, uint32_t *ret_min_pages, struct err *err)
{
	uint32_t min = v->moment.n_pages;

	for (size_t i = 0; i < v->n_layers;
	     i++) { /* newest first: what a later one cut off is gone */
		struct layer *l = &v->layers[i];
		int rc = object_add_pages(l->object, l->max_frame, min, pages, err);
		if (rc < 0)
			return rc;
		if (l->min_pages < min)
			min = l->min_pages;
	}
	*ret_min_pages = min;
	return 0;
}
