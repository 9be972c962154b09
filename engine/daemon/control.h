/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket: a Unix socket (SOCK_STREAM, mode 0600) on which a running `asof run` takes
 * orders, one JSON object a line, and answers each with one line, in order.
 *
 *   {"command": "status" | "jobs"}
 *   {"command": "pause" | "resume" | "drop", "database": NAME or PATH}
 *   {"command": "add", "path": PATH, "name": NAME?, "archive": DIR?}
 *   {"command": "sync", "database": NAME?, "wait": bool?, "timeout_s": number?}
 *   {"command": "reload"}
 *
 *   {"ok": true, …}    {"ok": false, "kind": "not-found", "error": "text for a person"}
 *
 * `status` answers {"ok", "pid", "version", "uptime_s", "config", "databases": [{"database",
 * "path", "archive", "state", "reason", "since", "attached", "settled", "last_txid",
 * "last_captured", "known_until", "commits", "gaps", "queued_bytes", "taken_bytes", "syncs",
 * "sync_errors", "sync_us"}]}; times are ISO 8601, the last four count since capture began.
 * `jobs` answers {"ok", "jobs": [{"job", "database", "began" (null: it does not run now, nor did it),
 * "next", "succeeded", "failed", "running"}]}, counted since the daemon's start.
 * `pause` and `drop` answer once the database has been let go of, or after 60 s that it was not.
 * `sync` with `wait` answers once everything committed before it is durable in the archive; without
 * a database it fails if one that exists is not being replicated.
 *
 * Where: `socket:` of the configuration, else $RUNTIME_DIRECTORY/asof.sock, else control.sock in
 * the archive.  A socket that nobody listens on any more is replaced; one that somebody does is
 * refused: two daemons of one place.
 *
 * Who: the user that the daemon runs as, and root (SO_PEERCRED, besides the mode).  A client has
 * 64 KiB for a line, 60 s to send one and 10 s to take an answer; there are 16 at most, further
 * ones are told so and closed.  A thread of its own serves them without ever waiting for one.
 */
#ifndef ASOF_DAEMON_CONTROL_H
#define ASOF_DAEMON_CONTROL_H

#include "engine/daemon/fleet.h"
#include "engine/daemon/jobs.h"

#include <jansson.h>

#define CONTROL_PATH_MAX 108
#define CONTROL_LET_GO_MAX_S 60
#define CONTROL_SYNC_MAX_S 86400
/* Of $RUNTIME_DIRECTORY, and of the archive. */
#define CONTROL_NAME "asof.sock"
#define CONTROL_NAME_IN_ARCHIVE "control.sock"

struct control;

struct control_options {
	const char *path;
	struct fleet *fleet; /* outlives it */
	struct jobs *jobs;   /* likewise; may be NULL */
	/* Any thread.  `reload` asks for it and returns at once. */
	void (*reload)(void *ctx);
	void *ctx;
	const char *config_path; /* for status; may be NULL */
};

int control_new(const struct control_options *options, struct control **ret,
                struct err *err) MUST_USE;
/* Removes the socket.  NULL is fine. */
void control_free(struct control *c);

/*
 * For clients: connects to `path`.  ERR_NOT_FOUND: nobody listens there; DENIED.
 */
int control_connect(const char *path, int *ret_fd, struct err *err) MUST_USE;
/*
 * Sends an order on such a connection, and waits for the answer: *ret, to be given back with
 * json_decref().  The error of an answer is the error; without one for `timeout_s` (0: for ever)
 * it is BUSY.
 */
int control_request(int fd, const json_t *order, unsigned timeout_s, json_t **ret,
                    struct err *err) MUST_USE;

#endif
