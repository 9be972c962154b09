/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taking over.  The archive has the history up to where the store's ends, or further.
 *
 *   just as far   the old lineage is closed at its next key; a child begins, here and there
 *   further       we go on in the same lineage: the first to create the next key has it
 */
#include "engine/base/file.h"
#include "engine/base/log.h"
#include "engine/ship/ship_i.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#define TRIES 5
#define NOTE_MAX 4096

static int take_lock(struct shipper *s, int *ret_fd, struct err *err)
{
	struct err why = ERR_INIT;

	int rc = file_open(s->dir_fd, "lock", O_RDWR | O_CREAT, 0600, ret_fd, err);
	if (rc < 0 || file_lock(*ret_fd, "lock", &why) == 0)
		return rc;
	return why.kind == ERR_BUSY
	               ? err_set(err, ERR_BUSY, 0,
	                         "'%s' is being replicated by another asof (stop it first)",
	                         s->name)
	               : err_copy(err, &why);
}

static int name_writer(struct shipper *s, char ret[200], struct err *err)
{
	struct writer_note w;
	char since[TIME_STR_MAX];

	snprintf(ret, 200, "nobody");
	if (!s->has.writer_lineage)
		return 0;
	struct err why = ERR_INIT;
	int rc = ship_read_writer(s, s->has.writer_lineage, &w, &why);
	if (err_kind_of(rc) == ERR_DAMAGED) { /* this is the way out of that */
		snprintf(ret, 200, "somebody whose note is damaged");
		return 0;
	}
	if (rc < 0)
		return err_copy(err, &why);
	time_format(w.since_us, since);
	snprintf(ret, 200, "%s%s, since %s", strcmp(w.id, s->id) == 0 ? "ourselves on " : "",
	         w.host, since);
	return 0;
}

static int behind(struct shipper *s, const struct ship_end *end, uint64_t tip, struct err *err)
{
	return err_set(err, ERR_REFUSED, 0,
	               "'%s' at %s holds transactions up to %" PRIu64 ", the archive up to %" PRIu64
	               " (bring them first: asof copy %s %s --db %s)",
	               s->name, s->url, end->last_txid, tip, s->url, s->root, s->name);
}

static int go_on(struct shipper *s, uint32_t lineage, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT(NOTE_MAX);
	struct writer_note w;
	char file[40];

	snprintf(file, sizeof(file), "%08" PRIu32 ".writer", lineage);
	int rc = ship_read_writer(s, lineage, &w, err);
	if (rc < 0)
		return rc;
	rc = ship_writer_text(s, lineage, strcmp(w.id, s->id) != 0 ? w.id : w.was, &b, err);
	return rc < 0 ? rc : ship_put_bytes(s, file, b.data, b.len, 0, err);
}

static int close_lineage(struct shipper *s, const struct ship_end *end, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT(GROW_HEADER_SIZE);
	char file[OBJECT_NAME_MAX + 16];

	level0_file(end->lineage, end->last_txid + 1, file);
	int rc = grow_fence_put(end->lineage, end->last_txid + 1, 0, &b, err);
	return rc < 0 ? rc : ship_put_bytes(s, file, b.data, b.len, STORE_CREATE, err);
}

static int begin_child(struct shipper *s, const struct ship_end *end, const char *from,
                       struct err *err)
{
	struct lineage_note parent, n = {.parent = end->lineage,
	                                 .from_txid = end->last_txid,
	                                 .first_txid = end->last_txid + 1,
	                                 .live_us = clock_now_us()};
	char name[40];
	uint32_t newest =
	        s->has.lineage > s->has.writer_lineage ? s->has.lineage : s->has.writer_lineage;

	/* That which fences already. */
	n.lineage = s->no_create ? s->lineage : newest + 1;
	snprintf(name, sizeof(name), "%08" PRIu32 ".lineage", end->lineage);
	snprintf(n.reason, sizeof(n.reason), "taken over from %.120s", from);
	int rc = lineage_note_get(s->dir_fd, name, &parent, err);
	if (rc < 0)
		return rc;
	n.page_size = parent.page_size;
	if (!s->no_create)
		s->lineage = 0;
	rc = ship_claim(s, n.lineage, err);
	if (rc == 0)
		rc = lineage_note_put(s->dir_fd, &n, err);
	snprintf(name, sizeof(name), "%08" PRIu32 ".lineage", n.lineage);
	return rc < 0 ? rc : ship_note(s, name, err);
}

/* Without conditional writes nothing is closed by one put: the next lineage is claimed first. */
static int fence(struct shipper *s, struct err *err)
{
	uint32_t newest =
	        s->has.lineage > s->has.writer_lineage ? s->has.lineage : s->has.writer_lineage;

	log_warn("ship",
	         "no conditional writes there: waiting for the other writer to see this one "
	         "in_s=%lld db=%s to=%s",
	         (long long)(s->options.claim_wait_us / US_PER_SECOND), s->name, s->url);
	s->lineage = 0;
	return ship_claim_now(s, newest + 1, err);
}

/* What is there, and that the archive has all of it; *ret_done: it is ours already. */
static int look_there(struct shipper *s, bool fenced, char ret_from[200], struct ship_end *end,
                      bool *ret_done, struct err *err)
{
	*ret_done = false;
	int rc = contents_list(s, err);
	if (rc == 0)
		rc = ship_find_end(s, end, err);
	if (rc == 0 && !fenced)
		rc = name_writer(s, ret_from, err);
	if (rc < 0)
		return rc;
	if (!fenced && (s->has.writer_lineage == 0 ||
	                (strncmp(ret_from, "ourselves", 9) == 0 && !end->closed))) {
		*ret_done = true; /* the next step claims it, or goes on */
		return 0;
	}
	if (end->last_txid > s->status.tip_txid)
		return behind(s, end, s->status.tip_txid, err);
	return end->last_txid ? ship_check_end(s, end, err) : 0;
}

static int take_over(struct shipper *s, char ret_from[200], struct err *err)
{
	struct ship_end end;
	struct err why = ERR_INIT;
	bool fenced = false, done;

	for (int i = 0;; i++) {
		why = (struct err)ERR_INIT;
		int rc = look_there(s, fenced, ret_from, &end, &done, err);
		if (rc < 0 || done)
			return rc;
		if (!fenced && s->no_create) {
			if ((rc = fence(s, err)) < 0)
				return rc;
			fenced = true; /* what is there now stays: look again */
			continue;
		}
		if (s->status.tip_txid > end.last_txid && !end.closed)
			return fenced ? 0 : go_on(s, s->has.writer_lineage, err);
		if (s->status.tip_txid > end.last_txid)
			return err_set(err, ERR_REFUSED, 0,
			               "'%s' at %s was closed at transaction %" PRIu64
			               " by another asof, the archive went on to %" PRIu64
			               " (two histories: send to another bucket or prefix)",
			               s->name, s->url, end.last_txid, s->status.tip_txid);
		if (end.closed || close_lineage(s, &end, &why) == 0)
			return begin_child(s, &end, ret_from, err);
		if (why.kind != ERR_EXISTS || i == TRIES)
			return err_copy(err, &why);
	}
}

int ship_take_over(const struct ship_options *o, char ret_from[200], struct err *err)
{
	cleanup_shipper struct shipper *s = NULL;
	cleanup_fd int lock = -1;

	int rc = shipper_new(o, &s, err);
	if (rc == 0)
		rc = take_lock(s, &lock, err);
	if (rc == 0)
		rc = ship_open_history(s, err);
	if (rc == 0)
		rc = ship_look(s, err);
	if (rc == 0)
		rc = ship_find_creates(s, err);
	return rc < 0 ? rc : take_over(s, ret_from, err);
}
