/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The observer: what the world sees of a running `asof run` (engine/daemon/observer.h starts it).
 *
 *   main thread     signals, the configuration, addresses that could not be listened on yet
 *   facts           collects, when asked (facts.h)
 *   HTTP            a thread that accepts for each address, one for each connection (http.h)
 *   alerts          looks every few seconds, where somebody is to be told (alerting.h)
 *
 * It opens no live database, writes nothing but what was told (monitor/notifier.h), and does nothing
 * while nobody asks and nobody is to be told.
 */
#ifndef ASOF_OBSERVE_OBSERVE_H
#define ASOF_OBSERVE_OBSERVE_H

#include "engine/monitor/notifier.h"
#include "engine/observe/facts.h"

struct observe_options {
	struct config_options config;
	const char *socket; /* of the daemon's control; "" none */
};
/*
 * Until SIGTERM or SIGINT.  *ret_again: it wants to be started anew, its addresses changed.  Errors:
 * those of the configuration.
 */
int observe_run(const struct observe_options *options, bool *ret_again, struct err *err) MUST_USE;

/* ---- for routes and alerts; any thread ---- */

struct observe;

/* Not older than FACTS_MAX_AGE_US where they can be had; to be given back.  NULL: no memory. */
struct facts *observe_facts(struct observe *o, struct err *err);
struct archives *observe_archives(struct observe *o);
struct collector *observe_collector(struct observe *o);
/* The newest configuration, to be given back. */
struct config_ref *observe_config(struct observe *o);
/* Control socket of the daemon, to send orders to; "" none. */
const char *observe_socket(const struct observe *o);
/* False: nobody is told of anything. */
bool observe_alerts(struct observe *o, struct notifier_status *ret);

/*
 * A database of the facts by its name in the archive, or "ARCHIVE:NAME" where several archives have
 * one; NOT_FOUND names what there is.
 */
int observe_find(const struct health_facts *f, const char *name, const struct health_database **ret,
                 struct err *err) MUST_USE;
/* Opens its history; both are to be given back: history_put(), archives_put(). */
int observe_open(struct observe *o, const struct health_database *d, struct archive **ret_archive,
                 struct history **ret, struct err *err) MUST_USE;

#endif
