#include "address.h"

#include <arpa/inet.h>
#include <linux/vm_sockets.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "parse.h"

#define DIGITS "0123456789"
#define NAME_CHARS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" DIGITS "_.-"

static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff }; /* ::ffff:0:0/96 */

/* Normalize an address whose family and ip are set, and fill in its text. */
static void set_text(struct address *address)
{
	if (address->family == AF_INET6 && memcmp(address->ip, mapped, sizeof(mapped)) == 0) {
		address->family = AF_INET;
		memmove(address->ip, address->ip + sizeof(mapped), 4);
	}
	inet_ntop(address->family, address->ip, address->text, sizeof(address->text));
}

void address_from(struct address *address, const struct sockaddr_storage *from, socklen_t size)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)from;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)from;
	const struct sockaddr_un *un = (const struct sockaddr_un *)from;
	const struct sockaddr_vm *vm = (const struct sockaddr_vm *)from;
	size_t length;

	address->family = from->ss_family;
	switch (from->ss_family) {
	case AF_INET:
		memcpy(address->ip, &in->sin_addr, 4);
		address->port = ntohs(in->sin_port);
		set_text(address);
		break;
	case AF_INET6:
		memcpy(address->ip, &in6->sin6_addr, 16);
		address->port = ntohs(in6->sin6_port);
		set_text(address);
		break;
	case AF_VSOCK:
		snprintf(address->text, sizeof(address->text), "vsock:%u", vm->svm_cid);
		address->port = vm->svm_port;
		break;
	case AF_UNIX:
		length = size - offsetof(struct sockaddr_un, sun_path);
		memcpy(address->path, un->sun_path,
		    length < sizeof(address->path) ? length : sizeof(address->path));
		for (size_t i = 0; i < length && i < sizeof(address->text) - 1; i++) {
			char c = un->sun_path[i];
			if (c == '\0' && i > 0)
				break;
			/* An abstract name begins with NUL: shown as '@'. */
			address->text[i] = c == '\0' ? '@' : (c > ' ' && c < 127) ? c : '?';
		}
		break;
	default: address->family = AF_UNSPEC;
	}
}

int address_parse(struct address *address, const char *text)
{
	char bare[INET6_ADDRSTRLEN + 1];
	size_t length = strlen(text);
	bool bracketed = length > 2 && text[0] == '[' && text[length - 1] == ']';

	memset(address, 0, sizeof(*address));
	if (bracketed)
		length -= 2;
	if (length >= sizeof(bare))
		return -1;
	snprintf(bare, sizeof(bare), "%.*s", (int)length, bracketed ? text + 1 : text);
	if (inet_pton(AF_INET, bare, address->ip) == 1)
		address->family = AF_INET;
	else if (inet_pton(AF_INET6, bare, address->ip) == 1)
		address->family = AF_INET6;
	else
		return -1;
	set_text(address);
	return 0;
}

const char *network_parse(struct network *network, const char *text)
{
	size_t length = strcspn(text, "/");
	char base[INET6_ADDRSTRLEN + 2] = "";
	uint64_t bits;

	if (length < sizeof(base))
		memcpy(base, text, length);
	if (address_parse(&network->base, base) != 0)
		return "a network needs a numeric address, with or without /bits";
	network->bits = network->base.family == AF_INET ? 32 : 128;
	if (text[length] == '\0')
		return NULL;
	if (network->base.family == AF_INET && strchr(base, ':') != NULL)
		return "an IPv4 network needs IPv4 notation";
	if (!parse_number(text + length + 1, 0, network->bits, &bits))
		return "a network has an invalid prefix length";
	network->bits = (unsigned)bits;
	return NULL;
}

bool network_contains(const struct network *network, const struct address *address)
{
	unsigned whole = network->bits / 8, rest = network->bits % 8;

	if (address->family != network->base.family ||
	    memcmp(address->ip, network->base.ip, whole) != 0)
		return false;
	return rest == 0 || ((address->ip[whole] ^ network->base.ip[whole]) >> (8 - rest)) == 0;
}

static bool only(const char *text, const char *allowed)
{
	return *text != '\0' && text[strspn(text, allowed)] == '\0';
}

static bool is_ip(int family, const char *text)
{
	uint8_t binary[16];

	return inet_pton(family, text, binary) == 1;
}

/* A DNS name. One that ends in a number, such as 127.0.0.300, is a misspelt address. */
static bool is_name(const char *text)
{
	const char *dot = strrchr(text, '.');

	return strlen(text) <= 253 && only(text, NAME_CHARS) && *text != '-' && *text != '.' &&
	    !only(dot != NULL ? dot + 1 : text, DIGITS);
}

static const char *check_port(const char *text, uint64_t least)
{
	uint64_t number;

	return parse_number(text, least, 65535, &number)
	    ? NULL
	    : "the port must be a number from 1 to 65535, not a name";
}

/* The host of [host]:port: an IP address, IPv6 with or without %zone. */
static const char *check_bracketed(char *host)
{
	char *zone = strchr(host, '%');
	bool valid;

	if (zone != NULL)
		*zone = '\0';
	valid = is_ip(AF_INET6, host) || (zone == NULL && is_ip(AF_INET, host));
	if (zone != NULL)
		*zone++ = '%';
	if (!valid)
		return "what is in the brackets is not an IP address";
	if (zone != NULL && (!only(zone, NAME_CHARS) || strlen(zone) > 15))
		return "what follows % is not the name of a network interface";
	return NULL;
}

static const char *check_host(const struct address_text *address)
{
	if (strchr(address->host, ':') != NULL)
		return "an IPv6 address needs brackets: [address]:port";
	return address->numeric || is_name(address->host) ? NULL : "not a host's name or address";
}

static const char *split_tcp(struct address_text *address, char *text, uint64_t least_port)
{
	bool bracketed = *text == '[';
	char *end = bracketed ? strstr(text, "]:") : strrchr(text, ':');
	const char *problem;

	if (end == NULL)
		return bracketed ? "not [address]:port"
				 : "not host:port, [address]:port, /path or vsock:CID:port";
	*end = '\0';
	address->kind = ADDRESS_TCP;
	address->host = bracketed ? text + 1 : text;
	address->port = bracketed ? end + 2 : end + 1;
	address->numeric = bracketed || is_ip(AF_INET, text);
	problem = bracketed ? check_bracketed(text + 1) : check_host(address);
	return problem != NULL ? problem : check_port(address->port, least_port);
}

static const char *split_vsock(struct address_text *address, char *text, bool host_optional)
{
	char *colon = strchr(text, ':');
	uint64_t number;

	if (colon != NULL)
		*colon++ = '\0';
	address->kind = ADDRESS_VSOCK;
	address->host = text;
	address->port = colon;
	if (colon == NULL || !parse_number(colon, 0, UINT32_MAX - 1, &number) ||
	    !(parse_number(text, 0, UINT32_MAX, &number) || (host_optional && *text == '\0')))
		return "vsock takes two numbers: vsock:CID:port";
	return NULL;
}

/* Copy the text, to be taken apart. Returns the copy, or NULL if no address is so long. */
static char *copy(struct address_text *address, const char *text)
{
	memset(address, 0, sizeof(*address));
	if (strlen(text) >= sizeof(address->copy))
		return NULL;
	return strcpy(address->copy, text); /* NOLINT(*.insecureAPI.strcpy): it fits */
}

const char *address_split(struct address_text *address, const char *given, bool host_optional)
{
	char *text = copy(address, given);

	if (text == NULL)
		return "too long for an address";
	if (*text == '/') {
		address->kind = ADDRESS_UNIX;
		address->path = text;
		return strlen(text) < UNIX_PATH_SIZE ? NULL
						     : "the path is too long for a UNIX socket";
	}
	if (strncmp(text, "vsock:", 6) == 0)
		return split_vsock(address, text + 6, host_optional);
	if (host_optional && only(text, DIGITS)) {
		address->host = "";
		address->port = text;
		return check_port(text, 1);
	}
	return split_tcp(address, text, 1);
}

const char *address_split_local(struct address_text *address, const char *given)
{
	char *text = copy(address, given);
	struct address bare;
	const char *problem;

	if (text == NULL)
		return "too long for an address";
	if (address_parse(&bare, text) == 0) {
		address->host = text + strspn(text, "[");
		text[strcspn(text, "]")] = '\0';
		address->port = "0";
		address->numeric = true;
		return NULL;
	}
	problem = split_tcp(address, text, 0);
	return problem == NULL && !address->numeric ? "must be a numeric address" : problem;
}

/* Read an address and its port from two variables. Returns 0, or -1 if `name` holds no address. */
static int from_variables(struct address *address, const char *name, const char *port_name)
{
	const char *text = name == NULL ? NULL : getenv(name);
	uint64_t port;

	if (text == NULL || address_parse(address, text) != 0)
		return -1;
	text = getenv(port_name);
	if (text != NULL && parse_number(text, 0, 65535, &port))
		address->port = (uint32_t)port;
	return 0;
}

static void from_environment(struct peer *peer)
{
	/* The remote address and port, then the local ones where there are any. */
	static const char *const names[][4] = {
		{ "REMOTE_ADDR", "REMOTE_PORT" },
		{ "TCPREMOTEIP", "TCPREMOTEPORT", "TCPLOCALIP", "TCPLOCALPORT" },
		{ "REMOTE_HOST", "REMOTE_PORT" },
		{ "SOCAT_PEERADDR", "SOCAT_PEERPORT", "SOCAT_SOCKADDR", "SOCAT_SOCKPORT" },
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (from_variables(&peer->remote, names[i][0], names[i][1]) == 0) {
			from_variables(&peer->local, names[i][2], names[i][3]);
			return;
		}
}

void peer_learn(struct peer *peer, int fd)
{
	struct sockaddr_storage from = { 0 };
	socklen_t size = sizeof(from);

	memset(peer, 0, sizeof(*peer));
	if (getpeername(fd, (struct sockaddr *)&from, &size) == 0)
		address_from(&peer->remote, &from, size);
	size = sizeof(from);
	if (getsockname(fd, (struct sockaddr *)&from, &size) == 0)
		address_from(&peer->local, &from, size);
	/* Two nameless ends: socat hands us a socketpair of its own. */
	if (peer->remote.text[0] == '\0' && peer->local.text[0] == '\0')
		memset(peer, 0, sizeof(*peer));
	/* Once a connection has been reset, the kernel does not know its remote end any more. */
	if (peer->remote.family == AF_UNSPEC)
		from_environment(peer);
}

void address_format(const struct address *address, char *text, size_t size)
{
	if (address->text[0] == '\0')
		snprintf(text, size, "-");
	else if (address->port == 0)
		snprintf(text, size, "%s", address->text);
	else
		snprintf(text, size, address->family == AF_INET6 ? "[%s]:%u" : "%s:%u",
		    address->text, address->port);
}

static void export(const struct address *address, const char *name, const char *port_name)
{
	char port[16];

	unsetenv(name);
	unsetenv(port_name);
	if (address->text[0] != '\0')
		setenv(name, address->text, 1);
	if (address->port != 0) {
		snprintf(port, sizeof(port), "%u", address->port);
		setenv(port_name, port, 1);
	}
}

void peer_export(const struct peer *peer)
{
	export(&peer->remote, "SPIPE_PEER_ADDR", "SPIPE_PEER_PORT");
	export(&peer->local, "SPIPE_LOCAL_ADDR", "SPIPE_LOCAL_PORT");
}

struct source_network address_source(const struct address *address)
{
	struct source_network source = { 0 };

	if (address->family == AF_INET || address->family == AF_INET6) {
		source.family = address->family;
		memcpy(source.network, address->ip, address->family == AF_INET ? 4 : 8);
	}
	return source;
}

bool source_equal(const struct source_network *a, const struct source_network *b)
{
	return a->family == b->family && memcmp(a->network, b->network, sizeof(a->network)) == 0;
}

void source_format(const struct source_network *source, char *text, size_t size)
{
	uint8_t ip[16] = { 0 };
	char address[INET6_ADDRSTRLEN] = "other addresses";

	memcpy(ip, source->network, sizeof(source->network));
	if (source->family != 0)
		inet_ntop(source->family, ip, address, sizeof(address));
	snprintf(text, size, "%s%s", address, source->family == AF_INET6 ? "/64" : "");
}
