#ifndef SPIPE_OPTIONS_H
#define SPIPE_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "listener.h"
#include "outcome.h"

#define TIMEOUT_DEFAULT 5 /* seconds */

enum role {
	ROLE_ENC, /* the protocol's client: plaintext near, packets far */
	ROLE_DEC, /* its server: packets near, plaintext far */
};

/* What the command line says; the man page says what each means. */
struct options {
	const char *const *keys;
	size_t key_count;
	const char *key_dir;
	const char *target, *bind; /* NULL: not given */
	bool no_pfs, require_pfs, no_keepalive, fd_pass, verbose, sandbox_required;
	int proxy_version;             /* 0: no header */
	int64_t timeout, idle, linger; /* nanoseconds; 0: no limit */
	struct listener_limits limits;
	const char *for_listener; /* an option that needs a listening near side, or NULL */
	char **command;           /* NULL: none was given */
	bool shown;               /* --help or --version has been answered */
};

/*
 * Parse the command line. Pointers in the result point into argv. Returns 0, or -1 with the outcome
 * (64, 71, or 74 if --help cannot be written) set.
 */
int options_parse(struct options *, enum role, int argc, char **argv, struct outcome *);

#endif
