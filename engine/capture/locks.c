/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The wal-index seen from outside: reading its header, holding read marks, asking for
 * the locks of others.
 *
 * SQLite writes header copy 1 (at 48) first and copy 0 last, with barriers between; a reader
 * takes them in the other order and compares.  Lock bytes lie at 120 of the -shm: WRITE,
 * CKPT, RECOVER, READ(0..4).  Locks are taken through L's own xShmLock, so that SQLite's
 * bookkeeping within this process knows them; all are SHARED and none waits.
 */
#include "engine/base/bytes.h"
#include "engine/base/clock.h"
#include "engine/capture/internal.h"

#include <fcntl.h>
#include <sched.h>

#define SHM_LOCK_BASE 120
#define SHM_WRITE 0
#define SHM_CKPT 1
#define SHM_RECOVER 2
#define SHM_READ(i) (3 + (i))
#define READ_MARKS 5
#define TORN_RETRIES 40
#define YIELD_US 20

static void copy_words(uint8_t *to, const volatile uint32_t *from, size_t bytes)
{
	for (size_t i = 0; i < bytes / 4; i++) {
		uint32_t v = from[i];
		memcpy(to + 4 * i, &v, 4);
	}
	__sync_synchronize();
}

void capture_yield(const struct capture *c)
{
	if (c->one_processor)
		clock_sleep_us(YIELD_US);
	else
		sched_yield();
}

bool capture_look(struct capture *c, struct look *ret)
{
	uint8_t copy[WAL_INDEX_HEADER_BYTES];

	for (int i = 0; i < TORN_RETRIES; i++) {
		int64_t before_us = clock_now_us();
		copy_words(copy, c->at.shm, 48);
		copy_words(copy + 48, c->at.shm + 12, 48);
		copy_words(copy + 96, c->at.shm + 24, WAL_INDEX_HEADER_BYTES - 96);
		if (wal_index_parse(copy, &ret->index)) {
			ret->before_us = before_us;
			ret->after_us = clock_now_us();
			ret->mono_us = clock_mono_us();
			ret->tick = c->tick;
			c->last = *ret;
			c->torn_since_us = 0;
			return true;
		}
		capture_yield(c); /* the writer needs nanoseconds, unless it has no processor */
	}
	capture_allow_recovery(c);
	if (!c->torn_since_us)
		c->torn_since_us = clock_mono_us();
	return false;
}

bool capture_salts_are(const struct capture *c, uint32_t salt1, uint32_t salt2)
{
	__sync_synchronize();
	for (size_t copy = 0; copy < 2; copy++) {
		uint32_t s[2] = {c->at.shm[12 * copy + 8], c->at.shm[12 * copy + 9]};
		if (load_be32(&s[0]) != salt1 || load_be32(&s[1]) != salt2)
			return false;
	}
	return true;
}

static bool shm_lock_shared(struct capture *c, int lock)
{
	return c->at.file->pMethods->xShmLock(c->at.file, lock, 1,
	                                      SQLITE_SHM_LOCK | SQLITE_SHM_SHARED) == SQLITE_OK;
}

static void shm_unlock_shared(struct capture *c, int lock)
{
	c->at.file->pMethods->xShmLock(c->at.file, lock, 1, SQLITE_SHM_UNLOCK | SQLITE_SHM_SHARED);
}

/*
 * A mark in use would hold checkpoints back at its frame, so only an unused one will do.
 * Nobody can change a mark that is held SHARED, hence looking again once is enough.
 */
bool capture_take_mark(struct capture *c)
{
	if (c->mark)
		return true;
	if (c->options.test_poll_ms)
		return false;
	for (int i = READ_MARKS - 1; i >= 1; i--) {
		const volatile uint32_t *mark = &c->at.shm[25 + i];
		if (*mark != WAL_READ_MARK_UNUSED || !shm_lock_shared(c, SHM_READ(i)))
			continue;
		__sync_synchronize();
		if (*mark == WAL_READ_MARK_UNUSED) {
			c->mark = i;
			c->no_mark_since_us = 0;
			return true;
		}
		shm_unlock_shared(c, SHM_READ(i));
	}
	if (!c->no_mark_since_us)
		c->no_mark_since_us = clock_mono_us();
	return false;
}

void capture_drop_mark(struct capture *c)
{
	if (!c->mark)
		return;
	shm_unlock_shared(c, SHM_READ(c->mark));
	c->mark = 0;
	if (!c->parked) {
		c->covered = false;
		c->float_since_us = clock_mono_us();
	}
}

bool capture_take_park(struct capture *c)
{
	if (!c->parked && !c->options.test_poll_ms)
		c->parked = shm_lock_shared(c, SHM_READ(0));
	return c->parked;
}

void capture_drop_park(struct capture *c)
{
	if (!c->parked)
		return;
	shm_unlock_shared(c, SHM_READ(0));
	c->parked = false;
	if (!c->mark) {
		c->covered = false;
		c->float_since_us = clock_mono_us();
	}
}

/*
 * A recovery needs EXCLUSIVE on RECOVER; nobody else takes it.  An application that needs
 * one tries again for seconds; a torn header lets it through at our next look.
 */
void capture_bar_recovery(struct capture *c)
{
	if (c->no_recovery)
		return;
	c->no_recovery = shm_lock_shared(c, SHM_RECOVER);
	c->change_exact = false;
}

void capture_allow_recovery(struct capture *c)
{
	if (c->no_recovery)
		shm_unlock_shared(c, SHM_RECOVER);
	c->no_recovery = false;
	c->change_exact = false;
}

/* F_GETLK leaves out the locks of this process, which is what is wanted here. */
static bool foreign_lock(int fd, short type, off_t start, off_t len)
{
	struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};

	return fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

bool capture_write_locked(const struct capture *c)
{
	return foreign_lock(c->at.shm_fd, F_WRLCK, SHM_LOCK_BASE + SHM_WRITE, 1);
}

bool capture_checkpoint_locked(const struct capture *c)
{
	return foreign_lock(c->at.shm_fd, F_WRLCK, SHM_LOCK_BASE + SHM_CKPT, 1);
}

bool capture_foreign_exclusive(int db_fd)
{
	/* PENDING, RESERVED and the 510 bytes of SHARED; readers do not conflict with F_RDLCK. */
	return foreign_lock(db_fd, F_RDLCK, SQLITE_PENDING_BYTE, 512);
}
