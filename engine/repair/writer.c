/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who writes at a destination: a note that is put once, and never replaced.
 *
 * A damaged one stops its writer, and to guess who that was could let two write.  But it names the
 * writer by 128 random bits, which the local archive keeps beside its history (`identity`): a
 * directory whose identity stands in the damaged note, or whose identity in place of what is damaged
 * gives the very sum that the note ends with, is who wrote it.
 */
#include "engine/base/file.h"
#include "engine/repair/repair_i.h"
#include "engine/ship/ship.h"

#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#define NOTE_MAX 4096
#define ID_DIGITS (WRITER_ID_SIZE - 1)

/* Of a copy of the folder it is somebody else's. */
static bool identity_of(const struct repair *r, const struct site *s, struct identity_note *ret)
{
	cleanup_fd int dir = -1;
	char path[STORE_KEY_MAX];
	struct stat st;

	if (s->at.store->dir_fd < 0)
		return false;
	snprintf(path, sizeof(path), "local/%s", r->name);
	return file_open_dir(s->at.store->dir_fd, path, false, &dir, NULL) == 0 &&
	       fstat(dir, &st) == 0 && identity_note_get(dir, ret, NULL) == 0 &&
	       ret->dev == (uint64_t)st.st_dev && ret->ino == (uint64_t)st.st_ino &&
	       strlen(ret->id) == ID_DIGITS;
}

uint64_t writer_brought(struct repair *r, const struct site *dir, const struct site *store)
{
	struct identity_note who;
	struct ship_status st;
	const char *file = NULL;
	uint32_t lineage, newest = 0;

	for (size_t i = 0; i < store->items.n; i++)
		if (writer_name_parse(store->items.v[i].file, &lineage) && lineage >= newest) {
			file = store->items.v[i].file;
			newest = lineage;
		}
	cleanup_buf struct buf b = BUF_INIT(NOTE_MAX + 1);
	char key[STORE_KEY_MAX];
	struct writer_note n;
	if (!file || !identity_of(r, dir, &who))
		return 0;
	repair_key(r, file, key);
	if (store_get(store->at.store, key, NOTE_MAX, &b, NULL) < 0 ||
	    buf_append(&b, "", 1, NULL) < 0 ||
	    writer_note_parse((char *)b.data, b.len - 1, file, &n, NULL) < 0 ||
	    strcmp(n.id, who.id) != 0 ||
	    ship_status_read(dir->at.label, r->name, store->at.label, &st, NULL) < 0)
		return 0;
	return st.replicated_txid;
}

/* The value of a line, where there is such a line. */
static bool value_of(const char *text, const char *key, char *out, size_t size)
{
	const char *p = strstr(text, key);
	size_t n = p ? strcspn(p + strlen(key), "\n") : 0;

	if (!p || n == 0 || n >= size)
		return false;
	memcpy(out, p + strlen(key), n);
	out[n] = '\0';
	return true;
}

/* The note with that identity in its place, if its own sum says so. */
static bool sums_up(const char *file, const char *text, size_t len, const char *id,
                    struct writer_note *ret)
{
	char copy[NOTE_MAX + 1];
	char *p = (char *)memcpy(copy, text, len + 1) + strlen("asof-writer 1\nlineage 0");
	struct writer_note n;

	p = len > 64 ? strstr(p, "\nid ") : NULL;
	if (!p || strlen(p) < ID_DIGITS + 4)
		return false;
	memcpy(p + 4, id, ID_DIGITS);
	if (writer_note_parse(copy, len, file, &n, NULL) < 0)
		return false;
	*ret = n;
	return true;
}

static bool was_its_own(const char *file, const char *text, size_t len, const char *id,
                        struct writer_note *ret)
{
	char found[WRITER_ID_SIZE], since[24];
	uint32_t lineage;

	if (sums_up(file, text, len, id, ret))
		return true;
	if (!value_of(text, "\nid ", found, sizeof(found)) || strcmp(found, id) != 0 ||
	    !writer_name_parse(file, &lineage))
		return false;
	/* Host and time are for people. */
	*ret = (struct writer_note){.lineage = lineage, .since_us = clock_now_us()};
	memcpy(ret->id, found, sizeof(ret->id));
	if (!value_of(text, "\nhost ", ret->host, sizeof(ret->host)))
		snprintf(ret->host, sizeof(ret->host), "an unnamed host");
	if (value_of(text, "\nsince_us ", since, sizeof(since)) &&
	    strspn(since, "0123456789") == strlen(since))
		ret->since_us = strtoll(since, NULL, 10);
	return true;
}

int writer_again(struct repair *r, const char *file, const struct buf *was, struct buf *ret,
                 const char **ret_from, struct err *err)
{
	char text[NOTE_MAX + 1];
	struct identity_note who;
	struct writer_note n;

	*ret_from = NULL;
	if (was->len > NOTE_MAX)
		return 0;
	if (was->len)
		memcpy(text, was->data, was->len);
	text[was->len] = '\0';
	for (size_t i = 0; i < r->n_others; i++) {
		const struct site *s = &r->others[i];
		if (!s->same || !identity_of(r, s, &who) ||
		    !was_its_own(file, text, was->len, who.id, &n))
			continue;
		*ret_from = s->at.label;
		return writer_note_format(&n, ret, err);
	}
	return 0;
}
