#ifndef SPIPE_UNITS_H
#define SPIPE_UNITS_H

#include <limits.h>
#include <stdbool.h>

#include "outcome.h"
#include "table.h"

#define UNITS_LOADED "/run/systemd/generator" /* where systemd has the generator write */
#define UNITS_STARTED "/run/spipe" /* copies: what each running socket was started from */

/*
 * Write the unit files of a tunnel into the directory `dir`, and a link that has its socket started
 * at boot. No existing file is replaced. `source` is the path of the table, for comments in the
 * files. Returns 0, or -1 with the outcome (73) set; then the socket unit, without which nothing
 * starts the others, has not been written.
 */
int units_write(int dir, const struct tunnel *, const char *source, struct outcome *);

/*
 * Find a file in a directory of keys (an absolute path) that systemd cannot pass on as the credential
 * DIRECTORY_FILE: its name is not printable ASCII without colons, or that is too long. Then the service
 * does not start at all. Returns whether there is one, with its name, unprintable bytes as question marks,
 * in `name`.
 */
bool units_find_unfit(const char *directory, char name[static NAME_MAX + 1]);

/*
 * Write units for a line that is wrong, so that systemd shows it: a socket that fails when it is
 * started, at boot too, and has `problem` as its description. It is called spipe-NAME.socket or, if
 * there is no valid name or that unit exists already, spipetab-line-N.socket.
 */
void units_write_wrong(int dir, const struct tunnel *, const char *problem);

#endif
