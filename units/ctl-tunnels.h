#ifndef SPIPE_CTL_TUNNELS_H
#define SPIPE_CTL_TUNNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "outcome.h"
#include "report.h"

/* What spipectl knows of the tunnels. It keeps all of it until it ends. */

#define NO_KEY "-" /* the name of the key of those that have not proved one */

/* The connections that have ended and had used the same key. */
struct key_use {
	char *name;
	char *id;   /* its fingerprint; "": unknown */
	char *peer; /* of the last connection */
	uint64_t ended[REPORT_RESULTS], bytes_in, bytes_out;
	int64_t last; /* when the last one ended, in seconds since 1970; 0: no record */
};

/* A connection that there is now. */
struct live {
	char *peer, *key; /* NULL: a stranger, who has not proved one */
	uint64_t seconds, bytes_in, bytes_out;
};

struct tunnel_state {
	char *name;
	const char *role;      /* "enc", "dec" or, as long as it is unknown, "" */
	char *listen, *target; /* as in the table; "": unknown */
	const char *state;     /* "listening", or systemd's word for what it is instead */
	bool deaf;             /* nothing listens at its address, whatever systemd says */
	int64_t since;         /* the state, in seconds since 1970; 0: unknown */
	uint64_t left_out;     /* strangers that have no record */
	uint64_t served;  /* ended cleanly or with data carried, after the peer had proved a key */
	uint64_t refused; /* strangers, with a record or not, and others that were not allowed */
	uint64_t failed;  /* the rest: no target, for instance */
	struct key_use *keys; /* the first is NO_KEY */
	size_t key_count;
	struct live *live;
	size_t live_count;
};

struct tunnels {
	struct tunnel_state *tunnel;
	size_t count;
};

/*
 * Add what the table and its key directories, systemd, and the titles of the processes say. What is
 * missing or cannot be read stays unknown.
 */
void tunnels_read(struct tunnels *);

/*
 * Add the records in the journal: all, or those `since` a time in journalctl's words, or those after
 * *cursor, which becomes where the last one is (to be freed). Each of the two may be NULL. Returns 0,
 * or -1 with the outcome (74) set, and then journalctl has said why.
 */
int tunnels_read_journal(struct tunnels *, const char *since, char **cursor, struct outcome *);

/* The tunnel of this name, or NULL. */
struct tunnel_state *tunnels_find(const struct tunnels *, const char *name);

/* Whether it is in the table, has a socket unit or a connection: not only records in the journal. */
bool tunnel_is_here(const struct tunnel_state *);

bool tunnel_is_listening(const struct tunnel_state *);

/* What is wrong with its line, why it does not listen although it should, or why its service does not start; or "". */
char *tunnel_problem(const struct tunnel_state *);

/* How many connections of a key have ended. */
uint64_t key_use_ended(const struct key_use *);

/* How many of a tunnel's connections have ended so; `result` is an index of report_results. */
uint64_t tunnel_ended(const struct tunnel_state *, size_t result);

/* How many connections there are now: of strangers, or of others. */
size_t tunnel_live(const struct tunnel_state *, bool strangers);

#endif
