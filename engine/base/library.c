/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/library.h"

#include "engine/base/cleanup.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

static int give_up(struct library *l, const char *why, const char *name)
{
	snprintf(l->problem, sizeof(l->problem), "%s%s", why, name);
	return -1;
}

static int load(struct library *l)
{
	void *library = dlopen(l->file, RTLD_NOW | RTLD_LOCAL); /* never closed */

	if (!library)
		return give_up(l, dlerror(), "");
	for (size_t i = 0; i < l->n_names; i++) {
		void *p = dlsym(library, l->names[i]);
		if (!p)
			return give_up(l, "it has no ", l->names[i]);
		memcpy((char *)l->table + i * sizeof(p), &p, sizeof(p));
	}
	return l->begin && l->begin() != 0 ? give_up(l, "it does not initialise", "") : 1;
}

int library_load(struct library *l, struct err *err)
{
	LOCK_SCOPE(&l->lock);
	if (!l->state)
		l->state = load(l);
	if (l->state > 0)
		return 0;
	return err_set(err, ERR_IO, 0, "load %s: %s (install the package %s)", l->file, l->problem,
	               l->package);
}
