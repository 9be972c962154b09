/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Incidents as messages: a mail, Slack's JSON, a webhook's JSON.  Pure.
 *
 * A mail is RFC 5322, UTF-8, its body in base64, so that no text from anywhere can become a header,
 * end the message, or be too long a line.  Its Message-ID is that of the first incident and of what is
 * told of it: one that is sent twice is one to whoever looks at it.
 *
 * Slack: {"text": "…"}, what `incoming webhooks` take; `&`, `<` and `>` are written as entities, so
 * that no text becomes a link or calls @channel.
 *
 * Webhook: what Prometheus' Alertmanager sends (version 4), so that one receiver takes both:
 *
 *   {"version": "4", "groupKey": "asof/HOST", "truncatedAlerts": 0, "status": "firing" | "resolved",
 *    "receiver": "asof", "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {},
 *    "externalURL": "", "alerts": [{"status", "labels": {"alertname", "severity", "instance",
 *    "db"?, "place"?}, "annotations": {"summary"}, "startsAt", "endsAt", "generatorURL": "",
 *    "fingerprint": ID}]}
 *
 *   An alert that lasts has "endsAt": "0001-01-01T00:00:00Z".  One that began and ended before it
 *   could be told is told once, as resolved.
 */
#ifndef ASOF_MONITOR_MESSAGE_H
#define ASOF_MONITOR_MESSAGE_H

#include "engine/base/buf.h"
#include "engine/monitor/incident.h"

/* Of TELLINGS_MAX incidents in any of the forms. */
#define MESSAGE_MAX ((size_t)1 << 20)

struct message_context {
	const char *host; /* this machine, for a person */
	int64_t now_us;
	/* Of a mail. */
	const char *from;
	const char *const *to;
	size_t n_to;
};

/* Appended to `ret` (BUF_INIT(MESSAGE_MAX)); `n` from 1 to TELLINGS_MAX. */
int message_email(const struct message_context *m, const struct telling *t, size_t n,
                  struct buf *ret, struct err *err) MUST_USE;
int message_slack(const struct message_context *m, const struct telling *t, size_t n,
                  struct buf *ret, struct err *err) MUST_USE;
int message_webhook(const struct message_context *m, const struct telling *t, size_t n,
                    struct buf *ret, struct err *err) MUST_USE;

/* Of `asof check --send-test`: an incident that is none. */
void message_test(int64_t now_us, struct telling *ret);

/* Whether a text can stand as an address in a mail and its envelope: "name@host". */
bool message_is_address(const char *text);

#endif
