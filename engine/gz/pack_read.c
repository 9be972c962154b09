/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/gz/pack.h"

#include "engine/base/hash.h"

#include <stdatomic.h>

/* Of one member leaf so many spans are read, before the leaf is. */
#define SPANS_BEFORE_LEAF 4u
/* Who reads in order has so many member leaves asked for beyond the one that he is in: a leaf lies
 * behind the blocks that it tells of, farther than is read ahead of them. */
#define LEAVES_AHEAD 2u

struct span {
	uint64_t offset, len, hash;
};

struct pack {
	struct source *src;
	struct cache *cache;
	uint64_t id;
	uint64_t file_size;
	uint64_t content_len;
	uint32_t block_size;
	uint64_t n_leaves;
	struct buf top;
	size_t refs_offset;  /* of the member leaf refs in `top` */
	size_t owner_offset; /* of the owner's bytes in `top` */
	uint8_t meta[PACK_META_SIZE];
	_Atomic bool header_checked;
	struct pack_ref first[PACK_FIRST_BLOCKS]; /* len 0: its leaf tells */
	struct span *spans;                       /* NULL: there are none */
	uint32_t blocks_per_span;
	_Atomic uint8_t *spans_read; /* for each member leaf, up to SPANS_BEFORE_LEAF */
	_Atomic bool in_order;
	_Atomic uint64_t leaves_told; /* member leaves before it were asked for */
};

static int damaged(const struct pack *p, struct err *err, uint64_t offset, const char *what)
{
	return err_set(err, ERR_DAMAGED, 0, "'%s' is damaged at byte %llu: %s", p->src->name,
	               (unsigned long long)offset, what);
}

struct ref_check {
	const struct pack *pack;
	const struct pack_ref *ref;
};

static int check_ref(void *ctx, const uint8_t *b, size_t len, struct err *err)
{
	const struct ref_check *c = ctx;

	if (hash64(b, len, gz_bind(c->pack->id, c->ref->offset)) != c->ref->hash)
		return damaged(c->pack, err, c->ref->offset, "bytes do not match their hash");
	return 0;
}

/* Reads `ref` and checks its hash; malloc'ed. */
static int read_ref(struct pack *p, const struct pack_ref *ref, uint8_t **ret, struct err *err)
{
	if (ref->offset > p->file_size || ref->len > p->file_size - ref->offset)
		return damaged(p, err, ref->offset, "an index points past the end");
	cleanup_free uint8_t *b = malloc(ref->len ? ref->len : 1);
	if (!b)
		return err_set(err, ERR_NOMEM, 0, "no memory to read '%s'", p->src->name);
	struct ref_check c = {p, ref};
	int rc = source_read_checked(p->src, b, ref->len, ref->offset, check_ref, &c, err);
	if (rc < 0)
		return rc;
	*ret = take_ptr(b);
	return 0;
}

int gz_check_version(const uint8_t *p, size_t len, const char *magic, uint32_t version,
                     const char *name, struct err *err)
{
	enum gz_kind kind;
	uint64_t n;

	if (gz_peek(p, len, &kind, &n, NULL) < 0 || kind != GZ_HEADER || n > len ||
	    n < GZ_META_OVERHEAD + 32)
		return 0;
	const uint8_t *h = p + GZ_PAYLOAD_OFFSET;
	size_t covered = (size_t)n - GZ_META_OVERHEAD - 8;
	if (memcmp(h, magic, 8) != 0 || load_le32(h + 8) <= version ||
	    load_le64(h + covered) != hash64(h, covered, gz_bind(load_le64(h + 16), 0)))
		return 0;
	return err_set(err, ERR_VERSION, 0,
	               "'%s' has format %u, this asof reads up to %u (use a newer asof)", name,
	               load_le32(h + 8), version);
}

static int check_version(struct pack *p, struct err *err)
{
	uint8_t b[4096];
	size_t len = p->file_size < sizeof(b) ? (size_t)p->file_size : sizeof(b);

	int rc = p->src->pread(p->src, b, len, 0, err);
	return rc < 0 ? rc : gz_check_version(b, len, "asofpack", PACK_VERSION, p->src->name, err);
}

struct trailer_check {
	struct pack *pack;
	struct pack_ref top;
};

static int take_trailer(void *ctx, const uint8_t *raw, size_t len, struct err *err)
{
	struct trailer_check *c = ctx;
	struct pack *p = c->pack;
	cleanup_buf struct buf b = BUF_INIT(PACK_TRAILER_PAYLOAD);
	struct err why;
	uint64_t at = p->file_size - PACK_TRAILER_SIZE;

	if (gz_get_blob(GZ_TRAILER, raw, len, &b, &why) < 0 || b.len != PACK_TRAILER_PAYLOAD)
		return damaged(p, err, at, "no trailer");
	const uint8_t *t = b.data;
	p->block_size = load_le32(t + 12);
	p->id = load_le64(t + 16);
	p->content_len = load_le64(t + 24);
	c->top = (struct pack_ref){load_le64(t + 32), load_le64(t + 40), load_le64(t + 48)};
	memcpy(p->meta, t + 56, PACK_META_SIZE);
	if (hash64(t, 56 + PACK_META_SIZE, gz_bind(p->id, at)) !=
	    load_le64(t + 56 + PACK_META_SIZE))
		return damaged(p, err, at, "the trailer does not match its hash");
	if (memcmp(t, "asoftail", 8) != 0 || load_le32(t + 8) != PACK_VERSION)
		return damaged(p, err, at, "the trailer is that of something else");
	if (p->block_size == 0 || p->block_size > PACK_BLOCK_MAX || p->content_len > UINT64_MAX / 2)
		return damaged(p, err, at, "a wrong size");
	return 0;
}

static int read_trailer(struct pack *p, struct pack_ref *ret_top, struct err *err)
{
	uint8_t raw[PACK_TRAILER_SIZE];
	struct trailer_check c = {.pack = p};

	if (p->file_size < PACK_TRAILER_SIZE + PACK_HEADER_SIZE)
		return damaged(p, err, p->file_size, "too short");
	int rc = source_read_checked(p->src, raw, sizeof(raw), p->file_size - PACK_TRAILER_SIZE,
	                             take_trailer, &c, err);
	*ret_top = c.top;
	return rc;
}

static int take_header(void *ctx, const uint8_t *raw, size_t len, struct err *err)
{
	const struct pack *p = ctx;
	cleanup_buf struct buf b = BUF_INIT(PACK_HEADER_PAYLOAD);
	struct err why;

	if (gz_get_blob(GZ_HEADER, raw, len, &b, &why) < 0 || b.len != PACK_HEADER_PAYLOAD)
		return damaged(p, err, 0, "no header");
	if (memcmp(b.data, "asofpack", 8) != 0 || load_le32(b.data + 8) != PACK_VERSION ||
	    load_le32(b.data + 12) != p->block_size || load_le64(b.data + 16) != p->id ||
	    load_le64(b.data + 24) != hash64(b.data, 24, gz_bind(p->id, 0)))
		return damaged(p, err, 0, "the header does not match the trailer");
	return 0;
}

int pack_check_header(struct pack *p, struct err *err)
{
	uint8_t raw[PACK_HEADER_SIZE];

	if (p->header_checked)
		return 0;
	int rc = source_read_checked(p->src, raw, sizeof(raw), 0, take_header, p, err);
	p->header_checked = rc == 0;
	return rc;
}

static int read_top(struct pack *p, const struct pack_ref *ref, struct err *err)
{
	cleanup_free uint8_t *raw = NULL;
	struct err why;

	int rc = read_ref(p, ref, &raw, err);
	if (rc < 0)
		return rc;
	p->top.max_bytes = ref->len;
	if (gz_get_blob(GZ_INDEX, raw, ref->len, &p->top, &why) < 0)
		return damaged(p, err, ref->offset, "the index is not as written");
	struct cursor c = cursor_init(p->top.data, p->top.len);
	p->n_leaves = cursor_varint(&c);
	p->refs_offset = (size_t)(c.p - p->top.data);
	uint64_t n_blocks = (p->content_len + p->block_size - 1) / p->block_size;
	uint64_t want = (n_blocks + PACK_BLOCKS_PER_LEAF - 1) / PACK_BLOCKS_PER_LEAF;
	if (!cursor_ok(&c) || p->n_leaves != want || p->n_leaves > cursor_left(&c) / 24)
		return damaged(p, err, ref->offset, "the index has a wrong count");
	p->owner_offset = p->refs_offset + 24 * (size_t)p->n_leaves;
	return 0;
}

int pack_open(struct source *src, struct cache *cache, struct pack **ret, struct err *err)
{
	struct pack *p = calloc(1, sizeof(*p));
	struct pack_ref top;

	if (!p)
		return err_set(err, ERR_NOMEM, 0, "no memory to open '%s'", src->name);
	p->src = src;
	p->cache = cache;
	struct err why = ERR_INIT;
	int rc = src->size(src, &p->file_size, err);
	if (rc == 0 && !src->remote)
		rc = check_version(p, err);
	if (rc == 0 && (rc = read_trailer(p, &top, &why)) < 0) {
		/* Far away the header is asked only when the trailer is not ours. */
		int newer = src->remote && why.kind == ERR_DAMAGED ? check_version(p, err) : 0;
		rc = err_kind_of(newer) == ERR_VERSION ? newer : err_copy(err, &why);
	}
	if (rc == 0 && !src->remote)
		rc = pack_check_header(p, err);
	if (rc == 0)
		rc = read_top(p, &top, err);
	if (rc < 0) {
		p->src = NULL; /* stays the caller's */
		pack_free(p);
		return rc;
	}
	*ret = p;
	return 0;
}

void pack_free(struct pack *p)
{
	if (!p)
		return;
	source_free(p->src);
	buf_release(&p->top);
	free(p->spans);
	free(p->spans_read);
	free(p);
}

uint64_t pack_id(const struct pack *p)
{
	return p->id;
}

const char *pack_name(const struct pack *p)
{
	return p->src->name;
}

uint64_t pack_size(const struct pack *p)
{
	return p->content_len;
}

uint32_t pack_block_size(const struct pack *p)
{
	return p->block_size;
}

const uint8_t *pack_meta(const struct pack *p)
{
	return p->meta;
}

struct cursor pack_top(const struct pack *p)
{
	return cursor_init(p->top.data + p->owner_offset, p->top.len - p->owner_offset);
}

struct leaf_load {
	struct pack *pack;
	const struct pack_ref *ref;
	pack_decode_fn *decode;
};

static int load_leaf(void *ctx, void **ret_data, size_t *ret_len, struct err *err)
{
	struct leaf_load *l = ctx;
	cleanup_free uint8_t *raw = NULL;
	cleanup_buf struct buf b = BUF_INIT(l->ref->len);
	struct err why = ERR_INIT;

	int rc = read_ref(l->pack, l->ref, &raw, err);
	if (rc < 0)
		return rc;
	if (gz_get_blob(GZ_INDEX, raw, l->ref->len, &b, &why) < 0)
		return damaged(l->pack, err, l->ref->offset, why.msg);
	if (!l->decode) {
		*ret_len = b.len;
		*ret_data = take_ptr(b.data);
		return 0;
	}
	if (l->decode(b.data, b.len, ret_data, ret_len, &why) < 0)
		return damaged(l->pack, err, l->ref->offset, why.msg);
	return 0;
}

int pack_get_leaf(struct pack *p, const struct pack_ref *ref, pack_decode_fn *decode,
                  struct cache_entry **ret, struct err *err)
{
	struct leaf_load l = {p, ref, decode};
	return cache_get(p->cache, (struct cache_key){p->id, ref->offset}, load_leaf, &l, ret, err);
}

int pack_get_first(struct pack *p, const uint8_t *first, struct err *err)
{
	uint64_t offset = PACK_HEADER_SIZE;

	/* Beside others a leaf is read anyway, and one alone lies with the trailer: so all that is
	 * read by every reader of the whole stays so. */
	if (!p->src->remote || p->n_leaves <= 1)
		return 0;
	for (size_t i = 0; i < PACK_FIRST_BLOCKS; i++, first += 12) {
		p->first[i] = (struct pack_ref){offset, load_le32(first), load_le64(first + 4)};
		offset += p->first[i].len;
		if (offset > p->file_size)
			return damaged(p, err, p->file_size - PACK_TRAILER_SIZE,
			               "the trailer tells a wrong place of the first blocks");
		if (p->first[i].len == 0)
			break;
	}
	return 0;
}

static struct pack_ref leaf_ref(const struct pack *p, uint64_t leaf)
{
	struct cursor c = cursor_init(p->top.data + p->refs_offset + 24 * leaf, 24);

	return pack_ref_get(&c);
}

/* The leaf `from` is about to be read.  Of many threads that come to it one tells. */
static void expect_leaves(struct pack *p, uint64_t from)
{
	uint64_t told = p->leaves_told, end = from + LEAVES_AHEAD + 1;

	end = end < p->n_leaves ? end : p->n_leaves;
	if (!p->in_order || told >= end ||
	    !atomic_compare_exchange_strong(&p->leaves_told, &told, end))
		return;
	for (told = told > from ? told : from; told < end; told++) {
		struct pack_ref leaf = leaf_ref(p, told);
		source_expect_bytes(p->src, leaf.offset, (size_t)leaf.len);
	}
}

/* Where block `block` lies, from its member leaf. */
static int block_ref(struct pack *p, uint64_t block, struct pack_ref *ret, struct err *err)
{
	uint64_t leaf = block / PACK_BLOCKS_PER_LEAF;
	size_t i = (size_t)(block % PACK_BLOCKS_PER_LEAF);
	cleanup_cache_entry struct cache_entry *e = NULL;

	if (leaf >= p->n_leaves)
		return damaged(p, err, 0, "a block past the end was asked for");
	struct pack_ref ref = leaf_ref(p, leaf);
	expect_leaves(p, leaf);
	int rc = pack_get_leaf(p, &ref, NULL, &e, err);
	if (rc < 0)
		return rc;
	size_t n = cache_len(e) / 16;
	if (cache_len(e) != 16 * n + 8 || i >= n)
		return damaged(p, err, ref.offset, "a member leaf has a wrong length");
	const uint8_t *at = (const uint8_t *)cache_data(e) + 16 * i;
	uint64_t end = load_le64(at + 16); /* the next entry's offset, or the leaf's end */
	ret->offset = load_le64(at);
	ret->hash = load_le64(at + 8);
	if (end < ret->offset || end - ret->offset > p->file_size)
		return damaged(p, err, ref.offset, "a member leaf is not in order");
	ret->len = end - ret->offset;
	return 0;
}

/* ---- spans ---- */

static uint64_t count_blocks(const struct pack *p)
{
	return (p->content_len + p->block_size - 1) / p->block_size;
}

/* The places of `n` spans; false: they cannot lie there. */
static bool take_spans(struct pack *p, uint64_t n, struct cursor *c)
{
	uint64_t offset = PACK_HEADER_SIZE, left = count_blocks(p);

	for (uint64_t i = 0; i < n; i++) {
		struct span *s = &p->spans[i];
		s->offset = offset;
		s->len = cursor_varint(c);
		s->hash = cursor_le64(c);
		if (!cursor_ok(c) || s->len > p->file_size - offset)
			return false;
		offset += s->len;
		uint64_t done = (i + 1) * p->blocks_per_span;
		if (done % PACK_BLOCKS_PER_LEAF != 0 && done < left)
			continue;
		struct pack_ref leaf = leaf_ref(p, (done - 1) / PACK_BLOCKS_PER_LEAF);
		if (leaf.offset != offset || leaf.len > p->file_size - offset)
			return false;
		offset += leaf.len;
	}
	return cursor_left(c) == 0;
}

int pack_get_spans(struct pack *p, struct cursor c, struct err *err)
{
	if (!p->src->remote || p->n_leaves <= 1 || cursor_left(&c) == 0)
		return 0;
	uint64_t per_span = cursor_varint(&c);
	bool ok = per_span >= PACK_SPAN_BLOCKS_MIN && per_span <= PACK_SPAN_BLOCKS_MAX &&
	          (per_span & (per_span - 1)) == 0;
	uint64_t n = ok ? (count_blocks(p) + per_span - 1) / per_span : 0;
	/* Bounded by what was read before there is memory for it. */
	ok = ok && n <= cursor_left(&c) / 9;
	if (ok) {
		p->spans = calloc(n, sizeof(*p->spans));
		p->spans_read = calloc(p->n_leaves, sizeof(*p->spans_read));
		if (!p->spans || !p->spans_read)
			return err_set(err, ERR_NOMEM, 0, "no memory to open '%s'", p->src->name);
		p->blocks_per_span = (uint32_t)per_span;
		ok = take_spans(p, n, &c);
	}
	return ok ? 0
	          : damaged(p, err, p->file_size - PACK_TRAILER_SIZE,
	                    "the index tells wrong places of spans");
}

static struct cache_key span_key(const struct pack *p, const struct span *s)
{
	return (struct cache_key){p->id, s->offset}; /* where no leaf lies */
}

/* The span to read for a block, or NULL: its leaf tells.  The last leaf lies with the trailer. */
static struct span *span_of(struct pack *p, uint64_t block)
{
	uint64_t leaf = block / PACK_BLOCKS_PER_LEAF;

	if (!p->spans || leaf + 1 >= p->n_leaves)
		return NULL;
	struct span *s = &p->spans[block / p->blocks_per_span];
	if (cache_has(p->cache, (struct cache_key){p->id, leaf_ref(p, leaf).offset}))
		return NULL;
	if (cache_has(p->cache, span_key(p, s)))
		return s;
	if (p->spans_read[leaf] >= SPANS_BEFORE_LEAF)
		return NULL;
	p->spans_read[leaf]++;
	return s;
}

struct span_check {
	const struct pack *pack;
	const struct span *span;
};

/* The member that begins at `at` of `len` bytes ends within them: its length, else 0. */
static size_t member_len(const uint8_t *b, size_t at, size_t len)
{
	enum gz_kind kind;
	uint64_t n;

	if (gz_peek(b + at, len - at, &kind, &n, NULL) < 0 || kind != GZ_DATA || n > len - at)
		return 0;
	return (size_t)n;
}

static int check_span(void *ctx, const uint8_t *b, size_t len, struct err *err)
{
	const struct span_check *c = ctx;
	uint8_t hashes[8 * PACK_SPAN_BLOCKS_MAX];
	size_t n = 0, at = 0, size;

	for (; at < len && n < c->pack->blocks_per_span; at += size, n++) {
		size = member_len(b, at, len);
		if (size == 0)
			break;
		store_le64(hashes + 8 * n,
		           hash64(b + at, size, gz_bind(c->pack->id, c->span->offset + at)));
	}
	if (at != len ||
	    hash64(hashes, 8 * n, gz_bind(c->pack->id, c->span->offset)) != c->span->hash)
		return damaged(c->pack, err, c->span->offset, "bytes do not match their hash");
	return 0;
}

static int load_span(void *ctx, void **ret_data, size_t *ret_len, struct err *err)
{
	struct span_check *c = ctx;
	size_t len = (size_t)c->span->len;
	cleanup_free uint8_t *b = malloc(len ? len : 1);

	if (!b)
		return err_set(err, ERR_NOMEM, 0, "no memory to read '%s'", c->pack->src->name);
	int rc = source_read_checked(c->pack->src, b, len, c->span->offset, check_span, c, err);
	if (rc < 0)
		return rc;
	*ret_len = len;
	*ret_data = take_ptr(b);
	return 0;
}

/* The stored bytes of a block, from its span; malloc'ed. */
static int read_from_span(struct pack *p, struct span *s, uint64_t block, uint8_t **ret,
                          struct pack_ref *ret_ref, struct err *err)
{
	struct span_check c = {p, s};
	cleanup_cache_entry struct cache_entry *e = NULL;
	size_t at = 0;

	int rc = cache_get(p->cache, span_key(p, s), load_span, &c, &e, err);
	if (rc < 0)
		return rc;
	const uint8_t *b = cache_data(e);
	for (uint64_t i = block % p->blocks_per_span; i > 0 && at < cache_len(e); i--)
		at += member_len(b, at, cache_len(e)); /* none is 0: it was checked */
	size_t len = at < cache_len(e) ? member_len(b, at, cache_len(e)) : 0;
	if (len == 0)
		return damaged(p, err, s->offset, "a span lacks a block");
	if (!(*ret = malloc(len)))
		return err_set(err, ERR_NOMEM, 0, "no memory to read '%s'", p->src->name);
	memcpy(*ret, b + at, len);
	*ret_ref = (struct pack_ref){.offset = s->offset + at, .len = len};
	return 0;
}

/* ---- blocks ---- */

struct block_load {
	struct pack *pack;
	uint64_t block;
};

/* The stored bytes of a block and where they lie; malloc'ed, and checked. */
static int read_stored(struct pack *p, uint64_t block, uint8_t **ret, struct pack_ref *ret_ref,
                       struct err *err)
{
	struct err why = ERR_INIT;
	struct span *span;
	int rc = 0;

	if (block < PACK_FIRST_BLOCKS && p->first[block].len) {
		*ret_ref = p->first[block];
		return read_ref(p, ret_ref, ret, err);
	}
	/* What is damaged elsewhere in its span is not this block's. */
	if ((span = span_of(p, block))) {
		rc = read_from_span(p, span, block, ret, ret_ref, &why);
		if (rc == 0 || why.kind != ERR_DAMAGED)
			return rc < 0 ? err_copy(err, &why) : 0;
	}
	rc = block_ref(p, block, ret_ref, err);
	return rc < 0 ? rc : read_ref(p, ret_ref, ret, err);
}

static int load_block(void *ctx, void **ret_data, size_t *ret_len, struct err *err)
{
	struct block_load *l = ctx;
	struct pack *p = l->pack;
	struct pack_ref ref;
	cleanup_free uint8_t *raw = NULL, *content = NULL;
	struct err why = ERR_INIT;

	int rc = l->block == 0 ? pack_check_header(p, err) : 0; /* beside it */
	if (rc == 0)
		rc = read_stored(p, l->block, &raw, &ref, err);
	if (rc < 0)
		return rc;
	uint64_t start = l->block * p->block_size;
	size_t len = p->block_size;
	if (p->content_len - start < len)
		len = (size_t)(p->content_len - start);
	content = malloc(len);
	if (!content)
		return err_set(err, ERR_NOMEM, 0, "no memory for a block of '%s'", p->src->name);
	rc = gz_get_data(raw, ref.len, content, len, &why);
	if (err_kind_of(rc) == ERR_NOMEM)
		return err_copy(err, &why);
	if (rc < 0)
		return damaged(p, err, ref.offset, why.msg);
	*ret_len = len;
	*ret_data = take_ptr(content);
	return 0;
}

/* Blocks share the cache with leaves: their keys are file offsets' complements. */
static struct cache_key block_key(const struct pack *p, uint64_t block)
{
	return (struct cache_key){p->id, ~block};
}

int pack_read(struct pack *p, uint64_t offset, void *buf, size_t len, struct err *err)
{
	uint8_t *out = buf;

	if (offset > p->content_len || len > p->content_len - offset)
		return damaged(p, err, 0, "content past the end was asked for");
	while (len > 0) {
		struct block_load l = {p, offset / p->block_size};
		size_t in = (size_t)(offset % p->block_size);
		cleanup_cache_entry struct cache_entry *e = NULL;
		int rc = cache_get(p->cache, block_key(p, l.block), load_block, &l, &e, err);
		if (rc < 0)
			return rc;
		size_t n = cache_len(e) - in;
		if (n > len)
			n = len;
		memcpy(out, (const uint8_t *)cache_data(e) + in, n);
		out += n;
		offset += n;
		len -= n;
	}
	return 0;
}

int pack_prefetch(struct pack *p, uint64_t block, struct err *err)
{
	struct block_load l = {p, block};
	struct cache_entry *e = NULL;

	if (block * p->block_size >= p->content_len)
		return 0;
	int rc = cache_get(p->cache, block_key(p, block), load_block, &l, &e, err);
	cache_put(e);
	return rc;
}

void pack_expect(struct pack *p, enum source_use use)
{
	if (use == SOURCE_IN_ORDER && p->src->expect_bytes) {
		p->in_order = true;
		expect_leaves(p, 0); /* nothing is read without them */
	}
	source_expect(p->src, use);
}
