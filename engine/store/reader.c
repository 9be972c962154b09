/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/store/reader_i.h"

#include <string.h>

#define MEMORY_DEFAULT (24u << 20)
#define AHEAD_DEFAULT 16u
#define END_PART 1024u
#define END_MOST (96u << 10) /* spans of a snapshot (gz/pack.h), and what lies with them */
#define SMALL_CHUNKS 4u      /* an object of so many comes whole */

/* ---- pieces: under lock ---- */

struct piece *piece_at(struct store_reader *r, const struct remote *o, uint64_t chunk)
{
	for (struct piece *p = r->pieces; p; p = p->next)
		if (hash128_equal(p->id, o->id) && chunk >= p->first && chunk < p->first + p->n)
			return p;
	return NULL;
}

static void free_piece(struct piece *p)
{
	free(p->data);
	free(p);
}

static void unlink_piece(struct store_reader *r, struct piece *p)
{
	struct piece **at = &r->pieces;

	if (p->unlinked)
		return;
	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	r->bytes -= p->len;
	p->unlinked = true;
}

static void unpin(struct piece *p)
{
	if (--p->pins == 0 && p->unlinked)
		free_piece(p);
}

/* Read ahead, and read to its end: who reads on does not come back. */
static bool is_through(const struct piece *p)
{
	return p->passing && p->taken >= p->len;
}

/* What goes first: what is through, then what was used longest ago.  `o`: the object to be read
 * ahead of; what lies before its run stays, or NULL. */
static struct piece *least_wanted(const struct store_reader *r, const struct remote *o)
{
	struct piece *least = NULL;

	for (struct piece *p = r->pieces; p; p = p->next) {
		if (p->state != READY || p->pins > 0)
			continue;
		if (is_through(p))
			return p;
		if (o && p->ahead && hash128_equal(p->id, o->id) && p->first > o->run.last)
			continue;
		if (!least || p->used < least->used)
			least = p;
	}
	return least;
}

bool make_room(struct store_reader *r, size_t len, const struct remote *o)
{
	while (r->bytes + len > r->options.memory_bytes) {
		struct piece *p = least_wanted(r, o);
		if (!p)
			return false;
		unlink_piece(r, p);
		free_piece(p);
	}
	return true;
}

size_t stretch_bytes(const struct remote *o, uint64_t first, uint64_t n)
{
	uint64_t from = first * READER_CHUNK, to = (first + n) * READER_CHUNK;

	return (size_t)((to < o->bytes ? to : o->bytes) - from);
}

/* Begins a piece of chunks of which none is there, with a pin. */
struct piece *begin_piece(struct store_reader *r, struct remote *o, uint64_t first, uint64_t n)
{
	struct piece *p = calloc(1, sizeof(*p));
	size_t len = stretch_bytes(o, first, n);

	if (!p || !(p->data = malloc(len))) {
		free(p);
		return NULL;
	}
	p->of = o;
	o->refs++;
	p->id = o->id;
	p->first = first;
	p->n = n;
	p->len = len;
	p->pins = 1;
	p->used = ++r->uses;
	p->next = r->pieces;
	r->pieces = p;
	r->bytes += len;
	return p;
}

void remote_unref(struct remote *o)
{
	if (--o->refs > 0)
		return;
	source_free(o->inner);
	staged_free(o->staged);
	free(o->base.name);
	free(o);
}

/* ---- loading ---- */

static struct kept_key kept_key_of(const struct remote *o, uint64_t chunk)
{
	return (struct kept_key){o->id, chunk};
}

static void keep(struct store_reader *r, const struct remote *o, uint64_t first, const uint8_t *p,
                 size_t len)
{
	for (uint64_t c = first; r->options.kept && len > 0; c++) {
		size_t n = len < READER_CHUNK ? len : READER_CHUNK;
		kept_put(r->options.kept, kept_key_of(o, c), p, n);
		p += n;
		len -= n;
	}
}

static bool all_kept(struct store_reader *r, const struct piece *p)
{
	bool all = r->options.kept != NULL;

	for (uint64_t i = 0; i < p->n && all; i++)
		all = kept_has(r->options.kept, kept_key_of(p->of, p->first + i));
	return all;
}

/* Without the lock; gives up the pin of begin_piece() unless `keep_pin`. */
int load_piece(struct store_reader *r, struct piece *p, bool keep_pin, struct err *err)
{
	struct remote *o = p->of;
	struct err why = ERR_INIT;

	int rc = o->inner->pread(o->inner, p->data, p->len, p->first * READER_CHUNK, &why);
	if (rc == 0 && !p->passing)
		keep(r, o, p->first, p->data, p->len);
	pthread_mutex_lock(&r->lock);
	p->state = rc == 0 ? READY : FAILED;
	if (rc < 0) {
		p->err = why;
		unlink_piece(r, p);
	}
	p->of = NULL;
	if (!keep_pin || rc < 0)
		unpin(p);
	pthread_cond_broadcast(&r->loaded);
	pthread_mutex_unlock(&r->lock);
	remote_unref(o);
	return rc < 0 ? err_copy(err, &why) : 0;
}

bool forgo_if_kept(struct store_reader *r, struct piece *p)
{
	struct remote *o = p->of;

	if (!all_kept(r, p))
		return false;
	pthread_mutex_lock(&r->lock);
	p->state = FAILED;
	p->of = NULL;
	unlink_piece(r, p);
	unpin(p);
	pthread_cond_broadcast(&r->loaded);
	pthread_mutex_unlock(&r->lock);
	remote_unref(o);
	return true;
}

/* As much of the end comes at once: an index is in proportion to what it tells of. */
static uint64_t end_bytes(const struct remote *o)
{
	uint64_t part = o->bytes / END_PART;

	return part < READER_CHUNK / 2 ? READER_CHUNK / 2 : part < END_MOST ? part : END_MOST;
}

/* Under lock: the stretch to ask for when chunk `c` is wanted, and those after it up to `end`. */
void choose_stretch(struct store_reader *r, const struct remote *o, uint64_t c, uint64_t end,
                    uint64_t *ret_first, uint64_t *ret_n)
{
	uint64_t first = c, last = end - 1;

	if (o->n_chunks <= SMALL_CHUNKS) {
		first = 0;
		last = o->n_chunks - 1;
	} else if (c + 1 == o->n_chunks) {
		while (first > 0 && o->bytes - first * READER_CHUNK < end_bytes(o))
			first--;
	}
	uint64_t lo = c, hi = c;
	while (lo > first && !piece_at(r, o, lo - 1))
		lo--;
	while (hi < last && hi - lo + 1 < PIECE_CHUNKS && !piece_at(r, o, hi + 1))
		hi++;
	*ret_first = lo;
	*ret_n = hi - lo + 1;
}

static size_t copy_out(const struct piece *p, uint64_t offset, uint8_t *out, size_t len)
{
	size_t in = (size_t)(offset - p->first * READER_CHUNK);
	size_t n = p->len - in < len ? p->len - in : len;

	memcpy(out, p->data + in, n);
	return n;
}

/* From the local folder: one chunk.  0: it is not there. */
static size_t from_kept(struct store_reader *r, struct remote *o, uint64_t c, uint64_t offset,
                        uint8_t *out, size_t len)
{
	size_t size = stretch_bytes(o, c, 1), in = (size_t)(offset - c * READER_CHUNK);

	if (!r->options.kept)
		return 0;
	cleanup_free uint8_t *chunk = malloc(size);
	if (!chunk || !kept_get(r->options.kept, kept_key_of(o, c), chunk, size))
		return 0;
	size_t n = size - in < len ? size - in : len;
	memcpy(out, chunk + in, n);
	return n;
}

/* Waits for a piece on its way.  Under lock; takes no pin along. */
static int wait_for(struct store_reader *r, struct piece *p, struct err *err)
{
	int rc = 0;

	p->pins++;
	while (p->state == LOADING)
		pthread_cond_wait(&r->loaded, &r->lock);
	/* What failed ahead of need is tried by whoever needs it. */
	if (p->state == FAILED && !p->ahead)
		rc = err_copy(err, &p->err);
	unpin(p);
	return rc;
}

/* Some of the bytes at `offset`: as many as lie in one piece. */
static int take(struct remote *o, uint64_t offset, uint8_t *out, size_t len, size_t *ret_n,
                struct err *err)
{
	struct store_reader *r = o->reader;
	uint64_t c = offset / READER_CHUNK, end = (offset + len - 1) / READER_CHUNK + 1;
	bool asked_kept = false;
	struct piece *p;

	pthread_mutex_lock(&r->lock);
	follow(r, o, c);
	for (;;) {
		p = piece_at(r, o, c);
		if (p && p->state == LOADING) {
			int rc = wait_for(r, p, err);
			if (rc < 0) {
				pthread_mutex_unlock(&r->lock);
				return rc;
			}
			continue;
		}
		if (p) {
			p->pins++;
			p->used = ++r->uses;
			break;
		}
		if (!asked_kept) {
			pthread_mutex_unlock(&r->lock);
			*ret_n = from_kept(r, o, c, offset, out, len);
			if (*ret_n)
				return 0;
			asked_kept = true;
			pthread_mutex_lock(&r->lock);
			continue;
		}
		uint64_t first, n;
		choose_stretch(r, o, c, end, &first, &n);
		make_room(r, stretch_bytes(o, first, n), NULL); /* needed, room or not */
		p = begin_piece(r, o, first, n);
		pthread_mutex_unlock(&r->lock);
		if (!p)
			return err_set(err, ERR_NOMEM, 0, "no memory to read '%s'", o->base.name);
		int rc = load_piece(r, p, true, err);
		if (rc < 0)
			return rc;
		pthread_mutex_lock(&r->lock);
		break;
	}
	pthread_mutex_unlock(&r->lock);
	*ret_n = copy_out(p, offset, out, len);
	pthread_mutex_lock(&r->lock);
	p->taken += *ret_n;
	unpin(p);
	pthread_mutex_unlock(&r->lock);
	return 0;
}

/* ---- the source ---- */

static int past_end(const struct remote *o, uint64_t offset, size_t len, struct err *err)
{
	return err_set(err, ERR_DAMAGED, 0, "'%s' ends at %llu, before byte %llu", o->base.name,
	               (unsigned long long)o->bytes, (unsigned long long)(offset + len));
}

static int remote_pread(struct source *s, void *buf, size_t len, uint64_t offset, struct err *err)
{
	struct remote *o = (struct remote *)s;
	uint8_t *out = buf;

	if (offset > o->bytes || len > o->bytes - offset)
		return past_end(o, offset, len, err);
	struct staged *staged = o->staged;
	while (len > 0) {
		size_t n = 0;
		int rc = staged ? staged_read(staged, o->inner, offset, out, len, &n, err)
		                : take(o, offset, out, len, &n, err);
		if (rc < 0)
			return rc;
		out += n;
		offset += n;
		len -= n;
	}
	return 0;
}

/* Of an object that is near. */
static int near_pread(struct source *s, void *buf, size_t len, uint64_t offset, struct err *err)
{
	struct remote *o = (struct remote *)s;

	return o->inner->pread(o->inner, buf, len, offset, err);
}

static void forget(struct remote *o, uint64_t offset, size_t len)
{
	struct store_reader *r = o->reader;
	uint64_t first = offset / READER_CHUNK,
	         end = (offset + (len ? len : 1) - 1) / READER_CHUNK + 1;
	struct piece *next;

	if (o->staged)
		staged_forget(o->staged, offset, len);
	LOCK_SCOPE(&r->lock);
	for (struct piece *p = r->pieces; p; p = next) {
		next = p->next;
		if (!hash128_equal(p->id, o->id) || p->first >= end || p->first + p->n <= first ||
		    p->state != READY)
			continue;
		p->pins++;
		unlink_piece(r, p);
		unpin(p);
	}
	for (uint64_t c = first; r->options.kept && c < end; c++)
		kept_drop(r->options.kept, kept_key_of(o, c));
}

static int again_elsewhere(struct remote *o, size_t place, void *buf, size_t len, uint64_t offset,
                           struct err *err)
{
	cleanup_source struct source *s = NULL;

	int rc = store_open_object(o->reader->stores[place], o->base.name, UINT64_MAX, &s, err);
	return rc < 0 ? rc : s->pread(s, buf, len, offset, err);
}

static int remote_again(struct source *s, unsigned attempt, void *buf, size_t len, uint64_t offset,
                        struct err *err)
{
	struct remote *o = (struct remote *)s;
	bool far = o->base.remote;

	if (far && attempt == 1) {
		if (offset > o->bytes || len > o->bytes - offset)
			return past_end(o, offset, len, err);
		forget(o, offset, len);
		return o->inner->pread(o->inner, buf, len, offset, err);
	}
	size_t place = far ? attempt - 2 : attempt - 1;
	if (place >= o->place) /* its own was asked */
		place++;
	if (place >= o->reader->options.n_stores)
		return err_set(err, ERR_REFUSED, 0, "'%s' is nowhere else", s->name);
	return again_elsewhere(o, place, buf, len, offset, err);
}

static int remote_size(struct source *s, uint64_t *ret_bytes, struct err *err)
{
	struct remote *o = (struct remote *)s;

	if (!o->base.remote)
		return o->inner->size(o->inner, ret_bytes, err);
	*ret_bytes = o->bytes;
	return 0;
}

static void remote_free(struct source *s)
{
	remote_unref((struct remote *)s);
}

/* ---- opening ---- */

static int make_id(const struct store *s, const char *key, uint64_t bytes, int64_t modified_us,
                   struct hash128 *ret, struct err *err)
{
	cleanup_buf struct buf b = BUF_INIT(1u << 16);

	int rc = buf_printf(&b, err, "%s\n%s\n%llu\n%lld", s->label, key, (unsigned long long)bytes,
	                    (long long)modified_us);
	if (rc == 0)
		*ret = page_hash(0, b.data, b.len);
	return rc;
}

int store_reader_open(struct store_reader *r, size_t place, const char *key, uint64_t bytes,
                      int64_t modified_us, struct source **ret, struct err *err)
{
	struct store *store = r->stores[place];
	cleanup_source struct source *inner = NULL;

	int rc = store_open_object(store, key, bytes, &inner, err);
	if (rc < 0)
		return rc;
	if (!store->remote && r->options.n_stores == 1) {
		*ret = take_ptr(inner);
		return 0;
	}
	struct remote *o = calloc(1, sizeof(*o));
	char *name = strdup(key);
	if (!o || !name) {
		free(o);
		free(name);
		return err_set(err, ERR_NOMEM, 0, "no memory to open '%s'", key);
	}
	o->base = (struct source){
	        .pread = store->remote ? remote_pread : near_pread,
	        .size = remote_size,
	        .free = remote_free,
	        .name = name,
	        .pread_again = remote_again,
	        .expect = store->remote ? remote_expect : NULL,
	        .expect_bytes = store->remote ? remote_expect_bytes : NULL,
	        .remote = store->remote,
	};
	o->reader = r;
	o->place = place;
	o->inner = take_ptr(inner);
	o->refs = 1;
	o->run.last = NOTHING;
	for (unsigned i = 0; i < OTHER_RUNS; i++)
		o->others[i].last = NOTHING;
	rc = bytes != UINT64_MAX ? 0 : o->inner->size(o->inner, &bytes, err);
	rc = rc ? rc : make_id(store, key, bytes, modified_us, &o->id, err);
	if (rc < 0) {
		remote_unref(o);
		return rc;
	}
	o->bytes = bytes;
	o->n_chunks = (bytes + READER_CHUNK - 1) / READER_CHUNK;
	*ret = &o->base;
	return 0;
}

void store_reader_forget(struct store_reader *r, size_t place, const char *key, uint64_t bytes,
                         int64_t modified_us)
{
	struct source *s;

	if (!r->stores[place]->remote ||
	    store_reader_open(r, place, key, bytes, modified_us, &s, NULL) < 0)
		return;
	struct remote *o = (struct remote *)s;
	forget(o, 0, o->bytes);
	source_free(s);
}

int store_reader_new(const struct reader_options *options, struct store_reader **ret,
                     struct err *err)
{
	struct store_reader *r = calloc(1, sizeof(*r));

	if (r)
		r->stores = calloc(options->n_stores + 1, sizeof(*r->stores));
	if (!r || !r->stores) {
		free(r);
		return err_set(err, ERR_NOMEM, 0, "no memory to read an archive");
	}
	memcpy(r->stores, options->stores, options->n_stores * sizeof(*r->stores));
	r->options = *options;
	if (r->options.memory_bytes == 0)
		r->options.memory_bytes = MEMORY_DEFAULT;
	if (r->options.n_ahead == 0)
		r->options.n_ahead = AHEAD_DEFAULT;
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->loaded, NULL);
	pthread_cond_init(&r->more, NULL);
	*ret = r;
	return 0;
}

void store_reader_free(struct store_reader *r)
{
	if (!r)
		return;
	pthread_mutex_lock(&r->lock);
	r->stop = true;
	pthread_cond_broadcast(&r->more);
	pthread_mutex_unlock(&r->lock);
	for (size_t i = 0; i < r->n_threads; i++)
		pthread_join(r->threads[i], NULL);
	while (r->staging) {
		struct remote *o = r->staging;
		r->staging = o->next_staged;
		remote_unref(o);
	}
	while (r->pieces) {
		struct piece *p = r->pieces;
		if (p->of)
			remote_unref(p->of);
		unlink_piece(r, p);
		free_piece(p);
	}
	free(r->threads);
	free(r->stores);
	pthread_mutex_destroy(&r->lock);
	pthread_cond_destroy(&r->loaded);
	pthread_cond_destroy(&r->more);
	free(r);
}
