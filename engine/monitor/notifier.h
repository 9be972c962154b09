/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The notifier: has incidents (incident.h) told by mail, Slack and webhook, and gives a sign of life
 * while all is well.
 *
 *     notifier_look() ──► incidents ──► what each channel is to be told ──► send.h ──► told
 *      any thread,          │                one message at a time                      │
 *      never waits          └──────────── saved, by a thread of its own ◄───────────────┘
 *
 * A thread of its own sends; another reads and writes the file, for a disk that hangs must not keep it
 * from saying so.  A channel that fails is tried again after 5 s, then twice that, up to 5 min, for
 * ever.  Between two messages of a channel lie 10 s, so that what goes wrong together is one message.
 *
 * The heartbeat is a GET of a URL every `heartbeat_interval_us` while notifier_look() says that all is
 * healthy.  It stops with the first look that says otherwise, and when nobody has looked for a minute,
 * which is an incident, too ("observer-stuck"): a process that does not look knows nothing.
 */
#ifndef ASOF_MONITOR_NOTIFIER_H
#define ASOF_MONITOR_NOTIFIER_H

#include "engine/monitor/incident.h"
#include "engine/monitor/send.h"

#define NOTIFIER_FILE "alerts.json"

/* The channels, and one more. */
enum { NOTIFIER_HEARTBEAT = N_CHANNELS, N_NOTIFIER_PLACES };
/* "email", "slack", "webhook", "heartbeat" */
const char *notifier_place_name(int place);

struct notifier_options {
	struct send_email email;
	const char *slack_webhook, *webhook, *heartbeat_url; /* NULL: none */
	int64_t heartbeat_interval_us;
	int64_t for_us, clear_us, repeat_us; /* of incident.h */
	const char *dir;                     /* of NOTIFIER_FILE; NULL: nothing is kept */
	const char *host;                    /* this machine, in messages */
	/* 0: as above. */
	int64_t gap_us, retry_min_us, retry_max_us, stuck_us;
};

/* Whether the options have such a place. */
bool notifier_has(const struct notifier_options *o, int place);
/* Sends a message that says it is a test, or one sign of life; waits for it, without retrying. */
int notifier_send_test(const struct notifier_options *o, int place, struct err *err) MUST_USE;

struct notifier;

/* Texts are copied. */
int notifier_new(const struct notifier_options *options, struct notifier **ret,
                 struct err *err) MUST_USE;
/* All that is wrong now.  Often, at least every few seconds.  Never waits for a disk or a net. */
void notifier_look(struct notifier *n, const struct condition *conditions, size_t n_conditions,
                   bool healthy);
/* Ends its threads: lets a message under way get through, and the file be written, for half a second.
 * notifier_look() has no effect any more. */
void notifier_stop(struct notifier *n);
/* Stops it where nobody did.  NULL is fine. */
void notifier_free(struct notifier *n);

/* ---- any thread ---- */

struct notifier_status {
	struct incident_counts incidents;
	struct notifier_place_status {
		bool configured;
		uint64_t sent, failed;
		int64_t last_sent_us;     /* wall clock; 0: never since the start */
		int64_t failing_since_us; /* 0: it works */
		char reason[160];         /* of the last failure, without secrets */
	} places[N_NOTIFIER_PLACES];
};
void notifier_get_status(struct notifier *n, struct notifier_status *ret);

#endif
