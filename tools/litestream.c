/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/litestream.h"

#include "engine/view/history.h"
#include "tools/cli.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- options ---- */

enum {
	FOR_REPLICATE = 1,
	FOR_RESTORE = 2,
	FOR_DATABASES = 4,
	FOR_GENERATIONS = 8,
	FOR_SNAPSHOTS = 16,
	FOR_WAL = 32,
	FOR_VALIDATE = 64,
	FOR_VERSION = 128,
	FOR_LISTS = FOR_GENERATIONS | FOR_SNAPSHOTS | FOR_WAL,
	FOR_ALL = FOR_REPLICATE | FOR_RESTORE | FOR_DATABASES | FOR_LISTS | FOR_VALIDATE,
};

struct option_row {
	const char *name;
	const char *arg; /* NULL: a flag; HEX and N are numbers */
	unsigned commands;
	size_t offset; /* in struct litestream, of a text or a bool */
	const char *help;
};

#define AT(member) offsetof(struct litestream, member)
static const struct option_row options[] = {
        {"config", "PATH", FOR_ALL, AT(config_path), "the configuration file"},
        {"no-expand-env", NULL, FOR_ALL, AT(no_expand_env), "leave $VAR in it as it stands"},
        {"exec", "CMD", FOR_REPLICATE, AT(exec), "run CMD, and end with it"},
        {"replica", "NAME", FOR_RESTORE | FOR_LISTS, AT(replica), "this replica alone"},
        {"generation", "NAME", FOR_RESTORE | FOR_WAL, AT(generation), "this lineage alone"},
        {"index", "HEX", FOR_RESTORE, AT(index), "up to this txid, with it"},
        {"timestamp", "TIME", FOR_RESTORE, AT(timestamp), "as of this moment, or latest"},
        {"o", "PATH", FOR_RESTORE, AT(out), "the file to write (default: DB)"},
        {"if-db-not-exists", NULL, FOR_RESTORE, AT(if_db_not_exists),
         "do nothing, successfully, if the file is there"},
        {"if-replica-exists", NULL, FOR_RESTORE, AT(if_replica_exists),
         "do nothing, successfully, if there is nothing to restore"},
        {"parallelism", "N", FOR_RESTORE, AT(parallelism), "taken, and of no effect"},
        {"v", NULL, FOR_RESTORE, AT(verbose), "taken, and of no effect"},
};
#undef AT

static int do_replicate(const struct litestream *l, struct err *err);
static int do_restore(const struct litestream *l, struct err *err);
static int do_validate(const struct litestream *l, struct err *err);
static int do_version(const struct litestream *l, struct err *err);

static const struct command_row {
	const char *name;
	unsigned bit;
	int min_args, max_args; /* -1: any number */
	const char *usage, *summary;
	int (*run)(const struct litestream *l, struct err *err);
} commands[] = {
        {"databases", FOR_DATABASES, 0, 0, "", "lists the databases of the configuration",
         litestream_databases},
        {"generations", FOR_GENERATIONS, 1, 1, "DB|URL", "lists the lineages of a database",
         litestream_generations},
        {"replicate", FOR_REPLICATE, 0, -1, "[DB URL...]", "captures databases until stopped",
         do_replicate},
        {"restore", FOR_RESTORE, 1, 1, "DB|URL", "writes a past state to a file", do_restore},
        {"snapshots", FOR_SNAPSHOTS, 1, 1, "DB|URL", "lists the snapshots of a database",
         litestream_snapshots},
        {"validate", FOR_VALIDATE, 0, 0, "", "checks the configuration", do_validate},
        {"version", FOR_VERSION, 0, -1, "", "shows the version", do_version},
        {"wal", FOR_WAL, 1, 1, "DB|URL", "lists the WAL objects of a database", litestream_wal},
};
#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))
#define N_OPTIONS (sizeof(options) / sizeof(options[0]))

bool litestream_is_name(const char *argv0)
{
	const char *slash = argv0 ? strrchr(argv0, '/') : NULL;

	return argv0 && strcmp(slash ? slash + 1 : argv0, "litestream") == 0;
}

static const struct command_row *find_command(const char *name)
{
	for (size_t i = 0; i < N_COMMANDS; i++)
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	return NULL;
}

static const struct option_row *find_option(const char *name, size_t len, unsigned commands_bits)
{
	for (size_t i = 0; i < N_OPTIONS; i++)
		if (strlen(options[i].name) == len && memcmp(options[i].name, name, len) == 0 &&
		    options[i].commands & commands_bits)
			return &options[i];
	return NULL;
}

static int wrong(const struct litestream *l, struct err *err, const char *fmt, ...)
        __attribute__((format(printf, 3, 4)));
static int wrong(const struct litestream *l, struct err *err, const char *fmt, ...)
{
	char text[320];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return err_set(err, ERR_USAGE, 0, "%s%s%s (see litestream %s%s-h)",
	               l->command ? l->command : "", l->command ? ": " : "", text,
	               l->command ? l->command : "", l->command ? " " : "");
}

/* Digits of `base`, all of the text. */
static bool parse_digits(const char *text, int base, uint64_t *ret)
{
	const char *digits = base == 16 ? "0123456789abcdefABCDEF" : "0123456789";

	errno = 0;
	*ret = strtoull(text, NULL, base);
	return *text && text[strspn(text, digits)] == '\0' && errno == 0;
}

static bool parse_flag(const char *text, bool *ret)
{
	static const char *const yes[] = {"1", "t", "T", "true", "True", "TRUE"};
	static const char *const no[] = {"0", "f", "F", "false", "False", "FALSE"};

	for (size_t i = 0; i < sizeof(yes) / sizeof(yes[0]); i++) {
		if (strcmp(text, yes[i]) == 0 || strcmp(text, no[i]) == 0) {
			*ret = strcmp(text, yes[i]) == 0;
			return true;
		}
	}
	return false;
}

/* What is wrong with a value; NULL: nothing. */
static const char *value_problem(const struct option_row *o, const char *value)
{
	uint64_t n;

	if (strcmp(o->arg, "HEX") == 0 && !parse_digits(value, 16, &n))
		return "not a hexadecimal number";
	if (strcmp(o->arg, "N") == 0 && !parse_digits(value, 10, &n))
		return "not a number";
	return NULL;
}

/*
 * One option at argv[*i], as the flags of Go: one dash or two, a value behind '=' or in the next
 * word, a flag with `=false` too.  *i is moved past it.
 */
static int take_option(struct litestream *l, unsigned bits, int argc, char **argv, int *i,
                       struct err *err)
{
	const char *word = argv[(*i)++];
	const char *name = word + (word[1] == '-' ? 2 : 1);
	const char *equals = strchr(name, '=');
	size_t len = equals ? (size_t)(equals - name) : strlen(name);
	const struct option_row *o = find_option(name, len, bits);

	if (!o)
		return wrong(l, err, "unknown option '%.100s'", word);
	void *place = (char *)l + o->offset;
	if (!o->arg) {
		*(bool *)place = true;
		if (equals && !parse_flag(equals + 1, place))
			return wrong(l, err, "invalid value in '%.100s': neither true nor false",
			             word);
		return 0;
	}
	const char *value = equals ? equals + 1 : *i < argc ? argv[(*i)++] : NULL;
	if (!value)
		return wrong(l, err, "option '%.100s' needs an argument", word);
	const char *problem = value_problem(o, value);
	if (problem)
		return wrong(l, err, "invalid value '%.60s' for option -%s: %s", value, o->name,
		             problem);
	*(const char **)place = value;
	return 0;
}

static bool is_help(const char *word)
{
	return strcmp(word, "-h") == 0 || strcmp(word, "-help") == 0 || strcmp(word, "--help") == 0;
}

/* Options up to the first word that is none; 1: help was asked for. */
static int take_options(struct litestream *l, unsigned bits, int argc, char **argv, int *i,
                        struct err *err)
{
	while (*i < argc && argv[*i][0] == '-' && argv[*i][1]) {
		if (is_help(argv[*i]))
			return 1;
		if (strcmp(argv[*i], "--") == 0) {
			(*i)++;
			return 0;
		}
		int rc = take_option(l, bits, argc, argv, i, err);
		if (rc)
			return rc;
	}
	return 0;
}

static void print_help(void)
{
	printf("usage: litestream [-config PATH] COMMAND [OPTION]... [ARGUMENT]...\n\n"
	       "asof, taking the commands of Litestream.\n\ncommands:\n");
	for (size_t i = 0; i < N_COMMANDS; i++)
		printf("  %-12s %s\n", commands[i].name, commands[i].summary);
	printf("\nlitestream COMMAND -h says more; asof --help has what this name has not.\n");
}

static void print_command_help(const struct command_row *c)
{
	printf("usage: litestream %s [OPTION]...%s%s\n\n%s\n\noptions:\n", c->name,
	       *c->usage ? " " : "", c->usage, c->summary);
	for (size_t i = 0; i < N_OPTIONS; i++) {
		char left[40];
		if (!(options[i].commands & c->bit))
			continue;
		snprintf(left, sizeof(left), "-%s%s%s", options[i].name, options[i].arg ? " " : "",
		         options[i].arg ? options[i].arg : "");
		printf("  %-20s %s\n", left, options[i].help);
	}
	printf("  %-20s %s\n", "-h", "show this");
}

static int check_args(const struct litestream *l, const struct command_row *c, struct err *err)
{
	if (l->n_args < c->min_args)
		return wrong(l, err, "database path or replica URL required");
	if (c->max_args >= 0 && l->n_args > c->max_args)
		return wrong(l, err, "too many arguments: '%.100s'%s", l->args[c->max_args],
		             l->args[c->max_args][0] == '-' ? ", options come first" : "");
	for (int i = 0; i < l->n_args; i++)
		if (l->args[i][0] == '\0')
			return wrong(l, err, "an argument is empty");
	return 0;
}

int litestream_run(int argc, char **argv, struct err *err)
{
	struct litestream l = {0};
	int i = 1;
	int rc = take_options(&l, FOR_VALIDATE, argc, argv, &i, err);

	if (rc < 0)
		return rc;
	if (rc > 0 || i >= argc || strcmp(argv[i], "help") == 0) {
		print_help();
		return cli_finish_output(err);
	}
	const struct command_row *c = find_command(argv[i]);
	if (!c)
		return wrong(&l, err, "unknown command '%.100s'", argv[i]);
	l.command = argv[i++];
	if ((rc = take_options(&l, c->bit, argc, argv, &i, err)) < 0)
		return rc;
	if (rc > 0) {
		print_command_help(c);
		return cli_finish_output(err);
	}
	l.args = argv + i;
	l.n_args = argc - i;
	if ((rc = check_args(&l, c, err)) || (rc = c->run(&l, err)))
		return rc;
	return cli_finish_output(err);
}

/* ---- replicate ---- */

/* Hands over to a command of asof's; `words` end with NULL. */
static int hand_over(const struct cli_command *command, const char *const *words, struct err *err)
{
	char *argv[32];
	int argc = 0;

	for (; words[argc] && argc < 31; argc++)
		argv[argc] = (char *)words[argc]; /* getopt reorders, it does not write into them */
	argv[argc] = NULL;
	return cli_run_command(command, argc, argv, err);
}

static json_t *replica_of(const char *url, const char *cwd)
{
	bool file = strncmp(url, "file://", 7) == 0;
	const char *path = file ? url + 7 : url;

	if (!file && litestream_is_url(url))
		return json_pack("{ss}", "url", url);
	return json_pack("{ss ss++}", "type", "file", "path", path[0] == '/' ? "" : cwd,
	                 path[0] == '/' ? "" : "/", path);
}

/* `DB URL...` as the configuration that it stands for (JSON is YAML, too), in an unnamed file. */
static int write_config(const struct litestream *l, int *ret_fd, struct err *err)
{
	char cwd[PATH_MAX];
	const char *path = l->args[0];
	json_t *replicas = json_array();

	if (!getcwd(cwd, sizeof(cwd))) {
		json_decref(replicas);
		return err_set(err, ERR_IO, errno, "replicate: the working folder");
	}
	int lost = 0;
	for (int i = 1; i < l->n_args; i++)
		lost |= json_array_append_new(replicas, replica_of(l->args[i], cwd));
	json_t *whole = json_pack("{s[{ss++ so}]}", "dbs", "path", path[0] == '/' ? "" : cwd,
	                          path[0] == '/' ? "" : "/", path, "replicas", replicas);
	if (lost || !whole) {
		json_decref(whole);
		return err_set(err, ERR_USAGE, 0, "replicate: a path or URL is not UTF-8");
	}
	*ret_fd = memfd_create("litestream replicate", MFD_CLOEXEC);
	int failed = *ret_fd < 0 || json_dumpfd(whole, *ret_fd, JSON_INDENT(1));
	json_decref(whole);
	return failed ? err_set(err, ERR_IO, errno, "replicate: the configuration") : 0;
}

static int do_replicate(const struct litestream *l, struct err *err)
{
	cleanup_fd int fd = -1;
	const char *words[8] = {"run", "--config", litestream_config_path(l)};
	char path[40];
	int n = 3;

	if (l->n_args == 1)
		return wrong(l, err, "must specify at least one replica URL for %.200s",
		             l->args[0]);
	if (l->n_args && l->config_path)
		return wrong(l, err, "cannot specify a replica URL and the -config option");
	if (l->n_args) {
		int rc = write_config(l, &fd, err);
		if (rc)
			return rc;
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		words[2] = path;
	}
	if (!words[2])
		return litestream_no_config(l, err);
	if (l->no_expand_env || l->n_args)
		words[n++] = "--no-expand-env";
	if (l->exec) {
		words[n++] = "--exec";
		words[n++] = l->exec;
	}
	return hand_over(&cmd_run, words, err);
}

/* ---- restore ---- */

int litestream_generation(const struct litestream *l, uint32_t *ret, struct err *err)
{
	uint64_t v;

	if (!parse_digits(l->generation, 16, &v) || v == 0 || v > UINT32_MAX)
		return err_set(
		        err, ERR_NOT_FOUND, 0,
		        "%s: there is no generation '%.60s' (litestream generations lists them)",
		        l->command, l->generation);
	*ret = (uint32_t)v;
	return 0;
}

/* Which commit is meant; NOT_FOUND: none. */
static int pick_moment(const struct litestream *l, struct history *h, struct moment *ret,
                       struct err *err)
{
	struct litestream_bounds b = {.max_txid = UINT64_MAX, .max_us = INT64_MAX};
	bool latest = !l->timestamp || strcmp(l->timestamp, "latest") == 0;
	int64_t now_us = clock_now_us(), at_us = 0;
	int rc = latest ? 0 : cli_time("restore: -timestamp", l->timestamp, now_us, &at_us, err);

	if (rc)
		return rc;
	if (!l->generation && !l->index)
		return latest ? history_latest(h, ret, err)
		              : history_at(h, at_us, now_us, ret, err);
	if (!latest)
		b.max_us = at_us;
	if (l->index)
		b.max_txid = strtoull(l->index, NULL, 16);
	if (l->generation && (rc = litestream_generation(l, &b.lineage, err)))
		return rc;
	return litestream_newest(h, &b, ret, err);
}

static int check_restore(const struct litestream *l, struct err *err)
{
	if (l->out && !*l->out)
		return wrong(l, err, "-o is empty");
	if (!l->out && litestream_is_url(l->args[0]))
		return wrong(l, err, "a replica URL needs -o PATH");
	if (l->index && l->timestamp)
		return wrong(l, err, "give one of -index and -timestamp");
	return 0;
}

/* Opens the first replica that has the database, and finds the moment in it. */
static int find_moment(const struct litestream *l, const struct litestream_target *t,
                       struct archive **ret, struct history **ret_history, struct moment *m,
                       struct err *err)
{
	int rc = 0;

	for (size_t i = 0; i < t->n_replicas; i++) {
		rc = litestream_open(t, &t->replicas[i], ret, ret_history, err);
		if (!rc)
			return pick_moment(l, *ret_history, m, err);
		if (err_kind_of(rc) != ERR_NOT_FOUND)
			break;
	}
	return rc;
}

static int is_there(const struct litestream *l, const char *out, struct err *err)
{
	if (!l->if_db_not_exists)
		return err_set(
		        err, ERR_EXISTS, 0,
		        "restore: output path already exists: %s (-o PATH puts it elsewhere; "
		        "asof restore --force replaces it)",
		        out);
	fprintf(stderr, "database already exists, skipping: %s\n", out);
	return 0;
}

static int do_restore(const struct litestream *l, struct err *err)
{
	cleanup_litestream_target struct litestream_target t = {0};
	cleanup_archive struct archive *a = NULL;
	cleanup_history struct history *h = NULL;
	const char *out = l->out ? l->out : l->args[0];
	char txid[24];
	struct moment m;
	struct stat st;
	int rc = check_restore(l, err);

	if (rc)
		return rc;
	/* In their order: a database that is not configured is said first, a URL is asked last. */
	bool url = litestream_is_url(l->args[0]);
	if (!url && (rc = litestream_find(l, l->args[0], &t, err)))
		return rc;
	if (lstat(out, &st) == 0)
		return is_there(l, out, err);
	if (url && (rc = litestream_find(l, l->args[0], &t, err)))
		return rc;
	rc = find_moment(l, &t, &a, &h, &m, err);
	if (err_kind_of(rc) == ERR_NOT_FOUND && l->if_replica_exists) {
		fprintf(stderr, "no matching backups found, skipping: %s\n", err->msg);
		return 0;
	}
	if (rc)
		return rc;
	snprintf(txid, sizeof(txid), "%" PRIu64, m.txid);
	const char *words[] = {"restore",
	                       "--archive",
	                       archive_root(a),
	                       "--db",
	                       history_name(h),
	                       "--tx",
	                       txid,
	                       "-o",
	                       out,
	                       NULL};
	return hand_over(&cmd_restore, words, err);
}

/* ---- validate, version ---- */

static int do_validate(const struct litestream *l, struct err *err)
{
	cleanup_config struct config *config = NULL;
	int rc = litestream_load_config(l, true, &config, err);

	if (!rc)
		printf("configuration is valid: %s\n", config->path);
	return rc;
}

static int do_version(const struct litestream *l, struct err *err)
{
	printf("asof v%s\n", ASOF_VERSION);
	return 0;
}
