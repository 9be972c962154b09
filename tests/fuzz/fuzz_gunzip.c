/* SPDX-License-Identifier: Apache-2.0 */
/* Gzip files from any bytes: content or an error, whatever the sizes of reads, and the same one. */
#include "engine/gz/gunzip.h"

#include "engine/base/hash.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
	const uint8_t *p;
	size_t left, step;
};

static int take(void *ctx, void *buf, size_t len, size_t *ret_len, struct err *err)
{
	struct input *in = ctx;
	size_t n = in->left < in->step ? in->left : in->step;

	n = n < len ? n : len;
	memcpy(buf, in->p, n);
	in->p += n;
	in->left -= n;
	*ret_len = n;
	return 0;
}

static int run(const uint8_t *data, size_t size, size_t step, size_t piece, uint64_t *ret)
{
	struct input in = {data, size, step};
	cleanup_gunzip struct gunzip *g = NULL;
	uint8_t out[4096];
	size_t got, total = 0;

	*ret = 0;
	if (gunzip_new(take, &in, "fuzz", &g, NULL))
		abort();
	do {
		int rc = gunzip_read(g, out, piece, &got, NULL);
		if (rc)
			return rc;
		for (size_t i = 0; i < got; i++)
			*ret = *ret * 31 + out[i];
		total += got;
	} while (got == piece && total < 1u << 20);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint64_t a, b;
	int first = run(data, size, 4096, 4096, &a);
	int second = run(data, size, 7, 512, &b);

	if (first != second || (first == 0 && a != b))
		abort();
	return 0;
}
