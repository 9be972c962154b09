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
#include "engine/view/history.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Ids of options without a letter. */
enum {
	OPT_ARCHIVE = 256,
	OPT_JSON,
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
		OPT_ARCHIVE, "archive", "ARCHIVE", "the archive to read (default: $ASOF_ARCHIVE)"  \
	}
#define CLI_OPTION_JSON                                                                            \
	{                                                                                          \
		OPT_JSON, "json", NULL, "print JSON"                                               \
	}
#define CLI_OPTION_END                                                                             \
	{                                                                                          \
		0, NULL, NULL, NULL                                                                \
	}

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
};

/*
 * The next option's id, 0 after the last, or -kind: USAGE for an unknown option or a missing
 * argument, CANCELLED after --help.
 */
int cli_option(struct cli *c, struct err *err) MUST_USE;
/* Between `min` and `max` positional arguments, else USAGE; `what` names the missing ones. */
int cli_check_args(const struct cli *c, int min, int max, const char *what,
                   struct err *err) MUST_USE;
/* A USAGE error that names the command and its --help. */
int cli_usage(const struct cli *c, struct err *err, const char *fmt, ...)
        __attribute__((format(printf, 3, 4)));
void cli_print_help(const struct cli_command *command, FILE *out);

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

/* Opens `given`, or the archive that the environment names. */
int cli_open_archive(const struct cli *c, const char *given, struct archive **ret,
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
void table_print(const struct table *t, FILE *out);
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

extern const struct cli_command cmd_replicate, cmd_mount, cmd_umount, cmd_list, cmd_log, cmd_status,
        cmd_restore;

#endif
