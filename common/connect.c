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

/* The addresses of a target, to be tried in turn, and the one to connect from. */
struct places {
	struct addrinfo *found, *from; /* from getaddrinfo(3), or NULL */
	struct addrinfo only;          /* for a UNIX or VSOCK target */
	struct sockaddr_storage address;
};

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

static const char *lookup_error(int error)
{
	return error == EAI_SYSTEM ? strerror(errno) : gai_strerror(error);
}

static struct addrinfo *only_place(struct places *places, const struct address_text *text)
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
	return &places->only;
}

/* Returns the first of the addresses of a target, or NULL with the outcome set. */
static struct addrinfo *find_places(struct places *places, const struct address_text *text,
    const char *bind_text, struct outcome *outcome)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV };
	struct address_text local;
	int error;

	memset(places, 0, sizeof(*places));
	if (text->kind != ADDRESS_TCP)
		return only_place(places, text);
	if (bind_text != NULL) {
		address_split_local(&local, bind_text);
		hints.ai_flags |= AI_NUMERICHOST;
		error = getaddrinfo(local.host, local.port, &hints, &places->from);
		if (error != 0) {
			fail(outcome, EX_UNAVAILABLE, "cannot connect from %s: %s", bind_text,
			    lookup_error(error));
			return NULL;
		}
		hints.ai_family = places->from
				      ->ai_family; /* the target has to be of the same kind */
	}
	hints.ai_flags = AI_NUMERICSERV | (text->numeric ? AI_NUMERICHOST : 0);
	error = getaddrinfo(text->host, text->port, &hints, &places->found);
	if (error != 0)
		fail(outcome, EX_UNAVAILABLE, "cannot look up %s: %s", text->host,
		    lookup_error(error));
	return places->found;
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

/* As connect_to, but unless `wait`, the connection is only begun, to the first address. */
static int connect_target(const char *target, const char *bind_text, bool wait, int64_t deadline,
    struct outcome *outcome)
{
	struct address_text text;
	struct places places;
	const struct addrinfo *first, *one;
	char tried[NI_MAXHOST] = "";
	int64_t now, left = 0;
	int fd = -1;

	address_split(&text, target, false);
	first = find_places(&places, &text, bind_text, outcome);
	for (one = first; one != NULL; one = one->ai_next)
		left++;
	for (one = first; one != NULL && fd == -1; one = one->ai_next, left--) {
		getnameinfo(one->ai_addr, one->ai_addrlen, tried, sizeof(tried), NULL, 0,
		    NI_NUMERICHOST);
		now = time_now();
		fd = wait ? try_place(one, places.from, now + (deadline - now) / left)
			  : begin(one, places.from);
	}
	if (first != NULL && fd == -1)
		fail_to_connect(target, text.kind != ADDRESS_TCP || text.numeric ? NULL : tried,
		    bind_text, errno, outcome);
	if (places.found != NULL)
		freeaddrinfo(places.found);
	if (places.from != NULL)
		freeaddrinfo(places.from);
	return fd;
}

int connect_to(const char *target, const char *bind_text, int64_t deadline, struct outcome *outcome)
{
	return connect_target(target, bind_text, true, deadline, outcome);
}

int connect_begin(const char *target, const char *bind_text, struct outcome *outcome)
{
	return connect_target(target, bind_text, false, NEVER, outcome);
}

bool connect_can_begin(const char *target)
{
	struct address_text text;

	address_split(&text, target, false);
	return text.kind == ADDRESS_TCP && text.numeric;
}

int connect_end(int fd, const char *target, const char *bind_text, int64_t deadline,
    struct outcome *outcome)
{
	int error = finish(fd, deadline);

	if (error == EINTR)
		return fail_signal(outcome, signal_stop, " before the far side was ready");
	return error == 0 ? 0 : fail_to_connect(target, NULL, bind_text, error, outcome);
}
