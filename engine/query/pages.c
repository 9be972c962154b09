/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which rows can differ, told by which pages do.
 *
 *   (1) A page differs when its bytes in the two images do.  Of two images of one history, the
 *       index of what lies between them names the candidates; else all pages are compared.
 *   (2) A leaf of a table that is a leaf of it in both images, and does not differ, holds the same
 *       rows.  So every row that differs lies, on its side, in a leaf that differs or is none of
 *       the table on the other side; the keys that its parent allows it are a range to be compared.
 *   (3) That is said of what lies in the b-tree's own pages.  An overflow page can be written to in
 *       place, its leaf staying what it is.  Pages that differ and belong neither to a tree nor to
 *       the overflow of a tree page that differs nor to no tree at all, on either side, are such:
 *       then nothing is left out anywhere.
 *   (4) A malformed tree is left to SQLite to complain about: nothing is left out.
 */
#include "engine/query/diff_i.h"

#include "engine/base/array.h"
#include "engine/view/span.h"

#include <string.h>

struct half {
	struct btree_image image;
	struct bitset owned; /* of the pages that differ: those that (3) accounts for */
};

struct page_map {
	struct half from, to;
	uint32_t common; /* pages that both have */
	struct bitset differing;
};

void page_map_free(struct page_map *m)
{
	if (!m)
		return;
	bitset_release(&m->from.owned);
	bitset_release(&m->to.owned);
	bitset_release(&m->differing);
	free(m);
}

/* ---- ranges ---- */

int ranges_add(struct ranges *r, int64_t first, int64_t last, struct err *err)
{
	if (r->n && first >= r->r[r->n - 1].first &&
	    (r->r[r->n - 1].last == INT64_MAX || first <= r->r[r->n - 1].last + 1)) {
		if (last > r->r[r->n - 1].last)
			r->r[r->n - 1].last = last;
		return 0;
	}
	int rc = array_room(r->r, r->n, r->cap, "ranges of rows", err);
	if (rc == 0)
		r->r[r->n++] = (struct range){first, last};
	return rc;
}

void ranges_release(struct ranges *r)
{
	free(r->r);
}

static int compare_ranges(const void *a, const void *b)
{
	const struct range *x = a, *y = b;

	return x->first < y->first ? -1 : x->first > y->first;
}

/* In order, and apart. */
static void ranges_join(struct ranges *r)
{
	size_t n = r->n;

	if (n == 0)
		return;
	qsort(r->r, n, sizeof(*r->r), compare_ranges);
	r->n = 1;
	for (size_t i = 1; i < n; i++) /* never grows: it joins or keeps */
		(void)!ranges_add(r, r->r[i].first, r->r[i].last, NULL);
}

/* ---- which pages differ: (1) ---- */

static int candidates(struct diff *d, struct bitset *ret, bool *ret_all)
{
	cleanup_view struct view *span = NULL;
	struct history *h = view_history(d->from.view);
	uint64_t a = view_moment(d->from.view)->txid, b = view_moment(d->to.view)->txid;
	struct err why = ERR_INIT;
	uint32_t min;

	*ret_all = true;
	if (h != view_history(d->to.view))
		return 0;
	if (a == b) {
		*ret_all = false;
		return 0;
	}
	if (span_open(h, a < b ? a : b, a < b ? b : a, false, &span, &why) < 0 ||
	    span_pages(span, ret, &min, &why) < 0)
		return 0;
	/* Cut off and grown again in between. */
	for (uint64_t p = (uint64_t)min + 1; p <= view_moment(span)->n_pages; p++)
		if (bitset_add(ret, p, &why) < 0)
			return 0;
	*ret_all = false;
	return 0;
}

static int compare_pages(struct diff *d, struct page_map *m, struct err *err)
{
	uint32_t size = m->from.image.page_size;
	cleanup_free uint8_t *a = malloc(size), *b = malloc(size);
	struct bitset named = {0};
	bool all;
	int rc = candidates(d, &named, &all);

	if (!a || !b)
		rc = err_set(err, ERR_NOMEM, 0, "no memory for a page");
	for (uint32_t p = 1; p <= m->common && !rc; p++) {
		if (!all && !bitset_has(&named, p))
			continue;
		rc = view_page(d->from.view, p, a, err);
		rc = rc ? rc : view_page(d->to.view, p, b, err);
		if (!rc && memcmp(a, b, size) != 0)
			rc = bitset_add(&m->differing, p, err);
		if (!rc && d->options->stop && *d->options->stop)
			rc = err_set(err, ERR_CANCELLED, 0, "the comparison was stopped");
	}
	bitset_release(&named);
	uint32_t end = m->from.image.n_pages > m->to.image.n_pages ? m->from.image.n_pages
	                                                           : m->to.image.n_pages;
	for (uint64_t p = (uint64_t)m->common + 1; p <= end && !rc; p++)
		rc = bitset_add(&m->differing, p, err);
	return rc;
}

/* ---- which of them are accounted for: (3) ---- */

struct owner {
	struct page_map *m;
	struct half *half;
};

static int own(void *ctx, uint32_t pgno, struct err *err)
{
	struct owner *o = ctx;

	return bitset_has(&o->m->differing, pgno) ? bitset_add(&o->half->owned, pgno, err) : 0;
}

static int own_tree_page(void *ctx, const struct btree_page *page, struct err *err)
{
	struct owner *o = ctx;

	if (!bitset_has(&o->m->differing, page->pgno))
		return 0;
	int rc = bitset_add(&o->half->owned, page->pgno, err);
	return rc ? rc : btree_overflow(&o->half->image, page->pgno, own, o, err);
}

static int own_all(struct page_map *m, struct half *half, struct side *s, struct err *err)
{
	cleanup_stmt sqlite3_stmt *roots = NULL;
	struct owner o = {m, half};
	int code, rc = btree_no_tree(&half->image, own, &o, err);

	rc = rc ? rc : btree_walk(&half->image, 1, own_tree_page, &o, err);
	if (rc)
		return rc;
	code = sqlite3_prepare_v2(s->db, "SELECT rootpage FROM sqlite_schema WHERE rootpage > 1",
	                          -1, &roots, NULL);
	while (!rc && code == SQLITE_OK && (code = sqlite3_step(roots)) == SQLITE_ROW) {
		int64_t root = sqlite3_column_int64(roots, 0);
		code = SQLITE_OK;
		rc = root > UINT32_MAX
		             ? err_set(err, ERR_DAMAGED, 0, "a root page is too far")
		             : btree_walk(&half->image, (uint32_t)root, own_tree_page, &o, err);
	}
	if (!rc && code != SQLITE_DONE)
		rc = vfs_sqlite_error(s->db, err, "read the schema");
	return rc;
}

/* Whether a page differs that nothing accounts for. */
static bool has_loose(const struct page_map *m)
{
	for (uint64_t p = 1; p < m->differing.used * 64; p++)
		if (bitset_has(&m->differing, p) && !bitset_has(&m->from.owned, p) &&
		    !bitset_has(&m->to.owned, p))
			return true;
	return false;
}

int page_map_new(struct diff *d, struct page_map **ret, struct err *err)
{
	struct page_map *m = calloc(1, sizeof(*m));
	struct err why = ERR_INIT;

	*ret = NULL;
	if (!m)
		return err_set(err, ERR_NOMEM, 0, "no memory to compare");
	int rc = btree_image_of(d->from.view, &m->from.image, &why);
	rc = rc ? rc : btree_image_of(d->to.view, &m->to.image, &why);
	if (!rc && (m->from.image.page_size != m->to.image.page_size ||
	            m->from.image.usable != m->to.image.usable)) {
		page_map_free(m);
		return 0;
	}
	m->common = m->from.image.n_pages < m->to.image.n_pages ? m->from.image.n_pages
	                                                        : m->to.image.n_pages;
	rc = rc ? rc : compare_pages(d, m, &why);
	rc = rc ? rc : own_all(m, &m->from, &d->from, &why);
	rc = rc ? rc : own_all(m, &m->to, &d->to, &why);
	if (!rc && !has_loose(m)) {
		*ret = m;
		return 0;
	}
	page_map_free(m);
	/* (4); bytes that cannot be read are met again, and named, by SQL. */
	return rc == 0 || why.kind == ERR_DAMAGED ? 0 : err_copy(err, &why);
}

/* ---- which rows: (2) ---- */

static int add_leaf(void *ctx, const struct btree_page *page, struct err *err)
{
	return page->leaf ? bitset_add(ctx, page->pgno, err) : 0;
}

struct suspects {
	const struct page_map *m;
	const struct bitset *other; /* the leaves of the table on the other side */
	struct ranges *ranges;
};

static int add_suspect(void *ctx, const struct btree_page *page, struct err *err)
{
	struct suspects *s = ctx;

	if (!page->leaf)
		return 0;
	if (bitset_has(s->other, page->pgno) && !bitset_has(&s->m->differing, page->pgno))
		return 0;
	return ranges_add(s->ranges, page->first, page->last, err);
}

static int find_suspects(const struct page_map *m, const struct entry_info *from,
                         const struct entry_info *to, struct bitset *leaves_from,
                         struct bitset *leaves_to, struct ranges *ret, struct err *err)
{
	struct suspects of_from = {m, leaves_to, ret}, of_to = {m, leaves_from, ret};
	int rc = btree_walk(&m->from.image, from->root, add_leaf, leaves_from, err);

	rc = rc ? rc : btree_walk(&m->to.image, to->root, add_leaf, leaves_to, err);
	rc = rc ? rc : btree_walk(&m->from.image, from->root, add_suspect, &of_from, err);
	rc = rc ? rc : btree_walk(&m->to.image, to->root, add_suspect, &of_to, err);
	return rc;
}

static int any_differs(void *ctx, const struct btree_page *page, struct err *err)
{
	const struct page_map *m = ctx;

	/* Only to end the walk: the caller tells it from a failure by its kind. */
	return bitset_has(&m->differing, page->pgno) ? err_set(err, ERR_EXISTS, 0, "differs") : 0;
}

int page_map_ranges(struct diff *d, const struct entry_info *from, const struct entry_info *to,
                    struct ranges *ret, struct err *err)
{
	struct page_map *m = d->map;
	struct bitset leaves_from = {0}, leaves_to = {0};
	struct err why = ERR_INIT;
	int rc;

	*ret = (struct ranges){.all = true};
	if (!m)
		return 0;
	/* From one root on, pages that do not differ lead to the same ones. */
	if (from->root == to->root) {
		rc = btree_walk(&m->from.image, from->root, any_differs, m, &why);
		if (rc == 0) {
			ret->all = false;
			return 0;
		}
		if (why.kind != ERR_EXISTS && why.kind != ERR_DAMAGED)
			return err_copy(err, &why);
	}
	if (from->info.key != KEY_ALIAS && from->info.key != KEY_ROWID)
		return 0;
	why = (struct err)ERR_INIT;
	rc = find_suspects(m, from, to, &leaves_from, &leaves_to, ret, &why);
	bitset_release(&leaves_from);
	bitset_release(&leaves_to);
	if (rc == 0) {
		ret->all = false;
		ranges_join(ret);
		return 0;
	}
	return why.kind == ERR_DAMAGED ? 0 : err_copy(err, &why);
}
