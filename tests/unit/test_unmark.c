/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Marks that are taken away in an archive go at its destinations, with the moments that they alone kept;
 * those of others stay; whatever fails, and whoever carries it out.
 */
#include "engine/archive/given.h"
#include "engine/archive/notes.h"
#include "engine/base/log.h"
#include "tests/lib/world.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define KEY_OF_M "local/x.db/m.mark"

static bool is_there(struct store *store, const char *file)
{
	cleanup_buf struct buf b = BUF_INIT(4096);
	char key[100];

	snprintf(key, sizeof(key), "local/x.db/%s", file);
	return store_get(store, key, 4096, &b, NULL) == 0;
}

static void ship_marks(const char *root, struct store *store)
{
	struct shipper *sh = open_shipper(root, store, HOUR);
	struct err err = ERR_INIT;

	synth_must(ship_all(sh, &err), &err, "ship");
	shipper_free(sh);
}

static void take_away(struct world *w, const char *name)
{
	struct err err = ERR_INIT;

	synth_must(retain_unmark(w->s->root, "x.db", name, &err), &err, "unmark");
	w->n_marks = 0;
}

/* Some moment of the past, which a mark alone keeps. */
static uint64_t mark_past(struct world *w, const char *name)
{
	struct err err = ERR_INIT;
	uint64_t t = 0;

	for (uint64_t x = 3; x < w->k.n / 2 && !t; x++)
		if (w->k.alive[x - 1] && w->k.alive[x] && w->k.alive[x - 2])
			t = x;
	assert_true(t > 0);
	synth_must(retain_mark(w->s->root, "x.db", name, t, &err), &err, "mark");
	w->marks[0] = t;
	w->n_marks = 1;
	return t;
}

static void make_marked(struct world *w, const char *root, struct retain_policy *policy,
                        int64_t *now)
{
	thinned_policy(policy, "all:20m", 0);
	world_sent(w, root, 14);
	*now = w->k.times[w->k.n - 1] + 100 * DAY;
}

/* It goes there, and its moment with it, by a shipper that was there or by one that comes. */
static void test_unmark(void **state)
{
	for (unsigned i = 0; i < 4; i++) {
		cleanup_free char *root = test_folder();
		struct retain_policy policy;
		struct world w;
		int64_t now;

		make_marked(&w, root, &policy, &now);
		struct shipper *sh = open_shipper(root, w.store, HOUR);
		struct err err = ERR_INIT;
		uint64_t t = mark_past(&w, "m");
		synth_must(ship_all(sh, &err), &err, "ship");
		assert_true(is_there(w.store, "m.mark"));
		world_pass(&w, &policy, now);
		assert_true(w.k.alive[t - 1]);
		if (i % 2)
			shipper_free(take_ptr(sh));
		struct breaking b = break_after(w.store, -1, false);
		if (i < 2)
			take_away(&w, "m");
		if (i >= 2) { /* none of its own: what another one marked there, or anew, stays */
			cleanup_buf struct buf note = BUF_INIT(4096);
			synth_must(store_get(w.store, KEY_OF_M, 4096, &note, &err), &err, "");
			note.data[note.len - 20] ^= 1;
			synth_must(store_put_bytes(w.store, KEY_OF_M, note.data, note.len, 0, &err),
			           &err, "another's");
			synth_must(store_put_bytes(w.store, "local/x.db/other.mark", note.data,
			                           note.len, 0, &err),
			           &err, "another's");
			take_away(&w, "m");
		}
		if (sh)
			synth_must(ship_all(sh, &err), &err, "ship");
		else
			ship_marks(root, w.store);
		assert_int_equal(is_there(w.store, "m.mark"), i >= 2);
		assert_int_equal(is_there(w.store, "other.mark"), i >= 2);
		if (i < 2) {
			world_pass(&w, &policy, now); /* it is due by that alone */
			assert_false(w.k.alive[t - 1]);
		}
		if (sh) /* and nothing more is asked */
			shipper_free(sh);
		sh = open_shipper(root, &b.base, HOUR);
		for (int k = 0; k < 5; k++)
			synth_must(ship_all(sh, &err), &err, "ship");
		uint64_t n = b.n;
		for (int k = 0; k < 20; k++)
			synth_must(ship_all(sh, &err), &err, "ship");
		assert_int_equal(b.n, n);
		shipper_free(sh);
		world_free(&w);
		test_remove(root);
	}
}

static void forget_given(const char *root)
{
	char command[600];

	snprintf(command, sizeof(command), "rm -f '%s'/local/x.db/given-*", root);
	assert_int_equal(system(command), 0);
}

/*
 * Taken away when nobody looked: by who comes to send, or by retention there, which needs no sender; where
 * no list tells that it was given (the place has it from a copy, or under another spelling of its URL), too.
 */
static void test_unmark_unseen(void **state)
{
	for (unsigned i = 0; i < 8; i++) {
		cleanup_free char *root = test_folder();
		cleanup_buf struct buf note = BUF_INIT(4096);
		struct err err = ERR_INIT;
		bool listed = i & 1, by_retention = i & 2, anew = i & 4;
		struct retain_policy policy;
		struct world w;
		int64_t now;

		make_marked(&w, root, &policy, &now);
		uint64_t t = mark_past(&w, "m");
		ship_marks(root, w.store);
		synth_must(store_get(w.store, KEY_OF_M, 4096, &note, &err), &err, "get");
		world_pass(&w, &policy, now);
		if (!listed)
			forget_given(root);
		take_away(&w, "m");
		if (anew) { /* the same name, and another note */
			synth_must(retain_mark(root, "x.db", "m", t, &err), &err, "mark");
			w.n_marks = 1;
		}
		if (!by_retention)
			ship_marks(root, w.store);
		world_pass(&w, &policy, now);
		assert_int_equal(w.k.alive[t - 1], anew);
		if (anew)
			ship_marks(root, w.store);
		assert_int_equal(is_there(w.store, "m.mark"), anew);
		/* It is carried out once: who puts it there again means it. */
		if (!anew)
			synth_must(store_put_bytes(w.store, KEY_OF_M, note.data, note.len, 0, &err),
			           &err, "put");
		synth_must(retain_mark(root, "x.db", "n", w.k.n, &err), &err, "mark");
		ship_marks(root, w.store);
		assert_true(is_there(w.store, "m.mark") && is_there(w.store, "n.mark"));
		world_free(&w);
		test_remove(root);
	}
}

/* The list of what was taken away stays short, and in order. */
static void test_unmarked_list(void **state)
{
	cleanup_free char *root = test_folder(), *path = NULL;
	struct given_marks a = {0};
	struct retain_policy policy;
	struct err err = ERR_INIT;
	struct world w;
	int64_t now;
	char name[20];

	make_marked(&w, root, &policy, &now);
	assert_true(asprintf(&path, "%s/local/x.db", root) > 0);
	int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (unsigned i = 0; i < 1020; i++) {
		const struct mark_note n = {.txid = 1, .time_us = 1, .made_us = i};
		snprintf(name, sizeof(name), "%u.mark", i);
		cleanup_free char *mark = strndup(name, strlen(name) - 5);
		synth_must(mark_note_put(dir, mark, &n, &err), &err, "put");
		synth_must(given_note_removal(dir, name, &err), &err, "note");
		synth_must(mark_note_delete(dir, mark, &err), &err, "delete");
		if (i == 499) {
			synth_must(given_marks_get(dir, "a", &a, &err), &err, "get");
			assert_int_equal(a.n, 500);
			while (a.n)
				given_marks_drop(&a, 0);
			synth_must(given_marks_put(dir, "a", &a, &err), &err, "put");
			given_marks_release(&a);
		}
	}
	synth_must(given_marks_get(dir, "a", &a, &err), &err, "get");
	assert_int_equal(a.n, 520); /* what came since it looked */
	given_marks_release(&a);
	synth_must(given_marks_get(dir, "b", &a, &err), &err, "get");
	assert_int_equal(a.n, 1000);
	assert_true(given_marks_find(&a, "19.mark") == SIZE_MAX);
	assert_true(given_marks_find(&a, "20.mark") == 0);
	assert_true(given_marks_find(&a, "1019.mark") == 999);
	given_marks_release(&a);
	close(dir);
	world_free(&w);
	test_remove(root);
}

/* One that never had it leaves it there. */
static void test_unmarked_elsewhere(void **state)
{
	cleanup_free char *root = test_folder(), *other = NULL;
	struct retain_policy policy;
	struct err err = ERR_INIT;
	char from[200];
	struct world w;
	int64_t now;

	make_marked(&w, root, &policy, &now);
	other = copy_of(root);
	mark_past(&w, "m");
	ship_marks(root, w.store);
	assert_true(is_there(w.store, "m.mark"));
	const struct ship_options o = {
	        .archive = other, .name = "x.db", .url = URL, .store = w.store, .grace_us = HOUR};
	synth_must(ship_take_over(&o, from, &err), &err, "take over");
	ship_marks(other, w.store);
	assert_true(is_there(w.store, "m.mark"));
	/* The one before, which wakes up, is refused. */
	take_away(&w, "m");
	struct shipper *sh = open_shipper(root, w.store, HOUR);
	assert_int_equal(ship_all(sh, &err), -ERR_REFUSED);
	shipper_free(sh);
	assert_true(is_there(w.store, "m.mark"));
	world_free(&w);
	test_remove(root);
	test_remove(other);
}

/* An archive that is being deleted while the mark is on its way out. */
struct deleting {
	const struct breaking *b;
	const char *source;
	long at, n, removed_at; /* requests; -1: never */
};

static void delete_source(void *ctx)
{
	struct deleting *d = ctx;

	if (d->b->removals && d->removed_at < 0)
		d->removed_at = d->n - 1;
	if (d->n++ == d->at)
		assert_int_equal(unlink(d->source), 0);
}

static void test_archive_deleted(void **state)
{
	cleanup_free char *root = test_folder();
	cleanup_free char *source = NULL, *kept = NULL;
	struct retain_policy policy;
	struct err err = ERR_INIT;
	struct world w;
	int64_t now;
	long removed_at = 1;

	make_marked(&w, root, &policy, &now);
	assert_true(asprintf(&source, "%s/local/x.db/source", root) > 0 &&
	            asprintf(&kept, "%s.kept", source) > 0);
	for (long at = -1; at < removed_at; at++) {
		mark_past(&w, "m");
		ship_marks(root, w.store);
		assert_int_equal(link(source, kept), 0);
		take_away(&w, "m");
		struct breaking b = break_after(w.store, -1, false);
		struct deleting d = {&b, source, at, 0, -1};
		b.before = delete_source;
		b.ctx = &d;
		struct shipper *sh = open_shipper(root, &b.base, HOUR);
		(void)!ship_all(sh, &err);
		shipper_free(sh);
		assert_int_equal(is_there(w.store, "m.mark"), at >= 0);
		if (at < 0)
			removed_at = d.removed_at < 0 ? d.n - 1 : d.removed_at;
		if (at >= 0)
			assert_int_equal(rename(kept, source), 0);
		else
			assert_int_equal(unlink(kept), 0);
		ship_marks(root, w.store);
		assert_false(is_there(w.store, "m.mark"));
	}
	assert_true(removed_at > 3);
	world_free(&w);
	test_remove(root);
}

/* Each request failing, before and after it took effect; and deletion denied. */
static void test_unmark_failing(void **state)
{
	cleanup_free char *root = test_folder();
	struct retain_policy policy;
	struct err err = ERR_INIT;
	struct world w;
	int64_t now;
	bool ended = false;

	make_marked(&w, root, &policy, &now);
	for (long at = 0; !ended; at++) {
		mark_past(&w, "m");
		ship_marks(root, w.store);
		assert_true(is_there(w.store, "m.mark"));
		take_away(&w, "m");
		struct breaking b = break_after(w.store, at / 2, at % 2);
		struct shipper *sh = open_shipper(root, &b.base, HOUR);
		err = (struct err)ERR_INIT;
		ended = ship_all(sh, &err) == 0;
		shipper_free(sh);
		ship_marks(root, w.store);
		assert_false(is_there(w.store, "m.mark"));
		assert_true(at < 200);
	}
	mark_past(&w, "m");
	ship_marks(root, w.store);
	take_away(&w, "m");
	struct breaking b = break_after(w.store, -1, false);
	b.denies = deny_all;
	for (int i = 0; i < 3; i++)
		ship_marks(root, &b.base);
	assert_true(is_there(w.store, "m.mark"));
	ship_marks(root, w.store); /* nothing changed: it is not tried again */
	mark_past(&w, "n");
	ship_marks(root, w.store);
	assert_false(is_there(w.store, "m.mark"));
	assert_true(is_there(w.store, "n.mark"));
	world_free(&w);
	test_remove(root);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_unmark),          cmocka_unit_test(test_unmark_unseen),
	        cmocka_unit_test(test_unmarked_list),   cmocka_unit_test(test_unmarked_elsewhere),
	        cmocka_unit_test(test_archive_deleted), cmocka_unit_test(test_unmark_failing),
	};
	log_set_level(LOG_ERROR);
	log_set_fd(getenv("ASOF_TEST_LOG") ? 2 : -1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
