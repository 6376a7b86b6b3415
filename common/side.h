#ifndef SPIPE_SIDE_H
#define SPIPE_SIDE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum end_kind {
	END_NONE,     /* not set */
	END_TCP,      /* a TCP or other network socket */
	END_UNIX,     /* a UNIX stream socket */
	END_OWN,      /* to write: a pipe or terminal that we reopened, non-blocking */
	END_TERMINAL, /* to write: a terminal that could not be reopened; a byte at a time */
	END_SHARED,   /* anything else: others may share its flags, so they are left alone */
};

/* Where a side is read, or where it is written. */
struct end {
	int fd; /* -1 once closed */
	enum end_kind kind;
	bool hung_up; /* poll reported that the other end is closed */
};

/*
 * One side of the connection: near or far. From side_set on it is broken by default: however this
 * process ends, the kernel resets the side's network sockets. Only side_close ends them cleanly.
 */
struct side {
	const char *name;   /* for messages: "near side", "far side" */
	struct end in, out; /* often the same socket twice */
};

/*
 * If `fd` is a network socket, its last close resets the connection, also when the kernel closes it
 * because the process has died. For a socket that has no side yet.
 */
void side_break_on_close(int fd);

/*
 * Set up a side on descriptors `in` and `out`, which become close-on-exec. A pipe or terminal to
 * write to is reopened through /proc where that is allowed, because setting O_NONBLOCK on the one
 * we were given would change it for everyone who shares it. Urgent data is received in line.
 * Network sockets get TCP_NODELAY, and keep-alives if `keepalive`.
 */
void side_set(struct side *, const char *name, int in, int out, bool keepalive);

/*
 * Read up to `size` bytes without blocking. Returns what read(2) does: 0 at the end of input, -1
 * with EAGAIN when nothing is waiting.
 */
ssize_t side_read(struct side *, void *, size_t size);

/* Write up to `size` bytes without blocking and without SIGPIPE. Returns what write(2) does. */
ssize_t side_write(struct side *, const void *, size_t size);

/* End the output: the reader sees an end of file. The input stays open. */
void side_end_output(struct side *);

/* Close both ends. A network socket is reset. */
void side_reset(struct side *);

/* Close both ends cleanly. */
void side_close(struct side *);

/*
 * Read or write exactly `size` bytes before `deadline`. Returns 0; or -1 with errno set: ETIMEDOUT,
 * EINTR (signal_stop is set), ENODATA (end of input), or as read(2) and write(2) set it.
 */
int side_read_all(struct side *, void *, size_t size, int64_t deadline);
int side_write_all(struct side *, const void *, size_t size, int64_t deadline);

#endif
