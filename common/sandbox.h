#ifndef SPIPE_SANDBOX_H
#define SPIPE_SANDBOX_H

#include <stdbool.h>
#include <sys/types.h>

/* Whether this build has a sandbox: not with SANDBOX=no, nor for every processor. */
bool sandbox_built(void);

/*
 * From here on this process can use the descriptors it has, and no more: no file is opened, no
 * socket made or connected, no program run, no process looked into. A seccomp allow-list, no new
 * privileges, and an empty Landlock ruleset where the kernel has it. `child` is the only process
 * group that may be signalled (0: none). Returns 0, or -1 with *missing naming what the kernel
 * lacks.
 */
int sandbox_enter(pid_t child, const char **missing);

/*
 * For a command that shares its user with the filter and with other connections: from here on
 * this process cannot read the files in `directory` (an absolute path, or NULL), nor signal a process that
 * is not its descendant, as far as the kernel's Landlock can (5.13 and 6.12). Does nothing without a directory
 * unless no_new_privs is set already: it has to be, and set-user-ID programs lose their rights by it.
 */
void sandbox_confine_command(const char *directory);

#endif
