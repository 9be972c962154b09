/* SPDX-License-Identifier: Apache-2.0 */
/* Objects in memory, in order of their keys.  An object that is read outlives its removal. */
#include "engine/base/clock.h"
#include "engine/store/store_i.h"

#include <pthread.h>
#include <string.h>

struct blob {
	_Atomic unsigned refs;
	uint64_t bytes;
	uint8_t data[];
};

struct object {
	char *key;
	struct blob *blob;
	int64_t modified_us;
};

struct memory_store {
	struct store base;
	struct store_tally tally;
	pthread_mutex_t lock;
	struct object *objects; /* under lock; sorted */
	size_t n, cap;
};

static struct memory_store *memory_of(struct store *s)
{
	return (struct memory_store *)s;
}

static void blob_unref(struct blob *b)
{
	if (b && --b->refs == 0)
		free(b);
}

/* Under lock: the place of the first key >= `key`. */
static size_t place_of(const struct memory_store *m, const char *key, bool *ret_there)
{
	size_t lo = 0, hi = m->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (strcmp(m->objects[mid].key, key) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	*ret_there = lo < m->n && strcmp(m->objects[lo].key, key) == 0;
	return lo;
}

static int make_blob(struct source *body, uint64_t bytes, struct blob **ret, struct err *err)
{
	struct blob *b = malloc(sizeof(*b) + bytes);

	if (!b)
		return err_set(err, ERR_NOMEM, 0, "no memory for an object");
	b->refs = 1;
	b->bytes = bytes;
	int rc = bytes ? body->pread(body, b->data, bytes, 0, err) : 0;
	if (rc < 0)
		free(b);
	else
		*ret = b;
	return rc;
}

/* Under lock: makes room for a new object at `at`. */
static int insert(struct memory_store *m, size_t at, const char *key, struct err *err)
{
	char *copy = strdup(key);

	if (copy && m->n == m->cap) {
		size_t cap = m->cap ? 2 * m->cap : 64;
		struct object *p = realloc(m->objects, cap * sizeof(*p));
		if (!p) {
			free(copy);
			copy = NULL;
		} else {
			m->objects = p;
			m->cap = cap;
		}
	}
	if (!copy)
		return err_set(err, ERR_NOMEM, 0, "no memory for '%s'", key);
	memmove(&m->objects[at + 1], &m->objects[at], (m->n - at) * sizeof(*m->objects));
	m->objects[at] = (struct object){.key = copy};
	m->n++;
	return 0;
}

static int put_blob(struct memory_store *m, const char *key, struct blob *b, unsigned flags,
                    struct err *err)
{
	bool there;
	LOCK_SCOPE(&m->lock);

	size_t at = place_of(m, key, &there);
	if (there && (flags & STORE_CREATE)) {
		const struct blob *old = m->objects[at].blob;
		bool same = old->bytes == b->bytes && memcmp(old->data, b->data, b->bytes) == 0;
		blob_unref(b);
		return same ? 0 : err_set(err, ERR_EXISTS, 0, "'%s' is there already", key);
	}
	int rc = there ? 0 : insert(m, at, key, err);
	if (rc < 0) {
		blob_unref(b);
		return rc;
	}
	blob_unref(m->objects[at].blob);
	m->objects[at].blob = b;
	m->objects[at].modified_us = clock_now_us();
	m->tally.sent_bytes += b->bytes;
	return 0;
}

static int memory_put(struct store *s, const char *key, struct source *body, uint64_t bytes,
                      unsigned flags, struct err *err)
{
	struct memory_store *m = memory_of(s);
	struct blob *b;

	int rc = make_blob(body, bytes, &b, err);
	if (rc == 0)
		rc = put_blob(m, key, b, flags, err);
	return store_tally_end(&m->tally, STORE_PUT, rc);
}

static int find(struct memory_store *m, const char *key, struct blob **ret, struct err *err)
{
	bool there;
	LOCK_SCOPE(&m->lock);

	size_t at = place_of(m, key, &there);
	if (!there)
		return err_set(err, ERR_NOT_FOUND, ENOENT, "'%s' is not in %s", key, m->base.label);
	*ret = m->objects[at].blob;
	(*ret)->refs++;
	return 0;
}

static int memory_get(struct store *s, const char *key, size_t max_bytes, struct buf *ret,
                      struct err *err)
{
	struct memory_store *m = memory_of(s);
	struct blob *b = NULL;

	int rc = find(m, key, &b, err);
	if (rc == 0 && b->bytes > max_bytes)
		rc = err_set(err, ERR_DAMAGED, 0,
		             "'%s' has %llu bytes, more than the %zu it may have", key,
		             (unsigned long long)b->bytes, max_bytes);
	if (rc == 0)
		rc = buf_append(ret, b->data, b->bytes, err);
	if (rc == 0)
		m->tally.received_bytes += b->bytes;
	blob_unref(b);
	return store_tally_end(&m->tally, STORE_GET, rc);
}

struct memory_source {
	struct source base;
	struct memory_store *store;
	struct blob *blob;
};

static int memory_pread(struct source *s, void *buf, size_t len, uint64_t offset, struct err *err)
{
	struct memory_source *m = (struct memory_source *)s;
	int rc = 0;

	if (offset > m->blob->bytes || len > m->blob->bytes - offset)
		rc = err_set(err, ERR_DAMAGED, 0, "'%s' ends at %llu, before byte %llu", s->name,
		             (unsigned long long)m->blob->bytes,
		             (unsigned long long)(offset + len));
	else if (len)
		memcpy(buf, m->blob->data + offset, len);
	if (rc == 0)
		m->store->tally.received_bytes += len;
	return store_tally_end(&m->store->tally, STORE_GET, rc);
}

static int memory_size(struct source *s, uint64_t *ret_bytes, struct err *err)
{
	*ret_bytes = ((struct memory_source *)s)->blob->bytes;
	return 0;
}

static void memory_source_free(struct source *s)
{
	blob_unref(((struct memory_source *)s)->blob);
	free(s->name);
	free(s);
}

static int memory_open(struct store *s, const char *key, uint64_t bytes, struct source **ret,
                       struct err *err)
{
	struct memory_source *m = calloc(1, sizeof(*m));
	char *name = strdup(key);

	int rc = m && name ? find(memory_of(s), key, &m->blob, err)
	                   : err_set(err, ERR_NOMEM, 0, "no memory to open '%s'", key);
	if (rc < 0) {
		free(m);
		free(name);
		return rc;
	}
	m->base = (struct source){.pread = memory_pread,
	                          .size = memory_size,
	                          .free = memory_source_free,
	                          .name = name};
	m->store = memory_of(s);
	*ret = &m->base;
	return 0;
}

/* What a listing is to give, gathered under the lock, told without it. */
struct listed {
	char *key;
	uint64_t bytes;
	int64_t modified_us;
};

static void release_listed(struct listed *l, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(l[i].key);
	free(l);
}

/* The part of a key that a listing which is not deep gives instead; 0: the key itself. */
static size_t folder_len(const char *key, const char *prefix)
{
	const char *slash = strchr(key + strlen(prefix), '/');

	return slash ? (size_t)(slash - key) + 1 : 0;
}

static int gather(struct memory_store *m, const char *prefix, const char *after, bool deep,
                  struct listed **ret, size_t *ret_n, struct err *err)
{
	LOCK_SCOPE(&m->lock);
	struct listed *l = calloc(m->n + 1, sizeof(*l));
	size_t n = 0;

	for (size_t i = 0; l && i < m->n; i++) {
		const struct object *o = &m->objects[i];
		if (!store_list_wants(o->key, prefix, NULL))
			continue;
		size_t folder = deep ? 0 : folder_len(o->key, prefix);
		l[n].key = folder ? strndup(o->key, folder) : strdup(o->key);
		l[n].bytes = folder ? 0 : o->blob->bytes;
		l[n].modified_us = folder ? 0 : o->modified_us;
		if (!l[n].key) {
			release_listed(l, n);
			l = NULL;
		} else if (!store_list_wants(l[n].key, prefix, after) ||
		           (folder && n > 0 && strcmp(l[n].key, l[n - 1].key) == 0)) {
			free(l[n].key);
		} else {
			n++;
		}
	}
	if (!l)
		return err_set(err, ERR_NOMEM, 0, "no memory for a listing");
	*ret = l;
	*ret_n = n;
	return 0;
}

static int memory_list(struct store *s, const char *prefix, const char *after, bool deep,
                       store_list_fn *fn, void *ctx, struct err *err)
{
	struct memory_store *m = memory_of(s);
	struct listed *l = NULL;
	size_t n = 0;

	int rc =
	        store_tally_end(&m->tally, STORE_LIST, gather(m, prefix, after, deep, &l, &n, err));
	for (size_t i = 0; i < n && rc == 0; i++) {
		struct store_entry e = {l[i].key, l[i].bytes, l[i].modified_us};
		rc = fn(ctx, &e, err);
	}
	release_listed(l, n);
	return rc;
}

static int memory_remove(struct store *s, const char *key, struct err *err)
{
	struct memory_store *m = memory_of(s);
	bool there;
	LOCK_SCOPE(&m->lock);

	size_t at = place_of(m, key, &there);
	if (there) {
		free(m->objects[at].key);
		blob_unref(m->objects[at].blob);
		m->n--;
		memmove(&m->objects[at], &m->objects[at + 1], (m->n - at) * sizeof(*m->objects));
	}
	return store_tally_end(&m->tally, STORE_DELETE, 0);
}

static void memory_counters(struct store *s, struct store_counters *ret)
{
	store_tally_get(&memory_of(s)->tally, ret);
}

static void memory_free(struct store *s)
{
	struct memory_store *m = memory_of(s);

	for (size_t i = 0; i < m->n; i++) {
		free(m->objects[i].key);
		blob_unref(m->objects[i].blob);
	}
	free(m->objects);
	pthread_mutex_destroy(&m->lock);
	free(s->label);
	free(m);
}

int store_open_memory(struct store **ret, struct err *err)
{
	static const struct store_ops ops = {memory_put,  memory_get,    memory_open,
	                                     memory_list, memory_remove, memory_counters,
	                                     memory_free};
	struct memory_store *m = calloc(1, sizeof(*m));

	if (!m || !(m->base.label = strdup("memory"))) {
		free(m);
		return err_set(err, ERR_NOMEM, 0, "no memory for a store");
	}
	m->base.ops = &ops;
	m->base.dir_fd = -1;
	pthread_mutex_init(&m->lock, NULL);
	*ret = &m->base;
	return 0;
}
