/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/status_daemon.h"

#include "engine/base/file.h"
#include "tools/control.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define RUNS_MAX 1000
#define RUNS_SHOWN 50

void status_daemon_get(const struct cli *c, const char *root, struct status_daemon *ret)
{
	const struct control_place place = {
	        .config = c->config_path, .env = c->env_path, .archive = root};
	struct err ignored = ERR_INIT;

	*ret = (struct status_daemon){0};
	if (control_ask(&place, json_pack("{ss}", "command", "status"), &ret->answer, &ignored) < 0)
		ret->answer = NULL;
	if (journal_read(root, RUNS_MAX, &ret->runs, &ignored) < 0)
		ret->runs = (struct journal_list){0};
}

void status_daemon_release(struct status_daemon *d)
{
	json_decref(d->answer);
	journal_list_release(&d->runs);
}

const json_t *status_daemon_row(const struct status_daemon *d, const char *root, const char *name)
{
	const json_t *rows = json_object_get(d->answer, "databases");
	size_t i;
	const json_t *row;

	json_array_foreach((json_t *)(uintptr_t)rows, i, row)
	{
		const char *is = json_string_value(json_object_get(row, "database"));
		if (is && strcmp(is, name) == 0 &&
		    file_same_folder(json_string_value(json_object_get(row, "archive")), root))
			return row;
	}
	return NULL;
}

void status_daemon_row_json(const struct status_daemon *d, const char *root, const char *name,
                            json_t *database)
{
	const json_t *row = status_daemon_row(d, root, name);
	json_t *state = json_object_get(row, "state"), *reason = json_object_get(row, "reason");

	json_object_set_new(database, "state", state ? json_incref(state) : json_null());
	json_object_set_new(database, "reason", reason ? json_incref(reason) : json_null());
}

json_t *status_pending_json(const struct status_daemon *d, const char *root, char *const *names,
                            size_t n)
{
	json_t *rows = json_object_get(d->answer, "databases"), *all = json_array(), *row;
	size_t i;

	json_array_foreach(rows, i, row)
	{
		const char *name = json_string_value(json_object_get(row, "database"));
		size_t k = 0;
		while (name && k < n && strcmp(names[k], name) != 0)
			k++;
		if (name && k == n &&
		    file_same_folder(json_string_value(json_object_get(row, "archive")), root))
			json_array_append_new(all,
			                      json_pack("{sO sO sO sO}", "database",
			                                json_object_get(row, "database"), "source",
			                                json_object_get(row, "path"), "state",
			                                json_object_get(row, "state"), "reason",
			                                json_object_get(row, "reason")));
	}
	return all;
}

static void print_line(const char *label, const json_t *row, const char *key)
{
	const char *value = json_string_value(json_object_get(row, key));
	char text[PATH_MAX];

	snprintf(text, sizeof(text), "%s", value && *value ? value : "-");
	cli_one_line(text);
	printf("  %-15s %s\n", label, text);
}

size_t status_pending_print(const struct status_daemon *d, const char *root, char *const *names,
                            size_t n)
{
	json_t *all = status_pending_json(d, root, names, n), *row;
	size_t i;

	json_array_foreach(all, i, row)
	{
		printf("%s%s\n", n + i ? "\n" : "",
		       json_string_value(json_object_get(row, "database")));
		print_line("source", row, "source");
		print_line("asof run", row, "state");
		print_line("reason", row, "reason");
		printf("  %-15s nothing yet\n", "last captured");
	}
	i = json_array_size(all);
	json_decref(all);
	return i;
}

json_t *status_daemon_json(const struct status_daemon *d)
{
	json_t *pid = json_object_get(d->answer, "pid");

	if (!pid)
		return json_null();
	return json_pack("{sO sO sO*}", "pid", pid, "uptime_s",
	                 json_object_get(d->answer, "uptime_s"), "config",
	                 json_object_get(d->answer, "config"));
}

static json_t *run_json(const struct journal_entry *e)
{
	return json_pack("{so so so so so sb so}", "job", json_text(e->job), "database",
	                 json_text(e->database), "scheduled", cli_json_time(e->scheduled_us),
	                 "began", cli_json_time(e->began_us), "ended", cli_json_time(e->ended_us),
	                 "ok", (int)e->ok, "message", json_text(e->message));
}

json_t *status_runs_json(const struct status_daemon *d)
{
	json_t *runs = json_array();
	size_t n = d->runs.n;

	for (size_t i = n > RUNS_SHOWN ? n - RUNS_SHOWN : 0; i < n; i++)
		json_array_append_new(runs, run_json(&d->runs.entries[i]));
	return runs;
}

static bool is_last(const struct journal_list *l, size_t i)
{
	for (size_t j = i + 1; j < l->n; j++)
		if (strcmp(l->entries[j].job, l->entries[i].job) == 0 &&
		    strcmp(l->entries[j].database, l->entries[i].database) == 0)
			return false;
	return true;
}

void status_runs_print(const struct status_daemon *d, const char *name, int64_t now_us)
{
	for (size_t i = 0; i < d->runs.n; i++) {
		struct journal_entry e = d->runs.entries[i];
		char age[AGE_STR_MAX];
		if (strcmp(e.database, name) != 0 || !is_last(&d->runs, i))
			continue;
		cli_format_age(e.ended_us, now_us, age);
		cli_one_line(e.job);
		cli_one_line(e.message);
		printf("  %-15s %s%s (%s)\n", e.job, e.ok ? "done" : "FAILED: ", e.message, age);
	}
}
