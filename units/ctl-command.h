#ifndef SPIPE_CTL_COMMAND_H
#define SPIPE_CTL_COMMAND_H

#include <limits.h>

#include "outcome.h"

#define COMMAND_WORDS 128 /* most words */

/* A command line, and where it runs. */
struct command_line {
	char *words[COMMAND_WORDS + 1]; /* NULL-terminated */
	int count;
	char *text;               /* what the words point into, to be freed; or NULL */
	char directory[PATH_MAX]; /* the working directory; "": unknown */
};

/*
 * Fill a zeroed command line: of this process, of this unit's main process or, if it does not run, its
 * ExecStart=, or with these words, as if run here. Return 0, or -1 with the outcome (66) set.
 */
int command_of_process(struct command_line *, const char *pid, struct outcome *);
int command_of_unit(struct command_line *, const char *unit, struct outcome *);
int command_given(struct command_line *, int count, char **words);

#endif
