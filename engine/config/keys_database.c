/* SPDX-License-Identifier: Apache-2.0 */
/* What is said of databases, of their destinations, and of how long history is kept. */
#include "engine/config/keys_i.h"

#include <string.h>

/* ---- retention ---- */

struct raw_retention {
	int64_t all, hourly, daily, weekly, monthly, yearly;
	struct config_retention *r;
	bool enabled;
};

#define AGE_READER(member)                                                                         \
	static void read_##member(struct loader *l, const struct yaml_node *value, void *section)  \
	{                                                                                          \
		read_age(l, value, #member, &((struct raw_retention *)section)->member);           \
	}
AGE_READER(all)
AGE_READER(hourly)
AGE_READER(daily)
AGE_READER(weekly)
AGE_READER(monthly)
AGE_READER(yearly)

static void read_min_free(struct loader *l, const struct yaml_node *value, void *section)
{
	struct config_retention *r = ((struct raw_retention *)section)->r;
	const char *text;
	char digits[8];
	uint64_t n;

	if (refuse_kind(l, value, "min-free", YAML_TEXT) || !is_given(l, value, "min-free", &text))
		return;
	size_t len = strlen(text);
	if (text[len - 1] != '%') {
		if (value_size(l, value->line, "min-free", text, &n)) {
			r->min_free_bytes = n;
			r->min_free_percent = 0;
		}
		return;
	}
	snprintf(digits, sizeof(digits), "%.*s", (int)(len < 8 ? len - 1 : 7), text);
	if (value_uint(l, value->line, "min-free", digits, 0, 99, &n)) {
		r->min_free_bytes = 0;
		r->min_free_percent = (unsigned)n;
	}
}

static void read_max_bytes(struct loader *l, const struct yaml_node *value, void *section)
{
	const char *text;

	if (!refuse_kind(l, value, "max-bytes", YAML_TEXT) &&
	    is_given(l, value, "max-bytes", &text))
		value_size(l, value->line, "max-bytes", text,
		           &((struct raw_retention *)section)->r->max_bytes);
}

static void add_tier(struct loader *l, unsigned line, struct config_retention *r, int64_t age_us,
                     int64_t every_us, const char *what)
{
	if (!age_us)
		return;
	if (r->n_tiers == CONFIG_MAX_TIERS) {
		load_error(l, line, "retention: more than %d tiers", CONFIG_MAX_TIERS);
		return;
	}
	const struct config_tier *before = r->n_tiers ? &r->tiers[r->n_tiers - 1] : NULL;
	if (before && (age_us <= before->age_us || every_us <= before->every_us)) {
		load_error(l, line, "%s: must reach further back than the finer tier before it",
		           what);
		return;
	}
	r->tiers[r->n_tiers++] = (struct config_tier){age_us, every_us};
}

struct raw_tier {
	int64_t every, age;
};

static void read_tier_age(struct loader *l, const struct yaml_node *value, void *section)
{
	read_age(l, value, "for", &((struct raw_tier *)section)->age);
}

static void read_tiers(struct loader *l, const struct yaml_node *value, void *section)
{
	static const struct key keys[] = {
	        {"every", KEY_DURATION, .offset = AT(raw_tier, every), .min = 0,
	         .max = 3660 * DAY_US},
	        {"for", KEY_NODE, .read = read_tier_age},
	        END,
	};
	struct config_retention *r = ((struct raw_retention *)section)->r;

	if (refuse_kind(l, value, "tiers", YAML_LIST))
		return;
	for (size_t i = 0; i < value->n && l->visits < MAX_VISITS; i++) {
		struct raw_tier tier = {0};
		read_section(l, value->values[i], "tiers", keys, &tier);
		add_tier(l, value->values[i]->line, r, tier.age, tier.every, "tiers");
	}
}

/* "72h", "forever", or tiers. */
void read_retention(struct loader *l, const struct yaml_node *node, struct config_retention *r)
{
	static const struct key keys[] = {
	        {"all", KEY_NODE, .read = read_all},
	        {"hourly", KEY_NODE, .read = read_hourly},
	        {"daily", KEY_NODE, .read = read_daily},
	        {"weekly", KEY_NODE, .read = read_weekly},
	        {"monthly", KEY_NODE, .read = read_monthly},
	        {"yearly", KEY_NODE, .read = read_yearly},
	        {"tiers", KEY_NODE, .read = read_tiers},
	        {"max-bytes", KEY_NODE, .read = read_max_bytes},
	        {"min-free", KEY_NODE, .read = read_min_free},
	        {"enabled", KEY_BOOL, .offset = AT(raw_retention, enabled)}, /* Litestream 0.5 */
	        END,
	};
	struct config_retention read = *r;
	struct raw_retention raw = {.r = &read, .enabled = true};

	if (node->kind == YAML_TEXT) {
		read_age(l, node, "retention", &raw.all);
	} else {
		read.n_tiers = 0;
		read_section(l, node, "retention", keys, &raw);
	}
	if (!raw.enabled)
		raw.all = INT64_MAX;
	bool by_name =
	        raw.all || raw.hourly || raw.daily || raw.weekly || raw.monthly || raw.yearly;
	if (by_name) {
		if (read.n_tiers && node->kind == YAML_MAP)
			load_error(l, node->line,
			           "retention: give tiers, or all, hourly, …; not both");
		read.n_tiers = 0;
		add_tier(l, node->line, &read, raw.all, 0, "all");
		add_tier(l, node->line, &read, raw.hourly, 3600 * US_PER_SECOND, "hourly");
		add_tier(l, node->line, &read, raw.daily, DAY_US, "daily");
		add_tier(l, node->line, &read, raw.weekly, 7 * DAY_US, "weekly");
		add_tier(l, node->line, &read, raw.monthly, 30 * DAY_US, "monthly");
		add_tier(l, node->line, &read, raw.yearly, 365 * DAY_US, "yearly");
	}
	if (!read.n_tiers) { /* bounds alone */
		memcpy(read.tiers, r->tiers, sizeof(read.tiers));
		read.n_tiers = r->n_tiers;
	}
	*r = read;
	r->given = r->given || by_name || node->kind == YAML_MAP;
}

/* ---- destinations ---- */

static void read_replica_retention(struct loader *l, const struct yaml_node *value, void *section)
{
	struct config_retention *r = &((struct raw_replica *)section)->retention;

	if (!r->given) {
		*r = l->retention;
		r->given = false;
	}
	read_retention(l, value, r);
}

static void read_replica_backup_retention(struct loader *l, const struct yaml_node *value,
                                          void *section)
{
	struct raw_replica *r = section;

	/* Types that are not named are kept as here: see resolve.c. */
	for (int type = 0; type < CONFIG_N_BACKUP_TYPES && !r->has_backup_retention; type++)
		r->backup_retention[type].max_age_us = -1;
	r->has_backup_retention = true;
	read_backup_retention(l, value, r->backup_retention);
}

/* true, false, or how they are kept there. */
static void read_replica_backups(struct loader *l, const struct yaml_node *value, void *section)
{
	static const struct key whole = {"backups", KEY_BOOL, .offset = 0};
	static const struct key keys[] = {
	        {"retention", KEY_NODE, .read = read_replica_backup_retention},
	        END,
	};
	bool backups = true;

	if (value->kind == YAML_MAP)
		read_section(l, value, "backups", keys, section);
	else
		read_value(l, &whole, value, &backups);
	((struct raw_replica *)section)->no_backups = !backups;
}

#define SYNC_LIMITS .min = 1000, .max = DAY_US
#define SNAPSHOT_LIMITS .min = 0, .max = 3660 * DAY_US

const struct key replica_keys[] = {
        {"type", KEY_TEXT, .offset = AT(raw_replica, type)},
        {"name", KEY_TEXT, .offset = AT(raw_replica, name)},
        {"path", KEY_TEXT, .offset = AT(raw_replica, path)},
        {"url", KEY_TEXT, .offset = AT(raw_replica, url)},
        {"sync-interval", KEY_DURATION, .offset = AT(raw_replica, sync_interval_us), SYNC_LIMITS},
        {"snapshot-interval", KEY_DURATION, .offset = AT(raw_replica, snapshot_interval_us),
         SNAPSHOT_LIMITS},
        {"validation-interval", KEY_SCHEDULE, .offset = AT(raw_replica, verify)},
        {"verify", KEY_SCHEDULE, .offset = AT(raw_replica, verify)},
        {"retention", KEY_NODE, .read = read_replica_retention},
        {"backups", KEY_NODE, .read = read_replica_backups},
        {"bucket", KEY_TEXT, .offset = AT(raw_replica, bucket)},
        {"region", KEY_TEXT, .offset = AT(raw_replica, region)},
        {"endpoint", KEY_TEXT, .offset = AT(raw_replica, endpoint)},
        {"storage-class", KEY_TEXT, .offset = AT(raw_replica, storage_class)},
        {"access-key-id", KEY_TEXT, .offset = AT(raw_replica, access_key_id)},
        {"secret-access-key", KEY_TEXT, .offset = AT(raw_replica, secret_access_key)},
        {"session-token", KEY_TEXT, .offset = AT(raw_replica, session_token)},
        {"profile", KEY_TEXT, .offset = AT(raw_replica, profile)},
        {"ca-file", KEY_TEXT, .offset = AT(raw_replica, ca_file)},
        {"proxy", KEY_TEXT, .offset = AT(raw_replica, proxy)},
        {"sse", KEY_TEXT, .offset = AT(raw_replica, sse)},
        {"sse-kms-key-id", KEY_TEXT, .offset = AT(raw_replica, sse_kms_key_id)},
        {"sse-customer-algorithm", KEY_TEXT, .offset = AT(raw_replica, sse_customer_algorithm)},
        {"sse-customer-key", KEY_TEXT, .offset = AT(raw_replica, sse_customer_key)},
        {"sse-customer-key-path", KEY_TEXT, .offset = AT(raw_replica, sse_customer_key_path)},
        {"force-path-style", KEY_BOOL, .offset = AT(raw_replica, force_path_style)},
        {"skip-verify", KEY_BOOL, .offset = AT(raw_replica, skip_verify)},
        {"key-file", KEY_TEXT, .offset = AT(raw_replica, key_file)},
        {"key-command", KEY_TEXT, .offset = AT(raw_replica, key_command)},
        {"host", KEY_TEXT, .offset = AT(raw_replica, host)},
        {"user", KEY_TEXT, .offset = AT(raw_replica, user)},
        {"password", KEY_TEXT, .offset = AT(raw_replica, password)},
        {"key-path", KEY_TEXT, .offset = AT(raw_replica, key_path)},
        {"host-key", KEY_TEXT, .offset = AT(raw_replica, host_key)},
        {"age", KEY_REFUSED, .why = WHY_UNENCRYPTED},
        {"retention-check-interval", KEY_UNUSED, .why = WHY_OWN_LEVELS},
        {"max-sync-ltx-files", KEY_UNUSED, .why = WHY_OWN_TRANSFER},
        {"auto-recover", KEY_UNUSED, .why = WHY_OWN_TRANSFER},
        {"sign-payload", KEY_UNUSED, .why = WHY_OWN_TRANSFER},
        {"require-content-md5", KEY_UNUSED, .why = WHY_OWN_TRANSFER},
        {"part-size", KEY_UNUSED, .why = WHY_OWN_TRANSFER},
        {"concurrency", KEY_UNUSED, .why = WHY_OWN_TRANSFER},
        {"concurrent-writes", KEY_UNUSED, .why = WHY_OWN_TRANSFER},
        END,
};

/* Keys of destinations that asof does not have: the type is what is wrong, once. */
static const char *const foreign_keys[] = {
        "account-name",
        "account-key",
        "sas-token",
        "webdav-url",
        "webdav-username",
        "webdav-password",
        "jwt",
        "seed",
        "creds",
        "nkey",
        "username",
        "token",
        "tls",
        "root-cas",
        "client-cert",
        "client-key",
        "max-reconnects",
        "reconnect-wait",
        "timeout",
};

/* A copy of the mapping without the keys that only other types have. */
static const struct yaml_node *without_foreign_keys(struct loader *l, const struct yaml_node *node)
{
	struct yaml_node *copy;

	if (node->kind != YAML_MAP)
		return node;
	copy = memory_alloc(l->memory, sizeof(*copy));
	if (!copy)
		return node;
	*copy = *node;
	copy->n = 0;
	copy->keys = memory_alloc(l->memory, node->n * sizeof(copy->keys[0]));
	copy->values = memory_alloc(l->memory, node->n * sizeof(copy->values[0]));
	if (!copy->keys || !copy->values)
		return node;
	for (size_t i = 0; i < node->n; i++) {
		bool foreign = false;
		for (size_t k = 0; k < sizeof(foreign_keys) / sizeof(foreign_keys[0]); k++)
			foreign = foreign || strcmp(node->keys[i]->text, foreign_keys[k]) == 0;
		if (foreign)
			continue;
		copy->keys[copy->n] = node->keys[i];
		copy->values[copy->n++] = node->values[i];
	}
	return copy;
}

static void add_replica(struct loader *l, const struct yaml_node *node, bool is_destination,
                        struct raw_database *d)
{
	struct raw_replica *r, **last = &d->replicas;

	/* "- s3://bucket/x" says as much as "- url: s3://bucket/x". */
	const char *text = NULL;
	if (node->kind == YAML_TEXT && !is_given(l, node, "replicas", &text))
		return;
	if (!(r = memory_alloc(l->memory, sizeof(*r)))) {
		load_nomem(l);
		return;
	}
	*r = l->replica_defaults;
	r->line = node->line;
	r->is_destination = is_destination;
	if (text)
		r->url = text;
	else
		read_section(l, without_foreign_keys(l, node), "replicas", replica_keys, r);
	while (*last)
		last = &(*last)->next;
	*last = r;
}

static void read_list(struct loader *l, const struct yaml_node *value, bool is_destination,
                      struct raw_database *d)
{
	if (value->kind != YAML_LIST) {
		add_replica(l, value, is_destination, d);
		return;
	}
	if (value->n > 32) {
		load_error(l, value->line, "replicas: more than 32");
		return;
	}
	for (size_t i = 0; i < value->n; i++)
		add_replica(l, value->values[i], is_destination, d);
}

static void read_replicas(struct loader *l, const struct yaml_node *value, void *section)
{
	read_list(l, value, false, section);
}

static void read_destinations(struct loader *l, const struct yaml_node *value, void *section)
{
	read_list(l, value, true, section);
}

/* ---- databases ---- */

struct raw_snapshot {
	int64_t interval_us;
	struct config_retention *retention;
};

static void read_snapshot_retention(struct loader *l, const struct yaml_node *value, void *section)
{
	read_retention(l, value, ((struct raw_snapshot *)section)->retention);
}

static const struct key snapshot_keys[] = {
        {"interval", KEY_DURATION, .offset = AT(raw_snapshot, interval_us), SNAPSHOT_LIMITS},
        {"retention", KEY_NODE, .read = read_snapshot_retention},
        END,
};

/* What is said of snapshots; `retention:` itself is more, whatever their order. */
void read_snapshot(struct loader *l, const struct yaml_node *value, int64_t *interval_us,
                   struct config_retention *retention)
{
	struct config_retention read = *retention;
	struct raw_snapshot raw = {*interval_us, &read};

	read_section(l, value, "snapshot", snapshot_keys, &raw);
	*interval_us = raw.interval_us;
	if (!retention->given)
		*retention = read;
}

static void read_db_snapshot(struct loader *l, const struct yaml_node *value, void *section)
{
	struct config_database *d = &((struct raw_database *)section)->d;

	read_snapshot(l, value, &d->snapshot_interval_us, &d->retention);
}

static void read_db_retention(struct loader *l, const struct yaml_node *value, void *section)
{
	struct config_retention fresh = l->retention;

	fresh.given = false;
	read_retention(l, value, &fresh);
	((struct raw_database *)section)->d.retention = fresh;
}

static const struct key verify_keys[] = {
        {"local", KEY_SCHEDULE, .offset = AT(raw_verify, local)},
        {"interval", KEY_SCHEDULE, .offset = AT(raw_verify, local)}, /* Litestream's validation: */
        {"remote", KEY_SCHEDULE, .offset = AT(raw_verify, remote)},
        {"full", KEY_SCHEDULE, .offset = AT(raw_verify, full)},
        END,
};

/* "1h", or a mapping. */
void read_verify(struct loader *l, const struct yaml_node *value, struct raw_verify *raw)
{
	static const struct key whole = {"verify", KEY_SCHEDULE, .offset = 0};

	if (value->kind == YAML_TEXT)
		read_value(l, &whole, value, &raw->local);
	else
		read_section(l, value, "verify", verify_keys, raw);
}

static void read_db_verify(struct loader *l, const struct yaml_node *value, void *section)
{
	struct raw_database *d = section;
	struct raw_verify raw = {d->d.verify, d->verify_remote, d->d.verify_full};

	read_verify(l, value, &raw);
	d->d.verify = raw.local;
	d->verify_remote = raw.remote;
	d->d.verify_full = raw.full;
}

static void read_db_path(struct loader *l, const struct yaml_node *value, void *section)
{
	struct raw_database *d = section;
	static const char *const schemes[] = {"sqlite3://", "sqlite://", "file://"};
	const char *text;

	d->bad_path = refuse_kind(l, value, "path", YAML_TEXT);
	if (d->bad_path || !is_given(l, value, "path", &text))
		return;
	for (size_t i = 0; i < 3; i++)
		if (strncmp(text, schemes[i], strlen(schemes[i])) == 0)
			text += strlen(schemes[i]);
	if (!*text || text[strlen(text) - 1] == '/' || strcmp(text, ".") == 0) {
		load_error(l, value->line, "path: '%.100s' is no file (dir: is for folders)", text);
		d->bad_path = true;
		return;
	}
	d->d.path = load_path(l, l->folder, text);
}

static const struct key database_keys[] = {
        {"path", KEY_NODE, .read = read_db_path},
        {"dir", KEY_PATH, .offset = AT(raw_database, d.dir)},
        {"pattern", KEY_TEXT, .offset = AT(raw_database, d.pattern)},
        {"recursive", KEY_BOOL, .offset = AT(raw_database, d.recursive)},
        {"watch", KEY_BOOL, .offset = AT(raw_database, d.watch)},
        {"name", KEY_TEXT, .offset = AT(raw_database, d.name)},
        {"archive", KEY_PATH, .offset = AT(raw_database, d.archive)},
        {"strict", KEY_BOOL, .offset = AT(raw_database, d.strict)},
        {"enable-wal", KEY_BOOL, .offset = AT(raw_database, d.enable_wal)},
        {"wal-cap", KEY_SIZE, .offset = AT(raw_database, d.wal_cap_bytes)},
        {"restore-if-db-not-exists", KEY_BOOL, .offset = AT(raw_database, d.restore_if_missing)},
        {"replicas", KEY_NODE, .read = read_replicas},
        {"replica", KEY_NODE, .read = read_replicas},
        {"destinations", KEY_NODE, .read = read_destinations},
        {"retention", KEY_NODE, .read = read_db_retention},
        {"snapshot", KEY_NODE, .read = read_db_snapshot},
        {"snapshot-interval", KEY_DURATION, .offset = AT(raw_database, d.snapshot_interval_us),
         SNAPSHOT_LIMITS},
        {"verify", KEY_NODE, .read = read_db_verify},
        {"validation", KEY_NODE, .read = read_db_verify},
        {"validation-interval", KEY_SCHEDULE, .offset = AT(raw_database, d.verify)},
        {"meta-path", KEY_UNUSED, .why = WHY_OWN_STATE},
        {"meta-dir", KEY_UNUSED, .why = WHY_OWN_STATE},
        {"monitor-interval", KEY_UNUSED, .why = WHY_OWN_WAKING},
        {"busy-timeout", KEY_UNUSED, .why = WHY_OWN_WAKING},
        {"checkpoint-interval", KEY_UNUSED, .why = WHY_NO_CHECKPOINTS},
        {"min-checkpoint-page-count", KEY_UNUSED, .why = WHY_NO_CHECKPOINTS},
        {"max-checkpoint-page-count", KEY_UNUSED, .why = WHY_NO_CHECKPOINTS},
        {"truncate-page-n", KEY_UNUSED, .why = WHY_NO_CHECKPOINTS},
        {"wal-checkpoint", KEY_UNUSED, .why = WHY_NO_CHECKPOINTS},
        {"wal-checkpoint-timeout", KEY_UNUSED, .why = WHY_NO_CHECKPOINTS},
        {"max-sync-wal-bytes", KEY_UNUSED, .why = WHY_OWN_TRANSFER},
        END,
};

static void read_database(struct loader *l, const struct yaml_node *node,
                          struct raw_database **last)
{
	struct raw_database *d = memory_alloc(l->memory, sizeof(*d));

	if (node->kind == YAML_LIST) {
		refuse_kind(l, node, "dbs", YAML_MAP);
		return;
	}
	if (!d) {
		load_nomem(l);
		return;
	}
	d->d.line = node->line;
	d->d.watch = true;
	if (node->kind == YAML_TEXT)
		read_db_path(l, node, d);
	else
		read_section(l, node, "dbs", database_keys, d);
	*last = d;
}

void read_databases(struct loader *l, const struct yaml_node *node)
{
	struct raw_database **last = &l->databases;

	if (is_empty(l, node, "dbs") || refuse_kind(l, node, "dbs", YAML_LIST))
		return;
	while (*last)
		last = &(*last)->next;
	if (node->n > CONFIG_MAX_FOUND) {
		load_error(l, node->line, "dbs: more than %d", CONFIG_MAX_FOUND);
		return;
	}
	for (size_t i = 0; i < node->n && l->visits <= MAX_VISITS; i++) {
		read_database(l, node->values[i], last);
		if (*last)
			last = &(*last)->next;
	}
}
