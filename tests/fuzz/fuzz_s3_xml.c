/* SPDX-License-Identifier: Apache-2.0 */
/* What a server may answer in XML, taken as each kind of document that is asked for: refused, or
 * bounded, sorted and with texts that end.  What was listed once is listed again as the same. */
#include "engine/store/s3_xml.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define must(condition)                                                                            \
	do {                                                                                       \
		if (!(condition))                                                                  \
			abort();                                                                   \
	} while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_error(const uint8_t *data, size_t size)
{
	struct s3_error e;

	memset(&e, 0xff, sizeof(e));
	if (!s3_xml_error(data, size, &e))
		return;
	must(e.code[0] && memchr(e.code, 0, sizeof(e.code)) &&
	     memchr(e.message, 0, sizeof(e.message)) && memchr(e.region, 0, sizeof(e.region)) &&
	     memchr(e.endpoint, 0, sizeof(e.endpoint)));
}

/* Text as XML, between quotes of an element. */
static void put_text(FILE *f, const char *text)
{
	for (; *text; text++)
		if (strchr("<>&'\"\r\n\t", *text))
			fprintf(f, "&#%d;", *text);
		else
			putc(*text, f);
}

static void list_again(const struct s3_listing *l)
{
	struct s3_listing again;
	char *xml = NULL;
	size_t len = 0, folders = 0;
	uint64_t bytes = 0, bytes_again = 0;
	FILE *f = open_memstream(&xml, &len);

	must(f);
	fprintf(f, "<ListBucketResult>");
	for (size_t i = 0; i < l->n; i++) {
		const struct s3_listed *e = &l->entries[i];
		fprintf(f, e->folder ? "<CommonPrefixes><Prefix>" : "<Contents><Key>");
		put_text(f, e->key);
		if (e->folder)
			fprintf(f, "</Prefix></CommonPrefixes>");
		else
			fprintf(f, "</Key><Size>%llu</Size></Contents>",
			        (unsigned long long)e->bytes);
	}
	fprintf(f, "</ListBucketResult>");
	must(fclose(f) == 0);
	must(s3_xml_listing(xml, len, &again, NULL) == 0 && again.n == l->n);
	for (size_t i = 0; i < l->n; i++) { /* in any order those of one key */
		must(strcmp(again.entries[i].key, l->entries[i].key) == 0);
		bytes += l->entries[i].folder ? 0 : l->entries[i].bytes;
		bytes_again += again.entries[i].bytes;
		folders += l->entries[i].folder;
		folders -= again.entries[i].folder;
	}
	must(bytes == bytes_again && folders == 0);
	s3_listing_release(&again);
	free(xml);
}

static void check_listing(const uint8_t *data, size_t size)
{
	struct s3_listing l;

	if (s3_xml_listing(data, size, &l, NULL) < 0)
		return;
	for (size_t i = 0; i < l.n; i++) {
		must(l.entries[i].key && l.entries[i].key[0]);
		must(i == 0 || strcmp(l.entries[i - 1].key, l.entries[i].key) <= 0);
	}
	must(!l.truncated || (l.next_token && l.next_token[0])); /* else it never ends */
	list_again(&l);
	s3_listing_release(&l);
}

static void check_uploads(const uint8_t *data, size_t size)
{
	struct s3_uploads u;

	if (s3_xml_uploads(data, size, &u, NULL) < 0)
		return;
	for (size_t i = 0; i < u.n; i++)
		must(u.entries[i].key && u.entries[i].id);
	s3_uploads_release(&u);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const texts[][2] = {
	        {"InitiateMultipartUploadResult", "UploadId"},
	        {"CompleteMultipartUploadResult", "ETag"},
	};

	check_error(data, size);
	check_listing(data, size);
	check_uploads(data, size);
	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
		char *text = NULL;
		if (s3_xml_text(data, size, texts[i][0], texts[i][1], &text, NULL) == 0)
			must(text && strlen(text) <= size * 4);
		free(text);
	}
	return 0;
}
