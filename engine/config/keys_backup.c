/* SPDX-License-Identifier: Apache-2.0 */
/* What is said of backups: when, how, and for how long they are kept. */
#include "engine/config/keys_i.h"

#include <string.h>

/* ---- backups ---- */

static void read_backup_count(struct loader *l, const struct yaml_node *value, const char *key,
                              unsigned *ret)
{
	const char *text;
	uint64_t n;

	if (!refuse_kind(l, value, key, YAML_TEXT) && is_given(l, value, key, &text) &&
	    value_uint(l, value->line, key, text, 0, 1000000, &n))
		*ret = (unsigned)n;
}

static void read_backup_days(struct loader *l, const struct yaml_node *value, void *section)
{
	unsigned days = 0;

	read_backup_count(l, value, "days", &days);
	((struct config_backup_retention *)section)->max_age_us = days * DAY_US;
}

static void read_backup_age(struct loader *l, const struct yaml_node *value, void *section)
{
	struct config_backup_retention *r = section;
	int64_t age = -1;

	read_age(l, value, "age", &age);
	if (age >= 0)
		r->max_age_us = age == INT64_MAX ? 0 : age;
}

#define COUNT_LIMITS .min = 0, .max = 1000000

static const struct key backup_retention_keys[] = {
        {"days", KEY_NODE, .read = read_backup_days},
        {"age", KEY_NODE, .read = read_backup_age},
        {"count", KEY_UINT, .offset = AT(config_backup_retention, count), COUNT_LIMITS},
        {"daily", KEY_UINT, .offset = AT(config_backup_retention, daily), COUNT_LIMITS},
        {"weekly", KEY_UINT, .offset = AT(config_backup_retention, weekly), COUNT_LIMITS},
        {"monthly", KEY_UINT, .offset = AT(config_backup_retention, monthly), COUNT_LIMITS},
        {"yearly", KEY_UINT, .offset = AT(config_backup_retention, yearly), COUNT_LIMITS},
        END,
};

/* "7d", "forever", or a mapping. */
static void read_type_retention(struct loader *l, const struct yaml_node *value,
                                struct config_backup_retention *ret)
{
	struct config_backup_retention r = {0};

	if (is_empty(l, value, "retention"))
		return;
	if (value->kind == YAML_TEXT)
		read_backup_age(l, value, &r);
	else
		read_section(l, value, "retention", backup_retention_keys, &r);
	*ret = r;
}

#define TYPE_READER(name, type)                                                                    \
	static void read_##name(struct loader *l, const struct yaml_node *value, void *section)    \
	{                                                                                          \
		read_type_retention(l, value, &((struct config_backup_retention *)section)[type]); \
	}
TYPE_READER(manual, CONFIG_BACKUP_MANUAL)
TYPE_READER(automated, CONFIG_BACKUP_AUTOMATED)
TYPE_READER(safety, CONFIG_BACKUP_SAFETY)
TYPE_READER(compressed, CONFIG_BACKUP_COMPRESSED)

void read_backup_retention(struct loader *l, const struct yaml_node *value,
                           struct config_backup_retention *ret)
{
	static const struct key keys[] = {
	        {"manual", KEY_NODE, .read = read_manual},
	        {"automated", KEY_NODE, .read = read_automated},
	        {"safety", KEY_NODE, .read = read_safety},
	        {"compressed", KEY_NODE, .read = read_compressed},
	        END,
	};

	if (value->kind == YAML_MAP) {
		read_section(l, value, "backups.retention", keys, ret);
		return;
	}
	/* What is kept for safety is not among what one number means. */
	for (int type = 0; type < CONFIG_N_BACKUP_TYPES; type++)
		if (type != CONFIG_BACKUP_SAFETY)
			read_type_retention(l, value, &ret[type]);
}

static void read_backups_retention(struct loader *l, const struct yaml_node *value, void *section)
{
	read_backup_retention(l, value, l->c->backup_retention);
}

static void read_type(struct loader *l, const struct yaml_node *value, void *section)
{
	struct config_backup_schedule *s = section;
	const char *text;

	if (refuse_kind(l, value, "type", YAML_TEXT) || !is_given(l, value, "type", &text))
		return;
	for (int type = 0; type < CONFIG_N_BACKUP_TYPES; type++)
		if (strcmp(text, config_backup_type_name((enum config_backup_type)type)) == 0) {
			s->type = (enum config_backup_type)type;
			return;
		}
	load_error(l, value->line, "type: '%.60s' is none of manual, automated, safety, compressed",
	           text);
}

static void read_schedule_databases(struct loader *l, const struct yaml_node *value, void *section)
{
	struct config_backup_schedule *s = section;

	read_words(l, value, "databases", &s->databases, &s->n_databases);
}

#define OPTION_KEYS(type, member)                                                                  \
	{"compress", KEY_BOOL, .offset = AT(type, member.compress)},                               \
	        {"level", KEY_UINT, .offset = AT(type, member.level), .min = 1, .max = 12},        \
	        {"compression-level", KEY_UINT, .offset = AT(type, member.level), .min = 1,        \
	         .max = 12},                                                                       \
	        {"validate", KEY_BOOL, .offset = AT(type, member.validate)},                       \
	{                                                                                          \
		"gpg-recipient", KEY_TEXT, .offset = AT(type, member.gpg_recipient)                \
	}

static const struct key schedule_keys[] = {
        {"name", KEY_TEXT, .offset = AT(config_backup_schedule, name)},
        {"schedule", KEY_SCHEDULE, .offset = AT(config_backup_schedule, when)},
        {"at", KEY_SCHEDULE, .offset = AT(config_backup_schedule, when)},
        {"cron", KEY_SCHEDULE, .offset = AT(config_backup_schedule, when)},
        {"every", KEY_SCHEDULE, .offset = AT(config_backup_schedule, when)},
        {"jitter", KEY_DURATION, .offset = AT(config_backup_schedule, jitter_us), .min = 0,
         .max = DAY_US},
        {"type", KEY_NODE, .read = read_type},
        {"databases", KEY_NODE, .read = read_schedule_databases},
        OPTION_KEYS(config_backup_schedule, options),
        END,
};

struct config_backup_schedule *add_schedule(struct loader *l, unsigned line)
{
	struct config *c = l->c;

	c->schedules = memory_grow(l->memory, c->schedules, c->n_schedules, sizeof(*c->schedules));
	if (!c->schedules) {
		c->n_schedules = 0;
		load_nomem(l);
		return NULL;
	}
	struct config_backup_schedule *s = &c->schedules[c->n_schedules++];
	*s = (struct config_backup_schedule){
	        .line = line, .type = CONFIG_BACKUP_AUTOMATED, .options = c->backup_options};
	return s;
}

static void read_one_schedule(struct loader *l, const struct yaml_node *node)
{
	static const struct key whole = {"schedule", KEY_SCHEDULE, .offset = 0};

	if (is_empty(l, node, "schedule"))
		return;
	size_t errors = l->report->n_errors;
	struct config_backup_schedule *s = add_schedule(l, node->line);
	if (!s)
		return;
	if (node->kind == YAML_TEXT)
		read_value(l, &whole, node, &s->when);
	else
		read_section(l, node, "schedules", schedule_keys, s);
	if (!s->when.text[0] && l->report->n_errors == errors)
		load_error(l, node->line,
		           "schedules: one says not when (write schedule: \"02:00\")");
}

static void read_schedules(struct loader *l, const struct yaml_node *node)
{
	if (is_empty(l, node, "schedules"))
		return;
	if (l->schedules_from_variables) { /* the file's take their place */
		l->schedules_from_variables = false;
		l->c->n_schedules = 0;
		l->c->schedules = NULL;
	}
	if (node->kind != YAML_LIST) {
		read_one_schedule(l, node);
		return;
	}
	if (node->n > 1000) {
		load_error(l, node->line, "schedules: more than 1000");
		return;
	}
	for (size_t i = 0; i < node->n && l->visits <= MAX_VISITS; i++, l->visits++)
		read_one_schedule(l, node->values[i]);
}

/* Schedules inherit the options, so those are read first, wherever they stand. */
static void keep_schedules(struct loader *l, const struct yaml_node *value, void *section)
{
}

void read_backups(struct loader *l, const struct yaml_node *value, void *section)
{
	static const struct key keys[] = {
	        OPTION_KEYS(config, backup_options),
	        {"dir", KEY_PATH, .offset = AT(config, backup_dir)},
	        {"schedules", KEY_NODE, .read = keep_schedules},
	        {"schedule", KEY_NODE, .read = keep_schedules},
	        {"retention", KEY_NODE, .read = read_backups_retention},
	        {"cleanup", KEY_SCHEDULE, .offset = AT(config, cleanup)},
	        END,
	};

	read_section(l, value, "backups", keys, l->c);
	for (size_t i = 0; value->kind == YAML_MAP && i < value->n; i++)
		if (strcmp(value->keys[i]->text, "schedules") == 0 ||
		    strcmp(value->keys[i]->text, "schedule") == 0)
			read_schedules(l, value->values[i]);
}
