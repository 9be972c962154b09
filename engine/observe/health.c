/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GET /health: 200 where everything could be restored, 503 where not.
 *
 *   {"healthy": bool, "status": "ok" | "warning" | "failed", "at": TIME, "version": TEXT,
 *    "checks": [
 *     {"subject": "database", "name": NAME, "status": …, "code": …, "reason": TEXT},
 *     {"subject": "destination", "name": NAME, "database": NAME, …}
 *   ]}
 *
 * one line for each check; codes as HEALTH_CODES of monitor/health.h.  Without credentials, where
 * some are wanted: "healthy" and "status" alone.
 */
#include "engine/base/buf.h"
#include "engine/base/clock.h"
#include "engine/observe/api.h"
#include "engine/observe/observe.h"
#include "engine/observe/routes.h"

#include <string.h>

#define ANSWER_MAX ((size_t)16 << 20)

static int append_json(struct buf *b, json_t *value, struct err *err)
{
	cleanup_free char *text = value ? json_dumps(value, JSON_COMPACT) : NULL;

	json_decref(value);
	if (!text)
		return err_set(err, ERR_NOMEM, 0, "no memory");
	return buf_append(b, text, strlen(text), err);
}

static int write_checks(struct buf *b, const struct health_facts *f, const struct health_verdict *v,
                        struct err *err)
{
	char when[TIME_STR_MAX];

	time_format(f->at_us, when);
	int rc = buf_printf(b, err, ",\"at\":%s%s%s,\"version\":\"" ASOF_VERSION "\",\"checks\":[",
	                    f->at_us ? "\"" : "", f->at_us ? when : "null", f->at_us ? "\"" : "");
	for (size_t i = 0; i < v->n && rc == 0; i++) {
		rc = buf_printf(b, err, i ? ",\n" : "\n");
		rc = rc ? rc : append_json(b, api_check_json(&v->lines[i]), err);
	}
	return rc ? rc : buf_printf(b, err, "\n]");
}

static int get_health(const struct http_request *q, struct http_response *r, struct err *err)
{
	cleanup_facts struct facts *f = observe_facts(q->observe, err);
	cleanup_health_verdict struct health_verdict v = {0};
	cleanup_buf struct buf b = BUF_INIT(ANSWER_MAX);
	struct health_limits limits;

	if (!f)
		return -(int)err->kind;
	health_limits_default(&limits);
	int rc = health_judge(&f->f, &limits, clock_now_us(), &v, err);
	if (rc == 0)
		rc = buf_printf(&b, err, "{\"healthy\":%s,\"status\":\"%s\"",
		                v.healthy ? "true" : "false", health_level_name(v.level));
	if (rc == 0 && q->known)
		rc = write_checks(&b, &f->f, &v, err);
	if (rc == 0)
		rc = buf_printf(&b, err, "}\n");
	if (rc < 0)
		return rc;
	r->status = v.healthy ? 200 : 503;
	http_text(r, "application/json", (char *)take_ptr(b.data), b.len);
	return 0;
}

const struct http_route routes_health[] = {{"GET", "/health", HTTP_ANYBODY, get_health}, {0}};
