/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Metrics: facts and their verdict -> text in Prometheus' format 0.0.4.  Pure.
 *
 * Every name with its meaning stands in tools/man/asof-metrics.7.md, which a test holds to this.
 *
 *   asof_…          named by Prometheus' rules: base units, counters end in _total
 *   litestream_…    Litestream's own, with their meaning there; its counters, which break those rules,
 *                   are untyped, so that promtool takes them (rate() does not care)
 *   backup_…        those of the old system
 *
 * The label `db` is the path of the live database everywhere, as Litestream has it; `archive` the
 * root of an archive, `destination` a name of the configuration.  What is not known is +Inf where
 * large means bad, and left out else: no alert is kept silent by a value that was never there.
 */
#ifndef ASOF_MONITOR_METRICS_H
#define ASOF_MONITOR_METRICS_H

#include "engine/base/buf.h"
#include "engine/monitor/health.h"
#include "engine/monitor/notifier.h"

#define METRICS_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"

/* Appends to `out`.  `alerts`: NULL where nobody is told. */
int metrics_write(const struct health_facts *f, const struct health_verdict *v,
                  const struct notifier_status *alerts, int64_t now_us, struct buf *out,
                  struct err *err) MUST_USE;

#endif
