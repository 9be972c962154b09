/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/monitor/space.h"

#include "engine/base/buf.h"
#include "engine/base/file.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/statvfs.h>

#define FILE_MAX_BYTES 65536u
#define WINDOW_US (7 * 24 * INT64_C(3600000000))
#define SPAN_MIN_US (6 * INT64_C(3600000000))
#define SAMPLES_MIN 6u

static void add(struct space_samples *s, struct space_sample one)
{
	if (s->n == SPACE_SAMPLES_MAX) {
		memmove(s->samples, s->samples + 1, (SPACE_SAMPLES_MAX - 1) * sizeof(one));
		s->n--;
	}
	s->samples[s->n++] = one;
}

/* "TIME BYTES". */
static bool parse_line(const char *line, struct space_sample *ret)
{
	char *end;

	errno = 0;
	ret->at_us = strtoll(line, &end, 10);
	if (end == line || *end != ' ')
		return false;
	line = end + 1;
	ret->free_bytes = strtoull(line, &end, 10);
	return end != line && !*end && !errno;
}

static void read_at(int dir_fd, struct space_samples *ret)
{
	cleanup_free char *text = NULL;
	struct err ignored = ERR_INIT;
	size_t len;

	ret->n = 0;
	if (file_get(dir_fd, SPACE_NAME, FILE_MAX_BYTES, &text, &len, &ignored) < 0)
		return;
	for (char *line = text; line && *line;) {
		struct space_sample one;
		char *end = strchr(line, '\n');
		if (end)
			*end = 0;
		if (end && parse_line(line, &one))
			add(ret, one);
		line = end ? end + 1 : NULL;
	}
}

void space_read(const char *root, struct space_samples *ret)
{
	cleanup_fd int fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	ret->n = 0;
	if (fd >= 0)
		read_at(fd, ret);
}

int space_note(const char *root, int64_t now_us, struct err *err)
{
	cleanup_buf struct buf text = BUF_INIT(FILE_MAX_BYTES);
	struct space_samples s;
	struct statvfs vfs;

	cleanup_fd int fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fstatvfs(fd, &vfs) < 0)
		return err_set(err, ERR_IO, errno, "archive '%s'", root);
	read_at(fd, &s);
	/* A clock that was set back does not stop it for ever. */
	if (s.n && s.samples[s.n - 1].at_us > now_us)
		s.n = 0;
	if (s.n && now_us - s.samples[s.n - 1].at_us < SPACE_EVERY_US)
		return 0;
	add(&s, (struct space_sample){now_us, (uint64_t)vfs.f_bavail * vfs.f_frsize});
	int rc = 0;
	for (size_t i = 0; i < s.n && rc == 0; i++)
		rc = buf_printf(&text, err, "%" PRId64 " %" PRIu64 "\n", s.samples[i].at_us,
		                s.samples[i].free_bytes);
	return rc ? rc : file_put(fd, SPACE_NAME, text.data, text.len, err);
}

double space_full_in_s(const struct space_samples *s, int64_t now_us, uint64_t free_bytes,
                       uint64_t reserve_bytes)
{
	double n = 0, x_sum = 0, y_sum = 0, xx_sum = 0, xy_sum = 0;
	int64_t first_us = 0, last_us = 0;

	for (size_t i = 0; i < s->n; i++) {
		const struct space_sample *p = &s->samples[i];
		if (p->at_us > now_us || now_us - p->at_us > WINDOW_US)
			continue;
		double x = (double)(p->at_us - now_us) / 1e6, y = (double)p->free_bytes;
		first_us = n > 0 ? first_us : p->at_us;
		last_us = p->at_us;
		n++;
		x_sum += x;
		y_sum += y;
		xx_sum += x * x;
		xy_sum += x * y;
	}
	double spread = n * xx_sum - x_sum * x_sum;
	if (n < SAMPLES_MIN || last_us - first_us < SPAN_MIN_US || spread <= 0)
		return -1;
	double slope = (n * xy_sum - x_sum * y_sum) / spread; /* bytes in a second */
	if (slope >= 0)
		return -1;
	if (free_bytes <= reserve_bytes)
		return 0;
	return (double)(free_bytes - reserve_bytes) / -slope;
}
