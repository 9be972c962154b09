/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/cli.h"

#include <inttypes.h>
#include <stdlib.h>

struct list_row {
	const char *name;
	struct history_status status;
};

static int add_row(struct table *t, const struct list_row *r, struct err *err)
{
	const struct history_status *s = &r->status;
	int rc = table_cell(t, err, "%s", r->name);

	rc = rc ? rc : table_time(t, s->first_us, err);
	rc = rc ? rc : table_time(t, s->known_until_us, err);
	rc = rc ? rc : table_cell(t, err, "%" PRIu64, s->last_txid);
	rc = rc ? rc : table_cell(t, err, "%" PRIu64, s->n_snapshots);
	rc = rc ? rc : table_cell(t, err, "%" PRIu64, s->gaps);
	return rc ? rc : table_size(t, s->archive_bytes, err);
}

static int print_table(const struct list_row *rows, size_t n, struct err *err)
{
	static const char *const header[] = {"DATABASE",   "RESTORABLE FROM", "TO",    ">LAST TXID",
	                                     ">SNAPSHOTS", ">GAPS",           ">BYTES"};
	cleanup_table struct table *t = NULL;
	int rc = table_new(header, sizeof(header) / sizeof(header[0]), &t, err);

	for (size_t i = 0; i < n && !rc; i++)
		rc = add_row(t, &rows[i], err);
	if (!rc)
		table_print(t, stdout);
	return rc;
}

static int print_json(const char *root, const struct list_row *rows, size_t n, struct err *err)
{
	json_t *databases = json_array();

	for (size_t i = 0; i < n; i++) {
		const struct history_status *s = &rows[i].status;
		json_array_append_new(
		        databases,
		        json_pack("{ss so so so so so so so so}", "database", rows[i].name,
		                  "first_txid", cli_json_uint(s->first_txid), "last_txid",
		                  cli_json_uint(s->last_txid), "first_time",
		                  cli_json_time(s->first_us), "last_time",
		                  cli_json_time(s->last_us), "known_until",
		                  cli_json_time(s->known_until_us), "snapshots",
		                  cli_json_uint(s->n_snapshots), "gaps", cli_json_uint(s->gaps),
		                  "archive_bytes", cli_json_uint(s->archive_bytes)));
	}
	return cli_print_json(json_pack("{ss so}", "archive", root, "databases", databases), err);
}

static int read_row(struct archive *a, const char *name, struct list_row *ret, struct err *err)
{
	cleanup_history struct history *h = NULL;
	int rc = history_get(a, name, &h, err);

	ret->name = name;
	return rc ? rc : history_get_status(h, &ret->status, err);
}

static int run_list(struct cli *c, struct err *err)
{
	cleanup_archive struct archive *a = NULL;
	cleanup_free char **names = NULL;
	cleanup_free struct list_row *rows = NULL;
	const char *root = NULL;
	bool json = false;
	size_t n;
	int id, rc;

	while ((id = cli_option(c, err)) > 0) {
		if (id == OPT_ARCHIVE)
			root = c->arg;
		else
			json = true;
	}
	if (id < 0)
		return id;
	if ((rc = cli_check_args(c, 0, 0, "", err)) || (rc = cli_open_archive(c, root, &a, err)) ||
	    (rc = archive_list(a, &names, &n, err)))
		return rc;
	rows = calloc(n ? n : 1, sizeof(*rows));
	if (!rows)
		return err_set(err, ERR_NOMEM, 0, "out of memory");
	for (size_t i = 0; i < n; i++)
		if ((rc = read_row(a, names[i], &rows[i], err)))
			return err_wrap(err, rc, "%s", names[i]);
	if (json)
		return print_json(archive_root(a), rows, n, err);
	if (n == 0)
		return err_set(err, ERR_NOT_FOUND, 0,
		               "no database in archive '%s' yet (asof replicate brings one in)",
		               archive_root(a));
	return print_table(rows, n, err);
}

static const struct cli_option list_options[] = {CLI_OPTION_ARCHIVE, CLI_OPTION_JSON,
                                                 CLI_OPTION_END};

const struct cli_command cmd_list = {
        .name = "list",
        .usage = "[--archive ARCHIVE] [--json]",
        .summary = "Lists the databases of an archive and the moments that each can go back to.",
        .example = "asof list --archive /backups",
        .options = list_options,
        .prints = true,
        .run = run_list,
};
