/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/daemon/keeper.h"

#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "engine/compact/compact.h"
#include "engine/daemon/recorder_i.h"

#include <sys/resource.h>
#include <sys/syscall.h>

#define WAIT_US (200 * 1000)
/* Unsealed segments are large: more of them than this are worth the application's time. */
#define URGENT_UNSEALED 12u
#define TABLE_SYNC_US (30 * US_PER_SECOND)

struct keeper {
	struct recorder *recorder;
	pthread_t thread;
	_Atomic bool stop;
	pthread_mutex_t lock;
	pthread_cond_t wake;
};

static void wait_a_moment(struct keeper *k)
{
	struct timespec ts;
	int64_t until = clock_now_us() + WAIT_US;
	LOCK_SCOPE(&k->lock);

	ts.tv_sec = until / US_PER_SECOND;
	ts.tv_nsec = until % US_PER_SECOND * 1000;
	if (!k->stop)
		pthread_cond_timedwait(&k->wake, &k->lock, &ts);
}

static void sync_table(struct keeper *k, uint64_t *last_txid)
{
	struct recorder_status st;
	struct err why = ERR_INIT;

	recorder_get_status(k->recorder, &st);
	if (!st.settled || st.last_txid == *last_txid)
		return;
	if (table_sync(k->recorder, st.last_txid, &why) < 0)
		log_warn("keeper", "page table db=%s: %s", k->recorder->name, why.msg);
	*last_txid = st.last_txid;
}

/*
 * One step, in a thread of its own: whoever is not root can make a thread more patient, never less
 * again.  At idle priority a machine without idle time would let the backlog grow for ever.
 */
struct step {
	struct keeper *k;
	struct compactor *c;
	bool urgent, did;
	int rc;
	struct err *err;
};

static void *step_main(void *arg)
{
	struct step *s = arg;

	if (!s->urgent)
		setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), 19);
	s->rc = compactor_step(s->c, &s->k->stop, &s->did, s->err);
	return NULL;
}

static int do_step(struct keeper *k, struct compactor *c, bool *ret_did, struct err *err)
{
	struct step s = {.k = k, .c = c, .err = err};
	struct compact_stats stats;
	pthread_t thread;

	compactor_get_stats(c, &stats);
	s.urgent = stats.unsealed > URGENT_UNSEALED;
	if (pthread_create(&thread, NULL, step_main, &s) != 0)
		return err_set(err, ERR_NOMEM, 0, "cannot start a thread");
	pthread_join(thread, NULL);
	*ret_did = s.did;
	return s.rc;
}

static void *keeper_main(void *arg)
{
	struct keeper *k = arg;
	struct compactor *c = NULL;
	int64_t synced_us = clock_mono_us(), warned_us = 0;
	uint64_t synced_txid = 0, seen = UINT64_MAX;

	while (!k->stop) {
		struct err why = ERR_INIT;
		bool did = false;
		uint64_t generation = recorder_generation(k->recorder);
		int rc = 0;
		/* Objects come and go with the generation: without news there is nothing to do. */
		if (!c)
			rc = compactor_new(k->recorder->root, k->recorder->name, &c, &why);
		if (rc == 0 && generation != seen)
			rc = do_step(k, c, &did, &why);
		if (rc == 0 && !did)
			seen = generation;
		if (did)
			recorder_changed(k->recorder);
		if (rc < 0 && why.kind != ERR_CANCELLED &&
		    (warned_us == 0 || clock_mono_us() - warned_us > 60 * US_PER_SECOND)) {
			log_warn("keeper", "upkeep of the archive failed, trying again db=%s: %s",
			         k->recorder->name, why.msg);
			warned_us = clock_mono_us();
		}
		if (clock_mono_us() - synced_us > TABLE_SYNC_US) {
			sync_table(k, &synced_txid);
			synced_us = clock_mono_us();
		}
		if (!did)
			wait_a_moment(k);
	}
	compactor_free(c);
	return NULL;
}

int keeper_start(struct recorder *r, struct keeper **ret, struct err *err)
{
	struct keeper *k = calloc(1, sizeof(*k));

	if (!k)
		return err_set(err, ERR_NOMEM, 0, "no memory");
	k->recorder = r;
	pthread_mutex_init(&k->lock, NULL);
	pthread_cond_init(&k->wake, NULL);
	if (pthread_create(&k->thread, NULL, keeper_main, k) != 0) {
		free(k);
		return err_set(err, ERR_NOMEM, 0, "cannot start a thread");
	}
	*ret = k;
	return 0;
}

void keeper_stop(struct keeper *k)
{
	if (!k)
		return;
	pthread_mutex_lock(&k->lock);
	k->stop = true;
	pthread_cond_signal(&k->wake);
	pthread_mutex_unlock(&k->lock);
	pthread_join(k->thread, NULL);
	pthread_mutex_destroy(&k->lock);
	pthread_cond_destroy(&k->wake);
	free(k);
}
