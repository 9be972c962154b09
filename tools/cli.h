/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the commands of the program share: one table of options for parsing and for --help,
 * the archive and the database that a command means, numbers and tables for people.
 *
 * A command is `int run(struct cli *c, struct err *err)`.  It returns 0 or -kind with a
 * message; main() alone prints it and turns it into the exit status.
 */
#ifndef ASOF_TOOLS_CLI_H
#define ASOF_TOOLS_CLI_H

#include "engine/base/clock.h"
#include "engine/base/err.h"
#include "engine/base/json.h"
#include "engine/config/config.h"
#include "engine/store/store.h"
#include "engine/view/history.h"

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Ids of options without a letter. */
enum {
	OPT_ARCHIVE = 256,
	OPT_JSON,
	OPT_CONFIG_FILE, /* these two are every command's, cli_option() takes them itself */
	OPT_ENV_FILE,
	OPT_ALSO,      /* in tables of those that take it; likewise */
	OPT_FIRST_OWN, /* a command's own begin here */
};

struct cli_option {
	int id; /* a letter, which is then the short form too, or an OPT_ */
	const char *name;
	const char *arg; /* what the argument is called in --help; NULL: takes none */
	const char *help;
};

#define CLI_OPTION_ARCHIVE                                                                         \
	{                                                                                          \
		OPT_ARCHIVE, "archive", "ARCHIVE",                                                 \
		        "the archive (default: $ASOF_ARCHIVE, else as configured)"                 \
	}
/* Of commands that read: cli_read_archive() takes what is missing or damaged from there. */
#define CLI_OPTION_ALSO                                                                            \
	{                                                                                          \
		OPT_ALSO, "also", "ARCHIVE",                                                       \
		        "another that has the same: in its place where it is damaged; repeatable"  \
	}
#define CLI_OPTION_JSON                                                                            \
	{                                                                                          \
		OPT_JSON, "json", NULL, "print JSON"                                               \
	}
#define CLI_OPTION_END                                                                             \
	{                                                                                          \
		0, NULL, NULL, NULL                                                                \
	}

#define CLI_ALSO_MAX 7

struct cli;

struct cli_command {
	const char *name;
	const char *usage;   /* behind "asof NAME " */
	const char *summary; /* one line */
	const char *details; /* whole lines printed below the options, may be NULL */
	const char *example; /* one command line */
	const struct cli_option *options;
	/* A closed pipe ends the process at once, as people expect of what they pipe into
	 * head(1).  Commands that go on working leave this false. */
	bool prints;
	bool one_dash; /* long options may also be written with one, as in Litestream */
	int (*run)(struct cli *c, struct err *err);
};

/* One call of a command.  `argv[0]` is the command's name. */
struct cli {
	const struct cli_command *command;
	int argc;
	char **argv;
	bool helped;     /* --help was given and answered */
	const char *arg; /* argument of the option that cli_option() returned */
	int n_args;      /* positional ones, known once cli_option() returned 0 */
	char **args;
	const char *config_path;        /* --config; NULL: not given */
	const char *env_path;           /* --env-file; NULL: not given */
	const char *also[CLI_ALSO_MAX]; /* --also */
	size_t n_also;
	struct config *config; /* see cli_config() */
	bool config_loaded;
};

/*
 * The next option's id, 0 after the last, or -kind: USAGE for an unknown option or a missing
 * argument, CANCELLED after --help.
 */
int cli_option(struct cli *c, struct err *err) MUST_USE;
/* The options of every command, beside --help, and of a table the one called so (`len` bytes, without
 * dashes) or with that letter; NULL: none. */
const struct cli_option *cli_common_options(void);
const struct cli_option *cli_find_option(const struct cli_option *options, const char *name,
                                         size_t len);
const struct cli_option *cli_find_letter(const struct cli_option *options, char letter);
/* Between `min` and `max` positional arguments, else USAGE; `what` names the missing ones. */
int cli_check_args(const struct cli *c, int min, int max, const char *what,
                   struct err *err) MUST_USE;
/* A USAGE error that names the command and its --help. */
int cli_usage(const struct cli *c, struct err *err, const char *fmt, ...)
        __attribute__((format(printf, 3, 4)));
void cli_print_help(const struct cli_command *command, FILE *out);
/* Runs a command to its end; `argv[0]` is its name. */
int cli_run_command(const struct cli_command *command, int argc, char **argv,
                    struct err *err) MUST_USE;
/* Whether all that was printed got out. */
int cli_finish_output(struct err *err) MUST_USE;

/* ---- arguments ---- */

/* A decimal number of [min, max], whole. */
int cli_number(const struct cli *c, const char *what, const char *text, uint64_t min, uint64_t max,
               uint64_t *ret, struct err *err) MUST_USE;
/* A number of bytes: 4096, 64K, 10M, 1G (powers of 1024; KiB and KB mean the same). */
int cli_size(const struct cli *c, const char *what, const char *text, uint64_t *ret,
             struct err *err) MUST_USE;
/* A TIME; without a zone it is UTC. */
int cli_time(const char *what, const char *text, int64_t now_us, int64_t *ret_us,
             struct err *err) MUST_USE;
/* A TIME; without a zone it is of the configuration's `timezone:`, and UTC where there is no
 * configuration.  One that names a zone, or depends on none, needs no configuration. */
int cli_time_configured(struct cli *c, const char *what, const char *text, int64_t now_us,
                        int64_t *ret_us, struct err *err) MUST_USE;

/* Whether it is one of these, and no TIME: latest, tx:N, mark:NAME. */
bool cli_moment_is_named(const char *text);
/*
 * The moment that `text` stands for: a TIME, "latest", "tx:N", "mark:NAME".  NOT_FOUND and GAP as
 * history_at() says.
 */
int cli_moment(struct cli *c, struct history *h, const char *what, const char *text, int64_t now_us,
               struct moment *ret, struct err *err) MUST_USE;

/*
 * The configuration: --config, else ./asof.yml, else /etc/asof.yml, else what LITESTREAM_CONFIG
 * names, with .env.backup.  *ret is NULL where there is none of these, and belongs to `c`.  Read
 * once; its errors are printed, all of them, before this returns ERR_USAGE.
 */
int cli_config(struct cli *c, const struct config **ret, struct err *err) MUST_USE;
bool cli_is_folder(const char *path);
/* Whether the folder that it is to lie in is there. */
bool cli_has_its_folder(const char *path);
/* In a container a database lies at /data/db/x.db, on its host at $DATA_DIR/db/x.db: whether that is
 * so for `path`, which this machine does not have.  `config` may be NULL. */
bool cli_path_on_host(const struct config *config, const char *path, char out[PATH_MAX]);
/*
 * The folder of the archive: `given` (--archive), else $ASOF_ARCHIVE, else as configured: that of
 * database `db` (may be NULL), or the only one there is.  Where the configured one does not
 * exist, but BACKUP_DIR does (a container's path differs from the host's), that.  The text lives
 * as long as `c`.
 */
int cli_archive_root(struct cli *c, const char *given, const char *db, const char **ret,
                     struct err *err) MUST_USE;
/* Of a configured archive the folder that is there: a container's path that the host does not have
 * stands for BACKUP_DIR. */
const char *cli_of_this_host(const struct config *config, const char *archive);
/* What the configuration, if one was read, says of a destination with this URL; zeros: nothing. */
void cli_store_options(const struct cli *c, const char *url, struct store_options *ret);
/* The same, the configuration found and read first where `url` is one: for a command that was given it
 * alone.  A configuration that is broken is told of, and says nothing. */
void cli_settings_of(struct cli *c, const char *url, struct store_options *ret);
/* Whether `url` is that of something in the archive `root`, what that says behind '?' aside. */
bool cli_lies_below(const char *url, const char *root);
/* The archive that a backup lies in by its URL, ARCHIVE/TYPE/NAME: a configured destination if it is
 * one's.  NOT_FOUND: no archive can have it. */
int cli_archive_above(struct cli *c, const char *url, char out[PATH_MAX], struct err *err) MUST_USE;
/* A place where what is missing or damaged in another is to be had. */
struct cli_place {
	const char *url; /* or a directory; lives as long as `c` */
	struct store_options options;
	bool named; /* by --also, and not by the configuration alone */
};
/* The places besides `root` that have the history of its databases: those of --also, then those that
 * the configuration names, if one was named or read.  At most CLI_ALSO_MAX.  A
 * configuration that is broken is told of, and names none. */
void cli_other_places(struct cli *c, const char *root, struct cli_place ret[CLI_ALSO_MAX],
                      size_t *ret_n);
/* Opens them, in their order, into stores[0..*n).  One that was named and does not open is an error; one
 * that is configured is told of, and taken out of the list. */
int cli_open_places(const char *root, struct cli_place places[CLI_ALSO_MAX], size_t *n,
                    struct store *stores[CLI_ALSO_MAX], struct err *err) MUST_USE;
/* Opens an archive to be read, as cli_settings_of() says:
 * what is read of a far one is kept as kept_default() says, and what is missing or damaged comes
 * from its other places, opened as cli_open_places() has it. */
int cli_read_archive(struct cli *c, const char *root, struct archive **ret,
                     struct err *err) MUST_USE;
/* The backups in one, opened likewise.  `plain`: of a far one what it lists is enough, as
 * backup_list_read_at() says. */
struct backup_list;
int cli_read_backups(struct cli *c, const char *root, bool plain, struct backup_list *ret,
                     struct err *err) MUST_USE;
/* Opens that. */
int cli_open_archive_of(struct cli *c, const char *given, const char *db, struct archive **ret,
                        struct err *err) MUST_USE;
int cli_open_archive(struct cli *c, const char *given, struct archive **ret,
                     struct err *err) MUST_USE;
/* The database called `name` (a path stands for its last part); with NULL the only one there
 * is.  Errors name those that there are. */
int cli_open_database(const struct cli *c, struct archive *a, const char *name,
                      struct history **ret, struct err *err) MUST_USE;

/* ---- output ---- */

#define SIZE_STR_MAX 32
/* "0 B", "17 B", "1.5 KiB", "23 MiB": three digits that matter. */
void cli_format_size(uint64_t bytes, char out[SIZE_STR_MAX]);
#define AGE_STR_MAX 32
/* "now", "4 s ago", "3 min ago", "5 h ago", "12 days ago", "in 4 s". */
void cli_format_age(int64_t time_us, int64_t now_us, char out[AGE_STR_MAX]);

/* Text for one line: bytes below 0x20 and 0x7f become '?'. */
void cli_one_line(char *text);
/* As one word of a shell's, to be pasted; four bytes for one at most, and three. */
void cli_quote(const char *text, char *out, size_t size);

/*
 * A small table, printed when all of it is there.  `header` has `n_columns` titles; one that
 * begins with '>' is of a column aligned to the right.
 */
struct table;
int table_new(const char *const *header, size_t n_columns, struct table **ret,
              struct err *err) MUST_USE;
/* The next cell, row by row; the text is copied. */
int table_cell(struct table *t, struct err *err, const char *fmt, ...)
        __attribute__((format(printf, 3, 4))) MUST_USE;
int table_time(struct table *t, int64_t time_us, struct err *err) MUST_USE;
int table_size(struct table *t, uint64_t bytes, struct err *err) MUST_USE;
void table_print(struct table *t, FILE *out);
/* Prints the rows that are there and lets them go, the header before the first of them: for tables
 * of any length, whose columns get wider on the way if they must. */
void table_flush(struct table *t, FILE *out);
void table_free(struct table *t);
DEFINE_CLEANUP(struct table, table_free);
#define cleanup_table CLEANUP(table_free_p)

/* JSON values; all of them take NULL from a failed neighbour, so that one check of the
 * outermost value is enough. */
json_t *cli_json_time(int64_t time_us); /* a string; null for 0 */
json_t *cli_json_uint(uint64_t v);
/* Prints `value` and drops it. */
int cli_print_json(json_t *value, struct err *err) MUST_USE;

/* ---- the commands ---- */

extern const struct cli_command cmd_run, cmd_pause, cmd_resume, cmd_add, cmd_drop, cmd_sync,
        cmd_reload, cmd_job, cmd_wait;
extern const struct cli_command cmd_replicate, cmd_mount, cmd_umount, cmd_list, cmd_log, cmd_status,
        cmd_restore, cmd_guard, cmd_backup, cmd_stats, cmd_cleanup, cmd_validate, cmd_check,
        cmd_doctor, cmd_query, cmd_diff, cmd_bisect, cmd_mark, cmd_copy, cmd_key;

#endif
