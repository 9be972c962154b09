/* SPDX-License-Identifier: Apache-2.0 */
/* Messages: whatever the texts hold, a mail is one mail, JSON is JSON, and nothing is left out. */
#include "engine/base/clock.h"
#include "engine/monitor/message.h"

#include <ctype.h>
#include <jansson.h>
#include <nettle/base64.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define NOW INT64_C(1705314645000000) /* 2024-01-15T10:30:45Z, a Monday */

static const char *const to[] = {"a@example.com", "b@example.com"};
static const struct message_context context = {
        .host = "host-1", .now_us = NOW, .from = "asof@example.com", .to = to, .n_to = 2};

static struct telling telling(const char *database, const char *text, bool over)
{
	struct telling t = {.incident = {.id = "0123456789abcdef",
	                                 .alert = "capture-late",
	                                 .severity = SEVERITY_CRITICAL,
	                                 .state = over ? INCIDENT_RESOLVED : INCIDENT_FIRING,
	                                 .began_us = NOW - 60 * US_PER_SECOND,
	                                 .fired_us = NOW - 30 * US_PER_SECOND,
	                                 .resolved_us = over ? NOW : 0}};

	snprintf(t.incident.database, sizeof(t.incident.database), "%s", database);
	snprintf(t.incident.text, sizeof(t.incident.text), "%s", text);
	return t;
}

/* The whole mail as text; free() it. */
static char *mail(const struct telling *t, size_t n)
{
	struct buf b = BUF_INIT(MESSAGE_MAX);

	assert_int_equal(message_email(&context, t, n, &b, NULL), 0);
	assert_int_equal(buf_append(&b, "", 1, NULL), 0);
	return (char *)b.data;
}

/* Its body, out of base64; free() it. */
static char *body_of(const char *text)
{
	const char *body = strstr(text, "\r\n\r\n") + 4;
	struct base64_decode_ctx ctx;
	char *out = malloc(BASE64_DECODE_LENGTH(strlen(body)) + 1);
	size_t len = BASE64_DECODE_LENGTH(strlen(body));

	base64_decode_init(&ctx);
	assert_true(base64_decode_update(&ctx, &len, (uint8_t *)out, strlen(body), body));
	assert_true(base64_decode_final(&ctx));
	out[len] = '\0';
	return out;
}

static void test_mail(void **state)
{
	const struct telling t[] = {telling("a.db", "behind 40 s", false),
	                            telling("b.db", "behind 50 s", true)};
	cleanup_free char *text = mail(t, 2);
	cleanup_free char *body = body_of(text);

	assert_non_null(strstr(text, "From: asof <asof@example.com>\r\n"));
	assert_non_null(strstr(text, "To: a@example.com,\r\n b@example.com\r\n"));
	assert_non_null(
	        strstr(text, "Subject: [asof host-1] CRITICAL capture-late a.db and 1 more\r\n"));
	assert_non_null(strstr(text, "Date: Mon, 15 Jan 2024 10:30:45 +0000\r\n"));
	assert_non_null(strstr(text, "Message-ID: <0123456789abcdef.begin.0@host-1>\r\n"));
	assert_non_null(strstr(body, "CRITICAL capture-late a.db: behind 40 s (since "
	                             "2024-01-15T10:29:45Z)\r\n"));
	assert_non_null(strstr(body, "RESOLVED capture-late b.db: it was behind 50 s (from "
	                             "2024-01-15T10:29:45Z to 2024-01-15T10:30:45Z)\r\n"));
}

/* Every header line begins with a name that is ours; no line is longer than RFC 5322 allows. */
static void check_headers(const char *text)
{
	static const char *const names[] = {
	        "From:",         "To:",           "Subject:",
	        "Date:",         "Message-ID:",   "Auto-Submitted:",
	        "MIME-Version:", "Content-Type:", "Content-Transfer-Encoding:"};
	unsigned seen = 0;

	for (const char *line = text, *end; (end = strstr(line, "\r\n")) && end != line;
	     line = end + 2) {
		size_t i = 0, n = sizeof(names) / sizeof(names[0]);
		assert_true(end - line <= 998);
		for (const char *p = line; p < end; p++)
			assert_true((unsigned char)*p >= ' ' && (unsigned char)*p < 0x7f);
		if (*line == ' ')
			continue;
		while (i < n && strncmp(line, names[i], strlen(names[i])) != 0)
			i++;
		assert_true(i < n && !(seen & 1u << i));
		seen |= 1u << i;
	}
	assert_int_equal(seen, (1u << 9) - 1);
}

static void test_mail_of_anything(void **state)
{
	char name[200], words[390];

	srand(1);
	for (int round = 0; round < 2000; round++) {
		struct telling t[3];
		for (size_t k = 0; k < 3; k++) {
			/* Letters, ends of lines, halves of characters, encoded words. */
			static const char *const parts[] = {
			        "a",  "\r\n",     "\n.\n", "\xc3", "\xbc", "\xf0\x9f\x92\xa5",
			        "=?", "Bcc: x@y", "<",     " ",    "\xff"};
			size_t used = 0;
			while (used < sizeof(words) - 16)
				used += (size_t)snprintf(words + used, sizeof(words) - used, "%s",
				                         parts[(size_t)rand() % 11]);
			snprintf(name, sizeof(name), "%.*s", rand() % 190, words);
			t[k] = telling(name, words, rand() % 2);
			/* As incident.c keeps them. */
			for (char *p = t[k].incident.database; *p; p++)
				*p = iscntrl((unsigned char)*p) ? ' ' : *p;
			for (char *p = t[k].incident.text; *p; p++)
				*p = iscntrl((unsigned char)*p) ? ' ' : *p;
		}
		cleanup_free char *text = mail(t, 1 + (size_t)rand() % 3);
		cleanup_free char *body = body_of(text);
		check_headers(text);
		json_t *utf8 = json_string(body);
		assert_non_null(utf8);
		json_decref(utf8);
	}
}

static json_t *json_of(int (*make)(const struct message_context *, const struct telling *, size_t,
                                   struct buf *, struct err *),
                       const struct telling *t, size_t n)
{
	cleanup_buf struct buf b = BUF_INIT(MESSAGE_MAX);

	assert_int_equal(make(&context, t, n, &b, NULL), 0);
	json_t *o = json_loadb((char *)b.data, b.len, 0, NULL);
	assert_non_null(o);
	return o;
}

static void test_webhook(void **state)
{
	const struct telling t[] = {telling("a.db", "behind", false), telling("b.db", "was", true)};
	json_t *o = json_of(message_webhook, t, 2);
	const char *db, *status, *ends, *print, *summary, *overall;

	assert_int_equal(json_array_size(json_object_get(o, "alerts")), 2);
	assert_int_equal(json_unpack(o, "{s:s s:[{s:s s:{s:s} s:{s:s} s:s s:s}]}", "status",
	                             &overall, "alerts", "status", &status, "labels", "db", &db,
	                             "annotations", "summary", &summary, "endsAt", &ends,
	                             "fingerprint", &print),
	                 0);
	assert_string_equal(overall, "firing");
	assert_string_equal(status, "firing");
	assert_string_equal(db, "a.db");
	assert_string_equal(summary, "behind");
	assert_string_equal(ends, "0001-01-01T00:00:00Z");
	assert_string_equal(print, "0123456789abcdef");
	json_decref(o);
	o = json_of(message_webhook, t + 1, 1);
	assert_string_equal(json_string_value(json_object_get(o, "status")), "resolved");
	json_decref(o);
}

static void test_slack_takes_no_commands(void **state)
{
	const struct telling t = telling("<!channel>", "<http://x|y> & more", false);
	json_t *o = json_of(message_slack, &t, 1);
	const char *text = json_string_value(json_object_get(o, "text"));

	assert_null(strchr(text, '<'));
	assert_non_null(strstr(text, "&lt;!channel&gt;"));
	assert_non_null(strstr(text, "&lt;http://x|y&gt; &amp; more"));
	json_decref(o);
}

/* As many as one message may have, each as long as it can be. */
static void test_bounds(void **state)
{
	static struct telling t[TELLINGS_MAX];
	char long_text[400], name[201];

	memset(long_text, '&', sizeof(long_text) - 1);
	long_text[sizeof(long_text) - 1] = '\0';
	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	for (size_t i = 0; i < TELLINGS_MAX; i++)
		t[i] = telling(name, long_text, i % 2);
	cleanup_free char *text = mail(t, TELLINGS_MAX);
	check_headers(text);
	json_t *o = json_of(message_slack, t, TELLINGS_MAX);
	assert_true(strlen(json_string_value(json_object_get(o, "text"))) < 5 * 40000);
	json_decref(o);
	o = json_of(message_webhook, t, TELLINGS_MAX);
	assert_int_equal(json_array_size(json_object_get(o, "alerts")), TELLINGS_MAX);
	json_decref(o);
}

static void test_addresses(void **state)
{
	static const char *const good[] = {"a@b", "first.last+tag@example.com", "x@[127.0.0.1]"};
	static const char *const bad[] = {"",      "a",       "@b",        "a@",    "a@b@c",
	                                  "a b@c", "a@b\r\n", "a@b,c@d",   "<a@b>", "a@b>",
	                                  "a;@b",  "\"a\"@b", "\xc3\xbc@b"};

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		assert_true(message_is_address(good[i]));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_false(message_is_address(bad[i]));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_mail),    cmocka_unit_test(test_mail_of_anything),
	        cmocka_unit_test(test_webhook), cmocka_unit_test(test_slack_takes_no_commands),
	        cmocka_unit_test(test_bounds),  cmocka_unit_test(test_addresses),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
