/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hash table with chains, under one mutex held for a few instructions.  Grows, never
 * shrinks: what it keeps per folder visited is dwarfed by the kernel's own inodes.
 */
#include "fs/node.h"

#include "engine/base/cleanup.h"
#include "engine/base/hash.h"
#include "fs/text.h"

#include <string.h>

#define IMAGE_TAG (UINT64_C(1) << 63)
#define RAW_TAG (UINT64_C(1) << 62)
#define TXID_BITS 30

struct fs_nodes {
	pthread_mutex_t lock;
	struct fs_node **slots; /* under lock, as is all below */
	size_t n_slots;         /* a power of two */
	size_t n_nodes;
	struct fs_node *root;
};

uint64_t fs_image_ino(uint32_t history_id, uint64_t txid, bool raw)
{
	if (history_id == 0 || txid >> TXID_BITS)
		return 0;
	return IMAGE_TAG | (raw ? RAW_TAG : 0) | (uint64_t)history_id << TXID_BITS | txid;
}

bool fs_image_decode(uint64_t ino, uint32_t *ret_history_id, uint64_t *ret_txid, bool *ret_raw)
{
	if (!(ino & IMAGE_TAG))
		return false;
	*ret_raw = ino & RAW_TAG;
	*ret_history_id = (uint32_t)(ino >> TXID_BITS);
	*ret_txid = ino & ((UINT64_C(1) << TXID_BITS) - 1);
	return true;
}

uint64_t fs_nodes_ino(uint64_t parent_ino, const char *name, uint64_t version)
{
	uint64_t ino =
	        hash64(name, strlen(name), parent_ino ^ version * UINT64_C(0x9e3779b97f4a7c15)) &
	        ~IMAGE_TAG;
	return ino <= FS_ROOT_INO ? ino + 2 : ino;
}

static struct fs_node **slot_of(struct fs_nodes *t, uint64_t ino)
{
	return &t->slots[(ino ^ ino >> 29) & (t->n_slots - 1)];
}

static void grow(struct fs_nodes *t)
{
	struct fs_node **old = t->slots;
	size_t n_old = t->n_slots;
	struct fs_node **slots = calloc(n_old * 2, sizeof(struct fs_node *));

	if (!slots)
		return; /* longer chains, nothing worse */
	t->slots = slots;
	t->n_slots = n_old * 2;
	for (size_t i = 0; i < n_old; i++) {
		while (old[i]) {
			struct fs_node *node = old[i];
			old[i] = node->next;
			node->next = *slot_of(t, node->ino);
			*slot_of(t, node->ino) = node;
		}
	}
	free(old);
}

static struct fs_node *find(struct fs_nodes *t, uint64_t ino)
{
	struct fs_node *node = *slot_of(t, ino);

	while (node && node->ino != ino)
		node = node->next;
	return node;
}

static void insert(struct fs_nodes *t, struct fs_node *node)
{
	if (t->n_nodes >= t->n_slots)
		grow(t);
	node->next = *slot_of(t, node->ino);
	*slot_of(t, node->ino) = node;
	t->n_nodes++;
	if (node->parent)
		node->parent->n_below++;
	if (node->place.text)
		fs_text_ref(node->place.text);
}

static void destroy(struct fs_node *node)
{
	if (node->place.text)
		fs_text_unref(node->place.text);
	free(node);
}

/* Takes the node out if nothing holds it any more, and then perhaps its parents. */
static void drop_unheld(struct fs_nodes *t, struct fs_node *node)
{
	while (node && node != t->root && node->n_lookups == 0 && node->n_below == 0) {
		struct fs_node *parent = node->parent;
		struct fs_node **at = slot_of(t, node->ino);
		while (*at != node)
			at = &(*at)->next;
		*at = node->next;
		t->n_nodes--;
		destroy(node);
		if (parent)
			parent->n_below--;
		node = parent;
	}
}

static struct fs_node *make_node(struct fs_node *parent, const char *name, uint64_t version,
                                 const struct fs_place *place, uint64_t ino)
{
	size_t len = strlen(name);
	struct fs_node *node = calloc(1, sizeof(*node) + len + 1);

	if (node) {
		node->ino = ino;
		node->place = *place;
		node->parent = parent;
		node->version = version;
		memcpy(node->name, name, len);
	}
	return node;
}

int fs_nodes_new(const struct fs_place *root, struct fs_nodes **ret, struct err *err)
{
	struct fs_nodes *t = calloc(1, sizeof(*t));

	if (t) {
		t->n_slots = 256;
		t->slots = calloc(t->n_slots, sizeof(struct fs_node *));
		t->root = make_node(NULL, "", 0, root, FS_ROOT_INO);
	}
	if (!t || !t->slots || !t->root) {
		if (t) {
			free(t->slots);
			free(t->root);
		}
		free(t);
		return err_set(err, ERR_NOMEM, 0, "no memory for the table of nodes");
	}
	pthread_mutex_init(&t->lock, NULL);
	insert(t, t->root);
	*ret = t;
	return 0;
}

void fs_nodes_free(struct fs_nodes *t)
{
	if (!t)
		return;
	for (size_t i = 0; i < t->n_slots; i++) {
		while (t->slots[i]) {
			struct fs_node *node = t->slots[i];
			t->slots[i] = node->next;
			destroy(node);
		}
	}
	free(t->slots);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

int fs_nodes_enter(struct fs_nodes *t, struct fs_node *parent, const char *name, uint64_t version,
                   const struct fs_place *place, struct fs_node **ret, struct err *err)
{
	LOCK_SCOPE(&t->lock);
	uint64_t ino = fs_nodes_ino(parent->ino, name, version);
	struct fs_node *node;

	for (;; ino = ino + 1 < IMAGE_TAG ? ino + 1 : FS_ROOT_INO + 1) {
		node = find(t, ino);
		if (!node)
			break;
		if (node->parent == parent && node->version == version &&
		    strcmp(node->name, name) == 0)
			break;
	}
	if (!node) {
		node = make_node(parent, name, version, place, ino);
		if (!node)
			return err_set(err, ERR_NOMEM, 0, "no memory for a node");
		insert(t, node);
	}
	node->n_lookups++;
	*ret = node;
	return 0;
}

struct fs_node *fs_nodes_find(struct fs_nodes *t, uint64_t ino)
{
	LOCK_SCOPE(&t->lock);
	return find(t, ino);
}

void fs_nodes_forget(struct fs_nodes *t, uint64_t ino, uint64_t n)
{
	if (ino & IMAGE_TAG)
		return;
	LOCK_SCOPE(&t->lock);
	struct fs_node *node = find(t, ino);
	if (!node)
		return;
	node->n_lookups -= n < node->n_lookups ? n : node->n_lookups;
	drop_unheld(t, node);
}

size_t fs_nodes_count(struct fs_nodes *t)
{
	LOCK_SCOPE(&t->lock);
	return t->n_nodes;
}
