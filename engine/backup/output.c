/* SPDX-License-Identifier: Apache-2.0 */
/* The stored form of a backup: a pack or plain bytes, with their sha256. */
#include "engine/backup/create_i.h"

#include "engine/base/bytes.h"
#include "engine/base/file.h"
#include "engine/sqlite/format.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#define BLOCK_BYTES 16384u
#define BACKUP_KIND 4u

_Static_assert(BACKUP_PIECE_BYTES % PAGE_SIZE_MAX == 0, "a piece holds whole pages");

/* A pack_sink_fn. */
int output_store(void *ctx, const void *p, size_t len, uint64_t offset, struct err *err)
{
	struct output *o = ctx;
	int rc = file_pwrite(o->fd, p, len, offset, o->name, err);

	if (rc)
		return rc;
	sha256_update(&o->sha, len, p);
	/* Only a hint: the disk begins now what fsync() waits for later. */
	file_start_writing(o->fd, offset, len);
	o->stored_bytes += len;
	return 0;
}

int output_open(struct output *o, int fd, const char *name, const struct backup_input *in,
                const struct backup_options *options, struct err *err)
{
	uint32_t block = in->page_size > BLOCK_BYTES ? in->page_size : BLOCK_BYTES;
	uint64_t id;

	*o = (struct output){.fd = fd, .name = name, .page_size = in->page_size};
	sha256_init(&o->sha);
	if (options->no_compress)
		return 0;
	if (getrandom(&id, sizeof(id), 0) != (ssize_t)sizeof(id))
		return err_set(err, ERR_IO, errno, "get random bytes");
	return pack_writer_new(id, block, options->level ? options->level : BACKUP_LEVEL_DEFAULT,
	                       output_store, o, &o->pack, err);
}

int output_append(struct output *o, const uint8_t *p, size_t len, struct err *err)
{
	if (o->page_size) {
		uint64_t first = o->content_bytes / o->page_size + 1;
		for (size_t at = 0; at + o->page_size <= len; at += o->page_size) {
			uint64_t pgno = first + at / o->page_size;
			if (pgno != lock_page(o->page_size))
				state_add(&o->state,
				          page_hash((uint32_t)pgno, p + at, o->page_size));
		}
	}
	int rc = o->pack ? pack_append(o->pack, p, len, err)
	                 : output_store(o, p, len, o->content_bytes, err);
	o->content_bytes += len;
	return rc;
}

/* The trailer's meta: FORMAT.md. */
int output_finish(struct output *o, const struct backup_input *in, struct err *err)
{
	uint8_t m[PACK_META_SIZE] = {0};
	uint64_t bytes;

	if (!o->pack)
		return 0;
	store_le32(m, BACKUP_KIND);
	store_le32(m + 4, in->page_size);
	store_le32(m + 8, in->lineage);
	store_le32(m + 12, in->page_size ? (uint32_t)(o->content_bytes / in->page_size) : 0);
	store_le64(m + 16, in->txid);
	store_le64(m + 32, (uint64_t)in->state_us);
	store_le64(m + 48, o->state.lo);
	store_le64(m + 56, o->state.hi);
	return pack_finish(o->pack, NULL, 0, m, &bytes, err);
}

void output_release(struct output *o)
{
	pack_writer_free(o->pack);
	o->pack = NULL;
}

void backup_sha_text(struct sha256_ctx *sha, char out[BACKUP_SHA256_MAX])
{
	uint8_t digest[SHA256_DIGEST_SIZE];

	sha256_digest(sha, sizeof(digest), digest);
	for (size_t i = 0; i < sizeof(digest); i++)
		snprintf(out + 2 * i, 3, "%02x", digest[i]);
}
