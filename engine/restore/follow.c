/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One round: the newest commit, the pages between the standby's and that (a span), one transaction.
 * Where there is no such span (the first copy, a child lineage, a gap in what is kept, another page
 * size, doubt) the whole image is compared with the file, and the pages that differ are one
 * transaction; or it is written anew, where there is no file, or none of that page size.
 */
#include "engine/restore/follow_i.h"

#include "engine/base/bitset.h"
#include "engine/base/bytes.h"
#include "engine/base/cleanup.h"
#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/base/log.h"
#include "engine/view/span.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define POLL_US 200000
#define PATIENCE_US (2 * US_PER_SECOND)
#define PIECE_BYTES ((size_t)1 << 20)
#define COUNTER_OFFSET 24
#define VALID_FOR_OFFSET 92

struct follow {
	struct archive *archive;
	struct history *history;
	const struct follow_options *options;
	struct place place;
	int lock_fd;
	struct follow_note note;
	bool known; /* the file is what the note says: `at`, and page one of that commit */
	struct moment at;
	int64_t told_us;                 /* monotonic: that it is idle */
	uint8_t page_one[PAGE_SIZE_MAX]; /* as the primary has it */
	uint8_t page[PAGE_SIZE_MAX], old_page[PAGE_SIZE_MAX];
};

static void follow_release(struct follow *f)
{
	char name[RESTORE_NAME_MAX];

	if (f->lock_fd >= 0) {
		snprintf(name, sizeof(name), "%s" FOLLOW_LOCK_SUFFIX, f->place.name);
		unlinkat(f->place.dir_fd, name, 0);
		close(f->lock_fd);
	}
	place_release(&f->place);
}

/* ---- page one ---- */

static bool counts(uint32_t pgno, uint32_t page_size)
{
	return pgno != lock_page(page_size);
}

/* As the standby has it: see follow.h. */
static void patch(uint8_t *page, uint32_t counter)
{
	bool valid = memcmp(page + COUNTER_OFFSET, page + VALID_FOR_OFFSET, 4) == 0;

	for (int i = 18; i < 20; i++)
		page[i] = page[i] == 2 ? 1 : page[i];
	store_be32(page + COUNTER_OFFSET, counter);
	if (valid)
		store_be32(page + VALID_FOR_OFFSET, counter);
}

/* The counter after the one in the file; readers may have seen any before. */
static uint32_t next_counter(const struct follow *f, const uint8_t *page_one)
{
	uint8_t head[SQLITE_HEADER_SIZE];
	cleanup_fd int fd = openat(f->place.dir_fd, f->place.name, O_RDONLY | O_CLOEXEC);

	if (fd >= 0 && pread(fd, head, sizeof(head), 0) == (ssize_t)sizeof(head))
		return load_be32(head + COUNTER_OFFSET) + 1;
	return load_be32(page_one + COUNTER_OFFSET) + 1;
}

/* The state checksum with another page one. */
static struct hash128 exchange_page_one(struct hash128 state, const uint8_t *from,
                                        const uint8_t *to, uint32_t page_size)
{
	state_sub(&state, page_hash(1, from, page_size));
	state_add(&state, page_hash(1, to, page_size));
	return state;
}

/* ---- the whole image, as the standby has it ---- */

/* The state checksum of the file as it lies there. */
static int sum_file(struct follow *f, struct hash128 *ret, uint32_t *ret_page_size, struct err *err)
{
	cleanup_fd int fd = -1;
	cleanup_free uint8_t *buf = malloc(PIECE_BYTES);
	struct db_header head;
	size_t got = PIECE_BYTES;
	uint32_t pgno = 1;
	int rc = file_open(f->place.dir_fd, f->place.name, O_RDONLY | O_NOFOLLOW, 0, &fd, err);

	*ret = (struct hash128){0, 0};
	*ret_page_size = 0;
	if (rc || !buf)
		return rc ? rc : err_set(err, ERR_NOMEM, 0, "out of memory");
	for (uint64_t at = 0; got == PIECE_BYTES; at += got) {
		if ((rc = file_pread_some(fd, buf, PIECE_BYTES, at, &got, f->place.path, err)))
			return rc;
		if (at == 0 && db_header_parse(buf, got, &head, NULL))
			return 0;
		for (size_t i = 0; i + head.page_size <= got; i += head.page_size, pgno++)
			if (counts(pgno, head.page_size))
				state_add(ret, page_hash(pgno, buf + i, head.page_size));
	}
	*ret_page_size = head.page_size;
	return 0;
}

struct standby_image {
	struct view *view;
	uint8_t one[PAGE_SIZE_MAX];
};

static int read_standby(void *ctx, uint64_t offset, void *buf, size_t len, struct err *err)
{
	const struct standby_image *s = ctx;
	uint32_t page_size = view_moment(s->view)->page_size;
	size_t got;
	int rc = view_read(s->view, offset, buf, len, 0, &got, err);

	if (!rc && got != len)
		return err_set(err, ERR_DAMAGED, 0, "the image is shorter than it says");
	if (!rc && offset < page_size) {
		size_t n = (size_t)(page_size - offset);
		memcpy(buf, s->one + offset, n < len ? n : len);
	}
	return rc;
}

static int update_note(struct follow *f, uint64_t next_txid, struct hash128 next_state,
                       struct err *err)
{
	f->note.next_txid = next_txid;
	f->note.next_state = next_state;
	return follow_note_put(&f->place, &f->note, err);
}

/* The file is what the note calls next. */
static int arrive(struct follow *f, const struct moment *m, const uint8_t *page_one,
                  struct err *err)
{
	f->at = *m;
	memcpy(f->page_one, page_one, m->page_size);
	f->note.txid = m->txid;
	f->note.state = f->note.next_state;
	f->known = true;
	return update_note(f, 0, (struct hash128){0, 0}, err);
}

static int write_whole(struct follow *f, const struct restore_image *image,
                       struct follow_news *news, struct err *err)
{
	const struct restore_options o = {
	        .force = true,
	        .check = RESTORE_CHECK_NEVER,
	        .n_threads = f->options->n_threads,
	        .archive_root = archive_root(f->archive),
	};
	struct restore_result r;
	int rc = 0;

	if (delta_possible(image, &f->place))
		rc = delta_apply(image, &f->place, &o, &news->written_bytes, err);
	else if (!(rc = restore_put_image(image, history_name(f->history), f->place.path, &o, &r,
	                                  err)))
		news->written_bytes = r.written_bytes;
	return rc;
}

static int copy_whole(struct follow *f, const struct moment *m, struct follow_news *news,
                      struct err *err)
{
	cleanup_view struct view *v = NULL;
	cleanup_free struct standby_image *s = calloc(1, sizeof(*s));
	cleanup_free uint8_t *one = malloc(PAGE_SIZE_MAX);
	struct restore_image image;
	char label[IMAGE_LABEL_MAX];
	int rc;

	if (!s || !one)
		return err_set(err, ERR_NOMEM, 0, "out of memory");
	if ((rc = view_open(f->history, m->txid, &v, err)) || (rc = view_page(v, 1, one, err)))
		return rc;
	image_of_view(v, label, &image);
	s->view = v;
	memcpy(s->one, one, m->page_size);
	patch(s->one, next_counter(f, one));
	image.ctx = s;
	image.read = read_standby;
	if (!hash128_zero(m->state))
		image.state = exchange_page_one(m->state, one, s->one, m->page_size);
	news->whole = true;
	if ((rc = update_note(f, m->txid, image.state, err)) ||
	    (rc = write_whole(f, &image, news, err)))
		return rc;
	if (hash128_zero(image.state) &&
	    (rc = sum_file(f, &f->note.next_state, &(uint32_t){0}, err)))
		return rc;
	return arrive(f, m, one, err);
}

/* ---- a span ---- */

struct update {
	struct follow *f;
	struct view *span;
	const struct moment *to;
	struct inplace x;
	struct bitset pages; /* to be written, page one always */
	struct hash128 state;
	uint8_t new_one[PAGE_SIZE_MAX], standby_one[PAGE_SIZE_MAX];
	uint64_t n_pages;
};

static void update_release(struct update *u)
{
	inplace_end(&u->x);
	bitset_release(&u->pages);
	if (u->span)
		view_free(u->span);
	free(u);
}
DEFINE_CLEANUP(struct update, update_release);

/* Takes a page of the old state, which was read, into the journal and out of the checksum. */
static int leave_page(struct update *u, uint32_t pgno, struct err *err)
{
	state_sub(&u->state, page_hash(pgno, u->f->old_page, u->to->page_size));
	return inplace_save(&u->x, pgno, u->f->old_page, err);
}

static int read_old(struct update *u, uint32_t pgno, struct err *err)
{
	uint32_t page_size = u->to->page_size;

	return file_pread(u->x.fd, u->f->old_page, page_size, (uint64_t)(pgno - 1) * page_size,
	                  u->f->place.path, err);
}

static int new_page(struct update *u, uint32_t pgno, const uint8_t **ret, struct err *err)
{
	*ret = pgno == 1 ? u->standby_one : u->f->page;
	return pgno == 1 ? 0 : view_page(u->span, pgno, u->f->page, err);
}

typedef int page_fn(struct update *u, uint32_t pgno, struct err *err);

static int each_page(struct update *u, page_fn *fn, struct err *err)
{
	for (size_t w = 0; w < u->pages.used; w++)
		for (uint64_t bits = u->pages.words[w]; bits; bits &= bits - 1) {
			uint32_t pgno = (uint32_t)(w * 64) + (uint32_t)__builtin_ctzll(bits);
			bool there = pgno <= u->to->n_pages && counts(pgno, u->to->page_size);
			int rc = there ? fn(u, pgno, err) : 0;
			if (rc)
				return rc;
		}
	return 0;
}

/* A span can have pages that changed a little earlier: those stay. */
static int exchange_page(struct update *u, uint32_t pgno, struct err *err)
{
	bool had = pgno <= u->f->at.n_pages;
	const uint8_t *page;
	int rc = had ? read_old(u, pgno, err) : 0;

	if (rc || (rc = new_page(u, pgno, &page, err)))
		return rc;
	if (had && memcmp(page, u->f->old_page, u->to->page_size) == 0) {
		u->pages.words[pgno / 64] &= ~(UINT64_C(1) << pgno % 64);
		return 0;
	}
	if (had && (rc = leave_page(u, pgno, err)))
		return rc;
	state_add(&u->state, page_hash(pgno, page, u->to->page_size));
	u->n_pages++;
	return 0;
}

/* One that the database no longer has. */
static int drop_page(struct update *u, uint32_t pgno, struct err *err)
{
	int rc = counts(pgno, u->to->page_size) ? read_old(u, pgno, err) : 0;

	return rc || !counts(pgno, u->to->page_size) ? rc : leave_page(u, pgno, err);
}

static int write_page(struct update *u, uint32_t pgno, struct err *err)
{
	const uint8_t *page;
	int rc = new_page(u, pgno, &page, err);

	return rc ? rc : inplace_write(&u->x, pgno, page, err);
}

static int open_span(struct update *u, struct err *err)
{
	struct follow *f = u->f;
	uint32_t min_pages;
	int rc;

	if ((rc = span_open(f->history, f->at.txid, u->to->txid, false, &u->span, err)) ||
	    (rc = span_pages(u->span, &u->pages, &min_pages, err)))
		return rc;
	memcpy(u->new_one, f->page_one, u->to->page_size);
	if (bitset_has(&u->pages, 1) && (rc = view_page(u->span, 1, u->new_one, err)))
		return rc;
	memcpy(u->standby_one, u->new_one, u->to->page_size);
	patch(u->standby_one, next_counter(f, u->new_one));
	return bitset_add(&u->pages, 1, err);
}

/* What will be there is what was committed, or nothing is written. */
static int check_update(const struct update *u, struct err *err)
{
	const struct moment *to = u->to;
	struct hash128 primary =
	        exchange_page_one(u->state, u->standby_one, u->new_one, to->page_size);

	if (hash128_zero(to->state) || hash128_equal(primary, to->state))
		return 0;
	return err_set(err, ERR_DAMAGED, 0,
	               "the standby with the pages up to txid %" PRIu64
	               " is not what was committed: the state checksum differs",
	               to->txid);
}

static int apply_span(struct follow *f, const struct moment *m, struct follow_news *news,
                      struct err *err)
{
	CLEANUP(update_release_p) struct update *u = calloc(1, sizeof(*u));
	int rc;

	if (!u)
		return err_set(err, ERR_NOMEM, 0, "out of memory");
	u->f = f;
	u->to = m;
	u->state = f->note.state;
	u->x = (struct inplace){.fd = -1, .journal_fd = -1, .place = &f->place};
	if ((rc = open_span(u, err)) ||
	    (rc = inplace_begin(&u->x, &f->place, m->page_size, f->at.n_pages, PATIENCE_US, err)) ||
	    (rc = each_page(u, exchange_page, err)))
		return rc;
	for (uint32_t p = m->n_pages + 1; p <= f->at.n_pages; p++)
		if ((rc = drop_page(u, p, err)))
			return rc;
	if ((rc = check_update(u, err)) || (rc = update_note(f, m->txid, u->state, err)) ||
	    (rc = inplace_seal(&u->x, err)) || (rc = each_page(u, write_page, err)) ||
	    (rc = inplace_commit(&u->x, m->n_pages, err)))
		return rc;
	news->pages = u->n_pages;
	news->written_bytes = u->x.written_bytes;
	return arrive(f, m, u->new_one, err);
}

/* ---- a round ---- */

/* What can come of a history that was thinned out, restored, or has a gap; the whole image
 * settles it, or shows what is really wrong. */
static bool span_may_fail(int rc)
{
	switch (err_kind_of(rc)) {
	case ERR_NOT_FOUND:
	case ERR_GAP:
	case ERR_DAMAGED:
		return true;
	default:
		return false;
	}
}

static int update(struct follow *f, const struct moment *m, struct follow_news *news,
                  struct err *err)
{
	struct err why = ERR_INIT;

	if (!f->known || f->at.lineage != m->lineage || f->at.page_size != m->page_size)
		return copy_whole(f, m, news, err);
	int rc = apply_span(f, m, news, &why);
	if (!span_may_fail(rc))
		return rc ? err_copy(err, &why) : 0;
	log_info("follow", "the standby is compared as a whole target=%s: %s", f->place.path,
	         why.msg);
	return copy_whole(f, m, news, err);
}

/* At the newest commit it is the replicator's word that counts, behind it the commit's own time. */
static int64_t lag_of(struct follow *f, const struct moment *m)
{
	struct history_status s;
	int64_t known_us = m->time_us;

	if (history_get_status(f->history, &s, NULL) == 0 && s.last_txid == m->txid &&
	    s.known_until_us > known_us)
		known_us = s.known_until_us;
	int64_t us = clock_now_us() - known_us;
	return us > 0 ? us : 0;
}

static void tell_idle(struct follow *f, const struct moment *m)
{
	struct follow_news news = {.moment = *m, .idle = true};
	int64_t now_us = clock_mono_us();

	if (!f->options->tell || f->options->once || now_us - f->told_us < US_PER_SECOND)
		return;
	f->told_us = now_us;
	news.lag_us = lag_of(f, m);
	f->options->tell(f->options->ctx, &news);
}

/* *ret_done: up to date. */
static int follow_round(struct follow *f, bool *ret_done, struct err *err)
{
	struct follow_news news = {0};
	struct err why = ERR_INIT;
	struct moment m;
	int rc = history_latest(f->history, &m, err);

	if (rc)
		return rc;
	*ret_done = f->known && f->at.txid == m.txid;
	if (*ret_done) {
		tell_idle(f, &m);
		return 0;
	}
	rc = update(f, &m, &news, &why);
	news.moment = m;
	news.lag_us = lag_of(f, &m);
	news.waiting = err_kind_of(rc) == ERR_BUSY && !f->options->once;
	if (rc && !news.waiting)
		return err_copy(err, &why);
	*ret_done = news.waiting;
	if (f->options->tell)
		f->options->tell(f->options->ctx, &news);
	return 0;
}

/* ---- beginning ---- */

static int take_lock(struct follow *f, struct err *err)
{
	char name[RESTORE_NAME_MAX];
	struct stat a, b;

	snprintf(name, sizeof(name), "%s" FOLLOW_LOCK_SUFFIX, f->place.name);
	for (int tries = 0; tries < 5; tries++) {
		cleanup_fd int fd = -1;
		int rc = file_open(f->place.dir_fd, name, O_RDWR | O_CREAT | O_NOFOLLOW, 0600, &fd,
		                   err);
		if (rc)
			return rc;
		if (file_lock(fd, name, NULL))
			break;
		/* Whoever had it may have removed the name before letting go. */
		if (fstat(fd, &a) == 0 &&
		    fstatat(f->place.dir_fd, name, &b, AT_SYMLINK_NOFOLLOW) == 0 &&
		    a.st_ino == b.st_ino && a.st_dev == b.st_dev) {
			f->lock_fd = take_fd(&fd);
			return 0;
		}
	}
	return err_set(err, ERR_BUSY, 0, "another follower keeps '%s' up to date", f->place.path);
}

/* Not the primary itself, by whatever name. */
static int refuse_primary(struct follow *f, const struct found *found, struct err *err)
{
	struct history_status status;
	struct stat st;
	int rc = history_get_status(f->history, &status, err);

	if (rc)
		return rc;
	bool same = strcmp(status.source_path, f->place.path) == 0 ||
	            (found->exists && stat(status.source_path, &st) == 0 &&
	             st.st_dev == found->st.st_dev && st.st_ino == found->st.st_ino);
	if (same || found->replicated)
		return err_set(err, ERR_REFUSED, 0,
		               "'%s' is the live database (-o names the standby)", f->place.path);
	return 0;
}

/* The commit that the note tells of; without it, all is compared. */
static void recall(struct follow *f, uint64_t txid, uint32_t page_size)
{
	cleanup_view struct view *v = NULL;

	if (view_open(f->history, txid, &v, NULL) || view_moment(v)->page_size != page_size ||
	    view_page(v, 1, f->page_one, NULL))
		return;
	f->at = *view_moment(v);
	f->known = true;
}

static int check_standby(struct follow *f, struct err *err)
{
	struct hash128 sum;
	uint32_t page_size;
	bool recovered;
	int rc;

	if ((rc = inplace_recover(&f->place, &recovered, err)) ||
	    (rc = sum_file(f, &sum, &page_size, err)))
		return rc;
	if (f->note.next_txid && hash128_equal(sum, f->note.next_state)) {
		f->note.txid = f->note.next_txid;
		f->note.state = sum;
	}
	if (f->note.txid && hash128_equal(sum, f->note.state)) {
		recall(f, f->note.txid, page_size);
		return 0;
	}
	/* A first copy, or one of a commit without a checksum, can be anything that it wrote. */
	bool unsure = f->note.txid == 0 || hash128_zero(f->note.state) ||
	              (f->note.next_txid && hash128_zero(f->note.next_state));
	if (unsure || f->options->force)
		return 0;
	return err_set(err, ERR_REFUSED, 0,
	               "'%s' was written to by somebody else since txid %" PRIu64
	               " (move it away, or --force makes it a standby again)",
	               f->place.path, f->note.txid);
}

/* What one left that died while it wrote it. */
static void remove_torn_note(const struct follow *f)
{
	char name[RESTORE_NAME_MAX];

	snprintf(name, sizeof(name), "%s" FOLLOW_NOTE_SUFFIX ".tmp", f->place.name);
	unlinkat(f->place.dir_fd, name, 0);
}

static int begin(struct follow *f, const char *target, struct err *err)
{
	struct err why = ERR_INIT;
	struct found found;
	int rc;

	if ((rc = place_open(target, &f->place, err)) ||
	    (rc = restore_refuse_inside(&f->place, archive_root(f->archive), err)) ||
	    (rc = look(&f->place, NULL, &found, err)) || (rc = refuse_primary(f, &found, err)) ||
	    (rc = take_lock(f, err)))
		return rc;
	remove_torn_note(f);
	rc = follow_note_get(&f->place, &f->note, &why);
	bool ours = rc == 0 && strcmp(f->note.database, history_name(f->history)) == 0;
	if (rc && err_kind_of(rc) != ERR_NOT_FOUND && !f->options->force)
		return err_copy(err, &why);
	if (found.exists && !ours && !f->options->force)
		return err_set(err, ERR_EXISTS, 0,
		               "'%s' exists and is no standby of '%s' (-o names another file, "
		               "--force replaces it)",
		               f->place.path, history_name(f->history));
	if (found.exists && ours)
		return check_standby(f, err);
	f->note = (struct follow_note){0};
	snprintf(f->note.database, sizeof(f->note.database), "%s", history_name(f->history));
	return 0;
}

static bool go_on(const struct follow *f, int64_t us)
{
	return !f->options->wait || f->options->wait(f->options->ctx, us);
}

int follow_run(struct archive *a, struct history *h, const char *target,
               const struct follow_options *options, struct err *err)
{
	struct follow *f = calloc(1, sizeof(*f));
	bool done = false;

	if (!f)
		return err_set(err, ERR_NOMEM, 0, "out of memory");
	f->archive = a;
	f->history = h;
	f->options = options;
	f->place.dir_fd = f->lock_fd = -1;
	int rc = begin(f, target, err);
	while (!rc && go_on(f, done ? POLL_US : 0)) {
		rc = follow_round(f, &done, err);
		if (!rc && done && options->once)
			break;
	}
	follow_release(f);
	free(f);
	return rc ? err_wrap(err, rc, "follow '%s'", history_name(h)) : 0;
}
