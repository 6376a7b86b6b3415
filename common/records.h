#ifndef SPIPE_RECORDS_H
#define SPIPE_RECORDS_H

#include <stdbool.h>
#include <stdint.h>

#include "address.h"
#include "report.h"

#define RECORDS_MOST 10 /* of strangers from one source in one time span */
#define RECORDS_SPAN (60 * SECOND)
#define RECORDS_SOURCES 256 /* counted separately, except that the first count is for all others */

/* For each source: how many records its strangers have left in its time span, and how many not. */
struct records {
	struct record_count {
		struct source_network source;
		int64_t since; /* the start of its time span; 0: this count is free */
		unsigned made, left_out;
	} count[RECORDS_SOURCES];
	int64_t next; /* when the next time span ends; NEVER: there is none */
};

void records_init(struct records *);

/* Has this source left as many records as it may? */
bool records_spent(struct records *, const struct source_network *, int64_t now);

/* May a stranger from this source leave a record? If so, counts the record at once. */
bool records_reserve(struct records *, const struct source_network *, int64_t now);

/* Give back a reserved record: the peer has proved a key, or the connection got no process. */
void records_release(struct records *, const struct source_network *, int64_t now);

/* Count a stranger that ended without a record, because records_reserve did not allow one. */
void records_leave_out(struct records *, const struct source_network *, int64_t now);

/* Log how many were left out in each time span that is over by `now` (NEVER: in all of them). */
void records_sum_up(struct records *, int64_t now, struct report *);

#endif
