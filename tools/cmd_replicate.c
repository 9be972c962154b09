/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/cli.h"

#include "engine/base/log.h"
#include "engine/daemon/replicate.h"

#include "engine/base/file.h"
#include "engine/config/config.h"
#include "engine/store/store.h"

#include <limits.h>

#define DESTINATIONS_MAX 16

enum {
	OPT_NAME = OPT_FIRST_OWN,
	OPT_ADOPT,
	OPT_STRICT,
	OPT_ENABLE_WAL,
	OPT_WAL_CAP,
	OPT_SEGMENT_SIZE,
	OPT_NO_MAINTENANCE,
	OPT_READY_FD,
	OPT_TAKE_OVER,
};

/* The first archive is a directory; with buckets alone one is kept where the host keeps state. */
static int choose_archive(struct cli *c, char state[PATH_MAX], struct replicate_options *o,
                          struct err *err)
{
	bool own = !store_is_url(c->args[1]);

	o->archive = c->args[1];
	o->destinations = (const char *const *)&c->args[own ? 2 : 1];
	o->n_destinations = (size_t)(c->n_args - (own ? 2 : 1));
	if (own)
		return 0;
	config_state_archive(state);
	o->archive = state;
	int rc = file_make_dirs(state, err);
	if (rc == 0)
		log_info("replicate", "no directory is named, history is kept in %s, too", state);
	return rc;
}

static int run_replicate(struct cli *c, struct err *err)
{
	struct replicate_options options = {.ready_fd = -1};
	char state[PATH_MAX];
	uint64_t fd;
	int id, rc = 0;

	while (!rc && (id = cli_option(c, err)) > 0) {
		switch (id) {
		case OPT_NAME:
			options.name = c->arg;
			break;
		case OPT_ADOPT:
			options.adopt = true;
			break;
		case OPT_STRICT:
			options.strict = true;
			break;
		case OPT_ENABLE_WAL:
			options.enable_wal = true;
			break;
		case OPT_WAL_CAP:
			rc = cli_size(c, "--wal-cap", c->arg, &options.wal_cap_bytes, err);
			break;
		case OPT_SEGMENT_SIZE:
			rc = cli_size(c, "--segment-size", c->arg, &options.segment_bytes, err);
			break;
		case OPT_NO_MAINTENANCE:
			options.no_maintenance = true;
			break;
		case OPT_READY_FD:
			rc = cli_number(c, "--ready-fd", c->arg, 0, INT_MAX, &fd, err);
			options.ready_fd = rc ? -1 : (int)fd;
			break;
		case OPT_TAKE_OVER:
			options.take_over = true;
			break;
		case 'q':
			log_set_level(LOG_WARN);
			break;
		case 'v':
			log_set_level(LOG_DEBUG);
			break;
		}
	}
	if (rc || id < 0)
		return rc ? rc : id;
	if ((rc = cli_check_args(c, 2, 2 + DESTINATIONS_MAX,
	                         c->n_args ? "ARCHIVE" : "DB and ARCHIVE", err)))
		return rc;
	options.db_path = c->args[0];
	if ((rc = choose_archive(c, state, &options, err)))
		return rc;
	return replicate_run(&options, err);
}

static const struct cli_option options_table[] = {
        {OPT_NAME, "name", "NAME", "its name in the archive (default: the file's name)"},
        {OPT_ADOPT, "adopt", NULL, "take over a name that belongs to another path"},
        {OPT_ENABLE_WAL, "enable-wal", NULL, "switch a rollback-journal database to WAL"},
        {OPT_TAKE_OVER, "take-over", NULL, "write where another asof wrote; that one stops"},
        {OPT_STRICT, "strict", NULL, "never without a lock, whatever it costs the application"},
        {OPT_WAL_CAP, "wal-cap", "SIZE", "let go of a WAL larger than this (default 1G)"},
        {OPT_SEGMENT_SIZE, "segment-size", "SIZE", "cut segments at this much WAL (default 64M)"},
        {OPT_NO_MAINTENANCE, "no-maintenance", NULL, "neither seal nor join nor coalesce"},
        {OPT_READY_FD, "ready-fd", "FD", "write \"ready\" there once capture runs"},
        {'q', "quiet", NULL, "log warnings and errors only"},
        {'v', "verbose", NULL, "log more"},
        CLI_OPTION_END,
};

const struct cli_command cmd_replicate = {
        .name = "replicate",
        .usage = "DB ARCHIVE [ARCHIVE]... [OPTION]...",
        .summary = "Captures every commit of a live database into an archive, until stopped.",
        .details = "DB is in WAL mode and in use by other programs; nothing is written to it.\n"
                   "The first ARCHIVE is a directory and is made if it is missing; with buckets\n"
                   "alone one is kept in the host's state folder, too.  The others get what it\n"
                   "holds, each at its own pace.  SIGTERM and SIGINT end it, the last commit\n"
                   "captured.\n",
        .example = "asof replicate /data/futures_trades.db /backups",
        .options = options_table,
        .run = run_replicate,
};
