/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/reading.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- only reading ---- */

/* PRAGMAs that tell something and change nothing; those with `argument` take one in order to. */
static const struct {
	const char *name;
	bool argument;
} pragmas[] = {
        {"application_id", false},  {"auto_vacuum", false},      {"collation_list", false},
        {"compile_options", false}, {"data_version", false},     {"database_list", false},
        {"encoding", false},        {"foreign_key_check", true}, {"foreign_key_list", true},
        {"freelist_count", false},  {"function_list", false},    {"index_info", true},
        {"index_list", true},       {"index_xinfo", true},       {"integrity_check", true},
        {"journal_mode", false},    {"module_list", false},      {"page_count", false},
        {"page_size", false},       {"pragma_list", false},      {"quick_check", true},
        {"schema_version", false},  {"table_info", true},        {"table_list", true},
        {"table_xinfo", true},      {"user_version", false},
};

static bool pragma_reads(const char *name, const char *argument)
{
	for (size_t i = 0; i < sizeof(pragmas) / sizeof(*pragmas); i++)
		if (sqlite3_stricmp(pragmas[i].name, name) == 0)
			return !argument || pragmas[i].argument;
	return false;
}

static int authorize(void *ctx, int action, const char *a, const char *b, const char *schema,
                     const char *trigger)
{
	struct reading *q = ctx;

	switch (action) {
	case SQLITE_SELECT:
	case SQLITE_READ:
	case SQLITE_RECURSIVE:
	case SQLITE_TRANSACTION:
	case SQLITE_SAVEPOINT:
		return SQLITE_OK;
	/* Virtual tables prepare such statements where they are connected, and never run them then.
	 * Those that are asked for are turned away by sqlite3_stmt_readonly(). */
	case SQLITE_INSERT:
	case SQLITE_UPDATE:
	case SQLITE_DELETE:
		return SQLITE_OK;
	case SQLITE_FUNCTION:
		if (b && sqlite3_stricmp(b, "load_extension") == 0)
			break;
		return SQLITE_OK;
	case SQLITE_PRAGMA:
		if (a && pragma_reads(a, b))
			return SQLITE_OK;
		snprintf(q->denied, sizeof(q->denied), "PRAGMA %.80s%s", a ? a : "?",
		         b ? " with a value" : "");
		return SQLITE_DENY;
	default:
		break;
	}
	snprintf(q->denied, sizeof(q->denied), "%s", "the statement");
	return SQLITE_DENY;
}

/* ---- parameters ---- */

/* A number if that is how SQLite would write it back, else text: 007 and 1.50 stay what they are. */
static int bind_value(sqlite3_stmt *s, int i, const char *text)
{
	char again[48], *end;

	errno = 0;
	long long n = strtoll(text, &end, 10);
	snprintf(again, sizeof(again), "%lld", n);
	if (!errno && !*end && strcmp(again, text) == 0)
		return sqlite3_bind_int64(s, i, n);
	double real = strtod(text, &end);
	snprintf(again, sizeof(again), "%.15g", real);
	if (!*end && strcmp(again, text) == 0 && strchr(text, '.'))
		return sqlite3_bind_double(s, i, real);
	return sqlite3_bind_text(s, i, text, -1, SQLITE_STATIC);
}

static struct reading_param *find_param(struct reading *q, const char *name)
{
	size_t len = strlen(name);

	for (size_t i = 0; i < q->n_params; i++)
		if (strncmp(q->params[i].text, name, len) == 0 && q->params[i].text[len] == '=')
			return &q->params[i];
	return NULL;
}

int reading_bind(struct reading *q, const struct cli *c, sqlite3_stmt *s, struct err *err)
{
	for (int i = 1; i <= sqlite3_bind_parameter_count(s); i++) {
		const char *name = sqlite3_bind_parameter_name(s, i);
		char number[16];
		snprintf(number, sizeof(number), "%d", i);
		struct reading_param *p = find_param(q, name ? name + 1 : number);
		if (!p)
			return cli_usage(c, err,
			                 "no value for parameter %.60s: give --param %.60s=VALUE",
			                 name ? name : number, name ? name + 1 : number);
		p->used = true;
		if (bind_value(s, i, strchr(p->text, '=') + 1) != SQLITE_OK)
			return err_set(err, ERR_NOMEM, 0, "out of memory");
	}
	return 0;
}

int reading_param(struct reading *q, const struct cli *c, struct err *err)
{
	if (!strchr(c->arg, '=') || c->arg[0] == '=')
		return cli_usage(c, err, "--param: '%.60s' is not NAME=VALUE", c->arg);
	if (q->n_params == READING_PARAMS_MAX)
		return cli_usage(c, err, "too many parameters");
	q->params[q->n_params++].text = c->arg;
	return 0;
}

int reading_all_used(const struct reading *q, const struct cli *c, struct err *err)
{
	for (size_t i = 0; i < q->n_params; i++)
		if (!q->params[i].used)
			return cli_usage(c, err, "no statement has parameter '%.60s'",
			                 q->params[i].text);
	return 0;
}

void reading_only(struct reading *q, sqlite3 *db)
{
	sqlite3_set_authorizer(db, authorize, q);
}

int reading_denied(const struct reading *q, const char *command, struct err *err)
{
	return err_set(err, ERR_REFUSED, 0, "%s: %s is not allowed: the past can only be read",
	               command, q->denied);
}
