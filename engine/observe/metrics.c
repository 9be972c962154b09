/* SPDX-License-Identifier: Apache-2.0 */
/* GET /metrics: see engine/monitor/metrics.h. */
#include "engine/monitor/metrics.h"

#include "engine/base/clock.h"
#include "engine/observe/observe.h"
#include "engine/observe/routes.h"

#define ANSWER_MAX ((size_t)64 << 20)

static int get_metrics(const struct http_request *q, struct http_response *r, struct err *err)
{
	cleanup_facts struct facts *f = observe_facts(q->observe, err);
	cleanup_health_verdict struct health_verdict v = {0};
	cleanup_buf struct buf b = BUF_INIT(ANSWER_MAX);
	struct health_limits limits;
	struct notifier_status alerts;
	bool told = observe_alerts(q->observe, &alerts);
	int64_t now_us = clock_now_us();

	if (!f)
		return -(int)err->kind;
	health_limits_default(&limits);
	int rc = health_judge(&f->f, &limits, now_us, &v, err);
	if (rc == 0)
		rc = metrics_write(&f->f, &v, told ? &alerts : NULL, now_us, &b, err);
	if (rc < 0)
		return rc;
	http_text(r, METRICS_CONTENT_TYPE, (char *)take_ptr(b.data), b.len);
	return 0;
}

const struct http_route routes_metrics[] = {{"GET", "/metrics", HTTP_METRICS, get_metrics}, {0}};
