/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A repair that ends anywhere: as kill -9 ends it, at each write to a directory; or with a store that
 * fails, at each request.  The archive is then never worse than before: what was whole lies there as it
 * did, what was damaged does so, or is put back, or was moved aside.  The next run does the rest, and
 * nothing that was on its way stays.
 */
#include "engine/base/log.h"
#include "engine/repair/repair.h"
#include "engine/store/store_i.h"
#include "tests/lib/ending.h"
#include "tests/lib/memory.h"
#include "tests/lib/places.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

static void told(void *ctx, const struct repair_step *s)
{
	if (s->outcome == REPAIR_FAILED)
		snprintf(ctx, 700, "%s: %s", s->key, s->why);
}

struct run {
	struct store *target, *from;
	const char *label, *from_label;
	char failed[700];
	struct err err;
};

static int run(void *ctx)
{
	struct run *r = ctx;
	const struct repair_place from = {r->from, r->from_label};
	const struct repair_options o = {.target = {r->target, r->label},
	                                 .others = &from,
	                                 .n_others = 1,
	                                 .told = told,
	                                 .ctx = r->failed};
	struct repair_result result = {.bytes = 0};

	r->failed[0] = '\0';
	r->err = (struct err)ERR_INIT;
	int rc = repair_backups(&o, &result, &r->err);
	rc = rc ? rc : repair_notes(&o, "x.db", &result, &r->err);
	return rc ? rc : repair_objects(&o, "x.db", &result, &r->err);
}

static void must_run(struct run *r, const char *what)
{
	synth_must(run(r), &r->err, what);
	if (r->failed[0])
		synth_die("%s: %s", what, r->failed);
}

/* ---- damage ---- */

static bool is_repaired(const struct file *f)
{
	const char *base = strrchr(f->key, '/') + 1;

	if (f->len == 0)
		return false;
	return ends_with(base, ".gz") ? ends_with(base, ".db.gz") || f->len > GROW_HEADER_SIZE
	                              : ends_with(base, ".lineage") || ends_with(base, ".gap");
}

/* What is left whole, and what of each kind is not. */
static void harm_many(struct pair *p, struct store *at, const struct files *was)
{

	for (size_t i = 0; i < was->n; i++) {
		enum harm how = (enum harm)rng_below(&p->s->rng, N_HARMS);
		if (!is_repaired(&was->v[i]) || file_is_newest(was, &was->v[i]) ||
		    !rng_chance(&p->s->rng, 50))
			continue;
		file_harm(p, at, &was->v[i], how);
	}
}

static bool is_own_affair(const char *key)
{
	const char *base = strrchr(key, '/') + 1;

	return strcmp(base, "head") == 0 || strcmp(base, "upkeep") == 0 ||
	       strcmp(base, "lock") == 0;
}

/* `whole`: before it was harmed. */
static void must_not_be_worse(struct store *now_at, const struct files *whole,
                              const struct files *harmed, long at)
{
	struct files now;

	files_save(now_at, &now);
	for (size_t i = 0; i < harmed->n; i++) {
		const struct file *h = &harmed->v[i], *w = files_find(whole, h->key);
		const struct file *n = files_find(&now, h->key);
		bool was_whole = w && file_is_same(w, h), aside = false;
		if (is_own_affair(h->key))
			continue;
		for (size_t k = 0; k < now.n && !aside; k++)
			aside = strncmp(now.v[k].key, h->key, strlen(h->key)) == 0 &&
			        strstr(now.v[k].key, ".damaged-") && file_is_same(&now.v[k], h);
		if (was_whole && (!n || !file_is_same(n, h)))
			synth_die("ended at %ld: '%s' was whole, and is %s", at, h->key,
			          n ? "changed" : "gone");
		/* What is made anew has other bytes than what it was: reading tells, later. */
		if (!was_whole && !n && !aside)
			synth_die("ended at %ld: '%s' is gone, and not aside", at, h->key);
		if (!was_whole && n && !file_is_same(n, h) && now_at->dir_fd >= 0 && !aside)
			synth_die("ended at %ld: '%s' was replaced, and is not aside", at, h->key);
	}
	files_release(&now);
}

/* ---- what stays behind ---- */

static bool is_rubbish(const char *name)
{
	return strncmp(name, ".put-", 5) == 0 || ends_with(name, ".tmp") ||
	       strncmp(name, "asof-repair-", 12) == 0;
}

/* As long after the run; or counts what was on its way.  Folders and what is in them. */
static unsigned look_for_rubbish(const char *path, bool age)
{
	const struct timespec old[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
	DIR *dir = opendir(path);
	struct dirent *d;
	unsigned n = 0;

	while (dir && (d = readdir(dir))) {
		char file[2000];
		if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
			continue;
		snprintf(file, sizeof(file), "%s/%s", path, d->d_name);
		if (d->d_type == DT_DIR)
			n += look_for_rubbish(file, age);
		if (!is_rubbish(d->d_name))
			continue;
		n++;
		if (age)
			utimensat(AT_FDCWD, file, old, 0);
	}
	if (dir)
		closedir(dir);
	return n;
}

/* ---- a directory, at each write ---- */

/* As whoever opens the folder. */
static bool sees_all(struct pair *p, const char *root, bool fills, struct err *ret_why)
{
	struct archive *a;
	struct history *h;
	struct err err = ERR_INIT;
	bool all = true;

	synth_must(archive_open(root, NULL, &a, &err), &err, "open");
	synth_must(history_get(a, "x.db", &h, &err), &err, "history");
	for (uint64_t t = 1; t <= p->s->n_states; t++) {
		struct err why = ERR_INIT;
		bool got = synth_compare(p->s, h, t, &why); /* dies of wrong bytes */
		if (fills)
			p->seen[t] = got;
		if (p->seen[t] && !got && all)
			*ret_why = why;
		all = all && (got || !p->seen[t]);
	}
	history_put(h);
	archive_free(a);
	return all;
}

static void each_write(struct pair *p, struct store *whole_at, const char *whole_root,
                       struct store *from, const char *from_label, const char *tmp)
{
	cleanup_free char *copy = NULL, *harmed_root = NULL;
	long step = getenv("ASOF_TEST_SHORT") ? 9 : 1, at = 0;
	struct files whole, harmed;
	struct store *store;
	struct err err = ERR_INIT;
	bool ended = true;
	unsigned left = 0;

	if (asprintf(&copy, "%s-copy", whole_root) < 0 ||
	    asprintf(&harmed_root, "%s-harmed", whole_root) < 0)
		synth_die("no memory");
	(void)!sees_all(p, whole_root, true, &err);
	files_save(whole_at, &whole);
	copy_folder(whole_root, harmed_root);
	const struct store_options options = {.create = false};
	synth_must(store_open_local(harmed_root, &options, &store, &err), &err, "open");
	harm_many(p, store, &whole);
	files_save(store, &harmed);
	store_free(store);
	for (; ended; at += step) {
		if (at > 20000)
			synth_die("the repair finds no end");
		copy_folder(harmed_root, copy);
		synth_must(store_open_local(copy, &options, &store, &err), &err, "open");
		struct run r = {store, from, copy, from_label, "", ERR_INIT};
		ended = run_until_write(at, run, &r);
		must_not_be_worse(store, &whole, &harmed, at);
		left += look_for_rubbish(copy, true) + look_for_rubbish(tmp, true);
		must_run(&r, "again");
		must_not_be_worse(store, &whole, &harmed, at);
		if (!sees_all(p, copy, false, &err))
			synth_die("ended at %ld: not all is seen: %s", at, err.msg);
		must_run(&r, "and again");
		if (look_for_rubbish(copy, false) || look_for_rubbish(tmp, false))
			synth_die("ended at %ld: something that was on its way stays", at);
		store_free(store);
	}
	printf("ended at each of %ld writes, which left %u files\n", at, left);
	files_release(&harmed);
	files_release(&whole);
	test_remove(copy);
	test_remove(harmed_root);
}

static void each_write_of(uint64_t seed)
{
	cleanup_free char *tmp = test_folder(), *dest = test_folder();
	struct pair p = pair_new(seed);
	struct files all;
	struct store *at;
	struct err err = ERR_INIT;

	setenv("TMPDIR", tmp, 1);
	each_write(&p, p.local, p.root, p.far, URL, tmp);
	/* A destination that is a directory. */
	const struct store_options options = {.create = false};
	synth_must(store_open_local(dest, &options, &at, &err), &err, "open");
	files_save(p.far, &all);
	for (size_t i = 0; i < all.n; i++)
		store_put_text(at, all.v[i].key, all.v[i].bytes, all.v[i].len);
	files_release(&all);
	each_write(&p, at, dest, p.local, p.root, tmp);
	unsetenv("TMPDIR");
	store_free(at);
	test_remove(dest);
	test_remove(tmp);
	pair_free(&p);
}

static void test_directory(void **state)
{
	each_write_of(test_seed());
	/* The run after one that ended has nothing to put into the folder in which that left a file. */
	each_write_of(UINT64_C(1795832795495246));
}

/* ---- a store, at each request ---- */

static void test_store(void **state)
{
	struct pair p = pair_new(test_seed() + 1);
	long step = getenv("ASOF_TEST_SHORT") ? 15 : 1;
	struct files whole, harmed;
	bool ended = true;
	long at = 0;

	pair_look(&p, p.far);
	files_save(p.far, &whole);
	harm_many(&p, p.far, &whole);
	files_save(p.far, &harmed);
	for (; ended; at += step) {
		struct breaking b = break_after(p.far, at / 2, at % 2);
		struct run r = {&b.base, p.local, URL, p.root, "", ERR_INIT};
		ended = run(&r) < 0 || r.failed[0];
		must_not_be_worse(p.far, &whole, &harmed, at);
		r.target = p.far;
		must_run(&r, "again");
		must_not_be_worse(p.far, &whole, &harmed, at);
		pair_must_see(&p, p.far, "ended", "many");
		files_restore(&harmed);
	}
	printf("ended at each of %ld requests\n", at / 2);
	files_release(&harmed);
	files_release(&whole);
	pair_free(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_directory),
	        cmocka_unit_test(test_store),
	};

	log_set_level(LOG_ERROR);
	log_set_fd(-1); /* damage is made on purpose */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
