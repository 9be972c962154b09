/* SPDX-License-Identifier: Apache-2.0 */
/* Open files: an image through its shared view, a text, or a backup. */
#include "fs/tree_i.h"

#include <string.h>

struct fs_file {
	struct fs_open open; /* first: see close_open() */
	struct fs_tree *tree;
	unsigned read_flags;
	struct fs_view *view; /* one of these three */
	struct fs_text *text;
	struct fs_backup_file *backup;
};

static void close_open(struct fs_open *o)
{
	fs_file_close((struct fs_file *)o);
}

int fs_file_open(struct fs_tree *t, uint64_t ino, struct fs_file **ret, struct err *err)
{
	struct fs_file *f cleanup_free = calloc(1, sizeof(*f));
	struct fs_place place;
	struct fs_node *node;
	int rc = fs_tree_place(t, ino, &place, &node, err);

	if (rc < 0)
		return rc;
	if (!f)
		return err_set(err, ERR_NOMEM, 0, "no memory for an open file");
	f->tree = t;
	switch (place.kind) {
	case FS_IMAGE:
		f->read_flags = place.raw ? 0 : VIEW_READ_PATCHED;
		rc = fs_views_get(t->views, place.db, place.txid, &f->view, err);
		break;
	case FS_TEXT:
		f->text = fs_text_ref(place.text);
		break;
	case FS_BACKUP_FILE:
		rc = fs_backups_open(t->backups, place.backup_type, node->name, place.gz,
		                     node->version, place.size, &f->backup, err);
		break;
	default:
		return err_set(err, ERR_USAGE, 0, "a folder is not read");
	}
	if (rc < 0)
		return rc;
	f->open.close = close_open;
	fs_tree_track(t, &f->open);
	*ret = take_ptr(f);
	return 0;
}

int fs_file_read(struct fs_file *f, uint64_t offset, void *buf, size_t len, size_t *ret_len,
                 struct err *err)
{
	if (f->view)
		return view_read(fs_view_engine(f->view), offset, buf, len, f->read_flags, ret_len,
		                 err);
	if (f->backup)
		return fs_backup_read(f->backup, offset, buf, len, ret_len, err);
	size_t left = offset < f->text->len ? f->text->len - (size_t)offset : 0;
	*ret_len = len < left ? len : left;
	memcpy(buf, f->text->data + (left ? offset : 0), *ret_len);
	return 0;
}

void fs_file_close(struct fs_file *f)
{
	fs_tree_untrack(f->tree, &f->open);
	if (f->view)
		fs_views_put(f->tree->views, f->view);
	if (f->text)
		fs_text_unref(f->text);
	if (f->backup)
		fs_backups_close(f->tree->backups, f->backup);
	free(f);
}
