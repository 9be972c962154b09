/* SPDX-License-Identifier: Apache-2.0 */
/* asof pause, resume, add, drop, sync, reload: orders to a running `asof run`. */
#include "tools/control.h"

#include "engine/base/file.h"
#include "engine/daemon/control.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum {
	OPT_SOCKET = OPT_FIRST_OWN,
	OPT_NAME,
	OPT_WAIT,
	OPT_TIMEOUT,
};

struct order {
	struct control_place place;
	const char *name;
	bool wait;
	uint64_t timeout_s;
};

/* The options that they have in common. */
static int take_options(struct cli *c, struct order *o, struct err *err)
{
	int id, rc = 0;

	*o = (struct order){.timeout_s = CONTROL_SYNC_MAX_S};
	while (!rc && (id = cli_option(c, err)) > 0) {
		switch (id) {
		case OPT_SOCKET:
			o->place.socket = c->arg;
			break;
		case OPT_ARCHIVE:
			o->place.archive = c->arg;
			break;
		case OPT_NAME:
			o->name = c->arg;
			break;
		case OPT_WAIT:
			o->wait = true;
			break;
		case OPT_TIMEOUT:
			rc = cli_number(c, "--timeout", c->arg, 0, CONTROL_SYNC_MAX_S,
			                &o->timeout_s, err);
			break;
		}
	}
	o->place.config = c->config_path;
	o->place.env = c->env_path;
	return rc ? rc : id;
}

static int send_order(const struct order *o, json_t *order, struct err *err)
{
	json_t *answer = NULL;
	int rc = control_ask(&o->place, order, &answer, err);

	json_decref(answer);
	return rc;
}

/* The daemon has another working folder. */
static int absolute(const char *path, char out[PATH_MAX], struct err *err)
{
	char cwd[PATH_MAX / 2];

	if (path[0] == '/')
		snprintf(out, PATH_MAX, "%s", path);
	else if (getcwd(cwd, sizeof(cwd)))
		snprintf(out, PATH_MAX, "%s/%.2000s", cwd, path);
	else
		return err_set(err, ERR_IO, errno, "current folder");
	return 0;
}

/* A name, or a path: that is made absolute. */
static int database_of(const char *word, char path[PATH_MAX], const char **ret, struct err *err)
{
	*ret = strchr(word, '/') ? path : word;
	return *ret == word ? 0 : absolute(word, path, err);
}

static int order_for_database(struct cli *c, const char *command, struct err *err)
{
	char path[PATH_MAX];
	const char *database = NULL;
	struct order o;
	int rc = take_options(c, &o, err);

	if (rc == 0)
		rc = cli_check_args(c, 1, 1, "DB", err);
	if (rc == 0)
		rc = database_of(c->args[0], path, &database, err);
	if (rc == 0)
		rc = send_order(&o, json_pack("{ss ss}", "command", command, "database", database),
		                err);
	return rc;
}

static int run_pause(struct cli *c, struct err *err)
{
	return order_for_database(c, "pause", err);
}

static int run_resume(struct cli *c, struct err *err)
{
	return order_for_database(c, "resume", err);
}

static int run_drop(struct cli *c, struct err *err)
{
	return order_for_database(c, "drop", err);
}

static int run_reload(struct cli *c, struct err *err)
{
	struct order o;
	int rc = take_options(c, &o, err);

	if (rc == 0)
		rc = cli_check_args(c, 0, 0, "", err);
	return rc ? rc : send_order(&o, json_pack("{ss}", "command", "reload"), err);
}

static int run_add(struct cli *c, struct err *err)
{
	char path[PATH_MAX], archive[PATH_MAX];
	struct order o;
	int rc = take_options(c, &o, err);

	if (rc == 0)
		rc = cli_check_args(c, 1, 1, "PATH", err);
	if (rc == 0)
		rc = absolute(c->args[0], path, err);
	if (rc == 0 && o.place.archive)
		rc = absolute(o.place.archive, archive, err);
	return rc ? rc
	          : send_order(&o,
	                       json_pack("{ss ss ss* ss*}", "command", "add", "path", path, "name",
	                                 o.name, "archive", o.place.archive ? archive : NULL),
	                       err);
}

static int run_sync(struct cli *c, struct err *err)
{
	char path[PATH_MAX];
	const char *database = NULL;
	struct order o;
	int rc = take_options(c, &o, err);

	if (rc == 0)
		rc = cli_check_args(c, 0, 1, "", err);
	if (rc == 0 && c->n_args)
		rc = database_of(c->args[0], path, &database, err);
	if (rc)
		return rc;
	return send_order(&o,
	                  json_pack("{ss ss* sb sI}", "command", "sync", "database", database,
	                            "wait", (int)o.wait, "timeout_s", (json_int_t)o.timeout_s),
	                  err);
}

#define OPTION_SOCKET                                                                              \
	{                                                                                          \
		OPT_SOCKET, "socket", "PATH", "the control socket (default: as configured)"        \
	}

static const struct cli_option common_options[] = {OPTION_SOCKET, CLI_OPTION_ARCHIVE,
                                                   CLI_OPTION_END};
static const struct cli_option add_options[] = {
        OPTION_SOCKET,
        {OPT_ARCHIVE, "archive", "ARCHIVE", "where its history goes (default: as configured)"},
        {OPT_NAME, "name", "NAME", "its name in the archive (default: the file's name)"},
        CLI_OPTION_END};
static const struct cli_option sync_options[] = {
        OPTION_SOCKET,
        CLI_OPTION_ARCHIVE,
        {OPT_WAIT, "wait", NULL, "return when it is done"},
        {OPT_TIMEOUT, "timeout", "SECONDS", "wait no longer (default: a day)"},
        CLI_OPTION_END};

const struct cli_command cmd_pause = {
        .name = "pause",
        .usage = "DB [OPTION]...",
        .summary = "Has the daemon let go of a database, its commits so far captured.",
        .details =
                "Returns when it has.  Until asof resume, or until the daemon is started again:\n"
                "for good, take it out of the configuration.  What is committed\n"
                "meanwhile is captured afterwards, or declared as a gap where it cannot be.\n",
        .example = "asof pause futures_trades.db",
        .options = common_options,
        .run = run_pause,
};

const struct cli_command cmd_resume = {
        .name = "resume",
        .usage = "DB [OPTION]...",
        .summary = "Has the daemon go on with a database that was paused.",
        .example = "asof resume futures_trades.db",
        .options = common_options,
        .run = run_resume,
};

const struct cli_command cmd_add = {
        .name = "add",
        .usage = "PATH [OPTION]...",
        .summary = "Has the daemon replicate one more database, until it ends.",
        .details = "To keep it, write it into the configuration.\n",
        .example = "asof add /data/ohlc_cache.db",
        .options = add_options,
        .run = run_add,
};

const struct cli_command cmd_drop = {
        .name = "drop",
        .usage = "DB [OPTION]...",
        .summary = "Has the daemon stop replicating a database; its history stays.",
        .details = "Returns when it has.  Until the configuration is loaded again, or the daemon\n"
                   "started again, if that names it: for good, take it out of there.\n",
        .example = "asof drop ohlc_cache.db",
        .options = common_options,
        .run = run_drop,
};

const struct cli_command cmd_sync = {
        .name = "sync",
        .usage = "[DB] [--wait] [OPTION]...",
        .summary = "Captures at once what is committed; with --wait it is durable on return.",
        .example = "asof sync --wait futures_trades.db",
        .options = sync_options,
        .run = run_sync,
};

const struct cli_command cmd_reload = {
        .name = "reload",
        .usage = "[OPTION]...",
        .summary = "Has the daemon load its configuration again, as SIGHUP does.",
        .example = "asof reload",
        .options = common_options,
        .run = run_reload,
};
