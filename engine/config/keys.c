/* SPDX-License-Identifier: Apache-2.0 */
/* The keys of the file as a whole. */
#include "engine/config/keys_i.h"

#include <string.h>
#include <strings.h>

/* ---- the rest of the file ---- */

static void read_file_retention(struct loader *l, const struct yaml_node *value, void *section)
{
	read_retention(l, value, &l->retention);
}

static void read_file_snapshot(struct loader *l, const struct yaml_node *value, void *section)
{
	read_snapshot(l, value, &l->snapshot_interval_us, &l->retention);
}

static void read_file_verify(struct loader *l, const struct yaml_node *value, void *section)
{
	struct raw_verify raw = {l->verify_local, l->verify_remote, l->verify_full};

	read_verify(l, value, &raw);
	l->verify_local = raw.local;
	l->verify_remote = raw.remote;
	l->verify_full = raw.full;
}

static void read_zone(struct loader *l, const struct yaml_node *value, void *section)
{
	struct err err = ERR_INIT;
	const char *text;

	if (refuse_kind(l, value, "timezone", YAML_TEXT) || !is_given(l, value, "timezone", &text))
		return;
	zone_free(take_ptr(l->c->zone));
	if (zone_open(text, &l->c->zone, &err))
		load_error(l, value->line, "timezone: %s", err.msg);
}

static void read_log_level(struct loader *l, const struct yaml_node *value, void *section)
{
	static const struct {
		const char *name;
		enum log_level level;
	} levels[] = {{"error", LOG_ERROR}, {"warn", LOG_WARN},   {"warning", LOG_WARN},
	              {"info", LOG_INFO},   {"debug", LOG_DEBUG}, {"trace", LOG_DEBUG}};
	const char *text;

	if (refuse_kind(l, value, "level", YAML_TEXT) || !is_given(l, value, "level", &text))
		return;
	for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++)
		if (strcasecmp(text, levels[i].name) == 0) {
			l->c->log_level = levels[i].level;
			return;
		}
	load_error(l, value->line, "level: '%.60s' is none of error, warn, info, debug", text);
}

static void read_log_format(struct loader *l, const struct yaml_node *value, void *section)
{
	const char *text;

	if (refuse_kind(l, value, "format", YAML_TEXT) || !is_given(l, value, "format", &text))
		return;
	l->c->log_format = strcmp(text, "json") == 0 ? LOG_JSON : LOG_TEXT;
	if (strcmp(text, "pretty") == 0)
		load_ignore(l, value->line, text, WHY_OWN_LOG);
	else if (strcmp(text, "json") != 0 && strcmp(text, "logfmt") != 0 &&
	         strcmp(text, "text") != 0)
		load_error(l, value->line, "format: '%.60s' is neither logfmt nor json", text);
}

static void read_log_output(struct loader *l, const struct yaml_node *value, void *section)
{
	const char *text;

	if (refuse_kind(l, value, "output", YAML_TEXT) || !is_given(l, value, "output", &text))
		return;
	l->c->log_path = NULL;
	if (strcmp(text, "stdout") == 0)
		load_ignore(l, value->line, "stdout", WHY_OWN_LOG);
	else if (strcmp(text, "stderr") != 0)
		l->c->log_path = load_path(l, l->folder, text);
}

static void read_log(struct loader *l, const struct yaml_node *value, void *section)
{
	static const struct key keys[] = {
	        {"level", KEY_NODE, .read = read_log_level},
	        {"type", KEY_NODE, .read = read_log_format},
	        {"format", KEY_NODE, .read = read_log_format},
	        {"output", KEY_NODE, .read = read_log_output},
	        {"file", KEY_NODE, .read = read_log_output},
	        {"path", KEY_NODE, .read = read_log_output},
	        {"max-size", KEY_SIZE, .offset = AT(config, log_max_bytes)},
	        {"keep", KEY_UINT, .offset = AT(config, log_keep), .min = 0, .max = 100},
	        {"stderr", KEY_UNUSED, .why = WHY_OWN_LOG},
	        {"source", KEY_UNUSED, .why = WHY_OWN_LOG},
	        END,
	};

	read_section(l, value, "log", keys, l->c);
}

static void read_addr(struct loader *l, const struct yaml_node *value, void *section)
{
	static const struct key key = {"addr", KEY_LISTEN,
	                               .offset = AT(config_http, metrics_listen)};

	read_value(l, &key, value, &l->c->http);
}

static void read_prometheus(struct loader *l, const struct yaml_node *value, void *section)
{
	const char *text;
	bool on;

	if (refuse_kind(l, value, "prometheus", YAML_TEXT) ||
	    !is_given(l, value, "prometheus", &text))
		return;
	if (value_bool(l, value->line, "prometheus", text, &on) && !on)
		load_ignore(l, value->line, "prometheus", "metrics are served wherever HTTP is");
}

struct raw_health {
	bool enabled;
	const char *addr;
};

static void read_health(struct loader *l, const struct yaml_node *value, void *section)
{
	static const struct key keys[] = {
	        {"enabled", KEY_BOOL, .offset = AT(raw_health, enabled)},
	        {"addr", KEY_LISTEN, .offset = AT(raw_health, addr)},
	        END,
	};
	struct raw_health raw = {.enabled = true};

	read_section(l, value, "health", keys, &raw);
	if (!raw.enabled || !raw.addr)
		return;
	l->c->http.health_listen = raw.addr;
}

static void read_http(struct loader *l, const struct yaml_node *value, void *section)
{
	static const struct key keys[] = {
	        {"listen", KEY_LISTEN, .offset = AT(config_http, listen)},
	        {"username", KEY_TEXT, .offset = AT(config_http, username)},
	        {"password", KEY_TEXT, .offset = AT(config_http, password)},
	        {"token", KEY_TEXT, .offset = AT(config_http, token)},
	        {"tls-cert", KEY_PATH, .offset = AT(config_http, tls_cert)},
	        {"tls-key", KEY_PATH, .offset = AT(config_http, tls_key)},
	        END,
	};

	l->http_line = value->line;
	read_section(l, value, "http", keys, &l->c->http);
}

static void read_mount(struct loader *l, const struct yaml_node *value, void *section)
{
	static const struct key keys[] = {
	        {"dir", KEY_PATH, .offset = AT(config_mount, dir)},
	        {"archive", KEY_PATH, .offset = AT(config_mount, archive)},
	        {"options", KEY_TEXT, .offset = AT(config_mount, options)},
	        END,
	};
	static const struct key whole = {"mount", KEY_PATH, .offset = AT(config_mount, dir)};

	l->mount_line = value->line;
	if (value->kind == YAML_TEXT)
		read_value(l, &whole, value, &l->c->mount);
	else
		read_section(l, value, "mount", keys, &l->c->mount);
}

static void read_socket(struct loader *l, const struct yaml_node *value, void *section)
{
	static const struct key keys[] = {
	        {"path", KEY_PATH, .offset = AT(config, socket)},
	        {"enabled", KEY_UNUSED, .why = WHY_OWN_SOCKET},
	        {"permissions", KEY_UNUSED, .why = WHY_OWN_SOCKET},
	        END,
	};

	if (value->kind == YAML_TEXT)
		read_value(l, &keys[0], value, l->c);
	else
		read_section(l, value, "socket", keys, l->c);
}

static void read_limits(struct loader *l, const struct yaml_node *value, void *section)
{
	static const struct key keys[] = {
	        {"memory", KEY_SIZE, .offset = AT(config, limits.memory_bytes)},
	        {"threads", KEY_UINT, .offset = AT(config, limits.threads), .min = 1, .max = 1024},
	        END,
	};

	read_section(l, value, "limits", keys, l->c);
}

/* Read last: they inherit from the whole file. */
static void keep_databases(struct loader *l, const struct yaml_node *value, void *section)
{
}

static const struct key file_keys[] = {
        {"dbs", KEY_NODE, .read = keep_databases},
        {"databases", KEY_NODE, .read = keep_databases},
        {"archive", KEY_PATH, .offset = AT(config, archive)},
        {"data-dir", KEY_PATH, .offset = AT(config, data_dir)},
        {"backup-dir", KEY_PATH, .offset = AT(config, backup_dir)},
        {"timezone", KEY_NODE, .read = read_zone},
        {"exec", KEY_TEXT, .offset = AT(config, exec)},
        {"log", KEY_NODE, .read = read_log},
        {"logging", KEY_NODE, .read = read_log},
        {"http", KEY_NODE, .read = read_http},
        {"addr", KEY_NODE, .read = read_addr},
        {"prometheus", KEY_NODE, .read = read_prometheus},
        {"health", KEY_NODE, .read = read_health},
        {"mount", KEY_NODE, .read = read_mount},
        {"socket", KEY_NODE, .read = read_socket},
        {"limits", KEY_NODE, .read = read_limits},
        {"backups", KEY_NODE, .read = read_backups},
        {"backup", KEY_NODE, .read = read_backups},
        {"retention", KEY_NODE, .read = read_file_retention},
        {"snapshot", KEY_NODE, .read = read_file_snapshot},
        {"verify", KEY_NODE, .read = read_file_verify},
        {"validation", KEY_NODE, .read = read_file_verify},
        {"alerts", KEY_NODE, .read = read_alerts},
        {"heartbeat-url", KEY_NODE, .read = read_heartbeat_url},
        {"heartbeat-interval", KEY_DURATION, .offset = AT(config, alerts.heartbeat_interval_us),
         .min = MINUTE_US, .max = 30 * DAY_US},
        {"mcp-addr", KEY_UNUSED, .why = WHY_NO_MCP},
        {"levels", KEY_UNUSED, .why = WHY_OWN_LEVELS},
        {"l0-retention", KEY_UNUSED, .why = WHY_OWN_LEVELS},
        {"l0-retention-check-interval", KEY_UNUSED, .why = WHY_OWN_LEVELS},
        {"verify-compaction", KEY_UNUSED, .why = WHY_OWN_CHECKS},
        {"shutdown-sync-timeout", KEY_UNUSED, .why = WHY_OWN_SHUTDOWN},
        {"shutdown-sync-interval", KEY_UNUSED, .why = WHY_OWN_SHUTDOWN},
        {"wal-checkpoint", KEY_UNUSED, .why = WHY_NO_CHECKPOINTS},
        {"wal-checkpoint-timeout", KEY_UNUSED, .why = WHY_NO_CHECKPOINTS},
        {"meta-dir", KEY_UNUSED, .why = WHY_OWN_STATE},
        {"monitor-interval", KEY_UNUSED, .why = WHY_OWN_WAKING},
        {"busy-timeout", KEY_UNUSED, .why = WHY_OWN_WAKING},
        {"checkpoint-interval", KEY_UNUSED, .why = WHY_NO_CHECKPOINTS},
        {"min-checkpoint-page-count", KEY_UNUSED, .why = WHY_NO_CHECKPOINTS},
        {"max-checkpoint-page-count", KEY_UNUSED, .why = WHY_NO_CHECKPOINTS},
        {"truncate-page-n", KEY_UNUSED, .why = WHY_NO_CHECKPOINTS},
        {"max-sync-wal-bytes", KEY_UNUSED, .why = WHY_OWN_TRANSFER},
        END,
};

void read_configuration(struct loader *l, const struct yaml_node *root)
{
	if (!root)
		return;
	/* Any key of a destination that stands above them all is a default of each; but for
	 * those that say which one it is. */
	read_section_or(l, root, "the file", file_keys, l->c, replica_keys + N_REPLICA_PLACE_KEYS,
	                &l->replica_defaults);
	for (size_t i = 0; root->kind == YAML_MAP && i < root->n; i++)
		if (strcmp(root->keys[i]->text, "dbs") == 0 ||
		    strcmp(root->keys[i]->text, "databases") == 0)
			read_databases(l, root->values[i]);
}
