/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/shipped.h"

#include "engine/base/file.h"
#include "engine/base/log.h"
#include "engine/compact/compact.h"
#include "engine/retain/retain.h"
#include "engine/store/store.h"
#include "tests/lib/memory.h"

#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- a store that fails ---- */

static enum err_kind kind_of(const struct breaking *b)
{
	return b->kind == ERR_NONE ? ERR_UNAVAILABLE : b->kind;
}

static int request(struct breaking *b, bool *ret_last, struct err *err)
{
	b->n++;
	if (b->before)
		b->before(b->ctx);
	*ret_last = b->left == 0;
	if (b->left < 0 || b->left-- > 0)
		return 0;
	b->left = b->once ? -1 : 0;
	return b->takes_effect ? 0 : err_set(err, kind_of(b), 0, "broken before");
}

static int answer(struct breaking *b, int rc, bool last, struct err *err)
{
	if (!last)
		return rc;
	b->takes_effect = false;
	if (rc < 0) /* what it says is why it failed */
		return rc;
	return err_set(err, kind_of(b), 0, "broken after");
}

static int b_put(struct store *s, const char *key, struct source *body, uint64_t bytes,
                 unsigned flags, struct err *err)
{
	struct breaking *b = (struct breaking *)s;
	bool last;
	int rc = request(b, &last, err);

	b->puts++;
	b->put_bytes += bytes;
	if (rc == 0)
		rc = store_put(b->inner, key, body, bytes, flags, err);
	return answer(b, rc, last, err);
}

static int b_get(struct store *s, const char *key, size_t max_bytes, struct buf *ret,
                 struct err *err)
{
	struct breaking *b = (struct breaking *)s;
	bool last;
	int rc = request(b, &last, err);

	return answer(b, rc < 0 ? rc : store_get(b->inner, key, max_bytes, ret, err), last, err);
}

static int b_open(struct store *s, const char *key, uint64_t bytes, struct source **ret,
                  struct err *err)
{
	return store_open_object(((struct breaking *)s)->inner, key, bytes, ret, err);
}

static int b_list(struct store *s, const char *prefix, const char *after, bool deep,
                  store_list_fn *fn, void *ctx, struct err *err)
{
	struct breaking *b = (struct breaking *)s;
	bool last;
	int rc = request(b, &last, err);

	return answer(b, rc < 0 ? rc : store_list(b->inner, prefix, after, deep, fn, ctx, err),
	              last, err);
}

static int b_remove(struct store *s, const char *key, struct err *err)
{
	struct breaking *b = (struct breaking *)s;
	bool last;
	int rc = request(b, &last, err);

	b->removals++;
	if (rc == 0 && b->denies && b->denies(b->denies_ctx, key)) {
		b->denied++;
		rc = err_set(err, ERR_DENIED, 0, "'%s' is not to be removed", key);
	}
	return answer(b, rc < 0 ? rc : store_remove(b->inner, key, err), last, err);
}

static void b_counters(struct store *s, struct store_counters *ret)
{
	store_get_counters(((struct breaking *)s)->inner, ret);
}

static const struct store_ops breaking_ops = {b_put,    b_get,      b_open, b_list,
                                              b_remove, b_counters, NULL};

static void b_free(struct store *s)
{
}

bool deny_all(void *ctx, const char *key)
{
	return true;
}

/* Of one that lies on the stack, and is given to who frees it. */
const struct store_ops borrowed_ops = {b_put, b_get, b_open, b_list, b_remove, b_counters, b_free};

struct breaking break_after(struct store *inner, long left, bool takes_effect)
{
	return (struct breaking){
	        .base = {.ops = &breaking_ops, .label = inner->label, .remote = true, .dir_fd = -1},
	        .inner = inner,
	        .left = left,
	        .takes_effect = takes_effect};
}

/* ---- what a store holds, as a directory ---- */

struct copying {
	struct store *store;
	const char *to;
};

static int copy_entry(void *ctx, const struct store_entry *e, struct err *err)
{
	struct copying *c = ctx;
	cleanup_buf struct buf b = BUF_INIT((size_t)1 << 30);
	char path[4096];

	int rc = store_get(c->store, e->key, b.max_bytes, &b, err);
	if (rc < 0)
		return rc;
	snprintf(path, sizeof(path), "%s/%s", c->to, e->key);
	char *slash = strrchr(path, '/');
	*slash = '\0';
	synth_must(file_make_dirs(path, err), err, path);
	int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	write_whole(dir, slash + 1, b.data, b.len);
	close(dir);
	return 0;
}

static char *as_folder(struct store *store)
{
	char *to = test_folder();
	struct copying c = {store, to};
	struct err err = ERR_INIT;

	synth_must(store_list(store, "", NULL, true, copy_entry, &c, &err), &err, "list");
	return to;
}

struct synth *make(const char *root, uint64_t seed)
{
	const struct synth_options o = {
	        .seed = seed,
	        .page_size = 512u << (seed % 3),
	        .max_pages = 30,
	        .max_frames = 5,
	        .level = 1,
	        .torn_batches = seed % 2,
	};
	return synth_new(root, "x.db", &o);
}

uint64_t check_held(const struct synth *s, struct store *store, enum held how)
{
	cleanup_free char *root = as_folder(store);
	struct archive *a[2];
	struct history *h[2] = {0};
	struct err err = ERR_INIT;
	uint64_t last = 0;
	const char *const roots[] = {s->root, root};

	for (int i = 0; i < 2; i++) {
		synth_must(archive_open(roots[i], NULL, &a[i], &err), &err, "archive_open");
		if (history_get(a[i], "x.db", &h[i], &err) < 0)
			assert_int_equal(err.kind, ERR_NOT_FOUND);
	}
	bool missing = false;
	for (uint64_t t = s->n_states; h[1] && t >= 1; t--) {
		struct err why[2] = {ERR_INIT, ERR_INIT};
		bool here = synth_compare(s, h[0], t, &why[0]);
		bool there = synth_compare(s, h[1], t, &why[1]);
		if (there && last == 0)
			last = t;
		if (there && !here && how != THINNED)
			synth_die("transaction %" PRIu64 " is there, and not here: %s", t,
			          why[0].msg);
		if (there && missing && how == WHOLE)
			synth_die("a hole above transaction %" PRIu64, t);
		if (here && !there && last) {
			missing = true;
			if (how == WHOLE)
				synth_die("transaction %" PRIu64 " is missing: %s", t, why[1].msg);
		}
	}
	for (int i = 0; i < 2; i++) {
		if (h[i])
			history_put(h[i]);
		archive_free(a[i]);
	}
	test_remove(root);
	return last;
}

/* ---- shipping ---- */

struct shipper *open_shipper(const char *root, struct store *store, int64_t grace_us)
{
	const struct ship_options o = {
	        .archive = root, .name = "x.db", .url = URL, .store = store, .grace_us = grace_us};
	struct shipper *s;
	struct err err = ERR_INIT;

	synth_must(shipper_new(&o, &s, &err), &err, "shipper_new");
	return s;
}

int ship_all(struct shipper *s, struct err *err)
{
	bool more = true;
	int rc = 0;

	for (int i = 0; more && rc == 0; i++) {
		if (i > 10000)
			synth_die("shipping finds no end");
		rc = shipper_step(s, &more, err);
	}
	return rc;
}

void forget(const char *root)
{
	char command[600];

	snprintf(command, sizeof(command), "rm -f '%s'/local/x.db/shipped-*", root);
	assert_int_equal(system(command), 0);
}

uint64_t newest(const struct synth *s)
{
	struct archive *a;
	struct history *h;
	struct moment m = {0};
	struct err err = ERR_INIT;

	synth_must(archive_open(s->root, NULL, &a, &err), &err, "archive_open");
	synth_must(history_get(a, "x.db", &h, &err), &err, "history_get");
	if (history_latest(h, &m, &err) < 0)
		assert_int_equal(err.kind, ERR_NOT_FOUND);
	history_put(h);
	archive_free(a);
	return m.txid;
}

char *copy_of(const char *root)
{
	char *to = test_folder(), command[600];

	snprintf(command, sizeof(command), "cp -a '%s'/. '%s'", root, to);
	assert_int_equal(system(command), 0);
	return to;
}
