/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/copy/copy.h"
#include "tools/cli.h"
#include "tools/progress.h"

#include <inttypes.h>
#include <string.h>

enum { OPT_DB = OPT_FIRST_OWN };

static int say(const struct copy_options *o, const struct copy_result *r, bool json,
               struct err *err)
{
	char size[SIZE_STR_MAX];

	if (json)
		return cli_print_json(json_pack("{ss ss so so so so so}", "from", o->from, "to",
		                                o->to, "databases", cli_json_uint(r->databases),
		                                "objects", cli_json_uint(r->objects), "bytes",
		                                cli_json_uint(r->bytes), "present",
		                                cli_json_uint(r->present), "damaged",
		                                cli_json_uint(r->damaged)),
		                      err);
	cli_format_size(r->bytes, size);
	printf("copied %" PRIu64 " objects (%s) of %" PRIu64 " databases; %" PRIu64
	       " were there already\n",
	       r->objects, size, r->databases, r->present);
	return 0;
}

static int run_copy(struct cli *c, struct err *err)
{
	struct copy_options o = {0};
	struct copy_result res;
	struct store_options from_store, to_store;
	const struct config *config;
	struct progress progress;
	bool json = false;
	int id, rc;

	while ((id = cli_option(c, err)) > 0) {
		if (id == OPT_DB)
			o.db = c->arg;
		else
			json = true;
	}
	if (id < 0)
		return id;
	if ((rc = cli_check_args(c, 2, 2, "ARCHIVE ARCHIVE", err)))
		return rc;
	o.from = c->args[0];
	o.to = c->args[1];
	if ((store_is_url(o.from) || store_is_url(o.to)) && (rc = cli_config(c, &config, err)))
		return rc;
	cli_store_options(c, o.from, &from_store);
	cli_store_options(c, o.to, &to_store);
	o.from_store = &from_store;
	o.to_store = &to_store;
	progress_begin(&progress);
	progress_what(&progress, "copying");
	o.progress = progress_tell;
	o.ctx = &progress;
	rc = copy_archive(&o, &res, err);
	progress_clear(&progress);
	if (rc == 0 || err_kind_of(rc) == ERR_DAMAGED) {
		int said = say(&o, &res, json, err);
		rc = rc ? rc : said;
	}
	return rc;
}

static const struct cli_option copy_options[] = {
        {OPT_DB, "db", "DB", "the history of this database alone"},
        CLI_OPTION_JSON,
        CLI_OPTION_END,
};

const struct cli_command cmd_copy = {
        .name = "copy",
        .usage = "FROM TO [--db DB]",
        .summary = "Brings one archive up to another: histories, marks and backups.",
        .details = "FROM and TO are archives, directories or URLs; both may be in use, but TO is\n"
                   "not written to by a replicator.  What TO has already is not copied again,\n"
                   "nothing that TO keeps is deleted, and every byte that was copied is verified.\n"
                   "From URL to URL what is encrypted goes as it is, and needs no key.\n",
        .example = "asof copy /backups /mnt/usb/backups",
        .options = copy_options,
        .run = run_copy,
};
