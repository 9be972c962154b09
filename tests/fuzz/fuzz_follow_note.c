/* SPDX-License-Identifier: Apache-2.0 */
/* The note beside a standby, from any bytes; with its sum set right, so that more than the sum is
 * looked at. */
#include "engine/restore/follow_i.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct follow_note note;
	char text[2200];

	if (size == 0 || size > 2000)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	if (follow_note_parse(text, size, &note) > 0)
		abort();
	memcpy(text, data, size);
	text[size - 1] = '\n';
	int n = snprintf(text + size, sizeof(text) - size, "sum %016" PRIx64 "\n",
	                 hash64(text, size, 0));
	if (follow_note_parse(text, size + (size_t)n, &note) > 0 ||
	    strlen(note.database) >= sizeof(note.database))
		abort();
	return 0;
}
