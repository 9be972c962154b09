/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/verify/verify_i.h"

#include <string.h>

bool verify_report_ok(const struct verify_report *r)
{
	return r->n_damages == 0 && r->integrity_problems == 0;
}

void verify_report_release(struct verify_report *r)
{
	for (size_t i = 0; i < r->n_damages; i++)
		free(r->damages[i].affected);
	free(r->damages);
	r->damages = NULL;
	r->n_damages = 0;
}

int report_damage(struct run *r, const struct history_object *o, struct object_check *check,
                  struct err *err)
{
	struct verify_report *rep = r->report;
	size_t n = rep->n_damages;

	void *more = realloc(rep->damages, (n + 1) * sizeof(*rep->damages));
	if (more)
		rep->damages = more;
	void *checks = realloc(r->checks, (n + 1) * sizeof(*r->checks));
	if (checks)
		r->checks = checks;
	if (!more || !checks)
		return err_set(err, ERR_NOMEM, 0, "no memory for the damages");
	struct verify_damage *d = &rep->damages[n];
	*d = (struct verify_damage){0};
	if (o)
		snprintf(d->object, sizeof(d->object), "%s/%s", history_object_folder(o), o->file);
	snprintf(d->reason, sizeof(d->reason), "%s", check->first.msg);
	r->checks[n] = *check;
	*check = (struct object_check){0};
	rep->n_damages++;
	return 0;
}

int report_note(struct run *r, const char *file, struct object_check *check, struct err *err)
{
	int rc = report_damage(r, NULL, check, err);
	struct verify_damage *d = rc == 0 ? &r->report->damages[r->report->n_damages - 1] : NULL;

	if (d)
		snprintf(d->object, sizeof(d->object), "%s", file);
	return rc;
}
