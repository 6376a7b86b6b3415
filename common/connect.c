#include "connect.h"

#include <errno.h>
#include <limits.h>
#include <sys/socket.h> /* before the next, where that does not include it */

#include <linux/vm_sockets.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "address.h"
#include "side.h"
#include "wait.h"

#define RETRY (SECOND / 100) /* while the queue of a UNIX socket is full */

static int fail_to_connect(const struct places *places, const char *tried, int error,
    struct outcome *outcome)
{
	const char *from = places->from_text;

	if (error == ECONNRESET || error == EPIPE) /* it was connected, if only for a moment */
		return fail(outcome, EX_IOERR, "the far side was lost: %s", strerror(error));
	return fail(outcome, error == ETIMEDOUT ? EX_TEMPFAIL : EX_UNAVAILABLE,
	    "cannot connect to %s%s%s%s%s%s: %s", places->to_text, tried != NULL ? " (" : "",
	    tried != NULL ? tried : "", tried != NULL ? ")" : "", from != NULL ? " from " : "",
	    from != NULL ? from : "", strerror(error));
}

static const char *lookup_error(int error)
{
	return error == EAI_SYSTEM ? strerror(errno) : gai_strerror(error);
}

static void only_place(struct places *places, const struct address_text *text)
{
	struct sockaddr_un *path = (struct sockaddr_un *)&places->address;
	struct sockaddr_vm *machine = (struct sockaddr_vm *)&places->address;

	places->only.ai_addr = (struct sockaddr *)&places->address;
	if (text->kind == ADDRESS_UNIX) {
		path->sun_family = AF_UNIX;
		memcpy(path->sun_path, text->path, strlen(text->path));
		places->only.ai_addrlen = sizeof(*path);
	} else {
		machine->svm_family = AF_VSOCK;
		machine->svm_cid = (unsigned)strtoul(text->host, NULL, 10);
		machine->svm_port = (unsigned)strtoul(text->port, NULL, 10);
		places->only.ai_addrlen = sizeof(*machine);
	}
	places->to = &places->only;
}

int connect_find(struct places *places, const char *target, const char *bind_text,
    struct outcome *outcome)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV };
	struct address_text text, local;
	int error;

	*places = (struct places){ .to_text = target, .from_text = bind_text };
	address_split(&text, target, false);
	places->named = text.kind == ADDRESS_TCP && !text.numeric;
	if (text.kind != ADDRESS_TCP) {
		only_place(places, &text);
		return 0;
	}
	if (bind_text != NULL) {
		address_split_local(&local, bind_text);
		hints.ai_flags |= AI_NUMERICHOST;
		error = getaddrinfo(local.host, local.port, &hints, &places->from);
		if (error != 0)
			return fail(outcome, EX_UNAVAILABLE, "cannot connect from %s: %s",
			    bind_text, lookup_error(error));
		/* The target has to be of the same kind. */
		hints.ai_family = places->from->ai_family;
	}
	hints.ai_flags = AI_NUMERICSERV | (text.numeric ? AI_NUMERICHOST : 0);
	error = getaddrinfo(text.host, text.port, &hints, &places->to);
	if (error != 0)
		return fail(outcome, EX_UNAVAILABLE, "cannot look up %s: %s", text.host,
		    lookup_error(error));
	return 0;
}

bool connect_at_once(const char *target)
{
	struct address_text text;

	address_split(&text, target, false);
	return text.kind == ADDRESS_TCP && text.numeric && strchr(text.host, '%') == NULL;
}

/* Begin to connect to one address. Returns the socket, or -1 with errno set. */
static int begin(const struct addrinfo *to, const struct addrinfo *from)
{
	int fd = socket(to->ai_addr->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int on = 1, error;

	if (fd == -1)
		return -1;
	side_break_on_close(fd); /* if nobody comes to use it */
	/* A port that an earlier connection came from may still be in TIME_WAIT. */
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if ((from == NULL || bind(fd, from->ai_addr, from->ai_addrlen) == 0) &&
	    (connect(fd, to->ai_addr, to->ai_addrlen) == 0 || errno == EINPROGRESS))
		return fd;
	error = errno;
	close(fd);
	errno = error;
	return -1;
}

/* Wait until a socket is connected. Returns 0, or what errno would be: EINTR after a signal. */
static int finish(int fd, int64_t deadline)
{
	int error = 0;
	socklen_t size = sizeof(error);

	if (wait_ready(fd, POLLOUT, deadline) != 0)
		return errno;
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
	return error;
}

/* Connect to one address before `deadline`. Returns the socket, or -1 with errno set. */
static int try_place(const struct addrinfo *to, const struct addrinfo *from, int64_t deadline)
{
	int fd, error;

	while ((fd = begin(to, from)) == -1 && errno == EAGAIN && time_now() < deadline)
		wait_poll(NULL, 0, time_now() + RETRY);
	error = fd == -1 ? errno : finish(fd, deadline);
	if (fd != -1 && error != 0) {
		close(fd);
		fd = -1;
	}
	errno = error == EAGAIN ? ETIMEDOUT : error;
	return fd;
}

int connect_to(const char *target, const char *bind_text, int64_t deadline, struct outcome *outcome)
{
	struct places places;
	char tried[NI_MAXHOST] = "";
	int64_t now, left = 0;
	int fd = -1, found = connect_find(&places, target, bind_text, outcome);

	for (const struct addrinfo *one = places.to; one != NULL; one = one->ai_next)
		left++;
	for (const struct addrinfo *one = places.to; one != NULL && fd == -1; one = one->ai_next) {
		getnameinfo(one->ai_addr, one->ai_addrlen, tried, sizeof(tried), NULL, 0,
		    NI_NUMERICHOST);
		now = time_now();
		fd = try_place(one, places.from, now + (deadline - now) / left--);
	}
	if (found == 0 && fd == -1)
		fail_to_connect(&places, places.named ? tried : NULL, errno, outcome);
	if (places.to != NULL && places.to != &places.only)
		freeaddrinfo(places.to);
	if (places.from != NULL)
		freeaddrinfo(places.from);
	return fd;
}

int connect_begin(const struct places *places, struct outcome *outcome)
{
	int fd = begin(places->to, places->from);

	return fd != -1 ? fd : fail_to_connect(places, NULL, errno, outcome);
}

int connect_end(int fd, const struct places *places, int64_t deadline, struct outcome *outcome)
{
	int error = finish(fd, deadline);

	if (error == EINTR)
		return fail_signal(outcome, signal_stop, " before the far side was ready");
	return error == 0 ? 0 : fail_to_connect(places, NULL, error, outcome);
}
