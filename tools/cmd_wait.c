/* SPDX-License-Identifier: Apache-2.0 */
/* asof wait: asks the archive alone, so that it works beside asof run, asof replicate and a mount. */
#include "engine/ship/ship.h"
#include "tools/cli.h"
#include "tools/destinations.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define POLL_US 10000
#define TIMEOUT_DEFAULT_S 86400

enum {
	OPT_TXID = OPT_FIRST_OWN,
	OPT_DEST,
	OPT_TIMEOUT,
};

struct wait {
	const char *archive, *dest;
	uint64_t txid; /* 0: what is committed now */
	uint64_t timeout_s;
	int64_t since_us;
};

static int take_options(struct cli *c, struct wait *w, struct err *err)
{
	int id, rc = 0;

	while (!rc && (id = cli_option(c, err)) > 0) {
		switch (id) {
		case OPT_ARCHIVE:
			w->archive = c->arg;
			break;
		case OPT_DEST:
			w->dest = c->arg;
			break;
		case OPT_TXID:
			rc = cli_number(c, "--txid", c->arg, 1, INT64_MAX, &w->txid, err);
			break;
		case OPT_TIMEOUT:
			rc = cli_number(c, "--timeout", c->arg, 0, TIMEOUT_DEFAULT_S, &w->timeout_s,
			                err);
			break;
		}
	}
	return rc ? rc : id;
}

static int time_is_up(const struct wait *w, const char *name, const struct history_status *s,
                      struct err *err)
{
	char known[TIME_STR_MAX];

	time_format(s->known_until_us, known);
	return err_set(err, ERR_BUSY, 0,
	               "'%s': after %" PRIu64 " s captured up to transaction %" PRIu64
	               ", and known until %s",
	               name, w->timeout_s, s->last_txid, known);
}

/* Before the first snapshot is there a commit may be captured, and nothing can be restored. */
static bool is_restorable(struct history *h)
{
	struct moment m;

	return history_latest(h, &m, NULL) == 0;
}

/* Until `txid` is there, or (0) everything that was committed at the start.  *ret: the newest. */
static int wait_for(const struct wait *w, struct history *h, uint64_t txid, bool needs_writer,
                    uint64_t *ret, struct err *err)
{
	int64_t until_us = clock_mono_us() + (int64_t)w->timeout_s * US_PER_SECOND;
	struct history_status s;

	for (;;) {
		int rc = history_refresh(h, err);
		rc = rc ? rc : history_get_status(h, &s, err);
		if (rc)
			return rc;
		*ret = s.last_txid;
		bool there = txid ? s.last_txid >= txid : s.known_until_us >= w->since_us;
		if (there && is_restorable(h))
			return 0;
		if (needs_writer && !s.writer_alive)
			return err_set(
			        err, ERR_BUSY, 0,
			        "'%s' is not being replicated: nothing more will come (start "
			        "asof run or asof replicate)",
			        history_name(h));
		if (clock_mono_us() >= until_us)
			return time_is_up(w, history_name(h), &s, err);
		clock_sleep_us(POLL_US);
	}
}

/* What is sent to a store is told beside the history: nothing is asked of the store. */
static int wait_for_store(const struct wait *w, const char *root, const char *name, const char *url,
                          uint64_t txid, struct err *err)
{
	int64_t until_us = clock_mono_us() + (int64_t)w->timeout_s * US_PER_SECOND;
	struct ship_status s = {0};
	struct err why = ERR_INIT;

	for (;;) {
		int rc = ship_status_read(root, name, url, &s, &why);
		if (rc < 0 && why.kind != ERR_NOT_FOUND)
			return err_copy(err, &why);
		if (rc == 0 && s.replicated_txid >= txid && s.based)
			return 0;
		if (rc == 0 && s.fenced)
			return err_set(err, ERR_REFUSED, 0, "%.400s", s.trouble);
		if (clock_mono_us() >= until_us)
			return err_set(err, ERR_BUSY, 0,
			               "'%s': after %" PRIu64
			               " s replicated up to transaction %" PRIu64 "%s%.200s",
			               name, w->timeout_s, s.replicated_txid,
			               s.trouble[0] ? ": " : "", s.trouble);
		clock_sleep_us(POLL_US);
	}
}

static int wait_for_destination(struct cli *c, const struct wait *w, const char *root,
                                const char *name, uint64_t txid, struct err *err)
{
	cleanup_archive struct archive *a = NULL;
	cleanup_history struct history *h = NULL;
	const char *to;
	uint64_t newest;
	bool is_archive;

	int rc = destinations_find(c, name, w->dest, &to, &is_archive, err);
	if (rc == 0 && !is_archive)
		return wait_for_store(w, root, name, to, txid, err);
	rc = rc ? rc : archive_open(to, NULL, &a, err);
	rc = rc ? rc : history_get(a, name, &h, err);
	return rc ? rc : wait_for(w, h, txid, false, &newest, err);
}

static int run_wait(struct cli *c, struct err *err)
{
	cleanup_archive struct archive *a = NULL;
	cleanup_history struct history *h = NULL;
	struct wait w = {.timeout_s = TIMEOUT_DEFAULT_S, .since_us = clock_now_us()};
	uint64_t newest = 0;

	int rc = take_options(c, &w, err);
	if (rc == 0)
		rc = cli_check_args(c, 0, 1, "", err);
	if (rc)
		return rc;
	const char *db = c->n_args ? c->args[0] : NULL;
	rc = cli_open_archive_of(c, w.archive, db, &a, err);
	rc = rc ? rc : cli_open_database(c, a, db, &h, err);
	rc = rc ? rc : wait_for(&w, h, w.txid, true, &newest, err);
	if (rc || !w.dest)
		return rc;
	return wait_for_destination(c, &w, archive_root(a), history_name(h),
	                            w.txid ? w.txid : newest, err);
}

static const struct cli_option wait_options[] = {
        CLI_OPTION_ARCHIVE,
        {OPT_TXID, "txid", "N", "until transaction N (default: all that is committed now)"},
        {OPT_DEST, "dest", "NAME", "until that destination has it, too"},
        {OPT_TIMEOUT, "timeout", "SECONDS", "wait no longer (default: a day)"},
        CLI_OPTION_END,
};

const struct cli_command cmd_wait = {
        .name = "wait",
        .usage = "[DB] [--txid N] [--dest NAME] [OPTION]...",
        .summary = "Returns when what is committed is captured, or replicated.",
        .example = "asof wait futures_trades.db --timeout 10",
        .options = wait_options,
        .run = run_wait,
};
