#ifndef SPIPE_CHILDREN_H
#define SPIPE_CHILDREN_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "address.h"

enum child_state {
	CHILD_NONE,     /* no child: a free place */
	CHILD_EVICTED,  /* has no process and has to make room */
	CHILD_WAITING,  /* a stranger that has no process yet */
	CHILD_STARTING, /* a stranger's process that is not ready for its peer yet */
	CHILD_STRANGER, /* a process whose peer has not proved a key */
	CHILD_LEAVING,  /* a stranger's process that has to make room */
	CHILD_PROVED,   /* its peer has proved a key, or need not; may ask for the target */
	CHILD_ASKING,   /* waits for the listener to connect to the target */
	CHILD_SETTLED,  /* asks for nothing any more */
	CHILD_STATES    /* how many there are */
};

/* A connection of a listener, and the process that serves it. */
struct child {
	enum child_state state;
	pid_t pid;   /* 0: it has no process */
	int fd;      /* a socket on which it reports, -1: closed; without process: the connection */
	short heard; /* what poll(2) found at a waiting connection */
	bool reported;   /* how much it carried: it has ended by itself */
	bool muted;      /* leaves no record as long as it has not proved a key */
	uint64_t serial; /* the order of accepting */
	int64_t since;   /* when it was accepted */
	struct source_network source;
	struct address remote;
};

struct children {
	struct child *child;
	size_t room;                   /* places there are */
	size_t end;                    /* the first place that has never been taken */
	bool connects;                 /* the listener connects to the target for its children */
	unsigned number[CHILD_STATES]; /* of places in each state */
	uint64_t serial;
	uint64_t served, refused, bytes_in, bytes_out; /* of those that have ended */
};

/*
 * What a child reports: it waits for its peer; its peer has proved a key; it asks for the target;
 * how much it carried.
 */
enum { CHILD_IS_READY, CHILD_HAS_PROOF, CHILD_ASKS, CHILD_CARRIED };
struct child_report {
	uint64_t what, bytes_in, bytes_out; /* 64 bits each, so that no padding is sent */
};

/* Make `room` places. Returns 0, or -1 if memory ran out. */
int children_init(struct children *, size_t room);

/* How many are in one of the states from `first` to `last`. */
unsigned children_count(const struct children *, enum child_state first, enum child_state last);

/* Add a connection, which is not in state CHILD_NONE. There must be a free place. */
void children_add(struct children *, struct child);

/* A waiting connection has got a process, which has its own copy of the connection. */
void children_start(struct children *, struct child *, enum child_state, pid_t, int channel);

/* Change the state of a child. */
void children_set(struct children *, struct child *, enum child_state);

/* A connection has ended: close its descriptor, count it, and free its place. */
void children_remove(struct children *, struct child *);

/*
 * Reap one process that has ended: move its child to *ended, and the status that waitpid(2) gives to
 * *status. Returns whether there was one.
 */
bool children_reap(struct children *, struct child *ended, int *status);

/*
 * Fill in the slots for poll(2): one for each process that has something to report yet, and if
 * `waiting` one for each connection without a process, unless it has hung up. Events that `heard`
 * already has are not asked for again. Returns how many slots there are.
 */
nfds_t children_watch(const struct children *, bool waiting, struct pollfd *slots);

/* Read the reports that poll(2) found at the slots that children_watch filled in last. */
void children_hear(struct children *, bool waiting, const struct pollfd *slots);

/* How many strangers there are from a source. */
unsigned children_strangers(const struct children *, const struct source_network *);

/* The oldest stranger (from `source`, unless NULL) has to make room. Its process gets SIGUSR2. */
void children_make_room(struct children *, const struct source_network *);

/* Send all processes a signal. */
void children_kill(const struct children *, int signal);

/* Let the descriptors be inherited by another program, or not. */
void children_set_inherited(const struct children *, bool inherited);

/* Close the descriptors, except `but`, and free what children_init allocated. */
void children_free(struct children *, int but);

/*
 * Write the processes as text to a descriptor, for the program that reloading executes. No
 * connection may be waiting. Returns 0, or -1 with errno set.
 */
int children_save(const struct children *, int fd);

/* Read them, and make `room` more places. Returns 0, or -1 if memory ran out. */
int children_restore(struct children *, size_t room, FILE *);

#endif
