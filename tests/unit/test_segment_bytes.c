/* SPDX-License-Identifier: Apache-2.0 */
/* When the recorder cuts a growing segment, and the keeper leaves it. */
#include "engine/base/clock.h"
#include "engine/daemon/keeper.h"
#include "engine/daemon/recorder_i.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define MIB ((uint64_t)1 << 20)

static uint64_t usual(uint64_t content_bytes, int64_t age_us)
{
	return encode_segment_bytes(SEGMENT_BYTES_DEFAULT, 0, content_bytes, age_us);
}

static void test_fast_ones_grow_on(void **state)
{
	assert_int_equal(usual(64 * MIB, 3 * US_PER_SECOND), SEGMENT_BYTES_FAST);
	assert_int_equal(usual(64 * MIB, 4 * US_PER_SECOND), SEGMENT_BYTES_DEFAULT);
	/* The writer pauses: what is past the usual size is cut when that is known. */
	assert_int_equal(usual(500 * MIB, 30 * US_PER_SECOND), SEGMENT_BYTES_FAST);
	assert_int_equal(usual(500 * MIB, 32 * US_PER_SECOND), SEGMENT_BYTES_DEFAULT);
	/* A clock that was set back tells nothing. */
	assert_int_equal(usual(64 * MIB, -1), SEGMENT_BYTES_DEFAULT);
}

static void test_asked_sizes(void **state)
{
	assert_int_equal(encode_segment_bytes(MIB, 0, 64 * MIB, 1), MIB);
	assert_int_equal(encode_segment_bytes(MIB, UNSEALED_SOFT_MAX, 64 * MIB, 1),
	                 SEGMENT_BYTES_DEFAULT);
	assert_int_equal(encode_segment_bytes(100 * MIB, 0, 64 * MIB, 1), 100 * MIB);
	assert_int_equal(encode_segment_bytes(512 * MIB, 99, 600 * MIB, 1), 512 * MIB);
}

static void test_left_while_busy(void **state)
{
	/* The one written to is a segment, too: compactor_set_patience() counts it. */
	for (uint64_t cut = 0; cut < 100; cut++) {
		assert_int_equal(keeper_leaves_all(true, true, cut),
		                 cut + 1 <= KEEPER_PATIENT_UNSEALED);
		assert_false(keeper_leaves_all(false, true, cut));
		assert_false(keeper_leaves_all(true, false, cut)); /* left by the last program */
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_fast_ones_grow_on),
	        cmocka_unit_test(test_asked_sizes),
	        cmocka_unit_test(test_left_while_busy),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
