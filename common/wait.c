/* With it, and 64-bit times on a 32-bit system, glibc 2.36 has ppoll(2) misread the timeout. */
#undef _FORTIFY_SOURCE

#include "wait.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

int signal_stop;
int signal_progress;

static sigset_t taken, mask_found; /* the mask before signals_take, without `taken` */
static int pending = -1;           /* signalfd(2) of `taken` */

int64_t time_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * SECOND + t.tv_nsec;
}

static bool is_ours(int number)
{
	/* Our own faults; what does not end a process; and SIGPIPE, which is ignored. */
	static const char others[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS,
		SIGTSTP, SIGTTIN, SIGTTOU, SIGCONT, SIGURG, SIGWINCH, SIGPIPE, 0 };
	static const char unless_ignored[] = { SIGHUP, SIGINT, SIGQUIT, 0 };
	struct sigaction found;

	if (strchr(unless_ignored, number) != NULL)
		return sigaction(number, NULL, &found) == 0 && found.sa_handler != SIG_IGN;
	return strchr(others, number) == NULL;
}

int signals_take(void)
{
	if (pending != -1)
		return 0;
	sigemptyset(&taken);
	sigprocmask(SIG_BLOCK, NULL, &mask_found);
	for (int number = 1; number < NSIG; number++)
		if (is_ours(number)) {
			sigaddset(&taken, number);
			sigdelset(&mask_found, number); /* even if whoever started us blocked it */
		}
	pending = signalfd(-1, &taken, SFD_NONBLOCK | SFD_CLOEXEC);
	if (pending == -1)
		return -1;
	sigprocmask(SIG_BLOCK, &taken, NULL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGCHLD, SIG_DFL); /* if ignored, exit statuses would be lost */
	return 0;
}

void signals_release(void)
{
	pending = -1;
	signal_stop = 0;
	signal(SIGPIPE, SIG_DFL);
	sigprocmask(SIG_SETMASK, &mask_found, NULL);
}

void signals_die(int number)
{
	sigset_t only;

	sigemptyset(&only);
	sigaddset(&only, number);
	signal(number, SIG_DFL);
	kill(getpid(), number);
	sigprocmask(SIG_UNBLOCK, &only, NULL);
}

static void receive_signals(void)
{
	struct signalfd_siginfo info;

	while (read(pending, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo == SIGUSR1)
			signal_progress = 1;
		else if (info.ssi_signo != SIGCHLD)
			signal_stop = (int)info.ssi_signo;
	}
}

int wait_ready(int fd, short events, int64_t deadline)
{
	struct pollfd slot = { .fd = fd, .events = events };

	while (!signal_stop && time_now() < deadline)
		if (wait_poll(&slot, 1, deadline) == 1)
			return 0;
	errno = signal_stop ? EINTR : ETIMEDOUT;
	return -1;
}

int wait_poll(struct pollfd *fds, nfds_t count, int64_t deadline)
{
	struct pollfd all[count + 1];
	int64_t now = time_now(), left = deadline > now ? deadline - now : 0;
	struct timespec timeout = { .tv_sec = left / SECOND, .tv_nsec = left % SECOND };
	int ready;

	for (nfds_t i = 0; i < count; i++)
		all[i] = fds[i];
	all[count] = (struct pollfd){ .fd = pending, .events = POLLIN };
	ready = ppoll(all, count + 1, deadline == NEVER ? NULL : &timeout, NULL);
	if (ready > 0 && all[count].revents != 0) {
		receive_signals();
		errno = EINTR;
		return -1;
	}
	for (nfds_t i = 0; i < count; i++)
		fds[i] = all[i];
	return ready;
}
