/* SPDX-License-Identifier: Apache-2.0 */
/*
 * --delta: what the present file has already is not written again.  Three ways, the first of which
 * that can be:
 *
 *   in place   one transaction on the present file (inplace.c): the pages that differ are written,
 *              once as they were to the journal, once as they become.  To every client of SQLite the
 *              database is the old one or the new one, at each moment and after each crash.  Only
 *              where nobody has it open, the replicator included: that would take the new state
 *              for commits which it missed, since the file is the same; a new file is a
 *              restore to it, and begins a child lineage.
 *   shared     a new file that begins as a clone of the old one (FICLONE: XFS, btrfs, bcachefs),
 *              into which the pages that differ are written, and that is renamed in.
 *   whole      where blocks cannot be shared (ext4): a new file, all of it written.  Copying the
 *              equal pages from the present file would write just as much.  So too when
 *              the image comes in order only (gzip of others), or has another page size.
 *
 * In place nothing of the old file stays but what a safety backup kept of it.
 */
#include "engine/restore/restore_i.h"

#include "engine/base/bitset.h"
#include "engine/base/cleanup.h"
#include "engine/base/clock.h"
#include "engine/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#define PIECE_BYTES ((size_t)1 << 20)
#define PROGRESS_EVERY_US 50000
#define PATIENCE_US (5 * US_PER_SECOND)

_Static_assert(PIECE_BYTES % PAGE_SIZE_MAX == 0, "a piece holds whole pages");

struct delta {
	const struct restore_image *new, *old;
	struct restore_file *present;
	const struct restore_options *options;
	struct inplace *transaction; /* NULL: only compare */
	struct delta_plan plan;
	struct bitset write; /* pages to be written */
	uint32_t page_size;
	uint8_t *new_piece, *old_piece;
};

static void delta_release(struct delta *d)
{
	restore_file_free(d->present);
	bitset_release(&d->write);
	free(d->new_piece);
	free(d->old_piece);
}

static int open_present(const struct restore_image *image, const struct place *p, struct delta *d,
                        struct err *err)
{
	int rc = restore_file_open(p->path, &d->present, err);

	if (rc)
		return rc;
	d->new = image;
	d->old = restore_file_image(d->present);
	d->page_size = image->page_size;
	if (restore_file_kind(d->present) != RESTORE_FILE_DATABASE || !d->old->read ||
	    d->old->page_size != image->page_size)
		return err_set(err, ERR_REFUSED, 0, "'%s' has nothing in common with the image",
		               p->path);
	d->new_piece = malloc(PIECE_BYTES);
	d->old_piece = malloc(PIECE_BYTES);
	if (!d->new_piece || !d->old_piece)
		return err_set(err, ERR_NOMEM, 0, "out of memory");
	return 0;
}

bool delta_possible(const struct restore_image *image, const struct place *p)
{
	CLEANUP(delta_release) struct delta d = {0};

	return image->read && open_present(image, p, &d, NULL) == 0;
}

/* ---- comparing ---- */

static int compare_page(struct delta *d, uint32_t pgno, const uint8_t *new, const uint8_t *old,
                        struct err *err)
{
	bool in_wal = restore_file_overlays(d->present, pgno), differs;
	int rc = 0;

	if (pgno == lock_page(d->page_size))
		return 0;
	if (new)
		state_add(&d->plan.state, page_hash(pgno, new, d->page_size));
	differs = !new || !old || memcmp(new, old, d->page_size) != 0;
	if (!differs && !in_wal)
		return 0;
	if (old) {
		d->plan.n_save++;
		if (d->transaction)
			rc = inplace_save(d->transaction, pgno, old, err);
	}
	if (new && !rc) {
		d->plan.n_differ++;
		rc = bitset_add(&d->write, pgno, err);
	}
	return rc;
}

/* What there is of [offset, offset + PIECE_BYTES). */
static int read_piece(const struct restore_image *image, uint64_t offset, uint8_t *buf,
                      size_t *ret_len, struct err *err)
{
	uint64_t left = offset < image->size_bytes ? image->size_bytes - offset : 0;

	*ret_len = left < PIECE_BYTES ? (size_t)left : PIECE_BYTES;
	return *ret_len ? image->read(image->ctx, offset, buf, *ret_len, err) : 0;
}

static int compare_piece(struct delta *d, uint64_t offset, struct err *err)
{
	size_t n_new, n_old;
	uint32_t pgno = (uint32_t)(offset / d->page_size) + 1;
	int rc;

	if ((rc = read_piece(d->new, offset, d->new_piece, &n_new, err)) ||
	    (rc = read_piece(d->old, offset, d->old_piece, &n_old, err)))
		return rc;
	for (size_t at = 0; (at < n_new || at < n_old) && !rc; at += d->page_size, pgno++)
		rc = compare_page(d, pgno, at < n_new ? d->new_piece + at : NULL,
		                  at < n_old ? d->old_piece + at : NULL, err);
	return rc;
}

static int compare_all(struct delta *d, struct err *err)
{
	uint64_t end =
	        d->new->size_bytes > d->old->size_bytes ? d->new->size_bytes : d->old->size_bytes;
	const struct restore_options *o = d->options;
	int64_t reported_us = 0;

	if (d->new->expect)
		d->new->expect(d->new->ctx);
	for (uint64_t offset = 0; offset < end; offset += PIECE_BYTES) {
		int rc = compare_piece(d, offset, err);
		if (rc)
			return rc;
		if (!o->progress || clock_mono_us() - reported_us < PROGRESS_EVERY_US)
			continue;
		reported_us = clock_mono_us();
		if (!o->progress(o->ctx, offset, end))
			return err_set(err, ERR_CANCELLED, 0, "cancelled");
	}
	if (!hash128_zero(d->new->state) && !hash128_equal(d->new->state, d->plan.state))
		return err_set(err, ERR_DAMAGED, 0,
		               "what the archive gives for %s is not what was committed: its state "
		               "checksum differs",
		               d->new->label);
	return 0;
}

int delta_compare(const struct restore_image *image, const struct place *p,
                  const struct restore_options *options, struct delta_plan *ret, struct err *err)
{
	CLEANUP(delta_release) struct delta d = {.options = options};
	int rc = open_present(image, p, &d, err);

	if (rc || (rc = compare_all(&d, err)))
		return rc;
	*ret = d.plan;
	return 0;
}

/* ---- doing it ---- */

/* Now that the journal has what they say. */
static int remove_sides(const struct place *p, struct err *err)
{
	static const int sides[] = {SIDE_WAL, SIDE_SHM};
	char name[RESTORE_NAME_MAX];

	for (int i = 0; i < 2; i++) {
		snprintf(name, sizeof(name), "%s%s", p->name, side_suffixes[sides[i]]);
		if (unlinkat(p->dir_fd, name, 0) < 0 && errno != ENOENT)
			return err_set(err, ERR_IO, errno, "remove '%s/%s'", p->dir, name);
	}
	return file_sync_dir(p->dir_fd, p->dir, err);
}

static int write_pages(struct delta *d, struct err *err)
{
	for (size_t w = 0; w < d->write.used; w++) {
		for (uint64_t bits = d->write.words[w]; bits; bits &= bits - 1) {
			uint32_t pgno = (uint32_t)(w * 64) + (uint32_t)__builtin_ctzll(bits);
			int rc = d->new->read(d->new->ctx, (uint64_t)(pgno - 1) * d->page_size,
			                      d->new_piece, d->page_size, err);
			if (rc || (rc = inplace_write(d->transaction, pgno, d->new_piece, err)))
				return rc;
		}
	}
	return 0;
}

/* A disk that is too small is found out while nothing has changed. */
static int reserve(const struct delta *d, struct err *err)
{
	if (d->new->size_bytes <= d->old->size_bytes ||
	    fallocate(d->transaction->fd, FALLOC_FL_KEEP_SIZE, (off_t)d->old->size_bytes,
	              (off_t)(d->new->size_bytes - d->old->size_bytes)) == 0 ||
	    errno == EOPNOTSUPP || errno == ENOSYS)
		return 0;
	return err_set(err, ERR_IO, errno, "'%s' is to grow", d->transaction->place->path);
}

int delta_apply(const struct restore_image *image, const struct place *p,
                const struct restore_options *options, uint64_t *ret_written, struct err *err)
{
	CLEANUP(inplace_end) struct inplace x = {.fd = -1, .journal_fd = -1, .place = p};
	CLEANUP(delta_release) struct delta d = {.options = options, .transaction = &x};
	int rc;

	if ((rc = inplace_begin(&x, p, image->page_size, 0, PATIENCE_US, err)) ||
	    (rc = open_present(image, p, &d, err)))
		return rc;
	x.old_pages = (uint32_t)(d.old->size_bytes / d.page_size);
	if ((rc = compare_all(&d, err)) || (rc = reserve(&d, err)) ||
	    (rc = inplace_seal(&x, err)) || (rc = remove_sides(p, err)) ||
	    (rc = write_pages(&d, err)) ||
	    (rc = inplace_commit(&x, (uint32_t)(image->size_bytes / d.page_size), err)))
		return rc;
	*ret_written = x.written_bytes;
	return 0;
}
