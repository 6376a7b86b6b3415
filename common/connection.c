#include "connection.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "proxy.h"
#include "relay.h"
#include "sandbox.h"
#include "secret.h"
#include "wait.h"

/* spipe-enc has read nothing from a network yet when it connects. */
static bool connects_itself(const struct connection *c)
{
	return c->role == ROLE_ENC && c->places.to != NULL;
}

/*
 * The near side is a listening socket: serve connections in children. Returns 0 in a child, with
 * the connection as the near side; -1 in the listener at its end.
 */
static int listen_near(struct connection *c, char *const *argv)
{
	bool connects = c->role == ROLE_DEC && c->places.to != NULL;

	c->options.limits.timeout = c->options.timeout;
	crypto_start(); /* once for all children */
	if (listener_run(&c->accepted, &c->descriptors, &c->options.limits,
		connects ? &c->places : NULL, argv, &c->report, &c->outcome) != 0)
		return -1;
	close(c->report.notify); /* only the listener uses it */
	c->report.notify = -1;
	c->report.muted = c->accepted.muted;
	c->report.started = c->accepted.since;
	return 0;
}

int connection_open(struct connection *c, enum role role, int argc, char **argv)
{
	struct options *options = &c->options;

	memset(c, 0, sizeof(*c));
	c->role = role;
	c->accepted.since = time_now();
	c->near.in.fd = c->near.out.fd = c->far.in.fd = c->far.out.fd = -1;
	c->accepted.channel = c->begun = -1;
	secret_harden();
	descriptors_find(&c->descriptors, role == ROLE_DEC);
	report_open(&c->report, role == ROLE_DEC ? "spipe-dec" : "spipe-enc",
	    role == ROLE_DEC ? "dec" : "enc", c->descriptors.is_stderr);
	/* Without listener or service manager, it was started by hand: leave its title alone. */
	if ((c->descriptors.listeners > 0 || c->report.notify != -1) &&
	    (argv = title_take(&c->title, argc, argv)) == NULL)
		return fail(&c->outcome, EX_OSERR, "out of memory");
	if (options_parse(options, role, argc, argv, &c->outcome) != 0 || options->shown)
		return -1;
	if (c->descriptors.wrong.status != 0) {
		c->outcome = c->descriptors.wrong;
		return -1;
	}
	if (options->for_listener != NULL && c->descriptors.listeners == 0)
		return fail(&c->outcome, EX_USAGE,
		    "option --%s needs a listening socket as the near side, not one connection",
		    options->for_listener);
	if (signals_take() != 0)
		return fail(&c->outcome, EX_OSERR, "cannot receive signals: %s", strerror(errno));
	if (options->target != NULL && connect_at_once(options->target) &&
	    connect_find(&c->places, options->target, options->bind, &c->outcome) != 0)
		return -1;
	if (c->descriptors.listeners > 0 && listen_near(c, argv) != 0)
		return -1;
	c->deadline = c->accepted.since + options->timeout;
	side_set(&c->near, "near side", c->descriptors.in, c->descriptors.out,
	    !options->no_keepalive);
	peer_learn(&c->peer, c->descriptors.in);
	if (c->peer.remote.family == AF_UNSPEC)
		c->peer.remote = c->accepted.remote; /* the peer has closed already */
	report_on(&c->report, &c->peer, options->verbose);
	c->report.title = &c->title;
	title_set(&c->title, "%s: %s", c->report.program, c->report.peer);
	c->secrets = secret_alloc(sizeof(*c->secrets));
	if (c->secrets == NULL || crypto_start() != 0)
		return fail(&c->outcome, EX_OSERR, "no memory for secrets: %s", strerror(errno));
	crypto_use_memory(c->secrets->libcrypto, sizeof(c->secrets->libcrypto));
	c->secrets->handshake.pfs = !options->no_pfs;
	c->secrets->handshake.require_pfs = options->require_pfs;
	if (keyring_load(&c->ring, options->keys, options->key_count, options->key_dir,
		role == ROLE_DEC, c->deadline, &c->outcome) != 0)
		return -1;
	if (role == ROLE_ENC)
		keyring_warn(&c->ring, 0, &c->report);
	return 0;
}

int connection_prepare_far(struct connection *c)
{
	struct destination usual = { c->options.command, c->options.target };
	bool any = false, lend = c->accepted.connects;

	c->errands = calloc(c->ring.count, sizeof(*c->errands));
	if (c->errands == NULL)
		return fail(&c->outcome, EX_OSERR, "out of memory");
	for (size_t i = 0; i < c->ring.count; i++) {
		struct destination to = keyring_destination(&c->ring, i, usual);

		c->errands[i] = (struct errand){ to, c->options.bind, c->ring.key[i].name };
		lend &= to.command == NULL && to.target == usual.target;
		any |= to.command != NULL || to.target != NULL;
	}
	if (!any && !c->descriptors.ucspi)
		return fail(&c->outcome, EX_USAGE,
		    "no target (-t) and no command is given, and descriptors 6 and 7 "
		    "(a UCSPI client's connection) are not open; see --help");
	if (c->options.command == NULL && c->options.target == NULL && c->descriptors.ucspi) {
		/* Before the sandbox, because a pipe is reopened. */
		if (descriptors_check(6, false, "far side", &c->outcome) != 0 ||
		    descriptors_check(7, true, "far side", &c->outcome) != 0)
			return -1;
		side_set(&c->far, "far side", 6, 7, !c->options.no_keepalive);
	}
	if (lend)
		launcher_lend(&c->launcher, c->options.target, c->accepted.channel);
	if (lend || !any || connects_itself(c))
		return 0;
	peer_export(&c->peer); /* for a command */
	return launcher_prepare(&c->launcher, c->errands, c->ring.count, c->descriptors.is_stderr,
	    c->deadline, &c->outcome);
}

int connection_enter_sandbox(struct connection *c)
{
	const char *missing;

	descriptors_close_others(&c->descriptors);
	missing = sandbox_enter(c->launcher.pid);
	if (missing != NULL) {
		if (c->options.sandbox_required)
			return fail(&c->outcome, EX_OSERR,
			    "no sandbox: this kernel or build lacks %s", missing);
		if (sandbox_built) /* else the compiler and --version say so */
			report_warn(&c->report,
			    "continuing without a sandbox: this kernel lacks %s", missing);
	}
	listener_ready(c->accepted.channel);
	return 0;
}

int connection_start_far(struct connection *c)
{
	const struct destination *to = &c->errands[c->key].to;

	if (connects_itself(c)) {
		c->begun = connect_begin(&c->places, &c->outcome);
		return c->begun == -1 ? -1 : 0;
	}
	if (c->launcher.lent) {
		listener_connect(c->accepted.channel);
		return 0;
	}
	if (to->command != NULL || to->target != NULL)
		return launcher_start(&c->launcher, c->errands, c->key, &c->outcome);
	if (!c->descriptors.ucspi)
		return fail(&c->outcome, EX_USAGE,
		    "neither the rules of the client's key nor the command line gives "
		    "a target or command; see --help");
	launcher_kill(&c->launcher); /* only other keys need it */
	return 0;
}

int connection_receive_far(struct connection *c)
{
	int fd = c->begun;

	if (fd == -1 && c->launcher.pid == 0 && !c->launcher.lent)
		return 0; /* descriptors 6 and 7 */
	if (fd == -1)
		fd = launcher_far_side(&c->launcher, c->options.fd_pass, c->deadline, &c->outcome);
	if (fd == -1)
		return -1;
	if ((c->begun != -1 || c->launcher.lent) &&
	    connect_end(fd, &c->places, c->deadline, &c->outcome) != 0)
		return -1;
	side_set(&c->far, "far side", fd, fd, !c->options.no_keepalive);
	return 0;
}

/* The peer has proved its key: note it for the record, the listener and ps(1). */
static void peer_proved(struct connection *c)
{
	c->report.key = c->ring.key[c->key].name;
	memcpy(c->report.key_id, c->secrets->handshake.key_id, sizeof(c->report.key_id));
	c->report.muted = false;
	listener_proved(c->accepted.channel);
	title_set(&c->title, "%s: %s key %s", c->report.program, c->report.peer, c->report.key);
}

int connection_meet_server(struct connection *c)
{
	struct handshake *h = &c->secrets->handshake;

	if (handshake_client(h, &c->far, c->ring.secret[0], c->deadline, &c->outcome) == 0) {
		peer_proved(c);
		return 0;
	}
	/* If the command or launcher failed to connect, that is the reason. */
	if (c->outcome.status == EX_NOPERM && !h->nonce_received && c->launcher.pid != 0 &&
	    launcher_finish(&c->launcher, c->deadline, &c->outcome) == 0)
		fail(&c->outcome, EX_NOPERM,
		    "the server closed the connection before the handshake: it is not spiped, "
		    "or it failed, or the command is nc -F without our -p");
	return -1;
}

int connection_check_rules(struct connection *c)
{
	const struct rules *rules = c->ring.key[c->key].rules;

	peer_proved(c);
	keyring_warn(&c->ring, c->key, &c->report);
	if (rules == NULL)
		return 0;
	return rules_check(rules, &c->peer.remote, c->secrets->handshake.forward_secret, time(NULL),
	    &c->outcome);
}

int connection_relay(struct connection *c)
{
	enum role role = c->role;
	const struct stream_keys *keys = &c->secrets->handshake.keys;
	struct packet_state *client = role == ROLE_ENC ? &c->secrets->seal : &c->secrets->open;
	struct packet_state *server = role == ROLE_ENC ? &c->secrets->open : &c->secrets->seal;
	uint8_t header[PROXY_HEADER_MOST];
	struct relay relay = {
		.near = &c->near,
		.far = &c->far,
		.role = role,
		.seal = &c->secrets->seal,
		.open = &c->secrets->open,
		.launcher = c->launcher.pid != 0 ? &c->launcher : NULL,
		.idle = c->options.idle,
		.linger = c->options.linger,
		.report = &c->report,
	};

	if (packet_init(client, keys->E_C, keys->H_C) != 0 ||
	    packet_init(server, keys->E_S, keys->H_S) != 0)
		return fail(&c->outcome, EX_OSERR, "libcrypto has no AES-256, or no memory");
	wipe(&c->secrets->handshake, sizeof(c->secrets->handshake));
	keyring_wipe(&c->ring);
	if (c->options.proxy_version != 0) {
		relay.header = header;
		relay.header_size = proxy_header(header, c->options.proxy_version, &c->peer,
		    role == ROLE_DEC ? c->report.key : NULL);
	}
	report_ready(&c->report);
	return relay_run(&relay, &c->outcome);
}

int connection_close(struct connection *c, bool ended)
{
	struct outcome *outcome = &c->outcome;

	if (outcome->signal == SIGUSR2 && c->accepted.channel != -1)
		fail(outcome, EX_NOPERM,
		    "closed without proof of a key, to make room for newer connections");
	if (ended) {
		if (c->launcher.pid != 0)
			shutdown(c->far.out.fd, SHUT_RDWR); /* the launcher has it open, too */
		side_close(&c->far);
		launcher_finish(&c->launcher, time_now() + LAUNCHER_GRACE * SECOND, outcome);
		side_close(&c->near);
	} else {
		launcher_kill(&c->launcher);
		side_reset(&c->far);
		side_reset(&c->near);
	}
	if (c->secrets != NULL) {
		packet_done(&c->secrets->seal);
		packet_done(&c->secrets->open);
		wipe(&c->secrets->handshake, sizeof(c->secrets->handshake));
	}
	keyring_wipe(&c->ring);
	listener_carried(c->accepted.channel, c->report.bytes_in, c->report.bytes_out);
	if (!c->options.shown)
		report_end(&c->report, outcome);
	if (outcome->signal != 0)
		signals_die(outcome->signal);
	if (c->accepted.channel != -1)
		_exit(outcome->status); /* what exit(3) does besides is the listener's */
	return outcome->status;
}
