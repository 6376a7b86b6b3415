#ifndef SPIPE_CTL_RUN_H
#define SPIPE_CTL_RUN_H

#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

/*
 * Start a program, found in $PATH, with these words (the first is its name, NULL ends them). Returns
 * a stream of its standard output, and if `errors` of its standard error as well; or NULL.
 */
FILE *run_start(const char *const *words, bool errors, pid_t *pid);

/* Close the stream, and wait for the end of the program. Returns its exit status, or 127. */
int run_end(FILE *, pid_t);

/*
 * Run such a program to its end. All it prints goes to *output, to be freed with free(3). Returns its
 * exit status; 127 if it could not be run, and then *output is "".
 */
int run_program(const char *const *words, char **output);

/* Read /proc/PID/FILE into `text` of `size` bytes, as far as it fits. Returns whether there is any. */
bool process_read(const char *pid, const char *file, char *text, size_t size);

/* The value of one of a unit's properties, to be freed; "" if systemd does not say. */
char *unit_property(const char *unit, const char *name);

/* What systemd said first that was wrong, of all since it last started this unit. To be freed; "": nothing. */
char *unit_error(const char *unit);

#endif
