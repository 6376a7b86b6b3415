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
#define DEFAULT_MAXCONN "200"
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

/* The options, in the order in which the program gets those that are its. */
enum option {
	PFS,
	KEEPALIVE,
	TIMEOUT,
	IDLE,
	LINGER,
	PROXY,
	SANDBOX,
	FDPASS,
	BIND,
	NETWORK,
	RUNAS,
	SUPGROUP,
	ENCRYPTED,
	MAXCONN,
	PERSOURCE,
	NODEFER,
	MODE,
	USER,
	GROUP,
	NOAUTO,
	OPTION_COUNT
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
	const char *option[OPTION_COUNT]; /* the value, "" for one without; NULL: not given */
};

/* Where a line above listens. */
struct listener {
	unsigned line;
	enum kind kind;
	char where[128]; /* address, CID or path; "": all of them */
	char port[16];
};

static const char *tab = "/etc/spipetab";
static unsigned line_number;
static bool in_systemd;
static int result;
static struct listener *listeners;
static size_t listener_count;

/* Say something about this line, with the kernel's level of it. */
static void __attribute__((format(printf, 2, 0)))
report(int level, const char *format, va_list arguments)
{
	char text[512], place[300] = "";
	int fd;

	if (line_number > 0)
		snprintf(place, sizeof(place), "%s:%u: ", tab, line_number);
	vsnprintf(text, sizeof(text), format, arguments);
	fprintf(stderr, "spipe-generator: %s%s\n", place, text);
	/* No log daemon runs yet, and stderr leads nowhere: the kernel's log is what lasts. */
	if (in_systemd && (fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC | O_NOCTTY)) != -1) {
		dprintf(fd, "<%d>spipe-generator: %s%s\n", level, place, text);
		close(fd);
	}
}

/* Report what is wrong with this line. Returns false, for the caller to return. */
static bool __attribute__((format(printf, 1, 2))) wrong(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	report(3, format, arguments);
	va_end(arguments);
	result = 1;
	return false;
}

/* Report what may be meant so. */
static void __attribute__((format(printf, 1, 2))) warn(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	report(4, format, arguments);
	va_end(arguments);
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

static bool is_count(const char *text)
{
	return is_number(text, 1, 65535);
}

static bool is_count_or_none(const char *text)
{
	return is_number(text, 0, 65535);
}

static bool is_mode(const char *text)
{
	return (strlen(text) == 3 || strlen(text) == 4) && only(text, "01234567") &&
	    strtoul(text, NULL, 8) <= 0777;
}

/* An account's name or number. */
static bool is_account(const char *text)
{
	return only(text, NAME_CHARS) && strlen(text) <= 31 && *text != '-' && *text != '.';
}

/* USER or USER:GROUP. */
static bool is_user_group(const char *text)
{
	size_t length = strcspn(text, ":");
	char user[33];

	if (length >= sizeof(user))
		return false;
	snprintf(user, sizeof(user), "%.*s", (int)length, text);
	return is_account(user) && (text[length] == '\0' || is_account(text + length + 1));
}

/* One of the words, which have a | in between. */
static bool is_one_of(const char *words, const char *text)
{
	size_t length = strcspn(words, "|");

	return (strlen(text) == length && strncmp(words, text, length) == 0) ||
	    (words[length] == '|' && is_one_of(words + length + 1, text));
}

/* Are its first bytes an address? */
static bool is_ip(int family, const char *text, size_t length)
{
	char address[64];
	unsigned char binary[16];

	if (length >= sizeof(address))
		return false;
	snprintf(address, sizeof(address), "%.*s", (int)length, text);
	return inet_pton(family, address, binary) == 1;
}

static bool is_address(const char *text)
{
	return is_ip(AF_INET, text, strlen(text)) || is_ip(AF_INET6, text, strlen(text));
}

/* A DNS name as far as it matters here: no option of nc and nothing that a unit file knows. */
static bool is_host(const char *text)
{
	const char *dot = strrchr(text, '.');

	return strlen(text) <= 253 && only(text, NAME_CHARS) && *text != '-' && *text != '.' &&
	    !only(dot != NULL ? dot + 1 : text, DIGITS); /* 127.0.0.300 */
}

/* ADDRESS or ADDRESS/BITS. */
static bool is_network(const char *text)
{
	size_t length = strcspn(text, "/");
	const char *bits = text[length] == '/' ? text + length + 1 : "0";

	return (is_ip(AF_INET, text, length) && is_number(bits, 0, 32)) ||
	    (is_ip(AF_INET6, text, length) && is_number(bits, 0, 128));
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
	const char *zone;
	char *colon;
	size_t length;

	if (*text == '/') {
		address->kind = UNIX;
		address->path = text;
		if (!is_path(text, true))
			return wrong("%s: not a plain path of letters, digits and _ . - / + @ = ~",
			    field);
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
		if ((*address->host != '\0' && !is_number(address->host, 0, UINT_MAX)) ||
		    !is_number(address->port, 0, UINT_MAX - 1))
			return wrong("%s: vsock:CID:port has two numbers", field);
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
		length = strcspn(address->host, "%");
		zone = address->host + length; /* link-local: [fe80::1%eth0]:port */
		/* spiped writes IPv4 addresses in brackets, too */
		if (!is_ip(AF_INET6, address->host, length) &&
		    (*zone != '\0' || !is_ip(AF_INET, address->host, length)))
			return wrong("%s: no IP address in the brackets", field);
		if (*zone != '\0' && (strlen(zone + 1) > 15 || !only(zone + 1, NAME_CHARS)))
			return wrong("%s: no name of a network interface after %%", field);
	} else {
		colon = strrchr(text, ':');
		address->host = colon != NULL ? text : NULL;
	}
	if (colon == NULL && !only(text, DIGITS))
		return wrong("%s: not address:port, a port, /path or vsock:CID:port", field);
	if (colon != NULL)
		*colon++ = '\0';
	address->port = colon != NULL ? colon : text;
	if (!is_number(address->port, 1, 65535))
		return wrong("%s: the port is a number from 1 to 65535", field);
	if (address->host == NULL || address->numeric)
		return true;
	address->numeric = is_ip(AF_INET, address->host, strlen(address->host));
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
		return wrong("KEY: not a plain path of letters, digits and _ . - / + @ = ~");
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

static const char seconds[] = "seconds, such as 60 or 2.5";
static const char account[] = "a name or number of up to 31 letters, digits and _ . -";
static const char unix_listen[] = "LISTEN is a UNIX socket",
		  tcp_listen[] = "LISTEN is a TCP address";
static const char tcp_target[] = "TARGET is a TCP address", exec_target[] = "TARGET is exec:";

static const struct {
	const char *word;
	const char *value;             /* what is good for one; NULL: it takes none */
	bool (*is_good)(const char *); /* NULL: only the words in `value` are */
	const char *where;             /* it makes sense; NULL: everywhere */
	const char *argument;          /* the program's; the value follows after ' ' or '=' */
} options[OPTION_COUNT] = {
	[PFS] = { "pfs", "require|no", NULL, NULL, NULL },
	[KEEPALIVE] = { "keepalive", "no", NULL, NULL, "-j" },
	[TIMEOUT] = { "timeout", seconds, is_seconds, NULL, "-o " },
	[IDLE] = { "idle", seconds, is_seconds, NULL, "-i " },
	[LINGER] = { "linger", seconds, is_seconds, NULL, "--linger=" },
	[PROXY] = { "proxy", "1|2", NULL, NULL, "--proxy-protocol=" },
	[SANDBOX] = { "sandbox", "auto|require", NULL, NULL, "--sandbox=" },
	[FDPASS] = { "fdpass", NULL, NULL, exec_target, NULL },
	[BIND] = { "bind", "a numeric address", is_address, tcp_target, NULL },
	[NETWORK] = { "network", "no", NULL, exec_target, NULL },
	[RUNAS] = { "runas", "USER or USER:GROUP", is_user_group, NULL, NULL },
	[SUPGROUP] = { "supgroup", account, is_account, NULL, NULL },
	[ENCRYPTED] = { "encrypted", NULL, NULL, NULL, NULL },
	[MAXCONN] = { "maxconn", "a number from 1 to 65535", is_count, NULL, NULL },
	[PERSOURCE] = { "persource", "a number from 0 to 65535", is_count_or_none, tcp_listen,
	    NULL },
	[NODEFER] = { "nodefer", NULL, NULL, tcp_listen, NULL },
	[MODE] = { "mode", "an octal mode up to 0777", is_mode, unix_listen, NULL },
	[USER] = { "user", account, is_account, unix_listen, NULL },
	[GROUP] = { "group", account, is_account, unix_listen, NULL },
	[NOAUTO] = { "noauto", NULL, NULL, NULL, NULL },
};

/* One option, WORD or WORD=VALUE. */
static bool check_option(struct tunnel *tunnel, char *word)
{
	char *value = strchr(word, '=');
	size_t i = 0;

	if (value != NULL)
		*value++ = '\0';
	if (*word == '\0')
		return wrong("OPTIONS: an empty word");
	/* these two may be repeated */
	if (strcmp(word, "key") == 0)
		return add_key(tunnel, value != NULL ? value : word + strlen(word));
	if (strcmp(word, "allow") == 0) {
		if (value == NULL || !is_network(value))
			return wrong("option allow wants ADDRESS or ADDRESS/BITS, numeric");
		if (tunnel->network_count == NETWORKS_MOST)
			return wrong("option allow: more than %d networks", NETWORKS_MOST);
		tunnel->networks[tunnel->network_count++] = value;
		return true;
	}

	while (i < OPTION_COUNT && strcmp(word, options[i].word) != 0)
		i++;
	if (i == OPTION_COUNT)
		return wrong("option %s: no such option", only(word, NAME_CHARS) ? word : "?");
	if (tunnel->option[i] != NULL)
		return wrong("option %s: given twice", word);
	if (options[i].value == NULL) {
		if (value != NULL)
			return wrong("option %s takes no value", word);
		value = word + strlen(word);
	} else if (value == NULL ||
	    (options[i].is_good != NULL ? !options[i].is_good(value)
					: !is_one_of(options[i].value, value))) {
		return wrong("option %s wants %s", word, options[i].value);
	}
	tunnel->option[i] = value;
	return true;
}

/* Which options make sense for which tunnel. */
static bool check_together(const struct tunnel *tunnel)
{
	const char *listen = tunnel->listen.kind == UNIX ? unix_listen : tcp_listen;
	const char *target = tunnel->target.kind == EXEC ? exec_target : tcp_target, *where;

	if (tunnel->listen.kind == VSOCK)
		listen = NULL;
	if (tunnel->target.kind == UNIX || tunnel->target.kind == VSOCK)
		target = NULL;
	for (size_t i = 0; i < OPTION_COUNT; i++) {
		where = options[i].where;
		if (tunnel->option[i] != NULL && where != NULL && where != listen &&
		    where != target)
			return wrong("option %s: only where %s", options[i].word, where);
	}
	if (tunnel->network_count > 0 && listen != tcp_listen)
		return wrong("option allow: only where %s", tcp_listen);
	if (tunnel->option[NODEFER] != NULL && tunnel->role == ENC)
		return wrong("option nodefer: spipe-enc never defers");
	if (tunnel->option[ENCRYPTED] != NULL && tunnel->keys[0].directory)
		return wrong("option encrypted: not with a directory of keys");
	return true;
}

/* "" is all addresses or CIDs, and 0.0.0.0 all of IPv4's. */
static bool covers(const char *all, const char *where)
{
	return *all == '\0' || strcmp(all, where) == 0 ||
	    (strcmp(all, "0.0.0.0") == 0 && strchr(where, ':') == NULL);
}

/* Two cannot listen at one place; those that do not start by themselves may take turns. */
static bool check_place(const struct tunnel *tunnel)
{
	const struct address *address = &tunnel->listen;
	const char *where = address->kind == UNIX ? address->path : address->host;
	struct listener new = { .line = line_number, .kind = address->kind }, *more;

	if (tunnel->option[NOAUTO] != NULL)
		return true;
	if (where != NULL && strcmp(where, "::") != 0)
		snprintf(new.where, sizeof(new.where), "%s", where);
	if (address->port != NULL)
		snprintf(new.port, sizeof(new.port), "%s", address->port);
	for (size_t i = 0; i < listener_count; i++) {
		const struct listener *old = &listeners[i];

		if (old->kind == new.kind && strcmp(old->port, new.port) == 0 &&
		    (covers(old->where, new.where) || covers(new.where, old->where)))
			return wrong("LISTEN: line %u listens there already", old->line);
	}
	more = reallocarray(listeners, listener_count + 1, sizeof(*more));
	if (more == NULL)
		return wrong("%s", strerror(errno));
	listeners = more;
	listeners[listener_count++] = new;
	return true;
}

/* A key may come later, but a name that is misspelt should not wait for the first connection. */
static void look_for_keys(const struct tunnel *tunnel)
{
	const struct key *key;
	char path[PATH_MAX + 16];

	for (key = tunnel->keys; key < tunnel->keys + tunnel->key_count; key++) {
		snprintf(path, sizeof(path), "%s%s", key->prefix, key->path);
		if (access(path, F_OK) != 0 && (errno == ENOENT || errno == ENOTDIR))
			warn("warning: no %s %s: connections will fail without it",
			    key->directory ? "key directory" : "key file", path);
	}
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
	const char *const *option = tunnel->option;
	const char *most = option[MAXCONN] != NULL ? option[MAXCONN] : DEFAULT_MAXCONN;
	bool v6 = address->host != NULL && strchr(address->host, ':') != NULL;

	put_header(unit, tunnel);
	fprintf(unit, "\n[Socket]\nSlice=spipe.slice\n");
	switch (address->kind) {
	case UNIX:
		put_setting(unit, "ListenStream", address->path);
		put_setting(unit, "SocketMode", option[MODE] != NULL ? option[MODE] : "0600");
		put_setting(unit, "SocketUser", option[USER]);
		put_setting(unit, "SocketGroup", option[GROUP]);
		put_setting(unit, "RemoveOnStop", "yes");
		break;
	case VSOCK:
		fprintf(unit, "ListenStream=vsock:%s:%s\n", address->host, address->port);
		break;
	default:
		fputs(v6 ? "ListenStream=[" : "ListenStream=", unit);
		if (address->host != NULL) {
			put_value(unit, address->host);
			fputs(v6 ? "]:" : ":", unit);
		}
		fprintf(unit, "%s\n", address->port);
		/* sockets.target comes before the network has its addresses */
		put_setting(unit, "FreeBind", "yes");
		/* the client of the protocol speaks first; behind spipe-enc often the server */
		if (tunnel->role == DEC && option[NODEFER] == NULL)
			put_setting(unit, "DeferAcceptSec", "5");
		/* strangers come to spipe-dec only */
		put_setting(unit, "MaxConnectionsPerSource", option[PERSOURCE]);
		if (tunnel->role == DEC && option[PERSOURCE] == NULL)
			fprintf(unit, "MaxConnectionsPerSource=%lu\n",
			    (strtoul(most, NULL, 10) + 3) / 4);
		if (tunnel->network_count > 0)
			put_setting(unit, "IPAddressDeny", "any");
		for (int i = 0; i < tunnel->network_count; i++)
			put_setting(unit, "IPAddressAllow", tunnel->networks[i]);
		break;
	}
	put_setting(unit, "Accept", "yes");
	put_setting(unit, "MaxConnections", most);
	/* else 200 connects in 2 s would turn the socket off for good */
	put_setting(unit, "TriggerLimitIntervalSec", "0");
}

static void put_keys(FILE *unit, const struct tunnel *tunnel)
{
	const char *load = tunnel->option[ENCRYPTED] != NULL ? "LoadCredentialEncrypted"
							     : "LoadCredential";
	const struct key *key;

	for (key = tunnel->keys; key < tunnel->keys + tunnel->key_count; key++) {
		fprintf(unit, "%s=%s:%s%s\n", load, key->name, key->prefix, key->path);
		if (tunnel->role == ENC || key->directory)
			continue;
		/* the rules of its holder, and what stands for them where there is no such file */
		fprintf(unit, "LoadCredential=%s.conf:%s%s.conf\n", key->name, key->prefix,
		    key->path);
		fprintf(unit, "SetCredential=%s.conf:#\n", key->name);
	}
}

static void put_program(FILE *unit, const struct tunnel *tunnel)
{
	const struct address *target = &tunnel->target;
	const char *const *option = tunnel->option, *argument;
	const struct key *key;

	fprintf(unit, "ExecStart=" BINDIR "/spipe-%s", tunnel->role == ENC ? "enc" : "dec");
	if (target->kind == TCP || option[FDPASS] != NULL)
		fputs(" -p", unit);
	if (option[PFS] != NULL)
		fputs(strcmp(option[PFS], "no") == 0 ? " -f" : " -g", unit);
	for (size_t i = 0; i < OPTION_COUNT; i++) {
		argument = options[i].argument;
		if (option[i] != NULL && argument != NULL)
			fprintf(unit, " %s%s", argument,
			    strpbrk(argument, " =") != NULL ? option[i] : "");
	}
	for (key = tunnel->keys; key < tunnel->keys + tunnel->key_count; key++)
		fprintf(unit, " -%c %s", key->directory ? 'K' : 'k', key->name);

	switch (target->kind) {
	case TCP:
		fputs(" -- " NC " -F", unit);
		if (option[BIND] != NULL)
			fprintf(unit, " -s %s", option[BIND]);
		put_word(unit, target->host, strlen(target->host));
		fprintf(unit, " %s\n", target->port);
		break;
	case UNIX: fputs(" -- " NC " -N -U " TARGET_SOCKET "\n", unit); break;
	case VSOCK:
		/* -t: by default socat leaves half a second after one side's end */
		fprintf(unit, " -- " SOCAT " -t 86400 STDIO VSOCK-CONNECT:%s:%s\n", target->host,
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
	const char *runas = tunnel->option[RUNAS], *colon;

	put_header(unit, tunnel);
	fprintf(unit, "\n[Service]\nType=notify\n");
	put_keys(unit, tunnel);
	put_program(unit, tunnel);
	if (runas != NULL) {
		fprintf(unit, "User=%.*s\n", (int)strcspn(runas, ":"), runas);
		colon = strchr(runas, ':');
		put_setting(unit, "Group", colon != NULL ? colon + 1 : NULL);
	}
	put_setting(unit, "SupplementaryGroups", tunnel->option[SUPGROUP]);

	/* What the target leaves to be walled off; all else is in 10-hardening.conf. */
	if (target->kind == UNIX || tunnel->option[NETWORK] != NULL)
		fputs("PrivateNetwork=yes\nIPAddressDeny=any\nRestrictAddressFamilies=AF_UNIX\n",
		    unit);
	else if (target->kind == VSOCK)
		fputs("IPAddressDeny=any\nRestrictAddressFamilies=AF_UNIX AF_VSOCK\n", unit);
	else
		fputs("RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6\n", unit);
	if (target->kind == UNIX)
		fprintf(unit, "BindReadOnlyPaths=-%s:" TARGET_SOCKET "\n", target->path);
	if (tunnel->option[BIND] != NULL)
		put_setting(unit, "SocketBindAllow", "tcp");
	if (target->kind == TCP && target->numeric)
		fprintf(unit, "IPAddressDeny=any\nIPAddressAllow=%.*s\n",
		    (int)strcspn(target->host, "%"), target->host);
}

/* A command of the administrator's own may need files, memory and processes. */
static void put_exec_world(FILE *unit, const struct tunnel *tunnel)
{
	(void)tunnel; /* all have the same */
	fputs("# Made by spipe-generator: the command sees the machine's files, read-only.\n\n"
	      "[Service]\nRootDirectory=\nBindReadOnlyPaths=\n"
	      "MemoryMax=1G\nTasksMax=64\nLimitNOFILE=1024\n",
	    unit);
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
	char socket_unit[96], service[96], path[160], link[128];

	snprintf(socket_unit, sizeof(socket_unit), "spipe-%s.socket", tunnel->name);
	snprintf(service, sizeof(service), "spipe-%s@.service", tunnel->name);
	/* The socket comes last: without it nothing starts the service. */
	if (!write_unit(dir, service, put_service, tunnel))
		return;
	if (tunnel->target.kind == EXEC) {
		snprintf(path, sizeof(path), "%s.d", service);
		if (mkdirat(dir, path, 0755) != 0 && errno != EEXIST) {
			wrong("cannot make %s: %s", path, strerror(errno));
			return;
		}
		snprintf(path, sizeof(path), "%s.d/20-spipetab.conf", service);
		if (!write_unit(dir, path, put_exec_world, tunnel))
			return;
	}
	if (!write_unit(dir, socket_unit, put_socket, tunnel) || tunnel->option[NOAUTO] != NULL)
		return;
	snprintf(path, sizeof(path), "sockets.target.wants/%s", socket_unit);
	snprintf(link, sizeof(link), "../%s", socket_unit);
	if ((mkdirat(dir, "sockets.target.wants", 0755) != 0 && errno != EEXIST) ||
	    symlinkat(link, dir, path) != 0)
		wrong("cannot make %s: %s", path, strerror(errno));
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

/* Take a line apart. */
static bool check_line(struct tunnel *tunnel, char *line)
{
	static const char *const names[] = { "NAME", "ROLE", "LISTEN", "TARGET", "KEY" };
	char *field[5], *words, *word;

	for (size_t i = 0; i < 5; i++) {
		if (!next_field(&line, &field[i]))
			return false;
		if (*field[i] == '\0')
			return wrong("%s is missing: NAME ROLE LISTEN TARGET KEY [OPTIONS]",
			    names[i]);
	}
	if (!next_field(&line, &words))
		return false;
	if (line[strspn(line, " \t")] != '\0')
		return wrong("too many fields: a command with blanks stands in quotes, options "
			     "between commas");

	tunnel->name = field[0];
	if (!check_name(field[0]))
		return false;
	tunnel->role = strcmp(field[1], "enc") == 0 ? ENC : DEC;
	if (tunnel->role == DEC && strcmp(field[1], "dec") != 0)
		return wrong("ROLE is enc or dec");
	if (!check_listen(tunnel, field[2]) || !check_target(tunnel, field[3]) ||
	    !add_key(tunnel, field[4]))
		return false;
	if (*words == '\0')
		words = NULL;
	while ((word = strsep(&words, ",")) != NULL)
		if (!check_option(tunnel, word))
			return false;
	return check_together(tunnel) && check_place(tunnel);
}

static void do_table(int dir, FILE *table)
{
	char *line = NULL, *first, *bad;
	struct tunnel tunnel;
	size_t size = 0;
	ssize_t length;

	while ((length = getline(&line, &size, table)) != -1) {
		line_number++;
		if (line[length - 1] == '\n')
			line[--length] = '\0';
		first = line + strspn(line, " \t");
		if (*first == '#' || first == line + length)
			continue;
		for (bad = first; (*bad >= ' ' && *bad < 0x7f) || *bad == '\t'; bad++)
			;
		if (length >= LINE_SIZE)
			wrong("the line is longer than %d bytes", LINE_SIZE - 1);
		else if (bad != line + length)
			wrong("byte 0x%02x: plain ASCII text only", (unsigned char)*bad);
		else {
			memset(&tunnel, 0, sizeof(tunnel));
			if (check_line(&tunnel, line)) {
				look_for_keys(&tunnel);
				write_tunnel(dir, &tunnel);
			}
		}
	}
	if (ferror(table))
		wrong("cannot read: %s", strerror(errno));
	free(line);
	free(listeners);
	listeners = NULL;
	listener_count = 0;
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
