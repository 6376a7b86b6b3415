#ifndef SPIPE_WAIT_H
#define SPIPE_WAIT_H

#include <poll.h>
#include <signal.h>
#include <stdint.h>

/* Points in time and spans are nanoseconds of CLOCK_MONOTONIC; NEVER: no deadline. */
#define SECOND INT64_C(1000000000)
#define NEVER INT64_MAX

int64_t time_now(void);

/* What signals asked for. Set by wait_poll, cleared by whoever acts on it. */
extern int signal_stop;     /* the last signal that asked us to end: its number, else 0 */
extern int signal_progress; /* SIGUSR1 */

/*
 * Take over SIGCHLD and every signal that would otherwise end the process, except those for its own
 * faults (SIGSEGV and the like). From here on they are blocked, and only wait_poll receives
 * them. SIGPIPE is ignored. SIGHUP, SIGINT and SIGQUIT that were ignored (nohup, background jobs)
 * stay ignored. Call it before the sandbox. A child process inherits all this; calling it again is
 * harmless. Returns 0, or -1 with errno set when there is no descriptor left.
 */
int signals_take(void);

/*
 * For a child process that may exec, and needs no signals: those that were blocked or ignored are
 * again as they were before signals_take. wait_poll can still be used.
 */
void signals_release(void);

/* End the process by this signal. Returns only where that cannot be done, as in process 1. */
void signals_die(int number);

/*
 * poll(2) until `deadline`. Returns the number of ready descriptors; 0 at the deadline; -1 with
 * EINTR when a signal came, whatever else is ready: signal_stop or signal_progress is set, or a
 * child has changed state (SIGCHLD).
 */
int wait_poll(struct pollfd *, nfds_t, int64_t deadline);

/*
 * Wait until one descriptor is ready. Returns 0; or -1 with ETIMEDOUT after the deadline, or EINTR
 * if signal_stop is set, even if it is ready. Other signals do not end the wait.
 */
int wait_ready(int fd, short events, int64_t deadline);

#endif
