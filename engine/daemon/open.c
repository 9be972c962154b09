/* SPDX-License-Identifier: Apache-2.0 */
/* Opening a recorder: folders, lock, and where a former one stopped. */
#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/base/lock.h"
#include "engine/base/log.h"
#include "engine/daemon/recorder_i.h"
#include "engine/view/check.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <sys/stat.h>

#define QUIET_S 8 /* a folder that is being copied is not taken for whole before */
#define CACHE_BYTES ((size_t)4 << 20)

/* ---- the archive, to be read ---- */

int recorder_open_archive(struct recorder *r, struct err *err)
{
	const struct archive_options o = {.cache_bytes = CACHE_BYTES};

	if (r->history)
		return 0;
	int rc = archive_open(r->root, &o, &r->archive, err);
	if (rc == 0)
		rc = history_get(r->archive, r->name, &r->history, err);
	if (rc < 0)
		recorder_close_archive(r);
	return rc;
}

void recorder_close_archive(struct recorder *r)
{
	if (r->history)
		history_put(take_ptr(r->history));
	archive_free(take_ptr(r->archive));
}

static int take_lock(struct recorder *r, struct err *err)
{
	char text[64];
	struct err why = ERR_INIT;

	int rc = file_open(r->dir_fd, "lock", O_RDWR | O_CREAT, 0600, &r->lock_fd, err);
	if (rc < 0)
		return rc;
	if (file_lock(r->lock_fd, "lock", &why) < 0) {
		size_t n = 0;
		int ignored =
		        file_pread_some(r->lock_fd, text, sizeof(text) - 1, 0, &n, "lock", NULL);
		(void)ignored;
		text[n] = '\0';
		text[strcspn(text, "\n")] = '\0';
		if (why.kind != ERR_BUSY)
			return err_copy(err, &why);
		return err_set(err, ERR_BUSY, 0,
		               "archive '%s' is already being written for '%s' by %s (stop that "
		               "one first)",
		               r->root, r->name, n ? text : "another asof");
	}
	return recorder_note_lock(r, "", err);
}

int recorder_note_lock(struct recorder *r, const char *hindrance, struct err *err)
{
	char text[300];
	int len = snprintf(text, sizeof(text), "process %d\n%.200s%s", (int)getpid(), hindrance,
	                   hindrance[0] ? "\n" : "");

	if (ftruncate(r->lock_fd, 0) < 0)
		return err_set(err, ERR_IO, errno, "write 'lock'");
	return file_pwrite(r->lock_fd, text, (size_t)len, 0, "lock", err);
}

static int check_source(struct recorder *r, const struct recorder_options *o, struct err *err)
{
	struct source_note n = {0};
	struct err why = ERR_INIT;

	if (strlen(o->source_path) >= sizeof(n.path))
		return err_set(err, ERR_USAGE, 0, "the path '%.60s…' is too long", o->source_path);
	int rc = source_note_get(r->dir_fd, &n, &why);
	if (rc < 0 && why.kind != ERR_NOT_FOUND)
		return err_copy(err, &why);
	if (rc == 0 && strcmp(n.path, o->source_path) == 0)
		return 0;
	if (rc == 0 && !o->adopt)
		return err_set(err, ERR_REFUSED, 0,
		               "archive '%s' keeps '%s' as the name of %s, not of %s (give another "
		               "--name, or "
		               "--adopt to continue its history)",
		               r->root, r->name, n.path, o->source_path);
	while (n.id == 0)
		n.id = (uint32_t)hash64(&(int64_t){clock_now_us()}, 8, (uint64_t)getpid());
	snprintf(n.path, sizeof(n.path), "%s", o->source_path);
	return source_note_put(r->dir_fd, &n, err);
}

static int open_root(const char *root, int *ret_fd, struct err *err)
{
	struct err why = ERR_INIT;

	int rc = file_open_dir(AT_FDCWD, root, true, ret_fd, &why);
	if (rc < 0 && why.sys_errno == ENOTDIR && faccessat(AT_FDCWD, root, F_OK, AT_EACCESS) == 0)
		return err_set(err, ERR_USAGE, 0,
		               "archive '%s' is not a directory (name one, or one to be made)",
		               root);
	if (rc < 0 && (why.sys_errno == ENOENT || why.sys_errno == ENOTDIR))
		return err_set(
		        err, ERR_NOT_FOUND, 0,
		        "archive '%s': the directory above it does not exist (create it first)",
		        root);
	return rc < 0 ? err_copy(err, &why) : 0;
}

/* Removes what a crash left half written; the lock is ours. */
static void remove_temporaries(int dir_fd)
{
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cleanup_dir DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *d;

	while (dir && (d = readdir(dir))) {
		size_t n = strlen(d->d_name);
		if (n > 4 && strcmp(d->d_name + n - 4, ".tmp") == 0)
			unlinkat(dir_fd, d->d_name, 0);
	}
}

/* Those that the recorder seldom needs are not kept open. */
static int make_folder(struct recorder *r, const char *name, struct err *err)
{
	cleanup_fd int fd = -1;
	int rc = file_open_dir(r->dir_fd, name, true, &fd, err);

	if (rc == 0)
		remove_temporaries(fd);
	return rc;
}

static int open_folders(struct recorder *r, struct err *err)
{
	cleanup_fd int root_fd = -1, local_fd = -1;

	int rc = open_root(r->root, &root_fd, err);
	if (rc == 0)
		rc = file_open_dir(root_fd, "local", true, &local_fd, err);
	if (rc == 0)
		rc = file_open_dir(local_fd, r->name, true, &r->dir_fd, err);
	if (rc == 0)
		rc = take_lock(r, err);
	if (rc == 0)
		rc = file_open_dir(r->dir_fd, "segment", true, &r->segment_fd, err);
	if (rc == 0)
		rc = make_folder(r, "snapshot", err);
	if (rc == 0)
		rc = make_folder(r, "coalesced", err);
	/* Those two name it themselves. */
	if (rc < 0 && root_fd >= 0 && err_kind_of(rc) != ERR_BUSY)
		return err_wrap(err, rc, "archive '%s'", r->root);
	return rc;
}

/* Should it turn out to be damaged. */
static void suspect(struct recorder *r, const struct history_object *o)
{
	snprintf(r->lost.object, sizeof(r->lost.object), "%s/%.190s", history_object_folder(o),
	         o->file);
}

/* How far a segment reaches that is broken is not known: then only a child's snapshot is newer. */
static bool is_behind(const struct history_object *snapshot, const struct history_object *segment)
{
	return segment->broken ? snapshot->lineage > segment->lineage
	                       : snapshot->last_txid > segment->last_txid;
}

/* What decides where to go on. */
static void find_newest(const struct history_object *objects, size_t n,
                        const struct history_object **ret_segment,
                        const struct history_object **ret_snapshot)
{
	const struct history_object *segment = NULL, *snapshot = NULL;

	for (size_t i = 0; i < n; i++) {
		const struct history_object *o = &objects[i];
		if (o->type == HISTORY_SNAPSHOT &&
		    (!snapshot || o->last_txid > snapshot->last_txid))
			snapshot = o;
		/* One that holds nothing yet says nothing of what came before it. */
		if ((o->type == HISTORY_GROWING || o->type == HISTORY_SEGMENT) &&
		    (o->last_txid >= o->first_txid || o->broken) &&
		    (!segment || o->first_txid > segment->first_txid))
			segment = o;
	}
	if (segment && snapshot && is_behind(snapshot, segment))
		segment = NULL;
	*ret_segment = segment;
	*ret_snapshot = snapshot;
}

/* Read in full, as what is captured next lies over it.  (Its table is for people.) */
static int check_sealed(struct recorder *r, const struct history_object *o, struct err *err)
{
	cleanup_object_check struct object_check check = {.whole = false};

	int rc = history_check_object(r->history, o, NULL, NULL, &check, err);
	if (rc < 0 || check.first.kind == ERR_NONE)
		return rc;
	return check.whole || check.pages.used ? err_copy(err, &check.first) : 0;
}

static int take_segment(struct recorder *r, const struct history_object *o, struct err *err)
{
	uint64_t frames;

	int rc = o->type == HISTORY_SEGMENT ? check_sealed(r, o, err) : 0;
	if (rc == 0)
		rc = history_commit(r->history, o->last_txid, &r->last, err);
	if (rc == 0)
		rc = history_object_frames(r->history, o, &frames, &r->page_size, &r->pos, err);
	r->settled = !(r->last.flags & COMMIT_UNSETTLED);
	return rc;
}

static int take_snapshot(struct recorder *r, const struct history_object *o, struct err *err)
{
	struct moment m;

	suspect(r, o);
	int rc = history_tx(r->history, o->last_txid, &m, err);
	r->settled = rc == 0;
	if (rc < 0)
		return rc;
	if (o->last_txid > r->last.txid) {
		r->last =
		        (struct commit){.txid = m.txid, .time_us = m.time_us, .n_pages = m.n_pages};
		r->pos = (struct source_position){0};
		r->page_size = m.page_size;
	}
	r->last.state = m.state;
	r->last.flags = 0;
	return 0;
}

/* The newest fine object decides where to go on. */
static int recover_last(struct recorder *r, struct err *err)
{
	cleanup_free struct history_object *objects = NULL;
	const struct history_object *segment, *snapshot;
	size_t n;

	int rc = history_objects(r->history, &objects, &n, err);
	if (rc < 0)
		return rc;
	find_newest(objects, n, &segment, &snapshot);
	if (segment) {
		suspect(r, segment);
		rc = history_object_broken(r->history, segment, err);
	}
	if (rc == 0)
		rc = lost_check(r, objects, n, err);
	if (rc == 0 && segment)
		rc = take_segment(r, segment, err);
	if (rc == 0 && snapshot && snapshot->last_txid >= r->last.txid)
		rc = take_snapshot(r, snapshot, err);
	if (!snapshot)
		r->settled = false;
	r->durable = r->last;
	r->durable_pos = r->pos;
	r->durable_settled = r->settled;
	return rc;
}

/* Takes the newest growing segment up again, so that small restarts do not leave small files. */
static int recover_growing(struct recorder *r, struct err *err)
{
	cleanup_free struct history_object *objects = NULL;
	const struct history_object *g = NULL;
	size_t n;

	int rc = history_objects(r->history, &objects, &n, err);
	for (size_t i = 0; rc == 0 && i < n; i++)
		if (objects[i].type == HISTORY_GROWING &&
		    (!g || objects[i].first_txid > g->first_txid))
			g = &objects[i];
	if (rc < 0 || !g || g->lineage != r->lineage)
		return rc;
	suspect(r, g);
	bool holds_last = g->last_txid == r->last.txid && r->last.txid >= g->first_txid;
	bool empty = g->first_txid == r->last.txid + 1;
	if (!holds_last && !empty)
		return 0;
	r->growing_txid = g->first_txid;
	r->durable_len = r->head.growing_txid == g->first_txid ? r->head.durable_len : 0;
	struct commit last;
	struct source_position pos;
	/* What is written behind damage could not be read: it lies over it. */
	rc = r->durable_len > EMPTY_SEGMENT_BYTES
	             ? grow_check(r->segment_fd, g->file, r->durable_len, err)
	             : 0;
	if (rc < 0)
		return rc;
	rc = grow_resume(r->segment_fd, g->file, r->durable_len, r->level, &r->w, &last, &pos, err);
	if (rc < 0 && empty && r->durable_len <= EMPTY_SEGMENT_BYTES &&
	    g->bytes <= EMPTY_SEGMENT_BYTES) { /* not even its header was whole */
		unlinkat(r->segment_fd, g->file, 0);
		r->growing_txid = r->durable_len = 0;
		return 0;
	}
	if (rc < 0)
		return rc;
	r->durable_len = grow_length(r->w);
	if (last.txid >= g->first_txid) { /* perhaps more than the head knew of */
		bool same = last.txid == r->last.txid && !(r->last.flags & COMMIT_UNSETTLED);
		if (!same) /* (a snapshot can have settled it; what heals does) */
			r->settled = !(last.flags & COMMIT_UNSETTLED) &&
			             (r->settled || last.flags & COMMIT_HEAL);
		if (!same || hash128_zero(r->last.state))
			r->last = last;
		r->last.last_frame = last.last_frame;
		r->pos = pos;
	} else {
		r->last.last_frame = 0;
	}
	r->durable = r->last;
	r->durable_pos = r->pos;
	r->durable_settled = r->settled;
	return 0;
}

/* A gap that was open when asof ended: it begins behind the last settled commit. */
static void recover_gap(struct recorder *r)
{
	struct commit c = r->last;
	struct moment first;

	if (r->settled || r->gap_open)
		return;
	if (history_first(r->history, &first, NULL) < 0)
		first.txid = r->lost.first_txid; /* 0: nothing was ever whole */
	if (first.txid == 0)
		return;
	while ((c.flags & COMMIT_UNSETTLED) && c.txid > first.txid)
		if (history_commit(r->history, c.txid - 1, &c, NULL) < 0)
			break;
	if (r->lost.first_txid && c.txid <= r->lost.first_txid) {
		lost_open_gap(r);
		return;
	}
	r->gap_open = true;
	r->gap.before_txid = c.txid;
	r->gap.before_us = c.time_us;
	snprintf(r->gap.reason, sizeof(r->gap.reason), "stopped before it was healed");
}

static bool gap_ends_at(struct recorder *r, uint64_t txid)
{
	struct gap g;

	for (size_t i = 0; history_gap(r->history, i, &g, NULL) == 0; i++)
		if (g.after_txid == txid)
			return true;
	return false;
}

/* Whether transactions without a whole state begin right behind `before`, as objects tell.  Those of
 * an object that is damaged or gone are no gap: they were captured, and may be put back. */
static bool unsettled_behind(struct recorder *r, const struct moment *before)
{
	struct commit c;

	return history_commit(r->history, before->txid + 1, &c, NULL) == 0 &&
	       c.flags & COMMIT_UNSETTLED;
}

/* Who was killed between what healed a gap and the note of the gap: that is the last thing written. */
static int note_healed(struct recorder *r, struct err *err)
{
	struct gap_note n = {.after_txid = r->last.txid, .after_us = r->last.time_us};
	struct moment before, last;

	if (!r->settled || r->last.txid == 0 || gap_ends_at(r, r->last.txid) ||
	    history_before(r->history, r->last.time_us - 1, &before, NULL) < 0 ||
	    before.txid <= history_thinned(r->history))
		return 0; /* nothing was whole before, or who knows */
	bool next = r->last.txid == before.txid + 1;
	bool healed = !next ? unsettled_behind(r, &before)
	                    : r->last.flags & COMMIT_HEAL ||
	                              (history_tx(r->history, r->last.txid, &last, NULL) == 0 &&
	                               last.lineage != before.lineage);
	if (!healed)
		return 0;
	n.before_txid = before.txid;
	n.before_us = before.time_us;
	snprintf(n.reason, sizeof(n.reason), "stopped when it was healed");
	return gap_note_put(r->dir_fd, &n, err);
}

/* Where the note of a lineage is missing, its objects tell that there is one. */
static int newest_lineage(struct recorder *r, uint32_t *lineage, struct err *err)
{
	cleanup_free struct history_object *objects = NULL;
	size_t n = 0;

	int rc = history_objects(r->history, &objects, &n, err);
	for (size_t i = 0; rc == 0 && i < n; i++)
		if (objects[i].lineage > *lineage)
			*lineage = objects[i].lineage;
	return rc;
}

static int recover(struct recorder *r, struct err *err)
{
	struct err why = ERR_INIT;
	bool taken_up;

	int rc = file_open(r->dir_fd, HEAD_NAME, O_RDWR | O_CREAT, 0600, &r->head_fd, err);
	if (rc < 0)
		return rc;
	if (head_read(r->head_fd, &r->head, &why) < 0) {
		if (why.kind == ERR_VERSION)
			return err_copy(err, &why);
		r->head = (struct head){0};
	}
	rc = recorder_open_archive(r, err);
	if (rc < 0)
		return rc;
	/* What was fsynced and not yet told of is ours to tell. */
	struct head told = r->head;
	r->changes = told.generation;
	struct history_status st;
	rc = history_get_status(r->history, &st, err);
	if (rc < 0)
		return rc;
	r->lineage = st.lineage;
	rc = newest_lineage(r, &r->lineage, err);
	if (rc < 0)
		return rc;
	r->known_until_us = told.known_until_us;
	why = (struct err)ERR_INIT;
	rc = lost_take_up(r, &taken_up, err);
	if (rc < 0)
		return rc;
	rc = taken_up ? 0 : recover_last(r, &why);
	if (rc == 0)
		rc = recover_growing(r, &why);
	if (rc < 0)
		return lost_begin(r, &why, err);
	recover_gap(r);
	rc = taken_up ? 0 : note_healed(r, err);
	return rc < 0 ? rc : recorder_publish(r, true, err);
}

int recorder_open(const struct recorder_options *o, struct recorder **ret, struct err *err)
{
	struct recorder *r = calloc(1, sizeof(*r));

	if (!r)
		return err_set(err, ERR_NOMEM, 0, "no memory");
	r->dir_fd = r->segment_fd = r->lock_fd = r->head_fd = -1;
	r->pools = o->pools;
	r->scan.spool_fd = r->scan.dir_fd = -1;
	r->last_next = &r->first;
	r->segment_bytes = o->segment_bytes ? o->segment_bytes : SEGMENT_BYTES_DEFAULT;
	r->level = o->level;
	lock_init_inherit(&r->lock);
	pthread_mutex_init(&r->table_lock, NULL);
	r->root = strdup(o->archive);
	r->name = strdup(o->name);
	r->source_path = strdup(o->source_path);
	int rc = r->root && r->name && r->source_path ? db_name_check(o->name, err)
	                                              : err_set(err, ERR_NOMEM, 0, "no memory");
	if (rc == 0)
		rc = open_folders(r, err);
	if (rc == 0)
		rc = check_source(r, o, err);
	if (rc == 0) {
		remove_temporaries(r->dir_fd);
		remove_temporaries(r->segment_fd);
		rc = recover(r, err);
	}
	recorder_close_archive(r);
	if (rc < 0) {
		recorder_free(r);
		return rc;
	}
	r->status.settled = r->settled;
	r->status.last_txid = r->last.txid;
	*ret = r;
	return 0;
}

/* By the note of its source; false: its path is too long, or it cannot be asked. */
static bool stat_source(const char *archive, const char *name, struct stat *ret)
{
	char path[PATH_MAX];
	int n = snprintf(path, sizeof(path), "%s/local/%s/source", archive, name);

	if (n >= (int)sizeof(path))
		errno = ENAMETOOLONG;
	return n < (int)sizeof(path) && stat(path, ret) == 0;
}

int recorder_check_place(const struct recorder *r, struct err *err)
{
	struct stat ours, there;

	/* Not every filesystem counts the links of a folder: our own lock tells of its deletion. */
	bool deleted = faccessat(r->dir_fd, "lock", F_OK, 0) < 0 && errno == ENOENT;
	bool replaced = stat_source(r->root, r->name, &there) &&
	                fstatat(r->dir_fd, "source", &ours, 0) == 0 &&
	                (ours.st_dev != there.st_dev || ours.st_ino != there.st_ino);
	if (!deleted && !replaced)
		return 0;
	return err_set(err, ERR_IO, 0,
	               "archive '%s': the history of '%s' was %s while it was written (it goes on "
	               "when it is put back; for a new one start asof again)",
	               r->root, r->name, deleted ? "deleted" : "replaced by another");
}

/* Whether something in a folder has changed since then: by ctime, which a copy cannot keep. */
static bool has_changed(int dir_fd, const char *name, time_t since, time_t now)
{
	int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cleanup_dir DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *d;
	struct stat st;
	bool changed = false;

	while (dir && !changed && (d = readdir(dir)))
		changed = fstatat(fd, d->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
		          st.st_ctime > since && st.st_ctime <= now;
	return changed;
}

bool recorder_has_place(const char *archive, const char *name)
{
	static const char *const folders[] = {".", "segment", "snapshot", "coalesced"};
	char path[PATH_MAX];
	struct stat st;
	time_t now = (time_t)(clock_now_us() / US_PER_SECOND);
	bool changed = false;

	if (!stat_source(archive, name, &st))
		return errno != ENOENT && errno != ENOTDIR;
	snprintf(path, sizeof(path), "%s/local/%s", archive, name);
	cleanup_fd int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (size_t i = 0; fd >= 0 && !changed && i < 4; i++)
		changed = has_changed(fd, folders[i], now - QUIET_S, now);
	return !changed;
}

bool recorder_resume(const struct recorder *r, struct capture_position *ret_pos,
                     uint32_t *ret_page_size)
{
	if (!r->settled || r->pos.frame == 0)
		return false;
	*ret_pos = (struct capture_position){r->pos.salt1, r->pos.salt2, r->pos.frame, r->pos.cksum,
	                                     r->pos.change};
	*ret_page_size = r->page_size;
	return true;
}
