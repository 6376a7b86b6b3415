#ifndef SPIPE_RECORDS_H
#define SPIPE_RECORDS_H

#include <stdbool.h>
#include <stdint.h>

#include "address.h"
#include "report.h"

#define RECORDS_MOST 10 /* of strangers from one source in a time span */
#define RECORDS_SPAN (60 * SECOND)
#define RECORDS_SOURCES 256 /* that are counted separately */

/* For each source: how many strangers have recently left a record, and how many have not. */
struct records {
	struct record_count {
		struct source_network source;
		int64_t since; /* 0: free */
		unsigned made, left_out;
	} count[RECORDS_SOURCES];
	int64_t next; /* when the next time span ends; NEVER: there is none */
};

void records_init(struct records *);

/* Has this source left so many records that a stranger from it may leave none? */
bool records_full(struct records *, const struct source_network *, int64_t now);

/* A stranger has ended; if `muted`, without a record. */
void records_add(struct records *, const struct source_network *, bool muted, int64_t now);

/* Log how many were left out, of the time spans that are over by `now` (NEVER: of all). */
void records_sum_up(struct records *, int64_t now, struct report *);

#endif
