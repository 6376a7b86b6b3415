#ifndef SPIPE_SIDE_H
#define SPIPE_SIDE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum end_kind {
	END_NONE,        /* not set */
	END_STREAM_TCP,  /* a TCP or other network socket: can be reset, half-closed */
	END_STREAM_UNIX, /* a UNIX stream socket */
	END_PRIVATE, /* where we write to a pipe or terminal: a description of our own, non-blocking */
	END_TERMINAL, /* a terminal to write to that could not be opened anew: small writes */
	END_SHARED,   /* anything on a description that others may share */
};

/* Where a side is read, or where it is written. */
struct end {
	int fd; /* -1 once closed */
	enum end_kind kind;
	bool hung_up; /* poll said that nobody is there any more */
};

/* One side of the connection. */
struct side {
	const char *name;   /* for messages: "near side", "far side" */
	struct end in, out; /* often the same socket twice */
	bool unread;        /* the command here ended without reading all that it was sent */
};

/*
 * Describe descriptors `in` and `out`. A pipe or terminal to write to is opened anew where /proc
 * allows, so that it can be non-blocking without a change that others would see. Both become
 * close-on-exec; network sockets get TCP_NODELAY, and keep-alives if asked.
 */
void side_set(struct side *, const char *name, int in, int out, bool keepalive);

/*
 * Read up to `size` bytes without blocking. Returns as read(2): 0 is end of input, -1 with EAGAIN
 * nothing waiting.
 */
ssize_t side_read(struct side *, void *, size_t size);

/* Write up to `size` bytes without blocking and without SIGPIPE. Returns as write(2). */
ssize_t side_write(struct side *, const void *, size_t size);

/* Tell the reader that no more will come; the other half stays open. */
void side_end_output(struct side *);

/* Close both halves so that the peer sees a break where the medium has one: a socket is reset. */
void side_reset(struct side *);

/* Close what is still open, in peace. */
void side_close(struct side *);

/*
 * Read or write exactly `size` bytes before `deadline`. Returns 0; -1 with errno set: ETIMEDOUT,
 * EINTR (signal_stop is set), ENODATA (end of input), or the system's.
 */
int side_read_all(struct side *, void *, size_t size, int64_t deadline);
int side_write_all(struct side *, const void *, size_t size, int64_t deadline);

#endif
