#ifndef SPIPE_UNITS_H
#define SPIPE_UNITS_H

#include "outcome.h"
#include "table.h"

/*
 * Write the unit files of a tunnel into the directory `dir`, and a link that has its socket started
 * at boot. No existing file is replaced. `source` is the path of the table, for comments in the
 * files. Returns 0, or -1 with the outcome (73) set; then the socket unit, without which nothing
 * starts the others, has not been written.
 */
int units_write(int dir, const struct tunnel *, const char *source, struct outcome *);

#endif
