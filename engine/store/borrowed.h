/* SPDX-License-Identifier: Apache-2.0 */
/* A store that is another's, to be given to who frees it. */
#ifndef ASOF_STORE_BORROWED_H
#define ASOF_STORE_BORROWED_H

#include "engine/store/store.h"

/* Passes all on; freeing it leaves `inner`, which outlives it. */
int store_borrow(struct store *inner, struct store **ret, struct err *err) MUST_USE;

#endif
