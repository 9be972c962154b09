/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/archive/sealed.h"
#include "engine/sqlite/format.h"

struct commit_leaf {
	uint64_t txid_before, frames_before;
	int64_t first_us;
	struct pack_ref ref;
};

struct index_leaf {
	struct frame_entry first;
	struct pack_ref ref;
};

struct sealed {
	struct pack *pack;
	struct sealed_info info;
	struct commit_leaf *commits;
	size_t n_commit_leaves;
	struct index_leaf *index;
	size_t n_index_leaves;
	uint64_t n_commits;
};

static int damaged(const struct sealed *s, struct err *err, const char *what)
{
	return err_set(err, ERR_DAMAGED, 0, "'%s' is damaged: %s", pack_name(s->pack), what);
}

static int read_meta(struct sealed *s, struct err *err)
{
	const uint8_t *m = pack_meta(s->pack);
	struct sealed_info *i = &s->info;

	*i = (struct sealed_info){
	        .kind = (enum sealed_kind)load_le32(m),
	        .page_size = load_le32(m + 4),
	        .lineage = load_le32(m + 8),
	        .salt1 = load_le32(m + 12),
	        .salt2 = load_le32(m + 16),
	        .min_pages = load_le32(m + 20),
	        .last_pages = load_le32(m + 24),
	        .first_txid = load_le64(m + 32),
	        .last_txid = load_le64(m + 40),
	        .first_us = (int64_t)load_le64(m + 48),
	        .last_us = (int64_t)load_le64(m + 56),
	        .n_frames = load_le64(m + 64),
	        .pos = source_position_get(m + 72),
	};
	if ((i->kind != SEALED_SEGMENT && i->kind != SEALED_COALESCED) ||
	    !page_size_valid(i->page_size) || i->first_txid == 0 || i->last_txid < i->first_txid ||
	    i->n_frames == 0 || i->n_frames > pack_size(s->pack) / wal_frame_size(i->page_size) ||
	    pack_size(s->pack) != WAL_HEADER_SIZE + i->n_frames * wal_frame_size(i->page_size))
		return damaged(s, err, "its trailer describes no segment");
	/* Each commit has a frame at least, so that no count grows past what is there. */
	if (i->kind == SEALED_SEGMENT && i->last_txid - i->first_txid >= i->n_frames)
		return damaged(s, err, "its trailer tells of more commits than frames");
	s->n_commits = i->kind == SEALED_COALESCED ? 1 : i->last_txid - i->first_txid + 1;
	return 0;
}

static int read_tops(struct sealed *s, struct err *err)
{
	struct cursor c = pack_top(s->pack);
	uint64_t n = cursor_varint(&c);

	if (n > cursor_left(&c) / 34)
		return damaged(s, err, "a wrong count of commit leaves");
	s->commits = calloc(n + 1, sizeof(*s->commits));
	s->n_commit_leaves = (size_t)n;
	for (size_t i = 0; s->commits && i < n; i++) {
		s->commits[i].txid_before = cursor_varint(&c);
		s->commits[i].frames_before = cursor_varint(&c);
		s->commits[i].first_us = (int64_t)cursor_le64(&c);
		s->commits[i].ref = pack_ref_get(&c);
	}
	n = cursor_varint(&c);
	if (n > cursor_left(&c) / 26)
		return damaged(s, err, "a wrong count of index leaves");
	s->index = calloc(n + 1, sizeof(*s->index));
	s->n_index_leaves = (size_t)n;
	for (size_t i = 0; s->index && i < n; i++) {
		s->index[i].first.pgno = (uint32_t)cursor_varint(&c);
		s->index[i].first.frame = cursor_varint(&c);
		s->index[i].ref = pack_ref_get(&c);
	}
	if (!s->commits || !s->index)
		return err_set(err, ERR_NOMEM, 0, "no memory to open '%s'", pack_name(s->pack));
	if (!cursor_ok(&c) || cursor_left(&c) != 0 ||
	    s->n_commit_leaves != (s->n_commits + COMMITS_PER_LEAF - 1) / COMMITS_PER_LEAF ||
	    s->n_index_leaves != (s->info.n_frames + ENTRIES_PER_LEAF - 1) / ENTRIES_PER_LEAF)
		return damaged(s, err, "its index is not as written");
	return 0;
}

int sealed_open(struct source *src, struct cache *cache, struct sealed **ret, struct err *err)
{
	cleanup_sealed struct sealed *s = calloc(1, sizeof(*s));

	if (!s) {
		source_free(src);
		return err_set(err, ERR_NOMEM, 0, "no memory to open a segment");
	}
	int rc = pack_open(src, cache, &s->pack, err);
	if (rc < 0) {
		source_free(src);
		return rc;
	}
	rc = read_meta(s, err);
	if (rc == 0)
		rc = read_tops(s, err);
	if (rc == 0)
		*ret = take_ptr(s);
	return rc;
}

void sealed_free(struct sealed *s)
{
	if (!s)
		return;
	pack_free(s->pack);
	free(s->commits);
	free(s->index);
	free(s);
}

const struct sealed_info *sealed_get_info(const struct sealed *s)
{
	return &s->info;
}

const char *sealed_name(const struct sealed *s)
{
	return pack_name(s->pack);
}

uint64_t sealed_n_commits(const struct sealed *s)
{
	return s->n_commits;
}

struct pack *sealed_pack(struct sealed *s)
{
	return s->pack;
}

/* A decoded commit leaf is an array of struct commit. */
static int decode_commits(const uint8_t *p, size_t len, void **ret, size_t *ret_len,
                          struct err *err)
{
	struct cursor c = cursor_init(p, len);
	struct commit before = {0};
	uint64_t n = cursor_varint(&c);

	before.txid = cursor_varint(&c);
	before.last_frame = cursor_varint(&c);
	uint64_t min = cursor_varint(&c);
	before.min_pages = min == 0 || min > UINT32_MAX ? UINT32_MAX : (uint32_t)min;
	if (!cursor_ok(&c) || n == 0 || n > COMMITS_PER_LEAF)
		return err_set(err, ERR_DAMAGED, 0, "a commit leaf has a wrong count");
	struct commit *out = calloc(n, sizeof(*out));
	if (!out)
		return err_set(err, ERR_NOMEM, 0, "no memory for a commit leaf");
	for (uint64_t i = 0; i < n; i++) {
		commit_get(&c, &before, &out[i]);
		before = out[i];
	}
	if (!cursor_ok(&c) || cursor_left(&c) != 0) {
		free(out);
		return err_set(err, ERR_DAMAGED, 0, "a commit leaf is not as written");
	}
	*ret = out;
	*ret_len = n * sizeof(*out);
	return 0;
}

int sealed_get_commit(struct sealed *s, uint64_t i, struct commit *ret, struct err *err)
{
	cleanup_cache_entry struct cache_entry *e = NULL;

	if (i >= s->n_commits)
		return err_set(err, ERR_NOT_FOUND, 0, "'%s' has no such commit", sealed_name(s));
	int rc = pack_get_leaf(s->pack, &s->commits[i / COMMITS_PER_LEAF].ref, decode_commits, &e,
	                       err);
	if (rc < 0)
		return rc;
	size_t in = (size_t)(i % COMMITS_PER_LEAF);
	if (in >= cache_len(e) / sizeof(*ret))
		return damaged(s, err, "a commit leaf is too short");
	*ret = ((const struct commit *)cache_data(e))[in];
	return 0;
}

int sealed_commits_until(struct sealed *s, int64_t time_us, uint64_t *ret, struct err *err)
{
	cleanup_cache_entry struct cache_entry *e = NULL;
	size_t lo = 0, hi = s->n_commit_leaves;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (s->commits[mid].first_us <= time_us)
			lo = mid + 1;
		else
			hi = mid;
	}
	*ret = 0;
	if (lo == 0)
		return 0;
	int rc = pack_get_leaf(s->pack, &s->commits[lo - 1].ref, decode_commits, &e, err);
	if (rc < 0)
		return rc;
	const struct commit *c = cache_data(e);
	size_t a = 0, b = cache_len(e) / sizeof(*c);
	while (a < b) {
		size_t mid = a + (b - a) / 2;
		if (c[mid].time_us <= time_us)
			a = mid + 1;
		else
			b = mid;
	}
	*ret = (uint64_t)(lo - 1) * COMMITS_PER_LEAF + a;
	return 0;
}

/* A decoded index leaf is an array of struct frame_entry. */
static int decode_entries(const uint8_t *p, size_t len, void **ret, size_t *ret_len,
                          struct err *err)
{
	struct cursor c = cursor_init(p, len);
	uint64_t n = cursor_varint(&c);
	uint64_t max_frame = cursor_varint(&c);

	if (!cursor_ok(&c) || n == 0 || n > ENTRIES_PER_LEAF)
		return err_set(err, ERR_DAMAGED, 0, "an index leaf has a wrong count");
	struct frame_entry *out = calloc(n, sizeof(*out));
	if (!out)
		return err_set(err, ERR_NOMEM, 0, "no memory for an index leaf");
	if (!frame_run_get(&c, out, (size_t)n, max_frame) || cursor_left(&c) != 0) {
		free(out);
		return err_set(err, ERR_DAMAGED, 0, "an index leaf is not as written");
	}
	*ret = out;
	*ret_len = n * sizeof(*out);
	return 0;
}

int sealed_find_frame(struct sealed *s, uint32_t pgno, uint64_t max_frame, uint64_t *ret,
                      struct err *err)
{
	cleanup_cache_entry struct cache_entry *e = NULL;
	size_t lo = 0, hi = s->n_index_leaves;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		const struct frame_entry *f = &s->index[mid].first;
		if (f->pgno < pgno || (f->pgno == pgno && f->frame <= max_frame))
			lo = mid + 1;
		else
			hi = mid;
	}
	*ret = 0;
	if (lo == 0)
		return 0;
	int rc = pack_get_leaf(s->pack, &s->index[lo - 1].ref, decode_entries, &e, err);
	if (rc < 0)
		return rc;
	const struct frame_entry *f = cache_data(e);
	size_t at = frame_run_find(f, cache_len(e) / sizeof(*f), pgno, max_frame);
	if (at != SIZE_MAX && f[at].pgno == pgno) {
		if (f[at].frame > s->info.n_frames)
			return damaged(s, err, "its index points past its frames");
		*ret = f[at].frame;
	}
	return 0;
}

int sealed_get_entry(struct sealed *s, uint64_t i, struct frame_entry *ret, struct err *err)
{
	cleanup_cache_entry struct cache_entry *e = NULL;

	if (i >= s->info.n_frames)
		return err_set(err, ERR_NOT_FOUND, 0, "'%s' has no more entries", sealed_name(s));
	int rc = pack_get_leaf(s->pack, &s->index[i / ENTRIES_PER_LEAF].ref, decode_entries, &e,
	                       err);
	if (rc < 0)
		return rc;
	size_t in = (size_t)(i % ENTRIES_PER_LEAF);
	if (in >= cache_len(e) / sizeof(*ret))
		return damaged(s, err, "an index leaf is too short");
	*ret = ((const struct frame_entry *)cache_data(e))[in];
	return 0;
}

int sealed_read_content(struct sealed *s, uint64_t offset, void *buf, size_t len, struct err *err)
{
	return pack_read(s->pack, offset, buf, len, err);
}
