/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/archive/grow_i.h"
#include "engine/archive/names.h"
#include "engine/base/file.h"

#include <assert.h>
#include <fcntl.h>
#include <sys/random.h>

/* What is encoded but not yet written is written when it passes this. */
#define WRITE_BYTES (1u << 20)
/*
 * So much that is durable leaves the page cache at once: written once and read once, when it is
 * sealed, it would push out what the application reads.  And pages that come back keep being the
 * same few: with new ones all the time a third of the whole cost of capture went into them.
 */
#define DROP_BYTES (1u << 20)

/* Frames of the smallest page in a block, the one that it begins within, and what is to come. */
#define ALIKE_MAX (GROW_BLOCK_BYTES / (512 + WAL_FRAME_HEADER_SIZE) + 3)

struct grow_writer {
	struct grow_info info;
	int fd;
	char name[OBJECT_NAME_MAX];
	struct gz_codec *codec;
	struct grow_tail tail;  /* behind the last record */
	uint64_t closed_length; /* behind the last record that closes */
	uint64_t content_len;   /* with what is in the batch under way */
	uint64_t n_frames;
	uint64_t offset;  /* file bytes with what is in `out` */
	uint64_t dropped; /* so far they were taken out of the page cache */
	struct wal_cksum chain;
	struct commit last;
	bool in_commit; /* frames without their commit yet */

	struct buf block;       /* content not yet in a data member */
	struct gz_alike *alike; /* ALIKE_MAX: of the frames in it */
	size_t n_alike;
	struct buf out;              /* members not yet written */
	struct buf members, commits; /* parts of the record to come */
	uint64_t n_members, n_commits;
	struct frame_entry *run; /* GROW_RUN_FRAMES */
	size_t n_run;
};

int grow_header_put(const struct grow_info *info, struct buf *out, uint64_t *ret_hash,
                    struct err *err)
{
	uint8_t p[GROW_HEADER_PAYLOAD];

	memcpy(p, "asofgrow", 8);
	store_le32(p + 8, GROW_VERSION);
	store_le32(p + 12, info->page_size);
	store_le64(p + 16, info->id);
	store_le32(p + 24, info->lineage);
	store_le32(p + 28, info->salt1);
	store_le32(p + 32, info->salt2);
	store_le32(p + 36, 0);
	store_le64(p + 40, info->first_txid);
	*ret_hash = hash64(p, 48, gz_bind(info->id, 0));
	store_le64(p + 48, *ret_hash);
	return gz_put_blob(GZ_HEADER, p, sizeof(p), out, err);
}

int grow_header_get(const uint8_t *raw, size_t len, const char *name, struct grow_info *ret,
                    uint64_t *ret_hash, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT(GROW_HEADER_PAYLOAD);

	int rc = gz_check_version(raw, len, "asofgrow", GROW_VERSION, name, err);
	if (rc < 0)
		return rc;
	if (len < GROW_HEADER_SIZE || load_le16(raw + 14) != GROW_HEADER_PAYLOAD ||
	    gz_get_blob(GZ_HEADER, raw, GROW_HEADER_SIZE, &b, NULL) < 0 ||
	    b.len != GROW_HEADER_PAYLOAD || memcmp(b.data, "asofgrow", 8) != 0)
		return err_set(err, ERR_DAMAGED, 0, "'%s' is damaged at byte 0: no header", name);
	const uint8_t *p = b.data;
	*ret = (struct grow_info){
	        .id = load_le64(p + 16),
	        .page_size = load_le32(p + 12),
	        .lineage = load_le32(p + 24),
	        .first_txid = load_le64(p + 40),
	        .salt1 = load_le32(p + 28),
	        .salt2 = load_le32(p + 32),
	};
	*ret_hash = load_le64(p + 48);
	if (*ret_hash != hash64(p, 48, gz_bind(ret->id, 0)) || load_le32(p + 8) != GROW_VERSION ||
	    load_le32(p + 36) != 0 || !page_size_valid(ret->page_size) || ret->first_txid == 0)
		return err_set(err, ERR_DAMAGED, 0,
		               "'%s' is damaged at byte 0: the header does not match its hash",
		               name);
	return 0;
}

/* ---- fences ---- */

int grow_fence_put(uint32_t lineage, uint64_t first_txid, uint64_t goes_on, struct buf *out,
                   struct err *err)
{
	uint8_t first[8];
	uint64_t hash;

	store_le64(first, first_txid);
	const struct grow_info info = {
	        .id = hash64(first, sizeof(first), lineage),
	        .page_size = 512,
	        .lineage = lineage,
	        .first_txid = first_txid,
	        .salt1 = (uint32_t)goes_on,
	        .salt2 = (uint32_t)(goes_on >> 32),
	};
	return grow_header_put(&info, out, &hash, err);
}

int grow_fence_get(const void *p, size_t len, const char *name, uint32_t lineage,
                   uint64_t first_txid, uint64_t *ret_goes_on, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT(GROW_HEADER_SIZE);
	struct grow_info info;
	uint64_t hash;

	int rc = grow_header_get(p, len, name, &info, &hash, err);
	if (rc < 0)
		return rc;
	*ret_goes_on = info.salt1 | (uint64_t)info.salt2 << 32;
	rc = grow_fence_put(lineage, first_txid, *ret_goes_on, &b, err);
	if (rc == 0 && (b.len != len || memcmp(b.data, p, len) != 0))
		rc = err_set(err, ERR_DAMAGED, 0,
		             "'%s' is damaged: it was cut short behind its header", name);
	return rc;
}

void grow_tail_init(struct grow_tail *t, const struct grow_info *info, uint64_t header_hash)
{
	*t = (struct grow_tail){
	        .prev_hash = header_hash,
	        .length = GROW_HEADER_SIZE,
	        .last_txid = info->first_txid - 1,
	        .last = {.txid = info->first_txid - 1, .min_pages = UINT32_MAX},
	};
}

static struct grow_writer *writer_new(int level, struct err *err)
{
	struct grow_writer *w = calloc(1, sizeof(*w));
	if (w) {
		w->fd = -1;
		w->block.max_bytes = GROW_BLOCK_BYTES;
		w->out.max_bytes = WRITE_BYTES + RECORD_MAX_BYTES + 2 * GROW_BLOCK_BYTES;
		w->members.max_bytes = w->commits.max_bytes = RECORD_MAX_BYTES;
	}
	if (!w || gz_codec_new(level, &w->codec, err) < 0) {
		grow_writer_free(w);
		err_set(err, ERR_NOMEM, 0, "no memory for a segment writer");
		return NULL;
	}
	return w;
}

/* The writer goes on behind `w->tail`. */
static void start_batch(struct grow_writer *w)
{
	w->closed_length = w->offset = w->tail.length;
	w->content_len = w->tail.content_len;
	w->n_frames = w->tail.n_frames;
	w->chain = w->tail.chain;
	w->last = w->tail.last;
}

/* An id and salts of its own; the header is in `w->out`. */
static int begin(struct grow_writer *w, uint32_t lineage, uint64_t first_txid, uint32_t page_size,
                 uint64_t *ret_hash, struct err *err)
{
	struct object_name n = {
	        .type = OBJECT_GROWING, .lineage = lineage, .first_txid = first_txid};
	uint64_t random[2];

	if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
		return err_set(err, ERR_IO, errno, "get random bytes");
	w->info = (struct grow_info){
	        .id = random[0],
	        .page_size = page_size,
	        .lineage = lineage,
	        .first_txid = first_txid,
	        .salt1 = (uint32_t)random[1],
	        .salt2 = (uint32_t)(random[1] >> 32),
	};
	object_name_format(&n, w->name);
	return grow_header_put(&w->info, &w->out, ret_hash, err);
}

int grow_create(int dir_fd, uint32_t lineage, uint64_t first_txid, uint32_t page_size, int level,
                struct grow_writer **ret, struct err *err)
{
	cleanup_grow_writer struct grow_writer *w = writer_new(level, err);
	uint64_t hash;

	if (!w)
		return -ERR_NOMEM;
	int rc = begin(w, lineage, first_txid, page_size, &hash, err);
	if (rc == 0)
		rc = file_open(dir_fd, w->name, O_RDWR | O_CREAT | O_EXCL, 0600, &w->fd, err);
	if (rc < 0)
		return rc;
	rc = file_pwrite(w->fd, w->out.data, w->out.len, 0, w->name, err);
	if (rc == 0) /* so that a file longer than its header has a whole one */
		rc = file_datasync(w->fd, w->name, err);
	if (rc == 0)
		rc = file_sync_dir(dir_fd, w->name, err);
	if (rc < 0) { /* or the name would be taken when it is tried again */
		unlinkat(dir_fd, w->name, 0);
		return rc;
	}
	buf_clear(&w->out);
	grow_tail_init(&w->tail, &w->info, hash);
	start_batch(w);
	*ret = take_ptr(w);
	return 0;
}

int grow_create_unnamed(int fd, uint32_t lineage, uint64_t first_txid, uint32_t page_size,
                        int level, struct grow_writer **ret, struct err *err)
{
	cleanup_grow_writer struct grow_writer *w = writer_new(level, err);
	uint64_t hash;

	if (!w) {
		close(fd);
		return -ERR_NOMEM;
	}
	w->fd = fd;
	int rc = begin(w, lineage, first_txid, page_size, &hash, err);
	if (rc == 0)
		rc = file_pwrite(w->fd, w->out.data, w->out.len, 0, w->name, err);
	if (rc < 0)
		return rc;
	buf_clear(&w->out);
	grow_tail_init(&w->tail, &w->info, hash);
	start_batch(w);
	*ret = take_ptr(w);
	return 0;
}

static int damaged_within(const char *name, uint64_t len, uint64_t durable_len, struct err *err)
{
	return err_set(err, ERR_DAMAGED, 0,
	               "'%s' is damaged behind byte %llu, though %llu bytes were durable", name,
	               (unsigned long long)len, (unsigned long long)durable_len);
}

int grow_check(int dir_fd, const char *name, uint64_t durable_len, struct err *err)
{
	cleanup_source struct source *src = NULL;
	cleanup_grow_reader struct grow_reader *r = NULL;
	uint64_t len;

	int rc = source_open_file(dir_fd, name, NULL, &src, err);
	if (rc == 0 && (rc = grow_open(src, NULL, &r, err)) == 0)
		src = NULL;
	if (rc == 0)
		rc = grow_recover(r, 0, &len, err);
	if (rc < 0)
		return rc;
	return len < durable_len ? damaged_within(name, len, durable_len, err) : 0;
}

int grow_resume(int dir_fd, const char *name, uint64_t durable_len, int level,
                struct grow_writer **ret, struct commit *ret_last, struct source_position *ret_pos,
                struct err *err)
{
	cleanup_grow_writer struct grow_writer *w = writer_new(level, err);
	cleanup_source struct source *src = NULL;
	cleanup_grow_reader struct grow_reader *r = NULL;
	uint64_t len;

	if (!w)
		return -ERR_NOMEM;
	int rc = source_open_file(dir_fd, name, NULL, &src, err);
	if (rc == 0 && (rc = grow_open(src, NULL, &r, err)) == 0)
		src = NULL;
	if (rc == 0)
		rc = grow_recover(r, durable_len, &len, err);
	if (rc < 0)
		return rc;
	if (len < durable_len)
		return damaged_within(name, len, durable_len, err);
	w->info = *grow_reader_info(r);
	snprintf(w->name, sizeof(w->name), "%s", name);
	grow_closed_tail(r, &w->tail);
	start_batch(w);
	rc = file_open(dir_fd, name, O_RDWR, 0, &w->fd, err);
	if (rc < 0)
		return rc;
	if (ftruncate(w->fd, (off_t)len) < 0)
		return err_set(err, ERR_IO, errno, "cut the torn end of '%s'", name);
	rc = file_datasync(w->fd, name, err);
	if (rc < 0)
		return rc;
	*ret_last = w->last;
	*ret_pos = w->tail.pos;
	*ret = take_ptr(w);
	return 0;
}

int grow_writer_take_fd(struct grow_writer *w)
{
	int fd = w->fd;

	w->fd = -1;
	return fd;
}

static int write_out(struct grow_writer *w, struct err *err)
{
	uint64_t at = w->offset - w->out.len;
	int rc = file_pwrite(w->fd, w->out.data, w->out.len, at, w->name, err);

	if (rc == 0 && w->out.len >= WRITE_BYTES) /* more is to come before the sync */
		file_start_writing(w->fd, at, w->out.len);
	buf_clear(&w->out);
	return rc;
}

static int end_block(struct grow_writer *w, struct err *err)
{
	size_t start = w->out.len;
	uint8_t hash[8];

	if (w->block.len == 0)
		return 0;
	int rc = gz_put_data_alike(w->codec, w->block.data, w->block.len, w->alike, w->n_alike,
	                           &w->out, err);
	if (rc < 0)
		return rc;
	size_t len = w->out.len - start;
	store_le64(hash, hash64(w->out.data + start, len, gz_bind(w->info.id, w->offset)));
	w->offset += len;
	rc = buf_append_varint(&w->members, w->block.len, err);
	if (rc == 0)
		rc = buf_append_varint(&w->members, len, err);
	if (rc == 0)
		rc = buf_append(&w->members, hash, 8, err);
	w->n_members++;
	buf_clear(&w->block);
	if (w->n_alike) /* the frame under way goes on in the next block */
		w->alike[0] = (struct gz_alike){0, w->alike[w->n_alike - 1].distance};
	w->n_alike = w->n_alike > 0;
	if (rc == 0 && w->out.len >= WRITE_BYTES)
		rc = write_out(w, err);
	return rc;
}

static int put_content(struct grow_writer *w, const uint8_t *p, size_t len, struct err *err)
{
	w->content_len += len;
	while (len > 0) {
		size_t n = GROW_BLOCK_BYTES - w->block.len;
		if (n > len)
			n = len;
		int rc = buf_append(&w->block, p, n, err);
		if (rc == 0 && w->block.len == GROW_BLOCK_BYTES)
			rc = end_block(w, err);
		if (rc < 0)
			return rc;
		p += n;
		len -= n;
	}
	return 0;
}

static int put_wal_header(struct grow_writer *w, struct err *err)
{
	uint8_t b[WAL_HEADER_SIZE];
	struct wal_header h = {
	        .page_size = w->info.page_size,
	        .salt1 = w->info.salt1,
	        .salt2 = w->info.salt2,
	};

	wal_header_write(&h, b);
	w->chain = h.cksum;
	return put_content(w, b, sizeof(b), err);
}

/*
 * Where the next frame's page was written before, as near as one deflate stream can tell: under
 * load it is nearly the same again.
 */
static void note_alike(struct grow_writer *w, uint32_t pgno)
{
	size_t frame_bytes = (size_t)wal_frame_size(w->info.page_size), distance = 0;
	size_t reach = GZ_ALIKE_REACH / frame_bytes;

	for (size_t back = 1; back <= reach && back <= w->n_run && !distance; back++)
		if (w->run[w->n_run - back].pgno == pgno)
			distance = back * frame_bytes;
	if (w->n_alike && w->alike[w->n_alike - 1].offset == w->block.len)
		w->n_alike--; /* a block that ended with a frame */
	assert(w->n_alike < ALIKE_MAX);
	w->alike[w->n_alike++] = (struct gz_alike){(uint32_t)w->block.len, (uint32_t)distance};
}

static int need_arrays(struct grow_writer *w, struct err *err)
{
	if (!w->run)
		w->run = malloc(GROW_RUN_FRAMES * sizeof(*w->run));
	if (!w->alike)
		w->alike = malloc(ALIKE_MAX * sizeof(*w->alike));
	if (!w->run || !w->alike)
		return err_set(err, ERR_NOMEM, 0, "no memory for a segment writer");
	return 0;
}

int grow_frame(struct grow_writer *w, uint32_t pgno, uint32_t n_truncate, const void *page,
               struct err *err)
{
	uint8_t b[WAL_FRAME_HEADER_SIZE];
	struct wal_frame_header h = {pgno, n_truncate, w->info.salt1, w->info.salt2, {0, 0}};
	int rc = need_arrays(w, err);

	if (rc == 0 && w->content_len == 0)
		rc = put_wal_header(w, err);
	if (rc < 0)
		return rc;
	note_alike(w, pgno);
	wal_frame_header_write(&h, b);
	wal_cksum_add(&w->chain, b, 8, false);
	wal_cksum_add(&w->chain, page, w->info.page_size, false);
	h.cksum = w->chain;
	wal_frame_header_write(&h, b);
	rc = put_content(w, b, sizeof(b), err);
	if (rc == 0)
		rc = put_content(w, page, w->info.page_size, err);
	if (rc < 0)
		return rc;
	w->n_frames++;
	assert(w->n_run < GROW_RUN_FRAMES); /* a batch that was full was not ended */
	w->run[w->n_run++] = (struct frame_entry){pgno, w->n_frames};
	w->in_commit = true;
	return 0;
}

int grow_commit(struct grow_writer *w, struct commit *c, struct err *err)
{
	/* What a reader would refuse is not written. */
	assert(c->txid == w->last.txid + 1 && c->time_us >= w->last.time_us && c->n_pages > 0);
	c->last_frame = w->n_frames;
	c->n_frames = w->n_frames - w->last.last_frame;
	assert(c->n_frames > 0);
	c->min_pages = c->n_pages < w->last.min_pages ? c->n_pages : w->last.min_pages;
	int rc = commit_put(&w->commits, c, w->n_commits ? &w->last : NULL, err);
	if (rc < 0)
		return rc;
	w->last = *c;
	w->in_commit = false;
	w->n_commits++;
	return 0;
}

bool grow_batch_full(const struct grow_writer *w)
{
	return w->n_run == GROW_RUN_FRAMES;
}

static void put_record_fixed(struct grow_writer *w, const struct source_position *pos, bool closes,
                             uint8_t p[RECORD_FIXED])
{
	const struct grow_tail *t = &w->tail;

	memcpy(p, "aREC", 4);
	store_le32(p + 4, closes ? RECORD_CLOSES : 0);
	store_le64(p + 8, t->n_records);
	store_le64(p + 16, w->offset);
	store_le64(p + 24, t->prev_offset);
	store_le64(p + 32, t->prev_hash);
	store_le64(p + 40, t->content_len);
	store_le64(p + 48, w->n_frames);
	store_le64(p + 56, w->n_members);
	store_le64(p + 64, w->n_commits);
	store_le64(p + 72, w->n_run);
	source_position_put(p + 80, pos);
	store_le32(p + 112, w->chain.s0);
	store_le32(p + 116, w->chain.s1);
	store_le64(p + 120, w->last.txid);
}

int grow_end_batch(struct grow_writer *w, const struct source_position *pos, bool closes,
                   struct err *err)
{
	cleanup_buf struct buf record = BUF_INIT(RECORD_MAX_BYTES);
	uint8_t fixed[RECORD_FIXED], hash[8];

	if (w->n_run == 0 && w->n_commits == 0)
		return 0;
	int rc = end_block(w, err);
	if (rc < 0)
		return rc;
	closes = closes && !w->in_commit;
	put_record_fixed(w, pos, closes, fixed);
	frame_run_sort(w->run, w->n_run);
	rc = buf_append(&record, fixed, sizeof(fixed), err);
	if (rc == 0)
		rc = buf_append(&record, w->members.data, w->members.len, err);
	if (rc == 0)
		rc = buf_append(&record, w->commits.data, w->commits.len, err);
	if (rc == 0)
		rc = frame_run_put(&record, w->run, w->n_run, err);
	if (rc < 0)
		return rc;
	uint64_t h = hash64(record.data, record.len, gz_bind(w->info.id, w->offset));
	store_le64(hash, h);
	rc = buf_append(&record, hash, 8, err);
	size_t before = w->out.len;
	if (rc == 0)
		rc = gz_put_blob(GZ_RECORD, record.data, record.len, &w->out, err);
	if (rc < 0)
		return rc;

	uint64_t record_offset = w->offset;
	w->offset += w->out.len - before;
	rc = write_out(w, err);
	if (rc < 0)
		return rc;
	w->tail.n_records++;
	w->tail.prev_offset = record_offset;
	w->tail.prev_hash = h;
	w->tail.length = w->offset;
	w->tail.content_len = w->content_len;
	if (closes)
		w->closed_length = w->offset;
	buf_clear(&w->members);
	buf_clear(&w->commits);
	w->n_members = w->n_commits = 0;
	w->n_run = 0;
	return 0;
}

int grow_sync(struct grow_writer *w, bool keep_cached, struct err *err)
{
	int rc = file_datasync(w->fd, w->name, err);

	if (rc == 0 && !keep_cached && w->tail.length - w->dropped >= DROP_BYTES) {
		file_drop_cached(w->fd, w->dropped, w->tail.length - w->dropped);
		w->dropped = w->tail.length & ~(uint64_t)0xffff; /* a page that both share */
	}
	return rc;
}

uint64_t grow_length(const struct grow_writer *w)
{
	return w->closed_length;
}

uint64_t grow_content_len(const struct grow_writer *w)
{
	return w->content_len;
}

uint64_t grow_frames(const struct grow_writer *w)
{
	return w->n_frames;
}

const struct grow_info *grow_writer_info(const struct grow_writer *w)
{
	return &w->info;
}

void grow_rest(struct grow_writer *w)
{
	if (w->n_run || w->n_commits || w->block.len || w->out.len)
		return;
	buf_release(&w->block);
	buf_release(&w->out);
	buf_release(&w->members);
	buf_release(&w->commits);
	free(take_ptr(w->run));
	free(take_ptr(w->alike));
	w->n_alike = 0;
}

void grow_writer_free(struct grow_writer *w)
{
	if (!w)
		return;
	if (w->fd >= 0)
		close(w->fd);
	gz_codec_free(w->codec);
	buf_release(&w->block);
	buf_release(&w->out);
	buf_release(&w->members);
	buf_release(&w->commits);
	free(w->run);
	free(w->alike);
	free(w);
}
