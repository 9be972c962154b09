/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/curl.h"
#include "engine/store/sftp_i.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pwd.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define CONNECT_MS 10000
#define ANSWER_MS 30000
#define PORT_DEFAULT 22

/* ---- the URL ---- */

void sftp_place_release(struct sftp_place *p)
{
	free(p->user);
	free(p->host);
	free(p->path);
	free(p->identity);
	free(p->known_hosts);
	free(p->host_key);
}

static char *own_user(void)
{
	const struct passwd *pw = getpwuid(geteuid());

	return strdup(pw ? pw->pw_name : "root");
}

/* identity=FILE&known-hosts=FILE */
static int take_parameters(const char *url, char *query, struct sftp_place *ret, struct err *err)
{
	char *save = NULL;

	for (char *p = strtok_r(query, "&", &save); p; p = strtok_r(NULL, "&", &save)) {
		char *value = strchr(p, '=');
		size_t n = value ? (size_t)(value - p) : strlen(p);
		char **to = n == 8 && strncmp(p, "identity", n) == 0       ? &ret->identity
		            : n == 11 && strncmp(p, "known-hosts", n) == 0 ? &ret->known_hosts
		                                                           : NULL;
		if (!to || !value || !value[1])
			return err_set(err, ERR_USAGE, 0,
			               "archive '%.200s': '%.40s' is no parameter of sftp:// "
			               "(identity=FILE, "
			               "known-hosts=FILE)",
			               url, p);
		free(*to);
		int len = 0;
		char *text = curl()->easy_unescape(NULL, value + 1, 0, &len);
		*to = text ? strdup(text) : NULL;
		curl()->free(text);
		if (!*to)
			return err_set(err, ERR_NOMEM, 0, "no memory for a URL");
	}
	return 0;
}

static char *part_of(CURLU *u, CURLUPart part, unsigned flags)
{
	char *text = NULL, *copy;

	if (curl()->url_get(u, part, &text, flags) != CURLUE_OK)
		return NULL;
	copy = strdup(text);
	curl()->free(text);
	return copy;
}

static int parse_parts(CURLU *u, const char *url, struct sftp_place *ret, struct err *err)
{
	cleanup_free char *password = part_of(u, CURLUPART_PASSWORD, 0);
	cleanup_free char *port = part_of(u, CURLUPART_PORT, 0);
	cleanup_free char *query = part_of(u, CURLUPART_QUERY, 0);

	if (password)
		return err_set(err, ERR_USAGE, 0,
		               "an archive sftp://…: no password belongs into a URL (use a key: "
		               "identity=FILE, or the agent)");
	ret->user = part_of(u, CURLUPART_USER, CURLU_URLDECODE);
	ret->host = part_of(u, CURLUPART_HOST, 0);
	ret->path = part_of(u, CURLUPART_PATH, CURLU_URLDECODE);
	ret->port = port ? (unsigned)strtoul(port, NULL, 10) : PORT_DEFAULT;
	if (!ret->user)
		ret->user = own_user();
	if (!ret->host || !*ret->host || !ret->path || !ret->path[strspn(ret->path, "/")])
		return err_set(
		        err, ERR_USAGE, 0,
		        "archive '%.200s' names no host, or no folder (sftp://user@host/path)",
		        url);
	for (size_t n = strlen(ret->path); n > 1 && ret->path[n - 1] == '/'; n--)
		ret->path[n - 1] = '\0';
	if (strncmp(ret->path, "/~/", 3) == 0) /* below the home folder, where a session begins */
		memmove(ret->path, ret->path + 3, strlen(ret->path + 3) + 1);
	return query ? take_parameters(url, query, ret, err) : 0;
}

int sftp_place_parse(const char *url, const struct store_options *options, struct sftp_place *ret,
                     struct err *err)
{
	int rc = curl_load(err);
	CURLU *u = rc == 0 ? curl()->url() : NULL;

	if (rc < 0)
		return rc;
	if (!u)
		return err_set(err, ERR_NOMEM, 0, "no memory for a URL");
	if (curl()->url_set(u, CURLUPART_URL, url, CURLU_NON_SUPPORT_SCHEME) != CURLUE_OK)
		rc = err_set(err, ERR_USAGE, 0,
		             "archive 'sftp://…' is no URL (sftp://user@host/path)");
	else
		rc = parse_parts(u, url, ret, err);
	curl()->url_cleanup(u);
	if (rc == 0 && options->sftp_key_file && !ret->identity)
		ret->identity = strdup(options->sftp_key_file);
	if (rc == 0 && options->sftp_host_key)
		ret->host_key = strdup(options->sftp_host_key);
	if (rc == 0 && options->sftp_known_hosts && !ret->known_hosts)
		ret->known_hosts = strdup(options->sftp_known_hosts);
	return rc;
}

/* ---- a session ---- */

int sftp_error(const struct sftp_conn *c, const char *what, const char *path, struct err *err)
{
	char *text = NULL;
	int code = ssh2()->session_last_error(c->ssh, &text, NULL, 0);
	unsigned long fx =
	        code == LIBSSH2_ERROR_SFTP_PROTOCOL ? ssh2()->sftp_last_error(c->sftp) : 0;

	if (code != LIBSSH2_ERROR_SFTP_PROTOCOL)
		return err_set(err, ERR_UNAVAILABLE, 0, "%s '%s': %s", what, path,
		               text && *text ? text : "the connection is lost");
	switch (fx) {
	case LIBSSH2_FX_NO_SUCH_FILE:
	case LIBSSH2_FX_NO_SUCH_PATH:
		return err_set(err, ERR_NOT_FOUND, ENOENT, "%s '%s'", what, path);
	case LIBSSH2_FX_PERMISSION_DENIED:
		return err_set(err, ERR_DENIED, EACCES, "%s '%s'", what, path);
	case LIBSSH2_FX_WRITE_PROTECT:
		return err_set(err, ERR_READ_ONLY, EROFS, "%s '%s'", what, path);
	case LIBSSH2_FX_NO_SPACE_ON_FILESYSTEM:
	case LIBSSH2_FX_QUOTA_EXCEEDED:
		return err_set(err, ERR_NO_SPACE, ENOSPC, "%s '%s'", what, path);
	case LIBSSH2_FX_NO_CONNECTION:
	case LIBSSH2_FX_CONNECTION_LOST:
		return err_set(err, ERR_UNAVAILABLE, 0, "%s '%s': the connection is lost", what,
		               path);
	default:
		return err_set(err, ERR_IO, 0, "%s '%s': the server refuses (SFTP status %lu)",
		               what, path, fx);
	}
}

static int connect_to(const struct addrinfo *a, int *ret_fd)
{
	cleanup_fd int fd =
	        socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, a->ai_protocol);
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	int problem = 0, one = 1;
	socklen_t len = sizeof(problem);

	if (fd < 0)
		return errno;
	if (connect(fd, a->ai_addr, a->ai_addrlen) < 0) {
		if (errno != EINPROGRESS)
			return errno;
		if (poll(&p, 1, CONNECT_MS) <= 0)
			return ETIMEDOUT;
		if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &problem, &len) < 0 || problem)
			return problem ? problem : errno;
	}
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	*ret_fd = take_fd(&fd);
	return 0;
}

static int dial(const struct sftp_place *p, int *ret_fd, struct err *err)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
	struct addrinfo *all = NULL;
	char port[16];
	int problem = ENOENT;

	snprintf(port, sizeof(port), "%u", p->port);
	int gai = getaddrinfo(p->host, port, &hints, &all);
	if (gai)
		return err_set(err, ERR_UNAVAILABLE, 0, "%s: %s", p->host, gai_strerror(gai));
	for (const struct addrinfo *a = all; a && problem; a = a->ai_next)
		problem = connect_to(a, ret_fd);
	freeaddrinfo(all);
	return problem ? err_set(err, ERR_UNAVAILABLE, problem, "%s port %u", p->host, p->port) : 0;
}

static void home_file(const char *name, char *out, size_t size)
{
	const char *home = getenv("HOME");
	const struct passwd *pw = home ? NULL : getpwuid(geteuid());

	snprintf(out, size, "%s/.ssh/%s", home ? home : pw ? pw->pw_dir : "", name);
}

/* "kind base64 comment", as in a .pub file. */
static bool is_host_key(const char *text, const char *key, size_t len)
{
	const char *p = text + strcspn(text, " ");
	unsigned char raw[4096];
	size_t n = 0;

	p += strspn(p, " ");
	return *p &&
	       sodium_base642bin(raw, sizeof(raw), p, strcspn(p, " \n"), NULL, &n, NULL,
	                         sodium_base64_VARIANT_ORIGINAL) == 0 &&
	       n == len && memcmp(raw, key, len) == 0;
}

/* Host keys are only read: who the server is, is for ssh and its user to settle. */
static int check_host(const struct sftp_place *p, LIBSSH2_SESSION *ssh, struct err *err)
{
	LIBSSH2_KNOWNHOSTS *known = ssh2()->knownhost_init(ssh);
	struct libssh2_knownhost *which = NULL;
	char file[4096];
	size_t len;
	int type;

	const char *key = ssh2()->session_hostkey(ssh, &len, &type);
	if (!known || !key) {
		if (known)
			ssh2()->knownhost_free(known);
		return err_set(err, ERR_UNAVAILABLE, 0, "%s shows no host key", p->host);
	}
	if (p->host_key) {
		ssh2()->knownhost_free(known);
		return is_host_key(p->host_key, key, len)
		               ? 0
		               : err_set(err, ERR_REFUSED, 0,
		                         "%s shows another host key than the configured one: it "
		                         "may be "
		                         "an impostor",
		                         p->host);
	}
	home_file("known_hosts", file, sizeof(file));
	ssh2()->knownhost_readfile(known, p->known_hosts ? p->known_hosts : file,
	                           LIBSSH2_KNOWNHOST_FILE_OPENSSH);
	if (!p->known_hosts)
		ssh2()->knownhost_readfile(known, "/etc/ssh/ssh_known_hosts",
		                           LIBSSH2_KNOWNHOST_FILE_OPENSSH);
	int found = ssh2()->knownhost_checkp(
	        known, p->host, (int)p->port, key, len,
	        LIBSSH2_KNOWNHOST_TYPE_PLAIN | LIBSSH2_KNOWNHOST_KEYENC_RAW, &which);
	ssh2()->knownhost_free(known);
	if (found == LIBSSH2_KNOWNHOST_CHECK_MATCH)
		return 0;
	if (found == LIBSSH2_KNOWNHOST_CHECK_MISMATCH)
		return err_set(err, ERR_REFUSED, 0,
		               "%s shows another host key than '%s' has: it may be an impostor",
		               p->host, p->known_hosts ? p->known_hosts : file);
	return err_set(err, ERR_REFUSED, 0,
	               "the host key of %s is not known (add it to '%s': ssh-keyscan -p %u %s, and "
	               "compare it)",
	               p->host, p->known_hosts ? p->known_hosts : file, p->port, p->host);
}

/* The kinds of host key that are known decide which one is asked for. */
static bool try_agent(LIBSSH2_SESSION *ssh, const char *user)
{
	LIBSSH2_AGENT *agent = getenv("SSH_AUTH_SOCK") ? ssh2()->agent_init(ssh) : NULL;
	struct libssh2_agent_publickey *id = NULL, *previous = NULL;
	bool done = false;

	if (!agent)
		return false;
	if (ssh2()->agent_connect(agent) == 0) {
		if (ssh2()->agent_list_identities(agent) == 0)
			while (!done && ssh2()->agent_get_identity(agent, &id, previous) == 0) {
				done = ssh2()->agent_userauth(agent, user, id) == 0;
				previous = id;
			}
		ssh2()->agent_disconnect(agent);
	}
	ssh2()->agent_free(agent);
	return done;
}

static bool try_file(LIBSSH2_SESSION *ssh, const char *user, const char *file)
{
	return access(file, R_OK) == 0 &&
	       ssh2()->userauth_publickey_fromfile_ex(ssh, user, (unsigned)strlen(user), NULL, file,
	                                              NULL) == 0;
}

static int log_in(const struct sftp_place *p, LIBSSH2_SESSION *ssh, struct err *err)
{
	static const char *const usual[] = {"id_ed25519", "id_ecdsa", "id_rsa"};
	char file[4096];

	if (p->identity) {
		if (access(p->identity, R_OK) < 0)
			return err_set(err, ERR_NOT_FOUND, errno, "identity '%s'", p->identity);
		if (try_file(ssh, p->user, p->identity))
			return 0;
		return err_set(
		        err, ERR_DENIED, 0,
		        "%s does not take the key '%s' of user '%s' (or it needs a passphrase: use "
		        "the agent)",
		        p->host, p->identity, p->user);
	}
	if (try_agent(ssh, p->user))
		return 0;
	for (size_t i = 0; i < sizeof(usual) / sizeof(*usual); i++) {
		home_file(usual[i], file, sizeof(file));
		if (try_file(ssh, p->user, file))
			return 0;
	}
	return err_set(err, ERR_DENIED, 0,
	               "%s takes no key of the agent or of ~/.ssh for user '%s' (name one: "
	               "identity=FILE)",
	               p->host, p->user);
}

static int set_up(const struct sftp_place *p, struct sftp_conn *c, struct err *err)
{
	c->ssh = ssh2()->session_init_ex(NULL, NULL, NULL, NULL);
	if (!c->ssh)
		return err_set(err, ERR_NOMEM, 0, "no memory for a session");
	ssh2()->session_set_blocking(c->ssh, 1);
	ssh2()->session_set_timeout(c->ssh, ANSWER_MS);
	if (ssh2()->session_handshake(c->ssh, c->fd) != 0) {
		char *text = NULL;
		ssh2()->session_last_error(c->ssh, &text, NULL, 0);
		return err_set(err, ERR_UNAVAILABLE, 0, "%s: %s", p->host,
		               text ? text : "no handshake");
	}
	int rc = check_host(p, c->ssh, err);
	if (rc == 0)
		rc = log_in(p, c->ssh, err);
	if (rc < 0)
		return rc;
	c->sftp = ssh2()->sftp_init(c->ssh);
	return c->sftp ? 0 : err_set(err, ERR_UNAVAILABLE, 0, "%s offers no SFTP", p->host);
}

int sftp_connect(const struct sftp_place *p, struct sftp_conn **ret, struct err *err)
{
	struct sftp_conn *c = calloc(1, sizeof(*c));

	if (!c)
		return err_set(err, ERR_NOMEM, 0, "no memory for a session");
	c->fd = -1;
	int rc = dial(p, &c->fd, err);
	if (rc == 0)
		rc = set_up(p, c, err);
	if (rc < 0)
		sftp_conn_free(c);
	else
		*ret = c;
	return rc;
}

void sftp_conn_free(struct sftp_conn *c)
{
	if (!c)
		return;
	if (c->ssh)
		ssh2()->session_set_timeout(c->ssh, 1000);
	if (c->sftp)
		ssh2()->sftp_shutdown(c->sftp);
	if (c->ssh) {
		ssh2()->session_disconnect_ex(c->ssh, SSH_DISCONNECT_BY_APPLICATION, "done", "");
		ssh2()->session_free(c->ssh);
	}
	if (c->fd >= 0)
		close(c->fd);
	free(c);
}
