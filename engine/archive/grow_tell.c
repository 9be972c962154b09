/* SPDX-License-Identifier: Apache-2.0 */
/* What is left of a growing segment that is damaged. */
#include "engine/archive/grow_i.h"

#include <string.h>

/* So much of its end is looked at: the newest is what counts. */
#define TELL_MAX ((uint64_t)64 << 20)

/* Any member of asof's begins so; behind it are two bytes of length, and its kind. */
static const uint8_t begin[] = {0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff};

static const uint8_t *next_record_member(const uint8_t *p, const uint8_t *end)
{
	while (p && p + GZ_PAYLOAD_OFFSET + 8 <= end) {
		p = memmem(p, (size_t)(end - p), begin, sizeof(begin));
		if (!p || p + GZ_PAYLOAD_OFFSET + 8 > end)
			return NULL;
		if (p[12] == 'a' && p[13] == GZ_RECORD)
			return p;
		p++;
	}
	return NULL;
}

/* The length of the blob that begins here; 0: it is none. */
static size_t blob_len(const uint8_t *p, const uint8_t *end)
{
	enum gz_kind kind;
	uint64_t len;
	size_t all = 0;

	do {
		if (gz_peek(p + all, (size_t)(end - p) - all, &kind, &len, NULL) < 0 ||
		    kind != GZ_RECORD || len > (size_t)(end - p) - all)
			return 0;
		all += (size_t)len;
	} while (len >= GZ_CHUNK_MAX + GZ_META_OVERHEAD && all < RECORD_MAX_BYTES);
	return all;
}

static int tell_record(const struct buf *b, grow_told_fn *told, void *ctx, struct err *err)
{
	const uint8_t *p = b->data;
	int rc = 0;

	if (b->len < RECORD_FIXED + 8 || memcmp(p, "aREC", 4) != 0)
		return 0;
	uint64_t n_members = load_le64(p + 56), n_commits = load_le64(p + 64);
	uint64_t last = load_le64(p + 120);
	struct cursor c = cursor_init(p + RECORD_FIXED, b->len - RECORD_FIXED - 8);
	for (uint64_t i = 0; i < n_members && cursor_ok(&c); i++) {
		cursor_varint(&c);
		cursor_varint(&c);
		cursor_le64(&c);
	}
	if (n_commits > last)
		return 0;
	struct commit before = {.txid = last - n_commits, .min_pages = UINT32_MAX};
	for (uint64_t i = 0; i < n_commits && rc == 0; i++) {
		struct commit next;
		commit_get(&c, &before, &next);
		if (!cursor_ok(&c))
			return 0;
		rc = told(ctx, next.txid, next.time_us, err);
		before = next;
	}
	return rc;
}

int grow_tell(struct source *src, grow_told_fn *told, void *ctx, bool *ret_to_end, struct err *err)
{
	uint64_t bytes;

	*ret_to_end = false;
	int rc = src->size(src, &bytes, err);
	if (rc < 0)
		return rc;
	uint64_t from = bytes > TELL_MAX ? bytes - TELL_MAX : 0;
	size_t len = (size_t)(bytes - from);
	cleanup_free uint8_t *data = malloc(len ? len : 1);
	if (!data)
		return err_set(err, ERR_NOMEM, 0, "no memory to read '%s'", src->name);
	rc = len ? src->pread(src, data, len, from, err) : 0;
	const uint8_t *end = data + len, *p = rc == 0 ? next_record_member(data, end) : NULL;
	while (rc == 0 && p) {
		cleanup_buf struct buf b = BUF_INIT(RECORD_MAX_BYTES);
		size_t n = blob_len(p, end);
		if (n && gz_get_blob(GZ_RECORD, p, n, &b, NULL) == 0) {
			rc = tell_record(&b, told, ctx, err);
			*ret_to_end = p + n == end;
		}
		p = next_record_member(p + (n ? n : 1), end);
	}
	return rc;
}
