#include "descriptors.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "parse.h"

#define LISTEN_FDS_START 3

/* How many descriptors systemd passed to us. The variables are not meant for our command. */
static int passed_descriptors(struct outcome *wrong)
{
	const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");
	uint64_t count = 0;

	if (pid != NULL && fds != NULL && strtol(pid, NULL, 10) == getpid() &&
	    !parse_number(fds, 0, DESCRIPTORS_LOOKED_AT, &count)) {
		count = 0;
		fail(wrong, EX_USAGE, "LISTEN_FDS is not a number from 0 to %d: %s",
		    DESCRIPTORS_LOOKED_AT, fds);
	}
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
	unsetenv("LISTEN_PIDFDID");
	return (int)count;
}

static bool is_listening(int fd)
{
	int value = 0;
	socklen_t size = sizeof(value);

	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &value, &size) == 0 && value != 0;
}

int descriptors_check(int fd, bool writing, const char *side, struct outcome *outcome)
{
	int mode = fcntl(fd, F_GETFL) & O_ACCMODE;
	int value = 0;
	socklen_t size = sizeof(value);
	struct stat st;

	if (fstat(fd, &st) != 0)
		return fail(outcome, EX_USAGE, "descriptor %d, the %s, is not open", fd, side);
	if (S_ISDIR(st.st_mode))
		return fail(outcome, EX_USAGE, "descriptor %d, the %s, is a directory", fd, side);
	if (mode == (writing ? O_RDONLY : O_WRONLY))
		return fail(outcome, EX_USAGE, "descriptor %d, the %s, is open for %s only", fd,
		    side, writing ? "reading" : "writing");
	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &value, &size) == 0 && value != SOCK_STREAM)
		return fail(outcome, EX_USAGE, "descriptor %d, the %s, is not a stream socket", fd,
		    side);
	if (is_listening(fd))
		return fail(outcome, EX_USAGE,
		    "descriptor %d, the %s, is a listening socket, not a connection", fd, side);
	return 0;
}

/* A terminal in raw mode carries data; any other is read by a person. */
static bool is_raw_terminal(int fd)
{
	struct termios modes;

	return tcgetattr(fd, &modes) == 0 && (modes.c_lflag & ICANON) == 0;
}

/* Does stderr lead where fd does: to a socket, a raw terminal or, if `by_pipe`, a pipe? */
static bool is_stderr(int fd, bool by_pipe)
{
	struct stat ours, theirs;

	return fstat(fd, &ours) == 0 && fstat(STDERR_FILENO, &theirs) == 0 &&
	    (S_ISSOCK(ours.st_mode) || (by_pipe && S_ISFIFO(ours.st_mode)) ||
		is_raw_terminal(fd)) &&
	    ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino;
}

/* Which descriptors above 2 are open that are neither the near side's nor a UCSPI client's. */
static void find_others(struct descriptors *found, int first)
{
	struct pollfd all[DESCRIPTORS_LOOKED_AT] = { 0 };
	int most = getdtablesize();

	if (most > DESCRIPTORS_LOOKED_AT)
		most = DESCRIPTORS_LOOKED_AT;
	for (int fd = 0; fd < most; fd++)
		all[fd].fd = fd;
	if (poll(all, (nfds_t)most, 0) == -1)
		return; /* none is known to be inherited */
	for (int fd = first; fd < most; fd++)
		found->others[fd] = (all[fd].revents & POLLNVAL) == 0;
	if (found->ucspi)
		found->others[6] = found->others[7] = false;
}

/* The near side is what was passed to us: one connection, or listening sockets. */
static void take_passed(struct descriptors *found, int passed)
{
	int first = passed > 0 ? LISTEN_FDS_START : STDIN_FILENO;

	if (is_listening(first)) {
		found->listening = first;
		found->listeners = passed > 0 ? passed : 1;
		for (int fd = first; fd < first + found->listeners; fd++)
			if (!is_listening(fd))
				fail(&found->wrong, EX_USAGE,
				    "descriptor %d was passed with listening sockets, but is not one",
				    fd);
	} else if (passed > 1)
		fail(&found->wrong, EX_USAGE,
		    "%d descriptors were passed by LISTEN_FDS: more than one connection", passed);
	else if (passed == 1)
		found->in = found->out = LISTEN_FDS_START;
}

void descriptors_find(struct descriptors *found, bool near_is_wire)
{
	struct stat st;
	bool by_pipe;
	int passed;

	*found = (struct descriptors){ .in = STDIN_FILENO, .out = STDOUT_FILENO };
	passed = passed_descriptors(&found->wrong);
	found->ucspi = !is_listening(passed > 0 ? LISTEN_FDS_START : STDIN_FILENO) &&
	    fcntl(6, F_GETFD) != -1 && fcntl(7, F_GETFD) != -1;
	find_others(found, LISTEN_FDS_START + passed);
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
		if (fcntl(fd, F_GETFD) != -1)
			continue;
		if (fd != STDERR_FILENO && passed == 0)
			fail(&found->wrong, EX_USAGE, "descriptor %d, the near side, is not open",
			    fd);
		open("/dev/null", O_RDWR);
	}
	take_passed(found, passed);
	if (found->listeners == 0 && found->wrong.status == 0 &&
	    descriptors_check(found->in, false, "near side", &found->wrong) == 0)
		descriptors_check(found->out, true, "near side", &found->wrong);
	/* Under ncat -e, stderr is the pipe of the wire. After a mere `2>&1 |` it is not. */
	by_pipe = near_is_wire && fstat(found->in, &st) == 0 &&
	    (S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode));
	if (found->listeners == 0)
		found->is_stderr = is_stderr(found->in, by_pipe) || is_stderr(found->out, by_pipe);
	/* A listener does not use its standard output. */
	for (int i = 0; i < found->listeners; i++)
		found->is_stderr |= is_stderr(found->listening + i, false);
}

void descriptors_set_near(struct descriptors *found, int fd)
{
	if (found->listening == STDIN_FILENO) { /* inetd leaves it as all three */
		int null = open("/dev/null", O_RDWR | O_CLOEXEC);

		for (int old = STDIN_FILENO; old <= STDERR_FILENO; old++)
			if (is_listening(old))
				dup2(null, old);
		close(null);
	}
	for (int old = found->listening; old < found->listening + found->listeners; old++)
		if (old > STDERR_FILENO)
			close(old);
	found->in = found->out = fd;
	memset(found->others, 0,
	    sizeof(found->others)); /* the listener closed what it did not need */
}

void descriptors_close_others(struct descriptors *found)
{
	for (int fd = 0; fd < DESCRIPTORS_LOOKED_AT; fd++)
		if (found->others[fd])
			close(fd);
	memset(found->others, 0, sizeof(found->others));
}
