/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/destinations.h"

#include "engine/base/clock.h"
#include "engine/base/json.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/*
 * What large stores ask, in dollars: an estimate, no offer.  ASOF_PRICES="PUT GET GB_MONTH GB_OUT",
 * the first two for 1,000 requests, says what another one asks.
 */
#define PRICE_PUT_1000 0.005 /* PUT and LIST */
#define PRICE_GET_1000 0.0004
#define PRICE_GB_MONTH 0.023
#define PRICE_GB_OUT 0.09
#define MONTH_DAYS 30.44
#define MIN_DAYS (1.0 / 24) /* fewer say nothing about a month */

struct prices {
	double put_1000, get_1000, gb_month, gb_out;
};

static struct prices get_prices(void)
{
	const char *text = getenv("ASOF_PRICES");
	struct prices p = {PRICE_PUT_1000, PRICE_GET_1000, PRICE_GB_MONTH, PRICE_GB_OUT};
	double own[4];

	for (size_t i = 0; text && i < 4; i++) {
		char *end;
		own[i] = strtod(text, &end);
		text = end != text ? end : NULL;
	}
	return text ? (struct prices){own[0], own[1], own[2], own[3]} : p;
}

void destination_price(const struct ship_status *s, int64_t now_us, struct destination_price *ret)
{
	const struct prices p = get_prices();
	double days = (double)(now_us - s->since_us) / (86400.0 * US_PER_SECOND);
	double months = (days > MIN_DAYS ? days : MIN_DAYS) / MONTH_DAYS;

	*ret = (struct destination_price){
	        .days = days,
	        .requests = ((double)(s->requests[STORE_PUT] + s->requests[STORE_LIST]) / 1000 *
	                             p.put_1000 +
	                     (double)(s->requests[STORE_GET] + s->requests[STORE_HEAD]) / 1000 *
	                             p.get_1000) /
	                    months,
	        .storage = (double)s->stored_bytes / 1e9 * p.gb_month,
	        .transfer = (double)s->received_bytes / 1e9 * p.gb_out / months,
	};
}

/* ---- which ---- */

/* How the configuration calls it; else its URL. */
static const char *label_of(struct cli *c, const char *db, const struct ship_status *s)
{
	/* Where it was not asked for it is not read: its errors are no business of ours. */
	const struct config_database *d =
	        c->config_loaded ? config_find_database(c->config, db) : NULL;
	for (size_t i = 0; d && i < d->n_destinations; i++)
		if (strncmp(d->destinations[i].url, s->url, sizeof(s->url) - 1) == 0)
			return d->destinations[i].name;
	return s->url;
}

int destinations_find(struct cli *c, const char *db, const char *dest, const char **ret,
                      bool *ret_is_archive, struct err *err)
{
	const struct config *config;
	int rc = cli_config(c, &config, err);

	*ret_is_archive = false;
	if (rc < 0)
		return rc;
	const struct config_database *d = config ? config_find_database(config, db) : NULL;
	for (size_t i = 0; d && i < d->n_destinations; i++) {
		const struct config_destination *to = &d->destinations[i];
		if (strcmp(to->name, dest) != 0)
			continue;
		if (to->not_configured)
			return err_set(err, ERR_USAGE, 0,
			               "destination '%.60s' gets nothing: %.200s", dest,
			               to->not_configured);
		*ret = to->url;
		*ret_is_archive = to->type == CONFIG_DEST_FILE;
		return 0;
	}
	if (strchr(dest, '/')) {
		*ret = dest;
		return 0;
	}
	return err_set(err, ERR_NOT_FOUND, 0, "'%.100s' has no destination '%.100s'", db, dest);
}

const struct config_destination *destinations_configured(const struct config *c,
                                                         const char *archive, const char *db,
                                                         const char *dest)
{
	const struct config_destination *found = NULL;

	for (size_t i = 0; i < c->n_databases; i++) {
		const struct config_database *d = &c->databases[i];
		const char *slash = d->path ? strrchr(d->path, '/') : NULL;
		const char *own = d->name ? d->name : slash ? slash + 1 : NULL;
		bool named = own && strcmp(own, db) == 0;
		if (!d->archive || strcmp(d->archive, archive) != 0)
			continue;
		for (size_t k = 0; k < d->n_destinations; k++) {
			const struct config_destination *t = &d->destinations[k];
			if (t->url && (strcmp(t->url, dest) == 0 || strcmp(t->name, dest) == 0) &&
			    (named || !found))
				found = t;
		}
		if (named && found)
			return found;
	}
	return found;
}

/* ---- one of them ---- */

static int add_json(void *ctx, const struct ship_status *s)
{
	json_array_append_new(
	        ctx,
	        json_pack("{so so so so so sb sb sb so so so so so so so so so so so}", "url",
	                  json_text(s->url), "replicated_txid", cli_json_uint(s->replicated_txid),
	                  "replicated", cli_json_time(s->replicated_us), "captured_txid",
	                  cli_json_uint(s->tip_txid), "at", cli_json_time(s->at_us), "fenced",
	                  (int)s->fenced, "deletes", (int)!s->no_delete, "conditional_writes",
	                  (int)!s->no_create, "failing_since", cli_json_time(s->trouble_us),
	                  "error", json_text(s->trouble), "puts",
	                  cli_json_uint(s->requests[STORE_PUT]), "gets",
	                  cli_json_uint(s->requests[STORE_GET]), "lists",
	                  cli_json_uint(s->requests[STORE_LIST]), "deletions",
	                  cli_json_uint(s->requests[STORE_DELETE]), "sent_bytes",
	                  cli_json_uint(s->sent_bytes), "stored_objects",
	                  cli_json_uint(s->stored_objects), "stored_bytes",
	                  cli_json_uint(s->stored_bytes), "damaged", cli_json_uint(s->damaged),
	                  "since", cli_json_time(s->since_us)));
	return 0;
}

struct each {
	struct cli *cli;
	const char *root, *db;
	int64_t now_us;
	json_t *list;
	struct table *table;
	size_t rows;
	struct err *err;
};

static void set_retained(const struct each *e, const struct ship_status *s, json_t *row)
{
	struct ship_retained r;
	uint64_t requests = 0;

	if (ship_retained_read(e->root, e->db, s->url, &r, NULL) < 0)
		return;
	for (int v = 0; v < STORE_N_VERBS; v++)
		requests += r.requests[v];
	json_object_set_new(
	        row, "retention",
	        json_pack("{so so so so so so so so sb so}", "at", cli_json_time(r.at_us),
	                  "fine_txid", cli_json_uint(r.fine_txid), "kept_points",
	                  cli_json_uint(r.kept_points), "deleted", cli_json_uint(r.deleted),
	                  "deleted_bytes", cli_json_uint(r.deleted_bytes), "expiring",
	                  cli_json_uint(r.expiring), "expiring_bytes",
	                  cli_json_uint(r.expiring_bytes), "requests", cli_json_uint(requests),
	                  "deletes", (int)!r.no_delete, "denied", cli_json_uint(r.denied)));
}

static int one_json(void *ctx, const struct ship_status *s)
{
	struct each *e = ctx;
	struct destination_price p;

	add_json(e->list, s);
	json_t *row = json_array_get(e->list, json_array_size(e->list) - 1);
	json_object_set_new(row, "destination", json_text(label_of(e->cli, e->db, s)));
	set_retained(e, s, row);
	destination_price(s, e->now_us, &p);
	json_object_set_new(row, "month_estimate",
	                    json_pack("{sf sf sf}", "requests", p.requests, "storage", p.storage,
	                              "transfer", p.transfer));
	return 0;
}

json_t *destinations_json(struct cli *c, const char *root, const char *db)
{
	struct each e = {
	        .cli = c, .root = root, .db = db, .now_us = clock_now_us(), .list = json_array()};

	ship_status_each(root, db, one_json, &e);
	return e.list;
}

static void print_retained(const struct each *e, const struct ship_status *s)
{
	char gone[SIZE_STR_MAX], waiting[SIZE_STR_MAX], stay[80] = "";
	struct ship_retained r;

	if (ship_retained_read(e->root, e->db, s->url, &r, NULL) < 0)
		return;
	cli_format_size(r.deleted_bytes, gone);
	cli_format_size(r.expiring_bytes, waiting);
	if (r.denied)
		snprintf(stay, sizeof(stay), "; %" PRIu64 " could not be deleted yet", r.denied);
	printf("    %-13s %" PRIu64 " objects deleted (%s), %" PRIu64
	       " wait for their grace time (%s)%s\n",
	       "thinned", r.deleted, gone, r.expiring, waiting,
	       r.no_delete ? "; deletion is denied: they stay" : stay);
}

static int one_text(void *ctx, const struct ship_status *s)
{
	struct each *e = ctx;
	char when[TIME_STR_MAX] = "-", age[AGE_STR_MAX] = "", text[sizeof(s->trouble)];

	if (s->replicated_us) {
		time_format(s->replicated_us, when);
		cli_format_age(s->replicated_us, e->now_us, age);
	}
	printf("  %-15s %.100s\n", "replicated to", label_of(e->cli, e->db, s));
	printf("    %-13s %s  txid %" PRIu64 "%s%s%s\n", "up to", when, s->replicated_txid,
	       age[0] ? "  (" : "", age, age[0] ? ")" : "");
	if (s->tip_txid > s->replicated_txid)
		printf("    %-13s %" PRIu64 " transactions behind\n", "lag",
		       s->tip_txid - s->replicated_txid);
	if (s->trouble_us) {
		snprintf(text, sizeof(text), "%s", s->trouble);
		cli_one_line(text);
		cli_format_age(s->trouble_us, e->now_us, age);
		printf("    %-13s since %s: %s\n", "failing", age, text);
	}
	if (s->no_create)
		printf("    %-13s none: let one machine alone write there (see asof check)\n",
		       "conditions");
	print_retained(e, s);
	if (s->no_delete)
		printf("    %-13s denied: covered objects stay (see asof check)\n", "deletion");
	return 0;
}

void destinations_print(struct cli *c, const char *root, const char *db, int64_t now_us)
{
	struct each e = {.cli = c, .root = root, .db = db, .now_us = now_us};

	ship_status_each(root, db, one_text, &e);
}

/* ---- all of them ---- */

static int one_row(void *ctx, const struct ship_status *s)
{
	struct each *e = ctx;
	struct destination_price p;

	destination_price(s, e->now_us, &p);
	e->rows++;
	int rc = table_cell(e->table, e->err, "%s", e->db);
	rc = rc ? rc : table_cell(e->table, e->err, "%.60s", label_of(e->cli, e->db, s));
	rc = rc ? rc : table_cell(e->table, e->err, "%" PRIu64, s->requests[STORE_PUT]);
	rc = rc ? rc
	        : table_cell(e->table, e->err, "%" PRIu64,
	                     s->requests[STORE_GET] + s->requests[STORE_HEAD]);
	rc = rc ? rc : table_cell(e->table, e->err, "%" PRIu64, s->requests[STORE_LIST]);
	rc = rc ? rc : table_cell(e->table, e->err, "%" PRIu64, s->requests[STORE_DELETE]);
	rc = rc ? rc : table_size(e->table, s->sent_bytes, e->err);
	rc = rc ? rc : table_size(e->table, s->stored_bytes, e->err);
	return rc ? rc : table_cell(e->table, e->err, "$%.2f", p.requests + p.storage + p.transfer);
}

static int one_thinned(void *ctx, const struct ship_status *s)
{
	struct each *e = ctx;
	struct ship_retained r;

	if (ship_retained_read(e->root, e->db, s->url, &r, NULL) < 0)
		return 0;
	e->rows++;
	int rc = table_cell(e->table, e->err, "%s", e->db);
	rc = rc ? rc : table_cell(e->table, e->err, "%.60s", label_of(e->cli, e->db, s));
	rc = rc ? rc : table_cell(e->table, e->err, "%" PRIu64, r.fine_txid);
	rc = rc ? rc : table_cell(e->table, e->err, "%" PRIu64, r.kept_points);
	rc = rc ? rc : table_cell(e->table, e->err, "%" PRIu64, r.deleted);
	rc = rc ? rc : table_size(e->table, r.deleted_bytes, e->err);
	rc = rc ? rc : table_cell(e->table, e->err, "%" PRIu64, r.expiring);
	rc = rc ? rc : table_size(e->table, r.expiring_bytes, e->err);
	return rc ? rc : table_cell(e->table, e->err, "%s", r.no_delete ? "denied" : "yes");
}

/* What retention let go there. */
static int thinned_table(struct each *e, char *const *names, size_t n)
{
	static const char *const header[] = {"THINNED",  "AT",       ">TO TXID",
	                                     ">MOMENTS", ">DELETED", ">BYTES",
	                                     ">WAITING", ">BYTES",   "DELETES"};
	cleanup_table struct table *t = NULL;
	int rc = table_new(header, sizeof(header) / sizeof(header[0]), &t, e->err);

	e->table = t;
	e->rows = 0;
	for (size_t i = 0; i < n && !rc; i++) {
		e->db = names[i];
		rc = ship_status_each(e->root, names[i], one_thinned, e);
	}
	if (!rc && e->rows) {
		putchar('\n');
		table_print(t, stdout);
	}
	return rc;
}

int destinations_table(struct cli *c, const char *root, char *const *names, size_t n,
                       int64_t now_us, struct err *err)
{
	static const char *const header[] = {"SENT",    "TO",     ">PUT",    ">GET",    ">LIST",
	                                     ">DELETE", ">BYTES", ">STORED", ">A MONTH"};
	cleanup_table struct table *t = NULL;
	struct each e = {.cli = c, .root = root, .now_us = now_us, .err = err};
	int rc = table_new(header, sizeof(header) / sizeof(header[0]), &t, err);

	e.table = t;
	for (size_t i = 0; i < n && !rc; i++) {
		e.db = names[i];
		rc = ship_status_each(root, names[i], one_row, &e);
	}
	if (!rc && e.rows) {
		putchar('\n');
		table_print(t, stdout);
		printf("A MONTH is an estimate at $%.3f a thousand PUTs, $%.3f a GB "
		       "(ASOF_PRICES says otherwise)\n",
		       get_prices().put_1000, get_prices().gb_month);
	}
	return rc ? rc : thinned_table(&e, names, n);
}
