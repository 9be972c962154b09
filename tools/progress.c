/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/progress.h"

#include "tools/cli.h"

#include <unistd.h>

#define REDRAW_US 100000

void progress_begin(struct progress *p)
{
	*p = (struct progress){.terminal = isatty(STDERR_FILENO)};
	sigemptyset(&p->stops);
	sigaddset(&p->stops, SIGINT);
	sigaddset(&p->stops, SIGTERM);
	sigaddset(&p->stops, SIGHUP);
	sigprocmask(SIG_BLOCK, &p->stops, NULL);
}

void progress_what(struct progress *p, const char *what)
{
	snprintf(p->what, sizeof(p->what), "%.60s", what);
	cli_one_line(p->what);
	p->last_us = 0;
}

static void draw(struct progress *p, uint64_t done_bytes, uint64_t total_bytes)
{
	char done[SIZE_STR_MAX], total[SIZE_STR_MAX];

	cli_format_size(done_bytes, done);
	cli_format_size(total_bytes, total);
	fputs("\r", stderr);
	if (p->what[0])
		fprintf(stderr, "%s  ", p->what);
	if (total_bytes)
		fprintf(stderr, "%3.0f %%  %s of %s\033[K",
		        100.0 * (double)done_bytes / (double)total_bytes, done, total);
	else
		fprintf(stderr, "%s\033[K", done);
	p->shown = true;
}

bool progress_tell(void *ctx, uint64_t done_bytes, uint64_t total_bytes)
{
	static const struct timespec at_once = {0, 0};
	struct progress *p = ctx;
	int64_t now_us = clock_mono_us();

	if (p->terminal && (now_us - p->last_us >= REDRAW_US || done_bytes == total_bytes)) {
		draw(p, done_bytes, total_bytes);
		p->last_us = now_us;
	}
	p->stopped = p->stopped || sigtimedwait(&p->stops, NULL, &at_once) >= 0;
	return !p->stopped;
}

void progress_clear(struct progress *p)
{
	if (p->shown)
		fputs("\r\033[K", stderr);
	p->shown = false;
}
