/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/backups.h"
#include "tools/destinations.h"

#include <inttypes.h>
#include <stdlib.h>

/* ---- JSON ---- */

static json_t *types_json(const struct backup_stats *s, int64_t now_us)
{
	json_t *types = json_object();

	for (int i = 0; i < BACKUP_N_TYPES; i++)
		json_object_set_new(types, backup_type_names[i],
		                    json_pack("{so so so}", "count",
		                              cli_json_uint(s->types[i].count), "size_bytes",
		                              cli_json_uint(s->types[i].size_bytes), "latest",
		                              backups_entry_json(s->types[i].latest, now_us)));
	return types;
}

static json_t *backups_json(const struct backup_stats *s, int64_t now_us)
{
	double share = s->disk_total_bytes
	                       ? 100.0 * (double)s->size_bytes / (double)s->disk_total_bytes
	                       : 0;
	json_t *disk = json_pack("{so so so so sf}", "total", cli_json_uint(s->disk_total_bytes),
	                         "used", cli_json_uint(s->disk_used_bytes), "free",
	                         cli_json_uint(s->disk_free_bytes), "backup_usage",
	                         cli_json_uint(s->size_bytes), "backup_percentage", share);

	return json_pack(
	        "{so so so so so so so so}", "total_backups", cli_json_uint(s->count),
	        "total_size_bytes", cli_json_uint(s->size_bytes), "backup_types",
	        types_json(s, now_us), "oldest_backup", backups_entry_json(s->oldest, now_us),
	        "newest_backup", backups_entry_json(s->newest, now_us), "disk_usage", disk,
	        "compression_ratio", s->ratio > 0 ? json_real(s->ratio) : json_null(),
	        "growth_bytes_per_day",
	        s->growth_bytes_per_day > 0 ? json_real(s->growth_bytes_per_day) : json_null());
}

static int add_database(struct cli *c, struct archive *a, const char *name, json_t *list,
                        struct history_status *ret, struct err *err)
{
	cleanup_history struct history *h = NULL;
	int rc = history_get(a, name, &h, err);

	rc = rc ? rc : history_get_status(h, ret, err);
	if (rc)
		return err_wrap(err, rc, "%s", name);
	/* Stored bytes against the time that they cover. */
	double days = (double)(ret->last_us - ret->first_us) / (86400.0 * US_PER_SECOND);
	json_array_append_new(
	        list,
	        json_pack("{ss so so so so so so so so so}", "database", name, "destinations",
	                  destinations_json(c, archive_root(a), name), "archive_bytes",
	                  cli_json_uint(ret->archive_bytes), "snapshots",
	                  cli_json_uint(ret->n_snapshots), "segments",
	                  cli_json_uint(ret->n_segments), "coalesced",
	                  cli_json_uint(ret->n_coalesced), "last_txid",
	                  cli_json_uint(ret->last_txid), "first_time", cli_json_time(ret->first_us),
	                  "last_time", cli_json_time(ret->last_us), "bytes_per_day",
	                  days >= 1 ? json_real((double)ret->archive_bytes / days) : json_null()));
	return 0;
}

/* ---- text ---- */

static int print_types(const struct backup_stats *s, struct err *err)
{
	static const char *const header[] = {"TYPE", ">BACKUPS", ">BYTES", "LATEST"};
	cleanup_table struct table *t = NULL;
	int rc = table_new(header, sizeof(header) / sizeof(header[0]), &t, err);

	for (int i = 0; i < BACKUP_N_TYPES && !rc; i++) {
		const struct backup_type_stats *y = &s->types[i];
		rc = table_cell(t, err, "%s", backup_type_names[i]);
		rc = rc ? rc : table_cell(t, err, "%" PRIu64, y->count);
		rc = rc ? rc : table_size(t, y->size_bytes, err);
		rc = rc ? rc : table_cell(t, err, "%s", y->latest ? y->latest->name : "-");
	}
	if (!rc)
		table_print(t, stdout);
	return rc;
}

static void print_entry(const char *label, const struct backup_entry *e, int64_t now_us)
{
	char when[TIME_STR_MAX], age[AGE_STR_MAX];

	if (!e) {
		printf("%-12s -\n", label);
		return;
	}
	time_format(e->time_us, when);
	cli_format_age(e->time_us, now_us, age);
	printf("%-12s %s  %s (%s)\n", label, e->name, when, age);
}

static void print_totals(const struct backup_stats *s, int64_t now_us)
{
	char a[SIZE_STR_MAX], b[SIZE_STR_MAX];

	cli_format_size(s->size_bytes, a);
	printf("\n%-12s %" PRIu64 " backups, %s\n", "total", s->count, a);
	print_entry("newest", s->newest, now_us);
	print_entry("oldest", s->oldest, now_us);
	if (s->ratio > 0)
		printf("%-12s %.3f of the databases' size\n", "compressed", s->ratio);
	else
		printf("%-12s -\n", "compressed");
	if (s->growth_bytes_per_day > 0) {
		cli_format_size((uint64_t)s->growth_bytes_per_day, a);
		printf("%-12s %s a day\n", "growth", a);
	} else {
		printf("%-12s - (less than a day of backups)\n", "growth");
	}
	if (s->disk_total_bytes == 0) /* a bucket */
		return;
	cli_format_size(s->disk_free_bytes, a);
	cli_format_size(s->disk_total_bytes, b);
	printf("%-12s %s free of %s\n", "disk", a, b);
}

static int print_databases(char *const *names, const struct history_status *status, size_t n,
                           struct err *err)
{
	static const char *const header[] = {"HISTORY", ">LAST TXID", "FROM", "TO", ">BYTES"};
	cleanup_table struct table *t = NULL;
	int rc = table_new(header, sizeof(header) / sizeof(header[0]), &t, err);

	for (size_t i = 0; i < n && !rc; i++) {
		rc = table_cell(t, err, "%s", names[i]);
		rc = rc ? rc : table_cell(t, err, "%" PRIu64, status[i].last_txid);
		rc = rc ? rc : table_time(t, status[i].first_us, err);
		rc = rc ? rc : table_time(t, status[i].last_us, err);
		rc = rc ? rc : table_size(t, status[i].archive_bytes, err);
	}
	if (!rc && n) {
		putchar('\n');
		table_print(t, stdout);
	}
	return rc;
}

/* ---- */

static int show(struct cli *c, const char *root, bool json, struct err *err)
{
	cleanup_archive struct archive *a = NULL;
	cleanup_backup_list struct backup_list list = {0};
	cleanup_free char **names = NULL;
	cleanup_free struct history_status *status = NULL;
	int64_t now_us = clock_now_us();
	struct backup_stats s;
	size_t n;
	int rc;

	if ((rc = cli_read_archive(c, root, &a, err)) || (rc = archive_list(a, &names, &n, err)) ||
	    (rc = cli_read_backups(c, root, false, &list, err)) ||
	    (rc = backup_stats_compute(root, &list, now_us, &s, err)))
		return rc;
	if (!(status = calloc(n + 1, sizeof(*status))))
		return err_set(err, ERR_NOMEM, 0, "out of memory");
	json_t *databases = json_array();
	for (size_t i = 0; i < n && !rc; i++)
		rc = add_database(c, a, names[i], databases, &status[i], err);
	if (!rc && json)
		return cli_print_json(json_pack("{so so so so}", "archive", json_text(root),
		                                "backups", backups_json(&s, now_us), "databases",
		                                databases, "backups_sent", backups_sent_json(root)),
		                      err);
	json_decref(databases);
	if (rc || (rc = print_types(&s, err)))
		return rc;
	print_totals(&s, now_us);
	rc = print_databases(names, status, n, err);
	rc = rc ? rc : destinations_table(c, root, names, n, now_us, err);
	if (!rc)
		backups_sent_print(root, now_us);
	return rc;
}

static int run_stats(struct cli *c, struct err *err)
{
	const char *root = NULL;
	bool json = false;
	int id, rc;

	while ((id = cli_option(c, err)) > 0) {
		if (id == OPT_ARCHIVE)
			root = c->arg;
		else
			json = true;
	}
	if (id < 0)
		return id;
	if ((rc = cli_check_args(c, 0, 0, "", err)) || (rc = backups_root(c, root, &root, err)))
		return rc;
	return show(c, root, json, err);
}

static const struct cli_option stats_options[] = {CLI_OPTION_ARCHIVE, CLI_OPTION_JSON,
                                                  CLI_OPTION_END};

const struct cli_command cmd_stats = {
        .name = "stats",
        .usage = "[--archive ARCHIVE] [--json]",
        .summary = "Counts and sizes of backups and histories, growth, disk space left.",
        .example = "asof stats --archive /backups",
        .options = stats_options,
        .prints = true,
        .run = run_stats,
};
