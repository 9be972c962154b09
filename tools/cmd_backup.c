/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/file.h"
#include "tools/backup_send.h"
#include "tools/backups.h"
#include "tools/progress.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
	OPT_TYPE = OPT_FIRST_OWN,
	OPT_DB,
	OPT_DB_PATH,
	OPT_ALL,
	OPT_NO_COMPRESS,
	OPT_LEVEL,
	OPT_NO_VALIDATE,
	OPT_GPG,
	OPT_LABEL,
	OPT_NO_SEND,
};

/* A database to be copied. */
struct target {
	char *path;
	char *history_root;  /* archive of its history; NULL: where the backup goes */
	bool may_be_missing; /* found in the archive, not named by anybody */
	bool done;
};

struct backup_request {
	const char *archive;
	const char *db;
	bool json, all, no_send;
	const char *level;
	struct backup_options options, configured;
	struct target *targets;
	size_t n_targets;
};

static void release_request(struct backup_request *q)
{
	for (size_t i = 0; i < q->n_targets; i++) {
		free(q->targets[i].path);
		free(q->targets[i].history_root);
	}
	free(q->targets);
}

static int add_target(struct backup_request *q, const char *path, const char *history_root,
                      bool may_be_missing, struct err *err)
{
	struct target *more = realloc(q->targets, (q->n_targets + 1) * sizeof(*more));
	struct target t = {strdup(path), history_root ? strdup(history_root) : NULL, may_be_missing,
	                   false};

	if (more)
		q->targets = more;
	if (!more || !t.path || (history_root && !t.history_root)) {
		free(t.path);
		free(t.history_root);
		return err_set(err, ERR_NOMEM, 0, "out of memory");
	}
	q->targets[q->n_targets++] = t;
	return 0;
}

/* ---- words ---- */

static int take_option(struct cli *c, int id, struct backup_request *q, struct err *err)
{
	switch (id) {
	case OPT_ARCHIVE:
		q->archive = c->arg;
		return 0;
	case OPT_JSON:
		q->json = true;
		return 0;
	case OPT_TYPE:
		return backup_type_parse(c->arg, &q->options.type, err)
		               ? cli_usage(c, err,
		                           "--type: '%.40s' is none of manual, automated, "
		                           "safety, compressed",
		                           c->arg)
		               : 0;
	case OPT_DB:
		q->db = c->arg;
		return 0;
	case OPT_DB_PATH:
		return *c->arg ? add_target(q, c->arg, NULL, false, err)
		               : cli_usage(c, err, "--db-path is empty");
	case OPT_ALL:
		q->all = true;
		return 0;
	case OPT_NO_COMPRESS:
		q->options.no_compress = true;
		return 0;
	case OPT_LEVEL:
		q->level = c->arg;
		return 0;
	case OPT_NO_VALIDATE:
		q->options.no_validate = true;
		return 0;
	case OPT_NO_SEND:
		q->no_send = true;
		return 0;
	case OPT_GPG:
		q->options.gpg_recipient = c->arg;
		return *c->arg ? 0 : cli_usage(c, err, "--gpg is empty");
	default:
		q->options.label = c->arg;
		return 0;
	}
}

/* What the command line does not say. */
static void take_configured(struct backup_request *q)
{
	const struct backup_options *from = &q->configured;

	q->options.no_compress = q->options.no_compress || from->no_compress;
	q->options.no_validate = q->options.no_validate || from->no_validate;
	q->options.level = from->level;
	if (!q->options.gpg_recipient)
		q->options.gpg_recipient = from->gpg_recipient;
}

static int parse(struct cli *c, struct backup_request *q, struct err *err)
{
	uint64_t level;
	int id, rc;

	while ((id = cli_option(c, err)) > 0)
		if ((rc = take_option(c, id, q, err)))
			return rc;
	if (id < 0)
		return id;
	if ((rc = cli_check_args(c, 0, 0, "", err)) ||
	    (rc = backups_configured_options(c, &q->configured, err)))
		return rc;
	take_configured(q);
	if ((q->n_targets > 0) + (q->db != NULL) + q->all > 1)
		return cli_usage(c, err, "give one of --db, --db-path and --all");
	if (q->level) {
		if ((rc = cli_number(c, "--level", q->level, 1, 12, &level, err)))
			return rc;
		q->options.level = (int)level;
	}
	return backups_root(c, q->archive, &q->archive, err);
}

/* ---- which databases ---- */

/* By the path that this machine has for it. */
static int add_found(struct cli *c, struct backup_request *q, const char *path,
                     const char *history_root, bool may_be_missing, struct err *err)
{
	const struct config *config;
	char here[PATH_MAX];
	int rc = cli_config(c, &config, err);

	if (rc)
		return rc;
	if (!cli_path_on_host(config, path, here))
		return add_target(q, path, history_root, may_be_missing, err);
	if (!q->json)
		printf("%s is not on this machine: matched by name in $DATA_DIR/db\n", path);
	if (history_root && access(history_root, F_OK) < 0)
		history_root = q->archive;
	return add_target(q, here, history_root, may_be_missing, err);
}

static int add_from_history(struct cli *c, struct backup_request *q, struct history *h,
                            bool may_be_missing, struct err *err)
{
	struct history_status status;
	int rc = history_get_status(h, &status, err);

	if (rc)
		return rc;
	if (!status.source_path[0])
		return err_set(err, ERR_NOT_FOUND, 0,
		               "the archive does not say where '%s' lies (--db-path does)",
		               history_name(h));
	return add_found(c, q, status.source_path, q->archive, may_be_missing, err);
}

/* Of the configuration: one file, or those that a folder has now. */
static int add_configured(struct cli *c, struct backup_request *q, const struct config *config,
                          const struct config_database *d, bool may_be_missing, struct err *err)
{
	cleanup_config_found struct config_found_list found = {0};

	if (!d->dir)
		return add_found(c, q, d->path, d->archive, may_be_missing, err);
	int rc = config_scan_dir(config, d, &found, err);
	for (size_t i = 0; i < found.n && !rc; i++)
		rc = add_target(q, found.items[i].path, d->archive, true, err);
	return rc;
}

static int find_configured(struct cli *c, struct backup_request *q, const struct config *config,
                           struct err *err)
{
	const struct config_database *d;
	int rc = 0;

	if (q->db) {
		d = config_find_database(config, q->db);
		return d ? add_configured(c, q, config, d, false, err) : 0;
	}
	for (size_t i = 0; i < config->n_databases && !rc; i++)
		rc = add_configured(c, q, config, &config->databases[i], config->n_databases > 1,
		                    err);
	return rc;
}

static int find_in_archive(struct cli *c, struct backup_request *q, struct err *err)
{
	cleanup_archive struct archive *a = NULL;
	cleanup_free char **names = NULL;
	size_t n;
	int rc = archive_open(q->archive, NULL, &a, err);

	if (rc)
		return rc;
	if (q->db) {
		cleanup_history struct history *h = NULL;
		rc = cli_open_database(c, a, q->db, &h, err);
		return rc ? rc : add_from_history(c, q, h, false, err);
	}
	rc = archive_list(a, &names, &n, err);
	for (size_t i = 0; i < n && !rc; i++) {
		cleanup_history struct history *h = NULL;
		rc = history_get(a, names[i], &h, err);
		rc = rc ? rc : add_from_history(c, q, h, n > 1, err);
	}
	return rc;
}

/* Those that were named by path have their history where the configuration says. */
static void find_histories(struct backup_request *q, const struct config *config)
{
	for (size_t i = 0; i < q->n_targets && config; i++) {
		const struct config_database *d = config_find_database(config, q->targets[i].path);
		if (d && d->archive)
			q->targets[i].history_root = strdup(d->archive);
	}
}

static int find_targets(struct cli *c, struct backup_request *q, struct err *err)
{
	const struct config *config;
	int rc = cli_config(c, &config, err);

	if (rc)
		return rc;
	if (q->n_targets) {
		find_histories(q, config);
		return 0;
	}
	if (config && config->n_databases)
		rc = find_configured(c, q, config, err);
	if (!rc && !q->n_targets)
		rc = find_in_archive(c, q, err);
	if (!rc && !q->n_targets)
		return cli_usage(c, err, "which database? '%.100s' has none yet (--db-path FILE)",
		                 q->archive);
	return rc;
}

/* ---- output ---- */

static json_t *success_json(const struct backup_result *r)
{
	return json_pack("{sb so so so sb}", "success", 1, "backup_path", json_text(r->path),
	                 "manifest_path", json_text(r->manifest_path), "metadata",
	                 backup_manifest_json(&r->manifest), "damaged", (int)r->damaged);
}

static json_t *failure_json(const struct target *t, const struct err *why)
{
	return json_pack("{sb so ss so}", "success", 0, "error", json_text(why->msg), "kind",
	                 err_kind_name(why->kind), "source_database", json_text(t->path));
}

static void print_text(const struct backup_result *r)
{
	const struct backup_manifest *m = &r->manifest;
	char size[SIZE_STR_MAX], stored[SIZE_STR_MAX];

	cli_format_size(m->source_size_bytes, size);
	cli_format_size(m->backup_size_bytes, stored);
	printf("backed up %s to %s\n", m->source_database, r->path);
	printf("  %-10s %s, stored as %s\n", "size", size, stored);
	if (m->source == BACKUP_FROM_HISTORY)
		printf("  %-10s the history, txid %" PRIu64 "; the live file was not read\n",
		       "from", m->txid);
	printf("  %-10s %s\n", "checked",
	       m->checked   ? "integrity_check passed"
	       : r->damaged ? "no: damaged"
	                    : "no");
	if (m->warning[0])
		printf("  %-10s %s\n", "warning", m->warning);
}

/* ---- */

struct outcome {
	json_t *list; /* NULL: text */
	json_t *sent; /* NULL: it goes nowhere else */
	size_t n_done, n_missing, n_failed;
	struct err first; /* the first failure */
};

static void take_failure(const struct backup_request *q, const struct target *t, struct outcome *o,
                         const struct err *why)
{
	if (t->may_be_missing && why->kind == ERR_NOT_FOUND) {
		o->n_missing++;
		if (!q->json)
			printf("passed over %s: it is not there\n", t->path);
		return;
	}
	if (o->list)
		json_array_append_new(o->list, failure_json(t, why));
	if (o->n_failed++ == 0)
		o->first = *why;
	else
		fprintf(stderr, "asof: backup: %s\n", why->msg);
}

static void take_success(const struct backup_result *r, struct outcome *o)
{
	o->n_done++;
	if (o->list)
		json_array_append_new(o->list, success_json(r));
	else
		print_text(r);
}

static void back_up_all(struct backup_request *q, struct outcome *o)
{
	struct backup_options options = q->options;
	struct backup_result *r = malloc(sizeof(*r));
	struct err why = ERR_INIT;
	struct progress progress;
	size_t i;

	if (!r) {
		err_set(&o->first, ERR_NOMEM, 0, "out of memory");
		return;
	}
	progress_begin(&progress);
	options.progress = progress_tell;
	options.ctx = &progress;
	/* The present state of a damaged database is worth keeping before it is replaced. */
	options.keep_damaged = options.type == BACKUP_SAFETY;
	for (i = 0; i < q->n_targets && !progress.stopped; i++) {
		struct target *t = &q->targets[i];
		progress_what(&progress, t->path);
		options.history_root = t->history_root;
		int rc = backup_create(q->archive, t->path, &options, r, &why);
		progress_clear(&progress);
		cli_one_line(why.msg);
		t->done = rc == 0;
		if (rc)
			take_failure(q, t, o, &why);
		else
			take_success(r, o);
	}
	if (i < q->n_targets && !o->first.kind)
		err_set(&o->first, ERR_CANCELLED, 0, "cancelled, %zu of %zu databases done", i,
		        q->n_targets);
	free(r);
}

static int print_json(const struct backup_request *q, struct outcome *o, struct err *err)
{
	json_t *value = q->n_targets == 1 ? json_incref(json_array_get(o->list, 0))
	                                  : json_pack("{sb sO}", "success", o->n_failed == 0,
	                                              "backups", o->list);

	if (o->sent)
		json_object_set(value, "sent", o->sent);
	json_decref(o->sent);
	json_decref(o->list);
	return cli_print_json(value, err);
}

/* Those that were made, to where they go besides. */
static void send_made(struct cli *c, const struct backup_request *q, struct outcome *o)
{
	cleanup_free const char **paths = calloc(q->n_targets + 1, sizeof(*paths));
	struct err why = ERR_INIT;
	size_t n = 0;

	for (size_t i = 0; i < q->n_targets && paths; i++)
		if (q->targets[i].done)
			paths[n++] = q->targets[i].path;
	int rc = paths ? 0 : err_set(&why, ERR_NOMEM, 0, "out of memory");
	if (rc == 0 && n)
		rc = backup_send_all(c, q->archive, paths, n, !q->json, &o->sent, &why);
	if (rc && !o->first.kind)
		o->first = why;
}

static int run_backup(struct cli *c, struct err *err)
{
	CLEANUP(release_request) struct backup_request q = {0};
	struct outcome o = {0};
	int rc = parse(c, &q, err);

	rc = rc ? rc : file_make_dirs(q.archive, err);
	rc = rc ? rc : find_targets(c, &q, err);
	if (rc)
		return rc;
	o.list = q.json ? json_array() : NULL;
	back_up_all(&q, &o);
	if (!q.no_send && o.first.kind != ERR_CANCELLED)
		send_made(c, &q, &o);
	if (!q.json && o.sent)
		json_decref(o.sent);
	if (q.json && (rc = print_json(&q, &o, err)))
		return rc;
	if (o.first.kind)
		return err_wrap(err, err_copy(err, &o.first), "backup");
	if (!o.n_done)
		return err_set(err, ERR_NOT_FOUND, 0,
		               "backup: none of the %zu databases of '%.200s' is there",
		               o.n_missing, q.archive);
	return 0;
}

static const struct cli_option options_table[] = {
        {OPT_TYPE, "type", "TYPE", "manual (default), automated, safety or compressed"},
        {OPT_DB_PATH, "db-path", "DB", "the database file; may be given several times"},
        {OPT_DB, "db", "NAME", "a database that the archive knows"},
        {OPT_ALL, "all", NULL, "all that the archive knows (default)"},
        {OPT_NO_COMPRESS, "no-compress", NULL, "a plain .db"},
        {OPT_LEVEL, "level", "N", "1 quickest to 12 smallest (default 6)"},
        {OPT_NO_VALIDATE, "no-validate", NULL, "without integrity_check"},
        {OPT_GPG, "gpg", "RECIPIENT", "encrypt for that key, by gpg"},
        {OPT_LABEL, "label", "WORD", "a word between name and time"},
        {OPT_NO_SEND, "no-send", NULL, "not to destinations"},
        CLI_OPTION_ARCHIVE,
        CLI_OPTION_JSON,
        CLI_OPTION_END,
};

const struct cli_command cmd_backup = {
        .name = "backup",
        .usage = "[--type TYPE] [--db-path DB | --db NAME | --all] [OPTION]...",
        .summary = "Makes a backup: a full copy, checked, with a manifest beside it.",
        .details = "The copy is one committed state; the application goes on.  Where a running\n"
                   "replicator has that state already, the live file is not even read.  It goes\n"
                   "to ARCHIVE/TYPE/NAME_YYYYmmdd_HHMMSS.db.gz (local time), which gunzip\n"
                   "inflates and asof mount shows.  A safety backup of a damaged database keeps\n"
                   "its bytes as they are, the -wal included, and says so.\n"
                   "It is sent to the destinations of the database, too: by a running asof run,\n"
                   "else at once.\n",
        .example = "asof backup --db-path /data/trades.db --archive /backups",
        .options = options_table,
        .run = run_backup,
};
