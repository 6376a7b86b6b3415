#ifndef SPIPE_DESCRIPTORS_H
#define SPIPE_DESCRIPTORS_H

#include <stdbool.h>

#include "outcome.h"

#define DESCRIPTORS_LOOKED_AT 256 /* inherited ones above are not closed */

/* What our supervisor left open, looked at before we open anything ourselves. */
struct descriptors {
	int in, out;              /* the near side: 0 and 1, or 3 twice from systemd */
	int listening, listeners; /* or this many listening sockets from this one on */
	bool is_stderr;           /* fd 2 is the near side too, as inetd and xinetd leave it */
	bool ucspi;               /* 6 and 7 are open: a UCSPI client's connection */
	bool others[DESCRIPTORS_LOOKED_AT]; /* open, but not used by us */
	struct outcome wrong; /* status 64 and why, if the near side cannot be served; else 0 */
};

/*
 * Look at descriptors 0, 1, 2, 6, 7 and at LISTEN_FDS (sd_listen_fds(3)), which is then removed
 * from the environment. Those of the first three that are closed become /dev/null, so that nothing
 * we open takes their place. `near_is_wire`: the near side is the encrypted one.
 */
void descriptors_find(struct descriptors *, bool near_is_wire);

/*
 * In a listener's child: the connection `fd` is the near side. Listening sockets are closed; those
 * among the first three descriptors become /dev/null.
 */
void descriptors_set_near(struct descriptors *, int fd);

/* Close what we inherited but do not use. Only once: the numbers are reused afterwards. */
void descriptors_close_others(struct descriptors *);

/*
 * Can `fd`, given to us as that side, carry a connection? Not if it is closed, a directory, opened
 * only for the other direction than the one we need (`writing` or not), or a socket that listens or
 * is not a stream. Returns 0, or -1 (64).
 */
int descriptors_check(int fd, bool writing, const char *side, struct outcome *);

#endif
