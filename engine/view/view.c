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
 *  (4) An object may be gone from a bucket while the view is open, or turn out to be damaged where
 *      another store has it whole: then the same image is planned anew, and the read goes on.
 */
#include "engine/view/history_i.h"
#include "engine/view/span.h"

#include "engine/base/bytes.h"
#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "engine/sqlite/format.h"

#include <inttypes.h>

#define LAYERS_MAX 4096u
#define FAR_AHEAD_BLOCKS 16u
#define FAR_RUN_BYTES (512u << 10) /* who has read on so far reads on; each guess is a request */
#define REPLANS_MAX 6u

struct layer {
	struct object *object;
	uint64_t min_frame; /* frames up to it are not looked at: of an exact span */
	uint64_t max_frame;
	uint32_t min_pages;
};

struct view {
	struct history *history;
	struct moment moment;
	bool is_span, exact; /* a span of what lies behind after_txid */
	uint64_t after_txid;
	bool may_change; /* (4): then the plan below is under plan_lock */
	pthread_rwlock_t plan_lock;
	unsigned generation;
	struct object *base;
	struct layer *layers; /* newest first */
	size_t n_layers;
	_Atomic uint64_t next_offset; /* where a sequential reader would go on */
	_Atomic uint64_t run_bytes;   /* what it has read so far */
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

/* As farthest(), of those that say nothing of what was before. */
static struct entry *starting_at(struct entries *es, uint64_t pos, uint64_t limit)
{
	struct entry *best = NULL;

	for (size_t i = 0; i < es->n && es->e[i].name.first_txid <= pos + 1; i++) {
		struct entry *e = &es->e[i];
		if (e->name.first_txid == pos + 1 && e->name.last_txid <= limit)
			best = e; /* equal ones are sorted by their last txid */
	}
	return best;
}

/* Leaves out of a segment what lies at or before `after_txid`. */
static int cut_layer(struct layer *l, const struct entry *e, uint64_t after_txid, uint64_t last,
                     struct err *err)
{
	struct commit c;

	int rc = object_commit(l->object, after_txid - e->name.first_txid, &c, err);
	l->min_frame = c.last_frame;
	l->min_pages = UINT32_MAX;
	for (uint64_t t = after_txid + 1; t <= last && rc == 0; t++) {
		rc = object_commit(l->object, t - e->name.first_txid, &c, err);
		l->min_pages = c.n_pages < l->min_pages ? c.n_pages : l->min_pages;
	}
	return rc;
}

/* `after_txid`: see cut_layer(); UINT64_MAX: nothing is left out. */
static int add_layer(struct view *v, struct entries *in, struct entry *e, uint64_t after_txid,
                     uint64_t txid, struct err *err)
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
	if (rc == 0 && after_txid != UINT64_MAX && e->name.first_txid <= after_txid &&
	    e->name.type != OBJECT_COALESCED)
		rc = cut_layer(&l, e, after_txid,
		               e->name.last_txid < txid ? e->name.last_txid : txid, err);
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

/* A layer to be. */
struct pick {
	struct entries *in;
	struct entry *e;
	uint64_t after_txid;
};

static int grow_picks(const struct history *h, struct pick **more, size_t *cap,
                      const struct pick *first, struct err *err)
{
	if (*cap >= LAYERS_MAX)
		return err_set(err, ERR_DAMAGED, 0, "the history of '%s' is in too many pieces",
		               h->name);
	bool was_none = !*more;
	struct pick *p = realloc(*more, 2 * *cap * sizeof(*p));
	if (!p)
		return err_set(err, ERR_NOMEM, 0, "no memory for a view");
	if (was_none)
		memcpy(p, first, *cap * sizeof(*p));
	*more = p;
	*cap *= 2;
	return 0;
}

/* Far away, their indexes come at once and not one after the other. */
static void expect_indexes(struct history *h, struct entry *base, const struct pick *picks,
                           size_t n)
{
	if (!h->in_bucket || n + (base ? 1 : 0) < 2)
		return;
	for (size_t i = 0; i < n; i++)
		catalog_expect(h, picks[i].in, picks[i].e);
	if (base)
		catalog_expect(h, &h->snapshots, base);
}

static int open_base(struct view *v, struct entry *base, struct err *err)
{
	struct history *h = v->history;

	int rc = catalog_open(h, &h->snapshots, base, &v->base, err);
	if (rc < 0)
		return rc;
	if (snapshot_get_info(v->base->snapshot)->page_size != v->moment.page_size)
		return err_set(err, ERR_GAP, 0,
		               "transaction %" PRIu64
		               " of '%s' lies before the first snapshot with its page size",
		               v->moment.txid, h->name);
	return 0;
}

/* `base`: NULL, or what is opened first; `exact`: the layers say of nothing at or before `pos`. */
static int plan_layers(struct view *v, struct entry *base, uint64_t pos, bool exact,
                       struct err *err)
{
	struct history *h = v->history;
	uint64_t txid = v->moment.txid;
	struct pick few[64], *picks = few;
	size_t n = 0, cap = 64;
	cleanup_free struct pick *more = NULL;

	while (pos < txid) {
		struct entry *fine = farthest(&h->segments, pos, txid, true);
		struct entry *wide = exact ? starting_at(&h->coalesced, pos, txid)
		                           : farthest(&h->coalesced, pos, txid, false);
		if (!fine && !wide) /* rather a little more than nothing */
			wide = farthest(&h->coalesced, pos, txid, false);
		if (wide && fine && thinned_is_vague(h, fine))
			fine = NULL;
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
			int rc = grow_picks(h, &more, &cap, few, err);
			if (rc < 0)
				return rc;
			picks = more;
		}
		picks[n++] = (struct pick){use_wide ? &h->coalesced : &h->segments,
		                           use_wide ? wide : fine, exact ? pos : UINT64_MAX};
		pos = use_wide ? wide->name.last_txid : fine->name.last_txid;
	}
	expect_indexes(h, base, picks, n);
	int opened = base ? open_base(v, base, err) : 0;
	if (opened < 0)
		return opened;
	v->layers = calloc(n ? n : 1, sizeof(*v->layers));
	if (!v->layers)
		return err_set(err, ERR_NOMEM, 0, "no memory for a view");
	while (n-- > 0) { /* newest first */
		int rc = add_layer(v, picks[n].in, picks[n].e, picks[n].after_txid, txid, err);
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
	return plan_layers(v, base, base->name.first_txid - 1, false, err);
}

static int new_view(struct history *h, struct view **ret, struct err *err)
{
	struct view *v = calloc(1, sizeof(*v));

	if (!v)
		return err_set(err, ERR_NOMEM, 0, "no memory for a view");
	pthread_rwlock_init(&v->plan_lock, NULL);
	v->may_change = h->in_bucket || h->archive->n_stores > 1;
	*ret = v;
	return 0;
}

static int try_open(struct history *h, uint64_t txid, struct view **ret, struct err *err)
{
	cleanup_view struct view *v = NULL;

	if (new_view(h, &v, err) < 0)
		return -ERR_NOMEM;
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
	if (!resolve_vanished(why) || tries == 5) {
		LOCK_SCOPE(&h->lock);
		if (borrow_more(h, why))
			return true;
	}
	if (!resolve_vanished(why))
		return false;
	if (tries >= 5) {
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
	if (why->kind == ERR_DAMAGED && !h->quiet)
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

static void drop_plan(struct view *v)
{
	for (size_t i = 0; i < v->n_layers; i++)
		object_unref(v->layers[i].object);
	free(v->layers);
	object_unref(v->base);
	v->layers = NULL;
	v->n_layers = 0;
	v->base = NULL;
}

void view_free(struct view *v)
{
	if (!v)
		return;
	drop_plan(v);
	if (v->history)
		history_put(v->history);
	pthread_rwlock_destroy(&v->plan_lock);
	free(v);
}

const struct moment *view_moment(const struct view *v)
{
	return &v->moment;
}

struct history *view_history(const struct view *v)
{
	return v->history;
}

const char *view_database(const struct view *v)
{
	return v->history->name;
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

/* *ret_asked: the object that was asked last. */
static int find_page(struct view *v, uint32_t pgno, uint8_t *buf, struct object **ret_asked,
                     struct err *err)
{
	if (pgno == lock_page(v->moment.page_size)) {
		memset(buf, 0, v->moment.page_size);
		return 0;
	}
	for (size_t i = 0; i < v->n_layers; i++) {
		struct layer *l = &v->layers[i];
		uint64_t frame;
		*ret_asked = l->object;
		int rc = object_find_frame(l->object, pgno, l->max_frame, &frame, err);
		if (rc < 0)
			return rc;
		if (frame > l->min_frame)
			return read_frame(v, l, pgno, frame, buf, err);
		if (pgno > l->min_pages) {
			memset(buf, 0, v->moment.page_size);
			return 0;
		}
	}
	struct err why = ERR_INIT;
	if (!v->base)
		return err_set(err, ERR_NOT_FOUND, 0, "page %u did not change", pgno);
	*ret_asked = v->base;
	int rc = snapshot_page(v->base->snapshot, pgno, buf, &why);
	if (rc < 0 && why.kind == ERR_NOT_FOUND)
		return err_set(err, ERR_DAMAGED, 0, "page %u of '%s' is nowhere in the archive",
		               pgno, v->history->name);
	return rc < 0 ? err_copy(err, &why) : 0;
}

static int plan_of(struct view *v, struct view *fresh, struct err *err)
{
	return v->is_span ? plan_layers(fresh, NULL, v->after_txid, v->exact, err)
	                  : plan(fresh, err);
}

/* With the plan locked for writing: the same image out of what there is now.  `bad`: an object that
 * was found damaged.  False: there is nothing else. */
static bool plan_anew(struct view *v, struct object *bad, struct err *err)
{
	struct view fresh = {.history = v->history, .moment = v->moment};
	struct history *h = v->history;
	LOCK_SCOPE(&h->lock);

	if (bad && !catalog_distrust(h, bad))
		return false;
	h->listed = h->listed && bad;
	int rc = catalog_refresh(h, !bad, err);
	if (rc == 0)
		rc = plan_of(v, &fresh, err);
	while (rc < 0 && borrow_more(h, err)) { /* (once for each that gives way) */
		drop_plan(&fresh);
		*err = (struct err)ERR_INIT;
		rc = catalog_refresh(h, true, err);
		rc = rc ? rc : plan_of(v, &fresh, err);
	}
	if (rc == 0) {
		drop_plan(v);
		v->base = fresh.base;
		v->layers = fresh.layers;
		v->n_layers = fresh.n_layers;
		v->generation++;
	} else {
		drop_plan(&fresh);
	}
	return rc == 0;
}

static int find_page_anyhow(struct view *v, uint32_t pgno, uint8_t *buf, struct err *err)
{
	struct object *asked = NULL;
	int rc = 0;

	for (unsigned tries = 0;; tries++) {
		struct err why = ERR_INIT;
		pthread_rwlock_rdlock(&v->plan_lock);
		unsigned generation = v->generation;
		rc = find_page(v, pgno, buf, &asked, &why);
		struct object *bad = rc < 0 && asked ? object_ref(asked) : NULL;
		pthread_rwlock_unlock(&v->plan_lock);
		bool gone = resolve_vanished(&why);
		bool again = rc < 0 && bad && tries < REPLANS_MAX &&
		             (gone || why.kind == ERR_DAMAGED || why.kind == ERR_UNAVAILABLE ||
		              why.kind == ERR_IO);
		if (again) {
			struct err ignored = ERR_INIT;
			pthread_rwlock_wrlock(&v->plan_lock);
			again = v->generation != generation ||
			        plan_anew(v, gone && tries < 2 ? NULL : bad, &ignored);
			pthread_rwlock_unlock(&v->plan_lock);
		}
		object_unref(bad);
		if (!again) {
			if (gone) /* that is not how a page can be missing */
				why.kind = ERR_DAMAGED;
			return rc < 0 ? err_copy(err, &why) : 0;
		}
	}
}

int view_page(struct view *v, uint32_t pgno, void *buf, struct err *err)
{
	struct object *asked = NULL;
	struct err why = ERR_INIT;

	if (pgno == 0 || pgno > v->moment.n_pages)
		return err_set(err, ERR_NOT_FOUND, 0, "page %u lies behind the end", pgno);
	int rc = v->may_change ? find_page_anyhow(v, pgno, buf, &why)
	                       : find_page(v, pgno, buf, &asked, &why);
	if (rc < 0 && !v->history->quiet)
		log_error("view", "unreadable db=%s txid=%" PRIu64 " page=%u: %s", v->history->name,
		          v->moment.txid, pgno, why.msg);
	return rc < 0 ? err_copy(err, &why) : 0;
}

void history_log_damage(struct history *h, bool on)
{
	h->quiet = !on;
}

/* Of a read that begins behind the header's begin, that has to be read for itself. */
static int patch(struct view *v, uint64_t offset, uint8_t *buf, size_t len, struct err *err)
{
	uint8_t own[20];
	const uint8_t *magic = buf;
	size_t got = len;

	if (offset >= 20 || offset + len <= 18)
		return 0;
	if (offset > 0 || len < sizeof(own)) {
		int rc = view_read(v, 0, own, sizeof(own), 0, &got, err);
		if (rc < 0)
			return rc;
		magic = own;
	}
	if (got < 20 || memcmp(magic, "SQLite format 3", 16) != 0 || magic[18] != 2 ||
	    magic[19] != 2)
		return 0;
	for (uint64_t i = 18; i < 20; i++)
		if (i >= offset && i < offset + len)
			buf[i - offset] = 1;
	return 0;
}

static void read_ahead(struct view *v, uint64_t offset, size_t len)
{
	uint64_t expected = v->next_offset;

	v->next_offset = offset + len;
	/* Kernel read-ahead comes slightly out of order, from several threads. */
	if (offset == 0 || offset + (1u << 20) < expected || offset > expected + (1u << 20)) {
		v->run_bytes = 0;
		return;
	}
	v->run_bytes += len;
	if (v->history->in_bucket && v->run_bytes < FAR_RUN_BYTES)
		return;
	if (v->may_change)
		pthread_rwlock_rdlock(&v->plan_lock);
	struct pack *p = v->base ? snapshot_pack(v->base->snapshot) : NULL;
	uint32_t block = p ? pack_block_size(p) : 1;
	uint64_t from = (offset + len) / block;
	uint64_t n = v->history->archive->ahead_bytes / block;
	if (v->history->in_bucket)
		n = FAR_AHEAD_BLOCKS;
	if (p && from < (pack_size(p) + block - 1) / block)
		prefetch_add(v->history->archive->prefetch, v->base, from, from + (n ? n : 1));
	if (v->may_change)
		pthread_rwlock_unlock(&v->plan_lock);
}

/* What lies over the base is read by page, and so all over. */
void view_expect(struct view *v)
{
	pthread_rwlock_rdlock(&v->plan_lock);
	for (size_t i = 0; i < v->n_layers; i++)
		object_expect(v->layers[i].object, SOURCE_ALL_OVER);
	if (v->base)
		object_expect(v->base, SOURCE_IN_ORDER);
	pthread_rwlock_unlock(&v->plan_lock);
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
	if (len >= page_size && !v->is_span)
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
	int rc = flags & VIEW_READ_PATCHED ? patch(v, offset, out, len, err) : 0;
	*ret_len = rc < 0 ? 0 : len;
	return rc;
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

static int try_span(struct history *h, uint64_t after_txid, uint64_t until_txid, bool exact,
                    struct view **ret, struct err *err)
{
	cleanup_view struct view *v = NULL;
	struct commit c;
	struct entry *e;
	int rc;

	if (new_view(h, &v, err) < 0)
		return -ERR_NOMEM;
	v->is_span = true;
	v->exact = exact;
	v->after_txid = after_txid;
	LOCK_SCOPE(&h->lock);
	rc = catalog_refresh(h, false, err);
	if (rc < 0)
		return rc;
	if (until_txid <= h->thinned.until_txid) {
		rc = thinned_moment(h, until_txid, &v->moment, err);
	} else {
		rc = resolve_commit(h, until_txid, &c, &e, err);
		if (rc == 0)
			rc = resolve_fill(h, &c, &h->segments, e, &v->moment, err);
	}
	if (rc < 0)
		return rc;
	v->history = h;
	rc = plan_layers(v, NULL, after_txid, exact, err);
	v->history = rc == 0 ? h : NULL;
	if (rc == 0)
		*ret = take_ptr(v);
	return rc;
}

int span_open(struct history *h, uint64_t after_txid, uint64_t until_txid, bool exact,
              struct view **ret, struct err *err)
{
	struct err why;
	unsigned tries = 0;
	int rc;

	do {
		why = (struct err)ERR_INIT;
		rc = try_span(h, after_txid, until_txid, exact, ret, &why);
	} while (rc < 0 && plan_again(h, &why, ++tries));
	return opened(h, until_txid, rc, &why, err);
}

int span_pages(struct view *v, struct bitset *pages, uint32_t *ret_min_pages, struct err *err)
{
	uint32_t min = v->moment.n_pages;

	for (size_t i = 0; i < v->n_layers;
	     i++) { /* newest first: what a later one cut off is gone */
		struct layer *l = &v->layers[i];
		int rc = object_add_pages(l->object, l->min_frame, l->max_frame, min, pages, err);
		if (rc < 0)
			return rc;
		if (l->min_pages < min)
			min = l->min_pages;
	}
	*ret_min_pages = min;
	return 0;
}
