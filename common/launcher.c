#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "secret.h"
#include "wait.h"

#define LAUNCHER_CONTROL 3

/* Runs in the child. It knows no secret: those are in memory that fork wipes. */
static void run(int far, int control, char *const *argv, const struct keyring *ring, bool quiet,
    pid_t parent)
{
	struct destination usual = { .command = argv };
	uint32_t key;

	setpgid(0, 0);
	/*
	 * The connection and whatever else we inherited is not the command's, nor to be kept
	 * open. Where any of this fails it would get the wrong descriptors: then it does not run.
	 */
	if (dup2(far, STDIN_FILENO) == -1 || dup2(far, STDOUT_FILENO) == -1 ||
	    (quiet && dup2(open("/dev/null", O_WRONLY), STDERR_FILENO) == -1) ||
	    (control = fcntl(control, F_DUPFD, 10)) == -1 ||
	    dup3(control, LAUNCHER_CONTROL, O_CLOEXEC) == -1 ||
	    close_range(LAUNCHER_CONTROL + 1, ~0U, 0) != 0)
		_exit(127);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent || read(LAUNCHER_CONTROL, &key, sizeof(key)) != sizeof(key) ||
	    key >= ring->count || (argv = keyring_destination(ring, key, usual).command) == NULL)
		_exit(0);
	setenv("SPIPE_KEY", ring->key[key].name, 1);
	unsetenv("NOTIFY_SOCKET");
	unsetenv("CREDENTIALS_DIRECTORY");
	signals_release();
	secret_unharden();
	execvp(argv[0], argv);
	(void)!write(LAUNCHER_CONTROL, &errno, sizeof(errno));
	_exit(127);
}

int launcher_prepare(struct launcher *launcher, char *const *argv, const struct keyring *ring,
    bool quiet, struct outcome *outcome)
{
	int control[2], far[2];
	pid_t parent = getpid();

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, control) != 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, far) != 0)
		return fail(outcome, EX_OSERR, "no descriptors for the command: %s",
		    strerror(errno));
	launcher->pid = fork();
	if (launcher->pid == -1) {
		launcher->pid = 0;
		return fail(outcome, EX_OSERR, "cannot fork for the command: %s", strerror(errno));
	}
	if (launcher->pid == 0)
		run(far[1], control[1], argv, ring, quiet, parent);
	setpgid(launcher->pid, launcher->pid); /* whoever of the two comes first */
	close(control[1]);
	close(far[1]);
	launcher->control = control[0];
	launcher->socket = far[0];
	return 0;
}

int launcher_start(struct launcher *launcher, size_t key, const char *name, struct outcome *outcome)
{
	uint32_t index = (uint32_t)key;
	int error;
	ssize_t got;

	launcher->name = name;
	if (write(launcher->control, &index, sizeof(index)) != sizeof(index))
		return fail(outcome, EX_OSERR, "the launcher of the command is gone: %s",
		    strerror(errno));
	while ((got = read(launcher->control, &error, sizeof(error))) == -1 && errno == EINTR)
		;
	if (got == sizeof(error))
		return fail(outcome, EX_UNAVAILABLE, "cannot run the command %s: %s",
		    launcher->name, strerror(error));
	return 0;
}

int launcher_receive_socket(struct launcher *launcher, int64_t deadline, struct outcome *outcome)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	char byte;
	struct iovec data = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr message = { .msg_iov = &data,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control) };
	struct pollfd ready = { .fd = launcher->socket, .events = POLLIN };
	struct cmsghdr *passed;
	struct sockaddr_storage address;
	socklen_t size = sizeof(address), type_size = sizeof(int);
	int fd = -1, type;

	while (recvmsg(launcher->socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT) == -1) {
		if (signal_stop)
			return fail_signal(outcome, signal_stop,
			    " while the command was connecting");
		if (errno != EAGAIN && errno != EINTR)
			break;
		if (wait_poll(&ready, 1, deadline) == 0)
			return fail(outcome, EX_TEMPFAIL,
			    "the command %s handed back no socket "
			    "in time",
			    launcher->name);
	}
	passed = CMSG_FIRSTHDR(&message);
	if (passed != NULL && passed->cmsg_level == SOL_SOCKET && passed->cmsg_type == SCM_RIGHTS &&
	    passed->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(&fd, CMSG_DATA(passed), sizeof(fd));
	close(launcher->socket);
	launcher->socket = -1;
	if (launcher_finish(launcher, deadline, outcome) != 0)
		return -1;
	if (fd == -1 || getpeername(fd, (struct sockaddr *)&address, &size) != 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &type_size) != 0 || type != SOCK_STREAM)
		return fail(outcome, EX_UNAVAILABLE,
		    "the command %s handed back no connected "
		    "stream socket: -p needs one that does, as nc -F",
		    launcher->name);
	return fd;
}

/*
 * Kill the command, wherever it has gone, and what is left of its group. Returns its status as
 * wait(2) gives it.
 */
static int reap(struct launcher *launcher)
{
	int status = 0;

	kill(-launcher->pid, SIGKILL);
	kill(launcher->pid, SIGKILL);
	waitpid(launcher->pid, &status, 0);
	launcher->pid = 0;
	return status;
}

/*
 * Wait until the command has ended, or `deadline`. It is not reaped, so that its group's number
 * stays ours until the group is killed. Returns whether it has.
 */
static bool await_end(const struct launcher *launcher, int64_t deadline, siginfo_t *info)
{
	for (;;) {
		info->si_pid = 0;
		if (waitid(P_PID, (id_t)launcher->pid, info, WEXITED | WNOHANG | WNOWAIT) != 0 ||
		    info->si_pid != 0)
			return true;
		/* After SIGHUP there is time to end in peace. */
		if ((signal_stop && signal_stop != SIGHUP) || wait_poll(NULL, 0, deadline) == 0)
			return false;
	}
}

bool launcher_failed(struct launcher *launcher, struct outcome *outcome)
{
	siginfo_t info;

	return await_end(launcher, time_now() + SECOND / 10, &info) &&
	    launcher_finish(launcher, 0, outcome) != 0;
}

int launcher_finish(struct launcher *launcher, int64_t deadline, struct outcome *outcome)
{
	siginfo_t info;
	int status;

	if (launcher->pid == 0)
		return 0;
	if (!await_end(launcher, deadline, &info)) {
		launcher_kill(launcher);
		if (signal_stop)
			return fail_signal(outcome, signal_stop, " while the command was ending");
		return fail(outcome, EX_UNAVAILABLE, "the command %s did not exit and was killed",
		    launcher->name);
	}
	status = reap(launcher);
	if (WIFSIGNALED(status))
		return fail(outcome, EX_UNAVAILABLE, "the command %s was killed by signal %d (%s)",
		    launcher->name, WTERMSIG(status), strsignal(WTERMSIG(status)));
	if (WEXITSTATUS(status) != 0)
		return fail(outcome, EX_UNAVAILABLE, "the command %s exited with status %d",
		    launcher->name, WEXITSTATUS(status));
	return 0;
}

void launcher_kill(struct launcher *launcher)
{
	if (launcher->pid == 0)
		return;
	/* Stopped first, so that none of them runs on to see another's end as its end of input. */
	kill(-launcher->pid, SIGSTOP);
	reap(launcher);
}
