/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes in memory as a source, and whole files as bytes. */
#ifndef ASOF_TESTS_MEMORY_H
#define ASOF_TESTS_MEMORY_H

#include "engine/base/source.h"

/* Reads from `data`, which stays the caller's and may change. */
struct source *memory_source(const char *name, const void *data, size_t len);
/* A whole file; free() it. */
uint8_t *read_whole(int dir_fd, const char *name, size_t *ret_len);
void write_whole(int dir_fd, const char *name, const void *data, size_t len);
/* What `command` prints; free() it. */
uint8_t *output_of(const char *command, size_t *ret_len);

#endif
