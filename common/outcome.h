#ifndef SPIPE_OUTCOME_H
#define SPIPE_OUTCOME_H

#include <sysexits.h>

/* How a connection ended: an exit status and what to say about it. */
struct outcome {
	int status; /* 0, or from sysexits.h as the man page lists them */
	int signal; /* the signal that ended us, or 0 */
	char reason[320];
};

/*
 * Set the outcome: status and a printf-style reason, lower case, no newline. Returns -1, so that
 * a caller can end with `return fail(...)`.
 */
int fail(struct outcome *, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The same for the signal that ended us; `when` is appended to the reason: "" or " during ...". */
int fail_signal(struct outcome *, int number, const char *when);

#endif
