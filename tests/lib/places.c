/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/places.h"

#include "engine/archive/names.h"
#include "engine/compact/compact.h"
#include "engine/retain/retain.h"
#include "engine/store/store.h"
#include "tests/lib/memory.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static _Atomic bool stop;

/* ---- stores as they were ---- */

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

void files_save(struct store *s, struct files *f)
{
	struct err err = ERR_INIT;

	*f = (struct files){.store = s};
	synth_must(store_list(s, "", NULL, true, keep, f, &err), &err, "list");
}

void files_release(struct files *f)
{
	for (size_t i = 0; i < f->n; i++) {
		free(f->v[i].key);
		free(f->v[i].bytes);
	}
	f->n = 0;
}

const struct file *files_find(const struct files *f, const char *key)
{
	for (size_t i = 0; i < f->n; i++)
		if (strcmp(f->v[i].key, key) == 0)
			return &f->v[i];
	return NULL;
}

bool file_is_same(const struct file *a, const struct file *b)
{
	return a->len == b->len && (a->len == 0 || memcmp(a->bytes, b->bytes, a->len) == 0);
}

void store_put_text(struct store *s, const char *key, const void *p, size_t len)
{
	struct err err = ERR_INIT;

	synth_must(store_put_bytes(s, key, p, len, 0, &err), &err, key);
}

void files_restore(const struct files *f)
{
	struct files now;
	struct err err = ERR_INIT;

	files_save(f->store, &now);
	for (size_t i = 0; i < now.n; i++)
		if (!files_find(f, now.v[i].key))
			synth_must(store_remove(f->store, now.v[i].key, &err), &err, "remove");
	for (size_t i = 0; i < f->n; i++) {
		const struct file *o = files_find(&now, f->v[i].key);
		if (!o || !file_is_same(o, &f->v[i]))
			store_put_text(f->store, f->v[i].key, f->v[i].bytes, f->v[i].len);
	}
	files_release(&now);
}

bool files_same(const struct files *f, struct store *store)
{
	struct files now;

	files_save(store, &now);
	bool same = now.n == f->n;
	for (size_t i = 0; i < now.n && same; i++) {
		const struct file *o = files_find(f, now.v[i].key);
		same = o && file_is_same(o, &now.v[i]);
	}
	files_release(&now);
	return same;
}

/* ---- three places of one history ---- */

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

struct pair pair_new(uint64_t seed)
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

void pair_free(struct pair *p)
{
	store_free(p->local);
	store_free(p->far);
	store_free(p->far2);
	synth_free(p->s);
	test_remove(p->root);
	free(p->root);
}

struct store *store_lent(struct store *inner)
{
	static struct breaking lent;

	lent = break_after(inner, -1, false);
	lent.base.ops = &borrowed_ops;
	return &lent.base;
}

struct archive *pair_alone(struct pair *p, struct store *store, struct history **h)
{
	struct archive *a;
	struct err err = ERR_INIT;

	if (store == p->local) {
		synth_must(archive_open(p->root, NULL, &a, &err), &err, "archive_open");
	} else {
		struct store *s = store_lent(store);
		synth_must(archive_open_stores(&s, 1, NULL, &a, &err), &err, "archive_open");
	}
	synth_must(history_get(a, "x.db", h, &err), &err, "history_get");
	return a;
}

void pair_look(struct pair *p, struct store *store)
{
	struct history *h;
	struct archive *a = pair_alone(p, store, &h);

	p->n_seen = 0;
	for (uint64_t t = 1; t <= p->s->n_states; t++) {
		struct err err = ERR_INIT;
		p->seen[t] = synth_compare(p->s, h, t, &err);
		p->n_seen += p->seen[t];
	}
	history_put(h);
	archive_free(a);
}

void pair_must_see(struct pair *p, struct store *store, const char *what, const char *key)
{
	struct history *h;
	struct archive *a = pair_alone(p, store, &h);

	for (uint64_t t = 1; t <= p->s->n_states; t++) {
		struct err err = ERR_INIT;
		if (p->seen[t] && !synth_compare(p->s, h, t, &err))
			synth_die("%s '%s': transaction %" PRIu64 " cannot be seen: %s", what, key,
			          t, err.msg);
	}
	history_put(h);
	archive_free(a);
}

bool pair_thin(struct pair *p, int64_t grace_us)
{
	struct retain_policy policy;
	struct retain_result result;
	struct retainer *r;
	struct history *h;
	struct history_status st;
	struct err err = ERR_INIT;

	struct archive *a = pair_alone(p, p->local, &h);
	synth_must(history_get_status(h, &st, &err), &err, "status");
	history_put(h);
	archive_free(a);
	retain_policy_default(&policy);
	policy.n_tiers = 2;
	policy.tiers[0] = (struct retain_tier){(st.last_us - st.first_us) / 4, 0};
	policy.tiers[1] = (struct retain_tier){2 * (st.last_us - st.first_us),
	                                       (st.last_us - st.first_us) / 12};
	policy.grace_us = grace_us;
	synth_must(retainer_new(p->root, "x.db", &r, &err), &err, "retainer");
	synth_must(retainer_run(r, &policy, st.last_us + 1, &stop, NULL, &result, &err), &err,
	           "thin");
	retainer_free(r);
	return result.kept_points > 1;
}

/* ---- damage ---- */

const char *const harms[N_HARMS] = {"removed", "flipped", "cut", "emptied"};

void file_harm(struct pair *p, struct store *s, const struct file *f, enum harm how)
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
	store_put_text(s, f->key, copy, how == EMPTIED ? 0 : how == CUT ? at : f->len);
}

bool ends_with(const char *text, const char *end)
{
	size_t n = strlen(text), m = strlen(end);

	return n >= m && strcmp(text + n - m, end) == 0;
}

bool file_is_growing(const struct file *f)
{
	struct object_name n;

	return object_name_parse(strrchr(f->key, '/') + 1, &n) && n.type == OBJECT_GROWING;
}

bool file_is_newest(const struct files *was, const struct file *f)
{
	const struct file *newest = NULL;

	for (size_t i = 0; i < was->n; i++)
		if (strstr(was->v[i].key, "/segment/") && ends_with(was->v[i].key, ".wal.gz"))
			newest = &was->v[i]; /* they are sorted */
	return newest == f;
}
