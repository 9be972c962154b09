/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/config/retention.h"

_Static_assert(CONFIG_MAX_TIERS <= RETAIN_TIERS_MAX, "every configured tier has its place");

void config_retain_policy(const struct config_retention *c, struct retain_policy *ret)
{
	retain_policy_default(ret);
	ret->n_tiers = c->n_tiers;
	for (size_t i = 0; i < c->n_tiers; i++)
		ret->tiers[i] = (struct retain_tier){c->tiers[i].age_us, c->tiers[i].every_us};
	ret->max_bytes = c->max_bytes;
	/* Both are there by default only: of 5 of 100 and 2 GB the less, which 5 alone stands for. */
	ret->min_free_bytes = c->min_free_percent ? 0 : c->min_free_bytes;
	ret->min_free_percent = c->min_free_percent;
}
