/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/doctor.h"

#include <stdarg.h>
#include <string.h>

const char *doctor_severity_name(enum doctor_severity s)
{
	static const char *const names[] = {"note", "warning", "serious"};

	return names[s];
}

void doctor_add(struct doctor *d, enum doctor_severity severity, const char *check,
                const char *thing, const char *advice, const char *fmt, ...)
{
	struct doctor_finding *more =
	        realloc(d->findings, (d->n_findings + 1) * sizeof(*d->findings));
	va_list ap;

	if (more)
		d->findings = more;
	char *copy = more ? strdup(thing) : NULL;
	if (!copy) {
		d->out_of_memory = true;
		return;
	}
	struct doctor_finding *f = &d->findings[d->n_findings++];
	*f = (struct doctor_finding){
	        .severity = severity, .check = check, .thing = copy, .advice = advice};
	va_start(ap, fmt);
	vsnprintf(f->why, sizeof(f->why), fmt, ap);
	va_end(ap);
	d->n_of[severity]++;
}

void doctor_release(struct doctor *d)
{
	for (size_t i = 0; i < d->n_findings; i++)
		free(d->findings[i].thing);
	for (size_t i = 0; i < d->n_databases; i++)
		free(d->databases[i].path);
	free(d->findings);
	free(d->databases);
}
