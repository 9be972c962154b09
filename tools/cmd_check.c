/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/cli.h"

#include "tools/check.h"
#include "tools/check_place.h"
#include "tools/check_sample.h"
#include "tools/policy.h"

#include "engine/daemon/sending.h"
#include "engine/observe/alerting.h"

#include <inttypes.h>
#include <limits.h>
#include <string.h>

/* One thing that was tried out. */
struct row {
	const char *what; /* "database", "archive", "destination", "mount", "alert", "place" */
	char *name, *path, *archive;
	const struct config_destination *destination;
	struct check_result result;
	struct place_report *place; /* of a destination, and of what an argument names */
	bool again;                 /* the place was tried out for a row above */
};

struct rows {
	struct row *items;
	size_t n, n_problems;
	size_t n_unavailable; /* of those */
};

static void rows_release(struct rows *r)
{
	for (size_t i = 0; i < r->n; i++) {
		free(r->items[i].name);
		free(r->items[i].path);
		free(r->items[i].archive);
		if (!r->items[i].again)
			free(r->items[i].place);
	}
	free(r->items);
}
#define cleanup_rows CLEANUP(rows_release)

/* Texts are copied; NULL without memory. */
static struct row *add_row(struct rows *r, const char *what, const char *name, const char *path,
                           const char *archive, struct err *err)
{
	struct row *more = realloc(r->items, (r->n + 1) * sizeof(*more));

	if (more)
		r->items = more;
	if (more) {
		struct row *row = &r->items[r->n++];
		*row = (struct row){.what = what,
		                    .name = strdup(name),
		                    .path = strdup(path),
		                    .archive = strdup(archive)};
		if (row->name && row->path && row->archive)
			return row;
	}
	(void)err_set(err, ERR_NOMEM, 0, "out of memory");
	return NULL;
}

/* ---- trying out ---- */

static int try_database(struct rows *r, const struct config *c, const struct config_database *d,
                        const char *name, const char *path, struct err *err)
{
	struct row *row = add_row(r, "database", name, path, d->archive, err);
	char here[PATH_MAX];

	if (!row)
		return -ERR_NOMEM;
	check_database(path, d->enable_wal, &row->result);
	if (row->result.state == CHECK_WAITING && cli_path_on_host(c, path, here))
		snprintf(row->result.text, sizeof(row->result.text),
		         "not on this machine, a container's path? There is %.200s", here);
	r->n_problems += row->result.state == CHECK_PROBLEM;
	return 0;
}

static int try_folder(struct rows *r, const struct config *c, const struct config_database *d,
                      struct err *err)
{
	cleanup_config_found struct config_found_list found = {0};
	struct err why = ERR_INIT;
	int rc = config_scan_dir(c, d, &found, &why);

	if (rc || found.n == 0) {
		struct row *row = add_row(r, "database", d->pattern, d->dir, d->archive, err);
		if (!row)
			return -ERR_NOMEM;
		row->result.state = rc ? CHECK_PROBLEM : CHECK_WAITING;
		snprintf(row->result.text, sizeof(row->result.text), "%s",
		         rc ? why.msg : "no such file yet; new ones are looked for");
		r->n_problems += rc != 0;
		return 0;
	}
	for (size_t i = 0; i < found.n; i++)
		if ((rc = try_database(r, c, d, found.items[i].name, found.items[i].path, err)))
			return rc;
	return 0;
}

static bool is_tried(const struct rows *r, const char *what, const char *path)
{
	for (size_t i = 0; i < r->n; i++)
		if (strcmp(r->items[i].what, what) == 0 && strcmp(r->items[i].path, path) == 0)
			return true;
	return false;
}

static int try_archive(struct rows *r, const char *root, const struct config_retention *retention,
                       struct err *err)
{
	if (is_tried(r, "archive", root))
		return 0;
	struct row *row = add_row(r, "archive", root, root, root, err);
	if (!row)
		return -ERR_NOMEM;
	check_archive(root, retention, &row->result);
	r->n_problems += row->result.state == CHECK_PROBLEM;
	return 0;
}

/* Each place once, whichever databases go there. */
static struct place_report *tried_place(const struct rows *r, const char *archive)
{
	for (size_t i = 0; i + 1 < r->n; i++)
		if (r->items[i].place && strcmp(r->items[i].path, archive) == 0)
			return r->items[i].place;
	return NULL;
}

/* For the newest row. */
static int try_place(struct rows *r, const struct config_destination *d,
                     const struct config_retention *retention, struct err *err)
{
	struct row *row = &r->items[r->n - 1];

	row->place = tried_place(r, row->path);
	row->again = row->place != NULL;
	if (!row->again) {
		row->place = calloc(1, sizeof(*row->place));
		if (!row->place)
			return err_set(err, ERR_NOMEM, 0, "out of memory");
		check_place(row->path, d, retention, row->place);
	}
	row->result = row->place->result;
	r->n_problems += row->result.state == CHECK_PROBLEM;
	r->n_unavailable += row->place->unavailable;
	return 0;
}

static int try_destinations(struct rows *r, const struct config_database *d, struct err *err)
{
	for (size_t i = 0; i < d->n_destinations; i++) {
		const struct config_destination *dest = &d->destinations[i];
		struct row *row = add_row(r, "destination", d->name ? d->name : d->dir, dest->url,
		                          d->archive, err);
		if (!row)
			return -ERR_NOMEM;
		row->destination = dest;
		if (dest->not_configured) {
			row->result.state = CHECK_WAITING;
			snprintf(row->result.text, sizeof(row->result.text), "not configured: %s",
			         dest->not_configured);
		} else if (try_place(r, dest, &dest->retention, err) < 0) {
			return -ERR_NOMEM;
		}
	}
	return 0;
}

/* Where backups go that have no destination in it. */
static int try_backup_bucket(struct rows *r, const struct config *c, struct err *err)
{
	const struct config_destination *d = &c->backup_bucket;
	struct row *row;

	if (!sending_wants_bucket(c))
		return 0;
	if (!(row = add_row(r, "destination", "", d->url, "", err)))
		return -ERR_NOMEM;
	row->destination = d;
	if (!d->not_configured)
		return try_place(r, d, &d->retention, err);
	row->result.state = CHECK_WAITING;
	snprintf(row->result.text, sizeof(row->result.text),
	         "not configured, no backup goes there: BACKUP_S3_BUCKET names %s",
	         d->not_configured);
	return 0;
}

/* Nobody is sent anything unless that was asked for. */
static int try_alerts(const struct config *c, bool send, struct rows *r, struct err *err)
{
	struct notifier_options o;
	char host[ALERTING_HOST_MAX], where[ALERTING_TEXT_MAX];
	struct err why = ERR_INIT;

	alerting_options(c, host, &o);
	for (int i = 0; i < N_NOTIFIER_PLACES; i++) {
		if (!notifier_has(&o, i))
			continue;
		alerting_describe(&o, i, where);
		struct row *row = add_row(r, "alert", notifier_place_name(i), where, "", err);
		if (!row)
			return -ERR_NOMEM;
		if (!send) {
			row->result.state = CHECK_WAITING;
			snprintf(row->result.text, sizeof(row->result.text),
			         "not tried (asof check --send-test does)");
		} else if (notifier_send_test(&o, i, &why) < 0) {
			row->result.state = CHECK_PROBLEM;
			snprintf(row->result.text, sizeof(row->result.text), "%s", why.msg);
			r->n_problems++;
		} else {
			snprintf(row->result.text, sizeof(row->result.text), "%s",
			         i == NOTIFIER_HEARTBEAT ? "reached" : "a test message was sent");
		}
	}
	return 0;
}

static int try_all(const struct config *c, bool send_test, struct rows *r, struct err *err)
{
	int rc = 0;

	for (size_t i = 0; i < c->n_databases && !rc; i++) {
		const struct config_database *d = &c->databases[i];
		rc = d->dir ? try_folder(r, c, d, err)
		            : try_database(r, c, d, d->name, d->path, err);
		rc = rc ? rc : try_archive(r, d->archive, &d->retention, err);
		rc = rc ? rc : try_destinations(r, d, err);
	}
	rc = rc ? rc : try_backup_bucket(r, c, err);
	rc = rc ? rc : try_alerts(c, send_test, r, err);
	if (rc || !c->mount.dir)
		return rc;
	struct row *row = add_row(r, "mount", c->mount.dir, c->mount.dir, c->mount.archive, err);
	if (!row)
		return -ERR_NOMEM;
	check_mount(&c->mount, &row->result);
	r->n_problems += row->result.state == CHECK_PROBLEM;
	return 0;
}

/* ---- schedules ---- */

/* What runs by the clock, one after the other. */
struct plan {
	char name[96];
	const struct schedule *when;
	int64_t next_us;
};

#define MAX_PLANS_OF(c) (3 + (c)->n_schedules + 8 * (c)->n_databases)

static void add_plan(struct plan *plans, size_t *n, const struct config *c, int64_t now_us,
                     const char *name, const struct schedule *when, int64_t jitter_us)
{
	struct plan *p = &plans[*n];
	int64_t delay = schedule_delay_us(name, jitter_us), next;

	/* Many databases verify alike. */
	for (size_t i = 0; i < *n; i++)
		if (strcmp(plans[i].name, name) == 0 &&
		    strcmp(plans[i].when->text, when->text) == 0)
			return;
	next = schedule_next_us(when, c->zone, now_us - delay);
	snprintf(p->name, sizeof(p->name), "%s", name);
	p->when = when;
	p->next_us = next ? next + delay : 0;
	(*n)++;
}

static int list_plans(const struct config *c, int64_t now_us, struct plan **ret, size_t *ret_n,
                      struct err *err)
{
	struct plan *plans = calloc(MAX_PLANS_OF(c), sizeof(*plans));
	size_t n = 0;

	if (!plans)
		return err_set(err, ERR_NOMEM, 0, "out of memory");
	for (size_t i = 0; i < c->n_schedules; i++) {
		char name[96];
		snprintf(name, sizeof(name), "backup %.80s", c->schedules[i].name);
		add_plan(plans, &n, c, now_us, name, &c->schedules[i].when,
		         c->schedules[i].jitter_us);
	}
	add_plan(plans, &n, c, now_us, "cleanup of backups", &c->cleanup, 0);
	for (size_t i = 0; i < c->n_databases; i++) {
		const struct config_database *d = &c->databases[i];
		add_plan(plans, &n, c, now_us, "verify local", &d->verify, 0);
		add_plan(plans, &n, c, now_us, "verify full", &d->verify_full, 0);
		for (size_t k = 0; k < d->n_destinations && k < 6; k++)
			if (!d->destinations[k].not_configured)
				add_plan(plans, &n, c, now_us, "verify remote",
				         &d->destinations[k].verify, 0);
	}
	*ret = plans;
	*ret_n = n;
	return 0;
}

/* ---- JSON ---- */

static void add_place_json(json_t *o, const struct place_report *p)
{
	json_object_set_new(o, "trial", p ? place_json(p) : json_array());
	json_object_set_new(o, "clock_difference_seconds",
	                    p && p->trial.has_clock
	                            ? json_real((double)p->trial.clock_us / US_PER_SECOND)
	                            : json_null());
}

static json_t *messages_json(const struct config_report *report, enum config_severity severity)
{
	json_t *list = json_array();

	for (size_t i = 0; i < report->n; i++) {
		const struct config_message *m = &report->messages[i];
		if (m->severity == severity)
			json_array_append_new(
			        list, json_pack("{ss so ss}", "file", m->file, "line",
			                        m->line ? cli_json_uint(m->line) : json_null(),
			                        "message", m->text));
	}
	return list;
}

static json_t *row_json(const struct row *r)
{
	json_t *o = json_pack("{so ss so so}", "path", json_text(r->path), "state",
	                      check_state_name(r->result.state), "message",
	                      json_text(r->result.text), "archive", json_text(r->archive));

	if (strcmp(r->what, "archive") == 0) {
		json_object_set_new(o, "free_bytes", cli_json_uint(r->result.free_bytes));
		json_object_set_new(o, "kept_free_bytes", cli_json_uint(r->result.needed_bytes));
	} else if (strcmp(r->what, "database") == 0) {
		json_object_set_new(o, "database", json_string(r->name));
		json_object_set_new(o, "bytes", cli_json_uint(r->result.bytes));
	} else if (strcmp(r->what, "alert") == 0) {
		json_object_set_new(o, "alert", json_string(r->name));
	} else if (r->destination) { /* of all databases: the bucket of backups */
		json_object_set_new(o, "database", *r->name ? json_string(r->name) : json_null());
		json_object_set_new(o, "destination", json_string(r->destination->name));
		json_object_set_new(o, "configured", json_boolean(!r->destination->not_configured));
		add_place_json(o, r->place);
	} else if (r->place) {
		add_place_json(o, r->place);
	}
	return o;
}

static json_t *rows_json(const struct rows *rows, const char *what)
{
	json_t *list = json_array();

	for (size_t i = 0; i < rows->n; i++)
		if (strcmp(rows->items[i].what, what) == 0)
			json_array_append_new(list, row_json(&rows->items[i]));
	return list;
}

static json_t *plans_json(const struct plan *plans, size_t n)
{
	json_t *list = json_array();

	for (size_t i = 0; i < n; i++)
		json_array_append_new(list, json_pack("{ss ss so}", "name", plans[i].name,
		                                      "schedule", plans[i].when->text, "next",
		                                      cli_json_time(plans[i].next_us)));
	return list;
}

static int print_json(const char *path, const struct config *c, const struct config_report *report,
                      const struct rows *rows, const struct plan *plans, size_t n_plans,
                      struct err *err)
{
	return cli_print_json(
	        json_pack("{so so so so so so so so so so so}", "configuration",
	                  json_text(c ? c->path : path), "variables",
	                  json_text(c ? c->env_path : NULL), "timezone",
	                  json_text(c ? zone_name(c->zone) : NULL), "errors",
	                  messages_json(report, CONFIG_ERROR), "warnings",
	                  messages_json(report, CONFIG_WARNING), "databases",
	                  rows_json(rows, "database"), "archives", rows_json(rows, "archive"),
	                  "destinations", rows_json(rows, "destination"), "mounts",
	                  rows_json(rows, "mount"), "alerts", rows_json(rows, "alert"), "schedules",
	                  plans_json(plans, n_plans)),
	        err);
}

/* ---- text ---- */

static int print_rows(const struct rows *rows, const char *what, const char *const *header,
                      size_t n_columns, struct err *err)
{
	cleanup_table struct table *t = NULL;
	size_t n = 0;
	int rc = table_new(header, n_columns, &t, err);

	for (size_t i = 0; i < rows->n && !rc; i++) {
		const struct row *r = &rows->items[i];
		if (strcmp(r->what, what) != 0)
			continue;
		n++;
		rc = table_cell(t, err, "%s", *r->name ? r->name : "(backups)");
		if (!rc && r->destination)
			rc = table_cell(t, err, "%s", r->destination->name);
		if (!rc && strcmp(what, "archive") != 0)
			rc = table_cell(t, err, "%s", r->path);
		if (!rc && strcmp(what, "database") == 0)
			rc = table_size(t, r->result.bytes, err);
		if (!rc && strcmp(what, "archive") == 0)
			rc = table_size(t, r->result.free_bytes, err);
		if (!rc && strcmp(what, "archive") == 0)
			rc = table_size(t, r->result.needed_bytes, err);
		rc = rc ? rc
		        : table_cell(t, err, "%s%s",
		                     r->result.state == CHECK_PROBLEM ? "PROBLEM: " : "",
		                     r->result.text);
	}
	if (rc || n == 0)
		return rc;
	putchar('\n');
	table_print(t, stdout);
	return 0;
}

/* What was tried at one place, a line each. */
static int print_trial(const struct row *r, struct err *err)
{
	static const char *const header[] = {"tried", "state", "what that means"};
	cleanup_table struct table *t = NULL;
	char text[PLACE_TEXT_MAX];
	int rc = table_new(header, 3, &t, err);

	for (int i = 0; i < PLACE_LINES && !rc; i++) {
		place_line_text(r->place, i, text);
		rc = table_cell(t, err, "%s", place_line_name(i));
		rc = rc ? rc : table_cell(t, err, "%s", place_line_state(r->place, i));
		rc = rc ? rc : table_cell(t, err, "%s", text);
	}
	if (rc)
		return rc;
	printf("\n%s\n", r->path);
	table_print(t, stdout);
	return 0;
}

static int print_trials(const struct rows *rows, struct err *err)
{
	int rc = 0;

	for (size_t i = 0; i < rows->n && !rc; i++) {
		const struct row *r = &rows->items[i];
		if (r->place && r->place->tried && !r->again)
			rc = print_trial(r, err);
	}
	return rc;
}

static int print_plans(const struct plan *plans, size_t n, struct err *err)
{
	static const char *const header[] = {"schedule", "when", "next run"};
	cleanup_table struct table *t = NULL;
	int rc = table_new(header, 3, &t, err);

	for (size_t i = 0; i < n && !rc; i++) {
		rc = table_cell(t, err, "%s", plans[i].name);
		rc = rc ? rc : table_cell(t, err, "%s", plans[i].when->text);
		rc = rc ? rc : table_time(t, plans[i].next_us, err);
	}
	if (rc || n == 0)
		return rc;
	putchar('\n');
	table_print(t, stdout);
	return 0;
}

static int print_text(const struct config *c, const struct rows *rows, const struct plan *plans,
                      size_t n_plans, struct err *err)
{
	static const char *const databases[] = {"database", "path", ">size", "state"};
	static const char *const archives[] = {"archive", ">free", ">kept free", "state"};
	static const char *const destinations[] = {"database", "destination", "place", "state"};
	static const char *const mounts[] = {"mount", "folder", "state"};
	static const char *const alerts[] = {"alerts", "to", "state"};
	int rc;

	printf("configuration  %s\n", c->path ? c->path : "none");
	if (c->env_path)
		printf("variables      %s\n", c->env_path);
	printf("time zone      %s\n", zone_name(c->zone));
	for (size_t i = 0; i < c->n_databases; i++)
		if (c->databases[i].archive_is_state) {
			printf("archive        %s: none is configured for %s, this folder is "
			       "taken\n",
			       c->databases[i].archive,
			       c->databases[i].path ? c->databases[i].path : c->databases[i].dir);
			break;
		}
	if ((rc = print_rows(rows, "database", databases, 4, err)) ||
	    (rc = print_rows(rows, "archive", archives, 4, err)) ||
	    (rc = print_rows(rows, "destination", destinations, 4, err)) ||
	    (rc = print_trials(rows, err)) || (rc = print_rows(rows, "mount", mounts, 3, err)) ||
	    (rc = print_rows(rows, "alert", alerts, 3, err)))
		return rc;
	return print_plans(plans, n_plans, err);
}

/* ---- */

/* 5 where nothing else is wrong but that somebody does not answer. */
static int judge(const struct rows *rows, struct err *err)
{
	if (!rows->n_problems)
		return 0;
	return err_set(err, rows->n_unavailable == rows->n_problems ? ERR_UNAVAILABLE : ERR_REFUSED,
	               0, "check: %zu problem%s (see above)", rows->n_problems,
	               rows->n_problems == 1 ? "" : "s");
}

static int check_loaded(const struct config *c, const struct config_report *report, bool json,
                        bool send_test, struct err *err)
{
	cleanup_rows struct rows rows = {0};
	cleanup_free struct plan *plans = NULL;
	size_t n_plans = 0;
	int rc;

	if ((rc = try_all(c, send_test, &rows, err)) ||
	    (rc = list_plans(c, clock_now_us(), &plans, &n_plans, err)))
		return rc;
	rc = json ? print_json(NULL, c, report, &rows, plans, n_plans, err)
	          : print_text(c, &rows, plans, n_plans, err);
	return rc ? rc : judge(&rows, err);
}

/* ---- what arguments name ---- */

static int print_places(const struct rows *rows, bool json, struct err *err)
{
	static const char *const header[] = {"archive", "state"};
	cleanup_table struct table *t = NULL;

	if (json)
		return cli_print_json(json_pack("{so}", "places", rows_json(rows, "place")), err);
	int rc = table_new(header, 2, &t, err);
	for (size_t i = 0; i < rows->n && !rc; i++) {
		const struct row *r = &rows->items[i];
		rc = table_cell(t, err, "%s", r->path);
		rc = rc ? rc
		        : table_cell(t, err, "%s%s",
		                     r->result.state == CHECK_PROBLEM ? "PROBLEM: " : "",
		                     r->result.text);
	}
	if (rc)
		return rc;
	table_print(t, stdout);
	return print_trials(rows, err);
}

/* No configuration is asked for. */
static int check_places(const struct cli *c, bool json, struct err *err)
{
	static const struct config_retention standard = {.min_free_percent = 5,
	                                                 .min_free_bytes = UINT64_C(2) << 30};
	cleanup_rows struct rows rows = {0};
	int rc = 0;

	for (int i = 0; i < c->n_args && !rc; i++)
		rc = add_row(&rows, "place", c->args[i], c->args[i], c->args[i], err)
		             ? try_place(&rows, NULL, &standard, err)
		             : -ERR_NOMEM;
	rc = rc ? rc : print_places(&rows, json, err);
	return rc ? rc : judge(&rows, err);
}

enum { OPT_NO_EXPAND = OPT_FIRST_OWN, OPT_SAMPLE, OPT_SEED, OPT_SEND_TEST, OPT_POLICY };

static int run_check(struct cli *c, struct err *err)
{
	cleanup_config_report struct config_report report = CONFIG_REPORT_INIT;
	struct config_options options = {0};
	struct sample_request sample = {0};
	const char *policy = NULL;
	bool json = false, send_test = false;
	int id, rc;

	while ((id = cli_option(c, err)) > 0) {
		if (id == OPT_JSON)
			json = sample.json = true;
		else if (id == OPT_SEND_TEST)
			send_test = true;
		else if (id == OPT_POLICY)
			policy = c->arg;
		else if (id == OPT_NO_EXPAND)
			options.no_expand = true;
		else if (id == OPT_SAMPLE)
			sample.share = c->arg;
		else if (id == OPT_SEED)
			sample.seed = c->arg;
		else
			sample.archive = c->arg;
	}
	if (id < 0)
		return id;
	if ((rc = cli_check_args(c, 0, INT_MAX, "", err)))
		return rc;
	if (sample.share && send_test)
		return cli_usage(c, err, "--send-test does not go with --sample");
	if (c->n_args && (sample.share || send_test))
		return cli_usage(c, err, "'%s': an archive to try out goes without %s", c->args[0],
		                 send_test ? "--send-test" : "--sample (name it by --archive)");
	if (sample.share)
		return check_sample(c, &sample, err);
	if (sample.archive || sample.seed)
		return cli_usage(c, err, "--archive and --seed go with --sample");
	if (policy && c->n_args)
		return policy_print(policy, c->args, c->n_args, NULL, err);
	if (c->n_args)
		return check_places(c, json, err);
	options.path = c->config_path ? c->config_path : config_default_path();
	options.env_path = c->env_path;
	rc = config_load(&options, &c->config, &report, err);
	if (!json) {
		config_report_print(&report, stderr);
	} else if (rc) {
		struct rows none = {0};
		struct err why = ERR_INIT;
		int printed = print_json(options.path, NULL, &report, &none, NULL, 0, &why);
		rc = printed ? err_copy(err, &why) : rc;
	}
	if (rc)
		return rc;
	if (!c->config->path && !c->config->env_path)
		return cli_usage(c, err,
		                 "no configuration: there is neither ./asof.yml nor "
		                 "/etc/asof.yml (name one by --config)");
	return policy ? policy_print(policy, NULL, 0, c->config, err)
	              : check_loaded(c->config, &report, json, send_test, err);
}

static const struct cli_option check_options[] = {
        {OPT_NO_EXPAND, "no-expand-env", NULL, "leave $VARIABLES in the configuration as they are"},
        {OPT_SEND_TEST, "send-test", NULL,
         "send a test message to everybody whom alerts would reach"},
        {OPT_POLICY, "print-policy", "WHAT",
         "instead: print a policy, or a setting, for the buckets as JSON"},
        {OPT_SAMPLE, "sample", "P%", "instead: verify P % of the histories, chosen by chance"},
        {OPT_SEED, "seed", "N", "the sample that seed N gives"},
        CLI_OPTION_ARCHIVE,
        CLI_OPTION_JSON,
        CLI_OPTION_END,
};

const struct cli_command cmd_check = {
        .name = "check",
        .usage = "[ARCHIVE…] [--send-test] [--print-policy WHAT] [--sample P% [--seed N]] [--json]",
        .summary = "Checks the configuration and tries out what it names; shows what runs when.",
        .details =
                "Every error is printed, by line.  Nothing is started and nothing stays written: "
                "each\n"
                "database is looked at, a file is made and removed in each archive, each "
                "destination is\n"
                "written, read, listed, written on a condition, and deleted in.  ARCHIVE, a "
                "folder or URL,\n"
                "is tried out so without a configuration.  Exit status: 2 for errors of the\n"
                "configuration, 1 for something that would not work, 5 where all that is wrong is "
                "a\n"
                "destination that does not answer.  --print-policy: write, no-delete or read, a\n"
                "policy of IAM; encryption or lifecycle, what a bucket is set to.  --sample looks "
                "at\n"
                "what is in the archives instead: stored bytes against their checksums, and "
                "moments\n"
                "against what was committed; 4 for damage.  --send-test sends a message to each "
                "place "
                "of\n"
                "`alerts:` and has the heartbeat's URL called once.\n",
        .example = "asof check --config /etc/asof.yml",
        .options = check_options,
        .prints = true,
        .run = run_check,
};
