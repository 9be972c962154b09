/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/daemon/replicate.h"

#include "engine/base/cleanup.h"
#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "engine/daemon/database.h"
#include "engine/daemon/shipping.h"
#include "engine/ship/ship.h"

#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <string.h>

static int absolute_path(const char *path, char out[PATH_MAX], struct err *err)
{
	if (realpath(path, out))
		return 0;
	if (errno == ENOENT || errno == ENOTDIR)
		return err_set(err, ERR_NOT_FOUND, 0,
		               "database '%s': no such file (check the path)", path);
	return err_set(err, ERR_IO, errno, "database '%s'", path);
}

static void say_ready(int fd)
{
	if (fd < 0)
		return;
	ssize_t n = write(fd, "ready\n", 6);
	(void)n; /* whoever waited is gone */
}

/* Until a signal, or until the database has ended by itself. */
static void wait_for_end(const struct replicate_options *o, struct pools *pools, struct database *d,
                         const sigset_t *signals)
{
	const struct timespec opening = {.tv_nsec = 5000000}, running = {.tv_sec = 1};
	struct database_status st;
	bool ready = false, stopping = false;

	while (!database_ended(d)) {
		int sig = sigtimedwait(signals, NULL, ready && !stopping ? &running : &opening);
		if (sig > 0 && !stopping)
			log_info("replicate", "stopping on signal %d", sig);
		if (sig > 0)
			database_stop(d);
		stopping = stopping || sig > 0;
		pools_give_back(pools);
		database_get_status(d, &st);
		if (!ready && st.state == DATABASE_REPLICATING) {
			say_ready(o->ready_fd);
			ready = true;
		}
	}
}

/* ---- destinations ---- */

#define TAKE_OVER_PATIENCE_MS 30000
#define SHIP_END_US (10 * US_PER_SECOND)

static int take_over(const struct database_options *d, const char *url, struct err *err)
{
	const struct store_options so = {.patience_ms = TAKE_OVER_PATIENCE_MS, .create = true};
	cleanup_store struct store *store = NULL;
	char from[200];

	int rc = store_open(url, &so, &store, err);
	const struct ship_options o = {
	        .archive = d->archive, .name = d->name, .url = url, .store = store};
	if (rc == 0)
		rc = ship_take_over(&o, from, err);
	if (rc < 0)
		return rc;
	log_warn("replicate", "taken over to=%s from=\"%s\"", store->label, from);
	return 0;
}

static int add_destinations(const struct replicate_options *o, const struct database_options *d,
                            struct shipping *s, struct err *err)
{
	int rc = 0;

	for (size_t i = 0; i < o->n_destinations && rc == 0; i++) {
		const struct shipping_destination to = {.archive = d->archive,
		                                        .name = d->name,
		                                        .label = o->destinations[i],
		                                        .url = o->destinations[i],
		                                        .interval_us = US_PER_SECOND};
		if (o->take_over)
			rc = take_over(d, o->destinations[i], err);
		if (rc == 0)
			rc = shipping_add(s, &to, err);
	}
	return rc;
}

static void finish_shipping(struct shipping *s)
{
	struct err why = ERR_INIT;

	shipping_end(s, SHIP_END_US);
	while (!shipping_ended(s))
		clock_sleep_us(10000);
	if (shipping_result(s, &why) < 0)
		log_error("replicate", "a destination lacks what was captured last: %s", why.msg);
}

int replicate_run(const struct replicate_options *o, struct err *err)
{
	char path[PATH_MAX], copy[PATH_MAX];
	const struct pools_options po = {0};
	struct pools *pools = NULL;
	struct database *d = NULL;
	struct shipping *shipping = NULL;
	sigset_t signals;

	int rc = absolute_path(o->db_path, path, err);
	if (rc < 0)
		return rc;
	memcpy(copy, path, sizeof(copy));
	struct database_options options = {
	        .path = path,
	        .archive = o->archive,
	        .name = o->name ? o->name : basename(copy),
	        .strict = o->strict,
	        .enable_wal = o->enable_wal,
	        .adopt = o->adopt,
	        .wal_cap_bytes = o->wal_cap_bytes,
	        .segment_bytes = o->segment_bytes,
	        .no_maintenance = o->no_maintenance,
	        .at_once = true,
	        .news = shipping_news,
	};
	/* Before there are threads: they inherit it. */
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	pthread_sigmask(SIG_BLOCK, &signals, NULL);
	rc = shipping_new(&shipping, err);
	options.news_ctx = shipping;
	if (rc == 0)
		rc = pools_new(&po, &pools, err);
	if (rc == 0)
		rc = add_destinations(o, &options, shipping, err);
	if (rc == 0)
		rc = database_new(pools, &options, &d, err);
	if (rc == 0) {
		wait_for_end(o, pools, d, &signals);
		rc = database_result(d, err);
		finish_shipping(shipping);
	}
	database_free(d);
	shipping_free(shipping);
	pools_free(pools);
	return rc;
}
