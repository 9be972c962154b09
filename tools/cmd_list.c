/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/backups.h"
#include "tools/verified.h"

#include <inttypes.h>
#include <stdlib.h>

enum { OPT_TYPE = OPT_FIRST_OWN };

struct list_request {
	const char *archive;
	bool json;
	int type; /* of backups alone; -1: all there is */
	int64_t now_us;
};

struct list_row {
	const char *name;
	struct history_status status;
	struct verified_note verified;
};

static int add_row(struct table *t, const struct list_row *r, struct err *err)
{
	const struct history_status *s = &r->status;
	int rc = table_cell(t, err, "%s", r->name);

	rc = rc ? rc : table_time(t, s->first_us, err);
	rc = rc ? rc : table_time(t, s->known_until_us, err);
	rc = rc ? rc : table_cell(t, err, "%" PRIu64, s->last_txid);
	rc = rc ? rc : table_time(t, r->verified.through_us, err);
	rc = rc ? rc : table_cell(t, err, "%" PRIu64, s->n_snapshots);
	rc = rc ? rc : table_cell(t, err, "%" PRIu64, s->gaps);
	return rc ? rc : table_size(t, s->archive_bytes, err);
}

static int print_table(const struct list_row *rows, size_t n, struct err *err)
{
	static const char *const header[] = {"DATABASE",   "RESTORABLE FROM", "TO",
	                                     ">LAST TXID", "VERIFIED TO",     ">SNAPSHOTS",
	                                     ">GAPS",      ">BYTES"};
	cleanup_table struct table *t = NULL;
	int rc = table_new(header, sizeof(header) / sizeof(header[0]), &t, err);

	for (size_t i = 0; i < n && !rc; i++)
		rc = add_row(t, &rows[i], err);
	if (!rc)
		table_print(t, stdout);
	return rc;
}

static int print_json(const struct list_request *q, const char *root, const struct list_row *rows,
                      size_t n, const struct backup_list *backups, struct err *err)
{
	json_t *databases = json_array();

	for (size_t i = 0; i < n; i++) {
		const struct history_status *s = &rows[i].status;
		json_t *database = json_pack(
		        "{ss so so so so so so so so}", "database", rows[i].name, "first_txid",
		        cli_json_uint(s->first_txid), "last_txid", cli_json_uint(s->last_txid),
		        "first_time", cli_json_time(s->first_us), "last_time",
		        cli_json_time(s->last_us), "known_until", cli_json_time(s->known_until_us),
		        "snapshots", cli_json_uint(s->n_snapshots), "gaps", cli_json_uint(s->gaps),
		        "archive_bytes", cli_json_uint(s->archive_bytes));
		verified_kept_json(database, &rows[i].verified);
		json_array_append_new(databases, database);
	}
	return cli_print_json(json_pack("{so so so}", "archive", json_text(root), "databases",
	                                databases, "backups",
	                                backups_list_json(backups, q->type, q->now_us)),
	                      err);
}

static int read_row(struct archive *a, const char *name, struct list_row *ret, struct err *err)
{
	cleanup_history struct history *h = NULL;
	int rc = history_get(a, name, &h, err);

	ret->name = name;
	rc = rc ? rc : history_get_status(h, &ret->status, err);
	return rc ? rc : verified_kept(h, &ret->verified, err);
}

static int parse(struct cli *c, struct list_request *q, struct err *err)
{
	enum backup_type type;
	int id, rc;

	while ((id = cli_option(c, err)) > 0) {
		if (id == OPT_ARCHIVE)
			q->archive = c->arg;
		else if (id == OPT_JSON)
			q->json = true;
		else if ((rc = backup_type_parse(c->arg, &type, err)))
			return err_wrap(err, rc, "list: --type");
		else
			q->type = (int)type;
	}
	return id < 0 ? id : cli_check_args(c, 0, 0, "", err);
}

static size_t count_of(const struct backup_list *list, int type)
{
	size_t n = 0;

	for (size_t i = 0; i < list->n; i++)
		n += type < 0 || (int)list->entries[i].type == type;
	return n;
}

static int print_text(const struct list_request *q, const char *root, const struct list_row *rows,
                      size_t n, const struct backup_list *backups, struct err *err)
{
	size_t n_backups = count_of(backups, q->type);
	int rc = 0;

	if (q->type >= 0 && n_backups == 0)
		return err_set(err, ERR_NOT_FOUND, 0,
		               "no %s backup in archive '%s' (asof backup makes one)",
		               backup_type_names[q->type], root);
	if (n == 0 && n_backups == 0)
		return err_set(err, ERR_NOT_FOUND, 0,
		               "no database in archive '%s' yet (asof replicate brings one in)",
		               root);
	if (n && q->type < 0)
		rc = print_table(rows, n, err);
	if (!rc && n && n_backups && q->type < 0)
		putchar('\n');
	return rc ? rc : backups_print(backups, q->type, q->now_us, err);
}

static int run_list(struct cli *c, struct err *err)
{
	cleanup_archive struct archive *a = NULL;
	cleanup_backup_list struct backup_list backups = {0};
	cleanup_free char **names = NULL;
	cleanup_free struct list_row *rows = NULL;
	struct list_request q = {.type = -1, .now_us = clock_now_us()};
	size_t n;
	int rc;

	if ((rc = parse(c, &q, err)) || (rc = cli_open_archive(c, q.archive, &a, err)) ||
	    (rc = archive_list(a, &names, &n, err)) ||
	    (rc = cli_read_backups(c, archive_root(a), !q.json, &backups, err)))
		return rc;
	rows = calloc(n ? n : 1, sizeof(*rows));
	if (!rows)
		return err_set(err, ERR_NOMEM, 0, "out of memory");
	for (size_t i = 0; i < n; i++)
		if ((rc = read_row(a, names[i], &rows[i], err)))
			return err_wrap(err, rc, "%s", names[i]);
	if (q.json)
		return print_json(&q, archive_root(a), rows, n, &backups, err);
	return print_text(&q, archive_root(a), rows, n, &backups, err);
}

static const struct cli_option list_options[] = {
        {OPT_TYPE, "type", "TYPE", "only manual, automated, safety or compressed backups"},
        CLI_OPTION_ARCHIVE,
        CLI_OPTION_ALSO,
        CLI_OPTION_JSON,
        CLI_OPTION_END,
};

const struct cli_command cmd_list = {
        .name = "list",
        .usage = "[--type TYPE] [--archive ARCHIVE] [--json]",
        .summary = "Lists the databases of an archive, how far each goes back, and its backups.",
        .example = "asof list --archive /backups",
        .options = list_options,
        .prints = true,
        .run = run_list,
};
