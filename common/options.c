#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "packet.h"
#include "parse.h"
#include "wait.h"

#define TIMEOUT_DEFAULT (5 * SECOND)

enum { OPTION_LINGER = 256, OPTION_SANDBOX, OPTION_VERBOSE, OPTION_END };

static const struct option long_options[] = {
	{ "key", required_argument, NULL, 'k' },
	{ "key-dir", required_argument, NULL, 'K' },
	{ "no-pfs", no_argument, NULL, 'f' },
	{ "require-pfs", no_argument, NULL, 'g' },
	{ "no-keepalive", no_argument, NULL, 'j' },
	{ "timeout", required_argument, NULL, 'o' },
	{ "fd-pass", no_argument, NULL, 'p' },
	{ "proxy-protocol", optional_argument, NULL, 'x' },
	{ "idle", required_argument, NULL, 'i' },
	{ "linger", required_argument, NULL, OPTION_LINGER },
	{ "sandbox", required_argument, NULL, OPTION_SANDBOX },
	{ "verbose", no_argument, NULL, OPTION_VERBOSE },
	{ "version", no_argument, NULL, 'v' },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

#define LETTERS "+:k:K:fgjo:px::i:vh"

static const char enc_usage[] =
    "usage: spipe-enc [-fgjpx] [-o seconds] [-i seconds] -k keyfile [--] [command [argument ...]]\n"
    "Carry one connection: plaintext on standard input and output, encrypted to the command.\n\n"
    "  -k, --key FILE         key file, 32 bytes or more\n";

static const char dec_usage[] =
    "usage: spipe-dec [-fgjpx] [-o seconds] [-i seconds] [-k keyfile] ... [-K keydir]\n"
    "                 [--] [command [argument ...]]\n"
    "Carry one connection: encrypted on standard input and output, plaintext to the command.\n\n"
    "  -k, --key FILE         key file, 32 bytes or more; may be repeated\n"
    "  -K, --key-dir DIR      every file in DIR is a key\n";

static const char common_usage[] =
    "  -f, --no-pfs           no forward secrecy: saves CPU, costs security\n"
    "  -g, --require-pfs      refuse a peer without forward secrecy\n"
    "  -j, --no-keepalive     no TCP keep-alives\n"
    "  -o, --timeout SECONDS  for the far side to be ready and the handshake to finish (5)\n"
    "  -p, --fd-pass          the command hands back a connected socket, as nc -F does\n"
    "  -x, --proxy-protocol[=1|2]\n"
    "                         PROXY protocol header ahead of the data (version 2)\n"
    "  -i, --idle SECONDS     end a connection silent in both directions\n"
    "      --linger SECONDS   end one silent that long after one direction has ended\n"
    "      --sandbox=auto|require\n"
    "                         require: do not go on where the kernel has no sandbox\n"
    "      --verbose          say on stderr who, how much, how long, and why it ended\n"
    "  -v, --version          show the version and what is built in\n"
    "  -h, --help             show this\n\n"
    "Without a command the far side is descriptors 6 and 7 (UCSPI clients).\n"
    "Exit status: 0 clean end, 64 usage, 69 command failed, 71 system refused, 74 a side lost,\n"
    "75 too late, 76 tampered with or cut, 77 peer not allowed, 78 key.\n";

#ifdef WITH_SYSTEMD
static const char systemd_built[] = "yes";
#else
static const char systemd_built[] = "no";
#endif
#ifdef NO_SANDBOX
static const char sandbox_built[] = "no";
#else
static const char sandbox_built[] = "yes";
#endif

static void show(int option, enum role role)
{
	if (option == 'h') {
		printf("%s%s", role == ROLE_DEC ? dec_usage : enc_usage, common_usage);
		return;
	}
	printf("%s " SPIPE_VERSION " (packets: %s; systemd: %s; sandbox: %s)\n",
	    role == ROLE_DEC ? "spipe-dec" : "spipe-enc", packet_backend(), systemd_built,
	    sandbox_built);
}

/* Take one option. Returns NULL, or what is wrong with its value. */
static const char *take(struct options *options, int option, const char *value)
{
	int64_t *span = NULL;

	switch (option) {
	case 'k': break;
	case 'K': options->key_dir = value; break;
	case 'f': options->no_pfs = true; break;
	case 'g': options->require_pfs = true; break;
	case 'j': options->no_keepalive = true; break;
	case 'p': options->fd_pass = true; break;
	case OPTION_VERBOSE: options->verbose = true; break;
	case 'o': span = &options->timeout; break;
	case 'i': span = &options->idle; break;
	case OPTION_LINGER: span = &options->linger; break;
	case 'x':
		if (value != NULL && strcmp(value, "1") != 0 && strcmp(value, "2") != 0)
			return "is 1 or 2";
		options->proxy_version = value != NULL && value[0] == '1' ? 1 : 2;
		break;
	case OPTION_SANDBOX:
		options->sandbox_required = strcmp(value, "require") == 0;
		if (!options->sandbox_required && strcmp(value, "auto") != 0)
			return "is auto or require";
		break;
	}
	if (span != NULL && (*span = parse_seconds(value)) == -1)
		return "takes a number of seconds above 0";
	return NULL;
}

int options_parse(struct options *options, enum role role, int argc, char **argv,
    struct outcome *outcome)
{
	const char **keys = calloc((size_t)argc + 1, sizeof(*keys)), *problem;
	bool seen[OPTION_END] = { false };
	int named; /* how much of the word is the option's name */

	*options = (struct options){ .timeout = TIMEOUT_DEFAULT, .keys = keys };
	if (keys == NULL)
		return fail(outcome, EX_OSERR, "out of memory");
	opterr = 0;
	optind = 0; /* from the start, also when this is called again */
	for (;;) {
		const char *word = argv[optind == 0 ? 1 : optind];
		int at = -1, option = getopt_long(argc, argv, LETTERS, long_options, &at);
		char letter[] = { '-', (char)(option == '?' || option == ':' ? optopt : option),
			'\0' };

		if (option == -1)
			break;
		named = word[1] == '-' ? (int)strcspn(word, "=") : 2;
		if (option == '?' && word[1] == '-' && optopt != 0)
			problem = "takes no value";
		else if (option == '?' || (letter[1] == 'K' && role == ROLE_ENC) ||
		    (at != -1 && strlen(long_options[at].name) != (size_t)named - 2))
			problem = "is unknown"; /* an abbreviation too */
		else if (option == ':')
			problem = "needs a value";
		else if (seen[option] && !(option == 'k' && role == ROLE_DEC))
			problem = "is given twice";
		else
			problem = take(options, option, optarg);
		if (problem != NULL)
			return fail(outcome, EX_USAGE, "option %.*s %s; see --help", named,
			    word[1] == '-' ? word : letter, problem);
		seen[option] = true;
		if (option == 'k')
			keys[options->key_count++] = optarg;
		if (option == 'h' || option == 'v') {
			show(option, role);
			if (fflush(stdout) != 0)
				return fail(outcome, EX_IOERR, "standard output: %s",
				    strerror(errno));
			options->shown = true;
			return 0;
		}
	}
	options->command = optind < argc ? argv + optind : NULL;
	if (options->key_count == 0 && options->key_dir == NULL)
		return fail(outcome, EX_USAGE, "no key is given (-k%s)%s%s; see --help",
		    role == ROLE_DEC ? " or -K" : "",
		    options->command != NULL ? " before the command, " : "",
		    options->command != NULL ? options->command[0] : "");
	if (options->no_pfs && options->require_pfs)
		return fail(outcome, EX_USAGE,
		    "-f (no forward secrecy) and -g (require it) "
		    "contradict each other; see --help");
	if (options->fd_pass && options->command == NULL)
		return fail(outcome, EX_USAGE,
		    "-p needs a command to hand back the socket; see "
		    "--help");
	return 0;
}
