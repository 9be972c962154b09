/* SPDX-License-Identifier: Apache-2.0 */
/* A line of the journal as anyone may have left it: refused, or an entry whose texts end and which
 * is written back as the same. */
#include "engine/base/file.h"
#include "engine/monitor/journal.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#define must(condition)                                                                            \
	do {                                                                                       \
		if (!(condition))                                                                  \
			abort();                                                                   \
	} while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void write_and_read(const char *root, const struct journal_entry *e)
{
	struct journal *j = NULL;
	struct journal_entry last;

	must(journal_open(root, &j, NULL) == 0);
	must(journal_append(j, e, NULL) == 0);
	journal_free(j);
	must(journal_open(root, &j, NULL) == 0);
	must(journal_last(j, e->job, e->database, &last));
	journal_free(j);
	must(last.scheduled_us == e->scheduled_us && last.began_us == e->began_us &&
	     last.ended_us == e->ended_us && last.ok == e->ok);
	must(strcmp(last.message, e->message) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char root[] = "/tmp/asof-fuzz-journal-XXXXXX", path[64];
	struct journal_entry e;

	if (!journal_parse((const char *)data, size, &e))
		return 0;
	must(memchr(e.job, 0, sizeof(e.job)) && memchr(e.database, 0, sizeof(e.database)) &&
	     memchr(e.message, 0, sizeof(e.message)));
	must(e.job[0] && e.began_us > 0);
	must(mkdtemp(root));
	write_and_read(root, &e);
	snprintf(path, sizeof(path), "%s/" JOURNAL_NAME, root);
	unlink(path);
	rmdir(root);
	return 0;
}
