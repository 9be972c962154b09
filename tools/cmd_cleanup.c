/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/daemon/sending.h"
#include "engine/store/store.h"
#include "tools/backups.h"
#include "tools/cleanup_history.h"
#include "tools/progress.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define DAY_US (INT64_C(86400) * US_PER_SECOND)

enum {
	OPT_DRY_RUN = OPT_FIRST_OWN,
	OPT_TYPE,
	OPT_DAYS,
	OPT_COUNT,
	OPT_HOURLY,
	OPT_DAILY,
	OPT_WEEKLY,
	OPT_MONTHLY,
	OPT_YEARLY,
};

struct cleanup_request {
	const char *archive;
	bool json, dry_run;
	int type;                  /* -1: all */
	bool told[BACKUP_N_TYPES]; /* a rule of this type was given: the defaults are out */
	struct backup_retention retention;
	struct history_cleanup history;
	struct progress progress;
	json_t *files, *history_json;
	int64_t now_us;
	uint64_t n_kept;
};

/* ---- words ---- */

static void set_rule(struct backup_keep *k, int id, uint64_t n)
{
	switch (id) {
	case OPT_DAYS:
		/* 0 days is a rule, too: all are older. */
		k->max_age_us = n ? (int64_t)n * DAY_US : 1;
		break;
	case OPT_COUNT:
		k->count = (unsigned)n;
		break;
	case OPT_HOURLY:
		k->hourly = (unsigned)n;
		break;
	case OPT_DAILY:
		k->daily = (unsigned)n;
		break;
	case OPT_WEEKLY:
		k->weekly = (unsigned)n;
		break;
	case OPT_MONTHLY:
		k->monthly = (unsigned)n;
		break;
	default:
		k->yearly = (unsigned)n;
	}
}

/* "[TYPE=]N" */
static int take_rule(struct cli *c, int id, struct cleanup_request *q, struct err *err)
{
	const char *equals = strchr(c->arg, '=');
	enum backup_type only = BACKUP_N_TYPES;
	char word[32];
	uint64_t n;
	int rc;

	if (equals) {
		snprintf(word, sizeof(word), "%.*s", (int)(equals - c->arg), c->arg);
		if ((rc = backup_type_parse(word, &only, err)))
			return err_wrap(err, rc, "cleanup");
	}
	rc = cli_number(c, "a rule", equals ? equals + 1 : c->arg, 0, 100000, &n, err);
	for (int t = 0; t < BACKUP_N_TYPES && !rc; t++) {
		if (only != BACKUP_N_TYPES && t != (int)only)
			continue;
		q->told[t] = true;
		set_rule(&q->retention.types[t], id, n);
	}
	return rc;
}

static int take_option(struct cli *c, int id, struct cleanup_request *q, struct err *err)
{
	enum backup_type type;
	int rc;

	switch (id) {
	case OPT_ARCHIVE:
		q->archive = c->arg;
		return 0;
	case OPT_JSON:
		q->json = true;
		return 0;
	case OPT_DRY_RUN:
		q->dry_run = true;
		return 0;
	case OPT_TYPE:
		if ((rc = backup_type_parse(c->arg, &type, err)))
			return err_wrap(err, rc, "cleanup: --type");
		q->type = (int)type;
		return 0;
	default:
		return cleanup_history_take(c, id, &q->history) ? 0 : take_rule(c, id, q, err);
	}
}

/* Which archive is sent to that URL: by the configuration. */
static const char *archive_of(const struct config *config, const char *url)
{
	for (size_t i = 0; config && i < config->n_databases; i++)
		for (size_t k = 0; k < config->databases[i].n_destinations; k++)
			if (strcmp(config->databases[i].destinations[k].url, url) == 0)
				return config->databases[i].archive;
	return NULL;
}

/* Backups have rules of their own there, and asof run keeps to them. */
static int check_dest(const struct cli *c, const struct cleanup_request *q, struct err *err)
{
	bool rule = q->type >= 0;

	for (int t = 0; t < BACKUP_N_TYPES; t++)
		rule = rule || q->told[t];
	return rule ? cli_usage(c, err,
	                        "rules for backups do not count at a destination (asof run keeps "
	                        "those there)")
	            : 0;
}

static int find_archive(struct cli *c, struct cleanup_request *q, struct err *err)
{
	const struct config *config;
	int rc = 0;

	if (q->archive && store_is_url(q->archive) && !q->history.dest) {
		q->history.dest = q->archive;
		if ((rc = cli_config(c, &config, err)))
			return rc;
		q->archive = archive_of(config, q->history.dest);
		if (!q->archive)
			return err_set(err, ERR_USAGE, 0,
			               "cleanup: '%.200s' is thinned by who sends there (--archive "
			               "of that, and --dest URL)",
			               q->history.dest);
	}
	rc = q->history.dest ? check_dest(c, q, err) : 0;
	if (!rc)
		rc = q->history.dest
		             ? cli_archive_root(c, q->archive, q->history.db, &q->archive, err)
		             : backups_root(c, q->archive, &q->archive, err);
	if (!rc && store_is_url(q->archive))
		return err_set(
		        err, ERR_USAGE, 0,
		        "cleanup: '%.200s' is no directory (--dest thins what was sent to a URL)",
		        q->archive);
	return rc;
}

static int parse(struct cli *c, struct cleanup_request *q, struct err *err)
{
	struct backup_keep *types = q->retention.types;
	struct backup_retention configured;
	int id, rc;

	while ((id = cli_option(c, err)) > 0)
		if ((rc = take_option(c, id, q, err)))
			return rc;
	if (id < 0)
		return id;
	if ((rc = cli_check_args(c, 0, 0, "", err)) ||
	    (rc = backups_configured_retention(c, &configured, err)))
		return rc;
	for (int t = 0; t < BACKUP_N_TYPES; t++)
		if (!q->told[t])
			types[t] = configured.types[t];
	for (int t = 0; t < BACKUP_N_TYPES; t++)
		if (q->type >= 0 && t != q->type)
			types[t] = (struct backup_keep){0};
	if (q->type >= 0) /* of that type alone */
		q->history.off = true;
	return find_archive(c, q, err);
}

/* ---- output ---- */

static void print_verdict(const struct backup_verdict *v, bool dry_run)
{
	const struct backup_entry *e = v->entry;
	char size[SIZE_STR_MAX], name[BACKUP_NAME_MAX];

	cli_format_size(e->size_bytes + e->companion_bytes, size);
	snprintf(name, sizeof(name), "%s", e->name);
	cli_one_line(name);
	printf("%-12s  %s/%s  %s: %s\n",
	       !v->remove ? "keep"
	       : dry_run  ? "would remove"
	                  : "removed",
	       backup_type_names[e->type], name, size, v->reason);
}

static void add_json(struct cleanup_request *q, const struct backup_verdict *v)
{
	const struct backup_entry *e = v->entry;

	json_array_append_new(
	        q->files,
	        json_pack("{so so so ss so}", "file", json_text(e->path), "size",
	                  cli_json_uint(e->size_bytes + e->companion_bytes), "age_days",
	                  json_integer((json_int_t)((q->now_us - e->time_us) / DAY_US)), "type",
	                  backup_type_names[e->type], "reason", json_text(v->reason)));
}

static void on_removed(void *ctx, const struct backup_verdict *v)
{
	struct cleanup_request *q = ctx;

	if (q->json)
		add_json(q, v);
	else
		print_verdict(v, false);
}

static json_t *kept_json(const struct backup_plan *plan)
{
	json_t *kept = json_array();

	for (size_t i = 0; i < plan->n; i++)
		if (!plan->verdicts[i].remove)
			json_array_append_new(
			        kept, json_pack("{so so}", "file",
			                        json_text(plan->verdicts[i].entry->path), "reason",
			                        json_text(plan->verdicts[i].reason)));
	return kept;
}

static int print_json(struct cleanup_request *q, const struct backup_plan *plan,
                      const struct backup_cleaned *done, struct err *err)
{
	char human[SIZE_STR_MAX];

	backups_size_human(done->freed_bytes, human);
	return cli_print_json(json_pack("{so sb s{sO so so ss so} sO}", "archive",
	                                json_text(q->archive), "dry_run", (int)q->dry_run,
	                                "backups", "cleaned_files", q->files, "total_files",
	                                cli_json_uint(done->n_files), "space_freed_bytes",
	                                cli_json_uint(done->freed_bytes), "space_freed_human",
	                                human, "kept", kept_json(plan), "history", q->history_json),
	                      err);
}

static void print_totals(const struct cleanup_request *q, const struct backup_cleaned *done)
{
	char size[SIZE_STR_MAX];

	cli_format_size(done->freed_bytes, size);
	printf("%s%" PRIu64 " backups, %s%s\n", q->dry_run ? "would remove " : "removed ",
	       done->n_files, size, q->dry_run ? "" : " freed");
}

/* ---- */

static int is_good(void *ctx, const struct backup_entry *e, struct err *err)
{
	struct cleanup_request *q = ctx;
	struct backup_check check;

	progress_what(&q->progress, e->name);
	int rc = backup_check(e, progress_tell, &q->progress, &check, err);
	progress_clear(&q->progress);
	/* One that cannot be opened here is as good as its sha256. */
	return rc ? rc : check.valid && (check.opened || check.sha256_known);
}

static void plan_as_done(struct cleanup_request *q, const struct backup_plan *plan,
                         struct backup_cleaned *ret)
{
	*ret = (struct backup_cleaned){.n_files = plan->n_remove,
	                               .freed_bytes = plan->remove_bytes};
	for (size_t i = 0; i < plan->n; i++)
		if (q->json && plan->verdicts[i].remove)
			add_json(q, &plan->verdicts[i]);
		else if (!q->json)
			print_verdict(&plan->verdicts[i], true);
}

static int clean_up(struct cli *c, struct cleanup_request *q, struct err *err)
{
	cleanup_backup_list struct backup_list list = {0};
	cleanup_backup_plan struct backup_plan plan = {0};
	struct backup_cleaned done;
	int rc;

	progress_begin(&q->progress);
	if ((rc = backup_list_read(q->archive, &list, err)) ||
	    (rc = backup_plan_make(&list, &q->retention, q->now_us, is_good, q, &plan, err)) ||
	    (c->config && (rc = sending_hold(c->config, q->archive, &plan, err))))
		return rc;
	if (q->dry_run)
		plan_as_done(q, &plan, &done);
	else
		rc = backup_plan_apply(q->archive, &list, &plan, on_removed, q, &done, err);
	if (!rc && !q->json)
		print_totals(q, &done);
	if (!rc)
		rc = cleanup_history_run(c, q->archive, &q->history, q->dry_run, q->json, NULL,
		                         &q->history_json, err);
	return rc || !q->json ? rc : print_json(q, &plan, &done, err);
}

static int clean_up_there(struct cli *c, struct cleanup_request *q, struct err *err)
{
	int rc = cleanup_there_run(c, q->archive, &q->history, q->dry_run, q->json, NULL,
	                           &q->history_json, err);

	return rc || !q->json
	               ? rc
	               : cli_print_json(json_pack("{so so sb sO}", "archive", json_text(q->archive),
	                                          "destination", json_text(q->history.dest),
	                                          "dry_run", (int)q->dry_run, "history",
	                                          q->history_json),
	                                err);
}

static int run_cleanup(struct cli *c, struct err *err)
{
	struct cleanup_request q = {.type = -1, .now_us = clock_now_us()};
	int rc = parse(c, &q, err);

	if (rc)
		return rc;
	q.files = json_array();
	rc = q.history.dest ? clean_up_there(c, &q, err) : clean_up(c, &q, err);
	json_decref(q.files);
	json_decref(q.history_json);
	return rc;
}

static const struct cli_option cleanup_options[] = {
        {OPT_DRY_RUN, "dry-run", NULL, "say what would be removed, and why what stays stays"},
        {OPT_TYPE, "type", "TYPE", "only backups of that type"},
        {OPT_DAYS, "days", "[TYPE=]N", "keep those not older than N days"},
        {OPT_COUNT, "count", "[TYPE=]N", "keep the newest N of each database"},
        {OPT_HOURLY, "hourly", "[TYPE=]N", "keep the newest of each of the last N hours"},
        {OPT_DAILY, "daily", "[TYPE=]N", "… days"},
        {OPT_WEEKLY, "weekly", "[TYPE=]N", "… weeks"},
        {OPT_MONTHLY, "monthly", "[TYPE=]N", "… months"},
        {OPT_YEARLY, "yearly", "[TYPE=]N", "… years"},
        CLEANUP_HISTORY_OPTIONS,
        CLI_OPTION_ARCHIVE,
        CLI_OPTION_JSON,
        CLI_OPTION_END,
};

const struct cli_command cmd_cleanup = {
        .name = "cleanup",
        .usage = "[--dry-run] [--type TYPE] [RULE]... [--tiers TIERS] [--dest NAME] "
                 "[OPTION]...",
        .summary =
                "Removes backups and moments of the history that no rule keeps, with the reasons.",
        .details = "A backup stays if any rule of its type keeps it.  Without rules: manual and\n"
                   "automated ones stay for $LOCAL_RETENTION_DAYS (7), compressed ones for\n"
                   "$COMPRESSED_RETENTION_DAYS (30), safety backups for ever.  The last good\n"
                   "backup of a database is never removed: it is looked for by reading it.\n"
                   "\n"
                   "Of the history every commit stays for 3 days, one an hour for 30 days, one\n"
                   "a day for a year, unless configured otherwise; besides, every mark and the\n"
                   "newest moment.  What no kept moment needs is deleted 24 hours later.\n"
                   "\n"
                   "--dest does that with the history at a destination, and nothing here: by its\n"
                   "own retention, else by --tiers or --keep.  Only who sends there may.\n",
        .example = "asof cleanup --dry-run --days 3 --daily 7 --weekly 4 --archive /backups",
        .options = cleanup_options,
        .run = run_cleanup,
};
