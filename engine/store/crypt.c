/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/store/crypt.h"

#include "engine/store/store_i.h"

#include <pthread.h>
#include <sodium.h>
#include <string.h>

#define SALT_AT 32u
#define SEALED_BLOCK (CRYPT_BLOCK_BYTES + CRYPT_TAG_BYTES)
#define SPAN_BLOCKS 64u /* read at once */

_Static_assert(crypto_aead_xchacha20poly1305_ietf_ABYTES == CRYPT_TAG_BYTES, "tag");
_Static_assert(crypto_aead_xchacha20poly1305_ietf_KEYBYTES == KEY_BYTES, "key");

struct crypt_store {
	struct store base;
	struct store *inner;
	bool plain; /* without an identity: looks, and passes on */
	struct key_identity identity;
	pthread_mutex_t lock;
	struct key_ring *ring; /* NULL: not read yet */
};

static struct crypt_store *crypt_of(struct store *s)
{
	return (struct crypt_store *)s;
}

uint64_t crypt_sealed_bytes(uint64_t plain_bytes)
{
	uint64_t blocks = plain_bytes / CRYPT_BLOCK_BYTES + (plain_bytes % CRYPT_BLOCK_BYTES != 0);

	return CRYPT_HEADER_BYTES + plain_bytes + CRYPT_TAG_BYTES * (blocks ? blocks : 1);
}

bool crypt_plain_bytes(uint64_t sealed_bytes, uint64_t *ret)
{
	if (sealed_bytes < CRYPT_HEADER_BYTES + CRYPT_TAG_BYTES)
		return false;
	uint64_t body = sealed_bytes - CRYPT_HEADER_BYTES;
	uint64_t blocks = body / SEALED_BLOCK + (body % SEALED_BLOCK != 0);
	uint64_t plain = body - blocks * CRYPT_TAG_BYTES;
	if (body % SEALED_BLOCK != 0 && body % SEALED_BLOCK < CRYPT_TAG_BYTES)
		return false;
	if (crypt_sealed_bytes(plain) != sealed_bytes)
		return false;
	*ret = plain;
	return true;
}

bool crypt_header_fits(const uint8_t h[CRYPT_HEADER_BYTES], uint64_t bytes)
{
	return memcmp(h, CRYPT_MAGIC, 8) == 0 && load_le32(h + 8) == CRYPT_BLOCK_BYTES &&
	       load_le32(h + 12) == 0 && load_le64(h + 56) <= bytes &&
	       crypt_sealed_bytes(load_le64(h + 56)) == bytes;
}

static bool is_key_object(const char *key)
{
	return strncmp(key, KEYS_FOLDER, strlen(KEYS_FOLDER)) == 0;
}

static int ring_of(struct crypt_store *c, bool create, struct key_ring **ret, struct err *err)
{
	int rc = 0;

	{
		LOCK_SCOPE(&c->lock);
		if (!c->ring)
			rc = key_ring_open(c->inner, &c->identity, create, &c->ring, err);
		*ret = c->ring;
	}
	return rc == 0 && create ? key_ring_settle(*ret, err) : rc;
}

/* ---- sealing and opening ---- */

/* The name is bound by its length, too: nothing follows it. */
static void object_key(const uint8_t header[CRYPT_HEADER_BYTES], const char *key,
                       const uint8_t data_key[KEY_BYTES], uint8_t out[KEY_BYTES])
{
	crypto_generichash_state s;

	crypto_generichash_init(&s, data_key, KEY_BYTES, KEY_BYTES);
	crypto_generichash_update(&s, header, CRYPT_HEADER_BYTES);
	crypto_generichash_update(&s, (const uint8_t *)key, strlen(key));
	crypto_generichash_final(&s, out, KEY_BYTES);
	sodium_memzero(&s, sizeof(s));
}

static void nonce_of(uint64_t block, uint8_t out[crypto_aead_xchacha20poly1305_ietf_NPUBBYTES])
{
	memset(out, 0, crypto_aead_xchacha20poly1305_ietf_NPUBBYTES);
	store_le64(out, block);
}

static void seal_block(const uint8_t key[KEY_BYTES], uint64_t i, const uint8_t *plain, size_t len,
                       uint8_t *out)
{
	uint8_t nonce[crypto_aead_xchacha20poly1305_ietf_NPUBBYTES];

	nonce_of(i, nonce);
	crypto_aead_xchacha20poly1305_ietf_encrypt(out, NULL, plain, len, NULL, 0, NULL, nonce,
	                                           key);
}

static bool open_block(const uint8_t key[KEY_BYTES], uint64_t i, const uint8_t *sealed, size_t len,
                       uint8_t *out)
{
	uint8_t nonce[crypto_aead_xchacha20poly1305_ietf_NPUBBYTES];

	nonce_of(i, nonce);
	return crypto_aead_xchacha20poly1305_ietf_decrypt(out, NULL, NULL, sealed, len, NULL, 0,
	                                                  nonce, key) == 0;
}

/* What is put: the cipher text of a body, made as it is read, the same each time. */
struct sealing {
	struct source base;
	struct source *body; /* borrowed */
	uint64_t plain_bytes;
	uint8_t header[CRYPT_HEADER_BYTES], key[KEY_BYTES];
	uint8_t block[SEALED_BLOCK]; /* number `have` */
	uint64_t have;
};

static size_t plain_len(uint64_t plain_bytes, uint64_t block)
{
	uint64_t left = plain_bytes - block * CRYPT_BLOCK_BYTES;

	return left < CRYPT_BLOCK_BYTES ? (size_t)left : CRYPT_BLOCK_BYTES;
}

static int load_block(struct sealing *s, uint64_t i, struct err *err)
{
	uint8_t plain[CRYPT_BLOCK_BYTES];
	size_t n = plain_len(s->plain_bytes, i);

	if (s->have == i)
		return 0;
	int rc = n ? s->body->pread(s->body, plain, n, i * CRYPT_BLOCK_BYTES, err) : 0;
	if (rc < 0)
		return rc;
	seal_block(s->key, i, plain, n, s->block);
	s->have = i;
	return 0;
}

static int sealing_pread(struct source *src, void *buf, size_t len, uint64_t offset,
                         struct err *err)
{
	struct sealing *s = (struct sealing *)src;
	uint8_t *p = buf;
	int rc = 0;

	if (len > crypt_sealed_bytes(s->plain_bytes) ||
	    offset > crypt_sealed_bytes(s->plain_bytes) - len)
		return err_set(err, ERR_DAMAGED, 0, "'%s' ends before that", src->name);
	while (len && rc == 0) {
		const uint8_t *from = s->header + offset;
		size_t n = CRYPT_HEADER_BYTES - (size_t)offset;
		if (offset >= CRYPT_HEADER_BYTES) {
			uint64_t at = offset - CRYPT_HEADER_BYTES;
			rc = load_block(s, at / SEALED_BLOCK, err);
			from = s->block + at % SEALED_BLOCK;
			n = SEALED_BLOCK - at % SEALED_BLOCK;
		}
		n = n < len ? n : len;
		if (rc == 0)
			memcpy(p, from, n);
		p += n;
		len -= n;
		offset += n;
	}
	return rc;
}

static int sealing_size(struct source *src, uint64_t *ret_bytes, struct err *err)
{
	(void)err;
	*ret_bytes = crypt_sealed_bytes(((struct sealing *)src)->plain_bytes);
	return 0;
}

static void sealing_free(struct source *src)
{
	sodium_memzero(((struct sealing *)src)->key, KEY_BYTES);
	free(src);
}

static void make_header(const struct data_key *k, uint64_t bytes, uint8_t out[CRYPT_HEADER_BYTES])
{
	memset(out, 0, CRYPT_HEADER_BYTES);
	memcpy(out, CRYPT_MAGIC, 8);
	store_le32(out + 8, CRYPT_BLOCK_BYTES);
	memcpy(out + 16, k->id, KEY_ID_BYTES);
	randombytes_buf(out + SALT_AT, 24);
	store_le64(out + 56, bytes);
}

/* ---- reading ---- */

struct opening {
	struct source base;
	struct crypt_store *store;
	struct source *inner;
	char *key_name;
	pthread_mutex_t lock; /* the two below, until `ready` */
	_Atomic bool ready;
	uint8_t key[KEY_BYTES];
	uint64_t plain_bytes;
};

static int not_sealed(const char *label, const char *key, struct err *err)
{
	return err_set(err, ERR_DAMAGED, 0, "'%s' in %s is not sealed as it should be", key, label);
}

static int take_header(struct opening *o, const uint8_t h[CRYPT_HEADER_BYTES], uint64_t bytes,
                       struct err *err)
{
	struct data_key k;
	struct key_ring *ring;

	if (!crypt_header_fits(h, bytes))
		return not_sealed(o->store->base.label, o->key_name, err);
	int rc = ring_of(o->store, false, &ring, err);
	if (rc == 0)
		rc = key_ring_find(ring, h + 16, &k, err);
	if (rc < 0)
		return err_wrap(err, rc, "'%s'", o->key_name);
	object_key(h, o->key_name, k.key, o->key);
	o->plain_bytes = load_le64(h + 56);
	sodium_memzero(&k, sizeof(k));
	o->ready = true;
	return 0;
}

static int get_ready(struct opening *o, struct err *err)
{
	uint8_t h[CRYPT_HEADER_BYTES];
	uint64_t bytes;

	if (o->ready)
		return 0;
	LOCK_SCOPE(&o->lock);
	if (o->ready)
		return 0;
	int rc = o->inner->size(o->inner, &bytes, err);
	if (rc == 0 && bytes < CRYPT_HEADER_BYTES + CRYPT_TAG_BYTES)
		return not_sealed(o->store->base.label, o->key_name, err);
	if (rc == 0)
		rc = o->inner->pread(o->inner, h, sizeof(h), 0, err);
	return rc < 0 ? rc : take_header(o, h, bytes, err);
}

/* Blocks first to last, of which the bytes [from, to) go to `p`. */
static int read_span(struct opening *o, uint64_t first, uint64_t last, uint8_t *p, uint64_t from,
                     uint64_t to, struct err *err)
{
	size_t last_len = plain_len(o->plain_bytes, last) + CRYPT_TAG_BYTES;
	size_t len = (size_t)(last - first) * SEALED_BLOCK + last_len;
	cleanup_free uint8_t *sealed = malloc(len);
	uint8_t plain[CRYPT_BLOCK_BYTES];

	if (!sealed)
		return err_set(err, ERR_NOMEM, 0, "no memory to read '%s'", o->key_name);
	int rc = o->inner->pread(o->inner, sealed, len, CRYPT_HEADER_BYTES + first * SEALED_BLOCK,
	                         err);
	for (uint64_t i = first; i <= last && rc == 0; i++) {
		size_t n = i == last ? last_len : SEALED_BLOCK;
		uint64_t begin = i * CRYPT_BLOCK_BYTES, end = begin + n - CRYPT_TAG_BYTES;
		if (!open_block(o->key, i, sealed + (i - first) * SEALED_BLOCK, n, plain))
			return err_set(err, ERR_DAMAGED, 0,
			               "'%s' in %s: block %llu is not what was sealed", o->key_name,
			               o->store->base.label, (unsigned long long)i);
		uint64_t a = begin > from ? begin : from, b = end < to ? end : to;
		if (a < b)
			memcpy(p + (a - from), plain + (a - begin), (size_t)(b - a));
	}
	return rc;
}

static int opening_pread(struct source *src, void *buf, size_t len, uint64_t offset,
                         struct err *err)
{
	struct opening *o = (struct opening *)src;
	uint8_t *p = buf;

	int rc = get_ready(o, err);
	if (rc == 0 && (len > o->plain_bytes || offset > o->plain_bytes - len))
		return err_set(err, ERR_DAMAGED, 0, "'%s' has %llu bytes, more were asked for",
		               src->name, (unsigned long long)o->plain_bytes);
	while (rc == 0 && len) {
		uint64_t first = offset / CRYPT_BLOCK_BYTES;
		uint64_t end = (first + SPAN_BLOCKS) * CRYPT_BLOCK_BYTES;
		size_t n = end - offset < len ? (size_t)(end - offset) : len;
		rc = read_span(o, first, (offset + n - 1) / CRYPT_BLOCK_BYTES, p, offset,
		               offset + n, err);
		p += n;
		offset += n;
		len -= n;
	}
	return rc;
}

static int opening_size(struct source *src, uint64_t *ret_bytes, struct err *err)
{
	struct opening *o = (struct opening *)src;
	uint64_t sealed;

	int rc = o->inner->size(o->inner, &sealed, err);
	if (rc == 0 && !crypt_plain_bytes(sealed, ret_bytes))
		return not_sealed(o->store->base.label, o->key_name, err);
	return rc;
}

static void opening_free(struct source *src)
{
	struct opening *o = (struct opening *)src;

	sodium_memzero(o->key, KEY_BYTES);
	source_free(o->inner);
	pthread_mutex_destroy(&o->lock);
	free(o->key_name);
	free(src->name);
	free(o);
}

/* Takes `inner` over, in any case. */
static int new_opening(struct crypt_store *c, const char *key, struct source *inner,
                       struct opening **ret, struct err *err)
{
	struct opening *o = calloc(1, sizeof(*o));

	if (!o) {
		source_free(inner);
		return err_set(err, ERR_NOMEM, 0, "no memory to open '%s'", key);
	}
	pthread_mutex_init(&o->lock, NULL);
	o->base = (struct source){.pread = opening_pread,
	                          .size = opening_size,
	                          .free = opening_free,
	                          .name = strdup(key)};
	o->key_name = strdup(key);
	o->store = c;
	o->inner = inner;
	if (!o->base.name || !o->key_name) {
		opening_free(&o->base);
		return err_set(err, ERR_NOMEM, 0, "no memory to open '%s'", key);
	}
	*ret = o;
	return 0;
}

static int crypt_open(struct store *s, const char *key, uint64_t bytes, struct source **ret,
                      struct err *err)
{
	struct crypt_store *c = crypt_of(s);
	struct source *inner;
	struct opening *o;

	if (c->plain)
		return store_open_object(c->inner, key, bytes, ret, err);
	int rc = store_open_object(c->inner, key,
	                           bytes == UINT64_MAX ? bytes : crypt_sealed_bytes(bytes), &inner,
	                           err);
	if (rc == 0)
		rc = new_opening(c, key, inner, &o, err);
	if (rc == 0)
		*ret = &o->base;
	return rc;
}

/* ---- the store ---- */

static int refuse_sealed(struct crypt_store *c, const char *key, const uint8_t *p, size_t len,
                         struct err *err)
{
	if (len < 8 || memcmp(p, CRYPT_MAGIC, 8) != 0)
		return 0;
	return err_set(err, ERR_REFUSED, 0,
	               "'%s' in %s is encrypted (name your identity in ASOF_KEY_FILE)", key,
	               c->base.label);
}

static int get_plain(struct crypt_store *c, const char *key, size_t max_bytes, struct buf *ret,
                     struct err *err)
{
	size_t before = ret->len;
	int rc = store_get(c->inner, key, max_bytes, ret, err);

	if (rc == 0 && c->plain && ret->len > before)
		rc = refuse_sealed(c, key, ret->data + before, ret->len - before, err);
	if (rc < 0)
		ret->len = before;
	return rc;
}

/* All of it; that nothing is in it is sealed, too. */
static int read_whole(struct opening *o, struct buf *ret, struct err *err)
{
	uint64_t bytes;
	uint8_t none;

	int rc = opening_size(&o->base, &bytes, err);
	if (rc == 0)
		rc = get_ready(o, err);
	if (rc == 0 && bytes == 0)
		return read_span(o, 0, 0, &none, 0, 0, err);
	if (rc == 0)
		rc = buf_reserve(ret, (size_t)bytes, err);
	if (rc == 0)
		rc = opening_pread(&o->base, ret->data + ret->len, (size_t)bytes, 0, err);
	if (rc == 0)
		ret->len += (size_t)bytes;
	return rc;
}

static int crypt_get(struct store *s, const char *key, size_t max_bytes, struct buf *ret,
                     struct err *err)
{
	struct crypt_store *c = crypt_of(s);
	cleanup_buf struct buf sealed = BUF_INIT(SIZE_MAX);
	size_t most = max_bytes < SIZE_MAX / 4 ? (size_t)crypt_sealed_bytes(max_bytes) : max_bytes;
	struct source *in;
	struct opening *o;

	if (c->plain)
		return get_plain(c, key, max_bytes, ret, err);
	int rc = store_get(c->inner, key, most, &sealed, err);
	if (rc == 0)
		rc = source_open_bytes(sealed.data, sealed.len, key, &in, err);
	if (rc == 0)
		rc = new_opening(c, key, in, &o, err);
	if (rc < 0)
		return rc;
	rc = read_whole(o, ret, err);
	opening_free(&o->base);
	return rc;
}

/* What lies there is what was to be put: see (2) of store.h.  Else EXISTS. */
static int compare(struct store *s, const char *key, struct source *body, uint64_t bytes,
                   struct err *err)
{
	cleanup_source struct source *there = NULL;
	cleanup_free uint8_t *a = malloc(2 * (size_t)CRYPT_BLOCK_BYTES);
	uint64_t have = 0;

	if (!a)
		return err_set(err, ERR_NOMEM, 0, "no memory to compare '%s'", key);
	int rc = crypt_open(s, key, UINT64_MAX, &there, err);
	if (rc == 0)
		rc = there->size(there, &have, err);
	bool same = rc == 0 && have == bytes;
	for (uint64_t at = 0; at < bytes && rc == 0 && same; at += CRYPT_BLOCK_BYTES) {
		size_t n =
		        bytes - at < CRYPT_BLOCK_BYTES ? (size_t)(bytes - at) : CRYPT_BLOCK_BYTES;
		rc = there->pread(there, a, n, at, err);
		if (rc == 0)
			rc = body->pread(body, a + CRYPT_BLOCK_BYTES, n, at, err);
		same = rc == 0 && memcmp(a, a + CRYPT_BLOCK_BYTES, n) == 0;
	}
	if (rc == 0 && !same)
		rc = err_set(err, ERR_EXISTS, 0, "'%s' is in %s already, with another content", key,
		             s->label);
	return rc;
}

static int seal(struct crypt_store *c, const char *key, struct source *body, uint64_t bytes,
                unsigned flags, struct err *err)
{
	struct key_ring *ring;
	struct data_key k;

	int rc = ring_of(c, true, &ring, err);
	if (rc < 0)
		return rc;
	struct sealing *s = calloc(1, sizeof(*s));
	if (!s)
		return err_set(err, ERR_NOMEM, 0, "no memory to seal '%s'", key);
	s->base = (struct source){.pread = sealing_pread,
	                          .size = sealing_size,
	                          .free = sealing_free,
	                          .name = body->name};
	s->body = body;
	s->plain_bytes = bytes;
	s->have = UINT64_MAX;
	key_ring_newest(ring, &k);
	make_header(&k, bytes, s->header);
	object_key(s->header, key, k.key, s->key);
	sodium_memzero(&k, sizeof(k));
	rc = store_put(c->inner, key, &s->base, crypt_sealed_bytes(bytes), flags, err);
	sealing_free(&s->base);
	return rc;
}

static int crypt_put(struct store *s, const char *key, struct source *body, uint64_t bytes,
                     unsigned flags, struct err *err)
{
	struct crypt_store *c = crypt_of(s);
	struct err why = ERR_INIT;

	if (c->plain)
		return store_put(c->inner, key, body, bytes, flags, err);
	if (is_key_object(key))
		return err_set(err, ERR_USAGE, 0, "'%s': what lies there are keys", key);
	int rc = seal(c, key, body, bytes, flags, &why);
	if (why.kind == ERR_EXISTS && (flags & STORE_CREATE))
		return compare(s, key, body, bytes, err);
	return rc < 0 ? err_copy(err, &why) : 0;
}

struct listing {
	store_list_fn *fn;
	void *ctx;
};

/* Keys are none of the objects.  What is not sealed keeps its size: it cannot be read anyway. */
static int list_one(void *ctx, const struct store_entry *e, struct err *err)
{
	const struct listing *l = ctx;
	struct store_entry plain = *e;

	if (is_key_object(e->key))
		return 0;
	if (e->bytes)
		(void)!crypt_plain_bytes(e->bytes, &plain.bytes);
	return l->fn(l->ctx, &plain, err);
}

static int crypt_list(struct store *s, const char *prefix, const char *after, bool deep,
                      store_list_fn *fn, void *ctx, struct err *err)
{
	struct crypt_store *c = crypt_of(s);
	struct listing l = {fn, ctx};

	return c->plain ? store_list(c->inner, prefix, after, deep, fn, ctx, err)
	                : store_list(c->inner, prefix, after, deep, list_one, &l, err);
}

static int crypt_remove(struct store *s, const char *key, struct err *err)
{
	return store_remove(crypt_of(s)->inner, key, err);
}

static void crypt_counters(struct store *s, struct store_counters *ret)
{
	store_get_counters(crypt_of(s)->inner, ret);
}

static void crypt_free(struct store *s)
{
	struct crypt_store *c = crypt_of(s);

	key_ring_free(c->ring);
	key_identity_release(&c->identity);
	store_free(c->inner);
	pthread_mutex_destroy(&c->lock);
	free(c->base.label);
	free(c);
}

static const struct store_ops crypt_ops = {
        .put = crypt_put,
        .get = crypt_get,
        .open = crypt_open,
        .list = crypt_list,
        .remove = crypt_remove,
        .counters = crypt_counters,
        .free = crypt_free,
};

static int new_store(struct store *inner, const struct key_identity *identity, struct store **ret,
                     struct err *err)
{
	struct crypt_store *c = calloc(1, sizeof(*c));

	if (!c) {
		store_free(inner);
		return err_set(err, ERR_NOMEM, 0, "no memory for a store");
	}
	pthread_mutex_init(&c->lock, NULL);
	c->base = (struct store){.ops = &crypt_ops,
	                         .label = strdup(inner->label),
	                         .remote = inner->remote,
	                         .dir_fd = -1,
	                         .sealed = identity != NULL};
	c->inner = inner;
	c->plain = !identity;
	if (identity)
		c->identity = *identity;
	if (!c->base.label) {
		crypt_free(&c->base);
		return err_set(err, ERR_NOMEM, 0, "no memory for a store");
	}
	*ret = &c->base;
	return 0;
}

int store_open_crypt(struct store *inner, const struct key_identity *identity, struct store **ret,
                     struct err *err)
{
	if (sodium_init() < 0) {
		store_free(inner);
		return err_set(err, ERR_IO, 0, "libsodium does not start");
	}
	return new_store(inner, identity, ret, err);
}

int store_open_plain(struct store *inner, struct store **ret, struct err *err)
{
	return new_store(inner, NULL, ret, err);
}

struct store *store_crypt_inner(struct store *s)
{
	return s->ops == &crypt_ops ? crypt_of(s)->inner : s;
}
