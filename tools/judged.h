/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The verdict of /health (engine/monitor/health.h), for commands that look once: of the daemon that
 * runs and what it replicates, else of what is configured.
 */
#ifndef ASOF_TOOLS_JUDGED_H
#define ASOF_TOOLS_JUDGED_H

#include "engine/observe/facts.h"
#include "tools/cli.h"

struct judged {
	struct facts *facts; /* NULL: neither a daemon nor a configuration, or no folder */
	struct health_verdict verdict;
};

struct judged_options {
	const char *archive; /* where to look for the daemon, too; may be NULL */
	bool any_archive;    /* its histories are judged even where nobody configured them */
	const struct health_limits *limits; /* NULL: those of /health */
	/* May fill in what no configuration says; NULL: nothing does. */
	void (*prepare)(struct facts *facts, const struct health_limits *limits);
	int64_t now_us;
};
/* Asks the daemon, and judges.  An archive far away is not looked at. */
int judged_get(const struct cli *c, const struct judged_options *o, struct judged *ret,
               struct err *err) MUST_USE;
void judged_release(struct judged *j);
#define cleanup_judged CLEANUP(judged_release)

/* As /health has it: "healthy", "status", "checks"; null where nothing was judged. */
json_t *judged_json(const struct judged *j);
/* A line for each check that something is to be said of; `db`: of that one alone (NULL: of all). */
void judged_print(const struct judged *j, const char *db);

#endif
