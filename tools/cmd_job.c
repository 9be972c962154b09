/* SPDX-License-Identifier: Apache-2.0 */
/*
 * asof job: what the daemon has its children do to a history (engine/daemon/jobs.c starts them).
 * Not for people, hence not in the list of commands: `asof validate` and `asof cleanup` are.
 *
 *   asof job verify|verify-full ARCHIVE NAME
 *   asof job retain ARCHIVE NAME TIERS MAX_BYTES MIN_FREE_BYTES MIN_FREE_PERCENT
 *   asof job retain-there ARCHIVE NAME URL [GRACE_US]     at a destination; likewise
 *   asof job send URL [GRACE_US]               backups; with --config, --env-file likewise
 *   asof job observe SOCKET [no-expand]        with --config, --env-file as the daemon has them
 *
 * TIERS is EVERY_US:AGE_US,… from the finest to the coarsest, or "all".
 */
#include "tools/destinations.h"

#include "engine/config/retention.h"
#include "engine/daemon/observer.h"
#include "engine/daemon/sending.h"
#include "engine/daemon/shipping.h"
#include "engine/observe/observe.h"
#include "engine/retain/retain.h"
#include "engine/ship/ship.h"
#include "engine/verify/verify.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int run_verify(struct cli *c, enum verify_scope scope, struct err *err)
{
	const struct verify_options o = {.scope = scope, .integrity = scope == VERIFY_FULL};
	cleanup_verify_report struct verify_report report = {0};

	int rc = verify_history(c->args[1], c->args[2], &o, &report, err);
	if (rc || verify_report_ok(&report))
		return rc;
	if (report.n_damages)
		return err_set(err, ERR_DAMAGED, 0, "%s", report.damages[0].reason);
	return err_set(err, ERR_DAMAGED, 0, "the database itself is damaged: %.300s",
	               report.integrity);
}

/* A number and the byte behind it, which must be `end` unless that is 0; NULL: something else. */
static const char *take_number(const char *text, char end, int64_t *ret)
{
	char *behind;

	errno = 0;
	*ret = strtoll(text, &behind, 10);
	if (behind == text || errno || (end && *behind != end))
		return NULL;
	return behind + (end != 0);
}

static int parse_tiers(const struct cli *c, const char *text, struct retain_policy *p,
                       struct err *err)
{
	if (strcmp(text, "all") == 0)
		return 0;
	while (*text) {
		int64_t every_us, age_us;
		const char *rest = take_number(text, ':', &every_us);
		rest = rest ? take_number(rest, 0, &age_us) : NULL;
		if (!rest || (*rest && *rest != ',') || p->n_tiers == RETAIN_TIERS_MAX)
			return cli_usage(c, err, "'%.60s' are no tiers", text);
		p->tiers[p->n_tiers++] = (struct retain_tier){age_us, every_us};
		text = rest + (*rest == ',');
	}
	return retain_policy_check(p, err);
}

static int run_retain(struct cli *c, struct err *err)
{
	cleanup_retainer struct retainer *r = NULL;
	static const _Atomic bool
	        never; /* SIGTERM ends the process; what it began is taken up again */
	struct retain_policy policy = {.grace_us = RETAIN_GRACE_US};
	struct retain_result result;
	uint64_t percent = 0;

	int rc = parse_tiers(c, c->args[3], &policy, err);
	if (rc == 0)
		rc = cli_number(c, "MAX_BYTES", c->args[4], 0, UINT64_MAX, &policy.max_bytes, err);
	if (rc == 0)
		rc = cli_number(c, "MIN_FREE_BYTES", c->args[5], 0, UINT64_MAX,
		                &policy.min_free_bytes, err);
	if (rc == 0)
		rc = cli_number(c, "MIN_FREE_PERCENT", c->args[6], 0, 100, &percent, err);
	policy.min_free_percent = (unsigned)percent;
	if (rc == 0)
		rc = retainer_new(c->args[1], c->args[2], &r, err);
	return rc ? rc : retainer_run(r, &policy, clock_now_us(), &never, NULL, &result, err);
}

static int run_retain_there(struct cli *c, struct err *err)
{
	static const _Atomic bool never; /* as of run_retain() */
	cleanup_store struct store *store = NULL;
	struct store_options so = {.create = false};
	struct shipping_destination sd;
	struct retain_policy policy;
	struct retain_result result;
	const struct config *config;
	uint64_t grace_us = RETAIN_GRACE_US;

	int rc = cli_config(c, &config, err);
	if (rc == 0 && c->n_args > 4)
		rc = cli_number(c, "GRACE_US", c->args[4], 0, INT64_MAX, &grace_us, err);
	if (rc < 0)
		return rc;
	const struct config_destination *d =
	        config ? destinations_configured(config, c->args[1], c->args[2], c->args[3]) : NULL;
	if (!d || !d->retains || d->not_configured)
		return err_set(err, ERR_NOT_FOUND, 0, "nothing is thinned at '%.200s'", c->args[3]);
	config_retain_policy(&d->retention, &policy);
	policy.grace_us = (int64_t)grace_us;
	shipping_destination_of(d, &sd);
	shipping_store_options(&sd, &so);
	rc = store_open(d->url, &so, &store, err);
	const struct ship_options o = {.archive = c->args[1],
	                               .name = c->args[2],
	                               .url = d->url,
	                               .store = store,
	                               .stop = &never};
	return rc < 0 ? rc : ship_retain(&o, &policy, clock_now_us(), false, NULL, &result, err);
}

static int run_send(struct cli *c, struct err *err)
{
	struct sending_place places[SENDING_PLACES_MAX];
	struct sending_options o = {.look = c->n_args > 2};
	uint64_t grace_us = 0;
	struct backup_sent sent;
	const struct config *config;
	int rc = cli_config(c, &config, err);

	if (rc == 0 && c->n_args > 2)
		rc = cli_number(c, "GRACE_US", c->args[2], 1, INT64_MAX, &grace_us, err);
	if (rc)
		return rc;
	o.grace_us = (int64_t)grace_us;
	size_t n = sending_places(c->config, places);
	for (size_t i = 0; i < n; i++)
		if (strcmp(places[i].destination->url, c->args[1]) == 0)
			return sending_run(c->config, &places[i], &o, &sent, err);
	return err_set(err, ERR_NOT_FOUND, 0, "no backups go to '%.200s'", c->args[1]);
}

static int run_observe(const struct cli *c, struct err *err)
{
	const struct observe_options o = {
	        .config = {.path = c->config_path,
	                   .env_path = c->env_path,
	                   .no_expand = c->n_args > 2 && strcmp(c->args[2], "no-expand") == 0},
	        .socket = c->args[1]};
	bool again = false;

	int rc = observe_run(&o, &again, err);
	if (rc)
		return rc;
	/* Threads may still wait for a disk. */
	fflush(stdout);
	_exit(again ? OBSERVER_AGAIN : 0);
}

static int run_job(struct cli *c, struct err *err)
{
	int id;

	while ((id = cli_option(c, err)) > 0)
		;
	if (id < 0)
		return id;
	int rc = cli_check_args(c, 2, 7, "arguments", err);
	if (rc)
		return rc;
	if ((c->n_args == 4 || c->n_args == 5) && strcmp(c->args[0], "retain-there") == 0)
		return run_retain_there(c, err);
	if (c->n_args <= 3 && strcmp(c->args[0], "send") == 0)
		return run_send(c, err);
	if (strcmp(c->args[0], "observe") == 0)
		return run_observe(c, err);
	if (c->n_args == 3 && strcmp(c->args[0], "verify") == 0)
		return run_verify(c, VERIFY_NEW, err);
	if (c->n_args == 3 && strcmp(c->args[0], "verify-full") == 0)
		return run_verify(c, VERIFY_FULL, err);
	if (c->n_args == 7 && strcmp(c->args[0], "retain") == 0)
		return run_retain(c, err);
	return cli_usage(c, err, "'%.40s' is no job, or it lacks arguments", c->args[0]);
}

static const struct cli_option job_options[] = {CLI_OPTION_END};

const struct cli_command cmd_job = {
        .name = "job",
        .usage = "JOB ARGUMENT...",
        .summary = "What the daemon has its children do.",
        .example = "asof job verify /backups futures_trades.db",
        .options = job_options,
        .run = run_job,
};
