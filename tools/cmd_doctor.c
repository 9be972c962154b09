/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/doctor.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* Said each time: nobody shall take silence for an answer. */
#define NOT_SEEN                                                                                   \
	"busy_timeout, synchronous and what else a connection sets for itself cannot be seen "     \
	"from "                                                                                    \
	"outside"

/* ---- what is looked at ---- */

static int add_database(struct doctor *d, const char *path, const char *archive,
                        const struct config_database *config, struct err *err)
{
	char real[PATH_MAX];
	bool hangs = !doctor_answers(path);
	const char *name = !hangs && realpath(path, real) ? real : path;

	for (size_t i = 0; i < d->n_databases; i++)
		if (strcmp(d->databases[i].path, name) == 0)
			return 0;
	struct doctor_database *more =
	        realloc(d->databases, (d->n_databases + 1) * sizeof(*d->databases));
	char *copy = more ? strdup(name) : NULL;
	if (more)
		d->databases = more;
	if (!copy)
		return err_set(err, ERR_NOMEM, 0, "out of memory");
	d->databases[d->n_databases++] = (struct doctor_database){
	        .path = copy, .archive = archive, .config = config, .hangs = hangs};
	return 0;
}

static int add_folder(struct doctor *d, const struct config_database *c, struct err *err)
{
	cleanup_config_found struct config_found_list found = {0};
	struct err why = ERR_INIT;
	int rc = 0;

	if (config_scan_dir(d->config, c, &found, &why))
		doctor_add(d, DOCTOR_SERIOUS, "missing", c->dir, "mend the path or its permissions",
		           "%s", why.msg);
	for (size_t i = 0; i < found.n && !rc; i++)
		rc = add_database(d, found.items[i].path, c->archive, c, err);
	return rc;
}

static int add_configured(struct doctor *d, struct err *err)
{
	int rc = 0;

	for (size_t i = 0; i < d->config->n_databases && !rc; i++) {
		const struct config_database *c = &d->config->databases[i];
		rc = c->dir ? add_folder(d, c, err) : add_database(d, c->path, c->archive, c, err);
	}
	return rc;
}

/* Without a configuration: the databases that the archive says it has from here. */
static int add_sources(struct doctor *d, const char *root, struct err *err)
{
	cleanup_archive struct archive *a = NULL;
	cleanup_free char **names = NULL;
	size_t n = 0;
	int rc = archive_open(root, NULL, &a, err);

	rc = rc ? rc : archive_list(a, &names, &n, err);
	for (size_t i = 0; i < n && !rc; i++) {
		cleanup_history struct history *h = NULL;
		struct history_status s;
		struct err ignored = ERR_INIT; /* doctor_archive() tells it */
		if (history_get(a, names[i], &h, &ignored) == 0 &&
		    history_get_status(h, &s, &ignored) == 0 && s.source_path[0])
			rc = add_database(d, s.source_path, root, NULL, err);
	}
	return rc;
}

/* A database of the command line is the configured one, where there is one. */
static int add_argument(struct doctor *d, const char *path, const char *root, struct err *err)
{
	const struct config_database *c = d->config ? config_find_database(d->config, path) : NULL;

	if (c && c->path)
		return add_database(d, c->path, root ? root : c->archive, c, err);
	return add_database(d, path, root, NULL, err);
}

static int find_out(struct cli *c, struct doctor *d, const char *given, const char **ret_root,
                    struct err *err)
{
	const char *root = given;
	int rc = cli_config(c, &d->config, err);

	if (rc)
		return rc;
	if (!root && !d->config)
		root = getenv("ASOF_ARCHIVE");
	if (root && !*root)
		root = NULL;
	for (int i = 0; i < c->n_args && !rc; i++)
		rc = add_argument(d, c->args[i], root, err);
	if (!rc && !c->n_args && root)
		rc = add_sources(d, root, err);
	else if (!rc && !c->n_args && d->config)
		rc = add_configured(d, err);
	*ret_root = root;
	return rc;
}

/* False: one of them does not answer, and nothing shall wait for it. */
static bool look_at_archives(struct doctor *d, const char *root)
{
	bool answers = true;

	if (root)
		answers = doctor_archive(d, root, NULL);
	for (size_t i = 0; i < d->n_databases; i++) {
		const char *archive = d->databases[i].archive;
		bool seen = !archive || (root && strcmp(archive, root) == 0);
		for (size_t k = 0; k < i && !seen; k++)
			seen = d->databases[k].archive &&
			       strcmp(d->databases[k].archive, archive) == 0;
		if (!seen &&
		    !doctor_archive(d, archive,
		                    d->databases[i].config ? &d->databases[i].config->retention
		                                           : NULL))
			answers = false;
		answers = answers && !d->databases[i].hangs;
	}
	return answers;
}

/* ---- output ---- */

static json_t *findings_json(const struct doctor *d)
{
	json_t *list = json_array();

	for (int s = DOCTOR_N_SEVERITIES - 1; s >= 0; s--)
		for (size_t i = 0; i < d->n_findings; i++) {
			const struct doctor_finding *f = &d->findings[i];
			if ((int)f->severity == s)
				json_array_append_new(
				        list,
				        json_pack("{ss ss so so ss}", "severity",
				                  doctor_severity_name(f->severity), "check",
				                  f->check, "thing", json_text(f->thing), "why",
				                  json_text(f->why), "what_to_do", f->advice));
		}
	return list;
}

static int print_json(const struct doctor *d, struct err *err)
{
	json_t *databases = json_array();

	for (size_t i = 0; i < d->n_databases; i++)
		json_array_append_new(databases,
		                      json_pack("{so so so}", "path",
		                                json_text(d->databases[i].path), "archive",
		                                json_text(d->databases[i].archive), "processes",
		                                cli_json_uint(d->databases[i].n_holders)));
	return cli_print_json(
	        json_pack("{so so so so so so so s[s]}", "now", cli_json_time(d->now_us), "serious",
	                  cli_json_uint(d->n_of[DOCTOR_SERIOUS]), "warnings",
	                  cli_json_uint(d->n_of[DOCTOR_WARNING]), "notes",
	                  cli_json_uint(d->n_of[DOCTOR_NOTE]), "findings", findings_json(d),
	                  "databases", databases, "processes_not_seen", cli_json_uint(d->n_unseen),
	                  "not_seen", NOT_SEEN),
	        err);
}

static void print_text(const struct doctor *d)
{
	for (int s = DOCTOR_N_SEVERITIES - 1; s >= 0; s--)
		for (size_t i = 0; i < d->n_findings; i++) {
			struct doctor_finding *f = &d->findings[i];
			if ((int)f->severity != s)
				continue;
			cli_one_line(f->thing);
			cli_one_line(f->why);
			printf("%-8s %s: %s: %s (%s)\n", doctor_severity_name(f->severity),
			       f->check, f->thing, f->why, f->advice);
		}
	if (!d->n_findings)
		printf("nothing was found that hurts\n");
	printf("looked at %zu database%s; " NOT_SEEN "\n", d->n_databases,
	       d->n_databases == 1 ? "" : "s");
	if (d->n_unseen)
		printf("%zu processes of other users could not be looked at: as root more is "
		       "seen\n",
		       d->n_unseen);
}

#define cleanup_doctor CLEANUP(doctor_release)

static int run_doctor(struct cli *c, struct err *err)
{
	cleanup_doctor struct doctor d = {.now_us = clock_now_us()};
	const char *given = NULL, *root;
	bool json = false;
	int id, rc;

	while ((id = cli_option(c, err)) > 0) {
		if (id == OPT_ARCHIVE)
			given = c->arg;
		else
			json = true;
	}
	if (id < 0)
		return id;
	if ((rc = cli_check_args(c, 0, INT_MAX, "", err)) ||
	    (rc = find_out(c, &d, given, &root, err)))
		return rc;
	for (size_t i = 0; i < d.n_databases; i++)
		doctor_file(&d, &d.databases[i]);
	doctor_processes(&d);
	bool answers = look_at_archives(&d, root);
	if (answers)
		doctor_health(&d, c, root);
	doctor_destinations(&d);
	doctor_host(&d);
	if (d.out_of_memory)
		return err_set(err, ERR_NOMEM, 0, "out of memory");
	if (json)
		rc = print_json(&d, err);
	else
		print_text(&d);
	if (rc || !d.n_of[DOCTOR_SERIOUS])
		return rc;
	return err_set(err, ERR_REFUSED, 0, "doctor: %zu serious finding%s (see above)",
	               d.n_of[DOCTOR_SERIOUS], d.n_of[DOCTOR_SERIOUS] == 1 ? "" : "s");
}

static const struct cli_option doctor_options[] = {
        {OPT_ARCHIVE, "archive", "ARCHIVE",
         "the archive (default: as configured, else $ASOF_ARCHIVE)"},
        CLI_OPTION_JSON,
        CLI_OPTION_END,
};

const struct cli_command cmd_doctor = {
        .name = "doctor",
        .usage = "[FILE]... [--archive ARCHIVE] [--json]",
        .summary = "Looks for what will hurt: in databases, applications, archives, the machine.",
        .details = "Each finding is one line: how bad, which check, which thing, why, what to do.  "
                   "Exit\n"
                   "status: 0 when none is serious, else 1.  Without FILE it looks at what is "
                   "configured,\n"
                   "else at the databases of the archive.  Nothing is written; databases are not "
                   "opened by\n"
                   "SQLite.\n",
        .example = "asof doctor --config /etc/asof.yml",
        .options = doctor_options,
        .prints = true,
        .run = run_doctor,
};
