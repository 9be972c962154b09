/* SPDX-License-Identifier: Apache-2.0 */
/* alerts: who is told of trouble, and how. */
#include "engine/config/keys_i.h"

#include "engine/monitor/message.h"
#include "engine/monitor/send.h"

#include <limits.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

/* ---- reading ---- */

bool value_url(struct loader *l, unsigned line, const char *key, const char *text, const char **ret)
{
	char host[SEND_HOST_MAX];

	if (!send_host_of(text, host)) {
		load_error(l, line, "%s: what is given is no URL of http or https", key);
		return false;
	}
	*ret = text;
	return true;
}

static void read_url(struct loader *l, const struct yaml_node *value, const char *key,
                     const char **ret)
{
	const char *text;

	if (!refuse_kind(l, value, key, YAML_TEXT) && is_given(l, value, key, &text))
		(void)value_url(l, value->line, key, text, ret);
}

static void read_recipients(struct loader *l, const struct yaml_node *value, void *section)
{
	struct config_alerts *a = &l->c->alerts;

	read_words(l, value, "to", &a->mail_to, &a->n_mail_to);
}

static void read_tls(struct loader *l, const struct yaml_node *value, void *section)
{
	static const char *const words[] = {"auto", "required", "try", "off"};
	const char *text;

	if (refuse_kind(l, value, "tls", YAML_TEXT) || !is_given(l, value, "tls", &text))
		return;
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (strcasecmp(text, words[i]) == 0) {
			l->c->alerts.smtp_tls = (enum config_tls)i;
			return;
		}
	load_error(l, value->line, "tls: '%.60s' is none of auto, required, try, off", text);
}

static void read_email(struct loader *l, const struct yaml_node *value, void *section)
{
	static const struct key keys[] = {
	        {"server", KEY_TEXT, .offset = AT(config_alerts, smtp_server)},
	        {"port", KEY_UINT, .offset = AT(config_alerts, smtp_port), .min = 1, .max = 65535},
	        {"tls", KEY_NODE, .read = read_tls},
	        {"username", KEY_TEXT, .offset = AT(config_alerts, smtp_username)},
	        {"password", KEY_TEXT, .offset = AT(config_alerts, smtp_password)},
	        {"from", KEY_TEXT, .offset = AT(config_alerts, mail_from)},
	        {"to", KEY_NODE, .read = read_recipients},
	        END,
	};

	l->email_line = value->line;
	read_section(l, value, "email", keys, &l->c->alerts);
}

static void read_slack_webhook(struct loader *l, const struct yaml_node *value, void *section)
{
	read_url(l, value, "webhook", &l->c->alerts.slack_webhook.text);
}

static void read_slack(struct loader *l, const struct yaml_node *value, void *section)
{
	static const struct key keys[] = {
	        {"webhook", KEY_NODE, .read = read_slack_webhook},
	        END,
	};

	if (value->kind == YAML_TEXT)
		read_url(l, value, "slack", &l->c->alerts.slack_webhook.text);
	else
		read_section(l, value, "slack", keys, &l->c->alerts);
}

static void read_webhook(struct loader *l, const struct yaml_node *value, void *section)
{
	read_url(l, value, "webhook", &l->c->alerts.webhook.text);
}

void read_heartbeat_url(struct loader *l, const struct yaml_node *value, void *section)
{
	read_url(l, value, "heartbeat-url", &l->c->alerts.heartbeat_url.text);
}

static void read_heartbeat(struct loader *l, const struct yaml_node *value, void *section)
{
	static const struct key keys[] = {
	        {"url", KEY_NODE, .read = read_heartbeat_url},
	        {"interval", KEY_DURATION, .offset = AT(config_alerts, heartbeat_interval_us),
	         .min = US_PER_SECOND, .max = 30 * DAY_US},
	        END,
	};

	read_section(l, value, "heartbeat", keys, &l->c->alerts);
}

void read_alerts(struct loader *l, const struct yaml_node *value, void *section)
{
	static const struct key keys[] = {
	        {"email", KEY_NODE, .read = read_email},
	        {"slack", KEY_NODE, .read = read_slack},
	        {"webhook", KEY_NODE, .read = read_webhook},
	        {"heartbeat", KEY_NODE, .read = read_heartbeat},
	        {"for", KEY_DURATION, .offset = AT(config_alerts, for_us), .max = DAY_US},
	        {"repeat", KEY_DURATION, .offset = AT(config_alerts, repeat_us),
	         .max = 365 * DAY_US},
	        END,
	};

	read_section(l, value, "alerts", keys, &l->c->alerts);
}

/* ---- what is missing ---- */

/* A file says what it means.  Variables may be those of an old system, half filled in: what they do
 * not make possible is said, and left out. */
static void no_mail(struct loader *l, const char *why)
{
	if (l->email_line)
		load_error(l, l->email_line, "email: %s", why);
	else
		load_message(l, CONFIG_WARNING, l->env.path ? l->env.path : "environment", 0,
		             "SMTP_SERVER: no mail is sent: %s", why);
	l->c->alerts.smtp_server = NULL;
}

static bool is_host(const char *text)
{
	return strlen(text) < 254 && !strpbrk(text, "/@?#[]<> \t");
}

static const char *wrong_address(const struct config_alerts *a)
{
	for (size_t i = 0; i < a->n_mail_to; i++)
		if (!message_is_address(a->mail_to[i]))
			return a->mail_to[i];
	return a->mail_from && !message_is_address(a->mail_from) ? a->mail_from : NULL;
}

static void default_sender(struct loader *l)
{
	struct config_alerts *a = &l->c->alerts;
	char host[HOST_NAME_MAX + 1] = "";

	if (a->mail_from)
		return;
	if (a->smtp_username && message_is_address(a->smtp_username)) {
		a->mail_from = a->smtp_username;
		return;
	}
	if (gethostname(host, sizeof(host) - 1) < 0 || !*host || !is_host(host))
		snprintf(host, sizeof(host), "localhost");
	a->mail_from = memory_printf(l->memory, "asof@%s", host);
	if (!a->mail_from)
		load_nomem(l);
}

void resolve_alerts(struct loader *l)
{
	struct config_alerts *a = &l->c->alerts;
	const char *wrong = wrong_address(a);
	char why[160];

	if (!a->smtp_server) {
		if (l->email_line && (a->n_mail_to || a->mail_from || a->smtp_username))
			no_mail(l, "server is missing (which one sends it?)");
		return;
	}
	if (!is_host(a->smtp_server)) {
		no_mail(l, "the server is no name of a host");
	} else if (!a->n_mail_to) {
		no_mail(l, "to whom? (set to, or ALERT_RECIPIENTS)");
	} else if (wrong) {
		snprintf(why, sizeof(why), "'%.80s' is no address (write name@example.com)", wrong);
		no_mail(l, why);
	} else if (!a->smtp_username != !a->smtp_password.text) {
		no_mail(l, "username and password go together");
	} else {
		default_sender(l);
	}
}
