#ifndef SPIPE_LAUNCHER_H
#define SPIPE_LAUNCHER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "keys.h"
#include "outcome.h"

/*
 * The command on the far side. A launcher is forked while we may still fork; it waits, without
 * our secrets and our descriptors, for the word to become the command.
 */
struct launcher {
	pid_t pid;   /* the launcher's, then the command's, and its process group; 0: none */
	int control; /* the key's index to the launcher; errno back if it can't, or an end: it runs */
	int socket;       /* our end of its stdin and stdout */
	const char *name; /* for messages */
};

#define LAUNCHER_GRACE 2 /* seconds that a command has to exit after the last byte */

/*
 * Fork the launcher for keyring_destination(), of the key that is found and `argv` (may be NULL).
 * `quiet` gives it /dev/null for stderr. Returns 0, or -1 with the outcome (71) set.
 */
int launcher_prepare(struct launcher *, char *const *argv, const struct keyring *, bool quiet,
    struct outcome *);

/*
 * Say go, with the index of the key that the peer has proved; `name` is the command's for messages.
 * Returns 0 once the command runs, or -1 (69).
 */
int launcher_start(struct launcher *, size_t key, const char *name, struct outcome *);

/*
 * Receive the connected socket that the command hands back over its stdout (SCM_RIGHTS), before
 * `deadline`, and reap the command. Returns the socket, or -1 with the outcome (69, 75) set.
 */
int launcher_receive_socket(struct launcher *, int64_t deadline, struct outcome *);

/*
 * The command has closed its input and output: has it failed? Then true, with the outcome (69) set.
 * Waits a tenth of a second at most for its exit, which comes right behind.
 */
bool launcher_failed(struct launcher *, struct outcome *);

/*
 * Wait for the command to exit until `deadline`, then kill what is left of its group, and reap.
 * Returns 0 if it exited with status 0, or -1 with the outcome (69) set.
 */
int launcher_finish(struct launcher *, int64_t deadline, struct outcome *);

/* Kill the command and its children at once, and reap it. Harmless when there is none. */
void launcher_kill(struct launcher *);

#endif
