/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The program: finds the command, runs it, prints its error, gives the exit status.
 *
 * mount(8) and fstab start it as `asof ARCHIVE DIR -o OPTIONS` (type fuse.asof): a first word
 * that is no command, followed by a directory or by -o, is that form.
 */
#include "tools/cli.h"
#include "tools/complete.h"
#include "tools/litestream.h"

#include "engine/backup/backup.h"
#include "engine/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct cli_command *const commands[] = {
        &cmd_replicate, &cmd_mount,    &cmd_umount, &cmd_backup, &cmd_list,    &cmd_stats,
        &cmd_cleanup,   &cmd_validate, &cmd_log,    &cmd_status, &cmd_restore, &cmd_guard,
        &cmd_check,     &cmd_doctor,   &cmd_query,  &cmd_diff,   &cmd_bisect,  &cmd_mark,
        &cmd_copy,      &cmd_run,      &cmd_pause,  &cmd_resume, &cmd_add,     &cmd_drop,
        &cmd_sync,      &cmd_reload,   &cmd_wait,   &cmd_key,
};
#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))

static const struct cli_command *find_command(const char *name)
{
	for (size_t i = 0; i < N_COMMANDS; i++)
		if (strcmp(commands[i]->name, name) == 0)
			return commands[i];
	return strcmp(name, cmd_job.name) == 0 ? &cmd_job : NULL;
}

static void print_help(void)
{
	printf("usage: asof COMMAND [ARGUMENT]...\n\n"
	       "Captures every commit of live SQLite databases into an archive, and gives any "
	       "past\n"
	       "moment back as plain files.\n\ncommands:\n");
	for (size_t i = 0; i < N_COMMANDS; i++)
		printf("  %-11s %s\n", commands[i]->name, commands[i]->summary);
	printf("\noptions:\n"
	       "  -h, --help     show this; asof COMMAND --help says more\n"
	       "  --version      show the version\n"
	       "\nexample:\n"
	       "  asof replicate /data/trades.db /backups &\n"
	       "  asof mount /backups /mnt\n"
	       "  sqlite3 /mnt/at/-5m/trades.db 'SELECT count(*) FROM trades'\n");
}

static bool is_directory(const char *path)
{
	struct stat st;

	/* A mount point left behind by a server that died answers ENOTCONN. */
	return stat(path, &st) ? errno == ENOTCONN : S_ISDIR(st.st_mode);
}

static bool is_mount_helper_form(int argc, char **argv)
{
	return argc >= 3 && argv[1][0] != '-' &&
	       (strcmp(argv[2], "-o") == 0 || (argc >= 4 && strcmp(argv[3], "-o") == 0) ||
	        is_directory(argv[2]));
}

/* Descriptors 0 to 2 must not become files of an archive because the caller closed them.
 * What is put there fails on use in the way that a closed one does. */
static void occupy_standard_descriptors(void)
{
	for (;;) {
		int fd = open("/dev/null", O_PATH | O_CLOEXEC);
		if (fd < 0)
			return;
		if (fd > STDERR_FILENO) {
			close(fd);
			return;
		}
	}
}

/* A database that is read takes five descriptors and those of its objects, one that is captured a
 * dozen; what shells and services start with is enough for 80. */
static void raise_limit_of_files(void)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur < l.rlim_max) {
		l.rlim_cur = l.rlim_max;
		setrlimit(RLIMIT_NOFILE, &l);
	}
}

static int run(int argc, char **argv, struct err *err)
{
	const char *word = argc > 1 ? argv[1] : NULL;

	if (!word || !*word)
		return err_set(err, ERR_USAGE, 0, "no command given (see asof --help)");
	if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0) {
		const struct cli_command *command = argc > 2 ? find_command(argv[2]) : NULL;
		if (argc > 3 || (argc == 3 && !command))
			return err_set(err, ERR_USAGE, 0,
			               "help: unexpected argument '%.100s' (see asof --help)",
			               argv[argc - 1]);
		if (command)
			cli_print_help(command, stdout);
		else
			print_help();
		return cli_finish_output(err);
	}
	if (strcmp(word, "--version") == 0) {
		if (argc > 2)
			return err_set(err, ERR_USAGE, 0,
			               "--version: unexpected argument '%.100s' (see asof --help)",
			               argv[2]);
		printf("asof %s\n", ASOF_VERSION);
		return cli_finish_output(err);
	}
	if (strcmp(word, "--complete") == 0 && argc > 2)
		return complete_words(commands, N_COMMANDS, argv + 2, (size_t)argc - 2, err);
	const struct cli_command *command = find_command(word);
	if (command)
		return cli_run_command(command, argc - 1, argv + 1, err);
	if (word[0] == '-')
		return err_set(err, ERR_USAGE, 0, "unknown option '%.100s' (see asof --help)",
		               word);
	if (is_mount_helper_form(argc, argv))
		return cli_run_command(&cmd_mount, argc, argv, err);
	return err_set(err, ERR_USAGE, 0, "unknown command '%.100s' (see asof --help)", word);
}

int main(int argc, char **argv)
{
	struct err err = ERR_INIT;

	occupy_standard_descriptors();
	raise_limit_of_files();
	if (backup_is_reader(argc, argv))
		return backup_reader_main(argc, argv);
	bool litestream = argc > 0 && litestream_is_name(argv[0]);
	int rc = litestream ? litestream_run(argc, argv, &err) : run(argc, argv, &err);
	if (!rc)
		return 0;
	cli_one_line(err.msg);
	fflush(stdout);
	fprintf(stderr, "%s: %s\n", litestream ? "litestream" : "asof", err.msg);
	return err_exit_status(err_kind_of(rc));
}
