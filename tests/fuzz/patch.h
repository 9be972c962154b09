/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Objects of the archive under the fuzzer.  Its input is not an object but a list of changes to
 * a good one, 4 bytes each: u24 offset (modulo the size), u8 value; offset 0xffffff cuts the
 * object behind the offset that the next change names.
 *
 * In the fuzzing build hash64() is a constant, so that changes get past the checksums and meet
 * the decoders: nothing may crash, hang or take memory without bound.  In every other build,
 * which replays the corpus, the checksums are real, and whatever is read without an error must
 * be what the good object holds: patch_must_match() says so.
 */
#ifndef ASOF_TESTS_FUZZ_PATCH_H
#define ASOF_TESTS_FUZZ_PATCH_H

#include "engine/base/source.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct object {
	uint8_t *data;
	size_t len;
};

static inline void must(bool ok)
{
	if (!ok)
		abort();
}

static inline bool patch_must_match(void)
{
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
	return false;
#else
	return true;
#endif
}

/* An empty folder; its path in `path` for patch_remove_dir(). */
static inline int patch_make_dir(char path[64])
{
	snprintf(path, 64, "/tmp/asof-fuzz-XXXXXX");
	must(mkdtemp(path));
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	must(fd >= 0);
	return fd;
}

/* Takes a file out of the folder and into memory. */
static inline struct object patch_take_file(int dir_fd, const char *name)
{
	struct object o;
	struct stat st;
	int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC);

	must(fd >= 0 && fstat(fd, &st) == 0);
	o.len = (size_t)st.st_size;
	must((o.data = malloc(o.len)) != NULL && pread(fd, o.data, o.len, 0) == st.st_size);
	close(fd);
	unlinkat(dir_fd, name, 0);
	return o;
}

/* The changed object, in memory of exactly its size. */
static inline struct object patch_apply(const struct object *good, const uint8_t *data, size_t size)
{
	struct object o = {.len = good->len};

	must((o.data = malloc(good->len)) != NULL);
	memcpy(o.data, good->data, good->len);
	for (; size >= 4; data += 4, size -= 4) {
		size_t offset = (size_t)data[0] << 16 | (size_t)data[1] << 8 | data[2];
		if (offset == 0xffffff && size >= 8) {
			data += 4, size -= 4;
			offset = (size_t)data[0] << 16 | (size_t)data[1] << 8 | data[2];
			o.len = offset % (good->len + 1);
		} else {
			o.data[offset % good->len] = data[3];
		}
	}
	uint8_t *exact = malloc(o.len ? o.len : 1);
	must(exact != NULL);
	memcpy(exact, o.data, o.len);
	free(o.data);
	o.data = exact;
	return o;
}

static inline bool patch_same(const struct object *a, const struct object *b)
{
	return a->len == b->len && memcmp(a->data, b->data, a->len) == 0;
}

/* ---- a source in memory; takes the object over ---- */

struct memory_source {
	struct source base;
	struct object object;
};

static inline int memory_pread(struct source *s, void *buf, size_t len, uint64_t offset,
                               struct err *err)
{
	struct memory_source *m = (struct memory_source *)s;

	if (offset > m->object.len || len > m->object.len - offset)
		return err_set(err, ERR_DAMAGED, 0, "memory ends before byte %llu",
		               (unsigned long long)(offset + len));
	memcpy(buf, m->object.data + offset, len);
	return 0;
}

static inline int memory_size(struct source *s, uint64_t *ret_bytes, struct err *err)
{
	(void)err;
	*ret_bytes = ((struct memory_source *)s)->object.len;
	return 0;
}

static inline void memory_free(struct source *s)
{
	free(((struct memory_source *)s)->object.data);
	free(s->name);
	free(s);
}

static inline struct source *memory_source(struct object o)
{
	struct memory_source *m = calloc(1, sizeof(*m));

	must(m != NULL);
	m->base = (struct source){.pread = memory_pread, .size = memory_size, .free = memory_free};
	must((m->base.name = strdup("memory")) != NULL);
	m->object = o;
	return &m->base;
}

#endif
