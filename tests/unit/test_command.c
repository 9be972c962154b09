/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/command.h"

#include "tests/lib/synth.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static size_t output_of(struct command *c, char *out, size_t size)
{
	size_t len = 0;
	ssize_t n;

	while (len < size - 1 && (n = read(c->out_fd, out + len, size - 1 - len)) > 0)
		len += (size_t)n;
	out[len] = '\0';
	return len;
}

static void test_output(void **state)
{
	static const char *const argv[] = {"sh", "-c", "cat; echo out", NULL};
	cleanup_command struct command c = COMMAND_INIT;
	struct err err = ERR_INIT;
	char out[64];

	synth_must(command_start(&c, argv, -1, &err), &err, "start");
	output_of(&c, out, sizeof(out));
	assert_string_equal(out, "out\n");
	synth_must(command_finish(&c, ERR_IO, &err), &err, "finish");
}

static void test_failures(void **state)
{
	static const char *const fails[] = {
	        "sh", "-c", "echo part; echo first >&2; echo the reason >&2; exit 3", NULL};
	static const char *const killed[] = {"sh", "-c", "kill -9 $$", NULL};
	static const char *const silent[] = {"false", NULL};
	static const char *const none[] = {"no-such-program-anywhere", NULL};
	struct command c = COMMAND_INIT;
	struct err err = ERR_INIT;
	char out[64];

	synth_must(command_start(&c, fails, -1, &err), &err, "start");
	output_of(&c, out, sizeof(out));
	assert_int_equal(command_finish(&c, ERR_DAMAGED, &err), -ERR_DAMAGED);
	assert_non_null(strstr(err.msg, "'sh' failed with status 3: the reason"));
	command_release(&c);
	synth_must(command_start(&c, killed, -1, &err), &err, "start");
	assert_int_equal(command_finish(&c, ERR_IO, &err), -ERR_IO);
	assert_non_null(strstr(err.msg, "signal 9"));
	command_release(&c);
	synth_must(command_start(&c, silent, -1, &err), &err, "start");
	assert_int_equal(command_finish(&c, ERR_IO, &err), -ERR_IO);
	assert_non_null(strstr(err.msg, "it said nothing"));
	command_release(&c);
	int rc = command_start(&c, none, -1, &err);
	if (rc == 0) { /* below valgrind: a vfork() that is a fork(), and only the child knows */
		rc = command_finish(&c, ERR_NOT_FOUND, &err);
		command_release(&c);
	}
	assert_int_equal(rc, -ERR_NOT_FOUND);
	assert_non_null(strstr(err.msg, "no-such-program-anywhere"));
}

/* One that nobody waits for does not stay. */
static void test_release(void **state)
{
	static const char *const argv[] = {"sleep", "1000", NULL};
	struct command c = COMMAND_INIT;
	struct err err = ERR_INIT;

	synth_must(command_start(&c, argv, -1, &err), &err, "start");
	pid_t pid = c.pid;
	assert_int_equal(kill(pid, 0), 0);
	command_release(&c);
	assert_int_equal(kill(pid, 0), -1);
	assert_int_equal(c.pid, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_output),
	        cmocka_unit_test(test_failures),
	        cmocka_unit_test(test_release),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
