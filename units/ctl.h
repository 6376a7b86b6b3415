#ifndef SPIPE_CTL_H
#define SPIPE_CTL_H

#include <stddef.h>
#include <stdio.h>

#include "outcome.h"

#define TABLE_PATH "/etc/spipetab"

/*
 * The subcommands of spipectl, one file each. Each gets its own part of the command line, with its
 * name as argv[0], and returns the exit status; or -1 with the outcome set, whose reason is printed then.
 */
int ctl_key(int argc, char **argv, struct outcome *);
int ctl_check(int argc, char **argv, struct outcome *);
int ctl_apply(int argc, char **argv, struct outcome *);
int ctl_probe(int argc, char **argv, struct outcome *);
int ctl_status(int argc, char **argv, struct outcome *);
int ctl_metrics(int argc, char **argv, struct outcome *);
int ctl_from_spiped(int argc, char **argv, struct outcome *);

/*
 * Make a text from elsewhere safe to print: each byte that is not UTF-8 or belongs to a control
 * character becomes a question mark.
 */
void ctl_make_printable(char *text);

/* Write a printable text between double quotes, as JSON and Prometheus read it. */
void ctl_put_quoted(FILE *, const char *text);

/*
 * Make room for one more element of `size` bytes, zeroed, at the end of the array that the pointer at `array`
 * points to, and return it.
 */
void *ctl_add_one(void *array, size_t *count, size_t size);

struct keyring;

/*
 * Load one key file into a zeroed keyring, as the programs do, and print its warnings. Returns 0, or -1 with the
 * outcome (78, 71) set.
 */
int ctl_load_key(struct keyring *, const char *file, struct outcome *);

/* Print the reason if the outcome is an error. Returns the exit status. */
int ctl_end(const struct outcome *);

#endif
