/* SPDX-License-Identifier: Apache-2.0 */
/* What `retention:` of a configuration means to engine/retain. */
#ifndef ASOF_CONFIG_RETENTION_H
#define ASOF_CONFIG_RETENTION_H

#include "engine/config/config.h"
#include "engine/retain/retain.h"

void config_retain_policy(const struct config_retention *c, struct retain_policy *ret);

#endif
