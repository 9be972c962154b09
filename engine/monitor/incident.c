/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/monitor/incident.h"

#include "engine/base/clock.h"
#include "engine/base/hash.h"
#include "engine/base/json.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define VERSION 1

struct incidents {
	struct incident_options options;
	struct incident *items; /* in the order in which they began */
	size_t n, cap;
	uint64_t lost, generation;
};

const char *severity_name(enum severity s)
{
	return s == SEVERITY_CRITICAL ? "critical" : "warning";
}

const char *channel_name(enum channel c)
{
	static const char *const names[N_CHANNELS] = {"email", "slack", "webhook"};

	return names[c];
}

int incidents_new(const struct incident_options *options, struct incidents **ret, struct err *err)
{
	struct incidents *s = calloc(1, sizeof(*s));

	if (!s)
		return err_set(err, ERR_NOMEM, 0, "no memory for incidents");
	s->options = *options;
	*ret = s;
	return 0;
}

void incidents_free(struct incidents *s)
{
	if (s)
		free(s->items);
	free(s);
}

/* ---- the list ---- */

static void drop(struct incidents *s, size_t i)
{
	memmove(&s->items[i], &s->items[i + 1], (s->n - i - 1) * sizeof(*s->items));
	s->n--;
}

/* Invariant (4).  False: there is no room. */
static bool make_room(struct incidents *s)
{
	if (s->n == INCIDENTS_MAX) {
		size_t i = 0;
		s->lost++;
		while (i < s->n && s->items[i].state != INCIDENT_RESOLVED)
			i++;
		if (i == s->n)
			return false;
		drop(s, i);
		s->generation++;
	}
	if (s->n == s->cap) {
		size_t cap = s->cap ? 2 * s->cap : 16;
		struct incident *more = realloc(s->items, cap * sizeof(*more));
		if (!more) {
			s->lost++;
			return false;
		}
		s->items = more;
		s->cap = cap;
	}
	return true;
}

static void copy_text(char *out, size_t size, const char *text)
{
	snprintf(out, size, "%s", text ? text : "");
	for (char *p = out; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = ' ';
}

/* Texts longer than ours are cut there, too: compared as they are kept. */
static bool is_same(const struct incident *i, const struct incident *key)
{
	return strcmp(i->alert, key->alert) == 0 && strcmp(i->database, key->database) == 0 &&
	       strcmp(i->place, key->place) == 0;
}

static struct incident *find_open(struct incidents *s, const struct incident *key)
{
	for (size_t i = 0; i < s->n; i++)
		if (s->items[i].state != INCIDENT_RESOLVED && is_same(&s->items[i], key))
			return &s->items[i];
	return NULL;
}

static struct incident *find_id(struct incidents *s, const char *id)
{
	for (size_t i = 0; i < s->n; i++)
		if (strcmp(s->items[i].id, id) == 0)
			return &s->items[i];
	return NULL;
}

/* ---- looks ---- */

static uint64_t hash_text(const char *text, uint64_t seed)
{
	return hash64(text, strlen(text) + 1, seed);
}

static void fire(struct incidents *s, struct incident *i, int64_t now_us)
{
	uint64_t id = hash_text(i->place, hash_text(i->database, hash_text(i->alert, 0)));

	i->state = INCIDENT_FIRING;
	i->fired_us = now_us;
	snprintf(i->id, sizeof(i->id), "%016" PRIx64,
	         hash64(&i->fired_us, sizeof(i->fired_us), id));
	s->generation++;
}

void incidents_add(struct incidents *s, const struct condition *c, int64_t now_us, int64_t mono_us)
{
	struct incident key = {0}, *i;

	copy_text(key.alert, sizeof(key.alert), c->alert);
	copy_text(key.database, sizeof(key.database), c->database);
	copy_text(key.place, sizeof(key.place), c->place);
	i = find_open(s, &key);
	if (c->follows && (!i || i->state == INCIDENT_PENDING))
		return;
	if (!i) {
		if (!make_room(s))
			return;
		key.began_us = now_us;
		key.began_mono_us = mono_us;
		key.severity = c->severity;
		i = &s->items[s->n++];
		*i = key;
	}
	i->seen_mono_us = mono_us;
	copy_text(i->text, sizeof(i->text), c->text);
	if (c->severity > i->severity && i->state == INCIDENT_FIRING) {
		for (int k = 0; k < N_CHANNELS; k++)
			i->told[k].fired = false;
		s->generation++;
	}
	if (c->severity > i->severity)
		i->severity = c->severity;
	if (i->state == INCIDENT_PENDING &&
	    (c->at_once || mono_us - i->began_mono_us >= s->options.for_us))
		fire(s, i, now_us);
}

static bool all_are_told(const struct incidents *s, const struct incident *i)
{
	for (int k = 0; k < N_CHANNELS; k++)
		if (s->options.channels[k] && !i->told[k].resolved)
			return false;
	return true;
}

static void end_unseen(struct incidents *s, int64_t now_us, int64_t mono_us)
{
	size_t kept = 0;

	for (size_t k = 0; k < s->n; k++) {
		struct incident *i = &s->items[k];
		bool seen = i->seen_mono_us == mono_us;
		if (i->state == INCIDENT_PENDING && !seen)
			continue;
		if (i->state == INCIDENT_FIRING && !seen &&
		    mono_us - i->seen_mono_us >= s->options.clear_us) {
			i->state = INCIDENT_RESOLVED;
			i->resolved_us = now_us > i->fired_us ? now_us : i->fired_us;
			s->generation++;
		}
		if (i->state == INCIDENT_RESOLVED && all_are_told(s, i)) {
			s->generation++;
			continue;
		}
		if (kept != k)
			s->items[kept] = *i;
		kept++;
	}
	s->n = kept;
}

void incidents_look(struct incidents *s, const struct condition *conditions, size_t n,
                    int64_t now_us, int64_t mono_us)
{
	for (size_t i = 0; i < n; i++)
		incidents_add(s, &conditions[i], now_us, mono_us);
	end_unseen(s, now_us, mono_us);
}

/* ---- telling ---- */

static bool is_due(const struct incidents *s, const struct incident *i, enum channel c,
                   int64_t mono_us, bool *ret_again)
{
	const struct told *t = &i->told[c];
	int64_t repeat_us = s->options.repeat_us;

	*ret_again = false;
	if (i->state == INCIDENT_PENDING || !s->options.channels[c])
		return false;
	if (i->state == INCIDENT_RESOLVED)
		return !t->resolved;
	if (!t->fired)
		return true;
	*ret_again = repeat_us > 0 && mono_us - t->at_mono_us >= repeat_us;
	return *ret_again;
}

size_t incidents_due(const struct incidents *s, enum channel c, int64_t mono_us,
                     struct telling *ret, size_t max)
{
	size_t n = 0;
	bool again;

	for (size_t i = 0; i < s->n && n < max; i++)
		if (is_due(s, &s->items[i], c, mono_us, &again))
			ret[n++] = (struct telling){.incident = s->items[i], .again = again};
	return n;
}

void incidents_told(struct incidents *s, enum channel c, const struct telling *tellings, size_t n,
                    int64_t now_us, int64_t mono_us)
{
	for (size_t k = 0; k < n; k++) {
		const struct incident *was = &tellings[k].incident;
		struct incident *i = find_id(s, was->id);
		if (!i)
			continue;
		/* It may have become critical meanwhile, or have ended: that is still to be told. */
		i->told[c].fired = i->severity == was->severity;
		i->told[c].resolved = was->state == INCIDENT_RESOLVED;
		i->told[c].at_us = now_us;
		i->told[c].at_mono_us = mono_us;
	}
	s->generation += n != 0;
}

/* ---- state ---- */

void incidents_count(const struct incidents *s, struct incident_counts *ret)
{
	*ret = (struct incident_counts){.lost = s->lost};
	for (size_t i = 0; i < s->n; i++) {
		ret->pending += s->items[i].state == INCIDENT_PENDING;
		ret->firing += s->items[i].state == INCIDENT_FIRING;
		ret->resolved += s->items[i].state == INCIDENT_RESOLVED;
	}
}

const struct incident *incidents_firing(const struct incidents *s, size_t i)
{
	for (size_t k = 0; k < s->n; k++)
		if (s->items[k].state == INCIDENT_FIRING && i-- == 0)
			return &s->items[k];
	return NULL;
}

uint64_t incidents_generation(const struct incidents *s)
{
	return s->generation;
}

/* ---- as text ---- */

static json_t *json_time(int64_t us)
{
	char text[TIME_STR_MAX];

	if (us == 0)
		return json_null();
	time_format(us, text);
	return json_string(text);
}

static json_t *told_json(const struct incident *i)
{
	json_t *all = json_object();

	for (int k = 0; k < N_CHANNELS; k++)
		if (i->told[k].at_us)
			json_object_set_new(all, channel_name((enum channel)k),
			                    json_pack("{sb sb so}", "fired", (int)i->told[k].fired,
			                              "resolved", (int)i->told[k].resolved, "at",
			                              json_time(i->told[k].at_us)));
	return all;
}

static json_t *incident_json(const struct incident *i)
{
	return json_pack("{ss so so so ss so so so so so}", "id", i->id, "alert",
	                 json_text(i->alert), "database", json_text(i->database), "place",
	                 json_text(i->place), "severity", severity_name(i->severity), "text",
	                 json_text(i->text), "began", json_time(i->began_us), "fired",
	                 json_time(i->fired_us), "resolved", json_time(i->resolved_us), "told",
	                 told_json(i));
}

int incidents_save(const struct incidents *s, char **ret, size_t *ret_len, struct err *err)
{
	json_t *list = json_array(), *o;
	bool whole = list != NULL;

	for (size_t i = 0; i < s->n && whole; i++)
		if (s->items[i].state != INCIDENT_PENDING)
			whole = json_array_append_new(list, incident_json(&s->items[i])) == 0;
	o = json_pack("{si so}", "version", VERSION, "incidents", list);
	*ret = whole && o ? json_dumps(o, JSON_INDENT(1)) : NULL;
	json_decref(o);
	if (!*ret)
		return err_set(err, ERR_NOMEM, 0, "no memory for incidents");
	*ret_len = strlen(*ret);
	return 0;
}

static bool take_text(const json_t *o, const char *key, char *out, size_t size)
{
	const char *text = json_string_value(json_object_get(o, key));

	if (!text || strlen(text) >= size)
		return false;
	copy_text(out, size, text);
	return true;
}

/* Or null. */
static bool take_time(const json_t *o, const char *key, int64_t *ret)
{
	const json_t *v = json_object_get(o, key);

	*ret = 0;
	return json_is_null(v) ||
	       (json_is_string(v) &&
	        time_parse(json_string_value(v), 0, TIME_ZONE_UTC, ret, NULL, NULL) == 0);
}

/* How long ago by the wall clock, as far as that is to be believed. */
static int64_t ago_us(int64_t then_us, int64_t now_us)
{
	int64_t ago = then_us < now_us ? now_us - then_us : 0;
	int64_t year = 366 * 86400 * US_PER_SECOND;

	return ago < year ? ago : year;
}

static bool take_told(const json_t *o, struct incident *i, int64_t now_us, int64_t mono_us)
{
	const json_t *all = json_object_get(o, "told");

	for (int k = 0; k < N_CHANNELS && json_is_object(all); k++) {
		const json_t *t = json_object_get(all, channel_name((enum channel)k));
		struct told *told = &i->told[k];
		if (!t)
			continue;
		told->fired = json_is_true(json_object_get(t, "fired"));
		told->resolved = json_is_true(json_object_get(t, "resolved"));
		if (!take_time(t, "at", &told->at_us))
			return false;
		told->at_mono_us = mono_us - ago_us(told->at_us, now_us);
	}
	return json_is_object(all);
}

static bool take_incident(const json_t *o, struct incident *i, int64_t now_us, int64_t mono_us)
{
	char severity[16];

	*i = (struct incident){.seen_mono_us = mono_us, .began_mono_us = mono_us};
	if (!take_text(o, "id", i->id, sizeof(i->id)) || strlen(i->id) != sizeof(i->id) - 1 ||
	    strspn(i->id, "0123456789abcdef") != sizeof(i->id) - 1 ||
	    !take_text(o, "alert", i->alert, sizeof(i->alert)) || !i->alert[0] ||
	    !take_text(o, "database", i->database, sizeof(i->database)) ||
	    !take_text(o, "place", i->place, sizeof(i->place)) ||
	    !take_text(o, "text", i->text, sizeof(i->text)) ||
	    !take_text(o, "severity", severity, sizeof(severity)) ||
	    !take_time(o, "began", &i->began_us) || !take_time(o, "fired", &i->fired_us) ||
	    !take_time(o, "resolved", &i->resolved_us) || !i->began_us || !i->fired_us)
		return false;
	i->severity = strcmp(severity, "critical") == 0 ? SEVERITY_CRITICAL : SEVERITY_WARNING;
	i->state = i->resolved_us ? INCIDENT_RESOLVED : INCIDENT_FIRING;
	return take_told(o, i, now_us, mono_us);
}

int incidents_load(struct incidents *s, const char *text, size_t len, int64_t now_us,
                   int64_t mono_us, struct err *err)
{
	json_t *o = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL), *item;
	json_t *list = json_object_get(o, "incidents");
	json_int_t version = json_integer_value(json_object_get(o, "version"));
	bool good = json_is_array(list) && version == VERSION;
	struct incident one;
	size_t i;

	json_array_foreach(list, i, item)
	{
		good = good && take_incident(item, &one, now_us, mono_us) && !find_id(s, one.id) &&
		       (one.state == INCIDENT_RESOLVED || !find_open(s, &one)) &&
		       s->n < INCIDENTS_MAX && make_room(s);
		if (!good)
			break;
		s->items[s->n++] = one;
	}
	json_decref(o);
	if (good)
		return 0;
	s->n = 0;
	if (version > VERSION)
		return err_set(err, ERR_VERSION, 0, "incidents: written by a newer asof");
	return err_set(err, ERR_DAMAGED, 0, "incidents: this is no list of them");
}
