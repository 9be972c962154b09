/* SPDX-License-Identifier: Apache-2.0 */
/*
 * asof cleanup of the history at a destination: by who sends there, beside the daemon or without one, as
 * that does it (ship_retain()).  A destination that is a directory is thinned as an archive is.
 */
#include "tools/cleanup_history.h"

#include "engine/config/retention.h"
#include "engine/ship/ship.h"
#include "tools/destinations.h"

#include <string.h>

struct there {
	struct cli *cli;
	const struct history_cleanup *q;
	const char *root, *db; /* here */
	/* Of one database: */
	const struct config_destination *configured; /* NULL: it is not */
	const char *url;
	bool ships; /* it is sent there, and not copied by asof copy */
};

/* Whether the history goes there. */
static bool goes_there(struct there *t, const struct config *config)
{
	struct ship_status st;

	t->configured = config ? destinations_configured(config, t->root, t->db, t->q->dest) : NULL;
	t->url = t->configured ? t->configured->url : t->q->dest;
	bool known = ship_status_read(t->root, t->db, t->url, &st, NULL) == 0;
	t->ships = known || store_is_url(t->url);
	return known || t->configured;
}

/* Its own rules; where it has none it keeps all, until somebody says other ones. */
static int find_policy(const struct there *t, struct retain_policy *ret, struct err *err)
{
	retain_policy_default(ret);
	if (t->configured && t->configured->retains)
		config_retain_policy(&t->configured->retention, ret);
	else if (!t->q->tiers && !t->q->keep)
		return err_set(err, ERR_USAGE, 0,
		               "cleanup: '%.200s' has no retention of its own, all of '%s' stays "
		               "there (give it one, or --tiers or --keep)",
		               t->url, t->db);
	return cleanup_history_words(t->cli, t->q, ret, err);
}

static int run_there(void *ctx, const struct history_pass *p, const struct retain_policy *policy,
                     FILE *log, struct retain_result *ret, struct err *err)
{
	cleanup_store struct store *store = NULL;
	const struct there *t = ctx;
	struct store_options so;

	cli_store_options(t->cli, t->url, &so);
	int rc = store_open(t->url, &so, &store, err);
	const struct ship_options o = {.archive = t->root,
	                               .name = t->db,
	                               .url = t->url,
	                               .store = store,
	                               .stop = p->stop,
	                               .look = true};
	return rc < 0 ? rc : ship_retain(&o, policy, clock_now_us(), p->dry_run, log, ret, err);
}

static int run_one(struct there *t, struct history_pass *p, struct err *err)
{
	struct retain_policy policy;

	if (t->configured && t->configured->not_configured)
		return err_set(err, ERR_USAGE, 0, "destination '%.60s' gets nothing: %.200s",
		               t->configured->name, t->configured->not_configured);
	int rc = find_policy(t, &policy, err);
	if (rc < 0)
		return rc;
	return t->ships ? cleanup_history_pass(p, t->db, &policy, err)
	                : cleanup_history_here(p, t->url, t->db, &policy, err);
}

int cleanup_there_run(struct cli *c, const char *root, const struct history_cleanup *q,
                      bool dry_run, bool json, const _Atomic bool *stop, json_t **ret_json,
                      struct err *err)
{
	cleanup_archive struct archive *a = NULL;
	cleanup_free char **names = NULL;
	struct there t = {.cli = c, .q = q, .root = root};
	struct history_pass p = {.dry_run = dry_run,
	                         .json = json,
	                         .stop = stop,
	                         .all = json_array(),
	                         .run = run_there,
	                         .ctx = &t};
	const struct config *config;
	size_t n = 0, met = 0;

	*ret_json = json_pack("{so}", "databases", p.all);
	if (q->off || q->max_bytes || q->min_free)
		return cli_usage(c, err, "--dest and %s exclude each other",
		                 q->off         ? "--no-history"
		                 : q->max_bytes ? "--max-bytes"
		                                : "--min-free");
	int rc = cli_config(c, &config, err);
	if (rc == 0)
		rc = archive_open(root, NULL, &a, err);
	if (rc == 0)
		rc = archive_list(a, &names, &n, err);
	for (size_t i = 0; i < n && rc == 0; i++) {
		t.db = names[i];
		if (!cleanup_history_is_db(q, names[i]) || !goes_there(&t, config))
			continue;
		met++;
		rc = run_one(&t, &p, err);
	}
	if (rc == 0 && met == 0)
		rc = err_set(err, ERR_NOT_FOUND, 0,
		             "of archive '%s' nothing%s%s is sent to '%.200s' (asof status shows "
		             "where its histories go)",
		             root, q->db ? " of " : "", q->db ? q->db : "", q->dest);
	return rc;
}
