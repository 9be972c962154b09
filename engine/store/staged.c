/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/store/staged.h"

#include "engine/base/file.h"
#include "engine/base/log.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LABEL "temporary file"

enum piece_state { ABSENT, COMING, HERE };

struct staged {
	int fd;
	uint64_t bytes, n_pieces;
	pthread_mutex_t lock; /* all below */
	pthread_cond_t came;
	uint64_t next; /* pieces before it were asked for once */
	bool full;     /* nothing more can be written */
	uint8_t states[];
};

int staged_new(uint64_t bytes, struct staged **ret, struct err *err)
{
	uint64_t n = (bytes + STAGED_PIECE - 1) / STAGED_PIECE;
	cleanup_fd int fd = -1;

	int rc = file_open_unlinked(0, &fd, err);
	if (rc < 0)
		return rc;
	struct staged *s = calloc(1, sizeof(*s) + n);
	if (!s)
		return err_set(err, ERR_NOMEM, 0, "no memory to read ahead");
	s->fd = take_fd(&fd);
	s->bytes = bytes;
	s->n_pieces = n;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->came, NULL);
	*ret = s;
	return 0;
}

void staged_free(struct staged *s)
{
	if (!s)
		return;
	close(s->fd);
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->came);
	free(s);
}

static size_t piece_bytes(const struct staged *s, uint64_t i)
{
	uint64_t left = s->bytes - i * STAGED_PIECE;

	return left < STAGED_PIECE ? (size_t)left : STAGED_PIECE;
}

/* A piece that was marked COMING, into `buf`. */
static int bring(struct staged *s, struct source *from, uint64_t i, uint8_t *buf, struct err *err)
{
	struct err why = ERR_INIT;
	size_t len = piece_bytes(s, i);
	bool kept = false;

	int rc = from->pread(from, buf, len, i * STAGED_PIECE, err);
	if (rc == 0) {
		kept = file_pwrite(s->fd, buf, len, i * STAGED_PIECE, LABEL, &why) == 0;
		if (!kept)
			log_debug("store", "not read ahead: %s", why.msg);
	}
	LOCK_SCOPE(&s->lock);
	s->states[i] = kept ? HERE : ABSENT;
	s->full = s->full || (rc == 0 && !kept);
	pthread_cond_broadcast(&s->came);
	return rc;
}

bool staged_bring_next(struct staged *s, struct source *from)
{
	struct err ignored = ERR_INIT; /* who needs it asks again, and is told */

	pthread_mutex_lock(&s->lock);
	while (s->next < s->n_pieces && s->states[s->next] != ABSENT)
		s->next++;
	uint64_t i = s->next;
	bool any = i < s->n_pieces && !s->full;
	if (any) {
		s->states[i] = COMING;
		s->next++;
	}
	pthread_mutex_unlock(&s->lock);
	if (!any)
		return false;
	cleanup_free uint8_t *buf = malloc(STAGED_PIECE);
	if (buf) {
		(void)!bring(s, from, i, buf, &ignored);
		return true;
	}
	LOCK_SCOPE(&s->lock);
	s->states[i] = ABSENT;
	pthread_cond_broadcast(&s->came);
	return false;
}

int staged_read(struct staged *s, struct source *from, uint64_t offset, uint8_t *out, size_t len,
                size_t *ret_n, struct err *err)
{
	uint64_t i = offset / STAGED_PIECE;
	size_t in = (size_t)(offset % STAGED_PIECE), n = piece_bytes(s, i) - in;
	cleanup_free uint8_t *buf = NULL;

	*ret_n = n = n < len ? n : len;
	pthread_mutex_lock(&s->lock);
	while (s->states[i] == COMING)
		pthread_cond_wait(&s->came, &s->lock);
	bool here = s->states[i] == HERE;
	if (!here && (buf = malloc(STAGED_PIECE)))
		s->states[i] = COMING;
	pthread_mutex_unlock(&s->lock);
	if (here)
		return file_pread(s->fd, out, n, offset, LABEL, err);
	if (!buf)
		return err_set(err, ERR_NOMEM, 0, "no memory to read '%s'", from->name);
	int rc = bring(s, from, i, buf, err);
	if (rc == 0)
		memcpy(out, buf + in, n);
	return rc;
}

void staged_forget(struct staged *s, uint64_t offset, size_t len)
{
	uint64_t first = offset / STAGED_PIECE,
	         end = (offset + (len ? len : 1) - 1) / STAGED_PIECE + 1;
	LOCK_SCOPE(&s->lock);

	for (uint64_t i = first; i < end && i < s->n_pieces; i++)
		if (s->states[i] == HERE)
			s->states[i] = ABSENT;
}
