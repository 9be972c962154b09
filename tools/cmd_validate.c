/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/store/store.h"
#include "tools/backups.h"
#include "tools/progress.h"
#include "tools/repairing.h"
#include "tools/verified.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { OPT_TYPE = OPT_FIRST_OWN, OPT_BACKUPS, OPT_HISTORY, OPT_REPAIR };

struct validation {
	bool json, repair;
	int type; /* -1: all */
	bool backups_alone, history_alone;
	json_t *details, *repairs;
	struct verified_run histories; /* its progress is that of backups, too */
	uint64_t n, n_valid, n_unseen; /* unseen: not opened, for want of a key */
	char **suspects;               /* TYPE/FILE of those that are not valid */
	size_t n_suspects;
	struct repairing root; /* of the archive that was asked for, once open_root() was called */
};

/* ---- output ---- */

static json_t *detail_json(const struct backup_entry *e, const struct backup_check *c)
{
	char created[BACKUP_TIME_MAX];

	backup_time_iso_local(e->time_us, created);
	return json_pack("{so ss sb so ss so so sb sb so so}", "file", json_text(e->path), "type",
	                 backup_type_names[e->type], "valid", (int)c->valid, "size",
	                 cli_json_uint(e->size_bytes), "created_at", created, "problem",
	                 c->problem[0] ? json_text(c->problem) : json_null(), "note",
	                 c->note[0] ? json_text(c->note) : json_null(), "opened", (int)c->opened,
	                 "sha256_checked", (int)c->sha256_known, "content_bytes",
	                 cli_json_uint(c->content_bytes), "foreign_key_violations",
	                 cli_json_uint(c->foreign_key_rows));
}

static void print_detail(const struct backup_entry *e, const struct backup_check *c)
{
	char size[SIZE_STR_MAX], name[BACKUP_NAME_MAX];

	cli_format_size(e->size_bytes, size);
	snprintf(name, sizeof(name), "%s", e->name);
	cli_one_line(name);
	printf("%-7s  %s/%s  %s", c->valid ? "valid" : "DAMAGED", backup_type_names[e->type], name,
	       size);
	if (!c->valid)
		printf(": %s", c->problem);
	else if (c->note[0])
		printf("  (%s)", c->note);
	putchar('\n');
}

/* ---- */

static int add_suspect(struct validation *v, const struct backup_entry *e, struct err *err)
{
	char **more = realloc(v->suspects, (v->n_suspects + 1) * sizeof(*more));

	if (more)
		v->suspects = more;
	if (!more ||
	    asprintf(&more[v->n_suspects], "%s/%s", backup_type_names[e->type], e->name) < 0)
		return err_set(err, ERR_NOMEM, 0, "no memory for a list of backups");
	v->n_suspects++;
	return 0;
}

static int validate_one(struct validation *v, const struct backup_list *list,
                        const struct backup_entry *e, struct err *err)
{
	cleanup_backup_fetched struct backup_fetched here = {0};
	struct backup_check check;
	struct err why = ERR_INIT;

	progress_what(&v->histories.progress, e->name);
	int rc = backup_fetch(list, e, progress_tell, &v->histories.progress, &here, &why);
	rc = rc ? rc
	        : backup_check(&here.entry, progress_tell, &v->histories.progress, &check, &why);
	progress_clear(&v->histories.progress);
	if (err_kind_of(rc) == ERR_CANCELLED || err_kind_of(rc) == ERR_NOMEM ||
	    err_kind_of(rc) == ERR_UNAVAILABLE)
		return err_wrap(err, err_copy(err, &why), "validate '%.200s'", e->path);
	if (rc) { /* it cannot be read: the others can, perhaps */
		check = (struct backup_check){0};
		snprintf(check.problem, sizeof(check.problem), "%.390s", why.msg);
	}
	cli_one_line(check.problem);
	cli_one_line(check.note);
	v->n++;
	v->n_valid += check.valid;
	v->n_unseen += check.valid && !check.opened && !e->raw;
	if (v->json)
		json_array_append_new(v->details, detail_json(e, &check));
	else
		print_detail(e, &check);
	return check.valid ? 0 : add_suspect(v, e, err);
}

static int validate_named(struct validation *v, struct cli *c, const struct backup_list *list,
                          struct err *err)
{
	for (int i = 0; i < c->n_args; i++) {
		const struct backup_entry *e = backup_list_find(list, c->args[i]);
		if (!e)
			return err_set(err, ERR_NOT_FOUND, 0,
			               "validate: no backup '%.200s' (asof list shows them)",
			               c->args[i]);
		int rc = validate_one(v, list, e, err);
		if (rc)
			return rc;
	}
	return 0;
}

static int validate_backups(struct validation *v, struct cli *c, const struct backup_list *list,
                            struct err *err)
{
	int rc = 0;

	if (c->n_args)
		return validate_named(v, c, list, err);
	for (size_t i = 0; i < list->n && !rc; i++)
		if (v->type < 0 || (int)list->entries[i].type == v->type)
			rc = validate_one(v, list, &list->entries[i], err);
	return rc;
}

/* ---- other places ---- */

/* Once, whatever asks: its other places are told of once. */
static int open_root(struct validation *v, struct cli *c, const char *root, struct err *err)
{
	return v->root.cli ? 0 : repairing_open(&v->root, c, root, v->repair, v->json, err);
}

/* ---- histories ---- */

static bool same_folder(const char *a, const char *b)
{
	struct stat x, y;

	return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static int validate_archive(struct validation *v, struct repairing *r, struct err *err)
{
	v->histories.repairing = r;
	v->histories.options.store = &r->store_options;
	int rc = verified_archive(&v->histories, r->root, err);
	v->histories.repairing = NULL;
	v->histories.options.store = NULL;
	if (rc == 0)
		repairing_conclude(r);
	return rc;
}

static int validate_another(struct validation *v, struct cli *c, const char *root, struct err *err)
{
	struct repairing r;
	int rc = repairing_open(&r, c, root, v->repair, v->json, err);

	rc = rc ? rc : validate_archive(v, &r, err);
	json_array_extend(v->repairs, r.steps);
	repairing_close(&r);
	return rc;
}

/* The archive where the backups lie, and those that the configuration names beside it. */
static int validate_histories(struct validation *v, struct cli *c, const char *root,
                              bool root_was_given, struct err *err)
{
	const struct config *config;
	int rc = open_root(v, c, root, err);

	rc = rc ? rc : validate_archive(v, &v->root, err);

	if (rc || root_was_given || (rc = cli_config(c, &config, err)) || !config)
		return rc;
	for (size_t i = 0; i < config->n_databases && !rc; i++) {
		const char *archive = config->databases[i].archive;
		bool seen = same_folder(archive, root) || access(archive, F_OK) != 0;
		for (size_t k = 0; k < i && !seen; k++)
			seen = same_folder(archive, config->databases[k].archive);
		if (!seen)
			rc = validate_another(v, c, archive, err);
	}
	return rc;
}

/* ---- all of it ---- */

static void print_totals(const struct validation *v)
{
	uint64_t n_bad = v->n - v->n_valid;

	if (!v->history_alone) {
		printf("%" PRIu64 " backups, %" PRIu64 " valid", v->n, v->n_valid);
		if (n_bad)
			printf(", %" PRIu64 " damaged", n_bad);
		if (v->n_unseen)
			printf(", %" PRIu64 " not opened", v->n_unseen);
		putchar('\n');
	}
	if (v->histories.n)
		printf("%" PRIu64 " histories, %" PRIu64 " damaged\n", v->histories.n,
		       v->histories.n_bad);
}

static json_t *result_json(const char *root, const struct validation *v)
{
	return json_pack("{so s{so so so sO} sO sO}", "archive", json_text(root), "backups",
	                 "total_backups", cli_json_uint(v->n), "valid_backups",
	                 cli_json_uint(v->n_valid), "invalid_backups",
	                 cli_json_uint(v->n - v->n_valid), "validation_details", v->details,
	                 "history", v->histories.histories, "repairs", v->repairs);
}

static int conclude(const struct validation *v, const char *root, struct err *err)
{
	uint64_t n_bad = v->n - v->n_valid;

	fflush(stdout);
	if (n_bad && v->histories.n_bad)
		return err_set(err, ERR_DAMAGED, 0,
		               "validate: %" PRIu64 " of %" PRIu64 " backups and %" PRIu64
		               " of %" PRIu64 " histories in '%.200s' are damaged",
		               n_bad, v->n, v->histories.n_bad, v->histories.n, root);
	if (n_bad)
		return err_set(err, ERR_DAMAGED, 0,
		               "validate: %" PRIu64 " of %" PRIu64
		               " backups in '%.200s' are damaged",
		               n_bad, v->n, root);
	if (v->histories.n_bad)
		return err_set(err, ERR_DAMAGED, 0,
		               "validate: %" PRIu64 " of %" PRIu64
		               " histories in '%.200s' are damaged",
		               v->histories.n_bad, v->histories.n, root);
	return 0;
}

/* With --repair before they are checked, else after: where it has anything to tell. */
static int repair_backups_of(struct validation *v, struct cli *c, const char *root, struct err *err)
{
	if (v->history_alone || (!v->repair && !v->n_suspects))
		return 0;
	int rc = open_root(v, c, root, err);
	rc = rc ? rc
	        : repairing_backups(&v->root, (const char *const *)v->suspects, v->n_suspects, err);
	if (rc == 0)
		repairing_conclude(&v->root);
	return rc;
}

static int validate(struct validation *v, struct cli *c, const char *root, bool root_was_given,
                    struct err *err)
{
	cleanup_backup_list struct backup_list list = {0};
	/* A place that was named and is none is told before anything is done. */
	int rc = v->repair || c->n_also ? open_root(v, c, root, err) : 0;

	if (rc == 0 && v->repair)
		rc = repair_backups_of(v, c, root, err);
	rc = rc ? rc : cli_read_backups(c, root, false, &list, err);
	if (rc)
		return rc;
	progress_begin(&v->histories.progress);
	if (!v->history_alone)
		rc = validate_backups(v, c, &list, err);
	if (!rc && !v->repair)
		rc = repair_backups_of(v, c, root, err);
	if (!rc && !v->backups_alone && !c->n_args && v->type < 0)
		rc = validate_histories(v, c, root, root_was_given, err);
	if (v->root.cli)
		json_array_extend(v->repairs, v->root.steps);
	if (rc)
		return rc;
	if (v->json && (rc = cli_print_json(result_json(root, v), err)))
		return rc;
	if (!v->json)
		print_totals(v);
	return conclude(v, root, err);
}

static int take_option(struct cli *c, int id, struct validation *v, const char **archive,
                       struct err *err)
{
	enum backup_type type;
	int rc;

	switch (id) {
	case OPT_ARCHIVE:
		*archive = c->arg;
		return 0;
	case OPT_JSON:
		v->json = true;
		return 0;
	case OPT_REPAIR:
		v->repair = true;
		return 0;
	case OPT_BACKUPS:
		v->backups_alone = true;
		return 0;
	case OPT_HISTORY:
		v->history_alone = true;
		return 0;
	default:
		if ((rc = backup_type_parse(c->arg, &type, err)))
			return err_wrap(err, rc, "validate: --type");
		v->type = (int)type;
		return 0;
	}
}

static int run_validate(struct cli *c, struct err *err)
{
	struct validation v = {.type = -1};
	const char *given = NULL, *root;
	int id, rc = 0;

	while ((id = cli_option(c, err)) > 0)
		if ((rc = take_option(c, id, &v, &given, err)))
			return rc;
	if (id < 0)
		return id;
	if ((rc = cli_check_args(c, 0, 10000, "", err)))
		return rc;
	if (v.history_alone && (v.backups_alone || c->n_args || v.type >= 0))
		return cli_usage(c, err, "--history goes with neither backups nor --type");
	if (v.repair && (c->n_args || v.type >= 0))
		return cli_usage(c, err, "--repair goes with neither BACKUP nor --type");
	if ((rc = backups_root(c, given, &root, err)))
		return rc;
	v.histories.options = (struct verify_options){.scope = VERIFY_FULL, .integrity = true};
	v.histories.json = v.json;
	v.details = json_array();
	v.repairs = json_array();
	v.histories.histories = json_array();
	rc = validate(&v, c, root, given != NULL, err);
	if (v.root.cli)
		repairing_close(&v.root);
	json_decref(v.details);
	json_decref(v.repairs);
	json_decref(v.histories.histories);
	for (size_t i = 0; i < v.n_suspects; i++)
		free(v.suspects[i]);
	free(v.suspects);
	return rc;
}

static const struct cli_option validate_options[] = {
        {OPT_TYPE, "type", "TYPE", "only manual, automated, safety or compressed backups"},
        {OPT_BACKUPS, "backups", NULL, "the backups, and not the histories"},
        {OPT_HISTORY, "history", NULL, "the histories, and not the backups"},
        {OPT_REPAIR, "repair", NULL, "put back what another place has whole"},
        CLI_OPTION_ARCHIVE,
        CLI_OPTION_ALSO,
        CLI_OPTION_JSON,
        CLI_OPTION_END,
};

const struct cli_command cmd_validate = {
        .name = "validate",
        .usage = "[BACKUP]... [--type TYPE] [OPTION]...",
        .summary = "Reads every backup and the whole history: checksums, then SQLite's checks.",
        .details = "BACKUP is a path or a name as asof list shows it; none: all of them, and the\n"
                   "whole history of every database.  What is damaged is named, with the moments\n"
                   "that it concerns and the nearest that restore; the rest is checked all the\n"
                   "same, and the exit status is 4.  --repair puts it back from another place of\n"
                   "the archive: --also, or as configured.  Rows that violate a foreign key are\n"
                   "told and are no damage.  Encrypted backups are opened where gpg has the key;\n"
                   "elsewhere their bytes are compared with the sha256 of their manifest.\n",
        .example = "asof validate --archive /backups",
        .options = validate_options,
        .run = run_validate,
};
