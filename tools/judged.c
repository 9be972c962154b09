/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/judged.h"

#include "engine/config/config.h"
#include "engine/observe/api.h"
#include "tools/control.h"

#include <string.h>

/* What the running daemon goes by; one that was broken since is what it does not go by. */
static struct config *config_of(const json_t *status, const char *env_path)
{
	const char *path = json_string_value(json_object_get(status, "config"));
	const struct config_options o = {.path = path, .env_path = env_path};
	cleanup_config_report struct config_report report = CONFIG_REPORT_INIT;
	struct config *c = NULL;
	struct err ignored = ERR_INIT;

	if (!path || config_load(&o, &c, &report, &ignored) < 0)
		return NULL;
	return c;
}

static int judge(const struct cli *c, const struct judged_options *o, const json_t *status,
                 const json_t *jobs, const char *problem, struct judged *ret, struct err *err)
{
	cleanup_config struct config *running = config_of(status, c->env_path);
	const struct facts_once once = {.status = status,
	                                .jobs = jobs,
	                                .problem = problem,
	                                .config = running ? running : c->config,
	                                .archive = o->any_archive ? o->archive : NULL};
	struct health_limits limits;

	if (!status && !once.config && !once.archive)
		return 0;
	health_limits_default(&limits);
	int rc = facts_collect_once(&once, &ret->facts, err);
	if (rc == 0 && o->prepare)
		o->prepare(ret->facts, o->limits ? o->limits : &limits);
	return rc ? rc
	          : health_judge(&ret->facts->f, o->limits ? o->limits : &limits, o->now_us,
	                         &ret->verdict, err);
}

int judged_get(const struct cli *c, const struct judged_options *o, struct judged *ret,
               struct err *err)
{
	const struct control_place place = {
	        .config = c->config_path, .env = c->env_path, .archive = o->archive};
	json_t *status = NULL, *jobs = NULL;
	struct err why = ERR_INIT;

	*ret = (struct judged){0};
	if (o->archive && strstr(o->archive, "://"))
		return 0;
	int rc = control_ask(&place, json_pack("{ss}", "command", "status"), &status, &why);
	if (rc == 0)
		rc = control_ask(&place, json_pack("{ss}", "command", "jobs"), &jobs, &why);
	rc = judge(c, o, rc ? NULL : status, jobs, why.msg, ret, err);
	json_decref(status);
	json_decref(jobs);
	if (rc < 0)
		judged_release(ret);
	return rc;
}

void judged_release(struct judged *j)
{
	health_verdict_release(&j->verdict);
	facts_put(take_ptr(j->facts));
}

/* ---- output ---- */

json_t *judged_json(const struct judged *j)
{
	json_t *checks;

	if (!j->facts)
		return json_null();
	checks = json_array();
	for (size_t i = 0; i < j->verdict.n; i++)
		json_array_append_new(checks, api_check_json(&j->verdict.lines[i]));
	return json_pack("{sb ss so}", "healthy", j->verdict.healthy, "status",
	                 health_level_name(j->verdict.level), "checks", checks);
}

static void print_check(const struct health_line *l)
{
	char name[sizeof(l->name) + sizeof(l->database) + 8], reason[sizeof(l->reason)];

	snprintf(name, sizeof(name), "%s%s%s", l->database, l->database[0] ? " " : "", l->name);
	memcpy(reason, l->reason, sizeof(reason));
	cli_one_line(name);
	cli_one_line(reason);
	printf("  %-15s %s %s: %s (%s)\n", health_level_name(l->level),
	       health_subject_name(l->subject), name, reason, health_code_name(l->code));
}

static bool is_about(const struct health_line *l, const char *db)
{
	return !db || strcmp(l->database, db) == 0 || l->subject == HEALTH_DAEMON ||
	       (l->subject == HEALTH_DATABASE && strcmp(l->name, db) == 0);
}

void judged_print(const struct judged *j, const char *db)
{
	enum health_level worst = HEALTH_OK;

	if (!j->facts)
		return;
	for (size_t i = 0; i < j->verdict.n; i++)
		if (is_about(&j->verdict.lines[i], db) && j->verdict.lines[i].level > worst)
			worst = j->verdict.lines[i].level;
	printf("\nhealth: %s\n", health_level_name(worst));
	for (size_t i = 0; i < j->verdict.n; i++)
		if (j->verdict.lines[i].reason[0] && is_about(&j->verdict.lines[i], db))
			print_check(&j->verdict.lines[i]);
}
