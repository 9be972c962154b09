/* SPDX-License-Identifier: Apache-2.0 */
/* Manifests of backups, as anyone may have left them beside a backup. */
#include "engine/backup/backup_i.h"
#include "tests/fuzz/patch.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_files(const struct backup_manifest_files *files)
{
	must(files->n > 0);
	for (size_t i = 0; i < files->n; i++) {
		const char *name = files->names[i];
		must(name[0] && !strchr(name, '/') && strlen(name) < BACKUP_FILE_MAX);
		for (size_t k = 0; k < i; k++)
			must(strcmp(name, files->names[k]) != 0);
	}
}

static void check_manifest(const struct backup_manifest *m)
{
	must(!m->sha256[0] || strlen(m->sha256) == 64);
	must(isfinite(m->compression_ratio) && m->compression_ratio >= 0);
	must(m->n_companions <= BACKUP_COMPANIONS_MAX);
	for (size_t i = 0; i < m->n_companions; i++)
		must(m->companions[i][0] && !strchr(m->companions[i], '/'));
	must(m->source <= BACKUP_FROM_RAW);
	must(memchr(m->type, 0, sizeof(m->type)) && memchr(m->warning, 0, sizeof(m->warning)) &&
	     memchr(m->backup_file, 0, sizeof(m->backup_file)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct backup_manifest_files files;
	static struct backup_manifest m;
	struct backup_name name;
	char text[BACKUP_FILE_MAX];

	int rc = backup_manifest_parse((const char *)data, size, NULL, &m, &files, NULL);
	must(rc == 0 || rc == -ERR_DAMAGED);
	if (rc == 0) {
		check_files(&files);
		check_manifest(&m);
		free(files.names);
	}
	/* The same bytes as a file's name. */
	if (size < sizeof(text) && !memchr(data, 0, size)) {
		memcpy(text, data, size);
		text[size] = '\0';
		if (backup_name_parse(text, &name))
			must(strlen(name.stem) + strlen(name.label) <= size && text[0] != '.');
	}
	return 0;
}
