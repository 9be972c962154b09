/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/cli.h"

#include "engine/base/buf.h"
#include "engine/base/units.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define MAX_OPTIONS 32

/* ---- options ---- */

int cli_usage(const struct cli *c, struct err *err, const char *fmt, ...)
{
	char text[320];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return err_set(err, ERR_USAGE, 0, "%s: %s (see asof %s --help)", c->command->name, text,
	               c->command->name);
}

static bool has_letter(const struct cli_option *o)
{
	return o->id < OPT_ARCHIVE;
}

/* What every command takes. */
static const struct cli_option common_options[] = {
        {OPT_CONFIG_FILE, "config", "FILE",
         "the configuration (default: ./asof.yml, /etc/asof.yml)"},
        {OPT_ENV_FILE, "env-file", "FILE",
         "its variables (default: .env.backup beside it, or here)"},
        CLI_OPTION_END,
};

const struct cli_option *cli_common_options(void)
{
	return common_options;
}

const struct cli_option *cli_find_option(const struct cli_option *options, const char *name,
                                         size_t len)
{
	for (; options->name; options++)
		if (strlen(options->name) == len && memcmp(options->name, name, len) == 0)
			return options;
	return NULL;
}

const struct cli_option *cli_find_letter(const struct cli_option *options, char letter)
{
	for (; options->name; options++)
		if (has_letter(options) && options->id == letter)
			return options;
	return NULL;
}

static void print_option(const struct cli_option *o, FILE *out)
{
	char left[64];

	snprintf(left, sizeof(left), "%c%c%s --%s%s%s", has_letter(o) ? '-' : ' ',
	         has_letter(o) ? o->id : ' ', has_letter(o) ? "," : " ", o->name, o->arg ? " " : "",
	         o->arg ? o->arg : "");
	fprintf(out, "  %-26s %s\n", left, o->help);
}

static void print_common_options(const struct cli_command *command, FILE *out)
{
	for (const struct cli_option *o = common_options; o->name; o++)
		if (!cli_find_option(command->options, o->name, strlen(o->name)))
			print_option(o, out);
	fprintf(out, "  %-26s %s\n", "-h, --help", "show this");
}

void cli_print_help(const struct cli_command *command, FILE *out)
{
	fprintf(out, "usage: asof %s %s\n\n%s\n\noptions:\n", command->name, command->usage,
	        command->summary);
	for (const struct cli_option *o = command->options; o->name; o++)
		print_option(o, out);
	print_common_options(command, out);
	if (command->details)
		fprintf(out, "\n%s", command->details);
	fprintf(out, "\nexample:\n  %s\n", command->example);
}

/* getopt's view of the table.  `letters` begins with ':': a missing argument is told apart. */
static void make_getopt_tables(const struct cli_option *options, struct option *longs,
                               char *letters)
{
	size_t n = 0;

	*letters++ = ':';
	*letters++ = 'h';
	for (const struct cli_option *o = options; o->name && n < MAX_OPTIONS; o++) {
		longs[n++] = (struct option){o->name, o->arg ? required_argument : no_argument,
		                             NULL, o->id};
		if (has_letter(o)) {
			*letters++ = (char)o->id;
			if (o->arg)
				*letters++ = ':';
		}
	}
	/* Behind the command's own: of two that are called alike the first counts. */
	for (const struct cli_option *o = common_options; o->name; o++)
		longs[n++] = (struct option){o->name, required_argument, NULL, o->id};
	longs[n++] = (struct option){"help", no_argument, NULL, 'h'};
	longs[n] = (struct option){NULL, 0, NULL, 0};
	*letters = '\0';
}

static int next_option(const struct cli *c, char **argv, const char *letters,
                       const struct option *longs)
{
	return (c->command->one_dash ? getopt_long_only : getopt_long)(c->argc, argv, letters,
	                                                               longs, NULL);
}

/* --config and --env-file count from the start, also for options that stand before them. */
static int find_common_options(struct cli *c, struct err *err)
{
	struct option longs[MAX_OPTIONS + 4];
	char letters[2 * MAX_OPTIONS + 4];
	size_t n = (size_t)c->argc;
	cleanup_free char **argv = calloc(n + 1, sizeof(*argv)); /* getopt changes its order */
	int id;

	if (!argv)
		return err_set(err, ERR_NOMEM, 0, "out of memory");
	memcpy(argv, c->argv, n * sizeof(*argv));
	make_getopt_tables(c->command->options, longs, letters);
	opterr = 0;
	optind = 0; /* from the start */
	while ((id = next_option(c, argv, letters, longs)) != -1)
		if (id == OPT_CONFIG_FILE || id == OPT_ENV_FILE)
			*(id == OPT_ENV_FILE ? &c->env_path : &c->config_path) = optarg;
	optind = 0;
	return 0;
}

int cli_option(struct cli *c, struct err *err)
{
	struct option longs[MAX_OPTIONS + 4];
	char letters[2 * MAX_OPTIONS + 4];

	make_getopt_tables(c->command->options, longs, letters);
	opterr = 0;
	int id = next_option(c, c->argv, letters, longs);
	while (id == OPT_CONFIG_FILE || id == OPT_ENV_FILE || id == OPT_ALSO) {
		if (id == OPT_ALSO && c->n_also == CLI_ALSO_MAX)
			return cli_usage(c, err, "--also is given more than %d times",
			                 CLI_ALSO_MAX);
		if (id == OPT_ALSO) /* the other two are known already */
			c->also[c->n_also++] = optarg;
		id = next_option(c, c->argv, letters, longs);
	}
	c->arg = optarg;
	switch (id) {
	case -1:
		c->args = c->argv + optind;
		c->n_args = c->argc - optind;
		return 0;
	case 'h':
		cli_print_help(c->command, stdout);
		c->helped = true;
		return err_set(err, ERR_CANCELLED, 0, "help");
	case ':':
		return cli_usage(c, err, "option '%s' needs an argument", c->argv[optind - 1]);
	case '?':
		/* A letter in a group such as -xf stands in optopt; a long one (also one with
		 * an argument that it does not take) is the word itself. */
		if (optopt > ' ' && optopt < 127 && strncmp(c->argv[optind - 1], "--", 2) != 0)
			return cli_usage(c, err, "unknown option '-%c'", optopt);
		return cli_usage(c, err, "unknown option '%.100s'", c->argv[optind - 1]);
	default:
		return id;
	}
}

static bool names_database(const struct cli_option *options)
{
	for (const struct cli_option *o = options; o->name; o++)
		if (strcmp(o->name, "db") == 0)
			return true;
	return false;
}

int cli_check_args(const struct cli *c, int min, int max, const char *what, struct err *err)
{
	if (c->n_args < min)
		return cli_usage(c, err, "%s missing", what);
	if (c->n_args > max)
		return cli_usage(c, err, "unexpected argument '%.100s'%s", c->args[max],
		                 names_database(c->command->options) ? ", --db names a database"
		                                                     : "");
	for (int i = 0; i < c->n_args; i++)
		if (c->args[i][0] == '\0')
			return cli_usage(c, err, "an argument is empty");
	return 0;
}

/* ---- running ---- */

int cli_finish_output(struct err *err)
{
	if (fflush(stdout) || ferror(stdout))
		return err_set(err, ERR_IO, errno, "write standard output");
	return 0;
}

int cli_run_command(const struct cli_command *command, int argc, char **argv, struct err *err)
{
	struct cli c = {.command = command, .argc = argc, .argv = argv};
	struct sigaction on_pipe = {.sa_handler = command->prints ? SIG_DFL : SIG_IGN};

	sigaction(SIGPIPE, &on_pipe, NULL);
	int rc = find_common_options(&c, err);
	rc = rc ? rc : command->run(&c, err);
	config_free(c.config);
	if (c.helped)
		rc = 0;
	return rc ? rc : cli_finish_output(err);
}

/* ---- arguments ---- */

static bool parse_digits(const char **p, uint64_t *ret)
{
	uint64_t v = 0;

	if (!isdigit((unsigned char)**p))
		return false;
	for (; isdigit((unsigned char)**p); (*p)++)
		if (__builtin_mul_overflow(v, 10, &v) ||
		    __builtin_add_overflow(v, (uint64_t)(**p - '0'), &v))
			return false;
	*ret = v;
	return true;
}

int cli_number(const struct cli *c, const char *what, const char *text, uint64_t min, uint64_t max,
               uint64_t *ret, struct err *err)
{
	const char *p = text;
	uint64_t v;

	if (!parse_digits(&p, &v) || *p)
		return cli_usage(c, err, "%s: '%.60s' is not a whole number", what, text);
	if (v < min || v > max)
		return cli_usage(c, err, "%s: %" PRIu64 " is not in %" PRIu64 " to %" PRIu64, what,
		                 v, min, max);
	*ret = v;
	return 0;
}

int cli_size(const struct cli *c, const char *what, const char *text, uint64_t *ret,
             struct err *err)
{
	struct err why = ERR_INIT;

	return size_parse(text, ret, &why) ? cli_usage(c, err, "%s: %s", what, why.msg) : 0;
}

int cli_time(const char *what, const char *text, int64_t now_us, int64_t *ret_us, struct err *err)
{
	int rc = time_parse(text, now_us, TIME_ZONE_UTC, ret_us, NULL, err);

	return rc ? err_wrap(err, rc, "%s", what) : 0;
}

bool cli_moment_is_named(const char *text)
{
	return strcmp(text, "latest") == 0 || strncmp(text, "tx:", 3) == 0 ||
	       strncmp(text, "mark:", 5) == 0;
}

int cli_moment(struct cli *c, struct history *h, const char *what, const char *text, int64_t now_us,
               struct moment *ret, struct err *err)
{
	uint64_t txid;
	int64_t time_us;
	struct mark mark;
	int rc;

	if (strcmp(text, "latest") == 0)
		return history_latest(h, ret, err);
	if (strncmp(text, "tx:", 3) == 0) {
		rc = cli_number(c, what, text + 3, 1, UINT64_MAX, &txid, err);
		return rc ? rc : history_tx(h, txid, ret, err);
	}
	if (strncmp(text, "mark:", 5) == 0) {
		rc = history_mark(h, text + 5, &mark, err);
		return rc ? rc : history_tx(h, mark.txid, ret, err);
	}
	char name[80];
	snprintf(name, sizeof(name), "%s: %s", c->command->name, what);
	rc = cli_time_configured(c, name, text, now_us, &time_us, err);
	return rc ? rc : history_at(h, time_us, now_us, ret, err);
}

/* "a.db, b.db, c.db and 4 more" */
static void join_names(char *const *names, size_t n, char *out, size_t out_bytes)
{
	size_t used = 0;

	out[0] = '\0';
	for (size_t i = 0; i < n; i++) {
		size_t need = strlen(names[i]) + 2;
		if (used + need + 24 > out_bytes) {
			snprintf(out + used, out_bytes - used, " and %zu more", n - i);
			return;
		}
		used += (size_t)snprintf(out + used, out_bytes - used, "%s%s", i ? ", " : "",
		                         names[i]);
	}
}

int cli_open_database(const struct cli *c, struct archive *a, const char *name,
                      struct history **ret, struct err *err)
{
	cleanup_free char **names = NULL;
	char list[240];
	size_t n;

	int rc = archive_list(a, &names, &n, err);
	if (rc)
		return rc;
	if (n == 0)
		return err_set(err, ERR_NOT_FOUND, 0,
		               "no database in archive '%s' yet (asof replicate brings one in)",
		               archive_root(a));
	join_names(names, n, list, sizeof(list));
	if (!name) {
		if (n > 1)
			return cli_usage(c, err, "which database? name one of %s", list);
		return history_get(a, names[0], ret, err);
	}
	const char *slash = strrchr(name, '/');
	if (slash && slash[1])
		name = slash + 1;
	for (size_t i = 0; i < n; i++)
		if (strcmp(names[i], name) == 0)
			return history_get(a, name, ret, err);
	return err_set(err, ERR_NOT_FOUND, 0,
	               "no database '%.100s' in archive '%.100s' (there is %s)", name,
	               archive_root(a), list);
}

/* ---- output ---- */

void cli_format_size(uint64_t bytes, char out[SIZE_STR_MAX])
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double v = (double)bytes;
	size_t unit = 0;

	while (v >= 999.5 && unit + 1 < sizeof(units) / sizeof(units[0])) {
		v /= 1024;
		unit++;
	}
	snprintf(out, SIZE_STR_MAX, "%.*f %s", unit && v < 9.95 ? 1 : 0, v, units[unit]);
}

void cli_format_age(int64_t time_us, int64_t now_us, char out[AGE_STR_MAX])
{
	bool past = time_us <= now_us;
	int64_t s = (past ? now_us - time_us : time_us - now_us) / US_PER_SECOND;
	const char *unit = "s";

	if (s < 1) {
		snprintf(out, AGE_STR_MAX, "now");
		return;
	}
	if (s >= 2 * 86400) {
		s /= 86400;
		unit = "days";
	} else if (s >= 2 * 3600) {
		s /= 3600;
		unit = "h";
	} else if (s >= 120) {
		s /= 60;
		unit = "min";
	}
	snprintf(out, AGE_STR_MAX, past ? "%" PRId64 " %s ago" : "in %" PRId64 " %s", s, unit);
}

void cli_one_line(char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			*text = '?';
}

void cli_quote(const char *text, char *out, size_t size)
{
	size_t n = 0;

	if (n + 1 < size)
		out[n++] = '\'';
	for (; *text && n + 6 < size; text++) {
		if (*text == '\'')
			n += (size_t)snprintf(out + n, size - n, "'\\''");
		else
			out[n++] = *text;
	}
	snprintf(out + n, size - n, "'");
}

struct table {
	const char *const *header;
	size_t n_columns;
	struct column {
		size_t width; /* of what was added so far */
		bool right;
	} * columns;
	char **cells; /* row by row */
	size_t n_cells, cap_cells;
	bool header_printed;
};

/* Columns on a terminal, near enough: characters, not bytes. */
static size_t text_width(const char *s)
{
	size_t n = 0;

	for (; *s; s++)
		n += ((unsigned char)*s & 0xc0) != 0x80;
	return n;
}

int table_new(const char *const *header, size_t n_columns, struct table **ret, struct err *err)
{
	cleanup_table struct table *t = calloc(1, sizeof(*t));

	if (!t || !(t->columns = calloc(n_columns + 1, sizeof(*t->columns))))
		return err_set(err, ERR_NOMEM, 0, "out of memory");
	t->header = header;
	t->n_columns = n_columns;
	for (size_t i = 0; i < n_columns; i++) {
		t->columns[i].right = header[i][0] == '>';
		t->columns[i].width = text_width(header[i] + t->columns[i].right);
	}
	*ret = take_ptr(t);
	return 0;
}

int table_cell(struct table *t, struct err *err, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (t->n_cells == t->cap_cells) {
		size_t cap = t->cap_cells ? 2 * t->cap_cells : 64;
		char **more = realloc(t->cells, cap * sizeof(*more));
		if (!more)
			return err_set(err, ERR_NOMEM, 0, "out of memory");
		t->cells = more;
		t->cap_cells = cap;
	}
	cli_one_line(text);
	char *copy = strdup(text);
	if (!copy)
		return err_set(err, ERR_NOMEM, 0, "out of memory");
	struct column *c = &t->columns[t->n_cells % t->n_columns];
	size_t width = text_width(copy);
	if (width > c->width)
		c->width = width;
	t->cells[t->n_cells++] = copy;
	return 0;
}

int table_time(struct table *t, int64_t time_us, struct err *err)
{
	char text[TIME_STR_MAX];

	if (!time_us)
		return table_cell(t, err, "-");
	time_format(time_us, text);
	return table_cell(t, err, "%s", text);
}

int table_size(struct table *t, uint64_t bytes, struct err *err)
{
	char text[SIZE_STR_MAX];

	cli_format_size(bytes, text);
	return table_cell(t, err, "%s", text);
}

static void print_cell(FILE *out, const char *text, size_t width, bool right, bool last)
{
	int pad = (int)(width - text_width(text));

	if (right)
		fprintf(out, "%*s", pad, "");
	fputs(text, out);
	if (!last)
		fprintf(out, "%*s", right ? 2 : pad + 2, "");
}

void table_flush(struct table *t, FILE *out)
{
	size_t n = t->n_columns;

	if (n == 0)
		return;
	for (size_t i = 0; i < n && !t->header_printed; i++)
		print_cell(out, t->header[i] + t->columns[i].right, t->columns[i].width,
		           t->columns[i].right, i + 1 == n);
	if (!t->header_printed)
		fputc('\n', out);
	t->header_printed = true;
	for (size_t i = 0; i < t->n_cells; i++) {
		const struct column *c = &t->columns[i % n];
		bool last = i % n + 1 == n;
		print_cell(out, t->cells[i], c->width, c->right, last);
		if (last)
			fputc('\n', out);
		free(t->cells[i]);
	}
	t->n_cells = 0;
}

void table_print(struct table *t, FILE *out)
{
	table_flush(t, out);
}

void table_free(struct table *t)
{
	if (!t)
		return;
	for (size_t i = 0; i < t->n_cells; i++)
		free(t->cells[i]);
	free(t->cells);
	free(t->columns);
	free(t);
}

json_t *cli_json_time(int64_t time_us)
{
	return json_moment(time_us);
}

json_t *cli_json_uint(uint64_t v)
{
	/* JSON numbers of this library are signed; nothing counted here gets near the edge. */
	return json_integer(v > INT64_MAX ? INT64_MAX : (json_int_t)v);
}

int cli_print_json(json_t *value, struct err *err)
{
	if (!value)
		return err_set(err, ERR_NOMEM, 0, "out of memory");
	int failed = json_dumpf(value, stdout, JSON_INDENT(2));
	json_decref(value);
	if (failed || fputc('\n', stdout) == EOF)
		return err_set(err, ERR_IO, errno, "write standard output");
	return 0;
}
