/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/store/faulty.h"

#include "engine/base/clock.h"
#include "engine/store/store_i.h"

#include <string.h>

struct faulty_store {
	struct store base;
	struct store *inner;
	struct store_faults faults;
	struct store_tally tally;
	_Atomic uint64_t dice;
	_Atomic unsigned under_way, most;
};

static struct faulty_store *faulty_of(struct store *s)
{
	return (struct faulty_store *)s;
}

/* splitmix64: any number of threads may throw. */
static uint64_t throw_dice(struct faulty_store *f)
{
	const uint64_t step = UINT64_C(0x9e3779b97f4a7c15);
	uint64_t z = atomic_fetch_add(&f->dice, step) + step;

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static bool happens(struct faulty_store *f, unsigned permille)
{
	return permille && throw_dice(f) % 1000 < permille;
}

static void begin(struct faulty_store *f)
{
	unsigned now = ++f->under_way, most = f->most;

	while (now > most && !atomic_compare_exchange_weak(&f->most, &most, now))
		;
}

/* Has the request take its time, and counts it. */
static int end(struct faulty_store *f, enum store_verb verb, uint64_t bytes, int rc)
{
	int64_t us = f->faults.delay_us;

	if (f->faults.bytes_per_s)
		us += (int64_t)(bytes * 1000000 / f->faults.bytes_per_s);
	if (us > 0)
		clock_sleep_us(us);
	f->under_way--;
	if (rc == 0 && verb == STORE_PUT)
		f->tally.sent_bytes += bytes;
	else if (rc == 0)
		f->tally.received_bytes += bytes;
	return store_tally_end(&f->tally, verb, rc);
}

static int fail(struct faulty_store *f, const char *key, struct err *err)
{
	return err_set(err, ERR_UNAVAILABLE, 0, "%s does not answer: '%s'", f->base.label, key);
}

static int gone(struct faulty_store *f, const char *key, struct err *err)
{
	return err_set(err, ERR_NOT_FOUND, ENOENT, "'%s' is not in %s", key, f->base.label);
}

static int faulty_put(struct store *s, const char *key, struct source *body, uint64_t bytes,
                      unsigned flags, struct err *err)
{
	struct faulty_store *f = faulty_of(s);
	int rc;

	begin(f);
	if (f->faults.ignores_create)
		flags &= ~(unsigned)STORE_CREATE;
	if (happens(f, f->faults.fail_permille))
		rc = fail(f, key, err);
	else if (f->faults.refuses_create && (flags & STORE_CREATE))
		rc = err_set(err, ERR_REFUSED, 0, "%s has no conditional writes", f->base.label);
	else
		rc = store_put(f->inner, key, body, bytes, flags, err);
	if (rc == 0 && happens(f, f->faults.lost_permille))
		rc = fail(f, key, err);
	return end(f, STORE_PUT, bytes, rc);
}

/* What can befall the bytes of an answer. */
static int spoil(struct faulty_store *f, uint8_t *p, size_t len, const char *key, struct err *err)
{
	if (len && happens(f, f->faults.cut_permille)) {
		size_t n = (size_t)(throw_dice(f) % len);
		memset(p + n, 0xa5, len - n);
		return err_set(err, ERR_DAMAGED, 0, "'%s' was cut after %zu of %zu bytes", key, n,
		               len);
	}
	if (len && happens(f, f->faults.flip_permille))
		p[throw_dice(f) % len] ^= (uint8_t)(1u << (throw_dice(f) % 8));
	return 0;
}

static int faulty_get(struct store *s, const char *key, size_t max_bytes, struct buf *ret,
                      struct err *err)
{
	struct faulty_store *f = faulty_of(s);
	size_t had = ret->len;
	int rc;

	begin(f);
	if (happens(f, f->faults.fail_permille))
		rc = fail(f, key, err);
	else if (happens(f, f->faults.missing_permille))
		rc = gone(f, key, err);
	else
		rc = store_get(f->inner, key, max_bytes, ret, err);
	if (rc == 0)
		rc = spoil(f, ret->data + had, ret->len - had, key, err);
	if (rc < 0)
		ret->len = had;
	return end(f, STORE_GET, ret->len - had, rc);
}

struct faulty_source {
	struct source base;
	struct faulty_store *store;
	struct source *inner; /* NULL: it was not there */
};

static int faulty_pread(struct source *s, void *buf, size_t len, uint64_t offset, struct err *err)
{
	struct faulty_source *fs = (struct faulty_source *)s;
	struct faulty_store *f = fs->store;
	int rc;

	begin(f);
	if (happens(f, f->faults.fail_permille))
		rc = fail(f, s->name, err);
	else if (!fs->inner || happens(f, f->faults.missing_permille))
		rc = gone(f, s->name, err);
	else
		rc = fs->inner->pread(fs->inner, buf, len, offset, err);
	if (rc == 0)
		rc = spoil(f, buf, len, s->name, err);
	return end(f, STORE_GET, len, rc);
}

static int faulty_size(struct source *s, uint64_t *ret_bytes, struct err *err)
{
	struct faulty_source *fs = (struct faulty_source *)s;

	if (!fs->inner)
		return gone(fs->store, s->name, err);
	return fs->inner->size(fs->inner, ret_bytes, err);
}

static void faulty_source_free(struct source *s)
{
	source_free(((struct faulty_source *)s)->inner);
	free(s->name);
	free(s);
}

/* As a bucket: with a known size nothing is asked for, and what is missing shows at a read. */
static int faulty_open(struct store *s, const char *key, uint64_t bytes, struct source **ret,
                       struct err *err)
{
	struct faulty_store *f = faulty_of(s);
	cleanup_source struct source *inner = NULL;
	struct err why = ERR_INIT;

	int rc = store_open_object(f->inner, key, bytes, &inner, &why);
	if (bytes == UINT64_MAX) {
		begin(f);
		if (happens(f, f->faults.missing_permille))
			rc = gone(f, key, &why);
		rc = end(f, STORE_HEAD, 0, rc);
	} else if (why.kind == ERR_NOT_FOUND) {
		rc = 0;
	}
	if (rc < 0)
		return err_copy(err, &why);
	struct faulty_source *fs = calloc(1, sizeof(*fs));
	char *name = strdup(key);
	if (!fs || !name) {
		free(fs);
		free(name);
		return err_set(err, ERR_NOMEM, 0, "no memory to open '%s'", key);
	}
	fs->base = (struct source){.pread = faulty_pread,
	                           .size = faulty_size,
	                           .free = faulty_source_free,
	                           .name = name};
	fs->store = f;
	fs->inner = take_ptr(inner);
	*ret = &fs->base;
	return 0;
}

static int faulty_list(struct store *s, const char *prefix, const char *after, bool deep,
                       store_list_fn *fn, void *ctx, struct err *err)
{
	struct faulty_store *f = faulty_of(s);
	int rc;

	begin(f);
	if (happens(f, f->faults.fail_permille))
		rc = fail(f, prefix, err);
	else
		rc = store_list(f->inner, prefix, after, deep, fn, ctx, err);
	return end(f, STORE_LIST, 0, rc);
}

static int faulty_remove(struct store *s, const char *key, struct err *err)
{
	struct faulty_store *f = faulty_of(s);
	int rc;

	begin(f);
	if (happens(f, f->faults.fail_permille))
		rc = fail(f, key, err);
	else
		rc = store_remove(f->inner, key, err);
	if (rc == 0 && happens(f, f->faults.lost_permille))
		rc = fail(f, key, err);
	return end(f, STORE_DELETE, 0, rc);
}

static void faulty_counters(struct store *s, struct store_counters *ret)
{
	store_tally_get(&faulty_of(s)->tally, ret);
}

static void faulty_free(struct store *s)
{
	store_free(faulty_of(s)->inner);
	free(s->label);
	free(s);
}

int store_open_faulty(struct store *inner, const struct store_faults *faults, struct store **ret,
                      struct err *err)
{
	static const struct store_ops ops = {faulty_put,  faulty_get,    faulty_open,
	                                     faulty_list, faulty_remove, faulty_counters,
	                                     faulty_free};
	struct faulty_store *f = calloc(1, sizeof(*f));

	if (!f || !(f->base.label = strdup(inner->label))) {
		free(f);
		store_free(inner);
		return err_set(err, ERR_NOMEM, 0, "no memory for a store");
	}
	f->base.ops = &ops;
	f->base.dir_fd = -1;
	f->inner = inner;
	store_faulty_set(&f->base, faults);
	*ret = &f->base;
	return 0;
}

void store_faulty_set(struct store *s, const struct store_faults *faults)
{
	struct faulty_store *f = faulty_of(s);

	f->faults = *faults;
	f->dice = faults->seed;
	s->remote = faults->remote;
}

unsigned store_faulty_most_at_once(struct store *s)
{
	return faulty_of(s)->most;
}
