/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/ship/ship_i.h"

#include "engine/base/file.h"
#include "engine/base/log.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#define CACHE_BYTES ((size_t)1 << 20)
#define STEP_US (2 * US_PER_SECOND) /* then others may have their turn */
#define RELISTS_MAX 5

/* ---- life ---- */

int shipper_new(const struct ship_options *o, struct shipper **ret, struct err *err)
{
	struct shipper *s = calloc(1, sizeof(*s));
	char path[PATH_MAX];

	if (!s)
		return err_set(err, ERR_NOMEM, 0, "no memory");
	pthread_mutex_init(&s->lock, NULL);
	s->options = *o;
	if (!s->options.claim_wait_us)
		s->options.claim_wait_us = SHIP_CLAIM_WAIT_US;
	s->dir_fd = s->turn_fd = -1;
	s->root = strdup(o->archive);
	s->name = strdup(o->name);
	s->url = strdup(o->url);
	int rc = s->root && s->name && s->url ? db_name_check(o->name, err)
	                                      : err_set(err, ERR_NOMEM, 0, "no memory");
	if (rc == 0 &&
	    snprintf(path, sizeof(path), "%s/local/%s", s->root, s->name) >= (int)sizeof(path))
		rc = err_set(err, ERR_USAGE, 0, "the path of archive '%.60s…' is too long",
		             s->root);
	if (rc == 0)
		rc = file_open_dir(AT_FDCWD, path, false, &s->dir_fd, err);
	if (rc < 0) {
		shipper_free(s);
		return rc;
	}
	ship_status_recall(s);
	*ret = s;
	return 0;
}

static void close_history(struct shipper *s)
{
	if (s->turn_fd >= 0)
		close(take_fd(&s->turn_fd));
	free(take_ptr(s->objects));
	s->n_objects = 0;
	if (s->history)
		history_put(take_ptr(s->history));
	archive_free(take_ptr(s->archive));
}

void shipper_free(struct shipper *s)
{
	if (!s)
		return;
	close_history(s);
	contents_release(&s->has);
	if (s->dir_fd >= 0)
		close(s->dir_fd);
	pthread_mutex_destroy(&s->lock);
	free(s->root);
	free(s->name);
	free(s->url);
	free(s);
}

void shipper_rest(struct shipper *s, int64_t *ret_us)
{
	close_history(s);
	*ret_us = s->known ? ship_removal_due_us(s) : INT64_MAX;
}

/* ---- the archive ---- */

int ship_open_history(struct shipper *s, struct err *err)
{
	const struct archive_options o = {.cache_bytes = CACHE_BYTES};

	if (s->history)
		return 0;
	int rc = ship_identity(s->dir_fd, s->id, err);
	if (rc == 0)
		rc = archive_open(s->root, &o, &s->archive, err);
	return rc < 0 ? rc : history_get(s->archive, s->name, &s->history, err);
}

int ship_look(struct shipper *s, struct err *err)
{
	struct history_status st;

	free(take_ptr(s->objects));
	s->n_objects = 0;
	int rc = history_objects(s->history, &s->objects, &s->n_objects, err);
	if (rc == 0)
		rc = history_get_status(s->history, &st, err);
	if (rc < 0)
		return rc;
	pthread_mutex_lock(&s->lock);
	s->status.tip_txid = st.told_txid > st.last_txid ? st.told_txid : st.last_txid;
	s->status.tip_us = st.told_txid > st.last_txid ? st.told_us : st.last_us;
	pthread_mutex_unlock(&s->lock);
	return 0;
}

/* ---- what is new ---- */

static const struct history_object *holder_of(const struct shipper *s, uint64_t txid)
{
	const struct history_object *best = NULL;

	for (size_t i = 0; i < s->n_objects; i++) {
		const struct history_object *o = &s->objects[i];
		if ((o->type == HISTORY_SEGMENT || o->type == HISTORY_GROWING) &&
		    o->first_txid <= txid && o->last_txid >= txid &&
		    (!best || o->last_txid > best->last_txid))
			best = o;
	}
	return best;
}

static const struct history_object *snapshot_of(const struct shipper *s, uint64_t txid)
{
	for (size_t i = 0; i < s->n_objects; i++)
		if (s->objects[i].type == HISTORY_SNAPSHOT && s->objects[i].last_txid == txid)
			return &s->objects[i];
	return NULL;
}

static void advance(struct shipper *s, const struct commit *last)
{
	s->next_txid = last->txid + 1;
	pthread_mutex_lock(&s->lock);
	s->status.replicated_txid = last->txid;
	s->status.replicated_us = last->time_us;
	pthread_mutex_unlock(&s->lock);
}

/* The key is taken: by us, whose answer was lost, or by somebody else. */
static int take_existing(struct shipper *s, uint32_t lineage, struct commit *ret, struct err *err)
{
	struct level0_info info;
	char file[OBJECT_NAME_MAX + 16];
	bool ours;

	level0_file(lineage, s->next_txid, file);
	int rc = level0_is_ours(s, lineage, s->next_txid, &ours, &info, err);
	if (rc < 0)
		return rc;
	if (!ours)
		return ship_fenced(s, file, err);
	*ret = info.last;
	return 0;
}

static int put_level0(struct shipper *s, uint32_t lineage, struct source *src, uint64_t bytes,
                      struct commit *last, struct err *err)
{
	char file[OBJECT_NAME_MAX + 16];
	struct err why = ERR_INIT;

	level0_file(lineage, s->next_txid, file);
	int rc = ship_check_writer(s, err);
	if (rc < 0)
		return rc;
	rc = ship_put(s, file, src, bytes, STORE_CREATE, &why);
	if (rc < 0 && why.kind == ERR_EXISTS)
		rc = take_existing(s, lineage, last, err);
	else if (rc < 0)
		return err_copy(err, &why);
	if (rc < 0)
		return rc;
	rc = contents_add_level0(&s->has, lineage, s->next_txid, bytes, err);
	pthread_mutex_lock(&s->lock);
	s->status.level0_put++;
	s->status.level0_bytes += bytes;
	pthread_mutex_unlock(&s->lock);
	if (rc == 0)
		advance(s, last);
	return rc;
}

static int ship_idle_state(struct shipper *s, const struct history_object *o, struct err *err)
{
	cleanup_source struct source *src = NULL;
	struct commit last;
	uint64_t bytes;

	int rc = ship_claim(s, o->lineage, err);
	if (rc == 0)
		rc = level0_make_idle(s, o, &src, &bytes, &last, err);
	if (rc == 0)
		rc = put_level0(s, o->lineage, src, bytes, &last, err);
	return rc < 0 ? rc : ship_object(s, o, err);
}

static int ship_commits(struct shipper *s, const struct history_object *o, struct err *err)
{
	cleanup_source struct source *src = NULL;
	struct commit last;
	uint64_t bytes;

	int rc = ship_claim(s, o->lineage, err);
	if (rc == 0)
		rc = level0_make(s, o->lineage, s->next_txid, o->last_txid, &src, &bytes, &last,
		                 err);
	return rc < 0 ? rc : put_level0(s, o->lineage, src, bytes, &last, err);
}

/* The fence of a gap: what is next goes on with transaction `goes_on`. */
static int put_gap_fence(struct shipper *s, uint32_t lineage, uint64_t goes_on, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT(GROW_HEADER_SIZE);
	char file[OBJECT_NAME_MAX + 16];
	struct err why = ERR_INIT;

	int rc = grow_fence_put(lineage, s->next_txid, goes_on, &b, err);
	if (rc < 0)
		return rc;
	level0_file(lineage, s->next_txid, file);
	rc = ship_put_bytes(s, file, b.data, b.len, STORE_CREATE, &why);
	if (rc < 0)
		return why.kind == ERR_EXISTS ? ship_fenced(s, file, err) : err_copy(err, &why);
	return contents_add_level0(&s->has, lineage, s->next_txid, b.len, err);
}

static int put_gap_note(struct shipper *s, const struct gap_note *g, struct err *err)
{
	cleanup_buf struct buf note = BUF_INIT(4096);
	char file[OBJECT_NAME_MAX + 16];

	snprintf(file, sizeof(file), "%016" PRIu64 ".gap", g->after_txid);
	int rc = gap_note_format(g, &note, err);
	rc = rc ? rc : ship_put_bytes(s, file, note.data, note.len, 0, err);
	return rc ? rc : contents_add_name(&s->has, file, note.len, err);
}

/*
 * The archive no longer has what comes next: retention took it, as the destination was away for too
 * long.  It goes on with the newest base; the stretch between is a gap, and said to be one.
 */
static int jump(struct shipper *s, struct err *err)
{
	const struct history_object *to = NULL;

	for (size_t i = 0; i < s->n_objects; i++) {
		const struct history_object *o = &s->objects[i];
		if (o->type == HISTORY_SNAPSHOT && o->first_txid > s->next_txid &&
		    (!to || o->last_txid > to->last_txid))
			to = o;
	}
	if (!to || to->first_txid <= to->last_txid)
		return err_set(err, ERR_DAMAGED, 0,
		               "the archive lacks transaction %" PRIu64
		               " of '%s', which %s waits for, and has no newer base yet",
		               s->next_txid, s->name, s->url);
	log_error("ship",
	          "gap db=%s at=%s: retention took what was not sent yet, transactions %" PRIu64
	          " to %" PRIu64 "; it goes on with a base",
	          s->name, s->url, s->next_txid, to->last_txid - 1);
	const struct gap_note g = {.before_txid = s->next_txid - 1,
	                           .before_us = s->status.replicated_us,
	                           .after_txid = to->last_txid,
	                           .after_us = to->last_us,
	                           .reason = "the destination was away for too long"};
	int rc = ship_claim(s, to->lineage, err);
	if (rc == 0)
		rc = ship_check_writer(s, err);
	if (rc == 0)
		rc = ship_object(s, to, err);
	if (rc == 0)
		rc = put_gap_note(s, &g, err);
	if (rc == 0)
		rc = put_gap_fence(s, to->lineage, to->last_txid + 1, err);
	const struct commit last = {.txid = to->last_txid, .time_us = to->last_us};
	if (rc == 0)
		advance(s, &last);
	return rc;
}

/* ---- behind damage ---- */

/* The next of the archive's jumps (view/history.h) that what is next lies before or in. */
static bool jump_ahead(struct shipper *s, struct jump *ret)
{
	struct jump j;
	bool found = false;

	for (size_t i = 0; history_jump(s->history, i, &j, NULL) == 0; i++)
		if (s->next_txid < j.first_txid && (!found || j.first_txid < ret->first_txid)) {
			*ret = j;
			found = true;
		}
	return found;
}

static const struct history_object *base_behind(const struct shipper *s, uint64_t first_txid)
{
	const struct history_object *base = NULL;

	for (size_t i = 0; i < s->n_objects; i++) {
		const struct history_object *o = &s->objects[i];
		if (o->type == HISTORY_SNAPSHOT && o->first_txid >= first_txid &&
		    (!base || o->last_txid < base->last_txid))
			base = o;
	}
	return base;
}

/*
 * What comes next is damaged, and a child goes on behind that (or it is the place where nothing is);
 * so does the destination.  Of what is damaged it keeps what it has: what is put back later is not sent
 * any more.  The note of the gap is the archive's.  A base that needs commits over it follows them.
 */
static int leap(struct shipper *s, const struct jump *j, const struct err *why, struct err *err)
{
	const struct history_object *base = base_behind(s, j->first_txid);
	struct commit last = {.txid = j->first_txid - 1, .time_us = j->from_us};

	if (!base)
		return err_set(err, ERR_BUSY, 0,
		               "'%s' has no base yet behind what is damaged (it is tried again)",
		               s->name);
	bool idle = base->first_txid > base->last_txid;
	if (s->next_txid <= j->told_txid)
		log_error("ship",
		          "not sent db=%s to=%s first_txid=%" PRIu64 " last_txid=%" PRIu64 ": %s",
		          s->name, s->url, s->next_txid, j->told_txid, why->msg);
	int rc = ship_claim(s, base->lineage, err);
	if (rc == 0)
		rc = ship_check_writer(s, err);
	if (rc == 0 && idle)
		rc = ship_object(s, base, err);
	if (rc == 0 && idle)
		last = (struct commit){.txid = base->last_txid, .time_us = base->last_us};
	if (rc == 0)
		rc = put_gap_fence(s, base->lineage, last.txid + 1, err);
	if (rc == 0)
		advance(s, &last);
	return rc;
}

/* Whether damage in `o` is to be got over by going on behind a jump: nothing lies in between. */
static bool may_leap(struct shipper *s, const struct history_object *o, const struct err *why,
                     struct jump *ret)
{
	if (why->kind != ERR_DAMAGED || !jump_ahead(s, ret))
		return false;
	for (size_t i = 0; i < s->n_objects; i++) {
		const struct history_object *k = &s->objects[i];
		if (k->type != HISTORY_COALESCED && k->first_txid > o->last_txid &&
		    k->last_txid > o->last_txid && k->last_txid <= ret->told_txid)
			return false;
	}
	return true;
}

static int send_or_leap(struct shipper *s, const struct history_object *o, struct err *err)
{
	struct err why = ERR_INIT;
	struct jump j;

	int rc = o->type == HISTORY_SNAPSHOT ? ship_idle_state(s, o, &why)
	                                     : ship_commits(s, o, &why);
	if (rc == 0)
		return 0;
	return may_leap(s, o, &why, &j) ? leap(s, &j, &why, err) : err_copy(err, &why);
}

/* One more piece of what is new; *ret_did: there was one. */
static int ship_new(struct shipper *s, bool *ret_did, struct err *err)
{
	struct ship_status st;

	struct err gone = ERR_INIT;
	struct jump j;

	*ret_did = false;
	(void)!err_set(&gone, ERR_DAMAGED, 0, "nothing holds it");
	ship_status_get(s, &st);
	uint64_t until = s->options.until_txid;
	if (s->next_txid > st.tip_txid || (until && s->next_txid > until))
		return 0;
	for (int tries = 0;; tries++) {
		const struct history_object *o = holder_of(s, s->next_txid);
		*ret_did = true;
		o = o ? o : snapshot_of(s, s->next_txid);
		if (o)
			return send_or_leap(s, o, err);
		if (jump_ahead(s, &j) && (s->next_txid > j.from_txid || tries == RELISTS_MAX))
			return leap(s, &j, &gone, err);
		if (tries == RELISTS_MAX && history_thinned(s->history) >= s->next_txid)
			return jump(s, err);
		if (tries == RELISTS_MAX) /* it is just being sealed or joined */
			return err_set(err, ERR_BUSY, 0,
			               "transaction %" PRIu64
			               " of '%s' cannot be found (it is tried "
			               "again)",
			               s->next_txid, s->name);
		history_relist(s->history);
		int rc = ship_look(s, err);
		if (rc < 0)
			return rc;
	}
}

/* Without a base nothing can be restored: it goes first. */
static int ship_base(struct shipper *s, struct err *err)
{
	const struct history_object *base = NULL;

	if (s->has.has_snapshot)
		return 0;
	for (size_t i = 0; i < s->n_objects; i++)
		if (s->objects[i].type == HISTORY_SNAPSHOT &&
		    s->objects[i].first_txid <= s->next_txid &&
		    (!base || s->objects[i].last_txid > base->last_txid))
			base = &s->objects[i];
	if (!base || base->first_txid <= base->last_txid || base->last_txid >= s->next_txid)
		return 0; /* a fuzzy one follows what must lie over it */
	int rc = ship_claim(s, base->lineage, err);
	if (rc == 0)
		rc = ship_object(s, base, err);
	if (rc == 0 && s->status.replicated_txid < base->last_txid) {
		pthread_mutex_lock(&s->lock);
		s->status.replicated_txid = base->last_txid;
		s->status.replicated_us = base->last_us;
		pthread_mutex_unlock(&s->lock);
	}
	return rc;
}

/* As a former process left it: nothing is to be asked. */
static bool is_complete(struct shipper *s)
{
	struct ship_status st;

	ship_status_get(s, &st);
	return st.based && st.complete_hash && st.replicated_txid == st.tip_txid &&
	       !st.trouble_us && st.complete_hash == ship_archive_hash(s);
}

/* Where nothing was captured yet there is no history: that is no trouble, and nothing to send. */
static int open_if_begun(struct shipper *s, struct err *err)
{
	struct err why = ERR_INIT;

	if (ship_open_history(s, &why) == 0)
		return 0;
	if (why.kind != ERR_NOT_FOUND || s->known)
		return err_copy(err, &why);
	close_history(s);
	return 0;
}

static int step(struct shipper *s, bool *ret_more, struct err *err)
{
	int64_t until_us = clock_mono_us() + STEP_US;
	bool did = true;

	int rc = open_if_begun(s, err);
	if (rc < 0 || !s->history)
		return rc;
	rc = ship_look(s, err);
	if (rc == 0 && ship_first(s) == 0)
		return 0;
	if (rc == 0 && !s->known)
		rc = ship_know_marks(s, err);
	if (s->known && ship_retained_changes(s) != s->seen_changes)
		s->known = false; /* it made, and deleted: look anew */
	if (rc == 0 && !s->known && !s->options.look && is_complete(s))
		return 0;
	if (rc == 0 && !s->known)
		rc = ship_begin(s, err);
	if (rc == 0)
		rc = ship_base(s, err);
	if (rc == 0)
		rc = ship_notes(s, err);
	while (rc == 0 && did && clock_mono_us() < until_us) {
		rc = ship_new(s, &did, err);
		if (rc == 0 && did)
			rc = ship_look(s, err);
		if (rc == 0 && did)
			rc = ship_roots(s, err);
	}
	*ret_more = did;
	if (rc < 0 || did)
		return rc;
	rc = ship_next_object(s, &did, err);
	*ret_more = did;
	if (rc == 0 && !did) {
		uint64_t sum = ship_archive_hash(s);
		pthread_mutex_lock(&s->lock);
		s->status.complete_hash = sum;
		pthread_mutex_unlock(&s->lock);
	}
	return rc < 0 || did ? rc : ship_remove_covered(s, err);
}

static void tell(struct shipper *s, int rc, const struct err *why)
{
	pthread_mutex_lock(&s->lock);
	s->status.stored_objects = s->has.objects;
	s->status.stored_bytes = s->has.bytes;
	if (s->known)
		s->status.based = s->has.has_snapshot;
	if (rc == 0) {
		s->status.at_us = clock_now_us();
		s->status.trouble_us = 0;
		s->status.trouble[0] = '\0';
	} else if (why->kind != ERR_CANCELLED) {
		if (!s->status.trouble_us)
			s->status.trouble_us = clock_now_us();
		snprintf(s->status.trouble, sizeof(s->status.trouble), "%.299s", why->msg);
	}
	pthread_mutex_unlock(&s->lock);
}

int shipper_step(struct shipper *s, bool *ret_more, struct err *err)
{
	struct err why = ERR_INIT;
	struct err ignored = ERR_INIT;

	*ret_more = false;
	if (s->status.fenced)
		return err_set(err, ERR_REFUSED, 0, "%s", s->status.trouble);
	int rc = ship_take_turn(s, err);
	if (rc < 0)
		return rc;
	rc = step(s, ret_more, &why);
	/* A claim that has to stand for a while: the next step goes on. */
	if (rc < 0 && why.kind == ERR_BUSY && s->claim_due_us) {
		*ret_more = true;
		rc = 0;
	}
	if (rc < 0 && why.kind != ERR_UNAVAILABLE && why.kind != ERR_CANCELLED)
		s->known = s->known && s->status.fenced; /* look anew */
	tell(s, rc, &why);
	if (ship_status_write(s, &ignored) < 0)
		log_warn("ship", "db=%s: %s", s->name, ignored.msg);
	return rc < 0 ? err_copy(err, &why) : 0;
}
