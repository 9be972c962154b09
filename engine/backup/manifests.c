/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Manifests of a far archive.  Each takes a request, and there is one for each backup: so some are
 * under way at once.  A manifest never changes; what was read is kept (store/kept.h), and the next list
 * asks for new ones alone.
 */
#include "engine/backup/backup_i.h"
#include "engine/store/crypt.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#define AT_ONCE 8

struct fetching {
	struct store_reader *reader;
	struct backup_far_manifest *items;
	size_t n;
	_Atomic size_t next;
	_Atomic bool stop; /* the store does not answer: nobody asks for more */
};

bool backup_manifest_ends_all(const struct err *why)
{
	return why->kind == ERR_NOMEM || why->kind == ERR_UNAVAILABLE ||
	       why->kind == ERR_CANCELLED || why->kind == ERR_REFUSED || why->kind == ERR_DENIED;
}

static int read_one(struct store_reader *reader, struct backup_far_manifest *m)
{
	cleanup_source struct source *s = NULL;
	char key[BACKUP_FILE_MAX + 32];
	size_t len = (size_t)m->bytes;

	snprintf(key, sizeof(key), "%s/%s", backup_type_names[m->type], m->name);
	if (m->bytes > BACKUP_MANIFEST_BYTES_MAX)
		return err_set(&m->why, ERR_DAMAGED, 0, "no manifest: it is too long");
	int rc = store_reader_open(reader, 0, key, m->bytes, m->modified_us, &s, &m->why);
	rc = rc ? rc : buf_reserve(&m->text, len, &m->why);
	if (rc == 0 && len)
		rc = s->pread(s, m->text.data, len, 0, &m->why);
	/* Who has no key would else take it for one that says nothing. */
	if (rc == 0 && len >= sizeof(CRYPT_MAGIC) - 1 &&
	    memcmp(m->text.data, CRYPT_MAGIC, sizeof(CRYPT_MAGIC) - 1) == 0)
		rc = err_set(&m->why, ERR_REFUSED, 0,
		             "'%s' is encrypted (name your identity in ASOF_KEY_FILE)", key);
	if (rc == 0)
		m->text.len = len;
	return rc;
}

static void *read_some(void *ctx)
{
	struct fetching *f = ctx;

	while (!atomic_load(&f->stop)) {
		size_t i = atomic_fetch_add(&f->next, 1);
		if (i >= f->n)
			break;
		if (read_one(f->reader, &f->items[i]) < 0 &&
		    backup_manifest_ends_all(&f->items[i].why))
			atomic_store(&f->stop, true);
	}
	return NULL;
}

int backup_manifests_read(struct store_reader *reader, struct backup_far_manifest *items, size_t n,
                          struct err *err)
{
	struct fetching f = {.reader = reader, .items = items, .n = n};
	pthread_t threads[AT_ONCE - 1];
	size_t n_threads = 0;

	/* This thread is one of them; where no more can be had it does it all. */
	while (n_threads < AT_ONCE - 1 && n_threads + 1 < n &&
	       pthread_create(&threads[n_threads], NULL, read_some, &f) == 0)
		n_threads++;
	read_some(&f);
	for (size_t i = 0; i < n_threads; i++)
		pthread_join(threads[i], NULL);
	for (size_t i = 0; i < n; i++)
		if (backup_manifest_ends_all(&items[i].why))
			return err_copy(err, &items[i].why);
	return 0;
}
