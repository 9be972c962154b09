/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is not here matters as much: without flock, setlk, create, write, access and flush the
 * kernel answers those itself, and the mount being `ro` makes every write EROFS before it
 * comes to us.  Locks stay in the kernel, so a warm SQLite transaction asks us nothing.
 */
#include "fs/ops.h"

#include "engine/base/cleanup.h"
#include "engine/base/hash.h"
#include "engine/base/log.h"
#include "fs/mounted.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#define BLOCK_BYTES 65536
#define READ_AHEAD_KIB 1024u /* a cp keeps some threads busy, and a point query is no sequence */
/* The same line is logged once in this time: the kernel asks again page by page. */
#define LOG_AGAIN_US INT64_C(10000000)

void fs_ops_init(struct fs_ops *ops, struct fs_tree *tree)
{
	*ops = (struct fs_ops){.tree = tree,
	                       .uid = getuid(),
	                       .gid = getgid(),
	                       .file_mode = 0400,
	                       .dir_mode = 0500};
	pthread_mutex_init(&ops->lock, NULL);
}

void fs_ops_release(struct fs_ops *ops)
{
	while (ops->n_spare)
		free(ops->spare[--ops->n_spare]);
	pthread_mutex_destroy(&ops->lock);
}

static struct fs_ops *ops_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

/* Names that lead nowhere are ordinary; all else is for the operator to know. */
static void log_failure(struct fs_ops *ops, const char *what, const struct err *err)
{
	if (err->kind == ERR_NOT_FOUND || err->kind == ERR_GAP || err->kind == ERR_USAGE)
		return;
	uint64_t hash = hash64(err->msg, strlen(err->msg), 0);
	int64_t now_us = clock_mono_us();
	pthread_mutex_lock(&ops->lock);
	bool again = hash == ops->logged_hash && now_us - ops->logged_mono_us < LOG_AGAIN_US;
	if (!again) {
		ops->logged_hash = hash;
		ops->logged_mono_us = now_us;
	}
	pthread_mutex_unlock(&ops->lock);
	if (!again)
		log_error("fs", "%s failed kind=%s why=%s", what, err_kind_name(err->kind),
		          err->msg);
}

static void reply_failure(fuse_req_t req, const char *what, const struct err *err)
{
	log_failure(ops_of(req), what, err);
	/* What must not be told apart from damage: a kind without an errno of its own. */
	int code = err_errno(err->kind);
	fuse_reply_err(req, code ? code : EIO);
}

static struct stat stat_of(const struct fs_ops *ops, const struct fs_entry *e)
{
	struct stat st = {
	        .st_ino = e->ino,
	        .st_nlink = 1,
	        .st_mode = e->is_dir ? S_IFDIR | ops->dir_mode : S_IFREG | ops->file_mode,
	        .st_uid = ops->uid,
	        .st_gid = ops->gid,
	        .st_size = (off_t)e->size,
	        .st_blksize = BLOCK_BYTES,
	        .st_blocks = (blkcnt_t)((e->size + 511) / 512),
	};
	int64_t seconds = e->mtime_us / US_PER_SECOND - (e->mtime_us % US_PER_SECOND < 0);
	st.st_mtim.tv_sec = seconds;
	st.st_mtim.tv_nsec = (e->mtime_us - seconds * US_PER_SECOND) * 1000;
	st.st_ctim = st.st_atim = st.st_mtim;
	return st;
}

static struct fuse_entry_param entry_of(const struct fs_ops *ops, const struct fs_entry *e)
{
	struct fuse_entry_param p = {.ino = e->ino,
	                             .entry_timeout = e->entry_timeout_s,
	                             .attr_timeout = e->attr_timeout_s};
	if (e->ino)
		p.attr = stat_of(ops, e);
	return p;
}

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
	const struct fs_ops *ops = userdata;

	/* Content of an inode never changes; and data lies in memory, where splicing costs. */
	conn->want &= ~(unsigned)(FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_SPLICE_READ |
	                          FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
	conn->want |= conn->capable & (FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO |
	                               FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_ASYNC_READ);
	/* The lower of what the kernel has for this mount and of what we say counts. */
	fs_mounted_read_ahead(ops->mountpoint, READ_AHEAD_KIB);
	conn->max_readahead = READ_AHEAD_KIB << 10;
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fs_ops *ops = ops_of(req);
	struct err err = ERR_INIT;
	struct fs_entry e;

	if (fs_tree_lookup(ops->tree, parent, name, &e, &err) < 0) {
		reply_failure(req, "lookup", &err);
		return;
	}
	struct fuse_entry_param p = entry_of(ops, &e);
	if (fuse_reply_entry(req, &p) < 0 && e.ino)
		fs_tree_forget(ops->tree, e.ino, 1);
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t n)
{
	fs_tree_forget(ops_of(req)->tree, ino, n);
	fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	for (size_t i = 0; i < count; i++)
		fs_tree_forget(ops_of(req)->tree, forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(req);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs_ops *ops = ops_of(req);
	struct err err = ERR_INIT;
	struct fs_entry e;

	if (fs_tree_getattr(ops->tree, ino, &e, &err) < 0) {
		reply_failure(req, "stat", &err);
		return;
	}
	struct stat st = stat_of(ops, &e);
	fuse_reply_attr(req, &st, e.attr_timeout_s);
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs_ops *ops = ops_of(req);
	struct err err = ERR_INIT;
	struct fs_file *file;

	if ((fi->flags & O_ACCMODE) != O_RDONLY || fi->flags & O_TRUNC) {
		fuse_reply_err(req, EROFS);
		return;
	}
	if (fs_file_open(ops->tree, ino, &file, &err) < 0) {
		reply_failure(req, "open", &err);
		return;
	}
	fi->fh = (uint64_t)(uintptr_t)file;
	fi->keep_cache = 1;
	fi->noflush = 1;
	if (fuse_reply_open(req, fi) < 0)
		fs_file_close(file);
}

static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	fs_file_close((struct fs_file *)(uintptr_t)fi->fh);
	fuse_reply_err(req, 0);
}

/* ---- reading ---- */

static void *take_buffer(struct fs_ops *ops, size_t size, size_t *ret_bytes)
{
	LOCK_SCOPE(&ops->lock);
	if (size > ops->spare_bytes) {
		while (ops->n_spare)
			free(ops->spare[--ops->n_spare]);
		ops->spare_bytes = size;
	}
	*ret_bytes = ops->spare_bytes;
	return ops->n_spare ? ops->spare[--ops->n_spare] : malloc(ops->spare_bytes);
}

static void give_buffer(struct fs_ops *ops, void *buf, size_t bytes)
{
	LOCK_SCOPE(&ops->lock);
	if (bytes == ops->spare_bytes && ops->n_spare < FS_SPARE_BUFFERS)
		ops->spare[ops->n_spare++] = buf;
	else
		free(buf);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                    struct fuse_file_info *fi)
{
	struct fs_ops *ops = ops_of(req);
	struct err err = ERR_INIT;
	size_t got, bytes;
	void *buf = take_buffer(ops, size, &bytes);

	if (!buf) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	if (fs_file_read((struct fs_file *)(uintptr_t)fi->fh, (uint64_t)offset, buf, size, &got,
	                 &err) < 0)
		reply_failure(req, "read", &err);
	else
		fuse_reply_buf(req, buf, got);
	give_buffer(ops, buf, bytes);
}

/* ---- folders ---- */

static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs_ops *ops = ops_of(req);
	struct err err = ERR_INIT;
	struct fs_dir *dir;

	if (fs_dir_open(ops->tree, ino, &dir, &err) < 0) {
		reply_failure(req, "list", &err);
		return;
	}
	fi->fh = (uint64_t)(uintptr_t)dir;
	if (fuse_reply_open(req, fi) < 0)
		fs_dir_close(dir);
}

static void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	fs_dir_close((struct fs_dir *)(uintptr_t)fi->fh);
	fuse_reply_err(req, 0);
}

static size_t put_plain(fuse_req_t req, const struct fs_dirent *d, char *buf, size_t room)
{
	struct stat st = {.st_ino = d->ino, .st_mode = d->is_dir ? S_IFDIR : S_IFREG};

	return fuse_add_direntry(req, buf, room, d->name, &st, (off_t)d->cookie);
}

/* With attributes, which counts as a look-up; if that fails, without. */
static size_t put_plus(fuse_req_t req, uint64_t ino, const struct fs_dirent *d, char *buf,
                       size_t room)
{
	struct fs_ops *ops = ops_of(req);
	struct fuse_entry_param p = {
	        .attr = {.st_ino = d->ino, .st_mode = d->is_dir ? S_IFDIR : S_IFREG}};
	struct fs_entry e = {0};
	bool dots = strcmp(d->name, ".") == 0 || strcmp(d->name, "..") == 0;
	size_t size = fuse_add_direntry_plus(req, NULL, 0, d->name, &p, (off_t)d->cookie);

	if (size > room)
		return size;
	if (!dots && fs_tree_lookup(ops->tree, ino, d->name, &e, NULL) == 0 && e.ino)
		p = entry_of(ops, &e);
	return fuse_add_direntry_plus(req, buf, room, d->name, &p, (off_t)d->cookie);
}

static void read_dir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                     struct fuse_file_info *fi, bool plus)
{
	char *buf cleanup_free = malloc(size);
	struct err err = ERR_INIT;
	struct fs_dirent d;
	uint64_t cookie = (uint64_t)offset;
	size_t used = 0;

	if (!buf) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	for (;; cookie = d.cookie) {
		if (fs_dir_next((struct fs_dir *)(uintptr_t)fi->fh, cookie, &d, &err) < 0) {
			if (used)
				break; /* what there is first, then the error */
			reply_failure(req, "list", &err);
			return;
		}
		if (!d.name[0])
			break;
		size_t n = plus ? put_plus(req, ino, &d, buf + used, size - used)
		                : put_plain(req, &d, buf + used, size - used);
		if (n > size - used)
			break;
		used += n;
	}
	fuse_reply_buf(req, buf, used);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                       struct fuse_file_info *fi)
{
	read_dir(req, ino, size, offset, fi, false);
}

static void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                           struct fuse_file_info *fi)
{
	read_dir(req, ino, size, offset, fi, true);
}

/* ---- the rest ---- */

/* No blocks at all: df leaves the mount out, and no alert calls it full. */
static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct statvfs st = {.f_bsize = 4096, .f_frsize = 4096, .f_namemax = 255};

	fuse_reply_statfs(req, &st);
}

static void reply_xattr(fuse_req_t req, const char *p, size_t len, size_t size)
{
	if (size == 0)
		fuse_reply_xattr(req, len);
	else if (len > size)
		fuse_reply_err(req, ERANGE);
	else
		fuse_reply_buf(req, p, len);
}

static void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	char value[FS_XATTR_VALUE_MAX];
	struct err err = ERR_INIT;

	if (fs_tree_xattr(ops_of(req)->tree, ino, name, value, &err) == 0)
		reply_xattr(req, value, strlen(value), size);
	else if (err.kind == ERR_NOT_FOUND)
		fuse_reply_err(req, ENODATA); /* ENOSYS would end all of them for the mount */
	else
		reply_failure(req, "getxattr", &err);
}

static void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	char list[1024], value[FS_XATTR_VALUE_MAX];
	size_t len = 0;
	const char *name;

	for (size_t i = 0; (name = fs_tree_xattr_name(i)); i++) {
		size_t n = strlen(name) + 1;
		if (len + n > sizeof(list) ||
		    fs_tree_xattr(ops_of(req)->tree, ino, name, value, NULL) < 0)
			continue;
		memcpy(list + len, name, n);
		len += n;
	}
	reply_xattr(req, list, len, size);
}

const struct fuse_lowlevel_ops fs_callbacks = {
        .init = op_init,
        .lookup = op_lookup,
        .forget = op_forget,
        .forget_multi = op_forget_multi,
        .getattr = op_getattr,
        .open = op_open,
        .read = op_read,
        .release = op_release,
        .opendir = op_opendir,
        .readdir = op_readdir,
        .readdirplus = op_readdirplus,
        .releasedir = op_releasedir,
        .statfs = op_statfs,
        .getxattr = op_getxattr,
        .listxattr = op_listxattr,
};
