/* SPDX-License-Identifier: Apache-2.0 */
/* The plan of upkeep, played over histories that are made up: whatever the sizes, a view stays
 * shallow, and what is written again stays in bounds. */
#include "engine/compact/compact.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#define OBJECTS_MAX 20000
#define TX_PER_SEGMENT 1000u

struct world {
	struct history_object o[OBJECTS_MAX];
	size_t n;
	uint64_t fine_bytes, coalesced_bytes, sealed_bytes, joined_bytes, base_bytes;
	uint64_t db_bytes; /* of a snapshot */
	uint64_t
	        unique_bytes; /* of pages that one segment touches; a span touches no more than db_bytes */
};

static int by_type_and_txid(const void *a, const void *b)
{
	const struct history_object *x = a, *y = b;
	int tx = x->type == HISTORY_GROWING ? HISTORY_SEGMENT : (int)x->type;
	int ty = y->type == HISTORY_GROWING ? HISTORY_SEGMENT : (int)y->type;

	if (tx != ty)
		return tx - ty;
	return x->first_txid < y->first_txid ? -1 : x->first_txid > y->first_txid;
}

static struct history_object *add(struct world *w, int type, uint64_t first, uint64_t last,
                                  uint64_t bytes)
{
	assert_true(w->n < OBJECTS_MAX);
	struct history_object *o = &w->o[w->n++];
	memset(o, 0, sizeof(*o));
	o->type = (__typeof__(o->type))type;
	o->lineage = 1;
	o->first_txid = first;
	o->last_txid = last;
	o->bytes = bytes;
	return o;
}

static void drop_fine(struct world *w, uint64_t first, uint64_t last)
{
	size_t kept = 0;

	for (size_t i = 0; i < w->n; i++) {
		const struct history_object *o = &w->o[i];
		bool fine = o->type == HISTORY_SEGMENT || o->type == HISTORY_GROWING;
		if (!(fine && o->first_txid >= first && o->last_txid <= last))
			w->o[kept++] = *o;
	}
	w->n = kept;
}

static uint64_t fine_bytes_of(const struct world *w, uint64_t first, uint64_t last)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < w->n; i++)
		if ((w->o[i].type == HISTORY_SEGMENT || w->o[i].type == HISTORY_GROWING) &&
		    w->o[i].first_txid >= first && w->o[i].last_txid <= last)
			sum += w->o[i].bytes;
	return sum;
}

static void play(struct world *w, const struct compact_job *j)
{
	uint64_t bytes;

	switch (j->type) {
	case COMPACT_SEAL:
	case COMPACT_JOIN:
		bytes = fine_bytes_of(w, j->first_txid, j->last_txid);
		drop_fine(w, j->first_txid, j->last_txid);
		add(w, HISTORY_SEGMENT, j->first_txid, j->last_txid, bytes);
		*(j->type == COMPACT_SEAL ? &w->sealed_bytes : &w->joined_bytes) += bytes;
		break;
	case COMPACT_COALESCE:
		bytes = w->unique_bytes *
		        ((j->last_txid - j->first_txid + TX_PER_SEGMENT) / TX_PER_SEGMENT);
		bytes = bytes < w->db_bytes ? bytes : w->db_bytes;
		add(w, HISTORY_COALESCED, j->first_txid, j->last_txid, bytes);
		w->coalesced_bytes += bytes;
		break;
	case COMPACT_BASE:
		add(w, HISTORY_SNAPSHOT, j->last_txid + 1, j->last_txid, w->db_bytes);
		w->base_bytes += w->db_bytes;
		break;
	case COMPACT_NOTHING:
		break;
	}
	qsort(w->o, w->n, sizeof(*w->o), by_type_and_txid);
}

/* As view/view.c plans. */
static size_t depth(const struct world *w, uint64_t txid)
{
	uint64_t base = 0, pos = 0;
	size_t n = 0;

	for (size_t i = 0; i < w->n; i++)
		if (w->o[i].type == HISTORY_SNAPSHOT && w->o[i].last_txid <= txid &&
		    w->o[i].last_txid > base) {
			base = w->o[i].last_txid;
			pos = w->o[i].first_txid - 1;
		}
	for (; pos < txid; n++) {
		uint64_t best = 0;
		for (size_t i = 0; i < w->n; i++) {
			const struct history_object *o = &w->o[i];
			bool fine = o->type == HISTORY_SEGMENT || o->type == HISTORY_GROWING;
			bool wide = o->type == HISTORY_COALESCED && o->last_txid <= txid;
			if ((fine || wide) && o->first_txid <= pos + 1 && o->last_txid > pos &&
			    o->last_txid > best)
				best = o->last_txid;
		}
		assert_true(best > pos);
		pos = best;
	}
	return n;
}

/* `segments` segments go by; upkeep does `jobs` jobs after each. */
static struct world *history_of(size_t segments, size_t jobs, uint64_t segment_bytes,
                                uint64_t unique_bytes, uint64_t db_bytes, size_t *ret_deepest)
{
	struct world *w = calloc(1, sizeof(*w));
	uint64_t txid = 1;

	w->db_bytes = db_bytes;
	w->unique_bytes = unique_bytes;
	*ret_deepest = 0;
	add(w, HISTORY_SNAPSHOT, 2, 1, db_bytes);
	for (size_t s = 0; s < segments; s++) {
		add(w, HISTORY_GROWING, txid + 1, txid + TX_PER_SEGMENT, segment_bytes);
		w->fine_bytes += segment_bytes;
		txid += TX_PER_SEGMENT;
		qsort(w->o, w->n, sizeof(*w->o), by_type_and_txid);
		for (size_t j = 0; j < jobs; j++) {
			struct compact_job job = compact_plan(w->o, w->n, segment_bytes / 2);
			if (job.type == COMPACT_NOTHING)
				break;
			play(w, &job);
		}
		size_t d = depth(w, txid) + 1; /* and the one being written to */
		*ret_deepest = d > *ret_deepest ? d : *ret_deepest;
	}
	for (uint64_t t = 1; t <= txid; t += TX_PER_SEGMENT / 2) {
		size_t d = depth(w, t);
		*ret_deepest = d > *ret_deepest ? d : *ret_deepest;
	}
	return w;
}

static void test_views_stay_shallow(void **state)
{
	static const uint64_t unique[] = {1u << 16, 1u << 20, 12u << 20};
	static const uint64_t db[] = {1u << 20, 64u << 20, 330u << 20, UINT64_C(20) << 30};
	(void)state;

	for (size_t i = 0; i < 3; i++) {
		for (size_t j = 0; j < 4; j++) {
			size_t deepest;
			struct world *w =
			        history_of(300, 100, 12u << 20, unique[i], db[j], &deepest);
			printf("unique %llu db %llu: deepest %zu, written again %.2f, bases %.2f\n",
			       (unsigned long long)unique[i], (unsigned long long)db[j], deepest,
			       (double)(w->sealed_bytes + w->joined_bytes + w->coalesced_bytes) /
			               (double)w->fine_bytes,
			       (double)w->base_bytes / (double)w->fine_bytes);
			assert_true(deepest <= 8);
			free(w);
		}
	}
}

static void test_slow_upkeep_stays_shallow(void **state)
{
	size_t deepest;
	(void)state;

	/* Two jobs for each segment: sealing falls behind, coalescing must not. */
	free(history_of(300, 2, 12u << 20, 1u << 20, 330u << 20, &deepest));
	assert_true(deepest <= 8);
}

/* Upkeep that did nothing for long makes up for it: moments of that time are shallow too. */
static void test_backlog_leaves_nothing_deep(void **state)
{
	size_t deepest;
	(void)state;

	for (unsigned mb = 1; mb <= 330; mb += 47) {
		struct world *w =
		        history_of(60, 0, 12u << 20, 1u << 20, (uint64_t)mb << 20, &deepest);
		for (struct compact_job job;
		     job = compact_plan(w->o, w->n, 6u << 20), job.type != COMPACT_NOTHING;)
			play(w, &job);
		for (uint64_t t = 1; t <= 60 * TX_PER_SEGMENT; t += TX_PER_SEGMENT / 2)
			assert_true(depth(w, t) <= 8);
		free(w);
	}
}

/* A first snapshot that took long: many segments have gone by that it needs as redo. */
static void test_long_redo_stays_shallow(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	uint64_t txid = 1, settled = 20 * TX_PER_SEGMENT + 500;
	(void)state;

	w->db_bytes = UINT64_C(20) << 30;
	w->unique_bytes = 1u << 20;
	add(w, HISTORY_SNAPSHOT, 2, settled, w->db_bytes);
	for (uint32_t i = 0; i < 40; i++, txid += TX_PER_SEGMENT)
		add(w, HISTORY_GROWING, txid + 1, txid + TX_PER_SEGMENT, 12u << 20);
	qsort(w->o, w->n, sizeof(*w->o), by_type_and_txid);
	for (struct compact_job job;
	     job = compact_plan(w->o, w->n, 6u << 20), job.type != COMPACT_NOTHING;)
		play(w, &job);
	for (uint64_t t = settled; t <= txid; t += TX_PER_SEGMENT / 2)
		assert_true(depth(w, t) <= 8);
	free(w);
}

/* Many lineages, which are not coalesced with each other; some of their ends cannot be viewed. */
static void test_lineages_stay_shallow(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	uint64_t txid = 1;
	(void)state;

	w->db_bytes = 330u << 20;
	w->unique_bytes = 1u << 20;
	add(w, HISTORY_SNAPSHOT, 2, 1, w->db_bytes);
	for (uint32_t i = 0; i < 100; i++, txid += TX_PER_SEGMENT) {
		struct history_object *o =
		        add(w, HISTORY_GROWING, txid + 1, txid + TX_PER_SEGMENT, 1u << 20);
		o->lineage = i + 1;
		o->unsettled_end = i % 3 == 1;
	}
	qsort(w->o, w->n, sizeof(*w->o), by_type_and_txid);
	for (struct compact_job job;
	     job = compact_plan(w->o, w->n, 6u << 20), job.type != COMPACT_NOTHING;)
		play(w, &job);
	for (uint64_t t = 1; t <= txid; t += TX_PER_SEGMENT / 2)
		assert_true(depth(w, t) <= 8);
	free(w);
}

static void test_bytes_written_again(void **state)
{
	size_t deepest;
	(void)state;

	/* A database whose hot pages are a tenth of what is written. */
	struct world *w = history_of(300, 100, 12u << 20, 1u << 20, 330u << 20, &deepest);
	assert_true((double)(w->sealed_bytes + w->joined_bytes + w->coalesced_bytes) <=
	            2.2 * (double)w->fine_bytes);
	free(w);
}

static void test_small_segments_are_joined(void **state)
{
	size_t deepest, small = 0;
	(void)state;

	struct world *w = history_of(200, 100, 100000, 50000, 330u << 20, &deepest);
	for (size_t i = 0; i < w->n; i++)
		small += w->o[i].type == HISTORY_SEGMENT && w->o[i].bytes < 50000;
	assert_int_equal(small, 0);
	assert_true(deepest <= 8);
	free(w);
}

static void test_nothing_without_a_base(void **state)
{
	struct history_object o[9];
	(void)state;

	memset(o, 0, sizeof(o));
	for (size_t i = 0; i < 9; i++) {
		o[i].type = HISTORY_GROWING;
		o[i].first_txid = i + 1;
		o[i].last_txid = i + 1;
	}
	assert_int_equal(compact_plan(o, 9, 0).type, COMPACT_NOTHING);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_views_stay_shallow),
	        cmocka_unit_test(test_slow_upkeep_stays_shallow),
	        cmocka_unit_test(test_backlog_leaves_nothing_deep),
	        cmocka_unit_test(test_lineages_stay_shallow),
	        cmocka_unit_test(test_long_redo_stays_shallow),
	        cmocka_unit_test(test_bytes_written_again),
	        cmocka_unit_test(test_small_segments_are_joined),
	        cmocka_unit_test(test_nothing_without_a_base),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
