/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/archive/commit_list.h"
#include "engine/archive/grow_i.h"
#include "engine/archive/runs.h"
#include "engine/base/array.h"

#include <pthread.h>

struct member {
	uint64_t content_offset, offset, len, hash;
};

struct grow_reader {
	struct source *src;
	struct cache *cache;
	struct grow_info info;
	uint64_t header_hash;
	pthread_rwlock_t lock;   /* all below */
	struct grow_tail tail;   /* behind the last record read */
	struct grow_tail closed; /* behind the last record that closes a commit */
	struct member *members;
	size_t n_members, cap_members;
	struct commit_list commits;
	size_t n_closed; /* commits up to the last record that closes */
	struct frame_runs runs;
};

static int damaged(const struct grow_reader *r, struct err *err, uint64_t offset, const char *what)
{
	return err_set(err, ERR_DAMAGED, 0, "'%s' is damaged at byte %llu: %s", r->src->name,
	               (unsigned long long)offset, what);
}

int grow_open(struct source *src, struct cache *cache, struct grow_reader **ret, struct err *err)
{
	uint8_t raw[4096]; /* a newer version's header, too, is to be told */
	uint64_t hash, len;
	struct grow_info info;

	int rc = src->size(src, &len, err);
	len = rc == 0 && len < sizeof(raw) ? len : sizeof(raw);
	if (rc == 0)
		rc = src->pread(src, raw, (size_t)len, 0, err);
	if (rc == 0)
		rc = grow_header_get(raw, (size_t)len, src->name, &info, &hash, err);
	if (rc < 0)
		return rc;
	struct grow_reader *r = calloc(1, sizeof(*r));
	if (!r)
		return err_set(err, ERR_NOMEM, 0, "no memory to open '%s'", src->name);
	r->src = src;
	r->cache = cache;
	r->info = info;
	pthread_rwlock_init(&r->lock, NULL);
	r->header_hash = hash;
	grow_tail_init(&r->tail, &info, hash);
	r->closed = r->tail;
	*ret = r;
	return 0;
}

void grow_free(struct grow_reader *r)
{
	if (!r)
		return;
	source_free(r->src);
	pthread_rwlock_destroy(&r->lock);
	free(r->members);
	commit_list_release(&r->commits);
	frame_runs_release(&r->runs);
	free(r);
}

/* A record on its way in: fixed part decoded, counts bounded by the bytes that are there. */
struct record {
	uint64_t offset, stored_len, hash;
	uint32_t flags;
	uint64_t n_frames, n_members, n_commits, n_run, last_txid;
	struct wal_cksum chain;
	struct source_position pos;
	struct cursor rest;
};

static int parse_record(const struct grow_reader *r, const struct buf *b, struct record *rec,
                        struct err *err)
{
	const struct grow_tail *t = &r->tail;
	const uint8_t *p = b->data;

	if (b->len < RECORD_FIXED + 8 || memcmp(p, "aREC", 4) != 0)
		return damaged(r, err, rec->offset, "no record");
	rec->hash = load_le64(p + b->len - 8);
	if (rec->hash != hash64(p, b->len - 8, gz_bind(r->info.id, rec->offset)))
		return damaged(r, err, rec->offset, "a record does not match its hash");
	if (load_le64(p + 8) != t->n_records || load_le64(p + 16) != rec->offset ||
	    load_le64(p + 24) != t->prev_offset || load_le64(p + 32) != t->prev_hash ||
	    load_le64(p + 40) != t->content_len)
		return damaged(r, err, rec->offset, "a record does not follow the one before it");
	rec->flags = load_le32(p + 4);
	rec->n_frames = load_le64(p + 48);
	rec->n_members = load_le64(p + 56);
	rec->n_commits = load_le64(p + 64);
	rec->n_run = load_le64(p + 72);
	rec->pos = source_position_get(p + 80);
	rec->chain = (struct wal_cksum){load_le32(p + 112), load_le32(p + 116)};
	rec->last_txid = load_le64(p + 120);
	rec->rest = cursor_init(p + RECORD_FIXED, b->len - RECORD_FIXED - 8);
	size_t left = cursor_left(&rec->rest);
	if (rec->n_frames < t->n_frames || rec->n_run != rec->n_frames - t->n_frames ||
	    rec->n_members > left / 10 || rec->n_commits > left / 5 || rec->n_run > left / 2 ||
	    (rec->flags & ~RECORD_CLOSES) != 0)
		return damaged(r, err, rec->offset, "a record has a wrong count");
	return 0;
}

static int take_members(struct grow_reader *r, struct record *rec, uint64_t data_offset,
                        struct grow_tail *next, struct err *err)
{
	int rc = array_reserve(r->members, r->n_members, r->cap_members, (size_t)rec->n_members,
	                       "a segment's index", err);
	if (rc < 0)
		return rc;
	for (uint64_t i = 0; i < rec->n_members; i++) {
		uint64_t content = cursor_varint(&rec->rest);
		uint64_t len = cursor_varint(&rec->rest);
		r->members[r->n_members + i] = (struct member){next->content_len, data_offset, len,
		                                               cursor_le64(&rec->rest)};
		if (content == 0 || content > GROW_BLOCK_BYTES || len > rec->offset - data_offset)
			return damaged(r, err, rec->offset, "a record has a wrong length");
		next->content_len += content;
		data_offset += len;
	}
	if (data_offset != rec->offset)
		return damaged(r, err, rec->offset, "a record does not cover its data");
	return 0;
}

static int take_commits(struct grow_reader *r, struct record *rec, struct grow_tail *next,
                        struct err *err)
{
	int rc = 0;

	for (uint64_t i = 0; i < rec->n_commits && rc == 0; i++) {
		struct commit before = next->last;
		if (i == 0)
			before.time_us = 0;
		commit_get(&rec->rest, &before, &next->last);
		if (next->last.time_us < r->tail.last.time_us)
			rec->rest.bad = true;
		if (rec->rest.bad)
			break;
		rc = commit_list_add(&r->commits, &next->last, err);
	}
	if (rc < 0)
		return rc;
	if (!cursor_ok(&rec->rest) || next->last.txid != rec->last_txid ||
	    next->last.last_frame > rec->n_frames ||
	    ((rec->flags & RECORD_CLOSES) && next->last.last_frame != rec->n_frames))
		return damaged(r, err, rec->offset, "a record's commits are not as written");
	return 0;
}

static int take_run(struct grow_reader *r, struct record *rec, struct err *err)
{
	size_t n = (size_t)rec->n_run;
	cleanup_free struct frame_entry *e = malloc((n ? n : 1) * sizeof(*e));

	if (!e)
		return err_set(err, ERR_NOMEM, 0, "no memory for a segment's index");
	if (!frame_run_get(&rec->rest, e, n, rec->n_frames) || cursor_left(&rec->rest) != 0)
		return damaged(r, err, rec->offset, "a record's page index is not as written");
	for (size_t i = 0; i < n; i++)
		if (e[i].frame <= r->tail.n_frames)
			return damaged(r, err, rec->offset,
			               "a record's page index tells of older frames");
	return frame_runs_add(&r->runs, e, n, err);
}

/* The stored bytes of the record's data members, against what it tells of them. */
static int verify_members(struct grow_reader *r, const struct record *rec, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT(SIZE_MAX / 2);

	for (uint64_t i = 0; i < rec->n_members; i++) {
		const struct member *m = &r->members[r->n_members + i];
		int rc = buf_reserve(&b, (size_t)m->len, err);
		if (rc == 0)
			rc = r->src->pread(r->src, b.data, (size_t)m->len, m->offset, err);
		if (rc < 0)
			return rc;
		if (hash64(b.data, (size_t)m->len, gz_bind(r->info.id, m->offset)) != m->hash)
			return damaged(r, err, m->offset, "bytes do not match their hash");
	}
	return 0;
}

/* Records that end behind `verify_from` count only when their data is whole. */
static int take_record(struct grow_reader *r, struct record *rec, uint64_t data_offset,
                       uint64_t verify_from, struct err *err)
{
	struct grow_tail next = r->tail;
	size_t n_commits = r->commits.n;

	int rc = take_members(r, rec, data_offset, &next, err);
	if (rc == 0 && rec->offset + rec->stored_len > verify_from)
		rc = verify_members(r, rec, err);
	if (rc == 0)
		rc = take_commits(r, rec, &next, err);
	if (rc == 0 &&
	    next.content_len != WAL_HEADER_SIZE + rec->n_frames * wal_frame_size(r->info.page_size))
		rc = damaged(r, err, rec->offset, "a record's frames do not fill its data");
	if (rc == 0)
		rc = take_run(r, rec, err);
	if (rc < 0) {
		commit_list_cut(&r->commits, n_commits);
		return rc;
	}
	r->n_members += (size_t)rec->n_members;
	next.n_records++;
	next.prev_offset = rec->offset;
	next.prev_hash = rec->hash;
	next.length = rec->offset + rec->stored_len;
	next.n_frames = rec->n_frames;
	next.last_txid = rec->last_txid;
	next.chain = rec->chain;
	next.pos = rec->pos;
	r->tail = next;
	if (rec->flags & RECORD_CLOSES) {
		r->closed = next;
		r->n_closed = r->commits.n;
	}
	return 0;
}

/* A window on the file, so that walking members is not a read(2) each. */
struct window {
	uint8_t *data;
	uint64_t offset;
	size_t len, cap;
	size_t fill; /* how much is read at once */
};
/* Small batches are walked in large reads; large data members are hopped over, not read. */
#define WINDOW_BYTES (256u << 10)
#define HOP_BYTES 4096u
#define HOP_MEMBER_BYTES (16u << 10)

/* `len` bytes at `offset`, or ERR_DAMAGED when they lie behind `end`. */
static int window_at(struct grow_reader *r, struct window *w, uint64_t offset, size_t len,
                     uint64_t end, const uint8_t **ret, struct err *err)
{
	if (offset > end || len > end - offset)
		return damaged(r, err, offset, "it ends inside a batch");
	if (offset < w->offset || offset + len > w->offset + w->len) {
		size_t want = len > w->fill ? len : w->fill;
		if (want > end - offset)
			want = (size_t)(end - offset);
		w->len = 0;
		int rc = array_reserve(w->data, 0, w->cap, want, "a segment's records", err);
		if (rc == 0)
			rc = r->src->pread(r->src, w->data, want, offset, err);
		if (rc < 0)
			return rc;
		w->offset = offset;
		w->len = want;
	}
	*ret = w->data + (offset - w->offset);
	return 0;
}

/* Finds the extent of the record that begins at `offset`: a blob of 'R' members. */
static int record_extent(struct grow_reader *r, struct window *w, uint64_t offset, uint64_t end,
                         uint64_t *ret_len, struct err *err)
{
	uint64_t at = offset, len = 0;
	enum gz_kind kind = GZ_RECORD;

	while (at < end) {
		const uint8_t *p;
		int rc = window_at(r, w, at, GZ_PAYLOAD_OFFSET + 8, end, &p, err);
		if (rc < 0)
			return rc;
		rc = gz_peek(p, GZ_PAYLOAD_OFFSET + 8, &kind, &len, err);
		if (rc < 0 || kind != GZ_RECORD)
			return damaged(r, err, at, "no record member");
		at += len;
		if (len < GZ_CHUNK_MAX + GZ_META_OVERHEAD || at - offset > RECORD_MAX_BYTES)
			break; /* a short member is a blob's last */
	}
	*ret_len = at - offset;
	return at > end ? damaged(r, err, offset, "it ends inside a record") : 0;
}

static int next_record(struct grow_reader *r, struct window *w, uint64_t end, uint64_t verify_from,
                       struct err *err)
{
	uint64_t at = r->tail.length, len;
	enum gz_kind kind;
	const uint8_t *p;
	struct err why = ERR_INIT;

	w->fill = WINDOW_BYTES;
	for (;;) { /* hop over the data */
		int rc = window_at(r, w, at, GZ_PAYLOAD_OFFSET + 8, end, &p, err);
		if (rc < 0)
			return rc;
		if (gz_peek(p, GZ_PAYLOAD_OFFSET + 8, &kind, &len, &why) < 0)
			return damaged(r, err, at, why.msg);
		if (kind != GZ_DATA)
			break;
		if (len > end - at)
			return damaged(r, err, at, "it ends inside a data member");
		at += len;
		w->fill = len >= HOP_MEMBER_BYTES ? HOP_BYTES : WINDOW_BYTES;
	}
	w->fill = WINDOW_BYTES;
	struct record rec = {.offset = at};
	cleanup_buf struct buf b = BUF_INIT(RECORD_MAX_BYTES);
	int rc = record_extent(r, w, at, end, &rec.stored_len, err);
	if (rc == 0)
		rc = window_at(r, w, at, (size_t)rec.stored_len, end, &p, err);
	if (rc < 0)
		return rc;
	if (gz_get_blob(GZ_RECORD, p, (size_t)rec.stored_len, &b, &why) < 0)
		return damaged(r, err, at, why.msg);
	rc = parse_record(r, &b, &rec, err);
	return rc < 0 ? rc : take_record(r, &rec, r->tail.length, verify_from, err);
}

int grow_refresh(struct grow_reader *r, uint64_t durable_len, struct err *err)
{
	struct window w = {0};
	int rc = 0;

	pthread_rwlock_wrlock(&r->lock);
	while (rc == 0 && r->tail.length < durable_len)
		rc = next_record(r, &w, durable_len, UINT64_MAX, err);
	pthread_rwlock_unlock(&r->lock);
	free(w.data);
	return rc;
}

/* Forgets everything, and takes in again what ends with the last record that closes: what its
 * writer left behind that will be cut, and something else will stand there. */
static int forget_open_end(struct grow_reader *r, struct window *w, struct err *err)
{
	uint64_t end = r->closed.length;
	int rc = 0;

	grow_tail_init(&r->tail, &r->info, r->header_hash);
	r->closed = r->tail;
	r->n_members = r->n_closed = 0;
	commit_list_cut(&r->commits, 0);
	frame_runs_release(&r->runs);
	while (rc == 0 && r->tail.length < end)
		rc = next_record(r, w, end, UINT64_MAX, err);
	return rc;
}

int grow_recover(struct grow_reader *r, uint64_t durable_len, uint64_t *ret_len, struct err *err)
{
	struct window w = {0};
	struct err why = ERR_INIT;
	uint64_t size;

	int rc = r->src->size(r->src, &size, err);
	if (rc < 0)
		return rc;
	pthread_rwlock_wrlock(&r->lock);
	while (rc == 0 && r->tail.length < size)
		rc = next_record(r, &w, size, durable_len, &why);
	if ((rc == 0 || why.kind == ERR_DAMAGED) && r->tail.length != r->closed.length) {
		why = (struct err)ERR_INIT;
		rc = forget_open_end(r, &w, &why);
	} else if (why.kind == ERR_DAMAGED) {
		rc = 0;
	}
	*ret_len = r->closed.length;
	pthread_rwlock_unlock(&r->lock);
	free(w.data);
	return rc < 0 ? err_copy(err, &why) : 0;
}

int grow_refresh_all(struct grow_reader *r, uint64_t *ret_len, struct err *err)
{
	return grow_recover(r, UINT64_MAX, ret_len, err);
}

const struct grow_info *grow_reader_info(const struct grow_reader *r)
{
	return &r->info;
}

void grow_expect(struct grow_reader *r, enum source_use use)
{
	source_expect(r->src, use);
}

const char *grow_name(const struct grow_reader *r)
{
	return r->src->name;
}

uint64_t grow_n_commits(struct grow_reader *r)
{
	pthread_rwlock_rdlock(&r->lock);
	uint64_t n = r->n_closed;
	pthread_rwlock_unlock(&r->lock);
	return n;
}

bool grow_get_commit(struct grow_reader *r, uint64_t i, struct commit *ret)
{
	pthread_rwlock_rdlock(&r->lock);
	bool ok = i < r->n_closed;
	if (ok)
		*ret = commit_list_get(&r->commits, (size_t)i);
	pthread_rwlock_unlock(&r->lock);
	return ok;
}

uint64_t grow_commits_until(struct grow_reader *r, int64_t time_us)
{
	pthread_rwlock_rdlock(&r->lock);
	size_t n = commit_list_until(&r->commits, r->n_closed, time_us);
	pthread_rwlock_unlock(&r->lock);
	return n;
}

uint64_t grow_find_frame(struct grow_reader *r, uint32_t pgno, uint64_t max_frame)
{
	pthread_rwlock_rdlock(&r->lock);
	uint64_t f = frame_runs_find(&r->runs, pgno, max_frame);
	pthread_rwlock_unlock(&r->lock);
	return f;
}

int grow_add_pages(struct grow_reader *r, uint64_t max_frame, uint32_t max_pgno,
                   struct bitset *pages, struct err *err)
{
	pthread_rwlock_rdlock(&r->lock);
	int rc = frame_runs_pages(&r->runs, max_frame, max_pgno, pages, err);
	pthread_rwlock_unlock(&r->lock);
	return rc;
}

void grow_position(struct grow_reader *r, struct source_position *ret)
{
	pthread_rwlock_rdlock(&r->lock);
	*ret = r->closed.pos;
	pthread_rwlock_unlock(&r->lock);
}

void grow_closed_tail(struct grow_reader *r, struct grow_tail *ret)
{
	pthread_rwlock_rdlock(&r->lock);
	*ret = r->closed;
	pthread_rwlock_unlock(&r->lock);
}

struct member_load {
	struct grow_reader *r;
	struct member m;
	size_t content_len;
};

static int check_member(void *ctx, const uint8_t *raw, size_t len, struct err *err)
{
	const struct member_load *l = ctx;

	if (hash64(raw, len, gz_bind(l->r->info.id, l->m.offset)) != l->m.hash)
		return damaged(l->r, err, l->m.offset, "bytes do not match their hash");
	return 0;
}

static int load_member(void *ctx, void **ret_data, size_t *ret_len, struct err *err)
{
	struct member_load *l = ctx;
	struct grow_reader *r = l->r;
	struct err why = ERR_INIT;
	cleanup_free uint8_t *raw = malloc((size_t)l->m.len), *content = malloc(l->content_len);

	if (!raw || !content)
		return err_set(err, ERR_NOMEM, 0, "no memory to read '%s'", r->src->name);
	int rc = source_read_checked(r->src, raw, (size_t)l->m.len, l->m.offset, check_member, l,
	                             err);
	if (rc < 0)
		return rc;
	if (gz_get_data(raw, (size_t)l->m.len, content, l->content_len, &why) < 0)
		return damaged(r, err, l->m.offset, why.msg);
	*ret_data = take_ptr(content);
	*ret_len = l->content_len;
	return 0;
}

/* The member that holds content byte `offset`, and its content length. */
static int find_member(struct grow_reader *r, uint64_t offset, struct member_load *ret,
                       struct err *err)
{
	int rc = 0;

	pthread_rwlock_rdlock(&r->lock);
	size_t lo = 0, hi = r->n_members;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (r->members[mid].content_offset <= offset)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo == 0 || offset >= r->tail.content_len) {
		rc = damaged(r, err, 0, "content past the end was asked for");
	} else {
		uint64_t end =
		        lo < r->n_members ? r->members[lo].content_offset : r->tail.content_len;
		ret->r = r;
		ret->m = r->members[lo - 1];
		ret->content_len = (size_t)(end - ret->m.content_offset);
	}
	pthread_rwlock_unlock(&r->lock);
	return rc;
}

int grow_read_content(struct grow_reader *r, uint64_t offset, void *buf, size_t len,
                      struct err *err)
{
	uint8_t *out = buf;

	while (len > 0) {
		struct member_load l;
		cleanup_cache_entry struct cache_entry *e = NULL;
		int rc = find_member(r, offset, &l, err);
		if (rc == 0)
			rc = cache_get(r->cache, (struct cache_key){r->info.id, l.m.offset},
			               load_member, &l, &e, err);
		if (rc < 0)
			return rc;
		size_t in = (size_t)(offset - l.m.content_offset);
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
