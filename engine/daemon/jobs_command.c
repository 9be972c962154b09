/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/daemon/jobs_i.h"

#include "engine/config/retention.h"

#include <stdio.h>

static void add(struct command *c, const char *word)
{
	if (c->n < ARGS_MAX - 1)
		c->argv[c->n++] = word;
}

static void add_pair(struct command *c, const char *option, const char *value)
{
	if (!value)
		return;
	add(c, option);
	add(c, value);
}

static void add_config(const struct jobs *j, struct command *c)
{
	add_pair(c, "--config", j->config->path);
	add_pair(c, "--env-file", j->env_path);
}

static void make_backup_command(const struct jobs *j, const struct job *job, struct command *c)
{
	const struct config_backup_schedule *s = &j->config->schedules[job->schedule];

	add(c, "backup");
	add_pair(c, "--type", config_backup_type_name(s->type));
	add_pair(c, "--db-path", job->path);
	if (!s->options.compress)
		add(c, "--no-compress");
	if (!s->options.validate)
		add(c, "--no-validate");
	add(c, "--no-send"); /* JOB_SEND does */
	add_pair(c, "--gpg", s->options.gpg_recipient);
	if (s->options.level) {
		snprintf(c->numbers[0], sizeof(c->numbers[0]), "%u", s->options.level);
		add_pair(c, "--level", c->numbers[0]);
	}
	add_config(j, c);
}

/* See tools/cmd_job.c. */
static void make_history_command(const struct job *job, const struct fleet_entry *e,
                                 struct command *c)
{
	bool retains = job->kind == JOB_RETAIN || job->kind == JOB_RETAIN_COPY;
	const struct config_destination *d =
	        job->kind == JOB_VERIFY_COPY || job->kind == JOB_RETAIN_COPY
	                ? &e->config->destinations[job->schedule]
	                : NULL;
	struct retain_policy r;
	size_t len = 0;

	add(c, "job");
	add(c, retains ? "retain" : job->kind == JOB_VERIFY_FULL ? "verify-full" : "verify");
	add(c, d ? d->url : e->archive);
	add(c, e->name);
	if (!retains)
		return;
	config_retain_policy(d ? &d->retention : &e->config->retention, &r);
	for (size_t i = 0; i < r.n_tiers && len < sizeof(c->policy); i++)
		len += (size_t)snprintf(c->policy + len, sizeof(c->policy) - len, "%s%lld:%lld",
		                        i ? "," : "", (long long)r.tiers[i].every_us,
		                        (long long)r.tiers[i].age_us);
	snprintf(c->numbers[0], sizeof(c->numbers[0]), "%llu", (unsigned long long)r.max_bytes);
	snprintf(c->numbers[1], sizeof(c->numbers[1]), "%llu",
	         (unsigned long long)r.min_free_bytes);
	snprintf(c->numbers[2], sizeof(c->numbers[2]), "%u", r.min_free_percent);
	add(c, c->policy[0] ? c->policy : "all");
	add(c, c->numbers[0]);
	add(c, c->numbers[1]);
	add(c, c->numbers[2]);
}

void job_make_command(const struct jobs *j, const struct job *job, const struct fleet_entry *e,
                      struct command *c)
{
	add(c, j->program);
	switch (job->kind) {
	case JOB_BACKUP:
		make_backup_command(j, job, c);
		return;
	case JOB_COPY:
		add(c, "copy");
		add(c, e->archive);
		add(c, e->config->destinations[job->schedule].url);
		add_pair(c, "--db", e->name);
		return;
	case JOB_RETAIN_THERE:
		add(c, "job");
		add(c, "retain-there");
		add(c, e->archive);
		add(c, e->name);
		add(c, e->config->destinations[job->schedule].url);
		add_config(j, c);
		return;
	case JOB_CLEANUP:
		add(c, "cleanup");
		add_config(j, c);
		return;
	case JOB_SEND:
		add(c, "job");
		add(c, "send");
		add(c, job->url);
		add_config(j, c);
		return;
	default:
		make_history_command(job, e, c);
	}
}
