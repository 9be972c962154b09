/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/backups.h"

#include "engine/backup/send.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

_Static_assert((int)BACKUP_MANUAL == (int)CONFIG_BACKUP_MANUAL &&
                       (int)BACKUP_AUTOMATED == (int)CONFIG_BACKUP_AUTOMATED &&
                       (int)BACKUP_SAFETY == (int)CONFIG_BACKUP_SAFETY &&
                       (int)BACKUP_COMPRESSED == (int)CONFIG_BACKUP_COMPRESSED &&
                       (int)BACKUP_N_TYPES == (int)CONFIG_N_BACKUP_TYPES,
               "types of backups are numbered alike");

int backups_root(struct cli *c, const char *given, const char **ret, struct err *err)
{
	const struct config *config;
	const char *environment = c->config_path ? NULL : getenv("ASOF_ARCHIVE");

	if (given || (environment && *environment))
		return cli_archive_root(c, given, NULL, ret, err);
	int rc = cli_config(c, &config, err);
	if (rc)
		return rc;
	if (!config || !config->backup_dir)
		return cli_archive_root(c, NULL, NULL, ret, err);
	*ret = config->backup_dir;
	return 0;
}

int backups_configured_options(struct cli *c, struct backup_options *options, struct err *err)
{
	const struct config *config;
	int rc = cli_config(c, &config, err);

	if (rc || !config)
		return rc;
	const struct config_backup_options *from = &config->backup_options;
	options->no_compress = !from->compress;
	options->level = (int)from->level;
	options->no_validate = !from->validate;
	options->gpg_recipient = from->gpg_recipient;
	return 0;
}

static int days_from_environment(const struct cli *c, const char *name, struct backup_keep *k,
                                 struct err *err)
{
	const char *text = getenv(name);
	uint64_t n;

	if (!text || !*text)
		return 0;
	int rc = cli_number(c, name, text, 1, 100000, &n, err);
	if (!rc)
		k->max_age_us = (int64_t)n * 86400 * US_PER_SECOND;
	return rc;
}

int backups_configured_retention(struct cli *c, struct backup_retention *ret, struct err *err)
{
	struct backup_keep *types = ret->types;
	const struct config *config;
	int rc = cli_config(c, &config, err);

	backup_retention_default(ret);
	if (rc)
		return rc;
	if (!config) {
		rc = days_from_environment(c, "LOCAL_RETENTION_DAYS", &types[BACKUP_MANUAL], err);
		types[BACKUP_AUTOMATED] = types[BACKUP_MANUAL];
		return rc ? rc
		          : days_from_environment(c, "COMPRESSED_RETENTION_DAYS",
		                                  &types[BACKUP_COMPRESSED], err);
	}
	for (int t = 0; t < BACKUP_N_TYPES; t++) {
		const struct config_backup_retention *from = &config->backup_retention[t];
		types[t] = (struct backup_keep){.max_age_us = from->max_age_us,
		                                .count = from->count,
		                                .daily = from->daily,
		                                .weekly = from->weekly,
		                                .monthly = from->monthly,
		                                .yearly = from->yearly};
	}
	return 0;
}

void backups_size_human(uint64_t bytes, char out[SIZE_STR_MAX])
{
	static const char *const units[] = {"B", "KB", "MB", "GB", "TB"};
	double v = (double)bytes;
	size_t unit = 0;

	while (v >= 1024 && unit + 1 < sizeof(units) / sizeof(units[0])) {
		v /= 1024;
		unit++;
	}
	snprintf(out, SIZE_STR_MAX, "%.1f %s", v, units[unit]);
}

json_t *backups_entry_json(const struct backup_entry *e, int64_t now_us)
{
	char created[BACKUP_TIME_MAX], human[SIZE_STR_MAX];

	if (!e)
		return json_null();
	backup_time_iso_local(e->time_us, created);
	backups_size_human(e->size_bytes, human);
	return json_pack("{so so so ss ss sf sb ss so so sb sb so so so}", "filename",
	                 json_text(e->name), "path", json_text(e->path), "size_bytes",
	                 cli_json_uint(e->size_bytes), "size_human", human, "created_at", created,
	                 "age_hours", (double)(now_us - e->time_us) / (3600.0 * US_PER_SECOND),
	                 "compressed", (int)e->compressed, "type", backup_type_names[e->type],
	                 "database", json_text(e->db), "label", json_text(e->label), "encrypted",
	                 (int)e->encrypted, "damaged", (int)e->raw, "txid",
	                 e->txid ? cli_json_uint(e->txid) : json_null(), "created_utc",
	                 cli_json_time(e->time_us), "source_size_bytes",
	                 e->source_size_bytes ? cli_json_uint(e->source_size_bytes) : json_null());
}

json_t *backups_list_json(const struct backup_list *list, int only, int64_t now_us)
{
	json_t *all = json_object();

	for (int type = 0; type < BACKUP_N_TYPES; type++) {
		if (only >= 0 && type != only)
			continue;
		json_t *rows = json_array();
		for (size_t i = 0; i < list->n; i++)
			if ((int)list->entries[i].type == type)
				json_array_append_new(
				        rows, backups_entry_json(&list->entries[i], now_us));
		json_object_set_new(all, backup_type_names[type], rows);
	}
	return all;
}

static int add_row(struct table *t, const struct backup_entry *e, int64_t now_us, struct err *err)
{
	char age[AGE_STR_MAX];
	int rc = table_cell(t, err, "%s", backup_type_names[e->type]);

	cli_format_age(e->time_us, now_us, age);
	rc = rc ? rc : table_cell(t, err, "%s", e->name);
	rc = rc ? rc : table_size(t, e->size_bytes + e->companion_bytes, err);
	rc = rc ? rc : table_time(t, e->time_us, err);
	rc = rc ? rc : table_cell(t, err, "%s", age);
	return rc ? rc
	          : table_cell(t, err, "%s%s",
	                       e->txid  ? "from the history"
	                       : e->raw ? "damaged, raw"
	                                : "",
	                       e->encrypted ? " encrypted" : "");
}

int backups_print(const struct backup_list *list, int only, int64_t now_us, struct err *err)
{
	static const char *const header[] = {"TYPE", "BACKUP", ">BYTES", "MADE", "AGE", "NOTE"};
	cleanup_table struct table *t = NULL;
	size_t n = 0;
	int rc = table_new(header, sizeof(header) / sizeof(header[0]), &t, err);

	for (size_t i = 0; i < list->n && !rc; i++) {
		if (only >= 0 && (int)list->entries[i].type != only)
			continue;
		rc = add_row(t, &list->entries[i], now_us, err);
		n++;
	}
	if (!rc && n)
		table_print(t, stdout);
	return rc;
}

static int add_sent(void *ctx, const struct backup_sent *s)
{
	json_array_append_new(
	        ctx, json_pack("{so so so so so so so so}", "url", json_text(s->url), "there",
	                       cli_json_uint(s->n_there), "waiting", cli_json_uint(s->n_waiting),
	                       "bytes", cli_json_uint(s->bytes_there), "newest",
	                       cli_json_time(s->newest_us), "at", cli_json_time(s->at_us),
	                       "failing_since", cli_json_time(s->trouble_us), "error",
	                       json_text(s->trouble)));
	return 0;
}

json_t *backups_sent_json(const char *root)
{
	json_t *list = json_array();

	backup_sent_each(root, add_sent, list);
	return list;
}

static int print_sent(void *ctx, const struct backup_sent *s)
{
	const int64_t *now_us = ctx;
	char age[AGE_STR_MAX], text[sizeof(s->trouble)];

	printf("backups sent to %.*s\n  %" PRIu64 " there", (int)strcspn(s->url, "?"), s->url,
	       s->n_there);
	if (s->newest_us) {
		cli_format_age(s->newest_us, *now_us, age);
		printf(", the newest of %s", age);
	}
	if (s->n_waiting)
		printf("; %" PRIu64 " waiting", s->n_waiting);
	putchar('\n');
	if (s->trouble_us) {
		snprintf(text, sizeof(text), "%s", s->trouble);
		cli_one_line(text);
		cli_format_age(s->trouble_us, *now_us, age);
		printf("  failing since %s: %s\n", age, text);
	}
	return 0;
}

void backups_sent_print(const char *root, int64_t now_us)
{
	backup_sent_each(root, print_sent, &now_us);
}
