#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "connect.h"
#include "sandbox.h"
#include "side.h"
#include "wait.h"

/* The launcher's descriptors. */
#define LAUNCHER_CONTROL 3
#define LAUNCHER_KEPT 4 /* the filter's end of the command's stdin and stdout */

/* One message with at most one descriptor in it. */
struct message {
	struct iovec data;
	char control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(_Alignof(struct cmsghdr))));
	struct msghdr header;
};

static void message_set(struct message *message, void *data, size_t size)
{
	memset(message, 0, sizeof(*message));
	message->data = (struct iovec){ .iov_base = data, .iov_len = size };
	message->header = (struct msghdr){ .msg_iov = &message->data,
		.msg_iovlen = 1,
		.msg_control = message->control,
		.msg_controllen = sizeof(message->control) };
}

int launcher_answer(int control, int fd, struct outcome *outcome)
{
	struct message message;
	struct cmsghdr *passed;

	message_set(&message, outcome, sizeof(*outcome));
	passed = CMSG_FIRSTHDR(&message.header);
	*passed = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof(fd)),
		.cmsg_level = SOL_SOCKET,
		.cmsg_type = SCM_RIGHTS };
	memcpy(CMSG_DATA(passed), &fd, sizeof(fd));
	if (fd == -1)
		message.header.msg_controllen = 0;
	return sendmsg(control, &message.header, MSG_NOSIGNAL) == -1 ? -1 : 0;
}

/* Become the command. Returns only if that cannot be done. */
static void become(const struct errand *errand, struct outcome *outcome)
{
	signals_release();
	setenv("SPIPE_KEY", errand->key, 1);
	unsetenv("NOTIFY_SOCKET");
	sandbox_confine_command(getenv("CREDENTIALS_DIRECTORY"));
	unsetenv("CREDENTIALS_DIRECTORY");
	execvp(errand->to.command[0], errand->to.command);
	fail(outcome, EX_UNAVAILABLE, "cannot run the command %s: %s", errand->to.command[0],
	    strerror(errno));
}

/* Die with `parent`. */
static void follow(pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(0);
}

/*
 * The launcher has forked the command: end as it ends. If the filter dies first, kill the group.
 * The command does not see the end of its input then, because the filter's end of the socket is
 * open here, too.
 */
static _Noreturn void watch(pid_t command, pid_t filter)
{
	sigset_t child;
	int status;

	close(STDIN_FILENO);
	close(STDOUT_FILENO);
	close(LAUNCHER_CONTROL);
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	prctl(PR_SET_PDEATHSIG, SIGCHLD);
	while (waitpid(command, &status, WNOHANG) == 0) {
		if (getppid() != filter) {
			if (getpgid(command) != getpgrp())
				kill(command, SIGKILL); /* before our end of its input is closed */
			kill(0, SIGKILL);
		}
		sigwaitinfo(&child, NULL);
	}
	if (WIFSIGNALED(status))
		signals_die(WTERMSIG(status));
	_exit(WEXITSTATUS(status));
}

/* Runs in the child, which has no secrets: fork empties their memory. */
static _Noreturn void run(const int far[2], int control, const struct errand *errands, size_t count,
    bool quiet, int64_t deadline, pid_t filter)
{
	struct outcome outcome = { 0 };
	uint32_t index;
	int fd = -1, kept;
	pid_t launcher = getpid(), command;

	setpgid(0, 0);
	/*
	 * Our connection and whatever else we inherited are not the launcher's to keep open. If any
	 * of this fails, a command would get the wrong descriptors, so it does not run.
	 */
	if (dup2(far[1], STDIN_FILENO) == -1 || dup2(far[1], STDOUT_FILENO) == -1 ||
	    (quiet && dup2(open("/dev/null", O_WRONLY), STDERR_FILENO) == -1) ||
	    (control = fcntl(control, F_DUPFD, 10)) == -1 ||
	    (kept = fcntl(far[0], F_DUPFD, 10)) == -1 ||
	    dup3(control, LAUNCHER_CONTROL, O_CLOEXEC) == -1 ||
	    dup3(kept, LAUNCHER_KEPT, O_CLOEXEC) == -1 ||
	    syscall(__NR_close_range, LAUNCHER_KEPT + 1, ~0U, 0) != 0) /* musl has no function */
		_exit(127);
	follow(filter);
	if (read(LAUNCHER_CONTROL, &index, sizeof(index)) != sizeof(index) || index >= count)
		_exit(0);
	if (errands[index].to.target != NULL) {
		signals_release();
		fd = connect_to(errands[index].to.target, errands[index].bind, deadline, &outcome);
	} else if (errands[index].to.command != NULL) {
		command = fork();
		if (command > 0)
			watch(command, filter);
		if (command == 0) {
			follow(launcher);
			become(&errands[index], &outcome);
		} else
			fail(&outcome, EX_OSERR, "cannot fork: %s", strerror(errno));
	}
	launcher_answer(LAUNCHER_CONTROL, fd, &outcome);
	_exit(0);
}

int launcher_prepare(struct launcher *launcher, const struct errand *errands, size_t count,
    bool quiet, int64_t deadline, struct outcome *outcome)
{
	int control[2], far[2];
	pid_t parent = getpid();

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control) != 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, far) != 0)
		return fail(outcome, EX_OSERR, "no descriptors for the launcher: %s",
		    strerror(errno));
	launcher->pid = fork();
	if (launcher->pid == -1) {
		launcher->pid = 0;
		return fail(outcome, EX_OSERR, "cannot fork the launcher: %s", strerror(errno));
	}
	if (launcher->pid == 0)
		run(far, control[1], errands, count, quiet, deadline, parent);
	setpgid(launcher->pid,
	    launcher->pid); /* here and in the child, because either may run first */
	close(control[1]);
	close(far[1]);
	launcher->control = control[0];
	launcher->socket = far[0];
	return 0;
}

void launcher_lend(struct launcher *launcher, const char *target, int control)
{
	*launcher = (struct launcher){ .control = control,
		.name = target,
		.connecting = true,
		.lent = true };
}

int launcher_start(struct launcher *launcher, const struct errand *errands, size_t index,
    struct outcome *outcome)
{
	uint32_t number = (uint32_t)index;

	launcher->connecting = errands[index].to.target != NULL;
	launcher->name = launcher->connecting ? errands[index].to.target
					      : errands[index].to.command[0];
	if (send(launcher->control, &number, sizeof(number), MSG_NOSIGNAL) == sizeof(number))
		return 0;
	return fail(outcome, EX_OSERR, "the launcher is gone: %s", strerror(errno));
}

/*
 * Receive one message from `from`, with the descriptor that came with it, or -1, in *fd. Returns
 * its size, 0 at the end of input, or -1 with the outcome set: a signal, or 75 "KIND NAME `late`".
 */
static ssize_t receive(const struct launcher *launcher, int from, void *data, size_t size, int *fd,
    int64_t deadline, const char *late, struct outcome *outcome)
{
	struct message message;
	struct cmsghdr *passed;
	ssize_t got;

	*fd = -1;
	message_set(&message, data, size);
	while ((got = recvmsg(from, &message.header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT)) == -1) {
		if (errno != EAGAIN && errno != EINTR)
			return 0;
		if (wait_ready(from, POLLIN, deadline) == 0)
			continue;
		if (errno == EINTR)
			return fail_signal(outcome, signal_stop, " before the far side was ready");
		return fail(outcome, EX_TEMPFAIL, "the %s %s %s in time",
		    launcher->connecting ? "target" : "command", launcher->name, late);
	}
	passed = CMSG_FIRSTHDR(&message.header);
	if (passed != NULL && passed->cmsg_level == SOL_SOCKET && passed->cmsg_type == SCM_RIGHTS &&
	    passed->cmsg_len == CMSG_LEN(sizeof(int)) && !(message.header.msg_flags & MSG_CTRUNC))
		memcpy(fd, CMSG_DATA(passed), sizeof(*fd));
	return got;
}

/* Receive the socket that the command passes back. Returns it, or -1 (69, 75). */
static int receive_from_command(struct launcher *launcher, int64_t deadline,
    struct outcome *outcome)
{
	struct sockaddr_storage address;
	socklen_t size = sizeof(address), type_size = sizeof(int);
	int fd, type;
	char byte;

	if (receive(launcher, launcher->socket, &byte, 1, &fd, deadline, "passed back no socket",
		outcome) == -1)
		return -1;
	side_break_on_close(fd);
	shutdown(launcher->socket, SHUT_RDWR); /* the launcher has it open, too */
	close(launcher->socket);
	launcher->socket = -1;
	if (launcher_finish(launcher, deadline, outcome) != 0)
		return -1;
	if (fd == -1 || getpeername(fd, (struct sockaddr *)&address, &size) != 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &type_size) != 0 || type != SOCK_STREAM)
		return fail(outcome, EX_UNAVAILABLE,
		    "the command %s passed back no connected stream socket: -p needs one that does, such as nc -F",
		    launcher->name);
	return fd;
}

int launcher_far_side(struct launcher *launcher, bool fd_pass, int64_t deadline,
    struct outcome *outcome)
{
	struct outcome answer;
	int fd;
	ssize_t got = receive(launcher, launcher->control, &answer, sizeof(answer), &fd, deadline,
	    launcher->connecting ? "did not answer" : "did not start", outcome);

	if (got == -1)
		return -1;
	if (got == sizeof(answer) && answer.status != 0) {
		*outcome = answer;
		return -1;
	}
	if (!launcher->connecting)
		return fd_pass ? receive_from_command(launcher, deadline, outcome)
			       : launcher->socket;
	if (fd == -1)
		return fail(outcome, EX_OSERR, "no socket came from the %s",
		    launcher->lent ? "listener" : "launcher");
	return launcher_finish(launcher, deadline, outcome) == 0 ? fd : -1;
}

/*
 * Kill the group. A command that has left it dies with the launcher, unless it has changed its user,
 * too. Returns the launcher's status, as from wait(2).
 */
static int reap(struct launcher *launcher)
{
	int status = 0;

	kill(-launcher->pid, SIGKILL);
	waitpid(launcher->pid, &status, 0);
	launcher->pid = 0;
	return status;
}

/*
 * Wait until the command has ended, or `deadline`. It is not reaped, so that the ID of its group is
 * not reused before the group is killed. Returns whether it has ended.
 */
static bool await_end(const struct launcher *launcher, int64_t deadline, siginfo_t *info)
{
	for (;;) {
		info->si_pid = 0;
		if (waitid(P_PID, (id_t)launcher->pid, info, WEXITED | WNOHANG | WNOWAIT) != 0 ||
		    info->si_pid != 0)
			return true;
		/* After SIGHUP the command may still end by itself. */
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
	if (launcher->pid != 0)
		reap(launcher);
}
