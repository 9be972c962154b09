/* SPDX-License-Identifier: Apache-2.0 */
/* The client's side of control.h. */
#include "engine/base/buf.h"
#include "engine/daemon/control.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#define ANSWER_MAX_BYTES ((size_t)32 << 20)

static int send_text(int fd, const char *text, struct err *err)
{
	for (size_t at = 0, len = strlen(text); at < len;) {
		ssize_t n = send(fd, text + at, len - at, MSG_NOSIGNAL);
		if (n < 0 && errno != EINTR)
			return err_set(err, ERR_IO, errno, "ask the running asof");
		at += n > 0 ? (size_t)n : 0;
	}
	return 0;
}

static int read_answer(int fd, struct buf *answer, struct err *err)
{
	char part[8192];
	int rc = 0;

	while (rc == 0 && (answer->len == 0 || answer->data[answer->len - 1] != '\n')) {
		ssize_t n = recv(fd, part, sizeof(part), 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return err_set(err, ERR_BUSY, 0, "the running asof gave no answer in time");
		if (n < 0)
			return err_set(err, ERR_IO, errno, "answer of the running asof");
		if (n == 0)
			return err_set(err, ERR_IO, 0, "the running asof ended without an answer");
		rc = buf_append(answer, part, (size_t)n, err);
	}
	return rc;
}

static enum err_kind kind_named(const char *name)
{
	for (int kind = 1; name && kind < ERR_KIND_COUNT; kind++)
		if (strcmp(err_kind_name((enum err_kind)kind), name) == 0)
			return (enum err_kind)kind;
	return ERR_IO;
}

static int check_answer(const json_t *answer, struct err *err)
{
	const char *text = json_string_value(json_object_get(answer, "error"));

	if (json_is_true(json_object_get(answer, "ok")))
		return 0;
	return err_set(err, kind_named(json_string_value(json_object_get(answer, "kind"))), 0,
	               "%.400s",
	               text ? text : "the running asof gave an answer of another version");
}

int control_request(int fd, const json_t *order, unsigned timeout_s, json_t **ret, struct err *err)
{
	cleanup_free char *text = order ? json_dumps(order, JSON_COMPACT) : NULL;
	cleanup_buf struct buf answer = BUF_INIT(ANSWER_MAX_BYTES);
	const struct timeval patience = {.tv_sec = timeout_s};

	if (!text)
		return err_set(err, ERR_NOMEM, 0, "no memory");
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	int rc = send_text(fd, text, err);
	if (rc == 0)
		rc = send_text(fd, "\n", err);
	if (rc == 0)
		rc = read_answer(fd, &answer, err);
	if (rc < 0)
		return rc;
	json_t *value = json_loadb((const char *)answer.data, answer.len, 0, NULL);
	rc = check_answer(value, err);
	if (rc < 0)
		json_decref(value);
	else
		*ret = value;
	return rc;
}
