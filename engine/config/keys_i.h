/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tables of keys, and the reader of a section by such a table.
 *
 * A key is written with '-' or '_'.  KEY_UNUSED: a key of Litestream's that has no meaning
 * here, named in the one warning.  KEY_REFUSED: ignoring it would leave data unprotected or
 * unencrypted.  A key that is in no table is named in the warning too, unless it is a
 * misspelling of one that is, or sounds like encryption: these are errors.
 */
#ifndef ASOF_CONFIG_KEYS_I_H
#define ASOF_CONFIG_KEYS_I_H

#include "engine/config/config_i.h"

#include "engine/base/clock.h"

#define MINUTE_US (60 * US_PER_SECOND)
#define DAY_US (86400 * US_PER_SECOND)
/* Sections and items read, in all: aliases make a small file a large one. */
#define MAX_VISITS 200000

enum key_type {
	KEY_TEXT,
	KEY_PATH,
	KEY_BOOL,
	KEY_UINT, /* unsigned, min to max */
	KEY_SIZE,
	KEY_DURATION, /* min to max */
	KEY_SCHEDULE,
	KEY_LISTEN,
	KEY_NODE, /* read by a function */
	KEY_UNUSED,
	KEY_REFUSED,
};

struct key {
	const char *name;
	enum key_type type;
	size_t offset; /* in the section's struct; a secret is a struct of one text */
	int64_t min, max;
	void (*read)(struct loader *l, const struct yaml_node *value, void *section);
	const char *why;
};

#define AT(type, member) offsetof(struct type, member)
/* Ends a table. */
#define END                                                                                        \
	{                                                                                          \
		.name = NULL                                                                       \
	}

/* Why a key has no effect. */
extern const char WHY_NO_CHECKPOINTS[];
extern const char WHY_OWN_LEVELS[];
extern const char WHY_OWN_CHECKS[];
extern const char WHY_OWN_STATE[];
extern const char WHY_OWN_WAKING[];
extern const char WHY_OWN_TRANSFER[];
extern const char WHY_OWN_SHUTDOWN[];
extern const char WHY_OWN_LOG[];
extern const char WHY_OWN_SOCKET[];
extern const char WHY_NO_MCP[];
extern const char WHY_UNENCRYPTED[];

void read_section(struct loader *l, const struct yaml_node *node, const char *what,
                  const struct key *keys, void *section);
/* `more` are keys of another struct that are taken there too. */
void read_section_or(struct loader *l, const struct yaml_node *node, const char *what,
                     const struct key *keys, void *section, const struct key *more,
                     void *more_section);
/* One value, as a key that is not KEY_NODE has it. */
void read_value(struct loader *l, const struct key *k, const struct yaml_node *value,
                void *section);
/* Reports a node of another kind. */
bool refuse_kind(struct loader *l, const struct yaml_node *value, const char *key,
                 enum yaml_kind want);
/* The expanded text of a YAML_TEXT; false if that is nothing: an empty variable is none. */
bool is_given(struct loader *l, const struct yaml_node *value, const char *key,
              const char **ret_text);
/* Nothing, "", or a mapping or list without anything. */
bool is_empty(struct loader *l, const struct yaml_node *value, const char *key);
/* One text, or a list of texts. */
void read_words(struct loader *l, const struct yaml_node *node, const char *key,
                const char *const **ret, size_t *ret_n);
/* An age, as value_age() has it. */
void read_age(struct loader *l, const struct yaml_node *value, const char *key, int64_t *ret);

/* keys_database.c */
extern const struct key replica_keys[];
#define N_REPLICA_PLACE_KEYS 4 /* the first of them say which one it is */
void read_databases(struct loader *l, const struct yaml_node *node);
void read_retention(struct loader *l, const struct yaml_node *node, struct config_retention *r);
void read_snapshot(struct loader *l, const struct yaml_node *value, int64_t *interval_us,
                   struct config_retention *retention);
struct raw_verify {
	struct schedule local, remote, full;
};
void read_verify(struct loader *l, const struct yaml_node *value, struct raw_verify *raw);
/* keys_alerts.c */
void read_alerts(struct loader *l, const struct yaml_node *value, void *section);
void read_heartbeat_url(struct loader *l, const struct yaml_node *value, void *section);
/* keys_backup.c */
void read_backups(struct loader *l, const struct yaml_node *value, void *section);
/* Rules for all types, or for each; ret[CONFIG_N_BACKUP_TYPES]. */
void read_backup_retention(struct loader *l, const struct yaml_node *value,
                           struct config_backup_retention *ret);

#endif
