#ifndef SPIPE_WAIT_H
#define SPIPE_WAIT_H

#include <poll.h>
#include <signal.h>
#include <stdint.h>

/* Points in time and spans are nanoseconds of CLOCK_MONOTONIC; NEVER is no deadline. */
#define SECOND INT64_C(1000000000)
#define NEVER INT64_MAX

int64_t time_now(void);

/* What signals asked for: written by their handlers, cleared by who acts on them. */
extern volatile sig_atomic_t signal_stop;     /* SIGTERM or another that ends us: its number */
extern volatile sig_atomic_t signal_progress; /* SIGUSR1 */

/*
 * Handle what would end us, SIGUSR1 and SIGCHLD, ignore SIGPIPE. All of them stay blocked but
 * inside wait_poll, so that none is missed. SIGHUP, SIGINT and SIGQUIT that were ignored (nohup,
 * jobs in the background) stay ignored.
 */
void signals_take(void);

/* What we handle is let in again, SIGPIPE and SIGCHLD do what they do by default: before exec or our end. */
void signals_release(void);

/* poll(2) until `deadline`, with our signals let in. A signal makes it return -1, EINTR. */
int wait_poll(struct pollfd *, nfds_t, int64_t deadline);

#endif
