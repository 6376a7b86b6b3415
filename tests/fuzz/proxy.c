/*
 * PROXY headers, read back by a second reading of the specification. Input: version and kinds, two ports, two
 * addresses, the key's name.
 */

#include <arpa/inet.h>
#include <stdbool.h>

#include "../../common/proxy.h"
#include "fuzz.h"

static void take_address(struct input *in, struct address *a, int kind)
{
	uint16_t port;
	uint8_t ip[16];
	char text[64];

	memset(a, 0, sizeof(*a));
	take(in, &port, sizeof(port));
	switch (kind) {
	case 0: return;
	case 1:
	case 2:
		take(in, ip, kind == 1 ? 4 : 16);
		inet_ntop(kind == 1 ? AF_INET : AF_INET6, ip, text, sizeof(text));
		CHECK(address_parse(a, text) == 0);
		break;
	default: /* a path, or a VSOCK's CID */
		a->family = kind == 3 ? AF_UNIX : AF_VSOCK;
		take_text(in, a->text, sizeof(a->text));
		memcpy(a->path, a->text, sizeof(a->text));
	}
	a->port = port;
}

static void check_1(const uint8_t *header, size_t size, const struct peer *peer)
{
	char line[128], family[8], remote[64], local[64];
	unsigned from, to;
	uint8_t ip[16];
	int used = 0;

	CHECK(size >= 15 && size <= 107);
	memcpy(line, header, size);
	line[size] = '\0';
	CHECK(strlen(line) == size && strstr(line, "\r\n") == line + size - 2);
	if (strcmp(line, "PROXY UNKNOWN\r\n") == 0) {
		CHECK(peer->remote.family != peer->local.family ||
		    (peer->remote.family != AF_INET && peer->remote.family != AF_INET6));
		return;
	}
	/* the numbers are of five digits at most: NOLINTNEXTLINE(cert-err34-c) */
	CHECK(sscanf(line, "PROXY %7s %63s %63s %u %u\r\n%n", family, remote, local, &from, &to,
		  &used) == 5 &&
	    (size_t)used == size);
	CHECK(inet_pton(peer->remote.family, remote, ip) == 1 &&
	    memcmp(ip, peer->remote.ip, peer->remote.family == AF_INET ? 4 : 16) == 0);
	CHECK(inet_pton(peer->remote.family, local, ip) == 1 &&
	    memcmp(ip, peer->local.ip, peer->remote.family == AF_INET ? 4 : 16) == 0);
	CHECK(strcmp(family, peer->remote.family == AF_INET ? "TCP4" : "TCP6") == 0);
	CHECK(from == peer->remote.port && to == peer->local.port);
}

static void check_2(const uint8_t *h, size_t size, const struct peer *peer, const char *key)
{
	static const struct {
		int family;
		uint8_t code;
		size_t each;
	} known[] = { { AF_INET, 0x11, 4 }, { AF_INET6, 0x21, 16 }, { AF_UNIX, 0x31, 108 } };
	size_t at = 16, length;
	bool local = true;

	CHECK(size >= 16 && memcmp(h, "\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a", 12) == 0);
	CHECK((size_t)(h[14] * 256 + h[15]) == size - 16);
	for (size_t i = 0; i < 3; i++) {
		if (h[13] != known[i].code)
			continue;
		local = false;
		CHECK(h[12] == 0x21 && peer->remote.family == known[i].family &&
		    peer->local.family == known[i].family);
		if (i < 2) {
			CHECK(memcmp(h + at, peer->remote.ip, known[i].each) == 0);
			CHECK(memcmp(h + at + known[i].each, peer->local.ip, known[i].each) == 0);
			at += 2 * known[i].each;
			CHECK((uint32_t)(h[at] * 256 + h[at + 1]) == peer->remote.port);
			CHECK((uint32_t)(h[at + 2] * 256 + h[at + 3]) == peer->local.port);
			at += 4;
		} else {
			CHECK(memcmp(h + at, peer->remote.path, 108) == 0);
			CHECK(memcmp(h + at + 108, peer->local.path, 108) == 0);
			at += 216;
		}
	}
	if (local)
		CHECK(h[12] == 0x20 && h[13] == 0);
	if (key != NULL) {
		length = strlen(key) < 255 ? strlen(key) : 255;
		CHECK(h[at] == 2 && (size_t)(h[at + 1] * 256 + h[at + 2]) == length);
		CHECK(memcmp(h + at + 3, key, length) == 0);
		at += 3 + length;
	}
	CHECK(at == size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	uint8_t what = take_byte(&in), kinds = take_byte(&in);
	uint8_t *header = malloc(PROXY_HEADER_MOST);
	struct peer peer;
	char name[400];
	const char *key;
	size_t made;

	take_address(&in, &peer.remote, kinds % 16 % 5);
	take_address(&in, &peer.local, kinds / 16 % 5);
	key = (what & 2) != 0 ? take_text(&in, name, sizeof(name)) : NULL;
	made = proxy_header(header, 1 + (what & 1), &peer, key);
	CHECK(made <= PROXY_HEADER_MOST);
	if ((what & 1) == 0)
		check_1(header, made, &peer);
	else
		check_2(header, made, &peer, key);
	free(header);
	return 0;
}
