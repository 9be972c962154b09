/* SPDX-License-Identifier: Apache-2.0 */
/* SQLite's headers from any bytes: what parses holds what the rest of the program relies on,
 * and is written back as it was. */
#include "engine/sqlite/format.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_wal_header(const uint8_t *data, size_t size)
{
	struct wal_header h;
	struct err err = ERR_INIT;
	uint8_t out[WAL_HEADER_SIZE];

	if (wal_header_parse(data, size, &h, &err))
		return;
	if (!page_size_valid(h.page_size))
		abort();
	wal_header_write(&h, out);
	if (wal_header_parse(out, sizeof(out), &h, &err))
		abort();
}

static void check_frame(const uint8_t *data, size_t size)
{
	struct wal_frame_header h;
	struct wal_cksum a = {1, 2}, b = {3, 4}, a2 = a, b2 = b;
	uint8_t out[WAL_FRAME_HEADER_SIZE];

	if (size < WAL_FRAME_HEADER_SIZE)
		return;
	wal_frame_header_parse(data, &h);
	wal_frame_header_write(&h, out);
	if (memcmp(out, data, sizeof(out)) != 0)
		abort();
	size_t words = size & ~(size_t)7;
	wal_cksum_add(&a, data, words, false);
	wal_cksum_add(&b, data, words, false);
	wal_cksum_add2(&a2, &b2, data, words);
	if (a.s0 != a2.s0 || a.s1 != a2.s1 || b.s0 != b2.s0 || b.s1 != b2.s1)
		abort();
}

/* With checksums made right, so that the fields behind them are reached. */
static void check_with_right_sum(const uint8_t *data, size_t size)
{
	uint8_t copy[WAL_INDEX_HEADER_BYTES];
	struct wal_index index;
	struct wal_cksum sum = {0, 0};

	if (size < sizeof(copy))
		return;
	memcpy(copy, data, sizeof(copy));
	wal_cksum_add(&sum, copy, 40, false);
	memcpy(copy + 40, &sum.s0, 4);
	memcpy(copy + 44, &sum.s1, 4);
	memcpy(copy + 48, copy, 48);
	if (wal_index_parse(copy, &index) && index.page_size && !page_size_valid(index.page_size))
		abort();
	memcpy(copy, data, WAL_HEADER_SIZE);
	copy[0] = 0x37, copy[1] = 0x7f, copy[2] = 0x06, copy[3] = 0x82;
	sum = (struct wal_cksum){0, 0};
	wal_cksum_add(&sum, copy, 24, false);
	for (int i = 0; i < 4; i++) {
		copy[24 + i] = (uint8_t)(sum.s0 >> (24 - 8 * i));
		copy[28 + i] = (uint8_t)(sum.s1 >> (24 - 8 * i));
	}
	check_wal_header(copy, WAL_HEADER_SIZE);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct db_header db;
	struct err err = ERR_INIT;
	struct wal_index index;

	if (db_header_parse(data, size, &db, &err) == 0 && !page_size_valid(db.page_size))
		abort();
	check_wal_header(data, size);
	check_frame(data, size);
	if (size >= WAL_INDEX_HEADER_BYTES)
		(void)wal_index_parse(data, &index);
	check_with_right_sum(data, size);
	return 0;
}
