/* spipectl probe: does a server answer, with our key? */

#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "connect.h"
#include "ctl-holder.h"
#include "ctl.h"
#include "handshake.h"
#include "options.h"
#include "parse.h"
#include "sandbox.h"
#include "secret.h"
#include "table.h"
#include "wait.h"

#define END_WAIT (1 * SECOND) /* for the server's end after ours */

struct probe {
	const char *key;
	char key_path[TABLE_PATH_SIZE]; /* what key points to, if it is from the table */
	char address[NI_MAXHOST + 16];
	char bind[64]; /* "": none */
	bool no_pfs, require_pfs;
	int64_t timeout;
};

/* --- what to probe ----------------------------------------------------------------------- */

/* Where to reach the tunnel's server: an enc line's target, or a dec line's socket from here. */
static int take_address(struct probe *probe, const struct tunnel *tunnel, struct outcome *outcome)
{
	struct address_text address = tunnel->role == ROLE_ENC ? tunnel->target : tunnel->listen;

	if (tunnel->role == ROLE_ENC && tunnel->command != NULL)
		return fail(outcome, EX_USAGE, "the target of %s is a command: give an address",
		    tunnel->name);
	if (address.kind == ADDRESS_TCP &&
	    (*address.host == '\0' || strcmp(address.host, "::") == 0 ||
		strcmp(address.host, "0.0.0.0") == 0))
		address.host = "127.0.0.1";
	if (address.kind == ADDRESS_VSOCK && *address.host == '\0')
		address.host = "1"; /* this machine */
	tunnel_format_address(&address, probe->address, sizeof(probe->address));
	return 0;
}

static int take_key(struct probe *probe, const struct tunnel *tunnel, struct outcome *outcome)
{
	const struct tunnel_key *key = &tunnel->keys[0];

	if (key->directory || tunnel->option[TUNNEL_ENCRYPTED] != NULL)
		return fail(outcome, EX_USAGE, "the key of %s is %s: give one with -k",
		    tunnel->name, key->directory ? "a directory" : "encrypted");
	snprintf(probe->key_path, sizeof(probe->key_path), "%s", key->path);
	probe->key = probe->key_path;
	return 0;
}

static int take_tunnel(struct probe *probe, const struct tunnel *tunnel, struct outcome *outcome)
{
	const char *const *option = tunnel->option;

	if (take_address(probe, tunnel, outcome) != 0 ||
	    (probe->key == NULL && take_key(probe, tunnel, outcome) != 0))
		return -1;
	if (option[TUNNEL_TIMEOUT] != NULL && probe->timeout == 0)
		probe->timeout = parse_seconds(option[TUNNEL_TIMEOUT]);
	if (option[TUNNEL_PFS] != NULL) {
		probe->no_pfs = strcmp(option[TUNNEL_PFS], "no") == 0;
		probe->require_pfs = !probe->no_pfs;
	}
	if (tunnel->role == ROLE_ENC && option[TUNNEL_BIND] != NULL)
		snprintf(probe->bind, sizeof(probe->bind), "%s", option[TUNNEL_BIND]);
	return 0;
}

/* Take what the line of that name in /etc/spipetab says. */
static int take_line(struct probe *probe, const char *name, struct outcome *outcome)
{
	struct table table;
	struct tunnel tunnel;
	struct outcome wrong;
	enum table_result found;
	int result;

	if (table_open(&table, TABLE_PATH, outcome) != 0)
		return -1;
	while ((found = table_next(&table, &tunnel, &wrong)) == TABLE_WRONG ||
	    (found == TABLE_TUNNEL && strcmp(tunnel.name, name) != 0))
		;
	result = found == TABLE_TUNNEL
	    ? take_tunnel(probe, &tunnel, outcome)
	    : fail(outcome, EX_USAGE, "%s is not an address, and no valid line of %s has that name",
		  name, TABLE_PATH);
	table_close(&table);
	return result;
}

static int take_words(struct probe *probe, int argc, char **argv, struct outcome *outcome)
{
	const char *where, *problem;
	struct address_text address;
	int letter;

	opterr = 0;
	while ((letter = getopt(argc, argv, "+k:o:")) != -1) {
		if (letter == 'k')
			probe->key = optarg;
		else if (letter != 'o')
			break;
		else if ((probe->timeout = parse_seconds(optarg)) == -1)
			return fail(outcome, EX_USAGE,
			    "option -o takes a number of seconds above 0; see --help");
	}
	if (letter != -1 || argc - optind != 1)
		return fail(outcome, EX_USAGE,
		    "probe takes: [-k FILE] [-o SECONDS] ADDRESS or NAME; see --help");
	where = argv[optind];
	if (strpbrk(where, ":/") == NULL)
		return take_line(probe, where, outcome);
	snprintf(probe->address, sizeof(probe->address), "%s", where);
	problem = address_split(&address, where, false);
	if (problem != NULL)
		return fail(outcome, EX_USAGE, "%s: %s", where, problem);
	if (probe->key == NULL)
		return fail(outcome, EX_USAGE, "an address needs a key (-k); see --help");
	return 0;
}

/* --- the probe --------------------------------------------------------------------------- */

/*
 * End our direction, and wait for the server to end its own: one whose target cannot be reached
 * resets the connection instead. A target that goes on in spite of our end is left alone.
 */
static int end(struct side *wire, struct outcome *outcome)
{
	struct pollfd ready = { .fd = wire->in.fd, .events = POLLIN };
	int64_t deadline = time_now() + END_WAIT;
	uint8_t data[4096];
	ssize_t got = -1;

	side_end_output(wire);
	while (got != 0 && wait_poll(&ready, 1, deadline) > 0) {
		got = side_read(wire, data, sizeof(data));
		if (got == -1 && errno != EAGAIN && errno != EINTR)
			return fail(outcome, EX_IOERR,
			    "the server broke the connection off after the handshake: "
			    "it probably cannot reach its target, or its command failed; see its log");
	}
	side_close(wire);
	return 0;
}

/* Connect, do the handshake and end, and print the times. */
static int run(const struct probe *probe, const uint8_t *secret, struct handshake *h,
    struct outcome *outcome)
{
	int64_t started = time_now(), deadline = started + probe->timeout, connected, proved;
	char line[sizeof(probe->address) + 100];
	struct side wire;
	int fd = connect_to(probe->address, *probe->bind != '\0' ? probe->bind : NULL, deadline,
	    outcome);

	if (fd == -1)
		return -1;
	connected = time_now();
	side_set(&wire, "server", fd, fd, false);
	sandbox_enter(0); /* as far as the kernel can */
	if (handshake_client(h, &wire, secret, deadline, outcome) != 0)
		return -1;
	proved = time_now();
	if (end(&wire, outcome) != 0)
		return -1;
	snprintf(line, sizeof(line), "%s: %.1f ms (connection %.1f, handshake %.1f)\n",
	    probe->address, (double)(proved - started) / 1e6, (double)(connected - started) / 1e6,
	    (double)(proved - connected) / 1e6);
	/* printf would ask for the kind of its output, which the sandbox does not allow */
	if (write(STDOUT_FILENO, line, strlen(line)) == -1)
		return fail(outcome, EX_IOERR, "standard output cannot be written");
	return 0;
}

int ctl_probe(int argc, char **argv, struct outcome *outcome)
{
	struct probe probe = { .timeout = 0 };
	struct keyring ring = { 0 };
	struct handshake *h = NULL;
	int result = -1;

	if (take_words(&probe, argc, argv, outcome) != 0)
		return -1;
	if (probe.timeout == 0)
		probe.timeout = TIMEOUT_DEFAULT * SECOND;
	crypto_start();
	if (ctl_load_key(&ring, probe.key, outcome) == 0) {
		h = secret_alloc(sizeof(*h));
		if (h == NULL)
			fail(outcome, EX_OSERR, "no memory for secrets: %s", strerror(errno));
		else {
			h->pfs = !probe.no_pfs;
			h->require_pfs = probe.require_pfs;
			result = run(&probe, ring.secret[0], h, outcome);
		}
	}
	secret_free(h, sizeof(*h));
	keyring_wipe(&ring);
	return result;
}
