/* SPDX-License-Identifier: Apache-2.0 */
/* What the S3 store does without a server: signatures held to AWS's published ones, URLs, answers,
 * profiles, meanings. */
#include "engine/store/s3_fetch.h"
#include "engine/store/s3_profile.h"
#include "engine/store/s3_retry.h"
#include "engine/store/s3_sign.h"
#include "engine/store/s3_sso.h"
#include "engine/store/s3_url.h"
#include "engine/store/s3_xml.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- signatures: "Examples: Signature Calculations in AWS Signature Version 4", S3 ---- */

static struct s3_signing example(const char *method, const char *path, struct s3_pair *headers,
                                 size_t n_headers, const char *hash)
{
	headers[0] = (struct s3_pair){"x-amz-date", "20130524T000000Z"};
	headers[1] = (struct s3_pair){"host", "examplebucket.s3.amazonaws.com"};
	headers[2] = (struct s3_pair){"x-amz-content-sha256", hash};
	return (struct s3_signing){.method = method,
	                           .path = path,
	                           .headers = headers,
	                           .n_headers = n_headers,
	                           .body_sha256 = hash,
	                           .access_key_id = "AKIAIOSFODNN7EXAMPLE",
	                           .secret_access_key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
	                           .region = "us-east-1",
	                           .service = "s3",
	                           .date = "20130524T000000Z"};
}

static void assert_signature(const struct s3_signing *s, const char *names, const char *signature)
{
	cleanup_buf struct buf b = BUF_INIT(8192);
	char expected[512];

	assert_int_equal(s3_sign(s, &b, NULL), 0);
	snprintf(expected, sizeof(expected),
	         "AWS4-HMAC-SHA256 "
	         "Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "
	         "SignedHeaders=%s, Signature=%s",
	         names, signature);
	assert_string_equal((const char *)b.data, expected);
}

static void test_get_object(void **state)
{
	struct s3_pair h[4];
	struct s3_signing s = example("GET", "/test.txt", h, 4, S3_EMPTY_SHA256);

	h[3] = (struct s3_pair){"range", "bytes=0-9"};
	assert_signature(&s, "host;range;x-amz-content-sha256;x-amz-date",
	                 "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
}

static void test_put_object(void **state)
{
	char hash[S3_SHA256_HEX];
	struct s3_pair h[5];

	s3_sha256_hex("Welcome to Amazon S3.", 21, hash);
	struct s3_signing s = example("PUT", "/test$file.text", h, 5, hash);
	h[3] = (struct s3_pair){"x-amz-storage-class", "REDUCED_REDUNDANCY"};
	h[4] = (struct s3_pair){"date", "Fri, 24 May 2013 00:00:00 GMT"};
	assert_signature(&s, "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
	                 "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
}

static void test_lifecycle_and_list(void **state)
{
	struct s3_pair h[3];
	struct s3_signing s = example("GET", "/", h, 3, S3_EMPTY_SHA256);
	const struct s3_pair lifecycle[] = {{"lifecycle", ""}};
	const struct s3_pair list[] = {{"prefix", "J"}, {"max-keys", "2"}};

	s.query = lifecycle;
	s.n_query = 1;
	assert_signature(&s, "host;x-amz-content-sha256;x-amz-date",
	                 "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
	s.query = list;
	s.n_query = 2;
	assert_signature(&s, "host;x-amz-content-sha256;x-amz-date",
	                 "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

static void test_encode(void **state)
{
	cleanup_buf struct buf b = BUF_INIT(1024);

	assert_int_equal(s3_encode("/a b+c%d/\xc3\xa9~-_.!*'()&=?#", true, &b, NULL), 0);
	assert_string_equal((const char *)b.data,
	                    "/a%20b%2Bc%25d/%C3%A9~-_.%21%2A%27%28%29%26%3D%3F%23");
}

/* ---- URLs ---- */

static struct s3_place parsed(const char *url)
{
	struct s3_place p;
	struct err err = ERR_INIT;

	if (s3_place_parse(url, NULL, &p, &err) < 0)
		fail_msg("%s: %s", url, err.msg);
	return p;
}

static void assert_host(struct s3_place *p, const char *region, const char *expected)
{
	cleanup_free char *host = NULL;

	assert_int_equal(s3_place_host(p, region, &host, NULL), 0);
	assert_string_equal(host, expected);
}

static void test_urls(void **state)
{
	struct s3_place p =
	        parsed("s3://bucket/a%20b/c/?region=eu-west-1&storage-class=GLACIER_IR");
	assert_string_equal(p.prefix, "a b/c/");
	assert_string_equal(p.region, "eu-west-1");
	assert_string_equal(p.label, "s3://bucket/a b/c");
	assert_string_equal(p.storage_class, "GLACIER_IR");
	assert_false(p.path_style);
	assert_host(&p, "eu-west-1", "bucket.s3.eu-west-1.amazonaws.com");
	assert_host(&p, "cn-north-1", "bucket.s3.cn-north-1.amazonaws.com.cn");
	s3_place_release(&p);

	p = parsed("s3://my.bucket"); /* no certificate is good for it */
	assert_true(p.path_style);
	assert_string_equal(p.prefix, "");
	s3_place_release(&p);

	p = parsed("s3://bucket/p?endpoint=http://127.0.0.1:7480/");
	assert_true(p.path_style);
	assert_string_equal(p.scheme, "http");
	assert_host(&p, "x", "127.0.0.1:7480");
	s3_place_release(&p);

	p = parsed("s3://bucket/p?endpoint=store.example&path-style=no");
	assert_string_equal(p.scheme, "https");
	assert_host(&p, "x", "bucket.store.example");
	s3_place_release(&p);
}

static void test_wrong_urls(void **state)
{
	static const struct {
		const char *url, *said;
	} wrong[] = {
	        {"s3://", "bucket"},
	        {"s3://b", "bucket"},
	        {"s3://bucket/a//b", "prefix"},
	        {"s3://bucket/../b", "prefix"},
	        {"s3://bucket/a%2", "prefix"},
	        {"s3://bucket/%0a", "prefix"},
	        {"s3://bucket?colour=red", "colour"},
	        {"s3://bucket?region", "region"},
	        {"s3://bucket?region=a%0d%0ab", "region"},
	        {"s3://bucket?region=a/b", "a/b"},
	        {"s3://bucket?path-style=perhaps", "perhaps"},
	        {"s3://bucket?endpoint=http://u:p@h", "endpoint"},
	        {"s3://bucket?endpoint=http://h/path", "endpoint"},
	};

	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		struct err err = ERR_INIT;
		struct s3_place p;
		int rc = s3_place_parse(wrong[i].url, NULL, &p, &err);
		if (rc != -ERR_USAGE || !strstr(err.msg, wrong[i].said))
			fail_msg("%s: %d '%s'", wrong[i].url, rc, err.msg);
	}
}

/* ---- answers ---- */

static void test_listing(void **state)
{
	static const char xml[] =
	        "<?xml version=\"1.0\"?><ListBucketResult xmlns=\"http://s3/\">"
	        "<IsTruncated>true</IsTruncated><NextContinuationToken>a+b=&amp;</"
	        "NextContinuationToken>"
	        "<Contents><Key>p/b &lt;&#xe9;</Key><Size>12</Size>"
	        "<LastModified>2024-01-15T10:30:00.000Z</LastModified>"
	        "<Owner><ID>x</ID></Owner></Contents>"
	        "<CommonPrefixes><Prefix>p/a/</Prefix></CommonPrefixes></ListBucketResult>";
	struct s3_listing l;

	assert_int_equal(s3_xml_listing(xml, sizeof(xml) - 1, &l, NULL), 0);
	assert_int_equal(l.n, 2);
	assert_string_equal(l.entries[0].key, "p/a/");
	assert_true(l.entries[0].folder);
	assert_string_equal(l.entries[1].key, "p/b <\xc3\xa9");
	assert_int_equal(l.entries[1].bytes, 12);
	assert_true(l.entries[1].modified_us == INT64_C(1705314600000000));
	assert_true(l.truncated);
	assert_string_equal(l.next_token, "a+b=&");
	s3_listing_release(&l);
	for (size_t n = 0; n < sizeof(xml) - 1; n++) /* a cut one is none */
		assert_int_equal(s3_xml_listing(xml, n, &l, NULL), -ERR_DAMAGED);
}

static void test_listings_that_are_none(void **state)
{
	static const char *const wrong[] = {
	        "<Error><Code>SlowDown</Code></Error>",
	        "<ListBucketResult><Contents><Size>1</Size></Contents></ListBucketResult>",
	        "<ListBucketResult><Contents><Key>a</Key><Size>-1</Size></Contents></"
	        "ListBucketResult>",
	        "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
	        "<!DOCTYPE x [<!ENTITY a \"b\">]><ListBucketResult/>",
	};
	struct s3_listing l;

	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++)
		assert_int_equal(s3_xml_listing(wrong[i], strlen(wrong[i]), &l, NULL),
		                 -ERR_DAMAGED);
}

static enum s3_meaning meaning(int status, const char *code)
{
	struct http_answer a = {.status = status};
	struct s3_error e = {.code = ""};
	char xml[200];

	snprintf(xml, sizeof(xml), "<Error><Code>%s</Code></Error>", code);
	assert_true(s3_xml_error(xml, strlen(xml), &e) == (*code != 0));
	return s3_meaning_of(&a, &e);
}

static void test_meanings(void **state)
{
	assert_int_equal(meaning(200, ""), S3_OK);
	assert_int_equal(meaning(200, "InternalError"), S3_LATER);
	assert_int_equal(meaning(500, ""), S3_LATER);
	assert_int_equal(meaning(503, "SlowDown"), S3_LATER);
	assert_int_equal(meaning(429, ""), S3_LATER);
	assert_int_equal(meaning(400, "RequestTimeout"), S3_LATER);
	assert_int_equal(meaning(400, "ExpiredToken"), S3_STALE_KEY);
	assert_int_equal(meaning(403, "RequestTimeTooSkewed"), S3_SKEWED);
	assert_int_equal(meaning(403, "AccessDenied"), S3_DENIED);
	assert_int_equal(meaning(403, "QuotaExceeded"), S3_FULL);
	assert_int_equal(meaning(404, "NoSuchBucket"), S3_NO_BUCKET);
	assert_int_equal(meaning(404, ""), S3_GONE);
	assert_int_equal(meaning(412, "PreconditionFailed"), S3_THERE);
	assert_int_equal(meaning(501, "NotImplemented"), S3_CANNOT);
	assert_int_equal(meaning(301, ""), S3_MOVED);
}

/* ---- credentials ---- */

static void test_profile(void **state)
{
	static const char credentials[] =
	        "[default]\naws_access_key_id=D\naws_secret_access_key=S\n"
	        "[ a b ]\r\naws_access_key_id = A\r\n"
	        "aws_secret_access_key = x/y=z+w\r\n# c\n";
	static const char config[] = "[default]\nregion = r1\n[profile a b]\nregion=r2\n"
	                             "s3 =\n  region = nested\ncredential_process = p\n";
	struct s3_profile p;

	assert_int_equal(s3_profile_parse("a b", credentials, config, &p, NULL), 0);
	assert_true(p.found);
	assert_string_equal(p.access_key_id, "A");
	assert_string_equal(p.secret_access_key, "x/y=z+w");
	assert_string_equal(p.region, "r2");
	assert_string_equal(p.credential_process, "p");
	s3_profile_release(&p);
	assert_int_equal(s3_profile_parse("default", credentials, config, &p, NULL), 0);
	assert_string_equal(p.access_key_id, "D");
	assert_string_equal(p.region, "r1");
	s3_profile_release(&p);
	assert_int_equal(s3_profile_parse("c", credentials, config, &p, NULL), 0);
	assert_false(p.found);
}

static void test_profile_of_sso(void **state)
{
	static const char config[] = "[profile p]\nsso_session = p\nsso_account_id=1\n"
	                             "sso_start_url = not this\nsso_role_name=A Role\n"
	                             "[sso-session p]\nsso_start_url=u#\nsso_region=r\n"
	                             "aws_access_key_id=not this\n";
	struct s3_profile p;

	assert_int_equal(s3_profile_parse("p", NULL, config, &p, NULL), 0);
	assert_string_equal(p.sso_start_url, "u#");
	assert_string_equal(p.sso_region, "r");
	assert_string_equal(p.sso_account_id, "1");
	assert_string_equal(p.sso_role_name, "A Role");
	assert_null(p.access_key_id);
	s3_profile_release(&p);
	/* A session that is not there takes nothing from the profile. */
	assert_int_equal(s3_profile_parse("p", config, NULL, &p, NULL), 0);
	assert_false(p.found);
	s3_profile_release(&p);
}

static void test_keys_of_sso(void **state)
{
	static const char json[] =
	        "{\"roleCredentials\":{\"accessKeyId\":\"A\",\"secretAccessKey\":\"S\","
	        "\"sessionToken\":\"T\",\"expiration\":1705314600000}}";
	static const char *const wrong[] = {
	        "",
	        "[]",
	        "{\"roleCredentials\":null}",
	        "{\"roleCredentials\":{\"accessKeyId\":\"A\"}}",
	        "{\"roleCredentials\":{\"accessKeyId\":\"A\",\"secretAccessKey\":\"S\\n\"}}",
	        "{\"roleCredentials\":{\"accessKeyId\":\"A\",\"secretAccessKey\":\"S\","
	        "\"expiration\":9223372036854775807}}"};
	struct s3_credentials c;

	assert_int_equal(s3_sso_parse(json, sizeof(json) - 1, &c, NULL), 0);
	assert_string_equal(c.session_token, "T");
	assert_true(c.expires_us == INT64_C(1705314600000000));
	s3_credentials_release(&c);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++)
		assert_int_equal(s3_sso_parse(wrong[i], strlen(wrong[i]), &c, NULL), -ERR_DENIED);
}

static void test_fetched(void **state)
{
	static const char json[] = "{\"Version\":1,\"AccessKeyId\":\"A\",\"SecretAccessKey\":\"S\","
	                           "\"Token\":\"T\",\"Expiration\":\"2024-01-15T10:30:00Z\"}";
	static const char odd[] = "{\"AccessKeyId\":\"A\",\"SecretAccessKey\":\"S\\r\\nX: y\"}";
	struct s3_credentials c;

	assert_int_equal(s3_fetch_parse_json(json, sizeof(json) - 1, &c, NULL), 0);
	assert_string_equal(c.session_token, "T");
	assert_true(c.expires_us == INT64_C(1705314600000000));
	s3_credentials_release(&c);
	assert_int_equal(s3_fetch_parse_json(odd, sizeof(odd) - 1, &c, NULL), -ERR_DENIED);
	assert_int_equal(s3_fetch_parse_json("{}", 2, &c, NULL), -ERR_DENIED);
	assert_int_equal(s3_fetch_parse_json("x", 1, &c, NULL), -ERR_DENIED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_get_object),
	        cmocka_unit_test(test_put_object),
	        cmocka_unit_test(test_lifecycle_and_list),
	        cmocka_unit_test(test_encode),
	        cmocka_unit_test(test_urls),
	        cmocka_unit_test(test_wrong_urls),
	        cmocka_unit_test(test_listing),
	        cmocka_unit_test(test_listings_that_are_none),
	        cmocka_unit_test(test_meanings),
	        cmocka_unit_test(test_profile),
	        cmocka_unit_test(test_profile_of_sso),
	        cmocka_unit_test(test_keys_of_sso),
	        cmocka_unit_test(test_fetched),
	};

	return cmocka_run_group_tests_name("s3", tests, NULL, NULL);
}
