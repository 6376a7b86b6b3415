/* spipectl from-spiped: the line of spipetab, or the command line, that replaces a spiped. */

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <limits.h>
#include <netdb.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ctl-command.h"
#include "ctl.h"
#include "keys.h"
#include "parse.h"
#include "table.h"

/* What is asked for. */
struct request {
	struct command_line old;
	char name[65]; /* of the line; "": not given */
	bool command;  /* a command line is wanted, not a line of the table */
};

#define ADDRESS_SIZE (NI_MAXHOST + NI_MAXSERV + 4)

/* What a command line of spiped or spipe says. NULL or "": not given. */
struct spiped {
	bool is_spipe;
	char role; /* 'e', 'd' or 0 */
	const char *source, *target, *key, *bind, *user, *most, *timeout;
	bool no_pfs, require_pfs, no_keepalive;
};

/* The words that replace it. */
struct replacement {
	char name[65], listen[ADDRESS_SIZE], target[ADDRESS_SIZE], key[2 * PATH_MAX];
	char bind[INET6_ADDRSTRLEN];
	char account[80]; /* runas=... or supgroup=..., or "" */
};

/* Say what does not carry over, or is different. */
__attribute__((format(printf, 1, 2))) static void note(const char *format, ...)
{
	va_list arguments;

	fputs("spipectl: note: ", stderr);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
}

/* --- spiped's command line --------------------------------------------------------------- */

/* Options without a counterpart. */
static void note_option(int letter, const char *value)
{
	switch (letter) {
	case '1':
		note("-1 does not carry over: systemd goes on accepting connections; "
		     "spipe-filters(7) says how to serve a single one");
		break;
	case 'D': note("-D is not needed: names are looked up for each connection"); break;
	case 'F': note("-F is not needed: the programs always run in the foreground"); break;
	case 'p': note("-p %s does not carry over: systemd knows its processes", value); break;
	case 'r':
	case 'R': note("-%c is not needed: names are looked up for each connection", letter); break;
	case 'S': note("--syslog is not needed: messages go to the journal"); break;
	}
}

/* Which of the options that it cannot do without is missing? Returns NULL if none is. */
static const char *find_missing(const struct spiped *spiped)
{
	if (spiped->role == 0)
		return "-e or -d";
	if (*spiped->source == '\0' && !spiped->is_spipe)
		return "-s";
	if (*spiped->target == '\0')
		return "-t";
	return *spiped->key == '\0' ? "-k" : NULL;
}

static int parse_spiped(struct spiped *spiped, int argc, char **argv, struct outcome *outcome)
{
	static const struct option names[] = { { "syslog", no_argument, NULL, 'S' },
		{ NULL, 0, NULL, 0 } };
	const char *program = argc > 0 ? file_name(argv[0]) : "", *missing;
	int letter;

	*spiped = (struct spiped){ .is_spipe = strcmp(program, "spipe") == 0,
		.source = "",
		.target = "",
		.key = "" };
	if (!spiped->is_spipe && strcmp(program, "spiped") != 0)
		return fail(outcome, EX_USAGE, "%s is not spiped or spipe", program);
	if (spiped->is_spipe)
		spiped->role = 'e';
	opterr = 0;
	optind = 0;
	while (
	    (letter = getopt_long(argc, argv, "+1DFRb:defgjk:n:o:p:r:s:t:u:v", names, NULL)) != -1)
		switch (letter) {
		case 'b': spiped->bind = optarg; break;
		case 'd':
		case 'e': spiped->role = (char)letter; break;
		case 'f': spiped->no_pfs = true; break;
		case 'g': spiped->require_pfs = true; break;
		case 'j': spiped->no_keepalive = true; break;
		case 'k': spiped->key = optarg; break;
		case 'n': spiped->most = optarg; break;
		case 'o': spiped->timeout = optarg; break;
		case 's': spiped->source = optarg; break;
		case 't': spiped->target = optarg; break;
		case 'u': spiped->user = optarg; break;
		case 'v': return fail(outcome, EX_USAGE, "-v only shows spiped's version");
		case '?':
			return fail(outcome, EX_USAGE,
			    "%s: spiped has no such option, or it needs a value", argv[optind - 1]);
		default: note_option(letter, optarg);
		}
	missing = find_missing(spiped);
	if (optind < argc)
		return fail(outcome, EX_USAGE, "%s: spiped takes only options", argv[optind]);
	return missing == NULL
	    ? 0
	    : fail(outcome, EX_USAGE, "the command line of spiped lacks %s", missing);
}

/* --- its values, as ours ----------------------------------------------------------------- */

/*
 * An address of spiped: a path, [ip]:port or name:port. Here a port is a number, an IPv4 address has
 * no brackets and, if `numeric`, a name is replaced by its current address.
 */
static int convert_address(char to[static ADDRESS_SIZE], const char *from, bool numeric,
    struct outcome *outcome)
{
	const char *colon = strrchr(from, ':');
	char name[NI_MAXHOST], host[NI_MAXHOST];
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *found;
	size_t length = colon != NULL ? (size_t)(colon - from) : 0;
	uint64_t port;
	int error;

	snprintf(to, ADDRESS_SIZE, "%s", from);
	if (*from == '/')
		return 0;
	if (length == 0 || length >= sizeof(name))
		return fail(outcome, EX_DATAERR, "%s: not an address that spiped takes", from);
	if (*from == '[' && from[length - 1] == ']' && memchr(from, ':', length) == NULL)
		snprintf(name, sizeof(name), "%.*s", (int)length - 2, from + 1);
	else
		snprintf(name, sizeof(name), "%.*s", (int)length, from);
	if (!parse_number(colon + 1, 1, 65535, &port)) {
		const struct servent *service = getservbyname(colon + 1, "tcp");

		if (service == NULL)
			return fail(outcome, EX_DATAERR, "%s: unknown port", from);
		port = ntohs((uint16_t)service->s_port);
	}
	snprintf(to, ADDRESS_SIZE, "%s:%u", name, (unsigned)port);
	if (!numeric || *from == '[')
		return 0;
	error = getaddrinfo(name, NULL, &hints, &found);
	if (error != 0)
		return fail(outcome, EX_DATAERR, "%s: cannot be looked up: %s", name,
		    gai_strerror(error));
	getnameinfo(found->ai_addr, found->ai_addrlen, host, sizeof(host), NULL, 0, NI_NUMERICHOST);
	snprintf(to, ADDRESS_SIZE, found->ai_family == AF_INET6 ? "[%s]:%u" : "%s:%u", host,
	    (unsigned)port);
	freeaddrinfo(found);
	if (strcmp(name, host) != 0)
		note("-s %s is written as %s, its current address: a socket needs a numeric one",
		    from, to);
	return 0;
}

/* An absolute path in `to`, and a look at the file. */
static int convert_key(const struct request *request, const struct spiped *spiped, char *to,
    size_t size, const char *name, struct outcome *outcome)
{
	struct stat st;

	if (spiped->is_spipe) {
		snprintf(to, size, "%s", spiped->key); /* it is run in the same place */
		return 0;
	}
	if (strcmp(spiped->key, "-") == 0) {
		snprintf(to, size, "/etc/spipe/%s.key", name);
		note("-k - does not carry over: write the key to %s", to);
		return 0;
	}
	if (*spiped->key != '/' && *request->old.directory == '\0')
		return fail(outcome, EX_DATAERR,
		    "the key file %s is relative to a directory that is not known", spiped->key);
	snprintf(to, size, "%s%s%s", *spiped->key == '/' ? "" : request->old.directory,
	    *spiped->key == '/' ? "" : "/", spiped->key);
	if (stat(to, &st) != 0)
		note("key %s: %s", to, strerror(errno));
	else if (S_ISREG(st.st_mode) && st.st_size < KEY_FILE_LEAST)
		note("key %s is shorter than 32 bytes, which is not accepted here: "
		     "both ends need a new one",
		    to);
	return 0;
}

/* spiped takes [ip]:port. Here the port is left to the kernel. */
static int convert_bind(char *to, size_t size, const char *from, struct outcome *outcome)
{
	struct address_text address;
	const char *problem = address_split_local(&address, from);

	if (problem != NULL)
		return fail(outcome, EX_DATAERR, "-b %s: %s", from, problem);
	snprintf(to, size, "%s", address.host);
	if (strcmp(address.port, "0") != 0)
		note("-b %s: the port does not carry over, connections come from any port", from);
	return 0;
}

/* Find an account that may connect to the UNIX socket: root always could, the service cannot. */
static void convert_unix_target(const char *target, char *to, size_t size)
{
	const struct passwd *user;
	const struct group *group;
	struct stat st;

	if (stat(target, &st) != 0) {
		note("%s is not there now: the service has a user of its own, which must be "
		     "allowed to connect (options runas, supgroup)",
		    target);
		return;
	}
	if ((st.st_mode & S_IWOTH) != 0)
		return;
	user = getpwuid(st.st_uid);
	group = getgrgid(st.st_gid);
	if ((st.st_mode & S_IWGRP) != 0 && group != NULL)
		snprintf(to, size, "supgroup=%s", group->gr_name);
	else if (user != NULL)
		snprintf(to, size, "runas=%s", user->pw_name);
	note("%s lets the service connect to %s, which is not open to everyone", to, target);
}

static void convert_user(const struct spiped *spiped, const char *target, char *to, size_t size)
{
	if (spiped->user == NULL) {
		if (*target == '/')
			convert_unix_target(target, to, size);
	} else if (*spiped->user == ':') {
		snprintf(to, size, "supgroup=%s", spiped->user + 1);
		note("-u %s: the service has a user of its own, and this group besides",
		    spiped->user);
	} else {
		snprintf(to, size, "runas=%s", spiped->user);
		note("-u %s: best left out, unless the target needs it: "
		     "without runas= the service has a user of its own",
		    spiped->user);
	}
}

/* NAME may hold letters, digits, and _ . - between them. */
static void make_name(char to[static 65], const char *from)
{
	size_t length = 0;

	for (; *from != '\0' && length < 64; from++)
		if (isalnum((unsigned char)*from) || (strchr("_.-", *from) != NULL && length > 0))
			to[length++] = *from;
	while (length > 0 && strchr("_.-", to[length - 1]) != NULL)
		length--;
	to[length] = '\0';
	if (length == 0 || strcmp(to, "enc") == 0 || strcmp(to, "dec") == 0)
		snprintf(to, 65, "tunnel");
}

/* The name of the line: as asked for, else that of the key file without its ending. */
static void choose_name(const struct request *request, const struct spiped *spiped,
    char to[static 65])
{
	char copy[NAME_MAX + 1];
	char *dot;

	snprintf(copy, sizeof(copy), "%s", file_name(spiped->key));
	dot = strrchr(copy, '.');
	if (dot != NULL)
		*dot = '\0';
	make_name(to, *request->name != '\0' ? request->name : copy);
}

static int convert(const struct request *request, const struct spiped *spiped,
    struct replacement *new, struct outcome *outcome)
{
	*new = (struct replacement){ .name = "" };
	choose_name(request, spiped, new->name);
	if ((!spiped->is_spipe &&
		convert_address(new->listen, spiped->source, true, outcome) != 0) ||
	    convert_address(new->target, spiped->target, false, outcome) != 0 ||
	    convert_key(request, spiped, new->key, sizeof(new->key), new->name, outcome) != 0 ||
	    (spiped->bind != NULL &&
		convert_bind(new->bind, sizeof(new->bind), spiped->bind, outcome) != 0))
		return -1;
	return 0;
}

/* --- the answer -------------------------------------------------------------------------- */

static void put_option(FILE *line, bool *first, const char *name, const char *value)
{
	if (value == NULL || *value == '\0')
		return;
	fprintf(line, "%s%s%s", *first ? " " : ",", name, value);
	*first = false;
}

static void put_line(FILE *line, const struct spiped *spiped, const struct replacement *new)
{
	bool first = true, unlimited = spiped->most != NULL && strcmp(spiped->most, "0") == 0;

	fprintf(line, "%s %s %s %s %s", new->name, spiped->role == 'e' ? "enc" : "dec", new->listen,
	    new->target, new->key);
	put_option(line, &first, "pfs=",
	    spiped->no_pfs            ? "no"
		: spiped->require_pfs ? "require"
				      : NULL);
	put_option(line, &first, "keepalive=", spiped->no_keepalive ? "no" : NULL);
	put_option(line, &first, "timeout=", spiped->timeout);
	put_option(line, &first, "maxconn=", unlimited ? "65535" : spiped->most);
	put_option(line, &first, "bind=", new->bind);
	put_option(line, &first, "", new->account);
}

/* Print the line, if it is one that the generator takes. */
static int print_line(const struct spiped *spiped, struct replacement *new, struct outcome *outcome)
{
	char *text = NULL;
	size_t size;
	FILE *line = open_memstream(&text, &size);
	struct table table;
	struct tunnel tunnel;
	int result;

	if (line == NULL)
		return fail(outcome, EX_OSERR, "out of memory");
	convert_user(spiped, new->target, new->account, sizeof(new->account));
	if (spiped->most == NULL)
		note("without -n spiped serves 100 connections at once, the line 200 (maxconn=)");
	else if (strcmp(spiped->most, "0") == 0)
		note("-n 0: there is always a limit here, 65535 is the highest");
	if (*new->listen == '/')
		note("only root may connect to the socket %s (options mode, user, group)",
		    new->listen);
	put_line(line, spiped, new);
	fclose(line);

	table_from(&table, fmemopen(text, size, "r"));
	if (table_next(&table, &tunnel, outcome) == TABLE_TUNNEL)
		result = puts(text) != EOF ? 0 : fail(outcome, EX_IOERR, "cannot write");
	else
		result = -1;
	table_close(&table);
	free(text);
	return result;
}

/* A word for the shell. */
static void put_word(const char *word)
{
	size_t length = 0;

	while (isalnum((unsigned char)word[length]) ||
	    (word[length] != '\0' && strchr("_./:,@%+=-", word[length]) != NULL))
		length++;
	putchar(' ');
	if (length > 0 && word[length] == '\0') {
		fputs(word, stdout);
		return;
	}
	putchar('\'');
	for (; *word != '\0'; word++)
		if (*word == '\'')
			fputs("'\\''", stdout);
		else
			putchar(*word);
	putchar('\'');
}

static void put_argument(const char *option, const char *value)
{
	if (value == NULL || *value == '\0')
		return;
	printf(" %s", option);
	put_word(value);
}

/* spipe becomes spipe-enc; in place of spiped, another program has to listen. */
static void print_command(const struct spiped *spiped, const struct replacement *new)
{
	bool unlimited = spiped->most != NULL && strcmp(spiped->most, "0") == 0;

	if (spiped->user != NULL)
		note("-u %s does not carry over: run it as that user", spiped->user);
	if (!spiped->is_spipe) {
		fputs("systemd-socket-activate -l", stdout);
		put_word(new->listen);
		putchar(' ');
	}
	printf("spipe-%s", spiped->role == 'e' ? "enc" : "dec");
	if (spiped->no_pfs || spiped->require_pfs || spiped->no_keepalive)
		printf(" -%s%s%s", spiped->no_pfs ? "f" : "", spiped->require_pfs ? "g" : "",
		    spiped->no_keepalive ? "j" : "");
	put_argument("-o", spiped->timeout);
	put_argument("-n", unlimited ? "65535" : spiped->most);
	put_argument("-b", new->bind);
	put_argument("-k", new->key);
	put_argument("-t", new->target);
	putchar('\n');
}

/* spiped@mail.service and spiped-mail.service are for mail. */
static void name_from_unit(struct request *request, const char *unit)
{
	if (*request->name != '\0')
		return;
	if (strncmp(unit, "spiped", 6) == 0 && (unit[6] == '@' || unit[6] == '-'))
		unit += 7;
	snprintf(request->name, sizeof(request->name), "%.*s", (int)strcspn(unit, "."), unit);
}

static int take(struct request *request, int argc, char **argv, struct outcome *outcome)
{
	const char *pid = NULL;
	int next = 1;
	uint64_t number;

	for (; next < argc && argv[next][0] == '-' && strcmp(argv[next], "--") != 0; next++)
		if (strcmp(argv[next], "--command") == 0)
			request->command = true;
		else if (strcmp(argv[next], "--name") == 0 && next + 1 < argc)
			snprintf(request->name, sizeof(request->name), "%s", argv[++next]);
		else if (strcmp(argv[next], "--pid") == 0 && next + 1 < argc &&
		    parse_number(argv[next + 1], 1, INT_MAX, &number))
			pid = argv[++next];
		else
			return fail(outcome, EX_USAGE,
			    "option %s is unknown, or needs a value; "
			    "see --help",
			    argv[next]);
	if (pid != NULL && next == argc)
		return command_of_process(&request->old, pid, outcome);
	if (pid == NULL && next < argc - 1 && strcmp(argv[next], "--") == 0)
		return command_given(&request->old, argc - next - 1, argv + next + 1);
	if (pid == NULL && next == argc - 1 && strcmp(argv[next], "--") != 0) {
		name_from_unit(request, argv[next]);
		return command_of_unit(&request->old, argv[next], outcome);
	}
	return fail(outcome, EX_USAGE,
	    "from-spiped takes: --pid N, UNIT, or -- and a command line; see --help");
}

int ctl_from_spiped(int argc, char **argv)
{
	struct request request = { .name = "" };
	struct spiped spiped;
	struct replacement new;
	struct outcome outcome = { 0 };

	take(&request, argc, argv, &outcome);
	if (outcome.status == 0)
		parse_spiped(&spiped, request.old.count, request.old.words, &outcome);
	if (outcome.status == 0 && convert(&request, &spiped, &new, &outcome) == 0) {
		if (request.command || spiped.is_spipe)
			print_command(&spiped, &new);
		else
			print_line(&spiped, &new, &outcome);
	}
	free(request.old.text);
	return ctl_end(&outcome);
}
