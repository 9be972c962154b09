/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/cli.h"

#include "engine/base/log.h"
#include "engine/daemon/run.h"

#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

enum {
	OPT_ONCE = OPT_FIRST_OWN,
	OPT_EXEC,
	OPT_NO_EXPAND,
};

static int run_run(struct cli *c, struct err *err)
{
	struct run_options options = {.program = "/proc/self/exe"};
	char program[PATH_MAX];
	int id, status = 0;

	while ((id = cli_option(c, err)) > 0) {
		switch (id) {
		case OPT_ONCE:
			options.once = true;
			break;
		case OPT_EXEC:
			options.exec = c->arg;
			break;
		case OPT_NO_EXPAND:
			options.config.no_expand = true;
			break;
		case 'q':
			log_set_level(LOG_WARN);
			options.log_level_given = true;
			break;
		case 'v':
			log_set_level(LOG_DEBUG);
			options.log_level_given = true;
			break;
		}
	}
	if (id < 0)
		return id;
	int rc = cli_check_args(c, 0, 0, "", err);
	if (rc)
		return rc;
	if (options.once && options.exec)
		return cli_usage(c, err, "--once and --exec do not go together");
	options.config.path = c->config_path ? c->config_path : config_default_path();
	options.config.env_path = c->env_path;
	/* Children are this program, also when the file at its path is replaced by a newer one. */
	ssize_t n = readlink("/proc/self/exe", program, sizeof(program) - 1);
	if (n > 0) {
		program[n] = 0;
		options.program = program;
	}
	rc = run_daemon(&options, &status, err);
	if (rc == 0 && status) {
		fflush(stdout);
		exit(status); /* the application's, which nothing in the table of errors stands for */
	}
	return rc;
}

static const struct cli_option run_options_table[] = {
        {OPT_ONCE, "once", NULL, "bring every database up to date, make due backups, end"},
        {OPT_EXEC, "exec", "COMMAND", "run the application, end with it and with its status"},
        {OPT_NO_EXPAND, "no-expand-env", NULL, "leave $VARIABLES in the configuration as they are"},
        {'q', "quiet", NULL, "log warnings and errors only"},
        {'v', "verbose", NULL, "log more"},
        CLI_OPTION_END,
};

const struct cli_command cmd_run = {
        .name = "run",
        .usage = "[--config FILE] [OPTION]...",
        .summary = "Replicates, schedules, retains, verifies and mounts, as configured.",
        .details =
                "SIGHUP loads the configuration again; SIGTERM and SIGINT end it, the last commit\n"
                "captured.  While it runs, asof pause, resume, add, drop, sync and reload speak "
                "to\n"
                "it through its control socket: `socket:` of the configuration, else\n"
                "$RUNTIME_DIRECTORY/asof.sock, else ARCHIVE/control.sock.\n",
        .example = "asof run --config /etc/asof.yml",
        .options = run_options_table,
        .one_dash = true, /* -exec */
        .run = run_run,
};
