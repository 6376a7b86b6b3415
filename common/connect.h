#ifndef SPIPE_CONNECT_H
#define SPIPE_CONNECT_H

#include <netdb.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "outcome.h"

/* Where a target is: its addresses, and the one to connect from. */
struct places {
	const char *to_text, *from_text; /* as given; from_text may be NULL */
	struct addrinfo *to, *from;      /* from getaddrinfo(3), NULL: none; or `only` */
	struct addrinfo only;            /* of a UNIX or VSOCK target */
	struct sockaddr_storage address; /* the same */
	bool named;                      /* `to` was looked up by name */
};

/*
 * Connect a stream socket to `target`, an address that address_split() accepts, from the local
 * address `bind`, which address_split_local() accepts, or NULL. All addresses of a name are tried
 * in turn, each with an equal share of the time that is left until `deadline`. Returns the socket,
 * close-on-exec, or -1 with the outcome (69, 74, 75 at the deadline) set, which names the address
 * and the reason.
 */
int connect_to(const char *target, const char *bind, int64_t deadline, struct outcome *);

/* Can connect_find() and connect_begin() do this without waiting? True for an IP address. */
bool connect_at_once(const char *target);

/* Look up a target as for connect_to(). Returns 0, or -1 with the outcome (69) set. */
int connect_find(struct places *, const char *target, const char *bind, struct outcome *);

/* Begin to connect to the first place. Returns the socket, or -1 with the outcome (69) set. */
int connect_begin(const struct places *, struct outcome *);

/* Wait until it is connected. Returns 0, or -1 with the outcome (69, 74, 75, a signal) set. */
int connect_end(int fd, const struct places *, int64_t deadline, struct outcome *);

#endif
