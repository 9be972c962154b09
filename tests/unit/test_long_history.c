/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A long history lives through its upkeep: compaction as it grows, a pass of retention each day.
 * At its end every commit that the policy keeps reads as it was, byte for byte, every other one
 * names the two that are nearest, and what was written for it all stays within its factor.
 *
 * 12,000 commits over 36 days; ASOF_LONG_HISTORY=1000000 in the environment makes it as many as
 * that, over 400 days.  The reference is a model of its own: of each page the transactions that
 * wrote it; its content follows from page and transaction.
 */
#include "engine/archive/grow.h"
#include "engine/archive/snapshot.h"
#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "engine/compact/compact.h"
#include "engine/retain/retain.h"
#include "engine/view/replay.h"
#include "tests/lib/kept.h"
#include "tests/lib/synth.h"

#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define PAGE 512u
#define HOUR (3600 * US_PER_SECOND)
#define DAY (24 * HOUR)
#define START INT64_C(1705314600000000)
/* What compaction and retention write, sealing included, to one byte of sealed segment. */
#define FACTOR 2.2

static _Atomic bool stop;

/* The transactions that wrote a page, rising. */
struct writes {
	uint32_t *txid;
	size_t n, cap;
};

struct world {
	struct synth *s; /* folders, head and lock; none of its model */
	struct rng rng;
	struct grow_writer *w;
	struct writes *pages; /* of each page */
	uint32_t cap_pages, n_pages;
	struct hash128 *hashes; /* of each page as it is now */
	struct hash128 state;
	uint64_t n;      /* commits */
	uint32_t *sizes; /* after each */
	int64_t *times;  /* of each */
	bool *alive;
	struct kept kept;
	struct compactor *c;
	struct retainer *r;
	uint64_t made_bytes, content_bytes;
};

static void fill(uint32_t pgno, uint32_t txid, uint8_t page[PAGE])
{
	struct rng r = {(uint64_t)pgno << 32 | txid};

	memset(page, 0, PAGE); /* half of it can be compressed */
	for (size_t i = 0; i < PAGE / 2; i += 8) {
		uint64_t v = rng_next(&r);
		memcpy(page + i, &v, 8);
	}
}

static void subtract(struct hash128 *sum, struct hash128 h)
{
	uint64_t lo = sum->lo - h.lo;

	sum->hi = sum->hi - h.hi - (sum->lo < h.lo ? 1u : 0u);
	sum->lo = lo;
}

static void write_page(struct world *w, uint32_t pgno, uint32_t truncate)
{
	struct writes *p = &w->pages[pgno];
	struct err err = ERR_INIT;
	uint8_t page[PAGE];

	fill(pgno, (uint32_t)w->n + 1, page);
	synth_must(grow_frame(w->w, pgno, truncate, page, &err), &err, "grow_frame");
	subtract(&w->state, w->hashes[pgno]);
	w->hashes[pgno] = page_hash(pgno, page, PAGE);
	state_add(&w->state, w->hashes[pgno]);
	if (p->n == p->cap) {
		p->cap = p->cap ? 2 * p->cap : 4;
		p->txid = realloc(p->txid, p->cap * sizeof(*p->txid));
		assert_non_null(p->txid);
	}
	p->txid[p->n++] = (uint32_t)w->n + 1;
}

/* Most writes go to few pages; now and then the database grows, or is cut. */
static void commit(struct world *w, int64_t time_us)
{
	struct err err = ERR_INIT;
	uint32_t old = w->n_pages, size = old;

	if (!w->w)
		synth_must(grow_create(w->s->segment_fd, 1, w->n + 1, PAGE, 1, &w->w, &err), &err,
		           "grow_create");
	if (rng_chance(&w->rng, 5) && old + 2 < w->cap_pages)
		size = old + 1;
	else if (rng_below(&w->rng, 2000) == 0)
		size = old - old / 10;
	if (old == 0)
		size = w->cap_pages / 2;
	for (uint32_t p = size + 1; p <= old; p++) {
		subtract(&w->state, w->hashes[p]);
		w->hashes[p] = (struct hash128){0, 0};
	}
	for (uint32_t p = old + 1; p <= size; p++)
		write_page(w, p, 0);
	for (uint64_t k = rng_below(&w->rng, 2); k > 0; k--) {
		uint32_t few = size / 12 + 1;
		uint32_t p = 2 + (uint32_t)rng_below(&w->rng, rng_chance(&w->rng, 90) ? few : size);
		if (p <= size && p > 1)
			write_page(w, p, 0);
	}
	write_page(w, 1, size);
	w->n_pages = size;
	struct commit c = {.txid = w->n + 1,
	                   .time_us = time_us,
	                   .not_before_us = time_us - 1000,
	                   .n_pages = size,
	                   .state = w->state};
	synth_must(grow_commit(w->w, &c, &err), &err, "grow_commit");
	w->sizes[w->n] = size;
	w->times[w->n] = time_us;
	w->alive[w->n] = true;
	w->n++;
	if (grow_batch_full(w->w))
		synth_must(grow_end_batch(w->w, &(struct source_position){0}, true, &err), &err,
		           "batch");
}

static void publish(struct world *w, bool cut)
{
	struct err err = ERR_INIT;
	struct head *h = &w->s->head;

	if (!w->w)
		return;
	synth_must(grow_end_batch(w->w, &(struct source_position){0}, true, &err), &err, "batch");
	synth_must(grow_sync(w->w, false, &err), &err, "sync");
	h->growing_txid = grow_writer_info(w->w)->first_txid;
	h->durable_len = grow_length(w->w);
	h->last_txid = w->n;
	h->last_us = h->known_until_us = w->times[w->n - 1];
	if (cut) {
		w->content_bytes += grow_content_len(w->w);
		grow_writer_free(take_ptr(w->w));
		h->growing_txid = h->durable_len = 0;
	}
	synth_generation(w->s);
}

static void first_snapshot(struct world *w)
{
	struct snapshot_writer *sw;
	struct err err = ERR_INIT;
	uint8_t page[PAGE];
	uint64_t bytes;

	synth_must(snapshot_create(w->s->snapshot_fd, "first.tmp", PAGE, 6, &sw, &err), &err, "");
	for (uint32_t p = 1; p <= w->n_pages; p++) {
		fill(p, w->pages[p].txid[w->pages[p].n - 1], page);
		synth_must(snapshot_append(sw, page, PAGE, &err), &err, "snapshot_append");
	}
	const struct snapshot_info info = {
	        PAGE, 1, w->n_pages, w->n, w->n, w->times[w->n - 1], 0, w->state};
	synth_must(snapshot_finish(sw, &info, &bytes, &err), &err, "snapshot_finish");
	snapshot_writer_free(sw);
	synth_generation(w->s);
}

static void compact(struct world *w)
{
	struct err err = ERR_INIT;
	bool did = true;

	while (did) {
		synth_must(compactor_step(w->c, &stop, &did, &err), &err, "compactor_step");
		synth_generation(w->s);
	}
}

static void pass(struct world *w, const struct retain_policy *policy, int64_t now)
{
	struct retain_result res;
	struct err err = ERR_INIT;

	synth_must(retainer_run(w->r, policy, now, &stop, getenv("ASOF_TEST_LOG") ? stderr : NULL,
	                        &res, &err),
	           &err, "retainer_run");
	w->made_bytes += res.made_bytes;
	w->kept.n = w->n;
	assert_true(res.fine_txid >= w->kept.fine &&
	            res.fine_txid <= kept_limit(&w->kept, policy, now));
	kept_pass(&w->kept, policy, now, NULL, 0, res.fine_txid);
	synth_generation(w->s);
}

/* ---- looking at the end ---- */

/* The transaction whose version of the page is that of `txid`; 0: not written, or cut since. */
static uint32_t version_at(const struct world *w, uint32_t pgno, uint64_t txid)
{
	const struct writes *p = &w->pages[pgno];
	size_t lo = 0, hi = p->n;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;
		if (p->txid[mid] <= txid)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo ? p->txid[lo - 1] : 0;
}

static size_t compare(const struct world *w, struct history *h, uint64_t txid)
{
	cleanup_view struct view *v = NULL;
	struct err err = ERR_INIT;
	uint8_t page[PAGE], want[PAGE];

	synth_must(view_open(h, txid, &v, &err), &err, "a commit that is kept");
	assert_int_equal(view_size(v), (uint64_t)w->sizes[txid - 1] * PAGE);
	assert_int_equal(view_moment(v)->time_us, w->times[txid - 1]);
	for (uint32_t p = 1; p <= w->sizes[txid - 1]; p++) {
		synth_must(view_page(v, p, page, &err), &err, "a page");
		fill(p, version_at(w, p, txid), want);
		if (memcmp(page, want, PAGE) != 0)
			synth_die("transaction %" PRIu64 " page %u: wrong bytes", txid, p);
	}
	return view_depth(v);
}

/* The error names the kept ones before and after it. */
static void check_named(const struct world *w, uint64_t txid, const struct err *why)
{
	uint64_t before = txid, after = txid;
	char text[64];

	assert_int_equal(why->kind, ERR_NOT_FOUND);
	while (before > 0 && !w->alive[before - 1])
		before--;
	while (!w->alive[after - 1])
		after++;
	if (before > 0) {
		snprintf(text, sizeof(text), "(txid %" PRIu64 ")", before);
		if (!strstr(why->msg, text))
			synth_die("%" PRIu64 " does not name %" PRIu64 ": %s", txid, before,
			          why->msg);
	}
	snprintf(text, sizeof(text), "(txid %" PRIu64 ")", after);
	if (!strstr(why->msg, text))
		synth_die("%" PRIu64 " does not name %" PRIu64 ": %s", txid, after, why->msg);
}

static void check_end(struct world *w)
{
	struct archive *a;
	struct history *h;
	struct err err = ERR_INIT;
	struct moment m;
	uint64_t kept = 0, step = w->n / 3000 + 1;
	size_t deepest = 0;

	synth_must(archive_open(w->s->root, NULL, &a, &err), &err, "archive_open");
	synth_must(history_get(a, "x.db", &h, &err), &err, "history_get");
	for (uint64_t t = 1; t <= w->n; t++) {
		if (!w->alive[t - 1])
			continue;
		/* Of the many of the last days one in some; of what was thinned each. */
		if (t > w->kept.fine && t % step != 0 && t != w->n)
			continue;
		size_t d = compare(w, h, t);
		deepest = d > deepest ? d : deepest;
		kept++;
		synth_must(history_at(h, w->times[t - 1], INT64_MAX, &m, &err), &err, "as of it");
		assert_int_equal(m.txid, t);
	}
	uint64_t named = 0;
	for (uint64_t t = 1 + rng_below(&w->rng, step); t <= w->kept.fine; t += step) {
		struct err why = ERR_INIT;
		if (w->alive[t - 1])
			continue;
		assert_true(history_tx(h, t, &m, &why) < 0);
		check_named(w, t, &why);
		why = (struct err)ERR_INIT;
		if (history_at(h, w->times[t - 1], INT64_MAX, &m, &why) == 0)
			synth_die("as of transaction %" PRIu64 " there is %" PRIu64, t, m.txid);
		named++;
	}
	printf("%" PRIu64 " commits read, %" PRIu64 " named, at most %zu objects over a base\n",
	       kept, named, deepest);
	assert_true(named > 100 && kept > 100);
	assert_true(deepest <= 8);
	history_put(h);
	archive_free(a);
}

static uint64_t stored_bytes(const struct world *w)
{
	struct history_object *o;
	struct archive *a;
	struct history *h;
	struct err err = ERR_INIT;
	uint64_t sum = 0;
	size_t n;

	synth_must(archive_open(w->s->root, NULL, &a, &err), &err, "archive_open");
	synth_must(history_get(a, "x.db", &h, &err), &err, "history_get");
	synth_must(history_objects(h, &o, &n, &err), &err, "objects");
	for (size_t i = 0; i < n; i++)
		sum += o[i].bytes;
	free(o);
	history_put(h);
	archive_free(a);
	return sum;
}

static void test_long_history(void **state)
{
	cleanup_free char *root = test_folder();
	const struct synth_options o = {.seed = test_seed(), .page_size = PAGE, .max_pages = 1};
	const char *text = getenv("ASOF_LONG_HISTORY");
	bool short_one = getenv("ASOF_TEST_SHORT"); /* valgrind */
	uint64_t n = text ? strtoull(text, NULL, 10) : short_one ? 2000 : 12000;
	uint64_t days = n > 100000 ? 400 : short_one ? 8 : 36;
	int64_t pace = (int64_t)(days * (uint64_t)DAY / n), time_us = START, next_day = START + DAY;
	uint64_t segment = n > 100000 ? n / 400 : 50;
	struct world w = {.s = synth_new(root, "x.db", &o), .cap_pages = n > 100000 ? 3000 : 300};
	struct retain_policy policy;
	struct compact_stats st;
	struct err err = ERR_INIT;

	w.rng.s = o.seed;
	w.pages = calloc(w.cap_pages + 1, sizeof(*w.pages));
	w.hashes = calloc(w.cap_pages + 1, sizeof(*w.hashes));
	w.sizes = calloc(n, sizeof(*w.sizes));
	w.times = calloc(n, sizeof(*w.times));
	w.alive = calloc(n, sizeof(*w.alive));
	assert_true(w.pages && w.hashes && w.sizes && w.times && w.alive);
	w.kept = (struct kept){.times = w.times, .alive = w.alive};
	retain_policy_default(&policy);
	policy.min_free_percent = 0;
	while (w.n < n) {
		time_us += 1 + (int64_t)rng_below(&w.rng, (uint64_t)(2 * pace));
		commit(&w, time_us);
		if (w.n == 1) {
			publish(&w, false);
			first_snapshot(&w);
			synth_must(compactor_new(root, "x.db", &w.c, &err), &err, "compactor_new");
			synth_must(retainer_new(root, "x.db", &w.r, &err), &err, "retainer_new");
		}
		if (w.n % segment == 0) {
			publish(&w, true);
			compact(&w);
		}
		if (time_us >= next_day) {
			publish(&w, false);
			pass(&w, &policy, time_us);
			next_day += DAY;
		}
	}
	publish(&w, true);
	compact(&w);
	pass(&w, &policy, time_us);
	compactor_get_stats(w.c, &st);
	uint64_t written = st.sealed_bytes + st.joined_bytes + st.coalesced_bytes + st.base_bytes +
	                   w.made_bytes;
	double factor = (double)written / (double)st.sealed_bytes;
	printf("%" PRIu64
	       " commits, %.1f MB of WAL, sealed %.1f MB; joined %.1f coalesced %.1f bases "
	       "%.1f retention %.1f: factor %.2f; %.1f MB kept\n",
	       w.n, (double)w.content_bytes / 1e6, (double)st.sealed_bytes / 1e6,
	       (double)st.joined_bytes / 1e6, (double)st.coalesced_bytes / 1e6,
	       (double)st.base_bytes / 1e6, (double)w.made_bytes / 1e6, factor,
	       (double)stored_bytes(&w) / 1e6);
	check_end(&w);
	assert_true(factor <= FACTOR);
	compactor_free(w.c);
	retainer_free(w.r);
	grow_writer_free(w.w);
	for (uint32_t p = 0; p <= w.cap_pages; p++)
		free(w.pages[p].txid);
	free(w.pages);
	free(w.hashes);
	free(w.sizes);
	free(w.times);
	free(w.alive);
	synth_free(w.s);
	test_remove(root);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_long_history)};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
