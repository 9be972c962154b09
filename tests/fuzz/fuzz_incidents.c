/* SPDX-License-Identifier: Apache-2.0 */
/* What was told, as anyone may have left it: refused, or incidents that are written back as the same,
 * and of which every message can be made. */
#include "engine/base/clock.h"
#include "engine/monitor/incident.h"
#include "engine/monitor/message.h"

#include <stdlib.h>
#include <string.h>

#define must(condition)                                                                            \
	do {                                                                                       \
		if (!(condition))                                                                  \
			abort();                                                                   \
	} while (0)
#define NOW INT64_C(1700000000000000)
#define MONO (1000 * US_PER_SECOND)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct incident_options options = {.for_us = US_PER_SECOND,
                                                .clear_us = US_PER_SECOND,
                                                .repeat_us = 3600 * US_PER_SECOND,
                                                .channels = {true, true, true}};

static void make_messages(const struct incidents *s)
{
	static const char *const to[] = {"a@x"};
	static struct telling t[TELLINGS_MAX];
	const struct message_context m = {
	        .host = "h", .now_us = NOW, .from = "f@x", .to = to, .n_to = 1};

	for (int i = 0; i < N_CHANNELS; i++) {
		cleanup_buf struct buf b = BUF_INIT(8 * MESSAGE_MAX);
		size_t n = incidents_due(s, (enum channel)i, MONO, t, TELLINGS_MAX);
		if (n == 0)
			continue;
		must(message_email(&m, t, n, &b, NULL) == 0);
		must(message_slack(&m, t, n, &b, NULL) == 0);
		must(message_webhook(&m, t, n, &b, NULL) == 0);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	cleanup_incidents struct incidents *s = NULL, *again = NULL;
	cleanup_free char *text = NULL, *same = NULL;
	size_t len, same_len;

	must(incidents_new(&options, &s, NULL) == 0 && incidents_new(&options, &again, NULL) == 0);
	if (incidents_load(s, (const char *)data, size, NOW, MONO, NULL) < 0)
		return 0;
	make_messages(s);
	must(incidents_save(s, &text, &len, NULL) == 0);
	must(incidents_load(again, text, len, NOW, MONO, NULL) == 0);
	must(incidents_save(again, &same, &same_len, NULL) == 0);
	must(len == same_len && memcmp(text, same, len) == 0);
	incidents_look(s, NULL, 0, NOW, MONO + 3600 * US_PER_SECOND);
	make_messages(s);
	return 0;
}
