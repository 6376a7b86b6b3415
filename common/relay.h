#ifndef SPIPE_RELAY_H
#define SPIPE_RELAY_H

#include <stddef.h>
#include <stdint.h>

#include "launcher.h"
#include "options.h"
#include "outcome.h"
#include "packet.h"
#include "report.h"
#include "side.h"

/* A connection to relay. The caller owns all of it. */
struct relay {
	enum role role; /* says which side has the packets */
	struct side *near, *far;
	struct packet_state *seal, *open;
	const uint8_t *header; /* plaintext to send ahead of what the near side sends, or NULL */
	size_t header_size;
	struct launcher *launcher; /* of the command that is the far side, or NULL */
	int64_t idle, linger;      /* limits on silence, nanoseconds, or 0; see the man page */
	struct report *report;     /* bytes are counted here */
};

/*
 * Relay both directions until both have ended. Returns 0; or -1 with the outcome set to a signal or
 * to status 69 (the command failed), 71, 74 (also: the command did not read all its input), 75 or
 * 76. The caller then has to reset both sides, which are still open.
 */
int relay_run(const struct relay *, struct outcome *);

#endif
