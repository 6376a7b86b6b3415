#ifndef SPIPE_RULES_H
#define SPIPE_RULES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "address.h"
#include "outcome.h"

#define RULES_NETWORKS 64
#define RULES_WORDS 64
#define RULES_SIZE 4096 /* most bytes of a rules file */

/* What the holder of one key may do: the file NAME.conf beside the key NAME. */
struct rules {
	time_t expires; /* first second that is too late, UTC; 0: never */
	bool require_pfs;
	size_t network_count; /* 0: from anywhere */
	struct network {
		struct address base;
		unsigned bits; /* prefix length */
	} network[RULES_NETWORKS];
	char *command[RULES_WORDS + 1]; /* NULL-terminated; command[0] NULL: the usual one */
	char text[RULES_SIZE + 1];      /* what the words above point into */
};

/*
 * Parse rules->text, a NUL-terminated file's content. Returns 0, or -1 with *line (from 1) and
 * *problem set.
 */
int rules_parse(struct rules *, int *line, const char **problem);

/*
 * Judge a client that has proved the key: 0, or -1 with the outcome (77) set. `forward_secret` says
 * whether the connection would be, `now` is the time of day.
 */
int rules_check(const struct rules *, const struct address *client, bool forward_secret, time_t now,
    struct outcome *);

#endif
