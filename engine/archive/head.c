/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/archive/head.h"

#include "engine/base/bytes.h"
#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/base/hash.h"

#define HEAD_SEED UINT64_C(0x61736f6668656164)

int head_write(int fd, const struct head *h, struct err *err)
{
	uint8_t b[HEAD_SIZE] = {0};

	memcpy(b, "asofhead", 8);
	store_le32(b + 8, 1);
	store_le32(b + 12, h->lineage);
	store_le64(b + 16, h->growing_txid);
	store_le64(b + 24, h->durable_len);
	store_le64(b + 32, h->last_txid);
	store_le64(b + 40, (uint64_t)h->last_us);
	store_le64(b + 48, (uint64_t)h->known_until_us);
	store_le64(b + 56, h->generation);
	store_le64(b + HEAD_SIZE - 8, hash64(b, HEAD_SIZE - 8, HEAD_SEED));
	return file_pwrite(fd, b, sizeof(b), 0, HEAD_NAME, err);
}

int head_read(int fd, struct head *ret, struct err *err)
{
	uint8_t b[HEAD_SIZE];
	size_t len;

	for (int tries = 0; tries < 10; tries++) {
		int rc = file_pread_some(fd, b, sizeof(b), 0, &len, HEAD_NAME, err);
		if (rc < 0)
			return rc;
		if (len == 0)
			return err_set(err, ERR_NOT_FOUND, 0, "the archive's head is empty");
		if (len == HEAD_SIZE && memcmp(b, "asofhead", 8) == 0 &&
		    load_le64(b + HEAD_SIZE - 8) == hash64(b, HEAD_SIZE - 8, HEAD_SEED)) {
			if (load_le32(b + 8) != 1)
				return err_set(
				        err, ERR_VERSION, 0,
				        "the archive has format %u, this asof reads 1 (use a "
				        "newer asof)",
				        load_le32(b + 8));
			*ret = (struct head){
			        .lineage = load_le32(b + 12),
			        .growing_txid = load_le64(b + 16),
			        .durable_len = load_le64(b + 24),
			        .last_txid = load_le64(b + 32),
			        .last_us = (int64_t)load_le64(b + 40),
			        .known_until_us = (int64_t)load_le64(b + 48),
			        .generation = load_le64(b + 56),
			};
			return 0;
		}
		clock_sleep_us(100); /* a torn one is whole in microseconds */
	}
	return err_set(err, ERR_DAMAGED, 0, "the archive's head does not match its hash");
}
