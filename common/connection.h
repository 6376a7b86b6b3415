#ifndef SPIPE_CONNECTION_H
#define SPIPE_CONNECTION_H

#include <stdbool.h>

#include "address.h"
#include "connect.h"
#include "launcher.h"
#include "handshake.h"
#include "keys.h"
#include "descriptors.h"
#include "options.h"
#include "outcome.h"
#include "packet.h"
#include "report.h"
#include "side.h"
#include "title.h"

/*
 *            plaintext           encrypted           plaintext
 *     client --------- spipe-enc --------- spipe-dec --------- service
 *                 near           far  near           far
 *
 * The near side is what the supervisor passed to us, the far side what we reach ourselves. The
 * wire, the encrypted side, is the far side of spipe-enc and the near side of spipe-dec.
 */

/* In secret memory. */
struct secrets {
	struct handshake handshake;
	struct packet_state seal, open;
	_Alignas(64) uint8_t libcrypto[CRYPTO_MEMORY];
};

/*
 * Everything that one connection owns. The functions below are the steps of its life: main in both
 * programs consists of them, each in its own order. A step returns 0, or -1 with the outcome set;
 * then only connection_close is left to do.
 */
struct connection {
	enum role role;
	struct options options;
	struct descriptors descriptors;
	struct side near, far;
	struct peer peer;
	struct report report;
	struct keyring ring;
	struct launcher launcher;
	struct errand *errands;   /* one per key */
	struct accepted accepted; /* from the listener we are a child of; else its channel is -1 */
	struct title title;
	struct places places; /* of a target that is an IP address; else places.to is NULL */
	int begun;        /* the socket on which spipe-enc itself connects to the target; else -1 */
	int64_t deadline; /* of the handshake and the far side */
	size_t key;       /* index of the one that was used */
	struct secrets *secrets;
	struct outcome outcome;
};

/*
 * Options, near side, log, keys. -1 with status 0 means that --help has been answered, or that a
 * listener has ended.
 */
int connection_open(struct connection *, enum role, int argc, char **argv);

/*
 * Prepare who connects: usually a launcher, which is forked here. The listener takes its place if it
 * can, and spipe-enc connects to an IP address itself. Descriptors 6 and 7 are connected already.
 */
int connection_prepare_far(struct connection *);

/* The sandbox: from here on there is no open, socket, connect, fork or exec. */
int connection_enter_sandbox(struct connection *);

/* Begin to connect to the target, or to run the command, of the key that was used. */
int connection_start_far(struct connection *);

/* Wait until the far side is ready. */
int connection_receive_far(struct connection *);

/* spipe-enc's handshake. If the server closed at once, a failed command is the reason (69). */
int connection_meet_server(struct connection *);

/* Apply the rules of the key that the client has used. */
int connection_check_rules(struct connection *);

/* Relay until the end. */
int connection_relay(struct connection *);

/*
 * End both sides if the relay `ended`, else break them; wipe, reap, report. Returns the exit
 * status; a signal that ended us kills us here.
 */
int connection_close(struct connection *, bool ended);

#endif
