/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/daemon/keeper.h"

#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "engine/compact/compact.h"
#include "engine/daemon/recorder_i.h"

#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#define RETRY_US US_PER_SECOND
#define STEP_STACK_BYTES ((size_t)256 << 10)
/*
 * While the application writes faster than BUSY_BYTES_PER_S, segments wait to be sealed: on two
 * processors sealing beside a writer that goes flat out costs it a third of its throughput, as
 * capture then finds no free processor to wake up on.  Past KEEPER_PATIENT_UNSEALED (a view gets deeper
 * with each) they are sealed on processors that nobody else wants; past URGENT_UNSEALED they are
 * worth the application's time.
 */
#define BUSY_BYTES_PER_S ((uint64_t)8 << 20)
#define URGENT_UNSEALED 12u
#define BUSY_LOOK_US (250 * 1000)
#define TABLE_SYNC_US (30 * US_PER_SECOND)

struct keeper {
	struct recorder *recorder;
	struct pool_task *task;
	_Atomic bool stop;
	_Atomic bool asleep; /* until something becomes durable */
	/* ---- of the task ---- */
	struct compactor *compactor; /* NULL: nothing to do at the moment */
	uint64_t seen;               /* generation with nothing to do */
	uint64_t synced_txid;
	int64_t synced_us, warned_us;
	uint64_t looked_bytes; /* what the recorder had taken at looked_us */
	int64_t looked_us;
	bool busy; /* as of the last look */
	struct compact_damaged damaged;
	bool counted; /* recorder->unsealed is what a step has counted, and what was cut since */
};

/*
 * One step, in a thread of its own: whoever is not root can make a thread more patient, never less
 * again.  At idle priority a machine without idle time would let the backlog grow for ever.
 */
struct step {
	struct keeper *k;
	bool urgent, did;
	int rc;
	struct err *err;
};

/*
 * A processor that runs nothing but SCHED_IDLE counts as free where a thread wakes up: capture goes
 * there, and not where the application runs.  Nice alone does not do that.
 */
static void be_patient(void)
{
	const struct sched_param none = {0};

	setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), 19);
	sched_setscheduler(0, SCHED_IDLE, &none); /* of this thread */
}

static void *step_main(void *arg)
{
	struct step *s = arg;

	if (!s->urgent)
		be_patient();
	s->rc = compactor_step(s->k->compactor, &s->k->stop, &s->did, s->err);
	return NULL;
}

static int do_step(struct keeper *k, bool *ret_did, bool *ret_deferred, struct err *err)
{
	struct step s = {.k = k, .err = err};
	struct compact_stats stats;
	pthread_attr_t attr;
	pthread_t thread;

	compactor_get_stats(k->compactor, &stats);
	s.urgent = stats.unsealed > URGENT_UNSEALED;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STEP_STACK_BYTES);
	int rc = pthread_create(&thread, &attr, step_main, &s);
	pthread_attr_destroy(&attr);
	if (rc)
		return err_set(err, ERR_NOMEM, 0, "cannot start a thread");
	pthread_join(thread, NULL);
	*ret_did = s.did;
	compactor_get_stats(k->compactor, &stats);
	*ret_deferred = stats.deferred;
	k->recorder->unsealed =
	        stats.unsealed ? stats.unsealed - 1 : 0; /* but the one written to */
	return s.rc;
}

/* The archive is open only while there is something to do. */
static void close_compactor(struct keeper *k)
{
	if (!k->compactor)
		return;
	compactor_free(take_ptr(k->compactor));
	k->recorder->pools->memory_freed = true;
}

static bool application_is_busy(struct keeper *k)
{
	struct recorder_status st;
	int64_t now_us = clock_mono_us(), since_us = now_us - k->looked_us;

	if (since_us < BUSY_LOOK_US)
		return k->busy;
	recorder_get_status(k->recorder, &st);
	/* Over a long time an average tells nothing: what matters is the last second. */
	if (since_us > US_PER_SECOND)
		since_us = US_PER_SECOND;
	k->busy = st.taken_bytes - k->looked_bytes >
	          BUSY_BYTES_PER_S * (uint64_t)since_us / US_PER_SECOND;
	k->looked_bytes = st.taken_bytes;
	k->looked_us = now_us;
	return k->busy;
}

bool keeper_leaves_all(bool busy, bool counted, uint64_t cut)
{
	return busy && counted && cut < KEEPER_PATIENT_UNSEALED;
}

/* Objects come and go with the generation: without news there is nothing to do. */
static int upkeep(struct keeper *k, bool *ret_did, bool *ret_deferred, struct err *err)
{
	struct recorder *r = k->recorder;
	uint64_t generation = recorder_generation(r);
	int rc = 0;

	*ret_did = *ret_deferred = false;
	if (generation == k->seen)
		return 0;
	bool busy = application_is_busy(k);
	if (keeper_leaves_all(busy, k->counted, r->unsealed)) {
		close_compactor(k);
		*ret_deferred = true;
		return 0;
	}
	if (!k->compactor)
		rc = compactor_new(r->root, r->name, &k->compactor, err);
	if (rc < 0)
		return rc;
	compactor_set_damaged(k->compactor, &k->damaged);
	compactor_set_patience(k->compactor, busy ? KEEPER_PATIENT_UNSEALED : 0);
	rc = do_step(k, ret_did, ret_deferred, err);
	k->counted = k->counted || rc == 0;
	if (rc == 0 && *ret_did)
		recorder_changed(r);
	else if (rc == 0 && !*ret_deferred)
		k->seen = generation;
	return rc;
}

static int64_t sync_table(struct keeper *k)
{
	struct recorder_status st;
	struct err why = ERR_INIT;
	int64_t now_us = clock_mono_us();

	recorder_get_status(k->recorder, &st);
	if (!st.settled || st.last_txid == k->synced_txid)
		return POOL_WHEN_WOKEN;
	if (now_us - k->synced_us < TABLE_SYNC_US)
		return k->synced_us + TABLE_SYNC_US - now_us;
	if (table_sync(k->recorder, st.last_txid, &why) < 0)
		log_warn("keeper", "page table db=%s: %s", k->recorder->name, why.msg);
	k->synced_txid = st.last_txid;
	k->synced_us = now_us;
	return POOL_WHEN_WOKEN;
}

static void warn(struct keeper *k, const struct err *why)
{
	int64_t now_us = clock_mono_us();

	if (why->kind == ERR_CANCELLED || why->kind == ERR_BUSY || /* (retention is at work) */
	    (k->warned_us && now_us - k->warned_us < 60 * US_PER_SECOND))
		return;
	log_warn("keeper", "upkeep of the archive failed, trying again db=%s: %s",
	         k->recorder->name, why->msg);
	k->warned_us = now_us;
}

static int64_t keeper_step(void *ctx)
{
	struct keeper *k = ctx;
	struct err why = ERR_INIT;
	bool did = false, deferred = false;

	k->asleep = true; /* first: news that come from here on wake */
	if (k->stop) {
		close_compactor(k);
		return POOL_WHEN_WOKEN;
	}
	int rc = upkeep(k, &did, &deferred, &why);
	if (rc < 0) {
		close_compactor(k);
		warn(k, &why);
		return RETRY_US;
	}
	int64_t wait_us = sync_table(k);
	if (did)
		return 0;
	if (deferred)
		return BUSY_LOOK_US;
	close_compactor(k);
	k->asleep = wait_us == POOL_WHEN_WOKEN && k->asleep;
	return wait_us;
}

/* By the recorder's worker.  Commits alone change nothing but the table. */
static void on_news(void *ctx, bool changed)
{
	struct keeper *k = ctx;

	if (atomic_exchange(&k->asleep, false) || changed)
		pool_wake(k->task);
}

int keeper_new(struct recorder *r, struct keeper **ret, struct err *err)
{
	struct keeper *k = calloc(1, sizeof(*k));

	if (!k)
		return err_set(err, ERR_NOMEM, 0, "no memory");
	k->recorder = r;
	k->seen = UINT64_MAX;
	k->synced_us = clock_mono_us();
	*ret = k;
	return 0;
}

int keeper_start(struct keeper *k, struct err *err)
{
	int rc = pool_add(k->recorder->pools->keep, keeper_step, k, &k->task, err);

	if (rc < 0)
		return rc;
	recorder_on_news(k->recorder, RECORDER_KEEPER, on_news, k);
	k->recorder->kept = true;
	pool_wake(k->task); /* of what came before that it may have seen nothing */
	return 0;
}

void keeper_stop(struct keeper *k)
{
	if (!k || !k->task)
		return;
	k->stop = true;
	pool_wake(k->task);
}

void keeper_free(struct keeper *k)
{
	if (!k)
		return;
	recorder_on_news(k->recorder, RECORDER_KEEPER, NULL, NULL);
	k->stop = true;
	pool_remove(k->task);
	if (k->compactor)
		compactor_free(k->compactor);
	free(k);
}
