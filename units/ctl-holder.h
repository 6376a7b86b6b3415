#ifndef SPIPE_CTL_HOLDER_H
#define SPIPE_CTL_HOLDER_H

#include <stdbool.h>
#include <stddef.h>

#include "address.h"

#define HOLDER_SIZE 128

/* The sockets of this machine that listen: TCP and UNIX, as the kernel lists no others. */
struct listeners {
	struct listener {
		int kind;                   /* as in struct address_text */
		char where[UNIX_PATH_SIZE]; /* the path, or the IP address in hexadecimal */
		unsigned port;
		unsigned long inode;
		int pid; /* of the oldest process that has it, which the others got it from; 0: unknown */
	} * listener;
	size_t count;
	char *units; /* what `systemctl list-sockets` says; NULL: not asked yet */
};

/*
 * Find them now, and if `holders` the processes that have them, which takes longer. What is found is kept until
 * spipectl ends.
 */
void listeners_read(struct listeners *, bool holders);

/*
 * Whether anything listens at exactly this address; or, `by_systemd`, whether systemd does, which only root
 * can find out, and only with `holders`. Needs root for VSOCK ports below 1024; nobody can find out who has those.
 */
bool address_listens(const struct listeners *, const struct address_text *, bool by_systemd);

/*
 * Whether something other than a tunnel of the table listens at this address, so that a socket cannot
 * be bound to it. If so, write "spiped, pid 812", "nginx.socket" or, if it cannot be found out,
 * "another process" into `holder`.
 */
bool address_is_held(struct listeners *, const struct address_text *,
    char holder[static HOLDER_SIZE]);

/* Say why `unit`, a socket unit, does not listen at this address: who holds it, or else what systemd says. To be freed. */
char *address_problem(struct listeners *, const struct address_text *, const char *unit);

#endif
