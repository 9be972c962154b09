/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What was thinned, where two places of one history thinned it each in its own way.
 *
 * A place shows the points of its note `thinned`, and every transaction behind its until_txid.  Both
 * together have the points of both, and behind some transaction no hole any more:
 *
 *   first    p1      p2         p3=U ----------------
 *   second   q1  q2=U --------                         points p1 q1 q2 p2 p3, until p3
 *   second   q1  q2=U ---------------                  points p1 q1 q2, until q2
 *   second   --------------------------                no note
 *
 * So until_txid becomes the first of all points behind which nothing is missing.  What one of them still
 * shows between it and points before is no point, and is not shown there any more.
 */
#include "engine/copy/between_i.h"

#include "engine/base/log.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- the points of both ---- */

/* Both know one and the same transaction; until when it was the newest is what is surer. */
static int point_compare(const void *a, const void *b)
{
	const struct thinned_point *x = a, *y = b;

	if (x->txid != y->txid)
		return x->txid < y->txid ? -1 : 1;
	return x->until_us < y->until_us ? -1 : x->until_us > y->until_us;
}

static int root_compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void take_points(const struct thinned_note *from, struct thinned_note *to)
{
	for (size_t i = 0; i < from->n_points; i++)
		if (from->points[i].txid <= to->until_txid)
			to->points[to->n_points++] = from->points[i];
	for (size_t i = 0; i < from->n_roots; i++)
		if (from->roots[i] <= to->until_txid)
			to->roots[to->n_roots++] = from->roots[i];
}

int copy_unite_points(const struct thinned_note *a, const struct thinned_note *b,
                      struct thinned_note *ret, struct err *err)
{
	size_t kept = 0;

	ret->points = calloc(a->n_points + b->n_points + 1, sizeof(*ret->points));
	ret->roots = calloc(a->n_roots + b->n_roots + 1, sizeof(*ret->roots));
	if (!ret->points || !ret->roots)
		return err_set(err, ERR_NOMEM, 0, "no memory for a note");
	take_points(a, ret);
	take_points(b, ret);
	qsort(ret->points, ret->n_points, sizeof(*ret->points), point_compare);
	for (size_t i = 0; i < ret->n_points; i++)
		if (kept == 0 || ret->points[kept - 1].txid != ret->points[i].txid)
			ret->points[kept++] = ret->points[i];
	ret->n_points = kept;
	qsort(ret->roots, ret->n_roots, sizeof(*ret->roots), root_compare);
	kept = 0;
	for (size_t i = 0; i < ret->n_roots; i++)
		if (kept == 0 || ret->roots[kept - 1] != ret->roots[i])
			ret->roots[kept++] = ret->roots[i];
	ret->n_roots = kept;
	return 0;
}

/* ---- from store to store ---- */

/* Both notes; zero where there is none. */
struct both {
	struct thinned_note from, to;
	struct buf from_text, to_text;
};

static void both_release(struct both *x)
{
	thinned_note_release(&x->from);
	thinned_note_release(&x->to);
	buf_release(&x->from_text);
	buf_release(&x->to_text);
}

static int read_one(const struct between *b, struct store *s, struct buf *text,
                    struct thinned_note *ret, struct err *err)
{
	cleanup_buf struct buf copy = BUF_INIT(COPY_NOTE_MAX + 1);

	int rc = between_get(s, b, "thinned", text, err);
	rc = rc ? rc : buf_append(&copy, text->data, text->len, err);
	rc = rc ? rc : buf_append(&copy, "", 1, err);
	return rc ? rc : thinned_note_parse((char *)copy.data, copy.len - 1, ret, err);
}

/*
 * What lies in the stretch that the first thinned does not count as shown by it.  But it comes, too, and
 * where it goes on from what the second holds, it does go on: a segment that reaches beyond, a snapshot.
 */
static int add_continued(const struct between *b, uint64_t until, struct spans *held,
                         struct err *err)
{
	int rc = 0;

	spans_sort(held);
	for (size_t i = 0; i < b->here.n && rc == 0; i++) {
		const struct thing *t = b->here.order[i];
		struct span h;
		if (!thing_holds(&b->here, t, &h) || h.first > until || !between_can_bring(b, t) ||
		    (t->kind == THING_SEALED && h.last <= until) ||
		    (t->kind == THING_LEVEL0 && t != things_last_level0(&b->here) &&
		     h.last <= until) ||
		    spans_reach(held, h.first - 1) < h.first)
			continue;
		rc = spans_add(held, h.first, t->kind == THING_SNAPSHOT ? h.last : until, err);
		spans_sort(held);
	}
	return rc;
}

/* The first is whole behind its own, also where one lineage follows another.  The second can have what an
 * interrupted copy brought of the next lineage, and not its beginning. */
static int add_ends(const struct between *b, uint64_t from, struct spans *held, struct err *err)
{
	int rc = 0;

	for (size_t i = 0; i < b->here.n && rc == 0; i++) {
		const struct thing *t = &b->here.v[i];
		struct span h;
		if (thing_reaches_next(&b->here, t, &h) && h.last > from && between_can_bring(b, t))
			rc = spans_add(held, h.first > from ? h.first : from + 1, h.last, err);
	}
	return rc;
}

/* From which transaction on nothing is missing in what both show; UINT64_MAX: neither has a segment. */
static int find_dense(const struct between *b, const struct both *x, uint64_t *ret, struct err *err)
{
	uint64_t from = x->from.until_txid, to = x->to.until_txid;
	cleanup_spans struct spans held = {0};

	int rc = things_held(&b->there, to, &b->here, &held, err);
	if (rc == 0)
		rc = add_continued(b, from, &held, err);
	for (size_t i = 0; i < b->here.n && rc == 0; i++) {
		const struct thing *t = &b->here.v[i];
		struct span h;
		if (thing_holds(&b->here, t, &h) && h.last > from && between_can_bring(b, t))
			rc = spans_add(&held, h.first > from ? h.first : from + 1, h.last, err);
	}
	if (rc == 0)
		rc = add_ends(b, from, &held, err);
	/* Each is whole behind its own; of the newest of level 0 no name tells how far. */
	if (rc == 0 && from)
		rc = spans_add(&held, from + 1, from + 1, err);
	if (rc == 0 && to)
		rc = spans_add(&held, to + 1, to + 1, err);
	if (rc < 0)
		return rc;
	spans_sort(&held);
	*ret = spans_next(&held, 0);
	for (uint64_t next = *ret; next != UINT64_MAX;) {
		*ret = next;
		next = spans_next(&held, spans_reach(&held, next));
	}
	return 0;
}

static bool is_all(const struct things *ts, const struct thinned_note *n, uint64_t dense_txid)
{
	uint64_t first = things_first(ts);

	return n->until_txid == 0 && first != UINT64_MAX && first >= dense_txid;
}

/* 0: nothing is thinned of what both show. */
static int find_until(const struct between *b, const struct both *x, uint64_t *ret, struct err *err)
{
	const struct thinned_note *const notes[] = {&x->from, &x->to};
	uint64_t dense = UINT64_MAX, least = UINT64_MAX;
	bool before = false;

	*ret = x->from.until_txid > x->to.until_txid ? x->from.until_txid : x->to.until_txid;
	int rc = find_dense(b, x, &dense, err);
	if (rc < 0 || dense == UINT64_MAX)
		return rc;
	for (size_t k = 0; k < 2; k++)
		for (size_t i = 0; i < notes[k]->n_points; i++) {
			uint64_t txid = notes[k]->points[i].txid;
			if (txid + 1 < dense)
				before = true;
			else if (txid < least)
				least = txid;
		}
	if (!before && (is_all(&b->here, &x->from, dense) || is_all(&b->there, &x->to, dense)))
		*ret = 0;
	else if (least != UINT64_MAX)
		*ret = least;
	return 0;
}

static bool same_text(const struct buf *a, const struct buf *b)
{
	return a->len == b->len && (a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}

static int put(struct between *b, const struct both *x, const struct buf *text, struct err *err)
{
	const struct thing *t = things_find(&b->here, "thinned");
	char key[STORE_KEY_MAX + 1];
	bool damaged;

	if (t && same_text(text, &x->from_text))
		return between_bring(b, t, 0, &damaged, err);
	between_key(b, "thinned", key);
	return store_put_bytes(b->open_to, key, text->data, text->len, 0, err);
}

static int unite(struct between *b, const struct both *x, struct err *err)
{
	cleanup_buf struct buf text = BUF_INIT(COPY_NOTE_MAX);
	struct thinned_note n = {0};

	int rc = find_until(b, x, &n.until_txid, err);
	b->until_txid = n.until_txid;
	if (rc == 0 && n.until_txid)
		rc = copy_unite_points(&x->from, &x->to, &n, err);
	if (rc == 0 && n.until_txid)
		rc = thinned_note_format(&n, &text, err);
	thinned_note_release(&n);
	if (rc < 0 || same_text(&text, &x->to_text))
		return rc;
	log_debug("copy", "thinned db=%s from=%" PRIu64 " to=%" PRIu64 ": until=%" PRIu64, b->name,
	          x->from.until_txid, x->to.until_txid, b->until_txid);
	if (b->until_txid < x->to.until_txid) { /* of what comes now more can be had */
		b->thinned_later = true;
		return buf_append(&b->thinned, text.data, text.len, err);
	}
	rc = between_bring_objects(b, false, err);
	return rc < 0 ? rc : put(b, x, &text, err);
}

/* Without a key nobody can unite what is sealed: the first's becomes the second's, unless that has all that
 * was thinned. */
static int replace(struct between *b, struct err *err)
{
	cleanup_buf struct buf from = BUF_INIT(COPY_NOTE_MAX), to = BUF_INIT(COPY_NOTE_MAX);
	const struct thing *t = things_find(&b->here, "thinned"),
	                   *there = things_find(&b->there, "thinned");
	bool damaged, whole = false;
	int rc = 0;

	if (!t)
		return 0;
	if (there) {
		rc = between_get(b->from, b, t->file, &from, err);
		rc = rc ? rc : between_get(b->to, b, t->file, &to, err);
		if (rc < 0 || same_text(&from, &to))
			return rc;
	}
	rc = things_are_whole(&b->there, &b->here, &whole, err);
	if (rc < 0 || whole)
		return rc;
	rc = between_bring_objects(b, false, err);
	return rc < 0 ? rc : between_bring(b, t, 0, &damaged, err);
}

int between_thinned_before(struct between *b, struct err *err)
{
	CLEANUP(both_release)
	struct both x = {.from_text = BUF_INIT(COPY_NOTE_MAX), .to_text = BUF_INIT(COPY_NOTE_MAX)};
	bool here = things_find(&b->here, "thinned"), there = things_find(&b->there, "thinned");
	struct err why = ERR_INIT;
	int rc = 0;

	b->thinned_later = false;
	b->until_txid = 0;
	buf_clear(&b->thinned);
	if (!here && !there)
		return 0;
	if (!b->open_from || !b->open_to)
		return replace(b, err);
	if (here)
		rc = read_one(b, b->open_from, &x.from_text, &x.from, &why);
	if (rc == 0 && there)
		rc = read_one(b, b->open_to, &x.to_text, &x.to, &why);
	if (rc < 0 && why.kind == ERR_DENIED && b->sealed) /* it is another one's key */
		return replace(b, err);
	return rc < 0 ? err_copy(err, &why) : unite(b, &x, err);
}

int between_thinned_after(struct between *b, struct err *err)
{
	char key[STORE_KEY_MAX + 1];
	struct err why = ERR_INIT;

	if (!b->thinned_later)
		return 0;
	between_key(b, "thinned", key);
	if (b->thinned.len)
		return store_put_bytes(b->open_to, key, b->thinned.data, b->thinned.len, 0, err);
	/* Where it stays, less can be had than is there. */
	int rc = store_remove(b->to, key, &why);
	return rc < 0 && why.kind != ERR_DENIED ? err_copy(err, &why) : 0;
}
