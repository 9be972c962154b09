/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/store/s3_retry.h"

#include "engine/base/clock.h"

#include <string.h>
#include <sys/random.h>

#define LEAST_PAUSE_US INT64_C(100000)
#define MOST_PAUSE_US INT64_C(5000000)
#define LOOK_US INT64_C(50000) /* at the stop flag */

/* Codes that say more than their status, or something else. */
static const struct code {
	const char *code;
	enum s3_meaning meaning;
} codes[] = {
        {"NoSuchBucket", S3_NO_BUCKET},
        {"NoSuchKey", S3_GONE},
        {"NoSuchUpload", S3_GONE},
        {"RequestTimeTooSkewed", S3_SKEWED},
        {"ExpiredToken", S3_STALE_KEY},
        {"ExpiredTokenException", S3_STALE_KEY},
        {"RequestExpired", S3_STALE_KEY},
        {"TokenRefreshRequired", S3_STALE_KEY},
        {"InvalidToken", S3_STALE_KEY},
        {"InvalidAccessKeyId", S3_STALE_KEY},
        {"SignatureDoesNotMatch", S3_STALE_KEY}, /* a key may have been exchanged */
        {"PermanentRedirect", S3_MOVED},
        {"TemporaryRedirect", S3_MOVED},
        {"Redirect", S3_MOVED},
        {"AuthorizationHeaderMalformed", S3_MOVED},
        {"IllegalLocationConstraintException", S3_MOVED},
        {"QuotaExceeded", S3_FULL},
        {"XMinioStorageFull", S3_FULL},
        {"XMinioAdminBucketQuotaExceeded", S3_FULL},
        {"InsufficientStorage", S3_FULL},
        {"SlowDown", S3_LATER},
        {"SlowDownRead", S3_LATER},
        {"SlowDownWrite", S3_LATER},
        {"ServiceUnavailable", S3_LATER},
        {"InternalError", S3_LATER},
        {"InternalServerError", S3_LATER},
        {"RequestTimeout", S3_LATER},
        {"RequestThrottled", S3_LATER},
        {"Throttling", S3_LATER},
        {"TooManyRequests", S3_LATER},
        {"OperationAborted", S3_LATER},
        {"ConditionalRequestConflict", S3_LATER},
        /* What arrived is not what was sent: it is sent again. */
        {"BadDigest", S3_LATER},
        {"IncompleteBody", S3_LATER},
        {"InvalidDigest", S3_LATER},
        {"XAmzContentSHA256Mismatch", S3_LATER},
        {"PreconditionFailed", S3_THERE},
        {"FileImmutable", S3_DENIED}, /* 409, of an object that is locked */
        {"NotImplemented", S3_CANNOT},
        {"InvalidRange", S3_PAST_END},
};

static enum s3_meaning of_status(int status)
{
	switch (status) {
	case 301:
	case 302:
	case 307:
	case 308:
		return S3_MOVED;
	case 401:
	case 403:
		return S3_DENIED;
	case 404:
		return S3_GONE;
	case 408:
	case 425:
	case 429:
		return S3_LATER;
	case 405:
	case 501:
		return S3_CANNOT;
	case 409:
		return S3_LATER;
	case 412:
		return S3_THERE;
	case 416:
		return S3_PAST_END;
	case 507:
		return S3_FULL;
	default:
		return status >= 500 ? S3_LATER : S3_WRONG;
	}
}

enum s3_meaning s3_meaning_of(const struct http_answer *a, const struct s3_error *e)
{
	for (size_t i = 0; i < sizeof(codes) / sizeof(*codes); i++)
		if (strcmp(e->code, codes[i].code) == 0)
			return codes[i].meaning;
	if (a->status >= 200 && a->status < 300)
		return e->code[0] ? S3_LATER : S3_OK; /* an error in a 200 */
	return of_status(a->status);
}

enum err_kind s3_meaning_kind(enum s3_meaning m)
{
	switch (m) {
	case S3_OK:
		return ERR_NONE;
	case S3_GONE:
	case S3_NO_BUCKET:
		return ERR_NOT_FOUND;
	case S3_THERE:
		return ERR_EXISTS;
	case S3_LATER:
	case S3_MOVED:
		return ERR_UNAVAILABLE;
	case S3_SKEWED:
	case S3_STALE_KEY:
	case S3_DENIED:
		return ERR_DENIED;
	case S3_FULL:
		return ERR_NO_SPACE;
	case S3_PAST_END:
		return ERR_DAMAGED;
	case S3_CANNOT:
	case S3_WRONG:
		break;
	}
	return ERR_REFUSED;
}

void s3_retry_begin(struct s3_retry *r, int64_t patience_ms)
{
	*r = (struct s3_retry){.patience_us = patience_ms * 1000, .pause_us = LEAST_PAUSE_US};
	s3_retry_progress(r);
}

void s3_retry_progress(struct s3_retry *r)
{
	r->deadline_us = clock_mono_us() + r->patience_us;
	r->pause_us = LEAST_PAUSE_US;
}

static int64_t draw(int64_t from, int64_t to)
{
	uint64_t dice = 0;

	if (getrandom(&dice, sizeof(dice), 0) != sizeof(dice))
		dice = (uint64_t)clock_mono_us() * UINT64_C(0x9e3779b97f4a7c15);
	return from + (int64_t)(dice % (uint64_t)(to - from + 1));
}

int s3_retry_wait(struct s3_retry *r, int64_t retry_after_ms, const _Atomic bool *stop)
{
	int64_t now_us = clock_mono_us();

	r->tries++;
	r->pause_us = draw(LEAST_PAUSE_US, 3 * r->pause_us);
	if (r->pause_us > MOST_PAUSE_US)
		r->pause_us = MOST_PAUSE_US;
	int64_t pause_us =
	        r->pause_us > retry_after_ms * 1000 ? r->pause_us : retry_after_ms * 1000;
	int64_t until_us = now_us + pause_us;
	if (until_us > r->deadline_us)
		return -ERR_UNAVAILABLE;
	while ((now_us = clock_mono_us()) < until_us) {
		if (stop && *stop)
			return -ERR_CANCELLED;
		clock_sleep_us(until_us - now_us < LOOK_US ? until_us - now_us : LOOK_US);
	}
	return stop && *stop ? -ERR_CANCELLED : 0;
}
