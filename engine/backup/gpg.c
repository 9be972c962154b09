/* SPDX-License-Identifier: Apache-2.0 */
/* What gpg says of a file without decrypting it: its machine-readable lines (doc/DETAILS of GnuPG),
 * "[GNUPG:] ENC_TO KEYID ALGORITHM 0" for each key that can open it. */
#include "engine/backup/backup_i.h"

#include "engine/base/command.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define STATUS_BYTES_MAX 16384
#define KEY_ID_MAX 64

static void read_to_end(int fd, char *out, size_t size)
{
	size_t used = 0;

	while (used + 1 < size) {
		ssize_t n = read(fd, out + used, size - 1 - used);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		used += (size_t)n;
	}
	out[used] = '\0';
}

static bool is_secret_key_here(const char *id)
{
	const char *const argv[] = {"gpg", "--batch", "--quiet", "--no-tty", "--list-secret-keys",
	                            id,    NULL};
	cleanup_command struct command c = COMMAND_INIT;
	char ignored[256];

	if (command_start(&c, argv, -1, NULL))
		return false;
	read_to_end(c.out_fd, ignored, sizeof(ignored));
	return command_finish(&c, ERR_NOT_FOUND, NULL) == 0;
}

bool backup_gpg_has_key(const char *path, struct err *why)
{
	static const char mark[] = "[GNUPG:] ENC_TO ";
	const char *const argv[] = {"gpg",         "--batch",     "--quiet", "--no-tty",
	                            "--list-only", "--status-fd", "1",       "--decrypt",
	                            "--",          path,          NULL};
	cleanup_command struct command c = COMMAND_INIT;
	char text[STATUS_BYTES_MAX], id[KEY_ID_MAX] = "";

	if (command_start(&c, argv, -1, why))
		return false;
	read_to_end(c.out_fd, text, sizeof(text));
	int rc = command_finish(&c, ERR_DAMAGED, NULL);
	for (char *p = text; (p = strstr(p, mark));) {
		p += sizeof(mark) - 1;
		size_t n = strspn(p, "0123456789ABCDEFabcdef");
		if (n == 0 || n >= sizeof(id))
			continue;
		memcpy(id, p, n);
		id[n] = '\0';
		if (is_secret_key_here(id))
			return true;
	}
	/* It names no key: it is damaged, or something else, and decrypting it will tell. */
	if (rc || !id[0])
		return true;
	err_set(why, ERR_DENIED, 0, "the secret key %s is not here", id);
	return false;
}
