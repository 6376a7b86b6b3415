#ifndef SPIPE_CONNECTION_H
#define SPIPE_CONNECTION_H

#include <stdbool.h>

#include "address.h"
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

/* In secret memory. */
struct secrets {
	struct handshake handshake;
	struct packet_state seal, open;
};

/* All that one connection owns. The steps of its life below are what the two programs' main is
 * made of; each returns 0, or -1 with the outcome set, and then only the last is left to do. */
struct connection {
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
	int64_t deadline; /* of the handshake and the far side */
	size_t key;       /* index of the one that was used */
	struct secrets *secrets;
	struct outcome outcome;
};

/* 1: options, near side, log, keys. Also returns -1, with status 0, when --help was answered. */
int connection_open(struct connection *, enum role, int argc, char **argv);

/* 2: the launcher of the far side's command, where there is one. */
int connection_prepare_far(struct connection *);

/* 3: the walls. From here on: no open, socket, connect, fork or exec. */
int connection_enter_sandbox(struct connection *);

/* The command is started, and told the key's name; or the far side is what a UCSPI client left. */
int connection_start_far(struct connection *);

/* The far side stands: with -p, its socket has come. */
int connection_receive_far(struct connection *);

/* spipe-enc's handshake. A command that failed before the server said anything is blamed (69). */
int connection_meet_server(struct connection *);

/* The rules of the key that the client has used. */
int connection_check_rules(struct connection *);

/* Relay until the end. `role` says which keys seal. */
int connection_relay(struct connection *, enum role);

/*
 * End both sides if the relay `ended`, else break them; wipe, reap, report. Returns the exit
 * status; a signal that ended us kills us here.
 */
int connection_close(struct connection *, bool ended);

#endif
