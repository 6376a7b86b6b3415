#ifndef SPIPE_LISTENER_H
#define SPIPE_LISTENER_H

#include <stdbool.h>
#include <stdint.h>

#include "address.h"
#include "connect.h"
#include "descriptors.h"
#include "launcher.h"
#include "outcome.h"
#include "report.h"

/* The defaults of the limits below, for the options and for spipetab. */
#define LISTENER_CONNECTIONS 200
#define LISTENER_STRANGERS 200
#define LISTENER_PER_SOURCE 50

#define LISTENER_LEAST 32 /* bytes: the client's nonce */

/* How many connections a listener serves at once, and how long it waits for one. */
struct listener_limits {
	unsigned connections; /* whose peers have proved a key; all of them if `strangers` is 0 */
	unsigned strangers;   /* that have not yet; 0: every connection counts as proved */
	unsigned per_source;  /* strangers from one IPv4 address or IPv6 /64 */
	int64_t exit_idle;    /* nanoseconds; 0: no limit */
	int64_t timeout;      /* nanoseconds that a connection may take to prove a key */
};

/* What a child gets from the listener: the connection, and where to report (-1: nowhere). */
struct accepted {
	int fd, channel;
	int64_t since; /* when it was accepted */
	struct address remote;
	bool connects; /* the listener connects to the target: see listener_connect() */
	bool muted;    /* there are enough records of strangers from its source: leave none */
};

/*
 * Accept on the listening sockets and fork a child for each connection. No byte is read from the
 * network here, and no key is held. Returns 0 in each child, which has the connection as its near
 * side; or -1 in the listener once it has ended, with the outcome set: status 0 after a signal,
 * after `exit_idle`, or when the last connection has ended after SIGUSR2; 71 if it cannot go on.
 *
 * A stranger gets no process until it has sent LISTENER_LEAST bytes, or has waited for half of
 * `timeout` or two seconds, whichever is less. One that leaves or has to make room before that gets
 * a process only if it may leave a record. Only a few processes of strangers start at the same time;
 * those that will leave no record come last.
 *
 * If `target` is not NULL, the listener connects to it for its children, which saves each of them a
 * launcher.
 *
 * SIGHUP executes argv[0] again with the same sockets and children. A child whose peer has to make
 * room for another stranger gets SIGUSR2, perhaps before it starts (signal_stop).
 */
int listener_run(struct accepted *, struct descriptors *, const struct listener_limits *,
    const struct places *target, char *const *argv, struct report *, struct outcome *);

/* In a child: it has started, and waits for its peer. Harmless if `channel` is -1. */
void listener_ready(int channel);

/*
 * In a child: the peer has proved a key, so SIGUSR2 is ignored from here on. Harmless if `channel`
 * is -1.
 */
void listener_proved(int channel);

/* In a child: ask for a connection to the target. The answer is as from a launcher. */
void listener_connect(int channel);

/* In a child, at its end: report how many bytes it carried. */
void listener_carried(int channel, uint64_t bytes_in, uint64_t bytes_out);

#endif
