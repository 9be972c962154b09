/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/verified.h"

#include "engine/archive/names.h"
#include "engine/store/store.h"
#include "tools/repairing.h"

#include <inttypes.h>
#include <string.h>

/* Ranges shown for people; JSON has all of them. */
#define RANGES_SHOWN 3

/* ---- JSON ---- */

static json_t *range_json(const struct verify_range *r)
{
	return json_pack("{so so so so}", "first_txid", cli_json_uint(r->first_txid), "last_txid",
	                 cli_json_uint(r->last_txid), "from", cli_json_time(r->first_us), "to",
	                 cli_json_time(r->last_us));
}

static json_t *txid_or_null(uint64_t txid)
{
	return txid ? cli_json_uint(txid) : json_null();
}

static json_t *damage_json(const struct verify_damage *d)
{
	json_t *ranges = json_array();

	for (size_t i = 0; i < d->n_affected; i++)
		json_array_append_new(ranges, range_json(&d->affected[i]));
	return json_pack("{so so so sb so so so so}", "object",
	                 d->object[0] ? json_text(d->object) : json_null(), "reason",
	                 json_text(d->reason), "affected", ranges, "at_most", (int)d->at_most,
	                 "good_before_txid", txid_or_null(d->good_before), "good_before",
	                 cli_json_time(d->good_before_us), "good_after_txid",
	                 txid_or_null(d->good_after), "good_after",
	                 cli_json_time(d->good_after_us));
}

json_t *verified_json(const struct verify_report *r)
{
	json_t *damages = json_array();

	for (size_t i = 0; i < r->n_damages; i++)
		json_array_append_new(damages, damage_json(&r->damages[i]));
	return json_pack("{ss sb so so so so so so so so so so}", "database", r->database, "valid",
	                 (int)verify_report_ok(r), "verified_txid", txid_or_null(r->verified_txid),
	                 "verified_time", cli_json_time(r->verified_us), "started",
	                 cli_json_time(r->started_us), "ended", cli_json_time(r->ended_us),
	                 "objects", cli_json_uint(r->n_objects), "moments",
	                 cli_json_uint(r->n_moments), "bytes_read", cli_json_uint(r->bytes_read),
	                 "integrity_check",
	                 r->integrity_done ? json_string(r->integrity) : json_null(),
	                 "foreign_key_violations", cli_json_uint(r->foreign_key_problems), "damage",
	                 damages);
}

/* ---- what is kept of it ---- */

int verified_kept(struct history *h, struct verified_note *ret, struct err *err)
{
	struct err local = ERR_INIT;
	int rc = history_get_verified(h, ret, &local);

	if (!rc)
		return 0;
	*ret = (struct verified_note){0};
	/* One that is damaged says nothing; the next verification writes another. */
	return local.kind == ERR_NOT_FOUND || local.kind == ERR_DAMAGED ? 0 : err_copy(err, &local);
}

static json_t *text_or_null(const char *text)
{
	return text[0] ? json_string(text) : json_null();
}

void verified_kept_json(json_t *database, const struct verified_note *n)
{
	json_object_set_new(database, "verified_through",
	                    n->through_txid ? cli_json_uint(n->through_txid) : json_null());
	json_object_set_new(database, "verified_through_time", cli_json_time(n->through_us));
	json_object_set_new(database, "verified_at", cli_json_time(n->at_us));
	json_object_set_new(database, "verified_full_at", cli_json_time(n->full_at_us));
	json_object_set_new(database, "integrity", text_or_null(n->integrity));
	json_object_set_new(database, "integrity_checked_at", cli_json_time(n->integrity_at_us));
	json_object_set_new(database, "foreign_key_violations", cli_json_uint(n->foreign_keys));
	json_object_set_new(database, "damaged", cli_json_uint(n->damaged));
	json_object_set_new(database, "damage", text_or_null(n->damage));
}

/* ---- text ---- */

static void print_range(const struct verify_range *r)
{
	char from[TIME_STR_MAX], to[TIME_STR_MAX];

	time_format(r->first_us, from);
	time_format(r->last_us, to);
	bool known = r->first_us && r->last_us; /* of what is missing the times are, too */
	if (r->first_txid == r->last_txid && known)
		printf("txid %" PRIu64 " (%s)", r->first_txid, from);
	else if (r->first_txid == r->last_txid)
		printf("txid %" PRIu64, r->first_txid);
	else if (!known)
		printf("txid %" PRIu64 " to %" PRIu64, r->first_txid, r->last_txid);
	else
		printf("txid %" PRIu64 " to %" PRIu64 " (%s to %s)", r->first_txid, r->last_txid,
		       from, to);
}

static void print_good(const char *what, uint64_t txid, int64_t time_us)
{
	char when[TIME_STR_MAX];

	if (!txid)
		return;
	time_format(time_us, when);
	printf("           %s: txid %" PRIu64 " (%s)\n", what, txid, when);
}

static void print_damage(const struct verify_damage *d)
{
	char reason[sizeof(d->reason)];

	snprintf(reason, sizeof(reason), "%s", d->reason);
	cli_one_line(reason);
	printf("         %s\n", reason);
	if (d->n_affected)
		printf("           cannot be restored%s: ", d->at_most ? ", at most" : "");
	for (size_t i = 0; i < d->n_affected && i < RANGES_SHOWN; i++) {
		if (i)
			printf(", ");
		print_range(&d->affected[i]);
	}
	if (d->n_affected > RANGES_SHOWN)
		printf(", and %zu more stretches", d->n_affected - RANGES_SHOWN);
	if (d->n_affected)
		putchar('\n');
	print_good("restores before it", d->good_before, d->good_before_us);
	print_good("restores after it", d->good_after, d->good_after_us);
}

void verified_print(const struct verify_report *r)
{
	char when[TIME_STR_MAX], size[SIZE_STR_MAX], integrity[sizeof(r->integrity)];

	cli_format_size(r->bytes_read, size);
	printf("%-7s  history of %s: ", verify_report_ok(r) ? "valid" : "DAMAGED", r->database);
	if (r->verified_txid) {
		time_format(r->verified_us, when);
		printf("verified through txid %" PRIu64 " (%s), ", r->verified_txid, when);
	} else {
		printf("no state of it is verified, ");
	}
	printf("%s read", size);
	if (r->integrity_done && strcmp(r->integrity, "ok") != 0) {
		snprintf(integrity, sizeof(integrity), "%s", r->integrity);
		cli_one_line(integrity);
		printf("; integrity_check: %s", integrity);
	}
	if (r->foreign_key_problems)
		printf("  (foreign_key_check: %" PRIu64 " rows)", r->foreign_key_problems);
	putchar('\n');
	for (size_t i = 0; i < r->n_damages; i++)
		print_damage(&r->damages[i]);
}

static int verify_once(struct verified_run *v, const char *root, const char *name,
                       struct verify_report *report, struct err *err)
{
	v->options.progress = progress_tell;
	v->options.ctx = &v->progress;
	progress_what(&v->progress, name);
	int rc = verify_history(root, name, &v->options, report, err);
	progress_clear(&v->progress);
	return rc;
}

/* Other places are asked where there is something to ask for: damage, or an archive that was named
 * together with them. */
static bool asks(const struct verified_run *v, const struct verify_report *report)
{
	const struct repairing *r = v->repairing;

	return r && (r->repair || report->n_damages || r->cli->n_also ||
	             (store_is_url(r->root) && r->n_others));
}

static int verified_history(struct verified_run *v, const char *root, const char *name,
                            struct err *err)
{
	CLEANUP(verify_report_release) struct verify_report report = {.n_damages = 0};
	bool put = false, left = false, lost = false;
	int rc = v->repairing && v->repairing->repair
	                 ? repairing_notes(v->repairing, name, &lost, err)
	                 : 0;

	struct err why = ERR_INIT;
	if (rc == 0)
		rc = verify_once(v, root, name, &report, &why);
	/* What is missing can be all that there was to see. */
	bool nothing = err_kind_of(rc) == ERR_NOT_FOUND && asks(v, &report);
	if (rc < 0 && why.kind && !nothing)
		rc = err_copy(err, &why);
	if (nothing || (rc == 0 && asks(v, &report))) {
		if (!v->json && !v->repairing->repair && !nothing)
			verified_print(&report);
		rc = v->repairing->repair ? 0 : repairing_notes(v->repairing, name, &lost, err);
		rc = rc ? rc : repairing_history(v->repairing, &report, nothing, &put, &left, err);
		if (rc == 0 && put) {
			verify_report_release(&report);
			rc = verify_once(v, root, name, &report, err);
		} else if (rc == 0 && nothing && !left) {
			rc = err_copy(err, &why);
		}
	}
	if (rc)
		return err_wrap(err, rc, "the history of '%.100s'", name);
	v->n++;
	v->n_bad += !verify_report_ok(&report) || left || lost;
	if (nothing && !put)
		return 0;
	if (v->json)
		json_array_append_new(v->histories, verified_json(&report));
	else if (!asks(v, &report) || v->repairing->repair)
		verified_print(&report);
	return 0;
}

/* ---- folders that lost what makes them databases ---- */

struct nameless {
	struct verified_run *run;
	const char *root;
	char **names; /* of the databases */
	size_t n;
};

static int take_folder(void *ctx, const struct store_entry *e, struct err *err)
{
	struct nameless *l = ctx;
	CLEANUP(verify_report_release) struct verify_report report = {.n_damages = 0};
	char name[DB_NAME_MAX + 1];
	const char *p = e->key + strlen("local/"), *slash = strchr(p, '/');
	struct err why = ERR_INIT;

	if (!slash || (size_t)(slash - p) >= sizeof(name))
		return 0;
	snprintf(name, sizeof(name), "%.*s", (int)(slash - p), p);
	if (db_name_check(name, NULL) < 0)
		return 0;
	for (size_t i = 0; i < l->n; i++)
		if (strcmp(l->names[i], name) == 0)
			return 0;
	int rc = verify_once(l->run, l->root, name, &report, &why);
	if (err_kind_of(rc) == ERR_NOT_FOUND) /* another program's */
		return 0;
	if (rc < 0)
		return err_wrap(err, err_copy(err, &why), "the history of '%.100s'", name);
	l->run->n++;
	l->run->n_bad += !verify_report_ok(&report);
	if (l->run->json)
		json_array_append_new(l->run->histories, verified_json(&report));
	else
		verified_print(&report);
	return 0;
}

int verified_archive(struct verified_run *v, const char *root, struct err *err)
{
	cleanup_archive struct archive *a = NULL;
	cleanup_free char **names = NULL;
	const struct archive_options o = {.store = v->options.store};
	size_t n = 0;
	int rc = v->repairing ? repairing_lost(v->repairing, err) : 0;

	rc = rc ? rc : archive_open(root, &o, &a, err);
	rc = rc ? rc : archive_list(a, &names, &n, err);
	for (size_t i = 0; i < n && !rc; i++)
		rc = verified_history(v, root, names[i], err);
	struct nameless l = {v, root, names, n};
	return rc ? rc : store_list(archive_store(a), "local/", NULL, false, take_folder, &l, err);
}
