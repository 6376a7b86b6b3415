#ifndef SPIPE_RECORDS_H
#define SPIPE_RECORDS_H

#include <stdbool.h>
#include <stdint.h>

#include "address.h"
#include "report.h"

#define RECORDS_MOST 10 /* of strangers from one source in a time span */
#define RECORDS_SPAN (60 * SECOND)
#define RECORDS_SOURCES 256 /* that are counted separately */

/* For each source: how many records of strangers there have been lately, and how many not. */
struct records {
	struct record_count {
		struct source_network source;
		int64_t since; /* 0: free */
		unsigned made, left_out;
	} count[RECORDS_SOURCES];
	int64_t next; /* when the next time span ends; NEVER: there is none */
};

void records_init(struct records *);

/* May a stranger of this source leave a record? Then that record is counted already. */
bool records_reserve(struct records *, const struct source_network *, int64_t now);

/* It will not be left: no stranger after all. */
void records_release(struct records *, const struct source_network *, int64_t now);

/* A stranger that might leave none has ended. */
void records_leave_out(struct records *, const struct source_network *, int64_t now);

/* Log how many were left out, of the time spans that are over by `now` (NEVER: of all). */
void records_sum_up(struct records *, int64_t now, struct report *);

#endif
