/* SPDX-License-Identifier: Apache-2.0 */
/* Content and hints from any bytes: the stream inflates to the content, by libdeflate and by zlib,
 * and is no longer than was said. */
#include "engine/base/bytes.h"
#include "engine/gz/alike.h"

#include <libdeflate.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define HINTS_MAX 15u

static void check_zlib(const uint8_t *stream, size_t n, const uint8_t *content, size_t len)
{
	z_stream z = {.next_in = (Bytef *)(uintptr_t)stream, .avail_in = (uInt)n};
	uint8_t *back = malloc(len + 1);

	if (!back || inflateInit2(&z, -15) != Z_OK)
		abort();
	z.next_out = back;
	z.avail_out = (uInt)len + 1;
	if (inflate(&z, Z_FINISH) != Z_STREAM_END || z.total_out != len || z.avail_in != 0 ||
	    memcmp(back, content, len) != 0)
		abort();
	inflateEnd(&z);
	free(back);
}

static void check_libdeflate(const uint8_t *stream, size_t n, const uint8_t *content, size_t len)
{
	struct libdeflate_decompressor *d = libdeflate_alloc_decompressor();
	uint8_t *back = malloc(len + 1);
	size_t used, got;

	if (!back || !d ||
	    libdeflate_deflate_decompress_ex(d, stream, n, back, len + 1, &used, &got) !=
	            LIBDEFLATE_SUCCESS ||
	    used != n || got != len || memcmp(back, content, len) != 0)
		abort();
	libdeflate_free_decompressor(d);
	free(back);
}

/* One byte: how many hints, 4 for each, then content: each byte of it that many times. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct gz_alike alike[HINTS_MAX];
	size_t n = size ? data[0] % (HINTS_MAX + 1) : 0, times = size ? 1u + data[0] / 16 : 1;

	if (size < 1 + 4 * n)
		return 0;
	for (size_t i = 0; i < n; i++)
		alike[i] =
		        (struct gz_alike){load_le16(data + 1 + 4 * i), load_le16(data + 3 + 4 * i)};
	data += 1 + 4 * n;
	size -= 1 + 4 * n;
	size_t len = size * times;
	uint8_t *content = malloc(len + 1), *stream = malloc(alike_bound(len));
	if (!content || !stream)
		abort();
	for (size_t i = 0; i < len; i++)
		content[i] = data[times % 2 ? i % size : i / times];
	size_t stored = alike_deflate(content, len, alike, n, stream);
	if (stored > len + len / 8 + 16)
		abort();
	check_libdeflate(stream, stored, content, len);
	check_zlib(stream, stored, content, len);
	free(content);
	free(stream);
	return 0;
}
