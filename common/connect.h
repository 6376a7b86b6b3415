#ifndef SPIPE_CONNECT_H
#define SPIPE_CONNECT_H

#include <stdbool.h>
#include <stdint.h>

#include "outcome.h"

/*
 * Connect a stream socket to `target`, an address that address_split() accepts, from the local
 * address `bind`, which address_split_local() accepts, or NULL. All addresses of a name are tried
 * in turn, each with an equal share of the time that is left until `deadline`. Returns the socket,
 * close-on-exec, or -1 with the outcome (69, 74, 75 at the deadline) set, which names the address
 * and the reason.
 */
int connect_to(const char *target, const char *bind, int64_t deadline, struct outcome *);

/* Is the target an IP address with a port, to which connect_begin() can connect without waiting? */
bool connect_can_begin(const char *target);

/* As connect_to(), but return before the connection is made: connect_end() waits for it. */
int connect_begin(const char *target, const char *bind, struct outcome *);

/* Wait until a socket is connected. Returns 0, or -1 with the outcome (69, 74, 75, a signal) set. */
int connect_end(int fd, const char *target, const char *bind, int64_t deadline, struct outcome *);

#endif
