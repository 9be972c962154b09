/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What objects there are.  The folders are listed anew only when the head's generation has
 * moved; in between, only the growing segment's durable length is followed.
 */
#include "engine/view/history_i.h"

#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/base/log.h"

#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>

/* Objects kept open though no view uses them. */
#define WALKED_BYTES (8u << 20) /* a segment of level 0 up to it is read whole at once */
#define OPEN_MAX_IDLE 128u
#define OPEN_MIN_IDLE 8u /* however many databases there are */
#define REFRESH_US 100000
#define BROKEN_LOOK_US (5 * INT64_C(1000000))

static int entry_compare(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	if (x->name.first_txid != y->name.first_txid)
		return x->name.first_txid < y->name.first_txid ? -1 : 1;
	if (x->name.last_txid != y->name.last_txid)
		return x->name.last_txid < y->name.last_txid ? -1 : 1;
	return 0;
}

int entries_add(struct entries *es, const struct entry *e, struct err *err)
{
	if (es->n == es->cap) {
		size_t cap = es->cap ? 2 * es->cap : 64;
		struct entry *p = realloc(es->e, cap * sizeof(*p));
		if (!p)
			return err_set(err, ERR_NOMEM, 0, "no memory to list an archive");
		es->e = p;
		es->cap = cap;
	}
	es->e[es->n++] = *e;
	return 0;
}

void entries_sort(struct entries *es)
{
	if (es->n)
		qsort(es->e, es->n, sizeof(*es->e), entry_compare);
}

void entries_release(struct history *h, struct entries *es)
{
	for (size_t i = 0; i < es->n; i++) {
		if (es->e[i].open)
			h->n_open--;
		object_unref(es->e[i].open);
	}
	free(es->e);
	*es = (struct entries){0};
}

void catalog_keep_open(struct entries *old, struct entry *e)
{
	size_t lo = 0, hi = old->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (old->e[mid].name.first_txid < e->name.first_txid)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (; lo < old->n && old->e[lo].name.first_txid == e->name.first_txid; lo++) {
		struct entry *o = &old->e[lo];
		if (strcmp(o->file, e->file) != 0 || o->modified_us != e->modified_us)
			continue;
		e->place = o->place;
		e->distrusted = o->distrusted;
		if (o->open && !o->broken) {
			e->open = take_ptr(o->open);
			e->name = o->name;
			e->used = o->used;
		}
		return;
	}
}

/* Only names of the folder's own kind count; in `coalesced` they look like sealed ones. */
bool catalog_belongs(struct object_name *n, enum object_type folder)
{
	switch (folder) {
	case OBJECT_SNAPSHOT:
		return n->type == OBJECT_SNAPSHOT;
	case OBJECT_COALESCED:
		if (n->type != OBJECT_SEALED)
			return false;
		n->type = OBJECT_COALESCED;
		return true;
	default:
		return n->type == OBJECT_SEALED || n->type == OBJECT_GROWING;
	}
}

static int list_folder(struct history *h, int fd, enum object_type folder, struct entries *es,
                       struct err *err)
{
	cleanup_dir DIR *dir = NULL;
	struct entries fresh = {0};
	struct dirent *d;
	int rc = 0;

	if (fd < 0)
		return 0;
	int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dir = copy < 0 ? NULL : fdopendir(copy);
	if (!dir) {
		rc = err_set(err, ERR_IO, errno, "list the archive of '%s'", h->name);
		if (copy >= 0)
			close(copy);
		return rc;
	}
	while (rc == 0 && (d = readdir(dir))) {
		struct entry e = {0};
		struct stat st;
		if (!object_name_parse(d->d_name, &e.name) || !catalog_belongs(&e.name, folder))
			continue;
		snprintf(e.file, sizeof(e.file), "%.190s", d->d_name);
		if (fstatat(fd, d->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0)
			e.bytes = (uint64_t)st.st_size;
		catalog_keep_open(es, &e);
		rc = entries_add(&fresh, &e, err);
	}
	entries_release(h, es); /* what was kept open is no longer in it, and stays counted */
	*es = fresh;
	entries_sort(es);
	return rc;
}

static int read_thinned(struct history *h, struct err *err)
{
	struct thinned_note n = {0};
	struct err why = ERR_INIT;

	int rc = thinned_note_get(h->dir_fd, &n, &why);
	if (rc < 0 && why.kind == ERR_DAMAGED) {
		/* What is behind it can still be had; what was thinned is now taken for lost, which
		 * is an error, too, and no other state. */
		log_error("view", "note unreadable db=%s: %s", h->name, why.msg);
		return 0;
	}
	if (rc < 0 && why.kind != ERR_NOT_FOUND)
		return err_copy(err, &why);
	thinned_note_release(&h->thinned);
	h->thinned = n;
	return 0;
}

static int list_notes(struct history *h, struct err *err)
{
	cleanup_dir DIR *dir = NULL;
	struct dirent *d;
	size_t cap = 0;

	int copy = openat(h->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dir = copy < 0 ? NULL : fdopendir(copy);
	if (!dir) {
		if (copy >= 0)
			close(copy);
		return err_set(err, ERR_IO, errno, "list the archive of '%s'", h->name);
	}
	int rc = read_thinned(h, err);
	if (rc < 0)
		return rc;
	free(h->gaps);
	h->gaps = NULL;
	h->n_gaps = 0;
	while ((d = readdir(dir))) {
		struct object_name n;
		uint64_t txid;
		if (object_name_parse(d->d_name, &n) && n.type == OBJECT_LINEAGE) {
			h->lineage = n.lineage > h->lineage ? n.lineage : h->lineage;
			if ((rc = jumps_read_note(h, d->d_name, n.lineage, err)) < 0)
				return rc;
		}
		if (strlen(d->d_name) != 20 || !gap_name_parse(d->d_name, &txid))
			continue;
		if (h->n_gaps == cap) {
			cap = cap ? 2 * cap : 8;
			struct gap_note *p = realloc(h->gaps, cap * sizeof(*p));
			if (!p)
				return err_set(err, ERR_NOMEM, 0, "no memory to list gaps");
			h->gaps = p;
		}
		struct err why = ERR_INIT;
		if (gap_note_get(h->dir_fd, d->d_name, &h->gaps[h->n_gaps], &why) < 0)
			log_warn("view", "gap note unreadable db=%s: %s", h->name, why.msg);
		else
			h->n_gaps++;
	}
	for (size_t i = 1; i < h->n_gaps; i++) /* few, and nearly sorted */
		for (size_t j = i; j > 0 && h->gaps[j - 1].after_txid > h->gaps[j].after_txid;
		     j--) {
			struct gap_note t = h->gaps[j];
			h->gaps[j] = h->gaps[j - 1];
			h->gaps[j - 1] = t;
		}
	return 0;
}

/* A growing segment tells its extent only from within. */
static void take_extent(struct entry *e)
{
	struct commit first, last;
	uint64_t n = grow_n_commits(e->open->grow);

	e->name.last_txid = 0;
	e->name.first_us = e->name.last_us = 0;
	if (n == 0 || !grow_get_commit(e->open->grow, 0, &first) ||
	    !grow_get_commit(e->open->grow, n - 1, &last))
		return;
	e->name.last_txid = last.txid;
	e->name.first_us = first.time_us;
	e->name.last_us = last.time_us;
	e->name.min_pages = last.min_pages;
}

static int follow_growing(struct history *h, struct entry *e, struct err *err)
{
	struct object *o = NULL;
	uint64_t len;

	int rc = catalog_open(h, &h->segments, e, &o, err);
	if (rc < 0)
		return rc;
	bool current = h->have_head && h->head.growing_txid == e->name.first_txid &&
	               h->head.lineage == e->name.lineage;
	if (current)
		rc = grow_refresh(o->grow, h->head.durable_len, err);
	else
		rc = grow_refresh_all(o->grow, &len, err);
	take_extent(e);
	object_unref(o);
	return rc;
}

/* A writer that ended before its first fsync leaves a file without so much as a whole header. */
static bool holds_nothing(const struct history *h, const struct entry *e)
{
	bool told = h->have_head && h->head.growing_txid == e->name.first_txid &&
	            h->head.durable_len > GROW_HEADER_SIZE;
	return e->bytes <= GROW_HEADER_SIZE && !told;
}

static bool is_snapshot(const struct history *h, uint64_t txid)
{
	for (size_t i = 0; i < h->snapshots.n; i++)
		if (h->snapshots.e[i].name.last_txid == txid)
			return true;
	return false;
}

/* The first txid from `t` on that no other segment than number `i` holds: what was copied from several
 * places can overlap. */
static uint64_t held_by_others(const struct history *h, size_t i, uint64_t t)
{
	for (size_t k = 0; k < h->segments.n; k++) {
		const struct entry *e = &h->segments.e[k];
		if (k != i && !e->broken && e->name.first_txid <= t && e->name.last_txid >= t)
			t = e->name.last_txid + 1;
	}
	return t;
}

/* What a child lineage goes on behind was told of when that began, and is told by status and health for
 * as long as it is so: not by everybody who lists. */
static enum log_level damage_level(const struct history *h, const struct entry *e)
{
	return jumps_bound(h, e->name.first_txid, UINT64_MAX) == UINT64_MAX ? LOG_ERROR : LOG_DEBUG;
}

/* A growing segment that its writer left looks torn where it is damaged.  What follows it, and the
 * head, tell how far it must reach (a snapshot may hold a state that was found idle). */
static void find_cut_short(struct history *h)
{
	for (size_t i = 0; i < h->segments.n; i++) {
		struct entry *e = &h->segments.e[i];
		uint64_t t = e->name.last_txid ? e->name.last_txid + 1 : e->name.first_txid;
		/* The head can be older than the listing: it is believed about its own segment. */
		bool told = h->have_head && h->head.growing_txid == e->name.first_txid &&
		            h->head.lineage == e->name.lineage;
		bool newest = i + 1 == h->segments.n;
		uint64_t end = !told && !newest ? h->segments.e[i + 1].name.first_txid
		               : h->have_head   ? h->head.last_txid + 1
		                                : 0;
		if (!told)
			end = jumps_bound(h, e->name.first_txid, end);
		if (e->name.type != OBJECT_GROWING || e->broken)
			continue;
		if (t <= h->thinned.until_txid) /* what comes next may have been deleted */
			t = h->thinned.until_txid + 1;
		if (t < end)
			t = held_by_others(h, i, t);
		while (t < end && is_snapshot(h, t))
			t++;
		if (t < end) {
			log_write(damage_level(h, e), "view",
			          "segment ends early db=%s: '%s' lacks transaction %" PRIu64,
			          h->name, e->file, t);
			e->broken = true;
		}
	}
}

/* What cannot be read still has its place, and its time, between its neighbours; so has what
 * holds nothing yet. */
static void place_untold(const struct history *h, struct entries *es)
{
	for (size_t i = 0; i < es->n; i++) {
		struct object_name *n = &es->e[i].name;
		if (!es->e[i].broken && n->last_txid != 0)
			continue;
		uint64_t next = i + 1 < es->n ? es->e[i + 1].name.first_txid : UINT64_MAX;
		uint64_t end = es->e[i].broken ? jumps_bound(h, n->first_txid, next) : UINT64_MAX;
		if (end != UINT64_MAX && (end == next || end > n->last_txid))
			n->last_txid = end - 1;
		if (n->first_us == 0 && i > 0)
			n->first_us = n->last_us = es->e[i - 1].name.last_us;
		if (i + 1 < es->n && es->e[i + 1].name.type != OBJECT_GROWING)
			n->last_us = es->e[i + 1].name.first_us;
	}
}

/* In a directory that is a destination: what is no longer than a header can be a fence before a gap. */
static bool take_fence(struct history *h, const struct entry *e)
{
	uint8_t header[GROW_HEADER_SIZE];
	cleanup_fd int fd = -1;
	uint64_t goes_on = 0;
	size_t n = 0;

	if (e->bytes != GROW_HEADER_SIZE || e->lent ||
	    file_open(h->segment_fd, e->file, O_RDONLY, 0, &fd, NULL) < 0 ||
	    file_pread_some(fd, header, sizeof(header), 0, &n, e->file, NULL) < 0 ||
	    grow_fence_get(header, n, e->file, e->name.lineage, e->name.first_txid, &goes_on,
	                   NULL) < 0 ||
	    goes_on <= e->name.first_txid)
		return false;
	const struct jump j = {.lineage = e->name.lineage,
	                       .from_txid = e->name.first_txid - 1,
	                       .first_txid = goes_on,
	                       .told_txid = e->name.first_txid - 1};
	return jumps_add(h, &j, NULL) == 0;
}

/* Opens every growing segment; drops those that have a sealed one.  *ret_current is false when
 * one is gone: the listing was overtaken.  Fails for a newer format only. */
static int settle_growing(struct history *h, bool *ret_current, struct err *err)
{
	size_t kept = 0;
	int rc = 0;

	*ret_current = true;

	for (size_t i = 0; i < h->segments.n; i++) {
		struct entry *e = &h->segments.e[i];
		bool drop = false;
		if (e->name.type == OBJECT_GROWING && take_fence(h, e)) {
			drop = true;
		} else if (e->name.type == OBJECT_GROWING) {
			struct err why = ERR_INIT;
			for (size_t j = 0; j < h->segments.n; j++) {
				const struct object_name *s = &h->segments.e[j].name;
				if (s->type == OBJECT_SEALED && s->lineage == e->name.lineage &&
				    s->first_txid <= e->name.first_txid &&
				    s->last_txid >= e->name.first_txid)
					drop = true;
			}
			if (!drop && follow_growing(h, e, &why) < 0) {
				e->broken = !holds_nothing(h, e);
				e->unread = why.kind;
				if (resolve_vanished(&why))
					*ret_current = false;
				else if (why.kind == ERR_VERSION)
					rc = err_copy(err, &why);
				else if (e->broken && !h->quiet)
					log_write(damage_level(h, e), "view",
					          "segment unreadable db=%s: %s", h->name, why.msg);
			}
		}
		if (drop) {
			if (e->open)
				h->n_open--;
			object_unref(e->open);
		} else {
			h->segments.e[kept++] = *e;
		}
	}
	h->segments.n = kept;
	find_cut_short(h);
	place_untold(h, &h->segments);
	jumps_settle(h);
	h->has_broken = false;
	for (size_t i = 0; i < h->segments.n; i++)
		h->has_broken = h->has_broken || h->segments.e[i].broken;
	return rc;
}

static int open_folders(struct history *h, struct err *err)
{
	static const char *const names[] = {"snapshot", "segment", "coalesced"};
	int *fds[] = {&h->snapshot_fd, &h->segment_fd, &h->coalesced_fd};

	for (size_t i = 0; i < 3; i++) {
		if (*fds[i] >= 0)
			continue;
		struct err why = ERR_INIT;
		int rc = file_open_dir(h->dir_fd, names[i], false, fds[i], &why);
		if (rc < 0 && why.kind != ERR_NOT_FOUND)
			return err_copy(err, &why);
	}
	return 0;
}

int catalog_list(struct history *h, struct err *err)
{
	int rc = open_folders(h, err);

	bool current = false;
	for (int tries = 0; rc == 0 && !current && tries < 3; tries++) {
		rc = list_folder(h, h->snapshot_fd, OBJECT_SNAPSHOT, &h->snapshots, err);
		if (rc == 0)
			rc = list_folder(h, h->segment_fd, OBJECT_SEALED, &h->segments, err);
		if (rc == 0)
			rc = list_folder(h, h->coalesced_fd, OBJECT_COALESCED, &h->coalesced, err);
		if (rc == 0)
			rc = borrow_add(h, err);
		if (rc == 0) /* after what they tell of: what was thinned may go now */
			rc = list_notes(h, err);
		if (rc == 0)
			rc = settle_growing(h, &current, err);
	}
	return rc;
}

/* No head, or a torn one, is no trouble: the objects tell.  A newer one is. */
static int read_head(struct history *h, struct err *err)
{
	struct err why = ERR_INIT;

	h->have_head = false;
	if (h->head_fd < 0 && file_open(h->dir_fd, HEAD_NAME, O_RDONLY, 0, &h->head_fd, &why) < 0)
		return 0;
	h->have_head = head_read(h->head_fd, &h->head, &why) == 0;
	if (!h->have_head)
		h->head = (struct head){0};
	return why.kind == ERR_VERSION ? err_copy(err, &why) : 0;
}

int catalog_refresh(struct history *h, bool now, struct err *err)
{
	if (h->in_bucket)
		return bucket_refresh(h, now, err);
	int64_t mono = clock_mono_us();
	uint64_t len = h->head.durable_len, txid = h->head.growing_txid;

	if (h->listed && !now && mono - h->refreshed_us < REFRESH_US)
		return 0;
	int rc = read_head(h, err);
	if (rc < 0)
		return rc;
	h->refreshed_us = mono;
	if (!h->listed || !h->have_head || h->head.generation != h->listed_generation ||
	    h->head.growing_txid != txid ||
	    (h->has_broken && mono - h->relisted_us > BROKEN_LOOK_US)) {
		h->relisted_us = mono;
		rc = catalog_list(h, err);
		if (rc < 0)
			return rc;
		h->listed = true;
		h->listed_generation = h->head.generation;
		return 0;
	}
	if (h->head.durable_len == len)
		return 0;
	for (size_t i = h->segments.n; i-- > 0;) {
		struct entry *e = &h->segments.e[i];
		if (e->name.type == OBJECT_GROWING && e->name.first_txid == txid) {
			struct err why = ERR_INIT;
			e->broken = follow_growing(h, e, &why) < 0;
			e->unread = why.kind;
			if (e->broken && !h->quiet) /* what lies before it can still be had */
				log_error("view", "segment unreadable db=%s: %s", h->name, why.msg);
			return 0;
		}
	}
	return catalog_list(h, err);
}

void catalog_release(struct history *h)
{
	entries_release(h, &h->snapshots);
	entries_release(h, &h->segments);
	entries_release(h, &h->coalesced);
	entries_release(h, &h->fences);
	entries_release(h, &h->lent.snapshots);
	entries_release(h, &h->lent.segments);
	entries_release(h, &h->shunned);
	thinned_note_release(&h->thinned);
	free(h->gaps);
	free(h->lineages);
}

static size_t max_idle(const struct history *h)
{
	size_t n = h->archive->n_histories;
	size_t share = h->archive->idle_files / (n ? n : 1); /* 0: this one is being opened */

	return share < OPEN_MIN_IDLE   ? OPEN_MIN_IDLE
	       : share < OPEN_MAX_IDLE ? share
	                               : OPEN_MAX_IDLE;
}

static void close_idle(struct history *h)
{
	struct entries *all[] = {&h->snapshots, &h->segments, &h->coalesced};
	size_t max = max_idle(h);

	while (h->n_open > max) {
		struct entry *oldest = NULL;
		for (size_t i = 0; i < 3; i++) {
			for (size_t j = 0; j < all[i]->n; j++) {
				struct entry *e = &all[i]->e[j];
				if (e->open && e->open->refs == 1 &&
				    (e->name.type != OBJECT_GROWING || h->in_bucket) &&
				    (!oldest || e->used < oldest->used))
					oldest = e;
			}
		}
		if (!oldest)
			return;
		object_unref(oldest->open);
		oldest->open = NULL;
		h->n_open--;
	}
}

/* The trailer must tell what the name tells. */
static int check_name(const struct entry *e, const struct object *o, struct err *err)
{
	const struct object_name *n = &e->name;
	bool ok;

	if (o->sealed) {
		const struct sealed_info *i = sealed_get_info(o->sealed);
		ok = i->lineage == n->lineage && i->first_txid == n->first_txid &&
		     i->last_txid == n->last_txid && i->first_us == n->first_us &&
		     i->last_us == n->last_us && i->min_pages == n->min_pages &&
		     (i->kind == SEALED_COALESCED) == (n->type == OBJECT_COALESCED);
	} else if (o->snapshot) {
		const struct snapshot_info *i = snapshot_get_info(o->snapshot);
		ok = i->lineage == n->lineage && i->txid == n->last_txid &&
		     i->redo_txid + 1 == n->first_txid && i->time_us == n->last_us;
	} else {
		const struct grow_info *i = grow_reader_info(o->grow);
		ok = i->lineage == n->lineage && i->first_txid == n->first_txid;
	}
	return ok ? 0
	          : err_set(err, ERR_DAMAGED, 0,
	                    "'%s' is damaged: its content is that of another object", e->file);
}

static const char *folder_of(const struct history *h, const struct entries *in)
{
	return in == &h->snapshots ? "snapshot" : in == &h->segments ? "segment" : "coalesced";
}

static int open_source(struct history *h, struct entries *in, const struct entry *e, size_t place,
                       struct source **ret, struct err *err)
{
	char key[STORE_KEY_MAX];
	int fd = in == &h->snapshots  ? h->snapshot_fd
	         : in == &h->segments ? h->segment_fd
	                              : h->coalesced_fd;

	snprintf(key, sizeof(key), "local/%s/%s/%s", h->name, folder_of(h, in), e->file);
	if (!h->in_bucket && h->archive->n_stores == 1)
		return source_open_file(fd, e->file, key, ret, err);
	bool listed = h->in_bucket && place == 0;
	return store_reader_open(h->archive->reader, place, key, listed ? e->bytes : UINT64_MAX,
	                         listed ? e->modified_us : 0, ret, err);
}

void catalog_expect(struct history *h, struct entries *in, const struct entry *e)
{
	cleanup_source struct source *src = NULL;
	struct err ignored = ERR_INIT; /* who opens it is told */

	if (!e->open && e->name.type != OBJECT_GROWING &&
	    open_source(h, in, e, e->place, &src, &ignored) == 0)
		source_expect(src, SOURCE_END);
}

/* Its name is that of a fork's, too, which the bytes do not tell. */
static int check_way(struct history *h, const struct entry *e, const struct object *o,
                     struct err *err)
{
	uint64_t n = grow_n_commits(o->grow);
	struct commit last = {.txid = e->name.first_txid};

	if (n)
		grow_get_commit(o->grow, n - 1, &last);
	if (borrow_is_shared(h, o->place, last.txid))
		return 0;
	log_warn("view", "cannot stand in db=%s place=%s: nothing proves that its '%s' is the same",
	         h->name, h->archive->stores[o->place]->label, e->file);
	return err_set(err, ERR_DAMAGED, 0,
	               "'%s' is missing or damaged, and nothing proves that the one in '%.80s' is "
	               "the same (another history may have parted there)",
	               e->file, h->archive->stores[o->place]->label);
}

/* Of a bucket, a segment with a growing one's name is whole. */
static int take_whole(struct history *h, struct entry *e, struct source *src, struct object *o,
                      struct err *err)
{
	uint64_t bytes = 0;

	int rc = src->size(src, &bytes, err);
	rc = rc ? rc : grow_refresh(o->grow, bytes, err);
	rc = rc ? rc : check_way(h, e, o, err);
	return rc ? rc : bucket_take_extent(h, e, o, err);
}

static int open_at(struct history *h, struct entries *in, struct entry *e, size_t place,
                   struct object **ret, struct err *err)
{
	struct source *src = NULL;
	cleanup_object struct object *o = calloc(1, sizeof(*o));

	if (!o)
		return err_set(err, ERR_NOMEM, 0, "no memory to open '%s'", e->file);
	o->refs = 1;
	o->place = place;
	int rc = open_source(h, in, e, place, &src, err);
	if (rc < 0)
		return rc;
	if (e->name.type == OBJECT_GROWING && h->in_bucket && e->bytes <= WALKED_BYTES)
		source_expect(src, SOURCE_IN_ORDER);
	if (e->name.type == OBJECT_SNAPSHOT)
		rc = snapshot_open(src, h->archive->cache, &o->snapshot, err);
	else if (e->name.type != OBJECT_GROWING)
		rc = sealed_open(src, h->archive->cache, &o->sealed, err);
	else if ((rc = grow_open(src, h->archive->cache, &o->grow, err)) < 0)
		source_free(src);
	if (rc == 0)
		rc = check_name(e, o, err);
	if (rc == 0 && o->grow && h->in_bucket)
		rc = take_whole(h, e, src, o, err);
	if (rc == 0)
		*ret = take_ptr(o);
	return rc;
}

/* What is missing, damaged or out of reach may be had elsewhere.  But for the segment that is being
 * written: nobody else has it. */
static bool ask_elsewhere(const struct history *h, const struct entry *e, const struct err *why)
{
	if (e->name.type == OBJECT_GROWING && !h->in_bucket)
		return false;
	return why->kind == ERR_DAMAGED || why->kind == ERR_NOT_FOUND ||
	       why->kind == ERR_UNAVAILABLE || why->kind == ERR_IO || why->kind == ERR_DENIED;
}

int catalog_open(struct history *h, struct entries *in, struct entry *e, struct object **ret,
                 struct err *err)
{
	struct err first = ERR_INIT;
	struct object *o = NULL;
	int rc;

	e->used = ++h->use_counter;
	if (e->open) {
		*ret = object_ref(e->open);
		return 0;
	}
	rc = open_at(h, in, e, e->place, &o, &first);
	if (err_kind_of(rc) == ERR_DAMAGED && h->in_bucket && e->name.type == OBJECT_GROWING) {
		/* Perhaps it is only what came of it, and is kept. */
		char key[STORE_KEY_MAX];
		snprintf(key, sizeof(key), "local/%s/%s/%s", h->name, folder_of(h, in), e->file);
		store_reader_forget(h->archive->reader, e->place, key,
		                    e->place ? UINT64_MAX : e->bytes,
		                    e->place ? 0 : e->modified_us);
		first = (struct err)ERR_INIT;
		rc = open_at(h, in, e, e->place, &o, &first);
	}
	bool elsewhere = rc < 0 && ask_elsewhere(h, e, &first);
	for (size_t i = 0; rc < 0 && elsewhere && i < h->archive->n_stores; i++) {
		if (i == e->place || (e->distrusted >> i & 1))
			continue;
		struct err why = ERR_INIT;
		if (!borrow_same_database(h, i))
			continue;
		rc = open_at(h, in, e, i, &o, &why);
		if (rc == 0)
			log_warn("view", "read from '%s': %s", h->archive->stores[i]->label,
			         first.msg);
	}
	if (rc < 0) {
		/* One that is gone may have been joined just now. */
		if (elsewhere && (first.kind == ERR_DAMAGED || e->distrusted))
			borrow_shun(h, e);
		return err_copy(err, &first);
	}
	if (e->lent)
		borrow_tell(h, e, o->place);
	e->open = o;
	h->n_open++;
	*ret = object_ref(e->open);
	close_idle(h);
	return 0;
}

/* Of an entry that was found damaged where it was read. */
static bool next_place(struct history *h, struct entry *e)
{
	const struct err damaged = {.kind = ERR_DAMAGED};
	bool written = e->name.type == OBJECT_GROWING && !h->in_bucket; /* nobody else has it */

	for (size_t i = 0; i < h->archive->n_stores && !written; i++)
		if (!(e->distrusted >> i & 1) && borrow_same_database(h, i)) {
			e->place = i;
			return true;
		}
	borrow_shun(h, e);
	return borrow_more(h, &damaged);
}

bool catalog_distrust(struct history *h, struct object *o)
{
	struct entries *all[] = {&h->snapshots, &h->segments, &h->coalesced};

	for (size_t i = 0; i < 3; i++) {
		for (size_t j = 0; j < all[i]->n; j++) {
			struct entry *e = &all[i]->e[j];
			if (e->open != o)
				continue;
			e->distrusted |= (uint16_t)(1u << o->place);
			object_unref(take_ptr(e->open));
			h->n_open--;
			if (h->in_bucket && e->name.type == OBJECT_GROWING)
				bucket_forget_extent(h, e);
			return next_place(h, e);
		}
	}
	return true; /* it is not what would be opened now */
}

struct entry *catalog_segment_of(struct history *h, uint64_t txid)
{
	size_t lo = 0, hi = h->segments.n;

	while (lo < hi) { /* the last that begins at or before it; the longer of equals is later */
		size_t mid = lo + (hi - lo) / 2;
		if (h->segments.e[mid].name.first_txid <= txid)
			lo = mid + 1;
		else
			hi = mid;
	}
	/* A joined segment may lie beside some of what it was joined from, and reach beyond that. */
	while (lo-- > 0)
		if (h->segments.e[lo].name.last_txid >= txid)
			return &h->segments.e[lo];
	return NULL;
}
