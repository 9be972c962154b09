/* SPDX-License-Identifier: Apache-2.0 */
/* libssh2, loaded when it is first wanted (base/library.h). */
#ifndef ASOF_STORE_SSH2_H
#define ASOF_STORE_SSH2_H

#include "engine/base/err.h"

#include <libssh2.h>
#include <libssh2_sftp.h>

/* clang-format off */
#define SSH2_FUNCTIONS(F) \
	F(init) F(session_init_ex) F(session_set_blocking) F(session_set_timeout) \
	F(session_handshake) F(session_last_error) F(session_last_errno) F(session_hostkey) \
	F(session_disconnect_ex) F(session_free) F(knownhost_init) F(knownhost_readfile) \
	F(knownhost_checkp) F(knownhost_free) F(agent_init) F(agent_connect) \
	F(agent_list_identities) F(agent_get_identity) F(agent_userauth) \
	F(agent_disconnect) F(agent_free) F(userauth_publickey_fromfile_ex) F(sftp_init) \
	F(sftp_shutdown) F(sftp_last_error) F(sftp_open_ex) F(sftp_close_handle) \
	F(sftp_read) F(sftp_write) F(sftp_fsync) F(sftp_seek64) F(sftp_readdir_ex) \
	F(sftp_fstat_ex) F(sftp_stat_ex) F(sftp_statvfs) F(sftp_mkdir_ex) F(sftp_rename_ex) \
	F(sftp_unlink_ex)
/* clang-format on */

/* (Some of these names are macros, too, which check types and change nothing.) */
struct ssh2_api {
#define SSH2_MEMBER(name) __typeof__(libssh2_##name) *name;
	SSH2_FUNCTIONS(SSH2_MEMBER)
#undef SSH2_MEMBER
};

/* Loads it once for the process; any thread. */
int ssh2_load(struct err *err) MUST_USE;
/* Its functions, after ssh2_load() went well. */
const struct ssh2_api *ssh2(void);

#endif
