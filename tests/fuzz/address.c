/*
 * Addresses as text, and the environment that supervisors leave. Input: strings, each ended by a NUL: one
 * to parse in every way there is, seven for the variables, and the name of a UNIX socket.
 */

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <stddef.h>
#include <sys/un.h>
#include <unistd.h>

#include "../../common/address.h"
#include "fuzz.h"

static const char *const names[] = { "REMOTE_ADDR", "REMOTE_PORT", "TCPREMOTEIP", "TCPREMOTEPORT",
	"REMOTE_HOST", "SOCAT_PEERADDR", "SOCAT_PEERPORT" };

/* Whatever it came from, it is text that a log and a header can carry. */
static void check(const struct address *a)
{
	struct address again;
	char text[128], small[8];

	CHECK(memchr(a->text, '\0', sizeof(a->text)) != NULL);
	for (const char *c = a->text; *c != '\0'; c++)
		CHECK(*c > ' ' && *c < 127);
	CHECK(a->port <= 65535 || a->family == AF_VSOCK);
	if (a->family == AF_INET || a->family == AF_INET6) {
		CHECK(address_parse(&again, a->text) == 0);
		CHECK(again.family == a->family &&
		    memcmp(again.ip, a->ip, a->family == AF_INET ? 4 : 16) == 0 &&
		    strcmp(again.text, a->text) == 0);
	}
	address_format(a, text, sizeof(text));
	CHECK(text[0] != '\0' && strstr(text, a->text) != NULL);
	address_format(a, small, sizeof(small));
	CHECK(strncmp(small, text, sizeof(small) - 1) == 0);
}

static void check_exported(const char *name, const char *value)
{
	const char *found = getenv(name);

	CHECK(value[0] == '\0' ? found == NULL : found != NULL && strcmp(found, value) == 0);
}

static bool is_number(const char *text, unsigned long least, unsigned long most)
{
	unsigned long number = strtoul(text, NULL, 10);

	return text[0] != '\0' && strspn(text, "0123456789") == strlen(text) && number >= least &&
	    number <= most;
}

static void check_split(const struct address_text *a, bool host_optional, unsigned long least_port)
{
	struct addrinfo hints = { .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
		.ai_socktype = SOCK_STREAM };
	struct addrinfo *found;

	if (a->kind == ADDRESS_UNIX) {
		CHECK(a->path[0] == '/' && strlen(a->path) < 108);
		return;
	}
	CHECK(a->host[0] != '\0' || host_optional);
	if (a->kind == ADDRESS_VSOCK) {
		CHECK(a->host[0] == '\0' || is_number(a->host, 0, UINT32_MAX));
		CHECK(is_number(a->port, 0, UINT32_MAX - 1));
		return;
	}
	CHECK(is_number(a->port, least_port, 65535));
	for (const char *c = a->host; *c != '\0'; c++)
		CHECK(*c > ' ' && *c < 127 && strchr("[]/\"\\$", *c) == NULL);
	if (a->numeric && strchr(a->host, '%') == NULL) {
		CHECK(getaddrinfo(a->host, a->port, &hints, &found) == 0);
		freeaddrinfo(found);
	}
}

static void split(const char *text)
{
	struct address_text a;

	for (int host_optional = 0; host_optional < 2; host_optional++)
		if (address_split(&a, text, host_optional) == NULL)
			check_split(&a, host_optional, 1);
	if (address_split_local(&a, text) == NULL) {
		CHECK(a.kind == ADDRESS_TCP && a.numeric);
		check_split(&a, false, 0);
	}
}

static void learn(int fd)
{
	struct peer peer;

	peer_learn(&peer, fd);
	check(&peer.remote);
	check(&peer.local);
	peer_export(&peer);
	check_exported("SPIPE_PEER_ADDR", peer.remote.text);
	check_exported("SPIPE_LOCAL_ADDR", peer.local.text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	struct input in = { data, size };
	struct in6_addr binary;
	struct address a;
	char text[512];
	size_t length;
	int fd, mine;

	take_text(&in, text, sizeof(text));
	split(text);
	if (address_parse(&a, text) == 0)
		check(&a);
	else
		CHECK(inet_pton(AF_INET, text, &binary) != 1 &&
		    inet_pton(AF_INET6, text, &binary) != 1);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		take_text(&in, text, sizeof(text));
		if (text[0] == '\0')
			unsetenv(names[i]);
		else
			setenv(names[i], text, 1);
	}
	fd = open("/dev/null", O_RDWR);
	learn(fd);
	close(fd);

	/* A socket with an abstract name of any bytes, connected to itself being too much to ask. */
	length = in.left < sizeof(name.sun_path) - 1 ? in.left : sizeof(name.sun_path) - 1;
	take(&in, name.sun_path + 1, length);
	mine = socket(AF_UNIX, SOCK_DGRAM, 0);
	fd = socket(AF_UNIX, SOCK_DGRAM, 0);
	if (length > 0 &&
	    bind(mine, (struct sockaddr *)&name,
		(socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length)) == 0) {
		learn(mine);
		if (connect(fd, (struct sockaddr *)&name,
			(socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length)) == 0)
			learn(fd);
	}
	close(fd);
	close(mine);
	return 0;
}
