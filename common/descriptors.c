#include "descriptors.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define LISTEN_FDS_START 3

/* How many descriptors systemd passed to us; our command shall not think they are for it. */
static long passed_descriptors(void)
{
	const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");
	long count = 0;

	if (pid != NULL && fds != NULL && strtol(pid, NULL, 10) == getpid())
		count = strtol(fds, NULL, 10);
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
	unsetenv("LISTEN_PIDFDID");
	return count;
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
	value = 0;
	getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &value, &size);
	if (value != 0)
		return fail(outcome, EX_USAGE,
		    "descriptor %d, the %s, is a listening socket, not a "
		    "connection: who starts us has to accept, as with Accept=yes (systemd) or "
		    "wait = no (xinetd)",
		    fd, side);
	return 0;
}

/* Would what we write to stderr go where fd goes, a socket or, if `by_pipe`, a pipe? */
static bool is_stderr(int fd, bool by_pipe)
{
	struct stat ours, theirs;

	return fstat(fd, &ours) == 0 && fstat(STDERR_FILENO, &theirs) == 0 &&
	    (S_ISSOCK(ours.st_mode) || (by_pipe && S_ISFIFO(ours.st_mode))) &&
	    ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino;
}

void descriptors_find(struct descriptors *found, bool is_wire)
{
	struct sockaddr_storage address = { 0 };
	socklen_t size = sizeof(address);
	long passed = passed_descriptors();
	struct stat st;
	bool by_pipe;

	*found = (struct descriptors){ .in = STDIN_FILENO, .out = STDOUT_FILENO };
	found->ucspi = fcntl(6, F_GETFD) != -1 && fcntl(7, F_GETFD) != -1;
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
		if (fcntl(fd, F_GETFD) != -1)
			continue;
		if (fd != STDERR_FILENO && passed == 0)
			fail(&found->wrong, EX_USAGE, "descriptor %d, the near side, is not open",
			    fd);
		open("/dev/null", O_RDWR);
	}
	if (passed > 1)
		fail(&found->wrong, EX_USAGE,
		    "%ld descriptors were passed by LISTEN_FDS, and one "
		    "connection is what we serve",
		    passed);
	else if (passed == 1)
		found->in = found->out = LISTEN_FDS_START;
	if (found->wrong.status == 0 &&
	    descriptors_check(found->in, false, "near side", &found->wrong) == 0)
		descriptors_check(found->out, true, "near side", &found->wrong);
	/* With pipes the wire has to come and go by one, as from ncat -e: `2>&1 |` alone is no peer. */
	by_pipe = is_wire && fstat(found->in, &st) == 0 &&
	    (S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode));
	found->is_stderr = is_stderr(found->in, by_pipe) || is_stderr(found->out, by_pipe);
	found->is_network = getsockname(found->in, (struct sockaddr *)&address, &size) == 0 &&
	    address.ss_family != AF_UNIX;
}
