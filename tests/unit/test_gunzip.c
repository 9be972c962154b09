/* SPDX-License-Identifier: Apache-2.0 */
/* Any gzip file, read in order: zlib's own writer as the reference, cut, flipped, continued. */
#include "engine/gz/gunzip.h"

#include "engine/base/buf.h"
#include "tests/lib/synth.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <zlib.h>

#include <cmocka.h>

struct memory {
	const uint8_t *p;
	size_t len, at;
	struct rng *rng;
};

/* Comes in pieces of any size. */
static int from_memory(void *ctx, void *buf, size_t len, size_t *ret_len, struct err *err)
{
	struct memory *m = ctx;
	size_t n = m->len - m->at, most = 1 + (size_t)rng_below(m->rng, 300);

	n = n < len ? n : len;
	n = n < most ? n : most;
	memcpy(buf, m->p + m->at, n);
	m->at += n;
	*ret_len = n;
	return 0;
}

/* All of it, in reads of any size; the result of the last one. */
static int inflate_all(const uint8_t *p, size_t len, struct rng *r, struct buf *out,
                       struct err *err)
{
	struct memory m = {p, len, 0, r};
	cleanup_gunzip struct gunzip *g = NULL;
	uint8_t piece[700];
	size_t got, want;

	buf_clear(out);
	*err = (struct err)ERR_INIT;
	synth_must(gunzip_new(from_memory, &m, "x.gz", &g, err), err, "gunzip_new");
	do {
		want = 1 + (size_t)rng_below(r, sizeof(piece));
		int rc = gunzip_read(g, piece, want, &got, err);
		if (rc)
			return rc;
		synth_must(buf_append(out, piece, got, err), err, "append");
	} while (got == want);
	assert_int_equal(gunzip_consumed(g), len);
	assert_int_equal(gunzip_read(g, piece, 10, &got, err), 0);
	assert_int_equal(got, 0);
	return 0;
}

static void add_member(struct buf *file, const uint8_t *content, size_t len, struct rng *r)
{
	z_stream z = {0};
	uint8_t out[4000];
	gz_header head = {.name = (Bytef *)"trades.db",
	                  .comment = (Bytef *)"made by others",
	                  .extra = (Bytef *)"extra",
	                  .extra_len = 5,
	                  .hcrc = 1,
	                  .time = 1705314600};

	assert_int_equal(deflateInit2(&z, (int)rng_below(r, 10), Z_DEFLATED, 16 + MAX_WBITS, 8,
	                              Z_DEFAULT_STRATEGY),
	                 Z_OK);
	if (rng_chance(r, 50))
		assert_int_equal(deflateSetHeader(&z, &head), Z_OK);
	z.next_in = (Bytef *)content;
	z.avail_in = (uInt)len;
	z.next_out = out;
	z.avail_out = sizeof(out);
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	synth_must(buf_append(file, out, sizeof(out) - z.avail_out, NULL), NULL, "append");
	deflateEnd(&z);
}

struct made {
	uint8_t content[3000];
	size_t len;
	struct buf file;
	bool ends[20000]; /* where a member ends */
};

static void make(struct made *m, struct rng *r)
{
	memset(m, 0, sizeof(*m));
	m->file = (struct buf)BUF_INIT(1 << 20);
	m->len = (size_t)rng_below(r, sizeof(m->content));
	for (size_t i = 0; i < m->len; i++)
		m->content[i] = (uint8_t)(rng_chance(r, 70) ? 0 : rng_next(r));
	size_t at = 0;
	do {
		size_t n = rng_chance(r, 20) ? 0 : (size_t)rng_below(r, m->len - at + 1);
		if (rng_chance(r, 20))
			n = m->len - at;
		add_member(&m->file, m->content + at, n, r);
		m->ends[m->file.len] = true;
		at += n;
	} while (at < m->len);
}

static void test_members(void **state)
{
	struct rng r = {test_seed()};
	cleanup_buf struct buf out = BUF_INIT(1 << 20);
	static struct made m;
	struct err err;

	for (unsigned i = 0; i < test_rounds(200); i++) {
		make(&m, &r);
		synth_must(inflate_all(m.file.data, m.file.len, &r, &out, &err), &err, "inflate");
		assert_int_equal(out.len, m.len);
		assert_memory_equal(out.data, m.content, m.len);
		buf_release(&m.file);
	}
}

static void test_cut(void **state)
{
	struct rng r = {test_seed()};
	cleanup_buf struct buf out = BUF_INIT(1 << 20);
	static struct made m;
	struct err err;

	for (unsigned i = 0; i < test_rounds(10); i++) {
		make(&m, &r);
		for (size_t n = 0; n < m.file.len; n++) {
			int rc = inflate_all(m.file.data, n, &r, &out, &err);
			assert_int_equal(rc, m.ends[n] ? 0 : -ERR_DAMAGED);
			if (rc)
				assert_non_null(strstr(err.msg, "x.gz"));
		}
		buf_release(&m.file);
	}
}

/* A flipped bit is noticed, or lies where nothing depends on it (a name, a time). */
static void test_flips(void **state)
{
	struct rng r = {test_seed()};
	cleanup_buf struct buf out = BUF_INIT(1 << 20);
	static struct made m;
	struct err err;
	unsigned noticed = 0;

	for (unsigned i = 0; i < test_rounds(20); i++) {
		make(&m, &r);
		for (size_t k = 0; k < m.file.len; k++) {
			uint8_t bit = (uint8_t)(1u << rng_below(&r, 8));
			m.file.data[k] ^= bit;
			int rc = inflate_all(m.file.data, m.file.len, &r, &out, &err);
			m.file.data[k] ^= bit;
			noticed += rc != 0;
			if (rc)
				assert_int_equal(rc, -ERR_DAMAGED);
			else if (out.len != m.len || memcmp(out.data, m.content, m.len) != 0)
				synth_die("byte %zu flipped, and nobody noticed", k);
		}
		buf_release(&m.file);
	}
	assert_true(noticed > 0);
}

static void test_what_follows(void **state)
{
	struct rng r = {test_seed()};
	cleanup_buf struct buf out = BUF_INIT(1 << 20);
	static struct made m;
	static const uint8_t zeros[5000];
	struct err err;

	make(&m, &r);
	size_t whole = m.file.len;
	synth_must(buf_append(&m.file, zeros, sizeof(zeros), &err), &err, "append");
	synth_must(inflate_all(m.file.data, m.file.len, &r, &out, &err), &err, "zeros follow");
	assert_memory_equal(out.data, m.content, m.len);
	m.file.data[m.file.len - 1] = 0x1f; /* behind zeros no member can begin */
	assert_int_equal(inflate_all(m.file.data, m.file.len, &r, &out, &err), -ERR_DAMAGED);
	m.file.data[whole] = 'x';
	assert_int_equal(inflate_all(m.file.data, m.file.len, &r, &out, &err), -ERR_DAMAGED);
	assert_int_equal(inflate_all(m.file.data, 0, &r, &out, &err), -ERR_DAMAGED);
	assert_non_null(strstr(err.msg, "empty"));
	assert_int_equal(inflate_all(zeros, sizeof(zeros), &r, &out, &err), -ERR_DAMAGED);
	assert_int_equal(inflate_all((const uint8_t *)"SQLite format 3", 16, &r, &out, &err),
	                 -ERR_DAMAGED);
	buf_release(&m.file);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_members),
	        cmocka_unit_test(test_cut),
	        cmocka_unit_test(test_flips),
	        cmocka_unit_test(test_what_follows),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
