/* SPDX-License-Identifier: Apache-2.0 */
/* gzip members, blobs and packs: round trips, gunzip's opinion, and every flipped byte. */
#include "engine/gz/pack.h"
#include "tests/lib/memory.h"
#include "tests/lib/synth.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <zlib.h>

static void any_content(struct rng *r, uint8_t *p, size_t len)
{
	for (size_t i = 0; i < len;) {
		size_t run = 1 + (size_t)rng_below(r, 200);
		uint8_t v = (uint8_t)rng_next(r);
		bool noise = rng_chance(r, 50);
		for (; run > 0 && i < len; run--)
			p[i++] = noise ? (uint8_t)rng_next(r) : v;
	}
}

static void test_data_member(void **state)
{
	struct rng r = {test_seed()};
	static uint8_t content[200000], back[200000];

	for (unsigned i = 0; i < test_rounds(300); i++) {
		struct gz_codec *codec;
		struct buf b = BUF_INIT(SIZE_MAX / 2);
		struct err err = ERR_INIT;
		size_t len =
		        i < 3 ? i : (size_t)rng_below(&r, i % 10 == 0 ? sizeof(content) : 3000);
		enum gz_kind kind;
		uint64_t n;
		any_content(&r, content, len);
		synth_must(gz_codec_new((int)(i % 13), &codec, &err), &err, "codec");
		synth_must(gz_put_data(codec, content, len, &b, &err), &err, "put");
		synth_must(gz_peek(b.data, b.len, &kind, &n, &err), &err, "peek");
		assert_int_equal(kind, GZ_DATA);
		assert_int_equal(n, b.len);
		synth_must(gz_get_data(b.data, b.len, back, len, &err), &err, "get");
		assert_memory_equal(content, back, len);
		assert_int_equal(gz_get_data(b.data, b.len, back, len + 1, &err), -ERR_DAMAGED);
		assert_int_equal(gz_get_data(b.data, b.len - 1, back, len, &err), -ERR_DAMAGED);
		if (len < 2000 && i % 10 == 3) {
			for (size_t k = 0; k < b.len; k++) {
				b.data[k] ^= 0x20;
				/* Noticed, or without meaning to deflate: never other content. */
				if (gz_get_data(b.data, b.len, back, len, &err) == 0)
					assert_memory_equal(content, back, len);
				b.data[k] ^= 0x20;
			}
		}
		gz_codec_free(codec);
		buf_release(&b);
	}
}

/* By zlib, as gunzip has it. */
static void assert_inflates(const uint8_t *stream, size_t n, const uint8_t *content, size_t len)
{
	z_stream z = {.next_in = (Bytef *)(uintptr_t)stream, .avail_in = (uInt)n};
	uint8_t *back = malloc(len + 1);

	assert_non_null(back);
	assert_int_equal(inflateInit2(&z, -15), Z_OK);
	z.next_out = back;
	z.avail_out = (uInt)len + 1;
	assert_int_equal(inflate(&z, Z_FINISH), Z_STREAM_END);
	assert_int_equal(z.total_out, len);
	assert_int_equal(z.avail_in, 0);
	assert_memory_equal(back, content, len);
	inflateEnd(&z);
	free(back);
}

/* Pieces that are nearly what stands before them, and hints that tell so, or anything else. */
static size_t alike_content(struct rng *r, uint8_t *p, size_t len, struct gz_alike *alike,
                            size_t max)
{
	size_t n = 0;

	any_content(r, p, len);
	for (size_t at = 0; at < len && n < max; n++) {
		size_t distance = rng_chance(r, 60) ? 1 + (size_t)rng_below(r, at + 1) : 0;
		size_t end = at + 1 + (size_t)rng_below(r, 5000);
		end = end < len ? end : len;
		for (size_t i = at; i < end && distance && distance <= at; i++)
			p[i] = rng_chance(r, 1) ? (uint8_t)rng_next(r) : p[i - distance];
		alike[n] = (struct gz_alike){(uint32_t)at, (uint32_t)distance};
		if (rng_chance(r, 5)) /* of no use, or out of order */
			alike[n] = (struct gz_alike){(uint32_t)rng_below(r, 2 * len),
			                             (uint32_t)rng_below(r, 70000)};
		at = end;
	}
	return n;
}

static void test_alike(void **state)
{
	struct rng r = {test_seed()};
	static uint8_t content[80000], back[80000];
	struct gz_alike alike[64];
	struct err err = ERR_INIT;

	for (unsigned i = 0; i < test_rounds(400); i++) {
		struct gz_codec *codec;
		struct buf b = BUF_INIT(SIZE_MAX / 2);
		size_t len = i < 3 ? i : (size_t)rng_below(&r, i % 4 ? sizeof(content) : 300);
		size_t n = alike_content(&r, content, len, alike, 64);
		synth_must(gz_codec_new((int)(i % 8 == 1), &codec, &err), &err, "codec");
		synth_must(gz_put_data_alike(codec, content, len, alike, n, &b, &err), &err, "put");
		assert_true(b.len <= GZ_DATA_OVERHEAD + len + len / 8 + 16);
		synth_must(gz_get_data(b.data, b.len, back, len, &err), &err, "get");
		assert_memory_equal(content, back, len);
		assert_inflates(b.data + GZ_PAYLOAD_OFFSET + 8, b.len - GZ_DATA_OVERHEAD, content,
		                len);
		gz_codec_free(codec);
		buf_release(&b);
	}
}

/* What is told of is not stored again: of equal pages, and of nearly equal ones, one is. */
static void test_alike_is_short(void **state)
{
	enum { PAGE = 4096, PAGES = 15 };
	static uint8_t content[PAGE * PAGES], stream[2 * PAGE * PAGES];
	struct gz_alike alike[PAGES];
	struct rng r = {test_seed()};

	for (uint32_t k = 0; k < PAGE; k++)
		content[k] = (uint8_t)rng_next(&r);
	for (uint32_t i = 0; i < PAGES; i++) {
		uint32_t back = 1 + (uint32_t)rng_below(&r, 7);
		alike[i] = (struct gz_alike){i * PAGE, back * PAGE};
		if (back > i)
			alike[i].distance = i * PAGE;
		memcpy(content + (size_t)i * PAGE, content, i ? PAGE : 0);
	}
	size_t equal = alike_deflate(content, sizeof(content), alike, PAGES, stream);
	assert_true(equal < PAGE + PAGES * 100);
	for (uint32_t i = 1; i < PAGES; i++)
		content[i * PAGE + i] ^= 1;
	assert_true(alike_deflate(content, sizeof(content), alike, PAGES, stream) <
	            PAGE + PAGES * 120);
	memset(content, 0, sizeof(content));
	assert_true(alike_deflate(content, sizeof(content), NULL, 0, stream) < 1000);
}

static void test_blob(void **state)
{
	static const size_t sizes[] = {0,      1,      59999,  60000,  60001,
	                               119999, 120000, 120001, 180000, 250007};
	static uint8_t payload[260000];
	struct rng r = {test_seed()};

	any_content(&r, payload, sizeof(payload));
	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		struct buf b = BUF_INIT(SIZE_MAX / 2), back = BUF_INIT(SIZE_MAX / 2);
		struct err err = ERR_INIT;
		synth_must(gz_put_blob(GZ_RECORD, payload, sizes[i], &b, &err), &err, "put");
		assert_int_equal(b.len, gz_blob_size(sizes[i]));
		synth_must(gz_get_blob(GZ_RECORD, b.data, b.len, &back, &err), &err, "get");
		assert_int_equal(back.len, sizes[i]);
		assert_memory_equal(back.data, payload, sizes[i]);
		/* It shows by itself where it ends: only the last member is short. */
		size_t at = 0;
		for (;;) {
			enum gz_kind kind;
			uint64_t n;
			synth_must(gz_peek(b.data + at, b.len - at, &kind, &n, &err), &err, "peek");
			at += n;
			if (n < GZ_CHUNK_MAX + GZ_META_OVERHEAD)
				break;
		}
		assert_int_equal(at, b.len);
		for (size_t cut = 0; cut < b.len; cut += b.len < 100 ? 1 : 997) {
			buf_clear(&back);
			assert_int_equal(gz_get_blob(GZ_RECORD, b.data, cut, &back, &err),
			                 -ERR_DAMAGED);
		}
		buf_clear(&back);
		assert_int_equal(gz_get_blob(GZ_INDEX, b.data, b.len, &back, &err), -ERR_DAMAGED);
		buf_release(&b);
		buf_release(&back);
	}
}

struct made {
	struct buf file;
	uint8_t *content;
	size_t len;
	struct pack_ref leaf;
	uint8_t first[PACK_FIRST_SIZE];
	struct buf spans;
};

static int sink(void *ctx, const void *p, size_t len, uint64_t offset, struct err *err)
{
	struct buf *b = ctx;

	assert_int_equal(offset, b->len);
	return buf_append(b, p, len, err);
}

static void make_pack(struct rng *r, struct made *m, uint64_t id, uint32_t block, size_t len,
                      int level)
{
	struct pack_writer *w;
	struct err err = ERR_INIT;
	uint8_t meta[PACK_META_SIZE];
	uint64_t size;

	*m = (struct made){.file = BUF_INIT(SIZE_MAX / 2),
	                   .content = malloc(len + 1),
	                   .len = len,
	                   .spans = BUF_INIT(SIZE_MAX / 2)};
	any_content(r, m->content, len);
	memset(meta, 0xab, sizeof(meta));
	synth_must(pack_writer_new(id, block, level, sink, &m->file, &w, &err), &err,
	           "pack_writer_new");
	for (size_t at = 0; at < len;) {
		size_t n = 1 + (size_t)rng_below(r, 3 * block);
		n = n < len - at ? n : len - at;
		synth_must(pack_append(w, m->content + at, n, &err), &err, "pack_append");
		at += n;
	}
	assert_int_equal(pack_content_len(w), len);
	synth_must(pack_end_content(w, &err), &err, "pack_end_content");
	pack_put_first(w, m->first);
	synth_must(pack_put_spans(w, &m->spans, &err), &err, "pack_put_spans");
	synth_must(pack_put_leaf(w, "a leaf", 6, &m->leaf, &err), &err, "pack_put_leaf");
	synth_must(pack_finish(w, "own", 3, meta, &size, &err), &err, "pack_finish");
	assert_int_equal(size, m->file.len);
	pack_writer_free(w);
}

static void free_made(struct made *m)
{
	buf_release(&m->file);
	buf_release(&m->spans);
	free(m->content);
}

/* Reads everything; false when something was damaged.  Wrong bytes are the end. */
static bool read_all(const struct made *m, const uint8_t *file, size_t len, struct rng *r)
{
	struct cache *cache;
	struct pack *p;
	struct err err = ERR_INIT;
	cleanup_free uint8_t *back = malloc(m->len + 1);
	struct source *src = memory_source("thing.gz", file, len);
	bool ok;

	synth_must(cache_new(1 << 20, &cache, &err), &err, "cache_new");
	if (pack_open(src, cache, &p, &err) < 0) {
		source_free(src);
		ok = false;
	} else {
		cleanup_cache_entry struct cache_entry *e = NULL;
		ok = pack_size(p) == m->len && pack_meta(p)[5] == 0xab;
		ok = ok && pack_read(p, 0, back, m->len, &err) == 0;
		if (ok)
			assert_memory_equal(back, m->content, m->len);
		ok = ok && pack_get_leaf(p, &m->leaf, NULL, &e, &err) == 0;
		if (ok)
			assert_memory_equal(cache_data(e), "a leaf", 6);
		struct cursor top = pack_top(p);
		if (ok)
			assert_memory_equal(top.p, "own", 3);
		for (unsigned i = 0; ok && i < 50 && m->len; i++) {
			size_t at = (size_t)rng_below(r, m->len),
			       n = (size_t)rng_below(r, m->len - at + 1);
			synth_must(pack_read(p, at, back, n, &err), &err, "pack_read");
			assert_memory_equal(back, m->content + at, n);
		}
		if (ok) {
			assert_int_equal(pack_read(p, m->len, back, 1, &err), -ERR_DAMAGED);
			assert_int_equal(pack_read(p, UINT64_MAX, back, 1, &err), -ERR_DAMAGED);
		}
		cache_put(take_ptr(e));
		pack_free(p);
	}
	if (!ok && (err.kind != ERR_DAMAGED || !strstr(err.msg, "thing.gz")))
		synth_die("not damage that names the object: %s (%s)", err.msg,
		          err_kind_name(err.kind));
	cache_free(cache);
	return ok;
}

static void test_pack(void **state)
{
	struct rng r = {test_seed()};

	for (unsigned i = 0; i < 10 + test_rounds(50); i++) {
		static const uint32_t blocks[] = {64, 512, 16384, 65536};
		struct made m;
		uint32_t block = blocks[i % 4];
		size_t len = i < 4   ? 0
		             : i < 8 ? block
		                     : (size_t)rng_below(&r, i % 8 == 0 ? block * 5000ull % 1500000
		                                                        : block * 6);
		make_pack(&r, &m, rng_next(&r), block, len, (int)(i % 7));
		assert_true(read_all(&m, m.file.data, m.file.len, &r));
		free_made(&m);
	}
}

/* More than one member leaf, exactly and nearly. */
static void test_pack_leaves(void **state)
{
	struct rng r = {test_seed()};

	for (unsigned d = 0; d < 3; d++) {
		struct made m;
		make_pack(&r, &m, 1, 64, 64 * 2 * PACK_BLOCKS_PER_LEAF - 65 + 65 * d, 1);
		assert_true(read_all(&m, m.file.data, m.file.len, &r));
		free_made(&m);
	}
}

/* One block of a pack, of which it is told where its first ones lie. */
static int read_block(const struct made *m, bool remote, const uint8_t *first, uint64_t block,
                      struct err *err)
{
	struct source *src = memory_source("thing.gz", m->file.data, m->file.len);
	cleanup_cache struct cache *cache = NULL;
	cleanup_pack struct pack *p = NULL;
	uint8_t back[64];

	src->remote = remote;
	synth_must(cache_new(1 << 20, &cache, err), err, "cache_new");
	synth_must(pack_open(src, cache, &p, err), err, "pack_open");
	int rc = pack_get_first(p, first, err);
	if (rc == 0)
		rc = pack_read(p, block * 64, back, 64, err);
	if (rc == 0)
		assert_memory_equal(back, m->content + block * 64, 64);
	return rc;
}

/* Far away the first blocks are read without their member leaf, and still not believed unseen. */
static void test_first_blocks(void **state)
{
	static const uint8_t not_told[PACK_FIRST_SIZE];
	struct rng r = {test_seed()};
	struct made m;
	struct err err = ERR_INIT;

	make_pack(&r, &m, 9, 64, (size_t)64 * (2 * PACK_BLOCKS_PER_LEAF + 9), 1);
	size_t behind = PACK_HEADER_SIZE;
	for (unsigned i = 0; i < PACK_FIRST_BLOCKS; i++) {
		uint8_t *length = m.first + 12 * i, *hash = length + 4;
		uint32_t was = load_le32(length);
		assert_int_equal(read_block(&m, true, m.first, i, &err), 0);
		*hash ^= 1;
		assert_int_equal(read_block(&m, true, m.first, i, &err), -ERR_DAMAGED);
		*hash ^= 1;
		store_le32(length, was + 1);
		assert_int_equal(read_block(&m, true, m.first, i, &err), -ERR_DAMAGED);
		store_le32(length, UINT32_MAX);
		assert_int_equal(read_block(&m, true, m.first, 0, &err), -ERR_DAMAGED);
		store_le32(length, was);
		behind += was;
	}
	assert_int_equal(read_block(&m, true, m.first, PACK_FIRST_BLOCKS, &err), 0);

	/* All behind them up to the second leaf is noise. */
	for (size_t i = behind; i < m.file.len * 3 / 5; i++)
		m.file.data[i] ^= 0x55;
	for (unsigned i = 0; i < PACK_FIRST_BLOCKS; i++) {
		assert_int_equal(read_block(&m, true, m.first, i, &err), 0);
		assert_int_equal(read_block(&m, true, not_told, i, &err), -ERR_DAMAGED);
		assert_int_equal(read_block(&m, false, m.first, i, &err), -ERR_DAMAGED);
	}
	assert_int_equal(read_block(&m, true, m.first, PACK_FIRST_BLOCKS, &err), -ERR_DAMAGED);
	m.file.data[PACK_HEADER_SIZE + 20] ^= 1;
	assert_int_equal(read_block(&m, true, m.first, 0, &err), -ERR_DAMAGED);
	free_made(&m);
}

/* ---- spans ---- */

struct spanned {
	const struct made *made;
	struct cache *cache;
	struct pack *pack;
	struct err err;
	int rc; /* of taking the spans */
};

static void open_spanned(struct spanned *s, const struct made *m, bool remote, bool told)
{
	struct source *src = memory_source("thing.gz", m->file.data, m->file.len);

	*s = (struct spanned){.made = m, .err = ERR_INIT};
	src->remote = remote;
	synth_must(cache_new(1 << 20, &s->cache, &s->err), &s->err, "cache_new");
	synth_must(pack_open(src, s->cache, &s->pack, &s->err), &s->err, "pack_open");
	s->rc = pack_get_spans(s->pack, cursor_init(m->spans.data, told ? m->spans.len : 0),
	                       &s->err);
}

static void close_spanned(struct spanned *s)
{
	pack_free(s->pack);
	cache_free(s->cache);
}

/* 0, or DAMAGED; wrong bytes are the end. */
static int block_of(struct spanned *s, uint64_t block)
{
	uint32_t size = pack_block_size(s->pack);
	uint64_t at = block * size;
	uint8_t back[64];
	size_t n = s->made->len - at < size ? (size_t)(s->made->len - at) : size;

	int rc = s->rc ? s->rc : pack_read(s->pack, at, back, n, &s->err);
	if (rc == 0)
		assert_memory_equal(back, s->made->content + at, n);
	else
		assert_int_equal(rc, -ERR_DAMAGED);
	return rc;
}

static int one_block(const struct made *m, bool remote, bool told, uint64_t block)
{
	struct spanned s;

	open_spanned(&s, m, remote, told);
	int rc = block_of(&s, block);
	close_spanned(&s);
	return rc;
}

/* Where the n-th block lies. */
static size_t offset_of_block(const struct made *m, uint64_t n)
{
	size_t at = PACK_HEADER_SIZE;

	for (;;) {
		enum gz_kind kind;
		uint64_t len;
		assert_int_equal(gz_peek(m->file.data + at, m->file.len - at, &kind, &len, NULL),
		                 0);
		if (kind == GZ_DATA && n-- == 0)
			return at;
		at += (size_t)len;
	}
}

/* The first member leaf is noise. */
static void spoil_leaf(struct made *m)
{
	size_t end = offset_of_block(m, PACK_BLOCKS_PER_LEAF);

	for (size_t at = end - 1000; at < end - 100; at++)
		m->file.data[at] ^= 0x55;
}

#define SPANNED_BLOCKS (2 * PACK_BLOCKS_PER_LEAF + 9)

/* Far away a block is read without its member leaf, and who reads many reads that. */
static void test_spans(void **state)
{
	struct rng r = {test_seed()};
	struct spanned s;
	struct made m;

	make_pack(&r, &m, 9, 64, (size_t)64 * SPANNED_BLOCKS - 5, 1);
	for (int remote = 0; remote < 2; remote++) {
		open_spanned(&s, &m, remote, true);
		for (uint64_t i = 0; i < SPANNED_BLOCKS; i++)
			assert_int_equal(block_of(&s, i), 0);
		close_spanned(&s);
	}
	spoil_leaf(&m);
	for (int i = 0; i < 100; i++) {
		uint64_t block = rng_below(&r, PACK_BLOCKS_PER_LEAF);
		assert_int_equal(one_block(&m, true, true, block), 0);
		assert_int_equal(one_block(&m, true, false, block), -ERR_DAMAGED);
		assert_int_equal(one_block(&m, false, true, block), -ERR_DAMAGED);
	}
	open_spanned(&s, &m, true, true);
	for (uint64_t i = 0; i < 4 * (uint64_t)PACK_SPAN_BLOCKS_MIN; i++)
		assert_int_equal(block_of(&s, 96 + i), 0);
	assert_int_equal(block_of(&s, 0), -ERR_DAMAGED);
	for (uint64_t i = PACK_BLOCKS_PER_LEAF; i < SPANNED_BLOCKS; i++)
		assert_int_equal(block_of(&s, i), 0);
	close_spanned(&s);
	free_made(&m);
}

/* ---- leaves that are told of ---- */

#define LEAVES 6u

/* Over a source: which stretches were said to be wanted. */
struct told {
	struct source base;
	struct source *inner;
	const struct made *made;
	uint64_t offset[LEAVES + 1];
	size_t len[LEAVES + 1];
	unsigned n, untold; /* leaves that were read and nobody had told of */
	bool begun;
};

static bool is_told(const struct told *t, uint64_t offset, size_t len)
{
	for (unsigned i = 0; i < t->n; i++)
		if (t->offset[i] == offset && t->len[i] == len)
			return true;
	return false;
}

static int told_pread(struct source *s, void *buf, size_t len, uint64_t offset, struct err *err)
{
	struct told *t = (struct told *)s;
	const struct buf *file = &t->made->file;
	enum gz_kind kind;
	uint64_t n;

	if (t->begun &&
	    gz_peek(file->data + offset, file->len - (size_t)offset, &kind, &n, NULL) == 0 &&
	    kind == GZ_INDEX)
		t->untold += !is_told(t, offset, len);
	return t->inner->pread(t->inner, buf, len, offset, err);
}

static int told_size(struct source *s, uint64_t *ret, struct err *err)
{
	struct told *t = (struct told *)s;

	return t->inner->size(t->inner, ret, err);
}

static void told_free(struct source *s)
{
	source_free(((struct told *)s)->inner);
}

static void take_told(struct source *s, uint64_t offset, size_t len)
{
	struct told *t = (struct told *)s;

	assert_true(t->n < LEAVES);
	assert_false(is_told(t, offset, len));
	t->offset[t->n] = offset;
	t->len[t->n++] = len;
}

/* Who said that he reads in order has each leaf asked for once, before it is read, and not all of them
 * at the beginning. */
static void test_leaves_ahead(void **state)
{
	struct rng r = {test_seed()};
	struct made m;

	make_pack(&r, &m, 11, 64, (size_t)64 * ((LEAVES - 1) * PACK_BLOCKS_PER_LEAF + 9), 1);
	for (unsigned says = 0; says < 2; says++) {
		struct told t = {.base = {.pread = told_pread,
		                          .size = told_size,
		                          .free = told_free,
		                          .expect_bytes = take_told,
		                          .name = (char *)"thing.gz",
		                          .remote = true},
		                 .inner = memory_source("thing.gz", m.file.data, m.file.len),
		                 .made = &m};
		struct spanned s = {.made = &m, .err = ERR_INIT};
		synth_must(cache_new(1 << 20, &s.cache, &s.err), &s.err, "cache_new");
		synth_must(pack_open(&t.base, s.cache, &s.pack, &s.err), &s.err, "pack_open");
		t.begun = true;
		if (says)
			pack_expect(s.pack, SOURCE_IN_ORDER);
		assert_in_range(t.n, says, says * (LEAVES - 1));
		for (uint64_t i = 0; i * 64 < m.len; i++)
			assert_int_equal(block_of(&s, i), 0);
		assert_int_equal(t.n, says * LEAVES);
		assert_int_equal(t.untold, says ? 0 : LEAVES);
		close_spanned(&s);
	}
	free_made(&m);
}

/* Damage in a span is that of the block that it lies in. */
static void test_damaged_spans(void **state)
{
	struct rng r = {test_seed()};
	struct made m;

	make_pack(&r, &m, 9, 64, (size_t)64 * SPANNED_BLOCKS, 1);
	for (int i = 0; i < 100; i++) {
		uint64_t block = rng_below(&r, PACK_BLOCKS_PER_LEAF);
		size_t at = offset_of_block(&m, block);
		at += (size_t)rng_below(&r, offset_of_block(&m, block + 1) - at);
		if (block + 1 == PACK_BLOCKS_PER_LEAF) /* the leaf lies between */
			continue;
		uint8_t bit = (uint8_t)(1u << rng_below(&r, 8));
		m.file.data[at] ^= bit;
		struct spanned s;
		open_spanned(&s, &m, true, true);
		for (uint64_t b = block & ~UINT64_C(7), n = 0; n < 8; b++, n++)
			assert_int_equal(block_of(&s, b), b == block ? -ERR_DAMAGED : 0);
		close_spanned(&s);
		m.file.data[at] ^= bit;
	}
	/* Of a leaf that is no more nothing else tells what is right. */
	spoil_leaf(&m);
	for (int i = 0; i < 200; i++) {
		size_t at = (size_t)rng_below(&r, m.spans.len);
		uint8_t bit = (uint8_t)(1u << rng_below(&r, 8));
		m.spans.data[at] ^= bit;
		(void)!one_block(&m, true, true,
		                 rng_below(&r, SPANNED_BLOCKS)); /* right, or an error */
		m.spans.data[at] ^= bit;
	}
	m.spans.data[3] ^= 1; /* in the hash of the first, behind its length in two bytes */
	assert_int_equal(one_block(&m, true, true, 0), -ERR_DAMAGED);
	m.spans.data[3] ^= 1;
	for (size_t cut = 1; cut < m.spans.len; cut += 1 + m.spans.len / 50) {
		m.spans.len -= cut;
		assert_int_equal(one_block(&m, true, true, 0), -ERR_DAMAGED);
		m.spans.len += cut;
	}
	free_made(&m);
}

/* Their number is bounded. */
static void test_count_of_spans(void **state)
{
	const uint64_t most = (uint64_t)PACK_SPANS_MAX * PACK_SPAN_BLOCKS_MIN;
	struct rng r = {test_seed()};
	struct made m;

	make_pack(&r, &m, 9, 8, (size_t)8 * PACK_BLOCKS_PER_LEAF, 1);
	assert_int_equal(m.spans.len, 0);
	free_made(&m);
	make_pack(&r, &m, 9, 8, (size_t)(8 * (most + 1)), 1);
	assert_int_equal(m.spans.data[0], 2 * PACK_SPAN_BLOCKS_MIN);
	spoil_leaf(&m);
	for (int i = 0; i < 10; i++)
		assert_int_equal(one_block(&m, true, true, rng_below(&r, most + 1)), 0);
	free_made(&m);
}

static void test_gunzip(void **state)
{
	cleanup_free char *root = test_folder();
	cleanup_fd int dir = open(root, O_RDONLY | O_DIRECTORY);
	struct rng r = {test_seed()};
	struct made m;
	char command[300];
	size_t len;

	make_pack(&r, &m, 5, 4096, 700001, 6);
	write_whole(dir, "x.gz", m.file.data, m.file.len);
	snprintf(command, sizeof(command), "gunzip -t %s/x.gz && gunzip -c %s/x.gz", root, root);
	cleanup_free uint8_t *out = output_of(command, &len);
	assert_int_equal(len, m.len);
	assert_memory_equal(out, m.content, len);
	free_made(&m);
	test_remove(root);
}

static void test_flips(void **state)
{
	struct rng r = {test_seed()};
	struct made m, other;

	make_pack(&r, &m, 77, 512, 2000, 6);
	make_pack(&r, &other, 78, 512, 2000, 6);
	for (size_t i = 0; i < m.file.len * 8;
	     i += 1 + (size_t)rng_below(&r, 3000 / test_rounds(1000))) {
		m.file.data[i / 8] ^= (uint8_t)(1u << i % 8);
		if (read_all(&m, m.file.data, m.file.len, &r))
			synth_die("bit %zu flipped, and nobody noticed", i);
		m.file.data[i / 8] ^= (uint8_t)(1u << i % 8);
	}
	for (size_t cut = 0; cut < m.file.len; cut += 1000 / test_rounds(100) / 10 + 1)
		assert_false(read_all(&m, m.file.data, cut, &r));
	/* Halves of two objects; the content of another. */
	for (size_t at = 1; at < m.file.len && at < other.file.len; at += 37) {
		struct buf mixed = BUF_INIT(SIZE_MAX / 2);
		struct err err = ERR_INIT;
		synth_must(buf_append(&mixed, other.file.data, at, &err), &err, "mix");
		synth_must(buf_append(&mixed, m.file.data + at, m.file.len - at, &err), &err,
		           "mix");
		bool same = memcmp(mixed.data, m.file.data, m.file.len) == 0; /* heads are alike */
		bool all_other = mixed.len == other.file.len &&               /* and so are tails */
		                 memcmp(mixed.data, other.file.data, mixed.len) == 0;
		if (all_other) {
			buf_release(&mixed);
			continue;
		}
		if (read_all(&m, mixed.data, mixed.len, &r) != same)
			synth_die("cut over at %zu, and nobody noticed", at);
		buf_release(&mixed);
	}
	free_made(&m);
	free_made(&other);
}

/* A version to come is told from damage. */
static void test_newer(void **state)
{
	struct rng r = {test_seed()};
	struct cache *cache;
	struct made m;
	struct pack *p;
	struct err err = ERR_INIT;

	make_pack(&r, &m, 77, 512, 2000, 6);
	synth_must(cache_new(1 << 20, &cache, &err), &err, "cache_new");
	uint8_t *h = m.file.data + GZ_PAYLOAD_OFFSET;
	store_le32(h + 8, 2);
	struct source *src = memory_source("thing.gz", m.file.data, m.file.len);
	assert_int_equal(pack_open(src, cache, &p, &err), -ERR_DAMAGED);
	store_le64(h + 24, hash64(h, 24, gz_bind(77, 0)));
	assert_int_equal(pack_open(src, cache, &p, &err), -ERR_VERSION);
	assert_non_null(strstr(err.msg, "thing.gz"));
	source_free(src);
	cache_free(cache);
	free_made(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_data_member),  cmocka_unit_test(test_blob),
	        cmocka_unit_test(test_pack),         cmocka_unit_test(test_pack_leaves),
	        cmocka_unit_test(test_gunzip),       cmocka_unit_test(test_flips),
	        cmocka_unit_test(test_newer),        cmocka_unit_test(test_first_blocks),
	        cmocka_unit_test(test_spans),        cmocka_unit_test(test_damaged_spans),
	        cmocka_unit_test(test_leaves_ahead), cmocka_unit_test(test_count_of_spans),
	        cmocka_unit_test(test_alike),        cmocka_unit_test(test_alike_is_short),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
