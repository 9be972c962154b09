/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A span: what changed in after_txid < txid <= until_txid, as a view without a base.
 * view_page() of a page that did not change is ERR_NOT_FOUND.
 */
#ifndef ASOF_VIEW_SPAN_H
#define ASOF_VIEW_SPAN_H

#include "engine/base/bitset.h"
#include "engine/view/history.h"

/* Not `exact`: pages that changed a little earlier can be among them, and the smallest size can
 * be one of before (objects that begin earlier are taken whole, which is cheaper).  That is so
 * of exact ones, too, where nothing begins where it should. */
int span_open(struct history *h, uint64_t after_txid, uint64_t until_txid, bool exact,
              struct view **ret, struct err *err) MUST_USE;
/* Adds the pages that changed and still exist at its end; *ret_min_pages is the smallest size of
 * the database after any of its commits. */
int span_pages(struct view *span, struct bitset *pages, uint32_t *ret_min_pages,
               struct err *err) MUST_USE;

#endif
