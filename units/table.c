#include "table.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "parse.h"

#define NAME_LONGEST 64

#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS "0123456789"
#define NAME_CHARS LETTERS DIGITS "_.-"
#define PATH_CHARS LETTERS DIGITS "_.-/+@=~"

#define wrong(outcome, ...) fail(outcome, EX_DATAERR, __VA_ARGS__)

/* The name of a line above, and where it listens. */
struct place {
	unsigned line;
	char name[NAME_LONGEST + 1];
	bool noauto;
	int kind;
	char where[UNIX_PATH_SIZE]; /* address, CID or path; "": all of them */
	char port[16];
};

/* --- values ------------------------------------------------------------------------------ */

static bool only(const char *text, const char *allowed)
{
	return *text != '\0' && text[strspn(text, allowed)] == '\0';
}

static bool is_number(const char *text, uint64_t least, uint64_t most)
{
	uint64_t number;

	return parse_number(text, least, most, &number);
}

static bool is_seconds(const char *text)
{
	return strlen(text) <= 16 && parse_seconds(text) != -1;
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

/* The name or number of a user or group. */
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

/* One of the words in `words`, which are separated by |. */
static bool is_one_of(const char *words, const char *text)
{
	size_t length = strcspn(words, "|");

	return (strlen(text) == length && strncmp(words, text, length) == 0) ||
	    (words[length] == '|' && is_one_of(words + length + 1, text));
}

/* Whether the first `length` bytes are an IP address. */
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

/* ADDRESS or ADDRESS/BITS. */
static bool is_network(const char *text)
{
	size_t length = strcspn(text, "/");
	const char *bits = text[length] == '/' ? text + length + 1 : "0";

	return (is_ip(AF_INET, text, length) && is_number(bits, 0, 32)) ||
	    (is_ip(AF_INET6, text, length) && is_number(bits, 0, 128));
}

/* A path in plain characters, without empty parts, "." or "..". */
static bool is_path(const char *text)
{
	const char *part = *text == '/' ? text + 1 : text;
	size_t length;

	if (strlen(text) >= PATH_MAX || !only(text, PATH_CHARS))
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

/* --- fields ------------------------------------------------------------------------------ */

static int check_name(struct tunnel *tunnel, char *name, struct outcome *outcome)
{
	if (strlen(name) > NAME_LONGEST)
		return wrong(outcome, "NAME is longer than %d characters", NAME_LONGEST);
	if (!only(name, NAME_CHARS) || strchr("_.-", name[0]) != NULL ||
	    strchr(".-", name[strlen(name) - 1]) != NULL)
		return wrong(outcome, "NAME may hold letters and digits, and _ . - between them");
	if (strcmp(name, "enc") == 0 || strcmp(name, "dec") == 0)
		return wrong(outcome, "NAME %s would replace the unit spipe-%s.socket", name, name);
	tunnel->name = name;
	return 0;
}

/* `field` names it in messages, with the `forms` that it can have. */
static int check_address(struct address_text *address, char *text, const char *field,
    const char *forms, struct outcome *outcome)
{
	const char *problem = address_split(address, text, true);

	if (strpbrk(text, ":/") == NULL && !only(text, DIGITS))
		return wrong(outcome, "%s is none of %s", field, forms);
	if (problem != NULL)
		return wrong(outcome, "%s: %s", field, problem);
	if (address->kind == ADDRESS_UNIX && !is_path(address->path))
		return wrong(outcome, "%s: not a plain path of letters, digits and _ . - / + @ = ~",
		    field);
	return 0;
}

static int check_listen(struct tunnel *tunnel, char *text, struct outcome *outcome)
{
	struct address_text *address = &tunnel->listen;

	if (strncmp(text, "exec:", 5) == 0)
		return wrong(outcome, "LISTEN cannot be a command");
	if (check_address(address, text, "LISTEN",
		"port, address:port, [address]:port, /path and vsock:CID:port", outcome) != 0)
		return -1;
	if (address->kind == ADDRESS_TCP && *address->host != '\0' && !address->numeric)
		return wrong(outcome, "LISTEN needs a numeric address, not a name");
	if (address->kind == ADDRESS_TCP && strchr(address->host, '%') != NULL)
		return wrong(outcome, "LISTEN cannot have a zone, such as %%eth0, in its address");
	/* The encrypted side is open to all, the plaintext side to this machine only. */
	if (address->kind == ADDRESS_TCP && *address->host == '\0' && tunnel->role == ROLE_ENC) {
		address->host = "127.0.0.1";
		address->numeric = true;
	}
	tunnel->listens = true;
	return 0;
}

static int check_target(struct tunnel *tunnel, char *text, struct outcome *outcome)
{
	struct address_text *address = &tunnel->target;

	if (strncmp(text, "exec:", 5) == 0) {
		tunnel->command = text + 5;
		return text[5 + strspn(text + 5, " \t")] != '\0'
		    ? 0
		    : wrong(outcome, "TARGET: no command after exec:");
	}
	if (check_address(address, text, "TARGET",
		"port, host:port, [address]:port, /path, vsock:CID:port and exec:command",
		outcome) != 0)
		return -1;
	if (address->kind == ADDRESS_VSOCK && *address->host == '\0')
		return wrong(outcome, "TARGET: a vsock target needs a CID");
	if (address->kind == ADDRESS_TCP && *address->host == '\0') {
		address->host = "127.0.0.1";
		address->numeric = true;
	}
	return 0;
}

static int add_key(struct tunnel *tunnel, char *text, struct outcome *outcome)
{
	struct tunnel_key *key = &tunnel->keys[tunnel->key_count];
	size_t length = strlen(text), size;

	if (tunnel->key_count == TABLE_KEYS)
		return wrong(outcome, "more than %d keys; use a directory", TABLE_KEYS);
	key->directory = length > 0 && text[length - 1] == '/';
	if (key->directory)
		text[length - 1] = '\0';
	size = (size_t)snprintf(key->path, sizeof(key->path), "%s%s",
	    *text == '/' ? "" : "/etc/spipe/", text);
	key->name = file_name(key->path);
	length = strlen(key->name);
	if (!is_path(text) || size >= sizeof(key->path) || length > 240)
		return wrong(outcome,
		    "KEY: not a plain path of letters, digits and _ . - / + @ = ~, or too long");
	/* the rules of "k" are a credential "k.conf" */
	if (length > 5 && strcmp(key->name + length - 5, ".conf") == 0)
		return wrong(outcome, "KEY: %s is the name of a rules file, not of a key",
		    key->name);
	if (tunnel->role == ROLE_ENC && (tunnel->key_count > 0 || key->directory))
		return wrong(outcome, "spipe-enc takes exactly one key, and no directory");
	if (tunnel->key_count > 0 && (key->directory || tunnel->keys[0].directory))
		return wrong(outcome,
		    "a key directory cannot be combined with other keys: put them into it");
	for (int i = 0; i < tunnel->key_count; i++)
		if (strcmp(key->name, tunnel->keys[i].name) == 0)
			return wrong(outcome, "two keys are named %s", key->name);
	tunnel->key_count++;
	return 0;
}

/* --- options ----------------------------------------------------------------------------- */

static const char seconds[] = "seconds, such as 60 or 2.5";
static const char account[] = "a name or number of up to 31 letters, digits and _ . -";
static const char count[] = "a number from 1 to 65535";

/* What an option needs in order to make sense. */
enum needs {
	ANY,
	UNIX_LISTEN,
	TCP_LISTEN,
	TCP_TARGET,
	EXEC_TARGET,
	ONE_SERVICE,
	STRANGERS,
};

static const char *const needs_text[] = {
	[UNIX_LISTEN] = "LISTEN is a UNIX socket",
	[TCP_LISTEN] = "LISTEN is a TCP address",
	[TCP_TARGET] = "TARGET is a TCP address",
	[EXEC_TARGET] = "TARGET is exec:",
	[ONE_SERVICE] = "accept=yes is not given",
	[STRANGERS] = "ROLE is dec and accept=yes is not given",
};

static const struct {
	const char *word;
	const char *value;             /* what a valid one looks like; NULL: it takes none */
	bool (*is_good)(const char *); /* NULL: only the words in `value` are */
	enum needs needs;
	const char *argument; /* the program's; the value follows a ' ' or '=' */
} options[TUNNEL_OPTIONS] = {
	[TUNNEL_PFS] = { "pfs", "require|no", NULL, ANY, NULL },
	[TUNNEL_KEEPALIVE] = { "keepalive", "no", NULL, ANY, "-j" },
	[TUNNEL_TIMEOUT] = { "timeout", seconds, is_seconds, ANY, "-o " },
	[TUNNEL_IDLE] = { "idle", seconds, is_seconds, ANY, "-i " },
	[TUNNEL_LINGER] = { "linger", seconds, is_seconds, ANY, "--linger=" },
	[TUNNEL_PROXY] = { "proxy", "1|2", NULL, ANY, "--proxy-protocol=" },
	[TUNNEL_SANDBOX] = { "sandbox", "auto|require", NULL, ANY, "--sandbox=" },
	[TUNNEL_FDPASS] = { "fdpass", NULL, NULL, EXEC_TARGET, "-p" },
	[TUNNEL_BIND] = { "bind", "a numeric address", is_address, TCP_TARGET, NULL },
	[TUNNEL_NETWORK] = { "network", "no", NULL, EXEC_TARGET, NULL },
	[TUNNEL_RUNAS] = { "runas", "USER or USER:GROUP", is_user_group, ANY, NULL },
	[TUNNEL_SUPGROUP] = { "supgroup", account, is_account, ANY, NULL },
	[TUNNEL_ENCRYPTED] = { "encrypted", NULL, NULL, ANY, NULL },
	[TUNNEL_ACCEPT] = { "accept", "yes|no", NULL, ANY, NULL },
	[TUNNEL_MAXCONN] = { "maxconn", count, is_count, ANY, NULL },
	[TUNNEL_STRANGERS] = { "strangers", count, is_count, STRANGERS, NULL },
	[TUNNEL_PERSOURCE] = { "persource", "a number from 0 to 65535", is_count_or_none,
	    TCP_LISTEN, NULL },
	[TUNNEL_EXIT_IDLE] = { "exit-idle", seconds, is_seconds, ONE_SERVICE, NULL },
	[TUNNEL_NODEFER] = { "nodefer", NULL, NULL, TCP_LISTEN, NULL },
	[TUNNEL_MODE] = { "mode", "an octal mode up to 0777", is_mode, UNIX_LISTEN, NULL },
	[TUNNEL_USER] = { "user", account, is_account, UNIX_LISTEN, NULL },
	[TUNNEL_GROUP] = { "group", account, is_account, UNIX_LISTEN, NULL },
	[TUNNEL_NOAUTO] = { "noauto", NULL, NULL, ANY, NULL },
};

void tunnel_format_address(const struct address_text *address, char *text, size_t size)
{
	if (address->kind == ADDRESS_UNIX)
		snprintf(text, size, "%s", address->path);
	else if (address->kind == ADDRESS_VSOCK)
		snprintf(text, size, "vsock:%s:%s", address->host, address->port);
	else if (*address->host == '\0')
		snprintf(text, size, "%s", address->port);
	else
		snprintf(text, size, strchr(address->host, ':') != NULL ? "[%s]:%s" : "%s:%s",
		    address->host, address->port);
}

const char *tunnel_argument(enum tunnel_option option)
{
	return options[option].argument;
}

unsigned tunnel_number(const struct tunnel *tunnel, enum tunnel_option option, unsigned otherwise)
{
	uint64_t number;

	return tunnel->option[option] != NULL &&
		parse_number(tunnel->option[option], 0, UINT_MAX, &number)
	    ? (unsigned)number
	    : otherwise;
}

bool tunnel_one_service(const struct tunnel *tunnel)
{
	const char *accept = tunnel->option[TUNNEL_ACCEPT];

	return accept == NULL || strcmp(accept, "no") == 0;
}

/* One option, WORD or WORD=VALUE. */
static int check_option(struct tunnel *tunnel, char *word, struct outcome *outcome)
{
	char *value = strchr(word, '=');
	size_t i = 0;

	if (value != NULL)
		*value++ = '\0';
	if (*word == '\0')
		return wrong(outcome, "OPTIONS: an empty word");
	/* these two may be repeated */
	if (strcmp(word, "key") == 0)
		return add_key(tunnel, value != NULL ? value : word + strlen(word), outcome);
	if (strcmp(word, "allow") == 0) {
		if (value == NULL || !is_network(value))
			return wrong(outcome,
			    "option allow wants ADDRESS or ADDRESS/BITS, numeric");
		if (tunnel->network_count == TABLE_NETWORKS)
			return wrong(outcome, "option allow: more than %d networks",
			    TABLE_NETWORKS);
		tunnel->networks[tunnel->network_count++] = value;
		return 0;
	}

	while (i < TUNNEL_OPTIONS && strcmp(word, options[i].word) != 0)
		i++;
	if (i == TUNNEL_OPTIONS)
		return wrong(outcome, "option %s: no such option",
		    only(word, NAME_CHARS) ? word : "?");
	if (tunnel->option[i] != NULL)
		return wrong(outcome, "option %s: given twice", word);
	if (options[i].value == NULL) {
		if (value != NULL)
			return wrong(outcome, "option %s takes no value", word);
		value = word + strlen(word);
	} else if (value == NULL ||
	    (options[i].is_good != NULL ? !options[i].is_good(value)
					: !is_one_of(options[i].value, value))) {
		return wrong(outcome, "option %s wants %s", word, options[i].value);
	}
	tunnel->option[i] = value;
	return 0;
}

static bool meets(const struct tunnel *tunnel, enum needs needs)
{
	switch (needs) {
	case UNIX_LISTEN: return tunnel->listen.kind == ADDRESS_UNIX;
	case TCP_LISTEN: return tunnel->listen.kind == ADDRESS_TCP;
	case TCP_TARGET: return tunnel->command == NULL && tunnel->target.kind == ADDRESS_TCP;
	case EXEC_TARGET: return tunnel->command != NULL;
	case ONE_SERVICE: return tunnel_one_service(tunnel);
	case STRANGERS: return tunnel_one_service(tunnel) && tunnel->role == ROLE_DEC;
	default: return true;
	}
}

/* Options that make no sense for this tunnel. */
static int check_together(const struct tunnel *tunnel, struct outcome *outcome)
{
	for (size_t i = 0; i < TUNNEL_OPTIONS; i++)
		if (tunnel->option[i] != NULL && !meets(tunnel, options[i].needs))
			return wrong(outcome, "option %s: only where %s", options[i].word,
			    needs_text[options[i].needs]);
	if (tunnel->network_count > 0 && !meets(tunnel, TCP_LISTEN))
		return wrong(outcome, "option allow: only where %s", needs_text[TCP_LISTEN]);
	if (tunnel->role == ROLE_ENC && tunnel_one_service(tunnel) &&
	    tunnel->option[TUNNEL_PERSOURCE] != NULL)
		return wrong(outcome, "option persource: for enc only with accept=yes");
	if (tunnel->option[TUNNEL_NODEFER] != NULL && tunnel->role == ROLE_ENC)
		return wrong(outcome, "option nodefer: spipe-enc never defers");
	if (tunnel->option[TUNNEL_ENCRYPTED] != NULL && tunnel->keys[0].directory)
		return wrong(outcome, "option encrypted: not with a directory of keys");
	return 0;
}

/* "" covers all addresses or CIDs, 0.0.0.0 all those of IPv4. */
static bool covers(const char *all, const char *where)
{
	return *all == '\0' || strcmp(all, where) == 0 ||
	    (strcmp(all, "0.0.0.0") == 0 && strchr(where, ':') == NULL);
}

/* A line has its name for itself, and where it listens, except with noauto: those may take turns. */
static int take_place(struct table *table, const struct tunnel *tunnel, struct outcome *outcome)
{
	const struct address_text *address = &tunnel->listen;
	const char *where = address->kind == ADDRESS_UNIX ? address->path : address->host;
	struct place new = { .line = table->line,
		.noauto = tunnel->option[TUNNEL_NOAUTO] != NULL,
		.kind = (int)address->kind },
		     *more;

	snprintf(new.name, sizeof(new.name), "%s", tunnel->name);
	if (strcmp(where, "::") != 0)
		snprintf(new.where, sizeof(new.where), "%s", where);
	if (address->port != NULL)
		snprintf(new.port, sizeof(new.port), "%s", address->port);
	for (size_t i = 0; i < table->place_count; i++) {
		const struct place *old = &table->places[i];

		if (strcmp(old->name, new.name) == 0)
			return wrong(outcome, "NAME %s is taken by line %u", new.name, old->line);
		if (!old->noauto && !new.noauto &&
		    old->kind == new.kind &&strcmp(old->port, new.port) == 0 &&
		    (covers(old->where, new.where) || covers(new.where, old->where)))
			return wrong(outcome, "LISTEN is taken by line %u", old->line);
	}
	more = reallocarray(table->places, table->place_count + 1, sizeof(*more));
	if (more == NULL)
		return fail(outcome, EX_OSERR, "out of memory");
	table->places = more;
	table->places[table->place_count++] = new;
	return 0;
}

/* --- lines ------------------------------------------------------------------------------- */

/* Cut off the next field: up to a blank, or from a double quote to the next one. */
static int next_field(char **line, char **field, struct outcome *outcome)
{
	char *end;

	*line += strspn(*line, " \t");
	*field = *line;
	if (**line == '"') {
		++*field;
		end = strchr(*field, '"');
		if (end == NULL)
			return wrong(outcome, "unterminated double quote");
		if (end[1] != '\0' && strchr(" \t", end[1]) == NULL)
			return wrong(outcome, "a double quote ends in the middle of a field");
	} else {
		end = *line + strcspn(*line, " \t");
		if (memchr(*field, '"', (size_t)(end - *field)) != NULL)
			return wrong(outcome, "a double quote in the middle of a field");
	}
	*line = *end != '\0' ? end + 1 : end;
	*end = '\0';
	return 0;
}

static int check_role(struct tunnel *tunnel, char *text, struct outcome *outcome)
{
	tunnel->role = strcmp(text, "enc") == 0 ? ROLE_ENC : ROLE_DEC;
	return tunnel->role == ROLE_ENC || strcmp(text, "dec") == 0
	    ? 0
	    : wrong(outcome, "ROLE is enc or dec");
}

static int check_line(struct table *table, struct tunnel *tunnel, char *line,
    struct outcome *outcome)
{
	static const struct {
		const char *name;
		int (*check)(struct tunnel *, char *, struct outcome *);
	} fields[] = {
		{ "NAME", check_name },
		{ "ROLE", check_role },
		{ "LISTEN", check_listen },
		{ "TARGET", check_target },
		{ "KEY", add_key },
	};
	char *field, *words, *word;

	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		if (next_field(&line, &field, outcome) != 0)
			return -1;
		if (*field == '\0')
			return wrong(outcome,
			    "%s is missing: NAME ROLE LISTEN TARGET KEY [OPTIONS]", fields[i].name);
		if (fields[i].check(tunnel, field, outcome) != 0)
			return -1;
	}
	if (next_field(&line, &words, outcome) != 0)
		return -1;
	if (line[strspn(line, " \t")] != '\0')
		return wrong(outcome,
		    "too many fields: quote a command that contains blanks, and "
		    "separate options with commas");
	if (*words == '\0')
		words = NULL;
	while ((word = strsep(&words, ",")) != NULL)
		if (check_option(tunnel, word, outcome) != 0)
			return -1;
	return check_together(tunnel, outcome) == 0 ? take_place(table, tunnel, outcome) : -1;
}

void table_from(struct table *table, FILE *file)
{
	*table = (struct table){ .file = file };
}

int table_open(struct table *table, const char *path, struct outcome *outcome)
{
	table_from(table, fopen(path, "re"));
	return table->file != NULL ? 0 : fail(outcome, EX_NOINPUT, "%s: %s", path, strerror(errno));
}

/*
 * Read the next line, without its end, as far as there is room; what follows is skipped. Returns the number of
 * bytes, or -1 at the end of the file.
 */
static ssize_t read_line(struct table *table)
{
	ssize_t length = 0;
	int byte;

	while ((byte = getc(table->file)) != EOF && byte != '\n')
		if (length < TABLE_LINE)
			table->text[length++] = (char)byte;
	table->text[length] = '\0';
	return byte == EOF && length == 0 ? -1 : length;
}

enum table_result table_next(struct table *table, struct tunnel *tunnel, struct outcome *outcome)
{
	char *first, *bad;
	ssize_t length;

	*tunnel = (struct tunnel){ .line = table->line };
	do {
		length = read_line(table);
		if (length == -1) {
			if (table->failed || !ferror(table->file))
				return TABLE_END;
			table->failed = true;
			fail(outcome, EX_IOERR, "cannot read: %s", strerror(errno));
			return TABLE_WRONG;
		}
		tunnel->line = ++table->line;
		first = table->text + strspn(table->text, " \t");
	} while (*first == '#' || first == table->text + length);

	for (bad = first; (*bad >= ' ' && *bad < 0x7f) || *bad == '\t'; bad++)
		;
	if (length >= TABLE_LINE)
		wrong(outcome, "the line is longer than %d bytes", TABLE_LINE - 1);
	else if (bad != table->text + length)
		wrong(outcome, "byte 0x%02x: plain ASCII text only", (unsigned char)*bad);
	else if (check_line(table, tunnel, first, outcome) == 0)
		return TABLE_TUNNEL;
	return TABLE_WRONG;
}

void table_close(struct table *table)
{
	fclose(table->file);
	free(table->places);
}
