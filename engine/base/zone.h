/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Time zones by name, without the process-wide TZ of the C library: any number of them at
 * once, in any thread, none changed by setenv().
 *
 * A zone is a file of the system's zone database (RFC 8536, versions 1 to 4) or a rule as TZ
 * has it (POSIX, "CET-1CEST,M3.5.0,M10.5.0/3").  Immutable once open: any thread reads it.
 */
#ifndef ASOF_BASE_ZONE_H
#define ASOF_BASE_ZONE_H

#include "engine/base/cleanup.h"
#include "engine/base/err.h"

#include <stdint.h>

#define ZONE_NAME_MAX 128

struct zone;

/*
 * "UTC"; "local" for what TZ, or else /etc/localtime, says; "Area/City"; a POSIX rule.  A name
 * that is none of these is ERR_USAGE, and so is a file that is no zone.  "local" where the
 * system does not say is UTC.
 */
int zone_open(const char *name, struct zone **ret, struct err *err) MUST_USE;
void zone_free(struct zone *z);
DEFINE_CLEANUP(struct zone, zone_free);
#define cleanup_zone CLEANUP(zone_free_p)

/* As given to zone_open(); "UTC" for NULL. */
const char *zone_name(const struct zone *z);
/* What clocks there are ahead of UTC at a moment, in seconds.  NULL: UTC. */
int32_t zone_offset_s(const struct zone *z, int64_t time_us);
/* The first moment after `time_us` at which the offset changes, INT64_MAX: never again. */
int64_t zone_next_change_us(const struct zone *z, int64_t time_us);

/*
 * The moments at which clocks there show `civil_us` (a civil time counted as if it were UTC):
 * ret[0] < ret[1] when an hour is repeated (returns 2), ret[0] alone (returns 1), or, in an
 * hour that is skipped, none: returns 0 and ret[0] is the moment of the change.
 */
int zone_from_civil(const struct zone *z, int64_t civil_us, int64_t ret[2]);

#endif
