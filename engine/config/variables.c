/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the variables of .env.backup mean.
 *
 *   DATA_DIR BACKUP_DIR                 data-dir; backup-dir and the default archive
 *   LOCAL_RETENTION_DAYS                backups.retention of manual and automated
 *   COMPRESSED_RETENTION_DAYS           backups.retention of compressed
 *   AUTO_BACKUP_ENABLED BACKUP_SCHEDULE one schedule of automated backups
 *   BACKUP_VALIDATION_ENABLED           backups.validate
 *   BACKUP_COMPRESSION_LEVEL            backups.level
 *   BACKUP_ENCRYPTION_ENABLED BACKUP_GPG_RECIPIENT   backups.gpg-recipient
 *   BACKUP_S3_BUCKET                    where backups go, too (resolve.c)
 *   AWS_REGION AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN (and LITESTREAM_…)
 *                                       of s3 destinations that do not say (resolve.c)
 *   SMTP_… ALERT_RECIPIENTS BACKUP_NOTIFICATION_EMAIL BACKUP_SLACK_WEBHOOK   alerts
 *   BACKUP_DEBUG                        log.level: debug
 *   ASOF_HTTP                           http.listen
 *   LITESTREAM_CONFIG LITESTREAM_ENABLED  which file is the configuration (cli.c)
 *
 * The configuration file has the last word.  All others are named in one line, unless the file
 * uses them as ${NAME}.
 */
#include "engine/config/config_i.h"

#include "engine/base/clock.h"

#include <string.h>

#define DAY_US (86400 * US_PER_SECOND)
#define FROM_PROCESS "environment"

/* A value that is wrong is reported at the variable, not at the configuration. */
struct variable {
	const char *name, *text;
	const char *file;
	unsigned line;
};

static bool get(struct loader *l, const char *name, struct variable *ret)
{
	*ret = (struct variable){.name = name};
	ret->text = env_get(l, name, &ret->line);
	ret->file = ret->line ? l->env.path : FROM_PROCESS;
	return ret->text != NULL;
}

/* Reads with a reader of values.c, whose messages then name the variable's file. */
#define READ(l, v, call)                                                                           \
	({                                                                                         \
		const char *own_ = (l)->file;                                                      \
		(l)->file = (v).file;                                                              \
		bool ok_ = (call);                                                                 \
		(l)->file = own_;                                                                  \
		ok_;                                                                               \
	})

static bool get_bool(struct loader *l, const char *name, bool *ret)
{
	struct variable v;

	return get(l, name, &v) && READ(l, v, value_bool(l, v.line, name, v.text, ret));
}

static bool get_uint(struct loader *l, const char *name, uint64_t min, uint64_t max, unsigned *ret)
{
	struct variable v;
	uint64_t n;

	if (!get(l, name, &v) || !READ(l, v, value_uint(l, v.line, name, v.text, min, max, &n)))
		return false;
	*ret = (unsigned)n;
	return true;
}

static void apply_retention(struct loader *l)
{
	struct config_backup_retention *r = l->c->backup_retention;
	unsigned days;

	if (get_uint(l, "LOCAL_RETENTION_DAYS", 0, 36500, &days))
		r[CONFIG_BACKUP_MANUAL].max_age_us = r[CONFIG_BACKUP_AUTOMATED].max_age_us =
		        days * DAY_US;
	if (get_uint(l, "COMPRESSED_RETENTION_DAYS", 0, 36500, &days))
		r[CONFIG_BACKUP_COMPRESSED].max_age_us = days * DAY_US;
}

static void apply_encryption(struct loader *l)
{
	struct variable v, recipient;
	bool enabled = false;

	get_bool(l, "BACKUP_ENCRYPTION_ENABLED", &enabled);
	bool named = get(l, "BACKUP_GPG_RECIPIENT", &recipient);
	if (enabled && named)
		l->c->backup_options.gpg_recipient = recipient.text;
	else if (enabled && get(l, "BACKUP_ENCRYPTION_ENABLED", &v))
		load_message(l, CONFIG_ERROR, v.file, v.line,
		             "BACKUP_ENCRYPTION_ENABLED: for whom? backups would lie unencrypted "
		             "(set BACKUP_GPG_RECIPIENT)");
}

static void apply_schedule(struct loader *l)
{
	struct config_backup_schedule *s;
	struct variable v;
	bool enabled = true;

	bool said = get_bool(l, "AUTO_BACKUP_ENABLED", &enabled);
	bool when = get(l, "BACKUP_SCHEDULE", &v);
	if (!enabled || (!said && !when) || !(s = add_schedule(l, 0)))
		return;
	s->name = "automated";
	l->schedules_from_variables = true;
	if (when)
		(void)READ(l, v, value_schedule(l, v.line, v.name, v.text, &s->when));
	else
		known_schedule("0 2 * * *", &s->when);
}

static void apply_alerts(struct loader *l)
{
	struct config_alerts *a = &l->c->alerts;
	struct variable v;

	if (get(l, "SMTP_SERVER", &v))
		a->smtp_server = v.text;
	get_uint(l, "SMTP_PORT", 1, 65535, &a->smtp_port);
	if (get(l, "SMTP_USERNAME", &v))
		a->smtp_username = v.text;
	if (get(l, "SMTP_PASSWORD", &v))
		a->smtp_password.text = v.text;
	if (get(l, "BACKUP_NOTIFICATION_EMAIL", &v))
		value_words(l, v.text, &a->mail_to, &a->n_mail_to);
	if (get(l, "ALERT_RECIPIENTS", &v))
		value_words(l, v.text, &a->mail_to, &a->n_mail_to);
	if (get(l, "BACKUP_SLACK_WEBHOOK", &v))
		(void)READ(l, v, value_url(l, v.line, v.name, v.text, &a->slack_webhook.text));
}

void apply_variables(struct loader *l)
{
	struct config *c = l->c;
	struct config_backup_retention *r = c->backup_retention;
	struct variable v;
	bool debug = false;

	c->log_level = LOG_INFO;
	c->log_max_bytes = UINT64_C(16) << 20;
	c->log_keep = 4;
	c->alerts.smtp_port = 587;
	c->alerts.heartbeat_interval_us = 300 * US_PER_SECOND;
	c->alerts.for_us = 30 * US_PER_SECOND;
	c->alerts.repeat_us = 4 * 3600 * US_PER_SECOND;
	c->backup_options =
	        (struct config_backup_options){.compress = true, .level = 6, .validate = true};
	r[CONFIG_BACKUP_MANUAL].max_age_us = r[CONFIG_BACKUP_AUTOMATED].max_age_us = 7 * DAY_US;
	r[CONFIG_BACKUP_COMPRESSED].max_age_us = 30 * DAY_US;
	known_schedule("03:00", &c->cleanup);
	l->retention = (struct config_retention){.tiers = {{3 * DAY_US, 0},
	                                                   {30 * DAY_US, 3600 * US_PER_SECOND},
	                                                   {365 * DAY_US, DAY_US}},
	                                         .n_tiers = 3,
	                                         .min_free_bytes = UINT64_C(2) << 30,
	                                         .min_free_percent = 5};

	if (get(l, "DATA_DIR", &v))
		c->data_dir = v.text;
	if (get(l, "BACKUP_DIR", &v))
		c->archive = c->backup_dir = v.text;
	if (get(l, "ASOF_HTTP", &v))
		(void)READ(l, v, value_listen(l, v.line, v.name, v.text, &c->http.listen));
	apply_retention(l);
	get_bool(l, "BACKUP_VALIDATION_ENABLED", &c->backup_options.validate);
	get_uint(l, "BACKUP_COMPRESSION_LEVEL", 1, 12, &c->backup_options.level);
	apply_encryption(l);
	apply_schedule(l);
	apply_alerts(l);
	if (get_bool(l, "BACKUP_DEBUG", &debug) && debug)
		c->log_level = LOG_DEBUG;
}

/* ---- what nobody used ---- */

static const char *const honoured[] = {
        "DATA_DIR",
        "BACKUP_DIR",
        "LOCAL_RETENTION_DAYS",
        "COMPRESSED_RETENTION_DAYS",
        "AUTO_BACKUP_ENABLED",
        "BACKUP_SCHEDULE",
        "BACKUP_VALIDATION_ENABLED",
        "BACKUP_COMPRESSION_LEVEL",
        "BACKUP_ENCRYPTION_ENABLED",
        "BACKUP_GPG_RECIPIENT",
        "BACKUP_S3_BUCKET",
        "AWS_REGION",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "BACKUP_DEBUG",
        "ASOF_HTTP",
        "SMTP_SERVER",
        "SMTP_PORT",
        "SMTP_USERNAME",
        "SMTP_PASSWORD",
        "ALERT_RECIPIENTS",
        "BACKUP_NOTIFICATION_EMAIL",
        "BACKUP_SLACK_WEBHOOK",
        "LITESTREAM_CONFIG",
        "LITESTREAM_ENABLED",
        "LITESTREAM_ACCESS_KEY_ID",
        "LITESTREAM_SECRET_ACCESS_KEY",
        "HOME",
};

static bool is_in(const char *name, const char *const *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(list[i], name) == 0)
			return true;
	return false;
}

#define IS_IN(name, list) is_in(name, list, sizeof(list) / sizeof((list)[0]))

/* `used` variables are those that the file has as ${NAME}, or that apply_variables() asked. */
static bool is_unused(const struct env_variable *v)
{
	return *v->value && !v->used && !IS_IN(v->name, honoured);
}

void report_variables(struct loader *l)
{
	const struct env *e = &l->env;
	char text[1500] = "";
	size_t used = 0;

	for (size_t i = 0; e->path && i < e->n && used + 160 < sizeof(text); i++)
		if (is_unused(&e->variables[i]))
			used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%.80s",
			                         used ? ", " : "", e->variables[i].name);
	if (used)
		load_message(l, CONFIG_WARNING, e->path, 0, "not used here: %s", text);
}
