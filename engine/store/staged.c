/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/store/staged.h"

#include "engine/base/file.h"
#include "engine/base/log.h"

#include <pthread.h>
#include <sodium.h>
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
	uint8_t *states;
	/* Of a sealed store: the key, and for each piece the nonce of its last coming, as none is used
	 * twice; else NULL. */
	uint64_t *nonces, last_nonce;
	uint8_t key[crypto_stream_xchacha20_KEYBYTES];
};

int staged_new(uint64_t bytes, bool sealed, struct staged **ret, struct err *err)
{
	uint64_t n = (bytes + STAGED_PIECE - 1) / STAGED_PIECE;
	cleanup_fd int fd = -1;

	int rc = file_open_unlinked(0, &fd, err);
	if (rc < 0)
		return rc;
	if (sealed && sodium_init() < 0)
		return err_set(err, ERR_IO, 0, "libsodium does not start");
	struct staged *s = calloc(1, sizeof(*s));
	if (s) {
		s->states = calloc(n + 1, sizeof(*s->states));
		s->nonces = sealed ? calloc(n + 1, sizeof(*s->nonces)) : NULL;
	}
	if (!s || !s->states || (sealed && !s->nonces)) {
		if (s) {
			free(s->states);
			free(s->nonces);
		}
		free(s);
		return err_set(err, ERR_NOMEM, 0, "no memory to read ahead");
	}
	if (sealed)
		randombytes_buf(s->key, sizeof(s->key));
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
	sodium_memzero(s->key, sizeof(s->key));
	free(s->states);
	free(s->nonces);
	free(s);
}

static size_t piece_bytes(const struct staged *s, uint64_t i)
{
	uint64_t left = s->bytes - i * STAGED_PIECE;

	return left < STAGED_PIECE ? (size_t)left : STAGED_PIECE;
}

/* Between what it is and what the file has of it, both ways: bytes of a piece from `in` on. */
static void turn(const struct staged *s, uint64_t nonce, size_t in, uint8_t *p, size_t len)
{
	uint8_t n[crypto_stream_xchacha20_NONCEBYTES] = {0}, block[64] = {0};
	size_t skip = in % sizeof(block);

	if (!s->nonces)
		return;
	memcpy(n, &nonce, sizeof(nonce));
	if (skip) { /* the cipher counts whole blocks */
		crypto_stream_xchacha20_xor_ic(block, block, sizeof(block), n, in / sizeof(block),
		                               s->key);
		for (; skip < sizeof(block) && len; skip++, in++, p++, len--)
			*p ^= block[skip];
	}
	if (len)
		crypto_stream_xchacha20_xor_ic(p, p, len, n, in / sizeof(block), s->key);
	sodium_memzero(block, sizeof(block));
}

/* Under lock. */
static void mark_coming(struct staged *s, uint64_t i)
{
	s->states[i] = COMING;
	if (s->nonces)
		s->nonces[i] = ++s->last_nonce;
}

static uint64_t nonce_of(struct staged *s, uint64_t i)
{
	LOCK_SCOPE(&s->lock);
	return s->nonces ? s->nonces[i] : 0;
}

/* A piece that was marked COMING, into `buf`, which holds then what the file has of it. */
static int bring(struct staged *s, struct source *from, uint64_t i, uint8_t *buf, struct err *err)
{
	struct err why = ERR_INIT;
	size_t len = piece_bytes(s, i);
	bool kept = false;

	int rc = from->pread(from, buf, len, i * STAGED_PIECE, err);
	if (rc == 0) {
		turn(s, nonce_of(s, i), 0, buf, len);
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
		mark_coming(s, i);
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
		mark_coming(s, i);
	uint64_t nonce = s->nonces ? s->nonces[i] : 0;
	pthread_mutex_unlock(&s->lock);
	if (!here && !buf)
		return err_set(err, ERR_NOMEM, 0, "no memory to read '%s'", from->name);
	int rc = here ? file_pread(s->fd, out, n, offset, LABEL, err) : bring(s, from, i, buf, err);
	if (rc < 0)
		return rc;
	if (!here)
		memcpy(out, buf + in, n);
	turn(s, nonce, in, out, n);
	return 0;
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
