/* SPDX-License-Identifier: Apache-2.0 */
/* A -wal of any bytes over a database of a few pages: what it is said to have can be read, and memory
 * is bounded by its size. */
#include "engine/restore/overlay.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint32_t page_sizes[] = {512, 4096, 65536};
	cleanup_fd int fd = memfd_create("wal", MFD_CLOEXEC);
	uint8_t page[65536];

	if (fd < 0 || write(fd, data, size) != (ssize_t)size)
		return 0;
	for (int i = 0; i < 3; i++) {
		cleanup_overlay struct overlay *o = NULL;
		if (overlay_open(fd, "x-wal", page_sizes[i], 3, &o, NULL) || !o)
			continue;
		if (overlay_pages(o) > 4 + size / page_sizes[i])
			abort();
		for (uint32_t p = 0; p <= overlay_pages(o); p++)
			if (overlay_has(o, p) && overlay_read(o, p, page, NULL))
				abort();
	}
	return 0;
}
