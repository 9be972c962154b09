/* SPDX-License-Identifier: Apache-2.0 */
/* To a store: what ship and backup send there, once, and by their rules. */
#include "engine/backup/send.h"
#include "engine/copy/copy_i.h"
#include "engine/ship/ship.h"

#include <inttypes.h>
#include <string.h>

#define WAIT_LOOK_US 50000

/* ---- histories ---- */

struct sending {
	struct copying *c;
	uint64_t before; /* bytes that were sent when this put began */
};

static bool tell(void *ctx, uint64_t sent_bytes)
{
	const struct sending *s = ctx;
	const struct copy_options *o = s->c->options;

	return !(o->stop && *o->stop) &&
	       (!o->progress || o->progress(o->ctx, s->before + sent_bytes, 0));
}

/* Up to where it reaches now. */
static int reach(struct copying *c, const char *name, uint64_t *ret, struct err *err)
{
	cleanup_history struct history *h = NULL;
	struct history_status st;

	int rc = history_get(c->from, name, &h, err);
	if (rc == 0)
		rc = history_get_status(h, &st, err);
	if (rc == 0)
		*ret = st.told_txid > st.last_txid ? st.told_txid : st.last_txid;
	return rc;
}

/* Of claims that have to stand for a while (ship.h (2)). */
static int wait_for_claim(struct sending *s, struct shipper *sh, struct err *err)
{
	int rc = 0;

	for (int64_t left_us; rc == 0 && (left_us = shipper_wait_us(sh)) > 0;) {
		clock_sleep_us(left_us < WAIT_LOOK_US ? left_us : WAIT_LOOK_US);
		rc = copy_stopped(s->c, err);
	}
	return rc;
}

static int send_history(struct copying *c, struct store *to, const char *name, struct err *err)
{
	const struct copy_options *o = c->options;
	struct sending s = {.c = c, .before = c->result->bytes};
	struct ship_options so = {.archive = o->from,
	                          .name = name,
	                          .url = o->to,
	                          .store = to,
	                          .stop = o->stop,
	                          .look = true,
	                          .progress = tell,
	                          .ctx = &s};
	cleanup_shipper struct shipper *sh = NULL;
	struct ship_status before, after;
	bool more = true;

	int rc = reach(c, name, &so.until_txid, err);
	if (rc == 0)
		rc = shipper_new(&so, &sh, err);
	if (rc < 0)
		return rc;
	ship_status_get(sh, &before);
	while (rc == 0 && more) {
		rc = shipper_step(sh, &more, err);
		if (rc == 0)
			rc = copy_stopped(c, err);
		if (rc == 0)
			rc = wait_for_claim(&s, sh, err);
	}
	ship_status_get(sh, &after);
	uint64_t put =
	        after.level0_put - before.level0_put + after.objects_put - before.objects_put;
	c->result->objects += put;
	c->result->bytes +=
	        after.level0_bytes - before.level0_bytes + after.object_bytes - before.object_bytes;
	c->result->present += after.stored_objects > put ? after.stored_objects - put : 0;
	if (after.damaged > 0 && c->result->damaged == 0)
		snprintf(c->result->damage, sizeof(c->result->damage),
		         "%" PRIu64 " objects of '%.100s' are damaged, and were not sent "
		         "(asof validate names them)",
		         after.damaged, name);
	c->result->damaged += after.damaged;
	return rc;
}

static int send_histories(struct copying *c, struct store *to, struct err *err)
{
	const struct copy_options *o = c->options;
	cleanup_free char **names = NULL;
	size_t n;

	int rc = archive_list(c->from, &names, &n, err);
	for (size_t i = 0; i < n && rc == 0; i++) {
		if (o->db && strcmp(names[i], o->db) != 0)
			continue;
		rc = send_history(c, to, names[i], err);
		c->result->databases += rc == 0;
	}
	if (rc == 0 && o->db && c->result->databases == 0)
		rc = err_set(err, ERR_NOT_FOUND, 0,
		             "archive '%s' has no database '%s' (asof list shows those it has)",
		             o->from, o->db);
	return rc;
}

/* ---- backups ---- */

struct sent_before {
	const char *url;
	struct backup_sent sent;
};

static int find_sent(void *ctx, const struct backup_sent *s)
{
	struct sent_before *b = ctx;

	if (strcmp(s->url, b->url) == 0)
		b->sent = *s;
	return 0;
}

static bool tell_backup(void *ctx, uint64_t done_bytes, uint64_t total_bytes)
{
	return tell(ctx, done_bytes);
}

static int send_backups(struct copying *c, struct store *to, struct err *err)
{
	struct sending s = {.c = c, .before = c->result->bytes};
	const struct backup_send_options bo = {.root = c->options->from,
	                                       .url = c->options->to,
	                                       .store = to,
	                                       .look = true,
	                                       .progress = tell_backup,
	                                       .progress_ctx = &s};
	struct sent_before before = {.url = c->options->to};
	struct backup_sent sent = {0};

	backup_sent_each(bo.root, find_sent, &before);
	int rc = backup_send(&bo, &sent, err);
	uint64_t n = sent.n_sent - before.sent.n_sent;
	c->result->objects += n;
	c->result->bytes += sent.n_bytes - before.sent.n_bytes;
	c->result->present += sent.n_there > n ? sent.n_there - n : 0;
	return rc;
}

int copy_to_store(struct copying *c, struct store *to, struct err *err)
{
	int rc = send_histories(c, to, err);

	return rc < 0 || c->options->db ? rc : send_backups(c, to, err);
}
