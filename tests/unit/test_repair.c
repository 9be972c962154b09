/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An archive repaired from another place: each object of each kind taken away, with a bit flipped, cut
 * short; the archive a directory or a store, and so the place.  Afterwards every moment that could be
 * seen can be seen again, byte for byte, in the archive alone.
 */
#include "engine/archive/names.h"
#include "engine/base/file.h"
#include "engine/base/log.h"
#include "engine/repair/repair.h"
#include "engine/retain/retain.h"
#include "engine/store/crypt.h"
#include "engine/store/faulty.h"
#include "tests/lib/memory.h"
#include "tests/lib/places.h"

#include <fcntl.h>
#include <inttypes.h>
#include <nettle/sha2.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static _Atomic bool stop;

/* What is repaired, and not one machine's own, or its writer's. */
static bool counts(const struct file *f, enum harm how)
{
	const char *base = strrchr(f->key, '/') + 1;

	if (f->len == 0 || ends_with(base, ".writer") || strncmp(base, "shipped", 7) == 0)
		return false;
	if (ends_with(base, ".gz"))
		return ends_with(base, ".db.gz") || f->len > GROW_HEADER_SIZE;
	if (ends_with(base, ".mark"))
		return how != REMOVED;
	return strcmp(base, "source") == 0 || ends_with(base, ".lineage") ||
	       ends_with(base, ".gap");
}

struct tally {
	struct repair_result result;
	char failed[700];
	uint64_t by_hand_txid;
};

static void told(void *ctx, const struct repair_step *s)
{
	struct tally *t = ctx;

	if (s->outcome == REPAIR_FAILED)
		snprintf(t->failed, sizeof(t->failed), "%s: %s", s->key, s->why);
	if (s->outcome == REPAIR_BY_HAND)
		t->by_hand_txid = s->txid;
}

static int repair(struct store *target, const char *label, struct store *const *from, size_t n_from,
                  const char *from_label, bool dry, struct tally *t, struct err *err)
{
	struct repair_place others[2];
	const struct repair_options o = {.target = {target, label},
	                                 .others = others,
	                                 .n_others = n_from,
	                                 .dry_run = dry,
	                                 .told = told,
	                                 .ctx = t};

	*t = (struct tally){.failed = ""};
	for (size_t i = 0; i < n_from; i++)
		others[i] = (struct repair_place){from[i], from_label};
	int rc = repair_notes(&o, "x.db", &t->result, err);
	return rc ? rc : repair_objects(&o, "x.db", &t->result, err);
}

static uint64_t n_told(const struct tally *t)
{
	return t->result.n[REPAIR_DONE] + t->result.n[REPAIR_POSSIBLE] +
	       t->result.n[REPAIR_COVERED] + t->result.n[REPAIR_FAILED];
}

static unsigned unproved;

static void each_harm(struct pair *p, struct store *target, const char *label, struct store *from,
                      const char *from_label, const struct files *was, size_t i, enum harm how)
{
	const struct file *f = &was->v[i];
	struct tally t;
	struct err err = ERR_INIT;
	struct files harmed;
	char what[200];

	if (!counts(f, how) || (how == REMOVED && from == p->far2 && file_is_newest(was, f)))
		return;
	snprintf(what, sizeof(what), "%s at %s, from %s:", harms[how], label, from_label);
	file_harm(p, target, f, how);
	files_save(target, &harmed);
	synth_must(repair(target, label, &from, 1, from_label, true, &t, &err), &err, what);
	if (!files_same(&harmed, target) && target != p->local)
		synth_die("%s %s: a dry run changed it", what, f->key);
	/* Of a table a flipped bit can be one that tells nothing: a time in gzip's header.  And a
	 * segment that was left growing can be sealed already, or be torn where nothing was fsynced. */
	if (how != REMOVED && n_told(&t) == 0 && !ends_with(f->key, ".commits.gz") &&
	    !(target == p->local && file_is_growing(f)))
		synth_die("%s %s: a dry run does not tell", what, f->key);
	files_release(&harmed);
	synth_must(repair(target, label, &from, 1, from_label, false, &t, &err), &err, what);
	if (t.failed[0] && from == p->far2 && file_is_newest(was, f)) {
		/* Too little may be left of it to tell that the other has the same. */
		if (!strstr(t.failed, f->key))
			synth_die("%s %s: %s", what, f->key, t.failed);
		unproved++;
		files_restore(was);
		return;
	}
	if (t.failed[0])
		synth_die("%s %s: %s", what, f->key, t.failed);
	pair_must_see(p, target, what, f->key);
	synth_must(repair(target, label, &from, 1, from_label, false, &t, &err), &err, what);
	if (t.result.n[REPAIR_DONE] || t.result.n[REPAIR_FAILED])
		synth_die("%s %s: not repaired at once", what, f->key);
	files_restore(was);
}

static void each_object(struct pair *p, struct store *target, const char *label, struct store *from,
                        const char *from_label)
{
	struct files was;
	struct tally t;
	struct err err = ERR_INIT;

	pair_look(p, target);
	assert_true(p->n_seen > 10);
	files_save(target, &was);
	synth_must(repair(target, label, &from, 1, from_label, false, &t, &err), &err, "whole");
	if (t.result.n[REPAIR_DONE] || t.failed[0])
		synth_die("%s is whole, and was repaired: %s", label, t.failed);
	for (size_t i = 0; i < was.n; i++)
		for (enum harm how = REMOVED; how < N_HARMS; how++)
			each_harm(p, target, label, from, from_label, &was, i, how);
	files_release(&was);
}

static void test_each(void **state)
{
	uint64_t seed = test_seed();

	for (unsigned i = 0; i < test_rounds(3); i++) {
		struct pair p = pair_new(seed + i);
		fprintf(stderr, "history %llu\n", (unsigned long long)(seed + i));
		each_object(&p, p.far, URL, p.local, p.root);
		each_object(&p, p.local, p.root, p.far, URL);
		unproved = 0;
		each_object(&p, p.far, URL, p.far2, "memory2");
		assert_true(unproved < N_HARMS); /* of one segment */
		pair_free(&p);
	}
}

static void go_on(struct pair *p)
{
	struct err err = ERR_INIT;

	for (unsigned k = 0; k < 6; k++)
		synth_random_commit(p->s);
	synth_publish(p->s);
	struct shipper *sh = open_shipper(p->root, p->far, 1);
	synth_must(ship_all(sh, &err), &err, "ship");
	shipper_free(sh);
}

/* Two copies differ in the newest segment alone, and that is damaged: then all that can be compared
 * agrees.  Nothing of the other's is put, and the one that cannot be repaired is named. */
static void test_fork_in_what_is_damaged(void **state)
{
	uint64_t seed = test_seed() + 40;

	for (unsigned i = 0; i < test_rounds(4); i++) {
		struct pair p = pair_new(seed + i), q = pair_new(seed + i);
		struct files was;
		const struct file *f = NULL;
		go_on(&p); /* what both have still in common is sealed there or not */
		go_on(&q);
		q.s->rng.s += 12345; /* another stream */
		go_on(&p);
		go_on(&q);
		pair_look(&p, p.far);
		files_save(p.far, &was);
		for (size_t k = 0; k < was.n; k++)
			if (file_is_newest(&was, &was.v[k]))
				f = &was.v[k];
		assert_true(f && f->len > GROW_HEADER_SIZE);
		for (unsigned k = 0; k < 12; k++) {
			struct store *from = k % 2 ? q.local : q.far;
			struct tally t;
			struct err err = ERR_INIT;
			uint8_t *b = malloc(f->len);
			memcpy(b, f->bytes, f->len);
			b[16 + 5 * k % 60] ^= 0x10; /* its header */
			b[rng_below(&p.s->rng, f->len)] ^= 0x10;
			store_put_text(p.far, f->key, b, f->len);
			free(b);
			synth_must(repair(p.far, URL, &from, 1, k % 2 ? q.root : "memory2", false,
			                  &t, &err),
			           &err, "repair");
			if (!strstr(t.failed, f->key))
				synth_die("%s is not named: %s", f->key, t.failed);
			pair_look(&p, p.far); /* dies of wrong bytes */
			files_restore(&was);
		}
		files_release(&was);
		pair_free(&p);
		pair_free(&q);
	}
}

/* A place that thinned, from one that did not: its moments come back, and no others. */
static void test_each_thinned(void **state)
{
	struct pair p = pair_new(test_seed() + 8);

	if (pair_thin(&p, 0))
		each_object(&p, p.local, p.root, p.far, URL);
	pair_free(&p);
}

/* ---- runs that end, and places that lie ---- */

/* Much of it at once. */
static void harm_many(struct pair *p, struct store *store, const struct files *was)
{
	for (size_t i = 0; i < was->n; i++) {
		enum harm how = (enum harm)rng_below(&p->s->rng, N_HARMS);
		bool note = !ends_with(was->v[i].key, ".gz");
		if (counts(&was->v[i], how) && rng_chance(&p->s->rng, note ? 20 : 50) &&
		    !(note && strstr(was->v[i].key, "source")))
			file_harm(p, store, &was->v[i], how);
	}
}

static void test_ended_anywhere(void **state)
{
	struct pair p = pair_new(test_seed());
	struct files was, harmed;
	bool ended = false;
	long step = getenv("ASOF_TEST_SHORT") ? 15 : 5;

	pair_look(&p, p.far);
	files_save(p.far, &was);
	harm_many(&p, p.far, &was);
	files_save(p.far, &harmed);
	for (long at = 0; !ended; at += step) {
		struct breaking b = break_after(p.far, at / 2, at % 2);
		struct tally t;
		struct err err = ERR_INIT;
		int rc = repair(&b.base, URL, &p.local, 1, p.root, false, &t, &err);
		ended = rc == 0 && !t.failed[0];
		err = (struct err)ERR_INIT;
		synth_must(repair(p.far, URL, &p.local, 1, p.root, false, &t, &err), &err, "again");
		if (t.failed[0])
			synth_die("ended after %ld requests: %s", at / 2, t.failed);
		pair_must_see(&p, p.far, "ended", "many");
		files_restore(&harmed);
	}
	files_release(&harmed);
	files_release(&was);
	pair_free(&p);
}

/* What another place gives can be wrong, now and then: nothing of that is put. */
static void test_a_place_that_lies(void **state)
{
	const struct store_faults faults = {
	        .seed = 3, .remote = true, .flip_permille = 30, .cut_permille = 30};
	struct pair p = pair_new(test_seed() + 1);
	struct store *lies;
	struct files was;
	struct tally t;
	struct err err = ERR_INIT;

	pair_look(&p, p.local);
	files_save(p.local, &was);
	harm_many(&p, p.local, &was);
	synth_must(store_open_faulty(p.far, &faults, &lies, &err), &err, "faulty");
	for (unsigned i = 0; i < 5; i++) {
		err = (struct err)ERR_INIT;
		if (repair(p.local, p.root, &lies, 1, URL, false, &t, &err) < 0)
			assert_true(err.kind == ERR_DAMAGED || err.kind == ERR_IO);
	}
	store_faulty_set(lies, &(struct store_faults){.seed = 1});
	err = (struct err)ERR_INIT;
	synth_must(repair(p.local, p.root, &lies, 1, URL, false, &t, &err), &err, "repair");
	if (t.failed[0])
		synth_die("%s", t.failed);
	pair_must_see(&p, p.local, "a place that lies", "");
	files_release(&was);
	p.far = lies;
	pair_free(&p);
}

/* ---- an encrypted destination: what is put goes there as all else does ---- */

static void test_encrypted(void **state)
{
	struct pair p = pair_new(test_seed() + 4);
	struct key_identity me;
	struct store *inner, *outer;
	struct files was, sealed;
	struct err err = ERR_INIT;
	char file[600];

	snprintf(file, sizeof(file), "%s/me", p.root);
	synth_must(key_identity_make(file, &me, &err), &err, "key");
	synth_must(store_open_memory(&inner, &err), &err, "memory");
	synth_must(store_open_crypt(inner, &me, &outer, &err), &err, "crypt");
	files_save(p.far, &was);
	for (size_t i = 0; i < was.n; i++)
		store_put_text(outer, was.v[i].key, was.v[i].bytes, was.v[i].len);
	pair_look(&p, outer);
	files_save(inner, &sealed);
	for (size_t i = 0; i < sealed.n; i++) {
		const struct file *f = files_find(&was, sealed.v[i].key);
		for (enum harm how = FLIPPED; f && counts(f, how) && how < N_HARMS; how++) {
			struct tally t;
			file_harm(&p, inner, &sealed.v[i], how);
			synth_must(repair(outer, URL, &p.local, 1, p.root, false, &t, &err), &err,
			           "repair");
			if (t.failed[0])
				synth_die("%s %s: %s", harms[how], f->key, t.failed);
			pair_must_see(&p, outer, harms[how], f->key);
			files_restore(&sealed);
		}
	}
	files_release(&was);
	files_release(&sealed);
	store_free(outer);
	pair_free(&p);
}

/* ---- another's history ---- */

static void test_another_database(void **state)
{
	struct pair p = pair_new(test_seed() + 2), q = pair_new(test_seed() + 3);
	struct files was;
	struct tally t;
	struct err err = ERR_INIT;

	files_save(p.far, &was);
	for (size_t i = 0; i < was.n; i++)
		if (ends_with(was.v[i].key, ".db.gz"))
			file_harm(&p, p.far, &was.v[i], FLIPPED);
	synth_must(repair(p.far, URL, &q.local, 1, q.root, false, &t, &err), &err, "repair");
	assert_true(t.failed[0]);
	struct history *h;
	struct archive *a = pair_alone(&p, p.far, &h);
	for (uint64_t k = 1; k <= p.s->n_states; k++) {
		struct err why = ERR_INIT;
		(void)!synth_compare(p.s, h, k, &why); /* dies of wrong bytes */
	}
	history_put(h);
	archive_free(a);
	files_release(&was);
	pair_free(&p);
	pair_free(&q);
}

/* A place that thins by itself has a note of its own; that of another would hide what is kept. */
static void test_thinned(void **state)
{
	struct pair p = pair_new(test_seed() + 6);
	struct thinned_point point = {3, 1000, 2000};
	struct thinned_note note = {.until_txid = 3, .points = &point, .n_points = 1};
	const char *key = "local/x.db/thinned";
	struct store *const places[2] = {p.local, p.far};
	struct files notes[2];
	struct tally t;
	struct err err = ERR_INIT;
	char path[600];

	snprintf(path, sizeof(path), "%s/local/x.db", p.root);
	for (int i = 0; i < 2; i++) {
		cleanup_fd int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		note.until_txid = point.txid = 2 + (uint64_t)i;
		synth_must(thinned_note_put(dir, &note, &err), &err, "note");
		files_save(p.local, &notes[i]);
		const struct file *f = files_find(&notes[i], key);
		store_put_text(places[i], key, f->bytes, f->len);
	}
	const struct file *own = files_find(&notes[0], key), *other = files_find(&notes[1], key);
	store_put_text(p.local, key, own->bytes, own->len);
	file_harm(&p, p.local, own, CUT);
	synth_must(repair(p.local, p.root, &p.far, 1, URL, false, &t, &err), &err, "another's");
	assert_true(t.failed[0] && t.result.n[REPAIR_DONE] == 0);
	/* Any byte of the very same. */
	cleanup_free uint8_t *copy = malloc(other->len);
	for (size_t at = 0; at < other->len - 1; at++) {
		memcpy(copy, other->bytes, other->len);
		copy[at] ^= 1;
		store_put_text(p.local, key, copy, other->len);
		struct repair_place from = {p.far, URL};
		const struct repair_options o = {
		        .target = {p.local, p.root}, .others = &from, .n_others = 1};
		struct repair_result result = {.bytes = 0};
		synth_must(repair_notes(&o, "x.db", &result, &err), &err, "the same");
		assert_true(result.n[REPAIR_DONE] == 1 || other->bytes[at] == '\n');
	}
	files_release(&notes[0]);
	files_release(&notes[1]);
	pair_free(&p);
}

/* ---- notes that are told of by themselves alone ---- */

#define MARK "local/x.db/m.mark"

/* A bucket gets back what a directory marks; a directory does not get back what it may have unmarked. */
static void test_marks(void **state)
{
	struct pair p = pair_new(test_seed() + 9);
	struct files local, far;
	struct tally t;
	struct err err = ERR_INIT;
	uint64_t txid = 0;

	pair_look(&p, p.local);
	for (uint64_t k = 2; k <= p.s->n_states && !txid; k++)
		if (p.seen[k] && retain_mark(p.root, "x.db", "m", k, &err) == 0)
			txid = k;
	files_save(p.local, &local);
	const struct file *f = files_find(&local, MARK);
	synth_must(repair(p.far, URL, &p.local, 1, p.root, true, &t, &err), &err, "dry");
	assert_int_equal(t.result.n[REPAIR_POSSIBLE], 1);
	synth_must(repair(p.far, URL, &p.local, 1, p.root, false, &t, &err), &err, "to a bucket");
	assert_int_equal(t.result.n[REPAIR_DONE], 1);
	files_save(p.far, &far);
	assert_true(files_find(&far, MARK) && file_is_same(files_find(&far, MARK), f));
	file_harm(&p, p.local, f, REMOVED);
	files_release(&local);
	files_save(p.local, &local);
	synth_must(repair(p.local, p.root, &p.far, 1, URL, false, &t, &err), &err, "back");
	assert_true(t.result.n[REPAIR_BY_HAND] == 1 && t.by_hand_txid == txid);
	assert_true(t.result.n[REPAIR_DONE] == 0 && !t.failed[0] && files_same(&local, p.local));
	synth_must(repair(p.far2, URL, &p.far, 1, URL, false, &t, &err), &err, "bucket to bucket");
	assert_int_equal(t.result.n[REPAIR_BY_HAND], 1);
	files_release(&local);
	files_release(&far);
	pair_free(&p);
}

static int go_on_shipping(struct pair *p, struct err *err)
{
	forget(p->root); /* or it has nothing to ask */
	struct shipper *sh = open_shipper(p->root, p->far, 1);
	int rc = ship_all(sh, err);
	shipper_free(sh);
	return rc;
}

/* Whatever became of the note: nobody becomes a writer who was not, and who was can go on. */
static void test_writer(void **state)
{
	struct pair p = pair_new(test_seed() + 10);
	cleanup_free char *other = copy_of(p.root); /* the same archive, and somebody else */
	struct store *copied;
	struct writer_note was, is;
	struct files far;
	struct tally t;
	struct err err = ERR_INIT;
	const struct file *f = NULL;
	unsigned n_again = 0;

	synth_must(store_open(other, NULL, &copied, &err), &err, "open");
	synth_must(repair(p.far, URL, &p.local, 1, p.root, false, &t, &err), &err, "whole");
	files_save(p.far, &far);
	for (size_t i = 0; i < far.n; i++)
		if (ends_with(far.v[i].key, ".writer"))
			f = &far.v[i];
	const char *name = strrchr(f->key, '/') + 1;
	cleanup_free char *text = calloc(1, f->len + 1);
	memcpy(text, f->bytes, f->len);
	synth_must(writer_note_parse(text, f->len, name, &was, &err), &err, "note");
	for (size_t at = 0; at < 2 * f->len; at++) { /* each byte flipped; cut there */
		cleanup_free uint8_t *copy = calloc(1, f->len + 1);
		cleanup_buf struct buf now = BUF_INIT(1u << 16);
		size_t len = at < f->len ? f->len : at - f->len;
		memcpy(copy, f->bytes, len);
		copy[at % f->len] ^= at < f->len ? 1 : 0;
		store_put_text(p.far, f->key, copy, len);
		if (at % 40 == 0 && go_on_shipping(&p, &err) == 0)
			synth_die("it goes on though byte %zu of its note is wrong", at);
		struct store *const wrong[2] = {copied, p.far2};
		synth_must(repair(p.far, URL, wrong, 2, other, false, &t, &err), &err, "by others");
		assert_true(t.failed[0] && t.result.n[REPAIR_DONE] == 0);
		synth_must(repair(p.far, URL, &p.local, 1, p.root, false, &t, &err), &err, "by it");
		if (t.failed[0]) /* what is left proves nothing */
			continue;
		n_again++;
		synth_must(store_get(p.far, f->key, 1u << 15, &now, &err), &err, "get");
		synth_must(buf_append(&now, "", 1, &err), &err, "text");
		synth_must(writer_note_parse((char *)now.data, now.len - 1, name, &is, &err), &err,
		           "the note put");
		assert_true(is.lineage == was.lineage && strcmp(is.id, was.id) == 0);
		err = (struct err)ERR_INIT;
		if (at % 40 == 0)
			synth_must(go_on_shipping(&p, &err), &err, "it goes on");
	}
	/* But for the key and the end of its line, every flip; and what was cut behind it. */
	if (n_again < f->len - 5 + 40)
		synth_die("put back %u times of %zu", n_again, 2 * f->len);
	store_put_text(p.far, f->key, "", 0);
	char from[200];
	const struct ship_options o = {
	        .archive = p.root, .name = "x.db", .url = URL, .store = p.far, .grace_us = 1};
	synth_must(ship_take_over(&o, from, &err), &err, "take over");
	synth_must(go_on_shipping(&p, &err), &err, "after that it goes on");
	files_release(&far);
	store_free(copied);
	test_remove(other);
	pair_free(&p);
}

/* A damaged list of what is to go keeps retention from its work; without one it begins anew. */
static void test_expiring(void **state)
{
	struct pair p = pair_new(test_seed() + 8);
	struct files was;
	struct tally t;
	struct err err = ERR_INIT;

	(void)!pair_thin(&p, 1000000);
	pair_look(&p, p.local);
	files_save(p.local, &was);
	const struct file *f = files_find(&was, "local/x.db/expiring");
	for (enum harm how = FLIPPED; f && how < N_HARMS; how++) {
		file_harm(&p, p.local, f, how);
		synth_must(repair(p.local, p.root, &p.far, 1, URL, false, &t, &err), &err,
		           "repair");
		assert_true(t.result.n[REPAIR_DONE] == 1 && !t.failed[0]);
		pair_must_see(&p, p.local, harms[how], f->key);
		(void)!pair_thin(&p, 1000000); /* dies where it cannot be done */
		files_restore(&was);
	}
	files_release(&was);
	pair_free(&p);
}

/* What a run that was killed left is removed by the next; not what one has that is under way. */
static void test_scratch(void **state)
{
	struct pair p = pair_new(test_seed() + 7);
	struct timespec old[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
	char *tmp = test_folder(), left[600], file[700];
	struct files was;
	struct tally t;
	struct err err = ERR_INIT;

	const char *before = getenv("TMPDIR");
	cleanup_free char *kept = before ? strdup(before) : NULL;
	setenv("TMPDIR", tmp, 1);
	snprintf(left, sizeof(left), "%s/asof-repair-abcdef", tmp);
	snprintf(file, sizeof(file), "%s/fetched", left);
	assert_int_equal(mkdir(left, 0700), 0);
	close(open(file, O_CREAT | O_WRONLY, 0600));
	utimensat(AT_FDCWD, left, old, 0);
	files_save(p.far, &was);
	for (int locked = 1; locked >= 0; locked--) {
		int fd = locked ? open(left, O_RDONLY | O_DIRECTORY) : -1;
		assert_true(!locked || flock(fd, LOCK_EX) == 0);
		for (size_t i = 0; i < was.n; i++)
			if (ends_with(was.v[i].key, ".db.gz"))
				file_harm(&p, p.far, &was.v[i], FLIPPED);
		synth_must(repair(p.far, URL, &p.local, 1, p.root, false, &t, &err), &err, "run");
		assert_true(t.result.n[REPAIR_DONE] > 0);
		assert_int_equal(access(file, F_OK), locked ? 0 : -1);
		if (fd >= 0)
			close(fd);
		files_restore(&was);
	}
	assert_int_equal(rmdir(tmp), 0); /* nor anything else */
	if (kept)
		setenv("TMPDIR", kept, 1);
	else
		unsetenv("TMPDIR");
	free(tmp);
	files_release(&was);
	pair_free(&p);
}

static void test_aside(void **state)
{
	int64_t us = 0;

	assert_true(aside_name_parse("x.db.gz.damaged-20240115T103000Z", &us));
	assert_int_equal(us, INT64_C(1705314600000000));
	assert_false(aside_name_parse(".damaged-20240115T103000Z", &us));
	assert_false(aside_name_parse("x.damaged-20240115T1030Z", &us));
	assert_false(aside_name_parse("x.damaged-20240115T103000Z.gz", &us));
	assert_false(aside_name_parse("x.db.gz", &us));
}

/* ---- backups ---- */

#define BACKUP "manual/x_20240115_143000.db.gz"
#define MANIFEST "manual/manifest_20240115_143000.json"

static void put_backup(struct store *s)
{
	static const char manifest[] =
	        "{\"backup_file\": \"/somewhere/x_20240115_143000.db.gz\", \"sha256\": "
	        "\"0000000000000000000000000000000000000000000000000000000000000000\"}";
	static const char bytes[] = "as good as a backup";
	struct sha256_ctx sha;
	uint8_t digest[SHA256_DIGEST_SIZE];
	char text[sizeof(manifest)];

	memcpy(text, manifest, sizeof(manifest));
	sha256_init(&sha);
	sha256_update(&sha, sizeof(bytes), (const uint8_t *)bytes);
	sha256_digest(&sha, sizeof(digest), digest);
	for (size_t i = 0; i < sizeof(digest); i++) {
		char hex[3];
		snprintf(hex, sizeof(hex), "%02x", digest[i]);
		memcpy(strstr(text, "sha256") + 10 + 2 * i, hex, 2);
	}
	store_put_text(s, BACKUP, bytes, sizeof(bytes));
	store_put_text(s, MANIFEST, text, strlen(text));
}

static void test_backups(void **state)
{
	struct pair p = pair_new(test_seed() + 6);
	struct files was;

	put_backup(p.far);
	put_backup(p.local);
	files_save(p.local, &was);
	const char *const keys[] = {BACKUP, MANIFEST};
	for (unsigned i = 0; i < 2 * N_HARMS; i++) {
		struct repair_place from = {p.far, URL};
		struct tally t = {.failed = ""};
		struct repair_options o = {.target = {p.local, p.root},
		                           .others = &from,
		                           .n_others = 1,
		                           .told = told,
		                           .ctx = &t};
		struct err err = ERR_INIT;
		struct files now;
		const char *key = keys[i % 2];
		struct file f = *files_find(&was, key);
		if (i / 2 == FLIPPED && i % 2) /* so that it is none any more */
			store_put_text(p.local, key, "{]", 2);
		else
			file_harm(&p, p.local, &f, (enum harm)(i / 2));
		synth_must(repair_backups(&o, &t.result, &err), &err, "backups");
		if (t.failed[0] || t.result.n[REPAIR_DONE] != 1)
			synth_die("%s %s: %s", harms[i / 2], key, t.failed);
		files_save(p.local, &now);
		const struct file *g = files_find(&now, key);
		assert_true(g && g->len == f.len && memcmp(g->bytes, f.bytes, f.len) == 0);
		assert_int_equal(now.n, was.n + (i / 2 != REMOVED)); /* moved aside */
		files_release(&now);
		files_restore(&was);
	}
	/* Both gone: let go, perhaps. */
	struct repair_place from = {p.far, URL};
	struct tally t = {.by_hand_txid = 1};
	const struct repair_options o = {.target = {p.local, p.root},
	                                 .others = &from,
	                                 .n_others = 1,
	                                 .told = told,
	                                 .ctx = &t};
	struct err err = ERR_INIT;
	file_harm(&p, p.local, files_find(&was, BACKUP), REMOVED);
	file_harm(&p, p.local, files_find(&was, MANIFEST), REMOVED);
	synth_must(repair_backups(&o, &t.result, &err), &err, "gone");
	assert_true(t.result.n[REPAIR_BY_HAND] == 1 && t.by_hand_txid == 0);
	assert_true(t.result.n[REPAIR_DONE] == 0 && !t.failed[0]);
	files_release(&was);
	pair_free(&p);
}

/* A file that is on its way into a folder of the archive; its descriptor, with the lock. */
static int on_its_way(int dir_fd, const char *path, time_t mtime)
{
	const struct timespec times[2] = {{.tv_sec = mtime}, {.tv_sec = mtime}};

	int fd = openat(dir_fd, path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	assert_true(fd >= 0 && futimens(fd, times) == 0 && flock(fd, LOCK_EX | LOCK_NB) == 0);
	return fd;
}

/* What was moved aside is kept for a while; what died on its way goes, and is left to who has it locked, or
 * may be about to. */
static void test_cleanup(void **state)
{
	struct pair p = pair_new(test_seed() + 5);
	const char *const old = "local/x.db/segment/x.wal.gz.damaged-20200115T103000Z";
	const char *const kept = "local/x.db/segment/x.wal.gz.damaged-20240115T103000Z";
	const struct retain_policy policy = {.n_tiers = 0};
	struct retainer *r;
	struct retain_result result;
	struct err err = ERR_INIT;
	struct files now;

	store_put_text(p.local, old, "x", 1);
	store_put_text(p.local, kept, "x", 1);
	const char *const died = "local/x.db/segment/.put-1-0x1-1";
	const char *const young = "local/x.db/snapshot/.put-1-0x1-2";
	const char *const alive = "local/x.db/.put-1-0x1-3";
	int dir_fd = p.local->dir_fd;
	close(on_its_way(dir_fd, died, 1000));
	close(on_its_way(dir_fd, young, time(NULL)));
	int alive_fd = on_its_way(dir_fd, alive, 1000);
	synth_must(retainer_new(p.root, "x.db", &r, &err), &err, "retainer");
	(void)!retainer_run(r, &policy, INT64_C(1706000000000000), &stop, NULL, &result, &err);
	retainer_free(r);
	files_save(p.local, &now);
	assert_null(files_find(&now, old));
	assert_non_null(files_find(&now, kept));
	assert_int_equal(faccessat(dir_fd, died, F_OK, 0), -1);
	assert_int_equal(faccessat(dir_fd, young, F_OK, 0), 0);
	assert_int_equal(faccessat(dir_fd, alive, F_OK, 0), 0);
	close(alive_fd);
	files_release(&now);
	pair_free(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_each),
	        cmocka_unit_test(test_each_thinned),
	        cmocka_unit_test(test_fork_in_what_is_damaged),
	        cmocka_unit_test(test_ended_anywhere),
	        cmocka_unit_test(test_a_place_that_lies),
	        cmocka_unit_test(test_encrypted),
	        cmocka_unit_test(test_another_database),
	        cmocka_unit_test(test_thinned),
	        cmocka_unit_test(test_scratch),
	        cmocka_unit_test(test_aside),
	        cmocka_unit_test(test_cleanup),
	        cmocka_unit_test(test_backups),
	        cmocka_unit_test(test_marks),
	        cmocka_unit_test(test_writer),
	        cmocka_unit_test(test_expiring),
	};

	log_set_level(LOG_ERROR);
	log_set_fd(-1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
