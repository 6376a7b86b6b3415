#ifndef SPIPE_REPORT_H
#define SPIPE_REPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "address.h"
#include "crypto.h"
#include "outcome.h"
#include "title.h"

enum channel { NOWHERE, TO_STDERR, TO_SYSLOG, TO_JOURNAL };

/* Where messages go, and what the connection's record says. Opened before the sandbox. */
struct report {
	const char *program;       /* "spipe-dec" */
	const char *role;          /* "dec" */
	enum channel messages;     /* not stderr where that is the connection */
	enum channel record;       /* NOWHERE until there is a connection to report on */
	int journal;               /* socket to the journal, or -1 */
	int notify;                /* socket to $NOTIFY_SOCKET, or -1 */
	int64_t started;           /* time_now() */
	const struct title *title; /* of this process, or NULL */
	int64_t told;              /* when the title and STATUS= were last set ... */
	uint64_t told_bytes;       /* ... and how many bytes they said, both ways */
	bool muted;                /* log nothing: a stranger, of a source with enough records */
	char peer[128];
	const char *key;              /* its name, "-" until known */
	char key_id[KEY_ID_SIZE];     /* its fingerprint, "-" until known */
	uint64_t bytes_in, bytes_out; /* plaintext: near to far, far to near */
};

#define REPORT_RESULTS 11

/* The ways in which a connection can end, as its record names them. */
extern const struct result {
	int status;       /* the exit status; below 0: there is none */
	const char *word; /* SPIPE_RESULT= */
	const char *id;   /* MESSAGE_ID= */
} report_results[REPORT_RESULTS];

#define REPORT_LEFT_OUT "827b68886e69421ab87a016fa404eb22" /* MESSAGE_ID= */

/* Find the channels. From here on no message can reach the peer by mistake. */
void report_open(struct report *, const char *program, const char *role, bool wire_is_stderr);

/*
 * From here on there is a connection to report on. Its record goes where messages go, unless that
 * is stderr and not `verbose`: then to syslog for a network connection, and nowhere for others.
 */
void report_on(struct report *, const struct peer *, bool verbose);

/* Log one line at once about something that is wrong but not fatal. printf-style. */
void report_warn(struct report *, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Log that `count` strangers from `source`, an address or network as text, have left no record. */
void report_left_out(struct report *, const char *source, unsigned count);

/*
 * For a listener: send systemd a printf-style STATUS=, and if `ready` READY=1. With `progress` it
 * is a message as well.
 */
void report_listening(struct report *, bool ready, bool progress, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* The peer has proved its key and the far side is ready: send systemd READY=1. */
void report_ready(struct report *);

/*
 * Have the title and systemd's STATUS= say how many bytes there were, at most once in ten seconds.
 * Returns when to call this again even if there is no more data; NEVER: there is no need.
 */
int64_t report_status(struct report *);

/* SIGUSR1: one line of progress, where the record goes; to stderr where there is no record. */
void report_progress(struct report *);

/* The end: the error line if there is an error, and the record. */
void report_end(struct report *, const struct outcome *);

#endif
