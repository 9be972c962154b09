/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Replication to stores (ship/ship.h): a task for each database and each of its destinations, on a
 * pool of its own.
 *
 * It reads the archive alone, as any reader would: capture and recorder know nothing of it but that
 * they say when something new is durable.  So a destination that is slow, or away, or full costs
 * them nothing; the archive is what waits.  Threads in this process, and not a process for each
 * destination: what is idle then costs a few hundred bytes, and nothing of it holds a lock or a
 * buffer that capture waits for.
 *
 * Bounds.  So many threads as shipping.c says, half of them at most for one store, so that one that
 * hangs leaves room for the others; a store that does not answer is asked by one task at a time, at
 * growing distances of up to a minute.  Histories that are open at once are counted; beyond the
 * bound each is closed after each step.
 */
#ifndef ASOF_DAEMON_SHIPPING_H
#define ASOF_DAEMON_SHIPPING_H

#include "engine/daemon/fleet.h"
#include "engine/store/store.h"

struct shipping;

struct shipping_destination {
	const char *archive, *name; /* of the database: what is sent */
	const char *label;          /* of the destination, for people */
	const char *url;
	const struct config_s3 *s3; /* what the URL does not say; may be NULL */
	const char *sftp_identity, *sftp_host_key, *key_file, *key_command; /* likewise */
	int64_t interval_us;
};

/* What a configuration says of a destination, but `archive` and `name`; borrowed. */
void shipping_destination_of(const struct config_destination *c, struct shipping_destination *ret);
/* How its store is opened. */
void shipping_store_options(const struct shipping_destination *d, struct store_options *ret);

int shipping_new(struct shipping **ret, struct err *err) MUST_USE;
/* One destination more; texts are copied.  USAGE: a URL that says nothing sensible. */
int shipping_add(struct shipping *s, const struct shipping_destination *d,
                 struct err *err) MUST_USE;
/* Brings what runs to what the configuration wants of the databases that there are; main thread, now
 * and then.  What is wrong with one destination is logged. */
void shipping_apply(struct shipping *s, struct fleet *f);
/* As of fleet_on_news(). */
void shipping_news(void *s, const char *archive, const char *name);
/* Has everything that is captured sent, giving up after `timeout_us`; then nothing more is. */
void shipping_end(struct shipping *s, int64_t timeout_us);
bool shipping_ended(struct shipping *s);
/* 0, or what kept the last of them from having everything. */
int shipping_result(struct shipping *s, struct err *err) MUST_USE;
void shipping_free(struct shipping *s);

#endif
