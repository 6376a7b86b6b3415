#ifndef SPIPE_RELAY_H
#define SPIPE_RELAY_H

#include <stdbool.h>
#include <stdint.h>

#include "launcher.h"
#include "outcome.h"
#include "packet.h"
#include "report.h"
#include "side.h"

/* A connection to be carried: set by the caller, and owned by it. */
struct relay {
	struct side *near, *far;
	bool near_is_plain; /* spipe-enc: plaintext near, packets far; spipe-dec: the other way */
	struct packet_state *seal, *open;
	const uint8_t *header; /* plaintext to go ahead of what the near side sends, or NULL */
	size_t header_size;
	struct launcher *launcher; /* whose stdin and stdout the far side is, or NULL */
	int64_t idle, linger;      /* nanoseconds, 0: no limit; as in the man page */
	struct report *report;     /* counts, progress */
};

/* Seconds: to deliver what is in hand when a signal ends us, and for a peer to end when nobody is
 * left to read what it might say. */
#define RELAY_GRACE 2

/*
 * Carry both directions until both have ended. Returns 0; or -1 with the outcome set: 69 (the
 * command failed: the end of its output is no clean one), 71, 74 (which includes a command that did
 * not read all its input), 75, 76, or a signal. Then both sides are still open, and it is for the
 * caller to break them.
 */
int relay_run(const struct relay *, struct outcome *);

#endif
