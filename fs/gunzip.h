/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plain gzip files, as other programs make them: no index, often one member.  Whoever reads
 * them needs all of them, so they are inflated whole into an unlinked temporary file.
 * What does not inflate to its own checksums is DAMAGED; the message names `path`.
 */
#ifndef ASOF_FS_GUNZIP_H
#define ASOF_FS_GUNZIP_H

#include "engine/base/err.h"

#include <stdint.h>

/*
 * Size of the content.  Quick when the last member's length agrees with what the SQLite
 * header within says of the database's size; otherwise by inflating all of it to nowhere.
 */
int fs_gunzip_size(int fd, const char *path, uint64_t *ret_bytes, struct err *err) MUST_USE;

/* Inflates into a new unlinked file in $TMPDIR or /var/tmp.  The space is taken before, and
 * content of any length but `size_bytes` is DAMAGED: a file can not grow past what it said. */
int fs_gunzip_to_file(int fd, const char *path, uint64_t size_bytes, int *ret_fd,
                      struct err *err) MUST_USE;

#endif
