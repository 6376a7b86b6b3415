#include "wait.h"

#include <stddef.h>
#include <time.h>

volatile sig_atomic_t signal_stop;
volatile sig_atomic_t signal_progress;

static sigset_t mask_found;

int64_t time_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * SECOND + t.tv_nsec;
}

static void on_signal(int number)
{
	if (number == SIGUSR1)
		signal_progress = 1;
	else if (number != SIGCHLD)
		signal_stop = number;
}

/* All that would end us without a word, and so show the command a clean end. */
static const int handled[] = { SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGALRM, SIGUSR2, SIGXCPU, SIGUSR1,
	SIGCHLD };

void signals_take(void)
{
	struct sigaction action = { .sa_handler = on_signal }, found;
	sigset_t block;

	sigemptyset(&block);
	sigprocmask(SIG_BLOCK, NULL, &mask_found);
	for (size_t i = 0; i < sizeof(handled) / sizeof(handled[0]); i++) {
		int number = handled[i];

		/* Ours even if whoever started us had them blocked. */
		sigdelset(&mask_found, number);
		sigaction(number, NULL, &found);
		if (found.sa_handler == SIG_IGN &&
		    (number == SIGHUP || number == SIGINT || number == SIGQUIT))
			continue;
		sigaction(number, &action, NULL);
		sigaddset(&block, number);
	}
	sigprocmask(SIG_BLOCK, &block, NULL);
	signal(SIGPIPE, SIG_IGN);
}

void signals_release(void)
{
	/* The program's handlers go with exec; what we ignore would stay. */
	signal(SIGPIPE, SIG_DFL);
	signal(SIGCHLD, SIG_DFL);
	sigprocmask(SIG_SETMASK, &mask_found, NULL);
}

int wait_poll(struct pollfd *fds, nfds_t count, int64_t deadline)
{
	int64_t left = deadline == NEVER ? 0 : deadline - time_now();
	struct timespec timeout = { 0 };

	if (left > 0) {
		timeout.tv_sec = left / SECOND;
		timeout.tv_nsec = left % SECOND;
	}
	return ppoll(fds, count, deadline == NEVER ? NULL : &timeout, &mask_found);
}
