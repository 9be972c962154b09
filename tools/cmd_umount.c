/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/cli.h"

#include "fs/mount.h"
#include "fs/mounted.h"

static int run_umount(struct cli *c, struct err *err)
{
	char path[PATH_MAX];
	bool lazy = false;
	int id, rc;

	while ((id = cli_option(c, err)) > 0)
		lazy = true;
	if (id < 0)
		return id;
	if ((rc = cli_check_args(c, 1, 1, "DIR", err)) ||
	    (rc = fs_mounted_path(c->args[0], path, err)))
		return rc;
	return fs_umount(path, lazy, err);
}

static const struct cli_option umount_options[] = {
        {'z', "lazy", NULL, "take it out of the tree now, end it with its last user"},
        CLI_OPTION_END,
};

const struct cli_command cmd_umount = {
        .name = "umount",
        .usage = "DIR [--lazy]",
        .summary = "Takes a mount down (fusermount3 -u DIR does it as well).",
        .example = "asof umount /mnt",
        .options = umount_options,
        .prints = true,
        .run = run_umount,
};
