/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deflate (RFC 1951) for content whose writer knows what in it repeats: quicker than to copy it
 * with a checksum, where a compressor that has to look for repetitions takes ten times as long.
 *
 * Commits that come as fast as they go write the same few pages again and again, and each is
 * nearly what it was some frames before: matches against that, and for runs of zeros; what differs
 * as fixed Huffman codes where it is short, else stored.
 */
#ifndef ASOF_GZ_ALIKE_H
#define ASOF_GZ_ALIKE_H

#include <stddef.h>
#include <stdint.h>

#define GZ_ALIKE_REACH 32768u /* no distance is greater */

/*
 * From byte `offset` on, up to the next one's, content is nearly what it is `distance` bytes
 * before; 0: nothing is known.  A hint: any gives a stream that inflates to the content.  Bytes
 * that would have to be alike to what lies before the content are not.
 */
struct gz_alike {
	uint32_t offset, distance;
};

/* How many bytes alike_deflate() may write to. */
size_t alike_bound(size_t len);
/* `alike` ascends by offset.  Gives the length of the whole stream, which may be a little more than
 * `len`; alike_bound(len) bytes at `out` are overwritten. */
size_t alike_deflate(const uint8_t *content, size_t len, const struct gz_alike *alike,
                     size_t n_alike, uint8_t *out);

#endif
