/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/restore.h"

#include "engine/base/log.h"
#include "engine/restore/follow.h"

#include <inttypes.h>
#include <signal.h>

#define TELL_EVERY_US US_PER_SECOND
#define WARN_EVERY_US (60 * US_PER_SECOND)
/* A replicator gives its word each second or two. */
#define SILENT_US (30 * US_PER_SECOND)

struct teller {
	struct restore_request *q;
	int64_t told_us, warned_us, silent_us;
	uint64_t updates, pages, bytes; /* since it was told */
	bool whole;
};

static bool wait_for_signal(void *ctx, int64_t us)
{
	const struct teller *t = ctx;
	const struct timespec span = {us / US_PER_SECOND, us % US_PER_SECOND * 1000};

	return sigtimedwait(&t->q->progress.stops, NULL, &span) < 0;
}

static void warn_of_readers(struct teller *t, const struct follow_news *n)
{
	int64_t now_us = clock_mono_us();

	if (t->warned_us && now_us - t->warned_us < WARN_EVERY_US)
		return;
	t->warned_us = now_us;
	log_warn("follow", "a reader keeps the standby locked, %.1f s behind target=%s",
	         (double)n->lag_us / (double)US_PER_SECOND, t->q->out);
}

static void warn_of_silence(struct teller *t, const struct follow_news *n)
{
	int64_t now_us = clock_mono_us();

	if (n->lag_us < SILENT_US || (t->silent_us && now_us - t->silent_us < WARN_EVERY_US))
		return;
	t->silent_us = now_us;
	log_warn("follow",
	         "no replicator has given its word for %.0f s: what is committed now is not "
	         "seen target=%s",
	         (double)n->lag_us / (double)US_PER_SECOND, t->q->out);
}

/* One line for what was done since the last one; what comes thick and fast is summed up. */
static void tell(void *ctx, const struct follow_news *n)
{
	struct teller *t = ctx;
	char when[TIME_STR_MAX], size[SIZE_STR_MAX];
	int64_t now_us = clock_mono_us();

	if (n->waiting) {
		warn_of_readers(t, n);
		return;
	}
	if (n->idle)
		warn_of_silence(t, n);
	t->updates += !n->idle;
	t->pages += n->pages;
	t->bytes += n->written_bytes;
	t->whole = t->whole || n->whole;
	if (!t->updates || (t->told_us && now_us - t->told_us < TELL_EVERY_US && !t->q->once))
		return;
	t->told_us = now_us;
	time_format(n->moment.time_us, when);
	cli_format_size(t->bytes, size);
	if (t->q->json)
		printf("{\"txid\": %" PRIu64 ", \"time\": \"%s\", \"lag_ms\": %" PRId64
		       ", \"updates\": %" PRIu64 ", \"pages\": %" PRIu64
		       ", \"written_bytes\": %" PRIu64 ", \"whole\": %s}\n",
		       n->moment.txid, when, n->lag_us / 1000, t->updates, t->pages, t->bytes,
		       t->whole ? "true" : "false");
	else
		printf("txid %" PRIu64 " of %s, lag %.1f s, wrote %s%s\n", n->moment.txid, when,
		       (double)n->lag_us / (double)US_PER_SECOND, size,
		       t->whole ? ", compared as a whole" : "");
	fflush(stdout);
	t->updates = t->pages = t->bytes = 0;
	t->whole = false;
}

int restore_follow(struct cli *c, struct restore_request *q, struct err *err)
{
	struct teller t = {.q = q};
	const struct follow_options options = {
	        .force = q->options.force,
	        .once = q->once,
	        .wait = wait_for_signal,
	        .tell = tell,
	        .ctx = &t,
	};
	int rc;

	if ((rc = cli_open_archive_of(c, q->archive_name, q->db, &q->archive, err)) ||
	    (rc = cli_open_database(c, q->archive, q->db, &q->history, err)) ||
	    (rc = restore_check_end(q->history, q->expect_txid, err)))
		return rc;
	progress_begin(&q->progress); /* blocks the signals */
	return follow_run(q->archive, q->history, q->out, &options, err);
}
