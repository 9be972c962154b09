/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A run: objects first, then the state of the newest moment, then SQLite's own checks, then, if
 * something is damaged, what that takes with it.
 *
 * Objects are immutable: one that was read once is not read again by the hourly runs.  Which are
 * new is told by the moment at which they appeared in their folder (mtime): upkeep makes joined
 * and coalesced ones of old transactions, too.  The growing segment is always new.
 */
#include "engine/verify/verify_i.h"

#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/base/hash.h"
#include "engine/store/store.h"

#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>

#define CACHE_BYTES (8u << 20)
#define KEEP_EVERY_US (5 * US_PER_SECOND)
#define TICK_SLEEP_MAX_US 200000
/* mtime of a file made a moment ago can be a clock tick behind. */
#define MTIME_SLACK_US (2 * US_PER_SECOND)
#define SAMPLE_MOMENTS_MAX 1000u

int run_tick(struct run *r, uint64_t bytes, struct err *err)
{
	const struct verify_options *o = r->options;

	r->done_bytes += bytes;
	r->report->bytes_read += bytes;
	if (o->bytes_per_second) {
		int64_t due = (int64_t)((double)r->report->bytes_read * US_PER_SECOND /
		                        (double)o->bytes_per_second);
		int64_t ahead;
		while ((ahead = due - (clock_mono_us() - r->began_us)) > 0 &&
		       !(o->stop && *o->stop))
			clock_sleep_us(ahead < TICK_SLEEP_MAX_US ? ahead : TICK_SLEEP_MAX_US);
	}
	uint64_t done = r->done_bytes < r->total_bytes ? r->done_bytes : r->total_bytes;
	if ((o->stop && *o->stop) || (o->progress && !o->progress(o->ctx, done, r->total_bytes)))
		return err_set(err, ERR_CANCELLED, 0, "verification of '%s' was stopped",
		               history_name(r->h));
	return 0;
}

int run_keep(struct run *r, bool now, struct err *err)
{
	if (r->dir_fd < 0) /* a bucket: the note is its writer's */
		return 0;
	if (!now && clock_mono_us() - r->kept_us < KEEP_EVERY_US)
		return 0;
	struct err why = ERR_INIT;
	r->kept_us = clock_mono_us();
	int rc = verified_note_put(r->dir_fd, &r->note, &why);
	/* An archive that may only be read can be verified all the same. */
	if (rc == 0 || why.kind == ERR_READ_ONLY || why.kind == ERR_DENIED)
		return 0;
	return err_copy(err, &why);
}

/* ---- objects ---- */

struct piece {
	struct run *run;
	uint64_t stored, told; /* bytes of the object, and how many progress knows of */
};

static int on_piece(void *ctx, uint64_t done, uint64_t total, struct err *err)
{
	struct piece *p = ctx;
	uint64_t now = total ? (uint64_t)((double)p->stored * (double)done / (double)total) : 0;
	uint64_t more = now > p->told ? now - p->told : 0;

	p->told += more;
	return run_tick(p->run, more, err);
}

static int check_object(struct run *r, const struct history_object *o, struct err *err)
{
	cleanup_object_check struct object_check check = {0};
	struct piece piece = {.run = r, .stored = o->bytes};

	int rc = history_check_object(r->h, o, on_piece, &piece, &check, err);
	if (err_kind_of(rc) == ERR_NOT_FOUND)
		return 0; /* joined into another meanwhile, which the next run reads */
	if (rc < 0)
		return rc;
	r->report->n_objects++;
	rc = on_piece(&piece, 1, 1, err);
	return rc == 0 && check.first.kind ? report_damage(r, o, &check, err) : rc;
}

/* When the file appeared; 0: it is gone. */
static int64_t appeared_us(const struct run *r, const struct history_object *o)
{
	char path[224];
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s", history_object_folder(o), o->file);
	if (fstatat(r->dir_fd, path, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	return st.st_mtim.tv_sec * US_PER_SECOND + st.st_mtim.tv_nsec / 1000;
}

static bool is_new(const struct run *r, const struct history_object *o, int64_t since_us)
{
	return r->dir_fd < 0 || o->type == HISTORY_GROWING ||
	       appeared_us(r, o) + MTIME_SLACK_US >= since_us;
}

/* The order in which a full run goes through them: by folder and name. */
static int by_path(const struct history_object *o, const char *path)
{
	char mine[224];

	snprintf(mine, sizeof(mine), "%s/%s", history_object_folder(o), o->file);
	return strcmp(mine, path);
}

static int compare_objects(const void *a, const void *b)
{
	const struct history_object *x = a, *y = b;
	int c = strcmp(history_object_folder(x), history_object_folder(y));

	return c ? c : strcmp(x->file, y->file);
}

static bool wanted(const struct run *r, const struct history_object *o)
{
	switch (r->options->scope) {
	case VERIFY_FULL:
		return !r->note.pass_file[0] || by_path(o, r->note.pass_file) > 0 ||
		       is_new(r, o, r->note.pass_us);
	case VERIFY_NEW:
		return is_new(r, o, r->note.objects_at_us);
	default:
		return false;
	}
}

static int check_objects(struct run *r, struct err *err)
{
	bool full = r->options->scope == VERIFY_FULL;
	int rc = 0;

	for (size_t i = 0; i < r->n_objects && rc == 0; i++) {
		const struct history_object *o = &r->objects[i];
		if (!wanted(r, o))
			continue;
		rc = check_object(r, o, err);
		if (rc == 0 && full && by_path(o, r->note.pass_file) > 0)
			snprintf(r->note.pass_file, sizeof(r->note.pass_file), "%s/%.150s",
			         history_object_folder(o), o->file);
		if (rc == 0 && full)
			rc = run_keep(r, false, err);
	}
	return rc;
}

/* ---- a sample ---- */

struct chance {
	uint64_t dice;
	const struct history_object *object;
};

static int compare_chance(const void *a, const void *b)
{
	const struct chance *x = a, *y = b;

	return x->dice < y->dice ? -1 : x->dice > y->dice;
}

/* Objects in an order by chance, until the share is reached. */
static int sample_objects(struct run *r, uint64_t share, struct err *err)
{
	cleanup_free struct chance *c = calloc(r->n_objects + 1, sizeof(*c));
	uint64_t bytes = 0;
	int rc = 0;

	if (!c)
		return err_set(err, ERR_NOMEM, 0, "no memory for a sample");
	for (size_t i = 0; i < r->n_objects; i++)
		c[i] = (struct chance){
		        hash64(r->objects[i].file, strlen(r->objects[i].file), r->options->seed),
		        &r->objects[i]};
	qsort(c, r->n_objects, sizeof(*c), compare_chance);
	for (size_t i = 0; i < r->n_objects && bytes < share && rc == 0; i++) {
		bytes += c[i].object->bytes;
		rc = check_object(r, c[i].object, err);
	}
	return rc;
}

/* Moments by chance: images until as many bytes are read, one at least. */
static int sample_moments(struct run *r, const struct moment *newest, uint64_t share,
                          struct err *err)
{
	struct moment first, m;
	uint64_t bytes = 0;
	struct err why = ERR_INIT;
	int rc = history_first(r->h, &first, &why);

	if (rc < 0)
		return err_kind_of(rc) == ERR_DAMAGED ? 0 : err_copy(err, &why);
	for (uint64_t i = 0; i < SAMPLE_MOMENTS_MAX && (i == 0 || bytes < share); i++) {
		bool ok;
		uint64_t dice = hash64(&i, sizeof(i), r->options->seed);
		uint64_t txid = first.txid + dice % (newest->txid - first.txid + 1);
		rc = history_next(r->h, txid, &m, &why);
		if (rc < 0)
			continue; /* damage that the objects tell of */
		bytes += (uint64_t)m.page_size * m.n_pages;
		if ((rc = verify_state_full(r, &m, false, &ok, err)) < 0)
			return rc;
	}
	return 0;
}

static uint64_t share_of(const struct run *r)
{
	uint64_t total = 0;

	for (size_t i = 0; i < r->n_objects; i++)
		total += r->objects[i].bytes;
	return (uint64_t)((double)total * r->options->sample_percent / 100.0) + 1;
}

/* ---- the run ---- */

static void measure(struct run *r, const struct moment *newest)
{
	uint64_t image = (uint64_t)newest->page_size * newest->n_pages;

	if (r->options->scope == VERIFY_SAMPLE) {
		r->total_bytes = 2 * share_of(r);
		return;
	}
	r->total_bytes = r->options->scope == VERIFY_FULL ? image : 0;
	for (size_t i = 0; i < r->n_objects; i++)
		if (wanted(r, &r->objects[i]))
			r->total_bytes += r->objects[i].bytes;
}

/* Of an archive that was put in the place of another: what was verified is not in this one. */
static void forget_other(struct run *r, const struct moment *newest)
{
	if (r->note.through_txid > newest->txid || r->note.full_txid > newest->txid ||
	    r->note.pass_txid > newest->txid)
		r->note = (struct verified_note){0};
}

static int check_all(struct run *r, const struct moment *newest, struct err *err)
{
	int64_t began_us = clock_now_us();
	bool ok = false, full = r->options->scope == VERIFY_FULL;
	struct moment whole = *newest, begun;
	struct err why = ERR_INIT;
	int rc;

	/* An image that is half read is read to its end, though others came since. */
	if (full && r->note.pass_page && history_tx(r->h, r->note.pass_txid, &begun, &why) == 0)
		whole = begun;
	if (full && !r->note.pass_us)
		r->note.pass_us = began_us;
	if (full)
		began_us = r->note.pass_us;
	measure(r, newest);
	if (r->options->scope == VERIFY_SAMPLE) {
		rc = sample_objects(r, share_of(r), err);
		return rc ? rc : sample_moments(r, newest, share_of(r), err);
	}
	rc = check_objects(r, err);
	if (rc == 0)
		rc = full ? verify_state_full(r, &whole, true, &ok, err)
		          : verify_state_since(r, newest, &ok, err);
	if (rc < 0)
		return rc;
	r->note.objects_at_us = began_us;
	if (full) { /* the next one begins anew */
		r->note.pass_us = 0;
		r->note.pass_file[0] = '\0';
		r->note.pass_txid = 0;
		r->note.pass_page = 0;
		r->note.pass_sum = (struct hash128){0, 0};
	}
	return 0;
}

/* Damage that came after it was verified: nothing stands for it any more, and the next run begins anew. */
static void forget_lost(struct run *r)
{
	if (r->note.through_txid && verify_range_with(r->report, r->note.through_txid)) {
		r->note.through_txid = 0;
		r->note.through_us = r->note.at_us = 0;
	}
	if (r->note.full_txid && verify_range_with(r->report, r->note.full_txid)) {
		r->note.full_txid = 0;
		r->note.full_at_us = 0;
	}
}

/* What readers will be told until the next run. */
static void take_down_damage(struct run *r)
{
	const struct verify_report *rep = r->report;

	if (rep->n_damages) {
		r->note.damaged = rep->n_damages;
		r->note.damaged_at_us = clock_now_us();
		snprintf(r->note.damage, sizeof(r->note.damage), "%s", rep->damages[0].reason);
	} else if (r->options->scope == VERIFY_FULL) {
		r->note.damaged = 0;
		r->note.damaged_at_us = 0;
		r->note.damage[0] = '\0';
	}
}

/* The newest moment cannot be told: the objects say why, or what is missing does. */
static int check_without_newest(struct run *r, const struct err *why, struct err *err)
{
	struct object_check check = {.first = *why, .whole = true};
	size_t told = r->report->n_damages;

	int rc = check_objects(r, err);
	if (rc < 0 || r->report->n_damages > told || why->kind != ERR_DAMAGED)
		return rc;
	return report_damage(r, NULL, &check, err);
}

static int check_history(struct run *r, struct err *err)
{
	struct moment newest;
	struct err why = ERR_INIT;

	int rc = history_latest(r->h, &newest, &why);
	if (rc < 0 && why.kind != ERR_DAMAGED && why.kind != ERR_NOT_FOUND)
		return err_copy(err, &why);
	if (rc < 0)
		return check_without_newest(r, &why, err);
	forget_other(r, &newest);
	rc = check_all(r, &newest, err);
	return rc == 0 && r->options->integrity ? verify_integrity(r, &newest, err) : rc;
}

static int list(struct run *r, struct err *err)
{
	struct history_status st;

	if (history_get_status(r->h, &st, NULL) == 0) /* before the objects: they hold all of it */
		r->told_txid = st.told_txid;
	int rc = history_objects(r->h, &r->objects, &r->n_objects, err);
	if (rc == 0)
		qsort(r->objects, r->n_objects, sizeof(*r->objects), compare_objects);
	return rc;
}

static int find_damage(struct run *r, struct err *err)
{
	int rc = verify_notes(r, err);

	rc = rc ? rc : check_history(r, err);
	if (rc == 0 && r->report->n_damages)
		rc = find_affected(r, err);
	rc = rc ? rc : find_missing(r, err);
	if (rc == 0)
		find_good(r);
	return rc;
}

/* Nothing can be restored, and nothing proves that it could. */
static int without_base(const struct run *r, const struct err *why, struct err *err)
{
	uint64_t last = 0;

	for (size_t i = 0; i < r->n_objects; i++)
		if (r->objects[i].last_txid > last)
			last = r->objects[i].last_txid;
	if (find_based(r) != UINT64_MAX || !last)
		return err_copy(err, why);
	return err_set(err, ERR_NOT_FOUND, 0,
	               "no snapshot of '%s' lies at or before transaction %" PRIu64
	               ", which its history needs (wait for the first to complete, if it is under "
	               "way; else asof validate --repair brings it from another place)",
	               history_name(r->h), last);
}

static int run(struct run *r, struct err *err)
{
	struct moment newest;
	struct err why = ERR_INIT;

	int rc = list(r, err);
	rc = rc ? rc : find_damage(r, err);
	if (rc == 0 && r->report->n_damages == 0 &&
	    err_kind_of(history_latest(r->h, &newest, &why)) == ERR_NOT_FOUND)
		return r->n_objects ? without_base(r, &why, err) /* or a first copy is under way */
		                    : 0;                         /* nothing was captured yet */
	forget_lost(r);
	take_down_damage(r);
	struct err kept = ERR_INIT;
	int keep_rc = run_keep(r, true, &kept);
	r->report->verified_txid = r->note.through_txid;
	r->report->verified_us = r->note.through_us;
	return rc < 0 ? rc : keep_rc < 0 ? err_copy(err, &kept) : 0;
}

static int open_run(struct run *r, const char *root, const char *name, struct err *err)
{
	const struct archive_options o = {.cache_bytes = CACHE_BYTES, .store = r->options->store};
	char path[240];
	struct err why = ERR_INIT;

	struct store *s = r->options->opened;

	int rc = s ? archive_open_stores(&s, 1, &o, &r->archive, err)
	           : archive_open(root, &o, &r->archive, err);
	rc = rc ? rc : history_get(r->archive, name, &r->h, err);
	if (rc < 0 || archive_store(r->archive)->dir_fd < 0)
		return rc;
	snprintf(path, sizeof(path), "local/%.200s", name);
	if ((rc = file_open_dir(archive_store(r->archive)->dir_fd, path, false, &r->dir_fd, err)) <
	    0)
		return rc;
	rc = verified_note_get(r->dir_fd, &r->note, &why);
	if (rc < 0 && why.kind == ERR_VERSION)
		return err_copy(err, &why);
	if (rc < 0) /* none yet, or one that says nothing: everything is new */
		r->note = (struct verified_note){0};
	return 0;
}

/* No database to readers: is it one that lost its note? */
static int check_nameless(struct run *r, const char *name, const struct err *why, struct err *err)
{
	struct object_check check = {.whole = false};
	bool nameless;

	int rc = verify_find_nameless(r, name, &nameless, err);
	if (rc < 0 || !nameless)
		return rc ? rc : err_copy(err, why);
	(void)!err_set(
	        &check.first, ERR_DAMAGED, 0,
	        "'source' is missing: nobody takes the folder for a database (if a copy to it "
	        "was ended, asof copy goes on)");
	return report_note(r, "source", &check, err);
}

int verify_history(const char *archive_root, const char *name, const struct verify_options *options,
                   struct verify_report *ret, struct err *err)
{
	struct run r = {.options = options,
	                .report = ret,
	                .dir_fd = -1,
	                .began_us = clock_mono_us(),
	                .kept_us = clock_mono_us()};

	*ret = (struct verify_report){.started_us = clock_now_us()};
	snprintf(ret->database, sizeof(ret->database), "%s", name);
	struct err why = ERR_INIT;
	int rc = open_run(&r, archive_root, name, &why);
	if (err_kind_of(rc) == ERR_DAMAGED) { /* so much so that it does not open */
		struct object_check check = {.first = why, .whole = true};
		rc = report_damage(&r, NULL, &check, err);
	} else if (err_kind_of(rc) == ERR_NOT_FOUND && r.archive) {
		rc = check_nameless(&r, name, &why, err);
	} else {
		rc = rc ? err_copy(err, &why) : run(&r, err);
	}
	for (size_t i = 0; i < ret->n_damages; i++)
		object_check_release(&r.checks[i]);
	free(r.checks);
	free(r.objects);
	if (r.dir_fd >= 0)
		close(r.dir_fd);
	if (r.h)
		history_put(r.h);
	archive_free(r.archive);
	ret->ended_us = clock_now_us();
	return rc;
}
