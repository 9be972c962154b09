/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/store/keys.h"

#include "engine/base/clock.h"
#include "engine/base/command.h"
#include "engine/base/file.h"
#include "engine/base/log.h"
#include "engine/store/trial.h"

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PUBLIC_PREFIX "asofpub1:"
#define SECRET_PREFIX "asofkey1:"
#define IDENTITY_MAX 8192
#define KEY_OBJECT_MAX (256u << 10)
#define KEYS_MAX 10000u
#define RECIPIENTS_MAX 256u
#define TRIALS ".asof-" /* keys of what somebody tries a place out with begin so */
#define BOX_BYTES (crypto_box_NONCEBYTES + KEY_BYTES + crypto_box_MACBYTES)
#define MAC_BYTES 32
#define LOOK_US (600 * US_PER_SECOND)
#define SETTLE_LOOKS 20 /* in the time that a new key has to stand */
#define B64 sodium_base64_VARIANT_ORIGINAL

_Static_assert(crypto_box_PUBLICKEYBYTES == KEY_BYTES && crypto_box_SECRETKEYBYTES == KEY_BYTES,
               "keys of X25519");

static int start(struct err *err)
{
	return sodium_init() < 0
	               ? err_set(err, ERR_IO, 0, "libsodium does not start (random numbers?)")
	               : 0;
}

/* ---- texts ---- */

static void format_key(const char *prefix, const uint8_t key[KEY_BYTES], char out[KEY_TEXT_MAX])
{
	size_t n = strlen(prefix);

	memcpy(out, prefix, n);
	sodium_bin2base64(out + n, KEY_TEXT_MAX - n, key, KEY_BYTES, B64);
}

static bool from_base64(const char *text, size_t len, uint8_t *out, size_t out_bytes)
{
	size_t n = 0;

	return sodium_base642bin(out, out_bytes, text, len, NULL, &n, NULL, B64) == 0 &&
	       n == out_bytes;
}

static bool parse_key(const char *prefix, const char *text, size_t len, uint8_t ret[KEY_BYTES])
{
	size_t n = strlen(prefix);

	return len > n && strncmp(text, prefix, n) == 0 &&
	       from_base64(text + n, len - n, ret, KEY_BYTES);
}

void key_public_format(const uint8_t key[KEY_BYTES], char out[KEY_TEXT_MAX])
{
	format_key(PUBLIC_PREFIX, key, out);
}

int key_public_parse(const char *text, uint8_t ret[KEY_BYTES], struct err *err)
{
	return parse_key(PUBLIC_PREFIX, text, strlen(text), ret)
	               ? 0
	               : err_set(err, ERR_USAGE, 0,
	                         "'%.80s' is no public key (they begin with " PUBLIC_PREFIX
	                         ", see asof key show)",
	                         strncmp(text, SECRET_PREFIX, strlen(SECRET_PREFIX)) == 0
	                                 ? "asofkey1:…"
	                                 : text);
}

/* The next line, and its first word.  False at the end. */
struct line {
	const char *text; /* all of it */
	const char *rest; /* behind the first word and a blank */
	size_t word_len, rest_len;
};
static bool next_line(const char **p, const char *end, struct line *ret)
{
	if (*p >= end)
		return false;
	const char *nl = memchr(*p, '\n', (size_t)(end - *p));
	const char *stop = nl ? nl : end;
	const char *blank = memchr(*p, ' ', (size_t)(stop - *p));

	ret->text = *p;
	ret->word_len = (size_t)((blank ? blank : stop) - *p);
	ret->rest = blank ? blank + 1 : stop;
	ret->rest_len = (size_t)(stop - ret->rest);
	*p = nl ? nl + 1 : end;
	return true;
}

static bool is_word(const struct line *l, const char *word)
{
	return l->word_len == strlen(word) && memcmp(l->text, word, l->word_len) == 0;
}

/* ---- identities ---- */

void key_identity_release(struct key_identity *i)
{
	sodium_memzero(i, sizeof(*i));
}

static int parse_identity(const char *text, size_t len, const char *what, struct key_identity *ret,
                          struct err *err)
{
	const char *p = text, *end = text + len;
	struct line l;
	bool found = false;

	memset(ret, 0, sizeof(*ret));
	while (next_line(&p, end, &l)) {
		if (l.word_len == 0 || l.text[0] == '#')
			continue;
		bool ok = false;
		if (is_word(&l, "secret") && !found)
			ok = found = parse_key(SECRET_PREFIX, l.rest, l.rest_len, ret->secret);
		else if (is_word(&l, "trust") && ret->n_trust < KEY_TRUST_MAX)
			ok = parse_key(PUBLIC_PREFIX, l.rest, l.rest_len,
			               ret->trust[ret->n_trust++]);
		if (!ok)
			break; /* the line is not repeated: it may hold a secret */
	}
	if (p < end || !found || crypto_scalarmult_base(ret->public, ret->secret) != 0) {
		key_identity_release(ret);
		return err_set(err, ERR_USAGE, 0,
		               "%s: is no identity of asof (make one with asof key generate FILE)",
		               what);
	}
	return 0;
}

static int read_command(const char *command, char text[IDENTITY_MAX], size_t *ret_len,
                        struct err *err)
{
	cleanup_command struct command c = COMMAND_INIT;
	const char *const argv[] = {"sh", "-c", command, NULL};
	ssize_t n = 1;

	*ret_len = 0;
	int rc = command_start(&c, argv, -1, err);
	if (rc < 0)
		return rc;
	while (n > 0 && *ret_len < IDENTITY_MAX) {
		n = read(c.out_fd, text + *ret_len, IDENTITY_MAX - *ret_len);
		*ret_len += n > 0 ? (size_t)n : 0;
	}
	rc = command_finish(&c, ERR_DENIED, err);
	return rc < 0 ? err_wrap(err, rc, "command for the key") : 0;
}

int key_identity_load(const char *file, const char *command, struct key_identity *ret,
                      struct err *err)
{
	char text[IDENTITY_MAX], what[600];
	cleanup_free char *read = NULL;
	size_t len = 0;

	int rc = start(err);
	if (rc < 0)
		return rc;
	if (command) {
		snprintf(what, sizeof(what), "what the command for the key printed");
		rc = read_command(command, text, &len, err);
	} else {
		snprintf(what, sizeof(what), "key file '%.500s'", file);
		rc = file_get(AT_FDCWD, file, sizeof(text), &read, &len, err);
		if (rc < 0)
			err_wrap(err, rc, "key file");
	}
	if (rc == 0)
		rc = parse_identity(read ? read : text, len, what, ret, err);
	sodium_memzero(text, sizeof(text));
	if (read)
		sodium_memzero(read, len);
	return rc;
}

int key_identity_make(const char *file, struct key_identity *ret, struct err *err)
{
	char text[IDENTITY_MAX], public[KEY_TEXT_MAX], secret[KEY_TEXT_MAX], now[TIME_STR_MAX];
	cleanup_fd int fd = -1;

	int rc = start(err);
	if (rc == 0)
		rc = file_open(AT_FDCWD, file, O_WRONLY | O_CREAT | O_EXCL, 0600, &fd, err);
	if (rc < 0)
		return rc;
	memset(ret, 0, sizeof(*ret));
	crypto_box_keypair(ret->public, ret->secret);
	format_key(PUBLIC_PREFIX, ret->public, public);
	format_key(SECRET_PREFIX, ret->secret, secret);
	time_format(clock_now_us() / 1000000 * 1000000, now);
	int n = snprintf(text, sizeof(text), "# asof identity, made %s\n# public %s\nsecret %s\n",
	                 now, public, secret);
	rc = file_pwrite(fd, text, (size_t)n, 0, file, err);
	if (rc == 0)
		rc = file_datasync(fd, file, err);
	sodium_memzero(text, sizeof(text));
	sodium_memzero(secret, sizeof(secret));
	if (rc < 0)
		unlink(file);
	return rc;
}

/* ---- the ring ---- */

struct key_ring {
	struct store *store; /* borrowed */
	struct key_identity identity;
	pthread_mutex_t lock;
	struct data_key *keys; /* by number */
	size_t n;
	uint8_t (*recipients)[KEY_BYTES]; /* of the newest */
	size_t n_recipients;
	int64_t looked_us;   /* monotonic: for newer ones */
	signed char creates; /* of the store: 1 yes, -1 no, 0 not known yet */
	bool settled;        /* (4) of keys.h */
};

static void key_name(uint32_t number, char out[32])
{
	snprintf(out, 32, KEYS_FOLDER "%08u.key", number);
}

static void id_of(const uint8_t key[KEY_BYTES], uint8_t out[KEY_ID_BYTES])
{
	static const char what[] = "asof data key";

	crypto_generichash(out, KEY_ID_BYTES, (const uint8_t *)what, sizeof(what) - 1, key,
	                   KEY_BYTES);
}

static bool believes(const struct key_identity *i, const uint8_t by[KEY_BYTES])
{
	bool yes = sodium_memcmp(by, i->public, KEY_BYTES) == 0;

	for (size_t k = 0; k < i->n_trust; k++)
		yes = yes || sodium_memcmp(by, i->trust[k], KEY_BYTES) == 0;
	return yes;
}

struct parsed_key {
	struct data_key key;
	uint8_t mac[MAC_BYTES], by[KEY_BYTES], box[BOX_BYTES];
	bool mine; /* there is a box for us */
	size_t maced_bytes;
	uint8_t recipients[RECIPIENTS_MAX][KEY_BYTES];
	size_t n_recipients;
};

static bool parse_hex(const struct line *l, uint8_t *out, size_t bytes)
{
	size_t n = 0;

	return l->rest_len == 2 * bytes &&
	       sodium_hex2bin(out, bytes, l->rest, l->rest_len, NULL, &n, NULL) == 0 && n == bytes;
}

static bool parse_number(const char *text, uint32_t *ret)
{
	char *end;
	unsigned long v = strtoul(text, &end, 10);

	*ret = (uint32_t)v;
	return end != text && !*end && v > 0 && v <= KEYS_MAX;
}

static bool parse_recipient(const struct line *l, const struct key_identity *i,
                            struct parsed_key *ret)
{
	const char *blank = memchr(l->rest, ' ', l->rest_len);
	uint8_t box[BOX_BYTES];

	if (!blank || ret->n_recipients == RECIPIENTS_MAX)
		return false;
	size_t len = (size_t)(blank - l->rest);
	uint8_t *who = ret->recipients[ret->n_recipients];
	if (!parse_key(PUBLIC_PREFIX, l->rest, len, who) ||
	    !from_base64(blank + 1, l->rest_len - len - 1, box, sizeof(box)))
		return false;
	ret->n_recipients++;
	if (memcmp(who, i->public, KEY_BYTES) == 0) {
		memcpy(ret->box, box, sizeof(box));
		ret->mine = true;
	}
	return true;
}

/* One line of each kind, in their order; recipients one or more. */
static bool parse_lines(const char *text, size_t len, const struct key_identity *i,
                        struct parsed_key *ret)
{
	static const char *const words[] = {"asof-data-key", "number", "id", "made", "by",
	                                    "recipient",     "mac"};
	const char *p = text, *end = text + len;
	struct line l;
	size_t at = 0;

	memset(ret, 0, sizeof(*ret));
	while (next_line(&p, end, &l)) {
		char rest[64];
		snprintf(rest, sizeof(rest), "%.*s", (int)(l.rest_len < 63 ? l.rest_len : 63),
		         l.rest);
		if (at == 5 && ret->n_recipients && is_word(&l, "mac"))
			at = 6;
		if (at > 6 || !is_word(&l, words[at]))
			return false;
		bool ok = at == 0   ? strcmp(rest, "1") == 0
		          : at == 1 ? parse_number(rest, &ret->key.number)
		          : at == 2 ? parse_hex(&l, ret->key.id, KEY_ID_BYTES)
		          : at == 3 ? time_parse(rest, 0, TIME_ZONE_UTC, &ret->key.made_us, NULL,
		                                 NULL) == 0
		          : at == 4 ? parse_key(PUBLIC_PREFIX, l.rest, l.rest_len, ret->by)
		          : at == 5 ? parse_recipient(&l, i, ret)
		                    : parse_hex(&l, ret->mac, MAC_BYTES);
		if (!ok)
			return false;
		if (at == 6)
			ret->maced_bytes = (size_t)(l.text - text);
		at += at != 5;
	}
	return at == 7;
}

static int open_key(const char *name, const struct buf *b, const struct key_identity *i,
                    uint32_t number, struct parsed_key *ret, struct err *err)
{
	uint8_t id[KEY_ID_BYTES], mac[MAC_BYTES];
	char by[KEY_TEXT_MAX], mine[KEY_TEXT_MAX];

	if (!parse_lines((const char *)b->data, b->len, i, ret) || ret->key.number != number)
		return err_set(err, ERR_DAMAGED, 0, "'%s' is no key object of asof", name);
	key_public_format(ret->by, by);
	key_public_format(i->public, mine);
	if (!ret->mine)
		return err_set(
		        err, ERR_DENIED, 0,
		        "'%s' is not for %s (somebody who reads this archive may add it: asof key "
		        "add)",
		        name, mine);
	if (!believes(i, ret->by))
		return err_set(
		        err, ERR_DENIED, 0,
		        "'%s' was made by %s, whom this identity does not trust (if you do, add "
		        "the line 'trust %s' to its file)",
		        name, by, by);
	if (crypto_box_open_easy(ret->key.key, ret->box + crypto_box_NONCEBYTES,
	                         BOX_BYTES - crypto_box_NONCEBYTES, ret->box, ret->by,
	                         i->secret) != 0)
		return err_set(err, ERR_DAMAGED, 0, "'%s' is not what %s boxed", name, by);
	id_of(ret->key.key, id);
	crypto_generichash(mac, MAC_BYTES, b->data, ret->maced_bytes, ret->key.key, KEY_BYTES);
	if (sodium_memcmp(id, ret->key.id, KEY_ID_BYTES) != 0 ||
	    sodium_memcmp(mac, ret->mac, MAC_BYTES) != 0)
		return err_set(err, ERR_DAMAGED, 0, "'%s' was altered", name);
	return 0;
}

/* Under r->lock. */
static int take_in(struct key_ring *r, const struct parsed_key *k, struct err *err)
{
	struct data_key *keys = reallocarray(r->keys, r->n + 1, sizeof(*keys));

	if (!keys)
		return err_set(err, ERR_NOMEM, 0, "no memory for keys");
	r->keys = keys;
	r->keys[r->n++] = k->key;
	void *who = malloc(k->n_recipients * KEY_BYTES);
	if (!who)
		return err_set(err, ERR_NOMEM, 0, "no memory for keys");
	memcpy(who, k->recipients, k->n_recipients * KEY_BYTES);
	free(r->recipients);
	r->recipients = who;
	r->n_recipients = k->n_recipients;
	return 0;
}

/* Those behind the ones that are known.  A key that is not for us is an error only if it is the
 * first, or is asked for. */
static int read_more(struct key_ring *r, struct err *err)
{
	cleanup_free struct parsed_key *k = malloc(sizeof(*k));
	int rc = k ? 0 : err_set(err, ERR_NOMEM, 0, "no memory for keys");

	while (rc == 0 && r->n < KEYS_MAX) {
		cleanup_buf struct buf b = BUF_INIT(KEY_OBJECT_MAX);
		uint32_t number = (uint32_t)r->n + 1;
		struct err why = ERR_INIT;
		char name[32];

		key_name(number, name);
		rc = store_get(r->store, name, KEY_OBJECT_MAX, &b, &why);
		if (err_kind_of(rc) == ERR_NOT_FOUND) {
			rc = 0;
			break;
		}
		if (rc == 0)
			rc = open_key(name, &b, &r->identity, number, k, &why);
		if (rc == 0)
			rc = take_in(r, k, &why);
		if (rc < 0)
			rc = err_copy(err, &why);
	}
	if (k)
		sodium_memzero(k, sizeof(*k));
	return rc;
}

static int box_for(const struct key_identity *i, const struct data_key *k,
                   const uint8_t who[KEY_BYTES], struct buf *text, struct err *err)
{
	uint8_t box[BOX_BYTES];
	char b64[sodium_base64_ENCODED_LEN(BOX_BYTES, B64)], name[KEY_TEXT_MAX];

	randombytes_buf(box, crypto_box_NONCEBYTES);
	key_public_format(who, name);
	if (crypto_box_easy(box + crypto_box_NONCEBYTES, k->key, KEY_BYTES, box, who, i->secret) !=
	    0)
		return err_set(err, ERR_USAGE, 0, "%s is no key that something can be boxed for",
		               name);
	sodium_bin2base64(b64, sizeof(b64), box, sizeof(box), B64);
	return buf_printf(text, err, "recipient %s %s\n", name, b64);
}

/* Puts the object of one data key. */
static int put_key(struct key_ring *r, const struct data_key *k, const uint8_t (*who)[KEY_BYTES],
                   size_t n_who, unsigned flags, struct err *err)
{
	cleanup_buf struct buf text = BUF_INIT(KEY_OBJECT_MAX);
	char id[2 * KEY_ID_BYTES + 1], mac_text[2 * MAC_BYTES + 1], by[KEY_TEXT_MAX];
	char made[TIME_STR_MAX], name[32];
	uint8_t mac[MAC_BYTES];

	sodium_bin2hex(id, sizeof(id), k->id, KEY_ID_BYTES);
	key_public_format(r->identity.public, by);
	time_format(k->made_us, made);
	key_name(k->number, name);
	int rc = buf_printf(&text, err, "asof-data-key 1\nnumber %u\nid %s\nmade %s\nby %s\n",
	                    k->number, id, made, by);
	for (size_t i = 0; i < n_who && rc == 0; i++)
		rc = box_for(&r->identity, k, who[i], &text, err);
	if (rc < 0)
		return rc;
	crypto_generichash(mac, MAC_BYTES, text.data, text.len, k->key, KEY_BYTES);
	sodium_bin2hex(mac_text, sizeof(mac_text), mac, MAC_BYTES);
	rc = buf_printf(&text, err, "mac %s\n", mac_text);
	return rc < 0 ? rc : store_put_bytes(r->store, name, text.data, text.len, flags, err);
}

/* Whether a key that is there already stops the put of another, found out with an object that nobody
 * else uses. */
static int find_creates(struct key_ring *r, struct err *err)
{
	char key[64];
	uint64_t dice;
	bool creates;

	if (r->creates != 0)
		return 0;
	randombytes_buf(&dice, sizeof(dice));
	snprintf(key, sizeof(key), TRIALS "trial-%016" PRIx64, dice);
	int rc = store_find_creates(r->store, key, &creates, err);
	if (rc == 0)
		r->creates = creates ? 1 : -1;
	return rc;
}

/* Looks, too, so that what ends the store's requests ends this. */
static int wait_for_others(struct key_ring *r, uint32_t number, struct err *err)
{
	int64_t wait_us = r->store->settle_us ? r->store->settle_us : KEY_SETTLE_US;
	char name[32];

	key_name(number, name);
	log_info("keys",
	         "no conditional writes there: waiting for another's key to show "
	         "wait_s=%lld to=%s",
	         (long long)(wait_us / US_PER_SECOND), r->store->label);
	for (int i = 0; i < SETTLE_LOOKS; i++) {
		cleanup_buf struct buf b = BUF_INIT(KEY_OBJECT_MAX);
		clock_sleep_us(wait_us / SETTLE_LOOKS);
		int rc = store_get(r->store, name, KEY_OBJECT_MAX, &b, err);
		if (err_kind_of(rc) == ERR_CANCELLED)
			return rc;
	}
	return 0;
}

/* The newest key as it lies there now. */
static int read_newest_again(struct key_ring *r, struct err *err)
{
	struct data_key had = r->keys[r->n - 1];
	size_t n = r->n--;

	int rc = read_more(r, err);
	if (rc == 0 && r->n < n)
		rc = err_set(err, ERR_UNAVAILABLE, 0, "the new key is not there yet (try again)");
	if (rc < 0) {
		r->keys[n - 1] = had;
		r->n = n;
	}
	sodium_memzero(&had, sizeof(had));
	return rc;
}

/* A new data key; another that was made at the same time counts as well as ours, or instead. */
static int make_key(struct key_ring *r, const uint8_t (*who)[KEY_BYTES], size_t n_who,
                    struct err *err)
{
	struct data_key k = {.number = (uint32_t)r->n + 1,
	                     .made_us = clock_now_us() / 1000000 * 1000000};
	struct err why = ERR_INIT;

	int rc = find_creates(r, err);
	if (rc < 0)
		return rc;
	randombytes_buf(k.key, KEY_BYTES);
	id_of(k.key, k.id);
	rc = put_key(r, &k, who, n_who, r->creates > 0 ? STORE_CREATE : 0, &why);
	sodium_memzero(&k, sizeof(k));
	if (rc < 0 && why.kind != ERR_EXISTS)
		return err_copy(err, &why);
	if (r->creates < 0 && (rc = wait_for_others(r, k.number, err)) < 0)
		return rc;
	size_t before = r->n;
	rc = read_more(r, err);
	if (rc == 0 && r->n == before)
		rc = err_set(err, ERR_UNAVAILABLE, 0, "the new key is not there yet (try again)");
	r->settled = rc == 0;
	return rc;
}

/* Whether somebody may just now be making the key that is the newest; by their clock. */
static bool is_young(struct key_ring *r)
{
	int64_t age_us = clock_now_us() - r->keys[r->n - 1].made_us;

	return llabs(age_us) < KEY_SETTLE_US + US_PER_SECOND;
}

int key_ring_settle(struct key_ring *r, struct err *err)
{
	uint32_t number;
	int rc = 0;

	{
		LOCK_SCOPE(&r->lock);
		if (r->settled || !is_young(r)) {
			r->settled = true;
			return 0;
		}
		if ((rc = find_creates(r, err)) < 0)
			return rc;
		if ((r->settled = r->creates > 0))
			return 0;
		number = (uint32_t)r->n;
	}
	if ((rc = wait_for_others(r, number, err)) < 0)
		return rc;
	LOCK_SCOPE(&r->lock);
	rc = read_newest_again(r, err);
	r->settled = rc == 0;
	return rc;
}

/* What somebody tries the place out with is none of what it holds. */
static int list_any(void *ctx, const struct store_entry *e, struct err *err)
{
	if (strncmp(e->key, TRIALS, strlen(TRIALS)) == 0)
		return 0;
	snprintf(ctx, 200, "%.199s", e->key);
	return err_set(err, ERR_EXISTS, 0, "there is something");
}

/* Keys are made where there is nothing yet: plain objects stay what they are. */
static int make_first(struct key_ring *r, struct err *err)
{
	struct err why = ERR_INIT;
	char found[200] = "";

	int rc = store_list(r->store, "", NULL, true, list_any, found, &why);
	if (rc < 0 && why.kind != ERR_EXISTS && why.kind != ERR_NOT_FOUND)
		return err_copy(err, &why);
	/* Others begin just now? */
	if (found[0] && ((rc = read_more(r, err)) < 0 || r->n))
		return rc;
	if (found[0])
		return err_set(
		        err, ERR_REFUSED, 0,
		        "%s holds objects that are not encrypted ('%.100s'): a key was given "
		        "(name an empty place, or none)",
		        r->store->label, found);
	return make_key(r, (const uint8_t(*)[KEY_BYTES])r->identity.public, 1, err);
}

int key_ring_open(struct store *plain, const struct key_identity *i, bool create,
                  struct key_ring **ret, struct err *err)
{
	cleanup_key_ring struct key_ring *r = calloc(1, sizeof(*r));

	if (!r)
		return err_set(err, ERR_NOMEM, 0, "no memory for keys");
	pthread_mutex_init(&r->lock, NULL);
	r->store = plain;
	r->identity = *i;
	int rc = start(err);
	if (rc == 0)
		rc = read_more(r, err);
	if (rc == 0 && r->n == 0)
		rc = create ? make_first(r, err)
		            : err_set(err, ERR_NOT_FOUND, 0, "%s has no keys: it is not encrypted",
		                      plain->label);
	r->looked_us = clock_mono_us();
	if (rc == 0)
		*ret = take_ptr(r);
	return rc;
}

void key_ring_free(struct key_ring *r)
{
	if (!r)
		return;
	if (r->keys)
		sodium_memzero(r->keys, r->n * sizeof(*r->keys));
	key_identity_release(&r->identity);
	pthread_mutex_destroy(&r->lock);
	free(r->keys);
	free(r->recipients);
	free(r);
}

void key_ring_newest(struct key_ring *r, struct data_key *ret)
{
	LOCK_SCOPE(&r->lock);
	int64_t now_us = clock_mono_us();

	if (now_us - r->looked_us > LOOK_US) {
		r->looked_us = now_us;
		(void)!read_more(r, NULL); /* those that are known still seal */
	}
	*ret = r->keys[r->n - 1];
}

int key_ring_find(struct key_ring *r, const uint8_t id[KEY_ID_BYTES], struct data_key *ret,
                  struct err *err)
{
	LOCK_SCOPE(&r->lock);

	for (int looked = 0;; looked++) {
		for (size_t i = 0; i < r->n; i++)
			if (memcmp(r->keys[i].id, id, KEY_ID_BYTES) == 0) {
				*ret = r->keys[i];
				return 0;
			}
		if (looked)
			return err_set(err, ERR_DAMAGED, 0,
			               "is sealed with a key that %s does not have",
			               r->store->label);
		int rc = read_more(r, err);
		if (rc < 0)
			return rc;
	}
}

size_t key_ring_size(struct key_ring *r)
{
	LOCK_SCOPE(&r->lock);
	return r->n;
}

size_t key_ring_recipients(struct key_ring *r, uint8_t (**ret)[KEY_BYTES])
{
	LOCK_SCOPE(&r->lock);
	*ret = r->recipients;
	return r->n_recipients;
}

static size_t find_recipient(const struct key_ring *r, const uint8_t public[KEY_BYTES])
{
	size_t i = 0;

	while (i < r->n_recipients && memcmp(r->recipients[i], public, KEY_BYTES) != 0)
		i++;
	return i;
}

/* All data keys, boxed anew for `who`. */
static int put_all(struct key_ring *r, const uint8_t (*who)[KEY_BYTES], size_t n_who,
                   struct err *err)
{
	int rc = 0;

	for (size_t i = 0; i < r->n && rc == 0; i++)
		rc = put_key(r, &r->keys[i], who, n_who, 0, err);
	return rc;
}

static void set_recipients(struct key_ring *r, void *who, size_t n)
{
	free(r->recipients);
	r->recipients = who;
	r->n_recipients = n;
}

int key_ring_add(struct key_ring *r, const uint8_t public[KEY_BYTES], struct err *err)
{
	LOCK_SCOPE(&r->lock);
	char text[KEY_TEXT_MAX];

	key_public_format(public, text);
	if (find_recipient(r, public) < r->n_recipients)
		return err_set(err, ERR_EXISTS, 0, "%s is a recipient already", text);
	if (r->n_recipients == RECIPIENTS_MAX)
		return err_set(err, ERR_REFUSED, 0, "there are %u recipients, no more can be added",
		               RECIPIENTS_MAX);
	uint8_t(*who)[KEY_BYTES] = malloc((r->n_recipients + 1) * KEY_BYTES);
	if (!who)
		return err_set(err, ERR_NOMEM, 0, "no memory for keys");
	memcpy(who, r->recipients, r->n_recipients * KEY_BYTES);
	memcpy(who[r->n_recipients], public, KEY_BYTES);
	int rc = put_all(r, (const uint8_t(*)[KEY_BYTES])who, r->n_recipients + 1, err);
	if (rc < 0)
		free(who);
	else
		set_recipients(r, who, r->n_recipients + 1);
	return rc;
}

int key_ring_remove(struct key_ring *r, const uint8_t public[KEY_BYTES], struct err *err)
{
	LOCK_SCOPE(&r->lock);
	size_t at = find_recipient(r, public);
	char text[KEY_TEXT_MAX];

	key_public_format(public, text);
	if (at == r->n_recipients)
		return err_set(err, ERR_NOT_FOUND, 0, "%s is no recipient", text);
	if (memcmp(public, r->identity.public, KEY_BYTES) == 0)
		return err_set(
		        err, ERR_REFUSED, 0,
		        "%s is the identity that does this (another recipient can take it away)",
		        text);
	memmove(r->recipients[at], r->recipients[at + 1], (r->n_recipients - at - 1) * KEY_BYTES);
	r->n_recipients--;
	cleanup_free void *who = malloc(r->n_recipients * KEY_BYTES);
	if (!who)
		return err_set(err, ERR_NOMEM, 0, "no memory for keys");
	memcpy(who, r->recipients, r->n_recipients * KEY_BYTES);
	/* The new one first: what is sealed from now on is out of its reach, whatever follows. */
	size_t n = r->n_recipients;
	int rc = make_key(r, who, n, err);
	return rc < 0 ? rc : put_all(r, who, n, err);
}

int key_ring_rotate(struct key_ring *r, struct err *err)
{
	LOCK_SCOPE(&r->lock);
	cleanup_free void *who = malloc(r->n_recipients * KEY_BYTES);

	if (!who)
		return err_set(err, ERR_NOMEM, 0, "no memory for keys");
	memcpy(who, r->recipients, r->n_recipients * KEY_BYTES);
	return make_key(r, who, r->n_recipients, err);
}
