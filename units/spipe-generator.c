/*
 * spipe-generator: a systemd generator. Makes a socket unit and a service template of each tunnel
 * in /etc/spipetab (or the file named by $SPIPETAB), one a line:
 *
 *	NAME ROLE LISTEN TARGET KEY [OPTIONS]
 *
 * See spipetab(5). Every field is checked against a small set of characters before anything is
 * written, so a line can say nothing to systemd but what its fields mean.
 */

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#ifndef BINDIR
#define BINDIR "/usr/local/bin"
#endif
#ifndef NC
#define NC "nc" /* OpenBSD's */
#endif
#ifndef SOCAT
#define SOCAT "socat"
#endif

#define LINE_SIZE 4096
#define NAME_LONGEST 64
#define KEYS_MOST 16
#define NETWORKS_MOST 32
#define DEFAULT_MAXCONN 200
#define DEFAULT_TIMEOUT "5"
#define TARGET_SOCKET "/run/target.sock" /* where the unit's small world has it */

#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS "0123456789"
#define NAME_CHARS LETTERS DIGITS "_.-"
#define PATH_CHARS LETTERS DIGITS "_.-/+@=~"

enum role { ENC, DEC };
enum kind { TCP, UNIX, VSOCK, EXEC };

struct address {
	enum kind kind;
	bool numeric;     /* TCP: host is an address, not a name */
	const char *host; /* TCP: without brackets; VSOCK: the CID */
	const char *port;
	const char *path; /* UNIX: the path; EXEC: the command line */
};

struct key {
	bool directory;     /* each file in it is one */
	const char *prefix; /* of the path */
	const char *path;
	const char *name; /* the last part of it */
};

/* One line, as checked. Strings are parts of the line. */
struct tunnel {
	const char *name;
	enum role role;
	struct address listen, target;
	struct key keys[KEYS_MOST];
	int key_count;
	const char *networks[NETWORKS_MOST];
	int network_count;
	/* options; NULL: not given */
	const char *maxconn, *persource, *mode, *user, *group, *bind;
	const char *timeout, *idle, *linger, *proxy, *pfs, *keepalive, *sandbox;
	const char *runas, *supgroup, *network;
	bool encrypted, nodefer, noauto, fdpass;
};

static const char *tab = "/etc/spipetab";
static unsigned line_number;
static bool in_systemd;
static int result;

/* Report what is wrong with this line. Returns false, for the caller to return. */
static bool __attribute__((format(printf, 1, 2))) wrong(const char *format, ...)
{
	char text[512];
	va_list arguments;
	int length = 0, fd;

	if (line_number > 0)
		length = snprintf(text, sizeof(text), "spipe-generator: %s:%u: ", tab, line_number);
	else
		length = snprintf(text, sizeof(text), "spipe-generator: ");
	if (length < 0 || (size_t)length >= sizeof(text))
		length = 0;
	va_start(arguments, format);
	vsnprintf(text + length, sizeof(text) - (size_t)length, format, arguments);
	va_end(arguments);
	fprintf(stderr, "%s\n", text);
	/* No log daemon runs yet, and stderr leads nowhere: the kernel's log is what lasts. */
	if (in_systemd && (fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC | O_NOCTTY)) != -1) {
		dprintf(fd, "<3>%s\n", text);
		close(fd);
	}
	result = 1;
	return false;
}

/* --- checks of words --------------------------------------------------------------------- */

static bool only(const char *text, const char *allowed)
{
	return *text != '\0' && text[strspn(text, allowed)] == '\0';
}

static bool is_number(const char *text, unsigned long least, unsigned long most)
{
	unsigned long value;

	if (!only(text, DIGITS) || strlen(text) > 10 || (text[0] == '0' && text[1] != '\0'))
		return false;
	value = strtoul(text, NULL, 10);
	return value >= least && value <= most;
}

/* A number of seconds > 0, fractions allowed. */
static bool is_seconds(const char *text)
{
	size_t whole = strspn(text, DIGITS);
	const char *rest = text + whole;

	if (whole == 0 || whole > 7 || strlen(text) > 16 || (*rest != '\0' && *rest != '.'))
		return false;
	if (*rest == '.' && !only(rest + 1, DIGITS))
		return false;
	return strpbrk(text, "123456789") != NULL;
}

/* An account's name or number. */
static bool is_account(const char *text)
{
	return strlen(text) <= 31 && only(text, NAME_CHARS) && *text != '-' && *text != '.';
}

static bool is_ip(int family, const char *text)
{
	unsigned char binary[16];

	return inet_pton(family, text, binary) == 1;
}

/* A DNS name as far as it matters here: no option of nc and nothing that a unit file knows. */
static bool is_host(const char *text)
{
	const char *dot = strrchr(text, '.');

	return strlen(text) <= 253 && only(text, NAME_CHARS) && *text != '-' && *text != '.' &&
	       !only(dot != NULL ? dot + 1 : text, DIGITS); /* 127.0.0.300 */
}

/* ADDRESS or ADDRESS/BITS. Cuts nothing: the text goes into the unit as it is. */
static bool is_network(const char *text)
{
	char address[64];
	const char *slash = strchr(text, '/');
	size_t length = slash != NULL ? (size_t)(slash - text) : strlen(text);

	if (length >= sizeof(address))
		return false;
	memcpy(address, text, length);
	address[length] = '\0';
	if (is_ip(AF_INET, address))
		return slash == NULL || is_number(slash + 1, 0, 32);
	return is_ip(AF_INET6, address) && (slash == NULL || is_number(slash + 1, 0, 128));
}

/* A path in plain characters, absolute or not, without "..", "." or empty parts. */
static bool is_path(const char *text, bool absolute)
{
	const char *part = absolute ? text + 1 : text;
	size_t length;

	if ((*text == '/') != absolute || strlen(text) >= PATH_MAX || !only(text, PATH_CHARS))
		return false;
	for (;; part += length + 1) {
		length = strcspn(part, "/");
		if (length == 0 || (length == 1 && part[0] == '.') ||
		    (length == 2 && part[0] == '.' && part[1] == '.'))
			return false;
		if (part[length] == '\0')
			return true;
	}
}

/* --- the fields ------------------------------------------------------------------------------ */

static bool check_name(const char *name)
{
	if (strlen(name) > NAME_LONGEST)
		return wrong("NAME is longer than %d characters", NAME_LONGEST);
	if (!only(name, NAME_CHARS) || strchr("_.-", name[0]) != NULL ||
	    strchr(".-", name[strlen(name) - 1]) != NULL)
		return wrong("NAME may hold letters, digits and _ . - in between");
	if (strcmp(name, "enc") == 0 || strcmp(name, "dec") == 0)
		return wrong("NAME %s would replace the unit spipe-%s.socket", name, name);
	return true;
}

/* Take an address apart, in place. `field` names it in messages. */
static bool check_address(struct address *address, char *text, const char *field)
{
	char *colon, *zone;

	if (*text == '/') {
		address->kind = UNIX;
		address->path = text;
		if (!is_path(text, true))
			return wrong("%s: not a plain absolute path", field);
		if (strlen(text) >= sizeof(((struct sockaddr_un *)0)->sun_path))
			return wrong("%s: too long for a UNIX socket", field);
		return true;
	}
	if (strncmp(text, "vsock:", 6) == 0) {
		address->kind = VSOCK;
		address->host = text + 6;
		colon = strchr(address->host, ':');
		if (colon == NULL)
			return wrong("%s: not vsock:CID:port", field);
		*colon = '\0';
		address->port = colon + 1;
		if (*address->host != '\0' && !is_number(address->host, 0, UINT_MAX))
			return wrong("%s: the vsock CID is a number", field);
		if (!is_number(address->port, 0, UINT_MAX - 1))
			return wrong("%s: the vsock port is a number", field);
		return true;
	}
	address->kind = TCP;
	if (*text == '[') {
		address->host = text + 1;
		address->numeric = true;
		colon = strchr(text, ']');
		if (colon == NULL || colon[1] != ':')
			return wrong("%s: not [address]:port", field);
		*colon++ = '\0';
		zone = strchr(text, '%'); /* link-local: [fe80::1%eth0]:port */
		if (zone != NULL)
			*zone = '\0';
		/* spiped writes IPv4 addresses in brackets, too */
		if (!is_ip(AF_INET6, address->host) &&
		    (zone != NULL || !is_ip(AF_INET, address->host)))
			return wrong("%s: no IP address in the brackets", field);
		if (zone != NULL) {
			if (strlen(zone + 1) > 15 || !only(zone + 1, NAME_CHARS))
				return wrong(
				    "%s: not the name of a network interface after %%", field);
			*zone = '%';
		}
	} else {
		colon = strrchr(text, ':');
		address->host = colon != NULL ? text : NULL;
	}
	if (colon != NULL)
		*colon++ = '\0';
	address->port = colon != NULL ? colon : text;
	if (!is_number(address->port, 1, 65535))
		return wrong("%s: the port is a number from 1 to 65535", field);
	if (address->host == NULL || address->numeric)
		return true;
	address->numeric = is_ip(AF_INET, address->host);
	if (!address->numeric && strchr(address->host, ':') != NULL)
		return wrong("%s: an IPv6 address stands in brackets: [address]:port", field);
	if (!address->numeric && !is_host(address->host))
		return wrong("%s: not a host's name or address", field);
	return true;
}

static bool check_listen(struct tunnel *tunnel, char *text)
{
	struct address *address = &tunnel->listen;

	if (strncmp(text, "exec:", 5) == 0)
		return wrong("LISTEN cannot be a command");
	if (!check_address(address, text, "LISTEN"))
		return false;
	if (address->kind == TCP && address->host != NULL && !address->numeric)
		return wrong("LISTEN needs a numeric address, not a name");
	/* Anyone may come to the encrypted side; the plain side is this machine's own. */
	if (address->kind == TCP && address->host == NULL && tunnel->role == ENC) {
		address->host = "127.0.0.1";
		address->numeric = true;
	}
	return true;
}

static bool check_target(struct tunnel *tunnel, char *text)
{
	struct address *address = &tunnel->target;

	if (strncmp(text, "exec:", 5) == 0) {
		address->kind = EXEC;
		address->path = text + 5;
		if (text[5 + strspn(text + 5, " \t")] == '\0')
			return wrong("TARGET: no command after exec:");
		return true;
	}
	if (!check_address(address, text, "TARGET"))
		return false;
	if (address->kind == VSOCK && *address->host == '\0')
		return wrong("TARGET: a vsock target needs a CID");
	if (address->kind == TCP && address->host == NULL) {
		address->host = "127.0.0.1";
		address->numeric = true;
	}
	return true;
}

static bool add_key(struct tunnel *tunnel, char *text)
{
	struct key *key = &tunnel->keys[tunnel->key_count];
	const char *slash;
	size_t length = strlen(text);

	if (tunnel->key_count == KEYS_MOST)
		return wrong("more than %d keys; use a directory", KEYS_MOST);
	key->directory = length > 0 && text[length - 1] == '/';
	if (key->directory)
		text[length - 1] = '\0';
	key->prefix = *text == '/' ? "" : "/etc/spipe/";
	key->path = text;
	slash = strrchr(text, '/');
	key->name = slash != NULL ? slash + 1 : text;
	length = strlen(key->name);
	if (!is_path(text, *text == '/') || length > 240)
		return wrong("KEY: not a plain path");
	/* the rules of "k" are a credential "k.conf" */
	if (length > 5 && strcmp(key->name + length - 5, ".conf") == 0)
		return wrong("KEY: %s is not the name of a key, but of rules", key->name);
	if (tunnel->role == ENC && (tunnel->key_count > 0 || key->directory))
		return wrong("spipe-enc takes one key, no more and no directory");
	if (tunnel->key_count > 0 && (key->directory || tunnel->keys[0].directory))
		return wrong("a directory of keys stands alone: put the other key into it");
	for (int i = 0; i < tunnel->key_count; i++)
		if (strcmp(key->name, tunnel->keys[i].name) == 0)
			return wrong("two keys are named %s", key->name);
	tunnel->key_count++;
	return true;
}

/* One option, WORD or WORD=VALUE. */
static bool check_option(struct tunnel *tunnel, char *word)
{
	/* what its value must be */
	enum { FLAG, NUMBER, NUMBER0, SECONDS, ACCOUNT, ACCOUNTS, MODE, ADDRESS, CHOICE };
	const struct {
		const char *word;
		int type;
		const char *choices; /* " a b " */
		const char **value;
		bool *flag;
	} options[] = {
		{ "maxconn", NUMBER, NULL, &tunnel->maxconn, NULL },
		{ "persource", NUMBER0, NULL, &tunnel->persource, NULL },
		{ "mode", MODE, NULL, &tunnel->mode, NULL },
		{ "user", ACCOUNT, NULL, &tunnel->user, NULL },
		{ "group", ACCOUNT, NULL, &tunnel->group, NULL },
		{ "nodefer", FLAG, NULL, NULL, &tunnel->nodefer },
		{ "noauto", FLAG, NULL, NULL, &tunnel->noauto },
		{ "bind", ADDRESS, NULL, &tunnel->bind, NULL },
		{ "timeout", SECONDS, NULL, &tunnel->timeout, NULL },
		{ "idle", SECONDS, NULL, &tunnel->idle, NULL },
		{ "linger", SECONDS, NULL, &tunnel->linger, NULL },
		{ "pfs", CHOICE, " require no ", &tunnel->pfs, NULL },
		{ "keepalive", CHOICE, " no ", &tunnel->keepalive, NULL },
		{ "proxy", CHOICE, " 1 2 ", &tunnel->proxy, NULL },
		{ "sandbox", CHOICE, " auto require ", &tunnel->sandbox, NULL },
		{ "fdpass", FLAG, NULL, NULL, &tunnel->fdpass },
		{ "encrypted", FLAG, NULL, NULL, &tunnel->encrypted },
		{ "runas", ACCOUNTS, NULL, &tunnel->runas, NULL },
		{ "supgroup", ACCOUNT, NULL, &tunnel->supgroup, NULL },
		{ "network", CHOICE, " no ", &tunnel->network, NULL },
	};
	const size_t count = sizeof(options) / sizeof(options[0]);
	char *value = strchr(word, '='), *colon, choice[16];
	bool fine = false;
	size_t i;

	if (value != NULL)
		*value++ = '\0';
	if (*word == '\0')
		return wrong("OPTIONS: an empty word");
	/* these two may be repeated */
	if (strcmp(word, "key") == 0)
		return value != NULL ? add_key(tunnel, value) : wrong("option key needs a value");
	if (strcmp(word, "allow") == 0) {
		if (value == NULL || !is_network(value))
			return wrong("option allow: not an ADDRESS or ADDRESS/BITS");
		if (tunnel->network_count == NETWORKS_MOST)
			return wrong("option allow: more than %d networks", NETWORKS_MOST);
		tunnel->networks[tunnel->network_count++] = value;
		return true;
	}

	for (i = 0; i < count && strcmp(word, options[i].word) != 0; i++)
		;
	if (i == count)
		return wrong("option %s: no such option", only(word, NAME_CHARS) ? word : "?");
	if (options[i].flag != NULL ? *options[i].flag : *options[i].value != NULL)
		return wrong("option %s: given twice", word);
	if (options[i].flag != NULL) {
		if (value != NULL)
			return wrong("option %s takes no value", word);
		*options[i].flag = true;
		return true;
	}
	if (value == NULL || *value == '\0')
		return wrong("option %s needs a value", word);
	switch (options[i].type) {
	case NUMBER:
		fine = is_number(value, 1, 65535);
		break;
	case NUMBER0:
		fine = is_number(value, 0, 65535);
		break;
	case SECONDS:
		fine = is_seconds(value);
		break;
	case ACCOUNT:
		fine = is_account(value);
		break;
	case ACCOUNTS: /* USER[:GROUP] */
		colon = strchr(value, ':');
		if (colon != NULL)
			*colon = '\0';
		fine = is_account(value) && (colon == NULL || is_account(colon + 1));
		if (colon != NULL)
			*colon = ':';
		break;
	case MODE:
		fine = strlen(value) <= 4 && strlen(value) >= 3 && only(value, "01234567") &&
		       strtoul(value, NULL, 8) <= 0777;
		break;
	case ADDRESS:
		fine = is_ip(AF_INET, value) || is_ip(AF_INET6, value);
		break;
	case CHOICE:
		snprintf(choice, sizeof(choice), " %.8s ", value);
		fine = strchr(value, ' ') == NULL && strstr(options[i].choices, choice) != NULL;
		break;
	}
	if (!fine)
		return wrong("option %s: bad value", word);
	*options[i].value = value;
	return true;
}

/* Which options make sense for which tunnel. */
static bool check_together(const struct tunnel *tunnel)
{
	bool unix_listen = tunnel->listen.kind == UNIX, tcp_listen = tunnel->listen.kind == TCP;
	const char *const for_unix = tunnel->mode != NULL    ? "mode"
	                             : tunnel->user != NULL  ? "user"
	                             : tunnel->group != NULL ? "group"
	                                                     : NULL;
	const char *const for_tcp = tunnel->network_count > 0   ? "allow"
	                            : tunnel->persource != NULL ? "persource"
	                            : tunnel->nodefer           ? "nodefer"
	                                                        : NULL;
	const char *const for_exec = tunnel->fdpass            ? "fdpass"
	                             : tunnel->network != NULL ? "network"
	                                                       : NULL;

	if (for_unix != NULL && !unix_listen)
		return wrong("option %s: only where LISTEN is a UNIX socket", for_unix);
	if (for_tcp != NULL && !tcp_listen)
		return wrong("option %s: only where LISTEN is a TCP address", for_tcp);
	if (for_exec != NULL && tunnel->target.kind != EXEC)
		return wrong("option %s: only where TARGET is exec:", for_exec);
	if (tunnel->bind != NULL && tunnel->target.kind != TCP)
		return wrong("option bind: only where TARGET is a TCP address");
	if (tunnel->nodefer && tunnel->role == ENC)
		return wrong("option nodefer: spipe-enc never defers");
	if (tunnel->encrypted && tunnel->keys[0].directory)
		return wrong("option encrypted: not with a directory of keys");
	return true;
}

/* --- the units ---------------------------------------------------------------------------- */

/* One word of an ExecStart= line, quoted, with all that systemd would expand made harmless. */
static void put_word(FILE *unit, const char *word, size_t length)
{
	fputs(" \"", unit);
	for (size_t i = 0; i < length; i++) {
		if (strchr("\"\\", word[i]) != NULL)
			fputc('\\', unit);
		if (strchr("%$", word[i]) != NULL)
			fputc(word[i], unit);
		fputc(word[i], unit);
	}
	fputc('"', unit);
}

/* Words that stand between blanks. */
static void put_words(FILE *unit, const char *words)
{
	size_t length;

	for (words += strspn(words, " \t"); *words != '\0'; words += strspn(words, " \t")) {
		length = strcspn(words, " \t");
		put_word(unit, words, length);
		words += length;
	}
}

/* A value of a setting in which systemd expands specifiers. */
static void put_value(FILE *unit, const char *text)
{
	for (; *text != '\0'; text++) {
		if (*text == '%')
			fputc('%', unit);
		fputc(*text, unit);
	}
}

static void put_setting(FILE *unit, const char *name, const char *value)
{
	if (value != NULL)
		fprintf(unit, "%s=%s\n", name, value);
}

static void put_header(FILE *unit, const struct tunnel *tunnel)
{
	const char *program = tunnel->role == ENC ? "spipe-enc" : "spipe-dec";

	fprintf(unit, "# Made by spipe-generator of line %u of its table: change it there.\n\n",
	    line_number);
	fprintf(unit, "[Unit]\nDescription=Encrypted pipe %s\n", tunnel->name);
	fprintf(unit, "Documentation=man:spipetab(5) man:%s(1)\n", program);
	if (is_path(tab, true))
		fprintf(unit, "SourcePath=%s\n", tab);
}

static void put_socket(FILE *unit, const struct tunnel *tunnel)
{
	const struct address *address = &tunnel->listen;
	const char *maxconn = tunnel->maxconn;
	unsigned long most = maxconn != NULL ? strtoul(maxconn, NULL, 10) : DEFAULT_MAXCONN;
	const char *colon = "";

	put_header(unit, tunnel);
	fprintf(unit, "\n[Socket]\nSlice=spipe.slice\n");
	switch (address->kind) {
	case UNIX:
		fprintf(unit, "ListenStream=%s\n", address->path);
		fprintf(unit, "SocketMode=%s\n", tunnel->mode != NULL ? tunnel->mode : "0600");
		put_setting(unit, "SocketUser", tunnel->user);
		put_setting(unit, "SocketGroup", tunnel->group);
		fprintf(unit, "RemoveOnStop=yes\n");
		break;
	case VSOCK:
		fprintf(unit, "ListenStream=vsock:%s:%s\n", address->host, address->port);
		break;
	default:
		fprintf(unit, "ListenStream=");
		if (address->host != NULL) {
			colon = ":";
			fputs(strchr(address->host, ':') != NULL ? "[" : "", unit);
			put_value(unit, address->host);
			fputs(strchr(address->host, ':') != NULL ? "]" : "", unit);
		}
		fprintf(unit, "%s%s\n", colon, address->port);
		/* sockets.target comes before the network has its addresses */
		fprintf(unit, "FreeBind=yes\n");
		/* the client of the protocol speaks first; behind spipe-enc often the server */
		if (tunnel->role == DEC && !tunnel->nodefer)
			fprintf(unit, "DeferAcceptSec=5\n");
		/* strangers come to spipe-dec only */
		if (tunnel->persource != NULL)
			fprintf(unit, "MaxConnectionsPerSource=%s\n", tunnel->persource);
		else if (tunnel->role == DEC)
			fprintf(unit, "MaxConnectionsPerSource=%lu\n", (most + 3) / 4);
		if (tunnel->network_count > 0)
			fprintf(unit, "IPAddressDeny=any\n");
		for (int i = 0; i < tunnel->network_count; i++)
			fprintf(unit, "IPAddressAllow=%s\n", tunnel->networks[i]);
		break;
	}
	fprintf(unit, "Accept=yes\nMaxConnections=%lu\n", most);
	/* else 200 connects in 2 s would turn the socket off for good */
	fprintf(unit, "TriggerLimitIntervalSec=0\n");
}

static void put_keys(FILE *unit, const struct tunnel *tunnel)
{
	const char *load = tunnel->encrypted ? "LoadCredentialEncrypted" : "LoadCredential";
	const struct key *key;

	for (key = tunnel->keys; key < tunnel->keys + tunnel->key_count; key++) {
		fprintf(unit, "%s=%s:%s%s\n", load, key->name, key->prefix, key->path);
		if (tunnel->role == ENC || key->directory)
			continue;
		/* the rules of its holder, and what stands for them where there is no such file */
		fprintf(
		    unit, "LoadCredential=%s.conf:%s%s.conf\n", key->name, key->prefix, key->path);
		fprintf(unit, "SetCredential=%s.conf:#\n", key->name);
	}
}

static void put_program(FILE *unit, const struct tunnel *tunnel)
{
	const struct address *target = &tunnel->target;
	const struct key *key;

	fprintf(unit, "ExecStart=" BINDIR "/spipe-%s", tunnel->role == ENC ? "enc" : "dec");
	if (target->kind == TCP || tunnel->fdpass)
		fputs(" -p", unit);
	if (tunnel->pfs != NULL)
		fputs(strcmp(tunnel->pfs, "require") == 0 ? " -g" : " -f", unit);
	if (tunnel->keepalive != NULL)
		fputs(" -j", unit);
	fprintf(unit, " -o %s", tunnel->timeout != NULL ? tunnel->timeout : DEFAULT_TIMEOUT);
	if (tunnel->idle != NULL)
		fprintf(unit, " -i %s", tunnel->idle);
	if (tunnel->linger != NULL)
		fprintf(unit, " --linger=%s", tunnel->linger);
	if (tunnel->proxy != NULL)
		fprintf(unit, " --proxy-protocol=%s", tunnel->proxy);
	if (tunnel->sandbox != NULL)
		fprintf(unit, " --sandbox=%s", tunnel->sandbox);
	for (key = tunnel->keys; key < tunnel->keys + tunnel->key_count; key++)
		fprintf(unit, " -%c %s", key->directory ? 'K' : 'k', key->name);

	switch (target->kind) {
	case TCP:
		fprintf(unit, " -- %s -F%s%s", NC, tunnel->bind != NULL ? " -s " : "",
		    tunnel->bind != NULL ? tunnel->bind : "");
		put_word(unit, target->host, strlen(target->host));
		fprintf(unit, " %s\n", target->port);
		break;
	case UNIX:
		fprintf(unit, " -- %s -N -U " TARGET_SOCKET "\n", NC);
		break;
	case VSOCK:
		/* -t: by default socat leaves half a second after one side's end */
		fprintf(unit, " -- %s -t 86400 STDIO VSOCK-CONNECT:%s:%s\n", SOCAT, target->host,
		    target->port);
		break;
	case EXEC:
		fputs(" --", unit);
		put_words(unit, target->path);
		fputc('\n', unit);
		break;
	}
}

static void put_service(FILE *unit, const struct tunnel *tunnel)
{
	const struct address *target = &tunnel->target;
	const char *colon;

	put_header(unit, tunnel);
	fprintf(unit, "\n[Service]\nType=notify\n");
	put_keys(unit, tunnel);
	put_program(unit, tunnel);
	if (tunnel->runas != NULL) {
		colon = strchr(tunnel->runas, ':');
		fprintf(unit, "User=%.*s\n", colon != NULL ? (int)(colon - tunnel->runas) : INT_MAX,
		    tunnel->runas);
		put_setting(unit, "Group", colon != NULL ? colon + 1 : NULL);
	}
	put_setting(unit, "SupplementaryGroups", tunnel->supgroup);

	/* What the target leaves to be walled off; all else is in 10-hardening.conf. */
	if (target->kind == UNIX || (target->kind == EXEC && tunnel->network != NULL)) {
		fprintf(unit, "PrivateNetwork=yes\nIPAddressDeny=any\n");
		fprintf(unit, "RestrictAddressFamilies=AF_UNIX\n");
	} else if (target->kind == VSOCK) {
		fprintf(unit, "IPAddressDeny=any\nRestrictAddressFamilies=AF_UNIX AF_VSOCK\n");
	} else {
		fprintf(unit, "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6\n");
	}
	if (target->kind == UNIX)
		fprintf(unit, "BindReadOnlyPaths=-%s:" TARGET_SOCKET "\n", target->path);
	if (tunnel->bind != NULL)
		fprintf(unit, "SocketBindAllow=tcp\n");
	if (target->kind == TCP && target->numeric)
		fprintf(unit, "IPAddressDeny=any\nIPAddressAllow=%.*s\n",
		    (int)strcspn(target->host, "%"), target->host);
}

/* A command of the administrator's own may need files, memory and processes. */
static void put_exec_world(FILE *unit, const struct tunnel *tunnel)
{
	(void)tunnel;
	fprintf(unit,
	    "# Made by spipe-generator: the command sees the machine's files, read-only.\n\n");
	fprintf(unit, "[Service]\nRootDirectory=\nBindReadOnlyPaths=\n");
	fprintf(unit, "MemoryMax=1G\nTasksMax=64\nLimitNOFILE=1024\n");
}

/* Write one file. The name must be new: nothing is ever replaced. */
static bool write_unit(int dir, const char *path, void (*put)(FILE *, const struct tunnel *),
    const struct tunnel *tunnel)
{
	int fd = openat(dir, path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	FILE *unit;
	bool failed;

	if (fd == -1 && errno == EEXIST)
		return wrong("NAME %s is taken: %s is there already", tunnel->name, path);
	unit = fd != -1 ? fdopen(fd, "w") : NULL;
	if (unit == NULL) {
		wrong("cannot write %s: %s", path, strerror(errno));
		if (fd != -1)
			close(fd);
		return false;
	}
	put(unit, tunnel);
	failed = ferror(unit) != 0;
	if (fclose(unit) != 0 || failed) {
		wrong("cannot write %s: %s", path, strerror(errno));
		unlinkat(dir, path, 0);
		return false;
	}
	return true;
}

static void write_tunnel(int dir, const struct tunnel *tunnel)
{
	char socket_unit[96], service[96], dropin_dir[128], dropin[160], wants[128], link[128];
	bool exec = tunnel->target.kind == EXEC;

	snprintf(socket_unit, sizeof(socket_unit), "spipe-%s.socket", tunnel->name);
	snprintf(service, sizeof(service), "spipe-%s@.service", tunnel->name);
	snprintf(dropin_dir, sizeof(dropin_dir), "%s.d", service);
	snprintf(dropin, sizeof(dropin), "%s/20-spipetab.conf", dropin_dir);
	snprintf(wants, sizeof(wants), "sockets.target.wants/%s", socket_unit);
	snprintf(link, sizeof(link), "../%s", socket_unit);

	if (!write_unit(dir, socket_unit, put_socket, tunnel))
		return;
	if (!write_unit(dir, service, put_service, tunnel))
		goto no_service;
	if (exec) {
		if (mkdirat(dir, dropin_dir, 0755) != 0 && errno != EEXIST) {
			wrong("cannot make %s: %s", dropin_dir, strerror(errno));
			goto no_dropin;
		}
		if (!write_unit(dir, dropin, put_exec_world, tunnel))
			goto no_dropin;
	}
	if (tunnel->noauto)
		return;
	if ((mkdirat(dir, "sockets.target.wants", 0755) == 0 || errno == EEXIST) &&
	    symlinkat(link, dir, wants) == 0)
		return;
	wrong("cannot make %s: %s", wants, strerror(errno));
	if (exec)
		unlinkat(dir, dropin, 0);
no_dropin:
	unlinkat(dir, dropin_dir, AT_REMOVEDIR);
	unlinkat(dir, service, 0);
no_service:
	unlinkat(dir, socket_unit, 0);
}

/* --- the table ---------------------------------------------------------------------------- */

/* Cut the next field off: up to a blank, or from a double quote to the next one. */
static bool next_field(char **line, char **field)
{
	char *end;

	*line += strspn(*line, " \t");
	*field = *line;
	if (**line == '"') {
		++*field;
		end = strchr(*field, '"');
		if (end == NULL)
			return wrong("a double quote without its other half");
		if (end[1] != '\0' && strchr(" \t", end[1]) == NULL)
			return wrong("a double quote ends in the middle of a field");
	} else {
		end = *line + strcspn(*line, " \t");
		if (memchr(*field, '"', (size_t)(end - *field)) != NULL)
			return wrong("a double quote in the middle of a field");
	}
	*line = *end != '\0' ? end + 1 : end;
	*end = '\0';
	return true;
}

static void do_line(int dir, char *line)
{
	static const char *const names[] = { "NAME", "ROLE", "LISTEN", "TARGET", "KEY" };
	char *field[5], *options, *comma;
	struct tunnel tunnel = { 0 };

	for (size_t i = 0; i < 5; i++) {
		if (!next_field(&line, &field[i]))
			return;
		if (*field[i] == '\0') {
			wrong("%s is missing: NAME ROLE LISTEN TARGET KEY [OPTIONS]", names[i]);
			return;
		}
	}
	if (!next_field(&line, &options))
		return;
	if (line[strspn(line, " \t")] != '\0') {
		wrong("too many fields: a command with blanks stands in quotes, options between "
		      "commas");
		return;
	}

	tunnel.name = field[0];
	if (!check_name(field[0]))
		return;
	if (strcmp(field[1], "dec") != 0 && strcmp(field[1], "enc") != 0) {
		wrong("ROLE is enc or dec");
		return;
	}
	tunnel.role = strcmp(field[1], "enc") == 0 ? ENC : DEC;
	if (!check_listen(&tunnel, field[2]) || !check_target(&tunnel, field[3]) ||
	    !add_key(&tunnel, field[4]))
		return;
	while (*options != '\0') {
		comma = options + strcspn(options, ",");
		if (*comma == ',' && comma[1] == '\0') {
			wrong("OPTIONS: an empty word");
			return;
		}
		if (*comma == ',')
			*comma++ = '\0';
		if (!check_option(&tunnel, options))
			return;
		options = comma;
	}
	if (check_together(&tunnel))
		write_tunnel(dir, &tunnel);
}

static void do_table(int dir, FILE *table)
{
	char line[LINE_SIZE] = "";
	size_t length, first;
	int byte, bad;

	do {
		line_number++;
		length = 0;
		bad = -1;
		while ((byte = getc(table)) != EOF && byte != '\n') {
			if (bad == -1 && ((byte < ' ' && byte != '\t') || byte >= 0x7f))
				bad = byte;
			if (length < sizeof(line))
				line[length++] = (char)byte;
		}
		for (first = 0; first < length && (line[first] == ' ' || line[first] == '\t');
		     first++)
			;
		if (first == length || line[first] == '#')
			continue;
		if (length == sizeof(line))
			wrong("the line is longer than %d bytes", LINE_SIZE - 1);
		else if (bad != -1)
			wrong("byte 0x%02x: plain ASCII text only", (unsigned)bad);
		else {
			line[length] = '\0';
			do_line(dir, line);
		}
	} while (byte != EOF);
	if (ferror(table))
		wrong("cannot read: %s", strerror(errno));
}

int main(int argc, char **argv)
{
	const char *other = getenv("SPIPETAB"), *scope = getenv("SYSTEMD_SCOPE");
	FILE *table;
	int dir;

	if (argc < 2 || argc > 4 || argv[1][0] == '-') {
		fprintf(stderr,
		    "usage: [SPIPETAB=file] spipe-generator directory [directory directory]\n");
		return 64;
	}
	in_systemd = scope != NULL;
	if (other != NULL && *other != '\0')
		tab = other;
	table = fopen(tab, "re");
	if (table == NULL) {
		if (errno == ENOENT && tab != other)
			return 0; /* no table, no tunnels */
		wrong("%s: %s", tab, strerror(errno));
		return result;
	}
	dir = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir == -1) {
		wrong("%s: %s", argv[1], strerror(errno));
	} else {
		umask(022);
		do_table(dir, table);
		close(dir);
	}
	fclose(table);
	return result;
}
