/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SQLite's b-trees by page (https://www.sqlite.org/fileformat2.html, 1.5 to 1.8).
 *
 *   page header (behind the database header on page 1): 0 type (2 index interior, 5 table interior,
 *   10 index leaf, 13 table leaf), 3 cells u16, 8 right-most child u32 (interior); then the cell
 *   pointers, u16 each; big-endian
 *   cell: child u32 (interior), payload length varint (not in table interior), rowid varint
 *   (tables), payload, first overflow page u32 where the payload is longer than fits
 *   overflow page: next u32, then usable - 4 bytes
 *
 * All leaves of a tree lie equally deep: once the left-most path was read, a walk knows which pages
 * are leaves without reading them.
 */
#include "engine/query/diff_i.h"

#include "engine/base/bytes.h"
#include "engine/sqlite/format.h"

#define DEPTH_MAX 40u

enum { INDEX_INTERIOR = 2, TABLE_INTERIOR = 5, INDEX_LEAF = 10, TABLE_LEAF = 13 };

struct parsed {
	const uint8_t *data;
	uint32_t usable;
	uint8_t type;
	uint32_t n_cells;
	uint32_t pointers; /* offset of the cell pointers */
	uint32_t right;    /* interior: the right-most child */
};

static int malformed(uint32_t pgno, struct err *err)
{
	return err_set(err, ERR_DAMAGED, 0, "database page %u is malformed", pgno);
}

static bool is_interior(const struct parsed *p)
{
	return p->type == INDEX_INTERIOR || p->type == TABLE_INTERIOR;
}

static int read_page(const struct btree_image *im, uint32_t pgno, uint8_t *buf, struct err *err)
{
	if (pgno == 0 || pgno > im->n_pages)
		return malformed(pgno, err);
	return view_page(im->view, pgno, buf, err);
}

static int parse(const struct btree_image *im, uint32_t pgno, const uint8_t *data,
                 struct parsed *ret, struct err *err)
{
	uint32_t at = pgno == 1 ? SQLITE_HEADER_SIZE : 0;
	const uint8_t *h = data + at;

	*ret = (struct parsed){.data = data, .usable = im->usable, .type = h[0]};
	ret->n_cells = load_be16(h + 3);
	ret->pointers = at + (is_interior(ret) ? 12 : 8);
	if (!is_interior(ret) && ret->type != INDEX_LEAF && ret->type != TABLE_LEAF)
		return malformed(pgno, err);
	if (ret->pointers + 2 * ret->n_cells > im->usable)
		return malformed(pgno, err);
	if (is_interior(ret))
		ret->right = load_be32(h + 8);
	return 0;
}

/* The bytes of cell `i` up to the end of the page. */
static struct cursor cell(const struct parsed *p, uint32_t i)
{
	uint32_t at = load_be16(p->data + p->pointers + 2 * i);

	return at < p->usable ? cursor_init(p->data + at, p->usable - at)
	                      : (struct cursor){.bad = true};
}

static uint32_t cursor_be32(struct cursor *c)
{
	const uint8_t *p = cursor_take(c, 4);

	return p ? load_be32(p) : 0;
}

/* SQLite's own varint: big-endian, at most nine bytes, the ninth whole. */
static uint64_t cursor_sqlite_varint(struct cursor *c)
{
	uint64_t v = 0;

	for (int i = 0; i < 8; i++) {
		uint8_t b = cursor_u8(c);
		v = v << 7 | (b & 0x7f);
		if (!(b & 0x80))
			return v;
	}
	return v << 8 | cursor_u8(c);
}

int btree_image_of(struct view *v, struct btree_image *ret, struct err *err)
{
	const struct moment *m = view_moment(v);
	cleanup_free uint8_t *page = malloc(m->page_size);

	if (!page)
		return err_set(err, ERR_NOMEM, 0, "no memory for a page");
	*ret = (struct btree_image){.view = v, .page_size = m->page_size, .n_pages = m->n_pages};
	if (m->n_pages == 0)
		return malformed(1, err);
	int rc = view_page(v, 1, page, err);
	if (rc < 0)
		return rc;
	ret->usable = m->page_size - page[20];
	return ret->usable < 480 ? malformed(1, err) : 0;
}

/* ---- walking ---- */

struct walk {
	const struct btree_image *im;
	btree_fn *fn;
	void *ctx;
	unsigned depth;   /* of the leaves; the root has 0 */
	uint64_t visited; /* pages: a tree has no more than the image */
	uint8_t *pages;   /* one for each level */
	bool index;
};

static int find_depth(struct walk *w, uint32_t root, struct err *err)
{
	uint32_t pgno = root;

	for (w->depth = 0;; w->depth++) {
		struct parsed p;
		if (w->depth == DEPTH_MAX)
			return malformed(root, err);
		int rc = read_page(w->im, pgno, w->pages, err);
		rc = rc ? rc : parse(w->im, pgno, w->pages, &p, err);
		if (rc)
			return rc;
		if (w->depth == 0)
			w->index = p.type == INDEX_INTERIOR || p.type == INDEX_LEAF;
		if (!is_interior(&p))
			return 0;
		struct cursor c = p.n_cells ? cell(&p, 0) : (struct cursor){.bad = true};
		pgno = p.n_cells ? cursor_be32(&c) : p.right;
	}
}

static int visit(struct walk *w, uint32_t pgno, unsigned level, int64_t first, int64_t last,
                 struct err *err);

static int visit_children(struct walk *w, uint32_t pgno, const struct parsed *p, unsigned level,
                          int64_t first, int64_t last, struct err *err)
{
	for (uint32_t i = 0; i < p->n_cells; i++) {
		struct cursor c = cell(p, i);
		uint32_t child = cursor_be32(&c);
		int64_t key = w->index ? last : (int64_t)cursor_sqlite_varint(&c);
		if (!cursor_ok(&c))
			return malformed(pgno, err);
		int rc = visit(w, child, level + 1, first, key, err);
		if (rc)
			return rc;
		if (!w->index)
			first = key < INT64_MAX ? key + 1 : key;
	}
	return visit(w, p->right, level + 1, first, last, err);
}

static int visit(struct walk *w, uint32_t pgno, unsigned level, int64_t first, int64_t last,
                 struct err *err)
{
	uint8_t *data = w->pages + (size_t)level * w->im->page_size;
	struct btree_page page = {.pgno = pgno,
	                          .leaf = level == w->depth,
	                          .index = w->index,
	                          .first = first,
	                          .last = last};
	struct parsed p;

	if (pgno == 0 || pgno > w->im->n_pages || ++w->visited > w->im->n_pages)
		return malformed(pgno, err);
	if (page.leaf)
		return w->fn(w->ctx, &page, err);
	int rc = read_page(w->im, pgno, data, err);
	rc = rc ? rc : parse(w->im, pgno, data, &p, err);
	if (!rc && (!is_interior(&p) || (p.type == INDEX_INTERIOR) != w->index))
		rc = malformed(pgno, err);
	page.data = data;
	rc = rc ? rc : w->fn(w->ctx, &page, err);
	return rc ? rc : visit_children(w, pgno, &p, level, first, last, err);
}

int btree_walk(const struct btree_image *im, uint32_t root, btree_fn *fn, void *ctx,
               struct err *err)
{
	struct walk w = {.im = im, .fn = fn, .ctx = ctx};
	cleanup_free uint8_t *pages = malloc((size_t)DEPTH_MAX * im->page_size);

	if (!pages)
		return err_set(err, ERR_NOMEM, 0, "no memory for a walk");
	w.pages = pages;
	int rc = find_depth(&w, root, err);
	return rc ? rc : visit(&w, root, 0, INT64_MIN, INT64_MAX, err);
}

/* ---- overflow ---- */

/* Bytes of a payload of `n` that lie in the cell. */
static uint64_t local_bytes(uint32_t usable, bool index, uint64_t n)
{
	uint64_t max = index ? ((uint64_t)usable - 12) * 64 / 255 - 23 : (uint64_t)usable - 35;
	uint64_t min = ((uint64_t)usable - 12) * 32 / 255 - 23;

	if (n <= max)
		return n;
	uint64_t k = min + (n - min) % (usable - 4);
	return k <= max ? k : min;
}

static int follow(const struct btree_image *im, uint32_t pgno, uint64_t bytes, page_fn *fn,
                  void *ctx, struct err *err)
{
	cleanup_free uint8_t *page = malloc(im->page_size);

	if (!page)
		return err_set(err, ERR_NOMEM, 0, "no memory for a page");
	for (uint64_t left = (bytes + im->usable - 5) / (im->usable - 4); left > 0; left--) {
		int rc = read_page(im, pgno, page, err);
		rc = rc ? rc : fn(ctx, pgno, err);
		if (rc)
			return rc;
		pgno = load_be32(page);
	}
	return 0;
}

int btree_overflow(const struct btree_image *im, uint32_t pgno, page_fn *fn, void *ctx,
                   struct err *err)
{
	cleanup_free uint8_t *page = malloc(im->page_size);
	struct parsed p;

	if (!page)
		return err_set(err, ERR_NOMEM, 0, "no memory for a page");
	int rc = read_page(im, pgno, page, err);
	rc = rc ? rc : parse(im, pgno, page, &p, err);
	if (rc || p.type == TABLE_INTERIOR)
		return rc;
	for (uint32_t i = 0; i < p.n_cells; i++) {
		struct cursor c = cell(&p, i);
		if (p.type == INDEX_INTERIOR)
			cursor_take(&c, 4);
		uint64_t n = cursor_sqlite_varint(&c);
		if (p.type == TABLE_LEAF)
			cursor_sqlite_varint(&c);
		uint64_t local = local_bytes(im->usable, p.type != TABLE_LEAF, n);
		if (!cursor_ok(&c))
			return malformed(pgno, err);
		if (local == n)
			continue;
		cursor_take(&c, (size_t)local);
		uint32_t first = cursor_be32(&c);
		if (!cursor_ok(&c) || n > INT32_MAX)
			return malformed(pgno, err);
		rc = follow(im, first, n - local, fn, ctx, err);
		if (rc)
			return rc;
	}
	return 0;
}

/* ---- pages of no tree ---- */

static int walk_free(const struct btree_image *im, uint32_t trunk, page_fn *fn, void *ctx,
                     struct err *err)
{
	cleanup_free uint8_t *page = malloc(im->page_size);
	uint64_t visited = 0;

	if (!page)
		return err_set(err, ERR_NOMEM, 0, "no memory for a page");
	while (trunk) {
		if (++visited > im->n_pages)
			return malformed(trunk, err);
		int rc = read_page(im, trunk, page, err);
		rc = rc ? rc : fn(ctx, trunk, err);
		uint32_t n = rc ? 0 : load_be32(page + 4);
		if (!rc && n > im->usable / 4 - 2)
			rc = malformed(trunk, err);
		for (uint32_t i = 0; i < n && !rc; i++)
			rc = fn(ctx, load_be32(page + 8 + 4 * (size_t)i), err);
		if (rc)
			return rc;
		trunk = load_be32(page);
	}
	return 0;
}

int btree_no_tree(const struct btree_image *im, page_fn *fn, void *ctx, struct err *err)
{
	cleanup_free uint8_t *page = malloc(im->page_size);

	if (!page)
		return err_set(err, ERR_NOMEM, 0, "no memory for a page");
	int rc = read_page(im, 1, page, err);
	rc = rc ? rc : fn(ctx, lock_page(im->page_size), err);
	rc = rc ? rc : walk_free(im, load_be32(page + 32), fn, ctx, err);
	if (rc || load_be32(page + 52) == 0)
		return rc;
	/* A ptrmap page, then as many pages as it has entries of five bytes; past the lock page. */
	uint64_t step = im->usable / 5 + 1;
	for (uint64_t p = 2; p <= im->n_pages && !rc; p += step)
		rc = fn(ctx, (uint32_t)(p == lock_page(im->page_size) ? p + 1 : p), err);
	return rc;
}
