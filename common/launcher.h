#ifndef SPIPE_LAUNCHER_H
#define SPIPE_LAUNCHER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "outcome.h"
#include "rules.h"

/*
 * The launcher is a process forked before the sandbox forbids fork. It holds none of our secrets
 * and none of our connections, and waits for the number of the errand to run. It then connects to a
 * target and hands the socket back, or forks the command on the far side, ends as that ends, and
 * kills it if the filter dies.
 */
struct launcher {
	pid_t pid;        /* the launcher's, and its process group, with the command; 0: none */
	int control;      /* to it goes the index of the errand, from it comes the answer */
	int socket;       /* our end of the command's stdin and stdout */
	const char *name; /* of the command or target, for messages */
	bool connecting;  /* the errand was a target */
	bool lent;        /* the listener connects for us */
};

/* What the launcher can be told to do, one errand per key. */
struct errand {
	struct destination to;
	const char *bind; /* the local address to connect from, or NULL */
	const char *key;  /* the key's name, for the command's environment */
};

#define LAUNCHER_GRACE 2 /* seconds that a command has to exit after the last byte */

/*
 * Fork the launcher for the `count` errands. `quiet` gives a command /dev/null for stderr;
 * `deadline` is how long the launcher may try to connect. Returns 0, or -1 with the outcome (71)
 * set.
 */
int launcher_prepare(struct launcher *, const struct errand *, size_t count, bool quiet,
    int64_t deadline, struct outcome *);

/* There is no launcher: the listener connects to `target`, and answers over `control`. */
void launcher_lend(struct launcher *, const char *target, int control);

/*
 * As a launcher does: send over `control` the outcome of connecting, and the socket, unless -1.
 * Returns 0, or -1 with errno set.
 */
int launcher_answer(int control, int fd, struct outcome *);

/* Tell the launcher to run errand `index` of `errands`. Returns 0, or -1 (71). */
int launcher_start(struct launcher *, const struct errand *errands, size_t index, struct outcome *);

/*
 * The far side, before `deadline`: the socket that the launcher connected, or that the listener has
 * begun to connect; or with `fd_pass`, the connected socket that the command passed back over its
 * stdout (SCM_RIGHTS); the launcher has then been reaped. Or, once the command runs, our end of its
 * stdin and stdout. Returns the descriptor, or -1 with the outcome (69, 71, 74, 75 or a signal) set.
 */
int launcher_far_side(struct launcher *, bool fd_pass, int64_t deadline, struct outcome *);

/*
 * The command has closed its input and output: has it failed? Then true, with the outcome (69) set.
 * Waits at most a tenth of a second for its exit, which follows closely.
 */
bool launcher_failed(struct launcher *, struct outcome *);

/*
 * Wait for the command to exit until `deadline`, then kill what is left of its group, and reap.
 * Returns 0 if it exited with status 0, or -1 with the outcome (69 or a signal) set.
 */
int launcher_finish(struct launcher *, int64_t deadline, struct outcome *);

/* Kill the command and its children at once, and reap it. Harmless when there is none. */
void launcher_kill(struct launcher *);

#endif
