/* SPDX-License-Identifier: Apache-2.0 */
/* check --sample: a share of the histories' bytes and moments, chosen by chance, verified. */
#ifndef ASOF_TOOLS_CHECK_SAMPLE_H
#define ASOF_TOOLS_CHECK_SAMPLE_H

#include "tools/cli.h"

struct sample_request {
	const char *archive; /* NULL: as configured */
	const char *share;   /* "5%" */
	const char *seed;    /* NULL: one of its own, which is told */
	bool json;
};

/* Prints what it finds; DAMAGED when something is. */
int check_sample(struct cli *c, const struct sample_request *q, struct err *err) MUST_USE;

#endif
