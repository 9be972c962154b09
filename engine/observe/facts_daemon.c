/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/observe/facts_i.h"

#include "engine/base/clock.h"
#include "engine/base/file.h"
#include "engine/daemon/control.h"

#include <limits.h>
#include <string.h>

/* A daemon that is stopped or hung accepts and says nothing. */
#define ASK_TIMEOUT_S 2

const struct config_database *facts_config_of(const struct config *c, const char *path)
{
	const struct config_database *in_folder = NULL;

	for (size_t i = 0; i < c->n_databases; i++) {
		const struct config_database *d = &c->databases[i];
		if (!d->dir && strcmp(d->path, path) == 0)
			return d;
		size_t len = d->dir ? strlen(d->dir) : 0;
		if (len && strncmp(path, d->dir, len) == 0 && path[len] == '/')
			in_folder = d;
	}
	return in_folder;
}

/* ---- answers ---- */

static void take_text(const json_t *row, const char *key, char *out, size_t size)
{
	const char *text = json_string_value(json_object_get(row, key));

	snprintf(out, size, "%s", text ? text : "");
}
#define TAKE_TEXT(row, key, out) take_text(row, key, out, sizeof(out))

static uint64_t take_uint(const json_t *row, const char *key)
{
	json_int_t n = json_integer_value(json_object_get(row, key));

	return n < 0 ? 0 : (uint64_t)n;
}

static int64_t take_time(const json_t *row, const char *key)
{
	const char *text = json_string_value(json_object_get(row, key));
	int64_t time_us = 0;

	if (!text || time_parse(text, 0, TIME_ZONE_UTC, &time_us, NULL, NULL) < 0)
		return 0;
	return time_us;
}

static int take_database(const json_t *row, struct health_facts *f, struct err *err)
{
	struct health_database *d = facts_add(&f->databases, &f->n_databases, sizeof(*d));

	if (!d)
		return err_set(err, ERR_NOMEM, 0, "no memory");
	TAKE_TEXT(row, "database", d->name);
	TAKE_TEXT(row, "path", d->path);
	TAKE_TEXT(row, "archive", d->archive);
	TAKE_TEXT(row, "state", d->state);
	TAKE_TEXT(row, "reason", d->reason);
	d->told = true;
	d->since_us = take_time(row, "since");
	d->attached = json_is_true(json_object_get(row, "attached"));
	d->settled = json_is_true(json_object_get(row, "settled"));
	d->commits = take_uint(row, "commits");
	d->taken_bytes = take_uint(row, "taken_bytes");
	d->syncs = take_uint(row, "syncs");
	d->sync_errors = take_uint(row, "sync_errors");
	d->sync_us = (int64_t)take_uint(row, "sync_us");
	d->queued_bytes = take_uint(row, "queued_bytes");
	return 0;
}

static int take_job(const json_t *row, struct health_facts *f, struct err *err)
{
	struct health_job *j = facts_add(&f->jobs, &f->n_jobs, sizeof(*j));

	if (!j)
		return err_set(err, ERR_NOMEM, 0, "no memory");
	TAKE_TEXT(row, "job", j->job);
	TAKE_TEXT(row, "database", j->database);
	j->next_us = take_time(row, "next");
	j->running = json_is_true(json_object_get(row, "running"));
	j->n_ok = take_uint(row, "succeeded");
	j->n_failed = take_uint(row, "failed");
	return 0;
}

static int ask(const char *socket, const char *command, json_t **ret, struct err *err)
{
	cleanup_fd int fd = -1;

	if (!socket[0])
		return err_set(err, ERR_NOT_FOUND, 0, "it has no control socket");
	int rc = control_connect(socket, &fd, err);
	if (rc < 0)
		return rc;
	json_t *order = json_pack("{ss}", "command", command);
	rc = control_request(fd, order, ASK_TIMEOUT_S, ret, err);
	json_decref(order);
	return rc;
}

static int take_status(const json_t *answer, struct health_facts *f, struct err *err)
{
	json_t *rows = json_object_get(answer, "databases"), *row;
	size_t i;
	int rc = 0;

	f->daemon_answers = true;
	f->pid = (int)take_uint(answer, "pid");
	f->started_us = clock_now_us() - (int64_t)take_uint(answer, "uptime_s") * US_PER_SECOND;
	TAKE_TEXT(answer, "version", f->version);
	json_array_foreach(rows, i, row)
	{
		rc = rc ? rc : take_database(row, f, err);
	}
	return rc;
}

/* ---- without an answer ---- */

static int add_named(struct health_facts *f, const char *name, const char *path,
                     const char *archive, struct err *err)
{
	struct health_database *d = facts_add(&f->databases, &f->n_databases, sizeof(*d));

	if (!d)
		return err_set(err, ERR_NOMEM, 0, "no memory");
	snprintf(d->name, sizeof(d->name), "%s", name);
	snprintf(d->path, sizeof(d->path), "%s", path);
	snprintf(d->archive, sizeof(d->archive), "%s", archive ? archive : "");
	return 0;
}

static int add_configured(const struct config *c, const struct config_database *d,
                          struct health_facts *f, struct err *err)
{
	cleanup_config_found struct config_found_list found = {0};
	struct err ignored = ERR_INIT;
	int rc = 0;

	if (!d->dir)
		return add_named(f, d->name, d->path, d->archive, err);
	if (config_scan_dir(c, d, &found, &ignored) < 0)
		return 0; /* the daemon's silence is told already */
	for (size_t i = 0; i < found.n && rc == 0; i++)
		rc = add_named(f, found.items[i].name, found.items[i].path, d->archive, err);
	return rc;
}

static int remember_databases(const struct config *c, const struct health_facts *former,
                              struct health_facts *f, struct err *err)
{
	int rc = 0;

	for (size_t i = 0; i < former->n_databases && rc == 0; i++) {
		const struct health_database *d = &former->databases[i];
		rc = add_named(f, d->name, d->path, d->archive, err);
	}
	for (size_t i = 0; i < c->n_databases && former->n_databases == 0 && rc == 0; i++)
		rc = add_configured(c, &c->databases[i], f, err);
	return rc;
}

int facts_take_daemon(const json_t *status, const json_t *jobs, const char *problem,
                      const struct config *config, const struct health_facts *former,
                      struct health_facts *f, struct err *err)
{
	json_t *rows = json_object_get(jobs, "jobs"), *row;
	size_t i;

	if (!status) {
		snprintf(f->daemon_problem, sizeof(f->daemon_problem), "%.239s", problem);
		return remember_databases(config, former, f, err);
	}
	int rc = take_status(status, f, err);
	json_array_foreach(rows, i, row)
	{
		rc = rc ? rc : take_job(row, f, err);
	}
	return rc;
}

int facts_ask_daemon(const char *socket, const struct config *config,
                     const struct health_facts *former, struct health_facts *f, struct err *err)
{
	json_t *status = NULL, *jobs = NULL;
	struct err why = ERR_INIT;

	int rc = ask(socket, "status", &status, &why);
	if (rc == 0)
		rc = ask(socket, "jobs", &jobs, &why);
	rc = facts_take_daemon(rc ? NULL : status, jobs, why.msg, config, former, f, err);
	json_decref(status);
	json_decref(jobs);
	return rc;
}

int facts_add_archive(const char *root, struct archives *archives, struct health_facts *f,
                      struct err *err)
{
	cleanup_free char **names = NULL;
	struct err ignored = ERR_INIT;
	struct archive *a = NULL;
	size_t n = 0;
	int rc = 0;

	if (archives_get(archives, root, &a, &ignored) < 0)
		return 0;
	if (archive_list(a, &names, &n, &ignored) < 0)
		n = 0;
	for (size_t i = 0; i < n && rc == 0; i++) {
		cleanup_history struct history *h = NULL;
		struct history_status s;
		bool there = false;
		for (size_t k = 0; k < f->n_databases && !there; k++)
			there = strcmp(f->databases[k].name, names[i]) == 0 &&
			        file_same_folder(f->databases[k].archive, root);
		if (!there && history_get(a, names[i], &h, &ignored) == 0 &&
		    history_get_status(h, &s, &ignored) == 0)
			rc = add_named(f, names[i], s.source_path, root, err);
	}
	archives_put(archives, a);
	return rc;
}
