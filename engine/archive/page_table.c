/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/archive/page_table.h"

#include "engine/base/bytes.h"
#include "engine/base/cleanup.h"
#include "engine/base/file.h"

#include <fcntl.h>
#include <sys/mman.h>

#define TABLE_NAME "pages"
#define ENTRIES_OFFSET 4096u
#define ENTRY_SIZE 16u

struct page_table {
	int fd;
	uint32_t page_size;
	uint8_t *map;
	size_t map_bytes;
	uint32_t cap_pages;
};

static void put_header(const struct page_table *t, uint64_t txid, uint8_t b[32])
{
	memcpy(b, "asofpage", 8);
	store_le32(b + 8, 1);
	store_le32(b + 12, t->page_size);
	store_le64(b + 16, txid);
	store_le64(b + 24, hash64(b, 24, 0));
}

static int map_table(struct page_table *t, size_t bytes, struct err *err)
{
	void *p = t->map ? mremap(t->map, t->map_bytes, bytes, MREMAP_MAYMOVE)
	                 : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, t->fd, 0);
	if (p == MAP_FAILED)
		return err_set(err, ERR_IO, errno, "map '%s'", TABLE_NAME);
	t->map = p;
	t->map_bytes = bytes;
	t->cap_pages = (uint32_t)((bytes - ENTRIES_OFFSET) / ENTRY_SIZE);
	return 0;
}

int page_table_reset(struct page_table *t, struct err *err)
{
	if (t->map)
		munmap(t->map, t->map_bytes);
	t->map = NULL;
	t->map_bytes = 0;
	t->cap_pages = 0;
	if (ftruncate(t->fd, 0) < 0)
		return err_set(err, ERR_IO, errno, "empty '%s'", TABLE_NAME);
	int rc = page_table_reserve(t, 1, err);
	if (rc == 0)
		put_header(t, 0, t->map);
	return rc;
}

int page_table_reserve(struct page_table *t, uint32_t n_pages, struct err *err)
{
	if (n_pages <= t->cap_pages)
		return 0;
	uint64_t want = (uint64_t)n_pages + n_pages / 4 + 256;
	uint64_t bytes = ENTRIES_OFFSET + (want * ENTRY_SIZE + 4095) / 4096 * 4096;
	int e = posix_fallocate(t->fd, 0, (off_t)bytes);
	if (e)
		return err_set(err, ERR_IO, e, "grow '%s'", TABLE_NAME);
	return map_table(t, (size_t)bytes, err);
}

int page_table_open(int dir_fd, uint32_t page_size, struct page_table **ret, uint64_t *ret_txid,
                    struct err *err)
{
	uint64_t size;
	struct page_table *t = calloc(1, sizeof(*t));

	if (!t)
		return err_set(err, ERR_NOMEM, 0, "no memory for the page table");
	t->fd = -1;
	t->page_size = page_size;
	*ret_txid = 0;
	int rc = file_open(dir_fd, TABLE_NAME, O_RDWR | O_CREAT, 0600, &t->fd, err);
	if (rc == 0)
		rc = file_size(t->fd, &size, TABLE_NAME, err);
	if (rc == 0 && size >= ENTRIES_OFFSET + 4096 && (size - ENTRIES_OFFSET) % 4096 == 0) {
		rc = map_table(t, (size_t)size, err);
		if (rc == 0 && memcmp(t->map, "asofpage", 8) == 0 && load_le32(t->map + 8) == 1 &&
		    load_le32(t->map + 12) == page_size &&
		    load_le64(t->map + 24) == hash64(t->map, 24, 0))
			*ret_txid = load_le64(t->map + 16);
	}
	if (rc == 0 && *ret_txid == 0)
		rc = page_table_reset(t, err);
	if (rc < 0) {
		page_table_free(t);
		return rc;
	}
	*ret = t;
	return 0;
}

struct hash128 page_table_get(const struct page_table *t, uint32_t pgno)
{
	struct hash128 h = {0, 0};

	if (pgno >= 1 && pgno <= t->cap_pages)
		memcpy(&h, t->map + ENTRIES_OFFSET + (size_t)(pgno - 1) * ENTRY_SIZE, ENTRY_SIZE);
	return h;
}

void page_table_set(struct page_table *t, uint32_t pgno, struct hash128 h)
{
	if (pgno >= 1 && pgno <= t->cap_pages)
		memcpy(t->map + ENTRIES_OFFSET + (size_t)(pgno - 1) * ENTRY_SIZE, &h, ENTRY_SIZE);
}

void page_table_truncate(struct page_table *t, uint32_t n_pages)
{
	if (n_pages < t->cap_pages)
		memset(t->map + ENTRIES_OFFSET + (size_t)n_pages * ENTRY_SIZE, 0,
		       (size_t)(t->cap_pages - n_pages) * ENTRY_SIZE);
}

struct hash128 page_table_sum(const struct page_table *t, uint32_t n_pages)
{
	struct hash128 sum = {0, 0};

	for (uint32_t p = 1; p <= n_pages && p <= t->cap_pages; p++)
		state_add(&sum, page_table_get(t, p));
	return sum;
}

int page_table_sync(struct page_table *t, uint64_t txid, struct err *err)
{
	if (msync(t->map, t->map_bytes, MS_SYNC) < 0)
		return err_set(err, ERR_IO, errno, "sync '%s'", TABLE_NAME);
	put_header(t, txid, t->map);
	return 0; /* the header may reach the disk at leisure: it tells of what is there */
}

void page_table_free(struct page_table *t)
{
	if (!t)
		return;
	if (t->map)
		munmap(t->map, t->map_bytes);
	if (t->fd >= 0)
		close(t->fd);
	free(t);
}
