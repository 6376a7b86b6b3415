#include "proxy.h"

#include <stdio.h>
#include <string.h>

#define PP2_TYPE_AUTHORITY 0x02
#define NAME_MOST 255

static size_t version_1(uint8_t *header, const struct peer *peer)
{
	const char *family = peer->remote.family == AF_INET ? "TCP4" : "TCP6";
	char line[128]; /* the specification allows 107 */

	if ((peer->remote.family != AF_INET && peer->remote.family != AF_INET6) ||
	    peer->local.family != peer->remote.family)
		snprintf(line, sizeof(line), "PROXY UNKNOWN\r\n");
	else
		snprintf(line, sizeof(line), "PROXY %s %.39s %.39s %u %u\r\n", family,
		    peer->remote.text, peer->local.text, peer->remote.port, peer->local.port);
	memcpy(header, line, strlen(line)); /* NOLINT(bugprone-not-null-terminated-result) */
	return strlen(line);
}

/* Append `size` bytes and move on. */
static uint8_t *put(uint8_t *next, const void *data, size_t size)
{
	memcpy(next, data, size);
	return next + size;
}

static uint8_t *put_number(uint8_t *next, uint32_t number)
{
	return put(next, (uint8_t[]){ (uint8_t)(number >> 8), (uint8_t)number }, 2);
}

static size_t version_2(uint8_t *header, const struct peer *peer, const char *key)
{
	/* A family's code (stream in the lower half) and the size of one of its addresses. */
	static const struct {
		sa_family_t family;
		uint8_t code;
		size_t size;
	} known[] = { { AF_INET, 0x11, 4 }, { AF_INET6, 0x21, 16 }, { AF_UNIX, 0x31, 0 } };
	const struct address *remote = &peer->remote, *local = &peer->local;
	uint8_t *next = put(header, "\r\n\r\n\0\r\nQUIT\n", 12), *length;
	size_t i = 0, name;

	while (i < 3 && (known[i].family != remote->family || known[i].family != local->family))
		i++;
	*next++ = i < 3 ? 0x21 : 0x20; /* version 2, PROXY or LOCAL */
	*next++ = i < 3 ? known[i].code : 0x00;
	length = next;
	next += 2;
	if (i < 2) {
		next = put(next, remote->ip, known[i].size);
		next = put(next, local->ip, known[i].size);
		next = put_number(next, remote->port);
		next = put_number(next, local->port);
	} else if (i == 2) {
		next = put(next, remote->text, sizeof(remote->text));
		next = put(next, local->text, sizeof(local->text));
	}
	if (key != NULL) {
		name = strnlen(key, NAME_MOST);
		*next++ = PP2_TYPE_AUTHORITY;
		next = put_number(next, (uint32_t)name);
		next = put(next, key, name);
	}
	put_number(length, (uint32_t)(next - length - 2));
	return (size_t)(next - header);
}

size_t proxy_header(uint8_t header[static PROXY_HEADER_MOST], int version, const struct peer *peer,
    const char *key)
{
	return version == 1 ? version_1(header, peer) : version_2(header, peer, key);
}
