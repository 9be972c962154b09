/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/repairing.h"

#include "engine/archive/names.h"
#include "engine/base/log.h"
#include "engine/view/history.h"

#include <inttypes.h>
#include <string.h>

int repairing_open(struct repairing *r, struct cli *c, const char *root, bool repair, bool json,
                   struct err *err)
{
	struct cli_place places[CLI_ALSO_MAX];
	const struct config *config;
	struct err why = ERR_INIT;
	size_t n;
	int rc;

	*r = (struct repairing){.cli = c, .root = root, .repair = repair, .json = json};
	r->steps = json_array();
	/* An archive that was named is repaired though the configuration is broken. */
	if (repair && cli_config(c, &config, &why) < 0)
		log_warn("repair", "no other places are known of '%s': %s", root, why.msg);
	cli_other_places(c, root, places, &n);
	cli_store_options(c, root, &r->store_options);
	if ((rc = cli_open_places(root, places, &n, r->stores, err)))
		return rc;
	for (r->n_others = 0; r->n_others < n; r->n_others++)
		r->others[r->n_others] =
		        (struct repair_place){r->stores[r->n_others], places[r->n_others].url};
	return store_open(root, &r->store_options, &r->target, err);
}

void repairing_close(struct repairing *r)
{
	for (size_t i = 0; i < r->n_others; i++)
		store_free(r->stores[i]);
	store_free(r->target);
	json_decref(r->steps);
	*r = (struct repairing){.cli = NULL};
}

/* ---- telling ---- */

static const char *outcome_name(enum repair_outcome o)
{
	static const char *const names[] = {"repaired", "can_be_repaired", "whole",
	                                    "covered",  "by_hand",         "cannot_be_repaired"};

	return names[o];
}

static void tell_json(struct repairing *r, const struct repair_step *s)
{
	json_array_append_new(r->steps,
	                      json_pack("{so sb ss so so}", "object", json_text(s->key), "missing",
	                                (int)s->missing, "outcome", outcome_name(s->outcome),
	                                "from", s->from ? json_text(s->from) : json_null(),
	                                "reason", s->why[0] ? json_text(s->why) : json_null()));
}

/* Of a mark the command that makes it again; of backups, which can be many, one line at the end. */
static void told_by_hand(struct repairing *r, const struct repair_step *s)
{
	char db[STORE_KEY_MAX], mark[STORE_KEY_MAX], word[3][4 * 1024 + 3];
	const char *name = s->key + strlen("local/"), *slash = strrchr(s->key, '/');

	if (!s->txid) {
		r->n_gone++;
		snprintf(r->gone_from, sizeof(r->gone_from), "%s", s->from);
		return;
	}
	snprintf(db, sizeof(db), "%.*s", (int)(slash - name), name);
	snprintf(mark, sizeof(mark), "%.*s", (int)(strlen(slash + 1) - strlen(".mark")), slash + 1);
	cli_quote(mark, word[0], sizeof(word[0]));
	cli_quote(db, word[1], sizeof(word[1]));
	cli_quote(r->root, word[2], sizeof(word[2]));
	printf("         '%s' is at %s alone; if nobody took it away here: asof mark %s --db %s "
	       "--tx "
	       "%" PRIu64 " --archive %s\n",
	       s->key, s->from, word[0], word[1], s->txid, word[2]);
}

static void told(void *ctx, const struct repair_step *s)
{
	struct repairing *r = ctx;
	char why[480];

	if (s->outcome == REPAIR_FAILED && !r->repair && !r->n_others)
		return; /* the report has it */
	r->tells = r->tells || s->outcome == REPAIR_POSSIBLE;
	if (r->json) {
		tell_json(r, s);
		return;
	}
	snprintf(why, sizeof(why), "%s", s->why);
	cli_one_line(why);
	switch (s->outcome) {
	case REPAIR_DONE:
		printf("repaired  %s  from %s\n", s->key, s->from);
		break;
	case REPAIR_POSSIBLE:
		printf("         '%s' is %s, and can be repaired from %s\n", s->key,
		       s->missing ? "missing" : "damaged", s->from);
		break;
	case REPAIR_COVERED:
		printf("covered   %s  (damaged; sealed segments hold what it held)\n", s->key);
		break;
	case REPAIR_WHOLE:
		break;
	case REPAIR_BY_HAND:
		told_by_hand(r, s);
		break;
	case REPAIR_FAILED:
		printf("%s  %s  cannot be repaired: %s\n", s->missing ? "MISSING" : "DAMAGED",
		       s->key, why);
		break;
	}
}

void repairing_conclude(struct repairing *r)
{
	char word[4 * 1024 + 3], from[4 * 1024 + 3];

	if (r->n_gone && !r->json) {
		cli_quote(r->root, word, sizeof(word));
		cli_quote(r->gone_from, from, sizeof(from));
		printf("%" PRIu64
		       " backup%s not here, but at %s; if no rule let %s go: asof copy %s "
		       "%s\n",
		       r->n_gone, r->n_gone == 1 ? " is" : "s are", r->gone_from,
		       r->n_gone == 1 ? "it" : "them", from, word);
	}
	if (r->repair || !r->tells || r->json)
		return;
	cli_quote(r->root, word, sizeof(word));
	printf("To repair it: asof validate --repair --archive %s", word);
	for (size_t i = 0; i < r->cli->n_also; i++) {
		cli_quote(r->cli->also[i], word, sizeof(word));
		printf(" --also %s", word);
	}
	putchar('\n');
	r->tells = false;
}

/* ---- what is done ---- */

static void options_of(struct repairing *r, struct repair_options *ret)
{
	*ret = (struct repair_options){.target = {r->target, r->root},
	                               .others = r->others,
	                               .n_others = r->n_others,
	                               .dry_run = !r->repair,
	                               .told = told,
	                               .ctx = r};
}

static void add_up(struct repairing *r, const struct repair_result *more)
{
	for (int i = 0; i <= REPAIR_FAILED; i++)
		r->result.n[i] += more->n[i];
	r->result.bytes += more->bytes;
}

int repairing_notes(struct repairing *r, const char *name, bool *ret_left, struct err *err)
{
	struct repair_options o;
	struct repair_result result = {.bytes = 0};

	options_of(r, &o);
	int rc = repair_notes(&o, name, &result, err);
	*ret_left = result.n[REPAIR_POSSIBLE] || result.n[REPAIR_FAILED];
	add_up(r, &result);
	return rc;
}

/* Its own damage is in the report; what is not looked at is what the report found whole. */
int repairing_history(struct repairing *r, const struct verify_report *report, bool all,
                      bool *ret_put, bool *ret_left, struct err *err)
{
	cleanup_free const char **suspects = calloc(report->n_damages + 1, sizeof(*suspects));
	struct repair_options o;
	struct repair_result result = {.bytes = 0};

	*ret_put = *ret_left = false;
	if (!suspects)
		return err_set(err, ERR_NOMEM, 0, "no memory to repair");
	options_of(r, &o);
	o.suspects = suspects;
	for (size_t i = 0; i < report->n_damages; i++)
		if (report->damages[i].object[0])
			suspects[o.n_suspects++] = report->damages[i].object;
	if (all ||
	    o.n_suspects < report->n_damages) { /* no object is to blame: all are looked at */
		o.suspects = NULL;
		o.n_suspects = 0;
	}
	int rc = repair_objects(&o, report->database, &result, err);
	*ret_put = result.n[REPAIR_DONE] || result.n[REPAIR_COVERED];
	*ret_left = result.n[REPAIR_POSSIBLE] || result.n[REPAIR_FAILED];
	add_up(r, &result);
	return rc;
}

int repairing_backups(struct repairing *r, const char *const *suspects, size_t n, struct err *err)
{
	static const char *const none[] = {""};
	struct repair_options o;
	struct repair_result result = {.bytes = 0};

	options_of(r, &o);
	if (!r->repair) {
		o.suspects = n ? suspects : none;
		o.n_suspects = n;
	}
	int rc = repair_backups(&o, &result, err);
	add_up(r, &result);
	return rc;
}

/* ---- databases that are none without their note ---- */

struct looking {
	struct repairing *r;
	char (*names)[DB_NAME_MAX + 1];
	size_t n;
};

static bool is_elsewhere(const struct repairing *r, const char *key)
{
	for (size_t i = 0; i < r->n_others; i++) {
		cleanup_buf struct buf b = BUF_INIT(1u << 16);
		if (store_get(r->others[i].store, key, b.max_bytes, &b, NULL) == 0)
			return true;
	}
	return false;
}

static int take_folder(void *ctx, const struct store_entry *e, struct err *err)
{
	struct looking *l = ctx;
	char name[DB_NAME_MAX + 1], key[STORE_KEY_MAX];
	const char *p = e->key + strlen("local/"), *slash = strchr(p, '/');
	cleanup_buf struct buf b = BUF_INIT(1u << 16);
	struct err why = ERR_INIT;

	if (!slash || (size_t)(slash - p) >= sizeof(name))
		return 0;
	snprintf(name, sizeof(name), "%.*s", (int)(slash - p), p);
	if (db_name_check(name, NULL) < 0)
		return 0;
	snprintf(key, sizeof(key), "local/%s/source", name);
	if (store_get(l->r->target, key, b.max_bytes, &b, &why) == 0 || why.kind != ERR_NOT_FOUND ||
	    !is_elsewhere(l->r, key))
		return 0;
	void *more = realloc(l->names, (l->n + 1) * sizeof(*l->names));
	if (!more)
		return err_set(err, ERR_NOMEM, 0, "no memory to list an archive");
	l->names = more;
	memcpy(l->names[l->n++], name, sizeof(name));
	return 0;
}

int repairing_lost(struct repairing *r, struct err *err)
{
	struct looking l = {.r = r};
	bool left; /* it is told again with the history, if there is one now */
	int rc = r->n_others ? store_list(r->target, "local/", NULL, false, take_folder, &l, err)
	                     : 0;

	for (size_t i = 0; i < l.n && rc == 0; i++)
		rc = repairing_notes(r, l.names[i], &left, err);
	free(l.names);
	return rc;
}
