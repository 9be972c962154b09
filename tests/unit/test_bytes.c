/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes, buffers, hashes, the page table. */
#include "engine/archive/page_table.h"
#include "engine/base/buf.h"
#include "engine/base/hash.h"
#include "tests/lib/memory.h"
#include "tests/lib/synth.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void test_fixed(void **state)
{
	uint8_t b[8];

	store_le16(b, 0x1234);
	assert_int_equal(b[0], 0x34);
	assert_int_equal(load_le16(b), 0x1234);
	assert_int_equal(load_be16(b), 0x3412);
	store_le32(b, 0x12345678);
	assert_int_equal(b[0], 0x78);
	assert_int_equal(load_le32(b), 0x12345678);
	assert_int_equal(load_be32(b), 0x78563412);
	store_be32(b, 0x12345678);
	assert_int_equal(b[0], 0x12);
	store_le64(b, UINT64_C(0x0123456789abcdef));
	assert_int_equal(b[0], 0xef);
	assert_true(load_le64(b) == UINT64_C(0x0123456789abcdef));
}

static void test_varint(void **state)
{
	struct rng r = {test_seed()};

	for (unsigned i = 0; i < 100000; i++) {
		uint64_t v = rng_next(&r) >> rng_below(&r, 64), z;
		if (i < 130)
			v = i < 65 ? (i == 64 ? UINT64_MAX : (UINT64_C(1) << i) - 1)
			           : UINT64_C(1) << (i - 65) % 64;
		uint8_t b[VARINT_MAX + 1];
		size_t n = store_varint(b, v);
		assert_true(n <= VARINT_MAX);
		struct cursor c = cursor_init(b, n);
		assert_true(cursor_varint(&c) == v);
		assert_true(cursor_ok(&c) && cursor_left(&c) == 0);
		for (size_t cut = 0; cut < n; cut++) { /* and no shorter */
			c = cursor_init(b, cut);
			cursor_varint(&c);
			assert_false(cursor_ok(&c));
		}
		/* One spelling only. */
		if (n < VARINT_MAX) {
			b[n - 1] |= 0x80;
			b[n] = 0;
			c = cursor_init(b, n + 1);
			cursor_varint(&c);
			assert_false(cursor_ok(&c));
		}
		z = zigzag((int64_t)v);
		assert_true(unzigzag(z) == (int64_t)v);
	}
	assert_int_equal(zigzag(0), 0);
	assert_int_equal(zigzag(-1), 1);
	assert_int_equal(zigzag(1), 2);
	uint8_t big[11];
	memset(big, 0xff, sizeof(big));
	struct cursor c = cursor_init(big, sizeof(big));
	cursor_varint(&c);
	assert_false(cursor_ok(&c));
	memset(big, 0xff, 9);
	big[9] = 2; /* 2^65 */
	c = cursor_init(big, 10);
	cursor_varint(&c);
	assert_false(cursor_ok(&c));
}

static void test_cursor(void **state)
{
	const uint8_t b[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
	struct cursor c = cursor_init(b, sizeof(b));

	assert_int_equal(cursor_u8(&c), 1);
	assert_ptr_equal(cursor_take(&c, 3), b + 1);
	assert_true(cursor_le64(&c) == load_le64(b + 4));
	assert_ptr_equal(cursor_take(&c, 0), b + 12);
	assert_true(cursor_ok(&c));
	assert_int_equal(cursor_u8(&c), 0);
	assert_false(cursor_ok(&c));
	c = cursor_init(b, 3);
	assert_int_equal(cursor_le32(&c), 0);
	assert_false(cursor_ok(&c));
	assert_null(cursor_take(&c, 1)); /* bad stays bad, though a byte is there */
	c = cursor_init(b, 3);
	assert_null(cursor_take(&c, SIZE_MAX));
	c = cursor_init(NULL, 0);
	assert_int_equal(cursor_left(&c), 0);
	assert_int_equal(cursor_varint(&c), 0);
	assert_false(cursor_ok(&c));
}

static void test_buf(void **state)
{
	struct buf b = BUF_INIT(1000);
	struct err err = ERR_INIT;
	uint8_t x[600];

	memset(x, 7, sizeof(x));
	assert_int_equal(buf_append(&b, x, 600, &err), 0);
	assert_int_equal(buf_append(&b, x, 401, &err), -ERR_NOMEM);
	assert_int_equal(b.len, 600);
	assert_int_equal(buf_append(&b, x, 400, &err), 0);
	assert_int_equal(buf_append(&b, x, 1, &err), -ERR_NOMEM);
	assert_int_equal(buf_append(&b, NULL, 0, &err), 0);
	assert_int_equal(buf_reserve(&b, SIZE_MAX, &err), -ERR_NOMEM);
	buf_clear(&b);
	assert_int_equal(buf_printf(&b, &err, "%d %s", 12, "ab"), 0);
	assert_int_equal(b.len, 5);
	assert_string_equal((char *)b.data, "12 ab");
	assert_int_equal(buf_append_varint(&b, 300, &err), 0);
	assert_int_equal(b.len, 7);
	buf_release(&b);
}

/* A state is a sum: order does not matter, and what was added can be taken away. */
static void test_state(void **state)
{
	struct rng r = {test_seed()};
	struct hash128 h[50], sum = {0, 0}, other = {0, 0};
	uint8_t page[512] = {0};

	for (unsigned i = 0; i < 50; i++) {
		store_le64(page, rng_next(&r));
		h[i] = page_hash(i + 1, page, sizeof(page));
		if (i < 4) /* carries in both words */
			h[i] = (struct hash128){UINT64_MAX - i, UINT64_MAX};
		state_add(&sum, h[i]);
	}
	for (unsigned i = 50; i-- > 0;)
		state_add(&other, h[i]);
	assert_true(hash128_equal(sum, other));
	for (unsigned i = 0; i < 50; i++)
		state_sub(&sum, h[i]);
	assert_true(hash128_zero(sum));
	/* The page number is part of it. */
	assert_false(hash128_equal(page_hash(1, page, 512), page_hash(2, page, 512)));
	/* Written down, so that no other library's idea of the hash slips in. */
	assert_true(hash64("asof", 4, 1) == UINT64_C(0xb3dff379bab6f873));
	memset(page, 0, sizeof(page));
	struct hash128 zero = page_hash(1, page, 512);
	assert_true(zero.lo == UINT64_C(0x8a3b11577f6f69db) &&
	            zero.hi == UINT64_C(0xc255110f80621745));
}

static void test_page_table(void **state)
{
	cleanup_free char *root = test_folder();
	cleanup_fd int dir = open(root, O_RDONLY | O_DIRECTORY);
	struct rng r = {test_seed()};
	struct page_table *t;
	struct hash128 ref[5000] = {{0, 0}}, sum = {0, 0};
	struct err err = ERR_INIT;
	uint64_t txid;

	synth_must(page_table_open(dir, 4096, &t, &txid, &err), &err, "open");
	assert_int_equal(txid, 0);
	for (unsigned i = 0; i < 20000; i++) {
		uint32_t p = 1 + (uint32_t)rng_below(&r, 1 + i / 4);
		struct hash128 h = {rng_next(&r), rng_next(&r)};
		synth_must(page_table_reserve(t, p, &err), &err, "reserve");
		page_table_set(t, p, h);
		assert_true(hash128_equal(page_table_get(t, p), h));
		ref[p - 1] = h;
	}
	for (uint32_t p = 1; p <= 5000; p++)
		assert_true(hash128_equal(page_table_get(t, p), ref[p - 1]));
	assert_true(hash128_zero(page_table_get(t, 0)));
	assert_true(hash128_zero(page_table_get(t, UINT32_MAX)));
	for (unsigned i = 0; i < 3000; i++)
		state_add(&sum, ref[i]);
	assert_true(hash128_equal(page_table_sum(t, 3000), sum));
	synth_must(page_table_sync(t, 77, &err), &err, "sync");
	page_table_free(t);
	synth_must(page_table_open(dir, 4096, &t, &txid, &err), &err, "open");
	assert_int_equal(txid, 77);
	assert_true(hash128_equal(page_table_sum(t, 3000), sum));
	page_table_free(t);

	/* Another page size, a cut, a flipped byte of the header: an empty table, never a wrong one. */
	size_t len;
	cleanup_free uint8_t *bytes = read_whole(dir, "pages", &len);
	for (unsigned i = 0; i < 34; i++) {
		if (i < 32)
			bytes[i] ^= 1;
		write_whole(dir, "pages", bytes, i == 32 ? 100 : i == 33 ? len - 1 : len);
		if (i < 32)
			bytes[i] ^= 1;
		synth_must(page_table_open(dir, 4096, &t, &txid, &err), &err, "open");
		assert_int_equal(txid, 0);
		assert_true(hash128_zero(page_table_get(t, 1)));
		page_table_free(t);
	}
	write_whole(dir, "pages", bytes, len);
	synth_must(page_table_open(dir, 512, &t, &txid, &err), &err, "open");
	assert_int_equal(txid, 0);
	assert_true(hash128_zero(page_table_sum(t, 5000)));
	page_table_free(t);
	test_remove(root);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_fixed),  cmocka_unit_test(test_varint),
	        cmocka_unit_test(test_cursor), cmocka_unit_test(test_buf),
	        cmocka_unit_test(test_state),  cmocka_unit_test(test_page_table),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
