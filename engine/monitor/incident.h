/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Incidents: what is wrong, since when, and who has been told.  Pure: no clock, no I/O.
 *
 *   condition   what one look at the daemon finds wrong
 *   incident    a condition that lasts
 *   channel     where it is told: e-mail, Slack, a webhook
 *
 *      seen             for `for_us`            not seen for `clear_us`            all are told
 *   ----------> PENDING ------------> FIRING -------------------------> RESOLVED ------------> gone
 *                  | not seen
 *                  +--> gone
 *
 * There is no queue of messages.  An incident knows what each channel was told of it; what a channel
 * is to be told is the difference.  Hence:
 *
 *   (1) Nothing is lost while a channel fails: it is told in one message when it works again, of what
 *       began and ended meanwhile, too.
 *   (2) Nothing is told twice: once that it began, once that it ended, and again every `repeat_us`
 *       while it lasts.  One that becomes critical is told again.  A process that dies between a
 *       delivery and incidents_save() tells it twice: receivers know it by its id.
 *   (3) A condition that comes and goes within `clear_us` stays one incident.
 *   (4) Memory is bounded: beyond INCIDENTS_MAX resolved ones are given up, the oldest first, then
 *       new ones are not taken.  Both are counted.
 *
 * Moments that are shown are of the wall clock (`now_us`), spans are measured by the monotonic one
 * (`mono_us`): a clock that is set neither tells nor forgets anything.
 *
 * Kept over restarts as text, one JSON object:
 *
 *   {"version": 1, "incidents": [{"id": "9f86d081884c7d65", "alert": "capture-stale",
 *     "database": "trades.db", "place": "", "severity": "critical", "text": "…",
 *     "began": "2024-01-15T10:30:00Z", "fired": "…", "resolved": "…" or null,
 *     "told": {"email": {"fired": true, "resolved": false, "at": "…"}, …}}, …]}
 *
 * PENDING ones are left out: they begin anew.  One that was firing when the process ended goes on,
 * and is resolved when it has not been seen for `clear_us` from then on.
 */
#ifndef ASOF_MONITOR_INCIDENT_H
#define ASOF_MONITOR_INCIDENT_H

#include "engine/base/buf.h"
#include "engine/base/cleanup.h"
#include "engine/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define INCIDENTS_MAX 2048
#define INCIDENTS_TEXT_MAX ((size_t)16 << 20)
/* Of one message. */
#define TELLINGS_MAX 200

enum severity { SEVERITY_WARNING, SEVERITY_CRITICAL };
const char *severity_name(enum severity s);

enum channel { CHANNEL_EMAIL, CHANNEL_SLACK, CHANNEL_WEBHOOK, N_CHANNELS };
const char *channel_name(enum channel c);

/* Two with the same alert, database and place are the same one.  Longer texts are cut. */
struct condition {
	const char *alert;    /* what kind: "capture-stale" */
	const char *database; /* "": all, or none */
	const char *place;    /* the destination, the archive; "": none */
	enum severity severity;
	const char *text; /* what is wrong, and what to do; one line */
	bool at_once;     /* damage is no matter of time: without `for_us` */
	/* It comes of another condition of the same look: it begins no incident, but one that it began
	 * earlier goes on.  `for_us` counts from when it no longer does. */
	bool follows;
};

enum incident_state { INCIDENT_PENDING, INCIDENT_FIRING, INCIDENT_RESOLVED };

struct incident {
	char id[17]; /* hexadecimal, unique; "" while PENDING */
	char alert[48], database[208], place[208], text[400];
	enum severity severity;
	enum incident_state state;
	int64_t began_us, fired_us, resolved_us; /* wall clock; 0: not yet */
	int64_t began_mono_us, seen_mono_us;
	struct told {
		bool fired, resolved;
		int64_t at_us, at_mono_us; /* the last time */
	} told[N_CHANNELS];
};

struct incident_options {
	int64_t for_us, clear_us, repeat_us; /* repeat_us 0: never again */
	bool channels[N_CHANNELS];           /* those that there are */
};

struct incidents;
int incidents_new(const struct incident_options *options, struct incidents **ret,
                  struct err *err) MUST_USE;
void incidents_free(struct incidents *s);
DEFINE_CLEANUP(struct incidents, incidents_free);
#define cleanup_incidents CLEANUP(incidents_free_p)

/* Conditions of one look, all of them; what is not among them is over. */
void incidents_look(struct incidents *s, const struct condition *conditions, size_t n,
                    int64_t now_us, int64_t mono_us);

/* One more, found otherwise; nothing is over by that. */
void incidents_add(struct incidents *s, const struct condition *c, int64_t now_us, int64_t mono_us);

/* ---- telling ---- */

/* A copy: the incident itself may change while a message is under way. */
struct telling {
	struct incident incident;
	bool again; /* a reminder: the channel knows of it */
};
/* What a channel is to be told now, in the order in which it happened, at most `max`. */
size_t incidents_due(const struct incidents *s, enum channel c, int64_t mono_us,
                     struct telling *ret, size_t max);
/* It was. */
void incidents_told(struct incidents *s, enum channel c, const struct telling *tellings, size_t n,
                    int64_t now_us, int64_t mono_us);

/* ---- state ---- */

struct incident_counts {
	size_t pending, firing, resolved;
	uint64_t lost; /* see (4) */
};
void incidents_count(const struct incidents *s, struct incident_counts *ret);
/* Number `i` of those that fire, in the order in which they began; NULL past the last. */
const struct incident *incidents_firing(const struct incidents *s, size_t i);
/* Changes with all that incidents_save() would write. */
uint64_t incidents_generation(const struct incidents *s);

/* malloc'ed text; free() it. */
int incidents_save(const struct incidents *s, char **ret, size_t *ret_len,
                   struct err *err) MUST_USE;
/* Into an empty one.  ERR_DAMAGED: it is no such text, and none is taken; ERR_VERSION. */
int incidents_load(struct incidents *s, const char *text, size_t len, int64_t now_us,
                   int64_t mono_us, struct err *err) MUST_USE;

#endif
