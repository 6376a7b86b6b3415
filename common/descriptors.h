#ifndef SPIPE_DESCRIPTORS_H
#define SPIPE_DESCRIPTORS_H

#include <stdbool.h>

#include "outcome.h"

/* What our supervisor handed us, looked at before we open anything ourselves. */
struct descriptors {
	int in, out;          /* the near side: 0 and 1, or 3 twice from systemd */
	bool is_network;      /* `in` is a socket, and not a UNIX one */
	bool is_stderr;       /* fd 2 is the connection too, as inetd and xinetd leave it */
	bool ucspi;           /* 6 and 7 are open: a UCSPI client's connection */
	struct outcome wrong; /* status 64 and why, if the near side can't be served; else 0 */
};

/*
 * Look at descriptors 0, 1, 2, 6, 7 and at LISTEN_FDS (sd_listen_fds(3)). Closed ones of the first
 * three become /dev/null, so that nothing we open lands there. `is_wire`: the near side is the
 * encrypted one.
 */
void descriptors_find(struct descriptors *, bool is_wire);

/*
 * Can `fd`, handed to us for the side of that name, carry a connection? Not if it is closed, a
 * directory, opened only for the other direction than the one we need (`writing` or not), or a
 * socket that listens or is no stream. Returns 0, or -1 (64).
 */
int descriptors_check(int fd, bool writing, const char *side, struct outcome *);

#endif
