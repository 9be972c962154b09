/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/loaded.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

char folder[PATH_MAX];

const char *in_folder(const char *name)
{
	static char path[PATH_MAX + 64];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	return path;
}

void write_bytes(const char *name, const char *text, size_t len)
{
	FILE *f = fopen(in_folder(name), "w");

	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, len, f), len);
	assert_int_equal(fclose(f), 0);
}

void write_text(const char *name, const char *text)
{
	write_bytes(name, text, strlen(text));
}

const char *const no_environment[] = {"HOME=/home/u", "AWS_EC2_METADATA_DISABLED=true", NULL};

void release(struct loaded *x)
{
	config_free(x->c);
	config_report_release(&x->report);
}

struct loaded load_with(const char *yaml, size_t len, const char *env,
                        const char *const *environment)
{
	struct loaded x = {.err = ERR_INIT};
	char path[PATH_MAX + 64], env_path[PATH_MAX + 64];

	write_bytes("asof.yml", yaml, len);
	snprintf(path, sizeof(path), "%s", in_folder("asof.yml"));
	if (env)
		write_text("env", env);
	snprintf(env_path, sizeof(env_path), "%s", env ? in_folder("env") : "");
	struct config_options o = {.path = path,
	                           .env_path = env_path,
	                           .environment = environment ? environment : no_environment};
	x.rc = config_load(&o, &x.c, &x.report, &x.err);
	assert_int_equal(x.rc == 0, x.c != NULL);
	assert_int_equal(x.rc != 0, x.err.msg[0] != 0);
	for (size_t i = 0; i < x.report.n; i++) {
		assert_true(x.report.messages[i].text[0]);
		assert_null(strchr(x.report.messages[i].text, '\n'));
	}
	return x;
}

struct loaded load(const char *yaml)
{
	return load_with(yaml, strlen(yaml), NULL, NULL);
}

void print_messages(const struct config_report *r)
{
	char line[CONFIG_LINE_MAX];

	for (size_t i = 0; i < r->n; i++) {
		config_message_format(&r->messages[i], line);
		print_message("  %s\n", line);
	}
}

struct loaded load_well(const char *yaml)
{
	struct loaded x = load(yaml);

	if (x.rc) {
		print_messages(&x.report);
		fail_msg("%s\n%s", x.err.msg, yaml);
	}
	return x;
}

bool has_message(const struct config_report *r, enum config_severity severity, unsigned line,
                 const char *words)
{
	for (size_t i = 0; i < r->n; i++)
		if (r->messages[i].severity == severity && r->messages[i].line == line &&
		    strstr(r->messages[i].text, words))
			return true;
	return false;
}

bool is_of_file(const struct config_report *r, const char *file)
{
	for (size_t i = 0; i < r->n; i++)
		if (r->messages[i].severity == CONFIG_ERROR &&
		    strcmp(r->messages[i].file, file) != 0)
			return false;
	return r->n > 0;
}

void expect_errors(const char *yaml, const char *const *want, size_t n)
{
	cleanup_loaded struct loaded x = load(yaml);

	if (x.rc != -ERR_USAGE || x.report.n_errors != n) {
		print_messages(&x.report);
		fail_msg("%zu errors, not %zu, of\n%s", x.report.n_errors, n, yaml);
	}
	for (size_t i = 0; i < n; i++) {
		char *words;
		unsigned line = (unsigned)strtoul(want[i], &words, 10);
		words += *words == ' ';
		if (!has_message(&x.report, CONFIG_ERROR, line, words)) {
			print_messages(&x.report);
			fail_msg("no error '%s' of\n%s", want[i], yaml);
		}
	}
}

void expect_error(const char *yaml, const char *want)
{
	expect_errors(yaml, &want, 1);
}

int make_folder(void **state)
{
	snprintf(folder, sizeof(folder), "%s/asof-config-XXXXXX",
	         getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	char *real = mkdtemp(folder) ? realpath(folder, NULL) : NULL;
	if (!real)
		return -1;
	snprintf(folder, sizeof(folder), "%s", real);
	free(real);
	return 0;
}

int remove_folder(void **state)
{
	char command[PATH_MAX + 32];

	snprintf(command, sizeof(command), "rm -rf '%s'", folder);
	return system(command);
}
