/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs that send backups: one for each place (sending.h), whatever the number of databases. */
#include "engine/daemon/jobs_i.h"

#include "engine/base/hash.h"
#include "engine/daemon/sending.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

void jobs_want_sending(struct jobs *j, job_want_place_fn *want)
{
	struct sending_place places[SENDING_PLACES_MAX];
	size_t n = sending_places(j->config, places);
	char name[64];

	for (size_t i = 0; i < n; i++) {
		const struct sending_place *p = &places[i];
		const char *database =
		        p->n_databases == 1 && p->database->name ? p->database->name : "";
		snprintf(name, sizeof(name), "send %.50s", p->destination->name);
		want(j, p->destination->url, name, database);
	}
}

/* Files that come and go change the time of their folder. */
static uint64_t stamp_of(const char *root, uint64_t seed)
{
	char path[PATH_MAX];
	struct stat st;

	for (int type = 0; type < BACKUP_N_TYPES; type++) {
		snprintf(path, sizeof(path), "%.*s/%s", PATH_MAX - 32, root,
		         backup_type_names[type]);
		if (stat(path, &st) < 0)
			continue;
		const int64_t seen[] = {type, st.st_mtim.tv_sec, st.st_mtim.tv_nsec,
		                        (int64_t)st.st_ino};
		seed = hash64(seen, sizeof(seen), seed);
	}
	return seed;
}

uint64_t jobs_sending_stamp(const struct jobs *j, const struct job *job)
{
	struct sending_place places[SENDING_PLACES_MAX];
	const char *roots[SENDING_PLACES_MAX];
	size_t n = sending_places(j->config, places), n_roots;
	uint64_t stamp = 1;

	for (size_t i = 0; i < n; i++) {
		if (strcmp(places[i].destination->url, job->url) != 0)
			continue;
		n_roots = sending_roots(j->config, &places[i], roots);
		for (size_t k = 0; k < n_roots; k++)
			stamp = stamp_of(roots[k], stamp);
	}
	return stamp ? stamp : 1;
}
