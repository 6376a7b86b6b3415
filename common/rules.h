#ifndef SPIPE_RULES_H
#define SPIPE_RULES_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <time.h>

#include "address.h"
#include "outcome.h"

#define RULES_NETWORKS 64
#define RULES_WORDS 64
#define RULES_SIZE 4096 /* a rules file is smaller, in bytes */

/* Where a connection goes on to: one of the two, or neither if none is given. */
struct destination {
	char *const *command; /* NULL-terminated */
	const char *target;   /* an address that address_split takes */
};

/* What the holder of one key may do: the file NAME.conf beside the key NAME. */
struct rules {
	mode_t mode;    /* of the file */
	time_t expires; /* first second that is too late, UTC; 0: never */
	bool require_pfs;
	size_t network_count; /* 0: from anywhere */
	struct network network[RULES_NETWORKS];
	struct destination destination; /* of this key; neither: the usual one */
	char *words[RULES_WORDS + 1];   /* its command */
	char text[RULES_SIZE + 1];      /* what the words and the target point into */
};

/*
 * Read the rules file `conf`, relative to directory `dir` (or AT_FDCWD). Returns them, to be freed
 * with free(3); or NULL: then either there is no such file, or the outcome (78) is set.
 */
struct rules *rules_load(int dir, const char *conf, struct outcome *);

/* Parse rules->text. Returns NULL, or what is wrong in line *line, counted from 1. */
const char *rules_parse(struct rules *, int *line);

/*
 * Judge a client that has proved the key: 0, or -1 with the outcome (77) set. `forward_secret` says
 * whether the connection would be, `now` is the time of day.
 */
int rules_check(const struct rules *, const struct address *client, bool forward_secret, time_t now,
    struct outcome *);

#endif
