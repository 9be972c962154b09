/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/backups.h"
#include "tools/cli.h"
#include "tools/destinations.h"
#include "tools/judged.h"
#include "tools/status_daemon.h"
#include "tools/verified.h"

#include <inttypes.h>
#include <stdlib.h>

/* Gaps listed for people; JSON has all of them. */
#define GAPS_SHOWN 10

struct status_request {
	struct cli *cli;
	const char *archive, *db;
	bool json;
	int64_t now_us;
	const char *root, *backups; /* where histories lie, and where backups do */
	struct status_daemon daemon;
};

/* Gap number `i`: 1 and *ret, or 0 past the last. */
static int get_gap(struct history *h, size_t i, struct gap *ret, struct err *err)
{
	struct err local = ERR_INIT;
	int rc = history_gap(h, i, ret, &local);

	if (err_kind_of(rc) == ERR_NOT_FOUND)
		return 0;
	return rc ? err_copy(err, &local) : 1;
}

/* ---- JSON ---- */

static int gaps_json(struct history *h, json_t *gaps, struct err *err)
{
	struct gap g;
	int more;

	for (size_t i = 0; (more = get_gap(h, i, &g, err)) > 0; i++)
		json_array_append_new(gaps, json_pack("{so so so so}", "from_txid",
		                                      cli_json_uint(g.before_txid), "to_txid",
		                                      cli_json_uint(g.after_txid), "from",
		                                      cli_json_time(g.before_us), "to",
		                                      cli_json_time(g.after_us)));
	return more;
}

static json_t *lost_json(struct history *h)
{
	json_t *lost = json_array();
	struct damage d;

	for (size_t i = 0; history_lost(h, i, &d, NULL) == 0; i++)
		json_array_append_new(lost, json_pack("{so so so so so*}", "from_txid",
		                                      cli_json_uint(d.first_txid), "to_txid",
		                                      cli_json_uint(d.last_txid), "from",
		                                      cli_json_time(d.after_us), "to",
		                                      cli_json_time(d.until_us), "object",
		                                      d.object[0] ? json_text(d.object) : NULL));
	return lost;
}

static int add_json(const struct status_request *q, struct history *h,
                    const struct history_status *s, json_t *databases, struct err *err)
{
	json_t *gaps = json_array();
	struct verified_note verified;
	int rc = gaps_json(h, gaps, err);

	rc = rc ? rc : verified_kept(h, &verified, err);
	if (rc) {
		json_decref(gaps);
		return rc;
	}
	json_t *database = json_pack(
	        "{ss so sb so so so so so so so so so so so so so}", "database", history_name(h),
	        "source", json_text(s->source_path), "writer_alive", (int)s->writer_alive,
	        "last_txid", cli_json_uint(s->last_txid), "last_captured",
	        cli_json_time(s->last_us), "known_until", cli_json_time(s->known_until_us),
	        "first_txid", cli_json_uint(s->first_txid), "first_time",
	        cli_json_time(s->first_us), "lineage", cli_json_uint(s->lineage), "gap_count",
	        cli_json_uint(s->gaps), "gaps", gaps, "backlog_bytes",
	        cli_json_uint(s->unsealed_bytes), "archive_bytes", cli_json_uint(s->archive_bytes),
	        "snapshots", cli_json_uint(s->n_snapshots), "segments",
	        cli_json_uint(s->n_segments), "coalesced", cli_json_uint(s->n_coalesced));
	json_object_set_new(database, "lost", lost_json(h));
	verified_kept_json(database, &verified);
	json_object_set_new(database, "destinations",
	                    destinations_json(q->cli, q->root, history_name(h)));
	status_daemon_row_json(&q->daemon, q->root, history_name(h), database);
	if (s->writer_hindrance[0] && json_is_null(json_object_get(database, "reason")))
		json_object_set_new(database, "reason", json_text(s->writer_hindrance));
	json_array_append_new(databases, database);
	return 0;
}

/* ---- text ---- */

static void print_moment(const char *label, int64_t time_us, uint64_t txid, int64_t now_us)
{
	char when[TIME_STR_MAX], age[AGE_STR_MAX];

	if (!time_us) {
		printf("  %-15s -\n", label);
		return;
	}
	time_format(time_us, when);
	cli_format_age(time_us, now_us, age);
	printf("  %-15s %s", label, when);
	if (txid)
		printf("  txid %" PRIu64, txid);
	printf("  (%s)\n", age);
}

static int print_gaps(struct history *h, uint64_t n_gaps, struct err *err)
{
	struct gap g;
	int more = 0;

	printf("  %-15s %" PRIu64 "\n", "gaps", n_gaps);
	size_t first = n_gaps > GAPS_SHOWN ? (size_t)(n_gaps - GAPS_SHOWN) : 0;
	for (size_t i = first; (more = get_gap(h, i, &g, err)) > 0; i++) {
		char from[TIME_STR_MAX], to[TIME_STR_MAX];
		time_format(g.before_us, from);
		time_format(g.after_us, to);
		printf("    nothing is known between %s (txid %" PRIu64 ") and %s (txid %" PRIu64
		       ")\n",
		       from, g.before_txid, to, g.after_txid);
	}
	return more;
}

/* What capture went on behind, for as long as it cannot be read. */
static void print_lost(struct history *h)
{
	struct damage d;
	char text[480];

	for (size_t i = 0; history_lost(h, i, &d, NULL) == 0; i++) {
		history_lost_text(&d, text, sizeof(text));
		printf("  %-15s %s\n", "damaged", text);
	}
}

static int print_verified(struct history *h, int64_t now_us, struct err *err)
{
	struct verified_note n;
	char age[AGE_STR_MAX];
	int rc = verified_kept(h, &n, err);

	if (rc)
		return rc;
	print_moment("verified to", n.through_us, n.through_txid, now_us);
	if (n.integrity_at_us) {
		char text[sizeof(n.integrity)];
		snprintf(text, sizeof(text), "%s", n.integrity);
		cli_one_line(text);
		cli_format_age(n.integrity_at_us, now_us, age);
		printf("  %-15s %s (%s)\n", "integrity", text, age);
	} else {
		printf("  %-15s -\n", "integrity");
	}
	if (n.damaged) {
		cli_one_line(n.damage);
		printf("  %-15s %" PRIu64 ": %s (asof validate tells what restores)\n", "damaged",
		       n.damaged, n.damage);
	}
	return 0;
}

/* A daemon says more than that somebody holds the archive's lock. */
static void print_replicator(const struct status_request *q, const char *name,
                             const struct history_status *s)
{
	bool alive = s->writer_alive;
	const json_t *row = status_daemon_row(&q->daemon, q->root, name);
	const char *state = json_string_value(json_object_get(row, "state"));
	const char *why = json_string_value(json_object_get(row, "reason"));
	char text[256];

	if (!why || !*why)
		why = s->writer_hindrance;
	snprintf(text, sizeof(text), "%s%s%.20s%s%.200s", alive ? "running" : "not running",
	         state ? ", asof run: " : "", state ? state : "", *why ? ", " : "", why);
	cli_one_line(text);
	printf("  %-15s %s\n", "replicator", text);
}

static int print_text(const struct status_request *q, struct history *h,
                      const struct history_status *s, struct err *err)
{
	int64_t now_us = q->now_us;
	char backlog[SIZE_STR_MAX], bytes[SIZE_STR_MAX];

	cli_format_size(s->unsealed_bytes, backlog);
	cli_format_size(s->archive_bytes, bytes);
	printf("%s\n", history_name(h));
	printf("  %-15s %s\n", "source", s->source_path[0] ? s->source_path : "-");
	print_replicator(q, history_name(h), s);
	print_moment("last captured", s->last_us, s->last_txid, now_us);
	print_moment("known until", s->known_until_us, 0, now_us);
	print_moment("goes back to", s->first_us, s->first_txid, now_us);
	int rc = print_gaps(h, s->gaps, err);
	print_lost(h);
	printf("  %-15s %s not sealed yet\n", "backlog", backlog);
	printf("  %-15s %s: %" PRIu64 " snapshots, %" PRIu64 " segments, %" PRIu64 " coalesced\n",
	       "archive", bytes, s->n_snapshots, s->n_segments, s->n_coalesced);
	rc = rc ? rc : print_verified(h, now_us, err);
	destinations_print(q->cli, q->root, history_name(h), now_us);
	status_runs_print(&q->daemon, history_name(h), now_us);
	return rc;
}

/* ---- */

static int show(struct history *h, const struct status_request *q, json_t *databases,
                struct err *err)
{
	struct history_status s;
	int rc = history_get_status(h, &s, err);

	if (rc)
		return rc;
	return q->json ? add_json(q, h, &s, databases, err) : print_text(q, h, &s, err);
}

static int show_all(struct archive *a, const struct status_request *q, json_t *databases,
                    json_t **ret_pending, struct err *err)
{
	cleanup_free char **names = NULL;
	size_t n, pending = 0;
	int rc = archive_list(a, &names, &n, err);

	if (rc)
		return rc;
	for (size_t i = 0; i < n && !rc; i++) {
		cleanup_history struct history *h = NULL;
		if (i && !q->json)
			putchar('\n');
		rc = history_get(a, names[i], &h, err);
		rc = rc ? rc : show(h, q, databases, err);
		if (rc)
			err_wrap(err, rc, "%s", names[i]);
	}
	if (!rc && q->json)
		*ret_pending = status_pending_json(&q->daemon, q->root, names, n);
	else if (!rc)
		pending = status_pending_print(&q->daemon, q->root, names, n);
	if (!rc && !q->json && n + pending == 0)
		return err_set(err, ERR_NOT_FOUND, 0,
		               "no database in archive '%s' yet (asof replicate brings one in)",
		               archive_root(a));
	return rc;
}

static int print_all_json(struct status_request *q, json_t *databases, json_t *pending,
                          const struct judged *judged, struct err *err)
{
	return cli_print_json(json_pack("{so so so so so so so so}", "archive", json_text(q->root),
	                                "now", cli_json_time(q->now_us), "databases", databases,
	                                "pending", pending ? pending : json_array(), "daemon",
	                                status_daemon_json(&q->daemon), "health",
	                                judged_json(judged), "runs", status_runs_json(&q->daemon),
	                                "backups_sent", backups_sent_json(q->backups)),
	                      err);
}

static int run_status(struct cli *c, struct err *err)
{
	cleanup_archive struct archive *a = NULL;
	cleanup_history struct history *h = NULL;
	cleanup_judged struct judged judged = {0};
	struct status_request q = {.cli = c, .now_us = clock_now_us()};
	struct err why = ERR_INIT;
	int id, rc;

	while ((id = cli_option(c, err)) > 0) {
		if (id == OPT_ARCHIVE)
			q.archive = c->arg;
		else
			q.json = true;
	}
	if (id < 0)
		return id;
	if ((rc = cli_check_args(c, 0, 1, "", err)) ||
	    (rc = cli_open_archive_of(c, q.archive, c->n_args ? c->args[0] : NULL, &a, err)))
		return rc;
	q.root = archive_root(a);
	if (backups_root(c, q.archive, &q.backups, &why) < 0)
		q.backups = q.root;
	status_daemon_get(c, q.root, &q.daemon);
	json_t *databases = q.json ? json_array() : NULL, *pending = NULL;
	if (c->n_args) {
		rc = cli_open_database(c, a, c->args[0], &h, err);
		rc = rc ? rc : show(h, &q, databases, err);
	} else {
		rc = show_all(a, &q, databases, &pending, err);
	}
	const struct judged_options look = {.archive = q.root, .now_us = q.now_us};
	rc = rc ? rc : judged_get(c, &look, &judged, err);
	if (rc) {
		json_decref(databases);
		json_decref(pending);
	} else if (q.json) {
		rc = print_all_json(&q, databases, pending, &judged, err);
	} else {
		if (!h)
			backups_sent_print(q.backups, q.now_us);
		judged_print(&judged, h ? history_name(h) : NULL);
	}
	status_daemon_release(&q.daemon);
	return rc;
}

static const struct cli_option status_options[] = {CLI_OPTION_ARCHIVE, CLI_OPTION_JSON,
                                                   CLI_OPTION_END};

const struct cli_command cmd_status = {
        .name = "status",
        .usage = "[DB] [--archive ARCHIVE] [--json]",
        .summary = "Shows how far each database is captured, its gaps and its backlog.",
        .example = "asof status --archive /backups",
        .options = status_options,
        .prints = true,
        .run = run_status,
};
