#ifndef SPIPE_RECORDS_H
#define SPIPE_RECORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "address.h"
#include "report.h"

#define RECORDS_SPAN (60 * SECOND)
#define RECORDS_MOST 10     /* of strangers from one source in a time span */
#define RECORDS_TOTAL 100   /* of all strangers in it */
#define RECORDS_SOURCES 100 /* that are counted separately in it; the others share a count */

/* In this time span: how many records the strangers of each source have left, and how many not. */
struct records {
	struct record_count {
		struct source_network source;
		unsigned made, left_out;
	} count[RECORDS_SOURCES];
	size_t sources; /* counts in use */
	unsigned made;  /* by all of them */
	int64_t end;    /* of the time span; NEVER: none has begun */
};

void records_init(struct records *);

/* Has this source, or have all together, left as many records as they may? */
bool records_spent(struct records *, const struct source_network *, int64_t now);

/* May a stranger from this source leave a record? If so, counts the record at once. */
bool records_reserve(struct records *, const struct source_network *, int64_t now);

/* Give back a reserved record: the peer has proved a key, or the connection got no process. */
void records_release(struct records *, const struct source_network *, int64_t now);

/* Count a stranger that ended without a record, because records_reserve did not allow one. */
void records_leave_out(struct records *, const struct source_network *, int64_t now);

/* If the time span is over by `now` (NEVER: it is), log how many each source has left out. */
void records_sum_up(struct records *, int64_t now, struct report *);

#endif
