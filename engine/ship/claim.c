/* SPDX-License-Identifier: Apache-2.0 */
/* Who may write: identity, claims, and where one's own history goes on at the store. */
#include "engine/archive/head.h"
#include "engine/base/file.h"
#include "engine/base/log.h"
#include "engine/ship/ship_i.h"
#include "engine/store/trial.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define NOTE_MAX 4096
#define THINNED_MAX ((size_t)64 << 20)
#define WAIT_LOOK_US 50000
#define LINEAGES_MAX 50u /* of our own, one after the other */

/* ---- identity ---- */

int ship_identity(int dir_fd, char ret[WRITER_ID_SIZE], struct err *err)
{
	struct identity_note n;
	struct err why = ERR_INIT;
	struct stat st;
	uint64_t random[2];

	if (fstat(dir_fd, &st) < 0)
		return err_set(err, ERR_IO, errno, "stat the archive");
	if (identity_note_get(dir_fd, &n, &why) == 0 && n.dev == (uint64_t)st.st_dev &&
	    n.ino == (uint64_t)st.st_ino) {
		memcpy(ret, n.id, WRITER_ID_SIZE);
		return 0;
	}
	if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
		return err_set(err, ERR_IO, errno, "get random bytes");
	why = (struct err)ERR_INIT;
	n = (struct identity_note){.dev = (uint64_t)st.st_dev, .ino = (uint64_t)st.st_ino};
	snprintf(n.id, sizeof(n.id), "%016" PRIx64 "%016" PRIx64, random[0], random[1]);
	memcpy(ret, n.id, WRITER_ID_SIZE);
	/* A recorder that opens the folder just now removes what looks half written. */
	int rc = identity_note_put(dir_fd, &n, &why);
	for (int i = 0; i < 3 && rc < 0 && why.sys_errno == ENOENT; i++) {
		clock_sleep_us(10000);
		why = (struct err)ERR_INIT;
		rc = identity_note_put(dir_fd, &n, &why);
	}
	return rc < 0 ? err_copy(err, &why) : 0;
}

/* ---- the writer's note ---- */

int ship_read_writer(struct shipper *s, uint32_t lineage, struct writer_note *ret, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT(NOTE_MAX + 1);
	char file[40];

	snprintf(file, sizeof(file), "%08" PRIu32 ".writer", lineage);
	int rc = ship_get(s, file, NOTE_MAX, &b, err);
	rc = rc ? rc : buf_append(&b, "", 1, err);
	return rc ? rc : writer_note_parse((char *)b.data, b.len - 1, file, ret, err);
}

static int refuse(struct shipper *s, const struct writer_note *w, struct err *err)
{
	char since[TIME_STR_MAX];

	time_format(w->since_us, since);
	return err_set(err, ERR_REFUSED, 0,
	               "'%s' at %s is written by another asof, on %s since %s (stop that one; then "
	               "asof replicate --take-over)",
	               s->name, s->url, w->host, since);
}

int ship_fenced(struct shipper *s, const char *file, struct err *err)
{
	pthread_mutex_lock(&s->lock);
	s->status.fenced = true;
	pthread_mutex_unlock(&s->lock);
	return err_set(err, ERR_REFUSED, 0,
	               "another asof writes '%s' at %s now: it was first at '%s', nothing more is "
	               "sent there (capture goes on; stop one of the two)",
	               s->name, s->url, file);
}

int ship_writer_text(struct shipper *s, uint32_t lineage, const char *was, struct buf *ret,
                     struct err *err)
{
	struct writer_note n = {.lineage = lineage, .since_us = clock_now_us()};

	memcpy(n.id, s->id, sizeof(n.id));
	snprintf(n.was, sizeof(n.was), "%s", was);
	if (gethostname(n.host, sizeof(n.host) - 1) < 0 || !n.host[0])
		snprintf(n.host, sizeof(n.host), "an unnamed host");
	return writer_note_format(&n, ret, err);
}

int ship_check_claim(struct shipper *s, uint32_t lineage, struct err *err)
{
	struct writer_note there;

	int rc = ship_read_writer(s, lineage, &there, err);
	if (rc == 0 && strcmp(there.id, s->id) != 0)
		rc = refuse(s, &there, err);
	return rc;
}

int ship_check_ours(struct shipper *s, uint32_t *lineage, struct err *err)
{
	struct writer_note w;

	for (uint32_t l = *lineage, n = 0; n < LINEAGES_MAX; l++, n++) {
		struct err why = ERR_INIT;
		int rc = ship_read_writer(s, l, &w, &why);
		if (rc < 0 && why.kind == ERR_NOT_FOUND && n > 0)
			break;
		if (rc < 0)
			return err_copy(err, &why);
		if (strcmp(w.id, s->id) != 0)
			return err_set(
			        err, ERR_REFUSED, 0,
			        "'%s' at %s is written by another asof now, on %s: what lies "
			        "there is left to that",
			        s->name, s->url, w.host);
		*lineage = l;
	}
	return 0;
}

/* What is there is ours, now. */
static void hold(struct shipper *s, uint32_t lineage)
{
	s->lineage = s->has.writer_lineage = lineage;
	s->claim_due_us = 0;
	pthread_mutex_lock(&s->lock);
	s->status.held_lineage = s->no_create ? lineage : 0;
	pthread_mutex_unlock(&s->lock);
}

static int put_claim(struct shipper *s, uint32_t lineage, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT(NOTE_MAX);
	struct err why = ERR_INIT;
	char file[40];

	int rc = ship_writer_text(s, lineage, "", &b, err);
	if (rc < 0)
		return rc;
	snprintf(file, sizeof(file), "%08" PRIu32 ".writer", lineage);
	rc = ship_put_bytes(s, file, b.data, b.len, STORE_CREATE, &why);
	if (rc < 0 && why.kind == ERR_EXISTS)
		return ship_check_claim(s, lineage, err);
	return rc < 0 ? err_copy(err, &why) : 0;
}

int64_t shipper_wait_us(const struct shipper *s)
{
	int64_t left_us = s->claim_due_us ? s->claim_due_us - clock_mono_us() : 0;

	return left_us > 0 ? left_us : 0;
}

/* A claim that nothing makes exclusive: see ship.h (2). */
static int claim_by_waiting(struct shipper *s, uint32_t lineage, struct err *err)
{
	if (!s->claim_due_us || s->claiming != lineage) {
		int rc = put_claim(s, lineage, err);
		if (rc < 0)
			return rc;
		s->claiming = lineage;
		s->claim_due_us = clock_mono_us() + s->options.claim_wait_us;
	}
	if (shipper_wait_us(s))
		return err_set(err, ERR_BUSY, 0, "'%s' at %s: waiting for another writer to show",
		               s->name, s->url);
	s->claim_due_us = 0; /* whatever comes of it, the next claim is another one */
	int64_t now_us = clock_mono_us();
	int rc = ship_check_claim(s, lineage, err);
	if (rc == 0) {
		s->checked_us = now_us;
		hold(s, lineage);
	}
	return rc;
}

int ship_claim(struct shipper *s, uint32_t lineage, struct err *err)
{
	if (s->lineage >= lineage)
		return 0;
	if (s->no_create)
		return claim_by_waiting(s, lineage, err);
	int rc = put_claim(s, lineage, err);
	if (rc == 0)
		hold(s, lineage);
	return rc;
}

int ship_claim_now(struct shipper *s, uint32_t lineage, struct err *err)
{
	for (;;) {
		struct err why = ERR_INIT;
		int rc = ship_claim(s, lineage, &why);
		if (rc == 0 || why.kind != ERR_BUSY || !s->claim_due_us)
			return rc < 0 ? err_copy(err, &why) : 0;
		int64_t left_us = shipper_wait_us(s);
		if ((rc = ship_stopped(s, err)) < 0)
			return rc;
		clock_sleep_us(left_us < WAIT_LOOK_US ? left_us : WAIT_LOOK_US);
	}
}

int ship_find_creates(struct shipper *s, struct err *err)
{
	char key[64];
	bool creates, fresh;

	if (s->status.creates)
		return 0;
	/* Ours alone: nobody else tries the same key just now. */
	snprintf(key, sizeof(key), ".asof-trial-%s", s->id);
	int rc = store_creates(s->options.store, key, &creates, &fresh, err);
	if (rc < 0)
		return rc;
	s->no_create = !creates;
	pthread_mutex_lock(&s->lock);
	s->status.creates = creates;
	s->status.no_create = !creates;
	pthread_mutex_unlock(&s->lock);
	if (fresh && !creates)
		log_warn(
		        "ship",
		        "no conditional writes there: a second writer is found by reading back and "
		        "waiting (let one machine alone write there) wait_s=%lld to=%s",
		        (long long)(s->options.claim_wait_us / US_PER_SECOND),
		        s->options.store->label);
	return 0;
}

/* Without conditional writes: whoever else writes shows by its note, or a newer lineage's. */
int ship_check_writer(struct shipper *s, struct err *err)
{
	struct writer_note there;
	struct err why = ERR_INIT;
	int64_t now_us = clock_mono_us();

	if (!s->no_create ||
	    (s->checked_us && now_us - s->checked_us < s->options.claim_wait_us / CHECKS_IN_WAIT))
		return 0;
	for (uint32_t lineage = s->lineage; lineage <= s->lineage + 1 && lineage; lineage++) {
		if (ship_read_writer(s, lineage, &there, &why) == 0) {
			if (strcmp(there.id, s->id) != 0)
				return ship_fenced(s, "its writer's note", err);
		} else if (why.kind != ERR_NOT_FOUND) {
			return err_copy(err, &why);
		}
		why = (struct err)ERR_INIT;
	}
	s->checked_us = now_us;
	return 0;
}

/* ---- where the store's history ends ---- */

int ship_find_end(struct shipper *s, struct ship_end *ret, struct err *err)
{
	const struct contents *c = &s->has;
	struct level0_info info;

	*ret = (struct ship_end){.lineage = c->lineage};
	if (c->snapshot_txid) { /* a fuzzy one is no state before what follows its redo */
		ret->last_txid = c->snapshot_first - 1;
		ret->last_us = ret->last_txid == c->snapshot_txid ? c->snapshot_us : 0;
	}
	for (size_t i = 0; i < c->n_sealed; i++)
		if (c->sealed[i].last_txid >= ret->last_txid) {
			ret->last_txid = c->sealed[i].last_txid;
			ret->last_us = c->sealed[i].last_us;
			ret->lineage = c->sealed[i].lineage;
		}
	if (c->n_level0 == 0)
		return 0;
	const struct level0 *l = &c->level0[c->n_level0 - 1];
	if (l->first_txid <= ret->last_txid && l->bytes > GROW_HEADER_SIZE &&
	    contents_covers(c, l->lineage, l->first_txid, l->first_txid))
		return 0;
	int rc = level0_read(s, l->lineage, l->first_txid, &info, err);
	if (rc < 0)
		return rc;
	if (info.goes_on) { /* a gap; its far edge is a snapshot */
		if (ret->last_txid < info.goes_on - 1)
			*ret = (struct ship_end){.lineage = l->lineage,
			                         .last_txid = info.goes_on - 1};
		return 0;
	}
	if (info.closes) {
		ret->closed = c->writer_lineage <= l->lineage;
		if (ret->last_txid < l->first_txid)
			*ret = (struct ship_end){.lineage = l->lineage,
			                         .last_txid = l->first_txid - 1,
			                         .closed = ret->closed};
		return 0;
	}
	*ret = (struct ship_end){.lineage = l->lineage,
	                         .last_txid = info.last.txid,
	                         .last_us = info.last.time_us,
	                         .is_level0 = true,
	                         .first_txid = l->first_txid};
	return 0;
}

/* ---- beginning ---- */

static int diverged(struct shipper *s, uint64_t txid, struct err *err)
{
	return err_set(err, ERR_REFUSED, 0,
	               "'%s' at %s is another history: transaction %" PRIu64
	               " there is not that of the archive (send to another destination, or take it "
	               "over: asof replicate --take-over)",
	               s->name, s->url, txid);
}

/* What is there ends as ours goes on. */
int ship_check_end(struct shipper *s, const struct ship_end *end, struct err *err)
{
	struct level0_info info;
	struct commit c;
	struct err why = ERR_INIT;
	bool same = true;
	struct history_status st;

	int rc = history_get_status(s->history, &st, err);
	if (rc < 0)
		return rc;
	uint64_t newest = st.told_txid > st.last_txid ? st.told_txid : st.last_txid;
	if (end->last_txid > newest)
		return err_set(err, ERR_REFUSED, 0,
		               "'%s' at %s holds transactions up to %" PRIu64
		               ", the archive up to %" PRIu64
		               " (bring them here: asof copy; then asof replicate --take-over)",
		               s->name, s->url, end->last_txid, newest);
	if (end->is_level0) {
		rc = level0_is_ours(s, end->lineage, end->first_txid, &same, &info, err);
	} else if (end->last_us && history_commit(s->history, end->last_txid, &c, &why) == 0) {
		same = c.time_us == end->last_us;
	}
	return rc < 0 ? rc : same ? 0 : diverged(s, end->last_txid, err);
}

static int check_source(struct shipper *s, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT(NOTE_MAX + 1);
	struct source_note ours, theirs;
	struct err why = ERR_INIT;

	int rc = source_note_get(s->dir_fd, &ours, err);
	if (rc < 0)
		return rc;
	if (ship_get(s, "source", NOTE_MAX, &b, &why) < 0)
		return why.kind == ERR_NOT_FOUND ? 0 : err_copy(err, &why);
	rc = buf_append(&b, "", 1, err);
	if (rc < 0)
		return rc;
	if (source_note_parse((char *)b.data, b.len - 1, &theirs, &why) < 0)
		return err_wrap(err, err_copy(err, &why), "%s", s->url);
	if (theirs.id != ours.id)
		return err_set(err, ERR_REFUSED, 0,
		               "%s keeps the history of another database under the name '%s' (send "
		               "to another bucket or prefix)",
		               s->url, s->name);
	return 0;
}

/* The newest base, behind which everything is there, or the first segment that is not sealed, as
 * what is older goes there sealed.  Without either the first segment. */
uint64_t ship_first(const struct shipper *s)
{
	uint64_t base = 0, growing = UINT64_MAX, segment = UINT64_MAX;

	for (size_t i = 0; i < s->n_objects; i++) {
		const struct history_object *o = &s->objects[i];
		if (o->type == HISTORY_SNAPSHOT && o->first_txid > base)
			base = o->first_txid;
		if (o->type == HISTORY_GROWING && o->last_txid >= o->first_txid &&
		    o->first_txid < growing)
			growing = o->first_txid;
		if (o->type == HISTORY_SEGMENT && o->first_txid < segment)
			segment = o->first_txid;
	}
	if (base == 0 && segment < growing)
		return segment;
	if (base == 0)
		return growing == UINT64_MAX ? 0 : growing;
	return base < growing ? base : growing;
}

/* What retention left there. */
static int read_thinned(struct shipper *s, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT(THINNED_MAX + 1);
	struct thinned_note n = {0};

	if (!s->has.has_thinned)
		return 0;
	int rc = ship_get(s, "thinned", THINNED_MAX, &b, err);
	if (rc == 0)
		rc = buf_append(&b, "", 1, err);
	if (rc == 0)
		rc = thinned_note_parse((char *)b.data, b.len - 1, &n, err);
	if (rc == 0)
		s->has.thinned_txid = n.until_txid;
	thinned_note_release(&n);
	return rc;
}

int ship_begin(struct shipper *s, struct err *err)
{
	struct writer_note w;
	struct ship_end end;

	s->known = false;
	s->seen_changes = ship_retained_changes(s);
	int rc = contents_list(s, err);
	if (rc == 0)
		rc = read_thinned(s, err);
	if (rc == 0 && s->has.writer_lineage)
		rc = ship_read_writer(s, s->has.writer_lineage, &w, err);
	if (rc == 0 && s->has.writer_lineage && strcmp(w.id, s->id) != 0)
		rc = refuse(s, &w, err);
	if (rc == 0)
		rc = ship_find_creates(s, err);
	/* Killed while it waited: nothing says yet that the claim stands. */
	bool held = !s->no_create || s->status.held_lineage == s->has.writer_lineage;
	s->lineage = held ? s->has.writer_lineage : 0;
	s->checked_us = 0;
	if (rc == 0 && s->has.objects)
		rc = check_source(s, err);
	if (rc == 0)
		rc = ship_find_end(s, &end, err);
	if (rc == 0 && end.closed)
		rc = ship_fenced(s, "what closes its lineage", err);
	if (rc == 0 && end.last_txid)
		rc = ship_check_end(s, &end, err);
	if (rc < 0)
		return rc;
	s->next_txid = end.last_txid ? end.last_txid + 1 : ship_first(s);
	s->known = true;
	s->objects_due = true;
	s->seen_notes = 0;
	pthread_mutex_lock(&s->lock);
	s->status.fenced = false;
	s->status.replicated_txid = end.last_txid;
	s->status.replicated_us = end.last_us;
	pthread_mutex_unlock(&s->lock);
	return 0;
}
