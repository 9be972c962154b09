/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the SFTP store share.  Not for others. */
#ifndef ASOF_STORE_SFTP_I_H
#define ASOF_STORE_SFTP_I_H

#include "engine/store/ssh2.h"
#include "engine/store/store_i.h"

#include <pthread.h>

struct sftp_place {
	char *user, *host, *path; /* path: of the archive on the server, without a '/' at its end */
	unsigned port;
	char *identity;    /* private key; NULL: the agent's, then the usual ones */
	char *host_key;    /* as text; NULL: known_hosts tells */
	char *known_hosts; /* NULL: ~/.ssh/known_hosts, then /etc/ssh/ssh_known_hosts */
};
int sftp_place_parse(const char *url, const struct store_options *options, struct sftp_place *ret,
                     struct err *err) MUST_USE;
void sftp_place_release(struct sftp_place *p);

/* One session; used by one thread at a time. */
struct sftp_conn {
	struct sftp_conn *next; /* in the pool */
	int fd;
	LIBSSH2_SESSION *ssh;
	LIBSSH2_SFTP *sftp;
};
/* UNAVAILABLE: no answer; DENIED: no key is taken; REFUSED: the host is not known, or another. */
int sftp_connect(const struct sftp_place *p, struct sftp_conn **ret, struct err *err) MUST_USE;
void sftp_conn_free(struct sftp_conn *c);
/* The error of the last call that failed; UNAVAILABLE where the session is of no more use. */
int sftp_error(const struct sftp_conn *c, const char *what, const char *path, struct err *err);

#endif
