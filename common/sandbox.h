#ifndef SPIPE_SANDBOX_H
#define SPIPE_SANDBOX_H

#include <sys/types.h>

/*
 * From here on this process can use the descriptors it has, and no more: no file is opened, no
 * socket made or connected, no program run, no process looked into. A seccomp allow-list, no new
 * privileges, and an empty Landlock ruleset where the kernel has it. `child` is the only process
 * group that may be signalled (0: none). Returns 0, or -1 with *missing naming what the kernel
 * lacks.
 */
int sandbox_enter(pid_t child, const char **missing);

#endif
