#include "options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "address.h"
#include "packet.h"
#include "parse.h"
#include "sandbox.h"
#include "wait.h"

#define COUNT_MOST 65535

enum value { NONE, REQUIRED, OPTIONAL };

/* In the order of the usage text. Options without a letter have a number above all letters. */
enum { LINGER = 256, SANDBOX, STRANGERS, PER_SOURCE, EXIT_IDLE, VERBOSE, LAST };

static const struct option {
	int letter;
	const char *name;
	enum value value;
	bool dec_only, for_listener;
} known[] = {
	{ 'k', "key", REQUIRED, false, false },
	{ 'K', "key-dir", REQUIRED, true, false },
	{ 't', "target", REQUIRED, false, false },
	{ 'b', "bind", REQUIRED, false, false },
	{ 'f', "no-pfs", NONE, false, false },
	{ 'g', "require-pfs", NONE, false, false },
	{ 'j', "no-keepalive", NONE, false, false },
	{ 'o', "timeout", REQUIRED, false, false },
	{ 'p', "fd-pass", NONE, false, false },
	{ 'x', "proxy-protocol", OPTIONAL, false, false },
	{ 'i', "idle", REQUIRED, false, false },
	{ LINGER, "linger", REQUIRED, false, false },
	{ SANDBOX, "sandbox", REQUIRED, false, false },
	{ VERBOSE, "verbose", NONE, false, false },
	{ 'n', "max-connections", REQUIRED, false, true },
	{ STRANGERS, "max-strangers", REQUIRED, true, true },
	{ PER_SOURCE, "max-strangers-per-source", REQUIRED, true, true },
	{ EXIT_IDLE, "exit-idle", REQUIRED, false, true },
	{ 'v', "version", NONE, false, false },
	{ 'h', "help", NONE, false, false },
};

static const char enc_usage[] =
    "usage: spipe-enc [-fgjpx] [-b address] [-i seconds] [-n number] [-o seconds] -k keyfile\n"
    "                 [-t address | command [argument ...]]\n"
    "Encrypt the connection on standard input and output, and send it on to an address or command.\n\n"
    "  -k, --key FILE         key file, 32 bytes or more\n";

static const char dec_usage[] =
    "usage: spipe-dec [-fgjpx] [-b address] [-i seconds] [-n number] [-o seconds]\n"
    "                 [-k keyfile] ... [-K keydir] [-t address | command [argument ...]]\n"
    "Decrypt the connection on standard input and output, and send it on to an address or command.\n\n"
    "  -k, --key FILE         key file, 32 bytes or more; may be repeated\n"
    "  -K, --key-dir DIR      every file in DIR is a key\n";

static const char common_usage[] =
    "  -t, --target ADDRESS   connect to host:port, [v6]:port, /path or vsock:CID:port\n"
    "  -b, --bind ADDRESS     connect from this local address, with or without a port\n"
    "  -f, --no-pfs           do without forward secrecy: faster, but less secure\n"
    "  -g, --require-pfs      refuse a peer without forward secrecy\n"
    "  -j, --no-keepalive     no TCP keep-alives\n"
    "  -o, --timeout SECONDS  time limit for connecting and the handshake together (5)\n"
    "  -p, --fd-pass          the command passes back a connected socket, as nc -F does\n"
    "  -x, --proxy-protocol[=1|2]\n"
    "                         send a PROXY protocol header before the data (version 2)\n"
    "  -i, --idle SECONDS     end a connection after this long without data\n"
    "      --linger SECONDS   after one direction has ended, end a connection when the other\n"
    "                         has been silent for this long\n"
    "      --sandbox=auto|require\n"
    "                         require: refuse to run if the kernel has no sandbox\n"
    "      --verbose          write the connection's record to standard error\n"
    "  -v, --version          show the version and what the program was built with\n"
    "  -h, --help             show this help\n\n"
    "If standard input or what systemd passes is a listening socket, each connection is served\n"
    "by a child process:\n"
    "  -n, --max-connections N\n"
    "                         connections at the same time (200); further ones wait\n";

static const char dec_listener_usage[] =
    "      --max-strangers N  connections whose peer has not proved a key, in addition (200)\n"
    "      --max-strangers-per-source N\n"
    "                         those from one IPv4 address or IPv6 /64 (50)\n";

static const char last_usage[] =
    "      --exit-idle SECONDS\n"
    "                         exit after this long without a connection\n\n"
    "Without an address or command, the far side is descriptors 6 and 7 (UCSPI clients).\n"
    "Exit status: 0 clean end, 64 usage error, 69 target or command failed, 71 system error,\n"
    "74 a side was lost, 75 time limit, 76 tampered with or cut, 77 peer not allowed, 78 key.\n";

#ifdef WITH_SYSTEMD
static const char systemd_built[] = "yes";
#else
static const char systemd_built[] = "no";
#endif
static void show(int letter, enum role role)
{
	if (letter == 'h') {
		printf("%s%s%s%s", role == ROLE_DEC ? dec_usage : enc_usage, common_usage,
		    role == ROLE_DEC ? dec_listener_usage : "", last_usage);
		return;
	}
	printf("%s " SPIPE_VERSION " (packets: %s; systemd: %s; sandbox: %s)\n",
	    role == ROLE_DEC ? "spipe-dec" : "spipe-enc", packet_backend(), systemd_built,
	    sandbox_built ? "yes" : "no");
}

/* Take one option. Returns NULL, or what is wrong with its value. */
static const char *take(struct options *options, int letter, const char *value)
{
	int64_t *span = NULL;
	unsigned *count = NULL;
	uint64_t number;
	struct address_text address;

	switch (letter) {
	case 'K': options->key_dir = value; break;
	case 'f': options->no_pfs = true; break;
	case 'g': options->require_pfs = true; break;
	case 'j': options->no_keepalive = true; break;
	case 'p': options->fd_pass = true; break;
	case VERBOSE: options->verbose = true; break;
	case 'o': span = &options->timeout; break;
	case 'i': span = &options->idle; break;
	case LINGER: span = &options->linger; break;
	case EXIT_IDLE: span = &options->limits.exit_idle; break;
	case 'n': count = &options->limits.connections; break;
	case STRANGERS: count = &options->limits.strangers; break;
	case PER_SOURCE: count = &options->limits.per_source; break;
	case 't':
		options->target = value;
		if (address_split(&address, value, false) != NULL)
			return "takes host:port, [v6]:port, /path or vsock:CID:port";
		break;
	case 'b':
		options->bind = value;
		if (address_split_local(&address, value) != NULL)
			return "takes a numeric address, with or without a port";
		break;
	case 'x':
		if (value != NULL && strcmp(value, "1") != 0 && strcmp(value, "2") != 0)
			return "takes 1 or 2";
		options->proxy_version = value != NULL && value[0] == '1' ? 1 : 2;
		break;
	case SANDBOX:
		options->sandbox_required = strcmp(value, "require") == 0;
		if (!options->sandbox_required && strcmp(value, "auto") != 0)
			return "takes auto or require";
		break;
	}
	if (span != NULL && (*span = parse_seconds(value)) == -1)
		return "takes a number of seconds above 0";
	if (count != NULL && !parse_number(value, 1, COUNT_MOST, &number))
		return "takes a number from 1 to 65535";
	if (count != NULL)
		*count = (unsigned)number;
	return NULL;
}

/* The option of that letter, or of that name behind a dash, `size` bytes long. */
static const struct option *find(const char *word, size_t size, enum role role)
{
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		bool match = size == 1 ? known[i].letter == *word
				       : strncmp(known[i].name, word + 1, size - 1) == 0 &&
			known[i].name[size - 1] == '\0';

		if (match && !(known[i].dec_only && role == ROLE_ENC))
			return &known[i];
	}
	return NULL;
}

/* Which options cannot be combined, and which need another. */
static int check_together(const struct options *options, enum role role, struct outcome *outcome)
{
	const char *problem = NULL;

	if (options->key_count == 0 && options->key_dir == NULL)
		return fail(outcome, EX_USAGE, "no key is given (-k%s)%s%s; see --help",
		    role == ROLE_DEC ? " or -K" : "",
		    options->command != NULL ? ", and the command would be " : "",
		    options->command != NULL ? options->command[0] : "");
	if (options->no_pfs && options->require_pfs)
		problem = "-f (no forward secrecy) and -g (require it) cannot be combined";
	else if (options->target != NULL && options->command != NULL)
		problem = "-t (a target) and a command cannot be combined";
	else if (options->target != NULL && options->fd_pass)
		problem = "-t (a target) and -p (the command connects) cannot be combined";
	else if (options->fd_pass && options->command == NULL)
		problem = "-p needs a command that passes back a socket";
	else if (options->bind != NULL && options->command != NULL)
		problem = "-b works only with -t (a target), not with a command";
	return problem == NULL ? 0 : fail(outcome, EX_USAGE, "%s; see --help", problem);
}

int options_parse(struct options *options, enum role role, int argc, char **argv,
    struct outcome *outcome)
{
	const char **keys = calloc((size_t)argc + 1, sizeof(*keys)), *problem = NULL;
	bool seen[LAST] = { false };
	int next = 1;

	*options = (struct options){ .timeout = TIMEOUT_DEFAULT * SECOND,
		.keys = keys,
		.limits = { .connections = LISTENER_CONNECTIONS,
		    .strangers = role == ROLE_DEC ? LISTENER_STRANGERS : 0,
		    .per_source = LISTENER_PER_SOURCE } };
	if (keys == NULL)
		return fail(outcome, EX_OSERR, "out of memory");
	while (next < argc && argv[next][0] == '-' && argv[next][1] != '\0') {
		char *word = argv[next++] + 1, *value; /* "k", "kFILE", "-key" or "-key=FILE" */
		bool is_long = *word == '-';

		if (strcmp(word, "-") == 0)
			break;
		do { /* each of the letters in one word, or the one long name */
			size_t size = is_long ? strcspn(word, "=") : 1;
			const struct option *option = find(word, size, role);

			value = word[size] != '\0' ? word + size + is_long : NULL;
			if (!is_long && (option == NULL || option->value == NONE))
				value = NULL;
			if (option != NULL && option->value == REQUIRED && value == NULL &&
			    next < argc)
				value = argv[next++];
			if (option == NULL)
				problem = "is unknown";
			else if (option->value == NONE && value != NULL)
				problem = "takes no value";
			else if (option->value == REQUIRED && value == NULL)
				problem = "needs a value";
			else if (seen[option->letter] &&
			    !(option->letter == 'k' && role == ROLE_DEC))
				problem = "is given twice";
			else
				problem = take(options, option->letter, value);
			if (problem != NULL)
				return fail(outcome, EX_USAGE, "option -%.*s %s; see --help",
				    (int)size, word, problem);
			seen[option->letter] = true;
			if (option->for_listener)
				options->for_listener = option->name;
			if (option->letter == 'k')
				keys[options->key_count++] = value;
			if (option->letter == 'h' || option->letter == 'v') {
				show(option->letter, role);
				if (fflush(stdout) != 0 || ferror(stdout))
					return fail(outcome, EX_IOERR, "standard output: %s",
					    strerror(errno));
				options->shown = true;
				return 0;
			}
		} while (!is_long && value == NULL && *++word != '\0');
	}
	options->command = next < argc ? argv + next : NULL;
	return check_together(options, role, outcome);
}
