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

/* What a shell leaves as it is. */
#define SHELL_PLAIN \
	"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789" \
	"_./:,@%+=-"
#define ADDRESS_SIZE (NI_MAXHOST + NI_MAXSERV + 4)

/* What a command line of spiped or spipe says. */
struct spiped {
	bool is_spipe;
	/* Of each option, by its letter; "" if it takes none. Not given: NULL, but "" for -k, -s and -t. */
	const char *value[128];
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

/* Its options, beside role, addresses, key and user. Those that we have, too, have the same letter. */
static const struct {
	const char *name; /* the second character stands for it */
	const char
	    *option; /* of a line of the table; after '=' comes the value. NULL: we have none */
	const char *note; /* about its absence */
} options[] = {
	{ "-f", "pfs=no", NULL },
	{ "-g", "pfs=require", NULL },
	{ "-j", "keepalive=no", NULL },
	{ "-o", "timeout=", NULL },
	{ "-n", "maxconn=", NULL },
	{ "-b", "bind=", NULL },
	{ "-1", NULL,
	    "does not carry over: systemd goes on accepting connections; "
	    "spipe-filters(7) says how to serve a single one" },
	{ "-D", NULL, "is not needed: names are looked up for each connection" },
	{ "-F", NULL, "is not needed: the programs always run in the foreground" },
	{ "-R", NULL, "is not needed: names are looked up for each connection" },
	{ "-p", NULL, "does not carry over: systemd knows its processes" },
	{ "-r", NULL, "is not needed: names are looked up for each connection" },
	{ "--syslog", NULL, "is not needed: messages go to the journal" },
};
#define OPTIONS (sizeof(options) / sizeof(options[0]))

/* Which of the options that it cannot do without is missing? Returns NULL if none is. */
static const char *find_missing(const struct spiped *spiped)
{
	const char *const *value = spiped->value;

	if (value['d'] == NULL && value['e'] == NULL)
		return "-e or -d";
	if (*value['s'] == '\0' && !spiped->is_spipe)
		return "-s";
	if (*value['t'] == '\0')
		return "-t";
	return *value['k'] == '\0' ? "-k" : NULL;
}

static int parse_spiped(struct spiped *spiped, int argc, char **argv, struct outcome *outcome)
{
	static const struct option names[] = { { "syslog", no_argument, NULL, '-' },
		{ NULL, 0, NULL, 0 } };
	const char *program = argc > 0 ? file_name(argv[0]) : "", *missing, *value;
	int letter;

	*spiped = (struct spiped){ .is_spipe = strcmp(program, "spipe") == 0 };
	spiped->value['k'] = spiped->value['s'] = spiped->value['t'] = "";
	if (!spiped->is_spipe && strcmp(program, "spiped") != 0)
		return fail(outcome, EX_USAGE, "%s is not spiped or spipe", program);
	if (spiped->is_spipe)
		spiped->value['e'] = "";
	opterr = 0;
	optind = 0;
	while ((letter = getopt_long(argc, argv, "+1DFRb:defgjk:n:o:p:r:s:t:u:v", names, NULL)) !=
	    -1) {
		if (letter == '?')
			return fail(outcome, EX_USAGE,
			    "%s: spiped has no such option, or it needs a value", argv[optind - 1]);
		spiped->value[letter] = optarg != NULL ? optarg : "";
	}
	missing = find_missing(spiped);
	if (spiped->value['v'] != NULL)
		return fail(outcome, EX_USAGE, "-v only shows spiped's version");
	if (optind < argc)
		return fail(outcome, EX_USAGE, "%s: spiped takes only options", argv[optind]);
	if (missing != NULL)
		return fail(outcome, EX_USAGE, "the command line of spiped lacks %s", missing);
	for (size_t i = 0; i < OPTIONS; i++) {
		value = spiped->value[(int)options[i].name[1]];
		if (value != NULL && options[i].note != NULL)
			note("%s%s%s %s", options[i].name, *value != '\0' ? " " : "", value,
			    options[i].note);
	}
	return 0;
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
	char name[NI_MAXHOST], host[NI_MAXHOST], port[NI_MAXSERV];
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *found;
	size_t length = colon != NULL ? (size_t)(colon - from) : 0;
	int error;

	snprintf(to, ADDRESS_SIZE, "%s", from);
	if (*from == '/')
		return 0;
	if (length == 0 || length >= sizeof(name))
		return fail(outcome, EX_DATAERR, "%s: not an address that spiped takes", from);
	numeric &= *from != '[';
	if (*from == '[' && from[length - 1] == ']' && memchr(from, ':', length) == NULL)
		snprintf(name, sizeof(name), "%.*s", (int)length - 2, from + 1);
	else
		snprintf(name, sizeof(name), "%.*s", (int)length, from);
	error = getaddrinfo(numeric ? name : NULL, colon + 1, &hints, &found);
	if (error != 0)
		return fail(outcome, EX_DATAERR, "%s: %s", from,
		    error == EAI_SERVICE ? "unknown port" : gai_strerror(error));
	getnameinfo(found->ai_addr, found->ai_addrlen, host, sizeof(host), port, sizeof(port),
	    NI_NUMERICHOST | NI_NUMERICSERV);
	snprintf(to, ADDRESS_SIZE, numeric && found->ai_family == AF_INET6 ? "[%s]:%s" : "%s:%s",
	    numeric ? host : name, port);
	freeaddrinfo(found);
	if (numeric && strcmp(name, host) != 0)
		note("-s %s is written as %s, its current address: a socket needs a numeric one",
		    from, to);
	return 0;
}

/* An absolute path in `to`, and a look at the file. */
static int convert_key(const struct request *request, const struct spiped *spiped, char *to,
    size_t size, const char *name, struct outcome *outcome)
{
	const char *key = spiped->value['k'];
	struct stat st;

	snprintf(to, size, "%s", key);
	if (spiped->is_spipe)
		return 0; /* it is run in the same place */
	if (strcmp(key, "-") == 0) {
		snprintf(to, size, "/etc/spipe/%s.key", name);
		note("-k - does not carry over: write the key to %s", to);
		return 0;
	}
	if (*key != '/' && *request->old.directory == '\0')
		return fail(outcome, EX_DATAERR,
		    "the key file %s is relative to a directory that is not known", key);
	if (*key != '/')
		snprintf(to, size, "%s/%s", request->old.directory, key);
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

static void convert_user(const char *user, const char *target, char *to, size_t size)
{
	if (user == NULL) {
		if (*target == '/')
			convert_unix_target(target, to, size);
	} else if (*user == ':') {
		snprintf(to, size, "supgroup=%s", user + 1);
		note("-u %s: the service has a user of its own, and this group besides", user);
	} else {
		snprintf(to, size, "runas=%s", user);
		note("-u %s: best left out, unless the target needs it: "
		     "without runas= the service has a user of its own",
		    user);
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

	snprintf(copy, sizeof(copy), "%s", file_name(spiped->value['k']));
	dot = strrchr(copy, '.');
	if (dot != NULL)
		*dot = '\0';
	make_name(to, *request->name != '\0' ? request->name : copy);
}

static int convert(const struct request *request, struct spiped *spiped, struct replacement *new,
    struct outcome *outcome)
{
	const char **value = spiped->value;

	*new = (struct replacement){ .name = "" };
	choose_name(request, spiped, new->name);
	if ((!spiped->is_spipe && convert_address(new->listen, value['s'], true, outcome) != 0) ||
	    convert_address(new->target, value['t'], false, outcome) != 0 ||
	    convert_key(request, spiped, new->key, sizeof(new->key), new->name, outcome) != 0 ||
	    (value['b'] != NULL &&
		convert_bind(new->bind, sizeof(new->bind), value['b'], outcome) != 0))
		return -1;
	if (value['b'] != NULL)
		value['b'] = new->bind;
	if (value['n'] != NULL && strcmp(value['n'], "0") == 0) {
		value['n'] = "65535";
		note("-n 0: there is always a limit here, 65535 is the highest");
	}
	return 0;
}

/* --- the answer -------------------------------------------------------------------------- */

static const char *role(const struct spiped *spiped)
{
	return spiped->value['e'] != NULL ? "enc" : "dec";
}

static void put_line(FILE *line, const struct spiped *spiped, const struct replacement *new)
{
	const char *before = " ", *value;

	fprintf(line, "%s %s %s %s %s", new->name, role(spiped), new->listen, new->target,
	    new->key);
	for (size_t i = 0; i < OPTIONS; i++) {
		value = spiped->value[(int)options[i].name[1]];
		if (value == NULL || options[i].option == NULL)
			continue;
		fprintf(line, "%s%s%s", before, options[i].option, value);
		before = ",";
	}
	if (*new->account != '\0')
		fprintf(line, "%s%s", before, new->account);
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
	convert_user(spiped->value['u'], new->target, new->account, sizeof(new->account));
	if (spiped->value['n'] == NULL)
		note("without -n spiped serves 100 connections at once, the line 200 (maxconn=)");
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

/* An option and its value, as a word for the shell. */
static void put_argument(const char *option, const char *value)
{
	printf(" %s ", option);
	if (*value != '\0' && value[strspn(value, SHELL_PLAIN)] == '\0') {
		fputs(value, stdout);
		return;
	}
	putchar('\'');
	for (; *value != '\0'; value++)
		if (*value == '\'')
			fputs("'\\''", stdout);
		else
			putchar(*value);
	putchar('\'');
}

/* spipe becomes spipe-enc; in place of spiped, another program has to listen. */
static void print_command(const struct spiped *spiped, const struct replacement *new)
{
	const char *value;

	if (spiped->value['u'] != NULL)
		note("-u %s does not carry over: run it as that user", spiped->value['u']);
	if (!spiped->is_spipe) {
		fputs("systemd-socket-activate", stdout);
		put_argument("-l", new->listen);
		putchar(' ');
	}
	printf("spipe-%s", role(spiped));
	for (size_t i = 0; i < OPTIONS; i++) {
		value = spiped->value[(int)options[i].name[1]];
		if (value == NULL || options[i].option == NULL)
			continue;
		if (*value != '\0')
			put_argument(options[i].name, value);
		else
			printf(" %s", options[i].name);
	}
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

int ctl_from_spiped(int argc, char **argv, struct outcome *outcome)
{
	struct request request = { .name = "" };
	struct spiped spiped = { 0 };
	struct replacement new;
	int result = take(&request, argc, argv, outcome);

	if (result == 0)
		result = parse_spiped(&spiped, request.old.count, request.old.words, outcome);
	if (result == 0)
		result = convert(&request, &spiped, &new, outcome);
	if (result == 0 && (request.command || spiped.is_spipe))
		print_command(&spiped, &new);
	else if (result == 0)
		result = print_line(&spiped, &new, outcome);
	free(request.old.text);
	return result;
}
