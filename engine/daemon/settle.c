/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making the database whole again after a break.
 *
 * From the break on capture hands over every frame of the present WAL generation, from its first
 * on, and goes on.  All that was ever checkpointed before lies in the main file.  So the state
 * after the last commit E recorded by the end of this is: for a page that any of these frames
 * set, the newest of them; for every other page, what the main file holds, since a checkpoint
 * writes no page but those of frames.
 *
 *         settle_break()                scan task                      settle_finish()
 *   broken ------------> scanning: reads the main file, page by page ------------> settled
 *      ^                     |  pages of frames are skipped            (in queue order, so E is
 *      +---------------------+  barrier: all frames until then are      the last commit before it)
 *         another break          in the queue
 *
 * Snapshot (nothing to stand on): the file's pages become a fuzzy snapshot that is the image of
 * E together with the frames since the break (redo).  Difference: pages whose hash is not that
 * of the newest recorded page go to a spool file; those that no frame has set by E become one
 * commit, E + 1, flagged COMMIT_HEAL.  Commits between the break and then are UNSETTLED: redo,
 * not to be viewed.
 *
 * Nothing at all happened meanwhile when all of this holds: no page differs, the size is the same,
 * no frame came since the break, and neither the file (ctime, which nobody can set) nor
 * its WAL was written to since before the last moment that is known.  Then there is no gap: a
 * database that rests declares none at each restart.
 */
#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/base/log.h"
#include "engine/daemon/recorder_i.h"

#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>

#define SCAN_BYTES (1u << 20)
#define SNAPSHOT_LEVEL 1
#define BARRIER_POLL_US 1000
#define DETACHED_POLL_US 20000
#define AGAIN_MIN_US (200 * 1000)
#define AGAIN_MAX_US (60 * US_PER_SECOND)
#define AGAIN_LOOK_US US_PER_SECOND
/* A file that is as it was is tried again all the same, this seldom: a page may be in the -wal by now. */
#define AGAIN_UNCHANGED_US (600 * US_PER_SECOND)

static void push_event(struct recorder *r, enum item_type type, uint64_t epoch)
{
	struct item *it = calloc(1, sizeof(*it));

	if (!it)
		abort(); /* a few bytes: there is nothing sensible left to do */
	it->type = type;
	it->epoch = epoch;
	recorder_push(r, it);
}

static int spool_page(struct scan *s, uint32_t pgno, const uint8_t *page, struct err *err)
{
	uint64_t at = s->n_spooled * (4 + (uint64_t)s->page_size);
	uint8_t head[4];

	store_le32(head, pgno);
	int rc = file_pwrite(s->spool_fd, head, 4, at, "spool of differing pages", err);
	if (rc == 0)
		rc = file_pwrite(s->spool_fd, page, s->page_size, at + 4,
		                 "spool of differing pages", err);
	s->n_spooled++;
	return rc;
}

static int scan_page(struct recorder *r, uint32_t pgno, const uint8_t *page, struct err *err)
{
	struct scan *s = &r->scan;
	bool differs = false;
	int rc = 0;

	if (pgno == lock_page(s->page_size))
		return 0;
	struct hash128 h = page_hash(pgno, page, s->page_size);
	pthread_mutex_lock(&r->table_lock);
	if (!bitset_has(&r->framed, pgno)) {
		if (s->snapshot) {
			rc = page_table_reserve(r->table, pgno, err);
			if (rc == 0)
				page_table_set(r->table, pgno, h);
		} else {
			/* Page 1 always goes along: a commit needs a page. */
			differs = !hash128_equal(page_table_get(r->table, pgno), h);
			s->n_differing += differs;
			differs = differs || pgno == 1;
		}
	}
	pthread_mutex_unlock(&r->table_lock);
	return rc == 0 && differs ? spool_page(s, pgno, page, err) : rc;
}

/* Opened when the pass begins, not when it is asked for: it holds memory. */
static int open_writer(struct recorder *r, struct err *err)
{
	struct scan *s = &r->scan;
	int rc = 0;

	if (!s->snapshot || s->writer)
		return 0;
	if (s->dir_fd < 0)
		rc = file_open_dir(r->dir_fd, "snapshot", true, &s->dir_fd, err);
	return rc < 0 ? rc
	              : snapshot_create(s->dir_fd, "first.tmp", s->page_size, SNAPSHOT_LEVEL,
	                                &s->writer, err);
}

static int scan_chunk(struct recorder *r, uint8_t *b, uint32_t per_read, struct err *err)
{
	struct scan *s = &r->scan;
	uint32_t got = 0;

	int rc = capture_read_pages(r->capture, s->epoch, s->next_page, per_read, s->page_size, b,
	                            &got, err);
	for (uint32_t i = 0; i < got && rc == 0; i++) {
		uint8_t *page = b + (size_t)i * s->page_size;
		if (s->next_page + i == lock_page(s->page_size))
			memset(page, 0, s->page_size);
		rc = scan_page(r, s->next_page + i, page, err);
	}
	if (rc == 0 && s->snapshot && got)
		rc = snapshot_append(s->writer, b, (size_t)got * s->page_size, err);
	if (rc < 0)
		return rc;
	s->next_page += got;
	s->read = got < per_read;
	return 0;
}

static int scan_file(struct recorder *r, struct err *err)
{
	struct scan *s = &r->scan;
	uint32_t per_read = SCAN_BYTES / s->page_size ? SCAN_BYTES / s->page_size : 1;
	cleanup_free uint8_t *b = malloc((size_t)per_read * s->page_size);

	if (!b)
		return err_set(err, ERR_NOMEM, 0, "no memory to read the database");
	int rc = open_writer(r, err);
	while (rc == 0 && !s->read)
		rc = s->stop ? err_set(err, ERR_CANCELLED, 0, "stopped")
		             : scan_chunk(r, b, per_read, err);
	if (rc < 0)
		return rc;
	s->file_pages = s->next_page - 1;
	s->ticket = capture_barrier_begin(r->capture);
	return 0;
}

static int64_t tell(struct recorder *r, int rc)
{
	struct scan *s = &r->scan;

	s->told = true;
	push_event(r, rc == 0 ? ITEM_SETTLE : ITEM_SETTLE_FAILED, s->epoch);
	return POOL_WHEN_WOKEN;
}

static int64_t scan_step(void *ctx)
{
	struct recorder *r = ctx;
	struct scan *s = &r->scan;
	int64_t now_us = clock_mono_us();
	int rc = 0;

	if (s->told)
		return POOL_WHEN_WOKEN;
	if (s->tell_us)
		return now_us >= s->tell_us ? tell(r, -1) : s->tell_us - now_us;
	if (!s->read)
		rc = scan_file(r, &s->err);
	if (rc == 0)
		rc = capture_barrier(r->capture, s->epoch, s->ticket, &s->err);
	if (rc == 0 || s->err.kind == ERR_CANCELLED || s->stop)
		return tell(r, rc);
	if (s->err.kind == ERR_BUSY) {
		s->err = (struct err)ERR_INIT;
		return s->read ? BARRIER_POLL_US : DETACHED_POLL_US;
	}
	s->tell_us = now_us + US_PER_SECOND; /* whatever refused is not asked again at once */
	return US_PER_SECOND;
}

static void end_scan(struct scan *s)
{
	s->stop = true;
	pool_remove(take_ptr(s->task));
}

void settle_cancel(struct recorder *r)
{
	struct scan *s = &r->scan;

	end_scan(s);
	s->active = false;
	snapshot_writer_free(take_ptr(s->writer));
	if (s->spool_fd >= 0)
		close(take_fd(&s->spool_fd));
	if (s->dir_fd >= 0)
		close(take_fd(&s->dir_fd));
}

static int open_spool(struct recorder *r, struct err *err)
{
	int rc = file_open(r->dir_fd, "spool.tmp", O_RDWR | O_CREAT | O_TRUNC, 0600,
	                   &r->scan.spool_fd, err);
	if (rc == 0)
		unlinkat(r->dir_fd, "spool.tmp", 0);
	return rc;
}

/* What the file was when the pass began. */
static void note_file(struct recorder *r)
{
	struct stat st = {0};

	if (stat(r->source_path, &st) < 0)
		st.st_size = -1;
	r->unwhole.size = st.st_size;
	r->unwhole.ctime = st.st_ctim;
}

static bool file_differs(const struct recorder *r)
{
	struct stat st;

	return stat(r->source_path, &st) == 0 &&
	       (st.st_size != r->unwhole.size || st.st_ctim.tv_sec != r->unwhole.ctime.tv_sec ||
	        st.st_ctim.tv_nsec != r->unwhole.ctime.tv_nsec);
}

static int start_scan(struct recorder *r, bool snapshot, struct err *err)
{
	struct scan *s = &r->scan;
	int rc;

	note_file(r);
	s->stop = false;
	s->snapshot = snapshot;
	s->epoch = r->epoch;
	s->page_size = r->page_size;
	s->n_spooled = s->n_differing = 0;
	s->next_page = 1;
	s->read = s->told = s->made = false;
	s->tell_us = 0;
	s->err = (struct err)ERR_INIT;
	free(r->page_one);
	r->page_one = calloc(1, r->page_size);
	if (!r->page_one)
		return err_set(err, ERR_NOMEM, 0, "no memory for a page");
	if (snapshot) {
		pthread_mutex_lock(&r->table_lock);
		rc = page_table_reset(r->table, err);
		pthread_mutex_unlock(&r->table_lock);
	} else {
		rc = open_spool(r, err);
	}
	if (rc < 0)
		return rc;
	rc = pool_add(r->pools->scan, scan_step, r, &s->task, err);
	s->active = rc == 0;
	return rc;
}

/* (A break that could not be acted upon is met again: it begins one lineage.) */
static int new_lineage(struct recorder *r, const struct item *it, struct err *err)
{
	if (r->lineage_epoch == it->epoch)
		return 0;
	struct lineage_note n = {
	        .lineage = r->lineage + 1,
	        .parent = r->lineage,
	        .from_txid = r->last.txid,
	        .first_txid = r->last.txid + 1,
	        .live_us = clock_now_us(),
	        .page_size = it->page_size,
	};

	snprintf(n.reason, sizeof(n.reason), "%s: %.120s", capture_break_name(it->why), it->reason);
	lost_fill_note(r, &n);
	int rc = lineage_note_put(r->dir_fd, &n, err);
	if (rc < 0)
		return rc;
	r->lost.pending = false;
	encode_cut(r);
	r->lineage = n.lineage;
	r->lineage_epoch = it->epoch;
	log_info("recorder", "lineage begins db=%s lineage=%u from_txid=%" PRIu64 " reason=\"%s\"",
	         r->name, r->lineage, n.from_txid, n.reason);
	return 0;
}

/* Who was killed before anything was in it goes on with it. */
static bool lineage_is_empty(const struct recorder *r)
{
	const struct object_name n = {.type = OBJECT_LINEAGE, .lineage = r->lineage};
	char name[OBJECT_NAME_MAX];
	struct lineage_note note;

	object_name_format(&n, name);
	return lineage_note_get(r->dir_fd, name, &note, NULL) == 0 &&
	       note.first_txid > r->last.txid;
}

/*
 * There is a past, and nothing of it to compare with.  A full copy says nothing of what lies before
 * it, so it begins a lineage: in one with frames from before the break, which readers look into and
 * upkeep joins and coalesces, those of pages that were changed unseen would lie over the copy.
 */
static int copy_anew(struct recorder *r, const struct item *it, const struct err *why,
                     struct err *err)
{
	log_info("recorder", "no state to compare with, a full copy is taken db=%s: %s", r->name,
	         why->msg);
	r->table_valid = false;
	return lineage_is_empty(r) ? 0 : new_lineage(r, it, err);
}

static int change_page_size(struct recorder *r, uint32_t page_size, struct err *err)
{
	uint64_t ignored;
	LOCK_SCOPE(&r->table_lock);

	page_table_free(r->table);
	r->table = NULL;
	encode_cut(r);
	r->page_size = page_size;
	r->table_valid = false;
	return page_table_open(r->dir_fd, page_size, &r->table, &ignored, err);
}

/* Capture was given no place to go on from; here it is known whether there ought to be one. */
static void tell_reason(const struct recorder *r, const struct item *it, char *ret, size_t size)
{
	if (it->why == CAPTURE_FIRST && r->last.txid != 0)
		snprintf(ret, size, "%s: how far the WAL had been captured is not known",
		         capture_break_name(CAPTURE_GAP));
	else
		snprintf(ret, size, "%s: %.120s", capture_break_name(it->why), it->reason);
}

#define CLOCK_SLACK_US US_PER_SECOND /* file times may lag behind the clock, and it may be set */

static bool is_older(struct timespec t, int64_t time_us)
{
	return (int64_t)t.tv_sec * US_PER_SECOND + t.tv_nsec / 1000 < time_us - CLOCK_SLACK_US;
}

/*
 * See above.  Of the WAL it is mtime: SQLite, run by root, gives it its owner at each opening.  One
 * without content need not be asked: what was committed into it and is gone from it was written to
 * the file.
 */
static bool source_is_older(const struct recorder *r, int64_t time_us)
{
	cleanup_free char *wal = NULL;
	struct stat st;

	if (asprintf(&wal, "%s-wal", r->source_path) < 0)
		return false;
	if (stat(wal, &st) < 0 ? errno != ENOENT : st.st_size > 0 && !is_older(st.st_mtim, time_us))
		return false;
	return stat(r->source_path, &st) == 0 && is_older(st.st_ctim, time_us);
}

static void declare_gap(struct recorder *r)
{
	r->gap_doubtful = false;
	r->gap_told = true;
	pthread_mutex_lock(&r->lock);
	r->status.gaps++;
	pthread_mutex_unlock(&r->lock);
	log_warn("recorder", "gap declared db=%s after_txid=%" PRIu64 " reason=\"%s\"", r->name,
	         r->gap.before_txid, r->gap.reason);
}

/* Opens the gap: what is known ends with the last settled commit.  A break that could not be
 * written down, or after which the database could not be made whole, comes here again with each new
 * try: it is one gap, told of once. */
static void open_gap(struct recorder *r, const struct item *it)
{
	if (r->settled) {
		r->gap = (struct gap_note){
		        .before_txid = r->last.txid,
		        .before_us = r->known_until_us > r->last.time_us ? r->known_until_us
		                                                         : r->last.time_us,
		};
		r->gap_open = true;
		r->gap_told = false;
	}
	if (!r->gap_told)
		tell_reason(r, it, r->gap.reason, sizeof(r->gap.reason));
	/* Not to be taken back with what an error undoes later: the break stands. */
	r->settled = r->durable_settled = false;
	r->next_is_first = r->last.txid != 0;
	if (!r->gap_open || r->gap_told)
		return;
	if (source_is_older(r, r->gap.before_us))
		r->gap_doubtful = true;
	else
		declare_gap(r);
}

/* One that failed with its last fsync: its transaction will be another one's. */
static int remove_failed(struct recorder *r, struct err *err)
{
	cleanup_fd int fd = -1;

	if (!r->scan.failed[0])
		return 0;
	int rc = file_open_dir(r->dir_fd, "snapshot", true, &fd, err);
	if (rc == 0 && unlinkat(fd, r->scan.failed, 0) < 0 && errno != ENOENT)
		rc = err_set(err, ERR_IO, errno, "remove '%s'", r->scan.failed);
	if (rc < 0)
		return rc;
	r->scan.failed[0] = '\0';
	recorder_close_archive(r); /* which may have seen it */
	return 0;
}

int settle_break(struct recorder *r, const struct item *it, struct err *err)
{
	bool have_past = r->last.txid != 0;

	settle_cancel(r);
	int rc = remove_failed(r, err);
	if (rc < 0)
		return rc;
	open_gap(r, it);
	r->discarding = false;
	r->epoch = it->epoch;
	r->max_pgno = 0;
	bitset_clear(&r->grown);
	if (r->lineage == 0 ||
	    (have_past && (it->why == CAPTURE_REWOUND || it->why == CAPTURE_REPLACED ||
	                   it->why == CAPTURE_PAGE_SIZE || it->page_size != r->page_size)))
		rc = new_lineage(r, it, err);
	if (rc == 0 && (!r->table || it->page_size != r->page_size))
		rc = change_page_size(r, it->page_size, err);
	if (rc < 0)
		return rc;
	pthread_mutex_lock(&r->table_lock);
	bitset_clear(&r->framed);
	pthread_mutex_unlock(&r->table_lock);
	r->redo_txid = r->last.txid;
	pthread_mutex_lock(&r->lock);
	r->status.settled = false;
	pthread_mutex_unlock(&r->lock);
	/* A child that goes on behind damage has nothing to compare with. */
	if (!r->table_valid && have_past && r->last.txid + 1 != r->lost.first_txid) {
		struct err why = ERR_INIT;
		if (table_rebuild(r, &why) < 0) {
			rc = copy_anew(r, it, &why, err);
			if (rc < 0)
				return rc;
		}
	}
	return start_scan(r, !r->table_valid, err);
}

/* The size of the database after the last commit; where no frame came since the break, the WAL
 * is empty or checkpointed and the file has it. */
static uint32_t present_pages(const struct recorder *r)
{
	return r->last.txid > r->redo_txid ? r->last.n_pages : r->scan.file_pages;
}

/* A hint for `asof status`: where it cannot be written it is left out. */
static void note_hindrance(struct recorder *r, const char *text)
{
	struct err ignored = ERR_INIT;
	int rc = recorder_note_lock(r, text, &ignored);

	(void)rc;
}

static void settled(struct recorder *r)
{
	if (r->unwhole.told_us) {
		log_info("recorder", "the database is whole again db=%s", r->name);
		note_hindrance(r, "");
	}
	r->unwhole = (struct unwhole){0};
	r->settled = r->durable_settled = true;
	r->table_valid = true;
	free(r->page_one);
	r->page_one = NULL;
	pthread_mutex_lock(&r->table_lock);
	bitset_release(&r->framed);
	pthread_mutex_unlock(&r->table_lock);
	pthread_mutex_lock(&r->lock);
	r->status.settled = true;
	r->status.unwhole[0] = '\0';
	pthread_mutex_unlock(&r->lock);
}

static int close_gap(struct recorder *r, struct err *err)
{
	if (!r->gap_open)
		return 0;
	if (r->gap_doubtful)
		declare_gap(r);
	r->gap.after_txid = r->last.txid;
	r->gap.after_us = r->last.time_us;
	int rc = gap_note_put(r->dir_fd, &r->gap, err);
	if (rc == 0) {
		log_warn("recorder",
		         "gap healed db=%s before_txid=%" PRIu64 " after_txid=%" PRIu64
		         " pages=%" PRIu64,
		         r->name, r->gap.before_txid, r->gap.after_txid, r->last.n_frames);
		r->gap_open = false;
	}
	return rc;
}

static int page_nowhere(const struct recorder *r, uint32_t pgno, uint32_t n_pages, struct err *err)
{
	return err_set(err, ERR_DAMAGED, 0,
	               "page %u of %u is neither in '%.90s' (%u whole pages) nor in its -wal (was "
	               "the file cut? put it right, or asof restore: it goes on by itself)",
	               pgno, n_pages, r->source_path, r->scan.file_pages);
}

/* The state checksum, when every page is accounted for. */
static struct hash128 table_state(struct recorder *r, uint32_t n_pages)
{
	LOCK_SCOPE(&r->table_lock);
	return page_table_sum(r->table, n_pages);
}

/* Pages that the file still had when it was read, and that a commit since has cut off: should they come
 * again, the state is not to lose them once more. */
static void cut_table(struct recorder *r, uint32_t n_pages)
{
	LOCK_SCOPE(&r->table_lock);
	page_table_truncate(r->table, n_pages);
}

static int finish_snapshot(struct recorder *r, struct err *err)
{
	uint32_t n_pages = present_pages(r);
	uint64_t bytes;
	struct commit at = r->last;

	if (r->last.txid ==
	    r->redo_txid) { /* idle: the state found at attach is a moment of its own */
		int64_t now = clock_now_us();
		at = (struct commit){
		        .txid = r->last.txid + 1,
		        .time_us = now > r->last.time_us ? now : r->last.time_us + 1,
		        .n_pages = n_pages,
		};
		at.not_before_us = at.time_us;
	}
	if (n_pages == 0)
		return page_nowhere(r, 1, 1, err);
	cut_table(r, n_pages);
	struct snapshot_info info = {
	        .page_size = r->page_size,
	        .lineage = r->lineage,
	        .n_pages = n_pages,
	        .txid = at.txid,
	        .redo_txid = r->last.txid == r->redo_txid ? at.txid : r->redo_txid,
	        .time_us = at.time_us,
	        .not_before_us = at.not_before_us,
	        .state = table_state(r, n_pages),
	};
	if (info.redo_txid == info.txid && r->scan.file_pages != n_pages)
		return err_set(err, ERR_DAMAGED, 0,
		               "the database '%s' changed its size while it was read", r->name);
	int rc = snapshot_finish(r->scan.writer, &info, &bytes, err);
	if (rc < 0) {
		snapshot_name(&info, r->scan.failed);
		return rc;
	}
	if (at.txid != r->last.txid)
		encode_cut(r); /* the segment cannot hold a txid that it has no frames of */
	at.state = r->state = info.state;
	at.flags = 0;
	r->last = r->durable = at;
	log_info("recorder", "first snapshot db=%s txid=%" PRIu64 " pages=%u bytes=%" PRIu64,
	         r->name, info.txid, n_pages, bytes);
	return 0;
}

/* Frames for the spooled pages that no frame has set, the last one marked. */
static int put_differences(struct recorder *r, uint32_t n_pages, struct err *err)
{
	struct scan *s = &r->scan;
	cleanup_free uint8_t *page = malloc(s->page_size), *held = malloc(s->page_size);
	uint32_t held_pgno = 0;
	int64_t now = clock_now_us();
	int rc = 0;

	if (!page || !held)
		return err_set(err, ERR_NOMEM, 0, "no memory for a page");
	if (bitset_has(&r->framed, 1)) { /* not spooled, or overtaken: the newest one is with us */
		memcpy(held, r->page_one, s->page_size);
		held_pgno = 1;
	}
	for (uint64_t i = 0; i < s->n_spooled && rc == 0; i++) {
		uint64_t at = i * (4 + (uint64_t)s->page_size);
		uint8_t head[4];
		rc = file_pread(s->spool_fd, head, 4, at, "spool", err);
		if (rc == 0)
			rc = file_pread(s->spool_fd, page, s->page_size, at + 4, "spool", err);
		uint32_t pgno = load_le32(head);
		if (rc < 0 || bitset_has(&r->framed, pgno) || pgno > n_pages)
			continue;
		if (held_pgno)
			rc = encode_frame(r, held_pgno, 0, held, now, r->last.time_us, COMMIT_HEAL,
			                  err);
		memcpy(held, page, s->page_size);
		held_pgno = pgno;
	}
	if (rc == 0 && held_pgno == 0)
		return page_nowhere(r, 1, n_pages ? n_pages : 1, err);
	return rc < 0 ? rc
	              : encode_frame(r, held_pgno, n_pages, held, now, r->last.time_us, COMMIT_HEAL,
	                             err);
}

/*
 * Every page that the database has must have been seen since the break: one behind the file's end
 * comes of a frame.  What the table has of it is how it once was.
 */
static int check_whole(struct recorder *r, uint32_t n_pages, struct err *err)
{
	for (uint32_t p = 1; p != 0 && p <= n_pages; p++)
		if (p != lock_page(r->page_size) &&
		    (hash128_zero(encode_hash(r, p)) ||
		     (p > r->scan.file_pages && !bitset_has(&r->framed, p))))
			return page_nowhere(r, p, n_pages, err);
	return 0;
}

static int finish_difference(struct recorder *r, struct err *err)
{
	uint32_t n_pages = present_pages(r);

	/* The table has no page behind the last commit's size: see drop_cut_pages(). */
	r->state = table_state(r, r->last.n_pages);
	r->settled = true;
	int rc = put_differences(r, n_pages, err);
	return rc < 0 ? rc : check_whole(r, n_pages, err);
}

static bool nothing_happened(const struct recorder *r)
{
	const struct scan *s = &r->scan;

	return r->gap_open && r->gap_doubtful && r->last.txid == r->redo_txid &&
	       r->last.txid == r->gap.before_txid && s->n_differing == 0 &&
	       s->file_pages == r->last.n_pages && source_is_older(r, r->gap.before_us);
}

/* What cannot be finished is begun again with a new break, when that may help: see unwhole. */
static int start_again(struct recorder *r, const struct err *why)
{
	struct unwhole *u = &r->unwhole;
	int64_t now_us = clock_mono_us();

	settle_cancel(r);
	r->discarding = true;
	u->wait_us = u->wait_us ? u->wait_us * 2 : AGAIN_MIN_US;
	if (u->wait_us > AGAIN_MAX_US)
		u->wait_us = AGAIN_MAX_US;
	u->look_us = u->try_us = now_us + u->wait_us;
	u->by_file = why->kind == ERR_DAMAGED;
	pthread_mutex_lock(&r->lock);
	bool news = strncmp(r->status.unwhole, why->msg, sizeof(r->status.unwhole) - 1) != 0;
	snprintf(r->status.unwhole, sizeof(r->status.unwhole), "%.199s", why->msg);
	pthread_mutex_unlock(&r->lock);
	if (news)
		note_hindrance(r, why->msg);
	if (!news && u->told_us && now_us - u->told_us < AGAIN_MAX_US)
		return 0;
	u->told_us = now_us;
	log_error("recorder", "the database cannot be captured db=%s: %s", r->name, why->msg);
	return 0;
}

int64_t settle_look_again(struct recorder *r)
{
	struct unwhole *u = &r->unwhole;
	int64_t now_us = clock_mono_us();

	if (!u->look_us)
		return POOL_WHEN_WOKEN;
	if (now_us < u->look_us)
		return u->look_us - now_us;
	if (u->by_file && u->wait_us > AGAIN_LOOK_US && !file_differs(r) &&
	    now_us < u->try_us + AGAIN_UNCHANGED_US) {
		u->look_us = now_us + AGAIN_LOOK_US;
		return AGAIN_LOOK_US;
	}
	u->look_us = 0; /* what comes of the break sets it again */
	capture_request_break(r->capture, "the database could not be read whole");
	return POOL_WHEN_WOKEN;
}

/* What made the database whole is durable; again, when the rest could not be written. */
static int end_settling(struct recorder *r, struct err *err)
{
	int rc = close_gap(r, err);

	if (rc < 0)
		return rc;
	settle_cancel(r);
	settled(r);
	return recorder_publish(r, true, err);
}

int settle_finish(struct recorder *r, const struct item *it, struct err *err)
{
	struct scan *s = &r->scan;
	struct err why = ERR_INIT;
	int rc;

	if (it->epoch != r->epoch || !s->active)
		return 0; /* of an attachment that is over */
	if (s->made)
		return end_settling(r, err);
	end_scan(s);
	if (it->type == ITEM_SETTLE_FAILED) {
		if (s->err.kind == ERR_CANCELLED)
			settle_cancel(r);
		else
			start_again(r, &s->err);
		return 0;
	}
	if (s->snapshot) {
		rc = check_whole(r, present_pages(r), &why);
		if (rc == 0)
			rc = finish_snapshot(r, &why);
		if (rc < 0)
			return start_again(r, &why);
	} else if (nothing_happened(r)) {
		log_info("recorder", "nothing was written meanwhile db=%s txid=%" PRIu64, r->name,
		         r->last.txid);
		r->gap_open = r->gap_doubtful = r->next_is_first = false;
		r->state = r->last.state;
	} else {
		rc = finish_difference(r, &why);
		if (err_kind_of(rc) == ERR_DAMAGED) {
			encode_take_back(r);
			return start_again(r, &why);
		}
		if (rc < 0)
			return err_copy(err, &why);
	}
	/* What was gathered is kept until it is durable: a full disk makes this begin again. */
	r->settled = true;
	rc = encode_flush(r, true, err);
	if (rc < 0)
		return rc;
	s->made = r->durable_settled = true;
	return end_settling(r, err);
}
