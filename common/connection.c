#include "connection.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include <openssl/crypto.h>

#include "proxy.h"
#include "relay.h"
#include "sandbox.h"
#include "secret.h"
#include "wait.h"

int connection_open(struct connection *c, enum role role, int argc, char **argv)
{
	struct options *options = &c->options;

	memset(c, 0, sizeof(*c));
	c->near.in.fd = c->near.out.fd = c->far.in.fd = c->far.out.fd = -1;
	secret_harden();
	descriptors_find(&c->descriptors, role == ROLE_DEC);
	report_open(&c->report, role == ROLE_DEC ? "spipe-dec" : "spipe-enc",
	    role == ROLE_DEC ? "dec" : "enc", c->descriptors.is_stderr);
	if (options_parse(options, role, argc, argv, &c->outcome) != 0 || options->shown)
		return -1;
	if (c->descriptors.wrong.status != 0) {
		c->outcome = c->descriptors.wrong;
		return -1;
	}
	if (signals_take() != 0)
		return fail(&c->outcome, EX_OSERR, "cannot receive signals: %s", strerror(errno));
	c->deadline = time_now() + options->timeout;
	side_set(&c->near, "near side", c->descriptors.in, c->descriptors.out,
	    !options->no_keepalive);
	peer_learn(&c->peer, c->descriptors.in);
	peer_export(&c->peer);
	report_on(&c->report, &c->peer, c->descriptors.is_network, options->verbose);
	/* Neither openssl.cnf nor libcrypto's own tidying up at exit is of use here: both take time. */
	OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_NO_ATEXIT, NULL);
	c->secrets = secret_alloc(sizeof(*c->secrets));
	if (c->secrets == NULL)
		return fail(&c->outcome, EX_OSERR, "no memory for secrets: %s", strerror(errno));
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
	struct destination usual = { .command = c->options.command };
	bool any = false;

	for (size_t i = 0; i < c->ring.count; i++)
		any |= keyring_destination(&c->ring, i, usual).command != NULL;
	if (!any && !c->descriptors.ucspi)
		return fail(&c->outcome, EX_USAGE,
		    "no command is given, and descriptors 6 and 7 "
		    "(a UCSPI client's connection) are not open; see --help");
	if (c->options.command == NULL && c->descriptors.ucspi) { /* now: a pipe is opened anew */
		if (descriptors_check(6, false, "far side", &c->outcome) != 0 ||
		    descriptors_check(7, true, "far side", &c->outcome) != 0)
			return -1;
		side_set(&c->far, "far side", 6, 7, !c->options.no_keepalive);
	}
	return any ? launcher_prepare(&c->launcher, c->options.command, &c->ring,
			 c->descriptors.is_stderr, &c->outcome)
		   : 0;
}

int connection_enter_sandbox(struct connection *c)
{
	const char *missing;

	if (sandbox_enter(c->launcher.pid, &missing) == 0)
		return 0;
	if (c->options.sandbox_required)
		return fail(&c->outcome, EX_OSERR, "no sandbox: this kernel or build lacks %s",
		    missing);
#ifndef NO_SANDBOX
	report_warn(&c->report, "going on without a sandbox: this kernel or build lacks %s",
	    missing);
#endif
	return 0;
}

int connection_start_far(struct connection *c)
{
	struct destination usual = { .command = c->options.command };
	char *const *argv = keyring_destination(&c->ring, c->key, usual).command;

	if (argv != NULL) {
		if (launcher_start(&c->launcher, c->key, argv[0], &c->outcome) != 0)
			return -1;
		if (!c->options.fd_pass)
			side_set(&c->far, "far side", c->launcher.socket, c->launcher.socket,
			    false);
	} else if (c->descriptors.ucspi)
		launcher_kill(&c->launcher); /* the launcher is for other keys */
	else
		return fail(&c->outcome, EX_USAGE,
		    "no command is given, neither by the rules of "
		    "the client's key nor on the command line; see --help");
	return 0;
}

int connection_receive_far(struct connection *c)
{
	int fd;

	if (!c->options.fd_pass)
		return 0;
	fd = launcher_receive_socket(&c->launcher, c->deadline, &c->outcome);
	if (fd == -1)
		return -1;
	side_set(&c->far, "far side", fd, fd, !c->options.no_keepalive);
	return 0;
}

int connection_meet_server(struct connection *c)
{
	struct handshake *h = &c->secrets->handshake;

	if (handshake_client(h, &c->far, c->ring.secret[0], c->deadline, &c->outcome) == 0)
		return 0;
	/* A connection that never was: if the command says so itself, believe it. */
	if (c->outcome.status == EX_NOPERM && !h->nonce_received && c->launcher.pid != 0 &&
	    launcher_finish(&c->launcher, c->deadline, &c->outcome) == 0)
		fail(&c->outcome, EX_NOPERM,
		    "the server closed the connection before the handshake: "
		    "it is not spiped, or in trouble of its own, or the command is nc -F without "
		    "our -p");
	return -1;
}

int connection_check_rules(struct connection *c)
{
	const struct rules *rules = c->ring.key[c->key].rules;
	c->report.key = c->ring.key[c->key].name;
	keyring_warn(&c->ring, c->key, &c->report);
	if (rules == NULL)
		return 0;
	return rules_check(rules, &c->peer.remote, c->secrets->handshake.forward_secret, time(NULL),
	    &c->outcome);
}

int connection_relay(struct connection *c, enum role role)
{
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

	c->report.key = c->ring.key[c->key].name;
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

	if (ended) {
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
		secret_free(c->secrets, sizeof(*c->secrets));
	}
	keyring_wipe(&c->ring);
	if (!c->options.shown)
		report_end(&c->report, outcome);
	if (outcome->signal != 0)
		signals_die(outcome->signal);
	return outcome->status;
}
