/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/cleanup_history.h"

#include "engine/base/units.h"
#include "engine/config/retention.h"
#include "engine/retain/retain.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

bool cleanup_history_take(const struct cli *c, int id, struct history_cleanup *q)
{
	switch (id) {
	case CLEANUP_NO_HISTORY:
		q->off = true;
		return true;
	case CLEANUP_DB:
		q->db = c->arg;
		return true;
	case CLEANUP_TIERS:
		q->tiers = c->arg;
		return true;
	case CLEANUP_KEEP:
		q->keep = c->arg;
		return true;
	case CLEANUP_MAX_BYTES:
		q->max_bytes = c->arg;
		return true;
	case CLEANUP_MIN_FREE:
		q->min_free = c->arg;
		return true;
	case CLEANUP_DEST:
		q->dest = c->arg;
		return true;
	case CLEANUP_GRACE:
		q->grace = c->arg;
		return true;
	default:
		return false;
	}
}

static const char *last_part(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* Whether the archive is a destination of the database that thins by a retention of its own. */
static bool is_destination(const struct config_database *d, const char *root,
                           struct retain_policy *ret)
{
	for (size_t i = 0; i < d->n_destinations; i++) {
		const struct config_destination *to = &d->destinations[i];
		if (to->type != CONFIG_DEST_FILE || !to->retains || strcmp(to->url, root) != 0)
			continue;
		config_retain_policy(&to->retention, ret);
		return true;
	}
	return false;
}

/* The policy of the database that has this name in the archive; else the default. */
static int configured(struct cli *c, const char *root, const char *db, struct retain_policy *ret,
                      struct err *err)
{
	const struct config *config;

	retain_policy_default(ret);
	int rc = cli_config(c, &config, err);
	if (rc < 0 || !config)
		return rc;
	for (size_t i = 0; i < config->n_databases; i++) {
		const struct config_database *d = &config->databases[i];
		const char *name = d->name ? d->name : d->path ? last_part(d->path) : NULL;
		bool whole_folder = !name || config->n_databases == 1;
		if ((name && strcmp(name, db) == 0) || whole_folder) {
			if (!is_destination(d, root, ret))
				config_retain_policy(&d->retention, ret);
			if (!whole_folder)
				break;
		}
	}
	return 0;
}

int cleanup_history_words(const struct cli *c, const struct history_cleanup *q,
                          struct retain_policy *p, struct err *err)
{
	int64_t keep_us;
	int rc = 0;

	if (q->tiers && q->keep)
		return cli_usage(c, err, "--tiers and --keep exclude each other");
	if (q->tiers)
		rc = retain_tiers_parse(q->tiers, p, err);
	if (rc == 0 && q->keep && (rc = duration_parse(q->keep, &keep_us, err)) == 0) {
		p->tiers[0] = (struct retain_tier){keep_us, 0};
		p->n_tiers = 1;
	}
	if (rc == 0 && q->grace)
		rc = duration_parse(q->grace, &p->grace_us, err);
	if (rc == 0 && q->max_bytes)
		rc = cli_size(c, "--max-bytes", q->max_bytes, &p->max_bytes, err);
	if (rc == 0 && q->min_free) {
		rc = cli_size(c, "--min-free", q->min_free, &p->min_free_bytes, err);
		p->min_free_percent = 0;
	}
	if (rc == 0)
		rc = retain_policy_check(p, err);
	return rc < 0 && rc != -ERR_USAGE ? err_wrap(err, rc, "cleanup") : rc;
}

static json_t *result_json(const char *db, const struct retain_policy *p,
                           const struct retain_result *r, const char *text)
{
	char tiers[RETAIN_POLICY_STR_MAX];
	json_t *actions = json_array();

	for (const char *at = text; at && *at;) {
		size_t n = strcspn(at, "\n");
		json_array_append_new(actions, json_stringn(at, n));
		at += n + (at[n] == '\n');
	}
	retain_policy_format(p, tiers);
	return json_pack(
	        "{ss ss so so so so so so so so so so sb so ss? so}", "database", db, "tiers",
	        tiers, "kept_points", cli_json_uint(r->kept_points), "fine_txid",
	        cli_json_uint(r->fine_txid), "coalesced", cli_json_uint(r->coalesced), "bases",
	        cli_json_uint(r->bases), "made_bytes", cli_json_uint(r->made_bytes), "expiring",
	        cli_json_uint(r->expiring), "expiring_bytes", cli_json_uint(r->expiring_bytes),
	        "deleted", cli_json_uint(r->deleted), "deleted_bytes",
	        cli_json_uint(r->deleted_bytes), "bytes", cli_json_uint(r->bytes), "deletes",
	        (int)!r->no_delete, "denied", cli_json_uint(r->denied), "shortened_to",
	        r->short_of_space ? r->shortened : NULL, "actions", actions);
}

static void print_result(const char *db, const struct retain_policy *p,
                         const struct retain_result *r, bool dry_run)
{
	char tiers[RETAIN_POLICY_STR_MAX], size[SIZE_STR_MAX], waiting[SIZE_STR_MAX],
	        freed[SIZE_STR_MAX];

	retain_policy_format(p, tiers);
	cli_format_size(r->bytes, size);
	cli_format_size(r->expiring_bytes, waiting);
	cli_format_size(r->deleted_bytes, freed);
	printf("%s: %s %" PRIu64 " objects (%s), %" PRIu64
	       " wait for their grace time (%s); %s by %s\n",
	       db, dry_run ? "would delete" : "deleted", r->deleted, freed, r->expiring, waiting,
	       size, tiers);
	if (r->no_delete)
		printf("%s: deletion is denied there: what has expired stays\n", db);
	else if (r->denied)
		printf("%s: %" PRIu64
		       " objects could not be deleted there, and are tried again later; the first "
		       "is %s\n",
		       db, r->denied, r->denial);
	if (r->short_of_space)
		printf("%s: short of space: kept by %s\n", db, r->shortened);
}

int cleanup_history_pass(const struct history_pass *p, const char *db,
                         const struct retain_policy *policy, struct err *err)
{
	cleanup_free char *text = NULL;
	struct retain_result res = {0};
	size_t len = 0;

	FILE *log = open_memstream(&text, &len);
	if (!log)
		return err_set(err, ERR_NOMEM, 0, "out of memory");
	int rc = p->run(p->ctx, p, policy, log, &res, err);
	fclose(log);
	if (p->json)
		json_array_append_new(p->all, result_json(db, policy, &res, text));
	else if (text)
		fputs(text, stdout);
	if (!p->json && rc == 0)
		print_result(db, policy, &res, p->dry_run);
	return rc;
}

static int run_here(void *ctx, const struct history_pass *p, const struct retain_policy *policy,
                    FILE *log, struct retain_result *ret, struct err *err)
{
	return p->dry_run ? retainer_preview(ctx, policy, clock_now_us(), log, ret, err)
	                  : retainer_run(ctx, policy, clock_now_us(), p->stop, log, ret, err);
}

int cleanup_history_here(const struct history_pass *p, const char *root, const char *db,
                         const struct retain_policy *policy, struct err *err)
{
	cleanup_retainer struct retainer *r = NULL;
	struct history_pass here = *p;

	int rc = retainer_new(root, db, &r, err);
	here.run = run_here;
	here.ctx = r;
	return rc < 0 ? rc : cleanup_history_pass(&here, db, policy, err);
}

bool cleanup_history_is_db(const struct history_cleanup *q, const char *name)
{
	return !q->db || strcmp(name, last_part(q->db)) == 0;
}

int cleanup_history_run(struct cli *c, const char *root, const struct history_cleanup *q,
                        bool dry_run, bool json, const _Atomic bool *stop, json_t **ret_json,
                        struct err *err)
{
	cleanup_archive struct archive *a = NULL;
	cleanup_free char **names = NULL;
	struct history_pass p = {
	        .dry_run = dry_run, .json = json, .stop = stop, .all = json_array()};
	size_t n = 0, met = 0;

	*ret_json = json_pack("{so}", "databases", p.all);
	if (q->off)
		return 0;
	struct retain_policy policy; /* the words are wrong or right whatever there is */
	retain_policy_default(&policy);
	int rc = cleanup_history_words(c, q, &policy, err);
	if (rc == 0)
		rc = archive_open(root, NULL, &a, err);
	if (rc == 0)
		rc = archive_list(a, &names, &n, err);
	for (size_t i = 0; i < n && rc == 0; i++) {
		if (!cleanup_history_is_db(q, names[i]))
			continue;
		met++;
		rc = configured(c, root, names[i], &policy, err);
		if (rc == 0)
			rc = cleanup_history_words(c, q, &policy, err);
		if (rc == 0)
			rc = cleanup_history_here(&p, root, names[i], &policy, err);
	}
	if (rc == 0 && q->db && met == 0)
		rc = err_set(err, ERR_NOT_FOUND, 0, "archive '%s' has no history of '%s'", root,
		             q->db);
	return rc;
}
