/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/monitor/message.h"

#include "engine/base/clock.h"
#include "engine/base/json.h"

#include <ctype.h>
#include <inttypes.h>
#include <nettle/base64.h>
#include <string.h>

#define LINE_MAX_BYTES 1600
#define BASE64_LINE 54u /* bytes that give 72 characters */
#define NEVER "0001-01-01T00:00:00Z"

/* ---- words ---- */

static bool is_over(const struct telling *t)
{
	return t->incident.state == INCIDENT_RESOLVED;
}

static const char *state_word(const struct telling *t)
{
	if (is_over(t))
		return "RESOLVED";
	return t->incident.severity == SEVERITY_CRITICAL ? "CRITICAL" : "WARNING";
}

/* "capture-stale trades.db (offsite)" */
static void name_of(const struct incident *i, char *out, size_t size)
{
	snprintf(out, size, "%s%s%s%s%s%s", i->alert, *i->database ? " " : "", i->database,
	         *i->place ? " (" : "", i->place, *i->place ? ")" : "");
}

static void line_of(const struct telling *t, char out[LINE_MAX_BYTES])
{
	const struct incident *i = &t->incident;
	char name[480], began[TIME_STR_MAX], ended[TIME_STR_MAX];

	name_of(i, name, sizeof(name));
	time_format(i->began_us - i->began_us % US_PER_SECOND, began);
	time_format(i->resolved_us - i->resolved_us % US_PER_SECOND, ended);
	if (is_over(t))
		snprintf(out, LINE_MAX_BYTES, "%s %s: it was %s (from %s to %s)", state_word(t),
		         name, i->text, began, ended);
	else
		snprintf(out, LINE_MAX_BYTES, "%s %s: %s (%s %s)", state_word(t), name, i->text,
		         t->again ? "still, since" : "since", began);
}

/* What the whole message is about: the worst first. */
static const struct telling *headline(const struct telling *t, size_t n)
{
	const struct telling *worst = t;

	for (size_t i = 1; i < n; i++)
		if (is_over(worst) != is_over(&t[i])
		            ? is_over(worst)
		            : t[i].incident.severity > worst->incident.severity)
			worst = &t[i];
	return worst;
}

static void subject_of(const struct message_context *m, const struct telling *t, size_t n,
                       char *out, size_t size)
{
	const struct telling *worst = headline(t, n);
	char name[480], more[40] = "";

	name_of(&worst->incident, name, sizeof(name));
	if (n > 1)
		snprintf(more, sizeof(more), " and %zu more", n - 1);
	snprintf(out, size, "[asof %.80s] %s %.200s%s", m->host, state_word(worst), name, more);
}

/* ---- mail ---- */

bool message_is_address(const char *text)
{
	const char *at = strchr(text, '@');

	if (!at || at == text || !at[1] || strchr(at + 1, '@') || strlen(text) > 254)
		return false;
	for (const char *p = text; *p; p++)
		if ((unsigned char)*p <= ' ' || (unsigned char)*p >= 0x7f ||
		    strchr("<>,;:\"()\\", *p))
			return false;
	return true;
}

static int put_base64(struct buf *b, const void *p, size_t len, struct err *err)
{
	char line[BASE64_ENCODE_RAW_LENGTH(BASE64_LINE)];
	const uint8_t *from = p;

	for (size_t done = 0; done < len; done += BASE64_LINE) {
		size_t part = len - done < BASE64_LINE ? len - done : BASE64_LINE;
		base64_encode_raw(line, part, from + done);
		int rc = buf_append(b, line, BASE64_ENCODE_RAW_LENGTH(part), err);
		if (rc == 0)
			rc = buf_append(b, "\r\n", 2, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static bool is_plain(const char *text)
{
	for (const char *p = text; *p; p++)
		if ((unsigned char)*p < ' ' || (unsigned char)*p >= 0x7f)
			return false;
	return strlen(text) < 200 && !strstr(text, "=?");
}

/* One encoded word takes 45 bytes; none may end within a character (RFC 2047). */
static int put_encoded(struct buf *b, const char *text, struct err *err)
{
	char word[BASE64_ENCODE_RAW_LENGTH(45)];
	size_t len = strlen(text);
	int rc = buf_printf(b, err, "Subject:");

	for (size_t done = 0, part; rc == 0 && done < len; done += part) {
		part = len - done < 45 ? len - done : 45;
		while (part > 40 && ((uint8_t)text[done + part] & 0xc0) == 0x80)
			part--;
		base64_encode_raw(word, part, (const uint8_t *)text + done);
		rc = buf_printf(b, err, " =?UTF-8?B?%.*s?=\r\n",
		                (int)BASE64_ENCODE_RAW_LENGTH(part), word);
	}
	return rc;
}

static int put_subject(struct buf *b, const char *text, struct err *err)
{
	if (is_plain(text))
		return buf_printf(b, err, "Subject: %s\r\n", text);
	json_t *s = json_text(text);
	int rc = s ? put_encoded(b, json_string_value(s), err)
	           : err_set(err, ERR_NOMEM, 0, "no memory for a message");
	json_decref(s);
	return rc;
}

/* The host as the part of an address and of a Message-ID. */
static void plain_host(const char *host, char *out, size_t size)
{
	size_t n = 0;

	for (const char *p = host; *p && n + 1 < size; p++)
		if (isalnum((unsigned char)*p) || *p == '-' || *p == '.')
			out[n++] = *p;
	out[n] = '\0';
	if (n == 0)
		snprintf(out, size, "localhost");
}

static int put_head(const struct message_context *m, const struct telling *t, size_t n,
                    struct buf *b, struct err *err)
{
	static const char *const days[] = {"Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"};
	static const char *const months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
	                                     "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
	char subject[400], host[200];
	struct civil c;

	civil_from_us(m->now_us, &c);
	plain_host(m->host, host, sizeof(host));
	subject_of(m, t, n, subject, sizeof(subject));
	int rc = buf_printf(b, err, "From: asof <%s>\r\nTo: ", m->from);
	for (size_t i = 0; rc == 0 && i < m->n_to; i++)
		rc = buf_printf(b, err, "%s%s", i ? ",\r\n " : "", m->to[i]);
	if (rc == 0)
		rc = buf_printf(b, err, "\r\n");
	if (rc == 0)
		rc = put_subject(b, subject, err);
	if (rc < 0)
		return rc;
	return buf_printf(b, err,
	                  "Date: %s, %02d %s %04d %02d:%02d:%02d +0000\r\n"
	                  "Message-ID: <%s.%s.%" PRId64 "@%s>\r\n"
	                  "Auto-Submitted: auto-generated\r\n"
	                  "MIME-Version: 1.0\r\n"
	                  "Content-Type: text/plain; charset=utf-8\r\n"
	                  "Content-Transfer-Encoding: base64\r\n\r\n",
	                  days[(m->now_us / (86400 * US_PER_SECOND)) % 7], c.day,
	                  months[c.month - 1], c.year, c.hour, c.minute, c.second, t->incident.id,
	                  is_over(t) ? "end" : "begin",
	                  t->again ? t->incident.told[CHANNEL_EMAIL].at_us : INT64_C(0), host);
}

/* What is no UTF-8 (a path, a name) would make the whole text none. */
static int put_utf8(struct buf *b, const char *text, struct err *err)
{
	json_t *s = json_text(text);
	const char *clean = json_string_value(s);
	int rc = clean ? buf_append(b, clean, strlen(clean), err)
	               : err_set(err, ERR_NOMEM, 0, "no memory for a message");

	json_decref(s);
	return rc;
}

static int put_lines(const struct message_context *m, const struct telling *t, size_t n,
                     struct buf *b, struct err *err)
{
	char line[LINE_MAX_BYTES];
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < n; i++) {
		line_of(&t[i], line);
		rc = put_utf8(b, line, err);
		if (rc == 0)
			rc = buf_append(b, "\r\n\r\n", 4, err);
	}
	return rc ? rc
	          : buf_printf(b, err,
	                       "asof on %s.  State now: asof status; what is configured: asof "
	                       "check.\r\n",
	                       m->host);
}

int message_email(const struct message_context *m, const struct telling *t, size_t n,
                  struct buf *ret, struct err *err)
{
	cleanup_buf struct buf text = BUF_INIT(MESSAGE_MAX);
	int rc = put_lines(m, t, n, &text, err);

	if (rc == 0)
		rc = put_head(m, t, n, ret, err);
	return rc ? rc : put_base64(ret, text.data, text.len, err);
}

/* ---- JSON ---- */

static int put_json(json_t *o, struct buf *ret, struct err *err)
{
	char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
	int rc = text ? buf_append(ret, text, strlen(text), err)
	              : err_set(err, ERR_NOMEM, 0, "no memory for a message");

	free(text);
	json_decref(o);
	return rc;
}

/* Slack's own three. */
static int put_escaped(struct buf *b, const char *text, struct err *err)
{
	int rc = 0;

	for (const char *p = text; *p && rc == 0; p++) {
		const char *entity = *p == '&'   ? "&amp;"
		                     : *p == '<' ? "&lt;"
		                     : *p == '>' ? "&gt;"
		                                 : NULL;
		rc = entity ? buf_append(b, entity, strlen(entity), err) : buf_append(b, p, 1, err);
	}
	return rc;
}

int message_slack(const struct message_context *m, const struct telling *t, size_t n,
                  struct buf *ret, struct err *err)
{
	cleanup_buf struct buf text = BUF_INIT(MESSAGE_MAX);
	char line[LINE_MAX_BYTES];
	/* Slack takes 40,000 characters, and cuts off the rest. */
	size_t width = 36000 / n < 700 ? 36000 / n : 700;

	subject_of(m, t, n, line, sizeof(line));
	int rc = put_escaped(&text, line, err);
	for (size_t i = 0; rc == 0 && i < n; i++) {
		line_of(&t[i], line);
		if (strlen(line) > width)
			snprintf(line + width - 3, 4, "...");
		rc = buf_append(&text, "\n", 1, err);
		if (rc == 0)
			rc = put_escaped(&text, line, err);
	}
	if (rc == 0)
		rc = buf_append(&text, "", 1, err);
	return rc ? rc
	          : put_json(json_pack("{so}", "text", json_text((const char *)text.data)), ret,
	                     err);
}

static json_t *json_time(int64_t us)
{
	char text[TIME_STR_MAX];

	time_format(us, text);
	return json_string(text);
}

static json_t *labels_json(const struct message_context *m, const struct incident *i)
{
	json_t *o = json_pack("{so ss so}", "alertname", json_text(i->alert), "severity",
	                      severity_name(i->severity), "instance", json_text(m->host));

	if (*i->database)
		json_object_set_new(o, "db", json_text(i->database));
	if (*i->place)
		json_object_set_new(o, "place", json_text(i->place));
	return o;
}

static json_t *alert_json(const struct message_context *m, const struct telling *t)
{
	const struct incident *i = &t->incident;

	return json_pack("{ss so s{so} so so ss ss}", "status", is_over(t) ? "resolved" : "firing",
	                 "labels", labels_json(m, i), "annotations", "summary", json_text(i->text),
	                 "startsAt", json_time(i->began_us), "endsAt",
	                 is_over(t) ? json_time(i->resolved_us) : json_string(NEVER),
	                 "generatorURL", "", "fingerprint", i->id);
}

int message_webhook(const struct message_context *m, const struct telling *t, size_t n,
                    struct buf *ret, struct err *err)
{
	json_t *alerts = json_array();
	bool over = true;

	for (size_t i = 0; i < n; i++) {
		json_array_append_new(alerts, alert_json(m, &t[i]));
		over = over && is_over(&t[i]);
	}
	if (json_array_size(alerts) != n) {
		json_decref(alerts);
		return err_set(err, ERR_NOMEM, 0, "no memory for a message");
	}
	cleanup_buf struct buf key = BUF_INIT(1024);
	int rc = buf_printf(&key, err, "asof/%.200s", m->host);
	if (rc == 0)
		rc = buf_append(&key, "", 1, err);
	if (rc < 0) {
		json_decref(alerts);
		return rc;
	}
	return put_json(json_pack("{ss so si ss ss s{} s{} s{} ss so}", "version", "4", "groupKey",
	                          json_text((const char *)key.data), "truncatedAlerts", 0, "status",
	                          over ? "resolved" : "firing", "receiver", "asof", "groupLabels",
	                          "commonLabels", "commonAnnotations", "externalURL", "", "alerts",
	                          alerts),
	                ret, err);
}

void message_test(int64_t now_us, struct telling *ret)
{
	*ret = (struct telling){.incident = {.id = "0000000000000000",
	                                     .alert = "test",
	                                     .text = "a test of asof check: nothing is wrong",
	                                     .severity = SEVERITY_WARNING,
	                                     .state = INCIDENT_FIRING,
	                                     .began_us = now_us,
	                                     .fired_us = now_us}};
}
