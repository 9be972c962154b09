/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/observe/listen.h"

#include "engine/base/cleanup.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define BACKLOG 64

/* ---- Unix sockets ---- */

static int set_path(const char *path, struct sockaddr_un *a, struct err *err)
{
	*a = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (strlen(path) >= sizeof(a->sun_path))
		return err_set(err, ERR_USAGE, 0, "socket '%.120s': longer than %zu bytes", path,
		               sizeof(a->sun_path) - 1);
	memcpy(a->sun_path, path, strlen(path) + 1);
	return 0;
}

/* One that nobody listens on was left behind by a process that was killed. */
static int clear_place(const struct sockaddr_un *a, struct err *err)
{
	struct stat st;

	if (lstat(a->sun_path, &st) < 0)
		return 0;
	if (!S_ISSOCK(st.st_mode))
		return err_set(err, ERR_EXISTS, 0, "socket '%s': something else lies there",
		               a->sun_path);
	cleanup_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0 && connect(fd, (const struct sockaddr *)a, sizeof(*a)) < 0 &&
	    errno == ECONNREFUSED) {
		unlink(a->sun_path);
		return 0;
	}
	return err_set(err, ERR_BUSY, 0, "socket '%s': somebody listens there", a->sun_path);
}

static int open_unix(const char *path, struct listener *l, struct err *err)
{
	struct sockaddr_un a;
	struct stat st;

	int rc = set_path(path, &a, err);
	if (rc == 0)
		rc = clear_place(&a, err);
	if (rc < 0)
		return rc;
	cleanup_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* The mode of the file is that of the socket's inode at bind(). */
	if (fd < 0 || fchmod(fd, 0600) < 0 ||
	    bind(fd, (const struct sockaddr *)&a, sizeof(a)) < 0 || chmod(path, 0600) < 0 ||
	    listen(fd, BACKLOG) < 0 || lstat(path, &st) < 0)
		return err_set(err, ERR_IO, errno, "socket '%s'", path);
	snprintf(l->path, sizeof(l->path), "%s", path);
	l->dev = st.st_dev;
	l->ino = st.st_ino;
	l->fd = take_fd(&fd);
	return 0;
}

void listener_unlink(const struct listener *l)
{
	struct stat st;

	if (l->path[0] && lstat(l->path, &st) == 0 && st.st_dev == l->dev && st.st_ino == l->ino)
		unlink(l->path);
}

/* ---- TCP ---- */

static bool is_loopback(const struct addrinfo *a)
{
	if (a->ai_family == AF_INET)
		return (ntohl(((const struct sockaddr_in *)(const void *)a->ai_addr)
		                      ->sin_addr.s_addr) >>
		        24) == 127;
	return IN6_IS_ADDR_LOOPBACK(
	        &((const struct sockaddr_in6 *)(const void *)a->ai_addr)->sin6_addr);
}

static int open_one(const struct addrinfo *a, struct listener *l)
{
	int yes = 1, no = 0;

	cleanup_fd int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
	if (a->ai_family == AF_INET6) /* "all" means both families */
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof(no));
	if (bind(fd, a->ai_addr, a->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0)
		return -1;
	l->local = is_loopback(a);
	l->fd = take_fd(&fd);
	return 0;
}

static int open_tcp(const char *address, struct listener *l, struct err *err)
{
	struct addrinfo hints = {.ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM}, *list = NULL;
	const char *colon = strrchr(address, ':');
	char host[256];
	int why = 0;

	if (!colon)
		return err_set(err, ERR_USAGE, 0, "'%.60s' is no address", address);
	bool bracket = address[0] == '[' && colon > address && colon[-1] == ']';
	snprintf(host, sizeof(host), "%.*s", (int)(colon - address - 2 * bracket),
	         address + bracket);
	/* Of localhost's addresses the one that everybody tries. */
	hints.ai_family = strcmp(host, "localhost") == 0 ? AF_INET : AF_UNSPEC;
	int rc = getaddrinfo(host[0] ? host : NULL, colon + 1, &hints, &list);
	if (rc)
		return err_set(err, ERR_USAGE, 0, "'%.60s': %s", address, gai_strerror(rc));
	l->fd = -1;
	/* "All" in both families first: that socket takes the other, too. */
	for (int family = host[0] ? 0 : AF_INET6; l->fd < 0; family = 0) {
		for (struct addrinfo *a = list; a && l->fd < 0; a = a->ai_next)
			if ((family == 0 || a->ai_family == family) && open_one(a, l) < 0)
				why = errno;
		if (family == 0)
			break;
	}
	freeaddrinfo(list);
	if (l->fd >= 0)
		return 0;
	if (why == EADDRINUSE)
		return err_set(err, ERR_BUSY, 0, "'%.60s': the address is taken by another program",
		               address);
	return err_set(err, why == EADDRNOTAVAIL ? ERR_USAGE : ERR_IO, why, "'%.60s'", address);
}

int listener_open(const char *address, struct listener *ret, struct err *err)
{
	static const char prefix[] = "unix:";

	*ret = (struct listener){.fd = -1};
	if (strncmp(address, prefix, sizeof(prefix) - 1) == 0)
		return open_unix(address + sizeof(prefix) - 1, ret, err);
	return open_tcp(address, ret, err);
}
