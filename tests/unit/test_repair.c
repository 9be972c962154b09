/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An archive repaired from another place: each object of each kind taken away, with a bit flipped, cut
 * short; the archive a directory or a store, and so the place.  Afterwards every moment that could be
 * seen can be seen again, byte for byte, in the archive alone.
 */
#include "engine/archive/names.h"
#include "engine/base/file.h"
#include "engine/base/log.h"
#include "engine/compact/compact.h"
#include "engine/repair/repair.h"
#include "engine/retain/retain.h"
#include "engine/store/crypt.h"
#include "engine/store/faulty.h"
#include "tests/lib/memory.h"
#include "tests/lib/shipped.h"

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

/* ---- stores as they were ---- */

struct file {
	char *key;
	uint8_t *bytes;
	size_t len;
};
struct files {
	struct file v[400];
	size_t n;
	struct store *store;
};

static int keep(void *ctx, const struct store_entry *e, struct err *err)
{
	struct files *f = ctx;
	struct buf b = BUF_INIT((size_t)1 << 30);

	if (f->n == 400)
		synth_die("too many files");
	int rc = store_get(f->store, e->key, b.max_bytes, &b, err);
	f->v[f->n++] = (struct file){strdup(e->key), b.data, b.len};
	return rc;
}

static void save(struct store *s, struct files *f)
{
	struct err err = ERR_INIT;

	*f = (struct files){.store = s};
	synth_must(store_list(s, "", NULL, true, keep, f, &err), &err, "list");
}

static void release(struct files *f)
{
	for (size_t i = 0; i < f->n; i++) {
		free(f->v[i].key);
		free(f->v[i].bytes);
	}
	f->n = 0;
}

static const struct file *find(const struct files *f, const char *key)
{
	for (size_t i = 0; i < f->n; i++)
		if (strcmp(f->v[i].key, key) == 0)
			return &f->v[i];
	return NULL;
}

static bool is_same(const struct file *a, const struct file *b)
{
	return a->len == b->len && (a->len == 0 || memcmp(a->bytes, b->bytes, a->len) == 0);
}

static void put(struct store *s, const char *key, const void *p, size_t len)
{
	struct err err = ERR_INIT;

	synth_must(store_put_bytes(s, key, p, len, 0, &err), &err, key);
}

static void restore(const struct files *f)
{
	struct files now;
	struct err err = ERR_INIT;

	save(f->store, &now);
	for (size_t i = 0; i < now.n; i++)
		if (!find(f, now.v[i].key))
			synth_must(store_remove(f->store, now.v[i].key, &err), &err, "remove");
	for (size_t i = 0; i < f->n; i++) {
		const struct file *o = find(&now, f->v[i].key);
		if (!o || !is_same(o, &f->v[i]))
			put(f->store, f->v[i].key, f->v[i].bytes, f->v[i].len);
	}
	release(&now);
}

/* ---- two places of one history ---- */

enum kind { LOCAL, FAR };
struct pair {
	char *root;
	struct synth *s;
	struct store *local, *far, *far2;
	bool seen[2000]; /* which transactions can be seen, of what is to be damaged */
	unsigned n_seen;
};

static void upkeep(struct synth *s, unsigned steps)
{
	struct compactor *c;
	struct err err = ERR_INIT;
	bool did = true;

	synth_must(compactor_new(s->root, "x.db", &c, &err), &err, "compactor_new");
	while (did && steps-- > 0) {
		synth_must(compactor_step(c, &stop, &did, &err), &err, "compactor_step");
		synth_generation(s);
	}
	compactor_free(c);
	s->n_objects = 0;
}

static void ship(struct pair *p, struct store *to)
{
	struct err err = ERR_INIT;

	struct shipper *sh = open_shipper(p->root, to, 1);
	synth_must(ship_all(sh, &err), &err, "ship");
	shipper_free(sh);
}

static void some(struct synth *s, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		synth_random_commit(s);
	if (rng_chance(&s->rng, 60))
		synth_cut(s);
	synth_publish(s);
}

static struct pair new_pair(uint64_t seed)
{
	struct pair p = {.root = test_folder()};
	struct err err = ERR_INIT;

	p.s = make(p.root, seed);
	synth_must(store_open_memory(&p.far, &err), &err, "store");
	synth_must(store_open_memory(&p.far2, &err), &err, "store");
	synth_random_history(p.s, 15);
	ship(&p, p.far);
	for (unsigned i = 0; i < 4; i++) {
		some(p.s, 5);
		ship(&p, p.far);
		if (i == 1)
			upkeep(p.s, 3);
		if (i % 2)
			ship(&p, p.far2);
	}
	upkeep(p.s, 100);
	some(p.s, 3);
	ship(&p, p.far);
	some(p.s, 3);
	ship(&p, p.far);
	forget(p.root); /* both were called so */
	ship(&p, p.far2);
	/* The writer ends. */
	close(take_fd(&p.s->lock_fd));
	synth_must(store_open(p.root, NULL, &p.local, &err), &err, "open");
	return p;
}

static void free_pair(struct pair *p)
{
	store_free(p->local);
	store_free(p->far);
	store_free(p->far2);
	synth_free(p->s);
	test_remove(p->root);
	free(p->root);
}

/* The history as that place alone has it. */
static struct archive *alone(struct pair *p, struct store *store, struct history **h)
{
	struct breaking *b = calloc(1, sizeof(*b));
	struct archive *a;
	struct err err = ERR_INIT;

	if (store == p->local) {
		free(b);
		synth_must(archive_open(p->root, NULL, &a, &err), &err, "archive_open");
	} else {
		static struct breaking shared; /* one at a time */
		free(b);
		shared = break_after(store, -1, false);
		shared.base.ops = &borrowed_ops;
		struct store *s = &shared.base;
		synth_must(archive_open_stores(&s, 1, NULL, &a, &err), &err, "archive_open");
	}
	synth_must(history_get(a, "x.db", h, &err), &err, "history_get");
	return a;
}

static void look(struct pair *p, struct store *store)
{
	struct history *h;
	struct archive *a = alone(p, store, &h);

	p->n_seen = 0;
	for (uint64_t t = 1; t <= p->s->n_states; t++) {
		struct err err = ERR_INIT;
		p->seen[t] = synth_compare(p->s, h, t, &err);
		p->n_seen += p->seen[t];
	}
	history_put(h);
	archive_free(a);
}

static void must_see_all(struct pair *p, struct store *store, const char *what, const char *key)
{
	struct history *h;
	struct archive *a = alone(p, store, &h);

	for (uint64_t t = 1; t <= p->s->n_states; t++) {
		struct err err = ERR_INIT;
		if (p->seen[t] && !synth_compare(p->s, h, t, &err))
			synth_die("%s '%s': transaction %" PRIu64 " was not repaired: %s", what,
			          key, t, err.msg);
	}
	history_put(h);
	archive_free(a);
}

/* ---- damage ---- */

enum harm { REMOVED, FLIPPED, CUT, N_HARMS };
static const char *const harms[] = {"removed", "flipped", "cut"};

static void harm(struct pair *p, struct store *s, const struct file *f, enum harm how)
{
	struct err err = ERR_INIT;

	if (how == REMOVED) {
		synth_must(store_remove(s, f->key, &err), &err, "remove");
		return;
	}
	cleanup_free uint8_t *copy = malloc(f->len + 1);
	memcpy(copy, f->bytes, f->len);
	size_t at = rng_below(&p->s->rng, f->len);
	copy[at] ^= (uint8_t)(1u << rng_below(&p->s->rng, 8));
	put(s, f->key, copy, how == CUT ? at : f->len);
}

static bool ends_with(const char *text, const char *end)
{
	size_t n = strlen(text), m = strlen(end);

	return n >= m && strcmp(text + n - m, end) == 0;
}

static bool is_growing(const struct file *f)
{
	struct object_name n;

	return object_name_parse(strrchr(f->key, '/') + 1, &n) && n.type == OBJECT_GROWING;
}

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
};

static void told(void *ctx, const struct repair_step *s)
{
	struct tally *t = ctx;

	if (s->outcome == REPAIR_FAILED)
		snprintf(t->failed, sizeof(t->failed), "%s: %s", s->key, s->why);
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

static bool same_files(const struct files *a, struct store *store)
{
	struct files now;
	bool same = true;

	save(store, &now);
	same = now.n == a->n;
	for (size_t i = 0; i < now.n && same; i++) {
		const struct file *f = find(a, now.v[i].key);
		same = f && is_same(f, &now.v[i]);
	}
	release(&now);
	return same;
}

/* That a store's newest segment is gone nobody can tell but who brought it there. */
static bool is_newest(const struct files *was, const struct file *f)
{
	const struct file *newest = NULL;

	for (size_t i = 0; i < was->n; i++)
		if (strstr(was->v[i].key, "/segment/") && ends_with(was->v[i].key, ".wal.gz"))
			newest = &was->v[i]; /* they are sorted */
	return newest == f;
}

static void each_harm(struct pair *p, struct store *target, const char *label, struct store *from,
                      const char *from_label, const struct files *was, size_t i, enum harm how)
{
	const struct file *f = &was->v[i];
	struct tally t;
	struct err err = ERR_INIT;
	struct files harmed;
	char what[200];

	if (!counts(f, how) || (how == REMOVED && from == p->far2 && is_newest(was, f)))
		return;
	snprintf(what, sizeof(what), "%s at %s, from %s:", harms[how], label, from_label);
	harm(p, target, f, how);
	save(target, &harmed);
	synth_must(repair(target, label, &from, 1, from_label, true, &t, &err), &err, what);
	if (!same_files(&harmed, target) && target != p->local)
		synth_die("%s %s: a dry run changed it", what, f->key);
	/* Of a table a flipped bit can be one that tells nothing: a time in gzip's header.  And a
	 * segment that was left growing can be sealed already, or be torn where nothing was fsynced. */
	if (how != REMOVED && n_told(&t) == 0 && !ends_with(f->key, ".commits.gz") &&
	    !(target == p->local && is_growing(f)))
		synth_die("%s %s: a dry run does not tell", what, f->key);
	release(&harmed);
	synth_must(repair(target, label, &from, 1, from_label, false, &t, &err), &err, what);
	if (t.failed[0])
		synth_die("%s %s: %s", what, f->key, t.failed);
	must_see_all(p, target, what, f->key);
	synth_must(repair(target, label, &from, 1, from_label, false, &t, &err), &err, what);
	if (t.result.n[REPAIR_DONE] || t.result.n[REPAIR_FAILED])
		synth_die("%s %s: not repaired at once", what, f->key);
	restore(was);
}

static void each_object(struct pair *p, struct store *target, const char *label, struct store *from,
                        const char *from_label)
{
	struct files was;
	struct tally t;
	struct err err = ERR_INIT;

	look(p, target);
	assert_true(p->n_seen > 10);
	save(target, &was);
	synth_must(repair(target, label, &from, 1, from_label, false, &t, &err), &err, "whole");
	if (t.result.n[REPAIR_DONE] || t.failed[0])
		synth_die("%s is whole, and was repaired: %s", label, t.failed);
	for (size_t i = 0; i < was.n; i++)
		for (enum harm how = REMOVED; how < N_HARMS; how++)
			each_harm(p, target, label, from, from_label, &was, i, how);
	release(&was);
}

static void test_each(void **state)
{
	uint64_t seed = test_seed();

	for (unsigned i = 0; i < test_rounds(3); i++) {
		struct pair p = new_pair(seed + i);
		fprintf(stderr, "history %llu\n", (unsigned long long)(seed + i));
		each_object(&p, p.far, URL, p.local, p.root);
		each_object(&p, p.local, p.root, p.far, URL);
		each_object(&p, p.far, URL, p.far2, "memory2");
		free_pair(&p);
	}
}

/* A place that thinned, from one that did not: its moments come back, and no others. */
static void test_each_thinned(void **state)
{
	struct pair p = new_pair(test_seed() + 8);
	struct retain_policy policy;
	struct retain_result result;
	struct retainer *r;
	struct history *h;
	struct history_status st;
	struct err err = ERR_INIT;

	struct archive *a = alone(&p, p.local, &h);
	synth_must(history_get_status(h, &st, &err), &err, "status");
	history_put(h);
	archive_free(a);
	retain_policy_default(&policy);
	policy.n_tiers = 2;
	policy.tiers[0] = (struct retain_tier){(st.last_us - st.first_us) / 4, 0};
	policy.tiers[1] = (struct retain_tier){2 * (st.last_us - st.first_us),
	                                       (st.last_us - st.first_us) / 12};
	policy.grace_us = 0;
	synth_must(retainer_new(p.root, "x.db", &r, &err), &err, "retainer");
	synth_must(retainer_run(r, &policy, st.last_us + 1, &stop, NULL, &result, &err), &err,
	           "thin");
	retainer_free(r);
	if (result.kept_points > 1)
		each_object(&p, p.local, p.root, p.far, URL);
	free_pair(&p);
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
			harm(p, store, &was->v[i], how);
	}
}

static void test_ended_anywhere(void **state)
{
	struct pair p = new_pair(test_seed());
	struct files was, harmed;
	bool ended = false;
	long step = getenv("ASOF_TEST_SHORT") ? 15 : 5;

	look(&p, p.far);
	save(p.far, &was);
	harm_many(&p, p.far, &was);
	save(p.far, &harmed);
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
		must_see_all(&p, p.far, "ended", "many");
		restore(&harmed);
	}
	release(&harmed);
	release(&was);
	free_pair(&p);
}

/* What another place gives can be wrong, now and then: nothing of that is put. */
static void test_a_place_that_lies(void **state)
{
	const struct store_faults faults = {
	        .seed = 3, .remote = true, .flip_permille = 30, .cut_permille = 30};
	struct pair p = new_pair(test_seed() + 1);
	struct store *lies;
	struct files was;
	struct tally t;
	struct err err = ERR_INIT;

	look(&p, p.local);
	save(p.local, &was);
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
	must_see_all(&p, p.local, "a place that lies", "");
	release(&was);
	p.far = lies;
	free_pair(&p);
}

/* ---- an encrypted destination: what is put goes there as all else does ---- */

static void test_encrypted(void **state)
{
	struct pair p = new_pair(test_seed() + 4);
	struct key_identity me;
	struct store *inner, *outer;
	struct files was, sealed;
	struct err err = ERR_INIT;
	char file[600];

	snprintf(file, sizeof(file), "%s/me", p.root);
	synth_must(key_identity_make(file, &me, &err), &err, "key");
	synth_must(store_open_memory(&inner, &err), &err, "memory");
	synth_must(store_open_crypt(inner, &me, &outer, &err), &err, "crypt");
	save(p.far, &was);
	for (size_t i = 0; i < was.n; i++)
		put(outer, was.v[i].key, was.v[i].bytes, was.v[i].len);
	look(&p, outer);
	save(inner, &sealed);
	for (size_t i = 0; i < sealed.n; i++) {
		const struct file *f = find(&was, sealed.v[i].key);
		for (enum harm how = FLIPPED; f && counts(f, how) && how < N_HARMS; how++) {
			struct tally t;
			harm(&p, inner, &sealed.v[i], how);
			synth_must(repair(outer, URL, &p.local, 1, p.root, false, &t, &err), &err,
			           "repair");
			if (t.failed[0])
				synth_die("%s %s: %s", harms[how], f->key, t.failed);
			must_see_all(&p, outer, harms[how], f->key);
			restore(&sealed);
		}
	}
	release(&was);
	release(&sealed);
	store_free(outer);
	free_pair(&p);
}

/* ---- another's history ---- */

static void test_another_database(void **state)
{
	struct pair p = new_pair(test_seed() + 2), q = new_pair(test_seed() + 3);
	struct files was;
	struct tally t;
	struct err err = ERR_INIT;

	save(p.far, &was);
	for (size_t i = 0; i < was.n; i++)
		if (ends_with(was.v[i].key, ".db.gz"))
			harm(&p, p.far, &was.v[i], FLIPPED);
	synth_must(repair(p.far, URL, &q.local, 1, q.root, false, &t, &err), &err, "repair");
	assert_true(t.failed[0]);
	struct history *h;
	struct archive *a = alone(&p, p.far, &h);
	for (uint64_t k = 1; k <= p.s->n_states; k++) {
		struct err why = ERR_INIT;
		(void)!synth_compare(p.s, h, k, &why); /* dies of wrong bytes */
	}
	history_put(h);
	archive_free(a);
	release(&was);
	free_pair(&p);
	free_pair(&q);
}

/* A place that thins by itself has a note of its own; that of another would hide what is kept. */
static void test_thinned(void **state)
{
	struct pair p = new_pair(test_seed() + 6);
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
		save(p.local, &notes[i]);
		const struct file *f = find(&notes[i], key);
		put(places[i], key, f->bytes, f->len);
	}
	const struct file *own = find(&notes[0], key), *other = find(&notes[1], key);
	put(p.local, key, own->bytes, own->len);
	harm(&p, p.local, own, CUT);
	synth_must(repair(p.local, p.root, &p.far, 1, URL, false, &t, &err), &err, "another's");
	assert_true(t.failed[0] && t.result.n[REPAIR_DONE] == 0);
	/* Any byte of the very same. */
	cleanup_free uint8_t *copy = malloc(other->len);
	for (size_t at = 0; at < other->len - 1; at++) {
		memcpy(copy, other->bytes, other->len);
		copy[at] ^= 1;
		put(p.local, key, copy, other->len);
		struct repair_place from = {p.far, URL};
		const struct repair_options o = {
		        .target = {p.local, p.root}, .others = &from, .n_others = 1};
		struct repair_result result = {.bytes = 0};
		synth_must(repair_notes(&o, "x.db", &result, &err), &err, "the same");
		assert_true(result.n[REPAIR_DONE] == 1 || other->bytes[at] == '\n');
	}
	release(&notes[0]);
	release(&notes[1]);
	free_pair(&p);
}

/* What a run that was killed left is removed by the next; not what one has that is under way. */
static void test_scratch(void **state)
{
	struct pair p = new_pair(test_seed() + 7);
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
	save(p.far, &was);
	for (int locked = 1; locked >= 0; locked--) {
		int fd = locked ? open(left, O_RDONLY | O_DIRECTORY) : -1;
		assert_true(!locked || flock(fd, LOCK_EX) == 0);
		for (size_t i = 0; i < was.n; i++)
			if (ends_with(was.v[i].key, ".db.gz"))
				harm(&p, p.far, &was.v[i], FLIPPED);
		synth_must(repair(p.far, URL, &p.local, 1, p.root, false, &t, &err), &err, "run");
		assert_true(t.result.n[REPAIR_DONE] > 0);
		assert_int_equal(access(file, F_OK), locked ? 0 : -1);
		if (fd >= 0)
			close(fd);
		restore(&was);
	}
	assert_int_equal(rmdir(tmp), 0); /* nor anything else */
	if (kept)
		setenv("TMPDIR", kept, 1);
	else
		unsetenv("TMPDIR");
	free(tmp);
	release(&was);
	free_pair(&p);
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
	put(s, BACKUP, bytes, sizeof(bytes));
	put(s, MANIFEST, text, strlen(text));
}

static void test_backups(void **state)
{
	struct pair p = new_pair(test_seed() + 6);
	struct files was;

	put_backup(p.far);
	put_backup(p.local);
	save(p.local, &was);
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
		struct file f = *find(&was, key);
		if (i / 2 == FLIPPED && i % 2) /* so that it is none any more */
			put(p.local, key, "{]", 2);
		else
			harm(&p, p.local, &f, (enum harm)(i / 2));
		synth_must(repair_backups(&o, &t.result, &err), &err, "backups");
		if (t.failed[0] || t.result.n[REPAIR_DONE] != 1)
			synth_die("%s %s: %s", harms[i / 2], key, t.failed);
		save(p.local, &now);
		const struct file *g = find(&now, key);
		assert_true(g && g->len == f.len && memcmp(g->bytes, f.bytes, f.len) == 0);
		assert_int_equal(now.n, was.n + (i / 2 != REMOVED)); /* moved aside */
		release(&now);
		restore(&was);
	}
	release(&was);
	free_pair(&p);
}

/* What was moved aside is kept for a while. */
static void test_cleanup(void **state)
{
	struct pair p = new_pair(test_seed() + 5);
	const char *const old = "local/x.db/segment/x.wal.gz.damaged-20200115T103000Z";
	const char *const kept = "local/x.db/segment/x.wal.gz.damaged-20240115T103000Z";
	const struct retain_policy policy = {.n_tiers = 0};
	struct retainer *r;
	struct retain_result result;
	struct err err = ERR_INIT;
	struct files now;

	put(p.local, old, "x", 1);
	put(p.local, kept, "x", 1);
	synth_must(retainer_new(p.root, "x.db", &r, &err), &err, "retainer");
	(void)!retainer_run(r, &policy, INT64_C(1706000000000000), &stop, NULL, &result, &err);
	retainer_free(r);
	save(p.local, &now);
	assert_null(find(&now, old));
	assert_non_null(find(&now, kept));
	release(&now);
	free_pair(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_each),           cmocka_unit_test(test_each_thinned),
	        cmocka_unit_test(test_ended_anywhere), cmocka_unit_test(test_a_place_that_lies),
	        cmocka_unit_test(test_encrypted),      cmocka_unit_test(test_another_database),
	        cmocka_unit_test(test_thinned),        cmocka_unit_test(test_scratch),
	        cmocka_unit_test(test_aside),          cmocka_unit_test(test_cleanup),
	        cmocka_unit_test(test_backups),
	};

	log_set_level(LOG_ERROR);
	log_set_fd(-1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
