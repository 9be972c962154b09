/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames to commits, to the growing segment, to page hashes and state checksum.
 *
 *   (1) A commit's txid is the last one's plus one, its time max(observed, last + 1 us).
 *   (2) Every page of (old size, new size] but the lock page must be among a commit's frames.
 *       Where one is missing the commit is marked unsettled, and a break is asked for.
 *   (3) Page hashes of a group wait in the overlay until its fsync succeeded, so that a group
 *       that failed can be taken back and written again.
 */
#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/base/log.h"
#include "engine/daemon/recorder_i.h"

#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>

#define SEGMENT_AGE_US (3600 * US_PER_SECOND)

int overlay_set(struct overlay *o, uint32_t pgno, struct hash128 h, struct err *err)
{
	if (2 * (o->used + 1) > o->n_slots) {
		struct overlay bigger = {.n_slots = o->n_slots ? 2 * o->n_slots : 1024};
		bigger.slots = calloc(bigger.n_slots, sizeof(*bigger.slots));
		if (!bigger.slots)
			return err_set(err, ERR_NOMEM, 0, "no memory for page hashes");
		for (size_t i = 0; i < o->n_slots; i++)
			if (o->slots[i].pgno &&
			    overlay_set(&bigger, o->slots[i].pgno, o->slots[i].hash, err) < 0)
				abort(); /* half empty by construction */
		free(o->slots);
		bigger.max_pgno = o->max_pgno;
		*o = bigger;
	}
	size_t i = (pgno * 2654435761u) & (o->n_slots - 1);
	while (o->slots[i].pgno && o->slots[i].pgno != pgno)
		i = (i + 1) & (o->n_slots - 1);
	if (!o->slots[i].pgno)
		o->used++;
	o->slots[i] = (struct overlay_slot){pgno, h};
	if (pgno > o->max_pgno)
		o->max_pgno = pgno;
	return 0;
}

bool overlay_get(const struct overlay *o, uint32_t pgno, struct hash128 *ret)
{
	if (o->n_slots == 0)
		return false;
	size_t i = (pgno * 2654435761u) & (o->n_slots - 1);
	while (o->slots[i].pgno) {
		if (o->slots[i].pgno == pgno) {
			*ret = o->slots[i].hash;
			return true;
		}
		i = (i + 1) & (o->n_slots - 1);
	}
	return false;
}

void overlay_clear(struct overlay *o)
{
	if (o->n_slots > 65536) { /* a giant commit is over */
		free(o->slots);
		*o = (struct overlay){0};
	} else if (o->used) {
		memset(o->slots, 0, o->n_slots * sizeof(*o->slots));
	}
	o->used = 0;
	o->max_pgno = 0;
}

void overlay_release(struct overlay *o)
{
	if (o->used)
		return;
	free(o->slots);
	*o = (struct overlay){0};
}

struct hash128 encode_hash(struct recorder *r, uint32_t pgno)
{
	struct hash128 h;
	return overlay_get(&r->overlay, pgno, &h) ? h : page_table_get(r->table, pgno);
}

static int set_hash(struct recorder *r, uint32_t pgno, struct hash128 h, struct err *err)
{
	if (r->settled) {
		state_sub(&r->state, encode_hash(r, pgno));
		state_add(&r->state, h);
	}
	return overlay_set(&r->overlay, pgno, h, err);
}

static int create_segment(struct recorder *r, struct err *err)
{
	return grow_create(r->segment_fd, r->lineage, r->last.txid + 1, r->page_size, r->level,
	                   &r->w, err);
}

/* What a try before has left that failed, and could not be removed: the disk took nothing then.  The
 * name is ours alone, as the lock is. */
static bool remove_begun(struct recorder *r)
{
	const struct object_name n = {
	        .type = OBJECT_GROWING, .lineage = r->lineage, .first_txid = r->last.txid + 1};
	char name[OBJECT_NAME_MAX];
	struct stat st;

	object_name_format(&n, name);
	return fstatat(r->segment_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	       st.st_size <= (off_t)EMPTY_SEGMENT_BYTES && unlinkat(r->segment_fd, name, 0) == 0;
}

static int open_segment(struct recorder *r, struct err *err)
{
	int rc = create_segment(r, err);

	if (err_kind_of(rc) == ERR_EXISTS && remove_begun(r))
		rc = create_segment(r, err);
	if (rc < 0)
		return rc;
	r->last.last_frame = 0;
	r->growing_txid = r->last.txid + 1;
	r->segment_began_us = clock_now_us();
	r->durable_len = grow_length(r->w);
	return recorder_publish(r, true, err);
}

/* Invariant (2).  Only where the old size is known. */
static bool growth_complete(struct recorder *r, uint32_t n_pages, uint32_t *ret_missing)
{
	for (uint32_t p = r->last.n_pages + 1; p != 0 && p <= n_pages; p++) {
		if (p != lock_page(r->page_size) &&
		    !bitset_has(&r->grown, p - r->last.n_pages - 1)) {
			*ret_missing = p;
			return false;
		}
	}
	return true;
}

static int drop_cut_pages(struct recorder *r, uint32_t n_pages, struct err *err)
{
	uint32_t end = r->last.n_pages > r->max_pgno ? r->last.n_pages : r->max_pgno;

	for (uint32_t p = n_pages + 1; p != 0 && p <= end; p++) {
		int rc = set_hash(r, p, (struct hash128){0, 0}, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int end_commit(struct recorder *r, uint32_t n_pages, int64_t observed_us,
                      int64_t not_before_us, uint32_t flags, struct err *err)
{
	struct commit c = {
	        .txid = r->last.txid + 1,
	        .time_us = observed_us > r->last.time_us ? observed_us : r->last.time_us + 1,
	        .n_pages = n_pages,
	        .flags = flags,
	};
	uint32_t missing;

	int rc = drop_cut_pages(r, n_pages, err);
	if (rc < 0)
		return rc;
	if (r->settled && !(flags & COMMIT_HEAL) && !growth_complete(r, n_pages, &missing)) {
		log_error("recorder",
		          "page missing from a commit that grew the database db=%s txid=%" PRIu64
		          " page=%u: declared as a gap",
		          r->name, c.txid, missing);
		r->settled = false;
		r->gap_open = true;
		r->gap = (struct gap_note){.before_txid = r->last.txid,
		                           .before_us = r->last.time_us};
		capture_request_break(r->capture, "a commit lacks pages that it added");
	}
	if (r->next_is_first) {
		not_before_us =
		        r->known_until_us > r->last.time_us ? r->known_until_us : r->last.time_us;
		r->next_is_first = false;
	}
	c.not_before_us = not_before_us < c.time_us ? not_before_us : c.time_us;
	if (!r->settled)
		c.flags |= COMMIT_UNSETTLED | COMMIT_NO_STATE;
	c.state = r->state;
	c.n_frames = grow_frames(r->w) - r->last.last_frame;
	rc = grow_commit(r->w, &c, err);
	if (rc < 0)
		return rc;
	r->last = c;
	r->max_pgno = 0;
	bitset_clear(&r->grown);
	return 0;
}

int encode_frame(struct recorder *r, uint32_t pgno, uint32_t n_truncate, const uint8_t *page,
                 int64_t observed_us, int64_t not_before_us, uint32_t flags, struct err *err)
{
	int rc = 0;

	if (pgno == 0 || pgno == lock_page(r->page_size))
		return err_set(err, ERR_DAMAGED, 0, "a frame of '%s' is for page %u", r->name,
		               pgno);
	if (!r->w)
		rc = open_segment(r, err);
	if (rc == 0 && grow_batch_full(r->w))
		rc = grow_end_batch(r->w, &r->pos, false, err);
	if (rc == 0)
		rc = grow_frame(r->w, pgno, n_truncate, page, err);
	if (rc == 0)
		rc = set_hash(r, pgno, page_hash(pgno, page, r->page_size), err);
	if (rc == 0 && pgno > r->last.n_pages)
		rc = bitset_add(&r->grown, pgno - r->last.n_pages - 1, err);
	if (rc == 0 && !r->settled) {
		LOCK_SCOPE(&r->table_lock);
		rc = bitset_add(&r->framed, pgno, err);
		if (pgno == 1 && r->page_one)
			memcpy(r->page_one, page, r->page_size);
	}
	if (rc < 0)
		return rc;
	if (pgno > r->max_pgno)
		r->max_pgno = pgno;
	return n_truncate ? end_commit(r, n_truncate, observed_us, not_before_us, flags, err) : 0;
}

int encode_batch(struct recorder *r, const struct item *it, struct err *err)
{
	uint64_t frame_size = wal_frame_size(it->page_size);

	for (size_t i = 0; i < it->n_frames; i++) {
		const uint8_t *p = it->frames + i * frame_size;
		struct wal_frame_header h;
		wal_frame_header_parse(p, &h);
		int rc = encode_frame(r, h.pgno, h.n_truncate, p + WAL_FRAME_HEADER_SIZE,
		                      it->observed_us, it->not_before_us, 0, err);
		if (rc < 0)
			return rc;
	}
	if (it->ends_commit)
		r->pos = it->after;
	return 0;
}

static int apply_overlay(struct recorder *r, struct err *err)
{
	LOCK_SCOPE(&r->table_lock);
	int rc = page_table_reserve(r->table, r->overlay.max_pgno, err);

	if (rc < 0)
		return rc;
	for (size_t i = 0; i < r->overlay.n_slots; i++)
		if (r->overlay.slots[i].pgno)
			page_table_set(r->table, r->overlay.slots[i].pgno,
			               r->overlay.slots[i].hash);
	overlay_clear(&r->overlay);
	return 0;
}

static bool fills_fast(uint64_t content_bytes, int64_t age_us)
{
	return age_us >= 0 && content_bytes / FAST_BYTES_PER_S > (uint64_t)age_us / US_PER_SECOND;
}

uint64_t encode_segment_bytes(uint64_t asked_bytes, uint64_t unsealed, uint64_t content_bytes,
                              int64_t age_us)
{
	if (asked_bytes < SEGMENT_BYTES_DEFAULT)
		return unsealed < UNSEALED_SOFT_MAX ? asked_bytes : SEGMENT_BYTES_DEFAULT;
	return asked_bytes == SEGMENT_BYTES_DEFAULT && fills_fast(content_bytes, age_us)
	               ? SEGMENT_BYTES_FAST
	               : asked_bytes;
}

static bool is_long_enough(const struct recorder *r)
{
	uint64_t bytes = grow_content_len(r->w);

	return bytes >= encode_segment_bytes(r->segment_bytes, r->unsealed, bytes,
	                                     clock_now_us() - r->segment_began_us);
}

/*
 * A segment that fills fast is sealed while the application goes on, or soon after: read back from
 * the disk it would stand in the way of the application's own fsyncs.  Unlinked, it leaves the cache.
 */
static bool is_soon_read_back(const struct recorder *r)
{
	return r->kept && fills_fast(grow_content_len(r->w), clock_now_us() - r->segment_began_us);
}

static void count_sync(struct recorder *r, int64_t took_us)
{
	LOCK_SCOPE(&r->lock);
	r->status.syncs++;
	r->status.sync_us += took_us;
}

int encode_flush(struct recorder *r, bool closes, struct err *err)
{
	int64_t began_us = clock_mono_us();

	if (!r->w)
		return 0;
	int rc = grow_end_batch(r->w, &r->pos, closes, err);
	if (rc == 0)
		rc = grow_sync(r->w, is_soon_read_back(r), err);
	if (rc == 0)
		count_sync(r, clock_mono_us() - began_us);
	if (rc == 0)
		rc = apply_overlay(r, err);
	if (rc < 0)
		return rc;
	r->mid_commit_applied = !closes;
	if (closes) {
		r->durable = r->last;
		r->durable_pos = r->pos;
		r->durable_settled = r->settled;
		r->durable_len = grow_length(r->w);
	}
	return 0;
}

void encode_cut_long(struct recorder *r)
{
	if (r->w && !r->mid_commit_applied && is_long_enough(r))
		encode_cut(r);
}

void encode_cut(struct recorder *r)
{
	r->unsealed += r->w && r->kept;
	grow_writer_free(r->w);
	r->w = NULL;
	r->growing_txid = 0;
}

void encode_cut_old(struct recorder *r, int64_t now_us, bool dirty)
{
	if (r->w && !dirty && !r->mid_commit_applied && grow_content_len(r->w) > 0 &&
	    now_us - r->segment_began_us > SEGMENT_AGE_US) {
		encode_cut(r);
		r->changes++; /* it can be sealed now */
	}
}

/* True: pieces of a commit are gone with it. */
static bool take_back(struct recorder *r)
{
	grow_writer_free(r->w);
	r->w = NULL;
	r->resume_segment = r->growing_txid != 0;
	overlay_clear(&r->overlay);
	bitset_clear(&r->grown);
	r->max_pgno = 0;
	r->last = r->durable;
	r->pos = r->durable_pos;
	r->settled = r->durable_settled;
	r->state = r->durable.state;
	if (!r->mid_commit_applied)
		return false;
	/* Pieces that are gone stand in the table: it is that of no state any more, and what
	 * follows of the commit has no beginning. */
	r->table_valid = false;
	r->discarding = true;
	r->mid_commit_applied = false;
	if (r->settled) {
		r->settled = false;
		r->gap_open = true;
		r->gap = (struct gap_note){.before_txid = r->last.txid,
		                           .before_us = r->last.time_us};
	}
	return true;
}

void encode_take_back(struct recorder *r)
{
	if (take_back(r))
		capture_request_break(r->capture, "a large commit could not be written");
}

void encode_void(struct recorder *r)
{
	take_back(r);
}

int encode_resume(struct recorder *r, struct err *err)
{
	struct object_name n = {
	        .type = OBJECT_GROWING, .lineage = r->lineage, .first_txid = r->growing_txid};
	char name[OBJECT_NAME_MAX];
	struct commit last;
	struct source_position pos;

	if (!r->resume_segment)
		return 0;
	object_name_format(&n, name);
	/* What a failed fsync left behind is not to be found again: it is written anew. */
	cleanup_fd int fd = -1;
	int rc = file_open(r->segment_fd, name, O_WRONLY, 0, &fd, err);
	if (rc == 0 && ftruncate(fd, (off_t)r->durable_len) < 0)
		rc = err_set(err, ERR_IO, errno, "cut '%s'", name);
	if (rc < 0)
		return rc;
	rc = grow_resume(r->segment_fd, name, r->durable_len, r->level, &r->w, &last, &pos, err);
	if (rc < 0)
		return rc;
	r->resume_segment = false;
	r->durable_len = grow_length(r->w);
	if (last.txid == r->last.txid)
		r->last.last_frame = last.last_frame;
	else
		r->last.last_frame = 0; /* the segment is empty so far */
	return 0;
}
