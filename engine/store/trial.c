/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/store/trial.h"

#include "engine/base/clock.h"
#include "engine/store/crypt.h"

#include <inttypes.h>
#include <string.h>
#include <sys/random.h>

#define BODY_MAX 100
#define CLOCK_EXACT_US US_PER_SECOND

const char *store_trial_step_name(enum store_trial_step step)
{
	static const char *const names[] = {"write", "read", "list", "conditional write", "delete"};

	return names[step];
}

/* Another content each time: an object that an earlier trial left is told from this one's. */
static size_t make_body(char out[BODY_MAX])
{
	uint64_t dice = 0;

	if (getrandom(&dice, sizeof(dice), 0) != sizeof(dice))
		dice = (uint64_t)clock_mono_us();
	return (size_t)snprintf(out, BODY_MAX,
	                        "asof tried this place out; may be deleted %016" PRIx64, dice);
}

/* ---- conditional writes ---- */

static int create(struct store *s, const char *key, struct err *err)
{
	char body[BODY_MAX];
	size_t len = make_body(body);

	return store_put_bytes(s, key, body, len, STORE_CREATE, err);
}

/* With something there under the key: 0 if it was replaced. */
static int create_over(struct store *s, const char *key, bool *ret, struct err *err)
{
	struct err why = ERR_INIT;

	int rc = create(s, key, &why);
	*ret = rc < 0 && why.kind == ERR_EXISTS;
	return rc == 0 || *ret || why.kind == ERR_REFUSED ? 0 : err_copy(err, &why);
}

int store_find_creates(struct store *s, const char *key, bool *ret, struct err *err)
{
	char body[BODY_MAX];
	struct err why = ERR_INIT;

	int rc = create(s, key, &why);
	*ret = rc < 0 && why.kind == ERR_EXISTS;
	if (*ret) /* left there by a trial that could not delete it */
		return 0;
	if (rc < 0 && why.kind != ERR_REFUSED)
		return err_copy(err, &why);
	if (rc < 0) { /* refused: the condition, or every write? */
		size_t len = make_body(body);
		rc = store_put_bytes(s, key, body, len, 0, err);
	} else {
		rc = create_over(s, key, ret, err);
	}
	(void)!store_remove(s, key, NULL);
	return rc;
}

int store_creates(struct store *s, const char *key, bool *ret, bool *ret_fresh, struct err *err)
{
	*ret_fresh = s->creates == 0;
	if (!*ret_fresh) {
		*ret = s->creates > 0;
		return 0;
	}
	int rc = store_find_creates(store_crypt_inner(s), key, ret, err);
	if (rc == 0)
		s->creates = *ret ? 1 : -1;
	return rc;
}

/* ---- all of it ---- */

struct trying {
	struct store *s;
	const char *key;
	struct store_trial *t;
	char body[BODY_MAX];
	size_t len;
	int64_t from_us, to_us; /* the put came about between */
};

static void set(struct store_trial *t, enum store_trial_step step, int rc, const struct err *why)
{
	t->steps[step].state = rc == 0 ? TRIAL_OK : TRIAL_FAILED;
	if (rc < 0)
		t->steps[step].why = *why;
}

static bool try_write(struct trying *y)
{
	struct err why = ERR_INIT;

	y->len = make_body(y->body);
	y->from_us = clock_now_us();
	int rc = store_put_bytes(y->s, y->key, y->body, y->len, 0, &why);
	y->to_us = clock_now_us();
	set(y->t, TRIAL_WRITE, rc, &why);
	return rc == 0;
}

static void try_read(struct trying *y)
{
	cleanup_buf struct buf b = BUF_INIT(BODY_MAX);
	struct err why = ERR_INIT;

	int rc = store_get(y->s, y->key, BODY_MAX, &b, &why);
	if (rc == 0 && (b.len != y->len || memcmp(b.data, y->body, y->len) != 0))
		rc = err_set(&why, ERR_DAMAGED, 0, "what is read is not what was written");
	set(y->t, TRIAL_READ, rc, &why);
}

struct found {
	const char *key;
	bool found;
	int64_t modified_us;
};

static int look(void *ctx, const struct store_entry *e, struct err *err)
{
	struct found *f = ctx;

	(void)err;
	if (strcmp(e->key, f->key) == 0) {
		f->found = true;
		f->modified_us = e->modified_us;
	}
	return 0;
}

static void tell_clock(struct trying *y, int64_t modified_us)
{
	if (modified_us <= 0)
		return;
	y->t->has_clock = true;
	if (modified_us + CLOCK_EXACT_US < y->from_us)
		y->t->clock_us = modified_us - y->from_us;
	else if (modified_us > y->to_us + CLOCK_EXACT_US)
		y->t->clock_us = modified_us - y->to_us;
}

/* Where nothing could be written, whether the place can be listed at all. */
static void try_list(struct trying *y, bool written)
{
	struct found f = {.key = y->key};
	struct err why = ERR_INIT;

	int rc = store_list(y->s, y->key, NULL, true, look, &f, &why);
	if (rc == 0 && written && !f.found)
		rc = err_set(&why, ERR_DAMAGED, 0, "a listing does not show what was written");
	set(y->t, TRIAL_LIST, rc, &why);
	if (f.found)
		tell_clock(y, f.modified_us);
}

static void try_create(struct trying *y)
{
	struct err why = ERR_INIT;

	int rc = create(y->s, y->key, &why);
	if (rc == 0)
		rc = err_set(&why, ERR_REFUSED, 0,
		             "the condition is ignored: the object was replaced");
	set(y->t, TRIAL_CREATE, why.kind == ERR_EXISTS ? 0 : rc, &why);
	if (why.kind == ERR_REFUSED)
		y->t->steps[TRIAL_CREATE].state = TRIAL_LACKS;
}

static void try_delete(struct trying *y)
{
	struct err why = ERR_INIT;

	int rc = store_remove(y->s, y->key, &why);
	set(y->t, TRIAL_DELETE, rc, &why);
	if (why.kind == ERR_DENIED)
		y->t->steps[TRIAL_DELETE].state = TRIAL_LACKS;
}

void store_try_out(struct store *s, const char *key, struct store_trial *ret)
{
	struct trying y = {.s = s, .key = key, .t = ret};

	*ret = (struct store_trial){0};
	bool written = try_write(&y);
	if (!written && ret->steps[TRIAL_WRITE].why.kind == ERR_UNAVAILABLE)
		return; /* nobody there: one wait is enough */
	if (written)
		try_read(&y);
	try_list(&y, written);
	if (!written)
		return;
	try_create(&y);
	try_delete(&y);
}
