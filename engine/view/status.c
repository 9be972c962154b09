/* SPDX-License-Identifier: Apache-2.0 */
/* How a history stands, in numbers. */
#include "engine/view/history_i.h"

#include "engine/base/file.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static uint64_t sum_bytes(const struct entries *es)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < es->n; i++)
		sum += es->e[i].bytes;
	return sum;
}

/* The second line of `lock`, where there is one. */
static void read_hindrance(int fd, struct history_status *ret)
{
	char text[300];
	size_t n = 0;

	if (file_pread_some(fd, text, sizeof(text) - 1, 0, &n, "lock", NULL) < 0)
		return;
	text[n] = '\0';
	char *line = strchr(text, '\n');
	if (line)
		snprintf(ret->writer_hindrance, sizeof(ret->writer_hindrance), "%.*s",
		         (int)strcspn(line + 1, "\n"), line + 1);
}

static void get_status(struct history *h, struct history_status *ret)
{
	struct moment m;
	struct err why = ERR_INIT;

	*ret = (struct history_status){
	        .known_until_us = h->head.known_until_us,
	        .lineage = h->lineage,
	        .gaps = h->n_gaps,
	        .archive_bytes = sum_bytes(&h->snapshots) + sum_bytes(&h->segments) +
	                         sum_bytes(&h->coalesced),
	        .told_txid = h->have_head ? h->head.last_txid : 0,
	        .told_us = h->have_head ? h->head.last_us : 0,
	        .n_snapshots = h->snapshots.n,
	        .n_segments = h->segments.n,
	        .n_coalesced = h->coalesced.n,
	};
	snprintf(ret->source_path, sizeof(ret->source_path), "%s", h->source.path);
	for (size_t i = 0; i < h->segments.n; i++)
		if (h->segments.e[i].name.type == OBJECT_GROWING)
			ret->unsealed_bytes += h->segments.e[i].bytes;
	if (resolve_next(h, 0, &m, &why) == 0) {
		ret->first_txid = m.txid;
		ret->first_us = m.time_us;
	}
	if (resolve_last(h, &m, &why) == 0) {
		ret->last_txid = m.txid;
		ret->last_us = m.time_us;
	}
	if (ret->known_until_us < ret->last_us)
		ret->known_until_us = ret->last_us;
	int fd = h->in_bucket ? -1 : openat(h->dir_fd, "lock", O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		ret->writer_alive = file_is_locked(fd);
		if (ret->writer_alive)
			read_hindrance(fd, ret);
		close(fd);
	}
}

int history_get_status(struct history *h, struct history_status *ret, struct err *err)
{
	int rc = history_refresh(h, err);
	LOCK_SCOPE(&h->lock);

	if (rc == 0)
		get_status(h, ret);
	return rc;
}
