/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of config: memory, report, variables, the YAML tree, typed values.
 *
 * Loading goes on after an error, so that all of them are found: functions here report into
 * the loader and return what can be gone on with.  Without memory `nomem` is set, once and for
 * all, and config_load() fails with it at the end.
 */
#ifndef ASOF_CONFIG_CONFIG_I_H
#define ASOF_CONFIG_CONFIG_I_H

#include "engine/config/config.h"

/* ---- memory.c: what lives as long as its owner, freed at once ---- */

struct config_memory;
struct config_memory *memory_new(void);
void memory_free(struct config_memory *m);
/* Zeroed; NULL without memory, or past 64 MiB in all. */
void *memory_alloc(struct config_memory *m, size_t bytes);
char *memory_copy(struct config_memory *m, const char *text, size_t len);
char *memory_printf(struct config_memory *m, const char *fmt, ...)
        __attribute__((format(printf, 2, 3)));
/* Room for one more in an array of `n`; grows by doubling at powers of two. */
void *memory_grow(struct config_memory *m, void *array, size_t n, size_t item_bytes);

/* ---- env.c: variables ---- */

struct env_variable {
	const char *name, *value;
	unsigned line;
	bool used;
};

struct env {
	const char *const *environment;
	const char *path;   /* of the file that was read, NULL: none */
	const char *folder; /* relative paths in it count from there */
	struct env_variable *variables;
	size_t n;
};

struct loader;

/* Reads "KEY=VALUE" lines; errors go to the report. */
void env_read_text(struct loader *l, struct env *e, const char *text, size_t len);
/* The value, NULL when unset or empty: of the process first, of the file second.  A path
 * (DATA_DIR, BACKUP_DIR, LITESTREAM_CONFIG) comes absolute.  *ret_line (may be NULL) is 0 for the process's. */
const char *env_get(struct loader *l, const char *name, unsigned *ret_line);
/* $VAR, ${VAR}, ${VAR:-default}, $$; the result lives in the loader's memory.  NULL after an
 * error that was reported at `line`. */
const char *env_expand(struct loader *l, unsigned line, const char *key, const char *text);

/* ---- yaml.c: text -> tree ---- */

enum yaml_kind { YAML_TEXT, YAML_LIST, YAML_MAP };

struct yaml_node {
	enum yaml_kind kind;
	unsigned line;
	const char *text; /* of YAML_TEXT */
	bool quoted;
	size_t n;
	struct yaml_node **keys; /* of YAML_MAP: all YAML_TEXT, no two alike */
	struct yaml_node **values;
};

#define YAML_MAX_BYTES ((size_t)1 << 20)
#define YAML_MAX_DEPTH 24
#define YAML_MAX_NODES 100000
#define YAML_MAX_KEYS 256 /* of one mapping */

/*
 * The tree of the only document, NULL for an empty one or after an error, which was reported.
 * Aliases point to the node that they name, so that a node may have several parents; none is
 * above itself.  `<<` is taken apart.
 */
struct yaml_node *yaml_read(struct loader *l, const char *text, size_t len);

/* ---- loader ---- */

/* A key that cannot be honoured. */
struct ignored {
	const char *key, *why;
	unsigned lines[8];
	unsigned n_lines;
};

/* A destination as it is written. */
struct raw_replica {
	unsigned line;
	bool is_destination; /* listed as such: never the archive itself */
	const char *type, *name, *path, *url;
	const char *bucket, *region, *endpoint, *storage_class;
	const char *host, *user, *key_path, *host_key; /* of sftp */
	struct config_secret password;
	const char *key_file, *key_command;
	const char *access_key_id;
	struct config_secret secret_access_key, session_token, sse_customer_key;
	const char *profile, *ca_file, *proxy;
	const char *sse, *sse_kms_key_id, *sse_customer_algorithm, *sse_customer_key_path;
	bool force_path_style, skip_verify;
	bool no_backups, has_backup_retention;
	struct config_backup_retention backup_retention[CONFIG_N_BACKUP_TYPES];
	int64_t sync_interval_us, snapshot_interval_us;
	struct config_retention retention;
	struct schedule verify;
	struct raw_replica *next;
};

/* A database as it is written; resolve.c makes a config_database of it.  What was not given is
 * NULL, 0, or a schedule without a text. */
struct raw_database {
	struct config_database d;
	struct raw_replica *replicas;
	struct schedule verify_remote;
	bool bad_path; /* reported already */
	struct raw_database *next;
};

struct loader {
	struct config *c;
	struct config_memory *memory; /* of the configuration */
	struct config_report *report;
	struct env env;
	const char *file;   /* as messages name it */
	const char *folder; /* absolute, of the file */
	bool expand, nomem;
	unsigned visits; /* of nodes: aliases make a small file a large one */

	struct ignored *ignored;
	size_t n_ignored;

	struct raw_database *databases;
	struct raw_replica replica_defaults;
	struct config_retention retention; /* of the whole file */
	int64_t snapshot_interval_us;
	struct schedule verify_local, verify_remote, verify_full;
	unsigned mount_line, http_line, email_line;
	bool schedules_from_variables; /* what a file says takes their place */
};

void load_error(struct loader *l, unsigned line, const char *fmt, ...)
        __attribute__((format(printf, 3, 4)));
/* Of another file than the configuration itself. */
void load_message(struct loader *l, enum config_severity severity, const char *file, unsigned line,
                  const char *fmt, ...) __attribute__((format(printf, 5, 6)));
/* `why` is a constant text; keys of one reason are named together. */
void load_ignore(struct loader *l, unsigned line, const char *key, const char *why);
void load_nomem(struct loader *l);
/* `folder`/`path` unless absolute, "~/" expanded, slashes at the end and "." left out. */
const char *load_path(struct loader *l, const char *folder, const char *path);

/* keys.c: the tree -> the loader. */
void read_configuration(struct loader *l, const struct yaml_node *root);
/* resolve.c: defaults, archives, destinations, and what contradicts. */
void resolve_configuration(struct loader *l);
/* resolve.c: how backups are kept at a destination. */
void resolve_backup_retention(struct loader *l, const struct raw_replica *r,
                              struct config_destination *d);
/* resolve.c: the identity that seals what lies at a destination. */
void resolve_key(struct loader *l, const struct raw_replica *r, struct config_destination *d);
/* bucket.c: a destination in a bucket; that of BACKUP_S3_BUCKET. */
void resolve_backup_bucket(struct loader *l);
void resolve_bucket(struct loader *l, const struct raw_replica *r, struct config_destination *d);
/* What a URL may not have goes as %XX; nothing is done once *rc is not 0. */
struct buf;
void config_percent_encode(struct buf *b, const char *text, int *rc);

/* variables.c: what .env.backup says, before the file does; then what nobody used of it. */
void apply_variables(struct loader *l);
void report_variables(struct loader *l);

/* keys_alerts.c: what is missing, and defaults that go by the rest. */
void resolve_alerts(struct loader *l);
/* A URL of http or https; what is wrong with one is said without it: it is a secret. */
bool value_url(struct loader *l, unsigned line, const char *key, const char *text,
               const char **ret);

/* Adds a schedule of backups that has all defaults; NULL without memory. */
struct config_backup_schedule *add_schedule(struct loader *l, unsigned line);
/* A list in one text: "a@x, b@y". */
void value_words(struct loader *l, const char *text, const char *const **ret, size_t *ret_n);

/* values.c.  Each reports what is wrong with `key` and then leaves *ret alone. */
bool value_bool(struct loader *l, unsigned line, const char *key, const char *text, bool *ret);
bool value_uint(struct loader *l, unsigned line, const char *key, const char *text, uint64_t min,
                uint64_t max, uint64_t *ret);
bool value_duration(struct loader *l, unsigned line, const char *key, const char *text,
                    int64_t min_us, int64_t max_us, int64_t *ret_us);
/* As a duration, or "forever" (INT64_MAX). */
bool value_age(struct loader *l, unsigned line, const char *key, const char *text, int64_t *ret_us);
bool value_size(struct loader *l, unsigned line, const char *key, const char *text, uint64_t *ret);
bool value_schedule(struct loader *l, unsigned line, const char *key, const char *text,
                    struct schedule *ret);
/* One that is right. */
void known_schedule(const char *text, struct schedule *ret);
bool value_listen(struct loader *l, unsigned line, const char *key, const char *text,
                  const char **ret);
/* HOST:PORT whose HOST is this machine alone, or unix:. */
bool listens_openly(const char *listen);
/* The value of value_listen() that means: nowhere. */
#define LISTEN_NONE "none"

#endif
