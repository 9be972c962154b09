/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/file.h"
#include "engine/base/log.h"
#include "engine/observe/http_i.h"

#include <fcntl.h>
#include <string.h>

#define STACK_BYTES ((size_t)512 << 10)
#define PEM_MAX ((size_t)1 << 20)
#define TLS_PRIORITIES "NORMAL:-VERS-TLS1.0:-VERS-TLS1.1"

/* What is wrong with a client is no matter of ours. */
__attribute__((format(printf, 2, 0))) static void on_message(void *ctx, const char *fmt,
                                                             va_list args)
{
	char text[240];

	vsnprintf(text, sizeof(text), fmt, args);
	text[strcspn(text, "\n")] = 0;
	log_debug("http", "%s", text);
}

static int copy_text(char **to, const char *from, struct err *err)
{
	if (!from)
		return 0;
	*to = strdup(from);
	return *to ? 0 : err_set(err, ERR_NOMEM, 0, "no memory");
}

static int read_pem(const char *path, char **ret, struct err *err)
{
	size_t len;

	return path ? file_get(AT_FDCWD, path, PEM_MAX, ret, &len, err) : 0;
}

static int take_options(struct http_server *s, const struct http_server_options *o, struct err *err)
{
	s->observe = o->observe;
	s->metrics_only = o->metrics_only;
	s->wants_credentials = o->password || o->token;
	s->checks_host =
	        !o->metrics_only && !s->wants_credentials && strncmp(o->listen, "unix:", 5) != 0;
	int rc = copy_text(&s->username, o->username, err);
	rc = rc ? rc : copy_text(&s->password, o->password, err);
	rc = rc ? rc : copy_text(&s->token, o->token, err);
	if (rc == 0)
		guard_make_cookie(s);
	rc = rc ? rc : read_pem(o->tls_cert, &s->tls_cert, err);
	return rc ? rc : read_pem(o->tls_key, &s->tls_key, err);
}

/* The configuration refuses it too; this is the last to look, at the address that it became. */
static int check_open(const struct http_server *s, const char *address, struct err *err)
{
	if (s->metrics_only || s->listener.local || s->listener.path[0] ||
	    (s->wants_credentials && s->tls_cert))
		return 0;
	return err_set(
	        err, ERR_REFUSED, 0,
	        "'%.60s' can be reached from elsewhere (set token, or username and password, "
	        "and tls-cert and tls-key)",
	        address);
}

static int start_daemon(struct http_server *s, struct err *err)
{
	unsigned flags = MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION |
	                 MHD_USE_POLL | MHD_USE_ITC | MHD_USE_ERROR_LOG;
	struct MHD_OptionItem options[] = {
	        {MHD_OPTION_HTTPS_MEM_CERT, 0, s->tls_cert},
	        {MHD_OPTION_HTTPS_MEM_KEY, 0, s->tls_key},
	        {MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)(uintptr_t)TLS_PRIORITIES},
	        {MHD_OPTION_END, 0, NULL}};

	if (s->tls_cert)
		flags |= MHD_USE_TLS;
	else
		options[0] = options[3];
	s->daemon = mhd()->start_daemon(
	        flags, 0, NULL, NULL, dispatch, s, MHD_OPTION_EXTERNAL_LOGGER, on_message, NULL,
	        MHD_OPTION_LISTEN_SOCKET, s->listener.fd, MHD_OPTION_CONNECTION_LIMIT,
	        (unsigned)HTTP_CONNECTIONS_MAX, MHD_OPTION_PER_IP_CONNECTION_LIMIT,
	        (unsigned)HTTP_CONNECTIONS_OF_ONE, MHD_OPTION_CONNECTION_TIMEOUT,
	        (unsigned)HTTP_SILENT_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
	        (size_t)HTTP_HEADERS_MAX, MHD_OPTION_THREAD_STACK_SIZE, STACK_BYTES,
	        MHD_OPTION_NOTIFY_COMPLETED, dispatch_completed, s, MHD_OPTION_NOTIFY_CONNECTION,
	        reaper_on_connection, s, MHD_OPTION_ARRAY, options, MHD_OPTION_END);
	if (s->daemon)
		return 0;
	return err_set(err, ERR_USAGE, 0, "%s",
	               s->tls_cert ? "certificate and key cannot be used (see log level debug)"
	                           : "the HTTP server cannot be started");
}

static void release(struct http_server *s)
{
	if (s->listener.fd >= 0)
		close(s->listener.fd);
	free(s->username);
	free(s->password);
	free(s->token);
	free(s->tls_cert);
	free(s->tls_key);
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->changed);
	free(s);
}

int http_server_new(const struct http_server_options *options, struct http_server **ret,
                    struct err *err)
{
	struct http_server *s = calloc(1, sizeof(*s));

	if (!s)
		return err_set(err, ERR_NOMEM, 0, "no memory");
	s->listener.fd = -1;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->changed, NULL);
	int rc = mhd_load(err);
	if (rc == 0)
		rc = take_options(s, options, err);
	if (rc == 0)
		rc = listener_open(options->listen, &s->listener, err);
	if (rc == 0)
		rc = check_open(s, options->listen, err);
	if (rc == 0)
		rc = reaper_start(s, err);
	if (rc == 0) {
		rc = start_daemon(s, err);
		if (rc < 0)
			reaper_stop(s);
	}
	if (rc < 0) {
		listener_unlink(&s->listener);
		release(s);
		return rc;
	}
	*ret = s;
	return 0;
}

void http_server_free(struct http_server *s)
{
	if (!s)
		return;
	listener_unlink(&s->listener);
	mhd()->stop_daemon(s->daemon); /* closes the socket that it was given */
	s->listener.fd = -1;
	reaper_stop(s);
	release(s);
}

void http_server_abandon(struct http_server *s)
{
	if (s)
		listener_unlink(&s->listener);
}
