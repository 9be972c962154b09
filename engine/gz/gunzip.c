/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/gz/gunzip.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#define CHUNK (128 * 1024)

struct gunzip {
	gunzip_source_fn *source;
	void *ctx;
	int fd; /* of gunzip_new_fd() */
	char *path;
	uint64_t consumed; /* bytes that came from the source */
	z_stream z;
	bool source_ended, in_member, any_member, ended;
	uint8_t in[CHUNK];
};

int gunzip_new(gunzip_source_fn *source, void *ctx, const char *path, struct gunzip **ret,
               struct err *err)
{
	struct gunzip *g = calloc(1, sizeof(*g));

	if (!g || !(g->path = strdup(path)) || inflateInit2(&g->z, 16 + MAX_WBITS) != Z_OK) {
		if (g)
			free(g->path);
		free(g);
		return err_set(err, ERR_NOMEM, 0, "no memory to inflate '%s'", path);
	}
	g->source = source;
	g->ctx = ctx;
	*ret = g;
	return 0;
}

static int read_fd(void *ctx, void *buf, size_t len, size_t *ret_len, struct err *err)
{
	const struct gunzip *g = ctx;
	ssize_t n;

	do
		n = read(g->fd, buf, len);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return err_set(err, ERR_IO, errno, "read '%s'", g->path);
	*ret_len = (size_t)n;
	return 0;
}

int gunzip_new_fd(int fd, const char *path, struct gunzip **ret, struct err *err)
{
	int rc = gunzip_new(read_fd, NULL, path, ret, err);

	if (rc)
		return rc;
	(*ret)->fd = fd;
	(*ret)->ctx = *ret;
	return 0;
}

void gunzip_free(struct gunzip *g)
{
	if (!g)
		return;
	inflateEnd(&g->z);
	free(g->path);
	free(g);
}

uint64_t gunzip_consumed(const struct gunzip *g)
{
	return g->consumed;
}

/* Takes in more when there is nothing left. */
static int fill(struct gunzip *g, struct err *err)
{
	size_t got = 0;

	if (g->z.avail_in > 0 || g->source_ended)
		return 0;
	int rc = g->source(g->ctx, g->in, sizeof(g->in), &got, err);
	if (rc)
		return rc;
	g->source_ended = got == 0;
	g->consumed += got;
	g->z.next_in = g->in;
	g->z.avail_in = (uInt)got;
	return 0;
}

/* Between members: the next one, the end, or padding up to the end. */
static int begin_member(struct gunzip *g, struct err *err)
{
	bool padding = false;

	for (;;) {
		int rc = fill(g, err);
		if (rc)
			return rc;
		if (g->z.avail_in == 0)
			break;
		if (*g->z.next_in != 0 && !padding) {
			g->in_member = g->any_member = true;
			return 0;
		}
		if (*g->z.next_in != 0 || !g->any_member)
			return err_set(err, ERR_DAMAGED, 0,
			               "'%s' is no gzip file to its end: "
			               "other bytes lie at %llu",
			               g->path, (unsigned long long)(g->consumed - g->z.avail_in));
		padding = true;
		g->z.next_in++;
		g->z.avail_in--;
	}
	if (!g->any_member)
		return err_set(err, ERR_DAMAGED, 0, "'%s' is empty", g->path);
	g->ended = true;
	return 0;
}

/* Some content, from within a member. */
static int step(struct gunzip *g, struct err *err)
{
	int rc = fill(g, err);

	if (rc)
		return rc;
	if (g->z.avail_in == 0)
		return err_set(err, ERR_DAMAGED, 0, "'%s' ends within its content (is it whole?)",
		               g->path);
	int status = inflate(&g->z, Z_NO_FLUSH);
	if (status == Z_STREAM_END) {
		g->in_member = false;
		inflateReset(&g->z);
	} else if (status != Z_OK && status != Z_BUF_ERROR) {
		return err_set(err, status == Z_MEM_ERROR ? ERR_NOMEM : ERR_DAMAGED, 0,
		               "'%s' does not inflate before byte %llu: %s", g->path,
		               (unsigned long long)(g->consumed - g->z.avail_in),
		               g->z.msg ? g->z.msg : "bad data");
	}
	return 0;
}

int gunzip_read(struct gunzip *g, void *buf, size_t len, size_t *ret_len, struct err *err)
{
	size_t done = 0;

	while (done < len && !g->ended) {
		size_t room = len - done < (1u << 30) ? len - done : 1u << 30;
		g->z.next_out = (Bytef *)buf + done;
		g->z.avail_out = (uInt)room;
		int rc = g->in_member ? step(g, err) : begin_member(g, err);
		if (rc)
			return rc;
		done += room - g->z.avail_out;
	}
	*ret_len = done;
	return 0;
}
