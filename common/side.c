#include "side.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "wait.h"

static bool is_socket(enum end_kind kind)
{
	return kind == END_TCP || kind == END_UNIX;
}

static void set_option(int fd, int level, int option)
{
	int on = 1;

	setsockopt(fd, level, option, &on, sizeof(on));
}

static void set_linger(int fd, bool on)
{
	struct linger linger = { .l_onoff = on, .l_linger = 0 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}

void side_break_on_close(int fd)
{
	set_linger(fd, true);
}

static enum end_kind set_up_output(int fd)
{
	struct stat st;
	char path[32];
	unsigned number;
	int own;

	if (fstat(fd, &st) != 0 || (!S_ISFIFO(st.st_mode) && !isatty(fd)))
		return END_SHARED;
	/* Reopening the master of a pseudo-terminal would create another pseudo-terminal. */
	if (S_ISCHR(st.st_mode) && ioctl(fd, TIOCGPTN, &number) == 0)
		return END_TERMINAL;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	own = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (own == -1)
		return S_ISCHR(st.st_mode) ? END_TERMINAL : END_SHARED;
	dup3(own, fd, O_CLOEXEC);
	close(own);
	return END_OWN;
}

static void set_up(struct end *end, int fd, bool writing, bool keepalive)
{
	struct sockaddr_storage address = { 0 };
	socklen_t size = sizeof(address);

	end->fd = fd;
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	if (getsockname(fd, (struct sockaddr *)&address, &size) != 0 && errno == ENOTSOCK) {
		end->kind = writing ? set_up_output(fd) : END_SHARED;
		return;
	}
	end->kind = address.ss_family == AF_UNIX ? END_UNIX : END_TCP;
	side_break_on_close(fd);
	set_option(fd, SOL_SOCKET, SO_OOBINLINE);
	set_option(fd, IPPROTO_TCP, TCP_NODELAY);
	if (keepalive)
		set_option(fd, SOL_SOCKET, SO_KEEPALIVE);
}

void side_set(struct side *side, const char *name, int in, int out, bool keepalive)
{
	*side = (struct side){ .name = name };
	set_up(&side->in, in, false, keepalive);
	side->out = side->in;
	if (in != out)
		set_up(&side->out, out, true, keepalive);
}

/* A shared descriptor may block, and its flags are not ours to change: ask before each call. */
static bool would_block(int fd, short event)
{
	struct pollfd ready = { .fd = fd, .events = event };

	if (poll(&ready, 1, 0) > 0)
		return false;
	errno = EAGAIN;
	return true;
}

ssize_t side_read(struct side *side, void *data, size_t size)
{
	if (is_socket(side->in.kind))
		return recv(side->in.fd, data, size, MSG_DONTWAIT);
	if (side->in.kind == END_SHARED && would_block(side->in.fd, POLLIN))
		return -1;
	return read(side->in.fd, data, size);
}

ssize_t side_write(struct side *side, const void *data, size_t size)
{
	if (is_socket(side->out.kind))
		return send(side->out.fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (side->out.kind == END_SHARED || side->out.kind == END_TERMINAL) {
		/* Only this much is sure to fit when poll(2) says that there is room. */
		size_t most = side->out.kind == END_SHARED ? PIPE_BUF : 1;

		if (would_block(side->out.fd, POLLOUT))
			return -1;
		if (size > most)
			size = most;
	}
	return write(side->out.fd, data, size);
}

void side_end_output(struct side *side)
{
	if (is_socket(side->out.kind))
		shutdown(side->out.fd, SHUT_WR); /* fails only if the peer has already gone */
	else {
		close(side->out.fd);
		side->out.fd = -1;
	}
}

void side_reset(struct side *side)
{
	if (side->in.fd != -1)
		close(side->in.fd);
	if (side->out.fd != -1 && side->out.fd != side->in.fd)
		close(side->out.fd);
	side->in.fd = side->out.fd = -1;
}

void side_close(struct side *side)
{
	set_linger(side->in.fd, false);
	if (side->out.fd != side->in.fd)
		set_linger(side->out.fd, false);
	side_reset(side);
}

/* side_read_all, or side_write_all if `writing`. */
static int move_all(struct side *side, bool writing, uint8_t *next, size_t size, int64_t deadline)
{
	int fd = writing ? side->out.fd : side->in.fd;
	short event = writing ? POLLOUT : POLLIN;
	ssize_t moved;

	while (size > 0) {
		moved = writing ? side_write(side, next, size) : side_read(side, next, size);
		if (moved == 0)
			errno = ENODATA;
		if (moved > 0) {
			next += moved;
			size -= (size_t)moved;
		} else if ((errno != EAGAIN && errno != EINTR) ||
		    wait_ready(fd, event, deadline) != 0)
			return -1;
	}
	return 0;
}

int side_read_all(struct side *side, void *data, size_t size, int64_t deadline)
{
	return move_all(side, false, data, size, deadline);
}

int side_write_all(struct side *side, const void *data, size_t size, int64_t deadline)
{
	return move_all(side, true, (uint8_t *)data, size, deadline);
}
