/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/complete.h"

#include <stdlib.h>
#include <string.h>

/* What a word stands for, told by what --help calls it. */
enum kind { KIND_NONE, KIND_FILE, KIND_FOLDER, KIND_DATABASE, KIND_TYPE, KIND_COMMAND };

/* The words so far, understood as the program would. */
struct line {
	const struct cli_command *const *commands;
	size_t n_commands;
	const struct cli_command *command; /* NULL: none yet */
	const char *word;                  /* being typed */
	const struct cli_option *option;   /* whose argument it is; NULL: none */
	size_t n_args;                     /* positional words before it */
	bool only_args;                    /* there was "--" */
	const char *archive, *config, *env;
};

static bool is_word(const char *text, size_t len, const char *word)
{
	return strlen(word) == len && memcmp(text, word, len) == 0;
}

/* ---- offering ---- */

static void offer(const struct line *l, const char *before, const char *value, const char *meaning)
{
	size_t n = strlen(before);

	if (strncmp(l->word, before, n) == 0 &&
	    strncmp(l->word + n, value, strlen(l->word + n)) == 0)
		printf("%s%s\t%s\n", before, value, meaning ? meaning : "");
}

static void offer_commands(const struct line *l)
{
	for (size_t i = 0; i < l->n_commands; i++)
		offer(l, "", l->commands[i]->name, l->commands[i]->summary);
	if (l->command)
		return;
	if (l->word[0] == '-') {
		offer(l, "", "--help", "show what there is");
		offer(l, "", "--version", "show the version");
	}
}

static void offer_options(const struct line *l)
{
	const struct cli_option *const tables[] = {l->command->options, cli_common_options()};

	for (size_t i = 0; i < 2; i++)
		for (const struct cli_option *o = tables[i]; o->name; o++)
			if (i == 0 ||
			    !cli_find_option(l->command->options, o->name, strlen(o->name)))
				offer(l, "--", o->name, o->help);
	offer(l, "--", "help", "show this");
}

static void offer_types(const struct line *l, const char *before)
{
	static const char *const types[] = {"manual", "automated", "safety", "compressed"};

	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		offer(l, before, types[i], "backups of this type");
}

static void offer_databases(const struct line *l, const char *before)
{
	struct cli c = {.command = l->command, .config_path = l->config, .env_path = l->env};
	cleanup_archive struct archive *archive = NULL;
	struct err why = ERR_INIT; /* is no one's: there is nothing to offer then */
	cleanup_free char **names = NULL;
	size_t n = 0;

	if (cli_open_archive(&c, l->archive, &archive, &why) == 0 &&
	    archive_list(archive, &names, &n, &why) == 0)
		for (size_t i = 0; i < n; i++)
			offer(l, before, names[i], "database");
	config_free(c.config);
}

/* ---- understanding ---- */

/* DB is a file for commands that read no archive, and a name in the archive for the others. */
static enum kind kind_of(const struct cli_command *command, const char *name, size_t len)
{
	static const struct {
		const char *name;
		enum kind kind;
	} kinds[] = {
	        {"FILE", KIND_FILE},     {"OUT", KIND_FILE},        {"PATH", KIND_FILE},
	        {"BACKUP", KIND_FILE},   {"ARCHIVE", KIND_FOLDER},  {"DIR", KIND_FOLDER},
	        {"TYPE", KIND_TYPE},     {"COMMAND", KIND_COMMAND}, {"CMD", KIND_COMMAND},
	        {"ARGUMENT", KIND_FILE},
	};

	if (is_word(name, len, "DB"))
		return cli_find_option(command->options, "archive", 7) ? KIND_DATABASE : KIND_FILE;
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (is_word(name, len, kinds[i].name))
			return kinds[i].kind;
	return KIND_NONE;
}

static enum kind kind_of_option(const struct cli_command *command, const struct cli_option *o)
{
	if (strcmp(o->name, "db") == 0)
		return KIND_DATABASE;
	if (strcmp(o->name, "db-path") == 0)
		return KIND_FILE;
	return kind_of(command, o->arg, strlen(o->arg));
}

static bool ends_word(char c)
{
	return c == '\0' || strchr(" ()[]|", c) != NULL;
}

/* The kind of the positional word number `index`, as the usage line has it: words in capitals that
 * are no option's argument, the last of them for all that follow where it has "..." behind it. */
static enum kind kind_of_arg(const struct cli_command *command, size_t index)
{
	const struct cli_option *before = NULL;
	enum kind last = KIND_NONE;
	bool repeats = false, is_last = false; /* the word before was it */
	size_t n = 0;

	for (const char *p = command->usage; *p;) {
		size_t len = 0;
		while (!ends_word(p[len]))
			len++;
		if (len == 0) {
			p++;
			continue;
		}
		if (*p != '.')
			is_last = false;
		if (*p == '-') {
			before = len > 2 ? cli_find_option(command->options, p + 2, len - 2)
			                 : cli_find_letter(command->options, p[1]);
		} else if (*p == '.') {
			repeats = repeats || is_last;
		} else if (before && before->arg) {
			before = NULL;
		} else if (!is_word(p, len, "OPTION") && !is_word(p, len, "RULE") && *p >= 'A' &&
		           *p <= 'Z') {
			last = kind_of(command, p, len);
			before = NULL;
			is_last = true;
			if (n++ == index)
				return last;
		}
		p += len;
	}
	return repeats ? last : KIND_NONE;
}

static void take_value(struct line *l, const struct cli_option *o, const char *value)
{
	if (strcmp(o->name, "archive") == 0)
		l->archive = value;
	else if (strcmp(o->name, "config") == 0)
		l->config = value;
	else if (strcmp(o->name, "env-file") == 0)
		l->env = value;
}

static const struct cli_option *find_long(const struct line *l, const char *name, size_t len)
{
	const struct cli_option *o = cli_find_option(l->command->options, name, len);

	return o ? o : cli_find_option(cli_common_options(), name, len);
}

/* A word before the one that is being typed; returns the option that takes the next word. */
static const struct cli_option *take_word(struct line *l, const char *word)
{
	const struct cli_option *o;

	if (l->only_args || word[0] != '-' || !word[1]) {
		l->n_args++;
		return NULL;
	}
	if (strcmp(word, "--") == 0) {
		l->only_args = true;
		return NULL;
	}
	if (word[1] != '-') {
		o = cli_find_letter(l->command->options, word[1]);
		return o && o->arg && !word[2] ? o : NULL;
	}
	size_t len = strcspn(word + 2, "=");
	o = find_long(l, word + 2, len);
	if (!o || !o->arg)
		return NULL;
	if (!word[2 + len])
		return o;
	take_value(l, o, word + 2 + len + 1);
	return NULL;
}

static void understand(struct line *l, char *const *words, size_t n_words)
{
	l->word = words[n_words - 1];
	for (size_t i = 0; i < l->n_commands && n_words > 1; i++)
		if (strcmp(words[0], l->commands[i]->name) == 0)
			l->command = l->commands[i];
	if (!l->command)
		return;
	for (size_t i = 1; i + 1 < n_words; i++) {
		if (l->option) {
			take_value(l, l->option, words[i]);
			l->option = NULL;
		} else {
			l->option = take_word(l, words[i]);
		}
	}
}

/* ---- answering ---- */

static void answer(const struct line *l, enum kind kind, const char *before)
{
	puts(kind == KIND_FILE || kind == KIND_COMMAND ? "files"
	     : kind == KIND_FOLDER                     ? "folders"
	                                               : "nothing");
	if (kind == KIND_DATABASE)
		offer_databases(l, before);
	else if (kind == KIND_TYPE)
		offer_types(l, before);
}

static void answer_for_command(const struct line *l)
{
	const char *equals = strchr(l->word, '=');

	if (l->option) {
		answer(l, kind_of_option(l->command, l->option), "");
	} else if (!l->only_args && strncmp(l->word, "--", 2) == 0 && equals) {
		char before[64];
		const struct cli_option *o =
		        find_long(l, l->word + 2, (size_t)(equals - l->word) - 2);
		snprintf(before, sizeof(before), "--%s=", o ? o->name : "");
		answer(l, o && o->arg ? kind_of_option(l->command, o) : KIND_NONE, before);
	} else if (!l->only_args && l->word[0] == '-') {
		answer(l, KIND_NONE, "");
		offer_options(l);
	} else {
		enum kind kind = kind_of_arg(l->command, l->n_args);
		answer(l, kind, "");
		if (kind == KIND_NONE && !l->word[0] && !l->only_args)
			offer_options(l);
	}
}

int complete_words(const struct cli_command *const *commands, size_t n_commands, char *const *words,
                   size_t n_words, struct err *err)
{
	struct line l = {.commands = commands, .n_commands = n_commands};

	understand(&l, words, n_words);
	if (l.command) {
		answer_for_command(&l);
	} else if (n_words == 1 || (n_words == 2 && strcmp(words[0], "help") == 0)) {
		puts("nothing");
		offer_commands(&l);
	} else {
		puts("nothing");
	}
	return cli_finish_output(err);
}
