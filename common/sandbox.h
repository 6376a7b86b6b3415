#ifndef SPIPE_SANDBOX_H
#define SPIPE_SANDBOX_H

#include <stdbool.h>
#include <sys/types.h>

/* Whether this build has a sandbox: false with SANDBOX=no, and on processors without a filter. */
extern const bool sandbox_built;

/*
 * From here on this process can only use the descriptors that it has: it cannot open files, create
 * or connect sockets, run programs, or trace processes. This is done with a seccomp allow-list, no
 * new privileges, and an empty Landlock ruleset if the kernel has Landlock. `child` is the only
 * process group that may be signalled (0: none). Returns NULL, or what this kernel or build lacks.
 */
const char *sandbox_enter(pid_t child);

/*
 * Confine a command, which runs as the same user as the filter and other connections: from here on
 * this process cannot read the files in `directory` (an absolute path, or NULL), and cannot signal
 * processes other than its descendants. The first needs Linux 5.13, the second 6.12; otherwise
 * nothing happens. Sets no_new_privs, with which set-user-ID programs lose their rights; without a
 * directory it therefore does nothing unless that is set already.
 */
void sandbox_confine_command(const char *directory);

#endif
