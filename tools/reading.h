/* SPDX-License-Identifier: Apache-2.0 */
/* SQL of people on images of the past: an authorizer that lets only reading pass, parameters. */
#ifndef ASOF_TOOLS_READING_H
#define ASOF_TOOLS_READING_H

#include "tools/cli.h"

#include <sqlite3.h>

#define READING_PARAMS_MAX 64
#define READING_OPTION_PARAM                                                                       \
	{                                                                                          \
		'p', "param", "NAME=VALUE",                                                        \
		        "value of :NAME, @NAME, $NAME or (a number) of ?; repeatable"              \
	}

/* Zero-initialised. */
struct reading {
	struct reading_param {
		const char *text; /* NAME=VALUE */
		bool used;
	} params[READING_PARAMS_MAX];
	size_t n_params;
	char denied[160]; /* what a statement wanted that is no reading */
};

/* Takes the option's argument. */
int reading_param(struct reading *q, const struct cli *c, struct err *err) MUST_USE;
/* Sets the authorizer; *q must live as long as the connection. */
void reading_only(struct reading *q, sqlite3 *db);
/* The error for what was denied. */
int reading_denied(const struct reading *q, const char *command, struct err *err);
/* Values for all parameters of the statement; USAGE names one that has none. */
int reading_bind(struct reading *q, const struct cli *c, sqlite3_stmt *s, struct err *err) MUST_USE;
/* USAGE when a parameter was given that no statement has. */
int reading_all_used(const struct reading *q, const struct cli *c, struct err *err) MUST_USE;

#endif
