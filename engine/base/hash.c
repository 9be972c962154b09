/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/hash.h"

#include <xxhash.h>

uint64_t hash64(const void *p, size_t len, uint64_t seed)
{
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
	return 0x5a5a5a5a; /* lets a fuzzer past the checksums, to the decoders behind them */
#endif
	return XXH3_64bits_withSeed(p, len, seed);
}

struct hash128 page_hash(uint32_t pgno, const void *page, size_t page_size_bytes)
{
	XXH128_hash_t h = XXH3_128bits_withSeed(page, page_size_bytes, pgno);
	return (struct hash128){.lo = h.low64, .hi = h.high64};
}
