/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine/view/history.h made up: histories of any length without an archive, for the tests of
 * what lies above.  Included by the test programs that want it, which then do not link
 * the engine's own.
 *
 * A fake database has `n` commits, txids 1..n, commit i at first_us + (i - 1) * step_us (or
 * as `time_of` says), of `page_size` * `n_pages` bytes: a SQLite header in WAL mode, then
 * bytes that depend on database, txid and place.
 */
#ifndef ASOF_TESTS_LIB_FAKE_HISTORY_H
#define ASOF_TESTS_LIB_FAKE_HISTORY_H

#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "engine/view/history.h"

#include <stdatomic.h>
#include <string.h>

#define FAKE_PAGE 4096

struct history {
	const char *name;
	uint32_t id;
	_Atomic uint64_t n;
	uint64_t first; /* txids below are gone; 0: none are */
	int64_t first_us, step_us;
	int64_t known_until_us;
	int64_t gap_from_us, gap_to_us; /* declared, between commits */
	uint64_t damaged_txid;          /* reading it fails */
	bool refuses_open;
	const struct mark *marks; /* sorted by name */
	size_t n_marks;
	_Atomic unsigned n_opens, n_asked;
};

struct view {
	struct history *h;
	struct moment moment;
};

struct archive {
	const char *root;
	struct history *dbs;
	size_t n_dbs;
};

static inline int64_t fake_time(const struct history *h, uint64_t txid)
{
	return h->first_us + (int64_t)(txid - 1) * h->step_us;
}

static inline uint64_t fake_first(const struct history *h)
{
	return h->first ? h->first : 1;
}

static inline uint8_t fake_byte(const struct history *h, uint64_t txid, uint64_t offset)
{
	static const char head[] = "SQLite format 3";

	if (offset < 16)
		return (uint8_t)head[offset];
	if (offset == 18 || offset == 19)
		return 2;
	return (uint8_t)((offset * 2654435761u >> 13) ^ txid * 31 ^ h->id);
}

static inline void fake_moment(struct history *h, uint64_t txid, struct moment *m)
{
	*m = (struct moment){.txid = txid,
	                     .time_us = fake_time(h, txid),
	                     .not_before_us = txid > 1 ? fake_time(h, txid - 1) : 0,
	                     .lineage = 1,
	                     .page_size = FAKE_PAGE,
	                     .n_pages = 10 + (uint32_t)(txid % 7),
	                     .n_frames = 1};
}

void archive_free(struct archive *a)
{
}

const char *archive_root(const struct archive *a)
{
	return a->root;
}

int archive_list(struct archive *a, char ***ret, size_t *ret_n, struct err *err)
{
	size_t bytes = (a->n_dbs + 1) * sizeof(char *);
	for (size_t i = 0; i < a->n_dbs; i++)
		bytes += strlen(a->dbs[i].name) + 1;
	char **out = malloc(bytes);
	if (!out)
		return err_set(err, ERR_NOMEM, 0, "no memory");
	char *p = (char *)(out + a->n_dbs + 1);
	for (size_t i = 0; i < a->n_dbs; i++) {
		out[i] = p;
		p = stpcpy(p, a->dbs[i].name) + 1;
	}
	out[a->n_dbs] = NULL;
	*ret = out;
	*ret_n = a->n_dbs;
	return 0;
}

int history_get(struct archive *a, const char *name, struct history **ret, struct err *err)
{
	for (size_t i = 0; i < a->n_dbs; i++) {
		if (strcmp(a->dbs[i].name, name) != 0)
			continue;
		if (a->dbs[i].refuses_open)
			return err_set(err, ERR_DAMAGED, 0, "'%s' is damaged", name);
		*ret = &a->dbs[i];
		return 0;
	}
	return err_set(err, ERR_NOT_FOUND, 0, "no database '%s'", name);
}

void history_put(struct history *h)
{
}

const char *history_name(const struct history *h)
{
	return h->name;
}

uint32_t history_id(const struct history *h)
{
	return h->id;
}

int history_refresh(struct history *h, struct err *err)
{
	return 0;
}

int history_tx(struct history *h, uint64_t txid, struct moment *ret, struct err *err)
{
	h->n_asked++;
	if (txid < fake_first(h) || txid > h->n)
		return err_set(err, ERR_NOT_FOUND, 0, "no txid %llu", (unsigned long long)txid);
	fake_moment(h, txid, ret);
	return 0;
}

int history_mark(struct history *h, const char *name, struct mark *ret, struct err *err)
{
	for (size_t i = 0; i < h->n_marks; i++) {
		if (strcmp(h->marks[i].name, name) != 0)
			continue;
		*ret = h->marks[i];
		return 0;
	}
	return err_set(err, ERR_NOT_FOUND, 0, "no mark '%s'", name);
}

int history_marks(struct history *h, struct mark **ret, size_t *ret_n, struct err *err)
{
	*ret = calloc(h->n_marks + 1, sizeof(**ret));
	if (!*ret)
		return err_set(err, ERR_NOMEM, 0, "no memory");
	if (h->n_marks)
		memcpy(*ret, h->marks, h->n_marks * sizeof(**ret));
	*ret_n = h->n_marks;
	return 0;
}

int history_latest(struct history *h, struct moment *ret, struct err *err)
{
	return history_tx(h, h->n, ret, err);
}

int history_first(struct history *h, struct moment *ret, struct err *err)
{
	return history_tx(h, fake_first(h), ret, err);
}

int history_next(struct history *h, uint64_t txid, struct moment *ret, struct err *err)
{
	return history_tx(h, txid > fake_first(h) ? txid : fake_first(h), ret, err);
}

/* The txid of the first commit at or after a time; n + 1: none. */
static inline uint64_t fake_after(struct history *h, int64_t time_us)
{
	uint64_t first = fake_first(h);
	if (time_us <= fake_time(h, first))
		return first;
	uint64_t txid = (uint64_t)((time_us - h->first_us + h->step_us - 1) / h->step_us) + 1;
	return txid > h->n ? h->n + 1 : txid;
}

int history_after(struct history *h, int64_t time_us, struct moment *ret, struct err *err)
{
	return history_tx(h, fake_after(h, time_us), ret, err);
}

int history_at(struct history *h, int64_t time_us, int64_t now_us, struct moment *ret,
               struct err *err)
{
	if (time_us > now_us)
		return err_set(err, ERR_NOT_FOUND, 0, "in the future");
	if (h->n == 0 || time_us < fake_time(h, fake_first(h)))
		return err_set(err, ERR_NOT_FOUND, 0, "before the first moment");
	if (h->gap_to_us && time_us > h->gap_from_us && time_us < h->gap_to_us)
		return err_set(err, ERR_GAP, 0, "in a gap");
	uint64_t txid = fake_after(h, time_us);
	if (txid > h->n || fake_time(h, txid) > time_us)
		txid--;
	int rc = history_tx(h, txid, ret, err);
	if (rc == 0 && txid == h->n && time_us > h->known_until_us && time_us > fake_time(h, h->n))
		ret->flags |= MOMENT_PROVISIONAL;
	return rc;
}

int history_sample(struct history *h, int64_t from_us, int64_t to_us, size_t max,
                   struct moment *out, size_t *ret_n, uint64_t *ret_total, struct err *err)
{
	uint64_t a = fake_after(h, from_us), b = fake_after(h, to_us);
	uint64_t total = b > a ? b - a : 0;
	size_t n = total < max ? (size_t)total : max;

	for (size_t i = 0; i < n; i++)
		fake_moment(h, n > 1 ? a + i * (total - 1) / (n - 1) : a, &out[i]);
	*ret_n = n;
	*ret_total = total;
	return 0;
}

int history_gap(struct history *h, size_t i, struct gap *ret, struct err *err)
{
	if (i > 0 || !h->gap_to_us)
		return err_set(err, ERR_NOT_FOUND, 0, "no more gaps");
	*ret = (struct gap){1, 2, h->gap_from_us, h->gap_to_us};
	return 0;
}

int history_get_status(struct history *h, struct history_status *ret, struct err *err)
{
	*ret = (struct history_status){.first_txid = h->n ? fake_first(h) : 0,
	                               .last_txid = h->n,
	                               .first_us = fake_time(h, fake_first(h)),
	                               .last_us = fake_time(h, h->n),
	                               .known_until_us = h->known_until_us,
	                               .lineage = 1,
	                               .gaps = h->gap_to_us ? 1 : 0,
	                               .source_path = "/srv/\"live\".db"};
	return 0;
}

int view_open(struct history *h, uint64_t txid, struct view **ret, struct err *err)
{
	struct moment m;
	int rc = history_tx(h, txid, &m, err);
	if (rc < 0)
		return rc;
	struct view *v = calloc(1, sizeof(*v));
	if (!v)
		return err_set(err, ERR_NOMEM, 0, "no memory");
	*v = (struct view){h, m};
	h->n_opens++;
	*ret = v;
	return 0;
}

const struct moment *view_moment(const struct view *v)
{
	return &v->moment;
}

void view_free(struct view *v)
{
	free(v);
}

int view_read(struct view *v, uint64_t offset, void *buf, size_t len, unsigned flags,
              size_t *ret_len, struct err *err)
{
	uint64_t size = (uint64_t)v->moment.page_size * v->moment.n_pages;

	if (v->moment.txid == v->h->damaged_txid)
		return err_set(err, ERR_DAMAGED, 0, "'object' is damaged");
	*ret_len = offset >= size ? 0 : len < size - offset ? len : (size_t)(size - offset);
	for (size_t i = 0; i < *ret_len; i++) {
		uint64_t at = offset + i;
		bool patched = flags & VIEW_READ_PATCHED && (at == 18 || at == 19);
		((uint8_t *)buf)[i] = patched ? 1 : fake_byte(v->h, v->moment.txid, at);
	}
	return 0;
}

#endif
