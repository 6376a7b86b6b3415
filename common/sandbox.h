#ifndef SPIPE_SANDBOX_H
#define SPIPE_SANDBOX_H

#include <sys/types.h>

/*
 * From here on this process can only use the descriptors that it has: it cannot open files, create
 * or connect sockets, run programs, or trace processes. This is done with a seccomp allow-list, no
 * new privileges, and an empty Landlock ruleset if the kernel has Landlock. `child` is the only
 * process group that may be signalled (0: none). Returns 0, or -1 with *missing naming what the
 * kernel lacks.
 */
int sandbox_enter(pid_t child, const char **missing);

#endif
