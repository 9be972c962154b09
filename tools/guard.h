/* SPDX-License-Identifier: Apache-2.0 */
/* What `asof guard` compares where there is no history to ask: two copies of a database. */
#ifndef ASOF_TOOLS_GUARD_H
#define ASOF_TOOLS_GUARD_H

#include "engine/query/diff.h"
#include "engine/restore/file.h"

/*
 * Rows that differ, table by table, told apart by rowid or PRIMARY KEY and compared by SQLite's IS;
 * *ret as of diff_summarize(), to be released by diff_summary_release().  Both files must be
 * readable at random.
 */
int guard_compare(const struct restore_file *before, const struct restore_file *after,
                  struct diff_summary *ret, struct err *err) MUST_USE;

#endif
