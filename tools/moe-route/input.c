#include "input.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#define READ_SIZE 65536

/* Drop what was handed out, so that the buffer holds at most one line and one read. */
static void compact(struct input *in)
{
	if (!in->start)
		return;
	in->buf.len -= in->start;
	memmove(in->buf.data, in->buf.data + in->start, in->buf.len);
	in->searched -= in->start;
	in->start = 0;
}

static enum input_got take(struct input *in, size_t end, size_t next, const char **line, size_t *len)
{
	*line = in->buf.data + in->start;
	*len = end - in->start;
	in->start = in->searched = next;
	in->number++;
	if (!in->too_long)
		return INPUT_LINE;
	in->too_long = false;
	return INPUT_TOO_LONG;
}

static enum input_got from_buffer(struct input *in, const char **line, size_t *len)
{
	char *nl = in->buf.len > in->searched ? memchr(in->buf.data + in->searched, '\n', in->buf.len - in->searched) : NULL;
	if (nl) {
		size_t end = (size_t)(nl - in->buf.data);
		return take(in, end, end + 1, line, len);
	}
	in->searched = in->buf.len;
	if (in->eof)
		return in->buf.len > in->start || in->too_long ? take(in, in->buf.len, in->buf.len, line, len) : INPUT_END;
	if (in->buf.len - in->start > INPUT_LINE_MAX) {
		in->too_long = true;
		in->start = in->searched = in->buf.len;
	}
	return INPUT_NONE;
}

/* Wait for input or a signal.  Signals are held back between the look at `stop` and the wait, so none is missed. */
static int await(const struct input *in, struct pollfd *p)
{
	sigset_t all, before;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int n = *in->stop ? 0 : ppoll(p, 1, NULL, &before);
	int saved = errno;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	errno = saved;
	return n;
}

/* 1: something was read (or the end seen); 0: nothing now; -1: failed. */
static int fill(struct input *in, bool wait, struct moe_err *e)
{
	struct pollfd p = {.fd = in->fd, .events = POLLIN};
	int n = wait ? await(in, &p) : poll(&p, 1, 0);
	if (n == 0 || (n < 0 && errno == EINTR))
		return 0;
	char chunk[READ_SIZE];
	ssize_t got = read(in->fd, chunk, sizeof chunk);
	if (got < 0 && (errno == EINTR || errno == EAGAIN))
		return 0;
	if (got < 0) {
		moe_fail_errno(e, "standard input");
		return -1;
	}
	in->eof = got == 0;
	compact(in);
	return moe_buf_add(&in->buf, chunk, (size_t)got, e) ? -1 : 1;
}

enum input_got input_next(struct input *in, bool wait, const char **line, size_t *len, struct moe_err *e)
{
	for (;;) {
		enum input_got got = from_buffer(in, line, len);
		if (got != INPUT_NONE)
			return got;
		int n = fill(in, wait, e);
		if (n <= 0)
			return n < 0 ? INPUT_FAILED : INPUT_NONE;
	}
}
