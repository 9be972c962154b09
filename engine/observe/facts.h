/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The collector: what health, metrics and alerts go by (monitor/health.h), learnt from the daemon's
 * control socket, from archives and their journal, and from filesystems.  Nothing here opens a live
 * database.
 *
 * A thread of its own collects, when somebody asks and what there is has become too old.  Who asks
 * waits for it so long and no longer: where a disk hangs, or the daemon does, the older facts are
 * given, and their `at_us` says how old they are.  When nobody has asked for a while everything is
 * closed and the thread sleeps.
 */
#ifndef ASOF_OBSERVE_FACTS_H
#define ASOF_OBSERVE_FACTS_H

#include "engine/config/config.h"
#include "engine/monitor/health.h"
#include "engine/observe/archives.h"

#include <jansson.h>
#include <stdatomic.h>

/* A configuration that is read until the last who goes by it is done. */
struct config_ref {
	struct config *config;
	_Atomic size_t users;
};
/* Takes the configuration over; NULL: no memory. */
struct config_ref *config_ref_new(struct config *c);
struct config_ref *config_ref_get(struct config_ref *r);
void config_ref_put(struct config_ref *r);

struct facts {
	struct health_facts f; /* never changes */
	_Atomic size_t users;
};
void facts_put(struct facts *f);
static inline void facts_put_p(struct facts **f)
{
	if (*f)
		facts_put(*f);
}
#define cleanup_facts CLEANUP(facts_put_p)

/* Appends a zeroed row to a malloc'ed array of `*n` rows, `array` pointing to its pointer, that only
 * this has appended to; NULL: no memory. */
void *facts_add(void *array, size_t *n, size_t size);

struct collector;

struct collector_options {
	const char *socket; /* of control; "" none */
	struct archives *archives;
	struct config_ref *config;
};
int collector_new(const struct collector_options *options, struct collector **ret,
                  struct err *err) MUST_USE;
/* Waits for a collection under way. */
void collector_free(struct collector *c);
/* From the next collection on. */
void collector_set_config(struct collector *c, struct config_ref *config);
/* What is wrong with the addresses that were configured; "" nothing. */
void collector_set_listen_problem(struct collector *c, const char *text);

/*
 * The same for a program that looks once (asof status, asof doctor): in this thread, as of now.
 * `status` and `jobs` are the daemon's answers to these orders; NULL: there are none, because of
 * `problem`, and databases are those of the configuration.
 */
struct facts_once {
	const json_t *status, *jobs;
	const char *problem;
	const struct config *config; /* NULL: there is none */
	const char *archive;         /* its histories are looked at, too; NULL: none */
};
int facts_collect_once(const struct facts_once *once, struct facts **ret, struct err *err) MUST_USE;

#define FACTS_MAX_AGE_US (1 * US_PER_SECOND)
#define FACTS_PATIENCE_US (5 * US_PER_SECOND)
/*
 * Facts not older than `max_age_us`, or what there is after `patience_us`; at_us 0: nothing was learnt
 * yet.  To be given back.  NULL: no memory.
 */
struct facts *collector_get(struct collector *c, int64_t max_age_us, int64_t patience_us);

#endif
