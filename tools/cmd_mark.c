/* SPDX-License-Identifier: Apache-2.0 */
/* asof mark: names a moment, of one database or of all together, and keeps it. */
#include "engine/retain/retain.h"
#include "tools/cli.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { OPT_DB = OPT_FIRST_OWN, OPT_AT, OPT_TX, OPT_DELETE, OPT_LIST };

struct mark_request {
	const char *root, *name, *db, *at, *tx;
	bool json, delete, list;
};

/* One database's part in it. */
struct part {
	const char *db;
	struct history *history; /* with a reference */
	struct moment moment;
	bool absent; /* it begins later, or has no such mark */
};

struct parts {
	struct part *v;
	size_t n;
	char **names;
	struct archive *archive;
};

static void release(struct parts *p)
{
	for (size_t i = 0; i < p->n; i++)
		history_put(p->v[i].history);
	free(p->v);
	free(p->names);
	archive_free(p->archive);
}

/* The one database that was named, or all. */
static int open_parts(struct cli *c, const struct mark_request *q, struct parts *p, struct err *err)
{
	int rc = cli_open_archive_of(c, q->root, q->db, &p->archive, err);
	size_t n = 1;

	if (rc < 0)
		return rc;
	if (!q->db)
		rc = archive_list(p->archive, &p->names, &n, err);
	if (rc == 0 && n == 0)
		rc = err_set(err, ERR_NOT_FOUND, 0, "archive '%s' has no database yet",
		             archive_root(p->archive));
	if (rc == 0 && !(p->v = calloc(n, sizeof(*p->v))))
		rc = err_set(err, ERR_NOMEM, 0, "out of memory");
	for (size_t i = 0; i < n && rc == 0; i++) {
		struct part *to = &p->v[i];
		rc = q->db ? cli_open_database(c, p->archive, q->db, &to->history, err)
		           : history_get(p->archive, p->names[i], &to->history, err);
		if (rc == 0) {
			to->db = history_name(to->history);
			p->n++;
		}
	}
	return rc;
}

/* ---- making ---- */

static int find_moment(struct cli *c, const struct mark_request *q, int64_t now_us, struct part *p,
                       struct err *err)
{
	int64_t time_us;
	uint64_t txid;

	if (q->tx) {
		int rc = cli_number(c, "--tx", q->tx, 1, UINT64_MAX, &txid, err);
		return rc ? rc : history_tx(p->history, txid, &p->moment, err);
	}
	if (!q->at)
		return history_latest(p->history, &p->moment, err);
	int rc = cli_time_configured(c, "mark: --at", q->at, now_us, &time_us, err);
	return rc ? rc : history_at(p->history, time_us, now_us, &p->moment, err);
}

/* All of them are looked at before any mark is made. */
static int find_moments(struct cli *c, const struct mark_request *q, struct parts *p,
                        struct err *err)
{
	int64_t now_us = clock_now_us();
	struct err first = ERR_INIT;
	size_t found = 0;

	for (size_t i = 0; i < p->n; i++) {
		struct err why = ERR_INIT;
		struct mark taken;
		if (find_moment(c, q, now_us, &p->v[i], &why) == 0) {
			found++;
		} else if (why.kind == ERR_NOT_FOUND && !q->db) {
			p->v[i].absent = true; /* it begins later */
			if (first.kind == ERR_NONE)
				first = why;
			continue;
		} else {
			return err_wrap(err, err_copy(err, &why), "%s", p->v[i].db);
		}
		if (history_mark(p->v[i].history, q->name, &taken, &why) == 0)
			return err_set(
			        err, ERR_EXISTS, 0,
			        "database '%s' has a mark '%s' already (choose another name, "
			        "or --delete it first)",
			        p->v[i].db, q->name);
	}
	return found ? 0 : err_copy(err, &first);
}

static int make_marks(struct cli *c, const struct mark_request *q, struct parts *p, struct err *err)
{
	const char *root = archive_root(p->archive);

	int rc = find_moments(c, q, p, err);
	for (size_t i = 0; i < p->n && rc == 0; i++) {
		if (p->v[i].absent)
			continue;
		rc = retain_mark(root, p->v[i].db, q->name, p->v[i].moment.txid, err);
		while (rc < 0 && i-- > 0) /* all or none */
			if (!p->v[i].absent)
				(void)!retain_unmark(root, p->v[i].db, q->name, NULL);
	}
	return rc;
}

static json_t *part_json(const char *db, const char *mark, uint64_t txid, int64_t time_us)
{
	return json_pack("{ss ss so so}", "mark", mark, "database", db, "txid", cli_json_uint(txid),
	                 "time", cli_json_time(time_us));
}

static int say_made(const struct mark_request *q, const struct parts *p, struct err *err)
{
	json_t *all = json_array();
	char when[TIME_STR_MAX];

	for (size_t i = 0; i < p->n; i++) {
		const struct moment *m = &p->v[i].moment;
		if (p->v[i].absent)
			continue;
		time_format(m->time_us, when);
		json_array_append_new(all, part_json(p->v[i].db, q->name, m->txid, m->time_us));
		if (!q->json)
			printf("marked '%s': %s at %s (txid %" PRIu64 ")\n", q->name, p->v[i].db,
			       when, m->txid);
	}
	if (q->json)
		return cli_print_json(json_pack("{so}", "marks", all), err);
	json_decref(all);
	return 0;
}

/* ---- the others ---- */

static int delete_marks(const struct mark_request *q, struct parts *p, struct err *err)
{
	struct err why = ERR_INIT;
	size_t deleted = 0;

	for (size_t i = 0; i < p->n; i++) {
		why = (struct err)ERR_INIT;
		if (retain_unmark(archive_root(p->archive), p->v[i].db, q->name, &why) == 0)
			deleted++;
		else if (why.kind != ERR_NOT_FOUND)
			return err_wrap(err, err_copy(err, &why), "%s", p->v[i].db);
	}
	if (deleted == 0)
		return err_set(err, ERR_NOT_FOUND, 0,
		               "there is no mark '%s' (asof mark --list shows those there are)",
		               q->name);
	if (!q->json)
		printf("deleted mark '%s' of %zu database%s\n", q->name, deleted,
		       deleted == 1 ? "" : "s");
	return q->json ? cli_print_json(json_pack("{ss sI}", "deleted", q->name, "databases",
	                                          (json_int_t)deleted),
	                                err)
	               : 0;
}

static int add_row(struct table *t, const char *db, const struct mark *m, struct err *err)
{
	int rc = table_cell(t, err, "%s", m->name);

	rc = rc ? rc : table_cell(t, err, "%s", db);
	rc = rc ? rc : table_time(t, m->time_us, err);
	rc = rc ? rc : table_cell(t, err, "%" PRIu64, m->txid);
	return rc ? rc : table_time(t, m->made_us, err);
}

static int list_marks(const struct mark_request *q, struct parts *p, struct err *err)
{
	static const char *const header[] = {"MARK", "DATABASE", "MOMENT", ">TXID", "MADE"};
	cleanup_table struct table *t = NULL;
	json_t *all = json_array();
	size_t n_all = 0;

	int rc = table_new(header, sizeof(header) / sizeof(header[0]), &t, err);
	for (size_t i = 0; i < p->n && rc == 0; i++) {
		cleanup_free struct mark *marks = NULL;
		size_t n = 0;
		rc = history_marks(p->v[i].history, &marks, &n, err);
		for (size_t k = 0; k < n && rc == 0; k++, n_all++) {
			json_t *one = part_json(p->v[i].db, marks[k].name, marks[k].txid,
			                        marks[k].time_us);
			json_object_set_new(one, "made", cli_json_time(marks[k].made_us));
			json_array_append_new(all, one);
			rc = add_row(t, p->v[i].db, &marks[k], err);
		}
	}
	if (rc == 0 && q->json)
		return cli_print_json(json_pack("{so}", "marks", all), err);
	json_decref(all);
	if (rc == 0 && n_all > 0)
		table_print(t, stdout);
	else if (rc == 0)
		printf("no marks\n");
	return rc;
}

static int check_request(struct cli *c, const struct mark_request *q, struct err *err)
{
	if (q->list && (q->name || q->at || q->tx || q->delete))
		return cli_usage(c, err, "--list takes --db alone");
	if (!q->list && !q->name)
		return cli_usage(c, err, "no NAME given");
	if (q->delete &&(q->at || q->tx))
		return cli_usage(c, err, "--delete takes no moment");
	if (q->at && q->tx)
		return cli_usage(c, err, "--at and --tx exclude each other");
	if (q->tx && !q->db)
		return cli_usage(c, err, "--tx needs --db: each database counts its own");
	return 0;
}

static int run_mark(struct cli *c, struct err *err)
{
	struct mark_request q = {0};
	struct parts p = {0};
	int id, rc;

	while ((id = cli_option(c, err)) > 0) {
		switch (id) {
		case OPT_ARCHIVE:
			q.root = c->arg;
			break;
		case OPT_DB:
			q.db = c->arg;
			break;
		case OPT_AT:
			q.at = c->arg;
			break;
		case OPT_TX:
			q.tx = c->arg;
			break;
		case OPT_DELETE:
			q.delete = true;
			break;
		case OPT_LIST:
			q.list = true;
			break;
		default:
			q.json = true;
		}
	}
	if (id < 0)
		return id;
	rc = cli_check_args(c, 0, 1, "NAME", err);
	q.name = rc == 0 && c->n_args ? c->args[0] : NULL;
	if (rc == 0)
		rc = check_request(c, &q, err);
	if (rc == 0)
		rc = open_parts(c, &q, &p, err);
	if (rc == 0 && q.list)
		rc = list_marks(&q, &p, err);
	else if (rc == 0 && q.delete)
		rc = delete_marks(&q, &p, err);
	else if (rc == 0 && (rc = make_marks(c, &q, &p, err)) == 0)
		rc = say_made(&q, &p, err);
	release(&p);
	return rc;
}

static const struct cli_option mark_options[] = {
        CLI_OPTION_ARCHIVE,
        {OPT_DB, "db", "DB", "this database alone (default: all, each as of the same time)"},
        {OPT_AT, "at", "TIME", "the state as of TIME (default: the newest)"},
        {OPT_TX, "tx", "TXID", "the state after this transaction; with --db"},
        {OPT_DELETE, "delete", NULL, "remove the mark: retention no longer keeps the moment"},
        {OPT_LIST, "list", NULL, "show the marks there are"},
        CLI_OPTION_JSON,
        CLI_OPTION_END,
};

const struct cli_command cmd_mark = {
        .name = "mark",
        .usage = "NAME [--db DB] [--at TIME | --tx TXID] | NAME --delete | --list",
        .summary = "Names a moment, which is kept for as long as the mark is.",
        .details = "In a mount the moment is marks/NAME/; commands that take a TIME take "
                   "mark:NAME.\n",
        .example = "asof mark before-migration",
        .options = mark_options,
        .prints = true,
        .run = run_mark,
};
