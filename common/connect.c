#include "connect.h"

#include <errno.h>
#include <limits.h>
#include <sys/socket.h> /* before the next, where that does not include it */

#include <linux/vm_sockets.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "address.h"
#include "side.h"
#include "wait.h"

#define BEGIN_ONLY 0 /* as a deadline: do not wait */

static int fail_to_connect(const char *target, const char *tried, const char *from, int error,
    struct outcome *outcome)
{
	if (error == ECONNRESET || error == EPIPE) /* it was connected, if only for a moment */
		return fail(outcome, EX_IOERR, "the far side was lost: %s", strerror(error));
	return fail(outcome, error == ETIMEDOUT ? EX_TEMPFAIL : EX_UNAVAILABLE,
	    "cannot connect to %s%s%s%s%s%s: %s", target, tried != NULL ? " (" : "",
	    tried != NULL ? tried : "", tried != NULL ? ")" : "", from != NULL ? " from " : "",
	    from != NULL ? from : "", strerror(error));
}

/* Connect to one address before `deadline`. Returns the socket, or -1 with errno set. */
static int try_address(const struct sockaddr *address, socklen_t size, const struct addrinfo *from,
    int64_t deadline)
{
	bool begin = deadline == BEGIN_ONLY;
	int type = SOCK_STREAM | SOCK_CLOEXEC | (begin ? SOCK_NONBLOCK : 0);
	int fd = socket(address->sa_family, type, 0), on = 1, error;
	int64_t left = deadline - time_now();
	struct timeval timeout = { .tv_sec = left / SECOND, .tv_usec = left % SECOND / 1000 };

	if (fd == -1)
		return -1;
	/* connect(2) heeds this, also where the queue of a UNIX socket is full. */
	if (!begin)
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
	side_break_on_close(fd); /* if nobody comes to use it */
	/* A port that an earlier connection came from may still be in TIME_WAIT. */
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if ((begin || left > 0) &&
	    (from == NULL || bind(fd, from->ai_addr, from->ai_addrlen) == 0) &&
	    (connect(fd, address, size) == 0 || (begin && errno == EINPROGRESS)))
		return fd;
	error = (!begin && left <= 0) || errno == EINPROGRESS || errno == EAGAIN ? ETIMEDOUT
										 : errno;
	close(fd);
	errno = error;
	return -1;
}

static int connect_unix(const char *path, int64_t deadline)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	memcpy(address.sun_path, path, strlen(path));
	return try_address((struct sockaddr *)&address, sizeof(address), NULL, deadline);
}

static int connect_vsock(const struct address_text *text, int64_t deadline)
{
	struct sockaddr_vm address = {
		.svm_family = AF_VSOCK,
		.svm_cid = (unsigned)strtoul(text->host, NULL, 10),
		.svm_port = (unsigned)strtoul(text->port, NULL, 10),
	};

	return try_address((struct sockaddr *)&address, sizeof(address), NULL, deadline);
}

/* `tried` becomes the numeric address that was tried last. Returns as try_address. */
static int connect_each(const struct addrinfo *found, const struct addrinfo *from, int64_t deadline,
    char tried[static NI_MAXHOST])
{
	int64_t left = 0;
	int fd = -1;

	for (const struct addrinfo *one = found; one != NULL; one = one->ai_next)
		left++;
	for (; found != NULL && fd == -1; found = found->ai_next, left--) {
		int64_t now = time_now();

		getnameinfo(found->ai_addr, found->ai_addrlen, tried, NI_MAXHOST, NULL, 0,
		    NI_NUMERICHOST);
		fd = try_address(found->ai_addr, found->ai_addrlen, from,
		    now + (deadline - now) / left);
	}
	return fd;
}

static const char *lookup_error(int error)
{
	return error == EAI_SYSTEM ? strerror(errno) : gai_strerror(error);
}

static int connect_tcp(const struct address_text *text, const char *target, const char *bind_text,
    int64_t deadline, struct outcome *outcome)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV };
	struct addrinfo *found = NULL, *from = NULL;
	struct address_text local;
	char tried[NI_MAXHOST] = "";
	int error, fd = -1;

	if (bind_text != NULL) {
		address_split_local(&local, bind_text);
		hints.ai_flags |= AI_NUMERICHOST;
		error = getaddrinfo(local.host, local.port, &hints, &from);
		if (error != 0)
			return fail(outcome, EX_UNAVAILABLE, "cannot connect from %s: %s",
			    bind_text, lookup_error(error));
		hints.ai_family = from->ai_family; /* the target has to be of the same kind */
	}
	hints.ai_flags = AI_NUMERICSERV | (text->numeric ? AI_NUMERICHOST : 0);
	error = getaddrinfo(text->host, text->port, &hints, &found);
	if (error != 0)
		fail(outcome, EX_UNAVAILABLE, "cannot look up %s: %s", text->host,
		    lookup_error(error));
	else
		fd = connect_each(found, from, deadline, tried);
	if (error == 0 && fd == -1)
		fail_to_connect(target, text->numeric ? NULL : tried, bind_text, errno, outcome);
	if (found != NULL)
		freeaddrinfo(found);
	if (from != NULL)
		freeaddrinfo(from);
	return fd;
}

int connect_to(const char *target, const char *bind_text, int64_t deadline, struct outcome *outcome)
{
	struct address_text text;
	int fd;

	address_split(&text, target, false);
	if (text.kind == ADDRESS_TCP)
		return connect_tcp(&text, target, bind_text, deadline, outcome);
	fd = text.kind == ADDRESS_UNIX ? connect_unix(text.path, deadline)
				       : connect_vsock(&text, deadline);
	return fd != -1 ? fd : fail_to_connect(target, NULL, NULL, errno, outcome);
}

bool connect_can_begin(const char *target)
{
	struct address_text text;

	address_split(&text, target, false);
	return text.kind == ADDRESS_TCP && text.numeric;
}

int connect_begin(const char *target, const char *bind_text, struct outcome *outcome)
{
	return connect_to(target, bind_text, BEGIN_ONLY, outcome);
}

int connect_end(int fd, const char *target, const char *bind_text, int64_t deadline,
    struct outcome *outcome)
{
	struct pollfd ready = { .fd = fd, .events = POLLOUT };
	int error = ETIMEDOUT, count;
	socklen_t size = sizeof(error);

	while ((count = wait_poll(&ready, 1, deadline)) == -1)
		if (signal_stop)
			return fail_signal(outcome, signal_stop, " before the far side was ready");
	if (count > 0)
		getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
	return error == 0 ? 0 : fail_to_connect(target, NULL, bind_text, error, outcome);
}
