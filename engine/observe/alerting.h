/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `alerts:` of the configuration means to the notifier (monitor/notifier.h), and what of a verdict
 * is told.
 */
#ifndef ASOF_OBSERVE_ALERTING_H
#define ASOF_OBSERVE_ALERTING_H

#include "engine/config/config.h"
#include "engine/monitor/notifier.h"
#include "engine/observe/facts.h"

/* The name of this machine, for messages. */
#define ALERTING_HOST_MAX 256

/* Texts are those of the configuration, and of `host`, which is filled in. */
void alerting_options(const struct config *c, char host[ALERTING_HOST_MAX],
                      struct notifier_options *ret);
/* Whether anybody is to be told anything. */
bool alerting_is_wanted(const struct config *c);

/* "smtp.example.com:587, TLS required, to a@x, b@x": where a place is, without secrets. */
#define ALERTING_TEXT_MAX 400
void alerting_describe(const struct notifier_options *o, int place, char out[ALERTING_TEXT_MAX]);

/* Of `alerts:` alone. */
bool alerting_is_same(const struct config *a, const struct config *b);

/* ---- in the observer ---- */

struct alerting;

/*
 * Looks at the facts every few seconds, judges them, and has the notifier tell it; a thread.  *ret is
 * NULL where nobody is to be told anything.  `c` is read during the call only.
 */
int alerting_start(const struct config *c, struct collector *collector, struct alerting **ret,
                   struct err *err) MUST_USE;
/* Lets a message under way get through for half a second.  NULL is fine.  The thread is not waited
 * for: it may be in a disk that hangs; the process is to end after that. */
void alerting_stop(struct alerting *a);
void alerting_get_status(struct alerting *a, struct notifier_status *ret);

#endif
