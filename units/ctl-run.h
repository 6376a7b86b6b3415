#ifndef SPIPE_CTL_RUN_H
#define SPIPE_CTL_RUN_H

/*
 * Run a program, found in $PATH, with these words (the first is its name, NULL ends them) and wait for its
 * end. All it prints goes to *output, to be freed with free(3). Returns its exit status; 127 if it
 * could not be run, and then *output is "".
 */
int run_program(const char *const *words, char **output);

#endif
