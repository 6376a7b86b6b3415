#ifndef SPIPE_CHILDREN_H
#define SPIPE_CHILDREN_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "address.h"

/* A process that serves one connection of a listener. */
struct child {
	pid_t pid;       /* 0: this place is free */
	int channel;     /* a socket, non-blocking, on which it reports; -1: closed */
	uint64_t serial; /* the order of accepting */
	struct source_network source;
	bool proved;  /* its peer has proved a key; else it is a stranger */
	bool leaving; /* a stranger that has been told to make room */
	bool muted;   /* a stranger that leaves no record */
	bool asking;  /* waiting for the listener to connect to the target */
	bool settled; /* it got one, or does not need one */
};

struct children {
	struct child *child;
	size_t room;
	unsigned processes, proved, strangers; /* strangers: without those that are leaving */
	uint64_t serial;
	uint64_t served, refused, bytes_in, bytes_out; /* of those that have ended */
};

/* What a child reports: its peer has proved a key; it asks for the target; how much it carried. */
enum { CHILD_PROVED, CHILD_ASKS, CHILD_CARRIED };
struct child_report {
	uint64_t what, bytes_in, bytes_out; /* without padding, which would be sent, too */
};

/* Make `room` places. Returns 0, or -1 if memory ran out. */
int children_init(struct children *, size_t room);

/* Count a child that has been forked. There must be a free place. */
void children_add(struct children *, struct child);

/* Reap one child that has ended, and move it to *ended. Returns whether there was one. */
bool children_reap(struct children *, struct child *ended);

/*
 * Fill in a slot, at `slots`, for each open channel of a child that is a stranger or not settled.
 * Returns how many there are.
 */
nfds_t children_watch(const struct children *, struct pollfd *slots);

/* Read the reports that poll(2) found at the slots of children_watch. */
void children_hear(struct children *, const struct pollfd *slots);

/* A child that is waiting for the listener to connect, or NULL. */
struct child *children_asking(struct children *);

/* How many strangers there are from a source. */
unsigned children_strangers(const struct children *, const struct source_network *);

/* Tell the oldest stranger (from `source`, unless NULL) to make room: with SIGUSR2. */
void children_make_room(struct children *, const struct source_network *);

/* Send all children a signal. */
void children_kill(const struct children *, int signal);

/* Let the channels be inherited by another program, or not. */
void children_set_inherited(const struct children *, bool inherited);

/* Close the channels and free what children_init allocated. */
void children_free(struct children *);

/*
 * Write the children as text to a descriptor, for the program that reloading executes. Returns 0, or
 * -1 with errno set.
 */
int children_save(const struct children *, int fd);

/* Read them, and make `room` more places. Returns 0, or -1 if memory ran out. */
int children_restore(struct children *, size_t room, FILE *);

#endif
